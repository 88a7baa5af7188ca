/* SPDX-License-Identifier: MIT */
/*
 * Memory map.
 *
 * Everything the tree says about memory is a bag of pieces, each of a kind:
 * RAM, reserved, or reserved and not to be mapped. A view is the union of some
 * kinds minus the union of others, and one step of it is a sweep over the
 * pieces in rising order. Pieces of one kind that overlap or touch are merged as
 * they come, so that at most three begin at one address.
 *
 * There is no allocator yet, so the pieces live in a table of fixed size. To
 * be right with any number of them, the table is a window: it holds the lowest
 * pieces at or above `from`, and knows everything below `until`, where the first
 * piece begins that found no room. A sweep that reaches `until` has the tree
 * read again from there. A common machine has ten pieces and one reading.
 *
 * Arithmetic is on exact bytes and only the result is rounded to pages, so two
 * banks that meet within a page lose nothing. An end beyond 2^64 is cut.
 *
 * A node of /reserved-memory that has a size but no place asks for a pool for
 * some driver. Mica has no such driver and sets nothing aside for it.
 */
#include <kernel/memmap.h>
#include <lib/string.h>

enum piece_kind {
	RAM = 1 << 0,
	RESERVED = 1 << 1,
	NO_MAP = 1 << 2,
};

/* Which kinds a view has, and which it has not. */
struct view {
	uint32_t with;
	uint32_t without;
};

static const struct view views[] = {
	[MEMMAP_RAM] = {RAM, 0},
	[MEMMAP_MAPPABLE] = {RAM, NO_MAP},
	[MEMMAP_FREE] = {RAM, RESERVED | NO_MAP},
	[MEMMAP_RESERVED] = {RESERVED | NO_MAP, 0},
	[MEMMAP_NO_MAP] = {NO_MAP, 0},
};

/* --- Filling the window ---------------------------------------------------- */

static void remove_piece(struct memmap *m, uint32_t i)
{
	m->npieces--;
	memmove(&m->pieces[i], &m->pieces[i + 1], (m->npieces - i) * sizeof(m->pieces[0]));
}

/* Make p swallow all pieces of its kind that it overlaps or touches. */
static void absorb(struct memmap *m, struct memmap_piece *p)
{
	for (uint32_t i = 0; i < m->npieces;) {
		const struct memmap_piece *q = &m->pieces[i];

		if (q->kind != p->kind || q->start > p->end || q->end < p->start) {
			i++;
			continue;
		}
		if (q->start < p->start)
			p->start = q->start;
		if (q->end > p->end)
			p->end = q->end;
		remove_piece(m, i);
	}
}

/* Put p in its place. When the table is full, the highest piece has to go. */
static void insert(struct memmap *m, const struct memmap_piece *p)
{
	uint32_t i = m->npieces;

	if (i == MEMMAP_WINDOW) {
		const struct memmap_piece *last = &m->pieces[i - 1];

		m->until = last->start > p->start ? last->start : p->start;
		if (last->start <= p->start)
			return;
		m->npieces = --i;
	}
	while (i && m->pieces[i - 1].start > p->start) {
		m->pieces[i] = m->pieces[i - 1];
		i--;
	}
	m->pieces[i] = *p;
	m->npieces++;
}

static void add(struct memmap *m, uint32_t kind, uint64_t start, uint64_t size)
{
	uint64_t end = size > UINT64_MAX - start ? UINT64_MAX : start + size;
	struct memmap_piece p = {start, end, kind};

	if (kind == RAM && p.end > m->limit)
		p.end = m->limit;
	if (p.start < m->from)
		p.start = m->from;
	if (p.start >= p.end || p.start >= m->until)
		return;
	absorb(m, &p);
	insert(m, &p);
}

static void add_regs(struct memmap *m, const struct fdt_node *n, const char *prop, uint32_t kind)
{
	uint64_t base, size;

	for (uint32_t i = 0; !fdt_bus_reg_of(n, prop, i, &base, &size); i++)
		add(m, kind, base, size);
}

static bool is_bank(const struct fdt_node *n)
{
	const char *type = fdt_get_str(n, "device_type", 0);

	return type && !strcmp(type, "memory") && fdt_enabled(n);
}

static void add_bank(struct memmap *m, const struct fdt_node *n)
{
	/* A crash kernel is told by this property to leave the rest alone. */
	const char *usable = "linux,usable-memory";

	add_regs(m, n, fdt_has(n, usable) ? usable : "reg", RAM);
}

static void add_reserved_memory(struct memmap *m, const struct fdt_node *parent)
{
	for (struct fdt_node n = fdt_first_child(parent); n.fdt; fdt_next_sibling(&n))
		if (fdt_enabled(&n))
			add_regs(m, &n, "reg", fdt_has(&n, "no-map") ? NO_MAP : RESERVED);
}

static void add_range(struct memmap *m, uint32_t kind, phys_addr_t start, phys_addr_t end)
{
	if (start.value < end.value)
		add(m, kind, start.value, end.value - start.value);
}

static void add_initrd(struct memmap *m, const struct fdt_node *chosen)
{
	uint64_t start, end;

	if (fdt_get_u64(chosen, "linux,initrd-start", &start) &&
	    fdt_get_u64(chosen, "linux,initrd-end", &end))
		add_range(m, RESERVED, (phys_addr_t){start}, (phys_addr_t){end});
}

static void add_node(struct memmap *m, const struct fdt_node *n)
{
	if (fdt_name_is(n, "reserved-memory"))
		add_reserved_memory(m, n);
	else if (fdt_name_is(n, "chosen"))
		add_initrd(m, n);
	else if (is_bank(n))
		add_bank(m, n);
}

