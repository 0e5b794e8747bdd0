// SPDX-License-Identifier: GPL-2.0
/*
 * The in-memory table: records that are in the journal but not in a run yet.
 *
 * A skip list in one arena that is allocated when the store is opened, so that committing a group allocates nothing and memory is bounded.
 * One writer inserts; records are never changed or removed until the whole table is reset, which happens when nobody else holds a reference. So
 * readers need no lock: a node is complete before a release store links it in, bottom level first, and readers follow links with acquire loads.
 *
 * Links are indices of 8-byte words in the arena; 0 is none (the head lies there). The order is (chunk, gen).
 *
 * The writer remembers where it inserted last (a finger: on each level the last node that is not behind that place). A group's records come in the order of
 * their chunks, so the next search climbs from there only as far as it has to, instead of descending from the top.
 * Source of the structure: W. Pugh, "Skip Lists: A Probabilistic Alternative to Balanced Trees", 1990.
 */
#include "internal.h"

#define MAX_HEIGHT	12
#define NODE_WORDS(h)	(3 + DIV_ROUND_UP(1 + (h), 2))
#define WORDS_RECORD	5	/* on average a node takes 4.4 */
#define SLACK_WORDS	(4 * SD_GROUP_MAX_ITEMS)

struct node {
	u64 chunk;
	u64 where;		/* kind and address, as on disk */
	u32 gen;
	u32 crc;
	u32 height;
	u32 next[];
};

struct sd_mem {
	refcount_t ref;
	u32 capacity, count;
	u32 used, words;
	u32 gen_min, gen_max;
	u64 random;
	u32 finger[MAX_HEIGHT];	/* the writer's; all 0: the head */
	u64 *arena;
};

static struct node *node_at(const struct sd_mem *m, u32 i)
{
	return (struct node *)&m->arena[i];
}

struct sd_mem *sd_mem_alloc(u32 records)
{
	struct sd_mem *m = sd_zalloc(sizeof(*m));

	if (!m)
		return NULL;
	m->capacity = records;
	m->words = NODE_WORDS(MAX_HEIGHT) + records * WORDS_RECORD + SLACK_WORDS;
	m->arena = sd_malloc((size_t)m->words * 8);
	if (!m->arena) {
		sd_free(m);
		return NULL;
	}
	refcount_set(&m->ref, 1);
	m->random = 0x9e3779b97f4a7c15ull;
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
	struct node *head = node_at(m, 0);

	memset(head, 0, NODE_WORDS(MAX_HEIGHT) * 8);
	head->height = MAX_HEIGHT;
	memset(m->finger, 0, sizeof(m->finger));
	m->used = NODE_WORDS(MAX_HEIGHT);
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
	/* However the dice fall: no node is larger than this. */
	u32 sure = (m->words - m->used) / NODE_WORDS(MAX_HEIGHT);

	return min(m->capacity > m->count ? m->capacity - m->count : 0, sure);
}

u64 sd_mem_bytes(const struct sd_mem *m)
{
	return m ? (u64)m->words * 8 : 0;
}

u32 sd_mem_fitting(u64 bytes)
{
	u64 words = bytes / 8, fixed = NODE_WORDS(MAX_HEIGHT) + SLACK_WORDS;

	return words > fixed ? min_t(u64, sd_div64(words - fixed, WORDS_RECORD), U32_MAX) : 0;
}

void sd_mem_gens(struct sd_mem *m, u32 *gen_min, u32 *gen_max)
{
	*gen_min = m->gen_min;
	*gen_max = m->gen_max;
}

static bool before(const struct node *n, u64 chunk, u32 gen)
{
	return n->chunk < chunk || (n->chunk == chunk && n->gen < gen);
}

static u32 random_height(struct sd_mem *m)
{
	u32 h = 1;
	u64 r;

	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	for (r = m->random; h < MAX_HEIGHT && !(r & 3); r >>= 2)
		h++;
	return h;
}

/* Moves the finger to the place of (chunk, gen). */
static void move_finger(struct sd_mem *m, u64 chunk, u32 gen)
{
	int l = MAX_HEIGHT - 1;
	u32 at, next;

	at = m->finger[0];
	if (!at || before(node_at(m, at), chunk, gen)) {
		/* What is above the first level that has nothing in between is in its place already. */
		for (l = 0; l < MAX_HEIGHT - 1; l++) {
			next = node_at(m, m->finger[l])->next[l];
			if (!next || !before(node_at(m, next), chunk, gen))
				break;
		}
		at = m->finger[l];
	} else {
		at = 0;
	}
	for (; l >= 0; l--) {
		while ((next = node_at(m, at)->next[l]) && before(node_at(m, next), chunk, gen))
			at = next;
		m->finger[l] = at;
	}
}

void sd_mem_insert(struct sd_mem *m, const struct sd_rec *rec)
{
	u32 h = random_height(m), at = m->used, next;
	struct node *new;
	int l;

	move_finger(m, rec->chunk, rec->gen);
	next = node_at(m, m->finger[0])->next[0];
	if (next) {
		struct node *same = node_at(m, next);

		/* Only in replay, where the same group may be met again; the first one counts. */
		if (same->chunk == rec->chunk && same->gen == rec->gen)
			return;
	}
	if (WARN_ON_ONCE(at + NODE_WORDS(h) > m->words))
		return;
	m->used += NODE_WORDS(h);
	new = node_at(m, at);
	new->chunk = rec->chunk;
	new->gen = rec->gen;
	new->crc = rec->crc;
	new->where = (u64)rec->kind << SD_WHERE_KIND_SHIFT | rec->addr;
	new->height = h;
	for (l = 0; l < (int)h; l++) {
		struct node *prev = node_at(m, m->finger[l]);

		new->next[l] = prev->next[l];
		smp_store_release(&prev->next[l], at);	/* pairs with the load in sd_mem_fetch() */
		m->finger[l] = at;
	}
	m->count++;
	WRITE_ONCE(m->gen_min, min(m->gen_min, rec->gen));
	WRITE_ONCE(m->gen_max, max(m->gen_max, rec->gen));
}

u32 sd_mem_fetch(struct sd_mem *m, u64 chunk, u32 gen, struct sd_rec *recs, u32 max)
{
	struct node *n = node_at(m, 0);
	u32 next = 0, nr = 0;
	int l;

	for (l = MAX_HEIGHT - 1; l >= 0; l--) {
		while ((next = smp_load_acquire(&n->next[l])) && before(node_at(m, next), chunk, gen))
			n = node_at(m, next);
	}
	while (next && nr < max) {
		n = node_at(m, next);
		recs[nr].chunk = n->chunk;
		recs[nr].gen = n->gen;
		recs[nr].crc = n->crc;
		recs[nr].kind = n->where >> SD_WHERE_KIND_SHIFT;
		recs[nr++].addr = n->where & SD_WHERE_ADDR_MASK;
		next = smp_load_acquire(&n->next[0]);
	}
	return nr;
}
