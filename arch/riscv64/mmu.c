/* SPDX-License-Identifier: MIT */
/*
 * Page tables of three (Sv39), four (Sv48) or five (Sv57) levels. Level 0 maps
 * pages; a leaf at level n maps 4 KiB << 9n, and leaves are allowed at every level.
 * An entry is a leaf, a pointer to a table, or zero; nothing else ever.
 *
 * All operations are loops over "the entry that decides about va" (lookup): no
 * recursion, no level by level cases. A change of a range first splits the blocks
 * at its two ends, which is all that can fail; then it rewrites whole leaves;
 * then it flushes; then it collapses tables that one entry could stand for, be they empty or
 * uniform. So protecting a part of a block and restoring it leaves the block as it was.
 *
 * Break-before-make: a split installs a table that says the same as the block it
 * replaces, with one 8-byte store, and a collapse does the reverse. RISC-V lets a CPU use either
 * until the next sfence.vma, and both translate alike; so there is no moment at which memory
 * under a running stack is unmapped. A table page is given back only after
 * sfence.vma over everything, on all CPUs, for walkers may hold pointers to it.
 *
 * No operation is reentrant: the kernel serialises them.
 */
#include <arch/arch.h>

#include "riscv.h"
#include "sbi.h"

#define PA_BITS	    56
#define FLUSH_PAGES 64u /* a longer range flushes everything */

static struct {
	unsigned int levels;
	uintptr_t linear_base;
	uint64_t image_offset; /* virtual less physical address of the image */
	uint64_t *root;	       /* the live table, or the one being built */
	arch_table_alloc alloc;
	arch_table_free free;
	arch_table_free early_free; /* of the tables that lie in the image */
} mmu;

static unsigned int level_shift(unsigned int level)
{
	return MM_PAGE_SHIFT + 9 * level;
}

static uint64_t size_at(unsigned int level)
{
	return (uint64_t)1 << level_shift(level);
}

/* From one leaf to the next of the same level. */
static uint64_t leaf_step(unsigned int level)
{
	return size_at(level) >> MM_PAGE_SHIFT << PTE_PPN_SHIFT;
}

/* --- Addresses ------------------------------------------------------------- */

static bool in_image(uint64_t pa)
{
	uint64_t start = (uintptr_t)__image_start - mmu.image_offset;

	return pa - start < (uint64_t)(__image_end - __image_start);
}

void *arch_phys_to_virt(uint64_t pa)
{
	return (void *)(pa + mmu.linear_base);
}

uint64_t arch_virt_to_phys(const void *va)
{
	uintptr_t address = (uintptr_t)va;

	return address - (address >= ARCH_KERNEL_BASE ? mmu.image_offset : mmu.linear_base);
}

uint64_t arch_linear_limit(void)
{
	return ARCH_VMAP_BASE - mmu.linear_base;
}

/* --- Entries --------------------------------------------------------------- */

static bool is_table(uint64_t entry)
{
	return entry && !(entry & PTE_LEAF);
}

static uint64_t entry_pa(uint64_t entry)
{
	return (entry & PTE_PPN_MASK) >> PTE_PPN_SHIFT << MM_PAGE_SHIFT;
}

static uint64_t *table_of(uint64_t entry)
{
	uint64_t pa = entry_pa(entry);

	return in_image(pa) ? (uint64_t *)(pa + mmu.image_offset) : arch_phys_to_virt(pa);
}

/* What is written before is seen by a walker of any CPU that sees the entry. */
static void set_entry(uint64_t *entry, uint64_t value)
{
	arch_wmb();
	*(volatile uint64_t *)entry = value;
}

/* 0, -1: no such protection, -2: no such memory type. */
static int leaf_flags(unsigned int prot, enum arch_memtype type, uint64_t *flags)
{
	uint64_t f = PTE_ALWAYS;

	if (!prot || (prot & (ARCH_PROT_W | ARCH_PROT_X)) == (ARCH_PROT_W | ARCH_PROT_X))
		return -1;
	if (type == ARCH_MEM_NONCACHED && !riscv_isa.svpbmt)
		return -2;
	if (prot & (ARCH_PROT_R | ARCH_PROT_W))
		f |= PTE_R;
	if (prot & ARCH_PROT_W)
		f |= PTE_W;
	if (prot & ARCH_PROT_X)
		f |= PTE_X;
	if (type == ARCH_MEM_NONCACHED)
		f |= PTE_PBMT_NC;
	else if (type == ARCH_MEM_DEVICE && riscv_isa.svpbmt)
		f |= PTE_PBMT_IO;
	*flags = f;
	return 0;
}

