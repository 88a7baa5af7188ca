/* SPDX-License-Identifier: MIT */
/* An allocator that only ever moves forward, of bytes and of pages, right by itself; BENCH_BREAK
 * names a mistake that it then makes at every hundredth allocation. A free is 100 instructions and
 * no more, so that the counter can be tested. */
#include <stdlib.h>
#include <string.h>

#include "../host/pageplugin.h"
#include "../host/plugin.h"

static unsigned char *next, *end, *previous;
static size_t ncalls;
static const char *mistake;

static int makes(const char *what)
{
	return ncalls % 100 == 0 && mistake && strcmp(mistake, what) == 0;
}

const char *heap_name(void)
{
	return "broken";
}

int heap_init(void *region, size_t size)
{
	next = region;
	end = next + size;
	mistake = getenv("BENCH_BREAK");
	return 0;
}

void *heap_alloc(size_t size, size_t align)
{
	unsigned char *p = (unsigned char *)(((uintptr_t)next + align - 1) & -align);

	ncalls++;
	if (size > (size_t)(end - p) || makes("exhausted"))
		return NULL;
	if (makes("overlap"))
		return previous;
	if (makes("corrupt"))
		previous[0] ^= 1;
	if (makes("outside"))
		return end;
	next = p + size;
	if (makes("misaligned"))
		return p + 4;
	if (makes("crash"))
		abort();
	return previous = p;
}

#define NOPS_100 __asm__ volatile(".rept 100\n\tnop\n\t.endr")

void heap_free(void *p, size_t size, size_t align)
{
	(void)p;
	(void)size;
	(void)align;
	NOPS_100;
}

static uintptr_t next_page, end_page;

const char *page_name(void)
{
	return "broken";
}

int page_init(uintptr_t base, size_t npages, void *meta, size_t meta_size)
{
	(void)meta;
	(void)meta_size;
	next_page = base;
	end_page = base + npages * 4096;
	mistake = getenv("BENCH_BREAK");
	return 0;
}

uintptr_t page_alloc(size_t n, unsigned int align_log2)
{
	uintptr_t size = (uintptr_t)4096 << align_log2;
	uintptr_t page = (next_page + size - 1) & -size;

	ncalls++;
	if (n > (end_page - page) / 4096)
		return PAGE_FAIL;
	next_page = page + n * 4096;
	return makes("overlap") ? page - 4096 : page;
}

void page_free(uintptr_t addr, size_t n, unsigned int align_log2)
{
	(void)addr;
	(void)n;
	(void)align_log2;
	NOPS_100;
}
