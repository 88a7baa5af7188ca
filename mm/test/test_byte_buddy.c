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

/* Lengths that are powers of two lie at multiples of themselves, and nothing is rounded up to one.
 */
SELFTEST(mm, buddy_natural_alignment_and_trim)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	const size_t tail = MM_HARDEN >= 2 ? 8 : 0;
	void *p[12];

	CHECK(a);
	for (size_t size = 16; size <= 65536; size *= 2) {
		size_t used = ops->used_bytes(a);

		for (size_t i = 0; i < 12; i++) {
			CHECK((p[i] = ops->alloc(a, size - tail, 8)));
			CHECK(!((uintptr_t)p[i] & (size - 1)));
			CHECK(ops->used_bytes(a) == used + (i + 1) * size);
		}
		for (size_t i = 0; i < 12; i++)
			CHECK(!ops->dealloc(a, p[i], size - tail, 8));
	}
	for (size_t size = 16; size <= 70000; size += size / 3) {
		CHECK((p[0] = ops->alloc(a, size, 8)));
		CHECK(ops->used_bytes(a) <= size + 32);
		CHECK(!ops->dealloc(a, p[0], size, 8));
	}
}

/* Where a granule waits to be settled because of a small free, and becomes whole by the free of a
 * long block that ends in it, its place is taken before it is settled: the new block must stay.
 */
SELFTEST(mm, buddy_block_where_a_granule_waited)
{
	enum { PAIRS = 40, FILL = POOL / 1024 };
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	const size_t tail = MM_HARDEN >= 2 ? 8 : 0;
	/* Four granules and a half, which is not parked; the other half of the fifth; one granule.
	 */
	const size_t longer = 4608 - tail, half = 512 - tail, whole = 1024 - tail;
	static void *p[PAIRS], *q[PAIRS], *r[FILL];
	size_t n = 0;

	CHECK(a);
	for (size_t i = 0; i < PAIRS; i++)
		CHECK((p[i] = ops->alloc(a, longer, 8)) && (q[i] = ops->alloc(a, half, 8)));
	for (size_t i = 0; i < PAIRS; i++)
		CHECK(!ops->dealloc(a, q[i], half, 8));
	for (size_t i = 0; i < PAIRS; i++) {
		CHECK(!ops->dealloc(a, p[i], longer, 8));
		CHECK(!ops->check(a));
	}
	/* The request that fails has settled what waits. */
	while (n < FILL && (r[n] = ops->alloc(a, whole, 8)))
		n++;
	CHECK(n > PAIRS && n < FILL && !ops->check(a));
	while (n--)
		CHECK(!ops->dealloc(a, r[n], whole, 8));
	CHECK(!ops->used_bytes(a) && !ops->check(a));
}

struct link {
	struct link *next;
};

/* Two pieces of half the pool each, settled in parts, full of blocks of 48 bytes: a list of each.
 */
static struct byte_alloc *fill_two_pieces(uint8_t *mem, struct link *lists[2])
{
	const struct byte_ops *ops = &byte_buddy_ops;
	uint8_t *second = mem + POOL / 2;
	struct byte_alloc *a = &heap.base;
	struct link *p;

	heap = (struct byte_buddy){.base.ops = ops, .base.in_parts = true};
	CHECK_OR(!ops->init(a, mem, POOL / 2) && !ops->add_memory(a, second, POOL / 2), NULL);
	while ((p = ops->alloc(a, 48, 8))) {
		p->next = lists[(uint8_t *)p >= second];
		lists[(uint8_t *)p >= second] = p;
	}
	return a;
}

/* Free a list of blocks of 48 bytes but for `keep` of them, which are returned. */
static struct link *free_but(struct byte_alloc *a, struct link *list, size_t keep)
{
	struct link *kept = NULL;

	while (list) {
		struct link *p = list;

		list = p->next;
		if (keep) {
			p->next = kept;
			kept = p;
			keep--;
		} else {
			CHECK_OR(!byte_buddy_ops.dealloc(a, p, 48, 8), NULL);
		}
	}
	return kept;
}

/* Free the first block of a list; the rest. */
static struct link *free_first(struct byte_alloc *a, struct link *list)
{
	struct link *rest;

	CHECK_OR(list, NULL);
	rest = list->next;
	CHECK_OR(!byte_buddy_ops.dealloc(a, list, 48, 8), NULL);
	return rest;
}

static void settle(struct byte_alloc *a)
{
	unsigned int part = 0;

	do
		part = byte_buddy_ops.settle(a, part);
	while (part);
}

