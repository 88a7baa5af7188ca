# SPDX-License-Identifier: MIT
ARCH_CROSS     := riscv64-linux-gnu-
ARCH_TRIPLE    := riscv64-linux-gnu
ARCH_CFLAGS    := -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany
ARCH_LDFLAGS   := -m elf64lriscv --no-relax
ARCH_FAST_BITS := 0
# Drivers that need what this architecture does not have.
ARCH_NO_DRIVERS := drivers/irq/gic_v3.c
