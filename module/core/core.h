/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The differential store: the contract between the portable core and whoever drives it
 * (module/store.c in the kernel; snapmeta, tests, fuzzers and the crash simulator outside).
 *
 * Words: a *block* is 4 KiB of the differential volume, a *chunk* the unit of preservation of the primary. A *record* (chunk, gen) says what
 * the chunk's content was at generation gen and at every older one back to, not including, the chunk's previous record.
 *
 * Classes of functions
 *   [M]  mutates: calls are serialised by the caller (one mutex, the store lock). May block, may do device I/O.
 *   [B]  background: the long half of a mutation; called WITHOUT the store lock by the one background thread, while [M]
 *        and [R] calls go on. Does device I/O.
 *   [R]  reads an immutable version that the caller holds a reference to; any number at once, no lock. May do device reads unless said.
 *   [A]  any context, never blocks.
 * In the kernel, [M] and [B] callers are inside memalloc_noio_save().
 *
 * The life of a commit group
 *   sd_group_begin [M] → add copies, events → sd_group_seal [M]: addresses are allocated, the journal image is built
 *   → the caller writes data ∥ journal image, flushes if the diff has a volatile cache
 *   → sd_group_commit [M], strictly in order of group->seq: the records are in the in-memory table when it returns, so that a
 *     look-again read sees them; only then are the waiting writes released.
 *   A group whose journal image could not be written cannot be skipped: the store has failed (sd_store_fail()).
 *   Several sealed groups may be in flight. sd_group_commit() never fails and allocates nothing.
 *
 * The background thread's loop
 *   while (sd_background_work() != SD_WORK_NONE)
 *       sd_background_step():  begin [M] / run [B] / end [M], see there.
 */
#ifndef SNAPDIFF_CORE_H
#define SNAPDIFF_CORE_H

#include "io.h"

struct sd_store;
struct sd_version;

enum sd_gen_state { SD_GEN_LIVE = 1, SD_GEN_BOOKMARK = 2, SD_GEN_LOST = 3 };

#define SD_GEN_F_PINNED			(1u << 0)
#define SD_GEN_F_FROZEN			(1u << 1)
#define SD_GEN_F_CHANGES_UNKNOWN	(1u << 2)
#define SD_GEN_F_SUSPECT		(1u << 4)	/* see sd_suspect(); never in a descriptor on disk (nor is bit 3, the driver's own) */

#define SD_LABEL_SIZE	64
#define SD_UUID_SIZE	16
#define SD_FINGERPRINT_SIZE	64

/** struct sd_gen - a generation as the catalog has it (host order) */
struct sd_gen {
	u32 number;
	u32 state;		/* enum sd_gen_state */
	u32 flags;		/* SD_GEN_F_* */
	u64 created_ns;		/* since the epoch */
	u64 size_sectors;	/* of the primary at the cut, 512 byte sectors */
	u64 changed;		/* chunks first written in its (merged) interval; upper bound */
	u8 uuid[SD_UUID_SIZE];
	char label[SD_LABEL_SIZE];	/* NUL-terminated */
};

enum sd_kind {
	SD_KIND_NONE = 0,	/* no record: the primary itself */
	SD_KIND_DATA = 1,
	SD_KIND_ZERO = 2,
	SD_KIND_BAD = 3,
	SD_KIND_MARK = 4,	/* key without content: changed, nothing preserved */
};

struct sd_rec {
	u64 chunk;
	u32 gen;
	u32 crc;		/* SD_KIND_DATA: CRC32C (seed ~0, not inverted: crc32c(~0, …)) of the whole chunk */
	u64 addr;		/* SD_KIND_DATA: first block */
	u32 kind;		/* enum sd_kind */
};

/* ---- format, open, close --------------------------------------------------------------------- */

#define SD_MIN_DIFF_BLOCKS	4096ull		/* 16 MiB */

struct sd_format_params {
	u8 uuid[SD_UUID_SIZE];
	u32 chunk_size;		/* bytes: power of two, 4 KiB to 1 MiB; 0: 4 KiB */
	u64 journal_blocks;	/* 0: default by size of the device, at most 64 MiB */
	u64 now_ns;
};

