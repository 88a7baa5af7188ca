/* SPDX-License-Identifier: MIT */
#include <kernel/power.h>

#include <arch/arch.h>
#include <kernel/log.h>

static struct power_device *device;

void power_register(struct power_device *d)
{
	if (!device)
		device = d;
}

static __attribute__((noreturn)) void stop(void)
{
	kprintf("mica: the machine cannot be powered off; stopped\n");
	arch_irq_disable();
	for (;;)
		arch_wait_for_interrupt();
}

void power_off(int status)
{
	/* Where no device carries the status out of the machine, this line does. */
	kprintf("mica: power off, status %d\n", status);
	if (device)
		device->poweroff(device, status);
	arch_poweroff();
	stop();
}

void power_reboot(void)
{
	kprintf("mica: reboot\n");
	if (device && device->reboot)
		device->reboot(device);
	arch_reboot();
	stop();
}
