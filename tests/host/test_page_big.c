/* SPDX-License-Identifier: MIT */
/* The page allocator over terabytes of memory that is reserved but hardly touched. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../../mm/test/page_rig.h"

#define GIB ((size_t)1 << 30)
#define TIB ((size_t)1 << 40)

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

static void one_size(size_t nbytes)
{
	void *memory = reserve(nbytes);
	virt_addr_t one, block, huge, last;

	if (!memory)
		return;
	__builtin_memset(&pages, 0, sizeof(pages));
	CHECK(page_alloc_add_region(&pages, virt_addr(memory), nbytes) == ALLOC_OK);
	CHECK((double)page_alloc_metadata_bytes(&pages) <= (double)nbytes * 0.0002 + 8192);
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &one) == ALLOC_OK);
	CHECK(rig_get(&pages, 512, (size_t)2 << 20, &block) == ALLOC_OK &&
	      !(block.value & 0x1fffff));
	CHECK(rig_get(&pages, 10000, (size_t)64 << 20, &huge) == ALLOC_OK &&
	      !(huge.value & 0x3ffffff));
	last.value = (uintptr_t)memory + nbytes - MM_PAGE_SIZE;
	CHECK(page_alloc_get_at(&pages, last, 1, PAGE_USAGE_USER) == ALLOC_OK);
	CHECK(page_alloc_used(&pages) == 10514);
	CHECK(!page_alloc_check(&pages));
	CHECK(rig_put(&pages, one.value, 1) == ALLOC_OK &&
	      rig_put(&pages, block.value, 512) == ALLOC_OK);
	CHECK(rig_put(&pages, huge.value, 10000) == ALLOC_OK &&
	      rig_put(&pages, last.value, 1) == ALLOC_OK);
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
	CHECK(rig_get(&pages, each / MM_PAGE_SIZE, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY);
	while (rig_get(&pages, 1000, MM_PAGE_SIZE, &va) == ALLOC_OK)
		;
	CHECK(!page_alloc_check(&pages));
	for (size_t k = 0; k < REGIONS; k++)
		CHECK(page_alloc_remove_region(&pages, virt_addr(memory + k * stride)) ==
		      ALLOC_NO_MEMORY);
	munmap(memory, stride * REGIONS);
}

static size_t random_length(uint64_t r)
{
	static const size_t longest[] = {1, 2, 16, 70, 600, 5000, 20000, 3};

	return 1 + (r >> 8) % longest[r & 7];
}

/* Chunks, groups and pages of all lengths against a model that knows the owner of every page. */
SELFTEST(host, page_random_against_model)
{
	enum { BLOCKS = 2048 };
	static struct page_model_block blocks[BLOCKS];
	size_t nbytes = (size_t)600 << 20;
	char *memory = reserve(nbytes);
	uint8_t *used = calloc(nbytes / MM_PAGE_SIZE, 1);
	struct page_model m;
	uint64_t seed = 11;

	if (!memory)
		return;
	CHECK(used);
	__builtin_memset(&pages, 0, sizeof(pages));
	CHECK(page_alloc_add_region(&pages, virt_addr(memory), nbytes) == ALLOC_OK);
	m = page_model_new(&pages, memory, nbytes, used, blocks, BLOCKS);
	for (int step = 0; step < 20000; step++) {
		uint64_t r = selftest_random(&seed);
		size_t align = MM_PAGE_SIZE << ((r >> 40) % 3 ? 0 : (r >> 44) % 14);

		CHECK(page_model_step(&m, random_length(r), align, selftest_random(&seed)));
		if (step % 2000 == 0)
			CHECK(!page_alloc_check(&pages));
	}
	CHECK(!page_alloc_check(&pages));
	munmap(memory, nbytes);
	free(used);
}

static long pages_touched(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) ? -1 : usage.ru_minflt + usage.ru_majflt;
}

/* Creating a region writes no chunk but its first and last: of the 40,000 pages that hold chunks
 * here, two, and those of the sets. */
SELFTEST(host, page_init_is_lazy)
{
	char *memory = reserve(4 * TIB);
	long before, touched;

	if (!memory)
		return;
	madvise(memory, 4 * TIB, MADV_NOHUGEPAGE);
	__builtin_memset(&pages, 0, sizeof(pages));
	before = pages_touched();
	CHECK(page_alloc_add_region(&pages, virt_addr(memory), 4 * TIB) == ALLOC_OK);
	touched = pages_touched() - before;
	selftest_note("4 TiB: %ld pages touched", touched);
	CHECK(touched < 400);
	munmap(memory, 4 * TIB);
}
