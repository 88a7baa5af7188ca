/* SPDX-License-Identifier: MIT */
/* What all serial consoles share: registers, line ends, and a line that is stuck. */
#ifndef SERIAL_SERIAL_H
#define SERIAL_SERIAL_H

#include <kernel/driver.h>

struct serial_port {
	struct console console;
	volatile uint8_t *regs;
	unsigned int reg_shift;	   /* registers are 1 << reg_shift bytes apart, where that varies */
	unsigned int access_shift; /* they are read and written 1 << access_shift bytes at a time */
	bool stuck;		   /* the last character did not go out in time */

	/* Set by the driver before serial_start. */
	bool (*put)(struct serial_port *p, uint8_t c); /* false: no room at the moment */
	int (*get)(struct serial_port *p);	       /* -1: nothing there */
};

/*
 * Map nbytes of a node's registers. Negative: it has not so many, which is logged, or
 * the port is in use.
 */
int serial_open(struct serial_port *p, const struct fdt_node *node, uint64_t nbytes);

/* Make it a console of the kernel. */
void serial_start(struct serial_port *p, const char *name);

#endif
