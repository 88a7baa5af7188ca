/* SPDX-License-Identifier: MIT */
/* Who allocated and who freed: the MM_DEBUG part of the global allocator. Nothing in other builds.
 */
#ifndef MM_GLOBAL_DEBUG_H
#define MM_GLOBAL_DEBUG_H

#include <mm/global.h>

#if MM_DEBUG

/* From now on reports of faults are completed from this allocator's records. */
void global_debug_watch(struct global_allocator *g);

void global_debug_allocated(struct global_allocator *g, const void *p, struct layout l,
			    const void *caller);

/*
 * p is about to be freed; said before the fact, as afterwards the address may
 * be another's already. True when it was known as live; undo if the free fails.
 */
bool global_debug_freeing(struct global_allocator *g, const void *p, const void *caller);
void global_debug_undo_free(struct global_allocator *g, const void *p);

/* p has another size now. */
void global_debug_resized(struct global_allocator *g, const void *p, size_t nbytes);

/* Keep only the live. Pre: the page lock is held. */
void global_debug_forget(struct global_allocator *g);

#else

static inline void global_debug_watch(struct global_allocator *g)
{
	(void)g;
}

static inline void global_debug_allocated(struct global_allocator *g, const void *p,
					  struct layout l, const void *caller)
{
	(void)g;
	(void)p;
	(void)l;
	(void)caller;
}

static inline bool global_debug_freeing(struct global_allocator *g, const void *p,
					const void *caller)
{
	(void)g;
	(void)p;
	(void)caller;
	return false;
}

static inline void global_debug_undo_free(struct global_allocator *g, const void *p)
{
	(void)g;
	(void)p;
}

static inline void global_debug_resized(struct global_allocator *g, const void *p, size_t nbytes)
{
	(void)g;
	(void)p;
	(void)nbytes;
}

static inline void global_debug_forget(struct global_allocator *g)
{
	(void)g;
}

#endif

#endif
