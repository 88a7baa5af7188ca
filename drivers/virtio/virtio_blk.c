/* SPDX-License-Identifier: MIT */
/*
 * virtio-blk: one request at a time, the caller waits for it.
 *
 * A request is a chain: header (type, sector), data, status byte. Header and
 * status have coherent memory of their own, never a stack frame that may be gone
 * when a late device writes. Data passes through one coherent buffer, and what is
 * larger than that, or than the device's limits, is split.
 *
 * The device may be late, or lie. Every wait has an end, and what comes out of the
 * queue is checked there (virtqueue.h); the status is preset to a value that no
 * device writes. Whoever does not answer, or breaks the rules, is reset and set up
 * anew, so that the error hits the present request only; a device that does not
 * come back from that is not used again.
 *
 * The sector of the interface is 512 bytes, whatever block the disk has. Blocks that
 * a request covers in part are read whole, and for a write read, changed and written.
 *
 * The caller fetches completions itself. The interrupt only ends its sleep, so that
 * there is one path, whether one polls, sleeps, or has interrupts disabled. A disk whose interrupt
 * does not come, or that nothing could wake us for in time, is polled.
 *
 * The interrupt also tells that the size has changed. Where none is waited for, the device is asked
 * before each request.
 */
#include "virtio_blk.h"

#include <arch/arch.h>
#include <kernel/log.h>
#include <kernel/time.h>
#include <lib/format.h>
#include <lib/string.h>
#include <mm/global.h>

#define F_SIZE_MAX (1u << 1)
#define F_SEG_MAX  (1u << 2)
#define F_RO	   (1u << 5)
#define F_BLK_SIZE (1u << 6)
#define F_FLUSH	   (1u << 9)
#define WANTED	   (F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH)

#define CONFIG_CAPACITY 0
#define CONFIG_SIZE_MAX 8
#define CONFIG_SEG_MAX	12
#define CONFIG_BLK_SIZE 20

enum request_type {
	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_GET_ID = 8,
};

enum request_status {
	S_OK = 0,
	S_IOERR = 1,
	S_UNSUPP = 2,
	S_NONE = 0xff, /* ours: the device wrote nothing */
};

#define QUEUE	     0u
#define MIN_QUEUE    4u /* header, data, status; a power of two */
#define ID_SIZE	     20u
#define HEADER_SIZE  offsetof(struct virtio_blk_header, status)
#define DATA_SIZE    ((size_t)64 << 10)
#define IRQ_LATE_MS  100u
#define LATE_MAX     3u
#define STATUS_MS    10u /* reading a register is expensive where the device is emulated */
#define MAX_SEGMENTS 16u
#define MAX_BUFFERS  (MAX_SEGMENTS + 2)

static const struct layout blk_layout = {sizeof(struct virtio_blk), _Alignof(struct virtio_blk)};
static const struct layout header_layout = {sizeof(struct virtio_blk_header), 64};
static const struct layout data_layout = {DATA_SIZE, MM_PAGE_SIZE};

