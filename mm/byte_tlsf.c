/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Blocks. A block is one header word and what follows it, in units of 8 bytes. The
 * header holds the size of the block, whether it is free, and whether the block
 * before it is. A free block repeats its header in its last word, so that the next
 * block finds its start; a live block has no such word. The overhead is 8 bytes.
 * Sizes in units of 8 save on average 4 bytes a block over units of 16. What needs an
 * alignment of 16 pays for it alone: its size is a multiple of 16, so that a heap of
 * such blocks has no gaps.
 *
 * Crumbs. What remains of a split can be too small for a list (under 32 bytes).
 * It becomes a free block all the same, down to a single word that is header and
 * footer at once, in no list, and is merged when a neighbour is freed. So every live
 * block has exactly the size that its request leads to, and an alignment costs
 * no more than the bytes in front.
 *
 * Lists. Row 0 has one list for each size below 512 bytes, so a small request is
 * met by an exact fit, with no arithmetic but a shift; further rows have 64 lists per power
 * of two, 1.6 % apart. One bit per list and one per row: the next list that has a block
 * is found with two bit searches. A large request first looks at SCAN_DEPTH
 * blocks of the list that its own size falls into, where some may fit, before it goes to the
 * next list, where all do: good fit, and constant time. A block knows
 * the pointer that points at it, so it is unlinked without knowing its list; only
 * the last block of a list tells from that pointer which bit to clear.
 *
 * Quick bins. Most programs free a size that they ask for again soon. So a freed block
 * below 512 bytes first goes, unmerged, into a bin of its size, unless the bin has
 * TLSF_QUICK_DEPTH blocks already. Bins are flat and few, so merging them all is bounded
 * too: 60 bins of 4. It is done when no list has a block, before the request fails. Deeper bins are
 * faster and cost memory: 4, 8 and 16 gave 69, 66 and 64 instructions per operation, and
 * 1.098, 1.102 and 1.103 as least region over peak.
 *
 * Pieces. The descriptor of a piece of memory lies at its end and starts with a header of size 0
 * that nobody frees, so merging stops there, and a free that meets it can tell in
 * constant time whether the piece is now one free block. Such blocks are marked.
 *
 * Hardening. 0 trusts the caller. 1 seals: the top 16 bits of a live header are a hash
 * of the address, the size and the alignment asked for, and a secret. dealloc computes
 * what the header must be from what the caller says; one comparison catches a double
 * free, a pointer into a block, a wrong layout and a smashed header, and only when it fails
 * is the reason looked for. Before anything is read the pointer must
 * lie in a piece of memory. Neighbours are merged only when header and footer agree
 * and the links around them point back; else the call is refused, nothing is changed.
 * alloc drops a list whose first block is broken, reports it, and goes on. 2 adds bytes behind the
 * request that must be unchanged, and poison in free memory, which is verified
 * before reuse. 3 keeps freed blocks back in a quarantine, and verifies everything
 * every few operations.
 *
 * Shortcomings. What misses the quick bins pays for merging and splitting. An allocation that
 * finds the lists empty merges up to 240 blocks: bounded, but far from the usual cost. At level 1
 * and up a pointer is looked up in the pieces, the last one used first and then one by one:
 * constant for a heap of few pieces, which is what the global allocator makes by doubling; and
 * checking costs nearly as much again as the work. A seal is 16 bits: a word of user
 * data passes for a header once in 65536. Seals cannot be verified without the layout, so a
 * walk finds a smashed size or flag but not a smashed seal. What is in a dropped list is lost.
 * Levels 2 and 3 take time in proportion to the size. Headers alone are 10 % of memory at a
 * mean size of 80.
 */
#include <mm/byte_tlsf.h>

#include "bits.h"

#define UNIT	     ((size_t)8)
#define HEADER	     sizeof(uint64_t)
#define MIN_BLOCK    ((size_t)32) /* the least that can be in a list */
#define TAIL	     (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)
#define LINEAR	     ((size_t)512) /* sizes below have lists of their own */
#define LINEAR_LOG   9u
#define COL_LOG	     6u
#define NLISTS	     (TLSF_ROWS * TLSF_COLS)
#define BLOCK_LIMIT  ((size_t)1 << (LINEAR_LOG + TLSF_ROWS - 1))
#define SCAN_DEPTH   4u
#define SLACK	     0xca
#define POISON	     0xdfdfdfdfdfdfdfdfu
#define AUDIT_PERIOD 64u

/* The header word: seal in the top 16 bits, size, three flags. */
#define FREE	   ((uint64_t)1)
#define PREV_FREE  ((uint64_t)2)
#define WHOLE	   ((uint64_t)4) /* of a free block: it is all of its piece */
#define HELD	   ((uint64_t)4) /* of a block not free: in a quick bin or the quarantine */
#define SEAL_SHIFT 48u
#define SEAL_MASK  (MM_HARDEN ? ~(uint64_t)0 << SEAL_SHIFT : 0)
#define SIZE_MASK  (~SEAL_MASK & ~(uint64_t)7)

struct tlsf_block {
	uint64_t head;
	struct tlsf_block *next; /* this and the following only in free blocks */
	struct tlsf_block **at;	 /* what points to this one */
};

