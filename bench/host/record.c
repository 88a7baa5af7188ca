/* SPDX-License-Identifier: MIT */
/* LD_PRELOAD recorder of malloc and its family.
 *
 *	MICA_TRACE=out MICA_TRACE_CALLS=1000000 LD_PRELOAD=record.so program ...
 *
 * writes out.PROGRAM.PID.trace (trace.h) for every process that allocates: one that forked and one
 *that came by exec have traces of their own. A forked child frees blocks that only its parent's
 *trace knows; the reader leaves those out. MICA_TRACE_CALLS ends a trace early.
 *
 * Every call goes on to the next malloc in the program's order of libraries, which may be one that
 * the program brought along. One lock is held around each call and its record: so threads appear in
 * one true order, at the price of running one at a time. Failed calls are not recorded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "number.h"
#include "trace.h"

#define EXPORT __attribute__((visibility("default")))

static struct {
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void (*free)(void *);
	void *(*memalign)(size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	int (*posix_memalign)(void **, size_t, size_t);
} next;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct trace_writer out;
static bool started;
static uint64_t calls_left;

/* --- Processes -------------------------------------------------------------- */

static void take_lock(void)
{
	pthread_mutex_lock(&lock);
}

static void leave(void)
{
	pthread_mutex_unlock(&lock);
}

static void child_begins(void)
{
	trace_abandon(&out);
	started = false;
	leave();
}

/* --- Before the real functions are known ------------------------------------- */

/* dlsym itself may allocate; it gets zeroed memory from here, which is never taken back. */
static char early[8192] __attribute__((aligned(16)));
static size_t early_used;
static bool resolving;

static void *early_alloc(size_t size)
{
	char *p = early + early_used;

	if (size > sizeof(early) - early_used)
		abort();
	early_used += (size + 15) & ~(size_t)15;
	return p;
}

static bool is_early(const void *p)
{
	return (const char *)p >= early && (const char *)p < early + sizeof(early);
}

static void *resolve_one(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f)
		abort();
	return f;
}

/* The first call comes from the loader or begin(), before there are threads. */
static void resolve(void)
{
	if (next.posix_memalign)
		return;
	resolving = true;
	next.malloc = resolve_one("malloc");
	next.calloc = resolve_one("calloc");
	next.realloc = resolve_one("realloc");
	next.free = resolve_one("free");
	next.memalign = resolve_one("memalign");
	next.aligned_alloc = resolve_one("aligned_alloc");
	next.posix_memalign = resolve_one("posix_memalign");
	resolving = false;
	/* Registered first, called last before a fork: handlers of others may allocate. */
	pthread_atfork(take_lock, leave, child_begins);
}

/* --- Recording, under the lock ---------------------------------------------- */

/* The name is new each time: a process may have been the same program before an exec. */
static int create(const char *prefix)
{
	const char *program = program_invocation_short_name;
	char path[4096];

	for (int n = 0; n < 1000; n++) {
		snprintf(path, sizeof(path), "%s.%s.%d.%d.trace", prefix, program, (int)getpid(),
			 n);
		if (!trace_create(&out, path, program))
			return 0;
		if (errno != EEXIST)
			break;
	}
	return -1;
}

/* Not dprintf, nor strerror for what is wrong: they allocate, and this is under the lock. */
__attribute__((format(printf, 1, 2))) static void complain(const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	(void)!write(STDERR_FILENO, line, strlen(line));
}

static void start(void)
{
	const char *prefix = getenv("MICA_TRACE"), *calls = getenv("MICA_TRACE_CALLS");

	started = true;
	calls_left = UINT64_MAX;
	if (!prefix)
		return;
	if (calls && parse_number(calls, 0, UINT64_MAX, &calls_left))
		complain("record: MICA_TRACE_CALLS=%s: not a number, so there is no trace\n",
			 calls);
	else if (create(prefix))
		complain("record: MICA_TRACE=%s: %s, so there is no trace\n", prefix,
			 strerrordesc_np(errno));
}

/* The C library rounds an alignment up to a power of two. */
static unsigned int ceil_log2(size_t align)
{
	return align > 1 ? 64 - (unsigned int)__builtin_clzl(align - 1) : 0;
}

static void note(enum trace_kind kind, const void *old, const void *block, size_t size,
		 size_t align)
{
	int saved = errno, err;
	struct trace_event e = {
		.kind = kind,
		.align_log2 = ceil_log2(align),
		.old = (uintptr_t)old,
		.block = (uintptr_t)block,
		.size = size,
	};

	if (!started)
		start();
	if (!calls_left)
		trace_close(&out);
	else
		calls_left--;
	err = trace_append(&out, &e);
	if (err)
		complain("record: %s, process %d: %s, so the trace ends here\n",
			 program_invocation_short_name, (int)getpid(), strerrordesc_np(err));
	errno = saved;
}

static void enter(void)
{
	resolve();
	take_lock();
}

/* Records an allocation that was made under the lock, and gives up the lock. */
static void *noted(void *p, size_t size, size_t align)
{
	if (p)
		note(TRACE_ALLOC, NULL, p, size, align);
	leave();
	return p;
}

/* --- Start and end ---------------------------------------------------------- */

/* Linked with initfirst: so this runs before the constructors of libraries, which may register
 * handlers. (Where another object has that place, the first malloc may still come before them.) */
__attribute__((constructor)) static void begin(void)
{
	resolve();
}

/* Destructors that run later still allocate: what comes then is not recorded. */
__attribute__((destructor)) static void end(void)
{
	enter();
	trace_close(&out);
	leave();
}

/* --- The family ------------------------------------------------------------- */

EXPORT void *malloc(size_t size)
{
	if (resolving)
		return early_alloc(size);
	enter();
	return noted(next.malloc(size), size, 0);
}

EXPORT void *calloc(size_t n, size_t size)
{
	if (resolving)
		return early_alloc(n * size);
	enter();
	return noted(next.calloc(n, size), n * size, 0);
}

EXPORT void free(void *p)
{
	if (!p || is_early(p))
		return;
	enter();
	note(TRACE_FREE, NULL, p, 0, 0);
	next.free(p);
	leave();
}

/* How long the old block was is not known: what lies behind it does no harm. */
static void *early_realloc(const char *old, size_t size)
{
	size_t most = (size_t)(early + sizeof(early) - old);
	void *p = malloc(size);

	return p ? memcpy(p, old, size < most ? size : most) : NULL;
}

EXPORT void *realloc(void *old, size_t size)
{
	void *p;

	if (!old)
		return malloc(size);
	if (is_early(old))
		return early_realloc(old, size);
	enter();
	p = next.realloc(old, size);
	if (p)
		note(TRACE_REALLOC, old, p, size, 0);
	else if (!size)
		note(TRACE_FREE, NULL, old, 0, 0);
	leave();
	return p;
}

EXPORT void *memalign(size_t align, size_t size)
{
	enter();
	return noted(next.memalign(align, size), size, align);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	enter();
	return noted(next.aligned_alloc(align, size), size, align);
}

EXPORT int posix_memalign(void **p, size_t align, size_t size)
{
	int err;

	enter();
	err = next.posix_memalign(p, align, size);
	if (!err)
		note(TRACE_ALLOC, NULL, *p, size, align);
	leave();
	return err;
}

EXPORT void *valloc(size_t size)
{
	return memalign((size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORT void *pvalloc(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), rounded = (size + page - 1) & -page;

	if (rounded < size) {
		errno = ENOMEM;
		return NULL;
	}
	return memalign(page, rounded);
}

EXPORT void *reallocarray(void *old, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, bytes);
}