static struct virtio_blk *disk_of(struct blk_device *d)
{
	return (struct virtio_blk *)((char *)d - offsetof(struct virtio_blk, blk));
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* --- Starting a device, at first and after a reset ------------------------- */

/*
 * What is no whole block at the end is no part of the disk: devices refuse to transfer it. The
 * generation is read first: of a change that comes meanwhile, it still tells the next time.
 */
static int read_capacity(struct virtio_blk *b)
{
	uint64_t nsectors;

	b->config_changed = false;
	b->generation = b->transport->ops->config_generation(b->transport);
	if (virtio_config64(b->transport, CONFIG_CAPACITY, &nsectors) < 0)
		return -1;
	b->blk.nsectors = nsectors & ~(uint64_t)(b->blk.block_size / BLK_SECTOR - 1);
	return 0;
}

/* A power of two counts even if it is too large for us: in smaller blocks nothing can be read. */
static uint32_t read_block_size(struct virtio_transport *t, uint64_t features)
{
	uint32_t size = features & F_BLK_SIZE ? t->ops->config(t, CONFIG_BLK_SIZE) : BLK_SECTOR;

	return mm_is_pow2(size) && size >= BLK_SECTOR ? size : BLK_SECTOR;
}

/* A device that names no limit of segments takes one. */
static int read_limits(struct virtio_blk *b, uint64_t features)
{
	struct virtio_transport *t = b->transport;
	size_t segments = 1, segment = DATA_SIZE;

	if (features & F_SEG_MAX)
		segments = min_size(t->ops->config(t, CONFIG_SEG_MAX), MAX_SEGMENTS);
	if (features & F_SIZE_MAX)
		segment = min_size(t->ops->config(t, CONFIG_SIZE_MAX), DATA_SIZE);
	segments = min_size(segments, b->queue.size - 2u);
	b->segment = segment;
	b->blk.block_size = read_block_size(t, features);
	b->chunk = min_size(segments * segment, DATA_SIZE) & ~(size_t)(b->blk.block_size - 1);
	if (b->chunk)
		return 0;
	log_error("%s: no request can take one of its blocks of %u bytes", t->name,
		  b->blk.block_size);
	return -1;
}

/* The queue is made once and used again after a reset. */
static int prepare_queue(struct virtio_blk *b)
{
	struct virtio_transport *t = b->transport;
	uint32_t max = t->ops->queue_max(t, QUEUE);

	if (max < MIN_QUEUE || max < b->queue.size)
		return -1;
	if (b->queue.size)
		virtqueue_reset(&b->queue);
	else if (virtqueue_init(&b->queue, &t->dma, max) < 0)
		return -1;
	b->queue.any_length = t->legacy;
	return 0;
}

static int start_queue(struct virtio_blk *b)
{
	struct virtq_place place = virtqueue_place(&b->queue);

	return b->transport->ops->queue_start(b->transport, QUEUE, &place);
}

static int start(struct virtio_blk *b)
{
	struct virtio_transport *t = b->transport;
	uint64_t features;

	if (virtio_negotiate(t, WANTED, &features) < 0)
		return -1;
	if (prepare_queue(b) < 0 || read_limits(b, features) < 0 || read_capacity(b) < 0 ||
	    start_queue(b) < 0) {
		log_error("%s: the queue, or the limits of the disk, cannot be used", t->name);
		return -1;
	}
	b->blk.read_only = features & F_RO;
	b->has_flush = features & F_FLUSH;
	virtio_go(t);
	return 0;
}

/* The request failed with e, which the device is to blame for. */
static int recover(struct virtio_blk *b, int e)
{
	log_error("%s: %s; reset", b->transport->name, blk_error_text(e));
	b->dead = start(b) < 0;
	if (b->dead)
		log_error("%s: given up", b->transport->name);
	return e;
}

/* --- One request ----------------------------------------------------------- */

static volatile struct virtio_blk_header *header_of(const struct virtio_blk *b)
{
	return b->header.cpu_addr;
}

static void write_header(struct virtio_blk *b, enum request_type type, uint64_t sector)
{
	volatile struct virtio_blk_header *h = header_of(b);

	h->type = type;
	h->reserved = 0;
	h->sector = sector;
	h->status = S_NONE;
}

/* The buffers of a request with nbytes of data; returns how many. */
static unsigned int describe(const struct virtio_blk *b, enum request_type type, size_t nbytes,
			     struct virtq_buffer buf[MAX_BUFFERS])
{
	unsigned int n = 0;

