/* SPDX-License-Identifier: MIT */
/* The inline half of the AArch64 port (arch/arch.h says what each function does). */
#ifndef AARCH64_ARCH_INLINE_H
#define AARCH64_ARCH_INLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCH_DMA_COHERENT_BY_DEFAULT false

/* What belongs to one CPU; TPIDR_EL1 points to it. vectors.S knows the offsets (regs.h). */
struct arch_cpu {
	unsigned int id;
	uintptr_t exc_low; /* lowest stack pointer at which an exception stack can take one more */
	uintptr_t exc_top;
	uintptr_t exc_full; /* not zero: it was full once */
};

/* The cycle counter exists and may be read. */
extern bool arch_has_cycle_counter;

/* PSTATE.I and PSTATE.F as DAIF shows them: interrupts come as either (see entry.S on EL3). */
#define ARCH_DAIF_IRQ 0x80u

static inline bool arch_irq_enabled(void)
{
	unsigned long daif;

	__asm__ volatile("mrs %0, daif" : "=r"(daif)::"memory");
	return !(daif & ARCH_DAIF_IRQ);
}

static inline void arch_irq_enable(void)
{
	__asm__ volatile("msr daifclr, #3" ::: "memory");
}

static inline void arch_irq_disable(void)
{
	__asm__ volatile("msr daifset, #3" ::: "memory");
}

static inline unsigned long arch_irq_save(void)
{
	unsigned long daif;

	__asm__ volatile("mrs %0, daif\n\tmsr daifset, #3" : "=r"(daif)::"memory");
	return daif;
}

static inline void arch_irq_restore(unsigned long state)
{
	__asm__ volatile("msr daif, %0" ::"r"(state) : "memory");
}

/* Not volatile: code never moves to another CPU, so that one read serves a whole function. */
static inline unsigned int arch_cpu_id(void)
{
	const struct arch_cpu *cpu;

	__asm__("mrs %0, tpidr_el1" : "=r"(cpu));
	return cpu->id;
}

static inline void arch_relax(void)
{
	__asm__ volatile("yield" ::: "memory");
}

static inline void arch_wait_for_interrupt(void)
{
	__asm__ volatile("dsb sy\n\twfi" ::: "memory");
}

/* Without the barrier the counter may be read ahead of what comes before. */
static inline uint64_t arch_time_now(void)
{
	uint64_t ticks;

	__asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(ticks)::"memory");
	return ticks;
}

static inline uint64_t arch_cycles(void)
{
	uint64_t cycles;

	if (!arch_has_cycle_counter)
		return 0;
	__asm__ volatile("isb\n\tmrs %0, pmccntr_el0" : "=r"(cycles)::"memory");
	return cycles;
}

static inline void arch_mb(void)
{
	__asm__ volatile("dmb ish" ::: "memory");
}

static inline void arch_rmb(void)
{
	__asm__ volatile("dmb ishld" ::: "memory");
}

static inline void arch_wmb(void)
{
	__asm__ volatile("dmb ishst" ::: "memory");
}

/* Devices, and memory that is not cached, belong to the outer shareable domain. */
static inline void arch_io_mb(void)
{
	__asm__ volatile("dmb osh" ::: "memory");
}

static inline void arch_io_rmb(void)
{
	__asm__ volatile("dmb oshld" ::: "memory");
}

static inline void arch_io_wmb(void)
{
	__asm__ volatile("dmb oshst" ::: "memory");
}

static inline bool arch_try_lock32(uint32_t *word)
{
	return !__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE);
}

static inline void arch_store_release32(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

/*
 * One instruction with a plain address: hypervisors decode no other form from
 * the syndrome, and a compiler may choose one that they do not.
 */
static inline uint8_t arch_read8(const volatile void *p)
{
	uint32_t value;

	__asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(p));
	return (uint8_t)value;
}

static inline uint16_t arch_read16(const volatile void *p)
{
	uint32_t value;

	__asm__ volatile("ldrh %w0, [%1]" : "=r"(value) : "r"(p));
	return (uint16_t)value;
}

static inline uint32_t arch_read32(const volatile void *p)
{
	uint32_t value;

	__asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(p));
	return value;
}

static inline uint64_t arch_read64(const volatile void *p)
{
	uint64_t value;

	__asm__ volatile("ldr %0, [%1]" : "=r"(value) : "r"(p));
	return value;
}

static inline void arch_write8(volatile void *p, uint8_t value)
{
	__asm__ volatile("strb %w0, [%1]" ::"rZ"((uint32_t)value), "r"(p));
}

static inline void arch_write16(volatile void *p, uint16_t value)
{
	__asm__ volatile("strh %w0, [%1]" ::"rZ"((uint32_t)value), "r"(p));
}

static inline void arch_write32(volatile void *p, uint32_t value)
{
	__asm__ volatile("str %w0, [%1]" ::"rZ"(value), "r"(p));
}

static inline void arch_write64(volatile void *p, uint64_t value)
{
	__asm__ volatile("str %x0, [%1]" ::"rZ"(value), "r"(p));
}

__attribute__((always_inline)) static inline const void *arch_frame_pointer(void)
{
	return __builtin_frame_address(0);
}

#endif
