/* SPDX-License-Identifier: MIT */
/* The end of a run. */
#ifndef KERNEL_POWER_H
#define KERNEL_POWER_H

#include <stdbool.h>

/* A device that can end the machine with an exit status; registered by its driver. */
struct power_device {
	const char *name;
	void (*poweroff)(struct power_device *d, int status);
	void (*reboot)(struct power_device *d);
};
void power_register(struct power_device *d);

/* Say the status on the console, then power off through the device, else the firmware, else stop.
 */
__attribute__((noreturn)) void power_off(int status);
__attribute__((noreturn)) void power_reboot(void);

#endif
