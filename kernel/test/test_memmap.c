/* SPDX-License-Identifier: MIT */
/* The memory map, on trees that are written here, and against a page by page model. */
#include <kernel/memmap.h>
#include <lib/string.h>
#include <selftest/selftest.h>

#include "fdt_build.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define NO_LIMIT ((phys_addr_t){UINT64_MAX})

struct fixture {
	struct fdt_build b;
	struct fdt fdt;
	struct memmap *map;
};

static bool begin(struct fixture *f)
{
	void *blob = selftest_memory(BUILD_SIZE);

	f->map = selftest_memory(sizeof(*f->map));
	if (!blob || !f->map)
		return false;
	f->b = build_start(blob);
	build_root(&f->b);
	return true;
}

static void bank(struct fixture *f, uint64_t base, uint64_t size)
{
	build_node(&f->b, "memory");
	build_str(&f->b, "device_type", "memory");
	build_reg(&f->b, "reg", base, size);
	build_end_node(&f->b);
}

static void begin_reserved(struct fixture *f)
{
	build_node(&f->b, "reserved-memory");
	build_u32(&f->b, "#address-cells", 2);
	build_u32(&f->b, "#size-cells", 2);
	build_flag(&f->b, "ranges");
}

static void reserve(struct fixture *f, uint64_t base, uint64_t size, bool no_map)
{
	build_node(&f->b, "r");
	build_reg(&f->b, "reg", base, size);
	if (no_map)
		build_flag(&f->b, "no-map");
	build_end_node(&f->b);
}

static bool open_tree(struct fixture *f)
{
	build_end_node(&f->b);
	return fdt_open(&f->fdt, f->b.blob, build_finish(&f->b)) == FDT_OK;
}

static int init(struct fixture *f)
{
	return memmap_init(f->map, &f->fdt, NULL, 0, NO_LIMIT);
}

/* The next range of the view is [start, end). */
static bool next_is(struct fixture *f, enum memmap_view view, struct mem_range *r, uint64_t start,
		    uint64_t end)
{
	return memmap_next(f->map, view, r) && r->start.value == start && r->end.value == end;
}

SELFTEST(memmap, one_bank)
{
	struct mem_range image = {{0x80200000}, {0x80234567}}, r = {0};
	struct fixture f;

	CHECK(begin(&f));
	bank(&f, 2 * GIB, 512 * MIB);
	CHECK(open_tree(&f));
	CHECK(!memmap_init(f.map, &f.fdt, &image, 1, NO_LIMIT));
	CHECK(next_is(&f, MEMMAP_FREE, &r, 0x80000000, 0x80200000));
	CHECK(next_is(&f, MEMMAP_FREE, &r, 0x80235000, 0xa0000000));
	CHECK(!memmap_next(f.map, MEMMAP_FREE, &r));
	CHECK(memmap_largest(f.map, MEMMAP_FREE, &r) && r.start.value == 0x80235000);
	CHECK(memmap_total(f.map, MEMMAP_RAM) == 512 * MIB);
	CHECK(memmap_total(f.map, MEMMAP_FREE) == 512 * MIB - 0x35000);
	r = (struct mem_range){0};
	CHECK(next_is(&f, MEMMAP_RESERVED, &r, 0x80200000, 0x80235000));
	CHECK(!memmap_next(f.map, MEMMAP_NO_MAP, &(struct mem_range){0}));
}

SELFTEST(memmap, errors)
{
	struct fixture f;

	CHECK(begin(&f));
	CHECK(open_tree(&f));
	CHECK(init(&f) == MEMMAP_NO_MEMORY);
	CHECK(!memmap_next(f.map, MEMMAP_FREE, &(struct mem_range){0}));

	CHECK(begin(&f));
	bank(&f, 2 * GIB, 16 * KIB);
	CHECK(open_tree(&f));
	CHECK(init(&f) == MEMMAP_TOO_SMALL);
	CHECK(memmap_total(f.map, MEMMAP_RAM) == 16 * KIB);

	CHECK(begin(&f));
	bank(&f, 2 * GIB, 64 * MIB);
	begin_reserved(&f);
	reserve(&f, 0, UINT64_MAX, false);
	build_end_node(&f.b);
	CHECK(open_tree(&f));
	CHECK(init(&f) == MEMMAP_TOO_SMALL);
	CHECK(!strcmp(memmap_error_text(MEMMAP_NO_MEMORY), "no memory that can be used"));
}