struct tlsf_piece {
	uint64_t sentinel; /* a header of size 0 */
	struct tlsf_piece *next;
	struct tlsf_piece *next_empty, **at_empty;
	uintptr_t first; /* the first block */
	void *start;	 /* as it was given */
	size_t nbytes;
};

static inline struct byte_tlsf *tlsf_of(struct byte_alloc *a)
{
	return (struct byte_tlsf *)a;
}

static inline const struct byte_tlsf *const_tlsf_of(const struct byte_alloc *a)
{
	return (const struct byte_tlsf *)a;
}

/* --- Blocks ----------------------------------------------------------------- */

static inline struct tlsf_block *block_at(uintptr_t addr)
{
	return (struct tlsf_block *)addr;
}

static inline struct tlsf_block *block_of(const void *p)
{
	return block_at((uintptr_t)p - HEADER);
}

static inline uintptr_t payload(const struct tlsf_block *b)
{
	return (uintptr_t)b + HEADER;
}

static inline size_t size_of(const struct tlsf_block *b)
{
	return b->head & SIZE_MASK;
}

static inline struct tlsf_block *block_after(const struct tlsf_block *b, size_t nbytes)
{
	return block_at((uintptr_t)b + nbytes);
}

static inline uint64_t *footer(const struct tlsf_block *b, size_t nbytes)
{
	return (uint64_t *)((uintptr_t)b + nbytes - HEADER);
}

static inline void set_free(struct tlsf_block *b, uint64_t head)
{
	b->head = head;
	*footer(b, head & SIZE_MASK) = head;
}

/* Pre: PREV_FREE of b. */
static inline struct tlsf_block *block_before(const struct tlsf_block *b)
{
	return block_at((uintptr_t)b - (((const uint64_t *)b)[-1] & SIZE_MASK));
}

/* The size of the block that serves a request. Exact: it follows from the layout alone. */
static inline size_t block_bytes(size_t size, size_t align)
{
	size_t nbytes = (size + HEADER + TAIL + UNIT - 1) & ~(UNIT - 1);

	if (align > UNIT)
		nbytes = (nbytes + UNIT) & ~(2 * UNIT - 1);
	return nbytes < MIN_BLOCK ? MIN_BLOCK : nbytes;
}

/* Shifts of the second factor differ in their top bits, so alignments are told apart for sure. */
static inline uint64_t seal(const struct byte_tlsf *h, uintptr_t p, size_t size, size_t align)
{
	if (!MM_HARDEN)
		return 0;
	return ((p ^ h->secret) * 0x9e3779b97f4a7c15u + align * 0x03f79d71b4cb0a89u +
		((uint64_t)size << SEAL_SHIFT)) &
	       SEAL_MASK;
}

/* --- Pieces of memory ------------------------------------------------------- */

static inline uintptr_t piece_end(const struct tlsf_piece *piece)
{
	return (uintptr_t)piece;
}

static const struct tlsf_piece *piece_search(const struct byte_tlsf *h, uintptr_t addr)
{
	const struct tlsf_piece *piece = h->pieces;

	while (piece && addr - piece->first >= piece_end(piece) - piece->first)
		piece = piece->next;
	return piece;
}

static __attribute__((noinline)) bool piece_switch(struct byte_tlsf *h, uintptr_t addr)
{
	const struct tlsf_piece *piece = piece_search(h, addr);

	if (!piece || !MM_HARDEN)
		return false;
	h->first = piece->first;
	h->span = piece_end(piece) - piece->first;
	return true;
}

