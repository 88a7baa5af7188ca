/* SPDX-License-Identifier: MIT */
/*
 * The three parts of the ring lie in one block, as legacy devices demand:
 * descriptors, available ring, and on the next page the used ring. Modern
 * devices take any place, so this one too.
 *
 * Barriers are those for devices, not the weaker ones among CPUs: the other
 * side may be hardware that is outside the domain in which CPUs are coherent.
 */
#include "virtqueue.h"

#include <arch/arch.h>
#include <lib/string.h>

#define PAGE MM_PAGE_SIZE

static size_t used_offset(size_t size)
{
	size_t front = size * sizeof(struct virtq_desc) + sizeof(struct virtq_avail) +
		       (size + 1) * sizeof(uint16_t);

	return (front + PAGE - 1) & ~(PAGE - 1);
}

static struct layout ring_layout(size_t size)
{
	size_t used = sizeof(struct virtq_used) + size * sizeof(struct virtq_used_elem) +
		      sizeof(uint16_t);

	return (struct layout){(used_offset(size) + used + PAGE - 1) & ~(PAGE - 1), PAGE};
}

int virtqueue_init(struct virtqueue *q, struct dma_device *dma, uint32_t max)
{
	uint16_t size = VIRTQUEUE_MAX;
	char *at;

	while (size > max)
		size /= 2;
	if (!size || dma_alloc_coherent(dma, ring_layout(size), &q->memory) != ALLOC_OK)
		return -1;
	at = q->memory.cpu_addr;
	q->size = size;
	q->any_length = false;
	q->desc = (volatile struct virtq_desc *)at;
	q->avail = (volatile struct virtq_avail *)(at + size * sizeof(struct virtq_desc));
	q->used = (volatile struct virtq_used *)(at + used_offset(size));
	virtqueue_reset(q);
	return 0;
}

void virtqueue_free(struct virtqueue *q, struct dma_device *dma)
{
	if (q->size)
		dma_dealloc_coherent(dma, q->memory, ring_layout(q->size));
	q->size = 0;
}

void virtqueue_reset(struct virtqueue *q)
{
	memset(q->memory.cpu_addr, 0, ring_layout(q->size).size);
	memset(q->slot, 0, sizeof(q->slot));
	for (uint16_t i = 0; i < q->size; i++)
		q->slot[i].next = (uint16_t)(i + 1);
	q->free_head = 0;
	q->nfree = q->size;
	q->in_flight = 0;
	q->next_avail = 0;
	q->next_used = 0;
	q->broken = false;
}

struct virtq_place virtqueue_place(const struct virtqueue *q)
{
	uint64_t base = q->memory.bus_addr.value;

	return (struct virtq_place){
		.desc = {base},
		.avail = {base + q->size * sizeof(struct virtq_desc)},
		.used = {base + used_offset(q->size)},
		.size = q->size,
	};
}

static void write_desc(struct virtqueue *q, uint16_t i, const struct virtq_buffer *b, bool more)
{
	volatile struct virtq_desc *d = &q->desc[i];
	unsigned int flags =
		(b->device_writes ? VIRTQ_DESC_WRITE : 0) | (more ? VIRTQ_DESC_NEXT : 0);

	d->addr = b->addr.value;
	d->len = b->len;
	d->flags = (uint16_t)flags;
	d->next = more ? q->slot[i].next : 0;
}

/* The chain is complete in memory before the device can see that it is there. */
static void publish(struct virtqueue *q, uint16_t head)
{
	q->avail->ring[q->next_avail & (q->size - 1)] = head;
	q->next_avail++;
	arch_io_wmb();
	q->avail->idx = q->next_avail;
	q->in_flight++;
}

int virtqueue_add(struct virtqueue *q, const struct virtq_buffer *buf, unsigned int n, void *token)
{
	struct virtq_slot *head = &q->slot[q->free_head];
	uint16_t at = q->free_head, first = at;

	if (!n || n > q->nfree)
		return -1;
	head->token = token;
	head->length = (uint16_t)n;
	head->in_flight = true;
	head->writable = 0;
	for (unsigned int i = 0; i < n; i++) {
		write_desc(q, at, &buf[i], i + 1 < n);
		head->writable += buf[i].device_writes ? buf[i].len : 0;
		at = q->slot[at].next;
	}
	q->free_head = at;
	q->nfree = (uint16_t)(q->nfree - n);
	publish(q, first);
	return 0;
}

/* The device looks for more before it sleeps, so our index must be out before we look at its flag.
 */
bool virtqueue_wants_notify(const struct virtqueue *q)
{
	arch_io_mb();
	return !(q->used->flags & VIRTQ_USED_NO_NOTIFY);
}

void virtqueue_want_irq(struct virtqueue *q, bool want)
{
	q->avail->flags = (uint16_t)(want ? 0 : VIRTQ_AVAIL_NO_IRQ);
}

bool virtqueue_pending(const struct virtqueue *q)
{
	return q->used->idx != q->next_used;
}

static int breach(struct virtqueue *q)
{
	q->broken = true;
	return -1;
}

int virtqueue_completed(struct virtqueue *q, struct virtq_completion *out)
{
	uint16_t ready = (uint16_t)(q->used->idx - q->next_used);
	const volatile struct virtq_used_elem *e = &q->used->ring[q->next_used & (q->size - 1)];
	uint32_t id, len;

	if (!ready && !q->broken)
		return 0;
	if (q->broken || ready > q->in_flight)
		return breach(q);
	arch_io_rmb();
	/* Each is read once: the device could change it between a check and a use. */
	id = e->id;
	len = q->any_length ? 0 : e->len;
	if (id >= q->size || !q->slot[id].in_flight || len > q->slot[id].writable)
		return breach(q);
	q->slot[id].in_flight = false;
	q->in_flight--;
	q->next_used++;
	*out = (struct virtq_completion){q->slot[id].token, (uint16_t)id, len};
	return 1;
}

void virtqueue_release(struct virtqueue *q, uint16_t head)
{
	uint16_t last = head;

	for (uint16_t i = 1; i < q->slot[head].length; i++)
		last = q->slot[last].next;
	q->slot[last].next = q->free_head;
	q->free_head = head;
	q->nfree = (uint16_t)(q->nfree + q->slot[head].length);
}
