/* SPDX-License-Identifier: MIT */
/*
 * Who holds what, by address, and the allocators that a test made. In the end
 * all that is held goes back the way it came, and every allocator must be empty
 * and sound: so a leak or a broken invariant shows, wherever the test ended.
 */
#include <pthread.h>
#include <stdlib.h>

#include <dma/dma.h>
#include <mm/cache.h>

#include "inject.h"

WRAPPED(pthread_create);

#define BUCKETS	    65536u
#define MAX_KNOWN   64u
#define STACK	    ((size_t)8 << 20)
#define FIRST_PAGES (MIN_HEAP_SIZE / MM_PAGE_SIZE)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local unsigned int depth;
static _Thread_local const void *outermost;
static struct held *buckets[BUCKETS];

static struct {
	struct global_allocator *global[MAX_KNOWN];
	struct byte_alloc *engine[MAX_KNOWN];
	const struct byte_ops *ops[MAX_KNOWN];
	struct page_alloc *pages[MAX_KNOWN];
} known;

static struct {
	size_t bytes, pages, dma;
} before;
static bool threads_made;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
			  void *arg)
{
	threads_made = true;
	return __real_pthread_create(thread, attr, start, arg);
}

void ledger_enter(const void *caller)
{
	if (!depth++)
		outermost = caller;
}

void ledger_leave(void)
{
	depth--;
}

const void *ledger_caller(void)
{
	return depth ? outermost : NULL;
}

static struct held **bucket(const void *p)
{
	return &buckets[((uintptr_t)p * 0x9e3779b97f4a7c15u) >> 48];
}

/* What is got inside a call belongs to the callee. */
void ledger_add(struct held h)
{
	struct held *kept;

	if (depth)
		return;
	kept = malloc(sizeof(*kept));
	if (!kept)
		abort();
	pthread_mutex_lock(&lock);
	h.next = *bucket(h.p);
	*kept = h;
	*bucket(h.p) = kept;
	pthread_mutex_unlock(&lock);
}

/* Pre: locked. */
static void unlink_held(struct held **at, struct held *out)
{
	struct held *h = *at;

	*out = *h;
	*at = h->next;
	free(h);
}

/* But a hook inside a call may give back what the test holds. */
bool ledger_remove(enum holding what, void *owner, void *p, struct held *out)
{
	struct held **at = bucket(p);
	bool found;

	pthread_mutex_lock(&lock);
	while (*at && ((*at)->p != p || (*at)->what != what || (*at)->owner != owner))
		at = &(*at)->next;
	found = *at;
	if (found)
		unlink_held(at, out);
	pthread_mutex_unlock(&lock);
	return found;
}

void ledger_forget(void *owner)
{
	struct held h;

	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct held **at = &buckets[i]; *at;)
			if ((*at)->owner == owner)
				unlink_held(at, &h);
			else
				at = &(*at)->next;
}

/* --- Allocators --- */

static unsigned int know(void **list, void *what)
{
	unsigned int i = 0;

	while (i < MAX_KNOWN && list[i] && list[i] != what)
		i++;
	if (i == MAX_KNOWN)
		abort();
	list[i] = what;
	return i;
}

void ledger_know_global(struct global_allocator *g)
{
	(void)know((void **)known.global, g);
}

/* What belongs to a facade is the facade's. */
void ledger_know_engine(struct byte_alloc *a, const struct byte_ops *ops)
{
	if (!depth)
		known.ops[know((void **)known.engine, a)] = ops;
}

void ledger_know_pages(struct page_alloc *a)
{
	if (!depth)
		(void)know((void **)known.pages, a);
}

/* --- The end --- */

/* What lies on the stack may be gone by now. */
static bool on_stack(const void *p)
{
	return (uintptr_t)p - (uintptr_t)__builtin_frame_address(0) + STACK < 2 * STACK;
}

static enum alloc_result give_back(const struct held *h)
{
	struct dma_info info = {h->p, {h->bus}};
	struct byte_alloc *a = h->owner;

