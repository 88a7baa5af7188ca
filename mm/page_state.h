/* SPDX-License-Identifier: MIT */
/*
 * Private to the page allocator: the state of each page, four bits: 0 when nobody
 * has it (it is free, or parked in a CPU's cache: the bitmap knows which), else
 * its usage. The heap comes first, so that one comparison tells whether a page
 * is in use for something that its user may give back.
 *
 * The owner of a page changes its state, be it under the page lock or not, and
 * at the same moment others may change its neighbours in the same word. So a
 * part of a word is changed by one atomic operation; a word whose pages are all
 * the caller's is written plainly.
 */
#ifndef MM_PAGE_STATE_H
#define MM_PAGE_STATE_H

#include <mm/page_alloc.h>

#define PAGE_STATES_WORD 16u /* states in a word */

#define PAGE_STATE_HEAP 1u

static inline unsigned int page_state_of(enum page_usage usage)
{
	return ((unsigned int)usage ^ PAGE_USAGE_HEAP) + PAGE_STATE_HEAP;
}

/* Pre: the state is not 0. */
static inline enum page_usage page_state_usage(unsigned int state)
{
	return (enum page_usage)((state - PAGE_STATE_HEAP) ^ PAGE_USAGE_HEAP);
}

/* A word of equal states. */
static inline uint64_t page_state_word(unsigned int state)
{
	return state * 0x1111111111111111u;
}

/* The bits of the states [lo, hi) of a word. Pre: lo < hi <= 16. */
static inline uint64_t page_state_range(size_t lo, size_t hi)
{
	return ~(uint64_t)0 >> (64 - (hi - lo) * 4) << (lo * 4);
}

static inline uint64_t page_state_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline unsigned int page_state_shift(size_t i)
{
	return i * 4 & 63;
}

static inline unsigned int page_state(const uint64_t *states, size_t i)
{
	return (unsigned int)(page_state_load(&states[i / PAGE_STATES_WORD]) >>
			      page_state_shift(i)) &
	       15;
}

/* The page, which is the caller's, was `state` and becomes 0; or the other way round. */
static inline void page_state_flip(uint64_t *states, size_t i, unsigned int state)
{
	__atomic_fetch_xor(&states[i / PAGE_STATES_WORD], (uint64_t)state << page_state_shift(i),
			   __ATOMIC_RELAXED);
}

/* The n pages from i on, all of them the caller's and in one word, had no state and get one. */
static inline void page_state_set_few(uint64_t *states, size_t i, size_t n, unsigned int state)
{
	uint64_t bits = page_state_word(state) >> (64 - n * 4) << page_state_shift(i);

	__atomic_fetch_or(&states[i / PAGE_STATES_WORD], bits, __ATOMIC_RELAXED);
}

/* The pages in this range of a word, all of them the caller's, had no state and get one. */
static inline void page_state_set(uint64_t *word, uint64_t range, unsigned int state)
{
	__atomic_fetch_or(word, page_state_word(state) & range, __ATOMIC_RELAXED);
}

/* They lose their states. */
static inline void page_state_clear(uint64_t *word, uint64_t range)
{
	__atomic_fetch_and(word, ~range, __ATOMIC_RELAXED);
}

#endif
