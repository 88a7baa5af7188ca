/* SPDX-License-Identifier: MIT */
/*
 * The port: all that mm/ and dma/ need from the system around them.
 *
 * An embedder either links functions of these names (the default, declared
 * below), or compiles the library with -DMM_PORT_INLINE='"file.h"', where
 * file.h defines each of them static inline; Mica's kernel does the latter, so
 * that a lock costs no call. Nothing else of the outside is used.
 *
 * Build-time parameters (the same for every file of the library and for its
 * users; the build system passes them with -D):
 *   MM_HARDEN     0..3, hardening level, default 1 (docs/memory.md)
 *   MM_DEBUG      1: record who allocated and who freed; assertions; default 0
 *   MM_MAX_CPUS   most CPUs that are ever pinned, 1 to 64, default 8
 *   MM_FAST_BITS  1: the target has single instructions for count-leading and
 *                 count-trailing zeros; 0 (default): use portable code
 *   MM_PASS_CALLER 0: the compiler makes a jump of every call at the end of a
 *                 function, so that a fault report finds the caller without its
 *                 being passed along: gcc at -O2, one unit, the port inline. In
 *                 other builds reports would name the library as the caller;
 *                 default 1, which is right in any build
 *   MM_GLOBAL_ENGINE engine of the static allocator, for global*.c alone:
 *                 byte_tlsf_ops (default), byte_slab_ops or byte_buddy_ops
 */
#ifndef MM_PORT_H
#define MM_PORT_H

#include <mm/types.h>

#ifndef MM_HARDEN
#define MM_HARDEN 1
#endif
#ifndef MM_DEBUG
#define MM_DEBUG 0
#endif
#ifndef MM_MAX_CPUS
#define MM_MAX_CPUS 8
#endif
#ifndef MM_FAST_BITS
#define MM_FAST_BITS 0
#endif
#ifndef MM_PASS_CALLER
#define MM_PASS_CALLER 1
#endif

/*
 * Who includes this names a symbol that only a library with the same parameters has: with others,
 * structures differ, and the program must not link.
 */
#define MM_LIBRARY_OF_(harden, debug, cpus) \
	mm_library_of_harden_##harden##_debug_##debug##_cpus_##cpus
#define MM_LIBRARY_OF(harden, debug, cpus) MM_LIBRARY_OF_(harden, debug, cpus)
#define MM_LIBRARY			   MM_LIBRARY_OF(MM_HARDEN, MM_DEBUG, MM_MAX_CPUS)

extern const char MM_LIBRARY;
static const char *const mm_library __attribute__((used)) = &MM_LIBRARY;

/* A lock; all zero is unlocked. The port gives the word its meaning. */
struct mm_lock {
	uint32_t word;
};

/* How a range of pages is mapped. */
enum mm_attr {
	MM_ATTR_CACHED,	   /* normal write-back memory */
	MM_ATTR_NONCACHED, /* normal non-cacheable memory (AArch64 Normal-NC, RISC-V Svpbmt NC) */
};

/* Why a mapping was not changed. */
enum {
	MM_ATTR_UNCHANGED = -1, /* no page for a table, say: all is as before */
	MM_ATTR_UNKNOWN = -2,	/* the pages must never be used again */
};

enum mm_log_level { MM_LOG_ERROR, MM_LOG_WARN, MM_LOG_INFO, MM_LOG_DEBUG };

#ifdef MM_PORT_INLINE
#include MM_PORT_INLINE
#else

/*
 * Pre: the lock is not held by this CPU. Post: it is, and interrupts are off on
 * this CPU. Returns the interrupt state, which the unlock restores. Locks are
 * never nested except where the caller documents the order.
 */
unsigned long mm_port_lock(struct mm_lock *lock);
void mm_port_unlock(struct mm_lock *lock, unsigned long state);

/*
 * Pin: from here to the unpin nothing else runs with the same *cpu, not even
 * an interrupt handler. Post: *cpu < MM_MAX_CPUS. Constant time, no lock on a
 * kernel (interrupts off); a hosted port may map threads to slots.
 * Never nested. The library pins while it holds a lock, but takes no lock of
 * the heap while it is pinned.
 */
unsigned long mm_port_pin(unsigned int *cpu);
void mm_port_unpin(unsigned long state, unsigned int cpu);

/* Pre: va is memory given to the library. The address is constant for its life. */
phys_addr_t mm_port_virt_to_phys(virt_addr_t va);

/*
 * Change how whole pages are mapped. Post, on success (0): every CPU sees the
 * new attribute and no TLB holds the old one. On failure MM_ATTR_UNCHANGED, or
 * MM_ATTR_UNKNOWN: the caller quarantines them. Does no cache maintenance.
 */
int mm_port_set_attr(virt_addr_t va, size_t npages, enum mm_attr attr);

/*
 * Clean and invalidate the data cache over a range to the point of coherency.
 * Returns 0, or negative when this CPU has no way to do so.
 */
int mm_port_cache_flush(virt_addr_t va, size_t nbytes);

/* One line of text, printf-like (%s %d %u %x %lx %lu %zu %p %c); no trailing newline. Any context,
 * also under locks of the library: must not call it. */
__attribute__((format(printf, 2, 3))) void mm_port_log(enum mm_log_level level, const char *fmt,
						       ...);

/* The system cannot go on. Does not return. */
__attribute__((noreturn, format(printf, 1, 2))) void mm_port_panic(const char *fmt, ...);

#endif

#endif
