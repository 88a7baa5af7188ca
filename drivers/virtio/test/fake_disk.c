/* SPDX-License-Identifier: MIT */
#include "fake_disk.h"

#include <arch/arch.h>
#include <drivers/blk.h>
#include <lib/string.h>
#include <selftest/selftest.h>

#define T_IN	 0u
#define T_OUT	 1u
#define T_FLUSH	 4u
#define T_GET_ID 8u

#define ANSWER_MS 20u
#define DISK_END  ((uint64_t)FAKE_SECTORS * BLK_SECTOR)

static struct fake_disk *fake_of(struct virtio_transport *t)
{
	return (struct fake_disk *)((char *)t - offsetof(struct fake_disk, transport));
}

static void *at_bus(uint64_t bus)
{
	return arch_phys_to_virt(bus);
}

/* --- Serving a request ----------------------------------------------------- */

/* A request as the device reads it out of its chain. */
struct chain {
	uint16_t head;
	uint32_t type;
	uint64_t sector;
	uint64_t writable, total;
	volatile uint8_t *status;
	bool sound; /* header, data of one direction, status */
};

static volatile struct virtq_desc *desc_at(const struct fake_disk *f, uint16_t i)
{
	return (volatile struct virtq_desc *)at_bus(f->place.desc.value) + i;
}

static volatile struct virtq_avail *avail_of(const struct fake_disk *f)
{
	return at_bus(f->place.avail.value);
}

static volatile struct virtq_used *used_of(const struct fake_disk *f)
{
	return at_bus(f->place.used.value);
}

static void read_header(const volatile struct virtq_desc *d, struct chain *c)
{
	const volatile uint32_t *h = at_bus(d->addr);

	c->sound = d->len == 16 && !(d->flags & VIRTQ_DESC_WRITE);
	c->type = h[0];
	c->sector = *(const volatile uint64_t *)(h + 2);
	c->total = d->len;
}

/* Move the bytes of one data buffer; false: it is not what the request needs. */
static bool serve_data(struct fake_disk *f, const struct chain *c, uint64_t offset,
		       const volatile struct virtq_desc *d)
{
	bool writes = d->flags & VIRTQ_DESC_WRITE;
	uint64_t start = c->sector * BLK_SECTOR + offset;
	void *buf = at_bus(d->addr);

	if (writes != (c->type != T_OUT))
		return false;
	if (c->type == T_GET_ID) {
		memcpy(buf, FAKE_ID, d->len < sizeof(FAKE_ID) ? d->len : sizeof(FAKE_ID));
		return true;
	}
	if (start + d->len > DISK_END)
		return false;
	if (c->type == T_IN)
		memcpy(buf, f->sectors + start, d->len);
	else
		memcpy(f->sectors + start, buf, d->len);
	return true;
}

/* Whole blocks. */
static bool is_aligned(const struct fake_disk *f, const struct chain *c, uint64_t nbytes)
{
	uint64_t start = c->sector * BLK_SECTOR, end = start + nbytes;

	if (c->type != T_IN && c->type != T_OUT)
		return true;
	return start % f->blk_size == 0 && end % f->blk_size == 0;
}

static struct chain serve_chain(struct fake_disk *f, uint16_t head)
{
	const volatile struct virtq_desc *d = desc_at(f, head);
	struct chain c = {.head = head};
	uint32_t segments = 0;
	uint64_t offset = 0;

	read_header(d, &c);
	while (c.sound && d->flags & VIRTQ_DESC_NEXT) {
		d = desc_at(f, d->next);
		c.total += d->len;
		if (d->flags & VIRTQ_DESC_WRITE)
			c.writable += d->len;
		if (!(d->flags & VIRTQ_DESC_NEXT))
			break;
		c.sound = serve_data(f, &c, offset, d);
		offset += d->len;
		segments++;
		if (d->len > f->largest_segment)
			f->largest_segment = d->len;
	}
	if (segments > f->most_segments)
		f->most_segments = segments;
	c.sound =
		c.sound && d->len == 1 && d->flags & VIRTQ_DESC_WRITE && is_aligned(f, &c, offset);
	c.status = at_bus(d->addr);
	return c;
}

