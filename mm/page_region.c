/* SPDX-License-Identifier: MIT */
/*
 * One region of pages: a bitmap under sets of free blocks and a tree of free runs.
 *
 * Theory of operation
 *
 * The bitmap has one bit a page, 1 for free. 64 pages (a word) are a group, 64
 * groups are a chunk of 4096 pages (16 MiB). Everything lies at addresses: a
 * chunk starts at a multiple of 16 MiB, so the bits outside the region in its
 * first and last chunk are simply taken, and bit alignment is page alignment.
 *
 * Aligned blocks are looked up and never looked for. A block of order q is 2^q
 * free pages at a multiple of 2^q. Levels of words stand over each other: the
 * bits of level 0 are pages, those of level l + 1 say which words of level l are
 * wholly free. Folding a word on itself a few times tells which of the six orders
 * of its level its bits hold; and there is a 64-ary set (page_tree.h) for each level
 * and order of the words that hold one. (At level 0 the sets are of chunks, and six words
 * in each chunk name its groups.) So finding a block takes a step for each level of its set and one
 * inside the word: two levels to 64 GiB, three to 4 TiB.
 *
 * A word is in the sets of its level only while it is partly free. A search
 * starts at the lowest level that can hold the request and thus uses up broken
 * blocks before it breaks a whole one, as a buddy allocator would; but there
 * are no lists, nothing is merged or split, and a request is not rounded up to
 * a power of two: of the block found it takes just its pages. When the
 * alignment allows, it is first slid down to the start of the free run that the
 * block lies in, so that requests of odd lengths lie back to back and leave no
 * holes.
 *
 * A run of n pages need not hold a block of n rounded up. When there is none,
 * the tree of free runs (page_run.h) knows the lowest run of n pages, in eight
 * steps a level. Thus a request for n pages at any address, or for an aligned
 * power of two, fails only when there is no such run, and no request ever walks
 * pages or runs.
 *
 * For other alignments a run of n + alignment - 1 pages will do. If there is
 * none either, the lowest few runs of at least n pages are tried: a request for,
 * say, 3 pages at 4 can fail although a run of 3 happens to lie right, when
 * many lie wrong and no 4 are free in a row. That is the price of the bound.
 *
 * Taking and giving change words of the bitmap, and the sets only where the
 * orders of a word changed. Most requests never look at the tree of free runs,
 * so it may lag: up to 64 chunks have leaves whose sum is not up to date, and
 * are summed up when another chunk takes their place, or before a search. A
 * change does not make a leaf stale when the run around it ends inside its word
 * and never was the longest of the leaf.
 *
 * Beside the bitmap, four bits a page hold its state (page_state.h). They are what
 * makes counts exact on any sub-range free and misuse visible. The owner of a
 * CPU cache changes the state of its pages without the lock that everything
 * else here is called under.
 *
 * The metadata of a chunk are written when it is first touched; before, its bit at level 2
 * says all. Creating a region of any size writes only the sets, two
 * words a gigabyte each.
 *
 * How it is fast: up to 16 pages, a power of two or fewer than their alignment, inside a partly
 * free group, the usual case, go by a direct path (page_region_get_direct) that looks at one word
 * of the bitmap and one of the states; so do whole groups, inside a chunk. Bounded: no loop goes
 * over pages or runs but those of the request itself; a search reads at most eight nodes a level,
 * after at most 64 chunks were summed up (tests/host/test_page_worst.c counts).
 *
 * Metadata: 640 bytes a chunk, 2 KiB of states, 110 bytes for the tree, and the sets; 0.0168 %.
 *
 * Shortcomings: exactness at odd alignments, as said. Counting and marking states and
 * bits of a request takes a step for each 16 pages. A search for a run may find 64 chunks to sum
 * up, some 10,000 instructions, which others have spared. The first touch of a chunk writes
 * 2.6 KiB. A region of a few pages still pays for whole chunks.
 */
#include "page_region.h"

#define ALL_FREE   (~(uint64_t)0)
#define RUNS_TRIED 4 /* runs looked at for an odd alignment */

