/* SPDX-License-Identifier: MIT */
/* How much memory an allocator needs: for one that lives in a region the smallest that will do, for
 * one that asks the system how far the process grows. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replay.h"

#define PAGE ((size_t)4096)

/* --- The smallest region ------------------------------------------------------ */

enum outcome { FITS, TOO_SMALL, BROKEN };

/* In a child of its own: the plugin can be initialised once only. */
static enum outcome try_region(struct replay *r, size_t size)
{
	int status;
	pid_t pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	if (pid == 0) {
		r->region_size = size;
		if (r->heap.init(r->region, size))
			_exit(TOO_SMALL);
		_exit(run_trace(r) ? TOO_SMALL : FITS);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) <= TOO_SMALL)
		return WEXITSTATUS(status);
	fprintf(stderr, "the plugin died in a region of %zu bytes, status %#x\n", size,
		(unsigned int)status);
	return BROKEN;
}

/* Up in steps of an eighth, to the end of what is mapped: *high fits, and *low does not. */
static enum outcome bracket(struct replay *r, size_t *low, size_t *high)
{
	enum outcome o = TOO_SMALL;

	while (o == TOO_SMALL && *high < r->region_size) {
		*low = *high;
		*high = (*high + *high / 8 + PAGE) & -PAGE;
		if (*high > r->region_size)
			*high = r->region_size;
		o = try_region(r, *high);
	}
	if (o == TOO_SMALL)
		fprintf(stderr, "does not fit into %zu bytes\n", r->region_size);
	return o;
}

/* Bisection, to a page or to 0.1 % of the peak. */
static enum outcome narrow(struct replay *r, size_t *low, size_t *high)
{
	size_t peak = r->trace.peak_bytes, exact = peak / 1000 > PAGE ? peak / 1000 : PAGE;
	enum outcome o = FITS;

	while (o != BROKEN && *high - *low > exact) {
		size_t middle = (*low + (*high - *low) / 2) & -PAGE;

		if (middle == *low)
			break;
		o = try_region(r, middle);
		*(o == FITS ? high : low) = middle;
	}
	return o;
}

int replay_region(struct replay *r)
{
	size_t peak = r->trace.peak_bytes, low = peak & -PAGE, high = low;

	if (r->heap.external) {
		fprintf(stderr, "this allocator does not live in a region\n");
		return 1;
	}
	if (bracket(r, &low, &high) != FITS || narrow(r, &low, &high) == BROKEN)
		return 1;
	printf("{\"bytes\": %zu, \"peak\": %zu, \"ratio\": %.4f}\n", high, peak,
	       (double)high / (double)peak);
	return 0;
}

/* --- The resident set ---------------------------------------------------------- */

static size_t resident_bytes(int statm)
{
	char line[128];
	unsigned long pages;
	ssize_t n = pread(statm, line, sizeof(line) - 1, 0);

	if (n <= 0)
		return 0;
	line[n] = 0;
	return sscanf(line, "%*u %lu", &pages) == 1 ? pages * PAGE : 0;
}

/* Every page of a block, for else a large one would seem to cost little. */
static void write_pages(volatile unsigned char *p, size_t size)
{
	for (size_t at = 0; at < size; at += PAGE)
		p[at] = 1;
	p[size - 1] = 1;
}

/* The operation that ran out of memory, or NULL; *most is the largest resident set. */
static const struct trace_op *watch_trace(struct replay *r, int statm, size_t *most)
{
	for (size_t i = 0; i < r->trace.nops; i++) {
		const struct trace_op *op = &r->trace.ops[i];
		void **slot = &r->table[op->slot];
		size_t now;

		if (op->is_free) {
			r->heap.free(*slot, op->size, op_align(op));
			continue;
		}
		*slot = r->heap.alloc(op->size, op_align(op));
		if (!*slot)
			return op;
		write_pages(*slot, op->size);
		now = i % 32 ? 0 : resident_bytes(statm);
		*most = now > *most ? now : *most;
	}
	return NULL;
}

int replay_resident(struct replay *r)
{
	int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	size_t before, most, peak = r->trace.peak_bytes;
	const struct trace_op *failed;

	if (statm < 0) {
		perror("/proc/self/statm");
		return 1;
	}
	if (start_heap(r))
		return 1;
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	memset(r->table, 0, r->trace.nslots * sizeof(*r->table)); /* its pages come in now */
	before = most = resident_bytes(statm);
	failed = watch_trace(r, statm, &most);
	if (failed)
		return out_of_memory(r, failed);
	printf("{\"bytes\": %zu, \"peak\": %zu, \"ratio\": %.4f}\n", most - before, peak,
	       (double)(most - before) / (double)peak);
	return 0;
}
