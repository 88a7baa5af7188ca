/* SPDX-License-Identifier: MIT */
/*
 * Page tables: four levels, TTBR1 only once boot is over.
 *
 * Invariants of the tree:
 *  - an entry is zero, a table or a leaf; there are leaves at levels 0, 1, 2;
 *  - but for the root no table is empty: unmap frees what it empties. So a
 *    range of which every entry is zero is free for a block of any size.
 *
 * A valid entry is never replaced by one with another address, size or memory type
 * directly (break-before-make): first zero, then the TLBs of all CPUs flushed,
 * then the new entry. Permissions alone may change in place.
 *
 * While an entry is broken nobody can use what it maps. Two things follow:
 *  - the tables themselves lie in the linear map, and the block that is broken
 *    may hold the very table that must be written to mend it. That table is then
 *    written through `window`, a page of the image that is mapped to it for the
 *    time; tables, code and stack of the image are never in a broken block.
 *  - another CPU may fault on memory it has every right to use. Its trap
 *    handler asks mmu_fault_was_transient and tries again.
 *
 * What changes the tables is for one CPU at a time: the caller has the lock.
 */
#include <stdatomic.h>

#include <arch/arch.h>
#include <kernel/panic.h>
#include <lib/string.h>

#include "boot.h"
#include "mmu.h"
#include "pte.h"
#include "sysreg.h"

#define LINEAR_BASE    0xffff000000000000u
#define PERMISSIONS    (PTE_READ_ONLY | PTE_PXN | PTE_UXN)
#define PAGE_OFFSET(a) ((a) & (MM_PAGE_SIZE - 1))

static uint64_t *root;
static arch_table_alloc table_alloc;
static arch_table_free table_free;
static bool live; /* the root is in TTBR1 */
static atomic_bool broken;

static char window[MM_PAGE_SIZE] __attribute__((aligned(4096), section(".bss.page_aligned")));
static uint64_t *window_pte;

/* An entry that is no table, and where it was found. */
struct slot {
	uint64_t *pte;
	uint64_t *parent; /* the entry that points to its table; NULL in the root */
	unsigned int level;
};

/* --- Addresses --------------------------------------------------------------- */

static uint64_t image_size(void)
{
	return (uint64_t)(__image_end - __image_start);
}

static bool in_image(const void *va)
{
	return (uintptr_t)va - (uintptr_t)__image_start < image_size();
}

void *arch_phys_to_virt(uint64_t pa)
{
	return (void *)(LINEAR_BASE + pa);
}

uint64_t arch_virt_to_phys(const void *va)
{
	if ((uintptr_t)va >= ARCH_KERNEL_BASE)
		return (uintptr_t)va - (uintptr_t)__image_start + boot_image_pa;
	return (uintptr_t)va - LINEAR_BASE;
}

uint64_t arch_linear_limit(void)
{
	static const unsigned char bits[] = {32, 36, 40, 42, 44, 48};
	uint64_t range = sysreg_read(id_aa64mmfr0_el1) & 0xf;
	uint64_t limit = (uint64_t)1 << bits[range < PARANGE_48 ? range : PARANGE_48];
	uint64_t room = ARCH_VMAP_BASE - LINEAR_BASE;

	return limit < room ? limit : room;
}

/* Tables of the image have no other address before the linear map exists, nor need one after. */
static uint64_t *table_va(uint64_t pte)
{
	uint64_t pa = pte & PTE_ADDRESS;

	if (pa - boot_image_pa < image_size())
		return (uint64_t *)(__image_start + (pa - boot_image_pa));
	return arch_phys_to_virt(pa);
}

static bool range_valid(uintptr_t va, size_t nbytes)
{
	return nbytes && !PAGE_OFFSET(va | nbytes) && va >= LINEAR_BASE && va + nbytes - 1 >= va;
}

static bool prot_valid(unsigned int prot, enum arch_memtype type)
{
	return (prot & ARCH_PROT_R) &&
	       (prot & (ARCH_PROT_W | ARCH_PROT_X)) != (ARCH_PROT_W | ARCH_PROT_X) &&
	       (unsigned int)type <= ARCH_MEM_DEVICE;
}

