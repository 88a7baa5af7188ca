/* SPDX-License-Identifier: MIT */
/* The CPU interface of a GIC version 3. Registers by encoding: older assemblers lack the names. */
#include <arch/arch.h>

#define ICC_PMR	    "S3_0_C4_C6_0"
#define ICC_IAR1    "S3_0_C12_C12_0"
#define ICC_EOIR1   "S3_0_C12_C12_1"
#define ICC_AP1R0   "S3_0_C12_C9_0"
#define ICC_AP1R1   "S3_0_C12_C9_1"
#define ICC_AP1R2   "S3_0_C12_C9_2"
#define ICC_AP1R3   "S3_0_C12_C9_3"
#define ICC_BPR1    "S3_0_C12_C12_3"
#define ICC_CTLR    "S3_0_C12_C12_4"
#define ICC_SRE	    "S3_0_C12_C12_5"
#define ICC_IGRPEN1 "S3_0_C12_C12_7"

#define SRE_ENABLE   1ul
#define GROUP_ENABLE 1ul
#define CTLR_PRIBITS 8	/* ICC_CTLR_EL1: bits of a priority, less one */
#define PFR0_GIC     24 /* ID_AA64PFR0_EL1: system registers exist */

static bool has_sysregs(void)
{
	uint64_t pfr0;

	__asm__("mrs %0, id_aa64pfr0_el1" : "=r"(pfr0));
	return pfr0 >> PFR0_GIC & 0xf;
}

/* A higher exception level may have forbidden them; the bit then stays clear. */
static bool enable_sysregs(void)
{
	uint64_t sre;

	__asm__ volatile("mrs %0, " ICC_SRE : "=r"(sre));
	if (sre & SRE_ENABLE)
		return true;
	__asm__ volatile("msr " ICC_SRE ", %0\n\tisb" : : "r"(sre | SRE_ENABLE) : "memory");
	__asm__ volatile("mrs %0, " ICC_SRE : "=r"(sre));
	return sre & SRE_ENABLE;
}

/* What firmware left active would hold ours back. A register for each 32 priorities of a group. */
static void clear_active_priorities(void)
{
	unsigned int bits;
	uint64_t ctlr;

	__asm__ volatile("mrs %0, " ICC_CTLR : "=r"(ctlr));
	bits = (unsigned int)(ctlr >> CTLR_PRIBITS & 7) + 1;
	__asm__ volatile("msr " ICC_AP1R0 ", xzr");
	if (bits >= 6)
		__asm__ volatile("msr " ICC_AP1R1 ", xzr");
	if (bits >= 7)
		__asm__ volatile("msr " ICC_AP1R2 ", xzr\n\tmsr " ICC_AP1R3 ", xzr");
}

bool arch_gicv3_init(unsigned int lowest_priority)
{
	if (!has_sysregs() || !enable_sysregs())
		return false;
	clear_active_priorities();
	__asm__ volatile("msr " ICC_PMR ", %0" : : "r"((uint64_t)lowest_priority));
	__asm__ volatile("msr " ICC_BPR1 ", xzr");
	__asm__ volatile("msr " ICC_CTLR ", xzr"); /* one write both drops and deactivates */
	__asm__ volatile("msr " ICC_IGRPEN1 ", %0\n\tisb" : : "r"(GROUP_ENABLE) : "memory");
	return true;
}

/* The barrier keeps what the handler reads of the device behind the acknowledgement. */
uint32_t arch_gicv3_acknowledge(void)
{
	uint64_t intid;

	__asm__ volatile("mrs %0, " ICC_IAR1 "\n\tdsb sy" : "=r"(intid) : : "memory");
	return (uint32_t)intid & 0xffffffu;
}

void arch_gicv3_end(uint32_t intid)
{
	__asm__ volatile("dsb sy\n\tmsr " ICC_EOIR1 ", %0\n\tisb"
			 :
			 : "r"((uint64_t)intid)
			 : "memory");
}
