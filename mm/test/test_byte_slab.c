/* SPDX-License-Identifier: MIT */
/* The slab engine: payloads verified around every operation, misuse, giving back. */
#include <mm/byte_slab.h>
#include <mm/fault.h>
#include <selftest/selftest.h>

#include "../slab_object.h"

#define HEAP_BYTES ((size_t)1 << 20)
#define BLOCKS	   200u
#define ROUNDS	   6000u

static struct byte_slab slab;

static struct byte_alloc *fresh_at(void *memory, size_t nbytes)
{
	slab.base.ops = &byte_slab_ops;
	if (!memory || byte_slab_ops.init(&slab.base, memory, nbytes) != ALLOC_OK)
		return NULL;
	return &slab.base;
}

static struct byte_alloc *fresh(size_t nbytes)
{
	return fresh_at(selftest_memory(nbytes), nbytes);
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

/* What is no block of that layout is not resized: a run of pages at every level. */
SELFTEST(mm, slab_resize_misuse)
{
	const struct byte_ops *ops = &byte_slab_ops;
	struct byte_alloc *a = fresh(HEAP_BYTES);
	uint8_t *p, *run;
	size_t used;

	CHECK(a);
	p = get(a, 100, 8);
	run = get(a, 20000, 8);
	CHECK(p && run);
	used = ops->used_bytes(a);
	CHECK(!ops->resize(a, run, 60000, 8, 8192) && !ops->resize(a, run, 5000, 8, 30000));
	CHECK(!ops->resize(a, run + MM_PAGE_SIZE, 20000, 8, 20001));
	if (MM_HARDEN) {
		CHECK(!ops->resize(a, p + 16, 100, 8, 101));
		CHECK(ops->resize(a, p, 100, 8, 98) && put(a, p, 98, 8) == MM_FAULT_NONE);
		CHECK(!ops->resize(a, p, 98, 8, 100));
		p = get(a, 100, 8);
		CHECK(p);
	}
	CHECK(ops->used_bytes(a) == used && !ops->check(a));
	CHECK(ops->resize(a, run, 20000, 8, 9000) && put(a, run, 9000, 8) == MM_FAULT_NONE);
	CHECK(put(a, p, 100, 8) == MM_FAULT_NONE && !ops->used_bytes(a));
}

/* Nor is a run of pages that is not aligned so. */
SELFTEST(mm, slab_resize_alignment)
{
	const struct byte_ops *ops = &byte_slab_ops;
	struct byte_alloc *a = fresh(HEAP_BYTES);
	size_t align = 4 * MM_PAGE_SIZE;
	uint8_t *run;

	CHECK(a);
	do
		CHECK((run = get(a, 9000, 8)));
	while (!((uintptr_t)run & (align - 1)));
	CHECK(!ops->resize(a, run, 9000, align, 100) && !ops->resize(a, run, 9000, align, 9001));
	CHECK(put(a, run, 9000, 8) == MM_FAULT_NONE);
}

/* What grow_size says is enough, wherever the memory begins. */
SELFTEST(mm, slab_grows_by_enough)
{
	const size_t size = 4190208, nbytes = byte_slab_ops.grow_size(NULL, size, 8);
	uint8_t *memory = selftest_memory(nbytes + MM_PAGE_SIZE);

	if (!memory) {
		selftest_skip("not enough memory");
		return;
	}
	for (size_t offset = 1; offset < MM_PAGE_SIZE; offset += 96) {
		struct byte_alloc *a = fresh_at(memory + offset, nbytes);

		CHECK(a && byte_slab_ops.alloc(a, size, 8));
	}
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

/* The usual default of C: as quick as 8, and every size keeps its alignment. */
SELFTEST(mm, slab_alignment_16)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	void *warm, *p;

	CHECK(a);
	for (size_t size = 1; size <= BYTE_SLAB_MAX; size++) {
		p = get(a, size, 16);
		CHECK(p && !((uintptr_t)p & 15) && byte_slab_ops.block_size(a, p) >= size);
		CHECK(put(a, p, size, 16) == MM_FAULT_NONE);
	}
	if (MM_HARDEN >= 2)
		return;
	warm = get(a, 20, 16);
	p = byte_slab_alloc_fast(a, 20, 16, 0);
	CHECK(warm && p && byte_slab_dealloc_fast(a, p, 20, 16, 0));
	CHECK(!byte_slab_ops.check(a));
}

static void *get_pinned(struct byte_alloc *a, size_t size)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	void *p = byte_slab_ops.alloc_local(a, size, 8, cpu);