	switch (h->what) {
	case HELD_DMA:
		return h->owner ? dma_dealloc_coherent(h->owner, info, h->layout)
				: dealloc_coherent(info, h->layout);
	case HELD_OBJECT:
		return cache_free(h->owner, h->p);
	case HELD_CACHE:
		return cache_destroy(h->p) ? ALLOC_NOT_ALLOCATED : ALLOC_OK;
	case HELD_BYTES:
		return global_allocator_dealloc(h->owner, h->p, h->layout);
	case HELD_PAGE:
		return global_allocator_dealloc_pages(h->owner, virt_addr(h->p), 1);
	case HELD_HEAP_PAGE:
		return global_allocator_dealloc_heap_pages(h->owner, virt_addr(h->p), 1);
	default:
		return a->ops->dealloc(a, h->p, h->layout.size, h->layout.align) == MM_FAULT_NONE
			       ? ALLOC_OK
			       : ALLOC_NOT_ALLOCATED;
	}
}

/* A test may have cleared an allocator and not started it anew. */
static bool has_memory(const struct held *h)
{
	struct byte_alloc *a = h->owner;

	switch (h->what) {
	case HELD_BYTES:
	case HELD_PAGE:
	case HELD_HEAP_PAGE:
		return !on_stack(a) &&
		       page_alloc_total(&((struct global_allocator *)h->owner)->pages);
	case HELD_BLOCK:
		return !on_stack(a) && a->ops && a->ops->total_bytes(a);
	default:
		return true;
	}
}

static bool give_all_back(enum holding what)
{
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct held **at = &buckets[i]; *at;) {
			struct held h;

			if ((*at)->what != what) {
				at = &(*at)->next;
				continue;
			}
			unlink_held(at, &h);
			depth++;
			if (has_memory(&h) && give_back(&h) != ALLOC_OK)
				return false;
			depth--;
		}
	return true;
}

static const char *engine_fault(struct byte_alloc *a, const struct byte_ops *ops)
{
	if (on_stack(a) || !ops->total_bytes(a))
		return NULL;
	if (ops->check(a))
		return "an invariant of an engine is broken";
	return ops->used_bytes(a) ? "an engine has lost bytes" : NULL;
}

static const char *global_fault(struct global_allocator *g)
{
	bool fixed = g == global_allocator();

	if (on_stack(g) || !g->heap.base.ops || !page_alloc_total(&g->pages))
		return NULL;
	if (global_allocator_check(g))
		return "an invariant of a global allocator is broken";
	if (global_allocator_used_bytes(g) != (fixed ? before.bytes : 0))
		return "a global allocator has lost bytes";
	/* What a CPU keeps for itself it gives back when it comes again, and threads do not. */
	if (fixed || threads_made)
		return NULL;
	global_allocator_trim(g);
	return global_allocator_used_pages(g) > FIRST_PAGES ? "a global allocator has lost pages"
							    : NULL;
}

static const char *static_fault(size_t may_keep_pages)
{
	struct dma_stats stats;

	dma_stats(&stats);
	if (stats.live != before.dma)
		return "DMA memory is lost";
	dma_trim();
	global_allocator_trim(global_allocator());
	return global_allocator_used_pages(global_allocator()) <= before.pages + may_keep_pages
		       ? NULL
		       : "pages of the static allocator are lost";
}

static const char *first_fault(size_t may_keep_pages, bool went_on)
{
	const char *fault = static_fault(may_keep_pages);

	for (unsigned int i = 0; !fault && i < MAX_KNOWN && known.engine[i]; i++)
		fault = engine_fault(known.engine[i], known.ops[i]);
	for (unsigned int i = 0; !fault && i < MAX_KNOWN && known.global[i]; i++)
		fault = global_fault(known.global[i]);
	for (unsigned int i = 0; !fault && !went_on && i < MAX_KNOWN && known.pages[i]; i++)
		if (!on_stack(known.pages[i]) && page_alloc_check(known.pages[i]))
			fault = "an invariant of a page allocator is broken";
	return fault;
}

void ledger_start(void)
{
	struct dma_stats stats;

	dma_trim();
	global_allocator_trim(global_allocator());
	dma_stats(&stats);
	before.dma = stats.live;
	before.bytes = global_allocator_used_bytes(global_allocator());
	before.pages = global_allocator_used_pages(global_allocator());
}

const char *ledger_settle(size_t may_keep_pages, bool went_on)
{
	for (enum holding what = 0; what < HOLDINGS; what++)
		if (!give_all_back(what))
			return "what the test held cannot be given back";
	return first_fault(may_keep_pages, went_on);
}
