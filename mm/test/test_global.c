/* SPDX-License-Identifier: MIT */
/* The global allocator on a region of its own, once for each engine. */
#include <mm/global.h>
#include <selftest/selftest.h>

#define REGION	   ((size_t)2 << 20)
#define BIG_REGION ((size_t)16 << 20)
#define HEAP_PAGES (MIN_HEAP_SIZE / MM_PAGE_SIZE)
#define CANARY	   (MM_HARDEN >= 2 ? (size_t)8 : 0) /* least that lies behind a large block */

static const struct byte_ops *const engines[] = {&byte_tlsf_ops, &byte_slab_ops, &byte_buddy_ops};
#define NENGINES (sizeof(engines) / sizeof(engines[0]))

static struct global_allocator global;
static struct global_allocator *const g = &global;

static void empty(const struct byte_ops *ops)
{
	__builtin_memset(g, 0, sizeof(*g));
	g->heap.base.ops = ops;
}

/*
 * Run one check on a fresh allocator over each engine. In the end it has no memory, for the
 * test's is gone, and debug builds look into every allocator that there is.
 */
static void each_engine_on(size_t nbytes, int (*check)(uint8_t *mem))
{
	uint8_t *mem = selftest_memory(nbytes);

	if (!mem) {
		selftest_skip("not enough memory");
		return;
	}
	for (size_t i = 0; i < NENGINES; i++) {
		selftest_note("%s", engines[i]->name);
		empty(engines[i]);
		CHECK(global_allocator_init(g, virt_addr(mem), nbytes) == ALLOC_OK);
		if (check(mem))
			return;
		empty(engines[i]);
	}
}

static void each_engine(int (*check)(uint8_t *mem))
{
	each_engine_on(REGION, check);
}

/* Out of line, so that it is known where calls come from. */
static __attribute__((noinline)) void *get(size_t size, size_t align)
{
	void *p = NULL;

	return global_allocator_alloc(g, (struct layout){size, align}, &p) == ALLOC_OK ? p : NULL;
}

static __attribute__((noinline)) bool put(void *p, size_t size, size_t align)
{
	return global_allocator_dealloc(g, p, (struct layout){size, align}) == ALLOC_OK;
}

static virt_addr_t pages(size_t n, size_t align)
{
	virt_addr_t va = {0};

	return global_allocator_alloc_pages(g, n, align, &va) == ALLOC_OK ? va : (virt_addr_t){0};
}

static bool healthy(void)
{
	return !global_allocator_check(g);
}

/* What must be as it was after a call that failed. */
struct state {
	size_t used_bytes, used_pages;
};

static struct state state_now(void)
{
	global_allocator_trim(g);
	return (struct state){global_allocator_used_bytes(g), global_allocator_used_pages(g)};
}

static bool same_state(struct state s)
{
	struct state now = state_now();

	return now.used_bytes == s.used_bytes && now.used_pages == s.used_pages && healthy();
}

static void fill(uint8_t *p, size_t nbytes, uint8_t seed)
{
	for (size_t i = 0; i < nbytes; i++)
		p[i] = (uint8_t)(seed + i * 7);
}

static bool filled(const uint8_t *p, size_t nbytes, uint8_t seed)
{
	for (size_t i = 0; i < nbytes; i++)
		if (p[i] != (uint8_t)(seed + i * 7))
			return false;
	return true;
}

/* --- Start --- */

static bool same_text(const char *a, const char *b)
{
	return !__builtin_strcmp(a, b);
}

SELFTEST(mm, global_name)
{
	static const char *const names[NENGINES] = {"TLSF", "slab", "buddy"};

	for (size_t i = 0; i < NENGINES; i++) {
		empty(engines[i]);
		CHECK(same_text(global_allocator_name(g), names[i]));
	}
}

/* The static instance is one, too. */
SELFTEST(mm, global_all_zero)
{
	uint8_t *mem = selftest_memory(REGION), local;

	if (!mem) {
		selftest_skip("not enough memory");
		return;
	}
	empty(NULL);
	CHECK(same_text(global_allocator_name(g), global_allocator_name(global_allocator())));
	CHECK(!get(64, 8) && !get(GLOBAL_LARGE_SIZE * 2, 8) && !put(&local, 64, 8));
	CHECK(!global_allocator_used_bytes(g) && !global_allocator_available_bytes(g));
	global_allocator_trim(g);
	CHECK(global_allocator_init(g, virt_addr(mem), REGION) == ALLOC_OK);
	CHECK(get(64, 8) && healthy());
	empty(NULL);
}

static int check_init(uint8_t *mem)
{
	const struct byte_ops *ops = g->heap.base.ops;
	virt_addr_t start = virt_addr(mem);

	CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) == HEAP_PAGES, -1);
	CHECK_OR(global_allocator_used_pages(g) == HEAP_PAGES, -1);
	CHECK_OR(!global_allocator_used_bytes(g), -1);
	CHECK_OR(global_allocator_available_bytes(g) > MIN_HEAP_SIZE / 4 * 3, -1);
	CHECK_OR(global_allocator_available_bytes(g) <= MIN_HEAP_SIZE, -1);
	CHECK_OR(global_allocator_init(g, start, REGION) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(healthy(), -1);
	empty(ops);
	CHECK_OR(global_allocator_init(g, start, MIN_HEAP_SIZE) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_init(g, start, 0) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_init(g, start, SIZE_MAX) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(!get(64, 8) && !get(GLOBAL_LARGE_SIZE * 2, 8), -1);
	/* Larger than MIN_HEAP_SIZE, but not once the metadata are taken. */
	CHECK_OR(global_allocator_init(g, start, MIN_HEAP_SIZE + 1) == ALLOC_NO_MEMORY, -1);
	CHECK_OR(!global_allocator_used_pages(g) && !global_allocator_available_pages(g), -1);
	/* A page of them, or two where the region lies across the border of two chunks. */
	CHECK_OR(global_allocator_init(g, start, MIN_HEAP_SIZE + 2 * MM_PAGE_SIZE) == ALLOC_OK, -1);
	CHECK_OR(get(64, 8), -1);
	/* Memory may come before the first region does. */
	empty(ops);
	CHECK_OR(global_allocator_add_memory(g, virt_addr(mem + REGION / 2), REGION / 4) ==
			 ALLOC_OK,
		 -1);
	CHECK_OR(!get(64, 8), -1);
	CHECK_OR(global_allocator_init(g, start, REGION / 2) == ALLOC_OK && get(64, 8), -1);
	CHECK_OR(healthy(), -1);
	return 0;
}

SELFTEST(mm, global_init)
{
	each_engine(check_init);
}

static int check_add_memory(uint8_t *mem)
{
	const struct byte_ops *ops = g->heap.base.ops;
	size_t quarter = REGION / 4, before;
	void *p;

	empty(ops);
	CHECK_OR(global_allocator_init(g, virt_addr(mem), quarter) == ALLOC_OK, -1);
	before = global_allocator_available_pages(g);
	CHECK_OR(global_allocator_add_memory(g, virt_addr(mem + quarter - 4096), quarter) ==
			 ALLOC_MEMORY_OVERLAP,
		 -1);
	CHECK_OR(global_allocator_add_memory(g, (virt_addr_t){UINTPTR_MAX - 8191}, 8192) ==
			 ALLOC_INVALID_PARAM,
		 -1);
	CHECK_OR(global_allocator_add_memory(g, virt_addr(mem), quarter) == ALLOC_MEMORY_OVERLAP,
		 -1);
	CHECK_OR(global_allocator_available_pages(g) == before, -1);
	CHECK_OR(!get(quarter * 3 / 2, 8), -1);
	/* A hole lies between the two regions; one byte less than a page is rounded off. */
	CHECK_OR(global_allocator_add_memory(g, virt_addr(mem + quarter * 2 + 1),
					     quarter * 2 - 2) == ALLOC_OK,
		 -1);
	CHECK_OR(global_allocator_available_pages(g) > before + quarter * 2 / MM_PAGE_SIZE - 4, -1);
	p = get(quarter * 3 / 2, 8);
	CHECK_OR(p && put(p, quarter * 3 / 2, 8), -1);
	CHECK_OR(healthy(), -1);
	return 0;
}

SELFTEST(mm, global_add_memory)
{
	each_engine(check_add_memory);
}

/* --- Bytes --- */

static int check_bad_layouts(uint8_t *mem)
{
	static const struct layout bad[] = {
		{0, 8},
		{8, 0},
		{8, 3},
		{8, 24},
		{8, MM_MAX_ALIGN * 2},
		{0, 0},
		{SIZE_MAX, 1},
		{SIZE_MAX, 4096},
		{SIZE_MAX - 4095, 8},
		{PTRDIFF_MAX, 8},
		{8, SIZE_MAX},
		{100000, 3},
		{8, (size_t)1 << 63},
	};
	struct state before = state_now();
	void *p = mem;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK_OR(global_allocator_alloc(g, bad[i], &p) == ALLOC_INVALID_PARAM, -1);
		CHECK_OR(global_allocator_alloc_zeroed(g, bad[i], &p) == ALLOC_INVALID_PARAM, -1);
	}
	CHECK_OR(global_allocator_alloc(g, (struct layout){(size_t)1 << 62, 8}, &p) ==
			 ALLOC_NO_MEMORY,
		 -1);
	CHECK_OR(p == mem && same_state(before), -1);
	return 0;
}

