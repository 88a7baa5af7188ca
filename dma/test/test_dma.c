/* SPDX-License-Identifier: MIT */
/*
 * Coherent memory as a driver sees it. In the kernel other drivers hold memory
 * meanwhile, so what is counted is compared with what it was before.
 */
#include <dma/dma.h>
#include <mm/fault.h>
#include <mm/global.h>
#include <selftest/selftest.h>

#define MAX_LIVE 48

/* With MM_DEBUG the global allocator remembers every block that ever was, in pages. */
#define DEBUG_PAGES (MM_DEBUG ? 64 : 0)

struct buffer {
	struct dma_info info;
	struct layout layout;
};

static struct buffer live[MAX_LIVE];

static struct layout layout(size_t size, size_t align)
{
	return (struct layout){size, align};
}

static bool all_bytes(const void *p, size_t n, uint8_t value)
{
	const volatile uint8_t *byte = p;

	for (size_t i = 0; i < n; i++)
		if (byte[i] != value)
			return false;
	return true;
}

/* Counts when nothing is kept that could be given back. */
static struct dma_stats settled(void)
{
	struct dma_stats s;

	dma_trim();
	dma_stats(&s);
	return s;
}

static bool same_stats(const struct dma_stats *a, const struct dma_stats *b)
{
	return a->live == b->live && a->live_bytes == b->live_bytes && a->pages == b->pages &&
	       a->noncached_pages == b->noncached_pages &&
	       a->quarantined_pages == b->quarantined_pages &&
	       a->pool_free_pages == b->pool_free_pages;
}

static bool balanced(const struct dma_stats *before)
{
	struct dma_stats now = settled();

	return same_stats(before, &now);
}

/* --- Memory ------------------------------------------------------------------ */

static int check_buffer(struct layout l)
{
	struct dma_info info = {0};
	phys_addr_t pa;

	CHECK_OR(alloc_coherent(l, &info) == ALLOC_OK, -1);
	CHECK_OR(!((uintptr_t)info.cpu_addr & (l.align - 1)), -1);
	CHECK_OR(!(info.bus_addr.value & (l.align - 1)), -1);
	CHECK_OR(all_bytes(info.cpu_addr, l.size, 0), -1);
	CHECK_OR(virt_to_bus(info.cpu_addr).value == info.bus_addr.value, -1);
	pa = mm_port_virt_to_phys(virt_addr(info.cpu_addr));
	CHECK_OR(bus_to_phys(info.bus_addr).value == pa.value, -1);
	CHECK_OR(phys_to_bus(pa).value == info.bus_addr.value, -1);
	__builtin_memset(info.cpu_addr, 0xa5, l.size);
	CHECK_OR(all_bytes(info.cpu_addr, l.size, 0xa5), -1);
	CHECK_OR(dealloc_coherent(info, l) == ALLOC_OK, -1);
	return 0;
}

/* Twice, so that the second is made of dirty memory. */
SELFTEST_KEEPS(dma, zeroed_at_all_sizes, DEBUG_PAGES)
{
	static const size_t sizes[] = {1, 7, 64, 100, 2048, 4095, 4096, 4097, 12293, 40000};
	static const size_t aligns[] = {1, 8, 64, 2048, 4096, 65536};
	struct dma_stats before = settled();

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (size_t a = 0; a < sizeof(aligns) / sizeof(aligns[0]); a++)
			for (int again = 0; again < 2; again++)
				if (check_buffer(layout(sizes[s], aligns[a])))
					return;
	CHECK(balanced(&before));
}

static size_t random_size(uint64_t r)
{
	return 1 + (r >> 8) % (r & 7 ? 700 : 3 * MM_PAGE_SIZE);
}

static int replace(struct dma_device *dev, size_t i, uint64_t r)
{
	struct buffer *b = &live[i];

	if (b->layout.size) {
		CHECK_OR(all_bytes(b->info.cpu_addr, b->layout.size, (uint8_t)(i + 1)), -1);
		CHECK_OR(dma_dealloc_coherent(dev, b->info, b->layout) == ALLOC_OK, -1);
		b->layout.size = 0;
		return 0;
	}
	b->layout = layout(random_size(r), (size_t)1 << (r >> 40) % 8);
	CHECK_OR(dma_alloc_coherent(dev, b->layout, &b->info) == ALLOC_OK, -1);
	CHECK_OR(all_bytes(b->info.cpu_addr, b->layout.size, 0), -1);
	__builtin_memset(b->info.cpu_addr, (int)(i + 1), b->layout.size);
	return 0;
}

