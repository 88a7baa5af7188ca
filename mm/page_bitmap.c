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
 * sets its state; freeing looks the state up, clears it and pushes. Neither
 * takes a lock nor looks for the region: the cache serves one region at a time and has a copy of
 * its bounds. Batches of half a cache move to and from the bitmap; a cache holds
 * at most 1/128 of memory.
 *
 * Before a request fails, the pages parked by all CPUs are taken back, whatever
 * those CPUs do meanwhile: the owner works at the top of its stack, whoever holds the lock
 * takes from the bottom, and who wants the last page is decided by the order of
 * two stores and two loads (take_parked), as in work-stealing queues (Chase, Lev: "Dynamic
 * circular work-stealing deque", 2005).
 *
 * Counts are exact while no CPU is in a local call: used pages of a kind are what locked calls
 * counted plus what each cache counted, modulo 2^64, since a page may be allocated through one and
 * freed through another; below zero, when such calls are caught in the middle, counts as none.
 *
 * The region of an address is found in balanced trees, one for each zone, which
 * are made anew when a region comes or goes.
 *
 * Shortcomings: a request asks region after region, with a few instructions for
 * each that is full. A request never spans two regions, even adjacent ones. A CPU's
 * cache serves one region only: single pages of others take the lock. Two CPUs that
 * free one page in the same instant are not caught.
 */
#include "page_region.h"
#include "relaxed.h"

#define PAGE_LOW_END   ((uint64_t)1 << 32) /* physical addresses of the low zone end here */
#define PAGE_PIECE_MAX ((size_t)1 << 31)   /* pages of one region: indices must fit 32 bits */
#define PAGE_PN_END    ((uintptr_t)1 << (64 - MM_PAGE_SHIFT)) /* page numbers end here */

static uintptr_t region_address(const struct page_region *r, size_t i)
{
	return (r->base_pn + i) << MM_PAGE_SHIFT;
}

/* The region of this zone that manages page pn, or NULL. */
static struct page_region *zone_region_of(struct page_region *r, uintptr_t pn)
{
	while (r) {
		size_t i = pn - r->base_pn;

		if (i - r->begin < r->end - r->begin)
			return r;
		r = r->child[pn > r->first_pn];
	}
	return NULL;
}

/* The region that manages all of the pages [pn, pn + npages), or NULL. */
static struct page_region *region_of(const struct page_alloc *a, uintptr_t pn, size_t npages)
{
	struct page_region *r = zone_region_of(a->root[PAGE_ZONE_ANY], pn);

	if (!r)
		r = zone_region_of(a->root[PAGE_ZONE_LOW], pn);
	return r && npages <= r->end - (pn - r->base_pn) ? r : NULL;
}

static bool usage_valid(enum page_usage usage)
{
	return (unsigned int)usage < PAGE_USAGE_KINDS && usage != PAGE_USAGE_CPU_CACHE;
}

/* --- CPU caches --------------------------------------------------------- */

/* Only the owner of a cache counts here. Plainly: a CPU that looks meanwhile sees the old or the
 * new number, for every machine writes an aligned word whole. */
__attribute__((no_sanitize("thread"))) static inline void add_count(size_t *count, size_t delta)
{
	*count += delta;
}

/* Known to the compiler as an address, it is made once. */
static inline struct page_cpu_cache *cache_of(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];

	__asm__("" : "+r"(c));
	return c;
}

/* How many pages are parked. Of the caller's cache, or about now. */
static size_t parked_pages(const struct page_cpu_cache *c)
{
	ptrdiff_t low = __atomic_load_n(&c->low, __ATOMIC_RELAXED);
	ptrdiff_t top = __atomic_load_n(&c->top, __ATOMIC_RELAXED);

	return top > low ? (size_t)(top - low) : 0;
}

/*
 * The owner lowers the top before it looks at the bottom, a taker raises the
 * bottom before it looks at the top: at least one of them sees what the other
 * did, and the taker leaves to the owner what both want (take_parked). With one
 * CPU they are never at it at the same time. False: a taker has that page.
 */
static inline bool lower_top(struct page_cpu_cache *c, ptrdiff_t top)
{
	if (MM_MAX_CPUS == 1) {
		c->top = top;
		return c->low <= top;
	}
	__atomic_store_n(&c->top, top, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&c->low, __ATOMIC_SEQ_CST) <= top;
}

bool page_alloc_one_local(struct page_alloc *a, enum page_usage usage, unsigned int cpu,
			  virt_addr_t *out)
{
	struct page_cpu_cache *c = cache_of(a, cpu);
	ptrdiff_t top = c->top - 1;
	uint32_t i;

	if (!usage_valid(usage))
		return false;
	if (!lower_top(c, top)) {
		__atomic_store_n(&c->top, top + 1, __ATOMIC_RELAXED);
		return false;
	}
	i = c->page[top];
	page_state_flip(c->states, i, page_state_of(usage));
	add_count(&c->usage[page_state_of(usage)], 1);
	out->value = c->base + ((uintptr_t)i << MM_PAGE_SHIFT);
	return true;
}

