/* SPDX-License-Identifier: MIT */
/* What only the TLSF engine promises: its overhead, its fit, merging, and what it does with broken
 * lists. */
#include <mm/byte_tlsf.h>
#include <mm/fault.h>
#include <selftest/selftest.h>

#define POOL ((size_t)4 << 20)
#define TAIL (MM_HARDEN >= 2 ? 8u : 0)

static struct byte_tlsf heap;
static const struct byte_ops *const ops = &byte_tlsf_ops;

static struct byte_alloc *start(void *mem, size_t nbytes)
{
	heap = (struct byte_tlsf){.base.ops = &byte_tlsf_ops};
	return mem && !ops->init(&heap.base, mem, nbytes) ? &heap.base : NULL;
}

/* Have everything merged that waits for reuse: looking for a free piece does so. */
static bool settle(struct byte_alloc *a)
{
	void *at;
	size_t nbytes;

	return !ops->take_free(a, &at, &nbytes);
}

/* No header; hardened levels add a word at the end. */
static size_t block_bytes(size_t size)
{
	size_t n = (size + TAIL + 7) & ~(size_t)7;

	return n < 24 ? 24 : n;
}

SELFTEST(mm, tlsf_overhead)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	size_t expected = 0;

	CHECK(a);
	for (size_t size = 1; size <= 3000; size += 7) {
		CHECK(ops->alloc(a, size, 8));
		expected += block_bytes(size);
		CHECK(ops->used_bytes(a) == expected);
	}
	CHECK(!ops->check(a));
}

/* An alignment costs nothing but what lies in front, which is free. */
SELFTEST(mm, tlsf_alignment_wastes_nothing)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);

	CHECK(a && ops->alloc(a, 1, 8));
	for (size_t align = 16; align <= MM_MAX_ALIGN; align *= 2) {
		size_t used = ops->used_bytes(a);
		uint8_t *p = ops->alloc(a, 200, align);

		CHECK(p && !((uintptr_t)p & (align - 1)));
		CHECK(ops->used_bytes(a) - used <= block_bytes(200) + 32);
		CHECK(!ops->check(a));
		CHECK(!ops->dealloc(a, p, 200, align) && ops->used_bytes(a) == used);
		CHECK(settle(a) && !ops->check(a));
	}
}

/* Holes of these sizes, kept apart by live blocks; freed from the last to the first. */
static int make_holes(struct byte_alloc *a, const size_t *size, void **hole, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		hole[i] = ops->alloc(a, size[i], 8);
		CHECK_OR(hole[i] && ops->alloc(a, 8, 8), -1);
	}
	while (n--)
		CHECK_OR(!ops->dealloc(a, hole[n], size[n], 8), -1);
	CHECK_OR(settle(a), -1);
	return 0;
}

SELFTEST(mm, tlsf_good_fit_small)
{
	static const size_t size[] = {1000, 200, 800, 400, 600};
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	void *hole[5];

	CHECK(a);
	if (make_holes(a, size, hole, 5))
		return;
	CHECK(ops->alloc(a, 400, 8) == hole[3]);
	CHECK(ops->alloc(a, 600, 8) == hole[4]);
	CHECK(ops->alloc(a, 200, 8) == hole[1]);
	CHECK(ops->alloc(a, 792, 8) == hole[2]);
}

/* Sizes of one list: the one that is large enough is found behind the one that is not. */
SELFTEST(mm, tlsf_good_fit_large)
{
	static const size_t size[] = {65600, 66000, 300000};
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	void *hole[3];

	CHECK(a);
	if (make_holes(a, size, hole, 3))
		return;
	CHECK(ops->alloc(a, 65900, 8) == hole[1]);
	CHECK(ops->alloc(a, 65600, 8) == hole[0]);
	CHECK(!ops->check(a));
}

struct free_count {
	size_t nblocks, largest;
};

static void count_free(void *ctx, const void *block, size_t nbytes, bool used)
{
	struct free_count *c = ctx;

	(void)block;
	c->nblocks += !used;
	if (!used && nbytes > c->largest)
		c->largest = nbytes;
}

