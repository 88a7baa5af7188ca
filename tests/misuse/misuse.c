/* SPDX-License-Identifier: MIT */
/*
 * Commits each misuse of memory on the global allocator over each engine, and says
 * when it was found: at the call, at a later use, by a walk over everything, or not at all.
 * Every case runs in a process of its own, for what is not found may crash.
 * One hardening level per build; scripts/misuse-table.sh makes a table of all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/global.h>

#define REGION	((size_t)4 << 20)
#define SMALL	((size_t)104)
#define LARGE	((size_t)100000)
#define NBLOCKS 40u
#define CHURN	400u
#define CRASHED "crash or hang"
#define NOTHING "-"

enum phase { AT_CALL, AT_USE, PHASES };

struct scene {
	struct global_allocator *g, *other;
	uint8_t *block[NBLOCKS]; /* live, small, side by side as far as the engine puts them so */
	uint8_t *p;		 /* the one in the middle */
	uint8_t *large;
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
static void past_end_much(struct scene *s)
{
	__builtin_memset(s->p + SMALL, 0x5a, 64);
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

static const struct misuse {
	const char *what;
	void (*commit)(struct scene *s);
} misuses[] = {
	{"double free at once", double_free},
	{"double free after other frees", double_free_later},
	{"double free after reuse", double_free_reused},
	{"double free, large block", double_free_large},
	{"pointer into a block", middle},
	{"pointer into a large block", middle_large},
	{"misaligned pointer", misaligned},
	{"null", null},
	{"pointer to the stack", stack_memory},
	{"pointer to static memory", unmanaged_memory},
	{"pointer into a page of someone else", page_memory},
	{"block of another allocator", other_allocator},
	{"size 3 bytes too small", size_near},
	{"size three times too large", size_far},
	{"size of a large block for a small one", size_small_as_large},
	{"size 3 bytes too small, large block", size_large},
	{"alignment that the address lacks", alignment_impossible},
	{"alignment that the address has", alignment_possible},
	{"1 byte written past the end", past_end},
	{"64 bytes written past the end", past_end_much},
	{"1 byte written before the start", before_start},
	{"1 byte written past the end, large block", past_end_large},
	{"8 bytes written after free, at the start", write_after_free_start},
	{"1 byte written after free, in the middle", write_after_free_middle},
};
#define NMISUSES (sizeof(misuses) / sizeof(misuses[0]))

/* --- Running ----------------------------------------------------------------- */

static struct global_allocator *start(unsigned int i, const struct byte_ops *ops)
{
	void *memory = aligned_alloc(1 << 16, REGION);

	allocators[i] = (struct global_allocator)GLOBAL_ALLOCATOR_INIT(ops);
	if (!memory || global_allocator_init(&allocators[i], virt_addr(memory), REGION) != ALLOC_OK)
		exit(2);
	return &allocators[i];
}

static void set_scene(struct scene *s, const struct byte_ops *ops)
{
	*s = (struct scene){.g = start(0, ops), .other = start(1, ops)};
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

/* In a child: commit, and then go on, or walk. Exit status: kind, or 64 + kind found later, or 128.
 */
static int run(const struct byte_ops *ops, const struct misuse *m, bool walk)
{
	struct scene s;

	mm_fault_expect(true);
	set_scene(&s, ops);
	m->commit(&s);
	if (s.found[AT_CALL] != MM_FAULT_NONE)
		return (int)s.found[AT_CALL];
	if (walk)
		return global_allocator_check(s.g) ? 128 : 0;
	s.phase = AT_USE;
	use(&s);
	return s.found[AT_USE] != MM_FAULT_NONE ? 64 + (int)s.found[AT_USE] : 0;
}

static int run_in_child(const struct byte_ops *ops, const struct misuse *m, bool walk)
{
	int status;
	pid_t child = fork();

	if (!child) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(2);
		alarm(3);
		_exit(run(ops, m, walk));
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		exit(2);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void print_verdict(const struct byte_ops *ops, const struct misuse *m)
{
	int later = run_in_child(ops, m, false);
	int walked = later > 0 && later < 64 ? 0 : run_in_child(ops, m, true);

	printf("%s\t%s\t", ops->name, m->what);
	if (later > 0 && later < 64)
		printf("call: %s\n", mm_fault_name((enum mm_fault_kind)later));
	else if (later > 64)
		printf("use: %s\n", mm_fault_name((enum mm_fault_kind)(later - 64)));
	else if (walked == 128)
		printf("walk%s\n", later < 0 ? ", else " CRASHED : "");
	else
		printf("%s\n", later < 0 ? CRASHED : NOTHING);
}

int main(void)
{
	static const struct byte_ops *const engines[] = {&byte_tlsf_ops, &byte_slab_ops,
							 &byte_buddy_ops};

	for (unsigned int e = 0; e < 3; e++)
		for (size_t i = 0; i < NMISUSES; i++) {
			fflush(stdout);
			print_verdict(engines[e], &misuses[i]);
		}
	return 0;
}
