/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Memory is counted in units of 16 bytes. A block of order o is 2^o units and lies
 * at a multiple of its size, so its buddy is found by flipping one bit of its
 * address. What is special here is that six orders at a time are one step: memory is a tree
 * of nodes with 64 children each, and what is known of the children is two
 * words, one bit of each for every child (struct marks). To free a block is to clear its
 * bits: it has merged with its buddies of six orders at once, for whether an aligned
 * group of 2^k children is free is seen in the word. Only when a whole node has become free is
 * there a next step: its bit in the parent. To split six orders is to write a node.
 *
 *   level  node      children          what there is besides the marks
 *     0    granule   64 units          nothing: 16 bytes for each KiB, 1.6 %
 *     1    chunk     64 granules       sets of its granules by class
 *     2    bank      64 chunks         sets of its chunks by class
 *     3..6           64 of the level below
 *
 * The nodes lie at the start of each piece of memory, out of the reach of writes past an end, and
 * nothing lies in free memory: so no write after free can lead the engine astray, and
 * a node is written when the first of its children is split off, not before, so that adding
 * memory costs a few nodes along its two edges, and a byte for each chunk.
 *
 * Trimming. Rounding 5 units up to 8 would waste a third of memory. A request takes just the
 * children that it needs, 5 bits of a granule: the buddies of 4 units and of 1. Those of a
 * length above 64 units take whole granules (or chunks, ...), and the last part of a granule.
 *
 * Search. The free children of a node have a class: the longest run that starts at
 * a multiple of its greatest power of two, in quarters of an octave. There is a
 * list for every class of every level, and one bit for each list, so the tightest node that fits is
 * found by a bit search, and the place in the node by some shifts (places_of). For
 * granules and chunks it is not they that are in the lists but banks, which know
 * them by sets: that takes the lowest address first, and makes a node small.
 * A node whose marks have changed is put where it belongs now: it is settled.
 *
 * Parking. Most programs free a length that they ask for again soon. So freed runs
 * of up to 4 KiB are parked on a small stack for their length, unmerged; the next request
 * takes the last one. When there is none, and room for several, a request takes
 * up to REFILL runs at once. A granule into which runs are freed is settled only when others need
 * its place among those that wait for it, so that many frees to one granule cost one.
 * It waits only while it is split: when the free of a long block's last part makes it whole it is
 * forgotten at once, for its parent may hand it out.
 * When a search finds nothing, all that waits is merged, and places that are not aligned or
 * are free only in part are looked at, before the request fails: unless its user merges in parts,
 * who then asks for all that when the parts have not helped.
 *
 * Worst case. No step is repeated for orders, blocks or pieces, but for levels, of which a piece
 * of 250 MiB has four: a request settles each node on the way down to it and along its last
 * part, a free on the way up. Pieces are found in a tree by address, those that some bits of the
 * address led to before at once. On recorded traces the usual
 * operation takes 30 instructions and the slowest 640 to 1,100, those of megabytes that end
 * in the middle of a granule. A request that would fail costs in addition the release of
 * what is parked, 15 runs of each length at most, unless the user has that done in parts
 * (settle), and a look at TIGHT_NODES nodes.
 *
 * Memory. On the recorded traces a region of 1.25 times the peak suffices, and as much
 * on synthetic ones, for the exact length is taken, the tightest node first, and of nodes that fit
 * alike the lowest.
 *
 * Hardening: 0 trusts the caller. 1 checks state, start and length of every block that is
 * freed, in the marks; a byte for each chunk tells whether they were ever written. 2 adds a
 * word at the end of each allocation that holds the size asked for, and poison in free
 * memory, which is verified before reuse. 3 keeps freed blocks back in a quarantine, and
 * verifies everything every few operations.
 *
 * Shortcomings: only a length that is a power of two is aligned to its length. A run does not
 * cross nodes, and lengths just above a granule or a chunk break the next one, so that a heap full
 * of such blocks needs up to a half more than they hold. Blocks above 4 KiB are never
 * parked: they settle two to four nodes each time, some 200 to 400 instructions. A
 * piece loses 2 KiB for nodes, which is much of a small one, and the stacks are 32 KiB of
 * static memory. Adding a piece writes a byte for each 64 KiB of it. check() reads nodes that were
 * overwritten with care, but trusts the header of a piece.
 */
#include <mm/byte_buddy.h>

#include "byte_buddy_nodes.h"

#define NO_LIST	     BUDDY_LISTS
#define SLACK	     0xca
#define AUDIT_PERIOD 64u
#define REFILL	     8u
#define SEEN_BYTES   ((size_t)1 << 20) /* neighbours whose piece is looked up in the same place */
#define SETTLE_RUNS  8u

static __attribute__((noinline)) void report(enum mm_fault_kind kind, const void *p)
{
	mm_fault_report(&(struct mm_fault){.kind = kind, .allocator = "buddy", .ptr = p});
}

/* --- Pieces of memory ------------------------------------------------------- */

/* Make it the recent piece. */
static void piece_recall(struct byte_buddy *h, struct buddy_piece *piece)
{
	h->recent = piece;
	h->first = piece->first;
	h->span = piece->end - piece->first;
	h->granules = piece->granules;
	h->written = piece->written;
}

static inline bool in_recent(const struct byte_buddy *h, uintptr_t addr)
{
	return likely(addr - h->first < h->span);
}

/* Where it stands in which piece addresses with the same bits were when last searched for. */
static inline struct buddy_piece **seen_at(const struct byte_buddy *h, uintptr_t addr)
{
	return (struct buddy_piece **)((uintptr_t)h->seen +
				       mm_place(addr, SEEN_BYTES, sizeof(h->seen)));
}

static __attribute__((noinline)) bool piece_switch(struct byte_buddy *h, uintptr_t addr)
{
	struct buddy_piece **seen = seen_at(h, addr);
	struct buddy_piece *piece = *seen;

	if (!piece || !piece_has(piece, addr)) {
		piece = byte_buddy_piece_search(h, addr);
		if (!piece)
			return false;
		*seen = piece;
	}
	piece_recall(h, piece);
	return true;
}

static void piece_forget(struct byte_buddy *h, const struct buddy_piece *piece)
{
	if (h->recent == piece) {
		h->first = h->span = 0;
		h->recent = NULL;
	}
	for (unsigned int i = 0; i < BUDDY_SEEN; i++)
		if (h->seen[i] == piece)
			h->seen[i] = NULL;
}

