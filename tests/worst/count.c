/* SPDX-License-Identifier: MIT */
#include "count.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define BUCKETS	 16u
#define MAX_ROWS 16u

static struct count {
	unsigned int n, max, bucket[BUCKETS];
	unsigned long sum;
} counts[MAX_ROWS];

static volatile unsigned int steps;
static unsigned int row, own_steps; /* of the counting itself */

void must(bool ok)
{
	if (ok)
		return;
	fprintf(stderr, "an operation failed\n");
	exit(2);
}

unsigned int worst_random(void)
{
	static unsigned int state = 12345;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static void on_step(int signal)
{
	(void)signal;
	steps++;
}

/* The trap flag; what lies below the stack pointer is the compiler's. */
static inline void trap_on(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
			 "lea 128(%%rsp), %%rsp"
			 :
			 :
			 : "memory", "cc");
}

static inline void trap_off(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\t"
			 "lea 128(%%rsp), %%rsp"
			 :
			 :
			 : "memory", "cc");
}

void worst_begin(unsigned int which)
{
	row = which;
	steps = 0;
	trap_on();
}

void worst_end(void)
{
	struct count *c = &counts[row];
	unsigned int instructions, i = 0;

	trap_off();
	instructions = steps - own_steps;
	while (i < BUCKETS - 1 && instructions >= 32u << i)
		i++;
	c->n++;
	c->sum += instructions;
	c->bucket[i]++;
	if (instructions > c->max)
		c->max = instructions;
}

/* What an operation of no instructions seems to have. False: nothing traps. */
static bool calibrate(void)
{
	struct sigaction action = {.sa_handler = on_step};

	if (sigaction(SIGTRAP, &action, NULL))
		return false;
	worst_begin(0);
	worst_end();
	own_steps = steps;
	counts[0] = (struct count){0};
	return own_steps;
}

static unsigned int buckets_used(unsigned int nrows)
{
	unsigned int most = 0;

	for (unsigned int r = 0; r < nrows; r++)
		for (unsigned int i = 0; i < BUCKETS; i++)
			if (counts[r].bucket[i] && i >= most)
				most = i + 1;
	return most;
}

static int print(const struct worst_row *rows, unsigned int nrows)
{
	unsigned int shown = buckets_used(nrows), failed = 0;

	printf("level %d\n%-38s %6s %6s %6s %6s |", MM_HARDEN, "instructions of an operation", "n",
	       "mean", "most", "bound");
	for (unsigned int i = 0; i < shown; i++)
		printf(" <%-7u", 32u << i);
	for (unsigned int r = 0; r < nrows; r++) {
		const struct count *c = &counts[r];

		printf("\n%-38s %6u %6lu %6u %6u |", rows[r].name, c->n, c->n ? c->sum / c->n : 0,
		       c->max, rows[r].bound);
		for (unsigned int i = 0; i < shown; i++)
			printf(" %-8u", c->bucket[i]);
		failed += c->max > rows[r].bound;
	}
	printf("\n");
	return failed ? 1 : 0;
}

int worst_main(const struct worst_row *rows, unsigned int nrows, void (*run)(void))
{
	must(nrows <= MAX_ROWS);
	if (!calibrate()) {
		printf("no instruction can be counted on this machine: skipped\n");
		return 0;
	}
	run();
	return print(rows, nrows);
}
