/* SPDX-License-Identifier: MIT */
/*
 * The flattened device tree: a reader that allocates nothing and believes
 * nothing. fdt_open() checks the header and walks the whole blob once; when it
 * succeeds, every other function is safe whatever the blob says, provided that
 * nobody writes to it any more.
 *
 *	for (struct fdt_node n = fdt_root(fdt); n.fdt; fdt_next(&n))
 *		if (fdt_compatible(&n, "virtio,mmio"))
 *			...
 *
 * Functions that return int give 0 or a negative enum fdt_error. Strings and
 * values point into the blob and live as long as it does.
 */
#ifndef KERNEL_FDT_H
#define KERNEL_FDT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mm/types.h>

/* A tree nested deeper than this is refused. Real ones stay below 10. */
#define FDT_MAX_DEPTH 16u

/* The most cells one interrupt specifier may have. The GIC has 3 or 4. */
#define FDT_MAX_IRQ_CELLS 4u

/* Nodes whose phandle is remembered while the tree is checked. */
#define FDT_HINTS 256u

enum fdt_error {
	FDT_OK = 0,
	FDT_BAD_ALIGN = -1,	  /* the blob, or a block in it, is not aligned */
	FDT_BAD_MAGIC = -2,	  /* not a device tree at all */
	FDT_BAD_VERSION = -3,	  /* a version this reader does not know */
	FDT_TRUNCATED = -4,	  /* a block reaches beyond the blob */
	FDT_BAD_STRUCTURE = -5,	  /* unknown or misplaced token, or an unfinished one */
	FDT_BAD_STRING = -6,	  /* a property name outside the strings, or not terminated */
	FDT_TOO_DEEP = -7,	  /* more than FDT_MAX_DEPTH levels */
	FDT_NOT_FOUND = -8,	  /* no such node, property or entry */
	FDT_BAD_VALUE = -9,	  /* a property of the wrong size or out of range */
	FDT_NO_TRANSLATION = -10, /* a bus above the node does not map that address */
};

struct fdt {
	const uint8_t *blob;
	const uint8_t *tree; /* structure block */
	const char *names;   /* strings block, cut behind its last NUL */
	uint32_t size;	     /* of the whole blob */
	uint32_t tree_size;
	uint32_t names_size;
	uint32_t reserve;	   /* offset of the memory reservation block */
	uint32_t chosen;	   /* fdt_id() of /chosen, 0: none */
	uint32_t hints[FDT_HINTS]; /* phandle % FDT_HINTS -> fdt_id() of a node, 0: none */
};

/*
 * A node, with the way to it: path[i] is the offset of its ancestor at level i,
 * path[depth] its own; its properties start at `body`. fdt is NULL when there
 * is no such node.
 */
struct fdt_node {
	const struct fdt *fdt;
	uint32_t depth;
	uint32_t body;
	uint32_t path[FDT_MAX_DEPTH];
};

/* The value of a property; data is NULL when there is no such property. */
struct fdt_value {
	const uint8_t *data;
	uint32_t len;
};

/* A property while one walks them; all zero before the first. */
struct fdt_prop {
	const char *name;
	struct fdt_value value;
	uint32_t next;
};

/* One entry of `ranges`: child bus addresses that the CPU sees at `cpu`. */
struct fdt_range {
	uint32_t flags; /* first cell of a three-cell (PCI) address, else 0 */
	uint64_t child;
	phys_addr_t cpu;
	uint64_t size;
};

/* Memory that a device sees: bus address and CPU address of the same bytes. */
struct fdt_dma_window {
	bus_addr_t bus;
	phys_addr_t cpu;
	uint64_t size; /* UINT64_MAX: everything */
};

struct fdt_irq {
	uint32_t controller; /* fdt_id() of the interrupt controller */
	uint32_t ncells;
	uint32_t cells[FDT_MAX_IRQ_CELLS];
};

/* --- The tree as a whole --------------------------------------------------- */

/* Check a blob of which at most max_size bytes may be read. It is 8-byte aligned. */
int fdt_open(struct fdt *fdt, const void *blob, size_t max_size);

/* The same bytes are now visible at another address. Nodes stay good, strings do not. */
void fdt_relocate(struct fdt *fdt, const void *blob);

/* What went wrong, in words ("bad magic"). */
const char *fdt_error_text(int error);

/* Entry i of /memreserve/; false when there are no more. */
bool fdt_memreserve(const struct fdt *fdt, uint32_t i, phys_addr_t *base, uint64_t *size);

/* --- Walking --------------------------------------------------------------- */

struct fdt_node fdt_root(const struct fdt *fdt);

/* To the next node in document order, children first. At the end fdt becomes NULL. */
void fdt_next(struct fdt_node *n);

/* To the next child of the same parent; fdt becomes NULL after the last. */
void fdt_next_sibling(struct fdt_node *n);

