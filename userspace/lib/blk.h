/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block devices: what is on them, who uses them, how large they are. Reads only, but for
 * snap_blk_wipe().
 */
#ifndef SNAP_LIB_BLK_H
#define SNAP_LIB_BLK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct snap_blk {
	dev_t dev;
	uint64_t size;			/* bytes */
	unsigned int block_size;	/* logical, bytes */
	bool read_only;
};

/**
 * snap_blk_info() - what @path is
 *
 * Return: 0; -ENOTBLK when it is not a block device; -errno.
 */
int snap_blk_info(const char *path, struct snap_blk *blk, struct snap_err *e);

/** snap_blk_fd_size() - bytes of an open block device or regular file. Return: 0, -errno. */
int snap_blk_fd_size(int fd, uint64_t *bytes);

struct snap_blk_sig {
	char usage[32];			/* filesystem, raid, crypto, other, partition table */
	char type[64];			/* ext4, LVM2_member, gpt ... */
	char label[64];
	char uuid[64];
};

/**
 * snap_blk_signature() - does libblkid know what is on the device?
 *
 * Filesystems, RAID and LVM members, LUKS, swap, partition tables. Our own superblock is none of
 * these (snap_offline_identify() knows it).
 *
 * Return: 1 with *@sig, 0 for none, -errno when it could not be read. An ambiguous answer
 * (several signatures) counts as a signature of type "ambiguous".
 */
int snap_blk_signature(const char *path, struct snap_blk_sig *sig, struct snap_err *e);

/**
 * snap_blk_wipe() - erase every signature that libblkid knows, as wipefs(8) does
 *
 * Only the magic bytes are overwritten. Return: 0 or -errno.
 */
int snap_blk_wipe(const char *path, struct snap_err *e);

/**
 * snap_blk_check_free() - nobody uses the device?
 *
 * Mounted (it or a partition of it), swap, a holder such as dm or md, or opened exclusively.
 *
 * Return: 0 free; -EBUSY with the user named in @e; -errno.
 */
int snap_blk_check_free(const char *path, struct snap_err *e);

/**
 * snap_blk_mounted() - where is the device mounted (any mount namespace entry of ours)?
 *
 * Return: true with the first mount point in @where.
 */
bool snap_blk_mounted(dev_t dev, char *where, size_t len);

/** snap_blk_name() - "/dev/NAME" of a device number ("MAJ:MIN" if sysfs does not know it); returns @buf. */
char *snap_blk_name(dev_t dev, char *buf, size_t len);

/**
 * snap_blk_holders() - names of devices stacked on @dev, separated by ", "
 *
 * Return: their number.
 */
int snap_blk_holders(dev_t dev, char *buf, size_t len);

/**
 * snap_blk_overlap() - are the two the same device, or a disk and its partition?
 */
bool snap_blk_overlap(dev_t a, dev_t b);

/**
 * snap_blk_open_excl() - open for writing so that nobody mounts it meanwhile
 * @flags: added to O_EXCL | O_CLOEXEC, e.g. O_RDWR | O_DIRECT
 *
 * Checks snap_blk_check_free() first. Return: the descriptor (the caller closes it) or -errno.
 */
int snap_blk_open_excl(const char *path, int flags, struct snap_err *e);

#endif
