// SPDX-License-Identifier: GPL-2.0
/*
 * The owner of the core's store: life, state that others may look at without a lock, lookups.
 *
 *   who			what protects it
 *   the core's [M] calls	s->lock; commits by the copy worker (store_group.c), steps by the background thread (store_step.c)
 *   the core's [R] calls	a referenced version
 *   summary, states of the generations, failed
 *				written under s->lock, read without: a seqlock, an xarray, READ_ONCE
 *   the core as a whole	exists from open to close; the control path's calls hold s->alive for reading. The copy worker, the background thread and virtual
 *				volumes have ended before it is closed.
 *
 * Failing goes one way: __snap_store_failed() is called, under the lock, wherever the core has been seen to be failed. From then on no generation is readable, the summary is
 * empty (so every write passes), and the background thread tries until the superblock has it.
 *
 * A lookup that cannot read its metadata fails that lookup only. (The copy worker's lookups are another matter: not knowing what is preserved, it gives the store up.)
 */
#include <linux/dm-bufio.h>
#include <linux/slab.h>
#include "store_internal.h"

#define DM_MSG_PREFIX SNAP_NAME
#define BATCH	16u		/* lookups at once; on the stack */
#define EXTENT_WORK	16384u	/* records that one call for extents looks at */

/* ---- state ------------------------------------------------------------------------------------ */

static void set_summary(struct snap_store *s, const struct sd_summary *sum)
{
	write_seqlock(&s->sum_lock);
	s->sum.highest = sum->highest;
	s->sum.newest_live = sum->newest_live;
	s->sum.newest_kept = sum->newest_kept;
	write_sequnlock(&s->sum_lock);
}

/* The summary may have changed. The lock is held. */
void __snap_store_refresh(struct snap_store *s)
{
	struct sd_summary sum = { };

	lockdep_assert_held(&s->lock);
	if (!s->failed)
		sd_summary(s->core, &sum);
	set_summary(s, &sum);
}

static void set_state(struct snap_store *s, u32 number, u8 state)
{
	/* the entry is there or has been reserved: nothing to allocate */
	WARN_ON_ONCE(xa_is_err(xa_store(&s->gens, number, xa_mk_value(state), GFP_NOIO)));
}

static u8 get_state(struct snap_store *s, u32 number)
{
	void *entry = xa_load(&s->gens, number);

	return xa_is_value(entry) ? xa_to_value(entry) : 0;
}

/* The states of the generations @first..@last may have changed. The lock is held. */
void __snap_store_resync(struct snap_store *s, u32 first, u32 last)
{
	struct sd_gen gen;
	unsigned long n;
	void *entry;

	lockdep_assert_held(&s->lock);
	xa_for_each_range(&s->gens, n, entry, first, last) {
		if (sd_gen_find(s->core, n, &gen))
			xa_erase(&s->gens, n);
		else
			set_state(s, n, gen.state);
	}
	/* a reserved entry (a new generation) is not visited */
	if (first == last && !sd_gen_find(s->core, first, &gen))
		set_state(s, first, gen.state);
}

/* The core has failed. The lock is held. */
void __snap_store_failed(struct snap_store *s)
{
	unsigned long n;
	void *entry;

	lockdep_assert_held(&s->lock);
	if (s->failed)
		return;
	WRITE_ONCE(s->failed, true);
	__snap_store_refresh(s);
	xa_for_each(&s->gens, n, entry) {
		if (xa_to_value(entry) == SNAPDIFF_GEN_LIVE)
			snap_count(s->vol, SNAP_C_LOST_GENS);
		set_state(s, n, SNAPDIFF_GEN_LOST);
	}
}

/**
 * snap_store_fail() - [copy worker] give the store up
 *
 * May block (superblock). All generations are lost when it returns, durably if the diff takes the superblock. A step that is writing its own superblock
 * just now goes first: it is waited for, because writes are released when this returns. (Who holds stepping waits for the diff, never for the copy worker.)
 */
