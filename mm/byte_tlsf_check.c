/* SPDX-License-Identifier: MIT */
/* TLSF: what reads the map. How large a block is, a walk over all blocks, a check of every
 * invariant. */
#include "byte_tlsf_map.h"

/* The next boundary of a piece after this address, which is below its end. */
static uintptr_t next_boundary(const struct tlsf_piece *piece, uintptr_t addr)
{
	uintptr_t cell = addr >> CELL_SHIFT;
	uint64_t skip = ~(uint64_t)1 << bit_of(addr);

	for (;; cell++, skip = ~(uint64_t)0) {
		const struct tlsf_cell *c = cell_at(piece->view.map, cell << CELL_SHIFT);
		uint64_t bits;

		if (!is_prepared(piece, cell << CELL_SHIFT)) {
			cell |= ((uintptr_t)1 << (FRAME_SHIFT - CELL_SHIFT)) - 1;
			continue;
		}
		bits = boundaries(c) & skip;
		if (bits)
			return (cell << CELL_SHIFT) + mm_ctz(bits) * UNIT;
	}
}

size_t byte_tlsf_block_size(const struct byte_alloc *a, const void *ptr)
{
	const struct byte_tlsf *h = const_tlsf_of(a);
	uintptr_t p = (uintptr_t)ptr;
	const struct tlsf_piece *piece = byte_tlsf_piece_search(h, p);

	if (!piece || p % UNIT || !is_prepared(piece, p) || !live_at(&piece->view, p) ||
	    is_kept(h, p))
		return 0;
	return next_boundary(piece, p) - p - TAIL;
}

void byte_tlsf_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx)
{
	const struct byte_tlsf *h = const_tlsf_of(a);

	for (const struct tlsf_piece *piece = h->pieces; piece; piece = piece->next) {
		uintptr_t next, p = piece->view.first;

		for (; p < view_end(&piece->view); p = next) {
			next = next_boundary(piece, p);
			fn(ctx, (const void *)p, next - p,
			   live_at(&piece->view, p) && !is_kept(h, p));
		}
	}
}

/* What a check counts. */
struct tally {
	size_t listed; /* free blocks that must be in lists, less those found there */
	size_t free_bytes;
};

/* The free block from p to `next`: tags, and poison. */
static bool check_free(uintptr_t p, uintptr_t next)
{
	const struct tlsf_block *b = block_at(p);

	if (size_of(b) != next - p || size_before(next) != next - p)
		return false;
	if (MM_HARDEN < 2 || poison_start(b) >= poison_end(b))
		return true;
	return is_poison(poison_start(b), poison_end(b));
}

static const void *check_piece(const struct tlsf_piece *piece, struct tally *t)
{
	const struct tlsf_view *v = &piece->view;
	bool is_free = false;
	uintptr_t next, p = v->first;

	for (; p < view_end(v); p = next) {
		bool was_free = is_free;

		next = next_boundary(piece, p);
		is_free = !live_at(v, p);
		if (edge_at(v, p) != (is_free != was_free) || next > view_end(v) ||
		    (is_free && (was_free || !check_free(p, next))))
			return (const void *)p;
		t->listed += is_free && next - p >= MIN_BLOCK;
		t->free_bytes += is_free ? next - p : 0;
	}
	return live_at(v, p) && edge_at(v, p) == is_free ? NULL : piece;
}

static const void *check_list(const struct byte_tlsf *h, size_t i, struct tally *t)
{
	struct tlsf_block *const *at = &h->lists[i];
	bool marked = h->cols[i / TLSF_COLS] >> (i % TLSF_COLS) & 1;

	if (marked != !!*at || (marked && !(h->rows >> (i / TLSF_COLS) & 1)))
		return at;
	for (; *at; at = &(*at)->next) {
		const struct tlsf_block *b = *at;
		const struct tlsf_piece *piece = byte_tlsf_piece_search(h, (uintptr_t)b);

		if ((uintptr_t)b % UNIT || !piece || !is_prepared(piece, (uintptr_t)b) ||
		    live_at(&piece->view, (uintptr_t)b) || !edge_at(&piece->view, (uintptr_t)b) ||
		    b->at != at || list_of(size_of(b)) != i || !t->listed--)
			return at;
	}
	return NULL;
}

/* Is what is kept a live block in the map? */
static bool check_kept(const struct byte_tlsf *h, const struct tlsf_kept *k)
{
	const struct tlsf_piece *piece = byte_tlsf_piece_search(h, k->start);

	return !k->nbytes ||
	       (piece && is_prepared(piece, k->start) && live_at(&piece->view, k->start) &&
		next_boundary(piece, k->start) == k->start + k->nbytes);
}

const void *byte_tlsf_check(const struct byte_alloc *a)
{
	const struct byte_tlsf *h = const_tlsf_of(a);
	const void *broken = NULL;
	struct tally t = {0, 0};

	for (const struct tlsf_piece *p = h->pieces; p && !broken; p = p->next)
		broken = check_piece(p, &t);
	for (size_t i = 0; i < NLISTS && !broken; i++)
		broken = check_list(h, i, &t);
	for (unsigned int i = 0; i < TLSF_KEPT && !broken; i++)
		broken = check_kept(h, const_kept_at(h, i)) ? NULL : const_kept_at(h, i);
	if (!broken && (t.listed || t.free_bytes != h->free_bytes))
		return h;
	return broken;
}
