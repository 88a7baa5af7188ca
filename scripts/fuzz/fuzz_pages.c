/* SPDX-License-Identifier: MIT */
/* libFuzzer target of the page allocator: a model with one flag per page. */
#include <stdio.h>
#include <stdlib.h>

#include <mm/page_alloc.h>

#define NPAGES 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static _Alignas(2 << 20) uint8_t arena[NPAGES * 4096];
static struct page_alloc pages;
static uint8_t taken[NPAGES];
static size_t ntaken;

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	fprintf(stderr, "pages: %s\n", what);
	abort();
}

static bool any_is(size_t first, size_t n, uint8_t state)
{
	for (size_t i = first; i < first + n; i++)
		if (taken[i] == state)
			return true;
	return false;
}

static void mark(size_t first, size_t n, uint8_t state)
{
	__builtin_memset(taken + first, state, n);
	ntaken += state ? n : -n;
}

static void get(size_t n, size_t align)
{
	struct page_request req = {.npages = n, .align = align, .usage = PAGE_USAGE_USER};
	virt_addr_t va;
	size_t first;

	if (page_alloc_get(&pages, req, &va))
		return;
	first = (va.value - (uintptr_t)arena) / 4096;
	expect(!(va.value & (align - 1)), "misaligned");
	expect(first + n <= NPAGES && !any_is(first, n, 1), "overlap or out of bounds");
	mark(first, n, 1);
}

static void get_at(size_t first, size_t n)
{
	if (page_alloc_get_at(&pages, virt_addr(arena + first * 4096), n, PAGE_USAGE_DMA))
		return;
	expect(!any_is(first, n, 1), "got pages that were taken");
	mark(first, n, 1);
}

static void put(size_t first, size_t n)
{
	enum mm_fault_kind fault;
	bool sound = !any_is(first, n, 0);

	if (page_alloc_put(&pages, virt_addr(arena + first * 4096), n, &fault)) {
		expect(!sound, "a correct free was refused");
		return;
	}
	expect(sound, "a wrong free was accepted");
	mark(first, n, 0);
}

static void step(const uint8_t *op)
{
	size_t n = op[1] % 64 + 1u;
	size_t first = (op[2] | (size_t)op[3] << 8) % (NPAGES - 64);

	if (op[0] % 4 < 2)
		get(n, (size_t)4096 << op[2] % 8);
	else if (op[0] % 4 == 2)
		put(first, n);
	else
		get_at(first, n);
	expect(page_alloc_used(&pages) == ntaken, "the count of used pages is wrong");
	expect(!page_alloc_check(&pages), "its own check fails");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
	__builtin_memset(&pages, 0, sizeof(pages));
	__builtin_memset(taken, 0, sizeof(taken));
	ntaken = 0;
	expect(!page_alloc_add_region(&pages, virt_addr(arena), sizeof(arena)), "add_region");
	for (size_t i = 0; i + 4 <= nbytes; i += 4)
		step(data + i);
	return 0;
}
