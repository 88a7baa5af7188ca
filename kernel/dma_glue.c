/* SPDX-License-Identifier: MIT */
/* What the DMA library must know of this machine: what the CPU can do, and the pool. What a device
 * sees of memory its driver knows. */
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

static bool take_block(enum page_zone zone, virt_addr_t *out)
{
	struct page_request req = {.npages = POOL_BLOCK / MM_PAGE_SIZE,
				   .align = POOL_BLOCK,
				   .zone = zone,
				   .usage = PAGE_USAGE_DMA};

	return global_allocator_request_pages(global_allocator(), req, out) == ALLOC_OK;
}

/*
 * Where the attributes of memory can be set but a cache line cannot be flushed (Svpbmt without
 * Zicbom), only memory that was never cached is safe: unmap a block of fresh memory that
 * nobody has touched since reset, and map it anew, not cached.
 */
static void reserve_pool(struct dma_config *config)
{
	virt_addr_t va;

	/* In low memory, if there is some: every device reaches it that reaches any. */
	if (!take_block(PAGE_ZONE_LOW, &va) && !take_block(PAGE_ZONE_ANY, &va)) {
		log_warn("dma: no pool: no memory");
		return;
	}
	if (memory_protect(va.value, POOL_BLOCK, ARCH_PROT_R | ARCH_PROT_W, ARCH_MEM_NONCACHED) <
	    0) {
		log_warn("dma: no pool: its memory cannot be mapped anew");
		global_allocator_dealloc_pages(global_allocator(), va, POOL_BLOCK / MM_PAGE_SIZE);
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

	dma_device_init(&config.device, "default");
	if (!config.can_change_attr && arch_mmu_has_noncached() && any_noncoherent())
		reserve_pool(&config);
	dma_init(&config);
}
