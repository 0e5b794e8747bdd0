/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the module know of each other. (Names: sd_ is the portable core, snap_ is this module.)
 *
 *   main.c        init/exit: brings the parts up and down in order
 *   table.c       constructor arguments, table and status lines, messages
 *   target.c      the dm target: ctr, dtr, map, end_io, resume
 *   volume.c      the list of volumes, how one comes to be and goes; fingerprint.c: was the primary written without us?
 *   gate.c        who may write now: the per-CPU gate that a cut closes
 *   cow.c         the copy path: the worker, deferred bios; copy.c: reading old content; group.c: commit groups (cow.h is what these share)
 *   bits.c        cache of the current changed set: windows of bits, filled from the store, evictable
 *   store*.c      owner of the core's store: life and lookups, metadata I/O (_dev), commits (_group), background thread (_step), room (_space). The only files that
 *                 include core headers.
 *   generation.c  create (consistency groups, freeze), delete, bookmark, pin, label
 *   full.c        what is given up when the diff is full
 *   virt*.c       /dev/snapvirtN
 *   netlink*.c    the generic netlink family
 *   event.c       events: netlink multicast, uevent, dm event, kernel log
 *
 * Order of locks (outer first):
 *   snap_volumes_lock (mutex) > snap_volume.control (mutex) > gate > snap_store.lock (mutex) > spin locks (each says which).
 */
#ifndef SNAPDIFF_H
#define SNAPDIFF_H

#include <linux/types.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/list.h>
#include <linux/device-mapper.h>
#include <linux/netlink.h>
#include <linux/sched/mm.h>
#include "uapi/linux/snapdiff.h"
#include "compat.h"
#include "crc.h"

#define SNAP_NAME	"snapdiff"

struct snap_store;
struct snap_gate;
struct snap_cow;
struct snap_bits;
struct snap_virt;

/* Counters shown as SNAPDIFF_STAT_*; per CPU, summed when read. */
enum snap_counter {
	SNAP_C_READS, SNAP_C_WRITES, SNAP_C_DEFERRED, SNAP_C_COPIED, SNAP_C_ZEROS, SNAP_C_BAD, SNAP_C_MARKED, SNAP_C_GROUPS,
	SNAP_C_DISCARDS_DROPPED, SNAP_C_LOST_GENS, SNAP_C_NR,
};
struct snap_counters { u64 n[SNAP_C_NR]; };

/* full.c's memory of how full the diff is; zeroed at allocation, no other set-up. */
struct snap_space {
	bool low, full;			/* the events have been raised; housekeeping work only, as the rest */
	unsigned int vain;		/* percent used when giving up what may go would have given nothing back; 0: it is not so */
};

/**
 * struct snap_volume - a pair primary + diff, live as a dm device
 *
 * Shared by all tables of the dm device that name the same pair (a table may be loaded again while the old one is live): each table holds
 * a reference, each virtual volume one more. When the last table goes the volume is dead: it is unlisted, writes are drained, the store is
 * detached; virtual volumes that are left answer EIO.
 */
struct snap_volume {
	struct kref ref;
	struct list_head list;		/* in snap_volumes, under snap_volumes_lock */
	unsigned int tables;		/* tables that hold it, under snap_volumes_lock */
	bool attached;			/* resumed once: the store is in use, generation operations are possible */
	bool dead;			/* set under control: whoever takes control looks at it before anything else */
	u64 position;			/* in attach order, for snap_volume_next() */
	char name[SNAPDIFF_NAME_MAX + 1];	/* of the dm device, when it was last looked at: snap_volume_rename() */
	u8 uuid[SNAPDIFF_UUID_SIZE];
	struct mapped_device *md;
	struct dm_table *live;		/* the table resumed last, for events; under volume.c's live_lock */
	struct dm_dev *primary;		/* dm shares it between the tables of one device: valid while tables > 0 */
	struct dm_dev *diff;
	struct block_device *primary_bdev;
	struct block_device *diff_bdev;
	sector_t size;			/* sectors of the primary */
	unsigned int chunk_sectors;	/* power of two */
	unsigned int chunk_shift;	/* log2(chunk_sectors) */
	u8 on_full;			/* enum snapdiff_on_full */
	u64 memory;			/* bytes that the volume may have in the kernel; shared out where it is opened */
	bool accept_changed;		/* the next attach may give the generations up; under control */
	bool trust_primary;		/* the next attach makes no generation suspect; the same */
	bool overtaken;			/* the primary was written after the store had failed */
	struct mutex control;		/* one generation operation at a time */
	struct snap_store *store;
	struct snap_gate *gate;
	struct snap_bits *bits;
	struct snap_cow *cow;
	struct list_head virts;		/* under virt.c's lock; initialised with the volume */
	struct snap_space space;
	struct snap_counters __percpu *counters;
};

