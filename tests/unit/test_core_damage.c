// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every type of block at every level, damaged in every way (tests/include/damage.h): what is read from the store afterwards is what was preserved, or an
 * error; nothing hangs, nothing takes memory without bound, nothing is read or written outside of the device.
 *
 * Three stores, each with a run whose tree has two levels of fences: detached; crashed, with a journal to be replayed; crashed in the middle of a
 * merge. Each of many cases damages one block of a copy of one of them (forged: up to four), reads everything, writes into it, reads again.
 * A forged store may lie about data, but must not hurt its reader.
 *
 * DAMAGE_CASES=N: how many cases for each type of block and way of damage. DAMAGE_ONLY=PATTERN: only these tests.
 */
#include <signal.h>
#include <unistd.h>
#include "core_dev.h"
#include "damage.h"

#define BLOCKS		6144u
#define BULK		30000ull	/* chunks from here on are in the large run */
#define BULK_NR		29000u
#define SMALL		50u
#define MAX_READS	2000000u
#define MAX_MEMORY	(96u << 20)

size_t __sanitizer_get_current_allocated_bytes(void);
const char *__asan_default_options(void);

/* An allocation that is larger than anything a store of this size can need fails, and that fails the test. */
const char *__asan_default_options(void)
{
	return "max_allocation_size_mb=96:allocator_may_return_null=1";
}

/* ---- a device that remembers ----------------------------------------------------------------------------------------- */

struct old_block {
	struct old_block *before;
	u8 data[SD_BLOCK_SIZE];
};

struct cow {
	struct sd_dev dev;
	u8 *base;
	u8 *over[BLOCKS];		/* what has been written since cow_reset() */
	bool building;			/* writes go to the base, and what was there is kept */
	struct old_block *old[BLOCKS];
	u64 reads;
	size_t memory, peak;
	char said[8192];
};

static u8 *cow_at(struct cow *c, u64 block)
{
	return c->over[block] ? c->over[block] : c->base + block * SD_BLOCK_SIZE;
}

static void count(struct cow *c)
{
	size_t now = __sanitizer_get_current_allocated_bytes();

	if (++c->reads > MAX_READS)
		fail_msg("it does not end");
	if (now > c->peak)
		c->peak = now;
}

static int cow_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct cow *c = ctx;
	u32 i;

	assert_true(block < BLOCKS && nr <= BLOCKS - block);
	count(c);
	for (i = 0; i < nr; i++)
		memcpy((u8 *)buf + (size_t)i * SD_BLOCK_SIZE, cow_at(c, block + i), SD_BLOCK_SIZE);
	return 0;
}

static void write_one(struct cow *c, u64 block, const u8 *data)
{
	struct old_block *o;

	if (!c->building) {
		if (!c->over[block])
			c->over[block] = malloc(SD_BLOCK_SIZE);
		memcpy(c->over[block], data, SD_BLOCK_SIZE);
		return;
	}
	o = malloc(sizeof(*o));
	memcpy(o->data, c->base + block * SD_BLOCK_SIZE, SD_BLOCK_SIZE);
	o->before = c->old[block];
	c->old[block] = o;
	memcpy(c->base + block * SD_BLOCK_SIZE, data, SD_BLOCK_SIZE);
}

/* A forged store may well want to write outside; the kernel's device says EIO then. */
static int cow_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	u32 i;

	if (block >= BLOCKS || nr > BLOCKS - block)
		return -EIO;
	for (i = 0; i < nr; i++)
		write_one(ctx, block + i, (const u8 *)buf + (size_t)i * SD_BLOCK_SIZE);
	return 0;
}

static int cow_get(void *ctx, u64 block, struct sd_buf *buf)
{
	struct cow *c = ctx;

	assert_true(block < BLOCKS);
	count(c);
	buf->data = memcpy(malloc(SD_BLOCK_SIZE), cow_at(c, block), SD_BLOCK_SIZE);
	buf->priv = (void *)buf->data;
	buf->validated = NULL;
	return 0;
}

static void cow_put(void *ctx, struct sd_buf *buf)
{
	free(buf->priv);
}

static void cow_reset(struct cow *c)
{
	u32 i;

	for (i = 0; i < BLOCKS; i++) {
		free(c->over[i]);
		c->over[i] = NULL;
	}
	c->reads = 0;
	c->memory = c->peak = __sanitizer_get_current_allocated_bytes();
}

static struct cow *cow_new(void)
{
	static const struct sd_dev_ops ops = {
		.read = cow_read, .write = cow_write, .flush = mem_flush, .get = cow_get, .put = cow_put, .forget = mem_forget,
	};
	struct cow *c = calloc(1, sizeof(*c));

