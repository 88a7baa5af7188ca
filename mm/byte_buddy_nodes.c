/* SPDX-License-Identifier: MIT */
/* The buddy engine: the tree of its pieces, and what can be read from their nodes. */
#include "byte_buddy_nodes.h"

#define TIGHT_NODES 64u

/* --- Pieces: a tree by address ----------------------------------------------- */

/*
 * A tree by address, kept in shape by a second order: a parent has a higher priority than its
 * children, and priorities are as good as random (a treap).
 */
static inline uint64_t priority(const struct buddy_piece *piece)
{
	return (uint64_t)(uintptr_t)piece * 0x9e3779b97f4a7c15u;
}

void byte_buddy_tree_insert(struct buddy_piece **at, struct buddy_piece *piece)
{
	struct buddy_piece **left = &piece->left, **right = &piece->right;
	struct buddy_piece *p;

	while (*at && priority(*at) > priority(piece))
		at = piece < *at ? &(*at)->left : &(*at)->right;
	p = *at;
	*at = piece;
	while (p) {
		if (p < piece) {
			*left = p;
			left = &p->right;
			p = p->right;
		} else {
			*right = p;
			right = &p->left;
			p = p->left;
		}
	}
	*left = *right = NULL;
}

void byte_buddy_tree_remove(struct buddy_piece **at, struct buddy_piece *piece)
{
	struct buddy_piece *left = piece->left, *right = piece->right;

	while (*at != piece)
		at = piece < *at ? &(*at)->left : &(*at)->right;
	while (left && right) {
		if (priority(left) > priority(right)) {
			*at = left;
			at = &left->right;
			left = left->right;
		} else {
			*at = right;
			at = &right->left;
			right = right->left;
		}
	}
	*at = left ? left : right;
}

struct buddy_piece *byte_buddy_piece_from(const struct byte_buddy *h, uintptr_t addr)
{
	struct buddy_piece *piece = h->pieces, *found = NULL;

	while (piece) {
		bool behind = (uintptr_t)piece->start + piece->nbytes > addr;

		if (behind)
			found = piece;
		piece = behind ? piece->left : piece->right;
	}
	return found;
}

struct buddy_piece *byte_buddy_piece_search(const struct byte_buddy *h, uintptr_t addr)
{
	struct buddy_piece *piece = byte_buddy_piece_from(h, addr);

	return piece && piece_has(piece, addr) ? piece : NULL;
}

/* --- What is at an address -------------------------------------------------- */

size_t byte_buddy_live_units(const struct buddy_piece *piece, unsigned int level, uintptr_t addr)
{
	const struct marks *m = marks_of(piece, level, addr);
	unsigned int i = child_index(level, addr);
	unsigned int n = 1;
	size_t units = 0;

	if (i + 1 < NODE_CHILDREN)
		n += continuation(m, i + 1);
	i += n;
	for (;;) {
		units += (size_t)n << level_shift(level);
		addr = mm_align_down(addr, child_bytes(level)) + n * child_bytes(level);
		if (!level || i == NODE_CHILDREN || !is_split(m, i))
			return units;
		m = marks_of(piece, --level, addr);
		i = n = continuation(m, 0);
	}
}

static size_t free_units(const struct marks *m, unsigned int level, unsigned int i)
{
	uint64_t other = (m->start | m->used) >> i;

	return (size_t)(other ? mm_ctz(other) : NODE_CHILDREN - i) << level_shift(level);
}

struct block byte_buddy_block_at(const struct buddy_piece *piece, uintptr_t addr)
{
	unsigned int level = piece->top;
	const struct marks *m = marks_of(piece, level, addr);
	unsigned int i = child_index(level, addr);

	while (level && is_split(m, i)) {
		m = marks_of(piece, --level, addr);
		i = child_index(level, addr);
	}
	if (is_split(m, i))
		return (struct block){BLOCK_PARKED, byte_buddy_live_units(piece, level, addr)};
	if (starts_live(m, i) && !(addr & (child_bytes(level) - 1)))
		return (struct block){BLOCK_LIVE, byte_buddy_live_units(piece, level, addr)};
	if (free_children(m) >> i & 1)
		return (struct block){BLOCK_FREE, free_units(m, level, i)};
	return (struct block){BLOCK_INSIDE, 0};
}

