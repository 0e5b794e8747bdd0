// SPDX-License-Identifier: GPL-2.0
/*
 * The in-memory table: records that are in the journal but not in a run yet.
 *
 * A radix tree in one arena that is allocated when the store is opened, so that committing a group allocates nothing and memory is bounded.
 *
 * The key (chunk, gen) is a string of 15 digits of 6 bits: 9 of the chunk, 6 of the generation. A node branches at one digit ("pos", counted from the last one) and
 * keeps the key of its first record: that is what all keys below it have in common above pos, so digits where nothing branches take no node. It has room for 4, 16 or
 * 64 children; one that is full is replaced by a copy of the next size. A group's records come in the order of their chunks: what one insertion
 * has looked at, the next one finds in the processor's cache, and of the rest it needs about two lines, whatever the size of the table.
 *
 * One writer inserts; records are never changed or removed until the whole table is reset, which happens when nobody else holds a reference. So
 * readers need no lock. A link (arena index and kind of what is there) is stored with release after what it leads to is complete, and loaded with acquire; a child is
 * there for readers from the moment when "nr" or "present" says so, which is stored with release, too. A node that has been replaced stays as it was: who is
 * in it misses what was inserted since, as if he had been faster.
 *
 * Memory: a node with k children stands for k - 1 of the records below it (a tree with n leaves has n - 1 = the sum of k - 1 over its nodes). With the smaller
 * ones that it has replaced a node takes 4 words of 8 bytes (k <= 4), 16 (k <= 16), 51 (k > 16): at most 4 for each of the k - 1. A record takes 3. So n records never
 * take more than 7 n words, in whatever order they come.
 *
 * Source of the structure: V. Leis, A. Kemper, T. Neumann, "The Adaptive Radix Tree", 2013.
 */
#include "internal.h"

#define DIGIT_BITS	6
#define DIGITS		(1u << DIGIT_BITS)
#define GEN_DIGITS	6	/* of 32 bits */
#define CHUNK_DIGITS	9	/* of 52: SD_MAX_CHUNKS */
#define MAX_DEPTH	(GEN_DIGITS + CHUNK_DIGITS)
#define WORDS_RECORD	7
#define KIND_BITS	3
#define MAX_WORDS	(1u << (32 - KIND_BITS))

enum kind { NONE, LEAF, NODE4, NODE16, NODE64 };

struct leaf {
	u64 chunk;
	u64 where;		/* kind and address, as on disk */
	u32 gen;
	u32 crc;
};

struct node {
	u32 chunk_low;		/* key of its first record */
	u16 chunk_mid;
	u8 chunk_high : 4;
	u8 pos : 4;
	u8 nr;			/* children; not of a NODE64 */
	u32 gen;
};

struct node4 {
	struct node n;
	u8 digit[4];		/* in the order in which they came */
	u32 child[4];
};

struct node16 {
	struct node n;
	u8 digit[16];
	u32 child[16];
};

struct node64 {
	struct node n;
	u32 present[2];		/* one bit a digit */
	u32 child[DIGITS];
};

#define WORDS(type)	DIV_ROUND_UP(sizeof(type), 8)

struct sd_mem {
	refcount_t ref;
	u32 capacity, count;
	u32 used, words;
	u32 gen_min, gen_max;
	u32 root;
	u64 *arena;
};

/* ---- links -------------------------------------------------------------------------------------- */

static enum kind kind_of(u32 link)
{
	return link & ((1u << KIND_BITS) - 1);
}

static void *at(const struct sd_mem *m, u32 link)
{
	return &m->arena[link >> KIND_BITS];
}

static u32 take(struct sd_mem *m, enum kind kind, u32 words)
{
	u32 link = m->used << KIND_BITS | kind;

	m->used += words;
	return link;
}

/* ---- keys --------------------------------------------------------------------------------------- */

static u32 digit(u64 chunk, u32 gen, u32 pos)
{
	u64 x = pos < GEN_DIGITS ? (u64)gen >> pos * DIGIT_BITS : chunk >> (pos - GEN_DIGITS) * DIGIT_BITS;

	return x & (DIGITS - 1);
}

/* The first digit that differs; the keys are not equal. */
static u32 first_difference(u64 chunk_a, u32 gen_a, u64 chunk_b, u32 gen_b)
{
	if (chunk_a != chunk_b)
		return GEN_DIGITS + (fls64(chunk_a ^ chunk_b) - 1) / DIGIT_BITS;
	return (fls64(gen_a ^ gen_b) - 1) / DIGIT_BITS;
}

static u64 chunk_of(const struct node *n)
{
	return (u64)n->chunk_high << 48 | (u64)n->chunk_mid << 32 | n->chunk_low;
}