/** sd_format() - write an empty store. May block. -EINVAL, -ENOSPC (device too small) or the device's error. */
int sd_format(struct sd_dev *dev, const struct sd_format_params *p);

struct sd_open_opts {
	bool read_only;		/* nothing is written: no recovery checkpoint; [M] calls are then forbidden */
	u32 mem_records;	/* capacity of each of the two in-memory tables; 0: by memory, or default (262144, fewer on small diffs) */
	u64 memory;		/* bytes for the tables and the cache of bitmaps, at least 1 MiB; 0: default (about 24 MiB) */
	void (*complain)(void *ctx, const char *text);	/* why an open failed, damage found; may be NULL */
	void *complain_ctx;
};

/**
 * sd_open() - read the superblock and the catalog, replay the journal
 *
 * Recovers after a crash; what was replayed is then written as a run, so that every valid journal block belongs to this attachment. There is room for that; in a store
 * that an older version has filled generations are lost for it, the oldest first (complain() says up to which), and at last the store is opened failed.
 * Return: 0; -ENODATA: neither superblock is one of ours; -EUCLEAN: damaged (complain() says which block and why); -ENOTSUP: unknown
 * incompatible feature; -ENOSPC: device smaller than the store; -ENOMEM; device's error.
 */
int sd_open(struct sd_dev *dev, const struct sd_open_opts *opts, struct sd_store **store);

/**
 * sd_close() - free everything in memory; nothing is written (use sd_detach() before, for a clean end)
 * All versions have been put, no group is in flight.
 */
void sd_close(struct sd_store *store);

/**
 * sd_attach() - [M] mark the store as in use (durable) before the first write to the primary can happen
 * @primary_sectors: size of the primary now
 */
int sd_attach(struct sd_store *store, u64 primary_sectors);

/**
 * sd_suspect() - [M] before sd_attach(), which makes it durable: nobody knows whether the primary was written without us
 *
 * All generations that exist now are suspect from then on, for ever: neither what they read from the primary nor what their changed sets say of the time
 * since is certain. Those that are created later are not.
 */
void sd_suspect(struct sd_store *store);

/**
 * sd_resize_primary() - [M] the primary has another size from now on (durable); no step is under way
 * Generations keep theirs. An error leaves the size on the device as it was.
 */
int sd_resize_primary(struct sd_store *store, u64 primary_sectors);

/**
 * sd_detach() - [M+B: nothing else runs] checkpoint everything and mark the store clean
 * @fingerprint: SD_FINGERPRINT_SIZE bytes that the caller compares at the next attach; opaque here
 */
int sd_detach(struct sd_store *store, const u8 *fingerprint);

struct sd_info {
	u8 uuid[SD_UUID_SIZE];
	u32 chunk_size;			/* bytes */
	u32 chunk_blocks;		/* blocks */
	u64 primary_sectors;		/* as of the last sd_attach(); 0: never attached */
	bool was_clean;			/* the previous attachment ended with sd_detach() (or never was one) */
	bool failed;
	u8 fingerprint[SD_FINGERPRINT_SIZE];	/* of the last sd_detach(); zero: there was none */
	u32 suspect_gen;		/* generations up to this one are suspect */
	u64 nr_blocks, free_blocks, reserved_blocks;
	u64 journal_blocks, journal_used;
	u64 records_new, records_run;	/* records in memory, in runs */
	u32 nr_runs;
	u32 nr_gens;
	u64 txid;
	u64 meta_written;		/* blocks written by checkpoints and merges since open */
	u64 journal_written;		/* blocks of sealed journal images since open */
	u64 checkpoints, merges;
	u64 replayed_groups, dropped_groups;	/* at open */
	u64 memory;			/* bytes in use: tables, bitmaps, catalog, runs; not what a step has for a moment */
};
/** sd_info() - [M] */
void sd_info(struct sd_store *store, struct sd_info *info);

/** struct sd_space - room, in blocks */
struct sd_space {
	u64 usable;		/* what data could have at most, if there were none */
	u64 reserve;		/* what data leaves to metadata */
	u64 room;		/* what data can have now */
	u64 coming;		/* what background steps will give back, as estimated: dropped already, or unneeded */
};
/** sd_space() - [M] cheap: a look at each run's descriptor, no I/O */
void sd_space(struct sd_store *store, struct sd_space *space);

