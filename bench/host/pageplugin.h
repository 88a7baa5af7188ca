/* SPDX-License-Identifier: MIT */
/* What a shared object exports so that pagebench can measure the page allocator in it. Only
 * addresses are handed out: nobody touches the pages, so a terabyte of them costs nothing. */
#ifndef BENCH_PAGEPLUGIN_H
#define BENCH_PAGEPLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_FAIL UINTPTR_MAX

#pragma GCC visibility push(default)

const char *page_name(void);

/* npages pages of 4096 bytes from base on; meta is zeroed memory for what the allocator must
 * remember. 0 is success. */
int page_init(uintptr_t base, size_t npages, void *meta, size_t meta_size);

/* n contiguous pages, aligned to 1 << align_log2 pages, or PAGE_FAIL. */
uintptr_t page_alloc(size_t n, unsigned int align_log2);
void page_free(uintptr_t addr, size_t n, unsigned int align_log2);

/* Optional: bytes of metadata in use. */
size_t page_meta_bytes(void);

#pragma GCC visibility pop

#endif
