/* SPDX-License-Identifier: MIT */
/*
 * Forks, with handlers that allocate and that were registered before the constructor of any
 * library ran, for this runs before them: a preloaded malloc that takes its locks for the
 * fork must take them after such handlers have run. Exit status 0: child and parent live on.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void allocate(void)
{
	char *volatile p = malloc(100);

	if (!p)
		abort();
	memset(p, 1, 100);
	free(p);
}

static void register_handlers(void)
{
	if (pthread_atfork(allocate, allocate, allocate))
		abort();
}

__attribute__((section(".preinit_array"),
	       used)) static void (*const first)(void) = register_handlers;

int main(void)
{
	int status;
	pid_t child;

	allocate();
	child = fork();
	if (!child) {
		allocate();
		_exit(0);
	}
	return child < 0 || waitpid(child, &status, 0) != child ? 1 : status != 0;
}
