/* SPDX-License-Identifier: MIT */
/*
 * Slab: header-less objects in size classes, per-CPU.
 *
 * A slab is one to seven pages of objects of one size. What is known about it
 * lies apart from the objects, in the record of its first page (slab_span.h),
 * so objects are aligned as their size is and no overflow reaches a record.
 * Every slab has an owner: a CPU, or "shared", which is whoever holds the lock.
 * Only the owner touches the free list and the counter, so neither needs an
 * atomic operation.
 *
 * The fast paths. alloc_local: size -> class (one byte table), the CPU's active
 * slab of that class, pop. dealloc_local: address -> record (one subtraction,
 * which is at the same time the test that the address is ours), owner, push.
 * The class is never looked up on the way back. slab.left counts down the frees
 * to the next event, so that "was full" and "is empty" are the same test.
 *
 * Between CPUs there are three lock-free hand-overs:
 *   inbox     objects freed by others: a stack per CPU, pushed with one
 *             compare-and-swap, taken whole by the owner when it runs dry, and
 *             given to their slabs eight at a time
 *   gift      a slab for a CPU. A CPU without a slab sets its bit in "hungry" and
 *             takes the locked call, which serves the request from a fresh slab
 *             and leaves that slab for the CPU
 *   returned  empty slabs, which the next locked call gives to the span manager
 * So every CPU path is bounded, and the locked calls need no CPU number.
 *
 * Classes: 8 bytes apart to 208, then what divides pages well, at most 12.5 %
 * apart from 64 up, but for 400..448..512 (two sizes of which a page holds
 * equally many are one class) and 3584..4096. Objects are carved eight at a
 * time, when the free list is empty, so no call ever pays for a whole slab.
 * Larger blocks, and alignments above a page, are spans of pages.
 *
 * Hardening. 1: the size must be of the class, the address on the grid of the
 * objects that were carved, and the first word must not look like a link. Links
 * are offsets, rotated and mixed with a key of the slab; a word that decodes to
 * an offset is a link with a certainty of 2^-48, and alloc clears it, so a double
 * free is seen at the call without a search. A link that does not decode isolates
 * the slab. 2: eight bytes of canary behind every block, poison verified before
 * reuse, objects carved in random order. 3: freed objects wait in a ring before
 * they can be handed out, and a slab's whole list is walked when it gets active.
 *
 * Shortcomings: objects in the inbox of a CPU that never allocates again stay
 * there, and so does an empty active slab per class, which can hold a piece
 * back; blocks above 4096 bytes are rounded up to pages; used_bytes walks the
 * page records; at most BYTE_SLAB_PIECES pieces; the secret comes from addresses,
 * which stops accidents, not an attacker who can guess them.
 */
#include <mm/byte_slab.h>
#include <mm/port.h>

#include "bits.h"
#include "slab_span.h"

#define SMALL_MAX      512u	    /* slabs of these sizes are a single page */
#define SLAB_MAX_BYTES (7u << 12)   /* no slab is larger */
#define MAX_OBJECTS    256u	    /* nor holds more objects */
#define CARVE_BATCH    8u
#define INBOX_BATCH    8u
#define LOST_LEFT      0x80000000u
#define SHARED	       MM_MAX_CPUS
#define POISON	       0xd5
#define CANARY_BYTES   (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)
#define QUARANTINE     (MM_HARDEN >= 3 ? 32u : 0u)

#define unlikely(x) __builtin_expect(!!(x), 0)

/* Objects are anything to their users, words to us. */
typedef uint64_t __attribute__((may_alias)) word_t;

struct slab_class {
	uint16_t size;
	uint8_t npages;
};

static const struct slab_class classes[] = {
	{16, 1}, {24, 1}, {32, 1}, {40, 1}, {48, 1}, {56, 1}, {64, 1}, {72, 1},
	{80, 1}, {88, 1}, {96, 1}, {104, 1}, {112, 1}, {120, 1}, {128, 1}, {136, 1},
	{144, 1}, {152, 1}, {160, 1}, {168, 1}, {176, 1}, {184, 1}, {192, 1}, {200, 1},
	{208, 1}, {224, 1}, {240, 1}, {256, 1}, {272, 1}, {288, 1}, {304, 1}, {336, 1},
	{368, 1}, {400, 1}, {448, 1}, {512, 1}, {576, 1}, {640, 5}, {704, 3}, {768, 3},
	{816, 1}, {896, 2}, {960, 4}, {1024, 1}, {1152, 2}, {1280, 5}, {1360, 1}, {1440, 5},
	{1536, 3}, {1632, 2}, {1792, 4}, {1904, 7}, {2048, 1}, {2304, 4}, {2560, 5}, {2720, 2},
	{2864, 5}, {3072, 3}, {3264, 4}, {3584, 7}, {4096, 4},
};

#define NCLASSES (sizeof(classes) / sizeof(classes[0]))

