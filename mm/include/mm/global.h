/* SPDX-License-Identifier: MIT */
/*
 * The global allocator: one byte allocator and one page allocator, each behind
 * an interrupt-safe spin lock. All functions may be called from any context,
 * interrupt handlers included, on any CPU. The two locks are never held
 * together. See global.c for the theory.
 */
#ifndef MM_GLOBAL_H
#define MM_GLOBAL_H

#include <mm/block_table.h>
#include <mm/byte_alloc.h>
#include <mm/byte_buddy.h>
#include <mm/byte_slab.h>
#include <mm/byte_tlsf.h>
#include <mm/page_alloc.h>
#include <mm/port.h>

/* What init takes from the page allocator for the byte allocator (bytes). */
#define MIN_HEAP_SIZE ((size_t)32 * 1024)

/*
 * Blocks larger than this, or with a larger alignment, take whole pages and do
 * not go through the byte allocator. A power of two.
 */
#define GLOBAL_LARGE_SIZE ((size_t)64 * 1024)

#define GLOBAL_SETTLED (~0u) /* nothing is to be settled any more */

struct reclaim_hook;
typedef void (*discard_hook)(virt_addr_t start, size_t npages);

/* What one CPU writes while it is pinned, or who has the heap lock. */
struct global_cpu {
	size_t freed_bytes; /* by its rare frees; it only grows */
	size_t look_at;	    /* with so many freed_bytes, look at what all use */
	bool drain_pages;   /* set by others: empty the page cache at the next chance */
} __attribute__((aligned(64)));

/*
 * Members are private to mm/global*.c. What the usual calls touch comes first, so that
 * short offsets reach it.
 */
struct global_allocator {
	struct mm_lock heap_lock; /* the heap, but for its local operations */
	size_t fast_limit;	  /* the largest layout for the engine's shortest path, or 0, */
	size_t small_limit;	  /* and for the engine: 0 until it has memory */
	size_t locked_bytes;	  /* allocated less freed under the lock */
	size_t trim_below;	  /* with fewer bytes used than this, look for free pieces */
	struct global_cpu cpu[MM_MAX_CPUS + 1]; /* the last: under the heap lock */
	union {
		struct byte_alloc base;
		struct byte_tlsf tlsf;
		struct byte_slab slab;
		struct byte_buddy buddy;
	} heap;

	size_t kept_bytes; /* a heap no larger gives nothing back by itself; under the heap lock */

	struct mm_lock grow_lock; /* outermost: the heap changes its size */
	size_t trim_part;	  /* atomic: what is settled next before pieces go back */

	struct mm_lock page_lock; /* the pages, but for their local operations; and: */
	size_t large_used_bytes;
	struct block_table large;
	unsigned long fail_pages_at; /* global_allocator_fail_pages */

	discard_hook discard; /* atomic */

	struct mm_lock hook_lock;
	struct reclaim_hook *hooks;
	size_t hooks_added; /* ever */

	struct page_alloc pages;
#if MM_DEBUG
	/* Under the page lock, which serves their growth. */
	struct block_table blocks;  /* every block that is or was allocated */
	struct block_table sites;   /* live blocks and bytes per call site */
	unsigned long lost_records; /* allocations for which there was no room */
#endif
};

/*
 * Constant initialiser: an empty allocator over the given engine (&byte_tlsf_ops, ...).
 * All zero is one over the engine of the build, and takes no room in an image.
 */
#define GLOBAL_ALLOCATOR_INIT(engine_ops)     \
	{                                     \
		.heap.base.ops = (engine_ops) \
	}

/* "TLSF", "slab" or "buddy". */
const char *global_allocator_name(const struct global_allocator *g);

/*
 * Give the whole region to the page allocator, then take MIN_HEAP_SIZE of it
 * for the byte allocator. INVALID_PARAM: nbytes is not larger than
 * MIN_HEAP_SIZE, or init was called already. NO_MEMORY: the metadata leave too little.
 * MEMORY_OVERLAP: with memory that was added. To be complete before another CPU
 * calls anything.
 */
