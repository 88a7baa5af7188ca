/* SPDX-License-Identifier: MIT */
/*
 * Coherent DMA memory: bytes that CPU and device see alike (dma/README.md has
 * the rules, docs/dma.md how it works). Any context. Two locks of its own are
 * never held together, and under them only allocator engines run; no lock is
 * held while pages are taken, changed or given back.
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

/* The value of a bus or physical address that does not exist. */
#define DMA_NO_ADDRESS UINT64_MAX

/*
 * What a device demands of its memory. dma_device_init gives the defaults.
 * Alignment and boundary are kept in bus addresses. The structure must stay
 * where it is, unchanged, as long as the device has memory.
 */
struct dma_device {
	const char *name;
	struct dma_window window[DMA_MAX_WINDOWS];
	unsigned int nwindows;
	uint64_t mask;	    /* highest bus address it can emit, e.g. UINT32_MAX */
	size_t align;	    /* least alignment, bytes, a power of two */
	uint64_t boundary;  /* a buffer never crosses a multiple of it; 0: none; a power of two */
	size_t max_segment; /* largest contiguous buffer; 0: none */
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
 * Called before the first allocation; again (by tests) only when nothing is allocated:
 * else it logs an error and changes nothing. Memory of the pool belongs to nobody else
 * and is contiguous in physical memory.
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
 * device is not coherent and this CPU has no means to make memory so (logged once), or when
 * the layout is beyond what the device can take (max_segment, boundary). NO_MEMORY: none that
 * the device can reach, or a change of attributes failed. *info is untouched on failure.
 */
MM_MUST_CHECK enum alloc_result alloc_coherent(struct layout l, struct dma_info *info);
MM_MUST_CHECK enum alloc_result dma_alloc_coherent(struct dma_device *dev, struct layout l,
						   struct dma_info *info);

/*
 * Give back; the device must be quiet. Order: cache maintenance, cacheable mapping
 * restored, TLBs of all CPUs flushed, and only then are the pages anyone's. When the
 * attributes cannot be restored, the pages are quarantined; to the caller they are freed
 * all the same. What is not a live allocation of this device with this layout is refused
 * and reported (mm_fault_report): INVALID_PARAM for a wrong layout, else NOT_ALLOCATED.
 */
enum alloc_result dealloc_coherent(struct dma_info info, struct layout l);
enum alloc_result dma_dealloc_coherent(struct dma_device *dev, struct dma_info info,
				       struct layout l);

/*
 * Give memory that is kept for the next small allocation back to the page allocator. Not
 * registered as a reclaim hook, for it may change attributes, and thus enter the code that
 * wanted a page for a page table.
 */
void dma_trim(void);

/*
 * Addresses through the default device's windows; a device's own with dma_*.
 * DMA_NO_ADDRESS, or false, for what lies in no window or beyond the mask.
 */
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
