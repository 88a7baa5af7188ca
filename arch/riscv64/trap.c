/* SPDX-License-Identifier: MIT */
/*
 * From the saved registers to the kernel's handlers. The trap vector is live
 * since boot, for the probes need it; until arch_trap_init any other
 * exception prints a line on the firmware's console and stops.
 */
#include <arch/arch.h>

#include "riscv.h"

_Static_assert(offsetof(struct riscv_cpu, emergency_top) == CPU_EMERGENCY_TOP, "vector.S");
_Static_assert(offsetof(struct riscv_cpu, emergency_busy) == CPU_EMERGENCY_BUSY, "vector.S");
_Static_assert(offsetof(struct riscv_cpu, scratch) == CPU_SCRATCH, "vector.S");
_Static_assert(offsetof(struct arch_regs, pc) == REGS_PC, "vector.S");
_Static_assert(offsetof(struct arch_regs, status) == REGS_STATUS, "vector.S");
_Static_assert(offsetof(struct arch_regs, cause) == REGS_CAUSE, "vector.S");
_Static_assert(offsetof(struct arch_regs, address) == REGS_ADDRESS, "vector.S");
_Static_assert(sizeof(struct arch_regs) == REGS_SIZE && REGS_SIZE % 16 == 0, "vector.S");

#define CAUSE_INTERRUPT ((uint64_t)1 << 63)

enum {
	CAUSE_FETCH_MISALIGNED = 0,
	CAUSE_FETCH_ACCESS = 1,
	CAUSE_ILLEGAL = 2,
	CAUSE_BREAKPOINT = 3,
	CAUSE_LOAD_MISALIGNED = 4,
	CAUSE_LOAD_ACCESS = 5,
	CAUSE_STORE_MISALIGNED = 6,
	CAUSE_STORE_ACCESS = 7,
	CAUSE_FETCH_PAGE = 12,
	CAUSE_LOAD_PAGE = 13,
	CAUSE_STORE_PAGE = 15,
};

enum { IRQ_SOFTWARE = 1, IRQ_TIMER = 5, IRQ_EXTERNAL = 9 };

enum { RA = 1, SP = 2, S0 = 8 };

struct cause {
	const char *name;
	enum arch_trap_kind kind;
};

static const struct cause causes[] = {
	[CAUSE_FETCH_MISALIGNED] = {"instruction address misaligned", ARCH_TRAP_MISALIGNED},
	[CAUSE_FETCH_ACCESS] = {"instruction access fault", ARCH_TRAP_BUS_ERROR},
	[CAUSE_ILLEGAL] = {"illegal instruction", ARCH_TRAP_ILLEGAL},
	[CAUSE_BREAKPOINT] = {"breakpoint", ARCH_TRAP_BREAKPOINT},
	[CAUSE_LOAD_MISALIGNED] = {"load address misaligned", ARCH_TRAP_MISALIGNED},
	[CAUSE_LOAD_ACCESS] = {"load access fault", ARCH_TRAP_BUS_ERROR},
	[CAUSE_STORE_MISALIGNED] = {"store address misaligned", ARCH_TRAP_MISALIGNED},
	[CAUSE_STORE_ACCESS] = {"store access fault", ARCH_TRAP_BUS_ERROR},
	[CAUSE_FETCH_PAGE] = {"instruction page fault", ARCH_TRAP_PAGE_FAULT},
	[CAUSE_LOAD_PAGE] = {"load page fault", ARCH_TRAP_PAGE_FAULT},
	[CAUSE_STORE_PAGE] = {"store page fault", ARCH_TRAP_PAGE_FAULT},
};

