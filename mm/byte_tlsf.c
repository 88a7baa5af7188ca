/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Blocks. Memory is cut into blocks in units of 8 bytes. A block has no header: the size of the
 * one that serves a request follows from the layout, which the caller gives back. A free block
 * holds its size in its first and last word, and its links. The least block is 24 bytes, where
 * the last word is a link; as links are even and sizes are kept odd, they are told apart. Only
 * what needs an alignment of 16 pays for it: its size is a multiple of 16.
 *
 * Map. Two bits for each unit, out of line at the start of each piece of memory, tell what is
 * where: "a live block starts here", and "free memory starts or ends here", which is an edge.
 * Free blocks never touch, so these two tell at once whether an address is no boundary, lies
 * between two live blocks, or on which side memory is free. To make memory free or live is to
 * flip the first bit at its start and the second at both ends, whatever lies around it; and the
 * edges, as they were, say where to merge. So there are no cases, and no bit to search.
 *
 * Crumbs. What remains of a split can be too small for a list (under 24 bytes). It becomes a
 * free block all the same, in no list, and is merged when a neighbour is freed.
 *
 * Lists. Sizes below 1024 have lists of their own, so a small request is met by an exact fit,
 * with no arithmetic but a shift; further rows have 64 lists per power of two, 1.6 % apart. One
 * bit per list and one per row: the next list that has a block is found with two bit searches.
 * A large request first looks at SCAN_DEPTH blocks of the list that its own size falls into,
 * where some may fit, before it goes to the next list, where all do: good fit, and constant
 * time. A split takes the front of a block; what remains mostly stays in its list.
 *
 * Kept blocks. Most programs free a size that they ask for again soon. So a freed block of up to
 * KEPT_MAX bytes is first put, unmerged and for the map live, into a set of places for sizes like
 * its own. Its address says which of the TLSF_WAYS places of the set, so the free looks at one
 * place only, and a second free of a kept block finds it there; what was there before is
 * released. An allocation looks for its size in all places of the set. Two thirds of all
 * allocations of the traces at hand are served from there, in about 25 instructions, and their
 * frees in about as many. When a request finds no block in the lists, what is kept is released,
 * set by set, until one is found: TLSF_KEPT blocks at most, so that bounds it. Or the user has it
 * released in parts (settle), between which he may let others in or find memory elsewhere.
 *
 * Pieces. Each is a separate stretch of memory that is never merged with another, so that it
 * can go back. Behind its last block the map has a live one that is never freed, so merging
 * stops there. The piece used last is remembered, and by a few bits of the address the one that
 * each other was last found in; the rest are found in a balanced tree, which is built anew when a
 * piece comes or goes. The map of a piece of any size is cleared in frames of 1 KiB, when the
 * first boundary comes into a frame, so that giving a gigabyte costs no time in proportion, and a
 * heap may grow while its lock is held. From the start of a piece up to its `frontier` there is
 * no need to ask. Cleared at once is the map of the first piece, of up to 256 MiB, as that comes
 * when a heap is made; and a small one.
 *
 * Hardening. 0 trusts the caller, but for pointers beyond all pieces. 1 looks a pointer up in
 * the map: it must be the start of a live block, which ends where the layout says; so a double
 * free, a pointer into a block and a wrong size are found with two words of the map, and no
 * overflow can forge that. Sizes and links in free blocks are compared with each other before
 * they are followed: what is broken is not merged with, and a list whose first block is broken
 * is dropped, and reported. 2 adds bytes behind the request that must be unchanged, and poison
 * in free memory, which is verified before reuse; nothing is kept. 3 keeps freed blocks from
 * reuse, and verifies everything every few operations.
 *
 * What bounds time: no loop but over SCAN_DEPTH blocks, LOOK_AHEAD cells, the TLSF_KEPT kept
 * blocks and the depth of the tree of pieces. tests/worst counts the instructions of the worst
 * sequences.
 *
 * Shortcomings. A request that finds the lists empty may cost tens of thousands of instructions
 * once, for what is kept, unless it is settled in parts. A pointer of a piece that is not
 * remembered costs a search in the tree, log2 of the number of pieces. Adding and removing a piece
 * is linear in their number; and the first one, of up to 256 MiB, has its map cleared when it
 * comes. At level 1 a size that is wrong by less than a unit, or an alignment that leads to the
 * same size, is taken for right; so is, for blocks over 8 KiB, one that ends exactly where a later
 * block does with no boundary in the first 8 KiB nor in the last 512 bytes. An overflow into a live
 * block is not noticed below level 2, for there is no metadata in its way. What is in a dropped
 * list, and a block between broken ones, is lost. The map takes 3.1 % of memory, and levels 2 and 3
 * time in proportion to the size.
 */
#include "byte_tlsf_map.h"

#define BLOCK_LIMIT   ((size_t)1 << (TLSF_ROWS + 8))
#define SCAN_DEPTH    4u
#define FRAME_SPAN    ((size_t)1 << FRAME_SHIFT)
#define FRAME_BYTES   (sizeof(struct tlsf_cell) << (FRAME_SHIFT - CELL_SHIFT))
#define EAGER_FIRST   ((size_t)256 << 20) /* a piece whose map is cleared at once: the first */
#define EAGER_LATER   ((size_t)256 << 10) /* and another */
#define SEEN_BYTES    ((size_t)1 << 19) /* the pieces of so many neighbouring bytes share a place */
#define ADVANCE_MAX   2			/* frames that the frontier passes at once */
#define KEPT_MAX      MM_PAGE_SIZE
#define TOP_BIT	      ((uint64_t)1 << 63)
#define SLACK	      0xca
#define LOOK_BACK     16u /* cells, to tell a double free */
#define LOOK_AHEAD    16  /* cells, to tell a wrong size */
#define SETTLE_BLOCKS 8u  /* at least, in a part, if so many are kept */
#define AUDIT_PERIOD  64u
#define COLD	      static __attribute__((noinline))
#define HOT	      static inline __attribute__((always_inline))

/* So sure that the compiler keeps a branch where it could compute both ways. */
static inline bool unlikely(bool x)
{
	return __builtin_expect_with_probability(x, 0, 0.999);
}

static inline struct byte_tlsf *tlsf_of(struct byte_alloc *a)
{
	return (struct byte_tlsf *)a;
}

/* --- Sizes and free blocks -------------------------------------------------- */

/* The size of the block that serves a request. Exact: it follows from the layout alone. */
static inline size_t block_bytes(size_t size, size_t align)
{
	size_t nbytes = (size + TAIL + UNIT - 1) & ~(UNIT - 1);

	if (nbytes < MIN_BLOCK)
		nbytes = MIN_BLOCK;
	if (unlikely(align > UNIT))
		nbytes = (nbytes + UNIT) & ~(2 * UNIT - 1);
	return nbytes;
}

