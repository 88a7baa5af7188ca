/* SPDX-License-Identifier: MIT */
/* A plugin of QEMU's user-mode emulator that counts the instructions of the emulated program, in a
 * file that the program can map (counter.h).
 *
 *	qemu-x86_64 -plugin libcount.so,counter=COUNTER program ...
 *
 * QEMU translates straight runs of instructions; each run adds its length before it is executed. A
 *read of the counter so includes all of the run that it is in, and the difference between two reads
 * is exact up to a constant that belongs to the place of the reads: measure an empty call at the
 *same place, and subtract it. One thread only.
 *
 * No distribution packages qemu-plugin.h, hence the few declarations. They have been the same in
 *every version of the interface; PLUGIN_API says which one QEMU is told.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "counter.h"

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_info;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*translated)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
					  void (*executed)(unsigned int, void *),
					  enum qemu_plugin_cb_flags flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv);

int qemu_plugin_version = PLUGIN_API;

static volatile uint64_t *counter;

static void executed(unsigned int cpu, void *length)
{
	(void)cpu;
	*counter += (uintptr_t)length;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	uintptr_t length = qemu_plugin_tb_n_insns(tb);

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, (void *)length);
}

int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "counter=", 8) != 0) {
		fprintf(stderr, "libcount: counter=COUNTER is missing\n");
		return -1;
	}
	counter = counter_map(argv[0] + 8);
	if (!counter) {
		perror(argv[0] + 8);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
