/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * A coherent device sees what the caches hold, so its pages are ordinary ones.
 * For any other device nothing of a page may be in a cache while it is in use:
 *
 *	zero, flush	the zeroes, and whatever dirty line an earlier owner left, are in
 *			memory: none can be evicted later, over what the device wrote
 *	set_attr	all CPUs have the page non-cacheable
 *	flush		lines that were prefetched before the change are gone
 *
 * and back, once the device is quiet:
 *
 *	flush		nothing stale is there to be found when the page is cacheable again
 *	set_attr	all CPUs have it cacheable, and no TLB has the old mapping
 *	put		only now may the page be anyone's
 *
 * When a step fails after which the state of a page is not known for sure, the
 * page is quarantined: it stays allocated for ever, and is counted.
 *
 * A CPU that has the attribute but cannot flush (Svpbmt without Zicbom) cannot
 * do any of this. It may have a pool: memory that was non-cacheable before it was
 * ever cached. It never changes, and has a page allocator of its own.
 *
 * Shortcoming: the page allocator knows upper limits only. Where a window starts
 * in the middle of RAM, a request may fail although there is memory within it.
 */
#include <mm/global.h>

#include "device.h"
#include "pages.h"

#define FOUR_GIB ((uint64_t)1 << 32)

static struct {
	bool can_change_attr, has_pool; /* constant after init */
	virt_addr_t pool_start;

	struct mm_lock lock; /* the rest */
	struct page_alloc pool;
	size_t held, held_noncached, quarantined;
} pages;

/* --- Start ------------------------------------------------------------------- */

void dma_pages_init(const struct dma_config *config)
{
	if (pages.has_pool && page_alloc_remove_region(&pages.pool, pages.pool_start) != ALLOC_OK)
		mm_port_panic("dma: the pool is in use");
	pages.can_change_attr = config->can_change_attr;
	pages.pool_start = config->pool;
	pages.has_pool = config->pool_size && page_alloc_add_region(&pages.pool, config->pool,
								    config->pool_size) == ALLOC_OK;
	if (config->pool_size && !pages.has_pool)
		mm_port_log(MM_LOG_ERROR, "dma: cannot use the pool at %p, %zu bytes",
			    virt_ptr(config->pool), config->pool_size);
}

bool dma_pages_kind(const struct dma_device *dev, enum dma_memory *out)
{
	*out = dev->coherent ? DMA_CACHED : DMA_NONCACHED;
	return dev->coherent || pages.can_change_attr || pages.has_pool;
}

/* Where attributes can be changed there is no need of a pool, and no limit to what can be had. */
static bool from_pool(enum dma_memory kind)
{
	return kind == DMA_NONCACHED && !pages.can_change_attr;
}

/* --- Source ------------------------------------------------------------------ */

static enum alloc_result pool_get(struct page_request req, virt_addr_t *out)
{
	unsigned long state = mm_port_lock(&pages.lock);
	enum alloc_result r = page_alloc_get(&pages.pool, req, out);

	mm_port_unlock(&pages.lock, state);
	return r;
}

static void pool_put(virt_addr_t va, size_t npages)
{
	unsigned long state = mm_port_lock(&pages.lock);
	enum mm_fault_kind fault;
	enum alloc_result r = page_alloc_put(&pages.pool, va, npages, &fault);

	mm_port_unlock(&pages.lock, state);
	/* Blocks are checked before they come here: this is corruption. */
	if (r != ALLOC_OK)
		mm_fault_report(
			&(struct mm_fault){.kind = fault, .allocator = "DMA", .ptr = virt_ptr(va)});
}

static enum alloc_result source_get(enum dma_memory kind, struct page_request req, virt_addr_t *out)
{
	return from_pool(kind) ? pool_get(req, out)
			       : global_allocator_request_pages(global_allocator(), req, out);
}

static void source_put(enum dma_memory kind, virt_addr_t va, size_t npages)
{
	if (from_pool(kind))
		pool_put(va, npages);
	else
		global_allocator_dealloc_pages(global_allocator(), va, npages);
}

/* Through one window after the other: the page allocator knows one limit per request. */
static enum alloc_result get_reachable(const struct dma_device *dev, enum dma_memory kind,
				       struct page_request req, virt_addr_t *out)
{
	enum page_zone zone = req.zone;