bool page_free_one_local(struct page_alloc *a, virt_addr_t page, unsigned int cpu)
{
	struct page_cpu_cache *c = cache_of(a, cpu);
	uintptr_t offset = page.value - c->base;
	/* Rotated, so that a misaligned offset is a huge index. */
	size_t i = offset >> MM_PAGE_SHIFT | offset << (64 - MM_PAGE_SHIFT);
	ptrdiff_t top = c->top;
	unsigned int state;

	if (i >= mm_load_relaxed(&c->span) || top >= c->limit)
		return false;
	state = page_state(c->states, i);
	if (state <= PAGE_STATE_HEAP)
		return false;
	page_state_flip(c->states, i, state);
	add_count(&c->usage[state], (size_t)-1);
	mm_store_relaxed32(&c->page[top], (uint32_t)i);
	__atomic_store_n(&c->top, top + 1, __ATOMIC_RELEASE);
	return true;
}

/* --- Moving pages to and from the caches, under the lock ---------------- */

/* A cache may hold 1/128 of all memory, and no more than fits. */
static size_t cache_limit(const struct page_alloc *a)
{
	size_t limit = a->total_pages / 128;

	return limit < PAGE_CACHE_DEPTH ? limit : PAGE_CACHE_DEPTH;
}

/* Pre: the caller owns the cache. Its pages lie at the start of the stack, as many as may be. */
static void settle(const struct page_alloc *a, struct page_cpu_cache *c)
{
	size_t n = parked_pages(c);

	if (c->low)
		__builtin_memmove(c->page, &c->page[c->low], n * sizeof(c->page[0]));
	__atomic_store_n(&c->low, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&c->top, (ptrdiff_t)n, __ATOMIC_RELAXED);
	c->limit = (ptrdiff_t)cache_limit(a);
}

/* Point the cache at r, if it may: pages of another region must leave first. */
static bool serve_region(struct page_cpu_cache *c, struct page_region *r)
{
	if (parked_pages(c) && c->states != r->states)
		return false;
	c->base = region_address(r, 0);
	c->states = r->states;
	__atomic_store_n(&c->span, r->ready_end, __ATOMIC_RELAXED);
	return true;
}

void page_alloc_refill(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];
	size_t limit = cache_limit(a), batch = (limit + 1) / 2, n;

	settle(a, c);
	n = parked_pages(c);
	if (n >= limit)
		return;
	if (batch > limit - n)
		batch = limit - n;
	for (struct page_region *r = a->regions; r; r = r->next) {
		if (!r->free_pages || !serve_region(c, r))
			continue;
		n += page_region_park(r, batch, &c->page[n]);
		__atomic_store_n(&c->top, (ptrdiff_t)n, __ATOMIC_RELAXED);
		serve_region(c, r); /* the span may have grown */
		return;
	}
}

static struct page_region *served_region(const struct page_alloc *a, const struct page_cpu_cache *c)
{
	struct page_region *r = a->regions;

	while (r && r->states != c->states)
		r = r->next;
	return r;
}

static void drain(struct page_alloc *a, struct page_cpu_cache *c, size_t left)
{
	struct page_region *r = served_region(a, c);
	size_t n;

	settle(a, c);
	if (!r)
		return;
	for (n = parked_pages(c); n > left; n--)
		page_region_unpark(r, c->page[n - 1]);
	__atomic_store_n(&c->top, (ptrdiff_t)n, __ATOMIC_RELAXED);
	serve_region(c, r);
}

void page_alloc_drain(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];

	drain(a, c, parked_pages(c) / 2);
}

bool page_alloc_drain_all(struct page_alloc *a, unsigned int cpu)
{
	struct page_cpu_cache *c = &a->cache[cpu];
	bool any = parked_pages(c);

	drain(a, c, 0);
	return any;
}

/*
 * Take all pages of a cache while its owner may be at work there; how many there
 * were. First the bottom is raised to where the top was seen: from now on the
 * owner gets nothing below it. If the top turns out to have sunk meanwhile, the
 * owner took the pages above it, or is about to find the bottom above its own:
 * either way they are not ours, and the bottom follows.
 */
