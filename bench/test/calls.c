/* SPDX-License-Identifier: MIT */
/* A program whose calls of malloc are known: bench-test.sh compares what the recorder makes of
 * them. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NTHREADS 4
#define NCALLS	 1000

static void every_call(void)
{
	volatile size_t too_much = PTRDIFF_MAX;
	char *grown = malloc(100), *shrunk = calloc(3, 50), *never_freed;
	void *aligned[5];

	grown = realloc(grown, 5000); /* another block is behind it, so it moves */
	shrunk = realloc(shrunk, 140);
	aligned[0] = aligned_alloc(64, 128);
	if (posix_memalign(&aligned[1], 4096, 10))
		abort();
	aligned[2] = memalign(256, 7);
	aligned[3] = valloc(4000);
	aligned[4] = pvalloc(100); /* a whole page */
	never_freed = realloc(NULL, 33);
	never_freed = reallocarray(never_freed, 1000, 5000); /* too much for where it is */
	if (!never_freed || malloc(too_much) || pvalloc(SIZE_MAX) ||
	    reallocarray(NULL, too_much, 4))
		abort();
	free(NULL);
	free(malloc(0));
	free(grown);
	shrunk = realloc(shrunk, 0);
	for (size_t i = 0; i < 5; i++)
		free(aligned[i]);
}

/* No alignment, some that are no power of two (newer C libraries have them of memalign alone), and
 * a very large one. */
static void odd_alignments(void)
{
	static const size_t aligns[] = {0, 1, 3, 24, 4097, (size_t)1 << 31};
	void *p[6];

	for (size_t i = 0; i < 6; i++) {
		p[i] = i < 5 ? memalign(aligns[i], 100) : aligned_alloc(aligns[i], 100);
		if (!p[i])
			abort();
	}
}

/* More than bench_record.py has recorded of a program, and than fit into 1 MiB. */
static void many_calls(void)
{
	for (size_t i = 0; i < 300000; i++)
		free(malloc(16));
}

static void *churn(void *arg)
{
	for (size_t i = 0; i < NCALLS; i++)
		free(malloc(4242));
	return arg;
}

static void threads(void)
{
	pthread_t t[NTHREADS];

	for (size_t i = 0; i < NTHREADS; i++)
		if (pthread_create(&t[i], NULL, churn, NULL))
			abort();
	for (size_t i = 0; i < NTHREADS; i++)
		pthread_join(t[i], NULL);
}

static void forked(void)
{
	void *parents = malloc(11);
	pid_t pid = fork();

	if (pid == 0) {
		void *childs = malloc(22);

		free(parents);
		free(childs);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	free(parents);
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (strcmp(what, "every") == 0)
		every_call();
	else if (strcmp(what, "threads") == 0)
		threads();
	else if (strcmp(what, "aligned") == 0)
		odd_alignments();
	else if (strcmp(what, "many") == 0)
		many_calls();
	else if (strcmp(what, "fork") == 0)
		forked();
	else if (strcmp(what, "exec") == 0)
		return malloc(55) ? execl(argv[0], argv[0], "fork", (char *)NULL) : 1;
	else if (strcmp(what, "killed") == 0)
		return malloc(66) ? raise(SIGKILL) : 1;
	else
		return 2;
	return 0;
}
