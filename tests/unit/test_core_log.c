// SPDX-License-Identifier: GPL-2.0-or-later
/* The journal: its wrap, its end, its damage; and the rule of merging against brute force. */
#include "core_dev.h"

/* ---- journal -------------------------------------------------------------------------------------------------- */

static void assert_all_there(struct sd_store *s, u64 nr)
{
	u64 c;

	for (c = 0; c < nr; c++)
		assert_int_equal(lookup(s, c, 1).kind, SD_KIND_DATA);
	assert_int_equal(lookup(s, nr, 1).kind, SD_KIND_NONE);
}

static void many_laps(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 4 * SD_GROUP_MAX_BLOCKS + 3);
	u64 seed = 5, c = 0;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	while (c < 1500) {
		u64 list[64];
		u32 n = 1 + dice(&seed, 8), i;

		for (i = 0; i < n; i++)
			list[i] = c++;
		copy_chunks(&m, s, list, n, SD_KIND_DATA);
		if (!dice(&seed, 20))
			checkpoint(s);
		if (!dice(&seed, 10)) {
			sd_close(s);
			assert_int_equal(memdev_open(&m, false, &s), 0);
			assert_int_equal(sd_attach(s, 1 << 20), 0);
			assert_all_there(s, c);
			assert_clean(s);
		}
	}
	assert_true(s->j.done > 10 * s->j.blocks);
	sd_close(s);
	memdev_exit(&m);
}

static void full_until_a_checkpoint(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 4 * SD_GROUP_MAX_BLOCKS);
	struct sd_gen gen = { .number = 1, .state = SD_GEN_LIVE };
	struct sd_group *g;
	u32 n;
	int err;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	for (n = 0;; n++) {
		assert_int_equal(sd_group_begin(s, &g), 0);
		err = sd_group_put_gen(s, g, &gen);
		if (err)
			break;
		group_end(&m, s, g);
	}
	assert_int_equal(err, -EAGAIN);
	sd_group_destroy(s, g);
	assert_in_range(n, 8, 32);
	assert_int_equal(sd_background_work(s), SD_WORK_NOW);
	checkpoint(s);
	put_gen(&m, s, 1, SD_GEN_LIVE);
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(s->replayed_groups, 1);
	sd_close(s);
	memdev_exit(&m);
}

