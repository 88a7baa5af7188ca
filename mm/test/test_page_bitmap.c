/* SPDX-License-Identifier: MIT */
/* The page allocator on a few MiB: every call, every failure, and invariants around all of them. */
#include "page_rig.h"

#define REGION_BYTES ((size_t)2 << 20)

static struct page_alloc pages;

static uint8_t *region_at(uint64_t phys, size_t nbytes)
{
	uint8_t *memory = selftest_memory(nbytes);

	__builtin_memset(&pages, 0, sizeof(pages));
	if (!memory) {
		selftest_skip("not enough memory");
		return NULL;
	}
	__builtin_memset(memory, 0xa5, nbytes / 16); /* metadata must not rely on zeroes */
	CHECK_OR(page_alloc_add_at(&pages, virt_addr(memory), nbytes, (phys_addr_t){phys}) ==
			 ALLOC_OK,
		 NULL);
	return memory;
}

SELFTEST(mm, page_empty)
{
	virt_addr_t va = {1};

	__builtin_memset(&pages, 0, sizeof(pages));
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY && va.value == 1);
	CHECK(rig_put(&pages, 0x10000, 1) == ALLOC_NOT_ALLOCATED);
	CHECK(page_alloc_total(&pages) == 0 && page_alloc_available(&pages) == 0);
	CHECK(!page_alloc_check(&pages));
}

SELFTEST(mm, page_add_bad)
{
	uint8_t *m = region_at(RIG_HIGH, REGION_BYTES);
	size_t total = page_alloc_total(&pages);

	if (!m)
		return;
	CHECK(page_alloc_add_region(&pages, virt_addr(m), 0) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_region(&pages, virt_addr(m), SIZE_MAX) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_region(&pages, (virt_addr_t){UINTPTR_MAX - 100}, 101) ==
	      ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_region(&pages, (virt_addr_t){UINTPTR_MAX - 100}, 102) ==
	      ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_region(&pages, (virt_addr_t){0x10800}, 0x1000) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_region(&pages, virt_addr(m), MM_PAGE_SIZE) == ALLOC_MEMORY_OVERLAP);
	CHECK(page_alloc_add_region(&pages, virt_addr(m + REGION_BYTES - MM_PAGE_SIZE),
				    REGION_BYTES) == ALLOC_MEMORY_OVERLAP);
	CHECK(page_alloc_total(&pages) == total && !page_alloc_check(&pages));
}

SELFTEST(mm, page_request_bad)
{
	virt_addr_t va = {7};

	if (!region_at(RIG_HIGH, REGION_BYTES))
		return;
	CHECK(rig_get(&pages, 0, MM_PAGE_SIZE, &va) == ALLOC_INVALID_PARAM);
	CHECK(rig_get(&pages, 1, 0, &va) == ALLOC_INVALID_PARAM);
	CHECK(rig_get(&pages, 1, 2048, &va) == ALLOC_INVALID_PARAM);
	CHECK(rig_get(&pages, 1, 3 * MM_PAGE_SIZE, &va) == ALLOC_INVALID_PARAM);
	CHECK(rig_get(&pages, SIZE_MAX, MM_PAGE_SIZE, &va) == ALLOC_INVALID_PARAM);
	CHECK(rig_get(&pages, SIZE_MAX >> MM_PAGE_SHIFT, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY);
	CHECK(rig_get(&pages, 1, (size_t)1 << 63, &va) == ALLOC_NO_MEMORY);
	CHECK(page_alloc_get(&pages,
			     (struct page_request){.npages = 1,
						   .align = MM_PAGE_SIZE,
						   .usage = PAGE_USAGE_CPU_CACHE},
			     &va) == ALLOC_INVALID_PARAM);
	CHECK(va.value == 7 && page_alloc_used(&pages) == 0 && !page_alloc_check(&pages));
}

/* Fill with single pages to the last, find every page usable once, give all back. */
SELFTEST(mm, page_exhaust)
{
	uint8_t *m = region_at(RIG_HIGH, REGION_BYTES);
	size_t total = page_alloc_total(&pages), n = 0;
	virt_addr_t va;

	if (!m)
		return;
	CHECK(total >= REGION_BYTES / MM_PAGE_SIZE - 3);
	while (rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_OK) {
		*(volatile size_t *)virt_ptr(va) = n++;
		CHECK(va.value - (uintptr_t)m < REGION_BYTES);
	}
	CHECK(n == total && page_alloc_used(&pages) == total && !page_alloc_available(&pages));
	CHECK(!page_alloc_check(&pages));
	va.value = (uintptr_t)m + REGION_BYTES - total * MM_PAGE_SIZE;
	CHECK(rig_put(&pages, va.value, total) == ALLOC_OK);
	CHECK(!page_alloc_used(&pages) && !page_alloc_check(&pages));
	CHECK(rig_get(&pages, total, MM_PAGE_SIZE, &va) == ALLOC_OK);
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY);
	CHECK(rig_put(&pages, va.value, total) == ALLOC_OK);
}

