// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Volumes and generations as tables; several to delete. The columns of a volume behind VOL_STATS are the kernel's
 * statistics, in the order of enum snapdiff_stat.
 */
#include <errno.h>
#include <stdlib.h>

#include "blk.h"
#include "dm.h"
#include "gens.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* ---- generations ---- */

enum { GEN_VOLUME, GEN_GEN, GEN_CREATED, GEN_SIZE, GEN_CHANGED, GEN_STATE, GEN_PINNED, GEN_SUSPECT, GEN_DEVICE,
	GEN_FROZEN, GEN_UNKNOWN, GEN_UUID, GEN_LABEL };

const struct snap_col snap_gen_cols[] = {
	[GEN_VOLUME]	= { "volume", "VOLUME", SNAP_COL_STRING },
	[GEN_GEN]	= { "generation", "GEN", SNAP_COL_NUMBER },
	[GEN_CREATED]	= { "created", "CREATED", SNAP_COL_TIME },
	[GEN_SIZE]	= { "size", "SIZE", SNAP_COL_SIZE },
	[GEN_CHANGED]	= { "changed_bytes", "CHANGED", SNAP_COL_SIZE },
	[GEN_STATE]	= { "state", "STATE", SNAP_COL_STRING },
	[GEN_PINNED]	= { "pinned", "PINNED", SNAP_COL_BOOL },
	[GEN_SUSPECT]	= { "suspect", "SUSPECT", SNAP_COL_BOOL },
	[GEN_DEVICE]	= { "device", "DEVICE", SNAP_COL_STRING },
	[GEN_FROZEN]	= { "frozen", "FROZEN", SNAP_COL_BOOL, SNAP_COL_HIDDEN },
	[GEN_UNKNOWN]	= { "changes_unknown", "UNKNOWN", SNAP_COL_BOOL, SNAP_COL_HIDDEN },
	[GEN_UUID]	= { "uuid", "UUID", SNAP_COL_UUID, SNAP_COL_HIDDEN },
	[GEN_LABEL]	= { "label", "LABEL", SNAP_COL_STRING },
};
const size_t snap_nr_gen_cols = ARRAY_SIZE(snap_gen_cols);

static int print_gen(struct snap_out *out, const struct snap_gen *g)
{
	char device[32];

	snap_out_str(out, GEN_VOLUME, g->volume);
	snap_out_num(out, GEN_GEN, g->number);
	snap_out_num(out, GEN_CREATED, g->created);
	snap_out_str(out, GEN_LABEL, g->label);
	snap_out_num(out, GEN_SIZE, g->size);
	snap_out_str(out, GEN_STATE, snap_gen_state_name(g->state));
	snap_out_num(out, GEN_CHANGED, g->changed);
	snap_out_num(out, GEN_PINNED, !!(g->flags & SNAPDIFF_GEN_F_PINNED));
	snap_out_num(out, GEN_SUSPECT, !!(g->flags & SNAPDIFF_GEN_F_SUSPECT));
	if (g->virt_index != SNAP_NO_VIRT)
		snap_out_str(out, GEN_DEVICE, snap_virt_path(device, sizeof(device), g->virt_index));
	snap_out_num(out, GEN_FROZEN, !!(g->flags & SNAPDIFF_GEN_F_FROZEN));
	snap_out_num(out, GEN_UNKNOWN, !!(g->flags & SNAPDIFF_GEN_F_CHANGES_UNKNOWN));
	snap_out_uuid(out, GEN_UUID, g->uuid);
	return snap_out_row(out);
}

int snap_gen_rows(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e)
{
	struct snap_gen *gens = NULL;
	struct snap_volume vol;
	size_t n = 0, i;
	int err = 0;

	if (name)		/* an unknown volume is an error, not an empty list */
		err = snap_nl_volume(nl, name, &vol, e);
	if (!err)
		err = snap_nl_gens(nl, name, &gens, &n, e);
	for (i = 0; i < n && !err; i++)
		err = print_gen(out, &gens[i]);
	free(gens);
	return err;
}

/* ---- volumes ---- */

enum { VOL_VOLUME, VOL_UUID, VOL_DEVICE, VOL_PRIMARY, VOL_DIFF, VOL_STATE, VOL_ON_FULL, VOL_SIZE, VOL_CHUNK,
	VOL_GENS, VOL_LIVE, VOL_BOOKMARKS, VOL_LOST, VOL_SUSPECT, VOL_ACTIVE, VOL_HIGHEST, VOL_USED, VOL_PERCENT, VOL_STATS };

