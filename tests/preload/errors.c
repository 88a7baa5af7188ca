/* SPDX-License-Identifier: MIT */
/*
 * Are errors and odd alignments what they are with the C library of Debian 12, and does what
 * succeeds leave errno alone? The program becomes itself again, where address space is scarce, so
 * that the first region that the allocator tries cannot be had. Exit status 0: they are, and
 * it does.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define SIZE	    ((size_t)100)
#define FEW_BYTES   ((rlim_t)4 << 30) /* of address space */
#define OTHER_ERRNO 7

static int early_errno = OTHER_ERRNO;

/* The first malloc of all, before the constructor of any library. */
static void allocate_early(int argc)
{
	void *volatile p;

	if (argc != 3)
		return;
	errno = OTHER_ERRNO;
	p = malloc(SIZE);
	early_errno = p ? errno : ENOMEM;
	free(p);
	errno = 0;
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int) = allocate_early;

/* err: 0, or what memalign and aligned_alloc set. With ENOMEM there may be memory as well. */
static const struct {
	size_t align, rounded;
	int err, posix_err;
} cases[] = {
	{0, 1, 0, EINVAL},
	{1, 1, 0, EINVAL},
	{3, 4, 0, EINVAL},
	{4, 4, 0, EINVAL},
	{8, 8, 0, 0},
	{16, 16, 0, 0},
	{24, 32, 0, EINVAL},
	{33, 64, 0, EINVAL},
	{100, 128, 0, EINVAL},
	{4096, 4096, 0, 0},
	{4097, 8192, 0, EINVAL},
	{(size_t)1 << 31, (size_t)1 << 31, ENOMEM, ENOMEM},
	{((size_t)1 << 31) + 1, (size_t)1 << 32, ENOMEM, EINVAL},
	{(size_t)1 << 32, (size_t)1 << 32, ENOMEM, ENOMEM},
	{(size_t)1 << 63, (size_t)1 << 63, ENOMEM, ENOMEM},
	{((size_t)1 << 63) + 1, 1, EINVAL, EINVAL},
	{SIZE_MAX, 1, EINVAL, EINVAL},
};

static int as_expected(const char *what, size_t i, const void *p, int err, int expected)
{
	size_t mask = cases[i].rounded - 1;

	if (p && !((uintptr_t)p & mask) && (!expected || expected == ENOMEM))
		return 1;
	if (!p && expected && err == expected)
		return 1;
	printf("%s of alignment %#zx: %p, error %d, expected %d\n", what, cases[i].align, p, err,
	       expected);
	return 0;
}

static int check_memalign(const char *what, void *(*f)(size_t, size_t), size_t i)
{
	void *p;
	int good;

	errno = OTHER_ERRNO;
	p = f(cases[i].align, SIZE);
	good = as_expected(what, i, p, errno, cases[i].err) && (!p || errno == OTHER_ERRNO);
	free(p);
	return good;
}

static int check_posix(size_t i)
{
	void *p = NULL;
	int err = posix_memalign(&p, cases[i].align, SIZE), good;

	good = as_expected("posix_memalign", i, p, err, cases[i].posix_err) && !p == !!err;
	free(p);
	return good;
}

static int check_alignments(void)
{
	int good = 1;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		good &= check_memalign("memalign", memalign, i);
		good &= check_memalign("aligned_alloc", aligned_alloc, i);
		good &= check_posix(i);
	}
	return good;
}

int main(int argc, char **argv)
{
	const struct rlimit few = {FEW_BYTES, FEW_BYTES};
	int at_start = errno;

	if (at_start || early_errno != OTHER_ERRNO) {
		printf("errno is %d at the start of main, %d after the first malloc\n", at_start,
		       early_errno);
		return 1;
	}
	if (argc == 3)
		return 0;
	if (argc == 2)
		return execl(argv[0], argv[0], "scarce", "early", (char *)NULL);
	if (!check_alignments() || setrlimit(RLIMIT_AS, &few))
		return 1;
	return execl(argv[0], argv[0], "scarce", (char *)NULL);
}
