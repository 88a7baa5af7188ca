/* SPDX-License-Identifier: MIT */
/*
 * A hash table from addresses to what is known about them. The global allocator
 * keeps its large blocks in one and, in MM_DEBUG builds, who allocated and who
 * freed every block. Private to mm/global*.c and mm/block_table.c; here so that
 * it can be placed in a static. Its user serialises all calls.
 */
#ifndef MM_BLOCK_TABLE_H
#define MM_BLOCK_TABLE_H

#include <mm/page_alloc.h>
#include <mm/types.h>

struct block_record {
	uintptr_t key; /* an address; 0 is an empty slot */
	size_t nbytes;
	size_t align; /* in a table of call sites: number of blocks */
	const void *allocated_by, *freed_by;
};

/* A power of two. So few records need no page. */
#define BLOCK_TABLE_FIRST ((size_t)16)

/* All zero is an empty table. */
struct block_table {
	struct block_record *pages; /* NULL: `first` is in use */
	size_t nslots, nrecords;
	struct block_record first[BLOCK_TABLE_FIRST];
};

/* The record of a key, or NULL. Valid until the next call that changes the table. */
struct block_record *block_table_find(struct block_table *t, uintptr_t key);

/*
 * Add a record, whose key must not be there. False: the table was full and no
 * page could be had from `pages` to grow it; nothing has changed.
 */
MM_MUST_CHECK bool block_table_insert(struct block_table *t, struct page_alloc *pages,
				      const struct block_record *record);

/* Remove a record that block_table_find returned; a table grown too large gives pages back. */
void block_table_remove(struct block_table *t, struct page_alloc *pages,
			struct block_record *record);

/* As few pages as the records need: a function of their number only. */
void block_table_fit(struct block_table *t, struct page_alloc *pages);

/* Slots are numbered from 0; NULL: the slot is empty. */
size_t block_table_slots(const struct block_table *t);
struct block_record *block_table_slot(struct block_table *t, size_t i);

/* Pages that the table has of its own. */
size_t block_table_npages(const struct block_table *t);

#endif