static void put_used(struct fake_disk *f, uint32_t id, uint64_t len)
{
	volatile struct virtq_used *u = used_of(f);
	volatile struct virtq_used_elem *e = &u->ring[f->next_used % f->place.size];

	e->id = id;
	e->len = (uint32_t)len;
	f->next_used++;
	arch_io_wmb();
	u->idx = f->next_used;
}

static void complete(struct fake_disk *f, const struct chain *c)
{
	uint16_t middle = desc_at(f, c->head)->next;

	switch (f->fault) {
	case FAKE_ID_RANGE:
		put_used(f, f->place.size, 1);
		return;
	case FAKE_ID_FREE:
		put_used(f, (c->head + f->place.size - 1) % f->place.size, 1);
		return;
	case FAKE_ID_MIDDLE:
		put_used(f, middle, 1);
		return;
	case FAKE_LONG:
		put_used(f, c->head, c->writable + 1);
		return;
	case FAKE_SHORT:
		put_used(f, c->head, c->writable - 1);
		return;
	case FAKE_TOTAL:
		put_used(f, c->head, c->total);
		return;
	case FAKE_INDEX_JUMP:
		f->next_used = (uint16_t)(f->next_used + 100);
		break;
	case FAKE_INDEX_BACK:
		f->next_used = (uint16_t)(f->next_used - 3);
		break;
	case FAKE_TWICE:
		put_used(f, c->head, c->writable);
		break;
	default:
		break;
	}
	put_used(f, c->head, c->writable);
}

static void write_status(const struct fake_disk *f, const struct chain *c)
{
	if (f->fault == FAKE_NO_STATUS)
		return;
	if (f->fault == FAKE_BAD_STATUS)
		*c->status = 77;
	else if (f->fault == FAKE_UNSUPPORTED)
		*c->status = 2;
	else
		*c->status = f->fault == FAKE_IO_ERROR;
}

static void serve(struct fake_disk *f, uint16_t head)
{
	struct chain c;

	f->requests++;
	if (f->fault == FAKE_GIVES_UP)
		f->status |= VIRTIO_NEEDS_RESET;
	if (f->fault == FAKE_SILENT || f->fault == FAKE_GIVES_UP)
		return;
	c = serve_chain(f, head);
	f->flushes += c.type == T_FLUSH;
	if (!c.sound) {
		f->broken_rules++;
		return;
	}
	write_status(f, &c);
	complete(f, &c);
}

void fake_interrupt(struct fake_disk *f)
{
	if (f->action && f->why)
		f->action->handler(f->action->ctx);
}

void fake_resize(struct fake_disk *f, uint64_t capacity)
{
	f->capacity = capacity;
	f->generation++;
}

/* --- The transport --------------------------------------------------------- */

static void fake_notify(struct virtio_transport *t, uint32_t queue)
{
	struct fake_disk *f = fake_of(t);
	volatile struct virtq_avail *a = avail_of(f);

	if (queue || !f->started || !(f->status & VIRTIO_DRIVER_OK)) {
		f->broken_rules++;
		return;
	}
	while (f->next_avail != a->idx) {
		arch_io_rmb();
		serve(f, a->ring[f->next_avail++ % f->place.size]);
	}
	if (f->fault == FAKE_SILENT)
		return;
	f->why = a->flags & VIRTQ_AVAIL_NO_IRQ ? 0 : VIRTIO_IRQ_QUEUE;
	if (f->capacity != f->told_capacity || f->fault == FAKE_GIVES_UP)
		f->why |= VIRTIO_IRQ_CONFIG;
	f->told_capacity = f->capacity;
	fake_interrupt(f);
}

static uint8_t fake_status(struct virtio_transport *t)
{
	return fake_of(t)->status;
}

