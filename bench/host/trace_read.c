/* SPDX-License-Identifier: MIT */
/* Reading traces (trace.h): the stream is checked, and addresses become slots. All memory is mapped
 * and none is malloc's, which may be what is to be measured. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace.h"

#define NO_SLOT UINT32_MAX

/* No process has had more: a trace that says so is damaged. */
#define MOST_BYTES_LOG2 47
#define MOST_BYTES	((uint64_t)1 << MOST_BYTES_LOG2)

/* --- Blocks that are live, by address: open addressing, linear probes -------- */

struct live {
	uint64_t block; /* 0: never used */
	uint32_t slot;	/* NO_SLOT: no longer live */
};

struct reader {
	struct trace *t;
	const uint8_t *at, *end;
	uint64_t last;
	struct live *live;
	size_t mask;
	size_t *alloc_of;     /* slot -> the operation that filled it, + 1; 0: empty */
	uint32_t *free_slots; /* a stack */
	size_t nfree_slots;
	size_t min_align_log2;
	size_t bytes, blocks;
};

static void *map_zeroed(size_t n)
{
	void *p = mmap(NULL, n + 1, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

/* The block's place, or the place where it would go. */
static struct live *find(struct reader *r, uint64_t block)
{
	size_t i = block * 0x9e3779b97f4a7c15 >> 20 & r->mask;

	while (r->live[i].block && r->live[i].block != block)
		i = (i + 1) & r->mask;
	return &r->live[i];
}

/* --- Operations ------------------------------------------------------------- */

static void emit_free(struct reader *r, uint32_t slot)
{
	struct trace *t = r->t;
	struct trace_op op = t->ops[r->alloc_of[slot] - 1];

	op.is_free = true;
	t->ops[t->nops++] = op;
	r->alloc_of[slot] = 0;
	r->free_slots[r->nfree_slots++] = slot;
	r->bytes -= op.size;
	r->blocks--;
}

static void do_free(struct reader *r, uint64_t block)
{
	struct live *l = find(r, block);

	if (!l->block || l->slot == NO_SLOT) {
		r->t->nforeign++;
		return;
	}
	emit_free(r, l->slot);
	l->slot = NO_SLOT;
}

static void do_alloc(struct reader *r, const struct trace_event *e)
{
	struct trace *t = r->t;
	struct live *l = find(r, e->block);
	size_t align_log2 = e->align_log2 > r->min_align_log2 ? e->align_log2 : r->min_align_log2;
	size_t size = e->size ? e->size : 1;

	if (l->block && l->slot != NO_SLOT) {
		t->nmissed++;
		do_free(r, e->block);
	}
	l->block = e->block;
	l->slot = r->nfree_slots ? r->free_slots[--r->nfree_slots] : (uint32_t)t->nslots++;
	t->ops[t->nops++] =
		(struct trace_op){.size = size, .slot = l->slot, .align_log2 = (uint8_t)align_log2};
	r->alloc_of[l->slot] = t->nops;
	r->bytes += size;
	r->blocks++;
	if (r->bytes > t->peak_bytes)
		t->peak_bytes = r->bytes;
	if (r->blocks > t->peak_blocks)
		t->peak_blocks = r->blocks;
}

/* Both blocks are live while realloc copies; one that stayed in place was freed first. */
static void do_realloc(struct reader *r, const struct trace_event *e)
{
	if (e->old == e->block)
		do_free(r, e->old);
	do_alloc(r, e);
	if (e->old != e->block)
		do_free(r, e->old);
}

static void close_out(struct reader *r)
{
	struct trace *t = r->t;

	t->nbody = t->nops;
	for (size_t i = 0; i < t->nbody; i++)
		if (!t->ops[i].is_free && r->alloc_of[t->ops[i].slot] == i + 1)
			emit_free(r, t->ops[i].slot);
}

/* --- The stream ------------------------------------------------------------- */

static bool get_varint(struct reader *r, uint64_t *v)
{
	unsigned int shift = 0;

	*v = 0;
	while (r->at < r->end && shift < 64) {
		uint8_t b = *r->at++;

		*v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return true;
		shift += 7;
	}
	return false;
}

static bool get_block(struct reader *r, uint64_t *block)
{
	uint64_t z;

	if (!get_varint(r, &z))
		return false;
	r->last += z >> 1 ^ -(z & 1);
	*block = r->last;
	return r->last != 0;
}

static bool get_event(struct reader *r, struct trace_event *e)
{
	uint8_t tag;

	if (r->at == r->end)
		return false;
	tag = *r->at++;
	e->kind = tag & 3;
	e->align_log2 = tag >> 2;
	if (e->kind > TRACE_REALLOC || e->align_log2 > MOST_BYTES_LOG2)
		return false;
	if (e->kind == TRACE_REALLOC && !get_block(r, &e->old))
		return false;
	if (!get_block(r, &e->block))
		return false;
	return e->kind == TRACE_FREE || (get_varint(r, &e->size) && e->size < MOST_BYTES);
}

static bool read_stream(struct reader *r, size_t nevents)
{
	struct trace_event e;

	for (size_t i = 0; i < nevents; i++) {
		if (!get_event(r, &e))
			return false;
		if (e.kind == TRACE_ALLOC)
			do_alloc(r, &e);
		else if (e.kind == TRACE_FREE)
			do_free(r, e.block);
		else
			do_realloc(r, &e);
		if (r->bytes >= MOST_BYTES)
			return false;
	}
	close_out(r);
	return true;
}

/* What is wrong with a file, or NULL. */
static const char *check_file(const struct trace_header *h, size_t file_bytes)
{
	const uint8_t *stream = (const uint8_t *)(h + 1);

	if (file_bytes < sizeof(*h) || memcmp(h->magic, TRACE_MAGIC, sizeof(h->magic)) != 0)
		return "not a trace";
	if (h->nbytes > file_bytes - sizeof(*h))
		return "truncated: the header promises more bytes than the file has";
	if (h->nevents > h->nbytes || h->program[sizeof(h->program) - 1])
		return "damaged header";
	if (trace_checksum(TRACE_CHECKSUM_START, stream, h->nbytes) != h->checksum)
		return "damaged: the checksum differs";
	return NULL;
}

static const char *decode(struct trace *t, const struct trace_header *h, size_t max_events,
			  size_t min_align)
{
	size_t n = h->nevents < max_events ? h->nevents : max_events, nlive = 64;
	struct reader r = {.t = t, .at = (const uint8_t *)(h + 1)};
	bool ok;

	while (nlive < n * 2)
		nlive *= 2;
	r.end = r.at + h->nbytes;
	r.mask = nlive - 1;
	r.min_align_log2 = (size_t)__builtin_ctzl(min_align);
	r.live = map_zeroed(nlive * sizeof(*r.live));
	r.alloc_of = map_zeroed(n * sizeof(*r.alloc_of));
	r.free_slots = map_zeroed(n * sizeof(*r.free_slots));
	t->ops = map_zeroed(n * 2 * sizeof(*t->ops));
	ok = read_stream(&r, n);
	munmap(r.live, nlive * sizeof(*r.live) + 1);
	munmap(r.alloc_of, n * sizeof(*r.alloc_of) + 1);
	munmap(r.free_slots, n * sizeof(*r.free_slots) + 1);
	if (!ok)
		return "damaged: an event makes no sense";
	return t->nops ? NULL : "empty";
}

int trace_load(struct trace *t, const char *path, size_t max_events, size_t min_align)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const struct trace_header *h;
	const char *wrong;
	struct stat st;

	memset(t, 0, sizeof(*t));
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		fprintf(stderr, "%s: %s\n", path, fd < 0 ? strerror(errno) : "not a file");
		return -1;
	}
	h = mmap(NULL, (size_t)st.st_size + 1, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (h == MAP_FAILED) {
		perror(path);
		return -1;
	}
	wrong = check_file(h, (size_t)st.st_size);
	if (!wrong) {
		memcpy(t->program, h->program, sizeof(t->program));
		t->ncalls = h->nevents;
		wrong = decode(t, h, max_events, min_align);
	}
	munmap((void *)h, (size_t)st.st_size + 1);
	if (wrong)
		fprintf(stderr, "%s: %s\n", path, wrong);
	return wrong ? -1 : 0;
}
