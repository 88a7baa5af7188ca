/* SPDX-License-Identifier: MIT */
/*
 * Private to TLSF: its pieces and free blocks, the map of where blocks are, and what is read from
 * them. The theory of operation stands in byte_tlsf.c.
 */
#ifndef MM_BYTE_TLSF_MAP_H
#define MM_BYTE_TLSF_MAP_H

#include <mm/byte_tlsf.h>

#include "bits.h"

#define UNIT	    ((size_t)8)
#define MIN_BLOCK   (3 * UNIT)	   /* the least that can be in a list, and that a request takes */
#define LINEAR	    ((size_t)1024) /* sizes below have lists of their own */
#define COL_LOG	    6u
#define NLISTS	    ((size_t)TLSF_ROWS * TLSF_COLS)
#define CELL_SHIFT  9u /* a cell of the map tells of 512 bytes */
#define CELL_SPAN   ((size_t)1 << CELL_SHIFT)
#define FRAME_SHIFT 15u /* a frame is a run of cells that are cleared together */
#define POISON	    0xdfdfdfdfdfdfdfdfu
#define TAIL	    (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)

/* 64 units of memory, a bit each. Between two blocks there is a boundary: its unit is the first
 * of a live block, or exactly one of its sides is free. No other unit has a bit. */
struct tlsf_cell {
	uint64_t live; /* a live block starts here */
	uint64_t edge; /* free memory starts or ends here */
};

/* A free block. Its last word repeats the tag, unless that is the word of `at`. */
struct tlsf_block {
	uint64_t tag; /* size in bytes | 1 */
	struct tlsf_block *next;
	struct tlsf_block **at; /* what points to this one */
};

struct tlsf_piece {
	struct tlsf_view view;		 /* first, so that it leads to the rest */
	struct tlsf_piece *next;	 /* by address */
	struct tlsf_piece *left, *right; /* in the tree */
	struct tlsf_piece *next_empty, **at_empty;
	uintptr_t frames;   /* where the byte of frame 0 would be: is it cleared? */
	uintptr_t frontier; /* up to here all frames are; view.fresh is a cell less */
	void *start;	    /* as it was given */
	size_t nbytes;
};

static inline const struct byte_tlsf *const_tlsf_of(const struct byte_alloc *a)
{
	return (const struct byte_tlsf *)a;
}

/* --- Free blocks ------------------------------------------------------------ */

static inline struct tlsf_block *block_at(uintptr_t addr)
{
	return (struct tlsf_block *)addr;
}

static inline size_t size_of(const struct tlsf_block *b)
{
	return b->tag - 1;
}

static inline uint64_t *last_word(const struct tlsf_block *b, size_t nbytes)
{
	return (uint64_t *)((uintptr_t)b + nbytes) - 1;
}

/* The last word of a block of 24 bytes is a pointer, which is even. */
static inline size_t size_before(uintptr_t addr)
{
	uint64_t word = ((const uint64_t *)addr)[-1];

	return word & 1 ? word - 1 : MIN_BLOCK;
}

/* The list that a block of this size belongs to. */
static inline size_t list_of(size_t nbytes)
{
	unsigned int log;

	if (nbytes < LINEAR)
		return nbytes / UNIT;
	log = mm_fls(nbytes);
	return ((size_t)(log - 9) << COL_LOG) + (nbytes >> (log - COL_LOG));
}

/* --- Pieces of memory ------------------------------------------------------- */

static inline bool in_view(const struct tlsf_view *v, uintptr_t addr)
{
	return addr - v->first < v->span;
}

static inline uintptr_t view_end(const struct tlsf_view *v)
{
	return v->first + v->span;
}

/* The piece with this address in its blocks, or NULL. */
struct tlsf_piece *byte_tlsf_piece_search(const struct byte_tlsf *h, uintptr_t addr);

/* --- The map ---------------------------------------------------------------- */

static inline struct tlsf_cell *cell_at(uintptr_t map, uintptr_t addr)
{
	return (struct tlsf_cell *)(map + (addr >> CELL_SHIFT) * sizeof(struct tlsf_cell));
}

static inline unsigned int bit_of(uintptr_t addr)
{
	return addr / UNIT % 64;
}

static inline uint64_t mask_of(uintptr_t addr)
{
	return (uint64_t)1 << bit_of(addr);
}

static inline bool live_at(const struct tlsf_view *v, uintptr_t addr)
{
	return cell_at(v->map, addr)->live & mask_of(addr);
}

static inline bool edge_at(const struct tlsf_view *v, uintptr_t addr)
{
	return cell_at(v->map, addr)->edge & mask_of(addr);
}

static inline uint64_t boundaries(const struct tlsf_cell *c)
{
	return c->live | c->edge;
}

static inline uint8_t *frame_at(const struct tlsf_piece *piece, uintptr_t addr)
{
	return (uint8_t *)(piece->frames + (addr >> FRAME_SHIFT));
}

/* Has the map been cleared here? */
static inline bool is_prepared(const struct tlsf_piece *piece, uintptr_t addr)
{
	return addr < piece->view.fresh || *frame_at(piece, addr);
}

/* --- Blocks kept back ------------------------------------------------------- */

static inline const struct tlsf_kept *const_kept_at(const struct byte_tlsf *h, unsigned int i)
{
	return &h->sets[i / TLSF_WAYS].way[i % TLSF_WAYS];
}

/* Is this block, live in the map, a freed one? */
static inline bool is_kept(const struct byte_tlsf *h, uintptr_t start)
{
	for (unsigned int i = 0; i < TLSF_KEPT; i++)
		if (const_kept_at(h, i)->nbytes && const_kept_at(h, i)->start == start)
			return true;
	return false;
}

/* --- Poison (level 2) ------------------------------------------------------- */

static inline bool is_poison(uintptr_t from, uintptr_t to)
{
	while (from < to && *(const uint64_t *)from == POISON)
		from += UNIT;
	return from >= to;
}

/* The words of a free block that have no other use. */
static inline uintptr_t poison_start(const struct tlsf_block *b)
{
	return (uintptr_t)b + sizeof(*b);
}

static inline uintptr_t poison_end(const struct tlsf_block *b)
{
	return (uintptr_t)last_word(b, size_of(b));
}

/* --- byte_tlsf_check.c ------------------------------------------------------ */

size_t byte_tlsf_block_size(const struct byte_alloc *a, const void *ptr);
void byte_tlsf_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx);
const void *byte_tlsf_check(const struct byte_alloc *a);

#endif
