/* SPDX-License-Identifier: MIT */
/* Interrupts of a device that does not stop: the console's, which has room for more to send. */
#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/irq.h>
#include <kernel/time.h>
#include <selftest/selftest.h>

#define WAIT_MS 2000u

/* Where a line that says "there is room" can be had, and how. */
static const struct {
	const char *compatible;
	uint32_t reg, value; /* enables it; 0 disables it */
	bool wide;
} uarts[] = {
	{"ns16550a", 1, 0x02, false},
	{"arm,pl011", 0x38, 0x20, true},
};

static void set(volatile uint8_t *regs, size_t i, bool on)
{
	uint32_t value = on ? uarts[i].value : 0;

	if (uarts[i].wide)
		arch_write32(regs + uarts[i].reg, value);
	else
		arch_write8(regs + uarts[i].reg, (uint8_t)value);
}

/* It does nothing about the device. */
static void ignore(void *ctx)
{
	++*(volatile unsigned int *)ctx;
}

/* The UART of the console; false: it is none of those that are known here. */
static bool find_uart(struct fdt_node *node, size_t *i)
{
	const char *options;

	if (fdt_stdout(kernel_fdt(), node, &options) < 0)
		return false;
	for (*i = 0; *i < sizeof(uarts) / sizeof(uarts[0]); ++*i)
		if (fdt_compatible(node, uarts[*i].compatible))
			return true;
	return false;
}

SELFTEST(kernel, irq_storm)
{
	volatile unsigned int came = 0;
	struct irq_action action = {.name = "storm", .handler = ignore, .ctx = (void *)&came};
	struct fdt_node node;
	volatile uint8_t *regs;
	uint64_t size, end;
	phys_addr_t base;
	unsigned int then;
	size_t i;

	if (!find_uart(&node, &i)) {
		selftest_skip("no UART whose interrupt would not end");
		return;
	}
	CHECK(!fdt_reg(&node, 0, &base, &size));
	regs = (volatile uint8_t *)io_map(base, (size_t)size);
	CHECK(regs);
	if (irq_request(&node, 0, &action) < 0) {
		selftest_skip("the UART's interrupt cannot be had");
		return;
	}
	end = time_after_ms(WAIT_MS);
	set(regs, i, true);
	while (!came && time_ns() < end)
		arch_relax();
	/* That we are here means that it has ended; and it does not begin again. (QEMU's PLIC tells
	 * once of a line that stays up; others, and the GIC, until they are told to stop.) */
	then = came;
	for (end = time_after_ms(10); time_ns() < end;)
		arch_relax();
	set(regs, i, false);
	irq_release(&action);
	CHECK(then && came == then);
}
