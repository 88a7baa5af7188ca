/* SPDX-License-Identifier: MIT */
/* What the page allocator and the facade refuse, and that nothing has changed afterwards. */
#include <mm/global.h>
#include <selftest/selftest.h>

#include "../page_region.h"

#define REGION ((size_t)2 << 20)
#define HIGH   ((uint64_t)1 << 33)

static struct page_alloc pages;
static struct global_allocator global;

/* A fresh page allocator over half of the memory, which it returns. */
static uint8_t *start_pages(void)
{
	uint8_t *m = selftest_memory(REGION);

	pages = (struct page_alloc){0};
	if (m &&
	    page_alloc_add_at(&pages, virt_addr(m), REGION / 2, (phys_addr_t){HIGH}) == ALLOC_OK)
		return m;
	selftest_skip("not enough memory");
	return NULL;
}

static virt_addr_t at(const uint8_t *m, size_t npages)
{
	return virt_addr(m + npages * MM_PAGE_SIZE);
}

SELFTEST(mm, page_refuses_foreign_regions)
{
	uint8_t *m = start_pages();
	size_t total = page_alloc_total(&pages), half = REGION / 2 / MM_PAGE_SIZE;
	virt_addr_t odd, behind, last = {UINTPTR_MAX & ~(uintptr_t)(MM_PAGE_SIZE - 1)};
	phys_addr_t phys = {HIGH + REGION};

	if (!m)
		return;
	odd = virt_addr(m + REGION / 2 + 8);
	behind = at(m, half);
	CHECK(page_alloc_add_foreign(&pages, m, behind, 0, phys) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_foreign(&pages, m, behind, SIZE_MAX, phys) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_foreign(&pages, m, odd, 1, phys) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_foreign(&pages, m, last, 2, phys) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_foreign(&pages, m, at(m, half - 1), 2, phys) == ALLOC_MEMORY_OVERLAP);
	/* Nothing would be left beside the metadata. */
	CHECK(page_alloc_add_at(&pages, behind, MM_PAGE_SIZE, phys) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_at(&pages, behind, REGION, (phys_addr_t){phys.value + 8}) ==
	      ALLOC_INVALID_PARAM);
	CHECK(page_alloc_add_at(&pages, behind, MM_PAGE_SIZE - 1, phys) == ALLOC_INVALID_PARAM);
	INVARIANT(page_alloc_total(&pages) == total && !page_alloc_check(&pages));
}

SELFTEST(mm, page_refuses_requests)
{
	struct page_request good = {.npages = 1, .align = MM_PAGE_SIZE}, bad = good;
	uint8_t *m = start_pages();
	size_t used = page_alloc_used(&pages);
	virt_addr_t va = {7};

	if (!m)
		return;
	bad.usage = PAGE_USAGE_CPU_CACHE;
	CHECK(page_alloc_get(&pages, bad, &va) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at(m, 9), 1, bad.usage) == ALLOC_INVALID_PARAM);
	CHECK(!page_alloc_one_local(&pages, bad.usage, 0, &va));
	bad.usage = PAGE_USAGE_KINDS;
	CHECK(page_alloc_get(&pages, bad, &va) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at(m, 9), 1, bad.usage) == ALLOC_INVALID_PARAM);
	bad = good;
	bad.zone = (enum page_zone)7;
	CHECK(page_alloc_get(&pages, bad, &va) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at(m, 9), 0, good.usage) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at(m, 9), SIZE_MAX, good.usage) == ALLOC_INVALID_PARAM);
	CHECK(page_alloc_get_at(&pages, at(m, 0), REGION, good.usage) == ALLOC_NO_MEMORY);
	INVARIANT(va.value == 7 && page_alloc_used(&pages) == used && !page_alloc_check(&pages));
}

/* A run of pages of several usages goes back only as a whole, and only if all are allowed. */
SELFTEST(mm, page_usages_that_may_go_back)
{
	const unsigned int dma = 1u << PAGE_USAGE_DMA, user = 1u << PAGE_USAGE_USER;
	enum mm_fault_kind fault = MM_FAULT_NONE;
	uint8_t *m = start_pages();
	size_t used = page_alloc_used(&pages);

	if (!m)
		return;
	CHECK(page_alloc_get_at(&pages, at(m, 64), 4, PAGE_USAGE_DMA) == ALLOC_OK);
	CHECK(page_alloc_get_at(&pages, at(m, 68), 4, PAGE_USAGE_USER) == ALLOC_OK);
	CHECK(page_alloc_put_kinds(&pages, at(m, 66), 4, dma, &fault) != ALLOC_OK);
	CHECK(fault == MM_FAULT_FOREIGN);
	CHECK(page_alloc_put_kinds(&pages, at(m, 64), 2, user, &fault) != ALLOC_OK);
	CHECK(fault == MM_FAULT_FOREIGN);
	CHECK(page_alloc_put_kinds(&pages, at(m, 66), 8, dma | user, &fault) != ALLOC_OK);
	CHECK(fault == MM_FAULT_DOUBLE_FREE);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_DMA) == 4);
	CHECK(page_alloc_put_kinds(&pages, at(m, 66), 4, dma | user, &fault) == ALLOC_OK);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_DMA) == 2);
	CHECK(page_alloc_usage(&pages, PAGE_USAGE_USER) == 2);
	CHECK(page_alloc_put(&pages, at(m, 64), 2, &fault) == ALLOC_OK);
	CHECK(page_alloc_put(&pages, at(m, 70), 2, &fault) == ALLOC_OK);
	INVARIANT(page_alloc_used(&pages) == used && !page_alloc_check(&pages));
}

