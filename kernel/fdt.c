/* SPDX-License-Identifier: MIT */
/*
 * Device tree reader.
 *
 * A blob has a header, a list of reserved memory, a structure block and a
 * block of strings that holds the names of properties. The structure block is
 * a sequence of 4-byte aligned tokens:
 *
 *	NODE name\0 pad  { PROP length name-offset value pad }  { nodes }  END_NODE
 *
 * with NOPs anywhere, and END behind the root. fdt_open() proves in one pass
 * that every token is whole and known, that nodes nest properly and that every
 * name is a terminated string. All later walks rely on that, which makes them
 * short: the kind of a token is then its last byte, and a step needs no bound.
 *
 * The format has no way from a node to its parent. So a node is a handle that
 * carries the offsets of all its ancestors, kept by the walk that found it;
 * addresses can then be translated through every bus above without a search.
 * The phandles met while the tree is checked are kept in a small table, which
 * is only a hint: what it gives is verified, and what it lacks is searched for.
 *
 * What is inside a value is not proven by fdt_open(); each accessor checks it.
 */
#include <kernel/fdt.h>
#include <lib/format.h>
#include <lib/string.h>

#define MAGIC	    0xd00dfeedu
#define OLDEST	    16u /* the first version whose nodes carry their short names */
#define NEWEST	    17u
#define HEADER_SIZE 40u
#define MAX_SIZE    ((uint32_t)INT32_MAX)

#define MAX_ADDR_CELLS 3u /* PCI */
#define MAX_SIZE_CELLS 2u

enum header_field {
	H_MAGIC = 0,
	H_SIZE = 4,
	H_TREE = 8,
	H_NAMES = 12,
	H_RESERVE = 16,
	H_VERSION = 20,
	H_COMPATIBLE = 24,
	H_NAMES_SIZE = 32,
	H_TREE_SIZE = 36,
};

enum token {
	T_NODE = 1,
	T_END_NODE = 2,
	T_PROP = 3,
	T_NOP = 4,
	T_END = 9,
};

#define TOKEN_SIZE  4u
#define PROP_HEADER 12u /* token, length, offset of the name */