	c->dev.ops = &ops;
	c->dev.ctx = c;
	c->dev.nr_blocks = BLOCKS;
	c->base = calloc(BLOCKS, SD_BLOCK_SIZE);
	c->building = true;
	return c;
}

static void cow_free(struct cow *c)
{
	u32 i;

	cow_reset(c);
	for (i = 0; i < BLOCKS; i++) {
		while (c->old[i]) {
			struct old_block *o = c->old[i];

			c->old[i] = o->before;
			free(o);
		}
	}
	free(c->base);
	free(c);
}

static void cow_say(void *ctx, const char *text)
{
	struct cow *c = ctx;
	size_t at = strlen(c->said);

	snprintf(c->said + at, sizeof(c->said) - at, "%s\n", text);
}

static int cow_open(struct cow *c, bool read_only, struct sd_store **s)
{
	struct sd_open_opts o = { .read_only = read_only, .mem_records = 40000, .complain = cow_say, .complain_ctx = c };
	int err = sd_open(&c->dev, &o, s);

	assert_int_not_equal(err, -ENOMEM);
	return err;
}

/* ---- the model ------------------------------------------------------------------------------------------------------------ */

struct key {
	u64 chunk;
	u32 gen, kind;
};

struct store {
	const char *name;
	struct cow *c;
	struct key *key;	/* all records ever made, sorted */
	u32 nr, cap, live[16], nr_live, highest;
	struct dmg_list blocks;
};

static int compare_keys(const void *pa, const void *pb)
{
	const struct key *a = pa, *b = pb;

	return a->chunk < b->chunk ? -1 : a->chunk > b->chunk ? 1 : a->gen < b->gen ? -1 : a->gen > b->gen;
}

static void remember(struct store *st, u64 chunk, u32 gen, u32 kind)
{
	if (st->nr == st->cap) {
		st->cap = st->cap ? 2 * st->cap : 4096;
		st->key = realloc(st->key, st->cap * sizeof(*st->key));
	}
	st->key[st->nr++] = (struct key){ .chunk = chunk, .gen = gen, .kind = kind };
}

/* The content of @chunk at @gen; kind NONE: the primary has it. */
static struct key wanted(const struct store *st, u64 chunk, u32 gen)
{
	u32 lo = 0, hi = st->nr;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (st->key[mid].chunk < chunk || (st->key[mid].chunk == chunk && st->key[mid].gen < gen))
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < st->nr && st->key[lo].chunk == chunk)
		return st->key[lo];
	return (struct key){ .chunk = chunk };
}

/* ---- making the stores ------------------------------------------------------------------------------------------------------ */

static bool group_done(struct cow *c, struct sd_store *s, struct sd_group *g, u32 nr)
{
	u8 buf[SD_BLOCK_SIZE];
	u32 i;

	for (i = 0; i < nr; i++) {
		if (g->items[i].kind != SD_KIND_DATA)
			continue;
		fill_content(buf, sizeof(buf), g->items[i].chunk, g->gen);
		if (cow_write(c, g->items[i].addr, 1, buf))
			break;
	}
	if (sd_group_seal(s, g)) {
		sd_group_destroy(s, g);
		return false;
	}
	if (i < nr || cow_write(c, g->image_addr, g->image_blocks, g->image)) {
		sd_store_fail(s);
		sd_group_destroy(s, g);
		return false;
	}
	sd_group_commit(s, g);
	return true;
}

static bool step(struct sd_store *s, u32 flags)
{
	return !sd_step_whole(s, flags);
}

/* Preserve chunks first, first + stride, …; false when the store does not take them. */
static bool copy(struct cow *c, struct sd_store *s, struct store *st, u64 first, u32 stride, u32 nr, u32 kind)
{
	static struct sd_item items[SD_GROUP_MAX_ITEMS];
	struct sd_group *g;
	u8 buf[SD_BLOCK_SIZE];
	u32 tries = 0, i;
	int taken;

	while (nr) {
		for (i = 0; i < min(nr, SD_GROUP_MAX_ITEMS); i++) {
			items[i] = (struct sd_item){ .chunk = first + (u64)i * stride, .kind = kind };
			fill_content(buf, sizeof(buf), items[i].chunk, s->sum.highest);
			items[i].crc = kind == SD_KIND_DATA ? crc32c(~0u, buf, sizeof(buf)) : 0;
		}
		if (sd_group_begin(s, &g))
			return false;
		taken = sd_group_add_items(s, g, items, i);
		if (taken <= 0) {
			sd_group_destroy(s, g);
			if (taken != -EAGAIN || !step(s, SD_STEP_CHECKPOINT) || ++tries > 4)
				return false;
			continue;
		}
		for (i = 0; st && i < (u32)taken; i++)
			remember(st, items[i].chunk, g->gen, kind);
		if (!group_done(c, s, g, taken))
			return false;
		first += (u64)taken * stride;
		nr -= taken;
	}
	return true;
}

