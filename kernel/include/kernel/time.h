/* SPDX-License-Identifier: MIT */
/* Time since boot, deadlines, and one shared timer interrupt. */
#ifndef KERNEL_TIME_H
#define KERNEL_TIME_H

#include <stdbool.h>
#include <stdint.h>

/* Time starts to count: first of all, when the kernel is entered. */
void time_init(void);

/* No alarm is set. Panics when it is not known how fast the counter counts, or cannot be. */
void time_start(void);

/* Let one timer interrupt come, as trees are wrong about it at times; says so if it does not.
 * Interrupts are on. */
void time_try(void);

/* Nanoseconds since boot; 0 as long as it is not known how fast the counter counts. */
uint64_t time_ns(void);

/* A point in time (ns since boot) `ms` milliseconds from now. */
uint64_t time_after_ms(uint64_t ms);

/*
 * Calls fn once from the timer interrupt at or after `at_ns` (since boot); 0 turns it off. fn runs
 * with interrupts off, on the stack of what was interrupted. There is one, which takes the place of
 * what was armed before; on the boot CPU.
 */
void timer_arm(uint64_t at_ns, void (*fn)(void));

/*
 * An interrupt ends a wait (arch_wait_for_interrupt) at `at_ns`, should none do so before. To be
 * asked for before each wait: it takes the place of what was asked for last, so that what an
 * earlier wait left behind does not end this one. On the boot CPU.
 */
void timer_wake_by(uint64_t at_ns);

/* Does it? Where no timer interrupt ever came one must not wait, but look again and again. */
bool timer_can_wake(void);

/* How many timer interrupts came. */
uint64_t timer_interrupts(void);

#endif
