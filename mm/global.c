/* SPDX-License-Identifier: MIT */
/*
 * The global allocator: a byte engine fed by a page allocator.
 *
 * Who serves what. Up to GLOBAL_LARGE_SIZE (size and alignment) the engine
 * does; what is larger takes whole pages, and a table of these blocks tells
 * their layout when they are freed. The layout alone decides, so a free goes
 * the way that its allocation went. This file is the bytes: who serves, how, and what is
 * refused. global_heap.c makes the heap larger and smaller, global_large.c has the large
 * blocks, global_pages.c the pages and what is done when there are none.
 *
 * The usual path. Each engine has a shortest path that calls nobody. Slab's is taken on
 * a pinned CPU without a lock, the others' under the heap lock. All else is in functions
 * that are kept out of line and jumped to, if need be with the lock still held. They take
 * the arguments of the public call first and in its order, so the usual path saves no
 * register, moves none and keeps nothing for after it. Size and alignment are checked
 * by one comparison with a limit, which is 0 before there is memory, and one
 * that the alignment is a power of two. What is touched lies near the start of the
 * allocator, the lock at its very start, so that one address reaches it all. Pointers and layouts
 * pass in registers (global_alloc_bytes); the forms that return results are inline around it.
 * The static instance passes its engine's table as a constant, so that a build which
 * optimises the library as one unit has no indirect call in it, and no call at all. Other
 * instances, and the calls that are rarer, take the way that is open to any layout.
 * Bytes in use are the sum of one number for each CPU, and one more under the heap
 * lock: one addition for an operation, whoever frees what another allocated.
 *
 * Growth. An engine out of memory gets pages: the largest of its present size, the request and
 * a 64th of the free pages (up to 8 MiB), rounded to a power of two; halved, while that much
 * is not to be had, down to what the engine says the request needs. So the heap is in few pieces,
 * of which the last has most: engines find a block's record at once in the piece that they
 * looked into last, but search among many. Growing is one
 * CPU's business at a time (grow_lock): the others wait, and then find the new
 * memory, so a lost race is not a failure. The new piece is added and the
 * request served under one hold of the heap lock, so nobody can take it away.
 *
 * What engines hold back. They merge late, in parts (byte_ops.settle), each under a hold of the
 * lock of its own, so that neither growing nor shrinking keeps interrupts off for long. A
 * request that finds nothing has one part merged, then the heap grows; only when there are no
 * pages are all parts merged, and at last, under one hold, what was freed meanwhile.
 *
 * Shrinking. A free that leaves fewer bytes in use than a quarter of the heap makes a step: a
 * part is merged, or, when all are, one wholly free piece goes back. So do the frees that follow,
 * until no piece is found although all parts were merged just before. Then the next step is at half
 * of what is in use, or when the heap has grown, so there are few looks, however long a piece stays
 * in use. When nothing is in use all steps are made at once, from the first part on. As growth at
 * most doubles the heap, there is always a factor of two between giving back and taking again; a
 * heap as small as 128 KiB and the first step gives nothing back, and MIN_HEAP_SIZE is kept. Under
 * the lock the sum of what is in use is at hand. Where CPUs free without it, their usual frees make
 * no page free and do not look; the others sum up what all use when they have freed a quarter of
 * what must be freed before that can matter. Before any request fails, all free pieces go back.
 *
 * Out of pages. A request tries, which takes back what any CPU has parked; then the heap's free
 * pieces are given back, and it tries again; then each reclaim hook is asked, and it tries again
 * after each that helped. A trim empties the page cache of this CPU and marks the others, whose
 * owners empty them with the next single page that they take or free.
 *
 * Locks, in this order: grow_lock, heap_lock, the pin of a CPU, page_lock; the heap lock
 * and the page lock are never held together, but in DEBUG builds by a report of a fault
 * that an engine found. An engine may pin inside its locked calls; nobody takes the heap
 * lock while pinned. hook_lock is held alone, or under the lock of a hook's owner. Hooks, logging
 * and the facade's own fault reports are outside all of them; the discard hook is called under the
 * grow lock or the page lock.
 *
 * Shortcomings: used_bytes sums per-CPU numbers one after the other, so a
 * sum taken while other CPUs are inside a call may miss a half of it. Over slab, a
 * CPU whose frees all stay on the shortest path does not look, and what a CPU without work has
 * freed, or was freed for it, stays with it: so pieces may be kept until others free more, or,
 * when nothing is in use, until the heap grows or is trimmed.
 */
#include "bits.h"
#include "global_impl.h"

#define CALLER __builtin_return_address(0)

