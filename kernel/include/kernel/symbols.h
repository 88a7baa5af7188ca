/* SPDX-License-Identifier: MIT */
/* Names of functions, for backtraces. */
#ifndef KERNEL_SYMBOLS_H
#define KERNEL_SYMBOLS_H

#include <stdint.h>

/* The function that pc is in and how far, or NULL. */
const char *symbol_find(uint64_t pc, uint64_t *offset);

/* Print a backtrace that begins at a frame (pc 0: only the callers). */
void backtrace_print(uint64_t pc, uint64_t frame_pointer);

#endif
