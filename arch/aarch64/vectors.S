/* SPDX-License-Identifier: MIT */
/*
 * Exceptions. The kernel runs on SP_EL0, every exception on SP_EL1, which at
 * that moment points to the top of this CPU's exception stack: what went wrong
 * with the kernel's stack cannot hurt here. An exception inside an exception
 * goes on below, if there is room; if not, the stack is begun again, once, to
 * report that, and after that the CPU parks.
 */
#include "regs.h"

/* x1 becomes the number of the vector. */
.macro vector_from_sp0 number
	.balign	128
	sub	sp, sp, #REGS_SIZE
	stp	x0, x1, [sp]
	mov	w1, #\number
	b	trap_entry
.endm

/* TPIDRRO_EL0 is free: there is no user mode. */
.macro vector_from_sp1 number
	.balign	128
	msr	tpidrro_el0, x0
	mrs	x0, tpidr_el1
	ldr	x0, [x0, #CPU_EXC_LOW]
	cmp	sp, x0
	b.lo	exception_stack_full
	mrs	x0, tpidrro_el0
	sub	sp, sp, #REGS_SIZE
	stp	x0, x1, [sp]
	mov	w1, #\number
	b	trap_entry
.endm

	.section .text.vectors, "ax"
	.balign	2048
	.global	vectors
vectors:
	.irp	number, 0, 1, 2, 3
	vector_from_sp0 \number
	.endr
	.irp	number, 4, 5, 6, 7
	vector_from_sp1 \number
	.endr
	.irp	number, 8, 9, 10, 11, 12, 13, 14, 15
	vector_from_sp0 \number
	.endr

	.balign	128
exception_stack_full:
	mrs	x0, tpidr_el1
	ldr	x0, [x0, #CPU_EXC_FULL]
	cbnz	x0, park
	mrs	x0, tpidr_el1
	str	x0, [x0, #CPU_EXC_FULL]
	ldr	x0, [x0, #CPU_EXC_TOP]
	mov	sp, x0
	mrs	x0, tpidrro_el0
	sub	sp, sp, #REGS_SIZE
	stp	x0, x1, [sp]
	mov	w1, #VECTOR_EXC_FULL
	b	trap_entry

park:
	wfi
	b	park

trap_entry:
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x19, [sp, #144]
	stp	x20, x21, [sp, #160]
	stp	x22, x23, [sp, #176]
	stp	x24, x25, [sp, #192]
	stp	x26, x27, [sp, #208]
	stp	x28, x29, [sp, #224]
	mrs	x2, elr_el1
	mrs	x3, spsr_el1
	mrs	x4, sp_el0
	add	x5, sp, #REGS_SIZE
	tst	x3, #1				/* was it on SP_EL1? */
	csel	x4, x5, x4, ne
	stp	x30, x4, [sp, #REGS_X30]
	stp	x2, x3, [sp, #REGS_PC]
	mrs	x4, esr_el1
	mrs	x5, far_el1
	stp	x4, x5, [sp, #REGS_ESR]
	stp	x29, x2, [sp, #REGS_FRAME]
	add	x29, sp, #REGS_FRAME
	mov	x0, sp
	bl	trap_dispatch

	ldp	x2, x3, [sp, #REGS_PC]
	msr	elr_el1, x2
	msr	spsr_el1, x3
	ldp	x0, x1, [sp]
	ldp	x2, x3, [sp, #16]
	ldp	x4, x5, [sp, #32]
	ldp	x6, x7, [sp, #48]
	ldp	x8, x9, [sp, #64]
	ldp	x10, x11, [sp, #80]
	ldp	x12, x13, [sp, #96]
	ldp	x14, x15, [sp, #112]
	ldp	x16, x17, [sp, #128]
	ldp	x18, x19, [sp, #144]
	ldp	x20, x21, [sp, #160]
	ldp	x22, x23, [sp, #176]
	ldp	x24, x25, [sp, #192]
	ldp	x26, x27, [sp, #208]
	ldp	x28, x29, [sp, #224]
	ldr	x30, [sp, #REGS_X30]
	add	sp, sp, #REGS_SIZE
	eret

/*
 * Accesses that may fault. trap.c knows the addresses of the instructions that
 * do, and goes on at probe_failed, where nothing has happened to the stack yet.
 */
	.section .text.probe, "ax"
	.global	arch_probe_read, arch_probe_write, arch_probe_exec
	.global	probe_load, probe_store, probe_call_return, probe_failed, probe_call_failed
arch_probe_read:
probe_load:
	ldr	x2, [x0]
	str	x2, [x1]
	mov	w0, #0
	ret

arch_probe_write:
probe_store:
	str	x1, [x0]
	mov	w0, #0
	ret

probe_failed:
	mov	w0, #-1
	ret

arch_probe_exec:
	stp	x29, x30, [sp, #-16]!
	mov	x29, sp
	blr	x0
probe_call_return:
	mov	w0, #0
	ldp	x29, x30, [sp], #16
	ret

probe_call_failed:
	mov	w0, #-1
	ldp	x29, x30, [sp], #16
	ret
