// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/snapvirtN: a generation as a read-only disk.
 *
 * What a read does
 *   submit_bio only queues: it may run inside somebody else's submit_bio and must not wait. A *slot* (a work item with the scratch memory of one
 *   read) takes bios from the queue and serves each synchronously, in rounds:
 *
 *     take a view ─ look up all chunks of the bio ─┬─ ZERO   fill
 *                                                  ├─ BAD    the read fails
 *                                                  ├─ DATA   read from the diff, compare the checksum of every chunk
 *                                                  └─ NONE   read from the primary, then LOOK AGAIN
 *     chunks that got a record while the primary was read are read again in the next round, from the diff, with a fresh view.
 *
 * Why no lock against writers is needed: a record is visible before the write that destroys the old content is issued. So if the bytes that came from
 * the primary could have been new ones, the look-again that follows the read sees the record. A chunk moves from NONE to a record
 * once, and an active generation cannot be deleted, so the rounds end; their limit is only a guard. The generation may be lost meanwhile: whether it is
 * readable is asked after all data is in the bio, and the bio is completed only then. The view is held until the data of the diff has been
 * read, so that its blocks are not used again.
 *
 * Who holds what
 *   A disk holds: the volume (memory), the dm device open (so that it cannot be removed), the module. The store and the block devices belong to the
 *   live volume: they are used only by a busy slot, and snap_virt_volume_dead() waits until no slot is busy. After that every bio is EIO.
 *
 * Locks: volume control > disk->open_mutex (block layer) > snap_virt_lock > snap_virt.lock. Nothing waits for I/O under snap_virt_lock, and
 * nothing allocates under it with reclaim I/O allowed: the copy path takes it, too (snap_virt_index()).
 */
#include <linux/module.h>
#include <linux/blkdev.h>
#include <linux/bio.h>
#include <linux/crc32c.h>
#include <linux/idr.h>
#include <linux/sched/mm.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include "snapdiff.h"

#define DM_MSG_PREFIX	SNAP_NAME

#define VIRT_NAME		"snapvirt"
#define VIRT_BIO_SECTORS	2048u	/* a larger bio is split */
#define VIRT_BIO_CHUNKS		(VIRT_BIO_SECTORS / 8 + 1)	/* of 4 KiB, the smallest, when it starts inside one */
#define VIRT_MAX_SLOTS		16u
#define VIRT_BUFFER_BYTES	(8u << 20)	/* for chunk buffers of one disk, at most */
#define VIRT_ROUNDS		16

/* What serves one bio at a time. */
struct snap_virt_slot {
	struct work_struct work;
	struct list_head idle;		/* in snap_virt.idle while there is nothing to do */
	struct snap_virt *virt;
	void *buffer;			/* one chunk, vmalloc */

	/* The bio being served; only the slot's work touches these, and (pending, status) the ends of its reads. */
	struct bio *bio;
	u64 first;			/* chunk */
	u32 nr;				/* chunks */
	atomic_t pending;
	blk_status_t status;
	struct completion done;
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

static DEFINE_MUTEX(snap_virt_lock);	/* the two below, vol->virts, openers, closing */
static DEFINE_IDR(snap_virts);		/* index -> disk; NULL while it is being made or unmade */
static DECLARE_WAIT_QUEUE_HEAD(snap_virt_idle);	/* a disk has no busy slot any more */
static struct bio_set snap_virt_bios;
static int snap_virt_major;

/* ---- pieces of a bio ----------------------------------------------------------------------------- */

static struct bvec_iter piece_iter(struct bio *bio, unsigned int sector, unsigned int sectors)
{
	struct bvec_iter iter = bio->bi_iter;

	bio_advance_iter(bio, &iter, sector << SECTOR_SHIFT);
	iter.bi_size = sectors << SECTOR_SHIFT;
	return iter;
}

static void piece_zero(struct bio *bio, unsigned int sector, unsigned int sectors)
{
	struct bvec_iter iter, start = piece_iter(bio, sector, sectors);
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, start)
		memzero_bvec(&bv);
}

