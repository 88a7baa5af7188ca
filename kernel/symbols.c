/* SPDX-License-Identifier: MIT */
/* The table is made by scripts/ksyms.py from the first link of the kernel. */
#include <kernel/symbols.h>

#include <arch/arch.h>
#include <kernel/log.h>

/* Of one function: where it starts, and where its name does. */
struct ksym {
	uint32_t text_offset, name_offset;
};

extern const uint64_t ksyms_count;
extern const struct ksym ksyms_table[];
extern const char ksyms_names[];
extern const char __text_start[], __text_end[];

const char *symbol_find(uint64_t pc, uint64_t *offset)
{
	uint64_t lo = 0, hi = ksyms_count, at;

	if (pc < (uintptr_t)__text_start || pc >= (uintptr_t)__text_end)
		return NULL;
	at = pc - (uintptr_t)__text_start;
	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (ksyms_table[mid].text_offset <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	*offset = at - ksyms_table[lo - 1].text_offset;
	return ksyms_names + ksyms_table[lo - 1].name_offset;
}

/* `behind` is 1 where pc is a return address: the call may be the last instruction of its function.
 */
static void print_frame(unsigned int i, uint64_t pc, uint64_t behind)
{
	uint64_t offset;
	const char *name = symbol_find(pc - behind, &offset);

	if (name)
		kprintf("  #%u 0x%lx %s+0x%lx\n", i, pc, name, offset + behind);
	else
		kprintf("  #%u 0x%lx\n", i, pc);
}

void backtrace_print(uint64_t pc, uint64_t frame_pointer)
{
	unsigned int i = 0;

	kprintf("Backtrace:\n");
	if (pc)
		print_frame(i++, pc, 0);
	while (i < 32 && arch_unwind(&frame_pointer, &pc))
		print_frame(i++, pc, 1);
}
