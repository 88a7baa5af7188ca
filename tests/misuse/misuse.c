/* SPDX-License-Identifier: MIT */
/*
 * Commits each misuse of memory on the global allocator over each engine, and says
 * when it was found: at the call, at a later use, by a walk over everything, or not at all.
 * Every case runs in a process of its own, for what is not found may crash, and always at the
 * same addresses. One hardening level per build; scripts/misuse-table.sh makes a table of all.
 *
 * The exit status says whether each verdict is one that its level promises (broken_promise).
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/global.h>

#define REGION	((size_t)4 << 20)
#define SMALL	((size_t)104)
#define LARGE	((size_t)100000)
#define NBLOCKS 40u
#define CHURN	400u

enum phase { AT_CALL, AT_USE, PHASES };

struct scene {
	struct global_allocator *g, *other;
	uint8_t *block[NBLOCKS]; /* live, small, side by side as far as the engine puts them so */
	uint8_t *p;		 /* the one in the middle */
	uint8_t *large;
	uint64_t *memory; /* all that the allocator has */
	enum phase phase;
	unsigned long faults;
	enum mm_fault_kind found[PHASES];
};

static const struct layout small = {SMALL, 8}, large = {LARGE, 8};
static struct global_allocator allocators[2];
static uint8_t unmanaged[64];

/* What the last operation led to: the first fault of a phase counts. */
static void note(struct scene *s)
{
	if (mm_fault_count() != s->faults && s->found[s->phase] == MM_FAULT_NONE)
		s->found[s->phase] = mm_fault_last().kind;
	s->faults = mm_fault_count();
}

static void *get(struct scene *s, struct global_allocator *g, struct layout l)
{
	void *p = NULL;

	if (global_allocator_alloc(g, l, &p) != ALLOC_OK)
		p = NULL;
	note(s);
	return p;
}

static void put(struct scene *s, void *p, size_t size, size_t align)
{
	(void)global_allocator_dealloc(s->g, p, (struct layout){size, align});
	note(s);
}

/* As if the block at p had this size: it gets 8 bytes more. */
static void regrow(struct scene *s, void *p, size_t size)
{
	struct layout l = {size, 8};
	void *q;
	enum alloc_result r = global_allocator_realloc(s->g, p, l, size + 8, &q);

	(void)r; /* what was found says it */
	note(s);
}

/* --- Misuse ------------------------------------------------------------------ */

static void double_free(struct scene *s)
{
	put(s, s->p, SMALL, 8);
	put(s, s->p, SMALL, 8);
}

static void double_free_later(struct scene *s)
{
	put(s, s->p, SMALL, 8);
	for (unsigned int i = 0; i < 10; i++)
		put(s, s->block[i], SMALL, 8), s->block[i] = NULL;
	put(s, s->p, SMALL, 8);
}

/* The allocator sees one free too many only when the new owner frees. */
static void double_free_reused(struct scene *s)
{
	uint8_t *q;

	put(s, s->p, SMALL, 8);
	q = get(s, s->g, small);
	put(s, s->p, SMALL, 8);
	s->p = q;
}

static void double_free_large(struct scene *s)
{
	put(s, s->large, LARGE, 8);
	put(s, s->large, LARGE, 8);
	s->large = NULL;
}

static void resize_freed(struct scene *s)
{
	put(s, s->p, SMALL, 8);
	regrow(s, s->p, SMALL);
}
static void resize_middle(struct scene *s)
{
	regrow(s, s->p + 32, SMALL);
}
static void resize_far(struct scene *s)
{
	regrow(s, s->p, 3 * SMALL);
}
static void resize_far_large(struct scene *s)
{
	regrow(s, s->large, 2 * LARGE);
}

static void middle(struct scene *s)
{
	put(s, s->p + 32, SMALL, 8);
}
static void middle_large(struct scene *s)
{
	put(s, s->large + MM_PAGE_SIZE, LARGE, 8);
}
static void misaligned(struct scene *s)
{
	put(s, s->p + 3, SMALL, 8);
}
static void null(struct scene *s)
{
	put(s, NULL, SMALL, 8);
}
static void unmanaged_memory(struct scene *s)
{
	put(s, unmanaged, SMALL, 8);
}
static void size_near(struct scene *s)
{
	put(s, s->p, SMALL - 3, 8);
}
static void size_far(struct scene *s)
{
	put(s, s->p, 3 * SMALL, 8);
}
static void size_large(struct scene *s)
{
	put(s, s->large, LARGE - 3, 8);
}
static void size_small_as_large(struct scene *s)
{
	put(s, s->p, LARGE, 8);
}

