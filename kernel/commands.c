/* SPDX-License-Identifier: MIT */
/* The commands of the prompt that look at the kernel. */
#include <arch/arch.h>
#include <dma/dma.h>
#include <drivers/blk.h>
#include <kernel/driver.h>
#include <kernel/irq.h>
#include <kernel/monitor.h>
#include <kernel/panic.h>
#include <kernel/power.h>
#include <kernel/selftest.h>
#include <kernel/symbols.h>
#include <kernel/time.h>
#include <lib/format.h>
#include <lib/string.h>
#include <mm/global.h>

#include "kernel.h"

static void print_view(const char *name, enum memmap_view view)
{
	struct mem_range r = {{0}, {0}};

	while (memmap_next(memory_map(), view, &r))
		kprintf("  %-9s 0x%lx..0x%lx  %lu KiB\n", name, r.start.value, r.end.value,
			(r.end.value - r.start.value) / 1024);
}

static int cmd_mem(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	print_view("RAM", MEMMAP_RAM);
	print_view("reserved", MEMMAP_RESERVED);
	print_view("free", MEMMAP_FREE);
	return 0;
}
COMMAND(mem, "mem", "", "memory map: banks, reserved, free at boot", cmd_mem);

static int cmd_pages(int argc, char **argv)
{
	static const char *const kind[PAGE_USAGE_KINDS] = {"kernel", "page table", "heap",
							   "DMA",    "CPU cache",  "user"};
	struct global_allocator *g = global_allocator();
	struct page_region_info r;

	(void)argc;
	(void)argv;
	kprintf("  pages used %zu, available %zu\n", global_allocator_used_pages(g),
		global_allocator_available_pages(g));
	for (unsigned int i = 0; i < PAGE_USAGE_KINDS; i++)
		kprintf("  %-10s %zu\n", kind[i], global_allocator_usage_pages(g, i));
	for (size_t i = 0; page_alloc_region(&g->pages, i, &r); i++)
		kprintf("  region 0x%lx: %zu pages, %zu free, %s\n", r.start.value, r.npages,
			r.free_pages, r.zone == PAGE_ZONE_LOW ? "low" : "high");
	return 0;
}
COMMAND(pages, "pages", "", "page allocator: regions, usage", cmd_pages);

static int cmd_heap(int argc, char **argv)
{
	struct global_allocator *g = global_allocator();
	const void *broken = global_allocator_check(g);

	(void)argc;
	(void)argv;
	kprintf("  %s: %zu bytes used, %zu available without growing\n", global_allocator_name(g),
		global_allocator_used_bytes(g), global_allocator_available_bytes(g));
	if (broken)
		kprintf("  BROKEN at %p\n", broken);
	else
		kprintf("  all invariants hold; %lu faults reported since boot\n",
			mm_fault_count());
	return 0;
}
COMMAND(heap, "heap", "", "byte allocator: use, and a check of all invariants", cmd_heap);

static int cmd_dma(int argc, char **argv)
{
	struct dma_stats s;

	(void)argc;
	(void)argv;
	dma_stats(&s);
	kprintf("  %zu allocations, %zu bytes, %zu pages (%zu not cached), %zu quarantined\n",
		s.live, s.live_bytes, s.pages, s.noncached_pages, s.quarantined_pages);
	return 0;
}
COMMAND(dma, "dma", "", "coherent memory", cmd_dma);

static int cmd_walk(int argc, char **argv)
{
	static const char *const type[] = {"normal", "not cached", "device"};
	struct arch_walk w;
	uint64_t va;

	if (argc != 2 || !parse_number(argv[1], &va))
		return -1;
	arch_mmu_walk(va, &w);
	for (unsigned int i = 0; i < w.depth; i++)
		kprintf("  level %u: 0x%lx\n", i, w.entry[i]);
	if (!w.mapped)
		kprintf("  not mapped\n");
	else
		kprintf("  physical 0x%lx, block of %zu KiB, %c%c%c, %s\n", w.pa,
			w.block_size / 1024, w.prot & ARCH_PROT_R ? 'r' : '-',
			w.prot & ARCH_PROT_W ? 'w' : '-', w.prot & ARCH_PROT_X ? 'x' : '-',
			type[w.type]);
	return 0;
}
COMMAND(walk, "walk", "ADDR", "page-table walk of a virtual address", cmd_walk);

static void dump(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		kprintf("%s%02x%s", i % 16 ? " " : "  ", p[i], i % 16 == 15 ? "\n" : "");
}

static int blk_dump(struct blk_device *d, uint64_t sector)
{
	static uint8_t buf[BLK_SECTOR];
	int e = blk_read(d, sector, buf, 1);

	if (e < 0)
		kprintf("%s: %s\n", d->name, blk_error_text(e));
	else
		dump(buf, sizeof(buf));
	return 0;
}

static int cmd_blk(int argc, char **argv)
{
	uint64_t sector;

	if (argc == 1) {
		for (struct blk_device *d = blk_first(); d; d = d->next)
			kprintf("  %s: %lu sectors, id \"%s\"%s\n", d->name, blk_size(d), d->id,
				d->read_only ? ", read-only" : "");
		return 0;
	}
	if (argc != 3 || !blk_find(argv[1]) || !parse_number(argv[2], &sector))
		return -1;
	return blk_dump(blk_find(argv[1]), sector);
}
COMMAND(blk, "blk", "[DISK SECTOR]", "disks, or the bytes of a sector", cmd_blk);

static int cmd_test(int argc, char **argv)
{
	if (argc > 2)
		return -1;
	(void)selftest_run(argc == 2 ? argv[1] : NULL);
	return 0;
}
COMMAND(test, "test", "[GLOB]", "self-tests, all or those that match (test mm/*)", cmd_test);

static int cmd_irq(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	for (const struct irq_action *a = irq_next_action(NULL); a; a = irq_next_action(a))
		kprintf("  %s %u: %s, %lu\n", a->chip->name, a->hwirq, a->name, a->count);
	kprintf("  timer: %lu, spurious: %lu\n", timer_interrupts(), irq_spurious());
	return 0;
}
COMMAND(irq, "irq", "", "interrupts and how often they came", cmd_irq);

static int cmd_dt(int argc, char **argv)
{
	struct fdt_node n;

	(void)argv;
	if (argc != 1)
		return -1;
	for (n = fdt_root(kernel_fdt()); n.fdt; fdt_next(&n)) {
		const char *compatible = fdt_get_str(&n, "compatible", 0);

		kprintf("%*s%s%s%s%s\n", (int)(2 * n.depth), "", n.depth ? fdt_name(&n) : "/",
			compatible ? "  " : "", compatible ? compatible : "",
			fdt_enabled(&n) ? "" : "  (disabled)");
	}
	return 0;
}
COMMAND(dt, "dt", "", "the device tree", cmd_dt);

static int cmd_panic(int argc, char **argv)
{
	uint64_t va;

	if (argc == 1)
		panic("asked for at the prompt");
	if (argc > 3 || !parse_number(argv[1], &va) || (argc == 3 && strcmp(argv[2], "x")))
		return -1;
	if (argc == 3)
		((void (*)(void))va)();
	else
		arch_read8((const volatile void *)va);
	return 0;
}
COMMAND(panic, "panic", "[ADDR [x]]", "panic, or read (execute) what may not be", cmd_panic);

static int cmd_reboot(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	power_reboot();
}
COMMAND(reboot, "reboot", "", "start over", cmd_reboot);

static int cmd_poweroff(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	power_off(0);
}
COMMAND(poweroff, "poweroff", "", "power off", cmd_poweroff);
