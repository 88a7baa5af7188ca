/* SPDX-License-Identifier: MIT */
/*
 * Private to the page allocator: the free runs of a region, summed up in a tree.
 *
 * Theory of operation
 *
 * A leaf is 512 pages, eight words of the bitmap; a node stands for eight
 * children. Each says how long the free run at its head is, the one at its
 * tail, and the longest anywhere inside. That is enough to find the lowest run
 * of n pages, wherever it lies: among the children of a node either a run that
 * crosses their borders is long enough (the tail of one, whole ones, the head
 * of another), or the run lies inside one child, which is visited next. So a
 * search reads at most eight nodes a level on the way down, whatever the
 * occupancy; the pages in between are never walked.
 *
 * A change recomputes the parents of what changed, and ends at the first level
 * where the sum stays the same, which is mostly the first or second.
 *
 * Nodes below one that is wholly free are not valid: they are written when
 * a page below it is first taken (page_runs_open). So a tree over any number of pages
 * is created by writing the path to its last leaf.
 */
#ifndef MM_PAGE_RUN_H
#define MM_PAGE_RUN_H

#include "bits.h"
#include "page_tree.h"

#define PAGE_LEAF_SHIFT 9u /* pages of a leaf */
#define PAGE_LEAF	((size_t)1 << PAGE_LEAF_SHIFT)
#define PAGE_LEAF_WORDS (PAGE_LEAF / 64)
#define PAGE_FAN_SHIFT	3u /* children of a node */
#define PAGE_FAN	((size_t)1 << PAGE_FAN_SHIFT)
#define PAGE_RUN_LEVELS 9

/* Lengths of free runs, in pages. */
struct page_run {
	uint32_t head, tail, longest;
};

struct page_runs {
	unsigned int levels; /* 0 are the leaves, the last one is the root */
	struct page_run *level[PAGE_RUN_LEVELS];
};

/* Where a run of the length asked for starts; or the leaf that has it inside. */
struct page_spot {
	size_t at; /* index of a page, or PAGE_NONE */
	bool inside_leaf;
};

/* Bytes for a tree over this many leaves. Pre: 0 < nleaves <= 2^22. */
size_t page_runs_bytes(size_t nleaves);

/* All leaves are free. Pre: memory holds page_runs_bytes, aligned to four bytes. */
void page_runs_create(struct page_runs *t, void *memory, size_t nleaves);

/* Make the nodes above and beside a leaf valid, before it changes. */
void page_runs_open(struct page_runs *t, size_t leaf);

/* Some of the eight leaves of one family were written; sum it up. */
void page_runs_sum_family(struct page_runs *t, size_t family);

/* Leaves [first, last] were written; sum them up. */
void page_runs_sum(struct page_runs *t, size_t first, size_t last);

/* The lowest free run of n pages. */
struct page_spot page_runs_first(const struct page_runs *t, size_t n);

/* The lowest one that ends behind this leaf, whose last `carry` pages are free. Pre: it is valid.
 */
struct page_spot page_runs_next(const struct page_runs *t, size_t leaf, size_t carry, size_t n);

/* Is every node the sum of its children? */
bool page_runs_check(const struct page_runs *t, size_t nleaves);

/* --- Words of the bitmap: 1 is free ------------------------------------- */

/* How many pages at the head of a word are free; at the tail. */
static inline unsigned int page_word_head(uint64_t bits)
{
	return ~bits ? mm_ctz(~bits) : 64;
}

static inline unsigned int page_word_tail(uint64_t bits)
{
	return ~bits ? 63 - mm_fls(~bits) : 64;
}

/* The positions from which on n bits are set. Pre: 0 < n <= 64. */
static inline uint64_t page_word_runs(uint64_t bits, unsigned int n)
{
	unsigned int have = 1;

	while (bits && have < n) {
		unsigned int step = n - have < have ? n - have : have;

		bits &= bits >> step;
		have += step;
	}
	return bits;
}

/* Sum up the words of a leaf. */
struct page_run page_leaf_sum(const uint64_t *words);

/* The lowest n free pages from page `from` of a leaf on, or PAGE_NONE; then *carry are free at its
 * tail. */
size_t page_leaf_find(const uint64_t *words, size_t from, size_t n, size_t *carry);

#endif
