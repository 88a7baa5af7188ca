/* SPDX-License-Identifier: MIT */
/*
 * Single operations of TLSF in sequences that are made to be the worst for it. `make worst-test`
 * runs it at hardening levels 0 and 1; above, time is in proportion to the size.
 */
#include <stdlib.h>

#include <mm/byte_tlsf.h>

#include "count.h"

#define POOL   ((size_t)64 << 20)
#define PIECES 256u

/* Instructions: of what the lists or the kept blocks can serve, and of the request that finds the
 * lists empty. */
#define BOUND	    (MM_HARDEN ? 900u : 480u)
#define BOUND_EMPTY (MM_HARDEN ? 75000u : 50000u)

enum scenario {
	TIGHT,
	SPLIT,
	MERGE,
	ALIGNED,
	RESIZE,
	MANY_PIECES,
	RANDOM,
	MISUSE,
	EMPTY,
	SCENARIOS
};

static const struct worst_row rows[SCENARIOS] = {{"freed and asked for again", BOUND},
						 {"split of a block alone in its list", BOUND},
						 {"merge with both neighbours", BOUND},
						 {"any alignment up to 1 MiB", BOUND},
						 {"resize where it is", BOUND},
						 {"each free in another of 256 pieces", BOUND},
						 {"random, fragmented", BOUND},
						 {"misuse, refused", BOUND},
						 {"lists empty: all kept is merged", BOUND_EMPTY}};

static struct byte_tlsf heap;
static struct byte_alloc *const a = &heap.base;
static const struct byte_ops *const ops = &byte_tlsf_ops;
static uint8_t *memory;

static void *counted_alloc(enum scenario s, size_t size, size_t align)
{
	void *p;

	worst_begin(s);
	p = ops->alloc(a, size, align);
	worst_end();
	return p;
}

static enum mm_fault_kind counted_free(enum scenario s, void *p, size_t size, size_t align)
{
	enum mm_fault_kind fault;

	worst_begin(s);
	fault = ops->dealloc(a, p, size, align);
	worst_end();
	return fault;
}

static bool counted_resize(void *p, size_t old_size, size_t new_size)
{
	bool done;

	worst_begin(RESIZE);
	done = ops->resize(a, p, old_size, 8, new_size);
	worst_end();
	return done;
}

static void fresh_heap(size_t nbytes)
{
	heap = (struct byte_tlsf){.base.ops = ops};
	must(!ops->init(a, memory, nbytes));
}

/* Have all that is kept merged. */
static void settle(void)
{
	void *at;
	size_t nbytes;

	must(!ops->take_free(a, &at, &nbytes));
}

static void *live(size_t size)
{
	void *p = ops->alloc(a, size, 8);

	must(p);
	return p;
}

static void dead(void *p, size_t size)
{
	must(!ops->dealloc(a, p, size, 8));
}

/* Sizes for which each list, and often each row, has one block at most. */
static size_t odd_size(unsigned int i)
{
	return i % 4 == 3 ? (size_t)1100 << i % 9 : 40 + 24 * (size_t)i;
}

static void tight(void)
{
	fresh_heap(POOL);
	for (unsigned int i = 0; i < 60; i++) {
		size_t size = (size_t)16 << i % 12;
		void *p = counted_alloc(TIGHT, size, 8);

		must(p && !counted_free(TIGHT, p, size, 8));
	}
}

static void split(void)
{
	fresh_heap(POOL);
	for (unsigned int i = 0; i < 60; i++) {
		void *p = live(odd_size(i));

		live(8);
		dead(p, odd_size(i));
		settle();
		must(counted_alloc(SPLIT, odd_size(i) / 3 * 2, 8) == p);
	}
}

/* Free, live, free, live for ever: `n` times, then all that is free is in the lists. */
static void make_rows(unsigned int n, size_t size, void **middle)
{
	void **side = malloc(2 * n * sizeof(*side));

	must(side);
	for (unsigned int i = 0; i < n; i++) {
		side[2 * i] = live(odd_size(i));
		middle[i] = live(size ? size : 32 + 16 * (i % 16));
		side[2 * i + 1] = live(odd_size(i + n));
		live(8);
	}
	for (unsigned int i = 0; i < 2 * n; i++)
		dead(side[i], odd_size(i % 2 ? i / 2 + n : i / 2));
	settle();
	free(side);
}

/* Four places for blocks of one size: the fifth free and all that follow release one each. */
static void merge(void)
{
	void *middle[64];

	for (size_t size = 24; size < 60000; size *= 7) {
		fresh_heap(POOL);
		make_rows(64, size, middle);
		for (unsigned int i = 0; i < 64; i++)
			must(!counted_free(MERGE, middle[i], size, 8));
	}
}

static void aligned(void)
{
	fresh_heap(POOL);
	for (size_t align = 16; align <= MM_MAX_ALIGN; align *= 2)
		for (size_t size = 1; size < 100000; size = size * 9 + 7) {
			uint8_t *p, *q;

			live(8);
			p = counted_alloc(ALIGNED, size, align);
			q = counted_alloc(ALIGNED, size, align);
			must(p && q && !((uintptr_t)p & (align - 1)));
			must(!counted_free(ALIGNED, p, size, align));
			must(!counted_free(ALIGNED, q, size, align));
		}
}

