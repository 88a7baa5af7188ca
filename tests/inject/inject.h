/* SPDX-License-Identifier: MIT */
/*
 * Failure injection for the self-tests on the host. The linker puts wrappers
 * (--wrap) in the place of every function that memory comes from, so no line of
 * mm/ and dma/ knows of it:
 *
 *   sources (sources.c)  pages, engines, scratch memory: each request may be made to fail
 *   holders (holders.c)  facade, caches and DMA: a ledger of what the test itself holds, so
 *                        that a test which ends early can be cleaned up after
 */
#ifndef INJECT_H
#define INJECT_H

#include <mm/global.h>

/* Both declarations that a wrapper needs. The Makefile makes the linker's options of these lines.
 */
#define WRAPPED(function) extern __typeof__(function) __real_##function, __wrap_##function

/* --- Sources --- */

/* Count requests from now on; the nth fails, and all after it too if so said. 0: none fails. */
void inject_start(unsigned long nth, bool all_after);
void inject_stop(void);
unsigned long inject_requests(void);
bool inject_fired(void);

/* A request is made: shall it fail? */
bool inject_fails(void);

/* --- Ledger --- */

/* In the order in which they are given back. */
enum holding {
	HELD_DMA,
	HELD_OBJECT,
	HELD_CACHE,
	HELD_BYTES,
	HELD_PAGE,
	HELD_HEAP_PAGE,
	HELD_BLOCK,
	HOLDINGS
};

struct held {
	struct held *next;
	enum holding what;
	void *owner; /* device, cache, global allocator or engine */
	void *p;
	struct layout layout;
	uint64_t bus; /* HELD_DMA */
};

/*
 * Between these, what this thread gets and frees is the business of whom it called,
 * and what is reported was caused by that caller rather than by a wrapper.
 */
void ledger_enter(const void *caller);
void ledger_leave(void);
const void *ledger_caller(void); /* NULL: outside */

void ledger_add(struct held h);

/* False when it is not there: a misuse, which the callee is to find. */
bool ledger_remove(enum holding what, void *owner, void *p, struct held *out);

/* The owner starts anew. */
void ledger_forget(void *owner);

/* An allocator that is to be sound and empty in the end. */
void ledger_know_global(struct global_allocator *g);
void ledger_know_engine(struct byte_alloc *a, const struct byte_ops *ops);
void ledger_know_pages(struct page_alloc *a);

/* The state that the static allocators are to come back to. */
void ledger_start(void);

/*
 * Give back what is held, and look at everything: NULL, or what is wrong. After a
 * test that went on to its end, page allocators of its own may be gone, and are not looked at.
 */
const char *ledger_settle(size_t may_keep_pages, bool went_on);

#endif
