// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapctl status: everything about a volume that is a number. The columns behind COL_STATS are the kernel's statistics, in
 * the order of stat_cols[].
 */
#include <stdlib.h>

#include "snapctl.h"

enum { COL_VOLUME, COL_UUID, COL_DEVICE, COL_PRIMARY, COL_DIFF, COL_STATE, COL_ON_FULL, COL_SIZE, COL_CHUNK,
	COL_GENS, COL_LIVE, COL_BOOKMARKS, COL_LOST, COL_SUSPECT, COL_ACTIVE, COL_HIGHEST, COL_USED, COL_PERCENT, COL_STATS };

#define STAT(n, key, head, type) [COL_STATS + (n) - SNAPDIFF_STAT_DIFF_SIZE] = { key, head, type }

static const struct snap_col cols[] = {
	[COL_VOLUME]	= { "volume", "Volume", SNAP_COL_STRING },
	[COL_UUID]	= { "uuid", "UUID", SNAP_COL_UUID },
	[COL_DEVICE]	= { "device", "Device", SNAP_COL_STRING },
	[COL_PRIMARY]	= { "primary", "Primary", SNAP_COL_STRING },
	[COL_DIFF]	= { "diff", "Diff", SNAP_COL_STRING },
	[COL_STATE]	= { "state", "State", SNAP_COL_STRING },
	[COL_ON_FULL]	= { "on_full", "On full", SNAP_COL_STRING },
	[COL_SIZE]	= { "size", "Size", SNAP_COL_SIZE },
	[COL_CHUNK]	= { "chunk_size", "Chunk", SNAP_COL_SIZE },
	[COL_GENS]	= { "generations", "Generations", SNAP_COL_NUMBER },
	[COL_LIVE]	= { "live", "Live", SNAP_COL_NUMBER },
	[COL_BOOKMARKS]	= { "bookmarks", "Bookmarks", SNAP_COL_NUMBER },
	[COL_LOST]	= { "lost", "Lost", SNAP_COL_NUMBER },
	[COL_SUSPECT]	= { "suspect", "Suspect", SNAP_COL_NUMBER },
	[COL_ACTIVE]	= { "active", "Active", SNAP_COL_NUMBER },
	[COL_HIGHEST]	= { "highest_generation", "Highest generation", SNAP_COL_NUMBER },
	[COL_USED]	= { "diff_used", "Diff used", SNAP_COL_SIZE },
	[COL_PERCENT]	= { "diff_used_percent", "Diff used of size", SNAP_COL_PERCENT },
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

_Static_assert(ARRAY_SIZE(cols) == COL_STATS + SNAPDIFF_STAT_MAX - SNAPDIFF_STAT_PAD,
	       "every statistic has its column");

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
	snap_out_num(out, COL_LIVE, live);
	snap_out_num(out, COL_BOOKMARKS, bookmarks);
	snap_out_num(out, COL_LOST, lost);
	snap_out_num(out, COL_SUSPECT, suspect);
	snap_out_num(out, COL_ACTIVE, active);
	return 0;
}

static void print_stats(struct snap_out *out, const uint64_t *stats)
{
	uint64_t size = stats[SNAPDIFF_STAT_DIFF_SIZE], free_bytes = stats[SNAPDIFF_STAT_DIFF_FREE];
	uint64_t used = size > free_bytes ? size - free_bytes : 0;
	int i;

	snap_out_num(out, COL_USED, used);
	if (size)
		snap_out_num(out, COL_PERCENT, (uint64_t)(used * 10000.0 / size));
	for (i = SNAPDIFF_STAT_DIFF_SIZE; i <= SNAPDIFF_STAT_MAX; i++)
		snap_out_num(out, COL_STATS + i - SNAPDIFF_STAT_DIFF_SIZE, stats[i]);
}

static int print_volume(struct snap_nl *nl, struct snap_out *out, const struct snap_volume *v, struct snap_err *e)
{
	char buf[SNAP_VOLUME_BUF + 32];
	int err;

	snap_out_str(out, COL_VOLUME, v->name);
	snap_out_uuid(out, COL_UUID, v->uuid);
	snap_out_str(out, COL_DEVICE, snap_dm_path(v->name, buf, sizeof(buf)));
	snap_out_str(out, COL_PRIMARY, snap_blk_name(v->primary, buf, sizeof(buf)));
	snap_out_str(out, COL_DIFF, snap_blk_name(v->diff, buf, sizeof(buf)));
	snap_out_str(out, COL_STATE, snap_store_state_name(v->state));
	snap_out_str(out, COL_ON_FULL, snap_on_full_name(v->on_full));
	snap_out_num(out, COL_SIZE, v->size);
	snap_out_num(out, COL_CHUNK, v->chunk_size);
	snap_out_num(out, COL_GENS, v->nr_gens);
	snap_out_num(out, COL_HIGHEST, v->highest_gen);
	print_stats(out, v->stats);
	err = count_gens(nl, v->name, out, e);
	return err ? err : snap_out_row(out);
}

static int rows(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e)
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

static int run_status(int argc, char **argv)
{
	static const struct show show = { "volumes", SNAP_OUT_RECORD, cols, ARRAY_SIZE(cols), rows };

	return frame_show(&cmd_status, &show, argc, argv);
}

const struct snap_cmd cmd_status = {
	.name = "status",
	.args = "[NAME]",
	.summary = "Show volumes: devices, state, use of the diff, counters",
	.help = "With -o as a table of the chosen columns, e.g. -o volume,state,diff_used_percent. Counters are since\n"
		"attach. The columns are the keys of --json.",
	.min_args = 0,
	.max_args = 1,
	.run = run_status,
};