/* Read everything again that lies at or above `from`. */
static void fill(struct memmap *m, uint64_t from)
{
	struct fdt_node root = fdt_root(m->fdt);
	phys_addr_t base;
	uint64_t size;

	m->from = from;
	m->until = UINT64_MAX;
	m->npieces = 0;
	for (uint32_t i = 0; i < m->nalso; i++)
		add_range(m, RESERVED, m->also_reserved[i].start, m->also_reserved[i].end);
	for (uint32_t i = 0; fdt_memreserve(m->fdt, i, &base, &size); i++)
		add(m, RESERVED, base.value, size);
	for (struct fdt_node n = fdt_first_child(&root); n.fdt; fdt_next_sibling(&n))
		add_node(m, &n);
}

/* --- Views ----------------------------------------------------------------- */

/* The table knows what begins at `at`. */
static void reach(struct memmap *m, uint64_t at)
{
	if (at < m->from || (at >= m->until && m->until != UINT64_MAX))
		fill(m, at);
}

/* The end of the piece of one of these kinds that covers `at` and goes furthest; 0: none. */
static uint64_t covered_to(const struct memmap *m, uint32_t kinds, uint64_t at)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < m->npieces && m->pieces[i].start <= at; i++)
		if ((m->pieces[i].kind & kinds) && m->pieces[i].end > at && m->pieces[i].end > end)
			end = m->pieces[i].end;
	return end;
}

/* The first piece of one of these kinds that begins above `at`, at most `end`. */
static uint64_t next_start(const struct memmap *m, uint32_t kinds, uint64_t at, uint64_t end)
{
	for (uint32_t i = 0; i < m->npieces && m->pieces[i].start < end; i++)
		if ((m->pieces[i].kind & kinds) && m->pieces[i].start > at)
			return m->pieces[i].start;
	return end;
}

/* Let *at grow to the first byte of the view. False when there is none. */
static bool find_start(struct memmap *m, const struct view *v, uint64_t *at)
{
	while (*at != UINT64_MAX) {
		uint64_t blocked;

		reach(m, *at);
		blocked = covered_to(m, v->without, *at);
		if (blocked)
			*at = blocked;
		else if (covered_to(m, v->with, *at))
			return true;
		else
			*at = next_start(m, v->with, *at, m->until);
	}
	return false;
}

/* The first byte behind a run of the view that contains `at`. */
static uint64_t find_end(struct memmap *m, const struct view *v, uint64_t at)
{
	for (;;) {
		uint64_t end;

		reach(m, at);
		end = covered_to(m, v->without, at) ? 0 : covered_to(m, v->with, at);
		if (!end)
			return at;
		at = next_start(m, v->without, at, end < m->until ? end : m->until);
		if (at == UINT64_MAX)
			return at;
	}
}

static struct mem_range round_in(uint64_t start, uint64_t end)
{
	const uint64_t mask = MM_PAGE_SIZE - 1;

	if (start > UINT64_MAX - mask)
		start = UINT64_MAX - mask;
	return (struct mem_range){{(start + mask) & ~mask}, {end & ~mask}};
}

static struct mem_range round_out(uint64_t start, uint64_t end)
{
	const uint64_t mask = MM_PAGE_SIZE - 1;

	/* The last page of all cannot be named by its end: UINT64_MAX stands for it. */
	end = end > UINT64_MAX - mask ? UINT64_MAX : (end + mask) & ~mask;
	return (struct mem_range){{start & ~mask}, {end}};
}

bool memmap_next(struct memmap *m, enum memmap_view view, struct mem_range *r)
{
	const struct view *v = &views[view];
	uint64_t at = r->end.value;

	while (find_start(m, v, &at)) {
		uint64_t start = at;

		at = find_end(m, v, at);
		*r = v->with & RAM ? round_in(start, at) : round_out(start, at);
		if (r->start.value < r->end.value)
			return true;
	}
	return false;
}

bool memmap_largest(struct memmap *m, enum memmap_view view, struct mem_range *out)
{
	struct mem_range r = {0};
	uint64_t largest = 0;

	while (memmap_next(m, view, &r)) {
		if (r.end.value - r.start.value <= largest)
			continue;
		largest = r.end.value - r.start.value;
		*out = r;
	}
	return largest;
}

uint64_t memmap_total(struct memmap *m, enum memmap_view view)
{
	struct mem_range r = {0};
	uint64_t total = 0;

	while (memmap_next(m, view, &r))
		total += r.end.value - r.start.value;
	return total;
}

/* --- The whole ------------------------------------------------------------- */

int memmap_init(struct memmap *m, const struct fdt *fdt, const struct mem_range *reserved,
		uint32_t n, phys_addr_t limit)
{
	struct mem_range r = {0};

	m->fdt = fdt;
	m->also_reserved = reserved;
	m->nalso = n;
	m->limit = limit.value;
	fill(m, 0);
	if (!memmap_next(m, MEMMAP_RAM, &r))
		return MEMMAP_NO_MEMORY;
	return memmap_total(m, MEMMAP_FREE) < MEMMAP_MIN_FREE ? MEMMAP_TOO_SMALL : MEMMAP_OK;
}

const char *memmap_error_text(int error)
{
	switch (error) {
	case MEMMAP_OK:
		return "no error";
	case MEMMAP_NO_MEMORY:
		return "no memory that can be used";
	case MEMMAP_TOO_SMALL:
		return "too little memory";
	default:
		return "unknown error";
	}
}
