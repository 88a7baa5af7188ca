/* SPDX-License-Identifier: MIT */
/*
 * The page allocator: a bitmap with summary levels over any number of regions.
 *
 * Its metadata is carved from the region it manages, so no capacity is compiled
 * in: 0.017 % and at least two pages, which is below 0.02 % from 256 MiB on.
 * page_alloc functions take no lock: the user serialises all calls, except
 * page_alloc_one_local and page_free_one_local, which need only a pinned CPU.
 * Counts are pages of MM_PAGE_SIZE bytes.
 */
#ifndef MM_PAGE_ALLOC_H
#define MM_PAGE_ALLOC_H

#include <mm/fault.h>
#include <mm/port.h>
#include <mm/types.h>

/* Regions below 4 GiB of physical address are kept for devices as long as others have room. */
enum page_zone {
	PAGE_ZONE_ANY, /* high memory first, then low */
	PAGE_ZONE_LOW, /* below 4 GiB only */
};

/* What an allocated page is used for; counted per kind. */
enum page_usage {
	PAGE_USAGE_KERNEL, /* kernel image and boot data; the default for callers that do not say */
	PAGE_USAGE_TABLE,  /* page tables */
	PAGE_USAGE_HEAP,   /* memory of a byte allocator */
	PAGE_USAGE_DMA,
	PAGE_USAGE_CPU_CACHE, /* free, but parked in a per-CPU cache */
	PAGE_USAGE_USER,
	PAGE_USAGE_KINDS
};

struct page_region; /* lies at the start of its region */

/*
 * Per-CPU stack of free single pages, all of one region. It keeps what it needs
 * of that region, so that the fast path reads nothing that a lock protects. Its
 * owner works at the top, whoever holds the lock may take pages from the bottom.
 */
#define PAGE_CACHE_DEPTH 128
struct page_cpu_cache {
	ptrdiff_t low, top; /* page[low..top) are parked here */
	ptrdiff_t limit;    /* for top */
	uintptr_t base;	    /* address of index 0 of the region */
	size_t span;	    /* indices below it may be parked here */
	uint64_t *states;   /* the region's */
	size_t usage[16];   /* what local calls added to each kind, modulo 2^64, by its state */
	uint32_t page[PAGE_CACHE_DEPTH]; /* indices */
} __attribute__((aligned(64)));

/* All zero is an empty allocator. The members are private to page_bitmap.c. */
struct page_alloc {
	struct page_region *regions; /* high memory first, then by address */
	struct page_region *root[2]; /* balanced trees: high memory, low memory */
	size_t total_pages;
	size_t usage[PAGE_USAGE_KINDS]; /* without what the caches count */
	struct page_cpu_cache cache[MM_MAX_CPUS];
};

/*
 * Manage [start, start + nbytes). Ends are rounded inwards to whole pages, the
 * metadata are taken from the start. The memory need not be zero; only the
 * metadata are written. It must be contiguous in physical memory. A region
 * that crosses physical 4 GiB is managed as two, and one beyond 8 TiB in pieces
 * of 8 TiB. INVALID_PARAM: no page is left, or overflow. MEMORY_OVERLAP.
 */
MM_MUST_CHECK enum alloc_result page_alloc_add_region(struct page_alloc *a, virt_addr_t start,
						      size_t nbytes);

/*
 * Stop managing the region that starts at `start` (as it was added, or rounded
 * up). NOT_ALLOCATED: no such region; NO_MEMORY: pages of it are in use. What CPUs have
 * parked of it is taken back.
 */
MM_MUST_CHECK enum alloc_result page_alloc_remove_region(struct page_alloc *a, virt_addr_t start);

struct page_request {
	size_t npages;
	size_t align; /* bytes, a power of two, at least MM_PAGE_SIZE */
	enum page_zone zone;
	enum page_usage usage;
	uint64_t phys_limit; /* 0: none; else every byte's physical address is below it */
};

/*
 * n contiguous pages. The contents are undefined. *out is untouched on failure.
 * NO_MEMORY, after what CPUs have parked was taken back: there is no such run in one
 * region; or, where the alignment is neither a page nor n pages, perhaps none of
 * n pages and the alignment less a page. The time does not depend on the amount of memory.
 */
MM_MUST_CHECK enum alloc_result page_alloc_get(struct page_alloc *a, struct page_request req,
					       virt_addr_t *out);

/* The same at a given page-aligned address: NO_MEMORY when any page of it is taken or unmanaged. */
MM_MUST_CHECK enum alloc_result page_alloc_get_at(struct page_alloc *a, virt_addr_t start,
						  size_t npages, enum page_usage usage);

/*
 * Give back any sub-range of what was allocated. All or nothing: when a page
 * of it is free, or not managed, or start is not page-aligned, *fault says so and nothing is freed.
 */
MM_MUST_CHECK enum alloc_result page_alloc_put(struct page_alloc *a, virt_addr_t start,
					       size_t npages, enum mm_fault_kind *fault);

/*
 * The same, and FOREIGN when a page of it is used as something that has no bit (1 << usage)
 * in `kinds`: what belongs to the heap is not for its users to give back.
 */
MM_MUST_CHECK enum alloc_result page_alloc_put_kinds(struct page_alloc *a, virt_addr_t start,
						     size_t npages, unsigned int kinds,
						     enum mm_fault_kind *fault);

/*
 * One page through the cache of a pinned CPU, no lock. False: the cache cannot
 * serve the call (empty, full, a page of another region or of the heap, misuse): make the
 * locked call, which also says what is wrong, after page_alloc_refill or
 * page_alloc_drain moved a batch.
 */
bool page_alloc_one_local(struct page_alloc *a, enum page_usage usage, unsigned int cpu,
			  virt_addr_t *out);
bool page_free_one_local(struct page_alloc *a, virt_addr_t page, unsigned int cpu);

/* Move a batch of pages between a CPU's cache and the bitmap. Locked and pinned to that cpu. */
void page_alloc_refill(struct page_alloc *a, unsigned int cpu);
void page_alloc_drain(struct page_alloc *a, unsigned int cpu);

/* Empty the cache. True when there were pages. */
bool page_alloc_drain_all(struct page_alloc *a, unsigned int cpu);

/* Exact while no CPU is in a local call; pages in per-CPU caches are available. Metadata is in
 * neither total nor used. */
size_t page_alloc_total(const struct page_alloc *a);
size_t page_alloc_used(const struct page_alloc *a);
size_t page_alloc_available(const struct page_alloc *a);
size_t page_alloc_usage(const struct page_alloc *a, enum page_usage usage);
size_t page_alloc_metadata_bytes(const struct page_alloc *a);

/* Is this page managed and allocated? */
bool page_alloc_is_allocated(const struct page_alloc *a, virt_addr_t page);

/* Regions in order: false when i is past the last. */
struct page_region_info {
	virt_addr_t start;
	size_t npages, free_pages;
	enum page_zone zone; /* LOW, or ANY for high memory */
};
bool page_alloc_region(const struct page_alloc *a, size_t i, struct page_region_info *out);

/* Verify every invariant (summary levels, counts); the first region found broken, else NULL. Pre:
 * no CPU is in a local call. */
const void *page_alloc_check(const struct page_alloc *a);

#endif
