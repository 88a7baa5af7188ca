/* SPDX-License-Identifier: MIT */
/* What every byte allocator must do, run on each of the three through its table of operations. */
#include <mm/fault.h>
#include <selftest/selftest.h>

#include "shadow.h"

#define POOL ((size_t)4 << 20)

static const struct byte_ops *const engines[] = {&byte_tlsf_ops, &byte_slab_ops, &byte_buddy_ops};
#define NENGINES (sizeof(engines) / sizeof(engines[0]))

static union byte_engine heap;
static struct shadow shadow;

static struct byte_alloc *without_memory(const struct byte_ops *ops)
{
	__builtin_memset(&heap, 0, sizeof(heap)); /* in its place: it is too large for a stack */
	heap.base.ops = ops;
	return &heap.base;
}

static struct byte_alloc *start(const struct byte_ops *ops, void *mem, size_t nbytes)
{
	struct byte_alloc *a = without_memory(ops);

	return ops->init(a, mem, nbytes) ? NULL : a;
}

/* Run one check on every engine, over the same fresh memory. */
static void each_engine(int (*test)(const struct byte_ops *ops, uint8_t *mem), size_t nbytes)
{
	uint8_t *mem = selftest_memory(nbytes);

	if (!mem) {
		selftest_skip("not enough memory");
		return;
	}
	for (size_t i = 0; i < NENGINES; i++) {
		selftest_note("%s", engines[i]->name);
		if (test(engines[i], mem))
			return;
	}
}

static int check_alignments(const struct byte_ops *ops, uint8_t *mem)
{
	struct byte_alloc *a = start(ops, mem, POOL);

	CHECK_OR(a, -1);
	for (size_t align = 1; align <= MM_MAX_ALIGN; align *= 2) {
		for (size_t size = 1; size <= 5000; size = size * 3 + 1) {
			uint8_t *p = ops->alloc(a, size, align);

			CHECK_OR(p && !((uintptr_t)p & (align - 1)), -1);
			CHECK_OR(p >= mem && p + size <= mem + POOL, -1);
			CHECK_OR(ops->block_size(a, p) >= size, -1);
			CHECK_OR(ops->dealloc(a, p, size, align) == MM_FAULT_NONE, -1);
		}
	}
	CHECK_OR(!ops->used_bytes(a) && !ops->check(a), -1);
	return 0;
}

SELFTEST(mm, engines_alignments)
{
	each_engine(check_alignments, POOL);
}

static int check_impossible(const struct byte_ops *ops, uint8_t *mem)
{
	static const size_t sizes[] = {POOL, POOL + 1, (size_t)1 << 40, (size_t)1 << 62,
				       (size_t)PTRDIFF_MAX - MM_MAX_ALIGN};
	struct byte_alloc *a = start(ops, mem, POOL);
	size_t available;

	CHECK_OR(a, -1);
	available = ops->available_bytes(a);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		CHECK_OR(!ops->alloc(a, sizes[i], 8), -1);
		CHECK_OR(!ops->alloc(a, sizes[i], MM_MAX_ALIGN), -1);
	}
	CHECK_OR(!ops->used_bytes(a) && ops->available_bytes(a) == available, -1);
	CHECK_OR(!ops->check(a), -1);
	return 0;
}

SELFTEST(mm, engines_impossible_sizes)
{
	each_engine(check_impossible, POOL);
}