static void piece_copy(struct bio *bio, unsigned int sector, unsigned int sectors, const char *from)
{
	struct bvec_iter iter, start = piece_iter(bio, sector, sectors);
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_to_bvec(&bv, from);
		from += bv.bv_len;
	}
}

static u32 piece_crc(struct bio *bio, unsigned int sector, unsigned int sectors)
{
	struct bvec_iter iter, start = piece_iter(bio, sector, sectors);
	struct bio_vec bv;
	u32 crc = ~0u;

	__bio_for_each_segment(bv, bio, iter, start) {
		void *p = bvec_kmap_local(&bv);

		crc = crc32c(crc, p, bv.bv_len);
		kunmap_local(p);
	}
	return crc;
}

/* ---- one round of a read ---------------------------------------------------------------------------- */

/* A stretch of chunks [i, i + nr) of the slot's bio, and the sectors of the bio they have. */
struct piece {
	unsigned int i, nr;
	sector_t start;			/* on the virtual volume */
	unsigned int sector, sectors;	/* in the bio */
	bool whole;			/* the bio has all of the chunks */
};

static struct piece piece_of(struct snap_virt_slot *slot, unsigned int i, unsigned int nr)
{
	unsigned int shift = slot->virt->vol->chunk_shift;
	sector_t bio_start = slot->bio->bi_iter.bi_sector;
	sector_t bio_end = bio_end_sector(slot->bio);
	sector_t start = (slot->first + i) << shift;
	sector_t end = (slot->first + i + nr) << shift;
	struct piece p = { .i = i, .nr = nr };

	p.whole = start >= bio_start && end <= bio_end;
	p.start = max(start, bio_start);
	p.sector = p.start - bio_start;
	p.sectors = min(end, bio_end) - p.start;
	return p;
}

/* The next stretch at or behind @i that can be served with one read; false at the end. */
static bool next_piece(struct snap_virt_slot *slot, unsigned int i, struct piece *p)
{
	const struct snap_rec *r;
	unsigned int n = 1;

	i = find_next_bit(slot->todo, slot->nr, i);
	if (i >= slot->nr)
		return false;
	r = &slot->recs[i];
	*p = piece_of(slot, i, 1);
	if (r->kind == SNAP_DATA && !p->whole)
		return true;
	for (; i + n < slot->nr && test_bit(i + n, slot->todo) && r[n].kind == r->kind; n++) {
		if (r->kind != SNAP_DATA)
			continue;
		if (r[n].sector != r[n - 1].sector + slot->virt->vol->chunk_sectors || !piece_of(slot, i + n, 1).whole)
			break;
	}
	*p = piece_of(slot, i, n);
	return true;
}

static void slot_end(struct snap_virt_slot *slot)
{
	if (atomic_dec_and_test(&slot->pending))
		complete(&slot->done);
}

static void slot_read_end(struct bio *clone)
{
	struct snap_virt_slot *slot = clone->bi_private;

	if (clone->bi_status)
		WRITE_ONCE(slot->status, clone->bi_status);	/* any one of them will do */
	bio_put(clone);
	slot_end(slot);
}

/* What a read of ours may take over from the bio it serves: never FUA, PREFLUSH, NOWAIT, POLLED. */
static blk_opf_t read_opf(const struct bio *bio)
{
	return REQ_OP_READ | (bio->bi_opf & (REQ_SYNC | REQ_META | REQ_PRIO));
}

static void slot_read(struct snap_virt_slot *slot, struct block_device *bdev, sector_t from, const struct piece *p)
{
	struct bio *clone = bio_alloc_clone(bdev, slot->bio, GFP_NOIO, &snap_virt_bios);

	bio_trim(clone, p->sector, p->sectors);
	clone->bi_iter.bi_sector = from;
	clone->bi_opf = read_opf(slot->bio);
	clone->bi_private = slot;
	clone->bi_end_io = slot_read_end;
	atomic_inc(&slot->pending);
	submit_bio_noacct(clone);
}

