/* SPDX-License-Identifier: MIT */
/* TLSF: two-level segregated fit, constant time at worst. See byte_tlsf.c for the theory. */
#ifndef MM_BYTE_TLSF_H
#define MM_BYTE_TLSF_H

#include <mm/byte_alloc.h>
#include <mm/port.h>

/* 32 lists for each power of two; below 512 bytes they are 16 bytes apart. Pieces up to 1 TiB. */
#define TLSF_SL_COUNT	32u
#define TLSF_FL_COUNT	33u
#define TLSF_QUARANTINE 32u

extern const struct byte_ops byte_tlsf_ops;

struct tlsf_block;
struct tlsf_piece;

/* Private to byte_tlsf.c; here so that it can be placed in a static. */
struct byte_tlsf {
	struct byte_alloc base;
	uint64_t fl_map; /* bit i: sl_map[i] is not zero */
	uint32_t sl_map[TLSF_FL_COUNT];
	struct tlsf_block *list[TLSF_FL_COUNT * TLSF_SL_COUNT];
	struct tlsf_piece *pieces; /* by address */
	struct tlsf_piece *hot;	   /* the last one that a pointer was found in */
	size_t total;		   /* bytes given */
	size_t capacity;	   /* bytes of all blocks, used or free */
	size_t used;		   /* bytes of used blocks, with headers */
	size_t nfree;		   /* free blocks */
	size_t nfree_pieces;	   /* pieces that are one free block */
#if MM_HARDEN >= 3
	struct tlsf_block *quarantine[TLSF_QUARANTINE]; /* a ring */
	unsigned int quarantine_next;
	unsigned int calls;
#endif
};

#endif