/*
 * Who called. The slow paths end the public functions: where the compiler makes jumps
 * of such calls, they find the caller's return address where it always was, and the
 * usual path need not keep it.
 */
#define PASSED_CALLER (MM_PASS_CALLER || MM_DEBUG ? CALLER : NULL)

/* A valid layout that the engine serves: both at most a limit, which is a power of two. */
ALWAYS_INLINE bool is_within(const size_t *limit, size_t size, size_t align)
{
	return ((size - 1) | (align - 1)) < mm_load_relaxed(limit) && !(align & (align - 1));
}

/* False before the engine has memory. */
static bool is_small(const struct global_allocator *g, struct layout l)
{
	return is_within(&g->small_limit, l.size, l.align);
}

static bool is_large(struct layout l)
{
	return l.size > GLOBAL_LARGE_SIZE || l.align > GLOBAL_LARGE_SIZE;
}

/* --- Refused frees --- */

/* Bytes the block of the engine at p holds; 0: no live block. */
static size_t block_size(struct global_allocator *g, const void *p)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	size_t n = g->small_limit ? engine_of(g)->block_size(heap_of(g), p) : 0;

	mm_port_unlock(&g->heap_lock, state);
	return n;
}

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
	if (global_large_check(g, p, l) == MM_FAULT_WRONG_LAYOUT || block_size(g, p))
		return MM_FAULT_WRONG_LAYOUT;
	return in_free_page(g, p) ? MM_FAULT_DOUBLE_FREE : fault;
}

static enum alloc_result refuse(struct global_allocator *g, const void *p, struct layout l,
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
	return p ? global_result_of(fault.kind) : ALLOC_INVALID_PARAM;
}

/* --- Bytes: any layout, nothing held --- */

/* Of the CPU's own; NULL: not so. `state` is of the pin, which ends. */
static void *alloc_unpin(struct global_allocator *g, struct layout l, unsigned long state,
			 unsigned int cpu)
{
	void *p = engine_of(g)->alloc_local(heap_of(g), l.size, l.align, cpu);

	if (likely(p))
		count(&slab_cpu_of(g, cpu)->user_bytes, l.size);
	mm_port_unpin(state, cpu);
	return p;
}

/* Without the lock, if the engine can; NULL: not so. */
static void *alloc_local(struct global_allocator *g, struct layout l)
{
	unsigned int cpu;
	unsigned long state;

	if (!engine_of(g)->alloc_local)
		return NULL;
	state = mm_port_pin(&cpu);
	return alloc_unpin(g, l, state, cpu);
}

/* The heap as it is, then more heap, then what others give up. */
static void *alloc_small(struct global_allocator *g, struct layout l)
{
	struct reclaim_stage stage = {0};
	void *p = alloc_local(g, l);

	if (!p)
		p = global_heap_alloc_unlock(g, l.size, l.align, mm_port_lock(&g->heap_lock));
	while (!p) {
		p = global_heap_grow(g, l);
		if (!p && !global_reclaim(g, pages_of(l.size), &stage))
			return NULL;
	}
	return p;
}

OUT_OF_LINE void *alloc_slow(size_t size, size_t align, struct global_allocator *g,
			     const void *caller)
{
	struct layout l = {size, align};
	void *p = NULL;

	if (!caller)
		caller = CALLER;
	if (!layout_valid(l))
		return NULL;
	if (is_large(l))
		p = global_large_alloc(g, l, caller);
	else if (is_small(g, l))
		p = alloc_small(g, l);
	if (p)
		global_debug_allocated(g, p, l, caller);
	return p;
}

/* MM_FAULT_KINDS: only under the lock. `state` is of the pin, which ends. */
static enum mm_fault_kind free_unpin(struct global_allocator *g, void *p, struct layout l,
				     unsigned long state, unsigned int cpu)
{
	enum mm_fault_kind fault = engine_of(g)->dealloc_local(heap_of(g), p, l.size, l.align, cpu);
	bool due = false;

	if (fault == MM_FAULT_NONE) {
		count(&slab_cpu_of(g, cpu)->user_bytes, -l.size);
		due = global_heap_trim_due(g, &g->cpu[cpu], l.size);
	}
	mm_port_unpin(state, cpu);
	if (due)
		global_heap_trim(g, false);
	return fault;
}

/* The same; nothing is pinned. */
static enum mm_fault_kind free_local(struct global_allocator *g, void *p, struct layout l)
{
	unsigned int cpu;
	unsigned long state;

	if (!engine_of(g)->dealloc_local)
		return MM_FAULT_KINDS;
	state = mm_port_pin(&cpu);
	return free_unpin(g, p, l, state, cpu);
}

