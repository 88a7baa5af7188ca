/* SPDX-License-Identifier: MIT */
/* Exceptions, in C: what happened, in the words of the contract. vectors.S calls trap_dispatch. */
#include <arch/arch.h>
#include <lib/format.h>

#include "boot.h"
#include "mmu.h"
#include "regs.h"
#include "sysreg.h"

/* ESR_EL1.EC, what the port acts on; ec_names has them all. */
enum {
	EC_UNKNOWN = 0x00,
	EC_FP = 0x07,
	EC_ILLEGAL_STATE = 0x0e,
	EC_SYSREG = 0x18,
	EC_INSTRUCTION_ABORT = 0x21,
	EC_PC_ALIGNMENT = 0x22,
	EC_DATA_ABORT = 0x25,
	EC_SP_ALIGNMENT = 0x26,
	EC_BRK = 0x3c,
};

/* ESR_EL1.ISS of an abort: the status code, of which faults of the tables leave the level out. */
enum {
	FSC_ADDRESS_SIZE = 0x00,
	FSC_TRANSLATION = 0x04,
	FSC_ACCESS_FLAG = 0x08,
	FSC_PERMISSION = 0x0c,
	FSC_EXTERNAL = 0x10,
	FSC_EXTERNAL_ON_WALK = 0x14,
	FSC_ALIGNMENT = 0x20,
};
#define ISS_FSC(esr)	((unsigned int)(esr)&0x3c)
#define ISS_WRITE	(1u << 6)
#define ISS_MAINTENANCE (1u << 8) /* a cache instruction: "write" means nothing */

#define VECTOR_KIND(vector) ((vector)&3u)
enum { VECTOR_SYNC, VECTOR_IRQ, VECTOR_FIQ, VECTOR_SERROR };

void trap_dispatch(struct arch_regs *regs, unsigned int vector);

/* vectors.S */
extern char probe_load[], probe_store[], probe_failed[], probe_call_return[], probe_call_failed[];

static const char *const ec_names[64] = {
	[0x00] = "undefined instruction",
	[0x01] = "trapped WFI or WFE",
	[0x07] = "use of floating point",
	[0x09] = "trapped pointer authentication",
	[0x0d] = "branch target exception",
	[0x0e] = "illegal execution state",
	[0x11] = "SVC (AArch32)",
	[0x15] = "SVC",
	[0x16] = "HVC",
	[0x17] = "SMC",
	[0x18] = "trapped system register",
	[0x19] = "use of SVE",
	[0x1c] = "pointer authentication failure",
	[0x20] = "instruction abort from user mode",
	[0x21] = "instruction abort",
	[0x22] = "misaligned program counter",
	[0x24] = "data abort from user mode",
	[0x25] = "data abort",
	[0x26] = "misaligned stack pointer",
	[0x2c] = "floating point exception",
	[0x2f] = "SError",
	[0x31] = "breakpoint",
	[0x33] = "single step",
	[0x35] = "watchpoint",
	[0x3c] = "BRK",
};

/* Of aborts, by status code without the level. */
static const char *const fsc_names[16] = {
	[FSC_ADDRESS_SIZE >> 2] = "address size fault",
	[FSC_TRANSLATION >> 2] = "translation fault",
	[FSC_ACCESS_FLAG >> 2] = "access flag fault",
	[FSC_PERMISSION >> 2] = "permission fault",
	[FSC_EXTERNAL >> 2] = "external abort",
	[FSC_EXTERNAL_ON_WALK >> 2] = "external abort on a table walk",
	[0x18 >> 2] = "parity or ECC error",
	[0x1c >> 2] = "parity or ECC error on a table walk",
	[FSC_ALIGNMENT >> 2] = "alignment fault",
	[0x30 >> 2] = "TLB conflict",
	[0x34 >> 2] = "unsupported exclusive or atomic access",
};

static unsigned int exception_class(const struct arch_regs *regs)
{
	return (unsigned int)(regs->esr >> 26) & 0x3f;
}

static bool is_abort(const struct arch_regs *regs)
{
	unsigned int ec = exception_class(regs);

	return ec == EC_INSTRUCTION_ABORT || ec == EC_DATA_ABORT;
}

static enum arch_trap_kind abort_kind(const struct arch_regs *regs)
{
	switch (ISS_FSC(regs->esr)) {
	case FSC_ADDRESS_SIZE:
	case FSC_TRANSLATION:
	case FSC_ACCESS_FLAG:
	case FSC_PERMISSION:
		return ARCH_TRAP_PAGE_FAULT;
	case FSC_ALIGNMENT:
		return ARCH_TRAP_MISALIGNED;
	default:
		return ARCH_TRAP_BUS_ERROR;
	}
}

static enum arch_trap_kind sync_kind(const struct arch_regs *regs)
{
	switch (exception_class(regs)) {
	case EC_INSTRUCTION_ABORT:
	case EC_DATA_ABORT:
		return abort_kind(regs);
	case EC_UNKNOWN:
	case EC_FP:
	case EC_ILLEGAL_STATE:
	case EC_SYSREG:
		return ARCH_TRAP_ILLEGAL;
	case EC_PC_ALIGNMENT:
	case EC_SP_ALIGNMENT:
		return ARCH_TRAP_MISALIGNED;
	case EC_BRK:
		return ARCH_TRAP_BREAKPOINT;
	default:
		return ARCH_TRAP_OTHER;
	}
}

