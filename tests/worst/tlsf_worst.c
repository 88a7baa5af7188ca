/* SPDX-License-Identifier: MIT */
/*
 * Counts the instructions of single operations of TLSF in sequences that are made to be the worst
 * for it, prints them as a histogram, and fails when one takes more than its bound. `make
 * worst-test` runs it at hardening levels 0 and 1; above, time is in proportion to the size.
 *
 * How it counts: a child does the operations; before each it stops, and its parent goes through it
 * instruction by instruction, until a flag that both see says that it is done.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/byte_tlsf.h>

#define POOL	((size_t)64 << 20)
#define BUCKETS 16u
#define PIECES	256u

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

static const char *const names[SCENARIOS] = {"freed and asked for again",
					     "split of a block alone in its list",
					     "merge with both neighbours",
					     "any alignment up to 1 MiB",
					     "resize where it is",
					     "each free in another of 256 pieces",
					     "random, fragmented",
					     "misuse, refused",
					     "lists empty: all kept is merged"};

static struct shared {
	volatile bool counting, done;
	volatile enum scenario scenario;
} * shared;

static struct byte_tlsf heap;
static struct byte_alloc *const a = &heap.base;
static const struct byte_ops *const ops = &byte_tlsf_ops;
static uint8_t *memory;

/* --- The child -------------------------------------------------------------- */

static void start_count(enum scenario s)
{
	shared->scenario = s;
	raise(SIGSTOP);
	shared->counting = true;
}

static void must(bool ok)
{
	if (!ok)
		_exit(1);
}

static void *counted_alloc(enum scenario s, size_t size, size_t align)
{
	void *p;

	start_count(s);
	p = ops->alloc(a, size, align);
	shared->counting = false;
	return p;
}

static enum mm_fault_kind counted_free(enum scenario s, void *p, size_t size, size_t align)
{
	enum mm_fault_kind fault;

	start_count(s);
	fault = ops->dealloc(a, p, size, align);
	shared->counting = false;
	return fault;
}

static bool counted_resize(void *p, size_t old_size, size_t new_size)
{
	bool done;

	start_count(RESIZE);
	done = ops->resize(a, p, old_size, 8, new_size);
	shared->counting = false;
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

static unsigned int next_random(void)
{
	static unsigned int state = 12345;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static void random_operations(void)
{
	enum { SLOTS = 2000, COUNTED = 500 };
	static void *p[SLOTS];
	static size_t size[SLOTS];

	fresh_heap(POOL);
	for (unsigned int i = 0; i < 40000 + COUNTED; i++) {
		unsigned int j = next_random() % SLOTS;
		size_t align = next_random() % 8 ? 8 : (size_t)1 << next_random() % 13;
		bool counted = i >= 40000;

		if (p[j]) {
			must(!(counted ? counted_free(RANDOM, p[j], size[j], 8)
				       : ops->dealloc(a, p[j], size[j], 8)));
			p[j] = NULL;
			continue;
		}
		size[j] = 1 + next_random() % ((size_t)32 << next_random() % 12);
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
		live(24 + 8 * (next_random() % 16));
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

/* --- The parent ------------------------------------------------------------- */

struct count {
	unsigned int n, max, bucket[BUCKETS];
	unsigned long sum;
};

static struct count counts[SCENARIOS];

static void record(unsigned int instructions)
{
	struct count *c = &counts[shared->scenario];
	unsigned int i = 0;

	while (i < BUCKETS - 1 && instructions >= 32u << i)
		i++;
	c->n++;
	c->sum += instructions;
	c->bucket[i]++;
	if (instructions > c->max)
		c->max = instructions;
}

/* The child has stopped before an operation: count, and let it run on. */
static bool count_one(pid_t child)
{
	unsigned int instructions = 0;
	bool begun = false;
	int status;

	while (!begun || shared->counting) {
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) ||
		    waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
			return false;
		begun |= shared->counting;
		instructions += shared->counting;
	}
	record(instructions);
	return true;
}

/* 0: all of it was done. */
static int follow(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
		if (WSTOPSIG(status) == SIGSTOP && shared->done && !count_one(child))
			return -1;
		shared->done = true;
		if (ptrace(PTRACE_CONT, child, NULL, NULL))
			return -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int print(void)
{
	unsigned int shown = BUCKETS, failed = 0;

	while (shown && !counts[EMPTY].bucket[shown - 1])
		shown--;
	printf("level %d\n%-34s %6s %6s %6s %6s |", MM_HARDEN, "instructions of an operation", "n",
	       "mean", "most", "bound");
	for (unsigned int i = 0; i < shown; i++)
		printf(" %5s%u", "<", 32u << i);
	for (unsigned int s = 0; s < SCENARIOS; s++) {
		const struct count *c = &counts[s];
		unsigned int bound = s == EMPTY ? BOUND_EMPTY : BOUND;

		printf("\n%-34s %6u %6lu %6u %6u |", names[s], c->n, c->n ? c->sum / c->n : 0,
		       c->max, bound);
		for (unsigned int i = 0; i < shown; i++)
			printf(" %*u", i < 2 ? 7 : i < 5 ? 8 : i < 9 ? 9 : 10, c->bucket[i]);
		failed += c->max > bound;
	}
	printf("\n");
	return failed ? 1 : 0;
}

int main(void)
{
	pid_t child;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	memory = aligned_alloc(MM_MAX_ALIGN, POOL);
	if (shared == MAP_FAILED || !memory)
		return 2;
	child = fork();
	if (!child) {
		must(!ptrace(PTRACE_TRACEME, 0, NULL, NULL));
		raise(SIGSTOP);
		run();
		_exit(0);
	}
	if (child < 0 || follow(child)) {
		fprintf(stderr, "tlsf_worst: an operation failed, or cannot be stepped\n");
		return 2;
	}
	return print();
}