/* Is this address as aligned as a request asks for, beyond what any block is? */
static inline bool is_aligned(uintptr_t addr, size_t align)
{
	return align <= UNIT || !(addr & (align - 1));
}

/* Before the block is put into a list, as the links may be where the second tag is. */
static inline void set_tags(struct tlsf_block *b, size_t nbytes)
{
	b->tag = nbytes | 1;
	*last_word(b, nbytes) = nbytes | 1;
}

/* --- Pieces of memory ------------------------------------------------------- */

struct tlsf_piece *byte_tlsf_piece_search(const struct byte_tlsf *h, uintptr_t addr)
{
	struct tlsf_piece *piece = h->root;

	while (piece && !in_view(&piece->view, addr))
		piece = addr < piece->view.first ? piece->left : piece->right;
	return piece;
}

static inline uintptr_t *place_of(const struct byte_tlsf *h, uintptr_t addr)
{
	return (uintptr_t *)((uintptr_t)h->seen + mm_place(addr, SEEN_BYTES, sizeof(h->seen)));
}

/* The view of the piece that an address like this was last in, or that of the piece used last. */
static inline struct tlsf_view *seen(const struct byte_tlsf *h, uintptr_t addr)
{
	return (struct tlsf_view *)((uintptr_t)&h->view + *place_of(h, addr));
}

static inline void remember(struct byte_tlsf *h, struct tlsf_piece *piece, uintptr_t addr)
{
	*place_of(h, addr) = (uintptr_t)&piece->view - (uintptr_t)&h->view;
}

COLD bool view_switch(struct byte_tlsf *h, uintptr_t addr)
{
	struct tlsf_piece *piece = (struct tlsf_piece *)seen(h, addr);

	if (!in_view(&piece->view, addr)) {
		piece = byte_tlsf_piece_search(h, addr);
		if (!piece)
			return false;
		remember(h, piece, addr);
	}
	h->view = piece->view;
	h->current = piece;
	return true;
}

/* Make the piece of this address the one used last. False: there is none. */
static inline bool view(struct byte_tlsf *h, uintptr_t addr)
{
	return in_view(&h->view, addr) || view_switch(h, addr);
}

COLD bool owns_elsewhere(const struct byte_tlsf *h, uintptr_t addr)
{
	return in_view(seen(h, addr), addr) || byte_tlsf_piece_search(h, addr);
}

/* Is this an address in the blocks of any piece? */
static inline bool owns(const struct byte_tlsf *h, uintptr_t addr)
{
	return in_view(&h->view, addr) || owns_elsewhere(h, addr);
}

static void piece_add_empty(struct byte_tlsf *h, struct tlsf_piece *piece)
{
	piece->next_empty = h->empty;
	piece->at_empty = &h->empty;
	if (h->empty)
		h->empty->at_empty = &piece->next_empty;
	h->empty = piece;
}

static void piece_remove_empty(struct tlsf_piece *piece)
{
	*piece->at_empty = piece->next_empty;
	if (piece->next_empty)
		piece->next_empty->at_empty = piece->at_empty;
}

/* Is this all of the piece in view? */
static inline bool is_whole(const struct byte_tlsf *h, const struct tlsf_block *b, size_t nbytes)
{
	return nbytes == h->view.span && (uintptr_t)b == h->view.first;
}

/* --- The map ---------------------------------------------------------------- */

/* Join what ends and what starts here into one live block, or part it. */
static inline void flip_live(const struct tlsf_view *v, uintptr_t addr)
{
	cell_at(v->map, addr)->live ^= mask_of(addr);
}

/*
 * Free memory from one address to another becomes a live block or the reverse, whatever
 * lies around it. Each end tells whether free memory met live memory there before.
 */
static inline uint64_t flip_start(uintptr_t map, uintptr_t addr)
{
	struct tlsf_cell *c = cell_at(map, addr);
	uint64_t mask = mask_of(addr);
	uint64_t edge = c->edge;

	c->live ^= mask;
	c->edge = edge ^ mask;
	return edge & mask;
}

static inline uint64_t flip_end(uintptr_t map, uintptr_t addr)
{
	struct tlsf_cell *c = cell_at(map, addr);
	uint64_t mask = mask_of(addr);
	uint64_t edge = c->edge;

	c->edge = edge ^ mask;
	return edge & mask;
}

static inline void flip(uintptr_t map, uintptr_t start, uintptr_t end)
{
	(void)flip_start(map, start);
	(void)flip_end(map, end);
}

static void frame_clear(const struct tlsf_piece *piece, uintptr_t addr)
{
	if (is_prepared(piece, addr))
		return;
	*frame_at(piece, addr) = 1;
	__builtin_memset(cell_at(piece->view.map, mm_align_down(addr, FRAME_SPAN)), 0, FRAME_BYTES);
}

/* The frontier of the piece in view comes nearer to an address that is not below it. */
static void frontier_advance(struct byte_tlsf *h, uintptr_t addr)
{
	struct tlsf_piece *piece = h->current;
	struct tlsf_view *v = &piece->view;

	for (int n = 0; n < ADVANCE_MAX && piece->frontier <= addr; n++) {
		frame_clear(piece, piece->frontier);
		piece->frontier += FRAME_SPAN;
	}
	v->fresh = piece->frontier - CELL_SPAN;
	v->cleared = v->fresh - v->first;
	if (v->cleared > v->span)
		v->cleared = v->span;
	h->view.fresh = v->fresh;
	h->view.cleared = v->cleared;
}

/* This cell and the one after it, which a check of the block that starts here looks at, too. */
COLD void map_clear(struct byte_tlsf *h, uintptr_t addr)
{
	frame_clear(h->current, addr);
	frame_clear(h->current, addr + CELL_SPAN);
	frontier_advance(h, addr + CELL_SPAN);
}

/* Before the first boundary is made here, in view. */
static inline void map_prepare(struct byte_tlsf *h, uintptr_t addr)
{
	if (unlikely(addr >= h->view.fresh))
		map_clear(h, addr);
}

/* --- Free lists ------------------------------------------------------------- */

HOT void list_insert(struct byte_tlsf *h, struct tlsf_block *b, size_t i)
{
	struct tlsf_block *next = h->lists[i];

	b->next = next;
	b->at = &h->lists[i];
	h->lists[i] = b;
	if (next) {
		next->at = &b->next;
		return;
	}
	h->cols[i / TLSF_COLS] |= (uint64_t)1 << (i % TLSF_COLS);
	h->rows |= (uint64_t)1 << (i / TLSF_COLS);
}

static inline void list_mark_empty(struct byte_tlsf *h, size_t i)
{
	uint64_t cols = h->cols[i / TLSF_COLS] & ~((uint64_t)1 << (i % TLSF_COLS));

	h->cols[i / TLSF_COLS] = cols;
	if (!cols)
		h->rows &= ~((uint64_t)1 << (i / TLSF_COLS));
}

