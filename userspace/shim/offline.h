/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Differential volumes without the module: what snapctl and snapmeta do to them while they are not attached.
 *
 * All functions may block. The device or image is opened exclusively (O_EXCL on block devices), so an attached one is refused with -EBUSY.
 */
#ifndef SNAP_OFFLINE_H
#define SNAP_OFFLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At offset 0 and 4096: the first four bytes of a differential volume. */
#define SNAP_OFFLINE_MAGIC		"SDPS"
#define SNAP_OFFLINE_MIN_SIZE		(16ull << 20)

struct snap_offline_format_opts {
	uint32_t chunk_size;	/* bytes: power of two, 4 KiB to 1 MiB; 0: 4 KiB */
	uint64_t journal_size;	/* bytes; 0: by the size of the device */
	bool force;		/* the caller has decided to overwrite what is there */
};

/**
 * snap_offline_format() - make @path an empty differential volume
 * Does not look for foreign signatures (that is the caller's, with libblkid), but refuses one of ours unless @opts->force.
 * Return: 0; -EEXIST: has a store already; -ENOSPC: too small; -EINVAL: bad chunk or journal size; -EBUSY: in use; -errno. @err gets a text.
 */
int snap_offline_format(const char *path, const struct snap_offline_format_opts *opts, char *err, size_t errlen);

enum snap_offline_state { SNAP_OFFLINE_CLEAN = 1, SNAP_OFFLINE_ACTIVE = 2, SNAP_OFFLINE_FAILED = 3 };

struct snap_offline_id {
	uint8_t uuid[16];
	uint32_t chunk_size;	/* bytes */
	uint64_t diff_size, primary_size, journal_size;	/* bytes */
	uint64_t txid;
	int state;		/* enum snap_offline_state */
};

/** snap_offline_identify() - whose differential volume is this? Reads only. Return: 0; -ENODATA: not one; -EUCLEAN: damaged; -errno */
int snap_offline_identify(const char *path, struct snap_offline_id *id);

struct snap_offline_check {
	uint64_t errors, blocks_used, blocks_leaked, blocks_missing, records, data_bad;
};

/** snap_offline_check() - compare everything with everything; nothing is written. @say: one line a finding. Return: 0 (look at @res) or -errno */
int snap_offline_check(const char *path, bool data, struct snap_offline_check *res, void (*say)(void *ctx, const char *text), void *ctx);

#endif
