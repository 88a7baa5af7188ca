/* SPDX-License-Identifier: MIT */
/* Is the allocator right? Each block is filled with words of its own, looked at again when it is
 * freed; a map with a byte for every 8 bytes of the region shows overlaps at once. The trace runs
 * twice over one heap, so the second time meets what the first has left. */
#include <stdio.h>
#include <string.h>

#include "replay.h"

#define NPASSES 2
#define GRAIN	((size_t)8)

static unsigned char *taken; /* by grain */

struct grains {
	size_t first, n;
};

static struct grains grains_of(const struct replay *r, const unsigned char *p, size_t size)
{
	size_t start = (size_t)(p - r->region), first = start / GRAIN;

	return (struct grains){first, (start + size - 1) / GRAIN - first + 1};
}

/* False when some of the block is another's. */
static bool claim(struct grains g)
{
	if (memchr(taken + g.first, 1, g.n))
		return false;
	memset(taken + g.first, 1, g.n);
	return true;
}

static void release(struct grains g)
{
	memset(taken + g.first, 0, g.n);
}

/* What is wrong with where a block lies, or NULL. */
static const char *check_place(const struct replay *r, const struct trace_op *op,
			       const unsigned char *p)
{
	if ((uintptr_t)p & (op_align(op) - 1))
		return "misaligned";
	if (r->heap.external)
		return NULL;
	if (p < r->region || p > r->region + r->region_size ||
	    op->size > (size_t)(r->region + r->region_size - p))
		return "outside the region";
	return claim(grains_of(r, p, op->size)) ? NULL : "overlaps a live block";
}

/* A block is words of its own, and then 8 to 15 bytes up to its very end. Of the words of a large
 * block some suffice. */
static size_t stride(size_t size)
{
	return size > 8192 ? 504 : sizeof(uint64_t);
}

static size_t tail(size_t size)
{
	return size < 16 ? 0 : size / 8 * 8 - 8;
}

static uint64_t word_of(uint64_t seed, size_t at)
{
	return (seed + 1) * 0x9e3779b97f4a7c15 ^ at;
}

static void fill(unsigned char *p, size_t size, uint64_t seed)
{
	for (size_t at = 0; at < tail(size); at += stride(size)) {
		uint64_t w = word_of(seed, at);

		memcpy(p + at, &w, sizeof(w));
	}
	for (size_t at = tail(size); at < size; at++)
		p[at] = (unsigned char)word_of(seed, at);
}

static bool is_filled(const unsigned char *p, size_t size, uint64_t seed)
{
	for (size_t at = 0; at < tail(size); at += stride(size)) {
		uint64_t w = word_of(seed, at);

		if (memcmp(p + at, &w, sizeof(w)) != 0)
			return false;
	}
	for (size_t at = tail(size); at < size; at++)
		if (p[at] != (unsigned char)word_of(seed, at))
			return false;
	return true;
}

static int wrong(const struct replay *r, const struct trace_op *op, size_t pass, const char *what)
{
	fprintf(stderr, "pass %zu, operation %td, %s of %zu bytes, alignment %zu: %s\n", pass + 1,
		op - r->trace.ops, op->is_free ? "free" : "alloc", (size_t)op->size, op_align(op),
		what);
	return 1;
}

static int verify_free(struct replay *r, const struct trace_op *op, size_t pass, uint64_t seed)
{
	unsigned char *p = r->table[op->slot];

	if (!is_filled(p, op->size, seed))
		return wrong(r, op, pass, "contents changed");
	if (!r->heap.external)
		release(grains_of(r, p, op->size));
	r->heap.free(p, op->size, op_align(op));
	return 0;
}

static int verify_alloc(struct replay *r, const struct trace_op *op, size_t pass, uint64_t seed)
{
	unsigned char *p = r->heap.alloc(op->size, op_align(op));
	const char *what;

	if (!p)
		return out_of_memory(r, op);
	what = check_place(r, op, p);
	if (what)
		return wrong(r, op, pass, what);
	fill(p, op->size, seed);
	r->table[op->slot] = p;
	return 0;
}

int replay_verify(struct replay *r)
{
	uint64_t *seeds = map_memory(r->trace.nslots * sizeof(*seeds)); /* of the blocks */
	uint64_t seed = 0;

	taken = map_memory(r->region_size / GRAIN + 1);
	if (start_heap(r))
		return 1;
	for (size_t pass = 0; pass < NPASSES; pass++) {
		for (size_t i = 0; i < r->trace.nops; i++) {
			const struct trace_op *op = &r->trace.ops[i];
			int err;

			if (!op->is_free)
				seeds[op->slot] = seed++;
			err = (op->is_free ? verify_free : verify_alloc)(r, op, pass,
									 seeds[op->slot]);
			if (err)
				return err;
		}
	}
	printf("{\"verified\": %zu}\n", NPASSES * r->trace.nops);
	return 0;
}
