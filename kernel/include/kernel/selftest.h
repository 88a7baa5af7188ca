/* SPDX-License-Identifier: MIT */
/* Runs the self-tests: KTAP on the console, a filter, a hang limit, a page-leak check. */
#ifndef KERNEL_SELFTEST_H
#define KERNEL_SELFTEST_H

struct selftest_result {
	unsigned int passed, failed, skipped;
};

/* Run the tests whose names match the glob (NULL: all). */
struct selftest_result selftest_run(const char *glob);

/* Called by a panic: name the test that crashed, in KTAP. */
void selftest_crashed(void);

#endif