void snap_store_fail(struct snap_store *s, int err, const char *what)
{
	unsigned int noio = snap_store_lock(s);
	int durable = sd_store_fail(s->core);

	s->fail_durable = durable == 0;
	__snap_store_failed(s);
	snap_store_unlock(s, noio);
	if (durable == -EBUSY) {
		mutex_lock(&s->stepping);
		noio = snap_store_lock(s);
		s->fail_durable = sd_store_fail(s->core) == 0;
		snap_store_unlock(s, noio);
		mutex_unlock(&s->stepping);
	}
	DMERR("%s: %s (error %d): all generations are lost, the primary goes on", s->vol->name, what, err);
}

/** snap_store_failed() - [any context] */
bool snap_store_failed(struct snap_store *s)
{
	return READ_ONCE(s->failed);
}

/** snap_store_summary() - [any context] */
void snap_store_summary(struct snap_store *s, struct snap_summary *sum)
{
	unsigned int seq;

	do {
		seq = read_seqbegin(&s->sum_lock);
		*sum = s->sum;
	} while (read_seqretry(&s->sum_lock, seq));
}

/** snap_store_gen_readable() - [any context] is the generation live, the store not failed? */
bool snap_store_gen_readable(struct snap_store *s, u32 gen)
{
	/* after the data that the caller has read; pairs with the order commit (state), release of the write */
	smp_mb();
	return !READ_ONCE(s->failed) && get_state(s, gen) == SNAPDIFF_GEN_LIVE;
}

/** snap_store_info() - May block */
void snap_store_info(struct snap_store *s, struct snap_store_info *out)
{
	struct sd_info i = { };
	unsigned int noio;

	memset(out, 0, sizeof(*out));
	down_read(&s->alive);
	if (s->core) {
		noio = snap_store_lock(s);
		sd_info(s->core, &i);
		snap_store_unlock(s, noio);
	}
	up_read(&s->alive);
	memcpy(out->uuid, i.uuid, sizeof(out->uuid));
	out->chunk_size = i.chunk_size;
	out->primary_sectors = i.primary_sectors;
	out->was_clean = i.was_clean;
	out->failed = i.failed || READ_ONCE(s->failed);
	out->diff_size = i.nr_blocks * SD_BLOCK_SIZE;
	out->diff_free = i.free_blocks * SD_BLOCK_SIZE;
	out->diff_reserved = i.reserved_blocks * SD_BLOCK_SIZE;
	out->journal_size = i.journal_blocks * SD_BLOCK_SIZE;
	out->journal_used = i.journal_used * SD_BLOCK_SIZE;
	out->records_new = i.records_new;
	out->records_run = i.records_run;
	out->txid = i.txid;
	out->meta_written = i.meta_written * SD_BLOCK_SIZE;
	out->journal_written = i.journal_written * SD_BLOCK_SIZE;
	out->checkpoints = i.checkpoints;
	out->merges = i.merges;
	out->nr_runs = i.nr_runs;
	out->nr_gens = i.nr_gens;
	out->memory = i.memory + snap_store_dev_memory(s) + (s->vol->bits ? snap_bits_memory(s->vol->bits) : 0);
	out->memory_max = s->vol->memory;
}

static void unpack_gen(struct snap_store *s, struct snap_gen *g, const struct sd_gen *d)
{
	memset(g, 0, sizeof(*g));
	g->number = d->number;
	g->state = s->failed ? SNAPDIFF_GEN_LOST : d->state;
	g->flags = d->flags;
	g->created_ns = d->created_ns;
	g->size = d->size_sectors << SECTOR_SHIFT;
	g->changed = d->changed * (s->vol->chunk_sectors << SECTOR_SHIFT);
	memcpy(g->uuid, d->uuid, sizeof(g->uuid));
	strscpy(g->label, d->label, sizeof(g->label));
}