/* --- TLB --------------------------------------------------------------------- */

/* Forget one address, and the tables on the way to it, on all CPUs; complete after dsb_ish. */
static void tlb_forget(uintptr_t va)
{
	__asm__ volatile("tlbi vaae1is, %0" ::"r"(va << 8 >> 20) : "memory");
}

static void tlb_forget_all(void)
{
	__asm__ volatile("tlbi vmalle1is" ::: "memory");
}

/* --- Single entries ---------------------------------------------------------- */

/* DC ZVA writes a block of zeros, where DCZID_EL0 allows it. */
static void zero_page(uint64_t *page)
{
	uint64_t dczid = sysreg_read(dczid_el0);
	uintptr_t end = (uintptr_t)page + MM_PAGE_SIZE;

	if (dczid & 16) {
		memset(page, 0, MM_PAGE_SIZE);
		return;
	}
	for (uintptr_t at = (uintptr_t)page; at < end; at += (uintptr_t)4 << (dczid & 15))
		__asm__ volatile("dc zva, %0" ::"r"(at) : "memory");
}

static uint64_t *new_table(void)
{
	uint64_t *table = (uint64_t *)table_alloc();

	if (table)
		zero_page(table);
	return table;
}

/* The entry that decides about va: a leaf or a hole. */
static struct slot find(uintptr_t va)
{
	struct slot s = {&root[pte_index(va, PTE_ROOT_LEVEL)], NULL, PTE_ROOT_LEVEL};

	while (pte_is_table(*s.pte, s.level)) {
		s.parent = s.pte;
		s.level--;
		s.pte = &table_va(*s.parent)[pte_index(va, s.level)];
	}
	return s;
}

static void set(uint64_t *pte, uint64_t value)
{
	*(volatile uint64_t *)pte = value;
	dsb_ishst();
}

static char *window_open(const void *page)
{
	set(window_pte, pte_leaf(arch_virt_to_phys(page) & PTE_ADDRESS, 0,
				 ARCH_PROT_R | ARCH_PROT_W, ARCH_MEM_NORMAL));
	isb();
	return window;
}

static void window_close(void)
{
	set(window_pte, 0);
	tlb_forget((uintptr_t)window);
	dsb_ish();
	isb();
}

/* Break and make. `old` is a table: its leaves, of any address in it, are forgotten too. */
static void replace_live(uint64_t *pte, uintptr_t va, uint64_t value, bool was_table)
{
	set(pte, 0);
	if (was_table)
		tlb_forget_all();
	else
		tlb_forget(va);
	dsb_ish();
	set(pte, value);
	isb();
}

/* Replace what maps va at a level. Interrupts are off while the entry is broken. */
static void replace(uint64_t *pte, unsigned int level, uintptr_t va, uint64_t value)
{
	bool was_table = pte_is_table(*pte, level);
	bool maps_itself = (((uintptr_t)pte ^ va) & ~(pte_size(level) - 1)) == 0;
	unsigned long irq;

	if (!live) {
		set(pte, value);
		return;
	}
	irq = arch_irq_save();
	atomic_store(&broken, true);
	if (maps_itself) {
		char *page = window_open(pte);

		replace_live((uint64_t *)(page + PAGE_OFFSET((uintptr_t)pte)), va, value,
			     was_table);
		window_close();
	} else {
		replace_live(pte, va, value, was_table);
	}
	atomic_store(&broken, false);
	arch_irq_restore(irq);
}

/* A leaf gets other attributes. */
static void change_leaf(struct slot s, uintptr_t va, uint64_t value)
{
	if (*s.pte == value)
		return;
	if ((*s.pte ^ value) & ~PERMISSIONS) {
		replace(s.pte, s.level, va, value);
		return;
	}
	set(s.pte, value);
	tlb_forget(va);
}

/* --- Splitting and joining --------------------------------------------------- */

