/* SPDX-License-Identifier: MIT */
/*
 * Named caches: objects of one size in slabs, with a magazine for each CPU.
 *
 * The tradition is Bonwick's (The Slab Allocator, USENIX 1994; Magazines and
 * Vmem, USENIX 2001); what differs is said where it does.
 *
 * Slabs. A slab is 2^k pages at an address that is a multiple of its size, so
 * the record at its start is found by masking. k is the smallest for which at
 * least 7 objects fit and at most an eighth is waste. The record has a bit for
 * each object that lies in the slab, and no link runs through the objects: what
 * is written into a free object cannot mislead the cache, and a constructed
 * object stays as it is. Slabs are on one of three lists: partly free, full,
 * empty. All this is under the lock of the cache.
 *
 * Magazines. Each CPU has an array of free objects, used as a stack by whoever
 * has pinned it, without a lock. An empty one is half filled from slabs, a full
 * one gives its older half back to theirs. A freed object goes to the magazine
 * of the CPU that frees it, so a remote free is no special case. There is no
 * depot of full magazines: a batch costs about twenty instructions an object
 * (a bit of a slab each), which moving whole magazines would save, but objects
 * do return to slabs, which then can be empty, and nothing is to be tuned.
 *
 * The fast paths. Alloc: compare, pop. Free: is this an object of ours? With
 * factor = floor(2^64 / stride) + 1, or one more if that is even, the product
 * (p - first object) * factor modulo 2^64 is q * unit for object number q, where
 * unit = factor * stride - 2^64 is at most twice the stride; for any other address nearer
 * than 2^47 it is at least factor, or a negative number, hence larger than unit * (number of
 * objects); and as factor is odd, it tells addresses apart that differ in their highest bits alone.
 * One multiplication and one comparison thus say whether an object begins at p
 * in the slab that this CPU freed to last, exactly, and without a look at the
 * memory. That is done at every level. Otherwise the slow path masks p, looks
 * whether the record there may be read (is it inside a region of the page
 * allocator? two words remember the last one) and bears our seal, and takes
 * that slab for the next time.
 *
 * The limit of a magazine serves both fast paths as the one comparison: writing
 * zero there sends a CPU to its slow path at its next call. Others do that to
 * ask for what it keeps; and it stays zero where the fast path would not do.
 *
 * Giving back. A cache keeps one empty slab, and one more for every four in use.
 * When pages run out, one reclaim hook for all caches asks each of them for
 * its empty slabs. cache_shrink does the same by hand.
 *
 * Hardening. 1: a free object bears a mark (64 secret bits, in its first word; behind it
 * where a constructor has been), removed by alloc and before its slab goes: a free that finds
 * it is a double free, and an object that comes from its slab without it was written to,
 * or never free. Lists are guarded: each link has a word that agrees with both of
 * its pointers, which is verified before they are followed; a slab that is
 * found overwritten is cut out and never used again, what is live in it may still be
 * freed. 2: a word of canary behind every object, verified at free; poison in
 * what is free, verified before reuse (an object that fails is reported and
 * never handed out again); objects are handed out in random order. 3: freed
 * objects wait in a ring before they enter the magazine; the bits of a slab
 * are counted when it is taken from, and all slabs are verified at every 64th batch.
 *
 * Locks: registry_lock, then the pin of a CPU, then the lock of a cache. Pages
 * are taken under none of them and given back under the first at most.
 *
 * Shortcomings: what a CPU keeps that never calls the cache again, up to a
 * magazine, stays with it, and so do the slabs of these objects. The first
 * object of a new slab pays for the bits, and from level 1 on for a mark in
 * each object. Below level 2, two CPUs that free one object in the same instant
 * are not caught; nor is a stray pointer that meets the release of the very
 * slab it points to. The secret comes from addresses, which stops accidents, not
 * an attacker who can guess them.
 */
#include <mm/cache.h>
#include <mm/global.h>

#include "bits.h"
#include "relaxed.h"

#define OUT_OF_LINE static __attribute__((noinline))
#define CALLER	    __builtin_return_address(0)
/* As in global.c: the slow paths end the public functions, and find the caller by themselves. */
#define PASSED_CALLER (MM_PASS_CALLER || MM_DEBUG ? CALLER : NULL)

#define CACHE_MAX_SLAB	    (8 * CACHE_MAX_SIZE)
#define CACHE_LEAST_OBJECTS 7u	/* in a slab, if it is not of the largest size */
#define CACHE_DEPTH	    24u /* objects in a magazine: so that a CPU's part is 256 bytes */
#define CACHE_KEPT_BYTES    ((size_t)16 * 1024) /* or as many as hold so much */
#define CACHE_WAITING \
	(MM_HARDEN >= 3 ? 32u : 1u) /* freed objects that a CPU holds back, at level 3 */
#define CHECK_EVERY 64u		    /* batches, at level 3 */

#define POISON_BYTE  0xd5
#define POISON	     ((uint64_t)0xd5d5d5d5d5d5d5d5)
#define CANARY_BYTES (MM_HARDEN >= 2 ? sizeof(uint64_t) : 0)

/*
 * The first object of no slab. It is no address, and has no pattern: so that of all addresses a few
 * at most, none of them small, look like an object to any stride.
 */
#define NO_SLAB ((uintptr_t)0x9e3779b97f4a7c15)
#define LOST	UINT32_MAX /* instead of the number of free objects: never to be used again */

/* Objects are anything to their users, words to us. */
typedef uint64_t __attribute__((may_alias)) word_t;

enum { PARTIAL, FULL, EMPTY, LISTS };

/* A ring; guard is kept so that a pointer which was overwritten disagrees with it. */
struct cache_link {
	struct cache_link *next, *prev;
	uintptr_t guard;
};

/* At the start of every slab. */
struct cache_slab {
	uintptr_t seal; /* whose slab this is; atomic */
	struct cache_link link;
	uint32_t nfree;	 /* objects that lie here, or LOST */
	uint32_t nlost;	 /* objects that are never used again */
	uint64_t free[]; /* which lie here */
};