SELFTEST(mm, global_bad_layouts)
{
	each_engine(check_bad_layouts);
}

static int check_one_of_each(uint8_t *mem)
{
	size_t used = 0;

	(void)mem;
	for (size_t size = 1; size <= 4 * GLOBAL_LARGE_SIZE; size = size * 3 + 1) {
		for (size_t align = 1; align <= MM_MAX_ALIGN / 4; align *= 4) {
			uint8_t *p = get(size, align);

			CHECK_OR(p && !((uintptr_t)p & (align - 1)), -1);
			CHECK_OR(global_allocator_used_bytes(g) == used + size, -1);
			fill(p, size, (uint8_t)align);
			CHECK_OR(filled(p, size, (uint8_t)align), -1);
			CHECK_OR(put(p, size, align), -1);
			CHECK_OR(global_allocator_used_bytes(g) == used, -1);
		}
	}
	CHECK_OR(healthy(), -1);
	return 0;
}

SELFTEST(mm, global_sizes_and_alignments)
{
	each_engine(check_one_of_each);
}

/* The heap grows by powers of two, at least to twice its size. */
static int check_growth(uint8_t *mem)
{
	size_t heap = HEAP_PAGES, used = 0;

	(void)mem;
	while (heap < 128) {
		size_t now, more;

		CHECK_OR(get(1000, 8), -1);
		used += 1000;
		CHECK_OR(global_allocator_used_bytes(g) == used, -1);
		now = global_allocator_usage_pages(g, PAGE_USAGE_HEAP);
		more = now - heap;
		CHECK_OR(!more || (mm_is_pow2(more) && more >= heap), -1);
		heap = now;
	}
	CHECK_OR(used > (HEAP_PAGES + 56) * MM_PAGE_SIZE / 2 && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_growth)
{
	each_engine(check_growth);
}

/* Where there is plenty, the first step is a 64th of it, rounded down, and stays. */
static int check_growth_step(uint8_t *mem)
{
	size_t share = global_allocator_available_pages(g) / 64, heap;
	void *p[16];

	(void)mem;
	for (size_t i = 0; i < 16; i++)
		CHECK_OR(p[i] = get(3000, 8), -1);
	heap = global_allocator_usage_pages(g, PAGE_USAGE_HEAP);
	CHECK_OR(mm_is_pow2(heap - HEAP_PAGES) && heap - HEAP_PAGES > share / 2, -1);
	CHECK_OR(heap - HEAP_PAGES <= share, -1);
	for (size_t i = 0; i < 16; i++)
		CHECK_OR(put(p[i], 3000, 8), -1);
	CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) == heap && healthy(), -1);
	global_allocator_trim(g);
	CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) < heap, -1);
	return 0;
}

SELFTEST(mm, global_growth_step)
{
	each_engine_on(8 * REGION, check_growth_step);
}

static size_t take_all(size_t size, void ***chain)
{
	size_t n = 0;
	void **p;

	for (*chain = NULL; (p = get(size, 8)); n++) {
		*p = (void *)*chain;
		*chain = p;
	}
	return n;
}

static bool give_all(size_t size, void **chain)
{
	while (chain) {
		void **next = *chain;

		if (!put(chain, size, 8))
			return false;
		chain = next;
	}
	return true;
}

static int check_exhaustion(uint8_t *mem)
{
	static const size_t sizes[] = {40, 1000, 5000, 70000};
	size_t total = global_allocator_available_pages(g) + global_allocator_used_pages(g);

	(void)mem;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		void **chain;
		size_t n = take_all(sizes[i], &chain), again;

		CHECK_OR(n * sizes[i] > total * MM_PAGE_SIZE / 2, -1);
		CHECK_OR(global_allocator_used_bytes(g) == n * sizes[i], -1);
		CHECK_OR(healthy() && give_all(sizes[i], chain), -1);
		CHECK_OR(!global_allocator_used_bytes(g), -1);
		if (MM_DEBUG) /* records of the dead, in the midst of the pages */
			global_allocator_trim(g);
		again = take_all(sizes[i], &chain);
		CHECK_OR(again >= n - n / 16 && give_all(sizes[i], chain), -1);
		CHECK_OR(healthy(), -1);
		global_allocator_trim(g);
		CHECK_OR(global_allocator_used_pages(g) <= HEAP_PAGES, -1);
	}
	return 0;
}

/* With walks over everything, as level 3 has them, the time is as the square of the size. */
SELFTEST(mm, global_out_of_memory)
{
	each_engine_on(MM_HARDEN >= 3 ? REGION / 2 : REGION, check_exhaustion);
}

/* Free one block of 50, of a chain through the blocks. Returns how many. */
static size_t thin_out(size_t size, void **chain)
{
	size_t n = 0, freed = 0;

	for (void **p = chain; *p; p = *p) {
		void **victim = *p;

		if (++n % 50)
			continue;
		*p = *victim;
		if (!put(victim, size, 8) || !*p)
			break;
		freed++;
	}
	return freed;
}

/* Memory is full, and every block that is freed in it can be had again (of buddy, an aligned one).
 */