	mm_port_unpin(state, cpu);
	return p ? p : byte_slab_ops.alloc(a, size, 8);
}

static enum mm_fault_kind put_pinned(struct byte_alloc *a, void *p, size_t size)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	enum mm_fault_kind f = byte_slab_ops.dealloc_local(a, p, size, 8, cpu);

	mm_port_unpin(state, cpu);
	return f == MM_FAULT_KINDS ? byte_slab_ops.dealloc(a, p, size, 8) : f;
}

/* On the shortest path, with what may have to follow. */
static bool put_shortest(struct byte_alloc *a, struct slab_cpu *c, void *p, size_t size)
{
	struct slab *event;

	if (!byte_slab_dealloc_shortest(a, c, p, size, 8, &event))
		return false;
	if (event)
		byte_slab_event(a, c, event);
	return true;
}

static struct slab_cpu *cpu_of_test(void)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);

	mm_port_unpin(state, cpu);
	return &slab.room[cpu].cpu;
}

/* What wants memory back lists the active slab, so that its last free is no usual one. */
SELFTEST(mm, slab_active_becomes_empty)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	struct slab_cpu *c = cpu_of_test();
	struct slab *event;
	void *p, *q, *start;
	size_t nbytes;

	if (!a || MM_HARDEN >= 2) {
		selftest_skip("no shortest path");
		return;
	}
	(void)byte_slab_ops.dealloc(a, get_pinned(a, 100), 100, 8); /* sees the piece from now on */
	p = get_pinned(a, 100);
	q = get_pinned(a, 100);
	CHECK(p && q && !byte_slab_ops.take_free(a, &start, &nbytes));
	CHECK(byte_slab_dealloc_shortest(a, c, q, 100, 8, &event) && !event);
	CHECK(byte_slab_dealloc_shortest(a, c, p, 100, 8, &event) && event);
	byte_slab_event(a, c, event);
	CHECK(!byte_slab_ops.check(a));
	CHECK(byte_slab_ops.take_free(a, &start, &nbytes));
}

/* Every class leaves an empty slab with this CPU, and yet the piece goes back. */
SELFTEST(mm, slab_take_free_from_cpu)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	void *start, *p[2];
	size_t nbytes;

	CHECK(a);
	for (size_t size = 8; size <= BYTE_SLAB_MAX; size += size / 4 + 8) {
		for (size_t i = 0; i < 2; i++)
			CHECK((p[i] = get_pinned(a, size)));
		for (size_t i = 0; i < 2; i++)
			CHECK(put_pinned(a, p[i], size) == MM_FAULT_NONE);
	}
	CHECK(!byte_slab_ops.used_bytes(a));
	CHECK(byte_slab_ops.take_free(a, &start, &nbytes) && nbytes == HEAP_BYTES);
	CHECK(!byte_slab_ops.total_bytes(a) && !byte_slab_ops.alloc(a, 8, 8));
	CHECK(!byte_slab_ops.take_free(a, &start, &nbytes));
}

/* A link was overwritten: what is live can be freed on both paths, nothing is handed out twice. */
SELFTEST(mm, slab_isolation)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	char *p[4], *again, *other;

	if (MM_HARDEN == 0 || MM_HARDEN >= 3) {
		selftest_skip("level 0 does not see it, level 3 frees later");
		return;
	}
	CHECK(a);
	for (int i = 0; i < 4; i++)
		CHECK((p[i] = get(a, 48, 8)));
	CHECK(put(a, p[0], 48, 8) == MM_FAULT_NONE);
	__builtin_memset(p[0], 0x41, 8);
	mm_fault_expect(true);
	again = get(a, 48, 8);
	other = get(a, 48, 8);
	mm_fault_expect(false);
	CHECK(again == p[0] && other);
	CHECK((uintptr_t)other / MM_PAGE_SIZE != (uintptr_t)p[0] / MM_PAGE_SIZE);
	CHECK(byte_slab_ops.dealloc_local(a, p[1], 48, 8, 0) == MM_FAULT_KINDS);
	CHECK(put(a, p[1], 48, 8) == MM_FAULT_NONE);
	CHECK(put(a, p[1], 48, 8) == MM_FAULT_DOUBLE_FREE);
	CHECK(byte_slab_ops.dealloc(a, p[2], 48, 8) == MM_FAULT_NONE);
	CHECK(put(a, p[3], 200, 8) == MM_FAULT_WRONG_LAYOUT);
	CHECK(put(a, other, 48, 8) == MM_FAULT_NONE);
	CHECK(!byte_slab_ops.check(a));
}

