// SPDX-License-Identifier: GPL-2.0-or-later
/* The core's tables, each against a sorted array: in-memory records, runs, catalog. */
#include "core_dev.h"

static int by_key(const void *a, const void *b)
{
	const struct sd_rec *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return x->gen < y->gen ? -1 : x->gen > y->gen;
}

/* @nr records with different keys, sorted. */
static struct sd_rec *random_records(u64 *seed, u32 nr, u32 chunks)
{
	struct sd_rec *r = malloc(nr * sizeof(*r));
	u32 i, k, have = 0;

	while (have < nr) {
		for (i = have; i < nr; i++) {
			r[i].chunk = dice(seed, chunks);
			r[i].gen = 1 + dice(seed, 50);
			r[i].crc = dice(seed, 1 << 30);
			r[i].addr = dice(seed, 1 << 30);
			r[i].kind = 1 + dice(seed, 4);
		}
		qsort(r, nr, sizeof(*r), by_key);
		for (i = k = 0; i < nr; i++)
			if (!k || by_key(&r[k - 1], &r[i]))
				r[k++] = r[i];
		have = k;
	}
	return r;
}

static void assert_rec(const struct sd_rec *a, const struct sd_rec *b)
{
	assert_int_equal(a->chunk, b->chunk);
	assert_int_equal(a->gen, b->gen);
	assert_int_equal(a->crc, b->crc);
	assert_int_equal(a->addr, b->addr);
	assert_int_equal(a->kind, b->kind);
}

static u32 lower_bound(const struct sd_rec *r, u32 nr, u64 chunk, u32 gen)
{
	struct sd_rec key = { .chunk = chunk, .gen = gen };
	u32 i = 0;

	while (i < nr && by_key(&r[i], &key) < 0)
		i++;
	return i;
}

/* ---- in memory ------------------------------------------------------------------------------------------ */

static void memory_table(void **state)
{
	u64 seed = 1;
	u32 nr = 3000, i, k, n;
	struct sd_rec *sorted = random_records(&seed, nr, 500), *mixed = malloc(nr * sizeof(*mixed)), got[64];
	struct sd_mem *m = sd_mem_alloc(nr);
	u32 gen_min, gen_max;

	memcpy(mixed, sorted, nr * sizeof(*mixed));
	for (i = nr; i > 1; i--) {
		struct sd_rec t = mixed[i - 1];

		k = dice(&seed, i);
		mixed[i - 1] = mixed[k];
		mixed[k] = t;
	}
	for (i = 0; i < nr; i++) {
		assert_true(sd_mem_room(m) > 0);
		sd_mem_insert(m, &mixed[i]);
	}
	sd_mem_insert(m, &mixed[0]);		/* again, as replay may */
	assert_int_equal(sd_mem_count(m), nr);
	assert_int_equal(sd_mem_room(m), 0);
	sd_mem_gens(m, &gen_min, &gen_max);
	assert_int_equal(gen_min, 1);
	assert_int_equal(gen_max, 50);
	for (i = 0; i < 2000; i++) {
		u64 chunk = dice(&seed, 510);
		u32 gen = dice(&seed, 55), max = 1 + dice(&seed, 64), at = lower_bound(sorted, nr, chunk, gen);

		n = sd_mem_fetch(m, chunk, gen, got, max);
		assert_int_equal(n, min(max, nr - at));
		for (k = 0; k < n; k++)
			assert_rec(&got[k], &sorted[at + k]);
	}
	sd_mem_reset(m);
	assert_int_equal(sd_mem_count(m), 0);
	assert_in_range(sd_mem_room(m), nr / 2, nr);
	assert_int_equal(sd_mem_fetch(m, 0, 0, got, 64), 0);
	sd_mem_put(m);
	free(sorted);
	free(mixed);
}

/* The table never runs out of arena before it is full, however high its nodes get. */
static void memory_table_room(void **state)
{
	u32 sizes[] = { 1, 7, 64, 1000, 50000 }, i, k, n;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct sd_mem *m = sd_mem_alloc(sizes[i]);

		for (k = 0; k < 2; k++) {
			for (n = 0; sd_mem_room(m); n++)
				sd_mem_insert(m, &(struct sd_rec){ .chunk = (u64)n * 7919 % 1000003, .gen = 1, .kind = 2 });
			assert_int_equal(n, sizes[i]);
			sd_mem_reset(m);
		}
		sd_mem_put(m);
	}
}

