/* SPDX-License-Identifier: MIT */
/* The queue alone; the test is the device, and writes into the used ring what it likes. */
#include <selftest/selftest.h>

#include "../virtqueue.h"

static struct dma_device dma;

/* A queue of at most max descriptors, or NULL. */
static struct virtqueue *open_queue(uint32_t max)
{
	struct virtqueue *q = selftest_memory(sizeof(*q));

	dma_device_init(&dma, "virtqueue test");
	if (!q)
		return NULL;
	q->size = 0;
	return virtqueue_init(q, &dma, max) < 0 ? NULL : q;
}

static void close_queue(struct virtqueue *q)
{
	virtqueue_free(q, &dma);
	dma_trim();
}

/* A chain of n buffers of 100 bytes; the device writes all but the first. */
static int add_chain(struct virtqueue *q, unsigned int n, void *token)
{
	struct virtq_buffer buf[VIRTQUEUE_MAX];

	for (unsigned int i = 0; i < n; i++)
		buf[i] = (struct virtq_buffer){{0x1000u * (i + 1)}, 100, i > 0};
	return virtqueue_add(q, buf, n, token);
}

static uint16_t last_head(const struct virtqueue *q)
{
	return q->avail->ring[(q->next_avail - 1) & (q->size - 1)];
}

/* As the device: entry `at` of the used ring. */
static void use(struct virtqueue *q, uint16_t at, uint32_t id, uint32_t len)
{
	q->used->ring[at & (q->size - 1)].id = id;
	q->used->ring[at & (q->size - 1)].len = len;
}

static int completed(struct virtqueue *q)
{
	struct virtq_completion done;

	return virtqueue_completed(q, &done);
}

SELFTEST(virtqueue, size)
{
	static const uint16_t want[][2] = {{1, 1}, {3, 2}, {200, 128}, {256, 256}, {1024, 256}};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct virtqueue *q = open_queue(want[i][0]);

		CHECK(q && q->size == want[i][1] && q->nfree == q->size);
		close_queue(q);
	}
	CHECK(!open_queue(0));
}

SELFTEST(virtqueue, place)
{
	for (uint32_t size = 1; size <= VIRTQUEUE_MAX; size *= 2) {
		struct virtqueue *q = open_queue(size);
		struct virtq_place p;

		CHECK(q);
		p = virtqueue_place(q);
		CHECK(p.size == size && p.desc.value % MM_PAGE_SIZE == 0);
		CHECK(p.avail.value == p.desc.value + size * 16);
		CHECK(p.used.value % MM_PAGE_SIZE == 0);
		CHECK(p.used.value >= p.avail.value + 6 + size * 2);
		close_queue(q);
	}
}

SELFTEST(virtqueue, chains)
{
	struct virtqueue *q = open_queue(8);
	volatile struct virtq_desc *d;

	CHECK(q && add_chain(q, 3, q) == 0);
	d = &q->desc[last_head(q)];
	CHECK(d->addr == 0x1000 && d->len == 100 && d->flags == VIRTQ_DESC_NEXT);
	d = &q->desc[d->next];
	CHECK(d->addr == 0x2000 && d->flags == (VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE));
	d = &q->desc[d->next];
	CHECK(d->addr == 0x3000 && d->flags == VIRTQ_DESC_WRITE);
	CHECK(q->avail->idx == 1 && q->nfree == 5 && q->in_flight == 1);
	CHECK(add_chain(q, 0, q) < 0 && add_chain(q, 6, q) < 0);
	CHECK(add_chain(q, 5, q) == 0 && q->nfree == 0);
	CHECK(add_chain(q, 1, q) < 0 && q->avail->idx == 2);
	close_queue(q);
}

