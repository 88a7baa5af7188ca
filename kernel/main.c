/* SPDX-License-Identifier: MIT */
/* The boot order: one function, a call a line. */
#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/monitor.h>
#include <kernel/panic.h>
#include <kernel/power.h>
#include <kernel/selftest.h>
#include <kernel/time.h>
#include <lib/string.h>

#include "kernel.h"

static struct fdt tree;

const struct fdt *kernel_fdt(void)
{
	return &tree;
}

static void tree_open(const void *fdt_va, uint64_t fdt_pa)
{
	int e = fdt_va ? fdt_open(&tree, fdt_va, ARCH_FDT_MAX_SIZE) : FDT_NOT_FOUND;

	if (e < 0)
		panic("device tree at 0x%lx: %s", fdt_pa,
		      fdt_va ? fdt_error_text(e) : "none given");
}

/* Of /cpus: the timebase, and what is said of the CPU that boots. */
static void read_cpus(const struct fdt_node *cpus, struct arch_boot_info *info)
{
	struct fdt_value extensions;
	uint64_t hwid, size;

	fdt_get_u64(cpus, "timebase-frequency", &info->timebase_hz);
	for (struct fdt_node n = fdt_first_child(cpus); n.fdt; fdt_next_sibling(&n)) {
		if (fdt_bus_reg(&n, 0, &hwid, &size) < 0 || hwid != arch_boot_cpu_hwid())
			continue;
		if (!info->timebase_hz)
			fdt_get_u64(&n, "timebase-frequency", &info->timebase_hz);
		extensions = fdt_get(&n, "riscv,isa-extensions");
		info->riscv_extensions = (const char *)extensions.data;
		info->riscv_extensions_size = extensions.len;
		info->riscv_isa = fdt_get_str(&n, "riscv,isa", 0);
		fdt_get_u32(&n, "riscv,cbom-block-size", &info->riscv_cbom_block_size);
		return;
	}
}

/* What the architecture can learn from the tree only. One walk, for a walk is not cheap. */
static void pass_boot_info(void)
{
	struct arch_boot_info info = {0};
	struct fdt_node root = fdt_root(&tree);
	bool no_rate = !arch_time_hz();

	for (struct fdt_node n = fdt_first_child(&root); n.fdt; fdt_next_sibling(&n)) {
		if (fdt_name_is(&n, "psci"))
			info.psci_method = fdt_get_str(&n, "method", 0);
		else if (fdt_name_is(&n, "cpus"))
			read_cpus(&n, &info);
		else if (no_rate && fdt_name_is(&n, "timer"))
			fdt_get_u64(&n, "clock-frequency", &info.timer_hz);
	}
	arch_set_boot_info(&info);
}

static void say_hello(void)
{
	char cpu[96];

	arch_describe(cpu, sizeof(cpu));
	log_info("Mica on %s", cpu);
}

static size_t word_length(const char *s)
{
	size_t n = 0;

	while (s[n] && s[n] != ' ')
		n++;
	return n;
}

/* What follows key in the word of the kernel command line that starts with it, up to a blank; NULL:
 * there is none. A key without '=' is a whole word. */
static const char *boot_option(const char *key)
{
	const char *args = fdt_bootargs(&tree);
	size_t n = strlen(key);

	while (args && *args) {
		size_t len = word_length(args);

		if (!strncmp(args, key, n) && (key[n - 1] == '=' || len == n))
			return args + n;
		args += len + (args[len] == ' ');
	}
	return NULL;
}

static const char *test_filter(void)
{
	static char glob[256];
	const char *word = boot_option("test=");
	size_t n;

	if (!word)
		return NULL;
	n = word_length(word);
	if (n >= sizeof(glob)) {
		n = sizeof(glob) - 1;
		log_warn("test=: only %zu characters count", n);
	}
	memcpy(glob, word, n);
	return glob;
}

static __attribute__((noreturn)) void run_jobs(void)
{
	struct selftest_result r = selftest_run(test_filter());
	unsigned int bad_disks = disk_check();

	kprintf("mica: %u passed, %u failed, %u skipped\n", r.passed, r.failed + bad_disks,
		r.skipped);
	if (boot_option("prompt"))
		monitor_run();
	power_off(r.failed + bad_disks != 0);
}

void kernel_main(const void *fdt_va, uint64_t fdt_pa)
{
	time_init();		     /* which begins */
	arch_trap_init();	     /* from here on a fault is reported */
	tree_open(fdt_va, fdt_pa);   /* check the device tree, once */
	pass_boot_info();	     /* timebase, ISA, PSCI method */
	memory_init_tables(fdt_pa);  /* final page table: image and tree */
	driver_probe_console(&tree); /* the log becomes visible */
	log_consoles_probed();	     /* or is shown by the firmware */
	say_hello();
	memory_init(fdt_pa);			 /* linear map, global allocator */
	driver_probe_all(&tree, DRIVER_IRQCHIP); /* interrupt controllers */
	time_start();				 /* no alarm is set */
	driver_probe_all(&tree, DRIVER_TIMER);	 /* before any device is waited for */
	arch_irq_enable();
	time_try();				/* does the timer's come? */
	dma_setup();				/* what devices see of memory */
	driver_probe_all(&tree, DRIVER_DEVICE); /* disks, power */
	run_jobs();				/* self-tests, the disks, prompt or power off */
}
