/* SPDX-License-Identifier: MIT */
/* The device tree reader, on trees that are written here. */
#include <kernel/fdt.h>
#include <lib/string.h>
#include <selftest/selftest.h>

#include "fdt_build.h"

#define CELLS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4

static void write_bus(struct fdt_build *b)
{
	build_node(b, "soc");
	build_u32(b, "#address-cells", 1);
	build_u32(b, "#size-cells", 1);
	build_u32(b, "interrupt-parent", 7);
	build_cells(b, "ranges", CELLS(0x0, 0x1, 0x40000000, 0x10000, 0x20000, 0x2, 0x0, 0x1000));
	build_cells(b, "dma-ranges", CELLS(0x80000000, 0x0, 0x0, 0x40000000));

	build_node(b, "intc@100");
	build_u32(b, "phandle", 7);
	build_u32(b, "#interrupt-cells", 2);
	build_flag(b, "interrupt-controller");
	build_end_node(b);

	build_node(b, "inner@8000");
	build_u32(b, "#address-cells", 1);
	build_u32(b, "#size-cells", 1);
	build_cells(b, "ranges", CELLS(0x100, 0x8000, 0x1000));
	build_node(b, "uart@200");
	build_prop(b, "compatible", "acme,uart\0ns16550a", 19);
	build_cells(b, "reg", CELLS(0x200, 0x10, 0x300, 0x20, 0x50, 0x10, 0x10f0, 0x20));
	build_cells(b, "interrupts", CELLS(5, 4, 6, 1));
	build_end_node(b);
	build_end_node(b);

	build_node(b, "dma@20000");
	build_str(b, "compatible", "acme,dma");
	build_cells(b, "reg", CELLS(0x20000, 0x1000));
	build_cells(b, "interrupts-extended", CELLS(9, 1, 7, 2, 3, 9, 4));
	build_flag(b, "dma-noncoherent");
	build_str(b, "status", "disabled");
	build_end_node(b);
	build_end_node(b);
}

static void write_pci(struct fdt_build *b)
{
	build_node(b, "pci@30000000");
	build_u32(b, "#address-cells", 3);
	build_u32(b, "#size-cells", 2);
	build_u32(b, "#interrupt-cells", 1);
	build_cells(b, "ranges",
		    CELLS(0x01000000, 0, 0, 0, 0x3000000, 0, 0x10000, 0x02000000, 0, 0x40000000, 0,
			  0x40000000, 0, 0x40000000));
	build_cells(b, "interrupt-map-mask", CELLS(0x1800, 0, 0, 7));
	build_cells(b, "interrupt-map",
		    CELLS(0, 0, 0, 1, 7, 0x20, 4, 0, 0, 0, 2, 7, 0x21, 4, 0x800, 0, 0, 1, 9, 0x33));
	build_end_node(b);
}

static void write_chosen(struct fdt_build *b)
{
	build_node(b, "aliases");
	build_str(b, "serial0", "/soc/inner/uart@200");
	build_str(b, "loop", "loop");
	build_end_node(b);
	build_node(b, "chosen");
	build_str(b, "bootargs", "test=mm/* quiet");
	build_str(b, "stdout-path", "serial0:115200n8");
	build_u32(b, "linux,initrd-start", 0x88000000);
	build_cells(b, "linux,initrd-end", CELLS(0, 0x88001234));
	build_end_node(b);
}

/* A tree with something of everything, opened; false when it cannot be made. */
static bool open_sample(struct fdt *fdt, uint8_t **blob, uint32_t *size)
{
	struct fdt_build b;

	*blob = selftest_memory(BUILD_SIZE);
	if (!*blob)
		return false;
	b = build_start(*blob);
	build_reserve(&b, 0x1000, 0x2000);
	build_reserve(&b, 0x80000000, 0x40000);
	build_root(&b);
	build_flag(&b, "dma-coherent");
	write_bus(&b);
	write_pci(&b);
	build_node(&b, "local-intc");
	build_u32(&b, "linux,phandle", 9);
	build_u32(&b, "#interrupt-cells", 1);
	build_end_node(&b);
	write_chosen(&b);
	build_end_node(&b);
	*size = build_finish(&b);
	return fdt_open(fdt, *blob, *size) == FDT_OK;
}

