// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Room, and what giving up a generation would free, against a plain list of all copies that were ever made; and against what does come back.
 */
#include "core_dev.h"

#define CHUNKS	400u
#define GENS	16u

struct copies {
	struct memdev m;
	struct sd_store *s;
	u64 seed;
	u32 highest;
	bool live[GENS + 1];
	bool has[CHUNKS][GENS + 1];	/* copied under this generation */
};

static void cut(struct copies *w)
{
	if (!sd_journal_room(&w->s->j))
		checkpoint(w->s);
	put_gen(&w->m, w->s, ++w->highest, SD_GEN_LIVE);
	w->live[w->highest] = true;
}

static u32 newest_live(const struct copies *w)
{
	u32 g = w->highest;

	while (g && !w->live[g])
		g--;
	return g;
}

static void write_chunks(struct copies *w, u32 first, u32 nr)
{
	u32 i, g, newest = newest_live(w);

	for (i = first; i < first + nr; i++) {
		for (g = newest; g <= w->highest && !w->has[i][g]; g++)
			;
		if (g <= w->highest)
			continue;
		copy_chunk(&w->m, w->s, i);
		w->has[i][w->highest] = true;
	}
}

static void lose(struct copies *w, u32 gen)
{
	struct sd_group *g;

	if (!sd_journal_room(&w->s->j))
		checkpoint(w->s);
	assert_int_equal(sd_group_begin(w->s, &g), 0);
	assert_int_equal(sd_group_lose_gens(w->s, g, gen, gen, false), 0);
	group_end(&w->m, w->s, g);
	w->live[gen] = false;
}

static void ask(struct copies *w, const bool *keep, u32 *live, struct sd_gain_of *of, struct sd_gain *gain)
{
	struct sd_version *v = sd_version_get(w->s);
	u32 g;
	int ret;

	memset(gain, 0, sizeof(*gain));
	gain->live = live;
	gain->gain = of;
	for (g = 1; g <= w->highest; g++) {
		if (!w->live[g])
			continue;
		live[gain->nr] = g;
		of[gain->nr++].keep = keep && keep[g];
	}
	while ((ret = sd_gain(v, gain)) > 0)
		;
	assert_int_equal(ret, 0);
	sd_version_put(v);
}

/* Who needs the copy (c, g): said over all generations, one by one. */
static void naive(const struct copies *w, const bool *keep, u64 *alone, u64 *shared)
{
	u32 c, g, h, n, first;

	for (c = 0; c < CHUNKS; c++) {
		u32 prev = 0;

		for (g = 1; g <= w->highest; g++) {
			bool kept = false;

			if (!w->has[c][g])
				continue;
			for (h = prev + 1, n = first = 0; h <= g; h++) {
				if (!w->live[h])
					continue;
				first = n++ ? first : h;
				kept |= keep[h];
			}
			alone[first] += n == 1;
			shared[first] += n > 1 && !kept;
			prev = g;
		}
	}
}

static void compare(struct copies *w, const bool *keep)
{
	u64 alone[GENS + 1] = { 0 }, shared[GENS + 1] = { 0 };
	struct sd_gain_of of[GENS];
	struct sd_gain gain;
	u32 live[GENS], i;

	naive(w, keep, alone, shared);
	ask(w, keep, live, of, &gain);
	for (i = 0; i < gain.nr; i++) {
		assert_int_equal(of[i].alone, alone[live[i]]);
		assert_int_equal(of[i].shared, shared[live[i]]);
	}
}

static u64 copies_of(struct copies *w)
{
	struct sd_gain_of of[GENS];
	struct sd_gain gain;
	u32 live[GENS];

	ask(w, NULL, live, of, &gain);
	return gain.seen;
}

static void open_copies(struct copies *w, u64 seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->s = memdev_store(&w->m, SD_MIN_DIFF_BLOCKS, 4096, 0);
}

static void close_copies(struct copies *w)
{
	assert_clean(w->s);
	sd_close(w->s);
	memdev_exit(&w->m);
}

static void one_history(u64 seed)
{
	bool keep[GENS + 1] = { false };
	struct copies w;
	u32 i;

	open_copies(&w, seed);
	while (w.highest < GENS) {
		cut(&w);
		for (i = dice(&w.seed, 8); i; i--)
			write_chunks(&w, dice(&w.seed, CHUNKS - 40), 1 + dice(&w.seed, 40));
		if (!dice(&w.seed, 3))
			checkpoint(w.s);
		if (!dice(&w.seed, 3))
			until_idle(w.s);
		if (!dice(&w.seed, 3))
			lose(&w, 1 + dice(&w.seed, w.highest));
		for (i = 1; i <= w.highest; i++)
			keep[i] = !dice(&w.seed, 4);
		compare(&w, keep);
	}
	close_copies(&w);
}

