/* SPDX-License-Identifier: MIT */
/*
 * Coherent memory on a machine whose devices do not see its caches. The port's
 * hooks keep a state for every page of RAM and know which step may follow which:
 *
 *	CACHED --flush--> CLEAN --set NC--> CHANGED --flush--> NONCACHED
 *	NONCACHED --flush--> QUIET --set cached--> CACHED
 *
 * CLEAN demands zeroes and CHANGED that nothing was written since. Anything
 * else is a violation, as is a step on a page that is not allocated, and a page
 * in the page allocator that is not CACHED.
 */
#include <pthread.h>
#include <stdatomic.h>

#include <dma/dma.h>
#include <mm/global.h>
#include <selftest/selftest.h>

#include "mm_port_host.h"

#define RAM_PAGES  8192u /* what the runner makes of the global allocator */
#define POOL_PAGES 64u

/* With MM_DEBUG the global allocator remembers every block that ever was, in pages. */
#define DEBUG_PAGES (MM_DEBUG ? 64 : 0)

enum page_state { CACHED, CLEAN, CHANGED, NONCACHED, QUIET, LOST };

static struct {
	uint8_t state[RAM_PAGES];
	_Atomic unsigned int violations, flushes, changes, lines;
	unsigned int fail_flush, fail_change; /* which call fails from now; 0: none */
	int failure;			      /* of a change */
} sim;

static uint8_t pool[POOL_PAGES * MM_PAGE_SIZE] __attribute__((aligned(4096)));

/* Until a test says otherwise: what the tests of dma/test/ find on the host. */
__attribute__((constructor)) static void usual_machine(void)
{
	struct dma_config config = {.can_change_attr = true};

	dma_device_init(&config.device, "default");
	dma_init(&config);
}

/* --- The machine ------------------------------------------------------------- */

static uint8_t *state_of(uintptr_t page)
{
	return &sim.state[(page >> MM_PAGE_SHIFT) % RAM_PAGES];
}

static bool allocated(uintptr_t page)
{
	struct global_allocator *g = global_allocator();
	unsigned long irq = mm_port_lock(&g->page_lock);
	bool yes = page_alloc_is_allocated(&g->pages, (virt_addr_t){page});

	mm_port_unlock(&g->page_lock, irq);
	return yes;
}

static bool is_zero(uintptr_t page)
{
	const uint64_t *word = (const uint64_t *)page;

	for (size_t i = 0; i < MM_PAGE_SIZE / sizeof(*word); i++)
		if (word[i])
			return false;
	return true;
}

static void expect(bool ok)
{
	if (!ok)
		sim.violations++;
}

static bool fails(unsigned int *countdown)
{
	return *countdown && !--*countdown;
}

static void step(uintptr_t page, enum page_state to)
{
	expect(allocated(page));
	*state_of(page) = (uint8_t)to;
}

static void flush_page(uintptr_t page, bool fail)
{
	switch (*state_of(page)) {
	case CACHED:
		expect(is_zero(page));
		step(page, fail ? CACHED : CLEAN);
		break;
	case CHANGED:
		step(page, fail ? LOST : NONCACHED);
		break;
	case NONCACHED:
		step(page, fail ? LOST : QUIET);
		break;
	default:
		expect(false);
	}
}

static int sim_flush(virt_addr_t va, size_t nbytes)
{
	bool fail = fails(&sim.fail_flush);

	sim.flushes++;
	expect(!(va.value % MM_PAGE_SIZE) && nbytes && !(nbytes % MM_PAGE_SIZE));
	for (size_t at = 0; at < nbytes; at += MM_PAGE_SIZE)
		flush_page(va.value + at, fail);
	return fail ? -1 : 0;
}

/* What is clean and stays cached is as it was. */
static void change_page(uintptr_t page, enum mm_attr attr, int e)
{
	enum page_state from = attr == MM_ATTR_NONCACHED ? CLEAN : QUIET;
	enum page_state to = attr == MM_ATTR_NONCACHED ? CHANGED : CACHED;

	expect(*state_of(page) == from);
	expect(from != CLEAN || is_zero(page));
	if (e == MM_ATTR_UNCHANGED)
		to = from == CLEAN ? CACHED : QUIET;
	step(page, e == MM_ATTR_UNKNOWN ? LOST : to);
}

static int sim_change(virt_addr_t va, size_t npages, enum mm_attr attr)
{
	int e = fails(&sim.fail_change) ? sim.failure : 0;

	sim.changes++;
	for (size_t i = 0; i < npages; i++)
		change_page(va.value + (i << MM_PAGE_SHIFT), attr, e);
	return e;
}

