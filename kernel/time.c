/* SPDX-License-Identifier: MIT */
/* The system counter as nanoseconds since boot, and one timer that kernel code shares. */
#include <kernel/time.h>

#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/irq.h>
#include <kernel/panic.h>
#include <lib/format.h>

#include "kernel.h"

#define NS_PER_S    1000000000u
#define TRY_MS	    10u
#define VIRTUAL_IRQ 2u /* of an Arm timer whose interrupts have no names */

static uint64_t boot_ticks;
static uint64_t interrupts;
static void (*armed)(void);
static uint64_t armed_at, wake_at; /* ns since boot; 0: none */
static struct irq_action timer_action;

static uint64_t ticks_to_ns(uint64_t ticks)
{
	uint64_t hz = arch_time_hz();

	if (!hz)
		return 0;
	return ticks / hz * NS_PER_S + ticks % hz * NS_PER_S / hz;
}

static uint64_t ns_to_ticks(uint64_t ns)
{
	uint64_t hz = arch_time_hz();

	return ns / NS_PER_S * hz + ns % NS_PER_S * hz / NS_PER_S;
}

uint64_t time_ns(void)
{
	return ticks_to_ns(arch_time_now() - boot_ticks);
}

uint64_t time_after_ms(uint64_t ms)
{
	return time_ns() + ms * 1000000;
}

/* The hardware has one deadline: the earlier one. A tick more: rounding must not make it early. */
static void program_timer(void)
{
	uint64_t at = armed_at;

	if (wake_at && (!at || wake_at < at))
		at = wake_at;
	arch_timer_set(at ? boot_ticks + ns_to_ticks(at) + 1 : UINT64_MAX);
}

void timer_arm(uint64_t at_ns, void (*fn)(void))
{
	unsigned long state = arch_irq_save();

	armed = at_ns ? fn : NULL;
	armed_at = at_ns;
	program_timer();
	arch_irq_restore(state);
}

void timer_wake_by(uint64_t at_ns)
{
	unsigned long state = arch_irq_save();

	wake_at = at_ns;
	program_timer();
	arch_irq_restore(state);
}

bool timer_can_wake(void)
{
	return timer_interrupts() != 0;
}

uint64_t timer_interrupts(void)
{
	return __atomic_load_n(&interrupts, __ATOMIC_RELAXED);
}

static void on_timer(void *ctx)
{
	uint64_t now = time_ns();
	void (*fn)(void) = NULL;

	(void)ctx;
	interrupts++;
	if (wake_at <= now)
		wake_at = 0;
	if (armed_at && armed_at <= now) {
		fn = armed;
		armed_at = 0;
	}
	program_timer();
	if (fn)
		fn();
}

void kernel_irq(enum arch_irq_kind kind)
{
	if (kind == ARCH_IRQ_TIMER)
		on_timer(NULL);
	else if (kind == ARCH_IRQ_EXTERNAL)
		irq_handle_external();
}

static uint32_t virtual_irq(const struct fdt_node *node)
{
	struct fdt_value names = fdt_get(node, "interrupt-names");

	if (!names.data)
		return VIRTUAL_IRQ;
	/* None of that name becomes a number that no interrupt has. */
	return (uint32_t)strlist_index((const char *)names.data, names.len, "virt");
}

/* AArch64: the timer is an interrupt of the controller. Whether it comes, time_try finds out. */
static int arm_timer_probe(const struct fdt_node *node)
{
	timer_action = (struct irq_action){.name = "timer", .handler = on_timer};
	return irq_request(node, virtual_irq(node), &timer_action);
}

static const char *const arm_timer_names[] = {"arm,armv8-timer", NULL};

DRIVER(arm_timer) = {
	.name = "arm_timer",
	.compatible = arm_timer_names,
	.stage = DRIVER_TIMER,
	.probe = arm_timer_probe,
};

void time_init(void)
{
	boot_ticks = arch_time_now();
}

void time_start(void)
{
	uint64_t hz = arch_time_hz();

	if (!hz)
		panic("time: nothing says how fast the counter counts");
	if (hz > UINT64_MAX / NS_PER_S) /* what is computed with it would not fit */
		panic("time: a counter of %lu Hz is beyond belief", hz);
	arch_timer_set(UINT64_MAX);
}

/* A deadline that is over: the interrupt comes at once or never. */
void time_try(void)
{
	uint64_t end = time_after_ms(TRY_MS);

	timer_wake_by(1);
	while (!timer_can_wake() && time_ns() < end)
		arch_relax();
	if (timer_can_wake())
		return;
	timer_wake_by(0);
	log_warn("timer: no interrupt; tests run without a hang limit");
}
