// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The store's driver, as the contract (core.h) and the kernel have it, but with dice instead of threads: several groups in flight whose data and images complete
 * in any order, flushes that cover what has completed by then, commits in order, releases some time later. While a step reads or writes in the background,
 * the device's hook comes back here, so that everything a step may be overtaken by happens between any two of its calls.
 */
#include "sim.h"

static void fly_free(struct fly *f)
{
	free(f);
}

struct fly *fly_new(enum op op)
{
	struct fly *f = xzalloc(sizeof(*f));
	int err = sd_group_begin(S.store, &f->group);

	if (err)
		fail("sd_group_begin: %d", err);
	f->op = op;
	return f;
}

/* @err: of what was added to the group. Seal it, or drop it. */
bool fly_seal(struct fly *f, int err)
{
	if (err >= 0)
		err = sd_group_seal(S.store, f->group);
	if (!err) {
		f->seq = f->group->seq;
		if (f->seq != S.acked + S.nr_fly + 1)
			fail("group %llu sealed after %llu with %u in flight", (unsigned long long)f->seq, (unsigned long long)S.acked, S.nr_fly);
		S.fly[S.nr_fly++] = f;
		return true;
	}
	sd_group_destroy(S.store, f->group);
	fly_free(f);
	if (err == -EAGAIN)
		C.eagain++, S.stuck++;
	else if (!S.dev->dead && err != -ENOSPC)
		fail("building a group: %d", err);
	return false;
}

/* ---- writing to the primary ------------------------------------------------------------------------- */

static void release_later(u32 chunk, u32 version)
{
	S.rel[S.nr_rel].chunk = chunk;
	S.rel[S.nr_rel++].version = version;
}

static void release_one(u32 i)
{
	S.m.primary[S.rel[i].chunk] = S.rel[i].version;
	S.claimed[S.rel[i].chunk] = false;
	S.rel[i] = S.rel[--S.nr_rel];
}

void release_all(void)
{
	while (S.nr_rel)
		release_one(S.nr_rel - 1);
}

/* What the first write of the chunk has to do: a kind, or NONE; compared with what the model thinks. */
static u32 decide(u32 chunk)
{
	struct sd_version *v = sd_version_get(S.store);
	struct mgen *live = model_find(&S.m, model_live(&S.m)), *kept = model_find(&S.m, model_kept(&S.m));
	struct sd_summary sum;
	struct sd_rec rec;
	bool done;
	u32 kind = SD_KIND_NONE;
	int err = sd_lookup_newest(v, chunk, &rec);

	sd_version_put(v);
	if (err && S.dev->dead)
		return SD_KIND_NONE;
	if (err)
		fail("newest record of chunk %u: %d", chunk, err);
	sd_summary(S.store, &sum);
	if (rec.kind == SD_KIND_NONE)
		rec.gen = 0;
	if (!sum.newest_kept)
		return SD_KIND_NONE;
	done = rec.gen >= sum.newest_kept;
	if (!done)
		kind = rec.gen >= sum.newest_live || !sum.newest_live ? SD_KIND_MARK : SD_KIND_DATA;
	if (kind != SD_KIND_DATA && live && !live->preserved[chunk])
		fail("chunk %u: generation %u needs a copy, newest record %u, summary %u %u %u", chunk, live->number, rec.gen, sum.highest,
		     sum.newest_live, sum.newest_kept);
	if (kind == SD_KIND_DATA && (!live || live->preserved[chunk]) && !S.m.late[chunk])
		fail("chunk %u: a copy that nobody needs, newest record %u, summary %u %u %u", chunk, rec.gen, sum.highest, sum.newest_live,
		     sum.newest_kept);
	if (done && kept->number == S.m.g[S.m.nr - 1].number && !kept->changed[chunk] && !S.m.late[chunk])
		fail("chunk %u: not in the changed set of generation %u, newest record %u", chunk, kept->number, rec.gen);
	return kind;
}