static int random_use(struct dma_device *dev)
{
	struct dma_stats before = settled();
	uint64_t seed = 7;

	__builtin_memset(live, 0, sizeof(live));
	for (int step = 0; step < 600; step++) {
		uint64_t r = selftest_random(&seed);

		if (replace(dev, (r >> 50) % MAX_LIVE, r))
			return -1;
	}
	for (size_t i = 0; i < MAX_LIVE; i++)
		if (live[i].layout.size && replace(dev, i, 0))
			return -1;
	CHECK_OR(balanced(&before), -1);
	return 0;
}

SELFTEST_KEEPS(dma, contents_survive, DEBUG_PAGES)
{
	struct dma_device dev;

	dma_device_init(&dev, "random");
	random_use(&dev);
}

/* A device without coherence that this machine can serve; else the test is skipped. */
static bool noncoherent_device(struct dma_device *dev)
{
	struct dma_info info;

	dma_device_init(dev, "noncoherent");
	dev->coherent = false;
	if (dma_alloc_coherent(dev, layout(1, 1), &info) != ALLOC_OK) {
		selftest_skip("this machine cannot make memory coherent");
		return false;
	}
	return dma_dealloc_coherent(dev, info, layout(1, 1)) == ALLOC_OK;
}

SELFTEST_KEEPS(dma, contents_survive_uncached, DEBUG_PAGES)
{
	struct dma_device dev;

	if (noncoherent_device(&dev))
		random_use(&dev);
}

SELFTEST_KEEPS(dma, kinds_do_not_mix, DEBUG_PAGES)
{
	struct dma_device coherent, other;
	struct dma_info a[8], b[8];
	struct dma_stats before, during;
	struct layout l = layout(100, 4);

	if (!noncoherent_device(&other))
		return;
	dma_device_init(&coherent, "coherent");
	before = settled();
	for (int i = 0; i < 8; i++) {
		CHECK(dma_alloc_coherent(&coherent, l, &a[i]) == ALLOC_OK);
		CHECK(dma_alloc_coherent(&other, l, &b[i]) == ALLOC_OK);
	}
	for (int i = 0; i < 64; i++)
		CHECK((uintptr_t)a[i / 8].cpu_addr >> MM_PAGE_SHIFT !=
		      (uintptr_t)b[i % 8].cpu_addr >> MM_PAGE_SHIFT);
	dma_stats(&during);
	CHECK(during.noncached_pages > 0 && during.live == before.live + 16);
	for (int i = 0; i < 8; i++) {
		CHECK(dma_dealloc_coherent(&coherent, a[i], l) == ALLOC_OK);
		CHECK(dma_dealloc_coherent(&other, b[i], l) == ALLOC_OK);
	}
	CHECK(balanced(&before));
}

SELFTEST_KEEPS(dma, heap_grows_by_four_pages, DEBUG_PAGES)
{
	struct dma_stats before = settled(), now;
	struct layout l = layout(600, 8);
	size_t n = 0;

	do {
		CHECK(n < MAX_LIVE && alloc_coherent(l, &live[n++].info) == ALLOC_OK);
		dma_stats(&now);
	} while (now.pages == before.pages);
	CHECK(now.pages == before.pages + 4);
	CHECK(now.live == before.live + n && now.live_bytes == before.live_bytes + n * l.size);
	while (n)
		CHECK(dealloc_coherent(live[--n].info, l) == ALLOC_OK);
	CHECK(balanced(&before));
}

/* --- What is refused --------------------------------------------------------- */

static enum alloc_result try(size_t size, size_t align)
{
	struct dma_info info = {&info, {42}};
	enum alloc_result r = alloc_coherent(layout(size, align), &info);

	CHECK_OR(r == ALLOC_OK || (info.cpu_addr == &info && info.bus_addr.value == 42), ALLOC_OK);
	return r;
}

SELFTEST_KEEPS(dma, invalid_layouts, DEBUG_PAGES)
{
	struct dma_stats before = settled();

	CHECK(try(0, 8) == ALLOC_INVALID_PARAM);
	CHECK(try(8, 0) == ALLOC_INVALID_PARAM);
	CHECK(try(8, 24) == ALLOC_INVALID_PARAM);
	CHECK(try(8, MM_MAX_ALIGN * 2) == ALLOC_INVALID_PARAM);
	CHECK(try(SIZE_MAX, 1) == ALLOC_INVALID_PARAM);
	CHECK(try(SIZE_MAX - 4095, 4096) == ALLOC_INVALID_PARAM);
	CHECK(try((size_t)PTRDIFF_MAX - 8, 8) == ALLOC_NO_MEMORY);
	CHECK(try((size_t)1 << 60, MM_MAX_ALIGN) == ALLOC_NO_MEMORY);
	CHECK(balanced(&before));
}