/* Pre: it is in one. */
static inline struct buddy_piece *piece_of(struct byte_buddy *h, uintptr_t addr)
{
	return in_recent(h, addr) ? h->recent : byte_buddy_piece_search(h, addr);
}

/* Make the piece that an address is in the recent one; false when there is none. */
static inline bool piece_select(struct byte_buddy *h, uintptr_t addr)
{
	return in_recent(h, addr) || piece_switch(h, addr);
}

/* Where the marks and notes are of the piece that an address is in. */
struct near {
	uintptr_t granules, written;
};

/* Is it in the recent piece; or, if that will do, in the one where such an address was last? */
static inline bool is_near(const struct byte_buddy *h, uintptr_t addr, bool any, struct near *n)
{
	const struct buddy_piece *piece;

	if (in_recent(h, addr)) {
		n->granules = h->granules;
		n->written = h->written;
		return true;
	}
	piece = any ? *seen_at(h, addr) : NULL;
	if (!piece || !piece_has(piece, addr))
		return false;
	n->granules = piece->granules;
	n->written = piece->written;
	return true;
}

/* --- Lists of nodes --------------------------------------------------------- */

static void list_push(struct byte_buddy *h, unsigned int list, struct buddy_link *b)
{
	struct buddy_link *next = h->lists[list];

	b->next = next;
	b->at = &h->lists[list];
	if (next)
		next->at = &b->next;
	h->lists[list] = b;
	h->some[list / 64] |= bit_at(list % 64);
}

static void list_remove(struct byte_buddy *h, unsigned int list, struct buddy_link *b)
{
	struct buddy_link *next = b->next;

	if (MM_HARDEN && unlikely(*b->at != b || (next && next->at != &b->next))) {
		report(MM_FAULT_CORRUPT, b);
		return;
	}
	*b->at = next;
	if (next)
		next->at = b->at;
	if (!h->lists[list])
		h->some[list / 64] &= ~bit_at(list % 64);
}

static void bank_add(struct byte_buddy *h, struct bank *bank, unsigned int list, unsigned int i)
{
	if (bank->some & bit_at(list)) {
		bank->chunks[list] |= bit_at(i);
		return;
	}
	bank->some |= bit_at(list);
	bank->chunks[list] = bit_at(i);
	list_push(h, list, &bank->links[list]);
}

static void bank_drop(struct byte_buddy *h, struct bank *bank, unsigned int list, unsigned int i)
{
	bank->chunks[list] &= ~bit_at(i);
	if (bank->chunks[list])
		return;
	bank->some &= ~bit_at(list);
	list_remove(h, list, &bank->links[list]);
}

static inline void granule_add(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
			       struct chunk *chunk, unsigned int class)
{
	uint64_t bit = bit_at(child_index(1, addr));

	if (chunk->some & 1u << class) {
		chunk->granules[class] |= bit;
		return;
	}
	chunk->some |= 1u << class;
	chunk->granules[class] = bit;
	bank_add(h, bank_of(piece, addr), class, child_index(BANK, addr));
}

static inline void granule_drop(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
				struct chunk *chunk, unsigned int class)
{
	chunk->granules[class] &= ~bit_at(child_index(1, addr));
	if (chunk->granules[class])
		return;
	chunk->some &= ~(1u << class);
	bank_drop(h, bank_of(piece, addr), class, child_index(BANK, addr));
}

static inline void granule_reclass(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
				   unsigned int class)
{
	struct chunk *chunk = chunk_of(piece, addr);
	uint8_t *at = &chunk->granule_class[child_index(1, addr)];
	unsigned int old = *at;

	if (old == class)
		return;
	*at = (uint8_t) class;
	if (old != NO_CLASS)
		granule_drop(h, piece, addr, chunk, old);
	if (class != NO_CLASS)
		granule_add(h, piece, addr, chunk, class);
}

static void chunk_reclass(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
			  unsigned int class)
{
	struct chunk *chunk = chunk_of(piece, addr);
	unsigned int old = chunk->class;
	unsigned int i = child_index(BANK, addr);

	if (old == class)
		return;
	chunk->class = (uint8_t) class;
	if (old != NO_CLASS)
		bank_drop(h, bank_of(piece, addr), BUDDY_CLASSES + old, i);
	if (class != NO_CLASS)
		bank_add(h, bank_of(piece, addr), BUDDY_CLASSES + class, i);
}

static void node_reclass(struct byte_buddy *h, struct node *node, unsigned int level,
			 unsigned int class)
{
	unsigned int list = level * BUDDY_CLASSES;
	unsigned int old = node->class;

	if (old == class)
		return;
	node->class = (uint8_t) class;
	if (old != NO_CLASS)
		list_remove(h, list + old, &node->link);
	if (class != NO_CLASS)
		list_push(h, list + class, &node->link);
}

static inline void settle_granule(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr)
{
	granule_reclass(h, piece, addr, class_due(granule_of(piece, addr)));
}

static inline void settle_chunk(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr)
{
	chunk_reclass(h, piece, addr, class_due(&chunk_of(piece, addr)->marks));
}

/* The marks of a node have changed: put it where it is found now. */
static void settle(struct byte_buddy *h, struct buddy_piece *piece, unsigned int level,
		   uintptr_t addr)
{
	struct node *node;

	if (level == 0) {
		settle_granule(h, piece, addr);
	} else if (level == 1) {
		settle_chunk(h, piece, addr);
	} else {
		node = node_of(piece, level, addr);
		node_reclass(h, node, level, class_due(&node->marks));
	}
}

/* Is all of a node free? Then it is needed no more, and its parent must be told. */
static inline bool is_whole(const struct marks *m)
{
	return !(m->start | m->used);
}

/* Clear the marks of all granules of a chunk, as far as the piece has them. */
static void clear_granules(struct buddy_piece *piece, uintptr_t addr)
{
	uintptr_t lo = mm_align_down(addr, node_bytes(1));
	uintptr_t last = lo + (node_bytes(1) - 1);

	if (lo < (uintptr_t)piece)
		lo = (uintptr_t)piece;
	if (last >= piece->end)
		last = piece->end - 1;
	__builtin_memset(granule_of(piece, lo), 0,
			 (node_number(0, last) - node_number(0, lo) + 1) * sizeof(struct marks));
}