/* --- Flushing -------------------------------------------------------------- */

static void flush_local(uintptr_t va, size_t nbytes)
{
	if (nbytes > FLUSH_PAGES * MM_PAGE_SIZE) {
		__asm__ volatile("sfence.vma" : : : "memory");
		return;
	}
	for (size_t offset = 0; offset < nbytes; offset += MM_PAGE_SIZE)
		__asm__ volatile("sfence.vma %0" : : "r"(va + offset) : "memory");
}

/* The TLBs of all CPUs; the only place where other CPUs come in. */
static void flush(uintptr_t va, size_t nbytes)
{
	arch_mb();
	flush_local(va, nbytes);
	if (riscv_cpus_online > 1)
		sbi_remote_sfence(va, nbytes);
}

/* Everything, the pointers to tables included. */
static void flush_all(void)
{
	flush(0, SIZE_MAX);
}

/* --- Tables ---------------------------------------------------------------- */

static uint64_t *new_table(void)
{
	uint64_t *table = (uint64_t *)mmu.alloc();

	if (table)
		__builtin_memset(table, 0, TABLE_SIZE);
	return table;
}

static void free_table(uint64_t *table)
{
	arch_table_free give = (uintptr_t)table >= ARCH_KERNEL_BASE ? mmu.early_free : mmu.free;

	if (give)
		give((uintptr_t)table);
}

static void set_table(uint64_t *entry, const uint64_t *table)
{
	set_entry(entry, pte_leaf(arch_virt_to_phys(table), PTE_V));
}

/* The entry that decides about va, and its level: a leaf or zero. */
static uint64_t *lookup(uintptr_t va, unsigned int *level)
{
	uint64_t *table = mmu.root;
	unsigned int l = mmu.levels - 1;

	while (is_table(table[pte_index(va, l)])) {
		table = table_of(table[pte_index(va, l)]);
		l--;
	}
	*level = l;
	return &table[pte_index(va, l)];
}

/* The entry for va at that level, or NULL when the walk ends above it. */
static uint64_t *entry_at(uintptr_t va, unsigned int level)
{
	uint64_t *table = mmu.root;

	for (unsigned int l = mmu.levels - 1; l > level; l--) {
		if (!is_table(table[pte_index(va, l)]))
			return NULL;
		table = table_of(table[pte_index(va, l)]);
	}
	return &table[pte_index(va, level)];
}

/* The same, with tables made on the way; NULL: no page for one, or a block is mapped there. */
static uint64_t *make_entry_at(uintptr_t va, unsigned int level)
{
	uint64_t *table = mmu.root;

	for (unsigned int l = mmu.levels - 1; l > level; l--) {
		uint64_t *entry = &table[pte_index(va, l)];

		if (is_table(*entry)) {
			table = table_of(*entry);
			continue;
		}
		table = *entry ? NULL : new_table();
		if (!table)
			return NULL;
		set_table(entry, table);
	}
	return &table[pte_index(va, level)];
}

/* Replace a block by a table that says the same. */
static int split(uint64_t *entry, unsigned int level)
{
	uint64_t *table = (uint64_t *)mmu.alloc();
	uint64_t leaf = *entry;

	if (!table)
		return -1;
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++, leaf += leaf_step(level - 1))
		table[i] = leaf;
	set_table(entry, table);
	return 0;
}

/* Make va the start of whatever maps it. */
static int split_at(uintptr_t va)
{
	unsigned int level;
	uint64_t *entry = lookup(va, &level);

	while (*entry && va % size_at(level)) {
		if (split(entry, level))
			return -1;
		entry = lookup(va, &level);
	}
	return 0;
}

/* Could one entry at `level` say the same as this table below it? */
static bool one_entry_for(const uint64_t *table, unsigned int level, uint64_t *entry)
{
	uint64_t step = table[0] ? leaf_step(level - 1) : 0;

	if (is_table(table[0]) || entry_pa(table[0]) % size_at(level))
		return false;
	for (unsigned int i = 1; i < TABLE_ENTRIES; i++)
		if (table[i] != table[0] + i * step)
			return false;
	*entry = table[0];
	return true;
}

/* Do away with needless tables above va, from the lowest up. */
static void collapse(uintptr_t va)
{
	for (unsigned int level = 1; level < mmu.levels; level++) {
		uint64_t *entry = entry_at(va, level);
		uint64_t *table;
		uint64_t whole;

		if (!entry || !is_table(*entry))
			continue;
		table = table_of(*entry);
		if (!one_entry_for(table, level, &whole))
			return;
		set_entry(entry, whole);
		flush_all();
		free_table(table);
	}
}