/* One CPU's part: only it touches this while it is pinned, except where "atomic" is said. */
struct cache_cpu {
	size_t count;	  /* objects in the magazine; atomic */
	size_t limit;	  /* the fast paths work below it; atomic */
	uintptr_t base;	  /* first object of the slab that was hit last, or NO_SLAB; atomic */
	uintptr_t window; /* a slab that starts so many bytes from here can be read */
	size_t window_nbytes;
	size_t asked;  /* others want what is here; atomic */
	size_t oldest; /* in the ring of waiting objects */
	void *object[CACHE_DEPTH];
	void *waiting[CACHE_WAITING];
} __attribute__((aligned(64)));

_Static_assert(MM_HARDEN >= 3 || sizeof(struct cache_cpu) == 256, "found by a shift");

struct cache {
	/* Constant. */
	uint64_t factor, span; /* (address - first object) * factor < span: an object */
	uint64_t secret;
	size_t mark;			    /* where in an object the mark is, if it is free */
	size_t slab_bytes, first, nobjects; /* geometry: the objects begin at `first` */
	size_t size, align, body, stride;   /* body: what is the user's, at least a word */
	size_t depth, fast_limit;	    /* of a magazine */
	void (*construct)(void *object);
	const char *name;

	struct cache *next; /* under the registry's lock */

	struct mm_lock lock; /* and: */
	struct cache_link list[LISTS];
	size_t nslabs, nempty, nfree; /* nfree: objects that lie in slabs */
	size_t nlost;		      /* objects of these slabs that are never used again */
	size_t nbroken;		      /* slabs that were lost */
	uint64_t random;
	uint32_t batches;

	struct cache_cpu cpu[MM_MAX_CPUS];
};

/* What was noticed under a lock or a pin, to be done after it. */
struct cache_after {
	struct cache_link *gone; /* slabs to be given back, through their next */
	enum mm_fault_kind kind;
	const void *broken;
};

static struct mm_lock registry_lock;
static struct cache *registry;
static uint64_t created; /* caches ever; atomic */

static inline bool likely(bool x)
{
	return __builtin_expect(x, 1);
}

static inline bool unlikely(bool x)
{
	return __builtin_expect(x, 0);
}

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* --- Geometry --- */

static inline struct cache_slab *slab_at(const struct cache *c, const void *p)
{
	return (struct cache_slab *)mm_align_down((uintptr_t)p, c->slab_bytes);
}

static inline struct cache_slab *slab_of(struct cache_link *l)
{
	return (struct cache_slab *)((uintptr_t)l - offsetof(struct cache_slab, link));
}

static inline uintptr_t first_object(const struct cache *c, const struct cache_slab *s)
{
	return (uintptr_t)s + c->first;
}

static inline void *object_at(const struct cache *c, const struct cache_slab *s, size_t i)
{
	return (void *)(first_object(c, s) + i * c->stride);
}

/* Pre: p is an object of s. The high half of the product is the quotient. */
static inline size_t index_of(const struct cache *c, const struct cache_slab *s, const void *p)
{
	uint64_t offset = (uintptr_t)p - first_object(c, s);

	return (size_t)((unsigned __int128)offset * c->factor >> 64);
}

static inline size_t words_of(size_t nobjects)
{
	return (nobjects + 63) / 64;
}

static inline uintptr_t seal_of(const struct cache *c, const struct cache_slab *s)
{
	return (uintptr_t)c->secret ^ (uintptr_t)s;
}

static inline bool is_sealed(const struct cache *c, const struct cache_slab *s)
{
	return mm_load_relaxed(&s->seal) == seal_of(c, s);
}

/* Does an object begin at p, in the slab whose first object is there? */
static inline bool is_object_of(const struct cache *c, uintptr_t first, const void *p)
{
	return ((uintptr_t)p - first) * c->factor < c->span;
}

/* The same of the slab that this CPU hit last. */
static inline bool is_object(const struct cache *c, const struct cache_cpu *m, const void *p)
{
	return is_object_of(c, mm_load_relaxed(&m->base), p);
}

/* How many objects a slab of so many bytes holds, and where they begin. */
static void lay_out(struct cache *c, size_t nbytes)
{
	size_t record = sizeof(struct cache_slab) + words_of(nbytes / c->stride) * sizeof(uint64_t);

	c->slab_bytes = nbytes;
	c->first = mm_align_up(record, c->align);
	c->nobjects = c->first < nbytes ? (nbytes - c->first) / c->stride : 0;
}

static size_t waste_of_slab(const struct cache *c)
{
	return c->slab_bytes - c->nobjects * c->size;
}

static bool is_good_layout(const struct cache *c)
{
	return c->nobjects >= CACHE_LEAST_OBJECTS &&
	       c->slab_bytes - c->nobjects * c->stride <= c->slab_bytes / 8;
}

static void choose_layout(struct cache *c)
{
	size_t nbytes = MM_PAGE_SIZE;

	do {
		lay_out(c, nbytes);
		nbytes *= 2;
	} while (!is_good_layout(c) && nbytes <= CACHE_MAX_SLAB);
	c->factor = (~(uint64_t)0 / c->stride + 1) | 1;
	c->span = c->factor * c->stride * c->nobjects;
}

/* --- Lists --- */

static inline uintptr_t turned(const struct cache_link *l)
{
	return (uintptr_t)l << 1 | (uintptr_t)l >> 63;
}

/* The guard changes by what changes, so that what disagreed with it goes on doing so. */
static void set_next(struct cache_link *l, struct cache_link *to)
{
	l->guard ^= (uintptr_t)l->next ^ (uintptr_t)to;
	l->next = to;
}

static void set_prev(struct cache_link *l, struct cache_link *to)
{
	l->guard ^= turned(l->prev) ^ turned(to);
	l->prev = to;
}

static void link_init(const struct cache *c, struct cache_link *l)
{
	l->next = l->prev = l;
	l->guard = (uintptr_t)c->secret ^ (uintptr_t)l ^ turned(l);
}

