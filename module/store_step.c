// SPDX-License-Identifier: GPL-2.0
/*
 * The store's background thread: checkpoints and merges, one bounded step after the other.
 *
 *	work	what happens
 *	NONE	sleep until kicked; look once a second
 *	IDLE	steps with pauses: reclaiming after a delete must not take the device from those who use it
 *	SOON	steps
 *	NOW	steps; writers wait, the copy worker is kicked after each
 *
 * When the copy worker finds no space it asks for reclaiming (urgent): everything there is to do is done without pauses, then one checkpoint, because blocks
 * that have been freed can be used only after the transaction that freed them. If there is still no space then (exhausted), generations must be given up.
 *
 * A step's long halves run without the store lock: commits and lookups go on meanwhile.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include "store_internal.h"

#define IDLE_PAUSE	(HZ / 20)
#define BUSY_PAUSE	(HZ / 100 ?: 1)

/** snap_store_kick() - [any context] there may be background work */
void snap_store_kick(struct snap_store *s)
{
	if (!test_and_set_bit(0, &s->kicked))
		wake_up(&s->wait);
}

/** snap_store_reclaim() - [copy worker] writers wait for space or for the journal */
enum snap_reclaim snap_store_reclaim(struct snap_store *s)
{
	unsigned int noio = snap_store_lock(s);
	bool exhausted = s->exhausted;

	if (!exhausted)
		s->urgent = true;
	snap_store_unlock(s, noio);
	snap_store_kick(s);	/* also then: the journal may be full */
	return exhausted ? SNAP_RECLAIM_NOTHING : SNAP_RECLAIM_BUSY;
}

/* Begin, run, prepare, write, end: the lock is held for the odd ones only. stepping is held. */
static int one_step(struct snap_store *s, u32 flags)
{
	struct sd_step *step;
	unsigned int noio;
	struct sd_info info;
	int err;

	noio = snap_store_lock(s);
	err = sd_step_begin(s->core, flags, &step);
	snap_store_unlock(s, noio);
	if (err)
		return err;
	err = sd_step_run(step);
	if (!err) {
		noio = snap_store_lock(s);
		err = sd_step_prepare(step);
		snap_store_unlock(s, noio);
	}
	if (!err)
		err = sd_step_write(step);
	noio = snap_store_lock(s);
	err = sd_step_end(step, err);
	sd_info(s->core, &info);
	if (info.failed)
		__snap_store_failed(s);
	snap_store_unlock(s, noio);
	return err;
}

/**
 * snap_store_checkpoint() - everything in the journal goes into the table
 *
 * Holding s->stepping, no group is in flight. May block. Return: 0 or -errno.
 */
int snap_store_checkpoint(struct snap_store *s)
{
	unsigned int noio = memalloc_noio_save();
	unsigned int tries = 500;
	int err;

	while ((err = one_step(s, SD_STEP_CHECKPOINT)) == -EAGAIN && tries--)
		msleep(10);
	memalloc_noio_restore(noio);
	return err == -ENODATA ? 0 : err;
}

/**
 * snap_store_grow() - take what the differential volume has become larger by
 *
 * Under writes; May block. Return: 0, also when there is nothing to take; -EINVAL: it is smaller than its store; -ENOSPC: no room for the transaction;
 * -EIO: the store has failed; -ENOMEM.
 */
int snap_store_grow(struct snap_store *s)
{
	u64 blocks = bdev_nr_sectors(s->vol->diff_bdev) / SNAP_BLOCK_SECTORS;
	struct sd_info info;
	unsigned int noio;
	int err;

	mutex_lock(&s->stepping);
	noio = snap_store_lock(s);
	sd_info(s->core, &info);
	err = s->failed ? -EIO : blocks < info.nr_blocks ? -EINVAL : 0;
	if (!err)
		WRITE_ONCE(s->dev.nr_blocks, blocks);
	snap_store_unlock(s, noio);
	if (!err) {
		noio = memalloc_noio_save();
		err = one_step(s, SD_STEP_GROW);
		memalloc_noio_restore(noio);
	}
	mutex_unlock(&s->stepping);
	if (err)
		return err == -ENODATA ? 0 : err;
	noio = snap_store_lock(s);
	s->exhausted = false;
	snap_store_unlock(s, noio);
	snap_cow_kick(s->vol->cow);
	snap_cow_house(s->vol->cow, SNAP_HOUSE_SPACE);
	return 0;
}

