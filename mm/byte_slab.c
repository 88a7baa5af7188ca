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
 *             takes the locked call, which serves the request from a slab and
 *             leaves that slab for the CPU, who is its owner once it has taken it
 *   returned  empty slabs, which later locked calls give to the span manager
 * So every CPU path is bounded, and the locked calls need no CPU number. What
 * several CPUs may look at (state, owner, the grid) is accessed with relaxed
 * atomic operations; what hands memory over, with release and acquire.
 *
 * Classes: 8 bytes apart to 208, then what divides pages well, at most 12.5 %
 * apart from 64 up, but for 400..448..512 (two sizes of which a page holds
 * equally many are one class) and 3584..4096. From 208 up they are multiples of
 * 16, so a size rounded to 16 has a class that is aligned to 16. Objects are
 * carved sixteen at a time, when the free list is empty, so no call ever pays
 * for a whole slab. Larger blocks, and alignments above a page, are spans of pages.
 *
 * Giving back. A CPU keeps one empty slab per class besides the active one. When
 * memory is out, or wanted back, the lock holder takes what waits for it and,
 * since it can pin the CPU it runs on, what that CPU holds; the other CPUs find
 * their bit in "asked" when they next leave the fast path, and give up theirs.
 * With no piece free, take_free costs the frees that it completes, each once.
 *
 * Hardening. 1: the size must be of the class, the address that of an object that
 * was carved (one multiplication, see on_grid), and the first word must not look
 * like a link. Links are offsets, rotated and mixed with a key of the slab; a
 * word is a link when 48 of its bits decode to zero, and alloc clears it, so a
 * double free is seen at the call without a search, and live data are taken for
 * a link once in 2^48. A link that does not decode isolates the slab: it has no
 * owner any more, what is live in it can still be freed, nothing is reused. 2:
 * eight bytes of canary behind every block, poison verified before reuse, objects
 * carved in random order. 3: freed objects wait in a ring before they can be
 * handed out, and a slab's whole list is walked when it gets active.
 *
 * Shortcomings: what a CPU that never leaves its fast path again holds, in its
 * inbox or as empty slabs, can keep a piece from going back; blocks above 4096
 * bytes are rounded up to pages, and a small block at a large alignment is as
 * large as that; used_bytes walks the page records, and like walk and check is
 * exact only while no CPU is in a local call; at most BYTE_SLAB_PIECES pieces;
 * the secret comes from addresses, which stops accidents, not an attacker who
 * can guess them.
 */
#include <mm/byte_slab.h>
#include <mm/port.h>

#include "bits.h"
#include "slab_span.h"

#define SMALL_MAX      512u	  /* slabs of these sizes are a single page */
#define SLAB_MAX_BYTES (7u << 12) /* no slab is larger */
#define MAX_OBJECTS    256u	  /* nor holds more objects */
#define CARVE_BATCH    16u
#define INBOX_BATCH    8u
#define NO_OBJECT      (MM_HARDEN ? (uintptr_t)0xffff : 0)
#define SHARED	       MM_MAX_CPUS
#define POISON	       0xd5
#define CANARY_BYTES   (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)

/* So sure that the compiler keeps a branch where it could compute both ways. */
#define unlikely(x) __builtin_expect_with_probability(!!(x), 0, 0.999)

/* Objects are anything to their users, words to us. */
typedef uint64_t __attribute__((may_alias)) word_t;

struct slab_class {
	uint16_t size;
	uint8_t npages;
};

static const struct slab_class classes[] = {
	{16, 1},   {24, 1},   {32, 1},	 {40, 1},   {48, 1},   {56, 1},	  {64, 1},   {72, 1},
	{80, 1},   {88, 1},   {96, 1},	 {104, 1},  {112, 1},  {120, 1},  {128, 1},  {136, 1},
	{144, 1},  {152, 1},  {160, 1},	 {168, 1},  {176, 1},  {184, 1},  {192, 1},  {200, 1},
	{208, 1},  {224, 1},  {240, 1},	 {256, 1},  {272, 1},  {288, 1},  {304, 1},  {336, 1},
	{368, 1},  {400, 1},  {448, 1},	 {512, 1},  {576, 1},  {640, 5},  {704, 3},  {768, 3},
	{816, 1},  {896, 2},  {960, 4},	 {1024, 1}, {1152, 2}, {1280, 5}, {1360, 1}, {1440, 5},
	{1536, 3}, {1632, 2}, {1792, 4}, {1904, 7}, {2048, 1}, {2304, 4}, {2560, 5}, {2720, 2},
	{2864, 5}, {3072, 3}, {3264, 4}, {3584, 7}, {4096, 4},
};