static bool intact(const struct cache *c, const struct cache_link *l)
{
	return !MM_HARDEN ||
	       l->guard == ((uintptr_t)c->secret ^ (uintptr_t)l->next ^ turned(l->prev));
}

static bool linked(const struct cache *c, const struct cache_link *l)
{
	return intact(c, l) && l->next->prev == l && l->prev->next == l;
}

static void list_add(struct cache_link *head, struct cache_link *l)
{
	struct cache_link *after = head->next;

	set_next(l, after);
	set_prev(l, head);
	set_prev(after, l);
	set_next(head, l);
}

/* Pre: linked. */
static void list_remove(struct cache_link *l)
{
	set_prev(l->next, l->prev);
	set_next(l->prev, l->next);
}

/* --- Slabs, under the lock of the cache --- */

static void note_fault(struct cache_after *after, enum mm_fault_kind kind, const void *broken)
{
	after->kind = kind;
	after->broken = broken;
}

static unsigned int list_for(const struct cache *c, size_t nfree)
{
	if (!nfree)
		return FULL;
	return nfree == c->nobjects ? EMPTY : PARTIAL;
}

static void recount(struct cache *c)
{
	c->nslabs = c->nempty = c->nfree = c->nlost = 0;
	for (unsigned int i = 0; i < LISTS; i++)
		for (struct cache_link *l = c->list[i].next; l != &c->list[i]; l = l->next) {
			c->nslabs++;
			c->nempty += i == EMPTY;
			c->nfree += slab_of(l)->nfree;
			c->nlost += slab_of(l)->nlost;
		}
}

/* This was overwritten: its objects may be freed, but are never used again. */
static void condemn(const struct cache *c, struct cache_slab *s)
{
	mm_store_relaxed(&s->seal, seal_of(c, s));
	s->nfree = LOST;
	s->link.next = s->link.prev = NULL;
}

/* Cut out everything between the last link that can be trusted from either end. */
static void list_repair(const struct cache *c, struct cache_link *head)
{
	struct cache_link *front = head, *back = head;

	while (front->next != head && intact(c, front->next) && front->next->prev == front)
		front = front->next;
	if (front->next == head)
		return;
	while (back->prev != front && intact(c, back->prev) && back->prev->next == back)
		back = back->prev;
	condemn(c, slab_of(front->next));
	if (back->prev != front)
		condemn(c, slab_of(back->prev));
	set_next(front, back);
	set_prev(back, front);
}

/* Cut out every slab that is not whole, and what only it led to. */
static void repair(struct cache *c, const struct cache_slab *suspect, struct cache_after *after)
{
	size_t before = c->nslabs;

	note_fault(after, MM_FAULT_CORRUPT, suspect);
	for (unsigned int i = 0; i < LISTS; i++)
		list_repair(c, &c->list[i]);
	recount(c);
	c->nbroken += before - c->nslabs;
}

/*
 * Is this slab in a list? Once one was cut, slabs that were cut out may be whole and agree with
 * their neighbours, and are not counted any more.
 */
static bool is_listed(const struct cache *c, const struct cache_slab *s)
{
	const struct cache_link *l = &s->link;

	if (!c->nbroken)
		return true;
	for (size_t n = 0; n <= c->nslabs && linked(c, l); n++, l = l->next)
		for (unsigned int i = 0; i < LISTS; i++)
			if (l == &c->list[i])
				return true;
	return false;
}

static void lose(struct cache *c, struct cache_slab *s, struct cache_after *after)
{
	condemn(c, s);
	repair(c, s, after);
}

/* Is it in a list, if need be after one behind it was cut out that was overwritten? */
static bool stays_listed(struct cache *c, const struct cache_slab *s, struct cache_after *after)
{
	if (likely(is_listed(c, s)))
		return true;
	repair(c, s, after);
	return is_listed(c, s);
}

/* May the slab be moved? If it was a neighbour that was overwritten, it may after all. */
static bool can_move(struct cache *c, struct cache_slab *s, struct cache_after *after)
{
	if (linked(c, &s->link))
		return true;
	if (intact(c, &s->link))
		repair(c, s, after);
	if (linked(c, &s->link))
		return true;
	lose(c, s, after);
	return false;
}

/* To the list that the number of free objects asks for; it was another number before. */
static void relist(struct cache *c, struct cache_slab *s, size_t before, struct cache_after *after)
{
	unsigned int from = list_for(c, before), to = list_for(c, s->nfree);

	if (from == to || unlikely(!can_move(c, s, after)))
		return;
	list_remove(&s->link);
	list_add(&c->list[to], &s->link);
	c->nempty += (size_t)(to == EMPTY) - (size_t)(from == EMPTY);
}

static word_t *mark_of(const struct cache *c, const void *p)
{
	return (word_t *)((uintptr_t)p + c->mark);
}

/* What level 1 knows of a free object, and level 2: the mark, and nothing else was written. */
static bool is_untouched(const struct cache *c, const void *p)
{
	const word_t *word = p;
	size_t nwords = c->body / sizeof(word_t);
	uint64_t rest = POISON;

	if (MM_HARDEN && *mark_of(c, p) != c->secret)
		return false;
	if (MM_HARDEN < 2)
		return true;
	for (size_t i = 1; i < nwords; i++)
		if (word[i] != POISON)
			return false;
	__builtin_memcpy(&rest, word + nwords, c->body % sizeof(word_t));
	return rest == POISON;
}

static bool lies_here(const struct cache_slab *s, size_t i)
{
	return s->free[i / 64] >> (i % 64) & 1;
}

/* No bit beyond the last object, and as many before it as was counted. */
static bool is_counted(const struct cache *c, const struct cache_slab *s)
{
	size_t n = 0;

	for (size_t i = 0; i < words_of(c->nobjects) * 64; i++) {
		if (i >= c->nobjects && lies_here(s, i))
			return false;
		n += lies_here(s, i);
	}
	return n == s->nfree;
}

