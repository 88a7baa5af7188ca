/* SPDX-License-Identifier: MIT */
/* The UART of SiFive's chips. */
#include "serial.h"

#include <arch/arch.h>

#define REG_TXDATA 0x00
#define REG_RXDATA 0x04
#define REG_TXCTRL 0x08
#define REG_RXCTRL 0x0c
#define REG_IE	   0x10
#define REG_END	   0x1c

#define TX_FULL	  (1u << 31)
#define RX_EMPTY  (1u << 31)
#define DATA_MASK 0xffu
#define ENABLE	  1u

static struct serial_port port;

static bool sifive_put(struct serial_port *p, uint8_t c)
{
	if (arch_read32(p->regs + REG_TXDATA) & TX_FULL)
		return false;
	arch_write32(p->regs + REG_TXDATA, c);
	return true;
}

/* Reading takes the character out, so the flag and the data come in one access. */
static int sifive_get(struct serial_port *p)
{
	uint32_t data = arch_read32(p->regs + REG_RXDATA);

	return data & RX_EMPTY ? -1 : (int)(data & DATA_MASK);
}

static void turn_on(volatile uint8_t *control)
{
	arch_write32(control, arch_read32(control) | ENABLE);
}

static int sifive_uart_probe(const struct fdt_node *node)
{
	if (serial_open(&port, node, REG_END) < 0)
		return -1;
	port.put = sifive_put;
	port.get = sifive_get;
	arch_write32(port.regs + REG_IE, 0);
	turn_on(port.regs + REG_TXCTRL);
	turn_on(port.regs + REG_RXCTRL);
	serial_start(&port, "sifive-uart");
	return 0;
}

static const char *const sifive_uart_compatible[] = {"sifive,uart0", NULL};

DRIVER(sifive_uart) = {
	.name = "sifive-uart",
	.compatible = sifive_uart_compatible,
	.stage = DRIVER_CONSOLE,
	.probe = sifive_uart_probe,
};
