/* SPDX-License-Identifier: MIT */
/* What the timer promises to who waits. */
#include <arch/arch.h>
#include <kernel/time.h>
#include <selftest/selftest.h>

/* A wait that ended early leaves its time behind, which does not end the next one. */
SELFTEST(kernel, timer_wakes_when_asked)
{
	unsigned long state;
	uint64_t came, end;

	if (!timer_can_wake()) {
		selftest_skip("no timer interrupt");
		return;
	}
	timer_wake_by(time_after_ms(2));
	end = time_after_ms(20);
	state = arch_irq_save();
	timer_wake_by(end);
	for (came = timer_interrupts(); timer_interrupts() == came;) {
		arch_wait_for_interrupt();
		arch_irq_restore(state);
		state = arch_irq_save();
	}
	arch_irq_restore(state);
	CHECK(time_ns() >= end);
}