static struct free_count free_blocks(struct byte_alloc *a)
{
	struct free_count c = {0, 0};

	ops->walk(a, count_free, &c);
	return c;
}

/* Blocks that are kept for reuse are merged before a request fails. */
SELFTEST(mm, tlsf_kept_blocks_are_no_loss)
{
	enum { N = 600 };
	static void *p[N];
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	size_t all;

	CHECK(a);
	all = free_blocks(a).largest - (MM_HARDEN >= 2 ? 8 : 0);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < N; i++)
			CHECK((p[i] = ops->alloc(a, 1 + i * 7 % 4000, 8)));
		CHECK(!ops->alloc(a, all, 8));
		for (size_t i = 0; i < N; i++)
			CHECK(!ops->dealloc(a, p[i], 1 + i * 7 % 4000, 8));
		CHECK(!ops->used_bytes(a) && !ops->check(a));
		CHECK((p[0] = ops->alloc(a, all, 8)) && !ops->available_bytes(a));
		CHECK(!ops->dealloc(a, p[0], all, 8) && !ops->check(a));
	}
}

/* Three neighbours, freed in every order, are one free block at the end. */
SELFTEST(mm, tlsf_merges_in_every_order)
{
	static const uint8_t order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
					    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
	static const size_t size[3] = {40, 700, 5000};
	uint8_t *mem = selftest_memory(POOL);

	for (size_t i = 0; i < 6; i++) {
		struct byte_alloc *a = start(mem, POOL);
		void *p[3], *guard[2];

		CHECK(a && (guard[0] = ops->alloc(a, 8, 8)));
		for (size_t j = 0; j < 3; j++)
			CHECK((p[j] = ops->alloc(a, size[j], 8)));
		CHECK((guard[1] = ops->alloc(a, 8, 8)));
		for (size_t j = 0; j < 3; j++)
			CHECK(!ops->dealloc(a, p[order[i][j]], size[order[i][j]], 8));
		CHECK(settle(a) && !ops->check(a));
		CHECK(free_blocks(a).nblocks == 2);
		CHECK(ops->alloc(a, 5740, 8) == p[0]);
	}
}

/* Whatever was done, what is left when all is free is one block per piece. */
SELFTEST(mm, tlsf_merges_completely)
{
	enum { SLOTS = 200 };
	static void *p[SLOTS];
	static size_t size[SLOTS];
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	size_t before, nbytes;
	uint64_t random = 3;
	void *at;

	CHECK(a);
	before = free_blocks(a).largest;
	__builtin_memset(p, 0, sizeof(p));
	for (int i = 0; i < 3000; i++) {
		uint64_t bits = selftest_random(&random);
		size_t slot = bits % SLOTS;

		if (p[slot])
			CHECK(!ops->dealloc(a, p[slot], size[slot], 8));
		size[slot] = 1 + (bits >> 8) % ((size_t)16 << (bits >> 40) % 10);
		p[slot] = ops->alloc(a, size[slot], 8);
	}
	for (size_t i = 0; i < SLOTS; i++)
		CHECK(!p[i] || !ops->dealloc(a, p[i], size[i], 8));
	CHECK(!ops->used_bytes(a) && !ops->check(a));
	CHECK(ops->take_free(a, &at, &nbytes) && nbytes == POOL);
	CHECK(!ops->add_memory(a, at, nbytes) && free_blocks(a).nblocks == 1);
	CHECK(free_blocks(a).largest == before);
}

