/* SPDX-License-Identifier: MIT */
/* What a shared object exports so that the replayer can measure the allocator in it. One thread
 * calls; heap_init comes first and once in a process. */
#ifndef BENCH_PLUGIN_H
#define BENCH_PLUGIN_H

#include <stddef.h>

#pragma GCC visibility push(default)

/* A short name for reports. */
const char *heap_name(void);

/* The region is page-aligned and reads as zero. Whatever grows with the heap lies inside it; a
 * control structure of fixed size may be static. 0 is success. */
int heap_init(void *region, size_t size);

/* size is at least 1, align a power of two of at least 8. NULL: out of memory. */
void *heap_alloc(size_t size, size_t align);

/* size and align are those of the allocation. */
void heap_free(void *p, size_t size, size_t align);

/* Optional: non-zero when the allocator gets its memory elsewhere and leaves the region alone. */
int heap_external(void);

#pragma GCC visibility pop

#endif
