/* SPDX-License-Identifier: MIT */
/* Buddy: power-of-two blocks, merged on free. See byte_buddy.c for the theory. */
#ifndef MM_BYTE_BUDDY_H
#define MM_BYTE_BUDDY_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_buddy_ops;

/* Blocks of fewer units than this have a bin per size for lazy merging. */
#define BUDDY_BINS   64
#define BUDDY_ORDERS 48
/* Freed blocks that hardening level 3 keeps from reuse. */
#define BUDDY_QUARANTINE (MM_HARDEN >= 3 ? 64 : 1)

struct buddy_link;
struct buddy_piece;

/* Private to byte_buddy.c; here so that it can be placed in a static. */
struct byte_buddy {
	struct byte_alloc base;
	uintptr_t first, span;	    /* of the piece that was used last */
	struct buddy_piece *recent; /* that piece */
	struct buddy_piece *pieces; /* by address */
	uint64_t orders;	    /* bit o: lists[BUDDY_BINS + o] is not empty */
	size_t empty_pieces;	    /* pieces without a live block */
	size_t held_bytes;	    /* in quarantine */
	bool broken;		    /* a broken link was met: rebuild the lists */
	unsigned int held_next,
		tick; /* next slot of the quarantine; operations since the last full check */
	struct buddy_link *lists[BUDDY_BINS + BUDDY_ORDERS];
	uint8_t depth[BUDDY_BINS]; /* upper bound of the blocks in a bin */
	uintptr_t held[BUDDY_QUARANTINE];
};

#endif
