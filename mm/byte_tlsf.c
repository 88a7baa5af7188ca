/* SPDX-License-Identifier: MIT */
/*
 * TLSF: two-level segregated fit (Masmano, Ripoll, Crespo, Real: "TLSF: a New
 * Dynamic Memory Allocator for Real-Time Systems", ECRTS 2004).
 *
 * Theory of operation
 *
 * A block is a header word and its payload:
 *
 *	        +--------+------------------------------- - - -+--------+
 *	free    | header | next | prev |      unused           |  size  |
 *	        +--------+------------------------------- - - -+--------+
 *	used    | header | payload                                      |
 *	        +--------+------------------------------- - - -+--------+
 *
 * The header holds the size of the block (a multiple of 16, header included)
 * and flags; the last word of a free block repeats its size (the boundary tag),
 * so that the block behind it finds its start. A used block needs no such tag: the
 * flag PREV_FREE of the block behind it says whether to look. So the overhead is
 * 8 bytes a block. Headers lie at 16 n + 8, payloads at 16 n.
 *
 * Free blocks are in lists by size: below 512 bytes a list for each size, above
 * 32 lists for each power of two. A bitmap of the first level and one for each
 * second level find the next list that is not empty with two bit searches.
 * The list that the request itself falls into may hold blocks that are too
 * small; up to LOOK of them are tried before the next list is taken, which
 * cannot fail. That costs a constant and is what keeps the fit good. Two neighbours are never
 * both free. All of this takes a bounded number of steps, whatever the sequence.
 *
 * A piece of memory is: its descriptor, blocks, and a header of size zero that
 * is never free. FIRST marks the first block, so that a piece which
 * became one free block is noticed (and counted) when that happens.
 *
 * Hardening. From level 1 the upper 16 bits of a header are a check of its
 * address: a pointer that is not a block's, or a header that was written over, does not have it.
 * Both neighbours and the links of the list are verified before anything is
 * changed. From level 2 what lies between the end of the request and the end
 * of the block is a canary, and free memory is poisoned and verified before it is used again. Level
 * 3 delays reuse (a ring of TLSF_QUARANTINE blocks) and walks everything from time to time.
 *
 * Shortcomings. The lookup of the piece that a pointer belongs to (level 1 and up) is a list,
 * after the piece that was hit last: its length is the number of pieces, which the facade keeps
 * logarithmic by doubling. The check in a header is no secret: it finds mistakes, not attacks. A
 * fault in a free list drops the whole list, whose memory is lost until the piece is.
 */
#include <mm/byte_tlsf.h>

#include "bits.h"

#define HEADER	  sizeof(size_t)
#define GRAIN	  ((size_t)16)
#define MIN_BLOCK ((size_t)32) /* header, two links, size */
#define MAX_PIECE ((size_t)1 << 40)
#define LOOK	  4

enum {
	FREE = 1,
	PREV_FREE = 2,
	FIRST = 4,
	QUARANTINED = 8,
	FLAGS = 15,
};

#if MM_HARDEN >= 1
#define CHECK_SHIFT 48
#define SIZE_MASK   (((size_t)1 << CHECK_SHIFT) - 1 - FLAGS)
#else
#define SIZE_MASK (~(size_t)FLAGS)
#endif

#define CANARY_BYTES (MM_HARDEN >= 2 ? (size_t)8 : 0)
#define CANARY	     0xca
#define POISON	     0xdd

struct tlsf_block {
	size_t head;
	struct tlsf_block *next, *prev; /* when free */
};

struct tlsf_piece {
	struct tlsf_piece *next;
	void *start; /* as it was given */
	size_t nbytes;
	uintptr_t first, end; /* first block; the header of size zero */
};

static inline struct byte_tlsf *tlsf_of(struct byte_alloc *a)
{
	return (struct byte_tlsf *)(void *)a;
}

static inline const struct byte_tlsf *tlsf_of_const(const struct byte_alloc *a)
{
	return (const struct byte_tlsf *)(const void *)a;
}

/* --- Blocks ---------------------------------------------------------------- */