#define OPEN_SAMPLE(fdt, blob, size) \
	struct fdt fdt;              \
	uint8_t *blob;               \
	uint32_t size;               \
	CHECK(open_sample(&fdt, &blob, &size))

SELFTEST(fdt, header)
{
	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_build b = {blob, 0, 0, 0};

	CHECK(fdt_open(&fdt, blob, size - 1) == FDT_TRUNCATED);
	CHECK(fdt_open(&fdt, blob, 0) == FDT_TRUNCATED);
	CHECK(fdt_open(&fdt, blob + 4, size - 4) == FDT_BAD_ALIGN);
	build_put(&b, 20, 2);
	CHECK(fdt_open(&fdt, blob, size) == FDT_BAD_VERSION);
	build_put(&b, 20, 18);
	build_put(&b, 24, 18);
	CHECK(fdt_open(&fdt, blob, size) == FDT_BAD_VERSION);
	build_put(&b, 20, 16);
	build_put(&b, 24, 16);
	CHECK(fdt_open(&fdt, blob, size) == FDT_OK);
	build_put(&b, 8, size + 8);
	CHECK(fdt_open(&fdt, blob, size) == FDT_TRUNCATED);
	build_put(&b, 8, BUILD_TREE + 2);
	CHECK(fdt_open(&fdt, blob, size) == FDT_BAD_ALIGN);
	build_put(&b, 0, 0xfeedd00d);
	CHECK(fdt_open(&fdt, blob, size) == FDT_BAD_MAGIC);
	CHECK(!strcmp(fdt_error_text(FDT_BAD_MAGIC), "bad magic"));
	CHECK(!strcmp(fdt_error_text(1), "unknown error"));
	CHECK(!strcmp(fdt_error_text(-1000), "unknown error"));
}

/* A table that leads beyond the last address leads nowhere, and not to the first ones. */
SELFTEST(fdt, ranges_that_wrap)
{
	uint8_t *blob = selftest_memory(BUILD_SIZE);
	struct fdt_build b;
	struct fdt fdt;
	struct fdt_node n;
	phys_addr_t base;
	uint64_t bytes;

	CHECK(blob);
	b = build_start(blob);
	build_root(&b);
	build_node(&b, "soc");
	build_u32(&b, "#address-cells", 1);
	build_u32(&b, "#size-cells", 1);
	build_cells(&b, "ranges", CELLS(0, UINT32_MAX, 0xfffff000, 0x10000));
	build_node(&b, "device@2000");
	build_cells(&b, "reg", CELLS(0x2000, 0x100));
	build_end_node(&b);
	build_end_node(&b);
	build_end_node(&b);
	CHECK(fdt_open(&fdt, blob, build_finish(&b)) == FDT_OK);
	CHECK(!fdt_find_path(&fdt, "/soc/device@2000", &n));
	CHECK(fdt_reg(&n, 0, &base, &bytes) == FDT_BAD_VALUE);
}

/* Whatever word of the tree is overwritten, with whatever: no crash, and walks end. */
SELFTEST(fdt, smashed)
{
	static const uint32_t values[] = {0, 1, 2, 3, 4, 9, 0xffff, 0x7fffffff, UINT32_MAX};

	OPEN_SAMPLE(fdt, blob, size);
	for (uint32_t at = 0; at + 4 <= size; at += at < 40 || at >= BUILD_TREE ? 4 : 64) {
		struct fdt_build b = {blob, 0, 0, 0};
		uint8_t old[4];

		memcpy(old, blob + at, 4);
		for (uint32_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
			struct fdt_node n;
			phys_addr_t base;
			uint64_t bytes;
			uint32_t nodes = 0;

			build_put(&b, at, values[i]);
			if (fdt_open(&fdt, blob, size))
				continue;
			for (n = fdt_root(&fdt); n.fdt; fdt_next(&n), nodes++)
				fdt_reg(&n, 0, &base, &bytes);
			CHECK(nodes && nodes < size / 8);
		}
		memcpy(blob + at, old, 4);
	}
	CHECK(fdt_open(&fdt, blob, size) == FDT_OK);
}

