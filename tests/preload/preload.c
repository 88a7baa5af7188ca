/* SPDX-License-Identifier: MIT */
/*
 * malloc for a Linux process over the global allocator, for LD_PRELOAD.
 *
 * free() does not say a layout, so a header of 16 bytes before every block
 * keeps it. The region is reserved at the first call and touched only as far
 * as it is used; page frames of what the heap gives back are returned to Linux. A fork waits until
 * no thread is inside the allocator, so the child's copy is whole.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mm/global.h>

#define EXPORT	    __attribute__((visibility("default")))
#define REGION_MAX  ((size_t)64 << 30)
#define REGION_MIN  ((size_t)64 << 20)
#define BLOCK_ALIGN ((size_t)16)
#define MOST_ALIGN  ((size_t)1 << 31)  /* what the offset in a header can tell */
#define DISCARD_MIN ((size_t)64 << 10) /* less is not worth the call and the faults later */

struct header {
	size_t nbytes;	 /* requested */
	uint32_t offset; /* of the block in what was allocated for it: nbytes + alignment */
	uint16_t align_log2;
	uint16_t check; /* made of the address; wrong after a free */
};
_Static_assert(sizeof(struct header) == BLOCK_ALIGN, "blocks stay aligned behind their header");

EXPORT const char *mica_preload_engine(void);

/* --- The port --- */

__attribute__((format(printf, 1, 0))) static void print(const char *fmt, va_list ap)
{
	char line[256] = "mica: ";
	int n = vsnprintf(line + 6, sizeof(line) - 7, fmt, ap);
	size_t len = n < 0 ? 6 : 6 + (size_t)n;

	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len] = '\n';
	if (write(STDERR_FILENO, line, len + 1) < 0)
		return; /* nowhere to say so */
}

void mm_port_log(enum mm_log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > MM_LOG_WARN)
		return;
	va_start(ap, fmt);
	print(fmt, ap);
	va_end(ap);
}

void mm_port_panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print(fmt, ap);
	va_end(ap);
	abort();
}

void port_yield(void)
{
	sched_yield();
}

/* --- Who called --- */

/*
 * The program's call that this thread is in. A fault that the allocator finds would name
 * its own caller, which is this file.
 */
static _Thread_local const void *caller __attribute__((tls_model("initial-exec")));

/* The first step of each exported function; none of them calls another. */
#define NOTE_CALLER() (caller = __builtin_return_address(0))

static void name_caller(struct mm_fault *fault)
{
	fault->caller = caller;
}

/* --- Threads and forks --- */

struct mm_lock port_slots[MM_MAX_CPUS];
_Thread_local unsigned int port_slot;

unsigned int port_new_slot(void)
{
	static unsigned int next;

	return 1 + __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % MM_MAX_CPUS;
}

/* All locks, in the order of global.c. */
static void before_fork(void)
{
	struct global_allocator *g = global_allocator();

	(void)mm_port_lock(&g->grow_lock);
	(void)mm_port_lock(&g->heap_lock);
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		(void)mm_port_lock(&port_slots[i]);
	(void)mm_port_lock(&g->page_lock);
	(void)mm_port_lock(&g->hook_lock);
}

static void after_fork(void)
{
	struct global_allocator *g = global_allocator();

	mm_port_unlock(&g->hook_lock, 0);
	mm_port_unlock(&g->page_lock, 0);
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		mm_port_unlock(&port_slots[i], 0);
	mm_port_unlock(&g->heap_lock, 0);
	mm_port_unlock(&g->grow_lock, 0);
}

static void watch_forks(void)
{
	if (pthread_atfork(before_fork, after_fork, after_fork))
		mm_port_panic("no memory for the fork handlers");
}

/* --- The region --- */

static void discard_pages(virt_addr_t start, size_t npages)
{
	int saved = errno;

	if (npages << MM_PAGE_SHIFT >= DISCARD_MIN)
		madvise(virt_ptr(start), npages << MM_PAGE_SHIFT, MADV_DONTNEED);
	errno = saved;
}

