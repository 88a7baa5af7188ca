/* SPDX-License-Identifier: MIT */
/* Where the AArch64 kernel runs (LINK_VA), and where an ELF loader puts it (LINK_PA). */
#define LINK_ARCH aarch64
#define LINK_VA	  0xffffffff80200000
#define LINK_PA	  0x40200000
