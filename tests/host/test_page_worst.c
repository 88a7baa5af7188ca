/* SPDX-License-Identifier: MIT */
/*
 * The worst cases of the page allocator, in instructions. A child process
 * prepares an occupancy and makes a request; its parent steps it through the
 * request and counts. All occupancies are made to mislead a search, over
 * regions of 64 MiB to 4 TiB whose pages are made up: only metadata exist.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../mm/page_region.h"
#include "../../mm/test/page_rig.h"

#define BASE ((uintptr_t)1 << 44)

/* Is every access checked, or every branch counted? Then there are many more instructions. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(COVERAGE)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

/* --- Counting ----------------------------------------------------------- */

/* What the child tells: which case is next, and whether all went well. */
struct report {
	const char *occupancy;
	size_t npages, n, align;
	bool free, failed;
};

static struct report *report;

static void mark(void)
{
	raise(SIGSTOP);
}

/* Let the child run to its next mark. Its status. */
static int run_on(pid_t child)
{
	int status = 0;

	ptrace(PTRACE_CONT, child, NULL, NULL);
	waitpid(child, &status, 0);
	return status;
}

/* The same in single steps, which are counted. */
static long step_on(pid_t child)
{
	long steps = 0;
	int status = 0;

	for (;; steps++) {
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) < 0 ||
		    waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
			return -1;
		if (WSTOPSIG(status) == SIGSTOP)
			return steps;
	}
}

/* --- Occupancies -------------------------------------------------------- */

static struct page_alloc pages;
static size_t npages;

static bool must(bool done)
{
	report->failed |= !done;
	return done;
}

static uintptr_t at(size_t page)
{
	return BASE + page * MM_PAGE_SIZE;
}

static void take_at(size_t page, size_t n)
{
	must(page_alloc_get_at(&pages, (virt_addr_t){at(page)}, n, PAGE_USAGE_USER) == ALLOC_OK);
}

static void give_at(size_t page, size_t n)
{
	must(rig_put(&pages, at(page), n) == ALLOC_OK);
}

/* All is taken but runs of nfree pages, one in each `period` pages, `offset` into it. */
struct pattern {
	const char *name;
	size_t period, offset, nfree;
};

static const struct pattern patterns[] = {
	{"checkerboard", 2, 1, 1},
	{"two of three", 3, 0, 2},
	{"one page short of eight", 16, 0, 7},
	{"three, misaligned", 8, 2, 3},
	{"seven across the groups' borders", 64, 61, 7},
	{"one page short of a group", 64, 1, 63},
	{"across the leaves' borders", 512, 460, 100},
	{"one page short of 512", 1024, 512, 511},
	{"across the chunks' borders", 4096, 4000, 190},
	{"one page in a chunk", 4096, 4095, 1},
};

static void make_pattern(const struct pattern *p)
{
	take_at(0, npages);
	for (size_t i = p->offset; i + p->nfree <= npages; i += p->period)
		give_at(i, p->nfree);
}

/* All is free but a page in each `period` pages. */
static void make_free_but(size_t period)
{
	for (size_t i = period / 2; i < npages; i += period)
		take_at(i, 1);
}

/* Pages change in many places, so that as many sums as ever can are not up to date. */
static void stir(void)
{
	for (size_t i = 0; i < npages && i < 8 * PAGE_CHUNK; i += PAGE_LEAF / 2) {
		size_t page = i + 63;
		bool taken = page_alloc_is_allocated(&pages, (virt_addr_t){at(page)});

		if (taken)
			give_at(page, 1);
		take_at(page, 1);
		if (!taken)
			give_at(page, 1);
	}
}

/* --- Requests ----------------------------------------------------------- */

static const struct request {
	size_t n, align; /* pages */
	bool limited;	 /* in the lower half of the region */
} requests[] = {
	{1, 8, false},	{3, 1, true},	  {3, 4, false},     {8, 8, true},
	{33, 1, false}, {100, 64, false}, {512, 512, false}, {513, 1, false},
};

static void measure(const char *occupancy, struct request q)
{
	struct page_request req = {
		.npages = q.n, .align = q.align * MM_PAGE_SIZE, .usage = PAGE_USAGE_USER};
	enum mm_fault_kind fault;
	enum alloc_result r;
	virt_addr_t va;

	if (q.limited)
		req.phys_limit = RIG_HIGH + npages / 2 * MM_PAGE_SIZE;
	*report = (struct report){occupancy, npages, q.n, q.align, false, report->failed};
	mark();
	r = page_alloc_get(&pages, req, &va);
	mark();
	if (r != ALLOC_OK)
		return;
	report->free = true;
	mark();
	r = page_alloc_put(&pages, va, q.n, &fault);
	mark();
	must(r == ALLOC_OK);
}

