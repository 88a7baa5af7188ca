/* SPDX-License-Identifier: MIT */
/* TLSF over address space that is reserved but hardly touched: sizes that no 32 bits hold. */
#include <sys/mman.h>

#include <mm/byte_tlsf.h>
#include <selftest/selftest.h>

#define GIB ((size_t)1 << 30)

static struct byte_tlsf heap;

SELFTEST(mm, tlsf_blocks_above_4_gib)
{
	static const size_t sizes[] = {5 * GIB, 9 * GIB + 12345, 4 * GIB - 8, 4 * GIB, 40 * GIB};
	const struct byte_ops *ops = &byte_tlsf_ops;
	const size_t pool = 128 * GIB;
	uint8_t *memory, *p[5];
	size_t nbytes;
	void *at;

	if (MM_HARDEN >= 2) {
		selftest_skip("poison would touch all of it");
		return;
	}
	memory = mmap(NULL, pool, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		selftest_skip("no address space");
		return;
	}
	heap = (struct byte_tlsf){.base.ops = ops};
	CHECK(!ops->init(&heap.base, memory, pool));
	for (size_t i = 0; i < 5; i++) {
		p[i] = ops->alloc(&heap.base, sizes[i], i & 1 ? MM_MAX_ALIGN : 8);
		CHECK(p[i] && p[i] >= memory && p[i] + sizes[i] <= memory + pool);
		p[i][0] = p[i][sizes[i] - 1] = (uint8_t)i;
		CHECK(ops->block_size(&heap.base, p[i]) >= sizes[i]);
	}
	CHECK(!ops->alloc(&heap.base, 90 * GIB, 8) && !ops->check(&heap.base));
	CHECK(ops->resize(&heap.base, p[4], sizes[4], 8, 50 * GIB));
	CHECK(ops->resize(&heap.base, p[4], 50 * GIB, 8, sizes[4]));
	for (size_t i = 0; i < 5; i++) {
		CHECK(p[i][0] == i && p[i][sizes[i] - 1] == i);
		CHECK(!ops->dealloc(&heap.base, p[i], sizes[i], i & 1 ? MM_MAX_ALIGN : 8));
		CHECK(!ops->check(&heap.base));
	}
	CHECK(ops->take_free(&heap.base, &at, &nbytes) && at == memory && nbytes == pool);
	munmap(memory, pool);
}

/*
 * The map of a huge piece is cleared as it comes into use: whatever was in the memory
 * before, and wherever blocks begin and end.
 */
SELFTEST(mm, tlsf_map_of_a_huge_piece)
{
	enum { BLOCKS = 500 };
	static uint8_t *p[BLOCKS];
	static size_t size[BLOCKS];
	const struct byte_ops *ops = &byte_tlsf_ops;
	const size_t pool = GIB, dirty = 48 << 20;
	uint64_t random = 5;
	uint8_t *memory;
	void *at;
	size_t nbytes;

	if (MM_HARDEN >= 2) {
		selftest_skip("poison would touch all of it");
		return;
	}
	memory = mmap(NULL, pool, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		selftest_skip("no address space");
		return;
	}
	__builtin_memset(memory, 0xff, dirty);
	heap = (struct byte_tlsf){.base.ops = ops};
	CHECK(!ops->init(&heap.base, memory, pool) && !ops->check(&heap.base));
	if (MM_HARDEN)
		CHECK(ops->dealloc(&heap.base, memory + dirty - 4096, 64, 8) != MM_FAULT_NONE);
	for (int i = 0; i < 6000; i++) {
		uint64_t bits = selftest_random(&random);
		size_t j = bits % BLOCKS;

		if (p[j])
			CHECK(!ops->dealloc(&heap.base, p[j], size[j], 8));
		size[j] = 1 + (bits >> 8) % ((size_t)16 << (bits >> 40) % 16);
		CHECK((p[j] = ops->alloc(&heap.base, size[j], 8)));
		CHECK(ops->block_size(&heap.base, p[j]) >= size[j]);
		CHECK(ops->block_size(&heap.base, p[j]) < size[j] + 32);
	}
	CHECK(!ops->check(&heap.base));
	for (size_t j = 0; j < BLOCKS; j++)
		CHECK(!p[j] || !ops->dealloc(&heap.base, p[j], size[j], 8));
	CHECK(!ops->check(&heap.base) && !ops->used_bytes(&heap.base));
	CHECK(ops->take_free(&heap.base, &at, &nbytes) && at == memory && nbytes == pool);
	munmap(memory, pool);
}