/* Regions go in any order, each only when nothing of it is in use. */
SELFTEST(mm, page_removes_either_region)
{
	uint8_t *m = start_pages();
	phys_addr_t phys = {HIGH + REGION / 2};
	enum mm_fault_kind fault;
	virt_addr_t half, va;

	if (!m)
		return;
	half = virt_addr(m + REGION / 2);
	for (size_t i = 0; i < 2; i++) {
		virt_addr_t goes = i ? virt_addr(m) : half;

		CHECK(page_alloc_remove_region(&pages, half) == ALLOC_NOT_ALLOCATED);
		CHECK(page_alloc_add_at(&pages, half, REGION / 2, phys) == ALLOC_OK);
		va = (virt_addr_t){goes.value + REGION / 4};
		CHECK(page_alloc_get_at(&pages, va, 1, PAGE_USAGE_USER) == ALLOC_OK);
		CHECK(page_alloc_remove_region(&pages, goes) == ALLOC_NO_MEMORY);
		CHECK(page_alloc_put(&pages, va, 1, &fault) == ALLOC_OK);
		CHECK(page_alloc_remove_region(&pages, goes) == ALLOC_OK);
		CHECK(!page_alloc_check(&pages));
	}
	CHECK(page_alloc_remove_region(&pages, virt_addr(m)) == ALLOC_NOT_ALLOCATED);
	CHECK(page_alloc_remove_region(&pages, half) == ALLOC_OK && !page_alloc_total(&pages));
}

/* --- The facade --- */

static uint8_t *start_global(const struct byte_ops *ops)
{
	uint8_t *m = selftest_memory(REGION);

	__builtin_memset(&global, 0, sizeof(global));
	global.heap.base.ops = ops;
	return m;
}

SELFTEST(mm, global_without_memory)
{
	struct global_allocator *g = &global;
	uint8_t *m = start_global(&byte_tlsf_ops);
	struct layout l = {100, 8};
	void *out = &l;

	CHECK(m);
	CHECK(!global_allocator_available_bytes(g) && !global_allocator_used_bytes(g));
	CHECK(!global_allocator_available_pages(g) && !global_allocator_check(g));
	CHECK(global_allocator_alloc(g, l, &out) == ALLOC_NO_MEMORY);
	CHECK(global_allocator_alloc_zeroed(g, l, &out) == ALLOC_NO_MEMORY && out == &l);
	mm_fault_expect(true);
	CHECK(global_allocator_dealloc(g, m, l) == ALLOC_NOT_ALLOCATED);
	CHECK(global_allocator_realloc(g, m, l, 200, &out) == ALLOC_NOT_ALLOCATED);
	mm_fault_expect(false);
	/* No page for the first heap: the region is not kept. */
	global_allocator_fail_pages(g, 1);
	CHECK(global_allocator_init(g, virt_addr(m), REGION) == ALLOC_NO_MEMORY);
	global_allocator_fail_pages(g, 0);
	CHECK(!global_allocator_available_pages(g));
	CHECK(global_allocator_init(g, virt_addr(m), REGION) == ALLOC_OK);
	CHECK(!global_allocator_check(g));
	__builtin_memset(g, 0, sizeof(*g));
}

SELFTEST(mm, global_refuses_page_requests)
{
	struct page_request req = {.npages = 1, .align = MM_PAGE_SIZE, .zone = (enum page_zone)5};
	struct global_allocator *g = &global;
	uint8_t *m = start_global(&byte_slab_ops);
	virt_addr_t va = {3}, last = {UINTPTR_MAX & ~(uintptr_t)(MM_PAGE_SIZE - 1)};

	CHECK(m && global_allocator_init(g, virt_addr(m), REGION) == ALLOC_OK);
	CHECK(global_allocator_request_pages(g, req, &va) == ALLOC_INVALID_PARAM);
	req.zone = PAGE_ZONE_ANY;
	req.usage = PAGE_USAGE_CPU_CACHE;
	CHECK(global_allocator_request_pages(g, req, &va) == ALLOC_INVALID_PARAM);
	CHECK(global_allocator_alloc_pages_at(g, last, 2, MM_PAGE_SIZE) == ALLOC_INVALID_PARAM);
	CHECK(va.value == 3 && !global_allocator_check(g));
	__builtin_memset(g, 0, sizeof(*g));
}

#if MM_HARDEN
/* A block that moves is freed where it was: a wrong layout that is found only there undoes it. */
SELFTEST(mm, global_realloc_with_a_wrong_layout)
{
	struct global_allocator *g = &global;
	uint8_t *m = start_global(&byte_tlsf_ops);
	struct layout l = {1000, 8}, less = {500, 8}, more = {3000, 8}, bad = {1000, 3};
	void *p, *out;

	CHECK(m && global_allocator_init(g, virt_addr(m), REGION) == ALLOC_OK);
	CHECK(global_allocator_alloc(g, l, &p) == ALLOC_OK);
	out = p;
	mm_fault_expect(true);
	CHECK(global_allocator_realloc(g, p, less, 100000, &out) == ALLOC_INVALID_PARAM);
	CHECK(global_allocator_realloc(g, p, more, 100000, &out) == ALLOC_INVALID_PARAM);
	CHECK(global_allocator_realloc(g, p, bad, 2000, &out) == ALLOC_INVALID_PARAM);
	mm_fault_expect(false);
	CHECK(out == p && global_allocator_used_bytes(g) == l.size);
	CHECK(global_allocator_dealloc(g, p, l) == ALLOC_OK && !global_allocator_check(g));
	__builtin_memset(g, 0, sizeof(*g));
}
#endif
