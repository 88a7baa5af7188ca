/* SPDX-License-Identifier: MIT */
#include <mm/fault.h>
#include <mm/port.h>

const char MM_LIBRARY;

static struct mm_lock lock;
static struct mm_fault last;
static unsigned long count;
static bool expected;
static mm_fault_tracer tracer;
static mm_fault_hook hook;

static const char *const names[MM_FAULT_KINDS] = {
	[MM_FAULT_NONE] = "no fault",
	[MM_FAULT_DOUBLE_FREE] = "double free",
	[MM_FAULT_FOREIGN] = "foreign pointer",
	[MM_FAULT_MISALIGNED] = "misaligned pointer",
	[MM_FAULT_WRONG_LAYOUT] = "wrong layout",
	[MM_FAULT_OVERFLOW] = "write outside the block",
	[MM_FAULT_WRITE_AFTER_FREE] = "write after free",
	[MM_FAULT_CORRUPT] = "corrupt metadata",
};

const char *mm_fault_name(enum mm_fault_kind kind)
{
	return (unsigned int)kind < MM_FAULT_KINDS ? names[kind] : "unknown";
}

void mm_fault_set_tracer(mm_fault_tracer t)
{
	__atomic_store_n(&tracer, t, __ATOMIC_RELAXED);
}

void mm_fault_set_hook(mm_fault_hook h)
{
	__atomic_store_n(&hook, h, __ATOMIC_RELAXED);
}

static void log_fault(const struct mm_fault *f)
{
	mm_port_log(MM_LOG_ERROR, "%s: %s: %p (size %zu, align %zu) by %p", f->allocator,
		    mm_fault_name(f->kind), f->ptr, f->layout.size, f->layout.align, f->caller);
	if (f->block)
		mm_port_log(MM_LOG_ERROR, "%s: block %p of %zu bytes, allocated by %p, freed by %p",
			    f->allocator, f->block, f->block_size, f->allocated_by, f->freed_by);
}

void mm_fault_report(const struct mm_fault *fault)
{
	mm_fault_tracer trace = __atomic_load_n(&tracer, __ATOMIC_RELAXED);
	mm_fault_hook tell = __atomic_load_n(&hook, __ATOMIC_RELAXED);
	struct mm_fault f = *fault;
	unsigned long state;
	bool quiet;

	if (trace)
		trace(&f);
	state = mm_port_lock(&lock);
	quiet = expected;
	last = f;
	count++;
	mm_port_unlock(&lock, state);
	if (!quiet)
		log_fault(&f);
	if (tell)
		tell(&f);
}

unsigned long mm_fault_count(void)
{
	unsigned long state = mm_port_lock(&lock);
	unsigned long n = count;

	mm_port_unlock(&lock, state);
	return n;
}

struct mm_fault mm_fault_last(void)
{
	unsigned long state = mm_port_lock(&lock);
	struct mm_fault f = last;

	mm_port_unlock(&lock, state);
	return f;
}

void mm_fault_expect(bool on)
{
	unsigned long state = mm_port_lock(&lock);

	expected = on;
	mm_port_unlock(&lock, state);
}
