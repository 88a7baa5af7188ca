/* SPDX-License-Identifier: MIT */
/* What only the buddy engine promises: trimming, natural alignment, merging, repair. */
#include <mm/byte_buddy.h>
#include <mm/fault.h>
#include <selftest/selftest.h>

#define POOL ((size_t)1 << 20)

static struct byte_buddy heap;

static struct byte_alloc *start(void *mem)
{
	heap = (struct byte_buddy){.base.ops = &byte_buddy_ops};
	return mem && !byte_buddy_ops.init(&heap.base, mem, POOL) ? &heap.base : NULL;
}

SELFTEST(mm, buddy_natural_alignment_and_trim)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));

	CHECK(a);
	for (size_t size = 16; size <= 40000; size += size / 3) {
		size_t natural = 16;
		uint8_t *p = ops->alloc(a, size, 8);

		while (natural < size)
			natural *= 2;
		CHECK(p && !((uintptr_t)p & (natural - 1)));
		CHECK(ops->used_bytes(a) <= size + 32);
		CHECK(!ops->dealloc(a, p, size, 8));
	}
}

/* Whatever was done, free memory merges to what it was. */
SELFTEST(mm, buddy_merges_completely)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	void *p[200];

	CHECK(a);
	for (size_t round = 0; round < 3; round++) {
		void *all = ops->alloc(a, POOL / 4 - 16, 8);

		CHECK(all && !ops->dealloc(a, all, POOL / 4 - 16, 8));
		for (size_t i = 0; i < 200; i++)
			CHECK((p[i] = ops->alloc(a, i * 11 + 1, 8)));
		for (size_t i = 0; i < 200; i++) {
			size_t j = i * 77 % 200;

			CHECK(!ops->dealloc(a, p[j], j * 11 + 1, 8));
		}
	}
	CHECK(!ops->used_bytes(a) && !ops->check(a));
}

SELFTEST(mm, buddy_refuses_overlap)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	uint8_t *mem = selftest_memory(POOL);
	struct byte_alloc *a = start(mem);

	CHECK(a);
	CHECK(ops->add_memory(a, mem + POOL / 2, POOL) == ALLOC_MEMORY_OVERLAP);
	CHECK(ops->total_bytes(a) == POOL);
}

#if MM_HARDEN == 1
/* A write after free breaks links: it is reported, the lists are repaired, nothing is lost. */
SELFTEST(mm, buddy_repairs_links)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	unsigned long faults = mm_fault_count();
	uint8_t *p;

	CHECK(a);
	p = ops->alloc(a, 64, 8);
	CHECK(p && !ops->dealloc(a, p, 64, 8));
	__builtin_memset(p, 0x41, 16);
	CHECK(ops->check(a));
	mm_fault_expect(true);
	CHECK(ops->alloc(a, 64, 8));
	mm_fault_expect(false);
	CHECK(mm_fault_count() > faults && mm_fault_last().kind == MM_FAULT_CORRUPT);
	CHECK(!ops->check(a));
}
#endif
