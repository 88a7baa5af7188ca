/* SPDX-License-Identifier: MIT */
/* The prompt: line editing, history, completion of command names. */
#include <kernel/monitor.h>

#include <arch/arch.h>
#include <kernel/log.h>
#include <kernel/time.h>
#include <lib/string.h>

#define LINE_SIZE 128u
#define HISTORY	  16u
#define MAX_ARGS  8
#define POLL_MS	  10u

extern const struct command __start_commands[], __stop_commands[];

static struct {
	char text[LINE_SIZE];
	size_t len, cursor;
} line;

static char history[HISTORY][LINE_SIZE];
static unsigned int history_count;

/*
 * Sleep between looks at the consoles; the timer ends each sleep. Interrupts are off from the look
 * on, so that the timer's, when it comes before the sleep, is still pending and ends it.
 */
static char read_char(void)
{
	unsigned long state = arch_irq_save();
	int c;

	while ((c = console_getc()) < 0) {
		timer_wake_by(time_after_ms(POLL_MS));
		if (timer_can_wake())
			arch_wait_for_interrupt();
		arch_irq_restore(state);
		state = arch_irq_save();
	}
	arch_irq_restore(state);
	return (char)c;
}

/* --- The line -------------------------------------------------------------- */

static void show(void)
{
	kprintf("\r\x1b[Kmica> %s", line.text);
	if (line.cursor < line.len)
		kprintf("\x1b[%zuD", line.len - line.cursor);
}

static void set_line(const char *s)
{
	line.len = strnlen(s, LINE_SIZE - 1);
	memcpy(line.text, s, line.len);
	line.text[line.len] = '\0';
	line.cursor = line.len;
}

static void insert_char(char c)
{
	if (line.len + 1 >= LINE_SIZE)
		return;
	memmove(line.text + line.cursor + 1, line.text + line.cursor, line.len - line.cursor + 1);
	line.text[line.cursor++] = c;
	line.len++;
}

static void erase(size_t at)
{
	if (at >= line.len)
		return;
	memmove(line.text + at, line.text + at + 1, line.len - at);
	line.len--;
	if (line.cursor > at)
		line.cursor--;
}

static void complete(void)
{
	const struct command *found = NULL;
	unsigned int n = 0;

	for (const struct command *c = __start_commands; c < __stop_commands; c++)
		if (!strncmp(c->name, line.text, line.len)) {
			found = c;
			n++;
		}
	if (n == 1) {
		set_line(found->name);
		insert_char(' ');
		return;
	}
	kprintf("\n");
	for (const struct command *c = __start_commands; c < __stop_commands; c++)
		if (!strncmp(c->name, line.text, line.len))
			kprintf("%s  ", c->name);
	kprintf("\n");
}

/* entry 0 is the newest; history_count: the empty line that is being typed */
static unsigned int recall(unsigned int back)
{
	unsigned int known = history_count < HISTORY ? history_count : HISTORY;

	if (back > known)
		return known;
	set_line(back ? history[(history_count - back) % HISTORY] : "");
	return back;
}

static void remember(void)
{
	if (!line.len)
		return;
	if (history_count && !strcmp(history[(history_count - 1) % HISTORY], line.text))
		return;
	memcpy(history[history_count++ % HISTORY], line.text, LINE_SIZE);
}

/* After ESC [: arrows, Home, End, Delete. */
static void escape(unsigned int *back)
{
	char c;

	if (read_char() != '[')
		return;
	c = read_char();
	switch (c) {
	case 'A':
		*back = recall(*back + 1);
		break;
	case 'B':
		if (*back)
			*back = recall(*back - 1);
		break;
	case 'C':
		line.cursor += line.cursor < line.len;
		break;
	case 'D':
		line.cursor -= line.cursor > 0;
		break;
	case 'H':
		line.cursor = 0;
		break;
	case 'F':
		line.cursor = line.len;
		break;
	case '3':
		if (read_char() == '~')
			erase(line.cursor);
		break;
	}
}

static void edit(char c, unsigned int *back)
{
	switch (c) {
	case 0x1b:
		escape(back);
		break;
	case 0x7f:
	case '\b':
		if (line.cursor)
			erase(line.cursor - 1);
		break;
	case '\t':
		complete();
		break;
	case 'A' - '@':
		line.cursor = 0;
		break;
	case 'E' - '@':
		line.cursor = line.len;
		break;
	case 'K' - '@':
		line.len = line.cursor;
		line.text[line.len] = '\0';
		break;
	case 'C' - '@':
	case 'U' - '@':
		set_line("");
		break;
	default:
		if (c >= ' ')
			insert_char(c);
	}
}

static void read_line(void)
{
	unsigned int back = 0;

	set_line("");
	show();
	for (;;) {
		char c = read_char();

		if (c == '\r' || c == '\n')
			break;
		edit(c, &back);
		show();
	}
	kprintf("\n");
	remember();
}

/* --- Commands -------------------------------------------------------------- */

static int split(char *s, char **argv)
{
	int n = 0;

	while (n < MAX_ARGS) {
		while (*s == ' ')
			*s++ = '\0';
		if (!*s)
			break;
		argv[n++] = s;
		while (*s && *s != ' ')
			s++;
	}
	return n;
}

static void run_line(void)
{
	char *argv[MAX_ARGS];
	int argc = split(line.text, argv);

	if (!argc)
		return;
	for (const struct command *c = __start_commands; c < __stop_commands; c++) {
		if (strcmp(c->name, argv[0]))
			continue;
		if (c->run(argc, argv))
			kprintf("usage: %s %s\n", c->name, c->usage);
		return;
	}
	kprintf("%s: no such command; try help\n", argv[0]);
}

static int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	for (const struct command *c = __start_commands; c < __stop_commands; c++)
		kprintf("  %-9s %-16s %s\n", c->name, c->usage, c->help);
	return 0;
}
COMMAND(help, "help", "", "this list", cmd_help);

void monitor_run(void)
{
	kprintf("Type help for a list of commands.\n");
	for (;;) {
		read_line();
		run_line();
	}
}
