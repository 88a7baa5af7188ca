/* SPDX-License-Identifier: MIT */
#include <lib/format.h>
#include <lib/string.h>

struct spec {
	bool left, zero;
	unsigned int width;
	int precision;	    /* -1: none */
	unsigned int longs; /* 0 int, 1 long or size_t, 2 long long */
};

struct sink {
	void (*put)(void *ctx, const char *s, size_t n);
	void *ctx;
};

static void pad(const struct sink *out, char c, size_t n)
{
	while (n--)
		out->put(out->ctx, &c, 1);
}

/* prefix ("-", "0x") goes before zero padding and after blanks. */
static void emit(const struct sink *out, const struct spec *sp, const char *prefix, const char *s,
		 size_t n)
{
	size_t np = strlen(prefix), len = n + np;
	size_t fill = sp->width > len ? sp->width - len : 0;

	if (!sp->left && !sp->zero)
		pad(out, ' ', fill);
	if (np)
		out->put(out->ctx, prefix, np);
	if (!sp->left && sp->zero)
		pad(out, '0', fill);
	out->put(out->ctx, s, n);
	if (sp->left)
		pad(out, ' ', fill);
}

static void emit_number(const struct sink *out, const struct spec *sp, const char *prefix,
			uint64_t value, unsigned int base, bool upper)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char buf[24];
	size_t i = sizeof(buf);

	do {
		buf[--i] = digits[value % base];
		value /= base;
	} while (value);
	emit(out, sp, prefix, buf + i, sizeof(buf) - i);
}

static const char *parse_spec(const char *p, struct spec *sp, va_list *ap)
{
	*sp = (struct spec){.precision = -1};
	for (;; p++) {
		if (*p == '-')
			sp->left = true;
		else if (*p == '0')
			sp->zero = true;
		else
			break;
	}
	if (*p == '*') {
		sp->width = va_arg(*ap, unsigned int);
		p++;
	}
	for (; *p >= '0' && *p <= '9'; p++)
		sp->width = sp->width * 10 + (unsigned int)(*p - '0');
	if (*p == '.') {
		p++;
		sp->precision = 0;
		if (*p == '*') {
			sp->precision = va_arg(*ap, int);
			p++;
		}
		for (; *p >= '0' && *p <= '9'; p++)
			sp->precision = sp->precision * 10 + (*p - '0');
	}
	for (; *p == 'l' || *p == 'z'; p++)
		sp->longs += 1;
	return p;
}

static uint64_t next_unsigned(const struct spec *sp, va_list *ap)
{
	return sp->longs ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned int);
}

static int64_t next_signed(const struct spec *sp, va_list *ap)
{
	return sp->longs ? va_arg(*ap, long) : va_arg(*ap, int);
}

static void convert(const struct sink *out, char c, const struct spec *sp, va_list *ap)
{
	int64_t i;
	const char *s;
	char ch;

	switch (c) {
	case 'd':
	case 'i':
		i = next_signed(sp, ap);
		emit_number(out, sp, i < 0 ? "-" : "", i < 0 ? -(uint64_t)i : (uint64_t)i, 10,
			    false);
		break;
	case 'u':
		emit_number(out, sp, "", next_unsigned(sp, ap), 10, false);
		break;
	case 'x':
	case 'X':
		emit_number(out, sp, "", next_unsigned(sp, ap), 16, c == 'X');
		break;
	case 'p':
		emit_number(out, sp, "0x", (uintptr_t)va_arg(*ap, void *), 16, false);
		break;
	case 'c':
		ch = (char)va_arg(*ap, int);
		emit(out, sp, "", &ch, 1);
		break;
	case 's':
		s = va_arg(*ap, const char *);
		if (!s)
			s = "(null)";
		emit(out, sp, "", s,
		     sp->precision < 0 ? strlen(s) : strnlen(s, (size_t)sp->precision));
		break;
	default: /* show what is not understood */
		out->put(out->ctx, &c, 1);
	}
}

void format_text(void (*put)(void *, const char *, size_t), void *ctx, const char *fmt, va_list ap)
{
	const struct sink out = {put, ctx};
	struct spec sp;
	va_list args;

	va_copy(args, ap);
	while (*fmt) {
		const char *p = fmt;

		while (*p && *p != '%')
			p++;
		if (p != fmt)
			put(ctx, fmt, (size_t)(p - fmt));
		if (!*p)
			break;
		p = parse_spec(p + 1, &sp, &args);
		if (!*p)
			break;
		convert(&out, *p, &sp, &args);
		fmt = p + 1;
	}
	va_end(args);
}

struct buffer {
	char *p;
	size_t size, len;
};

static void put_buffer(void *ctx, const char *s, size_t n)
{
	struct buffer *b = ctx;

	for (size_t i = 0; i < n; i++, b->len++)
		if (b->len + 1 < b->size)
			b->p[b->len] = s[i];
}

size_t format_vbuf(char *buf, size_t size, const char *fmt, va_list ap)
{
	struct buffer b = {buf, size, 0};

	format_text(put_buffer, &b, fmt, ap);
	if (size)
		buf[b.len < size ? b.len : size - 1] = '\0';
	return b.len;
}

size_t format_buf(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = format_vbuf(buf, size, fmt, ap);
	va_end(ap);
	return n;
}

static unsigned int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	c |= 0x20;
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a') + 10;
	return 16;
}

bool parse_number(const char *s, uint64_t *out)
{
	unsigned int base = 10;
	uint64_t v = 0;

	if (s[0] == '0' && (s[1] | 0x20) == 'x') {
		base = 16;
		s += 2;
	}
	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned int d = digit_value(*s);

		if (d >= base || v > (UINT64_MAX - d) / base)
			return false;
		v = v * base + d;
	}
	*out = v;
	return true;
}

int strlist_index(const char *list, size_t size, const char *s)
{
	const char *end;

	for (int i = 0; size && (end = memchr(list, '\0', size)); i++) {
		if (*list == *s && !strcmp(list, s))
			return i;
		size -= (size_t)(end + 1 - list);
		list = end + 1;
	}
	return -1;
}

void make_printable(char *s)
{
	for (; *s; s++)
		if (*s < ' ' || *s > '~')
			*s = '?';
}

bool glob_match(const char *glob, const char *s)
{
	const char *star = NULL, *resume = NULL;

	while (*s) {
		if (*glob == '*') {
			star = ++glob;
			resume = s;
		} else if (*glob && (*glob == '?' || *glob == *s)) {
			glob++;
			s++;
		} else if (star) {
			glob = star;
			s = ++resume;
		} else {
			return false;
		}
	}
	while (*glob == '*')
		glob++;
	return !*glob;
}
