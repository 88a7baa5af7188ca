/* SPDX-License-Identifier: MIT */
/*
 * Spans of pages for the slab engine: good fit in constant time.
 *
 * A piece begins with its header, then one record (struct slab) for each page,
 * then the index: for each page the record of the slab that it is part of. The
 * first and the last record of a free span hold its length, so that a span that
 * is given back finds both neighbours without a search. Free spans hang on lists
 * by length: exact below 16 pages, eight lists to a power of two above; a bitmap
 * says which lists hold something. A request looks from the first list whose
 * spans all fit, then at a few spans of its own list, which may fit: so memory
 * is refused only when next to none of that size is left.
 *
 * A piece is set up without touching what it holds. A free span at its end has
 * no last record, for nothing follows that could ask; a record is written when it
 * begins a span; and the index is made ready 16 pages at a time, when the first
 * of them is used. What is not ready cannot hold anything of ours. A large block
 * needs the entry of its first page alone, so what a block costs does not depend
 * on its size; the gap that it leaves is closed by the requests that follow and make nothing
 * ready themselves, each a little, for a window of a CPU (byte_slab.h) reaches only as far as all
 * is ready. The entry of a page that was given back says so, whence a second free is told from a
 * foreign pointer.
 *
 * Pieces, any number, are in a tree by address, a treap whose priorities are a
 * hash of the address; a record finds its piece by its own number.
 *
 * Shortcomings: records and index are 2.1 % of the memory, 2.3 % above level 0; a piece costs a
 * word of set-up for every 4 MiB.
 */
#include "bits.h"
#include "slab_span.h"

#define EXACT_LISTS   16u
#define MAX_PAGES     ((size_t)UINT32_MAX)
#define OWN_LIST_LOOK 8	  /* spans of its own list that a request looks at */
#define LOOK_WORDS    32u /* how far a window reaches, at least: 128 MiB on either side */

struct slab byte_slab_no_page = {.tag = SLAB_TAG(SLAB_NO_OWNER), .state = SLAB_INNER};
struct slab byte_slab_free_page = {.tag = SLAB_TAG(SLAB_NO_OWNER), .state = SLAB_FREE};

/* --- Pieces --------------------------------------------------------------------------------- */

static struct slab *records_of(struct slab_piece *piece)
{
	return (struct slab *)(piece + 1);
}

static struct slab_piece *piece_of(struct slab *s)
{
	return (struct slab_piece *)(s - s->page) - 1;
}

static uint64_t rank_of(const struct slab_piece *piece)
{
	return (piece->base >> MM_PAGE_SHIFT) * 0x9e3779b97f4a7c15u;
}

struct slab_piece *byte_slab_piece_of(const struct byte_slab *a, uintptr_t addr)
{
	struct slab_piece *p = a->root;

	while (p && addr - p->base >= p->npages * MM_PAGE_SIZE)
		p = addr < p->base ? p->left : p->right;
	return p;
}

/* Cut a tree in two: what begins below an address, and the rest. */
static void tree_split(struct slab_piece *t, uintptr_t base, struct slab_piece **below,
		       struct slab_piece **rest)
{
	while (t) {
		if (t->base < base) {
			*below = t;
			below = &t->right;
			t = t->right;
		} else {
			*rest = t;
			rest = &t->left;
			t = t->left;
		}
	}
	*below = *rest = NULL;
}

/* Pre: everything on the left is below everything on the right. */
static void tree_join(struct slab_piece **to, struct slab_piece *left, struct slab_piece *right)
{
	while (left && right) {
		if (rank_of(left) > rank_of(right)) {
			*to = left;
			to = &left->right;
			left = left->right;
		} else {
			*to = right;
			to = &right->left;
			right = right->left;
		}
	}
	*to = left ? left : right;
}

static void tree_insert(struct byte_slab *a, struct slab_piece *piece)
{
	struct slab_piece **at = &a->root;

	while (*at && rank_of(*at) > rank_of(piece))
		at = piece->base < (*at)->base ? &(*at)->left : &(*at)->right;
	tree_split(*at, piece->base, &piece->left, &piece->right);
	*at = piece;
}

static void tree_remove(struct byte_slab *a, struct slab_piece *piece)
{
	struct slab_piece **at = &a->root;

	while (*at != piece)
		at = piece->base < (*at)->base ? &(*at)->left : &(*at)->right;
	tree_join(at, piece->left, piece->right);
}

static size_t ready_words(size_t npages)
{
	return (npages / SLAB_CHUNK + 64) / 64;
}

