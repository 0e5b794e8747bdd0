// SPDX-License-Identifier: GPL-2.0-or-later
/* See world.h. */
#include <err.h>
#include "world.h"

const char *world_dir = ".";

static void complain(void *ctx, const char *text)
{
	warnx("%s", text);
}

void world_attach(struct world *w)
{
	int error = sd_open(&w->d.dev, &w->opts, &w->s);

	if (!error)
		error = sd_attach(w->s, w->chunks * 8);
	if (error)
		errx(1, "attach: %d", error);
}

void world_open(struct world *w, u64 diff_blocks, u64 primary_chunks, u64 journal_blocks)
{
	struct sd_format_params p = { .uuid = { 1, 2, 3 }, .journal_blocks = journal_blocks };

	memset(w, 0, sizeof(*w));
	benchdev_open(&w->d, world_dir, diff_blocks);
	w->opts.complain = complain;
	w->seed = 1;
	w->chunks = primary_chunks;
	w->group = 332;		/* as many as an image of one block holds */
	if (sd_format(&w->d.dev, &p))
		errx(1, "format");
	world_attach(w);
}

void world_close(struct world *w)
{
	sd_close(w->s);
	benchdev_close(&w->d);
}

u64 world_dice(struct world *w, u64 n)
{
	w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u64)(((unsigned __int128)(w->seed ^ w->seed >> 33) * n) >> 64);
}

/* ---- commit groups ---------------------------------------------------------------------------------------- */

static void commit(struct world *w, struct sd_group *g)
{
	if (sd_group_seal(w->s, g))
		errx(1, "seal");
	w->d.dev.ops->write(&w->d, g->image_addr, g->image_blocks, g->image);
	sd_group_commit(w->s, g);
}

static struct sd_group *begin(struct world *w)
{
	struct sd_group *g;

	if (sd_group_begin(w->s, &g))
		errx(1, "group");
	return g;
}

void world_cut(struct world *w)
{
	struct sd_gen gen = { .number = w->s->sum.highest + 1, .state = SD_GEN_LIVE, .size_sectors = w->chunks * 8 };
	struct sd_group *g = begin(w);
	int error = sd_group_put_gen(w->s, g, &gen);

	if (error == -EAGAIN) {
		sd_group_destroy(w->s, g);
		world_background(w, SD_WORK_NOW);
		world_cut(w);
		return;
	}
	if (error)
		errx(1, "cut: %d", error);
	commit(w, g);
}

void world_delete(struct world *w, u32 first, u32 last)
{
	struct sd_group *g = begin(w);

	if (sd_group_del_gens(w->s, g, first, last))
		errx(1, "delete");
	commit(w, g);
}

void world_copy(struct world *w, const u64 *chunks, u32 nr)
{
	static struct sd_item items[SD_GROUP_MAX_ITEMS];
	struct sd_group *g;
	u32 i, n;
	int taken;

	for (; nr; chunks += taken, nr -= taken) {
		n = min(nr, min(w->group, SD_GROUP_MAX_ITEMS));
		for (i = 0; i < n; i++)
			items[i] = (struct sd_item){ .chunk = chunks[i], .kind = SD_KIND_DATA, .crc = (u32)chunks[i] };
		g = begin(w);
		taken = sd_group_add_items(w->s, g, items, n);
		if (taken < 0) {
			sd_group_destroy(w->s, g);
			if (taken != -EAGAIN && taken != -ENOSPC)
				errx(1, "copies: %d", taken);
			if (!world_step(w, 0))
				errx(1, "the store is full");
			taken = 0;
			continue;
		}
		commit(w, g);
		w->copied += taken;
		if (!w->lazy)
			world_background(w, SD_WORK_SOON);
	}
}

#define BATCH	4096u

/* A permutation of the chunks (a power of two), another one for each salt: different chunks without a bitmap of them. */
static u64 nth_chunk(const struct world *w, u64 n, u64 salt)
{
	u32 half = ilog2(w->chunks) / 2;
	u64 mask = w->chunks - 1, x = n;
	u32 i;

	for (i = 0; i < 3; i++) {
		x = (x * ((salt >> i) * 0x9e3779b97f4a7c15ull | 1) + salt) & mask;
		x ^= x >> half;
	}
	return x;
}

void world_write_random(struct world *w, u64 nr)
{
	u64 chunks[BATCH], n, i, salt = world_dice(w, 1 << 30);

	for (n = 0; n < nr; n += i) {
		for (i = 0; i < BATCH && n + i < nr; i++)
			chunks[i] = nth_chunk(w, n + i, salt);
		world_copy(w, chunks, i);
	}
}

void world_write_spread(struct world *w, u64 nr)
{
	u64 chunks[BATCH], step = w->chunks / nr, n, i;

	for (n = 0; n < nr; n += i) {
		for (i = 0; i < BATCH && n + i < nr; i++)
			chunks[i] = (n + i) * step + world_dice(w, step);
		world_copy(w, chunks, i);
	}
}

void world_write_stretch(struct world *w, u64 first, u64 nr)
{
	u64 chunks[BATCH], n, i;

	for (n = 0; n < nr; n += i) {
		for (i = 0; i < BATCH && n + i < nr; i++)
			chunks[i] = (first + n + i) % w->chunks;
		world_copy(w, chunks, i);
	}
}

/* ---- background --------------------------------------------------------------------------------------------- */

bool world_step(struct world *w, u32 flags)
{
	struct sd_step *st;
	int error = sd_step_begin(w->s, flags, &st);

	if (error == -ENODATA)
		return false;
	if (error)
		errx(1, "step: %d", error);
	w->d.step = st;
	error = sd_step_run(st);
	w->d.step = NULL;
	if (!error)
		error = sd_step_prepare(st);
	if (!error)
		error = sd_step_write(st);
	if (sd_step_end(st, error))
		errx(1, "step: %d", error);
	return true;
}

void world_background(struct world *w, enum sd_work from)
{
	while (sd_background_work(w->s) >= from && world_step(w, 0))
		;
}

void world_check(struct world *w, struct sd_check_result *res)
{
	if (sd_check(w->s, 0, res) || res->errors || res->blocks_leaked || res->blocks_missing)
		errx(1, "check: %llu errors, %llu leaked, %llu missing", (unsigned long long)res->errors,
		     (unsigned long long)res->blocks_leaked, (unsigned long long)res->blocks_missing);
}