/* A volume that is gone (or not yet resumed) takes no generation operations; call with control held. */
static inline bool snap_volume_usable(const struct snap_volume *vol)
{
	return vol->attached && !vol->dead;
}

#define snap_count(vol, c)	this_cpu_inc((vol)->counters->n[c])
#define snap_count_add(vol, c, x)	this_cpu_add((vol)->counters->n[c], x)
u64 snap_counter_read(struct snap_volume *vol, enum snap_counter c);

/* ---- target.c -------------------------------------------------------------------------------- */
extern struct mutex snap_volumes_lock;
extern struct list_head snap_volumes;
/** snap_volume_find() - by dm name; a reference, or NULL. May block. */
struct snap_volume *snap_volume_find(const char *name);
/** snap_volume_next() - iterate in attach order: the volume with position > *pos, referenced; sets *pos. NULL at the end. May block. */
struct snap_volume *snap_volume_next(u64 *pos);
void snap_volume_get(struct snap_volume *vol);
/** snap_volume_rename() - vol->name becomes the dm device's name of now. @vol is not dead. May block, not for I/O. */
void snap_volume_rename(struct snap_volume *vol);
void snap_volume_put(struct snap_volume *vol);
/**
 * snap_volume_grow_diff() - the store takes what the differential volume has become larger by; with control held. May block.
 * 0, also when it has the same size; -EINVAL: it is smaller; -EIO, -ENOSPC, -ENOMEM, with the text in @extack.
 */
int snap_volume_grow_diff(struct snap_volume *vol, struct netlink_ext_ack *extack);
/** snap_target_event() - dm_table_event() of the volume's live table. May sleep. Nothing when @vol is dead. */
void snap_target_event(struct snap_volume *vol);
int snap_target_init(void);
void snap_target_exit(void);

/* ---- gate.c ---------------------------------------------------------------------------------- */
/*
 * Every write enters before its bits are tested and leaves when the primary has completed it. snap_gate_close() returns when none is
 * inside any more; writes that come meanwhile are kept and sent again by snap_gate_open(). Only one closer at a time (control).
 */
struct snap_gate *snap_gate_alloc(void (*resubmit)(void *ctx, struct bio_list *bios), void *ctx);
void snap_gate_free(struct snap_gate *gate);
bool snap_gate_enter(struct snap_gate *gate, struct bio *bio);	/* [any context] false: the gate keeps the bio */
void snap_gate_leave(struct snap_gate *gate);			/* [any context] */
int snap_gate_close(struct snap_gate *gate);			/* blocks until drained; killable: -EINTR and open again */
void snap_gate_open(struct snap_gate *gate);

/* ---- store.c: the core behind one mutex, in the module's words ---------------------------------- */
struct snap_gen {		/* mirrors the core's descriptor */
	u32 number;
	u8 state;		/* enum snapdiff_gen_state */
	u32 flags;		/* SNAPDIFF_GEN_F_* without ACTIVE */
	u64 created_ns;
	u64 size;		/* bytes */
	u64 changed;		/* bytes, upper bound */
	u8 uuid[SNAPDIFF_UUID_SIZE];
	char label[SNAPDIFF_LABEL_MAX + 1];
};

/*
 * For threads that others wait for when memory is short, and for who holds what such a thread needs: nothing waits for reclaim (which may wait for them), and small things may
 * come from the reserves. What is large or many has a pool, or asks with __GFP_NOMEMALLOC. Nests.
 */
static inline unsigned int snap_memalloc_save(void)
{
	return memalloc_noio_save() | memalloc_noreclaim_save();
}

static inline void snap_memalloc_restore(unsigned int flags)
{
	memalloc_noreclaim_restore(flags & PF_MEMALLOC);
	memalloc_noio_restore(flags & PF_MEMALLOC_NOIO);
}

/* Can a live generation be so large? A volume that shrinks loses all it has: only a forged descriptor can. Its size goes no further than this. */
static inline bool snap_gen_fits(const struct snap_volume *vol, const struct snap_gen *gen)
{
	return gen->size >> SECTOR_SHIFT <= READ_ONCE(vol->size);
}

