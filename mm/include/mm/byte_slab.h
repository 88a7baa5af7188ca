/* SPDX-License-Identifier: MIT */
/* Slab: header-less objects in size classes, per-CPU. See byte_slab.c for the theory. */
#ifndef MM_BYTE_SLAB_H
#define MM_BYTE_SLAB_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_slab_ops;

#define BYTE_SLAB_PIECES 64   /* pieces of memory that one engine can hold at a time */
#define BYTE_SLAB_MAX	 4096 /* largest size of a class; larger blocks are runs of pages */
#define BYTE_SLAB_LISTS	 192 /* free spans: 16 exact sizes, then 8 to the power of two */

struct slab;
struct slab_cpu;

/* One piece of memory: what was given, and the pages that were made of it. */
struct slab_piece {
	uintptr_t base;	     /* of the first page */
	size_t nbytes;	     /* of all pages; 0: the entry is unused */
	struct slab *meta;   /* one for each page */
	void *given;	     /* as it was added */
	size_t given_nbytes;
	size_t used_pages;
};

/* Private to byte_slab*.c; here so that it can be placed in a static. */
struct byte_slab {
	struct byte_alloc base;
	struct slab_cpu *cpu[MM_MAX_CPUS];
	struct slab_cpu *shared;    /* what the locked calls allocate from */
	uint8_t class_of[BYTE_SLAB_MAX / 8 + 1]; /* by size in units of 8, rounded up */
	uint64_t hungry;	    /* atomic: CPUs that found no slab, a bit each */
	struct slab *returned;	    /* atomic: stack of empty slabs that CPUs gave up */
	uint64_t secret;
	unsigned int npieces;	    /* entries that were ever used */
	unsigned int piece_seq;	    /* atomic: odd while the table changes */
	unsigned int free_pieces;   /* pieces without a used page */
	size_t private_nbytes;	    /* blocks that the engine allocated for itself */
	uint64_t list_bits[BYTE_SLAB_LISTS / 64];
	struct slab *list[BYTE_SLAB_LISTS];
	struct slab_piece piece[BYTE_SLAB_PIECES];
};

/*
 * The shortest path alone, by name, for a user that is built for this engine
 * and can inline it. NULL or false, without any effect: make the local call.
 */
void *byte_slab_alloc_fast(struct byte_alloc *base, size_t size, size_t align, unsigned int cpu);
bool byte_slab_dealloc_fast(struct byte_alloc *base, void *p, size_t size, unsigned int cpu);

#endif