/* The first time the granules' marks are cleared too. Those of a whole granule stay so. */
static void chunk_open(struct buddy_piece *piece, uintptr_t addr)
{
	struct chunk *chunk = chunk_of(piece, addr);
	uint8_t *written = written_at(piece->written, addr);

	chunk->some = 0;
	chunk->class = NO_CLASS;
	chunk->marks = (struct marks){0, 0};
	if (*written)
		return;
	*written = 1;
	clear_granules(piece, addr);
}

/* A child was split: its node, with everything free and in no list. */
static void node_open(struct buddy_piece *piece, unsigned int level, uintptr_t addr)
{
	struct node *node;

	if (level == 0) {
		chunk_of(piece, addr)->granule_class[child_index(1, addr)] = NO_CLASS;
		return;
	}
	if (level == 1) {
		chunk_open(piece, addr);
		return;
	}
	node = node_of(piece, level, addr);
	node->marks = (struct marks){0, 0};
	node->piece = piece;
	node->base = node_base(piece, level, addr);
	node->class = NO_CLASS;
	if (level == BANK)
		((struct bank *)node)->some = 0;
}

/* --- Free memory ------------------------------------------------------------ */

static inline unsigned int first_list(const struct byte_buddy *h, unsigned int least)
{
	unsigned int w = least / 64;
	uint64_t some;

	if (least >= BUDDY_LISTS)
		return NO_LIST;
	some = h->some[w] >> least % 64 << least % 64;
	while (!some) {
		if (++w == sizeof(h->some) / sizeof(h->some[0]))
			return NO_LIST;
		some = h->some[w];
	}
	return w * 64 + mm_ctz(some);
}

/* A node that is in this list, and where its children lie. */
static inline const struct marks *list_node(const struct byte_buddy *h, unsigned int list,
					    struct spot *s)
{
	struct bank *bank;
	struct node *node;

	s->level = list / BUDDY_CLASSES;
	if (list >= BANK_LISTS) {
		node = node_in_list(h->lists[list]);
		s->piece = node->piece;
		s->addr = node->base;
		return &node->marks;
	}
	bank = bank_in_list(list, h->lists[list]);
	s->piece = bank->node.piece;
	s->addr = child_addr(BANK, bank->node.base, mm_ctz(bank->chunks[list]));
	if (s->level == 0)
		s->addr += mm_ctz(chunk_of(s->piece, s->addr)->granules[list]) * node_bytes(0);
	return marks_of(s->piece, s->level, s->addr);
}

/* A list leads to nothing: metadata were overwritten. What is in it is lost, the rest goes on. */
static __attribute__((noinline)) void list_abandon(struct byte_buddy *h, unsigned int list)
{
	report(MM_FAULT_CORRUPT, h->lists[list]);
	h->lists[list] = NULL;
	h->some[list / 64] &= ~bit_at(list % 64);
}

/* Free children for a request of this list, the best fit; false when there are none. */
static inline bool find_spot(struct byte_buddy *h, unsigned int least, struct spot *s)
{
	unsigned int list;

	while ((list = first_list(h, least)) != NO_LIST) {
		const struct marks *m = list_node(h, list, s);
		uint64_t places = free_children(m);

		/* One child to be split is the lowest of all. */
		if (s->level == least / BUDDY_CLASSES)
			places = places_of(places, list % BUDDY_CLASSES);
		if (MM_HARDEN && unlikely(!places)) {
			list_abandon(h, list);
			continue;
		}
		s->addr = lowest_child(s->level, s->addr, places);
		s->length = class_length(list % BUDDY_CLASSES);
		return true;
	}
	return false;
}

static inline void account_live(struct byte_buddy *h, struct buddy_piece *piece, size_t units)
{
	if (!piece->live_units)
		h->empty_pieces--;
	piece->live_units += units;
}

static inline void account_free(struct byte_buddy *h, struct buddy_piece *piece, size_t units)
{
	piece->live_units -= units;
	if (!piece->live_units)
		h->empty_pieces++;
}

/* The last part of a block, from `level` down. `open`: the node of that level is in use. */
static __attribute__((noinline)) void occupy_tail(struct byte_buddy *h, struct buddy_piece *piece,
						  uintptr_t end, unsigned int level, bool open)
{
	for (; end & (node_bytes(level) - 1); level--) {
		struct marks *m = marks_of(piece, level, end);
		unsigned int i = child_index(level, end);

		if (!open)
			node_open(piece, level, end);
		open = is_split(m, i);
		m->used |= low_bits(i);
		if (end & (child_bytes(level) - 1))
			m->start |= bit_at(i);
		settle(h, piece, level, end);
		if (!level)
			return;
	}
}

/* Split free children from level `from` down to `to`, around the address. */
static __attribute__((noinline)) void split(struct byte_buddy *h, struct buddy_piece *piece,
					    uintptr_t addr, unsigned int from, unsigned int to)
{
	for (; from > to; from--) {
		marks_of(piece, from, addr)->start |= bit_at(child_index(from, addr));
		settle(h, piece, from, addr);
		node_open(piece, from - 1, addr);
	}
}

/* Make a live block at an address that free children of a node of level `found` cover. */
static inline void occupy(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
			  size_t units, unsigned int found)
{
	unsigned int level = level_for(units);
	unsigned int i = child_index(level, addr);
	unsigned int n = whole_children(level, units);
	struct marks *m = marks_of(piece, level, addr);

	bool open;

	account_live(h, piece, units);
	if (found > level)
		split(h, piece, addr, found, level);
	m->start |= bit_at(i);
	m->used |= low_bits(n) << i;
	if (!has_tail(level, units)) {
		settle(h, piece, level, addr);
		return;
	}
	open = is_split(m, i + n);
	m->start |= bit_at(i + n);
	settle(h, piece, level, addr);
	occupy_tail(h, piece, addr + (units << UNIT_SHIFT), level - 1, open);
}

/* Where a granule that is to be settled later is noted. */
static inline uintptr_t *pending_slot(struct byte_buddy *h, uintptr_t addr)
{
	return &h->pending[node_number(0, addr) % BUDDY_PENDING];
}

/*
 * A granule became wholly free, so that its parent has its place again: a note that outlived
 * this would clear the mark of whatever starts there by the time it is settled.
 */
