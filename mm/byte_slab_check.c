/* SPDX-License-Identifier: MIT */
/* The slab engine: what is in use, a walk over all objects, a check of every invariant. */
#include "slab_object.h"

size_t byte_slab_list_length(const struct slab *s)
{
	uintptr_t link = s->head;
	size_t n = 0;

	while (link != END) {
		const word_t *p = link_object(s, link);

		if (!on_grid(s, (uintptr_t)p - s->base) || n++ == s->carved)
			return BROKEN;
		if (MM_HARDEN && !marked_free(s, p))
			return BROKEN;
		link = (uintptr_t)p[0];
	}
	return n;
}

/* Objects on a stack of remote frees. */
static size_t stack_length(const struct slab *s, const void *p)
{
	size_t n = 0;

	for (; p && on_grid(s, (uintptr_t)p - s->base) && n <= MAX_OBJECTS; n++) {
		if (MM_HARDEN && !marked_free(s, p))
			break;
		p = (const void *)(uintptr_t) * (const word_t *)p;
	}
	return n;
}

/* Objects that are neither on the slab's list nor on its stack. */
static size_t objects_out(const struct slab *s)
{
	size_t n = byte_slab_list_length(s);

	if (n == BROKEN)
		return 0;
	return s->carved - n - stack_length(s, __atomic_load_n(&s->remote, __ATOMIC_RELAXED));
}

static const void *sum_span(const struct byte_slab *a, const struct slab *s, void *ctx)
{
	size_t *used = ctx;

	(void)a;
	if (state_of(s) == SLAB_RUN)
		*used += s->npages * MM_PAGE_SIZE;
	else if (is_slab(s))
		*used += objects_out(s) * object_size(s);
	return NULL;
}

/* What a CPU holds that is nobody's: what it is just freeing, and its quarantine. */
static size_t held_bytes(const struct slab_cpu *c)
{
	size_t held = 0;

	if (c->pending)
		held += stack_length(c->pending_slab, c->pending) * object_size(c->pending_slab);
	for (unsigned int i = 0; i != BYTE_SLAB_WAITING; i++)
		held += c->quarantine[i].p ? object_size(c->quarantine[i].slab) : 0;
	return held;
}

/* Exact when no CPU is in a local call. */
size_t byte_slab_used_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	size_t used = 0;

	byte_slab_span_each(a, sum_span, &used);
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		used -= held_bytes(&a->room[i].cpu);
	return used;
}

/* One bit for each free object of a slab. */
struct free_map {
	uint64_t bits[MAX_OBJECTS / 64];
};

/* Add an object. False: it is there already, or is none. */
static bool map_add(struct free_map *map, const struct slab *s, const void *p)
{
	size_t offset = (uintptr_t)p - s->base, i = offset / object_size(s);

	if (!on_grid(s, offset) || map->bits[i / 64] >> (i % 64) & 1)
		return false;
	map->bits[i / 64] |= (uint64_t)1 << (i % 64);
	return true;
}

static bool map_stack(struct free_map *map, const struct slab *s, const void *p, size_t n)
{
	for (; n; n--) {
		if (!map_add(map, s, p))
			return false;
		p = (const void *)(uintptr_t) * (const word_t *)p;
	}
	return true;
}

/* All that is free in a slab: its list, and what others freed. False: something is broken. */
static bool map_slab(struct free_map *map, const struct slab *s)
{
	const void *top = __atomic_load_n(&s->remote, __ATOMIC_RELAXED);

	if (byte_slab_list_length(s) == BROKEN || !map_stack(map, s, top, stack_length(s, top)))
		return false;
	for (uintptr_t link = s->head; link != END;) {
		const void *p = link_object(s, link);

		if (!map_add(map, s, p))
			return false;
		link = (uintptr_t) * (const word_t *)p;
	}
	return true;
}

struct walk {
	byte_walk_fn fn;
	void *ctx;
};

static void walk_slab(const struct slab *s, const struct walk *w)
{
	struct free_map map = {{0}};
	size_t size = object_size(s);
	const char *p = (const char *)s->base, *end = p + s->npages * MM_PAGE_SIZE;

	if (!map_slab(&map, s))
		return;
	for (size_t i = 0; i < s->carved; i++, p += size)
		w->fn(w->ctx, p, size, !(map.bits[i / 64] >> (i % 64) & 1) && !marked_free(s, p));
	if (p < end)
		w->fn(w->ctx, p, (size_t)(end - p), false);
}

static const void *walk_span(const struct byte_slab *a, const struct slab *s, void *ctx)
{
	const struct walk *w = ctx;

	(void)a;
	if (is_slab(s))
		walk_slab(s, w);
	else
		w->fn(w->ctx, (const void *)s->base, s->npages * MM_PAGE_SIZE,
		      state_of(s) == SLAB_RUN || state_of(s) == SLAB_LOST);
	return NULL;
}

void byte_slab_walk(const struct byte_alloc *base, byte_walk_fn fn, void *ctx)
{
	struct walk w = {fn, ctx};

	byte_slab_span_each((const struct byte_slab *)base, walk_span, &w);
}

/* Is the count of what is out right? An active slab has none. */
static bool count_intact(const struct byte_slab *a, const struct slab *s)
{
	switch (state_of(s)) {
	case SLAB_PARTIAL:
		return byte_slab_list_length(s) + s->left == s->carved &&
		       (s->left || a->room[owner_of(s)].cpu.partial[s->class] == s);
	case SLAB_FULL:
		return s->carved == s->count && byte_slab_list_length(s) + s->left == s->enough;
	default:
		return true;
	}
}

static const void *check_span(const struct byte_slab *a, const struct slab *s, void *ctx)
{
	struct free_map map = {{0}};

	(void)ctx;
	if (!is_slab(s))
		return NULL;
	if (s->class >= NCLASSES || s->carved > s->count || !map_slab(&map, s) ||
	    !count_intact(a, s))
		return (const void *)s->base;
	return NULL;
}

const void *byte_slab_check(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	const void *bad = byte_slab_span_check(a);

	return bad ? bad : byte_slab_span_each(a, check_span, NULL);
}