/* Neighbouring pieces stay two, are counted, and go back as they came. */
SELFTEST(mm, tlsf_pieces)
{
	const size_t part = POOL / 4;
	uint8_t *mem = selftest_memory(POOL);
	struct byte_alloc *a = start(mem, part);
	bool seen[4] = {false};
	size_t first, later;

	CHECK(a);
	first = ops->available_bytes(a);
	CHECK(!ops->add_memory(a, mem + part, part));
	later = ops->available_bytes(a) - first;
	/* Its map is of whole frames of 1 KiB, with a byte for each. */
	CHECK(later <= first && later >= first - 2 * 1024 - part / (32 << 10) - 32);
	for (size_t i = 2; i < 4; i++)
		CHECK(!ops->add_memory(a, mem + i * part, part));
	CHECK(ops->add_memory(a, mem + part / 2, part) == ALLOC_MEMORY_OVERLAP);
	CHECK(ops->total_bytes(a) == POOL && ops->available_bytes(a) == first + 3 * later);
	CHECK(!ops->alloc(a, part, 8));
	for (size_t i = 0; i < 4; i++) {
		void *at;
		size_t nbytes, n;

		CHECK(ops->take_free(a, &at, &nbytes) && nbytes == part);
		n = (size_t)((uint8_t *)at - mem) / part;
		CHECK(at == mem + n * part && !seen[n]);
		seen[n] = true;
		CHECK(ops->total_bytes(a) == (3 - i) * part && !ops->check(a));
	}
	CHECK(settle(a) && !ops->available_bytes(a) && !ops->alloc(a, 1, 1));
}

/* A large block that starts 256 bytes before a frame of the map that was not in use before. */
static uint8_t *before_frame(struct byte_alloc *a)
{
	const size_t frame = (size_t)32 << 10, step = (size_t)20 << 10;
	uintptr_t next;

	do {
		uint8_t *p = ops->alloc(a, step, 8);

		if (!p)
			return NULL;
		next = (uintptr_t)p + block_bytes(step);
	} while (next % frame > frame - 256 - step);
	return ops->alloc(a, frame - 256 - next % frame - TAIL, 8) ? ops->alloc(a, 3 * frame, 8)
								   : NULL;
}

/*
 * The map of a piece that comes later is cleared as it comes into use: whatever was in the memory
 * before, in whatever order blocks begin there, and whether that is near its start or far away.
 */
SELFTEST(mm, tlsf_later_piece)
{
	enum { BLOCKS = 48 };
	static struct {
		uint8_t *p;
		size_t size, align;
	} b[BLOCKS];
	const size_t first = (size_t)16 << 10;
	uint8_t *mem = selftest_memory(POOL);
	struct byte_alloc *a = start(mem, first);
	uint64_t random = 3;
	size_t used;
	uint8_t *p;

	CHECK(a);
	for (size_t i = first; i < POOL; i += 8)
		*(uint64_t *)(mem + i) = 1; /* a block starts at each cell, if this is believed */
	CHECK(!ops->add_memory(a, mem + first, POOL - first) && !ops->check(a));
	for (size_t n = 0; MM_HARDEN && n < 64; n++)
		CHECK(ops->dealloc(a, mem + POOL - 4096 * (n + 1), 8 + 64 * n, 8));
	p = before_frame(a);
	CHECK(p && !ops->check(a));
	if (MM_HARDEN)
		CHECK(ops->dealloc(a, p, 256 - TAIL, 8) == MM_FAULT_WRONG_LAYOUT);
	used = ops->used_bytes(a);
	__builtin_memset(b, 0, sizeof(b));
	for (int i = 0; i < 1500; i++) {
		uint64_t bits = selftest_random(&random);
		size_t j = bits % BLOCKS;

		CHECK(!b[j].p || !ops->dealloc(a, b[j].p, b[j].size, b[j].align));
		b[j].size = 1 + (bits >> 8) % ((size_t)16 << (bits >> 40) % 14);
		b[j].align = (size_t)8 << (bits >> 48) % 13;
		b[j].p = ops->alloc(a, b[j].size, b[j].align);
		CHECK(!b[j].p || ops->block_size(a, b[j].p) >= b[j].size);
		CHECK(!ops->check(a));
	}
	for (size_t j = 0; j < BLOCKS; j++)
		CHECK(!b[j].p || !ops->dealloc(a, b[j].p, b[j].size, b[j].align));
	CHECK(!ops->check(a) && ops->used_bytes(a) == used);
}

