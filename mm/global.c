/* SPDX-License-Identifier: MIT */
/*
 * The global allocator: a byte engine fed by a page allocator.
 *
 * Who serves what. Up to GLOBAL_LARGE_SIZE (size and alignment) the engine
 * does; what is larger takes whole pages, and a table of these blocks tells
 * their layout when they are freed. The layout alone decides, so a free goes
 * the way that its allocation went.
 *
 * The usual path. Each engine has a shortest path that calls nobody. Slab's is taken on
 * a pinned CPU without a lock, the others' under the heap lock. All else is in functions
 * that are kept out of line and jumped to, if need be with the lock still held, so the
 * usual path saves no register and keeps nothing for after it. Pointers and layouts pass
 * in registers (global_alloc_bytes); the forms that return results are inline around it.
 * The static instance passes its engine's table as a constant, so that a build which
 * optimises the library as one unit has no indirect call in it, and no call at all.
 * Bytes in use are the difference of two counters of each CPU, and of two more under the
 * heap lock: one addition for an operation, whoever frees what another allocated.
 *
 * Growth. An engine out of memory gets pages: the larger of its present size
 * and the request, rounded up to a power of two; halved, while that much is not
 * to be had, down to what the engine says the request needs. Growing is one
 * CPU's business at a time (grow_lock): the others wait, and then find the new
 * memory, so a lost race is not a failure. The new piece is added and the
 * request served under one hold of the heap lock, so nobody can take it away.
 *
 * Shrinking. A free that leaves fewer bytes in use than a quarter of the heap looks
 * for wholly free pieces, and gives them back while three quarters of the heap are
 * free. The next look is at half of what was in use at this one, until the heap
 * grows, so there are few looks, however long a piece stays in use. As growth at most
 * doubles the heap, there is always a factor of two between giving back and taking
 * again; a small heap gives nothing back, and MIN_HEAP_SIZE is kept. A CPU that frees
 * without the lock sums up what all use when it has freed a quarter of what must be
 * freed before that can matter. Before any request fails, all free pieces go back.
 *
 * Out of pages. A request tries; then this CPU's page cache and the heap's free
 * pieces are given back, and it tries again; then each reclaim hook is asked,
 * and it tries again after each that helped. Another CPU's page cache is its own
 * (it needs no lock because nobody else touches it): it is marked, and emptied
 * by its owner at the next single page it takes or frees.
 *
 * Locks, in this order: grow_lock, heap_lock, the pin of a CPU, page_lock; the heap lock
 * and the page lock are never held together, but in DEBUG builds by a report of a fault
 * that an engine found. An engine may pin inside its locked calls; nobody takes the heap
 * lock while pinned. hook_lock is held alone. Hooks, logging and the facade's own fault
 * reports are outside all of them; the discard hook is called under the grow lock or the
 * page lock.
 *
 * Shortcomings: used_bytes sums per-CPU counters one after the other, so a
 * sum taken while other CPUs are inside a call may miss a half of it.
 */
#include <mm/global.h>

#include "bits.h"
#include "global_debug.h"
#include "relaxed.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE   static __attribute__((noinline))
#define CALLER	      __builtin_return_address(0)

/*
 * Who called. The slow paths end the public functions: where the compiler makes jumps
 * of such calls, they find the caller's return address where it always was, and the
 * usual path need not keep it.
 */
#define PASSED_CALLER (MM_PASS_CALLER ? CALLER : NULL)

/* What is counted under the heap lock, as if that were a CPU. */
#define LOCKED MM_MAX_CPUS

/* A CPU that frees without the lock looks at what all use after so many bytes at most. */
#define TRIM_STEP ((size_t)256 * 1024)

/* A heap as small as this gives nothing back by itself, so that it does not thrash. */
#define KEPT_HEAP_SIZE (4 * MIN_HEAP_SIZE)

static inline bool likely(bool x)
{
	return __builtin_expect(x, 1);
}

static inline bool unlikely(bool x)
{
	return __builtin_expect(x, 0);
}

static inline size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t pages_of(size_t nbytes)
{
	return (nbytes + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
}

/*
 * A valid layout that the engine serves: both at most the limit, which is a
 * power of two, and 0 before the engine has memory.
 */
static inline bool is_small(const struct global_allocator *g, size_t size, size_t align)
{
	return ((size - 1) | (align - 1)) < __atomic_load_n(&g->small_limit, __ATOMIC_RELAXED) &&
	       !(align & (align - 1));
}

static inline bool is_large(struct layout l)
{
	return l.size > GLOBAL_LARGE_SIZE || l.align > GLOBAL_LARGE_SIZE;
}

/* A counter that has one writer at a time; others only read. */
ALWAYS_INLINE void count(size_t *counter, size_t nbytes)
{
	mm_store_relaxed(counter, *counter + nbytes);
}

static struct byte_alloc *heap_of(struct global_allocator *g)
{
	return &g->heap.base;
}

/* An allocator that is all zero is one over the engine of the build. */
static inline const struct byte_ops *engine_of(const struct global_allocator *g)
{
	return g->heap.base.ops ? g->heap.base.ops : &MM_GLOBAL_ENGINE;
}

/* --- Reports --- */

static enum alloc_result result_of(enum mm_fault_kind fault)
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
		.layout = {npages << MM_PAGE_SHIFT, MM_PAGE_SIZE},
		.caller = caller,
	});
	return result_of(kind);
}

/* --- Pages, under their lock --- */

static bool injected_failure(struct global_allocator *g)
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

static enum alloc_result get_pages(struct global_allocator *g, struct page_request req,
				   virt_addr_t *out)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = ALLOC_NO_MEMORY;

	if (!injected_failure(g))
		r = page_alloc_get(&g->pages, req, out);
	mm_port_unlock(&g->page_lock, state);
	return r;
}