static bool check_slab(const struct cache *c, const struct cache_slab *s, unsigned int list,
		       struct cache_after *found)
{
	if (!is_sealed(c, s) || !is_counted(c, s) || list_for(c, s->nfree) != list) {
		note_fault(found, MM_FAULT_CORRUPT, s);
		return false;
	}
	for (size_t i = 0; i < c->nobjects; i++)
		if (lies_here(s, i) && !is_untouched(c, object_at(c, s, i))) {
			note_fault(found, MM_FAULT_WRITE_AFTER_FREE, object_at(c, s, i));
			return false;
		}
	return true;
}

static bool check_list(const struct cache *c, unsigned int list, struct cache_after *found)
{
	const struct cache_link *head = &c->list[list];

	for (struct cache_link *l = head->next; l != head; l = l->next) {
		if (!linked(c, l)) {
			note_fault(found, MM_FAULT_CORRUPT, slab_of(l));
			return false;
		}
		if (!check_slab(c, slab_of(l), list, found))
			return false;
	}
	return true;
}

/* Every slab; the first thing that is broken is noted. */
static bool check_slabs(const struct cache *c, struct cache_after *found)
{
	for (unsigned int i = 0; i < LISTS; i++)
		if (!check_list(c, i, found))
			return false;
	return true;
}

/* What can be told of a record in constant time, and at level 3 whether its bits are right. */
static bool is_whole(const struct cache *c, const struct cache_slab *s)
{
	return intact(c, &s->link) && is_sealed(c, s) && (MM_HARDEN < 3 || is_counted(c, s));
}

static struct cache_link *first_with_room(struct cache *c)
{
	struct cache_link *l = c->list[PARTIAL].next;

	if (l == &c->list[PARTIAL])
		l = c->list[EMPTY].next;
	return l == &c->list[EMPTY] ? NULL : l;
}

/* The slab to take objects from; NULL: none. */
static struct cache_slab *pick(struct cache *c, struct cache_after *after)
{
	struct cache_link *l;

	while ((l = first_with_room(c))) {
		if (!MM_HARDEN || is_whole(c, slab_of(l)))
			break;
		lose(c, slab_of(l), after);
	}
	return l ? slab_of(l) : NULL;
}

static inline bool is_marked(const struct cache *c, const void *p)
{
	return MM_HARDEN && *mark_of(c, p) == c->secret;
}

/* What the bits say is free must be an object that looks free, at level 0 whatever it is. */
static inline bool is_usable(const struct cache *c, const struct cache_slab *s, size_t i)
{
	return !MM_HARDEN || (i < c->nobjects && is_marked(c, object_at(c, s, i)));
}

static void count_lost(struct cache *c, struct cache_slab *s, size_t n)
{
	s->nlost += (uint32_t)n;
	c->nlost += n;
}

/* Move objects to the magazine. If the bits do not agree with their number, none are taken. */
static void take_objects(struct cache *c, struct cache_cpu *m, struct cache_slab *s, size_t want,
			 struct cache_after *after)
{
	size_t n = m->count, before = s->nfree, taken = 0;

	for (size_t w = 0; n < want && w < words_of(c->nobjects); w++) {
		uint64_t bits = s->free[w];

		for (; bits && n < want; bits &= bits - 1, taken++) {
			size_t i = w * 64 + mm_ctz(bits);

			m->object[n] = object_at(c, s, i);
			if (likely(is_usable(c, s, i)))
				n++;
			else
				note_fault(after, MM_FAULT_WRITE_AFTER_FREE, m->object[n]);
		}
		s->free[w] = bits;
	}
	if (unlikely(taken > before || (n < want && taken < before))) {
		lose(c, s, after);
		return;
	}
	s->nfree = (uint32_t)(before - taken);
	c->nfree -= taken;
	count_lost(c, s, taken - (n - m->count));
	mm_store_relaxed(&m->count, n);
	relist(c, s, before, after);
}

/* An object returns to its slab. */
static void put_object(struct cache *c, void *p, struct cache_after *after)
{
	struct cache_slab *s = slab_at(c, p);
	uint64_t bit;
	size_t i;

	if (unlikely(s->nfree == LOST))
		return;
	if (unlikely(MM_HARDEN && (!is_sealed(c, s) || !stays_listed(c, s, after)))) {
		lose(c, s, after);
		return;
	}
	i = index_of(c, s, p);
	bit = (uint64_t)1 << (i % 64);
	if (unlikely(s->free[i / 64] & bit)) {
		note_fault(after, MM_FAULT_DOUBLE_FREE, p);
		return;
	}
	s->free[i / 64] |= bit;
	c->nfree++;
	if (unlikely(!s->nfree++ || s->nfree == c->nobjects))
		relist(c, s, s->nfree - 1, after);
}

/* Nobody may take what was an object of this slab for one from now on. */
static void unseal(struct cache *c, struct cache_slab *s)
{
	mm_store_relaxed(&s->seal, 0);
	s->link.guard = 0;
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		if (mm_load_relaxed(&c->cpu[i].base) == first_object(c, s))
			mm_store_relaxed(&c->cpu[i].base, NO_SLAB);
}

/* Take the first slab of a list out of the cache. */
static void detach_first(struct cache *c, unsigned int list, struct cache_after *after)
{
	struct cache_link *l = c->list[list].next;
	struct cache_slab *s = slab_of(l);

	if (unlikely(!can_move(c, s, after)))
		return;
	list_remove(l);
	c->nslabs--;
	c->nempty -= list == EMPTY;
	c->nfree -= s->nfree;
	unseal(c, s);
	l->next = after->gone;
	after->gone = l;
}

static void trim(struct cache *c, size_t keep, struct cache_after *after)
{
	while (c->nempty > keep)
		detach_first(c, EMPTY, after);
}

static size_t spare_slabs(const struct cache *c)
{
	return 1 + (c->nslabs - c->nempty) / 4;
}

/* --- Magazines: under the pin, and the lock where slabs are touched --- */