static int compare(u64 a, u64 b)
{
	return a < b ? -1 : a > b;
}

/* A key before (-1), among (0) or behind (1) all that can be below the node, by the digits above its own. */
static int compare_above(const struct node *n, u64 chunk, u32 gen)
{
	u32 shift;

	if (n->pos >= GEN_DIGITS) {
		shift = (n->pos - GEN_DIGITS + 1) * DIGIT_BITS;
		return compare(chunk >> shift, chunk_of(n) >> shift);
	}
	shift = (n->pos + 1) * DIGIT_BITS;
	return chunk != chunk_of(n) ? compare(chunk, chunk_of(n)) : compare((u64)gen >> shift, (u64)n->gen >> shift);
}

/* ---- life --------------------------------------------------------------------------------------- */

struct sd_mem *sd_mem_alloc(u32 records)
{
	struct sd_mem *m;

	if (records > MAX_WORDS / WORDS_RECORD)
		return NULL;
	m = sd_zalloc(sizeof(*m));
	if (!m)
		return NULL;
	m->capacity = records;
	m->words = records * WORDS_RECORD;
	m->arena = sd_malloc_large((size_t)m->words * 8);
	if (!m->arena) {
		sd_free(m);
		return NULL;
	}
	refcount_set(&m->ref, 1);
	sd_mem_reset(m);
	return m;
}

void sd_mem_get(struct sd_mem *m)
{
	refcount_inc(&m->ref);
}

void sd_mem_put(struct sd_mem *m)
{
	if (!m || !refcount_dec_and_test(&m->ref))
		return;
	sd_free(m->arena);
	sd_free(m);
}

bool sd_mem_shared(struct sd_mem *m)
{
	return refcount_read(&m->ref) > 1;
}

void sd_mem_reset(struct sd_mem *m)
{
	m->root = 0;
	m->used = 0;
	m->count = 0;
	m->gen_min = U32_MAX;
	m->gen_max = 0;
}

u32 sd_mem_count(struct sd_mem *m)
{
	return m->count;
}

u32 sd_mem_room(struct sd_mem *m)
{
	return m->capacity - m->count;
}

u64 sd_mem_bytes(const struct sd_mem *m)
{
	return m ? (u64)m->words * 8 : 0;
}

u32 sd_mem_fitting(u64 bytes)
{
	return min_t(u64, sd_div64(bytes, 8 * WORDS_RECORD), MAX_WORDS / WORDS_RECORD);
}

void sd_mem_gens(struct sd_mem *m, u32 *gen_min, u32 *gen_max)
{
	*gen_min = m->gen_min;
	*gen_max = m->gen_max;
}

/* ---- inserting ------------------------------------------------------------------------------------ */

static void publish(u32 *link, u32 to)
{
	smp_store_release(link, to);	/* pairs with follow() */
}

static u32 new_leaf(struct sd_mem *m, const struct sd_rec *rec)
{
	u32 link = take(m, LEAF, WORDS(struct leaf));
	struct leaf *l = at(m, link);

	l->chunk = rec->chunk;
	l->where = (u64)rec->kind << SD_WHERE_KIND_SHIFT | rec->addr;
	l->gen = rec->gen;
	l->crc = rec->crc;
	return link;
}

static struct node *new_node(struct sd_mem *m, enum kind kind, u32 words, u64 chunk, u32 gen, u32 pos, u32 *link)
{
	struct node *n;

	*link = take(m, kind, words);
	n = at(m, *link);
	memset(n, 0, words * 8);
	n->chunk_low = (u32)chunk;
	n->chunk_mid = chunk >> 32;
	n->chunk_high = chunk >> 48;
	n->gen = gen;
	n->pos = pos;
	return n;
}

static struct node *copy_head(struct sd_mem *m, enum kind kind, u32 words, const struct node *old, u32 *link)
{
	return new_node(m, kind, words, chunk_of(old), old->gen, old->pos, link);
}

/* One more child of a node of 4 or 16. */
static void append(struct node *n, u8 *digits, u32 *children, u32 d, u32 child)
{
	children[n->nr] = child;
	digits[n->nr] = d;
	smp_store_release(&n->nr, n->nr + 1);	/* pairs with few_from() */
}

static void append4(struct node *n, u32 d, u32 child)
{
	struct node4 *n4 = container_of(n, struct node4, n);

	append(n, n4->digit, n4->child, d, child);
}

static void append16(struct node *n, u32 d, u32 child)
{
	struct node16 *n16 = container_of(n, struct node16, n);

	append(n, n16->digit, n16->child, d, child);
}

