/* SPDX-License-Identifier: MIT */
/*
 * What memory there is and what of it is free: the banks of the device tree,
 * minus /memreserve/, /reserved-memory, the initrd, and what the caller names
 * (kernel image, the tree itself). Any number of banks and reservations, in
 * any order, overlapping or not; no allocation.
 *
 *	struct mem_range r = {0};
 *
 *	while (memmap_next(map, MEMMAP_FREE, &r))
 *		use r.start up to r.end
 *
 * A view gives whole pages in rising order. Memory is rounded inwards, and no two
 * of its ranges touch; what is reserved is rounded outwards.
 */
#ifndef KERNEL_MEMMAP_H
#define KERNEL_MEMMAP_H

#include <stdbool.h>
#include <stdint.h>

#include <kernel/fdt.h>
#include <mm/types.h>

/*
 * The most ranges that are held at a time. A tree with more is read again when
 * they are used up.
 */
#define MEMMAP_WINDOW 64u

/* A machine with less free memory than this is of no use. */
#define MEMMAP_MIN_FREE ((uint64_t)1 << 20)

enum memmap_error {
	MEMMAP_OK = 0,
	MEMMAP_NO_MEMORY = -1, /* the tree has no usable memory node */
	MEMMAP_TOO_SMALL = -2, /* less than MEMMAP_MIN_FREE is free */
};

enum memmap_view {
	MEMMAP_RAM,	 /* all banks */
	MEMMAP_MAPPABLE, /* banks minus what must not be mapped */
	MEMMAP_FREE,	 /* banks minus everything reserved */
	MEMMAP_RESERVED, /* reserved, with or without no-map, in a bank or not */
	MEMMAP_NO_MAP,	 /* reserved and not to be mapped, in a bank or not */
};

/* Physical memory from start up to, not including, end. */
struct mem_range {
	phys_addr_t start;
	phys_addr_t end;
};

/* Bytes of one kind, from start up to end. */
struct memmap_piece {
	uint64_t start;
	uint64_t end;
	uint32_t kind;
};

/* Private to memmap.c, but for its size. */
struct memmap {
	const struct fdt *fdt;
	const struct mem_range *also_reserved;
	uint32_t nalso;
	uint64_t limit;
	/* All pieces between `from` and `until`, by start; merged within a kind. */
	uint64_t from;
	uint64_t until;
	uint32_t npieces;
	struct memmap_piece pieces[MEMMAP_WINDOW];
};

/*
 * Read the map. `reserved` are n further ranges to keep out, and stay where
 * they are as long as the map is used. RAM at or above `limit` is ignored: it
 * is what paging can reach, UINT64_MAX for all. The map is for one CPU at a
 * time. Views work, and can be printed, even after an error.
 */
int memmap_init(struct memmap *map, const struct fdt *fdt, const struct mem_range *reserved,
		uint32_t n, phys_addr_t limit);

/* What is wrong, in words. */
const char *memmap_error_text(int error);

/* The first range of a view at or above r->end. All zero to begin. */
bool memmap_next(struct memmap *map, enum memmap_view view, struct mem_range *r);

/* The largest range of a view; false when the view is empty. */
bool memmap_largest(struct memmap *map, enum memmap_view view, struct mem_range *out);

/* All bytes of a view. */
uint64_t memmap_total(struct memmap *map, enum memmap_view view);

#endif