/* What callers may give back, and what only the facade itself does. */
#define HEAP_PAGES  (1u << PAGE_USAGE_HEAP)
#define OTHER_PAGES (~HEAP_PAGES)

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

/* Pages that the facade itself took: that they do not go back is a broken page allocator. */
static void put_own_pages(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	enum mm_fault_kind fault = put_pages(g, start, npages, HEAP_PAGES);

	if (unlikely(fault != MM_FAULT_NONE))
		(void)refuse_pages(start, npages, fault, NULL);
}

/* Pages about to go back hold nothing any more. Pre: the grow lock or the page lock is held. */
static void discard(const struct global_allocator *g, virt_addr_t start, size_t npages)
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

OUT_OF_LINE bool refill_one_page(struct global_allocator *g, enum page_usage usage,
				 virt_addr_t *out)
{
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	unsigned long state = mm_port_lock(&g->page_lock);
	bool ok = false;

	if (drain_wanted(g, cpu)) {
		drain_cache(g, cpu);
	} else if (!injected_failure(g)) {
		page_alloc_refill(&g->pages, cpu);
		ok = page_alloc_one_local(&g->pages, usage, cpu, out);
	}
	mm_port_unlock(&g->page_lock, state);
	mm_port_unpin(pinned, cpu);
	return ok;
}

static bool get_one_page(struct global_allocator *g, enum page_usage usage, virt_addr_t *out)
{
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	bool ok = likely(!drain_wanted(g, cpu)) && page_alloc_one_local(&g->pages, usage, cpu, out);

	mm_port_unpin(pinned, cpu);
	return likely(ok) || refill_one_page(g, usage, out);
}

OUT_OF_LINE enum mm_fault_kind drain_one_page(struct global_allocator *g, virt_addr_t page)
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

static enum mm_fault_kind put_one_page(struct global_allocator *g, virt_addr_t page)
{
	enum mm_fault_kind fault = MM_FAULT_NONE;
	unsigned int cpu;
	unsigned long pinned = mm_port_pin(&cpu);
	bool done =
		likely(!drain_wanted(g, cpu)) && page_free_one_local(&g->pages, page, cpu, &fault);

	mm_port_unpin(pinned, cpu);
	if (likely(done) || fault != MM_FAULT_NONE)
		return fault;
	return drain_one_page(g, page);
}

/* --- The heap, under its lock --- */

ALWAYS_INLINE void *heap_alloc(struct global_allocator *g, const struct byte_ops *ops, size_t size,
			       size_t align)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	void *p = ops->alloc(heap_of(g), size, align);

	if (likely(p))
		count(&g->cpu[LOCKED].allocated_bytes, size);
	mm_port_unlock(&g->heap_lock, state);
	return p;
}

static enum alloc_result heap_add(struct global_allocator *g, void *start, size_t nbytes)
{
	struct byte_alloc *heap = heap_of(g);

	if (g->small_limit)
		return heap->ops->add_memory(heap, start, nbytes);
	heap->ops = engine_of(g);
	if (heap->ops->init(heap, start, nbytes) != ALLOC_OK)
		return ALLOC_NO_MEMORY;
	__atomic_store_n(&g->small_limit, GLOBAL_LARGE_SIZE, __ATOMIC_RELEASE);
	return ALLOC_OK;
}

/* From now on look for free pieces below so many bytes in use, or a quarter of the heap. */
static void set_trim_limit(struct global_allocator *g, size_t limit)
{
	size_t total = engine_of(g)->total_bytes(heap_of(g));

	mm_store_relaxed(&g->trim_below, total > KEPT_HEAP_SIZE ? min_size(limit, total / 4) : 0);
}

/* Add a piece and serve a request from it before anyone else can. */
static void *heap_add_and_alloc(struct global_allocator *g, virt_addr_t piece, size_t npages,
				struct layout l)
{
	struct byte_alloc *heap = heap_of(g);
	unsigned long state = mm_port_lock(&g->heap_lock);
	enum alloc_result r = heap_add(g, virt_ptr(piece), npages << MM_PAGE_SHIFT);
	void *p = r == ALLOC_OK ? heap->ops->alloc(heap, l.size, l.align) : NULL;

	if (p)
		count(&g->cpu[LOCKED].allocated_bytes, l.size);
	set_trim_limit(g, SIZE_MAX);
	mm_port_unlock(&g->heap_lock, state);
	if (r != ALLOC_OK)
		put_own_pages(g, piece, npages);
	return p;
}

/* Bytes the block at p holds; 0: no live block. */
static size_t heap_block_size(struct global_allocator *g, const void *p)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	size_t n = g->small_limit ? engine_of(g)->block_size(heap_of(g), p) : 0;

	mm_port_unlock(&g->heap_lock, state);
	return n;
}

/* --- Shrinking --- */

/* Requested bytes of the blocks in the heap. Calls that other CPUs are in may be missed by half. */
static size_t heap_used(const struct global_allocator *g)
{
	size_t n = 0;

	for (unsigned int i = 0; i <= LOCKED; i++)
		n += mm_load_relaxed(&g->cpu[i].allocated_bytes) -
		     mm_load_relaxed(&g->cpu[i].freed_bytes);
	return n;
}

static bool has_slack(struct byte_alloc *heap)
{
	size_t total = heap->ops->total_bytes(heap);

	return total > KEPT_HEAP_SIZE && heap->ops->available_bytes(heap) > total / 4 * 3;
}

/* The least that a heap has. Pre: the grow lock is held. */
static enum alloc_result add_first_piece(struct global_allocator *g)
{
	struct page_request req = {
		.npages = pages_of(MIN_HEAP_SIZE),
		.align = MM_PAGE_SIZE,
		.usage = PAGE_USAGE_HEAP,
	};
	virt_addr_t piece;
	enum alloc_result r = get_pages(g, req, &piece);
	unsigned long state;

