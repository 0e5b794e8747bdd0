// SPDX-License-Identifier: GPL-2.0
/*
 * The core's device: metadata blocks of the differential volume through dm-bufio (cached, for readers) and dm-io (for whoever mutates).
 *
 * Writes do not go through the cache: what the core writes are new blocks, in long sequences; it says forget() for what the cache may still have of their addresses.
 *
 * dm-bufio bounds its caches all together, by the machine's memory; here each volume has its own bound. A ring holds the addresses of the blocks in the
 * cache, oldest first. A block that comes in goes to its end; when it is full the oldest is forgotten, or gets a second round if it was used meanwhile. dm-bufio
 * may drop blocks before that: then the ring has an address too many. It never has one too few but for buffers that are held just now.
 */
#include <linux/dm-bufio.h>
#include <linux/dm-io.h>
#include "store_internal.h"

#define RESERVED_BUFFERS	16
#define BUFFER_COST		(SD_BLOCK_SIZE + 256)	/* with dm-bufio's own part */
#define SECOND_ROUNDS		8

struct aux {
	bool validated;		/* the core's */
	bool known;		/* is in the ring */
	bool used;
};

/* For who waits for the background thread: it gets on. */
static int progress(struct snap_store *s, int err)
{
	if (current == s->thread)
		WRITE_ONCE(s->progress, s->progress + 1);
	return err;
}

static int dev_rw(struct snap_store *s, blk_opf_t opf, u64 block, u32 nr, void *buf)
{
	struct dm_io_region where = {
		.bdev = s->vol->diff_bdev,
		.sector = block * SNAP_BLOCK_SECTORS,
		.count = (sector_t)nr * SNAP_BLOCK_SECTORS,
	};
	struct dm_io_request req = {
		.bi_opf = opf,
		.client = s->io,
	};
	u64 limit = READ_ONCE(s->dev.nr_blocks);	/* the diff may be growing */

	if (block > limit || nr > limit - block)
		return -EIO;
	if (is_vmalloc_addr(buf)) {
		req.mem.type = DM_IO_VMA;
		req.mem.ptr.vma = buf;
	} else {
		req.mem.type = DM_IO_KMEM;
		req.mem.ptr.addr = buf;
	}
	return progress(s, dm_io(&req, 1, &where, NULL, IOPRIO_DEFAULT));
}

static int dev_read(void *ctx, u64 block, u32 nr, void *buf)
{
	return dev_rw(ctx, REQ_OP_READ | REQ_META, block, nr, buf);
}

static int dev_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	return dev_rw(ctx, REQ_OP_WRITE | REQ_META, block, nr, (void *)buf);
}

static int dev_flush(void *ctx)
{
	struct snap_store *s = ctx;

	return progress(s, blkdev_issue_flush(s->vol->diff_bdev));
}

/* The oldest address out of the ring, if that is full. */
static bool ring_push(struct snap_store *s, u64 block, u64 *oldest)
{
	unsigned long flags;
	bool full;

	spin_lock_irqsave(&s->ring.lock, flags);
	full = s->ring.nr == s->ring.max;
	if (full) {
		*oldest = s->ring.block[s->ring.head];
		s->ring.block[s->ring.head] = block;
		s->ring.head = (s->ring.head + 1) % s->ring.max;
	} else {
		s->ring.block[(s->ring.head + s->ring.nr) % s->ring.max] = block;
		WRITE_ONCE(s->ring.nr, s->ring.nr + 1);
	}
	spin_unlock_irqrestore(&s->ring.lock, flags);
	return full;
}

/* May be called by several readers at once. */
static void ring_add(struct snap_store *s, u64 block)
{
	unsigned int rounds;
	u64 oldest;

	for (rounds = 0; ring_push(s, block, &oldest); rounds++) {
		struct dm_buffer *b;
		struct aux *aux;
		bool again;
		void *data = dm_bufio_get(s->bufio, oldest, &b);

		if (IS_ERR_OR_NULL(data))
			return;		/* gone already */
		aux = dm_bufio_get_aux_data(b);
		again = rounds < SECOND_ROUNDS && xchg(&aux->used, false);
		if (!again)
			WRITE_ONCE(aux->known, false);
		dm_bufio_release(b);
		if (!again) {
			dm_bufio_forget(s->bufio, oldest);
			return;
		}
		block = oldest;
	}
}