static int gen_get(struct snap_store *s, u32 number, struct snap_gen *gen, bool exact)
{
	struct sd_gen d;
	unsigned int noio;
	int err = -ENOENT;

	down_read(&s->alive);
	if (s->core) {
		noio = snap_store_lock(s);
		err = exact ? sd_gen_find(s->core, number, &d) : sd_gen_next(s->core, number, &d);
		if (!err)
			unpack_gen(s, gen, &d);
		snap_store_unlock(s, noio);
	}
	up_read(&s->alive);
	return err;
}

/** snap_store_gen_find() - May block. 0 or -ENOENT */
int snap_store_gen_find(struct snap_store *s, u32 number, struct snap_gen *gen)
{
	return gen_get(s, number, gen, true);
}

/** snap_store_gen_next() - the first generation with a number >= @from. May block. 0 or -ENOENT */
int snap_store_gen_next(struct snap_store *s, u32 from, struct snap_gen *gen)
{
	return gen_get(s, from, gen, false);
}

/* ---- lookups ------------------------------------------------------------------------------------ */

/** snap_view_get() - [any context] the table as it is now. The volume is not dead */
struct snap_view *snap_view_get(struct snap_store *s)
{
	return (struct snap_view *)sd_version_get(s->core);
}

/** snap_view_put() - [any context] */
void snap_view_put(struct snap_view *view)
{
	sd_version_put((struct sd_version *)view);
}

static void unpack_rec(struct snap_rec *out, const struct sd_rec *rec)
{
	out->kind = (enum snap_where_kind)rec->kind;
	out->crc = rec->crc;
	out->sector = rec->addr * SNAP_BLOCK_SECTORS;
}

/** snap_view_number() - [any context] */
u64 snap_view_number(struct snap_view *view)
{
	return sd_version_number((struct sd_version *)view);
}

/**
 * snap_view_lookup() - what holds @nr chunks from @first on at generation @gen
 *
 * May block (metadata reads). Return: 0; -EIO also when the generation is not readable any more; -EUCLEAN, -ENOMEM.
 */
int snap_view_lookup(struct snap_store *s, struct snap_view *view, u64 first, u32 nr, u32 gen, struct snap_rec *recs)
{
	unsigned int noio = memalloc_noio_save();
	struct sd_rec buf[BATCH];
	u32 i, j, n;
	int err = 0;

	for (i = 0; i < nr && !err; i += n) {
		n = min(nr - i, BATCH);
		err = sd_lookup_range((struct sd_version *)view, first + i, n, gen, buf);
		for (j = 0; j < n && !err; j++)
			unpack_rec(&recs[i + j], &buf[j]);
	}
	memalloc_noio_restore(noio);
	if (!err && !snap_store_gen_readable(s, gen))
		err = -EIO;
	return err;
}

/* The version has been replaced (checkpoint, merge): what was new may be in a run now. */
static int look_in_all(struct sd_version *now, u64 first, u32 nr, u32 gen, unsigned long *again)
{
	unsigned int noio = memalloc_noio_save();
	struct sd_rec buf[BATCH];
	u32 i, j, n;
	int err = 0;

	for (i = 0; i < nr && !err; i += n) {
		n = min(nr - i, BATCH);
		err = sd_lookup_range(now, first + i, n, gen, buf);
		for (j = 0; j < n && !err; j++) {
			if (buf[j].kind != SD_KIND_NONE)
				__set_bit(i + j, again);
		}
	}
	memalloc_noio_restore(noio);
	return err;
}

/**
 * snap_view_look_again() - after the primary has been read: which chunks have a record by now?
 * @number: of the view in which they had none
 * @again: bit i is set for first + i; the others are left alone
 *
 * A write that destroyed what was read was released after its record had become visible, so it is found here: the version that is taken now is the one with that record
 * or a later one. While it is still the one of that view, the record can only be in the in-memory tables, which is cheap. May block. Return: 0, -EIO when the generation is not readable any more, -EUCLEAN, -ENOMEM.
 */
