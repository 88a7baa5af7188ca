/* SPDX-License-Identifier: MIT */
/*
 * From the loader to C in the high half. The loader is one of the Linux arm64
 * Image protocol (device tree in x0, MMU off, EL2 or EL1, one CPU), or one of
 * bare ELF files, which gives no tree and may enter at EL3 with all CPUs.
 *
 * From EL2 the kernel drops to non-secure EL1. From EL3 there is no firmware
 * under it, and it drops to secure EL1: only there does an interrupt controller
 * that nobody has set up let it have the interrupts.
 *
 * Memory is written with the MMU off before it is read through the caches:
 * what the loader left in the caches for these lines is invalidated before
 * (it could be written back over the new contents) and after (it could be
 * read in place of them).
 *
 * x19 device tree, x20 exception level at entry.
 */
#include "regs.h"
#include "sysreg.h"

	.section .head, "ax"
	.global	_start
_start:
	b	entry
	.word	0
	.quad	0			/* offset from a 2 MiB boundary */
	.quad	__image_size
	.quad	1 << 3 | 1 << 1		/* anywhere in memory; 4 KiB pages; little endian */
	.quad	0, 0, 0
	.ascii	"ARM\x64"
	.word	0

/* Invalidate the data cache over [x0, x1), multiples of the largest line. */
.macro invalidate
	dsb	sy
	mrs	x2, ctr_el0
	ubfx	x2, x2, #16, #4
	mov	x3, #4
	lsl	x2, x3, x2
0:	dc	ivac, x0
	add	x0, x0, x2
	cmp	x0, x1
	b.lo	0b
	dsb	sy
.endm

entry:
	msr	daifset, #0xf
	mov	x19, x0
	mrs	x20, CurrentEL
	lsr	x20, x20, #2
	cmp	x20, #2
	b.lo	at_el1
	b.eq	at_el2

at_el3:
	/* The first that comes boots. Nothing has started a cache: plain exclusives will do. */
	adrp	x1, boot_claimed
	add	x1, x1, :lo12:boot_claimed
	mov	w3, #1
1:	ldaxr	w2, [x1]
	cbnz	w2, park
	stlxr	w2, w3, [x1]
	cbnz	w2, 1b

	mov	x0, #(1 << 10 | 3 << 4)		/* EL1 is AArch64 and secure */
	msr	scr_el3, x0
	msr	cptr_el3, xzr
	mov	x0, #(1 << 17)			/* counters count in secure state */
	msr	mdcr_el3, x0
	mrs	x0, id_aa64pfr0_el1
	ubfx	x0, x0, #24, #4
	cbz	x0, 1f
	mov	x0, #0xf			/* ICC_SRE_EL3: system registers, here and below */
	msr	S3_6_C12_C12_5, x0
	isb
	mov	x0, #3				/* ICC_IGRPEN1_EL3: both groups 1 */
	msr	S3_6_C12_C12_7, x0
1:	bl	reset_el1
	mov	x0, #SPSR_EL1H
	msr	spsr_el3, x0
	adr	x0, at_el1
	msr	elr_el3, x0
	eret

at_el2:
	mov	x0, #(1 << 31)			/* EL1 is AArch64 */
	orr	x0, x0, #(3 << 40)		/* and may use pointer authentication */
	msr	hcr_el2, x0
	isb
	mov	x0, #3				/* EL1 may use both timers */
	msr	cnthctl_el2, x0
	msr	cntvoff_el2, xzr
	mov	x0, #0x33ff			/* no trap of floating point */
	msr	cptr_el2, x0
	msr	hstr_el2, xzr
	msr	vttbr_el2, xzr
	mrs	x0, midr_el1
	msr	vpidr_el2, x0
	mrs	x0, mpidr_el1
	msr	vmpidr_el2, x0

	/* All event counters belong to EL1, where there is a PMU of version 3. */
	mov	x1, xzr
	mrs	x0, id_aa64dfr0_el1
	ubfx	x0, x0, #8, #4
	sub	x0, x0, #1
	cmp	x0, #0xe
	b.hs	1f
	mrs	x1, pmcr_el0
	ubfx	x1, x1, #11, #5