static void fill_item(struct fly *f, u32 chunk, u32 kind, u32 new)
{
	static u8 buf[1u << 20];
	struct sd_item *it = &f->item[f->nr];

	f->old[f->nr] = S.m.primary[chunk];
	f->new[f->nr++] = new;
	it->chunk = chunk;
	it->kind = kind;
	if (kind != SD_KIND_DATA)
		return;
	if (!rnd(40)) {
		it->kind = SD_KIND_BAD;
	} else if (S.m.primary[chunk] == V_ZERO) {
		it->kind = SD_KIND_ZERO;
	} else {
		fill_chunk(buf, chunk, S.m.primary[chunk], S.chunk_blocks);
		it->crc = crc32c(~0u, buf, S.chunk_blocks * SD_BLOCK_SIZE);
	}
}

/* Items that were not taken wait: they are not written at all here. */
static void submit_items(struct fly *f)
{
	u32 i, taken;
	int ret = sd_group_add_items(S.store, f->group, f->item, f->nr);

	if (ret == -ENOSPC) {
		C.enospc++;
		fly_seal(f, ret);
		give_up_oldest();
		return;
	}
	if (ret > (int)f->nr || !ret)
		fail("sd_group_add_items took %d of %u", ret, f->nr);
	taken = ret > 0 ? ret : 0;
	if (ret > 0)
		f->nr = taken;
	if (!fly_seal(f, ret))
		return;
	for (i = 0; i < taken; i++) {
		S.claimed[f->item[i].chunk] = true;
		C.kinds[f->item[i].kind]++;
	}
}

static void start_write(void)
{
	bool seen[MAX_CHUNKS] = { false };
	u32 want = 1 + rnd(rnd(4) ? 4 : MAX_ITEMS), hot = rnd(3) ? max(S.m.nr_chunks / 8, 1u) : S.m.nr_chunks, first = rnd(S.m.nr_chunks);
	bool sequential = !rnd(3);
	struct fly *f = NULL;
	u32 i;

	if (S.bulk) {
		want = MAX_ITEMS;
		hot = S.m.nr_chunks;
	}
	if (S.gate || S.nr_fly == MAX_FLY || S.nr_rel + S.nr_fly * MAX_ITEMS + want > MAX_REL)
		return;
	for (i = 0; i < want && !S.dev->dead; i++) {
		u32 c = sequential ? (first + i) % S.m.nr_chunks : rnd(hot), new = rnd(10) ? ++S.next_version : V_ZERO, kind;

		if (S.claimed[c] || seen[c])
			continue;
		seen[c] = true;
		kind = decide(c);
		if (S.dev->dead)
			break;
		if (kind == SD_KIND_NONE) {
			S.claimed[c] = true;
			release_later(c, new);
			continue;
		}
		if (!f)
			f = fly_new(OP_COPY);
		fill_item(f, c, kind, new);
	}
	if (f && S.dev->dead)
		fly_seal(f, -EIO);
	else if (f)
		submit_items(f);
}

/* ---- I/O of the groups in flight --------------------------------------------------------------------------- */

static u32 nr_ios(const struct fly *f)
{
	return (f->op == OP_COPY ? f->nr : 0) + 1;
}

static void issue(struct fly *f, u32 i)
{
	static u8 buf[1u << 20];
	u64 tag[256];
	u32 b;

	f->io[i].state = IO_ISSUED;
	f->io[i].id = 0;
	if (i + 1 == nr_ios(f)) {
		f->io[i].id = simdev_issue(S.dev, f->group->image_addr, f->group->image_blocks, f->group->image, NULL);
	} else if (f->item[i].kind == SD_KIND_DATA) {
		fill_chunk(buf, f->item[i].chunk, f->old[i], S.chunk_blocks);
		for (b = 0; b < S.chunk_blocks; b++)
			tag[b] = tag_of(f->item[i].chunk, f->old[i], b);
		f->io[i].id = simdev_issue(S.dev, f->item[i].addr, S.chunk_blocks, buf, tag);
	}
}

static bool step_io(struct fly *f)
{
	u32 n = nr_ios(f), i = rnd(n), k;

	for (k = 0; k < n; k++, i = (i + 1) % n) {
		if (f->io[i].state == IO_DONE)
			continue;
		if (f->io[i].state == IO_NEW) {
			issue(f, i);
		} else {
			if (f->io[i].id)
				simdev_complete(S.dev, f->io[i].id);
			f->io[i].state = IO_DONE;
		}
		return true;
	}
	return false;
}

static bool all_done(const struct fly *f)
{
	u32 i;

	for (i = 0; i < nr_ios(f); i++)
		if (f->io[i].state != IO_DONE)
			return false;
	return true;
}