int snap_view_look_again(struct snap_store *s, u64 number, u64 first, u32 nr, u32 gen, unsigned long *again)
{
	struct sd_version *now;
	int err = 0;
	u32 i;

	smp_mb();	/* the data was read before */
	now = sd_version_get(s->core);
	if (sd_version_number(now) == number) {
		for (i = 0; i < nr; i++) {
			if (sd_lookup_new(now, first + i, gen))
				__set_bit(i, again);
		}
	} else {
		err = look_in_all(now, first, nr, gen, again);
	}
	sd_version_put(now);
	if (!err && !snap_store_gen_readable(s, gen))
		err = -EIO;
	return err;
}

/** snap_store_fill() - [copy worker] set a bit for each of @nr chunks that has a record >= @min_gen. May block */
int snap_store_fill(struct snap_store *s, u32 min_gen, u64 first, u32 nr, unsigned long *bitmap)
{
	struct sd_version *v = sd_version_get(s->core);
	int err = sd_window_fill(v, min_gen, first, nr, bitmap);

	sd_version_put(v);
	return err;
}

static void unpack_extents(struct snap_store *s, struct snapdiff_extent *out, const struct sd_extent *e, int nr, u64 end)
{
	unsigned int shift = s->vol->chunk_shift + SECTOR_SHIFT;
	int i;

	for (i = 0; i < nr; i++) {
		out[i].offset = e[i].chunk << shift;
		out[i].length = min(e[i].nr << shift, end - out[i].offset);
		out[i].flags = 0;
		out[i].place = 0;
		switch (e[i].kind) {
		case SD_KIND_DATA:
			out[i].where = SNAPDIFF_WHERE_DIFF;
			out[i].place = e[i].addr * SD_BLOCK_SIZE;
			break;
		case SD_KIND_ZERO:
			out[i].where = SNAPDIFF_WHERE_ZERO;
			break;
		case SD_KIND_BAD:
			out[i].where = SNAPDIFF_WHERE_BAD;
			break;
		default:
			out[i].where = SNAPDIFF_WHERE_PRIMARY;
			out[i].place = out[i].offset;
		}
	}
}

/* One slice of a map (g2 == 0) or of changes [g1, g2). @end is in bytes; *pos moves to a chunk border or to @end. */
static int extents(struct snap_store *s, bool map, u32 g1, u32 g2, u64 *pos, u64 end, struct snapdiff_extent *out, u32 max)
{
	unsigned int shift = s->vol->chunk_shift + SECTOR_SHIFT;
	u64 chunk = *pos >> shift, last = (end + (1ULL << shift) - 1) >> shift;
	unsigned int noio = memalloc_noio_save();
	struct sd_extent buf[BATCH];
	struct sd_version *v = sd_version_get(s->core);
	u32 work = EXTENT_WORK;
	int n = 0, got;

	do {
		u32 want = min(max - n, BATCH);

		got = map ? sd_map_slice(v, g1, &chunk, last, buf, want, &work) : sd_change_slice(v, g1, g2, &chunk, last, buf, want, &work);
		if (got > 0) {
			unpack_extents(s, out + n, buf, got, end);
			n += got;
		}
	} while (got >= 0 && n < max && chunk < last && work);
	sd_version_put(v);
	memalloc_noio_restore(noio);
	if (got < 0 && !n)
		return got;
	*pos = min(chunk << shift, end);
	for (got = 0; !map && got < n; got++)
		out[got].where = out[got].place = 0;
	return n;
}

/**
 * snap_store_map() - extents of generation @gen over the bytes [*pos, end), sorted and complete
 *
 * *pos is chunk-aligned, @end too or the end of the generation. May block, but looks at a bounded number of records. Return: number filled, *pos is behind them (0 before
 * @end: go on); -EIO when the generation is not readable.
 */
int snap_store_map(struct snap_volume *vol, u32 gen, u64 *pos, u64 end, struct snapdiff_extent *out, u32 max)
{
	struct snap_store *s = vol->store;
	int n = -ENODEV;

	down_read(&s->alive);
	if (s->core) {
		n = extents(s, true, gen, 0, pos, end, out, max);
		if (n >= 0 && !snap_store_gen_readable(s, gen))
			n = -EIO;
	}
	up_read(&s->alive);
	return n;
}

