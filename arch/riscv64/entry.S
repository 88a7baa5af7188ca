/* SPDX-License-Identifier: MIT */
/*
 * Where firmware enters: hart id in a0, physical address of the device tree in a1,
 * MMU off, at __image_start, wherever that was loaded (a multiple of 2 MiB).
 * The first 64 bytes are the header of a RISC-V Linux Image, which U-Boot reads.
 *
 * Turning on paging needs no identity map: stvec points to the high half, and
 * the first instruction fetch after the write of satp faults to there. A mode
 * that the CPU lacks makes the write void, so the next one is tried.
 */
#include "riscv.h"

	.section .head, "ax", %progbits
	.option	push
	.option	norvc
	.globl	_start
_start:
	j	start
	nop
	.quad	0x200000		/* preferred offset from the start of RAM */
	.quad	__image_size
	.quad	0			/* flags: little endian */
	.word	2			/* header version 0.2 */
	.word	0
	.quad	0
	.ascii	"RISCV\0\0\0"
	.ascii	"RSC\x05"
	.word	0
	.option	pop

	.balign	8
image_va:
	.quad	__image_start
high_va:
	.quad	high

start:
	csrw	sie, zero
	csrci	sstatus, 2
	/* Firmware without HSM starts all harts here: the first one boots. */
	lla	t0, boot_taken
	li	t1, 1
	amoadd.w.aqrl t1, t1, (t0)
	bnez	t1, park

	mv	s0, a0
	mv	s1, a1
	lla	t0, __bss_start		/* both ends are multiples of 64 */
	lla	t1, __bss_end
1:	sd	zero, 0(t0)
	sd	zero, 8(t0)
	sd	zero, 16(t0)
	sd	zero, 24(t0)
	sd	zero, 32(t0)
	sd	zero, 40(t0)
	sd	zero, 48(t0)
	sd	zero, 56(t0)
	addi	t0, t0, 64
	bltu	t0, t1, 1b

	lla	sp, __boot_stack_top
	lla	s2, __image_start
	mv	a0, s2
	ld	a1, image_va
	mv	a2, s1
	call	riscv_boot_map
	bnez	a0, fail

	ld	t0, high_va
	csrw	stvec, t0
	/* Three roots, of Sv39 first. */
	lla	s3, riscv_early_root + TABLE_SIZE * (RISCV_FIRST_MODE - SATP_SV39)
	li	s4, RISCV_FIRST_MODE
	li	t2, TABLE_SIZE
	li	t3, SATP_SV39
	sfence.vma
2:	slli	t0, s4, SATP_MODE_SHIFT
	srli	t1, s3, 12
	or	t0, t0, t1
	csrw	satp, t0		/* if that works, go on at high */
	addi	s4, s4, -1
	sub	s3, s3, t2
	bgeu	s4, t3, 2b

	lla	a0, no_paging
fail:
	call	riscv_boot_fail

	.balign	4
high:
	lla	sp, __boot_stack_top
	lla	tp, riscv_boot_cpu
	lla	t0, riscv_trap_entry
	csrw	stvec, t0
	mv	a0, s0
	mv	a1, s1
	mv	a2, s2
	mv	a3, s4
	li	s0, 0			/* the outermost frame */
	li	ra, 0
	tail	riscv_boot_high

	.balign	4
park:
	wfi
	j	park

	.section .rodata
no_paging:
	.asciz	"Mica: this CPU has none of Sv57, Sv48, Sv39\n"

	/* Not in .bss, which the winner clears. */
	.section .data
	.balign	4
boot_taken:
	.word	0

	.section .note.GNU-stack, "", %progbits
