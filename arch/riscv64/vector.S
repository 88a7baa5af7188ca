/* SPDX-License-Identifier: MIT */
/*
 * Trap entry. The kernel is never left, so tp always points to this CPU's
 * struct riscv_cpu, which lends two words until registers are saved.
 *
 * A trap whose fault address lies within a page of sp may mean that there is no
 * stack there: a guard page was hit, by the interrupted code or by the stores below.
 * It goes on on the emergency stack. If that is in use already, nothing can be
 * saved any more: print a line and stop.
 */
#include "riscv.h"

	.macro	each_saved op
	\op	ra, REGS_X(1)(sp)
	\op	gp, REGS_X(3)(sp)
	\op	t2, REGS_X(7)(sp)
	\op	s0, REGS_X(8)(sp)
	\op	s1, REGS_X(9)(sp)
	\op	a0, REGS_X(10)(sp)
	\op	a1, REGS_X(11)(sp)
	\op	a2, REGS_X(12)(sp)
	\op	a3, REGS_X(13)(sp)
	\op	a4, REGS_X(14)(sp)
	\op	a5, REGS_X(15)(sp)
	\op	a6, REGS_X(16)(sp)
	\op	a7, REGS_X(17)(sp)
	\op	s2, REGS_X(18)(sp)
	\op	s3, REGS_X(19)(sp)
	\op	s4, REGS_X(20)(sp)
	\op	s5, REGS_X(21)(sp)
	\op	s6, REGS_X(22)(sp)
	\op	s7, REGS_X(23)(sp)
	\op	s8, REGS_X(24)(sp)
	\op	s9, REGS_X(25)(sp)
	\op	s10, REGS_X(26)(sp)
	\op	s11, REGS_X(27)(sp)
	\op	t3, REGS_X(28)(sp)
	\op	t4, REGS_X(29)(sp)
	\op	t5, REGS_X(30)(sp)
	\op	t6, REGS_X(31)(sp)
	.endm

	.section .text.riscv_trap_entry, "ax", %progbits
	.balign	4
	.globl	riscv_trap_entry
	.type	riscv_trap_entry, %function
riscv_trap_entry:
	sd	t0, CPU_SCRATCH(tp)
	sd	t1, CPU_SCRATCH + 8(tp)
	csrr	t0, stval
	li	t1, TABLE_SIZE
	add	t0, t0, t1
	sub	t0, t0, sp
	srli	t0, t0, 13		/* 0: sp - 4096 <= stval < sp + 4096 */
	mv	t1, sp
	beqz	t0, .Lemergency
	addi	sp, sp, -REGS_SIZE
	andi	sp, sp, -16
.Lsave:
	each_saved sd
	seqz	s1, t0			/* on the emergency stack */
	sd	t1, REGS_X(2)(sp)
	sd	tp, REGS_X(4)(sp)
	ld	t0, CPU_SCRATCH(tp)
	ld	t1, CPU_SCRATCH + 8(tp)
	sd	t0, REGS_X(5)(sp)
	sd	t1, REGS_X(6)(sp)
	sd	zero, REGS_X(0)(sp)
	csrr	t0, sepc
	csrr	t1, sstatus
	csrr	t2, scause
	csrr	t3, stval
	sd	s0, REGS_FRAME(sp)	/* a frame record: a backtrace goes on in what was interrupted */
	sd	t0, REGS_FRAME + 8(sp)
	addi	s0, sp, REGS_SIZE
	sd	t0, REGS_PC(sp)
	sd	t1, REGS_STATUS(sp)
	sd	t2, REGS_CAUSE(sp)
	sd	t3, REGS_ADDRESS(sp)

	mv	a0, sp
	call	riscv_trap

	ld	t0, REGS_PC(sp)
	ld	t1, REGS_STATUS(sp)
	csrw	sepc, t0
	csrw	sstatus, t1
	beqz	s1, 1f
	sw	zero, CPU_EMERGENCY_BUSY(tp)
1:	each_saved ld
	ld	t0, REGS_X(5)(sp)
	ld	t1, REGS_X(6)(sp)
	ld	sp, REGS_X(2)(sp)
	sret

.Lemergency:
	lw	t0, CPU_EMERGENCY_BUSY(tp)
	bnez	t0, .Ldead
	li	t0, 1
	sw	t0, CPU_EMERGENCY_BUSY(tp)
	ld	sp, CPU_EMERGENCY_TOP(tp)
	addi	sp, sp, -REGS_SIZE
	li	t0, 0
	j	.Lsave

.Ldead:
	ld	sp, CPU_EMERGENCY_TOP(tp)
	lla	a0, .Ldead_text
	call	riscv_boot_fail
	.size	riscv_trap_entry, . - riscv_trap_entry

	.section .rodata
.Ldead_text:
	.asciz	"Mica: the emergency stack has overflowed\n"

/*
 * Instructions that may trap. Any trap between riscv_probe_begin and
 * riscv_probe_end continues at riscv_probe_failed (trap.c); that is the whole
 * exception table.
 */
	.macro	function name
	.globl	\name
	.type	\name, %function
\name:
	.endm

	.section .text.riscv_probe, "ax", %progbits
	.balign	4
	.globl	riscv_probe_begin, riscv_probe_end, riscv_probe_failed
	.globl	riscv_exec_returned, riscv_exec_failed

riscv_probe_begin:
function arch_probe_read
	ld	a2, 0(a0)
	j	probe_store_value
function arch_probe_write
	sd	a1, 0(a0)
	j	probe_good
function riscv_probe_instret
	csrr	a2, instret
	j	probe_good
function riscv_probe_stimecmp
	csrr	a2, 0x14d
	j	probe_good
function riscv_probe_cbo_flush
	.insn	i 0x0f, 2, x0, a0, 2
	j	probe_good
riscv_probe_end:

probe_store_value:
	sd	a2, 0(a1)
probe_good:
	li	a0, 0
	ret
riscv_probe_failed:
	li	a0, -1
	ret

/* Call the code at a0. When it cannot even be fetched, the trap goes on at riscv_exec_failed. */
function arch_probe_exec
	addi	sp, sp, -16
	sd	ra, 8(sp)
	jalr	a0
riscv_exec_returned:
	li	a0, 0
1:	ld	ra, 8(sp)
	addi	sp, sp, 16
	ret
riscv_exec_failed:
	li	a0, -1
	j	1b

	.section .note.GNU-stack, "", %progbits
