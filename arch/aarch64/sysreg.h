/* SPDX-License-Identifier: MIT */
/*
 * System registers: the values that boot gives them (for C and assembler), and
 * access by name. The name becomes part of an instruction, hence the macros.
 */
#ifndef AARCH64_SYSREG_H
#define AARCH64_SYSREG_H

/* MAIR_EL1: the index of a type is its position; enum arch_memtype has the same order. */
#define MAIR_NORMAL    0xff /* write-back, read and write allocate */
#define MAIR_NONCACHED 0x44
#define MAIR_DEVICE    0x04 /* nGnRE */
#define MAIR_EL1_VALUE (MAIR_NORMAL | MAIR_NONCACHED << 8 | MAIR_DEVICE << 16)

/* TCR_EL1: two halves of 48 bits, 4 KiB granule, tables in inner-shareable write-back memory. */
#define TCR_EPD0_BIT  7
#define TCR_EPD1_BIT  23
#define TCR_IPS_SHIFT 32
#define TCR_TTBR0     (16 | 1 << 8 | 1 << 10 | 3 << 12)
#define TCR_TTBR1     (16 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30)
#define PARANGE_48    5 /* without larger addresses (LPA) 48 bits is the most */

/* SCTLR_EL1: the bits that are one in ARMv8.0; MMU, caches and stack alignment check; W^X. */
#define SCTLR_OFF     0x30d00800
#define SCTLR_MMU_ON  (SCTLR_OFF | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12)
#define SCTLR_WXN_BIT 19

/* SPSR: EL1 on SP_EL1, everything masked. */
#define SPSR_EL1H 0x3c5

#ifndef __ASSEMBLER__

#include <stdint.h>

#define sysreg_read(name)                                                    \
	__extension__({                                                      \
		uint64_t value_;                                             \
		__asm__ volatile("mrs %0, " #name : "=r"(value_)::"memory"); \
		value_;                                                      \
	})

#define sysreg_write(name, value) \
	__asm__ volatile("msr " #name ", %0" ::"r"((uint64_t)(value)) : "memory")

static inline void isb(void)
{
	__asm__ volatile("isb" ::: "memory");
}

/* All stores are visible to the table walkers of all CPUs. */
static inline void dsb_ishst(void)
{
	__asm__ volatile("dsb ishst" ::: "memory");
}

/* All TLB maintenance before it is complete on all CPUs. */
static inline void dsb_ish(void)
{
	__asm__ volatile("dsb ish" ::: "memory");
}

#endif
#endif
