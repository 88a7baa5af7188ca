/* SPDX-License-Identifier: MIT */
/* The port of mm/ and dma/ for the host tests: threads stand for CPUs. */
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <mm/port.h>

#include "mm_port_host.h"

struct mm_port_host_hooks mm_port_host_hooks;

static _Atomic uint32_t slot_lock[MM_MAX_CPUS];
static _Atomic unsigned int next_slot;
static _Thread_local unsigned int my_slot = ~0u;

/* There are more threads than CPUs: who has the lock may be waiting for this one. */
static void spin(_Atomic uint32_t *word)
{
	while (atomic_exchange_explicit(word, 1, memory_order_acquire))
		sched_yield();
}

unsigned long mm_port_lock(struct mm_lock *lock)
{
	spin((_Atomic uint32_t *)&lock->word);
	return 0;
}

void mm_port_unlock(struct mm_lock *lock, unsigned long state)
{
	(void)state;
	atomic_store_explicit((_Atomic uint32_t *)&lock->word, 0, memory_order_release);
}

/* The first thread shares its CPU with no other; the others may have to. */
static unsigned int slot_of_thread(unsigned int n)
{
	return n ? 1 + (n - 1) % (MM_MAX_CPUS - 1) : 0;
}

unsigned long mm_port_pin(unsigned int *cpu)
{
	if (my_slot == ~0u)
		my_slot = slot_of_thread(atomic_fetch_add(&next_slot, 1));
	spin(&slot_lock[my_slot]);
	*cpu = my_slot;
	return 0;
}

void mm_port_unpin(unsigned long state, unsigned int cpu)
{
	(void)state;
	atomic_store_explicit(&slot_lock[cpu], 0, memory_order_release);
}

void mm_port_log(enum mm_log_level level, const char *fmt, ...)
{
	va_list ap;

	if (mm_port_host_hooks.log) {
		mm_port_host_hooks.log(level);
		return;
	}
	va_start(ap, fmt);
	fprintf(stderr, "[%d] ", (int)level);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
}

void mm_port_panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	abort();
}

/* On the host "physical" is virtual, so that zones and masks can be tested with made-up bases. */
phys_addr_t mm_port_virt_to_phys(virt_addr_t va)
{
	return (phys_addr_t){va.value};
}

int mm_port_set_attr(virt_addr_t va, size_t npages, enum mm_attr attr)
{
	return mm_port_host_hooks.set_attr ? mm_port_host_hooks.set_attr(va, npages, attr) : 0;
}

int mm_port_cache_flush(virt_addr_t va, size_t nbytes)
{
	return mm_port_host_hooks.cache_flush ? mm_port_host_hooks.cache_flush(va, nbytes) : 0;
}
