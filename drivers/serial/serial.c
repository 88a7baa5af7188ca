/* SPDX-License-Identifier: MIT */
/*
 * Serial consoles are found before there is memory to allocate, so each driver
 * has one static port, which the first node gets that it is offered
 * (driver_probe_console).
 *
 * The line settings are the firmware's: a kernel that does not know the input
 * clock cannot improve on them.
 */
#include "serial.h"

#include <arch/arch.h>

/* At 9600 baud a character takes 1 ms, which is fewer device accesses than this. */
#define PATIENCE 1000000u

int serial_open(struct serial_port *p, const struct fdt_node *node, uint64_t nbytes)
{
	uint32_t offset = 0;
	phys_addr_t base;
	uint64_t size;

	if (p->regs)
		return -1;
	fdt_get_u32(node, "reg-offset", &offset);
	if (fdt_reg(node, 0, &base, &size) < 0 || size < offset + nbytes) {
		log_error("%s: registers missing, or too few", fdt_name(node));
		return -1;
	}
	p->regs = (volatile uint8_t *)io_map((phys_addr_t){base.value + offset}, nbytes);
	return p->regs ? 0 : -1;
}

/* A line that takes nothing must not stop the kernel: it gets one long chance, then short ones. */
static void put_patiently(struct serial_port *p, uint8_t c)
{
	for (uint32_t i = 0; !p->put(p, c); i++) {
		if (p->stuck || i == PATIENCE) {
			p->stuck = true;
			return;
		}
		arch_relax();
	}
	p->stuck = false;
}

static struct serial_port *port_of(struct console *c)
{
	return (struct serial_port *)((char *)c - offsetof(struct serial_port, console));
}

static void serial_write(struct console *c, const char *s, size_t n)
{
	struct serial_port *p = port_of(c);

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\n')
			put_patiently(p, '\r');
		put_patiently(p, (uint8_t)s[i]);
	}
}

static int serial_getc(struct console *c)
{
	struct serial_port *p = port_of(c);

	return p->get(p);
}

void serial_start(struct serial_port *p, const char *name)
{
	p->console.name = name;
	p->console.write = serial_write;
	p->console.getc = serial_getc;
	console_register(&p->console);
}
