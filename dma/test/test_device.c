/* SPDX-License-Identifier: MIT */
/*
 * What a device reaches and demands, to the byte: one inside, one beyond. No
 * memory is allocated, for of what the page allocator gives little lies at an edge.
 */
#include <mm/port.h>
#include <selftest/selftest.h>

#include "../device.h"

#define PAGE MM_PAGE_SIZE

/* Through one window of so many bytes, in which physical address cpu is bus address bus. */
static struct dma_device through(uint64_t cpu, uint64_t bus, uint64_t size)
{
	struct dma_device dev;

	dma_device_init(&dev, "edge");
	dev.window[0] = (struct dma_window){{cpu}, {bus}, size};
	return dev;
}

/* --- Addresses --------------------------------------------------------------- */

SELFTEST(dma, end_of_the_mask)
{
	struct dma_device dev = through(0x100000, 0x1000, 0x10000);
	bus_addr_t bus;
	phys_addr_t pa;

	dev.mask = 0x1fff;
	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x100000}, 0x1000, &bus) && bus.value == 0x1000);
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x100000}, 0x1001, &bus));
	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x100fff}, 1, &bus) && bus.value == 0x1fff);
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x100fff}, 2, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x101000}, 1, &bus));
	CHECK(dma_bus_to_phys(&dev, (bus_addr_t){0x1fff}, &pa) && pa.value == 0x100fff);
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0x2000}, &pa));
}

SELFTEST(dma, end_of_a_window)
{
	struct dma_device dev = through(0x100000, 0x1000, 0x800);
	bus_addr_t bus;
	phys_addr_t pa;

	CHECK(dma_phys_to_bus(&dev, (phys_addr_t){0x100000}, 0x800, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0x100000}, 0x801, &bus));
	CHECK(!dma_phys_to_bus(&dev, (phys_addr_t){0xfffff}, 2, &bus));
	CHECK(dma_bus_to_phys(&dev, (bus_addr_t){0x17ff}, &pa) && pa.value == 0x1007ff);
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0x1800}, &pa));
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0xfff}, &pa));
	/* Half of it lies beyond 2^64. */
	dev = through(UINT64_MAX - 0xfff, 0, 0x2000);
	CHECK(dma_bus_to_phys(&dev, (bus_addr_t){0xfff}, &pa) && pa.value == UINT64_MAX);
	CHECK(!dma_bus_to_phys(&dev, (bus_addr_t){0x1000}, &pa));
}

/* 0: no limit; 1: nothing can be reached, which as a limit would mean the same. */
static uint64_t limit_of(const struct dma_device *dev)
{
	uint64_t limit;

	return dma_device_limit(dev, 0, &limit) ? limit : 1;
}

SELFTEST(dma, limit_for_the_page_allocator)
{
	struct dma_device dev;

	dma_device_init(&dev, "all");
	CHECK(limit_of(&dev) == 0);
	dev.window[0].size = 0;
	CHECK(limit_of(&dev) == 1);
	/* What ends first, the window or the mask. */
	dev = through(0x100000, 0x1000, 0x800);
	CHECK(limit_of(&dev) == 0x100800);
	dev.mask = 0x17fe;
	CHECK(limit_of(&dev) == 0x1007ff);
	dev.mask = 0x1000;
	CHECK(limit_of(&dev) == 0x100001);
	dev.mask = 0xfff;
	CHECK(limit_of(&dev) == 1);
	/* Ends two bytes below the end of all addresses, one, at it, beyond. */
	dev = through(UINT64_MAX - 0xfff, 0, 0xffe);
	CHECK(limit_of(&dev) == UINT64_MAX - 1);
	for (dev.window[0].size = 0xfff; dev.window[0].size < 0x1003; dev.window[0].size++)
		CHECK(limit_of(&dev) == 0);
}

/* --- Demands ----------------------------------------------------------------- */