static void set64(struct node *n, u32 d, u32 child)
{
	struct node64 *n64 = container_of(n, struct node64, n);
	u32 *word = &n64->present[d / 32];

	publish(&n64->child[d], child);
	smp_store_release(word, *word | 1u << d % 32);	/* pairs with many_from() */
}

static void add_to_4(struct sd_mem *m, u32 *link, u32 d, u32 child)
{
	struct node4 *old = at(m, *link);
	struct node *n;
	u32 to, i;

	if (old->n.nr < ARRAY_SIZE(old->child)) {
		append4(&old->n, d, child);
		return;
	}
	n = copy_head(m, NODE16, WORDS(struct node16), &old->n, &to);
	for (i = 0; i < ARRAY_SIZE(old->child); i++)
		append16(n, old->digit[i], old->child[i]);
	append16(n, d, child);
	publish(link, to);
}

static void add_to_16(struct sd_mem *m, u32 *link, u32 d, u32 child)
{
	struct node16 *old = at(m, *link);
	struct node *n;
	u32 to, i;

	if (old->n.nr < ARRAY_SIZE(old->child)) {
		append16(&old->n, d, child);
		return;
	}
	n = copy_head(m, NODE64, WORDS(struct node64), &old->n, &to);
	for (i = 0; i < ARRAY_SIZE(old->child); i++)
		set64(n, old->digit[i], old->child[i]);
	set64(n, d, child);
	publish(link, to);
}

/* The node at *@link has no child for this digit yet. */
static void add_child(struct sd_mem *m, u32 *link, u32 d, u32 child)
{
	switch (kind_of(*link)) {
	case NODE4:
		add_to_4(m, link, d, child);
		break;
	case NODE16:
		add_to_16(m, link, d, child);
		break;
	default:
		set64(at(m, *link), d, child);
	}
}

/* What is at *@link has (chunk, gen) among its keys, or before or behind the new record's from some digit on: there it branches now. */
static void split(struct sd_mem *m, u32 *link, u64 chunk, u32 gen, const struct sd_rec *rec)
{
	u32 pos = first_difference(chunk, gen, rec->chunk, rec->gen), to;
	struct node *n = new_node(m, NODE4, WORDS(struct node4), chunk, gen, pos, &to);

	append4(n, digit(chunk, gen, pos), *link);
	append4(n, digit(rec->chunk, rec->gen, pos), new_leaf(m, rec));
	publish(link, to);
}

/* Where the writer goes on below a node; NULL: there is no child for this digit. */
static u32 *child_link(struct sd_mem *m, u32 link, u32 d)
{
	struct node *n = at(m, link);
	u8 *digits;
	u32 *children, i;

	if (kind_of(link) == NODE64) {
		children = container_of(n, struct node64, n)->child;
		return children[d] ? &children[d] : NULL;
	}
	digits = kind_of(link) == NODE4 ? container_of(n, struct node4, n)->digit : container_of(n, struct node16, n)->digit;
	children = kind_of(link) == NODE4 ? container_of(n, struct node4, n)->child : container_of(n, struct node16, n)->child;
	for (i = 0; i < n->nr; i++) {
		if (digits[i] == d)
			return &children[i];
	}
	return NULL;
}

/* False: the key is there already. */
static bool insert(struct sd_mem *m, const struct sd_rec *rec)
{
	u32 *link = &m->root, *next;

	while (*link && kind_of(*link) != LEAF) {
		struct node *n = at(m, *link);
		u32 d = digit(rec->chunk, rec->gen, n->pos);

		if (compare_above(n, rec->chunk, rec->gen)) {
			split(m, link, chunk_of(n), n->gen, rec);
			return true;
		}
		next = child_link(m, *link, d);
		if (!next) {
			add_child(m, link, d, new_leaf(m, rec));
			return true;
		}
		link = next;
	}
	if (*link) {
		struct leaf *l = at(m, *link);

		if (l->chunk == rec->chunk && l->gen == rec->gen)
			return false;
		split(m, link, l->chunk, l->gen, rec);
	} else {
		publish(link, new_leaf(m, rec));
	}
	return true;
}

/* ---- reading -------------------------------------------------------------------------------------- */

static u32 follow(const u32 *link)
{
	return smp_load_acquire(link);	/* pairs with publish() */
}

/* The child with the smallest digit >= @from, and that digit in *@d; 0: none. */
static u32 few_from(const struct node *n, const u8 *digits, const u32 *children, u32 from, u32 *d)
{
	u32 nr = smp_load_acquire(&n->nr), best = DIGITS, i, at = 0;	/* pairs with append() */

	for (i = 0; i < nr; i++) {
		if (digits[i] >= from && digits[i] < best) {
			best = digits[i];
			at = i;
		}
	}
	*d = best;
	return best < DIGITS ? follow(&children[at]) : 0;
}

