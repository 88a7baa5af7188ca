/* SPDX-License-Identifier: MIT */
/* What boot leaves behind for the rest of the port, and the symbols of the image. */
#ifndef AARCH64_BOOT_H
#define AARCH64_BOOT_H

#include <stdint.h>

/* Where the image was loaded, and the exception level it was entered at. */
extern uint64_t boot_image_pa;
extern unsigned int boot_entry_el;

/* linker/kernel.lds.S */
extern char __image_start[], __image_end[];
extern char __text_start[], __text_end[];
extern char __rodata_start[], __rodata_end[];
extern char __data_start[], __data_end[];
extern char __bss_start[], __bss_end[];
extern char __boot_stack_guard[], __boot_stack_bottom[], __boot_stack_top[];
extern char __emergency_stack_guard[], __emergency_stack_bottom[], __emergency_stack_top[];

/* timer.c: what the tree says of the counter, 0: nothing. */
extern uint64_t timer_tree_hz;

/* entry.S: install a root table. Only to be called at its physical address. */
void mmu_replace_root(uint64_t root_pa);

#endif