static bool create(struct cow *c, struct sd_store *s)
{
	struct sd_gen gen = { .number = s->sum.highest + 1, .state = SD_GEN_LIVE, .size_sectors = 1 << 20 };
	struct sd_group *g;

	if (sd_group_begin(s, &g))
		return false;
	if (sd_group_put_gen(s, g, &gen)) {
		sd_group_destroy(s, g);
		return false;
	}
	return group_done(c, s, g, 0);
}

static bool delete(struct cow *c, struct sd_store *s, u32 first, u32 last, bool lose)
{
	struct sd_group *g;
	int err;

	if (sd_group_begin(s, &g))
		return false;
	err = lose ? sd_group_lose_gens(s, g, first, last, false) : sd_group_del_gens(s, g, first, last);
	if (err) {
		sd_group_destroy(s, g);
		return false;
	}
	return group_done(c, s, g, 0);
}

static struct sd_store *fresh_store(struct store *st)
{
	struct sd_format_params p = { .chunk_size = SD_BLOCK_SIZE, .journal_blocks = 256, .uuid = "damaged by tests" };
	struct sd_store *s;

	st->c = cow_new();
	assert_int_equal(sd_format(&st->c->dev, &p), 0);
	assert_int_equal(cow_open(st->c, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	s->leaf_most = SD_LEAF_FEWEST;	/* trees of three levels, with few records */
	return s;
}

/* Seven generations, two of them gone; a large run, small ones; every transaction leaves older blocks behind. */
static struct sd_store *build(struct store *st, const char *name)
{
	struct sd_store *s = fresh_store(st);
	struct cow *c = st->c;
	u32 i;

	st->name = name;
	assert_true(create(c, s));
	assert_true(copy(c, s, st, 0, 3, SMALL, SD_KIND_DATA));
	assert_true(copy(c, s, st, BULK, 1, BULK_NR, SD_KIND_ZERO));
	assert_true(step(s, SD_STEP_CHECKPOINT));
	for (i = 2; i <= 6; i++) {
		assert_true(create(c, s));
		assert_true(copy(c, s, st, i, 2 + i % 3, SMALL, SD_KIND_DATA));
		assert_true(copy(c, s, st, BULK + i * 100, 7, 80, i % 2 ? SD_KIND_BAD : SD_KIND_DATA));
		assert_true(step(s, SD_STEP_CHECKPOINT));
		if (i == 4)
			assert_true(delete(c, s, 2, 2, false));
	}
	assert_true(delete(c, s, 5, 5, true));
	assert_true(create(c, s));
	st->highest = 7;
	for (i = 1; i <= 7; i++)
		if (i != 2 && i != 5)
			st->live[st->nr_live++] = i;
	return s;
}

static void built(struct store *st, struct sd_store *s)
{
	sd_close(s);
	qsort(st->key, st->nr, sizeof(*st->key), compare_keys);
	st->c->building = false;
	cow_reset(st->c);
	assert_int_equal(dmg_scan(&st->c->dev, &st->blocks), 0);
}

static void build_clean(struct store *st)
{
	static const u8 fingerprint[SD_FINGERPRINT_SIZE] = { 1 };
	struct sd_store *s = build(st, "detached");

	assert_true(copy(st->c, s, st, 1, 5, SMALL, SD_KIND_DATA));
	assert_int_equal(sd_detach(s, fingerprint), 0);
	built(st, s);
}

static void build_crashed(struct store *st)
{
	struct sd_store *s = build(st, "crashed");
	u32 i;

	for (i = 0; i < 6; i++)
		assert_true(copy(st->c, s, st, 600 + 400 * i, 1, 10 * i + 1, SD_KIND_DATA));
	assert_true(copy(st->c, s, st, 6000, 2, 900, SD_KIND_ZERO));
	assert_true(delete(st->c, s, 3, 3, true));
	st->live[1] = st->live[--st->nr_live];	/* 3 */
	assert_true(copy(st->c, s, st, 9000, 3, 20, SD_KIND_DATA));
	built(st, s);
}

static void build_merging(struct store *st)
{
	struct sd_store *s = build(st, "merging");
	u32 i;

	for (i = 0; i < s->cur->nr_runs; i++)
		assert_true(!(s->cur->runs[i]->flags & SD_RUN_F_PARTIAL));
	assert_true(step(s, 0));
	assert_true(step(s, 0));
	for (i = 0; i < s->cur->nr_runs && !(s->cur->runs[i]->flags & SD_RUN_F_PARTIAL); i++)
		;
	assert_true(i < s->cur->nr_runs);
	built(st, s);
}

/* ---- reading everything --------------------------------------------------------------------------------------------------------- */

struct verdict {
	u32 good, errors, wrong;
};

static void say_wrong(struct verdict *v, u64 chunk, u32 gen, const struct key *want, const struct sd_rec *rec)
{
	if (!v->wrong++)
		printf("# chunk %llu of generation %u: wanted kind %u of %u, is kind %u of %u\n", (unsigned long long)chunk, gen,
		       want->kind, want->gen, rec->kind, rec->gen);
}

/* What a reader gets for the chunk. */
static void judge(const struct store *st, u64 chunk, u32 gen, int err, const struct sd_rec *rec, struct verdict *v)
{
	struct key want = wanted(st, chunk, gen);
	u8 got[SD_BLOCK_SIZE], content[SD_BLOCK_SIZE];

	/* What had not been copied may have been since, by use(). */
	if (!err && !want.kind && rec->gen > st->highest)
		want = (struct key){ .kind = rec->kind, .gen = rec->gen };
	assert_int_not_equal(err, -ENOMEM);
	if (err || rec->kind == SD_KIND_BAD) {
		v->errors += err || want.kind != SD_KIND_BAD;
		return;
	}
	if (rec->kind == SD_KIND_DATA) {
		cow_read(st->c, rec->addr, 1, got);
		if (crc32c(~0u, got, sizeof(got)) != rec->crc) {
			v->errors++;
			return;
		}
		fill_content(content, sizeof(content), chunk, want.gen);
		if (want.kind != SD_KIND_DATA || memcmp(got, content, sizeof(got)))
			say_wrong(v, chunk, gen, &want, rec);
		return;
	}
	v->good++;
	if (rec->kind != want.kind)
		say_wrong(v, chunk, gen, &want, rec);
}

static void read_generation(const struct store *st, struct sd_store *s, u32 gen, u64 *seed, struct verdict *v)
{
	struct sd_version *ver = sd_version_get(s);
	struct sd_rec recs[40];
	u64 chunk;
	u32 i;
	int err;

	for (chunk = 0; chunk < 400; chunk += 40) {
		bool each = sd_lookup_range(ver, chunk, 40, gen, recs);

		for (i = 0; i < 40; i++) {
			err = 0;
			if (each)
				err = sd_lookup(ver, chunk + i, gen, &recs[i]);
			judge(st, chunk + i, gen, err, &recs[i], v);
		}
	}
	for (i = 0; i < 60; i++) {
		chunk = i % 3 ? BULK + dice(seed, BULK_NR) : 600 + dice(seed, 9000);
		err = sd_lookup(ver, chunk, gen, &recs[0]);
		judge(st, chunk, gen, err, &recs[0], v);
	}
	sd_version_put(ver);
}

static void read_extents(const struct store *st, struct sd_store *s, u32 gen, struct verdict *v)
{
	struct sd_version *ver = sd_version_get(s);
	struct sd_extent x[64];
	u64 pos = 0, end = BULK + BULK_NR, before;
	int n, i;

	while (pos < end) {
		before = pos;
		n = sd_map_extents(ver, gen, &pos, end, x, ARRAY_SIZE(x));
		if (n <= 0)
			break;
		assert_true(pos > before && pos <= end);
		for (i = 0; i < n; i++) {
			struct key want = wanted(st, x[i].chunk, gen);

			if (want.kind != x[i].kind && (want.kind || s->sum.highest == st->highest))
				say_wrong(v, x[i].chunk, gen, &want, &(struct sd_rec){ .kind = x[i].kind });
		}
	}
	for (pos = 0, n = 1; pos < end && n > 0; ) {
		before = pos;
		n = sd_change_extents(ver, 1, gen, &pos, end, x, ARRAY_SIZE(x));
		assert_true(n <= 0 || pos > before);
	}
	sd_version_put(ver);
}

static void read_newest(struct sd_store *s, u64 *seed)
{
	struct sd_version *ver = sd_version_get(s);
	unsigned long bits[1024 / BITS_PER_LONG] = { 0 };
	struct sd_rec rec;
	u32 i;

	for (i = 0; i < 40; i++)
		sd_lookup_newest(ver, dice(seed, 2) ? dice(seed, 1200) : BULK + dice(seed, BULK_NR), &rec);
	sd_window_fill(ver, s->sum.highest, 0, 1024, bits);
	sd_window_fill(ver, 1, BULK, 1024, bits);
	sd_version_put(ver);
}

/* Generations: those that should be live are, or the store says that something is wrong. */
static void read_all(const struct store *st, struct sd_store *s, u64 *seed, struct verdict *v)
{
	struct sd_gen gen;
	u32 i, n = 0, from;

	for (from = 1; !sd_gen_next(s, from, &gen); from = gen.number + 1) {
		assert_true(gen.number >= from && n++ <= SD_MAX_GENS);
		if (gen.number == U32_MAX)
			break;
	}
	for (i = 0; i < st->nr_live; i++) {
		if (sd_gen_find(s, st->live[i], &gen)) {
			if (!v->wrong++)
				printf("# generation %u is not there\n", st->live[i]);
			continue;
		}
		if (gen.state != SD_GEN_LIVE) {
			v->errors++;
			continue;
		}
		read_generation(st, s, st->live[i], seed, v);
		if (!dice(seed, 4))
			read_extents(st, s, st->live[i], v);
	}
	for (i = 1; i <= st->highest; i++) {
		u32 k;

		for (k = 0; k < st->nr_live && st->live[k] != i; k++)
			;
		if (k == st->nr_live && !sd_gen_find(s, i, &gen) && gen.state == SD_GEN_LIVE && !v->wrong++)
			printf("# generation %u lives again\n", i);
	}
	read_newest(s, seed);
}

/* ---- using it ---------------------------------------------------------------------------------------------------------------------- */

static void use(const struct store *st, struct sd_store *s, u64 *seed)
{
	static const u8 fingerprint[SD_FINGERPRINT_SIZE];
	struct cow *c = st->c;
	u32 steps = 0;

	if (sd_attach(s, 1 << 20))
		return;
	create(c, s);
	copy(c, s, NULL, dice(seed, 1000), 1 + dice(seed, 5), 50, SD_KIND_DATA);
	copy(c, s, NULL, BULK + dice(seed, 1000), 3, 200, SD_KIND_ZERO);
	while (sd_background_work(s) && ++steps < 400)
		if (!step(s, 0))
			break;
	assert_true(steps < 400);
	create(c, s);
	if (s->sum.highest > st->highest + 1)	/* not one of the store's own: without room none is made */
		delete(c, s, s->sum.highest - 1, s->sum.highest - 1, dice(seed, 2));
	for (steps = 0; sd_background_work(s) && ++steps < 400; )
		if (!step(s, 0))
			break;
	assert_true(steps < 400);
	if (dice(seed, 2))
		sd_detach(s, fingerprint);
}

static void memory_is_bounded(struct cow *c, const char *what)
{
	if (c->peak - c->memory > MAX_MEMORY)
		fail_msg("%s takes %zu bytes", what, c->peak - c->memory);
}

/* Read, check, write, read. Returns true if the damage was met. */
static bool try_store(const struct store *st, bool forged, u64 *seed)
{
	struct sd_check_result r = { 0 };
	struct verdict v = { 0 };
	struct sd_store *s;
	struct cow *c = st->c;
	bool met;

	c->said[0] = 0;
	c->reads = 0;
	if (cow_open(c, true, &s)) {
		assert_true(c->said[0]);
		return true;
	}
	read_all(st, s, seed, &v);
	assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
	sd_close(s);
	met = v.errors || r.errors;
	if (!cow_open(c, false, &s)) {
		use(st, s, seed);
		read_all(st, s, seed, &v);
		sd_check(s, 0, &r);
		sd_close(s);
		if (!cow_open(c, true, &s)) {
			read_all(st, s, seed, &v);
			sd_close(s);
		}
	}
	memory_is_bounded(c, st->name);
	if (v.wrong && !forged)
		fail_msg("%s: wrong data; it said:\n%s", st->name, c->said);
	return met || v.errors;
}

/* ---- the cases ---------------------------------------------------------------------------------------------------------------------- */

static struct store stores[3];

static u32 cases(void)
{
	const char *n = getenv("DAMAGE_CASES");

	return n ? strtoul(n, NULL, 0) : 1;
}

static const void *stale_of(const struct store *st, u64 addr, u64 *seed)
{
	struct old_block *o = st->c->old[addr];

	while (o && o->before && dice(seed, 2))
		o = o->before;
	return o ? o->data : NULL;
}

/*
 * Damage that nobody forged is met by whoever reads everything. Exceptions: a superblock has a twin; journal blocks of a detached store are of no
 * meaning; the data of a chunk may be wanted by no generation any more.
 */
static bool must_be_met(const struct dmg_block *b, enum dmg_how how)
{
	return how != DMG_FORGE && b->type != DMG_SUPER && b->type != DMG_DATA;
}

static u32 damage_level(struct store *st, enum dmg_type type, u32 level, enum dmg_how how, u64 *seed)
{
	u32 i, k, done = 0;

	for (i = 0; i < cases() * (how == DMG_FORGE ? 6 : 1); i++) {
		const struct dmg_block *b = NULL;
		int err = -ENOENT;
		u64 first = *seed;
		bool met;

		cow_reset(st->c);
		for (k = how == DMG_FORGE && !dice(seed, 4) ? 4 : 1; k; k--) {
			b = dmg_pick(&st->blocks, type, level, how == DMG_FORGE, seed);
			if (b)
				err = dmg_apply(&st->c->dev, &st->blocks, b, how, stale_of(st, b->addr, seed), seed);
		}
		if (err == -ENOENT)
			continue;
		assert_int_equal(err, 0);
		alarm(60);
		met = try_store(st, how == DMG_FORGE, seed);
		alarm(0);
		if (!met && must_be_met(b, how))
			fail_msg("%s: %s of %s block %llu, level %u (seed %llu): nobody noticed", st->name, dmg_how_names[how],
				 dmg_type_names[type], (unsigned long long)b->addr, level, (unsigned long long)first);
		done++;
	}
	return done;
}

static void damage_in_a_way(enum dmg_how how)
{
	u32 n, type, level, done[DMG_TYPES] = { 0 }, levels[3] = { 0 };
	u64 seed = 77 + how;

	for (n = 0; n < ARRAY_SIZE(stores); n++) {
		for (type = 0; type < DMG_TYPES; type++) {
			for (level = type == DMG_FENCE; level <= (type == DMG_FENCE ? 2 : 0); level++) {
				u32 nr = damage_level(&stores[n], type, level, how, &seed);

				done[type] += nr;
				levels[level] += nr;
			}
		}
		cow_reset(stores[n].c);
	}
	for (type = 0; type < DMG_TYPES; type++)
		printf("# %s %s: %u\n", dmg_how_names[how], dmg_type_names[type], done[type]);
	if (how != DMG_SWAP && how != DMG_STALE) {
		for (type = 0; type < DMG_TYPES; type++)
			assert_int_not_equal(done[type], 0);
		assert_int_not_equal(levels[1], 0);
		assert_int_not_equal(levels[2], 0);
	}
}

static void undamaged_stores_are_right(void **state)
{
	struct sd_check_result r;
	struct sd_store *s;
	u64 seed = 1;
	u32 n;

	for (n = 0; n < ARRAY_SIZE(stores); n++) {
		struct verdict v = { 0 };

		assert_int_equal(cow_open(stores[n].c, true, &s), 0);
		read_all(&stores[n], s, &seed, &v);
		assert_int_equal(v.errors + v.wrong, 0);
		assert_int_not_equal(v.good, 0);
		assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
		assert_int_equal(r.errors, 0);
		sd_close(s);
		assert_false(try_store(&stores[n], false, &seed));
		cow_reset(stores[n].c);
	}
}

static void flipped_bits(void **state)
{
	damage_in_a_way(DMG_FLIP);
}

static void zeroed_blocks(void **state)
{
	damage_in_a_way(DMG_ZERO);
}

static void noise(void **state)
{
	damage_in_a_way(DMG_NOISE);
}

static void swapped_blocks(void **state)
{
	damage_in_a_way(DMG_SWAP);
}

static void lost_writes(void **state)
{
	damage_in_a_way(DMG_STALE);
}

static void forged_fields(void **state)
{
	damage_in_a_way(DMG_FORGE);
}

/* ---- forged on purpose ---------------------------------------------------------------------------------------------------------- */

/*
 * What somebody would do who has read the code: each of these once made it loop, or read or allocate what the store is not worth.
 */

static u8 *block_of(const struct store *st, u64 addr)
{
	if (!st->c->over[addr])
		st->c->over[addr] = memcpy(malloc(SD_BLOCK_SIZE), st->c->base + addr * SD_BLOCK_SIZE, SD_BLOCK_SIZE);
	return st->c->over[addr];
}

static struct sd_disk_entry *entry_of(const struct store *st, u32 type, struct sd_disk_catalog **leaf)
{
	u32 i, k;

	for (i = 0; i < st->blocks.nr; i++) {
		if (st->blocks.b[i].type != DMG_CATALOG)
			continue;
		*leaf = (void *)block_of(st, st->blocks.b[i].addr);
		for (k = le16_to_cpu((*leaf)->hdr.nr); k; k--)
			if (SD_CAT_TYPE(le64_to_cpu((*leaf)->e[k - 1].key)) == type)
				return &(*leaf)->e[k - 1];
	}
	fail_msg("no entry of type %u", type);
	return NULL;
}

static void high_generation(const struct store *st)
{
	struct sd_disk_catalog *leaf;
	struct sd_disk_entry *e = entry_of(st, SD_CAT_GEN, &leaf);

	e->key = cpu_to_le64(SD_CAT_KEY(SD_CAT_GEN, (1ull << 32) + 1));	/* cut to 32 bits it is 1: walks begin again */
	dmg_seal(leaf, 1);
}

static void strange_state(const struct store *st)
{
	struct sd_disk_catalog *leaf;
	struct sd_disk_entry *e = entry_of(st, SD_CAT_GEN, &leaf);

	((struct sd_disk_gen *)e->value)->state = cpu_to_le32(77);
	dmg_seal(leaf, 1);
}

static void many_segments(const struct store *st)
{
	struct sd_disk_catalog *leaf;
	struct sd_disk_entry *e = entry_of(st, SD_CAT_RUN, &leaf);

	((struct sd_disk_run *)e->value)->nr_segs = cpu_to_le32((1u << 24) - 1);
	dmg_seal(leaf, 1);
}

static void output_without_inputs(const struct store *st)
{
	struct sd_disk_catalog *leaf;
	struct sd_disk_entry *e = entry_of(st, SD_CAT_RUN, &leaf);
	struct sd_disk_run *r = (void *)e->value;

	r->flags = cpu_to_le32(le32_to_cpu(r->flags) | SD_RUN_F_PARTIAL);
	dmg_seal(leaf, 1);
}

static void few_records(const struct store *st)
{
	struct sd_disk_catalog *leaf;
	u32 i, k;

	for (i = 0; i < st->blocks.nr; i++) {
		if (st->blocks.b[i].type != DMG_CATALOG)
			continue;
		leaf = (void *)block_of(st, st->blocks.b[i].addr);
		for (k = 0; k < le16_to_cpu(leaf->hdr.nr); k++) {
			u32 type = SD_CAT_TYPE(le64_to_cpu(leaf->e[k].key));
			struct sd_disk_seg *seg = (void *)leaf->e[k].value;
			struct sd_disk_run *run = (void *)leaf->e[k].value;

			if (type == SD_CAT_RUN)
				run->records = cpu_to_le64(le32_to_cpu(run->nr_segs));
			else if (type == SD_CAT_SEG)
				seg->records = cpu_to_le64(1);
		}
		dmg_seal(leaf, 1);
	}
}

/* Every entry of every fence block leads to its first child: 168 to the power of the levels paths. */
static void one_child(const struct store *st)
{
	u32 i, k;

	for (i = 0; i < st->blocks.nr; i++) {
		struct sd_disk_fences *f = (void *)block_of(st, st->blocks.b[i].addr);

		if (st->blocks.b[i].type != DMG_FENCE)
			continue;
		for (k = 1; k < le16_to_cpu(f->hdr.nr); k++)
			f->f[k].addr = f->f[0].addr;
		dmg_seal(f, 1);
	}
}

/* Searches go on behind the last record they got; here that is before the first one. */
static void leaves_backwards(const struct store *st)
{
	u32 i, k, n, size;

	for (i = 0; i < st->blocks.nr; i++) {
		struct sd_disk_leaf *b = (void *)block_of(st, st->blocks.b[i].addr);

		if (st->blocks.b[i].type != DMG_LEAF)
			continue;
		n = le16_to_cpu(b->hdr.nr);
		size = dmg_row_size(b);
		for (k = 2; k + 1 < n; k++)
			memcpy(b->row + k * size, b->row + k % 2 * size, size);
		dmg_seal(b, 1);
	}
}

/* As many rows as there may be records, far behind the end of the block. */
static void rows_without_end(const struct store *st)
{
	u32 i;

	for (i = 0; i < st->blocks.nr; i++) {
		struct sd_disk_leaf *b = (void *)block_of(st, st->blocks.b[i].addr);

		if (st->blocks.b[i].type != DMG_LEAF)
			continue;
		b->hdr.nr = cpu_to_le16(SD_LEAF_MOST);
		dmg_seal(b, 1);
	}
}

/* Rows are read where they end up with such widths. */
static void wide_columns(const struct store *st)
{
	u32 i;

	for (i = 0; i < st->blocks.nr; i++) {
		struct sd_disk_leaf *b = (void *)block_of(st, st->blocks.b[i].addr);

		if (st->blocks.b[i].type != DMG_LEAF)
			continue;
		memset(b->width, 255, sizeof(b->width));
		dmg_seal(b, 1);
	}
}

/* A bitmap that calls its own two blocks, and what lies behind the device, free; the counts are right. */
static void bitmap_of_itself(const struct store *st)
{
	struct sd_disk_bitmap *b;
	u32 i;

	for (i = 0; i < st->blocks.nr && st->blocks.b[i].type != DMG_BITMAP; i++)
		;
	b = (void *)block_of(st, st->blocks.b[i].addr);
	for (i = 0; i < 2; i++) {		/* two for two */
		u32 bit = 10;

		b->bits[0] &= cpu_to_le64(~(1ull << i));
		while (le64_to_cpu(b->bits[bit / 64]) >> bit % 64 & 1)
			bit++;
		b->bits[bit / 64] |= cpu_to_le64(1ull << bit % 64);
	}
	dmg_seal(b, 1);
}

static void forged_on_purpose(void **state)
{
	static const struct {
		const char *what;
		void (*forge)(const struct store *st);
		bool refused;
	} forgeries[] = {
		{ "the number of a generation has 33 bits", high_generation, true },
		{ "a generation in no known state", strange_state, true },
		{ "16 million segments", many_segments, true },
		{ "the output of a merge without inputs", output_without_inputs, true },
		{ "more records than there should be", few_records, false },
		{ "a tree whose branches meet", one_child, false },
		{ "leaves that go backwards", leaves_backwards, false },
		{ "rows behind the end of their leaf", rows_without_end, false },
		{ "columns of 255 bytes", wide_columns, false },
		{ "a bitmap that frees itself", bitmap_of_itself, false },
	};
	u64 seed = 5;
	u32 i, n;

	for (i = 0; i < ARRAY_SIZE(forgeries); i++) {
		for (n = 0; n < 2; n++) {		/* the third has a merge under way already */
			struct sd_store *s;

			cow_reset(stores[n].c);
			forgeries[i].forge(&stores[n]);
			printf("# %s: %s\n", stores[n].name, forgeries[i].what);
			fflush(stdout);
			alarm(60);
			if (forgeries[i].refused) {
				stores[n].c->said[0] = 0;
				assert_int_equal(cow_open(stores[n].c, true, &s), -EUCLEAN);
				assert_non_null(strstr(stores[n].c->said, "block "));
			}
			assert_true(try_store(&stores[n], true, &seed));
			alarm(0);
		}
		cow_reset(stores[0].c);
		cow_reset(stores[1].c);
	}
}

/* What an earlier transaction wrote to where a block of the catalog is now, of the same kind; the number of such places. */
static u32 old_ones(const struct store *st, u64 addr, u32 magic, bool try)
{
	struct old_block *o;
	struct sd_store *s;
	u32 n = 0;

	for (o = st->c->old[addr]; o; o = o->before) {
		if (le32_to_cpu(((struct sd_disk_header *)o->data)->magic) != magic)
			continue;
		n++;
		if (!try)
			break;
		st->c->said[0] = 0;
		write_one(st->c, addr, o->data);
		assert_int_equal(cow_open(st->c, true, &s), -EUCLEAN);
		assert_non_null(strstr(st->c->said, "transaction"));
		cow_reset(st->c);
	}
	return n;
}

/* Blocks are used again: at last a leaf lies where there was one before, whose loss of a write would leave everything right but its time. */
static void old_catalog_is_found(void **state)
{
	struct store st = { .name = "old" };
	struct sd_store *s = fresh_store(&st);
	u64 leaf, index;
	u32 i;

	for (i = 0; i < 40; i++)
		assert_true(create(st.c, s));
	for (i = 0; i < 8000; i++) {
		assert_true(delete(st.c, s, 40, 40, true));
		assert_true(step(s, SD_STEP_CHECKPOINT));
		leaf = s->cat.leaf[s->cat.nr - 1]->addr;
		index = s->cat.index_addr[0];
		if (old_ones(&st, leaf, SD_MAGIC_CATALOG, false) && old_ones(&st, index, SD_MAGIC_INDEX, false))
			break;
	}
	sd_close(s);
	st.c->building = false;
	cow_reset(st.c);
	assert_int_not_equal(old_ones(&st, leaf, SD_MAGIC_CATALOG, true), 0);
	assert_int_not_equal(old_ones(&st, index, SD_MAGIC_INDEX, true), 0);
	cow_free(st.c);
}

static int set_up(void **state)
{
	build_clean(&stores[0]);
	build_crashed(&stores[1]);
	build_merging(&stores[2]);
	return 0;
}

static int tear_down(void **state)
{
	u32 n;

	for (n = 0; n < ARRAY_SIZE(stores); n++) {
		free(stores[n].key);
		free(stores[n].blocks.b);
		cow_free(stores[n].c);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(undamaged_stores_are_right),
		cmocka_unit_test(flipped_bits),
		cmocka_unit_test(zeroed_blocks),
		cmocka_unit_test(noise),
		cmocka_unit_test(swapped_blocks),
		cmocka_unit_test(lost_writes),
		cmocka_unit_test(forged_fields),
		cmocka_unit_test(forged_on_purpose),
		cmocka_unit_test(old_catalog_is_found),
	};

	if (getenv("DAMAGE_ONLY"))
		cmocka_set_test_filter(getenv("DAMAGE_ONLY"));
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
