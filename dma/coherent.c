/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Coherent memory of a page and more is whole pages (pages.c). Less comes from a
 * heap: a TLSF engine over coherent pages, one for each kind of memory, which
 * grows by a piece of four pages, and gives a piece back when nothing of it is
 * in use. One free piece stays as a spare, so that a driver that allocates and
 * frees one block does not change attributes each time.
 *
 * Every allocation has a record, in ordinary memory where no device reaches it:
 * what was asked, for which device, what was given. Freeing believes the record
 * and not the caller, and so any misuse is found before anything has changed.
 *
 * Devices of one kind share a heap. A block of it may be out of the reach of a
 * device with a narrow mask; pieces come from low memory for that reason, and
 * when it happens all the same the device gets a page of its own.
 *
 * Locks: one here (heaps, records, counts), one in pages.c. They are never held
 * together, nor while pages are had, changed or given back, for a change
 * of attributes may have to wait for other CPUs.
 *
 * Shortcoming: the engine keeps its headers in memory that devices can write. A
 * device that writes past its block can break them; hardening finds
 * that, as it does with a CPU's stray write, but does not prevent it.
 */
#include <mm/byte_tlsf.h>
#include <mm/global.h>

#include "device.h"
#include "pages.h"

#define CALLER	     __builtin_return_address(0)
#define PIECE_PAGES  ((size_t)4)
#define BUCKET_BITS  6u
#define BUCKETS	     (1u << BUCKET_BITS)
#define RECENT_FREES 16u

/* npages 0 is none. */
struct piece {
	virt_addr_t va;
	size_t npages;
};

struct heap {
	struct byte_tlsf engine;
	struct piece spare;
};

struct block {
	struct block *next;
	const struct dma_device *dev;
	struct dma_info info;
	struct layout layout;	/* as the caller asked */
	struct dma_demand made; /* as it was made */
	enum dma_memory kind;
};

static struct {
	struct mm_lock lock;
	struct heap heap[DMA_MEMORY_KINDS];
	struct block *bucket[BUCKETS];
	const void *freed[RECENT_FREES]; /* only to give a double free its name */
	unsigned int nfreed;
	size_t live, live_bytes;
	bool said_incoherent;
} dma;

/* The engine of both heaps: all zero is one without memory. */
static const struct byte_ops *const engine = &byte_tlsf_ops;

/* --- Records (locked) -------------------------------------------------------- */

