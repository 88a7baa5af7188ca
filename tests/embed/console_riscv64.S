/* SPDX-License-Identifier: MIT */
/* What tests/embed/embed.c needs of a system: here Linux user mode, without a C library. */
	.globl	_start
_start:
	call	main
	li	a7, 93			/* exit */
	ecall

	.globl	console_write
console_write:
	mv	a1, a0
	mv	a2, a0
1:	lbu	t0, (a2)
	addi	a2, a2, 1
	bnez	t0, 1b
	sub	a2, a2, a1
	addi	a2, a2, -1
	li	a0, 1
	li	a7, 64			/* write */
	ecall
	ret
	.section .note.GNU-stack,"",%progbits
