/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the core know of each other.
 *
 *   block.c    headers of metadata blocks: seal, check, read
 *   sb.c       superblocks, format
 *   alloc.c    block groups and their bitmaps
 *   catalog.c  the copy-on-write table of generations, runs, segments and groups
 *   gens.c     generations: descriptors in the catalog, what is live, what is kept
 *   mem.c      the in-memory table of records that are not in a run yet
 *   leaf.c     packed records: a leaf of a run
 *   run.c      runs: building, fetching
 *   version.c  the immutable set of tables that readers use
 *   iter.c     all tables as one sorted stream
 *   map.c      lookups, windows, extents
 *   journal.c  images of commit groups: building, reading
 *   group.c    commit groups
 *   recover.c  replay
 *   merge.c    which runs to merge, one slice of a merge
 *   step.c     transactions: checkpoint and merge slice made durable
 *   open.c     open, attach, detach, close, fail
 *   space.c    room, and what giving up generations would free
 *   check.c    everything against everything
 */
#ifndef SNAPDIFF_CORE_INTERNAL_H
#define SNAPDIFF_CORE_INTERNAL_H

#include "core.h"
#include "format.h"

/*
 * Bugs that tests/sim plants, one at a time, to show that it finds them. Only its own build of the core has them.
 */
enum sd_plant_id {
	SD_PLANT_NONE,
	SD_PLANT_STEP_UNFLUSHED,	/* no flush before the superblock */
	SD_PLANT_SUPER_UNFLUSHED,	/* none after it */
	SD_PLANT_REUSE_EARLY,		/* dropped blocks are free at once */
	SD_PLANT_NO_DATA_CRC,		/* replay trusts all data */
	SD_PLANT_NO_EPOCH,		/* the epoch stays, and the chain is not looked at */
	SD_PLANT_COPY_CHOICE,		/* the first copy of a bitmap is the valid one */
	SD_PLANT_NO_PREV,		/* merging forgets the record before */
	SD_PLANT_NO_PURGE,		/* runs with garbage are not flagged */
	SD_PLANT_TAIL_AHEAD,		/* the journal's tail moves past groups in flight */
	SD_PLANT_NO_FORGET,		/* rewritten blocks stay in the cache */
	SD_PLANT_CATALOG_AGAIN,		/* replay applies what the catalog has */
	SD_PLANT_DURABLE_AHEAD,		/* an image says that groups in flight are durable */
	SD_PLANT_READERS_IGNORED,	/* blocks are free although an old version needs them */
	SD_PLANT_GROW_EARLY,		/* what the device has grown by is given out at once */
	SD_PLANT_NO_FLOOR,		/* no room is kept for recovery */
};
#ifdef SD_PLANT
extern u32 sd_plant;
#define sd_planted(id)	(sd_plant == (id))
#else
#define sd_planted(id)	false
#endif

/* ---- block.c ---------------------------------------------------------------------------------- */

void sd_complain(struct sd_store *s, const char *text);
void sd_complain_block(struct sd_store *s, u64 addr, const char *what, u64 wanted, u64 found);

/* Fill in the header (nr and level are the caller's) and the checksum of a 4 KiB block. */
void sd_block_seal(struct sd_store *s, void *block, u32 magic, u64 addr, u64 txid);
/* Is @block what it should be? 0 or -EUCLEAN, said once through complain(). @max_nr: bound of hdr.nr */
int sd_block_check(struct sd_store *s, const void *block, u32 magic, u64 addr, u32 max_nr);
/* Read into memory of the caller and check. [M] */
int sd_block_read(struct sd_store *s, u64 addr, u32 magic, u32 max_nr, void *block);
/* The same through the cache. [R] */
int sd_block_get(struct sd_store *s, u64 addr, u32 magic, u32 max_nr, struct sd_buf *buf);
void sd_block_put(struct sd_store *s, struct sd_buf *buf);

/* ---- a list of block extents -------------------------------------------------------------------- */