static int check_full(uint8_t *mem)
{
	const size_t size = MM_HARDEN >= 2 ? 56 : 64; /* 64 with what is behind it */
	void **chain, **more;
	size_t freed;

	(void)mem;
	(void)take_all(size, &chain);
	freed = thin_out(size, chain);
	CHECK_OR(freed > 100, -1);
	CHECK_OR(take_all(size, &more) >= freed, -1);
	CHECK_OR(give_all(size, more) && give_all(size, chain) && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_full)
{
	each_engine_on(MM_HARDEN >= 3 ? REGION / 2 : REGION, check_full);
}

/* What was freed goes back by itself, but for a little. */
static int check_shrinking(uint8_t *mem)
{
	size_t peak;
	void **chain, **last;

	(void)mem;
	for (size_t i = 0; i < 3; i++) {
		(void)take_all(2000, &chain);
		peak = global_allocator_usage_pages(g, PAGE_USAGE_HEAP);
		CHECK_OR(give_all(2000, chain), -1);
		CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) <= peak / 2, -1);
	}
	/* One block more or less at the end of the heap moves no page to and fro. */
	last = get(2000, 8);
	CHECK_OR(last, -1);
	peak = global_allocator_usage_pages(g, PAGE_USAGE_HEAP);
	for (size_t i = 0; i < 20; i++) {
		void *p = get(2000, 8);

		CHECK_OR(p && put(p, 2000, 8), -1);
		CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) == peak, -1);
	}
	CHECK_OR(put(last, 2000, 8) && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_gives_back)
{
	each_engine(check_shrinking);
}

struct link {
	struct link *next;
	size_t size;
};

static int free_chain(struct link **chain)
{
	while (*chain) {
		struct link *p = *chain;

		*chain = p->next;
		CHECK_OR(put(p, p->size, 8), -1);
	}
	return 0;
}

/* Blocks of many sizes, freed in another order than they were allocated. */
static int check_mixed_shrinking(uint8_t *mem)
{
	struct link *chains[7] = {NULL};
	size_t held = 0, peak;

	(void)mem;
	for (size_t n = 0; held < REGION / 4; n++) {
		size_t size = 32 + n * 2654435761u % 32;
		struct link *p = get(size, 8);

		CHECK_OR(p, -1);
		*p = (struct link){chains[n % 7], size};
		chains[n % 7] = p;
		held += size;
	}
	peak = global_allocator_usage_pages(g, PAGE_USAGE_HEAP);
	for (size_t i = 0; i < 7; i++)
		CHECK_OR(!free_chain(&chains[i]), -1);
	CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) <= peak / 4 && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_gives_back_mixed)
{
	each_engine(check_mixed_shrinking);
}

#define CHAINS 16u

/* Allocate blocks of many sizes, and leave each at the head of some chain. */
static int chain_up(struct link **chains, size_t nbytes, uint64_t *random)
{
	for (size_t held = 0; held < nbytes;) {
		uint64_t bits = selftest_random(random);
		size_t size = 16 + (bits >> 8) % (bits % 8 ? 300 : 8000);
		struct link *p = get(size, 8);

		CHECK_OR(p, -1);
		*p = (struct link){chains[bits >> 32 & (CHAINS - 1)], size};
		chains[bits >> 32 & (CHAINS - 1)] = p;
		held += size;
	}
	return 0;
}

/* The heap grows and shrinks a few times, never by all; at last all goes, and only what it keeps
 * for good is left. */
static int check_ups_and_downs(uint8_t *mem)
{
	uint64_t random = 1;

	(void)mem;
	for (size_t round = 0; round < 6; round++) {
		struct link *chains[CHAINS] = {NULL};

		for (size_t times = 1 + selftest_random(&random) % 4; times; times--) {
			size_t keep = times == 1 ? 0 : selftest_random(&random) % CHAINS;

			CHECK_OR(!chain_up(chains, BIG_REGION / 32 * times, &random), -1);
			for (size_t i = keep; i < CHAINS; i++)
				CHECK_OR(!free_chain(&chains[i]), -1);
			if (!keep)
				break;
		}
		CHECK_OR(!global_allocator_used_bytes(g) && healthy(), -1);
		CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_HEAP) <=
				 g->kept_bytes / MM_PAGE_SIZE,
			 -1);
	}
	return 0;
}

SELFTEST(mm, global_gives_back_all)
{
	each_engine_on(BIG_REGION, check_ups_and_downs);
}

/*
 * The static instance, whose engine is known to the compiler, so that its usual calls take the
 * shortest paths: over pieces that come, go in part, and come again.
 */
SELFTEST(mm, global_static_ups_and_downs)
{
	enum { BLOCKS = 20000 };
	struct global_allocator *a = global_allocator();
	const size_t before = global_allocator_used_bytes(a);
	struct link *chains[CHAINS] = {NULL};

	for (size_t size = 16; size <= 64; size += 16) {
		for (size_t i = 0; i < BLOCKS; i++) {
			struct link *p = global_alloc_bytes(size, 8);

			CHECK(p);
			*p = (struct link){chains[i % CHAINS], size};
			chains[i % CHAINS] = p;
		}
		for (size_t i = 0; i < CHAINS; i++)
			while (chains[i]) {
				struct link *p = chains[i];

				chains[i] = p->next;
				CHECK(p->size == size);
				CHECK(global_dealloc_bytes(p, size, 8) == ALLOC_OK);
			}
		CHECK(global_allocator_used_bytes(a) == before);
	}
	global_allocator_trim(a);
	INVARIANT(!global_allocator_check(a));
}

static int check_zeroed(uint8_t *mem)
{
	static const size_t sizes[] = {1, 24, 3000, 20000, 100000};

	(void)mem;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct layout l = {sizes[i], 16};
		uint8_t *p = get(l.size, l.align);
		void *q;

		CHECK_OR(p, -1);
		__builtin_memset(p, 0xff, l.size);
		CHECK_OR(put(p, l.size, l.align), -1);
		CHECK_OR(global_allocator_alloc_zeroed(g, l, &q) == ALLOC_OK, -1);
		for (size_t j = 0; j < l.size; j++)
			CHECK_OR(!((uint8_t *)q)[j], -1);
		CHECK_OR(put(q, l.size, l.align), -1);
	}
	return 0;
}

SELFTEST(mm, global_zeroed)
{
	each_engine(check_zeroed);
}

static void no_hook(struct layout l)
{
	(void)l;
}

static int check_aborting_form(uint8_t *mem)
{
	alloc_error_hook old = set_alloc_error_hook(no_hook);
	uint8_t *p = global_allocator_alloc_or_abort(g, (struct layout){100, 64});

	(void)mem;
	CHECK_OR(set_alloc_error_hook(old) == no_hook, -1);
	CHECK_OR(p && !((uintptr_t)p & 63) && put(p, 100, 64), -1);
	return 0;
}

SELFTEST(mm, global_aborting_form)
{
	each_engine(check_aborting_form);
}

/* --- Resizing --- */

static int check_realloc(uint8_t *mem)
{
	static const size_t sizes[] = {10,    11,    500,   3000, 60000, 70000, 300000,
				       80000, 65537, 65536, 2000, 16,	 1};
	struct layout l = {5, 16};
	void *p = get(l.size, l.align);

	(void)mem;
	CHECK_OR(p, -1);
	fill(p, l.size, 3);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t kept = l.size < sizes[i] ? l.size : sizes[i];

		CHECK_OR(global_allocator_realloc(g, p, l, sizes[i], &p) == ALLOC_OK, -1);
		CHECK_OR(!((uintptr_t)p & (l.align - 1)) && filled(p, kept, 3), -1);
		l.size = sizes[i];
		fill(p, l.size, 3);
		CHECK_OR(global_allocator_used_bytes(g) == l.size, -1);
	}
	CHECK_OR(put(p, l.size, l.align) && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_realloc)
{
	each_engine(check_realloc);
}

