/* SPDX-License-Identifier: MIT */
/*
 * The architecture contract: all that the kernel and the drivers may ask of
 * arch/<isa>. Everything is declared here; the inline half of a port is
 * arch/<isa>/include/arch_inline.h, pulled in below, so that a missing
 * function is a compile or link error. "Early" means before arch_mmu_init.
 *
 * Virtual memory, the same picture on every architecture (docs/boot.md):
 *   ARCH_KERNEL_BASE  top 2 GiB: the kernel image, at its link address
 *   ARCH_VMAP_BASE    2 GiB below: devices, stacks, the device tree (each with guard pages)
 *   linear map        below that: RAM at a constant offset from its physical address
 */
#ifndef ARCH_ARCH_H
#define ARCH_ARCH_H

#include <mm/types.h>

#define ARCH_KERNEL_BASE 0xffffffff80000000u
#define ARCH_VMAP_BASE	 0xffffffff00000000u

/* Everything the CPU had in its registers at a trap. The port defines its members. */
struct arch_regs;

/* clang-format off */
/* --- Inline half: these are static inline in arch_inline.h ------------------
 *
 * bool arch_irq_enabled(void);
 * void arch_irq_enable(void);
 * void arch_irq_disable(void);
 * unsigned long arch_irq_save(void);	disable, return what was
 * void arch_irq_restore(unsigned long state);
 * unsigned int arch_cpu_id(void);	logical id, 0 is the boot CPU; valid from kernel_main on
 * void arch_relax(void);		hint in a spin loop
 * void arch_wait_for_interrupt(void);	may return at once; with interrupts off it returns
 *					when one is pending
 * uint64_t arch_time_now(void);	ticks of the system counter; monotonic
 * uint64_t arch_cycles(void);		instructions (or cycles) of this CPU; 0 if not readable
 *
 * void arch_mb(void), arch_rmb(void), arch_wmb(void);
 *		order accesses to normal memory among CPUs
 * bool arch_try_lock32(uint32_t *);	true: it was zero, is not now, and what follows sees all
 *					before the release that made it zero
 * void arch_store_release32(uint32_t *, uint32_t);	whoever sees it sees all before it
 * void arch_io_mb(void), arch_io_rmb(void), arch_io_wmb(void);
 *		order normal memory and device accesses (before a doorbell; after
 *		reading a status register)
 * uint8_t arch_read8(const volatile void *); ... 16, 32, 64
 * void arch_write8(volatile void *, uint8_t); ... 16, 32, 64
 *		one device access of that width, not ordered against others
 *
 * ARCH_DMA_COHERENT_BY_DEFAULT		devices see the CPU's caches where the tree says nothing
 * const void *arch_frame_pointer(void);	of the caller, for a backtrace
 */
/* clang-format on */
#include <arch_inline.h>

/* --- Entry -----------------------------------------------------------------
 * Defined by the kernel, called on the boot CPU: high half, boot stack, early page table,
 * interrupts off. The device tree (if fdt_pa is one) can be read for
 * ARCH_FDT_MAX_SIZE bytes from fdt on, until arch_mmu_switch.
 */
#define ARCH_FDT_MAX_SIZE ((size_t)2 << 20)
__attribute__((noreturn)) void kernel_main(const void *fdt, uint64_t fdt_pa);

/* --- Console of last resort ------------------------------------------------
 * Writes a string before any driver exists (RISC-V: SBI console; AArch64 has
 * none: nothing). Any context.
 */
void arch_early_puts(const char *s);
/* A character that was typed there; negative: none. Not early. */
int arch_early_getc(void);

/* --- CPU -------------------------------------------------------------------
 * What the port found out at boot, for one line of log ("Sv48, svpbmt", "EL1, GICv3 sysregs").
 */
void arch_describe(char *buf, size_t size);

/* Hardware id (hart id, MPIDR affinity) of the boot CPU. */
uint64_t arch_boot_cpu_hwid(void);

