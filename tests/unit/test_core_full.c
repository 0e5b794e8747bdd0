// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The last of the room. Data leaves a reserve to metadata, but records without data, generations and merges use it up as well: however far they get, a crash leaves a store that
 * opens, with all that was acknowledged.
 */
#include "core_dev.h"

#define CHUNK(i)	((u64)(i) * 1000003 % (1ull << 36))	/* far from each other: leaves hold few */
#define AT_ONCE		512u

/* What a crash now would leave. */
static void crash(const struct memdev *m, struct memdev *after)
{
	memdev_init(after, m->dev.nr_blocks);
	memcpy(after->data, m->data, m->dev.nr_blocks * SD_BLOCK_SIZE);
}

static u32 live_gens(struct sd_store *s)
{
	struct sd_gen gen;
	u32 from = 1, n = 0;

	for (; !sd_gen_next(s, from, &gen); from = gen.number + 1)
		n += gen.state == SD_GEN_LIVE;
	return n;
}

static void assert_crash_opens(const struct memdev *m, struct sd_store *before, bool clean)
{
	struct memdev after;
	struct sd_store *s;

	crash(m, &after);
	assert_int_equal(memdev_open(&after, false, &s), 0);
	assert_false(s->failed);
	assert_int_equal(s->j.done_seq, before->j.done_seq);
	assert_int_equal(live_gens(s), live_gens(before));
	if (clean)
		assert_clean(s);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	sd_close(s);
	memdev_exit(&after);
}

/* Copies of [from, from + nr) under the highest generation. Return: how many were taken, or what the core said */
static int add(struct memdev *m, struct sd_store *s, u32 from, u32 nr, u32 kind)
{
	struct sd_item items[AT_ONCE];
	struct sd_group *g;
	u8 *buf = malloc(s->chunk_size);
	int taken, i;

	for (i = 0; i < (int)nr; i++) {
		items[i] = (struct sd_item){ .chunk = CHUNK(from + i), .kind = kind };
		fill_content(buf, s->chunk_size, items[i].chunk, s->sum.highest);
		items[i].crc = kind == SD_KIND_DATA ? crc32c(~0u, buf, s->chunk_size) : 0;
	}
	assert_int_equal(sd_group_begin(s, &g), 0);
	taken = sd_group_add_items(s, g, items, nr);
	if (taken < 0) {
		sd_group_destroy(s, g);
		free(buf);
		return taken;
	}
	for (i = 0; i < taken && kind == SD_KIND_DATA; i++) {
		fill_content(buf, s->chunk_size, items[i].chunk, s->sum.highest);
		mem_write(m, items[i].addr, s->chunk_blocks, buf);
	}
	group_end(m, s, g);
	free(buf);
	return taken;
}

/* One step, cut in the middle. Return: as sd_step_begin() */
static int step(struct memdev *m, struct sd_store *s, u32 flags)
{
	struct sd_step *st;
	int err = sd_step_begin(s, flags, &st);

	if (err)
		return err;
	assert_int_equal(sd_step_run(st), 0);
	assert_crash_opens(m, s, false);
	assert_int_equal(sd_step_prepare(st), 0);
	assert_int_equal(sd_step_write(st), 0);
	assert_int_equal(sd_step_end(st, 0), 0);
	return 0;
}

static void some_work(struct memdev *m, struct sd_store *s)
{
	u32 n = 0;

	while (sd_background_work(s) >= SD_WORK_SOON && n++ < 8 && !step(m, s, 0))
		;
}

/* Until there is no room for one more. */
static u32 fill_up(struct memdev *m, struct sd_store *s, u32 kind, u32 *next)
{
	u32 n = 0, refused = 0, first = *next;

	while (refused < 4) {
		int ret = add(m, s, *next, kind == SD_KIND_DATA ? 64 : AT_ONCE, kind);

		if (ret > 0) {
			*next += ret;
			refused = 0;
		} else {
			assert_true(ret == -ENOSPC || ret == -EAGAIN);
			if (refused++)
				step(m, s, SD_STEP_CHECKPOINT);
		}
		some_work(m, s);
		if (++n % 16 == 0 || refused)
			assert_crash_opens(m, s, false);
	}
	return *next - first;
}

