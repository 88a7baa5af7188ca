/* SPDX-License-Identifier: MIT */
/* The block driver on a device made of memory: what it does when all goes well, and when not. */
#include <kernel/log.h>
#include <lib/string.h>
#include <selftest/selftest.h>

#include "../virtio_blk.h"
#include "fake_disk.h"

#define DISK_BYTES ((size_t)FAKE_SECTORS * BLK_SECTOR)

static struct fake_disk fake;

static void close_disk(struct virtio_blk *b)
{
	virtio_blk_close(b);
	dma_trim();
}

/* The fake, changed or not by the caller after fake_disk_init, as an open disk. */
static struct virtio_blk *open_disk(void)
{
	return virtio_blk_open(&fake.transport);
}

static bool has_pattern(const uint8_t *buf, uint64_t sector, size_t nsectors)
{
	for (size_t i = 0; i < nsectors * BLK_SECTOR; i++)
		if (buf[i] != fake_pattern((size_t)sector * BLK_SECTOR + i))
			return false;
	return true;
}

/* The whole disk and parts of it, read, written and read again. */
static void check_io(struct virtio_blk *b, uint8_t *buf)
{
	struct blk_device *d = &b->blk;
	size_t nsectors = (size_t)d->nsectors;

	memset(buf, 0, DISK_BYTES);
	CHECK(blk_read(d, 0, buf, nsectors) == BLK_OK);
	CHECK(has_pattern(buf, 0, nsectors));
	CHECK(blk_read(d, nsectors - 1, buf, 1) == BLK_OK);
	CHECK(has_pattern(buf, nsectors - 1, 1));
	memset(buf, 0x5a, DISK_BYTES);
	CHECK(blk_write(d, 7, buf, 200) == BLK_OK);
	CHECK(blk_flush(d) == BLK_OK);
	CHECK(fake.sectors[7 * BLK_SECTOR - 1] == fake_pattern(7 * BLK_SECTOR - 1));
	CHECK(fake.sectors[7 * BLK_SECTOR] == 0x5a && fake.sectors[207 * BLK_SECTOR - 1] == 0x5a);
	CHECK(fake.sectors[207 * BLK_SECTOR] == fake_pattern(207 * BLK_SECTOR));
	for (size_t i = 0; i < 200 * BLK_SECTOR; i++)
		buf[i] = fake_pattern(7 * BLK_SECTOR + i);
	CHECK(blk_write(d, 7, buf, 200) == BLK_OK);
	CHECK(blk_read(d, 0, buf, nsectors) == BLK_OK);
	CHECK(has_pattern(buf, 0, nsectors));
	CHECK(fake.broken_rules == 0);
}

static void check_disk(void)
{
	uint8_t *buf = selftest_memory(DISK_BYTES);
	struct virtio_blk *b = open_disk();
	unsigned int whole = fake.blk_size / BLK_SECTOR;

	CHECK(buf && b);
	CHECK(b->blk.nsectors == FAKE_SECTORS / whole * whole && !b->blk.read_only);
	CHECK(strcmp(b->blk.id, FAKE_ID) == 0);
	check_io(b, buf);
	close_disk(b);
	CHECK(fake.resets == 2 && !(fake.status & VIRTIO_DRIVER_OK));
}

SELFTEST(virtio_blk, polled)
{
	CHECK(fake_disk_init(&fake));
	check_disk();
	CHECK(fake.flushes == 1);
	CHECK(fake.accepted == (VIRTIO_F_VERSION_1 | FAKE_F_FLUSH | FAKE_F_SEG_MAX));
}

SELFTEST(virtio_blk, interrupt)
{
	CHECK(fake_disk_init(&fake));
	fake.gives_irq = true;
	check_disk();
	CHECK(!fake.action);
}

static bool legacy_disk_init(void)
{
	if (!fake_disk_init(&fake))
		return false;
	fake.transport.legacy = true;
	fake.offered &= UINT32_MAX;
	fake.refuses_features = true; /* does not know that status bit */
	return true;
}

SELFTEST(virtio_blk, legacy)
{
	CHECK(legacy_disk_init());
	check_disk();
	CHECK(!(fake.accepted >> 32));
}

/* Without a generation, half of the old size and half of the new one are no size. */
SELFTEST(virtio_blk, torn_capacity)
{
	struct virtio_blk *b;

	CHECK(legacy_disk_init());
	fake.capacity = UINT32_MAX;
	fake.grows_in_between = true;
	b = open_disk();
	CHECK(b && b->blk.nsectors == (uint64_t)UINT32_MAX + 1);
	close_disk(b);
}

/* A device that wants to be told that its addresses may be translated is told so. */
SELFTEST(virtio_blk, access_platform)
{
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.offered |= VIRTIO_F_ACCESS_PLATFORM;
	b = open_disk();
	CHECK(b && fake.accepted & VIRTIO_F_ACCESS_PLATFORM);
	close_disk(b);
}

