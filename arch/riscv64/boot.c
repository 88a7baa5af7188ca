/* SPDX-License-Identifier: MIT */
/*
 * From the first instruction to kernel_main. What runs before paging (riscv_boot_map,
 * riscv_boot_fail, and the SBI console under it) uses PC-relative addresses only, as
 * -mcmodel=medany makes them; no pointer stored in data, no switch table.
 *
 * The early page table maps two things, with blocks of 2 MiB: the image at its link
 * address, and a window on the device tree. All indices above level 1 are the
 * same for both or lie in one table, so one chain of tables serves the three
 * modes, which differ only in where the chain begins:
 *
 *	root[2] (Sv57) -> root[1] (Sv48) -> root[0] (Sv39) -> image_blocks, window_blocks
 */
#include "riscv.h"
#include "sbi.h"

#define PAGE_TABLE __attribute__((section(".bss.page_aligned"), aligned(4096)))

extern uint64_t riscv_early_root[3][TABLE_ENTRIES];

uint64_t riscv_early_root[3][TABLE_ENTRIES] PAGE_TABLE;
static uint64_t image_blocks[TABLE_ENTRIES] PAGE_TABLE;
static uint64_t window_blocks[TABLE_ENTRIES] PAGE_TABLE;

struct riscv_cpu riscv_boot_cpu = {
	.emergency_top = (uint64_t)__emergency_stack_top,
};
unsigned int riscv_cpus_online = 1;

static uint64_t table_entry(const uint64_t *table)
{
	return pte_leaf((uint64_t)table, PTE_V);
}

/* NULL, or why it cannot be done. Runs at physical addresses. */
const char *riscv_boot_map(uint64_t image_pa, uintptr_t image_va, uint64_t fdt_pa)
{
	uint64_t nbytes = (uint64_t)(__image_end - __image_start);
	uint64_t *image = &image_blocks[pte_index(image_va, 1)];
	uint64_t window_pa = fdt_pa & ~(BLOCK_SIZE - 1);

	if (image_pa % BLOCK_SIZE)
		return "Mica: the image must be loaded at a multiple of 2 MiB\n";

	riscv_early_root[2][TABLE_ENTRIES - 1] = table_entry(riscv_early_root[1]);
	riscv_early_root[1][TABLE_ENTRIES - 1] = table_entry(riscv_early_root[0]);
	riscv_early_root[0][pte_index(ARCH_KERNEL_BASE, 2)] = table_entry(image_blocks);
	riscv_early_root[0][pte_index(ARCH_VMAP_BASE, 2)] = table_entry(window_blocks);

	for (uint64_t offset = 0; offset < nbytes; offset += BLOCK_SIZE)
		*image++ = pte_leaf(image_pa + offset, PTE_ALWAYS | PTE_LEAF);
	window_blocks[0] = pte_leaf(window_pa, PTE_ALWAYS | PTE_R);
	window_blocks[1] = pte_leaf(window_pa + BLOCK_SIZE, PTE_ALWAYS | PTE_R);
	return NULL;
}

/* Runs at physical addresses. */
void riscv_boot_fail(const char *why)
{
	arch_early_puts(why);
	for (;;)
		arch_wait_for_interrupt();
}

void riscv_boot_high(uint64_t hart, uint64_t fdt_pa, uint64_t image_pa, uint64_t satp_mode)
{
	unsigned int levels = (unsigned int)satp_mode - SATP_SV39 + 3;

	riscv_boot_cpu.hart = hart;
	riscv_mmu_early(riscv_early_root[levels - 3], levels, image_pa);
	kernel_main(fdt_pa ? (const void *)(ARCH_VMAP_BASE + fdt_pa % BLOCK_SIZE) : NULL, fdt_pa);
}

uint64_t arch_boot_cpu_hwid(void)
{
	return riscv_boot_cpu.hart;
}
