/* SPDX-License-Identifier: MIT */
/*
 * Bit searches. With MM_FAST_BITS the compiler's builtin is one or two
 * instructions; without (RV64GC has no count-zeros instruction) it would be a
 * call into libgcc, so a de Bruijn multiplication is used instead (Leiserson,
 * Prokop, Randall: "Using de Bruijn Sequences to Index a 1 in a Computer Word", 1998).
 */
#ifndef MM_BITS_H
#define MM_BITS_H

#include <mm/port.h>

extern const uint8_t mm_debruijn64[64];

/* Index of the lowest set bit. Pre: x != 0. */
static inline unsigned int mm_ctz(uint64_t x)
{
	if (MM_FAST_BITS)
		return (unsigned int)__builtin_ctzll(x);
	return mm_debruijn64[((x & -x) * 0x03f79d71b4cb0a89u) >> 58];
}

/*
 * Is the n-th bit, counted from 1, the lowest one that is set? Without a fast search, one shift
 * brings the bit that must be the only one to the top. Pre: x != 0, 1 <= n <= 64.
 */
static inline bool mm_lowest_is_nth(uint64_t x, size_t n)
{
	return MM_FAST_BITS ? mm_ctz(x) + 1 == n : x << (-n & 63) == (uint64_t)1 << 63;
}

/* Index of the highest set bit, which is floor(log2 x). Pre: x != 0. */
static inline unsigned int mm_fls(uint64_t x)
{
	if (MM_FAST_BITS)
		return 63u ^ (unsigned int)__builtin_clzll(x);
	x |= x >> 1;
	x |= x >> 2;
	x |= x >> 4;
	x |= x >> 8;
	x |= x >> 16;
	x |= x >> 32;
	x ^= x >> 1;
	return mm_debruijn64[(x * 0x03f79d71b4cb0a89u) >> 58];
}

static inline uintptr_t mm_align_up(uintptr_t x, size_t align)
{
	return (x + align - 1) & ~(uintptr_t)(align - 1);
}

static inline uintptr_t mm_align_down(uintptr_t x, size_t align)
{
	return x & ~(uintptr_t)(align - 1);
}

/*
 * Where in a table of words an address is noted, in bytes from its start: addresses of the same
 * `near` bytes have the same place. Both are powers of two, and constants. A subscript would do,
 * of which gcc makes two instructions more.
 */
static inline size_t mm_place(uintptr_t addr, size_t near, size_t table_nbytes)
{
	return addr / (near / sizeof(uintptr_t)) & (table_nbytes - sizeof(uintptr_t));
}

#endif
