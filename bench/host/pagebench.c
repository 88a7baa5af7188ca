/* SPDX-License-Identifier: MIT */
/* Measures a page allocator, by the emulator's instruction counter (qemu_count.c).
 *
 *	pagebench --counter FILE --pages N PLUGIN
 *
 * The pages are filled with runs of mixed length until the first request fails; then random runs go
 * back until 90 %, and later half, of the pages are left. At each of these levels 64 requests are
 * made and taken back in random order, 32 times, for each shape. Every run handed out is checked
 * against a bitmap of what is in use. One line of JSON for each measurement.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "counter.h"
#include "number.h"
#include "pageplugin.h"

#define BASE	((uintptr_t)1 << 40)
#define PAGE	4096
#define NROUNDS 32

#define PAGES_MIN ((size_t)8192)
#define PAGES_MAX ((size_t)1 << 40)

static struct {
	const char *(*name)(void);
	int (*init)(uintptr_t, size_t, void *, size_t);
	uintptr_t (*alloc)(size_t, unsigned int);
	void (*free)(uintptr_t, size_t, unsigned int);
	size_t (*meta_bytes)(void);
} pages;

static volatile uint64_t *counter;
static uint64_t alloc_base, free_base; /* what counting an empty function gives */
static size_t npages, nused;
static uint64_t *used; /* a bit for each page */

struct run {
	uintptr_t addr;
	size_t n;
};

static struct run *runs;
static size_t nruns;

static uint64_t seed = 1;

static size_t below(size_t n)
{
	seed = seed * 6364136223846793005 + 1442695040888963407;
	return (size_t)(seed >> 33) % n;
}

static void *map_memory(size_t nbytes)
{
	void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

/* --- Is it right? ------------------------------------------------------------- */

static void bad(struct run r, const char *what)
{
	fprintf(stderr, "run of %zu pages at %#zx: %s\n", r.n, (size_t)r.addr, what);
	exit(1);
}

static void set_used(struct run r, bool on)
{
	size_t first = (r.addr - BASE) / PAGE;

	for (size_t i = first; i < first + r.n; i++) {
		uint64_t bit = (uint64_t)1 << i % 64;

		if (!(used[i / 64] & bit) != on)
			bad(r, "overlaps a run in use");
		used[i / 64] ^= bit;
	}
	nused = on ? nused + r.n : nused - r.n;
}

static void check_run(struct run r, unsigned int align_log2)
{
	if (r.addr < BASE || r.n > npages || (r.addr - BASE) / PAGE > npages - r.n)
		bad(r, "outside the region");
	if (r.addr & (((uintptr_t)PAGE << align_log2) - 1))
		bad(r, "misaligned");
	set_used(r, true);
}

/* --- Counting ----------------------------------------------------------------- */

static uintptr_t empty_alloc(size_t n, unsigned int align_log2)
{
	(void)n;
	(void)align_log2;
	return 0;
}

static void empty_free(uintptr_t addr, size_t n, unsigned int align_log2)
{
	(void)addr;
	(void)n;
	(void)align_log2;
}

__attribute__((noinline)) static uint64_t count_alloc(uintptr_t (*alloc)(size_t, unsigned int),
						      struct run *r, unsigned int align_log2)
{
	uint64_t before = *counter;

	r->addr = alloc(r->n, align_log2);
	return *counter - before;
}

__attribute__((noinline)) static uint64_t count_free(void (*take)(uintptr_t, size_t, unsigned int),
						     struct run r, unsigned int align_log2)
{
	uint64_t before = *counter;

	take(r.addr, r.n, align_log2);
	return *counter - before;
}

struct cost {
	uint64_t n, sum, worst;
};

static void add_cost(struct cost *c, uint64_t instructions)
{
	c->n++;
	c->sum += instructions;
	if (instructions > c->worst)
		c->worst = instructions;
}

static double mean(const struct cost *c)
{
	return c->n ? (double)c->sum / (double)c->n : 0;
}

/* --- The levels --------------------------------------------------------------- */

/* 70 % single pages, 20 % up to 16, 10 % up to 512. */
static size_t mixed_length(void)
{
	size_t r = below(10);

	if (r < 7)
		return 1;
	return r < 9 ? 2 + below(15) : 17 + below(496);
}

static void fill(void)
{
	for (;;) {
		struct run r = {.n = mixed_length()};

		r.addr = pages.alloc(r.n, 0);
		if (r.addr == PAGE_FAIL)
			return;
		check_run(r, 0);
		runs[nruns++] = r;
	}
}

static void drain_to(size_t target)
{
	while (nused > target) {
		size_t i = below(nruns);

		set_used(runs[i], false);
		pages.free(runs[i].addr, runs[i].n, 0);
		runs[i] = runs[--nruns];
	}
}

static const struct shape {
	size_t npages, batch;
} shapes[] = {{1, 32}, {1, 512}, {8, 64}, {512, 16}};

#define MAX_BATCH 512

/* How many of the batch there was room for. */
static size_t alloc_batch(struct run *batch, const struct shape *s, unsigned int align_log2,
			  struct cost *cost)
{
	for (size_t i = 0; i < s->batch; i++) {
		uint64_t instructions;

		batch[i].n = s->npages;
		instructions = count_alloc(pages.alloc, &batch[i], align_log2) - alloc_base;
		if (batch[i].addr == PAGE_FAIL)
			return i;
		check_run(batch[i], align_log2);
		add_cost(cost, instructions);
	}
	return s->batch;
}

static void free_batch(struct run *batch, size_t n, unsigned int align_log2, struct cost *cost)
{
	for (; n; n--) {
		size_t i = below(n);

		set_used(batch[i], false);
		add_cost(cost, count_free(pages.free, batch[i], align_log2) - free_base);
		batch[i] = batch[n - 1];
	}
}

static void measure(unsigned int percent, const struct shape *s)
{
	unsigned int align_log2 = (unsigned int)__builtin_ctzl(s->npages);
	struct cost allocs = {0}, frees = {0};
	size_t nfailed = 0;

	for (size_t round = 0; round < NROUNDS; round++) {
		struct run batch[MAX_BATCH];
		size_t got = alloc_batch(batch, s, align_log2, &allocs);

		nfailed += got < s->batch;
		free_batch(batch, got, align_log2, &frees);
	}
	printf("{\"full\": %u, \"run\": %zu, \"batch\": %zu, \"alloc\": %.2f, \"alloc_worst\": %zu, \"free\": %.2f, "
	       "\"free_worst\": %zu, \"failed\": %zu}\n",
	       percent, s->npages, s->batch, mean(&allocs), (size_t)allocs.worst, mean(&frees),
	       (size_t)frees.worst, nfailed);
}

static void measure_level(unsigned int percent)
{
	drain_to(npages / 100 * percent);
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
		measure(percent, &shapes[i]);
}

/* --- Start --------------------------------------------------------------------- */

static int load_plugin(const char *path)
{
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!so) {
		fprintf(stderr, "%s\n", dlerror());
		return -1;
	}
	pages.name = (const char *(*)(void))dlsym(so, "page_name");
	pages.init = (int (*)(uintptr_t, size_t, void *, size_t))dlsym(so, "page_init");
	pages.alloc = (uintptr_t(*)(size_t, unsigned int))dlsym(so, "page_alloc");
	pages.free = (void (*)(uintptr_t, size_t, unsigned int))dlsym(so, "page_free");
	pages.meta_bytes = (size_t(*)(void))dlsym(so, "page_meta_bytes");
	if (pages.name && pages.init && pages.alloc && pages.free)
		return 0;
	fprintf(stderr, "%s: not a page allocator's plugin\n", path);
	return -1;
}

