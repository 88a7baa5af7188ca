/* SPDX-License-Identifier: MIT */
/*
 * Words that one CPU writes and others may read meanwhile, to whom any value that
 * was ever there will do. An aligned word is written whole by one plain store; the
 * builtin for it would be an atomic exchange on RISC-V (gcc 12).
 */
#ifndef MM_RELAXED_H
#define MM_RELAXED_H

#include <stddef.h>

static inline size_t mm_load_relaxed(const size_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline void mm_store_relaxed(size_t *p, size_t value)
{
#ifdef __SANITIZE_THREAD__
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
#else
	*(volatile size_t *)p = value;
#endif
}

#endif