/* All cells are aligned; said so, a CPU that can will read one in one go. */
static inline uint32_t be32(const uint8_t *cell)
{
	const uint8_t *p = __builtin_assume_aligned(cell, 4);

	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static inline uint32_t align4(uint32_t n)
{
	return (n + 3) & ~3u;
}

static inline bool same(const char *a, const char *b)
{
	return *a == *b && strcmp(a, b) == 0;
}

/* --- Checking a blob ------------------------------------------------------- */

static inline bool block_fits(const struct fdt *fdt, uint32_t start, uint32_t size)
{
	return start >= HEADER_SIZE && start <= fdt->size && size <= fdt->size - start;
}

static int check_header(struct fdt *fdt, size_t max_size)
{
	const uint8_t *h = fdt->blob;

	if ((uintptr_t)h & 7)
		return FDT_BAD_ALIGN;
	if (max_size < HEADER_SIZE)
		return FDT_TRUNCATED;
	if (be32(h + H_MAGIC) != MAGIC)
		return FDT_BAD_MAGIC;
	if (be32(h + H_VERSION) < OLDEST || be32(h + H_COMPATIBLE) > NEWEST ||
	    be32(h + H_VERSION) < be32(h + H_COMPATIBLE))
		return FDT_BAD_VERSION;
	fdt->size = be32(h + H_SIZE);
	if (fdt->size < HEADER_SIZE || fdt->size > max_size || fdt->size > MAX_SIZE)
		return FDT_TRUNCATED;
	return FDT_OK;
}

static int check_blocks(struct fdt *fdt)
{
	const uint8_t *h = fdt->blob;
	uint32_t tree = be32(h + H_TREE), names = be32(h + H_NAMES);

	fdt->names_size = be32(h + H_NAMES_SIZE);
	fdt->tree_size = be32(h + H_TREE_SIZE);
	/* Version 16 has no size of the tree: it may go on to the end of the blob. */
	if (be32(h + H_VERSION) < 17)
		fdt->tree_size = tree < fdt->size ? fdt->size - tree : 0;
	if (!block_fits(fdt, tree, fdt->tree_size) || !block_fits(fdt, names, fdt->names_size))
		return FDT_TRUNCATED;
	if (tree & 3)
		return FDT_BAD_ALIGN;
	fdt->tree = h + tree;
	fdt->names = (const char *)h + names;
	/* Tokens are aligned, so a ragged end can hold nothing but part of one. */
	fdt->tree_size &= ~3u;
	/* A name that starts in front of the last NUL ends there at the latest. */
	while (fdt->names_size && fdt->names[fdt->names_size - 1])
		fdt->names_size--;
	return FDT_OK;
}

/* The list of reserved memory ends, within the blob, in an entry of size 0. */
static int check_reserve(struct fdt *fdt)
{
	uint32_t at = be32(fdt->blob + H_RESERVE);

	if (at & 7)
		return FDT_BAD_ALIGN;
	fdt->reserve = at;
	for (; block_fits(fdt, at, 16); at += 16)
		if (!be64(fdt->blob + at + 8))
			return FDT_OK;
	return FDT_TRUNCATED;
}

/* The offset behind the NODE token at `at` and its name, or an error. */
static int32_t check_node(const struct fdt *fdt, uint32_t at)
{
	for (at += TOKEN_SIZE; at < fdt->tree_size; at++)
		if (!fdt->tree[at])
			return (int32_t)align4(at + 1);
	return FDT_BAD_STRUCTURE;
}

/* The offset behind the property at `at`, or an error. */
static int32_t check_prop(const struct fdt *fdt, uint32_t at)
{
	uint32_t left = fdt->tree_size - at, len;

	if (left < PROP_HEADER)
		return FDT_BAD_STRUCTURE;
	len = be32(fdt->tree + at + 4);
	if (len > left - PROP_HEADER)
		return FDT_BAD_STRUCTURE;
	if (be32(fdt->tree + at + 8) >= fdt->names_size)
		return FDT_BAD_STRING;
	return (int32_t)(at + PROP_HEADER + align4(len));
}

static inline const char *prop_name(const struct fdt *fdt, uint32_t at)
{
	return fdt->names + be32(fdt->tree + at + 8);
}

static inline uint32_t prop_len(const struct fdt *fdt, uint32_t at)
{
	return be32(fdt->tree + at + 4);
}

/* Remember which node has this phandle, unless another one has its place. */
static void note_phandle(struct fdt *fdt, uint32_t node, uint32_t at)
{
	const char *name = prop_name(fdt, at);
	uint32_t *hint;

	if (prop_len(fdt, at) != 4 || (!same(name, "phandle") && !same(name, "linux,phandle")))
		return;
	hint = &fdt->hints[be32(fdt->tree + at + PROP_HEADER) % FDT_HINTS];
	if (!*hint)
		*hint = node;
}

/* Remember /chosen, which boot asks for several times; as a path finds it, with or without a unit.
 */
static void note_chosen(struct fdt *fdt, uint32_t node)
{
	const char *name = (const char *)fdt->tree + node + TOKEN_SIZE;

	if (!fdt->chosen && !strncmp(name, "chosen", 6) && (!name[6] || name[6] == '@'))
		fdt->chosen = node;
}

/* NOPs, one root, NOPs, END: what lies outside the root. */
static int check_outside(const struct fdt *fdt, uint32_t at, enum token last)
{
	for (; at + TOKEN_SIZE <= fdt->tree_size; at += TOKEN_SIZE) {
		uint32_t token = be32(fdt->tree + at);

		if (token == (uint32_t)last)
			return (int)at;
		if (token != T_NOP)
			break;
	}
	return FDT_BAD_STRUCTURE;
}

/* Check the root and all that is in it. Returns the offset behind, or an error. */
static int32_t check_tree(struct fdt *fdt, uint32_t root)
{
	uint32_t at = root, node = root, depth = 0;

	while (at < fdt->tree_size) {
		int32_t next = (int32_t)(at + TOKEN_SIZE);

		switch (be32(fdt->tree + at)) {
		case T_NODE:
			if (depth++ == FDT_MAX_DEPTH)
				return FDT_TOO_DEEP;
			node = at;
			next = check_node(fdt, at);
			if (next > 0 && depth == 2)
				note_chosen(fdt, at);
			break;
		case T_PROP:
			next = check_prop(fdt, at);
			if (next > 0)
				note_phandle(fdt, node, at);
			break;
		case T_END_NODE:
			if (!--depth)
				return next;
			break;
		case T_NOP:
			break;
		default:
			return FDT_BAD_STRUCTURE;
		}
		if (next < 0)
			return next;
		at = (uint32_t)next;
	}
	return FDT_BAD_STRUCTURE;
}

/* After this the structure block starts at its root. */
static int check_structure(struct fdt *fdt)
{
	int32_t at = check_outside(fdt, 0, T_NODE);

	if (at < 0)
		return at;
	fdt->tree += at;
	fdt->tree_size -= (uint32_t)at;
	at = check_tree(fdt, 0);
	if (at >= 0)
		at = check_outside(fdt, (uint32_t)at, T_END);
	return at < 0 ? at : FDT_OK;
}

int fdt_open(struct fdt *fdt, const void *blob, size_t max_size)
{
	int err;

	memset(fdt, 0, sizeof(*fdt));
	fdt->blob = blob;
	err = check_header(fdt, max_size);
	if (!err)
		err = check_blocks(fdt);
	if (!err)
		err = check_reserve(fdt);
	if (!err)
		err = check_structure(fdt);
	return err;
}

void fdt_relocate(struct fdt *fdt, const void *blob)
{
	const uint8_t *to = blob;

	fdt->tree = to + (fdt->tree - fdt->blob);
	fdt->names = (const char *)to + ((const uint8_t *)fdt->names - fdt->blob);
	fdt->blob = to;
}

const char *fdt_error_text(int error)
{
	static const char *const text[] = {
		[-FDT_OK] = "no error",
		[-FDT_BAD_ALIGN] = "misaligned",
		[-FDT_BAD_MAGIC] = "bad magic",
		[-FDT_BAD_VERSION] = "unsupported version",
		[-FDT_TRUNCATED] = "truncated",
		[-FDT_BAD_STRUCTURE] = "bad structure",
		[-FDT_BAD_STRING] = "bad property name",
		[-FDT_TOO_DEEP] = "nested too deeply",
		[-FDT_NOT_FOUND] = "not found",
		[-FDT_BAD_VALUE] = "bad value",
		[-FDT_NO_TRANSLATION] = "address not translatable",
	};

	if (error > 0 || error < FDT_NO_TRANSLATION)
		return "unknown error";
	return text[-error];
}

bool fdt_memreserve(const struct fdt *fdt, uint32_t i, phys_addr_t *base, uint64_t *size)
{
	const uint8_t *entry = fdt->blob + fdt->reserve;

	/* Entry by entry: the list ends where fdt_open() found its end. */
	for (; be64(entry + 8); entry += 16) {
		if (i--)
			continue;
		*base = (phys_addr_t){be64(entry)};
		*size = be64(entry + 8);
		return true;
	}
	return false;
}

/* --- Walking --------------------------------------------------------------- */

static inline uint32_t token_at(const struct fdt *fdt, uint32_t at)
{
	return fdt->tree[at + 3];
}

static inline const char *name_at(const struct fdt *fdt, uint32_t node)
{
	return (const char *)fdt->tree + node + TOKEN_SIZE;
}

/* Where the properties of a node start. */
static inline uint32_t body_of(const struct fdt *fdt, uint32_t node)
{
	uint32_t at = node + TOKEN_SIZE;

	while (fdt->tree[at])
		at++;
	return align4(at + 1);
}

static inline uint32_t after_prop(const struct fdt *fdt, uint32_t at)
{
	return at + PROP_HEADER + align4(prop_len(fdt, at));
}

struct fdt_node fdt_root(const struct fdt *fdt)
{
	return (struct fdt_node){.fdt = fdt, .body = body_of(fdt, 0)};
}

void fdt_next(struct fdt_node *n)
{
	const struct fdt *fdt = n->fdt;
	uint32_t at = n->body, depth = n->depth;

	for (;;) {
		switch (token_at(fdt, at)) {
		case T_PROP:
			at = after_prop(fdt, at);
			break;
		case T_NODE:
			n->depth = depth + 1;
			n->path[n->depth] = at;
			n->body = body_of(fdt, at);
			return;
		case T_END_NODE:
			if (!depth--) {
				n->fdt = NULL;
				return;
			}
			at += TOKEN_SIZE;
			break;
		default:
			at += TOKEN_SIZE;
		}
	}
}

void fdt_next_sibling(struct fdt_node *n)
{
	uint32_t depth = n->depth;

	do
		fdt_next(n);
	while (n->fdt && n->depth > depth);
	if (n->depth < depth)
		n->fdt = NULL;
}

struct fdt_node fdt_first_child(const struct fdt_node *n)
{
	struct fdt_node child = *n;

	fdt_next(&child);
	if (child.depth <= n->depth)
		child.fdt = NULL;
	return child;
}

/* A node that is not the root becomes its parent. */
static inline void to_parent(struct fdt_node *n)
{
	n->depth--;
	n->body = body_of(n->fdt, fdt_id(n));
}

struct fdt_node fdt_parent(const struct fdt_node *n)
{
	struct fdt_node parent = *n;

	if (n->depth)
		to_parent(&parent);
	else
		parent.fdt = NULL;
	return parent;
}

const char *fdt_name(const struct fdt_node *n)
{
	return name_at(n->fdt, fdt_id(n));
}

bool fdt_name_is(const struct fdt_node *n, const char *name)
{
	const char *own = fdt_name(n);

	for (; *name; own++, name++)
		if (*own != *name)
			return false;
	return !*own || *own == '@';
}

int fdt_by_id(const struct fdt *fdt, uint32_t id, struct fdt_node *out)
{
	struct fdt_node n = fdt_root(fdt);

	while (n.fdt && fdt_id(&n) < id)
		fdt_next(&n);
	if (!n.fdt || fdt_id(&n) != id)
		return FDT_NOT_FOUND;
	*out = n;
	return FDT_OK;
}

/* --- Properties ------------------------------------------------------------ */

/* The property at or behind `at`, past NOPs; false at the first child or the end of the node. */
static inline bool prop_at(const struct fdt *fdt, uint32_t *at)
{
	while (token_at(fdt, *at) == T_NOP)
		*at += TOKEN_SIZE;
	return token_at(fdt, *at) == T_PROP;
}

static inline struct fdt_value value_at(const struct fdt *fdt, uint32_t at)
{
	return (struct fdt_value){fdt->tree + at + PROP_HEADER, prop_len(fdt, at)};
}

static struct fdt_value get_from(const struct fdt *fdt, uint32_t body, const char *name)
{
	for (uint32_t at = body; prop_at(fdt, &at); at = after_prop(fdt, at))
		if (same(prop_name(fdt, at), name))
			return value_at(fdt, at);
	return (struct fdt_value){NULL, 0};
}

/* By offset, for ancestors and what a phandle points to. */
static struct fdt_value get_at(const struct fdt *fdt, uint32_t node, const char *name)
{
	return get_from(fdt, body_of(fdt, node), name);
}

struct fdt_value fdt_get(const struct fdt_node *n, const char *name)
{
	return get_from(n->fdt, n->body, name);
}

bool fdt_has(const struct fdt_node *n, const char *name)
{
	return fdt_get(n, name).data;
}

bool fdt_next_prop(const struct fdt_node *n, struct fdt_prop *p)
{
	uint32_t at = p->next ? p->next : n->body;

	if (!prop_at(n->fdt, &at))
		return false;
	p->name = prop_name(n->fdt, at);
	p->value = value_at(n->fdt, at);
	p->next = after_prop(n->fdt, at);
	return true;
}

uint32_t fdt_cell(struct fdt_value v, uint32_t i)
{
	return be32(v.data + (size_t)i * 4);
}

bool fdt_get_u32(const struct fdt_node *n, const char *name, uint32_t *out)
{
	struct fdt_value v = fdt_get(n, name);

	if (!v.data || v.len != 4)
		return false;
	*out = be32(v.data);
	return true;
}

bool fdt_get_u64(const struct fdt_node *n, const char *name, uint64_t *out)
{
	struct fdt_value v = fdt_get(n, name);

	if (!v.data || (v.len != 4 && v.len != 8))
		return false;
	*out = v.len == 4 ? be32(v.data) : be64(v.data);
	return true;
}

/* The string at the front of a list, which is then cut off; NULL when there is no whole one. */
static const char *take_str(struct fdt_value *list)
{
	const uint8_t *s = list->data;

	for (uint32_t i = 0; i < list->len; i++) {
		if (s[i])
			continue;
		list->data += i + 1;
		list->len -= i + 1;
		return (const char *)s;
	}
	return NULL;
}

const char *fdt_get_str(const struct fdt_node *n, const char *name, uint32_t i)
{
	struct fdt_value list = fdt_get(n, name);
	const char *s;

	do
		s = take_str(&list);
	while (s && i--);
	return s;
}

bool fdt_has_str(struct fdt_value list, const char *s)
{
	return strlist_index((const char *)list.data, list.len, s) >= 0;
}

bool fdt_compatible(const struct fdt_node *n, const char *compatible)
{
	return fdt_has_str(fdt_get(n, "compatible"), compatible);
}

static bool has_good_status(const struct fdt_node *n)
{
	const char *status;

	if (!fdt_has(n, "status"))
		return true;
	status = fdt_get_str(n, "status", 0);
	return status && (same(status, "okay") || same(status, "ok"));
}

bool fdt_enabled(const struct fdt_node *n)
{
	struct fdt_node at = *n;

	while (has_good_status(&at)) {
		if (at.depth <= 1)
			return true;
		to_parent(&at);
	}
	return false;
}

/* --- Finding --------------------------------------------------------------- */

/* The name fits this component of a path; without a unit address in it, any will do. */
static bool fits(const char *name, const char *part, size_t len)
{
	if (strncmp(name, part, len) != 0)
		return false;
	if (!name[len])
		return true;
	return name[len] == '@' && !memchr(part, '@', len);
}

static size_t part_len(const char *path, size_t len)
{
	size_t n = 0;

	while (n < len && path[n] != '/')
		n++;
	return n;
}

/* Follow a path, of which every component is a child of the one before, from *n down. */
static int descend(struct fdt_node n, const char *path, size_t len, struct fdt_node *out)
{
	while (len) {
		size_t part = part_len(path, len);

		if (part) {
			n = fdt_first_child(&n);
			while (n.fdt && !fits(fdt_name(&n), path, part))
				fdt_next_sibling(&n);
			if (!n.fdt)
				return FDT_NOT_FOUND;
		}
		part += part < len;
		path += part;
		len -= part;
	}
	*out = n;
	return FDT_OK;
}

/* The absolute path that an alias stands for; NULL when it stands for none. */
static const char *alias_path(const struct fdt *fdt, const char *alias, size_t len)
{
	struct fdt_node aliases;
	struct fdt_prop p = {0};

	if (descend(fdt_root(fdt), "aliases", 7, &aliases))
		return NULL;
	while (fdt_next_prop(&aliases, &p))
		if (!strncmp(p.name, alias, len) && !p.name[len]) {
			const char *path = take_str(&p.value);

			return path && *path == '/' ? path : NULL;
		}
	return NULL;
}

static int find_path(const struct fdt *fdt, const char *path, size_t len, struct fdt_node *out)
{
	struct fdt_node n = fdt_root(fdt);
	size_t part = part_len(path, len);
	int err = FDT_OK;

	if (part) {
		const char *target = alias_path(fdt, path, part);

		if (!target)
			return FDT_NOT_FOUND;
		err = descend(n, target, strlen(target), &n);
	}
	if (!err)
		err = descend(n, path + part, len - part, out);
	return err;
}

int fdt_find_path(const struct fdt *fdt, const char *path, struct fdt_node *out)
{
	return *path ? find_path(fdt, path, strlen(path), out) : FDT_NOT_FOUND;
}

/* The phandle of a node, 0 when it has none. */
static uint32_t phandle_at(const struct fdt *fdt, uint32_t node)
{
	struct fdt_value v = get_at(fdt, node, "phandle");

	if (v.len != 4)
		v = get_at(fdt, node, "linux,phandle");
	return v.len == 4 ? be32(v.data) : 0;
}

static int id_by_phandle(const struct fdt *fdt, uint32_t phandle, uint32_t *id)
{
	uint32_t hint = fdt->hints[phandle % FDT_HINTS];

	/* 0 and all ones are no phandles. */
	if (!phandle || phandle == UINT32_MAX)
		return FDT_NOT_FOUND;
	*id = hint;
	if (hint && phandle_at(fdt, hint) == phandle)
		return FDT_OK;
	for (struct fdt_node n = fdt_root(fdt); n.fdt; fdt_next(&n)) {
		*id = fdt_id(&n);
		if (phandle_at(fdt, *id) == phandle)
			return FDT_OK;
	}
	return FDT_NOT_FOUND;
}

int fdt_by_phandle(const struct fdt *fdt, uint32_t phandle, struct fdt_node *out)
{
	uint32_t id;
	int err = id_by_phandle(fdt, phandle, &id);

	return err ? err : fdt_by_id(fdt, id, out);
}

void fdt_next_compatible(struct fdt_node *n, const char *compatible)
{
	do
		fdt_next(n);
	while (n->fdt && !fdt_compatible(n, compatible));
}

int fdt_find_compatible(const struct fdt *fdt, const char *compatible, struct fdt_node *out)
{
	struct fdt_node n = fdt_root(fdt);

	if (!fdt_compatible(&n, compatible))
		fdt_next_compatible(&n, compatible);
	if (!n.fdt)
		return FDT_NOT_FOUND;
	*out = n;
	return FDT_OK;
}

/* --- Addresses ------------------------------------------------------------- */

/* How many cells the children of a bus use. */
struct bus_cells {
	uint32_t addr;
	uint32_t size;
};

static bool cells_at(const struct fdt *fdt, uint32_t node, const char *name, uint32_t usual,
		     uint32_t *out)
{
	struct fdt_value v = get_at(fdt, node, name);

	*out = usual;
	if (!v.data)
		return true;
	if (v.len != 4)
		return false;
	*out = be32(v.data);
	return true;
}

static int bus_cells(const struct fdt *fdt, uint32_t bus, struct bus_cells *out)
{
	/* The defaults are those of the specification. */
	if (!cells_at(fdt, bus, "#address-cells", 2, &out->addr) ||
	    !cells_at(fdt, bus, "#size-cells", 1, &out->size))
		return FDT_BAD_VALUE;
	if (!out->addr || out->addr > MAX_ADDR_CELLS || out->size > MAX_SIZE_CELLS)
		return FDT_BAD_VALUE;
	return FDT_OK;
}

/* A number of n cells. Of three, the first is the space of a PCI address, not part of it. */
static uint64_t read_cells(const uint8_t *p, uint32_t n)
{
	if (!n)
		return 0;
	return n == 1 ? be32(p) : be64(p + (size_t)(n - 2) * 4);
}

/* Entry i of a table; NULL when it is not all there. */
static const uint8_t *entry(struct fdt_value v, uint32_t i, uint32_t cells)
{
	uint64_t start = (uint64_t)i * cells * 4;

	return v.data && start + cells * 4 <= v.len ? v.data + start : NULL;
}

int fdt_bus_reg_of(const struct fdt_node *n, const char *name, uint32_t i, uint64_t *base,
		   uint64_t *size)
{
	struct bus_cells c;
	const uint8_t *e;
	int err;

	if (!n->depth)
		return FDT_NOT_FOUND;
	err = bus_cells(n->fdt, n->path[n->depth - 1], &c);
	if (err)
		return err;
	e = entry(fdt_get(n, name), i, c.addr + c.size);
	if (!e)
		return FDT_NOT_FOUND;
	*base = read_cells(e, c.addr);
	*size = read_cells(e + (size_t)c.addr * 4, c.size);
	return FDT_OK;
}

int fdt_bus_reg(const struct fdt_node *n, uint32_t i, uint64_t *base, uint64_t *size)
{
	return fdt_bus_reg_of(n, "reg", i, base, size);
}

/* Entry i of `ranges` or `dma-ranges`, one level up: out->cpu is an address of the parent. */
static int range_at(const struct fdt_node *bus, struct fdt_value v, uint32_t i,
		    struct fdt_range *out)
{
	struct bus_cells child, parent;
	const uint8_t *e;

	if (!bus->depth)
		return FDT_NOT_FOUND;
	if (bus_cells(bus->fdt, fdt_id(bus), &child) ||
	    bus_cells(bus->fdt, bus->path[bus->depth - 1], &parent))
		return FDT_BAD_VALUE;
	e = entry(v, i, child.addr + parent.addr + child.size);
	if (!e)
		return FDT_NOT_FOUND;
	out->flags = child.addr == 3 ? be32(e) : 0;
	out->child = read_cells(e, child.addr);
	e += (size_t)child.addr * 4;
	out->cpu = (phys_addr_t){read_cells(e, parent.addr)};
	e += (size_t)parent.addr * 4;
	out->size = read_cells(e, child.size);
	return FDT_OK;
}

static inline bool wraps(uint64_t base, uint64_t size)
{
	return size && base + (size - 1) < base;
}

/*
 * One level up, through the table v of `bus`; *size is cut to what lies in the range that the
 * address is in. An empty table says that nothing changes.
 */
static int translate_once(const struct fdt_node *bus, struct fdt_value v, uint64_t *addr,
			  uint64_t *size)
{
	struct fdt_range r;
	int err;

	if (!v.len)
		return FDT_OK;
	for (uint32_t i = 0; !(err = range_at(bus, v, i, &r)); i++) {
		if (*addr < r.child || *addr - r.child >= r.size)
			continue;
		if (wraps(r.cpu.value, r.size))
			return FDT_BAD_VALUE;
		if (*size > r.size - (*addr - r.child))
			*size = r.size - (*addr - r.child);
		*addr = *addr - r.child + r.cpu.value;
		return FDT_OK;
	}
	return err == FDT_NOT_FOUND ? FDT_NO_TRANSLATION : err;
}

/* An address on `bus` becomes one of the CPU, *size is cut. The root is where the CPU is. */
static int translate(struct fdt_node bus, const char *table, bool required, uint64_t *addr,
		     uint64_t *size)
{
	for (; bus.depth; to_parent(&bus)) {
		struct fdt_value v = fdt_get(&bus, table);
		int err;

		if (!v.data && required)
			return FDT_NO_TRANSLATION;
		err = translate_once(&bus, v, addr, size);
		if (err)
			return err;
	}
	return FDT_OK;
}

/* Of registers, none may be cut off. */
static int translate_whole(struct fdt_node bus, uint64_t *addr, uint64_t size)
{
	uint64_t left = size;
	int err = translate(bus, "ranges", true, addr, &left);

	return !err && left < size ? FDT_NO_TRANSLATION : err;
}

int fdt_reg(const struct fdt_node *n, uint32_t i, phys_addr_t *base, uint64_t *size)
{
	uint64_t addr, len;
	int err = fdt_bus_reg(n, i, &addr, &len);

	if (err)
		return err;
	if (wraps(addr, len))
		return FDT_BAD_VALUE;
	err = translate_whole(fdt_parent(n), &addr, len);
	if (err)
		return err;
	*base = (phys_addr_t){addr};
	*size = len;
	return wraps(addr, len) ? FDT_BAD_VALUE : FDT_OK;
}

int fdt_bus_range(const struct fdt_node *bus, uint32_t i, struct fdt_range *out)
{
	int err = range_at(bus, fdt_get(bus, "ranges"), i, out);

	return err ? err : translate_whole(fdt_parent(bus), &out->cpu.value, out->size);
}

int fdt_dma_window(const struct fdt_node *device, uint32_t i, struct fdt_dma_window *out)
{
	struct fdt_node bus = *device;
	struct fdt_value v = {NULL, 0};
	struct fdt_range r;
	int err;

	while (bus.depth && !v.len) {
		to_parent(&bus);
		v = fdt_get(&bus, "dma-ranges");
	}
	if (!bus.depth) {
		*out = (struct fdt_dma_window){{0}, {0}, UINT64_MAX};
		return i ? FDT_NOT_FOUND : FDT_OK;
	}
	err = range_at(&bus, v, i, &r);
	if (err)
		return err;
	if (wraps(r.child, r.size) || wraps(r.cpu.value, r.size))
		return FDT_BAD_VALUE;
	err = translate(fdt_parent(&bus), "dma-ranges", false, &r.cpu.value, &r.size);
	if (err)
		return err;
	*out = (struct fdt_dma_window){{r.child}, r.cpu, r.size};
	return FDT_OK;
}

bool fdt_dma_coherent(const struct fdt_node *device, bool usual)
{
	for (struct fdt_node n = *device; n.fdt; n = fdt_parent(&n)) {
		if (fdt_has(&n, "dma-coherent"))
			return true;
		if (fdt_has(&n, "dma-noncoherent"))
			return false;
	}
	return usual;
}

/* --- Interrupts ------------------------------------------------------------ */

static bool irq_cells(const struct fdt *fdt, uint32_t controller, uint32_t *out)
{
	return cells_at(fdt, controller, "#interrupt-cells", 0, out) && *out &&
	       *out <= FDT_MAX_IRQ_CELLS;
}

static void read_irq(const uint8_t *cells, uint32_t n, uint32_t controller, struct fdt_irq *out)
{
	out->controller = controller;
	out->ncells = n;
	for (uint32_t i = 0; i < n; i++)
		out->cells[i] = be32(cells + (size_t)i * 4);
}

/* The controller that one level of the tree names: `interrupt-parent`, or else the parent node. */
static int irq_parent_step(const struct fdt_node *n, uint32_t *id)
{
	uint32_t phandle;

	if (fdt_get_u32(n, "interrupt-parent", &phandle))
		return id_by_phandle(n->fdt, phandle, id);
	if (!n->depth)
		return FDT_NOT_FOUND;
	*id = n->path[n->depth - 1];
	return FDT_OK;
}

/* The nearest node above in the interrupt tree that takes interrupts. */
static int irq_parent(const struct fdt_node *n, uint32_t *id, uint32_t *cells)
{
	struct fdt_node at = *n;

	/* A chain longer than any tree is deep goes in a circle. */
	for (uint32_t hops = 0; hops < FDT_MAX_DEPTH; hops++) {
		int err = irq_parent_step(&at, id);

		if (err)
			return err;
		if (irq_cells(n->fdt, *id, cells))
			return FDT_OK;
		if (get_at(n->fdt, *id, "#interrupt-cells").data)
			return FDT_BAD_VALUE;
		if (at.depth && *id == at.path[at.depth - 1])
			to_parent(&at);
		else
			fdt_by_id(n->fdt, *id, &at);
	}
	return FDT_BAD_VALUE;
}

/* A phandle, then as many cells as that controller wants, again and again. */
static int extended_irq(const struct fdt *fdt, struct fdt_value v, uint32_t i, struct fdt_irq *out)
{
	while (v.len >= 4) {
		uint32_t id, cells, len;

		if (id_by_phandle(fdt, be32(v.data), &id) || !irq_cells(fdt, id, &cells))
			return FDT_BAD_VALUE;
		len = 4 + cells * 4;
		if (len > v.len)
			return FDT_BAD_VALUE;
		if (!i--) {
			read_irq(v.data + 4, cells, id, out);
			return FDT_OK;
		}
		v.data += len;
		v.len -= len;
	}
	return FDT_NOT_FOUND;
}

/* The first n cells of a map entry fit what is asked for, as far as the mask lets one see. */
static bool irq_matches(const uint8_t *map, struct fdt_value mask, uint32_t skip,
			const uint32_t *want, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t m = mask.len >= (skip + i + 1) * 4 ? fdt_cell(mask, skip + i) : UINT32_MAX;

		if ((be32(map + (size_t)(skip + i) * 4) ^ want[i]) & m)
			return false;
	}
	return true;
}