static void stack_memory(struct scene *s)
{
	uint64_t local[32] = {0};

	put(s, &local[8], SMALL, 8);
}

static void page_memory(struct scene *s)
{
	virt_addr_t page;

	if (global_allocator_alloc_pages(s->g, 1, MM_PAGE_SIZE, &page) == ALLOC_OK)
		put(s, (char *)virt_ptr(page) + 64, SMALL, 8);
}

static void other_allocator(struct scene *s)
{
	put(s, get(s, s->other, small), SMALL, 8);
}

static void alignment_impossible(struct scene *s)
{
	for (size_t align = 16; align <= MM_PAGE_SIZE; align *= 2)
		if ((uintptr_t)s->p & (align - 1)) {
			put(s, s->p, SMALL, align);
			return;
		}
}

static void alignment_possible(struct scene *s)
{
	for (unsigned int i = 0; i < NBLOCKS; i++)
		if (!((uintptr_t)s->block[i] & 15)) {
			put(s, s->block[i], SMALL, 16);
			return;
		}
}

static void past_end(struct scene *s)
{
	s->p[SMALL] ^= 0x5a;
}
static void before_start(struct scene *s)
{
	s->p[-1] ^= 0x5a;
}
static void past_end_large(struct scene *s)
{
	s->large[LARGE] ^= 0x5a;
}
static void before_start_large(struct scene *s)
{
	s->large[-1] ^= 0x5a;
}
static void past_end_much(struct scene *s)
{
	__builtin_memset(s->p + SMALL, 0x5a, 64);
}
static void header(struct scene *s)
{
	__builtin_memset(s->p - 8, 0x5a, 8);
}

static void free_and_write(struct scene *s, size_t at, size_t n)
{
	put(s, s->p, SMALL, 8);
	for (size_t i = at; i < at + n; i++)
		s->p[i] ^= 0x5a;
	s->p = NULL;
}

static void write_after_free_start(struct scene *s)
{
	free_and_write(s, 0, 8);
}
static void write_after_free_middle(struct scene *s)
{
	free_and_write(s, 56, 1);
}

/* Smash the first word that differs from `before` and lies outside of what was freed. */
static void smash_changed(struct scene *s, const uint64_t *before, const void *freed, size_t nbytes)
{
	for (size_t i = 0; i < REGION / 8; i++) {
		if (s->memory[i] == before[i] ||
		    (uintptr_t)&s->memory[i] - (uintptr_t)freed < nbytes)
			continue;
		s->memory[i] ^= 0x5a5a5a5a5a5a5a5a;
		return;
	}
}

static uint64_t *snapshot(const struct scene *s)
{
	uint64_t *copy = malloc(REGION);

	if (!copy)
		exit(2);
	return __builtin_memcpy(copy, s->memory, REGION);
}

/*
 * Where an engine keeps its records is its own business: it shows when it writes them. It
 * does so at the latest when it has kept some freed blocks for reuse.
 */
static void engine_record(struct scene *s)
{
	uint64_t *before;

	for (unsigned int i = 0; i < 10; i++)
		put(s, s->block[i], SMALL, 8), s->block[i] = NULL;
	before = snapshot(s);
	put(s, s->p, SMALL, 8);
	smash_changed(s, before, s->p, SMALL);
	s->p = NULL;
}

static void page_bitmap(struct scene *s)
{
	uint64_t *before = snapshot(s);
	virt_addr_t pages;

	if (global_allocator_alloc_pages(s->g, 2, MM_PAGE_SIZE, &pages) == ALLOC_OK)
		smash_changed(s, before, virt_ptr(pages), 2 * MM_PAGE_SIZE);
}

/* What a write may hit: everything that belongs to nobody but the allocator is its metadata. */
#define TLSF_DATA  1u
#define SLAB_DATA  2u
#define BUDDY_DATA 4u
#define ALL_DATA   7u