#define STAT(n, key, head, type) [VOL_STATS + (n) - SNAPDIFF_STAT_DIFF_SIZE] = { key, head, type }

const struct snap_col snap_vol_cols[] = {
	[VOL_VOLUME]	= { "volume", "Volume", SNAP_COL_STRING },
	[VOL_UUID]	= { "uuid", "UUID", SNAP_COL_UUID },
	[VOL_DEVICE]	= { "device", "Device", SNAP_COL_STRING },
	[VOL_PRIMARY]	= { "primary", "Primary", SNAP_COL_STRING },
	[VOL_DIFF]	= { "diff", "Diff", SNAP_COL_STRING },
	[VOL_STATE]	= { "state", "State", SNAP_COL_STRING },
	[VOL_ON_FULL]	= { "on_full", "On full", SNAP_COL_STRING },
	[VOL_SIZE]	= { "size", "Size", SNAP_COL_SIZE },
	[VOL_CHUNK]	= { "chunk_size", "Chunk", SNAP_COL_SIZE },
	[VOL_GENS]	= { "generations", "Generations", SNAP_COL_NUMBER },
	[VOL_LIVE]	= { "live", "Live", SNAP_COL_NUMBER },
	[VOL_BOOKMARKS]	= { "bookmarks", "Bookmarks", SNAP_COL_NUMBER },
	[VOL_LOST]	= { "lost", "Lost", SNAP_COL_NUMBER },
	[VOL_SUSPECT]	= { "suspect", "Suspect", SNAP_COL_NUMBER },
	[VOL_ACTIVE]	= { "active", "Active", SNAP_COL_NUMBER },
	[VOL_HIGHEST]	= { "highest_generation", "Highest generation", SNAP_COL_NUMBER },
	[VOL_USED]	= { "diff_used", "Diff used", SNAP_COL_SIZE },
	[VOL_PERCENT]	= { "diff_used_percent", "Diff used of size", SNAP_COL_PERCENT },
	STAT(SNAPDIFF_STAT_DIFF_SIZE, "diff_size", "Diff size", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_DIFF_FREE, "diff_free", "Diff free", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_DIFF_RESERVED, "diff_reserved", "Diff reserved", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_JOURNAL_SIZE, "journal_size", "Journal size", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_JOURNAL_USED, "journal_used", "Journal used", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_RECORDS_NEW, "records_new", "Records not in runs", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_RECORDS, "records", "Records in runs", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_RUNS, "runs", "Runs", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_TRANSACTION, "transaction", "Transaction", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_READS, "reads", "Reads", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_WRITES, "writes", "Writes", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_WRITES_DEFERRED, "writes_deferred", "Writes deferred", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_COPIED, "chunks_copied", "Chunks copied", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_ZEROS, "chunks_zero", "Chunks zero", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_BAD, "chunks_bad", "Chunks bad", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_MARKED, "chunks_marked", "Chunks marked", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_GROUPS, "groups", "Commit groups", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_JOURNAL_WRITTEN, "journal_written", "Journal written", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_META_WRITTEN, "metadata_written", "Metadata written", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_CHECKPOINTS, "checkpoints", "Checkpoints", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_MERGES, "merges", "Merges", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_DISCARDS_DROPPED, "discards_dropped", "Discards dropped", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_LOST_GENS, "generations_lost", "Generations lost", SNAP_COL_NUMBER),
	STAT(SNAPDIFF_STAT_MEMORY, "memory", "Kernel memory", SNAP_COL_SIZE),
	STAT(SNAPDIFF_STAT_MEMORY_MAX, "memory_max", "Kernel memory at most", SNAP_COL_SIZE),
};

_Static_assert(ARRAY_SIZE(snap_vol_cols) == VOL_STATS + SNAPDIFF_STAT_MAX - SNAPDIFF_STAT_PAD,
	       "every statistic has its column");
const size_t snap_nr_vol_cols = ARRAY_SIZE(snap_vol_cols);

