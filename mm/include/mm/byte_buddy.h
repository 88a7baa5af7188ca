/* SPDX-License-Identifier: MIT */
/* Buddy: power-of-two blocks, merged on free. See byte_buddy.c for the theory. */
#ifndef MM_BYTE_BUDDY_H
#define MM_BYTE_BUDDY_H

#include <mm/byte_alloc.h>

extern const struct byte_ops byte_buddy_ops;

/* Private to byte_buddy.c; here so that it can be placed in a static. */
struct byte_buddy {
	struct byte_alloc base;
};

#endif