/* Groups sealed before and after one whose data has to move. */
static void relocation_keeps_the_chain(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_item item[3] = { { .chunk = 0 }, { .chunk = 1 }, { .chunk = 2 } };
	struct sd_group *g[3];
	u8 buf[SD_BLOCK_SIZE];
	u64 old;
	u32 i;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	for (i = 0; i < 3; i++) {
		fill_content(buf, sizeof(buf), i, 1);
		item[i].kind = SD_KIND_DATA;
		item[i].crc = crc32c(~0u, buf, sizeof(buf));
		assert_int_equal(sd_group_begin(s, &g[i]), 0);
		assert_int_equal(sd_group_add_items(s, g[i], &item[i], 1), 1);
		assert_int_equal(sd_group_seal(s, g[i]), 0);
		write_image(&m, g[i]);
	}
	old = item[1].addr;
	assert_int_equal(sd_group_relocate(s, g[1]), 0);
	assert_int_not_equal(item[1].addr, old);
	write_image(&m, g[1]);
	for (i = 0; i < 3; i++) {
		fill_content(buf, sizeof(buf), i, 1);
		mem_write(&m, item[i].addr, 1, buf);
		sd_group_commit(s, g[i]);
	}
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_all_there(s, 3);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* Images of an attachment that lost them are not taken up by the next one, though numbers and places go on to match. */
static void dropped_images_stay_dropped(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 first;
	u32 i;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	first = s->j.start + s->j.head;
	for (i = 2; i <= 5; i++)
		put_gen(&m, s, i, SD_GEN_LIVE);
	sd_close(s);
	/* As if none of the four had been flushed, and the last three had come through all the same. */
	for (i = 0; i < 4; i++) {
		struct sd_disk_journal *d = (void *)(m.data + (first + i) * SD_BLOCK_SIZE);
		struct sd_store fake = { .dev = &m.dev };

		memcpy(fake.uuid, d->hdr.uuid, sizeof(fake.uuid));
		d->durable_seq = cpu_to_le64(1);
		sd_block_seal(&fake, d, SD_MAGIC_JOURNAL, first + i, le64_to_cpu(d->hdr.txid));
	}
	m.data[first * SD_BLOCK_SIZE + 200] ^= 1;
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(s->sum.highest, 1);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	put_gen(&m, s, 2, SD_GEN_LIVE);
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(s->sum.highest, 2);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

/* What later images call durable must be there: a hole is damage, not the end. */
static void hole_is_damage(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 at;
	u32 i;

	for (i = 1; i <= 3; i++)
		put_gen(&m, s, i, SD_GEN_LIVE);
	at = s->j.start + s->j.head;
	for (i = 4; i <= 6; i++)
		put_gen(&m, s, i, SD_GEN_LIVE);
	sd_close(s);
	m.data[at * SD_BLOCK_SIZE + 150] ^= 8;
	m.writes = 0;
	assert_int_equal(memdev_open(&m, false, &s), -EUCLEAN);
	assert_int_equal(m.writes, 0);
	assert_non_null(strstr(m.said, "journal"));
	m.data[at * SD_BLOCK_SIZE + 150] ^= 8;
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(s->sum.highest, 6);
	sd_close(s);
	memdev_exit(&m);
}

/* The newest superblock rots and the one before it says "clean": the journal knows better. */
static void stale_superblock_is_damage(void **state)
{
	u8 fingerprint[SD_FINGERPRINT_SIZE] = { 1 };
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 newest;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	assert_int_equal(sd_detach(s, fingerprint), 0);
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	newest = s->txid & 1;
	copy_chunk(&m, s, 1);
	sd_close(s);
	m.data[newest * SD_BLOCK_SIZE + 700] ^= 1;
	assert_int_equal(memdev_open(&m, false, &s), -EUCLEAN);
	memdev_exit(&m);
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

#define CHUNKS	24u
#define GENS	30u

struct oracle {
	u32 state[GENS + 1];		/* 0: does not exist */
	u32 highest;
	u8 kind[CHUNKS][GENS + 1];	/* every record ever made */
};

static u32 newest(const struct oracle *o, bool live)
{
	u32 g = o->highest;

	while (g && !(live ? o->state[g] == SD_GEN_LIVE : o->state[g]))
		g--;
	return g;
}

static bool any_in(const struct oracle *o, u32 after, u32 upto, bool live)
{
	u32 g;

	for (g = after + 1; g <= upto; g++)
		if (live ? o->state[g] == SD_GEN_LIVE : o->state[g])
			return true;
	return false;
}

/* What has to be left of a record, told from all records that there ever were. */
static u32 must_be(const struct oracle *o, u32 chunk, u32 gen)
{
	u32 prev = gen - 1;

	while (prev && !o->kind[chunk][prev])
		prev--;
	if (o->kind[chunk][gen] != SD_KIND_MARK && any_in(o, prev, gen, true))
		return o->kind[chunk][gen];
	return any_in(o, prev, gen, false) ? SD_KIND_MARK : SD_KIND_NONE;
}

static void first_write(struct memdev *m, struct sd_store *s, struct oracle *o, u64 chunk)
{
	u32 p = o->highest, live = newest(o, true), kept = newest(o, false), kind;

	while (p && !o->kind[chunk][p])
		p--;
	if (!kept || p >= kept)
		return;
	kind = p >= live || !live ? SD_KIND_MARK : SD_KIND_DATA;
	o->kind[chunk][o->highest] = kind;
	copy_chunks(m, s, &chunk, 1, kind);
}

static void compare_all(struct sd_store *s, const struct oracle *o)
{
	u8 found[CHUNKS][GENS + 1] = { 0 };
	struct sd_version *v = sd_version_get(s);
	struct sd_iter it;
	struct sd_rec rec;
	u32 c, g;

	assert_int_equal(sd_iter_init(&it, v, 0, U32_MAX), 0);
	assert_int_equal(sd_iter_seek(&it, 0, 0), 0);
	while (sd_iter_next(&it, &rec, NULL) > 0)
		found[rec.chunk][rec.gen] = rec.kind;
	sd_iter_exit(&it);
	sd_version_put(v);
	for (c = 0; c < CHUNKS; c++)
		for (g = 1; g <= GENS; g++)
			if (found[c][g] != (o->kind[c][g] ? must_be(o, c, g) : SD_KIND_NONE))
				fail_msg("record (%u, %u): %u, must be %u", c, g, found[c][g], must_be(o, c, g));
}

static void merging_against_brute_force(void **state)
{
	u64 seed = 6;
	u32 round, i;

	for (round = 0; round < 25; round++) {
		struct memdev m;
		struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
		struct oracle o = { .highest = 0 };

		s->slice_records = 3 + dice(&seed, 40);
		while (o.highest < GENS) {
			u32 what = dice(&seed, 20), g = o.highest ? 1 + dice(&seed, o.highest) : 0;

			if (what < 3) {
				o.state[++o.highest] = SD_GEN_LIVE;
				put_gen(&m, s, o.highest, SD_GEN_LIVE);
			} else if (what == 3 && g && o.state[g] == SD_GEN_LIVE) {
				o.state[g] = SD_GEN_BOOKMARK;
				put_gen(&m, s, g, SD_GEN_BOOKMARK);
			} else if (what == 4 && g && o.state[g]) {
				o.state[g] = 0;
				del_gens(&m, s, g, g);
			} else if (what == 5) {
				checkpoint(s);
			} else if (what == 6) {
				until_idle(s);
			} else if (what > 6) {
				first_write(&m, s, &o, dice(&seed, CHUNKS));
			}
		}
		until_idle(s);
		checkpoint(s);
		until_idle(s);
		compare_all(s, &o);
		assert_clean(s);
		/* and nothing at all is left when nobody needs anything */
		del_gens(&m, s, 1, U32_MAX);
		until_idle(s);
		for (i = 1; i <= GENS; i++)
			o.state[i] = 0;
		compare_all(s, &o);
		assert_clean(s);
		sd_close(s);
		memdev_exit(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_laps),
		cmocka_unit_test(full_until_a_checkpoint),
		cmocka_unit_test(relocation_keeps_the_chain),
		cmocka_unit_test(dropped_images_stay_dropped),
		cmocka_unit_test(hole_is_damage),
		cmocka_unit_test(stale_superblock_is_damage),
		cmocka_unit_test(merging_against_brute_force),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