/* Start everything that goes straight into the bio's pages. */
static int slot_issue(struct snap_virt_slot *slot)
{
	struct snap_volume *vol = slot->virt->vol;
	struct piece p;
	unsigned int i;

	for (i = 0; next_piece(slot, i, &p); i = p.i + p.nr) {
		switch (slot->recs[p.i].kind) {
		case SNAP_BAD:
			return -EIO;
		case SNAP_ZERO:
			piece_zero(slot->bio, p.sector, p.sectors);
			break;
		case SNAP_DATA:
			if (p.whole)
				slot_read(slot, vol->diff_bdev, slot->recs[p.i].sector, &p);
			break;
		case SNAP_NONE:
			if (p.start + p.sectors > vol->size)	/* the primary has shrunk */
				return -EIO;
			slot_read(slot, vol->primary_bdev, p.start, &p);
			break;
		}
	}
	return 0;
}

static int chunk_damaged(struct snap_virt_slot *slot, unsigned int i, u32 crc)
{
	const struct snap_rec *r = &slot->recs[i];

	if (likely(crc == r->crc))
		return 0;
	DMERR_LIMIT("%s@%u: chunk %llu at sector %llu of the diff is damaged: checksum %08x, should be %08x", slot->virt->vol->name,
		    slot->virt->gen, slot->first + i, (u64)r->sector, crc, r->crc);
	return -EIO;
}

/* Part of a chunk: the whole chunk into the slot's buffer, so that it can be checked. */
static int slot_read_part(struct snap_virt_slot *slot, const struct piece *p)
{
	struct snap_volume *vol = slot->virt->vol;
	unsigned int bytes = vol->chunk_sectors << SECTOR_SHIFT, done, len;
	sector_t chunk_start = (slot->first + p->i) << vol->chunk_shift;
	struct bio *bio;
	int err;

	bio = bio_alloc_bioset(vol->diff_bdev, DIV_ROUND_UP(bytes, PAGE_SIZE), read_opf(slot->bio), GFP_NOIO, &snap_virt_bios);
	bio->bi_iter.bi_sector = slot->recs[p->i].sector;
	for (done = 0; done < bytes; done += len) {
		len = min_t(unsigned int, bytes - done, PAGE_SIZE);
		__bio_add_page(bio, vmalloc_to_page(slot->buffer + done), len, 0);
	}
	err = submit_bio_wait(bio);
	bio_put(bio);
	if (err)
		return err;
	invalidate_kernel_vmap_range(slot->buffer, bytes);
	err = chunk_damaged(slot, p->i, crc32c(~0u, slot->buffer, bytes));
	if (!err)
		piece_copy(slot->bio, p->sector, p->sectors, slot->buffer + ((p->start - chunk_start) << SECTOR_SHIFT));
	return err;
}

/* The reads have ended: check what came from the diff, get the parts of chunks. */
static int slot_check(struct snap_virt_slot *slot)
{
	unsigned int i, k;
	struct piece p, c;
	int err = 0;

	for (i = 0; !err && next_piece(slot, i, &p); i = p.i + p.nr) {
		if (slot->recs[p.i].kind != SNAP_DATA)
			continue;
		if (!p.whole) {
			err = slot_read_part(slot, &p);
			continue;
		}
		for (k = p.i; !err && k < p.i + p.nr; k++) {
			c = piece_of(slot, k, 1);
			err = chunk_damaged(slot, k, piece_crc(slot->bio, c.sector, c.sectors));
		}
	}
	return err;
}

/* Leaves in todo what came from the primary and has moved since. */
static int slot_look_again(struct snap_virt_slot *slot, struct snap_view *view)
{
	struct snap_virt *v = slot->virt;
	unsigned int i;
	int err;

	for_each_set_bit(i, slot->todo, slot->nr)
		if (slot->recs[i].kind != SNAP_NONE)
			__clear_bit(i, slot->todo);
	if (bitmap_empty(slot->todo, slot->nr))
		return 0;
	bitmap_zero(slot->again, slot->nr);
	err = snap_view_look_again(v->vol->store, view, slot->first, slot->nr, v->gen, slot->again);
	bitmap_and(slot->todo, slot->todo, slot->again, slot->nr);
	return err;
}

