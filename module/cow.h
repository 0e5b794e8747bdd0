/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the write path share: target.c, cow.c, copy.c, group.c, bits.c and store*.c. (snapdiff.h is what the rest of the module sees.)
 */
#ifndef SNAPDIFF_COW_H
#define SNAPDIFF_COW_H

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/mempool.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "snapdiff.h"

#define SNAP_GROUPS_INFLIGHT	4u		/* sealed groups being written, at most */
#define SNAP_GROUP_ITEMS	1024u		/* copies in one group, at most */
#define SNAP_MAX_CHUNKS		4096u		/* chunks being preserved, at most */
#define SNAP_MAX_BYTES		(16u << 20)	/* and their bytes; a chunk of the largest size is always possible */
#define SNAP_BATCH	128u		/* copies that make a group worth its while */
#define SNAP_RUN_BYTES		(1u << 20)	/* one read of old content, at most (or one chunk) */
#define SNAP_FLOWS		64u		/* submitters that are told apart, by a hash */
#define SNAP_KEPT_PAGES		(SNAP_BATCH * 4096 / PAGE_SIZE ?: 1)	/* that the worker keeps when copies have ended */

/**
 * struct snap_pbio - what the target keeps for every bio that dm hands to it
 * @list: in snap_cow.flows or .again, or in the @waiters of the run that has claimed the chunk at @cursor
 * @cursor: first chunk not yet examined
 * @last: last chunk of the bio
 * @missing: runs of this bio that are not yet durable
 * @flow: of the task that submitted it
 * @inside: it has entered the gate
 *
 * All but @inside belong to the copy worker once the bio is deferred.
 */
struct snap_pbio {
	struct list_head list;
	u64 cursor;
	u64 last;
	unsigned int missing;
	u8 flow;
	bool inside;
};

static inline struct bio *snap_pbio_bio(struct snap_pbio *pb)
{
	return dm_bio_from_per_bio_data(pb, sizeof(struct snap_pbio));
}

static inline struct snap_pbio *snap_bio_pbio(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct snap_pbio));
}

/* The core's kinds in the write path's words; store.c asserts that the numbers are equal. */
#define SNAP_MARK	4

/* One chunk to be recorded; the layout is the core's struct sd_item (store.c asserts it). */
struct snap_item {
	u64 chunk;
	u32 kind;		/* SNAP_DATA, SNAP_ZERO, SNAP_BAD or SNAP_MARK */
	u32 crc;
	u64 addr;		/* out: block of 4 KiB */
};

enum snap_event_op { SNAP_OP_PUT, SNAP_OP_DEL, SNAP_OP_LOSE };

/* struct snap_change - a change of the generations, on its way through the ordered queue */
struct snap_change {
	struct list_head list;
	enum snap_event_op op;
	const struct snap_gen *gen;	/* PUT */
	u32 first, last;		/* DEL, LOSE */
	bool unknown;			/* LOSE */
	int err;
	struct completion done;
};

/* ---- bits.c ---------------------------------------------------------------------------------- */

struct snap_bits *snap_bits_create(struct snap_volume *vol);
u64 snap_bits_memory(const struct snap_bits *bits);	/* [any context] bytes, about */
void snap_bits_destroy(struct snap_bits *bits);
/* [any context] Are all chunks first..last known to be in the current changed set? */
bool snap_bits_all(struct snap_bits *bits, u64 first, u64 last);
/*
 * [worker] The window of @chunk, filled from the store when it is not there. On success *zero is the first chunk >= @chunk that is not in the set,
 * or *end, the first chunk behind the window. -ENOMEM: try again later; else the table is damaged.
 */
int snap_bits_next_zero(struct snap_bits *bits, u64 chunk, u64 *zero, u64 *end);
/* [worker] How many chunks from @chunk on, at most @nr, are not in the set; the window is there (snap_bits_next_zero() was just called) */
u32 snap_bits_zeros(struct snap_bits *bits, u64 chunk, u32 nr);
/* [worker] These chunks are in the set now (their records are in the table) */
void snap_bits_set(struct snap_bits *bits, u64 first, u32 nr);
/* [worker] Another interval, or another definition of the set: forget everything */
void snap_bits_drop(struct snap_bits *bits);

/* ---- store.c, store_group.c -------------------------------------------------------------------- */

/*
 * Who gets what of vol->memory: a quarter the windows of the changed set, a quarter the cached blocks of runs, three eighths the core's tables and bitmaps; the rest
 * is for what has no bound of its own but is small: the catalog, descriptors of runs, commit groups. Without cache_size the core keeps to its default.
 */