SELFTEST(fdt, too_deep)
{
	uint8_t *blob = selftest_memory(BUILD_SIZE);
	struct fdt fdt;

	CHECK(blob);
	for (uint32_t depth = FDT_MAX_DEPTH; depth <= FDT_MAX_DEPTH + 1; depth++) {
		struct fdt_build b = build_start(blob);
		struct fdt_node n;
		uint32_t size;

		for (uint32_t i = 0; i < depth; i++)
			build_node(&b, i ? "n" : "");
		for (uint32_t i = 0; i < depth; i++)
			build_end_node(&b);
		size = build_finish(&b);
		CHECK(fdt_open(&fdt, blob, size) ==
		      (depth > FDT_MAX_DEPTH ? FDT_TOO_DEEP : FDT_OK));
		if (depth > FDT_MAX_DEPTH)
			break;
		for (n = fdt_root(&fdt), depth = 0; n.fdt; fdt_next(&n))
			CHECK(n.depth == depth++);
		CHECK(depth == FDT_MAX_DEPTH);
	}
}

SELFTEST(fdt, walk)
{
	static const char *const top[] = {"soc", "pci@30000000", "local-intc", "aliases", "chosen"};

	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_node root = fdt_root(&fdt), n = fdt_first_child(&root), up;
	uint32_t i = 0;

	for (; n.fdt; fdt_next_sibling(&n), i++) {
		CHECK(i < 5 && !strcmp(fdt_name(&n), top[i]));
		up = fdt_parent(&n);
		CHECK(up.fdt && fdt_id(&up) == fdt_id(&root));
	}
	CHECK(i == 5);
	up = fdt_parent(&root);
	CHECK(!up.fdt);
	for (n = fdt_root(&fdt), i = 0; n.fdt; fdt_next(&n), i++) {
		CHECK(fdt_by_id(&fdt, fdt_id(&n), &up) == FDT_OK);
		CHECK(up.depth == n.depth && fdt_name(&up) == fdt_name(&n));
	}
	CHECK(i == 10);
	CHECK(fdt_by_id(&fdt, 2, &n) == FDT_NOT_FOUND);
}

SELFTEST(fdt, find)
{
	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_node n;

	CHECK(!fdt_find_path(&fdt, "/", &n) && !n.depth);
	CHECK(!fdt_find_path(&fdt, "/soc/inner@8000/uart@200", &n) && n.depth == 3);
	CHECK(!fdt_find_path(&fdt, "//soc//inner/uart/", &n) && fdt_name_is(&n, "uart"));
	CHECK(!fdt_find_path(&fdt, "serial0", &n) && !strcmp(fdt_name(&n), "uart@200"));
	CHECK(fdt_find_path(&fdt, "/soc/uart", &n) == FDT_NOT_FOUND);
	CHECK(fdt_find_path(&fdt, "/soc/inner@9", &n) == FDT_NOT_FOUND);
	CHECK(fdt_find_path(&fdt, "serial", &n) == FDT_NOT_FOUND);
	CHECK(fdt_find_path(&fdt, "loop", &n) == FDT_NOT_FOUND);
	CHECK(fdt_find_path(&fdt, "", &n) == FDT_NOT_FOUND);
	CHECK(!fdt_by_phandle(&fdt, 7, &n) && fdt_name_is(&n, "intc"));
	CHECK(!fdt_by_phandle(&fdt, 9, &n) && fdt_name_is(&n, "local-intc"));
	CHECK(fdt_by_phandle(&fdt, 7 + FDT_HINTS, &n) == FDT_NOT_FOUND);
	CHECK(fdt_by_phandle(&fdt, 0, &n) == FDT_NOT_FOUND);
	CHECK(!fdt_find_compatible(&fdt, "ns16550a", &n) && fdt_name_is(&n, "uart"));
	fdt_next_compatible(&n, "ns16550a");
	CHECK(!n.fdt);
	CHECK(fdt_find_compatible(&fdt, "ns16550", &n) == FDT_NOT_FOUND);
}

