/* SPDX-License-Identifier: MIT */
/* Arm's UART: the PrimeCell PL011, and its subset for servers (SBSA), which has no settings. */
#include "serial.h"

#include <arch/arch.h>

#define REG_DATA 0x00
#define REG_FR	 0x18 /* flags */
#define REG_LCR	 0x2c /* line control; not in SBSA */
#define REG_CR	 0x30 /* control; not in SBSA */
#define REG_IMSC 0x38 /* interrupt mask */
#define REG_END	 0x48

#define FR_RX_EMPTY (1u << 4)
#define FR_TX_FULL  (1u << 5)
#define LCR_FIFO    (1u << 4)
#define LCR_8_BITS  (3u << 5)
#define CR_UART	    (1u << 0)
#define CR_TX	    (1u << 8)
#define CR_RX	    (1u << 9)
#define DATA_MASK   0xffu /* above: errors of the received character */

static struct serial_port port;

static bool pl011_put(struct serial_port *p, uint8_t c)
{
	if (arch_read32(p->regs + REG_FR) & FR_TX_FULL)
		return false;
	arch_write32(p->regs + REG_DATA, c);
	return true;
}

static int pl011_get(struct serial_port *p)
{
	if (arch_read32(p->regs + REG_FR) & FR_RX_EMPTY)
		return -1;
	return (int)(arch_read32(p->regs + REG_DATA) & DATA_MASK);
}

/* Firmware that used the UART left it on, with settings that work; else it is as reset left it. */
static void turn_on(const struct serial_port *p)
{
	uint32_t want = CR_UART | CR_TX | CR_RX;
	uint32_t cr = arch_read32(p->regs + REG_CR);

	if (!(cr & CR_UART))
		arch_write32(p->regs + REG_LCR, LCR_8_BITS | LCR_FIFO);
	if ((cr & want) != want)
		arch_write32(p->regs + REG_CR, cr | want);
}

static int pl011_probe(const struct fdt_node *node)
{
	if (serial_open(&port, node, REG_END) < 0)
		return -1;
	port.put = pl011_put;
	port.get = pl011_get;
	arch_write32(port.regs + REG_IMSC, 0);
	if (fdt_compatible(node, "arm,pl011"))
		turn_on(&port);
	serial_start(&port, "pl011");
	return 0;
}

static const char *const pl011_compatible[] = {"arm,pl011", "arm,sbsa-uart", NULL};

DRIVER(pl011) = {
	.name = "pl011",
	.compatible = pl011_compatible,
	.stage = DRIVER_CONSOLE,
	.probe = pl011_probe,
};