struct sd_blocks {
	struct sd_blockrange { u64 addr, nr; } *r;
	u32 nr, cap;
};
int sd_blocks_add(struct sd_blocks *l, u64 addr, u64 nr);	/* -ENOMEM; joins with the last one where it can */
void sd_blocks_clear(struct sd_blocks *l);

/* ---- alloc.c ------------------------------------------------------------------------------------- */

struct sd_bpage;
struct sd_ginfo {
	struct sd_bpage *page;
	u32 txid;		/* low half, of the valid copy */
	u16 free;		/* as the bitmap on disk will say after the current transaction */
	u16 avail;		/* blocks the allocator may give out */
	u8 flags;		/* SD_GROUP_D_* */
	bool dirty;		/* differs from the copy on disk */
	bool in_step;		/* is being written by the current transaction: its page stays */
	bool shunned;		/* its bitmap could not be read: nothing is taken from it */
	bool lost;		/* its bitmap was replaced by a full one */
};

struct sd_alloc {
	struct sd_ginfo *g;
	u32 nr_groups;
	u64 start;		/* block of group 0 */
	u64 end;		/* first block behind the device */
	u64 free, avail;	/* sums */
	u64 dropped;		/* blocks that will be free when their transaction is durable and their readers have gone */
	u64 step_dropped;	/* those of the step under way: not durable yet */
	u64 reserve;		/* fixed part of sd_alloc_reserve() */
	bool damaged;		/* a bitmap could not be read: there is room that we do not know of */
	u32 data_group, data_bit, meta_group, meta_bit;	/* where to look next */
	u32 nr_pages, max_pages, clock;
};

u64 sd_alloc_reserve(const struct sd_store *s);	/* blocks that data leaves for metadata */
u64 sd_alloc_needs(const struct sd_store *s);	/* what prepare takes, at most */
/* What must be left so that the store can be opened after a crash, with @records more than there are (alloc.c); what records without data leave: four slices of a merge more */
u64 sd_alloc_floor(const struct sd_store *s, u32 records);
u64 sd_alloc_floor_small(const struct sd_store *s, u32 records);
int sd_alloc_init(struct sd_store *s);		/* counts come from the catalog */
void sd_alloc_exit(struct sd_store *s);
void sd_alloc_limit(struct sd_store *s, u64 bytes);	/* of cached bitmaps; what is dirty stays beyond it */
u64 sd_alloc_bytes(const struct sd_store *s);
u32 sd_group_capacity(const struct sd_alloc *a, u32 group);	/* blocks beside the bitmaps */
/*
 * Take up to @want blocks, a multiple of @unit, as one extent. Returns the number taken in *@got, -ENOSPC, -ENOMEM, or -EIO when one bitmap after the other cannot be read.
 * Data: leaves the reserve alone. The blocks are busy but not part of any transaction until sd_alloc_commit().
 */
int sd_alloc_take(struct sd_store *s, u32 want, u32 unit, bool meta, u64 *addr, u32 *got);
/* The same until @want blocks are there, into a list. On failure nothing is taken. */
int sd_alloc_take_list(struct sd_store *s, u64 want, struct sd_blocks *list);
void sd_alloc_commit(struct sd_store *s, u64 addr, u64 nr);	/* taken → part of the next transaction */
void sd_alloc_untake(struct sd_store *s, u64 addr, u64 nr);	/* taken → free again */
void sd_alloc_settle(struct sd_store *s, struct sd_blocks *list, u64 used);	/* the first @used commit, the others untake; the list is then empty */
bool sd_alloc_outside(struct sd_store *s, u64 addr, u64 nr);	/* of all groups, and complained about */
int sd_alloc_drop(struct sd_store *s, u64 addr, u64 nr);	/* part of a transaction → not of the next; still busy */
void sd_alloc_release(struct sd_store *s, u64 addr, u64 nr);	/* dropped → free again */
int sd_alloc_replay(struct sd_store *s, u64 addr, u64 nr);	/* recovery: is in use by a replayed record */
/*
 * Growing, in prepare: the store ends at @nr_blocks now, with @g (zeroed, one for each group then; taken over when 0 is returned) for its groups. None of the
 * new blocks is given out yet: those of the group that was the last one are dropped (into @retire), new groups wait for sd_alloc_open_groups().
 */
