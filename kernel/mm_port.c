/* SPDX-License-Identifier: MIT */
/* The part of the mm port that is not worth inlining. */
#include <kernel/log.h>
#include <lib/format.h>
#include <mm/port.h>

#include "kernel.h"

int mm_port_set_attr(virt_addr_t va, size_t npages, enum mm_attr attr)
{
	int e = memory_protect(va.value, npages * MM_PAGE_SIZE, ARCH_PROT_R | ARCH_PROT_W,
			       attr == MM_ATTR_NONCACHED ? ARCH_MEM_NONCACHED : ARCH_MEM_NORMAL);

	return e < 0 ? MM_ATTR_UNCHANGED : 0;
}

void mm_port_log(enum mm_log_level level, const char *fmt, ...)
{
	char line[160];
	va_list ap;

	va_start(ap, fmt);
	format_vbuf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (level == MM_LOG_ERROR)
		log_error("%s", line);
	else if (level == MM_LOG_WARN)
		log_warn("%s", line);
	else
		log_info("%s", line);
}