/* An interrupt on its way up: which one of `irq.controller`, and the address of who asks there. */
struct irq_path {
	uint32_t unit[MAX_ADDR_CELLS];
	struct fdt_irq irq;
};

/* Cells of an interrupt map that stand for an address; a missing number means `usual`. */
static bool unit_cells(const struct fdt *fdt, uint32_t node, uint32_t usual, uint32_t *out)
{
	return cells_at(fdt, node, "#address-cells", usual, out) && *out <= MAX_ADDR_CELLS;
}

static void take_mapped(struct irq_path *p, const uint8_t *cells, uint32_t naddr, uint32_t nirq,
			uint32_t controller)
{
	memset(p->unit, 0, sizeof(p->unit));
	for (uint32_t i = 0; i < naddr; i++)
		p->unit[i] = be32(cells + (size_t)i * 4);
	read_irq(cells + (size_t)naddr * 4, nirq, controller, &p->irq);
}

/* Through one nexus, p->irq.controller: p becomes what the map makes of it. */
static int map_once(const struct fdt *fdt, struct irq_path *p)
{
	uint32_t nexus = p->irq.controller, id, addr, in, up, up_addr;
	struct fdt_value map = get_at(fdt, nexus, "interrupt-map");
	struct fdt_value mask = get_at(fdt, nexus, "interrupt-map-mask");

	if (!unit_cells(fdt, nexus, 2, &addr) || !irq_cells(fdt, nexus, &in))
		return FDT_BAD_VALUE;
	while (map.len >= (addr + in + 1) * 4) {
		uint32_t len = (addr + in + 1) * 4;

		if (id_by_phandle(fdt, fdt_cell(map, addr + in), &id) || !irq_cells(fdt, id, &up))
			return FDT_BAD_VALUE;
		/* Here, unlike in a `reg`, a missing #address-cells means none. */
		if (!unit_cells(fdt, id, 0, &up_addr) || map.len - len < (up_addr + up) * 4)
			return FDT_BAD_VALUE;
		if (irq_matches(map.data, mask, 0, p->unit, addr) &&
		    irq_matches(map.data, mask, addr, p->irq.cells, in)) {
			take_mapped(p, map.data + len, up_addr, up, id);
			return FDT_OK;
		}
		len += (up_addr + up) * 4;
		map.data += len;
		map.len -= len;
	}
	return FDT_NOT_FOUND;
}