#define NCLASSES BYTE_SLAB_CLASSES
_Static_assert(MM_MAX_CPUS <= 64, "one word has a bit for each CPU");
_Static_assert(sizeof(classes) / sizeof(classes[0]) == NCLASSES, "the header knows how many");

/* What a CPU has that has nothing: every path finds it empty. Never written. */
static struct slab no_slab = {.head = NO_OBJECT};

static inline struct byte_slab *slab_of(struct byte_alloc *a)
{
	return (struct byte_slab *)a;
}

static inline struct slab_cpu *shared_state(struct byte_slab *a)
{
	return &a->cpu[SHARED];
}

static inline unsigned int owner_of(const struct slab *s)
{
	return __atomic_load_n(&s->owner, __ATOMIC_RELAXED);
}

static inline void set_owner(struct slab *s, unsigned int owner)
{
	__atomic_store_n(&s->owner, (uint16_t)owner, __ATOMIC_RELAXED);
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

/* --- Links: level 0 plain addresses, above encoded offsets --------------------------------- */

static inline uintptr_t object_link(const struct slab *s, const void *p)
{
	return MM_HARDEN ? (uintptr_t)p - s->base : (uintptr_t)p;
}

static inline void *link_object(const struct slab *s, uintptr_t link)
{
	return (void *)(MM_HARDEN ? s->base + link : link);
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

/* Is the first word of an object a link? Then it is free. Level 0 cannot tell. */
static inline bool marked_free(const struct slab *s, const void *p)
{
	return MM_HARDEN && !((*(const word_t *)p ^ s->key) << 16);
}

/* What did not decode is no offset of an object either: one test finds it, and the end. */
static inline bool is_object(uintptr_t link)
{
	return MM_HARDEN ? link < SLAB_MAX_BYTES : link;
}

static inline void *pop(struct slab *s)
{
	uintptr_t head = s->head;
	void *p;

	if (unlikely(!is_object(head)))
		return NULL;
	p = link_object(s, head);
	s->head = load_link(s, p);
	if (MM_HARDEN)
		*(word_t *)p = 0;
	s->left++;
	return p;
}

static inline void push(struct slab *s, void *p)
{
	uintptr_t link = object_link(s, p);

	store_link(s, p, s->head);
	s->head = link;
}

/* --- Geometry ------------------------------------------------------------------------------- */

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
	unsigned int state = state_of(s);

	return state >= SLAB_ACTIVE && state <= SLAB_FULL;
}

static size_t used_objects(const struct slab *s)
{
	switch (state_of(s)) {
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

/* From 208 up all classes are multiples of 16, and below every such size is one. */
static inline size_t round_for(size_t nbytes, size_t align)
{
	return unlikely(align > 8) ? (nbytes + 15) & ~(size_t)15 : nbytes;
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

/*
 * Is there an object at an offset? With factor = floor(2^32 / size) + 1, object
 * number q gives q * unit, where unit = factor * size mod 2^32, and any other
 * offset in the slab at least factor, which is more: so one comparison with
 * unit * (number of objects carved) tells both that an object begins there and
 * that it has been carved.
 */
static inline bool on_grid(const struct slab *s, uintptr_t offset)
{
	return (uint32_t)offset * s->factor < __atomic_load_n(&s->limit, __ATOMIC_RELAXED);
}

static inline uint32_t grid_unit(const struct slab *s)
{
	return s->factor * (uint32_t)object_size(s);
}

static inline size_t objects_carved(const struct slab *s)
{
	return s->limit / grid_unit(s);
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

	if (c->index == SHARED) {
		slab_span_put(a, s);
		return;
	}
	set_state(s, SLAB_RETURNED);
	set_owner(s, SLAB_NO_OWNER);
	__atomic_fetch_add(&a->returned_pages, s->npages, __ATOMIC_RELAXED);
	top = __atomic_load_n(&a->returned, __ATOMIC_RELAXED);
	do
		s->next = top;
	while (!__atomic_compare_exchange_n(&a->returned, &top, s, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* left reached zero: a full slab has room again, or a listed one is empty; the last one stays. */
static __attribute__((noinline)) void left_event(struct byte_slab *a, struct slab_cpu *c,
						 struct slab *s)
{
	if (state_of(s) == SLAB_FULL) {
		set_state(s, SLAB_PARTIAL);
		s->left = (uint32_t)capacity(s) - 1;
		partial_add(c, s);
		return;
	}
	if (s->next == s)
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
	s->head = NO_OBJECT;
	if (c->active[s->class] == s)
		c->active[s->class] = &no_slab;
}

/* Every link of the list leads to an object, and the list has an end. */
static bool list_intact(const struct slab *s)
{
	uintptr_t link = s->head;
	size_t n = 0;

	while (is_object(link) && n++ < MAX_OBJECTS) {
		void *p = link_object(s, link);

		if (!on_grid(s, (uintptr_t)p - s->base))
			return false;
		link = load_link(s, p);
	}
	return link == NO_OBJECT;
}

static void activate(struct slab_cpu *c, struct slab *s)
{
	struct slab *old = c->active[s->class];

	if (old != &no_slab && state_of(old) == SLAB_ACTIVE) {
		set_state(old, SLAB_FULL);
		old->left = 1;
	}
	if (state_of(s) == SLAB_PARTIAL) {
		set_state(s, SLAB_ACTIVE);
		s->left++;
	}
	c->active[s->class] = s;
	if (MM_HARDEN >= 3 && !list_intact(s))
		isolate(c, s);
}

/* Make some more objects, when none is free; level 2 and up in an order that differs. */
static bool carve(const struct byte_slab *a, struct slab *s)
{
	size_t size = object_size(s), carved = objects_carved(s), n = capacity(s) - carved;
	uintptr_t first = s->base + carved * size;
	size_t shuffle = 0;

	if (!n)
		return false;
	if (n >= CARVE_BATCH) {
		n = CARVE_BATCH;
		if (MM_HARDEN >= 2)
			shuffle = mix(a->secret ^ first) & (CARVE_BATCH - 1);
	}
	for (size_t i = n; i-- > 0;) {
		void *p = (void *)(first + (i ^ shuffle) * size);

		poison(p, size);
		push(s, p);
	}
	__atomic_store_n(&s->limit, (uint32_t)(carved + n) * grid_unit(s), __ATOMIC_RELAXED);
	return true;
}

/* --- Between CPUs --------------------------------------------------------------------------- */

/*
 * The chain of an inbox runs through the second words; the first ones say "free".
 * A slab without an owner is lost: its objects are only marked.
 */
static void push_remote(struct byte_slab *a, unsigned int owner, struct slab *s, void *p)
{
	struct slab_cpu *c;
	void *top;

	store_link(s, p, NO_OBJECT);
	if (owner == SLAB_NO_OWNER)
		return;
	c = &a->cpu[owner & ~SLAB_GIVEN];
	top = __atomic_load_n(&c->inbox, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
	do
		((word_t *)p)[1] = (uintptr_t)top ^ a->secret;
	while (!__atomic_compare_exchange_n(&c->inbox, &top, p, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* To its slab when that is ours, else to the owner, which may have changed meanwhile. */
static void free_verified(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	unsigned int owner = owner_of(s);

	if (owner == c->index)
		free_own(a, c, s, p);
	else
		push_remote(a, owner, s, p);
}

static struct slab *slab_in(const struct slab_piece *piece, uintptr_t addr)
{
	struct slab *s = slab_page_of(piece, addr);

	return state_of(s) == SLAB_INNER ? s - s->back : s;
}

/* The slab of an address in a piece, or NULL. */
static struct slab *slab_at(const struct byte_slab *a, uintptr_t addr)
{
	const struct slab_piece *piece = slab_piece_of(a, addr);

	return piece ? slab_in(piece, addr) : NULL;
}

/* The first of the chain that c took from its inbox, verified; NULL: none, or the rest is lost. */
static void *next_pending(struct byte_slab *a, struct slab_cpu *c, struct slab **s)
{
	void *p = c->pending;

	if (!p)
		return NULL;
	*s = slab_at(a, (uintptr_t)p);
	if (MM_HARDEN && (!*s || load_link(*s, p) != NO_OBJECT)) {
		report(p, 0, MM_FAULT_CORRUPT);
		c->pending = NULL;
		return NULL;
	}
	c->pending = (void *)(uintptr_t)(((word_t *)p)[1] ^ a->secret);
	__atomic_fetch_sub(&c->parked_nbytes, object_size(*s), __ATOMIC_RELAXED);
	return p;
}

/* Give some of what others freed to its slabs. False when there was nothing. */
static bool drain_inbox(struct byte_slab *a, struct slab_cpu *c)
{
	struct slab *s;
	void *p;

	if (!c->pending && __atomic_load_n(&c->inbox, __ATOMIC_RELAXED))
		c->pending = __atomic_exchange_n(&c->inbox, NULL, __ATOMIC_ACQUIRE);
	if (!c->pending)
		return false;
	for (unsigned int i = 0; i < INBOX_BATCH && (p = next_pending(a, c, &s)); i++) {
		poison(p, object_size(s));
		free_verified(a, c, s, p);
	}
	return true;
}

/* All that is there now; what is sent on to ourselves (a slab just given) waits. */
static void drain_all(struct byte_slab *a, struct slab_cpu *c)
{
	for (int taken = 0; taken < 2; taken++)
		do
			drain_inbox(a, c);
		while (c->pending);
}

/* What waits in the quarantine is freed now. */
static void flush_quarantine(struct byte_slab *a, struct slab_cpu *c)
{
	for (unsigned int i = 0; i != BYTE_SLAB_WAITING; i++) {
		void *p = c->quarantine[i];
		struct slab *s = p ? slab_at(a, (uintptr_t)p) : NULL;

		c->quarantine[i] = NULL;
		if (!s)
			continue;
		__atomic_fetch_sub(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
		free_verified(a, c, s, p);
	}
}

/* The gift, if it is of the class; else it waits on the list of its own. */
static struct slab *take_gift(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s;

	if (!__atomic_load_n(&c->gift, __ATOMIC_RELAXED))
		return NULL;
	s = __atomic_exchange_n(&c->gift, NULL, __ATOMIC_ACQUIRE);
	set_owner(s, c->index);
	if (s->class == class)
		return s;
	set_state(s, SLAB_PARTIAL);
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
		if (is_object(c->active[class]->head))
			return NULL;
		s = c->partial[class];
	}
	if (!s)
		return take_gift(a, c, class);
	partial_remove(c, s);
	return s;
}

/* Give the CPU an active slab with something in it. False: it has none left. */
static bool refill(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->active[class];

	if (s != &no_slab && carve(a, s))
		return true;
	s = next_slab(a, c, class);
	if (s)
		activate(c, s);
	return s || is_object(c->active[class]->head);
}

static void *alloc_own(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	do {
		struct slab *s = c->active[class];
		void *p = pop(s);

		if (p)
			return p;
		if (s->head != NO_OBJECT)
			isolate(c, s);
	} while (refill(a, c, class));
	return NULL;
}

/* --- The locked side ------------------------------------------------------------------------ */

static struct slab *slab_new(struct byte_slab *a, size_t class)
{
	struct slab *s = slab_span_get(a, classes[class].npages, MM_PAGE_SIZE);
	uint32_t size = classes[class].size;

	if (!s)
		return NULL;
	for (uint32_t i = 1; i < classes[class].npages; i++) {
		set_state(&s[i], SLAB_INNER);
		s[i].back = i & 7;
	}
	s->head = NO_OBJECT;
	s->left = 0;
	s->class = (uint8_t) class;
	s->key = mix(a->secret + s->base) | 1;
	s->factor = (uint32_t)(((uint64_t)1 << 32) / size + 1);
	s->limit = 0;
	s->least = (uint16_t)(class ? classes[class - 1].size + 1 : 1);
	s->sizes = (uint16_t)(size - s->least);
	set_state(s, SLAB_PARTIAL);
	set_owner(s, SHARED);
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
		__atomic_fetch_sub(&a->returned_pages, s->npages, __ATOMIC_RELAXED);
		slab_span_put(a, s);
	}
}

static void give_up_active(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->active[class];

	if (s == &no_slab || state_of(s) != SLAB_ACTIVE || s->left != 1)
		return;
	c->active[class] = &no_slab;
	release(a, c, s);
}

/* The slab that was kept when it became empty is anywhere on the list. */
static void give_up_partial(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = c->partial[class], *last = s ? s->prev : NULL;

	while (s) {
		struct slab *next = s == last ? NULL : s->next;

		if (!s->left) {
			partial_remove(c, s);
			release(a, c, s);
		}
		s = next;
	}
}

/* An owner parts with all that is free: what waits, and slabs that are empty. */
static void give_up(struct byte_slab *a, struct slab_cpu *c)
{
	flush_quarantine(a, c);
	take_gift(a, c, NCLASSES);
	drain_all(a, c);
	for (size_t class = 0; class < NCLASSES; class ++) {
		give_up_active(a, c, class);
		give_up_partial(a, c, class);
	}
}

/*
 * Make pages free, for the lock holder. The CPU that we run on is pinned, so its
 * state is ours as well; the other CPUs are asked, and do it when they next
 * leave their fast path.
 */
static void trim(struct byte_slab *a)
{
	unsigned int cpu;
	unsigned long pin = mm_port_pin(&cpu);

	give_up(a, &a->cpu[cpu]);
	mm_port_unpin(pin, cpu);
	__atomic_store_n(&a->asked, ~((uint64_t)1 << cpu), __ATOMIC_RELAXED);
	give_up(a, shared_state(a));
	collect(a, SIZE_MAX);
}

/* Off the fast path: does the lock holder want something? */
static void answer(struct byte_slab *a, struct slab_cpu *c)
{
	uint64_t bit = (uint64_t)1 << c->index;

	if (__builtin_expect(!(__atomic_load_n(&a->asked, __ATOMIC_RELAXED) & bit), 1))
		return;
	__atomic_fetch_and(&a->asked, ~bit, __ATOMIC_RELAXED);
	give_up(a, c);
}

static void *alloc_shared(struct byte_slab *a, size_t class)
{
	struct slab_cpu *c = shared_state(a);
	void *p = alloc_own(a, c, class);
	struct slab *s = p ? NULL : slab_new(a, class);

	if (!s)
		return p;
	activate(c, s);
	return alloc_own(a, c, class);
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
	c = &a->cpu[cpu];
	return __atomic_load_n(&c->gift, __ATOMIC_RELAXED) ? NULL : c;
}

/* Serve a request from a slab that then becomes a CPU's. */
static void *alloc_with_gift(struct byte_slab *a, struct slab_cpu *c, size_t class)
{
	struct slab *s = shared_state(a)->partial[class];
	void *p;

	if (s)
		partial_remove(shared_state(a), s);
	else
		s = slab_new(a, class);
	if (!s)
		return NULL;
	if (s->head == NO_OBJECT)
		carve(a, s);
	p = pop(s);
	if (!p) {
		isolate(shared_state(a), s);
		return NULL;
	}
	set_state(s, SLAB_ACTIVE);
	s->left++;
	set_owner(s, c->index | SLAB_GIVEN);
	__atomic_store_n(&c->gift, s, __ATOMIC_RELEASE);
	return p;
}

static void *alloc_object(struct byte_slab *a, size_t class)
{
	struct slab_cpu *c;
	void *p;

	collect(a, 1);
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
	collect(a, 1);
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

/* --- Allocation ----------------------------------------------------------------------------- */

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

	if (!a->total_nbytes)
		return NULL;
	do
		p = class < NCLASSES ? alloc_object(a, class) : alloc_run(a, nbytes, align);
	while (p && !finish(a, p, size, class));
	return p;
}

static __attribute__((noinline)) void *alloc_local_any(struct byte_slab *a, size_t size,
						       size_t align, unsigned int cpu)
{
	struct slab_cpu *c = &a->cpu[cpu];
	size_t class = class_for(a, size + CANARY_BYTES, align);
	void *p;

	if (class == NCLASSES)
		return NULL;
	answer(a, c);
	do
		p = alloc_own(a, c, class);
	while (p && !finish(a, p, size, class));
	if (!p)
		__atomic_fetch_or(&a->hungry, (uint64_t)1 << cpu, __ATOMIC_RELAXED);
	return p;
}

void *byte_slab_alloc_fast(struct byte_alloc *base, size_t size, size_t align, unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);

	if (unlikely(size > BYTE_SLAB_MAX || align > 16 || MM_HARDEN >= 2))
		return NULL;
	size = round_for(size, align);
	return pop(a->cpu[cpu].active[a->class_of[(size + 7) / 8]]);
}

static void *byte_slab_alloc_local(struct byte_alloc *base, size_t size, size_t align,
				   unsigned int cpu)
{
	void *p;

	if (unlikely(size > BYTE_SLAB_MAX))
		return NULL;
	p = byte_slab_alloc_fast(base, size, align, cpu);
	return unlikely(!p) ? alloc_local_any(slab_of(base), size, align, cpu) : p;
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
	if (class_for(a, size + CANARY_BYTES, align) != s->class)
		return MM_FAULT_WRONG_LAYOUT;
	return canary_intact(a, p, size) ? MM_FAULT_NONE : MM_FAULT_OVERFLOW;
}

/* The same as one yes or no, for a usual layout. */
static inline bool plausible(const struct slab *s, const void *p, size_t size, size_t align)
{
	return (uint32_t)round_for(size, align) - s->least <= s->sizes && align <= 16 &&
	       on_grid(s, (uintptr_t)p - s->base) && !marked_free(s, p);
}

/* Level 3: p waits in the ring, what waited longest is freed. NULL: nothing did. */
static void *quarantine(struct slab_cpu *c, struct slab *s, void *p)
{
	unsigned int slot = c->oldest;
	void *old = c->quarantine[slot];

	store_link(s, p, NO_OBJECT);
	__atomic_fetch_add(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
	c->quarantine[slot] = p;
	c->oldest = slot + 1 == BYTE_SLAB_WAITING ? 0 : slot + 1;
	return old;
}

/* Free what was verified, wherever it belongs. */
static void free_object(struct byte_slab *a, struct slab_cpu *c, struct slab *s, void *p)
{
	poison(p, object_size(s));
	if (BYTE_SLAB_WAITING) {
		p = quarantine(c, s, p);
		if (!p)
			return;
		s = slab_at(a, (uintptr_t)p);
		__atomic_fetch_sub(&c->parked_nbytes, object_size(s), __ATOMIC_RELAXED);
	}
	free_verified(a, c, s, p);
}

static void set_window(struct slab_cpu *c, const struct slab_piece *piece)
{
	__atomic_store_n(&c->base, piece->base, __ATOMIC_RELAXED);
	c->meta = piece->meta;
	__atomic_store_n(&c->nbytes, piece->nbytes, __ATOMIC_RELAXED);
}

/* Any pointer at all. MM_FAULT_KINDS: only the locked call can tell. */
static __attribute__((noinline)) enum mm_fault_kind
dealloc_any(struct byte_slab *a, struct slab_cpu *c, void *p, size_t size, size_t align)
{
	const struct slab_piece *piece = slab_piece_of(a, (uintptr_t)p);
	bool locked = c == shared_state(a);
	enum mm_fault_kind fault;
	struct slab *s;

	if (!piece)
		return locked ? MM_FAULT_FOREIGN : MM_FAULT_KINDS;
	s = slab_in(piece, (uintptr_t)p);
	if (!is_slab(s) && !locked)
		return MM_FAULT_KINDS;
	switch (state_of(s)) {
	case SLAB_INNER:
		return (uintptr_t)p & 7 ? MM_FAULT_MISALIGNED : MM_FAULT_FOREIGN;
	case SLAB_FREE:
	case SLAB_RETURNED:
		return MM_FAULT_DOUBLE_FREE;
	case SLAB_RUN:
		return free_run(a, s, p, size, align);
	default:
		break;
	}
	fault = MM_HARDEN ? verify(a, s, p, size, align) : MM_FAULT_NONE;
	if (fault != MM_FAULT_NONE)
		return fault;
	set_window(c, piece);
	free_object(a, c, s, p);
	return MM_FAULT_NONE;
}

bool byte_slab_dealloc_fast(struct byte_alloc *base, void *p, size_t size, size_t align,
			    unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);
	struct slab_cpu *c = &a->cpu[cpu];
	uintptr_t offset = (uintptr_t)p - c->base;
	struct slab *s;

	if (unlikely(offset >= __atomic_load_n(&c->nbytes, __ATOMIC_RELAXED) || MM_HARDEN >= 2))
		return false;
	s = c->meta + (offset >> MM_PAGE_SHIFT);
	if (unlikely(size > SMALL_MAX))
		s -= s->back;
	if (unlikely(owner_of(s) != cpu || (MM_HARDEN && !plausible(s, p, size, align))))
		return false;
	if (unlikely(s->left == 1))
		return false;
	push(s, p);
	s->left--;
	return true;
}

static enum mm_fault_kind byte_slab_dealloc_local(struct byte_alloc *base, void *p, size_t size,
						  size_t align, unsigned int cpu)
{
	struct byte_slab *a = slab_of(base);
	struct slab_cpu *c = &a->cpu[cpu];

	if (byte_slab_dealloc_fast(base, p, size, align, cpu))
		return MM_FAULT_NONE;
	if (size > BYTE_SLAB_MAX)
		return MM_FAULT_KINDS;
	answer(a, c);
	return dealloc_any(a, c, p, size, align);
}

static enum mm_fault_kind byte_slab_dealloc(struct byte_alloc *base, void *p, size_t size,
					    size_t align)
{
	struct byte_slab *a = slab_of(base);

	return dealloc_any(a, shared_state(a), p, size, align);
}

/* --- Everything else ------------------------------------------------------------------------ */

static enum alloc_result byte_slab_add_memory(struct byte_alloc *base, void *start, size_t nbytes)
{
	return slab_span_add(slab_of(base), start, nbytes);
}

static void fill_class_table(struct byte_slab *a)
{
	size_t class = 0;

	for (size_t i = 0; i <= BYTE_SLAB_MAX / 8; i++) {
		if (i * 8 > classes[class].size)
			class ++;
		a->class_of[i] = (uint8_t) class;
	}
}

static enum alloc_result byte_slab_init(struct byte_alloc *base, void *start, size_t nbytes)
{
	struct byte_slab *a = slab_of(base);

	__builtin_memset((char *)a + sizeof(a->base), 0, sizeof(*a) - sizeof(a->base));
	for (unsigned int i = 0; i <= SHARED; i++) {
		a->cpu[i].index = i;
		for (size_t class = 0; class < NCLASSES; class ++)
			a->cpu[i].active[class] = &no_slab;
	}
	a->secret = mix((uintptr_t)a ^ mix((uintptr_t)start + nbytes));
	fill_class_table(a);
	return slab_span_add(a, start, nbytes);
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
	if (class == NCLASSES && (state_of(s) != SLAB_RUN || (uintptr_t)p != s->base))
		return false;
	if (!canary_intact(a, p, old_size))
		return false;
	if (class == NCLASSES && !resize_run(a, s, pages_for(nbytes)))
		return false;
	set_canary(a, p, new_size);
	return true;
}

/* Pages of the slab or run that a request needs; the table of classes may not exist yet. */
static size_t span_pages(size_t nbytes, size_t align)
{
	size_t rounded = mm_align_up(nbytes, align);

	for (size_t c = 0; c < NCLASSES && rounded >= nbytes; c++)
		if (classes[c].size >= rounded && !(classes[c].size & (align - 1)))
			return classes[c].npages;
	return pages_for(nbytes);
}

/* A fresh piece also pays for its records. */
static size_t byte_slab_grow_size(const struct byte_alloc *base, size_t size, size_t align)
{
	size_t npages = span_pages(size + CANARY_BYTES, align);

	(void)base;
	if (align > MM_PAGE_SIZE)
		npages += align / MM_PAGE_SIZE - 1;
	npages += (npages + 1) * sizeof(struct slab) / MM_PAGE_SIZE + 2;
	return npages * MM_PAGE_SIZE;
}

static bool byte_slab_take_free(struct byte_alloc *base, void **start, size_t *nbytes)
{
	struct byte_slab *a = slab_of(base);
	struct slab_piece piece;

	if (a->total_nbytes && !a->free_pieces)
		trim(a);
	if (!slab_span_take_free(a, &piece))
		return false;
	for (struct slab_cpu *c = a->cpu; c <= shared_state(a); c++)
		if (__atomic_load_n(&c->base, __ATOMIC_RELAXED) == piece.base)
			__atomic_store_n(&c->nbytes, 0, __ATOMIC_RELAXED);
	*start = piece.given;
	*nbytes = piece.given_nbytes;
	return true;
}

static size_t byte_slab_block_size(const struct byte_alloc *base, const void *p)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	const struct slab *s = slab_at(a, (uintptr_t)p);
	uintptr_t offset = s ? (uintptr_t)p - s->base : 0;

	if (s && state_of(s) == SLAB_RUN && !offset)
		return s->npages * MM_PAGE_SIZE - CANARY_BYTES;
	if (!s || !is_slab(s) || !on_grid(s, offset) || marked_free(s, p))
		return 0;
	return object_size(s) - CANARY_BYTES;
}

static size_t byte_slab_total_bytes(const struct byte_alloc *base)
{
	return ((const struct byte_slab *)base)->total_nbytes;
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

static const void *sum_span(const struct slab *s, void *ctx)
{
	size_t *used = ctx;

	if (state_of(s) == SLAB_RUN)
		*used += s->npages * MM_PAGE_SIZE;
	else if (is_slab(s))
		*used += used_objects(s) * object_size(s);
	return NULL;
}

/* Exact when no CPU is in a local call. */
static size_t byte_slab_used_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;
	size_t used = 0;

	each_span(a, sum_span, &used);
	for (unsigned int i = 0; i <= SHARED; i++)
		used -= __atomic_load_n(&a->cpu[i].parked_nbytes, __ATOMIC_RELAXED);
	return used;
}

/* Pages only: free objects serve no other class until their slab is empty. */
static size_t byte_slab_available_bytes(const struct byte_alloc *base)
{
	const struct byte_slab *a = (const struct byte_slab *)base;

	return (a->free_pages + __atomic_load_n(&a->returned_pages, __ATOMIC_RELAXED)) *
	       MM_PAGE_SIZE;
}

/* One bit for each object of a slab that is on its free list. False: the list is broken. */
static bool free_objects(const struct slab *s, uint64_t map[MAX_OBJECTS / 64], size_t *count)
{
	size_t n = 0;

	if (!list_intact(s))
		return false;
	for (uintptr_t link = s->head; link != NO_OBJECT;) {
		const void *p = link_object(s, link);
		size_t i = ((uintptr_t)p - s->base) / object_size(s);

		if (map[i / 64] >> (i % 64) & 1)
			return false;
		map[i / 64] |= (uint64_t)1 << (i % 64);
		link = load_link(s, p);
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
	size_t size = object_size(s), n, carved = objects_carved(s);
	const char *p = (const char *)s->base, *end = p + s->npages * MM_PAGE_SIZE;

	if (!free_objects(s, map, &n))
		return;
	for (size_t i = 0; i < carved; i++, p += size)
		w->fn(w->ctx, p, size, !(map[i / 64] >> (i % 64) & 1) && !marked_free(s, p));
	if (p < end)
		w->fn(w->ctx, p, (size_t)(end - p), false);
}

static const void *walk_span(const struct slab *s, void *ctx)
{
	const struct walk *w = ctx;

	if (is_slab(s))
		walk_slab(s, w);
	else
		w->fn(w->ctx, (const void *)s->base, s->npages * MM_PAGE_SIZE,
		      state_of(s) == SLAB_RUN || state_of(s) == SLAB_LOST);
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
	if (s->class >= NCLASSES || objects_carved(s) > capacity(s) || !free_objects(s, map, &n))
		return (const void *)s->base;
	return n + used_objects(s) == objects_carved(s) ? NULL : (const void *)s->base;
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
