/* SPDX-License-Identifier: MIT */
#include "shadow.h"

static struct byte_alloc *engine(struct shadow *s)
{
	return &s->engine.base;
}

static uint8_t pattern(const struct shadow_block *b, size_t i)
{
	return (uint8_t)(b->seed + i * 7 + (i >> 8));
}

static void fill(const struct shadow_block *b, size_t from)
{
	for (size_t i = from; i < b->size; i++)
		b->p[i] = pattern(b, i);
}

static bool intact(const struct shadow_block *b, size_t nbytes)
{
	for (size_t i = 0; i < nbytes; i++)
		if (b->p[i] != pattern(b, i))
			return false;
	return true;
}

static bool inside_a_piece(const struct shadow *s, const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < SHADOW_PIECES; i++)
		if (s->piece_bytes[i] && p >= s->piece[i] &&
		    p + size <= s->piece[i] + s->piece_bytes[i])
			return true;
	return false;
}

static bool overlaps_another(const struct shadow *s, const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < s->nblocks; i++)
		if (p < s->blocks[i].p + s->blocks[i].size && s->blocks[i].p < p + size)
			return true;
	return false;
}

/*
 * What a block may keep at most: a small request must not keep a large hole.
 * Objects without headers lie at multiples of their size, so they keep an alignment whole.
 */
static size_t fragmentation_bound(size_t size, size_t align)
{
	return 2 * size + (size > 1024 ? 2 * MM_PAGE_SIZE : 128) + (align > 64 ? align : 0);
}

static const char *verify_block(const struct shadow *s, const struct shadow_block *b)
{
	const struct byte_alloc *a = &s->engine.base;
	size_t real = a->ops->block_size(a, b->p);

	if (!intact(b, b->size))
		return "a payload has changed";
	if (real < b->size)
		return "block_size is less than what was asked for";
	if (real > fragmentation_bound(b->size, b->align))
		return "a block keeps far more than was asked for";
	return NULL;
}

static const char *verify_counters(const struct shadow *s)
{
	const struct byte_alloc *a = &s->engine.base;
	size_t given = 0;
	size_t live = 0;

	for (size_t i = 0; i < SHADOW_PIECES; i++)
		given += s->piece_bytes[i];
	for (size_t i = 0; i < s->nblocks; i++)
		live += s->blocks[i].size;
	if (a->ops->total_bytes(a) != given)
		return "total_bytes is not what was given";
	if (a->ops->used_bytes(a) < live)
		return "used_bytes is less than what is live";
	if (!live && a->ops->used_bytes(a))
		return "used_bytes without a live block";
	if (a->ops->used_bytes(a) + a->ops->available_bytes(a) > given)
		return "used and available are more than there is";
	return NULL;
}

const char *shadow_verify(const struct shadow *s)
{
	const struct byte_alloc *a = &s->engine.base;

	for (size_t i = 0; i < s->nblocks; i++) {
		const char *wrong = verify_block(s, &s->blocks[i]);

		if (wrong)
			return wrong;
	}
	if (a->ops->check(a))
		return "the engine's own check fails";
	return verify_counters(s);
}

const char *shadow_alloc(struct shadow *s, size_t size, size_t align)
{
	struct shadow_block *b = &s->blocks[s->nblocks];
	size_t used = engine(s)->ops->used_bytes(engine(s));
	uint8_t *p;

	if (s->nblocks == SHADOW_BLOCKS)
		return NULL;
	p = engine(s)->ops->alloc(engine(s), size, align);
	if (!p)
		return used == engine(s)->ops->used_bytes(engine(s))
			       ? NULL
			       : "a failed allocation changed used_bytes";
	if ((uintptr_t)p & (align - 1))
		return "misaligned block";
	if (!inside_a_piece(s, p, size))
		return "block outside the memory given";
	if (overlaps_another(s, p, size))
		return "block overlaps a live one";
	*b = (struct shadow_block){p, size, align, s->next_seed++};
	fill(b, 0);
	s->nblocks++;
	return NULL;
}

