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

/* --- Constructed objects --- */

struct node {
	struct node *next, *prev;
	uint64_t magic;
};

static size_t constructed;

static void construct_node(void *object)
{
	struct node *n = object;

	n->next = n->prev = n;
	n->magic = 0x6e6f6465;
	constructed++;
}

static bool is_constructed(const struct node *n)
{
	return n->next == n && n->prev == n && n->magic == 0x6e6f6465;
}

SELFTEST(mm, cache_constructed)
{
	struct cache *c = cache_create_constructed("nodes", sizeof(struct node), 8, construct_node);
	static struct node *nodes[300];
	struct cache_stats s;

	constructed = 0;
	CHECK(c);
	for (unsigned int round = 0; round < 3; round++) {
		for (size_t i = 0; i < 300; i++) {
			nodes[i] = cache_alloc(c);
			CHECK(nodes[i] && is_constructed(nodes[i]));
			nodes[i]->magic = i;
		}
		for (size_t i = 0; i < 300; i++) {
			CHECK(nodes[i]->magic == i);
			nodes[i]->magic = 0x6e6f6465;
			CHECK(cache_free(c, nodes[i]) == ALLOC_OK);
		}
		CHECK(!cache_check(c));
	}
	s = cache_get_stats(c);
	if (MM_HARDEN < 2)
		CHECK(constructed % s.slab_objects == 0 && constructed < 900 + s.slab_objects);
	else
		CHECK(constructed == 900);
	CHECK(!cache_destroy(c));
}

/* --- Memory comes and goes --- */

#define MANY 200u

static void *many[MANY];

static size_t take_many(struct cache *c)
{
	size_t n = 0;

	while (n < MANY && (many[n] = cache_alloc(c)))
		n++;
	return n;
}

static bool free_many(struct cache *c, size_t n)
{
	bool ok = true;

	while (n--)
		ok &= cache_free(c, many[n]) == ALLOC_OK;
	return ok;
}

/* Nothing is to be had from the nth request for pages on. How many objects there were. */
static int run_starved(unsigned long nth, size_t *got)
{
	struct cache *c;

	global_allocator_fail_pages(global_allocator(), nth);
	c = cache_create("starved", 600, 8);
	*got = c ? take_many(c) : 0;
	if (c && *got < MANY)
		CHECK_OR(!cache_alloc(c) && !cache_alloc_zeroed(c), -1);
	global_allocator_fail_pages(global_allocator(), 0);
	if (!c)
		return 0;
	CHECK_OR(cache_get_stats(c).live == *got, -1);
	CHECK_OR(!cache_check(c), -1);
	CHECK_OR(free_many(c, *got), -1);
	CHECK_OR(take_many(c) == MANY, -1);
	CHECK_OR(free_many(c, MANY), -1);
	CHECK_OR(!cache_destroy(c), -1);
	return 0;
}

SELFTEST(mm, cache_out_of_memory)
{
	unsigned long nth = 1;
	size_t got;

	do {
		CHECK(!run_starved(nth, &got));
		CHECK(nth++ < 200);
	} while (got < MANY);
	CHECK(nth > 3);
}

SELFTEST(mm, cache_gives_back)
{
	struct cache *c = cache_create("giver", 1000, 8);
	struct cache_stats s;
	size_t slabs;

	CHECK(c && take_many(c) == MANY);
	s = cache_get_stats(c);
	slabs = s.nslabs;
	for (size_t i = MANY; i-- > 0;) {
		CHECK(cache_free(c, many[i]) == ALLOC_OK);
		s = cache_get_stats(c);
		CHECK(s.nempty <= 1 + (s.nslabs - s.nempty) / 4);
	}
	CHECK(s.nslabs && s.nslabs < slabs / 2);
	CHECK(cache_shrink(c) == s.nslabs * s.slab_bytes / MM_PAGE_SIZE);
	CHECK(!cache_get_stats(c).nslabs && !cache_shrink(c));
	CHECK(take_many(c) == MANY && free_many(c, MANY));
	CHECK(!cache_destroy(c));
}

