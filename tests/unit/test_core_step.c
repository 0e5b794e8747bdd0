// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The halves of a step, and what happens between them: a checkpoint's table is frozen when it begins, its run is written before the catalog says where it is, and groups go on
 * being committed all the time.
 */
#include "core_dev.h"

#define EACH	600u

static void generation(struct memdev *m, struct sd_store *s, u64 first)
{
	u64 chunks[EACH];
	u32 i;

	put_gen(m, s, s->sum.highest + 1, SD_GEN_LIVE);
	for (i = 0; i < EACH; i++)
		chunks[i] = first + i * 11;
	copy_chunks(m, s, chunks, EACH, SD_KIND_DATA);
}

static struct sd_step *begin(struct sd_store *s, u32 flags)
{
	struct sd_step *st;

	assert_int_equal(sd_step_begin(s, flags, &st), 0);
	return st;
}

static void finish(struct sd_step *st)
{
	assert_int_equal(sd_step_prepare(st), 0);
	assert_int_equal(sd_step_write(st), 0);
	assert_int_equal(sd_step_end(st, 0), 0);
}

static void assert_gen_is(struct sd_store *s, u32 gen, u64 first)
{
	u32 i;

	for (i = 0; i < EACH; i++)
		assert_int_equal(lookup(s, first + i * 11, gen).kind, SD_KIND_DATA);
}

