/* SPDX-License-Identifier: MIT */
/*
 * Types shared by everything that hands out memory: layouts, results and the
 * three kinds of address, which the compiler does not let anyone mix.
 */
#ifndef MM_TYPES_H
#define MM_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MM_PAGE_SHIFT 12u
#define MM_PAGE_SIZE  ((size_t)1 << MM_PAGE_SHIFT)

/* The largest alignment a byte allocator must honour (bytes). */
#define MM_MAX_ALIGN ((size_t)1 << 20)

/* Single-member structures: a physical address cannot be passed as a bus one. */
typedef struct {
	uintptr_t value;
} virt_addr_t;
typedef struct {
	uint64_t value;
} phys_addr_t;
typedef struct {
	uint64_t value;
} bus_addr_t;

static inline virt_addr_t virt_addr(const void *p)
{
	return (virt_addr_t){(uintptr_t)p};
}

static inline void *virt_ptr(virt_addr_t va)
{
	return (void *)va.value;
}

/* Size and alignment of one allocation, in bytes; align is a power of two. */
struct layout {
	size_t size;
	size_t align;
};

/* Zero or one of exactly these failures. */
enum alloc_result {
	ALLOC_OK = 0,
	ALLOC_INVALID_PARAM = -1,  /* zero size, bad alignment, overflow */
	ALLOC_MEMORY_OVERLAP = -2, /* a region overlaps one that is managed already */
	ALLOC_NO_MEMORY = -3,	   /* nothing fits; all state is as before */
	ALLOC_NOT_ALLOCATED = -4,  /* freeing what is not allocated */
};

#define MM_MUST_CHECK __attribute__((warn_unused_result))

static inline bool mm_is_pow2(size_t n)
{
	return n && !(n & (n - 1));
}

/* A layout that any byte allocator may be asked for: no size or alignment near overflow. */
static inline bool layout_valid(struct layout l)
{
	return l.size && mm_is_pow2(l.align) && l.align <= MM_MAX_ALIGN &&
	       l.size <= (size_t)PTRDIFF_MAX - l.align;
}

#endif