/* How far into the list heads this is; as much as they are long, or more: it is none. */
static inline size_t head_offset(const struct byte_tlsf *h, struct tlsf_block *const *at)
{
	return (uintptr_t)at - (uintptr_t)h->lists;
}

static inline void list_remove(struct byte_tlsf *h, struct tlsf_block *b)
{
	struct tlsf_block *next = b->next;
	struct tlsf_block **at = b->at;
	size_t head = head_offset(h, at);

	*at = next;
	if (next)
		next->at = at;
	else if (head < sizeof(h->lists)) /* it was the only one */
		list_mark_empty(h, head / sizeof(*at));
}

/* Remove the first block of a list. */
static inline void list_pop(struct byte_tlsf *h, size_t i)
{
	struct tlsf_block *next = h->lists[i]->next;

	h->lists[i] = next;
	if (next)
		next->at = &h->lists[i];
	else
		list_mark_empty(h, i);
}

/* A block whose start moves and whose list stays. */
static inline void list_move(struct tlsf_block *from, struct tlsf_block *to)
{
	struct tlsf_block *next = from->next;
	struct tlsf_block **at = from->at;

	*at = to;
	to->next = next;
	to->at = at;
	if (next)
		next->at = &to->next;
}

/* The first list from i on that has a block, or NLISTS. */
static inline size_t list_search(const struct byte_tlsf *h, size_t i)
{
	size_t row = i / TLSF_COLS;
	uint64_t bits = h->cols[row] >> (i % TLSF_COLS);

	if (bits)
		return i + mm_ctz(bits);
	bits = h->rows & (~(uint64_t)1 << row);
	if (!bits)
		return NLISTS;
	row = mm_ctz(bits);
	return row * TLSF_COLS + mm_ctz(h->cols[row]);
}

/* --- Trust in free blocks --------------------------------------------------- */

static void report(enum mm_fault_kind kind, uintptr_t addr)
{
	mm_fault_report(&(struct mm_fault){
		.kind = kind, .allocator = byte_tlsf_ops.name, .ptr = (const void *)addr});
}

/* Does the block after b in its list, if any, point back at b? */
static inline bool next_agrees(const struct byte_tlsf *h, const struct tlsf_block *b)
{
	const struct tlsf_block *next = b->next;

	return !next ||
	       (!((uintptr_t)next % UNIT) && owns(h, (uintptr_t)next) && next->at == &b->next);
}

/* Do the links of a free block in view, and those around it, agree? */
static inline bool links_agree(const struct byte_tlsf *h, const struct tlsf_block *b)
{
	struct tlsf_block *const *at = b->at;

	if ((uintptr_t)at % UNIT ||
	    (head_offset(h, at) >= sizeof(h->lists) && !owns(h, (uintptr_t)at)))
		return false;
	return *at == b && next_agrees(h, b);
}

/* Does the size of a free block in view, which its first tag tells, lead to its last tag? */
static inline bool tags_agree(const struct byte_tlsf *h, const struct tlsf_block *b, size_t nbytes)
{
	if (nbytes > view_end(&h->view) - (uintptr_t)b || nbytes % UNIT)
		return false;
	return nbytes == MIN_BLOCK || *last_word(b, nbytes) == (nbytes | 1);
}

/* Is what the map says to start here in view a free block, as it should be? */
static inline bool sound_at(const struct byte_tlsf *h, uintptr_t addr)
{
	const struct tlsf_block *b = block_at(addr);
	size_t nbytes = size_of(b);

	return tags_agree(h, b, nbytes) && (nbytes < MIN_BLOCK || links_agree(h, b));
}

/* Is what the map says to end here a free block, as it should be? */
static inline bool sound_before(const struct byte_tlsf *h, uintptr_t addr)
{
	size_t nbytes = size_before(addr);
	const struct tlsf_block *b = block_at(addr - nbytes);

	if (nbytes > addr - h->view.first || nbytes % UNIT || b->tag != (nbytes | 1))
		return false;
	return nbytes < MIN_BLOCK || links_agree(h, b);
}

/* Can the first block of list i, which is in view, be parted or unlinked? */
static inline bool head_sound(const struct byte_tlsf *h, const struct tlsf_block *b, size_t i)
{
	return b->at == &h->lists[i] && tags_agree(h, b, size_of(b)) && list_of(size_of(b)) == i &&
	       next_agrees(h, b);
}

/* A broken list is emptied: what was in it is lost, and nothing else. */
COLD void list_drop(struct byte_tlsf *h, size_t i)
{
	report(MM_FAULT_CORRUPT, (uintptr_t)h->lists[i]);
	h->lists[i] = NULL;
	list_mark_empty(h, i);
}

/* --- Poison and slack (level 2) --------------------------------------------- */

static void poison(uintptr_t from, uintptr_t to)
{
	for (; from < to; from += UNIT)
		*(uint64_t *)from = POISON;
}

static inline uintptr_t clip(uintptr_t addr, uintptr_t low, uintptr_t high)
{
	return addr < low ? low : addr > high ? high : addr;
}

/* A free block has a new part: also its neighbours' tags and links are contents now. */
static void poison_part(const struct tlsf_block *b, uintptr_t from, uintptr_t to)
{
	uintptr_t low = poison_start(b), high = poison_end(b);

	if (MM_HARDEN >= 2 && low < high)
		poison(clip(from - UNIT, low, high), clip(to + sizeof(*b), low, high));
}

/* Reported, and the block used all the same: its metadata were verified, its contents are nobody's.
 */
static void verify_poison(const struct tlsf_block *b, uintptr_t from, uintptr_t to)
{
	uintptr_t low = poison_start(b), high = poison_end(b);

	if (MM_HARDEN >= 2 && low < high && !is_poison(clip(from, low, high), clip(to, low, high)))
		report(MM_FAULT_WRITE_AFTER_FREE, (uintptr_t)b);
}

static void slack_write(uintptr_t p, size_t size, size_t nbytes)
{
	if (MM_HARDEN >= 2)
		__builtin_memset((void *)(p + size), SLACK, nbytes - size);
}

static bool slack_intact(uintptr_t p, size_t size, size_t nbytes)
{
	for (size_t i = size; MM_HARDEN >= 2 && i < nbytes; i++)
		if (((const uint8_t *)p)[i] != SLACK)
			return false;
	return true;
}

/* --- Giving back ------------------------------------------------------------ */

/* A free block, of which the part from start to end is new, goes where it belongs. */
HOT void list_free(struct byte_tlsf *h, struct tlsf_block *b, size_t nbytes, uintptr_t start,
		   uintptr_t end)
{
	set_tags(b, nbytes);
	if (nbytes >= MIN_BLOCK)
		list_insert(h, b, list_of(nbytes));
	if (is_whole(h, b, nbytes))
		piece_add_empty(h, h->current);
	poison_part(b, start, end);
}