/* What was set aside for the worst of records and not needed comes back, in memory and on disk. */
static void what_a_run_did_not_need(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 before, taken, after;
	struct sd_step *st;
	u32 meta;

	generation(&m, s, 0);
	before = s->alloc.avail;
	st = begin(s, SD_STEP_CHECKPOINT);
	taken = before - s->alloc.avail;
	assert_int_equal(taken, sd_run_blocks(EACH));
	assert_int_equal(sd_step_run(st), 0);
	finish(st);
	after = before - s->alloc.avail;
	meta = s->cat.nr + s->cat.nr_index;
	assert_in_range(s->cur->runs[0]->seg[0].blocks, 2, taken - 1);
	assert_int_equal(after, s->cur->runs[0]->seg[0].blocks + meta);
	assert_int_equal(s->alloc.avail, s->alloc.free);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* A generation goes while its records are neither in the table nor in a run of the catalog. That the run has garbage is known all the same. */
static void deleted_while_frozen(void **state)
{
	struct memdev m;
	struct sd_store *s;
	struct sd_step *st;
	u32 when;

	for (when = 0; when < 4; when++) {
		s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
		generation(&m, s, 0);
		generation(&m, s, 100000);
		generation(&m, s, 200000);
		if (when == 0)
			del_gens(&m, s, 1, 1);
		st = begin(s, SD_STEP_CHECKPOINT);
		assert_int_equal(sd_mem_count(s->cur->active), 0);
		if (when == 1)
			del_gens(&m, s, 1, 1);
		assert_int_equal(sd_step_run(st), 0);
		if (when == 2)
			del_gens(&m, s, 1, 1);
		assert_int_equal(sd_step_prepare(st), 0);
		if (when == 3)
			del_gens(&m, s, 1, 1);
		assert_int_equal(sd_step_write(st), 0);
		assert_int_equal(sd_step_end(st, 0), 0);
		assert_int_equal(s->cur->nr_runs, 1);
		assert_true(s->cur->runs[0]->flags & SD_RUN_F_PURGE);
		assert_in_range(s->cur->runs[0]->garbage, 1, 3 * EACH);
		until_idle(s);
		assert_int_equal(s->cur->runs[0]->records, 2 * EACH);
		assert_gen_is(s, 2, 100000);
		assert_gen_is(s, 3, 200000);
		assert_clean(s);
		sd_close(s);
		memdev_exit(&m);
	}
}

/* Records of later groups are not the frozen table's: what is garbage among them is not forgotten with its. */
static void garbage_of_both_tables(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_step *st;

	generation(&m, s, 0);
	st = begin(s, SD_STEP_CHECKPOINT);
	generation(&m, s, 100000);
	generation(&m, s, 200000);
	assert_int_equal(sd_step_run(st), 0);
	del_gens(&m, s, 1, 2);
	finish(st);
	assert_true(s->cur->runs[0]->flags & SD_RUN_F_PURGE);
	assert_true(s->mem_garbage);
	assert_in_range(s->mem_unneeded, EACH, 2 * EACH);
	checkpoint(s);
	until_idle(s);
	assert_gen_is(s, 3, 200000);
	assert_int_equal(s->records_run, EACH);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* Copies for a generation that was deleted while they were in flight, committed after the table was frozen: nobody needs them, and the next table still knows. */
static void garbage_in_flight(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_item items[64];
	struct sd_group *del, *late;
	struct sd_step *st;
	u32 i;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_chunk(&m, s, 5);
	assert_int_equal(sd_group_begin(s, &del), 0);
	assert_int_equal(sd_group_del_gens(s, del, 1, 1), 0);
	assert_int_equal(sd_group_seal(s, del), 0);
	for (i = 0; i < ARRAY_SIZE(items); i++)
		items[i] = (struct sd_item){ .chunk = 100 + i, .kind = SD_KIND_DATA };
	assert_int_equal(sd_group_begin(s, &late), 0);
	assert_int_equal(sd_group_add_items(s, late, items, ARRAY_SIZE(items)), ARRAY_SIZE(items));
	assert_int_equal(sd_group_seal(s, late), 0);
	sd_group_commit(s, del);
	st = begin(s, SD_STEP_CHECKPOINT);
	sd_group_commit(s, late);
	assert_int_equal(sd_step_run(st), 0);
	finish(st);
	assert_true(s->mem_garbage);
	checkpoint(s);
	assert_false(s->mem_garbage);
	until_idle(s);
	assert_int_equal(s->records_run, 0);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* Groups of the time between freezing and preparing: their changes of generations are in the catalog, their copies behind the journal's tail. After a crash both are there once. */
static void groups_meanwhile(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_step *st;
	struct sd_gen g;
	u32 when;

	for (when = 0; when < 4; when++) {
		generation(&m, s, when * 100000);
		st = begin(s, SD_STEP_CHECKPOINT);
		if (when == 1)
			generation(&m, s, 500000);
		assert_int_equal(sd_step_run(st), 0);
		if (when == 2)
			generation(&m, s, 600000);
		finish(st);
	}
	sd_close(s);		/* a crash */
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(s->sum.highest, 6);
	for (when = 1; when <= 6; when++) {
		assert_int_equal(sd_gen_next(s, when, &g), 0);
		assert_int_equal(g.changed, EACH);
	}
	assert_gen_is(s, 1, 0);
	assert_gen_is(s, 3, 500000);
	assert_gen_is(s, 5, 600000);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* A merge meets damage; the checkpoint in the same step is made all the same, and the error is said. */
static void checkpoint_beside_a_broken_merge(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_step *st;
	u32 i;

	for (i = 0; i < SD_MERGE_WIDTH; i++) {
		generation(&m, s, i);
		checkpoint(s);
	}
	m.data[s->cur->runs[1]->seg[0].root * SD_BLOCK_SIZE + 1000] ^= 1;
	s->mem_records = 2 * EACH;	/* more than half full: soon */
	generation(&m, s, 500000);
	st = begin(s, 0);
	assert_non_null(st->merge);
	assert_non_null(st->frozen);
	assert_int_equal(sd_step_run(st), 0);
	assert_int_equal(sd_step_prepare(st), 0);
	assert_int_equal(sd_step_write(st), 0);
	assert_int_equal(sd_step_end(st, 0), -EUCLEAN);
	assert_false(s->failed);
	assert_int_equal(s->cur->nr_runs, SD_MERGE_WIDTH + 1);
	assert_int_equal(s->alloc.avail, s->alloc.free);	/* what the merge had taken, too */
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(s->replayed_groups, 0);
	assert_gen_is(s, 1, 0);
	assert_gen_is(s, 5, 500000);
	sd_close(s);
	memdev_exit(&m);
}

/* A record that names a place where no data can be, and which is not needed any more: damage of its run, not of the transaction that would give the place back. */
static void data_outside_of_the_groups(void **state)
{
	const struct sd_rec hostile = { .chunk = 900000, .gen = 2, .kind = SD_KIND_DATA, .addr = 3 };	/* the journal's */
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u32 i;

	for (i = 0; i < SD_MERGE_WIDTH; i++) {
		generation(&m, s, i);
		if (i == 1)
			sd_mem_insert(s->cur->active, &hostile);
		if (i == SD_MERGE_WIDTH - 1)
			del_gens(&m, s, 1, 2);
		checkpoint(s);
	}
	for (i = 0; i < 10 && !s->failed; i++)
		sd_step_whole(s, 0);
	assert_false(s->failed);
	for (i = 0; i < s->cur->nr_runs; i++)
		assert_int_equal(s->cur->runs[i]->broken, s->cur->runs[i]->gen_min == 2);
	generation(&m, s, 500000);
	checkpoint(s);
	for (i = 0; i < 10 && !s->failed; i++)
		sd_step_whole(s, 0);
	assert_false(s->failed);
	assert_gen_is(s, 3, 2);
	assert_gen_is(s, 5, 500000);
	sd_close(s);
	memdev_exit(&m);
}

/* There is no way back for a frozen table: if its run cannot be written the store has failed. */
static int no_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	return -EIO;
}

static void run_that_cannot_be_written(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	const struct sd_dev_ops *good = m.dev.ops;
	struct sd_dev_ops bad = *good;
	struct sd_step *st;

	bad.write = no_write;
	generation(&m, s, 0);
	st = begin(s, SD_STEP_CHECKPOINT);
	m.dev.ops = &bad;
	assert_int_equal(sd_step_run(st), -EIO);
	m.dev.ops = good;
	assert_int_equal(sd_step_end(st, -EIO), -EIO);
	assert_true(s->failed);
	sd_close(s);
	assert_int_equal(memdev_open(&m, true, &s), 0);
	assert_true(s->failed);
	sd_close(s);
	memdev_exit(&m);
}

/* A bitmap that has been copied for the transaction is not on the disk yet: whoever needs its group meanwhile must not read it there, however few pages there are. */
static void bitmaps_on_their_way(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, 2 + 128 + 3ull * SD_GROUP_BLOCKS, 4096, 128);
	struct sd_bpage *p;
	struct sd_step *st;
	u32 i;

	s->alloc.max_pages = 1;
	generation(&m, s, 0);
	st = begin(s, SD_STEP_CHECKPOINT);
	assert_int_equal(sd_step_run(st), 0);
	assert_int_equal(sd_step_prepare(st), 0);
	for (i = 0; i < 2 * s->alloc.nr_groups; i++)
		assert_int_equal(sd_alloc_get_page(s, i % s->alloc.nr_groups, &p), 0);
	assert_int_equal(sd_step_write(st), 0);
	assert_int_equal(sd_step_end(st, 0), 0);
	for (i = 0; i < s->alloc.nr_groups; i++)
		assert_false(s->alloc.g[i].in_step);	/* they can go again */
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* Fills the table in memory until writers would have to wait. */
static void fill_table(struct memdev *m, struct sd_store *s, u64 *chunk)
{
	u64 chunks[256];
	u32 i;

	while (sd_background_work(s) != SD_WORK_NOW) {
		for (i = 0; i < ARRAY_SIZE(chunks); i++)
			chunks[i] = (*chunk)++;
		copy_chunks(m, s, chunks, ARRAY_SIZE(chunks), SD_KIND_ZERO);
	}
}

static int step_now(struct sd_store *s)
{
	return sd_step_whole(s, 0);
}

/*
 * A reader holds a version for as long as his device takes to answer. Writers do not wait for him: what he has stays, the tables that come and go meanwhile do not.
 * With many such readers at different times no more memory is added, and it is as if there were no room.
 */
static void slow_readers(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_version *held[16];
	struct sd_rec rec;
	u64 chunk = 0;
	u32 i, nr = 0;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	fill_table(&m, s, &chunk);
	held[nr++] = sd_version_get(s);
	for (i = 0; i < 8; i++) {
		assert_int_equal(step_now(s), 0);
		fill_table(&m, s, &chunk);
	}
	assert_int_equal(sd_version_held(s), 1);
	assert_int_equal(sd_lookup(held[0], 0, 1, &rec), 0);
	assert_int_equal(rec.kind, SD_KIND_ZERO);
	do {
		assert_true(nr < ARRAY_SIZE(held));
		held[nr++] = sd_version_get(s);
		i = step_now(s);
		if (!i)
			fill_table(&m, s, &chunk);
	} while (!i);
	assert_int_equal((int)i, -EAGAIN);
	assert_in_range(nr, 3, 8);
	while (nr)
		sd_version_put(held[--nr]);
	assert_int_equal(step_now(s), 0);
	assert_int_equal(sd_version_held(s), 0);
	until_idle(s);
	for (i = 0; i < chunk; i += 97)
		assert_int_equal(lookup(s, i, 1).kind, SD_KIND_ZERO);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_run_did_not_need),
		cmocka_unit_test(deleted_while_frozen),
		cmocka_unit_test(garbage_of_both_tables),
		cmocka_unit_test(garbage_in_flight),
		cmocka_unit_test(groups_meanwhile),
		cmocka_unit_test(checkpoint_beside_a_broken_merge),
		cmocka_unit_test(data_outside_of_the_groups),
		cmocka_unit_test(run_that_cannot_be_written),
		cmocka_unit_test(bitmaps_on_their_way),
		cmocka_unit_test(slow_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
