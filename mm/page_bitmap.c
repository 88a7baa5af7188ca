/* SPDX-License-Identifier: MIT */
/*
 * The page allocator: regions, zones, counts per usage, CPU caches.
 *
 * Theory of operation
 *
 * Each region describes itself (page_region.c: bitmap, sets of free blocks, a
 * state for each page) in metadata at its own start. The regions form a list,
 * high memory before low, so that a request that may lie anywhere spares the
 * memory below 4 GiB; a region that crosses that line is managed as two.
 *
 * Every page has a state that names its usage, so giving back any part of what
 * was allocated finds the kinds to count down, and a page that is free already
 * or parked in a CPU's cache is refused. A free is checked in full before
 * anything changes.
 *
 * Single pages pass through a stack per CPU: allocating pops an index and
 * flips its state from parked to live; freeing looks the state up, flips it
 * back and pushes. Neither takes a lock nor walks a list: the cache serves one region
 * at a time and has a copy of its bounds. Only the owner of the page and the
 * owner of the cache touch a state at the same time as others touch its
 * neighbours, which one atomic exclusive-or suffices for. Batches of half a
 * cache move to and from the bitmap; a cache holds at most 1/128 of memory.
 *
 * Counts are exact: used pages of a kind are what locked calls counted plus what each
 * cache counted, modulo 2^64, since a page may be allocated through one and freed through another.
 *
 * Shortcomings: finding the region of an address walks the list, which suits
 * tens of regions, not thousands. Pages parked by other CPUs are not reclaimed
 * when memory runs out, and keep their region from being removed; each CPU
 * drains its own. A request never spans two regions, even adjacent ones.
 */
#include "page_region.h"

#define PAGE_LOW_END   ((uint64_t)1 << 32) /* physical addresses of the low zone end here */
#define PAGE_PIECE_MAX ((size_t)1 << 31)   /* pages of one region: indices must fit 32 bits */
#define PAGE_PN_END    ((uintptr_t)1 << (64 - MM_PAGE_SHIFT)) /* page numbers end here */