/* As many pages as p has are free behind it. */
static bool room_behind(const void *p, size_t npages)
{
	virt_addr_t behind = {(uintptr_t)p + npages * MM_PAGE_SIZE};

	return global_allocator_alloc_pages_at(g, behind, npages, MM_PAGE_SIZE) == ALLOC_OK &&
	       global_allocator_dealloc_pages(g, behind, npages) == ALLOC_OK;
}

static int check_realloc_in_place(uint8_t *mem)
{
	struct layout l = {GLOBAL_LARGE_SIZE + 1, 8};
	void *p = get(l.size, l.align), *q, *passed_by[16];
	size_t used, twice, n = 0;

	(void)mem;
	CHECK_OR(p, -1);
	/* Where a block lies, and so what is behind it, depends on the addresses of the machine. */
	for (; !room_behind(p, GLOBAL_LARGE_SIZE / MM_PAGE_SIZE + 1); p = get(l.size, l.align)) {
		CHECK_OR(p && n < 16, -1);
		passed_by[n++] = p;
	}
	q = p;
	used = global_allocator_used_pages(g);
	CHECK_OR(global_allocator_realloc(g, p, l, l.size + 4095 - CANARY, &q) == ALLOC_OK &&
			 q == p,
		 -1);
	CHECK_OR(global_allocator_used_pages(g) == used, -1);
	l.size += 4095 - CANARY;
	twice = (l.size + CANARY) * 2 - CANARY;
	CHECK_OR(global_allocator_realloc(g, p, l, twice, &q) == ALLOC_OK && q == p, -1);
	CHECK_OR(global_allocator_used_pages(g) == used + (l.size + CANARY) / MM_PAGE_SIZE, -1);
	CHECK_OR(global_allocator_realloc(g, p, (struct layout){twice, 8}, l.size, &q) ==
				 ALLOC_OK &&
			 q == p,
		 -1);
	CHECK_OR(global_allocator_used_pages(g) == used, -1);
	CHECK_OR(put(p, l.size, l.align), -1);
	while (n)
		CHECK_OR(put(passed_by[--n], GLOBAL_LARGE_SIZE + 1, 8), -1);
	CHECK_OR(healthy(), -1);
	return 0;
}

SELFTEST(mm, global_realloc_in_place)
{
	each_engine(check_realloc_in_place);
}

/* One byte behind a large block, of whatever size, is found by walk, resize and free. */
static int check_large_overflow(uint8_t *mem)
{
	static const size_t sizes[] = {GLOBAL_LARGE_SIZE + 1, GLOBAL_LARGE_SIZE + 4088,
				       GLOBAL_LARGE_SIZE + 4096};

	(void)mem;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct layout l = {sizes[i], 8};
		struct state before = state_now();
		uint8_t *p = get(l.size, l.align);
		unsigned long faults = mm_fault_count();
		void *q = NULL;

		CHECK_OR(p && healthy(), -1);
		p[l.size] ^= 1;
		CHECK_OR(global_allocator_check(g) == p + l.size, -1);
		CHECK_OR(!put(p, l.size, l.align), -1);
		CHECK_OR(mm_fault_last().kind == MM_FAULT_OVERFLOW, -1);
		CHECK_OR(global_allocator_realloc(g, p, l, l.size + 1, &q) != ALLOC_OK && !q, -1);
		CHECK_OR(mm_fault_count() == faults + 2, -1);
		p[l.size] ^= 1;
		CHECK_OR(global_allocator_realloc(g, p, l, l.size + 1, &q) == ALLOC_OK, -1);
		p = q;
		p[l.size] = 7; /* is the block's now */
		CHECK_OR(healthy() && put(p, l.size + 1, l.align) && same_state(before), -1);
	}
	return 0;
}

SELFTEST(mm, global_large_overflow)
{
	if (MM_HARDEN < 2) {
		selftest_skip("no canaries at this level");
		return;
	}
	mm_fault_expect(true);
	each_engine(check_large_overflow);
	mm_fault_expect(false);
}

static int check_realloc_failure(uint8_t *mem)
{
	static const size_t sizes[] = {100, 70000};
	void *q = mem;

	for (size_t i = 0; i < 2; i++) {
		struct layout l = {sizes[i], 8};
		void *p = get(l.size, l.align);
		struct state before;

		CHECK_OR(p, -1);
		fill(p, l.size, 9);
		before = state_now();
		CHECK_OR(global_allocator_realloc(g, p, l, REGION, &q) == ALLOC_NO_MEMORY, -1);
		CHECK_OR(global_allocator_realloc(g, p, l, 0, &q) == ALLOC_INVALID_PARAM, -1);
		CHECK_OR(global_allocator_realloc(g, p, l, SIZE_MAX, &q) == ALLOC_INVALID_PARAM,
			 -1);
		mm_fault_expect(true);
		CHECK_OR(global_allocator_realloc(g, NULL, l, 50, &q) == ALLOC_INVALID_PARAM, -1);
		CHECK_OR(global_allocator_realloc(g, &q, l, 90000, &q) == ALLOC_NOT_ALLOCATED, -1);
		CHECK_OR(global_allocator_realloc(g, p, (struct layout){100000, 8}, 5, &q) ==
				 ALLOC_INVALID_PARAM,
			 -1);
		mm_fault_expect(false);
		CHECK_OR(q == mem && same_state(before) && filled(p, l.size, 9), -1);
		CHECK_OR(put(p, l.size, l.align), -1);
	}
	return 0;
}

SELFTEST(mm, global_realloc_failure)
{
	each_engine(check_realloc_failure);
}

/* --- Misuse --- */

static bool called_by_put(const void *caller)
{
	return (uintptr_t)caller - (uintptr_t)put < 1024;
}

/* The free is refused, reported as one of two kinds with our address, and changes nothing. */
static bool refused(void *p, size_t size, size_t align, enum mm_fault_kind kind,
		    enum mm_fault_kind or_kind)
{
	struct state before = state_now();
	unsigned long count = mm_fault_count();
	struct mm_fault f;
	bool freed;

	mm_fault_expect(true);
	freed = put(p, size, align);
	mm_fault_expect(false);
	f = mm_fault_last();
	return !freed && mm_fault_count() == count + 1 && same_state(before) && f.ptr == p &&
	       f.layout.size == size && f.layout.align == align && called_by_put(f.caller) &&
	       (f.kind == kind || f.kind == or_kind);
}

