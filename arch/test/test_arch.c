/* SPDX-License-Identifier: MIT */
/*
 * The architecture contract, checked on the machine itself: what the page table says, and
 * what the CPU does about it. Only in the kernel.
 */
#include <arch/arch.h>
#include <selftest/selftest.h>

#define BLOCK ((size_t)2 << 20)

/* Addresses that nothing else uses, aligned for a block. */
#define SCRATCH_VA (ARCH_VMAP_BASE + 0x70000000u)

#define RW (ARCH_PROT_R | ARCH_PROT_W)

extern char __text_start[], __rodata_start[], __data_start[];
extern char __boot_stack_guard[], __emergency_stack_guard[];

static struct arch_walk walk(uintptr_t va)
{
	struct arch_walk w;

	arch_mmu_walk(va, &w);
	return w;
}

static bool can_read(const void *p)
{
	uint64_t value;

	return arch_probe_read((uintptr_t)p, &value) == 0;
}

static bool can_write(uintptr_t va)
{
	return arch_probe_write(va, 0x5aa5) == 0;
}

/* One aligned block of memory out of selftest_memory; 0: there is none. */
static uintptr_t scratch_block(void)
{
	uintptr_t p = (uintptr_t)selftest_memory(2 * BLOCK);

	return p ? (p + BLOCK - 1) & ~(BLOCK - 1) : 0;
}

SELFTEST(arch, image_is_w_xor_x)
{
	CHECK(can_read(__text_start) && !can_write((uintptr_t)__text_start));
	CHECK(can_read(__rodata_start) && !can_write((uintptr_t)__rodata_start));
	CHECK(can_read(__data_start));
	CHECK(arch_probe_exec((uintptr_t)__rodata_start) == -1);
	CHECK(arch_probe_exec((uintptr_t)__data_start) == -1);
	CHECK(arch_probe_exec((uintptr_t)arch_phys_to_virt(arch_virt_to_phys(__data_start))) == -1);
}

SELFTEST(arch, holes_are_holes)
{
	CHECK(!can_read(NULL) && arch_probe_exec(0) == -1);
	CHECK(!can_read(__boot_stack_guard));
	CHECK(!can_read(__emergency_stack_guard));
	CHECK(!can_read((void *)SCRATCH_VA));
	/* The identity map is gone. */
	CHECK(!can_read((void *)(uintptr_t)arch_virt_to_phys(__text_start)));
	/* Not canonical. */
	CHECK(!can_read((void *)((uintptr_t)1 << 62)));
	CHECK(!walk((uintptr_t)1 << 62).mapped);
}

SELFTEST(arch, walk_agrees_with_arithmetic)
{
	uint64_t pa = arch_virt_to_phys(__data_start + 8);

	CHECK(walk((uintptr_t)__data_start + 8).pa == pa);
	CHECK(walk((uintptr_t)arch_phys_to_virt(pa)).pa == pa);
	CHECK(arch_virt_to_phys(arch_phys_to_virt(pa)) == pa);
	CHECK(walk((uintptr_t)__text_start).prot == (ARCH_PROT_R | ARCH_PROT_X));
	CHECK(walk((uintptr_t)__rodata_start).prot == ARCH_PROT_R);
	CHECK(walk((uintptr_t)__data_start).prot == RW);
}

static void check_part_of_block(void)
{
	uintptr_t page = SCRATCH_VA + 5 * MM_PAGE_SIZE;

	CHECK(arch_mmu_protect(page, 2 * MM_PAGE_SIZE, ARCH_PROT_R, ARCH_MEM_NORMAL) == 0);
	CHECK(walk(page).level == 0 && walk(page).prot == ARCH_PROT_R);
	CHECK(!can_write(page) && !can_write(page + 2 * MM_PAGE_SIZE - 8));
	CHECK(can_write(page - 8) && can_write(page + 2 * MM_PAGE_SIZE));
	CHECK(arch_mmu_protect(page, 2 * MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) == 0);
	CHECK(walk(page).block_size == BLOCK);
	CHECK(can_write(page));
}

SELFTEST(arch, map_split_join_unmap)
{
	uintptr_t block = scratch_block();
	uint64_t pa = arch_virt_to_phys((void *)block);

	if (!block) {
		selftest_skip("no memory");
		return;
	}
	CHECK(arch_mmu_map(SCRATCH_VA, pa, BLOCK, RW, ARCH_MEM_NORMAL) == 0);
	CHECK(walk(SCRATCH_VA + 12345).block_size == BLOCK);
	CHECK(walk(SCRATCH_VA + 12345).pa == pa + 12345);
	*(volatile uint64_t *)(SCRATCH_VA + 4096) = 77;
	CHECK(*(volatile uint64_t *)(block + 4096) == 77);
	check_part_of_block();
	CHECK(arch_mmu_unmap(SCRATCH_VA + MM_PAGE_SIZE, MM_PAGE_SIZE) == 0);
	CHECK(!can_write(SCRATCH_VA + MM_PAGE_SIZE) && can_write(SCRATCH_VA));
	CHECK(arch_mmu_unmap(SCRATCH_VA, MM_PAGE_SIZE) == 0);
	CHECK(arch_mmu_unmap(SCRATCH_VA + 2 * MM_PAGE_SIZE, BLOCK - 2 * MM_PAGE_SIZE) == 0);
	CHECK(!walk(SCRATCH_VA).mapped && !can_write(SCRATCH_VA + BLOCK - 8));
}