static inline void pending_forget(struct byte_buddy *h, uintptr_t addr)
{
	uintptr_t *slot = pending_slot(h, addr);

	if (same_granule(*slot, addr))
		*slot = 0;
}

/* Free the last part of a block. True when the child that it lies in is wholly free now. */
static __attribute__((noinline)) bool release_tail(struct byte_buddy *h, struct buddy_piece *piece,
						   uintptr_t end, unsigned int below)
{
	bool whole = false;

	for (unsigned int level = 0; level < below; level++) {
		struct marks *m = marks_of(piece, level, end);
		unsigned int i = child_index(level, end);

		if (!(end & (node_bytes(level) - 1)))
			continue;
		m->used &= ~low_bits(i);
		if (whole)
			m->start &= ~bit_at(i);
		settle(h, piece, level, end);
		whole = is_whole(m);
		if (whole && !level)
			pending_forget(h, end);
	}
	return whole;
}

/* A node of this level became wholly free: so did the child of its parent. */
static __attribute__((noinline)) void merge_up(struct byte_buddy *h, struct buddy_piece *piece,
					       uintptr_t addr, unsigned int level)
{
	struct marks *m;

	if (!level)
		pending_forget(h, addr);
	do {
		m = marks_of(piece, ++level, addr);
		m->start &= ~bit_at(child_index(level, addr));
		settle(h, piece, level, addr);
	} while (is_whole(m));
}

/* Free a live or parked block. */
static void release(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr, size_t units)
{
	unsigned int level = level_for(units);
	unsigned int i = child_index(level, addr);
	unsigned int n = whole_children(level, units);
	struct marks *m = marks_of(piece, level, addr);

	account_free(h, piece, units);
	m->start &= ~bit_at(i);
	m->used &= ~(low_bits(n) << i);
	if (has_tail(level, units) && release_tail(h, piece, addr + (units << UNIT_SHIFT), level))
		m->start &= ~bit_at(i + n);
	settle(h, piece, level, addr);
	if (is_whole(m))
		merge_up(h, piece, addr, level);
}

/* --- Granules to settle later ----------------------------------------------- */

static __attribute__((noinline)) void settle_pending(struct byte_buddy *h, uintptr_t addr)
{
	struct buddy_piece *piece = piece_of(h, addr);

	settle_granule(h, piece, addr);
	if (unlikely(is_whole(granule_of(piece, addr))))
		merge_up(h, piece, addr, 0);
}

static void settle_all(struct byte_buddy *h)
{
	for (unsigned int i = 0; i < BUDDY_PENDING; i++) {
		uintptr_t addr = h->pending[i];

		h->pending[i] = 0;
		if (addr)
			settle_pending(h, addr);
	}
}

/* Free a run of less than a granule, in the recent piece. The granule is settled when others need
 * its slot. */
static __attribute__((noinline)) void release_small(struct byte_buddy *h, uintptr_t addr,
						    size_t units)
{
	struct marks *g = granule_in(h->granules, addr);
	unsigned int i = child_index(0, addr);
	uintptr_t *slot = pending_slot(h, addr);
	uintptr_t other = *slot;

	uint64_t others = ~(low_bits((unsigned int)units) << i);

	account_free(h, h->recent, units);
	g->start &= others;
	g->used &= others;
	if (same_granule(addr, other))
		return;
	*slot = addr;
	if (other)
		settle_pending(h, other);
}

/* --- Canaries and poison (level 2) ------------------------------------------ */

static inline uint64_t tail_key(uintptr_t addr)
{
	return (uint64_t)addr * 0x9e3779b97f4a7c15u;
}

static inline uint64_t *tail_word(uintptr_t addr, size_t units)
{
	return (uint64_t *)(addr + (units << UNIT_SHIFT) - sizeof(uint64_t));
}

static inline void canary_set(uintptr_t addr, size_t units, size_t size)
{
	if (MM_HARDEN < 2)
		return;
	__builtin_memset((void *)(addr + size), SLACK, (units << UNIT_SHIFT) - TAIL_BYTES - size);
	*tail_word(addr, units) = tail_key(addr) ^ size;
}

/* What the end of a live block says about the claim that it has `size` bytes. */
static enum mm_fault_kind canary_check(uintptr_t addr, size_t units, size_t size)
{
	size_t real = (size_t)(*tail_word(addr, units) ^ tail_key(addr));
	const uint8_t *end = (const uint8_t *)tail_word(addr, units);

	if (real > units << UNIT_SHIFT || units_for(real) != units)
		return MM_FAULT_OVERFLOW;
	for (const uint8_t *p = (const uint8_t *)addr + real; p < end; p++)
		if (*p != SLACK)
			return MM_FAULT_OVERFLOW;
	return real == size ? MM_FAULT_NONE : MM_FAULT_WRONG_LAYOUT;
}

static inline void poison_set(uintptr_t addr, size_t nbytes)
{
	if (MM_HARDEN >= 2)
		__builtin_memset((void *)addr, (uint8_t)POISON, nbytes);
}

/* Free memory is about to be used. */
static inline void poison_verify(uintptr_t addr, size_t nbytes)
{
	if (MM_HARDEN >= 2 && !poison_intact(addr, nbytes))
		report(MM_FAULT_WRITE_AFTER_FREE, (const void *)addr);
}

/* --- Parked runs ------------------------------------------------------------ */

static inline bool parked_full(const struct byte_buddy *h, size_t units)
{
	return h->top[units] % sizeof(h->stack[0]) == 0;
}

static inline bool can_park(const struct byte_buddy *h, size_t units)
{
	return units - 1 < BUDDY_PARKED_UNITS - 1 && !parked_full(h, units);
}

/* Pre: can_park; `granules` are of its piece. */
static inline void park(struct byte_buddy *h, uintptr_t granules, uintptr_t addr, size_t units)
{
	if (likely(is_marked(units)))
		granule_in(granules, addr)->used &= ~bit_at(child_index(0, addr));
	h->top[units] -= sizeof(addr);
	*parked_top(h, units) = addr;
}

/* Pre: `granules` are of its piece. */
static inline void unpark(struct byte_buddy *h, uintptr_t granules, uintptr_t addr, size_t units)
{
	h->top[units] += sizeof(addr);
	if (likely(is_marked(units)))
		granule_in(granules, addr)->used |= bit_at(child_index(0, addr));
}