const char *shadow_free(struct shadow *s, size_t i)
{
	struct shadow_block b = s->blocks[i];

	if (!intact(&b, b.size))
		return "payload changed before the free";
	s->blocks[i] = s->blocks[--s->nblocks];
	if (engine(s)->ops->dealloc(engine(s), b.p, b.size, b.align))
		return "a correct free was refused";
	/* Without hardening an engine need not know. */
	if (MM_HARDEN && engine(s)->ops->block_size(engine(s), b.p))
		return "a freed block is live";
	return NULL;
}

const char *shadow_resize(struct shadow *s, size_t i, size_t size)
{
	struct shadow_block *b = &s->blocks[i];
	size_t old = b->size;

	if (!engine(s)->ops->resize(engine(s), b->p, old, b->align, size))
		return NULL;
	if (!intact(b, old < size ? old : size))
		return "resize changed the payload";
	b->size = 0;
	if (!inside_a_piece(s, b->p, size) || overlaps_another(s, b->p, size))
		return "resized block out of bounds";
	b->size = size;
	fill(b, old < size ? old : size);
	return NULL;
}

const char *shadow_add(struct shadow *s, size_t slot, size_t offset, size_t nbytes)
{
	uint8_t *start = s->arena + slot * SHADOW_PIECE_SIZE + offset;
	enum alloc_result r;

	if (s->piece_bytes[slot])
		return NULL;
	r = engine(s)->ops->add_memory(engine(s), start, nbytes);
	if (r == ALLOC_INVALID_PARAM)
		return NULL;
	if (r != ALLOC_OK)
		return "add_memory failed";
	s->piece[slot] = start;
	s->piece_bytes[slot] = nbytes;
	return NULL;
}

const char *shadow_take(struct shadow *s)
{
	void *start;
	size_t nbytes;
	size_t slot;

	if (!engine(s)->ops->take_free(engine(s), &start, &nbytes))
		return NULL;
	for (slot = 0; slot < SHADOW_PIECES; slot++)
		if (s->piece[slot] == start && s->piece_bytes[slot] == nbytes)
			break;
	if (slot == SHADOW_PIECES)
		return "take_free returned what was never given";
	if (overlaps_another(s, start, nbytes))
		return "take_free took a piece with a live block";
	__builtin_memset(start, 0x5a, nbytes);
	s->piece_bytes[slot] = 0;
	return NULL;
}

const char *shadow_init(struct shadow *s, const struct byte_ops *ops, void *arena)
{
	*s = (struct shadow){.arena = arena};
	s->engine.base.ops = ops;
	if (ops->init(engine(s), arena, SHADOW_PIECE_SIZE))
		return "init failed";
	s->piece[0] = arena;
	s->piece_bytes[0] = SHADOW_PIECE_SIZE;
	return shadow_verify(s);
}

/* Mostly small, seldom large: a mantissa and an exponent of two. */
static size_t decode_size(uint8_t a, uint8_t b)
{
	return ((size_t)b + 1) << (a % 16 < 12 ? a % 4 : a % 16 - 7);
}

static const char *step(struct shadow *s, const uint8_t *op)
{
	size_t i = s->nblocks ? op[1] % s->nblocks : 0;
	size_t size = decode_size(op[2], op[3]);

	switch (op[0] % 16) {
	case 0 ... 5:
		return shadow_alloc(s, size, 8);
	case 6:
		return shadow_alloc(s, size, (size_t)1 << op[1] % 21);
	case 7 ... 11:
		return s->nblocks ? shadow_free(s, i) : NULL;
	case 12 ... 13:
		return s->nblocks ? shadow_resize(s, i, size) : NULL;
	case 14:
		return shadow_add(s, op[1] % SHADOW_PIECES, op[2] * 8u,
				  SHADOW_PIECE_SIZE - op[2] * 8u - op[3] * (size_t)256);
	default:
		return shadow_take(s);
	}
}

const char *shadow_step(struct shadow *s, const uint8_t *op)
{
	const char *wrong = step(s, op);

	return wrong ? wrong : shadow_verify(s);
}

const char *shadow_finish(struct shadow *s)
{
	while (s->nblocks) {
		const char *wrong = shadow_free(s, s->nblocks - 1);

		if (wrong)
			return wrong;
	}
	return shadow_verify(s);
}
