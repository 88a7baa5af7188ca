/* SPDX-License-Identifier: MIT */
/* Writing traces (trace.h). The file is mapped once, as large as it can ever become, and given room
 * on the disk a piece at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trace.h"

#define MAP_BYTES   ((size_t)4 << 30)
#define PIECE_BYTES ((size_t)1 << 20)
#define EVENT_BYTES 32 /* one event is never longer: a tag and three varints of ten */

int trace_create(struct trace_writer *w, const char *path, const char *program)
{
	void *map;
	int err;

	w->header = NULL;
	w->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (w->fd < 0)
		return -1;
	map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, w->fd, 0);
	err = map == MAP_FAILED ? errno : posix_fallocate(w->fd, 0, (off_t)PIECE_BYTES);
	if (err) {
		if (map != MAP_FAILED)
			munmap(map, MAP_BYTES);
		close(w->fd);
		unlink(path);
		errno = err;
		return -1;
	}
	w->header = map;
	w->room = PIECE_BYTES;
	w->last = 0;
	memcpy(w->header->magic, TRACE_MAGIC, sizeof(w->header->magic));
	snprintf(w->header->program, sizeof(w->header->program), "%s", program);
	w->header->checksum = TRACE_CHECKSUM_START;
	return 0;
}

void trace_abandon(struct trace_writer *w)
{
	if (!w->header)
		return;
	munmap(w->header, MAP_BYTES);
	close(w->fd);
	w->header = NULL;
}

void trace_close(struct trace_writer *w)
{
	if (!w->header)
		return;
	/* If it fails, the file is just longer than it need be. */
	(void)!ftruncate(w->fd, (off_t)(sizeof(*w->header) + w->header->nbytes));
	trace_abandon(w);
}

/* 0, or what is wrong. */
static int make_room(struct trace_writer *w)
{
	size_t need = sizeof(*w->header) + w->header->nbytes + EVENT_BYTES;
	int err;

	if (need <= w->room)
		return 0;
	if (need > MAP_BYTES - PIECE_BYTES)
		return EFBIG;
	err = posix_fallocate(w->fd, (off_t)w->room, (off_t)PIECE_BYTES);
	if (!err)
		w->room += PIECE_BYTES;
	return err;
}

static uint8_t *put_varint(uint8_t *at, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*at++ = (uint8_t)(v | 0x80);
	*at++ = (uint8_t)v;
	return at;
}

static uint8_t *put_block(struct trace_writer *w, uint8_t *at, uint64_t address)
{
	int64_t step = (int64_t)((address >> 3) - w->last);

	w->last = address >> 3;
	return put_varint(at, (uint64_t)step << 1 ^ (uint64_t)(step >> 63));
}

int trace_append(struct trace_writer *w, const struct trace_event *e)
{
	struct trace_header *h = w->header;
	uint8_t *start, *at;
	int err;

	if (!h)
		return 0;
	err = make_room(w);
	if (err) {
		trace_close(w);
		return err;
	}
	start = at = (uint8_t *)(h + 1) + h->nbytes;
	*at++ = (uint8_t)((unsigned int)e->kind | e->align_log2 << 2);
	if (e->kind == TRACE_REALLOC)
		at = put_block(w, at, e->old);
	at = put_block(w, at, e->block);
	if (e->kind != TRACE_FREE)
		at = put_varint(at, e->size);
	h->checksum = trace_checksum(h->checksum, start, (size_t)(at - start));
	h->nbytes += (uint64_t)(at - start);
	h->nevents++;
	return 0;
}
