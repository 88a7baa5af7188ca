/* SPDX-License-Identifier: MIT */
/* The tree of free runs: see page_run.h for the theory. */
#include "page_run.h"

/* Pages of a node. */
static size_t node_pages(unsigned int level)
{
	return PAGE_LEAF << (PAGE_FAN_SHIFT * level);
}

static struct page_run free_run(unsigned int level)
{
	uint32_t n = (uint32_t)node_pages(level);

	return (struct page_run){n, n, n};
}

static uint32_t longer(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static bool same_run(const struct page_run *a, const struct page_run *b)
{
	return a->head == b->head && a->tail == b->tail && a->longest == b->longest;
}

/* --- Leaves ------------------------------------------------------------- */

/* The longest run of set bits, if it is longer than this. */
static uint32_t longest_in_word(uint64_t bits, uint32_t longest)
{
	uint64_t starts;

	if (longest >= 62) /* a longer one touches an end of the word */
		return longest;
	for (starts = page_word_runs(bits, longest + 1); starts; starts &= starts >> 1)
		longest++;
	return longest;
}

struct page_run page_leaf_sum(const uint64_t *words)
{
	struct page_run sum = {0, 0, 0};
	bool all_free = true;
	uint32_t run = 0;

	for (unsigned int k = 0; k < PAGE_LEAF_WORDS; k++) {
		uint64_t bits = words[k];

		run += page_word_head(bits);
		if (!~bits)
			continue;
		if (all_free)
			sum.head = run;
		all_free = false;
		sum.longest = longest_in_word(bits, longer(sum.longest, run));
		run = page_word_tail(bits);
	}
	if (all_free)
		sum.head = run;
	sum.tail = run;
	sum.longest = longer(sum.longest, run);
	return sum;
}

size_t page_leaf_find(const uint64_t *words, size_t from, size_t n, size_t *carry)
{
	size_t run = 0;

	for (size_t k = from / 64; k < PAGE_LEAF_WORDS; k++) {
		uint64_t bits = words[k], starts;

		if (k == from / 64)
			bits &= ~(uint64_t)0 << (from % 64);
		if (run + page_word_head(bits) >= n)
			return k * 64 - run;
		if (!~bits) {
			run += 64;
			continue;
		}
		starts = n < 64 ? page_word_runs(bits, (unsigned int)n) : 0;
		if (starts)
			return k * 64 + mm_ctz(starts);
		run = page_word_tail(bits);
	}
	*carry = run;
	return PAGE_NONE;
}

/* --- Nodes -------------------------------------------------------------- */

/* Sum up the children of a node of this level. */
static struct page_run sum_children(const struct page_run *child, unsigned int level)
{
	uint32_t whole = (uint32_t)node_pages(level - 1), run = 0, longest = 0;
	unsigned int nfree = 0;

	for (unsigned int k = 0; k < PAGE_FAN; k++) {
		uint32_t joined = run + child[k].head;

		longest = longer(longest, longer(joined, child[k].longest));
		run = child[k].head == whole ? joined : child[k].tail;
	}
	while (nfree < PAGE_FAN - 1 && child[nfree].head == whole)
		nfree++;
	return (struct page_run){nfree * whole + child[nfree].head, run, longer(longest, run)};
}

static struct page_run sum_node(const struct page_runs *t, unsigned int level, size_t i)
{
	return sum_children(&t->level[level - 1][i << PAGE_FAN_SHIFT], level);
}

static bool node_is_free(const struct page_runs *t, unsigned int level, size_t i)
{
	return t->level[level][i].head == node_pages(level);
}

void page_runs_sum(struct page_runs *t, size_t first, size_t last)
{
	for (unsigned int l = 1; l < t->levels; l++) {
		bool changed = false;

		first >>= PAGE_FAN_SHIFT;
		last >>= PAGE_FAN_SHIFT;
		for (size_t i = first; i <= last; i++) {
			struct page_run sum = sum_node(t, l, i);

			changed |= !same_run(&sum, &t->level[l][i]);
			t->level[l][i] = sum;
		}
		if (!changed)
			return;
	}
}

/* Can a node that was `old` and is `now` change the sum of its parent? Not if it never had the
 * longest run. */
static bool parent_changes(const struct page_run *parent, const struct page_run *old,
			   const struct page_run *now)
{
	return old->head != now->head || old->tail != now->tail ||
	       (old->longest != now->longest &&
		longer(old->longest, now->longest) >= parent->longest);
}

void page_runs_sum_family(struct page_runs *t, size_t family)
{
	size_t i = family;

	for (unsigned int l = 1; l < t->levels; l++, i >>= PAGE_FAN_SHIFT) {
		struct page_run old = t->level[l][i], now = sum_node(t, l, i);

		t->level[l][i] = now;
		if (l + 1 == t->levels ||
		    !parent_changes(&t->level[l + 1][i >> PAGE_FAN_SHIFT], &old, &now))
			return;
	}
}

void page_runs_open(struct page_runs *t, size_t leaf)
{
	for (unsigned int l = t->levels - 1; l > 0; l--) {
		size_t i = leaf >> (PAGE_FAN_SHIFT * l);
		struct page_run *child = &t->level[l - 1][i << PAGE_FAN_SHIFT];

		if (!node_is_free(t, l, i))
			continue;
		for (unsigned int k = 0; k < PAGE_FAN; k++)
			child[k] = free_run(l - 1);
	}
}

/* --- Search ------------------------------------------------------------- */

static struct page_spot no_spot(void)
{
	return (struct page_spot){PAGE_NONE, false};
}

/*
 * Look for n pages among the nodes [i, end) of a level; *carry pages before the
 * first are free. *at: the start of a run that crosses borders. Returns the
 * node that has the run inside; `end` when none has.
 */
static size_t search_nodes(const struct page_runs *t, unsigned int level, size_t i, size_t end,
			   size_t n, size_t *carry, size_t *at)
{
	size_t whole = node_pages(level);

	for (; i < end; i++) {
		const struct page_run *node = &t->level[level][i];

		if (*carry + node->head >= n) {
			*at = i * whole - *carry;
			return end;
		}
		if (node->longest >= n)
			return i;
		*carry = node->head == whole ? *carry + whole : node->tail;
	}
	return end;
}

/* The run of n pages inside a node that has one. */
static struct page_spot descend(const struct page_runs *t, unsigned int level, size_t i, size_t n)
{
	while (level > 0) {
		size_t first = i << PAGE_FAN_SHIFT, carry = 0;
		struct page_spot spot = no_spot();

		if (node_is_free(t, level, i))
			return (struct page_spot){i * node_pages(level), false};
		level--;
		i = search_nodes(t, level, first, first + PAGE_FAN, n, &carry, &spot.at);
		if (i == first + PAGE_FAN)
			return spot;
	}
	return (struct page_spot){i << PAGE_LEAF_SHIFT, true};
}

struct page_spot page_runs_first(const struct page_runs *t, size_t n)
{
	unsigned int top = t->levels - 1;

	return t->level[top][0].longest >= n ? descend(t, top, 0, n) : no_spot();
}

struct page_spot page_runs_next(const struct page_runs *t, size_t leaf, size_t carry, size_t n)
{
	size_t i = leaf;

	for (unsigned int l = 0; l + 1 < t->levels; l++, i >>= PAGE_FAN_SHIFT) {
		size_t end = (i | (PAGE_FAN - 1)) + 1, found;
		struct page_spot spot = no_spot();

		found = search_nodes(t, l, i + 1, end, n, &carry, &spot.at);
		if (found < end)
			return descend(t, l, found, n);
		if (spot.at != PAGE_NONE)
			return spot;
	}
	return no_spot();
}

/* --- Creation and checking ---------------------------------------------- */

/* Nodes of a level, with room for whole families. */
static size_t level_room(size_t nleaves, unsigned int level)
{
	size_t n = ((nleaves - 1) >> (PAGE_FAN_SHIFT * level)) + 1;

	return mm_align_up(n, PAGE_FAN);
}

static unsigned int level_count(size_t nleaves)
{
	unsigned int levels = 1;

	while ((nleaves - 1) >> (PAGE_FAN_SHIFT * (levels - 1)))
		levels++;
	return levels;
}

size_t page_runs_bytes(size_t nleaves)
{
	size_t n = 0;

	for (unsigned int l = 0; l < level_count(nleaves); l++)
		n += level_room(nleaves, l);
	return n * sizeof(struct page_run);
}

void page_runs_create(struct page_runs *t, void *memory, size_t nleaves)
{
	struct page_run *nodes = memory;

	t->levels = level_count(nleaves);
	for (unsigned int l = 0; l < t->levels; l++) {
		/* What lies beside the way to the last leaf is free on the left, nothing on the
		 * right. */
		size_t last = (nleaves - 1) >> (PAGE_FAN_SHIFT * l);

		t->level[l] = nodes;
		for (size_t i = last & ~(PAGE_FAN - 1); i < mm_align_up(last + 1, PAGE_FAN); i++)
			nodes[i] = i <= last ? free_run(l) : (struct page_run){0, 0, 0};
		nodes += level_room(nleaves, l);
	}
	for (unsigned int l = 1; l < t->levels; l++) {
		size_t last = (nleaves - 1) >> (PAGE_FAN_SHIFT * l);

		t->level[l][last] = sum_node(t, l, last);
	}
}

/* Is a node, or one above it, wholly free, so that those below need not be valid? */
static bool in_free_node(const struct page_runs *t, unsigned int level, size_t i)
{
	for (; level < t->levels; level++, i >>= PAGE_FAN_SHIFT)
		if (node_is_free(t, level, i))
			return true;
	return false;
}

bool page_runs_check(const struct page_runs *t, size_t nleaves)
{
	for (unsigned int l = 1; l < t->levels; l++)
		for (size_t i = 0; i <= (nleaves - 1) >> (PAGE_FAN_SHIFT * l); i++) {
			struct page_run sum;

			if (in_free_node(t, l, i))
				continue;
			sum = sum_node(t, l, i);
			if (!same_run(&sum, &t->level[l][i]))
				return false;
		}
	return true;
}