static size_t parked_bytes(const struct byte_buddy *h)
{
	size_t units = 0;

	for (unsigned int i = 1; i < BUDDY_PARKED_UNITS; i++)
		for (const uintptr_t *run = parked_top(h, i); *run; run++)
			units += i;
	return units << UNIT_SHIFT;
}

/* --- Quarantine and audit (level 3) ----------------------------------------- */

static void quarantine_evict(struct byte_buddy *h, unsigned int slot)
{
	uintptr_t addr = h->held[slot];
	size_t units;

	if (!addr)
		return;
	piece_select(h, addr);
	units = byte_buddy_block_at(h->recent, addr).units;
	poison_verify(addr, units << UNIT_SHIFT);
	poison_set(addr, units << UNIT_SHIFT);
	h->held[slot] = 0;
	h->held_bytes -= units << UNIT_SHIFT;
	release(h, h->recent, addr, units);
}

static void quarantine_flush(struct byte_buddy *h)
{
	if (MM_HARDEN < 3)
		return;
	for (unsigned int i = 0; i < BUDDY_QUARANTINE; i++)
		quarantine_evict(h, i);
}

static void quarantine_put(struct byte_buddy *h, uintptr_t addr, size_t units)
{
	unsigned int slot = h->held_next;

	quarantine_evict(h, slot);
	h->held[slot] = addr;
	h->held_bytes += units << UNIT_SHIFT;
	h->held_next = (slot + 1) % BUDDY_QUARANTINE;
}

/* --- Everything that waits for something is merged, all of it or a part ------------------- */

/* Some of the parked runs of a length, more than half of them, the oldest first. How many. */
static size_t settle_runs(struct byte_buddy *h, unsigned int units)
{
	uintptr_t *top = parked_top(h, units), *end = top;
	size_t n;

	while (*end)
		end++;
	n = (size_t)(end - top) < SETTLE_RUNS ? (size_t)(end - top) : SETTLE_RUNS;
	for (size_t i = 0; i < n; i++) {
		uintptr_t addr = *--end;

		release(h, piece_of(h, addr), addr, units);
	}
	__builtin_memmove(top + n, top, (size_t)(end - top) * sizeof(*top));
	h->top[units] += n * sizeof(*top);
	return n;
}

/* Two parts are the runs of a length, where there are any; the last one is the granules. */
static unsigned int buddy_settle(struct byte_alloc *a, unsigned int part)
{
	struct byte_buddy *h = buddy_of(a);

	if (!part)
		quarantine_flush(h);
	for (; part < 2 * BUDDY_PARKED_UNITS; part = (part | 1) + 1)
		if (settle_runs(h, part / 2))
			return part + 1;
	settle_all(h);
	return 0;
}

static void merge_all(struct byte_buddy *h)
{
	unsigned int part = 0;

	do
		part = buddy_settle(&h->base, part);
	while (part);
}

static inline void audit(struct byte_buddy *h)
{
	const void *broken;

	if (MM_HARDEN < 3 || ++h->tick % AUDIT_PERIOD)
		return;
	broken = byte_buddy_check(&h->base);
	if (broken)
		report(MM_FAULT_CORRUPT, broken);
}

/* --- Memory in and out ------------------------------------------------------ */

/* Bytes that the nodes of one level need for [lo, hi). */
static size_t level_size(unsigned int level, uintptr_t lo, uintptr_t hi)
{
	static const size_t sizes[] = {sizeof(struct marks), sizeof(struct chunk),
				       sizeof(struct bank), sizeof(struct node)};
	size_t n = node_number(level, hi - 1) - node_number(level, lo) + 1;

	return n * sizes[level < 3 ? level : 3];
}

static inline size_t chunk_count(uintptr_t lo, uintptr_t hi)
{
	return node_number(1, hi - 1) - node_number(1, lo) + 1;
}

/* The level whose node holds it all, with a child to spare between the ends of the circle. */
static unsigned int top_level(uintptr_t lo, uintptr_t hi)
{
	unsigned int level = BANK;

	while (node_number(level - 1, hi - 1) - node_number(level - 1, lo) >= NODE_CHILDREN - 1)
		level++;
	return level;
}

/* Header and nodes go to the start of a piece. Returns where they end. */
static uintptr_t piece_plan(struct buddy_piece *plan, uintptr_t head, uintptr_t end)
{
	uintptr_t at = mm_align_up(head + sizeof(*plan), UNIT);

	plan->end = end;
	plan->top = top_level(head, end);
	plan->base = mm_align_down(head, child_bytes(plan->top));
	plan->root = (struct node *)at;
	at += plan->top == BANK ? sizeof(struct bank) : sizeof(struct node);
	for (unsigned int level = BANK; level < plan->top; level++) {
		plan->nodes[level] = at - node_number(level, head) * node_size(level);
		at += level_size(level, head, end);
	}
	plan->written = at - node_number(1, head);
	at = mm_align_up(at + chunk_count(head, end), UNIT);
	plan->chunks = at - node_number(1, head) * sizeof(struct chunk);
	at += level_size(1, head, end);
	plan->granules = at - node_number(0, head) * sizeof(struct marks);
	at += level_size(0, head, end);
	return mm_align_up(at, UNIT);
}

/* The bits [lo, hi) of a word. Pre: lo <= hi <= 64. */
static inline uint64_t bit_range(unsigned int lo, unsigned int hi)
{
	return lo == hi ? 0 : UINT64_MAX >> (NODE_CHILDREN - (hi - lo)) << lo;
}

/*
 * Write the marks of a node that the piece fills in part: what can be handed out is
 * free, a child that it fills in part is split, and the rest counts as live.
 */
static void node_lay(struct buddy_piece *piece, unsigned int level, uintptr_t addr)
{
	struct marks *m = marks_of(piece, level, addr);
	uintptr_t base = node_base(piece, level, addr);
	uintptr_t child = child_bytes(level);
	uintptr_t lo = 0, hi = node_bytes(level);
	uint64_t whole, touched;

	if (piece->first > base)
		lo = piece->first - base;
	if (piece->end - base < hi)
		hi = piece->end - base;
	touched = bit_range((unsigned int)(lo / child), (unsigned int)((hi + child - 1) / child));
	lo = (lo + child - 1) / child;
	hi = hi / child;
	whole = lo < hi ? bit_range((unsigned int)lo, (unsigned int)hi) : 0;
	m->start = rotate_left(~whole, child_index(level, base));
	m->used = rotate_left(~touched, child_index(level, base));
}

