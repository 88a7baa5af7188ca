/* SPDX-License-Identifier: MIT */
/* The process's own malloc behind the replayer's interface: the C library's, or with LD_PRELOAD
 * another (jemalloc, mimalloc). */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>

#include "../host/plugin.h"

const char *heap_name(void)
{
	return "malloc";
}

int heap_init(void *region, size_t size)
{
	(void)region;
	(void)size;
	return 0;
}

void *heap_alloc(size_t size, size_t align)
{
	return align <= 16 ? malloc(size) : memalign(align, size);
}

void heap_free(void *p, size_t size, size_t align)
{
	(void)size;
	(void)align;
	free(p);
}

int heap_external(void)
{
	return 1;
}
