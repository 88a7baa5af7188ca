/* SPDX-License-Identifier: MIT */
/*
 * Text goes to every registered console. What was said before the first one
 * came is kept, and shown when it comes. A panic does not wait for one: then the
 * firmware's console (arch_early_puts) shows everything, where there is one.
 */
#include <kernel/log.h>

#include <arch/arch.h>
#include <kernel/lock.h>
#include <kernel/time.h>
#include <lib/format.h>
#include <lib/string.h>

#include "kernel.h"

#define EARLY_SIZE 2048

static struct console *consoles;
static struct spinlock lock;
static char early[EARLY_SIZE];
static size_t early_len;
static bool firmware_shows; /* no console came in time: the firmware's has to do */

/* What does not fit is lost; boot says little before the first console. */
static void keep_early(const char *s, size_t n)
{
	size_t room = EARLY_SIZE - early_len;

	if (n > room)
		n = room;
	memcpy(early + early_len, s, n);
	early_len += n;
}

/* Pieces are not terminated, and the firmware wants them so. */
static void put_firmware(const char *s, size_t n)
{
	char piece[64];

	while (n) {
		size_t len = n < sizeof(piece) - 1 ? n : sizeof(piece) - 1;

		memcpy(piece, s, len);
		piece[len] = '\0';
		arch_early_puts(piece);
		s += len;
		n -= len;
	}
}

static void put_consoles(void *ctx, const char *s, size_t n)
{
	(void)ctx;
	if (firmware_shows)
		put_firmware(s, n);
	else if (!consoles)
		keep_early(s, n);
	for (struct console *c = consoles; c; c = c->next)
		c->write(c, s, n);
}

void kvprintf(const char *fmt, va_list ap)
{
	unsigned long state = spin_lock(&lock);

	format_text(put_consoles, NULL, fmt, ap);
	spin_unlock(&lock, state);
}

void kprintf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	kvprintf(fmt, ap);
	va_end(ap);
}

static void log_line(const char *prefix, const char *fmt, va_list ap)
{
	uint64_t us = time_ns() / 1000;
	unsigned long state = spin_lock(&lock);
	char stamp[32];

	format_buf(stamp, sizeof(stamp), "[%3lu.%06lu] %s", us / 1000000, us % 1000000, prefix);
	put_consoles(NULL, stamp, strlen(stamp));
	format_text(put_consoles, NULL, fmt, ap);
	put_consoles(NULL, "\n", 1);
	spin_unlock(&lock, state);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("", fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("warning: ", fmt, ap);
	va_end(ap);
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("error: ", fmt, ap);
	va_end(ap);
}

void console_register(struct console *c)
{
	unsigned long state = spin_lock(&lock);

	c->next = consoles;
	consoles = c;
	if (!c->next && early_len)
		c->write(c, early, early_len);
	spin_unlock(&lock, state);
}

int console_getc(void)
{
	for (struct console *c = consoles; c; c = c->next) {
		int ch = c->getc ? c->getc(c) : -1;

		if (ch >= 0)
			return ch;
	}
	return firmware_shows ? arch_early_getc() : -1;
}

static void use_firmware(void)
{
	if (consoles || firmware_shows)
		return;
	firmware_shows = true;
	put_firmware(early, early_len);
	early_len = 0;
}

void log_consoles_probed(void)
{
	unsigned long state = spin_lock(&lock);

	use_firmware();
	spin_unlock(&lock, state);
}

void log_break_lock(void)
{
	lock.word = 0;
	use_firmware();
}