/* Frees that change between more pieces than any view remembers, which come and go. */
SELFTEST(mm, tlsf_many_pieces)
{
	enum { PIECES = 100, BLOCKS = 400 };
	static uint8_t *p[BLOCKS];
	const size_t part = POOL / PIECES / 64 * 64;
	uint8_t *mem = selftest_memory(POOL);
	struct byte_alloc *a = mem ? start(mem + 50 * part, part) : NULL;
	uint64_t random = 11;
	size_t nbytes, taken = 0;
	void *at;

	CHECK(a);
	for (size_t i = 0; i < PIECES; i++)
		CHECK(i == 50 || !ops->add_memory(a, mem + i * 37 % PIECES * part, part) ||
		      i * 37 % PIECES == 50);
	CHECK(ops->add_memory(a, mem + 50 * part, part) == ALLOC_MEMORY_OVERLAP);
	for (size_t i = 0; i < BLOCKS; i++)
		CHECK((p[i] = ops->alloc(a, 3000, 8)));
	for (int i = 0; i < 4000; i++) {
		size_t j = selftest_random(&random) % BLOCKS;

		CHECK(!ops->dealloc(a, p[j], 3000, 8));
		CHECK((p[j] = ops->alloc(a, 3000, 8)));
		p[j][0] = p[j][2999] = (uint8_t)j;
	}
	CHECK(!ops->check(a));
	for (size_t i = 0; i < BLOCKS; i++)
		CHECK(p[i][0] == (uint8_t)i && !ops->dealloc(a, p[i], 3000, 8));
	CHECK(!ops->check(a) && !ops->used_bytes(a));
	while (ops->take_free(a, &at, &nbytes))
		taken += nbytes;
	CHECK(taken >= PIECES * part - part && !ops->total_bytes(a));
}

/* What a block gives up or takes back may be a crumb, too small for a list. */
SELFTEST(mm, tlsf_resize_by_crumbs)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	uint8_t *p, *q;

	CHECK(a);
	for (size_t step = 8; step <= 32; step += 8)
		for (size_t part = 8; part <= step; part += 8) {
			size_t used = ops->used_bytes(a), size = 80;

			CHECK((p = ops->alloc(a, size, 8)) && (q = ops->alloc(a, 80, 8)));
			CHECK(ops->resize(a, p, size, 8, size - step) && !ops->check(a));
			CHECK(ops->resize(a, p, size - step, 8, size - step + part));
			CHECK(!ops->check(a));
			CHECK(ops->resize(a, p, size - step + part, 8, size) && !ops->check(a));
			CHECK(!ops->dealloc(a, p, size, 8) && !ops->dealloc(a, q, 80, 8));
			CHECK(ops->used_bytes(a) == used && !ops->check(a));
		}
}

SELFTEST(mm, tlsf_resize)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	uint8_t *p, *wall;
	size_t used;

	CHECK(a && (p = ops->alloc(a, 1000, 8)));
	used = ops->used_bytes(a);
	for (size_t i = 0; i < 1000; i++)
		p[i] = (uint8_t)i;
	CHECK(ops->resize(a, p, 1000, 8, 100000) && !ops->check(a));
	CHECK(ops->used_bytes(a) == used - block_bytes(1000) + block_bytes(100000));
	CHECK((wall = ops->alloc(a, 3000, 8)));
	CHECK(!ops->resize(a, p, 100000, 8, 101000));
	CHECK(ops->resize(a, p, 100000, 8, 500) && !ops->check(a));
	CHECK(ops->resize(a, p, 500, 8, 90000) && !ops->check(a));
	for (size_t i = 0; i < 500; i++)
		CHECK(p[i] == (uint8_t)i);
	CHECK(!ops->resize(a, p, 90000, 8, (size_t)1 << 50));
	CHECK(!ops->dealloc(a, p, 90000, 8) && !ops->dealloc(a, wall, 3000, 8));
	CHECK(!ops->used_bytes(a) && !ops->check(a));
}

#if MM_HARDEN >= 1
/* The cell of the map for the 512 bytes around an address: where live blocks start, where free
 * memory starts and ends. */
