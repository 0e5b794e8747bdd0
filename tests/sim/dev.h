/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A simulated block device with a volatile cache.
 *
 * Blocks are immutable buffers with a reference count, an image is a two-level table of them, so copying the whole state of a device costs a copy of a few
 * pointers. Two images are kept: what a read sees now, and what is surely on the medium. Between them lies the list of writes that were issued and not
 * covered by a flush yet; a crash takes any subset of these, in any order, each of them perhaps torn at 512 bytes.
 */
#ifndef SIM_DEV_H
#define SIM_DEV_H

#include "core.h"

struct blk {
	u32 ref;
	bool valid;		/* the core has checked it (sd_buf.validated) */
	u64 tag;		/* names the content of a data block; 0: metadata, torn */
	struct blk *free;
	u8 data[SD_BLOCK_SIZE];
};

struct image_page;
struct image {
	u32 nr_pages;
	struct image_page **page;
};

struct pending {
	u64 block;
	struct blk *b;
	u64 io;			/* 0: completed */
};

struct simdev {
	struct sd_dev dev;		/* first: ctx points here */
	struct image now, safe;
	struct pending *pend;
	u32 nr_pend, cap_pend;
	struct blk **cache;		/* what a buffer cache would serve until forget() */
	u64 *cached;
	u32 nr_cached, cap_cached;
	u64 next_io;
	bool dead;			/* every call fails from now on */
	bool fault;			/* this one does */
	bool hooked;			/* inside the hook */
	bool forbid_writes;
	u64 writes, flushes, reads;
	/* Called before every call of the core; may call the core again where the contract allows it, and may set dead. */
	void (*hook)(struct simdev *d, const char *what);
};

void simdev_init(struct simdev *d, u64 nr_blocks);
void simdev_grow(struct simdev *d, u64 nr_blocks);
void simdev_exit(struct simdev *d);
void simdev_from_crash(struct simdev *d, const struct simdev *crashed);	/* a random result of losing power */

/* The driver's own writes: issued now, completed later; a flush covers completed ones only. */
u64 simdev_issue(struct simdev *d, u64 block, u32 nr, const void *data, const u64 *tags);
void simdev_complete(struct simdev *d, u64 io);
int simdev_flush(struct simdev *d);
const struct blk *simdev_peek(const struct simdev *d, u64 block);
/* Change bytes of a block on the medium. */
void simdev_damage(struct simdev *d, u64 block, u32 offset, u8 flip);

#endif
