/* SPDX-License-Identifier: MIT */
/*
 * A set of small integers as a bitmap under 64-ary summary bitmaps: a bit of
 * level l + 1 says that a word of level l is not zero, and the top level is a
 * single word, which comes first. Insertion, removal and the search for the next
 * member cost a few instructions per level; four levels hold 16 million members.
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
	/* [l]: the word behind level l, which begins at [l + 1] */
	uint32_t end[PAGE_TREE_LEVELS + 1];
};

/* Pre: 0 < capacity <= 2^30. */
static inline struct page_tree_shape page_tree_shape(size_t capacity)
{
	struct page_tree_shape s = {0};

	do {
		capacity = (capacity + 63) / 64;
		s.end[s.levels++] = (uint32_t)capacity;
	} while (capacity > 1);
	for (unsigned int l = s.levels; l-- > 0;)
		s.end[l] += s.end[l + 1];
	return s;
}

static inline size_t page_tree_words(const struct page_tree_shape *s)
{
	return s->end[0];
}

/* Is bit i of some words set? */
static inline bool page_tree_bit(const uint64_t *words, size_t i)
{
	return words[i >> 6] >> (i & 63) & 1;
}

static inline bool page_tree_has(const struct page_tree_shape *s, const uint64_t *t, size_t i)
{
	return page_tree_bit(&t[s->end[1]], i);
}

static inline void page_tree_insert(const struct page_tree_shape *s, uint64_t *t, size_t i)
{
	for (unsigned int l = 0; l < s->levels; l++, i >>= 6) {
		uint64_t *word = &t[s->end[l + 1] + (i >> 6)];
		uint64_t old = *word;

		*word = old | (uint64_t)1 << (i & 63);
		if (old)
			return;
	}
}

static inline void page_tree_remove(const struct page_tree_shape *s, uint64_t *t, size_t i)
{
	for (unsigned int l = 0; l < s->levels; l++, i >>= 6) {
		uint64_t *word = &t[s->end[l + 1] + (i >> 6)];

		*word &= ~((uint64_t)1 << (i & 63));
		if (*word)
			return;
	}
}

/* From entry i of level l to its least of the level below. */
static inline size_t page_tree_step(const struct page_tree_shape *s, const uint64_t *t,
				    unsigned int l, size_t i)
{
	return i << 6 | mm_ctz(t[s->end[l] + i]);
}

/* The least member below entry i of level l, which is known to be set. */
static inline size_t page_tree_descend(const struct page_tree_shape *s, const uint64_t *t,
				       unsigned int l, size_t i)
{
	_Static_assert(PAGE_TREE_LEVELS == 5, "a case for each step");
	switch (l) {
	case 4:
		i = page_tree_step(s, t, 4, i); /* fall through */
	case 3:
		i = page_tree_step(s, t, 3, i); /* fall through */
	case 2:
		i = page_tree_step(s, t, 2, i); /* fall through */
	case 1:
		i = page_tree_step(s, t, 1, i); /* fall through */
	default:
		return i;
	}
}

static inline bool page_tree_empty(const uint64_t *t)
{
	return !t[0];
}

/* The least member. Pre: there is one. */
static inline size_t page_tree_least(const struct page_tree_shape *s, const uint64_t *t)
{
	return page_tree_descend(s, t, s->levels - 1, mm_ctz(t[0]));
}

/* The least member, or PAGE_NONE. */
static inline size_t page_tree_first(const struct page_tree_shape *s, const uint64_t *t)
{
	return page_tree_empty(t) ? PAGE_NONE : page_tree_least(s, t);
}

/* The least member that is at least i, or PAGE_NONE. */
static inline size_t page_tree_next(const struct page_tree_shape *s, const uint64_t *t, size_t i)
{
	for (unsigned int l = 0; l < s->levels; l++) {
		size_t word = s->end[l + 1] + (i >> 6);
		uint64_t rest;

		if (word >= s->end[l])
			return PAGE_NONE;
		rest = t[word] & ~(uint64_t)0 << (i & 63);
		if (rest)
			return page_tree_descend(s, t, l, (i & ~(size_t)63) | mm_ctz(rest));
		i = (i >> 6) + 1;
	}
	return PAGE_NONE;
}

#endif
