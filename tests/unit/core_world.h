/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store with a random history, and a model of it that knows only arrays: what each generation contains, what changed when.
 */
#ifndef TEST_CORE_WORLD_H
#define TEST_CORE_WORLD_H

#include "core_dev.h"

#define BLOCKS	SD_MIN_DIFF_BLOCKS
#define CHUNKS	600u
#define GENS	40u

struct mgen {
	u32 number, state;
	u32 version[CHUNKS];
	bool changed[CHUNKS];
};

/* What comparisons have found, over all worlds. */
static struct { u64 live, lost, gone, eio, exact; } total __attribute__((unused));

struct world {
	struct memdev m;
	struct sd_store *s;
	u64 seed;
	u32 chunk_size, versions, nr;
	u32 primary[CHUNKS];	/* version of each chunk; 0: zeros */
	struct mgen g[GENS];
	u64 bad_block;		/* reading it is -EIO; 0: none */
};

static inline int faulty_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct world *w = container_of(ctx, struct world, m);

	if (w->bad_block && block <= w->bad_block && w->bad_block < block + nr)
		return -EIO;
	return mem_read(ctx, block, nr, buf);
}

static inline int faulty_get(void *ctx, u64 block, struct sd_buf *buf)
{
	struct world *w = container_of(ctx, struct world, m);

	return block == w->bad_block && block ? -EIO : mem_get(ctx, block, buf);
}

static const struct sd_dev_ops faulty_ops = {
	.read = faulty_read, .write = mem_write, .flush = mem_flush, .get = faulty_get, .put = mem_put, .forget = mem_forget,
};

static inline u32 roll(struct world *w, u32 n)
{
	return dice(&w->seed, n);
}

static inline void fill(struct world *w, void *buf, u32 chunk, u32 version)
{
	if (version)
		fill_content(buf, w->chunk_size, chunk, version);
	else
		memset(buf, 0, w->chunk_size);
}

/* ---- history ------------------------------------------------------------------------------------------------- */

static inline void forget(struct world *w, u32 i)
{
	u32 c;

	for (c = 0; i && c < CHUNKS; c++)
		w->g[i - 1].changed[c] |= w->g[i].changed[c];
	memmove(&w->g[i], &w->g[i + 1], (--w->nr - i) * sizeof(w->g[0]));
}

/* The device is full. What was decided for the others stays right, if more than is needed. */
static inline void drop_oldest(struct world *w)
{
	assert_true(w->nr);
	del_gens(&w->m, w->s, w->g[0].number, w->g[0].number);
	forget(w, 0);
	until_idle(w->s);
}

static inline void submit(struct world *w, struct sd_item *items, u32 nr, const u32 *old)
{
	u8 *buf = malloc(w->chunk_size);
	struct sd_group *g;
	u32 i;
	int taken;

	while (nr) {
		assert_int_equal(sd_group_begin(w->s, &g), 0);
		taken = sd_group_add_items(w->s, g, items, nr);
		if (taken == -EAGAIN || taken == -ENOSPC) {
			sd_group_destroy(w->s, g);
			if (taken == -EAGAIN)
				checkpoint(w->s);
			else
				drop_oldest(w);
			continue;
		}
		assert_true(taken > 0);
		for (i = 0; i < (u32)taken; i++) {
			if (items[i].kind != SD_KIND_DATA)
				continue;
			fill(w, buf, items[i].chunk, old[i]);
			mem_write(&w->m, items[i].addr, w->s->chunk_blocks, buf);
		}
		group_end(&w->m, w->s, g);
		items += taken;
		old += taken;
		nr -= taken;
	}
	free(buf);
}

