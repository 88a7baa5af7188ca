/* SPDX-License-Identifier: MIT */
/*
 * The device tree reader against libfdt, over every tree in a directory and over
 * mutated copies of them, each in a buffer of exactly its size, so that ASan
 * sees any access beyond. Both must agree on whether a blob is well-formed, and
 * on all that is in it. Where Mica is stricter on purpose, strictness() says
 * why, and the reasons are counted.
 *
 * Environment: FDT_TREES, a directory of *.dtb (scripts/dump-dtbs.sh);
 * FDT_MUTATIONS, how many mutated blobs in all; FDT_SEED.
 */
#include <glob.h>
#include <libfdt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kernel/fdt.h>
#include <kernel/memmap.h>
#include <selftest/selftest.h>

struct counts {
	unsigned long trees;
	unsigned long nodes;
	unsigned long props;
	unsigned long mutations;
	unsigned long accepted;
	unsigned long stricter;
};

/* Remember what disagrees: the first difference is the one worth reading. */
#define SAME(cond)                                                                              \
	do {                                                                                    \
		if (!(cond)) {                                                                  \
			fprintf(stderr, "%s:%d: differs from libfdt: %s\n", __FILE__, __LINE__, \
				#cond);                                                         \
			return false;                                                           \
		}                                                                               \
	} while (0)

/* --- Acceptance ------------------------------------------------------------ */

/* The property at `at` claims a length that is negative as an int. */
static bool huge_property(const void *blob, int at)
{
	const fdt32_t *len = fdt_offset_ptr(blob, at + (int)FDT_TAGSIZE, sizeof(*len));

	return len && fdt32_to_cpu(*len) > INT_MAX;
}

/*
 * What libfdt says of a blob. Debian's 1.6.1 adds the length of a property to an
 * int unchecked: a huge one takes it backwards, for ever at times, or to a token
 * within the property. Later versions refuse it, so here it is an error at once.
 * So are versions before 16, in which it takes a root without a name for NULL.
 */
static int libfdt_verdict(const void *blob, size_t size)
{
	uint32_t token = FDT_NOP;

	if (size < sizeof(struct fdt_header) || fdt_check_header(blob) ||
	    fdt_totalsize(blob) > size)
		return fdt_check_full(blob, size);
	if (fdt_version(blob) < 16)
		return -FDT_ERR_BADVERSION;
	for (int at = 0, next; token != FDT_END; at = next) {
		token = fdt_next_tag(blob, at, &next);
		if (token == FDT_PROP && huge_property(blob, at))
			return -FDT_ERR_BADSTRUCTURE;
	}
	return fdt_check_full(blob, size);
}

/* Why Mica may refuse what libfdt takes; NULL when it may not. */
static const char *strictness(const void *blob)
{
	int depth = 0, roots = 0, deepest = 0, at = 0, next;

	if (fdt_version(blob) < 17)
		return "version";
	if ((fdt_off_dt_struct(blob) & 3) || (fdt_off_mem_rsvmap(blob) & 7))
		return "alignment";
	for (;; at = next) {
		uint32_t token = fdt_next_tag(blob, at, &next);

		if (next < 0)
			return NULL;
		if (token == FDT_BEGIN_NODE) {
			roots += !depth++;
			deepest = depth > deepest ? depth : deepest;
		}
		if (token == FDT_END_NODE)
			depth--;
		if (token == FDT_PROP && !depth)
			return "property outside the root";
		if (token == FDT_END)
			break;
	}
	if (roots != 1)
		return "not one root";
	return deepest > (int)FDT_MAX_DEPTH ? "depth" : NULL;
}

/* Why libfdt may refuse what Mica takes: neither matters to a reader. */
static bool tolerable(const void *blob, const struct fdt *fdt)
{
	struct fdt_node root = fdt_root(fdt);

	return fdt_version(blob) < 17 || *fdt_name(&root);
}

/* --- One tree, both ways --------------------------------------------------- */

static bool same_value(struct fdt_value v, const void *data, int len)
{
	return data ? v.data == data && v.len == (uint32_t)len : !v.data;
}

static bool same_properties(const void *blob, const struct fdt_node *n, int offset,
			    struct counts *c)
{
	struct fdt_prop p = {0};
	int at, len;

	fdt_for_each_property_offset(at, blob, offset)
	{
		const char *name;
		const void *data = fdt_getprop_by_offset(blob, at, &name, &len);

		SAME(fdt_next_prop(n, &p) && p.name == name && same_value(p.value, data, len));
		data = fdt_getprop(blob, offset, name, &len);
		SAME(same_value(fdt_get(n, name), data, len));
		SAME(fdt_has_str(p.value, "ns16550a") ==
		     !!fdt_stringlist_contains((const char *)p.value.data, (int)p.value.len,
					       "ns16550a"));
		c->props++;
	}
	SAME(!fdt_next_prop(n, &p));
	return true;
}

/* `reg`, as libfdt's idea of the cells says, when Mica can read it at all. */
static bool same_reg(const void *blob, const struct fdt_node *n, int offset)
{
	int parent = fdt_parent_offset(blob, offset), len;
	int addr = fdt_address_cells(blob, parent), size = fdt_size_cells(blob, parent);
	const fdt32_t *reg = fdt_getprop(blob, offset, "reg", &len);
	uint64_t base, bytes;

	if (!reg || addr < 1 || addr > 2 || size < 0 || size > 2)
		return true;
	for (int i = 0; i < len / (4 * (addr + size)); i++) {
		uint64_t want[2] = {0, 0};

		for (int k = 0; k < addr + size; k++, reg++)
			want[k >= addr] = want[k >= addr] << 32 | fdt32_to_cpu(*reg);
		SAME(!fdt_bus_reg(n, (uint32_t)i, &base, &bytes));
		SAME(base == want[0] && bytes == want[1]);
	}
	return true;
}

/* Paths, parents and phandles, which cost libfdt a search each. */
static bool same_searches(const void *blob, const struct fdt_node *n, int offset)
{
	uint32_t phandle = fdt_get_phandle(blob, offset);
	struct fdt_node other, up = fdt_parent(n);
	char path[1024];

	if (n->depth)
		SAME((int)fdt_id(&up) == fdt_parent_offset(blob, offset));
	SAME(!n->depth == !up.fdt);
	SAME(!fdt_get_path(blob, offset, path, sizeof(path)));
	SAME(!fdt_find_path(n->fdt, path, &other));
	SAME((int)fdt_id(&other) == fdt_path_offset(blob, path));
	if (phandle && phandle != UINT32_MAX) {
		SAME(!fdt_by_phandle(n->fdt, phandle, &other));
		SAME((int)fdt_id(&other) == fdt_node_offset_by_phandle(blob, phandle));
	}
	return same_reg(blob, n, offset);
}

static bool same_reservations(const void *blob, const struct fdt *fdt)
{
	int n = fdt_num_mem_rsv(blob);
	phys_addr_t base;
	uint64_t size;

	for (int i = 0; i < n; i++) {
		uint64_t want_base, want_size;

		SAME(!fdt_get_mem_rsv(blob, i, &want_base, &want_size));
		SAME(fdt_memreserve(fdt, (uint32_t)i, &base, &size));
		SAME(base.value == want_base && size == want_size);
	}
	SAME(!fdt_memreserve(fdt, (uint32_t)n, &base, &size));
	return true;
}

static bool same_phandle(const void *blob, const struct fdt *fdt, uint32_t phandle)
{
	int offset = fdt_node_offset_by_phandle(blob, phandle);
	struct fdt_node n;

	SAME(fdt_by_phandle(fdt, phandle, &n) == (offset < 0 ? FDT_NOT_FOUND : FDT_OK));
	SAME(offset < 0 || (int)fdt_id(&n) == offset);
	return true;
}

static bool same_tree(const void *blob, const struct fdt *fdt, bool searches, struct counts *c)
{
	struct fdt_node n = fdt_root(fdt);
	int offset = 0, depth = 0;

	if (!same_reservations(blob, fdt))
		return false;
	while (n.fdt) {
		SAME(offset >= 0 && (int)fdt_id(&n) == offset && (int)n.depth == depth);
		SAME(fdt_name(&n) == fdt_get_name(blob, offset, NULL));
		SAME(fdt_compatible(&n, "ns16550a") ==
		     !fdt_node_check_compatible(blob, offset, "ns16550a"));
		if (!same_properties(blob, &n, offset, c))
			return false;
		if (searches && !same_searches(blob, &n, offset))
			return false;
		fdt_next(&n);
		offset = fdt_next_node(blob, offset, &depth);
		c->nodes++;
	}
	SAME(offset < 0 || depth < 0);
	for (uint32_t phandle = 1; phandle <= 4; phandle++)
		if (!same_phandle(blob, fdt, phandle))
			return false;
	return true;
}

/* --- What libfdt has not: call it, for the sanitizers ------------------------ */

static void use_node(const struct fdt_node *n)
{
	const uint32_t unit[3] = {0x800, 0, 0}, spec[FDT_MAX_IRQ_CELLS] = {1, 0, 0, 0};
	struct fdt_dma_window window;
	struct fdt_range range;
	struct fdt_irq irq;
	phys_addr_t base;
	uint64_t size;

	for (uint32_t i = 0; i < 4; i++) {
		(void)fdt_reg(n, i, &base, &size);
		(void)fdt_bus_range(n, i, &range);
		(void)fdt_dma_window(n, i, &window);
		(void)fdt_irq(n, i, &irq);
	}
	(void)fdt_map_irq(n, unit, spec, &irq);
	(void)fdt_dma_coherent(n, true);
	(void)fdt_enabled(n);
}

/* A map of any tree must end, go upwards, and keep free memory out of what is reserved. */
static bool map_is_sane(const struct fdt *fdt)
{
	static struct memmap map;

	(void)memmap_init(&map, fdt, NULL, 0, (phys_addr_t){UINT64_MAX});
	for (uint32_t view = MEMMAP_RAM; view <= MEMMAP_NO_MAP; view++) {
		struct mem_range r = {0};
		uint64_t end = 0;

		while (memmap_next(&map, (enum memmap_view)view, &r)) {
			SAME(r.start.value >= end && r.start.value < r.end.value);
			end = r.end.value;
		}
	}
	SAME(memmap_total(&map, MEMMAP_FREE) <= memmap_total(&map, MEMMAP_MAPPABLE));
	SAME(memmap_total(&map, MEMMAP_MAPPABLE) <= memmap_total(&map, MEMMAP_RAM));
	return true;
}

static bool use(const struct fdt *fdt)
{
	struct fdt_node n;
	phys_addr_t start, end;
	const char *options;

	for (n = fdt_root(fdt); n.fdt; fdt_next(&n))
		use_node(&n);
	(void)fdt_bootargs(fdt);
	(void)fdt_stdout(fdt, &n, &options);
	(void)fdt_initrd(fdt, &start, &end);
	(void)fdt_find_path(fdt, "serial0", &n);
	return map_is_sane(fdt);
}

static bool compare(const void *blob, size_t size, bool searches, struct counts *c)
{
	int theirs = libfdt_verdict(blob, size), next;
	struct fdt fdt;
	int ours = fdt_open(&fdt, blob, size);

	if (ours) {
		SAME(theirs || strictness(blob));
		c->stricter += !theirs;
		return true;
	}
	SAME(!theirs || tolerable(blob, &fdt));
	c->accepted++;
	/* libfdt takes offset 0 for the root, and for anything a `/` finds. */
	if (!theirs && fdt_next_tag(blob, 0, &next) == FDT_BEGIN_NODE &&
	    !same_tree(blob, &fdt, searches, c))
		return false;
	return use(&fdt);
}

/* --- Mutations ------------------------------------------------------------- */

static uint32_t pick(uint64_t *seed, uint32_t n)
{
	return (uint32_t)(selftest_random(seed) % n);
}

static void put_cell(uint8_t *blob, uint32_t at, uint32_t v)
{
	fdt32_t be = cpu_to_fdt32(v);

	memcpy(blob + at, &be, 4);
}

/* Change a token, a length, a number, a byte, or a field of the header. */
static void mutate_once(uint8_t *blob, uint32_t size, uint64_t *seed)
{
	static const uint32_t values[] = {
		FDT_BEGIN_NODE, FDT_END_NODE, FDT_PROP,	 FDT_NOP, FDT_END, 0, 8,
		0x7fffff,	0x7fffffff,   UINT32_MAX};
	uint32_t word = pick(seed, size / 4) * 4, other = pick(seed, size / 4) * 4, old;

	memcpy(&old, blob + word, 4);
	switch (pick(seed, 7)) {
	case 0:
		blob[pick(seed, size)] ^= (uint8_t)(1u << pick(seed, 8));
		break;
	case 1:
		blob[pick(seed, size)] = (uint8_t)selftest_random(seed);
		break;
	case 2:
		put_cell(blob, word, values[pick(seed, sizeof(values) / sizeof(values[0]))]);
		break;
	case 3: /* a small number becomes another */
		put_cell(blob, word, fdt32_to_cpu(old) + pick(seed, 33) - 16);
		break;
	case 4:
		memcpy(blob + word, blob + other, 4);
		memcpy(blob + other, &old, 4);
		break;
	case 5: /* a length, behind its token */
		while (word + 12 < size && memcmp(blob + word, "\0\0\0\3", 4) != 0)
			word += 4;
		if (word + 8 <= size)
			put_cell(blob, word + 4, pick(seed, 64));
		break;
	default:
		word = pick(seed, 10) * 4;
		put_cell(blob, word,
			 pick(seed, 2) ? pick(seed, size + 8) : (uint32_t)selftest_random(seed));
	}
}

static void report(const void *blob, uint32_t size, uint64_t seed)
{
	struct fdt fdt;
	FILE *f = fopen("build/fdt-failure.dtb", "wb");

	fprintf(stderr,
		"mica says '%s', libfdt '%s'; random numbers at %llu; see build/fdt-failure.dtb\n",
		fdt_error_text(fdt_open(&fdt, blob, size)),
		fdt_strerror(libfdt_verdict(blob, size)), (unsigned long long)seed);
	if (!f)
		return;
	fwrite(blob, 1, size, f);
	fclose(f);
}

static bool mutation(const uint8_t *tree, uint32_t size, uint64_t *seed, struct counts *c)
{
	/* One in eight is cut short. */
	uint32_t len = pick(seed, 8) ? size : 8 + pick(seed, size - 8), rounds = 1 + pick(seed, 4);
	uint64_t start = *seed;
	uint8_t *blob = malloc(len);
	bool ok;

	if (!blob)
		return false;
	memcpy(blob, tree, len);
	while (len >= 40 && rounds--)
		mutate_once(blob, len, seed);
	ok = compare(blob, len, false, c);
	if (!ok)
		report(blob, len, start);
	free(blob);
	c->mutations++;
	return ok;
}

/* --- The directory --------------------------------------------------------- */

/* A file, packed: QEMU pads its trees to a megabyte. NULL when it cannot be had. */
static uint8_t *load(const char *path, uint32_t *size)
{
	FILE *f = fopen(path, "rb");
	uint8_t *blob = NULL;
	size_t len;

	if (!f)
		return NULL;
	*size = 4u << 20;
	blob = malloc(*size);
	len = blob ? fread(blob, 1, *size, f) : 0;
	fclose(f);
	if (!blob || fdt_check_full(blob, len) || fdt_pack(blob)) {
		free(blob);
		return NULL;
	}
	*size = fdt_totalsize(blob);
	return realloc(blob, *size);
}

static unsigned long number(const char *name, unsigned long usual)
{
	const char *s = getenv(name);

	return s ? strtoul(s, NULL, 0) : usual;
}

static bool run_tree(const char *path, unsigned long mutations, uint64_t *seed, struct counts *c)
{
	uint32_t size;
	uint8_t *blob = load(path, &size);
	bool ok = blob && compare(blob, size, true, c);

	while (ok && mutations--)
		ok = mutation(blob, size, seed, c);
	if (!ok)
		fprintf(stderr, "%s: failed\n", path);
	free(blob);
	c->trees++;
	return ok;
}

static bool run_directory(const char *dir, struct counts *c)
{
	unsigned long mutations = number("FDT_MUTATIONS", 4000);
	uint64_t seed = number("FDT_SEED", 1);
	char pattern[512];
	bool ok = true;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*.dtb", dir);
	if (glob(pattern, 0, NULL, &g))
		return true;
	for (size_t i = 0; ok && i < g.gl_pathc; i++)
		ok = run_tree(g.gl_pathv[i], mutations / g.gl_pathc + 1, &seed, c);
	globfree(&g);
	return ok;
}

SELFTEST(fdt, same_as_libfdt)
{
	const char *dir = getenv("FDT_TREES");
	struct counts c = {0};
	bool ok = run_directory(dir ? dir : "build/dtb", &c);

	CHECK(ok);
	if (!c.trees) {
		selftest_skip("no trees: run scripts/dump-dtbs.sh build/dtb");
		return;
	}
	selftest_note("%lu trees, %lu mutations (%lu well-formed, %lu refused by Mica alone), "
		      "%lu nodes, %lu properties compared",
		      c.trees, c.mutations, c.accepted - c.trees, c.stricter, c.nodes, c.props);
}
