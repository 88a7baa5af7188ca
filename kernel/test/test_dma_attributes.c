/* SPDX-License-Identifier: MIT */
/*
 * Are coherent pages of a device without coherence really not cached? The page
 * table tells, and where it can the CPU.
 */
#include <arch/arch.h>
#include <dma/dma.h>
#include <mm/global.h>
#include <selftest/selftest.h>

static bool mapped_as(const void *p, enum arch_memtype want)
{
	enum arch_memtype type;
	struct arch_walk w;
	uint64_t pa;

	arch_mmu_walk((uintptr_t)p, &w);
	if (!w.mapped || w.type != want || w.pa != arch_virt_to_phys(p))
		return false;
	if (arch_mmu_probe((uintptr_t)p, &pa, &type) < 0)
		return true; /* this CPU does not say */
	return type == want && pa == w.pa;
}

SELFTEST(kernel, dma_attributes)
{
	const struct layout l = {3 * MM_PAGE_SIZE, MM_PAGE_SIZE};
	struct dma_device dev;
	struct dma_info info;
	struct arch_walk w;

	dma_device_init(&dev, "not coherent");
	dev.coherent = false;
	if (dma_alloc_coherent(&dev, l, &info) != ALLOC_OK) {
		CHECK(!arch_mmu_has_noncached() || !arch_cache_has_flush());
		selftest_skip("this CPU cannot make memory coherent");
		return;
	}
	for (size_t at = 0; at < l.size; at += MM_PAGE_SIZE)
		CHECK(mapped_as((const char *)info.cpu_addr + at, ARCH_MEM_NONCACHED));
	CHECK(dma_dealloc_coherent(&dev, info, l) == ALLOC_OK);
	if (!arch_cache_has_flush())
		return; /* from the pool, which stays as it is */
	CHECK(mapped_as(info.cpu_addr, ARCH_MEM_NORMAL));
	/* Alike again, the pages are one block again. */
	arch_mmu_walk((uintptr_t)info.cpu_addr, &w);
	CHECK(w.block_size > MM_PAGE_SIZE);
}
