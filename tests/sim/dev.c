// SPDX-License-Identifier: GPL-2.0-or-later
/* The simulated device: see dev.h. */
#include "sim.h"

#define SLOTS 64u

struct image_page {
	u32 ref;
	struct blk *b[SLOTS];
};

static const struct blk zero_blk = { .ref = 1 };
static struct blk *free_blks;

static struct blk *blk_new(void)
{
	struct blk *b = free_blks;

	if (b)
		free_blks = b->free;
	else
		b = xmalloc(sizeof(*b));
	b->ref = 1;
	b->valid = false;
	b->tag = 0;
	return b;
}

static void blk_put(struct blk *b)
{
	if (!b || --b->ref)
		return;
	b->free = free_blks;
	free_blks = b;
}

/* ---- images --------------------------------------------------------------------------------- */

static void image_init(struct image *im, u64 nr_blocks)
{
	im->nr_pages = DIV_ROUND_UP(nr_blocks, SLOTS);
	im->page = xzalloc(im->nr_pages * sizeof(*im->page));
}

static void page_put(struct image_page *p)
{
	u32 i;

	if (!p || --p->ref)
		return;
	for (i = 0; i < SLOTS; i++)
		blk_put(p->b[i]);
	free(p);
}

static void image_exit(struct image *im)
{
	u32 i;

	for (i = 0; i < im->nr_pages; i++)
		page_put(im->page[i]);
	free(im->page);
	im->page = NULL;
}

static void image_copy(struct image *to, const struct image *from)
{
	u32 i;

	to->nr_pages = from->nr_pages;
	to->page = xmalloc(from->nr_pages * sizeof(*to->page));
	memcpy(to->page, from->page, from->nr_pages * sizeof(*to->page));
	for (i = 0; i < from->nr_pages; i++)
		if (to->page[i])
			to->page[i]->ref++;
}

static struct blk *image_get(const struct image *im, u64 block)
{
	struct image_page *p = im->page[block / SLOTS];

	return p ? p->b[block % SLOTS] : NULL;
}

/* Takes over a reference of @b. */
static void image_set(struct image *im, u64 block, struct blk *b)
{
	struct image_page **p = &im->page[block / SLOTS], *q;
	u32 i;

	if (!*p) {
		*p = xzalloc(sizeof(**p));
		(*p)->ref = 1;
	} else if ((*p)->ref > 1) {
		q = xmalloc(sizeof(*q));
		memcpy(q, *p, sizeof(*q));
		q->ref = 1;
		for (i = 0; i < SLOTS; i++)
			if (q->b[i])
				q->b[i]->ref++;
		(*p)->ref--;
		*p = q;
	}
	blk_put((*p)->b[block % SLOTS]);
	(*p)->b[block % SLOTS] = b;
}

/* ---- writes that a flush has not covered ------------------------------------------------------ */

static void pend_add(struct simdev *d, u64 block, struct blk *b, u64 io)
{
	if (d->nr_pend == d->cap_pend) {
		d->cap_pend = d->cap_pend ? 2 * d->cap_pend : 64;
		d->pend = xrealloc(d->pend, d->cap_pend * sizeof(*d->pend));
	}
	b->ref++;
	d->pend[d->nr_pend++] = (struct pending){ block, b, io };
}

static void write_block(struct simdev *d, u64 block, const void *data, u64 tag, u64 io)
{
	struct blk *b = blk_new();

	memcpy(b->data, data, SD_BLOCK_SIZE);
	b->tag = tag;
	pend_add(d, block, b, io);
	image_set(&d->now, block, b);
	d->writes++;
}

u64 simdev_issue(struct simdev *d, u64 block, u32 nr, const void *data, const u64 *tags)
{
	u64 io = d->next_io++;
	u32 i;

	if (d->dead)
		return io;
	if (block + nr > d->dev.nr_blocks)
		fail("the driver writes beyond the device: block %llu", (unsigned long long)block);
	for (i = 0; i < nr; i++)
		write_block(d, block + i, (const u8 *)data + i * SD_BLOCK_SIZE, tags ? tags[i] : 0, io);
	return io;
}

