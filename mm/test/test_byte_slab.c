/* SPDX-License-Identifier: MIT */
/* The slab engine: payloads verified around every operation, misuse, giving back. */
#include <mm/byte_slab.h>
#include <selftest/selftest.h>

#define HEAP_BYTES ((size_t)1 << 20)
#define BLOCKS	   200u
#define ROUNDS	   6000u

static struct byte_slab slab;

static struct byte_alloc *fresh(size_t nbytes)
{
	void *memory = selftest_memory(nbytes);

	slab.base.ops = &byte_slab_ops;
	if (!memory || byte_slab_ops.init(&slab.base, memory, nbytes) != ALLOC_OK)
		return NULL;
	return &slab.base;
}

static void *get(struct byte_alloc *a, size_t size, size_t align)
{
	void *p = byte_slab_ops.alloc_local(a, size, align, 0);

	return p ? p : byte_slab_ops.alloc(a, size, align);
}

static enum mm_fault_kind put(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	enum mm_fault_kind f = byte_slab_ops.dealloc_local(a, p, size, align, 0);

	return f == MM_FAULT_KINDS ? byte_slab_ops.dealloc(a, p, size, align) : f;
}

struct block {
	unsigned char *p;
	size_t size, align;
};

static bool intact(const struct block *b, unsigned char tag)
{
	for (size_t i = 0; i < b->size; i += i < 64 ? 1 : 61)
		if (b->p[i] != (unsigned char)(tag + i))
			return false;
	return b->p[b->size - 1] == (unsigned char)(tag + b->size - 1);
}

static void fill(const struct block *b, unsigned char tag)
{
	for (size_t i = 0; i < b->size; i++)
		b->p[i] = (unsigned char)(tag + i);
}

static size_t random_size(uint64_t *rng)
{
	uint64_t r = selftest_random(rng);

	return 1 + (r >> 8) % ((size_t)16 << (r % 10));
}

SELFTEST(mm, slab_random)
{
	static struct block blocks[BLOCKS];
	struct byte_alloc *a = fresh(HEAP_BYTES);
	uint64_t rng = 1;

	CHECK(a);
	__builtin_memset(blocks, 0, sizeof(blocks));
	for (unsigned int i = 0; i < ROUNDS; i++) {
		unsigned int n = (unsigned int)(selftest_random(&rng) % BLOCKS);
		struct block *b = &blocks[n];

		if (b->p) {
			CHECK(intact(b, (unsigned char)n));
			CHECK(put(a, b->p, b->size, b->align) == MM_FAULT_NONE);
			b->p = NULL;
		} else {
			b->size = random_size(&rng);
			b->align = (size_t)1 << selftest_random(&rng) % 8;
			b->p = get(a, b->size, b->align);
			if (!b->p)
				continue;
			CHECK(!((uintptr_t)b->p & (b->align - 1)));
			CHECK(byte_slab_ops.block_size(a, b->p) >= b->size);
			fill(b, (unsigned char)n);
		}
		if (i % 500 == 0)
			CHECK(!byte_slab_ops.check(a));
	}
	for (unsigned int n = 0; n < BLOCKS; n++) {
		if (!blocks[n].p)
			continue;
		CHECK(intact(&blocks[n], (unsigned char)n));
		CHECK(put(a, blocks[n].p, blocks[n].size, blocks[n].align) == MM_FAULT_NONE);
	}
	CHECK(!byte_slab_ops.check(a));
	CHECK(byte_slab_ops.used_bytes(a) == 0);
}

SELFTEST(mm, slab_small_region)
{
	struct byte_alloc *a = fresh(32 * 1024);
	void *p[64];

	CHECK(a);
	for (int i = 0; i < 64; i++) {
		p[i] = get(a, 32, 8);
		CHECK(p[i]);
	}
	for (int i = 0; i < 64; i++)
		CHECK(put(a, p[i], 32, 8) == MM_FAULT_NONE);
	CHECK(byte_slab_ops.used_bytes(a) == 0);
}

