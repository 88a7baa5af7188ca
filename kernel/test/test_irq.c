/* SPDX-License-Identifier: MIT */
/* Interrupts of a device that does not stop: the console's, which has room for more to send. */
#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/irq.h>
#include <kernel/time.h>
#include <selftest/selftest.h>

#define WAIT_MS 2000u

/* Where a line that says "there is room" can be had, and how. */
static const struct uart {
	const char *compatible;
	size_t reg;
	uint32_t value; /* enables it; 0 disables it */
	uint32_t width; /* of an access in bytes, unless the tree says */
} uarts[] = {
	{"ns16550a", 1, 0x02, 1},
	{"arm,pl011", 0x38, 0x20, 4},
};

static void set(volatile uint8_t *reg, const struct uart *u, bool on)
{
	uint32_t value = on ? u->value : 0;

	if (u->width == 4)
		arch_write32(reg, value);
	else if (u->width == 2)
		arch_write16(reg, (uint16_t)value);
	else
		arch_write8(reg, (uint8_t)value);
}

/* It does nothing about the device. */
static void ignore(void *ctx)
{
	++*(volatile unsigned int *)ctx;
}

static const struct uart *uart_of(const struct fdt_node *node)
{
	for (size_t i = 0; i < sizeof(uarts) / sizeof(uarts[0]); i++)
		if (fdt_compatible(node, uarts[i].compatible))
			return &uarts[i];
	return NULL;
}

/* The UART of the console; false: it is none of those that are known here. */
static bool find_uart(struct fdt_node *node, struct uart *u)
{
	const char *options;
	uint32_t shift = 0, offset = 0;

	if (fdt_stdout(kernel_fdt(), node, &options) < 0 || !uart_of(node))
		return false;
	*u = *uart_of(node);
	fdt_get_u32(node, "reg-io-width", &u->width);
	fdt_get_u32(node, "reg-shift", &shift);
	fdt_get_u32(node, "reg-offset", &offset);
	u->reg = offset + (u->reg << (shift & 7));
	return true;
}

SELFTEST(kernel, irq_storm)
{
	volatile unsigned int came = 0;
	struct irq_action action = {.name = "storm", .handler = ignore, .ctx = (void *)&came};
	struct fdt_node node;
	volatile uint8_t *reg;
	uint64_t size, end;
	phys_addr_t base;
	unsigned int then;
	struct uart uart;

	if (!find_uart(&node, &uart)) {
		selftest_skip("no UART whose interrupt would not end");
		return;
	}
	CHECK(!fdt_reg(&node, 0, &base, &size));
	base.value += uart.reg;
	reg = (volatile uint8_t *)io_map(base, uart.width);
	CHECK(reg);
	if (irq_request(&node, 0, &action) < 0) {
		selftest_skip("the UART's interrupt cannot be had");
		return;
	}
	end = time_after_ms(WAIT_MS);
	set(reg, &uart, true);
	while (!came && time_ns() < end)
		arch_relax();
	/* That we are here means that it has ended; and it does not begin again. (QEMU's PLIC tells
	 * once of a line that stays up; others, and the GIC, until they are told to stop.) */
	then = came;
	for (end = time_after_ms(10); time_ns() < end;)
		arch_relax();
	set(reg, &uart, false);
	irq_release(&action);
	CHECK(then && came == then);
}
