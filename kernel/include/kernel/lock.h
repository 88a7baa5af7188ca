/* SPDX-License-Identifier: MIT */
/* The kernel's spin lock: interrupt-safe, all zero is unlocked. It is the lock of the mm port. */
#ifndef KERNEL_LOCK_H
#define KERNEL_LOCK_H

#include <arch/arch.h>
#include <mm/types.h>

struct spinlock {
	uint32_t word;
};

/* Disable interrupts on this CPU, then take the lock. Returns what the unlock restores. */
static inline unsigned long spin_lock(struct spinlock *lock)
{
	unsigned long state = arch_irq_save();

	while (__builtin_expect(__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE), 0))
		arch_relax();
	return state;
}

static inline void spin_unlock(struct spinlock *lock, unsigned long state)
{
	__atomic_store_n(&lock->word, 0, __ATOMIC_RELEASE);
	arch_irq_restore(state);
}

#endif