/* Up to a node without a map, which is the controller. */
static int map_to_controller(const struct fdt *fdt, struct irq_path *p)
{
	/* A chain longer than any tree is deep goes in a circle. */
	for (uint32_t hops = 0; hops < FDT_MAX_DEPTH; hops++) {
		int err;

		if (!get_at(fdt, p->irq.controller, "interrupt-map").data)
			return FDT_OK;
		err = map_once(fdt, p);
		if (err)
			return err;
	}
	return FDT_BAD_VALUE;
}

/* The first cells of `reg`, whatever bus the device is on: maps go by these. */
static void read_unit(const struct fdt_node *n, uint32_t unit[MAX_ADDR_CELLS])
{
	struct fdt_value reg = fdt_get(n, "reg");

	for (uint32_t i = 0; i < MAX_ADDR_CELLS && reg.len >= (i + 1) * 4; i++)
		unit[i] = fdt_cell(reg, i);
}

/* Interrupt i as the device names it, of a controller or a nexus. */
static int own_irq(const struct fdt_node *n, uint32_t i, struct fdt_irq *out)
{
	struct fdt_value v = fdt_get(n, "interrupts-extended");
	uint32_t id, cells;
	const uint8_t *e;
	int err;

	if (v.data)
		return extended_irq(n->fdt, v, i, out);
	v = fdt_get(n, "interrupts");
	if (!v.data)
		return FDT_NOT_FOUND;
	err = irq_parent(n, &id, &cells);
	if (err)
		return err;
	e = entry(v, i, cells);
	if (!e)
		return FDT_NOT_FOUND;
	read_irq(e, cells, id, out);
	return FDT_OK;
}