/* The CPUs learn anew what they can see of a piece, which is more, or nothing any more. */
static void close_windows(struct byte_slab *a, const struct slab_piece *piece)
{
	for (unsigned int cpu = 0; cpu < MM_MAX_CPUS; cpu++) {
		struct slab_window *w = a->windows[cpu], *end = w + cpu_of(a, cpu)->nwindows;

		for (; w < end; w++)
			if (w->base - piece->base < piece->npages * MM_PAGE_SIZE)
				__atomic_store_n(&w->nbytes, 0, __ATOMIC_RELAXED);
	}
}

/* Before the index is used for a page. False: it was ready. */
static bool make_ready(struct slab_piece *piece, size_t page)
{
	size_t chunk = page / SLAB_CHUNK;
	struct slab **entry = &piece->slabs[chunk * SLAB_CHUNK];

	if (slab_ready(piece, page))
		return false;
	piece->ready[chunk / 64] |= (uint64_t)1 << (chunk % 64);
	for (size_t i = 0; i < SLAB_CHUNK; i += 4)
		entry[i] = entry[i + 1] = entry[i + 2] = entry[i + 3] = &byte_slab_no_page;
	if (chunk >= piece->ready_end)
		piece->ready_end = chunk + 1;
	return true;
}

/* One step towards an index without gaps. */
static void close_gap(struct byte_slab *a, struct slab_piece *piece)
{
	if (piece->ready_begin == piece->ready_end)
		return;
	if (make_ready(piece, piece->ready_begin * SLAB_CHUNK))
		piece->gap = true;
	piece->ready_begin++;
	if (piece->gap && piece->ready_begin == piece->ready_end) {
		piece->gap = false;
		close_windows(a, piece);
	}
}

/* The row of ready chunks that one is in: the first behind it, */
static size_t ready_end(const struct slab_piece *piece, size_t chunk)
{
	size_t w = chunk / 64, last = w + LOOK_WORDS, words = ready_words(piece->npages);
	uint64_t gaps = ~piece->ready[w] & (~(uint64_t)0 << (chunk % 64));

	while (!gaps && ++w < words && w < last)
		gaps = ~piece->ready[w];
	return gaps ? w * 64 + mm_ctz(gaps) : w * 64;
}

/* and the first of it. */
static size_t ready_begin(const struct slab_piece *piece, size_t chunk)
{
	size_t w = chunk / 64, first = w > LOOK_WORDS ? w - LOOK_WORDS : 0;
	uint64_t gaps = ~piece->ready[w] & (((uint64_t)1 << (chunk % 64)) - 1);

	while (!gaps && w > first)
		gaps = ~piece->ready[--w];
	return gaps ? w * 64 + mm_fls(gaps) + 1 : w * 64;
}

struct slab_window byte_slab_window_of(const struct slab_piece *piece, uintptr_t addr)
{
	size_t chunk = ((addr - piece->base) >> MM_PAGE_SHIFT) / SLAB_CHUNK;
	size_t page = ready_begin(piece, chunk) * SLAB_CHUNK;
	size_t end = ready_end(piece, chunk) * SLAB_CHUNK;

	if (end > piece->npages)
		end = piece->npages;
	return (struct slab_window){
		.base = piece->base + page * MM_PAGE_SIZE,
		.nbytes = (end - page) * MM_PAGE_SIZE,
		.slabs = piece->slabs + page,
	};
}

/* --- Lists of free spans -------------------------------------------------------------------- */

static unsigned int list_of(size_t npages)
{
	unsigned int e;

	if (npages < EXACT_LISTS)
		return (unsigned int)npages;
	e = mm_fls(npages);
	return EXACT_LISTS + (e - 4) * 8 + (unsigned int)((npages >> (e - 3)) & 7);
}

/* The first list all of whose spans have at least npages. */
static unsigned int list_above(size_t npages)
{
	if (npages < EXACT_LISTS)
		return (unsigned int)npages;
	return list_of(npages + ((size_t)1 << (mm_fls(npages) - 3)) - 1);
}

static void list_insert(struct byte_slab *a, struct slab *s, unsigned int l)
{
	s->prev = NULL;
	s->next = a->list[l];
	if (s->next)
		s->next->prev = s;
	a->list[l] = s;
	a->list_bits[l / 64] |= (uint64_t)1 << (l % 64);
}

static void list_remove_from(struct byte_slab *a, struct slab *s, unsigned int l)
{
	if (s->next)
		s->next->prev = s->prev;
	if (s->prev) {
		s->prev->next = s->next;
		return;
	}
	a->list[l] = s->next;
	if (!s->next)
		a->list_bits[l / 64] &= ~((uint64_t)1 << (l % 64));
}

