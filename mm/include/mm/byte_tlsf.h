/* SPDX-License-Identifier: MIT */
/* TLSF: two-level segregated fit, constant time at worst. See byte_tlsf.c for the theory. */
#ifndef MM_BYTE_TLSF_H
#define MM_BYTE_TLSF_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_tlsf_ops;

/* Lists: rows of 64, the first for sizes that are told exactly, then one row per power of two. */
#define TLSF_ROWS 36u
#define TLSF_COLS 64u
/* Sizes with a quick bin, in units of 8 bytes, and the blocks that it takes. */
#define TLSF_QUICK	 64u
#define TLSF_QUICK_DEPTH 4u
/* Freed blocks that hardening level 3 keeps from reuse. */
#define TLSF_QUARANTINE (MM_HARDEN >= 3 ? 64 : 1)

struct tlsf_block;
struct tlsf_piece;

/* Private to byte_tlsf.c; here so that it can be placed in a static. */
struct byte_tlsf {
	struct byte_alloc base;
	uintptr_t first, span; /* the piece used last; at level 0 the hull of all pieces */
	uint64_t secret;       /* makes the seals of this heap its own */
	size_t free_bytes;     /* in blocks that are not live, with their headers */
	struct tlsf_block *quick[TLSF_QUICK];
	uint8_t quick_depth[TLSF_QUICK];
	uint64_t rows;		  /* bit r: cols[r] is not zero */
	uint64_t cols[TLSF_ROWS]; /* bit c of word r: lists[r * TLSF_COLS + c] is not empty */
	struct tlsf_block *lists[TLSF_ROWS * TLSF_COLS];
	struct tlsf_piece *pieces; /* by address */
	struct tlsf_piece *empty;  /* pieces that are one free block */
	size_t capacity;	   /* bytes in blocks of any kind */
	size_t total_bytes;	   /* as given */
	unsigned int held_next;	   /* slot of the quarantine */
	unsigned int tick;	   /* operations, for the full checks */
	uintptr_t held[TLSF_QUARANTINE];
};

#endif
