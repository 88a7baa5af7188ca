/* SPDX-License-Identifier: MIT */
#include <mm/fault.h>
#include <mm/port.h>

static struct mm_lock lock;
static struct mm_fault last;
static unsigned long count;
static bool expected;

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

void mm_fault_report(const struct mm_fault *fault)
{
	unsigned long state = mm_port_lock(&lock);
	bool quiet = expected;

	last = *fault;
	count++;
	mm_port_unlock(&lock, state);
	if (quiet)
		return;
	mm_port_log(MM_LOG_ERROR, "%s: %s: %p (size %zu, align %zu) by %p", fault->allocator,
		    mm_fault_name(fault->kind), fault->ptr, fault->layout.size, fault->layout.align,
		    fault->caller);
	if (fault->allocated_by || fault->freed_by)
		mm_port_log(MM_LOG_ERROR, "%s: allocated by %p, freed by %p", fault->allocator,
			    fault->allocated_by, fault->freed_by);
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