	buf[n++] = (struct virtq_buffer){b->header.bus_addr, HEADER_SIZE, false};
	for (size_t at = 0; at < nbytes; at += b->segment)
		buf[n++] = (struct virtq_buffer){{b->data.bus_addr.value + at},
						 (uint32_t)min_size(nbytes - at, b->segment),
						 type != T_OUT};
	buf[n++] = (struct virtq_buffer){{b->header.bus_addr.value + HEADER_SIZE}, 1, true};
	return n;
}

/* Is the interrupt there to be waited for? */
static bool can_sleep(const struct virtio_blk *b)
{
	return b->has_irq && !b->blk.polling && timer_can_wake();
}

static void give_up_irq(struct virtio_blk *b)
{
	log_warn("%s: done, but no interrupt came: polled from now on", b->transport->name);
	b->transport->ops->irq_disconnect(b->transport, &b->irq);
	b->has_irq = false;
	b->waits_for_irq = false;
}

/*
 * Sleep only if nothing arrived since the look at the queue: interrupts stay pending meanwhile, the
 * timer's, too. One that does not come, as the tree is wrong about the line or the controller does
 * not reach this CPU, costs LATE_MAX requests in a row that sleep IRQ_LATE_MS each, and none after
 * them anything.
 */
static void idle(struct virtio_blk *b, uint64_t deadline)
{
	unsigned long state;
	uint64_t late;

	if (!b->waits_for_irq) {
		arch_relax();
		return;
	}
	late = time_after_ms(IRQ_LATE_MS);
	state = arch_irq_save();
	timer_wake_by(late < deadline ? late : deadline);
	if (!virtqueue_pending(&b->queue))
		arch_wait_for_interrupt();
	arch_irq_restore(state);
	if (!b->irq_came && virtqueue_pending(&b->queue) && time_ns() >= late &&
	    ++b->late == LATE_MAX)
		give_up_irq(b);
}

/* The device says that it cannot go on. */
static bool needs_reset(const struct virtio_blk *b)
{
	struct virtio_transport *t = b->transport;

	return t->ops->status(t) & VIRTIO_NEEDS_RESET;
}

/* Asked when it has interrupted for such a reason, and now and then, as it may not have. */
static bool gave_up(const struct virtio_blk *b, uint64_t *next_look)
{
	if (!b->config_changed && time_ns() < *next_look)
		return false;
	*next_look = time_after_ms(STATUS_MS);
	return needs_reset(b);
}

static int wait_done(struct virtio_blk *b, struct virtq_completion *done)
{
	uint64_t deadline = time_after_ms(b->transport->answer_ms);
	uint64_t next_look = time_after_ms(STATUS_MS);
	int n;

	while ((n = virtqueue_completed(&b->queue, done)) == 0) {
		if (time_ns() > deadline)
			return BLK_TIMEOUT;
		if (gave_up(b, &next_look))
			return BLK_BROKEN;
		idle(b, deadline);
	}
	if (b->irq_came)
		b->late = 0;
	return n < 0 ? BLK_BROKEN : BLK_OK;
}

/*
 * Success with less written than asked for is a failed request: the rest of the
 * buffer is stale. Legacy devices often get the length wrong, so theirs does not count.
 */
static int outcome(struct virtio_blk *b, const struct virtq_completion *done)
{
	bool whole = b->transport->legacy || done->written == b->queue.slot[done->head].writable;

	switch (header_of(b)->status) {
	case S_OK:
		return whole ? BLK_OK : BLK_IO;
	case S_IOERR:
		return BLK_IO;
	case S_UNSUPP:
		return BLK_UNSUPPORTED;
	default:
		return BLK_BROKEN;
	}
}

static int request(struct virtio_blk *b, enum request_type type, uint64_t sector, size_t nbytes)
{
	struct virtq_buffer buf[MAX_BUFFERS];
	struct virtq_completion done;
	unsigned int n;
	int e;

	if (b->dead)
		return BLK_BROKEN;
	write_header(b, type, sector);
	n = describe(b, type, nbytes, buf);
	b->irq_came = false;
	b->waits_for_irq = can_sleep(b);
	virtqueue_want_irq(&b->queue, b->waits_for_irq);
	if (virtqueue_add(&b->queue, buf, n, b) < 0)
		return BLK_NO_MEMORY;
	if (virtqueue_wants_notify(&b->queue))
		b->transport->ops->queue_notify(b->transport, QUEUE);
	e = wait_done(b, &done);
	if (e)
		return recover(b, e);
	e = outcome(b, &done);
	virtqueue_release(&b->queue, done.head);
	return e == BLK_BROKEN ? recover(b, e) : e;
}

static void on_irq(void *ctx)
{
	struct virtio_blk *b = ctx;
	uint32_t why = b->transport->ops->ack_irq(b->transport);

	if (why)
		b->irq_came = true;
	if (why & VIRTIO_IRQ_CONFIG)
		b->config_changed = true;
}

/* --- What blk.h promises --------------------------------------------------- */

/* May the configuration have changed since it was read? A legacy device has no generation. */
static bool config_is_old(const struct virtio_blk *b)
{
	struct virtio_transport *t = b->transport;

	if (b->config_changed || can_sleep(b))
		return b->config_changed;
	return t->legacy || t->ops->config_generation(t) != b->generation;
}

static void acquire(struct virtio_blk *b)
{
	while (__atomic_exchange_n(&b->busy, 1, __ATOMIC_ACQUIRE))
		arch_relax();
	if (!b->dead && config_is_old(b) && (needs_reset(b) || read_capacity(b) < 0))
		recover(b, BLK_BROKEN);
}

static void release(struct virtio_blk *b)
{
	__atomic_store_n(&b->busy, 0, __ATOMIC_RELEASE);
}

/* Pre: acquired, so that the size is the one of now. It does not change until released. */
static bool in_range(const struct virtio_blk *b, uint64_t sector, size_t nsectors)
{
	return nsectors && sector < b->blk.nsectors && nsectors <= b->blk.nsectors - sector;
}

/* What one request of the device does for a sector and some of those behind it. */
struct extent {
	uint64_t start;	 /* first sector that the device transfers: where a block starts */
	size_t nsectors; /* that it transfers */
	size_t skip;	 /* sectors of these in front of the wanted ones */
	size_t wanted;	 /* sectors */
};

static struct extent find_extent(const struct virtio_blk *b, uint64_t sector, size_t nsectors)
{
	size_t block = b->blk.block_size / BLK_SECTOR, skip = sector & (block - 1);
	size_t wanted = min_size(nsectors, b->chunk / BLK_SECTOR - skip);

