/* SPDX-License-Identifier: MIT */
/*
 * A virtio block device made of memory, which answers when it is notified, and
 * which can be told to break any rule.
 */
#ifndef VIRTIO_TEST_FAKE_DISK_H
#define VIRTIO_TEST_FAKE_DISK_H

#include "../virtqueue.h"

#define FAKE_SECTORS 300u /* more than one request takes */
#define FAKE_ID	     "fake disk"

#define FAKE_F_SIZE_MAX (1u << 1)
#define FAKE_F_SEG_MAX	(1u << 2)
#define FAKE_F_RO	(1u << 5)
#define FAKE_F_BLK_SIZE (1u << 6)
#define FAKE_F_FLUSH	(1u << 9)

enum fake_fault {
	FAKE_GOOD,
	FAKE_IO_ERROR,
	FAKE_UNSUPPORTED,
	FAKE_NO_STATUS,	 /* completes without writing a status */
	FAKE_BAD_STATUS, /* writes one that does not exist */
	FAKE_ID_RANGE,	 /* completes a descriptor that the queue does not have */
	FAKE_ID_FREE,	 /* ... that is not in flight */
	FAKE_ID_MIDDLE,	 /* ... that does not head its chain */
	FAKE_TWICE,	 /* completes the same chain twice */
	FAKE_LONG,	 /* claims to have written more than there is room for */
	FAKE_SHORT,	 /* claims to have written less than it was asked for */
	FAKE_INDEX_JUMP, /* the used index leaps ahead */
	FAKE_INDEX_BACK, /* ... goes back */
	FAKE_SILENT,	 /* never answers */
	FAKE_GIVES_UP,	 /* ... but says that it needs a reset */
	FAKE_TOTAL,	 /* takes what it read for written, as some legacy devices do */
};

struct fake_disk {
	struct virtio_transport transport;

	/* What it is; to be set before it is opened. */
	uint64_t offered;
	uint32_t queue_max;
	uint32_t seg_max, size_max, blk_size;
	uint64_t capacity;
	bool refuses_features, ignores_reset, keeps_changing, gives_irq;
	bool grows_in_between; /* by a sector, when one half of its size was read */

	/* What it does. */
	enum fake_fault fault;
	bool heals; /* a reset ends the fault */

	/* What was seen of the driver. */
	unsigned int resets, requests, flushes, broken_rules;
	uint64_t accepted;
	uint32_t largest_segment, most_segments;

	/* private */
	uint8_t status;
	bool started;
	struct virtq_place place;
	uint16_t next_avail, next_used;
	uint32_t generation;
	uint64_t told_capacity; /* of which an interrupt told, or that was there at first */
	uint32_t why;		/* it interrupted */
	struct irq_action *action;
	uint8_t *sectors;
};

/* A good disk of FAKE_SECTORS sectors with a pattern on it. False: no memory. */
bool fake_disk_init(struct fake_disk *f);

/* Another size, of which nobody is told: an interrupt comes with the next request, or by hand. */
void fake_resize(struct fake_disk *f, uint64_t capacity);

/* It interrupts, for what `why` says. */
void fake_interrupt(struct fake_disk *f);

/* What is on it at first. */
static inline uint8_t fake_pattern(size_t offset)
{
	return (uint8_t)(offset * 7 + (offset >> 9));
}

#endif