static inline size_t check_of(const struct tlsf_block *b)
{
#if MM_HARDEN >= 1
	return ((uintptr_t)b * (size_t)0x9e3779b97f4a7c15u) & ~(((size_t)1 << CHECK_SHIFT) - 1);
#else
	(void)b;
	return 0;
#endif
}

static inline bool check_good(const struct tlsf_block *b)
{
#if MM_HARDEN >= 1
	return !((b->head ^ (uintptr_t)b * (size_t)0x9e3779b97f4a7c15u) >> CHECK_SHIFT);
#else
	(void)b;
	return true;
#endif
}

static inline void set_head(struct tlsf_block *b, size_t size, size_t flags)
{
	b->head = size | flags | check_of(b);
}

static inline size_t size_of(const struct tlsf_block *b)
{
	return b->head & SIZE_MASK;
}

static inline struct tlsf_block *at(const struct tlsf_block *b, size_t offset)
{
	return (struct tlsf_block *)((uintptr_t)b + offset);
}

static inline struct tlsf_block *block_of(const void *p)
{
	return (struct tlsf_block *)((uintptr_t)p - HEADER);
}

static inline void *payload_of(const struct tlsf_block *b)
{
	return (void *)((uintptr_t)b + HEADER);
}

/* The boundary tag in front of b. Pre: PREV_FREE. */
static inline size_t *tag_before(const struct tlsf_block *b)
{
	return (size_t *)((uintptr_t)b - sizeof(size_t));
}

static inline size_t needed(size_t size)
{
	size_t n = (size + HEADER + CANARY_BYTES + GRAIN - 1) & ~(GRAIN - 1);

	return n < MIN_BLOCK ? MIN_BLOCK : n;
}

static inline struct tlsf_block *raw_at(uintptr_t address)
{
	return (struct tlsf_block *)address;
}

/* --- Faults that are found on the way -------------------------------------- */

static __attribute__((noinline, cold)) void report(enum mm_fault_kind kind, const void *p)
{
	mm_fault_report(&(struct mm_fault){.kind = kind, .allocator = "TLSF", .ptr = p});
}

/* --- Canary and poison, level 2 and up ------------------------------------- */

static inline void set_canary(struct tlsf_block *b, size_t size)
{
	if (MM_HARDEN >= 2)
		__builtin_memset((uint8_t *)payload_of(b) + size, CANARY,
				 size_of(b) - HEADER - size);
}

static bool all_bytes(const uint8_t *p, const uint8_t *end, uint8_t byte)
{
	for (; p < end; p++)
		if (*p != byte)
			return false;
	return true;
}

static inline bool canary_good(const struct tlsf_block *b, size_t size)
{
	const uint8_t *p = payload_of(b);

	return MM_HARDEN < 2 || all_bytes(p + size, (const uint8_t *)b + size_of(b), CANARY);
}

static inline void poison(uintptr_t from, uintptr_t to)
{
	if (MM_HARDEN >= 2)
		__builtin_memset((void *)from, POISON, to - from);
}

/* A free block is poison between its links and its size. */
static bool poison_good(const struct tlsf_block *b, uintptr_t upto)
{
	uintptr_t end = (uintptr_t)b + size_of(b) - sizeof(size_t);

	return all_bytes((const uint8_t *)b + sizeof(*b),
			 (const uint8_t *)(upto < end ? upto : end), POISON);
}

/* --- Free lists ------------------------------------------------------------ */

/* Pre: MIN_BLOCK <= size <= MAX_PIECE. */
static inline unsigned int list_of(size_t size)
{
	unsigned int top;

	if (size < GRAIN * TLSF_SL_COUNT)
		return (unsigned int)(size / GRAIN);
	top = mm_fls(size);
	return (top - 9) * TLSF_SL_COUNT + (unsigned int)(size >> (top - 5));
}

static inline void mark_empty(struct byte_tlsf *t, unsigned int list)
{
	unsigned int fl = list / TLSF_SL_COUNT;

	t->sl_map[fl] &= ~((uint32_t)1 << (list % TLSF_SL_COUNT));
	if (!t->sl_map[fl])
		t->fl_map &= ~((uint64_t)1 << fl);
}

