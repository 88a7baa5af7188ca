/* SPDX-License-Identifier: MIT */
/* Replays a trace against the allocator in a plugin.
 *
 *	replay MODE [OPTION...] PLUGIN TRACE
 *
 *	count		instructions of every single operation; wants --counter and the emulator
 *			(qemu_count.c)
 *	verify		contents, overlap, alignment, bounds
 *	region		the smallest region in which the trace completes
 *	resident	for an allocator with memory of its own: how far the process grows
 *	time		nanoseconds per operation
 *	pass		one pass and no report, for other tools (valgrind)
 *
 *	--counter FILE
 *	--events N	only the first N events of the trace
 *	--align N	least alignment asked for, 8 unless told
 *	--region BYTES	for all modes but region; else four times the trace's peak, at least 64 MiB
 *
 * Numbers may end in K, M or G.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "number.h"
#include "replay.h"

#define MIB	     ((size_t)1 << 20)
#define REGION_ALIGN (2 * MIB)
#define REGION_MAX   ((size_t)1 << 47) /* what a process can have at all */
#define ALIGN_MAX    ((size_t)1 << 30)

/* --- What all modes need ------------------------------------------------------ */

void *map_memory(size_t nbytes)
{
	void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

int start_heap(struct replay *r)
{
	int err = r->heap.init(r->region, r->region_size);

	if (err)
		fprintf(stderr, "heap_init of %zu bytes failed: %d\n", r->region_size, err);
	return err ? -1 : 0;
}

int out_of_memory(const struct replay *r, const struct trace_op *op)
{
	fprintf(stderr, "out of memory at operation %td: %zu bytes, alignment %zu\n",
		op - r->trace.ops, (size_t)op->size, op_align(op));
	return 1;
}

__attribute__((noinline)) const struct trace_op *run_trace(struct replay *r)
{
	const struct trace_op *op = r->trace.ops, *end = op + r->trace.nops;

	for (; op < end; op++) {
		void **slot = &r->table[op->slot];
		unsigned char *p;

		if (op->is_free) {
			r->heap.free(*slot, op->size, op_align(op));
			continue;
		}
		*slot = p = r->heap.alloc(op->size, op_align(op));
		if (!p)
			return op;
		p[0] = p[op->size - 1] = 1;
	}
	return NULL;
}

/* --- pass, time --------------------------------------------------------------- */

int replay_pass(struct replay *r)
{
	const struct trace_op *failed;

	if (start_heap(r))
		return 1;
	failed = run_trace(r);
	return failed ? out_of_memory(r, failed) : 0;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int replay_time(struct replay *r)
{
	const struct trace_op *failed;
	double start;

	if (start_heap(r))
		return 1;
	start = now_ns();
	failed = run_trace(r);
	if (failed)
		return out_of_memory(r, failed);
	printf("{\"ns\": %.3f}\n", (now_ns() - start) / (double)r->trace.nops);
	return 0;
}

/* --- Start --------------------------------------------------------------------- */

static int load_plugin(struct heap *h, const char *path)
{
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	int (*external)(void);

	if (!so) {
		fprintf(stderr, "%s\n", dlerror());
		return -1;
	}
	h->name = (const char *(*)(void))dlsym(so, "heap_name");
	h->init = (int (*)(void *, size_t))dlsym(so, "heap_init");
	h->alloc = (void *(*)(size_t, size_t))dlsym(so, "heap_alloc");
	h->free = (void (*)(void *, size_t, size_t))dlsym(so, "heap_free");
	external = (int (*)(void))dlsym(so, "heap_external");
	h->external = external && external();
	if (h->name && h->init && h->alloc && h->free)
		return 0;
	fprintf(stderr, "%s: not an allocator's plugin\n", path);
	return -1;
}

static void reserve_region(struct replay *r)
{
	size_t size = 64 * MIB;
	uintptr_t start;

	while (!r->region_size && size < r->trace.peak_bytes * 4)
		size *= 2;
	if (!r->region_size)
		r->region_size = size;
	start = (uintptr_t)map_memory(r->region_size + REGION_ALIGN);
	r->region = (unsigned char *)((start + REGION_ALIGN - 1) & -REGION_ALIGN);
}

static int usage(void)
{
	fprintf(stderr, "replay count|verify|region|resident|time|pass [--counter FILE] "
			"[--events N] [--align N] [--region BYTES] PLUGIN TRACE\n");
	return 2;
}

static const struct {
	const char *name;
	int (*run)(struct replay *r);
} modes[] = {
	{"count", replay_count},       {"verify", replay_verify}, {"region", replay_region},
	{"resident", replay_resident}, {"time", replay_time},	  {"pass", replay_pass},
};

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"counter", required_argument, NULL, 'c'},
		{"events", required_argument, NULL, 'e'},
		{"align", required_argument, NULL, 'a'},
		{"region", required_argument, NULL, 'r'},
		{NULL, 0, NULL, 0},
	};
	size_t events = SIZE_MAX, align = 8, mode = 0;
	struct replay r = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			r.counter = optarg;
		else if (c == 'e')
			events = number_argument("--events", optarg, 1, SIZE_MAX);
		else if (c == 'a')
			align = number_argument("--align", optarg, 8, ALIGN_MAX);
		else if (c == 'r')
			r.region_size = number_argument("--region", optarg, 1, REGION_MAX);
		else
			return usage();
	}
	if (argc - optind != 3 || align & (align - 1))
		return usage();
	while (mode < sizeof(modes) / sizeof(*modes) && strcmp(modes[mode].name, argv[optind]) != 0)
		mode++;
	if (mode == sizeof(modes) / sizeof(*modes))
		return usage();
	if (load_plugin(&r.heap, argv[optind + 1]) ||
	    trace_load(&r.trace, argv[optind + 2], events, align))
		return 1;
	r.table = map_memory(r.trace.nslots * sizeof(*r.table));
	reserve_region(&r);
	return modes[mode].run(&r);
}
