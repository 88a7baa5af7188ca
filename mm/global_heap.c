/* SPDX-License-Identifier: MIT */
/*
 * The facade's heap: how the engine gets memory and gives it back. The theory stands in global.c.
 */
#include "bits.h"
#include "global_impl.h"

/* A CPU that frees without the lock looks at what all use after so many bytes at most. */
#define TRIM_STEP ((size_t)256 * 1024)

/*
 * A heap that grows does so by at least this share of the free pages, but not by more bytes,
 * unless it is as large itself.
 */
#define GROWTH_SHARE	64
#define GROWTH_STEP_MAX ((size_t)8 << 20)

/* A heap as small as this, and the first step, gives nothing back by itself: it would thrash. */
#define KEPT_HEAP_SIZE (4 * MIN_HEAP_SIZE)

/* The largest layout that the shortest paths of the static instance take. */
static size_t fast_limit_of(const struct byte_ops *ops)
{
	return ops == &byte_slab_ops ? BYTE_SLAB_MAX : GLOBAL_LARGE_SIZE;
}

/* Pre: the heap lock is held. */
static enum alloc_result add_piece(struct global_allocator *g, virt_addr_t piece, size_t npages)
{
	struct byte_alloc *heap = heap_of(g);
	size_t nbytes = npages << MM_PAGE_SHIFT;

	if (g->small_limit)
		return heap->ops->add_memory(heap, virt_ptr(piece), nbytes);
	heap->ops = engine_of(g);
	heap->in_parts = true;
	if (heap->ops->init(heap, virt_ptr(piece), nbytes) != ALLOC_OK)
		return ALLOC_NO_MEMORY;
	g->kept_bytes = max_size(g->kept_bytes, KEPT_HEAP_SIZE);
	__atomic_store_n(&g->small_limit, GLOBAL_LARGE_SIZE, __ATOMIC_RELEASE);
	__atomic_store_n(&g->fast_limit, fast_limit_of(heap->ops), __ATOMIC_RELEASE);
	return ALLOC_OK;
}

/* From now on look for free pieces below so many bytes in use, or a quarter of the heap. */
static void set_trim_limit(struct global_allocator *g, size_t limit)
{
	size_t total = engine_of(g)->total_bytes(heap_of(g));

	mm_store_relaxed(&g->trim_below, total > g->kept_bytes ? min_size(limit, total / 4) : 0);
}

/* --- Allocation --- */

void *global_heap_alloc_unlock(struct global_allocator *g, size_t size, size_t align,
			       unsigned long state)
{
	void *p = g->small_limit ? engine_of(g)->alloc(heap_of(g), size, align) : NULL;

	return global_heap_unlock(g, p, size, state);
}

/* Add a piece and serve a request from it before anyone else can. */
static void *add_and_alloc(struct global_allocator *g, virt_addr_t piece, size_t npages,
			   struct layout l)
{
	unsigned long state = mm_port_lock(&g->heap_lock);

	if (add_piece(g, piece, npages) == ALLOC_OK) {
		set_trim_limit(g, SIZE_MAX);
		return global_heap_alloc_unlock(g, l.size, l.align, state);
	}
	mm_port_unlock(&g->heap_lock, state);
	global_put_own_pages(g, piece, npages);
	return NULL;
}

/* --- Growth --- */

static size_t pow2_above(size_t n)
{
	return n > 1 ? (size_t)2 << mm_fls(n - 1) : 1;
}

/*
 * The least that it likes to grow by, in pages: engines are at their best on few pieces, and
 * what is there in plenty may lie idle. Small machines are asked for little, large ones not
 * for more than is good.
 */
static size_t growth_step(struct global_allocator *g)
{
	size_t share = global_allocator_available_pages(g) / GROWTH_SHARE;

	return (size_t)1 << mm_fls(min_size(share, GROWTH_STEP_MAX >> MM_PAGE_SHIFT) | 1);
}

