/* SPDX-License-Identifier: MIT */
/* The instruction counter that the emulator's plugin (qemu_count.c) keeps in a shared file. */
#ifndef BENCH_COUNTER_H
#define BENCH_COUNTER_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define COUNTER_BYTES 4096

/* NULL and errno when the file cannot be made or mapped. */
static inline volatile uint64_t *counter_map(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *map;

	if (fd < 0)
		return NULL;
	if (ftruncate(fd, COUNTER_BYTES)) {
		close(fd);
		return NULL;
	}
	map = mmap(NULL, COUNTER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}

#endif
