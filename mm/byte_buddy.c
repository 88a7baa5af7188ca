/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Memory is counted in units of 16 bytes. A block of order o is 2^o units and
 * lies at a multiple of its size, so its buddy is found by flipping one bit of
 * its address. Free blocks of an order are a doubly linked list in the blocks
 * themselves, and one word tells which orders have any: the smallest that fits
 * is found by one bit search, and a merge unlinks the buddy where it lies.
 *
 * Trimming. Rounding 5 units up to 8 would waste a third of memory. So a request
 * takes the start of a block of the order that holds it, and the tail is given
 * back at once, as the buddies it consists of (5 of 8: one unit and two units).
 * What is allocated is then the sequence of buddies that make up the binary
 * form of its length (4 + 1). It is still a buddy system: everything is split
 * off and merged as a buddy of its order, and an allocation lies at a multiple
 * of its length rounded up to a power of two. dealloc gives the sequence back from its small end: a
 * piece first merges with what was trimmed beside it and so grows to exactly
 * the size of the next piece, which is its buddy. One pass over the orders
 * frees any length.
 *
 * The map. Out of the reach of writes past an end, at the start of each piece
 * of memory, every unit has two bits, kept in granules of 64 units (1 KiB):
 * does a block start here, and is it live? A block of less than 64 units never
 * crosses a granule, so the next start bit is its end. A longer one starts on
 * a granule and fills it, so that all but one of its live bits are idle: they
 * hold its length. Length and state of whatever starts at an address are hence
 * known in constant time and without trust in the blocks: a double free, a
 * pointer into the middle and a wrong length are told exactly. The links
 * are redundant. When one is found broken (they are checked against the map's
 * bounds and against each other before use) all lists are built again
 * from the map, and nothing is lost but the trust in the writer. The map costs
 * 1.6 % of memory.
 *
 * Lazy merging. Most programs free a length that they ask for again soon. So a
 * freed run of less than 64 units goes unmerged into the bin of its length, as
 * long as the bin has less than BIN_DEPTH of them, and is found there by the next
 * request. Nobody searches them: when no block is large enough the bins are
 * emptied, with merging, and that is paid for by the frees that put them there.
 * To the map a run in a bin is free like any other; a buddy in a bin is merged as any other.
 *
 * Hardening: 0 trusts the caller. 1 checks every pointer and length against
 * the map and every link before use. 2 adds a word at the end of each
 * allocation that holds the size asked for, and poison in free memory, which is
 * verified before reuse. 3 keeps freed blocks back in a quarantine, and verifies everything
 * every few operations.
 *
 * Shortcomings: a request needs a free block of its length rounded up to a
 * power of two, even if a shorter one would do where it lies; a caller that
 * cycles through many lengths pays the merges. Pieces of memory are searched one by
 * one, the last used first.
 */
#include <mm/byte_buddy.h>

#include "bits.h"

#define UNIT_SHIFT    4u
#define UNIT	      ((size_t)1 << UNIT_SHIFT)
#define GRANULE_SHIFT 10u /* 64 units */
#define GRANULE_UNITS ((size_t)64)
#define LARGE_ORDER   6u /* a granule and more */
#define BIN_DEPTH     32u
#define TAIL_BYTES    (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)
#define POISON	      0xdfdfdfdfdfdfdfdfu
#define SLACK	      0xca
#define AUDIT_PERIOD  64u

struct buddy_link {
	struct buddy_link *next;
	struct buddy_link **at; /* what points to this one */
};

struct granule {
	uint64_t start; /* a block starts at this unit */
	uint64_t live;	/* and is live; of a long block: length << 1 | live */
};

struct buddy_piece {
	struct buddy_piece *next;
	uintptr_t first, end; /* what can be handed out */
	uintptr_t map;	      /* where the granule of address 0 would be */
	size_t live_bytes;
	void *start; /* as it was given */
	size_t nbytes;
};

static inline struct byte_buddy *buddy_of(struct byte_alloc *a)
{
	return (struct byte_buddy *)a;
}

static inline const struct byte_buddy *const_buddy_of(const struct byte_alloc *a)
{
	return (const struct byte_buddy *)a;
}

static inline struct buddy_link *link_at(uintptr_t addr)
{
	return (struct buddy_link *)addr;
}

/* --- Lengths ---------------------------------------------------------------- */

static inline size_t units_for(size_t size)
{
	return (size + TAIL_BYTES + UNIT - 1) >> UNIT_SHIFT;
}

static inline unsigned int order_for(size_t units)
{
	return units > 1 ? mm_fls(units - 1) + 1 : 0;
}

static inline size_t order_bytes(unsigned int order)
{
	return UNIT << order;
}

/* --- Pieces of memory ------------------------------------------------------- */

static inline bool piece_has(const struct buddy_piece *piece, uintptr_t addr)
{
	return addr - piece->first < piece->end - piece->first;
}

static struct buddy_piece *piece_search(const struct byte_buddy *h, uintptr_t addr)
{
	struct buddy_piece *piece = h->pieces;

	while (piece && !piece_has(piece, addr))
		piece = piece->next;
	return piece;
}

