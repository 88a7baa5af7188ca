/* SPDX-License-Identifier: MIT */
/*
 * Private to the buddy engine: its nodes, what is known of them, and how they are reached. The
 * theory of operation stands in byte_buddy.c.
 */
#ifndef MM_BYTE_BUDDY_NODES_H
#define MM_BYTE_BUDDY_NODES_H

#include <mm/byte_buddy.h>

#include "bits.h"

#define UNIT_SHIFT    4u
#define UNIT	      ((size_t)1 << UNIT_SHIFT)
#define LEVEL_SHIFT   6u /* a node has 64 children */
#define NODE_CHILDREN 64u
#define BANK	      2u /* the level of banks */
#define BANK_LISTS    (BANK * BUDDY_CLASSES)
#define NO_CLASS      BUDDY_CLASSES
#define TAIL_BYTES    (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)
#define POISON	      0xdfdfdfdfdfdfdfdfu

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct buddy_link {
	struct buddy_link *next;
	struct buddy_link **at; /* what points to this one */
};

/*
 * What is known of the 64 children of a node, a bit of each word for each:
 *   start used
 *     0    0   free
 *     1    1   a live block starts here
 *     0    1   and goes on here
 *     1    0   split: the child's own node says more. Of a unit: a parked run starts here
 *              (at level 0 these look live, as parked runs of 64 units and more do at any level)
 */
struct marks {
	uint64_t start, used;
};

/* Level 1: 64 granules. */
struct chunk {
	struct marks marks;
	uint32_t some;			      /* bit c: granules[c] is valid, and not 0 */
	uint8_t class;			      /* of its own free children */
	uint8_t granule_class[NODE_CHILDREN]; /* of those that are split */
	uint64_t granules[BUDDY_CLASSES];     /* the granules of a class */
};

/* Levels 2 and up. */
struct node {
	struct marks marks;
	struct buddy_piece *piece;
	uintptr_t base; /* where its first child lies */
	struct buddy_link link;
	uint8_t class;
};

/* Level 2: 64 chunks; also the sets of those that have something free below them. */
struct bank {
	struct node node;
	uint64_t some; /* bit l: chunks[l] is valid, and not 0, and links[l] is in list l */
	uint64_t chunks[BANK_LISTS];
	struct buddy_link links[BANK_LISTS];
};