/* The part of a pinned CPU. Opaque, so that its address is computed once, not for every member. */
static inline struct cache_cpu *part_of(struct cache *c, unsigned int cpu)
{
	struct cache_cpu *m = &c->cpu[cpu];

	__asm__("" : "+r"(m));
	return m;
}

static inline void set_count(struct cache_cpu *m, size_t n)
{
	mm_store_relaxed(&m->count, n);
}

/* Level 2 and up: nobody can tell which object comes next. */
static void shuffle(struct cache *c, struct cache_cpu *m)
{
	for (size_t i = m->count; MM_HARDEN >= 2 && i > 1; i--) {
		size_t j = mix(c->random++) % i;
		void *p = m->object[i - 1];

		m->object[i - 1] = m->object[j];
		m->object[j] = p;
	}
}

/* Level 3: look at everything that the lock protects, now and then. */
static void check_sometimes(struct cache *c, struct cache_after *after)
{
	if (MM_HARDEN >= 3 && ++c->batches % CHECK_EVERY == 0)
		(void)check_slabs(c, after);
}

static void refill(struct cache *c, struct cache_cpu *m, struct cache_after *after)
{
	unsigned long state = mm_port_lock(&c->lock);
	size_t want = (c->depth + 1) / 2;
	struct cache_slab *s;

	check_sometimes(c, after);
	while (m->count < want && (s = pick(c, after)))
		take_objects(c, m, s, want, after);
	shuffle(c, m);
	mm_port_unlock(&c->lock, state);
}

/* The n oldest objects of the magazine go back to their slabs. */
static void flush(struct cache *c, struct cache_cpu *m, size_t n, struct cache_after *after)
{
	unsigned long state = mm_port_lock(&c->lock);

	check_sometimes(c, after);
	for (size_t i = 0; i < n; i++)
		put_object(c, m->object[i], after);
	trim(c, spare_slabs(c), after);
	mm_port_unlock(&c->lock, state);
	for (size_t i = n; i < m->count; i++)
		m->object[i - n] = m->object[i];
	set_count(m, m->count - n);
}

static void push(struct cache *c, struct cache_cpu *m, void *p, struct cache_after *after)
{
	if (m->count >= c->depth)
		flush(c, m, (c->depth + 1) / 2, after);
	m->object[m->count] = p;
	set_count(m, m->count + 1);
}

/* Level 3: in its place the oldest of the waiting objects, if any, enters the magazine. */
static void *wait_first(struct cache_cpu *m, void *p)
{
	size_t slot = m->oldest;
	void *oldest = m->waiting[slot];

	if (MM_HARDEN < 3)
		return p;
	__atomic_store_n(&m->waiting[slot], p, __ATOMIC_RELAXED);
	m->oldest = (slot + 1) % CACHE_WAITING;
	return oldest;
}

/* All that this CPU keeps goes back to the slabs, and the empty ones out of the cache. */
static void drain(struct cache *c, struct cache_cpu *m, struct cache_after *after)
{
	unsigned long state;

	for (uint32_t i = 0; i < CACHE_WAITING; i++) {
		void *p = wait_first(m, NULL);

		if (p)
			push(c, m, p, after);
	}
	flush(c, m, m->count, after);
	state = mm_port_lock(&c->lock);
	trim(c, 0, after);
	mm_port_unlock(&c->lock, state);
}

/* What every slow path starts with: has somebody asked for what is here? */
static void attend(struct cache *c, struct cache_cpu *m, struct cache_after *after)
{
	/* The limit before the look, and in cache_shrink the request before the limit: one of us
	 * two sees what the other wrote, so that no request is left unheard on the fast path. */
	mm_store_relaxed(&m->limit, c->fast_limit);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (unlikely(mm_load_relaxed(&m->asked))) {
		mm_store_relaxed(&m->asked, 0);
		drain(c, m, after);
	}
}

/* Is p in a slab of ours, as far as this CPU knows? Then that is the one hit last. */
static inline bool know_slab(const struct cache *c, struct cache_cpu *m, const void *p)
{
	const struct cache_slab *s = slab_at(c, p);

	if (unlikely((uintptr_t)s - m->window >= m->window_nbytes || !is_sealed(c, s)))
		return false;
	mm_store_relaxed(&m->base, first_object(c, s));
	return true;
}

/* The same with another window, the part of memory in which the records of slabs can be read. */
static bool find_slab(const struct cache *c, struct cache_cpu *m, const void *p)
{
	virt_addr_t slab = {(uintptr_t)slab_at(c, p)};
	struct page_region_info r;
	size_t nbytes;

	if (!global_allocator_region_of(global_allocator(), slab, &r))
		return false;
	nbytes = r.npages << MM_PAGE_SHIFT;
	m->window = r.start.value;
	m->window_nbytes = nbytes < c->slab_bytes ? 0 : nbytes - c->slab_bytes + 1;
	return know_slab(c, m, p);
}

/* No slab at p bears our seal. Is there one whose seal was overwritten, but not its link? */
static enum mm_fault_kind look_for_link(struct cache *c, const struct cache_cpu *m, const void *p,
					struct cache_after *after)
{
	struct cache_slab *s = slab_at(c, p);
	enum mm_fault_kind fault = MM_FAULT_FOREIGN;
	unsigned long state;

	if (!MM_HARDEN || (uintptr_t)s - m->window >= m->window_nbytes)
		return fault;
	state = mm_port_lock(&c->lock);
	if (intact(c, &s->link)) {
		lose(c, s, after);
		fault = MM_FAULT_CORRUPT;
	}
	mm_port_unlock(&c->lock, state);
	return fault;
}

static enum mm_fault_kind examine(struct cache *c, struct cache_cpu *m, const void *p,
				  struct cache_after *after)
{
	if (!is_object(c, m, p)) {
		if (!know_slab(c, m, p) && !find_slab(c, m, p))
			return look_for_link(c, m, p, after);
		if ((uintptr_t)p & (c->align - 1))
			return MM_FAULT_MISALIGNED;
		/* Not of what was hit last, which others may forget meanwhile. */
		if (!is_object_of(c, first_object(c, slab_at(c, p)), p))
			return MM_FAULT_FOREIGN;
	}
	return is_marked(c, p) ? MM_FAULT_DOUBLE_FREE : MM_FAULT_NONE;
}

