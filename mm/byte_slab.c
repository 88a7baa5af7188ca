/* SPDX-License-Identifier: MIT */
/*
 * Slab: header-less objects in size classes, per-CPU.
 *
 * A slab is one to 16 pages of objects of one size. What is known about it
 * lies apart from the objects, in the record of its first page (slab_span.h),
 * so objects are aligned as their size is and no overflow reaches a record.
 * Every slab has an owner, a CPU. Only the owner touches the free list and the
 * counter, so neither needs an atomic operation. The locked calls pin the CPU
 * that they run on and act as it.
 *
 * The fast paths. Allocation: (size - 1) | (align - 1), one number that stands
 * for the whole layout -> class (one byte table), the CPU's active slab of that
 * class, pop. Free: address -> page of a window of the CPU's (one subtraction and
 * comparison, which is at the same time the test that the address is ours) ->
 * record, owner, push. Nothing is counted in an allocation: slab.left counts down
 * the frees to the next event, so that "was full" and "is empty" are the same test,
 * and of the active slab neither matters.
 *
 * A window shows a CPU a part of one piece of memory. It has sixteen of them. A free
 * finds the right one by some bits of the address: each of 64 places leads to the
 * window where an address with the same bits was last searched for and found, so that
 * a heap of many pieces is as quick as one of one; what a place led to before is looked
 * into second, for two pieces may lie in the same MiB. Windows change under the lock
 * alone, when a locked free found what none of them shows; who takes a piece away closes them.
 * Places are the CPU's own, and only a hint: an open window is right about what it shows.
 *
 * Between CPUs there are two lock-free hand-overs:
 *   remote    objects freed by others: a stack per slab, pushed with one
 *             compare-and-swap. The first one also puts the slab into the inbox
 *             of its owner, who empties it when it runs dry, eight objects at a time
 *   returned  empty slabs, which later locked calls give to the span manager
 * So every CPU path is bounded. What several CPUs may look at (state, owner, the grid) is accessed
 * with relaxed atomic operations; what hands memory over, with release and acquire.
 *
 * Classes: 8 bytes apart to 128, then eight to the doubling, so at most 12.5 %
 * apart; below, where that would be less than 8 bytes, more. All are multiples of the step to the
 * next, so a size rounded to any alignment has a class that is aligned to it. Each has the number
 * of pages that wastes least, and a multiple of it when a CPU has many slabs of it: so small heaps
 * are tight, and large ones seldom need a slab. Objects are carved when the free list is empty:
 * two with the slab, whose pages cost enough, then 64 at a time, so that no call takes longer the
 * larger the slab is. Larger blocks, and alignments above a page, are spans of pages.
 *
 * Giving back. A CPU keeps one empty slab per class besides the active one. When
 * memory is out, or wanted back, the lock holder takes what waits for it and what
 * its own CPU holds; the other CPUs find their bit in "asked" when they leave
 * the fast path, and give up theirs, a class each time.
 * With no piece free, take_free costs the frees that it completes, each once; with in_parts it
 * completes few, and settle makes the rest, first what was freed by others, then class after class.
 *
 * Hardening. 1: a free object has the mark of its slab in its second word, which alloc clears:
 * so a double free is seen at the call without a search, and live data are taken
 * for a free object once in 2^64. No two slabs ever have the same mark, so what a slab leaves
 * behind in its pages means nothing when they serve others. Its link is an offset in the slab; what
 * is no offset, or leads to an object without the mark, isolates the slab: it has no owner any
 * more, what is live in it can still be freed, nothing is reused. In a free one comparison tells
 * that the size is of the class and the slab ours (the tag holds both), another that an object
 * begins at the address and that it was carved (one multiplication, see below_limit). 2: eight
 * bytes of canary behind every block, poison verified before reuse, objects carved in random order.
 * 3: freed objects wait in a ring before they can be handed out, and are verified to the first byte
 * when they leave it; a slab's whole list is walked when the slab gets active.
 *
 * Shortcomings: what a CPU that never leaves its fast path again holds, in its
 * inbox or as empty slabs, can keep a piece from going back; blocks above 4096
 * bytes are rounded up to pages, and a small block at a large alignment is as
 * large as that; a heap of more than sixteen pieces frees under the lock what
 * lies in the others; of a class with many slabs an eighth of the objects may lie idle in slabs
 * (until memory is out) that are not listed yet; used_bytes walks all records and lists, and like
 * walk and check is exact only while no CPU is in a local call; a link that was overwritten with a
 * small number makes the next allocation look at a word up to 64 KiB behind the slab before it
 * isolates it; the secret comes from addresses, which stops accidents, not an attacker who can
 * guess them.
 */
#include <mm/port.h>

#include "bits.h"
#include "relaxed.h"
#include "slab_object.h"

#define CARVE_BATCH    64u
#define FIRST_BATCH    (MM_HARDEN >= 2 ? CARVE_BATCH : 2u) /* of a new slab */
#define RETURNED_PAGES 64u /* that may wait for a slab of the same length */
#define SLABS_TO_SPARE 8u  /* of a class: from here on a few free objects may lie idle */
#define INBOX_BATCH    8u
#define COLLECT_BATCH  8u
#define MAIL_PARTS     (1u << 16) /* of settling, at most, are spent on what others freed */
#define PLACE_BYTES    (1u << 20) /* neighbours whose window is looked up in the same place */
#define NEVER	       UINT32_MAX
#define POISON	       0xd5
#define POISON_WORD    0xd5d5d5d5d5d5d5d5u
#define CANARY_BYTES   (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)

/* So sure that the compiler keeps a branch where it could compute both ways. */
#define unlikely(x) __builtin_expect_with_probability(!!(x), 0, 0.999)

