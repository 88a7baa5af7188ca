/* SPDX-License-Identifier: MIT */
/* Exceptions that are not interrupts: say what happened, then panic. */
#include <arch/arch.h>
#include <kernel/log.h>
#include <kernel/symbols.h>

#include "kernel.h"

/* NULL: none is there. */
static const char *guard_at(uintptr_t va)
{
	extern const char __boot_stack_guard[], __emergency_stack_guard[];

	if (va - (uintptr_t)__boot_stack_guard < MM_PAGE_SIZE)
		return "the guard page of the boot stack";
	if (va - (uintptr_t)__emergency_stack_guard < MM_PAGE_SIZE)
		return "the guard page of the emergency stack";
	return NULL;
}

static const char *region_of(uintptr_t va)
{
	if (va < MM_PAGE_SIZE)
		return "page zero, a null pointer";
	if (guard_at(va))
		return guard_at(va);
	if (va >= ARCH_KERNEL_BASE)
		return "the kernel image";
	if (va >= ARCH_VMAP_BASE)
		return "devices and stacks";
	if (va >= (uintptr_t)arch_phys_to_virt(0))
		return "the linear map";
	return "no kernel address";
}

static const char *why(const struct arch_trap_info *t, const struct arch_walk *w)
{
	if (!w->mapped)
		return "not mapped";
	if (t->execute)
		return "not executable";
	return t->write ? "read-only" : "not readable";
}

static void explain_page_fault(const struct arch_trap_info *t)
{
	const char *access = t->execute ? "execute" : t->write ? "write" : "read";
	struct arch_walk w;

	arch_mmu_walk(t->address, &w);
	kprintf("cannot %s 0x%lx: %s (%s)\n", access, t->address, why(t, &w),
		region_of(t->address));
}

static bool is_overflow(const struct arch_trap_info *t)
{
	return t->kind == ARCH_TRAP_STACK_OVERFLOW ||
	       (t->kind == ARCH_TRAP_PAGE_FAULT && guard_at(t->address));
}

static void print_line(const char *line)
{
	kprintf("  %s\n", line);
}

void kernel_trap(struct arch_regs *regs, const struct arch_trap_info *t)
{
	panic_begin();
	kprintf("\nPANIC: %s%s, cause 0x%lx, at pc 0x%lx\n",
		is_overflow(t) ? "stack overflow: " : "", t->name, t->cause, t->pc);
	if (t->kind == ARCH_TRAP_PAGE_FAULT || t->kind == ARCH_TRAP_STACK_OVERFLOW)
		explain_page_fault(t);
	arch_regs_print(regs, print_line);
	backtrace_print(t->pc, t->frame_pointer);
	panic_end();
}