/* Lay the nodes from the root to the unit at addr, but for those that lead to `laid` too. */
static void path_lay(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
		     uintptr_t laid)
{
	for (unsigned int level = piece->top;; level--) {
		bool shared =
			level == piece->top || node_number(level, addr) == node_number(level, laid);

		if (!laid || !shared) {
			node_open(piece, level, addr);
			node_lay(piece, level, addr);
			settle(h, piece, level, addr);
		}
		if (!level || !is_split(marks_of(piece, level, addr), child_index(level, addr)))
			return;
	}
}

/* Lay a piece out; NULL when it is too small, or larger than the tree can be. */
static struct buddy_piece *piece_lay(struct byte_buddy *h, void *start, size_t nbytes)
{
	struct buddy_piece plan = {.start = start, .nbytes = nbytes};
	uintptr_t head = mm_align_up((uintptr_t)start, UNIT);
	uintptr_t end = mm_align_down((uintptr_t)start + nbytes, UNIT);
	struct buddy_piece *piece = (struct buddy_piece *)head;

	if (!byte_alloc_in_reach(start, nbytes) || nbytes < sizeof(plan))
		return NULL;
	if (top_level(head, end) >= BUDDY_LEVELS)
		return NULL;
	plan.first = piece_plan(&plan, head, end);
	if (plan.first >= end)
		return NULL;
	__builtin_memset(written_at(plan.written, head), 0, chunk_count(head, end));
	*piece = plan;
	path_lay(h, piece, piece->first, 0);
	path_lay(h, piece, end - UNIT, piece->first);
	return piece;
}

static enum alloc_result buddy_add_memory(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_buddy *h = buddy_of(a);
	struct buddy_piece *piece = byte_buddy_piece_from(h, (uintptr_t)start);

	if (piece && (uintptr_t)piece->start < (uintptr_t)start + nbytes)
		return ALLOC_MEMORY_OVERLAP;
	piece = piece_lay(h, start, nbytes);
	if (!piece)
		return ALLOC_INVALID_PARAM;
	byte_buddy_tree_insert(&h->pieces, piece);
	h->empty_pieces++;
	poison_set(piece->first, piece->end - piece->first);
	return ALLOC_OK;
}

static enum alloc_result buddy_init(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_alloc base = *a;

	__builtin_memset(a, 0, sizeof(struct byte_buddy));
	*a = base;
	for (unsigned int units = 0; units < BUDDY_PARKED_UNITS; units++)
		buddy_of(a)->top[units] = units * sizeof(buddy_of(a)->stack[0]) +
					  BUDDY_PARKED_DEPTH * sizeof(uintptr_t);
	return buddy_add_memory(a, start, nbytes);
}

/* Take a node and those below it off the lists. */
static void nodes_unlink(struct byte_buddy *h, struct buddy_piece *piece, unsigned int level,
			 uintptr_t addr)
{
	struct node *node = node_of(piece, level, addr);
	uint64_t left = node->marks.start & ~node->marks.used;

	node_reclass(h, node, level, NO_CLASS);
	if (level == BANK)
		left = ((struct bank *)node)->some;
	for (; left; left &= left - 1) {
		unsigned int i = mm_ctz(left);

		if (level == BANK)
			list_remove(h, i, &((struct bank *)node)->links[i]);
		else
			nodes_unlink(h, piece, level - 1, child_addr(level, node->base, i));
	}
}

static bool buddy_take_free(struct byte_alloc *a, void **start, size_t *nbytes)
{
	struct byte_buddy *h = buddy_of(a);
	struct buddy_piece *piece;

	if (h->base.in_parts)
		settle_all(h); /* no granule of what goes may wait for it */
	else
		merge_all(h);
	if (!h->empty_pieces)
		return false;
	piece = byte_buddy_piece_from(h, 0);
	while (piece->live_units)
		piece = piece_next(h, piece);
	nodes_unlink(h, piece, piece->top, piece->first);
	byte_buddy_tree_remove(&h->pieces, piece);
	h->empty_pieces--;
	piece_forget(h, piece);
	*start = piece->start;
	*nbytes = piece->nbytes;
	return true;
}

/*
 * Twice the size of an aligned block holds one at any base. Nodes take less than 1/47 of a piece,
 * besides two of each level.
 */
static size_t buddy_grow_size(const struct byte_alloc *a, size_t size, size_t align)
{
	size_t fixed = sizeof(struct buddy_piece) + 4 * UNIT + 2 * sizeof(struct marks) +
		       2 * sizeof(struct chunk) + 2 * sizeof(struct bank) +
		       2 * BUDDY_LEVELS * sizeof(struct node);
	size_t block = UNIT;
	size_t room;

	(void)a;
	if (size > (size_t)PTRDIFF_MAX / 8)
		return SIZE_MAX;
	while (block < align || block < size + TAIL_BYTES)
		block *= 2;
	room = 2 * block + fixed;
	return room + room / 47;
}

/* --- Allocation ------------------------------------------------------------- */

static bool find_spot_hard(struct byte_buddy *h, unsigned int least, size_t units, size_t align,
			   struct spot *s)
{
	if (find_spot(h, least, s))
		return true;
	if (h->base.in_parts)
		return false;
	merge_all(h);
	return find_spot(h, least, s) || byte_buddy_find_tight(h, units, align, s);
}

static inline unsigned int refill_for(unsigned int length, unsigned int units)
{
	unsigned int n = length / units;

	return n < REFILL ? n : REFILL;
}

/* Take some runs of less than a granule, as many as there is room for; park all but the first. */
static inline void occupy_small(struct byte_buddy *h, const struct spot *s, size_t units)
{
	struct marks *g = granule_of(s->piece, s->addr);
	unsigned int i = child_index(0, s->addr), n = 1;
	uintptr_t addr = s->addr;
	uint64_t starts = 1;

	if (s->level)
		split(h, s->piece, addr, s->level, 0);
	if (MM_HARDEN < 3 && !*parked_top(h, units))
		n = refill_for(s->level ? NODE_CHILDREN - 1 : s->length, (unsigned int)units);
	h->top[units] -= (n - 1) * sizeof(addr);
	for (unsigned int next = 0; next < n - 1; next++) {
		addr += units << UNIT_SHIFT;
		parked_top(h, units)[next] = addr;
		starts = starts << units | 1;
	}
	account_live(h, s->piece, units * n);
	g->start |= starts << i;
	g->used |= low_bits((unsigned int)units * n) << i;
	if (is_marked(units))
		g->used ^= (starts & ~(uint64_t)1) << i;
	settle_granule(h, s->piece, s->addr);
}