	return (struct extent){
		.start = sector - skip,
		.nsectors = (skip + wanted + block - 1) & ~(block - 1),
		.skip = skip,
		.wanted = wanted,
	};
}

static char *wanted_data(const struct virtio_blk *b, const struct extent *x)
{
	return (char *)b->data.cpu_addr + x->skip * BLK_SECTOR;
}

static int transfer(struct virtio_blk *b, enum request_type type, const struct extent *x)
{
	return request(b, type, x->start, x->nsectors * BLK_SECTOR);
}

static int read_extent(struct virtio_blk *b, const struct extent *x, void *to)
{
	int e = transfer(b, T_IN, x);

	if (!e)
		memcpy(to, wanted_data(b, x), x->wanted * BLK_SECTOR);
	return e;
}

static int write_extent(struct virtio_blk *b, const struct extent *x, const void *from)
{
	int e = x->wanted < x->nsectors ? transfer(b, T_IN, x) : BLK_OK;

	if (e)
		return e;
	memcpy(wanted_data(b, x), from, x->wanted * BLK_SECTOR);
	return transfer(b, T_OUT, x);
}

static int disk_read(struct blk_device *d, uint64_t sector, void *buf, size_t nsectors)
{
	struct virtio_blk *b = disk_of(d);
	struct extent x;
	char *to = buf;
	int e;

	acquire(b);
	e = in_range(b, sector, nsectors) ? BLK_OK : BLK_RANGE;
	for (; nsectors && !e; nsectors -= x.wanted, sector += x.wanted) {
		x = find_extent(b, sector, nsectors);
		e = read_extent(b, &x, to);
		to += x.wanted * BLK_SECTOR;
	}
	release(b);
	return e;
}

static int disk_write(struct blk_device *d, uint64_t sector, const void *buf, size_t nsectors)
{
	struct virtio_blk *b = disk_of(d);
	const char *from = buf;
	struct extent x;
	int e;

	acquire(b);
	e = in_range(b, sector, nsectors) ? BLK_OK : BLK_RANGE;
	for (; nsectors && !e; nsectors -= x.wanted, sector += x.wanted) {
		x = find_extent(b, sector, nsectors);
		e = write_extent(b, &x, from);
		from += x.wanted * BLK_SECTOR;
	}
	release(b);
	return e;
}

/* A device without the request has nothing to flush: its writes are stable when they complete. */
static int disk_flush(struct blk_device *d)
{
	struct virtio_blk *b = disk_of(d);
	int e = BLK_OK;

	acquire(b);
	if (b->has_flush || b->dead)
		e = request(b, T_FLUSH, 0, 0);
	release(b);
	return e;
}

static uint64_t disk_size(struct blk_device *d)
{
	struct virtio_blk *b = disk_of(d);
	uint64_t nsectors;

	acquire(b);
	nsectors = d->nsectors;
	release(b);
	return nsectors;
}

static const struct blk_ops disk_ops = {
	.read = disk_read,
	.write = disk_write,
	.flush = disk_flush,
	.size = disk_size,
};

/* --- Opening and closing --------------------------------------------------- */

/* The id has no NUL when it fills its field. A disk without one is a disk all the same. */
static void read_id(struct virtio_blk *b)
{
	if (request(b, T_GET_ID, 0, ID_SIZE) != BLK_OK)
		return;
	memcpy(b->blk.id, b->data.cpu_addr, ID_SIZE);
	make_printable(b->blk.id);
}

static int alloc_buffers(struct virtio_blk *b)
{
	struct dma_device *dma = &b->transport->dma;

	if (dma_alloc_coherent(dma, header_layout, &b->header) != ALLOC_OK)
		return -1;
	if (dma_alloc_coherent(dma, data_layout, &b->data) != ALLOC_OK)
		return -1;
	return 0;
}

static void free_buffers(struct virtio_blk *b)
{
	struct dma_device *dma = &b->transport->dma;

	if (b->header.cpu_addr)
		dma_dealloc_coherent(dma, b->header, header_layout);
	if (b->data.cpu_addr)
		dma_dealloc_coherent(dma, b->data, data_layout);
	virtqueue_free(&b->queue, dma);
}

struct virtio_blk *virtio_blk_open(struct virtio_transport *t)
{
	struct virtio_blk *b;
	void *mem;