SELFTEST(arch, map_pages_that_are_not_aligned_alike)
{
	uintptr_t block = scratch_block();
	uint64_t pa = arch_virt_to_phys((void *)block) + MM_PAGE_SIZE;
	size_t nbytes = 3 * MM_PAGE_SIZE;
	uintptr_t va = SCRATCH_VA + BLOCK - MM_PAGE_SIZE;

	if (!block) {
		selftest_skip("no memory");
		return;
	}
	CHECK(arch_mmu_map(va, pa, nbytes, ARCH_PROT_R, ARCH_MEM_NORMAL) == 0);
	for (size_t i = 0; i < nbytes; i += MM_PAGE_SIZE)
		CHECK(walk(va + i).pa == pa + i && walk(va + i).level == 0);
	CHECK(!can_write(va) && can_read((void *)va));
	CHECK(!can_read((void *)(va - 8)) && !can_read((void *)(va + nbytes)));
	CHECK(arch_mmu_unmap(va, nbytes) == 0);
}

SELFTEST(arch, map_refuses)
{
	uint64_t pa = arch_virt_to_phys(__data_start) & ~(uint64_t)(MM_PAGE_SIZE - 1);
	uintptr_t va = SCRATCH_VA + MM_PAGE_SIZE;

	CHECK(arch_mmu_map(va, pa, MM_PAGE_SIZE, ARCH_PROT_R, ARCH_MEM_NORMAL) == 0);
	/* Overlap: and what was mapped stays, nothing else does. */
	CHECK(arch_mmu_map(SCRATCH_VA, pa, 3 * MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) < 0);
	CHECK(walk(va).mapped && walk(va).prot == ARCH_PROT_R);
	CHECK(!walk(SCRATCH_VA).mapped && !walk(va + MM_PAGE_SIZE).mapped);
	CHECK(arch_mmu_unmap(va, MM_PAGE_SIZE) == 0);

	CHECK(arch_mmu_map(va, pa, MM_PAGE_SIZE, RW | ARCH_PROT_X, ARCH_MEM_NORMAL) < 0);
	CHECK(arch_mmu_map(va + 8, pa, MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) < 0);
	CHECK(arch_mmu_map(va, pa + 8, MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) < 0);
	CHECK(arch_mmu_map(va, pa, 0, RW, ARCH_MEM_NORMAL) < 0);
	CHECK(arch_mmu_map(0, pa, MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) < 0);
	CHECK(arch_mmu_protect(va, MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) < 0);
	CHECK(!walk(va).mapped);
}

SELFTEST(arch, memory_that_is_not_cached)
{
	uintptr_t block = scratch_block();
	struct arch_walk before = walk(block);
	uint64_t pa;
	enum arch_memtype type;

	if (!block) {
		selftest_skip("no memory");
		return;
	}
	if (!arch_mmu_has_noncached()) {
		CHECK(arch_mmu_protect(block, MM_PAGE_SIZE, RW, ARCH_MEM_NONCACHED) < 0);
		selftest_skip("no such page attribute");
		return;
	}
	CHECK(arch_mmu_protect(block, MM_PAGE_SIZE, RW, ARCH_MEM_NONCACHED) == 0);
	CHECK(walk(block).type == ARCH_MEM_NONCACHED);
	CHECK(walk(block + MM_PAGE_SIZE).type == ARCH_MEM_NORMAL);
	if (arch_mmu_probe(block, &pa, &type) == 0)
		CHECK(type == ARCH_MEM_NONCACHED && pa == before.pa);
	CHECK(can_write(block) && *(volatile uint64_t *)block == 0x5aa5);
	CHECK(arch_mmu_protect(block, MM_PAGE_SIZE, RW, ARCH_MEM_NORMAL) == 0);
	CHECK(walk(block).block_size == before.block_size);
}

SELFTEST(arch, interrupt_state_nests)
{
	unsigned long outer = arch_irq_save();
	unsigned long inner = arch_irq_save();

	CHECK(!arch_irq_enabled());
	arch_irq_restore(inner);
	CHECK(!arch_irq_enabled());
	arch_irq_restore(outer);
}

SELFTEST(arch, time_goes_on)
{
	uint64_t start = arch_time_now();
	uint64_t last = start;

	CHECK(arch_time_hz() > 0);
	for (unsigned int i = 0; i < 1000000 && last == start; i++) {
		CHECK(arch_time_now() >= last);
		last = arch_time_now();
	}
	CHECK(last > start);
}

__attribute__((noinline)) static unsigned int depth_here(void)
{
	uint64_t fp = (uintptr_t)arch_frame_pointer();
	uint64_t pc;
	unsigned int n = 0;

	while (n < 100 && arch_unwind(&fp, &pc))
		n++;
	return n;
}

__attribute__((noinline)) static unsigned int depth_below(void)
{
	unsigned int n = depth_here();

	__asm__ volatile("" : "+r"(n)); /* not a tail call */
	return n;
}

SELFTEST(arch, unwind_finds_the_end)
{
	unsigned int here = depth_here();
	uint64_t fp = 8;
	uint64_t pc;

	CHECK(here >= 3 && here < 100);
	CHECK(depth_below() == here + 1);
	CHECK(!arch_unwind(&fp, &pc));
}
