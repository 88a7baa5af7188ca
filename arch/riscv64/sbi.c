/* SPDX-License-Identifier: MIT */
/*
 * Firmware services. Extensions of SBI 0.2 and later are asked for; those of
 * SBI 0.1 ("legacy") serve where a newer one is missing. arch_early_puts runs
 * before paging too, hence nothing here depends on where the code is.
 */
#include <arch/arch.h>

#include "riscv.h"
#include "sbi.h"

enum {
	EXT_LEGACY_SET_TIMER = 0x0,
	EXT_LEGACY_PUTCHAR = 0x1,
	EXT_LEGACY_GETCHAR = 0x2,
	EXT_LEGACY_SHUTDOWN = 0x8,
	EXT_BASE = 0x10,
	EXT_CONSOLE = 0x4442434e, /* "DBCN" */
	EXT_RESET = 0x53525354,	  /* "SRST" */
	EXT_FENCE = 0x52464e43,	  /* "RFNC" */
	EXT_TIME = 0x54494d45,	  /* "TIME" */
};

enum {
	BASE_IMPLEMENTATION = 1,
	BASE_VERSION = 2,
	BASE_PROBE = 3,
	CONSOLE_READ = 1,
	CONSOLE_WRITE_BYTE = 2,
	FENCE_SFENCE_VMA = 1,
	RESET_SHUTDOWN = 0,
	RESET_COLD_REBOOT = 1,
};

#define ALL_HARTS UINT64_MAX

static bool has_extension(uint64_t extension)
{
	struct sbi_result r = sbi_call(EXT_BASE, BASE_PROBE, extension, 0, 0, 0);

	return !r.error && r.value;
}

void arch_early_puts(const char *s)
{
	bool modern = has_extension(EXT_CONSOLE);

	for (; *s; s++) {
		if (modern)
			sbi_call(EXT_CONSOLE, CONSOLE_WRITE_BYTE, (uint8_t)*s, 0, 0, 0);
		else
			sbi_call(EXT_LEGACY_PUTCHAR, 0, (uint8_t)*s, 0, 0, 0);
	}
}

int arch_early_getc(void)
{
	static volatile uint8_t typed; /* the firmware writes it */
	uint64_t pa = arch_virt_to_phys((const void *)&typed);
	struct sbi_result r;

	if (!has_extension(EXT_CONSOLE))
		return (int)sbi_call(EXT_LEGACY_GETCHAR, 0, 0, 0, 0, 0).error;
	r = sbi_call(EXT_CONSOLE, CONSOLE_READ, sizeof(typed), pa, 0, 0);
	return !r.error && r.value == sizeof(typed) ? typed : -1;
}

void sbi_set_timer(uint64_t deadline)
{
	if (sbi_call(EXT_TIME, 0, deadline, 0, 0, 0).error)
		sbi_call(EXT_LEGACY_SET_TIMER, 0, deadline, 0, 0, 0);
}

int sbi_remote_sfence(uintptr_t va, uint64_t nbytes)
{
	return (int)sbi_call(EXT_FENCE, FENCE_SFENCE_VMA, 0, ALL_HARTS, va, nbytes).error;
}

const char *sbi_implementation(uint64_t *version)
{
	static const char *const names[] = {
		"BBL",	  "OpenSBI", "Xvisor", "KVM",	    "RustSBI",
		"Diosix", "Coffer",  "Xen",    "PolarFire", "coreboot",
	};
	uint64_t id = (uint64_t)sbi_call(EXT_BASE, BASE_IMPLEMENTATION, 0, 0, 0, 0).value;

	*version = (uint64_t)sbi_call(EXT_BASE, BASE_VERSION, 0, 0, 0, 0).value;
	return id < sizeof(names) / sizeof(names[0]) ? names[id] : NULL;
}

void arch_poweroff(void)
{
	sbi_call(EXT_RESET, 0, RESET_SHUTDOWN, 0, 0, 0);
	sbi_call(EXT_LEGACY_SHUTDOWN, 0, 0, 0, 0, 0);
}

void arch_reboot(void)
{
	sbi_call(EXT_RESET, 0, RESET_COLD_REBOOT, 0, 0, 0);
}
