/* SPDX-License-Identifier: MIT */
/* What the DMA library must know of this machine: windows, coherence, and what the CPU can do. */
#include <arch/arch.h>
#include <dma/dma.h>
#include <kernel/driver.h>
#include <kernel/log.h>
#include <mm/global.h>

#include "kernel.h"

/* Enough for the rings and buffers of some devices; only taken where a device needs it. */
#define POOL_BLOCK ((size_t)2 << 20)

/* Does any enabled device lack coherence, and which is the node that stands for all? */
static bool any_noncoherent(void)
{
	for (struct fdt_node n = fdt_root(kernel_fdt()); n.fdt; fdt_next(&n))
		if (fdt_has(&n, "dma-noncoherent") && fdt_enabled(&n))
			return true;
	return false;
}

/*
 * Where the attributes of memory can be set but a cache line cannot be flushed (Svpbmt without
 * Zicbom), only memory that was never cached is safe: unmap a block of fresh memory that
 * nobody has touched since reset, and map it anew, not cached.
 */
static void reserve_pool(struct dma_config *config)
{
	struct page_request req = {
		.npages = POOL_BLOCK / MM_PAGE_SIZE, .align = POOL_BLOCK, .usage = PAGE_USAGE_DMA};
	virt_addr_t va;

	if (global_allocator_request_pages(global_allocator(), req, &va) != ALLOC_OK)
		return;
	if (arch_mmu_protect(va.value, POOL_BLOCK, ARCH_PROT_R | ARCH_PROT_W, ARCH_MEM_NONCACHED) <
	    0) {
		global_allocator_dealloc_pages(global_allocator(), va, req.npages);
		return;
	}
	config->pool = va;
	config->pool_size = POOL_BLOCK;
	log_info("dma: pool of %zu KiB, not cached", POOL_BLOCK / 1024);
}

void dma_setup(void)
{
	struct dma_config config = {.can_change_attr =
					    arch_mmu_has_noncached() && arch_cache_has_flush()};
	struct fdt_node root = fdt_root(kernel_fdt());
	struct fdt_dma_window w;

	dma_device_init(&config.device, "default");
	for (unsigned int i = 0; i < DMA_MAX_WINDOWS && fdt_dma_window(&root, i, &w) == 0; i++) {
		config.device.window[i] = (struct dma_window){w.cpu, w.bus, w.size};
		config.device.nwindows = i + 1;
	}
	if (!config.can_change_attr && arch_mmu_has_noncached() && any_noncoherent())
		reserve_pool(&config);
	dma_init(&config);
}
