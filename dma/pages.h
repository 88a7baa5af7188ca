/* SPDX-License-Identifier: MIT */
/* Whole coherent pages: where they come from, how they change, where they go. Private to dma/. */
#ifndef DMA_PAGES_H
#define DMA_PAGES_H

#include <dma/dma.h>
#include <mm/page_alloc.h>

/* Memory of the two kinds never mixes. */
enum dma_memory {
	DMA_CACHED,    /* for coherent devices */
	DMA_NONCACHED, /* for all others */
	DMA_MEMORY_KINDS
};

void dma_pages_init(const struct dma_config *config);

/* The kind of memory this device needs. False: this machine cannot make it. */
bool dma_pages_kind(const struct dma_device *dev, enum dma_memory *out);

/*
 * Zeroed pages that the device reaches, in their final state: no cache holds a
 * line that could hide or overwrite what the device writes.
 */
MM_MUST_CHECK enum alloc_result dma_pages_get(const struct dma_device *dev, enum dma_memory kind,
					      size_t npages, size_t align, enum page_zone zone,
					      virt_addr_t *out);

/* The way back, or into quarantine. The device is quiet. */
void dma_pages_put(enum dma_memory kind, virt_addr_t va, size_t npages);

/* Fills in what is counted in pages. */
void dma_pages_stats(struct dma_stats *out);

#endif
