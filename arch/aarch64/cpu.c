/* SPDX-License-Identifier: MIT */
/* This CPU, and the firmware under it (PSCI). */
#include <arch/arch.h>
#include <lib/format.h>
#include <lib/string.h>

#include "boot.h"
#include "sysreg.h"

#define PSCI_SYSTEM_OFF	  0x84000008u
#define PSCI_SYSTEM_RESET 0x84000009u

#define MPIDR_AFFINITY 0xff00ffffffu

#define PMCR_ENABLE    (1u << 0)
#define PMCR_RESET     (1u << 2) /* the cycle counter */
#define PMCR_LONG      (1u << 6) /* which has 64 bits */
#define PMCNTEN_CYCLES (1u << 31)

enum psci_conduit { PSCI_NONE, PSCI_HVC, PSCI_SMC };

bool arch_has_cycle_counter;
static enum psci_conduit psci;

/* No console is known before the device tree is read. */
void arch_early_puts(const char *s)
{
	(void)s;
}

int arch_early_getc(void)
{
	return -1;
}

uint64_t arch_boot_cpu_hwid(void)
{
	return sysreg_read(mpidr_el1) & MPIDR_AFFINITY;
}

static enum psci_conduit conduit_of(const char *method)
{
	if (method && !strcmp(method, "hvc"))
		return PSCI_HVC;
	if (method && !strcmp(method, "smc"))
		return PSCI_SMC;
	return PSCI_NONE;
}

/* Version 3 of the PMU or later; 15 is one that is not architected. */
static bool has_pmu(void)
{
	uint64_t version = sysreg_read(id_aa64dfr0_el1) >> 8 & 0xf;

	return version && version != 0xf;
}

static void start_cycle_counter(void)
{
	sysreg_write(pmccfiltr_el0, 0);
	sysreg_write(pmcntenset_el0, PMCNTEN_CYCLES);
	sysreg_write(pmcr_el0, PMCR_ENABLE | PMCR_RESET | PMCR_LONG);
	isb();
}

void arch_set_boot_info(const struct arch_boot_info *info)
{
	timer_tree_hz = info->timer_hz;
	psci = conduit_of(info->psci_method);
	arch_has_cycle_counter = has_pmu();
	if (arch_has_cycle_counter)
		start_cycle_counter();
}

void arch_describe(char *buf, size_t size)
{
	static const char *const conduits[] = {"no PSCI", "PSCI by hvc", "PSCI by smc"};
	bool gic = sysreg_read(id_aa64pfr0_el1) >> 24 & 0xf;

	format_buf(buf, size, "AArch64 %08lx, entered at EL%u, %s, %s, %s", sysreg_read(midr_el1),
		   boot_entry_el, conduits[psci], gic ? "GIC registers" : "no GIC registers",
		   arch_has_cycle_counter ? "cycle counter" : "no cycle counter");
}

/* The firmware may use the registers that a procedure call may. */
static void psci_call(uint32_t function)
{
	register uint64_t x0 __asm__("x0") = function;

	if (psci == PSCI_HVC)
		__asm__ volatile("hvc #0"
				 : "+r"(x0)::"memory", "x1", "x2", "x3", "x4", "x5", "x6", "x7",
				   "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16",
				   "x17");
	else if (psci == PSCI_SMC)
		__asm__ volatile("smc #0"
				 : "+r"(x0)::"memory", "x1", "x2", "x3", "x4", "x5", "x6", "x7",
				   "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16",
				   "x17");
}

void arch_poweroff(void)
{
	psci_call(PSCI_SYSTEM_OFF);
}

void arch_reboot(void)
{
	psci_call(PSCI_SYSTEM_RESET);
}