static int check_misuse(uint8_t *mem)
{
	static uint8_t in_static[64];
	uint8_t on_stack[64];
	uint8_t *small = get(100, 8), *large = get(100000, 8), *keep = get(100, 8);

	CHECK_OR(small && large && keep, -1);
	CHECK_OR(refused(NULL, 100, 8, MM_FAULT_FOREIGN, MM_FAULT_MISALIGNED), -1);
	CHECK_OR(refused(NULL, 100000, 8, MM_FAULT_FOREIGN, MM_FAULT_FOREIGN), -1);
	CHECK_OR(refused(on_stack, 64, 1, MM_FAULT_FOREIGN, MM_FAULT_MISALIGNED), -1);
	CHECK_OR(refused(in_static, 64, 1, MM_FAULT_FOREIGN, MM_FAULT_MISALIGNED), -1);
	CHECK_OR(refused(in_static, 100000, 1, MM_FAULT_FOREIGN, MM_FAULT_FOREIGN), -1);
	CHECK_OR(refused(mem + REGION - 4096, 100000, 8, MM_FAULT_FOREIGN, MM_FAULT_DOUBLE_FREE),
		 -1);
	CHECK_OR(refused(large, 100001, 8, MM_FAULT_WRONG_LAYOUT, MM_FAULT_WRONG_LAYOUT), -1);
	CHECK_OR(refused(large, 100000, 16, MM_FAULT_WRONG_LAYOUT, MM_FAULT_WRONG_LAYOUT), -1);
	CHECK_OR(refused(large, 0, 8, MM_FAULT_WRONG_LAYOUT, MM_FAULT_WRONG_LAYOUT), -1);
	CHECK_OR(refused(large + 4096, 100000, 8, MM_FAULT_FOREIGN, MM_FAULT_FOREIGN), -1);
	CHECK_OR(refused(small, 100000, 8, MM_FAULT_WRONG_LAYOUT, MM_FAULT_WRONG_LAYOUT), -1);
#if MM_HARDEN
	CHECK_OR(refused(large, 100, 8, MM_FAULT_WRONG_LAYOUT, MM_FAULT_WRONG_LAYOUT), -1);
	CHECK_OR(refused(small + 1, 99, 1, MM_FAULT_MISALIGNED, MM_FAULT_FOREIGN), -1);
	CHECK_OR(put(small, 100, 8), -1);
	CHECK_OR(refused(small, 100, 8, MM_FAULT_DOUBLE_FREE, MM_FAULT_DOUBLE_FREE), -1);
#else
	CHECK_OR(put(small, 100, 8), -1);
#endif
	CHECK_OR(put(large, 100000, 8), -1);
	CHECK_OR(refused(large, 100000, 8, MM_FAULT_DOUBLE_FREE, MM_FAULT_DOUBLE_FREE), -1);
	CHECK_OR(put(keep, 100, 8), -1);
	return 0;
}

SELFTEST(mm, global_misuse)
{
	each_engine(check_misuse);
}

static bool pages_refused(uintptr_t at, size_t npages)
{
	struct state before = state_now();
	unsigned long count = mm_fault_count();
	enum alloc_result r;

	mm_fault_expect(true);
	r = global_allocator_dealloc_pages(g, (virt_addr_t){at}, npages);
	mm_fault_expect(false);
	return r != ALLOC_OK && mm_fault_count() == count + 1 && mm_fault_last().caller &&
	       same_state(before);
}

static int check_page_misuse(uint8_t *mem)
{
	virt_addr_t va = pages(4, MM_PAGE_SIZE), one = pages(1, MM_PAGE_SIZE), heap_page;
	uint8_t *small = get(100, 8), *large = get(100000, 8);
	struct page_request heap = {1, MM_PAGE_SIZE, PAGE_ZONE_ANY, PAGE_USAGE_HEAP, 0};

	(void)mem;
	CHECK_OR(va.value && one.value && small && large, -1);
	CHECK_OR(pages_refused((uintptr_t)small & ~(uintptr_t)4095, 1), -1);
	CHECK_OR(pages_refused((uintptr_t)large, 1) && pages_refused((uintptr_t)large, 25), -1);
	CHECK_OR(mm_fault_last().kind == MM_FAULT_FOREIGN, -1);
	CHECK_OR(global_allocator_request_pages(g, heap, &heap_page) == ALLOC_OK, -1);
	CHECK_OR(pages_refused(heap_page.value, 1), -1);
	CHECK_OR(global_allocator_dealloc_heap_pages(g, heap_page, 1) == ALLOC_OK, -1);
	mm_fault_expect(true);
	CHECK_OR(global_allocator_dealloc_heap_pages(g, va, 1) == ALLOC_NOT_ALLOCATED, -1);
	mm_fault_expect(false);
	CHECK_OR(put(small, 100, 8) && put(large, 100000, 8), -1);
	CHECK_OR(pages_refused(0, 1) && pages_refused(0, 4), -1);
	CHECK_OR(pages_refused((uintptr_t)&va & ~(uintptr_t)4095, 1), -1);
	CHECK_OR(pages_refused(va.value, 0) && pages_refused(va.value, SIZE_MAX), -1);
	CHECK_OR(pages_refused(va.value + 8, 1) && pages_refused(va.value + 8, 2), -1);
	CHECK_OR(pages_refused(va.value, REGION / MM_PAGE_SIZE), -1);
	CHECK_OR(global_allocator_dealloc_pages(g, va, 4) == ALLOC_OK, -1);
	CHECK_OR(pages_refused(va.value, 4) && pages_refused(va.value + 4096, 1), -1);
	CHECK_OR(global_allocator_dealloc_pages(g, one, 1) == ALLOC_OK, -1);
	CHECK_OR(pages_refused(one.value, 1), -1);
	return 0;
}

SELFTEST(mm, global_page_misuse)
{
	each_engine(check_page_misuse);
}

/* --- Discarded memory --- */

static size_t discarded_pages;

static void note_discarded(virt_addr_t start, size_t npages)
{
	__builtin_memset(virt_ptr(start), 0, npages * MM_PAGE_SIZE);
	discarded_pages += npages;
}

/* Everything that the heap gives back is announced, and nothing that is still in use. */
static int check_discard(uint8_t *mem)
{
	static const size_t size = 40 * MM_PAGE_SIZE - CANARY, less = 30 * MM_PAGE_SIZE - CANARY;
	uint8_t *large, *keep = get(500, 8);
	void **chain, *q;
	size_t peak;

	(void)mem;
	CHECK_OR(keep, -1);
	fill(keep, 500, 5);
	discarded_pages = 0;
	global_allocator_set_discard(g, note_discarded);
	large = get(size, 8);
	CHECK_OR(large, -1);
	fill(large, less, 6);
	CHECK_OR(global_allocator_realloc(g, large, (struct layout){size, 8}, less, &q) == ALLOC_OK,
		 -1);
	CHECK_OR(q == large && discarded_pages == 10 && filled(large, less, 6), -1);
	CHECK_OR(put(large, less, 8) && discarded_pages == 40, -1);
	(void)take_all(3000, &chain);
	peak = global_allocator_usage_pages(g, PAGE_USAGE_HEAP);
	discarded_pages = 0;
	CHECK_OR(give_all(3000, chain), -1);
	global_allocator_trim(g);
	CHECK_OR(discarded_pages == peak - global_allocator_usage_pages(g, PAGE_USAGE_HEAP), -1);
	CHECK_OR(discarded_pages > peak / 2 && filled(keep, 500, 5), -1);
	global_allocator_set_discard(g, NULL);
	CHECK_OR(put(keep, 500, 8) && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_discard)
{
	each_engine(check_discard);
}

/* --- Who allocated, who freed --- */

static int check_leaks(uint8_t *mem)
{
	void *large = get(100000, 8), *small = get(10, 8);

	(void)mem;
	CHECK_OR(large && small, -1);
	CHECK_OR(global_allocator_report_leaks(g) == (MM_DEBUG ? 2 : 1), -1);
	CHECK_OR(put(large, 100000, 8) && put(small, 10, 8), -1);
	CHECK_OR(!global_allocator_report_leaks(g), -1);
	return 0;
}

SELFTEST(mm, global_leak_report)
{
	each_engine(check_leaks);
}

#if MM_DEBUG

static bool called_by_get(const void *caller)
{
	return (uintptr_t)caller - (uintptr_t)get < 1024;
}

/* The last fault is of this kind and names the block p and who allocated, and freed, it. */
static bool named(const void *p, size_t size, enum mm_fault_kind kind, bool freed)
{
	struct mm_fault f = mm_fault_last();

	return f.kind == kind && f.block == p && f.block_size == size &&
	       called_by_get(f.allocated_by) && (freed ? called_by_put(f.freed_by) : !f.freed_by);
}

static bool put_fails(void *p, size_t size, size_t align)
{
	bool freed;

	mm_fault_expect(true);
	freed = put(p, size, align);
	mm_fault_expect(false);
	return !freed;
}

/* In so many rounds what waits in a quarantine, and at the far end of a list, is used again. */
static bool found_by_use(size_t size)
{
	static void *p[100];
	unsigned long before = mm_fault_count();

	mm_fault_expect(true);
	for (size_t round = 0; round < 4; round++) {
		for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++)
			p[i] = get(size, 8);
		for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++)
			if (p[i])
				put(p[i], size, 8);
	}
	mm_fault_expect(false);
	return mm_fault_count() != before;
}