/* Is the changed set of every interval of [g1, g2) known? */
static int changes_known(struct snap_store *s, u32 g1, u32 g2)
{
	struct snap_gen gen = { .number = g1 };
	u32 from = g1;
	int err;

	if (READ_ONCE(s->failed))
		return -ENODATA;
	err = snap_store_gen_find(s, g1, &gen);
	while (!err && (!g2 || gen.number < g2)) {
		if (gen.flags & SNAPDIFF_GEN_F_CHANGES_UNKNOWN)
			return -ENODATA;
		from = gen.number + 1;
		err = snap_store_gen_next(s, from, &gen);
	}
	return from == g1 ? err : 0;
}

/**
 * snap_store_changes() - chunks that changed between the cuts of @g1 and @g2 (0: and now), over the bytes [*pos, end)
 *
 * May block, but looks at a bounded number of records. Return: number filled (0 before @end: go on); -ENOENT: no @g1; -ENODATA: a changed set in between is not known.
 */
int snap_store_changes(struct snap_volume *vol, u32 g1, u32 g2, u64 *pos, u64 end, struct snapdiff_extent *out, u32 max)
{
	struct snap_store *s = vol->store;
	int n;

	n = changes_known(s, g1, g2);
	if (n)
		return n;
	down_read(&s->alive);
	n = s->core ? extents(s, false, g1, g2 ?: U32_MAX, pos, end, out, max) : -ENODEV;
	up_read(&s->alive);
	return n;
}

/* ---- stores that failed and could not say so ------------------------------------------------------ */

/*
 * A diff that takes no write after it has failed says "in use" when it comes back, and its journal ends before writes that were released. So what the
 * superblock could not be told is remembered here, by uuid, until it could: for as long as the module is loaded.
 */
struct doomed {
	struct list_head list;
	u8 uuid[SD_UUID_SIZE];
};

static DEFINE_MUTEX(doomed_lock);
static LIST_HEAD(doomed_stores);

static struct doomed *find_doomed(const u8 *uuid)
{
	struct doomed *d;

	lockdep_assert_held(&doomed_lock);
	list_for_each_entry(d, &doomed_stores, list) {
		if (!memcmp(d->uuid, uuid, sizeof(d->uuid)))
			return d;
	}
	return NULL;
}

/* The store is about to be closed, and has failed. */
static void remember_failure(struct snap_store *s)
{
	struct doomed *d;

	if (!sd_store_fail(s->core))
		return;
	DMWARN("%s: it could not be written to the differential volume that it has failed: do not attach it after the module has been unloaded, format it",
	       s->vol->name);
	mutex_lock(&doomed_lock);
	d = find_doomed(s->vol->uuid) ? NULL : kmalloc(sizeof(*d), GFP_NOIO | __GFP_NOFAIL);
	if (d) {
		memcpy(d->uuid, s->vol->uuid, sizeof(d->uuid));
		list_add(&d->list, &doomed_stores);
	}
	mutex_unlock(&doomed_lock);
}

/* The store has just been opened: is it one of those? */
static void recall_failure(struct sd_store *core)
{
	struct sd_info info;
	struct doomed *d;

	sd_info(core, &info);
	mutex_lock(&doomed_lock);
	d = find_doomed(info.uuid);
	if (d && (info.failed || !sd_store_fail(core))) {
		list_del(&d->list);
		kfree(d);
	}
	mutex_unlock(&doomed_lock);
}

/** snap_store_exit() - the module goes; no store is open */
void snap_store_exit(void)
{
	struct doomed *d, *next;

	list_for_each_entry_safe(d, next, &doomed_stores, list)
		kfree(d);
}

/* ---- life --------------------------------------------------------------------------------------- */

