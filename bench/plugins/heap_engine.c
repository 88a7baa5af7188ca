/* SPDX-License-Identifier: MIT */
/* One engine alone, without locks, behind the replay tool's heap_* interface. ENGINE: tlsf, slab or
 * buddy. */
#include <mm/byte_buddy.h>
#include <mm/byte_slab.h>
#include <mm/byte_tlsf.h>

#include "../host/plugin.h"

#define CAT_(a, b, c) a##b##c
#define CAT(a, b, c)  CAT_(a, b, c)
#define OPS	      CAT(byte_, ENGINE, _ops)

/*
 * Engines offer their shortest paths by name, which become a part of the caller; those of
 * which this is 1 the whole of alloc.
 */
#define HAS_ALLOC_tlsf	1
#define HAS_ALLOC_slab	0
#define HAS_ALLOC_buddy 0
#define HAS_ALLOC	CAT(HAS_ALLOC_, ENGINE, )

static struct CAT(byte_, ENGINE, ) heap;

const char *heap_name(void)
{
	return OPS.name;
}

int heap_init(void *region, size_t size)
{
	heap.base.ops = &OPS;
	return OPS.init(&heap.base, region, size);
}

/* Apart, so that no free makes room for the record of a fault that it does not have. */
static __attribute__((noinline, cold)) void refuse(const void *p, size_t size, size_t align,
						   enum mm_fault_kind kind)
{
	mm_fault_report(&(struct mm_fault){
		.kind = kind, .allocator = OPS.name, .ptr = p, .layout = {size, align}});
}

#if HAS_ALLOC
__attribute__((flatten)) void *heap_alloc(size_t size, size_t align)
{
	return CAT(byte_, ENGINE, _alloc)(&heap.base, size, align);
}
#else

/* The calls that are rare are functions of their own: so the fast path saves no registers. */
static __attribute__((noinline)) void *alloc_any(size_t size, size_t align)
{
	return OPS.alloc(&heap.base, size, align);
}

__attribute__((flatten)) void *heap_alloc(size_t size, size_t align)
{
	void *p = CAT(byte_, ENGINE, _alloc_fast)(&heap.base, size, align, 0);

	return __builtin_expect(!p, 0) ? alloc_any(size, align) : p;
}
#endif

static __attribute__((noinline)) void free_any(void *p, size_t size, size_t align)
{
	enum mm_fault_kind f = MM_FAULT_KINDS;

	if (OPS.dealloc_local)
		f = OPS.dealloc_local(&heap.base, p, size, align, 0);
	if (f == MM_FAULT_KINDS)
		f = OPS.dealloc(&heap.base, p, size, align);
	if (__builtin_expect(f != MM_FAULT_NONE, 0))
		refuse(p, size, align, f);
}

__attribute__((flatten)) void heap_free(void *p, size_t size, size_t align)
{
	if (__builtin_expect(!CAT(byte_, ENGINE, _dealloc_fast)(&heap.base, p, size, align, 0), 0))
		free_any(p, size, align);
}