static const char *const register_names[32] = {
	"zero", "ra", "sp", "gp", "tp",	 "t0",	"t1", "t2", "s0", "s1", "a0",
	"a1",	"a2", "a3", "a4", "a5",	 "a6",	"a7", "s2", "s3", "s4", "s5",
	"s6",	"s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};

/* vector.S */
extern const char riscv_probe_begin[], riscv_probe_end[], riscv_probe_failed[];
extern const char riscv_exec_returned[], riscv_exec_failed[];

static bool traps_ready;

void arch_trap_init(void)
{
	traps_ready = true;
}

static bool is_text(uint64_t address)
{
	return address >= (uintptr_t)__text_start && address < (uintptr_t)__text_end;
}

static struct cause cause_of(const struct arch_regs *regs)
{
	if (regs->cause < sizeof(causes) / sizeof(causes[0]) && causes[regs->cause].name)
		return causes[regs->cause];
	return (struct cause){"unknown exception", ARCH_TRAP_OTHER};
}

/* A trap in an instruction that was expected to trap: go on behind it. */
static bool probe_failed(struct arch_regs *regs)
{
	bool fetch = regs->cause == CAUSE_FETCH_PAGE || regs->cause == CAUSE_FETCH_ACCESS;

	if (regs->pc >= (uintptr_t)riscv_probe_begin && regs->pc < (uintptr_t)riscv_probe_end)
		regs->pc = (uintptr_t)riscv_probe_failed;
	else if (fetch && regs->x[RA] == (uintptr_t)riscv_exec_returned)
		regs->pc = (uintptr_t)riscv_exec_failed;
	else
		return false;
	return true;
}

/*
 * A leaf function may have saved s0 alone, where others have ra, and a jump to where no code is has
 * saved nothing: with a record made of what there is, the backtrace does not lose the caller.
 */
static uint64_t frame_pointer_of(struct arch_regs *regs)
{
	uint64_t fp = regs->x[S0];
	uint64_t saved = fp;

	if (is_text(regs->pc)) {
		if (!fp || fp % 16 || arch_probe_read(fp - 8, &saved) || is_text(saved))
			return fp;
		if (saved <= fp)
			saved = 0;
	}
	regs->frame[0] = saved;
	regs->frame[1] = regs->x[RA];
	return (uint64_t)(regs + 1);
}

static struct arch_trap_info describe(struct arch_regs *regs)
{
	struct cause cause = cause_of(regs);

	return (struct arch_trap_info){
		.kind = cause.kind,
		.pc = regs->pc,
		.sp = regs->x[SP],
		.frame_pointer = frame_pointer_of(regs),
		.cause = regs->cause,
		.address = regs->address,
		.write = regs->cause == CAUSE_STORE_PAGE || regs->cause == CAUSE_STORE_ACCESS,
		.execute = regs->cause == CAUSE_FETCH_PAGE || regs->cause == CAUSE_FETCH_ACCESS,
		.name = cause.name,
	};
}

/* Sixteen hexadecimal digits; returns what is behind them. */
static char *put_hex(char *p, uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		*p++ = "0123456789abcdef"[value >> shift & 15];
	return p;
}

static char *put_padded(char *p, const char *s, unsigned int width)
{
	for (; *s; s++, width -= width > 0)
		*p++ = *s;
	for (; width; width--)
		*p++ = ' ';
	return p;
}

__attribute__((noreturn)) static void early_trap(const struct arch_trap_info *info)
{
	char line[128];
	char *p = put_padded(line, "Mica: early trap: ", 0);

	p = put_padded(p, info->name, 0);
	p = put_padded(p, " at ", 0);
	p = put_hex(p, info->pc);
	p = put_padded(p, ", address ", 0);
	p = put_hex(p, info->address);
	*p++ = '\n';
	*p = '\0';
	riscv_boot_fail(line);
}

static void interrupt(uint64_t number)
{
	if (number == IRQ_EXTERNAL) {
		kernel_irq(ARCH_IRQ_EXTERNAL);
	} else if (number == IRQ_TIMER) {
		csr_sie_clear(SIE_TIMER);
		kernel_irq(ARCH_IRQ_TIMER);
	} else if (number == IRQ_SOFTWARE) {
		__asm__ volatile("csrc sip, %0" : : "r"(SIE_SOFTWARE) : "memory");
		kernel_irq(ARCH_IRQ_SOFTWARE);
	} else {
		csr_sie_clear((uint64_t)1 << number);
	}
}

void riscv_trap(struct arch_regs *regs)
{
	struct arch_trap_info info;

	if (regs->cause & CAUSE_INTERRUPT) {
		interrupt(regs->cause & 63);
		return;
	}
	if (probe_failed(regs))
		return;
	info = describe(regs);
	if (!traps_ready)
		early_trap(&info);
	kernel_trap(regs, &info);
}

struct line {
	char text[80];
	char *end;
	void (*print)(const char *line);
};

static void line_flush(struct line *l)
{
	*l->end = '\0';
	l->print(l->text);
	l->end = l->text;
}

/* Three registers a line. */
static void line_add(struct line *l, const char *name, uint64_t value)
{
	l->end = put_padded(l->end, name, 8);
	l->end = put_hex(l->end, value);
	if (l->end - l->text > 52)
		line_flush(l);
	else
		l->end = put_padded(l->end, "", 2);
}

void arch_regs_print(const struct arch_regs *regs, void (*print)(const char *line))
{
	struct line l = {.end = l.text, .print = print};

	line_add(&l, "pc", regs->pc);
	line_add(&l, "sstatus", regs->status);
	line_add(&l, "scause", regs->cause);
	line_add(&l, "stval", regs->address);
	for (unsigned int i = 1; i < 32; i++)
		line_add(&l, register_names[i], regs->x[i]);
	line_flush(&l);
}