	if (global_alloc_zeroed(blk_layout, &mem) != ALLOC_OK)
		return NULL;
	b = mem;
	b->transport = t;
	b->blk.ops = &disk_ops;
	b->blk.address = t->address;
	b->irq = (struct irq_action){.name = "virtio-blk", .handler = on_irq, .ctx = b};
	if (alloc_buffers(b) < 0)
		log_error("%s: no memory for DMA", t->name);
	else if (start(b) == 0) {
		b->has_irq = t->ops->irq_connect(t, &b->irq) == 0;
		read_id(b);
		if (!b->dead)
			return b;
	}
	virtio_blk_close(b);
	return NULL;
}

void virtio_blk_close(struct virtio_blk *b)
{
	struct virtio_transport *t = b->transport;

	if (virtio_reset(t) == 0)
		free_buffers(b);
	else
		log_error("%s: its memory is not used again", t->name);
	if (b->has_irq)
		t->ops->irq_disconnect(t, &b->irq);
	global_dealloc(b, blk_layout);
}

static int virtio_blk_probe(struct virtio_transport *t)
{
	struct virtio_blk *b = virtio_blk_open(t);

	if (!b)
		return -1;
	log_info("%s: disk \"%s\", %lu sectors%s%s%s", t->name, b->blk.id,
		 (unsigned long)b->blk.nsectors, b->blk.read_only ? ", read-only" : "",
		 t->legacy ? ", legacy" : "", b->has_irq ? "" : ", polled");
	blk_register(&b->blk);
	return 0;
}

VIRTIO_DRIVER(virtio_blk) = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.probe = virtio_blk_probe,
};
