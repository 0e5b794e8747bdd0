// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The core at its real sizes: default tables and slices, some 200,000 records, dozens of generations, against arrays. Data is not written (a record's checksum
 * says which version it stands for). And the in-memory table with readers in other threads.
 */
#include "core_dev.h"
#include <pthread.h>

#define CHUNKS	20000u
#define GENS	48u

struct scale {
	struct memdev m;
	struct sd_store *s;
	u64 seed;
	u32 primary[CHUNKS];
	u32 *content[GENS + 1];		/* of live generations */
	bool *changed[GENS + 1];	/* of existing ones; merged on deletion */
	u32 highest, version;
	u32 newest[CHUNKS];		/* generation of the newest record */
};

static void commit(struct scale *w, struct sd_group *g)
{
	/* The journal is not read again: no image is written. */
	assert_int_equal(sd_group_seal(w->s, g), 0);
	sd_group_commit(w->s, g);
}

static void cut(struct scale *w)
{
	struct sd_gen gen = { .number = ++w->highest, .state = SD_GEN_LIVE };
	struct sd_group *g;

	assert_int_equal(sd_group_begin(w->s, &g), 0);
	while (sd_group_put_gen(w->s, g, &gen) == -EAGAIN) {
		sd_group_destroy(w->s, g);
		checkpoint(w->s);
		assert_int_equal(sd_group_begin(w->s, &g), 0);
	}
	commit(w, g);
	w->content[w->highest] = malloc(sizeof(w->primary));
	memcpy(w->content[w->highest], w->primary, sizeof(w->primary));
	w->changed[w->highest] = calloc(CHUNKS, 1);
}

static u32 below(struct scale *w, u32 gen)
{
	while (gen && !w->changed[gen])
		gen--;
	return gen;
}

static void delete(struct scale *w, u32 gen)
{
	struct sd_group *g;
	u32 p, c;

	if (!w->changed[gen])
		return;
	assert_int_equal(sd_group_begin(w->s, &g), 0);
	if (sd_group_del_gens(w->s, g, gen, gen) == -EAGAIN) {
		sd_group_destroy(w->s, g);
		checkpoint(w->s);
		return;
	}
	commit(w, g);
	p = below(w, gen - 1);
	for (c = 0; p && c < CHUNKS; c++)
		w->changed[p][c] |= w->changed[gen][c];
	free(w->changed[gen]);
	free(w->content[gen]);
	w->changed[gen] = NULL;
	w->content[gen] = NULL;
}

/* First writes of up to 2048 chunks, near each other or not. */
static void write_some(struct scale *w)
{
	static struct sd_item items[SD_GROUP_MAX_ITEMS];
	u32 n = 0, want = 1 + dice(&w->seed, SD_GROUP_MAX_ITEMS), first = dice(&w->seed, CHUNKS), kept = below(w, w->highest), i;
	bool sequential = dice(&w->seed, 2);
	struct sd_group *g;
	int taken = 0;

	for (i = 0; i < want; i++) {
		u32 c = sequential ? (first + i) % CHUNKS : dice(&w->seed, CHUNKS);

		if (kept && w->newest[c] < kept && !w->changed[kept][c]) {
			w->changed[kept][c] = true;
			items[n++] = (struct sd_item){ .chunk = c, .kind = SD_KIND_DATA, .crc = w->primary[c] };
		}
	}
	for (i = 0; i < n; i += taken) {
		assert_int_equal(sd_group_begin(w->s, &g), 0);
		taken = sd_group_add_items(w->s, g, items + i, n - i);
		if (taken < 0) {
			assert_int_equal(taken, -EAGAIN);
			sd_group_destroy(w->s, g);
			taken = 0;
			checkpoint(w->s);
			continue;
		}
		commit(w, g);
	}
	for (i = 0; i < n; i++) {
		w->newest[items[i].chunk] = w->highest;
		w->primary[items[i].chunk] = ++w->version;
	}
}

static void compare_gen(struct scale *w, struct sd_version *v, u32 gen)
{
	struct sd_rec recs[256];
	u32 c, i, n;

	for (c = 0; c < CHUNKS; c += n) {
		n = min(256u, CHUNKS - c);
		assert_int_equal(sd_lookup_range(v, c, n, gen, recs), 0);
		for (i = 0; i < n; i++) {
			u32 found = recs[i].kind == SD_KIND_DATA ? recs[i].crc : w->primary[c + i];

			if (found != w->content[gen][c + i])
				fail_msg("generation %u, chunk %u: version %u, not %u", gen, c + i, found, w->content[gen][c + i]);
		}
	}
}

