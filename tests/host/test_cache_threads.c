/* SPDX-License-Identifier: MIT */
/*
 * Caches with threads as CPUs: objects that are freed by another CPU than the one that
 * got them, while memory is given back, figures are read and pages run out. Made for
 * the thread sanitizer:
 *	make host-test HOST_SAN=thread FILTER='mm/cache_threads*'
 */
#include <pthread.h>
#include <stdatomic.h>

#include <mm/cache.h>
#include <mm/global.h>
#include <selftest/selftest.h>

#define THREADS	  4
#define MAILBOXES 512
#define ROUNDS	  30000
#define CACHES	  2

/* What travels between the threads: filled with a pattern of its seed. */
struct parcel {
	uint64_t seed;
	uint64_t pattern[8];
};

static struct cache *caches[CACHES];
static _Atomic(struct parcel *) mailbox[CACHES][MAILBOXES];
static _Atomic unsigned int failures;
static _Atomic bool finished;

static void pack(size_t which, size_t slot, uint64_t seed)
{
	struct parcel *p = cache_alloc(caches[which]);

	if (!p)
		return;
	p->seed = seed;
	for (size_t i = 0; i < 8; i++)
		p->pattern[i] = seed * (i + 3);
	p = atomic_exchange(&mailbox[which][slot], p);
	if (p)
		failures += cache_free(caches[which], p) != ALLOC_OK;
}

static void unpack(size_t which, size_t slot)
{
	struct parcel *p = atomic_exchange(&mailbox[which][slot], NULL);

	if (!p)
		return;
	for (size_t i = 0; i < 8; i++)
		failures += p->pattern[i] != p->seed * (i + 3);
	failures += cache_free(caches[which], p) != ALLOC_OK;
}

/* Phases in which the mailboxes mostly fill and mostly empty, so that slabs come and go. */
static void *exchange_parcels(void *seed)
{
	uint64_t state = (uintptr_t)seed;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t r = selftest_random(&state);
		size_t which = r % CACHES, slot = (r >> 8) % MAILBOXES;
		bool filling = (i / 3000) % 2 == 0;

		if ((r >> 32) % 4 ? filling : !filling)
			pack(which, slot, r >> 40);
		else
			unpack(which, slot);
	}
	return NULL;
}

/* Give back and look at the figures while the others work. */
static void *disturb(void *arg)
{
	struct cache_stats s;

	(void)arg;
	for (unsigned int i = 0; !atomic_load(&finished); i++) {
		(void)cache_shrink(caches[i % CACHES]);
		for (size_t j = 0; cache_stats_at(j, &s); j++)
			failures += s.nempty > s.nslabs;
	}
	return NULL;
}

/* Caches are created and destroyed meanwhile. */
static void *create_and_destroy(void *arg)
{
	(void)arg;
	while (!atomic_load(&finished)) {
		struct cache *c = cache_create("brief", 100, 8);
		void *p = c ? cache_alloc(c) : NULL;

		failures += p && cache_free(c, p) != ALLOC_OK;
		failures += c && cache_destroy(c);
	}
	return NULL;
}

static int run_threads(void)
{
	pthread_t worker[THREADS], other[3];

	atomic_store(&finished, false);
	CHECK_OR(!pthread_create(&other[0], NULL, disturb, NULL), -1);
	CHECK_OR(!pthread_create(&other[1], NULL, create_and_destroy, NULL), -1);
	CHECK_OR(!pthread_create(&other[2], NULL, create_and_destroy, NULL), -1);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_OR(!pthread_create(&worker[i], NULL, exchange_parcels, (void *)(i + 1)), -1);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(worker[i], NULL);
	atomic_store(&finished, true);
	for (size_t i = 0; i < 3; i++)
		pthread_join(other[i], NULL);
	return 0;
}

/* Over slab, a CPU keeps what it allocated from, and the records of caches lie there. */
#define RECORD_PAGES 64

SELFTEST_KEEPS(mm, cache_threads, RECORD_PAGES)
{
	unsigned long faults = mm_fault_count();
	size_t live = 0;

	for (size_t i = 0; i < CACHES; i++) {
		caches[i] = cache_create("threads", sizeof(struct parcel), 8);
		CHECK(caches[i]);
	}
	failures = 0;
	CHECK(!run_threads());
	for (size_t i = 0; i < CACHES; i++) {
		CHECK(!cache_check(caches[i]));
		for (size_t j = 0; j < MAILBOXES; j++)
			live += mailbox[i][j] != NULL;
		CHECK(cache_get_stats(caches[i]).live == live);
		for (size_t j = 0; j < MAILBOXES; j++)
			unpack(i, j);
		live = 0;
		CHECK(!cache_check(caches[i]) && !cache_destroy(caches[i]));
	}
	CHECK(!failures && mm_fault_count() == faults);
}

