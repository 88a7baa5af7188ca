/* SPDX-License-Identifier: MIT */
/* What the replayer's modes share. */
#ifndef BENCH_REPLAY_H
#define BENCH_REPLAY_H

#include "trace.h"

struct heap {
	const char *(*name)(void);
	int (*init)(void *region, size_t size);
	void *(*alloc)(size_t size, size_t align);
	void (*free)(void *p, size_t size, size_t align);
	bool external;
};

struct replay {
	struct heap heap;
	struct trace trace;
	void **table; /* slot -> block */
	unsigned char *region;
	size_t region_size;
	const char *counter; /* path of the counter's file */
};

static inline size_t op_align(const struct trace_op *op)
{
	return (size_t)1 << op->align_log2;
}

/* Each mode prints one line of JSON and gives the exit status; a failure is one line on stderr. */
int replay_count(struct replay *r);
int replay_verify(struct replay *r);
int replay_region(struct replay *r);
int replay_resident(struct replay *r);
int replay_time(struct replay *r);
int replay_pass(struct replay *r);

/* -1 and a line on stderr when the plugin refuses. */
int start_heap(struct replay *r);

int out_of_memory(const struct replay *r, const struct trace_op *op);

/* All operations, with both ends of each block written as its owner would. The operation that ran
 * out of memory, or NULL. */
const struct trace_op *run_trace(struct replay *r);

/* Zeroed, and taken from the system, so that the malloc that is measured has no part in it. */
void *map_memory(size_t nbytes);

#endif
