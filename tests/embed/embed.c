/* SPDX-License-Identifier: MIT */
#include <mm/global.h>

void console_write(const char *s); /* what this system has; see docs/embedding.md */

unsigned long mm_port_lock(struct mm_lock *lock)
{
	while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE))
		;
	return 0; /* no interrupts here that would have to be masked */
}
void mm_port_unlock(struct mm_lock *lock, unsigned long state)
{
	__atomic_store_n(&lock->word, (uint32_t)state, __ATOMIC_RELEASE);
}
unsigned long mm_port_pin(unsigned int *cpu) { return *cpu = 0; /* the only one */ }
void mm_port_unpin(unsigned long state, unsigned int cpu) { (void)state, (void)cpu; }
phys_addr_t mm_port_virt_to_phys(virt_addr_t va) { return (phys_addr_t){va.value}; }
void mm_port_log(enum mm_log_level level, const char *fmt, ...) { (void)level, (void)fmt; }
void mm_port_panic(const char *fmt, ...)
{
	console_write(fmt);
	for (;;)
		;
}

static char ram[1 << 20] __attribute__((aligned(4096)));

int main(void)
{
	struct layout l = {.size = 100, .align = 64};
	void *p;

	if (global_init(virt_addr(ram), sizeof(ram)) != ALLOC_OK || global_alloc(l, &p) != ALLOC_OK)
		return 1;
	console_write(__builtin_memcpy(p, "hello from a block of ", 23));
	console_write(global_allocator_name(global_allocator()));
	console_write("\n");
	return global_dealloc(p, l) != ALLOC_OK || global_allocator_used_bytes(global_allocator());
}
