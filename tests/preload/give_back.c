/* SPDX-License-Identifier: MIT */
/*
 * Does freed memory go back to Linux? Blocks of several ranges of sizes are allocated,
 * written and freed; at most half of what was resident at the peak may be so afterwards.
 * (The heap grows by doubling, and what lives on in its last piece keeps that.) Exit
 * status 0: it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BYTES  ((size_t)64 << 20) /* allocated of each range */
#define BLOCKS (BYTES / 32)

static size_t resident_bytes(void)
{
	long total, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%ld %ld", &total, &resident) != 2)
		exit(2);
	fclose(f);
	return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Sizes between smallest and twice that. */
static int check_range(void **blocks, size_t smallest)
{
	size_t n = 0, held = 0, before = resident_bytes(), peak, after;

	while (held < BYTES && n < BLOCKS) {
		size_t size = smallest + n * 2654435761u % smallest;

		blocks[n] = malloc(size);
		if (!blocks[n])
			return -1;
		memset(blocks[n++], 1, size);
		held += size;
	}
	peak = resident_bytes();
	/* Not in the order of allocation. */
	for (size_t start = 0; start < 7; start++)
		for (size_t i = start; i < n; i += 7)
			free(blocks[i]);
	after = resident_bytes();
	printf("sizes from %zu: %zu KiB before, %zu at peak, %zu after\n", smallest, before >> 10,
	       peak >> 10, after >> 10);
	return peak - before >= BYTES / 2 && after <= before + (peak - before) / 2 ? 0 : -1;
}

int main(void)
{
	static const size_t smallest[] = {32, 500, 5000, 50000, 500000};
	static void *blocks[BLOCKS];

	memset(blocks, 0, sizeof(blocks));
	(void)resident_bytes(); /* what stdio keeps */
	for (size_t i = 0; i < sizeof(smallest) / sizeof(smallest[0]); i++)
		if (check_range(blocks, smallest[i]))
			return 1;
	return 0;
}
