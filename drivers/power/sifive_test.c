/* SPDX-License-Identifier: MIT */
/* The test finisher of SiFive and QEMU: ends the emulator with an exit status. */
#include <arch/arch.h>
#include <kernel/driver.h>
#include <kernel/power.h>

#define FINISH_FAIL  0x3333u /* the status is in the upper half */
#define FINISH_PASS  0x5555u
#define FINISH_RESET 0x7777u

static volatile void *finisher;

static void finish(uint32_t value)
{
	arch_io_mb();
	arch_write32(finisher, value);
}

static void test_poweroff(struct power_device *d, int status)
{
	(void)d;
	finish(status ? ((uint32_t)status & 0xffffu) << 16 | FINISH_FAIL : FINISH_PASS);
}

static void test_reboot(struct power_device *d)
{
	(void)d;
	finish(FINISH_RESET);
}

static struct power_device device = {
	.name = "sifive-test",
	.poweroff = test_poweroff,
	.reboot = test_reboot,
};

static int sifive_test_probe(const struct fdt_node *node)
{
	phys_addr_t base;
	uint64_t size;

	if (finisher || fdt_reg(node, 0, &base, &size) < 0 || size < sizeof(uint32_t))
		return -1;
	finisher = io_map(base, sizeof(uint32_t));
	if (!finisher)
		return -1;
	power_register(&device);
	return 0;
}

static const char *const sifive_test_compatible[] = {"sifive,test1", "sifive,test0", NULL};

DRIVER(sifive_test) = {
	.name = "sifive-test",
	.compatible = sifive_test_compatible,
	.stage = DRIVER_DEVICE,
	.probe = sifive_test_probe,
};