struct slab_cpu {
	uintptr_t base; /* the piece that was hit last: its first page, */
	size_t nbytes;	/* size (atomic: the locked calls may set it to 0) */
	struct slab *meta; /* and page records */
	struct slab *active[NCLASSES];
	struct slab *partial[NCLASSES]; /* rings: taken at the head, added at the tail */
	void *pending;	     /* taken from the inbox, not yet given to the slabs */
	unsigned int index;
	unsigned int oldest; /* in the quarantine */
	void *quarantine[QUARANTINE ? QUARANTINE : 1];
	/* What others write is on a line of its own. */
	void *inbox __attribute__((aligned(64)));
	struct slab *gift;
	size_t parked_nbytes; /* atomic: in inbox, pending and quarantine */
};

/* What a CPU has before it has anything: every path finds it empty. Never written. */
static struct slab no_slab;
static struct slab_cpu no_cpu = {
	.active = {[0 ... NCLASSES - 1] = &no_slab},
	.index = SLAB_NO_OWNER - 1,
};

static inline struct byte_slab *slab_of(struct byte_alloc *a)
{
	return (struct byte_slab *)a;
}

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void report(const void *p, size_t nbytes, enum mm_fault_kind kind)
{
	mm_fault_report(&(struct mm_fault){
		.kind = kind, .allocator = "slab", .ptr = p, .layout = {nbytes, 1}});
}

/* --- Links: level 0 plain pointers, above encoded offsets (plus 8: zero is the end) ------- */

static inline uintptr_t object_link(const struct slab *s, const void *p)
{
	return MM_HARDEN ? (uintptr_t)p - s->base + 8 : (uintptr_t)p;
}

static inline void *link_object(const struct slab *s, uintptr_t link)
{
	return (void *)(MM_HARDEN ? s->base + link - 8 : link);
}

/* The offset goes to the top, so that a change of the first bytes does not decode. */
static inline void store_link(const struct slab *s, void *p, uintptr_t link)
{
	*(word_t *)p = MM_HARDEN ? ((uint64_t)link << 48 | (uint64_t)link >> 16) ^ s->key : link;
}

static inline uintptr_t load_link(const struct slab *s, const void *p)
{
	uint64_t word = *(const word_t *)p;

	if (!MM_HARDEN)
		return (uintptr_t)word;
	word ^= s->key;
	return (uintptr_t)(word << 16 | word >> 48);
}

/* Does what was loaded decode? Then the object is free. */
static inline bool link_valid(uintptr_t link)
{
	return !MM_HARDEN || link <= SLAB_MAX_BYTES;
}

static inline void *pop(struct slab *s)
{
	uintptr_t head = s->head, next;
	void *p;

	if (unlikely(!head))
		return NULL;
	p = link_object(s, head);
	next = load_link(s, p);
	if (unlikely(!link_valid(next)))
		return NULL;
	if (MM_HARDEN)
		*(word_t *)p = 0;
	s->head = next;
	s->left++;
	return p;
}

static inline void push(struct slab *s, void *p)
{
	store_link(s, p, s->head);
	s->head = object_link(s, p);
}

/* --- Geometry ----------------------------------------------------------------------------- */

static inline size_t object_size(const struct slab *s)
{
	return classes[s->class].size;
}

static inline size_t capacity(const struct slab *s)
{
	return s->npages * MM_PAGE_SIZE / object_size(s);
}

static inline bool is_slab(const struct slab *s)
{
	return s->state >= SLAB_ACTIVE && s->state <= SLAB_FULL;
}

static size_t used_objects(const struct slab *s)
{
	switch (s->state) {
	case SLAB_ACTIVE:
		return s->left - 1;
	case SLAB_PARTIAL:
		return s->left;
	case SLAB_FULL:
		return capacity(s);
	default:
		return 0;
	}
}

/* The class for a layout; NCLASSES: a run of pages. */
static size_t class_for(const struct byte_slab *a, size_t nbytes, size_t align)
{
	size_t c;

	if (nbytes > BYTE_SLAB_MAX || align > BYTE_SLAB_MAX)
		return NCLASSES;
	nbytes = mm_align_up(nbytes, align);
	if (nbytes > BYTE_SLAB_MAX)
		return NCLASSES;
	c = a->class_of[(nbytes + 7) / 8];
	while (classes[c].size & (align - 1))
		c++;
	return c;
}

/* floor(offset / size) * size == offset, by multiplication (exact below 2^16). */
static inline bool on_grid(const struct slab *s, uintptr_t offset)
{
	return (uint32_t)offset * s->inverse < s->inverse;
}

/* --- Hardening 2: canary and poison ----------------------------------------------------------- */

static uint64_t canary_of(const struct byte_slab *a, const void *p)
{
	return mix(a->secret ^ (uintptr_t)p);
}

static void set_canary(const struct byte_slab *a, void *p, size_t size)
{
	uint64_t canary = canary_of(a, p);

	if (CANARY_BYTES)
		__builtin_memcpy((char *)p + size, &canary, sizeof(canary));
}

static bool canary_intact(const struct byte_slab *a, const void *p, size_t size)
{
	uint64_t canary = canary_of(a, p), found = canary;

	if (CANARY_BYTES)
		__builtin_memcpy(&found, (const char *)p + size, sizeof(found));
	return found == canary;
}

/* The first two words of a free object are links. */
static void poison(void *p, size_t nbytes)
{
	if (MM_HARDEN >= 2)
		__builtin_memset((char *)p + 16, POISON, nbytes - 16);
}

