/* SPDX-License-Identifier: MIT */
/* Handles of pages of the static global allocator. */
#include <mm/global_page.h>
#include <selftest/selftest.h>

static size_t used(void)
{
	return global_allocator_used_pages(global_allocator());
}

static phys_addr_t plus_one(virt_addr_t va)
{
	return (phys_addr_t){va.value + 1};
}

static bool all_bytes(struct byte_slice s, uint8_t byte)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.data[i] != byte)
			return false;
	return true;
}

SELFTEST(mm, global_page_views)
{
	struct global_page p = {0};
	size_t before = used();

	CHECK(global_page_alloc_contiguous(3, 16384, &p) == ALLOC_OK && used() == before + 3);
	CHECK(global_page_size(&p) == 3 * MM_PAGE_SIZE);
	CHECK(!(global_page_start_vaddr(&p).value & 16383));
	CHECK(global_page_start_paddr(&p, plus_one).value ==
	      (uint64_t)global_page_start_vaddr(&p).value + 1);
	CHECK(global_page_as_ptr(&p) == virt_ptr(p.start));
	CHECK(global_page_as_mut_ptr(&p) == virt_ptr(p.start));
	global_page_fill(&p, 0xa5);
	CHECK(global_page_as_slice(&p).len == 3 * MM_PAGE_SIZE);
	CHECK(all_bytes(global_page_as_slice(&p), 0xa5));
	CHECK(global_page_as_mut_slice(&p).len == 3 * MM_PAGE_SIZE);
	global_page_as_mut_slice(&p).data[4096] = 0;
	CHECK(!all_bytes(global_page_as_slice(&p), 0xa5));
	global_page_zero(&p);
	CHECK(all_bytes(global_page_as_slice(&p), 0));
	global_page_drop(&p);
	CHECK(used() == before && !p.npages && !p.start.value);
}

SELFTEST(mm, global_page_failure)
{
	struct global_page p = {.npages = 77};

	CHECK(global_page_alloc_contiguous(0, 4096, &p) == ALLOC_INVALID_PARAM);
	CHECK(global_page_alloc_contiguous(1, 100, &p) == ALLOC_INVALID_PARAM);
	CHECK(global_page_alloc_contiguous((size_t)1 << 50, 4096, &p) == ALLOC_NO_MEMORY);
	CHECK(p.npages == 77 && !p.start.value);
}

SELFTEST(mm, global_page_empty_handle)
{
	struct global_page p = {0};
	size_t before = used();

	global_page_fill(&p, 1);
	global_page_drop(&p);
	global_page_drop(&p);
	CHECK(!global_page_size(&p) && !global_page_as_slice(&p).len && used() == before);
}

static bool use_scope(size_t before)
{
	struct global_page a GLOBAL_PAGE_SCOPED = {0}, b GLOBAL_PAGE_SCOPED = {0};

	if (global_page_alloc(&a) != ALLOC_OK)
		return false;
	global_page_fill(&a, 0xff);
	if (global_page_alloc_zeroed(&b) != ALLOC_OK)
		return false;
	return used() == before + 2 && all_bytes(global_page_as_slice(&b), 0);
}

SELFTEST(mm, global_page_scope)
{
	size_t before = used();

	CHECK(use_scope(before));
	CHECK(used() == before);
}
