/* SPDX-License-Identifier: MIT */
/* tracetool info FILE...              one line of JSON for each trace
 * tracetool dump FILE                 the operations as text
 * tracetool synth KIND FILE [EVENTS]  a made-up trace, the same at every run
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "number.h"
#include "trace.h"

/* A name may have any byte but zero. */
static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if ((unsigned char)*s < ' ' || *s == '"' || *s == '\\')
			printf("\\u%04x", (unsigned int)*s);
		else
			putchar(*s);
	}
	putchar('"');
}

static int info(const char *path)
{
	struct trace t;
	size_t nallocs = 0, bytes = 0;

	if (trace_load(&t, path, SIZE_MAX, 1))
		return 1;
	for (size_t i = 0; i < t.nops; i++) {
		nallocs += !t.ops[i].is_free;
		bytes += t.ops[i].is_free ? 0 : t.ops[i].size;
	}
	printf("{\"trace\": ");
	print_json_string(path);
	printf(", \"program\": ");
	print_json_string(t.program);
	printf(", \"calls\": %zu, \"ops\": %zu, \"closing_frees\": %zu, "
	       "\"allocations\": %zu, \"mean_size\": %.1f, \"peak_bytes\": %zu, \"peak_blocks\": %zu, "
	       "\"foreign_frees\": %zu, \"missed_frees\": %zu}\n",
	       t.ncalls, t.nops, t.nops - t.nbody, nallocs, (double)bytes / (double)nallocs,
	       t.peak_bytes, t.peak_blocks, t.nforeign, t.nmissed);
	return 0;
}

static int dump(const char *path)
{
	struct trace t;

	if (trace_load(&t, path, SIZE_MAX, 1))
		return 1;
	for (size_t i = 0; i < t.nops; i++) {
		const struct trace_op *op = &t.ops[i];

		if (i == t.nbody)
			puts("end");
		if (op->is_free)
			printf("free %u\n", op->slot);
		else
			printf("alloc %u size %zu align %zu\n", op->slot, (size_t)op->size,
			       (size_t)1 << op->align_log2);
	}
	return 0;
}

/* --- Made-up traces ---------------------------------------------------------- */

static uint64_t seed = 1;

static size_t below(size_t n)
{
	seed = seed * 6364136223846793005 + 1442695040888963407;
	return (size_t)(seed >> 33) % n;
}

/* Every octave from 1 << lo to 1 << hi is as likely as another. */
static size_t octaves(unsigned int lo, unsigned int hi)
{
	size_t base = (size_t)1 << (lo + below(hi - lo));

	return base + below(base);
}

struct synth {
	struct trace_writer w;
	size_t nevents;
	size_t size[32768]; /* of slot i; 0: free */
	int err;	    /* why the writer has closed */
};

static void put(struct synth *s, const struct trace_event *e)
{
	int err = trace_append(&s->w, e);

	if (err)
		s->err = err;
}

static bool goes_on(const struct synth *s)
{
	return s->w.header && s->w.header->nevents < s->nevents;
}

static void put_free(struct synth *s, size_t slot)
{
	struct trace_event e = {.kind = TRACE_FREE, .block = (slot + 1) << 4};

	if (s->size[slot])
		put(s, &e);
	s->size[slot] = 0;
}

static void put_alloc(struct synth *s, size_t slot, size_t size, unsigned int align_log2)
{
	struct trace_event e = {.kind = TRACE_ALLOC, .block = (slot + 1) << 4, .size = size};

	put_free(s, slot);
	e.align_log2 = align_log2;
	put(s, &e);
	s->size[slot] = size;
}

/* 16 to 256 bytes; any of 20,000 live blocks goes next. */
static void synth_small(struct synth *s)
{
	while (goes_on(s))
		put_alloc(s, below(20000), 16 + below(241), 0);
}

/* 8 bytes to 32 KiB by octaves; any of 8,000 live blocks goes next. */
static void synth_wide(struct synth *s)
{
	while (goes_on(s))
		put_alloc(s, below(8000), octaves(3, 15), 0);
}

/* Whole cache lines to 256 KiB, aligned to 64 bytes up to 4 KiB; 500 live blocks. */
static void synth_aligned(struct synth *s)
{
	while (goes_on(s)) {
		unsigned int align_log2 = 6 + (unsigned int)below(7);

		put_alloc(s, below(500), octaves(align_log2, 18) >> 6 << 6, align_log2);
	}
}

