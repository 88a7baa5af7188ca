/* SPDX-License-Identifier: MIT */
/* The page allocator over terabytes of memory that is reserved but hardly touched. */
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include <mm/page_alloc.h>
#include <selftest/selftest.h>

#define GIB ((size_t)1 << 30)
#define TIB ((size_t)1 << 40)

/* Private to mm/page_bitmap.c. */
enum alloc_result page_alloc_add_at(struct page_alloc *a, virt_addr_t start, size_t nbytes,
				    phys_addr_t phys);

static struct page_alloc pages;

static void *reserve(size_t nbytes)
{
	void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		return p;
	selftest_skip("no address space for a region of this size");
	return NULL;
}

static enum alloc_result get(size_t npages, size_t align, virt_addr_t *out)
{
	return page_alloc_get(
		&pages,
		(struct page_request){.npages = npages, .align = align, .usage = PAGE_USAGE_USER},
		out);
}

static enum alloc_result put(virt_addr_t start, size_t npages)
{
	enum mm_fault_kind fault;

	return page_alloc_put(&pages, start, npages, &fault);
}

static void one_size(size_t nbytes)
{
	void *memory = reserve(nbytes);
	virt_addr_t one, block, huge, last;

	if (!memory)
		return;
	__builtin_memset(&pages, 0, sizeof(pages));
	CHECK(page_alloc_add_region(&pages, virt_addr(memory), nbytes) == ALLOC_OK);
	CHECK((double)page_alloc_metadata_bytes(&pages) <= (double)nbytes * 0.0002 + 8192);
	CHECK(get(1, MM_PAGE_SIZE, &one) == ALLOC_OK);
	CHECK(get(512, (size_t)2 << 20, &block) == ALLOC_OK && !(block.value & 0x1fffff));
	CHECK(get(10000, (size_t)64 << 20, &huge) == ALLOC_OK && !(huge.value & 0x3ffffff));
	last.value = (uintptr_t)memory + nbytes - MM_PAGE_SIZE;
	CHECK(page_alloc_get_at(&pages, last, 1, PAGE_USAGE_USER) == ALLOC_OK);
	CHECK(page_alloc_used(&pages) == 10514);
	CHECK(!page_alloc_check(&pages));
	CHECK(put(one, 1) == ALLOC_OK && put(block, 512) == ALLOC_OK);
	CHECK(put(huge, 10000) == ALLOC_OK && put(last, 1) == ALLOC_OK);
	CHECK(!page_alloc_check(&pages));
	CHECK(page_alloc_remove_region(&pages, virt_addr(memory)) == ALLOC_OK);
	munmap(memory, nbytes);
}

SELFTEST(host, page_sizes_to_4_tib)
{
	one_size((size_t)256 << 20);
	one_size(4 * GIB);
	one_size(64 * GIB);
	one_size(TIB);
	one_size(4 * TIB);
}

static int compare_regions(const struct page_region_info *a, const struct page_region_info *b)
{
	if (a->zone != b->zone)
		return a->zone == PAGE_ZONE_ANY ? -1 : 1;
	return a->start.value < b->start.value ? -1 : 1;
}