static void sim_log(enum mm_log_level level)
{
	(void)level;
	sim.lines++;
}

/* Between calls, every page is cached or somebody's. */
static bool ram_is_sane(void)
{
	struct page_region_info r;

	for (size_t i = 0; page_alloc_region(&global_allocator()->pages, i, &r); i++)
		for (size_t k = 0; k < r.npages; k++) {
			uintptr_t page = r.start.value + (k << MM_PAGE_SHIFT);

			if (*state_of(page) != CACHED && !allocated(page))
				return false;
		}
	return !sim.violations;
}

/* --- Setting up -------------------------------------------------------------- */

static bool start(bool can_change_attr, bool with_pool)
{
	struct dma_config config = {.can_change_attr = can_change_attr};
	struct dma_stats stats;

	dma_device_init(&config.device, "default");
	if (with_pool) {
		config.pool = virt_addr(pool);
		config.pool_size = sizeof(pool);
	}
	/* Give back what was not changed under these hooks; lost pages of earlier tests stay so. */
	dma_init(&config);
	dma_stats(&stats);
	sim.violations = sim.flushes = sim.changes = sim.lines = 0;
	sim.fail_flush = sim.fail_change = 0;
	sim.failure = MM_ATTR_UNKNOWN;
	mm_port_host_hooks = (struct mm_port_host_hooks){sim_change, sim_flush, sim_log};
	return !stats.live && !stats.pages;
}

static bool stop(void)
{
	bool sane;

	dma_trim();
	sane = ram_is_sane();
	mm_port_host_hooks = (struct mm_port_host_hooks){0};
	usual_machine();
	return sane;
}

static void device(struct dma_device *dev, bool coherent)
{
	dma_device_init(dev, coherent ? "coherent" : "noncoherent");
	dev->coherent = coherent;
}

static bool state_is(struct dma_info info, size_t nbytes, enum page_state want)
{
	uintptr_t first = (uintptr_t)info.cpu_addr;

	for (uintptr_t at = first & ~(MM_PAGE_SIZE - 1); at < first + nbytes; at += MM_PAGE_SIZE)
		if (*state_of(at) != want)
			return false;
	return true;
}

/* --- Order ------------------------------------------------------------------- */

SELFTEST_KEEPS(host, dma_order_of_steps, DEBUG_PAGES)
{
	static const size_t sizes[] = {1, 700, 4095, 4096, 4097, 100000};
	struct dma_device dev;
	struct dma_info info;

	CHECK(start(true, false));
	device(&dev, false);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct layout l = {sizes[i], 16};

		CHECK(dma_alloc_coherent(&dev, l, &info) == ALLOC_OK);
		CHECK(state_is(info, l.size, NONCACHED) && !sim.violations);
		__builtin_memset(info.cpu_addr, 0x77, l.size);
		CHECK(dma_dealloc_coherent(&dev, info, l) == ALLOC_OK);
		dma_trim();
		CHECK(state_is(info, l.size, CACHED) && ram_is_sane());
	}
	CHECK(stop());
}

SELFTEST_KEEPS(host, dma_coherent_device_changes_nothing, DEBUG_PAGES)
{
	struct layout small = {100, 8}, large = {20000, 8};
	struct dma_info a, b;

	CHECK(start(true, false));
	CHECK(alloc_coherent(small, &a) == ALLOC_OK && alloc_coherent(large, &b) == ALLOC_OK);
	CHECK(state_is(a, 100, CACHED) && state_is(b, 20000, CACHED));
	CHECK(dealloc_coherent(a, small) == ALLOC_OK && dealloc_coherent(b, large) == ALLOC_OK);
	CHECK(stop() && !sim.flushes && !sim.changes);
}

SELFTEST_KEEPS(host, dma_spare_saves_changes, DEBUG_PAGES)
{
	struct layout l = {100, 8};
	struct dma_device dev;
	struct dma_info info;
	struct dma_stats stats;

	CHECK(start(true, false));
	device(&dev, false);
	for (int i = 0; i < 100; i++) {
		CHECK(dma_alloc_coherent(&dev, l, &info) == ALLOC_OK);
		CHECK(dma_dealloc_coherent(&dev, info, l) == ALLOC_OK);
	}
	CHECK(sim.changes == 1);
	dma_stats(&stats);
	CHECK(stats.pages == 4 && stats.noncached_pages == 4);
	dma_trim();
	dma_stats(&stats);
	CHECK(sim.changes == 2 && !stats.pages && !stats.noncached_pages);
	CHECK(stop());
}

/* --- Failures ---------------------------------------------------------------- */