static struct block **bucket_of(const void *p)
{
	uint64_t hash = ((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15u;

	return &dma.bucket[hash >> (64 - BUCKET_BITS)];
}

static void record(struct block *b)
{
	struct block **first = bucket_of(b->info.cpu_addr);

	b->next = *first;
	*first = b;
	dma.live++;
	dma.live_bytes += b->layout.size;
}

/* What points to the record of p; to NULL when there is none. */
static struct block **find(const void *p)
{
	struct block **at = bucket_of(p);

	while (*at && (*at)->info.cpu_addr != p)
		at = &(*at)->next;
	return at;
}

static void forget(struct block **at)
{
	struct block *b = *at;

	*at = b->next;
	dma.live--;
	dma.live_bytes -= b->layout.size;
	dma.freed[dma.nfreed++ % RECENT_FREES] = b->info.cpu_addr;
}

static bool freed_lately(const void *p)
{
	for (unsigned int i = 0; i < RECENT_FREES; i++)
		if (p && dma.freed[i] == p)
			return true;
	return false;
}

/* What is wrong with freeing `info` as `l`, given its record (or NULL)? */
static enum mm_fault_kind misuse(const struct block *b, const struct dma_device *dev,
				 struct dma_info info, struct layout l)
{
	if (!b)
		return freed_lately(info.cpu_addr) ? MM_FAULT_DOUBLE_FREE : MM_FAULT_FOREIGN;
	if (b->dev != dev || b->info.bus_addr.value != info.bus_addr.value)
		return MM_FAULT_FOREIGN;
	if (b->layout.size != l.size || b->layout.align != l.align)
		return MM_FAULT_WRONG_LAYOUT;
	return MM_FAULT_NONE;
}

/* --- The heaps --------------------------------------------------------------- */

static void *heap_alloc(enum dma_memory kind, struct layout l)
{
	struct byte_alloc *a = &dma.heap[kind].engine.base;
	unsigned long state = mm_port_lock(&dma.lock);
	void *p = engine->alloc(a, l.size, l.align);

	mm_port_unlock(&dma.lock, state);
	return p;
}

static bool heap_add(enum dma_memory kind, struct piece piece)
{
	struct byte_alloc *a = &dma.heap[kind].engine.base;
	unsigned long state = mm_port_lock(&dma.lock);
	enum alloc_result r =
		engine->add_memory(a, virt_ptr(piece.va), piece.npages << MM_PAGE_SHIFT);

	mm_port_unlock(&dma.lock, state);
	return r == ALLOC_OK;
}

/* Locked. A piece of which nothing is in use: out of the heap. */
static struct piece heap_take_free(struct heap *h)
{
	struct byte_alloc *a = &h->engine.base;
	size_t nbytes;
	void *start;

	if (!engine->take_free(a, &start, &nbytes))
		return (struct piece){{0}, 0};
	return (struct piece){virt_addr(start), nbytes >> MM_PAGE_SHIFT};
}

/* Locked. The same, but the first becomes the spare. */
static struct piece heap_shrink(struct heap *h)
{
	struct piece piece = heap_take_free(h);

	if (h->spare.npages)
		return piece;
	h->spare = piece;
	return (struct piece){{0}, 0};
}

/* Locked. *extra is what the heap no longer needs. */
static enum mm_fault_kind heap_dealloc(enum dma_memory kind, void *p, struct layout l,
				       struct piece *extra)
{
	struct heap *h = &dma.heap[kind];
	struct byte_alloc *a = &h->engine.base;
	enum mm_fault_kind fault = engine->dealloc(a, p, l.size, l.align);

	if (fault == MM_FAULT_NONE)
		*extra = heap_shrink(h);
	return fault;
}

static struct piece take_spare(enum dma_memory kind, size_t npages)
{
	struct heap *h = &dma.heap[kind];
	struct piece piece = {{0}, 0};
	unsigned long state = mm_port_lock(&dma.lock);

	if (h->spare.npages >= npages) {
		piece = h->spare;
		h->spare.npages = 0;
	}
	mm_port_unlock(&dma.lock, state);
	return piece;
}

/* Low memory, which most devices reach, if there is any. */
static struct piece new_piece(const struct dma_device *dev, enum dma_memory kind, size_t npages)
{
	struct piece piece = {{0}, npages};

	if (dma_pages_get(dev, kind, npages, MM_PAGE_SIZE, PAGE_ZONE_LOW, &piece.va) != ALLOC_OK &&
	    dma_pages_get(dev, kind, npages, MM_PAGE_SIZE, PAGE_ZONE_ANY, &piece.va) != ALLOC_OK)
		piece.npages = 0;
	return piece;
}

static bool heap_grow(const struct dma_device *dev, enum dma_memory kind, struct layout l)
{
	const struct byte_alloc *a = &dma.heap[kind].engine.base;
	size_t need = engine->grow_size(a, l.size, l.align);
	size_t npages = (need + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
	struct piece piece;

	if (npages < PIECE_PAGES)
		npages = PIECE_PAGES;
	piece = take_spare(kind, npages);
	if (!piece.npages)
		piece = new_piece(dev, kind, npages);
	if (!piece.npages)
		return false;
	if (heap_add(kind, piece))
		return true;
	dma_pages_put(kind, piece.va, piece.npages);
	return false;
}

static void give_back(enum dma_memory kind, struct piece piece)
{
	if (piece.npages)
		dma_pages_put(kind, piece.va, piece.npages);
}

/* A block of the heap that the device did not like. */
static void heap_undo(enum dma_memory kind, void *p, struct layout l)
{
	struct piece extra = {{0}, 0};
	unsigned long state = mm_port_lock(&dma.lock);

	(void)heap_dealloc(kind, p, l, &extra);
	mm_port_unlock(&dma.lock, state);
	give_back(kind, extra);
}

/* --- Allocation -------------------------------------------------------------- */

static bool take_block(struct block *b)
{
	struct layout l = b->made.layout;
	void *p = heap_alloc(b->kind, l);

	if (!p && heap_grow(b->dev, b->kind, l))
		p = heap_alloc(b->kind, l);
	if (!p)
		return false;
	if (!dma_device_fits(b->dev, p, &b->made, &b->info.bus_addr)) {
		heap_undo(b->kind, p, l);
		return false;
	}
	__builtin_memset(p, 0, l.size);
	b->info.cpu_addr = p;
	return true;
}

static bool take_pages(struct block *b)
{
	struct dma_demand *d = &b->made;
	virt_addr_t va;

	if (dma_pages_get(b->dev, b->kind, d->npages, d->layout.align, PAGE_ZONE_ANY, &va) !=
	    ALLOC_OK)
		return false;
	if (!dma_device_fits(b->dev, virt_ptr(va), d, &b->info.bus_addr)) {
		dma_pages_put(b->kind, va, d->npages);
		return false;
	}
	b->info.cpu_addr = virt_ptr(va);
	return true;
}

/* A page for what the heap has no room for within the device's reach. */
static bool take_a_page(struct block *b)
{
	b->made.npages = 1;
	b->made.layout.align = MM_PAGE_SIZE;
	return take_pages(b);
}

static bool take_once(struct block *b)
{
	return b->made.npages ? take_pages(b) : take_block(b);
}

static bool take(struct block *b)
{
	struct dma_demand *d = &b->made;

	if (take_once(b))
		return true;
	if (d->least_align < d->layout.align) {
		d->layout.align = d->least_align;
		if (take_once(b))
			return true;
	}
	return !d->npages && take_a_page(b);
}

static enum alloc_result refuse_incoherent(const struct dma_device *dev)
{
	unsigned long state = mm_port_lock(&dma.lock);
	bool said = dma.said_incoherent;

	dma.said_incoherent = true;
	mm_port_unlock(&dma.lock, state);
	if (!said)
		mm_port_log(MM_LOG_ERROR,
			    "dma: %s is not coherent, and this CPU cannot make memory so: refused",
			    dev->name);
	return ALLOC_INVALID_PARAM;
}

static enum alloc_result allocate(const struct dma_device *dev, struct layout l,
				  struct dma_info *info)
{
	static const struct layout record_layout = {sizeof(struct block), _Alignof(struct block)};
	struct block b = {.dev = dev, .layout = l};
	unsigned long state;
	void *kept;

	if (!dma_device_demand(dev, l, &b.made))
		return ALLOC_INVALID_PARAM;
	if (!dma_pages_kind(dev, &b.kind))
		return refuse_incoherent(dev);
	if (global_alloc(record_layout, &kept) != ALLOC_OK)
		return ALLOC_NO_MEMORY;
	if (!take(&b)) {
		global_dealloc(kept, record_layout);
		return ALLOC_NO_MEMORY;
	}
	*(struct block *)kept = b;
	state = mm_port_lock(&dma.lock);
	record(kept);
	mm_port_unlock(&dma.lock, state);
	*info = b.info;
	return ALLOC_OK;
}

enum alloc_result alloc_coherent(struct layout l, struct dma_info *info)
{
	return allocate(dma_default_device(), l, info);
}

enum alloc_result dma_alloc_coherent(struct dma_device *dev, struct layout l, struct dma_info *info)
{
	return allocate(dev, l, info);
}

/* --- Freeing ----------------------------------------------------------------- */

/*
 * Locked. Take the allocation off the books. *out is its record, *pages what
 * is now to be given back. Nothing has changed when a fault is returned.
 */
static enum mm_fault_kind retire(const struct dma_device *dev, struct dma_info info,
				 struct layout l, struct block **out, struct piece *pages)
{
	struct block **at = find(info.cpu_addr), *b = *at;
	enum mm_fault_kind fault = misuse(b, dev, info, l);

	if (fault != MM_FAULT_NONE)
		return fault;
	if (b->made.npages)
		*pages = (struct piece){virt_addr(info.cpu_addr), b->made.npages};
	else
		fault = heap_dealloc(b->kind, info.cpu_addr, b->made.layout, pages);
	if (fault != MM_FAULT_NONE)
		return fault;
	forget(at);
	*out = b;
	return MM_FAULT_NONE;
}

static enum alloc_result refuse(enum mm_fault_kind kind, struct dma_info info, struct layout l,
				const void *caller)
{
	mm_fault_report(&(struct mm_fault){
		.kind = kind,
		.allocator = "DMA",
		.ptr = info.cpu_addr,
		.layout = l,
		.caller = caller,
	});
	return kind == MM_FAULT_WRONG_LAYOUT ? ALLOC_INVALID_PARAM : ALLOC_NOT_ALLOCATED;
}

static enum alloc_result release(const struct dma_device *dev, struct dma_info info,
				 struct layout l, const void *caller)
{
	struct piece pages = {{0}, 0};
	struct block *b = NULL;
	unsigned long state = mm_port_lock(&dma.lock);
	enum mm_fault_kind fault = retire(dev, info, l, &b, &pages);

	mm_port_unlock(&dma.lock, state);
	if (fault != MM_FAULT_NONE)
		return refuse(fault, info, l, caller);
	give_back(b->kind, pages);
	return global_dealloc(b, (struct layout){sizeof(*b), _Alignof(struct block)});
}

enum alloc_result dealloc_coherent(struct dma_info info, struct layout l)
{
	return release(dma_default_device(), info, l, CALLER);
}

enum alloc_result dma_dealloc_coherent(struct dma_device *dev, struct dma_info info,
				       struct layout l)
{
	return release(dev, info, l, CALLER);
}

/* --- Start, trim, statistics ------------------------------------------------- */

/* Anything that the heap does not use: the spare, else a free piece. */
static struct piece take_unused(enum dma_memory kind)
{
	struct piece piece = take_spare(kind, 1);
	unsigned long state;

	if (piece.npages)
		return piece;
	state = mm_port_lock(&dma.lock);
	piece = heap_take_free(&dma.heap[kind]);
	mm_port_unlock(&dma.lock, state);
	return piece;
}

static void trim(enum dma_memory kind)
{
	struct piece piece;

	while ((piece = take_unused(kind)).npages)
		dma_pages_put(kind, piece.va, piece.npages);
}

void dma_trim(void)
{
	trim(DMA_CACHED);
	trim(DMA_NONCACHED);
}

void dma_init(const struct dma_config *config)
{
	if (dma.live) {
		mm_port_log(MM_LOG_ERROR, "dma: initialised while memory is allocated: ignored");
		return;
	}
	dma_trim();
	dma_pages_init(config);
	*dma_default_device() = config->device;
	dma.said_incoherent = false;
}

void dma_stats(struct dma_stats *out)
{
	unsigned long state;

	dma_pages_stats(out);
	state = mm_port_lock(&dma.lock);
	out->live = dma.live;
	out->live_bytes = dma.live_bytes;
	mm_port_unlock(&dma.lock, state);
}