static __attribute__((noinline)) struct buddy_piece *piece_switch(struct byte_buddy *h,
								  uintptr_t addr)
{
	struct buddy_piece *piece = piece_search(h, addr);

	if (piece) {
		h->recent = piece;
		h->first = piece->first;
		h->span = piece->end - piece->first;
	}
	return piece;
}

/* The piece that an address is in, or NULL. */
static inline struct buddy_piece *piece_of(struct byte_buddy *h, uintptr_t addr)
{
	if (__builtin_expect(addr - h->first < h->span, 1))
		return h->recent;
	return piece_switch(h, addr);
}

static inline void account_live(struct byte_buddy *h, struct buddy_piece *piece, size_t nbytes)
{
	if (!piece->live_bytes)
		h->empty_pieces--;
	piece->live_bytes += nbytes;
}

static inline void account_free(struct byte_buddy *h, struct buddy_piece *piece, size_t nbytes)
{
	piece->live_bytes -= nbytes;
	if (!piece->live_bytes)
		h->empty_pieces++;
}

/* --- The map ---------------------------------------------------------------- */

static inline struct granule *granule_of(const struct buddy_piece *piece, uintptr_t addr)
{
	return (struct granule *)(piece->map + (addr >> GRANULE_SHIFT) * sizeof(struct granule));
}

static inline unsigned int unit_in_granule(uintptr_t addr)
{
	return (unsigned int)(addr >> UNIT_SHIFT) & 63u;
}

static inline bool starts_block(const struct granule *g, unsigned int bit)
{
	return g->start >> bit & 1;
}

static inline bool is_live(const struct granule *g, unsigned int bit)
{
	return g->live >> bit & 1;
}

/* Pre: a block starts there. */
static inline size_t block_units(const struct granule *g, unsigned int bit)
{
	uint64_t later = g->start >> bit >> 1;

	if (later)
		return mm_ctz(later) + 1u;
	return bit ? GRANULE_UNITS - bit : g->live >> 1;
}

static inline void mark_block(struct granule *g, unsigned int bit, size_t units, bool live)
{
	g->start |= (uint64_t)1 << bit;
	if (units >= GRANULE_UNITS)
		g->live = units << 1 | live;
	else if (live)
		g->live |= (uint64_t)1 << bit;
	else
		g->live &= ~((uint64_t)1 << bit);
}

static inline void unmark_block(struct granule *g, unsigned int bit, size_t units)
{
	g->start &= ~((uint64_t)1 << bit);
	if (units >= GRANULE_UNITS)
		g->live = 0;
	else
		g->live &= ~((uint64_t)1 << bit);
}

/* --- Lists of free blocks --------------------------------------------------- */

static inline bool in_lists(const struct byte_buddy *h, const void *slot)
{
	return (uintptr_t)slot - (uintptr_t)h->lists < sizeof(h->lists);
}

/* May a free block lie there? */
static inline bool plausible(struct byte_buddy *h, const void *b)
{
	return !((uintptr_t)b & (UNIT - 1)) && piece_of(h, (uintptr_t)b);
}

static inline bool next_intact(struct byte_buddy *h, struct buddy_link *b)
{
	return !b->next || (plausible(h, b->next) && b->next->at == &b->next);
}

static inline bool links_intact(struct byte_buddy *h, struct buddy_link *b)
{
	if (!MM_HARDEN)
		return true;
	return (in_lists(h, b->at) || plausible(h, b->at)) && *b->at == b && next_intact(h, b);
}

static inline void list_push(struct byte_buddy *h, unsigned int list, struct buddy_link *b)
{
	struct buddy_link *next = h->lists[list];

	b->next = next;
	b->at = &h->lists[list];
	if (next)
		next->at = &b->next;
	h->lists[list] = b;
}

static inline void order_push(struct byte_buddy *h, unsigned int order, struct buddy_link *b)
{
	list_push(h, BUDDY_BINS + order, b);
	h->orders |= (uint64_t)1 << order;
}

/* Pre: the links are intact. The list is found when it matters: when it gets empty. */
static inline void list_remove(struct byte_buddy *h, struct buddy_link *b)
{
	struct buddy_link *next = b->next;
	size_t list;

	*b->at = next;
	if (next) {
		next->at = b->at;
		return;
	}
	list = (size_t)(b->at - h->lists) - BUDDY_BINS;
	if (list < BUDDY_ORDERS)
		h->orders &= ~((uint64_t)1 << list);
}

