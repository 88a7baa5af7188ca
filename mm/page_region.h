/* SPDX-License-Identifier: MIT */
/*
 * Private to the page allocator: one region of pages, without zones, caches and
 * counts per kind. See page_region.c for the theory.
 *
 * Pages are named by their index, which counts from the start of the chunk that
 * holds the first page, so that an aligned index is an aligned address.
 */
#ifndef MM_PAGE_REGION_H
#define MM_PAGE_REGION_H

#include <mm/page_alloc.h>

#include "page_tree.h"

#define PAGE_GROUP_SHIFT 6u  /* pages of a bitmap word */
#define PAGE_CHUNK_SHIFT 12u /* pages of a chunk */
#define PAGE_CHUNK	 ((size_t)1 << PAGE_CHUNK_SHIFT)

/* Sets of chunks: one per order of free block inside a chunk, and the wholly free chunks. */
#define PAGE_SET_GROUPS 6u  /* orders from here on are made of whole groups */
#define PAGE_SET_CHUNKS 12u /* wholly free chunks */
#define PAGE_SETS	13u

/* States of a page, four bits each: 0 is free (or never touched). */
#define PAGE_STATE_PARKED ((unsigned int)PAGE_USAGE_CPU_CACHE)
#define PAGE_STATE_LIVE	  8u  /* | enum page_usage */
#define PAGE_STATES_WORD  16u /* states in a word */

struct page_chunk {
	uint64_t whole;	    /* bit g: group g is wholly free */
	uint64_t partly[6]; /* [q], bit g: group g is partly free, with an aligned free block of 2^q
			     */
	uint64_t free[64];  /* the bitmap: 1 is free */
	uint8_t orders[64]; /* how many of partly[] have the bit of group g */
	uint64_t whole_orders; /* how many of the sets from PAGE_SET_GROUPS on have this chunk */
};

struct page_region {
	struct page_region *next;
	uintptr_t origin;   /* address of the region as it was added */
	uintptr_t first_pn; /* page numbers (address / page size) of all that is ours, */
	uintptr_t end_pn;   /* metadata included */
	uintptr_t base_pn;  /* page number of index 0 */
	size_t begin, end;  /* managed indices */
	size_t free_pages;  /* without the parked ones */
	size_t ready_end;   /* every chunk below this index has been written */
	size_t nchunks;
	size_t metadata_bytes;
	uint64_t phys; /* of index `begin` */
	enum page_zone zone;
	struct page_tree_shape shape;
	uint64_t *set[PAGE_SETS];
	uint64_t *ready; /* bit c: the metadata of chunk c have been written */
	struct page_chunk *chunks;
	uint64_t *states;
};

/* Bytes of metadata for the managed pages [pn, pn + npages). */
size_t page_region_metadata(uintptr_t pn, size_t npages);

/*
 * Lay a region out in `memory` (any contents, 8-byte aligned, at least
 * page_region_metadata bytes), all pages free. The pages are not touched.
 */
struct page_region *page_region_create(void *memory, uintptr_t pn, size_t npages);

/* The index of a run of n free pages below index `end` at an alignment in pages, or PAGE_NONE. */
size_t page_region_find(const struct page_region *r, size_t n, size_t align, size_t end);

/* Are these pages all free? Pre: begin <= i, i + n <= end. */
bool page_region_is_free(const struct page_region *r, size_t i, size_t n);

/* Take free pages, which get the given state. */
void page_region_take(struct page_region *r, size_t i, size_t n, unsigned int state);

/* Take up to n (<= 64) free pages, wherever they lie, as parked ones; how many were put into out.
 */
size_t page_region_take_parked(struct page_region *r, size_t n, uint32_t *out);

/*
 * Add the pages of each usage to counts. False, counts undefined, when one of
 * them is not live. Pre: begin <= i, i + n <= end.
 */
bool page_region_count(const struct page_region *r, size_t i, size_t n,
		       size_t counts[PAGE_USAGE_KINDS]);

/* Give pages back. Pre: page_region_count accepts them, or they are parked. */
void page_region_give(struct page_region *r, size_t i, size_t n);

/* The state of a page. Pre: begin <= i < end. */
unsigned int page_region_state(const struct page_region *r, size_t i);

/* Every invariant; adds the pages by state to counts[16]. */
bool page_region_check(const struct page_region *r, size_t counts[16]);

/*
 * Manage pages whose metadata lie elsewhere, with a physical address that the
 * caller names: for tests of zones and for benchmarks over made-up memory.
 * The memory must hold page_region_metadata bytes.
 */
MM_MUST_CHECK enum alloc_result page_alloc_add_foreign(struct page_alloc *a, void *memory,
						       virt_addr_t start, size_t npages,
						       phys_addr_t phys);

/* page_alloc_add_region with a made-up physical address. */
MM_MUST_CHECK enum alloc_result page_alloc_add_at(struct page_alloc *a, virt_addr_t start,
						  size_t nbytes, phys_addr_t phys);

#endif
