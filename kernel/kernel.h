/* SPDX-License-Identifier: MIT */
/* What the files of kernel/ share with each other and with nobody else. */
#ifndef KERNEL_PRIVATE_H
#define KERNEL_PRIVATE_H

#include <stdbool.h>

#include <arch/arch.h>
#include <kernel/fdt.h>
#include <kernel/memmap.h>

/* panic.c: around what a panic or a fatal trap prints. */
void panic_begin(void);
__attribute__((noreturn)) void panic_end(void);

/* log.c: a panic: whoever held the lock will not come back, and text must be seen at once. */
void log_break_lock(void);

/* log.c: no console will come any more: without one the firmware's shows the log from here on. */
void log_consoles_probed(void);

/* memory.c: final page table, then the global allocator over all RAM. Panics when there is no
 * memory. */
void memory_init_tables(uint64_t fdt_pa);
void memory_init(uint64_t fdt_pa);
struct memmap *memory_map(void);

/*
 * memory.c: arch_mmu_map and arch_mmu_protect under the lock of the page tables. Any context.
 * Tables come from the page allocator, whose locks are taken under that one, and whose reclaim
 * hooks may be asked under it: they change no page tables.
 */
int memory_map_at(uintptr_t va, uint64_t pa, size_t nbytes, unsigned int prot,
		  enum arch_memtype type);
int memory_protect(uintptr_t va, size_t nbytes, unsigned int prot, enum arch_memtype type);

/* irq.c: let every controller deliver what is pending. */
void irq_handle_external(void);

/* dma_glue.c */
void dma_setup(void);

/* disk_check.c: the main job on the disks. Number of failures. */
unsigned int disk_check(void);

#endif