/* ---- runs -------------------------------------------------------------------------------------------------- */

static struct sd_run *build(struct sd_store *s, const struct sd_rec *r, u32 nr, struct sd_blocks *space)
{
	struct sd_builder b;
	struct sd_run *run = sd_run_alloc(1);
	u32 i;

	assert_int_equal(sd_alloc_take_list(s, sd_run_blocks(nr), space), 0);
	assert_int_equal(sd_builder_init(&b, s, 5, space, nr), 0);
	for (i = 0; i < nr; i++)
		assert_int_equal(sd_builder_add(&b, &r[i]), 0);
	assert_int_equal(sd_builder_finish(&b), 0);
	assert_int_equal(b.used, sd_run_blocks(nr));
	assert_int_equal(b.seg.levels, sd_run_levels(nr));
	run->seg[0] = b.seg;
	run->records = nr;
	sd_builder_exit(&b);
	return run;
}

static void check_run(struct sd_store *s, const struct sd_run *run, const struct sd_rec *r, u32 nr, u64 *seed)
{
	struct sd_rec got[SD_FETCH];
	u64 chunk = 0, top = r[nr - 1].chunk + 3;
	u32 gen = 0, at = 0, i, k, n;

	while (!sd_run_fetch(s, run, chunk, gen, got, SD_FETCH, &n) && n) {
		for (k = 0; k < n; k++)
			assert_rec(&got[k], &r[at++]);
		chunk = got[n - 1].chunk;
		gen = got[n - 1].gen + 1;
	}
	assert_int_equal(at, nr);
	for (i = 0; i < 200; i++) {
		u32 max = 1 + dice(seed, SD_FETCH);

		chunk = dice(seed, top);
		gen = dice(seed, 55);
		at = lower_bound(r, nr, chunk, gen);
		assert_int_equal(sd_run_fetch(s, run, chunk, gen, got, max, &n), 0);
		if (at == nr) {
			assert_int_equal(n, 0);
			continue;
		}
		assert_in_range(n, 1, max);
		for (k = 0; k < n; k++)
			assert_rec(&got[k], &r[at + k]);
	}
}

static void runs_of_all_sizes(void **state)
{
	static const u32 sizes[] = { 1, 2, 167, 168, 169, 335, 336, 337, 5000, 168 * 168, 168 * 168 + 1, 100000 };
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 seed = 2, before;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct sd_blocks space = { 0 }, all = { 0 };
		struct sd_rec *r = random_records(&seed, sizes[i], sizes[i] / 4 + 20);
		struct sd_run *run = build(s, r, sizes[i], &space);
		u64 total = 0, end;
		u32 k;

		check_run(s, run, r, sizes[i], &seed);
		assert_int_equal(sd_segment_blocks(s, &run->seg[0], &all), 0);
		for (k = 0; k < all.nr; k++)
			total += all.r[k].nr;
		assert_int_equal(total, sd_run_blocks(sizes[i]));
		/* what lies below lo is not there any more */
		run->lo = r[sizes[i] / 2].chunk;
		end = lower_bound(r, sizes[i], run->lo, 0);
		{
			struct sd_rec first;
			u32 n;

			assert_int_equal(sd_run_fetch(s, run, 0, 0, &first, 1, &n), 0);
			assert_int_equal(n, 1);
			assert_rec(&first, &r[end]);
		}
		before = s->alloc.avail;
		for (k = 0; k < space.nr; k++)
			sd_alloc_untake(s, space.r[k].addr, space.r[k].nr);
		assert_int_equal(s->alloc.avail, before + total);
		sd_blocks_clear(&space);
		sd_blocks_clear(&all);
		sd_run_put(run);
		free(r);
	}
	sd_close(s);
	memdev_exit(&m);
}

/* ---- catalog ------------------------------------------------------------------------------------------------ */

#define TYPE		SD_CAT_GEN
#define KEY(i)		SD_CAT_KEY(TYPE, (i) + 1ull)
#define NUMBER(key)	(SD_CAT_ID(key) - 1)
#define KEYS	4000u

struct cat_model {
	bool have[KEYS];
	u8 value[KEYS];
	u32 nr;
};

