/* SPDX-License-Identifier: MIT */
/* Slab: header-less objects in size classes, per-CPU. See byte_slab.c for the theory. */
#ifndef MM_BYTE_SLAB_H
#define MM_BYTE_SLAB_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_slab_ops;

#define BYTE_SLAB_PIECES  64   /* pieces of memory that one engine can hold at a time */
#define BYTE_SLAB_MAX	  4096 /* largest size of a class; larger blocks are runs of pages */
#define BYTE_SLAB_LISTS	  192  /* free spans: 16 exact sizes, then 8 to the power of two */
#define BYTE_SLAB_CLASSES 61
#define BYTE_SLAB_WAITING (MM_HARDEN >= 3 ? 32 : 0) /* freed objects that a CPU holds back */

struct slab;

/* What one CPU allocates from. Only it touches this, except where "atomic" is said. */
struct slab_cpu {
	uintptr_t base;	   /* the piece that was hit last: its first page (atomic), */
	size_t nbytes;	   /* size (atomic: take_free sets it to 0) */
	struct slab *meta; /* and page records */
	struct slab *active[BYTE_SLAB_CLASSES];
	struct slab *partial[BYTE_SLAB_CLASSES]; /* rings: taken at the head, added at the tail */
	void *pending; /* taken from the inbox, not yet given to the slabs */
	unsigned int index;
	unsigned int oldest; /* in the quarantine */
	void *quarantine[BYTE_SLAB_WAITING + 1];
	/* What others write is on a line of its own. */
	void *inbox __attribute__((aligned(64))); /* atomic: stack of objects that others freed */
	struct slab *gift;			  /* atomic */
	size_t parked_nbytes;			  /* atomic: in inbox, pending and quarantine */
};

/* One piece of memory: what was given, and the pages that were made of it. */
struct slab_piece {
	uintptr_t base;	   /* of the first page; atomic */
	size_t nbytes;	   /* of all pages; 0: the entry is unused; atomic */
	struct slab *meta; /* one for each page */
	void *given;	   /* as it was added */
	size_t given_nbytes;
	size_t used_pages;
};

/* Private to byte_slab*.c; here so that it can be placed in a static. */
struct byte_slab {
	struct byte_alloc base;
	uint8_t class_of[BYTE_SLAB_MAX / 8 + 1]; /* by size in units of 8, rounded up */
	struct slab_cpu cpu[MM_MAX_CPUS + 1];	 /* the last: what the locked calls allocate from */
	uint64_t hungry;			 /* atomic: CPUs that found no slab, a bit each */
	uint64_t asked;	       /* atomic: CPUs that should give up what is empty */
	struct slab *returned; /* atomic: stack of empty slabs that CPUs gave up */
	size_t returned_pages; /* atomic: in it */
	uint64_t secret;
	unsigned int npieces;	  /* atomic: entries that were ever used */
	unsigned int free_pieces; /* pieces without a used page */
	size_t total_nbytes;	  /* as given; 0: nothing works yet */
	size_t free_pages;
	uint64_t list_bits[BYTE_SLAB_LISTS / 64];
	struct slab *list[BYTE_SLAB_LISTS];
	struct slab_piece piece[BYTE_SLAB_PIECES];
};

/*
 * The shortest path alone, by name, for a user that is built for this engine
 * and can inline it. NULL or false, without any effect: make the local call. Frees
 * that complete an empty slab always end in the local call.
 */
void *byte_slab_alloc_fast(struct byte_alloc *base, size_t size, size_t align, unsigned int cpu);
bool byte_slab_dealloc_fast(struct byte_alloc *base, void *p, size_t size, size_t align,
			    unsigned int cpu);

#endif