static inline void insert(struct byte_tlsf *t, struct tlsf_block *b, size_t size)
{
	unsigned int list = list_of(size);
	struct tlsf_block *old = t->list[list];

	b->next = old;
	b->prev = NULL;
	t->list[list] = b;
	t->nfree++;
	if (old) {
		old->prev = b;
		return;
	}
	t->fl_map |= (uint64_t)1 << (list / TLSF_SL_COUNT);
	t->sl_map[list / TLSF_SL_COUNT] |= (uint32_t)1 << (list % TLSF_SL_COUNT);
}

static const struct tlsf_piece *piece_of(const struct byte_tlsf *t, const struct tlsf_block *b);

/* May this be a free block that is linked? Reads memory of the pieces only. */
static bool plausible_free(const struct byte_tlsf *t, const struct tlsf_block *b)
{
	return !(((uintptr_t)b + HEADER) & (GRAIN - 1)) && piece_of(t, b) && check_good(b) &&
	       (b->head & FREE);
}

/* Do b's links agree with its neighbours in the list? */
static inline bool links_good(const struct byte_tlsf *t, const struct tlsf_block *b,
			      unsigned int list)
{
	if (MM_HARDEN < 1)
		return true;
	if (b->next && (!plausible_free(t, b->next) || b->next->prev != b))
		return false;
	if (!b->prev)
		return t->list[list] == b;
	return plausible_free(t, b->prev) && b->prev->next == b;
}

static __attribute__((noinline, cold)) void drop_list(struct byte_tlsf *t, unsigned int list,
						      const void *where)
{
	report(MM_FAULT_CORRUPT, where);
	t->list[list] = NULL;
	mark_empty(t, list);
}

/* Pre: links_good. */
static inline void unlink(struct byte_tlsf *t, struct tlsf_block *b, unsigned int list)
{
	struct tlsf_block *next = b->next;

	t->nfree--;
	if (next)
		next->prev = b->prev;
	if (b->prev) {
		b->prev->next = next;
		return;
	}
	t->list[list] = next;
	if (!next)
		mark_empty(t, list);
}

/* A block of at least `need` bytes, and its list; NULL when there is none. Stays linked. */
static inline struct tlsf_block *find(const struct byte_tlsf *t, size_t need, unsigned int *list)
{
	unsigned int at_list = list_of(need), fl, sl = at_list % TLSF_SL_COUNT, look = LOOK;
	struct tlsf_block *b = t->list[at_list];
	uint64_t map;

	for (; b && look; b = b->next, look--) {
		if (MM_HARDEN >= 1 && !plausible_free(t, b))
			break; /* the caller finds it again when it takes the list's head */
		if (size_of(b) >= need) {
			*list = at_list;
			return b;
		}
	}
	fl = at_list / TLSF_SL_COUNT;
	map = t->sl_map[fl] & (~(uint64_t)1 << sl);
	if (!map) {
		map = t->fl_map & (~(uint64_t)1 << fl);
		if (!map)
			return NULL;
		fl = mm_ctz(map);
		map = t->sl_map[fl];
	}
	at_list = fl * TLSF_SL_COUNT + mm_ctz(map);
	*list = at_list;
	return t->list[at_list];
}

/* --- Pieces ---------------------------------------------------------------- */

static inline bool in_piece(const struct tlsf_piece *p, const struct tlsf_block *b)
{
	return (uintptr_t)b >= p->first && (uintptr_t)b < p->end;
}

static const struct tlsf_piece *piece_of(const struct byte_tlsf *t, const struct tlsf_block *b)
{
	if (t->hot && in_piece(t->hot, b))
		return t->hot;
	for (const struct tlsf_piece *p = t->pieces; p; p = p->next)
		if (in_piece(p, b))
			return p;
	return NULL;
}

/* The same, and remember it. */
static inline struct tlsf_piece *piece_of_hot(struct byte_tlsf *t, const struct tlsf_block *b)
{
	if (!t->hot || !in_piece(t->hot, b)) {
		struct tlsf_piece *p = (struct tlsf_piece *)(uintptr_t)piece_of(t, b);

		if (!p)
			return NULL;
		t->hot = p;
	}
	return t->hot;
}