static int slot_round(struct snap_virt_slot *slot)
{
	struct snap_virt *v = slot->virt;
	struct snap_view *view = snap_view_get(v->vol->store);
	struct blk_plug plug;
	int err;

	err = snap_view_lookup(v->vol->store, view, slot->first, slot->nr, v->gen, slot->recs);
	if (err)
		goto out;
	slot->status = BLK_STS_OK;
	atomic_set(&slot->pending, 1);
	reinit_completion(&slot->done);
	blk_start_plug(&plug);
	err = slot_issue(slot);
	blk_finish_plug(&plug);
	slot_end(slot);
	wait_for_completion_io(&slot->done);
	if (!err)
		err = blk_status_to_errno(READ_ONCE(slot->status));
	if (!err)
		err = slot_check(slot);
	if (!err)
		err = slot_look_again(slot, view);
out:
	snap_view_put(view);
	return err;
}

static int slot_serve(struct snap_virt_slot *slot)
{
	struct snap_virt *v = slot->virt;
	unsigned int shift = v->vol->chunk_shift;
	unsigned int round;
	int err = 0;

	slot->first = slot->bio->bi_iter.bi_sector >> shift;
	slot->nr = ((bio_end_sector(slot->bio) - 1) >> shift) - slot->first + 1;
	if (WARN_ON_ONCE(slot->nr > VIRT_BIO_CHUNKS))
		return -EIO;
	bitmap_fill(slot->todo, slot->nr);
	for (round = 0; !err && !bitmap_empty(slot->todo, slot->nr); round++)
		err = round < VIRT_ROUNDS ? slot_round(slot) : -EIO;
	if (!err && !snap_store_gen_readable(v->vol->store, v->gen))
		err = -EIO;
	return err;
}

/* ---- the queue ------------------------------------------------------------------------------------- */

/* The next bio, or NULL after the slot has become idle. */
static struct bio *slot_next(struct snap_virt_slot *slot, bool *dead)
{
	struct snap_virt *v = slot->virt;
	unsigned long flags;
	bool idle = false;
	struct bio *bio;

	spin_lock_irqsave(&v->lock, flags);
	bio = bio_list_pop(&v->bios);
	*dead = v->dead;
	if (!bio) {
		list_add(&slot->idle, &v->idle);
		idle = !--v->busy;
		if (idle)
			wake_up_all(&snap_virt_idle);	/* under the lock: the disk may be freed once it is released */
	}
	spin_unlock_irqrestore(&v->lock, flags);
	return bio;
}

static void slot_work(struct work_struct *work)
{
	struct snap_virt_slot *slot = container_of(work, struct snap_virt_slot, work);
	unsigned int noio = memalloc_noio_save();
	unsigned long start;
	struct bio *bio;
	bool dead;
	int err;

	while ((bio = slot_next(slot, &dead))) {
		if (dead) {
			bio_io_error(bio);
			continue;
		}
		slot->bio = bio;
		start = bio_start_io_acct(bio);
		err = slot_serve(slot);
		bio->bi_status = errno_to_blk_status(err);
		bio_end_io_acct(bio, start);
		bio_endio(bio);
		cond_resched();
	}
	memalloc_noio_restore(noio);
}

static void virt_submit_bio(struct bio *bio)
{
	struct snap_virt *v = bio->bi_bdev->bd_disk->private_data;
	struct snap_virt_slot *slot;
	unsigned long flags;

	if (bio_op(bio) != REQ_OP_READ) {	/* set_disk_ro() only warns */
		bio_io_error(bio);
		return;
	}
	bio = bio_split_to_limits(bio);
	if (!bio)
		return;
	if (!bio_sectors(bio)) {
		bio_endio(bio);
		return;
	}
	spin_lock_irqsave(&v->lock, flags);
	bio_list_add(&v->bios, bio);
	slot = list_first_entry_or_null(&v->idle, struct snap_virt_slot, idle);
	if (slot) {
		list_del_init(&slot->idle);
		v->busy++;
	}
	spin_unlock_irqrestore(&v->lock, flags);
	if (slot)
		queue_work(v->wq, &slot->work);
}

