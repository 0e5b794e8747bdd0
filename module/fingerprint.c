// SPDX-License-Identifier: GPL-2.0
/*
 * The fingerprint of a primary: was it written without us between a clean detach and the next attach?
 *
 * Checksums of its first and last 64 KiB (superblocks, logs, backup tables live there) and of samples between; what cannot be read has a mark of its own, which is equal to anything:
 * a bad sector that has come or gone is no sign of a writer. Taken when the
 * last table goes, after the last write; compared before the first one of the next attachment. It cannot prove that nothing was written, but a mounted
 * filesystem does not leave it as it was. After a crash there is none to compare.
 *
 *	le32 version, le32 number of regions, le64 sectors, le32 crc of each region
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include "cow.h"

#define FP_VERSION	1u
#define FP_REGIONS	12u
#define FP_EDGE		128u	/* sectors */
#define FP_SAMPLE	8u
#define FP_UNREADABLE	0xbadbad00u

struct fingerprint {
	__le32 version;
	__le32 regions;
	__le64 sectors;
	__le32 crc[FP_REGIONS];
} __packed;
static_assert(sizeof(struct fingerprint) == 64);

/* Region i: the first, the last, and samples at even distances between. */
static void region(sector_t size, unsigned int i, sector_t *start, unsigned int *nr)
{
	*nr = min_t(sector_t, i < 2 ? FP_EDGE : FP_SAMPLE, size);
	if (i == 0)
		*start = 0;
	else if (i == 1)
		*start = size - *nr;
	else
		*start = min_t(sector_t, round_down(div_u64(size, FP_REGIONS - 1) * (i - 1), FP_SAMPLE), size - *nr);
}

static int read_region(struct block_device *bdev, sector_t start, unsigned int nr, struct page *page)
{
	struct bio *bio = bio_alloc(bdev, 1, REQ_OP_READ | REQ_SYNC, GFP_NOIO);
	int err;

	bio->bi_iter.bi_sector = start;
	__bio_add_page(bio, page, nr << SECTOR_SHIFT, 0);
	err = submit_bio_wait(bio);
	bio_put(bio);
	return err;
}

/**
 * snap_fingerprint() - take it
 * @size: sectors of the primary
 * @out: 64 bytes
 *
 * May block. Return: 0; -ENOMEM; -EIO: nothing of it can be read.
 */
int snap_fingerprint(struct block_device *bdev, sector_t size, u8 *out)
{
	unsigned int order = get_order(FP_EDGE << SECTOR_SHIFT);
	struct page *page = alloc_pages(GFP_NOIO | __GFP_COMP, order);
	struct fingerprint *fp = (struct fingerprint *)out;
	unsigned int i, nr, unreadable = 0;
	sector_t start;

	if (!page)
		return -ENOMEM;
	memset(fp, 0, sizeof(*fp));
	fp->version = cpu_to_le32(FP_VERSION);
	fp->regions = cpu_to_le32(FP_REGIONS);
	fp->sectors = cpu_to_le64(size);
	for (i = 0; i < FP_REGIONS; i++) {
		u32 crc = FP_UNREADABLE;

		region(size, i, &start, &nr);
		if (!read_region(bdev, start, nr, page))
			crc = crc32c(~0u, page_address(page), nr << SECTOR_SHIFT);
		else
			unreadable++;
		fp->crc[i] = cpu_to_le32(crc);
	}
	__free_pages(page, order);
	return unreadable == FP_REGIONS ? -EIO : 0;
}

/** snap_fingerprint_same() - are two fingerprints of one primary the same where both could read it? */
bool snap_fingerprint_same(const u8 *a, const u8 *b)
{
	const struct fingerprint *x = (const struct fingerprint *)a, *y = (const struct fingerprint *)b;
	unsigned int i;

	if (memcmp(a, b, offsetof(struct fingerprint, crc)))
		return false;
	for (i = 0; i < FP_REGIONS; i++) {
		u32 c = le32_to_cpu(x->crc[i]), d = le32_to_cpu(y->crc[i]);

		if (c != d && c != FP_UNREADABLE && d != FP_UNREADABLE)
			return false;
	}
	return true;
}