MM_MUST_CHECK enum alloc_result global_allocator_init(struct global_allocator *g, virt_addr_t start,
						      size_t nbytes);

/* Add a region. Its whole pages serve bytes, pages and DMA alike. Any number of times. */
MM_MUST_CHECK enum alloc_result global_allocator_add_memory(struct global_allocator *g,
							    virt_addr_t start, size_t nbytes);

/*
 * Bytes, in registers: the pointer, or NULL for any failure. All forms below are made
 * of these two.
 */
MM_MUST_CHECK void *global_allocator_alloc_bytes(struct global_allocator *g, size_t size,
						 size_t align);
enum alloc_result global_allocator_dealloc_bytes(struct global_allocator *g, void *p, size_t size,
						 size_t align);

/* In every build: the address that a report names is where these are used. */
#define MM_INLINE static inline __attribute__((always_inline))

/* Why there was no memory for a layout. */
MM_INLINE enum alloc_result alloc_failure(struct layout l)
{
	return layout_valid(l) ? ALLOC_NO_MEMORY : ALLOC_INVALID_PARAM;
}

/* *out is untouched on failure. */
MM_MUST_CHECK MM_INLINE enum alloc_result global_allocator_alloc(struct global_allocator *g,
								 struct layout l, void **out)
{
	void *p = global_allocator_alloc_bytes(g, l.size, l.align);

	if (!p)
		return alloc_failure(l);
	*out = p;
	return ALLOC_OK;
}

MM_MUST_CHECK enum alloc_result global_allocator_alloc_zeroed(struct global_allocator *g,
							      struct layout l, void **out);

/*
 * Called when the aborting form fails; must not return. The default panics
 * with the layout in the message; a test or an embedder may set another.
 */
typedef void (*alloc_error_hook)(struct layout l);
__attribute__((noreturn)) void handle_alloc_error(struct layout l);
alloc_error_hook set_alloc_error_hook(alloc_error_hook hook);

/* The aborting form: never NULL; a failure ends in handle_alloc_error(l). */
MM_INLINE void *global_allocator_alloc_or_abort(struct global_allocator *g, struct layout l)
{
	void *p = global_allocator_alloc_bytes(g, l.size, l.align);

	if (!p)
		handle_alloc_error(l);
	return p;
}

/*
 * Give back p, allocated with the same layout. NOT_ALLOCATED or INVALID_PARAM
 * for null, foreign, misaligned, wrong-layout or freed pointers: reported
 * through mm_fault_report, nothing is changed.
 */
MM_INLINE enum alloc_result global_allocator_dealloc(struct global_allocator *g, void *p,
						     struct layout l)
{
	return global_allocator_dealloc_bytes(g, p, l.size, l.align);
}

/*
 * Resize: in place where that can be done, else a new block, a copy and a free.
 * *out is the block; on failure p is as before.
 */
MM_MUST_CHECK enum alloc_result global_allocator_realloc(struct global_allocator *g, void *p,
							 struct layout old, size_t new_size,
							 void **out);

/* npages contiguous pages at an alignment in bytes (a power of two, at least a page). */
MM_MUST_CHECK enum alloc_result global_allocator_alloc_pages(struct global_allocator *g,
							     size_t npages, size_t align,
							     virt_addr_t *out);
/* The same with zone, physical limit and usage kind. */
MM_MUST_CHECK enum alloc_result global_allocator_request_pages(struct global_allocator *g,
							       struct page_request req,
							       virt_addr_t *out);
/* The same at a given address. align is checked against start. */
MM_MUST_CHECK enum alloc_result global_allocator_alloc_pages_at(struct global_allocator *g,
								virt_addr_t start, size_t npages,
								size_t align);
/*
 * Any sub-range of what was allocated may be given back. Refused, as frees of bytes are, when a
 * page of it is free, unknown, or used as HEAP: memory of the byte allocator, or of an allocator
 * built on this one, which gives back by the second call what it requested as such.
 */
enum alloc_result global_allocator_dealloc_pages(struct global_allocator *g, virt_addr_t start,
						 size_t npages);
