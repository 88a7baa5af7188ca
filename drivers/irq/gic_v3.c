/* SPDX-License-Identifier: MIT */
/*
 * GIC version 3: a distributor for shared interrupts, a redistributor per CPU
 * for private ones, and a CPU interface in system registers (arch/arch.h).
 * Everything runs as group 1 with affinity routing.
 */
#include "gic.h"

#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/time.h>
#include <mm/global.h>

#define GICD_SIZE	0x10000u
#define GICD_IROUTER	0x6000
#define CTLR_RWP	(1u << 31) /* a write is still under way */
#define CTLR_ARE	(1u << 4)  /* affinity routing */
#define CTLR_GROUP1	0x7u	   /* group 1, in whichever security state we see it from */
#define GICR_CTLR	0x0
#define GICR_CTLR_RWP	(1u << 3)
#define GICR_TYPER	0x8
#define GICR_WAKER	0x14
#define GICR_SGI	0x10000u /* the private interrupts' registers */
#define GICR_SIZE	0x20000u
#define GICR_SIZE_VLPI	0x40000u
#define TYPER_VLPI	(1u << 1)
#define TYPER_LAST	(1u << 4)
#define WAKER_SLEEP	(1u << 1)
#define WAKER_ASLEEP	(1u << 2)
#define ANSWER_LIMIT_MS 100u

struct gic_v3 {
	struct irq_chip chip;
	struct gic_block dist;
	struct gic_block local; /* private interrupts of the boot CPU */
	volatile uint8_t *redist;
};

static struct gic_v3 *gic_of(struct irq_chip *chip)
{
	return (struct gic_v3 *)((char *)chip - offsetof(struct gic_v3, chip));
}

/* Until the bits are clear. A controller that never gets there is reported and used as it is. */
static void wait_clear(volatile uint8_t *reg, uint32_t bits)
{
	uint64_t end = time_after_ms(ANSWER_LIMIT_MS);

	while (arch_read32(reg) & bits) {
		if (time_ns() > end) {
			log_warn("gic-v3: bits 0x%x stay set", bits);
			return;
		}
		arch_relax();
	}
}

static const struct gic_block *block_of(const struct gic_v3 *g, uint32_t irq)
{
	return irq < GIC_FIRST_SPI ? &g->local : &g->dist;
}

static int v3_translate(struct irq_chip *chip, const struct fdt_irq *spec, uint32_t *hwirq)
{
	return gic_translate(spec, gic_of(chip)->dist.nirqs, hwirq);
}

static void v3_enable(struct irq_chip *chip, uint32_t hwirq, const struct fdt_irq *spec)
{
	struct gic_v3 *g = gic_of(chip);
	const struct gic_block *b = block_of(g, hwirq);

	gic_set_trigger(b, hwirq, spec);
	if (hwirq >= GIC_FIRST_SPI) /* routes are laid out like the affinity in MPIDR */
		arch_write64(g->dist.regs + GICD_IROUTER + hwirq * sizeof(uint64_t),
			     arch_boot_cpu_hwid());
	gic_enable(b, hwirq);
}

/* Not done before the controller says so: the interrupt must not arrive any more. */
static void v3_disable(struct irq_chip *chip, uint32_t hwirq)
{
	struct gic_v3 *g = gic_of(chip);

	gic_disable(block_of(g, hwirq), hwirq);
	if (hwirq < GIC_FIRST_SPI)
		wait_clear(g->redist + GICR_CTLR, GICR_CTLR_RWP);
	else
		wait_clear(g->dist.regs + GICD_CTLR, CTLR_RWP);
}

static void v3_handle(struct irq_chip *chip)
{
	for (;;) {
		uint32_t irq = arch_gicv3_acknowledge();

		if (irq >= GIC_FIRST_SPECIAL)
			return;
		if (!irq_deliver(chip, irq))
			gic_disable(block_of(gic_of(chip), irq), irq);
		arch_gicv3_end(irq);
	}
}

/*
 * Into the group 1 that is ours. Seen from the secure side of two there are two of them, and only
 * the secure one can be acknowledged here; it is the modifier's, which nobody else can write.
 */
static void set_group1(const struct gic_block *b, uint32_t first)
{
	for (uint32_t i = first; i < b->nirqs; i += 32) {
		volatile uint8_t *modifier = b->regs + GICD_IGRPMODR + i / 8;

		arch_write32(modifier, UINT32_MAX);
		arch_write32(b->regs + GICD_IGROUPR + i / 8,
			     arch_read32(modifier) ? 0 : UINT32_MAX);
	}
}

