/* SPDX-License-Identifier: MIT */
/*
 * Formatted text: %s %c %d %i %u %x %X %p %%, with l, ll and z, a width, a
 * precision for strings, the flags - and 0. No floating point.
 */
#ifndef LIB_FORMAT_H
#define LIB_FORMAT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Calls put for each piece of text. */
void format_text(void (*put)(void *ctx, const char *s, size_t n), void *ctx, const char *fmt,
		 va_list ap);

/* As snprintf: always terminated when size is not 0; returns the length it would have had. */
size_t format_buf(char *buf, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
size_t format_vbuf(char *buf, size_t size, const char *fmt, va_list ap);

/* Text of a device, for a terminal: what is not printable ASCII becomes '?'. */
void make_printable(char *s);

/*
 * The place of s in a list of strings, each with its NUL, as device trees have them; negative: it
 * is not there. What is behind the last NUL counts for nothing.
 */
int strlist_index(const char *list, size_t size, const char *s);

/* A number in C notation (0x for hexadecimal), the whole string. False: *out untouched. */
bool parse_number(const char *s, uint64_t *out);

/* Shell-like match of the whole string: * and ?. */
bool glob_match(const char *glob, const char *s);

#endif