static void records_without_data(void **state)
{
	u32 next = 0;
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);

	put_gen(&m, s, 1, SD_GEN_LIVE);
	assert_true(fill_up(&m, s, SD_KIND_DATA, &next));
	assert_true(fill_up(&m, s, SD_KIND_ZERO, &next));
	assert_int_equal(live_gens(s), 1);
	assert_crash_opens(&m, s, true);
	sd_close(s);
	memdev_exit(&m);
}

/* A log of more records than a table has, as two tables leave it: the one that took it is not kept. */
static void a_large_log(void **state)
{
	struct sd_open_opts o = { .mem_records = 1024 };
	struct memdev m, after;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u32 i;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	for (i = 0; i < 2048; i += AT_ONCE)
		assert_int_equal(add(&m, s, i, AT_ONCE, SD_KIND_ZERO), AT_ONCE);
	crash(&m, &after);
	sd_close(s);
	memdev_exit(&m);
	assert_int_equal(sd_open(&after.dev, &o, &s), 0);
	assert_int_equal(s->records_run, 2048);
	assert_int_equal(sd_mem_room(s->cur->active), 1024);
	assert_int_equal(sd_mem_room(s->spare), 1024);
	sd_close(s);
	memdev_exit(&after);
}

/* Too many of them is not "no room": what helps is another thing. */
static void a_generation_more(void **state)
{
	struct sd_gen gen = { .number = 1, .state = SD_GEN_LIVE };
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_group *g;
	u64 avail = s->alloc.avail;

	assert_int_equal(sd_group_begin(s, &g), 0);
	s->nr_gens = SD_MAX_GENS;
	assert_int_equal(sd_group_put_gen(s, g, &gen), -EMFILE);
	s->nr_gens = 0;
	s->alloc.avail = sd_alloc_floor(s, 0) + 7;
	assert_int_equal(sd_group_put_gen(s, g, &gen), -ENOSPC);
	s->alloc.avail = avail;
	assert_int_equal(sd_group_put_gen(s, g, &gen), 0);
	group_end(&m, s, g);
	assert_int_equal(live_gens(s), 1);
	sd_close(s);
	memdev_exit(&m);
}

/* ---- no room at all, as no version of now would leave it ------------------------------------------------------------------------------ */

#define EACH	400u

/* Runs, each a generation's copies of the same chunks. */
static struct sd_store *some_runs(struct memdev *m, u32 nr)
{
	struct sd_store *s;
	u32 g, i;