void simdev_complete(struct simdev *d, u64 io)
{
	u32 i;

	for (i = 0; i < d->nr_pend; i++)
		if (d->pend[i].io == io)
			d->pend[i].io = 0;
}

int simdev_flush(struct simdev *d)
{
	u32 i, k = 0;

	if (d->dead)
		return -EIO;
	d->flushes++;
	for (i = 0; i < d->nr_pend; i++) {
		if (d->pend[i].io)
			d->pend[k++] = d->pend[i];
		else
			image_set(&d->safe, d->pend[i].block, d->pend[i].b);
	}
	d->nr_pend = k;
	return 0;
}

const struct blk *simdev_peek(const struct simdev *d, u64 block)
{
	const struct blk *b = block < d->dev.nr_blocks ? image_get(&d->now, block) : NULL;

	return b ? b : &zero_blk;
}

void simdev_damage(struct simdev *d, u64 block, u32 offset, u8 flip)
{
	struct blk *b = blk_new();

	memcpy(b->data, simdev_peek(d, block)->data, SD_BLOCK_SIZE);
	b->data[offset] ^= flip;
	b->ref++;
	image_set(&d->now, block, b);
	image_set(&d->safe, block, b);
}

/* ---- losing power ------------------------------------------------------------------------------- */

static struct blk *torn(const struct blk *old, const struct blk *new)
{
	struct blk *b = blk_new();
	u32 i, cut = rnd(8), mode = rnd(3);

	for (i = 0; i < SD_BLOCK_SIZE / 512; i++) {
		bool take = mode == 0 ? i < cut : mode == 1 ? i >= cut : rnd(2);

		memcpy(b->data + i * 512, (take ? new : old)->data + i * 512, 512);
	}
	return b;
}

static bool survives(u32 mode, u32 i, u32 nr, u32 pick)
{
	switch (mode) {
	case 0: return false;
	case 1: return true;
	case 2: return rnd(2);
	case 3: return rnd(8);
	case 4: return !rnd(8);
	case 5: return i < pick;
	case 6: return i != pick;
	default: return i == pick;
	}
}

void simdev_from_crash(struct simdev *d, const struct simdev *crashed)
{
	u32 nr = crashed->nr_pend, mode = rnd(8), pick = nr ? rnd(nr) : 0, tear = rnd(3) ? 0 : 6, i;
	u32 *order = xmalloc((nr + 1) * sizeof(*order));

	memset(d, 0, sizeof(*d));
	d->dev = crashed->dev;
	d->dev.ctx = d;
	d->next_io = 1;
	image_copy(&d->safe, &crashed->safe);
	for (i = 0; i < nr; i++)
		order[i] = i;
	for (i = nr; rnd(2) && i > 1; i--) {
		u32 k = rnd(i), t = order[k];

		order[k] = order[i - 1];
		order[i - 1] = t;
	}
	for (i = 0; i < nr; i++) {
		const struct pending *p = &crashed->pend[order[i]];
		struct blk *old = image_get(&d->safe, p->block);

		if (!survives(mode, i, nr, pick))
			continue;
		if (tear && !rnd(tear)) {
			image_set(&d->safe, p->block, torn(old ? old : &zero_blk, p->b));
		} else {
			p->b->ref++;
			image_set(&d->safe, p->block, p->b);
		}
	}
	free(order);
	image_copy(&d->now, &d->safe);
	d->cache = xzalloc(d->dev.nr_blocks * sizeof(*d->cache));
}

/* ---- the core's ops --------------------------------------------------------------------------------- */

static int enter(struct simdev *d, const char *what, u64 block, u32 nr)
{
	if (block + nr > d->dev.nr_blocks)
		fail("%s beyond the device: block %llu + %u", what, (unsigned long long)block, nr);
	if (d->hook && !d->hooked && !d->dead) {
		d->hooked = true;
		d->hook(d, what);
		d->hooked = false;
	}
	if (d->fault) {
		d->fault = false;
		return -EIO;
	}
	return d->dead ? -EIO : 0;
}