/**
 * sd_store_fail() - [M] the one way down: mark the store failed, in memory at once and, if the device still takes it, in the superblock
 * Every generation counts as lost from now on, for ever. Idempotent; tries again while it is not durable. Return: 0 if durable; -EBUSY: a step is writing its
 * superblock, and "failed" is durable when sd_step_end() has returned (and another call says so); the device's error.
 */
int sd_store_fail(struct sd_store *store);

/* ---- generations ----------------------------------------------------------------------------- */

/** struct sd_summary - what the write path must know; changes only in sd_group_commit() and sd_store_fail() */
struct sd_summary {
	u32 highest;		/* G: highest generation ever created; new records get this number; 0: none ever */
	u32 newest_live;	/* L: 0 if none */
	u32 newest_kept;	/* K: newest generation whose changed set is kept (live, bookmark, lost with a known set); 0 if none */
	/*
	 * First write to a chunk whose bit is not set, p = its newest record's generation (sd_lookup_newest, 0 if none):
	 *	p >= K: already there: set the bit	p >= L or L == 0: SD_KIND_MARK		else: copy
	 * When K == L (no bookmark is newer than the newest live one) an unset bit of a filled window means: copy, without a lookup.
	 * K == 0: nothing to do at all.
	 */
};
/** sd_summary() - [M] */
void sd_summary(struct sd_store *store, struct sd_summary *s);

/** sd_gen_find() - [M] Return: 0 or -ENOENT */
int sd_gen_find(struct sd_store *store, u32 number, struct sd_gen *gen);
/** sd_gen_next() - [M] the first generation with a number >= @from. Return: 0 or -ENOENT */
int sd_gen_next(struct sd_store *store, u32 from, struct sd_gen *gen);

#define SD_MAX_GENS	65536u

/* ---- commit groups --------------------------------------------------------------------------- */

#define SD_GROUP_MAX_BLOCKS	8u	/* of journal image */
#define SD_GROUP_MAX_ITEMS	2048u	/* copies in one group, at most */

/** struct sd_item - one chunk to be recorded under generation G */
struct sd_item {
	u64 chunk;
	u32 kind;		/* enum sd_kind, not NONE */
	u32 crc;		/* DATA only */
	u64 addr;		/* out, DATA only: first block */
};

struct sd_group {
	u64 seq;
	struct sd_item *items;	/* the caller's array; stays valid until commit or relocate has returned */
	u32 nr_items;		/* how many were taken */
	u32 gen;		/* generation of the items */
	void *image;		/* journal image: image_blocks * 4 KiB, page aligned (vmalloc or kmalloc memory), freed by sd_group_commit/-_destroy */
	u32 image_blocks;
	u64 image_addr;		/* block address; contiguous, never wraps */
	struct list_head list;	/* free for the caller */
	void *priv;		/* core's */
};

/**
 * sd_group_begin() - [M] start building a group
 * Only one group may be between begin and seal. -ENOMEM.
 */
int sd_group_begin(struct sd_store *store, struct sd_group **group);

/**
 * sd_group_add_items() - [M] add copies
 * @items: addr of every DATA item is filled in; consecutive items mostly get consecutive addresses
 * @nr: at most
 *
 * At most one call a group. Return: number taken (>= 1; fewer when the group, the journal or contiguous space ends there); -ENOSPC: no space for data
 * beside the metadata's reserve; -EAGAIN: journal or in-memory table is full until the background thread has checkpointed (wake it, try
 * again when it is done); -EIO: store failed.
 */
int sd_group_add_items(struct sd_store *store, struct sd_group *group, struct sd_item *items, u32 nr);

/** sd_group_put_gen() - [M] create a generation (number must be highest + 1) or replace its descriptor. -EINVAL, -EMFILE (too many), -ENOSPC (no room for one more), -E2BIG (group full), -EAGAIN */
int sd_group_put_gen(struct sd_store *store, struct sd_group *group, const struct sd_gen *gen);
/** sd_group_del_gens() - [M] delete the generations first..last (those that exist). Deleted is visible at commit; space comes back in the background. */
int sd_group_del_gens(struct sd_store *store, struct sd_group *group, u32 first, u32 last);
/** sd_group_lose_gens() - [M] mark live ones among first..last lost. @unknown: also set SD_GEN_F_CHANGES_UNKNOWN on all of them */
int sd_group_lose_gens(struct sd_store *store, struct sd_group *group, u32 first, u32 last, bool unknown);

