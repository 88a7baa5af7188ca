/* SPDX-License-Identifier: MIT */
/*
 * Translation table entries, 4 KiB granule. Levels are numbered from the leaf:
 * level 0 is a page, 1 a block of 2 MiB, 2 one of 1 GiB, 3 the root (which the
 * architecture calls 3, 2, 1 and 0).
 */
#ifndef AARCH64_PTE_H
#define AARCH64_PTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <arch/arch.h>

#define PTE_COUNT      512u
#define PTE_ROOT_LEVEL 3u
#define PTE_LEAF_LEVEL 2u /* the highest level that has blocks */

#define PTE_VALID      ((uint64_t)1 << 0)
#define PTE_TABLE      ((uint64_t)1 << 1) /* above level 0; at level 0 it is one in a page */
#define PTE_TYPE_SHIFT 2
#define PTE_TYPE       ((uint64_t)7 << PTE_TYPE_SHIFT)
#define PTE_READ_ONLY  ((uint64_t)1 << 7)
#define PTE_SHARED     ((uint64_t)3 << 8) /* inner; without meaning on memory that is not cached */
#define PTE_ACCESSED   ((uint64_t)1 << 10)
#define PTE_PXN	       ((uint64_t)1 << 53)
#define PTE_UXN	       ((uint64_t)1 << 54)
#define PTE_ADDRESS    ((uint64_t)0x0000fffffffff000)

static inline unsigned int pte_shift(unsigned int level)
{
	return MM_PAGE_SHIFT + 9 * level;
}

static inline size_t pte_size(unsigned int level)
{
	return (size_t)1 << pte_shift(level);
}

static inline size_t pte_index(uintptr_t va, unsigned int level)
{
	return (va >> pte_shift(level)) % PTE_COUNT;
}

static inline bool pte_is_table(uint64_t pte, unsigned int level)
{
	return level && (pte & (PTE_VALID | PTE_TABLE)) == (PTE_VALID | PTE_TABLE);
}

static inline bool pte_is_leaf(uint64_t pte, unsigned int level)
{
	return (pte & PTE_VALID) && !pte_is_table(pte, level);
}

static inline uint64_t pte_table(uint64_t table_pa)
{
	return table_pa | PTE_VALID | PTE_TABLE;
}

/* User mode is not used, so it never may execute. */
static inline uint64_t pte_leaf(uint64_t pa, unsigned int level, unsigned int prot,
				enum arch_memtype type)
{
	uint64_t pte = pa | PTE_VALID | PTE_SHARED | PTE_ACCESSED | PTE_UXN |
		       (uint64_t)type << PTE_TYPE_SHIFT;

	if (!level)
		pte |= PTE_TABLE;
	if (!(prot & ARCH_PROT_W))
		pte |= PTE_READ_ONLY;
	if (!(prot & ARCH_PROT_X))
		pte |= PTE_PXN;
	return pte;
}

#endif
