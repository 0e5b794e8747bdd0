// SPDX-License-Identifier: GPL-2.0
/*
 * All tables as one stream sorted by (chunk, gen). Each source copies a few records at a time out of its table, so nothing is held between calls.
 */
#include "internal.h"

int sd_iter_init_empty(struct sd_iter *it, struct sd_store *s, u32 max_sources)
{
	it->s = s;
	it->nr = 0;
	it->failed = U32_MAX;
	it->src = sd_malloc(max(max_sources, 1u) * sizeof(*it->src));
	return it->src ? 0 : -ENOMEM;
}

void sd_iter_add(struct sd_iter *it, const struct sd_run *run, struct sd_mem *mem, u32 tag)
{
	struct sd_source *src = &it->src[it->nr++];

	src->run = run;
	src->mem = mem;
	src->tag = tag;
	src->pos = src->nr = 0;
	src->end = false;
}

int sd_iter_init(struct sd_iter *it, struct sd_version *v, u32 gen_min, u32 gen_max)
{
	int err = sd_iter_init_empty(it, v->s, v->nr_runs + 2);
	u32 i;

	if (err)
		return err;
	for (i = 0; i < v->nr_runs; i++)
		if (v->runs[i]->gen_max >= gen_min && v->runs[i]->gen_min <= gen_max)
			sd_iter_add(it, v->runs[i], NULL, i);
	if (v->frozen)
		sd_iter_add(it, NULL, v->frozen, v->nr_runs);
	sd_iter_add(it, NULL, v->active, v->nr_runs + 1);
	return 0;
}

void sd_iter_exit(struct sd_iter *it)
{
	sd_free(it->src);
	it->src = NULL;
}

static int source_fill(struct sd_iter *it, struct sd_source *src, u64 chunk, u32 gen)
{
	int err = 0;

	src->pos = src->nr = 0;
	if (src->mem)
		src->nr = sd_mem_fetch(src->mem, chunk, gen, src->rec, SD_FETCH);
	else
		err = sd_run_fetch(it->s, src->run, chunk, gen, src->rec, SD_FETCH, &src->nr);
	src->end = !src->nr;
	if (err)
		it->failed = src->tag;
	return err;
}

static bool rec_before(const struct sd_rec *r, u64 chunk, u32 gen)
{
	return r->chunk < chunk || (r->chunk == chunk && r->gen < gen);
}

int sd_iter_seek(struct sd_iter *it, u64 chunk, u32 gen)
{
	u32 i;
	int err;

	for (i = 0; i < it->nr; i++) {
		struct sd_source *src = &it->src[i];

		/* Forward inside of what is there already? */
		if (src->nr && src->pos < src->nr && !rec_before(&src->rec[src->nr - 1], chunk, gen) &&
		    (src->pos == 0 || rec_before(&src->rec[src->pos - 1], chunk, gen))) {
			while (rec_before(&src->rec[src->pos], chunk, gen))
				src->pos++;
			continue;
		}
		err = source_fill(it, src, chunk, gen);
		if (err)
			return err;
	}
	return 0;
}

static int refill(struct sd_iter *it, struct sd_source *src)
{
	const struct sd_rec *last;

	if (src->end || src->pos < src->nr)
		return 0;
	last = &src->rec[src->nr - 1];
	return last->gen == U32_MAX ? source_fill(it, src, last->chunk + 1, 0) : source_fill(it, src, last->chunk, last->gen + 1);
}

static int first_source(struct sd_iter *it, struct sd_source **first)
{
	u32 i;
	int err;

	*first = NULL;
	for (i = 0; i < it->nr; i++) {
		struct sd_source *src = &it->src[i];

		err = refill(it, src);
		if (err)
			return err;
		if (!src->end && (!*first || rec_before(&src->rec[src->pos], (*first)->rec[(*first)->pos].chunk,
							(*first)->rec[(*first)->pos].gen)))
			*first = src;
	}
	return 0;
}

int sd_iter_peek(struct sd_iter *it, struct sd_rec *rec)
{
	struct sd_source *src;
	int err = first_source(it, &src);

	if (err || !src)
		return err;
	*rec = src->rec[src->pos];
	return 1;
}

int sd_iter_next(struct sd_iter *it, struct sd_rec *rec, u32 *tag)
{
	struct sd_source *src;
	int err = first_source(it, &src);

	if (err || !src)
		return err;
	*rec = src->rec[src->pos++];
	if (tag)
		*tag = src->tag;
	return 1;
}
