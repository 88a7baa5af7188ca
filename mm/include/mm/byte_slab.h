/* SPDX-License-Identifier: MIT */
/* Slab: header-less objects in size classes, per-CPU. See byte_slab.c for the theory. */
#ifndef MM_BYTE_SLAB_H
#define MM_BYTE_SLAB_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

extern const struct byte_ops byte_slab_ops;

#define BYTE_SLAB_MAX	  4096 /* largest size of a class; larger blocks are runs of pages */
#define BYTE_SLAB_LISTS	  256  /* free spans: 16 exact sizes, then 8 to the power of two */
#define BYTE_SLAB_CLASSES 55
#define BYTE_SLAB_WINDOWS 16			    /* a CPU sees into so many pieces */
#define BYTE_SLAB_PLACES  (MM_HARDEN >= 2 ? 1 : 64) /* that lead to them by the address */
#define BYTE_SLAB_WAITING (MM_HARDEN >= 3 ? 32 : 0) /* freed objects that a CPU holds back */

struct slab;
struct slab_piece;

/* Pages that were in use at some time, of one piece: address -> record without a search. */
struct slab_window {
	uintptr_t base;	     /* first page; atomic */
	size_t nbytes;	     /* atomic; 0: nothing */
	struct slab **slabs; /* of each page */
};

struct slab_waiting {
	void *p;
	struct slab *slab;
};

/*
 * What one CPU allocates from. Only it touches this, except where "atomic" is said, and that
 * whoever takes a piece of memory away, under the lock, reads nwindows to close windows.
 */
struct slab_cpu {
	struct slab *active[BYTE_SLAB_CLASSES];
	size_t user_bytes; /* for the engine's user, who has the CPU pinned */
	uint32_t tag;	   /* of a slab that it owns, but for the size of the class */
	unsigned int index;
	struct slab *partial[BYTE_SLAB_CLASSES]; /* rings: taken at the head, added at the tail */
	struct slab *arrived;			 /* taken from the inbox */
	struct slab *pending_slab;		 /* the one of these whose objects are */
	void *pending;				 /* being freed */
	uint32_t slabs[BYTE_SLAB_CLASSES];	 /* how many it has */
	unsigned int oldest;			 /* in the quarantine */
	unsigned int answered;			 /* what to give up next, if asked */
	unsigned int nwindows;			 /* that were ever opened, */
	unsigned int oldest_window; /* and, when these are all, the next to be given up */
	struct slab_window *second; /* where to look then: what a place lost */
	struct slab_window *seen[BYTE_SLAB_PLACES]; /* by bits of an address: where to look first */
	struct slab_waiting quarantine[BYTE_SLAB_WAITING ? BYTE_SLAB_WAITING : 1];
	/* What others write is on a line of its own. */
	__attribute__((aligned(64))) struct slab *inbox; /* atomic: slabs with remote frees */
};

/* So large that a shift finds that of a CPU. */
union slab_cpu_room {
	struct slab_cpu cpu;
	char room[2048];
};

/* Private to byte_slab*.c; here so that it can be placed in a static. */
struct byte_slab {
	struct byte_alloc base;
	uint64_t secret;		     /* 0: init was never called */
	uint8_t class_of[BYTE_SLAB_MAX / 8]; /* by (size - 1) / 8 */
	uint32_t factor[BYTE_SLAB_CLASSES];  /* see struct slab */
	union slab_cpu_room room[MM_MAX_CPUS];
	struct slab_window windows[MM_MAX_CPUS][BYTE_SLAB_WINDOWS];
	uint64_t next_mark;    /* of a slab's free objects */
	uint64_t asked;	       /* atomic: CPUs that should give up what is empty */
	unsigned int settler;  /* who made the first part of what is being settled */
	struct slab *returned; /* atomic: stack of empty slabs that CPUs gave up */
	size_t returned_pages; /* atomic: in it */
	size_t total_nbytes;   /* as given */
	size_t free_pages;
	size_t free_pieces;	   /* pieces without a used page */
	struct slab_piece *pieces; /* a list of all, */
	struct slab_piece *root;   /* and a tree by address */
	uint64_t list_bits[BYTE_SLAB_LISTS / 64];
	struct slab *list[BYTE_SLAB_LISTS];
};

/*
 * The shortest path alone, by name, for a user that is built for this engine
 * and can inline it. NULL or false, without any effect: make the local call.
 * Pre: init was called; align is a power of two; in a free, size < 2^24.
 */
void *byte_slab_alloc_fast(struct byte_alloc *base, size_t size, size_t align, unsigned int cpu);
bool byte_slab_dealloc_fast(struct byte_alloc *base, void *p, size_t size, size_t align,
			    unsigned int cpu);

/*
 * The same for a user that knows where this CPU's part is. These call nobody: if a free makes
 * that a slab has to be listed or given up, *event is this slab, else NULL, and before the CPU is
 * unpinned the user calls byte_slab_event.
 */
void *byte_slab_alloc_shortest(struct byte_alloc *base, struct slab_cpu *c, size_t size,
			       size_t align);
bool byte_slab_dealloc_shortest(struct byte_alloc *base, struct slab_cpu *c, void *p, size_t size,
				size_t align, struct slab **event);
void byte_slab_event(struct byte_alloc *base, struct slab_cpu *c, struct slab *s);

#endif