#define SNAP_MEMORY_DEFAULT	(64ull << 20)

struct snap_store_opts {
	u32 mem_records;
	u64 memory;		/* bytes for the core; 0: default */
	char **error;		/* for ti->error; points to constant text */
};
/* May block. The store of vol->diff is opened (recovered), not yet in use. */
int snap_store_open(struct snap_volume *vol, const struct snap_store_opts *opts);
/* Why generations would be lost if a primary of @size sectors, as it is now, were attached; NULL: they would not. May block. */
const char *snap_store_misfit(struct snap_volume *vol, sector_t size);
/* Refused with -EMEDIUMTYPE when the primary does not fit, unless vol->accept_changed: then the generations are given up. The store is in use afterwards. */
int snap_store_attach(struct snap_volume *vol, sector_t size);
/* The primary has grown while in use. May block. */
void snap_store_resize_primary(struct snap_volume *vol, sector_t size);
/* Take what the diff has grown by, under writes. 0, -EINVAL (it has shrunk), -ENOSPC, -EIO, -ENOMEM. May block. */
int snap_store_grow(struct snap_store *s);
/* No change of the generations is accepted any more; those under way have ended when it returns. */
void snap_store_shut(struct snap_store *s);
/* Worker and background thread stopped, nothing in flight: everything durable, marked clean (if it was attached). The store answers -EIO afterwards. */
void snap_store_close(struct snap_volume *vol, bool clean);
/* Last reference. */
void snap_store_free(struct snap_store *s);
/* Start and stop the background thread. */
void snap_store_start(struct snap_store *s);
void snap_store_stop(struct snap_store *s);

/* [worker] set a bit for each chunk that has a record >= @min_gen */
int snap_store_fill(struct snap_store *s, u32 min_gen, u64 first, u32 nr, unsigned long *bitmap);

/* Background work: enum of the core in the module's words. */
enum snap_reclaim {
	SNAP_RECLAIM_NOTHING,	/* the background thread has nothing left to do */
	SNAP_RECLAIM_BUSY,	/* it is at work: the copy worker is kicked when a step has ended */
};
/* [worker] Writers wait for the background thread. */
enum snap_reclaim snap_store_reclaim(struct snap_store *s);
/* [any context] A number that changes while the background thread gets on. */
unsigned long snap_store_progress(struct snap_store *s);
/* [any context] There may be background work. */
void snap_store_kick(struct snap_store *s);
/* [worker] The one way down; event and log line follow from the housekeeping work. */
void snap_store_fail(struct snap_store *s, int err, const char *what);

/* One sealed group; opaque behind the image. */
struct snap_sealed {
	void *core;		/* struct sd_group */
	void *image;
	u32 image_blocks;
	u64 image_addr;		/* block */
};
/*
 * [worker] Allocate addresses for the first of @items and build the journal image. Return: how many were taken, or -ENOSPC, -EAGAIN, -EBUSY (rationed: in a moment), -ENOMEM,
 * -EIO (store failed).
 * @items must stay where they are until commit.
 */
int snap_store_seal_items(struct snap_store *s, struct snap_item *items, u32 nr, struct snap_sealed *out);
/* [worker] The same for a change of the generations. Return: 0 or -errno */
int snap_store_seal_change(struct snap_store *s, struct snap_change *change, struct snap_sealed *out);
/* [worker] Other addresses for the data; the image has been rebuilt. 0 or -ENOSPC */
int snap_store_relocate(struct snap_store *s, struct snap_sealed *sealed);
/* [worker] Durable: make it visible. @change: what it was sealed for, or NULL. In order of sealing.
 * Return: false: the store has failed meanwhile, the group was dropped. */
bool snap_store_commit(struct snap_store *s, struct snap_sealed *sealed, struct snap_change *change);
/* [worker] The store has failed; drop it. */
void snap_store_drop(struct snap_store *s, struct snap_sealed *sealed);

/* ---- cow.c, copy.c, group.c --------------------------------------------------------------------- */

/**
 * struct snap_run - consecutive chunks that are being preserved for one bio
 * @node: in snap_cow.claims, by @first; runs do not overlap
 * @list: in snap_cow.done, then .ready; in no list while it is being read or written
 * @waiters: bios that want to write to one of its chunks
 * @owner: the bio that claimed it
 * @filled: chunks that have become items
 * @prio: the owner's ioprio
 * @committed: chunks whose records are in the table
 * @retry: next chunk to be read alone, after the whole could not be read
 * @summed: of a single chunk: @crc and @zero are known since it was read
 * @bad: chunks that could not be read
 * @bio: its pages, one bvec a page (or part of one); without any for marks. The last member: the run is allocated with it
 */
