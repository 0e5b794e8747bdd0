// SPDX-License-Identifier: GPL-2.0
/*
 * The fingerprint of a primary: was it written without us?
 *
 * Hashes of parts of it, taken when the last table goes, after the last write, and compared before the first one of the next attachment:
 *
 *	0	the first 2 MiB: superblocks with their stamps of the last mount and the last write (ext4: at 1 KiB, xfs: at 0, btrfs: at 64 KiB), partition
 *		tables, LVM's metadata, and what begins at 1 MiB, as most first partitions and first extents of LVM do
 *	1	the last 1 MiB: backup tables, md
 *	2	the first 72 KiB of each of the first 16 partitions (MBR or GPT): their filesystems' superblocks
 *	3-10	64 samples of 4 KiB at even distances, each in one of eight hashes
 *
 * What it cannot see: a write that changes none of these. No filesystem can be mounted for writing and unmounted without; a program that writes some blocks in the
 * middle of a device can.
 *
 * After a crash nothing tells what the primary looked like at that moment, but the changed set tells what we have written since the fingerprint was taken, if there
 * is a generation that is as old as the fingerprint: the parts without a chunk in it must be as they were. (A mount through us has written the superblock, so a
 * mount without us after a crash is not seen here. What is left is doubt, see snap_store_attach().)
 *
 * A part that cannot be read, then or now, is left out: a bad sector that has come or gone is no sign of a writer.
 *
 * The hash is no CRC: ext4's superblock ends with its own CRC32C, and the CRC32C of something with its CRC32C behind it is always the same.
 *
 *	le32 version, le32 highest generation, le64 sectors, le32 0, le32 hash of each part
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/siphash.h>
#include <linux/vmalloc.h>
#include "cow.h"

#define FP_VERSION	2u
#define FP_PARTS	11u
#define FP_PIECE	128u	/* sectors read at once */
#define FP_HEAD		4096u	/* sectors */
#define FP_TAIL		2048u
#define FP_START	144u	/* of a partition */
#define FP_PARTITIONS	16u
#define FP_SAMPLES	64u
#define FP_SAMPLE	8u
#define FP_UNREADABLE	0xbadbad00u

struct fingerprint {
	__le32 version;
	__le32 highest;
	__le64 sectors;
	__le32 reserved;
	__le32 hash[FP_PARTS];
} __packed;
static_assert(sizeof(struct fingerprint) == 64);

/* One look at a primary. */
struct look {
	struct block_device *bdev;
	sector_t size;
	void *buf;			/* FP_PIECE, vmalloc: in one piece it may not be had, and without a fingerprint the detach is not clean */
	sector_t partition[FP_PARTITIONS];
	unsigned int nr_partitions;
	bool no_table;			/* the sectors that say where they are cannot be read */
	bool (*written)(void *ctx, sector_t start, sector_t nr);	/* leave parts out of which this is true; NULL: none */
	void *ctx;
};

#define PART_LEFT_OUT	1	/* beside 0 and -errno */

static int read_piece(struct look *l, sector_t start, unsigned int nr)
{
	unsigned int bytes = nr << SECTOR_SHIFT, done, len;
	struct bio *bio = bio_alloc(l->bdev, DIV_ROUND_UP(bytes, PAGE_SIZE), REQ_OP_READ | REQ_SYNC, GFP_NOIO);
	int err;

	bio->bi_iter.bi_sector = start;
	for (done = 0; done < bytes; done += len) {
		len = min_t(unsigned int, bytes - done, PAGE_SIZE);
		__bio_add_page(bio, vmalloc_to_page(l->buf + done), len, 0);
	}
	err = submit_bio_wait(bio);
	bio_put(bio);
	invalidate_kernel_vmap_range(l->buf, bytes);
	return err;
}

/* Add a stretch to a part's hash. */
static int stretch(struct look *l, sector_t start, sector_t nr, u64 *hash)
{
	siphash_key_t key = { .key = { 0, FP_VERSION } };
	unsigned int len;
	int err = 0;

	if (start >= l->size)
		return 0;
	nr = min(nr, l->size - start);
	if (l->written && l->written(l->ctx, start, nr))
		return PART_LEFT_OUT;
	for (; nr; start += len, nr -= len) {
		len = min_t(sector_t, nr, FP_PIECE);
		err = read_piece(l, start, len);
		if (err)
			break;
		key.key[0] = *hash;
		*hash = siphash(l->buf, len << SECTOR_SHIFT, &key);
	}
	return err;
}

/* ---- partitions ---------------------------------------------------------------------------------- */

static void add_partition(struct look *l, u64 start)
{
	if (start && start < l->size && l->nr_partitions < FP_PARTITIONS)
		l->partition[l->nr_partitions++] = start;
}

static void find_gpt(struct look *l, const u8 *p, unsigned int len)
{
	unsigned int lbs = bdev_logical_block_size(l->bdev), i, size, nr;
	const u8 *h = p + lbs;
	u64 at;

	if (memcmp(h, "EFI PART", 8))
		return;
	at = get_unaligned_le64(h + 72);
	nr = min(get_unaligned_le32(h + 80), 128u);
	size = get_unaligned_le32(h + 84);
	if (size < 128 || size > 4096 || at > len / lbs)
		return;
	for (i = 0; i < nr && at * lbs + (u64)(i + 1) * size <= len; i++)
		add_partition(l, get_unaligned_le64(p + at * lbs + i * size + 32) * (lbs >> SECTOR_SHIFT));
}

