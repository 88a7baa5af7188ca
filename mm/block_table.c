/* SPDX-License-Identifier: MIT */
/*
 * Open addressing with linear probing, at most half full; removal shifts the
 * rest of the run back, so there are no tombstones and a miss ends early. The
 * slots lie in whole pages of the page allocator: doubled when half full,
 * halved when an eighth full. A change of size moves all records at once, so
 * one call in n costs O(n): a shortcoming, hidden from all but the users of
 * very many large blocks.
 */
#include <mm/block_table.h>

static struct block_record *slots_of(struct block_table *t)
{
	return t->pages ? t->pages : t->first;
}

size_t block_table_slots(const struct block_table *t)
{
	return t->pages ? t->nslots : BLOCK_TABLE_FIRST;
}

static size_t slot_pages(size_t nslots)
{
	return (nslots * sizeof(struct block_record) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
}

size_t block_table_npages(const struct block_table *t)
{
	return t->pages ? slot_pages(t->nslots) : 0;
}

/* Fibonacci hashing: the low bits of addresses are alike, the middle of the product is not. */
static size_t home_of(const struct block_table *t, uintptr_t key)
{
	uint64_t product = (uint64_t)key * 0x9e3779b97f4a7c15u;

	return (size_t)(product >> 32) & (block_table_slots(t) - 1);
}

/* The slot that holds the key, or the empty one where it would go. */
static struct block_record *probe(struct block_table *t, uintptr_t key)
{
	struct block_record *slots = slots_of(t);
	size_t mask = block_table_slots(t) - 1;
	size_t i = home_of(t, key);

	while (slots[i].key && slots[i].key != key)
		i = (i + 1) & mask;
	return &slots[i];
}

struct block_record *block_table_find(struct block_table *t, uintptr_t key)
{
	struct block_record *r = key ? probe(t, key) : NULL;

	return r && r->key ? r : NULL;
}

struct block_record *block_table_slot(struct block_table *t, size_t i)
{
	struct block_record *r = &slots_of(t)[i];

	return r->key ? r : NULL;
}

static void free_slots(struct page_alloc *pages, struct block_record *slots, size_t nslots)
{
	enum mm_fault_kind fault;
	enum alloc_result r = page_alloc_put(pages, virt_addr(slots), slot_pages(nslots), &fault);

	(void)r; /* cannot fail: the pages are ours */
}

/* A number of slots that fits into `first` means that one. */
static bool change_size(struct block_table *t, struct page_alloc *pages, size_t nslots)
{
	struct block_table old = *t;
	size_t n = block_table_slots(t);
	virt_addr_t va = {0};

	if (nslots > BLOCK_TABLE_FIRST) {
		struct page_request req = {
			.npages = slot_pages(nslots),
			.align = MM_PAGE_SIZE,
			.usage = PAGE_USAGE_KERNEL,
		};

		if (page_alloc_get(pages, req, &va) != ALLOC_OK)
			return false;
		__builtin_memset(virt_ptr(va), 0, nslots * sizeof(struct block_record));
	}
	t->pages = virt_ptr(va);
	t->nslots = nslots;
	__builtin_memset(t->first, 0, sizeof(t->first));
	for (size_t i = 0; i < n; i++) {
		struct block_record *r = block_table_slot(&old, i);

		if (r)
			*probe(t, r->key) = *r;
	}
	if (old.pages)
		free_slots(pages, old.pages, old.nslots);
	return true;
}

bool block_table_insert(struct block_table *t, struct page_alloc *pages,
			const struct block_record *record)
{
	size_t n = block_table_slots(t);

	if (t->nrecords >= n / 2 && !change_size(t, pages, n * 2))
		return false;
	*probe(t, record->key) = *record;
	t->nrecords++;
	return true;
}

void block_table_fit(struct block_table *t, struct page_alloc *pages)
{
	size_t n = BLOCK_TABLE_FIRST;

	while (n / 2 < t->nrecords)
		n *= 2;
	if (n < block_table_slots(t))
		(void)change_size(t, pages, n);
}

/* Close the gap at `hole`: move back each record of the run that may live there. */
static void close_gap(struct block_table *t, size_t hole)
{
	struct block_record *slots = slots_of(t);
	size_t mask = block_table_slots(t) - 1;

	for (size_t i = (hole + 1) & mask; slots[i].key; i = (i + 1) & mask) {
		if (((i - home_of(t, slots[i].key)) & mask) < ((i - hole) & mask))
			continue;
		slots[hole] = slots[i];
		hole = i;
	}
	slots[hole] = (struct block_record){0};
}

void block_table_remove(struct block_table *t, struct page_alloc *pages,
			struct block_record *record)
{
	close_gap(t, (size_t)(record - slots_of(t)));
	t->nrecords--;
	/* That there is no page for a smaller table is no harm: the present one stays. */
	if (t->pages && t->nrecords <= t->nslots / 8)
		(void)change_size(t, pages, t->nslots / 2);
}