int sd_alloc_grow(struct sd_store *s, u64 nr_blocks, struct sd_ginfo *g, struct sd_blocks *retire);
void sd_alloc_open_groups(struct sd_store *s, u32 from);
/* Is the block in use as of the last committed state? For check.c. */
int sd_alloc_test(struct sd_store *s, u64 addr, bool *used);
int sd_alloc_get_page(struct sd_store *s, u32 group, struct sd_bpage **page);
void sd_alloc_encode(struct sd_store *s, u32 group, struct sd_disk_bitmap *out, u64 txid, u64 *addr);

/* ---- catalog.c ----------------------------------------------------------------------------------- */

struct sd_cat_leaf {
	u64 first;		/* no key in it is smaller; the index has it */
	u64 addr;		/* 0: never written */
	bool dirty;
	bool in_step;		/* has got its new address in this transaction */
	struct sd_disk_catalog *b;
};

struct sd_catalog {
	struct sd_cat_leaf **leaf;
	u32 nr, cap;
	u64 *index_addr;	/* of the index blocks on disk */
	u16 *index_txid;	/* low bits of the transactions that wrote them */
	bool *index_step;	/* has got its new address in this transaction */
	u32 nr_index;
	u32 layout_from;	/* index blocks from here on have changed; U32_MAX: none */
};

int sd_cat_load(struct sd_store *s);
void sd_cat_exit(struct sd_store *s);
u64 sd_cat_bytes(const struct sd_store *s);			/* of memory */
void *sd_cat_get(struct sd_store *s, u64 key);			/* value, or NULL; valid until the next put or del */
void *sd_cat_edit(struct sd_store *s, u64 key);			/* the same, and marked as changed */
int sd_cat_put(struct sd_store *s, u64 key, const void *value);	/* -ENOMEM, -ENOSPC: catalog full */
void sd_cat_del(struct sd_store *s, u64 key);
void *sd_cat_next(struct sd_store *s, u64 from, u64 *key);	/* first entry with a key >= from, or NULL */
void *sd_cat_prev(struct sd_store *s, u64 from, u64 *key);	/* last entry with a key <= from, or NULL */
u32 sd_cat_count(struct sd_store *s, u32 type);			/* entries of a type */

struct sd_writes;
int sd_cat_place(struct sd_store *s, bool *changed);		/* give changed blocks new addresses (may dirty bitmaps) */
int sd_cat_encode(struct sd_store *s, u64 txid, struct sd_writes *w);

/* ---- gens.c --------------------------------------------------------------------------------------- */

struct sd_gens {		/* sorted copies of the numbers, for the "still needed" rule */
	u32 *live, *kept;
	u32 nr_live, nr_kept;
};
int sd_gens_snapshot(struct sd_store *s, struct sd_gens *g);
void sd_gens_free(struct sd_gens *g);
u32 sd_gens_floor(const u32 *list, u32 nr, u32 gen);		/* greatest <= gen, 0 if none */
void sd_gens_refresh(struct sd_store *s);			/* summary from the catalog */
int sd_gens_apply_put(struct sd_store *s, const struct sd_disk_gen *d, u32 number);
void sd_gens_apply_del(struct sd_store *s, u32 first, u32 last);
void sd_gens_apply_lose(struct sd_store *s, u32 first, u32 last, bool unknown);
void sd_gens_count_changed(struct sd_store *s, u32 gen, s64 n);	/* gen: of the records */
void sd_gen_pack(struct sd_disk_gen *d, const struct sd_gen *g);
void sd_gen_unpack(struct sd_gen *g, const struct sd_disk_gen *d, u32 number);

