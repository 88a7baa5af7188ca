/* SPDX-License-Identifier: MIT */
/*
 * One-shot timer: the stimecmp register where the CPU has it (Sstc), else the
 * firmware. An expired timer stays pending until the next deadline is written;
 * so the trap code masks it, and arch_timer_set unmasks it.
 */
#include <arch/arch.h>

#include "riscv.h"
#include "sbi.h"

uint64_t arch_time_hz(void)
{
	return riscv_isa.timebase_hz;
}

void arch_timer_set(uint64_t deadline)
{
	if (deadline == UINT64_MAX) {
		csr_sie_clear(SIE_TIMER);
		return;
	}
	if (riscv_isa.sstc)
		__asm__ volatile("csrw 0x14d, %0" : : "r"(deadline) : "memory");
	else
		sbi_set_timer(deadline);
	csr_sie_set(SIE_TIMER);
}

void arch_irq_unmask_external(void)
{
	csr_sie_set(SIE_EXTERNAL);
}