	if (r != ALLOC_OK)
		return r;
	state = mm_port_lock(&g->heap_lock);
	r = heap_add(g, virt_ptr(piece), MIN_HEAP_SIZE);
	mm_port_unlock(&g->heap_lock, state);
	if (r != ALLOC_OK)
		put_own_pages(g, piece, req.npages);
	return r;
}

static bool take_free_piece(struct global_allocator *g, bool all, void **start, size_t *nbytes)
{
	struct byte_alloc *heap = heap_of(g);
	unsigned long state = mm_port_lock(&g->heap_lock);
	bool taken = g->small_limit && (all || has_slack(heap)) &&
		     heap->ops->take_free(heap, start, nbytes);

	if (!taken)
		set_trim_limit(g, heap_used(g) / 2);
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

/* Give wholly free pieces of the heap back: those beyond the slack, or all. */
OUT_OF_LINE void trim_heap(struct global_allocator *g, bool all)
{
	unsigned long state = mm_port_lock(&g->grow_lock);
	void *start;
	size_t nbytes;

	while (take_free_piece(g, all, &start, &nbytes)) {
		discard(g, virt_addr(start), nbytes >> MM_PAGE_SHIFT);
		put_own_pages(g, virt_addr(start), nbytes >> MM_PAGE_SHIFT);
	}
	if (!all && heap_is_empty(g))
		(void)add_first_piece(g); /* else the next request does */
	mm_port_unlock(&g->grow_lock, state);
}

void global_allocator_trim(struct global_allocator *g)
{
	unsigned long state;

	trim_heap(g, true);
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

	while (*end)
		end = &(*end)->next;
	hook->next = NULL;
	*end = hook;
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

/* A copy of hook i, as it is called without the lock. */
static bool read_hook(struct global_allocator *g, unsigned int i, struct reclaim_hook *out)
{
	unsigned long state = mm_port_lock(&g->hook_lock);
	const struct reclaim_hook *hook = g->hooks;

	while (hook && i--)
		hook = hook->next;
	if (hook)
		*out = *hook;
	mm_port_unlock(&g->hook_lock, state);
	return hook;
}

/*
 * Ask for memory back after a failure. `stage` starts at 0 and makes every source
 * be asked once, so that the request ends. True: try again.
 */
static bool reclaim(struct global_allocator *g, size_t npages, unsigned int *stage)
{
	struct reclaim_hook hook;

	if (!(*stage)++) {
		global_allocator_trim(g);
		return true;
	}
	while (read_hook(g, *stage - 2, &hook)) {
		if (hook.reclaim(hook.ctx, npages))
			return true;
		(*stage)++;
	}
	return false;
}

/* --- Growth --- */

static size_t pow2_above(size_t n)
{
	return n > 1 ? (size_t)2 << mm_fls(n - 1) : 1;
}

/* Pages for the heap: what it would like for this request, and what it needs. */
static void growth_of(struct global_allocator *g, struct layout l, size_t *want, size_t *need)
{
	struct byte_alloc *heap = heap_of(g);
	unsigned long state = mm_port_lock(&g->heap_lock);
	size_t total = heap->ops->total_bytes(heap);

	*need = pages_of(heap->ops->grow_size(heap, l.size, l.align));
	mm_port_unlock(&g->heap_lock, state);
	*want = max_size(pow2_above(max_size(pages_of(total), pages_of(l.size))), *need);
}

/* Pre: the grow lock is held. */
static void *grow_for(struct global_allocator *g, struct layout l)
{
	struct page_request req = {.align = MM_PAGE_SIZE, .usage = PAGE_USAGE_HEAP};
	virt_addr_t piece;
	size_t need;

	growth_of(g, l, &req.npages, &need);
	while (get_pages(g, req, &piece) != ALLOC_OK) {
		if (req.npages <= need)
			return NULL;
		req.npages = max_size(req.npages / 2, need);
	}
	return heap_add_and_alloc(g, piece, req.npages, l);
}

static void *alloc_grown(struct global_allocator *g, const struct byte_ops *ops, struct layout l)
{
	unsigned long state = mm_port_lock(&g->grow_lock);
	void *p = heap_alloc(g, ops, l.size, l.align);

	if (!p)
		p = grow_for(g, l);
	mm_port_unlock(&g->grow_lock, state);
	return p;
}

/* What no local operation could serve: the heap, then more heap, then what others give up. */
static void *alloc_small(struct global_allocator *g, const struct byte_ops *ops, struct layout l)
{
	unsigned int stage = 0;
	void *p = heap_alloc(g, ops, l.size, l.align);

	while (!p) {
		p = alloc_grown(g, ops, l);
		if (!p && !reclaim(g, pages_of(l.size), &stage))
			return NULL;
	}
	return p;
}

/* --- Large blocks --- */

static enum alloc_result get_large(struct global_allocator *g, struct layout l, const void *caller,
				   virt_addr_t *out)
{
	struct page_request req = {
		.npages = pages_of(l.size),
		.align = max_size(l.align, MM_PAGE_SIZE),
		.usage = PAGE_USAGE_HEAP,
	};
	struct block_record record = {.nbytes = l.size, .align = l.align, .allocated_by = caller};
	enum mm_fault_kind fault = MM_FAULT_NONE;
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = ALLOC_NO_MEMORY;

	if (!injected_failure(g))
		r = page_alloc_get(&g->pages, req, out);
	record.key = r == ALLOC_OK ? out->value : 0;
	if (r == ALLOC_OK &&
	    (injected_failure(g) || !block_table_insert(&g->large, &g->pages, &record)))
		r = page_alloc_put(&g->pages, *out, req.npages, &fault) == ALLOC_OK
			    ? ALLOC_NO_MEMORY
			    : ALLOC_NOT_ALLOCATED;
	if (r == ALLOC_OK)
		g->large_used_bytes += l.size;
	mm_port_unlock(&g->page_lock, state);
	return r;
}

static void *alloc_large(struct global_allocator *g, struct layout l, const void *caller)
{
	unsigned int stage = 0;
	enum alloc_result r;
	virt_addr_t va;

	do
		r = get_large(g, l, caller, &va);
	while (r == ALLOC_NO_MEMORY && reclaim(g, pages_of(l.size), &stage));
	return r == ALLOC_OK ? virt_ptr(va) : NULL;
}

/* Pre: the page lock is held. The fault of naming the large block p with this layout. */
static enum mm_fault_kind find_large(struct global_allocator *g, const void *p, struct layout l,
				     struct block_record **out)
{
	*out = block_table_find(&g->large, (uintptr_t)p);
	if (!*out)
		return MM_FAULT_FOREIGN;
	if ((*out)->nbytes != l.size || (*out)->align != l.align)
		return MM_FAULT_WRONG_LAYOUT;
	return MM_FAULT_NONE;
}

/* Pre: the page lock is held, the pages are those of a large block. */
static enum mm_fault_kind put_large(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	enum mm_fault_kind fault;

	discard(g, start, npages);
	return page_alloc_put_kinds(&g->pages, start, npages, HEAP_PAGES, &fault) == ALLOC_OK
		       ? MM_FAULT_NONE
		       : fault;
}

static enum mm_fault_kind free_large(struct global_allocator *g, void *p, struct layout l)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *record;
	enum mm_fault_kind fault = find_large(g, p, l, &record);

	if (fault == MM_FAULT_NONE)
		fault = put_large(g, virt_addr(p), pages_of(l.size));
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

static bool resize_large(struct global_allocator *g, void *p, struct layout old, size_t new_size)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *record;
	bool done = find_large(g, p, old, &record) == MM_FAULT_NONE &&
		    move_large_end(g, virt_addr(p), pages_of(old.size), pages_of(new_size));

	if (done) {
		record->nbytes = new_size;
		g->large_used_bytes += new_size - old.size;
	}
	mm_port_unlock(&g->page_lock, state);
	return done;
}

static enum mm_fault_kind check_large(struct global_allocator *g, const void *p, struct layout l)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct block_record *record;
	enum mm_fault_kind fault = find_large(g, p, l, &record);

	mm_port_unlock(&g->page_lock, state);
	return fault;
}

