/* SPDX-License-Identifier: MIT */
/*
 * The inline half of the RISC-V port (arch/arch.h says what each function must do).
 *
 * tp always points to this CPU's struct riscv_cpu (riscv.h), whose first member is the logical id.
 */
#ifndef ARCH_INLINE_H
#define ARCH_INLINE_H

#include <stdbool.h>
#include <stdint.h>

#define ARCH_DMA_COHERENT_BY_DEFAULT true

#define RISCV_SSTATUS_SIE 2ul

/* As vector.S pushes it; offsets are pinned in trap.c. */
struct arch_regs {
	uint64_t x[32]; /* x[0] is not used */
	uint64_t pc, status, cause, address;
	uint64_t frame[2]; /* a frame record that trap.c makes up for a leaf function */
};

/* The supervisor may read the counter of retired instructions (found out in isa.c). */
extern bool riscv_has_instret;

static inline bool arch_irq_enabled(void)
{
	unsigned long status;

	__asm__ volatile("csrr %0, sstatus" : "=r"(status) : : "memory");
	return status & RISCV_SSTATUS_SIE;
}

static inline void arch_irq_enable(void)
{
	__asm__ volatile("csrsi sstatus, 2" : : : "memory");
}

static inline void arch_irq_disable(void)
{
	__asm__ volatile("csrci sstatus, 2" : : : "memory");
}

/*
 * The state is the whole register: restoring sets the bits that were set. SIE is the only one
 * that anybody clears in between.
 */
static inline unsigned long arch_irq_save(void)
{
	unsigned long status;

	__asm__ volatile("csrrci %0, sstatus, 2" : "=r"(status) : : "memory");
	return status;
}

static inline void arch_irq_restore(unsigned long state)
{
	__asm__ volatile("csrs sstatus, %0" : : "r"(state) : "memory");
}

/*
 * Half of the id is all of it. A load of so much is one that the compiler knows to need no
 * widening when an index is made of it.
 */
static inline unsigned int arch_cpu_id(void)
{
	unsigned long id;

	__asm__ volatile("lhu %0, 0(tp)" : "=r"(id));
	if (id > UINT16_MAX)
		__builtin_unreachable();
	return (unsigned int)id;
}

/* The pause hint (Zihintpause); without that extension a fence that orders nothing. */
static inline void arch_relax(void)
{
	__asm__ volatile(".4byte 0x0100000f" : : : "memory");
}

static inline void arch_wait_for_interrupt(void)
{
	__asm__ volatile("wfi" : : : "memory");
}

static inline uint64_t arch_time_now(void)
{
	uint64_t ticks;

	__asm__ volatile("csrr %0, time" : "=r"(ticks) : : "memory");
	return ticks;
}

static inline uint64_t arch_cycles(void)
{
	uint64_t count = 0;

	if (riscv_has_instret)
		__asm__ volatile("csrr %0, instret" : "=r"(count) : : "memory");
	return count;
}

static inline void arch_mb(void)
{
	__asm__ volatile("fence rw, rw" : : : "memory");
}

static inline void arch_rmb(void)
{
	__asm__ volatile("fence r, r" : : : "memory");
}

static inline void arch_wmb(void)
{
	__asm__ volatile("fence w, w" : : : "memory");
}

static inline void arch_io_mb(void)
{
	__asm__ volatile("fence iorw, iorw" : : : "memory");
}

static inline void arch_io_rmb(void)
{
	__asm__ volatile("fence ir, ir" : : : "memory");
}

static inline void arch_io_wmb(void)
{
	__asm__ volatile("fence ow, ow" : : : "memory");
}

/* What is stored is at hand and never zero: the low half of tp, which tells the holder. */
static inline bool arch_try_lock32(uint32_t *word)
{
	long old;

	__asm__ volatile("amoswap.w.aq %0, tp, %1" : "=r"(old), "+A"(*word) : : "memory");
	return !old;
}

/* One instruction; the compiler's release store has a fence before it. */
static inline void arch_store_release32(uint32_t *p, uint32_t value)
{
	__asm__ volatile("amoswap.w.rl zero, %z1, %0" : "+A"(*p) : "rJ"(value) : "memory");
}

static inline uint8_t arch_read8(const volatile void *p)
{
	return *(const volatile uint8_t *)p;
}

static inline uint16_t arch_read16(const volatile void *p)
{
	return *(const volatile uint16_t *)p;
}

static inline uint32_t arch_read32(const volatile void *p)
{
	return *(const volatile uint32_t *)p;
}

static inline uint64_t arch_read64(const volatile void *p)
{
	return *(const volatile uint64_t *)p;
}

static inline void arch_write8(volatile void *p, uint8_t value)
{
	*(volatile uint8_t *)p = value;
}

static inline void arch_write16(volatile void *p, uint16_t value)
{
	*(volatile uint16_t *)p = value;
}

static inline void arch_write32(volatile void *p, uint32_t value)
{
	*(volatile uint32_t *)p = value;
}

static inline void arch_write64(volatile void *p, uint64_t value)
{
	*(volatile uint64_t *)p = value;
}

__attribute__((always_inline)) static inline const void *arch_frame_pointer(void)
{
	return __builtin_frame_address(0);
}

#endif