static bool virt_busy(struct snap_virt *v)
{
	unsigned long flags;
	bool busy;

	spin_lock_irqsave(&v->lock, flags);
	busy = v->busy;
	spin_unlock_irqrestore(&v->lock, flags);
	return busy;
}

static SNAP_DISK_OPEN(virt_open, disk, mode)
{
	struct snap_virt *v = SNAP_DISK_OPEN_DISK(disk)->private_data;
	int err = 0;

	if (mode & BLK_OPEN_WRITE)
		return -EROFS;
	mutex_lock(&snap_virt_lock);
	if (v->closing)
		err = -ENXIO;
	else
		v->openers++;
	mutex_unlock(&snap_virt_lock);
	return err;
}

static SNAP_DISK_RELEASE(virt_release, disk)
{
	struct snap_virt *v = disk->private_data;

	mutex_lock(&snap_virt_lock);
	v->openers--;
	mutex_unlock(&snap_virt_lock);
}

/* blockdev --setrw */
static int virt_set_read_only(struct block_device *bdev, bool ro)
{
	return ro ? 0 : -EROFS;
}

static const struct block_device_operations virt_ops = {
	.owner		= THIS_MODULE,
	.submit_bio	= virt_submit_bio,
	.open		= virt_open,
	.release	= virt_release,
	.set_read_only	= virt_set_read_only,
};

/* ---- making and unmaking a disk ---------------------------------------------------------------------- */

static void virt_free_slots(struct snap_virt *v)
{
	unsigned int i;

	for (i = 0; v->slots && i < v->nr_slots; i++)
		vfree(v->slots[i].buffer);
	kvfree(v->slots);
}

static int virt_alloc_slots(struct snap_virt *v)
{
	unsigned int bytes = v->vol->chunk_sectors << SECTOR_SHIFT, i;

	v->nr_slots = clamp(VIRT_BUFFER_BYTES / bytes, 4u, VIRT_MAX_SLOTS);
	v->slots = kvcalloc(v->nr_slots, sizeof(*v->slots), GFP_KERNEL);
	if (!v->slots)
		return -ENOMEM;
	for (i = 0; i < v->nr_slots; i++) {
		struct snap_virt_slot *slot = &v->slots[i];

		slot->virt = v;
		slot->buffer = vmalloc(bytes);
		if (!slot->buffer)
			return -ENOMEM;
		INIT_WORK(&slot->work, slot_work);
		init_completion(&slot->done);
		list_add_tail(&slot->idle, &v->idle);
	}
	return 0;
}

static int virt_alloc_index(struct snap_virt *v)
{
	unsigned int noio = memalloc_noio_save();	/* see the order of locks above */
	int index;

	mutex_lock(&snap_virt_lock);
	index = idr_alloc(&snap_virts, NULL, 0, 1 << MINORBITS, GFP_NOIO);
	mutex_unlock(&snap_virt_lock);
	memalloc_noio_restore(noio);
	if (index < 0)
		return index;
	v->index = index;
	return 0;
}

static void virt_free_index(struct snap_virt *v)
{
	mutex_lock(&snap_virt_lock);
	idr_remove(&snap_virts, v->index);
	mutex_unlock(&snap_virt_lock);
}

/* From now on it can be found. Fails when the volume has died meanwhile: snap_virt_volume_dead() would have missed it. */
static int virt_publish(struct snap_virt *v)
{
	int err = 0;

	mutex_lock(&snap_virt_lock);
	if (READ_ONCE(v->vol->dead)) {
		err = -ENODEV;
	} else {
		idr_replace(&snap_virts, v, v->index);
		list_add_tail(&v->list, &v->vol->virts);
	}
	mutex_unlock(&snap_virt_lock);
	return err;
}