SELFTEST(fdt, properties)
{
	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_node n, root = fdt_root(&fdt);
	struct fdt_prop p = {0};
	uint64_t u64 = 0;
	uint32_t u32 = 0;

	CHECK(!fdt_find_path(&fdt, "/chosen", &n));
	CHECK(fdt_get_u64(&n, "linux,initrd-start", &u64) && u64 == 0x88000000);
	CHECK(fdt_get_u64(&n, "linux,initrd-end", &u64) && u64 == 0x88001234);
	CHECK(!fdt_get_u32(&n, "linux,initrd-end", &u32) && !u32);
	CHECK(fdt_enabled(&n) && !fdt_has(&n, "status"));
	for (u32 = 0; fdt_next_prop(&n, &p); u32++)
		CHECK(p.value.data == fdt_get(&n, p.name).data);
	CHECK(u32 == 4);
	CHECK(!fdt_find_path(&fdt, "/soc/dma", &n) && !fdt_enabled(&n));
	CHECK(!fdt_find_path(&fdt, "serial0", &n));
	CHECK(!strcmp(fdt_get_str(&n, "compatible", 1), "ns16550a"));
	CHECK(!fdt_get_str(&n, "compatible", 2) && !fdt_get_str(&n, "none", 0));
	/* Not a string: no NUL in sight. */
	CHECK(!fdt_get_str(&root, "dma-coherent", 0) && fdt_has(&root, "dma-coherent"));
}

/* What lies behind a bus that is off is off, whatever it says itself. */
SELFTEST(fdt, disabled_bus)
{
	static const struct {
		const char *path;
		bool enabled;
	} nodes[] = {
		{"/", true},
		{"/on", true},
		{"/on/device", true},
		{"/on/off", false},
		{"/on/off/device", false},
		{"/off", false},
		{"/off/device", false},
		{"/off/device/part", false},
	};
	uint8_t *blob = selftest_memory(BUILD_SIZE);
	struct fdt_build b;
	struct fdt_node n;
	struct fdt fdt;

	CHECK(blob);
	b = build_start(blob);
	build_root(&b);
	build_node(&b, "on");
	build_str(&b, "status", "okay");
	build_node(&b, "device");
	build_end_node(&b);
	build_node(&b, "off");
	build_str(&b, "status", "fail");
	build_node(&b, "device");
	build_end_node(&b);
	build_end_node(&b);
	build_end_node(&b);
	build_node(&b, "off");
	build_str(&b, "status", "disabled");
	build_node(&b, "device");
	build_str(&b, "status", "okay");
	build_node(&b, "part");
	build_end_node(&b);
	build_end_node(&b);
	build_end_node(&b);
	build_end_node(&b);
	CHECK(!fdt_open(&fdt, blob, build_finish(&b)));
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		CHECK(!fdt_find_path(&fdt, nodes[i].path, &n));
		CHECK(fdt_enabled(&n) == nodes[i].enabled);
	}
}

SELFTEST(fdt, addresses)
{
	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_node n;
	struct fdt_range r;
	phys_addr_t base;
	uint64_t bus, bytes;

	CHECK(!fdt_find_path(&fdt, "serial0", &n));
	CHECK(!fdt_bus_reg(&n, 1, &bus, &bytes) && bus == 0x300 && bytes == 0x20);
	CHECK(!fdt_reg(&n, 0, &base, &bytes) && base.value == 0x140008100 && bytes == 0x10);
	CHECK(!fdt_reg(&n, 1, &base, &bytes) && base.value == 0x140008200 && bytes == 0x20);
	/* In front of the window of its bus; half beyond it; not there. */
	CHECK(fdt_reg(&n, 2, &base, &bytes) == FDT_NO_TRANSLATION);
	CHECK(fdt_reg(&n, 3, &base, &bytes) == FDT_NO_TRANSLATION);
	CHECK(fdt_reg(&n, 4, &base, &bytes) == FDT_NOT_FOUND);
	CHECK(!fdt_find_path(&fdt, "/soc/dma", &n));
	CHECK(!fdt_reg(&n, 0, &base, &bytes) && base.value == 0x200000000);
	CHECK(!fdt_find_path(&fdt, "/pci", &n));
	CHECK(!fdt_bus_range(&n, 1, &r) && r.flags == 0x02000000 && r.child == 0x40000000);
	CHECK(r.cpu.value == 0x40000000 && r.size == 0x40000000);
	CHECK(fdt_bus_range(&n, 2, &r) == FDT_NOT_FOUND);
}