/* --- Refused frees --- */

/* Is this an address of a managed page that is free? */
static bool in_free_page(struct global_allocator *g, const void *p)
{
	virt_addr_t page = {mm_align_down((uintptr_t)p, MM_PAGE_SIZE)};
	unsigned long state = mm_port_lock(&g->page_lock);
	struct page_region_info r;
	bool managed = false;

	for (size_t i = 0; !managed && page_alloc_region(&g->pages, i, &r); i++)
		managed = page.value - r.start.value < r.npages << MM_PAGE_SHIFT;
	managed = managed && !page_alloc_is_allocated(&g->pages, page);
	mm_port_unlock(&g->page_lock, state);
	return managed;
}

/* What is foreign to one half of the allocator may be known to the other. */
static enum mm_fault_kind diagnose(struct global_allocator *g, const void *p, struct layout l,
				   enum mm_fault_kind fault)
{
	if (fault != MM_FAULT_FOREIGN || !p)
		return fault;
	if (check_large(g, p, l) == MM_FAULT_WRONG_LAYOUT || heap_block_size(g, p))
		return MM_FAULT_WRONG_LAYOUT;
	return in_free_page(g, p) ? MM_FAULT_DOUBLE_FREE : fault;
}

OUT_OF_LINE enum alloc_result refuse(struct global_allocator *g, const void *p, struct layout l,
				     enum mm_fault_kind kind, const void *caller)
{
	struct mm_fault fault = {
		.kind = diagnose(g, p, l, kind),
		.allocator = engine_of(g)->name,
		.ptr = p,
		.layout = l,
		.caller = caller,
	};

	mm_fault_report(&fault);
	return p ? result_of(fault.kind) : ALLOC_INVALID_PARAM;
}

/* --- Bytes: the fast paths --- */

/*
 * Is this known, at compile time, to be that engine? Then its shortest path is called by
 * name, and is inlined where the library is optimised as one unit.
 */
ALWAYS_INLINE bool is_fixed(const struct byte_ops *ops, const struct byte_ops *engine)
{
	return __builtin_constant_p(ops == engine) && ops == engine;
}

/* Of slab, that which needs no call; NULL: alloc_slow. */
ALWAYS_INLINE void *alloc_pinned(struct global_allocator *g, size_t size, size_t align)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	void *p = byte_slab_alloc_fast(heap_of(g), size, align, cpu);

	if (likely(p))
		count(&g->cpu[cpu].allocated_bytes, size);
	mm_port_unpin(state, cpu);
	return p;
}

static void *alloc_local(struct global_allocator *g, const struct byte_ops *ops, struct layout l)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	void *p = ops->alloc_local(heap_of(g), l.size, l.align, cpu);

	if (p)
		count(&g->cpu[cpu].allocated_bytes, l.size);
	mm_port_unpin(state, cpu);
	return p;
}

/* Any layout, after the shortest path. */
OUT_OF_LINE void *alloc_slow(struct global_allocator *g, const struct byte_ops *ops, size_t size,
			     size_t align, const void *caller)
{
	struct layout l = {size, align};
	void *p = NULL;

	if (!caller)
		caller = CALLER;
	if (!layout_valid(l))
		return NULL;
	if (is_large(l))
		p = alloc_large(g, l, caller);
	else if (is_small(g, l.size, l.align) && ops->alloc_local)
		p = alloc_local(g, ops, l);
	if (!p && is_small(g, l.size, l.align))
		p = alloc_small(g, ops, l);
	if (p)
		global_debug_allocated(g, p, l, caller);
	return p;
}