static void virt_unpublish(struct snap_virt *v)
{
	mutex_lock(&snap_virt_lock);
	v->closing = true;
	idr_replace(&snap_virts, NULL, v->index);
	list_del(&v->list);
	mutex_unlock(&snap_virt_lock);
}

static int virt_alloc_disk(struct snap_virt *v, u64 bytes, bool partscan)
{
	struct snap_volume *vol = v->vol;
	struct gendisk *disk;

	disk = snap_alloc_disk(bdev_logical_block_size(vol->primary_bdev), bdev_physical_block_size(vol->primary_bdev),
			       VIRT_BIO_SECTORS);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	disk->major = snap_virt_major;
	disk->first_minor = v->index;
	disk->minors = 1;	/* partitions get extended numbers */
	disk->fops = &virt_ops;
	disk->private_data = v;
	if (!partscan)
		disk->flags |= GENHD_FL_NO_PART;
	snprintf(disk->disk_name, DISK_NAME_LEN, VIRT_NAME "%u", v->index);
	set_capacity(disk, bytes >> SECTOR_SHIFT);
	set_disk_ro(disk, true);
	v->disk = disk;
	return 0;
}

static struct snap_virt *virt_create(struct snap_volume *vol, const struct snap_gen *gen, bool partscan)
{
	struct snap_virt *v;
	int err;

	v = kzalloc(sizeof(*v), GFP_KERNEL);
	if (!v)
		return ERR_PTR(-ENOMEM);
	v->vol = vol;
	v->gen = gen->number;
	spin_lock_init(&v->lock);
	bio_list_init(&v->bios);
	INIT_LIST_HEAD(&v->idle);
	err = virt_alloc_slots(v);
	if (err)
		goto free_slots;
	err = virt_alloc_index(v);
	if (err)
		goto free_slots;
	err = -ENOMEM;
	v->wq = alloc_workqueue(VIRT_NAME "%u", WQ_UNBOUND | WQ_MEM_RECLAIM, v->nr_slots, v->index);
	if (!v->wq)
		goto free_index;
	err = snap_bdev_open(&v->dm, disk_devt(dm_disk(vol->md)), NULL);
	if (err)
		goto free_wq;
	err = virt_alloc_disk(v, gen->size, partscan);
	if (err)
		goto close_dm;
	err = virt_publish(v);
	if (err)
		goto put_disk;
	snap_volume_get(vol);
	__module_get(THIS_MODULE);	/* the caller is code of the module that holds one */
	err = add_disk(v->disk);
	if (err)
		goto unpublish;
	return v;

unpublish:
	virt_unpublish(v);
	snap_volume_put(vol);
	module_put(THIS_MODULE);
put_disk:
	put_disk(v->disk);
close_dm:
	snap_bdev_close(&v->dm);
free_wq:
	destroy_workqueue(v->wq);
free_index:
	virt_free_index(v);
free_slots:
	virt_free_slots(v);
	kfree(v);
	return ERR_PTR(err);
}

/*
 * Unreachable (closing is set, nobody has it open) → no more bios → free. After del_gendisk() no open can begin, and bios that page cache reads had
 * under way have ended when no slot is busy.
 */
static void virt_destroy(struct snap_virt *v)
{
	struct snap_volume *vol = v->vol;

	del_gendisk(v->disk);
	virt_unpublish(v);
	wait_event(snap_virt_idle, !virt_busy(v));
	destroy_workqueue(v->wq);
	put_disk(v->disk);
	snap_bdev_close(&v->dm);
	virt_free_index(v);
	virt_free_slots(v);
	kfree(v);
	snap_volume_put(vol);
	module_put(THIS_MODULE);
}

/* ---- what the rest of the module calls ------------------------------------------------------------------ */

static struct snap_virt *__virt_find(struct snap_volume *vol, u32 gen)
{
	struct snap_virt *v;

