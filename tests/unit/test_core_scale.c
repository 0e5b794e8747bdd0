// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The core at its real sizes: default tables and slices, some 200,000 records, dozens of generations, against arrays. Data is not written (a record's checksum
 * says which version it stands for). And the in-memory table with readers in other threads.
 *
 * What things cost is counted in blocks: cost has to follow what has changed, never what exists. bench-store has the same in larger and with figures.
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

/* In slices of a few records it is the same map and the same changes, and no call looks at more. */
static void compare_slices(struct scale *w, struct sd_version *v, u32 gen)
{
	struct sd_extent e[8];
	u64 pos = 0, at = 0, before;
	struct sd_rec rec;
	u32 work, i, c;
	int n;

	while (pos < CHUNKS) {
		before = pos;
		work = 200;
		n = sd_map_slice(v, gen, &pos, CHUNKS, e, 8, &work);
		assert_true(n >= 0);
		assert_true(pos > before);
		assert_true(pos == CHUNKS || !work || n == 8);
		for (i = 0; i < (u32)n; i++) {
			assert_int_equal(e[i].chunk, at);
			at += e[i].nr;
			assert_int_equal(sd_lookup(v, e[i].chunk, gen, &rec), 0);
			assert_int_equal(rec.kind, e[i].kind);
			assert_true(rec.kind == SD_KIND_NONE || e[i].addr == rec.addr);
		}
		assert_int_equal(at, pos);
	}
	for (pos = c = 0; pos < CHUNKS;) {
		before = pos;
		work = 200;
		n = sd_change_slice(v, gen, gen + 1, &pos, CHUNKS, e, 8, &work);
		assert_true(n >= 0 && pos > before);
		assert_true(pos == CHUNKS || !work || n == 8);
		for (i = 0; i < (u32)n; i++) {
			for (; c < e[i].chunk; c++)
				assert_false(w->changed[gen][c]);
			for (; c < e[i].chunk + e[i].nr; c++)
				assert_true(w->changed[gen][c]);
		}
	}
	for (; c < CHUNKS; c++)
		assert_false(w->changed[gen][c]);
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
		if (g % 4 == 1 && g < w->highest && w->changed[g + 1])	/* else its interval has been merged with others */
			compare_slices(w, v, g);
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
			assert_int_equal(sd_step_whole(w->s, 0), 0);
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

/* ---- what things cost, in blocks --------------------------------------------------------------------------------------- */

struct cost {
	struct memdev m;
	struct sd_store *s;
	u64 seed;
};

static void cost_open(struct cost *w, u64 nr_blocks, u32 mem_records)
{
	struct sd_open_opts o = { .mem_records = mem_records, .complain = keep_complaint, .complain_ctx = &w->m };

	memdev_init(&w->m, nr_blocks);
	assert_int_equal(memdev_format(&w->m, 4096, 4096), 0);
	assert_int_equal(sd_open(&w->m.dev, &o, &w->s), 0);
	assert_int_equal(sd_attach(w->s, 1ull << 30), 0);
	w->seed = 11;
}

static void cost_close(struct cost *w)
{
	sd_close(w->s);
	memdev_exit(&w->m);
}

/* First writes of @nr chunks all over @space of them, each once; background work as it becomes due. */
static void record(struct cost *w, u32 nr, u64 space, u32 in_group)
{
	static struct sd_item items[SD_GROUP_MAX_ITEMS];
	u64 step = space / nr, at = 0;
	struct sd_group *g;
	int taken;
	u32 i, n;

	for (; nr; nr -= taken) {
		n = min(nr, in_group);
		for (i = 0; i < n; i++)
			items[i] = (struct sd_item){ .chunk = at + i * step + dice(&w->seed, min(step, 1ull << 31)), .kind = SD_KIND_DATA, .crc = 1 };
		assert_int_equal(sd_group_begin(w->s, &g), 0);
		taken = sd_group_add_items(w->s, g, items, n);
		if (taken == -EAGAIN) {
			sd_group_destroy(w->s, g);
			assert_int_equal(sd_step_whole(w->s, 0), 0);
			taken = 0;
			continue;
		}
		assert_true(taken > 0);
		group_end(&w->m, w->s, g);
		at += taken * step;
		while (sd_background_work(w->s) >= SD_WORK_SOON)
			assert_int_equal(sd_step_whole(w->s, 0), 0);
	}
}

static void generation(struct cost *w, u32 nr, u64 space)
{
	put_gen(&w->m, w->s, w->s->sum.highest + 1, SD_GEN_LIVE);
	if (nr)
		record(w, nr, space, 332);
}

static void reopen(struct cost *w)
{
	sd_close(w->s);
	w->m.reads = w->m.writes = 0;
	assert_int_equal(memdev_open(&w->m, false, &w->s), 0);
}

/* Attaching reads the catalog and the log, never the table, nor the rest of the journal. */
static void attach_costs_the_log(void **state)
{
	const u8 fingerprint[SD_FINGERPRINT_SIZE] = { 0 };
	struct cost w;
	u32 g;

	cost_open(&w, 200000, 4096);
	for (g = 0; g < 20; g++)
		generation(&w, 5000, 1 << 24);
	assert_int_equal(sd_detach(w.s, fingerprint), 0);
	assert_true(w.s->records_run >= 100000);
	reopen(&w);
	assert_int_equal(w.s->replayed_groups, 0);
	assert_int_equal(w.m.writes, 0);
	/* superblocks, catalog, what may stand behind the end of the log twice */
	assert_in_range(w.m.reads, 1, 2 + w.s->cat.nr + w.s->cat.nr_index + 2 * SD_JOURNAL_WINDOW);
	assert_int_equal(sd_attach(w.s, 1), 0);
	put_gen(&w.m, w.s, 21, SD_GEN_LIVE);
	for (g = 0; g < 100; g++)
		copy_chunk(&w.m, w.s, g);
	reopen(&w);
	assert_int_equal(w.s->replayed_groups, 101);
	/* twice the log, and a bounded stretch behind it; the run that it becomes */
	assert_in_range(w.m.reads, 202, 2 * 101 + 1024 + w.s->cat.nr + w.s->cat.nr_index + 4 * SD_JOURNAL_WINDOW);
	assert_in_range(w.m.writes, 3, 20);
	cost_close(&w);
}

/* A superblock that cannot be read may have been the newest: then the whole journal is looked at. */
static void attach_is_careful_without_a_superblock(void **state)
{
	struct cost w;

	cost_open(&w, 50000, 4096);
	generation(&w, 100, 1000);
	checkpoint(w.s);
	w.m.data[(w.s->txid & 1 ? 0 : SD_BLOCK_SIZE) + 500] ^= 1;
	reopen(&w);
	assert_in_range(w.m.reads, 4096, 4096 + 400);
	cost_close(&w);
}

static u64 blocks_of_a_cut(struct cost *w, u64 sectors)
{
	struct sd_gen gen = { .number = w->s->sum.highest + 1, .state = SD_GEN_LIVE, .size_sectors = sectors };
	u64 reads = w->m.reads, writes = w->m.writes;
	struct sd_group *g;

	assert_int_equal(sd_group_begin(w->s, &g), 0);
	assert_int_equal(sd_group_put_gen(w->s, g, &gen), 0);
	group_end(&w->m, w->s, g);
	assert_int_equal(w->m.reads, reads);
	return w->m.writes - writes;
}

static u64 blocks_of_writes(struct cost *w)
{
	u64 reads = w->m.reads, writes = w->m.writes;

	record(w, 64, 1ull << 38, 64);
	assert_int_equal(w->m.reads, reads);
	return w->m.writes - writes;
}

/* Cutting, and a first write, cost the same however many generations there are and however large the primary is. */
static void generations_cost_nothing(void **state)
{
	struct cost w;
	u32 g;

	cost_open(&w, 200000, 65536);
	assert_int_equal(blocks_of_a_cut(&w, 1 << 21), 1);
	assert_int_equal(blocks_of_writes(&w), 1);
	for (g = 0; g < 3000; g++)
		generation(&w, 5, 1ull << 38);
	checkpoint(w.s);
	until_idle(w.s);
	assert_int_equal(blocks_of_a_cut(&w, 1 << 21), 1);
	assert_int_equal(blocks_of_a_cut(&w, 1ull << 41), 1);
	assert_int_equal(blocks_of_writes(&w), 1);
	cost_close(&w);
}

#define KEPT	40u
#define EACH	2000u

/*
 * Deleting one generation of many does not rewrite what the others have; deleting them one after the other costs in all what comes back, and
 * it does come back.
 */
static void reclaim_follows_change(void **state)
{
	u64 writes, most = 0, sum = 0, avail;
	struct cost w;
	u32 g;

	cost_open(&w, 400000, EACH * KEPT / 8);
	for (g = 0; g < KEPT; g++)
		generation(&w, EACH, 1 << 26);
	checkpoint(w.s);
	until_idle(w.s);
	avail = w.s->alloc.avail;
	for (g = 1; g <= KEPT - 2; g++) {
		writes = w.m.writes;
		del_gens(&w.m, w.s, g, g);
		until_idle(w.s);
		sum += w.m.writes - writes;
		if (g == 1)	/* one of forty: only the image of the deletion */
			assert_int_equal(w.m.writes - writes, 1);
		most = max(most, w.m.writes - writes);
	}
	checkpoint(w.s);
	assert_true(most > sd_run_blocks(EACH) / 3);	/* somewhen it was done; sd_run_blocks() is three times what such records need, at most */
	/* Twice the records, and bitmaps and catalog for each slice. */
	assert_in_range(sum, 1, 2 * sd_run_blocks(EACH * KEPT) + 8 * KEPT);
	assert_in_range(w.s->alloc.avail - avail, (KEPT - 6) * EACH, KEPT * EACH + 2 * sd_run_blocks(KEPT * EACH));
	assert_sound(w.s);
	cost_close(&w);
}

/* On a device that gets full everything comes back, however little it is. */
static void reclaim_of_a_full_device(void **state)
{
	u64 avail;
	struct cost w;
	u32 g;

	cost_open(&w, 90000, 4096);
	for (g = 0; g < KEPT; g++)
		generation(&w, EACH, 1 << 26);
	checkpoint(w.s);
	until_idle(w.s);
	assert_true(w.s->alloc.avail < 90000 / 8);
	avail = w.s->alloc.avail;
	del_gens(&w.m, w.s, 1, 1);
	until_idle(w.s);
	checkpoint(w.s);
	assert_true(w.s->alloc.avail >= avail + EACH - 20);
	assert_sound(w.s);
	cost_close(&w);
}

/* What is unneeded is known after a restart, too. */
static void garbage_is_remembered(void **state)
{
	const u8 fingerprint[SD_FINGERPRINT_SIZE] = { 0 };
	struct cost w;
	u64 garbage = 0;
	u32 g, i;

	cost_open(&w, 400000, EACH * KEPT / 8);
	for (g = 0; g < KEPT; g++)
		generation(&w, EACH, 1 << 26);
	checkpoint(w.s);
	until_idle(w.s);
	for (g = 1; g <= 6; g++)
		del_gens(&w.m, w.s, g, g);
	assert_int_equal(sd_detach(w.s, fingerprint), 0);
	reopen(&w);
	for (i = 0; i < w.s->cur->nr_runs; i++)
		garbage += w.s->cur->runs[i]->garbage;
	assert_in_range(garbage, 6 * EACH * 9 / 10, 6 * EACH);
	cost_close(&w);
}

/* O(log) runs, however many intervals, while and after; and the catalog shrinks with them. */
static void few_runs(void **state)
{
	u32 g, most = 0, bound = 0, n;
	struct cost w;

	cost_open(&w, 200000, 1024);
	for (n = 1; n < 600; n *= SD_MERGE_WIDTH)
		bound += SD_MERGE_WIDTH - 1;
	for (g = 0; g < 600; g++) {
		generation(&w, 50, 1 << 20);
		checkpoint(w.s);
		while (sd_background_work(w.s) >= SD_WORK_SOON)
			assert_int_equal(sd_step_whole(w.s, 0), 0);
		most = max(most, w.s->cur->nr_runs);
	}
	assert_in_range(most, 3, bound + 2);
	assert_sound(w.s);
	cost_close(&w);
}

static struct {
	u8 announced[200000];
	u64 leaves, cold;
} ahead;

static void note_ahead(void *ctx, u64 block, u32 nr)
{
	memset(ahead.announced + block, 1, nr);
}

static int get_ahead(void *ctx, u64 block, struct sd_buf *buf)
{
	int err = mem_get(ctx, block, buf);
	const struct sd_disk_header *h = buf->data;

	if (le32_to_cpu(h->magic) == SD_MAGIC_LEAF) {
		ahead.leaves++;
		ahead.cold += !ahead.announced[block];
	}
	return err;
}

/* Who takes leaves one behind the other has asked for nearly all of them before; a lookup asks for nothing. */
static void streams_read_ahead(void **state)
{
	struct sd_dev_ops ops;
	struct sd_rec rec;
	struct cost w;
	u32 i;

	cost_open(&w, 200000, 65536);
	for (i = 0; i < 4; i++)
		generation(&w, 15000, 1 << 20);
	checkpoint(w.s);
	ops = *w.m.dev.ops;
	ops.read_ahead = note_ahead;
	ops.get = get_ahead;
	w.m.dev.ops = &ops;
	memset(&ahead, 0, sizeof(ahead));
	for (i = 0; i < 50; i++) {
		assert_int_equal(sd_lookup(w.s->cur, dice(&w.seed, 1 << 20), 1, &rec), 0);
		assert_null(memchr(ahead.announced, 1, sizeof(ahead.announced)));
	}
	memset(&ahead, 0, sizeof(ahead));
	del_gens(&w.m, w.s, 2, 3);
	checkpoint(w.s);
	until_idle(w.s);
	assert_true(ahead.leaves > 100);
	assert_true(ahead.cold * 8 < ahead.leaves);
	assert_sound(w.s);
	cost_close(&w);
}

/* Metadata written for a copied chunk over its whole life: random writes, @keep generations kept. */
static void life_in_bytes(void **state)
{
	u64 writes = 0, copied;
	const u32 keep = 30;
	struct cost w;
	u32 g;

	/* Tables as large against the whole as 256 k records are against 100 generations of 20,000. */
	cost_open(&w, 400000, 7680);
	for (g = 1; g <= 3 * keep; g++) {
		if (g == keep + 1)
			writes = w.m.writes;
		generation(&w, EACH, 1 << 28);
		if (g > keep) {
			del_gens(&w.m, w.s, g - keep, g - keep);
			until_idle(w.s);
		}
	}
	copied = 2 * keep * EACH;
	print_message("%llu bytes of metadata for a copied chunk\n", (unsigned long long)((w.m.writes - writes) * 4096 / copied));
	assert_in_range((w.m.writes - writes) * 4096 / copied, 36, 180);	/* the catalog of so small a store is a tenth of it */
	assert_sound(w.s);
	cost_close(&w);
}

/* A merge that is interrupted by crashes goes on where it was. */
static void merges_go_on(void **state)
{
	u64 blocks = 0, writes, slices = 0;
	struct cost w;
	u32 i;

	cost_open(&w, 200000, 32768);
	for (i = 0; i < 4; i++) {
		generation(&w, 10000, 1 << 24);
		checkpoint(w.s);
	}
	for (writes = 0; ; slices++) {
		reopen(&w);
		assert_int_equal(w.m.writes, 0);
		w.s->slice_records = 2000;
		if (sd_background_work(w.s) < SD_WORK_SOON)
			break;
		assert_int_equal(sd_step_whole(w.s, 0), 0);
		writes += w.m.writes;
	}
	for (i = 0; i < w.s->cur->runs[0]->nr_segs; i++)
		blocks += w.s->cur->runs[0]->seg[i].blocks;
	assert_in_range(slices, 18, 22);
	assert_in_range(writes, blocks, blocks + 12 * slices);
	assert_int_equal(w.s->cur->nr_runs, 1);
	assert_sound(w.s);
	cost_close(&w);
}

/* A merge that met damage is left alone and another one begun: after a restart both are there, and both are done. */
static void two_unfinished_merges(void **state)
{
	struct cost w;
	u32 round, i;

	cost_open(&w, 200000, 32768);
	for (round = 0; round < 2; round++) {
		w.s->slice_records = 2000;
		for (i = 0; i < 4; i++) {
			generation(&w, 3000, 1 << 24);
			checkpoint(w.s);
		}
		assert_int_equal(sd_step_whole(w.s, 0), 0);
		for (i = 0; i < w.s->cur->nr_runs; i++)
			w.s->cur->runs[i]->broken = true;
	}
	assert_int_equal(w.s->cur->nr_runs, 10);
	reopen(&w);
	until_idle(w.s);
	assert_int_equal(w.s->cur->nr_runs, 2);
	assert_sound(w.s);
	cost_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_sizes),
		cmocka_unit_test(readers_without_locks),
		cmocka_unit_test(attach_costs_the_log),
		cmocka_unit_test(attach_is_careful_without_a_superblock),
		cmocka_unit_test(generations_cost_nothing),
		cmocka_unit_test(reclaim_follows_change),
		cmocka_unit_test(reclaim_of_a_full_device),
		cmocka_unit_test(garbage_is_remembered),
		cmocka_unit_test(few_runs),
		cmocka_unit_test(streams_read_ahead),
		cmocka_unit_test(life_in_bytes),
		cmocka_unit_test(merges_go_on),
		cmocka_unit_test(two_unfinished_merges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
