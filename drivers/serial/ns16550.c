/* SPDX-License-Identifier: MIT */
/* The UART of the PC and of everything after it: NS16550A and compatible. */
#include "serial.h"

#include <arch/arch.h>

enum reg {
	REG_DATA = 0,
	REG_IER = 1, /* interrupt enable */
	REG_FCR = 2, /* FIFO control */
	REG_LSR = 5, /* line status */
	REG_COUNT = 8,
};

#define FCR_ENABLE    0x01u
#define LSR_DATA      0x01u
#define LSR_TX_EMPTY  0x20u
#define MAX_REG_SHIFT 3u

static struct serial_port port;

static volatile uint8_t *reg_at(const struct serial_port *p, enum reg reg)
{
	return p->regs + ((size_t)reg << p->reg_shift);
}

static uint8_t reg_read(const struct serial_port *p, enum reg reg)
{
	if (!p->access_shift)
		return arch_read8(reg_at(p, reg));
	return (uint8_t)(p->access_shift == 1 ? arch_read16(reg_at(p, reg))
					      : arch_read32(reg_at(p, reg)));
}

static void reg_write(const struct serial_port *p, enum reg reg, uint8_t value)
{
	if (!p->access_shift)
		arch_write8(reg_at(p, reg), value);
	else if (p->access_shift == 1)
		arch_write16(reg_at(p, reg), value);
	else
		arch_write32(reg_at(p, reg), value);
}

static bool ns16550_put(struct serial_port *p, uint8_t c)
{
	if (!(reg_read(p, REG_LSR) & LSR_TX_EMPTY))
		return false;
	reg_write(p, REG_DATA, c);
	return true;
}

static int ns16550_get(struct serial_port *p)
{
	return reg_read(p, REG_LSR) & LSR_DATA ? reg_read(p, REG_DATA) : -1;
}

/* Accesses of 1, 2 or 4 bytes, which do not overlap. */
static bool can_access(uint32_t shift, uint32_t width)
{
	return shift <= MAX_REG_SHIFT && width >= 1 && width <= 4 && width != 3 &&
	       width <= 1u << shift;
}

static int ns16550_probe(const struct fdt_node *node)
{
	uint32_t shift = 0, width = 1;

	fdt_get_u32(node, "reg-shift", &shift);
	fdt_get_u32(node, "reg-io-width", &width);
	if (!can_access(shift, width)) {
		log_error("%s: cannot do with reg-shift %u and reg-io-width %u", fdt_name(node),
			  shift, width);
		return -1;
	}
	if (serial_open(&port, node, (uint64_t)REG_COUNT << shift) < 0)
		return -1;
	port.reg_shift = shift;
	port.access_shift = width / 2; /* of 1, 2 and 4 */
	port.put = ns16550_put;
	port.get = ns16550_get;
	reg_write(&port, REG_IER, 0);
	reg_write(&port, REG_FCR, FCR_ENABLE);
	serial_start(&port, "ns16550");
	return 0;
}

static const char *const ns16550_compatible[] = {"ns16550a", "ns16550", NULL};

DRIVER(ns16550) = {
	.name = "ns16550",
	.compatible = ns16550_compatible,
	.stage = DRIVER_CONSOLE,
	.probe = ns16550_probe,
};
