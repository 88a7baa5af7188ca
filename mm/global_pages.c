/* SPDX-License-Identifier: MIT */
/*
 * The facade's pages: the page allocator under its lock, one page without it, and what is done
 * when pages run out. The theory stands in global.c.
 */
#include "global_impl.h"

#define CALLER	  __builtin_return_address(0)
#define MAX_PAGES ((size_t)PTRDIFF_MAX >> MM_PAGE_SHIFT) /* that a request may be for */

/* --- Reports --- */

enum alloc_result global_result_of(enum mm_fault_kind fault)
{
	switch (fault) {
	case MM_FAULT_NONE:
		return ALLOC_OK;
	case MM_FAULT_MISALIGNED:
	case MM_FAULT_WRONG_LAYOUT:
		return ALLOC_INVALID_PARAM;
	default:
		return ALLOC_NOT_ALLOCATED;
	}
}

OUT_OF_LINE enum alloc_result refuse_pages(virt_addr_t start, size_t npages,
					   enum mm_fault_kind kind, const void *caller)
{
	mm_fault_report(&(struct mm_fault){
		.kind = kind,
		.allocator = "pages",
		.ptr = virt_ptr(start),
		.layout = {npages > MAX_PAGES ? SIZE_MAX : npages << MM_PAGE_SHIFT, MM_PAGE_SIZE},
		.caller = caller,
	});
	return global_result_of(kind);
}

/* --- Pages, under their lock --- */

bool global_injected_failure(struct global_allocator *g)
{
	if (likely(!g->fail_pages_at))
		return false;
	if (g->fail_pages_at > 1)
		g->fail_pages_at--;
	else
		return true;
	return false;
}

void global_allocator_fail_pages(struct global_allocator *g, unsigned long nth)
{
	unsigned long state = mm_port_lock(&g->page_lock);

	g->fail_pages_at = nth;
	mm_port_unlock(&g->page_lock, state);
}

enum alloc_result global_get_pages(struct global_allocator *g, struct page_request req,
				   virt_addr_t *out)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = ALLOC_NO_MEMORY;

	if (!global_injected_failure(g))
		r = page_alloc_get(&g->pages, req, out);
	mm_port_unlock(&g->page_lock, state);
	return r;
}

static enum mm_fault_kind put_pages(struct global_allocator *g, virt_addr_t start, size_t npages,
				    unsigned int kinds)
{
	enum mm_fault_kind fault = MM_FAULT_FOREIGN;
	unsigned long state = mm_port_lock(&g->page_lock);

	if (page_alloc_put_kinds(&g->pages, start, npages, kinds, &fault) == ALLOC_OK)
		fault = MM_FAULT_NONE;
	mm_port_unlock(&g->page_lock, state);
	return fault;
}

void global_put_own_pages(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	enum mm_fault_kind fault = put_pages(g, start, npages, HEAP_PAGES);

	if (unlikely(fault != MM_FAULT_NONE))
		(void)refuse_pages(start, npages, fault, NULL);
}

void global_discard(const struct global_allocator *g, virt_addr_t start, size_t npages)
{
	discard_hook hook = __atomic_load_n(&g->discard, __ATOMIC_RELAXED);

	if (unlikely(hook != NULL))
		hook(start, npages);
}

void global_allocator_set_discard(struct global_allocator *g, discard_hook hook)
{
	__atomic_store_n(&g->discard, hook, __ATOMIC_RELAXED);
}

/* --- Page caches --- */

static bool drain_wanted(const struct global_allocator *g, unsigned int cpu)
{
	return __atomic_load_n(&g->cpu[cpu].drain_pages, __ATOMIC_RELAXED);
}

/* Pre: cpu is pinned and the page lock held. */
static void drain_cache(struct global_allocator *g, unsigned int cpu)
{
	__atomic_store_n(&g->cpu[cpu].drain_pages, false, __ATOMIC_RELAXED);
	(void)page_alloc_drain_all(&g->pages, cpu);
}

/* Empty this CPU's page cache and ask the others to do so. */
static void drain_caches(struct global_allocator *g)
{
	unsigned int cpu;
	unsigned long pinned, state;

	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		__atomic_store_n(&g->cpu[i].drain_pages, true, __ATOMIC_RELAXED);
	pinned = mm_port_pin(&cpu);
	state = mm_port_lock(&g->page_lock);
	drain_cache(g, cpu);
	mm_port_unlock(&g->page_lock, state);
	mm_port_unpin(pinned, cpu);
}

