/* SPDX-License-Identifier: MIT */
/* libFuzzer target of the facade: bytes of any layout, resized and freed, payloads verified. */
#include <stdio.h>
#include <stdlib.h>

#include <mm/global.h>

#define SLOTS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static _Alignas(2 << 20) uint8_t arena[4 << 20];
static struct {
	uint8_t *p;
	struct layout l;
} slots[SLOTS];

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	fprintf(stderr, "global: %s\n", what);
	abort();
}

static void verify(size_t i, size_t nbytes)
{
	for (size_t k = 0; k < nbytes; k++)
		expect(slots[i].p[k] == (uint8_t)(i * 31 + k), "a payload has changed");
}

static void fill(size_t i)
{
	for (size_t k = 0; k < slots[i].l.size; k++)
		slots[i].p[k] = (uint8_t)(i * 31 + k);
}

static void release(struct global_allocator *g, size_t i)
{
	verify(i, slots[i].l.size);
	expect(!global_allocator_dealloc(g, slots[i].p, slots[i].l), "a correct free was refused");
	slots[i].p = NULL;
}

static void resize(struct global_allocator *g, size_t i, size_t size)
{
	void *p;
	size_t keep = slots[i].l.size < size ? slots[i].l.size : size;

	if (global_allocator_realloc(g, slots[i].p, slots[i].l, size, &p))
		return;
	slots[i].p = p;
	slots[i].l.size = size;
	verify(i, keep);
	fill(i);
}

static void step(struct global_allocator *g, const uint8_t *op)
{
	size_t i = op[1] % SLOTS;
	size_t size = ((size_t)op[3] + 1) << op[2] % 12;
	size_t align = (size_t)1 << (op[2] / 12) % 17;
	size_t live = 0;
	void *p;

	if (slots[i].p && op[0] % 2) {
		resize(g, i, size);
	} else if (slots[i].p) {
		release(g, i);
	} else if (!global_allocator_alloc(g, (struct layout){size, align}, &p)) {
		expect(!((uintptr_t)p & (align - 1)), "misaligned");
		slots[i].p = p;
		slots[i].l = (struct layout){size, align};
		fill(i);
	}
	for (i = 0; i < SLOTS; i++) {
		if (slots[i].p) {
			verify(i, slots[i].l.size);
			live += slots[i].l.size;
		}
	}
	expect(global_allocator_used_bytes(g) == live, "used_bytes is not exact");
	expect(!global_allocator_check(g), "its own check fails");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
	static struct global_allocator g;

	g = (struct global_allocator)GLOBAL_ALLOCATOR_INIT(&MM_GLOBAL_ENGINE);
	__builtin_memset(slots, 0, sizeof(slots));
	expect(!global_allocator_init(&g, virt_addr(arena), sizeof(arena)), "init");
	for (size_t i = 0; i + 4 <= nbytes; i += 4)
		step(&g, data + i);
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].p)
			release(&g, i);
	expect(!global_allocator_used_bytes(&g), "used_bytes at the end");
	return 0;
}
