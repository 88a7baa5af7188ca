/* SPDX-License-Identifier: MIT */
/*
 * Runs every self-test once, counting the requests for memory that it causes, and
 * then once more for each of them, with that one failing, and with that one and
 * all later ones. Each run is a process of its own. It may end where it cannot go
 * on: a CHECK that fails after an injected failure ends the test, an INVARIANT
 * does not. But it must not crash or hang, what it held must be accepted
 * back, every allocator must then be empty and sound, and nothing may have been
 * reported as misuse. A test with very many requests has every k-th of them fail.
 *
 * usage: injection [GLOB], where GLOB is matched with the names of the tests
 */
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/global.h>
#include <selftest/selftest.h>

#include "inject.h"

#define GLOBAL_MEMORY ((size_t)32 << 20)
#define MOST_RUNS     100u /* of a test, for each kind of failure */
#define CPU_LIMIT     60u  /* seconds, for one run */
#define TIME_LIMIT    600u /* for one that sleeps */

extern const struct selftest __start_selftests[], __stop_selftests[];

/* What a run tells its parent. */
enum verdict { CRASHED, BROKEN, SKIPPED, ENDED_EARLY, WENT_ON };

static struct report {
	enum verdict verdict;
	unsigned long requests, faults;
	char why[200];
} * report;

static const struct selftest *test;
static unsigned long faults; /* reported in this run although no test expected them */
static bool faults_expected;

/* These break memory on purpose, so that it is not sound in the end; all else holds for them too.
 */
static const char *const breaks_memory[] = {
	"mm/*smashed*",
	"mm/*repairs*",
	"mm/*broken*",
	"mm/*isolation*",
	"mm/*poison*",
	"mm/*write_in_quarantine",
	"mm/cache_threads_double_free", /* of two frees at once the ledger may take the other */
};

/* Where one run takes long, and how many there are then; so that all machines make the same runs.
 * The first that matches counts. */
static const struct slow {
	const char *glob;
	unsigned int most_runs;
} slow[] = {
	{"host/flipped_bits_of_engines", 1},
	{"host/page_random_against_model", 2},
	{"mm/engines_shadow", 3},
	{"slab/threads", 5},
	{"mm/global_out_of_memory", 6},
	{"mm/engines_exhaustion", 8},
	{"host/flipped_bits_of_pages", 10},
	{"mm/global_threads", 11},
	{"mm/cache_threads", 15},
	{"mm/global_static_ups_and_downs", 18},
	{"mm/tlsf_later_piece", 18},
	{"mm/engines_settle_many", 20},
	{"mm/tlsf_map_of_a_huge_piece", 20},
	{"mm/global_full", 22},
	{"mm/engines_full_occupancy", 24},
	{"mm/engines_any_length", 24},
	{"mm/cache_threads_*", 30},
	{"mm/global_gives_back_*", 30},
	{"dma/far_boundary", 25},
	{"mm/global_random", 40},
	{"mm/global_threads_growth", 52},
	{"mm/buddy_settles_the_oldest", 50},
	{"mm/global_gives_back", 70},
};

static bool breaks(const struct selftest *t)
{
	for (size_t i = 0; i < sizeof(breaks_memory) / sizeof(breaks_memory[0]); i++)
		if (!fnmatch(breaks_memory[i], t->name, 0))
			return true;
	return false;
}

/* --- Inside a run --- */

/* Threads that the test made use its allocators until they end. */
static void wait_for_threads(void)
{
	struct stat tasks;

	while (!stat("/proc/self/task", &tasks) && tasks.st_nlink > 3)
		usleep(1000);
}

__attribute__((noreturn)) static void end_run(enum verdict verdict, const char *why)
{
	const char *unsound;

	report->requests = inject_requests();
	report->faults = faults;
	wait_for_threads();
	inject_stop();
	unsound = verdict == BROKEN || breaks(test)
			  ? NULL
			  : ledger_settle(test->may_keep_pages, verdict == WENT_ON);
	report->verdict = unsound ? BROKEN : verdict;
	snprintf(report->why, sizeof(report->why), "%s", unsound ? unsound : why);
	fflush(NULL);
	_exit(0);
}

void selftest_fail(const char *file, int line, const char *what)
{
	char why[sizeof(report->why)];

	snprintf(why, sizeof(why), "%s:%d: CHECK(%s)", file, line, what);
	end_run(inject_fired() ? ENDED_EARLY : BROKEN, why);
}

void selftest_broken(const char *file, int line, const char *what)
{
	char why[sizeof(report->why)];

	snprintf(why, sizeof(why), "%s:%d: INVARIANT(%s)", file, line, what);
	end_run(BROKEN, why);
}

void selftest_skip(const char *why)
{
	end_run(inject_fired() ? ENDED_EARLY : SKIPPED, why);
}

void selftest_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
}