/* ---- mem.c ---------------------------------------------------------------------------------------- */

struct sd_mem;
struct sd_mem *sd_mem_alloc(u32 records);
void sd_mem_get(struct sd_mem *m);
void sd_mem_put(struct sd_mem *m);		/* frees with the last reference */
bool sd_mem_shared(struct sd_mem *m);		/* does anybody else hold it? */
void sd_mem_reset(struct sd_mem *m);		/* empty again; not shared */
u32 sd_mem_count(struct sd_mem *m);
u32 sd_mem_room(struct sd_mem *m);		/* records that surely still fit */
u64 sd_mem_bytes(const struct sd_mem *m);	/* allocated; 0 for NULL */
u32 sd_mem_fitting(u64 bytes);			/* capacity of a table of so many bytes */
void sd_mem_gens(struct sd_mem *m, u32 *gen_min, u32 *gen_max);
void sd_mem_insert(struct sd_mem *m, const struct sd_rec *rec);	/* one writer; readers at any time */
u32 sd_mem_fetch(struct sd_mem *m, u64 chunk, u32 gen, struct sd_rec *recs, u32 max);

/* ---- leaf.c ---------------------------------------------------------------------------------------- */

struct sd_leaf {		/* of a block that sd_block_check() has seen */
	const u8 *row;
	u32 nr, stride;
	u64 base[SD_COLUMNS], mask[SD_COLUMNS];
	u32 at[SD_COLUMNS];
};
bool sd_leaf_valid(const void *block);		/* may it be read? Columns and rows in their bounds, keys rising */
void sd_leaf_open(struct sd_leaf *l, const void *block);
void sd_leaf_get(const struct sd_leaf *l, u32 i, struct sd_rec *rec);	/* i < nr; the one place that decodes a record */
void sd_leaf_first(const void *block, u64 *chunk, u32 *gen);		/* key of the first record; nr > 0 */
u32 sd_leaf_find(const struct sd_leaf *l, u64 chunk, u32 gen);		/* first record with this key or a higher one; nr if none */

struct sd_packer {
	struct sd_rec *rec;		/* the caller's: so many as @most */
	u32 most, nr, stride;
	struct sd_range { u64 min, max, mask; u32 width; } col[SD_COLUMNS];
};
void sd_packer_reset(struct sd_packer *p);
/* False: the leaf is full. It does not happen before SD_LEAF_FEWEST (or @most). Addresses of DATA are below 2^48. */
bool sd_packer_add(struct sd_packer *p, const struct sd_rec *rec);
void sd_packer_write(const struct sd_packer *p, struct sd_disk_leaf *b);	/* all of the block but what sealing fills in */

/* ---- run.c ----------------------------------------------------------------------------------------- */

struct sd_segment {
	u64 first_chunk;
	u64 root;
	u64 records;
	u64 txid;		/* of all its blocks */
	u32 levels;
	u32 blocks;
	u32 number;		/* in the catalog */
};

struct sd_run {			/* immutable but for flags and garbage, which only [M] looks at */
	refcount_t ref;
	u32 id;
	u32 level;
	u32 flags;		/* SD_RUN_F_* */
	bool broken;		/* not to be merged in this attachment */
	u32 merge_into;
	u32 gen_min, gen_max;
	u64 age, lo, records;
	u64 garbage;		/* records of it that nobody needs, as estimated */
	u32 nr_segs;
	struct sd_segment seg[];
};

struct sd_run *sd_run_alloc(u32 nr_segs);
void sd_run_put(struct sd_run *r);
u64 sd_run_blocks(u64 records);			/* leaves and fences of one segment, at most */
/* Records with a key >= (chunk, gen), sorted, from one leaf. *nr == 0: none are left. [R] */
int sd_run_fetch(struct sd_store *s, const struct sd_run *r, u64 chunk, u32 gen, struct sd_rec *recs, u32 max, u32 *nr);
/* All blocks of a segment; for giving them back and for check. [R] */
int sd_segment_blocks(struct sd_store *s, const struct sd_segment *seg, struct sd_blocks *list);
int sd_run_store(struct sd_store *s, const struct sd_run *r);	/* run entry into the catalog */
int sd_run_store_seg(struct sd_store *s, u32 run, const struct sd_segment *seg);
int sd_run_load_all(struct sd_store *s, struct sd_version *v);

