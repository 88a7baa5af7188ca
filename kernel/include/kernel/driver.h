/* SPDX-License-Identifier: MIT */
/*
 * Drivers are found by the linker: DRIVER puts a match table into a section,
 * and the scan offers every enabled node of the device tree to the first driver
 * whose compatible list names it. A bus knows none of its drivers.
 */
#ifndef KERNEL_DRIVER_H
#define KERNEL_DRIVER_H

#include <kernel/fdt.h>
#include <kernel/log.h>

/* Each stage is one pass over the tree. */
enum driver_stage {
	DRIVER_CONSOLE, /* serial lines, before there is memory to allocate */
	DRIVER_IRQCHIP, /* interrupt controllers */
	DRIVER_TIMER,	/* what ends a wait, if it is an interrupt of these */
	DRIVER_DEVICE,	/* everything else; interrupts, timer and DMA work */
};

struct driver {
	const char *name;
	const char *const *compatible; /* ends with NULL */
	enum driver_stage stage;
	/* 0, or negative: not this device. Logs why, unless it is simply absent. */
	int (*probe)(const struct fdt_node *node);
};

#define DRIVER(id) \
	static const struct driver id __attribute__((section("drivers"), used, aligned(8)))

void driver_probe_all(const struct fdt *fdt, enum driver_stage stage);

/* The console that stdout-path names; when it names none, or one that no driver can use, all. */
void driver_probe_console(const struct fdt *fdt);

/* The tree that the kernel booted with. */
const struct fdt *kernel_fdt(void);

/*
 * Map device registers (nGnRE), or return where they are mapped already. The mapping stays.
 * NULL: no address space or no page table. Page granularity; the offset in the page is kept.
 */
volatile void *io_map(phys_addr_t pa, size_t nbytes);

#endif