struct snap_run {
	struct rb_node node;
	struct list_head list;
	struct list_head waiters;
	struct snap_cow *cow;
	struct snap_pbio *owner;
	u64 first;
	u32 nr;
	u32 filled;
	u32 committed;
	u32 retry;
	u16 prio;
	bool retrying;
	bool mark;
	bool summed, zero;
	u32 crc;
	blk_status_t status;
	DECLARE_BITMAP(bad, 256);
	struct bio bio;
};

enum snap_group_state { SNAP_GROUP_FREE, SNAP_GROUP_OPEN, SNAP_GROUP_WRITING, SNAP_GROUP_FLUSHING, SNAP_GROUP_DONE };

/**
 * struct snap_group - one commit group on its way
 * @pending: bios that have not ended yet, plus one while they are submitted
 */
struct snap_group {
	struct list_head list;		/* cow->writing, in order of sealing */
	struct snap_cow *cow;
	enum snap_group_state state;
	struct snap_sealed sealed;
	struct snap_change *change;	/* instead of items */
	u32 nr;
	struct snap_item *items;	/* SNAP_GROUP_ITEMS */
	struct snap_run **runs;		/* of the items */
	atomic_t pending;
	bool ended;			/* pending reached 0; release/acquire */
	bool through;			/* written with FUA: needs no flush */
	unsigned int relocated;		/* times */
	u16 prio;			/* ioprio of its writes; 0: as any */
	blk_status_t data_status;
	blk_status_t meta_status;
};

struct snap_cow {
	struct snap_volume *vol;
	struct task_struct *worker;
	wait_queue_head_t wait;		/* the worker sleeps here */
	unsigned long kicked;		/* bit 0 */
	wait_queue_head_t idle;		/* snap_cow_drain() */

	spinlock_t lock;		/* irq; for the six below */
	struct list_head incoming;	/* pbios from map */
	struct list_head changes;	/* snap_change */
	struct list_head done;		/* runs that have been read */
	u32 done_chunks;		/* in them */
	bool room_done;			/* the housekeeping work has an answer */
	int room_err;

	/* the worker's own */
	struct list_head again;		/* pbios whose wait for a claim has ended: they come first */
	struct list_head flows[SNAP_FLOWS];	/* pbios to be looked at, of each flow oldest first */
	unsigned int flow;		/* whose turn it is */
	u32 turn;			/* chunks that are left of it */
	struct list_head ready;		/* runs whose old content is in memory */
	struct rb_root claims;
	struct list_head writing;	/* groups in order of sealing */
	struct list_head free_groups;
	struct snap_group *open;	/* being filled; NULL: take a free one */
	unsigned int nr_writing;
	unsigned int reading;		/* runs */
	u32 chunks;			/* in flight */
	u64 bytes;
	u32 ready_chunks;
	unsigned int wakes;		/* see in_a_hurry() */
	u64 wakes_since;
	bool hurry;
	bool failed;
	bool stalled;			/* the open group cannot be sealed: no space, journal full */
	bool room_asked;		/* the housekeeping work looks for generations to give up */
	bool wait_memory;		/* nothing in flight and no memory: try again in a moment */
	bool rationed;			/* little room, more is coming: the open group goes a moment later */
	unsigned long stalled_since;	/* jiffies */
	unsigned long progress;		/* of the background thread when last looked at */
	unsigned long progress_at;	/* jiffies, when it changed */
	unsigned long room_after;	/* not before that */
	atomic_t busy;			/* deferred bios and changes not yet finished */

	u32 kept;			/* newest_kept; READ_ONCE by map */
	struct snap_summary sum;	/* worker's copy */

	u32 chunk_bytes;
	u32 seg;			/* bytes of one bvec */
	u32 segs;			/* bvecs of one chunk */
	u32 run_chunks;			/* of one run, at most */
	mempool_t pages;
	struct page *kept_pages[SNAP_KEPT_PAGES];	/* the worker's own, last in first out */
	unsigned int nr_kept_pages;
	struct bio_set reads;		/* runs */
	struct bio_set retries;
	struct bio_set writes;
	struct bio_set discards;
	struct workqueue_struct *house;
	struct work_struct house_work;
	unsigned long house_flags;
	int fail_err;
	const char *fail_what;
	struct snap_group *groups;
};

enum { SNAP_HOUSE_ROOM, SNAP_HOUSE_LAST_RESORT, SNAP_HOUSE_SPACE, SNAP_HOUSE_FAILED, SNAP_HOUSE_BAD };