static bool refill_one_page(struct global_allocator *g, enum page_usage usage, virt_addr_t *out)
{
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	unsigned long state = mm_port_lock(&g->page_lock);
	bool ok = false;

	if (drain_wanted(g, cpu)) {
		drain_cache(g, cpu);
	} else if (!global_injected_failure(g)) {
		page_alloc_refill(&g->pages, cpu);
		ok = page_alloc_one_local(&g->pages, usage, cpu, out);
	}
	mm_port_unlock(&g->page_lock, state);
	mm_port_unpin(pinned, cpu);
	return ok;
}

/* False: refill_one_page. */
static bool get_one_page(struct global_allocator *g, enum page_usage usage, virt_addr_t *out)
{
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	bool ok = likely(!drain_wanted(g, cpu)) && page_alloc_one_local(&g->pages, usage, cpu, out);

	mm_port_unpin(pinned, cpu);
	return ok;
}

static enum mm_fault_kind drain_one_page(struct global_allocator *g, virt_addr_t page)
{
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	unsigned long state = mm_port_lock(&g->page_lock);
	enum mm_fault_kind fault = MM_FAULT_FOREIGN;

	if (drain_wanted(g, cpu))
		drain_cache(g, cpu);
	else
		page_alloc_drain(&g->pages, cpu);
	if (page_alloc_put_kinds(&g->pages, page, 1, OTHER_PAGES, &fault) == ALLOC_OK)
		fault = MM_FAULT_NONE;
	mm_port_unlock(&g->page_lock, state);
	mm_port_unpin(pinned, cpu);
	return fault;
}

/* False: the locked call frees it, or says what is wrong. */
static bool put_one_page(struct global_allocator *g, virt_addr_t page)
{
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	bool done = likely(!drain_wanted(g, cpu)) && page_free_one_local(&g->pages, page, cpu);

	mm_port_unpin(pinned, cpu);
	return done;
}

void global_allocator_trim(struct global_allocator *g)
{
	unsigned long state;

	global_heap_trim(g, true);
	state = mm_port_lock(&g->page_lock);
	block_table_fit(&g->large, &g->pages);
	global_debug_forget(g);
	mm_port_unlock(&g->page_lock, state);
	drain_caches(g);
}

/* --- Reclaim --- */

void global_allocator_add_reclaim(struct global_allocator *g, struct reclaim_hook *hook)
{
	unsigned long state = mm_port_lock(&g->hook_lock);
	struct reclaim_hook **end = &g->hooks;

	while (*end && *end != hook)
		end = &(*end)->next;
	if (!*end) {
		hook->next = NULL;
		hook->number = g->hooks_added + 1;
		mm_store_relaxed(&g->hooks_added, hook->number);
		*end = hook;
	}
	mm_port_unlock(&g->hook_lock, state);
}

void global_allocator_remove_reclaim(struct global_allocator *g, struct reclaim_hook *hook)
{
	unsigned long state = mm_port_lock(&g->hook_lock);
	struct reclaim_hook **at = &g->hooks;

	while (*at && *at != hook)
		at = &(*at)->next;
	if (*at)
		*at = hook->next;
	mm_port_unlock(&g->hook_lock, state);
}

/* A copy of the next hook to ask, as it is called without the lock. The last may be gone. */
static bool next_hook(struct global_allocator *g, const struct reclaim_stage *stage,
		      struct reclaim_hook *out)
{
	unsigned long state = mm_port_lock(&g->hook_lock);
	const struct reclaim_hook *hook = g->hooks;

	while (hook && hook->number <= stage->asked)
		hook = hook->next;
	if (hook && hook->number > stage->last)
		hook = NULL;
	if (hook)
		*out = *hook;
	mm_port_unlock(&g->hook_lock, state);
	return hook;
}

bool global_reclaim(struct global_allocator *g, size_t npages, struct reclaim_stage *stage)
{
	struct reclaim_hook hook;

	if (!stage->trimmed) {
		stage->trimmed = true;
		stage->last = mm_load_relaxed(&g->hooks_added);
		global_allocator_trim(g);
		return true;
	}
	while (next_hook(g, stage, &hook)) {
		stage->asked = hook.number;
		if (hook.reclaim(hook.ctx, npages))
			return true;
	}
	return false;
}