SELFTEST(mm, cache_reclaimed)
{
	struct cache *c = cache_create("reclaimed", 1000, 8);
	void *kept;
	virt_addr_t va;

	CHECK(c && take_many(c) == MANY);
	kept = cache_alloc(c);
	CHECK(kept && free_many(c, MANY));
	CHECK(cache_get_stats(c).nslabs > 1);
	global_allocator_fail_pages(global_allocator(), 1);
	CHECK(global_allocator_alloc_pages(global_allocator(), 64, MM_PAGE_SIZE, &va) ==
	      ALLOC_NO_MEMORY);
	global_allocator_fail_pages(global_allocator(), 0);
	CHECK(cache_get_stats(c).nslabs == 1 && cache_get_stats(c).live == 1);
	CHECK(!cache_check(c));
	CHECK(cache_free(c, kept) == ALLOC_OK);
	CHECK(!cache_destroy(c));
}

SELFTEST(mm, cache_destroy_refused)
{
	struct cache *c = cache_create("busy", 64, 64);
	void *p[3];

	CHECK(c);
	for (size_t i = 0; i < 3; i++) {
		p[i] = cache_alloc(c);
		CHECK(p[i]);
		__builtin_memset(p[i], 0x77, 64);
	}
	for (size_t i = 0; i < 3; i++) {
		CHECK(cache_destroy(c) == 3 - i);
		CHECK(!cache_check(c) && *(uint8_t *)p[i] == 0x77);
		CHECK(cache_free(c, p[i]) == ALLOC_OK);
	}
	CHECK(!cache_destroy(c));
}

static size_t registered(const char *name)
{
	struct cache_stats s;

	for (size_t i = 0; cache_stats_at(i, &s); i++)
		if (s.name == name)
			return i + 1;
	return 0;
}

SELFTEST(mm, cache_registry)
{
	static const char *const names[] = {"first", "second", "third"};
	struct cache *c[3];

	for (size_t i = 0; i < 3; i++) {
		c[i] = cache_create(names[i], 8 + i, 8);
		CHECK(c[i]);
	}
	cache_log_all();
	CHECK(registered(names[0]) && registered(names[0]) < registered(names[1]));
	CHECK(registered(names[1]) < registered(names[2]));
	CHECK(!cache_destroy(c[1]));
	CHECK(!registered(names[1]) && registered(names[0]) < registered(names[2]));
	CHECK(!cache_destroy(c[0]) && !cache_destroy(c[2]));
	CHECK(!registered(names[0]) && !registered(names[2]));
}

/* A request that fails has asked every cache, and got all that each could do without. */
SELFTEST(mm, cache_reclaimed_from_all)
{
	struct cache *c[3] = {cache_create("a", 64, 8), cache_create("b", 30000, 8),
			      cache_create("c", 500, 8)};
	virt_addr_t va;

	for (size_t i = 0; i < 3; i++) {
		void *p = c[i] ? cache_alloc(c[i]) : NULL;

		CHECK(p && cache_free(c[i], p) == ALLOC_OK && cache_get_stats(c[i]).nslabs == 1);
	}
	global_allocator_fail_pages(global_allocator(), 1);
	CHECK(global_allocator_alloc_pages(global_allocator(), 64, MM_PAGE_SIZE, &va) ==
	      ALLOC_NO_MEMORY);
	global_allocator_fail_pages(global_allocator(), 0);
	for (size_t i = 0; i < 3; i++)
		CHECK(!cache_get_stats(c[i]).nslabs && !cache_destroy(c[i]));
}

/* --- Misuse --- */

static const char culprit[] = "culprit";

static int refused(struct cache *c, void *p, enum mm_fault_kind kind)
{
	unsigned long before = mm_fault_count();
	enum alloc_result r;
	struct mm_fault f;

	mm_fault_expect(true);
	r = cache_free(c, p);
	mm_fault_expect(false);
	f = mm_fault_last();
	CHECK_OR(mm_fault_count() == before + 1, -1);
	CHECK_OR(f.kind == kind && f.allocator == culprit && f.ptr == p && f.caller, -1);
	CHECK_OR(r == (!p || kind == MM_FAULT_MISALIGNED ? ALLOC_INVALID_PARAM
							 : ALLOC_NOT_ALLOCATED),
		 -1);
	CHECK_OR(!cache_check(c), -1);
	return 0;
}