/* Does a buffer of nbytes at p, which the device sees at `bus`, suit it? */
static bool fits(struct dma_device *dev, const void *p, uint64_t bus, size_t nbytes, size_t align)
{
	struct dma_demand d = {.layout = {nbytes, 1}, .bus_align = align};
	bus_addr_t at = {1};
	bool yes;

	dev->window[0] = (struct dma_window){mm_port_virt_to_phys(virt_addr(p)), {bus}, UINT32_MAX};
	yes = dma_device_fits(dev, p, &d, &at);
	CHECK_OR(at.value == (yes ? bus : 1), !yes);
	return yes;
}

SELFTEST(dma, fits_to_the_byte)
{
	void *p = selftest_memory(PAGE);
	struct dma_device dev;

	if (!p) {
		selftest_skip("no memory");
		return;
	}
	dma_device_init(&dev, "boundary");
	dev.boundary = 0x1000;
	CHECK(fits(&dev, p, 0x1f00, 0x100, 1) && !fits(&dev, p, 0x1f00, 0x101, 1));
	CHECK(fits(&dev, p, 0x1fff, 1, 1) && !fits(&dev, p, 0x1fff, 2, 1));
	CHECK(fits(&dev, p, 0x2000, 0x1000, 1) && !fits(&dev, p, 0x2000, 0x1001, 1));
	CHECK(fits(&dev, p, 0x1f00, 8, 0x100) && !fits(&dev, p, 0x1f00, 8, 0x200));
	dev.boundary = 0;
	CHECK(fits(&dev, p, 0x1fff, 0x1002, 1));
	dev.mask = 0x3000;
	CHECK(fits(&dev, p, 0x1fff, 0x1002, 1) && !fits(&dev, p, 0x1fff, 0x1003, 1));
}

static bool demand_is(const struct dma_device *dev, struct layout l, size_t npages, size_t align,
		      size_t least_align)
{
	struct dma_demand d;

	return dma_device_demand(dev, l, &d) && d.npages == npages && d.layout.size == l.size &&
	       d.layout.align == align && d.least_align == least_align &&
	       d.bus_align == (l.align > dev->align ? l.align : dev->align);
}

static bool refused(const struct dma_device *dev, size_t nbytes)
{
	struct dma_demand d;

	return !dma_device_demand(dev, (struct layout){nbytes, 1}, &d);
}

/* A page or more, in size or alignment, is whole pages. */
SELFTEST(dma, demand_in_pages)
{
	struct dma_device dev;

	dma_device_init(&dev, "plain");
	CHECK(demand_is(&dev, (struct layout){PAGE - 1, 8}, 0, 8, 8));
	CHECK(demand_is(&dev, (struct layout){PAGE, 8}, 1, PAGE, PAGE));
	CHECK(demand_is(&dev, (struct layout){PAGE + 1, 8}, 2, PAGE, PAGE));
	CHECK(demand_is(&dev, (struct layout){8, PAGE / 2}, 0, PAGE / 2, PAGE / 2));
	CHECK(demand_is(&dev, (struct layout){8, PAGE}, 1, PAGE, PAGE));
	CHECK(demand_is(&dev, (struct layout){8, PAGE * 2}, 1, PAGE * 2, PAGE * 2));
	dev.align = 64;
	CHECK(demand_is(&dev, (struct layout){8, 8}, 0, 64, 64));
}

SELFTEST(dma, demand_of_a_boundary)
{
	struct dma_device dev;

	dma_device_init(&dev, "boundary");
	dev.boundary = 0x200;
	CHECK(demand_is(&dev, (struct layout){0x100, 8}, 0, 0x100, 8));
	CHECK(demand_is(&dev, (struct layout){0x101, 8}, 0, 0x200, 8));
	CHECK(demand_is(&dev, (struct layout){0x200, 8}, 0, 0x200, 8) && refused(&dev, 0x201));
	dev.max_segment = 0x180;
	CHECK(!refused(&dev, 0x180) && refused(&dev, 0x181));
	dev.boundary = PAGE;
	dev.max_segment = 0;
	CHECK(demand_is(&dev, (struct layout){PAGE / 2 + 1, 8}, 1, PAGE, PAGE));
}
