/* SPDX-License-Identifier: MIT */
/* A disk behind a virtio transport. The driver finds it by itself; tests open one on a fake. */
#ifndef VIRTIO_VIRTIO_BLK_H
#define VIRTIO_VIRTIO_BLK_H

#include <drivers/blk.h>

#include "virtqueue.h"

/* What the device reads and writes around the data of a request. */
struct virtio_blk_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
	uint8_t status;
};

struct virtio_blk {
	struct blk_device blk;
	struct virtio_transport *transport;
	struct virtqueue queue;
	struct irq_action irq;
	bool has_irq;
	bool irq_came;	     /* during this request: set by the interrupt handler */
	uint8_t late;	     /* requests in a row that were done, and no interrupt came */
	bool waits_for_irq;  /* the request under way */
	bool config_changed; /* set by the interrupt handler */
	uint32_t generation; /* of the configuration that was read */
	bool dead;	     /* a reset did not help: every request fails */
	bool has_flush;
	uint32_t busy; /* one request at a time */

	size_t segment; /* largest buffer of a chain, bytes */
	size_t chunk;	/* largest request, bytes: whole blocks of the disk */

	/* Coherent memory. */
	struct dma_info header; /* struct virtio_blk_header */
	struct dma_info data;	/* through which all data passes */
};

/* Start the device and ask it who it is. NULL (logged): it cannot be used. Not registered yet. */
struct virtio_blk *virtio_blk_open(struct virtio_transport *t);

/* Stop it and give its memory back. Memory of a device that does not stop is not given back. */
void virtio_blk_close(struct virtio_blk *b);

#endif