static int refused(struct dma_info info, struct layout l, enum alloc_result as,
		   enum mm_fault_kind kind)
{
	unsigned long faults = mm_fault_count();

	CHECK_OR(dealloc_coherent(info, l) == as, -1);
	CHECK_OR(mm_fault_count() == faults + 1 && mm_fault_last().kind == kind, -1);
	CHECK_OR(mm_fault_last().ptr == info.cpu_addr && mm_fault_last().caller, -1);
	return 0;
}

static int misuse_of(struct layout l)
{
	struct dma_info good, bad;
	struct layout wrong = l;
	struct dma_device other;

	CHECK_OR(alloc_coherent(l, &good) == ALLOC_OK, -1);
	bad = (struct dma_info){NULL, good.bus_addr};
	CHECK_OR(!refused(bad, l, ALLOC_NOT_ALLOCATED, MM_FAULT_FOREIGN), -1);
	bad = (struct dma_info){&good, good.bus_addr};
	CHECK_OR(!refused(bad, l, ALLOC_NOT_ALLOCATED, MM_FAULT_FOREIGN), -1);
	bad = (struct dma_info){(char *)good.cpu_addr + 16, good.bus_addr};
	CHECK_OR(!refused(bad, l, ALLOC_NOT_ALLOCATED, MM_FAULT_FOREIGN), -1);
	bad = (struct dma_info){good.cpu_addr, {good.bus_addr.value + MM_PAGE_SIZE}};
	CHECK_OR(!refused(bad, l, ALLOC_NOT_ALLOCATED, MM_FAULT_FOREIGN), -1);
	wrong.size++;
	CHECK_OR(!refused(good, wrong, ALLOC_INVALID_PARAM, MM_FAULT_WRONG_LAYOUT), -1);
	wrong = layout(l.size, l.align * 2);
	CHECK_OR(!refused(good, wrong, ALLOC_INVALID_PARAM, MM_FAULT_WRONG_LAYOUT), -1);
	dma_device_init(&other, "other");
	CHECK_OR(dma_dealloc_coherent(&other, good, l) == ALLOC_NOT_ALLOCATED, -1);
	CHECK_OR(all_bytes(good.cpu_addr, l.size, 0), -1);
	CHECK_OR(dealloc_coherent(good, l) == ALLOC_OK, -1);
	CHECK_OR(!refused(good, l, ALLOC_NOT_ALLOCATED, MM_FAULT_DOUBLE_FREE), -1);
	return 0;
}

/* A block is known to have been freed although another was since. */
static int freed_before_another(struct layout l)
{
	struct dma_info first, second;

	CHECK_OR(alloc_coherent(l, &first) == ALLOC_OK, -1);
	CHECK_OR(alloc_coherent(l, &second) == ALLOC_OK, -1);
	CHECK_OR(dealloc_coherent(first, l) == ALLOC_OK, -1);
	CHECK_OR(dealloc_coherent(second, l) == ALLOC_OK, -1);
	return refused(first, l, ALLOC_NOT_ALLOCATED, MM_FAULT_DOUBLE_FREE);
}

SELFTEST_KEEPS(dma, misuse, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	int failed;

	mm_fault_expect(true);
	failed = misuse_of(layout(200, 8)) || misuse_of(layout(MM_PAGE_SIZE, 64)) ||
		 misuse_of(layout(3 * MM_PAGE_SIZE + 1, 16384)) ||
		 freed_before_another(layout(200, 8));
	mm_fault_expect(false);
	CHECK(!failed && balanced(&before));
}

/* Every request to the page allocator fails once: no memory, and everything is as before. */
static int without_pages(struct layout l)
{
	struct global_allocator *g = global_allocator();
	struct dma_stats before = settled();
	enum alloc_result r = ALLOC_NO_MEMORY;
	struct dma_info info;

	for (unsigned long nth = 1; r != ALLOC_OK; nth++) {
		CHECK_OR(balanced(&before) && nth < 20, -1);
		global_allocator_fail_pages(g, nth);
		r = alloc_coherent(l, &info);
		global_allocator_fail_pages(g, 0);
		CHECK_OR(r == ALLOC_OK || r == ALLOC_NO_MEMORY, -1);
	}
	CHECK_OR(all_bytes(info.cpu_addr, l.size, 0), -1);
	CHECK_OR(dealloc_coherent(info, l) == ALLOC_OK && balanced(&before), -1);
	return 0;
}