static const struct misuse {
	const char *what;
	void (*commit)(struct scene *s);
	enum { CALL, WRITE, WRITE_BEFORE_LARGE } kind;
	unsigned int metadata; /* of these engines, that a write hits */
} misuses[] = {
	{"double free at once", double_free, CALL, 0},
	{"double free after other frees", double_free_later, CALL, 0},
	{"double free after reuse", double_free_reused, CALL, 0},
	{"double free, large block", double_free_large, CALL, 0},
	{"pointer into a block", middle, CALL, 0},
	{"pointer into a large block", middle_large, CALL, 0},
	{"misaligned pointer", misaligned, CALL, 0},
	{"null", null, CALL, 0},
	{"pointer to the stack", stack_memory, CALL, 0},
	{"pointer to static memory", unmanaged_memory, CALL, 0},
	{"pointer into a page of someone else", page_memory, CALL, 0},
	{"block of another allocator", other_allocator, CALL, 0},
	{"size 3 bytes too small", size_near, CALL, 0},
	{"size three times too large", size_far, CALL, 0},
	{"size of a large block for a small one", size_small_as_large, CALL, 0},
	{"size 3 bytes too small, large block", size_large, CALL, 0},
	{"alignment that the address lacks", alignment_impossible, CALL, 0},
	{"alignment that the address has", alignment_possible, CALL, 0},
	{"realloc of a freed block", resize_freed, CALL, 0},
	{"realloc of a pointer into a block", resize_middle, CALL, 0},
	{"realloc, size three times too large", resize_far, CALL, 0},
	{"realloc, size twice too large, large block", resize_far_large, CALL, 0},
	{"1 byte written past the end", past_end, WRITE, 0},
	{"64 bytes written past the end", past_end_much, WRITE, 0},
	{"1 byte written before the start", before_start, WRITE, 0},
	{"1 byte written past the end, large block", past_end_large, WRITE, 0},
	{"1 byte written before the start, large block", before_start_large, WRITE_BEFORE_LARGE, 0},
	{"8 bytes written after free, at the start (a link)", write_after_free_start, WRITE,
	 SLAB_DATA},
	{"1 byte written after free, in the middle", write_after_free_middle, WRITE, 0},
	{"8 bytes before the start smashed (a header)", header, WRITE, 0},
	{"engine's record of a freed block smashed", engine_record, WRITE, ALL_DATA},
	{"page allocator's record smashed (a bitmap)", page_bitmap, WRITE, ALL_DATA},
};
#define NMISUSES (sizeof(misuses) / sizeof(misuses[0]))

/* --- Running ----------------------------------------------------------------- */

static struct global_allocator *start(unsigned int i, const struct byte_ops *ops, void *memory)
{

	allocators[i] = (struct global_allocator)GLOBAL_ALLOCATOR_INIT(ops);
	if (!memory || global_allocator_init(&allocators[i], virt_addr(memory), REGION) != ALLOC_OK)
		exit(2);
	return &allocators[i];
}

static void set_scene(struct scene *s, const struct byte_ops *ops)
{
	s->memory = aligned_alloc(1 << 16, REGION);
	s->g = start(0, ops, s->memory);
	s->other = start(1, ops, aligned_alloc(1 << 16, REGION));
	for (unsigned int i = 0; i < NBLOCKS; i++)
		s->block[i] = get(s, s->g, small);
	s->p = s->block[NBLOCKS / 2];
	s->block[NBLOCKS / 2] = NULL;
	s->large = get(s, s->g, large);
}

/* What an innocent program goes on with. */
static void use(struct scene *s)
{
	static uint8_t *churn[CHURN];
	virt_addr_t pages;

	if (global_allocator_alloc_pages(s->g, 3, MM_PAGE_SIZE, &pages) == ALLOC_OK)
		(void)global_allocator_dealloc_pages(s->g, pages, 3);
	note(s);
	if (s->p)
		put(s, s->p, SMALL, 8);
	for (unsigned int i = 0; i < CHURN; i++)
		churn[i] = get(s, s->g, (struct layout){i % 3 ? SMALL : 40 + i, 8});
	for (unsigned int i = 0; i < NBLOCKS; i++)
		if (s->block[i])
			put(s, s->block[i], SMALL, 8);
	for (unsigned int i = 0; i < CHURN; i++)
		if (churn[i])
			put(s, churn[i], i % 3 ? SMALL : 40 + i, 8);
	if (s->large)
		put(s, s->large, LARGE, 8);
}

