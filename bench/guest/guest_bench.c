/* SPDX-License-Identifier: MIT */
/*
 * Instructions per operation of the global allocator, counted in the machine
 * that it is made for. `make bench-guest` boots this in a kernel built with
 * BENCH=1 on an emulator that retires one instruction per tick, so arch_cycles
 * counts exactly; elsewhere the figures are cycles.
 *
 * Each figure is for a pair: one allocation and one free, by the public calls,
 * lock and all, less the same loop around calls of functions that do nothing.
 *   tight  allocate, touch, free
 *   churn  LIVE objects of one size; a random one is replaced each time
 *   pages  as tight, in whole pages
 * A line per figure, for machines to read:
 *   bench arch=riscv64 engine=slab harden=1 test=tight size=64 instr=49.8
 */
#include <arch/arch.h>
#include <kernel/log.h>
#include <mm/global.h>

#include <selftest/selftest.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE   static __attribute__((noinline))

#define ALIGN	    ((size_t)8)
#define PAIRS	    10000u
#define CHURN_PAIRS 50000u
#define LIVE	    10000u

typedef void *(*alloc_fn)(size_t size, size_t align);
typedef enum alloc_result (*dealloc_fn)(void *p, size_t size, size_t align);
typedef enum alloc_result (*alloc_pages_fn)(struct global_allocator *g, size_t npages, size_t align,
					    virt_addr_t *out);
typedef enum alloc_result (*dealloc_pages_fn)(struct global_allocator *g, virt_addr_t start,
					      size_t npages);

static void *block[LIVE];
static char scratch[64];

/* --- Calls that do nothing. The compiler must not see it. --- */

OUT_OF_LINE void *no_alloc(size_t size, size_t align)
{
	__asm__ volatile("" : : "r"(size), "r"(align));
	return scratch;
}

OUT_OF_LINE enum alloc_result no_dealloc(void *p, size_t size, size_t align)
{
	__asm__ volatile("" : : "r"(p), "r"(size), "r"(align));
	return ALLOC_OK;
}

OUT_OF_LINE enum alloc_result no_alloc_pages(struct global_allocator *g, size_t npages,
					     size_t align, virt_addr_t *out)
{
	__asm__ volatile("" : : "r"(g), "r"(npages), "r"(align), "r"(out));
	return ALLOC_OK;
}

OUT_OF_LINE enum alloc_result no_dealloc_pages(struct global_allocator *g, virt_addr_t start,
					       size_t npages)
{
	__asm__ volatile("" : : "r"(g), "r"(start.value), "r"(npages));
	return ALLOC_OK;
}

/* --- The loops: the same code around whatever is called. 0: a call has failed. --- */

ALWAYS_INLINE uint64_t tight(alloc_fn alloc, dealloc_fn dealloc, struct layout l)
{
	uint64_t start = arch_cycles();

	for (unsigned int i = 0; i < PAIRS; i++) {
		void *p = alloc(l.size, l.align);

		if (!p)
			return 0;
		*(volatile char *)p = 1;
		if (dealloc(p, l.size, l.align) != ALLOC_OK)
			return 0;
	}
	return arch_cycles() - start;
}

/* xorshift32: cheap, and the same sequence each time. */
ALWAYS_INLINE uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

ALWAYS_INLINE uint64_t churn(alloc_fn alloc, dealloc_fn dealloc, struct layout l)
{
	uint32_t state = 12345;
	uint64_t start = arch_cycles();

	for (unsigned int i = 0; i < CHURN_PAIRS; i++) {
		void **slot = &block[next_random(&state) % LIVE];

		if (dealloc(*slot, l.size, l.align) != ALLOC_OK)
			return 0;
		*slot = alloc(l.size, l.align);
		if (!*slot)
			return 0;
	}
	return arch_cycles() - start;
}

ALWAYS_INLINE uint64_t pages(alloc_pages_fn alloc, dealloc_pages_fn dealloc, size_t npages)
{
	struct global_allocator *g = global_allocator();
	virt_addr_t va = virt_addr(scratch);
	uint64_t start = arch_cycles();

	for (unsigned int i = 0; i < PAIRS; i++) {
		if (alloc(g, npages, MM_PAGE_SIZE, &va) != ALLOC_OK)
			return 0;
		*(volatile char *)virt_ptr(va) = 1;
		if (dealloc(g, va, npages) != ALLOC_OK)
			return 0;
	}
	return arch_cycles() - start;
}

OUT_OF_LINE uint64_t tight_empty(struct layout l)
{
	return tight(no_alloc, no_dealloc, l);
}

OUT_OF_LINE uint64_t tight_real(struct layout l)
{
	return tight(global_alloc_bytes, global_dealloc_bytes, l);
}

OUT_OF_LINE uint64_t churn_empty(struct layout l)
{
	return churn(no_alloc, no_dealloc, l);
}

OUT_OF_LINE uint64_t churn_real(struct layout l)
{
	return churn(global_alloc_bytes, global_dealloc_bytes, l);
}

OUT_OF_LINE uint64_t pages_empty(size_t npages)
{
	return pages(no_alloc_pages, no_dealloc_pages, npages);
}

OUT_OF_LINE uint64_t pages_real(size_t npages)
{
	return pages(global_allocator_alloc_pages, global_allocator_dealloc_pages, npages);
}

/* --- Results --- */

/* In tenths, rounded. False, and no line, when a call has failed. */
static bool print_result(const char *test, size_t size, unsigned int pairs, uint64_t empty,
			 uint64_t real)
{
	uint64_t tenths = ((real - empty) * 10 + pairs / 2) / pairs;

	if (!real || !empty || real < empty)
		return false;
	kprintf("bench arch=%s engine=%s harden=%d test=%s size=%zu instr=%lu.%lu\n", BENCH_ARCH,
		global_allocator_name(global_allocator()), MM_HARDEN, test, size, tenths / 10,
		tenths % 10);
	return true;
}

static const size_t sizes[] = {16, 64, 256, 4096};
#define NSIZES (sizeof(sizes) / sizeof(sizes[0]))

/* Before a loop is timed it runs once, so that memory is there. */
SELFTEST(bench, tight)
{
	for (size_t i = 0; i < NSIZES; i++) {
		struct layout l = {sizes[i], ALIGN};

		CHECK(tight_real(l));
		CHECK(print_result("tight", l.size, PAIRS, tight_empty(l), tight_real(l)));
	}
}

static bool churn_size(struct layout l)
{
	uint64_t empty = churn_empty(l), real;

	for (size_t i = 0; i < LIVE; i++)
		if (global_alloc(l, &block[i]) != ALLOC_OK)
			return false;
	real = churn_real(l);
	for (size_t i = 0; i < LIVE; i++)
		if (global_dealloc(block[i], l) != ALLOC_OK)
			return false;
	return print_result("churn", l.size, CHURN_PAIRS, empty, real);
}

SELFTEST(bench, churn)
{
	for (size_t i = 0; i < NSIZES; i++)
		CHECK(churn_size((struct layout){sizes[i], ALIGN}));
}

SELFTEST(bench, pages)
{
	static const size_t npages[] = {1, 4, 64};

	for (size_t i = 0; i < sizeof(npages) / sizeof(npages[0]); i++) {
		CHECK(pages_real(npages[i]));
		CHECK(print_result("pages", npages[i], PAIRS, pages_empty(npages[i]),
				   pages_real(npages[i])));
	}
}