struct sd_builder {
	struct sd_store *s;
	u64 txid;
	const struct sd_blocks *space;
	u32 space_i;
	u64 space_off, used;
	struct sd_packer leaf;
	void *block;
	struct sd_disk_fence *fence;	/* of the level being built */
	u32 nr_fence, cap_fence;
	void *buf;			/* blocks that wait for one write */
	u64 buf_addr;
	u32 buf_nr;
	u64 records;
	struct sd_segment seg;
};
int sd_builder_init(struct sd_builder *b, struct sd_store *s, u64 txid, const struct sd_blocks *space, u64 max_records);
int sd_builder_add(struct sd_builder *b, const struct sd_rec *rec);	/* -EUCLEAN: an address that no device has */
int sd_builder_finish(struct sd_builder *b);	/* b->seg is then complete */
void sd_builder_exit(struct sd_builder *b);

/* ---- version.c -------------------------------------------------------------------------------------- */

struct sd_version {
	refcount_t ref;			/* the store holds one of the current version */
	struct rcu_head rcu;		/* who is about to take a reference may still look at it */
	struct list_head list;		/* store->versions, oldest first */
	u64 number;			/* in the order in which they became current */
	struct sd_store *s;
	struct sd_mem *active, *frozen;
	struct sd_blocks retire;	/* free when this version and all older ones are gone */
	u32 nr_runs;
	struct sd_run **runs;		/* by age, oldest first */
};
struct sd_version *sd_version_alloc(struct sd_store *s, u32 nr_runs);
struct sd_version *sd_version_clone(struct sd_version *v);
void sd_version_swap(struct sd_store *s, struct sd_version *v);	/* v becomes current */
void sd_version_reap(struct sd_store *s);
u32 sd_version_held(struct sd_store *s);			/* old ones that readers hold */
void sd_version_discard(struct sd_version *v);			/* one that never became current */

/* ---- iter.c ----------------------------------------------------------------------------------------- */

#define SD_FETCH	168u	/* records: a good part of a leaf */
#define SD_FETCH_STACK	32u	/* where they are on the stack */
struct sd_source {
	const struct sd_run *run;	/* or */
	struct sd_mem *mem;
	u32 tag;			/* the caller's */
	u32 pos, nr;
	bool end;
	struct sd_rec rec[SD_FETCH];
};

struct sd_iter {
	struct sd_store *s;
	u32 nr;
	u32 failed;		/* tag of the source that could not be read; U32_MAX: none */
	struct sd_source *src;
};
/* All tables of @v that can hold generations gen_min..gen_max */
int sd_iter_init(struct sd_iter *it, struct sd_version *v, u32 gen_min, u32 gen_max);
int sd_iter_init_empty(struct sd_iter *it, struct sd_store *s, u32 max_sources);
void sd_iter_add(struct sd_iter *it, const struct sd_run *run, struct sd_mem *mem, u32 tag);
int sd_iter_seek(struct sd_iter *it, u64 chunk, u32 gen);
/* 1 and the next record, 0 at the end, -errno */
int sd_iter_next(struct sd_iter *it, struct sd_rec *rec, u32 *tag);
int sd_iter_peek(struct sd_iter *it, struct sd_rec *rec);
void sd_iter_exit(struct sd_iter *it);

/* ---- journal.c --------------------------------------------------------------------------------------- */

