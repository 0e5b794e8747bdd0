/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A block device or image file as the core's device. */
#ifndef SNAP_FILEDEV_H
#define SNAP_FILEDEV_H

#include "core.h"

struct filedev {
	struct sd_dev dev;
	int fd;
	bool read_only;
};

/* @exclusive: O_EXCL on a block device, so one that is mounted or attached is refused. Return: 0 or -errno */
int filedev_open(struct filedev *f, const char *path, bool read_only, bool exclusive);
void filedev_close(struct filedev *f);

#endif