/* Write some chunks of the primary, as the driver would (core.h: struct sd_summary). */
static inline void write_some(struct world *w)
{
	u32 n = 1 + roll(w, 60), i, nr = 0, first = roll(w, CHUNKS), old[64];
	bool sequential = roll(w, 2);
	struct sd_item items[64];
	bool seen[CHUNKS] = { false };
	u8 *buf = malloc(w->chunk_size);

	for (i = 0; i < n; i++) {
		u32 c = sequential ? (first + i) % CHUNKS : roll(w, CHUNKS);
		struct sd_version *v = sd_version_get(w->s);
		struct sd_summary sum;
		struct sd_rec rec;

		assert_int_equal(sd_lookup_newest(v, c, &rec), 0);
		sd_version_put(v);
		sd_summary(w->s, &sum);
		if (rec.kind == SD_KIND_NONE)
			rec.gen = 0;
		if (!seen[c] && sum.newest_kept && rec.gen < sum.newest_kept) {
			u32 kind = rec.gen >= sum.newest_live ? SD_KIND_MARK : w->primary[c] ? SD_KIND_DATA : SD_KIND_ZERO;

			items[nr] = (struct sd_item){ .chunk = c, .kind = kind };
			fill(w, buf, c, w->primary[c]);
			items[nr].crc = kind == SD_KIND_DATA ? crc32c(~0u, buf, w->chunk_size) : 0;
			old[nr++] = w->primary[c];
		}
		seen[c] = true;
	}
	submit(w, items, nr, old);
	for (i = 0; i < CHUNKS; i++) {
		if (!seen[i])
			continue;
		w->primary[i] = roll(w, 8) ? ++w->versions : 0;
		if (w->nr)
			w->g[w->nr - 1].changed[i] = true;
	}
	free(buf);
}

static inline void put(struct world *w, u32 number, u32 state)
{
	struct sd_gen gen = { .number = number, .state = state, .size_sectors = (u64)CHUNKS * w->chunk_size >> 9 };
	struct sd_group *g;
	int err;

	do {
		assert_int_equal(sd_group_begin(w->s, &g), 0);
		err = sd_group_put_gen(w->s, g, &gen);
		if (err == -EAGAIN) {
			sd_group_destroy(w->s, g);
			checkpoint(w->s);
		}
	} while (err == -EAGAIN);
	assert_int_equal(err, 0);
	group_end(&w->m, w->s, g);
}

static inline void create(struct world *w)
{
	struct sd_summary sum;

	if (w->nr == GENS)
		return;
	sd_summary(w->s, &sum);
	w->g[w->nr] = (struct mgen){ .number = sum.highest + 1, .state = SD_GEN_LIVE };
	memcpy(w->g[w->nr].version, w->primary, sizeof(w->primary));
	put(w, w->g[w->nr++].number, SD_GEN_LIVE);
}

static inline void change_gens(struct world *w)
{
	u32 i = w->nr ? roll(w, w->nr) : 0;
	u32 what = roll(w, 8);

	if (what < 4 || !w->nr) {
		create(w);
	} else if (what < 6) {
		if (!sd_journal_room(&w->s->j))
			checkpoint(w->s);
		del_gens(&w->m, w->s, w->g[i].number, w->g[i].number);
		forget(w, i);
	} else if (w->g[i].state == SD_GEN_LIVE) {
		w->g[i].state = SD_GEN_BOOKMARK;
		put(w, w->g[i].number, SD_GEN_BOOKMARK);
	}
}

static inline void live_on(struct world *w, u32 events)
{
	while (events--) {
		u32 what = roll(w, 20);

		if (what < 12)
			write_some(w);
		else if (what < 16)
			change_gens(w);
		else if (what < 19 && sd_background_work(w->s))
			assert_int_equal(sd_step_whole(w->s, 0), 0);
		else if (what == 19)
			checkpoint(w->s);
	}
}

static inline void open_again(struct world *w)
{
	struct sd_open_opts o = { .mem_records = 1024, .complain = keep_complaint, .complain_ctx = &w->m };

	w->m.said[0] = 0;
	assert_int_equal(sd_open(&w->m.dev, &o, &w->s), 0);
	w->s->slice_records = 300;
	assert_int_equal(sd_attach(w->s, (u64)CHUNKS * w->chunk_size >> 9), 0);
}

static inline void begin(struct world *w, u64 seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->chunk_size = roll(w, 4) ? 4096 : 8192;
	memdev_init(&w->m, BLOCKS);
	w->m.dev.ops = &faulty_ops;
	assert_int_equal(memdev_format(&w->m, w->chunk_size, 64), 0);
	open_again(w);
}

