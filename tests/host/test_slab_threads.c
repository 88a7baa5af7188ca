/* SPDX-License-Identifier: MIT */
/*
 * The slab engine with threads as CPUs: local calls without a lock, blocks that
 * are freed by another CPU than the one that got them, and pieces that come and
 * go meanwhile. Made for the thread sanitizer:
 *	make host-test HOST_SAN=thread FILTER=slab/threads
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <mm/byte_slab.h>
#include <mm/port.h>
#include <selftest/selftest.h>

#define THREADS	    4
#define MAILBOXES   256
#define ROUNDS	    40000
#define YIELD_EVERY 64
#define PIECE	    ((size_t)512 * 1024)
#define PIECES	    4

/* What travels between the threads; the rest of the block is filled with its tag. */
struct parcel {
	uint32_t size, align;
	uint32_t tag;
};

static struct byte_slab slab;
static struct mm_lock lock;
static _Atomic(struct parcel *) mailbox[MAILBOXES];
static _Atomic unsigned int failures;

static void *get(size_t size, size_t align)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	void *p = byte_slab_ops.alloc_local(&slab.base, size, align, cpu);

	mm_port_unpin(state, cpu);
	if (p)
		return p;
	state = mm_port_lock(&lock);
	p = byte_slab_ops.alloc(&slab.base, size, align);
	mm_port_unlock(&lock, state);
	return p;
}

static void put(void *p, size_t size, size_t align)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	enum mm_fault_kind fault = byte_slab_ops.dealloc_local(&slab.base, p, size, align, cpu);

	mm_port_unpin(state, cpu);
	if (fault == MM_FAULT_KINDS) {
		state = mm_port_lock(&lock);
		fault = byte_slab_ops.dealloc(&slab.base, p, size, align);
		mm_port_unlock(&lock, state);
	}
	failures += fault != MM_FAULT_NONE;
}

static struct parcel *pack(uint64_t random)
{
	size_t size = sizeof(struct parcel) + random % (random % 64 ? 500 : 6000);
	size_t align = (size_t)8 << (random >> 16) % 3;
	struct parcel *p = get(size, align);

	if (!p)
		return NULL;
	*p = (struct parcel){(uint32_t)size, (uint32_t)align, (uint32_t)(random >> 32)};
	__builtin_memset(p + 1, (int)(p->tag & 0xff), size - sizeof(*p));
	failures += ((uintptr_t)p & (align - 1)) != 0;
	return p;
}

static void unpack(struct parcel *p)
{
	const unsigned char *byte = (const unsigned char *)(p + 1);

	for (size_t i = 0; i < p->size - sizeof(*p); i++)
		failures += byte[i] != (p->tag & 0xff);
	put(p, p->size, p->align);
}

/* Hand a new block to whoever comes next, and free what somebody left. */
static void *exchange_parcels(void *seed)
{
	uint64_t random = (uintptr_t)seed;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t bits = selftest_random(&random);
		struct parcel *p = bits % 8 ? pack(bits) : NULL;

		p = atomic_exchange(&mailbox[(bits >> 20) % MAILBOXES], p);
		if (p)
			unpack(p);
		if (!(i % YIELD_EVERY))
			sched_yield();
	}
	return NULL;
}

/* Take pieces away and give them back while the others work: made free in parts, or at once. */
static void *move_pieces(void *finished)
{
	unsigned int part = 0;
	size_t moved = 0;

	while (!atomic_load((_Atomic bool *)finished)) {
		unsigned long state = mm_port_lock(&lock);
		size_t nbytes;
		void *start;

		slab.base.in_parts = moved % 2;
		if (slab.base.in_parts)
			part = byte_slab_ops.settle(&slab.base, part);
		if (byte_slab_ops.take_free(&slab.base, &start, &nbytes)) {
			__builtin_memset(start, 0x5a, nbytes);
			failures += byte_slab_ops.add_memory(&slab.base, start, nbytes) != ALLOC_OK;
			moved++;
		}
		mm_port_unlock(&lock, state);
		sched_yield(); /* or the others hardly ever get the lock */
	}
	return (void *)moved;
}

/* Did all run, and did pieces move? */
static bool run_threads(void)
{
	_Atomic bool finished = false;
	pthread_t worker[THREADS], mover;
	void *moved;

	if (pthread_create(&mover, NULL, move_pieces, (void *)&finished))
		return false;
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&worker[i], NULL, exchange_parcels, (void *)(i + 1)))
			return false;
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(worker[i], NULL);
	finished = true;
	pthread_join(mover, &moved);
	return moved;
}

static bool start_heap(uint8_t *memory)
{
	slab.base.ops = &byte_slab_ops;
	if (byte_slab_ops.init(&slab.base, memory, PIECE) != ALLOC_OK)
		return false;
	for (size_t i = 1; i < PIECES; i++)
		if (byte_slab_ops.add_memory(&slab.base, memory + i * PIECE, PIECE) != ALLOC_OK)
			return false;
	return true;
}