1:	msr	mdcr_el2, x1

	mrs	x0, id_aa64pfr0_el1
	ubfx	x0, x0, #24, #4
	cbz	x0, 1f
	mrs	x0, S3_4_C12_C9_5		/* ICC_SRE_EL2 */
	mov	x1, #(1 << 3 | 1 << 0)		/* system registers, here and below */
	orr	x0, x0, x1
	msr	S3_4_C12_C9_5, x0
	isb
	mrs	x0, S3_4_C12_C9_5
	tbz	x0, #0, 1f			/* forbidden from above, and so is the next one */
	msr	S3_4_C12_C11_0, xzr		/* ICH_HCR_EL2 */

	/* No fine-grained traps, where there are any. */
1:	mrs	x0, id_aa64mmfr0_el1
	ubfx	x0, x0, #56, #4
	cbz	x0, 1f
	msr	S3_4_C1_C1_4, xzr		/* HFGRTR_EL2 */
	msr	S3_4_C1_C1_5, xzr		/* HFGWTR_EL2 */
	msr	S3_4_C1_C1_6, xzr		/* HFGITR_EL2 */
	msr	S3_4_C3_C1_4, xzr		/* HDFGRTR_EL2 */
	msr	S3_4_C3_C1_5, xzr		/* HDFGWTR_EL2 */
1:	bl	reset_el1
	mov	x0, #SPSR_EL1H
	msr	spsr_el2, x0
	adr	x0, at_el1
	msr	elr_el2, x0
	eret

reset_el1:
	ldr	x0, =SCTLR_OFF
	msr	sctlr_el1, x0
	ret

at_el1:
	msr	spsel, #1
	msr	cpacr_el1, xzr			/* the kernel has no floating point */

	/* Early page tables and a page of stack, all the memory that is used before the caches. */
	adrp	x1, __boot_stack_top
	sub	x0, x1, #4096
	mov	sp, x1
	invalidate
	adrp	x0, boot_tables
	adrp	x1, boot_tables + BOOT_TABLES_SIZE
	invalidate
	adrp	x0, boot_tables
1:	stp	xzr, xzr, [x0], #64
	stp	xzr, xzr, [x0, #-48]
	stp	xzr, xzr, [x0, #-32]
	stp	xzr, xzr, [x0, #-16]
	cmp	x0, x1
	b.lo	1b

	mov	x29, xzr
	mov	x0, x19
	ldr	x1, =__image_start
	bl	boot_map
	mov	x19, x0
	adrp	x0, boot_tables
	adrp	x1, boot_tables + BOOT_TABLES_SIZE
	invalidate

	/* MMU on: TTBR0 maps this code to itself, TTBR1 has the high half. */
	ldr	x0, =MAIR_EL1_VALUE
	msr	mair_el1, x0
	ldr	x0, =(TCR_TTBR0 | TCR_TTBR1)
	mrs	x1, id_aa64mmfr0_el1
	and	x1, x1, #7
	mov	x2, #PARANGE_48
	cmp	x1, x2
	csel	x1, x1, x2, lo
	bfi	x0, x1, #TCR_IPS_SHIFT, #3
	msr	tcr_el1, x0
	adrp	x0, boot_tables			/* table 0: root of the identity map */
	msr	ttbr0_el1, x0
	add	x0, x0, #4096			/* table 1: root of the high half */
	msr	ttbr1_el1, x0
	tlbi	vmalle1
	ic	iallu
	dsb	nsh
	isb
	ldr	x3, =high
	ldr	x4, =SCTLR_MMU_ON
	adrp	x1, _start
	msr	sctlr_el1, x4
	isb
	br	x3

high:
	adrp	x0, vectors
	add	x0, x0, :lo12:vectors
	msr	vbar_el1, x0
	isb
	adrp	x0, __emergency_stack_top	/* SP_EL1: exceptions */
	mov	sp, x0
	msr	spsel, #0			/* SP_EL0: everything else */
	adrp	x0, __boot_stack_top
	mov	sp, x0
	mov	x29, xzr
	mov	x30, xzr
	mov	x0, x19
	mov	x2, x20
	b	boot_high

park:
	wfe
	b	park

/*
 * void mmu_replace_root(uint64_t root_pa): called at its physical address, in the
 * identity map. Old and new table map the same addresses with blocks of
 * different size, so that they must not be in the TLB at the same time: between
 * the two the high half has no translation at all.
 */
	.global	mmu_replace_root
mmu_replace_root:
	mrs	x1, tcr_el1
	orr	x2, x1, #(1 << TCR_EPD1_BIT)
	msr	tcr_el1, x2
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	msr	ttbr1_el1, x0
	isb
	msr	tcr_el1, x1
	isb
	ret

	.ltorg

	.section .data.boot_claimed, "aw"
	.balign	4
boot_claimed:
	.word	0
