/* SPDX-License-Identifier: MIT */
/*
 * Private to the page allocator: one region of pages, without zones, caches and
 * counts per kind. See page_region.c for the theory.
 *
 * Pages are named by their index, which counts from the start of the chunk that
 * holds the first page.
 */
#ifndef MM_PAGE_REGION_H
#define MM_PAGE_REGION_H

#include <mm/page_alloc.h>

#include "page_run.h"
#include "page_state.h"
#include "page_tree.h"

#define PAGE_GROUP_SHIFT  6u /* pages of a bitmap word */
#define PAGE_GROUP	  ((size_t)1 << PAGE_GROUP_SHIFT)
#define PAGE_CHUNK_SHIFT  12u /* pages of a chunk */
#define PAGE_CHUNK	  ((size_t)1 << PAGE_CHUNK_SHIFT)
#define PAGE_CHUNK_LEAVES (PAGE_CHUNK / PAGE_LEAF)

/* Chunks that may wait to be summed up in the tree of free runs. */
#define PAGE_WAITING 64u

/* A word of level l has 64 parts of 64^l pages, and so holds blocks of six orders. */
#define PAGE_LEVEL_ORDERS 6u
#define PAGE_LEVELS	  6u

struct page_chunk {
	uint64_t whole; /* bit g: group g is wholly free: the word of level 1 */
	/* [q], bit g: group g is partly free, with an aligned free block of 2^q pages */
	uint64_t partly[PAGE_LEVEL_ORDERS];
	uint64_t free[64];    /* the bitmap, 1 is free: the words of level 0 */
	uint8_t orders[64];   /* how many of partly[] have the bit of group g */
	uint8_t whole_orders; /* how many sets of level 1 have this chunk */
	uint8_t stale;	      /* bit k: the sum of leaf k is not up to date */
};

/* The words of one level, and for each of their orders the set of words that hold such a block. */
struct page_level {
	uint64_t *words; /* from level 2 on; a bit is set when the part is wholly free */
	size_t first;	 /* words count from here: addresses / bytes of a word */
	struct page_tree_shape shape;
	uint64_t *set[PAGE_LEVEL_ORDERS]; /* at level 0 of chunks, else of words */
};

struct page_region {
	struct page_region *next;
	struct page_region *child[2]; /* below, above: by address, among those of the zone */
	uintptr_t origin;	      /* address of the region as it was added */
	uintptr_t first_pn;	      /* page numbers (address / page size) of all that is ours, */
	uintptr_t end_pn;	      /* metadata included */
	uintptr_t base_pn;	      /* page number of index 0 */
	size_t begin, end;	      /* managed indices */
	size_t free_pages;	      /* without the parked ones */
	size_t ready_end;	      /* every chunk below this index has been written */
	size_t nchunks;
	size_t metadata_bytes;
	uint64_t phys; /* of index `begin` */
	enum page_zone zone;
	unsigned int levels;
	struct page_level level[PAGE_LEVELS];
	struct page_runs runs;
	uint64_t waits;			/* bit c % PAGE_WAITING: chunk c has stale leaves */
	uint32_t waiting[PAGE_WAITING]; /* which c that is */
	uint64_t *ready;		/* bit c: the metadata of chunk c have been written */
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

/*
 * The index of a run of n free pages below index `end` at an alignment in
 * pages, or PAGE_NONE. Exact when the alignment is 1, or n; for the others see
 * page_region.c.
 */
size_t page_region_find(struct page_region *r, size_t n, size_t align, size_t end);

/* Find and take them for a usage. */
size_t page_region_get(struct page_region *r, size_t n, size_t align, size_t end,
		       enum page_usage usage);

/*
 * The same for up to 16 pages, a power of two or fewer than their alignment, when a group that is
 * partly free has room for them, and for whole groups, when a chunk has. PAGE_NONE:
 * page_region_get may have.
 */
size_t page_region_get_direct(struct page_region *r, size_t n, size_t align, enum page_usage usage);

/* Are these pages all free? Pre: begin <= i, i + n <= end. */
bool page_region_is_free(const struct page_region *r, size_t i, size_t n);

/* Take free pages for a usage. */
void page_region_take(struct page_region *r, size_t i, size_t n, enum page_usage usage);

/* The state of these pages when all have the same and are in use, else 0. Pre: begin <= i, i + n <=
 * end. */
unsigned int page_region_common_state(const struct page_region *r, size_t i, size_t n);

/*
 * Add the pages of each usage to counts. False, counts undefined, when one of
 * them is not in use. Pre: begin <= i, i + n <= end.
 */
bool page_region_count(const struct page_region *r, size_t i, size_t n,
		       size_t counts[PAGE_USAGE_KINDS]);

/* Give pages back. Pre: page_region_count accepts them. */
void page_region_give(struct page_region *r, size_t i, size_t n);

/* Take up to n free pages, wherever they lie, to park them; how many were put into out. */
size_t page_region_park(struct page_region *r, size_t n, uint32_t *out);

/* Give a parked page back. */
void page_region_unpark(struct page_region *r, size_t i);

/* The state of a page (page_state.h). Pre: begin <= i < end. */
unsigned int page_region_state(const struct page_region *r, size_t i);

/* Every invariant; adds the pages of each usage, and the parked ones, to counts. */
bool page_region_check(const struct page_region *r, size_t counts[PAGE_USAGE_KINDS]);

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
