/* SPDX-License-Identifier: MIT */
/* Numbers on command lines and in the environment. */
#ifndef BENCH_NUMBER_H
#define BENCH_NUMBER_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline unsigned int suffix_shift(char suffix)
{
	if (suffix == 'K')
		return 10;
	if (suffix == 'M')
		return 20;
	return suffix == 'G' ? 30 : 0;
}

/* Decimal, or hexadecimal after 0x; K, M or G behind it are powers of 1024. 0, or -1 when the text
 * is anything else, or a number below min or above max. */
static inline int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	int base = text[0] == '0' && text[1] == 'x' ? 16 : 10;
	unsigned int shift;
	uint64_t n;
	char *end;

	/* strtoull takes blanks and a sign before it. */
	if (text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	n = strtoull(text, &end, base);
	shift = suffix_shift(*end);
	if (errno || end[shift != 0] || n > max >> shift || n << shift < min)
		return -1;
	*out = n << shift;
	return 0;
}

/* The same for a program's option or argument: what is wrong with it ends the program. */
static inline uint64_t number_argument(const char *name, const char *text, uint64_t min,
				       uint64_t max)
{
	uint64_t n;

	if (!parse_number(text, min, max, &n))
		return n;
	fprintf(stderr, "%s %s: not a number from %llu to %llu (K, M, G: times 1024, ...)\n", name,
		text, (unsigned long long)min, (unsigned long long)max);
	exit(2);
}

#endif