SELFTEST(virtio_blk, legacy_total_length)
{
	CHECK(legacy_disk_init());
	fake.heals = false;
	fake.fault = FAKE_TOTAL;
	check_disk();
}

SELFTEST(virtio_blk, no_flush)
{
	CHECK(fake_disk_init(&fake));
	fake.offered &= ~(uint64_t)FAKE_F_FLUSH;
	check_disk();
	CHECK(fake.flushes == 0);
}

SELFTEST(virtio_blk, split_to_limits)
{
	CHECK(fake_disk_init(&fake));
	fake.offered |= FAKE_F_SIZE_MAX;
	fake.size_max = 700; /* not a multiple of a sector */
	fake.seg_max = 3;
	check_disk();
	CHECK(fake.largest_segment == 700 && fake.most_segments == 3);
	CHECK(fake_disk_init(&fake));
	fake.offered &= ~(uint64_t)FAKE_F_SEG_MAX;
	check_disk();
	CHECK(fake.most_segments == 1);
}

/* Blocks larger than a sector; what is not a whole one at the end is no part of the disk. */
SELFTEST(virtio_blk, large_blocks)
{
	for (uint32_t size = 1024; size <= 65536; size *= 8) {
		CHECK(fake_disk_init(&fake));
		fake.offered |= FAKE_F_BLK_SIZE;
		fake.blk_size = size;
		check_disk();
	}
}

SELFTEST(virtio_blk, absurd_block_size)
{
	static const uint32_t sizes[] = {0, 1, 513, UINT32_MAX};

	CHECK(fake_disk_init(&fake));
	fake.offered |= FAKE_F_BLK_SIZE;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct virtio_blk *b;

		fake.blk_size = sizes[i];
		b = open_disk();
		CHECK(b && b->blk.block_size == BLK_SECTOR);
		close_disk(b);
	}
}

SELFTEST(virtio_blk, small_queue)
{
	CHECK(fake_disk_init(&fake));
	fake.offered |= FAKE_F_SIZE_MAX;
	fake.size_max = 512;
	fake.queue_max = 5; /* rounded down to 4: two for data */
	check_disk();
	CHECK(fake.most_segments == 2);
}

SELFTEST(virtio_blk, read_only)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.offered |= FAKE_F_RO;
	b = open_disk();
	CHECK(buf && b && b->blk.read_only);
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_OK && has_pattern(buf, 0, 1));
	CHECK(blk_write(&b->blk, 0, buf, 1) == BLK_READ_ONLY);
	close_disk(b);
}

SELFTEST(virtio_blk, range)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct virtio_blk *b;
	unsigned int requests;

	CHECK(fake_disk_init(&fake));
	b = open_disk();
	CHECK(buf && b);
	requests = fake.requests;
	CHECK(blk_read(&b->blk, 0, buf, 0) == BLK_RANGE);
	CHECK(blk_read(&b->blk, FAKE_SECTORS, buf, 1) == BLK_RANGE);
	CHECK(blk_read(&b->blk, FAKE_SECTORS - 1, buf, 2) == BLK_RANGE);
	CHECK(blk_read(&b->blk, 1, buf, SIZE_MAX) == BLK_RANGE);
	CHECK(blk_write(&b->blk, UINT64_MAX, buf, 1) == BLK_RANGE);
	CHECK(fake.requests == requests);
	close_disk(b);
}

/* An error that the device reports is no reason to reset it. */
SELFTEST(virtio_blk, reported_errors)
{
	uint8_t *buf = selftest_memory(DISK_BYTES);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	b = open_disk();
	CHECK(buf && b);
	fake.fault = FAKE_IO_ERROR;
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_IO);
	CHECK(blk_write(&b->blk, 0, buf, 1) == BLK_IO);
	CHECK(blk_flush(&b->blk) == BLK_IO);
	fake.fault = FAKE_UNSUPPORTED;
	CHECK(blk_read(&b->blk, 0, buf, FAKE_SECTORS) == BLK_UNSUPPORTED);
	fake.fault = FAKE_SHORT;
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_IO);
	fake.fault = FAKE_GOOD;
	CHECK(fake.resets == 1);
	CHECK(blk_read(&b->blk, 0, buf, FAKE_SECTORS) == BLK_OK);
	close_disk(b);
}

static const struct {
	enum fake_fault fault;
	int error;
} breaches[] = {
	{FAKE_NO_STATUS, BLK_BROKEN}, {FAKE_BAD_STATUS, BLK_BROKEN}, {FAKE_ID_RANGE, BLK_BROKEN},
	{FAKE_ID_FREE, BLK_BROKEN},   {FAKE_ID_MIDDLE, BLK_BROKEN},  {FAKE_TWICE, BLK_BROKEN},
	{FAKE_LONG, BLK_BROKEN},      {FAKE_INDEX_JUMP, BLK_BROKEN}, {FAKE_INDEX_BACK, BLK_BROKEN},
	{FAKE_SILENT, BLK_TIMEOUT},
};

