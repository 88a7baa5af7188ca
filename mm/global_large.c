/* SPDX-License-Identifier: MIT */
/*
 * Large blocks: whole pages of the page allocator, in a table by address that knows their
 * layout. All under the page lock, so that pages and record change together.
 *
 * Hardening 2: what lies between the end of the block and the end of its last page, at
 * least eight bytes (a page more, if the size leaves none), is a canary: a byte made of the
 * block's address, never zero, repeated; verified when the block is freed or resized and
 * at a walk. There is none before the block: it would cost the alignment. But a byte written there
 * hits the canary of the block before, if that is a large one.
 */
#include "global_impl.h"

#define CANARY_BYTES (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)

static size_t large_pages(size_t nbytes)
{
	return pages_of(nbytes + CANARY_BYTES);
}

/* --- The canary --- */

static uint8_t canary_of(const struct block_record *r)
{
	return (uint8_t)((r->key >> MM_PAGE_SHIFT) * 0x9e3779b97f4a7c15u >> 56) | 0x80;
}

static void set_canary(const struct block_record *r)
{
	size_t end = large_pages(r->nbytes) << MM_PAGE_SHIFT;

	if (CANARY_BYTES)
		__builtin_memset((char *)r->key + r->nbytes, canary_of(r), end - r->nbytes);
}

/* The first byte that is not as it was left, or NULL. */
static const void *broken_canary(const struct block_record *r)
{
	const uint8_t *p = (const uint8_t *)r->key + r->nbytes;
	const uint8_t *end = (const uint8_t *)r->key + (large_pages(r->nbytes) << MM_PAGE_SHIFT);

	if (!CANARY_BYTES)
		return NULL;
	while (p < end && *p == canary_of(r))
		p++;
	return p < end ? p : NULL;
}

/* --- Allocation --- */

static enum alloc_result get_large(struct global_allocator *g, struct layout l, const void *caller,
				   virt_addr_t *out)
{
	struct page_request req = {
		.npages = large_pages(l.size),
		.align = max_size(l.align, MM_PAGE_SIZE),
		.usage = PAGE_USAGE_HEAP,
	};
	struct block_record record = {.nbytes = l.size, .align = l.align, .allocated_by = caller};
	enum mm_fault_kind fault = MM_FAULT_NONE;
	enum alloc_result r = ALLOC_NO_MEMORY;

	if (!global_injected_failure(g))
		r = page_alloc_get(&g->pages, req, out);
	if (r != ALLOC_OK)
		return r;
	record.key = out->value;
	if (!global_injected_failure(g) && block_table_insert(&g->large, &g->pages, &record)) {
		set_canary(&record);
		g->large_used_bytes += l.size;
		return ALLOC_OK;
	}
	r = page_alloc_put(&g->pages, *out, req.npages, &fault);
	return r == ALLOC_OK ? ALLOC_NO_MEMORY : ALLOC_NOT_ALLOCATED;
}

void *global_large_alloc(struct global_allocator *g, struct layout l, const void *caller)
{
	struct reclaim_stage stage = {0};
	enum alloc_result r;
	virt_addr_t va;

	do {
		unsigned long state = mm_port_lock(&g->page_lock);

		r = get_large(g, l, caller, &va);
		mm_port_unlock(&g->page_lock, state);
	} while (r == ALLOC_NO_MEMORY && global_reclaim(g, large_pages(l.size), &stage));
	return r == ALLOC_OK ? virt_ptr(va) : NULL;
}

/* --- What is there --- */

/* Pre: the page lock is held. The fault of naming the large block p with this layout. */
static enum mm_fault_kind find_large(struct global_allocator *g, const void *p, struct layout l,
				     struct block_record **out)
{
	*out = block_table_find(&g->large, (uintptr_t)p);
	if (!*out)
		return MM_FAULT_FOREIGN;
	if ((*out)->nbytes != l.size || (*out)->align != l.align)
		return MM_FAULT_WRONG_LAYOUT;
	return broken_canary(*out) ? MM_FAULT_OVERFLOW : MM_FAULT_NONE;
}

enum mm_fault_kind global_large_check(struct global_allocator *g, const void *p, struct layout l)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *record;
	enum mm_fault_kind fault = find_large(g, p, l, &record);

	mm_port_unlock(&g->page_lock, state);
	return fault;
}

const void *global_large_walk(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	const void *broken = NULL;

	for (size_t i = 0; !broken && i < block_table_slots(&g->large); i++) {
		const struct block_record *r = block_table_slot(&g->large, i);

		broken = r ? broken_canary(r) : NULL;
	}
	mm_port_unlock(&g->page_lock, state);
	return broken;
}

/* --- Free and resize --- */

/* Pre: the page lock is held, the pages are those of a large block. */
static enum mm_fault_kind put_large(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	enum mm_fault_kind fault;

	global_discard(g, start, npages);
	return page_alloc_put_kinds(&g->pages, start, npages, HEAP_PAGES, &fault) == ALLOC_OK
		       ? MM_FAULT_NONE
		       : fault;
}

enum mm_fault_kind global_large_free(struct global_allocator *g, const void *p, struct layout l)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *record;
	enum mm_fault_kind fault = find_large(g, p, l, &record);

	if (fault == MM_FAULT_NONE)
		fault = put_large(g, virt_addr(p), large_pages(l.size));
	if (fault == MM_FAULT_NONE) {
		block_table_remove(&g->large, &g->pages, record);
		g->large_used_bytes -= l.size;
	}
	mm_port_unlock(&g->page_lock, state);
	return fault;
}

/* Pre: the page lock is held; the block becomes new_pages long where it is. */
static bool move_large_end(struct global_allocator *g, virt_addr_t start, size_t npages,
			   size_t new_pages)
{
	virt_addr_t end = {start.value + (min_size(npages, new_pages) << MM_PAGE_SHIFT)};

	if (new_pages > npages)
		return page_alloc_get_at(&g->pages, end, new_pages - npages, PAGE_USAGE_HEAP) ==
		       ALLOC_OK;
	if (new_pages < npages)
		return put_large(g, end, npages - new_pages) == MM_FAULT_NONE;
	return true;
}

bool global_large_resize(struct global_allocator *g, void *p, struct layout old, size_t new_size)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *record;
	bool done = find_large(g, p, old, &record) == MM_FAULT_NONE &&
		    move_large_end(g, virt_addr(p), large_pages(old.size), large_pages(new_size));

	if (done) {
		record->nbytes = new_size;
		set_canary(record);
		g->large_used_bytes += new_size - old.size;
	}
	mm_port_unlock(&g->page_lock, state);
	return done;
}
