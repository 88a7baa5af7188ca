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
	char name[8];	  /* "vda", "vdb", ... in the order of their addresses */
	char id[21];	  /* what the device calls itself, "" when it does not */
	uint64_t address; /* of its registers: decides the order of names */
	uint64_t nsectors;
	uint32_t block_size; /* what the device prefers */
	bool read_only;
	bool polling; /* wait by polling instead of the interrupt; may be changed at any time */
	const struct blk_ops *ops;
	struct blk_device *next; /* private */
};

/* What a driver supplies. Buffers are any kernel memory; calls block until done. */
struct blk_ops {
	int (*read)(struct blk_device *d, uint64_t sector, void *buf, size_t nsectors);
	int (*write)(struct blk_device *d, uint64_t sector, const void *buf, size_t nsectors);
	int (*flush)(struct blk_device *d);
};

/* Registered disks in order; NULL ends. */
struct blk_device *blk_first(void);
struct blk_device *blk_find(const char *name);
void blk_register(struct blk_device *d); /* gives it its name */

/* Checked against the size of the disk, split as the device needs. 0 or an enum blk_error. */
int blk_read(struct blk_device *d, uint64_t sector, void *buf, size_t nsectors);
int blk_write(struct blk_device *d, uint64_t sector, const void *buf, size_t nsectors);
int blk_flush(struct blk_device *d);

#endif