/* Merge a block that was just made free, on the sides where free memory lies. */
COLD void merge(struct byte_tlsf *h, uintptr_t start, size_t nbytes, uint64_t left, uint64_t right)
{
	uintptr_t end = start + nbytes;
	struct tlsf_block *b = block_at(start);

	/* With what is broken nothing is merged: the block stays live, and is lost. */
	if (MM_HARDEN && ((left && !sound_before(h, start)) || (right && !sound_at(h, end)))) {
		flip(h->view.map, start, end);
		report(MM_FAULT_CORRUPT, start);
		return;
	}
	h->free_bytes += nbytes;
	if (right) {
		size_t after = size_of(block_at(end));

		nbytes += after;
		if (after >= MIN_BLOCK)
			list_remove(h, block_at(end));
	}
	if (left) {
		size_t before = size_before(start);

		nbytes += before;
		b = block_at(start - before);
		if (before >= MIN_BLOCK)
			list_remove(h, b);
	}
	list_free(h, b, nbytes, start, end);
}

/* Make a live block of the piece in view free. */
HOT void release(struct byte_tlsf *h, uintptr_t start, size_t nbytes)
{
	uintptr_t map = h->view.map;
	uintptr_t end = start + nbytes;
	uint64_t left = flip_start(map, start);
	uint64_t right = flip_end(map, end);
	struct tlsf_block *b = block_at(start);

	if (left | right) {
		merge(h, start, nbytes, left, right);
		return;
	}
	h->free_bytes += nbytes;
	list_free(h, b, nbytes, start, end);
}

/* --- Blocks kept back ------------------------------------------------------- */

/* Where blocks of this size are kept. */
static inline struct tlsf_kept *kept_set(struct byte_tlsf *h, size_t nbytes)
{
	return h->sets[nbytes / (2 * UNIT) % TLSF_SETS].way;
}

static inline struct tlsf_kept *kept_at(struct byte_tlsf *h, unsigned int i)
{
	return &h->sets[i / TLSF_WAYS].way[i % TLSF_WAYS];
}

/* The one place where this block, of the sizes of the set, can be. */
static inline struct tlsf_kept *kept_place(struct tlsf_kept *set, uintptr_t start)
{
	return &set[start / (2 * UNIT) % TLSF_WAYS];
}

/* Is what is kept here this block? */
static inline bool kept_has(const struct tlsf_kept *k, uintptr_t start)
{
	return k->nbytes && k->start == start;
}

/* The first place with a block of this size. */
HOT struct tlsf_kept *kept_find(struct tlsf_kept *set, size_t nbytes)
{
#pragma GCC unroll 8
	for (unsigned int i = 0; i < TLSF_WAYS; i++)
		if (set[i].nbytes == nbytes)
			return &set[i];
	return NULL;
}

/* The same, and aligned more than any block is. */
HOT struct tlsf_kept *kept_find_aligned(struct tlsf_kept *set, size_t nbytes, size_t align)
{
	for (unsigned int i = 0; i < TLSF_WAYS; i++)
		if (set[i].nbytes == nbytes && !(set[i].start & (align - 1)))
			return &set[i];
	return NULL;
}

/* Hand out what is kept here. */
static inline void *kept_take(struct tlsf_kept *k)
{
	uintptr_t start = k->start;

	k->nbytes = 0;
	if (!start)
		__builtin_unreachable(); /* callers need not look whether it is NULL */
	return (void *)start;
}

/* Release what was kept. */
COLD void kept_release(struct byte_tlsf *h, uintptr_t start, size_t nbytes)
{
	if (MM_HARDEN >= 3 && !is_poison(start, start + nbytes))
		report(MM_FAULT_WRITE_AFTER_FREE, start);
	if (view(h, start))
		release(h, start, nbytes);
}

/* Put a freed block where another may be. */
static inline void kept_replace(struct byte_tlsf *h, struct tlsf_kept *k, uintptr_t p,
				size_t nbytes)
{
	struct tlsf_kept old = *k;

	*k = (struct tlsf_kept){p, nbytes};
	kept_release(h, old.start, old.nbytes);
}

/* Release what is kept in a set: so many blocks. */
static unsigned int kept_flush_set(struct byte_tlsf *h, unsigned int set)
{
	unsigned int n = 0;

	for (struct tlsf_kept *k = h->sets[set].way, *end = k + TLSF_WAYS; k < end; k++)
		if (k->nbytes) {
			kept_replace(h, k, 0, 0);
			n++;
		}
	return n;
}

static unsigned int tlsf_settle(struct byte_alloc *a, unsigned int part)
{
	unsigned int n = 0;

	while (part < TLSF_SETS && n < SETTLE_BLOCKS)
		n += kept_flush_set(tlsf_of(a), part++);
	return part < TLSF_SETS ? part : 0;
}

COLD void kept_flush(struct byte_tlsf *h)
{
	unsigned int part = 0;

	do
		part = tlsf_settle(&h->base, part);
	while (part);
}

static size_t kept_bytes(const struct byte_tlsf *h)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < TLSF_KEPT; i++)
		sum += const_kept_at(h, i)->nbytes;
	return sum;
}

static void audit(struct byte_tlsf *h)
{
	const void *broken;

	if (MM_HARDEN < 3 || ++h->tick % AUDIT_PERIOD)
		return;
	broken = byte_tlsf_check(&h->base);
	if (broken)
		report(MM_FAULT_CORRUPT, (uintptr_t)broken);
}

/* --- Allocation ------------------------------------------------------------- */

static inline size_t gap_before(const struct tlsf_block *b, size_t align)
{
	return -(uintptr_t)b & (align - 1);
}

/* Can the first block of list i be used? Then it is in view. */
static inline bool head_usable(struct byte_tlsf *h, const struct tlsf_block *b, size_t i)
{
	return view(h, (uintptr_t)b) && (!MM_HARDEN || head_sound(h, b, i));
}

/* Drop a broken list, and find the first block of the next from there on that can be used. */
COLD struct tlsf_block *find_again(struct byte_tlsf *h, size_t i)
{
	do {
		list_drop(h, i);
		i = list_search(h, i);
	} while (i < NLISTS && !head_usable(h, h->lists[i], i));
	return i < NLISTS ? h->lists[i] : NULL;
}

/* The first block of the first list from i on that has one. */
HOT struct tlsf_block *find_from(struct byte_tlsf *h, size_t i)
{
	struct tlsf_block *b;

	i = list_search(h, i);
	if (i >= NLISTS)
		return NULL;
	b = h->lists[i];
	return unlikely(!head_usable(h, b, i)) ? find_again(h, i) : b;
}

/* Some blocks of list i may fit: look at a few. */
HOT struct tlsf_block *find_among(struct byte_tlsf *h, size_t i, size_t need, size_t align)
{
	struct tlsf_block **at = &h->lists[i];

	for (unsigned int n = 0; *at && n < SCAN_DEPTH; n++, at = &(*at)->next) {
		struct tlsf_block *b = *at;
		bool sound = !MM_HARDEN || (!((uintptr_t)b % UNIT) && owns(h, (uintptr_t)b));

		if (sound && size_of(b) < need + gap_before(b, align))
			continue;
		if (sound && view(h, (uintptr_t)b) && (!MM_HARDEN || sound_at(h, (uintptr_t)b)))
			return b;
		list_drop(h, i);
		return NULL;
	}
	return NULL;
}