static void find_partitions(struct look *l)
{
	unsigned int len = min_t(sector_t, FP_PIECE, l->size) << SECTOR_SHIFT, i;
	const u8 *p = l->buf;

	l->no_table = read_piece(l, 0, len >> SECTOR_SHIFT);
	if (l->no_table || len < 16384 || get_unaligned_le16(p + 510) != 0xaa55)
		return;
	find_gpt(l, p, len);
	for (i = 0; i < 4 && !l->nr_partitions; i++)
		if (p[446 + 16 * i + 4] == 0xee)
			return;
	for (i = 0; i < 4 && l->nr_partitions < 4; i++)
		if (p[446 + 16 * i + 4] && p[446 + 16 * i + 4] != 0xee)
			add_partition(l, (u64)get_unaligned_le32(p + 446 + 16 * i + 8) * (bdev_logical_block_size(l->bdev) >> SECTOR_SHIFT));
}

/* ---- parts ----------------------------------------------------------------------------------------- */

static int partitions(struct look *l, u64 *hash)
{
	unsigned int i;
	int err = 0;

	/* From another table they would begin elsewhere. */
	if (l->no_table || (l->written && l->written(l->ctx, 0, FP_PIECE)))
		return PART_LEFT_OUT;
	for (i = 0; i < l->nr_partitions && !err; i++)
		err = stretch(l, l->partition[i], FP_START, hash);
	return err;
}

static int samples(struct look *l, unsigned int first, u64 *hash)
{
	unsigned int i;
	int err = 0;

	for (i = first; i < FP_SAMPLES && !err; i += FP_PARTS - 3)
		err = stretch(l, round_down(div_u64(l->size, FP_SAMPLES + 1) * (i + 1), FP_SAMPLE), FP_SAMPLE, hash);
	return err;
}

/* 0, PART_LEFT_OUT, -errno */
static int part(struct look *l, unsigned int i, u32 *out)
{
	u64 hash = 0;
	int ret;

	if (i == 0)
		ret = stretch(l, 0, FP_HEAD, &hash);
	else if (i == 1)
		ret = stretch(l, l->size - min_t(sector_t, FP_TAIL, l->size), FP_TAIL, &hash);
	else if (i == 2)
		ret = partitions(l, &hash);
	else
		ret = samples(l, i - 3, &hash);
	*out = (u32)(hash ^ hash >> 32);
	if (*out == FP_UNREADABLE)
		*out = ~FP_UNREADABLE;
	return ret;
}

static int look_begin(struct look *l)
{
	l->buf = __vmalloc(FP_PIECE << SECTOR_SHIFT, GFP_NOIO);
	if (!l->buf)
		return -ENOMEM;
	find_partitions(l);
	return 0;
}

static void look_end(struct look *l)
{
	vfree(l->buf);
}

/**
 * snap_fingerprint() - take it
 * @size: sectors of the primary
 * @highest: the highest generation that was created
 * @out: 64 bytes
 *
 * May block; reads up to 5 MiB. Return: 0; -ENOMEM; -EIO: nothing of it can be read.
 */
int snap_fingerprint(struct block_device *bdev, sector_t size, u32 highest, u8 *out)
{
	struct look l = { .bdev = bdev, .size = size };
	struct fingerprint *fp = (struct fingerprint *)out;
	unsigned int i, seen = 0;
	int err = look_begin(&l);

	if (err)
		return err;
	memset(fp, 0, sizeof(*fp));
	fp->version = cpu_to_le32(FP_VERSION);
	fp->highest = cpu_to_le32(highest);
	fp->sectors = cpu_to_le64(size);
	for (i = 0; i < FP_PARTS; i++) {
		u32 hash;

		if (part(&l, i, &hash))
			hash = FP_UNREADABLE;
		else
			seen++;
		fp->hash[i] = cpu_to_le32(hash);
	}
	look_end(&l);
	return seen ? 0 : -EIO;
}

/** snap_fingerprint_highest() - the generation up to which there were any when it was taken; 0: it is none. Any context */
u32 snap_fingerprint_highest(const u8 *fingerprint)
{
	const struct fingerprint *fp = (const struct fingerprint *)fingerprint;

	return le32_to_cpu(fp->version) == FP_VERSION ? le32_to_cpu(fp->highest) : 0;
}

/**
 * snap_fingerprint_differs() - is the primary another one than it was?
 * @fingerprint: of then
 * @written: may be NULL; true for a stretch that may have been written through us since
 *
 * May block. Return: 1: yes; 0: not as far as can be seen; -ENOMEM; -EIO: nothing of it can be read.
 */
int snap_fingerprint_differs(struct block_device *bdev, const u8 *fingerprint, bool (*written)(void *ctx, sector_t start, sector_t nr), void *ctx)
{
	const struct fingerprint *fp = (const struct fingerprint *)fingerprint;
	struct look l = { .bdev = bdev, .size = le64_to_cpu(fp->sectors), .written = written, .ctx = ctx };
	unsigned int i, seen = 0;
	int err;

	if (le32_to_cpu(fp->version) != FP_VERSION)
		return 0;
	if (!l.size || l.size > bdev_nr_sectors(bdev))	/* 0: not by us, and nothing to read */
		return 1;
	err = look_begin(&l);
	for (i = 0; i < FP_PARTS && !err; i++) {
		u32 hash;

		if (part(&l, i, &hash))
			continue;
		seen++;
		if (le32_to_cpu(fp->hash[i]) != FP_UNREADABLE)
			err = hash != le32_to_cpu(fp->hash[i]);
	}
	if (l.buf)
		look_end(&l);
	return err || seen || written ? err : -EIO;
}