static void *block_alloc(struct byte_buddy *h, size_t units, size_t align)
{
	unsigned int least = list_for(units);
	struct spot s;

	if (align > UNIT && list_for(align / UNIT) > least)
		least = list_for(align / UNIT);
	if (!find_spot_hard(h, least, units, align, &s))
		return NULL;
	if (units < NODE_CHILDREN)
		occupy_small(h, &s, units);
	else
		occupy(h, s.piece, s.addr, units, s.level);
	return (void *)s.addr;
}

static void *buddy_alloc(struct byte_alloc *a, size_t size, size_t align)
{
	struct byte_buddy *h = buddy_of(a);
	size_t units = units_for(size);
	uintptr_t addr = units < BUDDY_PARKED_UNITS ? *parked_top(h, units) : 0;

	audit(h);
	if (addr && !(addr & (align - 1)) && piece_select(h, addr))
		unpark(h, h->granules, addr, units);
	else
		addr = (uintptr_t)block_alloc(h, units, align);
	if (!addr)
		return NULL;
	poison_verify(addr, units << UNIT_SHIFT);
	canary_set(addr, units, size);
	return (void *)addr;
}

/* `any`: of any piece that is found without a search, not of the recent one alone. */
static inline __attribute__((always_inline)) void *alloc_parked(struct byte_buddy *h, size_t size,
								size_t align, bool any)
{
	size_t units = units_for(size);
	struct near n = {0, 0};
	uintptr_t addr;

	if (MM_HARDEN >= 2 || unlikely(units >= NODE_CHILDREN || align > UNIT))
		return NULL;
	addr = *parked_top(h, units);
	if (unlikely(MM_HARDEN ? !is_near(h, addr, any, &n)
			       : !addr)) /* no run, or no marks of it */
		return NULL;
	if (!addr)
		__builtin_unreachable(); /* no piece includes 0: callers need not look again */
	unpark(h, n.granules, addr, units);
	return (void *)addr;
}

void *byte_buddy_alloc_fast(struct byte_alloc *a, size_t size, size_t align, unsigned int cpu)
{
	(void)cpu;
	return alloc_parked(buddy_of(a), size, align, false);
}

void *byte_buddy_alloc_shortest(struct byte_alloc *a, size_t size, size_t align)
{
	return alloc_parked(buddy_of(a), size, align, true);
}

/* --- Freeing ---------------------------------------------------------------- */

/* Does a live block start in the i-th child that covers n children and not the next one? */
static inline bool live_run_at(const struct marks *m, unsigned int i, size_t n)
{
	uint64_t live = m->start & m->used;
	uint64_t more = (m->used ^ live) >> 1; /* bit j: a block goes on after child j */

	return live >> i & 1 && mm_lowest_is_nth(~(more >> i), n);
}

/* Is there such a live block in this piece? Pre: of 1 to 63 units. */
static inline bool small_block_at(struct near n, uintptr_t addr, size_t units, size_t align)
{
	const struct marks *g = granule_in(n.granules, addr);
	unsigned int i = child_index(0, addr);

	if (unlikely(addr & ((align - 1) | (UNIT - 1)) || !*written_at(n.written, addr)))
		return false;
	return live_run_at(g, i, units);
}

/* Is there a live block as the caller says? Slow: it goes down the tree. */
static __attribute__((noinline)) enum mm_fault_kind
look_at_claim(struct byte_buddy *h, uintptr_t addr, size_t size, size_t align)
{
	struct block b;

	if (addr & (UNIT - 1))
		return MM_FAULT_MISALIGNED;
	b = byte_buddy_block_at(h->recent, addr);
	if (b.state == BLOCK_FREE || b.state == BLOCK_PARKED || quarantined(h, addr) ||
	    is_parked(h, addr, b.units))
		return MM_FAULT_DOUBLE_FREE;
	if (b.state == BLOCK_INSIDE)
		return byte_buddy_inside_parked(h->recent, addr) ? MM_FAULT_DOUBLE_FREE
								 : MM_FAULT_FOREIGN;
	if (b.units != units_for(size) || (addr & (align - 1)))
		return MM_FAULT_WRONG_LAYOUT;
	return MM_HARDEN >= 2 ? canary_check(addr, b.units, size) : MM_FAULT_NONE;
}

/* The same for 64 to 4095 units, which are whole granules and the first units of the next one. */
static bool medium_block_at(const struct byte_buddy *h, uintptr_t addr, size_t units, size_t align)
{
	const struct marks *m = &chunk_of(h->recent, addr)->marks;
	unsigned int i = child_index(1, addr), n = whole_children(1, units);
	unsigned int tail = 0;

	if (addr & ((align - 1) | (child_bytes(1) - 1)) || !*written_at(h->written, addr) ||
	    !live_run_at(m, i, n))
		return false;
	if (i + n < NODE_CHILDREN && is_split(m, i + n))
		tail = continuation(granule_in(h->granules, addr + n * child_bytes(1)), 0);
	return tail == units % NODE_CHILDREN && !is_parked(h, addr, units);
}

/* What is wrong with the claim that there is such a live block? */
static inline enum mm_fault_kind verify_claim(struct byte_buddy *h, uintptr_t addr, size_t size,
					      size_t align)
{
	size_t units = units_for(size);
	bool found = false;

	if (!piece_select(h, addr))
		return MM_FAULT_FOREIGN;
	if (!MM_HARDEN)
		return MM_FAULT_NONE;
	if (MM_HARDEN < 2 && units - 1 < NODE_CHILDREN - 1)
		found = small_block_at((struct near){h->granules, h->written}, addr, units, align);
	else if (MM_HARDEN < 2 && units && level_for(units) == 1)
		found = medium_block_at(h, addr, units, align);
	return found ? MM_FAULT_NONE : look_at_claim(h, addr, size, align);
}

