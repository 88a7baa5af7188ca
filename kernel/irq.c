/* SPDX-License-Identifier: MIT */
#include <kernel/irq.h>

#include <arch/arch.h>
#include <kernel/lock.h>
#include <kernel/log.h>

#include "kernel.h"

#define BUCKETS 64u
#define STORM	10000u /* interrupts without an end between them */

static struct irq_chip *chips;
static struct irq_action *actions[BUCKETS];
static uint64_t spurious;
static unsigned int in_a_row;
static struct spinlock lock;

void irq_register_chip(struct irq_chip *chip)
{
	chip->next = chips;
	chips = chip;
	arch_irq_unmask_external();
	log_info("irq: %s", chip->name);
}

static struct irq_chip *chip_of(uint32_t node)
{
	for (struct irq_chip *c = chips; c; c = c->next)
		if (c->node == node)
			return c;
	return NULL;
}

int irq_request(const struct fdt_node *node, uint32_t i, struct irq_action *a)
{
	struct irq_action **head;
	unsigned long state;
	struct fdt_irq spec;

	if (fdt_irq(node, i, &spec) < 0)
		return -1;
	a->chip = chip_of(spec.controller);
	if (!a->chip || a->chip->translate(a->chip, &spec, &a->hwirq) < 0)
		return -1;
	a->count = 0;
	head = &actions[a->hwirq % BUCKETS];
	state = spin_lock(&lock);
	a->next = *head;
	*head = a;
	a->chip->enable(a->chip, a->hwirq, &spec);
	spin_unlock(&lock, state);
	return 0;
}

static bool shared(const struct irq_action *a)
{
	for (const struct irq_action *p = actions[a->hwirq % BUCKETS]; p; p = p->next)
		if (p->chip == a->chip && p->hwirq == a->hwirq)
			return true;
	return false;
}

void irq_release(struct irq_action *a)
{
	unsigned long state = spin_lock(&lock);
	struct irq_action **p = &actions[a->hwirq % BUCKETS];

	while (*p && *p != a)
		p = &(*p)->next;
	if (*p) {
		*p = a->next;
		if (!shared(a))
			a->chip->disable(a->chip, a->hwirq);
	}
	spin_unlock(&lock, state);
}

/* A line that stays up whatever its handlers do would keep the CPU for good. */
static bool storms(const struct irq_chip *chip, uint32_t hwirq)
{
	if (++in_a_row < STORM)
		return false;
	in_a_row = 0;
	log_error("irq: %s %u does not end: off from now on", chip->name, hwirq);
	return true;
}

bool irq_deliver(struct irq_chip *chip, uint32_t hwirq)
{
	bool wanted = false;
	struct irq_action *a, *next;

	if (storms(chip, hwirq))
		return false;
	for (a = actions[hwirq % BUCKETS]; a; a = next) {
		next = a->next; /* a handler may release its own action */
		if (a->chip != chip || a->hwirq != hwirq)
			continue;
		wanted = true;
		a->count++;
		a->handler(a->ctx);
	}
	if (!wanted)
		spurious++;
	return wanted;
}

const struct irq_action *irq_next_action(const struct irq_action *a)
{
	unsigned int b = a ? a->hwirq % BUCKETS + 1 : 0;

	if (a && a->next)
		return a->next;
	for (; b < BUCKETS; b++)
		if (actions[b])
			return actions[b];
	return NULL;
}

uint64_t irq_spurious(void)
{
	return spurious;
}

void irq_handle_external(void)
{
	in_a_row = 0;
	for (struct irq_chip *c = chips; c; c = c->next)
		c->handle(c);
}
