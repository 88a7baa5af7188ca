/* SPDX-License-Identifier: MIT */
/* The global allocator under threads that stand for CPUs; meant to be run under TSan as well. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <mm/global.h>
#include <selftest/selftest.h>

#define REGION	 ((size_t)16 << 20)
#define THREADS	 4
#define BLOCKS	 64
#define EXCHANGE 32
#define STEPS	 4000

static const struct byte_ops *const engines[] = {&byte_tlsf_ops, &byte_slab_ops, &byte_buddy_ops};

static struct global_allocator global;
static struct global_allocator *const g = &global;

/* A block says itself how it is freed, so that any thread can do it. */
struct block {
	struct layout l;
	uint64_t seed;
};

static struct block *exchange[EXCHANGE];

static unsigned char pattern(const struct block *b)
{
	return (unsigned char)(b->seed * 31 + b->l.size);
}

static struct block *new_block(uint64_t *seed)
{
	uint64_t r = selftest_random(seed);
	size_t limit = r & 63 ? (size_t)16 << (r >> 8) % 8 : 3 * GLOBAL_LARGE_SIZE;
	struct layout l = {sizeof(struct block) + (r >> 20) % limit, (size_t)8 << (r >> 40) % 4};
	struct block *b;
	void *p;

	if (global_allocator_alloc(g, l, &p) != ALLOC_OK)
		return NULL;
	b = p;
	*b = (struct block){l, r};
	memset(b + 1, pattern(b), l.size - sizeof(*b));
	return b;
}

static int free_block(struct block *b)
{
	const unsigned char *p = (const unsigned char *)(b + 1);

	for (size_t i = 0; i < b->l.size - sizeof(*b); i++)
		if (p[i] != pattern(b))
			return -1;
	return global_allocator_dealloc(g, b, b->l);
}

static int use_pages(uint64_t *seed)
{
	size_t n = 1 + selftest_random(seed) % 3;
	virt_addr_t va;

	if (global_allocator_alloc_pages(g, n, MM_PAGE_SIZE, &va) != ALLOC_OK)
		return 0;
	memset(virt_ptr(va), 0x55, n * MM_PAGE_SIZE);
	return global_allocator_dealloc_pages(g, va, n);
}

/* Blocks are freed by whoever finds them in the exchange, mostly another thread. */
static int step(struct block **mine, uint64_t *seed)
{
	uint64_t r = selftest_random(seed);
	struct block **slot = &mine[r % BLOCKS], *b = *slot;

	if (!b) {
		*slot = new_block(seed);
		return 0;
	}
	*slot = NULL;
	if (r >> 60 < 8)
		b = __atomic_exchange_n(&exchange[(r >> 20) % EXCHANGE], b, __ATOMIC_ACQ_REL);
	if (b && free_block(b))
		return -1;
	if (r >> 56 == 3)
		global_allocator_trim(g);
	return r >> 60 == 9 ? use_pages(seed) : 0;
}

static void *run_thread(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;
	struct block *mine[BLOCKS] = {NULL};

	for (size_t i = 0; i < STEPS; i++)
		if (step(mine, &seed))
			return (void *)1;
	for (size_t i = 0; i < BLOCKS; i++)
		if (mine[i] && free_block(mine[i]))
			return (void *)1;
	return NULL;
}

static int run_threads(void)
{
	pthread_t threads[THREADS];
	void *failed = NULL, *r;

	for (size_t i = 0; i < THREADS; i++)
		CHECK_OR(!pthread_create(&threads[i], NULL, run_thread, (void *)(i + 1)), -1);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &r);
		failed = r ? r : failed;
	}
	for (size_t i = 0; i < EXCHANGE; i++) {
		CHECK_OR(!exchange[i] || !free_block(exchange[i]), -1);
		exchange[i] = NULL;
	}
	CHECK_OR(!failed, -1);
	return 0;
}

/* Without memory: before a test and after it. */
static void start(const struct byte_ops *ops)
{
	memset(g, 0, sizeof(*g));
	g->heap.base.ops = ops;
}

SELFTEST(mm, global_threads)
{
	uint8_t *mem = selftest_memory(REGION);

	CHECK(mem);
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		unsigned long faults = mm_fault_count();

		selftest_note("%s", engines[i]->name);
		start(engines[i]);
		CHECK(global_allocator_init(g, virt_addr(mem), REGION) == ALLOC_OK);
		CHECK(!run_threads());
		CHECK(mm_fault_count() == faults);
		CHECK(!global_allocator_used_bytes(g));
		CHECK(!global_allocator_check(g));
		start(engines[i]);
	}
}

/*
 * All take what one region can hold, so that growth races: none may fail, for
 * the sum fits, and a lost race is no failure.
 */
#define SHARE ((REGION / 2) / THREADS)

static void *take_share(void *arg)
{
	struct layout l = {3000, 8};
	void *chain = NULL, *p;
	size_t n = 0;

	(void)arg;
	for (; n < SHARE / l.size; n++) {
		if (global_allocator_alloc(g, l, &p) != ALLOC_OK)
			return (void *)1;
		*(void **)p = chain;
		chain = p;
	}
	while (chain) {
		p = chain;
		chain = *(void **)p;
		if (global_allocator_dealloc(g, p, l) != ALLOC_OK)
			return (void *)2;
	}
	return NULL;
}

SELFTEST(mm, global_threads_growth)
{
	uint8_t *mem = selftest_memory(REGION);

	CHECK(mem);
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		pthread_t threads[THREADS];
		void *r;

		selftest_note("%s", engines[i]->name);
		start(engines[i]);
		CHECK(global_allocator_init(g, virt_addr(mem), REGION) == ALLOC_OK);
		for (size_t j = 0; j < THREADS; j++)
			CHECK(!pthread_create(&threads[j], NULL, take_share, NULL));
		for (size_t j = 0; j < THREADS; j++) {
			pthread_join(threads[j], &r);
			CHECK(!r);
		}
		CHECK(!global_allocator_used_bytes(g) && !global_allocator_check(g));
		start(engines[i]);
	}
}