/* When a misuse was found. */
enum found { NEVER, BY_CALL, BY_USE, BY_WALK, CRASH };

struct verdict {
	enum found found;
	enum mm_fault_kind kind;
};

/* In a child: commit, and then go on, or walk. At level 0 what follows is as luck has it. */
static struct verdict run(const struct byte_ops *ops, const struct misuse *m, bool walk)
{
	struct scene s = {0};

	mm_fault_expect(true);
	set_scene(&s, ops);
	m->commit(&s);
	if (s.found[AT_CALL] != MM_FAULT_NONE)
		return (struct verdict){BY_CALL, s.found[AT_CALL]};
	if (!MM_HARDEN)
		return (struct verdict){NEVER, MM_FAULT_NONE};
	if (walk)
		return (struct verdict){global_allocator_check(s.g) ? BY_WALK : NEVER,
					MM_FAULT_NONE};
	s.phase = AT_USE;
	use(&s);
	return (struct verdict){s.found[AT_USE] != MM_FAULT_NONE ? BY_USE : NEVER, s.found[AT_USE]};
}

static struct verdict run_in_child(const struct byte_ops *ops, const struct misuse *m, bool walk)
{
	struct verdict v = {CRASH, MM_FAULT_NONE};
	int pipes[2];
	pid_t child;

	if (pipe(pipes))
		exit(2);
	child = fork();
	if (!child) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(2);
		alarm(5);
		v = run(ops, m, walk);
		_exit(write(pipes[1], &v, sizeof(v)) != sizeof(v));
	}
	close(pipes[1]);
	if (child < 0 || waitpid(child, NULL, 0) < 0)
		exit(2);
	if (read(pipes[0], &v, sizeof(v)) != sizeof(v))
		v.found = CRASH;
	close(pipes[0]);
	return v;
}

/* A program that goes on meets it first; a walk is for what it does not meet. */
static struct verdict judge(const struct byte_ops *ops, const struct misuse *m)
{
	struct verdict v = run_in_child(ops, m, false);

	return v.found == NEVER && MM_HARDEN > 0 ? run_in_child(ops, m, true) : v;
}

/*
 * From level 1 on a wrong call never goes unnoticed, nor does a write into metadata, and
 * nothing crashes; from level 2 on a write into or beside a block does not either, but for
 * one before a large block.
 */
static bool broken_promise(const struct misuse *m, unsigned int engine, struct verdict v)
{
	if (!MM_HARDEN || v.found == BY_CALL || v.found == BY_USE || v.found == BY_WALK)
		return false;
	if (v.found == CRASH || m->kind == CALL || m->metadata >> engine & 1)
		return true;
	return MM_HARDEN >= 2 && m->kind == WRITE;
}

static void print_verdict(struct verdict v)
{
	if (v.found == BY_CALL)
		printf("call: %s\n", mm_fault_name(v.kind));
	else if (v.found == BY_USE)
		printf("use: %s\n", mm_fault_name(v.kind));
	else
		printf("%s\n", v.found == BY_WALK ? "walk" : v.found == CRASH ? "crash" : "-");
}

int main(int argc, char **argv)
{
	static const struct byte_ops *const engines[] = {&byte_tlsf_ops, &byte_slab_ops,
							 &byte_buddy_ops};
	bool broken = false;

	(void)argc;
	if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) {
		personality(ADDR_NO_RANDOMIZE);
		execv("/proc/self/exe", argv);
		return 2;
	}
	for (unsigned int e = 0; e < 3; e++)
		for (size_t i = 0; i < NMISUSES; i++) {
			struct verdict v = judge(engines[e], &misuses[i]);

			printf("%s\t%s\t", engines[e]->name, misuses[i].what);
			print_verdict(v);
			fflush(stdout);
			if (!broken_promise(&misuses[i], e, v))
				continue;
			fprintf(stderr, "level %d, %s: %s: %s\n", MM_HARDEN, engines[e]->name,
				misuses[i].what, v.found == CRASH ? "crash" : "not found");
			broken = true;
		}
	return broken;
}