/* aligned_bits[q]: the positions in a word where a block of 2^q may start. */
static const uint64_t aligned_bits[PAGE_LEVEL_ORDERS] = {
	~(uint64_t)0,	     0x5555555555555555u, 0x1111111111111111u,
	0x0101010101010101u, 0x0001000100010001u, 0x0000000100000001u,
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* n bits of a word from `lo` on. Pre: 0 < n, lo + n <= 64. */
static inline uint64_t bits_from(size_t lo, size_t n)
{
	return ALL_FREE >> (64 - n) << lo;
}

/* Bits [lo, hi) of a word. Pre: lo < hi <= 64. */
static uint64_t bit_range(size_t lo, size_t hi)
{
	return bits_from(lo, hi - lo);
}

/* How many orders of aligned blocks the set bits hold; none when all are set, for that is the next
 * level's. */
static unsigned int count_orders(uint64_t bits)
{
	if (!bits || bits == ALL_FREE)
		return 0;
	bits &= bits >> 1 & aligned_bits[1];
	if (!bits)
		return 1;
	bits &= bits >> 2 & aligned_bits[2];
	if (!bits)
		return 2;
	bits &= bits >> 4 & aligned_bits[3];
	if (!bits)
		return 3;
	bits &= bits >> 8 & aligned_bits[4];
	if (!bits)
		return 4;
	return bits & bits >> 16 & aligned_bits[5] ? 6 : 5;
}

/* Where aligned blocks of 2^order set bits start. */
static inline uint64_t blocks_of(uint64_t bits, unsigned int order)
{
	uint64_t aligned = aligned_bits[order];

	switch (order) {
	case 5:
		bits &= bits >> 16; /* fall through */
	case 4:
		bits &= bits >> 8; /* fall through */
	case 3:
		bits &= bits >> 4; /* fall through */
	case 2:
		bits &= bits >> 2; /* fall through */
	case 1:
		bits &= bits >> 1; /* fall through */
	default:
		return bits & aligned;
	}
}

/* The first of them. Pre: there is one. */
static unsigned int first_block(uint64_t bits, unsigned int order)
{
	return mm_ctz(blocks_of(bits, order));
}

/* count_orders of bits with such blocks, some but not all. */
static inline unsigned int count_orders_above(uint64_t blocks, unsigned int order)
{
	while (blocks && ++order < PAGE_LEVEL_ORDERS)
		blocks &= blocks >> (1u << (order - 1)) & aligned_bits[order];
	return order;
}

/* --- Levels ------------------------------------------------------------- */

static bool is_ready(const struct page_region *r, size_t c)
{
	return page_tree_bit(r->ready, c);
}

/* The number of a chunk in the address space. */
static size_t chunk_number(const struct page_region *r, size_t c)
{
	return r->level[1].first + c;
}

static bool chunk_is_free(const struct page_region *r, size_t c)
{
	size_t i = chunk_number(r, c);

	return r->level[2].words[(i >> 6) - r->level[2].first] >> (i & 63) & 1;
}

/* A word of a level, entry `at` of its sets, holds blocks of `now` orders, no longer of `old`. */
static void change_orders(struct page_level *level, size_t at, unsigned int old, unsigned int now)
{
	for (unsigned int q = now; q < old; q++)
		page_tree_remove(&level->shape, level->set[q], at);
	for (unsigned int q = old; q < now; q++)
		page_tree_insert(&level->shape, level->set[q], at);
}

/* A chunk has become wholly free, or ceased to be so; and the words above it that follow from that.
 */
static void set_chunk_free(struct page_region *r, size_t c, bool is_free)
{
	size_t i = chunk_number(r, c);

	for (struct page_level *level = &r->level[2]; level < &r->level[r->levels]; level++) {
		size_t at = (i >> 6) - level->first;
		uint64_t bit = (uint64_t)1 << (i & 63), old = level->words[at];
		uint64_t now = is_free ? old | bit : old & ~bit;

		level->words[at] = now;
		change_orders(level, at, count_orders(old), count_orders(now));
		if ((old == ALL_FREE) == (now == ALL_FREE))
			return;
		i >>= 6;
	}
}

/* Write the metadata of a chunk for the first time. */
static void make_ready(struct page_region *r, size_t c)
{
	struct page_chunk *ch = &r->chunks[c];

	__builtin_memset(ch, 0, sizeof(*ch));
	__builtin_memset(ch->free, 0xff, sizeof(ch->free));
	ch->whole = ALL_FREE;
	__builtin_memset(&r->states[c * (PAGE_CHUNK / PAGE_STATES_WORD)], 0, PAGE_CHUNK / 2);
	r->ready[c >> 6] |= (uint64_t)1 << (c & 63);
	while (r->ready_end < r->end && is_ready(r, r->ready_end >> PAGE_CHUNK_SHIFT))
		r->ready_end = min_size(r->ready_end + PAGE_CHUNK, r->end);
}

__attribute__((noinline)) static void open_free_chunk(struct page_region *r, size_t c)
{
	page_runs_open(&r->runs, c * PAGE_CHUNK_LEAVES);
	if (!is_ready(r, c))
		make_ready(r, c);
}

/* Before pages of a chunk are taken: its metadata become valid, if it is wholly free. */
static inline void open_chunk(struct page_region *r, size_t c)
{
	if (chunk_is_free(r, c))
		open_free_chunk(r, c);
}

__attribute__((noinline)) static void enter_set(struct page_level *level, unsigned int q, size_t at)
{
	page_tree_insert(&level->shape, level->set[q], at);
}

/* The sets of these orders lose chunk c, if it has no such block any more. */
__attribute__((noinline)) static void leave_sets(struct page_region *r, size_t c,
						 unsigned int first, unsigned int end)
{
	for (unsigned int q = first; q < end; q++)
		if (!r->chunks[c].partly[q])
			page_tree_remove(&r->level[0].shape, r->level[0].set[q], c);
}

/* Group g of chunk c, which had blocks of `old` orders, has those of fewer, `orders`. */
static inline void drop_orders(struct page_region *r, size_t c, struct page_chunk *ch,
			       unsigned int g, unsigned int old, unsigned int orders)
{
	ch->orders[g] = (uint8_t)orders;
	for (unsigned int q = orders; q < old; q++)
		ch->partly[q] &= ~((uint64_t)1 << g);
	if (!ch->partly[old - 1]) /* it is empty first, for the others have these blocks, too */
		leave_sets(r, c, orders, old);
}

__attribute__((noinline)) static void lose_orders(struct page_region *r, size_t c, unsigned int g,
						  unsigned int orders)
{
	struct page_chunk *ch = &r->chunks[c];

	drop_orders(r, c, ch, g, ch->orders[g], orders);
}

/* It holds blocks of more orders. */
__attribute__((noinline)) static void gain_orders(struct page_region *r, size_t c, unsigned int g,
						  unsigned int orders)
{
	struct page_chunk *ch = &r->chunks[c];
	unsigned int old = ch->orders[g];

	ch->orders[g] = (uint8_t)orders;
	for (unsigned int q = old; q < orders; q++) {
		if (!ch->partly[q])
			enter_set(&r->level[0], q, c);
		ch->partly[q] |= (uint64_t)1 << g;
	}
}

/* Group g of chunk c now holds blocks of this many orders. */
static inline void set_group_orders(struct page_region *r, size_t c, unsigned int g,
				    unsigned int orders)
{
	unsigned int old = r->chunks[c].orders[g];

	if (orders < old)
		lose_orders(r, c, g, orders);
	else if (orders > old)
		gain_orders(r, c, g, orders);
}

/* The wholly free groups of chunk c are now these. */
__attribute__((noinline)) static void set_whole(struct page_region *r, size_t c, uint64_t whole)
{
	struct page_chunk *ch = &r->chunks[c];
	unsigned int orders = count_orders(whole);
	bool was_free = ch->whole == ALL_FREE;

	if (whole == ch->whole)
		return;
	change_orders(&r->level[1], c, ch->whole_orders, orders);
	ch->whole = whole;
	ch->whole_orders = (uint8_t)orders;
	if (was_free || whole == ALL_FREE)
		set_chunk_free(r, c, !was_free);
}

static inline void set_group(struct page_region *r, size_t c, unsigned int g, uint64_t bits)
{
	struct page_chunk *ch = &r->chunks[c];
	uint64_t bit = (uint64_t)1 << g, old = ch->free[g];

	ch->free[g] = bits;
	set_group_orders(r, c, g, count_orders(bits));
	if (bits == ALL_FREE || old == ALL_FREE)
		set_whole(r, c, ch->whole ^ bit);
}

/* --- The tree of free runs ---------------------------------------------- */

static const uint64_t *leaf_words(const struct page_region *r, size_t leaf)
{
	return &r->chunks[leaf / PAGE_CHUNK_LEAVES]
			.free[leaf % PAGE_CHUNK_LEAVES * PAGE_LEAF_WORDS];
}

/* The sum of a leaf of a chunk that is ready. */
static struct page_run leaf_sum(const struct page_region *r, size_t leaf)
{
	const struct page_chunk *ch = &r->chunks[leaf / PAGE_CHUNK_LEAVES];
	unsigned int shift = (unsigned int)(leaf % PAGE_CHUNK_LEAVES * PAGE_LEAF_WORDS);
	uint64_t whole = ch->whole >> shift & 0xff, partly = ch->partly[0] >> shift & 0xff;

	if (whole == 0xff)
		return (struct page_run){PAGE_LEAF, PAGE_LEAF, PAGE_LEAF};
	if (!(whole | partly))
		return (struct page_run){0, 0, 0};
	return page_leaf_sum(leaf_words(r, leaf));
}

/* Sum up the stale leaves of a chunk, and what stands above it. */
__attribute__((noinline)) static void sum_chunk(struct page_region *r, size_t c)
{
	struct page_chunk *ch = &r->chunks[c];

	for (uint64_t stale = ch->stale; stale; stale &= stale - 1) {
		size_t leaf = c * PAGE_CHUNK_LEAVES + mm_ctz(stale);

		r->runs.level[0][leaf] = leaf_sum(r, leaf);
	}
	ch->stale = 0;
	page_runs_sum_family(&r->runs, c);
}

/* Sum up all chunks that wait. */
static void sum_waiting(struct page_region *r)
{
	for (; r->waits; r->waits &= r->waits - 1)
		sum_chunk(r, r->waiting[mm_ctz(r->waits)]);
}

/* Some leaves of a chunk are stale: it waits, in the place of another. */
static void let_wait(struct page_region *r, size_t c, uint64_t leaves)
{
	unsigned int place = c % PAGE_WAITING, stale = r->chunks[c].stale;

	r->chunks[c].stale = (uint8_t)(stale | leaves);
	if (stale) /* so it waits already */
		return;
	if (r->waits >> place & 1)
		sum_chunk(r, r->waiting[place]);
	r->waiting[place] = (uint32_t)c;
	r->waits |= (uint64_t)1 << place;
}

/*
 * Pages [lo, hi) of a group became free, or taken; `bits` is its word when they
 * were, or are, free. Does the sum of the leaf stay the same? It does when the
 * run around the pages ends inside the word, and never was the longest.
 */
static bool leaf_unchanged(const struct page_run *leaf, uint64_t bits, size_t lo, size_t hi,
			   bool is_free)
{
	uint64_t below = ~bits & (((uint64_t)1 << lo) - 1), above = hi < 64 ? ~bits >> hi : 0;
	uint32_t length;

	if (!below || !above)
		return false;
	length = (uint32_t)(hi + mm_ctz(above) - mm_fls(below) - 1);
	return is_free ? length <= leaf->longest : length < leaf->longest;
}

/* The same pages, of leaf k of chunk c, which is not stale yet. */
__attribute__((noinline)) static void note_pages(struct page_region *r, size_t c, size_t k,
						 uint64_t bits, size_t lo, size_t hi, bool is_free)
{
	const struct page_run *leaf = &r->runs.level[0][c * PAGE_CHUNK_LEAVES + k];

	if (!leaf_unchanged(leaf, bits, lo, hi, is_free))
		let_wait(r, c, (uint64_t)1 << k);
}

/* Pages [i, i + n) changed. */
static void sum_leaves(struct page_region *r, size_t i, size_t n)
{
	size_t first = i >> PAGE_LEAF_SHIFT, last = (i + n - 1) >> PAGE_LEAF_SHIFT;

	for (size_t leaf = first; leaf <= last; leaf++)
		r->runs.level[0][leaf] = leaf_sum(r, leaf);
	page_runs_sum(&r->runs, first, last);
}

/* --- Bits --------------------------------------------------------------- */

/* Pages [lo, hi) of group g become free, or taken. */
static void set_pages(struct page_region *r, size_t c, unsigned int g, size_t lo, size_t hi,
		      bool is_free)
{
	uint64_t bits = r->chunks[c].free[g], range;

	if (lo >= hi)
		return;
	range = bit_range(lo, hi);
	set_group(r, c, g, is_free ? bits | range : bits & ~range);
}

/* Groups [lo, hi) of chunk c become wholly free, or wholly taken. */
static void set_whole_groups(struct page_region *r, size_t c, unsigned int lo, unsigned int hi,
			     bool is_free)
{
	struct page_chunk *ch = &r->chunks[c];
	uint64_t range;

	if (lo >= hi)
		return;
	range = bit_range(lo, hi);
	__builtin_memset(&ch->free[lo], is_free ? 0xff : 0, (hi - lo) * sizeof(uint64_t));
	for (uint64_t partly = range & ch->partly[0]; partly; partly &= partly - 1)
		set_group_orders(r, c, mm_ctz(partly), 0);
	set_whole(r, c, is_free ? ch->whole | range : ch->whole & ~range);
}

/* Pages [lo, hi) of chunk c, counted from its start, become free, or taken. They reach an end of
 * some group. */
static void set_chunk_pages(struct page_region *r, size_t c, size_t lo, size_t hi, bool is_free)
{
	unsigned int first = (unsigned int)(lo >> 6), last = (unsigned int)(hi >> 6);

	open_chunk(r, c);
	if (lo & 63)
		set_pages(r, c, first++, lo & 63, 64, is_free);
	set_whole_groups(r, c, first, last, is_free);
	if (hi & 63)
		set_pages(r, c, last, 0, hi & 63, is_free);
}

/* Pages of several groups become free, or taken. */
__attribute__((noinline)) static void set_bits(struct page_region *r, size_t i, size_t n,
					       bool is_free)
{
	size_t start = i, end = i + n, c = i >> PAGE_CHUNK_SHIFT, lo = i & (PAGE_CHUNK - 1);

	if (lo + n <= PAGE_CHUNK) {
		set_chunk_pages(r, c, lo, lo + n, is_free);
		let_wait(r, c,
			 bit_range(lo >> PAGE_LEAF_SHIFT, ((lo + n - 1) >> PAGE_LEAF_SHIFT) + 1));
		return;
	}
	while (i < end) {
		size_t base = i & ~(PAGE_CHUNK - 1);
		size_t stop = min_size(end, base + PAGE_CHUNK);

		set_chunk_pages(r, base >> PAGE_CHUNK_SHIFT, i - base, stop - base, is_free);
		i = stop;
	}
	sum_leaves(r, start, n);
}

static inline bool in_one_group(size_t i, size_t n)
{
	return (i & 63) + n <= 64;
}

/* Pages of one group change. */
static inline void set_group_pages(struct page_region *r, size_t i, size_t n, bool is_free)
{
	size_t c = i >> PAGE_CHUNK_SHIFT, lo = i & 63;
	size_t k = i >> PAGE_LEAF_SHIFT & (PAGE_CHUNK_LEAVES - 1);
	unsigned int g = (unsigned int)(i >> PAGE_GROUP_SHIFT) & 63;
	uint64_t bits = r->chunks[c].free[g], changed = bits ^ bit_range(lo, lo + n);

	set_group(r, c, g, changed);
	if (!(r->chunks[c].stale >> k & 1))
		note_pages(r, c, k, bits | changed, lo, lo + n, is_free);
}

/* --- States ------------------------------------------------------------- */

/* These pages had no state and get one. */
__attribute__((noinline)) static void set_states(struct page_region *r, size_t i, size_t n,
						 unsigned int state)
{
	uint64_t *first = &r->states[i / PAGE_STATES_WORD];
	uint64_t *last = &r->states[(i + n) / PAGE_STATES_WORD];
	size_t lo = i % PAGE_STATES_WORD, hi = (i + n) % PAGE_STATES_WORD;

	if (lo)
		page_state_set(first++, page_state_range(lo, PAGE_STATES_WORD), state);
	__builtin_memset(first, (int)(state * 0x11u), (size_t)(last - first) * sizeof(*first));
	if (hi)
		page_state_set(last, page_state_range(0, hi), state);
}

/* These pages lose their states. */
__attribute__((noinline)) static void clear_states(struct page_region *r, size_t i, size_t n)
{
	uint64_t *first = &r->states[i / PAGE_STATES_WORD];
	uint64_t *last = &r->states[(i + n) / PAGE_STATES_WORD];
	size_t lo = i % PAGE_STATES_WORD, hi = (i + n) % PAGE_STATES_WORD;

	if (lo)
		page_state_clear(first++, page_state_range(lo, PAGE_STATES_WORD));
	__builtin_memset(first, 0, (size_t)(last - first) * sizeof(*first));
	if (hi)
		page_state_clear(last, page_state_range(0, hi));
}

/* Do the states of these pages lie in one word? */
static inline bool in_one_word(size_t i, size_t n)
{
	return i % PAGE_STATES_WORD + n <= PAGE_STATES_WORD;
}

static inline uint64_t range_in_word(size_t i, size_t n)
{
	return page_state_range(i % PAGE_STATES_WORD, i % PAGE_STATES_WORD + n);
}

unsigned int page_region_state(const struct page_region *r, size_t i)
{
	return is_ready(r, i >> PAGE_CHUNK_SHIFT) ? page_state(r->states, i) : 0;
}

/* Are the states of all these pages `state`? */
__attribute__((noinline)) static bool states_are(const struct page_region *r, size_t i, size_t n,
						 unsigned int state)
{
	const uint64_t *first = &r->states[i / PAGE_STATES_WORD];
	const uint64_t *last = &r->states[(i + n) / PAGE_STATES_WORD];
	size_t lo = i % PAGE_STATES_WORD, hi = (i + n) % PAGE_STATES_WORD;
	uint64_t want = page_state_word(state), differ = 0;

	if (lo)
		differ = (page_state_load(first++) ^ want) & page_state_range(lo, PAGE_STATES_WORD);
	for (; first + 4 <= last; first += 4)
		differ |= (page_state_load(&first[0]) ^ want) |
			  (page_state_load(&first[1]) ^ want) |
			  (page_state_load(&first[2]) ^ want) | (page_state_load(&first[3]) ^ want);
	for (; first < last; first++)
		differ |= page_state_load(first) ^ want;
	if (hi)
		differ |= (page_state_load(last) ^ want) & page_state_range(0, hi);
	return !differ;
}

static bool all_ready(const struct page_region *r, size_t i, size_t n)
{
	for (size_t c = i >> PAGE_CHUNK_SHIFT; c <= (i + n - 1) >> PAGE_CHUNK_SHIFT; c++)
		if (!is_ready(r, c))
			return false;
	return true;
}

unsigned int page_region_common_state(const struct page_region *r, size_t i, size_t n)
{
	uint64_t word;
	unsigned int state;

	if (!all_ready(r, i, n))
		return 0;
	word = page_state_load(&r->states[i / PAGE_STATES_WORD]);
	state = (unsigned int)(word >> page_state_shift(i)) & 15;
	if (in_one_word(i, n))
		return (word ^ page_state_word(state)) & range_in_word(i, n) ? 0 : state;
	return states_are(r, i, n, state) ? state : 0;
}

bool page_region_count(const struct page_region *r, size_t i, size_t n,
		       size_t counts[PAGE_USAGE_KINDS])
{
	if (!all_ready(r, i, n))
		return false;
	for (size_t end = i + n; i < end; i++) {
		unsigned int state = page_state(r->states, i);

		if (!state)
			return false;
		counts[page_state_usage(state)]++;
	}
	return true;
}

/* --- Search ------------------------------------------------------------- */

/* The first block of 2^q pages in a chunk that has one in a partly free group. */
static inline size_t block_in_groups(const struct page_region *r, size_t c, unsigned int q)
{
	const struct page_chunk *ch = &r->chunks[c];
	unsigned int g = mm_ctz(ch->partly[q]);

	return c << PAGE_CHUNK_SHIFT | (size_t)g << PAGE_GROUP_SHIFT | first_block(ch->free[g], q);
}

/* The first block of 2^q groups in a chunk that has one. */
static inline size_t block_in_chunk(const struct page_region *r, size_t c, unsigned int q)
{
	return c << PAGE_CHUNK_SHIFT | (size_t)first_block(r->chunks[c].whole, q)
					       << PAGE_GROUP_SHIFT;
}

/* The first block of 2^q parts in entry `at` of the sets of level l, which has one. */
static size_t block_at(const struct page_region *r, unsigned int l, unsigned int q, size_t at)
{
	const struct page_level *level = &r->level[l];
	size_t word = level->first + at;

	if (l == 0)
		return block_in_groups(r, at, q);
	if (l == 1)
		return block_in_chunk(r, at, q);
	return ((word << 6 | first_block(level->words[at], q)) << (PAGE_LEVEL_ORDERS * l)) -
	       r->base_pn;
}

/* The lowest block of 2^q parts of level l, or of the next level that has one. */
__attribute__((noinline)) static size_t find_block_above(const struct page_region *r,
							 unsigned int l, unsigned int q)
{
	for (; l < r->levels; l++, q = 0) {
		size_t at = page_tree_first(&r->level[l].shape, r->level[l].set[q]);

		if (at != PAGE_NONE)
			return block_at(r, l, q, at);
	}
	return PAGE_NONE;
}

/* An aligned block of 2^order pages: the lowest of the lowest level that has one. */
static inline size_t find_block(const struct page_region *r, unsigned int order)
{
	unsigned int q = order;
	size_t c;

	if (order < PAGE_LEVEL_ORDERS) {
		c = page_tree_first(&r->level[0].shape, r->level[0].set[order]);
		if (c != PAGE_NONE)
			return block_in_groups(r, c, order);
		q = PAGE_LEVEL_ORDERS;
	}
	q -= PAGE_LEVEL_ORDERS;
	if (q >= PAGE_LEVEL_ORDERS)
		return find_block_above(r, order / PAGE_LEVEL_ORDERS, order % PAGE_LEVEL_ORDERS);
	c = page_tree_first(&r->level[1].shape, r->level[1].set[q]);
	return c != PAGE_NONE ? block_in_chunk(r, c, q) : find_block_above(r, 2, 0);
}

/* The lowest aligned block of 2^order pages. */
static size_t lowest_block(const struct page_region *r, unsigned int order)
{
	unsigned int l = order / PAGE_LEVEL_ORDERS, q = order % PAGE_LEVEL_ORDERS;
	size_t best = PAGE_NONE;

	for (; l < r->levels; l++, q = 0) {
		size_t at = page_tree_first(&r->level[l].shape, r->level[l].set[q]);

		if (at != PAGE_NONE)
			best = min_size(best, block_at(r, l, q, at));
	}
	return best;
}

/* The start of the free run that page i ends (exclusive), but not below the start of its chunk. */
static size_t run_start_in_chunk(const struct page_region *r, size_t i)
{
	size_t base = (i - 1) & ~(PAGE_CHUNK - 1);
	const struct page_chunk *ch = &r->chunks[base >> PAGE_CHUNK_SHIFT];
	unsigned int g = (unsigned int)((i - 1) >> 6) & 63;
	uint64_t taken = ~ch->free[g] << (63 - ((i - 1) & 63)), broken;

	if (taken)
		return i - (63 - mm_fls(taken));
	broken = ~ch->whole & (((uint64_t)1 << g) - 1);
	if (!broken)
		return base;
	g = mm_fls(broken);
	return base + ((size_t)(g + 1) << 6) - page_word_tail(ch->free[g]);
}

/* The start of the free run that page i ends (exclusive), but not below floor. */
static size_t run_start(const struct page_region *r, size_t i, size_t floor)
{
	while (i > floor) {
		size_t base = (i - 1) & ~(PAGE_CHUNK - 1);
		bool is_free = chunk_is_free(r, base >> PAGE_CHUNK_SHIFT);

		i = is_free ? base : run_start_in_chunk(r, i);
		if (i != base)
			break;
	}
	return max_size(i, floor);
}

/* The first page from i on that is not free, or the start of the next chunk. */
static size_t run_end_in_chunk(const struct page_region *r, size_t i)
{
	size_t base = i & ~(PAGE_CHUNK - 1);
	const struct page_chunk *ch = &r->chunks[base >> PAGE_CHUNK_SHIFT];
	unsigned int g = (unsigned int)(i >> 6) & 63;
	uint64_t taken = ~ch->free[g] >> (i & 63), broken;

	if (taken)
		return i + mm_ctz(taken);
	broken = ~ch->whole & ~(uint64_t)0 << g & ~((uint64_t)1 << g);
	if (!broken)
		return base + PAGE_CHUNK;
	g = mm_ctz(broken);
	return base + ((size_t)g << 6) + page_word_head(ch->free[g]);
}

/* The first page from i on that is not free, or limit. Pre: limit <= end. */
static size_t run_end(const struct page_region *r, size_t i, size_t limit)
{
	while (i < limit) {
		size_t next = (i | (PAGE_CHUNK - 1)) + 1;
		bool is_free = chunk_is_free(r, i >> PAGE_CHUNK_SHIFT);

		i = is_free ? next : run_end_in_chunk(r, i);
		if (i != next)
			break;
	}
	return min_size(i, limit);
}

/* Index i rounded up so that its page number is a multiple of align, a power of two. */
static size_t align_index(const struct page_region *r, size_t i, size_t align)
{
	return mm_align_up(r->base_pn + i, align) - r->base_pn;
}

/* Where a spot of the tree is in pages. */
static size_t resolve(const struct page_region *r, struct page_spot spot, size_t n)
{
	size_t carry;

	if (!spot.inside_leaf)
		return spot.at;
	return spot.at + page_leaf_find(leaf_words(r, spot.at >> PAGE_LEAF_SHIFT), 0, n, &carry);
}

/* The lowest free run of n pages. */
static size_t first_run(const struct page_region *r, size_t n)
{
	return resolve(r, page_runs_first(&r->runs, n), n);
}

/* The lowest free run of n pages behind page i, which is taken. */
static size_t next_run(const struct page_region *r, size_t i, size_t n)
{
	size_t leaf = i >> PAGE_LEAF_SHIFT, carry;
	size_t at = page_leaf_find(leaf_words(r, leaf), i % PAGE_LEAF, n, &carry);

	if (at != PAGE_NONE)
		return (leaf << PAGE_LEAF_SHIFT) + at;
	return resolve(r, page_runs_next(&r->runs, leaf, carry, n), n);
}

static bool fits(size_t at, size_t n, size_t end)
{
	return at <= end && n <= end - at;
}

/* n pages at an alignment in one of the lowest runs that are long enough. */
static size_t try_runs(const struct page_region *r, size_t n, size_t align, size_t end)
{
	size_t i = first_run(r, n);

	for (unsigned int tried = 0; tried < RUNS_TRIED && i != PAGE_NONE; tried++) {
		size_t at = align_index(r, i, align), stop;

		if (!fits(at, n, end))
			return PAGE_NONE;
		stop = run_end(r, i, at + n);
		if (stop == at + n)
			return at;
		i = next_run(r, stop, n);
	}
	return PAGE_NONE;
}

/* n pages at an alignment, when no block has room for them. */
static size_t find_run(struct page_region *r, size_t n, size_t align, size_t end)
{
	size_t i;

	sum_waiting(r);
	i = first_run(r, n + align - 1);
	if (i != PAGE_NONE)
		i = align_index(r, i, align);
	if (i != PAGE_NONE && fits(i, n, end))
		return i;
	return align > 1 ? try_runs(r, n, align, end) : PAGE_NONE;
}

/* There is no block below `end` among those that are taken first. */
__attribute__((noinline)) static size_t find_elsewhere(struct page_region *r, size_t n,
						       size_t align, size_t end, unsigned int order)
{
	size_t i = end < r->end ? lowest_block(r, order) : PAGE_NONE;

	if (i != PAGE_NONE && fits(i, n, end))
		return i;
	return n == align ? PAGE_NONE : find_run(r, n, align, end);
}

/* The first place for a request in the run that a block ends. */
__attribute__((noinline)) static size_t slide_down(const struct page_region *r, size_t i,
						   size_t span, size_t align)
{
	size_t floor = r->begin + span < i ? i - span : r->begin;

	return align_index(r, run_start(r, i, floor), align);
}

/* The least order of block that holds n pages. */
static unsigned int order_of(size_t n)
{
	return n > 1 ? mm_fls(n - 1) + 1 : 0;
}

size_t page_region_find(struct page_region *r, size_t n, size_t align, size_t end)
{
	unsigned int order = order_of(max_size(n, align));
	size_t i;

	if (n > r->free_pages)
		return PAGE_NONE;
	i = find_block(r, order);
	if (i != PAGE_NONE && !(align >> order))
		i = slide_down(r, i, (size_t)1 << order, align);
	if (i < end && n <= end - i)
		return i;
	return find_elsewhere(r, n, align, end, order);
}

bool page_region_is_free(const struct page_region *r, size_t i, size_t n)
{
	return run_end(r, i, i + n) == i + n;
}

/* --- Taking and giving -------------------------------------------------- */

/*
 * A few pages at the start of an aligned block in a group that is partly free: neither that group
 * nor its chunk are wholly free before or after.
 */
static inline size_t get_in_group(struct page_region *r, size_t n, unsigned int order,
				  unsigned int state)
{
	const uint64_t *set = r->level[0].set[order];
	struct page_chunk *ch;
	unsigned int g, b, orders;
	uint64_t old, now, blocks;
	size_t c, i, k;

	if (page_tree_empty(set))
		return PAGE_NONE;
	c = page_tree_least(&r->level[0].shape, set);
	ch = &r->chunks[c];
	g = mm_ctz(ch->partly[order]);
	old = ch->free[g];
	blocks = blocks_of(old, order);
	b = mm_ctz(blocks);
	i = c << PAGE_CHUNK_SHIFT | (size_t)g << PAGE_GROUP_SHIFT | b;
	page_state_set_few(r->states, i, n, state);
	now = old ^ bits_from(b, n);
	ch->free[g] = now;
	blocks &= blocks - 1; /* what is left of them tells the order, or that it is a lower one */
	orders = blocks ? count_orders_above(blocks, order) : count_orders(now);
	if (orders != ch->orders[g])
		drop_orders(r, c, ch, g, ch->orders[g], orders);
	k = g / PAGE_LEAF_WORDS;
	if (!(ch->stale >> k & 1))
		note_pages(r, c, k, old, b, b + n, false);
	r->free_pages -= n;
	return i;
}

size_t page_region_get(struct page_region *r, size_t n, size_t align, size_t end,
		       enum page_usage usage)
{
	size_t i = page_region_find(r, n, align, end);

	if (i != PAGE_NONE)
		page_region_take(r, i, n, usage);
	return i;
}

/* A few groups at the start of an aligned block of them in a chunk that is partly free, and is so
 * after it. */
__attribute__((noinline)) static size_t get_in_chunk(struct page_region *r, size_t n,
						     unsigned int order, unsigned int state)
{
	struct page_level *level = &r->level[1];
	const uint64_t *set = level->set[order];
	size_t ngroups = n >> PAGE_GROUP_SHIFT, c, i;
	struct page_chunk *ch;
	unsigned int g, orders;
	uint64_t blocks;

	if (page_tree_empty(set))
		return PAGE_NONE;
	c = page_tree_least(&level->shape, set);
	ch = &r->chunks[c];
	blocks = blocks_of(ch->whole, order);
	g = mm_ctz(blocks);
	i = c << PAGE_CHUNK_SHIFT | (size_t)g << PAGE_GROUP_SHIFT;
	ch->whole ^= bits_from(g, ngroups);
	__builtin_memset(&ch->free[g], 0, ngroups * sizeof(ch->free[0]));
	__builtin_memset(&r->states[i / PAGE_STATES_WORD], (int)(state * 0x11u), n / 2);
	blocks &= blocks - 1;
	orders = blocks ? count_orders_above(blocks, order) : count_orders(ch->whole);
	change_orders(level, c, ch->whole_orders, orders);
	ch->whole_orders = (uint8_t)orders;
	let_wait(r, c, bit_range(g / PAGE_LEAF_WORDS, (g + ngroups - 1) / PAGE_LEAF_WORDS + 1));
	r->free_pages -= n;
	return i;
}

size_t page_region_get_direct(struct page_region *r, size_t n, size_t align, enum page_usage usage)
{
	size_t block = max_size(n, align);

	if (!mm_is_pow2(block))
		return PAGE_NONE;
	if (block <= PAGE_STATES_WORD)
		return get_in_group(r, n, mm_ctz(block), page_state_of(usage));
	if (n % PAGE_GROUP || block >= PAGE_CHUNK)
		return PAGE_NONE;
	return get_in_chunk(r, n, mm_ctz(block) - PAGE_LEVEL_ORDERS, page_state_of(usage));
}

void page_region_take(struct page_region *r, size_t i, size_t n, enum page_usage usage)
{
	unsigned int state = page_state_of(usage);

	r->free_pages -= n;
	if (in_one_group(i, n)) {
		open_chunk(r, i >> PAGE_CHUNK_SHIFT);
		set_group_pages(r, i, n, false);
	} else {
		set_bits(r, i, n, false);
	}
	if (in_one_word(i, n))
		page_state_set_few(r->states, i, n, state);
	else
		set_states(r, i, n, state);
}

void page_region_give(struct page_region *r, size_t i, size_t n)
{
	r->free_pages += n;
	if (in_one_word(i, n))
		page_state_clear(&r->states[i / PAGE_STATES_WORD], range_in_word(i, n));
	else
		clear_states(r, i, n);
	if (in_one_group(i, n))
		set_group_pages(r, i, n, true);
	else
		set_bits(r, i, n, true);
}

/* Take the lowest n free pages of a group; how many there were. */
static size_t park_group(struct page_region *r, size_t i, size_t n, uint32_t *out)
{
	size_t c = i >> PAGE_CHUNK_SHIFT, base = i & ~(size_t)63, got = 0;
	unsigned int g = (unsigned int)(i >> 6) & 63;
	uint64_t bits;

	open_chunk(r, c);
	for (bits = r->chunks[c].free[g]; bits && got < n; bits &= bits - 1)
		out[got++] = (uint32_t)(base | mm_ctz(bits));
	set_group(r, c, g, bits);
	let_wait(r, c, (uint64_t)1 << (g / PAGE_LEAF_WORDS));
	r->free_pages -= got;
	return got;
}

size_t page_region_park(struct page_region *r, size_t n, uint32_t *out)
{
	size_t got = 0;

	while (got < n) {
		size_t i = find_block(r, 0);

		if (i == PAGE_NONE)
			break;
		got += park_group(r, i, n - got, out + got);
	}
	return got;
}

void page_region_unpark(struct page_region *r, size_t i)
{
	set_group_pages(r, i, 1, true);
	r->free_pages++;
}

/* --- Creation ----------------------------------------------------------- */

static size_t chunks_of(uintptr_t pn, size_t npages)
{
	return ((pn + npages - 1) >> PAGE_CHUNK_SHIFT) - (pn >> PAGE_CHUNK_SHIFT) + 1;
}

/* The words of level l that the pages [pn, pn + npages) touch. */
static size_t words_of(unsigned int l, uintptr_t pn, size_t npages)
{
	unsigned int shift = PAGE_LEVEL_ORDERS * (l + 1);

	return ((pn + npages - 1) >> shift) - (pn >> shift) + 1;
}

/* The parts of a region's metadata, one after the other: offsets in bytes. */
struct layout_plan {
	size_t words[PAGE_LEVELS], sets[PAGE_LEVELS], ready, runs, chunks, states, total;
	unsigned int levels;
	struct page_tree_shape shape[PAGE_LEVELS];
};

/* Levels go up to the first no word of which can be wholly free. */
static struct layout_plan plan_metadata(uintptr_t pn, size_t npages)
{
	size_t nchunks = chunks_of(pn, npages), at = mm_align_up(sizeof(struct page_region), 64);
	struct layout_plan p = {0};

	while (p.levels < 3 || npages >> (PAGE_LEVEL_ORDERS * p.levels)) {
		unsigned int l = p.levels++;
		size_t nwords = l < 2 ? nchunks : words_of(l, pn, npages);

		p.shape[l] = page_tree_shape(nwords);
		p.words[l] = at;
		at += l < 2 ? 0 : nwords * sizeof(uint64_t);
		p.sets[l] = at;
		at += PAGE_LEVEL_ORDERS * page_tree_words(&p.shape[l]) * sizeof(uint64_t);
	}
	p.ready = at;
	p.runs = p.ready + (nchunks + 63) / 64 * sizeof(uint64_t);
	p.chunks = mm_align_up(p.runs + page_runs_bytes(nchunks * PAGE_CHUNK_LEAVES), 64);
	p.states = p.chunks + nchunks * sizeof(struct page_chunk);
	p.total = p.states + nchunks * PAGE_CHUNK / 2;
	return p;
}

size_t page_region_metadata(uintptr_t pn, size_t npages)
{
	return plan_metadata(pn, npages).total;
}

static void place_parts(struct page_region *r, char *base, const struct layout_plan *p)
{
	r->levels = p->levels;
	for (unsigned int l = 0; l < p->levels; l++) {
		struct page_level *level = &r->level[l];
		size_t nbytes = page_tree_words(&p->shape[l]) * sizeof(uint64_t);

		level->shape = p->shape[l];
		level->first = r->base_pn >> (PAGE_LEVEL_ORDERS * max_size(l + 1, 2));
		level->words = (uint64_t *)(void *)(base + p->words[l]);
		for (unsigned int q = 0; q < PAGE_LEVEL_ORDERS; q++)
			level->set[q] = (uint64_t *)(void *)(base + p->sets[l] + q * nbytes);
	}
	r->ready = (uint64_t *)(void *)(base + p->ready);
	r->chunks = (struct page_chunk *)(void *)(base + p->chunks);
	r->states = (uint64_t *)(void *)(base + p->states);
}

/* At level l the parts [lo, hi), numbered in the address space, are wholly free. */
static void fill_level(struct page_level *level, size_t lo, size_t hi)
{
	for (size_t w = lo >> 6; w <= (hi - 1) >> 6; w++) {
		size_t from = max_size(lo, w << 6), to = min_size(hi, (w + 1) << 6);
		uint64_t bits = bit_range(from & 63, (from & 63) + (to - from));

		level->words[w - level->first] = bits;
		change_orders(level, w - level->first, 0, count_orders(bits));
	}
}

static void fill_levels(struct page_region *r)
{
	size_t lo = chunk_number(r, 0), hi = lo + r->nchunks;

	for (unsigned int l = 2; l < r->levels && lo < hi; l++) {
		fill_level(&r->level[l], lo, hi);
		lo = (lo + 63) >> 6;
		hi >>= 6;
	}
}

struct page_region *page_region_create(void *memory, uintptr_t pn, size_t npages)
{
	struct layout_plan plan = plan_metadata(pn, npages);
	struct page_region *r = memory;
	char *base = memory;
	size_t rest;

	__builtin_memset(base, 0, plan.runs);
	r->base_pn = pn & ~(uintptr_t)(PAGE_CHUNK - 1);
	r->begin = pn - r->base_pn;
	r->end = r->begin + npages;
	r->first_pn = pn;
	r->end_pn = pn + npages;
	r->free_pages = npages;
	r->nchunks = chunks_of(pn, npages);
	r->metadata_bytes = plan.total;
	place_parts(r, base, &plan);
	page_runs_create(&r->runs, base + plan.runs, r->nchunks * PAGE_CHUNK_LEAVES);
	fill_levels(r);
	rest = r->nchunks * PAGE_CHUNK - r->end;
	if (r->begin)
		set_bits(r, 0, r->begin, false);
	if (rest)
		set_bits(r, r->end, rest, false);
	return r;
}

/* --- Checking ----------------------------------------------------------- */

static bool group_is_sound(const struct page_region *r, size_t c, unsigned int g,
			   size_t counts[PAGE_USAGE_KINDS], size_t *nfree)
{
	const struct page_chunk *ch = &r->chunks[c];
	uint64_t bits = ch->free[g];
	unsigned int orders = count_orders(bits);

	if (ch->orders[g] != orders || (ch->whole >> g & 1) != (bits == ALL_FREE))
		return false;
	for (unsigned int q = 0; q < PAGE_LEVEL_ORDERS; q++)
		if ((ch->partly[q] >> g & 1) != (q < orders))
			return false;
	for (unsigned int b = 0; b < 64; b++) {
		size_t i = c << PAGE_CHUNK_SHIFT | (size_t)g << 6 | b;
		bool managed = i >= r->begin && i < r->end, is_free = bits >> b & 1;
		unsigned int state = page_state(r->states, i);

		if ((state && page_state_usage(state) >= PAGE_USAGE_KINDS) ||
		    ((is_free || !managed) && state) || (is_free && !managed))
			return false;
		*nfree += is_free;
		if (managed && !is_free)
			counts[state ? page_state_usage(state) : PAGE_USAGE_CPU_CACHE]++;
	}
	return true;
}

static bool is_waiting(const struct page_region *r, size_t c)
{
	return r->waits >> (c % PAGE_WAITING) & 1 && r->waiting[c % PAGE_WAITING] == c;
}

static bool chunk_is_sound(const struct page_region *r, size_t c, size_t counts[PAGE_USAGE_KINDS],
			   size_t *nfree)
{
	const struct page_chunk *ch = &r->chunks[c];
	uint64_t whole = is_ready(r, c) ? ch->whole : ALL_FREE;
	unsigned int orders = count_orders(whole);

	if (chunk_is_free(r, c) != (whole == ALL_FREE))
		return false;
	for (unsigned int q = 0; q < PAGE_LEVEL_ORDERS; q++) {
		bool partly = is_ready(r, c) && ch->partly[q];

		if (page_tree_has(&r->level[0].shape, r->level[0].set[q], c) != partly ||
		    page_tree_has(&r->level[1].shape, r->level[1].set[q], c) != (q < orders))
			return false;
	}
	if (is_ready(r, c) && ch->stale && !is_waiting(r, c))
		return false;
	if (!is_ready(r, c)) {
		*nfree += PAGE_CHUNK;
		return c << PAGE_CHUNK_SHIFT >= r->ready_end;
	}
	if (ch->whole_orders != orders)
		return false;
	for (unsigned int g = 0; g < 64; g++)
		if (!group_is_sound(r, c, g, counts, nfree))
			return false;
	return true;
}

/* The leaves of a chunk that is not wholly free. */
static bool leaves_are_sound(const struct page_region *r, size_t c)
{
	for (size_t k = 0; k < PAGE_CHUNK_LEAVES; k++) {
		size_t leaf = c * PAGE_CHUNK_LEAVES + k;
		struct page_run sum = page_leaf_sum(leaf_words(r, leaf));
		const struct page_run *run = &r->runs.level[0][leaf];

		if (r->chunks[c].stale >> k & 1)
			continue;
		if (run->head != sum.head || run->tail != sum.tail || run->longest != sum.longest)
			return false;
	}
	return true;
}

/* Does every summary bit say what the word below it says? */
static bool set_is_sound(const struct page_tree_shape *s, const uint64_t *t)
{
	for (unsigned int l = 0; l + 1 < s->levels; l++)
		for (size_t i = s->end[l + 1]; i < s->end[l]; i++)
			if (page_tree_bit(&t[s->end[l + 2]], i - s->end[l + 1]) != (t[i] != 0))
				return false;
	return true;
}

static bool level_is_sound(const struct page_region *r, unsigned int l)
{
	const struct page_level *level = &r->level[l];
	size_t nwords = l < 2 ? 0 : words_of(l, r->base_pn, r->nchunks * PAGE_CHUNK);

	for (unsigned int q = 0; q < PAGE_LEVEL_ORDERS; q++) {
		if (!set_is_sound(&level->shape, level->set[q]))
			return false;
		for (size_t w = 0; w < nwords; w++)
			if (page_tree_has(&level->shape, level->set[q], w) !=
			    (q < count_orders(level->words[w])))
				return false;
	}
	for (size_t w = 0; l + 1 < r->levels && w < nwords; w++) {
		size_t i = level->first + w;
		const struct page_level *above = level + 1;

		if ((above->words[(i >> 6) - above->first] >> (i & 63) & 1) !=
		    (level->words[w] == ALL_FREE))
			return false;
	}
	return true;
}

bool page_region_check(const struct page_region *r, size_t counts[PAGE_USAGE_KINDS])
{
	size_t nfree = 0;

	for (unsigned int l = 0; l < r->levels; l++)
		if (!level_is_sound(r, l))
			return false;
	for (size_t c = 0; c < r->nchunks; c++) {
		if (!chunk_is_sound(r, c, counts, &nfree))
			return false;
		if (!chunk_is_free(r, c) && !leaves_are_sound(r, c))
			return false;
	}
	return page_runs_check(&r->runs, r->nchunks * PAGE_CHUNK_LEAVES) && nfree == r->free_pages;
}