static bool overlaps(const struct byte_tlsf *t, uintptr_t start, uintptr_t end)
{
	for (const struct tlsf_piece *p = t->pieces; p; p = p->next)
		if (start < (uintptr_t)p->start + p->nbytes && (uintptr_t)p->start < end)
			return true;
	return false;
}

static void link_piece(struct byte_tlsf *t, struct tlsf_piece *p)
{
	struct tlsf_piece **at_piece = &t->pieces;

	while (*at_piece && *at_piece < p)
		at_piece = &(*at_piece)->next;
	p->next = *at_piece;
	*at_piece = p;
}

static enum alloc_result tlsf_add_memory(struct byte_alloc *a, void *start, size_t nbytes)
{
	struct byte_tlsf *t = tlsf_of(a);
	uintptr_t from = mm_align_up((uintptr_t)start, GRAIN), first, end;
	struct tlsf_piece *p = (struct tlsf_piece *)from;
	struct tlsf_block *b;

	if (!start || nbytes > MAX_PIECE || (uintptr_t)start + nbytes < (uintptr_t)start ||
	    from < (uintptr_t)start)
		return ALLOC_INVALID_PARAM;
	first = from + mm_align_up(sizeof(*p), GRAIN) + HEADER;
	end = mm_align_down((uintptr_t)start + nbytes, GRAIN) - HEADER;
	if (nbytes < sizeof(*p) + MIN_BLOCK + 4 * GRAIN || end < first + MIN_BLOCK)
		return ALLOC_INVALID_PARAM;
	if (overlaps(t, (uintptr_t)start, (uintptr_t)start + nbytes))
		return ALLOC_MEMORY_OVERLAP;
	*p = (struct tlsf_piece){.start = start, .nbytes = nbytes, .first = first, .end = end};
	link_piece(t, p);
	t->total += nbytes;
	t->capacity += end - first;

	b = raw_at(first);
	poison(first, end);
	set_head(b, end - first, FREE | FIRST);
	*tag_before(raw_at(end)) = end - first;
	set_head(raw_at(end), 0, PREV_FREE);
	insert(t, b, end - first);
	t->nfree_pieces++;
	return ALLOC_OK;
}

static enum alloc_result tlsf_init(struct byte_alloc *a, void *start, size_t nbytes)
{
	const struct byte_ops *ops = a->ops;

	*tlsf_of(a) = (struct byte_tlsf){.base.ops = ops};
	return tlsf_add_memory(a, start, nbytes);
}

static inline bool is_whole_piece(const struct tlsf_block *b)
{
	return (b->head & FIRST) && !size_of(at(b, size_of(b)));
}

/* --- Allocation ------------------------------------------------------------ */

/* Make what lies at b, `size` bytes in front of the used block `next`, a free block. */
static inline void make_free(struct byte_tlsf *t, struct tlsf_block *b, size_t size, size_t flags)
{
	set_head(b, size, FREE | flags);
	*tag_before(at(b, size)) = size;
	insert(t, b, size);
}

/* Pre: b is free and linked in `list`. Unlinks it, or drops the list when it is broken. */
static inline bool take(struct byte_tlsf *t, struct tlsf_block *b, unsigned int list)
{
	size_t size;

	if (MM_HARDEN >= 1 && (!plausible_free(t, b) || !links_good(t, b, list))) {
		drop_list(t, list, b);
		return false;
	}
	size = size_of(b);
	if (MM_HARDEN >= 1 && (!piece_of(t, at(b, size - HEADER)) || *tag_before(at(b, size)) != size)) {
		drop_list(t, list, b);
		return false;
	}
	unlink(t, b, list);
	if (__builtin_expect(is_whole_piece(b), 0))
		t->nfree_pieces--;
	return true;
}

