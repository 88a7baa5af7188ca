/* SPDX-License-Identifier: MIT */
/* Data cache maintenance by address, to the point of coherency. */
#include <arch/arch.h>

#include "sysreg.h"

/* The smallest line of all data caches, bytes. */
static uintptr_t line_size(void)
{
	return (uintptr_t)4 << (sysreg_read(ctr_el0) >> 16 & 0xf);
}

bool arch_cache_has_flush(void)
{
	return true;
}

int arch_cache_flush(uintptr_t va, size_t nbytes)
{
	uintptr_t line = line_size();
	uintptr_t end = va + nbytes;

	for (va &= ~(line - 1); va < end; va += line)
		__asm__ volatile("dc civac, %0" ::"r"(va) : "memory");
	__asm__ volatile("dsb sy" ::: "memory");
	return 0;
}