SELFTEST(slab, threads)
{
	uint8_t *memory = selftest_memory(PIECES * PIECE);

	CHECK(memory && start_heap(memory));
	failures = 0;
	CHECK(run_threads());
	CHECK(!byte_slab_ops.check(&slab.base));
	for (size_t i = 0; i < MAILBOXES; i++) {
		struct parcel *p = atomic_exchange(&mailbox[i], NULL);

		if (p)
			unpack(p);
	}
	CHECK(!failures);
	CHECK(!byte_slab_ops.check(&slab.base));
	CHECK(!byte_slab_ops.used_bytes(&slab.base));
}

/* --- What other CPUs hold ----------------------------------------------------- */

static bool take_all(void)
{
	unsigned long state = mm_port_lock(&lock);
	void *start;
	size_t nbytes;

	while (byte_slab_ops.take_free(&slab.base, &start, &nbytes))
		;
	mm_port_unlock(&lock, state);
	return !byte_slab_ops.total_bytes(&slab.base);
}

#define PARCELS 4000

static void *free_all(void *blocks)
{
	for (void **p = blocks; p < (void **)blocks + PARCELS; p++)
		put(*p, 64, 8);
	return NULL;
}

/* A CPU's settling ends when everything that others freed is with its slab, however much it is. */
SELFTEST(slab, settles_what_others_freed)
{
	static void *block[PARCELS];
	uint8_t *memory = selftest_memory(PIECES * PIECE);
	unsigned int part = 0;
	pthread_t other;

	if (MM_HARDEN >= 3) {
		selftest_skip("the other CPU's quarantine keeps some");
		return;
	}
	slab = (struct byte_slab){0};
	CHECK(memory && start_heap(memory));
	failures = 0;
	for (size_t i = 0; i < PARCELS; i++)
		CHECK((block[i] = get(64, 8)));
	CHECK(!pthread_create(&other, NULL, free_all, block) && !pthread_join(other, NULL));
	slab.base.in_parts = true;
	do
		part = byte_slab_ops.settle(&slab.base, part);
	while (part);
	CHECK(!failures && take_all());
}

static void *free_and_write(void *block)
{
	put(block, 100, 8);
	((char *)block)[50] ^= 1;
	return NULL;
}

/* What another CPU has freed is not less verified. */
SELFTEST(slab, write_after_remote_free)
{
	uint8_t *memory = selftest_memory(PIECES * PIECE);
	unsigned long before = mm_fault_count();
	pthread_t other;
	void *p;

	if (MM_HARDEN != 2) {
		selftest_skip("only level 2 looks at it on this CPU");
		return;
	}
	slab = (struct byte_slab){0};
	CHECK(memory && start_heap(memory));
	failures = 0;
	CHECK((p = get(100, 8)));
	CHECK(!pthread_create(&other, NULL, free_and_write, p) && !pthread_join(other, NULL));
	mm_fault_expect(true);
	while (mm_fault_count() == before && get(100, 8))
		;
	mm_fault_expect(false);
	CHECK(!failures && mm_fault_last().ptr == p);
	CHECK(mm_fault_last().kind == MM_FAULT_WRITE_AFTER_FREE);
}

static pthread_barrier_t turn;

/* Leave an empty slab of some classes with this CPU. */
static void hoard(size_t most)
{
	for (size_t size = 16; size <= most; size *= 2) {
		void *p = get(size, 8);

		if (p)
			put(p, size, 8);
	}
}

/* Leave the fast path so many times. */
static void knock(unsigned int n)
{
	unsigned int cpu;

	while (n--) {
		unsigned long state = mm_port_pin(&cpu);

		failures += !!byte_slab_ops.alloc_local(&slab.base, 3000, 8, cpu);
		mm_port_unpin(state, cpu);
	}
}

/* Its owner waits twice until this was asked for what it holds. */
static void *hold_and_give_up(void *none)
{
	hoard(BYTE_SLAB_MAX / 2);
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	knock(3);
	hoard(64); /* of the classes that it has given up already */
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	knock(2 * BYTE_SLAB_CLASSES);
	return none;
}

/* Who is asked again while it gives up its slabs gives up those, too, that it has got meanwhile. */
SELFTEST(slab, asked_twice)
{
	uint8_t *memory = selftest_memory(PIECES * PIECE);
	pthread_t other;

	slab = (struct byte_slab){0};
	CHECK(memory && start_heap(memory));
	failures = 0;
	CHECK(!pthread_barrier_init(&turn, NULL, 2));
	CHECK(!pthread_create(&other, NULL, hold_and_give_up, NULL));
	for (int i = 0; i < 2; i++) {
		pthread_barrier_wait(&turn);
		failures += take_all();
		pthread_barrier_wait(&turn);
	}
	pthread_join(other, NULL);
	CHECK(!failures && take_all());
	pthread_barrier_destroy(&turn);
}
