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

		while (natural * 2 <= size)
			natural *= 2;
		CHECK(p && !((uintptr_t)p & (natural - 1)));
		CHECK(ops->used_bytes(a) <= size + 32);
		CHECK(!ops->dealloc(a, p, size, 8));
	}
}

struct free_map {
	uint64_t hash; /* of where free blocks begin and end */
	size_t nblocks, nused;
};

static void map_free(void *ctx, const void *block, size_t nbytes, bool used)
{
	struct free_map *m = ctx;

	m->nblocks++;
	m->nused += used;
	m->hash = (m->hash ^ (uintptr_t)block) * 0x9e3779b97f4a7c15u + nbytes;
}

/* The blocks once all that waits for reuse is merged, which a request that cannot be met has done.
 */
static struct free_map merged(struct byte_alloc *a)
{
	struct free_map m = {0, 0, 0};

	if (byte_buddy_ops.alloc(a, POOL, 8))
		m.nused = 1;
	byte_buddy_ops.walk(a, map_free, &m);
	return m;
}

/* Whatever was allocated and freed in whatever order, the blocks are again those of a fresh heap.
 */
SELFTEST(mm, buddy_merges_completely)
{
	enum { SLOTS = 200 };
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	static size_t size[SLOTS];
	static void *p[SLOTS];
	struct free_map fresh, now;
	uint64_t random = 5;

	CHECK(a);
	fresh = merged(a);
	CHECK(!fresh.nused);
	for (int round = 0; round < 4; round++) {
		__builtin_memset(p, 0, sizeof(p));
		for (int i = 0; i < 1500; i++) {
			uint64_t bits = selftest_random(&random);
			size_t slot = bits % SLOTS;

			if (p[slot])
				CHECK(!ops->dealloc(a, p[slot], size[slot], 8));
			size[slot] = 1 + (bits >> 8) % ((size_t)16 << (bits >> 40) % 11);
			p[slot] = ops->alloc(a, size[slot], 8);
		}
		for (size_t i = 0; i < SLOTS; i++) {
			size_t j = i * 77 % SLOTS;

			CHECK(!p[j] || !ops->dealloc(a, p[j], size[j], 8));
		}
		now = merged(a);
		CHECK(!ops->used_bytes(a) && !ops->check(a));
		CHECK(now.nblocks == fresh.nblocks && now.hash == fresh.hash && !now.nused);
	}
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

#if MM_HARDEN < 2
static void scribble(void *ctx, const void *block, size_t nbytes, bool used)
{
	(void)ctx;
	if (!used)
		__builtin_memset((void *)(uintptr_t)block, 0x41, nbytes);
}

/* Nothing of the engine's lies in free memory, so writes after free break nothing. */
SELFTEST(mm, buddy_keeps_nothing_in_free_memory)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	unsigned long faults = mm_fault_count();
	void *p[100];

	CHECK(a);
	for (size_t i = 0; i < 100; i++)
		CHECK((p[i] = ops->alloc(a, 1 + i * 37, 8)));
	for (size_t i = 0; i < 100; i += 2)
		CHECK(!ops->dealloc(a, p[i], 1 + i * 37, 8));
	ops->walk(a, scribble, NULL);
	CHECK(!ops->check(a));
	for (size_t i = 0; i < 100; i += 2)
		CHECK((p[i] = ops->alloc(a, 1 + i * 37, 8)));
	for (size_t i = 0; i < 100; i++)
		CHECK(!ops->dealloc(a, p[i], 1 + i * 37, 8));
	CHECK(!ops->check(a) && !ops->used_bytes(a));
	CHECK(mm_fault_count() == faults);
}
#endif
