/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between the kernels that the module builds for (6.1 to 6.12). The logic is written for the newest; version conditionals stand
 * here and nowhere else.
 */
#ifndef SNAPDIFF_COMPAT_H
#define SNAPDIFF_COMPAT_H

#include <linux/version.h>
#include <linux/blkdev.h>
#include <linux/blk-integrity.h>
#include <linux/err.h>
#include <linux/numa.h>
#include <net/genetlink.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif

/* ---- opening block devices ---- */

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
typedef fmode_t blk_mode_t;
#define BLK_OPEN_READ	FMODE_READ
#define BLK_OPEN_WRITE	FMODE_WRITE
#define BLK_OPEN_EXCL	FMODE_EXCL
#endif

/* struct snap_bdev - a block device held open by the module itself */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
struct snap_bdev { struct file *file; };
static inline int snap_bdev_open(struct snap_bdev *b, dev_t dev, void *holder)
{
	b->file = bdev_file_open_by_dev(dev, BLK_OPEN_READ, holder, NULL);
	return PTR_ERR_OR_ZERO(b->file);
}
static inline struct block_device *snap_bdev_get(const struct snap_bdev *b)
{
	return file_bdev(b->file);
}
static inline void snap_bdev_close(struct snap_bdev *b)
{
	bdev_fput(b->file);
}
#else
struct snap_bdev { struct block_device *bdev; blk_mode_t mode; };
static inline int snap_bdev_open(struct snap_bdev *b, dev_t dev, void *holder)
{
	b->mode = BLK_OPEN_READ | (holder ? BLK_OPEN_EXCL : 0);
	b->bdev = blkdev_get_by_dev(dev, b->mode, holder);
	return PTR_ERR_OR_ZERO(b->bdev);
}
static inline struct block_device *snap_bdev_get(const struct snap_bdev *b)
{
	return b->bdev;
}
static inline void snap_bdev_close(struct snap_bdev *b)
{
	blkdev_put(b->bdev, b->mode);
}
#endif

/* ---- freezing what is mounted on a device ---- */

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define bdev_freeze	freeze_bdev
#define bdev_thaw	thaw_bdev
#endif

/* After a successful bdev_freeze(): was there a filesystem to freeze? */
static inline bool snap_bdev_frozen_fs(struct block_device *bdev)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	const struct blk_holder_ops *ops = READ_ONCE(bdev->bd_holder_ops);

	return ops && ops->freeze;
#else
	return READ_ONCE(bdev->bd_fsfreeze_sb) != NULL;
#endif
}

/* ---- bio-based disks ---- */

/* Return: a disk whose bios are split at @max_sectors, its optimal size, and nothing else, or ERR_PTR; put_disk() frees it */
static inline struct gendisk *snap_alloc_disk(unsigned int logical, unsigned int physical, unsigned int max_sectors)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	struct queue_limits lim;

	blk_set_stacking_limits(&lim);
	lim.logical_block_size = logical;
	lim.physical_block_size = physical;
	lim.max_hw_sectors = max_sectors;
	lim.max_dev_sectors = max_sectors;
	lim.io_opt = max_sectors << SECTOR_SHIFT;
	lim.max_write_zeroes_sectors = 0;
	lim.max_zone_append_sectors = 0;	/* stacking limits have it, only zoned disks may */
	return blk_alloc_disk(&lim, NUMA_NO_NODE);
#else
	struct gendisk *disk = blk_alloc_disk(NUMA_NO_NODE);

	if (!disk)
		return ERR_PTR(-ENOMEM);
	blk_set_stacking_limits(&disk->queue->limits);
	blk_queue_logical_block_size(disk->queue, logical);
	blk_queue_physical_block_size(disk->queue, physical);
	blk_queue_max_hw_sectors(disk->queue, max_sectors);
	blk_queue_io_opt(disk->queue, max_sectors << SECTOR_SHIFT);
	blk_queue_max_write_zeroes_sectors(disk->queue, 0);
	return disk;
#endif
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#define SNAP_DISK_OPEN(name, disk, mode)	int name(struct gendisk *disk, blk_mode_t mode)
#define SNAP_DISK_RELEASE(name, disk)		void name(struct gendisk *disk)
#define SNAP_DISK_OPEN_DISK(disk)		(disk)
#else
/* The bodies use "disk"; on 6.1 the argument of open is the block device, of release the disk and a mode. */
#define SNAP_DISK_OPEN(name, disk, mode)	int name(struct block_device *disk, fmode_t mode)
#define SNAP_DISK_RELEASE(name, disk)		void name(struct gendisk *disk, fmode_t mode)
#define SNAP_DISK_OPEN_DISK(disk)		((disk)->bd_disk)
#endif

/* ---- generic netlink ---- */

/* The parsed attributes of the request that started a dump */
static inline struct nlattr **snap_dump_attrs(struct netlink_callback *cb)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return genl_dumpit_info(cb)->info.attrs;
#else
	return (struct nlattr **)genl_dumpit_info(cb)->attrs;
#endif
}

/* ---- small things ---- */

static inline bool snap_bdev_has_integrity(struct block_device *bdev)
{
	return blk_get_integrity(bdev->bd_disk) != NULL;
}

#endif
