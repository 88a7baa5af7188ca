/* SPDX-License-Identifier: MIT */
/* The runner of include/selftest/selftest.h in the kernel. Output: KTAP version 1. */
#include <kernel/selftest.h>

#include <arch/arch.h>
#include <dma/dma.h>
#include <kernel/log.h>
#include <kernel/panic.h>
#include <kernel/time.h>
#include <lib/format.h>
#include <lib/string.h>
#include <mm/global.h>

#include <selftest/selftest.h>

/* On an emulated machine that shares its host; a test should take milliseconds. */
#define HANG_LIMIT_MS 60000u
#define MAX_SCRATCH   64u

extern const struct selftest __start_selftests[], __stop_selftests[];

static struct {
	const struct selftest *test; /* running, or NULL */
	unsigned int number;
	bool failed, skipped;
	const char *why;
	struct {
		virt_addr_t start;
		size_t npages;
	} scratch[MAX_SCRATCH];
	unsigned int nscratch;
} now;

void selftest_fail(const char *file, int line, const char *what)
{
	now.failed = true;
	kprintf("# %s:%d: CHECK(%s) failed\n", file, line, what);
}

/* No allocation is made to fail here. */
void selftest_broken(const char *file, int line, const char *what)
{
	selftest_fail(file, line, what);
}

void selftest_skip(const char *why)
{
	now.skipped = true;
	now.why = why;
}

void selftest_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	kprintf("# ");
	kvprintf(fmt, ap);
	kprintf("\n");
	va_end(ap);
}

void *selftest_memory(size_t nbytes)
{
	size_t npages = (nbytes + MM_PAGE_SIZE - 1) / MM_PAGE_SIZE;
	virt_addr_t va;

	if (now.nscratch == MAX_SCRATCH ||
	    global_allocator_alloc_pages(global_allocator(), npages, MM_PAGE_SIZE, &va) != ALLOC_OK)
		return NULL;
	now.scratch[now.nscratch].start = va;
	now.scratch[now.nscratch++].npages = npages;
	return virt_ptr(va);
}

static void free_scratch(void)
{
	while (now.nscratch) {
		now.nscratch--;
		if (global_allocator_dealloc_pages(global_allocator(),
						   now.scratch[now.nscratch].start,
						   now.scratch[now.nscratch].npages) != ALLOC_OK)
			selftest_fail(__FILE__, __LINE__, "scratch memory can be given back");
	}
}

static void hangs(void)
{
	panic("test %s hangs: no end after %u s", now.test->name, HANG_LIMIT_MS / 1000);
}

/* Pages that allocators keep at hand for the next request are no leak. */
static size_t pages_in_use(void)
{
	dma_trim();
	global_allocator_trim(global_allocator());
	return global_allocator_used_pages(global_allocator());
}

static void check_leak(size_t pages_before, size_t may_keep)
{
	size_t pages = pages_in_use();

	if (pages <= pages_before + may_keep)
		return;
	kprintf("# %s: %zu pages leaked\n", now.test->name, pages - pages_before);
	now.failed = true;
}

static void report(const char *verdict, uint64_t us)
{
	kprintf("%s %u %s", verdict, now.number, now.test->name);
	if (now.skipped)
		kprintf(" # SKIP %s\n", now.why);
	else
		kprintf(" # %lu us\n", us);
}

static void run_one(const struct selftest *t, struct selftest_result *sum)
{
	size_t pages = pages_in_use();
	uint64_t start = time_ns();

	now.test = t;
	now.number++;
	now.failed = now.skipped = false;
	timer_arm(time_after_ms(HANG_LIMIT_MS), hangs);
	t->run();
	timer_arm(0, NULL);
	free_scratch();
	if (!now.skipped)
		check_leak(pages, t->may_keep_pages);
	report(now.failed ? "not ok" : "ok", (time_ns() - start) / 1000);
	if (now.failed)
		sum->failed++;
	else if (now.skipped)
		sum->skipped++;
	else
		sum->passed++;
	now.test = NULL;
}

/* Before the first test: the statics of the tests. Boot leaves them out. */
static void clear_statics(void)
{
	extern char __test_bss_start[], __test_bss_end[];
	static bool cleared;

	if (!cleared)
		memset(__test_bss_start, 0, (size_t)(__test_bss_end - __test_bss_start));
	cleared = true;
}

struct selftest_result selftest_run(const char *glob)
{
	struct selftest_result sum = {0, 0, 0};
	unsigned int n = 0;

	clear_statics();
	for (const struct selftest *t = __start_selftests; t < __stop_selftests; t++)
		n += !glob || glob_match(glob, t->name);
	now.number = 0;
	kprintf("KTAP version 1\n1..%u\n", n);
	for (const struct selftest *t = __start_selftests; t < __stop_selftests; t++)
		if (!glob || glob_match(glob, t->name))
			run_one(t, &sum);
	if (glob && !n) {
		kprintf("# no test is called %s\n", glob);
		sum.failed = 1;
	}
	kprintf("# Totals: pass:%u fail:%u skip:%u\n", sum.passed, sum.failed, sum.skipped);
	return sum;
}

void selftest_crashed(void)
{
	if (now.test)
		kprintf("not ok %u %s # crashed\n", now.number, now.test->name);
	now.test = NULL;
}