static void list_remove(struct byte_slab *a, struct slab *s)
{
	list_remove_from(a, s, list_of(s->npages));
}

static struct slab *list_search(const struct byte_slab *a, unsigned int from)
{
	uint64_t bits;

	if (from >= BYTE_SLAB_LISTS)
		return NULL;
	bits = a->list_bits[from / 64] & (~(uint64_t)0 << (from % 64));
	for (unsigned int w = from / 64;; bits = a->list_bits[w]) {
		if (bits)
			return a->list[w * 64 + mm_ctz(bits)];
		if (++w == BYTE_SLAB_LISTS / 64)
			return NULL;
	}
}

static struct slab *find_fit(const struct byte_slab *a, size_t npages)
{
	struct slab *s = list_search(a, list_above(npages));

	if (s || npages < EXACT_LISTS)
		return s;
	s = a->list[list_of(npages)];
	for (int i = 0; s && i < OWN_LIST_LOOK; i++, s = s->next)
		if (s->npages >= npages)
			return s;
	return NULL;
}

/* --- Spans ---------------------------------------------------------------------------------- */

/* Both ends of a free span say what it is, unless nothing can follow it. */
static void set_free(const struct slab_piece *piece, struct slab *s, size_t page, size_t npages)
{
	struct slab *last = s + npages - 1;

	if (page + npages < piece->npages) {
		set_state(last, SLAB_FREE);
		last->npages = (uint32_t)npages;
	}
	set_state(s, SLAB_FREE);
	s->npages = (uint32_t)npages;
	s->page = (uint32_t)page;
	s->base = piece->base + page * MM_PAGE_SIZE;
}

static void add_free(struct byte_slab *a, const struct slab_piece *piece, struct slab *s,
		     size_t page, size_t npages)
{
	set_free(piece, s, page, npages);
	list_insert(a, s, list_of(npages));
}

static void mark_used(struct slab *s, size_t npages)
{
	set_state(s + npages - 1, SLAB_INNER);
	set_state(s, SLAB_RUN);
	s->npages = (uint32_t)npages;
	s->limit = 0;
	__atomic_store_n(&s->tag, SLAB_TAG(SLAB_NO_OWNER), __ATOMIC_RELAXED);
}

static void count_used(struct byte_slab *a, struct slab_piece *piece, size_t npages)
{
	if (!piece->used_pages)
		a->free_pieces--;
	piece->used_pages += npages;
	a->free_pages -= npages;
}

static void count_free(struct byte_slab *a, struct slab_piece *piece, size_t npages)
{
	piece->used_pages -= npages;
	a->free_pages += npages;
	if (!piece->used_pages)
		a->free_pieces++;
}

/* Make pages free, joined with what is free around them. */
static void release_pages(struct byte_slab *a, struct slab_piece *piece, size_t page, size_t npages)
{
	struct slab *s = records_of(piece) + page, *after = s + npages;

	count_free(a, piece, npages);
	set_state(s, SLAB_FREE);
	if (page + npages < piece->npages && state_of(after) == SLAB_FREE) {
		list_remove(a, after);
		npages += after->npages;
	}
	if (page && state_of(&s[-1]) == SLAB_FREE) {
		size_t before = s[-1].npages;

		s -= before;
		list_remove(a, s);
		npages += before;
		page -= before;
	}
	add_free(a, piece, s, page, npages);
}

/* A free span loses its first pages. Often the rest belongs to the same list. */
static void cut_front(struct byte_slab *a, const struct slab_piece *piece, struct slab *s,
		      size_t npages)
{
	size_t page = s->page + npages, rest = s->npages - npages;
	unsigned int was = list_of(s->npages), l = rest ? list_of(rest) : 0;
	struct slab *to = s + npages;

	if (rest)
		set_free(piece, to, page, rest);
	if (l != was) {
		list_remove_from(a, s, was);
		if (rest)
			list_insert(a, to, l);
		return;
	}
	to->next = s->next;
	to->prev = s->prev;
	if (to->next)
		to->next->prev = to;
	if (to->prev)
		to->prev->next = to;
	else
		a->list[l] = to;
}

/*
 * Make a span used whose page is the first of a free one. What the index had to be made ready for
 * is enough to do in one call; else it comes a step nearer to having no gaps.
 */
