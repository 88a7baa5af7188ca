/* SPDX-License-Identifier: MIT */
#include <mm/global_page.h>

enum alloc_result global_page_alloc(struct global_page *out)
{
	return global_page_alloc_contiguous(1, MM_PAGE_SIZE, out);
}

enum alloc_result global_page_alloc_zeroed(struct global_page *out)
{
	enum alloc_result r = global_page_alloc(out);

	if (r == ALLOC_OK)
		global_page_zero(out);
	return r;
}

enum alloc_result global_page_alloc_contiguous(size_t npages, size_t align, struct global_page *out)
{
	struct global_page p = {.npages = npages};
	enum alloc_result r =
		global_allocator_alloc_pages(global_allocator(), npages, align, &p.start);

	if (r == ALLOC_OK)
		*out = p;
	return r;
}

virt_addr_t global_page_start_vaddr(const struct global_page *p)
{
	return p->start;
}

phys_addr_t global_page_start_paddr(const struct global_page *p,
				    phys_addr_t (*virt_to_phys)(virt_addr_t))
{
	return virt_to_phys(p->start);
}

size_t global_page_size(const struct global_page *p)
{
	return p->npages << MM_PAGE_SHIFT;
}

const void *global_page_as_ptr(const struct global_page *p)
{
	return virt_ptr(p->start);
}

void *global_page_as_mut_ptr(struct global_page *p)
{
	return virt_ptr(p->start);
}

struct byte_slice global_page_as_slice(const struct global_page *p)
{
	return (struct byte_slice){global_page_as_ptr(p), global_page_size(p)};
}

struct byte_slice_mut global_page_as_mut_slice(struct global_page *p)
{
	return (struct byte_slice_mut){global_page_as_mut_ptr(p), global_page_size(p)};
}

void global_page_fill(struct global_page *p, uint8_t byte)
{
	if (p->npages)
		__builtin_memset(virt_ptr(p->start), byte, global_page_size(p));
}

void global_page_zero(struct global_page *p)
{
	global_page_fill(p, 0);
}

void global_page_drop(struct global_page *p)
{
	if (p->npages)
		(void)global_allocator_dealloc_pages(global_allocator(), p->start, p->npages);
	*p = (struct global_page){0};
}