/* Pre: b, of `have` bytes, is no longer linked. Uses `need` of them and frees the rest. */
static inline void use(struct byte_tlsf *t, struct tlsf_block *b, size_t have, size_t need,
		       size_t flags)
{
	if (have - need >= MIN_BLOCK) {
		make_free(t, at(b, need), have - need, 0);
	} else {
		need = have;
		at(b, have)->head &= ~(size_t)PREV_FREE;
	}
	set_head(b, need, flags);
	t->used += need;
}

static inline void verify_poison(const struct tlsf_block *b, size_t nbytes)
{
	if (MM_HARDEN >= 2 && !poison_good(b, (uintptr_t)b + nbytes))
		report(MM_FAULT_WRITE_AFTER_FREE, payload_of(b));
}

/* More than the default alignment: free what lies in front of the first good place. */
static __attribute__((noinline)) void *alloc_aligned(struct byte_tlsf *t, size_t need, size_t align,
						     size_t size)
{
	size_t have, gap;
	unsigned int list;
	struct tlsf_block *b;
	size_t flags;

	do {
		b = find(t, need + align + GRAIN, &list);
		if (!b)
			return NULL;
	} while (!take(t, b, list));
	have = size_of(b);
	flags = b->head & FIRST;
	gap = mm_align_up((uintptr_t)payload_of(b), align) - (uintptr_t)payload_of(b);
	if (gap && gap < MIN_BLOCK)
		gap += align;
	verify_poison(b, have);
	if (gap) {
		make_free(t, b, gap, flags);
		b = at(b, gap);
		flags = PREV_FREE;
	}
	use(t, b, have - gap, need, flags);
	set_canary(b, size);
	return payload_of(b);
}

static void *alloc_now(struct byte_tlsf *t, size_t size, size_t align)
{
	size_t need;
	unsigned int list;
	struct tlsf_block *b;

	if (__builtin_expect(size > MAX_PIECE - 2 * MM_MAX_ALIGN, 0))
		return NULL;
	need = needed(size);
	if (__builtin_expect(align > GRAIN, 0))
		return alloc_aligned(t, need, align, size);
	do {
		b = find(t, need, &list);
		if (__builtin_expect(!b, 0))
			return NULL;
	} while (!take(t, b, list));
	verify_poison(b, need);
	use(t, b, size_of(b), need, b->head & FIRST);
	set_canary(b, size);
	return payload_of(b);
}

/* --- Freeing --------------------------------------------------------------- */

/*
 * A header that has no good check: is there a block at all, whose header was
 * written over, or does p point somewhere else? The blocks of the piece tell.
 */
static __attribute__((noinline, cold)) enum mm_fault_kind bad_header(const struct tlsf_piece *p,
								     const struct tlsf_block *b)
{
	const struct tlsf_block *w = raw_at(p->first);

	while ((uintptr_t)w < (uintptr_t)b && check_good(w) && size_of(w) >= MIN_BLOCK)
		w = at(w, size_of(w));
	return w == b ? MM_FAULT_CORRUPT : MM_FAULT_FOREIGN;
}

/* Is p a live block of this layout, and are its neighbours sound? Level 1 and up. */
static inline enum mm_fault_kind verify(struct byte_tlsf *t, const void *p, size_t size,
					size_t align)
{
	const struct tlsf_block *b = block_of(p), *next;
	const struct tlsf_piece *piece;
	size_t have;

	if ((uintptr_t)p & (GRAIN - 1))
		return MM_FAULT_MISALIGNED;
	piece = piece_of_hot(t, b);
	if (!piece)
		return MM_FAULT_FOREIGN;
	if (!check_good(b))
		return bad_header(piece, b);
	if (b->head & (FREE | QUARANTINED))
		return MM_FAULT_DOUBLE_FREE;
	have = size_of(b);
	if (have < MIN_BLOCK || have > piece->end - (uintptr_t)b)
		return MM_FAULT_CORRUPT;
	next = at(b, have);
	if (!check_good(next) || (next->head & PREV_FREE))
		return MM_FAULT_OVERFLOW;
	if (have - needed(size) >= MIN_BLOCK || ((uintptr_t)p & (align - 1)))
		return MM_FAULT_WRONG_LAYOUT;
	return canary_good(b, size) ? MM_FAULT_NONE : MM_FAULT_OVERFLOW;
}