struct sd_journal {
	u64 start, blocks;
	u64 tail, tail_seq;	/* first group to replay: absolute position, number */
	u32 tail_link;		/* of the image before it (format.h: sd_disk_journal.link) */
	u64 head, next_seq;	/* of the next group to be sealed */
	u32 head_link;
	u64 done, done_seq;	/* behind the last committed group; its number */
	u32 done_link;
	u32 epoch;
};

u64 sd_journal_norm(const struct sd_journal *j, u64 pos);	/* skip the end if an image might not fit */
u64 sd_journal_used(const struct sd_journal *j);
bool sd_journal_room(const struct sd_journal *j);		/* for one more image of any size */
/* Seal @image of @blocks blocks as the group at head; advances head. */
void sd_journal_seal(struct sd_store *s, void *image, u32 blocks, u32 payload, u64 seq, u64 pos, u32 prev_link, u32 link);

#define SD_JOURNAL_WINDOW	64u	/* blocks read at once */
struct sd_journal_window {
	void *buf;		/* SD_JOURNAL_WINDOW blocks */
	u64 addr;
	u32 nr;			/* blocks that it holds; 0: none */
};
/* The image expected at pos, valid until the next call. NULL, *err: -ENODATA: the log ends here; device error. */
const void *sd_journal_read(struct sd_store *s, struct sd_journal_window *w, u64 pos, u64 seq, u32 prev_link, int *err);

/* ---- group.c, recover.c -------------------------------------------------------------------------------- */

int sd_recover(struct sd_store *s, bool *dirty);
int sd_recover_close(struct sd_store *s);	/* what was replayed becomes a run */
void sd_group_pool_free(struct sd_store *s);

/* ---- merge.c ------------------------------------------------------------------------------------------- */

#define SD_MERGE_WIDTH	4u	/* so many neighbours of one level become one of the next */
#define SD_MERGE_MAX	64u

struct sd_merge {
	struct sd_version *v;		/* referenced */
	struct sd_run *in[SD_MERGE_MAX];
	u32 nr_in;
	struct sd_run *out;		/* the partial output, NULL in the first slice */
	u32 out_id, level;
	u64 age;
	u64 from, to;			/* this slice: chunks [from, to); to is set by the slice */
	bool last;
	struct sd_gens gens;
	struct sd_blocks space;		/* for the output */
	struct sd_blocks freed;		/* blocks not referenced any more */
	u64 max_records, stamp;
	u64 slice_records, slice_freed;	/* bounds of this slice */
	u64 garbage;			/* of the inputs when it began */
	struct sd_builder b;
	bool built;
	u32 gen_min, gen_max;		/* of what was written */
	struct { u32 gen; u64 n; } *shrink;	/* keys dropped, by generation of the record */
	u32 nr_shrink, cap_shrink;
	u32 *consumed;			/* per input: first segment that is still needed */
};
enum sd_work sd_merge_wanted(struct sd_store *s);
bool sd_merge_purge_memory(const struct sd_store *s);	/* is a checkpoint worth it, only so that garbage gets out of memory? */
/* 0 and *merge, -ENODATA: none wanted, -ENOSPC: no room for its output beside @leave blocks. [M] */
int sd_merge_begin(struct sd_store *s, bool idle_too, u64 leave, struct sd_merge **merge);
int sd_merge_run(struct sd_merge *m, u64 txid);				/* [B] */
int sd_merge_apply(struct sd_store *s, struct sd_merge *m, struct sd_version *next);	/* [M]: catalog, bitmaps, runs of @next */
void sd_merge_free(struct sd_store *s, struct sd_merge *m, bool failed);
void sd_merge_garbage(struct sd_store *s, u32 gen, u64 nr);	/* records of this interval have become unneeded, @nr at most */

/* ---- step.c ---------------------------------------------------------------------------------------------- */

#define SD_STEP_MERGE	(1u << 8)	/* a merge and nothing else: the log is not closed yet */

struct sd_writes {
	struct sd_write { u64 addr; void *buf; } *w;	/* one block each, owned */
	u32 nr, cap;
};
int sd_writes_add(struct sd_writes *w, u64 addr, void **buf);	/* a zeroed block to fill */

