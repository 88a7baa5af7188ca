/* SPDX-License-Identifier: MIT */
/* Calls of the Supervisor Binary Interface (RISC-V SBI specification 2.0). */
#ifndef RISCV_SBI_H
#define RISCV_SBI_H

#include <stdbool.h>
#include <stdint.h>

struct sbi_result {
	long error; /* 0 or negative */
	long value;
};

static inline struct sbi_result sbi_call(uint64_t extension, uint64_t function, uint64_t arg0,
					 uint64_t arg1, uint64_t arg2, uint64_t arg3)
{
	register uint64_t a0 __asm__("a0") = arg0;
	register uint64_t a1 __asm__("a1") = arg1;
	register uint64_t a2 __asm__("a2") = arg2;
	register uint64_t a3 __asm__("a3") = arg3;
	register uint64_t a6 __asm__("a6") = function;
	register uint64_t a7 __asm__("a7") = extension;

	__asm__ volatile("ecall"
			 : "+r"(a0), "+r"(a1)
			 : "r"(a2), "r"(a3), "r"(a6), "r"(a7)
			 : "memory");
	return (struct sbi_result){(long)a0, (long)a1};
}

/* One timer interrupt at or after `deadline`; whatever was pending is no longer. */
void sbi_set_timer(uint64_t deadline);

/* sfence.vma over a range, on all harts that run. 0 or negative. */
int sbi_remote_sfence(uintptr_t va, uint64_t nbytes);

/* Name of the firmware, or NULL when it is not in our list; and its version as it gives it. */
const char *sbi_implementation(uint64_t *version);

#endif