/* The free block in front of b; NULL when what should describe it is broken. */
static inline struct tlsf_block *free_before(const struct byte_tlsf *t, const struct tlsf_block *b)
{
	size_t size = *tag_before(b);
	struct tlsf_block *prev = (struct tlsf_block *)((uintptr_t)b - size);

	if (MM_HARDEN < 1)
		return prev;
	if (size < MIN_BLOCK || size > (uintptr_t)b || (size & (GRAIN - 1)) ||
	    !plausible_free(t, prev) || size_of(prev) != size)
		return NULL;
	return prev;
}

/* Pre: b is a used block, all of it is as it should be but for its neighbours. */
static enum mm_fault_kind release(struct byte_tlsf *t, struct tlsf_block *b)
{
	size_t have = size_of(b), size = have, flags = b->head & FIRST;
	struct tlsf_block *next = at(b, have), *prev = NULL;
	uintptr_t from = (uintptr_t)b, to = (uintptr_t)next;
	unsigned int prev_list = 0, next_list = 0;

	/* Verify both before anything is changed. */
	if (b->head & PREV_FREE) {
		prev = free_before(t, b);
		if (!prev)
			return MM_FAULT_CORRUPT;
		prev_list = list_of(size_of(prev));
		if (!links_good(t, prev, prev_list))
			return MM_FAULT_CORRUPT;
	}
	if (next->head & FREE) {
		next_list = list_of(size_of(next));
		if (!links_good(t, next, next_list))
			return MM_FAULT_CORRUPT;
		unlink(t, next, next_list);
		size += size_of(next);
		to = (uintptr_t)next + sizeof(*next);
	} else {
		next->head |= PREV_FREE;
	}
	/* A second free of the same pointer finds this, unless the memory is used again before. */
	b->head |= FREE;
	if (prev) {
		if (MM_HARDEN >= 1 && !links_good(t, prev, prev_list))
			return MM_FAULT_CORRUPT;
		unlink(t, prev, prev_list);
		size += size_of(prev);
		flags = prev->head & FIRST;
		from -= sizeof(size_t);
		b = prev;
	}
	poison(from, to); /* of the neighbours only what was header, links or size */
	t->used -= have;
	make_free(t, b, size, flags);
	if (__builtin_expect(is_whole_piece(b), 0))
		t->nfree_pieces++;
	return MM_FAULT_NONE;
}

/* --- Level 3 --------------------------------------------------------------- */

#if MM_HARDEN >= 3
#define WALK_EVERY 64

static const void *tlsf_check(const struct byte_alloc *a);

static void leave_quarantine(struct byte_tlsf *t, unsigned int i)
{
	struct tlsf_block *b = t->quarantine[i];
	const uint8_t *p;
	enum mm_fault_kind f;

	t->quarantine[i] = NULL;
	if (!b)
		return;
	p = payload_of(b);
	if (!all_bytes(p, (const uint8_t *)b + size_of(b), POISON))
		report(MM_FAULT_WRITE_AFTER_FREE, p);
	b->head &= ~(size_t)QUARANTINED;
	t->used += size_of(b);
	f = release(t, b);
	if (f)
		report(f, p);
}

static void flush_quarantine(struct byte_tlsf *t)
{
	for (unsigned int i = 0; i < TLSF_QUARANTINE; i++)
		leave_quarantine(t, (t->quarantine_next + i) % TLSF_QUARANTINE);
}

static enum mm_fault_kind into_quarantine(struct byte_tlsf *t, struct tlsf_block *b)
{
	unsigned int i = t->quarantine_next;

	leave_quarantine(t, i);
	b->head |= QUARANTINED;
	t->used -= size_of(b);
	poison((uintptr_t)payload_of(b), (uintptr_t)b + size_of(b));
	t->quarantine[i] = b;
	t->quarantine_next = (i + 1) % TLSF_QUARANTINE;
	return MM_FAULT_NONE;
}

