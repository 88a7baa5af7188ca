/* SPDX-License-Identifier: MIT */
/* Allocation traces: what a program asked of malloc, call by call.
 *
 * A file is a header and a stream of events. An event is a tag byte, kind | log2(align) << 2 (0:
 *the caller named no alignment), and then, each as a LEB128 varint:
 *
 *	alloc		block, size
 *	free		block
 *	realloc		old block, new block, size
 *
 * A block is its address over 8, as the zigzag difference from the block before it in the stream:
 *so most take two or three bytes. Numbers are little-endian.
 *
 * The header is true after every event, because the writer maps the file and changes the header
 *last: a program that is killed, or that becomes another by exec, leaves a whole trace. Behind the
 * stream the file may have spare room.
 *
 * In memory a trace is a list of operations on slots, so that a replay needs one table and no
 * search. A realloc has become an allocation followed by a free, sizes of 0 have become 1, and
 *blocks that the program never freed are freed at the end in the order of their allocation.
 */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_MAGIC "MICATRC1"

struct trace_header {
	char magic[8];
	char program[32]; /* ends in a zero byte */
	uint64_t nevents;
	uint64_t nbytes;   /* of the stream */
	uint64_t checksum; /* FNV-1a of the stream */
};

#define TRACE_CHECKSUM_START 0xcbf29ce484222325

static inline uint64_t trace_checksum(uint64_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * 0x100000001b3;
	return sum;
}

enum trace_kind { TRACE_ALLOC, TRACE_FREE, TRACE_REALLOC };

struct trace_event {
	enum trace_kind kind;
	unsigned int align_log2;
	uint64_t old; /* address of what a realloc took back */
	uint64_t block;
	uint64_t size;
};

/* --- Writing: no call of malloc, for the recorder is malloc ------------------ */

struct trace_writer {
	struct trace_header *header; /* NULL: nothing is written */
	size_t room;		     /* bytes that the file has behind the mapping */
	uint64_t last;		     /* the block before */
	int fd;
};

/* 0, or -1 and errno. The file must not be there yet. */
int trace_create(struct trace_writer *w, const char *path, const char *program);

/* 0, or an error number, once: the disk is full or the trace as long as can be. Then the writer has
 * closed, and the trace ends with the event before. */
int trace_append(struct trace_writer *w, const struct trace_event *e);

/* Cuts the spare room off. */
void trace_close(struct trace_writer *w);

/* After a fork: the file is the parent's, so let go of it and leave it as it is. */
void trace_abandon(struct trace_writer *w);

/* --- Reading ---------------------------------------------------------------- */

struct trace_op {
	uint64_t size; /* a free has it, too */
	uint32_t slot;
	uint8_t align_log2;
	bool is_free;
};

struct trace {
	char program[32];
	size_t ncalls; /* events in the file */
	struct trace_op *ops;
	size_t nops;
	size_t nbody; /* operations before the closing frees */
	size_t nslots;
	size_t peak_bytes; /* requested by live blocks, at most */
	size_t peak_blocks;
	size_t nforeign; /* frees of blocks unknown to the trace, left out */
	size_t nmissed;	 /* blocks handed out twice, so a free was missed and has been added */
};

/* Reads the first max_events events. Alignments below min_align are raised to it. 0, or -1 after
 * one line on stderr that says what is wrong with the file. */
int trace_load(struct trace *t, const char *path, size_t max_events, size_t min_align);

#endif