/* --- Objects from live to free and back, beyond the fast path --- */

static uint64_t canary_of(const struct cache *c, const void *p)
{
	return mix(c->secret ^ (uintptr_t)p);
}

static bool canary_intact(const struct cache *c, const void *p)
{
	uint64_t canary = canary_of(c, p), found = canary;

	if (CANARY_BYTES)
		__builtin_memcpy(&found, (const char *)p + c->body, sizeof(found));
	return found == canary;
}

static void set_canary(const struct cache *c, void *p)
{
	uint64_t canary = canary_of(c, p);

	if (CANARY_BYTES)
		__builtin_memcpy((char *)p + c->body, &canary, sizeof(canary));
}

static void mark_free(const struct cache *c, void *p)
{
	if (MM_HARDEN)
		*mark_of(c, p) = c->secret;
	if (MM_HARDEN >= 2)
		__builtin_memset((char *)p + sizeof(word_t), POISON_BYTE, c->body - sizeof(word_t));
}

/* A live object is freed. Two CPUs that do it at the same time are told apart from level 2 on. */
static enum mm_fault_kind retire(const struct cache *c, void *p)
{
	if (MM_HARDEN >= 2 && !canary_intact(c, p))
		return MM_FAULT_OVERFLOW;
	if (MM_HARDEN >= 2 &&
	    __atomic_exchange_n(mark_of(c, p), c->secret, __ATOMIC_ACQ_REL) == c->secret)
		return MM_FAULT_DOUBLE_FREE;
	mark_free(c, p);
	return MM_FAULT_NONE;
}

static void report(const struct cache *c, const void *p, enum mm_fault_kind kind,
		   const void *caller)
{
	mm_fault_report(&(struct mm_fault){.kind = kind,
					   .allocator = c->name,
					   .ptr = p,
					   .layout = {c->size, c->align},
					   .caller = caller});
}

static void lose_object(struct cache *c, const void *p)
{
	unsigned long state = mm_port_lock(&c->lock);
	struct cache_slab *s = slab_at(c, p);

	if (s->nfree != LOST && is_listed(c, s))
		count_lost(c, s, 1);
	mm_port_unlock(&c->lock, state);
}

/* A free object gets live. False: somebody wrote to it; it is not used again. */
static bool revive(struct cache *c, void *p, const void *caller)
{
	if (MM_HARDEN >= 2 && !is_untouched(c, p)) {
		lose_object(c, p);
		report(c, p, MM_FAULT_WRITE_AFTER_FREE, caller);
		return false;
	}
	if (MM_HARDEN)
		*mark_of(c, p) = 0;
	set_canary(c, p);
	if (MM_HARDEN >= 2 && c->construct)
		c->construct(p);
	return true;
}

/* --- Growing and giving back: no lock, no pin --- */

static void init_slab(const struct cache *c, struct cache_slab *s)
{
	s->seal = seal_of(c, s);
	s->nfree = (uint32_t)c->nobjects;
	s->nlost = 0;
	link_init(c, &s->link);
	for (size_t w = 0; w < words_of(c->nobjects); w++)
		s->free[w] = ~(uint64_t)0;
	if (c->nobjects % 64)
		s->free[c->nobjects / 64] >>= 64 - c->nobjects % 64;
	for (size_t i = 0; MM_HARDEN && i < c->nobjects; i++)
		mark_free(c, object_at(c, s, i));
	for (size_t i = 0; MM_HARDEN < 2 && c->construct && i < c->nobjects; i++)
		c->construct(object_at(c, s, i));
}

static bool grow(struct cache *c)
{
	struct page_request req = {
		.npages = c->slab_bytes >> MM_PAGE_SHIFT,
		.align = c->slab_bytes,
		.usage = PAGE_USAGE_HEAP,
	};
	struct cache_slab *s;
	unsigned long state;
	virt_addr_t va;

	if (global_allocator_request_pages(global_allocator(), req, &va) != ALLOC_OK)
		return false;
	s = virt_ptr(va);
	init_slab(c, s);
	state = mm_port_lock(&c->lock);
	list_add(&c->list[EMPTY], &s->link);
	c->nslabs++;
	c->nempty++;
	c->nfree += c->nobjects;
	mm_port_unlock(&c->lock, state);
	return true;
}

/*
 * Before its pages serve others: no mark stays behind, which a copy of what was never written could
 * bring into a live object, that would then look free. Level 2: what was written meanwhile shows.
 */
static void retire_slab(const struct cache *c, const struct cache_slab *s)
{
	for (size_t i = 0; MM_HARDEN && i < c->nobjects; i++) {
		void *p = object_at(c, s, i);

		if (MM_HARDEN >= 2 && lies_here(s, i) && !is_untouched(c, p))
			report(c, p, MM_FAULT_WRITE_AFTER_FREE, NULL);
		*mark_of(c, p) = 0;
	}
}

/* The number of pages given back. */
static size_t finish(const struct cache *c, const struct cache_after *after)
{
	size_t npages = c->slab_bytes >> MM_PAGE_SHIFT, n = 0;

	for (struct cache_link *l = after->gone, *next; l; l = next) {
		next = l->next;
		retire_slab(c, slab_of(l));
		(void)global_allocator_dealloc_heap_pages(global_allocator(), virt_addr(slab_of(l)),
							  npages);
		n += npages;
	}
	if (unlikely(after->kind != MM_FAULT_NONE))
		report(c, after->broken, after->kind, NULL);
	return n;
}