static const char *sync_name(const struct arch_regs *regs)
{
	const char *name = ec_names[exception_class(regs)];

	if (is_abort(regs))
		name = fsc_names[ISS_FSC(regs->esr) >> 2];
	return name ? name : "unknown exception";
}

/* A jump to where no code is has saved nothing: then the record in regs names the caller. */
static uint64_t frame_pointer_of(struct arch_regs *regs)
{
	if (regs->pc - (uintptr_t)__text_start < (uintptr_t)(__text_end - __text_start))
		return regs->x[29];
	regs->frame[1] = regs->x[30];
	return (uintptr_t)regs->frame;
}

static void describe(struct arch_regs *regs, unsigned int vector, struct arch_trap_info *info)
{
	info->pc = regs->pc;
	info->sp = regs->sp;
	info->frame_pointer = frame_pointer_of(regs);
	info->cause = regs->esr;
	info->address = regs->far;
	info->write = exception_class(regs) == EC_DATA_ABORT &&
		      (regs->esr & (ISS_WRITE | ISS_MAINTENANCE)) == ISS_WRITE;
	info->execute = exception_class(regs) == EC_INSTRUCTION_ABORT;
	info->kind = sync_kind(regs);
	info->name = sync_name(regs);
	if (vector == VECTOR_EXC_FULL) {
		info->kind = ARCH_TRAP_STACK_OVERFLOW;
		info->name = "exception stack full";
	} else if (VECTOR_KIND(vector) == VECTOR_SERROR) {
		info->kind = ARCH_TRAP_BUS_ERROR;
		info->name = "SError";
	}
}

/* An access of arch_probe_* failed: let it return -1. */
static bool fix_probe(struct arch_regs *regs)
{
	uint64_t return_pc = regs->x[30];

	if (!is_abort(regs) && exception_class(regs) != EC_PC_ALIGNMENT)
		return false;
	if (regs->pc == (uintptr_t)probe_load || regs->pc == (uintptr_t)probe_store) {
		regs->pc = (uintptr_t)probe_failed;
		return true;
	}
	if (regs->pc == regs->x[0] && return_pc == (uintptr_t)probe_call_return) {
		regs->pc = (uintptr_t)probe_call_failed;
		return true;
	}
	return false;
}

static bool is_transient(const struct arch_regs *regs)
{
	return is_abort(regs) && ISS_FSC(regs->esr) == FSC_TRANSLATION &&
	       mmu_fault_was_transient(regs->far);
}

static void trap_sync(struct arch_regs *regs, unsigned int vector)
{
	struct arch_trap_info info;

	if (VECTOR_KIND(vector) == VECTOR_SYNC && vector != VECTOR_EXC_FULL &&
	    (is_transient(regs) || fix_probe(regs)))
		return;
	describe(regs, vector, &info);
	kernel_trap(regs, &info);
}

/* FIQ is an interrupt like another: which of the two one gets is the controller's affair. */
void trap_dispatch(struct arch_regs *regs, unsigned int vector)
{
	if (vector != VECTOR_EXC_FULL &&
	    (VECTOR_KIND(vector) == VECTOR_IRQ || VECTOR_KIND(vector) == VECTOR_FIQ))
		kernel_irq(ARCH_IRQ_EXTERNAL);
	else
		trap_sync(regs, vector);
}

/* The vectors are the final ones since boot; what is left is to let SErrors through. */
void arch_trap_init(void)
{
	__asm__ volatile("msr daifclr, #4" ::: "memory");
}

void arch_regs_print(const struct arch_regs *regs, void (*print)(const char *line))
{
	char line[96];

	for (unsigned int i = 0; i < 30; i += 3) {
		format_buf(line, sizeof(line), "x%-2u %016lx  x%-2u %016lx  x%-2u %016lx", i,
			   regs->x[i], i + 1, regs->x[i + 1], i + 2, regs->x[i + 2]);
		print(line);
	}
	format_buf(line, sizeof(line), "x30 %016lx  sp  %016lx  pc  %016lx", regs->x[30], regs->sp,
		   regs->pc);
	print(line);
	format_buf(line, sizeof(line), "psr %016lx  esr %016lx  far %016lx", regs->pstate,
		   regs->esr, regs->far);
	print(line);
}

static bool on_exception_stack(uint64_t fp)
{
	return fp - (uintptr_t)__emergency_stack_bottom <
	       (uintptr_t)__emergency_stack_top - (uintptr_t)__emergency_stack_bottom;
}

/* Whether two words at fp can be read without harm. */
static bool is_frame(uint64_t fp)
{
	enum arch_memtype type;
	uint64_t pa;

	return fp && !(fp & 0xf) && !arch_mmu_probe(fp, &pa, &type) && type == ARCH_MEM_NORMAL;
}

/* A stack grows down, so the way up ends where it does not lead up; but it may leave an exception.
 */
bool arch_unwind(uint64_t *fp, uint64_t *pc)
{
	const uint64_t *frame = (const uint64_t *)*fp;
	uint64_t next;

	if (!is_frame(*fp) || !frame[1])
		return false;
	next = frame[0];
	*pc = frame[1];
	*fp = next > *fp || on_exception_stack(*fp) ? next : 0;
	return true;
}
