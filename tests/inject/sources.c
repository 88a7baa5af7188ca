/* SPDX-License-Identifier: MIT */
/* Where memory comes from: requests are counted here, and fail here when they are told to. */
#include <stdatomic.h>

#include <mm/page_alloc.h>

#include "../../mm/page_region.h"
#include "inject.h"

static _Atomic unsigned long requests;
static _Atomic bool on, fired;
static unsigned long fail_at;
static bool fail_after;

void inject_start(unsigned long nth, bool all_after)
{
	requests = 0;
	fired = false;
	fail_at = nth;
	fail_after = all_after;
	on = true;
}

void inject_stop(void)
{
	on = false;
}

unsigned long inject_requests(void)
{
	return requests;
}

bool inject_fired(void)
{
	return fired;
}

bool inject_fails(void)
{
	unsigned long n = on ? ++requests : 0;

	if (!n || !fail_at || n < fail_at || (n > fail_at && !fail_after))
		return false;
	fired = true;
	return true;
}

/* --- Pages --- */

WRAPPED(page_alloc_get);
WRAPPED(page_alloc_get_at);
WRAPPED(page_alloc_one_local);
WRAPPED(page_alloc_add_region);
WRAPPED(page_alloc_add_foreign);
WRAPPED(page_alloc_add_at);

enum alloc_result __wrap_page_alloc_get(struct page_alloc *a, struct page_request req,
					virt_addr_t *out)
{
	return inject_fails() ? ALLOC_NO_MEMORY : __real_page_alloc_get(a, req, out);
}

enum alloc_result __wrap_page_alloc_get_at(struct page_alloc *a, virt_addr_t start, size_t npages,
					   enum page_usage usage)
{
	return inject_fails() ? ALLOC_NO_MEMORY : __real_page_alloc_get_at(a, start, npages, usage);
}

bool __wrap_page_alloc_one_local(struct page_alloc *a, enum page_usage usage, unsigned int cpu,
				 virt_addr_t *out)
{
	return !inject_fails() && __real_page_alloc_one_local(a, usage, cpu, out);
}

enum alloc_result __wrap_page_alloc_add_region(struct page_alloc *a, virt_addr_t start,
					       size_t nbytes)
{
	ledger_know_pages(a);
	return __real_page_alloc_add_region(a, start, nbytes);
}

enum alloc_result __wrap_page_alloc_add_foreign(struct page_alloc *a, void *memory,
						virt_addr_t start, size_t npages, phys_addr_t phys)
{
	ledger_know_pages(a);
	return __real_page_alloc_add_foreign(a, memory, start, npages, phys);
}

enum alloc_result __wrap_page_alloc_add_at(struct page_alloc *a, virt_addr_t start, size_t nbytes,
					   phys_addr_t phys)
{
	ledger_know_pages(a);
	return __real_page_alloc_add_at(a, start, nbytes, phys);
}

/* --- Engines: their tables, with some operations exchanged --- */

extern const struct byte_ops __real_byte_tlsf_ops, __real_byte_slab_ops, __real_byte_buddy_ops;
extern struct byte_ops __wrap_byte_tlsf_ops, __wrap_byte_slab_ops, __wrap_byte_buddy_ops;
struct byte_ops __wrap_byte_tlsf_ops, __wrap_byte_slab_ops, __wrap_byte_buddy_ops;

WRAPPED(byte_slab_alloc_fast);
WRAPPED(byte_slab_dealloc_fast);
WRAPPED(byte_slab_dealloc_shortest);
WRAPPED(byte_tlsf_dealloc_fast);
WRAPPED(byte_tlsf_dealloc_shortest);
WRAPPED(byte_buddy_dealloc_fast);
WRAPPED(byte_buddy_dealloc_shortest);

/* One set of operations for each engine, as an engine without memory need not know its own. */
enum engine { TLSF, SLAB, BUDDY };

static const struct byte_ops *const real[] = {
	[TLSF] = &__real_byte_tlsf_ops,
	[SLAB] = &__real_byte_slab_ops,
	[BUDDY] = &__real_byte_buddy_ops,
};

static void *held_block(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	if (p)
		ledger_add((struct held){
			.what = HELD_BLOCK, .owner = a, .p = p, .layout = {size, align}});
	return p;
}

static inline enum alloc_result init(enum engine e, struct byte_alloc *a, void *start,
				     size_t nbytes)
{
	ledger_forget(a);
	ledger_know_engine(a, real[e]);
	return real[e]->init(a, start, nbytes);
}

static inline void *alloc(enum engine e, struct byte_alloc *a, size_t size, size_t align)
{
	if (inject_fails())
		return NULL;
	return held_block(a, real[e]->alloc(a, size, align), size, align);
}

/* Off the ledger before the fact: afterwards the address may be another's already. */
static inline enum mm_fault_kind dealloc(enum engine e, struct byte_alloc *a, void *p, size_t size,
					 size_t align)
{
	struct held h;
	bool held = ledger_remove(HELD_BLOCK, a, p, &h);
	enum mm_fault_kind fault = real[e]->dealloc(a, p, size, align);

	if (held && fault != MM_FAULT_NONE)
		ledger_add(h);
	return fault;
}

static inline bool resize(enum engine e, struct byte_alloc *a, void *p, size_t old_size,
			  size_t align, size_t new_size)
{
	struct held h;
	bool done = (new_size <= old_size || !inject_fails()) &&
		    real[e]->resize(a, p, old_size, align, new_size);

	if (done && ledger_remove(HELD_BLOCK, a, p, &h))
		(void)held_block(a, p, new_size, align);
	return done;
}