	memdev_init(m, SD_MIN_DIFF_BLOCKS + 1);
	m->dev.nr_blocks--;
	assert_int_equal(memdev_format(m, 4096, 0), 0);
	assert_int_equal(memdev_open(m, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	for (g = 1; g <= nr; g++) {
		put_gen(m, s, g, SD_GEN_LIVE);
		for (i = 0; i < EACH; i += 50)
			assert_int_equal(add(m, s, i, 50, SD_KIND_DATA), 50);
		checkpoint(s);
	}
	return s;
}

/* Those that a merge wants. */
static struct sd_store *four_runs(struct memdev *m)
{
	struct sd_store *s = some_runs(m, 4);

	assert_int_equal(sd_background_work(s), SD_WORK_SOON);
	return s;
}

/* A transaction that leaves the log as it is, and of the room @leave blocks, before its own catalog is placed. */
static void use_up(struct memdev *m, struct sd_store *s, u64 leave)
{
	struct sd_blocks hog = { 0 };
	struct sd_step *st;
	u64 n;

	m->dev.nr_blocks++;
	assert_int_equal(sd_step_begin(s, SD_STEP_GROW, &st), 0);
	assert_int_equal(sd_step_run(st), 0);
	n = s->alloc.avail - leave;
	assert_int_equal(sd_alloc_take_list(s, n, &hog), 0);
	sd_alloc_settle(s, &hog, n);
	assert_int_equal(sd_step_prepare(st), 0);
	assert_int_equal(sd_step_write(st), 0);
	assert_int_equal(sd_step_end(st, 0), 0);
}

static void assert_content(struct memdev *m, struct sd_store *s, u32 gen, u32 nr)
{
	u8 want[4096];
	u32 i;

	for (i = 0; i < nr; i++) {
		struct sd_rec rec = lookup(s, CHUNK(i), gen);

		assert_int_equal(rec.kind, SD_KIND_DATA);
		fill_content(want, sizeof(want), CHUNK(i), gen);
		assert_memory_equal(m->data + rec.addr * SD_BLOCK_SIZE, want, sizeof(want));
	}
}

static u32 opens_with(u64 leave, u32 log, bool *failed)
{
	struct memdev m, after;
	struct sd_store *s = some_runs(&m, 3);
	struct sd_check_result r;
	struct sd_gen gen;
	u32 live, i;

	put_gen(&m, s, 4, SD_GEN_LIVE);
	for (i = 0; i < log; i += 50)
		assert_int_equal(add(&m, s, i, 50, SD_KIND_DATA), 50);
	use_up(&m, s, leave);
	crash(&m, &after);
	sd_close(s);
	memdev_exit(&m);
	assert_int_equal(memdev_open(&after, false, &s), 0);
	*failed = s->failed;
	live = live_gens(s);
	for (i = 1; i <= 4; i++) {
		assert_int_equal(sd_gen_find(s, i, &gen), 0);
		assert_int_equal(gen.state, i > 4 - live ? SD_GEN_LIVE : SD_GEN_LOST);
		if (gen.state == SD_GEN_LIVE)
			assert_content(&after, s, i, i == 4 ? log : EACH);
	}
	assert_int_equal(!*after.said, live == 4);
	if (!*failed) {
		assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
		assert_int_equal(r.blocks_missing + r.data_bad, 0);
		assert_int_equal(sd_attach(s, 1 << 20), 0);
	}
	sd_close(s);
	/* What was given up stays so. */
	assert_int_equal(memdev_open(&after, false, &s), 0);
	assert_int_equal(s->failed, *failed);
	assert_int_equal(live_gens(s), live);
	sd_close(s);
	memdev_exit(&after);
	return live;
}

static void generations_are_given_up_at_last(void **state)
{
	bool failed, some_lost = false, all_lost = false, any_failed = false;
	u32 live, before = 0, leave;

	for (leave = 8; leave < 48; leave++) {
		live = opens_with(leave, 1000, &failed);
		assert_true(live >= before);	/* the more room, the less is lost */
		some_lost |= live && live < 4;
		all_lost |= !live && !failed;
		any_failed |= failed;
		before = live;
	}
	assert_int_equal(live, 4);
	assert_true(some_lost && all_lost && any_failed);
}

/* ---- damage ------------------------------------------------------------------------------------------------------------------------------- */

/* One of the runs that are to be merged cannot be read: what a lost generation had in another one comes back nevertheless. */
static void damage_stops_one_run(void **state)
{
	struct memdev m;
	struct sd_store *s = four_runs(&m);
	struct sd_group *g;
	u64 avail;
	u32 n = 0;

	memset(m.data + s->cur->runs[1]->seg[0].root * SD_BLOCK_SIZE + 64, 0x5a, 100);
	assert_int_equal(sd_step_whole(s, 0), -EUCLEAN);
	assert_false(s->failed);
	assert_int_equal(sd_group_begin(s, &g), 0);
	assert_int_equal(sd_group_lose_gens(s, g, 4, 4, false), 0);
	group_end(&m, s, g);
	avail = s->alloc.avail;
	while (sd_background_work(s) && n++ < 100)
		sd_step_whole(s, 0);
	checkpoint(s);
	assert_false(s->failed);
	assert_true(s->alloc.avail >= avail + EACH - 20);
	assert_content(&m, s, 1, EACH);
	assert_content(&m, s, 3, EACH);
	sd_close(s);
	memdev_exit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_without_data),
		cmocka_unit_test(a_large_log),
		cmocka_unit_test(a_generation_more),
		cmocka_unit_test(generations_are_given_up_at_last),
		cmocka_unit_test(damage_stops_one_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
