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
static inline unsigned long spin_lock_word(uint32_t *word)
{
	unsigned long state = arch_irq_save();

	while (__builtin_expect(!arch_try_lock32(word), 0))
		arch_relax();
	return state;
}

static inline void spin_unlock_word(uint32_t *word, unsigned long state)
{
	arch_store_release32(word, 0);
	arch_irq_restore(state);
}

static inline unsigned long spin_lock(struct spinlock *lock)
{
	return spin_lock_word(&lock->word);
}

static inline void spin_unlock(struct spinlock *lock, unsigned long state)
{
	spin_unlock_word(&lock->word, state);
}

#endif
