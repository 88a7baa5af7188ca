/* SPDX-License-Identifier: MIT */
/*
 * One bit of an allocator's own memory is wrong: the walk over everything says so where the bit
 * means something, does not follow it into the void, and finds all sound when it is mended.
 * The headers of pieces and regions, which hold pointers, are left out: a walk starts there. So is
 * buddy, which has pointers in all of its map.
 */
#include <stdlib.h>

#include <mm/fault.h>
#include <selftest/selftest.h>

#include "../../mm/page_region.h"
#include "../../mm/test/shadow.h"

#define HEAP	    ((size_t)256 << 10)
#define HEAP_HEADER ((size_t)1 << 10)
#define BLOCKS	    120u
#define REGION	    ((size_t)32 << 20)
#define RUNS	    200u

static union byte_engine heap;
static struct page_alloc pages;

struct subject {
	uint64_t *memory;
	size_t nwords;
	const void *(*check)(void);
};

static const void *check_heap(void)
{
	return heap.base.ops->check(&heap.base);
}

static const void *check_pages(void)
{
	return page_alloc_check(&pages);
}

/* Flip bits of every word, one at a time; how many the walk found, or SIZE_MAX. */
static size_t flip_all(const struct subject *s)
{
	static const unsigned int bits[] = {0, 2, 7, 13, 33, 62};
	size_t found = 0;

	for (size_t i = 0; i < s->nwords; i++)
		for (size_t j = 0; j < sizeof(bits) / sizeof(bits[0]); j++) {
			s->memory[i] ^= (uint64_t)1 << bits[j];
			found += s->check() != NULL;
			s->memory[i] ^= (uint64_t)1 << bits[j];
		}
	return s->check() ? SIZE_MAX : found;
}

static size_t size_of(size_t i)
{
	return 1 + i % 12 * 40;
}

static bool fill_heap(const struct byte_ops *ops, void *memory)
{
	void *p[BLOCKS];

	__builtin_memset(&heap, 0, sizeof(heap));
	heap.base.ops = ops;
	if (ops->init(&heap.base, memory, HEAP) != ALLOC_OK)
		return false;
	for (size_t i = 0; i < BLOCKS; i++)
		if (!(p[i] = ops->alloc(&heap.base, size_of(i), 8)))
			return false;
	for (size_t i = 0; i < BLOCKS; i += 3)
		if (ops->dealloc(&heap.base, p[i], size_of(i), 8) != MM_FAULT_NONE)
			return false;
	return !check_heap();
}

SELFTEST(host, flipped_bits_of_engines)
{
	static const struct byte_ops *const engines[] = {&byte_tlsf_ops, &byte_slab_ops};
	uint8_t *memory = selftest_memory(HEAP);

	CHECK(memory);
	mm_fault_expect(true);
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		struct subject s = {(uint64_t *)(void *)(memory + HEAP_HEADER),
				    (HEAP - HEAP_HEADER) / 8, check_heap};
		size_t found;

		__builtin_memset(memory, 0, HEAP);
		CHECK(fill_heap(engines[i], memory));
		found = flip_all(&s);
		selftest_note("%s: %zu bits", engines[i]->name, found);
		CHECK(found != SIZE_MAX && found > BLOCKS);
	}
	mm_fault_expect(false);
}

static bool fill_pages(uint8_t *memory)
{
	struct page_request req = {.align = MM_PAGE_SIZE, .usage = PAGE_USAGE_USER};
	enum mm_fault_kind fault;
	virt_addr_t va;

	pages = (struct page_alloc){0};
	if (page_alloc_add_region(&pages, virt_addr(memory), REGION) != ALLOC_OK)
		return false;
	for (size_t i = 0; i < RUNS; i++) {
		req.npages = 1 + i % 9;
		if (page_alloc_get(&pages, req, &va) != ALLOC_OK)
			return false;
		if (i % 3 == 0 && page_alloc_put(&pages, va, 1, &fault) != ALLOC_OK)
			return false;
	}
	return !check_pages();
}

SELFTEST(host, flipped_bits_of_pages)
{
	uint8_t *memory = selftest_memory(REGION);
	struct subject s = {.check = check_pages};
	size_t header = sizeof(struct page_region), found;

	CHECK(memory && fill_pages(memory));
	s.memory = (uint64_t *)(void *)(memory + header);
	s.nwords = (page_alloc_metadata_bytes(&pages) - header) / 8;
	found = flip_all(&s);
	selftest_note("%zu bits of %zu words", found, s.nwords);
	CHECK(found != SIZE_MAX && found > RUNS);
}
