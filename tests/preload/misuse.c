/* SPDX-License-Identifier: MIT */
/*
 * Does a report of misuse name who called, that is an address in this program? Blocks are freed
 * twice, and freed and resized as if they were of another size, which only the allocator
 * itself can find. Exit status 0: each report does.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const char __executable_start[], etext[]; /* from the linker */

/* The header of preload.c begins with the size. */
static void *block_of_wrong_size(size_t align)
{
	size_t *p = aligned_alloc(align, 256);

	if (!p)
		exit(2);
	p[-2] = 20000;
	return p;
}

static void *misuse(void *unused)
{
	void *volatile p = malloc(100);

	free(p);
	free(p);
	free(block_of_wrong_size(16));
	if (realloc(block_of_wrong_size(16), 300))
		exit(2);
	free(realloc(block_of_wrong_size(64), 40000));
	return unused;
}

/* Standard error goes into a pipe, which holds all that is written here. */
static FILE *catch_reports(void)
{
	int ends[2];

	if (pipe(ends) || dup2(ends[1], STDERR_FILENO) < 0)
		exit(2);
	close(ends[1]);
	return fdopen(ends[0], "r");
}

static int names_this_program(const char *report)
{
	const char *by = strstr(report, " by ");
	void *p;

	return by && sscanf(by, " by %p", &p) == 1 && (char *)p >= __executable_start &&
	       (char *)p < etext;
}

int main(void)
{
	FILE *reports = catch_reports();
	char line[512];
	int n = 0, wrong = 0;
	pthread_t thread;

	if (!reports || pthread_create(&thread, NULL, misuse, NULL))
		return 2;
	pthread_join(thread, NULL);
	misuse(NULL);
	close(STDERR_FILENO);
	for (; fgets(line, sizeof(line), reports); n++) {
		fputs(line, stdout);
		wrong += !names_this_program(line);
	}
	return n < 2 || wrong;
}