/* Learn what only the device tree tells (timebase, PSCI method, ISA extensions). Early, once.
 * The caller looks properties up and passes them: a value that the tree lacks is 0 or NULL. */
struct arch_boot_info {
	uint64_t timebase_hz;		/* /cpus timebase-frequency; RISC-V */
	uint64_t timer_hz;		/* clock-frequency of the timer; AArch64 */
	const char *riscv_isa;		/* riscv,isa of the boot CPU */
	const char *riscv_extensions;	/* riscv,isa-extensions: names, each with its NUL */
	size_t riscv_extensions_size;	/* of them all */
	const char *psci_method;	/* "hvc", "smc" */
	uint32_t riscv_cbom_block_size; /* riscv,cbom-block-size of the boot CPU */
};
void arch_set_boot_info(const struct arch_boot_info *info);

/* --- Memory ----------------------------------------------------------------
 * Attributes of a mapping. Never writable and executable at once.
 */
enum arch_prot {
	ARCH_PROT_R = 1,
	ARCH_PROT_W = 2,
	ARCH_PROT_X = 4,
};
enum arch_memtype {
	ARCH_MEM_NORMAL,    /* write-back cacheable */
	ARCH_MEM_NONCACHED, /* Normal-NC; Svpbmt NC */
	ARCH_MEM_DEVICE,    /* nGnRE; Svpbmt IO, or what the PMAs say */
};

/* A page for a page table: zeroed or not, MM_PAGE_SIZE aligned, mapped in the linear map or in the
 * kernel image. Returns its virtual address, or 0 when there is none. */
typedef uintptr_t (*arch_table_alloc)(void);
/* Give one back; called only when no TLB or walker can still use it. */
typedef void (*arch_table_free)(uintptr_t va);

/*
 * Build the final page table: the image with text RX, rodata R, data RW, a hole
 * under each guard page (linker symbols of linker/kernel.lds.S); nothing else. Tables come from
 * `alloc`. Then switch to it; the identity map and the early map are gone, except what the caller
 * maps before the switch through arch_mmu_map (which works on the new table from here on).
 * Early; arch_mmu_init builds, arch_mmu_switch goes live. 0 or negative.
 */
int arch_mmu_init(arch_table_alloc alloc, arch_table_free free);
void arch_mmu_switch(void);
/* From now on tables come from these. */
void arch_mmu_set_table_source(arch_table_alloc alloc, arch_table_free free);

/* Map [va, va + nbytes) to pa with the largest blocks that fit. All page aligned.
 * -1: something is mapped there already, or no page for a table; then nothing stays mapped. */
int arch_mmu_map(uintptr_t va, uint64_t pa, size_t nbytes, unsigned int prot,
		 enum arch_memtype type);
/* Unmap whole pages and flush all TLBs before it returns. Blocks are split as needed. */
int arch_mmu_unmap(uintptr_t va, size_t nbytes);

/*
 * Change protection and type of what is mapped there: splits blocks with
 * break-before-make as the architecture asks, flushes the TLBs of all CPUs before it
 * returns; does no cache maintenance. Restoring the attributes of a whole
 * block re-joins it when all of its entries are alike again. -1: not mapped, no page for a
 * table; -2: this CPU has no such memory type; then all is as before.
 */
int arch_mmu_protect(uintptr_t va, size_t nbytes, unsigned int prot, enum arch_memtype type);

/* Does the CPU have a page attribute for memory that is not cached (Svpbmt), and cache maintenance
 * (Zicbom)? */
bool arch_mmu_has_noncached(void);
bool arch_cache_has_flush(void);

/* Clean and invalidate to the point of coherency; 0, or negative when there is no way. */
int arch_cache_flush(uintptr_t va, size_t nbytes);

/* One step of a walk of the live table, for the prompt and for tests. */
struct arch_walk {
	bool mapped;
	uint64_t pa;	    /* of va itself */
	unsigned int level; /* the level of the leaf: 0 is a page */
	size_t block_size;  /* bytes that the leaf maps */
	unsigned int prot;
	enum arch_memtype type;
	unsigned int depth; /* entries below */
	uint64_t entry[5];  /* from the root down */
};
void arch_mmu_walk(uintptr_t va, struct arch_walk *out);

