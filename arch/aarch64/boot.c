/* SPDX-License-Identifier: MIT */
/*
 * Boot: the early page tables, and the first C code in the high half.
 *
 * boot_map runs with the MMU off at whatever address the image was loaded. All
 * its references are relative to the program counter, so a symbol's address is
 * its physical one. The early tables are:
 *
 *   TTBR0  the 2 MiB of the image that hold entry.S, at their own address
 *   TTBR1  the image at its link address, and a window of 4 MiB on the device
 *	    tree at ARCH_VMAP_BASE
 */
#include <lib/string.h>

#include "boot.h"
#include "pte.h"
#include "regs.h"
#include "sysreg.h"

#define BLOCK_LEVEL 1u
#define FDT_WINDOW  2u /* blocks; a tree has at most 2 MiB and may straddle two */
#define FDT_MAGIC   0xd00dfeedu

#define DCZID_PROHIBITED (1u << 4)

/* The kernel proper. */
__attribute__((noreturn)) void kernel_main(const void *fdt_va, uint64_t fdt_pa);

uint64_t boot_map(uint64_t fdt_pa, uintptr_t image_va);
__attribute__((noreturn)) void boot_high(uint64_t fdt_pa, uint64_t image_pa, unsigned int el);

/* entry.S relies on the first two being the roots. */
enum { ID_ROOT, HIGH_ROOT, ID_2, ID_1, HIGH_2, IMAGE_1, FDT_1, NTABLES };

struct boot_table {
	uint64_t entry[PTE_COUNT];
};

extern struct boot_table boot_tables[NTABLES];
struct boot_table boot_tables[NTABLES] __attribute__((aligned(4096), section(".bss.page_aligned")));
_Static_assert(sizeof(boot_tables) == BOOT_TABLES_SIZE, "entry.S");

uint64_t boot_image_pa;
unsigned int boot_entry_el;
static struct arch_cpu boot_cpu;

static void link_table(unsigned int parent, uintptr_t va, unsigned int level, unsigned int child)
{
	boot_tables[parent].entry[pte_index(va, level)] = pte_table((uintptr_t)&boot_tables[child]);
}

static void map_blocks(unsigned int table, uintptr_t va, uint64_t pa, size_t n, unsigned int prot)
{
	size_t size = pte_size(BLOCK_LEVEL);

	for (size_t i = 0; i < n; i++)
		boot_tables[table].entry[pte_index(va + i * size, BLOCK_LEVEL)] =
			pte_leaf(pa + i * size, BLOCK_LEVEL, prot, ARCH_MEM_NORMAL);
}

/*
 * A loader of ELF files says nothing about the tree. QEMU puts it at the start
 * of RAM if the kernel leaves room there: look below the image, in its GiB.
 */
static uint64_t find_fdt(uint64_t image_pa)
{
	uint64_t start = image_pa & ~(pte_size(2) - 1);

	for (uint64_t pa = image_pa; pa > start;) {
		pa -= pte_size(BLOCK_LEVEL);
		if (*(const volatile uint32_t *)pa == __builtin_bswap32(FDT_MAGIC))
			return pa;
	}
	return 0;
}

/* Fill the early tables, all zero, with the MMU off. Returns where the tree is, 0: nowhere. */
uint64_t boot_map(uint64_t fdt_pa, uintptr_t image_va)
{
	uint64_t image_pa = (uintptr_t)__image_start;
	size_t size = pte_size(BLOCK_LEVEL);
	size_t nblocks = ((uintptr_t)__image_end - image_pa + size - 1) / size;

	link_table(ID_ROOT, image_pa, 3, ID_2);
	link_table(ID_2, image_pa, 2, ID_1);
	map_blocks(ID_1, image_pa, image_pa, 1, ARCH_PROT_R | ARCH_PROT_X);

	link_table(HIGH_ROOT, image_va, 3, HIGH_2);
	link_table(HIGH_2, image_va, 2, IMAGE_1);
	map_blocks(IMAGE_1, image_va, image_pa, nblocks, ARCH_PROT_R | ARCH_PROT_W | ARCH_PROT_X);

	if (!fdt_pa)
		fdt_pa = find_fdt(image_pa);
	if (!fdt_pa)
		return 0;
	link_table(HIGH_2, ARCH_VMAP_BASE, 2, FDT_1);
	map_blocks(FDT_1, ARCH_VMAP_BASE, fdt_pa & ~(size - 1), FDT_WINDOW, ARCH_PROT_R);
	return fdt_pa;
}

/* The CPU clears a block at a time, if it may and the memory consists of such blocks. */
static void clear(char *start, char *end)
{
	uint64_t dczid = sysreg_read(dczid_el0);
	size_t block = (size_t)4 << (dczid & 0xf);
	size_t left = (size_t)(end - start);

	if (!(dczid & DCZID_PROHIBITED) && (uintptr_t)start % block == 0) {
		for (; left >= 4 * block; left -= 4 * block) {
			__asm__ volatile("dc zva, %0" ::"r"(start) : "memory");
			__asm__ volatile("dc zva, %0" ::"r"(start + block) : "memory");
			__asm__ volatile("dc zva, %0" ::"r"(start + 2 * block) : "memory");
			__asm__ volatile("dc zva, %0" ::"r"(start + 3 * block) : "memory");
			start += 4 * block;
		}
	}
	memset(start, 0, left);
}

/* Around the early tables, which are in use by now. */
static void clear_bss(void)
{
	clear(__bss_start, (char *)boot_tables);
	clear((char *)(boot_tables + NTABLES), __bss_end);
}

static void init_cpu(void)
{
	uintptr_t reserve = 1024; /* for the handler */

	boot_cpu.exc_low = (uintptr_t)__emergency_stack_bottom + reserve;
	boot_cpu.exc_top = (uintptr_t)__emergency_stack_top;
	sysreg_write(tpidr_el1, (uintptr_t)&boot_cpu);
}

/* The first code at link addresses, on the boot stack. */
void boot_high(uint64_t fdt_pa, uint64_t image_pa, unsigned int el)
{
	const void *fdt = NULL;

	clear_bss();
	init_cpu();
	boot_image_pa = image_pa;
	boot_entry_el = el;
	if (fdt_pa)
		fdt = (const void *)(ARCH_VMAP_BASE + fdt_pa % pte_size(BLOCK_LEVEL));
	kernel_main(fdt, fdt_pa);
}
