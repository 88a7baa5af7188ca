/* SPDX-License-Identifier: MIT */
/* What tests, drivers and handles call: the ledger learns what they hold. */
#include <dma/dma.h>

#include "inject.h"

WRAPPED(global_allocator_init);
WRAPPED(global_allocator_alloc);
WRAPPED(global_allocator_alloc_zeroed);
WRAPPED(global_allocator_alloc_or_abort);
WRAPPED(global_allocator_realloc);
WRAPPED(global_allocator_dealloc);
WRAPPED(global_allocator_alloc_pages);
WRAPPED(global_allocator_request_pages);
WRAPPED(global_allocator_alloc_pages_at);
WRAPPED(global_allocator_dealloc_pages);
WRAPPED(global_alloc);
WRAPPED(global_alloc_zeroed);
WRAPPED(global_alloc_or_abort);
WRAPPED(global_realloc);
WRAPPED(global_dealloc);
WRAPPED(alloc_coherent);
WRAPPED(dealloc_coherent);
WRAPPED(dma_alloc_coherent);
WRAPPED(dma_dealloc_coherent);

/* --- Bytes --- */

static enum alloc_result hold_bytes(struct global_allocator *g, struct layout l, void **out,
				    enum alloc_result r)
{
	ledger_leave();
	if (r == ALLOC_OK)
		ledger_add((struct held){.what = HELD_BYTES, .owner = g, .p = *out, .layout = l});
	return r;
}

enum alloc_result __wrap_global_allocator_init(struct global_allocator *g, virt_addr_t start,
					       size_t nbytes)
{
	enum alloc_result r;

	ledger_forget(g);
	ledger_know_global(g);
	ledger_enter();
	r = __real_global_allocator_init(g, start, nbytes);
	ledger_leave();
	return r;
}

enum alloc_result __wrap_global_allocator_alloc(struct global_allocator *g, struct layout l,
						void **out)
{
	ledger_enter();
	return hold_bytes(g, l, out, __real_global_allocator_alloc(g, l, out));
}

enum alloc_result __wrap_global_allocator_alloc_zeroed(struct global_allocator *g, struct layout l,
						       void **out)
{
	ledger_enter();
	return hold_bytes(g, l, out, __real_global_allocator_alloc_zeroed(g, l, out));
}

void *__wrap_global_allocator_alloc_or_abort(struct global_allocator *g, struct layout l)
{
	void *p;

	ledger_enter();
	p = __real_global_allocator_alloc_or_abort(g, l);
	(void)hold_bytes(g, l, &p, ALLOC_OK);
	return p;
}

enum alloc_result __wrap_global_alloc(struct layout l, void **out)
{
	ledger_enter();
	return hold_bytes(global_allocator(), l, out, __real_global_alloc(l, out));
}

enum alloc_result __wrap_global_alloc_zeroed(struct layout l, void **out)
{
	ledger_enter();
	return hold_bytes(global_allocator(), l, out, __real_global_alloc_zeroed(l, out));
}

void *__wrap_global_alloc_or_abort(struct layout l)
{
	void *p;

	ledger_enter();
	p = __real_global_alloc_or_abort(l);
	(void)hold_bytes(global_allocator(), l, &p, ALLOC_OK);
	return p;
}

enum alloc_result __wrap_global_allocator_realloc(struct global_allocator *g, void *p,
						  struct layout old, size_t new_size, void **out)
{
	struct held h;
	bool held = ledger_remove(HELD_BYTES, g, p, &h);
	enum alloc_result r;

	ledger_enter();
	r = hold_bytes(g, (struct layout){new_size, old.align}, out,
		       __real_global_allocator_realloc(g, p, old, new_size, out));
	if (held && r != ALLOC_OK)
		ledger_add(h);
	return r;
}

enum alloc_result __wrap_global_realloc(void *p, struct layout old, size_t new_size, void **out)
{
	return __wrap_global_allocator_realloc(global_allocator(), p, old, new_size, out);
}

enum alloc_result __wrap_global_allocator_dealloc(struct global_allocator *g, void *p,
						  struct layout l)
{
	struct held h;
	bool held = ledger_remove(HELD_BYTES, g, p, &h);
	enum alloc_result r;

	ledger_enter();
	r = __real_global_allocator_dealloc(g, p, l);
	ledger_leave();
	if (held && r != ALLOC_OK)
		ledger_add(h);
	return r;
}

enum alloc_result __wrap_global_dealloc(void *p, struct layout l)
{
	return __wrap_global_allocator_dealloc(global_allocator(), p, l);
}

/* --- Pages, one by one, for any part of them may be given back --- */

static void *page_at(virt_addr_t start, size_t i)
{
	return (void *)(start.value + (i << MM_PAGE_SHIFT));
}

static void add_pages(struct global_allocator *g, size_t npages, virt_addr_t start)
{
	for (size_t i = 0; i < npages; i++)
		ledger_add((struct held){.what = HELD_PAGE, .owner = g, .p = page_at(start, i)});
}

static enum alloc_result hold_pages(struct global_allocator *g, size_t npages,
				    const virt_addr_t *start, enum alloc_result r)
{
	ledger_leave();
	if (r == ALLOC_OK)
		add_pages(g, npages, *start);
	return r;
}

enum alloc_result __wrap_global_allocator_alloc_pages(struct global_allocator *g, size_t npages,
						      size_t align, virt_addr_t *out)
{
	ledger_enter();
	return hold_pages(g, npages, out,
			  __real_global_allocator_alloc_pages(g, npages, align, out));
}

enum alloc_result __wrap_global_allocator_request_pages(struct global_allocator *g,
							struct page_request req, virt_addr_t *out)
{
	ledger_enter();
	return hold_pages(g, req.npages, out, __real_global_allocator_request_pages(g, req, out));
}

enum alloc_result __wrap_global_allocator_alloc_pages_at(struct global_allocator *g,
							 virt_addr_t start, size_t npages,
							 size_t align)
{
	ledger_enter();
	return hold_pages(g, npages, &start,
			  __real_global_allocator_alloc_pages_at(g, start, npages, align));
}

enum alloc_result __wrap_global_allocator_dealloc_pages(struct global_allocator *g,
							virt_addr_t start, size_t npages)
{
	struct held h = {.what = HELD_PAGE, .owner = g};
	size_t removed = 0;
	enum alloc_result r;

	while (removed < npages && ledger_remove(HELD_PAGE, g, page_at(start, removed), &h))
		removed++;
	ledger_enter();
	r = __real_global_allocator_dealloc_pages(g, start, npages);
	ledger_leave();
	if (r != ALLOC_OK)
		add_pages(g, removed, start);
	return r;
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
	ledger_enter();
	return hold_dma(NULL, l, info, __real_alloc_coherent(l, info));
}

enum alloc_result __wrap_dma_alloc_coherent(struct dma_device *dev, struct layout l,
					    struct dma_info *info)
{
	ledger_enter();
	return hold_dma(dev, l, info, __real_dma_alloc_coherent(dev, l, info));
}

/* No device: the default one. */
static enum alloc_result free_coherent(struct dma_device *dev, struct dma_info info,
				       struct layout l)
{
	struct held h;
	bool held = ledger_remove(HELD_DMA, dev, info.cpu_addr, &h);
	enum alloc_result r;

	ledger_enter();
	r = dev ? __real_dma_dealloc_coherent(dev, info, l) : __real_dealloc_coherent(info, l);
	ledger_leave();
	if (held && r != ALLOC_OK)
		ledger_add(h);
	return r;
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