/* A piece goes back while a granule of it waits to be settled: nobody may look for it there. */
SELFTEST(mm, buddy_gives_back_where_a_granule_waited)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	uint8_t *mem = selftest_memory(POOL), *second = mem + POOL / 2;
	struct link *p, *lists[2] = {NULL};
	void *taken;
	size_t nbytes;
	struct byte_alloc *a;

	CHECK(mem);
	a = fill_two_pieces(mem, lists);
	CHECK(a);
	lists[1] = free_but(a, lists[1], 1);
	settle(a);
	/* As many of the first piece as are parked; the one after them is merged late. */
	CHECK(lists[1]);
	for (size_t i = 0; i < BUDDY_PARKED_DEPTH; i++)
		lists[0] = free_first(a, lists[0]);
	(void)free_but(a, lists[1], 0);
	if (MM_HARDEN >= 3)
		settle(a);		    /* the quarantine */
	lists[0] = free_first(a, lists[0]); /* now the first piece is the recent one */
	CHECK(ops->take_free(a, &taken, &nbytes) && taken == second && !ops->check(a));
	__builtin_memset(second, 0x5a, POOL / 2);
	p = lists[0];
	CHECK(p);
	lists[0] = p->next;
	CHECK(byte_buddy_dealloc_shortest(a, p, 48, 8) || !ops->dealloc(a, p, 48, 8));
	(void)free_but(a, lists[0], 0);
	settle(a);
	CHECK(!ops->check(a) && !ops->used_bytes(a));
	CHECK(ops->take_free(a, &taken, &nbytes) && taken == mem);
}

/* Settling ends when all is merged that was parked before, whatever is parked meanwhile. */
SELFTEST(mm, buddy_settles_the_oldest)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	uint8_t *mem = selftest_memory(POOL), *second = mem + POOL / 2;
	struct link *lists[2] = {NULL};
	struct byte_alloc *a;
	unsigned int part;
	void *taken;
	size_t nbytes;

	CHECK(mem);
	if (MM_HARDEN >= 3) {
		selftest_skip("nothing is parked");
		return;
	}
	a = fill_two_pieces(mem, lists);
	CHECK(a);
	lists[1] = free_but(a, lists[1], BUDDY_PARKED_DEPTH);
	settle(a);
	(void)free_but(a, lists[1], 0);
	part = ops->settle(a, 0);
	for (size_t i = 0; i < BUDDY_PARKED_DEPTH / 2 + 1; i++)
		lists[0] = free_first(a, lists[0]);
	while (part)
		part = ops->settle(a, part);
	CHECK(ops->take_free(a, &taken, &nbytes) && taken == second && !ops->check(a));
}

static void lowest_block(void *ctx, const void *block, size_t nbytes, bool used)
{
	const void **lowest = ctx;

	(void)nbytes;
	(void)used;
	if (block < *lowest)
		*lowest = block;
}

/* Whatever word of the nodes is overwritten, check() reads nothing but them and comes back. */
SELFTEST(mm, buddy_check_survives_smashed_nodes)
{
	/* The header of the piece is what tells where the nodes are. */
	enum { HEADER = 13 + BUDDY_LEVELS, STEP = MM_HARDEN >= 2 ? 11 : 3 };
	static const uint64_t masks[] = {UINT64_MAX, 1, (uint64_t)1 << 63, 0x00ff00ff00ff00ff};
	const struct byte_ops *ops = &byte_buddy_ops;
	uint64_t *mem = selftest_memory(POOL);
	struct byte_alloc *a = start(mem);
	const void *first = (uint8_t *)mem + POOL;
	size_t noticed = 0;

	CHECK(a);
	for (size_t i = 0; i < 60; i++)
		CHECK(ops->alloc(a, 1 + i * i * 5, 8));
	ops->walk(a, lowest_block, &first);
	CHECK(!ops->check(a));
	for (uint64_t *word = mem + HEADER; (const void *)word < first; word += STEP) {
		uint64_t saved = *word;

		for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
			*word = saved ^ masks[i];
			noticed += ops->check(a) != NULL;
		}
		*word = saved;
	}
	CHECK(noticed && !ops->check(a));
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

#if MM_HARDEN < 3 /* where no quarantine is emptied at once */
/* The engine and its nodes, as they were before an operation. */
struct snapshot {
	struct byte_buddy heap;
	uint64_t nodes[POOL / 32 / sizeof(uint64_t)];
};

