/* SPDX-License-Identifier: MIT */
/*
 * What all versions of Arm's Generic Interrupt Controller share: numbers, the
 * cells of the tree, and the register block of the distributor, whose first
 * words version 3 has again in each redistributor.
 *
 * Interrupts 0 to 15 are for CPUs to send each other, 16 to 31 are private to a
 * CPU (PPI), the others are shared (SPI).
 */
#ifndef IRQ_GIC_H
#define IRQ_GIC_H

#include <kernel/irq.h>

#define GIC_FIRST_PPI	  16u
#define GIC_FIRST_SPI	  32u
#define GIC_FIRST_SPECIAL 1020u /* 1023: nothing pending */

#define GICD_CTLR	0x000
#define GICD_TYPER	0x004
#define GICD_IGROUPR	0x080 /* a bit per interrupt, as the next ones */
#define GICD_ISENABLER	0x100
#define GICD_ICENABLER	0x180
#define GICD_ICPENDR	0x280
#define GICD_ICACTIVER	0x380
#define GICD_IPRIORITYR 0x400 /* a byte */
#define GICD_ITARGETSR	0x800 /* a byte; version 2 */
#define GICD_ICFGR	0xc00 /* two bits */
#define GICD_IGRPMODR	0xd00 /* a bit per interrupt; version 3 */

/* All interrupts have one priority; the CPU interface lets every priority through. */
#define GIC_PRIORITY	 0xa0u
#define GIC_PRIORITY_ALL 0xffu

struct gic_block {
	volatile uint8_t *regs;
	uint32_t nirqs; /* numbers that exist in it, from 0 */
};

/* How many interrupts a distributor says it has. */
uint32_t gic_count(volatile uint8_t *distributor);

/* Disable interrupts first..nirqs-1, whatever firmware left, and give them the priority. */
void gic_reset(const struct gic_block *b, uint32_t first);

void gic_enable(const struct gic_block *b, uint32_t irq);
void gic_disable(const struct gic_block *b, uint32_t irq);

/* Edge or level, as the tree says. The interrupt is disabled. */
void gic_set_trigger(const struct gic_block *b, uint32_t irq, const struct fdt_irq *spec);

/* (SPI or PPI, number, flags) to a number below nirqs; negative: not such an interrupt. */
int gic_translate(const struct fdt_irq *spec, uint32_t nirqs, uint32_t *irq);

#endif
