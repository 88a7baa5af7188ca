/* SPDX-License-Identifier: MIT */
/* What tests, drivers and handles call: the ledger learns what they hold. */
#include <dma/dma.h>
#include <mm/cache.h>

#include "inject.h"

#define CALLER __builtin_return_address(0)

WRAPPED(global_allocator_init);
WRAPPED(global_allocator_alloc_bytes);
WRAPPED(global_allocator_alloc_zeroed);
WRAPPED(global_allocator_realloc);
WRAPPED(global_allocator_dealloc_bytes);
WRAPPED(global_allocator_alloc_pages);
WRAPPED(global_allocator_request_pages);
WRAPPED(global_allocator_alloc_pages_at);
WRAPPED(global_allocator_dealloc_pages);
WRAPPED(global_allocator_dealloc_heap_pages);
WRAPPED(global_alloc_bytes);
WRAPPED(global_alloc_zeroed);
WRAPPED(global_realloc);
WRAPPED(global_dealloc_bytes);
WRAPPED(cache_create);
WRAPPED(cache_create_constructed);
WRAPPED(cache_destroy);
WRAPPED(cache_alloc);
WRAPPED(cache_alloc_zeroed);
WRAPPED(cache_free);
WRAPPED(alloc_coherent);
WRAPPED(dealloc_coherent);
WRAPPED(dma_alloc_coherent);
WRAPPED(dma_dealloc_coherent);

/* The end of a call that gets something: p, or NULL. */
static void *hold(enum holding what, void *owner, void *p, struct layout l)
{
	ledger_leave();
	if (p)
		ledger_add((struct held){.what = what, .owner = owner, .p = p, .layout = l});
	return p;
}

/* The end of a call that frees: h was taken off the ledger for it if `held`. */
static enum alloc_result released(bool held, struct held h, enum alloc_result r)
{
	ledger_leave();
	if (held && r != ALLOC_OK)
		ledger_add(h);
	return r;
}

/* --- Bytes --- */

enum alloc_result __wrap_global_allocator_init(struct global_allocator *g, virt_addr_t start,
					       size_t nbytes)
{
	enum alloc_result r;

	ledger_forget(g);
	ledger_know_global(g);
	ledger_enter(CALLER);
	r = __real_global_allocator_init(g, start, nbytes);
	ledger_leave();
	return r;
}

void *__wrap_global_allocator_alloc_bytes(struct global_allocator *g, size_t size, size_t align)
{
	ledger_enter(CALLER);
	return hold(HELD_BYTES, g, __real_global_allocator_alloc_bytes(g, size, align),
		    (struct layout){size, align});
}

void *__wrap_global_alloc_bytes(size_t size, size_t align)
{
	ledger_enter(CALLER);
	return hold(HELD_BYTES, global_allocator(), __real_global_alloc_bytes(size, align),
		    (struct layout){size, align});
}

enum alloc_result __wrap_global_allocator_alloc_zeroed(struct global_allocator *g, struct layout l,
						       void **out)
{
	enum alloc_result r;

	ledger_enter(CALLER);
	r = __real_global_allocator_alloc_zeroed(g, l, out);
	(void)hold(HELD_BYTES, g, r == ALLOC_OK ? *out : NULL, l);
	return r;
}

enum alloc_result __wrap_global_alloc_zeroed(struct layout l, void **out)
{
	return __wrap_global_allocator_alloc_zeroed(global_allocator(), l, out);
}

enum alloc_result __wrap_global_allocator_realloc(struct global_allocator *g, void *p,
						  struct layout old, size_t new_size, void **out)
{
	struct held h;
	bool held = ledger_remove(HELD_BYTES, g, p, &h);
	enum alloc_result r;

	ledger_enter(CALLER);
	r = released(held, h, __real_global_allocator_realloc(g, p, old, new_size, out));
	ledger_enter(CALLER);
	(void)hold(HELD_BYTES, g, r == ALLOC_OK ? *out : NULL,
		   (struct layout){new_size, old.align});
	return r;
}

enum alloc_result __wrap_global_realloc(void *p, struct layout old, size_t new_size, void **out)
{
	return __wrap_global_allocator_realloc(global_allocator(), p, old, new_size, out);
}

enum alloc_result __wrap_global_allocator_dealloc_bytes(struct global_allocator *g, void *p,
							size_t size, size_t align)
{
	struct held h;
	bool held = ledger_remove(HELD_BYTES, g, p, &h);

	ledger_enter(CALLER);
	return released(held, h, __real_global_allocator_dealloc_bytes(g, p, size, align));
}

enum alloc_result __wrap_global_dealloc_bytes(void *p, size_t size, size_t align)
{
	struct held h;
	bool held = ledger_remove(HELD_BYTES, global_allocator(), p, &h);

	ledger_enter(CALLER);
	return released(held, h, __real_global_dealloc_bytes(p, size, align));
}

/* --- Pages, one by one, for any part of them may be given back --- */

static void *page_at(virt_addr_t start, size_t i)
{
	return (void *)(start.value + (i << MM_PAGE_SHIFT));
}

static void add_pages(enum holding what, struct global_allocator *g, size_t npages,
		      virt_addr_t start)
{
	for (size_t i = 0; i < npages; i++)
		ledger_add((struct held){.what = what, .owner = g, .p = page_at(start, i)});
}

static enum alloc_result hold_pages(enum holding what, struct global_allocator *g, size_t npages,
				    const virt_addr_t *start, enum alloc_result r)
{
	ledger_leave();
	if (r == ALLOC_OK)
		add_pages(what, g, npages, *start);
	return r;
}