static void measure_all(const char *occupancy)
{
	for (size_t k = 0; k < sizeof(requests) / sizeof(requests[0]); k++) {
		stir();
		measure(occupancy, requests[k]);
	}
	must(!page_alloc_check(&pages));
}

static void new_region(void *metadata, size_t nbytes)
{
	npages = nbytes / MM_PAGE_SIZE;
	memset(&pages, 0, sizeof(pages));
	must(page_alloc_add_foreign(&pages, metadata, (virt_addr_t){BASE}, npages,
				    (phys_addr_t){RIG_HIGH}) == ALLOC_OK);
}

/* Everything that can be filled page by page in a moment. */
static void small_regions(void *metadata, size_t nbytes)
{
	for (size_t k = 0; k < sizeof(patterns) / sizeof(patterns[0]); k++) {
		new_region(metadata, nbytes);
		make_pattern(&patterns[k]);
		measure_all(patterns[k].name);
	}
	new_region(metadata, nbytes);
	take_at(0, npages - 1);
	measure_all("all but the last page");
}

static void large_regions(void *metadata, size_t nbytes)
{
	new_region(metadata, nbytes);
	measure_all("empty");
	make_free_but(npages / 256);
	measure_all("a page in 256 places");
}

static void child_main(void *metadata)
{
	static const size_t mib = (size_t)1 << 20;

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	mark();
	mark(); /* nothing: what counting itself takes */
	large_regions(metadata, 65536 * mib);
	if (SANITIZED)
		_exit(0);
	small_regions(metadata, 64 * mib);
	large_regions(metadata, 4096 * mib);
	large_regions(metadata, 4096 * 1024 * mib);
	_exit(0);
}

/* --- The test ----------------------------------------------------------- */

/* Instructions of a request, without sanitizers, and of each page of it. */
#define WORST_GET      40000
#define WORST_PUT      5000
#define WORST_PER_PAGE 2

static long limit_of(const struct report *r)
{
	long limit = (r->free ? WORST_PUT : WORST_GET) + WORST_PER_PAGE * (long)r->n;

	return SANITIZED ? 12 * limit : limit;
}

/* Step through every case of the child. False when one takes too long. */
static bool watch(pid_t child)
{
	struct report worst[2] = {0};
	long overhead, most[2] = {0, 0};
	int status;

	waitpid(child, &status, 0);
	overhead = step_on(child);
	if (overhead < 0) {
		selftest_skip("a process cannot be single-stepped here");
		return true;
	}
	while (status = run_on(child), WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP) {
		long steps = step_on(child) - overhead;
		struct report now = *report;

		CHECK_OR(steps >= 0 && !now.failed, false);
		if (steps > most[now.free]) {
			most[now.free] = steps;
			worst[now.free] = now;
		}
		if (steps > limit_of(&now))
			selftest_note("%ld instructions: %s %zu pages at %zu, %zu pages, %s", steps,
				      now.free ? "put" : "get", now.n, now.align, now.npages,
				      now.occupancy);
		CHECK_OR(steps <= limit_of(&now), false);
	}
	CHECK_OR(WIFEXITED(status) && !WEXITSTATUS(status) && !report->failed, false);
	for (int k = 0; k < 2; k++)
		selftest_note("%s: at most %ld instructions (%zu pages at %zu, %zu pages, %s)",
			      k ? "put" : "get", most[k], worst[k].n, worst[k].align,
			      worst[k].npages, worst[k].occupancy);
	return true;
}

SELFTEST(host, page_worst_case)
{
	size_t nbytes = page_region_metadata(BASE >> MM_PAGE_SHIFT, (size_t)1 << 30);
	void *metadata = mmap(NULL, nbytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pid_t child;

	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (metadata == MAP_FAILED || report == MAP_FAILED) {
		selftest_skip("no address space for a region of this size");
		return;
	}
	child = fork();
	CHECK(child >= 0);
	if (!child)
		child_main(metadata);
	CHECK(watch(child));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	munmap(metadata, nbytes);
	munmap(report, sizeof(*report));
}