/* After the shortest path under the lock, which is still held. */
OUT_OF_LINE void *alloc_rest(struct global_allocator *g, const struct byte_ops *ops, size_t size,
			     size_t align, unsigned long state, const void *caller)
{
	void *p = ops->alloc(heap_of(g), size, align);

	if (!caller)
		caller = CALLER;
	if (likely(p))
		count(&g->cpu[LOCKED].allocated_bytes, size);
	mm_port_unlock(&g->heap_lock, state);
	if (unlikely(!p))
		return alloc_slow(g, ops, size, align, caller);
	global_debug_allocated(g, p, (struct layout){size, align}, caller);
	return p;
}

/* Of the engines that are called under the lock, that which needs no call. NULL: ask them. */
ALWAYS_INLINE void *alloc_shortest(struct byte_alloc *heap, const struct byte_ops *ops, size_t size,
				   size_t align)
{
	if (is_fixed(ops, &byte_tlsf_ops))
		return byte_tlsf_alloc_shortest(heap, size, align);
	if (is_fixed(ops, &byte_buddy_ops))
		return byte_buddy_alloc_fast(heap, size, align, 0);
	return NULL;
}

ALWAYS_INLINE void *alloc_locked(struct global_allocator *g, const struct byte_ops *ops,
				 size_t size, size_t align, const void *caller)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	void *p = alloc_shortest(heap_of(g), ops, size, align);

	if (unlikely(!p))
		return alloc_rest(g, ops, size, align, state, caller);
	count(&g->cpu[LOCKED].allocated_bytes, size);
	mm_port_unlock(&g->heap_lock, state);
	global_debug_allocated(g, p, (struct layout){size, align}, caller);
	return p;
}

ALWAYS_INLINE void *alloc_bytes(struct global_allocator *g, const struct byte_ops *ops, size_t size,
				size_t align, const void *caller)
{
	void *p = NULL;

	if (unlikely(!is_small(g, size, align)))
		return alloc_slow(g, ops, size, align, caller);
	if (!ops->alloc_local)
		return alloc_locked(g, ops, size, align, caller);
	if (is_fixed(ops, &byte_slab_ops))
		p = alloc_pinned(g, size, align);
	if (unlikely(!p))
		return alloc_slow(g, ops, size, align, caller);
	global_debug_allocated(g, p, (struct layout){size, align}, caller);
	return p;
}

/*
 * After a free without the lock: is it time to look for free pieces? Summing up what is
 * in use is put off until this CPU has freed a part of what must be freed before that
 * is so; with no limit nothing is due until the heap grows. Pre: c is ours.
 */
static bool trim_due(struct global_allocator *g, struct global_cpu *c)
{
	size_t used, limit, step;

	if (c->freed_bytes < c->look_at)
		return false;
	used = heap_used(g);
	limit = mm_load_relaxed(&g->trim_below);
	if (used < limit)
		return true;
	step = limit ? max_size((used - limit) / 4, limit / 8 + 1024) : TRIM_STEP;
	c->look_at = c->freed_bytes + min_size(step, TRIM_STEP);
	return false;
}

/* Count a free under the lock. True: it is time. For engines that have no other frees. */
ALWAYS_INLINE bool count_locked_free(struct global_allocator *g, size_t nbytes)
{
	struct global_cpu *c = &g->cpu[LOCKED];
	size_t freed = c->freed_bytes + nbytes;

	mm_store_relaxed(&c->freed_bytes, freed);
	return unlikely(c->allocated_bytes - freed < g->trim_below);
}

OUT_OF_LINE enum alloc_result trim_late(struct global_allocator *g)
{
	trim_heap(g, false);
	return ALLOC_OK;
}

static enum mm_fault_kind free_local(struct global_allocator *g, const struct byte_ops *ops,
				     void *p, struct layout l)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	enum mm_fault_kind fault = ops->dealloc_local(heap_of(g), p, l.size, l.align, cpu);
	bool due = false;

	if (fault == MM_FAULT_NONE) {
		count(&g->cpu[cpu].freed_bytes, l.size);
		due = trim_due(g, &g->cpu[cpu]);
	}
	mm_port_unpin(state, cpu);
	if (due)
		trim_heap(g, false);
	return fault;
}

/* Pre: the heap lock is held. *due: trim_late is to be called. */
static enum mm_fault_kind free_locked(struct global_allocator *g, const struct byte_ops *ops,
				      void *p, struct layout l, bool *due)
{
	enum mm_fault_kind fault = ops->dealloc(heap_of(g), p, l.size, l.align);

	if (fault != MM_FAULT_NONE)
		return fault;
	*due = count_locked_free(g, l.size);
	if (ops->dealloc_local)
		*due = trim_due(g, &g->cpu[LOCKED]);
	return MM_FAULT_NONE;
}

static enum mm_fault_kind free_small(struct global_allocator *g, const struct byte_ops *ops,
				     void *p, struct layout l)
{
	enum mm_fault_kind fault = MM_FAULT_KINDS;
	unsigned long state;
	bool due = false;

	if (ops->dealloc_local)
		fault = free_local(g, ops, p, l);
	if (fault != MM_FAULT_KINDS)
		return fault;
	state = mm_port_lock(&g->heap_lock);
	fault = free_locked(g, ops, p, l, &due);
	mm_port_unlock(&g->heap_lock, state);
	if (due)
		(void)trim_late(g);
	return fault;
}

/* The end of every free that is not the usual one. live: undo it in the debug records. */
static enum alloc_result end_free(struct global_allocator *g, const void *p, struct layout l,
				  enum mm_fault_kind fault, bool live, const void *caller)
{
	if (likely(fault == MM_FAULT_NONE))
		return ALLOC_OK;
	if (live)
		global_debug_undo_free(g, p);
	return refuse(g, p, l, fault, caller);
}

