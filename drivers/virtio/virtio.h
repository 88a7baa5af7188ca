/* SPDX-License-Identifier: MIT */
/*
 * virtio as a driver of a device sees it: a transport, whatever carries it
 * (memory-mapped registers, PCI, a fake in a test), and the start of a device,
 * which is the same on all of them.
 *
 * Only little-endian CPUs run Mica, so legacy devices, which use the CPU's byte
 * order, and modern ones agree.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <dma/dma.h>
#include <kernel/irq.h>

#define VIRTIO_ID_BLOCK 2u

enum virtio_status {
	VIRTIO_ACKNOWLEDGE = 1,
	VIRTIO_DRIVER_FOUND = 2,
	VIRTIO_DRIVER_OK = 4,
	VIRTIO_FEATURES_OK = 8,
	VIRTIO_NEEDS_RESET = 64, /* the device cannot go on (virtio 1.2, 2.1.2) */
	VIRTIO_FAILED = 128,
};

#define VIRTIO_F_VERSION_1	 (1ull << 32)
#define VIRTIO_F_ACCESS_PLATFORM (1ull << 33)
#define VIRTIO_F_ORDER_PLATFORM	 (1ull << 36)

/* What an interrupt is about. */
#define VIRTIO_IRQ_QUEUE  1u
#define VIRTIO_IRQ_CONFIG 2u

/* How long a device may take to answer, by default. */
#define VIRTIO_ANSWER_MS 10000u

/* Where the parts of a ring are. Legacy devices are told the first only. */
struct virtq_place {
	bus_addr_t desc, avail, used;
	uint32_t size;
};

struct virtio_transport;

struct virtio_transport_ops {
	uint8_t (*status)(struct virtio_transport *t);
	void (*set_status)(struct virtio_transport *t, uint8_t status); /* 0: reset */
	uint64_t (*features)(struct virtio_transport *t);
	void (*set_features)(struct virtio_transport *t, uint64_t features);
	uint32_t (*config)(struct virtio_transport *t, uint32_t offset);   /* a 32-bit field */
	uint32_t (*config_generation)(struct virtio_transport *t);	   /* legacy: constant */
	uint32_t (*queue_max)(struct virtio_transport *t, uint32_t queue); /* 0: none */
	int (*queue_start)(struct virtio_transport *t, uint32_t queue,
			   const struct virtq_place *place);
	void (*queue_notify)(struct virtio_transport *t, uint32_t queue);
	/* What the device interrupted for (VIRTIO_IRQ_*); it stops interrupting. */
	uint32_t (*ack_irq)(struct virtio_transport *t);
	/* Negative: there is no interrupt, so one has to poll. */
	int (*irq_connect)(struct virtio_transport *t, struct irq_action *action);
	void (*irq_disconnect)(struct virtio_transport *t, struct irq_action *action);
};

struct virtio_transport {
	const struct virtio_transport_ops *ops;
	const char *name;
	uint64_t address; /* of the device; puts devices in order */
	uint32_t device_id;
	bool legacy;
	uint32_t answer_ms; /* how long the device may take to answer */
	struct dma_device dma;
};

/*
 * Drivers of devices, in a section of their own, so that a transport knows none
 * of them. probe: 0, and the transport is the driver's; else negative, and the
 * reason was logged.
 */
struct virtio_driver {
	const char *name;
	uint32_t device_id;
	int (*probe)(struct virtio_transport *t);
};

#define VIRTIO_DRIVER(id)                    \
	static const struct virtio_driver id \
		__attribute__((section("virtio_drivers"), used, aligned(8)))

/* Offer a device to its driver. Negative: there is none, or it could not start the device. */
int virtio_probe(struct virtio_transport *t);

/* Stop the device. Negative: it does not answer, and may still use its memory. */
int virtio_reset(struct virtio_transport *t);

/*
 * Reset, then agree on those features of `wanted` that the device offers; the
 * queues come next. Negative (logged): no answer, or the device refuses.
 */
int virtio_negotiate(struct virtio_transport *t, uint64_t wanted, uint64_t *agreed);

/* The queues are set up: let the device work. */
void virtio_go(struct virtio_transport *t);

/* A 64-bit field of the configuration, of one moment. Negative: it does not stop changing. */
int virtio_config64(struct virtio_transport *t, uint32_t offset, uint64_t *value);

#endif