/* --- Ranges ---------------------------------------------------------------- */

/* Bytes from va to the end of the entry that decides about it, if that is at `level`. */
static size_t rest_of_entry(uintptr_t va, unsigned int level)
{
	return size_at(level) - va % size_at(level);
}

static bool range_valid(uintptr_t va, size_t nbytes)
{
	return nbytes && va % MM_PAGE_SIZE == 0 && nbytes % MM_PAGE_SIZE == 0 &&
	       va >= mmu.linear_base && nbytes - 1 <= UINTPTR_MAX - va;
}

static bool all_mapped(uintptr_t va, size_t nbytes)
{
	unsigned int level;

	for (size_t done = 0; done < nbytes; done += rest_of_entry(va + done, level))
		if (!*lookup(va + done, &level))
			return false;
	return true;
}

static void collapse_range(uintptr_t va, size_t nbytes)
{
	for (size_t done = 0; done < nbytes; done += rest_of_entry(va + done, 1))
		collapse(va + done);
}

/* Make both ends of the range ends of leaves. On failure the table says what it said. */
static int split_range(uintptr_t va, size_t nbytes)
{
	if (!split_at(va) && !split_at(va + nbytes))
		return 0;
	collapse(va);
	collapse(va + nbytes - 1);
	return -1;
}

/* How many entries at `level`, from the one of va on, lie in one table and within the range. */
static size_t run_length(uintptr_t va, size_t nbytes, unsigned int level)
{
	size_t room = TABLE_ENTRIES - pte_index(va, level);
	size_t wanted = nbytes >> level_shift(level);

	return wanted < room ? wanted : room;
}

/* Give all leaves of a range these flags; 0 unmaps. The range has been split. */
static void rewrite(uintptr_t va, size_t nbytes, uint64_t flags)
{
	size_t done = 0;

	while (done < nbytes) {
		unsigned int level;
		uint64_t *entry = lookup(va + done, &level);
		uint64_t *end = entry + run_length(va + done, nbytes - done, level);

		for (; entry < end && !is_table(*entry); entry++, done += size_at(level))
			set_entry(entry, flags ? (*entry & PTE_PPN_MASK) | flags : 0);
	}
	flush(va, nbytes);
	collapse_range(va, nbytes);
}

/* The level of the largest block that can start at va and pa. */
static unsigned int best_level(uintptr_t va, uint64_t pa, size_t nbytes)
{
	unsigned int level = 0;

	while (level + 1 < mmu.levels && (va | pa) % size_at(level + 1) == 0 &&
	       nbytes >= size_at(level + 1))
		level++;
	return level;
}

/* Leaves of one size in one table, as many as fit; returns the bytes mapped, 0 on failure. */
static size_t map_run(uintptr_t va, uint64_t pa, size_t nbytes, uint64_t flags)
{
	unsigned int level = best_level(va, pa, nbytes);
	uint64_t *entry = make_entry_at(va, level);
	size_t n = run_length(va, nbytes, level);
	uint64_t leaf = pte_leaf(pa, flags);

	if (!entry)
		return 0;
	for (size_t i = 0; i < n; i++, leaf += leaf_step(level)) {
		if (entry[i])
			return i * size_at(level);
		set_entry(&entry[i], leaf);
	}
	return n * size_at(level);
}

int arch_mmu_map(uintptr_t va, uint64_t pa, size_t nbytes, unsigned int prot,
		 enum arch_memtype type)
{
	uint64_t pa_limit = (uint64_t)1 << PA_BITS;
	uint64_t flags;
	int error = leaf_flags(prot, type, &flags);

	if (error)
		return error;
	if (!range_valid(va, nbytes) || pa % MM_PAGE_SIZE || nbytes > pa_limit ||
	    pa > pa_limit - nbytes)
		return -1;
	for (size_t done = 0, step; done < nbytes; done += step) {
		step = map_run(va + done, pa + done, nbytes - done, flags);
		if (step)
			continue;
		if (done)
			rewrite(va, done, 0);
		collapse(va + done);
		return -1;
	}
	flush(va, nbytes);
	return 0;
}

int arch_mmu_unmap(uintptr_t va, size_t nbytes)
{
	if (!range_valid(va, nbytes) || !all_mapped(va, nbytes) || split_range(va, nbytes))
		return -1;
	rewrite(va, nbytes, 0);
	return 0;
}

