/* SPDX-License-Identifier: MIT */
#include <mm/global.h>

void console_write(const char *s); /* what this system has; see docs/embedding.md */

void mm_port_panic(const char *fmt, ...)
{
	console_write(fmt);
	for (;;)
		;
}

static char ram[1 << 20] __attribute__((aligned(4096)));

int main(void)
{
	struct layout l = {.size = 100, .align = 64};
	void *p;

	if (global_init(virt_addr(ram), sizeof(ram)) != ALLOC_OK || global_alloc(l, &p) != ALLOC_OK)
		return 1;
	console_write(__builtin_memcpy(p, "hello from a block of ", 23));
	console_write(global_allocator_name(global_allocator()));
	console_write("\n");
	return global_dealloc(p, l) != ALLOC_OK || global_allocator_used_bytes(global_allocator());
}