	lockdep_assert_held(&snap_virt_lock);
	list_for_each_entry(v, &vol->virts, list)
		if (v->gen == gen)
			return v;
	return NULL;
}

/**
 * snap_virt_index() - index of an active generation's disk
 *
 * Context: may sleep, briefly; does not wait for I/O.
 * Return: the index or -ENOENT.
 */
int snap_virt_index(struct snap_volume *vol, u32 gen)
{
	struct snap_virt *v;
	int index = -ENOENT;

	mutex_lock(&snap_virt_lock);
	v = __virt_find(vol, gen);
	if (v)
		index = v->index;
	mutex_unlock(&snap_virt_lock);
	return index;
}

static int check_activatable(struct snap_volume *vol, u32 number, struct snap_gen *gen, struct netlink_ext_ack *extack)
{
	int err;

	if (!snap_volume_usable(vol)) {
		snap_refuse(extack, "%s: is not attached any more", vol->name);
		return -ENODEV;
	}
	err = snap_store_gen_find(vol->store, number, gen);
	if (err) {
		snap_refuse(extack, "%s@%u: no such generation", vol->name, number);
		return err;
	}
	if (gen->state == SNAPDIFF_GEN_BOOKMARK) {
		snap_refuse(extack, "%s@%u: is a bookmark, it has no data", vol->name, number);
		return -EINVAL;
	}
	if (gen->state != SNAPDIFF_GEN_LIVE || !snap_store_gen_readable(vol->store, number)) {
		snap_refuse(extack, "%s@%u: is lost", vol->name, number);
		return -EIO;
	}
	return 0;
}

/**
 * snap_virt_activate() - make the disk of a generation
 * @partscan: look for partitions
 * @index: out, of /dev/snapvirtN
 * @extack: says why not; may be NULL
 *
 * A generation that is active already keeps its disk as it is. Context: may block; takes vol->control.
 * Return: 0; -ENOENT, -EINVAL (bookmark), -EIO (lost), -ENODEV (volume going), -ENOMEM.
 */
int snap_virt_activate(struct snap_volume *vol, u32 number, bool partscan, u32 *index, struct netlink_ext_ack *extack)
{
	struct snap_virt *v;
	struct snap_gen gen;
	int err;

	mutex_lock(&vol->control);
	err = check_activatable(vol, number, &gen, extack);
	if (err)
		goto out;
	err = snap_virt_index(vol, number);
	if (err >= 0) {
		*index = err;
		err = 0;
		goto out;
	}
	v = virt_create(vol, &gen, partscan);
	err = PTR_ERR_OR_ZERO(v);
	if (err) {
		snap_refuse(extack, "%s@%u: the disk could not be made: error %d", vol->name, number, err);
		goto out;
	}
	*index = v->index;
	snap_event(vol, SNAPDIFF_EVENT_ACTIVATED, number, 0, NULL);
out:
	mutex_unlock(&vol->control);
	return err;
}

/* vol->control is held: the disk cannot go meanwhile. */
static int virt_deactivate(struct snap_virt *v, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol = v->vol;
	u32 gen = v->gen;
	int err = 0;

	lockdep_assert_held(&vol->control);
	mutex_lock(&snap_virt_lock);
	if (v->openers)
		err = -EBUSY;
	else
		v->closing = true;
	mutex_unlock(&snap_virt_lock);
	if (err) {
		snap_refuse(extack, "%s@%u: /dev/" VIRT_NAME "%u is open", vol->name, gen, v->index);
		return err;
	}
	virt_destroy(v);	/* the caller holds a reference of its own to vol */
	snap_event(vol, SNAPDIFF_EVENT_DEACTIVATED, gen, 0, NULL);
	return 0;
}

/**
 * snap_virt_deactivate() - remove the disk of a generation
 *
 * Context: may block; takes vol->control; the caller has a reference to @vol.
 * Return: 0; -ENOENT: not active; -EBUSY: open.
 */
