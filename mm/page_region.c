/* SPDX-License-Identifier: MIT */
/*
 * One region of pages: a bitmap under sets of free blocks.
 *
 * Theory of operation
 *
 * The bitmap has one bit a page, 1 for free. 64 pages (a word) are a group, 64
 * groups are a chunk of 4096 pages (16 MiB). Everything lies at addresses: a
 * chunk starts at a multiple of 16 MiB, so the bits outside the region in its
 * first and last chunk are simply taken, and bit alignment is page alignment.
 *
 * What makes a search cheap is that blocks are looked up and never looked for.
 * A block of order q is 2^q free pages at a multiple of 2^q. Folding a word on
 * itself a few times tells which orders its free bits hold; the answer is kept
 * as one bit a group in six words a chunk (orders 0 to 5), and likewise one
 * level up, where the bits are wholly free groups (orders 6 to 11). Over the
 * chunks lies one 64-ary set (page_tree.h) for each order, and one for the
 * wholly free chunks (order 12). So finding a block takes two steps inside a
 * chunk and one for each level of the set: two levels to 64 GiB, three to 4 TiB.
 *
 * A group is in the sets of orders 0 to 5 only while it is partly free, and a
 * chunk in those of 6 to 11 likewise. A search starts at the lowest level that
 * can hold the request and thus uses up broken blocks before it breaks a whole
 * one, as a buddy allocator would; but there are no lists, nothing is merged or
 * split, and a request is not rounded up to a power of two: of the block found
 * it takes just its pages. When the alignment allows, it is first slid down to
 * the start of the free run that the block lies in, so that requests of odd
 * lengths lie back to back and leave no holes.
 *
 * A run of n pages need not hold a block of n rounded up. When there is none,
 * page_region_find walks the free runs, visiting only the chunks that hold a block of
 * half that order, of which every such run has one: exact, so that a request
 * fails only when there is no such run.
 *
 * Taking and giving change words of the bitmap, and the sets only where the
 * orders of a group or a chunk changed. Whole groups come and go a word at a time.
 *
 * Beside the bitmap, four bits a page hold its state: its usage, or that it is
 * parked in a CPU's cache. They are what makes counts exact on any sub-range
 * free and misuse visible. The owner of a CPU cache changes the state of its
 * pages without the lock that everything else here is called under. Therefore
 * words of states are changed atomically, except where all their pages are the caller's.
 *
 * The metadata of a chunk are written when it is first touched; before, the set
 * of wholly free chunks says all. Creating a region of any size writes only
 * the sets, two words a gigabyte each.
 *
 * Metadata: 640 bytes a chunk and 2 KiB of states, and the sets; 0.0161 %.
 *
 * Shortcomings: the walk over free runs, taken only by requests that are no
 * aligned power of two (or whose alignment is beyond their length) when no block
 * has room for them, is linear in the number of such runs at worst, and a run
 * of many chunks is measured chunk by chunk. The first touch of a chunk
 * writes 2.6 KiB. A region of a few pages still pays for whole chunks.
 */
#include "page_region.h"

