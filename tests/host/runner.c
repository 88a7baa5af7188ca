/* SPDX-License-Identifier: MIT */
/*
 * Runs the self-tests of the "selftests" section under cmocka.
 * usage: selftest [GLOB], where GLOB is matched with the names of the tests
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

#include <mm/global.h>
#include <selftest/selftest.h>

extern const struct selftest __start_selftests[], __stop_selftests[];

#define GLOBAL_MEMORY ((size_t)32 << 20)
#define MAX_SCRATCH   64
static void *scratch[MAX_SCRATCH];
static size_t nscratch;

void selftest_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: CHECK(%s) failed\n", file, line, what);
	_fail(file, line);
}

/* No allocation is made to fail here. */
void selftest_broken(const char *file, int line, const char *what)
{
	selftest_fail(file, line, what);
}

void selftest_skip(const char *why)
{
	printf("# SKIP: %s\n", why);
	skip();
}

void selftest_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("# ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
}

void *selftest_memory(size_t nbytes)
{
	void *p;

	if (nscratch == MAX_SCRATCH)
		return NULL;
	p = aligned_alloc(4096, (nbytes + 4095) & ~(size_t)4095);
	if (p)
		scratch[nscratch++] = p;
	return p;
}

/* Pages of the static allocator that are in use when nothing is kept that could be given back. */
static size_t used_pages(void)
{
	global_allocator_trim(global_allocator());
	return global_allocator_used_pages(global_allocator());
}

static void run_one(void **state)
{
	const struct selftest *t = *state;
	size_t before = used_pages(), after;

	t->run();
	after = used_pages();
	if (after > before + t->may_keep_pages)
		selftest_fail(t->name, 0, "no page was leaked");
}

static int free_scratch(void **state)
{
	(void)state;
	while (nscratch)
		free(scratch[--nscratch]);
	return 0;
}

/* The static allocator is what the kernel would have made of RAM before its tests. */
static bool init_global(void)
{
	void *mem = aligned_alloc(GLOBAL_MEMORY, GLOBAL_MEMORY);

	return mem && global_init(virt_addr(mem), GLOBAL_MEMORY) == ALLOC_OK;
}

int main(int argc, char **argv)
{
	size_t total = (size_t)(__stop_selftests - __start_selftests), n = 0;
	int failed;
	struct CMUnitTest *tests = calloc(total + 1, sizeof(*tests));

	if (!tests || !init_global())
		return 1;
	for (const struct selftest *t = __start_selftests; t < __stop_selftests; t++) {
		if (argc > 1 && fnmatch(argv[1], t->name, 0))
			continue;
		tests[n++] = (struct CMUnitTest){t->name, run_one, NULL, free_scratch, (void *)t};
	}
	if (!n) {
		fprintf(stderr, "selftest: no test matches '%s'\n", argc > 1 ? argv[1] : "");
		free(tests);
		return 1;
	}
	failed = _cmocka_run_group_tests("selftests", tests, n, NULL, NULL);
	free(tests);
	return failed != 0;
}
