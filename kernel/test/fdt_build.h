/* SPDX-License-Identifier: MIT */
/*
 * Writes device trees for tests, a token at a time. Layout of the blob: header,
 * reservations, strings, structure. Nothing is checked but the size.
 */
#ifndef KERNEL_TEST_FDT_BUILD_H
#define KERNEL_TEST_FDT_BUILD_H

#include <stddef.h>
#include <stdint.h>

#include <lib/string.h>

#define BUILD_SIZE    16384u
#define BUILD_RESERVE 40u
#define BUILD_STRINGS 1024u
#define BUILD_TREE    2048u

struct fdt_build {
	uint8_t *blob;
	uint32_t reserve;
	uint32_t strings;
	uint32_t tree;
};

static inline void build_put(struct fdt_build *b, uint32_t at, uint32_t v)
{
	for (uint32_t i = 0; at + 4 <= BUILD_SIZE && i < 4; i++)
		b->blob[at + i] = (uint8_t)(v >> (24 - 8 * i));
}

static inline void build_cell(struct fdt_build *b, uint32_t v)
{
	build_put(b, b->tree, v);
	b->tree += 4;
}

static inline void build_bytes(struct fdt_build *b, const void *p, uint32_t len)
{
	if (b->tree + len + 4 > BUILD_SIZE)
		return;
	memset(b->blob + b->tree, 0, (len + 3) & ~3u);
	memcpy(b->blob + b->tree, p, len);
	b->tree += (len + 3) & ~3u;
}

/* blob: BUILD_SIZE bytes, 8-byte aligned. */
static inline struct fdt_build build_start(void *blob)
{
	struct fdt_build b = {blob, BUILD_RESERVE, BUILD_STRINGS, BUILD_TREE};

	memset(blob, 0, BUILD_SIZE);
	return b;
}

static inline void build_reserve(struct fdt_build *b, uint64_t base, uint64_t size)
{
	const uint32_t cells[] = {(uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32),
				  (uint32_t)size};

	for (uint32_t i = 0; i < 4; i++, b->reserve += 4)
		build_put(b, b->reserve, cells[i]);
}

static inline void build_node(struct fdt_build *b, const char *name)
{
	build_cell(b, 1);
	build_bytes(b, name, (uint32_t)strlen(name) + 1);
}

static inline void build_end_node(struct fdt_build *b)
{
	build_cell(b, 2);
}

/* The head of a property; its value follows. Names already in the strings are shared. */
static inline void build_prop_head(struct fdt_build *b, const char *name, uint32_t len)
{
	uint32_t at = BUILD_STRINGS;

	while (at < b->strings && strcmp((char *)b->blob + at, name) != 0)
		at += (uint32_t)strlen((char *)b->blob + at) + 1;
	if (at == b->strings) {
		memcpy(b->blob + at, name, strlen(name) + 1);
		b->strings += (uint32_t)strlen(name) + 1;
	}
	build_cell(b, 3);
	build_cell(b, len);
	build_cell(b, at - BUILD_STRINGS);
}

static inline void build_prop(struct fdt_build *b, const char *name, const void *p, uint32_t len)
{
	build_prop_head(b, name, len);
	build_bytes(b, p, len);
}

static inline void build_flag(struct fdt_build *b, const char *name)
{
	build_prop_head(b, name, 0);
}

static inline void build_str(struct fdt_build *b, const char *name, const char *s)
{
	build_prop(b, name, s, (uint32_t)strlen(s) + 1);
}

static inline void build_cells(struct fdt_build *b, const char *name, const uint32_t *cells,
			       uint32_t n)
{
	build_prop_head(b, name, n * 4);
	for (uint32_t i = 0; i < n; i++)
		build_cell(b, cells[i]);
}

static inline void build_u32(struct fdt_build *b, const char *name, uint32_t v)
{
	build_cells(b, name, &v, 1);
}

/* A base and a size of two cells each. */
static inline void build_reg(struct fdt_build *b, const char *name, uint64_t base, uint64_t size)
{
	const uint32_t cells[] = {(uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32),
				  (uint32_t)size};

	build_cells(b, name, cells, 4);
}

/* The root, with two cells for addresses and two for sizes. */
static inline void build_root(struct fdt_build *b)
{
	build_node(b, "");
	build_u32(b, "#address-cells", 2);
	build_u32(b, "#size-cells", 2);
}

/* END and the header. Returns the size of the blob. */
static inline uint32_t build_finish(struct fdt_build *b)
{
	const uint32_t header[] = {0xd00dfeed,
				   b->tree + 4,
				   BUILD_TREE,
				   BUILD_STRINGS,
				   BUILD_RESERVE,
				   17,
				   16,
				   0,
				   b->strings - BUILD_STRINGS,
				   b->tree + 4 - BUILD_TREE};

	build_cell(b, 9);
	for (uint32_t i = 0; i < 10; i++)
		build_put(b, i * 4, header[i]);
	return b->tree;
}

#endif