static void cut(struct byte_slab *a, struct slab *s, size_t npages, size_t nindexed)
{
	struct slab_piece *piece = piece_of(s);
	struct slab **entry = &piece->slabs[s->page];
	size_t last = s->page + nindexed - 1;
	bool made = make_ready(piece, s->page);

	if (s->page / SLAB_CHUNK != last / SLAB_CHUNK)
		made |= make_ready(piece, last);
	if (!made)
		close_gap(a, piece);
	count_used(a, piece, npages);
	cut_front(a, piece, s, npages);
	mark_used(s, npages);
	for (size_t i = 0; i < nindexed; i++)
		entry[i] = s;
}

/* A free span becomes two. */
static struct slab *split(struct byte_slab *a, struct slab *span, size_t npages)
{
	struct slab_piece *piece = piece_of(span);
	size_t rest = span->npages - npages, page = span->page;

	list_remove(a, span);
	add_free(a, piece, span, page, npages);
	add_free(a, piece, span + npages, page + npages, rest);
	return span + npages;
}

static size_t pages_before(const struct slab *span, size_t align)
{
	return (mm_align_up(span->base, align) - span->base) / MM_PAGE_SIZE;
}

/* A free span that has npages at an alignment above a page, and begins there. */
static struct slab *find_aligned(struct byte_slab *a, size_t npages, size_t align)
{
	struct slab *span = find_fit(a, npages);

	if (span && pages_before(span, align) + npages > span->npages)
		span = find_fit(a, npages + align / MM_PAGE_SIZE - 1);
	if (!span || !pages_before(span, align))
		return span;
	return split(a, span, pages_before(span, align));
}

struct slab *byte_slab_span_get(struct byte_slab *a, size_t npages, size_t align)
{
	struct slab *span;

	if (npages > MAX_PAGES)
		return NULL;
	span = align > MM_PAGE_SIZE ? find_aligned(a, npages, align) : find_fit(a, npages);
	if (span)
		cut(a, span, npages, 1);
	return span;
}

struct slab *byte_slab_span_get_indexed(struct byte_slab *a, size_t npages)
{
	struct slab *span = find_fit(a, npages);

	if (span)
		cut(a, span, npages, npages);
	return span;
}

void byte_slab_span_put(struct byte_slab *a, struct slab *s)
{
	struct slab_piece *piece = piece_of(s);
	struct slab **entry = &piece->slabs[s->page];

	size_t indexed = state_of(s) == SLAB_RUN ? 1 : s->npages;

	for (size_t i = 0; i < indexed; i++)
		entry[i] = &byte_slab_free_page;
	release_pages(a, piece, s->page, s->npages);
}

void byte_slab_span_shrink(struct byte_slab *a, struct slab *s, size_t npages)
{
	size_t rest = s->npages - npages;

	if (!rest)
		return;
	mark_used(s, npages);
	release_pages(a, piece_of(s), s->page + npages, rest);
}

bool byte_slab_span_grow(struct byte_slab *a, struct slab *s, size_t npages)
{
	struct slab_piece *piece = piece_of(s);
	struct slab *after = s + s->npages;
	size_t more = npages - s->npages;

	if (s->page + s->npages == piece->npages || state_of(after) != SLAB_FREE ||
	    after->npages < more)
		return false;
	cut(a, after, more, 1);
	piece->slabs[after->page] = &byte_slab_no_page;
	set_state(after, SLAB_INNER);
	mark_used(s, npages);
	return true;
}

/* --- Memory comes and goes ------------------------------------------------------------------ */

/* The index ends with a whole chunk. */
size_t byte_slab_span_overhead(size_t npages)
{
	size_t entries = npages + SLAB_CHUNK - 1;

	return sizeof(struct slab_piece) + npages * sizeof(struct slab) +
	       entries * sizeof(struct slab *) + ready_words(npages) * sizeof(uint64_t);
}

static bool pages_fit(uintptr_t start, uintptr_t end, size_t n)
{
	uintptr_t first = mm_align_up(start + byte_slab_span_overhead(n), MM_PAGE_SIZE);

	return first <= end && n <= (end - first) / MM_PAGE_SIZE;
}

/* How many pages fit between two addresses, with what stands before them. */
static size_t pages_between(uintptr_t start, uintptr_t end)
{
	size_t n = end < start ? 0 : (end - start) / (MM_PAGE_SIZE + sizeof(struct slab));

	while (n && !pages_fit(start, end, n))
		n -= 1 + n / 1024;
	while (n && pages_fit(start, end, n + 1))
		n++;
	return n;
}

/* Does a piece have some of this? */
static bool overlaps(const struct byte_slab *a, uintptr_t start, uintptr_t end)
{
	const struct slab_piece *p = a->root;

	while (p) {
		uintptr_t given = (uintptr_t)p->given;

		if (start < given + p->given_nbytes && given < end)
			return true;
		p = end <= given ? p->left : p->right;
	}
	return false;
}

