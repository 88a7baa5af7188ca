/* SPDX-License-Identifier: MIT */
/* The page allocator, without locks, behind a page benchmark's page_* interface: one CPU, its cache
 * in use. */
#include <string.h>

#include "../host/pageplugin.h"
#include "page_region.h"

static struct page_alloc pages;

const char *page_name(void)
{
	return "mica-pages";
}

/* The pages are made up, so their metadata lie elsewhere; all count as high memory. */
int page_init(uintptr_t base, size_t n_pages, void *meta, size_t meta_size)
{
	phys_addr_t high = {(uint64_t)1 << 32};

	memset(&pages, 0, sizeof(pages));
	if (page_region_metadata(base >> MM_PAGE_SHIFT, n_pages) > meta_size)
		return -1;
	return page_alloc_add_foreign(&pages, meta, (virt_addr_t){base}, n_pages, high);
}

__attribute__((noinline)) static uintptr_t alloc_slow(size_t n, unsigned int align_log2)
{
	struct page_request req;
	virt_addr_t va;

	if (n == 1 && !align_log2) {
		page_alloc_refill(&pages, 0);
		if (page_alloc_one_local(&pages, PAGE_USAGE_USER, 0, &va))
			return va.value;
	}
	req = (struct page_request){
		.npages = n, .align = MM_PAGE_SIZE << align_log2, .usage = PAGE_USAGE_USER};
	return page_alloc_get(&pages, req, &va) == ALLOC_OK ? va.value : PAGE_FAIL;
}

__attribute__((flatten)) uintptr_t page_alloc(size_t n, unsigned int align_log2)
{
	virt_addr_t va;

	if (n == 1 && !align_log2 && page_alloc_one_local(&pages, PAGE_USAGE_USER, 0, &va))
		return va.value;
	return alloc_slow(n, align_log2);
}

__attribute__((noinline)) static void free_slow(uintptr_t addr, size_t n)
{
	enum mm_fault_kind fault;

	if (n == 1) {
		page_alloc_drain(&pages, 0);
		if (page_free_one_local(&pages, (virt_addr_t){addr}, 0))
			return;
	}
	if (page_alloc_put(&pages, (virt_addr_t){addr}, n, &fault) != ALLOC_OK)
		mm_fault_report(&(struct mm_fault){
			.kind = fault, .allocator = "pages", .ptr = (void *)addr});
}

__attribute__((flatten)) void page_free(uintptr_t addr, size_t n, unsigned int align_log2)
{
	(void)align_log2;
	if (n != 1 || !page_free_one_local(&pages, (virt_addr_t){addr}, 0))
		free_slow(addr, n);
}

size_t page_meta_bytes(void)
{
	return page_alloc_metadata_bytes(&pages);
}