/* Full rings, answered backwards, and the index runs over its 16 bits. */
SELFTEST(virtqueue, out_of_order_and_wrap)
{
	struct virtqueue *q = open_queue(16);
	struct virtq_completion done;
	uint16_t head[8];
	int token[8];

	CHECK(q);
	q->next_avail = q->next_used = 65500;
	q->used->idx = 65500;
	for (unsigned int round = 0; round < 20; round++) {
		uint16_t first = q->next_used;

		for (unsigned int i = 0; i < 8; i++) {
			CHECK(add_chain(q, 2, &token[i]) == 0);
			head[i] = last_head(q);
		}
		CHECK(completed(q) == 0 && !virtqueue_pending(q));
		for (unsigned int i = 0; i < 8; i++)
			use(q, (uint16_t)(first + i), head[7 - i], i);
		q->used->idx = (uint16_t)(first + 8);
		for (unsigned int i = 0; i < 8; i++) {
			CHECK(virtqueue_pending(q));
			CHECK(virtqueue_completed(q, &done) == 1);
			CHECK(done.token == &token[7 - i] && done.head == head[7 - i]);
			CHECK(done.written == i);
			virtqueue_release(q, done.head);
		}
		CHECK(completed(q) == 0 && q->nfree == q->size && q->in_flight == 0);
	}
	close_queue(q);
}

/* What a device may not do, each on a fresh queue with one chain of three in flight. */
SELFTEST(virtqueue, lies)
{
	enum { ID_RANGE, ID_HUGE, ID_FREE, ID_MIDDLE, LENGTH, JUMP, BACK, LIES };

	for (int lie = 0; lie < LIES; lie++) {
		struct virtqueue *q = open_queue(8);
		uint16_t head;

		CHECK(q && add_chain(q, 3, q) == 0);
		head = last_head(q);
		use(q, 0, head, 200);
		q->used->idx = 1;
		if (lie == ID_RANGE)
			use(q, 0, q->size, 0);
		if (lie == ID_HUGE)
			use(q, 0, UINT32_MAX, 0);
		if (lie == ID_FREE)
			use(q, 0, 7, 0);
		if (lie == ID_MIDDLE)
			use(q, 0, q->desc[head].next, 0);
		if (lie == LENGTH)
			use(q, 0, head, 201);
		if (lie == JUMP)
			q->used->idx = 2;
		if (lie == BACK)
			q->used->idx = UINT16_MAX;
		CHECK(completed(q) < 0);
		use(q, 0, head, 200);
		q->used->idx = 1;
		CHECK(completed(q) < 0); /* what it says later does not count */
		virtqueue_reset(q);
		CHECK(completed(q) == 0 && q->nfree == q->size && add_chain(q, 8, q) == 0);
		close_queue(q);
	}
}

/* What a legacy device says that it wrote means nothing. */
SELFTEST(virtqueue, any_length)
{
	struct virtqueue *q = open_queue(8);
	struct virtq_completion done;

	CHECK(q && add_chain(q, 3, q) == 0);
	q->any_length = true;
	use(q, 0, last_head(q), UINT32_MAX);
	q->used->idx = 1;
	CHECK(virtqueue_completed(q, &done) == 1 && !done.written);
	close_queue(q);
}

SELFTEST(virtqueue, repeated_completion)
{
	struct virtqueue *q = open_queue(8);
	struct virtq_completion done;
	uint16_t head;

	CHECK(q && add_chain(q, 2, q) == 0);
	head = last_head(q);
	CHECK(add_chain(q, 2, q) == 0);
	use(q, 0, head, 0);
	use(q, 1, head, 0);
	q->used->idx = 2;
	CHECK(virtqueue_completed(q, &done) == 1);
	CHECK(completed(q) < 0); /* not yet released */
	virtqueue_release(q, done.head);
	CHECK(completed(q) < 0); /* released */
	close_queue(q);
}

SELFTEST(virtqueue, hints)
{
	struct virtqueue *q = open_queue(8);

	CHECK(q && virtqueue_wants_notify(q));
	q->used->flags = VIRTQ_USED_NO_NOTIFY;
	CHECK(!virtqueue_wants_notify(q));
	virtqueue_want_irq(q, false);
	CHECK(q->avail->flags == VIRTQ_AVAIL_NO_IRQ);
	virtqueue_want_irq(q, true);
	CHECK(q->avail->flags == 0);
	close_queue(q);
}
