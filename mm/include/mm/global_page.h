/* SPDX-License-Identifier: MIT */
/*
 * An owning handle of contiguous pages of the global allocator. Exactly one
 * handle owns the pages; an empty handle (all zero) owns none.
 */
#ifndef MM_GLOBAL_PAGE_H
#define MM_GLOBAL_PAGE_H

#include <mm/global.h>

struct global_page {
	virt_addr_t start;
	size_t npages;
};

/* A view of bytes; valid as long as the handle owns the pages. */
struct byte_slice {
	const uint8_t *data;
	size_t len;
};
struct byte_slice_mut {
	uint8_t *data;
	size_t len;
};

/* One page; contents undefined, or zero. *out is overwritten, so it must own nothing; on failure it
 * is untouched. */
MM_MUST_CHECK enum alloc_result global_page_alloc(struct global_page *out);
MM_MUST_CHECK enum alloc_result global_page_alloc_zeroed(struct global_page *out);
/* npages contiguous pages at an alignment in bytes. */
MM_MUST_CHECK enum alloc_result global_page_alloc_contiguous(size_t npages, size_t align,
							     struct global_page *out);

virt_addr_t global_page_start_vaddr(const struct global_page *p);
phys_addr_t global_page_start_paddr(const struct global_page *p,
				    phys_addr_t (*virt_to_phys)(virt_addr_t));
size_t global_page_size(const struct global_page *p); /* bytes */
const void *global_page_as_ptr(const struct global_page *p);
void *global_page_as_mut_ptr(struct global_page *p);
struct byte_slice global_page_as_slice(const struct global_page *p);
struct byte_slice_mut global_page_as_mut_slice(struct global_page *p);
void global_page_fill(struct global_page *p, uint8_t byte);
void global_page_zero(struct global_page *p);

/* Give the pages back; the handle is empty afterwards. Dropping an empty handle does nothing. */
void global_page_drop(struct global_page *p);

/* Scope-bound: struct global_page p GLOBAL_PAGE_SCOPED = {0}; dropped at the end of the block. */
#define GLOBAL_PAGE_SCOPED __attribute__((cleanup(global_page_drop)))

#endif