size_t cache_shrink(struct cache *c)
{
	struct cache_after after = {0};
	unsigned int cpu;
	unsigned long state;

	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		mm_store_relaxed(&c->cpu[i].asked, 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		mm_store_relaxed(&c->cpu[i].limit, 0);
	state = mm_port_pin(&cpu);
	attend(c, part_of(c, cpu), &after);
	mm_port_unpin(state, cpu);
	return finish(c, &after);
}

/* --- Alloc and free --- */

static void *take(struct cache *c, struct cache_after *after)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	struct cache_cpu *m = part_of(c, cpu);
	void *p = NULL;

	attend(c, m, after);
	if (!m->count)
		refill(c, m, after);
	if (m->count) {
		set_count(m, m->count - 1);
		p = m->object[m->count];
	}
	mm_port_unpin(state, cpu);
	return p;
}

/* Another CPU may take all of a new slab: then it grows again, until pages run out. */
OUT_OF_LINE void *alloc_slow(struct cache *c, const void *caller)
{
	void *p;

	if (!caller)
		caller = CALLER;
	do {
		struct cache_after after = {0};

		p = take(c, &after);
		(void)finish(c, &after); /* first, as a slab may be made of what this gives back */
	} while (p ? !revive(c, p, caller) : grow(c));
	return p;
}

void *cache_alloc(struct cache *c)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);
	struct cache_cpu *m = part_of(c, cpu);
	size_t n = m->count - 1;
	void *p;

	if (unlikely(n >= mm_load_relaxed(&m->limit))) {
		mm_port_unpin(state, cpu);
		return alloc_slow(c, PASSED_CALLER);
	}
	p = m->object[n];
	set_count(m, n);
	if (MM_HARDEN)
		*(word_t *)p = 0;
	mm_port_unpin(state, cpu);
	return p;
}

void *cache_alloc_zeroed(struct cache *c)
{
	void *p = cache_alloc(c);

	return p ? __builtin_memset(p, 0, c->size) : NULL;
}

/* Pre: pinned; not afterwards. */
OUT_OF_LINE enum alloc_result free_slow(struct cache *c, void *p, unsigned long state,
					unsigned int cpu, const void *caller)
{
	struct cache_cpu *m = part_of(c, cpu);
	struct cache_after after = {0};
	enum mm_fault_kind fault;

	if (!caller)
		caller = CALLER;
	attend(c, m, &after);
	fault = examine(c, m, p, &after);
	if (fault == MM_FAULT_NONE)
		fault = retire(c, p);
	if (fault == MM_FAULT_NONE) {
		void *next = wait_first(m, p);

		if (next)
			push(c, m, next, &after);
	}
	mm_port_unpin(state, cpu);
	(void)finish(c, &after);
	if (fault == MM_FAULT_NONE)
		return ALLOC_OK;
	report(c, p, fault, caller);
	return p && fault != MM_FAULT_MISALIGNED ? ALLOC_NOT_ALLOCATED : ALLOC_INVALID_PARAM;
}

/* All that can be said without a look at a record. False: nothing was done. */
static inline bool free_fast(const struct cache *c, struct cache_cpu *m, void *p)
{
	size_t n = m->count;

	if (unlikely(n >= mm_load_relaxed(&m->limit) || !is_object(c, m, p) ||
		     (MM_HARDEN && *(word_t *)p == c->secret)))
		return false;
	if (MM_HARDEN)
		*(word_t *)p = c->secret;
	m->object[n] = p;
	set_count(m, n + 1);
	return true;
}

/* Most often the object is of another slab than the last one. Pre: pinned; not afterwards. */
OUT_OF_LINE enum alloc_result free_elsewhere(struct cache *c, void *p, unsigned long state,
					     unsigned int cpu, const void *caller)
{
	struct cache_cpu *m = part_of(c, cpu);

	if (!know_slab(c, m, p) || !free_fast(c, m, p))
		return free_slow(c, p, state, cpu, caller);
	mm_port_unpin(state, cpu);
	return ALLOC_OK;
}

enum alloc_result cache_free(struct cache *c, void *object)
{
	unsigned int cpu;
	unsigned long state = mm_port_pin(&cpu);

	if (unlikely(!free_fast(c, part_of(c, cpu), object)))
		return free_elsewhere(c, object, state, cpu, PASSED_CALLER);
	mm_port_unpin(state, cpu);
	return ALLOC_OK;
}

/* --- Creation and end --- */

/* All of them: nobody is asked twice, and what one gives may be too little, or in the wrong place.
 */
static bool reclaim_caches(void *ctx, size_t npages)
{
	unsigned long state = mm_port_lock(&registry_lock);
	size_t n = 0;

	(void)ctx;
	(void)npages;
	for (struct cache *c = registry; c; c = c->next)
		n += cache_shrink(c);
	mm_port_unlock(&registry_lock, state);
	return n;
}

/* The first cache ever brings the hook, which stays: it might be running when it was removed. */
static void add_to_registry(struct cache *c)
{
	static struct reclaim_hook hook;
	unsigned long state = mm_port_lock(&registry_lock);
	struct cache **end = &registry;

	while (*end)
		end = &(*end)->next;
	*end = c;
	if (!hook.reclaim) {
		hook.reclaim = reclaim_caches;
		global_allocator_add_reclaim(global_allocator(), &hook);
	}
	mm_port_unlock(&registry_lock, state);
}

static struct layout layout_of_cache(void)
{
	return (struct layout){sizeof(struct cache), _Alignof(struct cache)};
}

static void init_cpus(struct cache *c)
{
	size_t depth = CACHE_KEPT_BYTES / c->stride;

	c->depth = depth > CACHE_DEPTH ? CACHE_DEPTH : depth < 2 ? 2 : depth;
	c->fast_limit = MM_HARDEN >= 2 || c->mark ? 0 : c->depth;
	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		c->cpu[i].base = NO_SLAB;
}