int fdt_irq(const struct fdt_node *n, uint32_t i, struct fdt_irq *out)
{
	struct irq_path p = {0};
	int err = own_irq(n, i, &p.irq);

	if (err)
		return err;
	read_unit(n, p.unit);
	err = map_to_controller(n->fdt, &p);
	if (!err)
		*out = p.irq;
	return err;
}

int fdt_map_irq(const struct fdt_node *nexus, const uint32_t *unit, const uint32_t *spec,
		struct fdt_irq *out)
{
	struct irq_path p = {.irq = {.controller = fdt_id(nexus)}};
	uint32_t addr;
	int err;

	if (!fdt_has(nexus, "interrupt-map"))
		return FDT_NOT_FOUND;
	if (!unit_cells(nexus->fdt, fdt_id(nexus), 2, &addr) ||
	    !irq_cells(nexus->fdt, fdt_id(nexus), &p.irq.ncells))
		return FDT_BAD_VALUE;
	memcpy(p.unit, unit, addr * sizeof(*unit));
	memcpy(p.irq.cells, spec, p.irq.ncells * sizeof(*spec));
	err = map_to_controller(nexus->fdt, &p);
	if (!err)
		*out = p.irq;
	return err;
}

/* --- /chosen --------------------------------------------------------------- */

static int find_chosen(const struct fdt *fdt, struct fdt_node *out)
{
	if (!fdt->chosen)
		return FDT_NOT_FOUND;
	*out = (struct fdt_node){.fdt = fdt, .depth = 1, .path = {0, fdt->chosen}};
	out->body = body_of(fdt, fdt->chosen);
	return FDT_OK;
}

