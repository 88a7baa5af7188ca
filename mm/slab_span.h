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
	SLAB_ACTIVE,   /* a CPU allocates from it; left = used + 1 */
	SLAB_PARTIAL,  /* listed by its CPU, or on its way to one; left = used */
	SLAB_FULL,     /* on no list; left = 1 */
	SLAB_RETURNED, /* empty, on its way to the span manager */
	SLAB_LOST,     /* corrupt: isolated, never used again */
};

#define SLAB_NO_OWNER 0xffffu
#define SLAB_GIVEN    0x100u /* with a CPU: it will be the owner when it takes the gift */

/*
 * One page. Everything describes the span whose first page it is; in inner
 * pages only state, owner and back mean something. left counts the frees until
 * something must be done: one counter serves all states.
 */
struct slab {
	uintptr_t head; /* first free object: NO_OBJECT, or its address (above level 0: offset) */
	uint32_t left;
	uint16_t owner; /* CPU, or MM_MAX_CPUS for the locked calls, or a SLAB_... below; atomic */
	uint8_t class;
	uint8_t state;
	uint64_t key;	 /* encodes the links */
	uintptr_t base;	 /* address of the first byte */
	uint32_t factor; /* offset * factor < limit: an object begins there (byte_slab.c) */
	uint32_t limit;	 /* atomic */
	uint16_t least;	 /* smallest size of the class, and how many more there are */
	uint16_t sizes;
	uint32_t npages : 28;
	uint32_t back : 4; /* inner page of a slab: pages to the first one */
	struct slab *next;
	struct slab *prev;
};

_Static_assert(sizeof(struct slab) == 64, "the record is found by shifts");

/* Others may look at a slab's state and owner at any time. */
static inline unsigned int state_of(const struct slab *s)
{
	return __atomic_load_n(&s->state, __ATOMIC_RELAXED);
}

static inline void set_state(struct slab *s, enum slab_state state)
{
	__atomic_store_n(&s->state, (uint8_t)state, __ATOMIC_RELAXED);
}

/* Make pages of a piece. INVALID_PARAM: no room for one; NO_MEMORY: too many pieces. */
enum alloc_result slab_span_add(struct byte_slab *a, void *start, size_t nbytes);

/* npages at an alignment (bytes, at least a page), state RUN, no owner. NULL: none. */
struct slab *slab_span_get(struct byte_slab *a, size_t npages, size_t align);
void slab_span_put(struct byte_slab *a, struct slab *s);

/* Give the pages behind the first npages back; take the pages that follow, if they are free. */
void slab_span_shrink(struct byte_slab *a, struct slab *s, size_t npages);
bool slab_span_grow(struct byte_slab *a, struct slab *s, size_t npages);

/* A piece without used pages leaves the engine; its CPUs' windows are the caller's business. */
bool slab_span_take_free(struct byte_slab *a, struct slab_piece *out);

const void *slab_span_check(const struct byte_slab *a);

/* The piece that holds an address, or NULL. Right without a lock when a live block is there. */
const struct slab_piece *slab_piece_of(const struct byte_slab *a, uintptr_t addr);

/* The record of the page at addr. Pre: the address is in the piece. */
static inline struct slab *slab_page_of(const struct slab_piece *piece, uintptr_t addr)
{
	return piece->meta + ((addr - piece->base) >> MM_PAGE_SHIFT);
}

#endif