/* The fast paths, which slab alone has. */

static void *slab_alloc_local(struct byte_alloc *a, size_t size, size_t align, unsigned int cpu)
{
	if (inject_fails())
		return NULL;
	return held_block(a, real[SLAB]->alloc_local(a, size, align, cpu), size, align);
}

void *__wrap_byte_slab_alloc_fast(struct byte_alloc *a, size_t size, size_t align, unsigned int cpu)
{
	if (inject_fails())
		return NULL;
	return held_block(a, __real_byte_slab_alloc_fast(a, size, align, cpu), size, align);
}

static enum mm_fault_kind slab_dealloc_local(struct byte_alloc *a, void *p, size_t size,
					     size_t align, unsigned int cpu)
{
	struct held h;
	bool held = ledger_remove(HELD_BLOCK, a, p, &h);
	enum mm_fault_kind fault = real[SLAB]->dealloc_local(a, p, size, align, cpu);

	if (held && fault != MM_FAULT_NONE)
		ledger_add(h);
	return fault;
}

/* The shortest frees, which do a free or nothing. */

static bool done_or_held(bool done, bool held, struct held h)
{
	if (held && !done)
		ledger_add(h);
	return done;
}

static bool free_fast(__typeof__(byte_slab_dealloc_fast) *real_free, struct byte_alloc *a, void *p,
		      size_t size, size_t align, unsigned int cpu)
{
	struct held h = {0};
	bool held = ledger_remove(HELD_BLOCK, a, p, &h);

	return done_or_held(real_free(a, p, size, align, cpu), held, h);
}

bool __wrap_byte_slab_dealloc_fast(struct byte_alloc *a, void *p, size_t size, size_t align,
				   unsigned int cpu)
{
	return free_fast(__real_byte_slab_dealloc_fast, a, p, size, align, cpu);
}

bool __wrap_byte_tlsf_dealloc_fast(struct byte_alloc *a, void *p, size_t size, size_t align,
				   unsigned int cpu)
{
	return free_fast(__real_byte_tlsf_dealloc_fast, a, p, size, align, cpu);
}

bool __wrap_byte_buddy_dealloc_fast(struct byte_alloc *a, void *p, size_t size, size_t align,
				    unsigned int cpu)
{
	return free_fast(__real_byte_buddy_dealloc_fast, a, p, size, align, cpu);
}

bool __wrap_byte_slab_dealloc_shortest(struct byte_alloc *a, struct slab_cpu *c, void *p,
				       size_t size, size_t align, struct slab **event)
{
	struct held h = {0};
	bool held = ledger_remove(HELD_BLOCK, a, p, &h);

	return done_or_held(__real_byte_slab_dealloc_shortest(a, c, p, size, align, event), held,
			    h);
}

bool __wrap_byte_tlsf_dealloc_shortest(struct byte_alloc *a, void *p, size_t size, size_t align,
				       struct tlsf_kept *was)
{
	struct held h = {0};
	bool held = ledger_remove(HELD_BLOCK, a, p, &h);

	return done_or_held(__real_byte_tlsf_dealloc_shortest(a, p, size, align, was), held, h);
}

bool __wrap_byte_buddy_dealloc_shortest(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct held h = {0};
	bool held = ledger_remove(HELD_BLOCK, a, p, &h);

	return done_or_held(__real_byte_buddy_dealloc_shortest(a, p, size, align), held, h);
}

/* The table of engine E, its operations named NAME_... */
#define ENGINE(E, NAME)                                                                         \
	static enum alloc_result NAME##_init(struct byte_alloc *a, void *start, size_t nbytes)  \
	{                                                                                       \
		return init(E, a, start, nbytes);                                               \
	}                                                                                       \
	static void *NAME##_alloc(struct byte_alloc *a, size_t size, size_t align)              \
	{                                                                                       \
		return alloc(E, a, size, align);                                                \
	}                                                                                       \
	static enum mm_fault_kind NAME##_dealloc(struct byte_alloc *a, void *p, size_t size,    \
						 size_t align)                                  \
	{                                                                                       \
		return dealloc(E, a, p, size, align);                                           \
	}                                                                                       \
	static bool NAME##_resize(struct byte_alloc *a, void *p, size_t old_size, size_t align, \
				  size_t new_size)                                              \
	{                                                                                       \
		return resize(E, a, p, old_size, align, new_size);                              \
	}                                                                                       \
	__attribute__((constructor)) static void NAME##_wrap(void)                              \
	{                                                                                       \
		__wrap_byte_##NAME##_ops = __real_byte_##NAME##_ops;                            \
		__wrap_byte_##NAME##_ops.init = NAME##_init;                                    \
		__wrap_byte_##NAME##_ops.alloc = NAME##_alloc;                                  \
		__wrap_byte_##NAME##_ops.dealloc = NAME##_dealloc;                              \
		__wrap_byte_##NAME##_ops.resize = NAME##_resize;                                \
		if (__real_byte_##NAME##_ops.alloc_local) {                                     \
			__wrap_byte_##NAME##_ops.alloc_local = slab_alloc_local;                \
			__wrap_byte_##NAME##_ops.dealloc_local = slab_dealloc_local;            \
		}                                                                               \
	}

ENGINE(TLSF, tlsf)
ENGINE(SLAB, slab)
ENGINE(BUDDY, buddy)