SELFTEST(mm, page_alignment)
{
	virt_addr_t va[10];

	if (!region_at(RIG_HIGH, REGION_BYTES))
		return;
	for (unsigned int k = 0; k < 8; k++) {
		CHECK(rig_get(&pages, 3, MM_PAGE_SIZE << k, &va[k]) == ALLOC_OK);
		CHECK(!(va[k].value & ((MM_PAGE_SIZE << k) - 1)));
		CHECK(!page_alloc_check(&pages));
	}
	for (unsigned int k = 0; k < 8; k++)
		CHECK(rig_put(&pages, va[k].value, 3) == ALLOC_OK);
	CHECK(!page_alloc_used(&pages) && !page_alloc_check(&pages));
}

/* A run that holds no aligned block of its size must be found too. */
SELFTEST(mm, page_straddling_run)
{
	uint8_t *m = region_at(RIG_HIGH, REGION_BYTES);
	uintptr_t base, at;
	size_t total = page_alloc_total(&pages);
	virt_addr_t va;

	if (!m)
		return;
	CHECK(rig_get(&pages, total, MM_PAGE_SIZE, &va) == ALLOC_OK);
	base = va.value;
	at = ((base + 0x40000) & ~(uintptr_t)0x3ffff) + 0x40000 - 50 * MM_PAGE_SIZE;
	CHECK(rig_put(&pages, at, 100) == ALLOC_OK);
	CHECK(rig_get(&pages, 101, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY);
	CHECK(rig_get(&pages, 100, MM_PAGE_SIZE, &va) == ALLOC_OK && va.value == at);
	CHECK(rig_put(&pages, at + 3 * MM_PAGE_SIZE, 63) == ALLOC_OK);
	CHECK(rig_get(&pages, 63, MM_PAGE_SIZE, &va) == ALLOC_OK &&
	      va.value == at + 3 * MM_PAGE_SIZE);
	CHECK(!page_alloc_check(&pages));
}

SELFTEST(mm, page_at_address)
{
	uint8_t *m = region_at(RIG_HIGH, REGION_BYTES);
	virt_addr_t at = {(uintptr_t)m + REGION_BYTES / 2};

	if (!m)
		return;
	CHECK(page_alloc_get_at(&pages, at, 5, PAGE_USAGE_TABLE) == ALLOC_OK);
	CHECK(page_alloc_is_allocated(&pages, at));
	CHECK(page_alloc_get_at(&pages, at, 1, PAGE_USAGE_TABLE) == ALLOC_NO_MEMORY);
	CHECK(page_alloc_get_at(&pages, (virt_addr_t){at.value - 4 * MM_PAGE_SIZE}, 5,
				PAGE_USAGE_TABLE) == ALLOC_NO_MEMORY);
	CHECK(page_alloc_get_at(&pages, virt_addr(m), 1, PAGE_USAGE_TABLE) == ALLOC_NO_MEMORY);
	CHECK(page_alloc_get_at(&pages, (virt_addr_t){at.value + 1}, 1, PAGE_USAGE_TABLE) ==
	      ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at, SIZE_MAX, PAGE_USAGE_TABLE) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at, 0, PAGE_USAGE_TABLE) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_TABLE) == 5);
	CHECK(rig_put(&pages, at.value + 2 * MM_PAGE_SIZE, 3) == ALLOC_OK);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_TABLE) == 2 && !page_alloc_check(&pages));
}

SELFTEST(mm, page_misuse)
{
	uint8_t *m = region_at(RIG_HIGH, REGION_BYTES);
	virt_addr_t va;
	size_t used;

	if (!m)
		return;
	CHECK(rig_get(&pages, 8, MM_PAGE_SIZE, &va) == ALLOC_OK);
	CHECK(rig_put(&pages, va.value + 3 * MM_PAGE_SIZE, 1) == ALLOC_OK);
	used = page_alloc_used(&pages);
	CHECK(rig_put_fault(&pages, va.value, 8) == MM_FAULT_DOUBLE_FREE);
	CHECK(rig_put_fault(&pages, va.value + 3 * MM_PAGE_SIZE, 1) == MM_FAULT_DOUBLE_FREE);
	CHECK(rig_put_fault(&pages, va.value + 1, 1) == MM_FAULT_MISALIGNED);
	CHECK(rig_put_fault(&pages, (uintptr_t)m, 1) == MM_FAULT_FOREIGN);
	CHECK(rig_put_fault(&pages, 0, 1) == MM_FAULT_FOREIGN);
	CHECK(rig_put_fault(&pages, (uintptr_t)&used & ~(uintptr_t)4095, 1) == MM_FAULT_FOREIGN);
	CHECK(rig_put_fault(&pages, (uintptr_t)m + REGION_BYTES - MM_PAGE_SIZE, 2) ==
	      MM_FAULT_FOREIGN);
	CHECK(rig_put_fault(&pages, va.value, SIZE_MAX) == MM_FAULT_FOREIGN);
	CHECK(rig_put(&pages, va.value, 0) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_used(&pages) == used && !page_alloc_check(&pages));
}