/* Is this an address in the blocks of some piece, which is then the one used last? */
static inline bool owns(struct byte_tlsf *h, uintptr_t addr)
{
	return addr - h->first < h->span || piece_switch(h, addr);
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

/* --- Free lists ------------------------------------------------------------- */

/* The list that a block of this size belongs to. */
static inline size_t list_of(size_t nbytes)
{
	unsigned int log;

	if (nbytes < LINEAR)
		return nbytes / UNIT;
	log = mm_fls(nbytes);
	return ((size_t)(log - LINEAR_LOG) << COL_LOG) + (nbytes >> (log - COL_LOG));
}

static inline void list_insert_at(struct byte_tlsf *h, struct tlsf_block *b, size_t i)
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

static inline void list_insert(struct byte_tlsf *h, struct tlsf_block *b, size_t nbytes)
{
	list_insert_at(h, b, list_of(nbytes));
}

static inline void list_mark_empty(struct byte_tlsf *h, size_t i)
{
	uint64_t cols = h->cols[i / TLSF_COLS] & ~((uint64_t)1 << (i % TLSF_COLS));

	h->cols[i / TLSF_COLS] = cols;
	if (!cols)
		h->rows &= ~((uint64_t)1 << (i / TLSF_COLS));
}

/* The number of the list whose head this points to; NLISTS and more when it is a block's link. */
static inline size_t list_index(const struct byte_tlsf *h, struct tlsf_block *const *at)
{
	return ((uintptr_t)at - (uintptr_t)h->lists) / sizeof(h->lists[0]);
}

static inline void list_remove(struct byte_tlsf *h, struct tlsf_block *b)
{
	struct tlsf_block *next = b->next;
	struct tlsf_block **at = b->at;
	size_t i;

	*at = next;
	if (next) {
		next->at = at;
		return;
	}
	i = list_index(h, at);
	if (i < NLISTS)
		list_mark_empty(h, i);
}

/* Put b, of nbytes, instead of `old` into the lists: mostly where that was. */
static inline void list_replace(struct byte_tlsf *h, struct tlsf_block *old, size_t old_nbytes,
				struct tlsf_block *b, size_t nbytes)
{
	size_t i = list_of(nbytes);
	struct tlsf_block *next = old->next;
	struct tlsf_block **at = old->at;

	if (i != list_of(old_nbytes)) {
		list_remove(h, old);
		list_insert_at(h, b, i);
		return;
	}
	*at = b;
	b->next = next;
	b->at = at;
	if (next)
		next->at = &b->next;
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

/* --- Trust in metadata ------------------------------------------------------ */

static void report_corrupt(const void *ptr)
{
	mm_fault_report(&(struct mm_fault){
		.kind = MM_FAULT_CORRUPT, .allocator = byte_tlsf_ops.name, .ptr = ptr});
}

/* May a link be followed? */
static inline bool link_valid(struct byte_tlsf *h, uintptr_t addr)
{
	return !(addr % UNIT) && owns(h, addr);
}

/* Does the block after b in its list, if any, point back at b? */
static inline bool next_agrees(struct byte_tlsf *h, const struct tlsf_block *b)
{
	const struct tlsf_block *next = b->next;

	return !next || (link_valid(h, (uintptr_t)next) && next->at == &b->next);
}

/* Do the links of a free block, which lies in a piece, and those around it agree? */
static inline bool links_agree(struct byte_tlsf *h, const struct tlsf_block *b)
{
	struct tlsf_block *const *at = b->at;

	if (list_index(h, at) >= NLISTS && !owns(h, (uintptr_t)at))
		return false;
	return !((uintptr_t)at % UNIT) && *at == b && next_agrees(h, b);
}

/* Is what lies at b, inside a piece, a free block whose two tags agree? */
static inline bool tags_agree(struct byte_tlsf *h, const struct tlsf_block *b)
{
	uint64_t head = b->head;
	uint64_t *foot = footer(b, head & SIZE_MASK);

	return (head & (FREE | PREV_FREE | SEAL_MASK)) == FREE && owns(h, (uintptr_t)foot) &&
	       *foot == head;
}

static inline bool free_block_sound(struct byte_tlsf *h, const struct tlsf_block *b)
{
	return tags_agree(h, b) && (size_of(b) < MIN_BLOCK || links_agree(h, b));
}

/* A broken list is emptied: what was in it is lost, and nothing else. */
static __attribute__((noinline)) void list_drop(struct byte_tlsf *h, size_t i)
{
	report_corrupt(h->lists[i]);
	h->lists[i] = NULL;
	list_mark_empty(h, i);
}

/* --- Poison and slack (level 2) --------------------------------------------- */

/* The bytes of a free block between its links and its footer, clipped to [from, to). */
static void poison_range(const struct tlsf_block *b, uintptr_t from, uintptr_t to)
{
	uintptr_t low = (uintptr_t)b + sizeof(*b);
	uintptr_t high = (uintptr_t)footer(b, size_of(b));

	from = from < low ? low : from;
	to = to > high ? high : to;
	for (; from < to; from += UNIT)
		*(uint64_t *)from = POISON;
}

static bool poison_intact(const struct tlsf_block *b, uintptr_t from, uintptr_t to)
{
	uintptr_t low = (uintptr_t)b + sizeof(*b);
	uintptr_t high = (uintptr_t)footer(b, size_of(b));

	from = from < low ? low : from;
	to = to > high ? high : to;
	while (from < to && *(const uint64_t *)from == POISON)
		from += UNIT;
	return from >= to;
}

/* Reported, and the block used all the same: its metadata were verified, its contents are nobody's.
 */
static void verify_poison(const struct tlsf_block *b, uintptr_t from, size_t nbytes)
{
	if (MM_HARDEN >= 2 && !poison_intact(b, from, from + nbytes))
		mm_fault_report(&(struct mm_fault){.kind = MM_FAULT_WRITE_AFTER_FREE,
						   .allocator = byte_tlsf_ops.name,
						   .ptr = (const void *)payload(b)});
}

static void slack_write(struct tlsf_block *b, size_t size)
{
	uint8_t *p = (uint8_t *)payload(b);

	if (MM_HARDEN >= 2)
		__builtin_memset(p + size, SLACK, size_of(b) - HEADER - size);
}

static bool slack_intact(const struct tlsf_block *b, size_t size)
{
	const uint8_t *p = (const uint8_t *)payload(b);

	for (size_t i = size; MM_HARDEN >= 2 && i < size_of(b) - HEADER; i++)
		if (p[i] != SLACK)
			return false;
	return true;
}

/* --- Giving back ------------------------------------------------------------ */

/* Mark a free block that has become all of its piece. */
static inline uint64_t whole_flag(struct byte_tlsf *h, struct tlsf_block *b,
				  struct tlsf_block *after)
{
	struct tlsf_piece *piece = (struct tlsf_piece *)after;

	if (size_of(after) || piece->first != (uintptr_t)b)
		return 0;
	piece_add_empty(h, piece);
	return WHOLE;
}

/*
 * Make [b, b + nbytes) free and merge it with the free blocks around it. b need not
 * have been a block; prev_free says what lies before it.
 */
static inline void release(struct byte_tlsf *h, struct tlsf_block *b, size_t nbytes,
			   uint64_t prev_free)
{
	struct tlsf_block *after = block_after(b, nbytes);
	uintptr_t from = (uintptr_t)b;
	uintptr_t to = (uintptr_t)after;

	if (after->head & FREE) {
		size_t more = size_of(after);

		if (more >= MIN_BLOCK)
			list_remove(h, after);
		nbytes += more;
		after = block_after(after, more);
	} else {
		after->head |= PREV_FREE;
	}
	if (prev_free) {
		struct tlsf_block *before = block_before(b);
		size_t more = size_of(before);

		if (MM_HARDEN)
			b->head = FREE; /* what is found there by a double free */
		if (more >= MIN_BLOCK)
			list_remove(h, before);
		nbytes += more;
		b = before;
	}
	set_free(b, nbytes | FREE | whole_flag(h, b, after));
	if (nbytes >= MIN_BLOCK)
		list_insert(h, b, nbytes);
	if (MM_HARDEN >= 2)
		poison_range(b, from - HEADER, to + sizeof(*b));
}

/* Can the live block b of the piece used last be merged with what is around it? */
static inline bool neighbours_sound(struct byte_tlsf *h, const struct tlsf_block *b)
{
	const struct tlsf_block *after = block_after(b, size_of(b));
	uintptr_t end = h->first + h->span;

	if ((after->head & PREV_FREE) || ((uintptr_t)after == end) != !size_of(after))
		return false;
	if ((after->head & FREE) && !free_block_sound(h, after))
		return false;
	if (!(b->head & PREV_FREE))
		return true;
	if (!owns(h, (uintptr_t)block_before(b)) || !free_block_sound(h, block_before(b)))
		return false;
	return block_after(block_before(b), size_of(block_before(b))) == b;
}

/* Why a pointer into a piece has not the header that the caller's layout asks for. */
static __attribute__((noinline)) enum mm_fault_kind diagnose(struct byte_tlsf *h, uintptr_t p,
							     size_t align)
{
	const struct tlsf_block *b = block_of((const void *)p);
	uint64_t head = b->head;

	if ((!(head & SEAL_MASK) && (head & (FREE | HELD))) || head == POISON)
		return MM_FAULT_DOUBLE_FREE;
	if (p & (align - 1))
		return MM_FAULT_MISALIGNED;
	if (size_of(b) < MIN_BLOCK || !owns(h, (uintptr_t)footer(b, size_of(b))))
		return MM_FAULT_FOREIGN;
	/* A layout that makes the seal right is the one it was allocated with. */
	for (size_t a = 1; a <= MM_MAX_ALIGN; a *= 2)
		for (size_t slack = 0; slack < MIN_BLOCK && slack < size_of(b) - HEADER; slack++)
			if ((head & SEAL_MASK) == seal(h, p, size_of(b) - HEADER - slack, a))
				return MM_FAULT_WRONG_LAYOUT;
	return MM_FAULT_FOREIGN;
}

/* Is p a live block of this layout? */
static inline enum mm_fault_kind verify_live(struct byte_tlsf *h, uintptr_t p, size_t size,
					     size_t align)
{
	const struct tlsf_block *b = block_at(p - HEADER);
	uint64_t expected;

	if (!owns(h, (uintptr_t)b))
		return MM_FAULT_FOREIGN;
	if (!MM_HARDEN)
		return MM_FAULT_NONE;
	if (p % UNIT)
		return MM_FAULT_MISALIGNED;
	expected = block_bytes(size, align) | seal(h, p, size, align);
	if ((b->head & ~PREV_FREE) != expected)
		return diagnose(h, p, align);
	return slack_intact(b, size) ? MM_FAULT_NONE : MM_FAULT_OVERFLOW;
}

/* --- Quick bins ------------------------------------------------------------- */

static inline void quick_push(struct byte_tlsf *h, struct tlsf_block *b, size_t nbytes)
{
	size_t i = nbytes / UNIT;

	b->head = nbytes | (b->head & PREV_FREE) | HELD;
	b->next = h->quick[i];
	h->quick[i] = b;
	h->quick_depth[i]++;
	h->free_bytes += nbytes;
}

/* Is the link to this block in the bin of its size to be trusted? */
static inline bool quick_sound(struct byte_tlsf *h, const struct tlsf_block *b, size_t nbytes)
{
	return !MM_HARDEN ||
	       (link_valid(h, (uintptr_t)b) && (b->head & ~PREV_FREE) == (nbytes | HELD));
}

static __attribute__((noinline)) void quick_drop(struct byte_tlsf *h, size_t i)
{
	report_corrupt(h->quick[i]);
	h->quick[i] = NULL;
	h->quick_depth[i] = 0;
}

static inline struct tlsf_block *quick_pop(struct byte_tlsf *h, size_t nbytes, size_t align)
{
	size_t i = nbytes / UNIT;
	struct tlsf_block *b = h->quick[i];

	if (!b || (payload(b) & (align - 1)))
		return NULL;
	if (!quick_sound(h, b, nbytes)) {
		quick_drop(h, i);
		return NULL;
	}
	h->quick[i] = b->next;
	h->quick_depth[i]--;
	return b;
}

/* Merge all that is in the quick bins. */
static void quick_flush(struct byte_tlsf *h)
{
	for (size_t i = 0; i < TLSF_QUICK; i++) {
		struct tlsf_block *b;

		while ((b = quick_pop(h, i * UNIT, 1))) {
			if (!MM_HARDEN || neighbours_sound(h, b))
				release(h, b, i * UNIT, b->head & PREV_FREE);
			else
				report_corrupt((const void *)payload(b));
		}
	}
}

/* --- Quarantine and audit (level 3) ----------------------------------------- */

static void held_release(struct byte_tlsf *h, unsigned int slot)
{
	struct tlsf_block *b = block_at(h->held[slot]);

	if (!b)
		return;
	h->held[slot] = 0;
	if (!owns(h, (uintptr_t)b) || !neighbours_sound(h, b)) {
		report_corrupt((const void *)payload(b));
		return;
	}
	for (uintptr_t p = payload(b); p < (uintptr_t)b + size_of(b); p += UNIT)
		if (*(const uint64_t *)p != POISON) {
			mm_fault_report(&(struct mm_fault){.kind = MM_FAULT_WRITE_AFTER_FREE,
							   .allocator = byte_tlsf_ops.name,
							   .ptr = (const void *)payload(b)});
			break;
		}
	release(h, b, size_of(b), b->head & PREV_FREE);
}

static void held_flush(struct byte_tlsf *h)
{
	for (unsigned int i = 0; i < TLSF_QUARANTINE; i++)
		held_release(h, i);
}

/* Keep a block that was just freed; the one that has been there longest leaves. */
static void held_add(struct byte_tlsf *h, struct tlsf_block *b)
{
	unsigned int slot = h->held_next++ % TLSF_QUARANTINE;

	held_release(h, slot);
	b->head = (b->head & (SIZE_MASK | PREV_FREE)) | HELD;
	for (uintptr_t p = payload(b); p < (uintptr_t)b + size_of(b); p += UNIT)
		*(uint64_t *)p = POISON;
	h->held[slot] = (uintptr_t)b;
}

static const void *tlsf_check(const struct byte_alloc *a);

static void audit(struct byte_tlsf *h)
{
	const void *broken;

	if (MM_HARDEN < 3 || ++h->tick % AUDIT_PERIOD)
		return;
	broken = tlsf_check(&h->base);
	if (broken)
		report_corrupt(broken);
}

/* --- Allocation ------------------------------------------------------------- */

static inline bool fits(const struct tlsf_block *b, size_t need, size_t align)
{
	return size_of(b) >= need + (-payload(b) & (align - 1));
}

/* The first block of the first list from i on that has one; broken lists are dropped. */
static inline struct tlsf_block *find_from(struct byte_tlsf *h, size_t i)
{
	while ((i = list_search(h, i)) < NLISTS) {
		struct tlsf_block *b = h->lists[i];

		if (!MM_HARDEN || (b->at == &h->lists[i] && tags_agree(h, b) && next_agrees(h, b)))
			return b;
		list_drop(h, i);
	}
	return NULL;
}

/* Some blocks of list i may fit: look at a few. */
static struct tlsf_block *find_among(struct byte_tlsf *h, size_t i, size_t need, size_t align)
{
	struct tlsf_block *b = h->lists[i];

	for (unsigned int n = 0; b && n < SCAN_DEPTH; n++, b = b->next) {
		if (MM_HARDEN && !free_block_sound(h, b)) {
			list_drop(h, i);
			return NULL;
		}
		if (fits(b, need, align))
			return b;
	}
	return NULL;
}

/* The list from which on every block is large enough. */
static inline size_t list_above(size_t nbytes)
{
	return nbytes < LINEAR ? nbytes / UNIT : list_of(nbytes) + 1;
}

static __attribute__((noinline)) struct tlsf_block *find_large(struct byte_tlsf *h, size_t need,
							       size_t align)
{
	size_t most = need + (align > UNIT ? align - UNIT : 0);
	struct tlsf_block *b;

	if (most >= BLOCK_LIMIT - BLOCK_LIMIT / TLSF_COLS)
		return NULL;
	b = find_among(h, list_of(need), need, align);
	if (b)
		return b;
	b = find_from(h, list_above(need));
	if (!b || fits(b, need, align))
		return b;
	return find_from(h, list_above(most));
}

/* Shorten the free block b, which is in no list, to `gap` bytes. */
static __attribute__((noinline)) void leave_gap(struct byte_tlsf *h, struct tlsf_block *b,
						size_t gap)
{
	set_free(b, gap | FREE);
	if (gap >= MIN_BLOCK)
		list_insert(h, b, gap);
}

/*
 * Make a live block of `need` bytes at `gap` of a free block that has them. What
 * is left before and after it stays free.
 */
static inline void *carve(struct byte_tlsf *h, struct tlsf_block *b, size_t need, size_t gap,
			  uint64_t flags)
{
	uint64_t head = b->head;
	size_t nbytes = head & SIZE_MASK;
	size_t rest = nbytes - gap - need;
	struct tlsf_block *live = block_after(b, gap);
	struct tlsf_block *after = block_after(live, need);

	verify_poison(b, (uintptr_t)live, need);
	h->free_bytes -= need;
	if (head & WHOLE)
		piece_remove_empty((struct tlsf_piece *)block_after(b, nbytes));
	if (rest >= MIN_BLOCK)
		list_replace(h, b, nbytes, after, rest);
	else
		list_remove(h, b);
	if (rest)
		set_free(after, rest | FREE);
	else
		after->head &= ~PREV_FREE;
	if (gap)
		leave_gap(h, b, gap);
	live->head = need | flags | (gap ? PREV_FREE : 0);
	return (void *)payload(live);
}

static void *alloc_from(struct byte_tlsf *h, struct tlsf_block *b, size_t need, size_t size,
			size_t align)
{
	size_t gap = -payload(b) & (align - 1);
	uintptr_t p = payload(b) + gap;

	carve(h, b, need, gap, seal(h, p, size, align));
	slack_write(block_of((void *)p), size);
	return (void *)p;
}

/* Memory is out only when nothing is kept back. */
static __attribute__((noinline)) void *alloc_harder(struct byte_tlsf *h, size_t need, size_t size,
						    size_t align)
{
	struct tlsf_block *b;

	quick_flush(h);
	if (MM_HARDEN >= 3)
		held_flush(h);
	b = find_large(h, need, align);
	return b ? alloc_from(h, b, need, size, align) : NULL;
}

static __attribute__((noinline)) void *alloc_large(struct byte_tlsf *h, size_t need, size_t size,
						   size_t align)
{
	struct tlsf_block *b = find_large(h, need, align);

	return b ? alloc_from(h, b, need, size, align) : alloc_harder(h, need, size, align);
}

/* Small, and aligned as any block is. */
static __attribute__((noinline)) void *alloc_small(struct byte_tlsf *h, size_t need, size_t size,
						   size_t align)
{
	struct tlsf_block *b = find_from(h, need / UNIT);

	if (!b)
		return alloc_harder(h, need, size, align);
	if (MM_HARDEN >= 2)
		return alloc_from(h, b, need, size, align);
	return carve(h, b, need, 0, seal(h, payload(b), size, align));
}

static void *tlsf_alloc(struct byte_alloc *a, size_t size, size_t align)
{
	struct byte_tlsf *h = tlsf_of(a);
	size_t need = block_bytes(size, align);
	struct tlsf_block *b;

	audit(h);
	b = MM_HARDEN < 2 && need < LINEAR ? quick_pop(h, need, align) : NULL;
	if (!b)
		return need < LINEAR && align <= UNIT ? alloc_small(h, need, size, align)
						      : alloc_large(h, need, size, align);
	b->head = need | (b->head & PREV_FREE) | seal(h, payload(b), size, align);
	h->free_bytes -= need;
	return (void *)payload(b);
}

static __attribute__((noinline)) enum mm_fault_kind dealloc_general(struct byte_tlsf *h,
								    struct tlsf_block *b)
{
	if (MM_HARDEN && !neighbours_sound(h, b))
		return MM_FAULT_CORRUPT;
	h->free_bytes += size_of(b);
	if (MM_HARDEN >= 3)
		held_add(h, b);
	else
		release(h, b, size_of(b), b->head & PREV_FREE);
	audit(h);
	return MM_FAULT_NONE;
}

static enum mm_fault_kind tlsf_dealloc(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct byte_tlsf *h = tlsf_of(a);
	enum mm_fault_kind fault = verify_live(h, (uintptr_t)p, size, align);
	struct tlsf_block *b = block_of(p);
	size_t nbytes;

	if (fault != MM_FAULT_NONE)
		return fault;
	nbytes = MM_HARDEN ? block_bytes(size, align) : size_of(b);
	if (MM_HARDEN >= 2 || nbytes >= LINEAR || h->quick_depth[nbytes / UNIT] >= TLSF_QUICK_DEPTH)
		return dealloc_general(h, b);
	if (MM_HARDEN && (block_after(b, nbytes)->head & PREV_FREE))
		return MM_FAULT_CORRUPT;
	quick_push(h, b, nbytes);
	return MM_FAULT_NONE;
}

/* --- Resize ----------------------------------------------------------------- */

/* Absorb the free block after b, whose size suffices, and give back what is too much. */
static void grow(struct byte_tlsf *h, struct tlsf_block *b, size_t need)
{
	size_t have = size_of(b);
	struct tlsf_block *after = block_after(b, have);
	size_t all = have + size_of(after);

	verify_poison(after, (uintptr_t)after, need - have);
	if (size_of(after) >= MIN_BLOCK)
		list_remove(h, after);
	h->free_bytes -= need - have;
	if (all > need)
		release(h, block_after(b, need), all - need, 0);
	else
		block_after(b, need)->head &= ~PREV_FREE;
}

static bool tlsf_resize(struct byte_alloc *a, void *p, size_t old_size, size_t align,
			size_t new_size)
{
	struct byte_tlsf *h = tlsf_of(a);
	struct tlsf_block *b = block_of(p);
	size_t need = block_bytes(new_size, align);
	struct tlsf_block *after;
	size_t have;

	if (verify_live(h, (uintptr_t)p, old_size, align) != MM_FAULT_NONE)
		return false;
	if (MM_HARDEN && !neighbours_sound(h, b))
		return false;
	have = size_of(b);
	after = block_after(b, have);
	if (need > have && (!(after->head & FREE) || size_of(after) < need - have))
		return false;
	if (need > have)
		grow(h, b, need);
	if (need < have) {
		h->free_bytes += have - need;
		release(h, block_after(b, need), have - need, 0);
	}
	b->head = need | (b->head & PREV_FREE) | seal(h, (uintptr_t)p, new_size, align);
	slack_write(b, new_size);
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

static void piece_link(struct byte_tlsf *h, struct tlsf_piece *piece)
{
	struct tlsf_piece **at = &h->pieces;

	while (*at && (*at)->first < piece->first)
		at = &(*at)->next;
	piece->next = *at;
	*at = piece;
}

/* Level 0 looks at the hull of all pieces only, the others at one piece. */
static void set_bounds(struct byte_tlsf *h)
{
	const struct tlsf_piece *last = h->pieces;

	h->first = last ? last->first : 0;
	while (!MM_HARDEN && last && last->next)
		last = last->next;
	h->span = last ? piece_end(last) - h->first : 0;
}

static enum alloc_result tlsf_add_memory(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_tlsf *h = tlsf_of(a);
	uintptr_t first = mm_align_up((uintptr_t)start, 2 * UNIT) + HEADER;
	uintptr_t limit = (uintptr_t)start + nbytes;
	struct tlsf_piece *piece;
	size_t room;

	if (!start || limit < (uintptr_t)start || nbytes < sizeof(*piece) + MIN_BLOCK + 4 * UNIT ||
	    nbytes >= BLOCK_LIMIT)
		return ALLOC_INVALID_PARAM;
	if (overlaps(h, (uintptr_t)start, nbytes))
		return ALLOC_MEMORY_OVERLAP;
	piece = (struct tlsf_piece *)mm_align_down(limit - sizeof(*piece), UNIT);
	room = piece_end(piece) - first;
	*piece = (struct tlsf_piece){.first = first, .start = start, .nbytes = nbytes};
	piece_link(h, piece);
	if (!h->secret)
		h->secret = ((uintptr_t)h + (uintptr_t)start) * 0xd6e8feb86659fd93u | 1;
	release(h, block_at(first), room, 0);
	h->free_bytes += room;
	h->capacity += room;
	h->total_bytes += nbytes;
	set_bounds(h);
	return ALLOC_OK;
}

static enum alloc_result tlsf_init(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_alloc base = *a;

	__builtin_memset(a, 0, sizeof(struct byte_tlsf));
	*a = base;
	return tlsf_add_memory(a, start, nbytes);
}

/* Enough for a bad base, and for a list whose every block is large enough. */
static size_t tlsf_grow_size(const struct byte_alloc *a, size_t size, size_t align)
{
	(void)a;
	if (size > BLOCK_LIMIT)
		return SIZE_MAX;
	size = block_bytes(size, align) + (align > UNIT ? align : 0);
	return size + size / (TLSF_COLS / 2) + sizeof(struct tlsf_piece) + 8 * UNIT;
}

static bool tlsf_take_free(struct byte_alloc *a, void **start, size_t *nbytes)
{
	struct byte_tlsf *h = tlsf_of(a);
	struct tlsf_piece **at = &h->pieces;
	struct tlsf_piece *piece;
	size_t room;

	quick_flush(h);
	if (MM_HARDEN >= 3)
		held_flush(h);
	piece = h->empty;
	if (!piece)
		return false;
	if (MM_HARDEN && !free_block_sound(h, block_at(piece->first))) {
		report_corrupt((const void *)piece->first);
		return false;
	}
	while (*at != piece)
		at = &(*at)->next;
	*at = piece->next;
	piece_remove_empty(piece);
	list_remove(h, block_at(piece->first));
	room = piece_end(piece) - piece->first;
	h->free_bytes -= room;
	h->capacity -= room;
	h->total_bytes -= piece->nbytes;
	*start = piece->start;
	*nbytes = piece->nbytes;
	set_bounds(h);
	return true;
}

/* --- Queries ---------------------------------------------------------------- */

/* Is there a block of a plausible size here? */
static bool walkable(const struct tlsf_piece *piece, const struct tlsf_block *b)
{
	return size_of(b) && size_of(b) <= piece_end(piece) - (uintptr_t)b;
}

static size_t tlsf_block_size(const struct byte_alloc *a, const void *p)
{
	const struct tlsf_block *b = block_of(p);
	const struct tlsf_piece *piece = piece_search(const_tlsf_of(a), (uintptr_t)b);

	if (!piece || (uintptr_t)p % UNIT || (b->head & (FREE | HELD)) || size_of(b) < MIN_BLOCK ||
	    !walkable(piece, b))
		return 0;
	return size_of(b) - HEADER - TAIL;
}

static size_t tlsf_total_bytes(const struct byte_alloc *a)
{
	return const_tlsf_of(a)->total_bytes;
}

static size_t tlsf_used_bytes(const struct byte_alloc *a)
{
	return const_tlsf_of(a)->capacity - const_tlsf_of(a)->free_bytes;
}

static size_t tlsf_available_bytes(const struct byte_alloc *a)
{
	return const_tlsf_of(a)->free_bytes;
}

static void tlsf_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx)
{
	for (const struct tlsf_piece *p = const_tlsf_of(a)->pieces; p; p = p->next) {
		const struct tlsf_block *b = block_at(p->first);

		for (; (uintptr_t)b < piece_end(p) && walkable(p, b);
		     b = block_after(b, size_of(b)))
			fn(ctx, (const void *)payload(b), size_of(b) - HEADER,
			   !(b->head & (FREE | HELD)));
	}
}

/* What a check counts. */
struct tally {
	size_t listed;	   /* free blocks that must be in lists, less those found there */
	size_t free_bytes; /* including what is in quarantine */
};

static bool check_block(const struct byte_tlsf *h, const struct tlsf_block *b, bool prev_free)
{
	uint64_t head = b->head;
	const struct tlsf_block *after = block_after(b, size_of(b));

	if (!!(head & PREV_FREE) != prev_free)
		return false;
	if (!(head & FREE))
		return size_of(b) >= MIN_BLOCK && (MM_HARDEN || !(head & SEAL_MASK));
	if (prev_free || (head & SEAL_MASK) || *footer(b, size_of(b)) != head)
		return false;
	if (!!(head & WHOLE) !=
	    (!size_of(after) && ((const struct tlsf_piece *)after)->first == (uintptr_t)b))
		return false;
	if (MM_HARDEN >= 2 && !poison_intact(b, 0, UINTPTR_MAX))
		return false;
	return size_of(b) < MIN_BLOCK || piece_search(h, (uintptr_t)b);
}

static const void *check_piece(const struct byte_tlsf *h, const struct tlsf_piece *piece,
			       struct tally *t)
{
	const struct tlsf_block *b = block_at(piece->first);
	bool prev_free = false;

	while ((uintptr_t)b < piece_end(piece)) {
		if (!walkable(piece, b) || !check_block(h, b, prev_free))
			return b;
		prev_free = b->head & FREE;
		t->listed += prev_free && size_of(b) >= MIN_BLOCK;
		t->free_bytes += b->head & (FREE | HELD) ? size_of(b) : 0;
		b = block_after(b, size_of(b));
	}
	return piece->sentinel == (prev_free ? PREV_FREE : 0) ? NULL : piece;
}

static const void *check_quick(const struct byte_tlsf *h, size_t i)
{
	const struct tlsf_block *b = h->quick[i];
	unsigned int depth = h->quick_depth[i];

	for (; b && depth; b = b->next, depth--)
		if ((uintptr_t)b % UNIT || !piece_search(h, (uintptr_t)b) ||
		    (b->head & ~PREV_FREE) != (i * UNIT | HELD))
			return b;
	return b || depth ? &h->quick[i] : NULL;
}

static const void *check_list(const struct byte_tlsf *h, size_t i, struct tally *t)
{
	struct tlsf_block *const *at = &h->lists[i];
	bool marked = h->cols[i / TLSF_COLS] >> (i % TLSF_COLS) & 1;

	if (marked != !!*at || (marked && !(h->rows >> (i / TLSF_COLS) & 1)))
		return at;
	for (; *at; at = &(*at)->next) {
		const struct tlsf_block *b = *at;

		if ((uintptr_t)b % UNIT || !piece_search(h, (uintptr_t)b) || b->at != at ||
		    !(b->head & FREE) || list_of(size_of(b)) != i || !t->listed--)
			return at;
	}
	return NULL;
}

static const void *tlsf_check(const struct byte_alloc *a)
{
	const struct byte_tlsf *h = const_tlsf_of(a);
	const void *broken = NULL;
	struct tally t = {0, 0};

	for (const struct tlsf_piece *p = h->pieces; p && !broken; p = p->next)
		broken = check_piece(h, p, &t);
	for (size_t i = 0; i < NLISTS && !broken; i++)
		broken = check_list(h, i, &t);
	for (size_t i = 0; i < TLSF_QUICK && !broken; i++)
		broken = check_quick(h, i);
	if (!broken && (t.listed || t.free_bytes != h->free_bytes))
		return h;
	return broken;
}

const struct byte_ops byte_tlsf_ops = {
	.name = "TLSF",
	.init = tlsf_init,
	.add_memory = tlsf_add_memory,
	.alloc = tlsf_alloc,
	.dealloc = tlsf_dealloc,
	.resize = tlsf_resize,
	.grow_size = tlsf_grow_size,
	.take_free = tlsf_take_free,
	.block_size = tlsf_block_size,
	.total_bytes = tlsf_total_bytes,
	.used_bytes = tlsf_used_bytes,
	.available_bytes = tlsf_available_bytes,
	.walk = tlsf_walk,
	.check = tlsf_check,
};
