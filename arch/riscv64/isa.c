/* SPDX-License-Identifier: MIT */
/*
 * What this CPU has beyond rv64imac. The device tree names the extensions, but
 * firmware must have enabled them too, and old firmware does not know the new
 * ones: so each is tried once before it counts.
 */
#include <arch/arch.h>
#include <lib/format.h>
#include <lib/string.h>

#include "riscv.h"
#include "sbi.h"

struct riscv_isa riscv_isa;
bool riscv_has_instret;

/* "rv64imafdc_zicsr_svpbmt1p0": multi-letter names stand behind an underscore, a version may
 * follow. */
static bool in_string(const char *isa, const char *name)
{
	size_t n = strlen(name);

	for (const char *s = strchr(isa, '_'); s; s = strchr(s, '_')) {
		s++;
		if (strncmp(s, name, n))
			continue;
		if (s[n] == '\0' || s[n] == '_' || (s[n] >= '0' && s[n] <= '9'))
			return true;
	}
	return false;
}

/* The string is what older trees have; those with the list need not have it, nor keep it true. */
static bool names_extension(const struct arch_boot_info *info, const char *name)
{
	if (info->riscv_extensions)
		return strlist_index(info->riscv_extensions, info->riscv_extensions_size, name) >=
		       0;
	return info->riscv_isa && in_string(info->riscv_isa, name);
}

/* Read the image through a mapping that is not cached, above the window on the device tree. */
static bool svpbmt_works(void)
{
	uintptr_t va = ARCH_VMAP_BASE + 2 * BLOCK_SIZE;
	uint64_t word;
	int failed;

	if (arch_mmu_map(va, arch_virt_to_phys(__image_start), BLOCK_SIZE, ARCH_PROT_R,
			 ARCH_MEM_NONCACHED))
		return false;
	failed = arch_probe_read(va, &word);
	return !arch_mmu_unmap(va, BLOCK_SIZE) && !failed;
}

void arch_set_boot_info(const struct arch_boot_info *info)
{
	riscv_isa.timebase_hz = info->timebase_hz;
	riscv_isa.cbom_block_size = info->riscv_cbom_block_size;
	riscv_has_instret = !riscv_probe_instret();
	riscv_isa.sstc = names_extension(info, "sstc") && !riscv_probe_stimecmp();
	riscv_isa.zicbom = names_extension(info, "zicbom") &&
			   mm_is_pow2(riscv_isa.cbom_block_size) &&
			   !riscv_probe_cbo_flush(__rodata_start);
	riscv_isa.svpbmt = names_extension(info, "svpbmt"); /* arch_mmu_map looks at it */
	riscv_isa.svpbmt = riscv_isa.svpbmt && svpbmt_works();
}

bool arch_cache_has_flush(void)
{
	return riscv_isa.zicbom;
}

int arch_cache_flush(uintptr_t va, size_t nbytes)
{
	uintptr_t line = va & ~((uintptr_t)riscv_isa.cbom_block_size - 1);

	if (!riscv_isa.zicbom)
		return -1;
	arch_io_mb();
	for (; line < va + nbytes; line += riscv_isa.cbom_block_size)
		__asm__ volatile(".insn i 0x0f, 2, x0, %0, 2" : : "r"(line) : "memory");
	arch_io_mb();
	return 0;
}

struct text {
	char *end;
	size_t left; /* behind end, without the final NUL */
};

static void append(struct text *t, const char *s)
{
	for (; *s && t->left; s++, t->left--)
		*t->end++ = *s;
}

static void append_number(struct text *t, uint64_t n)
{
	char digits[21];
	char *p = &digits[20];

	*p = '\0';
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	append(t, p);
}

static void append_firmware(struct text *t)
{
	uint64_t version;
	const char *name = sbi_implementation(&version);

	append(t, ", ");
	append(t, name ? name : "unknown SBI");
	if (!name || strcmp(name, "OpenSBI"))
		return;
	append(t, " ");
	append_number(t, version >> 16);
	append(t, ".");
	append_number(t, version & 0xffff);
}

void arch_describe(char *buf, size_t size)
{
	struct text t = {buf, size - 1};

	if (!size)
		return;
	append(&t, riscv_mmu_mode());
	append(&t, ", boot hart ");
	append_number(&t, riscv_boot_cpu.hart);
	append_firmware(&t);
	append(&t, riscv_isa.svpbmt ? ", svpbmt" : "");
	append(&t, riscv_isa.zicbom ? ", zicbom" : "");
	append(&t, riscv_isa.sstc ? ", sstc" : "");
	*t.end = '\0';
}