/* What is no object is refused at every level. */
SELFTEST(mm, cache_foreign)
{
	static uint64_t fixed[8];
	struct cache *c = cache_create(culprit, 104, 8), *other = cache_create("other", 104, 8);
	struct layout l = {104, 8};
	uint64_t local[8];
	uint8_t *p, *q;
	void *block;

	CHECK(c && other);
	p = cache_alloc(c);
	q = cache_alloc(other);
	CHECK(p && q && global_alloc(l, &block) == ALLOC_OK);
	CHECK(!refused(c, NULL, MM_FAULT_FOREIGN));
	CHECK(!refused(c, local, MM_FAULT_FOREIGN));
	CHECK(!refused(c, fixed, MM_FAULT_FOREIGN));
	CHECK(!refused(c, block, MM_FAULT_FOREIGN));
	CHECK(!refused(c, c, MM_FAULT_FOREIGN));
	CHECK(!refused(c, q, MM_FAULT_FOREIGN));
	CHECK(!refused(c, p + 8, MM_FAULT_FOREIGN));
	CHECK(!refused(c, p + 3, MM_FAULT_MISALIGNED));
	CHECK(!refused(c, (void *)((uintptr_t)p & ~(MM_PAGE_SIZE - 1)), MM_FAULT_FOREIGN));
	CHECK(!refused(c, (void *)~(uintptr_t)7, MM_FAULT_FOREIGN));
	CHECK(cache_free(c, p) == ALLOC_OK && cache_free(other, q) == ALLOC_OK);
	CHECK(global_dealloc(block, l) == ALLOC_OK);
	CHECK(!cache_destroy(c) && !cache_destroy(other));
}

/* Addresses that are no memory at all, before there is a slab and afterwards. */
static int refuse_wild(size_t size)
{
	struct cache *c = cache_create(culprit, size, 8);
	uintptr_t stride;
	uint8_t *p;

	CHECK_OR(c, -1);
	stride = cache_get_stats(c).stride;
	for (uintptr_t q = 0; q < 8; q++) /* half a stride each */
		CHECK_OR(!refused(c, (void *)(1 + q * (stride / 2)), MM_FAULT_FOREIGN), -1);
	p = cache_alloc(c);
	CHECK_OR(p && cache_free(c, p) == ALLOC_OK && (p = cache_alloc(c)), -1);
	for (unsigned int bit = 48; bit < 64; bit++)
		CHECK_OR(
			!refused(c, (void *)((uintptr_t)p ^ (uintptr_t)1 << bit), MM_FAULT_FOREIGN),
			-1);
	CHECK_OR(cache_free(c, p) == ALLOC_OK && !cache_destroy(c), -1);
	return 0;
}

SELFTEST(mm, cache_wild)
{
	for (size_t size = 8; size < 2048; size += 8 + size / 8 / 8 * 8)
		CHECK(!refuse_wild(size));
}

/* Pointers into memory that was given back. */
SELFTEST(mm, cache_freed_slab)
{
	struct cache *c = cache_create(culprit, 300, 8);

	CHECK(c && take_many(c) == MANY && free_many(c, MANY));
	(void)cache_shrink(c);
	for (size_t i = 0; i < MANY; i += 17)
		CHECK(!refused(c, many[i], MM_FAULT_FOREIGN));
	CHECK(!cache_destroy(c));
}

/* So few that all lie in one slab, which stays while it is the only one. */
#define FEW 60u

static int check_double_free(struct cache *c)
{
	void *p;

	CHECK_OR(c, -1);
	for (size_t i = 0; i < FEW; i++) {
		many[i] = cache_alloc(c);
		CHECK_OR(many[i], -1);
	}
	p = cache_alloc(c);
	CHECK_OR(p && cache_free(c, p) == ALLOC_OK, -1);
	CHECK_OR(!refused(c, p, MM_FAULT_DOUBLE_FREE), -1);
	for (size_t i = 0; i < FEW; i++) {
		CHECK_OR(cache_free(c, many[i]) == ALLOC_OK, -1);
		CHECK_OR(!refused(c, many[i / 2], MM_FAULT_DOUBLE_FREE), -1);
		CHECK_OR(!refused(c, p, MM_FAULT_DOUBLE_FREE), -1);
	}
	CHECK_OR(!cache_destroy(c), -1);
	return 0;
}

/* Level 0 lets it in: the walk finds that the object is there twice, and so does its slab. */
static int double_free_unchecked(struct cache *c)
{
	unsigned long before = mm_fault_count();
	void *p;

	CHECK_OR(c, -1);
	p = cache_alloc(c);
	CHECK_OR(p && cache_free(c, p) == ALLOC_OK && cache_free(c, p) == ALLOC_OK, -1);
	CHECK_OR(cache_check(c) == p, -1);
	mm_fault_expect(true);
	(void)cache_shrink(c);
	mm_fault_expect(false);
	CHECK_OR(mm_fault_count() == before + 1, -1);
	CHECK_OR(mm_fault_last().kind == MM_FAULT_DOUBLE_FREE && mm_fault_last().ptr == p, -1);
	CHECK_OR(!cache_check(c) && !cache_destroy(c), -1);
	return 0;
}