struct snap_cow *snap_cow_create(struct snap_volume *vol);
/* Let the worker run. */
void snap_cow_start(struct snap_cow *cow);
/* Everything has been drained; stops the worker. The housekeeping work has ended, too. */
void snap_cow_stop(struct snap_cow *cow);
void snap_cow_destroy(struct snap_cow *cow);
/* [any context] have writes been waiting for room or for a checkpoint so long that who decides has to hurry? */
bool snap_cow_waits_long(struct snap_cow *cow);
/* [any context] something happened that the worker waits for */
void snap_cow_kick(struct snap_cow *cow);
/* [any context] let the housekeeping work do one of SNAP_HOUSE_* */
void snap_cow_house(struct snap_cow *cow, int what);
/* [any context] a write or discard that is not known to be preserved; the gate was entered, the bio is remapped to the primary */
void snap_cow_defer(struct snap_cow *cow, struct bio *bio, u64 first, u64 last);
/* May block: durable or failed when it returns. Not from the worker. */
int snap_cow_change(struct snap_cow *cow, struct snap_change *change);
/* The summary has been changed outside of the worker (attach, before any bio) */
void snap_cow_refresh(struct snap_cow *cow);

/* copy.c */
struct snap_run *snap_run_find(struct snap_cow *cow, u64 chunk, u64 *next_claim);
/* NULL: no memory or too much in flight; ask again when something has ended */
struct snap_run *snap_run_start(struct snap_cow *cow, struct snap_pbio *pb, u64 first, u32 nr, bool mark);
/* @run has been read (or tried to): true when its old content is complete, false: it is being read again */
bool snap_run_read_done(struct snap_run *run);
void snap_run_item(struct snap_run *run, u32 i, struct snap_item *item);
struct bio_vec *snap_run_seg(struct snap_run *run, u64 chunk, u32 seg);
void snap_run_free(struct snap_run *run);
int snap_copy_init(struct snap_cow *cow);
void snap_copy_exit(struct snap_cow *cow);

/* group.c */
int snap_groups_init(struct snap_cow *cow);
void snap_groups_exit(struct snap_cow *cow);
void snap_group_fill(struct snap_cow *cow);
/* the open group, or a change: sealed and submitted. True if something was started */
bool snap_group_start(struct snap_cow *cow);
/* commit what is durable, in order. True if something was finished */
bool snap_group_finish(struct snap_cow *cow);

/* cow.c, for group.c */
void snap_cow_run_committed(struct snap_cow *cow, struct snap_run *run);
void snap_cow_summary(struct snap_cow *cow);
void snap_cow_fail(struct snap_cow *cow, int err, const char *what);
void snap_cow_change_done(struct snap_cow *cow, struct snap_change *change, int err);
/* the open group stays as it is; it is tried again whenever the worker is kicked, and once in a while */
void snap_cow_cannot_seal(struct snap_cow *cow, int err);

/* ---- table.c, fingerprint.c, volume.c ------------------------------------------------------------------ */

/* struct snap_params - what a table line says, beside the devices */
struct snap_params {
	u8 on_full;
	bool has_on_full;
	bool accept_changed;	/* for one attachment: not shown in the table */
	bool trust_primary;	/* the same */
	u32 mem_records;
	u32 cache_size;		/* MiB; 0: default */
};
int snap_params_parse(struct dm_target *ti, unsigned int argc, char **argv, struct snap_params *p);
unsigned int snap_params_emit(const struct snap_params *p, char *result, unsigned int sz, unsigned int maxlen);
unsigned int snap_status_emit(struct snap_volume *vol, char *result, unsigned int sz, unsigned int maxlen);
/* 64 bytes that tell whether the primary was written without us */
int snap_fingerprint(struct block_device *bdev, sector_t size, u32 highest, u8 *out);
/* The highest generation at that time; 0: none. */
u32 snap_fingerprint_highest(const u8 *fingerprint);
/* 1: it was; 0: not as far as can be seen, looking only where @written (may be NULL) is false; -ENOMEM. May block. */
int snap_fingerprint_differs(struct block_device *bdev, const u8 *fingerprint, bool (*written)(void *ctx, sector_t start, sector_t nr), void *ctx);

struct snap_volume *snap_volume_open(struct dm_target *ti, struct dm_dev *primary, struct dm_dev *diff, const struct snap_params *p,
				     void (*resubmit)(void *ctx, struct bio_list *bios));
int snap_volume_attach(struct snap_volume *vol, struct dm_target *ti);
void snap_volume_close(struct snap_volume *vol, struct dm_target *ti);

#endif