/* 4 GiB in the middle: two regions, and low memory is spared until high memory is gone. */
SELFTEST(mm, page_zones)
{
	uint8_t *m = region_at(((uint64_t)1 << 32) - REGION_BYTES / 2, REGION_BYTES);
	uintptr_t middle = (uintptr_t)m + REGION_BYTES / 2;
	struct page_request low = {
		.npages = 1, .align = MM_PAGE_SIZE, .zone = PAGE_ZONE_LOW, .usage = PAGE_USAGE_DMA};
	struct page_region_info info;
	virt_addr_t va;

	if (!m)
		return;
	CHECK(page_alloc_region(&pages, 0, &info) && info.zone == PAGE_ZONE_ANY);
	CHECK(page_alloc_region(&pages, 1, &info) && info.zone == PAGE_ZONE_LOW);
	CHECK(!page_alloc_region(&pages, 2, &info));
	CHECK(page_alloc_get(&pages, low, &va) == ALLOC_OK && va.value < middle);
	for (size_t n = page_alloc_total(&pages) - info.npages; n; n--)
		CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_OK && va.value >= middle);
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_OK && va.value < middle);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_DMA) == 1);
	CHECK(!page_alloc_check(&pages));
}

SELFTEST(mm, page_physical_limit)
{
	uint64_t phys = (uint64_t)1 << 24;
	uint8_t *m = region_at(phys, REGION_BYTES);
	struct page_request req = {.npages = 2,
				   .align = MM_PAGE_SIZE,
				   .usage = PAGE_USAGE_DMA,
				   .phys_limit = phys + REGION_BYTES / 2};
	virt_addr_t va;
	size_t n = 0;

	if (!m)
		return;
	while (page_alloc_get(&pages, req, &va) == ALLOC_OK) {
		CHECK(va.value + 2 * MM_PAGE_SIZE <= (uintptr_t)m + REGION_BYTES / 2);
		n += 2;
	}
	CHECK(n >= REGION_BYTES / 2 / MM_PAGE_SIZE - 4);
	req.phys_limit = 1;
	CHECK(page_alloc_get(&pages, req, &va) == ALLOC_NO_MEMORY);
	req.phys_limit = 0;
	CHECK(page_alloc_get(&pages, req, &va) == ALLOC_OK && !page_alloc_check(&pages));
}

SELFTEST(mm, page_remove_region)
{
	uint8_t *m = region_at(RIG_HIGH, 2 * REGION_BYTES);
	virt_addr_t va, start = virt_addr(m);

	if (!m)
		return;
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_OK);
	CHECK(page_alloc_remove_region(&pages, start) == ALLOC_NO_MEMORY);
	CHECK(page_alloc_remove_region(&pages, va) == ALLOC_NOT_ALLOCATED);
	CHECK(rig_put(&pages, va.value, 1) == ALLOC_OK);
	page_alloc_refill(&pages, 0);
	page_alloc_refill(&pages, 1);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_CPU_CACHE));
	CHECK(page_alloc_remove_region(&pages, start) == ALLOC_OK);
	CHECK(!page_alloc_total(&pages) &&
	      rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_NO_MEMORY);
	CHECK(page_alloc_remove_region(&pages, start) == ALLOC_NOT_ALLOCATED);
	CHECK(page_alloc_add_at(&pages, start, REGION_BYTES, (phys_addr_t){RIG_HIGH}) == ALLOC_OK);
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &va) == ALLOC_OK && !page_alloc_check(&pages));
}