static enum mm_fault_kind buddy_dealloc(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct byte_buddy *h = buddy_of(a);
	uintptr_t addr = (uintptr_t)p;
	size_t units = units_for(size);
	enum mm_fault_kind fault;

	audit(h);
	fault = verify_claim(h, addr, size, align);
	if (fault)
		return fault;
	poison_set(addr, units << UNIT_SHIFT);
	if (MM_HARDEN >= 3)
		quarantine_put(h, addr, units);
	else if (can_park(h, units))
		park(h, h->granules, addr, units);
	else if (units < NODE_CHILDREN)
		release_small(h, addr, units);
	else
		release(h, h->recent, addr, units);
	return MM_FAULT_NONE;
}

static inline __attribute__((always_inline)) bool
dealloc_small(struct byte_buddy *h, uintptr_t addr, size_t size, size_t align, bool any)
{
	size_t units = units_for(size);
	struct near n;

	if (MM_HARDEN >= 2 || unlikely(units - 1 >= NODE_CHILDREN - 1))
		return false;
	if (!is_near(h, addr, any, &n) ||
	    (MM_HARDEN && unlikely(!small_block_at(n, addr, units, align))))
		return false;
	if (likely(!parked_full(h, units)))
		park(h, n.granules, addr, units);
	else if (in_recent(h, addr))
		release_small(h, addr, units);
	else
		return false;
	return true;
}

bool byte_buddy_dealloc_fast(struct byte_alloc *a, void *p, size_t size, size_t align,
			     unsigned int cpu)
{
	(void)cpu;
	return dealloc_small(buddy_of(a), (uintptr_t)p, size, align, false);
}

bool byte_buddy_dealloc_shortest(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	return dealloc_small(buddy_of(a), (uintptr_t)p, size, align, true);
}

/* --- Resizing --------------------------------------------------------------- */

/*
 * The level whose free children cover a block of so many units at an address;
 * BUDDY_LEVELS when it cannot lie there.
 */
static unsigned int covering_level(const struct buddy_piece *piece, uintptr_t addr, size_t units)
{
	unsigned int want = level_for(units);
	unsigned int n = whole_children(want, units) + has_tail(want, units);
	unsigned int level = piece->top;

	if (want > level || (addr & (child_bytes(want) - 1)) ||
	    child_index(want, addr) + n > NODE_CHILDREN)
		return BUDDY_LEVELS;
	for (; level > want; level--) {
		const struct marks *m = marks_of(piece, level, addr);
		unsigned int i = child_index(level, addr);

		if (free_children(m) >> i & 1)
			return level;
		if (!is_split(m, i))
			return BUDDY_LEVELS;
	}
	return byte_buddy_block_fits(piece, addr, units) ? want : BUDDY_LEVELS;
}

/* Free it, and take it again with the other length if that fits. Nothing is written to the block.
 */
static bool buddy_resize(struct byte_alloc *a, void *p, size_t old_size, size_t align,
			 size_t new_size)
{
	struct byte_buddy *h = buddy_of(a);
	uintptr_t addr = (uintptr_t)p;
	size_t from = units_for(old_size), to = units_for(new_size);
	struct buddy_piece *piece;
	unsigned int level;
	bool fits = true;

	audit(h);
	if (verify_claim(h, addr, old_size, align) != MM_FAULT_NONE)
		return false;
	piece = h->recent;
	if (from != to) {
		release(h, piece, addr, from);
		level = covering_level(piece, addr, to);
		fits = level != BUDDY_LEVELS;
		occupy(h, piece, addr, fits ? to : from,
		       fits ? level : covering_level(piece, addr, from));
	}
	if (!fits)
		return false;
	if (to > from)
		poison_verify(addr + (from << UNIT_SHIFT), (to - from) << UNIT_SHIFT);
	else
		poison_set(addr + (to << UNIT_SHIFT), (from - to) << UNIT_SHIFT);
	canary_set(addr, to, new_size);
	return true;
}

/* --- Queries ---------------------------------------------------------------- */

static size_t buddy_block_size(const struct byte_alloc *a, const void *p)
{
	const struct byte_buddy *h = const_buddy_of(a);
	uintptr_t addr = (uintptr_t)p;
	const struct buddy_piece *piece = byte_buddy_piece_search(h, addr);
	struct block b;

	if (!piece || (addr & (UNIT - 1)) || quarantined(h, addr))
		return 0;
	b = byte_buddy_block_at(piece, addr);
	if (is_parked(h, addr, b.units))
		return 0;
	return b.state == BLOCK_LIVE ? (b.units << UNIT_SHIFT) - TAIL_BYTES : 0;
}

static size_t buddy_total_bytes(const struct byte_alloc *a)
{
	const struct byte_buddy *h = const_buddy_of(a);
	size_t total = 0;

	for (const struct buddy_piece *p = byte_buddy_piece_from(h, 0); p; p = piece_next(h, p))
		total += p->nbytes;
	return total;
}

static size_t buddy_used_bytes(const struct byte_alloc *a)
{
	const struct byte_buddy *h = const_buddy_of(a);
	size_t used = 0;

	for (const struct buddy_piece *p = byte_buddy_piece_from(h, 0); p; p = piece_next(h, p))
		used += p->live_units << UNIT_SHIFT;
	return used - parked_bytes(h) - h->held_bytes;
}

static size_t buddy_available_bytes(const struct byte_alloc *a)
{
	const struct byte_buddy *h = const_buddy_of(a);
	size_t usable = 0;

	for (const struct buddy_piece *p = byte_buddy_piece_from(h, 0); p; p = piece_next(h, p))
		usable += p->end - p->first;
	return usable - buddy_used_bytes(a);
}

const struct byte_ops byte_buddy_ops = {
	.name = "buddy",
	.init = buddy_init,
	.add_memory = buddy_add_memory,
	.alloc = buddy_alloc,
	.dealloc = buddy_dealloc,
	.resize = buddy_resize,
	.grow_size = buddy_grow_size,
	.settle = buddy_settle,
	.take_free = buddy_take_free,
	.block_size = buddy_block_size,
	.total_bytes = buddy_total_bytes,
	.used_bytes = buddy_used_bytes,
	.available_bytes = buddy_available_bytes,
	.walk = byte_buddy_walk,
	.check = byte_buddy_check,
};
