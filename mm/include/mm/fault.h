/* SPDX-License-Identifier: MIT */
/*
 * Misuse of memory that an allocator detected: one record, one place that
 * counts and reports it. The call that found it is refused and the machine
 * goes on, or an embedder panics in its hook.
 */
#ifndef MM_FAULT_H
#define MM_FAULT_H

#include <mm/types.h>

enum mm_fault_kind {
	MM_FAULT_NONE,
	MM_FAULT_DOUBLE_FREE,	   /* the block is free already */
	MM_FAULT_FOREIGN,	   /* not memory of this allocator, or the middle of a block */
	MM_FAULT_MISALIGNED,	   /* not aligned as any block is */
	MM_FAULT_WRONG_LAYOUT,	   /* size or alignment are not those of the allocation */
	MM_FAULT_OVERFLOW,	   /* bytes past the end or before the start were written */
	MM_FAULT_WRITE_AFTER_FREE, /* a free block was written */
	MM_FAULT_CORRUPT,	   /* a header, free-list link or bitmap is broken */
	MM_FAULT_KINDS
};

struct mm_fault {
	enum mm_fault_kind kind;
	const char *allocator; /* "TLSF", "slab", "buddy", "pages", "DMA", or a cache's name */
	const void *ptr;
	struct layout layout; /* what the caller said; zero when there is none */
	const void *caller;   /* return address of the public call, or NULL */

	/* MM_DEBUG builds: the block that ptr is in, live or not, and who made it so. Else zero. */
	const void *block;
	size_t block_size;
	const void *allocated_by, *freed_by;
};

const char *mm_fault_name(enum mm_fault_kind kind);

/*
 * Report a fault: keeps it as the last one, counts it, and logs one line unless
 * a test expects it (mm_fault_expect). Any context; never blocks.
 */
void mm_fault_report(const struct mm_fault *fault);

/*
 * Called with each fault when it is kept and logged; one, or NULL. Any context, also under locks of
 * the library: it must not call that.
 */
typedef void (*mm_fault_hook)(const struct mm_fault *fault);
void mm_fault_set_hook(mm_fault_hook hook);

/* For the library: called with each fault before it is kept, to fill in what is known of the block.
 */
typedef void (*mm_fault_tracer)(struct mm_fault *fault);
void mm_fault_set_tracer(mm_fault_tracer tracer);

/* Faults reported since boot, and the last of them (kind NONE when none). */
unsigned long mm_fault_count(void);
struct mm_fault mm_fault_last(void);

/* Tests: while on, faults are counted but not logged. */
void mm_fault_expect(bool on);

#endif
