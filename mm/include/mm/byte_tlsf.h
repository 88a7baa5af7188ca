/* SPDX-License-Identifier: MIT */
/* TLSF: two-level segregated fit, constant time at worst. See byte_tlsf.c for the theory. */
#ifndef MM_BYTE_TLSF_H
#define MM_BYTE_TLSF_H

#include <mm/byte_alloc.h>

extern const struct byte_ops byte_tlsf_ops;

/* Private to byte_tlsf.c; here so that it can be placed in a static. */
struct byte_tlsf {
	struct byte_alloc base;
};

#endif