static void complain(void *ctx, const char *text)
{
	struct snap_store *s = ctx;

	DMERR_LIMIT("%s: %s", s->vol->name, text);
}

static const char *open_error(int err)
{
	switch (err) {
	case -ENODATA:
		return "differential volume is not formatted";
	case -EUCLEAN:
		return "differential volume is damaged";
	case -ENOTSUPP:
		return "differential volume has a format that this module does not know";
	case -ENOSPC:
		return "differential volume is smaller than its store";
	case -ENOMEM:
		return "no memory for the store";
	default:
		return "differential volume could not be read";
	}
}

static int load_states(struct snap_store *s)
{
	struct sd_gen gen;
	u32 from = 1;
	int err;

	while (!sd_gen_next(s->core, from, &gen)) {
		err = xa_err(xa_store(&s->gens, gen.number, xa_mk_value(gen.state), GFP_KERNEL));
		if (err)
			return err;
		from = gen.number + 1;
	}
	return 0;
}

static struct snap_store *store_alloc(struct snap_volume *vol)
{
	struct snap_store *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return NULL;
	s->vol = vol;
	init_rwsem(&s->alive);
	mutex_init(&s->lock);
	mutex_init(&s->changes);
	mutex_init(&s->stepping);
	spin_lock_init(&s->super_lock);
	seqlock_init(&s->sum_lock);
	xa_init(&s->gens);
	init_waitqueue_head(&s->wait);
	s->ration_after = jiffies;
	return s;
}

static void open_core(struct snap_store *s, struct sd_info *info)
{
	unsigned int noio = snap_store_lock(s);

	sd_info(s->core, info);
	if (info->failed) {
		DMWARN("%s: the differential volume failed earlier: no generations until it is formatted again", s->vol->name);
		s->fail_durable = sd_store_fail(s->core) == 0;
		__snap_store_failed(s);
	}
	__snap_store_refresh(s);
	snap_store_unlock(s, noio);
}

/**
 * snap_store_open() - open (and recover) the store on vol->diff_bdev, create its thread
 *
 * May block. Sets vol->store, uuid, chunk size. Return: 0 or -errno with *opts->error set; nothing is left behind then.
 */
int snap_store_open(struct snap_volume *vol, const struct snap_store_opts *opts)
{
	struct snap_store *s = store_alloc(vol);
	struct sd_open_opts core_opts = {
		.mem_records = opts->mem_records,
		.memory = opts->memory,
		.complain = complain,
		.complain_ctx = s,
	};
	struct sd_info info;
	int err;

	*opts->error = "no memory for the store";
	if (!s)
		return -ENOMEM;
	err = snap_store_dev_open(s);
	if (err)
		goto free;
	err = sd_open(&s->dev, &core_opts, &s->core);
	if (err) {
		*opts->error = (char *)open_error(err);
		goto close_dev;
	}
	recall_failure(s->core);
	err = load_states(s);
	if (!err)
		err = snap_store_thread(s);
	if (err)
		goto close;
	vol->store = s;
	open_core(s, &info);
	memcpy(vol->uuid, info.uuid, sizeof(vol->uuid));
	vol->chunk_sectors = info.chunk_size >> SECTOR_SHIFT;
	vol->chunk_shift = ilog2(vol->chunk_sectors);
	return 0;
close:
	sd_close(s->core);
close_dev:
	snap_store_dev_close(s);
free:
	xa_destroy(&s->gens);
	kfree(s);
	return err;
}

/* ---- was the primary written without us? ---------------------------------------------------------- */

struct since {
	struct snap_store *s;
	u32 gen;		/* its changed set and those after it are known */
};

/* May it have been written through us since the cut? */
static bool written_since(void *ctx, sector_t start, sector_t nr)
{
	const struct since *since = ctx;
	struct snap_volume *vol = since->s->vol;
	u64 pos = start >> vol->chunk_shift, end = ((start + nr - 1) >> vol->chunk_shift) + 1;
	struct sd_version *v = sd_version_get(since->s->core);
	struct sd_extent ext;
	int n = sd_change_extents(v, since->gen, U32_MAX, &pos, end, &ext, 1);

	sd_version_put(v);
	return n != 0;
}