SELFTEST(mm, cache_double_free)
{
	if (!MM_HARDEN) {
		CHECK(!double_free_unchecked(cache_create(culprit, 40, 8)));
		return;
	}
	CHECK(!check_double_free(cache_create(culprit, 8, 8)));
	CHECK(!check_double_free(
		cache_create_constructed(culprit, sizeof(struct node), 8, construct_node)));
}

/* One byte behind the object: its owner's free is refused, nobody gets the object again. */
SELFTEST(mm, cache_overflow)
{
	struct cache *c;
	uint8_t *p;

	if (MM_HARDEN < 2) {
		selftest_skip("a canary is behind objects from level 2 on");
		return;
	}
	c = cache_create(culprit, 45, 8);
	CHECK(c);
	p = cache_alloc(c);
	CHECK(p);
	p[45] ^= 1;
	CHECK(!refused(c, p, MM_FAULT_OVERFLOW));
	CHECK(cache_destroy(c) == 1);
	p[45] ^= 1;
	CHECK(cache_free(c, p) == ALLOC_OK);
	CHECK(!cache_destroy(c));
}

/*
 * Take objects until the one is found that was written to while it was free; it is never handed
 * out. A live neighbour keeps its slab from being given back.
 */
static int find_written(struct cache *c, const void *written)
{
	unsigned long before = mm_fault_count();
	size_t n;

	(void)cache_shrink(c);
	mm_fault_expect(true);
	n = take_many(c);
	mm_fault_expect(false);
	CHECK_OR(n == MANY && mm_fault_count() > before, -1);
	CHECK_OR(mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE, -1);
	CHECK_OR(mm_fault_last().allocator == culprit && mm_fault_last().ptr == written, -1);
	for (size_t i = 0; i < n; i++)
		CHECK_OR(many[i] != written, -1);
	CHECK_OR(cache_get_stats(c).lost == 1 && cache_get_stats(c).live == n + 1, -1);
	CHECK_OR(free_many(c, n), -1);
	return 0;
}

/*
 * An object is written to while it is free, in a magazine or in its slab. From level 1 on
 * the walk sees the first word, and so does the next use if it lay in its slab; from
 * level 2 on both see everything.
 */
static int write_after_free(size_t place, bool in_slab)
{
	bool seen = MM_HARDEN >= 2 || (MM_HARDEN && !place);
	struct cache *c = cache_create(culprit, 40, 8);
	void *neighbour;
	uint8_t *p;

	CHECK_OR(c, -1);
	p = cache_alloc(c);
	neighbour = cache_alloc(c);
	CHECK_OR(p && neighbour && cache_free(c, p) == ALLOC_OK && !cache_check(c), -1);
	if (in_slab)
		(void)cache_shrink(c);
	p[place] ^= 0x10;
	CHECK_OR(cache_check(c) == (seen ? p : NULL), -1);
	if (MM_HARDEN >= 2 || (seen && in_slab))
		CHECK_OR(!find_written(c, p), -1);
	else
		CHECK_OR(take_many(c) == MANY && free_many(c, MANY), -1);
	CHECK_OR(cache_free(c, neighbour) == ALLOC_OK, -1);
	CHECK_OR(!cache_check(c) && !cache_destroy(c), -1);
	return 0;
}

SELFTEST(mm, cache_write_after_free)
{
	static const size_t places[] = {0, 8, 21, 39};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		CHECK(!write_after_free(places[i], false));
		CHECK(!write_after_free(places[i], true));
	}
}

/* Level 2: when its slab goes, at the latest. */
SELFTEST(mm, cache_write_before_it_goes)
{
	struct cache *c = cache_create(culprit, 40, 8);
	unsigned long before = mm_fault_count();
	uint8_t *p;

	if (MM_HARDEN < 2) {
		CHECK(c && !cache_destroy(c));
		selftest_skip("there is no poison");
		return;
	}
	CHECK(c && (p = cache_alloc(c)) && cache_free(c, p) == ALLOC_OK);
	p[21] ^= 1;
	mm_fault_expect(true);
	CHECK(cache_shrink(c));
	mm_fault_expect(false);
	CHECK(mm_fault_count() == before + 1 && mm_fault_last().ptr == p);
	CHECK(mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE);
	CHECK(!cache_destroy(c));
}

