/* SPDX-License-Identifier: MIT */
#include <kernel/panic.h>

#include <arch/arch.h>
#include <kernel/power.h>
#include <kernel/selftest.h>
#include <kernel/symbols.h>

#include "kernel.h"

/* Set by the first panic: a panic inside it must not start over. */
static bool panicking;

void panic_begin(void)
{
	arch_irq_disable();
	log_break_lock();
	if (!panicking) {
		panicking = true;
		return;
	}
	kprintf("\npanic while panicking; stop\n");
	for (;;)
		arch_wait_for_interrupt();
}

void panic_end(void)
{
	selftest_crashed();
	power_off(1);
}

void panic(const char *fmt, ...)
{
	va_list ap;

	panic_begin();
	kprintf("\nPANIC: ");
	va_start(ap, fmt);
	kvprintf(fmt, ap);
	va_end(ap);
	kprintf("\n");
	backtrace_print(0, (uint64_t)(uintptr_t)arch_frame_pointer());
	panic_end();
}
