/* SPDX-License-Identifier: MIT */
/* The virtual timer: it is there at EL1 whoever runs above. */
#include <arch/arch.h>

#include "boot.h"
#include "sysreg.h"

#define CTL_ENABLE 1u

uint64_t timer_tree_hz;

/* It is firmware that writes the register. Where we are the firmware, the tree has to know. */
uint64_t arch_time_hz(void)
{
	uint64_t hz = sysreg_read(cntfrq_el0);

	return hz ? hz : timer_tree_hz;
}

void arch_timer_set(uint64_t deadline)
{
	sysreg_write(cntv_cval_el0, deadline);
	sysreg_write(cntv_ctl_el0, deadline == UINT64_MAX ? 0 : CTL_ENABLE);
	isb();
}

void arch_irq_unmask_external(void)
{
}