SELFTEST(fdt, dma)
{
	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_node n;
	struct fdt_dma_window w;

	CHECK(!fdt_find_path(&fdt, "serial0", &n));
	CHECK(!fdt_dma_window(&n, 0, &w));
	CHECK(w.bus.value == 0x80000000 && !w.cpu.value && w.size == 0x40000000);
	CHECK(fdt_dma_window(&n, 1, &w) == FDT_NOT_FOUND);
	CHECK(fdt_dma_coherent(&n, false));
	CHECK(!fdt_find_path(&fdt, "/soc/dma", &n) && !fdt_dma_coherent(&n, true));
	CHECK(!fdt_find_path(&fdt, "/pci", &n));
	CHECK(!fdt_dma_window(&n, 0, &w));
	CHECK(!w.bus.value && !w.cpu.value && w.size == UINT64_MAX);
	CHECK(fdt_dma_window(&n, 1, &w) == FDT_NOT_FOUND);
}

/* /outer/inner/device, each bus with one range: bus address, address above, size. */
static bool open_windows(struct fdt *fdt, const uint64_t inner[3], const uint64_t outer[3],
			 struct fdt_node *device)
{
	uint8_t *blob = selftest_memory(BUILD_SIZE);
	struct fdt_build b;

	if (!blob)
		return false;
	b = build_start(blob);
	build_root(&b);
	for (int level = 0; level < 2; level++) {
		const uint64_t *r = level ? inner : outer;
		uint32_t cells[6];

		for (uint32_t i = 0; i < 6; i++)
			cells[i] = (uint32_t)(r[i / 2] >> (i % 2 ? 0 : 32));
		build_node(&b, level ? "inner" : "outer");
		build_u32(&b, "#address-cells", 2);
		build_u32(&b, "#size-cells", 2);
		build_cells(&b, "dma-ranges", cells, 6);
	}
	build_node(&b, "device");
	for (int level = 0; level < 4; level++)
		build_end_node(&b);
	return !fdt_open(fdt, blob, build_finish(&b)) &&
	       !fdt_find_path(fdt, "/outer/inner/device", device);
}

/* A bus lets through what lies in the range in which it starts; there must be one. */
SELFTEST(fdt, dma_through_two_buses)
{
	static const struct {
		uint64_t inner[3], outer[3];
		int err;
		struct fdt_dma_window want;
	} t[] = {
		/* All of it, and with what is behind the end of the outer range cut off. */
		{{0, 0x1000, 0x2000}, {0x1000, 0x81000, 0x2000}, 0, {{0}, {0x81000}, 0x2000}},
		{{0, 0x1000, 0x80000000}, {0, 0x80000, 0x5000}, 0, {{0}, {0x81000}, 0x4000}},
		{{0x8000, 0, UINT64_MAX - 0x8000}, {0, 0, 1}, 0, {{0x8000}, {0}, 1}},
		/* Not in front of it, nor behind. */
		{{0, 0x1000, 0x80000000}, {0x2000, 0, 0x5000}, FDT_NO_TRANSLATION, {{0}, {0}, 0}},
		{{0, 0x5000, 0x1000}, {0, 0, 0x5000}, FDT_NO_TRANSLATION, {{0}, {0}, 0}},
		/* Beyond the last address: on the bus, between them, at the CPU. */
		{{UINT64_MAX, 0, 2}, {0, 0, 1}, FDT_BAD_VALUE, {{0}, {0}, 0}},
		{{0, UINT64_MAX, 2}, {UINT64_MAX, 0, 1}, FDT_BAD_VALUE, {{0}, {0}, 0}},
		{{0, 0, 1}, {0, UINT64_MAX, 2}, FDT_BAD_VALUE, {{0}, {0}, 0}},
	};
	struct fdt fdt;

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct fdt_dma_window w = {{0}, {0}, 0};
		struct fdt_node n;

		CHECK(open_windows(&fdt, t[i].inner, t[i].outer, &n));
		CHECK(fdt_dma_window(&n, 0, &w) == t[i].err);
		CHECK(w.bus.value == t[i].want.bus.value && w.cpu.value == t[i].want.cpu.value);
		CHECK(w.size == t[i].want.size);
	}
}

