// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/snapvirtN: a generation as a read-only disk.
 *
 * What a read does
 *   submit_bio only queues: it may run inside somebody else's submit_bio and must not wait. A *slot* (a work item with the scratch memory of one
 *   read) takes bios from the queue and serves each synchronously (virt_read.c has the argument).
 *
 * Who holds what
 *   A disk holds: the volume (memory), the dm device open (so that it cannot be removed), the module. The store and the block devices belong to the
 *   live volume: they are used only by a busy slot, and snap_virt_volume_dead() waits until no slot is busy. After that every bio is EIO.
 *
 * Locks: volume control > disk->open_mutex (block layer) > snap_virt_lock > snap_virt.lock. Nothing waits for I/O under snap_virt_lock, and
 * nothing allocates under it with reclaim I/O allowed: the copy path takes it, too (snap_virt_index()).
 */
#include <linux/module.h>
#include <linux/idr.h>
#include <linux/sched/mm.h>
#include <linux/vmalloc.h>
#include "virt.h"

#define VIRT_NAME		"snapvirt"
#define VIRT_MAX_SLOTS		16u
#define VIRT_BUFFER_BYTES	(8u << 20)	/* for chunk buffers of one disk, at most */

static DEFINE_MUTEX(snap_virt_lock);	/* the two below, vol->virts, openers, closing */
static DEFINE_IDR(snap_virts);		/* index -> disk; NULL while it is being made or unmade */
static DECLARE_WAIT_QUEUE_HEAD(snap_virt_idle);	/* a disk has no busy slot any more */
struct bio_set snap_virt_bios;
static int snap_virt_major;

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
		err = snap_virt_read(slot);
		if (err)	/* else it may have the error of a part that was split off and has ended before */
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
		init_completion(&slot->diff.done);
		init_completion(&slot->primary.done);
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
			       max(VIRT_BIO_SECTORS, vol->chunk_sectors));
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
	wait_event(snap_virt_idle, !virt_busy(v));
	virt_unpublish(v);	/* not before: snap_virt_volume_dead() waits for those that it finds */
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
	if (!snap_gen_fits(vol, gen)) {
		snap_refuse(extack, "%s@%u: is damaged: it is larger than its volume", vol->name, number);
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
			if (!READ_ONCE(v->vol->dead))	/* and cannot be taken down before snap_virt_volume_dead() has had the lock */
				snap_volume_rename(v->vol);
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
