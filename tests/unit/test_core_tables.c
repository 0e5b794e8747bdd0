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
			r[i].kind = 1 + dice(seed, 4);
			r[i].crc = r[i].kind == SD_KIND_DATA ? dice(seed, 1 << 30) : 0;
			r[i].addr = r[i].kind == SD_KIND_DATA ? dice(seed, 1 << 30) : 0;
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

/* The table never runs out of arena before it is full. */
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

/* Key @i of a table in which nodes have about @fan children: digits of 6 bits, those of the generation first, then those of the chunk. */
static struct sd_rec branching(u32 i, u32 fan, u32 skip)
{
	struct sd_rec r = { .gen = 0, .kind = SD_KIND_ZERO };
	u32 pos;

	for (pos = skip; i; pos++, i /= fan) {
		u64 digit = fan == 64 ? i % fan : i % fan * 63 / (fan - 1);

		if (pos < 5)
			r.gen |= digit << 6 * pos;
		else
			r.chunk |= digit << 6 * (pos - 5);
	}
	return r;
}

/*
 * What a record takes depends on how many children nodes have. The arena is as large as the worst of it (the sanitizer sees what is behind), and whatever
 * the shape, all records are found, in order.
 */
static void memory_table_shapes(void **state)
{
	static const u32 fans[] = { 2, 3, 4, 5, 6, 16, 17, 18, 64 };
	u64 seed = 7;
	u32 f, skip, i;

	for (f = 0; f < ARRAY_SIZE(fans); f++) {
		for (skip = 0; skip < 6; skip += 1 + skip) {
			u32 nr = fans[f] == 2 ? min(5000u, 1u << (13 - skip)) : 5000, n = 0, got;
			struct sd_rec *r = malloc(nr * sizeof(*r)), *all = malloc(nr * sizeof(*all)), last = { .chunk = 0 };
			struct sd_mem *m = sd_mem_alloc(nr);

			for (i = 0; i < nr; i++)
				r[i] = branching(i, fans[f], skip);
			for (i = nr; i > 1; i--) {
				u32 k = dice(&seed, i);
				struct sd_rec t = r[i - 1];

				r[i - 1] = r[k];
				r[k] = t;
			}
			for (i = 0; i < nr; i++)
				sd_mem_insert(m, &r[i]);
			assert_int_equal(sd_mem_count(m), nr);
			assert_int_equal(sd_mem_room(m), 0);
			qsort(r, nr, sizeof(*r), by_key);
			while ((got = sd_mem_fetch(m, last.chunk, last.gen, all + n, min(nr - n, 1 + dice(&seed, 200))))) {
				n += got;
				last = all[n - 1];
				last.gen++;
				if (n == nr)
					break;
			}
			assert_int_equal(n, nr);
			for (i = 0; i < nr; i++)
				assert_rec(&all[i], &r[i]);
			sd_mem_put(m);
			free(r);
			free(all);
		}
	}
}