/** sd_group_seal() - [M] build the journal image. An empty group may not be sealed. -EAGAIN, -EIO; on error destroy the group. */
int sd_group_seal(struct sd_store *store, struct sd_group *group);

/**
 * sd_group_relocate() - [M] the data (or part of it) of a sealed, not yet durable group could not be written: allocate other blocks for all its DATA items
 * and rebuild the image in place (same seq, same address; it must be written again). The old blocks are not used again in this attachment.
 * Return: 0, -ENOSPC.
 */
int sd_group_relocate(struct sd_store *store, struct sd_group *group);

/** sd_group_commit() - [M] the group is durable; frees it. Strictly in order of seq. */
void sd_group_commit(struct sd_store *store, struct sd_group *group);
/** sd_group_destroy() - [M] drop a group that was never sealed, or (store failed) will never be durable */
void sd_group_destroy(struct sd_store *store, struct sd_group *group);

/* ---- background: checkpoints and merges ------------------------------------------------------- */

enum sd_work {
	SD_WORK_NONE,
	SD_WORK_IDLE,		/* merging that is worth doing when there is nothing better to do (reclaim after delete) */
	SD_WORK_SOON,		/* tiered merge due, or journal/table half full */
	SD_WORK_NOW,		/* writers wait, or will at once */
};
/** sd_background_work() - [M] is there work for sd_background_step()? */
enum sd_work sd_background_work(struct sd_store *store);

struct sd_step;
#define SD_STEP_CHECKPOINT	(1u << 0)	/* checkpoint whether needed or not */
/*
 * Take what the device has become larger by: sd_dev.nr_blocks has been raised (under the store lock) before. The blocks can be used when the step has
 * ended; after a crash the store has its old size or its new one. -ENODATA when there is nothing to take.
 */
#define SD_STEP_GROW		(1u << 1)
/**
 * sd_step_begin() - [M] choose and begin one bounded piece of work (a merge slice, a checkpoint, or both in one transaction)
 * Return: 0; -EAGAIN: an old version is still referenced by a reader, try again in a moment; -ENODATA: nothing to do; -EIO: store failed; -ENOMEM;
 * -ENOSPC: no room for what the transaction itself needs
 */
int sd_step_begin(struct sd_store *store, u32 flags, struct sd_step **step);
/** sd_step_run() - [B] first half of the I/O: the run of a checkpoint, the merge slice. Return: 0 or -errno (then straight to sd_step_end) */
int sd_step_run(struct sd_step *step);
/** sd_step_prepare() - [M] take the snapshot of catalog and bitmaps that this transaction will write */
int sd_step_prepare(struct sd_step *step);
/** sd_step_write() - [B] write catalog, bitmaps, flush, superblock, flush. The transaction is durable when it returns 0 */
int sd_step_write(struct sd_step *step);
/**
 * sd_step_end() - [M] make the transaction the current state; @err is what run/prepare/write returned, 0 if all succeeded
 * A failed prepare or write fails the store (sd_store_fail), and so does a failed sd_step_run of a checkpoint, whose table is frozen already. That of a merge does not: nothing has
 * changed; damaged runs are not merged again in this attachment (their readable part goes on to serve). Frees the step. Return: @err, an error of its own, or that of a merge
 * beside a checkpoint that is durable.
 */
int sd_step_end(struct sd_step *step, int err);
/** sd_step_whole() - [M] all of one step, where nobody else is at the store. Return: as sd_step_begin() and sd_step_end() */
int sd_step_whole(struct sd_store *store, u32 flags);

/* ---- reading ---------------------------------------------------------------------------------- */