static int count_gens(struct snap_nl *nl, const char *volume, struct snap_out *out, struct snap_err *e)
{
	uint64_t live = 0, bookmarks = 0, lost = 0, suspect = 0, active = 0;
	struct snap_gen *gens;
	size_t n, i;
	int err;

	err = snap_nl_gens(nl, volume, &gens, &n, e);
	if (err)
		return err;
	for (i = 0; i < n; i++) {
		live += gens[i].state == SNAPDIFF_GEN_LIVE;
		bookmarks += gens[i].state == SNAPDIFF_GEN_BOOKMARK;
		lost += gens[i].state == SNAPDIFF_GEN_LOST;
		suspect += gens[i].state != SNAPDIFF_GEN_LOST && gens[i].flags & SNAPDIFF_GEN_F_SUSPECT;
		active += gens[i].virt_index != SNAP_NO_VIRT;
	}
	free(gens);
	snap_out_num(out, VOL_LIVE, live);
	snap_out_num(out, VOL_BOOKMARKS, bookmarks);
	snap_out_num(out, VOL_LOST, lost);
	snap_out_num(out, VOL_SUSPECT, suspect);
	snap_out_num(out, VOL_ACTIVE, active);
	return 0;
}

static void print_stats(struct snap_out *out, const uint64_t *stats)
{
	uint64_t size = stats[SNAPDIFF_STAT_DIFF_SIZE], free_bytes = stats[SNAPDIFF_STAT_DIFF_FREE];
	uint64_t used = size > free_bytes ? size - free_bytes : 0;
	int i;

	snap_out_num(out, VOL_USED, used);
	if (size)
		snap_out_num(out, VOL_PERCENT, (uint64_t)(used * 10000.0 / size));
	for (i = SNAPDIFF_STAT_DIFF_SIZE; i <= SNAPDIFF_STAT_MAX; i++)
		snap_out_num(out, VOL_STATS + i - SNAPDIFF_STAT_DIFF_SIZE, stats[i]);
}

static int print_volume(struct snap_nl *nl, struct snap_out *out, const struct snap_volume *v, struct snap_err *e)
{
	char buf[SNAP_VOLUME_BUF + 32];
	int err;

	snap_out_str(out, VOL_VOLUME, v->name);
	snap_out_uuid(out, VOL_UUID, v->uuid);
	snap_out_str(out, VOL_DEVICE, snap_dm_path(v->name, buf, sizeof(buf)));
	snap_out_str(out, VOL_PRIMARY, snap_blk_name(v->primary, buf, sizeof(buf)));
	snap_out_str(out, VOL_DIFF, snap_blk_name(v->diff, buf, sizeof(buf)));
	snap_out_str(out, VOL_STATE, snap_store_state_name(v->state));
	snap_out_str(out, VOL_ON_FULL, snap_on_full_name(v->on_full));
	snap_out_num(out, VOL_SIZE, v->size);
	snap_out_num(out, VOL_CHUNK, v->chunk_size);
	snap_out_num(out, VOL_GENS, v->nr_gens);
	snap_out_num(out, VOL_HIGHEST, v->highest_gen);
	print_stats(out, v->stats);
	err = count_gens(nl, v->name, out, e);
	return err ? err : snap_out_row(out);
}

int snap_vol_rows(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e)
{
	struct snap_volume one, *vols = NULL;
	size_t n = 0, i;
	int err;

	if (name) {
		err = snap_nl_volume(nl, name, &one, e);
		if (!err)
			err = print_volume(nl, out, &one, e);
	} else {
		err = snap_nl_volumes(nl, &vols, &n, e);
	}
	for (i = 0; i < n && !err; i++)
		err = print_volume(nl, out, &vols[i], e);
	free(vols);
	return err;
}

/* ---- deleting ---- */

/*
 * Does what is named exist? So that a wrong argument behind good ones does not leave half of the work done. Of a range one
 * generation is enough.
 */
static int check_ref(struct snap_nl *nl, const struct snap_ref *r, struct snap_err *e)
{
	struct snap_gen *gens, g;
	bool found = false;
	size_t n, i;
	int err;

	if (!r->range)
		return snap_nl_gen(nl, r->volume, r->first, &g, e);
	err = snap_nl_gens(nl, r->volume, &gens, &n, e);
	for (i = 0; i < n && !err && !found; i++)
		found = gens[i].number >= r->first && gens[i].number <= r->last;
	free(gens);
	if (!err && !found)
		err = snap_err_set(e, -ENOENT, r->volume, "no generation between %u and %u", r->first, r->last);
	return err;
}

int snap_gen_delete(struct snap_nl *nl, const struct snap_ref *refs, int n, struct snap_err *e)
{
	int i, err = 0;

	for (i = 0; i < n && !err; i++)
		err = check_ref(nl, &refs[i], e);
	for (i = 0; i < n && !err; i++)
		err = snap_nl_delete(nl, refs[i].volume, refs[i].first, refs[i].last, e);
	return err;
}
