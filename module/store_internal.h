/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by store.c (life, lookups), store_dev.c (the core's device), store_group.c (commits) and store_step.c (background thread),
 * store_space.c (room): the only files that include core headers.
 */
#ifndef SNAPDIFF_STORE_INTERNAL_H
#define SNAPDIFF_STORE_INTERNAL_H

#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/xarray.h>
#include "core/core.h"
#include "cow.h"

struct dm_bufio_client;
struct dm_io_client;

#define SNAP_BLOCK_SECTORS	(SD_BLOCK_SIZE >> SECTOR_SHIFT)

struct snap_store {
	struct snap_volume *vol;
	struct sd_store *core;		/* NULL once closed; changes under @alive */
	struct rw_semaphore alive;	/* held for reading by calls of the control path */
	struct mutex lock;		/* the core's [M] calls; inside snap_memalloc_save() */
	struct mutex changes;		/* one change of the generations at a time; outside of @lock */
	struct mutex stepping;		/* one step of the core's background work at a time; outside of @lock, inside @changes */
	spinlock_t super_lock;		/* irq; leaf: who writes the core's superblock */
	unsigned long super_flags;	/* of its holder */

	struct sd_dev dev;
	struct dm_bufio_client *bufio;
	struct {			/* blocks in the cache, oldest first: store_dev.c */
		spinlock_t lock;	/* leaf */
		u64 *block;
		unsigned int head, nr, max;
	} ring;
	struct dm_io_client *io;

	seqlock_t sum_lock;
	struct snap_summary sum;	/* written under @lock and sum_lock */
	struct xarray gens;		/* number -> enum snapdiff_gen_state; written under @lock */
	bool failed;			/* never goes back; written under @lock */
	bool fail_durable;		/* under @lock */
	bool closing;			/* no more changes; under @changes */

	/* background thread, store_step.c */
	struct task_struct *thread;
	wait_queue_head_t wait;
	unsigned long kicked;
	bool urgent;			/* writers wait; under @lock */
	bool exhausted;			/* nothing to reclaim was found; under @lock */
	bool active;			/* commits since the watermarks were looked at */
	u64 copied;			/* blocks, the same; under @lock */
	unsigned long progress;		/* I/O of the background thread that has ended; written by it */
	unsigned long ration_after;	/* jiffies; under @lock */
};

/* The core's lock, and no allocation below it that waits for reclaim: the copy worker takes it, and reclaim may wait for that. */
static inline unsigned int snap_store_lock(struct snap_store *s)
{
	mutex_lock(&s->lock);
	return snap_memalloc_save();
}

static inline void snap_store_unlock(struct snap_store *s, unsigned int noio)
{
	snap_memalloc_restore(noio);
	mutex_unlock(&s->lock);
}

/* store_dev.c */
int snap_store_dev_open(struct snap_store *s);
void snap_store_dev_close(struct snap_store *s);
u64 snap_store_dev_memory(struct snap_store *s);

/* store.c; the lock is held */
void __snap_store_refresh(struct snap_store *s);
void __snap_store_resync(struct snap_store *s, u32 first, u32 last);
void __snap_store_failed(struct snap_store *s);

/* store_space.c; the lock is held */
u32 __snap_store_ration(struct snap_store *s, u32 nr);

/* store_step.c */
int snap_store_thread(struct snap_store *s);
int snap_store_checkpoint(struct snap_store *s);

#endif
