/* SPDX-License-Identifier: MIT */
/* What tests/embed/embed.c needs of a system: here Linux user mode, without a C library. */
	.globl	_start
_start:
	bl	main
	mov	x8, #93			/* exit */
	svc	#0

	.globl	console_write
console_write:
	mov	x1, x0
	mov	x2, x0
1:	ldrb	w3, [x2], #1
	cbnz	w3, 1b
	sub	x2, x2, x1
	sub	x2, x2, #1
	mov	x0, #1
	mov	x8, #64			/* write */
	svc	#0
	ret
	.section .note.GNU-stack,"",%progbits
