/* SPDX-License-Identifier: MIT */
/*
 * Words that one CPU writes and others may read meanwhile, to whom any value that
 * was ever there will do. An aligned word is read and written whole by one plain instruction. The
 * builtins are more than that (gcc 12): the store is an atomic exchange on RISC-V, the load
 * has no offset in it on AArch64. A machine with one CPU has no others, so there a load is a load,
 * which compilers make a part of the instruction that needs it.
 */
#ifndef MM_RELAXED_H
#define MM_RELAXED_H

#include <stddef.h>
#include <stdint.h>

#include <mm/port.h>

static inline size_t mm_load_relaxed(const size_t *p)
{
#ifdef __SANITIZE_THREAD__
	return __atomic_load_n(p, __ATOMIC_RELAXED);
#else
	return MM_MAX_CPUS == 1 ? *p : *(const volatile size_t *)p;
#endif
}

static inline uint32_t mm_load_relaxed32(const uint32_t *p)
{
#ifdef __SANITIZE_THREAD__
	return __atomic_load_n(p, __ATOMIC_RELAXED);
#else
	return MM_MAX_CPUS == 1 ? *p : *(const volatile uint32_t *)p;
#endif
}

static inline void mm_store_relaxed(size_t *p, size_t value)
{
#ifdef __SANITIZE_THREAD__
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
#else
	*(volatile size_t *)p = value;
#endif
}

static inline void mm_store_relaxed32(uint32_t *p, uint32_t value)
{
#ifdef __SANITIZE_THREAD__
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
#else
	if (MM_MAX_CPUS == 1)
		*p = value;
	else
		*(volatile uint32_t *)p = value;
#endif
}

#endif