SELFTEST(fdt, interrupts)
{
	OPEN_SAMPLE(fdt, blob, size);
	struct fdt_node n, intc, local;
	struct fdt_irq irq;

	CHECK(!fdt_by_phandle(&fdt, 7, &intc) && !fdt_by_phandle(&fdt, 9, &local));
	CHECK(!fdt_find_path(&fdt, "serial0", &n));
	CHECK(!fdt_irq(&n, 1, &irq) && irq.controller == fdt_id(&intc));
	CHECK(irq.ncells == 2 && irq.cells[0] == 6 && irq.cells[1] == 1);
	CHECK(fdt_irq(&n, 2, &irq) == FDT_NOT_FOUND);
	CHECK(!fdt_find_path(&fdt, "/soc/dma", &n));
	CHECK(!fdt_irq(&n, 1, &irq) && irq.controller == fdt_id(&intc) && irq.cells[1] == 3);
	CHECK(!fdt_irq(&n, 2, &irq) && irq.controller == fdt_id(&local) && irq.cells[0] == 4);
	CHECK(fdt_irq(&n, 3, &irq) == FDT_NOT_FOUND);
	CHECK(fdt_irq(&intc, 0, &irq) == FDT_NOT_FOUND);

	CHECK(!fdt_find_path(&fdt, "/pci", &n));
	CHECK(!fdt_map_irq(&n, (const uint32_t[]){0x2000, 0, 0}, (const uint32_t[]){2}, &irq));
	CHECK(irq.controller == fdt_id(&intc) && irq.cells[0] == 0x21 && irq.cells[1] == 4);
	CHECK(!fdt_map_irq(&n, (const uint32_t[]){0x800, 0, 0}, (const uint32_t[]){1}, &irq));
	CHECK(irq.controller == fdt_id(&local) && irq.cells[0] == 0x33);
	CHECK(fdt_map_irq(&n, (const uint32_t[]){0x800, 0, 0}, (const uint32_t[]){4}, &irq) ==
	      FDT_NOT_FOUND);
}

/* A nexus with phandle `id`, without addresses, whose one interrupt 1 is what `map` says. */
static void write_nexus(struct fdt_build *b, uint32_t id, const uint32_t *map, uint32_t n)
{
	build_node(b, "nexus");
	build_u32(b, "phandle", id);
	build_u32(b, "#address-cells", 0);
	build_u32(b, "#interrupt-cells", 1);
	build_cells(b, "interrupt-map", map, n);
	build_end_node(b);
}

static void write_device(struct fdt_build *b, const char *name, uint32_t address, uint32_t irq)
{
	build_node(b, name);
	build_cells(b, "reg", CELLS(address, 0x200));
	build_u32(b, "interrupts", irq);
	build_end_node(b);
}

/*
 * A bus that is a nexus, as on Arm's boards, with another bus and the devices behind; 1 comes out
 * at a controller, of 2 the address decides, 3 goes through two more maps, 4 in a circle.
 */
static void write_mapped_bus(struct fdt_build *b)
{
	build_node(b, "bus");
	build_u32(b, "#address-cells", 2);
	build_u32(b, "#size-cells", 1);
	build_u32(b, "#interrupt-cells", 1);
	build_cells(b, "interrupt-map-mask", CELLS(0x3000, 0, 63));
	build_cells(b, "interrupt-map",
		    CELLS(0x1000, 0, 1, 7, 0x10, 0x20, 0, 0x51, 4, 0x1000, 0, 2, 7, 0, 0, 0, 0x52,
			  4, 0x2000, 0, 2, 7, 0, 0, 0, 0x53, 4, 0, 0, 3, 8, 1, 0, 0, 4, 9, 1));
	build_node(b, "inner");
	build_u32(b, "#address-cells", 1);
	build_u32(b, "#size-cells", 1);
	write_device(b, "one", 0x1000, 1);
	write_device(b, "two", 0x1000, 2);
	write_device(b, "other-two", 0x2000, 2);
	write_device(b, "three", 0, 64 + 3);
	write_device(b, "circle", 0, 4);
	write_device(b, "none", 0x1000, 3);
	build_node(b, "extended");
	build_cells(b, "interrupts-extended", CELLS(7, 0, 0x50, 4, 8, 1));
	build_end_node(b);
	build_end_node(b);
	build_end_node(b);
}