static size_t take_parked(struct page_alloc *a, struct page_cpu_cache *c)
{
	ptrdiff_t low = c->low, end = __atomic_load_n(&c->top, __ATOMIC_RELAXED), top;
	struct page_region *r = served_region(a, c);

	if (end <= low || !r)
		return 0;
	__atomic_store_n(&c->low, end, __ATOMIC_SEQ_CST);
	top = __atomic_load_n(&c->top, __ATOMIC_SEQ_CST);
	if (top < end) {
		end = top > low ? top : low;
		__atomic_store_n(&c->low, end, __ATOMIC_RELAXED);
	}
	for (ptrdiff_t k = low; k < end; k++)
		page_region_unpark(r, __atomic_load_n(&c->page[k], __ATOMIC_RELAXED));
	return (size_t)(end - low);
}

/* Take the pages that the CPUs have parked, before a request fails. False when there were none. */
static bool reclaim_parked(struct page_alloc *a)
{
	size_t n = 0;

	for (unsigned int cpu = 0; cpu < MM_MAX_CPUS; cpu++)
		n += take_parked(a, &a->cache[cpu]);
	return n;
}

/* --- Regions ------------------------------------------------------------ */

static bool overlaps(const struct page_alloc *a, uintptr_t first, uintptr_t end)
{
	for (const struct page_region *r = a->regions; r; r = r->next)
		if (first < r->end_pn && r->first_pn < end)
			return true;
	return false;
}

static bool goes_before(const struct page_region *r, const struct page_region *s)
{
	if (r->zone != s->zone)
		return r->zone == PAGE_ZONE_ANY;
	return r->first_pn < s->first_pn;
}

/* A balanced tree of the n regions from *next on, which it leaves at the one behind them. Out of
 * line, else gcc puts it into itself, again and again. */
__attribute__((noinline)) static struct page_region *plant_tree(struct page_region **next, size_t n)
{
	struct page_region *below, *root;

	if (!n)
		return NULL;
	below = plant_tree(next, n / 2);
	root = *next;
	*next = root->next;
	root->child[0] = below;
	root->child[1] = plant_tree(next, n - n / 2 - 1);
	return root;
}

/* Regions come and go rarely: the trees are made anew each time. */
static void plant_trees(struct page_alloc *a)
{
	struct page_region *next = a->regions;
	size_t n[2] = {0, 0};

	for (const struct page_region *r = a->regions; r; r = r->next)
		n[r->zone]++;
	a->root[PAGE_ZONE_ANY] = plant_tree(&next, n[PAGE_ZONE_ANY]);
	a->root[PAGE_ZONE_LOW] = plant_tree(&next, n[PAGE_ZONE_LOW]);
}

static void insert_region(struct page_alloc *a, struct page_region *r)
{
	struct page_region **link = &a->regions;

	while (*link && goes_before(*link, r))
		link = &(*link)->next;
	r->next = *link;
	*link = r;
	a->total_pages += r->end - r->begin;
	plant_trees(a);
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

	if (!whole_pages(start, nbytes, &pn, &npages) ||
	    ((start.value ^ phys.value) & (MM_PAGE_SIZE - 1)))
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
	bool found = false, all_free = true;

	for (const struct page_region *r = a->regions; r; r = r->next) {
		if (!starts_at(r, start.value))
			continue;
		found = true;
		all_free &= r->free_pages == r->end - r->begin;
	}
	if (!found)
		return ALLOC_NOT_ALLOCATED;
	if (!all_free)
		return reclaim_parked(a) ? page_alloc_remove_region(a, start) : ALLOC_NO_MEMORY;
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
	plant_trees(a);
	return ALLOC_OK;
}

/* --- Requests ----------------------------------------------------------- */

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

static bool in_zone(const struct page_region *r, const struct page_request *req)
{
	return req->zone == PAGE_ZONE_ANY || r->zone == PAGE_ZONE_LOW;
}

static enum alloc_result hand_out(struct page_alloc *a, const struct page_region *r, size_t i,
				  const struct page_request *req, virt_addr_t *out)
{
	a->usage[req->usage] += req->npages;
	out->value = region_address(r, i);
	return ALLOC_OK;
}

/* The first region that has the pages. */
static enum alloc_result get_pages(struct page_alloc *a, const struct page_request *req,
				   virt_addr_t *out)
{
	for (struct page_region *r = a->regions; r; r = r->next) {
		size_t i = PAGE_NONE;

		if (in_zone(r, req))
			i = page_region_get(r, req->npages, req->align >> MM_PAGE_SHIFT,
					    request_end(r, req), req->usage);
		if (i != PAGE_NONE)
			return hand_out(a, r, i, req, out);
	}
	return ALLOC_NO_MEMORY;
}

/* What is parked comes back before it fails. */
__attribute__((noinline)) static enum alloc_result
get_or_reclaim(struct page_alloc *a, struct page_request req, virt_addr_t *out)
{
	enum alloc_result result;

	do
		result = get_pages(a, &req, out);
	while (result != ALLOC_OK && reclaim_parked(a));
	return result;
}

