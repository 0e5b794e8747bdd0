/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the portable core needs from its surroundings: one device through one ops struct.
 *
 * Everything is in blocks of 4 KiB of the differential volume. All calls are synchronous and may
 * block; they are made from the context of the core call that needs them (core.h says which may).
 */
#ifndef SNAPDIFF_CORE_IO_H
#define SNAPDIFF_CORE_IO_H

#include "sys.h"	/* kernel headers, or userspace/shim/sys.h */

#define SD_BLOCK_SHIFT		12
#define SD_BLOCK_SIZE		(1u << SD_BLOCK_SHIFT)

/**
 * struct sd_buf - one metadata block, held in a cache
 * @data: SD_BLOCK_SIZE bytes, read-only, valid until put()
 * @validated: the cache's own per-block flag, false when the block was read from the device; the core sets it
 *	after it has checked the block. NULL where the cache keeps none.
 * @priv: the cache's
 */
struct sd_buf {
	const void *data;
	bool *validated;
	void *priv;
};

/**
 * struct sd_dev_ops - block I/O on the differential volume
 * @read: read @nr blocks into @buf (kernel: may be vmalloc memory)
 * @write: write @nr blocks; durable only after a later flush() returned 0
 * @flush: everything written before (by write() and by the caller of the core) is durable when it returns 0
 * @get: a block through the cache; 0 or -errno
 * @put: release what get() gave
 * @forget: the cache must not serve these blocks any more (they are rewritten or freed)
 * @read_ahead: a hint; may be NULL
 * @super_lock, @super_unlock: a spin lock for who writes the superblock (sd_super_claim()); NULL where there is only one thread
 *
 * @get, @put and @read_ahead are called concurrently by readers. @read, @write, @flush and @forget only by the one that mutates.
 */
struct sd_dev_ops {
	int (*read)(void *ctx, u64 block, u32 nr, void *buf);
	int (*write)(void *ctx, u64 block, u32 nr, const void *buf);
	int (*flush)(void *ctx);
	int (*get)(void *ctx, u64 block, struct sd_buf *buf);
	void (*put)(void *ctx, struct sd_buf *buf);
	void (*forget)(void *ctx, u64 block, u32 nr);
	void (*read_ahead)(void *ctx, u64 block, u32 nr);
	void (*super_lock)(void *ctx);
	void (*super_unlock)(void *ctx);
};

struct sd_dev {
	const struct sd_dev_ops *ops;
	void *ctx;
	u64 nr_blocks;		/* size of the device */
};

#endif