/* Count a free under the lock. True: it is time to trim. For engines that have no other frees. */
ALWAYS_INLINE bool count_locked_free(struct global_allocator *g, size_t nbytes)
{
	size_t used = g->locked_bytes - nbytes;

	mm_store_relaxed(&g->locked_bytes, used);
	return unlikely(used < g->trim_below);
}

/* `state` is of the heap lock, which is given up. */
ALWAYS_INLINE enum mm_fault_kind free_unlock(struct global_allocator *g, void *p, struct layout l,
					     unsigned long state)
{
	const struct byte_ops *ops = engine_of(g);
	enum mm_fault_kind fault = ops->dealloc(heap_of(g), p, l.size, l.align);
	bool due = false;

	if (fault == MM_FAULT_NONE) {
		due = count_locked_free(g, l.size);
		if (ops->dealloc_local)
			due = global_heap_trim_due(g, &g->cpu[LOCKED], l.size);
	}
	mm_port_unlock(&g->heap_lock, state);
	if (due)
		global_heap_trim(g, false);
	return fault;
}

static enum mm_fault_kind free_small(struct global_allocator *g, void *p, struct layout l)
{
	enum mm_fault_kind fault = free_local(g, p, l);

	return fault == MM_FAULT_KINDS ? free_unlock(g, p, l, mm_port_lock(&g->heap_lock)) : fault;
}

/* live: undo it in the debug records, if the free was refused. */
static enum alloc_result end_free(struct global_allocator *g, const void *p, struct layout l,
				  enum mm_fault_kind fault, bool live, const void *caller)
{
	if (likely(fault == MM_FAULT_NONE))
		return ALLOC_OK;
	if (live)
		global_debug_undo_free(g, p);
	return refuse(g, p, l, fault, caller);
}

OUT_OF_LINE enum alloc_result free_slow(void *p, size_t size, size_t align,
					struct global_allocator *g, bool live, const void *caller)
{
	struct layout l = {size, align};
	enum mm_fault_kind fault =
		is_small(g, l) ? free_small(g, p, l) : global_large_free(g, p, l);

	return end_free(g, p, l, fault, live, caller ? caller : CALLER);
}

static enum alloc_result free_any(struct global_allocator *g, void *p, struct layout l,
				  const void *caller)
{
	return free_slow(p, l.size, l.align, g, global_debug_freeing(g, p, caller), caller);
}

/* --- Bytes: the shortest paths --- */

/*
 * Is this known, at compile time, to be that engine? Then its shortest path is called by
 * name, and is inlined where the library is optimised as one unit.
 */
ALWAYS_INLINE bool is_fixed(const struct byte_ops *ops, const struct byte_ops *engine)
{
	return __builtin_constant_p(ops == engine) && ops == engine;
}

/* The engines that are called under the lock. */
ALWAYS_INLINE bool is_locked(const struct byte_ops *ops)
{
	return is_fixed(ops, &byte_tlsf_ops) || is_fixed(ops, &byte_buddy_ops);
}

/* What was tried before the general way gave this; NULL: nothing. */
ALWAYS_INLINE void *end_alloc(struct global_allocator *g, void *p, size_t size, size_t align,
			      const void *caller)
{
	if (unlikely(!p))
		return alloc_slow(size, align, g, caller);
	global_debug_allocated(g, p, (struct layout){size, align}, caller);
	return p;
}

/*
 * After the shortest path on a pinned CPU, which still is. Its number is as wide as a register,
 * else the shortest path widens it.
 */
OUT_OF_LINE void *alloc_pinned_rest(size_t size, size_t align, struct global_allocator *g,
				    unsigned long state, size_t cpu, const void *caller)
{
	void *p = alloc_unpin(g, (struct layout){size, align}, state, (unsigned int)cpu);

	return end_alloc(g, p, size, align, caller ? caller : CALLER);
}

/* Of slab, what needs no lock. */
ALWAYS_INLINE void *alloc_pinned(struct global_allocator *g, size_t size, size_t align,
				 const void *caller)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	struct slab_cpu *c = slab_cpu_of(g, cpu);
	void *p;

	if (((size - 1) | (align - 1)) >= BYTE_SLAB_MAX)
		__builtin_unreachable(); /* fast_limit is as small */
	p = byte_slab_alloc_shortest(heap_of(g), c, size, align);
	if (unlikely(!p))
		return alloc_pinned_rest(size, align, g, state, cpu, caller);
	count(&c->user_bytes, size);
	mm_port_unpin(state, cpu);
	global_debug_allocated(g, p, (struct layout){size, align}, caller);
	return p;
}

