/* SPDX-License-Identifier: MIT */
/* What all tests of the page allocator share: short calls, and a model that knows each page. */
#ifndef MM_TEST_PAGE_RIG_H
#define MM_TEST_PAGE_RIG_H

#include <mm/page_alloc.h>
#include <selftest/selftest.h>

/* Private to mm/page_bitmap.c: a region with a made-up physical address. */
enum alloc_result page_alloc_add_at(struct page_alloc *a, virt_addr_t start, size_t nbytes,
				    phys_addr_t phys);

#define RIG_HIGH ((uint64_t)1 << 33) /* a physical address in high memory */

static inline enum alloc_result rig_get(struct page_alloc *a, size_t npages, size_t align,
					virt_addr_t *out)
{
	return page_alloc_get(
		a,
		(struct page_request){.npages = npages, .align = align, .usage = PAGE_USAGE_USER},
		out);
}

/* MM_FAULT_NONE when the pages went back. */
static inline enum mm_fault_kind rig_put_fault(struct page_alloc *a, uintptr_t start, size_t npages)
{
	enum mm_fault_kind fault;
	enum alloc_result r = page_alloc_put(a, (virt_addr_t){start}, npages, &fault);

	return r == ALLOC_OK ? MM_FAULT_NONE : fault;
}

static inline enum alloc_result rig_put(struct page_alloc *a, uintptr_t start, size_t npages)
{
	enum mm_fault_kind fault;

	return page_alloc_put(a, (virt_addr_t){start}, npages, &fault);
}

/* A region and what is in use of it: a byte for each page, and the blocks. */
struct page_model {
	struct page_alloc *pages;
	uintptr_t memory;
	size_t from, total; /* pages of the memory: the first that is managed, and all */
	uint8_t *used;	    /* [total] */
	struct page_model_block {
		size_t first, n;
	} * blocks;
	size_t nblocks;
};

/* Pre: used and blocks are zero, pages manages this memory and nothing else. */
struct page_model page_model_new(struct page_alloc *a, void *memory, size_t nbytes, uint8_t *used,
				 struct page_model_block *blocks, size_t nblocks);

/*
 * Take a block of n pages, or give back (a part of) the one in that place. False
 * when a page was handed out twice, or a request failed against the promise: it may fail only when
 * there is no such run; or, at an alignment that is neither a page nor the
 * length, when there is no run of n and the alignment less a page.
 */
bool page_model_step(struct page_model *m, size_t n, size_t align, uint64_t random);

#endif
