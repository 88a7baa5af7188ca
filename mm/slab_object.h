/* SPDX-License-Identifier: MIT */
/*
 * Private to the slab engine: the objects of a slab, where they lie and how free ones are linked.
 * The theory of operation stands in byte_slab.c.
 */
#ifndef MM_SLAB_OBJECT_H
#define MM_SLAB_OBJECT_H

#include "slab_span.h"

#define SLAB_MAX_BYTES (16u << MM_PAGE_SHIFT)			       /* no slab is larger */
#define MAX_OBJECTS    256u					       /* nor holds more objects */
#define END	       (MM_HARDEN ? (uintptr_t)0x51ab0e4d51ab0e4d : 0) /* behind the last object */
#define BROKEN	       SIZE_MAX
#define NCLASSES       BYTE_SLAB_CLASSES

/* Objects are anything to their users, words to us. */
typedef uint64_t __attribute__((may_alias)) word_t;

struct slab_class {
	uint16_t size;
	uint8_t npages;
	uint8_t doublings; /* of npages at most: to 16 pages, or MAX_OBJECTS */
};

extern const struct slab_class byte_slab_classes[]; /* NCLASSES of them */

static inline unsigned int owner_of(const struct slab *s)
{
	return slab_owner(__atomic_load_n(&s->tag, __ATOMIC_RELAXED));
}

static inline bool is_slab(const struct slab *s)
{
	unsigned int state = state_of(s);

	return state >= SLAB_ACTIVE && state <= SLAB_FULL;
}

static inline size_t object_size(const struct slab *s)
{
	return byte_slab_classes[s->class].size;
}

/* --- Free objects: a link in the first word, above level 0 a mark in the second ------------- */

/* Level 0 links by addresses, above by offsets, which lead nowhere else when they were written. */
static inline uintptr_t object_link(const struct slab *s, const void *p)
{
	return MM_HARDEN ? (uintptr_t)p - s->base : (uintptr_t)p;
}

static inline void *link_object(const struct slab *s, uintptr_t link)
{
	return (void *)(MM_HARDEN ? s->base + link : link);
}

/* One test finds the end and what cannot be a link. */
static inline bool is_object(uintptr_t link)
{
	return MM_HARDEN ? link < SLAB_MAX_BYTES : link;
}

/* What free objects of a slab bear. */
static inline uint64_t mark_of(const struct slab *s)
{
#if MM_HARDEN
	return s->mark;
#else
	return (void)s, 0;
#endif
}

/* Level 0 cannot tell. */
static inline bool marked_free(const struct slab *s, const void *p)
{
	return MM_HARDEN && ((const word_t *)p)[1] == mark_of(s);
}

static inline void store_link(void *p, uintptr_t link, uint64_t mark)
{
	if (MM_HARDEN)
		((word_t *)p)[1] = mark;
	((word_t *)p)[0] = link;
}

/* --- Geometry ------------------------------------------------------------------------------- */

/*
 * Is there an object at an offset? With factor = floor(2^32 / size) + 1, object
 * number q gives q * unit, where unit = factor * size mod 2^32, and any other
 * offset in the slab at least factor, which is more: so one comparison with
 * unit * (number of objects carved) tells both that an object begins there and
 * that it has been carved. Pre: offset is in the slab.
 */
static inline bool below_limit(const struct slab *s, uintptr_t offset, uint32_t limit)
{
	return (uint32_t)offset * s->factor < limit;
}

static inline bool on_grid(const struct slab *s, uintptr_t offset)
{
	return offset < SLAB_MAX_BYTES &&
	       below_limit(s, offset, __atomic_load_n(&s->limit, __ATOMIC_RELAXED));
}

/* --- byte_slab_check.c ---------------------------------------------------------------------- */

/* The number of objects on the list; BROKEN: what is not free or no object is on it. */
size_t byte_slab_list_length(const struct slab *s);

size_t byte_slab_used_bytes(const struct byte_alloc *base);
void byte_slab_walk(const struct byte_alloc *base, byte_walk_fn fn, void *ctx);
const void *byte_slab_check(const struct byte_alloc *base);

#endif