static int check_named_frees(uint8_t *mem)
{
	uint8_t *small = get(100, 8), *large = get(100000, 8);

	(void)mem;
	CHECK_OR(small && large, -1);
	CHECK_OR(put_fails(small, 100000, 8), -1);
	CHECK_OR(named(small, 100, MM_FAULT_WRONG_LAYOUT, false), -1);
	CHECK_OR(put_fails(large, 100001, 8), -1);
	CHECK_OR(named(large, 100000, MM_FAULT_WRONG_LAYOUT, false), -1);
	CHECK_OR(put_fails(large + 5000, 100000, 8), -1);
	CHECK_OR(named(large, 100000, MM_FAULT_FOREIGN, false), -1);
	CHECK_OR(pages_refused((uintptr_t)large + 4096, 2), -1);
	CHECK_OR(named(large, 100000, MM_FAULT_FOREIGN, false), -1);
	CHECK_OR(put(large, 100000, 8) && put_fails(large, 100000, 8), -1);
	CHECK_OR(named(large, 100000, MM_FAULT_DOUBLE_FREE, true), -1);
	if (MM_HARDEN) {
		CHECK_OR(put_fails(small + 1, 99, 1), -1);
		CHECK_OR(named(small, 100, MM_FAULT_MISALIGNED, false), -1);
		CHECK_OR(put_fails(small + 16, 84, 8), -1);
		CHECK_OR(mm_fault_last().block == small, -1);
		CHECK_OR(put_fails(small, 1000, 8), -1);
		CHECK_OR(named(small, 100, MM_FAULT_WRONG_LAYOUT, false), -1);
	}
	CHECK_OR(put(small, 100, 8), -1);
	if (MM_HARDEN) {
		CHECK_OR(put_fails(small, 100, 8), -1);
		CHECK_OR(named(small, 100, MM_FAULT_DOUBLE_FREE, true), -1);
	}
	return 0;
}

SELFTEST(mm, global_named_frees)
{
	each_engine(check_named_frees);
}

static int check_named_overflow(uint8_t *mem)
{
	uint8_t *p = get(100, 8), old;

	(void)mem;
	CHECK_OR(p, -1);
	old = p[100];
	p[100] = (uint8_t)~old;
	CHECK_OR(put_fails(p, 100, 8), -1);
	CHECK_OR(named(p, 100, MM_FAULT_OVERFLOW, false), -1);
	p[100] = old;
	CHECK_OR(put(p, 100, 8), -1);
	return 0;
}

/* A freed block between two live ones. */
static uint8_t *freed_block(size_t size)
{
	uint8_t *before = get(size, 8), *p = get(size, 8), *after = get(size, 8);

	return before && p && after && put(p, size, 8) ? p : NULL;
}

static int check_named_write(uint8_t *mem)
{
	uint8_t *p = freed_block(100);

	(void)mem;
	CHECK_OR(p, -1);
	p[50] ^= 1;
	CHECK_OR(found_by_use(100), -1);
	CHECK_OR(named(p, 100, MM_FAULT_WRITE_AFTER_FREE, true), -1);
	return 0;
}

SELFTEST(mm, global_named_damage)
{
	if (MM_HARDEN < 2) {
		selftest_skip("found from level 2 on");
		return;
	}
	each_engine(check_named_overflow);
	each_engine(check_named_write);
}

/* Sums by call site, in the presence of so many blocks that the records run out of room. */
static int check_sites(uint8_t *mem)
{
	void **chain;
	size_t n = take_all(64, &chain);

	(void)mem;
	CHECK_OR(global_allocator_report_leaks(g) + g->lost_records == n, -1);
	CHECK_OR(give_all(64, chain), -1);
	CHECK_OR(!global_allocator_report_leaks(g), -1);
	global_allocator_trim(g);
	CHECK_OR(global_allocator_used_pages(g) <= HEAP_PAGES, -1);
	return 0;
}

SELFTEST(mm, global_leaks_by_site)
{
	each_engine(check_sites);
}

#endif

/* --- Pages --- */

static int check_pages(uint8_t *mem)
{
	size_t used = state_now().used_pages;
	size_t total = used + global_allocator_available_pages(g);
	virt_addr_t va = {1};

	(void)mem;
	CHECK_OR(global_allocator_alloc_pages(g, 0, 4096, &va) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages(g, 1, 0, &va) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages(g, 1, 2048, &va) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages(g, 1, 12288, &va) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages(g, SIZE_MAX, 4096, &va) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages(g, total + 1, 4096, &va) == ALLOC_NO_MEMORY, -1);
	CHECK_OR(va.value == 1, -1);
	used = state_now().used_pages;
	for (size_t align = MM_PAGE_SIZE; align <= REGION / 4; align *= 2) {
		for (size_t n = 1; n <= 60; n = n * 3 + 1) {
			va = pages(n, align);
			CHECK_OR(va.value && !(va.value & (align - 1)), -1);
			CHECK_OR(global_allocator_used_pages(g) == used + n, -1);
			CHECK_OR(global_allocator_available_pages(g) == total - used - n, -1);
			CHECK_OR(global_allocator_dealloc_pages(g, va, n) == ALLOC_OK, -1);
			CHECK_OR(global_allocator_used_pages(g) == used, -1);
		}
	}
	CHECK_OR(healthy(), -1);
	return 0;
}

SELFTEST(mm, global_pages)
{
	each_engine(check_pages);
}