struct buddy_piece {
	struct buddy_piece *left, *right;
	uintptr_t first, end;	       /* what can be handed out */
	uintptr_t written;	       /* where the byte of the chunk of address 0 would be */
	uintptr_t granules, chunks;    /* where those of address 0 would be */
	uintptr_t nodes[BUDDY_LEVELS]; /* the same of levels 2 and up, but for the root */
	struct node *root;
	unsigned int top;  /* the level of the root */
	uintptr_t base;	   /* where its children start; they are numbered in a circle */
	size_t live_units; /* or parked */
	void *start;	   /* as it was given */
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

/* --- Lengths, levels and classes -------------------------------------------- */

static inline size_t units_for(size_t size)
{
	return (size + TAIL_BYTES + UNIT - 1) >> UNIT_SHIFT;
}

/* Units of one child of a node of this level, as a shift; its bytes; the node's bytes. */
static inline unsigned int level_shift(unsigned int level)
{
	return LEVEL_SHIFT * level;
}

static inline uintptr_t child_bytes(unsigned int level)
{
	return (uintptr_t)UNIT << level_shift(level);
}

static inline uintptr_t node_bytes(unsigned int level)
{
	return child_bytes(level + 1);
}

/* The number of the node of this level that an address is in. */
static inline uintptr_t node_number(unsigned int level, uintptr_t addr)
{
	return addr >> UNIT_SHIFT >> level_shift(level + 1);
}

static inline unsigned int child_index(unsigned int level, uintptr_t addr)
{
	return (unsigned int)(addr >> UNIT_SHIFT >> level_shift(level)) & (NODE_CHILDREN - 1);
}

static inline unsigned int level_for(size_t units)
{
	return mm_fls(units) / LEVEL_SHIFT;
}

/* Whole children that a block takes at its level, without the last part of a child. */
static inline unsigned int whole_children(unsigned int level, size_t units)
{
	return (unsigned int)(units >> level_shift(level));
}

static inline bool has_tail(unsigned int level, size_t units)
{
	return units & (((size_t)1 << level_shift(level)) - 1);
}

/* Do the marks of a run of this length say that it is parked? Only where frees are checked. */
static inline bool is_marked(size_t units)
{
	return MM_HARDEN && units < NODE_CHILDREN;
}

static inline uint64_t bit_at(unsigned int i)
{
	return (uint64_t)1 << i;
}

static inline uint64_t rotate_left(uint64_t word, unsigned int n)
{
	return word << n | word >> (-n & 63u);
}

/* The lowest n bits. Pre: n < 64. */
static inline uint64_t low_bits(unsigned int n)
{
	return bit_at(n) - 1;
}

/*
 * Classes of run length in a node: 4k + s stands for 2^k + s * 2^(k-2) children, lying
 * at a multiple of 2^k. The class of n children, rounded up; 24 for all 64.
 */
static inline unsigned int class_for(unsigned int n)
{
	unsigned int k = mm_fls(n);

	return 4 * k + (((n - (1u << k)) * 4 + (1u << k) - 1) >> k);
}

static inline unsigned int class_length(unsigned int class)
{
	return (4 + class % 4) << class / 4 >> 2;
}

/* The list where a search for so many units starts. */
static inline unsigned int list_for(size_t units)
{
	unsigned int level = level_for(units);
	unsigned int n = whole_children(level, units) + has_tail(level, units);

	return level * BUDDY_CLASSES + class_for(n);
}

/* Where an aligned block of 2^k children may start. */
static const uint64_t block_starts[] = {
	UINT64_MAX,	     0x5555555555555555u, 0x1111111111111111u,
	0x0101010101010101u, 0x0001000100010001u, 0x0000000100000001u,
};

/* The places of free buddies of order k, from those of order k - 1. */
static inline uint64_t merge_places(uint64_t places, unsigned int k)
{
	return places & places >> (1u << (k - 1)) & block_starts[k];
}

/* Where a run of this class can be taken from these free children. */
static inline uint64_t places_of(uint64_t free, unsigned int class)
{
	unsigned int k = class / 4;
	unsigned int end = 1u << k;
	uint64_t half = 0, quarter = 0;

	for (unsigned int i = 1; i <= k; i++) {
		quarter = half;
		half = free;
		free = merge_places(free, i);
	}
	if (class & 2) {
		free &= half >> end;
		end += end / 2;
	}
	if (class & 1)
		free &= quarter >> end;
	return free;
}

/* The class of the longest run at the places of order k, from those of orders k - 1 and k - 2. */
static inline unsigned int class_at(unsigned int k, uint64_t places, uint64_t half,
				    uint64_t quarter)
{
	unsigned int end = 1u << k;
	uint64_t longer = places & half >> end;

	if (longer)
		return 4 * k + 2 + !!(longer & quarter >> (end + end / 2));
	return 4 * k + !!(places & quarter >> end);
}

/* The largest class of which there is a run; all orders at once. Pre: not all are free. */
static inline unsigned int class_of(uint64_t free)
{
	uint64_t b1 = merge_places(free, 1), b2 = merge_places(b1, 2);
	uint64_t b3 = merge_places(b2, 3), b4 = merge_places(b3, 4), b5 = merge_places(b4, 5);

	if (b3) {
		if (b5)
			return class_at(5, b5, b4, b3);
		return b4 ? class_at(4, b4, b3, b2) : class_at(3, b3, b2, b1);
	}
	if (b2)
		return class_at(2, b2, b1, free);
	if (b1)
		return class_at(1, b1, free, 0);
	return free ? 0 : NO_CLASS;
}

/* --- Pieces of memory ------------------------------------------------------- */

/* The first piece that ends behind this address; so byte_buddy_piece_from(h, 0) is the first of
 * all. */
struct buddy_piece *byte_buddy_piece_from(const struct byte_buddy *h, uintptr_t addr);

/* The piece with this address in what it can hand out, or NULL. */
struct buddy_piece *byte_buddy_piece_search(const struct byte_buddy *h, uintptr_t addr);

void byte_buddy_tree_insert(struct buddy_piece **at, struct buddy_piece *piece);
void byte_buddy_tree_remove(struct buddy_piece **at, struct buddy_piece *piece);

static inline struct buddy_piece *piece_next(const struct byte_buddy *h,
					     const struct buddy_piece *piece)
{
	return byte_buddy_piece_from(h, (uintptr_t)piece->start + piece->nbytes);
}

static inline bool piece_has(const struct buddy_piece *piece, uintptr_t addr)
{
	return addr - piece->first < piece->end - piece->first;
}

/* --- Nodes ------------------------------------------------------------------ */

static inline struct marks *granule_in(uintptr_t granules, uintptr_t addr)
{
	return (struct marks *)(granules + node_number(0, addr) * sizeof(struct marks));
}

/* Was anything ever split off this chunk? Only then its marks and its granules' mean something. */
static inline uint8_t *written_at(uintptr_t written, uintptr_t addr)
{
	return (uint8_t *)(written + node_number(1, addr));
}

static inline struct marks *granule_of(const struct buddy_piece *piece, uintptr_t addr)
{
	return granule_in(piece->granules, addr);
}

static inline struct chunk *chunk_of(const struct buddy_piece *piece, uintptr_t addr)
{
	return (struct chunk *)(piece->chunks + node_number(1, addr) * sizeof(struct chunk));
}

static inline size_t node_size(unsigned int level)
{
	return level == BANK ? sizeof(struct bank) : sizeof(struct node);
}

/* Pre: level >= BANK. */
static inline struct node *node_of(const struct buddy_piece *piece, unsigned int level,
				   uintptr_t addr)
{
	if (level == piece->top)
		return piece->root;
	return (struct node *)(piece->nodes[level] + node_number(level, addr) * node_size(level));
}

static inline struct bank *bank_of(const struct buddy_piece *piece, uintptr_t addr)
{
	return (struct bank *)node_of(piece, BANK, addr);
}

static inline struct marks *marks_of(const struct buddy_piece *piece, unsigned int level,
				     uintptr_t addr)
{
	if (level == 0)
		return granule_of(piece, addr);
	if (level == 1)
		return &chunk_of(piece, addr)->marks;
	return &node_of(piece, level, addr)->marks;
}

/* Where the children of the node that an address is in start. */
static inline uintptr_t node_base(const struct buddy_piece *piece, unsigned int level,
				  uintptr_t addr)
{
	return level == piece->top ? piece->base : mm_align_down(addr, node_bytes(level));
}

static inline uint64_t free_children(const struct marks *m)
{
	return ~(m->start | m->used);
}

static inline bool is_split(const struct marks *m, unsigned int i)
{
	return (m->start & ~m->used) >> i & 1;
}

static inline bool starts_live(const struct marks *m, unsigned int i)
{
	return (m->start & m->used) >> i & 1;
}

/* Children from the i-th on into which a block that started before goes on. */
static inline unsigned int continuation(const struct marks *m, unsigned int i)
{
	uint64_t other = (m->start | ~m->used) >> i;

	return other ? mm_ctz(other) : NODE_CHILDREN - i;
}

/* Where the i-th child of a node lies. The children of a root are numbered in a circle. */
static inline uintptr_t child_addr(unsigned int level, uintptr_t base, unsigned int i)
{
	return base + (uintptr_t)((i - child_index(level, base)) & (NODE_CHILDREN - 1)) *
			      child_bytes(level);
}

/* The address of the lowest of some children. */
static inline uintptr_t lowest_child(unsigned int level, uintptr_t base, uint64_t children)
{
	unsigned int first = child_index(level, base);

	return base + mm_ctz(rotate_left(children, -first & 63u)) * child_bytes(level);
}

/* The class of what is free in a node, or of nothing: when it is all. */
static inline unsigned int class_due(const struct marks *m)
{
	uint64_t free = free_children(m);

	return unlikely(free == UINT64_MAX) ? NO_CLASS : class_of(free);
}

/* Free children that are next to each other. */
struct spot {
	struct buddy_piece *piece;
	uintptr_t addr;
	unsigned int level;  /* of the node whose children they are */
	unsigned int length; /* so many at least */
};

/* --- Free memory ------------------------------------------------------------ */

/* What is in a list through this link: a node of level 2 and up, or a bank for a list below. */
static inline struct node *node_in_list(const struct buddy_link *b)
{
	return (struct node *)((uintptr_t)b - offsetof(struct node, link));
}

static inline struct bank *bank_in_list(unsigned int list, const struct buddy_link *b)
{
	return (struct bank *)((uintptr_t)b - offsetof(struct bank, links) - list * sizeof(*b));
}

static inline bool same_granule(uintptr_t a, uintptr_t b)
{
	return (a ^ b) < node_bytes(0);
}

/* --- What is at an address -------------------------------------------------- */

enum block_state { BLOCK_FREE, BLOCK_PARKED, BLOCK_LIVE, BLOCK_INSIDE };

struct block {
	enum block_state state;
	size_t units;
};

/* The length of a live block that starts with the i-th child. */
size_t byte_buddy_live_units(const struct buddy_piece *piece, unsigned int level, uintptr_t addr);

/* Pre: a unit's address in the piece. Units only when a block or a run starts there. */
struct block byte_buddy_block_at(const struct buddy_piece *piece, uintptr_t addr);

/* Is the address in a parked run, behind its start? */
bool byte_buddy_inside_parked(const struct buddy_piece *piece, uintptr_t addr);

/* Can a block lie at a child of a node of its level? Its last part may go to a split child. */
bool byte_buddy_block_fits(const struct buddy_piece *piece, uintptr_t addr, size_t units);

/*
 * Before a request above 64 units fails: some nodes may have place for it that is not aligned to
 * its size, or where its last part goes to a child that is split already. Any run of n children
 * has an aligned one of a half of that in it, which is where the search starts.
 */
bool byte_buddy_find_tight(const struct byte_buddy *h, size_t units, size_t align, struct spot *s);

static inline bool poison_intact(uintptr_t addr, size_t nbytes)
{
	const uint64_t *p = (const uint64_t *)addr;

	for (size_t i = 0; i < nbytes / sizeof(*p); i++)
		if (p[i] != POISON)
			return false;
	return true;
}

/* The run that was parked last; 0, where the stack ends, when there is none. */
static inline uintptr_t *parked_top(const struct byte_buddy *h, size_t units)
{
	return (uintptr_t *)((uintptr_t)h->stack + h->top[units]);
}

/* Others than short ones look live in the marks: are they parked? */
static inline bool is_parked(const struct byte_buddy *h, uintptr_t addr, size_t units)
{
	if (is_marked(units) || units >= BUDDY_PARKED_UNITS)
		return false;
	for (const uintptr_t *run = parked_top(h, units); *run; run++)
		if (*run == addr)
			return true;
	return false;
}

static inline bool quarantined(const struct byte_buddy *h, uintptr_t addr)
{
	if (MM_HARDEN < 3)
		return false;
	for (size_t i = 0; i < BUDDY_QUARANTINE; i++)
		if (h->held[i] == addr)
			return true;
	return false;
}

/* --- byte_buddy_check.c --- */

const void *byte_buddy_check(const struct byte_alloc *a);
void byte_buddy_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx);

#endif
