// SPDX-License-Identifier: GPL-2.0
/*
 * How much room there is, how much more is coming, and what giving up a generation would free: for who decides about generations on a full diff.
 *
 * A copy (b, g) with prev(b, g) = p is needed by the live generations in (p, g]. They are neighbours in the list of live ones, so two numbers tell it all:
 *
 *	live:	      1    4    5    9			p = 3, g = 6: needed by 4 and 5
 *	keep:	      k				first = 4, last = 5
 *
 * If one of them is kept, whatever else is given up does not free the copy. If none is, it is freed when all of them are gone.
 */
#include "internal.h"

#define ALL_RECORDS	(256u << 10)	/* of a table not larger than that all records are looked at */
#define WINDOWS		1024u		/* of a larger one so many stretches, */
#define WINDOW_RECORDS	256u		/* so long */
#define PART_RECORDS	4096u		/* at once, where all are looked at */

void sd_space(struct sd_store *s, struct sd_space *out)
{
	const struct sd_version *v = s->cur;
	u64 unneeded = s->mem_unneeded + (s->step ? s->step->unneeded : 0);
	u32 i;

	sd_version_reap(s);
	out->reserve = sd_alloc_reserve(s);
	out->usable = s->nr_blocks - s->alloc.start - min(s->nr_blocks - s->alloc.start, 2ull * s->alloc.nr_groups + out->reserve);
	out->room = s->alloc.avail - min(s->alloc.avail, out->reserve);
	for (i = 0; i < v->nr_runs; i++)
		if (!v->runs[i]->broken)
			unneeded += v->runs[i]->garbage;
	out->coming = s->alloc.dropped + unneeded * s->chunk_blocks;
	out->coming = min(out->coming, out->usable - min(out->usable, out->room));
}

static u32 index_from(const struct sd_gain *g, u32 gen)
{
	u32 lo = 0, hi = g->nr;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (g->live[mid] < gen)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void count(struct sd_gain *g, const struct sd_rec *rec, u32 prev)
{
	u32 first = index_from(g, prev + 1), end = index_from(g, rec->gen + 1), i;

	if (rec->kind != SD_KIND_DATA)
		return;
	g->seen++;
	if (first == end)
		return;		/* nobody's: it is reclaimed anyway */
	if (end - first == 1) {
		g->gain[first].alone++;
		return;
	}
	/* Kept ones are few, but neighbours may be many: the next kept one is known. */
	i = g->gain[first].next_keep;
	if (i >= end)
		g->gain[first].shared++;
}

/* Records from @pos on, at most @max, whole chunks. *pos moves behind them. Return: 1, 0 at the end, -errno */
static int window(struct sd_iter *it, struct sd_gain *g, u64 *pos, u32 max)
{
	u64 chunk = U64_MAX;
	struct sd_rec rec;
	u32 prev = 0;
	int ret = sd_iter_seek(it, *pos, 0);

	while (!ret) {
		ret = sd_iter_peek(it, &rec);
		if (ret <= 0)
			return ret;
		if (rec.chunk != chunk && !max)
			break;
		if (rec.chunk != chunk)
			prev = 0;
		chunk = rec.chunk;
		max -= !!max;
		count(g, &rec, prev);
		prev = rec.gen;
		ret = min(sd_iter_next(it, &rec, NULL), 0);
	}
	*pos = chunk + 1;
	return ret ? ret : 1;
}

static void begin(struct sd_version *v, struct sd_gain *g)
{
	u64 records = sd_mem_count(v->active) + (v->frozen ? sd_mem_count(v->frozen) : 0), chunks;
	u32 i, keep = U32_MAX;

	for (i = g->nr; i; i--) {
		keep = g->gain[i - 1].keep ? i - 1 : keep;
		g->gain[i - 1].next_keep = keep;
		g->gain[i - 1].alone = g->gain[i - 1].shared = 0;
	}
	g->seen = 0;
	for (i = 0; i < v->nr_runs; i++)
		records += v->runs[i]->records;
	chunks = sd_div64(v->s->primary_sectors, v->s->chunk_size >> 9) + 1;
	g->step = records <= ALL_RECORDS ? 0 : sd_div64(chunks, WINDOWS) + 1;
}

int sd_gain(struct sd_version *v, struct sd_gain *g)
{
	u64 from = g->pos;
	struct sd_iter it;
	int ret;

	if (!from)
		begin(v, g);
	ret = sd_iter_init(&it, v, 0, U32_MAX);
	if (ret)
		return ret;
	ret = window(&it, g, &g->pos, g->step ? WINDOW_RECORDS : PART_RECORDS);
	g->pos = max(g->pos, from + g->step);
	sd_iter_exit(&it);
	return ret;
}