struct snap_summary { u32 highest, newest_live, newest_kept; };

enum snap_where_kind { SNAP_NONE, SNAP_DATA, SNAP_ZERO, SNAP_BAD };
struct snap_rec {
	enum snap_where_kind kind;
	u32 crc;		/* of the whole chunk */
	sector_t sector;	/* DATA: on the diff */
};

struct snap_store_info {	/* for STATS and STATUS */
	u8 uuid[SNAPDIFF_UUID_SIZE];
	u32 chunk_size;
	u64 primary_sectors;
	bool was_clean;
	bool failed;
	u64 diff_size, diff_free, diff_reserved, journal_size, journal_used;	/* bytes */
	u64 records_new, records_run, txid, meta_written, journal_written, checkpoints, merges;
	u32 nr_runs, nr_gens;
	u64 memory, memory_max;		/* bytes of kernel memory: now, and what it is kept to */
};

void snap_store_info(struct snap_store *s, struct snap_store_info *info);	/* may block */
bool snap_store_failed(struct snap_store *s);					/* any context */
void snap_store_summary(struct snap_store *s, struct snap_summary *sum);	/* any context: a cached copy under a seqcount or READ_ONCE */
int snap_store_gen_find(struct snap_store *s, u32 number, struct snap_gen *gen);	/* may block; -ENOENT */
int snap_store_gen_next(struct snap_store *s, u32 from, struct snap_gen *gen);		/* may block; -ENOENT */

/*
 * Generation changes as durable commits; they go through the copy path's ordered queue, block until durable, and return 0 or -errno.
 * For put of a new generation (number == highest + 1) the gate is closed by the caller. put and del are called with vol->control held.
 * lose may be called without it (see snap_gen_make_room()): these three are serialised among themselves, and a put that would bring a lost
 * generation back to life is refused with -EIO. Not to be called by the copy worker or the background thread themselves.
 */
int snap_store_put_gen(struct snap_volume *vol, const struct snap_gen *gen);
int snap_store_del_gens(struct snap_volume *vol, u32 first, u32 last);
int snap_store_lose_gens(struct snap_volume *vol, u32 first, u32 last, bool changes_unknown);

/*
 * Reading a generation. A view is a referenced immutable version of the table; while it is held, blocks of the diff that it refers to are not used again, so hold it
 * only as long as the diff is being read.
 */
struct snap_view;
struct snap_view *snap_view_get(struct snap_store *s);		/* any context; never NULL */
void snap_view_put(struct snap_view *view);			/* any context */
u64 snap_view_number(struct snap_view *view);			/* any context; for snap_view_look_again() */
/* May block. recs[i] for chunk first + i. Fails with -EIO when the store has failed or gen is lost (checked after the lookup). */
int snap_view_lookup(struct snap_store *s, struct snap_view *view, u64 first, u32 nr, u32 gen, struct snap_rec *recs);
/*
 * Look again after reading the primary: sets bit i of @again for each chunk that has got a record >= @gen since the view of that number was taken (so that it must be
 * read from the diff, with a fresh view). That view need not be held any more. May block. -EIO as above.
 */
int snap_view_look_again(struct snap_store *s, u64 number, u64 first, u32 nr, u32 gen, unsigned long *again);
/* Is generation @gen readable (live, store not failed)? Any context, cheap. */
bool snap_store_gen_readable(struct snap_store *s, u32 gen);
/*
 * Extents in bytes for netlink; *pos and end in bytes, chunk-aligned or the end of the generation. Number filled or -errno. May block. They come in slices: with 0 the caller
 * goes on until *pos is at the end.
 */
int snap_store_map(struct snap_volume *vol, u32 gen, u64 *pos, u64 end, struct snapdiff_extent *out, u32 max);
int snap_store_changes(struct snap_volume *vol, u32 g1, u32 g2_or_now, u64 *pos, u64 end, struct snapdiff_extent *out, u32 max);

