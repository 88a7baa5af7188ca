/* SPDX-License-Identifier: MIT */
/* What a device can reach and what it demands. Private to dma/. */
#ifndef DMA_DEVICE_H
#define DMA_DEVICE_H

#include <dma/dma.h>

/* The device of the calls that name none. Without windows, hence unusable, until it is set. */
struct dma_device *dma_default_device(void);

/* An allocation as it must be made so that the device can take it. */
struct dma_demand {
	struct layout layout; /* so aligned that it crosses no boundary */
	size_t npages;	      /* 0: less than a page */
	size_t least_align;   /* it may cross none all the same */
	size_t bus_align;     /* of the address that the device sees */
};

/* False: the layout or the device is not valid, or the device can never take so much. */
bool dma_device_demand(const struct dma_device *dev, struct layout l, struct dma_demand *out);

/* Does memory keep all that the device demands? If so, *bus is where the device sees it. */
bool dma_device_fits(const struct dma_device *dev, const void *p, const struct dma_demand *d,
		     bus_addr_t *bus);

/* Does the device reach all of it? */
bool dma_device_reaches(const struct dma_device *dev, virt_addr_t va, size_t nbytes);

/*
 * Below which physical address memory must lie to be reached through window i
 * (0: no limit). False: nothing can be reached through it.
 */
bool dma_device_limit(const struct dma_device *dev, unsigned int i, uint64_t *limit);

#endif