static int split(struct slot s, uintptr_t va)
{
	uint64_t *table = (uint64_t *)table_alloc();
	uint64_t pte = *s.pte;
	size_t step = pte_size(s.level - 1);

	if (!table)
		return -1;
	if (s.level == 1)
		pte |= PTE_TABLE;
	for (size_t i = 0; i < PTE_COUNT; i++)
		table[i] = pte + i * step;
	dsb_ishst();
	replace(s.pte, s.level, va, pte_table(arch_virt_to_phys(table)));
	return 0;
}

/* No leaf reaches across va. */
static int split_at(uintptr_t va)
{
	for (;;) {
		struct slot s = find(va);

		if (!*s.pte || !(va & (pte_size(s.level) - 1)))
			return 0;
		if (split(s, va))
			return -1;
	}
}

/* All entries are leaves that one block could replace. */
static bool can_join(const uint64_t *table, unsigned int level)
{
	uint64_t first = table[0];

	if (!pte_is_leaf(first, level) || (first & PTE_ADDRESS & (pte_size(level + 1) - 1)))
		return false;
	for (size_t i = 1; i < PTE_COUNT; i++) {
		if (table[i] != first + i * pte_size(level))
			return false;
	}
	return true;
}

/* Make the leaf that maps va as large as can be. */
static void join(uintptr_t va)
{
	for (;;) {
		struct slot s = find(va);
		uint64_t *table;

		if (!*s.pte || s.level >= PTE_LEAF_LEVEL)
			return;
		table = table_va(*s.parent);
		if (!can_join(table, s.level))
			return;
		replace(s.parent, s.level + 1, va & ~(pte_size(s.level + 1) - 1),
			table[0] & ~PTE_TABLE);
		table_free((uintptr_t)table);
	}
}

static void join_range(uintptr_t va, size_t nbytes)
{
	size_t step = pte_size(1);
	uintptr_t last = (va + nbytes - 1) & ~(step - 1);

	for (uintptr_t at = va & ~(step - 1); at != last; at += step)
		join(at);
	join(last);
}

/* The range consists of whole leaves; or nothing has changed. */
static int isolate(uintptr_t va, size_t nbytes)
{
	if (!split_at(va) && !split_at(va + nbytes))
		return 0;
	join_range(va, nbytes);
	return -1;
}

static bool is_mapped(uintptr_t va, size_t nbytes)
{
	size_t step;

	for (size_t off = 0; off < nbytes; off += step) {
		struct slot s = find(va + off);

		if (!*s.pte)
			return false;
		step = pte_size(s.level) - ((va + off) & (pte_size(s.level) - 1));
	}
	return true;
}

/* --- Mapping ----------------------------------------------------------------- */

static unsigned int largest_level(uintptr_t va, uint64_t pa, size_t nbytes)
{
	unsigned int level = PTE_LEAF_LEVEL;

	while (level && (((va | pa) & (pte_size(level) - 1)) || nbytes < pte_size(level)))
		level--;
	return level;
}

/* The table below an entry, made if there is none. NULL: a leaf is in the way, or no memory. */
static uint64_t *table_below(uint64_t *pte, unsigned int level)
{
	uint64_t *table;

	if (*pte)
		return pte_is_table(*pte, level) ? table_va(*pte) : NULL;
	table = new_table();
	if (!table)
		return NULL;
	dsb_ishst();
	*pte = pte_table(arch_virt_to_phys(table));
	return table;
}

/* The table with the entry of va at a level; the tables on the way are made. */
static uint64_t *table_for(uintptr_t va, unsigned int level)
{
	uint64_t *table = root;

	for (unsigned int at = PTE_ROOT_LEVEL; table && at > level; at--)
		table = table_below(&table[pte_index(va, at)], at);
	return table;
}

/*
 * Map the start of a range by leaves of one size, up to the end of their table
 * or the first that is in use: only there can larger ones begin. Returns the
 * bytes mapped, 0: none could be.
 */
