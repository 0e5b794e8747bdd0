/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New metadata for a store whose preserved data stays where it is: what restore and repair write.
 *
 *	rebuild_begin
 *	rebuild_gen		every generation
 *	rebuild_use		every extent of preserved data; rebuild_avoid: blocks that must stay as they are until the commit
 *	rebuild_count		so many records come at most
 *	rebuild_add		every record, sorted by (chunk, generation)
 *	rebuild_commit		bitmaps, catalog, superblocks
 *	rebuild_end		always
 *
 * Nothing of the old state is overwritten before the commit's superblock, if all that the old state refers to has been named: a crash leaves the old store or
 * the new one. All functions block and return 0 or -errno. Memory: two bits for each block of the groups that are in use, and 24 bytes for 168 records of
 * a segment (a segment has about a million).
 */
#ifndef SNAPMETA_REBUILD_H
#define SNAPMETA_REBUILD_H

#include "internal.h"

struct rebuild_params {
	u8 uuid[SD_UUID_SIZE];
	u32 chunk_size;			/* bytes */
	u64 nr_blocks, journal_blocks;
	u64 primary_sectors, created_ns;
	u32 highest;			/* generation ever created */
	bool clean;			/* it was detached */
	u32 suspect_gen;
	u8 fingerprint[SD_FINGERPRINT_SIZE];
};

struct rebuild {
	struct sd_store *s;
	struct sd_disk_group_desc *old;	/* of each group, as the old catalog has it: its valid bitmap is not overwritten; may be set by the caller */
	struct sd_blocks avoid, space;
	struct sd_builder b;
	bool building;
	struct sd_segment *seg;
	u32 nr_seg;
	u64 left;			/* records still announced */
	u32 gen_min, gen_max;
	struct sd_rec last;
	u64 records;
};

/** rebuild_check() - is this a geometry that the format allows? 0 or -EINVAL, -ENOSPC (@dev is too small). */
int rebuild_check(const struct rebuild_params *p, const struct sd_dev *dev);
int rebuild_begin(struct rebuild *rb, struct sd_dev *dev, const struct rebuild_params *p);
/* -EINVAL: number 0, twice, or above the highest; state unknown */
int rebuild_gen(struct rebuild *rb, const struct sd_gen *gen);
/* -EINVAL: outside of the groups or on a bitmap. That no block has two owners is the caller's to know. */
int rebuild_use(struct rebuild *rb, u64 addr, u64 nr);
int rebuild_avoid(struct rebuild *rb, u64 addr, u64 nr);
void rebuild_count(struct rebuild *rb, u64 records);
/* -EINVAL: not behind the last one, or more than announced; -ENOSPC */
int rebuild_add(struct rebuild *rb, const struct sd_rec *rec);
int rebuild_commit(struct rebuild *rb);
void rebuild_end(struct rebuild *rb);

#endif