struct fdt_node fdt_first_child(const struct fdt_node *n);

/* The root has none. */
struct fdt_node fdt_parent(const struct fdt_node *n);

/* The name with its unit address ("serial@10000000"). */
const char *fdt_name(const struct fdt_node *n);

/* The name without its unit address is `name`. */
bool fdt_name_is(const struct fdt_node *n, const char *name);

/* A number that identifies the node within its tree, and the way back (one walk). */
static inline uint32_t fdt_id(const struct fdt_node *n)
{
	return n->path[n->depth];
}

int fdt_by_id(const struct fdt *fdt, uint32_t id, struct fdt_node *out);

/* --- Finding --------------------------------------------------------------- */

/* "/soc/serial@10000000", "/soc/serial", or an alias: "serial0", "serial0/child". */
int fdt_find_path(const struct fdt *fdt, const char *path, struct fdt_node *out);

int fdt_by_phandle(const struct fdt *fdt, uint32_t phandle, struct fdt_node *out);

/* The first compatible node at or below the root, and the next one behind *n. */
int fdt_find_compatible(const struct fdt *fdt, const char *compatible, struct fdt_node *out);
void fdt_next_compatible(struct fdt_node *n, const char *compatible);

/* --- Properties ------------------------------------------------------------ */

struct fdt_value fdt_get(const struct fdt_node *n, const char *name);
bool fdt_has(const struct fdt_node *n, const char *name);
bool fdt_next_prop(const struct fdt_node *n, struct fdt_prop *p);

/* False, with *out untouched, when the property is missing or of another size. */
bool fdt_get_u32(const struct fdt_node *n, const char *name, uint32_t *out);
bool fdt_get_u64(const struct fdt_node *n, const char *name, uint64_t *out); /* 4 or 8 bytes */

/* String i of a list; NULL when missing or not terminated. */
const char *fdt_get_str(const struct fdt_node *n, const char *name, uint32_t i);

/* Cell i of a value that has at least i + 1. */
uint32_t fdt_cell(struct fdt_value v, uint32_t i);

/* The list of strings contains s. */
bool fdt_has_str(struct fdt_value list, const char *s);

bool fdt_compatible(const struct fdt_node *n, const char *compatible);

/* `status` is missing, "okay" or "ok", and so it is with the buses that the node is behind. */
bool fdt_enabled(const struct fdt_node *n);

/* --- Addresses ------------------------------------------------------------- */

/* Entry i of `reg` as the CPU sees it, through the `ranges` of every bus above. */
int fdt_reg(const struct fdt_node *n, uint32_t i, phys_addr_t *base, uint64_t *size);

/* Entry i of `reg` as the parent bus sees it. (The id of a CPU, for one.) */
int fdt_bus_reg(const struct fdt_node *n, uint32_t i, uint64_t *base, uint64_t *size);

/* The same for a property that is laid out like `reg`. */
int fdt_bus_reg_of(const struct fdt_node *n, const char *name, uint32_t i, uint64_t *base,
		   uint64_t *size);

/* Entry i of the `ranges` of a bus. */
int fdt_bus_range(const struct fdt_node *bus, uint32_t i, struct fdt_range *out);

/*
 * Window i through which a device reaches memory: the `dma-ranges` of the
 * nearest bus that has some, through those of the buses above it, which may let
 * less of it through: the start, and what follows in the same range. With none
 * anywhere there is one window, in which bus and CPU addresses are the same.
 */
int fdt_dma_window(const struct fdt_node *device, uint32_t i, struct fdt_dma_window *out);

/* `dma-coherent` or `dma-noncoherent` at the device or the nearest bus that says; else usual. */
bool fdt_dma_coherent(const struct fdt_node *device, bool usual);

/* --- Interrupts ------------------------------------------------------------ */

/*
 * Interrupt i of a device, from `interrupts-extended` or else `interrupts`, through the
 * `interrupt-map` of every nexus that is on the way to a controller.
 */
int fdt_irq(const struct fdt_node *n, uint32_t i, struct fdt_irq *out);

/*
 * The same for a device that the tree does not name, below a nexus: `unit` is
 * the device's address in the nexus' #address-cells (PCI: 3 cells, the first is
 * enough), `spec` its specifier (PCI: the pin, 1 to 4).
 */
int fdt_map_irq(const struct fdt_node *nexus, const uint32_t *unit, const uint32_t *spec,
		struct fdt_irq *out);

/* --- /chosen --------------------------------------------------------------- */

/* The command line; NULL when there is none. */
const char *fdt_bootargs(const struct fdt *fdt);

/* The console, and what stands behind the colon ("115200n8"), "" when nothing does. */
int fdt_stdout(const struct fdt *fdt, struct fdt_node *out, const char **options);

int fdt_initrd(const struct fdt *fdt, phys_addr_t *start, phys_addr_t *end);

#endif