static void fake_reset(struct fake_disk *f)
{
	f->resets++;
	if (f->ignores_reset)
		return;
	f->status = 0;
	f->started = false;
	f->next_avail = 0;
	f->next_used = 0;
	if (f->heals)
		f->fault = FAKE_GOOD;
}

static void fake_set_status(struct virtio_transport *t, uint8_t status)
{
	struct fake_disk *f = fake_of(t);

	if (!status) {
		fake_reset(f);
		return;
	}
	if (f->refuses_features)
		status = (uint8_t)(status & ~VIRTIO_FEATURES_OK);
	f->status = status;
}

static uint64_t fake_features(struct virtio_transport *t)
{
	return fake_of(t)->offered;
}

static void fake_set_features(struct virtio_transport *t, uint64_t features)
{
	fake_of(t)->accepted = features;
}

static uint32_t fake_config(struct virtio_transport *t, uint32_t offset)
{
	struct fake_disk *f = fake_of(t);
	uint32_t high = (uint32_t)(f->capacity >> 32);

	switch (offset) {
	case 0:
		return (uint32_t)f->capacity;
	case 4:
		f->capacity += f->grows_in_between;
		f->grows_in_between = false;
		return high;
	case 8:
		return f->size_max;
	case 12:
		return f->seg_max;
	case 20:
		return f->blk_size;
	default:
		return 0;
	}
}

static uint32_t fake_generation(struct virtio_transport *t)
{
	struct fake_disk *f = fake_of(t);

	f->generation += f->keeps_changing;
	return t->legacy ? 0 : f->generation;
}

static uint32_t fake_queue_max(struct virtio_transport *t, uint32_t queue)
{
	return queue ? 0 : fake_of(t)->queue_max;
}

static int fake_queue_start(struct virtio_transport *t, uint32_t queue,
			    const struct virtq_place *place)
{
	struct fake_disk *f = fake_of(t);

	if (queue || f->started || place->size > f->queue_max) {
		f->broken_rules++;
		return -1;
	}
	f->place = *place;
	f->started = true;
	f->told_capacity = f->capacity;
	return 0;
}

static uint32_t fake_ack_irq(struct virtio_transport *t)
{
	return fake_of(t)->why;
}

static int fake_irq_connect(struct virtio_transport *t, struct irq_action *action)
{
	struct fake_disk *f = fake_of(t);

	if (!f->gives_irq)
		return -1;
	f->action = action;
	return 0;
}

static void fake_irq_disconnect(struct virtio_transport *t, struct irq_action *action)
{
	(void)action;
	fake_of(t)->action = NULL;
}

static const struct virtio_transport_ops fake_ops = {
	.status = fake_status,
	.set_status = fake_set_status,
	.features = fake_features,
	.set_features = fake_set_features,
	.config = fake_config,
	.config_generation = fake_generation,
	.queue_max = fake_queue_max,
	.queue_start = fake_queue_start,
	.queue_notify = fake_notify,
	.ack_irq = fake_ack_irq,
	.irq_connect = fake_irq_connect,
	.irq_disconnect = fake_irq_disconnect,
};

bool fake_disk_init(struct fake_disk *f)
{
	memset(f, 0, sizeof(*f));
	f->transport.ops = &fake_ops;
	f->transport.name = "fake";
	f->transport.device_id = VIRTIO_ID_BLOCK;
	f->transport.answer_ms = ANSWER_MS;
	dma_device_init(&f->transport.dma, "fake");
	f->offered = VIRTIO_F_VERSION_1 | FAKE_F_FLUSH | FAKE_F_SEG_MAX;
	f->queue_max = 1024;
	f->seg_max = 126;
	f->blk_size = BLK_SECTOR;
	f->capacity = FAKE_SECTORS;
	f->heals = true;
	f->sectors = selftest_memory((size_t)FAKE_SECTORS * BLK_SECTOR);
	for (size_t i = 0; f->sectors && i < (size_t)FAKE_SECTORS * BLK_SECTOR; i++)
		f->sectors[i] = fake_pattern(i);
	return f->sectors;
}
