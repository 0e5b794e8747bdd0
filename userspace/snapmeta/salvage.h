/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading a damaged store: everything that can be read and proved to belong to its newest state, and a list of what is missing.
 *
 *	salvage.c		superblocks, journal: the state as a whole
 *	salvage_tables.c	catalog, runs
 *	repair.c		what follows for each generation, and writing it
 *
 * A *hole* is the knowledge that records may be missing: of some chunks, of some generations. Everything else follows from the holes.
 */
#ifndef SNAPMETA_SALVAGE_H
#define SNAPMETA_SALVAGE_H

#include "internal.h"

/* Records of the chunks first..last with generations lo..hi may be missing. */
struct hole {
	u64 first, last;
	u32 lo, hi;
};

/* A run as far as its blocks can be read. */
struct sal_run {
	u32 id, gen_min, gen_max, flags, nr_segs;
	u64 age, lo;
	u64 *leaf;		/* addresses of the intact leaves, in order */
	u64 nr_leaf, cap_leaf;
};

struct salvage {
	struct sd_dev *dev;
	struct sd_store *s;		/* geometry, and the generations in its catalog; nothing else of it is filled */
	struct sd_disk_super super;
	bool clean;			/* the superblock says so */
	bool failed;
	void (*say)(void *ctx, const char *text);
	void *ctx;
	u64 findings;

	struct { u64 key; u8 value[SD_CAT_VALUE]; } *entry;	/* of the catalog */
	u64 nr_entry, cap_entry;
	struct { u64 from, to; } *lost_keys;
	u32 nr_lost_keys, cap_lost_keys;

	struct sal_run *run;		/* oldest first, as lookups ask them */
	u32 nr_run;
	struct sd_rec *log;		/* records of the journal, sorted */
	u64 nr_log, cap_log;
	struct hole *hole;
	u64 nr_hole, cap_hole;
	u8 *seen;			/* a bit for each block that holds metadata of this state */
	struct sd_disk_group_desc *group;
	u32 *lost;			/* generations that the damage has cost */
	u64 nr_lost, cap_lost;
	u64 nr_chunks;			/* no generation has more */
};

/** salvage_supers() - the valid superblocks of the device, newest first; *nr 0, 1 or 2. 0 or -errno */
int salvage_supers(struct sd_dev *dev, struct sd_disk_super super[2], u32 *nr);
/**
 * salvage_load() - all that @super leads to
 * @newer: the superblock after @super, if its own tables are not good enough: then the journal has to lead without a gap from @super to it
 * Damage is no error: it is said, counted and becomes holes. Return: 0; -EUCLEAN: @super cannot be the base; -ENOMEM, device errors other than -EIO.
 */
int salvage_load(struct salvage *sal, struct sd_dev *dev, const struct sd_disk_super *super, const struct sd_disk_super *newer,
		 void (*say)(void *ctx, const char *text), void *ctx);
void salvage_free(struct salvage *sal);

/* ---- between the two files ------------------------------------------------------------------------------- */

void sal_say(struct salvage *sal, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int sal_hole(struct salvage *sal, u64 first, u64 last, u32 lo, u32 hi);
/* The live generations up to @hi are lost; @unknown: and all changed sets up to it are unknown. */
int sal_lose(struct salvage *sal, u32 hi, bool unknown);
/*
 * A metadata block of this state: right in itself, of the transaction that was referred to (as far as @txid_bits show it), not newer than the superblock, not seen before.
 * 0, -EUCLEAN (said), -errno
 */
int sal_block(struct salvage *sal, u64 addr, u32 magic, u32 max_nr, u64 txid, u64 txid_bits, void *block);
bool sal_mark(struct salvage *sal, u64 addr);	/* false: was marked already */
int sal_grow(void *array, u64 nr, u64 *cap, size_t size);
int sal_catalog(struct salvage *sal);
int sal_runs(struct salvage *sal);

#endif
