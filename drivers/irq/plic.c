/* SPDX-License-Identifier: MIT */
/*
 * RISC-V platform-level interrupt controller.
 *
 * Every privilege mode of every hart is a "context" with its own enable bits,
 * threshold and claim register. Contexts have no address of their own in the
 * tree: context i is entry i of interrupts-extended, which names the local
 * controller of a hart and the interrupt it raises there. Ours is the entry that
 * raises the supervisor's external interrupt on the hart that booted.
 *
 * A claimed source stays quiet until it is completed, and the controller ignores
 * the completion of a source that is disabled; complete() sees to that.
 */
#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/irq.h>
#include <kernel/lock.h>
#include <mm/global.h>

#define REG_PRIORITY	0x0u /* a word per source */
#define REG_ENABLE	0x2000u
#define ENABLE_STRIDE	0x80u
#define REG_CONTEXT	0x200000u
#define CONTEXT_STRIDE	0x1000u
#define CONTEXT_CLAIM	4u /* behind the threshold */
#define MAX_SOURCES	1023u
#define MAX_CONTEXTS	15872u
#define S_EXTERNAL	9u /* cause of the supervisor's external interrupt */
#define LOWEST_PRIORITY 1u

struct plic {
	struct irq_chip chip;
	volatile uint8_t *regs;
	volatile uint8_t *enable;  /* of our context */
	volatile uint8_t *context; /* threshold and claim */
	uint32_t nsources;
	struct spinlock lock; /* words of enable bits are shared */
};

static struct plic *plic_of(struct irq_chip *chip)
{
	return (struct plic *)((char *)chip - offsetof(struct plic, chip));
}

static volatile uint8_t *enable_word(const struct plic *p, uint32_t source)
{
	return p->enable + source / 32 * sizeof(uint32_t);
}

static uint32_t source_bit(uint32_t source)
{
	return 1u << source % 32;
}

static void set_enabled(struct plic *p, uint32_t source, bool on)
{
	unsigned long state = spin_lock(&p->lock);
	volatile uint8_t *word = enable_word(p, source);
	uint32_t bits = arch_read32(word);

	arch_write32(word, on ? bits | source_bit(source) : bits & ~source_bit(source));
	spin_unlock(&p->lock, state);
}

static bool is_enabled(const struct plic *p, uint32_t source)
{
	return arch_read32(enable_word(p, source)) & source_bit(source);
}

/* One cell, the source. (SiFive's newer ones have a second, the trigger, which is fixed in
 * hardware.) */
static int plic_translate(struct irq_chip *chip, const struct fdt_irq *spec, uint32_t *hwirq)
{
	uint32_t source = spec->cells[0];

	if (!source || source > plic_of(chip)->nsources)
		return -1;
	*hwirq = source;
	return 0;
}

static void plic_enable(struct irq_chip *chip, uint32_t hwirq, const struct fdt_irq *spec)
{
	struct plic *p = plic_of(chip);

	(void)spec;
	arch_write32(p->regs + REG_PRIORITY + hwirq * sizeof(uint32_t), LOWEST_PRIORITY);
	set_enabled(p, hwirq, true);
}

static void plic_disable(struct irq_chip *chip, uint32_t hwirq)
{
	set_enabled(plic_of(chip), hwirq, false);
}

/* The handler may have disabled its source meanwhile. */
static void complete(struct plic *p, uint32_t source)
{
	bool enabled = is_enabled(p, source);

	if (!enabled)
		set_enabled(p, source, true);
	arch_write32(p->context + CONTEXT_CLAIM, source);
	if (!enabled)
		set_enabled(p, source, false);
}

static void plic_handle(struct irq_chip *chip)
{
	struct plic *p = plic_of(chip);
	uint32_t source;

	while ((source = arch_read32(p->context + CONTEXT_CLAIM)) != 0) {
		bool wanted = irq_deliver(chip, source);

		arch_io_mb(); /* the device was quietened before the source may fire again */
		complete(p, source);
		if (!wanted)
			set_enabled(p, source, false);
	}
}

/* Is the interrupt the supervisor's external one on the hart we run on? */
static bool is_ours(const struct fdt *fdt, const struct fdt_irq *irq)
{
	struct fdt_node intc, cpu;
	uint64_t hart, size;

	if (irq->cells[0] != S_EXTERNAL || fdt_by_id(fdt, irq->controller, &intc) < 0)
		return false;
	cpu = fdt_parent(&intc);
	return cpu.fdt && fdt_bus_reg(&cpu, 0, &hart, &size) == 0 && hart == arch_boot_cpu_hwid();
}

static int find_context(const struct fdt_node *node, uint32_t *context)
{
	struct fdt_irq irq;

	for (uint32_t i = 0; i < MAX_CONTEXTS && fdt_irq(node, i, &irq) == 0; i++) {
		if (!is_ours(node->fdt, &irq))
			continue;
		*context = i;
		return 0;
	}
	return -1;
}

static int map_registers(struct plic *p, const struct fdt_node *node)
{
	phys_addr_t base;
	uint64_t size;
	uint32_t context;

	if (find_context(node, &context) < 0) {
		log_error("plic: no context for this hart");
		return -1;
	}
	if (fdt_reg(node, 0, &base, &size) < 0 ||
	    size < REG_CONTEXT + (uint64_t)(context + 1) * CONTEXT_STRIDE) {
		log_error("plic: registers missing, or without context %u", context);
		return -1;
	}
	p->regs = (volatile uint8_t *)io_map(base, size);
	if (!p->regs)
		return -1;
	p->enable = p->regs + REG_ENABLE + (size_t)context * ENABLE_STRIDE;
	p->context = p->regs + REG_CONTEXT + (size_t)context * CONTEXT_STRIDE;
	return 0;
}

/* All sources off, whatever firmware left; the threshold lets every priority but 0 through. */
static void reset(struct plic *p)
{
	for (uint32_t i = 0; i <= p->nsources; i += 32)
		arch_write32(enable_word(p, i), 0);
	arch_write32(p->context, 0);
}

static int plic_probe(const struct fdt_node *node)
{
	struct layout l = {sizeof(struct plic), _Alignof(struct plic)};
	struct plic *p;
	void *mem;

	if (global_alloc_zeroed(l, &mem) != ALLOC_OK)
		return -1;
	p = mem;
	if (map_registers(p, node) < 0) {
		global_dealloc(p, l);
		return -1;
	}
	if (!fdt_get_u32(node, "riscv,ndev", &p->nsources) || p->nsources > MAX_SOURCES)
		p->nsources = MAX_SOURCES;
	reset(p);
	p->chip.name = "plic";
	p->chip.node = fdt_id(node);
	p->chip.translate = plic_translate;
	p->chip.enable = plic_enable;
	p->chip.disable = plic_disable;
	p->chip.handle = plic_handle;
	irq_register_chip(&p->chip);
	return 0;
}

static const char *const plic_compatible[] = {"riscv,plic0", "sifive,plic-1.0.0", NULL};

DRIVER(plic) = {
	.name = "plic",
	.compatible = plic_compatible,
	.stage = DRIVER_IRQCHIP,
	.probe = plic_probe,
};