static void map_region(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, saved = errno;

	for (size_t n = REGION_MAX; n >= REGION_MIN; n /= 2) {
		void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, flags, -1, 0);

		if (p == MAP_FAILED)
			continue;
		errno = saved; /* a larger one that could not be had is not the caller's error */
		if (global_init(virt_addr(p), n) != ALLOC_OK)
			mm_port_panic("cannot use %zu bytes at %p", n, p);
		global_allocator_set_discard(global_allocator(), discard_pages);
		/* In place of the debug build's, for whom this file is who allocated and freed. */
		mm_fault_set_tracer(name_caller);
		return;
	}
	mm_port_panic("cannot reserve %zu bytes of address space", REGION_MIN);
}

static void ensure_region(void)
{
	static struct mm_lock lock;
	static bool ready;
	bool first;

	if (__builtin_expect(__atomic_load_n(&ready, __ATOMIC_ACQUIRE), 1))
		return;
	(void)mm_port_lock(&lock);
	first = !ready;
	if (first) {
		map_region();
		__atomic_store_n(&ready, true, __ATOMIC_RELEASE);
	}
	mm_port_unlock(&lock, 0);
	/* Registered first, called last before a fork: handlers of others may allocate. */
	if (first)
		watch_forks();
}

/*
 * Linked with initfirst: so this runs before the constructors of libraries, which may register
 * handlers. (Where another object has that place, the first malloc may still come before them.)
 */
__attribute__((constructor)) static void begin(void)
{
	ensure_region();
}

/* --- Blocks --- */

static uint16_t check_of(const struct header *h)
{
	return (uint16_t)(((uintptr_t)h * 0x9e3779b97f4a7c15u) >> 48 | 1);
}

/* What was allocated for a block, header and alignment included. */
static struct layout layout_of(size_t nbytes, unsigned int align_log2)
{
	return (struct layout){nbytes + ((size_t)1 << align_log2), BLOCK_ALIGN};
}

static struct header *header_of(const void *p)
{
	return (struct header *)(uintptr_t)p - 1;
}

static void *base_of(const struct header *h)
{
	return (char *)(uintptr_t)(h + 1) - h->offset;
}

static void *finish_block(void *base, size_t nbytes, unsigned int align_log2)
{
	size_t align = (size_t)1 << align_log2;
	uintptr_t start = (uintptr_t)base + BLOCK_ALIGN;
	struct header *h = header_of((void *)((start + align - 1) & ~(uintptr_t)(align - 1)));

	h->nbytes = nbytes;
	h->offset = (uint32_t)((uintptr_t)(h + 1) - (uintptr_t)base);
	h->align_log2 = (uint16_t)align_log2;
	h->check = check_of(h);
	return h + 1;
}

/* The header of a live block; NULL, and a report, for anything else. */
static struct header *check_block(const void *p)
{
	struct header *h = header_of(p);

	if (!((uintptr_t)p & (BLOCK_ALIGN - 1)) && h->check == check_of(h))
		return h;
	mm_fault_report(&(struct mm_fault){
		.kind = MM_FAULT_FOREIGN, .allocator = "preload", .ptr = p, .caller = caller});
	return NULL;
}

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

static void *allocate(size_t nbytes, unsigned int align_log2)
{
	struct layout l = layout_of(nbytes, align_log2);
	void *base = NULL;

	ensure_region();
	if (l.size < nbytes || global_alloc(l, &base) != ALLOC_OK)
		return no_memory();
	return finish_block(base, nbytes, align_log2);
}

static void release(struct header *h)
{
	struct layout l = layout_of(h->nbytes, h->align_log2);
	int saved = errno;

	h->check = 0;
	(void)global_dealloc(base_of(h), l);
	errno = saved;
}

#define DEFAULT_ALIGN_LOG2 4u

/* An alignment is rounded up to a power of two, as Debian 12's C library does. */
static void *allocate_aligned(size_t align, size_t nbytes)
{
	unsigned int log2 = DEFAULT_ALIGN_LOG2;

	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	if (align > MOST_ALIGN)
		return no_memory();
	while ((size_t)1 << log2 < align)
		log2++;
	return allocate(nbytes, log2);
}