HOT struct tlsf_block *find_large(struct byte_tlsf *h, size_t need, size_t align)
{
	size_t most = need + (align > UNIT ? align - UNIT : 0);
	struct tlsf_block *b;

	if (most >= BLOCK_LIMIT - BLOCK_LIMIT / TLSF_COLS)
		return NULL;
	b = find_among(h, list_of(need), need, align);
	if (b)
		return b;
	b = find_from(h, list_of(need) + (need >= LINEAR));
	if (!b || size_of(b) >= need + gap_before(b, align))
		return b;
	return find_from(h, list_of(most) + (most >= LINEAR));
}

/* Are these sizes, the first the smaller, of one list? */
static inline bool same_list(size_t part, size_t whole)
{
	return part >= LINEAR && !((part ^ whole) >> (mm_fls(whole) - COL_LOG));
}

/* What remains of a free block behind a part that was taken from it becomes one of its own, where
 * the map is cleared. */
HOT void list_split(struct byte_tlsf *h, struct tlsf_block *b, size_t was, struct tlsf_block *rest,
		    size_t nbytes)
{
	if (same_list(nbytes, was)) {
		list_move(b, rest);
		set_tags(rest, nbytes);
		return;
	}
	list_remove(h, b);
	set_tags(rest, nbytes);
	if (nbytes >= MIN_BLOCK)
		list_insert(h, rest, list_of(nbytes));
}

/* take, where the map is cleared. */
COLD void *take_cleared(struct byte_tlsf *h, struct tlsf_block *b, size_t need, size_t size)
{
	uintptr_t start = (uintptr_t)b, end = start + need;
	size_t nbytes = size_of(b);

	verify_poison(b, start, end);
	if (is_whole(h, b, nbytes))
		piece_remove_empty(h->current);
	h->free_bytes -= need;
	if (nbytes == need)
		list_remove(h, b);
	else
		list_split(h, b, nbytes, block_at(end), nbytes - need);
	flip(h->view.map, start, end);
	slack_write(start, size, need);
	return b;
}

COLD void *take_fresh(struct byte_tlsf *h, struct tlsf_block *b, size_t need, size_t size)
{
	map_clear(h, (uintptr_t)b + need);
	return take_cleared(h, b, need, size);
}

/* Take the first `need` bytes of a free block in view, no crumb, for a request of `size`. */
HOT void *take(struct byte_tlsf *h, struct tlsf_block *b, size_t need, size_t size)
{
	return unlikely((uintptr_t)b + need >= h->view.fresh) ? take_fresh(h, b, need, size)
							      : take_cleared(h, b, need, size);
}

/* Take all of the first block of list i, which is in view. */
HOT void *take_first(struct byte_tlsf *h, struct tlsf_block *b, size_t i, size_t nbytes,
		     size_t size)
{
	uintptr_t start = (uintptr_t)b, end = start + nbytes;

	verify_poison(b, start, end);
	if (is_whole(h, b, nbytes))
		piece_remove_empty(h->current);
	h->free_bytes -= nbytes;
	list_pop(h, i);
	flip(h->view.map, start, end);
	slack_write(start, size, nbytes);
	return b;
}

/* Let the free block b keep its first `gap` bytes, and take `need` after them. */
COLD void *take_behind(struct byte_tlsf *h, struct tlsf_block *b, size_t gap, size_t need,
		       size_t size)
{
	uintptr_t start = (uintptr_t)b + gap, end = start + need;
	size_t nbytes = size_of(b);

	verify_poison(b, start, end);
	map_prepare(h, start);
	map_prepare(h, end);
	if (is_whole(h, b, nbytes))
		piece_remove_empty(h->current);
	h->free_bytes -= need;
	if (nbytes == gap + need)
		list_remove(h, b);
	else
		list_split(h, b, nbytes, block_at(end), nbytes - gap - need);
	flip(h->view.map, start, end);
	set_tags(b, gap);
	if (gap >= MIN_BLOCK)
		list_insert(h, b, list_of(gap));
	slack_write(start, size, need);
	return (void *)start;
}

/* What is kept in the next set that keeps something goes back. False: none does. */
COLD bool kept_flush_next(struct byte_tlsf *h, unsigned int *set)
{
	while (*set < TLSF_SETS)
		if (kept_flush_set(h, (*set)++))
			return true;
	return false;
}

/* Any size and alignment. */
COLD void *alloc_large(struct byte_tlsf *h, size_t need, size_t size, size_t align)
{
	struct tlsf_block *b;
	unsigned int set = 0;
	size_t gap;

	while (!(b = find_large(h, need, align))) /* memory is out when nothing is kept back */
		if (h->base.in_parts || !kept_flush_next(h, &set))
			return NULL;
	gap = gap_before(b, align);
	return gap ? take_behind(h, b, gap, need, size) : take(h, b, need, size);
}

COLD void *alloc_elsewhere(struct byte_tlsf *h, size_t i, size_t need, size_t size, size_t align);
COLD void *alloc_after_drop(struct byte_tlsf *h, size_t i, size_t need, size_t size, size_t align);

/* Small: the list of this size, or the next that has a block, when that is aligned. */
COLD void *alloc_small(struct byte_tlsf *h, size_t need, size_t size, size_t align)
{
	size_t i = list_search(h, need / UNIT);
	struct tlsf_block *b;

	if (unlikely(i >= NLISTS))
		return alloc_large(h, need, size, align);
	b = h->lists[i];
	if (!is_aligned((uintptr_t)b, align))
		return alloc_large(h, need, size, align);
	if (unlikely(!in_view(&h->view, (uintptr_t)b)))
		return alloc_elsewhere(h, i, need, size, align);
	if (size_of(b) == need && (!MM_HARDEN || next_agrees(h, b)))
		return take_first(h, b, i, need, size);
	if (MM_HARDEN && unlikely(!head_sound(h, b, i)))
		return alloc_after_drop(h, i, need, size, align);
	return take(h, b, need, size);
}

/* The first block of list i is not of the piece in view: once again, when it is, or without it. */
COLD void *alloc_elsewhere(struct byte_tlsf *h, size_t i, size_t need, size_t size, size_t align)
{
	return view_switch(h, (uintptr_t)h->lists[i]) ? alloc_small(h, need, size, align)
						      : alloc_after_drop(h, i, need, size, align);
}

COLD void *alloc_after_drop(struct byte_tlsf *h, size_t i, size_t need, size_t size, size_t align)
{
	list_drop(h, i);
	return alloc_small(h, need, size, align);
}

