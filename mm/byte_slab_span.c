/* SPDX-License-Identifier: MIT */
/*
 * Spans of pages for the slab engine: good fit in constant time.
 *
 * Every piece starts with one record (struct slab) for each of its pages. The
 * first and the last record of a free span hold its length, so that a span
 * that is given back finds both neighbours without a search. Free spans hang
 * on lists by length: exact below 16 pages, eight lists to a power of two
 * above; a bitmap says which lists hold something. A request looks from the
 * first list whose spans all fit, then at a few spans of its own list, which
 * may fit: so memory is refused only when next to none of that size is left.
 *
 * Shortcomings: the records are 1.6 % of the memory and are cleared when a
 * piece comes; a piece holds at most 2^26 - 1 pages.
 */
#include "bits.h"
#include "slab_span.h"

#define EXACT_LISTS   16u
#define MAX_PAGES     (((size_t)1 << 26) - 1)
#define OWN_LIST_LOOK 8 /* spans of its own list that a request looks at */

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

static void list_insert(struct byte_slab *a, struct slab *s)
{
	unsigned int l = list_of(s->npages);

	s->prev = NULL;
	s->next = a->list[l];
	if (s->next)
		s->next->prev = s;
	a->list[l] = s;
	a->list_bits[l / 64] |= (uint64_t)1 << (l % 64);
}

