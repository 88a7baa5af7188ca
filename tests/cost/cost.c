/* SPDX-License-Identifier: MIT */
/*
 * A small workload on the static global allocator, the same in every run and on every engine,
 * for counting the instructions of each hardening level: scripts/harden-cost.sh counts what
 * is executed inside of allocations and frees, and nothing else of this.
 *
 * usage: cost pairs|churn, which prints the number of calls that it made
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mm/global.h>

#define REGION ((size_t)16 << 20)
#define LIVE   1000u
#define ROUNDS 20000u

static uint64_t state = 1;

/* splitmix64 */
static uint64_t next_random(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void *get(size_t size)
{
	void *p;

	if (global_alloc((struct layout){size, 8}, &p) != ALLOC_OK)
		exit(2);
	return memset(p, 0x11, size);
}

static void put(void *p, size_t size)
{
	if (global_dealloc(p, (struct layout){size, 8}) != ALLOC_OK)
		exit(2);
}

/* Most requests of most programs: small, a few of them not. */
static size_t random_size(void)
{
	uint64_t r = next_random();

	return 1 + (r >> 8) % (r % 32 ? 256 : 8192);
}

static void *block[LIVE];
static size_t size[LIVE];

static void get_block(unsigned int i)
{
	size[i] = random_size();
	block[i] = get(size[i]);
}

/* One block comes and goes. */
static void pairs(void)
{
	for (unsigned int i = 0; i < ROUNDS; i++)
		put(get(64), 64);
}

/* Any of many blocks is replaced. */
static void churn(void)
{
	for (unsigned int n = 0; n < ROUNDS; n++) {
		unsigned int i = (unsigned int)(next_random() % LIVE);

		put(block[i], size[i]);
		get_block(i);
	}
}

int main(int argc, char **argv)
{
	void *memory = aligned_alloc(MM_PAGE_SIZE, REGION);

	if (argc != 2 || !memory || global_init(virt_addr(memory), REGION) != ALLOC_OK)
		return 2;
	for (unsigned int i = 0; i < LIVE; i++)
		get_block(i);
	if (strcmp(argv[1], "pairs"))
		churn();
	else
		pairs();
	printf("%u\n", LIVE + 2 * ROUNDS);
	return 0;
}
