/* SPDX-License-Identifier: MIT */
/*
 * What assembler and C share: the registers that a trap saves, the per-CPU
 * structure, the early page tables.
 */
#ifndef AARCH64_REGS_H
#define AARCH64_REGS_H

#define REGS_X30     240
#define REGS_PC	     256
#define REGS_ESR     272
#define REGS_FRAME   288
#define REGS_SIZE    304
#define CPU_EXC_LOW  8
#define CPU_EXC_TOP  16
#define CPU_EXC_FULL 24

#define BOOT_TABLES_SIZE (7 * 4096)

/* Vectors are numbered by their place in the table; a full exception stack has one more. */
#define VECTOR_EXC_FULL 16

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

#include <arch/arch.h>

struct arch_regs {
	uint64_t x[31];
	uint64_t sp;
	uint64_t pc;
	uint64_t pstate;
	uint64_t esr;
	uint64_t far;
	uint64_t frame[2]; /* a frame record, so that a backtrace goes on in what was interrupted */
};

_Static_assert(offsetof(struct arch_regs, x[30]) == REGS_X30, "vectors.S");
_Static_assert(offsetof(struct arch_regs, pc) == REGS_PC, "vectors.S");
_Static_assert(offsetof(struct arch_regs, esr) == REGS_ESR, "vectors.S");
_Static_assert(offsetof(struct arch_regs, frame) == REGS_FRAME, "vectors.S");
_Static_assert(sizeof(struct arch_regs) == REGS_SIZE && REGS_SIZE % 16 == 0, "vectors.S");
_Static_assert(offsetof(struct arch_cpu, exc_low) == CPU_EXC_LOW, "vectors.S");
_Static_assert(offsetof(struct arch_cpu, exc_top) == CPU_EXC_TOP, "vectors.S");
_Static_assert(offsetof(struct arch_cpu, exc_full) == CPU_EXC_FULL, "vectors.S");

#endif
#endif