/* The ends of what a key can be, and what is asked for beside them. */
static void memory_table_ends(void **state)
{
	static const u64 chunks[] = { 0, 1, 63, 64, 1ull << 51, SD_MAX_CHUNKS - 2, SD_MAX_CHUNKS - 1 };
	static const u32 gens[] = { 0, 1, 63, 64, 1u << 31, U32_MAX - 1, U32_MAX };
	u32 nr = ARRAY_SIZE(chunks) * ARRAY_SIZE(gens), i, k;
	struct sd_mem *m = sd_mem_alloc(nr);
	struct sd_rec got[64];

	for (i = nr; i; i--) {
		k = i * 29 % nr;
		sd_mem_insert(m, &(struct sd_rec){ .chunk = chunks[k / ARRAY_SIZE(gens)], .gen = gens[k % ARRAY_SIZE(gens)], .crc = k, .kind = 2 });
	}
	assert_int_equal(sd_mem_count(m), nr);
	for (i = 0; i < nr; i++) {
		assert_int_equal(sd_mem_fetch(m, chunks[i / ARRAY_SIZE(gens)], gens[i % ARRAY_SIZE(gens)], got, 64), nr - i);
		for (k = i; k < nr; k++)
			assert_int_equal(got[k - i].crc, k);
	}
	assert_int_equal(sd_mem_fetch(m, 65, 0, got, 1), 1);
	assert_int_equal(got[0].crc, 4 * ARRAY_SIZE(gens));
	assert_int_equal(sd_mem_fetch(m, 64, 65, got, 1), 1);
	assert_int_equal(got[0].crc, 3 * ARRAY_SIZE(gens) + 4);
	assert_int_equal(sd_mem_fetch(m, SD_MAX_CHUNKS, 0, got, 1), 0);
	assert_int_equal(sd_mem_fetch(m, 0, 0, got, 0), 0);
	sd_mem_put(m);
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
	assert_in_range(b.used, 1, sd_run_blocks(nr));
	assert_int_equal(b.seg.blocks, b.used);
	assert_int_equal(!b.seg.levels, b.used == 1);
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

/* ---- leaves -------------------------------------------------------------------------------------------------- */

struct shape { u64 chunk, addr; u32 gen, kinds; };	/* how far apart the values are; how many kinds there are */

static struct sd_rec shaped(u64 *seed, const struct shape *h, const struct sd_rec *last)
{
	struct sd_rec r = { .chunk = last->chunk, .gen = last->gen, .kind = 1 + dice(seed, h->kinds) };
	u64 step = h->chunk ? (u64)dice(seed, 1u << 31) * dice(seed, 1u << 31) % h->chunk : 0;

	if (h->kinds > 4)
		r.kind = 4;
	if (step > U64_MAX - r.chunk)
		step = 0;
	r.chunk += step;
	r.gen = step ? dice(seed, h->gen) : last->gen + 1;
	if (r.kind == SD_KIND_DATA) {
		r.crc = dice(seed, 1 << 30) * 4;
		r.addr = (u64)dice(seed, 1u << 31) * dice(seed, 1u << 31) % h->addr;
	}
	return r;
}

/* Full leaves of records of many shapes are what was put in; no leaf is full too early, and none could have taken one more. */
static void leaves_are_what_was_packed(void **state)
{
	static const struct shape shapes[] = {
		{ 2, 1, 1, 1 }, { 2, 1 << 20, 1, 1 }, { 1000, 1 << 24, 100, 1 }, { 1000, 1 << 24, 100, 4 }, { 3, 1, 1, 5 }, { 1 << 10, 1, 4, 5 },
		{ 1ull << 55, 1ull << 48, 0x7fffffff, 1 }, { 1ull << 57, 1ull << 48, 0x7fffffff, 4 }, { 0, 1ull << 33, 1, 2 },
	};
	struct sd_disk_leaf *b = sd_malloc(SD_BLOCK_SIZE);
	struct sd_packer p = { .most = SD_LEAF_MOST, .rec = malloc(SD_LEAF_MOST * sizeof(*p.rec)) };
	u64 seed = 7;
	u32 i, k, n;

	for (i = 0; i < 20 * ARRAY_SIZE(shapes); i++) {
		const struct shape *h = &shapes[i % ARRAY_SIZE(shapes)];
		struct sd_rec last = { .chunk = dice(&seed, 2) ? (u64)dice(&seed, 1u << 31) << 25 : 5, .gen = 1 }, next, got;
		struct sd_leaf l;

		sd_packer_reset(&p);
		while (sd_packer_add(&p, (next = shaped(&seed, h, &last), &next)))
			last = next;
		assert_in_range(p.nr, SD_LEAF_FEWEST, SD_LEAF_MOST);
		memset(b, 0xff, SD_BLOCK_SIZE);
		sd_packer_write(&p, b);
		assert_true(sd_leaf_valid(b));
		sd_leaf_open(&l, b);
		assert_int_equal(l.nr, p.nr);
		for (k = 0; k < l.nr; k++) {
			sd_leaf_get(&l, k, &got);
			assert_rec(&got, &p.rec[k]);
			assert_int_equal(sd_leaf_find(&l, got.chunk, got.gen), k);
			n = sd_leaf_find(&l, got.chunk, got.gen + 1);
			assert_int_equal(n, k + 1);
		}
		for (k = offsetof(struct sd_disk_leaf, row) + l.nr * l.stride; k < SD_BLOCK_SIZE; k++)
			assert_int_equal(((u8 *)b)[k], 0);
	}
	free(p.rec);
	sd_free(b);
}

/* The highest values there are: a base may not stand so high that its column could overflow. */
static void leaves_of_the_highest(void **state)
{
	struct sd_disk_leaf *b = sd_malloc(SD_BLOCK_SIZE);
	struct sd_packer p = { .most = SD_LEAF_MOST, .rec = malloc(SD_LEAF_MOST * sizeof(*p.rec)) };
	struct sd_rec got, r[3] = {
		{ .chunk = U64_MAX - 1, .gen = U32_MAX - 1, .crc = U32_MAX - 2, .addr = (1ull << 48) - 3, .kind = SD_KIND_DATA },
		{ .chunk = U64_MAX, .gen = 1, .kind = 255 },
		{ .chunk = U64_MAX, .gen = U32_MAX, .crc = U32_MAX, .addr = (1ull << 48) - 1, .kind = SD_KIND_DATA },
	};
	struct sd_leaf l;
	u32 i;

	sd_packer_reset(&p);
	for (i = 0; i < 3; i++)
		assert_true(sd_packer_add(&p, &r[i]));
	sd_packer_write(&p, b);
	assert_true(sd_leaf_valid(b));
	sd_leaf_open(&l, b);
	for (i = 0; i < 3; i++) {
		sd_leaf_get(&l, i, &got);
		assert_rec(&got, &r[i]);
	}
	for (i = 0; i < SD_COLUMNS; i++) {	/* one more, and it could */
		u64 base = le64_to_cpu(b->base[i]);

		assert_true(b->width[i]);
		b->base[i] = cpu_to_le64(base + 1);
		assert_false(sd_leaf_valid(b));
		b->base[i] = cpu_to_le64(base);
	}
	assert_true(sd_leaf_valid(b));
	free(p.rec);
	sd_free(b);
}

/* Of what stands before them, records of other kinds have no checksum and no address: these columns begin with the first DATA. */
static void columns_that_begin_late(void **state)
{
	struct sd_disk_leaf *b = sd_malloc(SD_BLOCK_SIZE);
	struct sd_packer p = { .most = SD_LEAF_MOST, .rec = malloc(SD_LEAF_MOST * sizeof(*p.rec)) };
	struct sd_rec got, r[4] = {
		{ .chunk = 1, .gen = 1, .kind = SD_KIND_MARK }, { .chunk = 2, .gen = 1, .kind = SD_KIND_DATA },
		{ .chunk = 3, .gen = 1, .kind = SD_KIND_ZERO }, { .chunk = 4, .gen = 1, .crc = 5, .addr = 7, .kind = SD_KIND_DATA },
	};
	struct sd_leaf l;
	u32 i, first;

	for (first = 0; first < 2; first++) {
		sd_packer_reset(&p);
		r[1].kind = first ? SD_KIND_DATA : SD_KIND_BAD;
		for (i = 0; i < 4; i++)
			assert_true(sd_packer_add(&p, &r[i]));
		sd_packer_write(&p, b);
		assert_true(sd_leaf_valid(b));
		assert_int_equal(b->width[SD_COL_CRC], first);
		assert_int_equal(b->width[SD_COL_ADDR], first);
		sd_leaf_open(&l, b);
		for (i = 0; i < 4; i++) {
			sd_leaf_get(&l, i, &got);
			assert_rec(&got, &r[i]);
		}
	}
	free(p.rec);
	sd_free(b);
}

/* Whatever is in a block: what passes the check can be read without leaving it (the sanitizer looks on), and has an order. */
static void hostile_leaves(void **state)
{
	static const u8 sane[SD_COLUMNS] = { 3, 1, 1, 4, 3 }, bits[SD_COLUMNS] = { 64, 32, 8, 32, 48 };
	struct sd_disk_leaf *b = malloc(SD_BLOCK_SIZE);
	u32 i, k, n, valid = 0;
	u64 seed = 11;

	for (i = 0; i < 200000; i++) {
		struct sd_rec rec, last = { 0 };
		struct sd_leaf l;

		memset(b, 0, 112);
		for (k = 0; k < SD_COLUMNS; k++) {
			b->width[k] = dice(&seed, 20) ? sane[k] * dice(&seed, 2) : dice(&seed, 256);
			b->base[k] = cpu_to_le64(((u64)dice(&seed, 1u << 31) << 33 | dice(&seed, 1u << 31)) >>
						 (dice(&seed, 20) ? 64 - bits[k] + dice(&seed, bits[k]) : dice(&seed, 64)));
		}
		n = dice(&seed, 2) ? dice(&seed, 4) : dice(&seed, 2000);
		b->hdr.nr = cpu_to_le16(n);
		for (k = 0; k < 40; k++)
			b->row[k] = dice(&seed, 256);
		if (i % 1000 == 0)
			memset(b->row, 0, sizeof(b->row));
		if (!sd_leaf_valid(b))
			continue;
		valid++;
		sd_leaf_open(&l, b);
		sd_leaf_find(&l, rec.chunk = dice(&seed, 1u << 31), 1);
		for (k = 0; k < l.nr; k++, last = rec) {
			sd_leaf_get(&l, k, &rec);
			assert_true(!k || by_key(&last, &rec) < 0);
			assert_true(!(rec.addr >> 48) && rec.kind < 256);
			assert_int_equal(sd_leaf_find(&l, rec.chunk, rec.gen), k);
		}
	}
	assert_in_range(valid, 1000, 190000);
	free(b);
}

/* Rows that rise up to the end of the block, and more of them than there are. */
static void rows_behind_the_end(void **state)
{
	struct sd_disk_leaf *b = calloc(1, SD_BLOCK_SIZE);
	u32 i;

	b->width[SD_COL_CHUNK] = 4;
	for (i = 0; i < (SD_BLOCK_SIZE - offsetof(struct sd_disk_leaf, row)) / 4; i++)
		((__le32 *)((u8 *)b + offsetof(struct sd_disk_leaf, row)))[i] = cpu_to_le32(i);
	b->hdr.nr = cpu_to_le16(SD_LEAF_ROWS / 4);
	assert_true(sd_leaf_valid(b));
	for (i = SD_LEAF_ROWS / 4 + 1; i <= 0xffff; i++) {
		b->hdr.nr = cpu_to_le16(i);
		assert_false(sd_leaf_valid(b));
	}
	free(b);
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
		assert_int_equal(total, run->seg[0].blocks);
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
		assert_int_equal(s->alloc.avail, before + sd_run_blocks(sizes[i]));
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
		cmocka_unit_test(memory_table_shapes),
		cmocka_unit_test(memory_table_ends),
		cmocka_unit_test(leaves_are_what_was_packed),
		cmocka_unit_test(leaves_of_the_highest),
		cmocka_unit_test(columns_that_begin_late),
		cmocka_unit_test(hostile_leaves),
		cmocka_unit_test(rows_behind_the_end),
		cmocka_unit_test(runs_of_all_sizes),
		cmocka_unit_test(catalog_against_an_array),
		cmocka_unit_test(catalog_writes_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
