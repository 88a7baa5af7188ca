/* SPDX-License-Identifier: MIT */
/* The buddy engine: a walk over all blocks, and a check of every invariant of its nodes. */
#include "byte_buddy_nodes.h"

void byte_buddy_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx)
{
	const struct byte_buddy *h = const_buddy_of(a);

	for (const struct buddy_piece *p = byte_buddy_piece_from(h, 0); p; p = piece_next(h, p)) {
		uintptr_t addr = p->first;
		struct block b;

		for (; addr < p->end; addr += b.units << UNIT_SHIFT) {
			b = byte_buddy_block_at(p, addr);
			if (!b.units)
				break;
			fn(ctx, (const void *)addr, b.units << UNIT_SHIFT,
			   b.state == BLOCK_LIVE && !quarantined(h, addr) &&
				   !is_parked(h, addr, b.units));
		}
	}
}

/* Is it in the nodes of a piece, so that it can be read? What was smashed may point anywhere. */
static bool link_readable(const struct byte_buddy *h, const struct buddy_link *b)
{
	uintptr_t at = (uintptr_t)b;
	const struct buddy_piece *piece = byte_buddy_piece_from(h, at);

	return piece && !(at & (_Alignof(struct buddy_link) - 1)) && at > (uintptr_t)piece &&
	       at <= piece->first - sizeof(*b);
}

/* Is a link where it says, in a list or behind another? */
static bool link_sound(const struct byte_buddy *h, unsigned int list, const struct buddy_link *b)
{
	struct buddy_link *const *head = &h->lists[list];

	if (b->next && (!link_readable(h, b->next) || b->next->at != &b->next))
		return false;
	if (b->at == head)
		return *head == b;
	/* The link is the first word of the one before. */
	return link_readable(h, (const struct buddy_link *)b->at) && *b->at == b;
}

/* Does every child that is split lie in the piece, so that there is a node for it? */
static bool split_inside(const struct buddy_piece *piece, unsigned int level, uintptr_t base,
			 const struct marks *m)
{
	for (uint64_t split = m->start & ~m->used; split; split &= split - 1) {
		uintptr_t addr = child_addr(level, base, mm_ctz(split));

		if (addr >= piece->end || addr + (child_bytes(level) - 1) < piece->first)
			return false;
	}
	return true;
}

static bool is_pending(const struct byte_buddy *h, uintptr_t addr)
{
	return same_granule(h->pending[node_number(0, addr) % BUDDY_PENDING], addr);
}

/* Does a chunk know its granules? */
static const void *chunk_check(const struct byte_buddy *h, const struct buddy_piece *piece,
			       uintptr_t addr)
{
	const struct chunk *chunk = chunk_of(piece, addr);
	uint64_t split = chunk->marks.start & ~chunk->marks.used;
	uint64_t seen = 0;

	if (!*written_at(piece->written, addr) ||
	    !split_inside(piece, 1, node_base(piece, 1, addr), &chunk->marks))
		return chunk;
	if (chunk->class != class_due(&chunk->marks))
		return chunk;
	for (unsigned int i = 0; i < NODE_CHILDREN; i++) {
		const struct marks *g = granule_of(piece, addr + i * node_bytes(0));

		if (!(split >> i & 1))
			continue;
		if (is_pending(h, addr + i * node_bytes(0)))
			continue;
		if (free_children(g) == UINT64_MAX || chunk->granule_class[i] != class_due(g))
			return g;
	}
	for (unsigned int c = 0; c < BUDDY_CLASSES; c++) {
		uint64_t set = chunk->some >> c & 1 ? chunk->granules[c] : 0;

		if ((chunk->some >> c & 1) != (set != 0) || set & (seen | ~split))
			return &chunk->granules[c];
		for (seen |= set; set; set &= set - 1)
			if (chunk->granule_class[mm_ctz(set)] != c)
				return &chunk->granules[c];
	}
	for (; split; split &= split - 1)
		if (chunk->granule_class[mm_ctz(split)] != NO_CLASS && !(seen & split & -split))
			return chunk;
	return NULL;
}

/* Should this list of a bank have that chunk? */
static bool chunk_due(const struct chunk *chunk, unsigned int list)
{
	if (list < BUDDY_CLASSES)
		return chunk->some >> list & 1;
	return chunk->class == list - BUDDY_CLASSES;
}

/* Does a bank know its chunks? Adds its entries in lists to *linked. */
static const void *bank_check(const struct byte_buddy *h, const struct buddy_piece *piece,
			      const struct bank *bank, size_t *linked)
{
	uint64_t split = bank->node.marks.start & ~bank->node.marks.used;

	for (uint64_t left = split; left; left &= left - 1) {
		const void *broken =
			chunk_check(h, piece, child_addr(BANK, bank->node.base, mm_ctz(left)));

		if (broken)
			return broken;
	}
	for (unsigned int list = 0; list < BANK_LISTS; list++) {
		uint64_t set = bank->some >> list & 1 ? bank->chunks[list] : 0;
		uint64_t due = 0;

		for (uint64_t left = split; left; left &= left - 1) {
			uintptr_t addr = child_addr(BANK, bank->node.base, mm_ctz(left));

			if (chunk_due(chunk_of(piece, addr), list))
				due |= left & -left;
		}
		if (set != due || (bank->some >> list & 1) != (set != 0))
			return &bank->chunks[list];
		if (set && !link_sound(h, list, &bank->links[list]))
			return &bank->links[list];
		*linked += set != 0;
	}
	return NULL;
}

