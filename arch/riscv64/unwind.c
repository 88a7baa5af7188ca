/* SPDX-License-Identifier: MIT */
/*
 * Frames linked through s0: the return address lies at s0 - 8, the caller's s0
 * at s0 - 16. Memory is read with arch_probe_read, since after a crash s0 may be anything.
 */
#include <arch/arch.h>

#include "riscv.h"

bool arch_unwind(uint64_t *fp, uint64_t *pc)
{
	uint64_t ra, up;

	if (!*fp || *fp % 16 || arch_probe_read(*fp - 8, &ra) || arch_probe_read(*fp - 16, &up))
		return false;
	if (ra < (uintptr_t)__text_start || ra >= (uintptr_t)__text_end)
		return false;
	*fp = up;
	*pc = ra;
	return true;
}