int arch_mmu_protect(uintptr_t va, size_t nbytes, unsigned int prot, enum arch_memtype type)
{
	uint64_t flags;
	int error = leaf_flags(prot, type, &flags);

	if (error)
		return error;
	if (!range_valid(va, nbytes) || !all_mapped(va, nbytes) || split_range(va, nbytes))
		return -1;
	rewrite(va, nbytes, flags);
	return 0;
}

bool arch_mmu_has_noncached(void)
{
	return riscv_isa.svpbmt;
}

/* --- The life of the kernel's table ---------------------------------------- */

void riscv_mmu_early(uint64_t *root, unsigned int levels, uint64_t image_pa)
{
	static const uintptr_t linear_base[] = {0xffffffc000000000, 0xffff800000000000,
						0xff00000000000000};

	mmu.root = root;
	mmu.levels = levels;
	mmu.linear_base = linear_base[levels - 3];
	mmu.image_offset = (uintptr_t)__image_start - image_pa;
}

const char *riscv_mmu_mode(void)
{
	static const char *const names[] = {"Sv39", "Sv48", "Sv57"};

	return names[mmu.levels - 3];
}

/* The image at its link address, from start up to end. */
static int map_image(const char *start, const char *end, unsigned int prot)
{
	if (start == end)
		return 0;
	return arch_mmu_map((uintptr_t)start, arch_virt_to_phys(start), (size_t)(end - start), prot,
			    ARCH_MEM_NORMAL);
}

int arch_mmu_init(arch_table_alloc alloc, arch_table_free free)
{
	unsigned int rw = ARCH_PROT_R | ARCH_PROT_W;
	uint64_t *root;

	mmu.alloc = alloc;
	mmu.free = free;
	mmu.early_free = free;
	root = new_table();
	if (!root)
		return -1;
	mmu.root = root;
	if (map_image(__text_start, __text_end, ARCH_PROT_R | ARCH_PROT_X) ||
	    map_image(__rodata_start, __rodata_end, ARCH_PROT_R) ||
	    map_image(__data_start, __boot_stack_guard, rw) ||
	    map_image(__boot_stack_bottom, __emergency_stack_guard, rw) ||
	    map_image(__emergency_stack_bottom, __data_end, rw))
		return -1;
	return 0;
}

void arch_mmu_switch(void)
{
	uint64_t mode = (uint64_t)(SATP_SV39 + mmu.levels - 3) << SATP_MODE_SHIFT;
	uint64_t satp = mode | arch_virt_to_phys(mmu.root) >> MM_PAGE_SHIFT;

	__asm__ volatile("sfence.vma\n\tcsrw satp, %0\n\tsfence.vma" : : "r"(satp) : "memory");
}

void arch_mmu_set_table_source(arch_table_alloc alloc, arch_table_free free)
{
	mmu.alloc = alloc;
	mmu.free = free;
}

/* --- Looking --------------------------------------------------------------- */

static unsigned int prot_of(uint64_t entry)
{
	return (entry & PTE_R ? ARCH_PROT_R : 0u) | (entry & PTE_W ? ARCH_PROT_W : 0u) |
	       (entry & PTE_X ? ARCH_PROT_X : 0u);
}

static enum arch_memtype type_of(uint64_t entry)
{
	uint64_t pbmt = entry & PTE_PBMT_MASK;

	if (pbmt == PTE_PBMT_NC)
		return ARCH_MEM_NONCACHED;
	return pbmt == PTE_PBMT_IO ? ARCH_MEM_DEVICE : ARCH_MEM_NORMAL;
}

/* Bits above the ones translated must all be like the highest of these. */
static bool is_canonical(uintptr_t va)
{
	unsigned int unused = 64 - (MM_PAGE_SHIFT + 9 * mmu.levels);

	return (uintptr_t)((intptr_t)(va << unused) >> unused) == va;
}

void arch_mmu_walk(uintptr_t va, struct arch_walk *out)
{
	const uint64_t *table = mmu.root;
	uint64_t entry;

	*out = (struct arch_walk){.level = mmu.levels};
	if (!is_canonical(va))
		return;
	do {
		out->level--;
		entry = table[pte_index(va, out->level)];
		out->entry[out->depth++] = entry;
		table = is_table(entry) ? table_of(entry) : NULL;
	} while (table);
	if (!entry)
		return;
	out->mapped = true;
	out->block_size = size_at(out->level);
	out->pa = entry_pa(entry) + va % out->block_size;
	out->prot = prot_of(entry);
	out->type = type_of(entry);
}

int arch_mmu_probe(uintptr_t va, uint64_t *pa, enum arch_memtype *type)
{
	(void)va;
	(void)pa;
	(void)type;
	return -1;
}
