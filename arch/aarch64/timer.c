/* SPDX-License-Identifier: MIT */
/* The virtual timer: it is there at EL1 whoever runs above. */
#include <arch/arch.h>

#include "sysreg.h"

#define CTL_ENABLE 1u

uint64_t arch_time_hz(void)
{
	return sysreg_read(cntfrq_el0);
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