/*
 * Ask the hardware itself how va translates (AArch64: AT S1E1R and PAR_EL1).
 * -1 where it has no way to tell.
 */
int arch_mmu_probe(uintptr_t va, uint64_t *pa, enum arch_memtype *type);

/* The linear map: RAM at pa is at pa + offset. Valid early for arithmetic. */
void *arch_phys_to_virt(uint64_t pa);
/* Pre: va is in the linear map or in the kernel image. */
uint64_t arch_virt_to_phys(const void *va);
/* One past the highest physical address that the linear map can hold. */
uint64_t arch_linear_limit(void);

/* --- Traps -----------------------------------------------------------------
 * The port calls kernel_trap for every exception that is not an interrupt and that no probe
 * expects, and kernel_irq for every interrupt from outside or the timer.
 */
enum arch_trap_kind {
	ARCH_TRAP_PAGE_FAULT,
	ARCH_TRAP_ILLEGAL,
	ARCH_TRAP_BREAKPOINT,
	ARCH_TRAP_MISALIGNED,
	ARCH_TRAP_BUS_ERROR,
	ARCH_TRAP_STACK_OVERFLOW, /* of a stack that has no guard page; the kernel knows those */
	ARCH_TRAP_OTHER,
};
enum arch_irq_kind { ARCH_IRQ_EXTERNAL, ARCH_IRQ_TIMER, ARCH_IRQ_SOFTWARE };

struct arch_trap_info {
	enum arch_trap_kind kind;
	uint64_t pc, sp, frame_pointer, cause;
	uintptr_t address;   /* of a page fault */
	bool write, execute; /* of a page fault */
	const char *name;    /* the architecture's name of the cause */
};

/* Defined by the kernel. */
__attribute__((noreturn)) void kernel_trap(struct arch_regs *regs,
					   const struct arch_trap_info *info);
void kernel_irq(enum arch_irq_kind kind);

/* Install the final trap vectors. Early ones stop, on RISC-V with a line. */
void arch_trap_init(void);
/* Print all registers, a line each through print. */
void arch_regs_print(const struct arch_regs *regs, void (*print)(const char *line));
/*
 * A load or store of 8 bytes that may fault: 0, or -1 when it did. Uses an exception
 * table of one entry that the trap code consults before kernel_trap.
 */
int arch_probe_read(uintptr_t va, uint64_t *value);
int arch_probe_write(uintptr_t va, uint64_t value);
int arch_probe_exec(uintptr_t va);

/* One frame up: false at the end or when fp does not look like a frame on a stack. */
bool arch_unwind(uint64_t *fp, uint64_t *pc);

/* --- Time ------------------------------------------------------------------ */
uint64_t arch_time_hz(void);
/* One timer interrupt at or after `deadline` (ticks); replaces the one before. UINT64_MAX: none. */
void arch_timer_set(uint64_t deadline);
/* Let interrupts from the external controller through (RISC-V sie.SEIE; AArch64: nothing). */
void arch_irq_unmask_external(void);

/* --- GICv3 CPU interface ----------------------------------------------------
 * System registers of this CPU; AArch64 only (drivers/irq/gic_v3.c is built for no other port).
 * init: interrupts of a priority above (numerically below) lowest_priority arrive. False: the
 * CPU lacks the registers, or a higher exception level keeps them from us.
 * acknowledge: the number of the interrupt to handle, 1020 or more: none. end: it is handled;
 * what was done to the device before is complete, so that it does not fire again for it.
 */
bool arch_gicv3_init(unsigned int lowest_priority);
uint32_t arch_gicv3_acknowledge(void);
void arch_gicv3_end(uint32_t intid);

/* --- Power ----------------------------------------------------------------- */
/* Through the firmware (SBI SRST, PSCI). Return only if that failed. */
void arch_poweroff(void);
void arch_reboot(void);

#endif
