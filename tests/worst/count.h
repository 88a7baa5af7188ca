/* SPDX-License-Identifier: MIT */
/*
 * Counts the instructions of single operations, prints them as a histogram, and fails when one
 * takes more than its bound. The processor is made to trap after each instruction, which a
 * program can have only on x86-64; elsewhere `make worst-test` is skipped.
 */
#ifndef TESTS_WORST_COUNT_H
#define TESTS_WORST_COUNT_H

#include <stdbool.h>

/* One kind of operations, and how many instructions one may take. */
struct worst_row {
	const char *name;
	unsigned int bound;
};

/* What is between the two is one operation of a row. */
void worst_begin(unsigned int row);
void worst_end(void);

/* Random numbers, the same in every run. */
unsigned int worst_random(void);

/* End the program, as a failure. */
void must(bool ok);

/* Run, print what was counted. The exit status: 0, or 1 when an operation was above its bound. */
int worst_main(const struct worst_row *rows, unsigned int nrows, void (*run)(void));

#endif
