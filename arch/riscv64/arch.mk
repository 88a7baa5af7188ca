# SPDX-License-Identifier: MIT
# Clang 14 takes CSR and fence.i instructions as part of rv64i and does not know their names.
ARCH_CROSS     := riscv64-linux-gnu-
ARCH_TRIPLE    := riscv64-linux-gnu
ARCH_MARCH     := $(if $(filter 1,$(LLVM)),rv64imac,rv64imac_zicsr_zifencei)
ARCH_CFLAGS    := -march=$(ARCH_MARCH) -mabi=lp64 -mcmodel=medany -mno-relax
ARCH_LDFLAGS   := -m elf64lriscv --no-relax
ARCH_FAST_BITS := 0
# Drivers that need what this architecture does not have.
ARCH_NO_DRIVERS := drivers/irq/gic_v3.c
# PAGING=39 or 48: an image that does not try deeper page tables, though the CPU may have them (QEMU 7.2
# always has).
ARCH_IMAGE_SRCS  := arch/riscv64/entry.S
ARCH_IMAGE_FLAGS := $(if $(PAGING),-DRISCV_FIRST_MODE=SATP_SV$(PAGING))