SELFTEST_KEEPS(dma, out_of_pages, DEBUG_PAGES)
{
	if (!without_pages(layout(300, 8)))
		without_pages(layout(5 * MM_PAGE_SIZE, 8));
}

/* --- Devices ----------------------------------------------------------------- */

SELFTEST_KEEPS(dma, windows, DEBUG_PAGES)
{
	struct dma_device dev;
	bus_addr_t bus = {1};
	phys_addr_t pa = {1};

	dma_device_init(&dev, "windows");
	dev.window[0] = (struct dma_window){{0}, {0xc0000000}, 0x40000000};
	dev.window[1] = (struct dma_window){{0x100000000}, {0x20000000}, 0x10000000};
	dev.nwindows = 2;
	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x1000}, 4096, &bus) && bus.value == 0xc0001000);
	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x10fffffff}, 1, &bus) &&
	      bus.value == 0x2fffffff);
	/* Out of a window, past its end, of no length, beyond 2^64. */
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x40000000}, 1, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x3fffffff}, 2, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x1000}, 0, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x1000}, UINT64_MAX, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){UINT64_MAX}, 2, &bus) &&
	      bus.value == 0x2fffffff);
	CHECK(dma_bus_to_phys(&dev, (bus_addr_t){0xffffffff}, &pa) && pa.value == 0x3fffffff);
	CHECK(dma_bus_to_phys(&dev, (bus_addr_t){0x20000000}, &pa) && pa.value == 0x100000000);
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0x100000000}, &pa));
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0}, &pa) && pa.value == 0x100000000);
	dev.mask = 0x2fffffff;
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x1000}, 1, &bus));
	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x100000000}, 0x10000000, &bus));
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0xc0000000}, &pa));
	dev.window[0] = (struct dma_window){{0x1000}, {UINT64_MAX - 0xfff}, 0x2000};
	dev.mask = UINT64_MAX;
	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x1000}, 0x1000, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x1000}, 0x1001, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x2000}, 1, &bus));
}

static int device_gets(struct dma_device *dev, size_t size)
{
	struct dma_info info;
	uint64_t last;

	CHECK_OR(dma_alloc_coherent(dev, layout(size, 1), &info) == ALLOC_OK, -1);
	last = info.bus_addr.value + size - 1;
	CHECK_OR(last <= dev->mask && !(info.bus_addr.value & (dev->align - 1)), -1);
	if (dev->boundary)
		CHECK_OR(info.bus_addr.value / dev->boundary == last / dev->boundary, -1);
	CHECK_OR(all_bytes(info.cpu_addr, size, 0), -1);
	CHECK_OR(dma_dealloc_coherent(dev, info, layout(size, 1)) == ALLOC_OK, -1);
	return 0;
}

SELFTEST_KEEPS(dma, alignment_boundary_segment, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	struct dma_device dev;
	struct dma_info info;

	dma_device_init(&dev, "limits");
	dev.align = 128;
	dev.boundary = 65536;
	dev.max_segment = 50000;
	for (size_t size = 1; size <= dev.max_segment; size = size * 3 + 1)
		if (device_gets(&dev, size))
			return;
	CHECK(!device_gets(&dev, dev.max_segment));
	CHECK(dma_alloc_coherent(&dev, layout(50001, 1), &info) == ALLOC_INVALID_PARAM);
	dev.boundary = 512;
	for (size_t size = 1; size <= 512; size += 73)
		if (device_gets(&dev, size))
			return;
	CHECK(dma_alloc_coherent(&dev, layout(513, 1), &info) == ALLOC_INVALID_PARAM);
	CHECK(balanced(&before));
}

static bool can_have(struct dma_device *dev, struct layout l)
{
	struct dma_info info;

	return dma_alloc_coherent(dev, l, &info) == ALLOC_OK &&
	       dma_dealloc_coherent(dev, info, l) == ALLOC_OK;
}

/* A boundary that no memory comes near costs nothing, however large the buffer is. */
SELFTEST_KEEPS(dma, far_boundary, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	struct dma_device near, far;

	dma_device_init(&near, "no boundary");
	dma_device_init(&far, "far boundary");
	far.boundary = (uint64_t)1 << 62;
	for (size_t size = MM_PAGE_SIZE + 1; size < (size_t)24 << 20; size += size / 2)
		CHECK(can_have(&far, layout(size, 8)) == can_have(&near, layout(size, 8)));
	CHECK(balanced(&before));
}

