/* SPDX-License-Identifier: MIT */
/*
 * A shadow of a byte allocator: it knows every live block and what is written
 * in it, decodes bytes into operations, and verifies all payloads, the counters and
 * the engine's own invariants around every one of them. The property test feeds
 * it random bytes, the fuzzers feed it what finds new branches.
 */
#ifndef MM_TEST_SHADOW_H
#define MM_TEST_SHADOW_H

#include <mm/byte_buddy.h>
#include <mm/byte_slab.h>
#include <mm/byte_tlsf.h>

#define SHADOW_BLOCKS	  96
#define SHADOW_PIECES	  4
#define SHADOW_PIECE_SIZE ((size_t)256 * 1024)
#define SHADOW_OP_BYTES	  4 /* one operation */
#define SHADOW_ARENA	  (SHADOW_PIECES * SHADOW_PIECE_SIZE)

union byte_engine {
	struct byte_alloc base;
	struct byte_tlsf tlsf;
	struct byte_slab slab;
	struct byte_buddy buddy;
};

struct shadow_block {
	uint8_t *p;
	size_t size, align;
	uint8_t seed;
};

struct shadow {
	union byte_engine engine;
	struct shadow_block blocks[SHADOW_BLOCKS];
	size_t nblocks;
	uint8_t *arena; /* one slot per piece */
	uint8_t *piece[SHADOW_PIECES];
	size_t piece_bytes[SHADOW_PIECES]; /* 0: the slot is not given */
	uint8_t next_seed;
};

/* All return NULL, or what is wrong. Pre: SHADOW_ARENA bytes of page-aligned memory. */
const char *shadow_init(struct shadow *s, const struct byte_ops *ops, void *arena);

/* Do the operation that SHADOW_OP_BYTES bytes stand for, then verify everything. */
const char *shadow_step(struct shadow *s, const uint8_t *op);

/* Free everything, and expect counters and memory as at the start. */
const char *shadow_finish(struct shadow *s);

/* Single operations. An allocation that fails for want of memory is no error. */
const char *shadow_alloc(struct shadow *s, size_t size, size_t align);
const char *shadow_free(struct shadow *s, size_t i);
const char *shadow_resize(struct shadow *s, size_t i, size_t size);
const char *shadow_add(struct shadow *s, size_t slot, size_t offset, size_t nbytes);
const char *shadow_take(struct shadow *s);
const char *shadow_verify(const struct shadow *s);

#endif