static int dev_get(void *ctx, u64 block, struct sd_buf *buf)
{
	struct snap_store *s = ctx;
	struct dm_buffer *b;
	struct aux *aux;
	void *data;

	if (block >= READ_ONCE(s->dev.nr_blocks))
		return -EIO;
	data = dm_bufio_read(s->bufio, block, &b);
	if (IS_ERR(data))
		return PTR_ERR(data);
	progress(s, 0);
	aux = dm_bufio_get_aux_data(b);
	if (!READ_ONCE(aux->used))
		WRITE_ONCE(aux->used, true);
	if (!READ_ONCE(aux->known) && !xchg(&aux->known, true))
		ring_add(s, block);
	buf->data = data;
	buf->validated = &aux->validated;
	buf->priv = b;
	return 0;
}

static void dev_put(void *ctx, struct sd_buf *buf)
{
	dm_bufio_release(buf->priv);
}

static void dev_forget(void *ctx, u64 block, u32 nr)
{
	struct snap_store *s = ctx;

	dm_bufio_forget_buffers(s->bufio, block, nr);
}

static void dev_prefetch(void *ctx, u64 block, u32 nr)
{
	struct snap_store *s = ctx;
	u64 limit = READ_ONCE(s->dev.nr_blocks);

	if (block < limit && nr <= limit - block)
		dm_bufio_prefetch(s->bufio, block, nr);
}

static void dev_super_lock(void *ctx)
{
	struct snap_store *s = ctx;
	unsigned long flags;

	spin_lock_irqsave(&s->super_lock, flags);
	s->super_flags = flags;
}

static void dev_super_unlock(void *ctx)
{
	struct snap_store *s = ctx;

	spin_unlock_irqrestore(&s->super_lock, s->super_flags);
}

static const struct sd_dev_ops dev_ops = {
	.read = dev_read,
	.write = dev_write,
	.flush = dev_flush,
	.get = dev_get,
	.put = dev_put,
	.forget = dev_forget,
	.read_ahead = dev_prefetch,
	.super_lock = dev_super_lock,
	.super_unlock = dev_super_unlock,
};

/* A buffer is about to hold another block. */
static void buffer_is_new(struct dm_buffer *b)
{
	memset(dm_bufio_get_aux_data(b), 0, sizeof(struct aux));
}

/** snap_store_dev_open() - cache and I/O client for vol->diff_bdev. May block */
int snap_store_dev_open(struct snap_store *s)
{
	s->dev.ops = &dev_ops;
	s->dev.ctx = s;
	s->dev.nr_blocks = bdev_nr_sectors(s->vol->diff_bdev) / SNAP_BLOCK_SECTORS;
	spin_lock_init(&s->ring.lock);
	s->ring.max = max_t(u64, RESERVED_BUFFERS, div_u64(s->vol->memory / 4, BUFFER_COST));
	s->ring.block = kvcalloc(s->ring.max, sizeof(u64), GFP_KERNEL);
	if (!s->ring.block)
		return -ENOMEM;
	s->io = dm_io_client_create();
	if (IS_ERR(s->io)) {
		int err = PTR_ERR(s->io);

		s->io = NULL;
		snap_store_dev_close(s);
		return err;
	}
	s->bufio = dm_bufio_client_create(s->vol->diff_bdev, SD_BLOCK_SIZE, RESERVED_BUFFERS, sizeof(struct aux), buffer_is_new, NULL, 0);
	if (IS_ERR(s->bufio)) {
		int err = PTR_ERR(s->bufio);

		s->bufio = NULL;
		snap_store_dev_close(s);
		return err;
	}
	return 0;
}

/** snap_store_dev_close() - no buffer is held */
void snap_store_dev_close(struct snap_store *s)
{
	if (s->bufio)
		dm_bufio_client_destroy(s->bufio);
	s->bufio = NULL;
	if (s->io)
		dm_io_client_destroy(s->io);
	s->io = NULL;
	kvfree(s->ring.block);
	s->ring.block = NULL;
}

/** snap_store_dev_memory() - [any context] bytes of the cache, at most */
u64 snap_store_dev_memory(struct snap_store *s)
{
	return (u64)READ_ONCE(s->ring.nr) * BUFFER_COST + s->ring.max * sizeof(u64);
}
