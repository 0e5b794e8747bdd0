// SPDX-License-Identifier: GPL-2.0
/*
 * Transactions: how merge slices and checkpoints become durable.
 *
 *	begin   [M]  what is to be done; blocks for a merge's output and for the run of the in-memory table are taken, as many as they can need; if this is a
 *		     checkpoint, the table is frozen: the last thing, because there is no way back, and from here on the transaction must succeed or the store fails
 *	run     [B]  the frozen table's run is written to the taken blocks; the merge slice reads its inputs and writes its output
 *	prepare [M]  the next state is made in memory: what was written is known now, the catalog is changed, bitmaps too, and all
 *		     blocks that changed are copied into step->writes. From here on a merge alone must succeed, too.
 *	write   [B]  the copies, flush; the superblock, flush. All that can fail comes before the superblock.
 *	end     [M]  the next version becomes current; what the old one alone needed is given back when its last reader has gone
 *
 * How many blocks a run takes is known when it is written: its records are packed (leaf.c). So it is written before the catalog says where it is, as a merge's output is.
 *
 * Groups that are committed after the table was frozen go into the new active table; their place in the journal is behind the tail that the new
 * superblock names. What they say of generations is in the catalog, if they were committed before prepare (catalog_seq).
 *
 * A merge that meets damage ends the step, if there is nothing else in it. Otherwise it is left out, and said at the end.
 *
 * A device that has grown is taken in by a step, too: the superblock with the new size is the one that says so. What is behind the old end is not given out before
 * that is durable: a group in the journal must not name a block that the store, after a crash, does not have.
 */
#include "internal.h"