static void gain_is_who_needs_what(void **state)
{
	u64 seed;

	for (seed = 1; seed <= 40; seed++)
		one_history(seed);
}

/* What a generation has alone is what comes back of it, to the block. */
static void gain_comes_back(void **state)
{
	struct sd_gain_of of[GENS];
	struct sd_gain gain;
	struct copies w;
	u32 live[GENS], i;

	open_copies(&w, 7);
	for (i = 0; i < 8; i++) {
		cut(&w);
		write_chunks(&w, dice(&w.seed, 200), 150);
	}
	while (newest_live(&w) > 1) {
		u64 before = copies_of(&w);

		ask(&w, NULL, live, of, &gain);
		i = dice(&w.seed, gain.nr);
		lose(&w, live[i]);
		checkpoint(w.s);
		until_idle(w.s);
		assert_int_equal(before - copies_of(&w), of[i].alone);
	}
	close_copies(&w);
}

/* A pinned old one needs all that was copied for the first time: of the younger ones nothing comes back. */
static void nothing_to_gain(void **state)
{
	bool keep[GENS + 1] = { [1] = true };
	struct sd_gain_of of[GENS];
	struct sd_gain gain;
	struct copies w;
	u32 live[GENS], i;

	open_copies(&w, 1);
	for (i = 0; i < 5; i++) {
		cut(&w);
		write_chunks(&w, i * 50, 50);
	}
	ask(&w, keep, live, of, &gain);
	assert_int_equal(of[0].alone, 50);
	for (i = 1; i < 5; i++)
		assert_int_equal(of[i].alone + of[i].shared, 0);
	write_chunks(&w, 0, 30);	/* for the second time: nobody needs them but 2..5 */
	ask(&w, keep, live, of, &gain);
	assert_int_equal(of[1].shared, 30);
	assert_int_equal(of[1].alone, 0);
	close_copies(&w);
}

/* Between the parts of the answer nothing is held: checkpoints go on, as many as there are, and what had been counted stays right. */
static void gain_lets_checkpoints_pass(void **state)
{
	struct sd_gain_of of[GENS] = { 0 };
	struct sd_gain gain = { .gain = of, .nr = GENS - 1 };
	struct sd_version *v;
	struct copies w;
	u32 live[GENS], parts = 0, i;
	int ret;

	memset(&w, 0, sizeof(w));
	w.s = memdev_store(&w.m, 4 * SD_MIN_DIFF_BLOCKS, 4096, 0);
	for (i = 0; i < GENS - 1; i++) {
		cut(&w);
		live[i] = w.highest;
		write_chunks(&w, 0, CHUNKS);
		checkpoint(w.s);
	}
	until_idle(w.s);
	cut(&w);
	gain.live = live;
	do {
		v = sd_version_get(w.s);
		ret = sd_gain(v, &gain);
		sd_version_put(v);
		assert_in_range(ret, 0, 1);
		for (i = 0; i < 4; i++) {
			write_chunks(&w, (parts * 4 + i) % CHUNKS, 1);
			checkpoint(w.s);
		}
		parts++;
	} while (ret);
	assert_true(parts > 1);
	for (i = 0; i < gain.nr; i++)
		assert_int_equal(of[i].alone, CHUNKS);
	close_copies(&w);
}

/* What is dropped and what nobody needs is announced, until it is there; then nothing is announced any more. */
static void space_is_announced(void **state)
{
	struct sd_space before, lost, after;
	struct sd_version *reader;
	struct copies w;

	open_copies(&w, 3);
	cut(&w);
	write_chunks(&w, 0, 300);
	cut(&w);
	write_chunks(&w, 0, 10);
	checkpoint(w.s);
	until_idle(w.s);
	sd_space(w.s, &before);
	assert_int_equal(before.coming, 0);
	lose(&w, 1);
	sd_space(w.s, &lost);
	assert_in_range(lost.coming, 290, 310);
	reader = sd_version_get(w.s);
	checkpoint(w.s);
	until_idle(w.s);
	sd_space(w.s, &lost);
	assert_in_range(lost.coming, 290, 320);		/* dropped, but the reader's version needs it */
	assert_in_range(lost.room, before.room - 16, before.room + 16);
	sd_version_put(reader);
	sd_space(w.s, &after);
	assert_int_equal(after.coming, 0);
	assert_in_range(after.room, before.room + 280, before.room + 310);
	assert_true(after.room <= after.usable);
	close_copies(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gain_is_who_needs_what),
		cmocka_unit_test(gain_comes_back),
		cmocka_unit_test(nothing_to_gain),
		cmocka_unit_test(gain_lets_checkpoints_pass),
		cmocka_unit_test(space_is_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
