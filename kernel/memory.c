/* SPDX-License-Identifier: MIT */
/*
 * From the device tree to the global allocator. The first page tables come from
 * a small pool in the image, for there is no allocator yet; as soon as the
 * largest free range is mapped, it is given to the allocator, and tables come from there.
 */
#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/panic.h>
#include <lib/string.h>
#include <mm/global.h>

#include "kernel.h"

#define POOL_PAGES 20

static uint8_t pool[POOL_PAGES][MM_PAGE_SIZE]
	__attribute__((section(".bss.noinit"), aligned(4096)));
static unsigned int pool_used;
static struct memmap map;
static struct mem_range keep_out[2];

extern const char __image_start[], __image_end[], __rodata_end[];

static uintptr_t pool_alloc(void)
{
	return pool_used < POOL_PAGES ? (uintptr_t)pool[pool_used++] : 0;
}

static void pool_free(uintptr_t va)
{
	(void)va; /* the pool is part of the image, and stays */
}

static uintptr_t table_alloc(void)
{
	struct page_request req = {.npages = 1, .align = MM_PAGE_SIZE, .usage = PAGE_USAGE_TABLE};
	virt_addr_t va;

	if (global_allocator_request_pages(global_allocator(), req, &va) != ALLOC_OK)
		return 0;
	return va.value;
}

static void table_free(uintptr_t va)
{
	if (va >= ARCH_KERNEL_BASE)
		return;
	global_allocator_dealloc_pages(global_allocator(), (virt_addr_t){va}, 1);
}

struct memmap *memory_map(void)
{
	return &map;
}

/* The image and the tree; nothing else is mapped in the final table yet. */
void memory_init_tables(uint64_t fdt_pa)
{
	const struct fdt *fdt = kernel_fdt();
	uint64_t first = fdt_pa & ~(uint64_t)(MM_PAGE_SIZE - 1);
	size_t nbytes = (fdt_pa + fdt->size - first + MM_PAGE_SIZE - 1) & ~(MM_PAGE_SIZE - 1);
	uintptr_t va = (uintptr_t)fdt->blob & ~(uintptr_t)(MM_PAGE_SIZE - 1);

	if (arch_mmu_init(pool_alloc, pool_free) < 0 ||
	    arch_mmu_map(va, first, nbytes, ARCH_PROT_R, ARCH_MEM_NORMAL) < 0)
		panic("memory: no room for the first page tables");
	arch_mmu_switch();
}

static struct spinlock tables_lock;

int memory_map_at(uintptr_t va, uint64_t pa, size_t nbytes, unsigned int prot,
		  enum arch_memtype type)
{
	unsigned long state = spin_lock(&tables_lock);
	int e = arch_mmu_map(va, pa, nbytes, prot, type);

	spin_unlock(&tables_lock, state);
	return e;
}

int memory_protect(uintptr_t va, size_t nbytes, unsigned int prot, enum arch_memtype type)
{
	unsigned long state = spin_lock(&tables_lock);
	int e = arch_mmu_protect(va, nbytes, prot, type);

	spin_unlock(&tables_lock, state);
	return e;
}

static void map_range(struct mem_range r)
{
	uintptr_t va = (uintptr_t)arch_phys_to_virt(r.start.value);

	if (memory_map_at(va, r.start.value, r.end.value - r.start.value, ARCH_PROT_R | ARCH_PROT_W,
			  ARCH_MEM_NORMAL) < 0)
		panic("memory: cannot map 0x%lx", r.start.value);
}

static bool contains(struct mem_range outer, struct mem_range inner)
{
	return inner.start.value >= outer.start.value && inner.end.value <= outer.end.value;
}

/*
 * The image's text and constants must not be writable through the linear map either, as far as they
 * are in it: the loader may have put the image where the tree has no memory, or none to be mapped.
 */
static void protect_image_alias(void)
{
	uint64_t start = arch_virt_to_phys(__image_start);
	uint64_t end = start + (uint64_t)(__rodata_end - __image_start);
	struct mem_range r = {{0}, {0}};

	while (memmap_next(&map, MEMMAP_MAPPABLE, &r)) {
		uint64_t from = r.start.value > start ? r.start.value : start;
		uint64_t to = r.end.value < end ? r.end.value : end;

		if (from < to && memory_protect((uintptr_t)arch_phys_to_virt(from), to - from,
						ARCH_PROT_R, ARCH_MEM_NORMAL) < 0)
			panic("memory: cannot protect the image in the linear map");
	}
}

static void give(struct mem_range r, bool first)
{
	virt_addr_t start = virt_addr(arch_phys_to_virt(r.start.value));
	size_t nbytes = r.end.value - r.start.value;
	enum alloc_result e = first ? global_init(start, nbytes) : global_add_memory(start, nbytes);

	if (first && e)
		panic("memory: the allocator refuses 0x%lx: error %d", r.start.value, (int)e);
	/* A hole of a page or two between reservations is too small to manage. */
	if (e && nbytes > 4 * MM_PAGE_SIZE)
		log_warn("memory: 0x%lx..0x%lx is not used: error %d", r.start.value, r.end.value,
			 (int)e);
}

void memory_init(uint64_t fdt_pa)
{
	uint64_t image = arch_virt_to_phys(__image_start);
	struct mem_range largest, bank = {{0}, {0}}, r = {{0}, {0}};
	int e;

	keep_out[0].start.value = image;
	keep_out[0].end.value = image + (uint64_t)(__image_end - __image_start);
	keep_out[1].start.value = fdt_pa;
	keep_out[1].end.value = fdt_pa + kernel_fdt()->size;
	e = memmap_init(&map, kernel_fdt(), keep_out, 2, (phys_addr_t){arch_linear_limit()});
	if (e < 0 || !memmap_largest(&map, MEMMAP_FREE, &largest))
		panic("memory: %s", memmap_error_text(e));

	while (memmap_next(&map, MEMMAP_MAPPABLE, &bank) && !contains(bank, largest))
		;
	map_range(bank);
	give(largest, true);
	arch_mmu_set_table_source(table_alloc, table_free);
	while (memmap_next(&map, MEMMAP_MAPPABLE, &r))
		if (r.start.value != bank.start.value)
			map_range(r);
	protect_image_alias();
	r = (struct mem_range){{0}, {0}};
	while (memmap_next(&map, MEMMAP_FREE, &r))
		if (r.start.value != largest.start.value)
			give(r, false);
}
