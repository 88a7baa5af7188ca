/* SPDX-License-Identifier: MIT */
/* The disks that the machine really has. Nothing is written to them. */
#include <drivers/blk.h>
#include <lib/string.h>
#include <selftest/selftest.h>

#define SOME 8u /* sectors */

/* The first disk from d on that has sectors, or NULL. */
static struct blk_device *with_sectors(struct blk_device *d)
{
	while (d && !d->nsectors)
		d = d->next;
	return d;
}

/* Two buffers of SOME sectors. NULL, with the test skipped, when there is no disk to read from. */
static uint8_t *buffers(void)
{
	uint8_t *buf = NULL;

	if (!with_sectors(blk_first()))
		selftest_skip("no disk");
	else
		buf = selftest_memory(2 * SOME * BLK_SECTOR);
	return buf;
}

static size_t some_of(const struct blk_device *d)
{
	return d->nsectors < SOME ? (size_t)d->nsectors : SOME;
}

/* Read the start twice, the second time as `polling` says; what is read is the same. */
static bool reads_alike(struct blk_device *d, uint8_t *buf, bool polling)
{
	bool was = d->polling;
	uint8_t *again = buf + SOME * BLK_SECTOR;
	size_t n = some_of(d);
	int first, second;

	memset(buf, 0x55, SOME * BLK_SECTOR);
	memset(again, 0xaa, SOME * BLK_SECTOR);
	first = blk_read(d, 0, buf, n);
	d->polling = polling;
	second = blk_read(d, 0, again, n);
	d->polling = was;
	return first == BLK_OK && second == BLK_OK && !memcmp(buf, again, n * BLK_SECTOR);
}

SELFTEST(blk, real_names)
{
	const struct blk_device *before = NULL;

	if (!blk_first()) {
		selftest_skip("no disk");
		return;
	}
	CHECK(strcmp(blk_first()->name, "vda") == 0 && !blk_find("none"));
	for (struct blk_device *d = blk_first(); d; before = d, d = d->next) {
		CHECK(blk_find(d->name) == d);
		CHECK(!before || before->address < d->address);
	}
}

SELFTEST(blk, real_read_twice)
{
	uint8_t *buf = buffers();

	for (struct blk_device *d = with_sectors(blk_first()); buf && d; d = with_sectors(d->next))
		CHECK(reads_alike(d, buf, d->polling));
}

SELFTEST(blk, real_polling_and_interrupt_agree)
{
	uint8_t *buf = buffers();

	for (struct blk_device *d = with_sectors(blk_first()); buf && d;
	     d = with_sectors(d->next)) {
		CHECK(reads_alike(d, buf, true));
		CHECK(reads_alike(d, buf, false));
	}
}

SELFTEST(blk, real_ends)
{
	uint8_t *buf = buffers();

	for (struct blk_device *d = with_sectors(blk_first()); buf && d;
	     d = with_sectors(d->next)) {
		CHECK(blk_read(d, d->nsectors - 1, buf, 1) == BLK_OK);
		CHECK(blk_read(d, d->nsectors, buf, 1) == BLK_RANGE);
		CHECK(blk_read(d, d->nsectors - 1, buf, 2) == BLK_RANGE);
		CHECK(blk_read(d, UINT64_MAX, buf, 1) == BLK_RANGE);
		CHECK(blk_read(d, 0, buf, 0) == BLK_RANGE);
	}
}

SELFTEST(blk, real_read_only)
{
	uint8_t *buf = buffers();
	unsigned int n = 0;

	for (struct blk_device *d = with_sectors(blk_first()); buf && d;
	     d = with_sectors(d->next)) {
		if (!d->read_only)
			continue;
		n++;
		CHECK(blk_read(d, 0, buf, 1) == BLK_OK);
		CHECK(blk_write(d, 0, buf, 1) == BLK_READ_ONLY);
	}
	if (buf && !n)
		selftest_skip("no read-only disk");
}

SELFTEST(blk, real_flush)
{
	for (struct blk_device *d = blk_first(); d; d = d->next)
		CHECK(blk_flush(d) == BLK_OK);
	if (!blk_first())
		selftest_skip("no disk");
}