/* First in, first out: messages of 16 bytes to 4 KiB wait in a queue of 10,000. */
static void synth_queue(struct synth *s)
{
	for (size_t i = 0; goes_on(s); i = (i + 1) % 10000)
		put_alloc(s, i, octaves(4, 12), 0);
}

/* Last in, first out: a recursion that goes up and down at random, 16 to 512 bytes a step. */
static void synth_stack(struct synth *s)
{
	size_t depth = 0;

	while (goes_on(s)) {
		size_t top = below(2000);

		while (depth < top)
			put_alloc(s, depth++, 16 + below(497), 0);
		while (depth > top)
			put_free(s, --depth);
	}
}

/* Rounds that ask for larger and larger blocks, after each of which three in four are freed: no
 * hole fits what comes next. Every twelfth round starts again at the smallest. */
static void synth_growing(struct synth *s)
{
	for (size_t round = 0; goes_on(s); round++) {
		size_t base = (size_t)24 << round % 12 / 2;

		for (size_t i = 0; i < 8000; i++)
			if (!s->size[i])
				put_alloc(s, i, base + below(base), 0);
		for (size_t i = 0; i < 8000; i++)
			if ((i + round) % 4)
				put_free(s, i);
	}
}

/* A hard case for heaps that merge neighbours. Each round fills memory with blocks of nearly one
 * size, frees every other of them, and then the rest: so half of the frees find a hole on either
 * side. In between come blocks aligned to a page, which leave a rest before and behind. */
static void synth_merging(struct synth *s)
{
	for (size_t round = 0; goes_on(s); round++) {
		size_t base = (size_t)32 << round % 8;

		for (size_t i = 0; i < 4000; i++)
			put_alloc(s, i, base + below(16), 0);
		for (size_t i = 0; i < 4000; i += 2)
			put_free(s, i);
		for (size_t i = 4000; i < 4040; i++)
			put_alloc(s, i, base + below(4096), 12);
		for (size_t i = 1; i < 4040; i++)
			put_free(s, i);
	}
}

static const struct {
	const char *name;
	void (*make)(struct synth *s);
} synths[] = {
	{"small", synth_small},	    {"wide", synth_wide},   {"aligned", synth_aligned},
	{"queue", synth_queue},	    {"stack", synth_stack}, {"growing", synth_growing},
	{"merging", synth_merging},
};

/* Part of a trace would pass for the whole one. */
static int give_up(const char *path, int err)
{
	unlink(path);
	fprintf(stderr, "%s: %s\n", path, strerror(err));
	return 1;
}

/* An older trace makes way; a device or a link was hardly meant. */
static int make_way(const char *path)
{
	struct stat st;

	if (!lstat(path, &st) && !S_ISREG(st.st_mode)) {
		fprintf(stderr, "%s: not a file\n", path);
		return -1;
	}
	unlink(path);
	return 0;
}

static int synth(const char *kind, const char *path, size_t nevents)
{
	static struct synth s;

	for (size_t i = 0; i < sizeof(synths) / sizeof(*synths); i++) {
		if (strcmp(synths[i].name, kind) != 0)
			continue;
		if (make_way(path))
			return 1;
		if (trace_create(&s.w, path, kind)) {
			perror(path);
			return 1;
		}
		s.nevents = nevents;
		synths[i].make(&s);
		trace_close(&s.w);
		return s.err ? give_up(path, s.err) : 0;
	}
	fprintf(stderr, "tracetool: no made-up trace is called %s\n", kind);
	return 1;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (argc >= 3 && strcmp(argv[1], "info") == 0) {
		for (int i = 2; i < argc; i++)
			failed |= info(argv[i]);
		return failed;
	}
	if (argc == 3 && strcmp(argv[1], "dump") == 0)
		return dump(argv[2]);
	if ((argc == 4 || argc == 5) && strcmp(argv[1], "synth") == 0)
		return synth(argv[2], argv[3],
			     argc == 5 ? number_argument("EVENTS", argv[4], 1, SIZE_MAX) : 400000);
	fprintf(stderr, "tracetool info FILE... | dump FILE | synth KIND FILE [EVENTS]\n");
	return 2;
}