/* No such block is kept. */
HOT void *alloc_unkept(struct byte_tlsf *h, size_t need, size_t size, size_t align)
{
	return need < LINEAR ? alloc_small(h, need, size, align)
			     : alloc_large(h, need, size, align);
}

void *byte_tlsf_alloc(struct byte_alloc *a, size_t size, size_t align)
{
	struct byte_tlsf *h = tlsf_of(a);
	size_t need = block_bytes(size, align);
	struct tlsf_kept *set = kept_set(h, need);
	struct tlsf_kept *k = NULL;

	audit(h);
	if (MM_HARDEN < 2)
		k = align <= UNIT ? kept_find(set, need) : kept_find_aligned(set, need, align);
	return k ? kept_take(k) : alloc_unkept(h, need, size, align);
}

void *byte_tlsf_alloc_shortest(struct byte_alloc *a, size_t size, size_t align)
{
	size_t need = block_bytes(size, align);
	struct tlsf_kept *set = kept_set(tlsf_of(a), need);
	struct tlsf_kept *k;

	if (MM_HARDEN >= 2)
		return NULL;
	k = align <= UNIT ? kept_find(set, need) : kept_find_aligned(set, need, align);
	return k ? kept_take(k) : NULL;
}

void *byte_tlsf_alloc_rest(struct byte_alloc *a, size_t size, size_t align)
{
	audit(tlsf_of(a));
	return alloc_unkept(tlsf_of(a), block_bytes(size, align), size, align);
}

/* --- Freeing ---------------------------------------------------------------- */

/* Is this address in free memory? Known when the block that it lies in starts close before. */
static bool is_free_memory(const struct byte_tlsf *h, uintptr_t addr)
{
	for (unsigned int n = LOOK_BACK; n && is_prepared(h->current, addr); n--) {
		const struct tlsf_cell *c = cell_at(h->view.map, addr);
		uint64_t bits = boundaries(c) << (63 - bit_of(addr));

		if (bits)
			return !(c->live << (63 - bit_of(addr)) >> mm_fls(bits) & 1);
		addr = mm_align_down(addr, (size_t)1 << CELL_SHIFT) - UNIT;
		if (!in_view(&h->view, addr))
			break;
	}
	return false;
}

/* Why p, in view, is not the start of a live block of the size that was said. */
COLD enum mm_fault_kind diagnose(const struct byte_tlsf *h, uintptr_t p)
{
	if (is_prepared(h->current, p) && live_at(&h->view, p))
		return MM_FAULT_WRONG_LAYOUT;
	return is_free_memory(h, p) ? MM_FAULT_DOUBLE_FREE : MM_FAULT_FOREIGN;
}

/* Is the next boundary after p so many units on? Pre: no more units than a cell has. */
static inline bool ends_near(const struct tlsf_cell *c, uintptr_t p, size_t units)
{
	uint64_t rest = boundaries(c) >> bit_of(p) >> 1;

	if (rest)
		return mm_lowest_is_nth(rest, units);
	units += bit_of(p);
	return boundaries(c + 1) << (~units & 63) == TOP_BIT && units >= 64;
}

/* The same for what ends in a later cell, with a look at those up to `stop`, and at that one. */
HOT bool ends_far(const struct tlsf_view *v, uintptr_t p, size_t nbytes,
		  const struct tlsf_cell *stop)
{
	uintptr_t end = p + nbytes;
	const struct tlsf_cell *c = cell_at(v->map, p);
	const struct tlsf_cell *last = cell_at(v->map, end);
	uint64_t before = boundaries(c) >> bit_of(p) >> 1;

	if (stop > last)
		stop = last;
	while (++c < stop)
		before |= boundaries(c);
	return !before && boundaries(last) << (63 - bit_of(end)) == TOP_BIT;
}

/* Level 2 and up, where time is in proportion to the size: are all whole cells without boundary? */
static bool is_bare(const struct byte_tlsf *h, uintptr_t start, uintptr_t end)
{
	uintptr_t at = mm_align_up(start + UNIT, CELL_SPAN);

	for (; MM_HARDEN >= 2 && at + CELL_SPAN <= end; at += CELL_SPAN)
		if (is_prepared(h->current, at) && boundaries(cell_at(h->view.map, at)))
			return false;
	return true;
}

/*
 * Does the map, cleared here, have a live block of this size at p, which is in view? It may not be
 * cleared at its end. Looked at are the first LOOK_AHEAD cells below the frontier.
 */
static inline bool is_block(const struct byte_tlsf *h, uintptr_t p, size_t nbytes)
{
	const struct tlsf_cell *c = cell_at(h->view.map, p), *stop = c + 1 + LOOK_AHEAD;
	const struct tlsf_cell *fresh = cell_at(h->view.map, h->view.fresh);

	if (!live_at(&h->view, p))
		return false;
	if (nbytes <= CELL_SPAN)
		return ends_near(c, p, nbytes / UNIT);
	return nbytes <= view_end(&h->view) - p && is_prepared(h->current, p + nbytes) &&
	       ends_far(&h->view, p, nbytes, fresh < stop ? fresh : stop) &&
	       is_bare(h, p, p + nbytes);
}

/* verify_live in short, for what is usual, if p is in view v. False: perhaps. */
HOT bool is_surely_live(const struct byte_tlsf *h, const struct tlsf_view *v, uintptr_t p,
			size_t align, size_t nbytes)
{
	if (!MM_HARDEN)
		return p - h->low < h->hull;
	return nbytes <= CELL_SPAN && p - v->first < v->cleared &&
	       !(p & ((align - 1) | (UNIT - 1))) && live_at(v, p) &&
	       ends_near(cell_at(v->map, p), p, nbytes / UNIT);
}

/* The same for longer ones, which end where the map is cleared. */
HOT bool is_surely_live_far(const struct tlsf_view *v, uintptr_t p, size_t align, size_t nbytes)
{
	uintptr_t offset = p - v->first;

	return offset < v->cleared && nbytes < v->cleared - offset &&
	       !(p & ((align - 1) | (UNIT - 1))) && live_at(v, p) &&
	       ends_far(v, p, nbytes, cell_at(v->map, p) + 1 + LOOK_AHEAD);
}

/* The same for any, in the piece that an address like this was last in. */
HOT bool is_surely_live_there(const struct byte_tlsf *h, uintptr_t p, size_t align, size_t nbytes)
{
	if (MM_HARDEN && nbytes > CELL_SPAN)
		return is_surely_live_far(seen(h, p), p, align, nbytes);
	return is_surely_live(h, seen(h, p), p, align, nbytes);
}