static uint64_t *map_cell(uintptr_t addr)
{
	return (uint64_t *)(heap.view.map + (addr >> 9) * 16);
}

/* A map that was written over is told, wherever it matters for a free; repaired, all is well. */
SELFTEST(mm, tlsf_smashed_map)
{
	static const ptrdiff_t units[] = {0, 1, 8, 30, 63, 75};
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	size_t used;
	uint8_t *p;

	CHECK(a && ops->alloc(a, 600, 8));
	CHECK((p = ops->alloc(a, 600, 8)) && ops->alloc(a, 600, 8));
	used = ops->used_bytes(a);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		uintptr_t addr = (uintptr_t)p + (uintptr_t)units[i] * 8;
		uint64_t bit = (uint64_t)1 << (addr / 8 % 64);

		*map_cell(addr) ^= bit;
		CHECK(ops->dealloc(a, p, 600, 8) != MM_FAULT_NONE);
		CHECK(!ops->resize(a, p, 600, 8, 300) && ops->used_bytes(a) == used);
		*map_cell(addr) ^= bit;
		map_cell(addr)[1] ^= bit;
		CHECK(ops->check(a));
		map_cell(addr)[1] ^= bit;
	}
	CHECK(!ops->check(a) && !ops->dealloc(a, p, 600, 8) && !ops->check(a));
}

/* Any size that leads to another block is refused, also where another block ends there. */
SELFTEST(mm, tlsf_exact_sizes)
{
	enum { N = 60 };
	static const size_t sizes[] = {24, 40, 64, 200, 504, 512, 600, 1504};
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	uint8_t *p[N];

	CHECK(a);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t size = sizes[i] - (MM_HARDEN >= 2 ? 8 : 0);

		for (size_t j = 0; j < N; j++)
			CHECK((p[j] = ops->alloc(a, size, 8)));
		for (size_t claim = 8; claim < 8 * sizes[i] && claim < 4000; claim += 8)
			CHECK(block_bytes(claim) == sizes[i] ||
			      ops->dealloc(a, p[N / 2], claim, 8) == MM_FAULT_WRONG_LAYOUT);
		for (size_t j = 0; j < N; j++)
			CHECK(!ops->dealloc(a, p[j], size, 8));
		CHECK(!ops->check(a) && !ops->used_bytes(a));
	}
}

/* A block freed twice is told wherever it is then: kept, in a list, or a part of a larger one. */
/* From level 2 on two large blocks are not freed as one, however far the second begins. */
SELFTEST(mm, tlsf_two_as_one)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	char *p, *q;

	if (MM_HARDEN < 2) {
		selftest_skip("level 1 looks at the first 8 KiB");
		return;
	}
	CHECK(a && (p = ops->alloc(a, 50000, 8)) && (q = ops->alloc(a, 50000, 8)));
	CHECK((size_t)(q - p) == block_bytes(50000));
	CHECK(ops->dealloc(a, p, (size_t)(q - p) + 50000, 8) == MM_FAULT_WRONG_LAYOUT);
	CHECK(!ops->dealloc(a, p, 50000, 8) && !ops->dealloc(a, q, 50000, 8));
}

SELFTEST(mm, tlsf_double_free)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	uint8_t *p[8];

	CHECK(a);
	for (size_t i = 0; i < 8; i++)
		CHECK((p[i] = ops->alloc(a, 100, 8)));
	for (size_t i = 0; i < 7; i++) {
		CHECK(!ops->dealloc(a, p[i], 100, 8));
		for (size_t j = 0; j <= i; j++)
			CHECK(ops->dealloc(a, p[j], 100, 8) == MM_FAULT_DOUBLE_FREE);
	}
	CHECK(settle(a) && !ops->check(a));
	for (size_t i = 0; i < 7; i++)
		CHECK(ops->dealloc(a, p[i], 100, 8) == MM_FAULT_DOUBLE_FREE);
	CHECK(!ops->dealloc(a, p[7], 100, 8) && !ops->used_bytes(a));
}

