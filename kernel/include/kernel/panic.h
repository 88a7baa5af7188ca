/* SPDX-License-Identifier: MIT */
#ifndef KERNEL_PANIC_H
#define KERNEL_PANIC_H

#include <kernel/log.h>

/* Print the message and a backtrace, end the test run as failed, stop or power off. Any context. */
__attribute__((noreturn)) void panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Always on: states that must not be, checked where the check is cheap. */
static inline void kassert_at(int ok, const char *what, const char *file, int line)
{
	if (__builtin_expect(!ok, 0))
		panic("%s:%d: assertion failed: %s", file, line, what);
}
#define kassert(cond) kassert_at(!!(cond), #cond, __FILE__, __LINE__)

#endif