static virt_addr_t take_all_pages(struct global_allocator *g)
{
	virt_addr_t chain = {0}, page;

	while (global_allocator_alloc_pages(g, 1, MM_PAGE_SIZE, &page) == ALLOC_OK) {
		*(virt_addr_t *)virt_ptr(page) = chain;
		chain = page;
	}
	return chain;
}

static bool free_all_pages(struct global_allocator *g, virt_addr_t chain)
{
	bool ok = true;

	while (chain.value) {
		virt_addr_t page = chain;

		chain = *(virt_addr_t *)virt_ptr(page);
		ok &= global_allocator_dealloc_pages(g, page, 1) == ALLOC_OK;
	}
	return ok;
}

/* Single pages until there are none: the cache's empty slabs are among them. */
SELFTEST(mm, cache_threads_reclaim)
{
	struct global_allocator *g = global_allocator();
	struct cache *c = cache_create("reserve", 500, 8);
	static void *objects[2000];
	struct cache_stats before, after;
	virt_addr_t chain;

	CHECK(c);
	for (size_t i = 0; i < 2000; i++)
		CHECK((objects[i] = cache_alloc(c)));
	for (size_t i = 1; i < 2000; i++)
		CHECK(cache_free(c, objects[i]) == ALLOC_OK);
	before = cache_get_stats(c);
	chain = take_all_pages(g);
	after = cache_get_stats(c);
	CHECK(free_all_pages(g, chain));
	CHECK(before.nempty && before.nslabs > 1);
	CHECK(after.nslabs == 1 && after.live == 1);
	CHECK(cache_free(c, objects[0]) == ALLOC_OK && !cache_destroy(c));
}

static void *take_pages(void *taken)
{
	*(virt_addr_t *)taken = take_all_pages(global_allocator());
	return NULL;
}

/* Pages run out on another CPU, which asks this one for what it keeps: there is still an object. */
SELFTEST(mm, cache_threads_starved)
{
	struct cache *c = cache_create("starved", 1000, 8);
	virt_addr_t chain = {0};
	pthread_t other;
	void *p, *q;

	CHECK(c && (p = cache_alloc(c)) && cache_free(c, p) == ALLOC_OK);
	CHECK(!pthread_create(&other, NULL, take_pages, &chain));
	pthread_join(other, NULL);
	q = cache_alloc(c);
	CHECK(chain.value && free_all_pages(global_allocator(), chain));
	CHECK(q && cache_free(c, q) == ALLOC_OK && !cache_destroy(c));
}

/* --- Two CPUs free one object in the same instant --- */

#define RACES 2000

static void *contested;
static pthread_barrier_t start_line, finish_line;
static _Atomic unsigned int accepted;

static void *race(void *arg)
{
	for (unsigned int i = 0; i < RACES; i++) {
		pthread_barrier_wait(&start_line);
		accepted += cache_free(arg, contested) == ALLOC_OK;
		pthread_barrier_wait(&finish_line);
	}
	return NULL;
}

/* From level 2 on exactly one of them succeeds. A race on purpose, so not for the sanitizer. */
SELFTEST(mm, cache_threads_double_free)
{
	struct cache *c;
	unsigned long before = mm_fault_count();
	pthread_t racer;
	bool sanitized = false;

#ifdef __SANITIZE_THREAD__
	sanitized = true;
#endif
	if (MM_HARDEN < 2 || sanitized) {
		selftest_skip("two frees in the same instant are told apart from level 2 on");
		return;
	}
	c = cache_create("contested", 64, 8);
	CHECK(c && !pthread_barrier_init(&start_line, NULL, 2));
	CHECK(!pthread_barrier_init(&finish_line, NULL, 2));
	accepted = 0;
	contested = cache_alloc(c);
	CHECK(contested && !pthread_create(&racer, NULL, race, c));
	mm_fault_expect(true);
	for (unsigned int i = 0; i < RACES; i++) {
		pthread_barrier_wait(&start_line);
		accepted += cache_free(c, contested) == ALLOC_OK;
		pthread_barrier_wait(&finish_line);
		contested = cache_alloc(c);
	}
	mm_fault_expect(false);
	pthread_join(racer, NULL);
	CHECK(accepted == RACES && mm_fault_count() == before + RACES);
	CHECK(mm_fault_last().kind == MM_FAULT_DOUBLE_FREE);
	CHECK(!cache_check(c) && cache_free(c, contested) == ALLOC_OK && !cache_destroy(c));
}
