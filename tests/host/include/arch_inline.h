/* SPDX-License-Identifier: MIT */
/* The inline half of an architecture for host tests: as much as drivers with fake devices use. */
#ifndef HOST_ARCH_INLINE_H
#define HOST_ARCH_INLINE_H

#include <stdbool.h>
#include <stdint.h>

#define ARCH_DMA_COHERENT_BY_DEFAULT true

static inline unsigned long arch_irq_save(void)
{
	return 0;
}

static inline void arch_irq_restore(unsigned long state)
{
	(void)state;
}

static inline void arch_relax(void)
{
}

static inline void arch_store_release32(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static inline void arch_wait_for_interrupt(void)
{
}

static inline void arch_io_mb(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void arch_io_rmb(void)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static inline void arch_io_wmb(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

#endif
