/* SPDX-License-Identifier: MIT */
/* The port of the benchmark plugins: one thread, so locks and pins are nothing. */
#ifndef PORT_BENCH_H
#define PORT_BENCH_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static inline unsigned long mm_port_lock(struct mm_lock *lock)
{
	(void)lock;
	return 0;
}

static inline void mm_port_unlock(struct mm_lock *lock, unsigned long state)
{
	(void)lock;
	(void)state;
}

static inline unsigned long mm_port_pin(unsigned int *cpu)
{
	*cpu = 0;
	return 0;
}

static inline void mm_port_unpin(unsigned long state, unsigned int cpu)
{
	(void)state;
	(void)cpu;
}

static inline phys_addr_t mm_port_virt_to_phys(virt_addr_t va)
{
	return (phys_addr_t){va.value};
}

static inline int mm_port_set_attr(virt_addr_t va, size_t npages, enum mm_attr attr)
{
	(void)va;
	(void)npages;
	(void)attr;
	return 0;
}

static inline int mm_port_cache_flush(virt_addr_t va, size_t nbytes)
{
	(void)va;
	(void)nbytes;
	return 0;
}

static inline void mm_port_log(enum mm_log_level level, const char *fmt, ...)
{
	va_list ap;

	(void)level;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

__attribute__((noreturn)) static inline void mm_port_panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	abort();
}

#endif