static size_t map_run(uintptr_t va, uint64_t pa, size_t nbytes, unsigned int prot,
		      enum arch_memtype type)
{
	unsigned int level = largest_level(va, pa, nbytes);
	uint64_t *table = table_for(va, level);
	uint64_t leaf = pte_leaf(pa, level, prot, type);
	size_t first = pte_index(va, level);
	size_t most = nbytes >> pte_shift(level);
	size_t n = 0;

	if (!table)
		return 0;
	for (; n < most && first + n < PTE_COUNT && !table[first + n]; n++)
		table[first + n] = leaf + (n << pte_shift(level));
	return n << pte_shift(level);
}

static bool is_empty(const uint64_t *table)
{
	for (size_t i = 0; i < PTE_COUNT; i++) {
		if (table[i])
			return false;
	}
	return true;
}

/* Free the empty tables on the way to va, from the lowest up. */
static bool prune(uint64_t *table, unsigned int level, uintptr_t va)
{
	uint64_t *pte = &table[pte_index(va, level)];
	uint64_t *below;

	if (!pte_is_table(*pte, level))
		return is_empty(table);
	below = table_va(*pte);
	if (!prune(below, level - 1, va))
		return false;
	set(pte, 0);
	tlb_forget(va);
	dsb_ish();
	table_free((uintptr_t)below);
	return is_empty(table);
}

/* All of the range is mapped, by leaves that do not reach beyond it. */
static void unmap_leaves(uintptr_t va, size_t nbytes)
{
	size_t step;

	for (size_t off = 0; off < nbytes; off += step) {
		struct slot s = find(va + off);

		set(s.pte, 0);
		tlb_forget(va + off);
		step = pte_size(s.level);
	}
	dsb_ish();
	isb();
	for (size_t off = 0; off < nbytes; off += step) {
		prune(root, PTE_ROOT_LEVEL, va + off);
		step = pte_size(1) - ((va + off) & (pte_size(1) - 1));
	}
}

int arch_mmu_map(uintptr_t va, uint64_t pa, size_t nbytes, unsigned int prot,
		 enum arch_memtype type)
{
	size_t step;

	if (!range_valid(va, nbytes) || !prot_valid(prot, type) || PAGE_OFFSET(pa) ||
	    ((pa | (pa + nbytes - 1)) & ~PTE_ADDRESS) >> MM_PAGE_SHIFT)
		return -1;
	for (size_t off = 0; off < nbytes; off += step) {
		step = map_run(va + off, pa + off, nbytes - off, prot, type);
		if (!step) {
			prune(root, PTE_ROOT_LEVEL, va + off);
			unmap_leaves(va, off);
			return -1;
		}
	}
	dsb_ishst();
	isb();
	return 0;
}

int arch_mmu_unmap(uintptr_t va, size_t nbytes)
{
	if (!range_valid(va, nbytes) || !is_mapped(va, nbytes) || isolate(va, nbytes))
		return -1;
	unmap_leaves(va, nbytes);
	return 0;
}

int arch_mmu_protect(uintptr_t va, size_t nbytes, unsigned int prot, enum arch_memtype type)
{
	size_t step;

	if (!range_valid(va, nbytes) || !prot_valid(prot, type) || !is_mapped(va, nbytes) ||
	    isolate(va, nbytes))
		return -1;
	for (size_t off = 0; off < nbytes; off += step) {
		struct slot s = find(va + off);

		change_leaf(s, va + off, pte_leaf(*s.pte & PTE_ADDRESS, s.level, prot, type));
		step = pte_size(s.level);
	}
	dsb_ish();
	isb();
	join_range(va, nbytes);
	return 0;
}

bool arch_mmu_has_noncached(void)
{
	return true;
}

/* --- Setting up -------------------------------------------------------------- */

static int map_image_part(const char *start, const char *end, unsigned int prot)
{
	if (start == end)
		return 0;
	return arch_mmu_map((uintptr_t)start, arch_virt_to_phys(start), (size_t)(end - start), prot,
			    ARCH_MEM_NORMAL);
}

