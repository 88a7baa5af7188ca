/* SPDX-License-Identifier: MIT */
/*
 * The port of mm/ for a Linux process. A thread is pinned by locking one of
 * MM_MAX_CPUS slots, always the same one for a thread; who finds a
 * lock taken for long gives up its time slice, as the holder may not be running.
 */
#ifndef PORT_PRELOAD_H
#define PORT_PRELOAD_H

/* No header of the C library: its names must not meet those of mm/. The rest is in preload.c. */

#define SPINS_BEFORE_YIELD 100

extern struct mm_lock port_slots[MM_MAX_CPUS];
extern _Thread_local unsigned int port_slot __attribute__((tls_model("initial-exec")));
unsigned int port_new_slot(void);
void port_yield(void);

static inline unsigned long mm_port_lock(struct mm_lock *lock)
{
	unsigned int spins = 0;

	while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE))
		if (++spins % SPINS_BEFORE_YIELD == 0)
			port_yield();
	return 0;
}

static inline void mm_port_unlock(struct mm_lock *lock, unsigned long state)
{
	__atomic_store_n(&lock->word, (uint32_t)state, __ATOMIC_RELEASE);
}

static inline unsigned long mm_port_pin(unsigned int *cpu)
{
	if (__builtin_expect(!port_slot, 0))
		port_slot = port_new_slot();
	*cpu = port_slot - 1;
	return mm_port_lock(&port_slots[*cpu]);
}

static inline void mm_port_unpin(unsigned long state, unsigned int cpu)
{
	mm_port_unlock(&port_slots[cpu], state);
}

static inline phys_addr_t mm_port_virt_to_phys(virt_addr_t va)
{
	return (phys_addr_t){va.value};
}

__attribute__((format(printf, 2, 3))) void mm_port_log(enum mm_log_level level, const char *fmt,
						       ...);
__attribute__((noreturn, format(printf, 1, 2))) void mm_port_panic(const char *fmt, ...);

#endif