int sd_writes_add(struct sd_writes *w, u64 addr, void **buf)
{
	if (w->nr == w->cap) {
		u32 cap = w->cap ? 2 * w->cap : 32;
		struct sd_write *p = sd_malloc_sure(cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		if (w->nr)
			memcpy(p, w->w, w->nr * sizeof(*p));
		sd_free(w->w);
		w->w = p;
		w->cap = cap;
	}
	*buf = sd_zalloc_sure(SD_BLOCK_SIZE);
	if (!*buf)
		return -ENOMEM;
	w->w[w->nr].addr = addr;
	w->w[w->nr++].buf = *buf;
	return 0;
}

static void writes_free(struct sd_writes *w)
{
	u32 i;

	for (i = 0; i < w->nr; i++)
		sd_free(w->w[i].buf);
	sd_free(w->w);
	memset(w, 0, sizeof(*w));
}

/* ---- what is to be done ------------------------------------------------------------------------------------ */

static bool over(u64 used, u64 of, u32 eighths)
{
	return used * 8 >= of * eighths;
}

static enum sd_work checkpoint_wanted(struct sd_store *s)
{
	u64 used = sd_journal_used(&s->j);
	u32 mem = sd_mem_count(s->cur->active) + s->mem_promised;

	if (over(used, s->j.blocks, 6) || !sd_journal_room(&s->j) || over(mem, s->mem_records, 7))
		return SD_WORK_NOW;
	if (over(used, s->j.blocks, 4) || over(mem, s->mem_records, 4))
		return SD_WORK_SOON;
	return sd_merge_purge_memory(s) ? SD_WORK_IDLE : SD_WORK_NONE;
}

enum sd_work sd_background_work(struct sd_store *s)
{
	enum sd_work merge, work;

	if (s->failed || s->step)
		return SD_WORK_NONE;
	sd_version_reap(s);
	work = checkpoint_wanted(s);
	if (work == SD_WORK_NOW)
		return work;
	merge = sd_merge_wanted(s);
	work = max(work, merge);
	return work && s->starved ? SD_WORK_NOW : work;
}

/* Is there room for the run of the table, if it is frozen now, and for prepare, which must not run out of it? The merge has taken its blocks already. */
static bool enough_room(struct sd_store *s, bool freeze)
{
	return s->alloc.avail >= sd_alloc_needs(s) + (freeze ? sd_run_blocks(sd_mem_count(s->cur->active)) : 0);
}

/* A merge must leave as much as the step needs, and what opening after a crash needs (alloc.c); while we are opening that is too late, but it may help. */
static int begin_merge(struct sd_store *s, struct sd_step *st)
{
	u64 leave = st->flags & SD_STEP_MERGE ? sd_alloc_needs(s) : sd_alloc_floor(s, 0);
	int err = sd_merge_begin(s, true, leave, &st->merge);

	if (err || enough_room(s, st->freeze))
		return err;
	sd_merge_free(s, st->merge, true);
	st->merge = NULL;
	return -ENOSPC;
}

/* -ENODATA: it has not grown. */
static int plan_growth(struct sd_store *s, struct sd_step *st)
{
	u64 to = sd_usable_blocks(s->dev->nr_blocks, s->alloc.start);

	if (s->dev->nr_blocks <= s->nr_blocks || to <= s->nr_blocks)
		return -ENODATA;
	st->grow_groups = sd_zalloc(DIV_ROUND_UP(to - s->alloc.start, SD_GROUP_BLOCKS) * sizeof(*st->grow_groups));
	if (!st->grow_groups)
		return -ENOMEM;
	st->grow_to = to;
	return 0;
}

static int grow(struct sd_store *s, struct sd_step *st)
{
	int err;

	st->grow_from = s->alloc.nr_groups;
	err = sd_alloc_grow(s, st->grow_to, st->grow_groups, &st->retire);
	if (err)
		return err;
	st->grow_groups = NULL;
	WRITE_ONCE(s->nr_blocks, st->grow_to);	/* readers check addresses by it */
	return 0;
}

/*
 * The active table becomes the frozen one; readers see both. If this fails, nothing has changed. What is known of its garbage goes along: groups that are
 * committed later have their own. (Those that were in flight when it became garbage may bring more of it.)
 */
static int freeze(struct sd_store *s, struct sd_step *st)
{
	u32 records = sd_mem_count(s->cur->active);
	struct sd_version *v;
	int err;

	if (records) {
		err = sd_alloc_take_list(s, sd_run_blocks(records), &st->run_space);
		if (err)
			return err;
		v = sd_version_clone(s->cur);
		if (!v) {
			sd_alloc_settle(s, &st->run_space, 0);
			return -ENOMEM;
		}
		sd_mem_reset(s->spare);
		v->frozen = v->active;		/* the reference moves along */
		v->active = s->spare;		/* the store's reference becomes the version's */
		st->frozen = v->frozen;
		sd_mem_get(st->frozen);
		s->spare = NULL;
		st->garbage = s->mem_garbage;
		st->unneeded = s->mem_unneeded;
		s->mem_garbage = st->garbage && s->j.done_seq < s->garbage_until;
		s->mem_unneeded = 0;
		sd_version_swap(s, v);
	}
	st->tail = s->j.done;
	st->tail_seq = s->j.done_seq + 1;
	st->tail_link = s->j.done_link;
	if (sd_planted(SD_PLANT_TAIL_AHEAD)) {
		st->tail = s->j.head;
		st->tail_seq = s->j.next_seq;
		st->tail_link = s->j.head_link;
	}
	return 0;
}

#define MAX_HELD	4u	/* versions */

/*
 * Is there an empty table for the one that will be frozen? A reader of an old version may still have it, for as long as his device takes to answer. When writers
 * wait, he keeps it and another one is made: what they wait for in the end is that the generations are given up. Each version that is held has two tables at most,
 * and with so many held nothing more is added.
 */
static bool spare_ready(struct sd_store *s, bool writers_wait)
{
	struct sd_mem *m;

	if (!sd_mem_shared(s->spare))
		return true;
	if (!writers_wait || sd_version_held(s) > MAX_HELD)
		return false;
	m = sd_mem_alloc(s->mem_records);
	if (!m)
		return false;
	sd_mem_put(s->spare);
	s->spare = m;
	return true;
}

int sd_step_begin(struct sd_store *s, u32 flags, struct sd_step **step)
{
	enum sd_work wanted;
	struct sd_step *st;
	int err;

	if (s->failed)
		return -EIO;
	if (WARN_ON_ONCE(s->step))
		return -EBUSY;
	sd_version_reap(s);
	wanted = checkpoint_wanted(s);
	st = sd_zalloc(sizeof(*st));
	if (!st)
		return -ENOMEM;
	st->s = s;
	st->flags = flags;
	st->txid = s->txid + 1;
	st->freeze = flags & SD_STEP_CHECKPOINT || (wanted != SD_WORK_NONE && !(flags & (SD_STEP_GROW | SD_STEP_MERGE)));
	err = flags & SD_STEP_GROW ? plan_growth(s, st) : 0;
	if (err)
		goto out;
	if (flags & SD_STEP_MERGE || (!flags && wanted != SD_WORK_NOW)) {
		err = begin_merge(s, st);
		if (err && err != -ENODATA && !st->freeze)
			goto out;
	}
	if (st->freeze)
		st->freeze = spare_ready(s, wanted == SD_WORK_NOW);
	err = st->merge ? 0 : flags & SD_STEP_CHECKPOINT || (!(flags & SD_STEP_MERGE) && wanted != SD_WORK_NONE) ? -EAGAIN : -ENODATA;
	if (!st->freeze && !st->merge && !st->grow_to)
		goto out;
	err = -ENOSPC;
	if (!flags && st->freeze && !st->merge && !enough_room(s, true)) {
		/* No room to write the table in memory: what a merge frees comes first. */
		st->freeze = false;
		begin_merge(s, st);
	}
	if (!enough_room(s, st->freeze) || (!st->freeze && !st->merge && !st->grow_to))
		goto out;
	err = st->freeze ? freeze(s, st) : 0;
	if (err)
		goto out;
	s->step = st;
	*step = st;
	return 0;
out:
	if (st->merge)
		sd_merge_free(s, st->merge, true);
	sd_free(st->grow_groups);
	sd_free(st);
	return err;
}

static int write_run(struct sd_step *st)
{
	struct sd_rec recs[SD_FETCH_STACK];
	u64 chunk = 0;
	u32 gen = 0, i, n;
	int err = sd_builder_init(&st->b, st->s, st->txid, &st->run_space, sd_mem_count(st->frozen));

	while (!err && (n = sd_mem_fetch(st->frozen, chunk, gen, recs, ARRAY_SIZE(recs)))) {
		for (i = 0; !err && i < n; i++)
			err = sd_builder_add(&st->b, &recs[i]);
		chunk = recs[n - 1].chunk + (recs[n - 1].gen == U32_MAX);
		gen = recs[n - 1].gen + 1;
	}
	if (!err)
		err = sd_builder_finish(&st->b);
	sd_builder_exit(&st->b);	/* memory; what it counted stays */
	return err;
}

int sd_step_run(struct sd_step *st)
{
	int err = st->frozen ? write_run(st) : 0;

	if (err)
		return err;
	st->built = true;
	err = st->merge ? sd_merge_run(st->merge, st->txid) : 0;
	if (!st->frozen)
		return err;
	st->merge_err = err;
	return 0;
}

/* ---- prepare -------------------------------------------------------------------------------------------------- */

/* The frozen table's run as it was written. Blocks that it did not need are free again. */
static int add_run(struct sd_store *s, struct sd_step *st)
{
	struct sd_run *r = sd_run_alloc(1);
	int err;

	if (!r)
		return -ENOMEM;
	st->run = r;
	sd_alloc_settle(s, &st->run_space, st->b.used);
	sd_mem_gens(st->frozen, &r->gen_min, &r->gen_max);
	r->id = s->next_id++;
	r->age = s->next_age++;
	r->records = st->b.records;
	r->flags = st->garbage ? SD_RUN_F_PURGE : 0;
	r->garbage = min(r->records, st->unneeded);
	r->seg[0] = st->b.seg;
	err = sd_run_store(s, r);
	return err ? err : sd_run_store_seg(s, r->id, &r->seg[0]);
}

/* Groups whose bitmap has changed: it is part of this transaction, and so is the catalog entry with its count. */
static int place_groups(struct sd_store *s, bool *changed)
{
	static const u8 none[SD_CAT_VALUE];
	struct sd_alloc *a = &s->alloc;
	u32 i;
	int err;

	for (i = 0; i < a->nr_groups; i++) {
		u64 key = SD_CAT_KEY(SD_CAT_GROUPS, i / SD_GROUPS_PER_ENTRY);

		if (!a->g[i].dirty || a->g[i].in_step)
			continue;
		a->g[i].in_step = true;
		*changed = true;
		if (sd_cat_edit(s, key))
			continue;
		err = sd_cat_put(s, key, none);
		if (err)
			return err;
	}
	return 0;
}

static int encode_groups(struct sd_store *s, struct sd_step *st)
{
	struct sd_alloc *a = &s->alloc;
	u32 i;
	int err;

	for (i = 0; i < a->nr_groups; i++) {
		struct sd_disk_group_desc *d;
		void *buf;
		u64 addr;

		if (!a->g[i].in_step)
			continue;
		err = sd_writes_add(&st->writes, 0, &buf);
		if (err)
			return err;
		sd_alloc_encode(s, i, buf, st->txid, &addr);
		st->writes.w[st->writes.nr - 1].addr = addr;
		d = sd_cat_edit(s, SD_CAT_KEY(SD_CAT_GROUPS, i / SD_GROUPS_PER_ENTRY));
		d += i % SD_GROUPS_PER_ENTRY;
		d->txid = cpu_to_le32(a->g[i].txid);
		d->free = cpu_to_le16(a->g[i].free);
		d->flags = cpu_to_le16(a->g[i].flags);
	}
	return 0;
}

static int place_all(struct sd_store *s)
{
	bool changed;
	int err;

	do {
		changed = false;
		err = place_groups(s, &changed);
		if (!err)
			err = sd_cat_place(s, &changed);
	} while (!err && changed);
	return err;
}

int sd_step_prepare(struct sd_step *st)
{
	struct sd_store *s = st->s;
	struct sd_version *next;
	int err = 0;

	if (s->failed)
		return -EIO;
	st->prepared = true;
	if (!st->freeze) {
		st->tail = s->j.tail;
		st->tail_seq = s->j.tail_seq;
		st->tail_link = s->j.tail_link;
	}
	if (st->merge_err) {
		sd_merge_free(s, st->merge, true);
		st->merge = NULL;
	}
	next = st->next = sd_version_clone(s->cur);
	if (!next)
		return -ENOMEM;
	if (st->grow_to)
		err = grow(s, st);
	if (!err && st->merge)
		err = sd_merge_apply(s, st->merge, next);
	if (!err && st->frozen) {
		sd_mem_put(next->frozen);
		next->frozen = NULL;
		err = add_run(s, st);
		if (!err) {
			next->runs[next->nr_runs++] = st->run;
			refcount_inc(&st->run->ref);
		}
	}
	if (!err)
		err = place_all(s);
	if (!err)
		err = encode_groups(s, st);
	if (!err)
		err = sd_cat_encode(s, st->txid, &st->writes);
	if (err)
		return err;
	st->super = sd_zalloc_sure(SD_BLOCK_SIZE);
	if (!st->super)
		return -ENOMEM;
	sd_super_encode(s, st->super);
	st->super->journal_tail = cpu_to_le64(st->tail);
	st->super->journal_seq = cpu_to_le64(st->tail_seq);
	st->super->journal_link = cpu_to_le32(st->tail_link);
	return 0;
}

/* ---- write, end --------------------------------------------------------------------------------------------------- */

int sd_step_write(struct sd_step *st)
{
	struct sd_store *s = st->s;
	const struct sd_dev_ops *ops = s->dev->ops;
	u32 i;
	int err = 0;

	for (i = 0; !err && i < st->writes.nr; i++) {
		err = ops->write(s->dev->ctx, st->writes.w[i].addr, 1, st->writes.w[i].buf);
		if (!err && !sd_planted(SD_PLANT_NO_FORGET))
			ops->forget(s->dev->ctx, st->writes.w[i].addr, 1);
	}
	s->meta_written += st->writes.nr;
	if (!err && !sd_planted(SD_PLANT_STEP_UNFLUSHED))
		err = ops->flush(s->dev->ctx);
	if (!err && !sd_super_claim(s, false))
		err = -EIO;
	if (!err)
		err = sd_super_write(s, st->super, st->txid);
	return err;
}

/* The bitmaps are where the catalog says, or nothing is written any more. Until now they had to stay in memory. */
static void release_groups(struct sd_store *s)
{
	u32 i;

	for (i = 0; i < s->alloc.nr_groups; i++)
		s->alloc.g[i].in_step = false;
}

/* The transaction is durable: what it replaced may go when nobody reads it any more. */
static void step_done(struct sd_store *s, struct sd_step *st)
{
	struct sd_version *old = s->cur;
	u64 records = 0;
	u32 i;

	s->txid = st->txid;
	s->j.tail = st->tail;
	s->j.tail_seq = st->tail_seq;
	s->j.tail_link = st->tail_link;
	if (st->grow_to)
		sd_alloc_open_groups(s, st->grow_from);
	old->retire = st->retire;
	memset(&st->retire, 0, sizeof(st->retire));
	sd_version_swap(s, st->next);
	st->next = NULL;
	if (st->frozen) {
		s->spare = st->frozen;	/* usable when the readers of older versions have gone */
		st->frozen = NULL;
		s->checkpoints++;
	}
	for (i = 0; i < s->cur->nr_runs; i++)
		records += s->cur->runs[i]->records;
	s->records_run = records;
	s->starved = false;
	sd_version_reap(s);
}

int sd_step_end(struct sd_step *st, int err)
{
	struct sd_store *s = st->s;

	if (!err && s->failed)
		err = -EIO;
	s->step = NULL;
	s->super_busy = false;
	s->alloc.step_dropped = 0;
	release_groups(s);
	if (!err) {
		step_done(s, st);
	} else if (st->prepared || st->frozen) {
		/* Failed by somebody else meanwhile: this step's superblock may have been written over the one that says so. */
		if (s->failed)
			sd_super_write_now(s);
		sd_store_fail(s);
		if (st->frozen && !s->spare) {
			s->spare = st->frozen;
			st->frozen = NULL;
		}
	}
	if (st->merge)
		sd_merge_free(s, st->merge, err);
	if (!err)
		err = st->merge_err;
	sd_mem_put(st->frozen);
	sd_run_put(st->run);
	sd_version_discard(st->next);
	sd_blocks_clear(&st->run_space);
	sd_blocks_clear(&st->retire);
	writes_free(&st->writes);
	sd_free(st->grow_groups);
	sd_free(st->super);
	sd_free(st);
	return err;
}

int sd_step_whole(struct sd_store *s, u32 flags)
{
	struct sd_step *st;
	int err = sd_step_begin(s, flags, &st);

	if (err)
		return err;
	err = sd_step_run(st);
	if (!err)
		err = sd_step_prepare(st);
	if (!err)
		err = sd_step_write(st);
	return sd_step_end(st, err);
}
