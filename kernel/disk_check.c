/* SPDX-License-Identifier: MIT */
/*
 * The main job on real disks: read each from end to end through DMA and say
 * what is on it, with a SHA-256 that the host compares. A disk that calls itself
 * SCRATCH_ID, and no other, is filled with a pattern, flushed and read back.
 */
#include <drivers/blk.h>
#include <kernel/log.h>
#include <lib/format.h>
#include <lib/sha256.h>
#include <lib/string.h>
#include <mm/global.h>

#include "kernel.h"

#define SCRATCH_ID     "mica-scratch"
#define CHUNK_SECTORS  128u
#define CHUNK_BYTES    (CHUNK_SECTORS * BLK_SECTOR)
#define EXT_SUPERBLOCK 1024u
#define EXT_MAGIC      0xef53u

static const struct layout chunk_layout = {CHUNK_BYTES, MM_PAGE_SIZE};

typedef int (*chunk_fn)(struct blk_device *d, uint64_t sector, uint8_t *buf, size_t nsectors,
			void *ctx);

/* Call fn for the whole disk, a chunk at a time. */
static int each_chunk(struct blk_device *d, uint8_t *buf, chunk_fn fn, void *ctx)
{
	for (uint64_t s = 0; s < d->nsectors; s += CHUNK_SECTORS) {
		uint64_t left = d->nsectors - s;
		int e = fn(d, s, buf, left < CHUNK_SECTORS ? (size_t)left : CHUNK_SECTORS, ctx);

		if (e < 0)
			return e;
	}
	return BLK_OK;
}

/* --- What is on it --------------------------------------------------------- */

static bool print_text(const char *kind, const uint8_t *text, size_t n)
{
	char label[20] = "";

	memcpy(label, text, n);
	for (size_t i = n; i && (label[i - 1] == ' ' || !label[i - 1]); i--)
		label[i - 1] = '\0';
	make_printable(label);
	log_info("  %s, label \"%s\"", kind, label);
	return true;
}

static bool describe_content(const uint8_t *start)
{
	const uint8_t *ext = start + EXT_SUPERBLOCK;

	if (ext[56] == (EXT_MAGIC & 0xff) && ext[57] == EXT_MAGIC >> 8)
		return print_text("ext file system", ext + 120, 16);
	if (!memcmp(start + 82, "FAT32", 5))
		return print_text("FAT32 file system", start + 71, 11);
	if (!memcmp(start + 54, "FAT1", 4))
		return print_text("FAT file system", start + 43, 11);
	if (start[510] != 0x55 || start[511] != 0xaa)
		return false;
	for (unsigned int i = 0; i < 4; i++)
		if (start[446 + 16 * i + 4])
			log_info("  partition %u of type 0x%x", i + 1, start[446 + 16 * i + 4]);
	return true;
}

static int hash_chunk(struct blk_device *d, uint64_t sector, uint8_t *buf, size_t nsectors,
		      void *ctx)
{
	int e = blk_read(d, sector, buf, nsectors);

	if (e < 0)
		return e;
	if (!sector && nsectors * BLK_SECTOR >= 2 * EXT_SUPERBLOCK)
		describe_content(buf);
	sha256_update(ctx, buf, nsectors * BLK_SECTOR);
	return BLK_OK;
}

static int hash_disk(struct blk_device *d, uint8_t *buf)
{
	uint8_t digest[SHA256_SIZE];
	char text[2 * SHA256_SIZE + 1];
	struct sha256 hash;
	int e;

	log_info("%s: %lu sectors of 512 bytes, id \"%s\"%s", d->name, d->nsectors, d->id,
		 d->read_only ? ", read-only" : "");
	sha256_init(&hash);
	e = each_chunk(d, buf, hash_chunk, &hash);
	if (e < 0)
		return e;
	sha256_final(&hash, digest);
	sha256_text(digest, text);
	kprintf("disk %s sha256 %s\n", d->name, text);
	return BLK_OK;
}

/* --- Scratch disk ---------------------------------------------------------- */

/* The word at a byte offset; scripts/qemu.py has the same formula. */
static uint64_t pattern(uint64_t offset)
{
	return (offset + 1) * 0x9e3779b97f4a7c15u;
}

static int write_chunk(struct blk_device *d, uint64_t sector, uint8_t *buf, size_t nsectors,
		       void *ctx)
{
	uint64_t *word = (uint64_t *)(void *)buf;

	(void)ctx;
	for (size_t i = 0; i < nsectors * BLK_SECTOR / 8; i++)
		word[i] = pattern(sector * BLK_SECTOR + 8 * i);
	return blk_write(d, sector, buf, nsectors);
}

static int verify_chunk(struct blk_device *d, uint64_t sector, uint8_t *buf, size_t nsectors,
			void *ctx)
{
	const uint64_t *word = (const uint64_t *)(const void *)buf;
	int e;

	(void)ctx;
	memset(buf, 0, nsectors * BLK_SECTOR);
	e = blk_read(d, sector, buf, nsectors);
	if (e < 0)
		return e;
	for (size_t i = 0; i < nsectors * BLK_SECTOR / 8; i++)
		if (word[i] != pattern(sector * BLK_SECTOR + 8 * i))
			return BLK_IO;
	return BLK_OK;
}

static int fill_disk(struct blk_device *d, uint8_t *buf)
{
	int e = each_chunk(d, buf, write_chunk, NULL);

	if (!e)
		e = blk_flush(d);
	if (!e)
		e = each_chunk(d, buf, verify_chunk, NULL);
	if (!e)
		kprintf("disk %s pattern written, flushed and read back\n", d->name);
	return e;
}

unsigned int disk_check(void)
{
	unsigned int bad = 0;
	void *buf;

	if (!blk_first()) {
		kprintf("# no disk: nothing to read or write\n");
		return 0;
	}
	if (global_alloc(chunk_layout, &buf) != ALLOC_OK) {
		log_error("no memory for a disk buffer");
		return 1;
	}
	for (struct blk_device *d = blk_first(); d; d = d->next) {
		int e = hash_disk(d, buf);

		if (!e && !strcmp(d->id, SCRATCH_ID))
			e = fill_disk(d, buf);
		if (!e)
			continue;
		log_error("%s: %s", d->name, blk_error_text(e));
		bad++;
	}
	global_dealloc(buf, chunk_layout);
	return bad;
}