/* aligned_bits[q]: the positions in a word where a block of 2^q may start. */
static const uint64_t aligned_bits[7] = {
	~(uint64_t)0,
	0x5555555555555555u,
	0x1111111111111111u,
	0x0101010101010101u,
	0x0001000100010001u,
	0x0000000100000001u,
	1,
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Bits [lo, hi) of a word. Pre: lo < hi <= 64. */
static uint64_t bit_range(size_t lo, size_t hi)
{
	return ~(uint64_t)0 >> (64 - (hi - lo)) << lo;
}

/* How many orders of aligned blocks the set bits hold; none when all are set, for that is the next
 * level's. */
static unsigned int count_orders(uint64_t bits)
{
	unsigned int n = 0;

	if (bits == ~(uint64_t)0)
		return 0;
	while (bits) {
		bits &= bits >> (1u << n);
		bits &= aligned_bits[++n];
	}
	return n;
}

/* The first aligned block of 2^order set bits. Pre: there is one. */
static unsigned int first_block(uint64_t bits, unsigned int order)
{
	for (unsigned int q = 0; q < order; q++)
		bits &= bits >> (1u << q);
	return mm_ctz(bits & aligned_bits[order]);
}

/* --- Chunks ------------------------------------------------------------- */

static bool is_ready(const struct page_region *r, size_t c)
{
	return page_tree_has(r->ready, c);
}

static bool chunk_is_free(const struct page_region *r, size_t c)
{
	return page_tree_has(r->set[PAGE_SET_CHUNKS], c);
}

static uint64_t group_bits(const struct page_region *r, size_t group)
{
	size_t c = group >> 6;

	return is_ready(r, c) ? r->chunks[c].free[group & 63] : ~(uint64_t)0;
}

/* The metadata of a chunk, written if they were not. */
static struct page_chunk *ready_chunk(struct page_region *r, size_t c)
{
	struct page_chunk *ch = &r->chunks[c];

	if (is_ready(r, c))
		return ch;
	__builtin_memset(ch, 0, sizeof(*ch));
	__builtin_memset(ch->free, 0xff, sizeof(ch->free));
	ch->whole = ~(uint64_t)0;
	__builtin_memset(&r->states[c * (PAGE_CHUNK / PAGE_STATES_WORD)], 0, PAGE_CHUNK / 2);
	r->ready[c >> 6] |= (uint64_t)1 << (c & 63);
	while (r->ready_end < r->end && is_ready(r, r->ready_end >> PAGE_CHUNK_SHIFT))
		r->ready_end = min_size(r->ready_end + PAGE_CHUNK, r->end);
	return ch;
}

static void leave_set(struct page_region *r, unsigned int set, size_t c)
{
	page_tree_remove(&r->shape, r->set[set], c);
}

static void enter_set(struct page_region *r, unsigned int set, size_t c)
{
	page_tree_insert(&r->shape, r->set[set], c);
}

/* Group g of chunk c now holds blocks of this many orders. */
static void set_group_orders(struct page_region *r, size_t c, unsigned int g, unsigned int orders)
{
	struct page_chunk *ch = &r->chunks[c];
	uint64_t bit = (uint64_t)1 << g;
	unsigned int old = ch->orders[g];

	if (orders == old)
		return;
	ch->orders[g] = (uint8_t)orders;
	for (unsigned int q = orders; q < old; q++) {
		ch->partly[q] &= ~bit;
		if (!ch->partly[q])
			leave_set(r, q, c);
	}
	for (unsigned int q = old; q < orders; q++) {
		if (!ch->partly[q])
			enter_set(r, q, c);
		ch->partly[q] |= bit;
	}
}

/* The wholly free groups of chunk c are now these. */
static void set_whole(struct page_region *r, size_t c, uint64_t whole)
{
	struct page_chunk *ch = &r->chunks[c];
	unsigned int orders, old = (unsigned int)ch->whole_orders;

	if (whole == ch->whole)
		return;
	if (ch->whole == ~(uint64_t)0)
		leave_set(r, PAGE_SET_CHUNKS, c);
	if (whole == ~(uint64_t)0)
		enter_set(r, PAGE_SET_CHUNKS, c);
	orders = count_orders(whole);
	for (unsigned int q = orders; q < old; q++)
		leave_set(r, PAGE_SET_GROUPS + q, c);
	for (unsigned int q = old; q < orders; q++)
		enter_set(r, PAGE_SET_GROUPS + q, c);
	ch->whole = whole;
	ch->whole_orders = orders;
}

static void set_group(struct page_region *r, size_t c, unsigned int g, uint64_t bits)
{
	struct page_chunk *ch = &r->chunks[c];
	uint64_t bit = (uint64_t)1 << g;

	ch->free[g] = bits;
	set_group_orders(r, c, g, count_orders(bits));
	set_whole(r, c, bits == ~(uint64_t)0 ? ch->whole | bit : ch->whole & ~bit);
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
	for (unsigned int g = lo; g < hi; g++) {
		ch->free[g] = is_free ? ~(uint64_t)0 : 0;
		set_group_orders(r, c, g, 0);
	}
	set_whole(r, c, is_free ? ch->whole | range : ch->whole & ~range);
}

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

/* Pages [lo, hi) of chunk c, counted from its start, become free, or taken. */
static void set_chunk_pages(struct page_region *r, size_t c, size_t lo, size_t hi, bool is_free)
{
	unsigned int first = (unsigned int)(lo >> 6), last = (unsigned int)(hi >> 6);

	ready_chunk(r, c);
	if (first == last) {
		set_pages(r, c, first, lo & 63, hi & 63, is_free);
		return;
	}
	if (lo & 63)
		set_pages(r, c, first++, lo & 63, 64, is_free);
	set_whole_groups(r, c, first, last, is_free);
	if (hi & 63)
		set_pages(r, c, last, 0, hi & 63, is_free);
}

static void set_bits(struct page_region *r, size_t i, size_t n, bool is_free)
{
	size_t end = i + n;

	while (i < end) {
		size_t base = i & ~(PAGE_CHUNK - 1);
		size_t stop = min_size(end, base + PAGE_CHUNK);

		set_chunk_pages(r, base >> PAGE_CHUNK_SHIFT, i - base, stop - base, is_free);
		i = stop;
	}
}

/* --- States ------------------------------------------------------------- */

static uint64_t state_pattern(unsigned int state)
{
	return state * 0x1111111111111111u;
}

/* The bits of the states [lo, hi) of a word. */
static uint64_t state_range(size_t lo, size_t hi)
{
	return bit_range(lo * 4, hi * 4);
}

/* Other states of the same word may be changed by the owner of a CPU cache at this moment. */
static void set_state_bits(uint64_t *word, uint64_t range, unsigned int state)
{
	uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

	__atomic_fetch_xor(word, (old ^ state_pattern(state)) & range, __ATOMIC_RELAXED);
}

static void set_states(struct page_region *r, size_t i, size_t n, unsigned int state)
{
	size_t first = i / PAGE_STATES_WORD, last = (i + n) / PAGE_STATES_WORD;
	size_t lo = i % PAGE_STATES_WORD, hi = (i + n) % PAGE_STATES_WORD;

	if (first == last) {
		set_state_bits(&r->states[first], state_range(lo, hi), state);
		return;
	}
	if (lo)
		set_state_bits(&r->states[first++], state_range(lo, PAGE_STATES_WORD), state);
	__builtin_memset(&r->states[first], (int)(state * 0x11u),
			 (last - first) * sizeof(uint64_t));
	if (hi)
		set_state_bits(&r->states[last], state_range(0, hi), state);
}

unsigned int page_region_state(const struct page_region *r, size_t i)
{
	uint64_t word;

	if (!is_ready(r, i >> PAGE_CHUNK_SHIFT))
		return 0;
	word = __atomic_load_n(&r->states[i / PAGE_STATES_WORD], __ATOMIC_RELAXED);
	return (unsigned int)(word >> (i % PAGE_STATES_WORD * 4)) & 15;
}

/* Count the states [lo, hi) of a word. False when one of them is not live. */
static bool count_word(uint64_t word, size_t lo, size_t hi, size_t counts[PAGE_USAGE_KINDS])
{
	uint64_t range = state_range(lo, hi);
	unsigned int state = (unsigned int)(word >> (lo * 4)) & 15;

	if ((word & range & state_pattern(PAGE_STATE_LIVE)) !=
	    (range & state_pattern(PAGE_STATE_LIVE)))
		return false;
	if (!((word ^ state_pattern(state)) & range)) {
		counts[state - PAGE_STATE_LIVE] += hi - lo;
		return true;
	}
	for (; lo < hi; lo++)
		counts[(word >> (lo * 4) & 15) - PAGE_STATE_LIVE]++;
	return true;
}

bool page_region_count(const struct page_region *r, size_t i, size_t n,
		       size_t counts[PAGE_USAGE_KINDS])
{
	size_t end = i + n;

	while (i < end) {
		size_t base = i & ~(size_t)(PAGE_STATES_WORD - 1);
		size_t stop = min_size(end, base + PAGE_STATES_WORD);
		uint64_t word;

		if (!is_ready(r, i >> PAGE_CHUNK_SHIFT))
			return false;
		word = __atomic_load_n(&r->states[i / PAGE_STATES_WORD], __ATOMIC_RELAXED);
		if (!count_word(word, i - base, stop - base, counts))
			return false;
		i = stop;
	}
	return true;
}

/* --- Search ------------------------------------------------------------- */

/* The lowest aligned block of 2^order pages, from the lowest level that has one. Pre: order <= 12.
 */
static size_t find_block(const struct page_region *r, unsigned int order)
{
	size_t c;

	if (order < PAGE_SET_GROUPS) {
		c = page_tree_first(&r->shape, r->set[order]);
		if (c != PAGE_NONE) {
			const struct page_chunk *ch = &r->chunks[c];
			unsigned int g = mm_ctz(ch->partly[order]);

			return c << PAGE_CHUNK_SHIFT | (size_t)g << PAGE_GROUP_SHIFT |
			       first_block(ch->free[g], order);
		}
		order = PAGE_SET_GROUPS;
	}
	if (order < PAGE_SET_CHUNKS) {
		c = page_tree_first(&r->shape, r->set[order]);
		if (c != PAGE_NONE)
			return c << PAGE_CHUNK_SHIFT |
			       (size_t)first_block(r->chunks[c].whole, order - PAGE_SET_GROUPS)
				       << PAGE_GROUP_SHIFT;
	}
	c = page_tree_first(&r->shape, r->set[PAGE_SET_CHUNKS]);
	return c == PAGE_NONE ? PAGE_NONE : c << PAGE_CHUNK_SHIFT;
}

/* The start of the free run that page i ends (exclusive), but not below floor. */
static size_t run_start(const struct page_region *r, size_t i, size_t floor)
{
	while (i > floor) {
		size_t last = i - 1;
		uint64_t taken;

		if (!(i & (PAGE_CHUNK - 1)) && chunk_is_free(r, last >> PAGE_CHUNK_SHIFT)) {
			i -= PAGE_CHUNK;
			continue;
		}
		taken = ~group_bits(r, last >> 6) << (63 - (last & 63));
		if (taken)
			return max_size(floor, i - (63 - mm_fls(taken)));
		i = last & ~(size_t)63;
	}
	return floor;
}

/* The first page from i on that is not free, or limit. Pre: limit <= end. */
static size_t run_end(const struct page_region *r, size_t i, size_t limit)
{
	while (i < limit) {
		uint64_t taken;

		if (chunk_is_free(r, i >> PAGE_CHUNK_SHIFT)) {
			i = (i | (PAGE_CHUNK - 1)) + 1;
			continue;
		}
		taken = ~group_bits(r, i >> 6) >> (i & 63);
		if (taken)
			return min_size(limit, i + mm_ctz(taken));
		i = (i | 63) + 1;
	}
	return limit;
}

/* The lowest chunk from c on that holds an aligned block of 2^order pages. Pre: order <= 12. */
static size_t next_chunk(const struct page_region *r, unsigned int order, size_t c)
{
	size_t best = page_tree_next(&r->shape, r->set[PAGE_SET_CHUNKS], c);

	if (order < PAGE_SET_CHUNKS)
		best = min_size(best, page_tree_next(&r->shape,
						     r->set[max_size(order, PAGE_SET_GROUPS)], c));
	if (order < PAGE_SET_GROUPS)
		best = min_size(best, page_tree_next(&r->shape, r->set[order], c));
	return best;
}

/* The first free page at or after i, in the chunk of i; PAGE_NONE when there is none. */
static size_t next_free(const struct page_region *r, size_t i)
{
	const struct page_chunk *ch = &r->chunks[i >> PAGE_CHUNK_SHIFT];
	unsigned int g = (unsigned int)(i >> 6) & 63;
	uint64_t groups, bits;

	if (chunk_is_free(r, i >> PAGE_CHUNK_SHIFT))
		return i;
	bits = ch->free[g] >> (i & 63);
	if (bits)
		return i + mm_ctz(bits);
	groups = g == 63 ? 0 : (ch->whole | ch->partly[0]) & ~(uint64_t)0 << (g + 1);
	if (!groups)
		return PAGE_NONE;
	g = mm_ctz(groups);
	return (i & ~(PAGE_CHUNK - 1)) | (size_t)g << 6 | mm_ctz(ch->free[g]);
}

/* Index i rounded up so that its page number is a multiple of align, a power of two. */
static size_t align_index(const struct page_region *r, size_t i, size_t align)
{
	return mm_align_up(r->base_pn + i, align) - r->base_pn;
}

/* The lowest free run that has room, by walking the runs. Exact. */
static size_t find_run(const struct page_region *r, size_t n, size_t align, size_t end)
{
	unsigned int order = (unsigned int)min_size(mm_fls(n + 1) - 1, PAGE_SET_CHUNKS);
	size_t c, i = r->begin;

	while ((c = next_chunk(r, order, i >> PAGE_CHUNK_SHIFT)) != PAGE_NONE) {
		size_t start = next_free(r, max_size(i, c << PAGE_CHUNK_SHIFT)), stop, at;

		if (start == PAGE_NONE) {
			i = (c + 1) << PAGE_CHUNK_SHIFT;
			continue;
		}
		start = run_start(r, start, i);
		at = align_index(r, start, align);
		if (at >= end || n > end - at)
			return PAGE_NONE;
		stop = run_end(r, start, at + n);
		if (stop == at + n)
			return at;
		i = max_size(at, stop);
	}
	return PAGE_NONE;
}

/* A block that was found may lie amid a free run: move to its start, if that is near. */
static size_t slide_down(const struct page_region *r, size_t i, size_t block, size_t align)
{
	size_t floor = i - r->begin < block ? r->begin : i - block + 1;
	size_t start;

	if (align >= block)
		return i;
	start = run_start(r, i, floor);
	return start > floor || start == r->begin ? align_index(r, start, align) : i;
}

static unsigned int order_of(size_t n)
{
	return n > 1 ? mm_fls(n - 1) + 1 : 0;
}

size_t page_region_find(const struct page_region *r, size_t n, size_t align, size_t end)
{
	unsigned int order;
	size_t i;

	if (n > r->free_pages)
		return PAGE_NONE;
	order = order_of(max_size(n, align));
	if (order <= PAGE_SET_CHUNKS) {
		i = find_block(r, order);
		if (i != PAGE_NONE) {
			i = slide_down(r, i, (size_t)1 << order, align);
			if (i < end && n <= end - i)
				return i;
		}
		if (i == PAGE_NONE && n == align)
			return PAGE_NONE; /* such a run is a block, and there is none */
	}
	return find_run(r, n, align, end);
}

bool page_region_is_free(const struct page_region *r, size_t i, size_t n)
{
	return run_end(r, i, i + n) == i + n;
}

/* --- Taking and giving -------------------------------------------------- */

void page_region_take(struct page_region *r, size_t i, size_t n, unsigned int state)
{
	set_bits(r, i, n, false);
	set_states(r, i, n, state);
	r->free_pages -= n;
}

void page_region_give(struct page_region *r, size_t i, size_t n)
{
	set_states(r, i, n, 0);
	set_bits(r, i, n, true);
	r->free_pages += n;
}

/* Park the lowest n free pages of the group of page i; how many there were. */
static size_t park_group(struct page_region *r, size_t i, size_t n, uint32_t *out)
{
	size_t c = i >> PAGE_CHUNK_SHIFT, got = 0;
	unsigned int g = (unsigned int)(i >> 6) & 63;
	uint64_t bits = ready_chunk(r, c)->free[g];

	for (; bits && got < n; bits &= bits - 1) {
		size_t page = (i & ~(size_t)63) | mm_ctz(bits);

		set_states(r, page, 1, PAGE_STATE_PARKED);
		out[got++] = (uint32_t)page;
	}
	set_group(r, c, g, bits);
	r->free_pages -= got;
	return got;
}

size_t page_region_take_parked(struct page_region *r, size_t n, uint32_t *out)
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

/* --- Creation ----------------------------------------------------------- */

static size_t chunks_of(uintptr_t pn, size_t npages)
{
	return ((pn + npages - 1) >> PAGE_CHUNK_SHIFT) - (pn >> PAGE_CHUNK_SHIFT) + 1;
}

/* The parts of a region's metadata, one after the other. */
struct layout_plan {
	size_t sets, ready, chunks, states, total; /* offsets in bytes */
	struct page_tree_shape shape;
};

static struct layout_plan plan_metadata(size_t nchunks)
{
	struct layout_plan p = {.shape = page_tree_shape(nchunks)};

	p.sets = mm_align_up(sizeof(struct page_region), 64);
	p.ready = p.sets + PAGE_SETS * page_tree_words(&p.shape) * sizeof(uint64_t);
	p.chunks = mm_align_up(p.ready + (nchunks + 63) / 64 * sizeof(uint64_t), 64);
	p.states = p.chunks + nchunks * sizeof(struct page_chunk);
	p.total = p.states + nchunks * PAGE_CHUNK / 2;
	return p;
}

size_t page_region_metadata(uintptr_t pn, size_t npages)
{
	return plan_metadata(chunks_of(pn, npages)).total;
}

/* Insert all of [0, n), a word at a time. */
static void fill_set(const struct page_tree_shape *s, uint64_t *t, size_t n)
{
	for (unsigned int l = 0; l < s->levels; l++) {
		uint64_t *words = &t[s->offset[l]];

		__builtin_memset(words, 0xff, n / 64 * sizeof(uint64_t));
		if (n % 64)
			words[n / 64] = bit_range(0, n % 64);
		n = (n + 63) / 64;
	}
}

struct page_region *page_region_create(void *memory, uintptr_t pn, size_t npages)
{
	size_t nchunks = chunks_of(pn, npages);
	struct layout_plan plan = plan_metadata(nchunks);
	struct page_region *r = memory;
	char *base = memory;
	size_t words = page_tree_words(&plan.shape);

	__builtin_memset(base, 0, plan.chunks);
	r->base_pn = pn & ~(uintptr_t)(PAGE_CHUNK - 1);
	r->begin = pn - r->base_pn;
	r->end = r->begin + npages;
	r->first_pn = pn;
	r->end_pn = pn + npages;
	r->free_pages = npages;
	r->nchunks = nchunks;
	r->metadata_bytes = plan.total;
	r->shape = plan.shape;
	for (unsigned int set = 0; set < PAGE_SETS; set++)
		r->set[set] = (uint64_t *)(void *)(base + plan.sets) + set * words;
	r->ready = (uint64_t *)(void *)(base + plan.ready);
	r->chunks = (struct page_chunk *)(void *)(base + plan.chunks);
	r->states = (uint64_t *)(void *)(base + plan.states);
	fill_set(&r->shape, r->set[PAGE_SET_CHUNKS], nchunks);
	set_bits(r, 0, r->begin, false);
	set_bits(r, r->end, nchunks * PAGE_CHUNK - r->end, false);
	return r;
}

/* --- Checking ----------------------------------------------------------- */

static bool group_is_sound(const struct page_region *r, size_t c, unsigned int g, size_t counts[16])
{
	const struct page_chunk *ch = &r->chunks[c];
	uint64_t bits = ch->free[g];
	unsigned int orders = count_orders(bits);

	if (ch->orders[g] != orders || (ch->whole >> g & 1) != (bits == ~(uint64_t)0))
		return false;
	for (unsigned int q = 0; q < 6; q++)
		if ((ch->partly[q] >> g & 1) != (q < orders))
			return false;
	for (unsigned int b = 0; b < 64; b++) {
		size_t i = c << PAGE_CHUNK_SHIFT | (size_t)g << 6 | b;
		bool managed = i >= r->begin && i < r->end;
		unsigned int state = page_region_state(r, i);

		if ((bits >> b & 1) != (managed && !state) || (!managed && state))
			return false;
		counts[state] += managed;
	}
	return true;
}

static bool chunk_is_sound(const struct page_region *r, size_t c, size_t counts[16])
{
	const struct page_chunk *ch = &r->chunks[c];
	uint64_t whole = is_ready(r, c) ? ch->whole : ~(uint64_t)0;
	unsigned int orders = count_orders(whole);

	if (chunk_is_free(r, c) != (whole == ~(uint64_t)0))
		return false;
	for (unsigned int q = 0; q < 6; q++) {
		bool partly = is_ready(r, c) && ch->partly[q];

		if (page_tree_has(r->set[q], c) != partly ||
		    page_tree_has(r->set[PAGE_SET_GROUPS + q], c) != (q < orders))
			return false;
	}
	if (!is_ready(r, c)) {
		counts[0] += PAGE_CHUNK;
		return c << PAGE_CHUNK_SHIFT >= r->ready_end;
	}
	if (ch->whole_orders != orders)
		return false;
	for (unsigned int g = 0; g < 64; g++)
		if (!group_is_sound(r, c, g, counts))
			return false;
	return true;
}

/* Does every summary bit say what the word below it says? */
static bool set_is_sound(const struct page_tree_shape *s, const uint64_t *t)
{
	for (unsigned int l = 0; l + 1 < s->levels; l++)
		for (size_t i = s->offset[l]; i < s->offset[l + 1]; i++)
			if (page_tree_has(&t[s->offset[l + 1]], i - s->offset[l]) != (t[i] != 0))
				return false;
	return true;
}

bool page_region_check(const struct page_region *r, size_t counts[16])
{
	size_t free_before = counts[0];

	for (unsigned int set = 0; set < PAGE_SETS; set++)
		if (!set_is_sound(&r->shape, r->set[set]))
			return false;
	for (size_t c = 0; c < r->nchunks; c++)
		if (!chunk_is_sound(r, c, counts))
			return false;
	return counts[0] - free_before == r->free_pages;
}