enum alloc_result byte_slab_span_add(struct byte_slab *a, void *start, size_t nbytes)
{
	uintptr_t at = mm_align_up((uintptr_t)start, 64), end = (uintptr_t)start + nbytes;
	size_t n = byte_alloc_in_reach(start, nbytes) ? pages_between(at, end) : 0;
	struct slab_piece *piece = (struct slab_piece *)at;

	if (!n || n > MAX_PAGES)
		return ALLOC_INVALID_PARAM;
	if (overlaps(a, (uintptr_t)start, end))
		return ALLOC_MEMORY_OVERLAP;
	*piece = (struct slab_piece){
		.base = mm_align_down(end, MM_PAGE_SIZE) - n * MM_PAGE_SIZE,
		.npages = n,
		.ready = (uint64_t *)(records_of(piece) + n),
		.given = start,
		.given_nbytes = nbytes,
		.next = a->pieces,
	};
	piece->slabs = (struct slab **)(piece->ready + ready_words(n));
	__builtin_memset(piece->ready, 0, ready_words(n) * sizeof(uint64_t));
	if (a->pieces)
		a->pieces->prev = piece;
	a->pieces = piece;
	tree_insert(a, piece);
	add_free(a, piece, records_of(piece), 0, n);
	a->free_pieces++;
	a->free_pages += n;
	a->total_nbytes += nbytes;
	return ALLOC_OK;
}

static void forget_piece(struct byte_slab *a, struct slab_piece *piece)
{
	list_remove(a, records_of(piece));
	tree_remove(a, piece);
	if (piece->next)
		piece->next->prev = piece->prev;
	if (piece->prev)
		piece->prev->next = piece->next;
	else
		a->pieces = piece->next;
	a->free_pieces--;
	a->free_pages -= piece->npages;
	a->total_nbytes -= piece->given_nbytes;
}

bool byte_slab_span_take_free(struct byte_slab *a, void **start, size_t *nbytes)
{
	struct slab_piece *p = a->free_pieces ? a->pieces : NULL;

	while (p && p->used_pages)
		p = p->next;
	if (!p)
		return false;
	*start = p->given;
	*nbytes = p->given_nbytes;
	close_windows(a, p);
	forget_piece(a, p);
	return true;
}

/* --- Check ---------------------------------------------------------------------------------- */

const void *byte_slab_span_each(const struct byte_slab *a, span_fn f, void *ctx)
{
	const void *stop = NULL;

	for (const struct slab_piece *p = a->pieces; p && !stop; p = p->next) {
		const struct slab *s = (const struct slab *)(p + 1), *end = s + p->npages;

		for (; s < end && !stop; s += s->npages)
			stop = f(a, s, ctx);
	}
	return stop;
}

static bool listed(const struct byte_slab *a, const struct slab *s)
{
	const struct slab *i = a->list[list_of(s->npages)];

	while (i && i != s)
		i = i->next;
	return i;
}

static bool free_span_intact(const struct byte_slab *a, const struct slab *s,
			     const struct slab *end)
{
	return (s + s->npages == end || s[s->npages - 1].npages == s->npages) && listed(a, s);
}

static const void *check_piece(const struct byte_slab *a, struct slab_piece *p)
{
	const struct slab *first = records_of(p), *end = first + p->npages;
	bool free_before = false;
	size_t used = 0;

	if (byte_slab_piece_of(a, p->base) != p)
		return p;
	for (const struct slab *s = first; s < end; s += s->npages) {
		bool is_free = state_of(s) == SLAB_FREE;

		if (!s->npages || s->npages > (size_t)(end - s) || state_of(s) == SLAB_INNER ||
		    s->page != (size_t)(s - first) || s->base != p->base + s->page * MM_PAGE_SIZE)
			return s;
		if (is_free ? free_before || !free_span_intact(a, s, end) : p->slabs[s->page] != s)
			return s;
		used += is_free ? 0 : s->npages;
		free_before = is_free;
	}
	return used == p->used_pages ? NULL : p;
}

const void *byte_slab_span_check(const struct byte_slab *a)
{
	for (struct slab_piece *p = a->pieces; p; p = p->next) {
		const void *bad = check_piece(a, p);

		if (bad)
			return bad;
	}
	for (unsigned int l = 0; l < BYTE_SLAB_LISTS; l++)
		if (!a->list[l] != !(a->list_bits[l / 64] >> (l % 64) & 1))
			return &a->list[l];
	return NULL;
}
