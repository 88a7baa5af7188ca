/* SPDX-License-Identifier: MIT */
/*
 * Who allocated and who freed. In MM_DEBUG builds `blocks` has a record of every
 * block ever allocated, dead ones until their address is used again, and
 * `sites` sums the live ones per call site, so that a leak report costs nothing
 * but the printing. Every live record is counted at its site: where there is no
 * room for both, the allocation goes unrecorded, and only the number of those is
 * kept. Both tables grow in pages of their own, up to a sixteenth of all pages.
 *
 * A report of a fault looks its pointer up in the records of every allocator, at the
 * address itself and, as it may be one inside a block, among all of them: slow, but
 * faults are rare. It takes the page lock, under the heap lock when an engine reports
 * from inside a call. (The page allocator reports nothing itself.)
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

/* The record of a key, made if there is none; NULL: no room. */
static struct block_record *record_of(struct global_allocator *g, struct block_table *t,
				      const void *key)
{
	struct block_record fresh = {.key = (uintptr_t)key};
	struct block_record *r = block_table_find(t, fresh.key);

	if (!r && may_grow(g, t) && block_table_insert(t, &g->pages, &fresh))
		r = block_table_find(t, fresh.key);
	return r;
}

/* Of a site, `align` is the number of blocks. */
static void count_block(struct block_record *site, const struct block_record *r)
{
	site->align++;
	site->nbytes += r->nbytes;
}

static void uncount_block(struct global_allocator *g, const struct block_record *r)
{
	struct block_record *site = block_table_find(&g->sites, (uintptr_t)r->allocated_by);

	site->nbytes -= r->nbytes;
	if (!--site->align)
		block_table_remove(&g->sites, &g->pages, site);
}

static bool is_live(const struct block_record *r)
{
	return r && !r->freed_by;
}

/* Without a record at its site, a block has none at all. */
static void lose(struct global_allocator *g, struct block_record *site, struct block_record *r)
{
	g->lost_records++;
	if (r)
		block_table_remove(&g->blocks, &g->pages, r);
	if (site && !site->align)
		block_table_remove(&g->sites, &g->pages, site);
}

void global_debug_allocated(struct global_allocator *g, const void *p, struct layout l,
			    const void *caller)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p), *site;

	if (is_live(r)) /* its free went unseen */
		uncount_block(g, r);
	site = record_of(g, &g->sites, caller);
	if (!r && site)
		r = record_of(g, &g->blocks, p);
	if (r && site) {
		*r = (struct block_record){(uintptr_t)p, l.size, l.align, caller, NULL};
		count_block(site, r);
	} else {
		lose(g, site, r);
	}
	mm_port_unlock(&g->page_lock, state);
}

bool global_debug_freeing(struct global_allocator *g, const void *p, const void *caller)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p);
	bool live = is_live(r);

	if (live) {
		uncount_block(g, r);
		r->freed_by = caller;
	}
	mm_port_unlock(&g->page_lock, state);
	return live;
}

void global_debug_undo_free(struct global_allocator *g, const void *p)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p), *site;

	if (r && r->freed_by) {
		r->freed_by = NULL;
		site = record_of(g, &g->sites, r->allocated_by);
		if (site)
			count_block(site, r);
		else
			lose(g, NULL, r);
	}
	mm_port_unlock(&g->page_lock, state);
}

void global_debug_resized(struct global_allocator *g, const void *p, size_t nbytes)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *r = block_table_find(&g->blocks, (uintptr_t)p);

	if (is_live(r)) {
		block_table_find(&g->sites, (uintptr_t)r->allocated_by)->nbytes +=
			nbytes - r->nbytes;
		r->nbytes = nbytes;
	}
	mm_port_unlock(&g->page_lock, state);
}

/* --- Completing reports ------------------------------------------------- */

/* What an engine keeps before a block, or behind it, counts as a part of it. */
#define MARGIN ((size_t)16)

#define NWATCHED 8u
static struct global_allocator *watched[NWATCHED];

static bool is_around(const struct block_record *r, uintptr_t addr)
{
	return addr - (r->key - MARGIN) < r->nbytes + 2 * MARGIN;
}

/* A block around an address, live or dead; of several that which starts last. */
static const struct block_record *block_around(struct block_table *t, uintptr_t addr, bool live)
{
	const struct block_record *found = NULL;

	for (size_t i = 0; i < block_table_slots(t); i++) {
		const struct block_record *r = block_table_slot(t, i);

		if (r && is_live(r) == live && is_around(r, addr) &&
		    (!found || r->key > found->key))
			found = r;
	}
	return found;
}

/* The best that is known of an address: a block there, a live one around it, a dead one. */
static const struct block_record *block_near(struct block_table *t, uintptr_t addr)
{
	const struct block_record *r = block_table_find(t, addr);

	if (!r)
		r = block_around(t, addr, true);
	return r ? r : block_around(t, addr, false);
}

static bool trace_in(struct global_allocator *g, struct mm_fault *fault)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	const struct block_record *r = block_near(&g->blocks, (uintptr_t)fault->ptr);

	if (r) {
		fault->block = (const void *)r->key;
		fault->block_size = r->nbytes;
		fault->allocated_by = r->allocated_by;
		fault->freed_by = r->freed_by;
	}
	mm_port_unlock(&g->page_lock, state);
	return r;
}

/* An allocator on memory of another was made later: what it knows of an address is newer. */
static void trace(struct mm_fault *fault)
{
	for (size_t i = NWATCHED; i-- > 0;) {
		struct global_allocator *g = __atomic_load_n(&watched[i], __ATOMIC_RELAXED);

		if (g && trace_in(g, fault))
			return;
	}
}

void global_debug_watch(struct global_allocator *g)
{
	for (size_t i = 0; i < NWATCHED; i++) {
		struct global_allocator *none = NULL;

		if (__atomic_compare_exchange_n(&watched[i], &none, g, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED) ||
		    none == g)
			break;
	}
	mm_fault_set_tracer(trace);
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

static void report_lost(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->page_lock), n = g->lost_records;

	mm_port_unlock(&g->page_lock, state);
	if (n)
		mm_port_log(MM_LOG_WARN, "leak: there was no room to record %lu allocations", n);
}

#else

static struct block_table *site_table(struct global_allocator *g)
{
	return &g->large;
}

static void report_lost(const struct global_allocator *g)
{
	(void)g;
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
	report_lost(g);
	return n;
}
