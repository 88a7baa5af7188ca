/* SPDX-License-Identifier: MIT */
/*
 * The global allocator: one byte allocator and one page allocator, each behind
 * an interrupt-safe spin lock. All functions may be called from any context,
 * interrupt handlers included, on any CPU. The two locks are never held
 * together.
 */
#ifndef MM_GLOBAL_H
#define MM_GLOBAL_H

#include <mm/byte_alloc.h>
#include <mm/byte_buddy.h>
#include <mm/byte_slab.h>
#include <mm/byte_tlsf.h>
#include <mm/page_alloc.h>
#include <mm/port.h>

/* What init takes from the page allocator for the byte allocator (bytes). */
#define MIN_HEAP_SIZE ((size_t)32 * 1024)

/* Members are private to global.c. */
struct global_allocator {
	union {
		struct byte_alloc base;
		struct byte_tlsf tlsf;
		struct byte_slab slab;
		struct byte_buddy buddy;
	} heap;
	struct mm_lock heap_lock;
	struct mm_lock page_lock;
	struct page_alloc pages;
};

/* Constant initialiser: an empty allocator over the given engine (&byte_tlsf_ops, ...). */
#define GLOBAL_ALLOCATOR_INIT(engine_ops)                                                          \
	{                                                                                          \
		.heap.base.ops = (engine_ops)                                                      \
	}

/* "TLSF", "slab" or "buddy". */
const char *global_allocator_name(const struct global_allocator *g);

/*
 * Give the whole region to the page allocator, then take MIN_HEAP_SIZE of it
 * for the byte allocator. INVALID_PARAM: nbytes is not larger than
 * MIN_HEAP_SIZE, or init was called already.
 */
MM_MUST_CHECK enum alloc_result global_allocator_init(struct global_allocator *g,
						      virt_addr_t start, size_t nbytes);

/* Add a region. Its whole pages serve bytes, pages and DMA alike. Any number of times. */
MM_MUST_CHECK enum alloc_result global_allocator_add_memory(struct global_allocator *g,
							    virt_addr_t start, size_t nbytes);

/* Bytes. *out is untouched on failure. */
MM_MUST_CHECK enum alloc_result global_allocator_alloc(struct global_allocator *g,
						       struct layout l, void **out);
MM_MUST_CHECK enum alloc_result global_allocator_alloc_zeroed(struct global_allocator *g,
							      struct layout l, void **out);

/* The aborting form: never NULL; a failure ends in handle_alloc_error(l). */
void *global_allocator_alloc_or_abort(struct global_allocator *g, struct layout l);

/*
 * Called when the aborting form fails; must not return. The default panics
 * with the layout in the message; a test or an embedder may set another.
 */
typedef void (*alloc_error_hook)(struct layout l);
__attribute__((noreturn)) void handle_alloc_error(struct layout l);
alloc_error_hook set_alloc_error_hook(alloc_error_hook hook);

/*
 * Give back p, allocated with the same layout. NOT_ALLOCATED or INVALID_PARAM
 * for null, foreign, misaligned, wrong-layout or freed pointers: reported
 * through mm_fault_report, nothing is changed.
 */
enum alloc_result global_allocator_dealloc(struct global_allocator *g, void *p, struct layout l);

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
/* Any sub-range of what was allocated may be given back. */
enum alloc_result global_allocator_dealloc_pages(struct global_allocator *g, virt_addr_t start,
						 size_t npages);

/* Exact at every moment. used_bytes: bytes requested by live allocations. */
size_t global_allocator_used_bytes(struct global_allocator *g);
size_t global_allocator_available_bytes(struct global_allocator *g); /* without growing */
size_t global_allocator_used_pages(struct global_allocator *g);
size_t global_allocator_available_pages(struct global_allocator *g);
size_t global_allocator_usage_pages(struct global_allocator *g, enum page_usage usage);

/* Verify all invariants of both allocators: NULL, or the address of what is broken. Slow. */
const void *global_allocator_check(struct global_allocator *g);

/*
 * Reclaim: when pages run out, the registered hooks are asked, in order, to give
 * pages back before the request fails. The hook is called without locks held,
 * returns true when it freed something. The structure stays the caller's.
 */
struct reclaim_hook {
	bool (*reclaim)(void *ctx, size_t npages);
	void *ctx;
	struct reclaim_hook *next; /* private */
};
void global_allocator_add_reclaim(struct global_allocator *g, struct reclaim_hook *hook);
void global_allocator_remove_reclaim(struct global_allocator *g, struct reclaim_hook *hook);

/* The one static instance, over the engine that the build chose (ALLOC=), and its short forms. */
struct global_allocator *global_allocator(void);
MM_MUST_CHECK enum alloc_result global_init(virt_addr_t start, size_t nbytes);
MM_MUST_CHECK enum alloc_result global_add_memory(virt_addr_t start, size_t nbytes);
MM_MUST_CHECK enum alloc_result global_alloc(struct layout l, void **out);
enum alloc_result global_dealloc(void *p, struct layout l);
MM_MUST_CHECK enum alloc_result global_realloc(void *p, struct layout old, size_t new_size,
					       void **out);

#endif
