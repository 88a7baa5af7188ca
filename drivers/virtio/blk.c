/* SPDX-License-Identifier: MIT */
/* The list of disks, and the way to their drivers. */
#include <drivers/blk.h>
#include <lib/string.h>

static struct blk_device *disks;

const char *blk_error_text(int error)
{
	static const char *const text[] = {
		[-BLK_OK] = "no error",
		[-BLK_IO] = "input/output error",
		[-BLK_UNSUPPORTED] = "not supported",
		[-BLK_RANGE] = "beyond the end",
		[-BLK_READ_ONLY] = "read-only",
		[-BLK_NO_MEMORY] = "no memory",
		[-BLK_TIMEOUT] = "no answer",
		[-BLK_BROKEN] = "breach of protocol",
	};

	if (error > 0 || error < BLK_BROKEN)
		return "unknown error";
	return text[-error];
}

/* vda .. vdz, vdaa .. */
static void give_name(struct blk_device *d, unsigned int index)
{
	char suffix[sizeof(d->name) - 3];
	size_t n = 0, at = 2;

	for (unsigned int i = index + 1; i && n < sizeof(suffix); i = (i - 1) / 26)
		suffix[n++] = (char)('a' + (i - 1) % 26);
	memcpy(d->name, "vd", 2);
	while (n)
		d->name[at++] = suffix[--n];
	d->name[at] = '\0';
}

/* Some trees list the highest address first, so names are final when all disks are found. */
void blk_register(struct blk_device *d)
{
	struct blk_device **p = &disks;
	unsigned int i = 0;

	while (*p && (*p)->address < d->address)
		p = &(*p)->next;
	d->next = *p;
	*p = d;
	for (struct blk_device *each = disks; each; each = each->next)
		give_name(each, i++);
}

struct blk_device *blk_first(void)
{
	return disks;
}

struct blk_device *blk_find(const char *name)
{
	struct blk_device *d = disks;

	while (d && strcmp(d->name, name))
		d = d->next;
	return d;
}

int blk_read(struct blk_device *d, uint64_t sector, void *buf, size_t nsectors)
{
	return d->ops->read(d, sector, buf, nsectors);
}

int blk_write(struct blk_device *d, uint64_t sector, const void *buf, size_t nsectors)
{
	if (d->read_only)
		return BLK_READ_ONLY;
	return d->ops->write(d, sector, buf, nsectors);
}

int blk_flush(struct blk_device *d)
{
	return d->ops->flush(d);
}

uint64_t blk_size(struct blk_device *d)
{
	return d->ops->size(d);
}