/* Any layout. */
OUT_OF_LINE enum alloc_result free_slow(struct global_allocator *g, const struct byte_ops *ops,
					void *p, size_t size, size_t align, bool live,
					const void *caller)
{
	struct layout l = {size, align};
	enum mm_fault_kind fault =
		is_small(g, size, align) ? free_small(g, ops, p, l) : free_large(g, p, l);

	return end_free(g, p, l, fault, live, caller ? caller : CALLER);
}

/* After the shortest path under the lock, which is still held. */
OUT_OF_LINE enum alloc_result free_rest(struct global_allocator *g, const struct byte_ops *ops,
					void *p, size_t size, size_t align, unsigned long state,
					bool live, const void *caller)
{
	struct layout l = {size, align};
	enum mm_fault_kind fault = MM_FAULT_WRONG_LAYOUT;
	bool due = false;

	if (likely(is_small(g, size, align)))
		fault = free_locked(g, ops, p, l, &due);
	mm_port_unlock(&g->heap_lock, state);
	if (due)
		(void)trim_late(g);
	return end_free(g, p, l, fault, live, caller ? caller : CALLER);
}

/* This CPU has freed so much that it looks at what is in use. */
OUT_OF_LINE enum alloc_result look_late(struct global_allocator *g)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	bool due = trim_due(g, &g->cpu[cpu]);

	mm_port_unpin(state, cpu);
	if (due)
		trim_heap(g, false);
	return ALLOC_OK;
}

/* Of slab. */
ALWAYS_INLINE enum alloc_result free_pinned(struct global_allocator *g, const struct byte_ops *ops,
					    void *p, size_t size, size_t align, bool live,
					    const void *caller)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	struct global_cpu *c = &g->cpu[cpu];
	bool done = byte_slab_dealloc_fast(heap_of(g), p, size, align, cpu);
	size_t freed = c->freed_bytes + size;
	bool look = freed >= c->look_at;

	if (likely(done))
		mm_store_relaxed(&c->freed_bytes, freed);
	mm_port_unpin(state, cpu);
	if (unlikely(!done))
		return free_slow(g, ops, p, size, align, live, caller);
	return unlikely(look) ? look_late(g) : ALLOC_OK;
}

/* Has the engine a shortest path for frees under the lock? */
ALWAYS_INLINE bool has_shortest_free(const struct byte_ops *ops)
{
	return is_fixed(ops, &byte_tlsf_ops) || is_fixed(ops, &byte_buddy_ops);
}

/* That path; false: ask the engine. */
ALWAYS_INLINE bool free_shortest(struct byte_alloc *heap, const struct byte_ops *ops, void *p,
				 size_t size, size_t align)
{
	if (is_fixed(ops, &byte_tlsf_ops))
		return byte_tlsf_dealloc_shortest(heap, p, size, align);
	return byte_buddy_dealloc_fast(heap, p, size, align, 0);
}

ALWAYS_INLINE enum alloc_result free_under_lock(struct global_allocator *g,
						const struct byte_ops *ops, void *p, size_t size,
						size_t align, bool live, const void *caller)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	bool due;

	if (unlikely(!free_shortest(heap_of(g), ops, p, size, align)))
		return free_rest(g, ops, p, size, align, state, live, caller);
	due = count_locked_free(g, size);
	mm_port_unlock(&g->heap_lock, state);
	return unlikely(due) ? trim_late(g) : ALLOC_OK;
}

/* Every rare way is a call at the end, so that the usual one keeps nothing for after it. */
ALWAYS_INLINE enum alloc_result free_bytes(struct global_allocator *g, const struct byte_ops *ops,
					   void *p, size_t size, size_t align, const void *caller)
{
	bool live = global_debug_freeing(g, p, caller);

	if (has_shortest_free(ops) && likely(is_small(g, size, align)))
		return free_under_lock(g, ops, p, size, align, live, caller);
	if (is_fixed(ops, &byte_slab_ops) && likely(is_small(g, size, align)))
		return free_pinned(g, ops, p, size, align, live, caller);
	return free_slow(g, ops, p, size, align, live, caller);
}

void *global_allocator_alloc_bytes(struct global_allocator *g, size_t size, size_t align)
{
	return alloc_bytes(g, engine_of(g), size, align, PASSED_CALLER);
}

enum alloc_result global_allocator_dealloc_bytes(struct global_allocator *g, void *p, size_t size,
						 size_t align)
{
	return free_bytes(g, engine_of(g), p, size, align, PASSED_CALLER);
}

/* --- Bytes: the other forms --- */

static enum alloc_result alloc_zeroed(struct global_allocator *g, struct layout l, void **out,
				      const void *caller)
{
	void *p = alloc_bytes(g, engine_of(g), l.size, l.align, caller);

	if (!p)
		return alloc_failure(l);
	*out = __builtin_memset(p, 0, l.size);
	return ALLOC_OK;
}

enum alloc_result global_allocator_alloc_zeroed(struct global_allocator *g, struct layout l,
						void **out)
{
	return alloc_zeroed(g, l, out, CALLER);
}

static alloc_error_hook error_hook;

alloc_error_hook set_alloc_error_hook(alloc_error_hook hook)
{
	return __atomic_exchange_n(&error_hook, hook, __ATOMIC_ACQ_REL);
}

void handle_alloc_error(struct layout l)
{
	alloc_error_hook hook = __atomic_load_n(&error_hook, __ATOMIC_ACQUIRE);

	if (hook)
		hook(l);
	mm_port_panic("allocation failed: size %zu, align %zu", l.size, l.align);
}

static bool resize_small(struct global_allocator *g, void *p, struct layout old, size_t new_size)
{
	struct byte_alloc *heap = heap_of(g);
	unsigned long state = mm_port_lock(&g->heap_lock);
	bool done = heap->ops->resize(heap, p, old.size, old.align, new_size);

	if (done)
		count(&g->cpu[LOCKED].allocated_bytes, new_size - old.size);
	mm_port_unlock(&g->heap_lock, state);
	return done;
}