/* One flush serves all groups whose I/O has completed. */
static void flush_groups(void)
{
	u32 i;
	bool any = false;

	for (i = 0; i < S.nr_fly; i++)
		any |= !S.fly[i]->flushed && all_done(S.fly[i]);
	if (!any)
		return;
	maybe_cut(1);
	if (!sd_planted(PLANT_COMMIT_UNFLUSHED) && simdev_flush(S.dev))
		return;
	for (i = 0; i < S.nr_fly; i++)
		if (all_done(S.fly[i]))
			S.fly[i]->flushed = true;
	maybe_cut(1);
}

static bool commit_first(void)
{
	struct fly *f = S.nr_fly ? S.fly[0] : NULL;
	u32 i;

	if (!f || !f->flushed || S.dev->dead)
		return false;
	sd_group_commit(S.store, f->group);
	model_apply(&S.m, f);
	S.acked = f->seq;
	C.groups++;
	for (i = 0; f->op == OP_COPY && i < f->nr; i++)
		release_later(f->item[i].chunk, f->new[i]);
	if (f->op == OP_CREATE)
		S.gate = false;
	memmove(&S.fly[0], &S.fly[1], --S.nr_fly * sizeof(S.fly[0]));
	fly_free(f);
	return true;
}

/* The data of a group could not be written where it was to go. */
static void relocate(struct fly *f)
{
	struct sd_info info;
	u32 i;
	int err;

	sd_info(S.store, &info);
	if (f->op != OP_COPY || f->flushed || info.free_blocks < info.reserved_blocks + 2 * MAX_ITEMS * S.chunk_blocks)
		return;
	for (i = 0; i < nr_ios(f); i++)
		if (f->io[i].state == IO_ISSUED && f->io[i].id)
			simdev_complete(S.dev, f->io[i].id);
	err = sd_group_relocate(S.store, f->group);
	if (err == -ENOSPC || S.dev->dead) {
		S.dev->dead = true;	/* in pieces, perhaps: the store would have to fail; take it as a crash */
		return;
	}
	if (err)
		fail("relocate: %d", err);
	for (i = 0; i < nr_ios(f); i++)
		f->io[i].state = IO_NEW;
	C.relocated++;
}

void drop_flights(u64 upto)
{
	u32 i;

	for (i = 0; i < S.nr_fly; i++) {
		if (S.fly[i]->seq <= upto)
			model_apply(&S.m, S.fly[i]);
		fly_free(S.fly[i]);
	}
	S.nr_fly = 0;
	S.nr_rel = 0;
	S.gate = false;
	memset(S.claimed, 0, sizeof(S.claimed));
	S.acked = upto;
}

void drain(void)
{
	while (S.nr_fly && !S.dev->dead) {
		u32 i;

		for (i = 0; i < S.nr_fly; i++)
			while (step_io(S.fly[i]))
				;
		flush_groups();
		while (commit_first())
			;
	}
	if (!S.dev->dead)
		release_all();
}

/* ---- readers -------------------------------------------------------------------------------------------------- */

static void step_reader(struct reader *r)
{
	bool hooked = S.dev->hooked;
	u32 i;

	if (r->v) {
		S.dev->hooked = true;
		verify_reader(r, S.dev);
		S.dev->hooked = hooked;
		if (!rnd(5)) {
			sd_version_put(r->v);
			r->v = NULL;
		}
		return;
	}
	r->v = sd_version_get(S.store);
	C.readers++;
	for (r->nr = i = 0; i < S.m.nr; i++)
		if (S.m.g[i].state == SD_GEN_LIVE)
			r->g[r->nr++] = S.m.g[i];
}

/* The power does not fail while we look. */
void verify_now(u32 flags)
{
	bool hooked = S.dev->hooked;

	S.dev->hooked = true;
	verify(S.store, S.dev, &S.m, flags);
	S.dev->hooked = hooked;
}

void drop_readers(void)
{
	u32 i;

	for (i = 0; i < MAX_READERS; i++) {
		if (S.reader[i].v)
			sd_version_put(S.reader[i].v);
		S.reader[i].v = NULL;
	}
}