/* After the shortest path under the lock, which is still held. */
OUT_OF_LINE void *alloc_rest(size_t size, size_t align, struct global_allocator *g,
			     const struct byte_ops *ops, unsigned long state, const void *caller)
{
	void *p = ops == &byte_tlsf_ops ? byte_tlsf_alloc_rest(heap_of(g), size, align)
					: ops->alloc(heap_of(g), size, align);

	global_heap_unlock(g, p, size, state);
	return end_alloc(g, p, size, align, caller ? caller : CALLER);
}

ALWAYS_INLINE void *alloc_locked(struct global_allocator *g, const struct byte_ops *ops,
				 size_t size, size_t align, const void *caller)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	void *p = is_fixed(ops, &byte_tlsf_ops)
			  ? byte_tlsf_alloc_shortest(heap_of(g), size, align)
			  : byte_buddy_alloc_shortest(heap_of(g), size, align);

	if (unlikely(!p))
		return alloc_rest(size, align, g, ops, state, caller);
	count(&g->locked_bytes, size);
	mm_port_unlock(&g->heap_lock, state);
	global_debug_allocated(g, p, (struct layout){size, align}, caller);
	return p;
}

/* Every rare way is a call at the end, so that the usual one keeps nothing for after it. */
ALWAYS_INLINE void *alloc_bytes(struct global_allocator *g, const struct byte_ops *ops, size_t size,
				size_t align, const void *caller)
{
	bool fast = likely(is_within(&g->fast_limit, size, align));

	if (fast && is_locked(ops))
		return alloc_locked(g, ops, size, align, caller);
	if (fast && is_fixed(ops, &byte_slab_ops))
		return alloc_pinned(g, size, align, caller);
	return alloc_slow(size, align, g, caller);
}

/* After the shortest path on a pinned CPU, which still is. */
OUT_OF_LINE enum alloc_result free_pinned_rest(void *p, size_t size, size_t align,
					       struct global_allocator *g, unsigned long state,
					       size_t cpu, bool live, const void *caller)
{
	struct layout l = {size, align};
	enum mm_fault_kind fault = free_unpin(g, p, l, state, (unsigned int)cpu);

	if (fault == MM_FAULT_KINDS)
		fault = free_unlock(g, p, l, mm_port_lock(&g->heap_lock));
	return end_free(g, p, l, fault, live, caller ? caller : CALLER);
}

OUT_OF_LINE enum alloc_result trim_late(struct global_allocator *g)
{
	global_heap_trim(g, false);
	return ALLOC_OK;
}

/* A free on the shortest path was more than one object, and may have made a page free. */
OUT_OF_LINE enum alloc_result free_event(struct slab *event, size_t size,
					 struct global_allocator *g, unsigned long state,
					 size_t number)
{
	unsigned int cpu = (unsigned int)number;
	struct slab_cpu *c = slab_cpu_of(g, cpu);
	bool due;

	byte_slab_event(heap_of(g), c, event);
	count(&c->user_bytes, -size);
	due = global_heap_trim_due(g, &g->cpu[cpu], size);
	mm_port_unpin(state, cpu);
	return unlikely(due) ? trim_late(g) : ALLOC_OK;
}

/* Of slab. It is by other frees that whole pages become free, so nobody looks here. */
ALWAYS_INLINE enum alloc_result free_pinned(struct global_allocator *g, void *p, size_t size,
					    size_t align, bool live, const void *caller)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	struct slab_cpu *c = slab_cpu_of(g, cpu);
	struct slab *event;

	if (unlikely(!byte_slab_dealloc_shortest(heap_of(g), c, p, size, align, &event)))
		return free_pinned_rest(p, size, align, g, state, cpu, live, caller);
	if (unlikely(event))
		return free_event(event, size, g, state, cpu);
	count(&c->user_bytes, -size);
	mm_port_unpin(state, cpu);
	return ALLOC_OK;
}

/* A free on TLSF's shortest path took the place of another one, which is merged now. */
OUT_OF_LINE enum alloc_result free_and_release(uintptr_t start, size_t nbytes, size_t size,
					       struct global_allocator *g, unsigned long state)
{
	bool due = count_locked_free(g, size);

	byte_tlsf_release(heap_of(g), start, nbytes);
	mm_port_unlock(&g->heap_lock, state);
	return unlikely(due) ? trim_late(g) : ALLOC_OK;
}