static size_t dma_pages_in_use(void)
{
	return global_allocator_usage_pages(global_allocator(), PAGE_USAGE_DMA);
}

/* One allocation and free, with a failure at one step; how many pages are lost? */
static long lost_by(struct layout l, unsigned int flush, unsigned int change, bool alloc_fails)
{
	size_t before = dma_pages_in_use();
	struct dma_info info = {NULL, {0}};
	struct dma_stats was, now;
	struct dma_device dev;
	enum alloc_result r;

	dma_stats(&was);
	device(&dev, false);
	sim.fail_flush = flush;
	sim.fail_change = change;
	r = dma_alloc_coherent(&dev, l, &info);
	CHECK_OR(r == (alloc_fails ? ALLOC_NO_MEMORY : ALLOC_OK), -1);
	if (alloc_fails)
		CHECK_OR(!info.cpu_addr, -1);
	else
		CHECK_OR(dma_dealloc_coherent(&dev, info, l) == ALLOC_OK, -1);
	dma_trim();
	CHECK_OR(!sim.fail_flush && !sim.fail_change && ram_is_sane(), -1);
	dma_stats(&now);
	CHECK_OR(!now.pages && !now.noncached_pages && !now.live, -1);
	CHECK_OR(now.quarantined_pages - was.quarantined_pages == dma_pages_in_use() - before, -1);
	return (long)(dma_pages_in_use() - before);
}

#define LARGE_PAGES 3u

/* The steps of pages: flush, change, flush; then flush, change. Lost: all but by the first. */
SELFTEST_KEEPS(host, dma_quarantine_pages, 5 * LARGE_PAGES + DEBUG_PAGES)
{
	struct layout l = {LARGE_PAGES * MM_PAGE_SIZE, 8};

	CHECK(start(true, false));
	CHECK(lost_by(l, 0, 0, false) == 0);
	CHECK(lost_by(l, 1, 0, true) == 0);
	CHECK(lost_by(l, 0, 1, true) == LARGE_PAGES);
	CHECK(lost_by(l, 2, 0, true) == LARGE_PAGES);
	CHECK(lost_by(l, 3, 0, false) == LARGE_PAGES);
	CHECK(lost_by(l, 0, 2, false) == LARGE_PAGES);
	sim.failure = MM_ATTR_UNCHANGED;
	CHECK(lost_by(l, 0, 1, true) == 0);
	CHECK(lost_by(l, 0, 2, false) == LARGE_PAGES); /* not cached, so nobody else's */
	CHECK(sim.lines == 5 && stop());
}

/* The same for a piece of the heap. Growing tries low memory, then any, then a single page. */
SELFTEST_KEEPS(host, dma_quarantine_heap, 4 * 4 + DEBUG_PAGES)
{
	struct layout l = {100, 8};

	CHECK(start(true, false));
	CHECK(lost_by(l, 1, 0, false) == 0);
	CHECK(lost_by(l, 0, 1, false) == 4);
	CHECK(lost_by(l, 2, 0, false) == 4);
	CHECK(lost_by(l, 3, 0, false) == 4);
	CHECK(lost_by(l, 0, 2, false) == 4);
	sim.failure = MM_ATTR_UNCHANGED;
	CHECK(lost_by(l, 0, 1, false) == 0);
	CHECK(sim.lines == 4 && stop());
}

/* Every request for pages fails once, on the way to a block that is not cached. */
SELFTEST_KEEPS(host, dma_no_pages, DEBUG_PAGES)
{
	struct dma_device dev;
	struct layout l = {500, 8};
	struct dma_info info;
	enum alloc_result r = ALLOC_NO_MEMORY;

	CHECK(start(true, false));
	device(&dev, false);
	for (unsigned long nth = 1; r != ALLOC_OK; nth++) {
		CHECK(nth < 20);
		global_allocator_fail_pages(global_allocator(), nth);
		r = dma_alloc_coherent(&dev, l, &info);
		global_allocator_fail_pages(global_allocator(), 0);
		CHECK(ram_is_sane());
	}
	CHECK(dma_dealloc_coherent(&dev, info, l) == ALLOC_OK && stop());
}

SELFTEST_KEEPS(host, dma_refuses_what_it_cannot_do, DEBUG_PAGES)
{
	struct dma_info info = {NULL, {42}};
	struct layout l = {64, 8};
	struct dma_device dev;

	CHECK(start(false, false));
	device(&dev, false);
	for (int i = 0; i < 3; i++)
		CHECK(dma_alloc_coherent(&dev, l, &info) == ALLOC_INVALID_PARAM);
	CHECK(sim.lines == 1 && !info.cpu_addr && info.bus_addr.value == 42);
	CHECK(alloc_coherent(l, &info) == ALLOC_OK && dealloc_coherent(info, l) == ALLOC_OK);
	/* Said anew for another configuration. */
	CHECK(stop() && start(false, false));
	CHECK(dma_alloc_coherent(&dev, l, &info) == ALLOC_INVALID_PARAM && sim.lines == 1);
	CHECK(stop());
}

