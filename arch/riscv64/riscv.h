/* SPDX-License-Identifier: MIT */
/* What the files of the RISC-V port share. Assembler sees only the numbers. */
#ifndef RISCV_H
#define RISCV_H

/* Offsets into struct riscv_cpu, pinned in trap.c. */
#define CPU_EMERGENCY_TOP  16
#define CPU_EMERGENCY_BUSY 24
#define CPU_SCRATCH	   32

/* Offsets into struct arch_regs, and its size. */
#define REGS_X(n)    ((n)*8)
#define REGS_PC	     256
#define REGS_STATUS  264
#define REGS_CAUSE   272
#define REGS_ADDRESS 280
#define REGS_FRAME   288
#define REGS_SIZE    304

#define TABLE_SIZE	4096
#define SATP_MODE_SHIFT 60
#define SATP_SV39	8
#define SATP_SV48	9
#define SATP_SV57	10

/* The mode that boot tries first (make PAGING=39: for tests, where the CPU could do more). */
#ifndef RISCV_FIRST_MODE
#define RISCV_FIRST_MODE SATP_SV57
#endif

#ifndef __ASSEMBLER__

#include <arch/arch.h>

#define PTE_V	      ((uint64_t)1 << 0)
#define PTE_R	      ((uint64_t)1 << 1)
#define PTE_W	      ((uint64_t)1 << 2)
#define PTE_X	      ((uint64_t)1 << 3)
#define PTE_G	      ((uint64_t)1 << 5)
#define PTE_A	      ((uint64_t)1 << 6)
#define PTE_D	      ((uint64_t)1 << 7)
#define PTE_LEAF      (PTE_R | PTE_W | PTE_X)
#define PTE_PBMT_NC   ((uint64_t)1 << 61)
#define PTE_PBMT_IO   ((uint64_t)2 << 61)
#define PTE_PBMT_MASK ((uint64_t)3 << 61)
#define PTE_PPN_SHIFT 10
#define PTE_PPN_MASK  ((((uint64_t)1 << 44) - 1) << PTE_PPN_SHIFT)
/* Accessed and dirty are set from the start: nobody looks at them, and no CPU must update them. */
#define PTE_ALWAYS    (PTE_V | PTE_G | PTE_A | PTE_D)
#define TABLE_ENTRIES 512u
#define BLOCK_SIZE    ((uint64_t)2 << 20) /* of an entry at level 1 */

#define SIE_SOFTWARE ((uint64_t)1 << 1)
#define SIE_TIMER    ((uint64_t)1 << 5)
#define SIE_EXTERNAL ((uint64_t)1 << 9)

/* One per CPU; tp points to it. arch_cpu_id and vector.S know the layout. */
struct riscv_cpu {
	uint32_t id;
	uint64_t hart;
	uint64_t emergency_top;	 /* the stack for a trap that finds no stack */
	uint32_t emergency_busy; /* it is in use */
	uint64_t scratch[2];	 /* vector.S, before registers are saved */
};

extern struct riscv_cpu riscv_boot_cpu;

/* How many CPUs run, for the remote part of a TLB flush. */
extern unsigned int riscv_cpus_online;

/* linker/kernel.lds.S */
extern char __image_start[], __image_end[];
extern char __text_start[], __text_end[], __rodata_start[], __rodata_end[];
extern char __data_start[], __data_end[];
extern char __boot_stack_guard[], __boot_stack_bottom[], __boot_stack_top[];
extern char __emergency_stack_guard[], __emergency_stack_bottom[], __emergency_stack_top[];

static inline uint64_t pte_leaf(uint64_t pa, uint64_t flags)
{
	return pa >> MM_PAGE_SHIFT << PTE_PPN_SHIFT | flags;
}

/* Index of va in a table at a level; level 0 maps pages. */
static inline unsigned int pte_index(uintptr_t va, unsigned int level)
{
	return (unsigned int)(va >> (MM_PAGE_SHIFT + 9 * level)) % TABLE_ENTRIES;
}

static inline void csr_sie_set(uint64_t bits)
{
	__asm__ volatile("csrs sie, %0" : : "r"(bits) : "memory");
}

static inline void csr_sie_clear(uint64_t bits)
{
	__asm__ volatile("csrc sie, %0" : : "r"(bits) : "memory");
}

/* boot.c, for entry.S */
const char *riscv_boot_map(uint64_t image_pa, uintptr_t image_va, uint64_t fdt_pa);
__attribute__((noreturn)) void riscv_boot_fail(const char *why);
__attribute__((noreturn)) void riscv_boot_high(uint64_t hart, uint64_t fdt_pa, uint64_t image_pa,
					       uint64_t satp_mode);

/* mmu.c: the early page table is live; levels is 3, 4 or 5. */
void riscv_mmu_early(uint64_t *root, unsigned int levels, uint64_t image_pa);
const char *riscv_mmu_mode(void);

/* isa.c: what the CPU has, as the device tree says and a try confirmed. */
struct riscv_isa {
	bool svpbmt, zicbom, sstc;
	uint32_t cbom_block_size;
	uint64_t timebase_hz;
};
extern struct riscv_isa riscv_isa;

/* vector.S: one instruction that may trap, then 0, or -1 when it did. */
int riscv_probe_instret(void);
int riscv_probe_stimecmp(void);
int riscv_probe_cbo_flush(const void *p);

/* trap.c, for vector.S */
void riscv_trap(struct arch_regs *regs);

#endif
#endif
