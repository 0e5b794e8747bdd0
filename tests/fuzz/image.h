/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A differential volume as a fuzzer's input: the number of blocks, then the blocks that are not zero, with the zeros at their ends cut off.
 *
 *	u32 blocks | { u32 number | u16 length | bytes } …
 */
#ifndef FUZZ_IMAGE_H
#define FUZZ_IMAGE_H

#include "internal.h"

#define IMAGE_BLOCKS	8192u

struct image {
	struct sd_dev dev;
	u8 *block[IMAGE_BLOCKS];	/* NULL: zeros */
};

static inline int image_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct image *m = ctx;

	for (; nr; nr--, block++, buf = (u8 *)buf + SD_BLOCK_SIZE) {
		if (block >= m->dev.nr_blocks)
			return -EIO;
		if (m->block[block])
			memcpy(buf, m->block[block], SD_BLOCK_SIZE);
		else
			memset(buf, 0, SD_BLOCK_SIZE);
	}
	return 0;
}

static inline int image_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	struct image *m = ctx;

	for (; nr; nr--, block++, buf = (const u8 *)buf + SD_BLOCK_SIZE) {
		if (block >= m->dev.nr_blocks)
			abort();	/* the core never writes there */
		if (!m->block[block])
			m->block[block] = sd_malloc(SD_BLOCK_SIZE);
		memcpy(m->block[block], buf, SD_BLOCK_SIZE);
	}
	return 0;
}

static inline int image_flush(void *ctx)
{
	return 0;
}

static inline int image_get(void *ctx, u64 block, struct sd_buf *buf)
{
	buf->data = buf->priv = sd_malloc(SD_BLOCK_SIZE);
	buf->validated = NULL;
	if (!image_read(ctx, block, 1, buf->priv))
		return 0;
	sd_free(buf->priv);
	return -EIO;
}

static inline void image_put(void *ctx, struct sd_buf *buf)
{
	sd_free(buf->priv);
}

static inline void image_forget(void *ctx, u64 block, u32 nr)
{
}

static inline void image_init(struct image *m, u64 blocks)
{
	static const struct sd_dev_ops ops = {
		.read = image_read, .write = image_write, .flush = image_flush, .get = image_get, .put = image_put, .forget = image_forget,
	};

	memset(m, 0, sizeof(*m));
	m->dev.ops = &ops;
	m->dev.ctx = m;
	m->dev.nr_blocks = min_t(u64, blocks, IMAGE_BLOCKS);
}

static inline void image_free(struct image *m)
{
	u32 i;

	for (i = 0; i < IMAGE_BLOCKS; i++)
		sd_free(m->block[i]);
}

/* The record at *off, which moves on; false at the end. */
static inline bool image_next(const u8 *data, size_t size, size_t *off, u32 *number, const u8 **bytes, u16 *len)
{
	if (size < *off + 6)
		return false;
	memcpy(number, data + *off, 4);
	memcpy(len, data + *off + 4, 2);
	*len = min_t(size_t, min_t(u32, *len, SD_BLOCK_SIZE), size - *off - 6);
	*bytes = data + *off + 6;
	*off += 6 + *len;
	return true;
}

static inline bool image_decode(struct image *m, const u8 *data, size_t size)
{
	const u8 *bytes;
	u32 blocks, number;
	size_t off = 4;
	u16 len;

	if (size < 4)
		return false;
	memcpy(&blocks, data, 4);
	image_init(m, blocks);
	while (image_next(data, size, &off, &number, &bytes, &len)) {
		if (number >= m->dev.nr_blocks)
			continue;
		if (!m->block[number])
			m->block[number] = sd_malloc(SD_BLOCK_SIZE);
		memset(m->block[number], 0, SD_BLOCK_SIZE);
		memcpy(m->block[number], bytes, len);
	}
	return true;
}

#endif