static void resize(void)
{
	for (unsigned int i = 0; i < 60; i++) {
		size_t size = odd_size(i);
		void *p, *q;

		fresh_heap(POOL / 16);
		p = live(size);
		q = live(size);
		live(8);
		dead(q, size);
		settle();
		must(counted_resize(p, size, size + size / 2));
		must(counted_resize(p, size + size / 2, size / 2));
		must(!counted_resize(p, size / 2, 100 * size));
	}
}

static void many_pieces(void)
{
	const size_t part = POOL / PIECES;
	void *p[PIECES];

	fresh_heap(part);
	for (unsigned int i = 1; i < PIECES; i++)
		must(!ops->add_memory(a, memory + i * part, part));
	for (unsigned int i = 0; i < PIECES; i++)
		p[i] = live(part / 4 * 3);
	for (unsigned int i = 0; i < PIECES; i++) {
		unsigned int j = i * 101 % PIECES;

		must(!counted_free(MANY_PIECES, p[j], part / 4 * 3, 8));
		if (i % 2)
			must(counted_alloc(MANY_PIECES, 100 + i, 8));
	}
}

static void random_operations(void)
{
	enum { SLOTS = 2000, COUNTED = 500 };
	static void *p[SLOTS];
	static size_t size[SLOTS];

	fresh_heap(POOL);
	for (unsigned int i = 0; i < 40000 + COUNTED; i++) {
		unsigned int j = worst_random() % SLOTS;
		size_t align = worst_random() % 8 ? 8 : (size_t)1 << worst_random() % 13;
		bool counted = i >= 40000;

		if (p[j]) {
			must(!(counted ? counted_free(RANDOM, p[j], size[j], 8)
				       : ops->dealloc(a, p[j], size[j], 8)));
			p[j] = NULL;
			continue;
		}
		size[j] = 1 + worst_random() % ((size_t)32 << worst_random() % 12);
		p[j] = counted && align == 8 ? counted_alloc(RANDOM, size[j], 8)
					     : ops->alloc(a, size[j], 8);
		must(p[j]);
	}
}

static void misuse(void)
{
	if (!MM_HARDEN)
		return;
	fresh_heap(POOL);
	for (unsigned int i = 0; i < 40; i++) {
		size_t size = odd_size(i);
		uint8_t *p = live(size);

		live(8);
		must(counted_free(MISUSE, p + 8, size, 8));
		must(counted_free(MISUSE, p + 1, size, 8));
		must(counted_free(MISUSE, p, size + 40, 8));
		must(counted_free(MISUSE, p, 1 << 24, 8));
		must(counted_free(MISUSE, &heap, size, 8));
		dead(p, size);
		must(counted_free(MISUSE, p, size, 8));
		settle();
		must(counted_free(MISUSE, p, size, 8));
	}
}

/* Every place for a kept block is taken, by one that is to be merged on both sides. */
static void take_all_places(void)
{
	static bool taken[TLSF_SETS][TLSF_WAYS];
	static void *block[TLSF_KEPT][3];
	static size_t size[TLSF_KEPT];
	unsigned int n = 0;

	for (unsigned int i = 0; n < TLSF_KEPT; i++) {
		void *left = live(40 + 8 * n);
		bool *place;

		must(i < 64 * TLSF_KEPT);
		size[n] = 32 + 16 * (i % TLSF_SETS);
		block[n][0] = left;
		block[n][1] = live(size[n]);
		block[n][2] = live(40 + 8 * (n + TLSF_KEPT));
		live(24 + 8 * (worst_random() % 16));
		place = &taken[size[n] / 16 % TLSF_SETS][(uintptr_t)block[n][1] / 16 % TLSF_WAYS];
		n += !*place;
		*place = true;
	}
	for (unsigned int i = 0; i < TLSF_KEPT; i++) {
		dead(block[i][0], 40 + 8 * i);
		dead(block[i][2], 40 + 8 * (i + TLSF_KEPT));
	}
	settle();
	for (unsigned int i = 0; i < TLSF_KEPT; i++)
		dead(block[i][1], size[i]);
}

/* What is kept lies between free blocks, then nothing is; and a request too large. */
static void lists_empty(void)
{
	fresh_heap(POOL);
	take_all_places();
	must(!counted_alloc(EMPTY, POOL, 8));
	must(!counted_alloc(EMPTY, POOL, 4096));
	must(!ops->check(a));
}

static void run(void)
{
	tight();
	split();
	merge();
	aligned();
	resize();
	many_pieces();
	random_operations();
	misuse();
	lists_empty();
}

int main(void)
{
	memory = aligned_alloc(MM_MAX_ALIGN, POOL);
	return memory ? worst_main(rows, SCENARIOS, run) : 2;
}