/* What a slab leaves in its pages, copied into a live object, does not make it look free. */
static int free_copies(struct cache *c, const char *from, const char *end)
{
	for (; from + 40 <= end; from += sizeof(uint64_t)) {
		void *p = cache_alloc(c);

		CHECK_OR(p, -1);
		__builtin_memcpy(p, from, 40);
		CHECK_OR(cache_free(c, p) == ALLOC_OK, -1);
	}
	return 0;
}

SELFTEST(mm, cache_leaves_no_marks)
{
	struct cache *c = cache_create(culprit, 40, 8);
	struct global_allocator *g = global_allocator();
	size_t nbytes;
	char *pages;

	CHECK(c && take_many(c) == MANY);
	nbytes = cache_get_stats(c).slab_bytes;
	pages = (char *)((uintptr_t)many[0] & ~(nbytes - 1));
	CHECK(free_many(c, MANY) && cache_shrink(c));
	CHECK(!global_allocator_alloc_pages_at(g, virt_addr(pages), nbytes / MM_PAGE_SIZE,
					       MM_PAGE_SIZE));
	CHECK(!free_copies(c, pages, pages + nbytes));
	CHECK(!global_allocator_dealloc_pages(g, virt_addr(pages), nbytes / MM_PAGE_SIZE));
	CHECK(!cache_destroy(c));
}

/* A double free that the mark does not show any more is seen when the object returns to its slab.
 */
SELFTEST(mm, cache_double_free_unmarked)
{
	struct cache *c = cache_create(culprit, 40, 8);
	unsigned long before = mm_fault_count();
	void *p, *neighbour;

	CHECK(c);
	p = cache_alloc(c);
	neighbour = cache_alloc(c);
	CHECK(p && neighbour && cache_free(c, p) == ALLOC_OK);
	(void)cache_shrink(c);
	*(uint64_t *)p = 0;
	CHECK(cache_free(c, p) == ALLOC_OK);
	CHECK(cache_check(c) == p);
	mm_fault_expect(true);
	(void)cache_shrink(c);
	mm_fault_expect(false);
	CHECK(mm_fault_count() == before + 1 && mm_fault_last().kind == MM_FAULT_DOUBLE_FREE);
	CHECK(mm_fault_last().ptr == p && mm_fault_last().allocator == culprit);
	CHECK(!cache_check(c) && cache_free(c, neighbour) == ALLOC_OK && !cache_destroy(c));
}

/* --- Overwritten records --- */

/* Words of the record at the start of a slab. */
enum { SEAL, NEXT, PREV, GUARD, NFREE, BITS, RECORD_WORDS };

#define SMASHED_SIZE  1000u
#define SMASHED_PAGES 2u /* of a slab for that size */
#define SMASHED_SLAB  (SMASHED_PAGES * MM_PAGE_SIZE)

static uint64_t *record_of(const void *object)
{
	return (uint64_t *)((uintptr_t)object & ~(SMASHED_SLAB - 1));
}

static void smash(const void *object, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		record_of(object)[i] = 0x4141414141414141;
}

static struct cache *start_smashing(void)
{
	struct cache *c = cache_create(culprit, SMASHED_SIZE, 8);

	CHECK_OR(c && take_many(c) == MANY, NULL);
	CHECK_OR(cache_get_stats(c).slab_bytes == SMASHED_SLAB, NULL);
	for (size_t i = 0; i < MANY; i++)
		__builtin_memset(many[i], (int)i, SMASHED_SIZE);
	return c;
}

/* Free every step-th object from the first on, that is not free yet. How many were refused. */
static size_t free_some(struct cache *c, size_t first, size_t step)
{
	size_t refusals = 0;

	for (size_t i = first; i < MANY; i += step) {
		refusals += many[i] && cache_free(c, many[i]) != ALLOC_OK;
		many[i] = NULL;
	}
	return refusals;
}

static bool others_intact(void)
{
	for (size_t i = 0; i < MANY; i++)
		if (many[i] && ((uint8_t *)many[i])[SMASHED_SIZE - 1] != (uint8_t)i)
			return false;
	return true;
}