SELFTEST(host, page_many_regions)
{
	enum { REGIONS = 64 };
	size_t each = (size_t)32 << 20, stride = each + MM_PAGE_SIZE, i = 0;
	char *memory = reserve(stride * REGIONS);
	struct page_region_info before, now;
	virt_addr_t va;

	if (!memory)
		return;
	__builtin_memset(&pages, 0, sizeof(pages));
	for (size_t k = 0; k < REGIONS; k++) {
		char *start = memory + k * 37 % REGIONS * stride;
		phys_addr_t phys = {k % 3 ? (uint64_t)(k + 256) << 25 : (uint64_t)(k + 1) << 25};

		CHECK(page_alloc_add_at(&pages, virt_addr(start), each, phys) == ALLOC_OK);
		CHECK(page_alloc_add_at(&pages, virt_addr(start), each, phys) ==
		      ALLOC_MEMORY_OVERLAP);
	}
	while (page_alloc_region(&pages, i, &now)) {
		CHECK(!i++ || compare_regions(&before, &now) < 0);
		before = now;
	}
	CHECK(i == REGIONS);
	CHECK(get(each / MM_PAGE_SIZE, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY);
	while (get(1000, MM_PAGE_SIZE, &va) == ALLOC_OK)
		;
	CHECK(!page_alloc_check(&pages));
	for (size_t k = 0; k < REGIONS; k++)
		CHECK(page_alloc_remove_region(&pages, virt_addr(memory + k * stride)) ==
		      ALLOC_NO_MEMORY);
	munmap(memory, stride * REGIONS);
}

/* Chunks, groups and pages against a model that knows the owner of every page. */
enum { BLOCKS = 2048 };
static struct {
	virt_addr_t va;
	size_t n;
} blocks[BLOCKS];

static bool model_set(uint8_t *used, uintptr_t base, virt_addr_t va, size_t n, bool on)
{
	size_t first = (va.value - base) / MM_PAGE_SIZE;

	for (size_t i = first; i < first + n; i++) {
		CHECK_OR(used[i] != on, false);
		used[i] = on;
	}
	return true;
}

/* Is there really no run of n pages at this alignment, or, where that is promised only, none of n and
 * the alignment? */
static bool model_full(const uint8_t *used, uintptr_t base, size_t from, size_t total, size_t n,
		       size_t align)
{
	bool exact = align == MM_PAGE_SIZE || align == n * MM_PAGE_SIZE;
	size_t run = 0, want = exact ? n : n + align / MM_PAGE_SIZE - 1;

	for (size_t i = total; i-- > from;) {
		run = used[i] ? 0 : run + 1;
		if (run >= want && (!exact || !((base + i * MM_PAGE_SIZE) & (align - 1))))
			return false;
	}
	return true;
}

static size_t random_length(uint64_t r)
{
	static const size_t longest[] = {1, 2, 16, 70, 600, 5000, 20000, 3};

	return 1 + (r >> 8) % longest[r & 7];
}

static bool random_step(uint8_t *used, uintptr_t base, size_t from, size_t total, uint64_t *seed)
{
	uint64_t r = selftest_random(seed);
	size_t b = (r >> 48) % BLOCKS, n = random_length(r);
	size_t align = MM_PAGE_SIZE << ((r >> 40) % 3 ? 0 : (r >> 44) % 14);
	virt_addr_t va;

	if (blocks[b].n) {
		size_t part = (r >> 30) % 4 ? blocks[b].n : 1 + (r >> 20) % blocks[b].n;

		CHECK_OR(put(blocks[b].va, part) == ALLOC_OK, false);
		CHECK_OR(model_set(used, base, blocks[b].va, part, false), false);
		blocks[b].va.value += part * MM_PAGE_SIZE;
		blocks[b].n -= part;
		return true;
	}
	if (get(n, align, &va) != ALLOC_OK)
		return model_full(used, base, from, total, n, align);
	blocks[b].va = va;
	blocks[b].n = n;
	return !(va.value & (align - 1)) && model_set(used, base, va, n, true);
}

SELFTEST(host, page_random_against_model)
{
	size_t nbytes = (size_t)600 << 20, total = nbytes / MM_PAGE_SIZE;
	char *memory = reserve(nbytes);
	uint8_t *used = calloc(total, 1);
	uint64_t seed = 11;

	if (!memory)
		return;
	CHECK(used);
	__builtin_memset(&pages, 0, sizeof(pages));
	CHECK(page_alloc_add_region(&pages, virt_addr(memory), nbytes) == ALLOC_OK);
	for (int step = 0; step < 20000; step++) {
		CHECK(random_step(used, (uintptr_t)memory, total - page_alloc_total(&pages), total,
				  &seed));
		if (step % 2000 == 0)
			CHECK(!page_alloc_check(&pages));
	}
	CHECK(!page_alloc_check(&pages));
	munmap(memory, nbytes);
	free(used);
}

/* Creating a region writes no chunk but its first and last: far below a millisecond at any size. */
SELFTEST(host, page_init_is_lazy)
{
	char *memory = reserve(4 * TIB);
	struct timespec t0, t1;
	int64_t ns;

	if (!memory)
		return;
	__builtin_memset(&pages, 0, sizeof(pages));
	clock_gettime(CLOCK_MONOTONIC, &t0);
	CHECK(page_alloc_add_region(&pages, virt_addr(memory), 4 * TIB) == ALLOC_OK);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	ns = (int64_t)(t1.tv_sec - t0.tv_sec) * 1000000000 + (t1.tv_nsec - t0.tv_nsec);
	selftest_note("4 TiB: %lld us", (long long)(ns / 1000));
	CHECK(ns < 100000000);
	munmap(memory, 4 * TIB);
}
