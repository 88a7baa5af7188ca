/* SPDX-License-Identifier: MIT */
/*
 * Named caches of objects of one size, over pages of the global allocator. See
 * cache.c for the theory. All functions may be called from any context, on any
 * CPU, except where a precondition says otherwise; sizes are bytes.
 */
#ifndef MM_CACHE_H
#define MM_CACHE_H

#include <mm/types.h>

#define CACHE_MAX_SIZE	((size_t)32 * 1024) /* larger objects are runs of pages */
#define CACHE_MAX_ALIGN MM_PAGE_SIZE
#define CACHE_MIN_ALIGN ((size_t)8) /* smaller alignments are rounded up to it */

/* What cache_create returned: the other calls do not look whether it is NULL. */
struct cache;

/*
 * A cache of objects of exactly `size` bytes, rounded to the alignment only (a
 * power of two). The name is kept, not copied, and outlives the cache in fault
 * reports: a string literal. NULL: no name, size 0 or too large, bad alignment,
 * or no memory.
 */
struct cache *cache_create(const char *name, size_t size, size_t align);

/*
 * The same with a constructor. It runs once per object, when memory for it is
 * taken, and the object is to come back in its constructed state, in which the
 * next user gets it. From hardening level 2 on, which overwrites what is free,
 * it runs before every use. It must not call the cache.
 */
struct cache *cache_create_constructed(const char *name, size_t size, size_t align,
				       void (*construct)(void *object));

/* One object, contents undefined (or constructed); zeroed overrides a constructor. NULL: no memory.
 */
void *cache_alloc(struct cache *c);
void *cache_alloc_zeroed(struct cache *c);

/*
 * Give an object back. What is not a live object of this cache is refused, as far as
 * the hardening level can tell, and reported under the cache's name: INVALID_PARAM
 * for null and misaligned pointers, else NOT_ALLOCATED; nothing is changed.
 */
enum alloc_result cache_free(struct cache *c, void *object);

/*
 * Give memory that no object lives in back to the page allocator: this CPU's
 * part at once; the others are asked, and give theirs back at one of their next calls.
 * Done by itself when pages run out. The number of pages given back.
 */
size_t cache_shrink(struct cache *c);

/*
 * End a cache. 0: it is gone. Else that many objects are alive, a line of the
 * log says so, and the cache is as before. Pre: nobody else calls the cache now,
 * and none will if this succeeds.
 */
MM_MUST_CHECK size_t cache_destroy(struct cache *c);

struct cache_stats {
	const char *name;
	size_t size, align;
	size_t stride; /* bytes from one object to the next */
	size_t slab_bytes, slab_objects;
	size_t nslabs, nempty; /* slabs; those without any object in use or waiting on a CPU */
	size_t nbroken;	       /* slabs that were found overwritten; they are in no other figure */
	size_t live, waiting;  /* objects in use; free ones that CPUs keep at hand */
	size_t lost;  /* objects that were written while they were free, never used again */
	size_t waste; /* bytes of the slabs that never hold an object */
};

/* Exact while no other CPU is inside a call. */
struct cache_stats cache_get_stats(struct cache *c);

/* All caches, oldest first: false when i is past the last. */
bool cache_stats_at(size_t i, struct cache_stats *out);

/* One line of the log for each cache. */
void cache_log_all(void);

/*
 * Verify every invariant: NULL, or the address of the first thing that is
 * broken. Slow. Pre: nobody else calls the cache now.
 */
const void *cache_check(struct cache *c);

#endif