/* A breach ends in an error and a reset, after which the disk works. */
static void check_breaches(bool irq)
{
	uint8_t *buf = selftest_memory(DISK_BYTES);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.gives_irq = irq;
	b = open_disk();
	CHECK(buf && b);
	for (size_t i = 0; i < sizeof(breaches) / sizeof(breaches[0]); i++) {
		unsigned int resets = fake.resets;

		fake.fault = breaches[i].fault;
		CHECK(blk_read(&b->blk, 3, buf, 1) == breaches[i].error);
		CHECK(fake.resets == resets + 1);
		CHECK(blk_read(&b->blk, 3, buf, 200) == BLK_OK && has_pattern(buf, 3, 200));
	}
	check_io(b, buf);
	close_disk(b);
}

SELFTEST(virtio_blk, breaches_polled)
{
	check_breaches(false);
}

SELFTEST(virtio_blk, breaches_interrupt)
{
	check_breaches(true);
}

/* A device that says that it cannot go on is not waited for. */
SELFTEST(virtio_blk, needs_reset)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.gives_irq = true;
	b = open_disk();
	CHECK(buf && b);
	fake.fault = FAKE_GIVES_UP;
	CHECK(blk_read(&b->blk, 3, buf, 1) == BLK_BROKEN);
	CHECK(blk_read(&b->blk, 3, buf, 1) == BLK_OK && has_pattern(buf, 3, 1));
	/* Between requests; the interrupt has told of it. */
	fake.status |= VIRTIO_NEEDS_RESET;
	fake.why = VIRTIO_IRQ_CONFIG;
	fake_interrupt(&fake);
	CHECK(blk_read(&b->blk, 3, buf, 1) == BLK_OK && fake.resets == 3);
	close_disk(b);
}

/* Nor is it waited for to the end when no interrupt can tell. */
SELFTEST(virtio_blk, needs_reset_polled)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.transport.answer_ms = VIRTIO_ANSWER_MS; /* no stall of this machine is as long */
	b = open_disk();
	CHECK(buf && b);
	fake.fault = FAKE_GIVES_UP;
	CHECK(blk_read(&b->blk, 3, buf, 1) == BLK_BROKEN);
	CHECK(blk_read(&b->blk, 3, buf, 1) == BLK_OK && has_pattern(buf, 3, 1));
	close_disk(b);
}

/*
 * Who does not come back from a reset is not asked again, and its memory not used again. It has no
 * flush, of which nothing would be asked if it were well.
 */
SELFTEST(virtio_blk, dead_device)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct dma_device *dma = &fake.transport.dma;
	struct dma_stats open, closed;
	struct virtio_blk *b, was;
	unsigned int requests;

	CHECK(fake_disk_init(&fake));
	fake.offered &= ~(uint64_t)FAKE_F_FLUSH;
	b = open_disk();
	CHECK(buf && b);
	fake.fault = FAKE_SILENT;
	fake.ignores_reset = true;
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_TIMEOUT);
	requests = fake.requests;
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_BROKEN);
	CHECK(blk_write(&b->blk, 0, buf, 1) == BLK_BROKEN);
	CHECK(blk_flush(&b->blk) == BLK_BROKEN);
	CHECK(fake.requests == requests);
	dma_stats(&open);
	was = *b;
	close_disk(b);
	dma_stats(&closed);
	CHECK(open.live && closed.live == open.live);
	/* There is no such device, so that the test need not leak it. */
	virtqueue_free(&was.queue, dma);
	CHECK(!dma_dealloc_coherent(dma, was.header,
				    (struct layout){sizeof(struct virtio_blk_header), 64}));
	CHECK(!dma_dealloc_coherent(dma, was.data,
				    (struct layout){(size_t)64 << 10, MM_PAGE_SIZE}));
	dma_trim();
}

/* A device that has a smaller queue after a reset than before is not used with the large one. */
SELFTEST(virtio_blk, smaller_queue_after_reset)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	b = open_disk();
	CHECK(buf && b);
	fake.queue_max = b->queue.size / 2u;
	fake.fault = FAKE_BAD_STATUS;
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_BROKEN);
	fake.fault = FAKE_GOOD;
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_BROKEN);
	CHECK(!fake.broken_rules);
	close_disk(b);
}

static bool opens(void)
{
	struct virtio_blk *b = open_disk();

	if (b)
		virtio_blk_close(b);
	dma_trim();
	return b;
}