static void first_block(void *ctx, const void *block, size_t nbytes, bool used)
{
	const void **first = ctx;

	(void)nbytes;
	(void)used;
	if (!*first)
		*first = block;
}

static size_t words_changed(const void *now, const void *then, size_t nbytes)
{
	const uint64_t *a = now, *b = then;
	size_t n = 0;

	for (size_t i = 0; i < nbytes / sizeof(*a); i++)
		n += a[i] != b[i];
	return n;
}

struct work {
	struct snapshot *before;
	const uint8_t *nodes;
	size_t nbytes;
	size_t most; /* words that any operation changed */
};

static void work_begin(struct work *w)
{
	w->before->heap = heap;
	__builtin_memcpy(w->before->nodes, w->nodes, w->nbytes);
}

static void work_end(struct work *w)
{
	size_t n = words_changed(&heap, &w->before->heap, sizeof(heap)) +
		   words_changed(w->nodes, w->before->nodes, w->nbytes);

	if (n > w->most)
		w->most = n;
}

/* Allocate so many blocks, so that nodes are split, and free them, so that they merge again. */
static int measure(struct byte_alloc *a, struct work *w, size_t size, size_t count)
{
	void *p[24];

	for (size_t i = 0; i < count; i++) {
		work_begin(w);
		p[i] = a->ops->alloc(a, size, 8);
		work_end(w);
		CHECK_OR(p[i], -1);
	}
	for (size_t i = 0; i < count; i++) {
		work_begin(w);
		CHECK_OR(!a->ops->dealloc(a, p[i], size, 8), -1);
		work_end(w);
	}
	return 0;
}

/* However much is free or was freed before, one operation changes a few words. */
SELFTEST(mm, buddy_bounded_work)
{
	uint8_t *mem = selftest_memory(POOL + sizeof(struct snapshot));
	struct byte_alloc *a = start(mem);
	struct work w = {.before = (struct snapshot *)(mem + POOL), .nodes = mem};
	const void *first = NULL;

	CHECK(a);
	/* What is cleared when it is first used is no change then. */
	__builtin_memset(mem, 0, POOL / 32);
	a = start(mem);
	byte_buddy_ops.walk(a, first_block, &first);
	w.nbytes = (size_t)((const uint8_t *)first - mem) & ~(size_t)7;
	CHECK(w.nbytes <= sizeof(w.before->nodes));
	CHECK(!measure(a, &w, 16, 24) && !measure(a, &w, 900, 24));
	CHECK(!measure(a, &w, 1040, 12) && !measure(a, &w, 5000, 12));
	CHECK(!measure(a, &w, 70000, 4) && !measure(a, &w, 300000, 1));
	selftest_note("%zu words", w.most);
	CHECK(w.most > 4 && w.most <= 32);
}
#endif

static bool same_node(const void *a, const void *b, size_t node_bytes)
{
	return ((uintptr_t)a ^ (uintptr_t)b) < node_bytes;
}

/*
 * The last part of a block may lie in a child that others are in too, when nothing else
 * is free; both are children of one node.
 */
SELFTEST(mm, buddy_uses_partly_split_children)
{
	const struct byte_ops *ops = &byte_buddy_ops;
	struct byte_alloc *a = start(selftest_memory(POOL));
	const size_t chunk = 65536, size = chunk + 8000;
	uint8_t *p[POOL / 65536], *whole = NULL, *behind, *front;
	size_t n = 0;

	CHECK(a);
	while (n < POOL / chunk && (p[n] = ops->alloc(a, chunk - 8, 8)))
		n++;
	for (size_t i = 0; i < n * n; i++)
		if (p[i / n] == p[i % n] + chunk && same_node(p[i / n], p[i % n], 64 * chunk))
			whole = p[i % n];
	CHECK(whole);
	while (ops->alloc(a, 1000, 8))
		;
	behind = whole + chunk;
	CHECK(!ops->dealloc(a, behind, chunk - 8, 8));
	CHECK((front = ops->alloc(a, 16000, 8)) == behind);
	CHECK(ops->alloc(a, 30000, 8) > (void *)front);
	CHECK(!ops->dealloc(a, front, 16000, 8) && !ops->alloc(a, size, 8));
	CHECK(!ops->dealloc(a, whole, chunk - 8, 8) && ops->alloc(a, size, 8) == whole);
	CHECK(ops->block_size(a, whole) >= size && ops->block_size(a, whole) < size + 32);
	CHECK(!ops->check(a) && !ops->dealloc(a, whole, size, 8) && !ops->check(a));
	CHECK(ops->alloc(a, chunk - 8, 8) == whole);
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