/* The guard pages are left out. */
static int map_image(void)
{
	unsigned int rw = ARCH_PROT_R | ARCH_PROT_W;

	if (map_image_part(__text_start, __text_end, ARCH_PROT_R | ARCH_PROT_X) ||
	    map_image_part(__rodata_start, __rodata_end, ARCH_PROT_R) ||
	    map_image_part(__data_start, __boot_stack_guard, rw) ||
	    map_image_part(__boot_stack_bottom, __emergency_stack_guard, rw))
		return -1;
	return map_image_part(__emergency_stack_bottom, __data_end, rw);
}

void arch_mmu_set_table_source(arch_table_alloc alloc, arch_table_free free)
{
	table_alloc = alloc;
	table_free = free;
}

int arch_mmu_init(arch_table_alloc alloc, arch_table_free free)
{
	arch_mmu_set_table_source(alloc, free);
	root = new_table();
	if (!root || map_image())
		return -1;
	window_pte = find((uintptr_t)window).pte;
	kassert(in_image(window_pte));
	*window_pte = 0;
	return 0;
}

/* The new tables are in TTBR1, TTBR0 is off, and nothing writable executes whatever they say. */
void arch_mmu_switch(void)
{
	uintptr_t replace_root = arch_virt_to_phys((const void *)(uintptr_t)mmu_replace_root);
	unsigned long irq = arch_irq_save();

	dsb_ishst();
	((void (*)(uint64_t))replace_root)(arch_virt_to_phys(root));
	sysreg_write(tcr_el1, sysreg_read(tcr_el1) | (uint64_t)1 << TCR_EPD0_BIT);
	sysreg_write(ttbr0_el1, 0);
	sysreg_write(sctlr_el1, sysreg_read(sctlr_el1) | (uint64_t)1 << SCTLR_WXN_BIT);
	isb();
	tlb_forget_all();
	dsb_ish();
	isb();
	live = true;
	arch_irq_restore(irq);
}

/* --- Looking ----------------------------------------------------------------- */

void arch_mmu_walk(uintptr_t va, struct arch_walk *out)
{
	const uint64_t *table = root;
	unsigned int level = PTE_ROOT_LEVEL;
	uint64_t pte;

	memset(out, 0, sizeof(*out));
	if (va < LINEAR_BASE || !root)
		return;
	for (;; level--) {
		pte = table[pte_index(va, level)];
		out->entry[out->depth++] = pte;
		if (!pte_is_table(pte, level))
			break;
		table = table_va(pte);
	}
	if (!pte)
		return;
	out->mapped = true;
	out->level = level;
	out->block_size = pte_size(level);
	out->pa = (pte & PTE_ADDRESS) | (va & (pte_size(level) - 1));
	out->type = (enum arch_memtype)((pte & PTE_TYPE) >> PTE_TYPE_SHIFT);
	out->prot = ARCH_PROT_R | (pte & PTE_READ_ONLY ? 0 : ARCH_PROT_W) |
		    (pte & PTE_PXN ? 0 : ARCH_PROT_X);
}

/* Translate for a read; PAR_EL1, whose bit 0 says that it failed. */
static uint64_t translate(uintptr_t va)
{
	unsigned long irq = arch_irq_save(); /* a handler that translates would overwrite it */
	uint64_t par;

	__asm__ volatile("at s1e1r, %0\n\tisb" ::"r"(va) : "memory");
	par = sysreg_read(par_el1);
	arch_irq_restore(irq);
	return par;
}

int arch_mmu_probe(uintptr_t va, uint64_t *pa, enum arch_memtype *type)
{
	uint64_t par = translate(va);
	uint64_t attr = par >> 56;

	if (par & 1)
		return -1;
	*pa = (par & PTE_ADDRESS) | PAGE_OFFSET(va);
	if (attr == MAIR_NONCACHED)
		*type = ARCH_MEM_NONCACHED;
	else
		*type = attr & 0xf0 ? ARCH_MEM_NORMAL : ARCH_MEM_DEVICE;
	return 0;
}

bool mmu_fault_was_transient(uintptr_t va)
{
	while (atomic_load(&broken))
		arch_relax();
	return va >= LINEAR_BASE && !(translate(va) & 1);
}