/* Pages for the heap: what it would like for this request, and what it needs. */
static void growth_of(struct global_allocator *g, struct layout l, size_t *want, size_t *need)
{
	struct byte_alloc *heap = heap_of(g);
	size_t step = growth_step(g), total;
	unsigned long state = mm_port_lock(&g->heap_lock);

	g->kept_bytes = KEPT_HEAP_SIZE + (step << MM_PAGE_SHIFT);
	total = pages_of(heap->ops->total_bytes(heap));
	*need = pages_of(heap->ops->grow_size(heap, l.size, l.align));
	mm_port_unlock(&g->heap_lock, state);
	*want = max_size(pow2_above(max_size(max_size(total, step), pages_of(l.size))), *need);
}

/* Pre: the grow lock is held. */
static void *grow_for(struct global_allocator *g, struct layout l)
{
	struct page_request req = {.align = MM_PAGE_SIZE, .usage = PAGE_USAGE_HEAP};
	virt_addr_t piece;
	size_t need;

	growth_of(g, l, &req.npages, &need);
	while (global_get_pages(g, req, &piece) != ALLOC_OK) {
		if (req.npages <= need)
			return NULL;
		req.npages = max_size(req.npages / 2, need);
	}
	return add_and_alloc(g, piece, req.npages, l);
}

/*
 * A part of what the engine holds back is merged, and the request tried again; others may have
 * the lock between two parts.
 */
static void *settle_and_alloc(struct global_allocator *g, struct layout l, unsigned int *part)
{
	unsigned long state = mm_port_lock(&g->heap_lock);

	*part = g->small_limit ? engine_of(g)->settle(heap_of(g), *part) : 0;
	return global_heap_alloc_unlock(g, l.size, l.align, state);
}

/* There are no pages: the request fails only when nothing is held back. */
static void *settle_all_and_alloc(struct global_allocator *g, struct layout l)
{
	unsigned long state;
	unsigned int part = 0;
	void *p;

	do
		p = settle_and_alloc(g, l, &part);
	while (!p && part);
	if (p)
		return p;
	state = mm_port_lock(&g->heap_lock);
	heap_of(g)->in_parts = false;
	p = g->small_limit ? engine_of(g)->alloc(heap_of(g), l.size, l.align) : NULL;
	heap_of(g)->in_parts = true;
	return global_heap_unlock(g, p, l.size, state);
}

void *global_heap_grow(struct global_allocator *g, struct layout l)
{
	unsigned long state = mm_port_lock(&g->grow_lock);
	unsigned int part = 0;
	void *p = settle_and_alloc(g, l, &part); /* and somebody else may have grown it */

	if (!p)
		p = grow_for(g, l);
	mm_port_unlock(&g->grow_lock, state);
	return p ? p : settle_all_and_alloc(g, l);
}

enum alloc_result global_heap_start(struct global_allocator *g)
{
	struct page_request req = {
		.npages = pages_of(MIN_HEAP_SIZE),
		.align = MM_PAGE_SIZE,
		.usage = PAGE_USAGE_HEAP,
	};
	virt_addr_t piece;
	enum alloc_result r = global_get_pages(g, req, &piece);
	unsigned long state;

	if (r != ALLOC_OK)
		return r;
	state = mm_port_lock(&g->heap_lock);
	r = add_piece(g, piece, req.npages);
	mm_port_unlock(&g->heap_lock, state);
	if (r != ALLOC_OK)
		global_put_own_pages(g, piece, req.npages);
	return r;
}

/* --- Shrinking --- */

size_t global_heap_used(struct global_allocator *g)
{
	size_t n = mm_load_relaxed(&g->locked_bytes);

	for (unsigned int i = 0; engine_of(g)->alloc_local && i < MM_MAX_CPUS; i++)
		n += mm_load_relaxed(&slab_cpu_of(g, i)->user_bytes);
	return n;
}

/*
 * Summing up what is in use is put off until as much was freed as matters. Nothing is due with no
 * limit, until the heap grows. Each call counts a page more than it freed, as it is by calls
 * like this one that whole pages become free, and the frees before it were not counted.
 */
bool global_heap_trim_due(struct global_allocator *g, struct global_cpu *c, size_t nbytes)
{
	size_t used, limit, step;

	c->freed_bytes += nbytes + MM_PAGE_SIZE;
	if (c->freed_bytes < c->look_at)
		return false;
	used = global_heap_used(g);
	limit = mm_load_relaxed(&g->trim_below);
	if (used < limit)
		return true;
	step = limit ? max_size((used - limit) / 4, limit / 8 + 1024) : TRIM_STEP;
	c->look_at = c->freed_bytes + min_size(step, TRIM_STEP);
	return false;
}