/* The links of a free block were written over: reported, the list given up, and on it goes. */
static int smash_links(void *mem, size_t size)
{
	unsigned long faults = mm_fault_count();
	struct byte_alloc *a = start(mem, POOL);
	uint8_t *p;

	CHECK_OR(a && (p = ops->alloc(a, size, 8)) && ops->alloc(a, 8, 8), -1);
	CHECK_OR(!ops->dealloc(a, p, size, 8) && settle(a), -1);
	__builtin_memset(p, 0x41, 16);
	CHECK_OR(ops->alloc(a, size, 8), -1);
	CHECK_OR(mm_fault_count() > faults, -1);
	for (int i = 0; i < 200; i++) {
		uint8_t *q = ops->alloc(a, size, 8);

		CHECK_OR(q && q != p, -1);
		__builtin_memset(q, 0x55, size);
		CHECK_OR(!ops->dealloc(a, q, size, 8), -1);
	}
	return 0;
}

SELFTEST(mm, tlsf_smashed_links)
{
	static const size_t sizes[] = {24, 100, 600, 5000, 70000};
	void *mem = selftest_memory(POOL);
	int result = 0;

	mm_fault_expect(true);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !result; i++)
		result = smash_links(mem, sizes[i]);
	mm_fault_expect(false);
	CHECK(!result);
}

/* What the free block in front says about itself was written over: its neighbour is not merged with
 * it. */
SELFTEST(mm, tlsf_smashed_tag)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	uint8_t *p, *q;
	size_t used;

	CHECK(a && (p = ops->alloc(a, 600, 8)));
	CHECK((q = ops->alloc(a, 600, 8)) && ops->alloc(a, 600, 8));
	CHECK(!ops->dealloc(a, p, 600, 8) && settle(a));
	__builtin_memset(q - 8, 0x41, 8);
	used = ops->used_bytes(a);
	mm_fault_expect(true);
	/* Refused, or done without the neighbour, but never on wrong addresses. */
	if (ops->dealloc(a, q, 600, 8))
		CHECK(ops->used_bytes(a) == used);
	mm_fault_expect(false);
	CHECK(ops->alloc(a, 5000, 8));
}
#endif

#if MM_HARDEN >= 2
SELFTEST(mm, tlsf_canary)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);

	CHECK(a);
	for (size_t size = 1; size < 2000; size += 61) {
		uint8_t *p = ops->alloc(a, size, 8);

		CHECK(p);
		p[size] ^= 1;
		CHECK(ops->dealloc(a, p, size, 8) == MM_FAULT_OVERFLOW);
		p[size] ^= 1;
		CHECK(!ops->dealloc(a, p, size, 8));
	}
}

SELFTEST(mm, tlsf_poison)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	unsigned long faults = mm_fault_count();
	uint8_t *p;

	CHECK(a && (p = ops->alloc(a, 600, 8)) && ops->alloc(a, 8, 8));
	CHECK(!ops->dealloc(a, p, 600, 8) && settle(a));
	p[300] = 1;
	mm_fault_expect(true);
	CHECK(ops->alloc(a, 600, 8));
	mm_fault_expect(false);
	CHECK(mm_fault_count() > faults && mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE);
}
#endif

#if MM_HARDEN >= 3
/* A freed block is not handed out again at once, and a write to it meanwhile is told when it is. */
SELFTEST(mm, tlsf_quarantine)
{
	struct byte_alloc *a = start(selftest_memory(POOL), POOL);
	unsigned long faults = mm_fault_count();
	uint8_t *p, *q;

	CHECK(a && (p = ops->alloc(a, 64, 8)) && ops->alloc(a, 64, 8));
	CHECK(!ops->dealloc(a, p, 64, 8));
	CHECK(ops->dealloc(a, p, 64, 8) == MM_FAULT_DOUBLE_FREE);
	CHECK((q = ops->alloc(a, 64, 8)) && q != p);
	p[20] = 1;
	mm_fault_expect(true);
	CHECK(settle(a));
	mm_fault_expect(false);
	CHECK(mm_fault_count() == faults + 1);
	CHECK(mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE && mm_fault_last().ptr == p);
}
#endif
