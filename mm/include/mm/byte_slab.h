/* SPDX-License-Identifier: MIT */
/* Slab: header-less objects in size classes, per-CPU. See byte_slab.c for the theory. */
#ifndef MM_BYTE_SLAB_H
#define MM_BYTE_SLAB_H

#include <mm/byte_alloc.h>

extern const struct byte_ops byte_slab_ops;

/* Private to byte_slab.c; here so that it can be placed in a static. */
struct byte_slab {
	struct byte_alloc base;
};

#endif