static bool has_slack(struct global_allocator *g)
{
	size_t total = engine_of(g)->total_bytes(heap_of(g));

	return total > g->kept_bytes && global_heap_used(g) < total / 4;
}

/* Merge a part of what the engine holds back. False: that was the last one. */
static bool settle_part(struct global_allocator *g, unsigned int *part)
{
	unsigned long state = mm_port_lock(&g->heap_lock);

	*part = g->small_limit ? engine_of(g)->settle(heap_of(g), *part) : 0;
	mm_port_unlock(&g->heap_lock, state);
	return *part;
}

/* From now on look again when only half as much is in use. */
static void lower_trim_limit(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->heap_lock);

	set_trim_limit(g, global_heap_used(g) / 2);
	mm_port_unlock(&g->heap_lock, state);
}

/* With `all` what is held back is looked for once more: it was settled, so there is little. */
static bool take_free_piece(struct global_allocator *g, bool all, void **start, size_t *nbytes)
{
	struct byte_alloc *heap = heap_of(g);
	unsigned long state = mm_port_lock(&g->heap_lock);
	bool taken;

	heap->in_parts = !all;
	taken = g->small_limit && (all || has_slack(g)) &&
		heap->ops->take_free(heap, start, nbytes);
	heap->in_parts = true;
	mm_port_unlock(&g->heap_lock, state);
	return taken;
}

static bool heap_is_empty(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	bool empty = !engine_of(g)->total_bytes(heap_of(g));

	mm_port_unlock(&g->heap_lock, state);
	return empty;
}

/* False: there is none. */
static bool give_back_piece(struct global_allocator *g, bool all)
{
	unsigned long state = mm_port_lock(&g->grow_lock);
	void *start;
	size_t nbytes;
	bool taken = take_free_piece(g, all, &start, &nbytes);

	if (taken) {
		global_discard(g, virt_addr(start), nbytes >> MM_PAGE_SHIFT);
		global_put_own_pages(g, virt_addr(start), nbytes >> MM_PAGE_SHIFT);
	} else if (!all && heap_is_empty(g)) {
		(void)global_heap_start(g); /* else the next request does */
	}
	mm_port_unlock(&g->grow_lock, state);
	return taken;
}

static void trim_all(struct global_allocator *g)
{
	unsigned int part = 0;

	while (settle_part(g, &part))
		;
	while (give_back_piece(g, true))
		;
	lower_trim_limit(g);
}

/*
 * A part is merged or, when all of them were, a piece goes back. False: there is none. Is it long
 * since the parts were merged, as other pieces went back meanwhile, then all begins again: only
 * when the last part was merged just now, the next look may wait, though what was freed since the
 * first ones were merged may hide a piece until then. The part is nobody's: several CPUs may make
 * the same one, or leave one out until the next round.
 */
static bool trim_step(struct global_allocator *g)
{
	unsigned int part = (unsigned int)mm_load_relaxed(&g->trim_part);
	bool just_now = part != GLOBAL_SETTLED;

	if (just_now) {
		bool more = settle_part(g, &part);

		mm_store_relaxed(&g->trim_part, more ? part : GLOBAL_SETTLED);
		if (more)
			return true;
	}
	if (give_back_piece(g, false))
		return true;
	mm_store_relaxed(&g->trim_part, 0);
	if (just_now)
		lower_trim_limit(g);
	return false;
}

/*
 * By itself the heap shrinks a step at a time: the frees that follow make the others, as less is
 * in use than the limit until a step finds no piece. What nobody uses any more goes back at once,
 * and as frees have held back more since a part was merged, all parts are merged for that.
 */
void global_heap_trim(struct global_allocator *g, bool all)
{
	if (all) {
		trim_all(g);
		return;
	}
	if (!global_heap_used(g))
		mm_store_relaxed(&g->trim_part, 0);
	while (trim_step(g) && !global_heap_used(g))
		;
}