static int check_init(const struct byte_ops *ops, uint8_t *mem)
{
	struct byte_alloc *a = without_memory(ops);
	void *at;
	size_t nbytes;

	CHECK_OR(!ops->alloc(a, 64, 8), -1);
	CHECK_OR(!MM_HARDEN || ops->dealloc(a, mem, 64, 8) == MM_FAULT_FOREIGN, -1);
	CHECK_OR(!ops->alloc_local || !ops->alloc_local(a, 64, 8, 0), -1);
	CHECK_OR(!ops->dealloc_local || ops->dealloc_local(a, mem, 64, 8, 0) == MM_FAULT_KINDS, -1);
	CHECK_OR(!ops->settle(a, 0), -1);
	CHECK_OR(!ops->take_free(a, &at, &nbytes), -1);
	CHECK_OR(!ops->total_bytes(a) && !ops->available_bytes(a), -1);
	CHECK_OR(ops->init(a, mem, 8) == ALLOC_INVALID_PARAM, -1);
	/* Nothing is written there before it is refused. */
	CHECK_OR(ops->init(a, (void *)-POOL, POOL - MM_PAGE_SIZE) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(ops->init(a, (void *)(BYTE_ALLOC_TOP - POOL), POOL + 1) == ALLOC_INVALID_PARAM,
		 -1);
	CHECK_OR(ops->init(a, (void *)-POOL, POOL + 1) == ALLOC_INVALID_PARAM, -1);
	return 0;
}

SELFTEST(mm, engines_without_memory)
{
	each_engine(check_init, MM_PAGE_SIZE);
}

/* Chain the blocks of one size until memory is out; returns how many. */
static size_t exhaust(struct byte_alloc *a, size_t size, void ***last)
{
	size_t n = 0;
	void **p;

	for (*last = NULL; (p = a->ops->alloc(a, size, 8)); n++) {
		*p = (void *)*last;
		*last = p;
	}
	return n;
}

static int give_all_back(struct byte_alloc *a, size_t size, void **last)
{
	while (last) {
		void **p = last;

		last = *p;
		CHECK_OR(a->ops->dealloc(a, p, size, 8) == MM_FAULT_NONE, -1);
	}
	return 0;
}

static int check_exhaustion(const struct byte_ops *ops, uint8_t *mem)
{
	static const size_t sizes[] = {16, 48, 100, 1000, 5000, 40000, 16};
	const size_t pool = 512 * 1024;
	struct byte_alloc *a = start(ops, mem, pool);

	CHECK_OR(a, -1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		void **last;
		size_t n = exhaust(a, sizes[i], &last);

		CHECK_OR(n * sizes[i] > pool / (sizes[i] < 32 ? 4 : 3), -1);
		INVARIANT_OR(!ops->check(a), -1);
		INVARIANT_OR(!give_all_back(a, sizes[i], last), -1);
		INVARIANT_OR(!ops->used_bytes(a) && !ops->check(a), -1);
	}
	return 0;
}

SELFTEST(mm, engines_exhaustion)
{
	each_engine(check_exhaustion, 512 * 1024);
}

static int check_pieces(const struct byte_ops *ops, uint8_t *mem)
{
	const size_t half = POOL / 2;
	struct byte_alloc *a = start(ops, mem, half);
	size_t taken_bytes;
	void *taken;
	void *p;

	CHECK_OR(a, -1);
	CHECK_OR(ops->add_memory(a, mem + half, half) == ALLOC_OK, -1);
	CHECK_OR(ops->total_bytes(a) == POOL, -1);
	p = ops->alloc(a, 64, 8);
	CHECK_OR(p, -1);
	CHECK_OR(ops->take_free(a, &taken, &taken_bytes) && taken_bytes == half, -1);
	CHECK_OR(taken == ((uint8_t *)p < mem + half ? mem + half : mem), -1);
	CHECK_OR(!ops->take_free(a, &taken, &taken_bytes), -1);
	CHECK_OR(ops->total_bytes(a) == half, -1);
	CHECK_OR(ops->dealloc(a, p, 64, 8) == MM_FAULT_NONE, -1);
	CHECK_OR(ops->take_free(a, &taken, &taken_bytes) && !ops->total_bytes(a), -1);
	CHECK_OR(!ops->alloc(a, 1, 1), -1);
	return 0;
}

SELFTEST(mm, engines_pieces)
{
	each_engine(check_pieces, POOL);
}

static int check_grow_size(const struct byte_ops *ops, uint8_t *mem)
{
	for (size_t align = 8; align <= 64 * 1024; align *= 8) {
		for (size_t size = 1; size < 200000; size = size * 5 + 3) {
			struct byte_alloc *a = without_memory(ops);
			size_t need = ops->grow_size(a, size, align);
			void *p;

			CHECK_OR(need >= size, -1);
			if (need > POOL - 64)
				continue;
			CHECK_OR(ops->init(a, mem + (size & 31) * 2, need) == ALLOC_OK, -1);
			p = ops->alloc(a, size, align);
			CHECK_OR(p && ops->dealloc(a, p, size, align) == MM_FAULT_NONE, -1);
		}
	}
	return 0;
}

SELFTEST(mm, engines_grow_size)
{
	each_engine(check_grow_size, POOL);
}

struct walk_sum {
	size_t used, nused;
	const uint8_t *last;
	bool ordered;
};

static void walk_sum(void *ctx, const void *block, size_t nbytes, bool used)
{
	struct walk_sum *w = ctx;

	w->ordered &= (const uint8_t *)block >= w->last;
	w->last = (const uint8_t *)block + nbytes;
	w->used += used ? nbytes : 0;
	w->nused += used;
}

static int check_walk(const struct byte_ops *ops, uint8_t *mem)
{
	struct byte_alloc *a = start(ops, mem, POOL);
	struct walk_sum w = {.ordered = true};
	void *p[40];

	CHECK_OR(a, -1);
	for (size_t i = 0; i < 40; i++)
		CHECK_OR((p[i] = ops->alloc(a, i * 37 + 1, 8)), -1);
	for (size_t i = 0; i < 40; i += 2)
		CHECK_OR(!ops->dealloc(a, p[i], i * 37 + 1, 8), -1);
	ops->walk(a, walk_sum, &w);
	CHECK_OR(w.ordered && w.nused == 20, -1);
	CHECK_OR(w.used >= 20 * 20 * 37 && w.used <= POOL, -1);
	return 0;
}

SELFTEST(mm, engines_walk)
{
	each_engine(check_walk, POOL);
}

/* Random operations, everything verified around each. */
static int check_shadow(const struct byte_ops *ops, uint8_t *mem)
{
	uint64_t random = 1;
	const char *wrong = shadow_init(&shadow, ops, mem);

	for (int i = 0; i < 400 && !wrong; i++) {
		uint64_t bits = selftest_random(&random);
		uint8_t op[SHADOW_OP_BYTES];

		__builtin_memcpy(op, &bits, sizeof(op));
		wrong = shadow_step(&shadow, op);
		if (wrong)
			selftest_note("step %d", i);
	}
	if (!wrong)
		wrong = shadow_finish(&shadow);
	if (wrong)
		selftest_note("%s", wrong);
	INVARIANT_OR(!wrong, -1);
	return 0;
}

SELFTEST(mm, engines_shadow)
{
	each_engine(check_shadow, SHADOW_ARENA);
}

/* A small heap kept full: whatever is freed must be found again, for ever. */
static int check_full(const struct byte_ops *ops, uint8_t *mem)
{
	enum { SLOTS = 512 };
	static void *p[SLOTS];
	static uint16_t size[SLOTS];
	struct byte_alloc *a = start(ops, mem, 128 * 1024);
	uint64_t random = 7;
	size_t failures = 0;

	CHECK_OR(a, -1);
	__builtin_memset(p, 0, sizeof(p));
	for (int i = 0; i < 20000; i++) {
		uint64_t bits = selftest_random(&random);
		size_t slot = bits % SLOTS;

		if (p[slot])
			INVARIANT_OR(!ops->dealloc(a, p[slot], size[slot], 8), -1);
		size[slot] = (uint16_t)(1 + (bits >> 16) % 600);
		p[slot] = ops->alloc(a, size[slot], 8);
		failures += !p[slot];
	}
	INVARIANT_OR(!ops->check(a), -1);
	/* Full means that requests fail; recovering means that most do not. */
	CHECK_OR(failures > 0 && failures < 14000, -1);
	for (size_t i = 0; i < SLOTS; i++)
		INVARIANT_OR(!p[i] || !ops->dealloc(a, p[i], size[i], 8), -1);
	INVARIANT_OR(!ops->used_bytes(a) && !ops->check(a), -1);
	return 0;
}

SELFTEST(mm, engines_full_occupancy)
{
	each_engine(check_full, 128 * 1024);
}

/* --- Many blocks of any length ------------------------------------------------- */

/* A live block, stamped at both ends. */
struct stamped {
	uint8_t *p;
	size_t size;
	uint8_t stamp;
};

static void stamp(struct stamped *b, uint8_t value)
{
	b->stamp = value;
	b->p[0] = b->p[b->size - 1] = value;
}

static bool is_stamped(const struct stamped *b)
{
	return b->p[0] == b->stamp && b->p[b->size - 1] == b->stamp;
}

/* As many of each power of two to 16 KiB, but few that are long. */
static size_t any_length(uint64_t bits)
{
	return 1 + (bits >> 16) % ((size_t)16 << (bits >> 8 & 31) % 11 >> (bits >> 13 & 3));
}

static int replace(struct byte_alloc *a, struct stamped *b, uint64_t bits)
{
	size_t size = any_length(bits);

	if (b->p && bits >> 60 < 3) {
		INVARIANT_OR(is_stamped(b), -1);
		if (a->ops->resize(a, b->p, b->size, 8, size)) {
			b->size = size;
			stamp(b, (uint8_t)bits);
		}
		return 0;
	}
	if (b->p) {
		INVARIANT_OR(is_stamped(b), -1);
		INVARIANT_OR(!a->ops->dealloc(a, b->p, b->size, 8), -1);
		b->p = NULL;
	}
	/* Every second place stays empty: lengths meet what others left. */
	if (bits >> 59 & 1)
		return 0;
	b->size = size;
	b->p = a->ops->alloc(a, size, 8);
	if (b->p)
		stamp(b, (uint8_t)bits);
	return 0;
}

static int check_any_length(const struct byte_ops *ops, uint8_t *mem)
{
	enum { SLOTS = 2000 };
	static struct stamped blocks[SLOTS];
	struct byte_alloc *a = start(ops, mem, POOL);
	uint64_t random = 11;

	CHECK_OR(a, -1);
	__builtin_memset(blocks, 0, sizeof(blocks));
	for (int i = 0; i < (MM_HARDEN >= 3 ? 4000 : 40000); i++) {
		uint64_t bits = selftest_random(&random);

		if (replace(a, &blocks[bits % SLOTS], bits))
			return -1;
	}
	INVARIANT_OR(!ops->check(a), -1);
	for (size_t i = 0; i < SLOTS; i++)
		INVARIANT_OR(!blocks[i].p || !ops->dealloc(a, blocks[i].p, blocks[i].size, 8), -1);
	INVARIANT_OR(!ops->used_bytes(a) && !ops->check(a), -1);
	return 0;
}

SELFTEST(mm, engines_any_length)
{
	each_engine(check_any_length, POOL);
}

static int settle_checked(struct byte_alloc *a)
{
	unsigned int part = 0;
	int parts = 0;

	do {
		part = a->ops->settle(a, part);
		INVARIANT_OR(!a->ops->check(a), -1);
		parts++;
	} while (part);
	return parts;
}

/* Whose user settles in parts gets back what is merged, and all of it once there is no part left.
 */
static int check_settle(const struct byte_ops *ops, uint8_t *mem)
{
	enum { SLOTS = 1000 };
	static void *blocks[SLOTS];
	struct byte_alloc *a = start(ops, mem, POOL);
	void *at = NULL, *large;
	size_t nbytes = 0;
	int parts;

	CHECK_OR(a, -1);
	a->in_parts = true;
	for (size_t i = 0; i < SLOTS; i++)
		CHECK_OR((blocks[i] = ops->alloc(a, 32 + i % 100 * 32, 8)), -1);
	for (size_t i = 0; i < SLOTS; i++)
		INVARIANT_OR(!ops->dealloc(a, blocks[i], 32 + i % 100 * 32, 8), -1);
	CHECK_OR(!ops->used_bytes(a), -1);
	/* At level 2 TLSF holds nothing back. */
	CHECK_OR(MM_HARDEN >= 2 || !ops->take_free(a, &at, &nbytes), -1);
	parts = settle_checked(a);
	CHECK_OR(parts > (MM_HARDEN >= 2 ? 0 : 2) && parts < 600, -1);
	large = ops->alloc(a, POOL / 8, 8);
	CHECK_OR(large && !ops->dealloc(a, large, POOL / 8, 8), -1);
	CHECK_OR(settle_checked(a) > 0, -1);
	CHECK_OR(ops->take_free(a, &at, &nbytes) && at == mem && nbytes == POOL, -1);
	CHECK_OR(!ops->total_bytes(a) && settle_checked(a) == 1, -1);
	return 0;
}

/* The same for as many blocks of one size as there is memory for. */
static int check_settle_many(const struct byte_ops *ops, uint8_t *mem)
{
	const size_t pool = MM_HARDEN >= 3 ? POOL / 16 : POOL / 2;
	struct byte_alloc *a = start(ops, mem, pool);
	void *at, **last;
	size_t nbytes;

	CHECK_OR(a, -1);
	a->in_parts = true;
	(void)exhaust(a, 64, &last);
	INVARIANT_OR(!give_all_back(a, 64, last), -1);
	CHECK_OR(settle_checked(a) > 0, -1);
	CHECK_OR(ops->take_free(a, &at, &nbytes) && !ops->total_bytes(a), -1);
	return 0;
}

SELFTEST(mm, engines_settle)
{
	each_engine(check_settle, POOL);
}

SELFTEST(mm, engines_settle_many)
{
	each_engine(check_settle_many, POOL / 2);
}

#if MM_HARDEN >= 1
/* One way to misuse an allocator: what is passed instead of a live block of `size` at `align`. */
struct misuse {
	const char *what;
	size_t size;
	ptrdiff_t offset; /* from the block */
	size_t claimed_size, claimed_align;
	bool freed; /* the block was freed before */
};

static const struct misuse misuses[] = {
	{"double free, small", 48, 0, 48, 8, true},
	{"double free, large", 20000, 0, 20000, 8, true},
	{"middle, small", 96, 32, 96, 8, false},
	{"middle, large", 20000, 4096, 20000, 8, false},
	{"misaligned", 96, 3, 96, 8, false},
	{"size too small", 300, 0, 30, 8, false},
	{"size too large", 300, 0, 3000, 8, false},
	{"size beyond all memory", 300, 0, POOL, 8, false},
	{"size far too small, large", 20000, 0, 100, 8, false},
	{"alignment that it cannot have", 64, 0, 64, MM_MAX_ALIGN, false},
	{"foreign", 64, -(ptrdiff_t)(POOL / 2), 64, 8, false},
};

/* The frees that are tried first where an engine is built in. False: left to the general one. */
typedef bool (*free_fn)(struct byte_alloc *a, void *p, size_t size, size_t align);

static bool tlsf_fast(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	return byte_tlsf_dealloc_fast(a, p, size, align, 0);
}

static bool tlsf_shortest(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct tlsf_kept was;

	if (!byte_tlsf_dealloc_shortest(a, p, size, align, &was))
		return false;
	if (was.nbytes)
		byte_tlsf_release(a, was.start, was.nbytes);
	return true;
}

static bool slab_fast(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	return byte_slab_dealloc_fast(a, p, size, align, 0);
}

static bool slab_shortest(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct slab_cpu *c = &heap.slab.room[0].cpu;
	struct slab *event;

	if (!byte_slab_dealloc_shortest(a, c, p, size, align, &event))
		return false;
	if (event)
		byte_slab_event(a, c, event);
	return true;
}

static bool buddy_fast(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	return byte_buddy_dealloc_fast(a, p, size, align, 0);
}

static const struct {
	const struct byte_ops *ops;
	free_fn free;
} shorter[] = {
	{&byte_tlsf_ops, tlsf_fast},   {&byte_tlsf_ops, tlsf_shortest},
	{&byte_slab_ops, slab_fast},   {&byte_slab_ops, slab_shortest},
	{&byte_buddy_ops, buddy_fast}, {&byte_buddy_ops, byte_buddy_dealloc_shortest},
};

static enum mm_fault_kind put(struct byte_alloc *a, void *p, size_t size, size_t align,
			      free_fn shorter_one)
{
	if (shorter_one && shorter_one(a, p, size, align))
		return MM_FAULT_NONE;
	return a->ops->dealloc(a, p, size, align);
}

static int commit_misuse(struct byte_alloc *a, const struct misuse *m, free_fn shorter_one)
{
	const struct byte_ops *ops = a->ops;
	uint8_t *guard = ops->alloc(a, 64, 8);
	uint8_t *p = ops->alloc(a, m->size, 8);
	size_t used;

	CHECK_OR(guard && p, -1);
	/* A multiple of MM_MAX_ALIGN has any alignment; take the next block then. */
	if (!((uintptr_t)p & (MM_MAX_ALIGN - 1)))
		p = ops->alloc(a, m->size, 8);
	CHECK_OR(p, -1);
	__builtin_memset(guard, 0x11, 64);
	__builtin_memset(p, 0x22, m->size);
	if (m->freed)
		CHECK_OR(!put(a, p, m->size, 8, shorter_one), -1);
	used = ops->used_bytes(a);
	CHECK_OR(put(a, p + m->offset, m->claimed_size, m->claimed_align, shorter_one), -1);
	CHECK_OR(ops->used_bytes(a) == used && !ops->check(a), -1);
	for (size_t i = 0; i < 64; i++)
		CHECK_OR(guard[i] == 0x11, -1);
	for (size_t i = 0; i < m->size && !m->freed; i++)
		CHECK_OR(p[i] == 0x22, -1);
	if (!m->freed)
		CHECK_OR(!put(a, p, m->size, 8, shorter_one), -1);
	CHECK_OR(!put(a, guard, 64, 8, shorter_one), -1);
	return 0;
}

static int commit_all(struct byte_alloc *a, free_fn shorter_one)
{
	for (size_t i = 0; i < sizeof(misuses) / sizeof(misuses[0]); i++) {
		if (!commit_misuse(a, &misuses[i], shorter_one))
			continue;
		selftest_note("%s: %s", a->ops->name, misuses[i].what);
		return -1;
	}
	return 0;
}

static int check_misuse(const struct byte_ops *ops, uint8_t *mem)
{
	struct byte_alloc *a = start(ops, mem + POOL / 2, POOL / 2);
	int result;

	CHECK_OR(a, -1);
	mm_fault_expect(true);
	result = commit_all(a, NULL);
	for (size_t i = 0; i < sizeof(shorter) / sizeof(shorter[0]) && !result; i++)
		if (shorter[i].ops == ops)
			result = commit_all(a, shorter[i].free);
	mm_fault_expect(false);
	return result;
}

SELFTEST(mm, engines_misuse)
{
	each_engine(check_misuse, POOL);
}

/* Freed, handed out again with another length, and freed by the first owner. */
static int check_free_after_reuse(const struct byte_ops *ops, uint8_t *mem)
{
	struct byte_alloc *a = start(ops, mem, POOL);
	uint8_t *p, *q;

	CHECK_OR(a, -1);
	p = ops->alloc(a, 256, 8);
	CHECK_OR(p && !ops->dealloc(a, p, 256, 8), -1);
	q = ops->alloc(a, 256, 8);
	CHECK_OR(q, -1);
	__builtin_memset(q, 0x33, 256);
	/* To free q through p is to free q: only a different claim can be told. */
	CHECK_OR(ops->dealloc(a, p, 2048, 8), -1);
	for (size_t i = 0; i < 256; i++)
		CHECK_OR(q[i] == 0x33, -1);
	CHECK_OR(!ops->check(a), -1);
	return 0;
}

SELFTEST(mm, engines_free_after_reuse)
{
	each_engine(check_free_after_reuse, POOL);
}
#endif
