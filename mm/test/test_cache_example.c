/* SPDX-License-Identifier: MIT */
/* The example of docs/memory.md, which shows this file: requests that come, wait and are done. */
#include <mm/cache.h>
#include <selftest/selftest.h>

struct request {
	struct request *next;
	uint64_t sector;
};

static struct request *queue;

static bool submit(struct cache *requests, uint64_t sector)
{
	struct request *r = cache_alloc(requests);

	if (!r)
		return false;
	*r = (struct request){.next = queue, .sector = sector};
	queue = r;
	return true;
}

static bool complete(struct cache *requests)
{
	struct request *r = queue;

	queue = r->next;
	return cache_free(requests, r) == ALLOC_OK;
}

SELFTEST(mm, cache_example)
{
	struct cache *requests = cache_create("requests", sizeof(struct request), 8);

	CHECK(requests);
	for (uint64_t sector = 0; sector < 100; sector++)
		CHECK(submit(requests, sector));
	CHECK(cache_get_stats(requests).live == 100);
	CHECK(cache_destroy(requests) == 100); /* refused: 100 are alive, and the log says so */
	while (queue)
		CHECK(complete(requests));
	CHECK(!cache_destroy(requests));
}