static u32 many_from(const struct node64 *n, u32 from, u32 *d)
{
	u32 i, bits;

	for (i = from / 32; i < ARRAY_SIZE(n->present); i++, from = 0) {
		bits = smp_load_acquire(&n->present[i]) & ~0u << from % 32;	/* pairs with set64() */
		if (!bits)
			continue;
		*d = i * 32 + __ffs64(bits);
		return follow(&n->child[*d]);
	}
	return 0;
}

static u32 child_from(const struct sd_mem *m, u32 link, u32 from, u32 *d)
{
	const struct node *n = at(m, link);
	const struct node4 *n4;
	const struct node16 *n16;

	if (from >= DIGITS)
		return 0;
	switch (kind_of(link)) {
	case NODE4:
		n4 = container_of(n, struct node4, n);
		return few_from(n, n4->digit, n4->child, from, d);
	case NODE16:
		n16 = container_of(n, struct node16, n);
		return few_from(n, n16->digit, n16->child, from, d);
	default:
		return many_from(container_of(n, struct node64, n), from, d);
	}
}

/* Where a reader is: the nodes above him, and in each the digit that comes next. */
struct walk {
	u32 depth;
	u32 node[MAX_DEPTH];
	u8 next[MAX_DEPTH];
};

/* The leaf behind the one before, 0: that was the last one. */
static u32 next_leaf(const struct sd_mem *m, struct walk *w)
{
	while (w->depth) {
		u32 top = w->depth - 1, d, link = child_from(m, w->node[top], w->next[top], &d);

		if (!link) {
			w->depth--;
			continue;
		}
		w->next[top] = d + 1;
		if (kind_of(link) == LEAF)
			return link;
		w->node[w->depth] = link;
		w->next[w->depth++] = 0;
	}
	return 0;
}

static bool leaf_before(const struct leaf *l, u64 chunk, u32 gen)
{
	return l->chunk < chunk || (l->chunk == chunk && l->gen < gen);
}

/* The first leaf with this key or a higher one, 0: none. */
static u32 first_leaf(const struct sd_mem *m, struct walk *w, u64 chunk, u32 gen)
{
	u32 link = follow(&m->root);

	w->depth = 0;
	while (link && kind_of(link) != LEAF) {
		const struct node *n = at(m, link);
		int c = compare_above(n, chunk, gen);
		u32 want = digit(chunk, gen, n->pos), d;

		if (c > 0)
			return next_leaf(m, w);
		w->node[w->depth] = link;
		w->next[w->depth++] = c ? 0 : want;
		if (c)
			return next_leaf(m, w);
		link = child_from(m, link, want, &d);
		if (!link || d != want)
			return next_leaf(m, w);
		w->next[w->depth - 1] = want + 1;
	}
	if (link && leaf_before(at(m, link), chunk, gen))
		return next_leaf(m, w);
	return link;
}

u32 sd_mem_fetch(struct sd_mem *m, u64 chunk, u32 gen, struct sd_rec *recs, u32 max)
{
	struct walk w;
	u32 link = max ? first_leaf(m, &w, chunk, gen) : 0, nr = 0;

	while (link) {
		const struct leaf *l = at(m, link);

		recs[nr].chunk = l->chunk;
		recs[nr].gen = l->gen;
		recs[nr].crc = l->crc;
		recs[nr].kind = l->where >> SD_WHERE_KIND_SHIFT;
		recs[nr++].addr = l->where & SD_WHERE_ADDR_MASK;
		if (nr == max)
			break;
		link = next_leaf(m, &w);
	}
	return nr;
}

static bool has(struct sd_mem *m, const struct sd_rec *rec)
{
	struct sd_rec found;

	return sd_mem_fetch(m, rec->chunk, rec->gen, &found, 1) && found.chunk == rec->chunk && found.gen == rec->gen;
}

void sd_mem_insert(struct sd_mem *m, const struct sd_rec *rec)
{
	if (m->count == m->capacity || rec->chunk >= SD_MAX_CHUNKS) {
		WARN_ON_ONCE(!has(m, rec));
		return;
	}
	/* Only in replay, where the same group may be met again; the first one counts. */
	if (!insert(m, rec))
		return;
	m->count++;
	WRITE_ONCE(m->gen_min, min(m->gen_min, rec->gen));
	WRITE_ONCE(m->gen_max, max(m->gen_max, rec->gen));
}
