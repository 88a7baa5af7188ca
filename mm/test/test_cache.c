/* SPDX-License-Identifier: MIT */
/* Named caches: a shadow of every object around random operations, failures at every point, misuse.
 */
#include <mm/cache.h>
#include <mm/global.h>
#include <selftest/selftest.h>

#define OBJECTS 400u
#define STEPS	3000u

/* --- Creation and geometry --- */

SELFTEST(mm, cache_parameters)
{
	CHECK(!cache_create(NULL, 8, 8));
	CHECK(!cache_create("none", 0, 8));
	CHECK(!cache_create("none", CACHE_MAX_SIZE + 1, 8));
	CHECK(!cache_create("none", SIZE_MAX, 8));
	CHECK(!cache_create("none", 8, 0));
	CHECK(!cache_create("none", 8, 24));
	CHECK(!cache_create("none", 8, CACHE_MAX_ALIGN * 2));
}

/* Objects are as close as size and alignment allow, and little of a slab is waste. */
static int check_geometry(size_t size, size_t align)
{
	struct cache *c = cache_create("geometry", size, align);
	struct cache_stats s;
	size_t most = size < 8 ? 8 : size;
	void *p;

	CHECK_OR(c, -1);
	s = cache_get_stats(c);
	if (MM_HARDEN >= 2)
		most += sizeof(uint64_t);
	CHECK_OR(s.size == size && s.align >= align && s.stride >= most, -1);
	CHECK_OR(s.stride < most + s.align && !(s.stride & (s.align - 1)), -1);
	CHECK_OR(mm_is_pow2(s.slab_bytes) && s.slab_bytes >= MM_PAGE_SIZE, -1);
	CHECK_OR(s.slab_objects >= 7, -1);
	CHECK_OR(s.slab_bytes - s.slab_objects * s.stride <= s.slab_bytes / 8, -1);
	p = cache_alloc(c);
	CHECK_OR(p && !((uintptr_t)p & (s.align - 1)), -1);
	s = cache_get_stats(c);
	CHECK_OR(s.live == 1 && s.nslabs == 1, -1);
	CHECK_OR(s.waste == s.slab_bytes - s.slab_objects * size, -1);
	CHECK_OR(cache_free(c, p) == ALLOC_OK, -1);
	CHECK_OR(!cache_check(c), -1);
	CHECK_OR(!cache_destroy(c), -1);
	return 0;
}

SELFTEST(mm, cache_geometry)
{
	for (size_t size = 1; size <= CACHE_MAX_SIZE; size += 1 + size / 9)
		for (size_t align = 1; align <= CACHE_MAX_ALIGN; align *= 16)
			CHECK(!check_geometry(size, align));
	CHECK(!check_geometry(CACHE_MAX_SIZE, 1));
	CHECK(!check_geometry(CACHE_MAX_SIZE, CACHE_MAX_ALIGN));
}

/* --- A shadow of the live objects --- */

struct shadow_object {
	uint8_t *p;
	uint8_t seed;
};

static struct shadow_object shadow[OBJECTS];
static size_t shadow_size, shadow_live;

static uint8_t payload(const struct shadow_object *o, size_t i)
{
	return (uint8_t)(o->seed + i * 7);
}

static bool is_intact(const struct shadow_object *o)
{
	for (size_t i = 0; i < shadow_size; i += i < 32 ? 1 : 13)
		if (o->p[i] != payload(o, i))
			return false;
	return o->p[shadow_size - 1] == payload(o, shadow_size - 1);
}

static bool all_intact(void)
{
	for (size_t i = 0; i < OBJECTS; i++)
		if (shadow[i].p && !is_intact(&shadow[i]))
			return false;
	return true;
}

static bool all_zero(const uint8_t *p)
{
	for (size_t i = 0; i < shadow_size; i++)
		if (p[i])
			return false;
	return true;
}

static int shadow_alloc(struct cache *c, struct shadow_object *o, uint64_t random)
{
	bool zeroed = random & 1;

	o->p = zeroed ? cache_alloc_zeroed(c) : cache_alloc(c);
	CHECK_OR(o->p, -1);
	CHECK_OR(!zeroed || all_zero(o->p), -1);
	o->seed = (uint8_t)(random >> 8);
	for (size_t i = 0; i < shadow_size; i++)
		o->p[i] = payload(o, i);
	shadow_live++;
	return 0;
}

static int shadow_free(struct cache *c, struct shadow_object *o)
{
	CHECK_OR(is_intact(o), -1);
	CHECK_OR(cache_free(c, o->p) == ALLOC_OK, -1);
	o->p = NULL;
	shadow_live--;
	return 0;
}

/* Phases of growing and shrinking, so that slabs get full and empty; now and then all is given
 * back. */
static int shadow_step(struct cache *c, unsigned int step, uint64_t random)
{
	struct shadow_object *o = &shadow[random % OBJECTS];
	bool growing = (step / 500) % 2 == 0, alloc = (random >> 32) % 4 ? growing : !growing;

	if (alloc && !o->p)
		CHECK_OR(!shadow_alloc(c, o, random >> 40), -1);
	else if (!alloc && o->p)
		CHECK_OR(!shadow_free(c, o), -1);
	if (step % 300 == 299)
		(void)cache_shrink(c);
	if (step % 16 == 0)
		CHECK_OR(all_intact() && !cache_check(c), -1);
	CHECK_OR(cache_get_stats(c).live == shadow_live, -1);
	return 0;
}

static int run_shadow(size_t size, size_t align)
{
	struct cache *c = cache_create("shadow", size, align);
	uint64_t seed = size;
	size_t n;

	CHECK_OR(c, -1);
	__builtin_memset(shadow, 0, sizeof(shadow));
	shadow_size = size;
	shadow_live = 0;
	for (unsigned int i = 0; i < STEPS; i++)
		CHECK_OR(!shadow_step(c, i, selftest_random(&seed)), -1);
	n = cache_destroy(c);
	CHECK_OR(n == shadow_live, -1);
	CHECK_OR(all_intact() && !cache_check(c), -1);
	for (size_t i = 0; i < OBJECTS; i++)
		CHECK_OR(!shadow[i].p || !shadow_free(c, &shadow[i]), -1);
	CHECK_OR(!n || !cache_destroy(c), -1);
	return 0;
}

SELFTEST(mm, cache_shadow_small)
{
	unsigned long faults = mm_fault_count();

	CHECK(!run_shadow(24, 8));
	CHECK(!run_shadow(1, 1));
	CHECK(mm_fault_count() == faults);
}

SELFTEST(mm, cache_shadow_aligned)
{
	CHECK(!run_shadow(100, 64));
	CHECK(!run_shadow(520, 256));
}

SELFTEST(mm, cache_shadow_large)
{
	CHECK(!run_shadow(2000, 8));
}