#define PIECE  ((size_t)32 * 1024)
#define PIECES 100

/* No number of pieces is too large, and every one of them goes back when it is free. */
SELFTEST(mm, slab_many_pieces)
{
	char *memory = selftest_memory(PIECES * PIECE);
	void **list = NULL, **p, *start;
	struct byte_alloc *a = &slab.base;
	size_t nbytes, live = 0, taken = 0;

	slab.base.ops = &byte_slab_ops;
	CHECK(memory && byte_slab_ops.init(a, memory, PIECE) == ALLOC_OK);
	for (size_t i = 1; i < PIECES; i++)
		CHECK(byte_slab_ops.add_memory(a, memory + i * PIECE, PIECE) == ALLOC_OK);
	while ((p = get(a, 1000, 8))) {
		*p = list;
		list = p;
		live++;
	}
	CHECK(live >= PIECES * 20 && !byte_slab_ops.check(a));
	while ((p = list)) {
		list = *p;
		CHECK(put(a, p, 1000, 8) == MM_FAULT_NONE);
	}
	CHECK(!byte_slab_ops.check(a) && !byte_slab_ops.used_bytes(a));
	for (; byte_slab_ops.take_free(a, &start, &nbytes); taken++)
		CHECK(nbytes == PIECE && !((size_t)((char *)start - memory) % PIECE));
	CHECK(taken == PIECES && !byte_slab_ops.total_bytes(a));
}

#define PLACE ((size_t)1 << 20)

/* All that two halves hold as a list each, linked through the objects. False: one has nothing. */
static bool fill_two(struct byte_alloc *a, const char *second, void **list[2])
{
	void **p;

	while ((p = get_pinned(a, 512))) {
		unsigned int half = (const char *)p >= second;

		*p = list[half];
		list[half] = p;
	}
	return list[0] && list[1];
}

/* How many of the frees take the shortest path, made by turns in two halves, if not all. */
static int free_by_turns(struct byte_alloc *a, struct slab_cpu *c, void **list[2])
{
	size_t n = 0, on_path = 0;

	for (unsigned int i = 0; list[0] || list[1]; i = !i) {
		void **p = list[i];

		if (!p)
			continue;
		list[i] = *p;
		n++;
		if (put_shortest(a, c, p, 512))
			on_path++;
		else
			CHECK_OR(put_pinned(a, p, 512) == MM_FAULT_NONE, -1);
	}
	CHECK_OR(n > 3500 && on_path > n - n / 4, -1);
	CHECK_OR(!byte_slab_ops.used_bytes(a) && !byte_slab_ops.check(a), -1);
	return 0;
}

/* Frees far apart, in one piece or two, are all on the shortest path; none once a piece is gone. */
static int places(char *memory, size_t nbytes, size_t nbytes_more)
{
	struct byte_alloc *a = &slab.base;
	void **list[2] = {NULL}, *first, *second, *start;
	struct slab_cpu *c = cpu_of_test();

	slab.base.ops = &byte_slab_ops;
	CHECK_OR(byte_slab_ops.init(a, memory, nbytes) == ALLOC_OK, -1);
	if (nbytes_more)
		CHECK_OR(!byte_slab_ops.add_memory(a, memory + nbytes, nbytes_more), -1);
	CHECK_OR(fill_two(a, memory + PLACE, list), -1);
	first = list[0];
	second = list[1];
	if (free_by_turns(a, c, list))
		return -1;
	while (byte_slab_ops.take_free(a, &start, &nbytes))
		;
	CHECK_OR(!byte_slab_ops.total_bytes(a), -1);
	__builtin_memset(memory, 0, 2 * PLACE); /* a look into what was there goes wrong */
	CHECK_OR(!put_shortest(a, c, first, 512), -1);
	CHECK_OR(!put_shortest(a, c, second, 512), -1);
	return 0;
}

SELFTEST(mm, slab_places)
{
	char *memory = selftest_memory(2 * PLACE);

	if (MM_HARDEN >= 2) {
		selftest_skip("no shortest path");
		return;
	}
	CHECK(memory && !places(memory, PLACE, PLACE) && !places(memory, 2 * PLACE, 0));
}