static void cat_compare(struct sd_store *s, const struct cat_model *c)
{
	u64 key, from = KEY(0);
	const u8 *v;
	u32 i, n = 0;

	for (; (v = sd_cat_next(s, from, &key)) && SD_CAT_TYPE(key) == TYPE; from = key + 1, n++) {
		assert_true(c->have[NUMBER(key)]);
		assert_int_equal(v[0], c->value[NUMBER(key)]);
		assert_int_equal(v[SD_CAT_VALUE - 1], c->value[NUMBER(key)]);
	}
	assert_int_equal(n, c->nr);
	for (i = 0; i < KEYS; i++)
		assert_int_equal(!!sd_cat_get(s, KEY(i)), c->have[i]);
}

static void cat_neighbours(struct sd_store *s, const struct cat_model *c, u32 id)
{
	u64 key;
	void *v = sd_cat_prev(s, KEY(id), &key);
	s32 i;

	for (i = id; i >= 0 && !c->have[i]; i--)
		;
	if (i >= 0)
		assert_int_equal(key, KEY(i));
	else
		assert_true(!v || SD_CAT_TYPE(key) != TYPE);
	v = sd_cat_next(s, KEY(id), &key);
	for (i = id; i < (s32)KEYS && !c->have[i]; i++)
		;
	if (i < (s32)KEYS)
		assert_int_equal(key, KEY(i));
	else
		assert_true(!v || SD_CAT_TYPE(key) != TYPE);
}

static void cat_random(struct sd_store *s, struct cat_model *c, u64 *seed, u32 steps, u32 range, u32 puts)
{
	u8 value[SD_CAT_VALUE];

	while (steps--) {
		u32 id = dice(seed, range);

		if (dice(seed, 10) < puts) {
			memset(value, dice(seed, 256), sizeof(value));
			((struct sd_disk_gen *)value)->state = cpu_to_le32(SD_GEN_LOST);
			assert_int_equal(sd_cat_put(s, KEY(id), value), 0);
			c->nr += !c->have[id];
			c->have[id] = true;
			c->value[id] = value[0];
		} else {
			sd_cat_del(s, KEY(id));
			c->nr -= c->have[id];
			c->have[id] = false;
		}
		if (!dice(seed, 8))
			cat_neighbours(s, c, dice(seed, KEYS));
	}
}

static void catalog_against_an_array(void **state)
{
	static const struct {
		u32 steps, range, puts;
	} phases[] = {
		{ 3000, KEYS, 9 }, { 500, 40, 5 }, { 4000, KEYS, 5 }, { 6000, KEYS, 0 }, { 10, KEYS, 10 }, { 3000, KEYS, 8 }, { 30000, KEYS, 0 },
	};
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct cat_model *c = calloc(1, sizeof(*c));
	u64 seed = 3;
	u32 i, k;

	s->sum.highest = KEYS;
	for (i = 0; i < ARRAY_SIZE(phases); i++) {
		for (k = 0; k < 4; k++) {
			cat_random(s, c, &seed, phases[i].steps / 4, phases[i].range, phases[i].puts);
			cat_compare(s, c);
			checkpoint(s);
			assert_clean(s);
			if (k == 3) {
				sd_close(s);
				assert_int_equal(memdev_open(&m, false, &s), 0);
				cat_compare(s, c);
			}
		}
	}
	sd_close(s);
	free(c);
	memdev_exit(&m);
}

/* One entry of many changes: one leaf, one index block, one bitmap and its entry, the superblock. */
static void catalog_writes_little(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u8 value[SD_CAT_VALUE] = { 1 };
	u32 i;
	u64 before;

	for (i = 0; i < 10000; i++)
		assert_int_equal(sd_cat_put(s, SD_CAT_KEY(TYPE, i), value), 0);
	checkpoint(s);
	value[0] = 2;
	assert_int_equal(sd_cat_put(s, SD_CAT_KEY(TYPE, 5000), value), 0);
	before = m.writes;
	checkpoint(s);
	assert_in_range(m.writes - before, 1, 8);
	sd_close(s);
	memdev_exit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_table),
		cmocka_unit_test(memory_table_room),
		cmocka_unit_test(runs_of_all_sizes),
		cmocka_unit_test(catalog_against_an_array),
		cmocka_unit_test(catalog_writes_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
