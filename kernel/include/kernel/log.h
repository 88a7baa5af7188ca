/* SPDX-License-Identifier: MIT */
/* The log: one line a call on every console there is, and in a ring for what came before them. */
#ifndef KERNEL_LOG_H
#define KERNEL_LOG_H

#include <stdarg.h>
#include <stddef.h>

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* Text without a line break at its end is possible: the monitor and KTAP use it. Any context. */
void kprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
void kvprintf(const char *fmt, va_list ap);

/* A line with the time since boot. Any context. */
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A device that shows characters. Registered once; the structure stays the driver's. */
struct console {
	const char *name;
	/* Any context, interrupts on or off; must not log. */
	void (*write)(struct console *c, const char *s, size_t n);
	/* -1: nothing there. */
	int (*getc)(struct console *c);
	struct console *next; /* private */
};
void console_register(struct console *c);
int console_getc(void);

#endif