static int check_pages_at(uint8_t *mem)
{
	virt_addr_t va = pages(8, 32768), out;
	size_t used = state_now().used_pages;

	(void)mem;
	CHECK_OR(va.value, -1);
	CHECK_OR(global_allocator_alloc_pages_at(g, va, 1, 4096) == ALLOC_NO_MEMORY, -1);
	/* Any sub-range goes back, and can be had again. */
	out = (virt_addr_t){va.value + 2 * MM_PAGE_SIZE};
	CHECK_OR(global_allocator_dealloc_pages(g, out, 3) == ALLOC_OK, -1);
	CHECK_OR(global_allocator_used_pages(g) == used - 3, -1);
	CHECK_OR(global_allocator_alloc_pages_at(g, out, 4, 4096) == ALLOC_NO_MEMORY, -1);
	CHECK_OR(global_allocator_alloc_pages_at(g, out, 3, 16384) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages_at(g, out, 0, 4096) == ALLOC_INVALID_PARAM, -1);
	CHECK_OR(global_allocator_alloc_pages_at(g, out, 3, 1000) == ALLOC_INVALID_PARAM, -1);
	out.value++;
	CHECK_OR(global_allocator_alloc_pages_at(g, out, 3, 4096) == ALLOC_INVALID_PARAM, -1);
	out.value--;
	CHECK_OR(global_allocator_alloc_pages_at(g, out, 3, 8192) == ALLOC_OK, -1);
	CHECK_OR(global_allocator_alloc_pages_at(g, (virt_addr_t){0}, 1, 4096) != ALLOC_OK, -1);
	CHECK_OR(global_allocator_dealloc_pages(g, va, 8) == ALLOC_OK && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_pages_at)
{
	each_engine(check_pages_at);
}

static int check_requests(uint8_t *mem)
{
	struct page_request req = {2, MM_PAGE_SIZE, PAGE_ZONE_ANY, PAGE_USAGE_DMA, 0};
	virt_addr_t va;

	(void)mem;
	CHECK_OR(global_allocator_request_pages(g, req, &va) == ALLOC_OK, -1);
	CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_DMA) == 2, -1);
	CHECK_OR(global_allocator_dealloc_pages(g, va, 2) == ALLOC_OK, -1);
	req.npages = 1;
	CHECK_OR(global_allocator_request_pages(g, req, &va) == ALLOC_OK, -1);
	CHECK_OR(global_allocator_usage_pages(g, PAGE_USAGE_DMA) == 1, -1);
	CHECK_OR(global_allocator_dealloc_pages(g, va, 1) == ALLOC_OK, -1);
	CHECK_OR(!global_allocator_usage_pages(g, PAGE_USAGE_DMA), -1);
	req.phys_limit = 4096;
	CHECK_OR(global_allocator_request_pages(g, req, &va) == ALLOC_NO_MEMORY, -1);
	req.phys_limit = 0;
	req.usage = PAGE_USAGE_CPU_CACHE;
	CHECK_OR(global_allocator_request_pages(g, req, &va) == ALLOC_INVALID_PARAM, -1);
	req.usage = PAGE_USAGE_KINDS;
	CHECK_OR(global_allocator_request_pages(g, req, &va) == ALLOC_INVALID_PARAM, -1);
	return 0;
}

SELFTEST(mm, global_page_requests)
{
	each_engine(check_requests);
}

/* Every single page can be had, those in the cache too, and as one run afterwards. */
static int check_last_page(uint8_t *mem)
{
	virt_addr_t chain = {0}, va;
	size_t n = global_allocator_available_pages(g), got = 0;

	(void)mem;
	while ((va = pages(1, MM_PAGE_SIZE)).value) {
		*(virt_addr_t *)virt_ptr(va) = chain;
		chain = va;
		got++;
	}
	CHECK_OR(got >= n && !global_allocator_available_pages(g), -1);
	while (chain.value) {
		va = chain;
		chain = *(virt_addr_t *)virt_ptr(va);
		CHECK_OR(global_allocator_dealloc_pages(g, va, 1) == ALLOC_OK, -1);
	}
	CHECK_OR(global_allocator_available_pages(g) == got, -1);
	va = pages(n, MM_PAGE_SIZE);
	CHECK_OR(va.value && global_allocator_dealloc_pages(g, va, n) == ALLOC_OK, -1);
	CHECK_OR(healthy(), -1);
	return 0;
}

SELFTEST(mm, global_last_page)
{
	each_engine(check_last_page);
}

/* --- Failure and reclaim --- */

/* All that can run out of pages; true: it succeeded, and has given all back. */
static bool try_growth(void)
{
	void *p = get(30000, 8), *q = p ? get(30000, 8) : NULL, *r = q ? get(30000, 8) : NULL;

	bool all = r;

	all = (!r || put(r, 30000, 8)) && all;
	all = (!q || put(q, 30000, 8)) && all;
	return (!p || put(p, 30000, 8)) && all;
}

static bool try_large(void)
{
	void *p[12];
	size_t n = 0;

	while (n < 12 && (p[n] = get(GLOBAL_LARGE_SIZE + 1, 8)))
		n++;
	for (size_t i = 0; i < n; i++)
		if (!put(p[i], GLOBAL_LARGE_SIZE + 1, 8))
			return false;
	return n == 12;
}

static bool try_realloc(void)
{
	struct layout l = {1000, 8}, now = l;
	void *p = get(l.size, l.align);

	if (p && global_allocator_realloc(g, p, l, 90000, &p) == ALLOC_OK)
		now.size = 90000;
	return (!p || put(p, now.size, now.align)) && now.size != l.size;
}

static bool try_pages(void)
{
	virt_addr_t va = pages(3, MM_PAGE_SIZE), one = pages(1, MM_PAGE_SIZE);

	if (va.value && global_allocator_dealloc_pages(g, va, 3) != ALLOC_OK)
		return false;
	if (one.value && global_allocator_dealloc_pages(g, one, 1) != ALLOC_OK)
		return false;
	return va.value && one.value;
}

static int check_failures(uint8_t *mem)
{
	static bool (*const tries[])(void) = {try_growth, try_large, try_realloc, try_pages};

	(void)mem;
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		struct state before = state_now();
		unsigned long n = 1, faults = mm_fault_count();
		bool done;

		do {
			global_allocator_fail_pages(g, n++);
			done = tries[i]();
			global_allocator_fail_pages(g, 0);
			CHECK_OR(mm_fault_count() == faults && same_state(before), -1);
		} while (!done && n < 100);
		CHECK_OR(done && n > 2, -1);
	}
	return 0;
}

SELFTEST(mm, global_failure_injection)
{
	each_engine(check_failures);
}

static struct mm_fault told;

static void tell(const struct mm_fault *fault)
{
	told = *fault;
}

/* The hook is told of each fault, as it is kept. */
static int check_fault_hook(uint8_t *mem)
{
	(void)mem;
	mm_fault_set_hook(tell);
	mm_fault_expect(true);
	CHECK_OR(!put(&told, 64, 8), -1);
	CHECK_OR(told.kind == MM_FAULT_FOREIGN && told.ptr == &told && told.caller, -1);
	CHECK_OR(global_allocator_dealloc_pages(g, virt_addr(mem), SIZE_MAX) == ALLOC_INVALID_PARAM,
		 -1);
	CHECK_OR(told.kind == MM_FAULT_WRONG_LAYOUT && told.layout.size == SIZE_MAX, -1);
	mm_fault_expect(false);
	mm_fault_set_hook(NULL);
	told.ptr = NULL;
	CHECK_OR(!put(&told, 64, 8) && !told.ptr, -1);
	return 0;
}

SELFTEST(mm, global_fault_hook)
{
	each_engine(check_fault_hook);
}