/** sd_version_get() - [A] the current version, referenced */
struct sd_version *sd_version_get(struct sd_store *store);
/** sd_version_put() - [A] blocks that only older versions needed become free in a later [M] call */
void sd_version_put(struct sd_version *v);
/** sd_version_number() - [A] of this store since it was opened; none has the number of another, so it can be compared after a put */
u64 sd_version_number(const struct sd_version *v);

/**
 * sd_lookup() - [R] what holds the content of @chunk at generation @gen
 * rec->kind is SD_KIND_NONE if there is no record: the primary has it (look again after reading!).
 * A MARK that would be the answer is damage: -EUCLEAN. -EIO, -EUCLEAN, -ENOMEM.
 */
int sd_lookup(struct sd_version *v, u64 chunk, u32 gen, struct sd_rec *rec);
/** sd_lookup_range() - [R] the same for @nr consecutive chunks: recs[i] for first + i */
int sd_lookup_range(struct sd_version *v, u64 first, u32 nr, u32 gen, struct sd_rec *recs);
/** sd_lookup_newest() - [R] the record of @chunk with the highest generation (any kind); NONE if there is none */
int sd_lookup_newest(struct sd_version *v, u64 chunk, struct sd_rec *rec);
/** sd_lookup_new() - [A] as sd_lookup() but in the in-memory tables only: true if there is a record >= @gen there */
bool sd_lookup_new(struct sd_version *v, u64 chunk, u32 gen);
/** sd_window_fill() - [R] set bit i of @bitmap if chunk first + i has a record with gen >= @min_gen. Bits are only set, never cleared */
int sd_window_fill(struct sd_version *v, u32 min_gen, u64 first, u32 nr, unsigned long *bitmap);

struct sd_extent {
	u64 chunk;		/* first */
	u64 nr;			/* chunks */
	u64 addr;		/* DATA: block of the first chunk; the others follow without gap */
	u32 kind;		/* enum sd_kind */
};
/**
 * sd_map_extents() - [R] the extents of generation @gen over the chunks [*pos, end), sorted and complete (NONE where the primary has it)
 * Fills at most @max, sets *pos behind the last one. Return: number filled (0 only when *pos == end) or -errno
 */
int sd_map_extents(struct sd_version *v, u32 gen, u64 *pos, u64 end, struct sd_extent *out, u32 max);
/**
 * sd_change_extents() - [R] chunks with a record of a generation in [g1, g2), over [*pos, end); kind and addr are 0
 * Return: number filled (may be 0 with *pos == end) or -errno
 */
int sd_change_extents(struct sd_version *v, u32 g1, u32 g2, u64 *pos, u64 end, struct sd_extent *out, u32 max);

/*
 * sd_map_slice(), sd_change_slice() - [R] the same, but they end when *@work records have been looked at, whether or not they were wanted, and count it down. *pos has moved
 * then (at least one chunk is done), and 0 may be returned before @end.
 */
int sd_map_slice(struct sd_version *v, u32 gen, u64 *pos, u64 end, struct sd_extent *out, u32 max, u32 *work);
int sd_change_slice(struct sd_version *v, u32 g1, u32 g2, u64 *pos, u64 end, struct sd_extent *out, u32 max, u32 *work);

/* What would be freed? In copies, of those that were looked at. */
struct sd_gain {
	const u32 *live;	/* the live generations, ascending */
	u32 nr;
	struct sd_gain_of {
		bool keep;	/* in: will not be given up */
		u32 next_keep;	/* the function's own */
		u64 alone;	/* copies that only this one needs */
		u64 shared;	/* copies that this one, and younger ones but none with @keep, need; it is the oldest of them */
	} *gain;		/* of each */
	u64 seen;		/* copies that were looked at */
	u64 pos, step;		/* the function's own; 0 at the beginning */
};
/**
 * sd_gain() - [R] who needs the copies that there are? A part of the answer
 *
 * All of them are looked at in a table of up to 256 k records, samples from all over the volume in a larger one. All together may be ten thousand reads of metadata: so it is
 * asked again, each time with the version of that time. One that is held so long would keep the next but one checkpoint, and all space, from coming.
 * Return: 1: there is more to look at; 0: that was all; -EIO, -EUCLEAN, -ENOMEM.
 */
int sd_gain(struct sd_version *v, struct sd_gain *gain);

#endif