static bool poison_intact(const void *p, size_t nbytes)
{
	const unsigned char *byte = p;

	for (size_t i = 16; MM_HARDEN >= 2 && i < nbytes; i++)
		if (byte[i] != POISON)
			return false;
	return true;
}

/* --- Slabs of one owner ------------------------------------------------------------------------ */

static void partial_add(struct slab_cpu *c, struct slab *s)
{
	struct slab *head = c->partial[s->class];

	if (!head) {
		s->next = s->prev = s;
		c->partial[s->class] = s;
		return;
	}
	s->next = head;
	s->prev = head->prev;
	head->prev->next = s;
	head->prev = s;
}

static void partial_remove(struct slab_cpu *c, struct slab *s)
{
	s->next->prev = s->prev;
	s->prev->next = s->next;
	if (c->partial[s->class] == s)
		c->partial[s->class] = s->next == s ? NULL : s->next;
}

/* An empty slab: the lock holder frees it, a CPU leaves it for the next lock holder. */
static void release(struct byte_slab *a, const struct slab_cpu *c, struct slab *s)
{
	struct slab *top;

	if (c == a->shared) {
		slab_span_put(a, s);
		return;
	}
	s->state = SLAB_RETURNED;
	__atomic_store_n(&s->owner, SLAB_NO_OWNER, __ATOMIC_RELAXED);
	top = __atomic_load_n(&a->returned, __ATOMIC_RELAXED);
	do
		s->next = top;
	while (!__atomic_compare_exchange_n(&a->returned, &top, s, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* left reached zero: a full slab has room again, or a listed one is empty. */
static __attribute__((noinline)) void left_event(struct byte_slab *a, struct slab_cpu *c,
						 struct slab *s)
{
	if (s->state == SLAB_FULL) {
		s->state = SLAB_PARTIAL;
		s->left = (uint32_t)capacity(s) - 1;
		partial_add(c, s);
		return;
	}
	partial_remove(c, s);
	release(a, c, s);
}

static inline void free_own(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	push(s, p);
	if (unlikely(--s->left == 0))
		left_event(a, c, s);
}

/* What is free in it is lost, what is live stays usable. */
static void isolate(struct slab *s)
{
	report(link_object(s, s->head), object_size(s), MM_FAULT_CORRUPT);
	s->state = SLAB_LOST;
	s->left = LOST_LEFT;
	s->head = 0;
	s->carved = (uint32_t)(capacity(s) * object_size(s));
}

/* Hardening 3: every link of the list leads to an object that was carved. */
static bool list_intact(const struct slab *s)
{
	uintptr_t link = s->head;
	size_t n = 0;

	while (link && n++ < MAX_OBJECTS) {
		uintptr_t offset = (uintptr_t)link_object(s, link) - s->base;

		if (!link_valid(link) || offset >= s->carved || offset % object_size(s))
			return false;
		link = load_link(s, link_object(s, link));
	}
	return !link;
}

static void activate(struct slab_cpu *c, struct slab *s)
{
	struct slab *old = c->active[s->class];

	if (old != &no_slab && old->state == SLAB_ACTIVE) {
		old->state = SLAB_FULL;
		old->left = 1;
	}
	if (s->state == SLAB_PARTIAL) {
		s->state = SLAB_ACTIVE;
		s->left++;
	}
	c->active[s->class] = s;
	if (MM_HARDEN >= 3 && !list_intact(s))
		isolate(s);
}

/* Make some more objects; level 2 and up in an order that differs. */
static bool carve(const struct byte_slab *a, struct slab *s)
{
	size_t size = object_size(s), n = capacity(s) - s->carved / size;
	size_t shuffle = MM_HARDEN >= 2 ? mix(a->secret ^ s->base ^ s->carved) : 0;
	char *first = (char *)s->base + s->carved;

	if (!n)
		return false;
	if (n > CARVE_BATCH)
		n = CARVE_BATCH;
	if (n < CARVE_BATCH)
		shuffle = 0;
	for (size_t i = n; i-- > 0;) {
		char *p = first + (i ^ (shuffle & (CARVE_BATCH - 1))) * size;

		poison(p, size);
		push(s, p);
	}
	s->carved += (uint32_t)(n * size);
	return true;
}

/* --- Between CPUs ------------------------------------------------------------------------------- */

static struct slab_cpu *owner_state(const struct byte_slab *a, unsigned int owner)
{
	return owner == SHARED ? a->shared : __atomic_load_n(&a->cpu[owner], __ATOMIC_ACQUIRE);
}

/* The chain of an inbox runs through the second words; the first ones say "free". */
static void push_remote(struct byte_slab *a, unsigned int owner, struct slab *s, void *p)
{
	struct slab_cpu *c = owner_state(a, owner);
	void *top = __atomic_load_n(&c->inbox, __ATOMIC_RELAXED);

	store_link(s, p, 0);
	__atomic_fetch_add(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
	do
		((word_t *)p)[1] = (uintptr_t)top ^ a->secret;
	while (!__atomic_compare_exchange_n(&c->inbox, &top, p, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* The slab of an address in a piece, or NULL. */
static struct slab *slab_at(const struct byte_slab *a, uintptr_t addr)
{
	const struct slab_piece *piece = slab_piece_of(a, addr);
	struct slab *s = piece ? slab_page_of(piece, addr) : NULL;

	if (s && s->state == SLAB_INNER)
		s -= s->back;
	return s;
}

/* Give some of what others freed to its slabs. False when there was nothing. */
static bool drain_inbox(struct byte_slab *a, struct slab_cpu *c)
{
	void *p = c->pending;

	if (!p && __atomic_load_n(&c->inbox, __ATOMIC_RELAXED))
		p = __atomic_exchange_n(&c->inbox, NULL, __ATOMIC_ACQUIRE);
	if (!p)
		return false;
	for (unsigned int i = 0; p && i < INBOX_BATCH; i++) {
		struct slab *s = slab_at(a, (uintptr_t)p);
		void *next;

		if (MM_HARDEN && (!s || s->owner != c->index || load_link(s, p))) {
			report(p, 0, MM_FAULT_CORRUPT); /* the rest of the chain is lost */
			p = NULL;
			break;
		}
		next = (void *)(uintptr_t)(((word_t *)p)[1] ^ a->secret);
		poison(p, object_size(s));
		__atomic_fetch_sub(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
		free_own(a, c, s, p);
		p = next;
	}
	c->pending = p;
	return true;
}

/* The gift, if it is of the class; else it waits on the list of its own. */
static struct slab *take_gift(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s;

	if (!__atomic_load_n(&c->gift, __ATOMIC_RELAXED))
		return NULL;
	s = __atomic_exchange_n(&c->gift, NULL, __ATOMIC_ACQUIRE);
	if (s->class == class)
		return s;
	s->state = SLAB_PARTIAL;
	if (--s->left)
		partial_add(c, s);
	else
		release(a, c, s);
	return NULL;
}

/* Another slab with something in it, or NULL; also when the active one got something back. */
static struct slab *next_slab(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->partial[class];

	if (!s && drain_inbox(a, c)) {
		if (c->active[class]->head)
			return NULL;
		s = c->partial[class];
	}
	if (!s)
		return take_gift(a, c, class);
	partial_remove(c, s);
	return s;
}

/* The fast path found nothing. c is not no_cpu. */
static void *alloc_own(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	for (;;) {
		struct slab *s = c->active[class];
		void *p = pop(s);

		if (p)
			return p;
		if (s->head) {
			isolate(s);
			continue;
		}
		if (s != &no_slab && carve(a, s))
			continue;
		s = next_slab(a, c, class);
		if (s)
			activate(c, s);
		else if (!c->active[class]->head)
			return NULL;
	}
}

/* --- The locked side ---------------------------------------------------------------------------- */

static struct slab *slab_new(struct byte_slab *a, size_t class)
{
	struct slab *s = slab_span_get(a, classes[class].npages, MM_PAGE_SIZE);
	uint32_t size = classes[class].size;

	if (!s)
		return NULL;
	for (uint32_t i = 1; i < classes[class].npages; i++) {
		s[i].state = SLAB_INNER;
		s[i].back = i & 7;
	}
	s->head = 0;
	s->carved = 0;
	s->left = 0;
	s->class = (uint8_t)class;
	s->key = mix(a->secret + s->base) | 1;
	s->inverse = UINT32_MAX / size + 1;
	s->least = (uint16_t)(class ? classes[class - 1].size + 1 : 1);
	s->sizes = (uint16_t)(size - s->least);
	s->state = SLAB_PARTIAL;
	__atomic_store_n(&s->owner, SHARED, __ATOMIC_RELAXED);
	return s;
}

/* Empty slabs that CPUs gave up; at most n. */
static void collect(struct byte_slab *a, size_t n)
{
	struct slab *s;

	while (n-- && (s = __atomic_load_n(&a->returned, __ATOMIC_ACQUIRE))) {
		/* Only the lock holder pops, so the top cannot come back changed. */
		while (!__atomic_compare_exchange_n(&a->returned, &s, s->next, false,
						    __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
			;
		slab_span_put(a, s);
	}
}

/* The shared owner's empty active slabs, and everything that waits for a locked call. */
static void trim(struct byte_slab *a)
{
	struct slab_cpu *c = a->shared;

	while (drain_inbox(a, c))
		;
	collect(a, SIZE_MAX);
	for (size_t i = 0; i < NCLASSES; i++) {
		struct slab *s = c->active[i];

		if (s == &no_slab || s->state != SLAB_ACTIVE || s->left != 1)
			continue;
		c->active[i] = &no_slab;
		slab_span_put(a, s);
	}
}

static void *alloc_shared(struct byte_slab *a, size_t class)
{
	void *p = alloc_own(a, a->shared, class);
	struct slab *s = p ? NULL : slab_new(a, class);

	if (!s)
		return p;
	activate(a->shared, s);
	return alloc_own(a, a->shared, class);
}

static void cpu_init(struct slab_cpu *c, unsigned int index)
{
	__builtin_memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < NCLASSES; i++)
		c->active[i] = &no_slab;
	c->index = index;
}

static void *private_block(struct byte_slab *a, size_t nbytes)
{
	size_t class = class_for(a, nbytes, 64);
	void *p = alloc_shared(a, class);

	if (p)
		a->private_nbytes += classes[class].size;
	return p;
}

/* A CPU that asked for a slab and can take one, else NULL. */
static struct slab_cpu *hungry_cpu(struct byte_slab *a)
{
	uint64_t bits = __atomic_load_n(&a->hungry, __ATOMIC_RELAXED);
	struct slab_cpu *c;
	unsigned int cpu;

	if (!bits)
		return NULL;
	cpu = mm_ctz(bits);
	__atomic_fetch_and(&a->hungry, ~((uint64_t)1 << cpu), __ATOMIC_RELAXED);
	c = a->cpu[cpu];
	if (c != &no_cpu)
		return __atomic_load_n(&c->gift, __ATOMIC_RELAXED) ? NULL : c;
	c = private_block(a, sizeof(*c));
	if (!c)
		return NULL;
	cpu_init(c, cpu);
	__atomic_store_n(&a->cpu[cpu], c, __ATOMIC_RELEASE);
	return c;
}

/* Serve a request from a slab that then becomes a CPU's. */
static void *alloc_with_gift(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = a->shared->partial[class];
	void *p;

	if (s)
		partial_remove(a->shared, s);
	else
		s = slab_new(a, class);
	if (!s)
		return NULL;
	s->state = SLAB_ACTIVE;
	s->left++;
	__atomic_store_n(&s->owner, (uint16_t)c->index, __ATOMIC_RELAXED);
	if (!s->head)
		carve(a, s);
	p = pop(s);
	if (!p)
		isolate(s);
	else
		__atomic_store_n(&c->gift, s, __ATOMIC_RELEASE);
	return p;
}

static void *alloc_object(struct byte_slab *a, size_t class)
{
	struct slab_cpu *c;
	void *p;

	collect(a, 2);
	c = hungry_cpu(a);
	p = c ? alloc_with_gift(a, c, class) : NULL;
	if (!p)
		p = alloc_shared(a, class);
	if (p)
		return p;
	trim(a);
	return alloc_shared(a, class);
}

static size_t pages_for(size_t nbytes)
{
	return (nbytes + MM_PAGE_SIZE - 1) / MM_PAGE_SIZE;
}

static void *alloc_run(struct byte_slab *a, size_t nbytes, size_t align)
{
	struct slab *s;

	if (align < MM_PAGE_SIZE)
		align = MM_PAGE_SIZE;
	collect(a, 2);
	s = slab_span_get(a, pages_for(nbytes), align);
	if (!s) {
		trim(a);
		s = slab_span_get(a, pages_for(nbytes), align);
	}
	return s ? (void *)s->base : NULL;
}

static enum mm_fault_kind free_run(struct byte_slab *a, struct slab *s, void *p, size_t size,
				   size_t align)
{
	size_t nbytes = size + CANARY_BYTES;

	if ((uintptr_t)p != s->base)
		return (uintptr_t)p & 7 ? MM_FAULT_MISALIGNED : MM_FAULT_FOREIGN;
	if (class_for(a, nbytes, align) != NCLASSES || pages_for(nbytes) != s->npages ||
	    s->base & (align - 1))
		return MM_FAULT_WRONG_LAYOUT;
	if (!canary_intact(a, p, size))
		return MM_FAULT_OVERFLOW;
	slab_span_put(a, s);
	return MM_FAULT_NONE;
}

/* --- Allocation ---------------------------------------------------------------------------------- */

/* Level 2 and up: was it written while free? Then it is left alone for good. */
static bool finish(const struct byte_slab *a, void *p, size_t size, size_t class)
{
	if (MM_HARDEN < 2)
		return true;
	if (class < NCLASSES && !poison_intact(p, classes[class].size)) {
		report(p, classes[class].size, MM_FAULT_WRITE_AFTER_FREE);
		return false;
	}
	set_canary(a, p, size);
	return true;
}

static void *byte_slab_alloc(struct byte_alloc *base, size_t size, size_t align)
{
	struct byte_slab *a = slab_of(base);
	size_t nbytes = size + CANARY_BYTES, class = class_for(a, nbytes, align);
	void *p;

	do
		p = class < NCLASSES ? alloc_object(a, class) : alloc_run(a, nbytes, align);
	while (p && !finish(a, p, size, class));
	return p;
}

static __attribute__((noinline)) void *alloc_local_any(struct byte_slab *a, size_t size,
						       size_t align, unsigned int cpu)
{
	struct slab_cpu *c = a->cpu[cpu];
	size_t class = class_for(a, size + CANARY_BYTES, align);
	void *p;

	if (class == NCLASSES)
		return NULL;
	do
		p = c == &no_cpu ? NULL : alloc_own(a, c, class);
	while (p && !finish(a, p, size, class));
	if (!p)
		__atomic_fetch_or(&a->hungry, (uint64_t)1 << cpu, __ATOMIC_RELAXED);
	return p;
}

void *byte_slab_alloc_fast(struct byte_alloc *base, size_t size, size_t align, unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);

	if (unlikely(size > BYTE_SLAB_MAX || align > 8 || MM_HARDEN >= 2))
		return NULL;
	return pop(__atomic_load_n(&a->cpu[cpu], __ATOMIC_RELAXED)
			   ->active[a->class_of[(size + 7) / 8]]);
}

static void *byte_slab_alloc_local(struct byte_alloc *base, size_t size, size_t align,
				   unsigned int cpu)
{
	void *p = byte_slab_alloc_fast(base, size, align, cpu);

	return unlikely(!p) ? alloc_local_any(slab_of(base), size, align, cpu) : p;
}

/* --- Freeing --------------------------------------------------------------------------------------- */

/* The checks of level 1, in the order that names the fault best. */
static enum mm_fault_kind verify(const struct byte_slab *a, const struct slab *s, const void *p,
				 size_t size, size_t align)
{
	uintptr_t offset = (uintptr_t)p - s->base;

	if ((uintptr_t)p & 7)
		return MM_FAULT_MISALIGNED;
	if (offset >= s->carved || offset % object_size(s))
		return MM_FAULT_FOREIGN;
	if (link_valid(load_link(s, p)))
		return MM_FAULT_DOUBLE_FREE;
	if (class_for(a, size + CANARY_BYTES, align) != s->class)
		return MM_FAULT_WRONG_LAYOUT;
	return canary_intact(a, p, size) ? MM_FAULT_NONE : MM_FAULT_OVERFLOW;
}

/* The same as one yes or no, for a slab of our own and a usual layout. */
static inline bool plausible(const struct slab *s, const void *p, size_t size)
{
	uintptr_t offset = (uintptr_t)p - s->base;

	return size - s->least <= s->sizes && offset < s->carved && on_grid(s, offset) &&
	       !link_valid(load_link(s, p));
}

/* Level 3: p waits in the ring, what waited longest is freed. NULL: nothing did. */
static void *quarantine(struct slab_cpu *c, struct slab *s, void *p)
{
	unsigned int slot = c->oldest;
	void *old = c->quarantine[slot];

	store_link(s, p, 0);
	__atomic_fetch_add(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
	c->quarantine[slot] = p;
	c->oldest = (slot + 1) % (QUARANTINE ? QUARANTINE : 1);
	return old;
}

/* Free what was verified, wherever it belongs. */
static void free_object(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	unsigned int owner;

	poison(p, object_size(s));
	if (QUARANTINE && c != &no_cpu) {
		p = quarantine(c, s, p);
		if (!p)
			return;
		s = slab_at(a, (uintptr_t)p);
		__atomic_fetch_sub(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
	}
	owner = __atomic_load_n(&s->owner, __ATOMIC_RELAXED);
	if (owner == c->index)
		free_own(a, c, s, p);
	else
		push_remote(a, owner, s, p);
}

static void set_window(struct slab_cpu *c, const struct slab_piece *piece)
{
	c->base = piece->base;
	c->meta = piece->meta;
	__atomic_store_n(&c->nbytes, piece->nbytes, __ATOMIC_RELAXED);
}

/* Any pointer at all. MM_FAULT_KINDS: only the locked call can tell. */
static __attribute__((noinline)) enum mm_fault_kind
dealloc_any(struct byte_slab *a, struct slab_cpu *c, void *p, size_t size, size_t align)
{
	const struct slab_piece *piece = slab_piece_of(a, (uintptr_t)p);
	bool locked = c == a->shared;
	enum mm_fault_kind fault;
	struct slab *s;

	if (!piece)
		return locked ? MM_FAULT_FOREIGN : MM_FAULT_KINDS;
	s = slab_at(a, (uintptr_t)p);
	if (!is_slab(s) && !locked)
		return MM_FAULT_KINDS;
	switch (s->state) {
	case SLAB_INNER:
		return (uintptr_t)p & 7 ? MM_FAULT_MISALIGNED : MM_FAULT_FOREIGN;
	case SLAB_FREE:
	case SLAB_RETURNED:
		return MM_FAULT_DOUBLE_FREE;
	case SLAB_LOST:
		return MM_FAULT_CORRUPT;
	case SLAB_RUN:
		return free_run(a, s, p, size, align);
	}
	fault = MM_HARDEN ? verify(a, s, p, size, align) : MM_FAULT_NONE;
	if (fault != MM_FAULT_NONE)
		return fault;
	if (c != &no_cpu)
		set_window(c, piece);
	free_object(a, c, s, p);
	return MM_FAULT_NONE;
}

bool byte_slab_dealloc_fast(struct byte_alloc *base, void *p, size_t size, unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);
	const struct slab_cpu *c = __atomic_load_n(&a->cpu[cpu], __ATOMIC_RELAXED);
	uintptr_t offset = (uintptr_t)p - c->base;
	struct slab *s;

	if (unlikely(offset >= __atomic_load_n(&c->nbytes, __ATOMIC_RELAXED) || MM_HARDEN >= 2))
		return false;
	s = c->meta + (offset >> MM_PAGE_SHIFT);
	if (size > SMALL_MAX)
		s -= s->back;
	if (unlikely(__atomic_load_n(&s->owner, __ATOMIC_RELAXED) != cpu ||
		     (MM_HARDEN && !plausible(s, p, size))))
		return false;
	push(s, p);
	if (unlikely(--s->left == 0))
		left_event(a, a->cpu[cpu], s);
	return true;
}

static enum mm_fault_kind byte_slab_dealloc_local(struct byte_alloc *base, void *p, size_t size,
						  size_t align, unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);

	if (byte_slab_dealloc_fast(base, p, size, cpu))
		return MM_FAULT_NONE;
	return dealloc_any(a, a->cpu[cpu], p, size, align);
}

static enum mm_fault_kind byte_slab_dealloc(struct byte_alloc *base, void *p, size_t size,
					    size_t align)
{
	struct byte_slab *a = slab_of(base);

	return dealloc_any(a, a->shared, p, size, align);
}

/* --- Everything else --------------------------------------------------------------------------------- */

static enum alloc_result byte_slab_add_memory(struct byte_alloc *base, void *start, size_t nbytes)
{
	return slab_span_add(slab_of(base), start, nbytes);
}

static void fill_class_table(struct byte_slab *a)
{
	size_t class = 0;

	for (size_t i = 0; i <= BYTE_SLAB_MAX / 8; i++) {
		if (i * 8 > classes[class].size)
			class++;
		a->class_of[i] = (uint8_t)class;
	}
}

/* The shared state lies at the start of the first piece. */
static enum alloc_result byte_slab_init(struct byte_alloc *base, void *start, size_t nbytes)
{
	struct byte_slab *a = slab_of(base);
	uintptr_t shared = mm_align_up((uintptr_t)start, 64);
	size_t lost = shared - (uintptr_t)start + mm_align_up(sizeof(struct slab_cpu), 64);
	enum alloc_result r;

	if (nbytes <= lost)
		return ALLOC_INVALID_PARAM;
	__builtin_memset(&a->base + 1, 0, sizeof(*a) - sizeof(a->base));
	r = slab_span_add(a, (char *)start + lost, nbytes - lost);
	if (r != ALLOC_OK)
		return r;
	a->piece[0].given = start;
	a->piece[0].given_nbytes = nbytes;
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		a->cpu[i] = &no_cpu;
	a->shared = (struct slab_cpu *)shared;
	cpu_init(a->shared, SHARED);
	a->secret = mix((uintptr_t)a ^ mix((uintptr_t)start + nbytes));
	fill_class_table(a);
	return ALLOC_OK;
}

static bool resize_run(struct byte_slab *a, struct slab *s, size_t npages)
{
	if (npages > s->npages)
		return slab_span_grow(a, s, npages);
	slab_span_shrink(a, s, npages);
	return true;
}

static bool byte_slab_resize(struct byte_alloc *base, void *p, size_t old_size, size_t align,
			     size_t new_size)
{
	struct byte_slab *a = slab_of(base);
	size_t nbytes = new_size + CANARY_BYTES, class = class_for(a, nbytes, align);
	struct slab *s = slab_at(a, (uintptr_t)p);

	if (!s || class_for(a, old_size + CANARY_BYTES, align) != class)
		return false;
	if (class < NCLASSES && (!is_slab(s) || s->class != class))
		return false;
	if (class == NCLASSES && (s->state != SLAB_RUN || (uintptr_t)p != s->base))
		return false;
	if (!canary_intact(a, p, old_size))
		return false;
	if (class == NCLASSES && !resize_run(a, s, pages_for(nbytes)))
		return false;
	set_canary(a, p, new_size);
	return true;
}

/* A fresh piece also pays for its records and, at worst, for a state of the CPU that asks. */
static size_t byte_slab_grow_size(const struct byte_alloc *base, size_t size, size_t align)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	size_t nbytes = size + CANARY_BYTES, class = class_for(a, nbytes, align), npages;

	npages = class < NCLASSES ? classes[class].npages + 1u : pages_for(nbytes);
	if (align > MM_PAGE_SIZE)
		npages += align / MM_PAGE_SIZE - 1;
	npages += (npages + 1) * sizeof(struct slab) / MM_PAGE_SIZE + 2;
	return npages * MM_PAGE_SIZE;
}

static bool byte_slab_take_free(struct byte_alloc *base, void **start, size_t *nbytes)
{
	struct byte_slab *a = slab_of(base);
	struct slab_piece piece;

	trim(a);
	if (!slab_span_take_free(a, &piece))
		return false;
	for (unsigned int i = 0; i <= MM_MAX_CPUS; i++) {
		struct slab_cpu *c = i == SHARED ? a->shared : a->cpu[i];

		if (c != &no_cpu && c->base == piece.base)
			__atomic_store_n(&c->nbytes, 0, __ATOMIC_RELAXED);
	}
	*start = piece.given;
	*nbytes = piece.given_nbytes;
	return true;
}

static size_t byte_slab_block_size(const struct byte_alloc *base, const void *p)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	const struct slab *s = slab_at(a, (uintptr_t)p);
	uintptr_t offset = s ? (uintptr_t)p - s->base : 0;

	if (s && s->state == SLAB_RUN && !offset)
		return s->npages * MM_PAGE_SIZE - CANARY_BYTES;
	if (!s || !is_slab(s) || offset >= s->carved || offset % object_size(s) ||
	    (MM_HARDEN && link_valid(load_link(s, p))))
		return 0;
	return object_size(s) - CANARY_BYTES;
}

static size_t byte_slab_total_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	size_t n = 0;

	for (const struct slab_piece *p = a->piece; p < a->piece + a->npieces; p++)
		n += p->given_nbytes;
	return n;
}

/* Call f for the first page of every span, in the order of the pieces. */
static const void *each_span(const struct byte_slab *a,
			     const void *(*f)(const struct slab *s, void *ctx), void *ctx)
{
	const void *stop = NULL;

	for (const struct slab_piece *p = a->piece; p < a->piece + a->npieces; p++) {
		const struct slab *end = p->meta + p->nbytes / MM_PAGE_SIZE;

		for (const struct slab *s = p->meta; s < end && !stop; s += s->npages)
			stop = f(s, ctx);
	}
	return stop;
}

struct sums {
	size_t used, available;
};

static const void *sum_span(const struct slab *s, void *ctx)
{
	struct sums *sums = ctx;
	size_t used = is_slab(s) ? used_objects(s) : 0;

	if (s->state == SLAB_RUN)
		sums->used += s->npages * MM_PAGE_SIZE;
	else if (s->state == SLAB_FREE || s->state == SLAB_RETURNED)
		sums->available += s->npages * MM_PAGE_SIZE;
	else if (is_slab(s))
		sums->available += (capacity(s) - used) * object_size(s);
	if (is_slab(s))
		sums->used += used * object_size(s);
	return NULL;
}

static struct sums sum_all(const struct byte_slab *a)
{
	struct sums sums = {0};
	size_t parked = 0;

	each_span(a, sum_span, &sums);
	for (unsigned int i = 0; i <= MM_MAX_CPUS; i++)
		parked += __atomic_load_n(&(i == SHARED ? a->shared : a->cpu[i])->parked_nbytes,
					  __ATOMIC_RELAXED);
	sums.used -= a->private_nbytes + parked;
	sums.available += parked;
	return sums;
}

static size_t byte_slab_used_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;

	return a->shared ? sum_all(a).used : 0;
}

static size_t byte_slab_available_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;

	return a->shared ? sum_all(a).available : 0;
}

/* One bit for each object of a slab that is on its free list. False: the list is broken. */
static bool free_objects(const struct slab *s, uint64_t map[MAX_OBJECTS / 64], size_t *count)
{
	size_t n = 0;

	if (!list_intact(s))
		return false;
	for (uintptr_t link = s->head; link; link = load_link(s, link_object(s, link))) {
		size_t i = ((uintptr_t)link_object(s, link) - s->base) / object_size(s);

		if (map[i / 64] >> (i % 64) & 1)
			return false;
		map[i / 64] |= (uint64_t)1 << (i % 64);
		n++;
	}
	*count = n;
	return true;
}

struct walk {
	byte_walk_fn fn;
	void *ctx;
};

static void walk_slab(const struct slab *s, const struct walk *w)
{
	uint64_t map[MAX_OBJECTS / 64] = {0};
	size_t size = object_size(s), n, carved = s->carved / size;

	if (!free_objects(s, map, &n))
		return;
	for (size_t i = 0; i < carved; i++)
		w->fn(w->ctx, (const char *)s->base + i * size, size,
		      !(map[i / 64] >> (i % 64) & 1));
	if (s->carved < s->npages * MM_PAGE_SIZE)
		w->fn(w->ctx, (const char *)s->base + s->carved,
		      s->npages * MM_PAGE_SIZE - s->carved, false);
}

static const void *walk_span(const struct slab *s, void *ctx)
{
	const struct walk *w = ctx;

	if (is_slab(s))
		walk_slab(s, w);
	else
		w->fn(w->ctx, (const void *)s->base, s->npages * MM_PAGE_SIZE,
		      s->state == SLAB_RUN || s->state == SLAB_LOST);
	return NULL;
}

static void byte_slab_walk(const struct byte_alloc *base, byte_walk_fn fn, void *ctx)
{
	struct walk w = {fn, ctx};

	each_span((const struct byte_slab *)base, walk_span, &w);
}

static const void *check_span(const struct slab *s, void *ctx)
{
	uint64_t map[MAX_OBJECTS / 64] = {0};
	size_t n;

	(void)ctx;
	if (!is_slab(s))
		return NULL;
	if (s->class >= NCLASSES || s->carved > s->npages * MM_PAGE_SIZE || !free_objects(s, map, &n))
		return (const void *)s->base;
	return n + used_objects(s) == s->carved / object_size(s) ? NULL : (const void *)s->base;
}

static const void *byte_slab_check(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	const void *bad = slab_span_check(a);

	return bad ? bad : each_span(a, check_span, NULL);
}

const struct byte_ops byte_slab_ops = {
	.name = "slab",
	.init = byte_slab_init,
	.add_memory = byte_slab_add_memory,
	.alloc = byte_slab_alloc,
	.dealloc = byte_slab_dealloc,
	.resize = byte_slab_resize,
	.alloc_local = byte_slab_alloc_local,
	.dealloc_local = byte_slab_dealloc_local,
	.grow_size = byte_slab_grow_size,
	.take_free = byte_slab_take_free,
	.block_size = byte_slab_block_size,
	.total_bytes = byte_slab_total_bytes,
	.used_bytes = byte_slab_used_bytes,
	.available_bytes = byte_slab_available_bytes,
	.walk = byte_slab_walk,
	.check = byte_slab_check,
};
