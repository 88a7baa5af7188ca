/* SPDX-License-Identifier: MIT */
static inline unsigned long mm_port_lock(struct mm_lock *lock)
{
	while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE))
		;
	return 0; /* no interrupts here that would have to be masked */
}
static inline void mm_port_unlock(struct mm_lock *lock, unsigned long state)
{
	__atomic_store_n(&lock->word, (uint32_t)state, __ATOMIC_RELEASE);
}
static inline unsigned long mm_port_pin(unsigned int *cpu) { return *cpu = 0; /* the only one */ }
static inline void mm_port_unpin(unsigned long state, unsigned int cpu) { (void)state, (void)cpu; }
static inline phys_addr_t mm_port_virt_to_phys(virt_addr_t va) { return (phys_addr_t){va.value}; }
static inline void mm_port_log(enum mm_log_level level, const char *fmt, ...) { (void)level, (void)fmt; }
__attribute__((noreturn)) void mm_port_panic(const char *fmt, ...);
