/* SPDX-License-Identifier: MIT */
/* Block devices, whoever drives them. Sectors are 512 bytes. */
#ifndef DRIVERS_BLK_H
#define DRIVERS_BLK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLK_SECTOR 512u

enum blk_error {
	BLK_OK = 0,
	BLK_IO = -1,	      /* the device says so */
	BLK_UNSUPPORTED = -2, /* the device has no such request */
	BLK_RANGE = -3,	      /* beyond the end, or zero sectors */
	BLK_READ_ONLY = -4,
	BLK_NO_MEMORY = -5,
	BLK_TIMEOUT = -6, /* the device did not answer; it was reset */
	BLK_BROKEN = -7,  /* the device broke the protocol; it was reset */
};
const char *blk_error_text(int error);

struct blk_device {
	char name[8];	     /* "vda", "vdb", ... in the order of their addresses */
	char id[21];	     /* what the device calls itself, "" when it does not */
	uint64_t address;    /* of its registers: decides the order of names */
	uint64_t nsectors;   /* in whole blocks, when it was last used; blk_size() asks */
	uint32_t block_size; /* what the device prefers */
	bool read_only;
	bool polling; /* wait by polling instead of the interrupt; may be changed at any time */
	const struct blk_ops *ops;
	struct blk_device *next; /* private */
};

/*
 * What a driver supplies. Buffers are any kernel memory; calls block until done, and one that comes
 * while another is under way waits for it. Not from an interrupt handler. The size may change, so
 * only the driver can check a request against it, when it is the request's turn.
 */
struct blk_ops {
	int (*read)(struct blk_device *d, uint64_t sector, void *buf, size_t nsectors);
	int (*write)(struct blk_device *d, uint64_t sector, const void *buf, size_t nsectors);
	int (*flush)(struct blk_device *d);
	uint64_t (*size)(struct blk_device *d);
};

/* Registered disks in order; NULL ends. */
struct blk_device *blk_first(void);
struct blk_device *blk_find(const char *name);

/* Gives it its name, by its address, which may rename others. It stays the driver's, for good.
 * While the machine starts, on one CPU. */
void blk_register(struct blk_device *d);

/*
 * Checked against the size of the disk, split as the device needs. 0 or an enum blk_error, after
 * which some of the sectors may have been transferred. A write of a part of a block reads it,
 * changes it and writes it back.
 */
int blk_read(struct blk_device *d, uint64_t sector, void *buf, size_t nsectors);
int blk_write(struct blk_device *d, uint64_t sector, const void *buf, size_t nsectors);

/* Sectors, in whole blocks, as the device says now: disks grow and shrink. */
uint64_t blk_size(struct blk_device *d);

/* What was written is stable when this returns 0; at once on a disk that writes through. */
int blk_flush(struct blk_device *d);

#endif