/* Is p a live block of this layout, which leads to nbytes? */
static inline enum mm_fault_kind verify_live(struct byte_tlsf *h, uintptr_t p, size_t size,
					     size_t align, size_t nbytes)
{
	if (!MM_HARDEN)
		return p - h->low < h->hull ? MM_FAULT_NONE : MM_FAULT_FOREIGN;
	if (!view(h, p))
		return MM_FAULT_FOREIGN;
	remember(h, h->current, p);
	if (p & ((align - 1) | (UNIT - 1)))
		return MM_FAULT_MISALIGNED;
	if (!is_prepared(h->current, p) || !is_block(h, p, nbytes))
		return diagnose(h, p);
	if (MM_HARDEN >= 3 ? is_kept(h, p) : kept_has(kept_place(kept_set(h, nbytes), p), p))
		return MM_FAULT_DOUBLE_FREE;
	return slack_intact(p, size, nbytes) ? MM_FAULT_NONE : MM_FAULT_OVERFLOW;
}

/*
 * Keep a freed block for reuse; what was kept at its place is released. A large one is released
 * itself, as kept ones keep their neighbours from merging. False: it is kept already.
 */
HOT bool keep(struct byte_tlsf *h, uintptr_t p, size_t nbytes)
{
	struct tlsf_kept *k = kept_place(kept_set(h, nbytes), p);

	if (nbytes > KEPT_MAX)
		kept_release(h, p, nbytes);
	else if (!k->nbytes)
		*k = (struct tlsf_kept){p, nbytes};
	else if (MM_HARDEN && unlikely(k->start == p))
		return false;
	else
		kept_replace(h, k, p, nbytes);
	return true;
}

/* Level 2 and up: no reuse, and at level 3 only after as many frees as there are places. */
static void withhold(struct byte_tlsf *h, uintptr_t p, size_t nbytes)
{
	struct tlsf_kept *k = kept_at(h, h->kept_next++ % TLSF_KEPT);

	if (MM_HARDEN == 2) {
		kept_release(h, p, nbytes);
		return;
	}
	poison(p, p + nbytes);
	if (k->nbytes)
		kept_replace(h, k, p, nbytes);
	else
		*k = (struct tlsf_kept){p, nbytes};
	audit(h);
}

/* Most frees: of the piece in view, with nothing wrong. False: not done. */
bool byte_tlsf_dealloc_fast(struct byte_alloc *a, void *ptr, size_t size, size_t align,
			    unsigned int cpu)
{
	struct byte_tlsf *h = tlsf_of(a);
	uintptr_t p = (uintptr_t)ptr;
	size_t nbytes = block_bytes(size, align);

	(void)cpu;
	return MM_HARDEN < 2 && is_surely_live(h, &h->view, p, align, nbytes) && keep(h, p, nbytes);
}

bool byte_tlsf_dealloc_shortest(struct byte_alloc *a, void *ptr, size_t size, size_t align,
				struct tlsf_kept *was)
{
	struct byte_tlsf *h = tlsf_of(a);
	uintptr_t p = (uintptr_t)ptr;
	size_t nbytes = block_bytes(size, align);
	struct tlsf_kept *k = kept_place(kept_set(h, nbytes), p);

	if (MM_HARDEN >= 2 || nbytes > KEPT_MAX || !is_surely_live_there(h, p, align, nbytes))
		return false;
	if (MM_HARDEN && unlikely(kept_has(k, p)))
		return false;
	was->nbytes = k->nbytes;
	if (unlikely(was->nbytes))
		was->start = k->start;
	*k = (struct tlsf_kept){p, nbytes};
	return true;
}

void byte_tlsf_release(struct byte_alloc *a, uintptr_t start, size_t nbytes)
{
	kept_release(tlsf_of(a), start, nbytes);
}

/* Any piece, level and fault. */
enum mm_fault_kind byte_tlsf_dealloc(struct byte_alloc *a, void *ptr, size_t size, size_t align)
{
	struct byte_tlsf *h = tlsf_of(a);
	uintptr_t p = (uintptr_t)ptr;
	size_t nbytes = block_bytes(size, align);
	enum mm_fault_kind fault;

	if (MM_HARDEN < 2 && is_surely_live_there(h, p, align, nbytes) && keep(h, p, nbytes))
		return MM_FAULT_NONE;
	fault = verify_live(h, p, size, align, nbytes);
	if (fault != MM_FAULT_NONE)
		return fault;
	if (MM_HARDEN < 2)
		(void)keep(h, p, nbytes); /* it is not kept already */
	else
		withhold(h, p, nbytes);
	return MM_FAULT_NONE;
}

/* --- Resize ----------------------------------------------------------------- */

/* Take the first `need` bytes of a crumb, which is in no list. */
static void take_crumb(struct byte_tlsf *h, struct tlsf_block *b, size_t need)
{
	uintptr_t start = (uintptr_t)b, end = start + need;
	size_t rest = size_of(b) - need;

	h->free_bytes -= need;
	if (rest) {
		map_prepare(h, end);
		set_tags(block_at(end), rest);
	}
	flip(h->view.map, start, end);
}

/* Take more bytes of the free block that may follow a live one at `end`. */
static bool grow(struct byte_tlsf *h, uintptr_t end, size_t more)
{
	struct tlsf_block *b = block_at(end);

	if (!edge_at(&h->view, end) || (MM_HARDEN && !sound_at(h, end)) || size_of(b) < more)
		return false;
	if (size_of(b) < MIN_BLOCK)
		take_crumb(h, b, more);
	else
		(void)take(h, b, more, more);
	flip_live(&h->view, end);
	return true;
}

static void shrink(struct byte_tlsf *h, uintptr_t end, size_t less)
{
	map_prepare(h, end);
	flip_live(&h->view, end);
	release(h, end, less);
}

static bool tlsf_resize(struct byte_alloc *a, void *ptr, size_t old_size, size_t align,
			size_t new_size)
{
	struct byte_tlsf *h = tlsf_of(a);
	uintptr_t p = (uintptr_t)ptr;
	size_t have = block_bytes(old_size, align);
	size_t need = block_bytes(new_size, align);

	if (verify_live(h, p, old_size, align, have) != MM_FAULT_NONE || !view(h, p))
		return false;
	if (need > have && !grow(h, p + have, need - have))
		return false;
	if (need < have)
		shrink(h, p + need, have - need);
	slack_write(p, new_size, need);
	return true;
}

/* --- Memory in and out ------------------------------------------------------ */

static bool overlaps(const struct byte_tlsf *h, uintptr_t start, size_t nbytes)
{
	for (const struct tlsf_piece *p = h->pieces; p; p = p->next)
		if (start < (uintptr_t)p->start + p->nbytes && (uintptr_t)p->start < start + nbytes)
			return true;
	return false;
}

/* A balanced tree of the first n pieces of a list, which is moved on. Out of line, else gcc puts it
 * into itself, again and again. */
COLD struct tlsf_piece *tree_of(struct tlsf_piece **list, size_t n)
{
	struct tlsf_piece *left, *root;

	if (!n)
		return NULL;
	left = tree_of(list, n / 2);
	root = *list;
	*list = root->next;
	root->left = left;
	root->right = tree_of(list, n - n / 2 - 1);
	return root;
}