SELFTEST_KEEPS(host, dma_init_only_when_idle, DEBUG_PAGES)
{
	struct dma_config config = {.can_change_attr = true};
	struct layout l = {64, 8};
	struct dma_info info;

	CHECK(start(true, false));
	dma_device_init(&config.device, "offset");
	config.device.window[0].bus.value = 0x100000;
	CHECK(alloc_coherent(l, &info) == ALLOC_OK);
	dma_init(&config);
	CHECK(sim.lines == 1 && virt_to_bus(info.cpu_addr).value == info.bus_addr.value);
	CHECK(dealloc_coherent(info, l) == ALLOC_OK);
	dma_init(&config);
	CHECK(sim.lines == 1);
	CHECK(alloc_coherent(l, &info) == ALLOC_OK);
	CHECK(info.bus_addr.value == (uintptr_t)info.cpu_addr + 0x100000);
	CHECK(bus_to_phys(info.bus_addr).value == (uintptr_t)info.cpu_addr);
	CHECK(dealloc_coherent(info, l) == ALLOC_OK);
	CHECK(stop());
}

/* --- The pool ---------------------------------------------------------------- */

static bool in_pool(const void *p, size_t nbytes)
{
	const uint8_t *at = p;

	return at >= pool && at + nbytes <= pool + sizeof(pool);
}

SELFTEST_KEEPS(host, dma_pool, DEBUG_PAGES)
{
	static struct dma_info got[POOL_PAGES];
	struct layout page = {MM_PAGE_SIZE, 8}, small = {100, 8};
	struct dma_stats full, now;
	struct dma_device dev;
	size_t n = 0, free_pages;
	struct dma_info info;

	__builtin_memset(pool, 0xee, sizeof(pool));
	CHECK(start(false, true));
	device(&dev, false);
	dma_stats(&full);
	free_pages = full.pool_free_pages;
	CHECK(free_pages >= POOL_PAGES - 2);
	CHECK(dma_alloc_coherent(&dev, small, &info) == ALLOC_OK && in_pool(info.cpu_addr, 100));
	dma_stats(&now);
	CHECK(now.pool_free_pages == free_pages - 4 && now.noncached_pages == 4);
	while (dma_alloc_coherent(&dev, page, &got[n]) == ALLOC_OK) {
		CHECK(in_pool(got[n].cpu_addr, MM_PAGE_SIZE));
		CHECK(is_zero((uintptr_t)got[n].cpu_addr));
		__builtin_memset(got[n++].cpu_addr, 0xee, MM_PAGE_SIZE);
	}
	CHECK(n == free_pages - 4);
	/* Coherent devices do not live from the pool. */
	CHECK(alloc_coherent(page, &got[n]) == ALLOC_OK && !in_pool(got[n].cpu_addr, 1));
	CHECK(dealloc_coherent(got[n], page) == ALLOC_OK);
	while (n)
		CHECK(dma_dealloc_coherent(&dev, got[--n], page) == ALLOC_OK);
	CHECK(dma_dealloc_coherent(&dev, info, small) == ALLOC_OK);
	dma_trim();
	dma_stats(&now);
	CHECK(now.pool_free_pages == free_pages && !now.pages);
	CHECK(stop() && !sim.flushes && !sim.changes);
}

/* --- Reach ------------------------------------------------------------------- */

/* A device that sees the first `reach` bytes of RAM, from bus address 0 on. */
static void short_sighted(struct dma_device *dev, uint64_t reach)
{
	struct page_region_info r;

	device(dev, false);
	if (page_alloc_region(&global_allocator()->pages, 0, &r))
		dev->window[0].cpu = mm_port_virt_to_phys(r.start);
	dev->mask = reach - 1;
}

SELFTEST_KEEPS(host, dma_mask_is_kept, DEBUG_PAGES)
{
	enum { MIB = 1 << 20, REACH = 6 };
	struct layout l = {MIB, MM_PAGE_SIZE};
	struct dma_info got[REACH];
	struct dma_device dev;
	size_t n = 0;

	CHECK(start(true, false));
	short_sighted(&dev, (uint64_t)REACH * MIB);
	while (n < REACH && dma_alloc_coherent(&dev, l, &got[n]) == ALLOC_OK) {
		CHECK(got[n].bus_addr.value + l.size - 1 <= dev.mask);
		n++;
	}
	CHECK(n >= REACH - 2);
	while (n)
		CHECK(dma_dealloc_coherent(&dev, got[--n], l) == ALLOC_OK);
	CHECK(stop());
}