/* A piece is not cleared, and what lies in it by chance does no harm. */
SELFTEST(mm, slab_lazy_setup)
{
	size_t nbytes = (size_t)4 << 20, written = 0;
	unsigned char *memory = selftest_memory(nbytes), *large, *behind;
	struct byte_alloc *a = &slab.base;

	CHECK(memory);
	__builtin_memset(memory, 0xa5, nbytes);
	slab.base.ops = &byte_slab_ops;
	CHECK(byte_slab_ops.init(a, memory, nbytes) == ALLOC_OK);
	for (size_t i = 0; i < nbytes; i++)
		written += memory[i] != 0xa5;
	CHECK(written < 512);
	large = get(a, (size_t)2 << 20, 8);
	behind = get(a, 100, 8);
	CHECK(large && behind && !byte_slab_ops.check(a));
	for (size_t at = MM_PAGE_SIZE; at < (size_t)2 << 20; at += MM_PAGE_SIZE)
		CHECK(put(a, large + at, 100, 8) == MM_FAULT_FOREIGN);
	CHECK(put(a, behind, 100, 8) == MM_FAULT_NONE);
	CHECK(put(a, large, (size_t)2 << 20, 8) == MM_FAULT_NONE);
	CHECK(!byte_slab_ops.check(a) && !byte_slab_ops.used_bytes(a));
}

/* Rounding takes at most an eighth, of what is not tiny. */
SELFTEST(mm, byte_slab_classes)
{
	struct byte_alloc *a = fresh((size_t)2 << 20);
	size_t canary = MM_HARDEN >= 2 ? 8 : 0;

	CHECK(a);
	for (size_t size = 9; size + canary <= BYTE_SLAB_MAX; size++) {
		void *p = get(a, size, 1);
		size_t held = p ? byte_slab_ops.block_size(a, p) : 0;

		CHECK(held >= size && (held - size) * 8 <= size + canary + 64);
		CHECK(put(a, p, size, 1) == MM_FAULT_NONE);
	}
}

/* Memory that is there already, in part or whole, is refused; neighbours are not. */
SELFTEST(mm, slab_memory_overlap)
{
	const size_t nbytes = (size_t)256 << 10;
	char *memory = selftest_memory(4 * nbytes);
	struct byte_alloc *a = &slab.base;

	CHECK(memory);
	slab.base.ops = &byte_slab_ops;
	CHECK(byte_slab_ops.init(a, memory + nbytes, nbytes) == ALLOC_OK);
	CHECK(byte_slab_ops.add_memory(a, memory + 3 * nbytes, nbytes) == ALLOC_OK);
	for (size_t at = nbytes / 2; at < 4 * nbytes; at += nbytes / 4)
		CHECK(at == nbytes * 2 ||
		      byte_slab_ops.add_memory(a, memory + at, nbytes) == ALLOC_MEMORY_OVERLAP);
	CHECK(byte_slab_ops.add_memory(a, memory, 4 * nbytes) == ALLOC_MEMORY_OVERLAP);
	CHECK(byte_slab_ops.add_memory(a, memory + 2 * nbytes, nbytes) == ALLOC_OK);
	CHECK(byte_slab_ops.add_memory(a, memory, nbytes) == ALLOC_OK);
	CHECK(byte_slab_ops.total_bytes(a) == 4 * nbytes && !byte_slab_ops.check(a));
}

/* The table says how often a slab may double: as often as it stays within the limits. */
SELFTEST(mm, slab_doublings)
{
	for (size_t i = 0; i < NCLASSES; i++) {
		const struct slab_class *c = &byte_slab_classes[i];
		size_t nbytes = (size_t)c->npages * MM_PAGE_SIZE << c->doublings;

		CHECK(nbytes <= SLAB_MAX_BYTES && nbytes / c->size <= MAX_OBJECTS);
		CHECK(2 * nbytes > SLAB_MAX_BYTES || 2 * nbytes > MAX_OBJECTS * c->size);
		CHECK(c->npages <= SLAB_CHUNK);
	}
}

/* A block grows into free pages that are not first in their list, and whose rest stays in it. */
SELFTEST(mm, slab_grows_into_the_second_of_a_list)
{
	const size_t page = MM_PAGE_SIZE, canary = MM_HARDEN >= 2 ? 8 : 0;
	struct byte_alloc *a = fresh((size_t)2 << 20);
	unsigned char *p, *first, *second, *guard[2];

	CHECK(a);
	p = get(a, 8 * page - canary, 8);
	second = get(a, 70 * page - canary, 8);
	guard[0] = get(a, 2 * page - canary, 8);
	first = get(a, 71 * page - canary, 8);
	guard[1] = get(a, 2 * page - canary, 8);
	CHECK(p && second == p + 8 * page && first && guard[0] && guard[1]);
	CHECK(put(a, second, 70 * page - canary, 8) == MM_FAULT_NONE);
	CHECK(put(a, first, 71 * page - canary, 8) == MM_FAULT_NONE);
	CHECK(byte_slab_ops.resize(a, p, 8 * page - canary, 8, 9 * page - canary));
	CHECK(!byte_slab_ops.check(a));
	for (p = get(a, 64 * page - canary, 8); p && p != second + page;)
		p = get(a, 64 * page - canary, 8);
	CHECK(p && !byte_slab_ops.check(a));
}