static void list_remove(struct byte_slab *a, struct slab *s)
{
	unsigned int l = list_of(s->npages);

	if (s->next)
		s->next->prev = s->prev;
	if (s->prev)
		s->prev->next = s->next;
	else
		a->list[l] = s->next;
	if (!a->list[l])
		a->list_bits[l / 64] &= ~((uint64_t)1 << (l % 64));
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

/* Both ends of a span say what it is; what lies between does not matter. */
static void mark_free(struct slab *s, size_t npages, uintptr_t base)
{
	struct slab *last = s + npages - 1;

	set_state(last, SLAB_FREE);
	__atomic_store_n(&last->owner, SLAB_NO_OWNER, __ATOMIC_RELAXED);
	last->npages = npages & 0xfffffff;
	set_state(s, SLAB_FREE);
	__atomic_store_n(&s->owner, SLAB_NO_OWNER, __ATOMIC_RELAXED);
	s->npages = npages & 0xfffffff;
	s->base = base;
}

static void mark_used(struct slab *s, size_t npages, uintptr_t base)
{
	struct slab *last = s + npages - 1;

	set_state(last, SLAB_INNER);
	__atomic_store_n(&last->owner, SLAB_NO_OWNER, __ATOMIC_RELAXED);
	last->back = 0;
	set_state(s, SLAB_RUN);
	__atomic_store_n(&s->owner, SLAB_NO_OWNER, __ATOMIC_RELAXED);
	s->back = 0;
	s->npages = npages & 0xfffffff;
	s->base = base;
}

/*
 * Entries change while others read. An entry whose size is the same before and
 * after its base is read is one that was whole at some time; the one that holds
 * a live block does not change at all, so others may be skipped.
 */
const struct slab_piece *slab_piece_of(const struct byte_slab *a, uintptr_t addr)
{
	unsigned int n = __atomic_load_n(&a->npieces, __ATOMIC_ACQUIRE);

	for (const struct slab_piece *p = a->piece; p < a->piece + n; p++) {
		size_t nbytes = __atomic_load_n(&p->nbytes, __ATOMIC_ACQUIRE);
		uintptr_t base = __atomic_load_n(&p->base, __ATOMIC_ACQUIRE);

		if (addr - base < nbytes && nbytes == __atomic_load_n(&p->nbytes, __ATOMIC_RELAXED))
			return p;
	}
	return NULL;
}

/* The same for the holder of the lock, who may change what it finds. */
static struct slab_piece *own_piece_of(struct byte_slab *a, uintptr_t addr)
{
	return (struct slab_piece *)slab_piece_of(a, addr);
}

/* Pre: the entry is unused, which is told by its size. */
static void publish_piece(struct slab_piece *slot, const struct slab_piece *value)
{
	slot->meta = value->meta;
	slot->given = value->given;
	slot->given_nbytes = value->given_nbytes;
	slot->used_pages = 0;
	__atomic_store_n(&slot->base, value->base, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->nbytes, value->nbytes, __ATOMIC_RELEASE);
}

static struct slab_piece *unused_piece(struct byte_slab *a)
{
	for (unsigned int i = 0; i < a->npieces; i++)
		if (!a->piece[i].nbytes)
			return &a->piece[i];
	if (a->npieces == BYTE_SLAB_PIECES)
		return NULL;
	__atomic_store_n(&a->npieces, a->npieces + 1, __ATOMIC_RELEASE);
	return &a->piece[a->npieces - 1];
}

/* How many pages, with their records before them, fit between two addresses. */
static size_t pages_between(uintptr_t meta, uintptr_t end)
{
	size_t n;

	if (end <= meta || end - meta < MM_PAGE_SIZE + sizeof(struct slab))
		return 0;
	n = (end - meta) / (MM_PAGE_SIZE + sizeof(struct slab));
	while (n &&
	       mm_align_up(meta + n * sizeof(struct slab), MM_PAGE_SIZE) + n * MM_PAGE_SIZE > end)
		n--;
	return n;
}

enum alloc_result slab_span_add(struct byte_slab *a, void *start, size_t nbytes)
{
	uintptr_t meta = mm_align_up((uintptr_t)start, sizeof(struct slab));
	uintptr_t end = (uintptr_t)start + nbytes;
	size_t n = end < (uintptr_t)start ? 0 : pages_between(meta, end);
	struct slab_piece *slot;
	struct slab_piece piece = {
		.base = mm_align_down(end, MM_PAGE_SIZE) - n * MM_PAGE_SIZE,
		.nbytes = n * MM_PAGE_SIZE,
		.meta = (struct slab *)meta,
		.given = start,
		.given_nbytes = nbytes,
	};

	if (!n || n > MAX_PAGES)
		return ALLOC_INVALID_PARAM;
	slot = unused_piece(a);
	if (!slot)
		return ALLOC_NO_MEMORY;
	__builtin_memset(piece.meta, 0, n * sizeof(struct slab));
	for (size_t i = 0; i < n; i++)
		piece.meta[i].owner = SLAB_NO_OWNER;
	publish_piece(slot, &piece);
	mark_free(piece.meta, n, piece.base);
	list_insert(a, piece.meta);
	a->free_pieces++;
	a->free_pages += n;
	a->total_nbytes += nbytes;
	return ALLOC_OK;
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
static void release_pages(struct byte_slab *a, const struct slab_piece *piece, struct slab *s,
			  size_t npages, uintptr_t base)
{
	struct slab *end = piece->meta + piece->nbytes / MM_PAGE_SIZE;
	struct slab *after = s + npages;

	set_state(s, SLAB_FREE);
	__atomic_store_n(&s->owner, SLAB_NO_OWNER, __ATOMIC_RELAXED);
	if (after < end && state_of(after) == SLAB_FREE) {
		list_remove(a, after);
		npages += after->npages;
	}
	if (s > piece->meta && state_of(&s[-1]) == SLAB_FREE) {
		size_t before = s[-1].npages;

		s -= before;
		list_remove(a, s);
		npages += before;
		base -= before * MM_PAGE_SIZE;
	}
	mark_free(s, npages, base);
	list_insert(a, s);
}

struct slab *slab_span_get(struct byte_slab *a, size_t npages, size_t align)
{
	size_t slack = align / MM_PAGE_SIZE - 1, before, total;
	struct slab_piece *piece;
	struct slab *span = npages > MAX_PAGES ? NULL : find_fit(a, npages);
	uintptr_t base;

	if (!span)
		return NULL;
	if (mm_align_up(span->base, align) - span->base > (span->npages - npages) * MM_PAGE_SIZE)
		span = find_fit(a, npages + slack);
	if (!span)
		return NULL;
	list_remove(a, span);
	base = mm_align_up(span->base, align);
	before = (base - span->base) / MM_PAGE_SIZE;
	total = span->npages;
	piece = own_piece_of(a, base);
	count_used(a, piece, npages);
	if (before) {
		mark_free(span, before, span->base);
		list_insert(a, span);
	}
	span += before;
	mark_used(span, npages, base);
	if (total - before > npages) {
		mark_free(span + npages, total - before - npages, base + npages * MM_PAGE_SIZE);
		list_insert(a, span + npages);
	}
	return span;
}

void slab_span_put(struct byte_slab *a, struct slab *s)
{
	struct slab_piece *piece = own_piece_of(a, s->base);

	count_free(a, piece, s->npages);
	release_pages(a, piece, s, s->npages, s->base);
}

void slab_span_shrink(struct byte_slab *a, struct slab *s, size_t npages)
{
	struct slab_piece *piece = own_piece_of(a, s->base);
	size_t rest = s->npages - npages;

	if (!rest)
		return;
	mark_used(s, npages, s->base);
	count_free(a, piece, rest);
	release_pages(a, piece, s + npages, rest, s->base + npages * MM_PAGE_SIZE);
}

bool slab_span_grow(struct byte_slab *a, struct slab *s, size_t npages)
{
	struct slab_piece *piece = own_piece_of(a, s->base);
	struct slab *after = s + s->npages;
	size_t more = npages - s->npages, rest;

	if (after >= piece->meta + piece->nbytes / MM_PAGE_SIZE || state_of(after) != SLAB_FREE ||
	    after->npages < more)
		return false;
	list_remove(a, after);
	rest = after->npages - more;
	set_state(after, SLAB_INNER);
	count_used(a, piece, more);
	mark_used(s, npages, s->base);
	if (rest) {
		mark_free(s + npages, rest, s->base + npages * MM_PAGE_SIZE);
		list_insert(a, s + npages);
	}
	return true;
}

bool slab_span_take_free(struct byte_slab *a, struct slab_piece *out)
{
	if (!a->free_pieces)
		return false;
	for (struct slab_piece *p = a->piece; p < a->piece + a->npieces; p++) {
		if (!p->nbytes || p->used_pages)
			continue;
		*out = *p;
		list_remove(a, p->meta);
		__atomic_store_n(&p->nbytes, 0, __ATOMIC_RELAXED);
		a->free_pieces--;
		a->free_pages -= out->nbytes / MM_PAGE_SIZE;
		a->total_nbytes -= out->given_nbytes;
		return true;
	}
	return false;
}

static bool listed(const struct byte_slab *a, const struct slab *s)
{
	const struct slab *i = a->list[list_of(s->npages)];

	while (i && i != s)
		i = i->next;
	return i;
}

static const void *check_piece(const struct byte_slab *a, const struct slab_piece *p)
{
	const struct slab *end = p->meta + p->nbytes / MM_PAGE_SIZE;
	bool free_before = false;
	size_t used = 0;

	for (const struct slab *s = p->meta; s < end; s += s->npages) {
		bool is_free = state_of(s) == SLAB_FREE;

		if (!s->npages || s->npages > (size_t)(end - s) || state_of(s) == SLAB_INNER ||
		    s->base != p->base + (size_t)(s - p->meta) * MM_PAGE_SIZE)
			return s;
		if (is_free &&
		    (free_before || s[s->npages - 1].npages != s->npages || !listed(a, s)))
			return s;
		used += is_free ? 0 : s->npages;
		free_before = is_free;
	}
	return used == p->used_pages ? NULL : p;
}

const void *slab_span_check(const struct byte_slab *a)
{
	for (const struct slab_piece *p = a->piece; p < a->piece + a->npieces; p++) {
		const void *bad = p->nbytes ? check_piece(a, p) : NULL;

		if (bad)
			return bad;
	}
	for (unsigned int l = 0; l < BYTE_SLAB_LISTS; l++)
		if (!a->list[l] != !(a->list_bits[l / 64] >> (l % 64) & 1))
			return &a->list[l];
	return NULL;
}