static __attribute__((noinline)) void report(enum mm_fault_kind kind, const void *p)
{
	mm_fault_report(&(struct mm_fault){.kind = kind, .allocator = "buddy", .ptr = p});
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

static void canary_set(uintptr_t addr, size_t units, size_t size)
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

static void poison_set(uintptr_t addr, size_t nbytes)
{
	if (MM_HARDEN >= 2)
		__builtin_memset((void *)addr, (uint8_t)POISON, nbytes);
}

static bool poison_intact(uintptr_t addr, size_t nbytes)
{
	const uint64_t *p = (const uint64_t *)addr;

	for (size_t i = 0; i < nbytes / sizeof(*p); i++)
		if (p[i] != POISON)
			return false;
	return true;
}

/* Free memory is about to be used: its links may be anything, the rest is poison. */
static void poison_verify(uintptr_t addr, size_t units)
{
	if (MM_HARDEN >= 2 && !poison_intact(addr + UNIT, (units - 1) << UNIT_SHIFT))
		report(MM_FAULT_WRITE_AFTER_FREE, (const void *)addr);
}

/* --- Free blocks ------------------------------------------------------------ */

static inline void insert_block(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
				unsigned int order)
{
	mark_block(granule_of(piece, addr), unit_in_granule(addr), (size_t)1 << order, false);
	order_push(h, order, link_at(addr));
}

/* Detach the block at addr, if that is a free one of this order. */
static inline bool take_buddy(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
			      unsigned int order)
{
	unsigned int bit = unit_in_granule(addr);
	struct granule *g;

	if (!piece_has(piece, addr))
		return false;
	g = granule_of(piece, addr);
	if (!starts_block(g, bit) || is_live(g, bit) || block_units(g, bit) != (size_t)1 << order)
		return false;
	if (!links_intact(h, link_at(addr))) {
		h->broken = true;
		return false;
	}
	list_remove(h, link_at(addr));
	unmark_block(g, bit, (size_t)1 << order);
	return true;
}

/* The units [bit, bit + 2^order) of a granule. Pre: order < LARGE_ORDER. */
static inline uint64_t unit_mask(unsigned int bit, unsigned int order)
{
	return (((uint64_t)1 << (1u << order)) - 1) << bit;
}

/*
 * Is there a free block of this order, next to what is being freed at `at`? From
 * the two words of a granule. What is left of `at` ends there, with no mark.
 */
static inline bool is_free_buddy(uint64_t start, uint64_t live, unsigned int bit, unsigned int at,
				 unsigned int order)
{
	unsigned int end = bit + (1u << order);

	if ((start & unit_mask(bit, order)) != (uint64_t)1 << bit || live >> bit & 1)
		return false;
	return bit < at || end == GRANULE_UNITS || start >> end & 1;
}

/*
 * Merge the unmarked block of `*order` at addr with its buddies in the same
 * granule; `units` are what remains to the left of it of the same run, unmarked
 * too. Returns what remains of them.
 */
static inline size_t merge_in_granule(struct byte_buddy *h, const struct buddy_piece *piece,
				      uintptr_t *addr, unsigned int *order, size_t units)
{
	struct granule *g = granule_of(piece, *addr);
	uintptr_t granule = *addr & ~(((uintptr_t)1 << GRANULE_SHIFT) - 1);
	unsigned int bit = unit_in_granule(*addr), o = *order;
	uint64_t start = g->start, live = g->live;

	for (; o < LARGE_ORDER; o++) {
		unsigned int buddy = bit ^ 1u << o;
		struct buddy_link *link = link_at(granule + ((uintptr_t)buddy << UNIT_SHIFT));

		if (units >> o & 1) {
			units ^= (size_t)1 << o;
		} else if (!is_free_buddy(start, live, buddy, bit, o)) {
			break;
		} else if (!links_intact(h, link)) {
			h->broken = true;
			break;
		} else {
			list_remove(h, link);
			start &= ~((uint64_t)1 << buddy);
		}
		poison_set(granule + ((uintptr_t)(bit | 1u << o) << UNIT_SHIFT), UNIT);
		bit &= ~(1u << o);
	}
	g->start = start;
	*addr = granule + ((uintptr_t)bit << UNIT_SHIFT);
	*order = o;
	return units;
}

/* The same with whole granules. */
static __attribute__((noinline)) size_t merge_granules(struct byte_buddy *h,
						       struct buddy_piece *piece, uintptr_t *addr,
						       unsigned int *order, size_t units)
{
	for (;; ++*order) {
		uintptr_t buddy = *addr ^ order_bytes(*order);

		if (units >> *order & 1)
			units ^= (size_t)1 << *order;
		else if (!take_buddy(h, piece, buddy, *order))
			return units;
		poison_set(*addr > buddy ? *addr : buddy, UNIT);
		*addr &= ~(uintptr_t)order_bytes(*order);
	}
}

/*
 * Free a run of units that no mark describes any more and that lies as an allocation
 * does, merging it as far as possible (see the theory above).
 */
static void give_run(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr, size_t units)
{
	while (units) {
		unsigned int order = mm_ctz(units);
		uintptr_t b;

		units &= units - 1;
		b = addr + (units << UNIT_SHIFT);
		if (order < LARGE_ORDER)
			units = merge_in_granule(h, piece, &b, &order, units);
		if (order >= LARGE_ORDER)
			units = merge_granules(h, piece, &b, &order, units);
		insert_block(h, piece, b, order);
	}
}

/* Free any range of units: the largest aligned blocks that cover it. */
static void give_range(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t lo, uintptr_t hi)
{
	while (lo < hi) {
		unsigned int fits = mm_fls((hi - lo) >> UNIT_SHIFT);
		unsigned int aligned = mm_ctz(lo >> UNIT_SHIFT);
		unsigned int order = aligned < fits ? aligned : fits;

		if (order >= BUDDY_ORDERS)
			order = BUDDY_ORDERS - 1;
		give_run(h, piece, lo, (size_t)1 << order);
		lo += order_bytes(order);
	}
}

/* Empty a bin with merging. */
static void flush_bin(struct byte_buddy *h, unsigned int units)
{
	struct buddy_link *b;

	while ((b = h->lists[units])) {
		uintptr_t addr = (uintptr_t)b;
		struct buddy_piece *piece = piece_of(h, addr);

		if (!links_intact(h, b)) {
			h->broken = true;
			return;
		}
		list_remove(h, b);
		unmark_block(granule_of(piece, addr), unit_in_granule(addr), units);
		give_run(h, piece, addr, units);
	}
	h->depth[units] = 0;
}

static void flush_bins(struct byte_buddy *h)
{
	for (unsigned int units = 1; units < BUDDY_BINS; units++)
		flush_bin(h, units);
}

/* --- Repair ----------------------------------------------------------------- */

/* Put a free block that the map shows into the list where it belongs before merging. */
static void relink(struct byte_buddy *h, uintptr_t addr, size_t units)
{
	if (units < BUDDY_BINS)
		list_push(h, (unsigned int)units, link_at(addr));
	else
		order_push(h, order_for(units), link_at(addr));
}

/* A link was broken: build all lists again from the map. Slow. */
static __attribute__((noinline)) void rebuild(struct byte_buddy *h)
{
	__builtin_memset(h->lists, 0, sizeof(h->lists));
	h->orders = 0;
	h->broken = false;
	for (struct buddy_piece *piece = h->pieces; piece; piece = piece->next) {
		uintptr_t addr = piece->first;

		while (addr < piece->end) {
			const struct granule *g = granule_of(piece, addr);
			unsigned int bit = unit_in_granule(addr);
			size_t units = block_units(g, bit);

			if (!is_live(g, bit))
				relink(h, addr, units);
			addr += units << UNIT_SHIFT;
		}
	}
	flush_bins(h);
}

static __attribute__((noinline)) void repair(struct byte_buddy *h, const void *found_at)
{
	report(MM_FAULT_CORRUPT, found_at);
	rebuild(h);
}

/* At the end of an operation that may have met a broken link. */
static inline void repair_if_broken(struct byte_buddy *h)
{
	if (MM_HARDEN && __builtin_expect(h->broken, 0))
		repair(h, NULL);
}

/* --- Quarantine and audit (level 3) ----------------------------------------- */

static bool quarantined(const struct byte_buddy *h, uintptr_t addr)
{
	if (MM_HARDEN < 3)
		return false;
	for (size_t i = 0; i < BUDDY_QUARANTINE; i++)
		if (h->held[i] == addr)
			return true;
	return false;
}

static void release(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr, size_t units)
{
	account_free(h, piece, units << UNIT_SHIFT);
	unmark_block(granule_of(piece, addr), unit_in_granule(addr), units);
	give_run(h, piece, addr, units);
}

static void quarantine_evict(struct byte_buddy *h, unsigned int slot)
{
	uintptr_t addr = h->held[slot];
	struct buddy_piece *piece;
	size_t units;

	if (!addr)
		return;
	piece = piece_of(h, addr);
	units = block_units(granule_of(piece, addr), unit_in_granule(addr));
	if (!poison_intact(addr, units << UNIT_SHIFT))
		report(MM_FAULT_WRITE_AFTER_FREE, (const void *)addr);
	poison_set(addr, units << UNIT_SHIFT);
	h->held[slot] = 0;
	h->held_bytes -= units << UNIT_SHIFT;
	release(h, piece, addr, units);
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

static const void *buddy_check(const struct byte_alloc *a);

static inline void audit(struct byte_buddy *h)
{
	const void *broken;

	if (MM_HARDEN < 3 || ++h->tick % AUDIT_PERIOD)
		return;
	broken = buddy_check(&h->base);
	if (broken)
		repair(h, broken);
}

/* --- Memory in and out ------------------------------------------------------ */

/* Lay header and map at the start of a piece. NULL when nothing is left. */
static struct buddy_piece *piece_lay(void *start, size_t nbytes)
{
	uintptr_t head = mm_align_up((uintptr_t)start, UNIT);
	uintptr_t end = mm_align_down((uintptr_t)start + nbytes, UNIT);
	uintptr_t map = head + mm_align_up(sizeof(struct buddy_piece), UNIT);
	size_t granules = (end >> GRANULE_SHIFT) - (head >> GRANULE_SHIFT) + 1;
	uintptr_t first = map + granules * sizeof(struct granule);
	struct buddy_piece *piece = (struct buddy_piece *)head;

	if ((uintptr_t)start + nbytes < (uintptr_t)start || nbytes < UNIT * 2 || first >= end)
		return NULL;
	*piece = (struct buddy_piece){
		.first = first,
		.end = end,
		.map = map - (head >> GRANULE_SHIFT) * sizeof(struct granule),
		.start = start,
		.nbytes = nbytes,
	};
	__builtin_memset((void *)map, 0, granules * sizeof(struct granule));
	/* What is before and after counts as live, so that nothing merges with it. */
	mark_block(granule_of(piece, end), unit_in_granule(end), 1, true);
	return piece;
}

static bool ranges_overlap(const struct buddy_piece *piece, const void *start, size_t nbytes)
{
	return (uintptr_t)start < (uintptr_t)piece->start + piece->nbytes &&
	       (uintptr_t)piece->start < (uintptr_t)start + nbytes;
}

static enum alloc_result buddy_add_memory(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_buddy *h = buddy_of(a);
	struct buddy_piece **at = &h->pieces;
	struct buddy_piece *piece;

	for (piece = h->pieces; piece; piece = piece->next)
		if (ranges_overlap(piece, start, nbytes))
			return ALLOC_MEMORY_OVERLAP;
	piece = piece_lay(start, nbytes);
	if (!piece)
		return ALLOC_INVALID_PARAM;
	while (*at && *at < piece)
		at = &(*at)->next;
	piece->next = *at;
	*at = piece;
	h->empty_pieces++;
	poison_set(piece->first, piece->end - piece->first);
	give_range(h, piece, piece->first, piece->end);
	repair_if_broken(h);
	return ALLOC_OK;
}

static enum alloc_result buddy_init(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_buddy *h = buddy_of(a);

	*h = (struct byte_buddy){.base = *a};
	return buddy_add_memory(a, start, nbytes);
}

/* Take every block of a piece without a live one off its list; false when a link is broken. */
static bool piece_unlink(struct byte_buddy *h, struct buddy_piece *piece)
{
	uintptr_t addr = piece->first;

	while (addr < piece->end) {
		struct granule *g = granule_of(piece, addr);
		unsigned int bit = unit_in_granule(addr);

		if (!links_intact(h, link_at(addr)))
			return false;
		list_remove(h, link_at(addr));
		addr += block_units(g, bit) << UNIT_SHIFT;
	}
	return true;
}

static bool buddy_take_free(struct byte_alloc *a, void **start, size_t *nbytes)
{
	struct byte_buddy *h = buddy_of(a);
	struct buddy_piece **at = &h->pieces;
	struct buddy_piece *piece;

	if (h->held_bytes)
		quarantine_flush(h);
	if (!h->empty_pieces)
		return false;
	while ((*at)->live_bytes)
		at = &(*at)->next;
	piece = *at;
	if (!piece_unlink(h, piece)) {
		repair(h, piece->start);
		piece_unlink(h, piece);
	}
	*at = piece->next;
	h->empty_pieces--;
	h->first = h->span = 0;
	*start = piece->start;
	*nbytes = piece->nbytes;
	return true;
}

/* A piece at any base holds an aligned block when it has twice its size. */
static size_t buddy_grow_size(const struct byte_alloc *a, size_t size, size_t align)
{
	size_t block = order_bytes(order_for(units_for(size)));
	size_t room;

	(void)a;
	if (size > (size_t)PTRDIFF_MAX / 8)
		return SIZE_MAX;
	if (block < align)
		block = align;
	room = 2 * block + sizeof(struct buddy_piece) + 2 * UNIT + 3 * sizeof(struct granule);
	return room + room / (GRANULE_UNITS - 1) * sizeof(struct granule) / UNIT;
}

/* --- Allocation ------------------------------------------------------------- */

/* Mark the units that were asked for, and give the rest of the block back. */
static inline void carve(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr,
			 size_t units, size_t block)
{
	struct granule *g = granule_of(piece, addr);
	unsigned int bit = unit_in_granule(addr);
	uint64_t starts = 0;

	unmark_block(g, bit, block);
	mark_block(g, bit, units, true);
	/* In this granule, where nothing is live behind the block. */
	while (units < block && units < GRANULE_UNITS) {
		unsigned int order = mm_ctz(units);

		order_push(h, order, link_at(addr + (units << UNIT_SHIFT)));
		starts |= (uint64_t)1 << (bit + units);
		units += (size_t)1 << order;
	}
	g->start |= starts;
	for (; units < block; units += (size_t)1 << mm_ctz(units))
		insert_block(h, piece, addr + (units << UNIT_SHIFT), mm_ctz(units));
}

/* The first block of a list, detached; NULL when its links are broken. */
static inline struct buddy_link *list_pop(struct byte_buddy *h, unsigned int list)
{
	struct buddy_link *b = h->lists[list];

	if (MM_HARDEN && __builtin_expect(b->at != &h->lists[list] || !next_intact(h, b), 0))
		return NULL;
	h->lists[list] = b->next;
	if (b->next)
		b->next->at = &h->lists[list];
	return b;
}

/* A run that was freed lately with just this length. */
static inline void *bin_alloc(struct byte_buddy *h, unsigned int units)
{
	struct buddy_link *b = list_pop(h, units);
	struct buddy_piece *piece;
	uintptr_t addr = (uintptr_t)b;

	if (MM_HARDEN && __builtin_expect(!b, 0)) {
		repair(h, h->lists[units]);
		return NULL;
	}
	/* Merges take blocks from bins uncounted; an empty bin is the time to catch up. */
	h->depth[units] = h->lists[units] ? (uint8_t)(h->depth[units] - 1) : 0;
	piece = piece_of(h, addr);
	granule_of(piece, addr)->live |= (uint64_t)1 << unit_in_granule(addr);
	account_live(h, piece, (size_t)units << UNIT_SHIFT);
	poison_verify(addr, units);
	return b;
}

/* The order of a block that holds so many units, from the smallest one that there is. */
static bool find_order(struct byte_buddy *h, unsigned int least, unsigned int *order)
{
	uint64_t fit = least < BUDDY_ORDERS ? h->orders >> least << least : 0;

	if (!fit)
		return false;
	*order = mm_ctz(fit);
	return true;
}

static bool find_order_hard(struct byte_buddy *h, unsigned int least, unsigned int *order)
{
	if (find_order(h, least, order))
		return true;
	if (h->held_bytes)
		quarantine_flush(h);
	flush_bins(h);
	repair_if_broken(h);
	return find_order(h, least, order);
}

static __attribute__((noinline)) void *block_alloc(struct byte_buddy *h, size_t units, size_t align)
{
	unsigned int least = order_for(units);
	unsigned int order;
	struct buddy_piece *piece;
	struct buddy_link *b;

	if (order_bytes(least) < align)
		least = mm_ctz(align) - UNIT_SHIFT;
	if (!find_order_hard(h, least, &order))
		return NULL;
	b = list_pop(h, BUDDY_BINS + order);
	if (MM_HARDEN && !b) {
		repair(h, h->lists[BUDDY_BINS + order]);
		return block_alloc(h, units, align);
	}
	if (!h->lists[BUDDY_BINS + order])
		h->orders &= ~((uint64_t)1 << order);
	piece = piece_of(h, (uintptr_t)b);
	account_live(h, piece, units << UNIT_SHIFT);
	poison_verify((uintptr_t)b, units);
	carve(h, piece, (uintptr_t)b, units, (size_t)1 << order);
	return b;
}

static void *buddy_alloc(struct byte_alloc *a, size_t size, size_t align)
{
	struct byte_buddy *h = buddy_of(a);
	size_t units = units_for(size);
	void *p = NULL;

	audit(h);
	/* A run of some size lies at a multiple of any smaller power of two. */
	if (units < BUDDY_BINS && h->lists[units] && (align <= UNIT || align <= size))
		p = bin_alloc(h, (unsigned int)units);
	if (!p)
		p = block_alloc(h, units, align);
	if (p)
		canary_set((uintptr_t)p, units, size);
	return p;
}

/* --- Freeing ---------------------------------------------------------------- */

/* No live block starts at addr: what is there instead? Slow. */
static __attribute__((noinline)) enum mm_fault_kind explain(const struct buddy_piece *piece,
							    uintptr_t addr)
{
	const struct granule *g = granule_of(piece, addr);
	unsigned int bit = unit_in_granule(addr);
	uint64_t before = g->start & (UINT64_MAX >> (63u - bit));

	while (!before && g > granule_of(piece, piece->first))
		before = (--g)->start;
	return is_live(g, mm_fls(before)) ? MM_FAULT_FOREIGN : MM_FAULT_DOUBLE_FREE;
}

/* Is there a live block as the caller says? */
static inline enum mm_fault_kind verify_claim(struct byte_buddy *h, uintptr_t addr, size_t size,
					      size_t align)
{
	const struct buddy_piece *piece = piece_of(h, addr);
	unsigned int bit = unit_in_granule(addr);
	const struct granule *g;
	size_t units;

	if (!piece)
		return MM_FAULT_FOREIGN;
	if (!MM_HARDEN)
		return MM_FAULT_NONE;
	if (addr & (UNIT - 1))
		return MM_FAULT_MISALIGNED;
	g = granule_of(piece, addr);
	if (__builtin_expect(!(g->start & g->live & (uint64_t)1 << bit), 0))
		return explain(piece, addr);
	if (quarantined(h, addr))
		return MM_FAULT_DOUBLE_FREE;
	units = block_units(g, bit);
	if (units != units_for(size) || (addr & (align - 1)))
		return MM_FAULT_WRONG_LAYOUT;
	return MM_HARDEN >= 2 ? canary_check(addr, units, size) : MM_FAULT_NONE;
}

static enum mm_fault_kind buddy_dealloc(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct byte_buddy *h = buddy_of(a);
	uintptr_t addr = (uintptr_t)p;
	size_t units = units_for(size);
	enum mm_fault_kind fault;
	struct buddy_piece *piece;

	audit(h);
	fault = verify_claim(h, addr, size, align);
	if (fault)
		return fault;
	poison_set(addr, units << UNIT_SHIFT);
	piece = h->recent;
	if (MM_HARDEN >= 3) {
		quarantine_put(h, addr, units);
	} else if (units < BUDDY_BINS && h->depth[units] < BIN_DEPTH) {
		h->depth[units]++;
		account_free(h, piece, units << UNIT_SHIFT);
		granule_of(piece, addr)->live &= ~((uint64_t)1 << unit_in_granule(addr));
		list_push(h, (unsigned int)units, p);
		return MM_FAULT_NONE;
	} else {
		release(h, piece, addr, units);
	}
	repair_if_broken(h);
	return MM_FAULT_NONE;
}

/* --- Resizing --------------------------------------------------------------- */

static void shrink(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr, size_t from,
		   size_t to)
{
	struct granule *g = granule_of(piece, addr);
	uintptr_t tail = addr + (to << UNIT_SHIFT);

	account_free(h, piece, (from - to) << UNIT_SHIFT);
	unmark_block(g, unit_in_granule(addr), from);
	mark_block(g, unit_in_granule(addr), to, true);
	poison_set(tail, (from - to) << UNIT_SHIFT);
	give_range(h, piece, tail, addr + (from << UNIT_SHIFT));
}

/* Units that are free behind a block, as many as are needed; fewer when there is no more. */
static size_t free_behind(struct byte_buddy *h, const struct buddy_piece *piece, uintptr_t addr,
			  size_t need)
{
	size_t found = 0;

	while (found < need && piece_has(piece, addr)) {
		const struct granule *g = granule_of(piece, addr);
		unsigned int bit = unit_in_granule(addr);
		size_t units = block_units(g, bit);

		if (is_live(g, bit) || !links_intact(h, link_at(addr)))
			break;
		poison_verify(addr, units);
		found += units;
		addr += units << UNIT_SHIFT;
	}
	return found;
}

static void absorb(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr, uintptr_t end)
{
	while (addr < end) {
		struct granule *g = granule_of(piece, addr);
		unsigned int bit = unit_in_granule(addr);
		size_t units = block_units(g, bit);

		list_remove(h, link_at(addr));
		unmark_block(g, bit, units);
		poison_set(addr, UNIT);
		addr += units << UNIT_SHIFT;
	}
}

/* Grow over free blocks behind, as far as the place is one where the new length may lie. */
static bool grow(struct byte_buddy *h, struct buddy_piece *piece, uintptr_t addr, size_t from,
		 size_t to)
{
	uintptr_t end = addr + (from << UNIT_SHIFT);
	struct granule *g = granule_of(piece, addr);
	unsigned int order = order_for(to);
	size_t found;

	if (order >= BUDDY_ORDERS || (addr & (order_bytes(order) - 1)))
		return false;
	found = free_behind(h, piece, end, to - from);
	if (found < to - from)
		return false;
	account_live(h, piece, (to - from) << UNIT_SHIFT);
	absorb(h, piece, end, end + (found << UNIT_SHIFT));
	unmark_block(g, unit_in_granule(addr), from);
	mark_block(g, unit_in_granule(addr), to, true);
	give_range(h, piece, addr + (to << UNIT_SHIFT), end + (found << UNIT_SHIFT));
	return true;
}

static bool buddy_resize(struct byte_alloc *a, void *p, size_t old_size, size_t align,
			 size_t new_size)
{
	struct byte_buddy *h = buddy_of(a);
	uintptr_t addr = (uintptr_t)p;
	size_t from = units_for(old_size);
	size_t to = units_for(new_size);

	audit(h);
	if (verify_claim(h, addr, old_size, align) != MM_FAULT_NONE)
		return false;
	if (to > from && !grow(h, h->recent, addr, from, to))
		return false;
	if (to < from)
		shrink(h, h->recent, addr, from, to);
	canary_set(addr, to, new_size);
	repair_if_broken(h);
	return true;
}

/* --- Queries ---------------------------------------------------------------- */

static size_t buddy_block_size(const struct byte_alloc *a, const void *p)
{
	const struct byte_buddy *h = const_buddy_of(a);
	uintptr_t addr = (uintptr_t)p;
	const struct buddy_piece *piece = piece_search(h, addr);
	unsigned int bit = unit_in_granule(addr);
	const struct granule *g;

	if (!piece || (addr & (UNIT - 1)) || quarantined(h, addr))
		return 0;
	g = granule_of(piece, addr);
	if (!starts_block(g, bit) || !is_live(g, bit))
		return 0;
	return (block_units(g, bit) << UNIT_SHIFT) - TAIL_BYTES;
}

static size_t buddy_total_bytes(const struct byte_alloc *a)
{
	size_t total = 0;

	for (const struct buddy_piece *p = const_buddy_of(a)->pieces; p; p = p->next)
		total += p->nbytes;
	return total;
}

static size_t buddy_used_bytes(const struct byte_alloc *a)
{
	const struct byte_buddy *h = const_buddy_of(a);
	size_t used = 0;

	for (const struct buddy_piece *p = h->pieces; p; p = p->next)
		used += p->live_bytes;
	return used - h->held_bytes;
}

static size_t buddy_available_bytes(const struct byte_alloc *a)
{
	size_t usable = 0;

	for (const struct buddy_piece *p = const_buddy_of(a)->pieces; p; p = p->next)
		usable += p->end - p->first;
	return usable - buddy_used_bytes(a);
}

static void buddy_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx)
{
	const struct byte_buddy *h = const_buddy_of(a);

	for (const struct buddy_piece *piece = h->pieces; piece; piece = piece->next) {
		uintptr_t addr = piece->first;

		while (addr < piece->end) {
			const struct granule *g = granule_of(piece, addr);
			unsigned int bit = unit_in_granule(addr);
			size_t nbytes = block_units(g, bit) << UNIT_SHIFT;

			fn(ctx, (const void *)addr, nbytes,
			   is_live(g, bit) && !quarantined(h, addr));
			addr += nbytes;
		}
	}
}

/* --- Checking --------------------------------------------------------------- */

static bool const_plausible(const struct byte_buddy *h, const void *b)
{
	return !((uintptr_t)b & (UNIT - 1)) && piece_search(h, (uintptr_t)b);
}

/* Is a free block where it belongs, with links and poison as they should be? */
static bool free_block_sound(const struct byte_buddy *h, uintptr_t addr, size_t units)
{
	const struct buddy_link *b = link_at(addr);

	if (!in_lists(h, b->at) && !const_plausible(h, b->at))
		return false;
	if (*b->at != b || (b->next && (!const_plausible(h, b->next) || b->next->at != &b->next)))
		return false;
	if (units >= BUDDY_BINS && (!mm_is_pow2(units) || addr & ((units << UNIT_SHIFT) - 1)))
		return false;
	return MM_HARDEN < 2 || poison_intact(addr + UNIT, (units - 1) << UNIT_SHIFT);
}

/* The first block of a piece that is broken. */
static const void *piece_check(const struct byte_buddy *h, const struct buddy_piece *piece,
			       size_t *nfree)
{
	uintptr_t addr = piece->first;
	size_t live = 0;

	while (addr < piece->end) {
		const struct granule *g = granule_of(piece, addr);
		unsigned int bit = unit_in_granule(addr);
		size_t units;

		if (!starts_block(g, bit))
			return (const void *)addr;
		units = block_units(g, bit);
		if (!units || units > (piece->end - addr) >> UNIT_SHIFT)
			return (const void *)addr;
		if (is_live(g, bit))
			live += units << UNIT_SHIFT;
		else if (!free_block_sound(h, addr, units))
			return (const void *)addr;
		else
			++*nfree;
		addr += units << UNIT_SHIFT;
	}
	return live == piece->live_bytes ? NULL : piece;
}

/* Length of a list whose blocks all have this many units; more than `most` when it is broken. */
static size_t list_length(const struct byte_buddy *h, unsigned int list, size_t units, size_t most)
{
	size_t n = 0;

	for (const struct buddy_link *b = h->lists[list]; b && n <= most; b = b->next, n++) {
		uintptr_t addr = (uintptr_t)b;
		const struct buddy_piece *piece =
			const_plausible(h, b) ? piece_search(h, addr) : NULL;
		unsigned int bit = unit_in_granule(addr);
		const struct granule *g;

		if (!piece)
			return most + 1;
		g = granule_of(piece, addr);
		if (!starts_block(g, bit) || is_live(g, bit) || block_units(g, bit) != units)
			return most + 1;
	}
	return n;
}

/* Do the lists hold exactly the free blocks that the map shows? */
static const void *lists_check(const struct byte_buddy *h, size_t nfree)
{
	size_t linked = 0;

	for (unsigned int units = 1; units < BUDDY_BINS; units++) {
		size_t n = list_length(h, units, units, nfree);

		if (n > nfree || n > BIN_DEPTH)
			return &h->lists[units];
		linked += n;
	}
	for (unsigned int order = 0; order < BUDDY_ORDERS; order++) {
		unsigned int list = BUDDY_BINS + order;
		size_t n = list_length(h, list, (size_t)1 << order, nfree);

		if (n > nfree || (n != 0) != (h->orders >> order & 1))
			return &h->lists[list];
		linked += n;
	}
	return linked == nfree ? NULL : h->lists;
}

static const void *buddy_check(const struct byte_alloc *a)
{
	const struct byte_buddy *h = const_buddy_of(a);
	size_t nfree = 0;
	size_t empty = 0;

	for (const struct buddy_piece *piece = h->pieces; piece; piece = piece->next) {
		const void *broken = piece_check(h, piece, &nfree);

		if (broken)
			return broken;
		empty += !piece->live_bytes;
	}
	if (empty != h->empty_pieces)
		return &h->empty_pieces;
	return lists_check(h, nfree);
}

const struct byte_ops byte_buddy_ops = {
	.name = "buddy",
	.init = buddy_init,
	.add_memory = buddy_add_memory,
	.alloc = buddy_alloc,
	.dealloc = buddy_dealloc,
	.resize = buddy_resize,
	.grow_size = buddy_grow_size,
	.take_free = buddy_take_free,
	.block_size = buddy_block_size,
	.total_bytes = buddy_total_bytes,
	.used_bytes = buddy_used_bytes,
	.available_bytes = buddy_available_bytes,
	.walk = buddy_walk,
	.check = buddy_check,
};