enum alloc_result __wrap_global_allocator_alloc_pages(struct global_allocator *g, size_t npages,
						      size_t align, virt_addr_t *out)
{
	ledger_enter(CALLER);
	return hold_pages(HELD_PAGE, g, npages, out,
			  __real_global_allocator_alloc_pages(g, npages, align, out));
}

enum alloc_result __wrap_global_allocator_request_pages(struct global_allocator *g,
							struct page_request req, virt_addr_t *out)
{
	enum holding what = req.usage == PAGE_USAGE_HEAP ? HELD_HEAP_PAGE : HELD_PAGE;

	ledger_enter(CALLER);
	return hold_pages(what, g, req.npages, out,
			  __real_global_allocator_request_pages(g, req, out));
}

enum alloc_result __wrap_global_allocator_alloc_pages_at(struct global_allocator *g,
							 virt_addr_t start, size_t npages,
							 size_t align)
{
	ledger_enter(CALLER);
	return hold_pages(HELD_PAGE, g, npages, &start,
			  __real_global_allocator_alloc_pages_at(g, start, npages, align));
}

static enum alloc_result put_pages(enum holding what, struct global_allocator *g, virt_addr_t start,
				   size_t npages)
{
	struct held h;
	size_t removed = 0;
	enum alloc_result r;

	while (removed < npages && ledger_remove(what, g, page_at(start, removed), &h))
		removed++;
	ledger_enter(CALLER);
	r = what == HELD_PAGE ? __real_global_allocator_dealloc_pages(g, start, npages)
			      : __real_global_allocator_dealloc_heap_pages(g, start, npages);
	ledger_leave();
	if (r != ALLOC_OK)
		add_pages(what, g, removed, start);
	return r;
}

enum alloc_result __wrap_global_allocator_dealloc_pages(struct global_allocator *g,
							virt_addr_t start, size_t npages)
{
	return put_pages(HELD_PAGE, g, start, npages);
}

enum alloc_result __wrap_global_allocator_dealloc_heap_pages(struct global_allocator *g,
							     virt_addr_t start, size_t npages)
{
	return put_pages(HELD_HEAP_PAGE, g, start, npages);
}

/* --- Named caches, which are held themselves, and their objects --- */

struct cache *__wrap_cache_create(const char *name, size_t size, size_t align)
{
	ledger_enter(CALLER);
	return hold(HELD_CACHE, NULL, __real_cache_create(name, size, align), (struct layout){0});
}

struct cache *__wrap_cache_create_constructed(const char *name, size_t size, size_t align,
					      void (*construct)(void *object))
{
	ledger_enter(CALLER);
	return hold(HELD_CACHE, NULL, __real_cache_create_constructed(name, size, align, construct),
		    (struct layout){0});
}

size_t __wrap_cache_destroy(struct cache *c)
{
	struct held h;
	bool held = ledger_remove(HELD_CACHE, NULL, c, &h);
	size_t left;

	ledger_enter(CALLER);
	left = __real_cache_destroy(c);
	(void)released(held, h, left ? ALLOC_NOT_ALLOCATED : ALLOC_OK);
	return left;
}

void *__wrap_cache_alloc(struct cache *c)
{
	ledger_enter(CALLER);
	return hold(HELD_OBJECT, c, __real_cache_alloc(c), (struct layout){0});
}

void *__wrap_cache_alloc_zeroed(struct cache *c)
{
	ledger_enter(CALLER);
	return hold(HELD_OBJECT, c, __real_cache_alloc_zeroed(c), (struct layout){0});
}

enum alloc_result __wrap_cache_free(struct cache *c, void *object)
{
	struct held h;
	bool held = ledger_remove(HELD_OBJECT, c, object, &h);

	ledger_enter(CALLER);
	return released(held, h, __real_cache_free(c, object));
}

/* --- DMA --- */

static enum alloc_result hold_dma(struct dma_device *dev, struct layout l,
				  const struct dma_info *info, enum alloc_result r)
{
	ledger_leave();
	if (r == ALLOC_OK)
		ledger_add((struct held){.what = HELD_DMA,
					 .owner = dev,
					 .p = info->cpu_addr,
					 .layout = l,
					 .bus = info->bus_addr.value});
	return r;
}

enum alloc_result __wrap_alloc_coherent(struct layout l, struct dma_info *info)
{
	ledger_enter(CALLER);
	return hold_dma(NULL, l, info, __real_alloc_coherent(l, info));
}

enum alloc_result __wrap_dma_alloc_coherent(struct dma_device *dev, struct layout l,
					    struct dma_info *info)
{
	ledger_enter(CALLER);
	return hold_dma(dev, l, info, __real_dma_alloc_coherent(dev, l, info));
}

/* No device: the default one. */
static enum alloc_result free_coherent(struct dma_device *dev, struct dma_info info,
				       struct layout l)
{
	struct held h;
	bool held = ledger_remove(HELD_DMA, dev, info.cpu_addr, &h);

	ledger_enter(CALLER);
	return released(held, h,
			dev ? __real_dma_dealloc_coherent(dev, info, l)
			    : __real_dealloc_coherent(info, l));
}

enum alloc_result __wrap_dealloc_coherent(struct dma_info info, struct layout l)
{
	return free_coherent(NULL, info, l);
}

enum alloc_result __wrap_dma_dealloc_coherent(struct dma_device *dev, struct dma_info info,
					      struct layout l)
{
	return free_coherent(dev, info, l);
}