/* A device that reaches only what lies below the heap's pieces gets a page of its own. */
static void use_below(struct dma_info far_block, struct layout l)
{
	struct dma_stats before, after;
	struct dma_info near_block;
	struct dma_device dev;

	short_sighted(&dev, UINT64_MAX);
	dev.mask = far_block.bus_addr.value - dev.window[0].cpu.value - 1;
	dma_stats(&before);
	CHECK(dma_alloc_coherent(&dev, l, &near_block) == ALLOC_OK);
	CHECK(near_block.bus_addr.value + l.size - 1 <= dev.mask);
	dma_stats(&after);
	CHECK(after.pages == before.pages + 1);
	CHECK(dma_dealloc_coherent(&dev, near_block, l) == ALLOC_OK);
}

SELFTEST_KEEPS(host, dma_page_for_a_short_sighted_device, DEBUG_PAGES)
{
	enum { FILLERS = 64 };
	struct layout filler = {4 * MM_PAGE_SIZE, MM_PAGE_SIZE}, l = {100, 8};
	struct dma_info fill[FILLERS], far_block;
	struct dma_device all;

	CHECK(start(true, false));
	device(&all, false);
	for (int i = 0; i < FILLERS; i++)
		CHECK(dma_alloc_coherent(&all, filler, &fill[i]) == ALLOC_OK);
	CHECK(dma_alloc_coherent(&all, l, &far_block) == ALLOC_OK);
	for (int i = 0; i < FILLERS; i++)
		CHECK(dma_dealloc_coherent(&all, fill[i], filler) == ALLOC_OK);
	/* The heap may have found a hole below, where something was given back meanwhile. */
	if (far_block.bus_addr.value > fill[0].bus_addr.value)
		use_below(far_block, l);
	else
		selftest_note("nothing free below the heap");
	CHECK(dma_dealloc_coherent(&all, far_block, l) == ALLOC_OK);
	CHECK(stop());
}

/* --- Many CPUs --------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS	600
#define HELD	16

struct cpu {
	pthread_t thread;
	uint64_t seed;
	bool ok;
};

static bool swap(struct dma_device *dev, struct dma_info *info, struct layout *l, uint64_t r)
{
	if (l->size) {
		bool intact = *(uint8_t *)info->cpu_addr == (uint8_t)l->size;
		bool freed = dma_dealloc_coherent(dev, *info, *l) == ALLOC_OK;

		l->size = 0;
		return intact && freed;
	}
	*l = (struct layout){1 + (r >> 8) % (r & 3 ? 900 : 9000), 8};
	if (dma_alloc_coherent(dev, *l, info) != ALLOC_OK) {
		l->size = 0;
		return false;
	}
	__builtin_memset(info->cpu_addr, (int)(uint8_t)l->size, l->size);
	return true;
}

static void *run_cpu(void *arg)
{
	struct dma_info info[HELD];
	struct layout l[HELD] = {{0, 0}};
	struct cpu *cpu = arg;
	struct dma_device own[2];

	device(&own[0], false);
	device(&own[1], true);
	cpu->ok = true;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t r = selftest_random(&cpu->seed);
		size_t k = (r >> 40) % HELD;

		cpu->ok &= swap(&own[k & 1], &info[k], &l[k], r);
	}
	for (size_t k = 0; k < HELD; k++)
		if (l[k].size)
			cpu->ok &= swap(&own[k & 1], &info[k], &l[k], 0);
	return NULL;
}

/* Over slab, what a CPU allocated from stays with it: the records of allocations lie there. */
#define RECORD_PAGES 64

SELFTEST_KEEPS(host, dma_many_cpus, DEBUG_PAGES + RECORD_PAGES)
{
	struct cpu cpu[THREADS];
	struct dma_stats stats;

	CHECK(start(true, false));
	for (size_t i = 0; i < THREADS; i++) {
		cpu[i].seed = i + 1;
		CHECK(!pthread_create(&cpu[i].thread, NULL, run_cpu, &cpu[i]));
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(cpu[i].thread, NULL);
	for (size_t i = 0; i < THREADS; i++)
		CHECK(cpu[i].ok);
	CHECK(stop());
	dma_stats(&stats);
	CHECK(!stats.live && !stats.live_bytes && !stats.pages);
}