struct snap_room { u64 usable, room, coming; };	/* bytes: what data could have; what it can have now; what reclaiming will give back, about */
void snap_store_room(struct snap_store *s, struct snap_room *out);	/* may block; all 0 when the store is gone */
struct snap_gain {
	u32 gen;		/* in: a live generation */
	bool keep;		/* in: it will not be given up */
	u64 alone;		/* copies that only it needs */
	u64 shared;		/* copies that it and younger ones need, but none with @keep */
};
/* Who needs the copies? @g: all live generations, ascending; *seen: copies that were looked at, all or a sample. May block long. 0 or -errno */
int snap_store_gain(struct snap_volume *vol, struct snap_gain *g, u32 nr, u64 *seen);

/* At unload. */
void snap_store_exit(void);

/* ---- cow.c ----------------------------------------------------------------------------------- */
/* Wait until no copy is in flight (gate closed, or dead). */
void snap_cow_drain(struct snap_cow *cow);

/* ---- generation.c, full.c ---------------------------------------------------------------------- */
#define SNAP_CUT_MAX	64		/* volumes that can be cut at one instant */
struct snap_create_req {
	struct snap_volume **vols;
	unsigned int nr;
	const char *label;		/* may be NULL */
	int freeze;			/* 0 no, 1 yes, -1 when mounted */
	struct netlink_ext_ack *extack;	/* may be NULL */
	struct snap_gen *out;		/* nr */
};
int snap_gen_init(void);
void snap_gen_exit(void);
int snap_gen_create(struct snap_create_req *req);
int snap_gen_delete(struct snap_volume *vol, u32 first, u32 last, struct netlink_ext_ack *extack);
int snap_gen_bookmark(struct snap_volume *vol, u32 gen, struct netlink_ext_ack *extack);
int snap_gen_pin(struct snap_volume *vol, u32 gen, bool pinned, struct netlink_ext_ack *extack);
int snap_gen_label(struct snap_volume *vol, u32 gen, const char *label, struct netlink_ext_ack *extack);
/*
 * The diff has no room for a copy. Called WITHOUT vol->control, from a work item of its own, when sd_group_add_items() said -ENOSPC and the background thread found
 * nothing to reclaim. It must not wait for vol->control: who cuts a generation holds it while he waits at the gate for the very write that
 * waits for room. Gives up generations according to vol->on_full (durably) and returns 0 when the copy path shall look at the summary again and retry, -EAGAIN when reclaiming is under way and it shall
 * wait (bounded: the caller counts), never anything that makes the primary's write fail.
 */
int snap_gen_make_room(struct snap_volume *vol, bool last_resort);
/* Watermarks: called from the same work item after background steps and every second while copies are made. May block, but not for vol->control. */
void snap_gen_check_space(struct snap_volume *vol);

/* ---- virt.c ---------------------------------------------------------------------------------- */
int snap_virt_init(void);
void snap_virt_exit(void);
int snap_virt_activate(struct snap_volume *vol, u32 gen, bool partscan, u32 *index, struct netlink_ext_ack *extack);
int snap_virt_deactivate(struct snap_volume *vol, u32 gen, struct netlink_ext_ack *extack);	/* -EBUSY when open, -ENOENT */
int snap_virt_deactivate_index(u32 index, struct netlink_ext_ack *extack);
/* Index of an active generation's disk or -ENOENT. May block. */
int snap_virt_index(struct snap_volume *vol, u32 gen);
struct snap_virt_info { u32 index; u32 gen; u32 openers; char volume[SNAPDIFF_NAME_MAX + 1]; };
int snap_virt_next(u32 from_index, struct snap_virt_info *info);	/* -ENOENT at the end */
/* The volume is going away: disks of it answer EIO from now on, in-flight reads have ended when it returns. */
void snap_virt_volume_dead(struct snap_volume *vol);

/* ---- netlink.c, event.c ------------------------------------------------------------------------ */
/* Formats the extended-ack text of a refusal; it stays valid until the request has been answered. @extack may be NULL. */
__printf(2, 3) void snap_refuse(struct netlink_ext_ack *extack, const char *fmt, ...);
/* Changes with every event that changes the set of volumes, generations or virtual volumes; never 0. Any context. */
unsigned int snap_event_seq(void);
int snap_netlink_init(void);
void snap_netlink_exit(void);
/* Any context that may sleep. gen 0: none; err: positive errno or 0; text may be NULL. Also raises the dm event and a uevent of the dm device. */
void snap_event(struct snap_volume *vol, enum snapdiff_event type, u32 gen, int err, const char *text);
/* Builds the netlink message (netlink.c). */
void snap_netlink_event(struct snap_volume *vol, enum snapdiff_event type, u32 gen, int err, const char *text);

#endif
