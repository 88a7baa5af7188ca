/* SPDX-License-Identifier: MIT */
/*
 * Single operations of the facade over each engine while its heap grows, holds freed blocks back,
 * and shrinks: what is held back is merged a part at a time, so that none takes long. `make
 * worst-test` runs it at hardening levels 0 and 1.
 */
#include <stdlib.h>

#include <mm/global.h>

#include "count.h"

#define POOL   ((size_t)64 << 20)
#define BLOCKS 400u

/* Instructions. The last block of all is another matter: then the whole heap goes back. */
#define BOUND_GROW   8400u
#define BOUND_SHRINK 5000u
#define BOUND_LAST   40000u

enum stage { GROW, REUSE, SHRINK, LAST, STAGES };

static const struct worst_row rows[] = {
	{"TLSF: a heap that grows", BOUND_GROW},
	{"TLSF: other sizes than were freed", BOUND_GROW},
	{"TLSF: a heap that shrinks", BOUND_SHRINK},
	{"TLSF: the last block", BOUND_LAST},
	{"slab: a heap that grows", BOUND_GROW},
	{"slab: other sizes than were freed", BOUND_GROW},
	{"slab: a heap that shrinks", BOUND_SHRINK},
	{"slab: the last block", BOUND_LAST},
	{"buddy: a heap that grows", BOUND_GROW},
	{"buddy: other sizes than were freed", BOUND_GROW},
	{"buddy: a heap that shrinks", BOUND_SHRINK},
	{"buddy: the last block", BOUND_LAST},
};

static struct global_allocator heaps[] = {
	GLOBAL_ALLOCATOR_INIT(&byte_tlsf_ops),
	GLOBAL_ALLOCATOR_INIT(&byte_slab_ops),
	GLOBAL_ALLOCATOR_INIT(&byte_buddy_ops),
};

static uint8_t *memory;

static void *block[BLOCKS];
static size_t size_of[BLOCKS];

static void get(struct global_allocator *g, unsigned int row, unsigned int i)
{
	struct layout l = {1 + worst_random() % ((size_t)32 << worst_random() % 11), 8};
	enum alloc_result r;

	worst_begin(row);
	r = global_allocator_alloc(g, l, &block[i]);
	worst_end();
	must(r == ALLOC_OK);
	size_of[i] = l.size;
}

static void put(struct global_allocator *g, unsigned int row, unsigned int i)
{
	enum alloc_result r;

	worst_begin(row);
	r = global_allocator_dealloc(g, block[i], (struct layout){size_of[i], 8});
	worst_end();
	must(r == ALLOC_OK);
}

static void run_on(struct global_allocator *g, unsigned int row)
{
	must(global_allocator_init(g, virt_addr(memory), POOL) == ALLOC_OK);
	for (unsigned int i = 0; i < BLOCKS; i++)
		get(g, row + GROW, i);
	for (unsigned int i = 0; i < BLOCKS; i += 2)
		put(g, row + REUSE, i);
	for (unsigned int i = 0; i < BLOCKS; i += 2)
		get(g, row + REUSE, i);
	for (unsigned int i = 0; i < BLOCKS; i++)
		put(g, row + (i < BLOCKS - 1 ? SHRINK : LAST), i);
	must(!global_allocator_used_bytes(g));
}

static void run(void)
{
	for (unsigned int i = 0; i < sizeof(heaps) / sizeof(heaps[0]); i++)
		run_on(&heaps[i], i * STAGES);
}

int main(void)
{
	memory = aligned_alloc(MM_MAX_ALIGN, POOL);
	return memory ? worst_main(rows, sizeof(rows) / sizeof(rows[0]), run) : 2;
}