struct stash {
	virt_addr_t va;
	size_t npages, asked;
};

static bool free_stash(void *ctx, size_t npages)
{
	struct stash *s = ctx;

	s->asked = npages;
	if (!s->npages || global_allocator_dealloc_pages(g, s->va, s->npages) != ALLOC_OK)
		return false;
	s->npages = 0;
	return true;
}

static bool only_say_so(void *ctx, size_t npages)
{
	(void)npages;
	++*(size_t *)ctx;
	return true;
}

static int check_reclaim(uint8_t *mem)
{
	size_t n = global_allocator_available_pages(g) / 2 + HEAP_PAGES, called = 0;
	struct stash stash = {.va = pages(n, MM_PAGE_SIZE), .npages = n};
	struct reclaim_hook liar = {.reclaim = only_say_so, .ctx = &called};
	struct reclaim_hook hook = {.reclaim = free_stash, .ctx = &stash};
	virt_addr_t va;

	(void)mem;
	CHECK_OR(stash.va.value && !pages(n, MM_PAGE_SIZE).value, -1);
	global_allocator_add_reclaim(g, &liar);
	CHECK_OR(!pages(n, MM_PAGE_SIZE).value && called == 1, -1);
	global_allocator_add_reclaim(g, &hook);
	global_allocator_add_reclaim(g, &liar); /* is there already */
	va = pages(n, MM_PAGE_SIZE);
	CHECK_OR(va.value && stash.asked == n && !stash.npages && called == 2, -1);
	stash = (struct stash){.va = va, .npages = n};
	CHECK_OR(put(global_allocator_alloc_or_abort(g, (struct layout){n * 4096, 8}), n * 4096, 8),
		 -1);
	CHECK_OR(!stash.npages && called == 3, -1);
	stash = (struct stash){.va = pages(n, MM_PAGE_SIZE), .npages = n};
	global_allocator_remove_reclaim(g, &liar);
	global_allocator_remove_reclaim(g, &liar);
	global_allocator_remove_reclaim(g, &hook);
	CHECK_OR(!pages(n, MM_PAGE_SIZE).value && called == 3 && stash.npages, -1);
	return 0;
}

SELFTEST(mm, global_reclaim)
{
	each_engine(check_reclaim);
}

/* A hook that is never there, or is the last each time that it is asked. */
struct fickle {
	struct reclaim_hook hook;
	bool comes_back;
	size_t asked;
};

static bool go_away(void *ctx, size_t npages)
{
	struct fickle *f = ctx;

	(void)npages;
	f->asked++;
	global_allocator_remove_reclaim(g, &f->hook);
	if (f->comes_back)
		global_allocator_add_reclaim(g, &f->hook);
	return false;
}

/* Hooks that come and go while they are asked are asked once, and so are those behind them. */
static int check_fickle_hooks(uint8_t *mem)
{
	struct fickle f[3] = {{.comes_back = false}, {.comes_back = true}, {.comes_back = false}};
	size_t n = 2 * global_allocator_available_pages(g);

	(void)mem;
	for (int i = 0; i < 3; i++) {
		f[i].hook = (struct reclaim_hook){.reclaim = go_away, .ctx = &f[i]};
		global_allocator_add_reclaim(g, &f[i].hook);
	}
	CHECK_OR(!pages(n, MM_PAGE_SIZE).value, -1);
	CHECK_OR(f[0].asked == 1 && f[1].asked == 1 && f[2].asked == 1, -1);
	CHECK_OR(!pages(n, MM_PAGE_SIZE).value && f[1].asked == 2 && f[2].asked == 1, -1);
	global_allocator_remove_reclaim(g, &f[1].hook);
	return 0;
}

SELFTEST(mm, global_reclaim_hooks_that_go)
{
	each_engine(check_fickle_hooks);
}

/* --- A random run against a model --- */

#define BLOCKS 96

static struct {
	uint8_t *p;
	struct layout l;
} model[BLOCKS];

static struct layout random_layout(uint64_t *seed)
{
	uint64_t r = selftest_random(seed);
	size_t limit = r & 15 ? (size_t)16 << (r >> 8) % 7 : 2 * GLOBAL_LARGE_SIZE;

	return (struct layout){1 + (r >> 20) % limit, (size_t)1 << (r >> 40) % 8};
}

static int random_step(size_t i, uint64_t *seed, size_t *used)
{
	struct layout l = random_layout(seed);
	void *p = model[i].p;

	INVARIANT_OR(!p || filled(p, model[i].l.size, (uint8_t)i), -1);
	if (p && (*seed & 3) == 1) {
		l.align = model[i].l.align;
		if (global_allocator_realloc(g, p, model[i].l, l.size, &p) != ALLOC_OK)
			return 0;
		INVARIANT_OR(
			filled(p, l.size < model[i].l.size ? l.size : model[i].l.size, (uint8_t)i),
			-1);
		*used -= model[i].l.size;
	} else if (p) {
		INVARIANT_OR(put(p, model[i].l.size, model[i].l.align), -1);
		*used -= model[i].l.size;
		model[i].p = NULL;
		return 0;
	} else if (!(p = get(l.size, l.align))) {
		return 0;
	}
	model[i].p = p;
	model[i].l = l;
	*used += l.size;
	fill(p, l.size, (uint8_t)i);
	return 0;
}

static int check_random(uint8_t *mem)
{
	uint64_t seed = 42;
	size_t used = 0;

	(void)mem;
	__builtin_memset(model, 0, sizeof(model));
	for (size_t n = 0; n < 1200; n++) {
		size_t i = selftest_random(&seed) % BLOCKS;

		if (random_step(i, &seed, &used))
			return -1;
		INVARIANT_OR(global_allocator_used_bytes(g) == used, -1);
		INVARIANT_OR(n % 64 || healthy(), -1);
	}
	for (size_t i = 0; i < BLOCKS; i++)
		INVARIANT_OR(!model[i].p || put(model[i].p, model[i].l.size, model[i].l.align), -1);
	INVARIANT_OR(!global_allocator_used_bytes(g) && healthy(), -1);
	return 0;
}

SELFTEST(mm, global_random)
{
	each_engine(check_random);
}

/* --- The static instance --- */

SELFTEST(mm, global_instance)
{
	struct layout l = {1234, 8};
	size_t used = global_allocator_used_bytes(global_allocator());
	void *p;

	CHECK(global_init(virt_addr(&used), 0) != ALLOC_OK);
	CHECK(global_alloc(l, &p) == ALLOC_OK);
	fill(p, l.size, 1);
	CHECK(global_realloc(p, l, 90000, &p) == ALLOC_OK && filled(p, l.size, 1));
	CHECK(global_allocator_used_bytes(global_allocator()) == used + 90000);
	CHECK(global_dealloc(p, (struct layout){90000, 8}) == ALLOC_OK);
	CHECK(global_alloc_zeroed(l, &p) == ALLOC_OK && !((uint8_t *)p)[l.size - 1]);
	CHECK(global_dealloc(p, l) == ALLOC_OK);
	p = global_alloc_or_abort(l);
	CHECK(p && global_dealloc(p, l) == ALLOC_OK);
	CHECK(global_allocator_used_bytes(global_allocator()) == used);
	CHECK(global_add_memory((virt_addr_t){0}, 0) == ALLOC_INVALID_PARAM);
}
