/* SPDX-License-Identifier: MIT */
/*
 * Addresses as devices see them. A device looks at memory through windows: in
 * each, bus and physical addresses differ by a constant. Its mask says how far
 * it can count. Everything here is arithmetic on values that a device tree
 * gave, so every sum is checked.
 */
#include <mm/port.h>

#include "device.h"

static struct dma_device default_device = {.name = "default"};

struct dma_device *dma_default_device(void)
{
	return &default_device;
}

void dma_device_init(struct dma_device *dev, const char *name)
{
	*dev = (struct dma_device){
		.name = name,
		.window = {{.size = UINT64_MAX}},
		.nwindows = 1,
		.mask = UINT64_MAX,
		.align = 1,
		.coherent = true,
	};
}

/* --- Addresses --------------------------------------------------------------- */

/* Are [at, at + nbytes) within [start, start + size)? Its offset, then. */
static bool offset_within(uint64_t at, uint64_t nbytes, uint64_t start, uint64_t size,
			  uint64_t *offset)
{
	if (at < start || at - start > size || nbytes > size - (at - start))
		return false;
	*offset = at - start;
	return true;
}

bool dma_phys_to_bus(const struct dma_device *dev, phys_addr_t pa, uint64_t nbytes, bus_addr_t *out)
{
	for (unsigned int i = 0; nbytes && i < dev->nwindows; i++) {
		const struct dma_window *w = &dev->window[i];
		uint64_t offset, bus, last;

		if (!offset_within(pa.value, nbytes, w->cpu.value, w->size, &offset) ||
		    __builtin_add_overflow(w->bus.value, offset, &bus) ||
		    __builtin_add_overflow(bus, nbytes - 1, &last) || last > dev->mask)
			continue;
		out->value = bus;
		return true;
	}
	return false;
}

bool dma_bus_to_phys(const struct dma_device *dev, bus_addr_t bus, phys_addr_t *out)
{
	for (unsigned int i = 0; bus.value <= dev->mask && i < dev->nwindows; i++) {
		const struct dma_window *w = &dev->window[i];
		uint64_t offset, pa;

		if (!offset_within(bus.value, 1, w->bus.value, w->size, &offset) ||
		    __builtin_add_overflow(w->cpu.value, offset, &pa))
			continue;
		out->value = pa;
		return true;
	}
	return false;
}

bus_addr_t phys_to_bus(phys_addr_t pa)
{
	bus_addr_t bus = {DMA_NO_ADDRESS};

	(void)dma_phys_to_bus(&default_device, pa, 1, &bus);
	return bus;
}

phys_addr_t bus_to_phys(bus_addr_t bus)
{
	phys_addr_t pa = {DMA_NO_ADDRESS};

	(void)dma_bus_to_phys(&default_device, bus, &pa);
	return pa;
}

bus_addr_t virt_to_bus(const void *va)
{
	return phys_to_bus(mm_port_virt_to_phys(virt_addr(va)));
}

bool dma_device_reaches(const struct dma_device *dev, virt_addr_t va, size_t nbytes)
{
	bus_addr_t bus;

	return dma_phys_to_bus(dev, mm_port_virt_to_phys(va), nbytes, &bus);
}

bool dma_device_limit(const struct dma_device *dev, unsigned int i, uint64_t *limit)
{
	const struct dma_window *w = &dev->window[i];
	uint64_t last, end;

	if (!w->size || w->bus.value > dev->mask)
		return false;
	last = dev->mask - w->bus.value;
	if (last > w->size - 1)
		last = w->size - 1;
	/* A window that ends with the address space, or beyond, is no limit. */
	if (__builtin_add_overflow(w->cpu.value, last, &end) || end >= UINT64_MAX - 1)
		*limit = 0;
	else
		*limit = end + 1;
	return true;
}

/* --- Demands ----------------------------------------------------------------- */

static bool device_valid(const struct dma_device *dev)
{
	return dev && dev->nwindows && dev->nwindows <= DMA_MAX_WINDOWS && mm_is_pow2(dev->align) &&
	       (!dev->boundary || mm_is_pow2(dev->boundary));
}

static size_t round_up_pow2(size_t n)
{
	size_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

bool dma_device_demand(const struct dma_device *dev, struct layout l, struct dma_demand *out)
{
	if (!device_valid(dev) || !layout_valid(l))
		return false;
	if ((dev->max_segment && l.size > dev->max_segment) ||
	    (dev->boundary && l.size > dev->boundary))
		return false;
	l.align = larger(l.align, dev->align);
	*out = (struct dma_demand){.bus_align = l.align, .least_align = l.align};
	/* What lies at a multiple of its size, rounded up to a power of two, crosses no boundary.
	 */
	if (dev->boundary)
		l.align = larger(l.align, round_up_pow2(l.size));
	if (l.size >= MM_PAGE_SIZE || l.align >= MM_PAGE_SIZE) {
		out->npages = (l.size + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
		l.align = larger(l.align, MM_PAGE_SIZE);
		out->least_align = larger(out->least_align, MM_PAGE_SIZE);
	}
	out->layout = l;
	return true;
}

bool dma_device_fits(const struct dma_device *dev, const void *p, const struct dma_demand *d,
		     bus_addr_t *bus)
{
	size_t nbytes = d->layout.size;
	bus_addr_t at;

	if (!dma_phys_to_bus(dev, mm_port_virt_to_phys(virt_addr(p)), nbytes, &at) ||
	    at.value & (d->bus_align - 1))
		return false;
	if (dev->boundary && (at.value & (dev->boundary - 1)) + nbytes > dev->boundary)
		return false;
	*bus = at;
	return true;
}