static void start_distributor(struct gic_v3 *g)
{
	volatile uint8_t *regs = g->dist.regs;

	arch_write32(regs + GICD_CTLR, 0);
	wait_clear(regs + GICD_CTLR, CTLR_RWP);
	g->dist.nirqs = gic_count(regs);
	gic_reset(&g->dist, GIC_FIRST_SPI);
	set_group1(&g->dist, GIC_FIRST_SPI);
	wait_clear(regs + GICD_CTLR, CTLR_RWP);
	arch_write32(regs + GICD_CTLR, CTLR_ARE | CTLR_GROUP1);
	wait_clear(regs + GICD_CTLR, CTLR_RWP);
}

static void start_redistributor(struct gic_v3 *g)
{
	volatile uint8_t *waker = g->redist + GICR_WAKER;

	arch_write32(waker, arch_read32(waker) & ~WAKER_SLEEP);
	wait_clear(waker, WAKER_ASLEEP);
	g->local.regs = g->redist + GICR_SGI;
	g->local.nirqs = GIC_FIRST_SPI;
	gic_reset(&g->local, 0);
	set_group1(&g->local, 0);
	wait_clear(g->redist + GICR_CTLR, GICR_CTLR_RWP);
}

/* --- Finding the registers ------------------------------------------------- */

/* The affinity of a redistributor, laid out as in MPIDR. */
static uint64_t affinity_of(uint64_t typer)
{
	uint64_t aff = typer >> 32;

	return (aff & 0xffffffu) | (aff & 0xff000000u) << 8;
}

/* Our redistributor among those of one region, or NULL. */
static volatile uint8_t *search_region(volatile uint8_t *region, uint64_t size, uint64_t stride)
{
	uint64_t at = 0, step;

	for (; at < size && size - at >= GICR_SIZE; at += step) {
		uint64_t typer = arch_read64(region + at + GICR_TYPER);

		if (affinity_of(typer) == arch_boot_cpu_hwid())
			return region + at;
		if (typer & TYPER_LAST)
			break;
		step = typer & TYPER_VLPI ? GICR_SIZE_VLPI : GICR_SIZE;
		if (stride >= GICR_SIZE)
			step = stride;
	}
	return NULL;
}

static volatile uint8_t *find_redistributor(const struct fdt_node *node)
{
	uint32_t nregions = 1;
	uint64_t stride = 0, size;
	phys_addr_t base;

	fdt_get_u32(node, "#redistributor-regions", &nregions);
	fdt_get_u64(node, "redistributor-stride", &stride);
	for (uint32_t i = 0; i < nregions && fdt_reg(node, i + 1, &base, &size) == 0; i++) {
		volatile uint8_t *region = (volatile uint8_t *)io_map(base, size);
		volatile uint8_t *found = region ? search_region(region, size, stride) : NULL;

		if (found)
			return found;
	}
	return NULL;
}

static int map_registers(struct gic_v3 *g, const struct fdt_node *node)
{
	phys_addr_t base;
	uint64_t size;

	if (fdt_reg(node, 0, &base, &size) < 0 || size < GICD_SIZE) {
		log_error("gic-v3: no distributor");
		return -1;
	}
	g->dist.regs = (volatile uint8_t *)io_map(base, GICD_SIZE);
	g->redist = find_redistributor(node);
	if (!g->redist)
		log_error("gic-v3: no redistributor for this CPU");
	return g->dist.regs && g->redist ? 0 : -1;
}

/* First the system registers: without them there is nothing to be had here. */
static int start(struct gic_v3 *g, const struct fdt_node *node)
{
	if (!arch_gicv3_init(GIC_PRIORITY_ALL)) {
		log_error("gic-v3: no system registers");
		return -1;
	}
	if (map_registers(g, node) < 0)
		return -1;
	start_distributor(g);
	start_redistributor(g);
	return 0;
}

static int gic_v3_probe(const struct fdt_node *node)
{
	struct layout l = {sizeof(struct gic_v3), _Alignof(struct gic_v3)};
	struct gic_v3 *g;
	void *mem;

	if (global_alloc_zeroed(l, &mem) != ALLOC_OK)
		return -1;
	g = mem;
	if (start(g, node) < 0) {
		global_dealloc(g, l);
		return -1;
	}
	g->chip.name = "gic-v3";
	g->chip.node = fdt_id(node);
	g->chip.translate = v3_translate;
	g->chip.enable = v3_enable;
	g->chip.disable = v3_disable;
	g->chip.handle = v3_handle;
	irq_register_chip(&g->chip);
	return 0;
}

static const char *const gic_v3_compatible[] = {"arm,gic-v3", NULL};

DRIVER(gic_v3) = {
	.name = "gic-v3",
	.compatible = gic_v3_compatible,
	.stage = DRIVER_IRQCHIP,
	.probe = gic_v3_probe,
};
