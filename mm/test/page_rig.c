/* SPDX-License-Identifier: MIT */
#include "page_rig.h"

struct page_model page_model_new(struct page_alloc *a, void *memory, size_t nbytes, uint8_t *used,
				 struct page_model_block *blocks, size_t nblocks)
{
	size_t total = nbytes / MM_PAGE_SIZE;

	return (struct page_model){
		.pages = a,
		.memory = (uintptr_t)memory,
		.from = total - page_alloc_total(a),
		.total = total,
		.used = used,
		.blocks = blocks,
		.nblocks = nblocks,
	};
}

/* These pages were all free, or all used, and change. */
static bool mark(struct page_model *m, size_t first, size_t n, bool on)
{
	CHECK_OR(first >= m->from && first + n <= m->total, false);
	for (size_t i = first; i < first + n; i++) {
		CHECK_OR(m->used[i] != on, false);
		m->used[i] = on;
	}
	return true;
}

static bool is_full(const struct page_model *m, size_t n, size_t align)
{
	bool exact = align == MM_PAGE_SIZE || align == n * MM_PAGE_SIZE;
	size_t run = 0, want = exact ? n : n + align / MM_PAGE_SIZE - 1;

	for (size_t i = m->total; i-- > m->from;) {
		run = m->used[i] ? 0 : run + 1;
		if (run >= want && (!exact || !((m->memory + i * MM_PAGE_SIZE) & (align - 1))))
			return false;
	}
	return true;
}

static bool take(struct page_model *m, struct page_model_block *b, size_t n, size_t align)
{
	virt_addr_t va;

	if (rig_get(m->pages, n, align, &va) != ALLOC_OK)
		return is_full(m, n, align);
	CHECK_OR(!(va.value & (align - 1)) && va.value >= m->memory, false);
	b->first = (va.value - m->memory) / MM_PAGE_SIZE;
	b->n = n;
	return mark(m, b->first, n, true);
}

static bool give(struct page_model *m, struct page_model_block *b, size_t n)
{
	CHECK_OR(rig_put(m->pages, m->memory + b->first * MM_PAGE_SIZE, n) == ALLOC_OK, false);
	CHECK_OR(mark(m, b->first, n, false), false);
	b->first += n;
	b->n -= n;
	return true;
}

bool page_model_step(struct page_model *m, size_t n, size_t align, uint64_t random)
{
	struct page_model_block *b = &m->blocks[random % m->nblocks];

	if (!b->n)
		return take(m, b, n, align);
	return give(m, b, random >> 60 < 4 ? 1 + (random >> 32) % b->n : b->n);
}