int snap_virt_deactivate(struct snap_volume *vol, u32 gen, struct netlink_ext_ack *extack)
{
	struct snap_virt *v;
	int err = -ENOENT;

	mutex_lock(&vol->control);
	mutex_lock(&snap_virt_lock);
	v = __virt_find(vol, gen);
	mutex_unlock(&snap_virt_lock);
	if (v)
		err = virt_deactivate(v, extack);
	else
		snap_refuse(extack, "%s@%u: is not active", vol->name, gen);
	mutex_unlock(&vol->control);
	return err;
}

/**
 * snap_virt_deactivate_index() - the same by the number of the disk; works for disks of dead volumes, too
 */
int snap_virt_deactivate_index(u32 index, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol = NULL;
	struct snap_virt *v;
	int err;
	u32 gen;

	mutex_lock(&snap_virt_lock);
	v = index < (1 << MINORBITS) ? idr_find(&snap_virts, index) : NULL;
	if (v) {
		vol = v->vol;
		gen = v->gen;
		snap_volume_get(vol);
	}
	mutex_unlock(&snap_virt_lock);
	if (!v) {
		snap_refuse(extack, "/dev/" VIRT_NAME "%u: no such disk", index);
		return -ENOENT;
	}
	err = snap_virt_deactivate(vol, gen, extack);
	snap_volume_put(vol);
	return err;
}

/**
 * snap_virt_next() - iterate over the disks
 *
 * Return: 0 with the disk of the lowest index >= @from_index, -ENOENT at the end.
 */
int snap_virt_next(u32 from_index, struct snap_virt_info *info)
{
	struct snap_virt *v = NULL;
	int index = from_index;

	if (from_index < 1 << MINORBITS) {
		mutex_lock(&snap_virt_lock);
		v = idr_get_next(&snap_virts, &index);
		if (v) {
			info->index = v->index;
			info->gen = v->gen;
			info->openers = v->openers;
			strscpy(info->volume, v->vol->name, sizeof(info->volume));
		}
		mutex_unlock(&snap_virt_lock);
	}
	return v ? 0 : -ENOENT;
}

static bool volume_busy(struct snap_volume *vol)
{
	struct snap_virt *v;
	bool busy = false;

	mutex_lock(&snap_virt_lock);
	list_for_each_entry(v, &vol->virts, list)
		busy |= virt_busy(v);
	mutex_unlock(&snap_virt_lock);
	return busy;
}

/**
 * snap_virt_volume_dead() - the volume is going: its disks answer EIO from now on
 *
 * vol->dead is set already. When it returns nothing of this file uses the store or the devices of @vol any more. The disks stay until they are
 * deactivated. Context: may block until reads in flight have ended.
 */
void snap_virt_volume_dead(struct snap_volume *vol)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	struct snap_virt *v;
	unsigned long flags;

	mutex_lock(&snap_virt_lock);
	list_for_each_entry(v, &vol->virts, list) {
		spin_lock_irqsave(&v->lock, flags);
		v->dead = true;
		spin_unlock_irqrestore(&v->lock, flags);
	}
	mutex_unlock(&snap_virt_lock);
	add_wait_queue(&snap_virt_idle, &wait);		/* the condition sleeps itself: no wait_event() */
	while (volume_busy(vol))
		wait_woken(&wait, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
	remove_wait_queue(&snap_virt_idle, &wait);
}

/** snap_virt_init() - at module load */
int snap_virt_init(void)
{
	int err;

	err = bioset_init(&snap_virt_bios, 64, 0, BIOSET_NEED_BVECS);
	if (err)
		return err;
	snap_virt_major = register_blkdev(0, VIRT_NAME);
	if (snap_virt_major < 0) {
		bioset_exit(&snap_virt_bios);
		return snap_virt_major;
	}
	return 0;
}

/** snap_virt_exit() - at unload: every disk held the module, so there is none */
void snap_virt_exit(void)
{
	unregister_blkdev(snap_virt_major, VIRT_NAME);
	bioset_exit(&snap_virt_bios);
	idr_destroy(&snap_virts);
}