enum alloc_result global_allocator_dealloc_heap_pages(struct global_allocator *g, virt_addr_t start,
						      size_t npages);

/* Exact while no other CPU is inside a call. used_bytes: bytes requested by live allocations. */
size_t global_allocator_used_bytes(struct global_allocator *g);
size_t global_allocator_available_bytes(struct global_allocator *g); /* without growing */
size_t global_allocator_used_pages(struct global_allocator *g);
size_t global_allocator_available_pages(struct global_allocator *g);
size_t global_allocator_usage_pages(struct global_allocator *g, enum page_usage usage);

/* The region of the page allocator that manages the page of an address: false when none does. */
bool global_allocator_region_of(struct global_allocator *g, virt_addr_t va,
				struct page_region_info *out);

/*
 * Give wholly free memory of the byte allocator and this CPU's cached pages back
 * to the page allocator, keeping nothing. Done by itself before a request fails;
 * to be called on every CPU (from an interrupt sent there, say) when all caches
 * must be empty.
 */
void global_allocator_trim(struct global_allocator *g);

/*
 * Memory of the byte allocator that is about to go back to the page allocator: what it holds is
 * not needed any more, so a hosted system may take the page frames away. Called under a lock;
 * must call nothing of this library.
 */
void global_allocator_set_discard(struct global_allocator *g, discard_hook hook);

/*
 * Log the live blocks by call site, one line each, and return their number.
 * Without MM_DEBUG only the large ones are known.
 */
size_t global_allocator_report_leaks(struct global_allocator *g);

/*
 * Tests: the nth request from now that goes to the page allocator, and all
 * after it, find no memory; 0: no longer.
 */
void global_allocator_fail_pages(struct global_allocator *g, unsigned long nth);

/* Verify all invariants of both allocators: NULL, or the address of what is broken. Slow. Pre: no
 * other CPU is inside a call. */
const void *global_allocator_check(struct global_allocator *g);

/*
 * Reclaim: when pages run out, the registered hooks are asked, in order, to give
 * pages back before the request fails. The hook is called without locks held,
 * returns true when it freed something, and must not allocate from g. Each hook is asked at most
 * once per request. The structure stays the caller's; a hook may still be
 * running on another CPU when its removal returns.
 */
struct reclaim_hook {
	bool (*reclaim)(void *ctx, size_t npages);
	void *ctx;
	struct reclaim_hook *next; /* private, as is: */
	size_t number;		   /* in the order in which they were added */
};
void global_allocator_add_reclaim(struct global_allocator *g, struct reclaim_hook *hook);
void global_allocator_remove_reclaim(struct global_allocator *g, struct reclaim_hook *hook);

/* The one static instance, over the engine that the build chose (ALLOC=), and its short forms. */
struct global_allocator *global_allocator(void);
MM_MUST_CHECK enum alloc_result global_init(virt_addr_t start, size_t nbytes);
MM_MUST_CHECK enum alloc_result global_add_memory(virt_addr_t start, size_t nbytes);
MM_MUST_CHECK void *global_alloc_bytes(size_t size, size_t align);
enum alloc_result global_dealloc_bytes(void *p, size_t size, size_t align);
MM_MUST_CHECK enum alloc_result global_alloc_zeroed(struct layout l, void **out);
MM_MUST_CHECK enum alloc_result global_realloc(void *p, struct layout old, size_t new_size,
					       void **out);

MM_MUST_CHECK MM_INLINE enum alloc_result global_alloc(struct layout l, void **out)
{
	void *p = global_alloc_bytes(l.size, l.align);

	if (!p)
		return alloc_failure(l);
	*out = p;
	return ALLOC_OK;
}

MM_INLINE void *global_alloc_or_abort(struct layout l)
{
	void *p = global_alloc_bytes(l.size, l.align);

	if (!p)
		handle_alloc_error(l);
	return p;
}

MM_INLINE enum alloc_result global_dealloc(void *p, struct layout l)
{
	return global_dealloc_bytes(p, l.size, l.align);
}

#endif
