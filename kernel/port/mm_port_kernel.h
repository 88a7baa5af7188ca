/* SPDX-License-Identifier: MIT */
/* The kernel's inline half of mm/port.h. The contracts stand there. */
#ifndef MM_PORT_KERNEL_H
#define MM_PORT_KERNEL_H

#include <arch/arch.h>
#include <kernel/lock.h>
#include <kernel/panic.h>

/* Both locks are one word. */
static inline unsigned long mm_port_lock(struct mm_lock *lock)
{
	return spin_lock_word(&lock->word);
}

static inline void mm_port_unlock(struct mm_lock *lock, unsigned long state)
{
	spin_unlock_word(&lock->word, state);
}

static inline unsigned long mm_port_pin(unsigned int *cpu)
{
	unsigned long state = arch_irq_save();

	*cpu = arch_cpu_id();
	return state;
}

static inline void mm_port_unpin(unsigned long state, unsigned int cpu)
{
	(void)cpu;
	arch_irq_restore(state);
}

static inline phys_addr_t mm_port_virt_to_phys(virt_addr_t va)
{
	return (phys_addr_t){arch_virt_to_phys(virt_ptr(va))};
}

static inline int mm_port_cache_flush(virt_addr_t va, size_t nbytes)
{
	return arch_cache_flush(va.value, nbytes);
}

/* In kernel/mm_port.c, behind the lock of the page tables, and behind the log. */
int mm_port_set_attr(virt_addr_t va, size_t npages, enum mm_attr attr);
__attribute__((format(printf, 2, 3))) void mm_port_log(enum mm_log_level level, const char *fmt,
						       ...);

#define mm_port_panic panic

#endif