SELFTEST(virtio_blk, refused_at_start)
{
	CHECK(fake_disk_init(&fake));
	CHECK(opens());
	fake.refuses_features = true;
	CHECK(!opens());
	CHECK(fake_disk_init(&fake));
	fake.offered &= ~VIRTIO_F_VERSION_1;
	CHECK(!opens() && !fake.started);
	CHECK(fake_disk_init(&fake));
	fake.queue_max = 3;
	CHECK(!opens());
	fake.queue_max = 0;
	CHECK(!opens());
	CHECK(fake_disk_init(&fake));
	fake.keeps_changing = true;
	CHECK(!opens());
	CHECK(fake_disk_init(&fake));
	fake.seg_max = 0;
	CHECK(!opens());
}

/* Blocks that no request can take are none to read a part of. */
SELFTEST(virtio_blk, blocks_too_large)
{
	static const uint32_t sizes[] = {131072, 2 << 20, 1u << 31};

	CHECK(fake_disk_init(&fake));
	fake.offered |= FAKE_F_BLK_SIZE;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		fake.blk_size = sizes[i];
		CHECK(!opens());
	}
	fake.offered |= FAKE_F_SIZE_MAX;
	fake.seg_max = 3;
	fake.size_max = 1024;
	fake.blk_size = 4096;
	CHECK(!opens());
	fake.blk_size = 2048;
	CHECK(opens());
}

/* A disk that cannot say its id, or says it in a broken way, is used without one. */
SELFTEST(virtio_blk, no_id)
{
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.heals = false;
	fake.fault = FAKE_UNSUPPORTED;
	b = open_disk();
	CHECK(b && b->blk.id[0] == '\0');
	close_disk(b);
	CHECK(fake_disk_init(&fake));
	fake.heals = false;
	fake.fault = FAKE_INDEX_JUMP;
	b = open_disk();
	CHECK(b && b->blk.id[0] == '\0' && fake.resets == 2);
	close_disk(b);
}

/* The size changes with a notice: requests are measured against the new one. */
SELFTEST(virtio_blk, capacity_change)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.gives_irq = true;
	fake.capacity = 10;
	b = open_disk();
	CHECK(buf && b && b->blk.nsectors == 10);
	CHECK(blk_read(&b->blk, 10, buf, 1) == BLK_RANGE);
	fake_resize(&fake, 20);
	CHECK(blk_read(&b->blk, 0, buf, 1) == BLK_OK); /* its interrupt tells of the change */
	CHECK(blk_read(&b->blk, 19, buf, 1) == BLK_OK && has_pattern(buf, 19, 1));
	CHECK(b->blk.nsectors == 20 && blk_size(&b->blk) == 20);
	fake_resize(&fake, 5);
	fake.why = VIRTIO_IRQ_CONFIG;
	fake_interrupt(&fake);
	CHECK(blk_read(&b->blk, 19, buf, 1) == BLK_RANGE);
	CHECK(b->blk.nsectors == 5);
	close_disk(b);
}

/* The open fake gets other sizes, and no interrupt tells. */
static void check_untold_sizes(struct virtio_blk *b)
{
	uint8_t *buf = selftest_memory(BLK_SECTOR);

	CHECK(buf && b && blk_size(&b->blk) == FAKE_SECTORS);
	fake_resize(&fake, 10);
	CHECK(blk_read(&b->blk, 10, buf, 1) == BLK_RANGE);
	fake_resize(&fake, 20);
	CHECK(blk_read(&b->blk, 19, buf, 1) == BLK_OK && has_pattern(buf, 19, 1));
	CHECK(blk_write(&b->blk, 19, buf, 2) == BLK_RANGE);
	fake_resize(&fake, 21);
	CHECK(blk_write(&b->blk, 20, buf, 1) == BLK_OK);
	fake_resize(&fake, 22);
	CHECK(blk_size(&b->blk) == 22);
	CHECK(fake.resets == 1);
	close_disk(b);
}

SELFTEST(virtio_blk, capacity_change_no_interrupt)
{
	CHECK(fake_disk_init(&fake));
	check_untold_sizes(open_disk());
}

SELFTEST(virtio_blk, capacity_change_legacy)
{
	CHECK(legacy_disk_init());
	check_untold_sizes(open_disk());
}

SELFTEST(virtio_blk, capacity_change_polling)
{
	struct virtio_blk *b;

	CHECK(fake_disk_init(&fake));
	fake.gives_irq = true;
	b = open_disk();
	CHECK(b);
	b->blk.polling = true;
	check_untold_sizes(b);
}

SELFTEST(blk, error_texts)
{
	for (int e = BLK_BROKEN; e <= BLK_OK; e++)
		CHECK(blk_error_text(e)[0] && strcmp(blk_error_text(e), "unknown error"));
	CHECK(strcmp(blk_error_text(1), "unknown error") == 0);
	CHECK(strcmp(blk_error_text(BLK_BROKEN - 1), "unknown error") == 0);
}
