/* SPDX-License-Identifier: MIT */
/* What the log gets to see of a detected misuse, and what an allocation that may not fail does. */
#include <setjmp.h>
#include <string.h>

#include <mm/global.h>
#include <selftest/selftest.h>

#include "mm_port_host.h"

#define REGION ((size_t)1 << 20)

static unsigned int nlines;
static struct global_allocator global;

static void count_line(enum mm_log_level level)
{
	nlines += level == MM_LOG_ERROR;
}

static unsigned int lines_of(const struct mm_fault *fault)
{
	nlines = 0;
	mm_port_host_hooks.log = count_line;
	mm_fault_report(fault);
	mm_port_host_hooks.log = NULL;
	return nlines;
}

/* One line, and another one when the block is known; none while a test expects faults. */
SELFTEST(host, fault_lines)
{
	struct mm_fault fault = {.kind = MM_FAULT_FOREIGN, .allocator = "test"};
	unsigned long before = mm_fault_count();

	CHECK(lines_of(&fault) == 1);
	fault.block = &fault;
	CHECK(lines_of(&fault) == 2);
	mm_fault_expect(true);
	CHECK(!lines_of(&fault));
	mm_fault_expect(false);
	CHECK(mm_fault_count() == before + 3 && mm_fault_last().block == &fault);
}

SELFTEST(host, fault_names)
{
	for (enum mm_fault_kind kind = MM_FAULT_NONE; kind < MM_FAULT_KINDS; kind++)
		for (enum mm_fault_kind other = MM_FAULT_NONE; other < kind; other++)
			CHECK(strcmp(mm_fault_name(kind), mm_fault_name(other)));
	CHECK(!strcmp(mm_fault_name(MM_FAULT_KINDS), "unknown"));
}

static jmp_buf after_failure;
static struct layout failed;

static void note_failure(struct layout l)
{
	failed = l;
	longjmp(after_failure, 1);
}

/* The aborting forms come back with a block, or not at all. */
SELFTEST(host, failure_of_the_aborting_forms)
{
	struct layout l = {(size_t)1 << 50, 64};
	alloc_error_hook old = set_alloc_error_hook(note_failure);
	uint8_t *mem = selftest_memory(REGION);
	int volatile hooked = 0;

	memset(&global, 0, sizeof(global));
	global.heap.base.ops = &byte_tlsf_ops;
	CHECK(mem && global_allocator_init(&global, virt_addr(mem), REGION) == ALLOC_OK);
	if (setjmp(after_failure))
		hooked++;
	else
		(void)global_allocator_alloc_or_abort(&global, l);
	if (setjmp(after_failure))
		hooked++;
	else
		(void)global_alloc_or_abort(l);
	CHECK(set_alloc_error_hook(old) == note_failure);
	CHECK(hooked == 2 && failed.size == l.size && failed.align == l.align);
	CHECK(!global_allocator_used_bytes(&global) && !global_allocator_check(&global));
	memset(&global, 0, sizeof(global));
}
