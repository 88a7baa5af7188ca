/* SPDX-License-Identifier: MIT */
/*
 * A set of small integers as a bitmap under 64-ary summary bitmaps: a bit of
 * level l + 1 says that a word of level l is not zero, and the top level is a
 * single word. Insertion, removal and the search for the next member cost a few
 * instructions per level; four levels hold 16 million members.
 *
 * The caller owns the words; sets of equal capacity share one shape.
 */
#ifndef MM_PAGE_TREE_H
#define MM_PAGE_TREE_H

#include "bits.h"

#define PAGE_TREE_LEVELS 5
#define PAGE_NONE	 SIZE_MAX

struct page_tree_shape {
	unsigned int levels;
	uint32_t offset[PAGE_TREE_LEVELS +
			1]; /* first word of each level, then how many there are */
};

/* Pre: 0 < capacity <= 2^30. */
static inline struct page_tree_shape page_tree_shape(size_t capacity)
{
	struct page_tree_shape s = {0};

	do {
		capacity = (capacity + 63) / 64;
		s.offset[s.levels + 1] = s.offset[s.levels] + (uint32_t)capacity;
		s.levels++;
	} while (capacity > 1);
	return s;
}

static inline size_t page_tree_words(const struct page_tree_shape *s)
{
	return s->offset[s->levels];
}

static inline bool page_tree_has(const uint64_t *t, size_t i)
{
	return t[i >> 6] >> (i & 63) & 1;
}

static inline void page_tree_insert(const struct page_tree_shape *s, uint64_t *t, size_t i)
{
	for (unsigned int l = 0; l < s->levels; l++, i >>= 6) {
		uint64_t *word = &t[s->offset[l] + (i >> 6)];
		uint64_t old = *word;

		*word = old | (uint64_t)1 << (i & 63);
		if (old)
			return;
	}
}

static inline void page_tree_remove(const struct page_tree_shape *s, uint64_t *t, size_t i)
{
	for (unsigned int l = 0; l < s->levels; l++, i >>= 6) {
		uint64_t *word = &t[s->offset[l] + (i >> 6)];

		*word &= ~((uint64_t)1 << (i & 63));
		if (*word)
			return;
	}
}

/* The least member below entry i of level l, which is known to be set. */
static inline size_t page_tree_descend(const struct page_tree_shape *s, const uint64_t *t,
				       unsigned int l, size_t i)
{
	while (l-- > 0)
		i = i << 6 | mm_ctz(t[s->offset[l] + i]);
	return i;
}

/* The least member, or PAGE_NONE. */
static inline size_t page_tree_first(const struct page_tree_shape *s, const uint64_t *t)
{
	uint64_t top = t[s->offset[s->levels - 1]];

	return top ? page_tree_descend(s, t, s->levels - 1, mm_ctz(top)) : PAGE_NONE;
}

/* The least member that is at least i, or PAGE_NONE. */
static inline size_t page_tree_next(const struct page_tree_shape *s, const uint64_t *t, size_t i)
{
	for (unsigned int l = 0; l < s->levels; l++) {
		size_t word = s->offset[l] + (i >> 6);
		uint64_t rest;

		if (word >= s->offset[l + 1])
			return PAGE_NONE;
		rest = t[word] & ~(uint64_t)0 << (i & 63);
		if (rest)
			return page_tree_descend(s, t, l, (i & ~(size_t)63) | mm_ctz(rest));
		i = (i >> 6) + 1;
	}
	return PAGE_NONE;
}

#endif
