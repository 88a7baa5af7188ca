/* SPDX-License-Identifier: MIT */
/* Misuse, by calls from one section: do the reports of the library name an address in it? */
#include <mm/cache.h>
#include <mm/fault.h>
#include <mm/global.h>

#define MISUSE __attribute__((section("misuse"), noinline))

void console_write(const char *s);

void mm_port_panic(const char *fmt, ...)
{
	console_write(fmt);
	for (;;)
		;
}

extern const char __start_misuse[], __stop_misuse[];

static char ram[1 << 20] __attribute__((aligned(4096)));
static unsigned int right, wrong; /* of the faults that were reported */

static void check(const struct mm_fault *f)
{
	const char *caller = f->caller;

	if (caller >= __start_misuse && caller < __stop_misuse)
		right++;
	else
		wrong++;
}

MISUSE static bool bytes_twice(void)
{
	struct layout l = {100, 8};
	void *p;

	return global_alloc(l, &p) == ALLOC_OK && global_dealloc(p, l) == ALLOC_OK &&
	       global_dealloc(p, l) != ALLOC_OK && global_realloc(p, l, 200, &p) != ALLOC_OK;
}

MISUSE static bool pages_twice(void)
{
	struct global_allocator *g = global_allocator();
	virt_addr_t va;

	return global_allocator_alloc_pages(g, 1, 4096, &va) == ALLOC_OK &&
	       global_allocator_dealloc_pages(g, va, 1) == ALLOC_OK &&
	       global_allocator_dealloc_pages(g, va, 1) != ALLOC_OK;
}

MISUSE static bool object_twice(struct cache *c)
{
	void *p = cache_alloc(c);

	cache_free(c, p);
	cache_free(c, p);
	return p;
}

int main(void)
{
	struct cache *c;

	if (global_init(virt_addr(ram), sizeof(ram)) != ALLOC_OK)
		return 1;
	c = cache_create("misused", 64, 8);
	mm_fault_set_hook(check);
	if (!c || !pages_twice() || (MM_HARDEN && (!bytes_twice() || !object_twice(c))))
		return 1;
	if (right != (MM_HARDEN ? 4 : 1) || wrong)
		return 1;
	console_write("the caller is named\n");
	return 0;
}