const char *fdt_bootargs(const struct fdt *fdt)
{
	struct fdt_node chosen;

	return find_chosen(fdt, &chosen) ? NULL : fdt_get_str(&chosen, "bootargs", 0);
}

int fdt_stdout(const struct fdt *fdt, struct fdt_node *out, const char **options)
{
	struct fdt_node chosen;
	const char *path, *colon;
	size_t len;

	if (find_chosen(fdt, &chosen))
		return FDT_NOT_FOUND;
	path = fdt_get_str(&chosen, "stdout-path", 0);
	if (!path)
		path = fdt_get_str(&chosen, "linux,stdout-path", 0);
	if (!path || !*path)
		return FDT_NOT_FOUND;
	colon = strchr(path, ':');
	len = colon ? (size_t)(colon - path) : strlen(path);
	*options = colon ? colon + 1 : path + len;
	return find_path(fdt, path, len, out);
}

int fdt_initrd(const struct fdt *fdt, phys_addr_t *start, phys_addr_t *end)
{
	struct fdt_node chosen;
	uint64_t from, to;

	if (find_chosen(fdt, &chosen) || !fdt_get_u64(&chosen, "linux,initrd-start", &from) ||
	    !fdt_get_u64(&chosen, "linux,initrd-end", &to))
		return FDT_NOT_FOUND;
	if (from >= to)
		return FDT_BAD_VALUE;
	*start = (phys_addr_t){from};
	*end = (phys_addr_t){to};
	return FDT_OK;
}