/* Unsorted, overlapping, touching within a page, empty, at the end of the world. */
SELFTEST(memmap, banks)
{
	struct mem_range r = {0};
	struct fixture f;

	CHECK(begin(&f));
	bank(&f, 4 * GIB, 1 * MIB);
	bank(&f, 2 * GIB, 1 * MIB + 100);
	bank(&f, 2 * GIB + 1 * MIB + 100, 1 * MIB - 100);
	bank(&f, 4 * GIB + 512 * KIB, 1 * MIB);
	bank(&f, 3 * GIB, 0);
	bank(&f, 3 * GIB + 100, 4096);
	bank(&f, 0xfffffffffff00000, UINT64_MAX);
	CHECK(open_tree(&f));
	CHECK(!init(&f));
	CHECK(next_is(&f, MEMMAP_RAM, &r, 2 * GIB, 2 * GIB + 2 * MIB));
	CHECK(next_is(&f, MEMMAP_RAM, &r, 4 * GIB, 4 * GIB + 1536 * KIB));
	CHECK(next_is(&f, MEMMAP_RAM, &r, 0xfffffffffff00000, 0xfffffffffffff000));
	CHECK(!memmap_next(f.map, MEMMAP_RAM, &r));

	CHECK(!memmap_init(f.map, &f.fdt, NULL, 0, (phys_addr_t){4 * GIB + 256 * KIB}));
	r = (struct mem_range){0};
	CHECK(next_is(&f, MEMMAP_RAM, &r, 2 * GIB, 2 * GIB + 2 * MIB));
	CHECK(next_is(&f, MEMMAP_RAM, &r, 4 * GIB, 4 * GIB + 256 * KIB));
	CHECK(!memmap_next(f.map, MEMMAP_RAM, &r));
}

SELFTEST(memmap, disabled_and_usable)
{
	struct mem_range r = {0};
	struct fixture f;

	CHECK(begin(&f));
	build_node(&f.b, "memory@0");
	build_str(&f.b, "device_type", "memory");
	build_str(&f.b, "status", "disabled");
	build_reg(&f.b, "reg", 0, 1 * GIB);
	build_end_node(&f.b);
	build_node(&f.b, "memory@80000000");
	build_str(&f.b, "device_type", "memory");
	build_reg(&f.b, "reg", 2 * GIB, 1 * GIB);
	build_reg(&f.b, "linux,usable-memory", 2 * GIB, 1 * MIB);
	build_end_node(&f.b);
	CHECK(open_tree(&f));
	CHECK(!init(&f));
	CHECK(next_is(&f, MEMMAP_RAM, &r, 2 * GIB, 2 * GIB + 1 * MIB));
	CHECK(!memmap_next(f.map, MEMMAP_RAM, &r));
}

SELFTEST(memmap, reservations)
{
	struct mem_range r = {0};
	struct fixture f;

	CHECK(begin(&f));
	build_reserve(&f.b, 2 * GIB, 100);
	bank(&f, 2 * GIB, 64 * MIB);
	begin_reserved(&f);
	reserve(&f, 2 * GIB + 1 * MIB, 1 * MIB, true);
	reserve(&f, 2 * GIB + 1536 * KIB, 1 * MIB, false);
	reserve(&f, 2 * GIB + 63 * MIB, 2 * MIB, false);
	reserve(&f, 1 * GIB, 1 * MIB, false);
	build_node(&f.b, "pool");
	build_cells(&f.b, "size", (const uint32_t[]){0, 0x100000}, 2);
	build_end_node(&f.b);
	build_end_node(&f.b);
	build_node(&f.b, "chosen");
	build_u32(&f.b, "linux,initrd-start", 0x81000010);
	build_u32(&f.b, "linux,initrd-end", 0x81000020);
	build_end_node(&f.b);
	CHECK(open_tree(&f));
	CHECK(!init(&f));
	CHECK(next_is(&f, MEMMAP_FREE, &r, 2 * GIB + 4096, 2 * GIB + 1 * MIB));
	CHECK(next_is(&f, MEMMAP_FREE, &r, 2 * GIB + 2560 * KIB, 0x81000000));
	CHECK(next_is(&f, MEMMAP_FREE, &r, 0x81001000, 2 * GIB + 63 * MIB));
	CHECK(!memmap_next(f.map, MEMMAP_FREE, &r));
	r = (struct mem_range){0};
	CHECK(next_is(&f, MEMMAP_MAPPABLE, &r, 2 * GIB, 2 * GIB + 1 * MIB));
	CHECK(next_is(&f, MEMMAP_MAPPABLE, &r, 2 * GIB + 2 * MIB, 2 * GIB + 64 * MIB));
	r = (struct mem_range){0};
	CHECK(next_is(&f, MEMMAP_NO_MAP, &r, 2 * GIB + 1 * MIB, 2 * GIB + 2 * MIB));
	r = (struct mem_range){0};
	CHECK(next_is(&f, MEMMAP_RESERVED, &r, 1 * GIB, 1 * GIB + 1 * MIB));
	CHECK(next_is(&f, MEMMAP_RESERVED, &r, 2 * GIB, 2 * GIB + 4096));
	CHECK(next_is(&f, MEMMAP_RESERVED, &r, 2 * GIB + 1 * MIB, 2 * GIB + 2560 * KIB));
}

