/* SPDX-License-Identifier: MIT */
/* TLSF: two-level segregated fit, constant time at worst. See byte_tlsf.c for the theory. */
#ifndef MM_BYTE_TLSF_H
#define MM_BYTE_TLSF_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_tlsf_ops;

/* alloc and dealloc by name, so that they can become a part of a caller. */
void *byte_tlsf_alloc(struct byte_alloc *a, size_t size, size_t align);
enum mm_fault_kind byte_tlsf_dealloc(struct byte_alloc *a, void *p, size_t size, size_t align);

/* dealloc where it is usual; false: dealloc must be called. */
bool byte_tlsf_dealloc_fast(struct byte_alloc *a, void *p, size_t size, size_t align,
			    unsigned int cpu);

/* A block that was freed, and is live in the map all the same. nbytes 0: none. */
struct tlsf_kept {
	uintptr_t start;
	size_t nbytes;
};

/*
 * The shortest paths alone: a kept block is taken, a place for one is filled. They call
 * nobody, so that a user which they become a part of need not save registers. NULL or false,
 * without any effect: make the other call. *was is what was kept in that place before: if
 * there was something, the caller has it released, under the same hold of its lock.
 */
void *byte_tlsf_alloc_shortest(struct byte_alloc *a, size_t size, size_t align);
bool byte_tlsf_dealloc_shortest(struct byte_alloc *a, void *p, size_t size, size_t align,
				struct tlsf_kept *was);
void byte_tlsf_release(struct byte_alloc *a, uintptr_t start, size_t nbytes);

/* alloc, where its shortest path has just returned NULL: it does not look there again. */
void *byte_tlsf_alloc_rest(struct byte_alloc *a, size_t size, size_t align);

/* Lists: rows of 64, the first for sizes that are told exactly, then one row per power of two. */
#define TLSF_ROWS 36u
#define TLSF_COLS 64u
/* Places for freed blocks: kept for reuse at levels 0 and 1, from reuse at level 3. */
#define TLSF_SETS 32u
#define TLSF_WAYS 8u
#define TLSF_KEPT (TLSF_SETS * TLSF_WAYS)
/* Places to remember pieces in, other than the one used last. */
#define TLSF_SEEN 32u

struct tlsf_block;
struct tlsf_piece;

/* Places for blocks of some sizes. */
struct tlsf_set {
	struct tlsf_kept way[TLSF_WAYS];
};

/* Where the blocks of a piece of memory are, and their map. */
struct tlsf_view {
	uintptr_t first; /* the first block */
	size_t span;	 /* bytes of blocks */
	uintptr_t map;	 /* where the cell of address 0 would be */
	size_t cleared;	 /* so many of them lie where the map is cleared, and the next cell */
	uintptr_t fresh; /* from here on it is cleared as it comes into use */
};

/* Private to byte_tlsf.c; here so that it can be placed in a static. */
struct byte_tlsf {
	struct byte_alloc base;
	struct tlsf_view view;	    /* of the piece used last */
	uintptr_t low;		    /* the hull of all pieces */
	size_t hull;		    /* its bytes */
	size_t free_bytes;	    /* in free blocks */
	struct tlsf_piece *current; /* the piece used last */
	uintptr_t seen[TLSF_SEEN];  /* by address: where a piece's view is, from ours */
	struct tlsf_set sets[TLSF_SETS];
	uint64_t rows;		  /* bit r: cols[r] is not zero */
	uint64_t cols[TLSF_ROWS]; /* bit c of word r: lists[r * TLSF_COLS + c] is not empty */
	struct tlsf_block *lists[TLSF_ROWS * TLSF_COLS];
	struct tlsf_piece *pieces; /* by address */
	struct tlsf_piece *root;   /* the same as a balanced tree */
	struct tlsf_piece *empty;  /* pieces that are one free block */
	size_t npieces;
	size_t capacity;	/* bytes in blocks of any kind */
	size_t total_bytes;	/* as given */
	unsigned int kept_next; /* whose place is wanted next */
	unsigned int tick;	/* operations, for the full checks */
};

#endif
