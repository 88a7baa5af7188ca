/* SPDX-License-Identifier: MIT */
/* Instructions of every single operation, by the emulator's counter. The cost of an empty function
 * at the same call site is measured first and taken off: so what is left is the allocator's own
 * work beyond the call and the return. */
#include <stdio.h>
#include <stdlib.h>

#include "counter.h"
#include "replay.h"

static volatile uint64_t *counter;

static void *empty_alloc(size_t size, size_t align)
{
	(void)size;
	(void)align;
	return NULL;
}

static void empty_free(void *p, size_t size, size_t align)
{
	(void)p;
	(void)size;
	(void)align;
}

__attribute__((noinline)) static uint64_t count_alloc(void *(*alloc)(size_t, size_t),
						      const struct trace_op *op, void **p)
{
	uint64_t before = *counter;

	*p = alloc(op->size, op_align(op));
	return *counter - before;
}

__attribute__((noinline)) static uint64_t count_free(void (*take)(void *, size_t, size_t),
						     const struct trace_op *op, void *p)
{
	uint64_t before = *counter;

	take(p, op->size, op_align(op));
	return *counter - before;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print_quantiles(const uint64_t *sorted, size_t n)
{
	static const struct {
		const char *name;
		size_t one_in; /* operations that cost more than this */
	} quantiles[] = {{"p50", 2}, {"p90", 10}, {"p99", 100}, {"p999", 1000}, {"p9999", 10000}};

	for (size_t i = 0; i < sizeof(quantiles) / sizeof(*quantiles); i++)
		printf("\"%s\": %zu, ", quantiles[i].name,
		       (size_t)sorted[n - 1 - n / quantiles[i].one_in]);
}

struct worst {
	uint64_t cost;
	const struct trace_op *op;
};

/* costs[i] is the cost of operation i; they end up sorted. */
static void report(const struct replay *r, uint64_t *costs, uint64_t init)
{
	uint64_t sum[2] = {0}; /* of allocations, of frees */
	size_t n = r->trace.nops, nfrees = 0;
	struct worst worst = {0, r->trace.ops};

	for (size_t i = 0; i < n; i++) {
		const struct trace_op *op = &r->trace.ops[i];

		sum[op->is_free] += costs[i];
		nfrees += op->is_free;
		if (costs[i] > worst.cost)
			worst = (struct worst){costs[i], op};
	}
	qsort(costs, n, sizeof(*costs), by_value);
	printf("{\"ops\": %zu, \"instr\": %.3f, \"alloc\": %.3f, \"free\": %.3f, ", n,
	       (double)(sum[0] + sum[1]) / (double)n, (double)sum[0] / (double)(n - nfrees),
	       (double)sum[1] / (double)nfrees);
	print_quantiles(costs, n);
	printf("\"worst\": %zu, \"worst_is\": \"%s of %zu bytes, operation %td\", \"init\": %zu}\n",
	       (size_t)worst.cost, worst.op->is_free ? "free" : "alloc", (size_t)worst.op->size,
	       worst.op - r->trace.ops, (size_t)init);
}

int replay_count(struct replay *r)
{
	const struct trace_op *ops = r->trace.ops;
	uint64_t *costs = map_memory(r->trace.nops * sizeof(*costs)), alloc_base, free_base, init;
	void *p;

	counter = r->counter ? counter_map(r->counter) : NULL;
	if (!counter) {
		fprintf(stderr, "count: --counter FILE is missing or cannot be mapped\n");
		return 1;
	}
	alloc_base = count_alloc(empty_alloc, ops, &p);
	free_base = count_free(empty_free, ops, p);
	if (!alloc_base) {
		fprintf(stderr, "count: the counter stands still; run this under the emulator\n");
		return 1;
	}
	init = *counter;
	if (start_heap(r))
		return 1;
	init = *counter - init;
	for (size_t i = 0; i < r->trace.nops; i++) {
		void **slot = &r->table[ops[i].slot];

		if (ops[i].is_free) {
			costs[i] = count_free(r->heap.free, &ops[i], *slot) - free_base;
			continue;
		}
		costs[i] = count_alloc(r->heap.alloc, &ops[i], slot) - alloc_base;
		if (!*slot)
			return out_of_memory(r, &ops[i]);
	}
	report(r, costs, init);
	return 0;
}