/* The cache goes on without the one slab, and says so. */
static int end_smashing(struct cache *c, unsigned long faults)
{
	(void)cache_shrink(c);
	CHECK_OR(take_many(c) == MANY && free_many(c, MANY), -1);
	(void)cache_shrink(c);
	mm_fault_expect(false);
	CHECK_OR(mm_fault_count() > faults && mm_fault_last().allocator == culprit, -1);
	CHECK_OR(cache_get_stats(c).nbroken == 1 && !cache_get_stats(c).live, -1);
	CHECK_OR(!cache_check(c) && !cache_destroy(c), -1);
	return 0;
}

/* A full slab is smashed; it is noticed, and the objects of the others stay whole. */
static int smash_full(size_t from, size_t to)
{
	unsigned long faults = mm_fault_count();
	struct cache *c = start_smashing();

	CHECK_OR(c, -1);
	smash(many[MANY / 2], from, to);
	CHECK_OR(cache_check(c), -1);
	mm_fault_expect(true);
	for (size_t i = 0; i < 7; i++) {
		CHECK_OR(others_intact(), -1);
		CHECK_OR(free_some(c, i, 7) <= cache_get_stats(c).slab_objects, -1);
	}
	return end_smashing(c, faults);
}

/* A slab from which some objects are free is smashed, then objects are wanted. */
static int smash_partial(size_t from, size_t to)
{
	unsigned long faults = mm_fault_count();
	struct cache *c = start_smashing();
	void *more[MANY];
	size_t n = 0;

	CHECK_OR(c && !free_some(c, 0, 2), -1);
	(void)cache_shrink(c);
	smash(many[1], from, to);
	CHECK_OR(cache_check(c), -1);
	mm_fault_expect(true);
	for (; n < MANY; n++) {
		more[n] = cache_alloc(c);
		CHECK_OR(more[n], -1);
		__builtin_memset(more[n], 0x55, SMASHED_SIZE);
	}
	CHECK_OR(others_intact(), -1);
	while (n--)
		CHECK_OR(cache_free(c, more[n]) == ALLOC_OK, -1);
	CHECK_OR(free_some(c, 1, 2) <= cache_get_stats(c).slab_objects, -1);
	return end_smashing(c, faults);
}

/* The slab that frees go to without a look at its record. */
static int smash_last_hit(void)
{
	unsigned long faults = mm_fault_count();
	struct cache *c = start_smashing();
	uint64_t *record;

	CHECK_OR(c && cache_free(c, many[0]) == ALLOC_OK, -1);
	record = record_of(many[0]);
	many[0] = NULL;
	smash(record, SEAL, SEAL + 1);
	mm_fault_expect(true);
	for (size_t i = 1; i < MANY; i++)
		if (record_of(many[i]) == record) {
			CHECK_OR(cache_free(c, many[i]) == ALLOC_OK, -1);
			many[i] = NULL;
		}
	CHECK_OR(!free_some(c, 0, 1), -1);
	return end_smashing(c, faults);
}

/* The empty slab that a cache keeps, when it is to be given back. */
static int smash_empty(void)
{
	unsigned long faults = mm_fault_count();
	struct cache *c = start_smashing();
	size_t i = 0;

	CHECK_OR(c && free_many(c, MANY), -1);
	CHECK_OR(cache_get_stats(c).nempty, -1);
	while (i < MANY && (!record_of(many[i])[SEAL] ||
			    record_of(many[i])[NFREE] != cache_get_stats(c).slab_objects))
		i++;
	CHECK_OR(i < MANY, -1);
	smash(many[i], NEXT, PREV);
	mm_fault_expect(true);
	return end_smashing(c, faults);
}

/* The memory of a slab with a broken record is never used again. */
SELFTEST_KEEPS(mm, cache_smashed_record, 16 * SMASHED_PAGES)
{
	if (!MM_HARDEN) {
		selftest_skip("level 0 follows every link");
		return;
	}
	for (size_t i = SEAL; i <= GUARD; i++) {
		CHECK(!smash_full(i, i + 1));
		CHECK(!smash_partial(i, i + 1));
	}
	CHECK(!smash_full(NEXT, GUARD));
	CHECK(!smash_full(SEAL, RECORD_WORDS));
	CHECK(!smash_partial(SEAL, RECORD_WORDS));
	CHECK(!smash_partial(NFREE, NFREE + 1));
	CHECK(!smash_last_hit());
	CHECK(!smash_empty());
}