/* --- Pages --- */

static bool request_valid(struct page_request req)
{
	return req.npages && req.npages <= MAX_PAGES && mm_is_pow2(req.align) &&
	       req.align >= MM_PAGE_SIZE &&
	       (req.zone == PAGE_ZONE_ANY || req.zone == PAGE_ZONE_LOW) &&
	       (unsigned int)req.usage < PAGE_USAGE_KINDS && req.usage != PAGE_USAGE_CPU_CACHE;
}

static bool any_one_page(struct page_request req)
{
	return req.npages == 1 && req.align == MM_PAGE_SIZE && req.zone == PAGE_ZONE_ANY &&
	       !req.phys_limit;
}

OUT_OF_LINE enum alloc_result request_pages_slow(struct global_allocator *g,
						 struct page_request req, virt_addr_t *out)
{
	struct reclaim_stage stage = {0};
	enum alloc_result r;

	if (!request_valid(req))
		return ALLOC_INVALID_PARAM;
	if (any_one_page(req) && refill_one_page(g, req.usage, out))
		return ALLOC_OK;
	do
		r = global_get_pages(g, req, out);
	while (r == ALLOC_NO_MEMORY && global_reclaim(g, req.npages, &stage));
	return r;
}

enum alloc_result global_allocator_request_pages(struct global_allocator *g,
						 struct page_request req, virt_addr_t *out)
{
	if (any_one_page(req) && request_valid(req) && get_one_page(g, req.usage, out))
		return ALLOC_OK;
	return request_pages_slow(g, req, out);
}

__attribute__((flatten)) enum alloc_result global_allocator_alloc_pages(struct global_allocator *g,
									size_t npages, size_t align,
									virt_addr_t *out)
{
	if (npages == 1 && align == MM_PAGE_SIZE && likely(get_one_page(g, PAGE_USAGE_KERNEL, out)))
		return ALLOC_OK;
	return request_pages_slow(g,
				  (struct page_request){
					  .npages = npages,
					  .align = align,
					  .usage = PAGE_USAGE_KERNEL,
				  },
				  out);
}

static enum alloc_result get_pages_at(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = ALLOC_NO_MEMORY;

	if (!global_injected_failure(g))
		r = page_alloc_get_at(&g->pages, start, npages, PAGE_USAGE_KERNEL);
	mm_port_unlock(&g->page_lock, state);
	return r;
}

enum alloc_result global_allocator_alloc_pages_at(struct global_allocator *g, virt_addr_t start,
						  size_t npages, size_t align)
{
	struct page_request req = {.npages = npages, .align = align};
	struct reclaim_stage stage = {0};
	enum alloc_result r;

	if (!request_valid(req) || start.value & (align - 1) ||
	    start.value + (npages << MM_PAGE_SHIFT) < start.value)
		return ALLOC_INVALID_PARAM;
	do
		r = get_pages_at(g, start, npages);
	while (r == ALLOC_NO_MEMORY && global_reclaim(g, npages, &stage));
	return r;
}

OUT_OF_LINE enum alloc_result dealloc_pages_slow(struct global_allocator *g, virt_addr_t start,
						 size_t npages, const void *caller)
{
	enum mm_fault_kind fault;

	if (unlikely(!npages || npages > MAX_PAGES))
		return refuse_pages(start, npages, MM_FAULT_WRONG_LAYOUT, caller);
	fault = npages == 1 ? drain_one_page(g, start) : put_pages(g, start, npages, OTHER_PAGES);
	if (likely(fault == MM_FAULT_NONE))
		return ALLOC_OK;
	return refuse_pages(start, npages, fault, caller);
}

__attribute__((flatten)) enum alloc_result
global_allocator_dealloc_pages(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	if (npages == 1 && likely(put_one_page(g, start)))
		return ALLOC_OK;
	return dealloc_pages_slow(g, start, npages, CALLER);
}

enum alloc_result global_allocator_dealloc_heap_pages(struct global_allocator *g, virt_addr_t start,
						      size_t npages)
{
	enum mm_fault_kind fault = put_pages(g, start, npages, HEAP_PAGES);

	return likely(fault == MM_FAULT_NONE) ? ALLOC_OK
					      : refuse_pages(start, npages, fault, CALLER);
}