/* The newest generation not newer than @last from which on everything that was written is known, or 0. */
static u32 known_since(struct snap_store *s, u32 last)
{
	struct snap_gen gen;
	u32 from = 1, best = 0;

	for (; !snap_store_gen_next(s, from, &gen); from = gen.number + 1) {
		if (gen.flags & SNAPDIFF_GEN_F_CHANGES_UNKNOWN)
			best = 0;
		else if (gen.number <= last)
			best = gen.number;
	}
	return best;
}

/* Compare with the fingerprint of the last clean detach: all of it, or after a crash what has not been written by us since. As snap_fingerprint_differs() */
static int compare(struct snap_volume *vol, const struct sd_info *info)
{
	struct since since = { .s = vol->store };

	if (info->was_clean)
		return snap_fingerprint_differs(vol->primary_bdev, info->fingerprint, NULL, NULL);
	since.gen = known_since(vol->store, snap_fingerprint_highest(info->fingerprint));
	return since.gen ? snap_fingerprint_differs(vol->primary_bdev, info->fingerprint, written_since, &since) : 0;
}

/* Was the primary written, or cut off, while we were not there? */
static const char *not_as_we_left_it(struct snap_volume *vol, const struct sd_info *info, sector_t size)
{
	int differs;

	if (!info->primary_sectors)
		return NULL;
	if (size < info->primary_sectors)
		return "the primary is smaller than it was";
	if (vol->attached)
		return NULL;
	differs = compare(vol, info);
	if (differs < 0)
		return "the primary could not be compared";
	return differs ? "the primary was written without its differential volume" : NULL;
}

static bool anything_to_lose(struct snap_store *s)
{
	struct snap_summary sum;

	snap_store_summary(s, &sum);
	return sum.newest_kept || sum.newest_live;
}

/**
 * snap_store_misfit() - why would generations be lost if the primary were attached as it is now?
 * @size: its sectors
 *
 * May block (reads the primary). Return: the reason, or NULL when nothing would be lost.
 */
const char *snap_store_misfit(struct snap_volume *vol, sector_t size)
{
	struct snap_store *s = vol->store;
	struct sd_info info;
	unsigned int noio;

	noio = snap_store_lock(s);
	sd_info(s->core, &info);
	snap_store_unlock(s, noio);
	if (info.failed || !anything_to_lose(s))
		return NULL;
	return not_as_we_left_it(vol, &info, size);
}

/* The last attachment did not end, nobody has written where it can be seen, and nobody vouches for the rest. */
static bool in_doubt(struct snap_volume *vol)
{
	struct snap_store *s = vol->store;
	struct sd_info info;
	unsigned int noio;

	noio = snap_store_lock(s);
	sd_info(s->core, &info);
	snap_store_unlock(s, noio);
	return info.primary_sectors && !info.was_clean && !info.failed && !vol->attached && !vol->trust_primary && anything_to_lose(s);
}

/**
 * snap_store_attach() - the volume is going to be written: compare primary and store, mark the store as in use
 * @size: sectors of the primary now
 *
 * Also when the size shrinks while it is in use. The copy worker runs, no bio is in the target. May block. Generations that do not fit are lost before the
 * store is marked: after a crash in between the comparison is made again. Marking begins a new epoch of the journal, so what is in it is checkpointed
 * before. After a crash all generations become suspect, in the same write that marks the store: whether the primary was written since cannot be seen with
 * certainty. A primary that does not fit is refused unless that was asked for: it may be the wrong device. Return: 0; -EMEDIUMTYPE; -errno.
 */
