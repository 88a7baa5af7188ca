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