/* The tree and the hull follow the list. */
static void pieces_changed(struct byte_tlsf *h)
{
	struct tlsf_piece *list = h->pieces;
	const struct tlsf_piece *last = list;

	h->root = h->current = tree_of(&list, h->npieces);
	h->view = h->root ? h->root->view : (struct tlsf_view){0};
	__builtin_memset(h->seen, 0, sizeof(h->seen));
	while (last && last->next)
		last = last->next;
	h->low = last ? h->pieces->view.first : 0;
	h->hull = last ? view_end(&last->view) - h->low : 0;
}

/* The link that points, or would point, at a piece in the list. */
static struct tlsf_piece **piece_link(struct byte_tlsf *h, const struct tlsf_piece *piece)
{
	struct tlsf_piece **at = &h->pieces;

	while (*at && *at < piece)
		at = &(*at)->next;
	return at;
}

/* Descriptor, frame bytes, map, blocks. A map that is cleared as needed consists of whole frames.
 */
static struct tlsf_piece *piece_make(void *start, size_t nbytes, bool eager)
{
	uintptr_t base = mm_align_up((uintptr_t)start, UNIT);
	uintptr_t limit = mm_align_down((uintptr_t)start + nbytes, UNIT);
	size_t grain = eager ? CELL_SPAN : FRAME_SPAN;
	uintptr_t low = mm_align_down(base, grain);
	uintptr_t high = mm_align_up(limit + 1 + CELL_SPAN, grain);
	uintptr_t frames = base + sizeof(struct tlsf_piece);
	size_t nframes = eager ? 0 : ((high - low) >> FRAME_SHIFT);
	uintptr_t map = mm_align_up(frames + nframes, UNIT);
	size_t map_bytes = ((high - low) >> CELL_SHIFT) * sizeof(struct tlsf_cell);
	uintptr_t first = mm_align_up(map + map_bytes, 2 * UNIT);
	struct tlsf_piece *piece = (struct tlsf_piece *)base;

	if (first + MIN_BLOCK > limit)
		return NULL;
	*piece = (struct tlsf_piece){.start = start, .nbytes = nbytes};
	piece->view = (struct tlsf_view){
		.first = first,
		.span = limit - first,
		.map = map - (low >> CELL_SHIFT) * sizeof(struct tlsf_cell),
		.cleared = eager ? limit - first : 0,
		.fresh = eager ? high - CELL_SPAN : first,
	};
	piece->frames = frames - (low >> FRAME_SHIFT);
	piece->frontier = mm_align_down(first, FRAME_SPAN);
	__builtin_memset((void *)frames, 0, eager ? map + map_bytes - frames : nframes);
	return piece;
}

static enum alloc_result tlsf_add_memory(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_tlsf *h = tlsf_of(a);
	struct tlsf_piece *piece, **at;

	if (!start || !byte_alloc_in_reach(start, nbytes) || nbytes < sizeof(*piece) + 4 * UNIT ||
	    nbytes >= BLOCK_LIMIT)
		return ALLOC_INVALID_PARAM;
	if (overlaps(h, (uintptr_t)start, nbytes))
		return ALLOC_MEMORY_OVERLAP;
	piece = piece_make(start, nbytes, nbytes <= (h->npieces ? EAGER_LATER : EAGER_FIRST));
	if (!piece)
		return ALLOC_INVALID_PARAM;
	at = piece_link(h, piece);
	piece->next = *at;
	*at = piece;
	h->npieces++;
	pieces_changed(h);
	h->view = piece->view;
	h->current = piece;
	/* One live block, and one behind it that is never freed: so merging stops there. */
	map_prepare(h, h->view.first);
	map_prepare(h, view_end(&h->view));
	flip_live(&h->view, h->view.first);
	flip_live(&h->view, view_end(&h->view));
	release(h, h->view.first, h->view.span);
	h->capacity += h->view.span;
	h->total_bytes += nbytes;
	return ALLOC_OK;
}

static enum alloc_result tlsf_init(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_alloc base = *a;

	__builtin_memset(a, 0, sizeof(struct byte_tlsf));
	*a = base;
	return tlsf_add_memory(a, start, nbytes);
}

/* Enough for the map and its frames, a bad base, and a list whose every block is large enough. */
static size_t tlsf_grow_size(const struct byte_alloc *a, size_t size, size_t align)
{
	(void)a;
	if (size > BLOCK_LIMIT)
		return SIZE_MAX;
	size = block_bytes(size, align) + (align > UNIT ? align : 0);
	size += size / (TLSF_COLS / 2);
	size += size / (TLSF_COLS / 3) + sizeof(struct tlsf_piece) + 16 * UNIT;
	return size + (size > EAGER_LATER / 2 ? 2 * FRAME_BYTES : 0);
}

static bool tlsf_take_free(struct byte_alloc *a, void **start, size_t *nbytes)
{
	struct byte_tlsf *h = tlsf_of(a);
	struct tlsf_piece *piece;
	struct tlsf_block *b;

	if (!h->base.in_parts)
		kept_flush(h);
	piece = h->empty;
	if (!piece)
		return false;
	b = block_at(piece->view.first);
	if (!view(h, (uintptr_t)b) || size_of(b) != piece->view.span ||
	    (MM_HARDEN && !sound_at(h, (uintptr_t)b))) {
		report(MM_FAULT_CORRUPT, (uintptr_t)b);
		return false;
	}
	list_remove(h, b);
	piece_remove_empty(piece);
	*piece_link(h, piece) = piece->next;
	h->npieces--;
	pieces_changed(h);
	h->free_bytes -= piece->view.span;
	h->capacity -= piece->view.span;
	h->total_bytes -= piece->nbytes;
	*start = piece->start;
	*nbytes = piece->nbytes;
	return true;
}

/* --- Queries ---------------------------------------------------------------- */

static size_t tlsf_total_bytes(const struct byte_alloc *a)
{
	return const_tlsf_of(a)->total_bytes;
}

static size_t tlsf_used_bytes(const struct byte_alloc *a)
{
	const struct byte_tlsf *h = const_tlsf_of(a);

	return h->capacity - h->free_bytes - kept_bytes(h);
}

static size_t tlsf_available_bytes(const struct byte_alloc *a)
{
	return const_tlsf_of(a)->free_bytes + kept_bytes(const_tlsf_of(a));
}

const struct byte_ops byte_tlsf_ops = {
	.name = "TLSF",
	.init = tlsf_init,
	.add_memory = tlsf_add_memory,
	.alloc = byte_tlsf_alloc,
	.dealloc = byte_tlsf_dealloc,
	.resize = tlsf_resize,
	.grow_size = tlsf_grow_size,
	.settle = tlsf_settle,
	.take_free = tlsf_take_free,
	.block_size = byte_tlsf_block_size,
	.total_bytes = tlsf_total_bytes,
	.used_bytes = tlsf_used_bytes,
	.available_bytes = tlsf_available_bytes,
	.walk = byte_tlsf_walk,
	.check = byte_tlsf_check,
};