/* A block with an alignment of its own moves: where it is it might end up on another one. */
static void *move_aligned(struct header *h, size_t nbytes)
{
	void *p = allocate(nbytes, DEFAULT_ALIGN_LOG2);

	if (!p)
		return NULL;
	memcpy(p, h + 1, h->nbytes < nbytes ? h->nbytes : nbytes);
	release(h);
	return p;
}

static void *resize(struct header *h, size_t nbytes)
{
	struct layout old = layout_of(h->nbytes, DEFAULT_ALIGN_LOG2);
	void *base = NULL;

	if (h->align_log2 != DEFAULT_ALIGN_LOG2)
		return move_aligned(h, nbytes);
	if (nbytes + BLOCK_ALIGN < nbytes ||
	    global_realloc(h, old, nbytes + BLOCK_ALIGN, &base) != ALLOC_OK)
		return no_memory();
	return finish_block(base, nbytes, DEFAULT_ALIGN_LOG2);
}

static void *reallocate(void *p, size_t nbytes)
{
	struct header *h;

	if (!p)
		return allocate(nbytes, DEFAULT_ALIGN_LOG2);
	h = check_block(p);
	if (!h)
		return no_memory();
	if (nbytes)
		return resize(h, nbytes);
	release(h);
	return NULL;
}

/* --- The interface of the C library --- */

EXPORT const char *mica_preload_engine(void)
{
	return global_allocator_name(global_allocator());
}

EXPORT void *malloc(size_t nbytes)
{
	NOTE_CALLER();
	return allocate(nbytes, DEFAULT_ALIGN_LOG2);
}

EXPORT void free(void *p)
{
	struct header *h;

	NOTE_CALLER();
	h = p ? check_block(p) : NULL;
	if (h)
		release(h);
}

EXPORT void *calloc(size_t n, size_t nbytes)
{
	size_t total;
	void *base = NULL;

	NOTE_CALLER();
	ensure_region();
	if (__builtin_mul_overflow(n, nbytes, &total) || total + BLOCK_ALIGN < total)
		return no_memory();
	if (global_alloc_zeroed(layout_of(total, DEFAULT_ALIGN_LOG2), &base) != ALLOC_OK)
		return no_memory();
	return finish_block(base, total, DEFAULT_ALIGN_LOG2);
}

EXPORT void *realloc(void *p, size_t nbytes)
{
	NOTE_CALLER();
	return reallocate(p, nbytes);
}

EXPORT void *reallocarray(void *p, size_t n, size_t nbytes)
{
	size_t total;

	NOTE_CALLER();
	return __builtin_mul_overflow(n, nbytes, &total) ? no_memory() : reallocate(p, total);
}

EXPORT void *memalign(size_t align, size_t nbytes)
{
	NOTE_CALLER();
	return allocate_aligned(align, nbytes);
}

EXPORT void *aligned_alloc(size_t align, size_t nbytes)
{
	NOTE_CALLER();
	return allocate_aligned(align, nbytes);
}

EXPORT int posix_memalign(void **out, size_t align, size_t nbytes)
{
	int saved = errno;
	void *p;

	NOTE_CALLER();
	if (!mm_is_pow2(align) || align % sizeof(void *))
		return EINVAL;
	p = allocate_aligned(align, nbytes);
	errno = saved;
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

EXPORT void *valloc(size_t nbytes)
{
	NOTE_CALLER();
	return allocate_aligned(MM_PAGE_SIZE, nbytes);
}

EXPORT void *pvalloc(size_t nbytes)
{
	size_t rounded = (nbytes + MM_PAGE_SIZE - 1) & ~(MM_PAGE_SIZE - 1);

	NOTE_CALLER();
	return rounded < nbytes ? no_memory() : allocate_aligned(MM_PAGE_SIZE, rounded);
}

EXPORT size_t malloc_usable_size(void *p)
{
	return p ? header_of(p)->nbytes : 0;
}