/* Room for the metadata of spendthrifts: what is not touched costs nothing. */
static int start_pages(void)
{
	size_t meta_size = npages * 64 + ((size_t)1 << 20);
	void *meta = map_memory(meta_size);
	struct run r = {.n = 1};
	uint64_t init;

	alloc_base = count_alloc(empty_alloc, &r, 0);
	free_base = count_free(empty_free, r, 0);
	if (!alloc_base) {
		fprintf(stderr, "the counter stands still; run this under the emulator\n");
		return -1;
	}
	init = *counter;
	if (pages.init(BASE, npages, meta, meta_size)) {
		fprintf(stderr, "page_init of %zu pages failed\n", npages);
		return -1;
	}
	init = *counter - init;
	runs = map_memory(npages * sizeof(*runs));
	used = map_memory(npages / 8 + sizeof(*used));
	fill();
	printf("{\"pages\": %zu, \"init\": %zu, \"meta_bytes\": %zu, \"filled\": %.3f}\n", npages,
	       (size_t)init, pages.meta_bytes ? pages.meta_bytes() : 0,
	       100.0 * (double)nused / (double)npages);
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "pagebench --counter FILE --pages N PLUGIN   (N at least %zu)\n",
		PAGES_MIN);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"counter", required_argument, NULL, 'c'},
		{"pages", required_argument, NULL, 'p'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			counter = counter_map(optarg);
		else if (c == 'p')
			npages = number_argument("--pages", optarg, PAGES_MIN, PAGES_MAX);
		else
			return usage();
	}
	if (!counter || !npages || argc - optind != 1)
		return usage();
	if (load_plugin(argv[optind]) || start_pages())
		return 1;
	measure_level(90);
	measure_level(50);
	return 0;
}