/* Pre: all zero but what the caller said. */
static void init_cache(struct cache *c)
{
	c->secret = mix((uintptr_t)c ^ mix(__atomic_fetch_add(&created, 1, __ATOMIC_RELAXED)));
	c->random = mix(c->secret);
	c->body = c->size < sizeof(word_t) ? sizeof(word_t) : c->size;
	if (MM_HARDEN == 1 && c->construct)
		c->mark = mm_align_up(c->body, sizeof(word_t));
	c->stride =
		mm_align_up(c->mark ? c->mark + sizeof(word_t) : c->body + CANARY_BYTES, c->align);
	choose_layout(c);
	init_cpus(c);
	for (unsigned int i = 0; i < LISTS; i++)
		link_init(c, &c->list[i]);
}

struct cache *cache_create_constructed(const char *name, size_t size, size_t align,
				       void (*construct)(void *object))
{
	struct cache *c;
	void *p;

	if (!name || !size || size > CACHE_MAX_SIZE || !mm_is_pow2(align) ||
	    align > CACHE_MAX_ALIGN)
		return NULL;
	if (global_alloc_zeroed(layout_of_cache(), &p) != ALLOC_OK)
		return NULL;
	c = p;
	c->name = name;
	c->size = size;
	c->align = align < CACHE_MIN_ALIGN ? CACHE_MIN_ALIGN : align;
	c->construct = construct;
	init_cache(c);
	add_to_registry(c);
	return c;
}

struct cache *cache_create(const char *name, size_t size, size_t align)
{
	return cache_create_constructed(name, size, align, NULL);
}

/*
 * Take a cache without live objects out of the registry, with everything back in its
 * slab; else only that. Under the registry's lock nobody reclaims from it.
 */
static size_t retire_cache(struct cache *c, struct cache_after *after)
{
	unsigned long state = mm_port_lock(&registry_lock);
	struct cache **at = &registry;
	size_t live;

	for (unsigned int i = 0; i < MM_MAX_CPUS; i++)
		drain(c, &c->cpu[i], after);
	live = cache_get_stats(c).live;
	while (*at != c)
		at = &(*at)->next;
	if (!live)
		*at = c->next;
	mm_port_unlock(&registry_lock, state);
	return live;
}

size_t cache_destroy(struct cache *c)
{
	struct cache_after after = {0};
	size_t live = retire_cache(c, &after);

	if (live) {
		(void)finish(c, &after);
		mm_port_log(MM_LOG_WARN, "cache %s: not destroyed, %zu objects are alive", c->name,
			    live);
		return live;
	}
	for (unsigned int i = 0; i < LISTS; i++)
		while (c->list[i].next != &c->list[i])
			detach_first(c, i, &after);
	(void)finish(c, &after);
	(void)global_dealloc(c, layout_of_cache());
	return 0;
}

/* --- Figures and checks --- */

static size_t count_waiting(const struct cache *c)
{
	size_t n = 0;

	for (unsigned int i = 0; i < MM_MAX_CPUS; i++) {
		n += mm_load_relaxed(&c->cpu[i].count);
		for (uint32_t j = 0; j < CACHE_WAITING; j++)
			n += __atomic_load_n(&c->cpu[i].waiting[j], __ATOMIC_RELAXED) != NULL;
	}
	return n;
}

struct cache_stats cache_get_stats(struct cache *c)
{
	struct cache_stats s = {
		.name = c->name,
		.size = c->size,
		.align = c->align,
		.stride = c->stride,
		.slab_bytes = c->slab_bytes,
		.slab_objects = c->nobjects,
		.waiting = count_waiting(c),
	};
	unsigned long state = mm_port_lock(&c->lock);
	size_t unused = c->nfree + s.waiting + c->nlost, all = c->nslabs * c->nobjects;

	s.lost = c->nlost;
	s.nslabs = c->nslabs;
	s.nempty = c->nempty;
	s.nbroken = c->nbroken;
	mm_port_unlock(&c->lock, state);
	s.live = all > unused ? all - unused : 0;
	s.waste = s.nslabs * waste_of_slab(c);
	return s;
}

bool cache_stats_at(size_t i, struct cache_stats *out)
{
	unsigned long state = mm_port_lock(&registry_lock);
	struct cache *c = registry;

	while (c && i--)
		c = c->next;
	if (c)
		*out = cache_get_stats(c);
	mm_port_unlock(&registry_lock, state);
	return c;
}

void cache_log_all(void)
{
	struct cache_stats s;

	for (size_t i = 0; cache_stats_at(i, &s); i++)
		mm_port_log(MM_LOG_INFO,
			    "cache %s: size %zu, live %zu, waiting %zu, slabs %zu of %zu KiB "
			    "(%zu empty, %zu broken), waste %zu, lost %zu",
			    s.name, s.size, s.live, s.waiting, s.nslabs, s.slab_bytes / 1024,
			    s.nempty, s.nbroken, s.waste, s.lost);
}

/* Is this a free object of ours that lies in no slab? */
static bool is_kept(const struct cache *c, const void *p)
{
	const struct cache_slab *s = slab_at(c, p);

	if (!is_sealed(c, s) || !is_object_of(c, first_object(c, s), p) || !is_untouched(c, p))
		return false;
	return s->nfree == LOST || !lies_here(s, index_of(c, s, p));
}

static bool is_first(const struct cache_cpu *m, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (m->object[i] == m->object[n])
			return false;
	return true;
}

/* What the CPU keeps: the first object that is wrong, or is there twice. */
static const void *check_part(const struct cache *c, const struct cache_cpu *m)
{
	for (size_t i = 0; i < m->count; i++)
		if (!is_kept(c, m->object[i]) || !is_first(m, i))
			return m->object[i];
	for (size_t i = 0; i < CACHE_WAITING; i++)
		if (m->waiting[i] && !is_kept(c, m->waiting[i]))
			return m->waiting[i];
	return NULL;
}

const void *cache_check(struct cache *c)
{
	struct cache_after found = {0};
	unsigned long state = mm_port_lock(&c->lock);

	(void)check_slabs(c, &found);
	for (unsigned int i = 0; !found.broken && i < MM_MAX_CPUS; i++)
		found.broken = check_part(c, &c->cpu[i]);
	mm_port_unlock(&c->lock, state);
	return found.broken;
}
