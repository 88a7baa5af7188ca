/* SPDX-License-Identifier: MIT */
/* What tests/embed/embed.c needs of a host. */
#include <stdio.h>

void console_write(const char *s);

void console_write(const char *s)
{
	fputs(s, stdout);
}
