/* SPDX-License-Identifier: MIT */
/*
 * Private to the slab engine: the record that every page has, and the manager
 * of spans (runs of pages) that slabs and large blocks are made of.
 */
#ifndef MM_SLAB_SPAN_H
#define MM_SLAB_SPAN_H

#include <mm/byte_slab.h>

enum slab_state {
	SLAB_FREE,     /* of a free span: true for its first and last page */
	SLAB_INNER,    /* page of a used span, but not its first */
	SLAB_RUN,      /* first page of a large block */
	SLAB_ACTIVE,   /* its CPU allocates from it; left means nothing */
	SLAB_PARTIAL,  /* listed by its CPU; left = objects that are not on its list */
	SLAB_FULL,     /* on no list; left = frees until it is worth listing */
	SLAB_RETURNED, /* empty, on its way to the span manager */
	SLAB_LOST,     /* corrupt: isolated, never used again */
};

#define SLAB_NO_OWNER 0xffu

/*
 * How an owner stands in the tag of its slabs. At level 0 no tag is 0, as to compare a word in
 * memory with another constant takes x86 an instruction less. A macro, for it initialises objects.
 */
#define SLAB_TAG(owner) (MM_HARDEN ? (uint32_t)(owner) << 24 : (uint32_t)(owner) + 1)

static inline unsigned int slab_owner(uint32_t tag)
{
	return MM_HARDEN ? tag >> 24 : tag - 1;
}

/*
 * One page. Everything describes the span whose first page it is; of the other
 * pages only the last one's state and npages mean something. left counts the
 * frees until something must be done: one counter serves all states.
 */
struct slab {
	uintptr_t head;	 /* freed objects: address (above level 0: offset) of the first */
	uintptr_t base;	 /* address of the first byte */
	uint32_t tag;	 /* atomic: owner, above level 0 also the smallest size of the class - 1 */
	uint8_t span;	 /* how many more sizes the class has */
	uint8_t enough;	 /* frees of a full one that make it worth listing */
	uint16_t count;	 /* objects that fit */
	uint32_t factor; /* offset * factor < limit: an object begins there (byte_slab.c) */
	uint32_t limit;	 /* atomic */
	uint32_t left;
	uint32_t npages;
	uint32_t page;	 /* index in its piece */
	uint16_t carved; /* objects that were ever made */
	uint8_t class;
	uint8_t state; /* atomic */
	struct slab *next;
	struct slab *prev;
	void *remote;	    /* atomic: stack of objects that others freed */
	struct slab *inbox; /* the next in the owner's inbox */
#if MM_HARDEN
	uint64_t mark; /* what its free objects bear; no two slabs ever had the same */
#endif
};

_Static_assert(sizeof(struct slab) == (MM_HARDEN ? 88 : 80), "2 % of a page");

/* One piece of memory begins with this; the records of its pages follow, then the index. */
struct slab_piece {
	uintptr_t base; /* of the first page */
	size_t npages;
	struct slab **slabs; /* index: of each page the slab or large block that it belongs to */
	uint64_t *ready;     /* which chunks of the index are, a bit each */
	size_t ready_begin, ready_end; /* all before are, none behind is */
	bool gap;		       /* was there one between the two? */
	size_t used_pages;
	void *given; /* as it was added */
	size_t given_nbytes;
	struct slab_piece *left, *right; /* in the tree by address */
	struct slab_piece *next, *prev;	 /* in the list of all */
};

/* What the index says of a page without a slab: inside a large block or never used; freed. */
extern struct slab byte_slab_no_page, byte_slab_free_page;

static inline struct slab_cpu *cpu_of(struct byte_slab *a, unsigned int cpu)
{
	return &a->room[cpu].cpu;
}

#define SLAB_CHUNK 16u /* pages whose part of the index is made ready at a time */

static inline bool slab_ready(const struct slab_piece *piece, size_t page)
{
	size_t chunk = page / SLAB_CHUNK;

	return piece->ready[chunk / 64] >> (chunk % 64) & 1;
}

/* Others may look at a slab's state and owner at any time. */
static inline unsigned int state_of(const struct slab *s)
{
	return __atomic_load_n(&s->state, __ATOMIC_RELAXED);
}

static inline void set_state(struct slab *s, enum slab_state state)
{
	__atomic_store_n(&s->state, (uint8_t)state, __ATOMIC_RELAXED);
}

/* Make pages of a piece. INVALID_PARAM: no room for one. MEMORY_OVERLAP: some of it is in another.
 */
enum alloc_result byte_slab_span_add(struct byte_slab *a, void *start, size_t nbytes);

/* What a piece of so many pages has before them. */
size_t byte_slab_span_overhead(size_t npages);

/* npages at an alignment (bytes, at least a page), state RUN, no owner. NULL: none. */
struct slab *byte_slab_span_get(struct byte_slab *a, size_t npages, size_t align);
/* The same at the alignment of a page, for a slab: all its pages lead to its record, not the first
 * alone. Pre: npages is at most SLAB_CHUNK. */
struct slab *byte_slab_span_get_indexed(struct byte_slab *a, size_t npages);
void byte_slab_span_put(struct byte_slab *a, struct slab *s);

/* Give the pages behind the first npages back; take the pages that follow, if they are free. */
void byte_slab_span_shrink(struct byte_slab *a, struct slab *s, size_t npages);
bool byte_slab_span_grow(struct byte_slab *a, struct slab *s, size_t npages);

/* A piece without used pages leaves the engine, and the windows of all CPUs. */
bool byte_slab_span_take_free(struct byte_slab *a, void **start, size_t *nbytes);

/* Call f for the first page of every span, piece by piece, until it returns something. */
typedef const void *(*span_fn)(const struct byte_slab *a, const struct slab *s, void *ctx);
const void *byte_slab_span_each(const struct byte_slab *a, span_fn f, void *ctx);

const void *byte_slab_span_check(const struct byte_slab *a);

/* The piece that holds an address, or NULL. */
struct slab_piece *byte_slab_piece_of(const struct byte_slab *a, uintptr_t addr);

/* What the index says of an address in a piece. */
static inline struct slab *slab_in(const struct slab_piece *piece, uintptr_t addr)
{
	size_t page = (addr - piece->base) >> MM_PAGE_SHIFT;

	return slab_ready(piece, page) ? piece->slabs[page] : &byte_slab_no_page;
}

/* What lies around an address of a slab and can be looked up as well. */
struct slab_window byte_slab_window_of(const struct slab_piece *piece, uintptr_t addr);

#endif
