/* SPDX-License-Identifier: MIT */
#include <lib/format.h>
#include <lib/sha256.h>
#include <lib/string.h>

#include <selftest/selftest.h>

static bool formats_to(const char *want, const char *fmt, ...)
{
	char buf[64];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = format_vbuf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	return n == strlen(want) && !strcmp(buf, want);
}

SELFTEST(lib, format)
{
	char small[4];

	CHECK(formats_to("-7 7 7 ff FF", "%d %u %i %x %X", -7, 7u, 7, 255u, 255u));
	CHECK(formats_to("-9223372036854775808", "%ld", INT64_MIN));
	CHECK(formats_to("18446744073709551615", "%zu", SIZE_MAX));
	CHECK(formats_to("|   a|b   |0042|-042|", "|%4s|%-4s|%04u|%04d|", "a", "b", 42u, -42));
	CHECK(formats_to("ab (null) %c", "%.2s %s %%%c", "abcdef", (char *)NULL, 'c'));
	CHECK(formats_to("0x1234", "%p", (void *)0x1234));
	CHECK(format_buf(small, sizeof(small), "%s", "abcdef") == 6 && !strcmp(small, "abc"));
	CHECK(format_buf(small, 0, "abc") == 3);
}

SELFTEST(lib, parse_number)
{
	uint64_t v = 5;

	CHECK(parse_number("0", &v) && v == 0);
	CHECK(parse_number("0xFfffffffffffffff", &v) && v == UINT64_MAX);
	CHECK(parse_number("18446744073709551615", &v) && v == UINT64_MAX);
	v = 5;
	CHECK(!parse_number("18446744073709551616", &v) && !parse_number("", &v));
	CHECK(!parse_number("0x", &v) && !parse_number("12a", &v) && !parse_number("-1", &v));
	CHECK(v == 5);
}

SELFTEST(lib, strlist_index)
{
	static const char list[] = "one\0\0three\0four";

	CHECK(strlist_index(list, sizeof(list), "one") == 0);
	CHECK(strlist_index(list, sizeof(list), "") == 1);
	CHECK(strlist_index(list, sizeof(list), "three") == 2);
	CHECK(strlist_index(list, sizeof(list), "four") == 3);
	CHECK(strlist_index(list, sizeof(list) - 1, "four") < 0); /* has no NUL */
	CHECK(strlist_index(list, sizeof(list), "thre") < 0 && strlist_index(NULL, 0, "") < 0);
}

SELFTEST(lib, make_printable)
{
	char s[] = "a ~\x1b[2J\x7f\xff";

	make_printable(s);
	CHECK(!strcmp(s, "a ~?[2J??"));
}

SELFTEST(lib, glob)
{
	CHECK(glob_match("mm/*", "mm/page") && !glob_match("mm/*", "dma/page"));
	CHECK(glob_match("*", "") && glob_match("", "") && !glob_match("", "a"));
	CHECK(glob_match("*a*b?", "xxaayybz") && !glob_match("*a*b?", "xxaayyb"));
}

SELFTEST(lib, sha256)
{
	static const struct {
		const char *text, *digest;
	} known[] = {
		/* FIPS 180-4 example messages */
		{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	};
	uint8_t digest[SHA256_SIZE];
	char text[2 * SHA256_SIZE + 1];
	struct sha256 s;

	for (unsigned int i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		sha256_init(&s);
		sha256_update(&s, known[i].text, strlen(known[i].text));
		sha256_final(&s, digest);
		sha256_text(digest, text);
		CHECK(!strcmp(text, known[i].digest));
	}
	/* 100,000 times "a", in pieces that do not fit the block. */
	sha256_init(&s);
	for (unsigned int i = 0; i < 1000; i++) {
		uint8_t piece[100];

		memset(piece, 'a', sizeof(piece));
		sha256_update(&s, piece, sizeof(piece));
	}
	sha256_final(&s, digest);
	sha256_text(digest, text);
	CHECK(!strcmp(text, "6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee"));
}

SELFTEST(lib, memory_functions)
{
	uint8_t buf[96], want[96];

	for (size_t from = 0; from < 16; from++)
		for (size_t to = 0; to < 16; to++)
			for (size_t n = 0; n <= 64; n += 7) {
				for (size_t i = 0; i < sizeof(buf); i++)
					want[i] = buf[i] = (uint8_t)(i * 7);
				for (size_t i = 0; i < n; i++)
					want[to + i] = (uint8_t)((from + i) * 7);
				memmove(buf + to, buf + from, n);
				CHECK(!memcmp(buf, want, sizeof(buf)));
			}
	for (size_t at = 0; at < 16; at++) {
		memset(buf, 1, sizeof(buf));
		memset(buf + at, 0xab, 50);
		for (size_t i = 0; i < sizeof(buf); i++)
			CHECK(buf[i] == (i >= at && i < at + 50 ? 0xab : 1));
	}
	CHECK(memcmp("abc", "abd", 3) < 0 && !memcmp("abc", "abd", 2));
	CHECK(strncmp("abc", "abd", 2) == 0 && strcmp("b", "abc") > 0);
	CHECK(strnlen("abcdef", 3) == 3 && !strchr("abc", 'x') && *strrchr("abab", 'b') == 'b');
}
