/* SPDX-License-Identifier: MIT */
#include <kernel/driver.h>

#include <arch/arch.h>
#include <lib/string.h>

#include "kernel.h"

extern const struct driver __start_drivers[], __stop_drivers[];

/*
 * The tree is walked once, for a walk is not cheap: the nodes that have a driver are
 * remembered. A machine with more of them than fit is walked again for each stage.
 */
#define MAX_FOUND 64u
#define NO_NODE	  UINT32_MAX /* the id of none */

static struct {
	const struct driver *driver;
	struct fdt_node node;
} found[MAX_FOUND];
static unsigned int nfound;
static bool scanned, all_found;

static const struct driver *driver_named(const char *compatible)
{
	for (const struct driver *d = __start_drivers; d < __stop_drivers; d++)
		for (const char *const *c = d->compatible; *c; c++)
			if (**c == *compatible && !strcmp(*c, compatible))
				return d;
	return NULL;
}

/* The most specific name comes first, and decides. */
static const struct driver *driver_of(const struct fdt_node *n)
{
	struct fdt_value list = fdt_get(n, "compatible");
	const struct driver *d = NULL;
	const char *end;

	for (; list.len && !d; list.data += end + 1 - (const char *)list.data) {
		end = memchr(list.data, '\0', list.len);
		if (!end)
			break;
		d = driver_named((const char *)list.data);
		list.len -= (uint32_t)(end + 1 - (const char *)list.data);
	}
	return d && fdt_enabled(n) ? d : NULL;
}

static void scan(const struct fdt *fdt)
{
	scanned = all_found = true;
	for (struct fdt_node n = fdt_root(fdt); n.fdt; fdt_next(&n)) {
		const struct driver *d = driver_of(&n);

		if (!d)
			continue;
		if (nfound == MAX_FOUND) {
			all_found = false;
			return;
		}
		found[nfound].driver = d;
		found[nfound++].node = n;
	}
}

static void probe_by_walk(const struct fdt *fdt, enum driver_stage stage, uint32_t but)
{
	for (struct fdt_node n = fdt_root(fdt); n.fdt; fdt_next(&n)) {
		const struct driver *d = driver_of(&n);

		if (d && d->stage == stage && fdt_id(&n) != but)
			d->probe(&n);
	}
}

/* All nodes of a stage but the one of that id. */
static void probe_others(const struct fdt *fdt, enum driver_stage stage, uint32_t but)
{
	if (!scanned)
		scan(fdt);
	if (!all_found) {
		probe_by_walk(fdt, stage, but);
		return;
	}
	for (unsigned int i = 0; i < nfound; i++)
		if (found[i].driver->stage == stage && fdt_id(&found[i].node) != but)
			found[i].driver->probe(&found[i].node);
}

void driver_probe_all(const struct fdt *fdt, enum driver_stage stage)
{
	probe_others(fdt, stage, NO_NODE);
}

void driver_probe_console(const struct fdt *fdt)
{
	const struct driver *d;
	struct fdt_node named;
	const char *options;
	uint32_t tried = NO_NODE;

	if (fdt_stdout(fdt, &named, &options) == 0) {
		d = driver_of(&named);
		tried = fdt_id(&named);
		if (d && d->stage == DRIVER_CONSOLE && d->probe(&named) == 0)
			return;
	}
	probe_others(fdt, DRIVER_CONSOLE, tried);
}

/* --- Device registers ------------------------------------------------------ */

/* What is mapped so far: neighbours in one page, as virtio slots are, share a mapping. */
#define IO_RECENT 8
static struct {
	uint64_t pa, size;
	uintptr_t va;
} recent[IO_RECENT];
static unsigned int next_recent;

/* Behind the window of the device tree (4 MiB); a guard page follows each mapping. */
static uintptr_t next_va = ARCH_VMAP_BASE + ((uintptr_t)16 << 20);

#define IO_BIG ((uint64_t)2 << 20)

volatile void *io_map(phys_addr_t addr, size_t nbytes)
{
	uint64_t mask = MM_PAGE_SIZE - 1;
	uint64_t offset = addr.value & mask, pa = addr.value - offset, size;
	uintptr_t va;

	if (!nbytes || addr.value + nbytes + mask < addr.value)
		return NULL;
	size = (offset + nbytes + mask) & ~mask;
	for (unsigned int i = 0; i < IO_RECENT; i++)
		if (recent[i].size && pa >= recent[i].pa &&
		    pa + size <= recent[i].pa + recent[i].size)
			return (volatile void *)(recent[i].va + (pa - recent[i].pa) + offset);
	va = next_va;
	if (size >= IO_BIG) /* alike modulo the block size, so that blocks can be used */
		va = ((va + IO_BIG - 1) & ~(IO_BIG - 1)) + (pa & (IO_BIG - 1));
	if (va > ARCH_KERNEL_BASE - MM_PAGE_SIZE || size > ARCH_KERNEL_BASE - va - MM_PAGE_SIZE ||
	    memory_map_at(va, pa, size, ARCH_PROT_R | ARCH_PROT_W, ARCH_MEM_DEVICE) < 0) {
		log_error("io_map: cannot map 0x%lx, %zu bytes", addr.value, nbytes);
		return NULL;
	}
	next_va = va + size + MM_PAGE_SIZE;
	recent[next_recent].pa = pa;
	recent[next_recent].size = size;
	recent[next_recent].va = va;
	next_recent = (next_recent + 1) % IO_RECENT;
	return (volatile void *)(va + offset);
}
