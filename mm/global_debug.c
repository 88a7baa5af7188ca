/* SPDX-License-Identifier: MIT */
/*
 * Who allocated and who freed. In MM_DEBUG builds `blocks` has a record of every
 * block ever allocated, dead ones until their address is used again, and
 * `sites` sums the live ones per call site, so that a leak report costs nothing
 * but the printing. Both grow in pages of their own up to a sixteenth of all
 * pages; then allocations go unrecorded and are only counted.
 */
#include "global_debug.h"

static unsigned long print_site(const struct block_record *r)
{
	mm_port_log(MM_LOG_WARN, "leak: %zu blocks, %zu bytes, allocated by %p", r->align,
		    r->nbytes, (const void *)r->key);
	return r->align;
}

#if MM_DEBUG

static bool may_grow(const struct global_allocator *g, const struct block_table *t)
{
	return t->nrecords < block_table_slots(t) / 2 ||
	       block_table_npages(t) < page_alloc_total(&g->pages) / 32;
}

static void count_site(struct global_allocator *g, const void *site, size_t blocks, size_t nbytes)
{
	struct block_record fresh = {.key = (uintptr_t)site};
	struct block_record *r = block_table_find(&g->sites, fresh.key);

	if (!r && may_grow(g, &g->sites) && block_table_insert(&g->sites, &g->pages, &fresh))
		r = block_table_find(&g->sites, fresh.key);
	if (!r)
		return;
	r->align += blocks;
	r->nbytes += nbytes;
	if (!r->align)
		block_table_remove(&g->sites, &g->pages, r);
}

static void bury(struct global_allocator *g, struct block_record *r, const void *caller)
{
	r->freed_by = caller;
	count_site(g, r->allocated_by, (size_t)-1, (size_t)0 - r->nbytes);
}

void global_debug_allocated(struct global_allocator *g, const void *p, struct layout l,
			    const void *caller)
{
	struct block_record fresh = {(uintptr_t)p, l.size, l.align, caller, NULL};
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, fresh.key);
	bool known = r;

	if (r)
		*r = fresh;
	else if (may_grow(g, &g->blocks))
		known = block_table_insert(&g->blocks, &g->pages, &fresh);
	if (known)
		count_site(g, caller, 1, l.size);
	else
		g->lost_records++;
	mm_port_unlock(&g->page_lock, state);
}

bool global_debug_freeing(struct global_allocator *g, const void *p, const void *caller)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p);
	bool live = r && !r->freed_by;

	if (live)
		bury(g, r, caller);
	mm_port_unlock(&g->page_lock, state);
	return live;
}

void global_debug_undo_free(struct global_allocator *g, const void *p)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p);

	if (r) {
		r->freed_by = NULL;
		count_site(g, r->allocated_by, 1, r->nbytes);
	}
	mm_port_unlock(&g->page_lock, state);
}

void global_debug_resized(struct global_allocator *g, const void *p, size_t nbytes)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p);

	if (r) {
		count_site(g, r->allocated_by, 0, nbytes - r->nbytes);
		r->nbytes = nbytes;
	}
	mm_port_unlock(&g->page_lock, state);
}

void global_debug_trace(struct global_allocator *g, struct mm_fault *fault)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)fault->ptr);

	if (r) {
		fault->allocated_by = r->allocated_by;
		fault->freed_by = r->freed_by;
	}
	mm_port_unlock(&g->page_lock, state);
}

void global_debug_forget(struct global_allocator *g)
{
	size_t n = block_table_slots(&g->blocks);

	for (size_t i = 0; i < block_table_slots(&g->blocks); i++) {
		struct block_record *r;

		/* Another record may move into the slot, and all of them when the table shrinks. */
		while ((r = block_table_slot(&g->blocks, i)) && r->freed_by) {
			block_table_remove(&g->blocks, &g->pages, r);
			if (block_table_slots(&g->blocks) != n)
				i = 0;
			n = block_table_slots(&g->blocks);
		}
	}
	block_table_fit(&g->blocks, &g->pages);
	block_table_fit(&g->sites, &g->pages);
}

static struct block_table *site_table(struct global_allocator *g)
{
	return &g->sites;
}

#else

static struct block_table *site_table(struct global_allocator *g)
{
	return &g->large;
}

#endif

/* Slot i as a call site, copied under the lock; false: past the last slot. */
static bool read_site(struct global_allocator *g, size_t i, struct block_record *out)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_table *t = site_table(g);
	bool there = i < block_table_slots(t);
	const struct block_record *r = there ? block_table_slot(t, i) : NULL;

	*out = r ? *r : (struct block_record){0};
	mm_port_unlock(&g->page_lock, state);
	if (!MM_DEBUG && out->key)
		*out = (struct block_record){
			.key = (uintptr_t)out->allocated_by, .nbytes = out->nbytes, .align = 1};
	return there;
}

size_t global_allocator_report_leaks(struct global_allocator *g)
{
	struct block_record site;
	size_t n = 0;

	for (size_t i = 0; read_site(g, i, &site); i++)
		n += site.key ? print_site(&site) : 0;
	return n;
}