static void walk_sometimes(struct byte_tlsf *t)
{
	const void *broken;

	if (++t->calls % WALK_EVERY)
		return;
	broken = tlsf_check(&t->base);
	if (broken)
		report(MM_FAULT_CORRUPT, broken);
}
#endif

/* --- The operations -------------------------------------------------------- */

static void *tlsf_alloc(struct byte_alloc *a, size_t size, size_t align)
{
	struct byte_tlsf *t = tlsf_of(a);
#if MM_HARDEN >= 3
	void *p;

	walk_sometimes(t);
	p = alloc_now(t, size, align);
	if (p)
		return p;
	flush_quarantine(t);
#endif
	return alloc_now(t, size, align);
}

static enum mm_fault_kind tlsf_dealloc(struct byte_alloc *a, void *p, size_t size, size_t align)
{
	struct byte_tlsf *t = tlsf_of(a);

	if (MM_HARDEN >= 1) {
		enum mm_fault_kind f = verify(t, p, size, align);

		if (__builtin_expect(f != MM_FAULT_NONE, 0))
			return f;
	}
#if MM_HARDEN >= 3
	walk_sometimes(t);
	return into_quarantine(t, block_of(p));
#else
	return release(t, block_of(p));
#endif
}

/* Give back what b has beyond `need`. */
static void shrink(struct byte_tlsf *t, struct tlsf_block *b, size_t need)
{
	size_t have = size_of(b);
	struct tlsf_block *rest = at(b, need);

	if (have - need < MIN_BLOCK)
		return;
	set_head(b, need, b->head & (FIRST | PREV_FREE));
	set_head(rest, have - need, 0);
	(void)release(t, rest);
}

static bool grow(struct byte_tlsf *t, struct tlsf_block *b, size_t need)
{
	size_t have = size_of(b);
	struct tlsf_block *next = at(b, have);
	unsigned int list;

	if (!(next->head & FREE) || have + size_of(next) < need)
		return false;
	list = list_of(size_of(next));
	if (!take(t, next, list))
		return false;
	t->used -= have;
	use(t, b, have + size_of(next), need, b->head & (FIRST | PREV_FREE));
	return true;
}

static bool tlsf_resize(struct byte_alloc *a, void *p, size_t old_size, size_t align,
			size_t new_size)
{
	struct byte_tlsf *t = tlsf_of(a);
	struct tlsf_block *b = block_of(p);
	size_t need;

	if (!new_size || new_size > MAX_PIECE - 2 * MM_MAX_ALIGN)
		return false;
	if (MM_HARDEN >= 1 && verify(t, p, old_size, align) != MM_FAULT_NONE)
		return false;
	need = needed(new_size);
	if (need > size_of(b)) {
		if (!grow(t, b, need))
			return false;
	} else {
		shrink(t, b, need);
	}
	set_canary(b, new_size);
	return true;
}

static size_t tlsf_grow_size(const struct byte_alloc *a, size_t size, size_t align)
{
	size_t overhead = sizeof(struct tlsf_piece) + 6 * GRAIN;

	(void)a;
	if (size > MAX_PIECE)
		return SIZE_MAX;
	return needed(size) + overhead + (align > GRAIN ? align + GRAIN : 0);
}

static bool tlsf_take_free(struct byte_alloc *a, void **start, size_t *nbytes)
{
	struct byte_tlsf *t = tlsf_of(a);
	struct tlsf_piece **at_piece = &t->pieces, *p;

#if MM_HARDEN >= 3
	flush_quarantine(t);
#endif
	if (!t->nfree_pieces)
		return false;
	for (; (p = *at_piece); at_piece = &p->next) {
		struct tlsf_block *b = raw_at(p->first);
		size_t size = p->end - p->first;

		if (!(b->head & FREE) || size_of(b) != size)
			continue;
		if (!take(t, b, list_of(size)))
			return false;
		*at_piece = p->next;
		t->hot = NULL;
		t->total -= p->nbytes;
		t->capacity -= size;
		*start = p->start;
		*nbytes = p->nbytes;
		return true;
	}
	return false;
}