const struct slab_class byte_slab_classes[] = {
	{16, 1, 0},   {24, 1, 0},   {32, 1, 1},	  {40, 1, 1},	{48, 1, 1},   {56, 1, 1},
	{64, 1, 2},   {72, 1, 2},   {80, 1, 2},	  {88, 2, 1},	{96, 2, 1},   {104, 1, 2},
	{112, 2, 1},  {120, 1, 2},  {128, 1, 3},  {144, 1, 3},	{160, 2, 2},  {176, 1, 3},
	{192, 1, 3},  {208, 2, 2},  {224, 1, 3},  {240, 1, 3},	{256, 1, 4},  {288, 1, 4},
	{320, 3, 2},  {352, 2, 3},  {384, 3, 2},  {416, 3, 2},	{448, 1, 4},  {480, 2, 3},
	{512, 1, 4},  {576, 1, 4},  {640, 3, 2},  {704, 4, 2},	{768, 3, 2},  {832, 5, 1},
	{896, 2, 3},  {960, 4, 2},  {1024, 1, 4}, {1152, 2, 3}, {1280, 5, 1}, {1408, 6, 1},
	{1536, 3, 2}, {1664, 5, 1}, {1792, 4, 2}, {1920, 1, 4}, {2048, 1, 4}, {2304, 4, 2},
	{2560, 5, 1}, {2816, 5, 1}, {3072, 3, 2}, {3328, 5, 1}, {3584, 7, 1}, {3840, 1, 4},
	{4096, 1, 4},
};

_Static_assert(MM_MAX_CPUS <= 64, "one word has a bit for each CPU");
_Static_assert(sizeof(union slab_cpu_room) == 2048, "a CPU fits into its room");
_Static_assert(sizeof(byte_slab_classes) / sizeof(byte_slab_classes[0]) == NCLASSES,
	       "the header knows how many");

/* What a CPU has that has nothing: every path finds it empty. Never written. */
static struct slab no_slab = {.head = END};

static uint64_t inits; /* atomic: allocators ever */

static inline struct byte_slab *slab_of(struct byte_alloc *a)
{
	return (struct byte_slab *)a;
}

/* The smallest size of a class, less one. */
static uint32_t class_start(size_t class)
{
	return class ? byte_slab_classes[class - 1].size : 0;
}

