/* SPDX-License-Identifier: MIT */
/* Buddy: power-of-two blocks, merged on free. See byte_buddy.c for the theory. */
#ifndef MM_BYTE_BUDDY_H
#define MM_BYTE_BUDDY_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_buddy_ops;

/* Runs of fewer units than this are parked for reuse, at most so many of each length. */
#define BUDDY_PARKED_UNITS 256u
#define BUDDY_PARKED_DEPTH 15u
/* Granules whose place in the lists is out of date, at most. */
#define BUDDY_PENDING 16u
#define BUDDY_SEEN    64u /* places by which pieces are remembered */
/* Lists of nodes: one for each length class of each level of the tree. */
#define BUDDY_LEVELS  7u
#define BUDDY_CLASSES 24u
#define BUDDY_LISTS   (BUDDY_LEVELS * BUDDY_CLASSES)
/* Freed blocks that hardening level 3 keeps from reuse. */
#define BUDDY_QUARANTINE (MM_HARDEN >= 3 ? 64 : 1)

struct buddy_link;
struct buddy_piece;

/* Private to byte_buddy.c; here so that it can be placed in a static. */
struct byte_buddy {
	struct byte_alloc base;
	uintptr_t first, span;			/* of the piece that was used last */
	uintptr_t granules, written;		/* where its marks and notes are */
	struct buddy_piece *recent;		/* that piece */
	struct buddy_piece *seen[BUDDY_SEEN];	/* by bits of an address, or NULL: was it there? */
	struct buddy_piece *pieces;		/* a tree by address */
	size_t empty_pieces;			/* pieces without a live or parked block */
	size_t held_bytes;			/* in quarantine */
	unsigned int held_next;			/* next slot of the quarantine */
	unsigned int tick;			/* operations since the last full check */
	uint64_t some[(BUDDY_LISTS + 63) / 64]; /* bit i: lists[i] is not empty */
	struct buddy_link *lists[BUDDY_LISTS];
	/* Parked runs of each length: a stack that grows downwards, from a last entry of 0. Its top
	 * is so many bytes from the start of all stacks, where there is a 0 as well. */
	size_t top[BUDDY_PARKED_UNITS];
	uintptr_t stack[BUDDY_PARKED_UNITS][BUDDY_PARKED_DEPTH + 1];
	uintptr_t pending[BUDDY_PENDING];
	uintptr_t held[BUDDY_QUARANTINE];
};

/*
 * The shortest path alone, by name, for a user that is built for this engine and
 * can inline it. NULL or false, without any effect: make the ordinary call.
 */
void *byte_buddy_alloc_fast(struct byte_alloc *a, size_t size, size_t align, unsigned int cpu);
bool byte_buddy_dealloc_fast(struct byte_alloc *a, void *p, size_t size, size_t align,
			     unsigned int cpu);

/* The same over many pieces, where calls go from one to the other. */
void *byte_buddy_alloc_shortest(struct byte_alloc *a, size_t size, size_t align);
bool byte_buddy_dealloc_shortest(struct byte_alloc *a, void *p, size_t size, size_t align);

#endif
