/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What virt.c (the disks) and virt_read.c (how a read is served) share.
 */
#ifndef SNAPDIFF_VIRT_H
#define SNAPDIFF_VIRT_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/workqueue.h>
#include "snapdiff.h"

/*
 * A larger bio is split (or one larger than a chunk). So a large read is served by several slots: its checksums are computed by several processors, and on what is still in
 * their caches, while other parts of it are being read.
 */
#define VIRT_BIO_SECTORS	512u
#define VIRT_BIO_CHUNKS		(VIRT_BIO_SECTORS / 8 + 1)	/* of 4 KiB, the smallest, when it starts inside one */

/* What is read for a bio from one of the devices. */
struct snap_virt_reads {
	atomic_t pending;
	blk_status_t status;
	struct completion done;
};

/* What serves one bio at a time. */
struct snap_virt_slot {
	struct work_struct work;
	struct list_head idle;		/* in snap_virt.idle while there is nothing to do */
	struct snap_virt *virt;
	void *buffer;			/* one chunk, vmalloc */

	/* The bio being served; only the slot's work touches these, and diff and primary the ends of its reads. */
	struct bio *bio;
	u64 first;			/* chunk */
	u32 nr;				/* chunks */
	struct snap_virt_reads diff, primary;
	DECLARE_BITMAP(todo, VIRT_BIO_CHUNKS);
	DECLARE_BITMAP(again, VIRT_BIO_CHUNKS);
	struct snap_rec recs[VIRT_BIO_CHUNKS];
};

struct snap_virt {
	struct list_head list;		/* in vol->virts, under snap_virt_lock */
	u32 index;
	u32 gen;
	struct snap_volume *vol;
	struct gendisk *disk;
	struct snap_bdev dm;		/* the dm device, open */
	struct workqueue_struct *wq;

	unsigned int openers;		/* under snap_virt_lock */
	bool closing;			/* the same: no more opens */

	spinlock_t lock;		/* irq-safe: the four below */
	struct bio_list bios;
	struct list_head idle;		/* slots */
	unsigned int busy;		/* slots not idle */
	bool dead;

	unsigned int nr_slots;
	struct snap_virt_slot *slots;
};

extern struct bio_set snap_virt_bios;

/* Serve slot->bio; its pages have the right bytes when this returns 0. Blocks. The volume is not dead and cannot become so meanwhile. */
int snap_virt_read(struct snap_virt_slot *slot);

#endif