static enum sd_work look(struct snap_store *s, bool *urgent)
{
	unsigned int noio = snap_store_lock(s);
	enum sd_work work = s->failed ? SD_WORK_NONE : sd_background_work(s->core);

	*urgent = s->urgent && !s->failed;
	snap_store_unlock(s, noio);
	return work;
}

/* All has been done that could give space back. */
static void set_exhausted(struct snap_store *s)
{
	unsigned int noio = snap_store_lock(s);

	s->urgent = false;
	s->exhausted = true;
	snap_store_unlock(s, noio);
	snap_cow_kick(s->vol->cow);
}

/* The superblock did not take "failed" yet: the generations would come back after a reboot. */
static void insist_on_failure(struct snap_store *s)
{
	unsigned int noio = snap_store_lock(s);

	if (s->failed && !s->fail_durable)
		s->fail_durable = sd_store_fail(s->core) == 0;
	snap_store_unlock(s, noio);
}

static bool kicked(struct snap_store *s)
{
	return test_and_clear_bit(0, &s->kicked) || kthread_should_stop();
}

static void take_a_break(struct snap_store *s, long jiffies_to_wait)
{
	wait_event_idle_timeout(s->wait, kicked(s), jiffies_to_wait);
}

static void nothing_to_do(struct snap_store *s)
{
	take_a_break(s, HZ);
	insist_on_failure(s);
	if (xchg(&s->active, false))
		snap_cow_house(s->vol->cow, SNAP_HOUSE_SPACE);
}

/* Return: has the urgent request been served? */
static bool work_once(struct snap_store *s, enum sd_work work, bool urgent, bool *forced)
{
	int err;

	mutex_lock(&s->stepping);
	err = one_step(s, work == SD_WORK_NONE ? SD_STEP_CHECKPOINT : 0);
	mutex_unlock(&s->stepping);
	if (work == SD_WORK_NONE)
		*forced = true;
	if (snap_store_failed(s)) {
		snap_cow_kick(s->vol->cow);
		return true;
	}
	switch (err) {
	case 0:
		if (urgent || work == SD_WORK_NOW)
			snap_cow_kick(s->vol->cow);
		snap_cow_house(s->vol->cow, SNAP_HOUSE_SPACE);
		return false;
	case -EAGAIN:		/* a reader holds an old version */
		take_a_break(s, BUSY_PAUSE);
		return false;
	case -ENODATA:
		*forced = true;
		return work == SD_WORK_NONE;
	case -EUCLEAN:		/* a merge met damage: its runs are left alone from now on, others may give space back */
	case -EIO:
		take_a_break(s, BUSY_PAUSE);
		return false;
	default:		/* no memory, or no space for the output of a merge */
		take_a_break(s, IDLE_PAUSE);
		return urgent;
	}
}

static int background(void *data)
{
	struct snap_store *s = data;
	unsigned int noio = snap_memalloc_save();
	bool forced = false;

	while (!kthread_should_stop()) {
		bool urgent;
		enum sd_work work = look(s, &urgent);

		if (!urgent)
			forced = false;
		if (work == SD_WORK_NONE && !urgent) {
			nothing_to_do(s);
			continue;
		}
		if (work == SD_WORK_NONE && forced) {
			set_exhausted(s);
			forced = false;
			continue;
		}
		if (work == SD_WORK_IDLE && !urgent)
			take_a_break(s, IDLE_PAUSE);
		if (work_once(s, work, urgent, &forced) && urgent) {
			set_exhausted(s);
			forced = false;
		}
	}
	snap_memalloc_restore(noio);
	return 0;
}

/** snap_store_thread() - create the background thread; snap_store_start() lets it run. May block */
int snap_store_thread(struct snap_store *s)
{
	struct task_struct *t = kthread_create(background, s, "snapdiff_bg/%s", s->vol->name);

	if (IS_ERR(t))
		return PTR_ERR(t);
	s->thread = t;
	return 0;
}

/** snap_store_start() - let it run */
void snap_store_start(struct snap_store *s)
{
	wake_up_process(s->thread);
}

/** snap_store_stop() - end the background thread; a step under way is completed */
void snap_store_stop(struct snap_store *s)
{
	if (s->thread)
		kthread_stop(s->thread);
	s->thread = NULL;
}
