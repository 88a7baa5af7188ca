/* SPDX-License-Identifier: MIT */
/*
 * Self-tests: the same sources run in the kernel (KTAP on the serial line) and
 * on the host (under cmocka, ASan and UBSan). A test is a function in a linker
 * section, so that the runner can compare the results with what is in the ELF.
 *
 *	SELFTEST(mm, page_alignment)
 *	{
 *		CHECK(a == b);
 *	}
 *
 * is the test "mm/page_alignment". A failed CHECK reports and leaves the test;
 * in a helper that returns int, use CHECK_OR(cond, -1).
 */
#ifndef SELFTEST_SELFTEST_H
#define SELFTEST_SELFTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct selftest {
	const char *name; /* "module/test" */
	void (*run)(void);
	/* Pages the test may keep for good (caches that grow on first use); normally 0. */
	size_t may_keep_pages;
};

#define SELFTEST_KEEPS(module, test, pages)                                      \
	static void selftest_##module##_##test(void);                            \
	static const struct selftest selftest_entry_##module##_##test            \
		__attribute__((section("selftests"), used, aligned(8))) = {      \
			#module "/" #test, selftest_##module##_##test, (pages)}; \
	static void selftest_##module##_##test(void)

#define SELFTEST(module, test) SELFTEST_KEEPS(module, test, 0)

/* The current test has failed. On the host this does not return. */
void selftest_fail(const char *file, int line, const char *what);

/* The current test cannot run here, and why. Return after it. */
void selftest_skip(const char *why);

/* A remark in the log of the current test ("# ..."). */
__attribute__((format(printf, 1, 2))) void selftest_note(const char *fmt, ...);

/*
 * Page-aligned scratch memory, contents undefined, given back by the runner
 * after the test. NULL when there is not that much: skip the test.
 */
void *selftest_memory(size_t nbytes);

/*
 * A deterministic pseudo-random sequence (splitmix64), for property tests.
 */
static inline uint64_t selftest_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

#define CHECK_OR(cond, ret)                                       \
	do {                                                      \
		if (!(cond)) {                                    \
			selftest_fail(__FILE__, __LINE__, #cond); \
			return ret;                               \
		}                                                 \
	} while (0)

#define CHECK(cond) CHECK_OR(cond, )

/*
 * The same, for what must hold whatever allocation was made to fail before it:
 * where failures are injected (tests/inject), a CHECK that fails after one ends
 * the test as "out of memory", an INVARIANT fails it.
 */
void selftest_broken(const char *file, int line, const char *what);

#define INVARIANT_OR(cond, ret)                                     \
	do {                                                        \
		if (!(cond)) {                                      \
			selftest_broken(__FILE__, __LINE__, #cond); \
			return ret;                                 \
		}                                                   \
	} while (0)

#define INVARIANT(cond) INVARIANT_OR(cond, )

#endif