struct sd_step {
	struct sd_store *s;
	u32 flags;
	u64 txid;
	struct sd_merge *merge;
	bool freeze, prepared;
	struct sd_mem *frozen;
	struct sd_blocks run_space;	/* for its run, at most */
	struct sd_builder b;		/* of its run */
	bool built;			/* it is written */
	bool garbage;			/* as mem_garbage and mem_unneeded of the store, of the frozen table */
	u64 unneeded;
	struct sd_run *run;
	int merge_err;			/* the merge came to nothing; the checkpoint goes on */
	struct sd_writes writes;
	struct sd_disk_super *super;
	struct sd_version *next;	/* current when the step has ended */
	struct sd_blocks retire;
	u64 tail, tail_seq;
	u32 tail_link;
	u64 grow_to;			/* blocks; 0: the size stays */
	struct sd_ginfo *grow_groups;
	u32 grow_from;			/* first new group */
};

/* ---- sb.c, open.c ------------------------------------------------------------------------------------------ */

struct sd_store {
	struct sd_dev *dev;
	struct sd_open_opts opts;
	u8 uuid[SD_UUID_SIZE];
	u32 chunk_size, chunk_blocks;
	u64 nr_blocks, created_ns, primary_sectors;
	u64 txid;
	u64 next_id, next_age;
	bool failed, was_clean, starved, mem_garbage;
	u32 suspect_gen;
	bool super_pair;	/* both superblocks were valid and of consecutive transactions: the newest is known */
	enum sd_disk_state state;
	u8 fingerprint[SD_FINGERPRINT_SIZE];
	struct sd_summary sum;
	u32 nr_gens;
	u64 garbage_stamp;
	u64 garbage_until;	/* groups up to this one may have copies that were garbage before they were committed */
	u64 mem_unneeded;	/* records in memory that nobody needs, as estimated */
	struct sd_alloc alloc;
	struct sd_catalog cat;
	struct sd_journal j;
	struct sd_version *cur;
	struct list_head versions;
	struct sd_mem *spare;
	u32 mem_records, mem_promised;
	struct sd_group *building;
	struct list_head group_pool;
	u32 group_pooled;
	u64 catalog_seq;	/* of the superblock that was opened */
	u32 slice_records;
	u32 leaf_most;		/* records in a leaf that is written, SD_LEAF_FEWEST to SD_LEAF_MOST; 0: SD_LEAF_MOST. Tests want deep trees */
	struct sd_step *step;
	bool super_busy;	/* the step is writing the superblock; with failed, under super_lock */
	struct sd_disk_super *super;	/* the last durable one; who writes it changes it. NULL in a store that was not opened */
	u64 records_run;
	u64 meta_written, journal_written, checkpoints, merges, replayed_groups, dropped_groups;
};

u64 sd_usable_blocks(u64 dev_blocks, u64 group_start);
int sd_super_read(struct sd_store *s, struct sd_disk_super *super);
void sd_super_encode(struct sd_store *s, struct sd_disk_super *super);
int sd_super_write(struct sd_store *s, const struct sd_disk_super *super, u64 txid);	/* flushed */
int sd_super_write_now(struct sd_store *s);
bool sd_super_claim(struct sd_store *s, bool fail);	/* next txid, no change of the catalog */

/* ---- check.c ------------------------------------------------------------------------------------------------ */

struct sd_check_result {
	u64 errors;
	u64 blocks_used, blocks_leaked, blocks_missing, records, data_bad;
};
#define SD_CHECK_DATA	1u	/* also read all preserved chunks */
/**
 * sd_check() - [M] compare everything with everything: runs and their order, references of every block, bitmaps, counts
 * No group in flight and no step. complain() says what is wrong. Needs a byte of memory for each 8 blocks. Return: 0 or -errno when it could not be done.
 */
int sd_check(struct sd_store *s, u32 flags, struct sd_check_result *res);

#endif