/* May as many bytes as the layout says be read from p? */
static enum mm_fault_kind check_block(struct global_allocator *g, const void *p, struct layout l)
{
	size_t held;

	if (!is_small(g, l.size, l.align))
		return check_large(g, p, l);
	held = heap_block_size(g, p);
	if (!held)
		return MM_FAULT_FOREIGN;
	return held < l.size ? MM_FAULT_WRONG_LAYOUT : MM_FAULT_NONE;
}

static enum alloc_result move_block(struct global_allocator *g, void *p, struct layout old,
				    struct layout new, void **out, const void *caller)
{
	enum mm_fault_kind fault = check_block(g, p, old);
	enum alloc_result r;
	void *q;

	if (fault != MM_FAULT_NONE)
		return refuse(g, p, old, fault, caller);
	q = alloc_bytes(g, engine_of(g), new.size, new.align, caller);
	if (!q)
		return ALLOC_NO_MEMORY;
	__builtin_memcpy(q, p, min_size(old.size, new.size));
	r = free_bytes(g, engine_of(g), p, old.size, old.align, caller);
	if (r != ALLOC_OK) {
		(void)free_bytes(g, engine_of(g), q, new.size, new.align, caller);
		return r;
	}
	*out = q;
	return ALLOC_OK;
}

static enum alloc_result realloc_bytes(struct global_allocator *g, void *p, struct layout old,
				       size_t new_size, void **out, const void *caller)
{
	struct layout new = {new_size, old.align};
	bool done = false;

	if (!layout_valid(new))
		return ALLOC_INVALID_PARAM;
	if (!p || !layout_valid(old))
		return refuse(g, p, old, p ? MM_FAULT_WRONG_LAYOUT : MM_FAULT_FOREIGN, caller);
	if (is_small(g, old.size, old.align) && is_small(g, new.size, new.align))
		done = resize_small(g, p, old, new_size);
	else if (is_large(old) && is_large(new))
		done = resize_large(g, p, old, new_size);
	if (!done)
		return move_block(g, p, old, new, out, caller);
	global_debug_resized(g, p, new_size);
	*out = p;
	return ALLOC_OK;
}

enum alloc_result global_allocator_realloc(struct global_allocator *g, void *p, struct layout old,
					   size_t new_size, void **out)
{
	return realloc_bytes(g, p, old, new_size, out, CALLER);
}

/* --- Pages --- */

static bool request_valid(struct page_request req)
{
	return req.npages && req.npages <= (size_t)PTRDIFF_MAX >> MM_PAGE_SHIFT &&
	       mm_is_pow2(req.align) && req.align >= MM_PAGE_SIZE &&
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
	unsigned int stage = 0;
	enum alloc_result r;

	if (!request_valid(req))
		return ALLOC_INVALID_PARAM;
	do
		r = get_pages(g, req, out);
	while (r == ALLOC_NO_MEMORY && reclaim(g, req.npages, &stage));
	return r;
}

enum alloc_result global_allocator_request_pages(struct global_allocator *g,
						 struct page_request req, virt_addr_t *out)
{
	if (any_one_page(req) && request_valid(req) && get_one_page(g, req.usage, out))
		return ALLOC_OK;
	return request_pages_slow(g, req, out);
}

enum alloc_result global_allocator_alloc_pages(struct global_allocator *g, size_t npages,
					       size_t align, virt_addr_t *out)
{
	struct page_request req = {
		.npages = npages,
		.align = align,
		.usage = PAGE_USAGE_KERNEL,
	};

	if (any_one_page(req) && likely(get_one_page(g, PAGE_USAGE_KERNEL, out)))
		return ALLOC_OK;
	return request_pages_slow(g, req, out);
}

static enum alloc_result get_pages_at(struct global_allocator *g, virt_addr_t start, size_t npages)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = ALLOC_NO_MEMORY;

	if (!injected_failure(g))
		r = page_alloc_get_at(&g->pages, start, npages, PAGE_USAGE_KERNEL);
	mm_port_unlock(&g->page_lock, state);
	return r;
}

enum alloc_result global_allocator_alloc_pages_at(struct global_allocator *g, virt_addr_t start,
						  size_t npages, size_t align)
{
	struct page_request req = {.npages = npages, .align = align};
	unsigned int stage = 0;
	enum alloc_result r;

	if (!request_valid(req) || start.value & (align - 1) ||
	    start.value + (npages << MM_PAGE_SHIFT) < start.value)
		return ALLOC_INVALID_PARAM;
	do
		r = get_pages_at(g, start, npages);
	while (r == ALLOC_NO_MEMORY && reclaim(g, npages, &stage));
	return r;
}

enum alloc_result global_allocator_dealloc_pages(struct global_allocator *g, virt_addr_t start,
						 size_t npages)
{
	enum mm_fault_kind fault;

	if (unlikely(!npages || npages > (size_t)PTRDIFF_MAX >> MM_PAGE_SHIFT))
		return refuse_pages(start, 0, MM_FAULT_WRONG_LAYOUT, CALLER);
	fault = npages == 1 ? put_one_page(g, start) : put_pages(g, start, npages, OTHER_PAGES);
	if (likely(fault == MM_FAULT_NONE))
		return ALLOC_OK;
	return refuse_pages(start, npages, fault, CALLER);
}

enum alloc_result global_allocator_dealloc_heap_pages(struct global_allocator *g, virt_addr_t start,
						      size_t npages)
{
	enum mm_fault_kind fault = put_pages(g, start, npages, HEAP_PAGES);

	return likely(fault == MM_FAULT_NONE) ? ALLOC_OK
					      : refuse_pages(start, npages, fault, CALLER);
}