/* The last group is one whose loss nobody notices: nothing tells a group that nobody followed from one that never was (store.rst). */
static inline void end(struct world *w, bool clean)
{
	u8 fp[SD_FINGERPRINT_SIZE] = "fp";

	if (clean)
		assert_int_equal(sd_detach(w->s, fp), 0);
	else if (w->nr)
		put(w, w->g[w->nr - 1].number, w->g[w->nr - 1].state);
	sd_close(w->s);
	w->s = NULL;
}

/* ---- comparison ------------------------------------------------------------------------------------------------ */

static inline struct mgen *find(struct world *w, u32 number)
{
	u32 i;

	for (i = 0; i < w->nr; i++)
		if (w->g[i].number == number)
			return &w->g[i];
	return NULL;
}

static inline u64 compare_content(struct world *w, const struct mgen *g)
{
	struct sd_version *v = sd_version_get(w->s);
	u8 *want = malloc(w->chunk_size);
	u64 eio = 0;
	u32 c;

	for (c = 0; c < CHUNKS; c++) {
		struct sd_rec rec;

		assert_int_equal(sd_lookup(v, c, g->number, &rec), 0);
		fill(w, want, c, g->version[c]);
		if (rec.kind == SD_KIND_BAD)
			eio++;
		else if (rec.kind == SD_KIND_NONE)
			assert_int_equal(w->primary[c], g->version[c]);
		else if (rec.kind == SD_KIND_ZERO)
			assert_int_equal(g->version[c], 0);
		else if (crc32c(~0u, w->m.data + rec.addr * SD_BLOCK_SIZE, w->chunk_size) != rec.crc)
			eio++;		/* what a reader does */
		else
			assert_memory_equal(w->m.data + rec.addr * SD_BLOCK_SIZE, want, w->chunk_size);
	}
	sd_version_put(v);
	free(want);
	return eio;
}

static inline void compare_changes(struct world *w, const struct mgen *g, u32 next)
{
	struct sd_version *v = sd_version_get(w->s);
	bool found[CHUNKS] = { false };
	struct sd_extent x[16];
	u64 pos = 0, c;
	int n, i;

	while (pos < CHUNKS) {
		n = sd_change_extents(v, g->number, next, &pos, CHUNKS, x, ARRAY_SIZE(x));
		assert_true(n >= 0);
		for (i = 0; i < n; i++)
			for (c = x[i].chunk; c < x[i].chunk + x[i].nr && c < CHUNKS; c++)
				found[c] = true;
	}
	for (c = 0; c < CHUNKS; c++)
		assert_true(found[c] || !g->changed[c]);
	sd_version_put(v);
}

/* Make the model what the repair says is left of it; all that is said to be there must be right. */
static inline void compare(struct world *w, bool damaged)
{
	struct sd_gen gen, next;
	u32 n = 0, i, kept = 0;

	for (; !sd_gen_next(w->s, n, &gen); n = gen.number + 1) {
		struct mgen *g = find(w, gen.number);
		bool last = sd_gen_next(w->s, gen.number + 1, &next);

		if (!g) {	/* deleted by a group that is gone */
			assert_true(damaged && gen.state != SD_GEN_LIVE);
			del_gens(&w->m, w->s, gen.number, gen.number);
			continue;
		}
		if (gen.state == SD_GEN_LIVE) {
			u64 eio;

			assert_int_equal(g->state, SD_GEN_LIVE);
			eio = compare_content(w, g);
			assert_true(damaged || !eio);
			total.eio += eio;
			total.exact += CHUNKS - eio;
			total.live++;
		} else if (g->state == SD_GEN_LIVE) {
			assert_true(damaged);
			total.lost++;
		}
		if (!(gen.flags & SD_GEN_F_CHANGES_UNKNOWN) && (last || find(w, next.number)))
			compare_changes(w, g, last ? w->s->sum.highest + 1 : next.number);
		g->state = gen.state;
		kept++;
	}
	for (i = 0; i < w->nr; i++) {
		if (!sd_gen_find(w->s, w->g[i].number, &gen))
			continue;
		assert_true(damaged);
		total.gone++;
		forget(w, i--);
	}
	assert_int_equal(w->nr, kept);
}

#endif