static bool open_mapped(struct fdt *fdt)
{
	uint8_t *blob = selftest_memory(BUILD_SIZE);
	struct fdt_build b;

	if (!blob)
		return false;
	b = build_start(blob);
	build_root(&b);
	build_node(&b, "intc");
	build_u32(&b, "phandle", 7);
	build_u32(&b, "#address-cells", 2);
	build_u32(&b, "#interrupt-cells", 3);
	build_end_node(&b);
	write_nexus(&b, 8, CELLS(1, 10, 1));
	write_nexus(&b, 10, CELLS(2, 7, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 0x54, 1));
	write_nexus(&b, 9, CELLS(1, 9, 1));
	write_mapped_bus(&b);
	build_end_node(&b);
	return !fdt_open(fdt, blob, build_finish(&b));
}

SELFTEST(fdt, interrupts_through_maps)
{
	static const struct {
		const char *path;
		uint32_t i;
		int err;
		uint32_t number, trigger;
	} t[] = {
		{"/bus/inner/one", 0, 0, 0x51, 4},
		{"/bus/inner/two", 0, 0, 0x52, 4},
		{"/bus/inner/other-two", 0, 0, 0x53, 4},
		{"/bus/inner/three", 0, 0, 0x54, 1},
		{"/bus/inner/extended", 0, 0, 0x50, 4},
		{"/bus/inner/extended", 1, 0, 0x54, 1},
		{"/bus/inner/one", 1, FDT_NOT_FOUND, 0, 0},
		{"/bus/inner/none", 0, FDT_NOT_FOUND, 0, 0},
		{"/bus/inner/circle", 0, FDT_BAD_VALUE, 0, 0},
	};
	struct fdt fdt;
	struct fdt_node n, intc;

	CHECK(open_mapped(&fdt) && !fdt_by_phandle(&fdt, 7, &intc));
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct fdt_irq irq = {0};

		CHECK(!fdt_find_path(&fdt, t[i].path, &n));
		CHECK(fdt_irq(&n, t[i].i, &irq) == t[i].err);
		CHECK(irq.controller == (t[i].err ? 0 : fdt_id(&intc)));
		CHECK(irq.cells[1] == t[i].number && irq.cells[2] == t[i].trigger);
	}
}

SELFTEST(fdt, chosen)
{
	OPEN_SAMPLE(fdt, blob, size);
	phys_addr_t start, end;
	const char *options;
	struct fdt_node n;
	uint64_t bytes;

	CHECK(!strcmp(fdt_bootargs(&fdt), "test=mm/* quiet"));
	CHECK(!fdt_stdout(&fdt, &n, &options));
	CHECK(fdt_name_is(&n, "uart") && !strcmp(options, "115200n8"));
	CHECK(!fdt_initrd(&fdt, &start, &end));
	CHECK(start.value == 0x88000000 && end.value == 0x88001234);
	CHECK(fdt_memreserve(&fdt, 1, &start, &bytes));
	CHECK(start.value == 0x80000000 && bytes == 0x40000);
	CHECK(!fdt_memreserve(&fdt, 2, &start, &bytes));
}

SELFTEST(fdt, relocate)
{
	OPEN_SAMPLE(fdt, blob, size);
	uint8_t *copy = selftest_memory(BUILD_SIZE);
	struct fdt_node n;

	CHECK(copy && !fdt_find_path(&fdt, "serial0", &n));
	memcpy(copy, blob, size);
	memset(blob, 0xff, size);
	fdt_relocate(&fdt, copy);
	CHECK(!strcmp(fdt_name(&n), "uart@200") && fdt_compatible(&n, "ns16550a"));
	CHECK((const uint8_t *)fdt_name(&n) > copy && (const uint8_t *)fdt_name(&n) < copy + size);
}