/* --- Figures --- */

const char *global_allocator_name(const struct global_allocator *g)
{
	return engine_of(g)->name;
}

size_t global_allocator_used_bytes(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	size_t n = heap_used(g);

	mm_port_unlock(&g->heap_lock, state);
	state = mm_port_lock(&g->page_lock);
	n += g->large_used_bytes;
	mm_port_unlock(&g->page_lock, state);
	return n;
}

size_t global_allocator_available_bytes(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	size_t n = g->small_limit ? engine_of(g)->available_bytes(heap_of(g)) : 0;

	mm_port_unlock(&g->heap_lock, state);
	return n;
}

size_t global_allocator_used_pages(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	size_t n = page_alloc_used(&g->pages);

	mm_port_unlock(&g->page_lock, state);
	return n;
}

size_t global_allocator_available_pages(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	size_t n = page_alloc_available(&g->pages);

	mm_port_unlock(&g->page_lock, state);
	return n;
}

size_t global_allocator_usage_pages(struct global_allocator *g, enum page_usage usage)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	size_t n = page_alloc_usage(&g->pages, usage);

	mm_port_unlock(&g->page_lock, state);
	return n;
}

bool global_allocator_region_of(struct global_allocator *g, virt_addr_t va,
				struct page_region_info *out)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	struct page_region_info r;
	bool found = false;

	for (size_t i = 0; !found && page_alloc_region(&g->pages, i, &r); i++)
		found = va.value - r.start.value < r.npages << MM_PAGE_SHIFT;
	mm_port_unlock(&g->page_lock, state);
	if (found)
		*out = r;
	return found;
}

const void *global_allocator_check(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	const void *broken = g->small_limit ? engine_of(g)->check(heap_of(g)) : NULL;

	mm_port_unlock(&g->heap_lock, state);
	if (broken)
		return broken;
	state = mm_port_lock(&g->page_lock);
	broken = page_alloc_check(&g->pages);
	mm_port_unlock(&g->page_lock, state);
	return broken;
}

/* --- Memory comes --- */

static enum alloc_result add_region(struct global_allocator *g, virt_addr_t start, size_t nbytes)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = page_alloc_add_region(&g->pages, start, nbytes);

	mm_port_unlock(&g->page_lock, state);
	return r;
}

/* Undo add_region while no page of the region is in use. */
static enum alloc_result remove_region(struct global_allocator *g, virt_addr_t start)
{
	unsigned long state = mm_port_lock(&g->page_lock);
	enum alloc_result r = page_alloc_remove_region(&g->pages, start);

	mm_port_unlock(&g->page_lock, state);
	return r;
}

static enum alloc_result init_memory(struct global_allocator *g, virt_addr_t start, size_t nbytes)
{
	enum alloc_result r;

	if (page_alloc_total(&g->pages))
		return ALLOC_INVALID_PARAM;
	r = add_region(g, start, nbytes);
	if (r != ALLOC_OK)
		return r;
	r = add_first_piece(g);
	if (r == ALLOC_OK)
		return ALLOC_OK;
	return remove_region(g, start) == ALLOC_OK ? r : ALLOC_MEMORY_OVERLAP;
}

enum alloc_result global_allocator_init(struct global_allocator *g, virt_addr_t start,
					size_t nbytes)
{
	enum alloc_result r;
	unsigned long state;

	if (nbytes <= MIN_HEAP_SIZE || start.value + nbytes < start.value)
		return ALLOC_INVALID_PARAM;
	global_debug_watch(g);
	state = mm_port_lock(&g->grow_lock);
	r = init_memory(g, start, nbytes);
	mm_port_unlock(&g->grow_lock, state);
	return r;
}

enum alloc_result global_allocator_add_memory(struct global_allocator *g, virt_addr_t start,
					      size_t nbytes)
{
	return add_region(g, start, nbytes);
}

/* --- The static instance --- */

/* All zero, so that an image does not carry it. */
static struct global_allocator instance;

struct global_allocator *global_allocator(void)
{
	return &instance;
}

enum alloc_result global_init(virt_addr_t start, size_t nbytes)
{
	enum alloc_result r = global_allocator_init(&instance, start, nbytes);

	if (r == ALLOC_OK)
		mm_port_log(MM_LOG_INFO, "global allocator: %s, %zu KiB at %p",
			    global_allocator_name(&instance), nbytes / 1024, virt_ptr(start));
	else
		mm_port_log(MM_LOG_ERROR, "global allocator: cannot use %zu bytes at %p (error %d)",
			    nbytes, virt_ptr(start), (int)r);
	return r;
}

enum alloc_result global_add_memory(virt_addr_t start, size_t nbytes)
{
	return global_allocator_add_memory(&instance, start, nbytes);
}

/*
 * In a build that optimises the library as one unit, the engine becomes a part of
 * these two. They reach everything from one address, which is shorter than an
 * address for each member.
 */
ALWAYS_INLINE struct global_allocator *instance_in_register(void)
{
	struct global_allocator *g = &instance;

	__asm__("" : "+r"(g));
	return g;
}

__attribute__((flatten)) void *global_alloc_bytes(size_t size, size_t align)
{
	return alloc_bytes(instance_in_register(), &MM_GLOBAL_ENGINE, size, align, PASSED_CALLER);
}

__attribute__((flatten)) enum alloc_result global_dealloc_bytes(void *p, size_t size, size_t align)
{
	return free_bytes(instance_in_register(), &MM_GLOBAL_ENGINE, p, size, align, PASSED_CALLER);
}

enum alloc_result global_alloc_zeroed(struct layout l, void **out)
{
	return alloc_zeroed(&instance, l, out, CALLER);
}

enum alloc_result global_realloc(void *p, struct layout old, size_t new_size, void **out)
{
	return realloc_bytes(&instance, p, old, new_size, out, CALLER);
}