void *selftest_memory(size_t nbytes)
{
	return inject_fails() ? NULL : aligned_alloc(4096, (nbytes + 4095) & ~(size_t)4095);
}

WRAPPED(mm_fault_report);
WRAPPED(mm_fault_expect);
WRAPPED(mm_port_panic);

void __wrap_mm_fault_report(const struct mm_fault *fault)
{
	struct mm_fault f = *fault;

	if (f.caller && ledger_caller())
		f.caller = ledger_caller();
	faults += !faults_expected;
	__real_mm_fault_report(&f);
}

void __wrap_mm_fault_expect(bool on)
{
	faults_expected = on;
	__real_mm_fault_expect(on);
}

/* The aborting form of an allocation aborts. */
void __wrap_mm_port_panic(const char *fmt, ...)
{
	if (inject_fired() && !strncmp(fmt, "allocation failed", 17))
		end_run(ENDED_EARLY, fmt);
	abort();
}

__attribute__((noreturn)) static void run_in_child(unsigned long nth, bool all_after)
{
	struct rlimit limit = {CPU_LIMIT, CPU_LIMIT};

	setrlimit(RLIMIT_CPU, &limit);
	alarm(TIME_LIMIT);
	ledger_start();
	inject_start(nth, all_after);
	test->run();
	end_run(WENT_ON, "");
}

/* --- All runs of a test --- */

static struct report run_once(unsigned long nth, bool all_after)
{
	pid_t child;
	int status;

	fflush(NULL);
	if (ftruncate(STDERR_FILENO, 0) || lseek(STDERR_FILENO, 0, SEEK_SET))
		exit(2);
	*report = (struct report){.verdict = CRASHED};
	child = fork();
	if (!child) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		run_in_child(nth, all_after);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		exit(2);
	if (report->verdict == CRASHED)
		snprintf(report->why, sizeof(report->why),
			 "crashed, or no end after %u s of CPU time or %u s", CPU_LIMIT,
			 TIME_LIMIT);
	return *report;
}

/* What the run printed is in the file that stands for stderr. */
static void print_log(void)
{
	char line[512];
	FILE *log = fdopen(dup(STDERR_FILENO), "r");

	rewind(log);
	while (fgets(line, sizeof(line), log))
		printf("#   | %s", line);
	fclose(log);
}

static bool good(struct report r, struct report plain)
{
	if (r.verdict == CRASHED || r.verdict == BROKEN)
		return false;
	return r.faults <= plain.faults;
}

static bool inject(struct report plain, unsigned long stride, bool all_after, unsigned int *early)
{
	for (unsigned long n = 1; n <= plain.requests; n += stride) {
		struct report r = run_once(n, all_after);

		*early += r.verdict == ENDED_EARLY;
		if (good(r, plain))
			continue;
		printf("# request %lu%s fails: %s\n", n, all_after ? " and all after" : "",
		       r.why[0] ? r.why : "misuse was reported");
		print_log();
		return false;
	}
	return true;
}

static unsigned int most_runs(const struct selftest *t)
{
	for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++)
		if (!fnmatch(slow[i].glob, t->name, 0))
			return slow[i].most_runs;
	return MOST_RUNS;
}

static bool run_test(void)
{
	struct report plain = run_once(0, false);
	unsigned long runs = most_runs(test);
	unsigned long stride = (plain.requests + runs - 1) / runs; /* every request, or so many */
	unsigned int early = 0;

	if (plain.verdict != WENT_ON && plain.verdict != SKIPPED) {
		printf("# nothing fails: %s\n", plain.why);
		print_log();
		return false;
	}
	if (!inject(plain, stride, false, &early) || !inject(plain, stride, true, &early))
		return false;
	printf("# %lu requests, every %lu. failed, %u of %lu runs ended early\n", plain.requests,
	       stride, early, stride ? 2 * ((plain.requests + stride - 1) / stride) : 0);
	return true;
}

static bool start(void)
{
	void *memory = aligned_alloc(GLOBAL_MEMORY, GLOBAL_MEMORY);
	FILE *log = tmpfile();

	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	return report != MAP_FAILED && log && memory &&
	       global_init(virt_addr(memory), GLOBAL_MEMORY) == ALLOC_OK &&
	       dup2(fileno(log), STDERR_FILENO) >= 0;
}

int main(int argc, char **argv)
{
	unsigned int failed = 0, n = 0;

	if (!start())
		return 2;
	for (test = __start_selftests; test < __stop_selftests; test++) {
		bool ok;

		if (argc > 1 && fnmatch(argv[1], test->name, 0))
			continue;
		n++;
		ok = run_test();
		failed += !ok;
		printf("[  %s ] %s\n", ok ? "     OK" : "FAILED ", test->name);
	}
	if (!n) {
		fprintf(stderr, "injection: no test matches '%s'\n", argc > 1 ? argv[1] : "");
		return 1;
	}
	printf("%u tests with failing allocations, %u failed\n", n, failed);
	return failed != 0;
}