/* --- Many, against a model that knows each page --------------------------- */

#define MODEL_PAGES 4096u
#define MODEL_BASE  (2 * GIB)

enum {
	M_RAM = 1,
	M_RESERVED = 2,
	M_NO_MAP = 4,
};

static void model_mark(uint8_t *pages, uint32_t first, uint32_t n, uint8_t bit)
{
	for (uint32_t i = first; i < first + n && i < MODEL_PAGES; i++)
		pages[i] |= bit;
}

static bool in_view(uint8_t page, enum memmap_view view)
{
	switch (view) {
	case MEMMAP_RAM:
		return page & M_RAM;
	case MEMMAP_MAPPABLE:
		return (page & (M_RAM | M_NO_MAP)) == M_RAM;
	case MEMMAP_FREE:
		return page == M_RAM;
	case MEMMAP_RESERVED:
		return page & (M_RESERVED | M_NO_MAP);
	default:
		return page & M_NO_MAP;
	}
}

/* The view gives the runs of the model, all of them and nothing else. */
static bool same_as_model(struct fixture *f, const uint8_t *pages, enum memmap_view view)
{
	struct mem_range r = {0};

	for (uint32_t i = 0; i < MODEL_PAGES;) {
		uint32_t start = i;

		while (i < MODEL_PAGES && in_view(pages[i], view))
			i++;
		if (i == start)
			i++;
		else if (!next_is(f, view, &r, MODEL_BASE + start * MM_PAGE_SIZE,
				  MODEL_BASE + i * MM_PAGE_SIZE))
			return false;
	}
	return !memmap_next(f->map, view, &r);
}

/* Tables of n random entries: one memory node with n banks and the rest reserved. */
static bool build_random(struct fixture *f, uint8_t *pages, uint32_t n, uint64_t *seed)
{
	static const uint8_t bits[] = {M_RAM, M_RESERVED, M_NO_MAP};

	memset(pages, 0, MODEL_PAGES);
	if (!begin(f))
		return false;
	for (uint32_t kind = 0; kind < 3; kind++) {
		build_node(&f->b, kind ? "reserved-memory" : "memory");
		build_u32(&f->b, "#address-cells", 2);
		build_u32(&f->b, "#size-cells", 2);
		if (kind)
			build_node(&f->b, "r");
		else
			build_str(&f->b, "device_type", "memory");
		if (bits[kind] == M_NO_MAP)
			build_flag(&f->b, "no-map");
		build_prop_head(&f->b, "reg", n * 16);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t first = (uint32_t)(selftest_random(seed) % (MODEL_PAGES - 64));
			uint32_t count = (uint32_t)(selftest_random(seed) % (kind ? 8 : 24));

			model_mark(pages, first, count, bits[kind]);
			build_cell(&f->b, 0);
			build_cell(&f->b, (uint32_t)(MODEL_BASE + first * MM_PAGE_SIZE));
			build_cell(&f->b, 0);
			build_cell(&f->b, count * (uint32_t)MM_PAGE_SIZE);
		}
		if (kind)
			build_end_node(&f->b);
		build_end_node(&f->b);
	}
	return open_tree(f);
}

SELFTEST(memmap, random_against_model)
{
	uint8_t *pages = selftest_memory(MODEL_PAGES);
	uint64_t seed = 2;
	struct fixture f;

	CHECK(pages);
	/* From a handful to several times what fits in the window. */
	for (uint32_t n = 4; n <= 256; n *= 4) {
		CHECK(build_random(&f, pages, n, &seed));
		init(&f);
		for (uint32_t view = MEMMAP_RAM; view <= MEMMAP_NO_MAP; view++)
			CHECK(same_as_model(&f, pages, (enum memmap_view)view));
		/* Once more from the start, when the window stands at the end. */
		CHECK(same_as_model(&f, pages, MEMMAP_FREE));
	}
}