/* A cache with many objects, and how many a slab has. NULL: the test is skipped, or has failed. */
static struct cache *start_if_hardened(size_t *slab_objects)
{
	struct cache *c;

	if (!MM_HARDEN) {
		selftest_skip("level 0 follows every link");
		return NULL;
	}
	c = start_smashing();
	CHECK_OR(c, NULL);
	*slab_objects = cache_get_stats(c).slab_objects;
	return c;
}

/* One object lives in a slab that was never touched: the cache knows it, whatever else is broken.
 */
static int end_with_one(struct cache *c, void *kept)
{
	(void)cache_shrink(c);
	mm_fault_expect(false);
	CHECK_OR(cache_get_stats(c).live == 1 && cache_destroy(c) == 1, -1);
	CHECK_OR(cache_free(c, kept) == ALLOC_OK && !cache_destroy(c), -1);
	return 0;
}

/*
 * Two records in one list are smashed: what lies between is cut out, and whole. Its objects can be
 * freed, but it does not come back.
 */
SELFTEST_KEEPS(mm, cache_smashed_records, 5 * SMASHED_PAGES)
{
	/* Of slabs: the first is found broken, the second one's neighbours are whole. */
	static const size_t order[] = {1, 3, 2, 4, 5};
	struct cache *c;
	void *kept;
	size_t n;

	c = start_if_hardened(&n);
	if (!c)
		return;
	smash(many[n], NEXT, NFREE);
	smash(many[5 * n], NEXT, NFREE);
	mm_fault_expect(true);
	for (size_t i = 0; i < 5 * n; i++) {
		size_t j = order[i / n] * n + i % n;

		(void)cache_free(c, many[j]);
		many[j] = NULL;
		CHECK(others_intact());
	}
	(void)cache_shrink(c);
	CHECK(cache_get_stats(c).nbroken == 5);
	kept = many[0];
	many[0] = NULL;
	CHECK(!free_some(c, 0, 1));
	CHECK(!end_with_one(c, kept));
}

/* One slab was lost; then a link of a second one is smashed: the others are not lost with it. */
SELFTEST_KEEPS(mm, cache_smashed_again, 2 * SMASHED_PAGES)
{
	struct cache *c;
	size_t n;

	c = start_if_hardened(&n);
	if (!c)
		return;
	smash(many[0], SEAL, SEAL + 1);
	mm_fault_expect(true);
	for (size_t i = 0; i < n; i++, many[i - 1] = NULL)
		(void)cache_free(c, many[i]);
	(void)cache_shrink(c);
	CHECK(cache_get_stats(c).nbroken == 1);
	smash(many[5 * n], NEXT, PREV);
	for (size_t i = 10 * n; i < 11 * n; i++, many[i - 1] = NULL)
		CHECK(cache_free(c, many[i]) == ALLOC_OK);
	(void)cache_shrink(c);
	CHECK(others_intact() && free_some(c, 0, 1) <= n);
	(void)cache_shrink(c);
	mm_fault_expect(false);
	CHECK(cache_get_stats(c).nbroken == 2 && !cache_get_stats(c).live);
	CHECK(!cache_check(c) && !cache_destroy(c));
}

/* An object was lost in a slab whose record is smashed later: it is counted no more. */
SELFTEST_KEEPS(mm, cache_lost_in_smashed, SMASHED_PAGES)
{
	void *again[MANY], *kept;
	struct cache *c;
	size_t n;

	c = start_if_hardened(&n);
	if (!c)
		return;
	for (size_t i = 1; i < n; i++)
		CHECK(cache_free(c, many[i]) == ALLOC_OK);
	(void)cache_shrink(c);
	__builtin_memset(many[1], 7, SMASHED_SIZE);
	mm_fault_expect(true);
	for (size_t i = 1; i < n; i++)
		CHECK((again[i] = cache_alloc(c)));
	CHECK(cache_get_stats(c).lost == 1);
	smash(many[0], SEAL, GUARD);
	for (size_t i = 1; i < n; i++)
		(void)cache_free(c, again[i]);
	(void)cache_free(c, many[0]);
	kept = many[MANY - 1];
	for (size_t i = n; i < MANY - 1; i++)
		CHECK(cache_free(c, many[i]) == ALLOC_OK);
	CHECK(!end_with_one(c, kept));
}
