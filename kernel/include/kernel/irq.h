/* SPDX-License-Identifier: MIT */
/*
 * Interrupts: controllers register themselves, drivers ask for the interrupt
 * that the tree gives their node. No table with a capacity: actions are linked,
 * and owned by whoever asked.
 */
#ifndef KERNEL_IRQ_H
#define KERNEL_IRQ_H

#include <kernel/fdt.h>

struct irq_chip {
	const char *name;
	uint32_t node; /* fdt_id() of its node */
	/* Number at this controller for the cells of the tree; negative: not understood. */
	int (*translate)(struct irq_chip *chip, const struct fdt_irq *spec, uint32_t *hwirq);
	void (*enable)(struct irq_chip *chip, uint32_t hwirq, const struct fdt_irq *spec);
	void (*disable)(struct irq_chip *chip, uint32_t hwirq);
	/* Claim, irq_deliver() and complete whatever is pending. Interrupts are off. */
	void (*handle)(struct irq_chip *chip);
	struct irq_chip *next; /* private */
};

struct irq_action {
	const char *name;
	void (*handler)(void *ctx); /* interrupts off, on the interrupt stack where there is one */
	void *ctx;
	/* private */
	struct irq_chip *chip;
	uint32_t hwirq;
	uint64_t count;
	struct irq_action *next;
};

void irq_register_chip(struct irq_chip *chip);

/* Connect and enable interrupt i of a node. The action stays the caller's. Negative: no such
 * interrupt. */
int irq_request(const struct fdt_node *node, uint32_t i, struct irq_action *action);

/* Disable and forget; returns when no handler of it runs on this CPU. */
void irq_release(struct irq_action *action);

/*
 * Called by a controller: run the handlers of one interrupt. False: the controller disables it, for
 * nobody wants it (and that is counted), or its line does not fall whatever they do (and that is
 * logged; whoever waits for it must do with the time).
 */
bool irq_deliver(struct irq_chip *chip, uint32_t hwirq);

/* For the prompt: the actions one by one, NULL to begin; chip of action via ->chip. */
const struct irq_action *irq_next_action(const struct irq_action *a);
uint64_t irq_spurious(void);

#endif