	for (unsigned int i = 0; i < dev->nwindows; i++) {
		if (!dma_device_limit(dev, i, &req.phys_limit))
			continue;
		req.zone = req.phys_limit && req.phys_limit <= FOUR_GIB ? PAGE_ZONE_LOW : zone;
		if (source_get(kind, req, out) != ALLOC_OK)
			continue;
		if (dma_device_reaches(dev, *out, req.npages << MM_PAGE_SHIFT))
			return ALLOC_OK;
		source_put(kind, *out, req.npages);
	}
	return ALLOC_NO_MEMORY;
}

/* --- Change of attributes ---------------------------------------------------- */

static void count(enum dma_memory kind, size_t npages)
{
	unsigned long state = mm_port_lock(&pages.lock);

	pages.held += npages;
	pages.held_noncached += kind == DMA_NONCACHED ? npages : 0;
	mm_port_unlock(&pages.lock, state);
}

static void uncount(enum dma_memory kind, size_t npages)
{
	unsigned long state = mm_port_lock(&pages.lock);

	pages.held -= npages;
	pages.held_noncached -= kind == DMA_NONCACHED ? npages : 0;
	mm_port_unlock(&pages.lock, state);
}

static void quarantine(virt_addr_t va, size_t npages)
{
	unsigned long state = mm_port_lock(&pages.lock);

	pages.quarantined += npages;
	mm_port_unlock(&pages.lock, state);
	mm_port_log(MM_LOG_ERROR, "dma: %zu pages at %p quarantined: not safely changed", npages,
		    virt_ptr(va));
}

/* On failure the pages are gone: given back, or quarantined. */
static bool make_noncached(virt_addr_t va, size_t npages)
{
	size_t nbytes = npages << MM_PAGE_SHIFT;
	int e = mm_port_cache_flush(va, nbytes) < 0 ? MM_ATTR_UNCHANGED : 0;

	if (!e)
		e = mm_port_set_attr(va, npages, MM_ATTR_NONCACHED);
	if (!e && mm_port_cache_flush(va, nbytes) < 0)
		e = MM_ATTR_UNKNOWN;
	if (e == MM_ATTR_UNCHANGED)
		source_put(DMA_NONCACHED, va, npages);
	else if (e)
		quarantine(va, npages);
	return !e;
}

/* On failure the pages are quarantined. */
static bool make_cached(virt_addr_t va, size_t npages)
{
	if (mm_port_cache_flush(va, npages << MM_PAGE_SHIFT) < 0 ||
	    mm_port_set_attr(va, npages, MM_ATTR_CACHED) < 0) {
		quarantine(va, npages);
		return false;
	}
	return true;
}

/* --- What the rest of dma/ calls --------------------------------------------- */

enum alloc_result dma_pages_get(const struct dma_device *dev, enum dma_memory kind, size_t npages,
				size_t align, enum page_zone zone, virt_addr_t *out)
{
	struct page_request req = {
		.npages = npages, .align = align, .zone = zone, .usage = PAGE_USAGE_DMA};
	virt_addr_t va;

	if (get_reachable(dev, kind, req, &va) != ALLOC_OK)
		return ALLOC_NO_MEMORY;
	__builtin_memset(virt_ptr(va), 0, npages << MM_PAGE_SHIFT);
	if (kind == DMA_NONCACHED && !from_pool(kind) && !make_noncached(va, npages))
		return ALLOC_NO_MEMORY;
	count(kind, npages);
	*out = va;
	return ALLOC_OK;
}

void dma_pages_put(enum dma_memory kind, virt_addr_t va, size_t npages)
{
	uncount(kind, npages);
	if (kind == DMA_NONCACHED && !from_pool(kind) && !make_cached(va, npages))
		return;
	source_put(kind, va, npages);
}

void dma_pages_stats(struct dma_stats *out)
{
	unsigned long state = mm_port_lock(&pages.lock);

	out->pages = pages.held;
	out->noncached_pages = pages.held_noncached;
	out->quarantined_pages = pages.quarantined;
	out->pool_free_pages = page_alloc_available(&pages.pool);
	mm_port_unlock(&pages.lock, state);
}
