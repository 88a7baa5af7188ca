/* SPDX-License-Identifier: MIT */
/*
 * Private to mm/global*.c: what the files of the facade have in common. The theory stands
 * in global.c.
 */
#ifndef MM_GLOBAL_IMPL_H
#define MM_GLOBAL_IMPL_H

#include <mm/global.h>

#include "global_debug.h"
#include "relaxed.h"

/* The engine of an allocator that names none, as the static one does. */
#ifndef MM_GLOBAL_ENGINE
#define MM_GLOBAL_ENGINE byte_tlsf_ops
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE   static __attribute__((noinline))

/* What is counted under the heap lock, as if that were a CPU. */
#define LOCKED MM_MAX_CPUS

/* What callers may give back as pages, and what only the facade itself does. */
#define HEAP_PAGES  (1u << PAGE_USAGE_HEAP)
#define OTHER_PAGES (~HEAP_PAGES)

static inline bool likely(bool x)
{
	return __builtin_expect(x, 1);
}

static inline bool unlikely(bool x)
{
	return __builtin_expect(x, 0);
}

static inline size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t pages_of(size_t nbytes)
{
	return (nbytes + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
}

static inline struct byte_alloc *heap_of(struct global_allocator *g)
{
	return &g->heap.base;
}

/* An allocator that is all zero is one over the engine of the build. */
static inline const struct byte_ops *engine_of(const struct global_allocator *g)
{
	return g->heap.base.ops ? g->heap.base.ops : &MM_GLOBAL_ENGINE;
}

/* A sum that has one writer at a time; others only read. */
ALWAYS_INLINE void count(size_t *sum, size_t nbytes)
{
	mm_store_relaxed(sum, *sum + nbytes);
}

/*
 * Only slab can do without the lock, so what a CPU counts is kept where it has the rest
 * of what it writes then: user_bytes is what it allocated less what it freed, and below zero
 * if others allocated. Known to the compiler as an address, it is made once.
 */
ALWAYS_INLINE struct slab_cpu *slab_cpu_of(struct global_allocator *g, unsigned int cpu)
{
	struct slab_cpu *c = &g->heap.slab.room[cpu].cpu;

	__asm__("" : "+r"(c));
	return c;
}

/* --- global_pages.c --- */

/* Tests: is this request to fail? Pre: the page lock is held. */
bool global_injected_failure(struct global_allocator *g);

MM_MUST_CHECK enum alloc_result global_get_pages(struct global_allocator *g,
						 struct page_request req, virt_addr_t *out);

/* Pages that the facade took for itself: that they do not go back is reported. */
void global_put_own_pages(struct global_allocator *g, virt_addr_t start, size_t npages);

/* Pages about to go back hold nothing any more. Pre: the grow lock or the page lock is held. */
void global_discard(const struct global_allocator *g, virt_addr_t start, size_t npages);

/* How far a request is with asking for memory. It starts as zeroes. */
struct reclaim_stage {
	bool trimmed;
	size_t asked; /* number of the last hook that was, */
	size_t last;  /* and of the last one that there was at the start */
};

/* Ask for memory back after a failure, every source once, so that it ends. True: try again. */
bool global_reclaim(struct global_allocator *g, size_t npages, struct reclaim_stage *stage);

/* What a refused call returns. */
enum alloc_result global_result_of(enum mm_fault_kind fault);

/* --- global_heap.c --- */

/* Takes the first pages for the engine. Pre: the grow lock is held. */
enum alloc_result global_heap_start(struct global_allocator *g);

/* What the engine gave is counted, and the heap lock, of which `state` is, given up. */
ALWAYS_INLINE void *global_heap_unlock(struct global_allocator *g, void *p, size_t size,
				       unsigned long state)
{
	if (likely(p))
		count(&g->locked_bytes, size);
	mm_port_unlock(&g->heap_lock, state);
	return p;
}

/* From the heap as it is; NULL: it is full. `state` is of the heap lock, which is given up. */
void *global_heap_alloc_unlock(struct global_allocator *g, size_t size, size_t align,
			       unsigned long state);

/* The same from a heap that grows if need be; NULL: there are no pages. */
void *global_heap_grow(struct global_allocator *g, struct layout l);

/* Give wholly free pieces back: those beyond the slack, or all. */
void global_heap_trim(struct global_allocator *g, bool all);

/*
 * After a free that was not the usual one, on a heap that is used without the lock: is it time
 * to trim? Pre: c is this CPU's and pinned, or the heap lock is held and c is LOCKED's.
 */
bool global_heap_trim_due(struct global_allocator *g, struct global_cpu *c, size_t nbytes);

/* Requested bytes of the blocks in it. Calls that other CPUs are in may be missed by half. */
size_t global_heap_used(struct global_allocator *g);

/* --- global_large.c --- */

void *global_large_alloc(struct global_allocator *g, struct layout l, const void *caller);
enum mm_fault_kind global_large_free(struct global_allocator *g, const void *p, struct layout l);

/* Where it is; false: it would have to move, or there is no such block. */
bool global_large_resize(struct global_allocator *g, void *p, struct layout old, size_t new_size);

/* The fault of naming a large block so. */
enum mm_fault_kind global_large_check(struct global_allocator *g, const void *p, struct layout l);

/* The first byte behind a large block that is not as it was left, or NULL. */
const void *global_large_walk(struct global_allocator *g);

#endif
