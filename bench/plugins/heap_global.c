/* SPDX-License-Identifier: MIT */
/* The global allocator over the build's engine (ALLOC=), behind the replay tool's heap_* interface.
 */
#include <mm/global.h>

#include "../host/plugin.h"

const char *heap_name(void)
{
	return global_allocator_name(global_allocator());
}

int heap_init(void *region, size_t size)
{
	return global_init(virt_addr(region), size);
}

void *heap_alloc(size_t size, size_t align)
{
	return global_alloc_bytes(size, align);
}

void heap_free(void *p, size_t size, size_t align)
{
	(void)global_dealloc_bytes(p, size, align);
}
