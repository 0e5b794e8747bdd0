/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Repair of a store on any two devices (or one): what the verb and its tests call. */
#ifndef SNAPMETA_REPAIR_H
#define SNAPMETA_REPAIR_H

#include "internal.h"

#define REPAIR_MAX_BAD	65536u

struct repair_opts {
	bool dry_run;
	bool data;		/* read all preserved chunks; damaged ones become unreadable ones of their generations */
	u32 max_bad;		/* chunks that may become unreadable one by one; beyond: generations are lost. 0: REPAIR_MAX_BAD */
	void (*say)(void *ctx, const char *text);	/* one line a finding */
	void *ctx;
};

struct repair_gen {
	struct sd_gen gen;	/* as it is now */
	bool was_live;		/* in the catalog, as far as it could be read */
	u64 bad;		/* chunks of it that are EIO now because of the damage */
};

struct repair_result {
	u64 findings;		/* 0: the store was whole; nothing has been written */
	bool older;		/* the older superblock was the better one */
	u64 transaction;	/* of the superblock that was the base */
	u64 records, bad;	/* kept; of them: unreadable because of the damage */
	struct repair_gen *gen;
	u32 nr_gen;
	u32 lost;		/* live before, not now */
};

/**
 * repair() - rebuild the store on @in into @out
 * @out: == @in: in place; otherwise a device of at least the same size whose content does not matter
 *
 * In place nothing that the old state refers to is overwritten before the new superblock is durable. Memory: three bits for each block of the device, 8 bytes
 * for each leaf (168 records or more), 40 bytes for each record in the journal.
 * Return: 0 (look at @res); -ENODATA: no superblock can be used, so nothing can be proved; -ENOTSUPP: a newer format; -ENOSPC: no room beside
 * the old metadata (take another @out); -errno. @res is to be freed with repair_result_free() in any case.
 */
int repair(struct sd_dev *in, struct sd_dev *out, const struct repair_opts *opts, struct repair_result *res);
void repair_result_free(struct repair_result *res);

#endif