/* Write to a byte of what waits in the quarantine. Is it found when that has waited long enough? */
static bool waiting_write_found(struct byte_alloc *a, size_t offset)
{
	unsigned long before = mm_fault_count();
	char *p = get(a, 100, 8);

	if (!p || put(a, p, 100, 8) != MM_FAULT_NONE)
		return false;
	p[offset] ^= 1;
	mm_fault_expect(true);
	for (int i = 0; i < BYTE_SLAB_WAITING; i++)
		if (put(a, get(a, 200, 8), 200, 8) != MM_FAULT_NONE)
			return false;
	mm_fault_expect(false);
	return mm_fault_count() == before + 1 && mm_fault_last().ptr == p &&
	       mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE;
}

/* Level 3: whichever byte it is, its first words, which hold a link and the mark, or any other. */
SELFTEST(mm, slab_write_in_quarantine)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);

	if (MM_HARDEN < 3) {
		selftest_skip("only level 3 has a quarantine");
		return;
	}
	CHECK(a);
	CHECK(waiting_write_found(a, 0));
	CHECK(waiting_write_found(a, 15));
	CHECK(waiting_write_found(a, 16));
	CHECK(waiting_write_found(a, 99));
}

/* What slabs leave in their pages, copied into a live object, does not make it look free. */
SELFTEST(mm, slab_leaves_no_marks)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	static void *blocks[2000];
	char *large, *p;

	CHECK(a);
	for (unsigned int i = 0; i < 2000; i++)
		CHECK((blocks[i] = get(a, 100, 8)));
	for (unsigned int i = 0; i < 2000; i++)
		CHECK(!put(a, blocks[i], 100, 8));
	for (size_t nbytes = 100000; (large = get(a, nbytes, 8)); nbytes -= 5000)
		for (size_t at = 0; at < nbytes - 64; at += 8) {
			CHECK((p = get(a, 64, 8)));
			__builtin_memcpy(p, large + at, 64);
			CHECK(byte_slab_ops.block_size(a, p) >= 64);
			CHECK(!put(a, p, 64, 8));
		}
}

/* Level 2: a byte written after free is found at the latest when the slab goes. */
SELFTEST(mm, slab_write_before_it_goes)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	unsigned long before = mm_fault_count();
	static char *blocks[500];
	unsigned int part = 0;

	if (MM_HARDEN < 2) {
		selftest_skip("there is no poison");
		return;
	}
	CHECK(a);
	for (unsigned int i = 0; i < 500; i++)
		CHECK((blocks[i] = get(a, 100, 8)));
	mm_fault_expect(true);
	for (unsigned int i = 0; i < 500; i++) {
		CHECK(!put(a, blocks[i], 100, 8));
		if (i == 250)
			blocks[i][50] ^= 1;
	}
	do
		part = byte_slab_ops.settle(a, part);
	while (part);
	mm_fault_expect(false);
	CHECK(mm_fault_count() == before + 1 && mm_fault_last().ptr == blocks[250]);
	CHECK(mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE);
}

/* In a class with many slabs a few frees do not list a full one; when memory is out they count. */
SELFTEST(mm, slab_idle_objects_serve_when_memory_is_out)
{
	struct byte_alloc *a = fresh(HEAP_BYTES);
	void **last = NULL, **p, **next, **kept = NULL;
	size_t n = 0, freed = 0;

	CHECK(a);
	for (; (p = get(a, 120, 8)); n++) {
		*p = (void *)last;
		last = p;
	}
	CHECK(n > 4000);
	for (p = last; p; p = next) {
		next = *p;
		if (n-- % 12) {
			*p = (void *)kept;
			kept = p;
			continue;
		}
		CHECK(!put(a, p, 120, 8));
		freed++;
	}
	for (; freed; freed--) {
		CHECK((p = get(a, 120, 8)));
		*p = (void *)kept;
		kept = p;
	}
	CHECK(!byte_slab_ops.check(a));
	for (p = kept; p; p = next) {
		next = *p;
		CHECK(!put(a, p, 120, 8));
	}
	CHECK(!byte_slab_ops.check(a) && !byte_slab_ops.used_bytes(a));
}
