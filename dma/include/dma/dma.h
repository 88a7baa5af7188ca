/* SPDX-License-Identifier: MIT */
/*
 * Coherent DMA memory: bytes that CPU and device see alike (docs/dma.md has the
 * rules). Any context; not from a handler that may interrupt itself.
 */
#ifndef DMA_DMA_H
#define DMA_DMA_H

#include <mm/types.h>

/* What memory a device sees: bus address = physical address - cpu + bus inside the window. */
struct dma_window {
	phys_addr_t cpu;
	bus_addr_t bus;
	uint64_t size; /* UINT64_MAX: everything */
};

#define DMA_MAX_WINDOWS 4

/* What a device demands of its memory. dma_device_init gives the defaults. */
struct dma_device {
	const char *name;
	struct dma_window window[DMA_MAX_WINDOWS];
	unsigned int nwindows;
	uint64_t mask;	     /* highest bus address it can emit, e.g. UINT32_MAX */
	size_t align;	     /* least alignment, bytes, a power of two */
	uint64_t boundary;   /* a buffer never crosses a multiple of it; 0: none; a power of two */
	size_t max_segment;  /* largest contiguous buffer; 0: none */
	bool coherent;
};

/* Coherent, one window in which bus and physical addresses are the same, no limits. */
void dma_device_init(struct dma_device *dev, const char *name);

/* Where a buffer is, for the CPU and for the device. */
struct dma_info {
	void *cpu_addr;
	bus_addr_t bus_addr;
};

/*
 * What the default device is (the one of the calls without a device), and memory
 * that is mapped non-cacheable from the start, for CPUs that cannot change a cached page safely.
 * Called once, before the first allocation.
 */
struct dma_config {
	struct dma_device device;
	virt_addr_t pool; /* zero when there is none */
	size_t pool_size;
	bool can_change_attr; /* attributes can be changed and the cache flushed */
};
void dma_init(const struct dma_config *config);

/*
 * Zeroed memory that CPU and device see alike. At least a page: whole pages; less: a byte
 * allocator over coherent pages, grown 4 pages at a time. INVALID_PARAM also when the
 * device is not coherent and this CPU has no means to make memory so (logged once).
 * *info is untouched on failure.
 */
MM_MUST_CHECK enum alloc_result alloc_coherent(struct layout l, struct dma_info *info);
MM_MUST_CHECK enum alloc_result dma_alloc_coherent(struct dma_device *dev, struct layout l,
						   struct dma_info *info);

/*
 * Give back; the device must be quiet. Order: cache maintenance, cacheable mapping
 * restored, TLBs of all CPUs flushed, and only then are the pages anyone's. When the
 * attributes cannot be restored, the pages are quarantined.
 */
enum alloc_result dealloc_coherent(struct dma_info info, struct layout l);
enum alloc_result dma_dealloc_coherent(struct dma_device *dev, struct dma_info info,
				       struct layout l);

/* Addresses through the default device's windows (dma-ranges); a device's own with dma_*. */
bus_addr_t phys_to_bus(phys_addr_t pa);
phys_addr_t bus_to_phys(bus_addr_t bus);
bus_addr_t virt_to_bus(const void *va);
bool dma_phys_to_bus(const struct dma_device *dev, phys_addr_t pa, uint64_t nbytes,
		     bus_addr_t *out);
bool dma_bus_to_phys(const struct dma_device *dev, bus_addr_t bus, phys_addr_t *out);

struct dma_stats {
	size_t live;		  /* allocations */
	size_t live_bytes;	  /* as requested */
	size_t pages;		  /* held, coherent */
	size_t noncached_pages;	  /* of these */
	size_t quarantined_pages; /* never to be used again */
	size_t pool_free_pages;
};
void dma_stats(struct dma_stats *out);

#endif