enum alloc_result page_alloc_get(struct page_alloc *a, struct page_request req, virt_addr_t *out)
{
	struct page_region *r = a->regions;
	size_t i = PAGE_NONE;

	if (!request_valid(&req))
		return ALLOC_INVALID_PARAM;
	if (r && in_zone(r, &req) && !req.phys_limit)
		i = page_region_get_direct(r, req.npages, req.align >> MM_PAGE_SHIFT, req.usage);
	return i != PAGE_NONE ? hand_out(a, r, i, &req, out) : get_or_reclaim(a, req, out);
}

enum alloc_result page_alloc_get_at(struct page_alloc *a, virt_addr_t start, size_t npages,
				    enum page_usage usage)
{
	uintptr_t pn = start.value >> MM_PAGE_SHIFT;
	struct page_region *r;
	size_t i;

	if (!npages || start.value & (MM_PAGE_SIZE - 1) || npages > PAGE_PN_END - pn ||
	    !usage_valid(usage))
		return ALLOC_INVALID_PARAM;
	r = region_of(a, pn, npages);
	if (!r)
		return ALLOC_NO_MEMORY;
	i = pn - r->base_pn;
	if (!page_region_is_free(r, i, npages) &&
	    (!reclaim_parked(a) || !page_region_is_free(r, i, npages)))
		return ALLOC_NO_MEMORY;
	page_region_take(r, i, npages, usage);
	a->usage[usage] += npages;
	return ALLOC_OK;
}

/* Pages of several usages, which are counted down. The fault of giving them back. */
static enum mm_fault_kind uncount_mixed(struct page_alloc *a, const struct page_region *r, size_t i,
					size_t n, unsigned int kinds)
{
	size_t counts[PAGE_USAGE_KINDS] = {0};

	if (!page_region_count(r, i, n, counts))
		return MM_FAULT_DOUBLE_FREE;
	for (unsigned int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		if (counts[kind] && !(kinds >> kind & 1))
			return MM_FAULT_FOREIGN;
	for (unsigned int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		a->usage[kind] -= counts[kind];
	return MM_FAULT_NONE;
}

static inline enum mm_fault_kind uncount(struct page_alloc *a, const struct page_region *r,
					 size_t i, size_t n, unsigned int kinds)
{
	unsigned int state = page_region_common_state(r, i, n);
	enum page_usage usage = page_state_usage(state);

	if (!state)
		return uncount_mixed(a, r, i, n, kinds);
	if (!(kinds >> usage & 1))
		return MM_FAULT_FOREIGN;
	a->usage[usage] -= n;
	return MM_FAULT_NONE;
}

static enum alloc_result refuse(enum mm_fault_kind kind, enum mm_fault_kind *fault)
{
	*fault = kind;
	return kind == MM_FAULT_WRONG_LAYOUT || kind == MM_FAULT_MISALIGNED ? ALLOC_INVALID_PARAM
									    : ALLOC_NOT_ALLOCATED;
}

enum alloc_result page_alloc_put(struct page_alloc *a, virt_addr_t start, size_t npages,
				 enum mm_fault_kind *fault)
{
	return page_alloc_put_kinds(a, start, npages, ~0u, fault);
}

enum alloc_result page_alloc_put_kinds(struct page_alloc *a, virt_addr_t start, size_t npages,
				       unsigned int kinds, enum mm_fault_kind *fault)
{
	uintptr_t pn = start.value >> MM_PAGE_SHIFT;
	struct page_region *r;

	if (!npages)
		return refuse(MM_FAULT_WRONG_LAYOUT, fault);
	if (start.value & (MM_PAGE_SIZE - 1))
		return refuse(MM_FAULT_MISALIGNED, fault);
	r = region_of(a, pn, npages);
	if (!r)
		return refuse(MM_FAULT_FOREIGN, fault);
	*fault = uncount(a, r, pn - r->base_pn, npages, kinds);
	if (*fault != MM_FAULT_NONE)
		return ALLOC_NOT_ALLOCATED;
	page_region_give(r, pn - r->base_pn, npages);
	return ALLOC_OK;
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
		n += parked ? parked_pages(&a->cache[cpu])
			    : mm_load_relaxed(&a->cache[cpu].usage[page_state_of(usage)]);
	return n <= a->total_pages ? n : 0;
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

	return r && page_region_state(r, pn - r->base_pn);
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
	size_t counts[PAGE_USAGE_KINDS] = {0};

	for (const struct page_region *r = a->regions; r; r = r->next)
		if (!page_region_check(r, counts))
			return r;
	for (unsigned int kind = 0; kind < PAGE_USAGE_KINDS; kind++)
		if (counts[kind] != page_alloc_usage(a, (enum page_usage)kind))
			return a;
	return NULL;
}
