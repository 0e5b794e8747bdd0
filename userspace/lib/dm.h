/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Volumes as device-mapper devices, through libdevmapper.
 *
 *	0 SECTORS snapdiff PRIMARY DIFF [#FEATURE_ARGS [on_full POLICY] [cache_size MIB] [accept_changed] [trust_primary]]
 *
 * The device gets the uuid "SNAPDIFF-<32 hex digits of the diff's uuid>", so that one diff cannot be attached
 * twice. udev cookies are used when udev runs; DM_DISABLE_UDEV=1 makes libdevmapper create the nodes.
 */
#ifndef SNAP_LIB_DM_H
#define SNAP_LIB_DM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

#define SNAP_DM_UUID_PREFIX	"SNAPDIFF-"

struct snap_dm_spec {
	const char *name;
	const char *primary;		/* path of a block device */
	const char *diff;
	uint64_t size;			/* bytes of the primary; a multiple of 512 */
	const uint8_t *uuid;		/* 16 bytes */
	const char *on_full;		/* NULL: the module's default */
	uint64_t cache_size;		/* bytes, whole MiB; 0: the module's default */
	bool accept_changed;		/* give the generations up if the primary is not as it was left */
	bool trust_primary;		/* after a crash: nobody has written it since */
};

/**
 * snap_dm_attach() - create and start /dev/mapper/NAME
 *
 * Either the device is there and live, with its node, or nothing is left of it.
 *
 * Return: 0; -EEXIST the name or the diff is attached already; -ENODEV no module;
 * -errno with the module's reason from the kernel log when it can be read.
 */
int snap_dm_attach(const struct snap_dm_spec *spec, struct snap_err *e);

/**
 * snap_dm_detach() - stop and remove /dev/mapper/NAME
 *
 * Retries for about three seconds while udev or a probe holds it open.
 *
 * Return: 0; -ENODEV there is none; -EMEDIUMTYPE it is not one of ours; -EBUSY mounted or open, with
 * the user named.
 */
int snap_dm_detach(const char *name, struct snap_err *e);

/**
 * snap_dm_check_detach() - would snap_dm_detach() refuse?
 *
 * Return: 0 or what it would return, as far as that is known without trying.
 */
int snap_dm_check_detach(const char *name, struct snap_err *e);

/**
 * snap_dm_resize() - the volume takes another size: its table with another length, suspend, resume
 * @size: bytes of the primary now
 *
 * Writes wait for a moment. Return: 0; -ENODEV, -EMEDIUMTYPE as snap_dm_detach(); -errno with the module's reason. On an error it goes on with
 * the size that it had.
 */
int snap_dm_resize(const char *name, uint64_t size, struct snap_err *e);

/** snap_dm_exists() - is there a dm device of this name (of any kind)? Return: 1, 0, -errno. */
int snap_dm_exists(const char *name, struct snap_err *e);

/** snap_dm_path() - "/dev/mapper/NAME"; returns @buf. */
char *snap_dm_path(const char *name, char *buf, size_t len);

#endif