static const void *node_check(const struct byte_buddy *h, const struct buddy_piece *piece,
			      unsigned int level, uintptr_t addr, size_t *linked)
{
	const struct node *node = node_of(piece, level, addr);
	uint64_t split = node->marks.start & ~node->marks.used;
	const void *broken = NULL;

	if (node->class != class_due(&node->marks) || node->piece != piece ||
	    node->base != node_base(piece, level, addr) ||
	    !split_inside(piece, level, node->base, &node->marks))
		return node;
	if (node->class != NO_CLASS &&
	    !link_sound(h, level * BUDDY_CLASSES + node->class, &node->link))
		return &node->link;
	*linked += node->class != NO_CLASS;
	if (level == BANK)
		return bank_check(h, piece, (const struct bank *)node, linked);
	for (; split && !broken; split &= split - 1)
		broken = node_check(h, piece, level - 1,
				    child_addr(level, node->base, mm_ctz(split)), linked);
	return broken;
}

/* The first block of a piece that is broken. Counts parked runs. */
static const void *blocks_check(const struct byte_buddy *h, const struct buddy_piece *piece,
				size_t *nparked)
{
	uintptr_t addr = piece->first;
	size_t live = 0;

	while (addr < piece->end) {
		struct block b = byte_buddy_block_at(piece, addr);
		size_t nbytes = b.units << UNIT_SHIFT;

		if (!b.units || nbytes > piece->end - addr)
			return (const void *)addr;
		if (b.state != BLOCK_FREE)
			live += b.units;
		if (b.state == BLOCK_LIVE && is_parked(h, addr, b.units))
			b.state = BLOCK_PARKED;
		if (MM_HARDEN >= 2 && b.state != BLOCK_LIVE && !poison_intact(addr, nbytes))
			return (const void *)addr;
		*nparked += b.state == BLOCK_PARKED;
		addr += nbytes;
	}
	return live == piece->live_units ? NULL : piece;
}

/* Is everything that was parked where the marks say so? Takes it off the count. */
static const void *parked_check(const struct byte_buddy *h, size_t *nparked)
{
	for (size_t units = 1; units < BUDDY_PARKED_UNITS; units++) {
		for (const uintptr_t *run = parked_top(h, units); *run; run++) {
			uintptr_t addr = *run;
			const struct buddy_piece *piece = byte_buddy_piece_search(h, addr);
			struct block b = {BLOCK_FREE, 0};

			if (piece)
				b = byte_buddy_block_at(piece, addr);
			if (b.state != (is_marked(units) ? BLOCK_PARKED : BLOCK_LIVE) ||
			    b.units != units)
				return run;
			--*nparked;
		}
	}
	return *nparked ? h->stack : NULL;
}

/* Is every granule that waits to be settled still a split child of its chunk? */
static const void *pending_check(const struct byte_buddy *h)
{
	for (unsigned int i = 0; i < BUDDY_PENDING; i++) {
		uintptr_t addr = h->pending[i];
		const struct buddy_piece *piece = byte_buddy_piece_search(h, addr);
		unsigned int level;

		if (!addr)
			continue;
		if (!piece || node_number(0, addr) % BUDDY_PENDING != i)
			return &h->pending[i];
		for (level = piece->top; level; level--)
			if (!is_split(marks_of(piece, level, addr), child_index(level, addr)))
				return &h->pending[i];
	}
	return NULL;
}

/* Are as many nodes in the lists as should be? */
static const void *lists_check(const struct byte_buddy *h, size_t linked)
{
	size_t n = 0;

	for (unsigned int list = 0; list < BUDDY_LISTS; list++) {
		const struct buddy_link *b = h->lists[list];

		if ((b != NULL) != (h->some[list / 64] >> list % 64 & 1))
			return &h->lists[list];
		for (; b && n <= linked; b = b->next, n++)
			if (!link_readable(h, b))
				return &h->lists[list];
	}
	return n == linked ? NULL : h->lists;
}

const void *byte_buddy_check(const struct byte_alloc *a)
{
	const struct byte_buddy *h = const_buddy_of(a);
	size_t nparked = 0, linked = 0, empty = 0;
	const void *broken = NULL;

	for (const struct buddy_piece *p = byte_buddy_piece_from(h, 0); p && !broken;
	     p = piece_next(h, p)) {
		broken = node_check(h, p, p->top, p->first, &linked);
		if (!broken)
			broken = blocks_check(h, p, &nparked);
		empty += !p->live_units;
	}
	if (!broken && empty != h->empty_pieces)
		broken = &h->empty_pieces;
	if (!broken)
		broken = parked_check(h, &nparked);
	if (!broken)
		broken = pending_check(h);
	return broken ? broken : lists_check(h, linked);
}