SELFTEST(mm, slab_alignment)
{
	struct byte_alloc *a = fresh((size_t)4 << 20);

	CHECK(a);
	for (size_t align = 1; align <= MM_MAX_ALIGN; align *= 2) {
		void *p = get(a, 24, align);

		CHECK(p && !((uintptr_t)p & (align - 1)));
		CHECK(put(a, p, 24, align) == MM_FAULT_NONE);
	}
	CHECK(!byte_slab_ops.check(a));
}

SELFTEST(mm, slab_remote_free)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	void *p[100];

	CHECK(a);
	for (int i = 0; i < 100; i++) {
		p[i] = get(a, 48, 8);
		CHECK(p[i]);
	}
	for (int i = 0; i < 100; i++)
		CHECK(byte_slab_ops.dealloc(a, p[i], 48, 8) == MM_FAULT_NONE);
	CHECK(byte_slab_ops.used_bytes(a) == 0);
	for (int i = 0; i < 300; i++)
		CHECK(get(a, 48, 8));
	CHECK(!byte_slab_ops.check(a));
}

SELFTEST(mm, slab_misuse)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	char outside[64];
	char *p, *large;

	if (!MM_HARDEN) {
		selftest_skip("level 0 checks nothing");
		return;
	}
	CHECK(a);
	p = get(a, 64, 8);
	large = get(a, 20000, 8);
	CHECK(p && large);
	CHECK(put(a, p + 16, 64, 8) == MM_FAULT_FOREIGN);
	CHECK(put(a, p + 3, 64, 8) == MM_FAULT_MISALIGNED);
	CHECK(put(a, p, 200, 8) == MM_FAULT_WRONG_LAYOUT);
	CHECK(put(a, outside, 64, 8) == MM_FAULT_FOREIGN);
	CHECK(put(a, NULL, 64, 8) == MM_FAULT_FOREIGN);
	CHECK(put(a, large + 8, 20000, 8) == MM_FAULT_FOREIGN);
	CHECK(put(a, large, 9000, 8) == MM_FAULT_WRONG_LAYOUT);
	CHECK(put(a, large, 20000, 8) == MM_FAULT_NONE);
	CHECK(put(a, large, 20000, 8) == MM_FAULT_DOUBLE_FREE);
	CHECK(put(a, p, 64, 8) == MM_FAULT_NONE);
	CHECK(put(a, p, 64, 8) == MM_FAULT_DOUBLE_FREE);
	CHECK(!byte_slab_ops.check(a));
}

SELFTEST(mm, slab_out_of_memory)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	void **list = NULL, **p;

	CHECK(a);
	while ((p = get(a, 512, 8))) {
		*p = list;
		list = p;
	}
	CHECK(!get(a, 100000, 8));
	while ((p = list)) {
		list = *p;
		CHECK(put(a, p, 512, 8) == MM_FAULT_NONE);
	}
	CHECK(!byte_slab_ops.check(a));
	CHECK(get(a, 100000, 8));
}

SELFTEST(mm, slab_take_free)
{
	struct byte_alloc *a = fresh(64 * 1024);
	size_t more = (size_t)256 * 1024, nbytes = 0;
	void *memory = selftest_memory(more), *start = NULL, *p;

	CHECK(a && memory);
	CHECK(byte_slab_ops.add_memory(a, memory, more) == ALLOC_OK);
	p = byte_slab_ops.alloc(a, 100000, 8);
	CHECK(p);
	CHECK(byte_slab_ops.resize(a, p, 100000, 8, 120000));
	CHECK(byte_slab_ops.resize(a, p, 120000, 8, 50000));
	CHECK(byte_slab_ops.dealloc(a, p, 50000, 8) == MM_FAULT_NONE);
	while (byte_slab_ops.take_free(a, &start, &nbytes) && start != memory)
		;
	CHECK(start == memory && nbytes == more);
}