/* After the shortest path under the lock, which is still held. */
OUT_OF_LINE enum alloc_result free_rest(void *p, size_t size, size_t align,
					struct global_allocator *g, unsigned long state, bool live,
					const void *caller)
{
	struct layout l = {size, align};
	enum mm_fault_kind fault = free_unlock(g, p, l, state);

	return end_free(g, p, l, fault, live, caller ? caller : CALLER);
}

ALWAYS_INLINE enum alloc_result free_locked(struct global_allocator *g, const struct byte_ops *ops,
					    void *p, size_t size, size_t align, bool live,
					    const void *caller)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	struct tlsf_kept was = {0, 0};
	bool done = is_fixed(ops, &byte_tlsf_ops)
			    ? byte_tlsf_dealloc_shortest(heap_of(g), p, size, align, &was)
			    : byte_buddy_dealloc_shortest(heap_of(g), p, size, align);
	bool due;

	if (unlikely(!done))
		return free_rest(p, size, align, g, state, live, caller);
	if (unlikely(was.nbytes))
		return free_and_release(was.start, was.nbytes, size, g, state);
	due = count_locked_free(g, size);
	mm_port_unlock(&g->heap_lock, state);
	return unlikely(due) ? trim_late(g) : ALLOC_OK;
}

ALWAYS_INLINE enum alloc_result free_bytes(struct global_allocator *g, const struct byte_ops *ops,
					   void *p, size_t size, size_t align, const void *caller)
{
	bool live = global_debug_freeing(g, p, caller);
	bool fast = likely(is_within(&g->fast_limit, size, align));

	if (fast && is_locked(ops))
		return free_locked(g, ops, p, size, align, live, caller);
	if (fast && is_fixed(ops, &byte_slab_ops))
		return free_pinned(g, p, size, align, live, caller);
	return free_slow(p, size, align, g, live, caller);
}

void *global_allocator_alloc_bytes(struct global_allocator *g, size_t size, size_t align)
{
	return alloc_slow(size, align, g, PASSED_CALLER);
}

enum alloc_result global_allocator_dealloc_bytes(struct global_allocator *g, void *p, size_t size,
						 size_t align)
{
	return free_any(g, p, (struct layout){size, align}, CALLER);
}

/* --- Bytes: the other forms --- */

static enum alloc_result alloc_zeroed(struct global_allocator *g, struct layout l, void **out,
				      const void *caller)
{
	void *p = alloc_slow(l.size, l.align, g, caller);

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
		count(&g->locked_bytes, new_size - old.size);
	mm_port_unlock(&g->heap_lock, state);
	return done;
}

/* May as many bytes as the layout says be read from p? */
static enum mm_fault_kind check_block(struct global_allocator *g, const void *p, struct layout l)
{
	size_t held;

	if (!is_small(g, l))
		return global_large_check(g, p, l);
	held = block_size(g, p);
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
	q = alloc_slow(new.size, new.align, g, caller);
	if (!q)
		return ALLOC_NO_MEMORY;
	__builtin_memcpy(q, p, min_size(old.size, new.size));
	r = free_any(g, p, old, caller);
	if (r != ALLOC_OK) {
		(void)free_any(g, q, new, caller);
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
	if (is_small(g, old) && is_small(g, new))
		done = resize_small(g, p, old, new_size);
	else if (is_large(old) && is_large(new))
		done = global_large_resize(g, p, old, new_size);
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

/* --- Figures --- */

const char *global_allocator_name(const struct global_allocator *g)
{
	return engine_of(g)->name;
}

size_t global_allocator_used_bytes(struct global_allocator *g)
{
	unsigned long state = mm_port_lock(&g->heap_lock);
	size_t n = global_heap_used(g);

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
	return broken ? broken : global_large_walk(g);
}

/* --- Memory comes --- */

/* But for what no engine can use: else the heap could not grow while such pages are free. */
static enum alloc_result add_region(struct global_allocator *g, virt_addr_t start, size_t nbytes)
{
	unsigned long state;
	enum alloc_result r;

	if (start.value > BYTE_ALLOC_TOP || start.value + nbytes - 1 < start.value)
		return ALLOC_INVALID_PARAM;
	if (!byte_alloc_in_reach(virt_ptr(start), nbytes))
		nbytes = BYTE_ALLOC_TOP - start.value;
	state = mm_port_lock(&g->page_lock);
	r = page_alloc_add_region(&g->pages, start, nbytes);

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

	if (g->small_limit) /* the heap has memory */
		return ALLOC_INVALID_PARAM;
	r = add_region(g, start, nbytes);
	if (r != ALLOC_OK)
		return r;
	r = global_heap_start(g);
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