int snap_store_attach(struct snap_volume *vol, sector_t size)
{
	const char *why = snap_store_misfit(vol, size);
	struct snap_store *s = vol->store;
	bool suspect = !why && in_doubt(vol);
	struct snap_summary sum;
	struct sd_info info;
	unsigned int noio;
	int err = 0;

	if (why && !vol->accept_changed) {
		DMERR("%s: %s: its generations would be lost", vol->name, why);
		return -EMEDIUMTYPE;
	}
	if (why) {
		DMWARN("%s: %s: its generations are lost", vol->name, why);
		snap_store_summary(s, &sum);
		err = snap_store_lose_gens(vol, 1, sum.highest, true);
		if (err)
			return err;
		snap_event(vol, SNAPDIFF_EVENT_LOST, 0, 0, why);
	}
	mutex_lock(&s->changes);
	mutex_lock(&s->stepping);
	err = snap_store_failed(s) ? 0 : snap_store_checkpoint(s);
	noio = snap_store_lock(s);
	if (!s->failed && !err && suspect)
		sd_suspect(s->core);
	if (!s->failed && !err)
		err = sd_attach(s->core, size);
	sd_info(s->core, &info);
	snap_store_unlock(s, noio);
	mutex_unlock(&s->stepping);
	mutex_unlock(&s->changes);
	if (err)
		return err;
	vol->accept_changed = vol->trust_primary = false;
	if (suspect && !snap_store_failed(s))
		snap_event(vol, SNAPDIFF_EVENT_SUSPECT, info.suspect_gen, 0, "the machine stopped without a detach: the primary may have been written since");
	return 0;
}

/**
 * snap_store_resize_primary() - the primary of a volume that is in use has become larger
 * @size: its sectors
 *
 * No bio is in the target. May block. A diff that does not take it fails, as with every other write of metadata: the primary goes on.
 */
void snap_store_resize_primary(struct snap_volume *vol, sector_t size)
{
	struct snap_store *s = vol->store;
	unsigned int noio;
	int err;

	mutex_lock(&s->stepping);
	noio = snap_store_lock(s);
	err = s->failed ? 0 : sd_resize_primary(s->core, size);
	snap_store_unlock(s, noio);
	mutex_unlock(&s->stepping);
	if (err)
		snap_store_fail(s, err, "the new size of the primary could not be written");
}

/** snap_store_shut() - no change of the generations is accepted any more; those under way have ended when it returns */
void snap_store_shut(struct snap_store *s)
{
	mutex_lock(&s->changes);
	s->closing = true;
	mutex_unlock(&s->changes);
}

/* Everything on the primary that was acknowledged is there; then what it looks like is worth remembering. */
static int detach(struct snap_volume *vol)
{
	struct snap_store *s = vol->store;
	u8 print[SD_FINGERPRINT_SIZE];
	unsigned int noio;
	int err;

	err = blkdev_issue_flush(vol->primary_bdev);
	if (!err)
		err = snap_fingerprint(vol->primary_bdev, vol->size, s->sum.highest, print);
	if (err)
		return err;
	noio = snap_store_lock(s);
	err = s->failed ? 0 : sd_detach(s->core, print);
	snap_store_unlock(s, noio);
	return err;
}

/**
 * snap_store_close() - the end
 * @clean: it was attached: everything is made durable and the store marked clean
 *
 * Copy worker and background thread have been stopped. May block. An error leaves the store as after a crash; that is no loss.
 */
void snap_store_close(struct snap_volume *vol, bool clean)
{
	struct snap_store *s = vol->store;
	int err = clean ? detach(vol) : 0;

	if (err)
		DMWARN("%s: detached without a checkpoint (error %d)", vol->name, err);
	if (snap_store_failed(s) && READ_ONCE(vol->overtaken))
		remember_failure(s);
	down_write(&s->alive);
	sd_close(s->core);
	s->core = NULL;
	snap_store_dev_close(s);
	up_write(&s->alive);
}

/** snap_store_free() - after snap_store_close(); nobody has a reference */
void snap_store_free(struct snap_store *s)
{
	if (!s)
		return;
	xa_destroy(&s->gens);
	kfree(s);
}
