/* SPDX-License-Identifier: MIT */
/*
 * A split virtqueue. The driver puts chains of buffers in, each with a token of
 * its own, and gets them back in the order in which the device is done.
 *
 * What the device can write (the used ring) is never trusted: a completion
 * counts only if it names a chain that is in flight, and claims no more bytes
 * than the chain can take. What the driver needs to know of its chains is kept
 * in `slot`, which the device cannot reach; the descriptors are written, never
 * read back. A queue that broke the rules stays useless until it is reset.
 *
 * No locks: one user at a time.
 */
#ifndef VIRTIO_VIRTQUEUE_H
#define VIRTIO_VIRTQUEUE_H

#include "virtio.h"

#define VIRTQUEUE_MAX 256u

/* The ring as the device sees it (virtio 1.2, 2.7). */
struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[];
};

struct virtq_used_elem {
	uint32_t id;
	uint32_t len;
};

struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct virtq_used_elem ring[];
};

#define VIRTQ_DESC_NEXT	     1u
#define VIRTQ_DESC_WRITE     2u /* the device writes */
#define VIRTQ_AVAIL_NO_IRQ   1u
#define VIRTQ_USED_NO_NOTIFY 1u

/* What the driver knows of a descriptor; but for next, of the chain that it heads. */
struct virtq_slot {
	void *token;
	uint64_t writable; /* bytes that the device may write */
	uint16_t next;	   /* of the chain, or of the free list */
	uint16_t length;   /* descriptors in the chain */
	bool in_flight;
};

struct virtqueue {
	volatile struct virtq_desc *desc;
	volatile struct virtq_avail *avail;
	volatile struct virtq_used *used;
	uint16_t size; /* a power of two; 0: there is no queue */
	uint16_t nfree;
	uint16_t free_head;
	uint16_t in_flight; /* chains */
	uint16_t next_avail, next_used;
	bool broken;	 /* the device broke the rules */
	bool any_length; /* what it says it wrote means nothing: legacy devices */
	struct dma_info memory;
	struct virtq_slot slot[VIRTQUEUE_MAX];
};

struct virtq_buffer {
	bus_addr_t addr;
	uint32_t len;
	bool device_writes; /* these come last in a chain */
};

struct virtq_completion {
	void *token;
	uint16_t head;
	uint32_t written; /* bytes, at most what the chain can take */
};

/*
 * A queue of at most max descriptors, rounded down to a power of two. Negative: no memory, or max
 * is 0. What was in *q does not matter.
 */
int virtqueue_init(struct virtqueue *q, struct dma_device *dma, uint32_t max);

/* The device is quiet. */
void virtqueue_free(struct virtqueue *q, struct dma_device *dma);

/* All chains are forgotten, as after a reset of the device, which is quiet. */
void virtqueue_reset(struct virtqueue *q);

struct virtq_place virtqueue_place(const struct virtqueue *q);

/* Hand a chain of n buffers to the device. Negative: no room. The device is not notified. */
int virtqueue_add(struct virtqueue *q, const struct virtq_buffer *buf, unsigned int n, void *token);

/* Does the device want to be notified of what was added? */
bool virtqueue_wants_notify(const struct virtqueue *q);

/* Ask for interrupts, or for none: a hint to the device. */
void virtqueue_want_irq(struct virtqueue *q, bool want);

/* Is there anything to fetch? */
bool virtqueue_pending(const struct virtqueue *q);

/*
 * The next chain that the device is done with: 1; 0: none; negative: the device broke
 * the rules, now or before. The chain keeps its descriptors until it is released.
 */
int virtqueue_completed(struct virtqueue *q, struct virtq_completion *out);

/* Pre: the chain was completed, and not released since. */
void virtqueue_release(struct virtqueue *q, uint16_t head);

#endif