/* The store fails: now, in the middle of everything. What waited is released, unpreserved. */
void fail_store(void)
{
	u32 i;
	int err;

	S.failed = FAIL_TRIED;
	err = sd_store_fail(S.store);
	if (!err)
		S.failed = FAIL_DURABLE;
	else if (!S.dev->dead && (err != -EBUSY || !S.in_step))
		fail("failing the store: %d", err);
	C.fails++;
	for (i = 0; i < S.m.nr_chunks && !err; i++)
		S.m.primary[i] = ++S.next_version;
	maybe_cut(1);
}

/* ---- everything that can happen at any moment -------------------------------------------------------------------- */

void foreground(void)
{
	u32 dice = rnd(100);

	C.events++;
	if (S.dev->dead || S.failed)
		return;
	if (S.death_rate && !rnd(S.death_rate)) {
		S.dev->dead = true;
		return;
	}
	/* The allocator's cursors are hints: back to the start, so that what becomes free is used again at once. */
	if (!rnd(4))
		S.store->alloc.data_group = S.store->alloc.data_bit = S.store->alloc.meta_bit = 0;
	else if (!rnd(4))
		S.store->alloc.data_group = S.store->alloc.nr_groups - 1;
	if (S.fail_rate && !rnd(S.fail_rate))
		fail_store();
	else if (dice < 22)
		start_write();
	else if (dice < 55 && S.nr_fly)
		step_io(S.fly[rnd(S.nr_fly)]);
	else if (dice < 65)
		flush_groups();
	else if (dice < 78)
		commit_first();
	else if (dice < 90 && S.nr_rel)
		release_one(rnd(S.nr_rel));
	else if (dice < 94)
		change_generations();
	else if (dice < 95 && S.nr_fly && !rnd(3))
		relocate(S.fly[rnd(S.nr_fly)]);
	else if (dice < 98)
		step_reader(&S.reader[rnd(MAX_READERS)]);
	else if (!rnd(8))
		verify_now(0);
	if (sd_planted(PLANT_RELEASE_EARLY) && S.nr_fly && S.fly[0]->op == OP_COPY)
		S.m.primary[S.fly[0]->item[0].chunk] = S.fly[0]->new[0];
	maybe_cut(12);
}

static void some_foreground(u32 n)
{
	while (n-- && !S.no_foreground)
		foreground();
}

bool background(u32 flags)
{
	u64 checkpoints = S.store->checkpoints, merges = S.store->merges;
	u32 groups = S.store->alloc.nr_groups;
	struct sd_step *st;
	int err = sd_step_begin(S.store, flags, &st), end;

	S.no_room = S.tight && err == -ENOSPC;
	if (err == -EAGAIN)
		drop_readers();
	if (err && err != -EAGAIN && err != -ENODATA && err != -ENOSPC && !S.dev->dead)
		fail("sd_step_begin: %d", err);
	if (err)
		return false;
	S.in_step = true;
	S.faulted = false;
	S.in_background = true;
	err = sd_step_run(st);
	S.in_background = false;
	some_foreground(rnd(4));
	if (!err)
		err = sd_step_prepare(st);
	if (!err) {
		if (flags & SD_STEP_GROW)
			S.store->alloc.data_group = S.store->alloc.nr_groups - 1;
		some_foreground(flags & SD_STEP_GROW ? rnd(200) : rnd(4));
		S.in_background = S.in_write = true;
		err = sd_step_write(st);
		S.in_background = S.in_write = false;
		some_foreground(rnd(4));
	}
	groups = S.store->alloc.nr_groups - groups;
	end = sd_step_end(st, err);
	S.in_step = false;
	if (!end && flags & SD_STEP_GROW) {
		C.grown++;
		C.new_groups += groups;
	}
	if (S.failed && !S.dev->dead) {
		if (sd_store_fail(S.store))
			fail("the store has failed, and not durably");
		S.failed = FAIL_DURABLE;
	}
	if ((err || end) && !S.dev->dead && !S.failed && !S.faulted)
		fail("a step failed: %d, %d", err, end);
	if (S.faulted && !err && !end && !S.failed)
		fail("a step did not notice an error of the device");
	S.stuck = 0;
	C.checkpoints += S.store->checkpoints > checkpoints;
	C.merges += S.store->merges > merges;
	maybe_cut(2);
	return true;
}
