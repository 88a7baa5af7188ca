/* SPDX-License-Identifier: MIT */
/* What drivers under test ask of the kernel and of the architecture, on the host. */
#include <stdio.h>
#include <stdlib.h>

#include <arch/arch.h>
#include <kernel/log.h>
#include <kernel/panic.h>
#include <kernel/time.h>

/* Time passes by being asked for, so that a wait for what never comes ends at once. */
#define NS_PER_LOOK 100000u

uint64_t time_ns(void)
{
	static uint64_t now;

	return now += NS_PER_LOOK;
}

uint64_t time_after_ms(uint64_t ms)
{
	return time_ns() + ms * 1000000;
}

void timer_wake_by(uint64_t at_ns)
{
	(void)at_ns;
}

bool timer_can_wake(void)
{
	return true;
}

/* As in mm_port_host.c: "physical" is virtual. */
void *arch_phys_to_virt(uint64_t pa)
{
	return (void *)(uintptr_t)pa;
}

static void log_line(const char *fmt, va_list ap)
{
	printf("# ");
	vprintf(fmt, ap);
	printf("\n");
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
	abort();
}