static void set_owner(struct slab *s, unsigned int owner)
{
	uint32_t tag = SLAB_TAG(owner) | (MM_HARDEN ? class_start(s->class) : 0);

	__atomic_store_n(&s->tag, tag, __ATOMIC_RELAXED);
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

/* --- Free objects: a link in the first word, above level 0 a mark in the second ------------- */

/* NULL: the list is empty, or broken, which refill finds out. */
static inline void *pop(struct slab *s)
{
	uintptr_t link = s->head;
	word_t *p;

	if (unlikely(!is_object(link)))
		return NULL;
	p = link_object(s, link);
	if (MM_HARDEN && unlikely(!marked_free(s, p)))
		return NULL;
	s->head = (uintptr_t)p[0];
	if (MM_HARDEN)
		p[1] = 0;
	return p;
}

/* The mark first: what is read in between keeps compilers from joining the two words. */
static inline void push(struct slab *s, void *p)
{
	uintptr_t link = object_link(s, p);

	if (MM_HARDEN)
		((word_t *)p)[1] = mark_of(s);
	((word_t *)p)[0] = s->head;
	s->head = link;
}

/* --- Geometry ------------------------------------------------------------------------------- */

/* The last byte of the size rounded up to the alignment: what a layout needs, in one number. */
static inline size_t last_byte(size_t size, size_t align)
{
	return (size - 1) | (align - 1);
}

/* The class for a layout, without room for a canary; NCLASSES: a run of pages. */
static inline size_t class_for(const struct byte_slab *a, size_t size, size_t align)
{
	size_t last = last_byte(size + CANARY_BYTES, align);

	if (size > BYTE_SLAB_MAX || last >= BYTE_SLAB_MAX)
		return NCLASSES;
	return a->class_of[last / 8];
}

/* --- Hardening 2: canary and poison --------------------------------------------------------- */

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

/* --- Slabs of one owner --------------------------------------------------------------------- */

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

/* One that was active or full, and has so many free objects. */
static void list_partial(struct slab_cpu *c, struct slab *s, size_t nfree)
{
	set_state(s, SLAB_PARTIAL);
	s->left = (uint32_t)(s->carved - nfree);
	partial_add(c, s);
}

static void partial_remove(struct slab_cpu *c, struct slab *s)
{
	s->next->prev = s->prev;
	s->prev->next = s->next;
	if (c->partial[s->class] == s)
		c->partial[s->class] = s->next == s ? NULL : s->next;
}

/* Level 2 and up: the last time that a write into these objects can be told. */
static void verify_empty(const struct slab *s)
{
	size_t size = object_size(s);

	for (unsigned int i = 0; MM_HARDEN >= 2 && i < s->carved; i++) {
		const void *p = (const void *)(s->base + i * size);

		if (!poison_intact(p, size))
			report(p, size, MM_FAULT_WRITE_AFTER_FREE);
	}
}

/* An empty slab: its CPU leaves it for the next lock holder. */
static void release(struct byte_slab *a, struct slab_cpu *c, struct slab *s)
{
	struct slab *top;

	c->slabs[s->class]--;
	set_state(s, SLAB_RETURNED);
	set_owner(s, SLAB_NO_OWNER);
	verify_empty(s);
	__atomic_fetch_add(&a->returned_pages, s->npages, __ATOMIC_RELAXED);
	top = __atomic_load_n(&a->returned, __ATOMIC_RELAXED);
	do
		s->next = top;
	while (!__atomic_compare_exchange_n(&a->returned, &top, s, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/*
 * left reached zero: a full slab has room again, or a listed one is empty; the
 * last one stays. The active one may be as empty as it likes.
 */
static __attribute__((noinline)) void left_event(struct byte_slab *a, struct slab_cpu *c,
						 struct slab *s)
{
	switch (state_of(s)) {
	case SLAB_ACTIVE:
		s->left = NEVER;
		return;
	case SLAB_FULL:
		list_partial(c, s, s->enough);
		break;
	}
	if (s->left || s->next == s)
		return;
	partial_remove(c, s);
	release(a, c, s);
}

static inline void free_own(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	push(s, p);
	if (unlikely(--s->left == 0))
		left_event(a, c, s);
}

/*
 * Corrupt. What is free in it is lost, what is live stays usable; whoever frees
 * that is sent to the locked call, for the slab has no owner any more.
 */
static void isolate(struct slab_cpu *c, struct slab *s)
{
	report((void *)s->base, object_size(s), MM_FAULT_CORRUPT);
	set_state(s, SLAB_LOST);
	set_owner(s, SLAB_NO_OWNER);
	s->head = END;
	if (c->active[s->class] == s)
		c->active[s->class] = &no_slab;
}

/* Link n objects that lie one behind the other. */
static inline void chain(struct slab *s, uintptr_t first, size_t size, size_t n)
{
	uintptr_t link = object_link(s, (void *)first);
	uint64_t mark = mark_of(s);

	s->head = link;
	for (; --n; first += size) {
		link += size;
		store_link((void *)first, link, mark);
	}
	store_link((void *)first, END, mark);
}

/* The same in an order that differs. Pre: n is a power of two above shuffle. */
static void chain_shuffled(struct slab *s, uintptr_t first, size_t size, size_t n, size_t shuffle)
{
	for (size_t i = n; i-- > 0;)
		push(s, (void *)(first + (i ^ shuffle) * size));
}

/* Make some more objects, when none is free. Pre: the list is empty. */
static bool carve(const struct byte_slab *a, struct slab *s)
{
	size_t size = object_size(s), n = s->count - s->carved;
	size_t batch = s->carved ? CARVE_BATCH : FIRST_BATCH;
	uintptr_t first = s->base + s->carved * size;

	if (!n)
		return false;
	if (n > batch)
		n = batch;
	for (size_t i = 0; MM_HARDEN >= 2 && i < n; i++)
		poison((void *)(first + i * size), size);
	if (MM_HARDEN >= 2 && n == CARVE_BATCH)
		chain_shuffled(s, first, size, n, mix(a->secret ^ first) & (CARVE_BATCH - 1));
	else
		chain(s, first, size, n);
	s->carved = (uint16_t)(s->carved + n);
	__atomic_store_n(&s->limit, s->carved * (s->factor * (uint32_t)size), __ATOMIC_RELAXED);
	return true;
}

/* Pre: the one that was active has nothing left, so all of it is out. */
static void activate(struct slab_cpu *c, struct slab *s)
{
	struct slab *old = c->active[s->class];

	if (old != &no_slab) {
		set_state(old, SLAB_FULL);
		old->left = old->enough;
	}
	set_state(s, SLAB_ACTIVE);
	s->left = NEVER;
	c->active[s->class] = s;
	if (MM_HARDEN >= 3 && byte_slab_list_length(s) == BROKEN)
		isolate(c, s);
}

/* --- Between CPUs --------------------------------------------------------------------------- */

/*
 * To the slab's stack, and with the first object the slab to its owner's inbox.
 * A slab without an owner is lost: its objects are only marked.
 */
static void push_remote(struct byte_slab *a, unsigned int owner, struct slab *s, void *p)
{
	struct slab *first;
	struct slab_cpu *c;
	void *top;

	store_link(p, END, mark_of(s));
	if (owner == SLAB_NO_OWNER)
		return;
	top = __atomic_load_n(&s->remote, __ATOMIC_RELAXED);
	do
		*(word_t *)p = (uintptr_t)top;
	while (!__atomic_compare_exchange_n(&s->remote, &top, p, true, __ATOMIC_ACQ_REL,
					    __ATOMIC_RELAXED));
	if (top)
		return;
	c = cpu_of(a, owner);
	first = __atomic_load_n(&c->inbox, __ATOMIC_RELAXED);
	do
		s->inbox = first;
	while (!__atomic_compare_exchange_n(&c->inbox, &first, s, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* To its slab when that is ours, else to the owner. */
static void free_verified(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	unsigned int owner = owner_of(s);

	if (owner == c->index)
		free_own(a, c, s, p);
	else
		push_remote(a, owner, s, p);
}

/* Did others free something that is not yet with its slab? */
static inline bool has_mail(const struct slab_cpu *c)
{
	return c->pending || c->arrived || __atomic_load_n(&c->inbox, __ATOMIC_RELAXED);
}

/* The objects of the next slab in the inbox become pending. False: it is empty. */
static bool next_arrived(struct slab_cpu *c)
{
	struct slab *s = c->arrived;

	if (!s && __atomic_load_n(&c->inbox, __ATOMIC_RELAXED))
		s = __atomic_exchange_n(&c->inbox, NULL, __ATOMIC_ACQUIRE);
	if (!s)
		return false;
	c->arrived = s->inbox;
	c->pending_slab = s;
	c->pending = __atomic_exchange_n(&s->remote, NULL, __ATOMIC_ACQ_REL);
	return true;
}

/* An object that others freed, or NULL. What does not look like one ends its slab's stack. */
static void *next_pending(struct slab_cpu *c)
{
	word_t *p;

	while (!c->pending)
		if (!next_arrived(c))
			return NULL;
	p = c->pending;
	c->pending = NULL;
	if (MM_HARDEN && (!on_grid(c->pending_slab, (uintptr_t)p - c->pending_slab->base) ||
			  !marked_free(c->pending_slab, p))) {
		report(p, 0, MM_FAULT_CORRUPT);
		return NULL;
	}
	c->pending = (void *)(uintptr_t)p[0];
	return p;
}

/* Give some of what others freed to its slabs. False when there was nothing. */
static bool drain_inbox(struct byte_slab *a, struct slab_cpu *c)
{
	unsigned int n = 0;
	void *p;

	while (n < INBOX_BATCH && (p = next_pending(c))) {
		free_verified(a, c, c->pending_slab, p);
		n++;
	}
	return n;
}

static void drain_all(struct byte_slab *a, struct slab_cpu *c)
{
	while (drain_inbox(a, c))
		;
}

/* Level 3: out of the quarantine, unless a byte was written meanwhile: then never used again. */
static void leave_quarantine(struct byte_slab *a, struct slab_cpu *c, struct slab_waiting w)
{
	if (!w.p)
		return;
	if (*(word_t *)w.p == POISON_WORD && marked_free(w.slab, w.p) &&
	    poison_intact(w.p, object_size(w.slab)))
		free_verified(a, c, w.slab, w.p);
	else
		report(w.p, object_size(w.slab), MM_FAULT_WRITE_AFTER_FREE);
}

/* What waits in the quarantine is freed now. */
static void flush_quarantine(struct byte_slab *a, struct slab_cpu *c)
{
	for (unsigned int i = 0; i != BYTE_SLAB_WAITING; i++) {
		struct slab_waiting w = c->quarantine[i];

		c->quarantine[i].p = NULL;
		leave_quarantine(a, c, w);
	}
}

static struct slab *take_partial(struct slab_cpu *c, size_t class)
{
	struct slab *s = c->partial[class];

	if (s)
		partial_remove(c, s);
	return s;
}

/* Give the CPU an active slab with something in it. False: it has none left. */
static bool refill(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->active[class];

	if (s->head != END) {
		isolate(c, s);
		s = &no_slab;
	}
	if (s != &no_slab && carve(a, s))
		return true;
	if (!c->partial[class] && has_mail(c) && drain_inbox(a, c) && s->head != END)
		return true;
	s = take_partial(c, class);
	if (!s)
		return false;
	activate(c, s);
	return true;
}

/* Would alloc_own find nothing? What comes here was there just now, as a rule in vain. */
static inline bool is_dry(const struct slab_cpu *c, size_t class)
{
	const struct slab *s = c->active[class];

	return s->head == END && s->carved == s->count && !c->partial[class] && !has_mail(c);
}

/* As a rule all of the active slab is out and another one is listed. NULL: it is not so. */
static inline void *alloc_from_next(struct slab_cpu *c, size_t class)
{
	struct slab *old = c->active[class], *s = c->partial[class];

	if (!s || old->head != END || old->carved != old->count)
		return NULL;
	partial_remove(c, s);
	activate(c, s);
	return pop(s);
}

/* alloc_own, when the active slab has nothing to give. */
static __attribute__((noinline)) void *alloc_refilled(struct byte_slab *a, struct slab_cpu *c,
						      size_t class)
{
	void *p = NULL;

	while (!p && refill(a, c, class))
		p = pop(c->active[class]);
	return p;
}

/* NULL: the CPU needs another slab. */
static inline void *alloc_own(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	void *p = pop(c->active[class]);

	return p ? p : alloc_refilled(a, c, class);
}

/* The same after the shortest path, which found nothing. */
static inline void *alloc_after_miss(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	void *p = alloc_from_next(c, class);

	if (p || is_dry(c, class))
		return p;
	return alloc_own(a, c, class);
}

/* --- The locked side ------------------------------------------------------------------------ */

/* With four times as many slabs of a class in a CPU the next one is twice as large, to a limit. */
static size_t pages_of_next(const struct slab_cpu *c, size_t class)
{
	unsigned int doublings = mm_fls(c->slabs[class] | 1) / 2;

	if (doublings > byte_slab_classes[class].doublings)
		doublings = byte_slab_classes[class].doublings;
	return (size_t)byte_slab_classes[class].npages << doublings;
}

/* An empty slab of so many pages that a CPU gave up (0: of any length), or NULL. Pre: locked. */
static struct slab *take_returned(struct byte_slab *a, size_t npages)
{
	struct slab *s = __atomic_load_n(&a->returned, __ATOMIC_ACQUIRE);

	/* Only the lock holder pops, so the top cannot come back changed. */
	do
		if (!s || (npages && s->npages != npages))
			return NULL;
	while (!__atomic_compare_exchange_n(&a->returned, &s, s->next, false, __ATOMIC_ACQUIRE,
					    __ATOMIC_ACQUIRE));
	__atomic_fetch_sub(&a->returned_pages, s->npages, __ATOMIC_RELAXED);
	return s;
}

/* Empty slabs go to the span manager; at most n. */
static void collect(struct byte_slab *a, size_t n)
{
	struct slab *s;

	while (n-- && (s = take_returned(a, 0)))
		byte_slab_span_put(a, s);
}

/* Pages for a slab: such as were returned, as they are, or new ones. */
static struct slab *slab_pages(struct byte_slab *a, size_t npages)
{
	struct slab *s = take_returned(a, npages);

	if (s)
		return s;
	if (__atomic_load_n(&a->returned_pages, __ATOMIC_RELAXED) > RETURNED_PAGES)
		collect(a, 1);
	return byte_slab_span_get_indexed(a, npages);
}

/*
 * So many frees of a full slab make it worth listing. In a small heap each one counts; of a
 * class with many slabs an eighth may lie idle, and it is not for each object that the slab is
 * listed and made active.
 */
static uint8_t enough_frees(const struct slab_cpu *c, const struct slab *s)
{
	if (c->slabs[s->class] < SLABS_TO_SPARE || s->count < 8)
		return 1;
	return (uint8_t)(s->count / 8 + 1);
}

/*
 * What a free object bears is never that of another slab, nor of one that these pages were before:
 * so no copy of memory that was never written makes a live object look free.
 */
static void set_mark(struct byte_slab *a, struct slab *s)
{
#if MM_HARDEN
	s->mark = a->next_mark;
	a->next_mark += 0x9e3779b97f4a7c15u;
#else
	(void)a, (void)s;
#endif
}

/* A fresh slab becomes the CPU's active one. */
static bool slab_new(struct byte_slab *a, struct slab_cpu *c, size_t class, size_t npages)
{
	struct slab *s = slab_pages(a, npages);
	size_t size = byte_slab_classes[class].size;

	if (!s)
		return false;
	s->head = END;
	s->span = (uint8_t)(size - class_start(class) - 1);
	s->factor = a->factor[class];
	s->limit = 0;
	s->carved = 0;
	s->count = (uint16_t)(npages * MM_PAGE_SIZE / size);
	s->class = (uint8_t) class;
	s->enough = enough_frees(c, s);
	s->remote = NULL;
	set_mark(a, s);
	set_owner(s, c->index);
	activate(c, s);
	c->slabs[class]++;
	return carve(a, s);
}

/* One that is not empty is listed, so that it shows when it becomes so. */
static void give_up_active(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->active[class];
	size_t length = s == &no_slab ? BROKEN : byte_slab_list_length(s);

	if (length == BROKEN || !(length || s->carved < s->count))
		return;
	c->active[class] = &no_slab;
	if (length == s->carved) {
		release(a, c, s);
		return;
	}
	list_partial(c, s, length);
}

/* A slab is kept when it becomes empty and no other is listed: so it is the first. */
static void give_up_partial(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->partial[class];

	if (!s || s->left)
		return;
	partial_remove(c, s);
	release(a, c, s);
}

static void give_up_class(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	give_up_active(a, c, class);
	give_up_partial(a, c, class);
}

/* An owner parts with all that is free: what waits, and slabs that are empty. */
static void give_up(struct byte_slab *a, struct slab_cpu *c)
{
	flush_quarantine(a, c);
	drain_all(a, c);
	for (size_t class = 0; class < NCLASSES; class ++)
		give_up_class(a, c, class);
}

/* A slab of ours that counts as full but is not is listed: what is free in it is wanted now. */
static const void *list_idle(const struct byte_slab *a, const struct slab *span, void *ctx)
{
	struct slab *s = (struct slab *)(uintptr_t)span;
	struct slab_cpu *c = ctx;

	(void)a;
	if (state_of(s) != SLAB_FULL || owner_of(s) != c->index || s->left == s->enough)
		return NULL;
	list_partial(c, s, s->enough - s->left);
	return NULL;
}

static void ask(struct byte_slab *a, uint64_t cpus)
{
	__atomic_fetch_or(&a->asked, cpus, __ATOMIC_RELAXED);
}

static uint64_t bit_of(unsigned int cpu)
{
	return (uint64_t)1 << cpu;
}

/*
 * Make pages free. The CPU that we run on gives up what it can; the other CPUs
 * are asked, and do it when they next leave their fast path.
 */
static void trim(struct byte_slab *a, struct slab_cpu *c)
{
	give_up(a, c);
	ask(a, ~bit_of(c->index));
	collect(a, SIZE_MAX);
}

/* The same in parts, which are the classes that have a slab. The next part, or NCLASSES. */
static unsigned int give_up_part(struct byte_slab *a, struct slab_cpu *c, unsigned int part)
{
	if (!part)
		flush_quarantine(a, c);
	drain_inbox(a, c);
	while (part < NCLASSES && !c->slabs[part])
		part++;
	if (part == NCLASSES)
		return part;
	give_up_class(a, c, part);
	return part + 1;
}

/*
 * Off the fast path: does the lock holder want something? A part of it each time. Who asks
 * meanwhile is answered from the start when this is at its end.
 */
static void answer(struct byte_slab *a, struct slab_cpu *c)
{
	if (!c->answered) {
		if (!(__atomic_load_n(&a->asked, __ATOMIC_RELAXED) & bit_of(c->index)))
			return;
		__atomic_fetch_and(&a->asked, ~bit_of(c->index), __ATOMIC_RELAXED);
	}
	c->answered = give_up_part(a, c, c->answered);
	if (c->answered == NCLASSES)
		c->answered = 0;
}

/* Pre: locked, and c is pinned. */
static void *alloc_object(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	void *p = alloc_after_miss(a, c, class);

	if (p)
		return p;
	if (!slab_new(a, c, class, pages_of_next(c, class)) &&
	    !slab_new(a, c, class, byte_slab_classes[class].npages)) {
		if (a->base.in_parts)
			return NULL;
		byte_slab_span_each(a, list_idle, c);
		trim(a, c);
		p = alloc_own(a, c, class); /* the trim may have freed objects of the active slab */
		if (p)
			return p;
		slab_new(a, c, class, byte_slab_classes[class].npages);
	}
	return alloc_own(a, c, class);
}

static size_t pages_for(size_t nbytes)
{
	return (nbytes + MM_PAGE_SIZE - 1) / MM_PAGE_SIZE;
}

/* Pre: locked, and c is pinned. */
static void *alloc_run(struct byte_slab *a, struct slab_cpu *c, size_t size, size_t align)
{
	size_t npages = pages_for(size + CANARY_BYTES);
	struct slab *s;

	if (align < MM_PAGE_SIZE)
		align = MM_PAGE_SIZE;
	collect(a, 1);
	s = byte_slab_span_get(a, npages, align);
	if (unlikely(!s && !a->base.in_parts)) {
		trim(a, c);
		s = byte_slab_span_get(a, npages, align);
	}
	return s ? (void *)s->base : NULL;
}

static enum mm_fault_kind free_run(struct byte_slab *a, struct slab *s, void *p, size_t size,
				   size_t align)
{
	if ((uintptr_t)p != s->base)
		return (uintptr_t)p & 7 ? MM_FAULT_MISALIGNED : MM_FAULT_FOREIGN;
	if (class_for(a, size, align) != NCLASSES || pages_for(size + CANARY_BYTES) != s->npages ||
	    s->base & (align - 1))
		return MM_FAULT_WRONG_LAYOUT;
	if (!canary_intact(a, p, size))
		return MM_FAULT_OVERFLOW;
	byte_slab_span_put(a, s);
	return MM_FAULT_NONE;
}

/* --- Allocation ----------------------------------------------------------------------------- */

/* Level 2 and up: was it written while free? Then it is left alone for good. */
static bool finish(const struct byte_slab *a, void *p, size_t size, size_t class)
{
	if (MM_HARDEN < 2)
		return true;
	if (class < NCLASSES && !poison_intact(p, byte_slab_classes[class].size)) {
		report(p, byte_slab_classes[class].size, MM_FAULT_WRITE_AFTER_FREE);
		return false;
	}
	set_canary(a, p, size);
	return true;
}

static void *byte_slab_alloc(struct byte_alloc *base, size_t size, size_t align)
{
	struct byte_slab *a = slab_of(base);
	size_t class = class_for(a, size, align);
	struct slab_cpu *c;
	unsigned int cpu;
	unsigned long pin;
	void *p;

	if (!a->total_nbytes)
		return NULL;
	pin = mm_port_pin(&cpu);
	c = cpu_of(a, cpu);
	do
		p = class < NCLASSES ? alloc_object(a, c, class) : alloc_run(a, c, size, align);
	while (p && !finish(a, p, size, class));
	mm_port_unpin(pin, cpu);
	return p;
}

void *byte_slab_alloc_shortest(struct byte_alloc *base, struct slab_cpu *c, size_t size,
			       size_t align)
{
	struct byte_slab *a = slab_of(base);
	size_t last = last_byte(size, align);

	if (unlikely(last >= BYTE_SLAB_MAX || MM_HARDEN >= 2))
		return NULL;
	return pop(c->active[a->class_of[last / 8]]);
}

void *byte_slab_alloc_fast(struct byte_alloc *base, size_t size, size_t align, unsigned int cpu)
{
	return byte_slab_alloc_shortest(base, cpu_of(slab_of(base), cpu), size, align);
}

static void *byte_slab_alloc_local(struct byte_alloc *base, size_t size, size_t align,
				   unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);
	struct slab_cpu *c = cpu_of(a, cpu);
	size_t class = class_for(a, size, align);
	void *p;

	if (class == NCLASSES || !a->secret)
		return NULL;
	answer(a, c);
	do
		p = alloc_after_miss(a, c, class);
	while (p && !finish(a, p, size, class));
	return p;
}

/* --- Freeing -------------------------------------------------------------------------------- */

/* The checks of level 1, in the order that names the fault best. */
static enum mm_fault_kind verify(const struct byte_slab *a, const struct slab *s, const void *p,
				 size_t size, size_t align)
{
	if ((uintptr_t)p & 7)
		return MM_FAULT_MISALIGNED;
	if (!on_grid(s, (uintptr_t)p - s->base))
		return MM_FAULT_FOREIGN;
	if (marked_free(s, p))
		return MM_FAULT_DOUBLE_FREE;
	if (class_for(a, size, align) != s->class)
		return MM_FAULT_WRONG_LAYOUT;
	return canary_intact(a, p, size) ? MM_FAULT_NONE : MM_FAULT_OVERFLOW;
}

/* The same as one yes or no, and is it ours? One comparison tells owner and class. */
static inline bool may_free(const struct slab *s, const void *p, size_t size, size_t align,
			    uint32_t own_tag)
{
	uint32_t tag = mm_load_relaxed32(&s->tag);

	if (!MM_HARDEN)
		return tag == own_tag;
	return (uint32_t)last_byte(size, align) + own_tag - tag <= s->span &&
	       below_limit(s, (uintptr_t)p - s->base, s->limit) && !marked_free(s, p);
}

/* Level 3: p waits in the ring, what waited longest is freed. */
static void quarantine(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	struct slab_waiting *slot = &c->quarantine[c->oldest], oldest = *slot;

	store_link(p, POISON_WORD, mark_of(s));
	*slot = (struct slab_waiting){p, s};
	c->oldest = c->oldest + 1 == BYTE_SLAB_WAITING ? 0 : c->oldest + 1;
	leave_quarantine(a, c, oldest);
}

/* Free what was verified, wherever it belongs. */
static void free_object(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	poison(p, object_size(s));
	if (BYTE_SLAB_WAITING)
		quarantine(a, c, s, p);
	else
		free_verified(a, c, s, p);
}

static enum mm_fault_kind free_checked(struct byte_slab *a, struct slab_cpu *c, struct slab *s,
				       void *p, size_t size, size_t align)
{
	enum mm_fault_kind fault = MM_HARDEN ? verify(a, s, p, size, align) : MM_FAULT_NONE;

	if (fault == MM_FAULT_NONE)
		free_object(a, c, s, p);
	return fault;
}

static inline bool shows(const struct slab_window *w, const void *p)
{
	return (uintptr_t)p - w->base < mm_load_relaxed(&w->nbytes);
}

/* Pre: the window shows the address. */
static inline struct slab *slab_shown(const struct slab_window *w, const void *p)
{
	return w->slabs[((uintptr_t)p - w->base) >> MM_PAGE_SHIFT];
}

/* Which window shows an address as a rule; all of them are right about what they show. */
static inline struct slab_window **place_of(struct slab_cpu *c, const void *p)
{
	size_t offset = mm_place((uintptr_t)p, PLACE_BYTES, sizeof(c->seen));

	return (struct slab_window **)((uintptr_t)c->seen + offset);
}

/* The slab of an address in one of the two windows that are looked into first, or no_page. */
static inline struct slab *look_first(struct slab_cpu *c, const void *p)
{
	const struct slab_window *w = *place_of(c, p);

	if (unlikely(!shows(w, p))) {
		w = c->second;
		if (!shows(w, p))
			return &byte_slab_no_page;
	}
	return slab_shown(w, p);
}

static void set_place(struct slab_cpu *c, const void *p, struct slab_window *w)
{
	struct slab_window **place = place_of(c, p);

	c->second = *place;
	*place = w;
}

/* The slab of an address in any window of the CPU, or no_page. */
static struct slab *look_around(struct byte_slab *a, struct slab_cpu *c, const void *p)
{
	struct slab_window *w = a->windows[c->index], *end = w + c->nwindows;

	while (w < end && !shows(w, p))
		w++;
	if (w == end)
		return &byte_slab_no_page;
	set_place(c, p, w);
	return slab_shown(w, p);
}

bool byte_slab_dealloc_fast(struct byte_alloc *base, void *p, size_t size, size_t align,
			    unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);
	struct slab_cpu *c = cpu_of(a, cpu);
	const struct slab_window *w = a->windows[cpu];
	struct slab *s = unlikely(!shows(w, p)) ? &byte_slab_no_page : slab_shown(w, p);

	if (unlikely(MM_HARDEN >= 2 || !may_free(s, p, size, align, SLAB_TAG(cpu))))
		return false;
	free_own(a, c, s, p);
	return true;
}

bool byte_slab_dealloc_shortest(struct byte_alloc *base, struct slab_cpu *c, void *p, size_t size,
				size_t align, struct slab **event)
{
	struct slab *s = look_first(c, p);

	(void)base;
	if (unlikely(MM_HARDEN >= 2 || !may_free(s, p, size, align, c->tag)))
		return false;
	push(s, p);
	*event = unlikely(--s->left == 0) ? s : NULL;
	return true;
}

void byte_slab_event(struct byte_alloc *base, struct slab_cpu *c, struct slab *s)
{
	struct byte_slab *a = slab_of(base);

	left_event(a, c, s);
	answer(a, c);
}

static enum mm_fault_kind byte_slab_dealloc_local(struct byte_alloc *base, void *p, size_t size,
						  size_t align, unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);
	struct slab_cpu *c = cpu_of(a, cpu);
	struct slab *s;

	if (size > BYTE_SLAB_MAX || !a->secret)
		return MM_FAULT_KINDS;
	s = look_first(c, p);
	if (s == &byte_slab_no_page)
		s = look_around(a, c, p);
	if (MM_HARDEN < 2 && may_free(s, p, size, align, SLAB_TAG(cpu))) {
		free_own(a, c, s, p);
		return MM_FAULT_NONE;
	}
	answer(a, c);
	return is_slab(s) ? free_checked(a, c, s, p, size, align) : MM_FAULT_KINDS;
}

static void copy_window(struct slab_window *to, const struct slab_window *from)
{
	__atomic_store_n(&to->nbytes, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&to->base, from->base, __ATOMIC_RELAXED);
	to->slabs = from->slabs;
	__atomic_store_n(&to->nbytes, from->nbytes, __ATOMIC_RELAXED);
}

/* To be opened: one that shows nothing, or a part of what is to be seen, a new one, the oldest. */
static struct slab_window *choose_window(struct byte_slab *a, struct slab_cpu *c,
					 const struct slab_window *open)
{
	struct slab_window *w = a->windows[c->index], *end = w + c->nwindows;

	for (; w < end; w++)
		if (!w->nbytes || w->base - open->base < open->nbytes)
			return w;
	if (c->nwindows < BYTE_SLAB_WINDOWS)
		return &a->windows[c->index][c->nwindows++];
	return &a->windows[c->index][c->oldest_window++ % BYTE_SLAB_WINDOWS];
}

/* A CPU sees what it did not see. Pre: locked, and the CPU is pinned. */
static void learn(struct byte_slab *a, struct slab_cpu *c, const struct slab_piece *piece,
		  const void *p)
{
	struct slab_window window = byte_slab_window_of(piece, (uintptr_t)p), *w;

	w = choose_window(a, c, &window);
	copy_window(w, &window);
	set_place(c, p, w);
}

static enum mm_fault_kind free_pinned(struct byte_slab *a, const struct slab_piece *piece,
				      struct slab *s, void *p, size_t size, size_t align)
{
	unsigned int cpu;
	unsigned long pin = mm_port_pin(&cpu);
	enum mm_fault_kind fault = free_checked(a, cpu_of(a, cpu), s, p, size, align);

	learn(a, cpu_of(a, cpu), piece, p);
	mm_port_unpin(pin, cpu);
	return fault;
}

static enum mm_fault_kind byte_slab_dealloc(struct byte_alloc *base, void *p, size_t size,
					    size_t align)
{
	struct byte_slab *a = slab_of(base);
	const struct slab_piece *piece = byte_slab_piece_of(a, (uintptr_t)p);
	struct slab *s = piece ? slab_in(piece, (uintptr_t)p) : &byte_slab_no_page;

	switch (state_of(s)) {
	case SLAB_INNER:
		return piece && (uintptr_t)p & 7 ? MM_FAULT_MISALIGNED : MM_FAULT_FOREIGN;
	case SLAB_FREE:
	case SLAB_RETURNED:
		return MM_FAULT_DOUBLE_FREE;
	case SLAB_RUN:
		return free_run(a, s, p, size, align);
	default:
		return free_pinned(a, piece, s, p, size, align);
	}
}

/* --- Everything else ------------------------------------------------------------------------ */

static enum alloc_result byte_slab_add_memory(struct byte_alloc *base, void *start, size_t nbytes)
{
	return byte_slab_span_add(slab_of(base), start, nbytes);
}

static void fill_class_tables(struct byte_slab *a)
{
	size_t class = 0;

	for (size_t i = 0; i < BYTE_SLAB_MAX / 8; i++) {
		if (i * 8 + 8 > byte_slab_classes[class].size)
			class ++;
		a->class_of[i] = (uint8_t) class;
	}
	for (class = 0; class < NCLASSES; class ++)
		a->factor[class] =
			(uint32_t)(((uint64_t)1 << 32) / byte_slab_classes[class].size + 1);
}

static enum alloc_result byte_slab_init(struct byte_alloc *base, void *start, size_t nbytes)
{
	struct byte_slab *a = slab_of(base);

	__builtin_memset((char *)a + sizeof(a->base), 0, sizeof(*a) - sizeof(a->base));
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++) {
		cpu_of(a, i)->index = i;
		cpu_of(a, i)->tag = SLAB_TAG(i);
		for (size_t class = 0; class < NCLASSES; class ++)
			cpu_of(a, i)->active[class] = &no_slab;
		for (size_t place = 0; place < BYTE_SLAB_PLACES; place++)
			cpu_of(a, i)->seen[place] = a->windows[i];
		cpu_of(a, i)->second = a->windows[i];
	}
	a->secret = mix((uintptr_t)a ^ mix(__atomic_fetch_add(&inits, 1, __ATOMIC_RELAXED))) | 1;
	a->next_mark = mix(a->secret);
	fill_class_tables(a);
	return byte_slab_span_add(a, start, nbytes);
}

static struct slab *slab_at(const struct byte_slab *a, const void *p)
{
	const struct slab_piece *piece = byte_slab_piece_of(a, (uintptr_t)p);

	return piece ? slab_in(piece, (uintptr_t)p) : &byte_slab_no_page;
}

static bool resize_run(struct byte_slab *a, struct slab *s, size_t npages)
{
	if (npages > s->npages)
		return byte_slab_span_grow(a, s, npages);
	byte_slab_span_shrink(a, s, npages);
	return true;
}

/* Is this a live object of that layout? Above level 0 exactly. */
static bool is_object_for(const struct byte_slab *a, const struct slab *s, const void *p,
			  size_t size, size_t align)
{
	return is_slab(s) && s->class == class_for(a, size, align) &&
	       (!MM_HARDEN || verify(a, s, p, size, align) == MM_FAULT_NONE);
}

/* Is this a run of pages of that size? */
static bool is_run_for(const struct byte_slab *a, const struct slab *s, const void *p, size_t size,
		       size_t align)
{
	return state_of(s) == SLAB_RUN && (uintptr_t)p == s->base && !(s->base & (align - 1)) &&
	       pages_for(size + CANARY_BYTES) == s->npages && canary_intact(a, p, size);
}

static bool byte_slab_resize(struct byte_alloc *base, void *p, size_t old_size, size_t align,
			     size_t new_size)
{
	struct byte_slab *a = slab_of(base);
	size_t class = class_for(a, new_size, align);
	struct slab *s = slab_at(a, p);

	if (class_for(a, old_size, align) != class)
		return false;
	if (class < NCLASSES ? !is_object_for(a, s, p, old_size, align)
			     : !is_run_for(a, s, p, old_size, align))
		return false;
	if (class == NCLASSES && !resize_run(a, s, pages_for(new_size + CANARY_BYTES)))
		return false;
	set_canary(a, p, new_size);
	return true;
}

/* Pages of the slab or run that a request needs; the table of classes may not exist yet. */
static size_t span_pages(size_t nbytes, size_t align)
{
	size_t last = last_byte(nbytes, align);

	for (size_t class = 0; class < NCLASSES; class ++)
		if (byte_slab_classes[class].size > last)
			return byte_slab_classes[class].npages;
	return pages_for(nbytes);
}

/* A fresh piece also pays for its header, records and index. */
static size_t byte_slab_grow_size(const struct byte_alloc *base, size_t size, size_t align)
{
	size_t npages = span_pages(size + CANARY_BYTES, align), extra;

	(void)base;
	if (align > MM_PAGE_SIZE)
		npages += align / MM_PAGE_SIZE - 1;
	extra = byte_slab_span_overhead(npages + 1 + npages / 32);
	return (npages + extra / MM_PAGE_SIZE + 2) * MM_PAGE_SIZE;
}

/* Some of what others freed returns to its slabs. True: there is more. */
static bool drain_some(struct byte_slab *a, struct slab_cpu *c)
{
	drain_inbox(a, c);
	return has_mail(c);
}

/*
 * Of the CPU that we run on; the others are asked with the first part, and so is the one that
 * made it, when others make the rest. First what was freed by others, though not for ever, if they
 * go on; then class after class. Each part includes some of the slabs that were given up, of which
 * there may be more at the end.
 */
static unsigned int byte_slab_settle(struct byte_alloc *base, unsigned int part)
{
	struct byte_slab *a = slab_of(base);
	unsigned int cpu;
	unsigned long pin = mm_port_pin(&cpu);
	struct slab_cpu *c = cpu_of(a, cpu);
	bool more;

	if (!part) {
		a->settler = cpu;
		ask(a, ~bit_of(cpu));
	} else if (a->settler != cpu) {
		ask(a, bit_of(a->settler));
	}
	if (part < MAIL_PARTS && drain_some(a, c))
		part++;
	else
		part = MAIL_PARTS + give_up_part(a, c, part > MAIL_PARTS ? part - MAIL_PARTS : 0);
	more = part < MAIL_PARTS + NCLASSES;
	collect(a, COLLECT_BATCH);
	mm_port_unpin(pin, cpu);
	return more || __atomic_load_n(&a->returned, __ATOMIC_RELAXED) ? part : 0;
}

static bool byte_slab_take_free(struct byte_alloc *base, void **start, size_t *nbytes)
{
	struct byte_slab *a = slab_of(base);
	unsigned int cpu;
	unsigned long pin;

	if (a->base.in_parts) {
		collect(a, COLLECT_BATCH);
	} else if (a->total_nbytes && !a->free_pieces) {
		pin = mm_port_pin(&cpu);
		trim(a, cpu_of(a, cpu));
		mm_port_unpin(pin, cpu);
	}
	return byte_slab_span_take_free(a, start, nbytes);
}

static size_t byte_slab_block_size(const struct byte_alloc *base, const void *p)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	const struct slab *s = slab_at(a, p);
	uintptr_t offset = (uintptr_t)p - s->base;

	if (state_of(s) == SLAB_RUN && !offset)
		return s->npages * MM_PAGE_SIZE - CANARY_BYTES;
	if (!is_slab(s) || !on_grid(s, offset) || marked_free(s, p))
		return 0;
	return object_size(s) - CANARY_BYTES;
}

static size_t byte_slab_total_bytes(const struct byte_alloc *base)
{
	return ((const struct byte_slab *)base)->total_nbytes;
}

/* Pages only: free objects serve no other class until their slab is empty. */
static size_t byte_slab_available_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;

	return (a->free_pages + __atomic_load_n(&a->returned_pages, __ATOMIC_RELAXED)) *
	       MM_PAGE_SIZE;
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
	.settle = byte_slab_settle,
	.take_free = byte_slab_take_free,
	.block_size = byte_slab_block_size,
	.total_bytes = byte_slab_total_bytes,
	.used_bytes = byte_slab_used_bytes,
	.available_bytes = byte_slab_available_bytes,
	.walk = byte_slab_walk,
	.check = byte_slab_check,
};
