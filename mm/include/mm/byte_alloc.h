/* SPDX-License-Identifier: MIT */
/*
 * The byte allocator interface: one table of operations, three engines
 * (byte_tlsf, byte_slab, byte_buddy).
 *
 * An engine's own structure starts with a struct byte_alloc whose ops pointer
 * its initialiser sets; everything else zero is an engine without memory. An
 * engine takes no lock and calls nobody but the port: its user serialises all
 * calls, except alloc_local and dealloc_local, which need only a pinned CPU. The
 * others must be made without a pin, for they may pin the CPU themselves.
 * Sizes are bytes. Memory given to an engine must be writable, and stays the
 * engine's until take_free returns it.
 */
#ifndef MM_BYTE_ALLOC_H
#define MM_BYTE_ALLOC_H

#include <mm/fault.h>
#include <mm/types.h>

/* No engine takes memory above this: so sums that go somewhat beyond a piece do not wrap. */
#define BYTE_ALLOC_TOP (UINTPTR_MAX - ((uintptr_t)64 << 10))

static inline bool byte_alloc_in_reach(const void *start, size_t nbytes)
{
	return (uintptr_t)start <= BYTE_ALLOC_TOP && nbytes <= BYTE_ALLOC_TOP - (uintptr_t)start;
}

struct byte_ops;

struct byte_alloc {
	const struct byte_ops *ops;
	bool in_parts; /* its user calls settle: alloc and take_free do not do it all at once */
};

/* What a walk shows: every block of every piece of memory, used or free, in each in address order.
 */
typedef void (*byte_walk_fn)(void *ctx, const void *block, size_t nbytes, bool used);

struct byte_ops {
	const char *name; /* "TLSF", "slab", "buddy" */

	/*
	 * Start with one piece of memory. INVALID_PARAM when it is too small to
	 * hold anything. Ends are rounded inwards as the engine needs.
	 */
	enum alloc_result (*init)(struct byte_alloc *a, void *start, size_t nbytes);

	/*
	 * Add another piece; never merged with a neighbour, so that it can be taken back whole.
	 * INVALID_PARAM: too small, or above BYTE_ALLOC_TOP; MEMORY_OVERLAP: with another. Then
	 * nothing has changed.
	 */
	enum alloc_result (*add_memory)(struct byte_alloc *a, void *start, size_t nbytes);

	/*
	 * Pre: layout_valid. NULL when nothing fits, with in_parts even if something would once
	 * what is held back is merged, or if one looked longer; then no state has changed.
	 */
	void *(*alloc)(struct byte_alloc *a, size_t size, size_t align);

	/*
	 * Give back. Pre: layout_valid. Any pointer may be passed; misuse is found as the
	 * hardening level says, nothing is changed and the kind of fault is returned.
	 */
	enum mm_fault_kind (*dealloc)(struct byte_alloc *a, void *p, size_t size, size_t align);

	/*
	 * Change the size where it is. Pre: layout_valid with either size. True when p now holds
	 * new_size bytes; false (nothing changed) when it would have to move.
	 */
	bool (*resize)(struct byte_alloc *a, void *p, size_t old_size, size_t align,
		       size_t new_size);

	/*
	 * The fast path, or NULL members for an engine without one. Called with
	 * this CPU pinned and no lock. alloc_local returns NULL, dealloc_local
	 * MM_FAULT_KINDS, when the locked call must be made instead.
	 */
	void *(*alloc_local)(struct byte_alloc *a, size_t size, size_t align, unsigned int cpu);
	enum mm_fault_kind (*dealloc_local)(struct byte_alloc *a, void *p, size_t size,
					    size_t align, unsigned int cpu);

	/*
	 * Memory that a piece given with add_memory must have so that `size` at
	 * `align` is sure to fit into it when it is fresh.
	 */
	size_t (*grow_size)(const struct byte_alloc *a, size_t size, size_t align);

	/*
	 * Engines hold back what was freed, unmerged, for the next request of that size. Merge a
	 * part of it, in constant time; the first part is 0. The part after it, or 0 when all that
	 * was freed before the first part is merged. Of slab, what the CPU that calls can do for
	 * itself.
	 */
	unsigned int (*settle)(struct byte_alloc *a, unsigned int part);

	/*
	 * Detach one wholly free piece (exactly as it was added) and return it.
	 * False when there is none; with in_parts, what is held back counts as used.
	 */
	bool (*take_free)(struct byte_alloc *a, void **start, size_t *nbytes);

	/* Bytes the block at p really holds (at least what was asked for); 0 for no live block. */
	size_t (*block_size)(const struct byte_alloc *a, const void *p);

	/* total: all memory given; used: in live blocks, with rounding; available: the rest that
	 * can be handed out. */
	size_t (*total_bytes)(const struct byte_alloc *a);
	size_t (*used_bytes)(const struct byte_alloc *a);
	size_t (*available_bytes)(const struct byte_alloc *a);

	/* Walk all blocks. */
	void (*walk)(const struct byte_alloc *a, byte_walk_fn fn, void *ctx);

	/* Verify every invariant; the address of the first thing found broken, else NULL. Slow. */
	const void *(*check)(const struct byte_alloc *a);
};

#endif