static size_t tlsf_block_size(const struct byte_alloc *a, const void *p)
{
	const struct tlsf_block *b = block_of(p);

	if (((uintptr_t)p & (GRAIN - 1)) || !piece_of(tlsf_of_const(a), b) || !check_good(b) ||
	    (b->head & (FREE | QUARANTINED)))
		return 0;
	return size_of(b) - HEADER - CANARY_BYTES;
}

static size_t tlsf_total_bytes(const struct byte_alloc *a)
{
	return tlsf_of_const(a)->total;
}

static size_t tlsf_used_bytes(const struct byte_alloc *a)
{
	return tlsf_of_const(a)->used;
}

static size_t quarantined_bytes(const struct byte_tlsf *t)
{
	size_t n = 0;
#if MM_HARDEN >= 3
	for (unsigned int i = 0; i < TLSF_QUARANTINE; i++)
		n += t->quarantine[i] ? size_of(t->quarantine[i]) : 0;
#else
	(void)t;
#endif
	return n;
}

static size_t tlsf_available_bytes(const struct byte_alloc *a)
{
	const struct byte_tlsf *t = tlsf_of_const(a);

	return t->capacity - t->used - quarantined_bytes(t) - t->nfree * (HEADER + CANARY_BYTES);
}

static void tlsf_walk(const struct byte_alloc *a, byte_walk_fn fn, void *ctx)
{
	for (const struct tlsf_piece *p = tlsf_of_const(a)->pieces; p; p = p->next)
		for (const struct tlsf_block *b = raw_at(p->first);
		     (uintptr_t)b < p->end && size_of(b); b = at(b, size_of(b)))
			fn(ctx, payload_of(b), size_of(b) - HEADER,
			   !(b->head & (FREE | QUARANTINED)));
}

/* Blocks of one piece: they meet end to end, tags and flags agree, no two free neighbours. */
static const void *check_piece(const struct tlsf_piece *p)
{
	const struct tlsf_block *b = raw_at(p->first);
	bool prev_free = false;

	if (!(b->head & FIRST))
		return b;
	while ((uintptr_t)b < p->end) {
		size_t size = size_of(b);
		bool is_free = b->head & FREE;

		if (!check_good(b) || size < MIN_BLOCK || size > p->end - (uintptr_t)b ||
		    prev_free != !!(b->head & PREV_FREE) || (is_free && prev_free))
			return b;
		if (is_free && *tag_before(at(b, size)) != size)
			return b;
		if (MM_HARDEN >= 2 && is_free && !poison_good(b, UINTPTR_MAX))
			return b;
		prev_free = is_free;
		b = at(b, size);
	}
	if (!check_good(b) || size_of(b) || prev_free != !!(b->head & PREV_FREE))
		return b;
	return NULL;
}

static const void *check_list(const struct byte_tlsf *t, unsigned int list, size_t *n)
{
	const struct tlsf_block *prev = NULL;
	bool marked = t->sl_map[list / TLSF_SL_COUNT] >> (list % TLSF_SL_COUNT) & 1;

	if (marked != !!t->list[list])
		return &t->sl_map[list / TLSF_SL_COUNT];
	for (const struct tlsf_block *b = t->list[list]; b; prev = b, b = b->next) {
		if (!plausible_free(t, b) || b->prev != prev || list_of(size_of(b)) != list)
			return b;
		if (++*n > t->nfree)
			return b;
	}
	return NULL;
}

static const void *tlsf_check(const struct byte_alloc *a)
{
	const struct byte_tlsf *t = tlsf_of_const(a);
	const void *broken = NULL;
	size_t n = 0;

	for (const struct tlsf_piece *p = t->pieces; p && !broken; p = p->next)
		broken = check_piece(p);
	for (unsigned int i = 0; i < TLSF_FL_COUNT * TLSF_SL_COUNT && !broken; i++)
		broken = check_list(t, i, &n);
	for (unsigned int fl = 0; fl < TLSF_FL_COUNT && !broken; fl++)
		if (!!t->sl_map[fl] != (t->fl_map >> fl & 1))
			broken = &t->fl_map;
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