static void compare_changes(struct scale *w, struct sd_version *v, u32 gen)
{
	bool *found = calloc(CHUNKS, 1);
	struct sd_extent e[128];
	u32 next = gen + 1, i;
	u64 pos = 0, c;
	int n;

	while (next <= w->highest && !w->changed[next])
		next++;
	while (pos < CHUNKS) {
		n = sd_change_extents(v, gen, next, &pos, CHUNKS, e, 128);
		assert_true(n >= 0);
		for (i = 0; i < (u32)n; i++)
			for (c = e[i].chunk; c < e[i].chunk + e[i].nr; c++)
				found[c] = true;
	}
	assert_memory_equal(found, w->changed[gen], CHUNKS);
	free(found);
}

static void compare_everything(struct scale *w)
{
	struct sd_version *v = sd_version_get(w->s);
	u32 g;

	for (g = 1; g <= w->highest; g++) {
		if (!w->changed[g])
			continue;
		compare_gen(w, v, g);
		compare_changes(w, v, g);
	}
	sd_version_put(v);
}

static void assert_sound(struct sd_store *s)
{
	struct sd_check_result r;

	assert_int_equal(sd_check(s, 0, &r), 0);
	assert_int_equal(r.errors, 0);
	assert_int_equal(r.blocks_leaked, 0);
	assert_int_equal(r.blocks_missing, 0);
}

static void real_sizes(void **state)
{
	u8 fingerprint[SD_FINGERPRINT_SIZE] = { 0 };
	struct scale *w = calloc(1, sizeof(*w));
	struct sd_info info;
	u32 round = 0, i;

	w->seed = 7;
	w->s = memdev_store(&w->m, 400000, 4096, 0);
	while (w->highest < GENS) {
		round++;
		if (round % 5 == 1)
			cut(w);
		write_some(w);
		if (!dice(&w->seed, 7))
			delete(w, 1 + dice(&w->seed, w->highest));
		if (sd_background_work(w->s))
			assert_int_equal(whole_step_flags(w->s, 0), 0);
		if (round % 150 == 0) {
			compare_everything(w);
			assert_sound(w->s);
		}
	}
	compare_everything(w);
	until_idle(w->s);
	compare_everything(w);
	assert_int_equal(sd_detach(w->s, fingerprint), 0);
	assert_sound(w->s);
	sd_info(w->s, &info);
	print_message("%llu records in %u runs, %llu checkpoints, %llu merge slices\n", (unsigned long long)info.records_run, info.nr_runs,
		      (unsigned long long)info.checkpoints, (unsigned long long)info.merges);
	assert_in_range(info.records_run, 50000, 1000000);
	assert_in_range(info.nr_runs, 1, 12);
	sd_close(w->s);
	assert_int_equal(memdev_open(&w->m, false, &w->s), 0);
	compare_everything(w);
	/* Deleting everything gives everything back. */
	assert_int_equal(sd_attach(w->s, 1), 0);
	for (i = 1; i <= GENS; i++)
		delete(w, i);
	until_idle(w->s);
	checkpoint(w->s);
	until_idle(w->s);
	assert_sound(w->s);
	sd_info(w->s, &info);
	assert_int_equal(info.records_run + info.records_new, 0);
	assert_in_range(info.nr_blocks - info.free_blocks, 0, info.journal_blocks + 2 + 2 * 13 + 40);
	sd_close(w->s);
	memdev_exit(&w->m);
	free(w);
}

/* ---- one writer, readers without locks ------------------------------------------------------------------------------ */

#define INSERTS	60000u

static struct sd_mem *table;
static u32 inserted, reader_errors;

static u64 nth_chunk(u32 n)
{
	return (u64)n * 40503 % 65537;		/* all different */
}

static void *reader(void *arg)
{
	u64 seed = (uintptr_t)arg;
	struct sd_rec r[32];
	u32 bad = 0, k, n;

	for (;;) {
		u32 have = smp_load_acquire(&inserted), i = have ? dice(&seed, have) : 0;

		if (have) {
			n = sd_mem_fetch(table, nth_chunk(i), 1, r, 32);
			bad += !n || r[0].chunk != nth_chunk(i) || r[0].crc != i || r[0].addr != i * 3ull;
			for (k = 1; k < n; k++)
				bad += r[k - 1].chunk >= r[k].chunk || nth_chunk(r[k].crc) != r[k].chunk;
		}
		if (have == INSERTS)
			break;
	}
	__atomic_add_fetch(&reader_errors, bad, __ATOMIC_RELAXED);
	return NULL;
}

static void readers_without_locks(void **state)
{
	pthread_t t[2];
	u32 i;

	table = sd_mem_alloc(INSERTS);
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, (void *)(uintptr_t)(i + 1)), 0);
	for (i = 0; i < INSERTS; i++) {
		sd_mem_insert(table, &(struct sd_rec){ .chunk = nth_chunk(i), .gen = 1, .crc = i, .addr = i * 3ull, .kind = SD_KIND_DATA });
		smp_store_release(&inserted, i + 1);
	}
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(reader_errors, 0);
	sd_mem_put(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_sizes),
		cmocka_unit_test(readers_without_locks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
