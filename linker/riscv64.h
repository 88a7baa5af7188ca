/* SPDX-License-Identifier: MIT */
/* Where the RISC-V kernel runs (LINK_VA), and where an ELF loader puts it (LINK_PA, behind
 * OpenSBI). */
#define LINK_ARCH riscv
#define LINK_VA	  0xffffffff80200000
#define LINK_PA	  0x80200000