SELFTEST(mm, page_cpu_cache)
{
	enum mm_fault_kind fault;
	virt_addr_t va, other;
	size_t parked;

	if (!region_at(RIG_HIGH, REGION_BYTES))
		return;
	CHECK(!page_alloc_one_local(&pages, PAGE_USAGE_DMA, 0, &va));
	page_alloc_refill(&pages, 0);
	parked = page_alloc_usage(&pages, PAGE_USAGE_CPU_CACHE);
	CHECK(parked && page_alloc_used(&pages) == 0);
	CHECK(page_alloc_one_local(&pages, PAGE_USAGE_DMA, 0, &va));
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_DMA) == 1 && page_alloc_used(&pages) == 1);
	CHECK(page_alloc_is_allocated(&pages, va) && !page_alloc_check(&pages));
	CHECK(!page_free_one_local(&pages, (virt_addr_t){va.value + 8}, 0));
	CHECK(!page_free_one_local(&pages, virt_addr(NULL), 0));
	CHECK(page_free_one_local(&pages, va, 0));
	CHECK(!page_free_one_local(&pages, va, 0));
	CHECK(rig_put_fault(&pages, va.value, 1) == MM_FAULT_DOUBLE_FREE &&
	      !page_alloc_is_allocated(&pages, va));
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_CPU_CACHE) == parked);
	/* Out of one door, in through the other. */
	CHECK(page_alloc_one_local(&pages, PAGE_USAGE_TABLE, 0, &va) &&
	      rig_put(&pages, va.value, 1) == ALLOC_OK);
	CHECK(rig_get(&pages, 1, MM_PAGE_SIZE, &other) == ALLOC_OK);
	CHECK(page_free_one_local(&pages, other, 0));
	CHECK(page_alloc_used(&pages) == 0 && !page_alloc_check(&pages));
	/* Pages of the heap have one door only. */
	CHECK(page_alloc_one_local(&pages, PAGE_USAGE_HEAP, 0, &va));
	CHECK(!page_free_one_local(&pages, va, 0));
	CHECK(page_alloc_put_kinds(&pages, va, 1, ~(1u << PAGE_USAGE_HEAP), &fault) ==
		      ALLOC_NOT_ALLOCATED &&
	      fault == MM_FAULT_FOREIGN);
	CHECK(page_alloc_put_kinds(&pages, va, 1, 1u << PAGE_USAGE_HEAP, &fault) == ALLOC_OK);
	page_alloc_drain(&pages, 0);
	page_alloc_drain_all(&pages, 0);
	CHECK(!page_alloc_usage(&pages, PAGE_USAGE_CPU_CACHE) && !page_alloc_check(&pages));
}

SELFTEST(mm, page_random_against_model)
{
	enum { BLOCKS = 128, PAGES = REGION_BYTES / MM_PAGE_SIZE };
	static struct page_model_block blocks[BLOCKS];
	static uint8_t used[PAGES];
	uint8_t *memory = region_at(RIG_HIGH, REGION_BYTES);
	struct page_model m;
	uint64_t seed = 3;

	if (!memory)
		return;
	__builtin_memset(used, 0, sizeof(used));
	__builtin_memset(blocks, 0, sizeof(blocks));
	m = page_model_new(&pages, memory, REGION_BYTES, used, blocks, BLOCKS);
	for (int step = 0; step < 3000; step++) {
		uint64_t r = selftest_random(&seed);
		size_t n = 1 + (r >> 8) % ((r >> 16) % 4 ? 4 : 90);
		size_t align = MM_PAGE_SIZE << ((r >> 24) % 3 ? 0 : (r >> 32) % 6);

		CHECK(page_model_step(&m, n, align, selftest_random(&seed)));
		if (step % 256 == 0)
			CHECK(!page_alloc_check(&pages));
	}
	CHECK(!page_alloc_check(&pages));
}

/* What one CPU has parked serves another's request, before that fails. */
SELFTEST(mm, page_parked_elsewhere)
{
	bool ready = region_at(RIG_HIGH, REGION_BYTES);
	size_t total = page_alloc_total(&pages), parked;
	virt_addr_t all, one = {0}, other;

	if (!ready)
		return;
	page_alloc_refill(&pages, 0);
	page_alloc_refill(&pages, MM_MAX_CPUS - 1);
	CHECK(page_alloc_one_local(&pages, PAGE_USAGE_DMA, 0, &one));
	parked = page_alloc_usage(&pages, PAGE_USAGE_CPU_CACHE);
	CHECK(parked);
	CHECK(rig_get(&pages, total, MM_PAGE_SIZE, &all) == ALLOC_NO_MEMORY);
	CHECK(!page_alloc_usage(&pages, PAGE_USAGE_CPU_CACHE));
	CHECK(!page_alloc_one_local(&pages, PAGE_USAGE_DMA, 0, &other));
	CHECK(rig_put(&pages, one.value, 1) == ALLOC_OK);
	page_alloc_refill(&pages, 0);
	CHECK(rig_get(&pages, total, MM_PAGE_SIZE, &all) == ALLOC_OK);
	CHECK(!page_alloc_check(&pages) && page_alloc_used(&pages) == total);
	CHECK(rig_put(&pages, all.value, total) == ALLOC_OK && !page_alloc_check(&pages));
}
