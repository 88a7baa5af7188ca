/* SPDX-License-Identifier: MIT */
/* The prompt. Commands are found by the linker, as drivers are. */
#ifndef KERNEL_MONITOR_H
#define KERNEL_MONITOR_H

struct command {
	const char *name;
	const char *usage; /* arguments, "" for none */
	const char *help;  /* one line */
	/* argv[0] is the name. Nonzero: wrong arguments, the usage is shown. */
	int (*run)(int argc, char **argv);
};

#define COMMAND(id, cmd_name, cmd_usage, cmd_help, cmd_run)                                    \
	static const struct command command_##id                                               \
		__attribute__((section("commands"), used, aligned(8))) = {cmd_name, cmd_usage, \
									  cmd_help, cmd_run}

/* Read and run commands for ever. */
__attribute__((noreturn)) void monitor_run(void);

#endif
