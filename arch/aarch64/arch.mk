# SPDX-License-Identifier: MIT
ARCH_CROSS     := aarch64-linux-gnu-
ARCH_TRIPLE    := aarch64-linux-gnu
ARCH_CFLAGS    := -march=armv8-a -mgeneral-regs-only -mstrict-align -mno-outline-atomics
ARCH_LDFLAGS   := -m aarch64elf
ARCH_FAST_BITS := 1
