/* SPDX-License-Identifier: MIT */
#include "gic.h"

#include <arch/arch.h>

#define CELL_SPI   0u
#define CELL_PPI   1u
#define FLAGS_EDGE 3u /* rising or falling */

#define TYPER_LINES 0x1fu
#define CFG_EDGE    2u

uint32_t gic_count(volatile uint8_t *distributor)
{
	uint32_t n = ((arch_read32(distributor + GICD_TYPER) & TYPER_LINES) + 1) * 32;

	return n < GIC_FIRST_SPECIAL ? n : GIC_FIRST_SPECIAL;
}

void gic_reset(const struct gic_block *b, uint32_t first)
{
	for (uint32_t i = first; i < b->nirqs; i += 32) {
		arch_write32(b->regs + GICD_ICENABLER + i / 8, UINT32_MAX);
		arch_write32(b->regs + GICD_ICPENDR + i / 8, UINT32_MAX);
		arch_write32(b->regs + GICD_ICACTIVER + i / 8, UINT32_MAX);
	}
	for (uint32_t i = first; i < b->nirqs; i += 4)
		arch_write32(b->regs + GICD_IPRIORITYR + i, GIC_PRIORITY * 0x01010101u);
}

static void write_bit(const struct gic_block *b, uint32_t reg, uint32_t irq)
{
	arch_write32(b->regs + reg + irq / 32 * sizeof(uint32_t), 1u << irq % 32);
}

void gic_enable(const struct gic_block *b, uint32_t irq)
{
	write_bit(b, GICD_ISENABLER, irq);
}

void gic_disable(const struct gic_block *b, uint32_t irq)
{
	write_bit(b, GICD_ICENABLER, irq);
}

void gic_set_trigger(const struct gic_block *b, uint32_t irq, const struct fdt_irq *spec)
{
	volatile uint8_t *reg = b->regs + GICD_ICFGR + irq / 16 * sizeof(uint32_t);
	uint32_t edge = CFG_EDGE << irq % 16 * 2;
	uint32_t old = arch_read32(reg);
	uint32_t new = spec->cells[2] & FLAGS_EDGE ? old | edge : old & ~edge;

	/* Those of PPIs are often fixed. */
	if (new != old)
		arch_write32(reg, new);
}

int gic_translate(const struct fdt_irq *spec, uint32_t nirqs, uint32_t *irq)
{
	uint32_t first, end, n = spec->cells[1];

	if (spec->ncells < 3 || spec->cells[0] > CELL_PPI)
		return -1;
	first = spec->cells[0] == CELL_SPI ? GIC_FIRST_SPI : GIC_FIRST_PPI;
	end = spec->cells[0] == CELL_SPI ? nirqs : GIC_FIRST_SPI;
	if (n >= end - first)
		return -1;
	*irq = first + n;
	return 0;
}