static int op_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct simdev *d = ctx;
	u32 i;

	if (enter(d, "read", block, nr))
		return -EIO;
	d->reads += nr;
	for (i = 0; i < nr; i++)
		memcpy((u8 *)buf + i * SD_BLOCK_SIZE, simdev_peek(d, block + i)->data, SD_BLOCK_SIZE);
	return 0;
}

static int op_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	struct simdev *d = ctx;
	u32 i;

	if (d->forbid_writes)
		fail("a write to block %llu of a store opened for reading", (unsigned long long)block);
	for (i = 0; i < nr; i++) {
		if (enter(d, "write", block + i, 1))
			return -EIO;
		write_block(d, block + i, (const u8 *)buf + i * SD_BLOCK_SIZE, 0, 0);
	}
	return 0;
}

static int op_flush(void *ctx)
{
	struct simdev *d = ctx;

	if (enter(d, "flush", 0, 0) || simdev_flush(d))
		return -EIO;
	return enter(d, "flushed", 0, 0);
}

static int op_get(void *ctx, u64 block, struct sd_buf *buf)
{
	struct simdev *d = ctx;
	struct blk *b;

	if (enter(d, "get", block, 1))
		return -EIO;
	b = d->cache[block];
	if (!b) {
		b = image_get(&d->now, block);
		if (!b) {
			b = blk_new();
			memset(b->data, 0, SD_BLOCK_SIZE);
		} else {
			b->ref++;
		}
		d->cache[block] = b;
		if (d->nr_cached == d->cap_cached) {
			d->cap_cached = d->cap_cached ? 2 * d->cap_cached : 32;
			d->cached = xrealloc(d->cached, d->cap_cached * sizeof(*d->cached));
		}
		d->cached[d->nr_cached++] = block;
	}
	b->ref++;
	buf->data = b->data;
	buf->validated = &b->valid;
	buf->priv = b;
	return 0;
}

static void op_put(void *ctx, struct sd_buf *buf)
{
	blk_put(buf->priv);
}

static void op_forget(void *ctx, u64 block, u32 nr)
{
	struct simdev *d = ctx;
	u32 i;

	for (i = 0; i < nr; i++) {
		blk_put(d->cache[block + i]);
		d->cache[block + i] = NULL;
	}
}

static const struct sd_dev_ops ops = {
	.read = op_read, .write = op_write, .flush = op_flush, .get = op_get, .put = op_put, .forget = op_forget,
};

void simdev_init(struct simdev *d, u64 nr_blocks)
{
	memset(d, 0, sizeof(*d));
	d->dev.ops = &ops;
	d->dev.ctx = d;
	d->dev.nr_blocks = nr_blocks;
	d->next_io = 1;
	image_init(&d->now, nr_blocks);
	image_init(&d->safe, nr_blocks);
	d->cache = xzalloc(nr_blocks * sizeof(*d->cache));
}

static void image_grow(struct image *im, u64 nr_blocks)
{
	u32 nr = DIV_ROUND_UP(nr_blocks, SLOTS);

	im->page = xrealloc(im->page, nr * sizeof(*im->page));
	memset(im->page + im->nr_pages, 0, (nr - im->nr_pages) * sizeof(*im->page));
	im->nr_pages = nr;
}

void simdev_grow(struct simdev *d, u64 nr_blocks)
{
	image_grow(&d->now, nr_blocks);
	image_grow(&d->safe, nr_blocks);
	d->cache = xrealloc(d->cache, nr_blocks * sizeof(*d->cache));
	memset(d->cache + d->dev.nr_blocks, 0, (nr_blocks - d->dev.nr_blocks) * sizeof(*d->cache));
	d->dev.nr_blocks = nr_blocks;
}

void simdev_exit(struct simdev *d)
{
	u32 i;

	for (i = 0; i < d->nr_cached; i++) {
		blk_put(d->cache[d->cached[i]]);
		d->cache[d->cached[i]] = NULL;	/* a block can be listed twice */
	}
	for (i = 0; i < d->nr_pend; i++)
		blk_put(d->pend[i].b);
	image_exit(&d->now);
	image_exit(&d->safe);
	free(d->cache);
	free(d->cached);
	free(d->pend);
}
