/* SPDX-License-Identifier: MIT */
/*
 * GIC version 2: a distributor, and a CPU interface in memory. Private
 * interrupts are in the same registers as shared ones, banked per CPU.
 *
 * Whether or not the controller has two security states, and whichever of
 * them we see, bit 0 of both control registers turns on the group that is ours.
 */
#include "gic.h"

#include <arch/arch.h>
#include <kernel/driver.h>
#include <mm/global.h>

#define GICC_CTLR 0x00
#define GICC_PMR  0x04 /* priority mask */
#define GICC_BPR  0x08 /* binary point */
#define GICC_IAR  0x0c /* acknowledge */
#define GICC_EOIR 0x10 /* end of interrupt */
#define GICC_APR  0xd0 /* active priorities, four words */
#define GICC_END  0xe0

#define ENABLE	0x1u
#define IAR_IRQ 0x3ffu /* above: the CPU that sent it */

struct gic_v2 {
	struct irq_chip chip;
	struct gic_block dist;
	volatile uint8_t *cpu;
	uint8_t self; /* our bit among the targets of an interrupt */
};

static struct gic_v2 *gic_of(struct irq_chip *chip)
{
	return (struct gic_v2 *)((char *)chip - offsetof(struct gic_v2, chip));
}

static int v2_translate(struct irq_chip *chip, const struct fdt_irq *spec, uint32_t *hwirq)
{
	return gic_translate(spec, gic_of(chip)->dist.nirqs, hwirq);
}

static void v2_enable(struct irq_chip *chip, uint32_t hwirq, const struct fdt_irq *spec)
{
	struct gic_v2 *g = gic_of(chip);

	gic_set_trigger(&g->dist, hwirq, spec);
	if (hwirq >= GIC_FIRST_SPI)
		arch_write8(g->dist.regs + GICD_ITARGETSR + hwirq, g->self);
	gic_enable(&g->dist, hwirq);
}

static void v2_disable(struct irq_chip *chip, uint32_t hwirq)
{
	gic_disable(&gic_of(chip)->dist, hwirq);
}

static void v2_handle(struct irq_chip *chip)
{
	struct gic_v2 *g = gic_of(chip);

	for (;;) {
		uint32_t iar = arch_read32(g->cpu + GICC_IAR);
		uint32_t irq = iar & IAR_IRQ;

		if (irq >= GIC_FIRST_SPECIAL)
			return;
		if (!irq_deliver(chip, irq))
			gic_disable(&g->dist, irq);
		arch_io_mb(); /* the device was quietened before the interrupt may fire again */
		arch_write32(g->cpu + GICC_EOIR, iar);
	}
}

/* The target registers of private interrupts read as the CPU that reads them. */
static uint8_t find_self(volatile uint8_t *dist)
{
	for (uint32_t i = 0; i < GIC_FIRST_SPI; i++) {
		uint8_t mask = arch_read8(dist + GICD_ITARGETSR + i);

		if (mask)
			return mask;
	}
	return 1; /* a single CPU: the registers do not exist */
}

static void start(struct gic_v2 *g)
{
	arch_write32(g->dist.regs + GICD_CTLR, 0);
	g->dist.nirqs = gic_count(g->dist.regs);
	gic_reset(&g->dist, 0);
	g->self = find_self(g->dist.regs);
	arch_write32(g->dist.regs + GICD_CTLR, ENABLE);

	for (uint32_t at = GICC_APR; at < GICC_END; at += sizeof(uint32_t))
		arch_write32(g->cpu + at, 0); /* what firmware left active would hold ours back */
	arch_write32(g->cpu + GICC_PMR, GIC_PRIORITY_ALL);
	arch_write32(g->cpu + GICC_BPR, 0);
	arch_write32(g->cpu + GICC_CTLR, ENABLE);
}

static int map_registers(struct gic_v2 *g, const struct fdt_node *node)
{
	phys_addr_t dist, cpu;
	uint64_t dist_size, cpu_size;

	if (fdt_reg(node, 0, &dist, &dist_size) < 0 || fdt_reg(node, 1, &cpu, &cpu_size) < 0 ||
	    dist_size < MM_PAGE_SIZE || cpu_size < GICC_END) {
		log_error("gic-v2: registers missing");
		return -1;
	}
	g->dist.regs = (volatile uint8_t *)io_map(dist, MM_PAGE_SIZE);
	g->cpu = (volatile uint8_t *)io_map(cpu, GICC_END);
	return g->dist.regs && g->cpu ? 0 : -1;
}

static int gic_v2_probe(const struct fdt_node *node)
{
	struct layout l = {sizeof(struct gic_v2), _Alignof(struct gic_v2)};
	struct gic_v2 *g;
	void *mem;

	if (global_alloc_zeroed(l, &mem) != ALLOC_OK)
		return -1;
	g = mem;
	if (map_registers(g, node) < 0) {
		global_dealloc(g, l);
		return -1;
	}
	start(g);
	g->chip.name = "gic-v2";
	g->chip.node = fdt_id(node);
	g->chip.translate = v2_translate;
	g->chip.enable = v2_enable;
	g->chip.disable = v2_disable;
	g->chip.handle = v2_handle;
	irq_register_chip(&g->chip);
	return 0;
}

static const char *const gic_v2_compatible[] = {"arm,cortex-a15-gic", "arm,gic-400", NULL};

DRIVER(gic_v2) = {
	.name = "gic-v2",
	.compatible = gic_v2_compatible,
	.stage = DRIVER_IRQCHIP,
	.probe = gic_v2_probe,
};