static size_t load_count(const size_t *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

/* Only the owner of a cache writes it, but any CPU may read the counts. */
static void add_count(size_t *count, size_t delta)
{
	__atomic_store_n(count, *count + delta, __ATOMIC_RELAXED);
}

static uint32_t load_parked(const struct page_cpu_cache *c)
{
	return __atomic_load_n(&c->count, __ATOMIC_RELAXED);
}

static void store_parked(struct page_cpu_cache *c, uint32_t count)
{
	__atomic_store_n(&c->count, count, __ATOMIC_RELAXED);
}

static uintptr_t region_address(const struct page_region *r, size_t i)
{
	return (r->base_pn + i) << MM_PAGE_SHIFT;
}

/* The region that manages all of the pages [pn, pn + npages), or NULL. */
static struct page_region *region_of(const struct page_alloc *a, uintptr_t pn, size_t npages)
{
	for (struct page_region *r = a->regions; r; r = r->next) {
		size_t i = pn - r->base_pn - r->begin, managed = r->end - r->begin;

		if (i < managed)
			return npages <= managed - i ? r : NULL;
	}
	return NULL;
}

/* --- Regions ------------------------------------------------------------ */

static bool overlaps(const struct page_alloc *a, uintptr_t first, uintptr_t end)
{
	for (const struct page_region *r = a->regions; r; r = r->next)
		if (first < r->end_pn && r->first_pn < end)
			return true;
	return false;
}

/* A cache may hold 1/128 of all memory, and no more than fits. */
static void set_cache_limits(struct page_alloc *a)
{
	size_t limit = a->total_pages / 128;

	if (limit > PAGE_CACHE_DEPTH)
		limit = PAGE_CACHE_DEPTH;
	for (unsigned int cpu = 0; cpu < MM_MAX_CPUS; cpu++)
		__atomic_store_n(&a->cache[cpu].limit, (uint32_t)limit, __ATOMIC_RELAXED);
}

static bool goes_before(const struct page_region *r, const struct page_region *s)
{
	if (r->zone != s->zone)
		return r->zone == PAGE_ZONE_ANY;
	return r->first_pn < s->first_pn;
}

static void insert_region(struct page_alloc *a, struct page_region *r)
{
	struct page_region **link = &a->regions;

	while (*link && goes_before(*link, r))
		link = &(*link)->next;
	r->next = *link;
	*link = r;
	a->total_pages += r->end - r->begin;
	set_cache_limits(a);
}

/* The physical address decides about the zone; no piece crosses the line. */
static void place_region(struct page_region *r, uintptr_t origin, uint64_t phys)
{
	r->origin = origin;
	r->phys = phys;
	r->zone = phys < PAGE_LOW_END ? PAGE_ZONE_LOW : PAGE_ZONE_ANY;
}

/* Manage the pages [pn, pn + npages), metadata at their start. False when nothing would be left. */
static bool add_piece(struct page_alloc *a, uintptr_t origin, uintptr_t pn, size_t npages,
		      uint64_t phys)
{
	size_t nmeta = (page_region_metadata(pn, npages) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
	struct page_region *r;

	if (nmeta >= npages)
		return false;
	r = page_region_create((void *)(pn << MM_PAGE_SHIFT), pn + nmeta, npages - nmeta);
	r->first_pn = pn;
	place_region(r, origin, phys + ((uint64_t)nmeta << MM_PAGE_SHIFT));
	insert_region(a, r);
	return true;
}

/* Pages from phys on that can be one piece. */
static size_t piece_pages(uint64_t phys, size_t npages)
{
	uint64_t max = PAGE_PIECE_MAX;

	if (phys < PAGE_LOW_END)
		max = (PAGE_LOW_END - phys) >> MM_PAGE_SHIFT;
	return npages < max ? npages : (size_t)max;
}

/* The whole pages of a range of bytes. False when there are none, or it wraps around. */
static bool whole_pages(virt_addr_t start, size_t nbytes, uintptr_t *pn, size_t *npages)
{
	uintptr_t last = start.value + nbytes - 1, end;

	if (!nbytes || last < start.value)
		return false;
	*pn = (start.value >> MM_PAGE_SHIFT) + ((start.value & (MM_PAGE_SIZE - 1)) != 0);
	end = (last >> MM_PAGE_SHIFT) + ((last & (MM_PAGE_SIZE - 1)) == MM_PAGE_SIZE - 1);
	if (!*pn || end <= *pn)
		return false; /* page zero is nobody's: its address is NULL */
	*npages = end - *pn;
	return true;
}

enum alloc_result page_alloc_add_at(struct page_alloc *a, virt_addr_t start, size_t nbytes,
				    phys_addr_t phys)
{
	uintptr_t pn;
	size_t npages;
	uint64_t pa;
	bool added = false;

	if (!whole_pages(start, nbytes, &pn, &npages))
		return ALLOC_INVALID_PARAM;
	if (overlaps(a, pn, pn + npages))
		return ALLOC_MEMORY_OVERLAP;
	pa = phys.value + ((pn << MM_PAGE_SHIFT) - start.value);
	while (npages) {
		size_t n = piece_pages(pa, npages);

		added |= add_piece(a, start.value, pn, n, pa);
		pn += n;
		npages -= n;
		pa += (uint64_t)n << MM_PAGE_SHIFT;
	}
	return added ? ALLOC_OK : ALLOC_INVALID_PARAM;
}

enum alloc_result page_alloc_add_region(struct page_alloc *a, virt_addr_t start, size_t nbytes)
{
	uintptr_t pn;
	size_t npages;

	if (!whole_pages(start, nbytes, &pn, &npages))
		return ALLOC_INVALID_PARAM;
	return page_alloc_add_at(a, start, nbytes, mm_port_virt_to_phys(start));
}

enum alloc_result page_alloc_add_foreign(struct page_alloc *a, void *memory, virt_addr_t start,
					 size_t npages, phys_addr_t phys)
{
	uintptr_t pn = start.value >> MM_PAGE_SHIFT;
	struct page_region *r;

	if (!npages || npages > PAGE_PIECE_MAX || start.value & (MM_PAGE_SIZE - 1) ||
	    npages > PAGE_PN_END - pn)
		return ALLOC_INVALID_PARAM;
	if (overlaps(a, pn, pn + npages))
		return ALLOC_MEMORY_OVERLAP;
	r = page_region_create(memory, pn, npages);
	place_region(r, start.value, phys.value);
	insert_region(a, r);
	return ALLOC_OK;
}

/* No cache may keep the bounds of a region that goes. Its span is the guard: zero admits nothing.
 */
static void forget_region(struct page_alloc *a, const struct page_region *r)
{
	for (unsigned int cpu = 0; cpu < MM_MAX_CPUS; cpu++)
		if (a->cache[cpu].states == r->states)
			__atomic_store_n(&a->cache[cpu].span, 0, __ATOMIC_RELAXED);
}

static bool starts_at(const struct page_region *r, uintptr_t address)
{
	return r->origin == address || mm_align_up(r->origin, MM_PAGE_SIZE) == address;
}

enum alloc_result page_alloc_remove_region(struct page_alloc *a, virt_addr_t start)
{
	bool found = false;

	for (const struct page_region *r = a->regions; r; r = r->next) {
		if (!starts_at(r, start.value))
			continue;
		if (r->free_pages != r->end - r->begin)
			return ALLOC_NO_MEMORY;
		found = true;
	}
	if (!found)
		return ALLOC_NOT_ALLOCATED;
	for (struct page_region **link = &a->regions; *link;) {
		struct page_region *r = *link;

		if (!starts_at(r, start.value)) {
			link = &r->next;
			continue;
		}
		*link = r->next;
		a->total_pages -= r->end - r->begin;
		forget_region(a, r);
	}
	set_cache_limits(a);
	return ALLOC_OK;
}

/* --- Requests ----------------------------------------------------------- */

static bool usage_valid(enum page_usage usage)
{
	return (unsigned int)usage < PAGE_USAGE_KINDS && usage != PAGE_USAGE_CPU_CACHE;
}

static bool request_valid(const struct page_request *req)
{
	return req->npages && req->npages < PAGE_PN_END && mm_is_pow2(req->align) &&
	       req->align >= MM_PAGE_SIZE && usage_valid(req->usage) &&
	       (req->zone == PAGE_ZONE_ANY || req->zone == PAGE_ZONE_LOW);
}

/* The index in r that a request must stay below. */
static size_t request_end(const struct page_region *r, const struct page_request *req)
{
	uint64_t below;

	if (!req->phys_limit)
		return r->end;
	if (req->phys_limit <= r->phys)
		return r->begin;
	below = (req->phys_limit - r->phys) >> MM_PAGE_SHIFT;
	return below < r->end - r->begin ? r->begin + (size_t)below : r->end;
}

enum alloc_result page_alloc_get(struct page_alloc *a, struct page_request req, virt_addr_t *out)
{
	if (!request_valid(&req))
		return ALLOC_INVALID_PARAM;
	for (struct page_region *r = a->regions; r; r = r->next) {
		size_t i;

		if (req.zone == PAGE_ZONE_LOW && r->zone != PAGE_ZONE_LOW)
			continue;
		i = page_region_find(r, req.npages, req.align >> MM_PAGE_SHIFT,
				     request_end(r, &req));
		if (i == PAGE_NONE)
			continue;
		page_region_take(r, i, req.npages, PAGE_STATE_LIVE | (unsigned int)req.usage);
		a->usage[req.usage] += req.npages;
		out->value = region_address(r, i);
		return ALLOC_OK;
	}
	return ALLOC_NO_MEMORY;
}

enum alloc_result page_alloc_get_at(struct page_alloc *a, virt_addr_t start, size_t npages,
				    enum page_usage usage)
{
	uintptr_t pn = start.value >> MM_PAGE_SHIFT;
	struct page_region *r;

	if (!npages || start.value & (MM_PAGE_SIZE - 1) || npages > PAGE_PN_END - pn ||
	    !usage_valid(usage))
		return ALLOC_INVALID_PARAM;
	r = region_of(a, pn, npages);
	if (!r || !page_region_is_free(r, pn - r->base_pn, npages))
		return ALLOC_NO_MEMORY;
	page_region_take(r, pn - r->base_pn, npages, PAGE_STATE_LIVE | (unsigned int)usage);
	a->usage[usage] += npages;
	return ALLOC_OK;
}

static bool all_of_kinds(const size_t counts[PAGE_USAGE_KINDS], unsigned int kinds)
{
	for (unsigned int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		if (counts[kind] && !(kinds >> kind & 1))
			return false;
	return true;
}

enum alloc_result page_alloc_put(struct page_alloc *a, virt_addr_t start, size_t npages,
				 enum mm_fault_kind *fault)
{
	return page_alloc_put_kinds(a, start, npages, ~0u, fault);
}

enum alloc_result page_alloc_put_kinds(struct page_alloc *a, virt_addr_t start, size_t npages,
				       unsigned int kinds, enum mm_fault_kind *fault)
{
	size_t counts[PAGE_USAGE_KINDS] = {0};
	uintptr_t pn = start.value >> MM_PAGE_SHIFT;
	struct page_region *r;

	*fault = MM_FAULT_WRONG_LAYOUT;
	if (!npages)
		return ALLOC_INVALID_PARAM;
	*fault = MM_FAULT_MISALIGNED;
	if (start.value & (MM_PAGE_SIZE - 1))
		return ALLOC_INVALID_PARAM;
	*fault = MM_FAULT_FOREIGN;
	r = region_of(a, pn, npages);
	if (!r)
		return ALLOC_NOT_ALLOCATED;
	*fault = MM_FAULT_DOUBLE_FREE;
	if (!page_region_count(r, pn - r->base_pn, npages, counts))
		return ALLOC_NOT_ALLOCATED;
	*fault = MM_FAULT_FOREIGN;
	if (!all_of_kinds(counts, kinds))
		return ALLOC_NOT_ALLOCATED;
	*fault = MM_FAULT_NONE;
	page_region_give(r, pn - r->base_pn, npages);
	for (unsigned int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		a->usage[kind] -= counts[kind];
	return ALLOC_OK;
}

/* --- CPU caches --------------------------------------------------------- */

/* Turn the state of one page of the caller's, among neighbours that are not. */
static void flip_state(uint64_t *word, unsigned int shift, unsigned int flip)
{
	__atomic_fetch_xor(word, (uint64_t)flip << shift, __ATOMIC_RELAXED);
}

bool page_alloc_one_local(struct page_alloc *a, enum page_usage usage, unsigned int cpu,
			  virt_addr_t *out)
{
	struct page_cpu_cache *c = &a->cache[cpu];
	uint32_t count = c->count, i;

	if (!count || !usage_valid(usage))
		return false;
	store_parked(c, count - 1);
	i = c->page[count - 1];
	flip_state(&c->states[i / PAGE_STATES_WORD], i % PAGE_STATES_WORD * 4,
		   PAGE_STATE_PARKED ^ (PAGE_STATE_LIVE | (unsigned int)usage));
	add_count(&c->usage[usage], 1);
	out->value = c->base + ((uintptr_t)i << MM_PAGE_SHIFT);
	return true;
}

bool page_free_one_local(struct page_alloc *a, virt_addr_t page, unsigned int cpu,
			 enum mm_fault_kind *fault)
{
	struct page_cpu_cache *c = &a->cache[cpu];
	uintptr_t offset = page.value - c->base;
	/* Rotated, so that a misaligned offset is a huge index. */
	size_t i = offset >> MM_PAGE_SHIFT | offset << (64 - MM_PAGE_SHIFT);
	uint32_t count = c->count;
	unsigned int shift = i % PAGE_STATES_WORD * 4, state;
	uint64_t *word;

	*fault = MM_FAULT_NONE;
	if (i >= __atomic_load_n(&c->span, __ATOMIC_RELAXED) ||
	    count >= __atomic_load_n(&c->limit, __ATOMIC_RELAXED))
		return false;
	word = &c->states[i / PAGE_STATES_WORD];
	state = (unsigned int)(__atomic_load_n(word, __ATOMIC_RELAXED) >> shift) & 15;
	if (!(state & PAGE_STATE_LIVE) || state == (PAGE_STATE_LIVE | PAGE_USAGE_HEAP))
		return false;
	flip_state(word, shift, state ^ PAGE_STATE_PARKED);
	add_count(&c->usage[state ^ PAGE_STATE_LIVE], (size_t)-1);
	c->page[count] = (uint32_t)i;
	store_parked(c, count + 1);
	return true;
}

/* Point the cache at r, if it may: pages of another region must leave first. */
static bool serve_region(struct page_cpu_cache *c, struct page_region *r)
{
	if (c->count && c->states != r->states)
		return false;
	c->base = region_address(r, 0);
	c->states = r->states;
	__atomic_store_n(&c->span, r->ready_end, __ATOMIC_RELAXED);
	return true;
}

void page_alloc_refill(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];
	size_t batch = (c->limit + 1) / 2, room = c->count < c->limit ? c->limit - c->count : 0;

	if (batch > room)
		batch = room;
	for (struct page_region *r = a->regions; r && batch; r = r->next) {
		size_t got;

		if (!r->free_pages || !serve_region(c, r))
			continue;
		got = page_region_take_parked(r, batch, &c->page[c->count]);
		store_parked(c, c->count + (uint32_t)got);
		serve_region(c, r); /* the span may have grown */
		return;
	}
}

static void drain(struct page_alloc *a, struct page_cpu_cache *c, uint32_t left)
{
	struct page_region *r = a->regions;

	while (r && r->states != c->states)
		r = r->next;
	if (!r)
		return;
	for (uint32_t count = c->count; count > left; count--)
		page_region_give(r, c->page[count - 1], 1);
	if (c->count > left)
		store_parked(c, left);
	serve_region(c, r);
}

void page_alloc_drain(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];

	drain(a, c, c->count / 2);
}

bool page_alloc_drain_all(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];
	bool any = c->count;

	drain(a, c, 0);
	return any;
}

/* --- Queries ------------------------------------------------------------ */

size_t page_alloc_usage(const struct page_alloc *a, enum page_usage usage)
{
	bool parked = usage == PAGE_USAGE_CPU_CACHE;
	size_t n;

	if ((unsigned int)usage >= PAGE_USAGE_KINDS)
		return 0;
	n = a->usage[usage];
	for (unsigned int cpu = 0; cpu < MM_MAX_CPUS; cpu++)
		n += parked ? load_parked(&a->cache[cpu]) : load_count(&a->cache[cpu].usage[usage]);
	return n;
}

size_t page_alloc_total(const struct page_alloc *a)
{
	return a->total_pages;
}

size_t page_alloc_used(const struct page_alloc *a)
{
	size_t used = 0;

	for (int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		if (kind != PAGE_USAGE_CPU_CACHE)
			used += page_alloc_usage(a, (enum page_usage)kind);
	return used;
}

size_t page_alloc_available(const struct page_alloc *a)
{
	return a->total_pages - page_alloc_used(a);
}

size_t page_alloc_metadata_bytes(const struct page_alloc *a)
{
	size_t nbytes = 0;

	for (const struct page_region *r = a->regions; r; r = r->next)
		nbytes += r->metadata_bytes;
	return nbytes;
}

bool page_alloc_is_allocated(const struct page_alloc *a, virt_addr_t page)
{
	uintptr_t pn = page.value >> MM_PAGE_SHIFT;
	const struct page_region *r = region_of(a, pn, 1);

	return r && page_region_state(r, pn - r->base_pn) & PAGE_STATE_LIVE;
}

bool page_alloc_region(const struct page_alloc *a, size_t i, struct page_region_info *out)
{
	const struct page_region *r = a->regions;

	while (r && i--)
		r = r->next;
	if (!r)
		return false;
	*out = (struct page_region_info){
		.start = {region_address(r, r->begin)},
		.npages = r->end - r->begin,
		.free_pages = r->free_pages,
		.zone = r->zone,
	};
	return true;
}

const void *page_alloc_check(const struct page_alloc *a)
{
	size_t counts[16] = {0};

	for (const struct page_region *r = a->regions; r; r = r->next)
		if (!page_region_check(r, counts))
			return r;
	if (counts[PAGE_STATE_PARKED] != page_alloc_usage(a, PAGE_USAGE_CPU_CACHE))
		return a;
	for (unsigned int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		if (kind != PAGE_USAGE_CPU_CACHE &&
		    counts[PAGE_STATE_LIVE + kind] != page_alloc_usage(a, (enum page_usage)kind))
			return a;
	return NULL;
}