/* Pages are pages in the CPU's eyes; in the device's they are as aligned as was asked for. */
SELFTEST_KEEPS(dma, window_offset, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	struct dma_device dev;

	dma_device_init(&dev, "odd window");
	dev.window[0].bus.value = 0x200;
	dev.window[0].size = (uint64_t)1 << 60;
	CHECK(can_have(&dev, layout(100, 8)) && can_have(&dev, layout(8192, 8)));
	CHECK(can_have(&dev, layout(8192, 512)) && !can_have(&dev, layout(8192, 1024)));
	CHECK(balanced(&before));
}

/* Memory is had through the last window when those before it show none: empty, or no RAM there. */
SELFTEST_KEEPS(dma, last_window, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	struct dma_device dev;

	dma_device_init(&dev, "four windows");
	dev.nwindows = DMA_MAX_WINDOWS;
	dev.window[DMA_MAX_WINDOWS - 1] = dev.window[0];
	dev.window[0].size = 0;
	CHECK(can_have(&dev, layout(100, 8)) && can_have(&dev, layout(8192, 8)));
	dev.window[0] = (struct dma_window){{UINT64_MAX - 0xffff}, {0}, 0x10000};
	CHECK(can_have(&dev, layout(100, 8)) && can_have(&dev, layout(8192, 8)));
	CHECK(balanced(&before));
}

SELFTEST_KEEPS(dma, devices_that_make_no_sense, DEBUG_PAGES)
{
	struct dma_device dev;
	struct dma_info info;

	dma_device_init(&dev, "nonsense");
	dev.align = 24;
	CHECK(dma_alloc_coherent(&dev, layout(8, 8), &info) == ALLOC_INVALID_PARAM);
	dev.align = 8;
	dev.boundary = 1000;
	CHECK(dma_alloc_coherent(&dev, layout(8, 8), &info) == ALLOC_INVALID_PARAM);
	dev.boundary = 0;
	dev.nwindows = DMA_MAX_WINDOWS + 1;
	CHECK(dma_alloc_coherent(&dev, layout(8, 8), &info) == ALLOC_INVALID_PARAM);
	dev.nwindows = 0;
	CHECK(dma_alloc_coherent(&dev, layout(8, 8), &info) == ALLOC_INVALID_PARAM);
}

/* A device that sees one page, which is in use, gets nothing; when it is moved off, no more. */
SELFTEST_KEEPS(dma, out_of_reach, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	struct layout page = layout(MM_PAGE_SIZE, MM_PAGE_SIZE);
	struct dma_info taken, info;
	struct dma_device dev;

	CHECK(alloc_coherent(page, &taken) == ALLOC_OK);
	dma_device_init(&dev, "short");
	dev.mask = MM_PAGE_SIZE - 1;
	dev.window[0].cpu = mm_port_virt_to_phys(virt_addr(taken.cpu_addr));
	CHECK(dma_alloc_coherent(&dev, layout(64, 8), &info) == ALLOC_NO_MEMORY);
	CHECK(dma_alloc_coherent(&dev, page, &info) == ALLOC_NO_MEMORY);
	dev.window[0].bus.value = MM_PAGE_SIZE;
	CHECK(dma_alloc_coherent(&dev, page, &info) == ALLOC_NO_MEMORY);
	CHECK(dealloc_coherent(taken, page) == ALLOC_OK && balanced(&before));
}

/* Small and large, for a device that emits 32 bits, whatever RAM there is above. */
SELFTEST_KEEPS(dma, mask_of_32_bits, DEBUG_PAGES)
{
	struct dma_stats before = settled();
	struct dma_device dev;
	struct dma_info info;

	dma_device_init(&dev, "32 bits");
	dev.mask = UINT32_MAX;
	if (dma_alloc_coherent(&dev, layout(8192, 8), &info) != ALLOC_OK) {
		selftest_skip("no memory below 4 GiB");
		return;
	}
	CHECK(info.bus_addr.value <= UINT32_MAX - 8191);
	CHECK(dma_dealloc_coherent(&dev, info, layout(8192, 8)) == ALLOC_OK);
	for (size_t size = 1; size < 100000; size = size * 7 + 3)
		if (device_gets(&dev, size))
			return;
	CHECK(balanced(&before));
}
