/* SPDX-License-Identifier: MIT */
/* What a host test may put in the place of the machine. NULL: memory is coherent, all succeeds. */
#ifndef MM_PORT_HOST_H
#define MM_PORT_HOST_H

#include <mm/port.h>

extern struct mm_port_host_hooks {
	int (*set_attr)(virt_addr_t va, size_t npages, enum mm_attr attr);
	int (*cache_flush)(virt_addr_t va, size_t nbytes);
	void (*log)(enum mm_log_level level); /* instead of a line on stderr */
} mm_port_host_hooks;

#endif