bool byte_buddy_inside_parked(const struct buddy_piece *piece, uintptr_t addr)
{
	unsigned int bit = child_index(0, addr);
	const struct marks *g = granule_of(piece, addr);
	uint64_t before;

	if (!*written_at(piece->written, addr))
		return false;
	before = g->start & (UINT64_MAX >> (63 - bit));
	return before && is_split(g, mm_fls(before));
}

/* --- Places that are free in part ------------------------------------------ */

/* Are the first units of a split child free? `level`: that of its node. */
static bool front_is_free(const struct buddy_piece *piece, unsigned int level, uintptr_t addr,
			  size_t units)
{
	for (;; level--) {
		const struct marks *m = marks_of(piece, level, addr);
		unsigned int n = whole_children(level, units);

		if (~free_children(m) & low_bits(n))
			return false;
		if (!has_tail(level, units) || free_children(m) >> n & 1)
			return true;
		if (!is_split(m, n))
			return false;
		addr += n * child_bytes(level);
		units -= (size_t)n << level_shift(level);
	}
}

bool byte_buddy_block_fits(const struct buddy_piece *piece, uintptr_t addr, size_t units)
{
	unsigned int level = level_for(units);
	const struct marks *m = marks_of(piece, level, addr);
	unsigned int i = child_index(level, addr);
	unsigned int n = whole_children(level, units);
	uint64_t need = low_bits(n) << i;

	if (i + n + has_tail(level, units) > NODE_CHILDREN || (free_children(m) & need) != need)
		return false;
	if (!has_tail(level, units) || free_children(m) >> (i + n) & 1)
		return true;
	return is_split(m, i + n) && front_is_free(piece, level - 1, addr + n * child_bytes(level),
						   units - ((size_t)n << level_shift(level)));
}

/* Where so many free children start, aligned or not. */
static uint64_t runs_of(uint64_t free, unsigned int n)
{
	unsigned int step;

	for (unsigned int length = 1; length < n; length += step) {
		step = n - length < length ? n - length : length;
		free &= free >> step;
	}
	return free;
}

/* Look for any place in the node that a spot names. */
static bool tight_in_node(struct spot *s, size_t units, size_t align)
{
	const struct marks *m = marks_of(s->piece, s->level, s->addr);
	uintptr_t base = node_base(s->piece, s->level, s->addr);
	uint64_t left = runs_of(free_children(m), whole_children(s->level, units));

	for (; left; left &= left - 1) {
		s->addr = child_addr(s->level, base, mm_ctz(left));
		if (!(s->addr & (align - 1)) && byte_buddy_block_fits(s->piece, s->addr, units))
			return true;
	}
	return false;
}

/* The nodes that are in a list through this link; looks at *budget of them at most. */
static bool tight_in_link(struct spot *s, unsigned int list, const struct buddy_link *b,
			  size_t units, size_t align, unsigned int *budget)
{
	const struct bank *bank;

	if (s->level >= BANK) {
		--*budget;
		s->piece = node_in_list(b)->piece;
		s->addr = node_in_list(b)->base;
		return tight_in_node(s, units, align);
	}
	bank = bank_in_list(list, b);
	s->piece = bank->node.piece;
	for (uint64_t left = bank->chunks[list]; left && *budget; left &= left - 1, --*budget) {
		s->addr = child_addr(BANK, bank->node.base, mm_ctz(left));
		if (tight_in_node(s, units, align))
			return true;
	}
	return false;
}

bool byte_buddy_find_tight(const struct byte_buddy *h, size_t units, size_t align, struct spot *s)
{
	unsigned int level = level_for(units);
	unsigned int n = whole_children(level, units);
	unsigned int list = level * BUDDY_CLASSES + (n > 1 ? 4 * (mm_fls(n) - 1) : 0);
	unsigned int budget = TIGHT_NODES;

	if (!level || level >= BUDDY_LEVELS || mm_is_pow2(units))
		return false;
	s->level = level;
	for (; list < (level + 1) * BUDDY_CLASSES; list++)
		for (const struct buddy_link *b = h->lists[list]; b && budget; b = b->next)
			if (tight_in_link(s, list, b, units, align, &budget))
				return true;
	return false;
}
