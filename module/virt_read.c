// SPDX-License-Identifier: GPL-2.0
/*
 * How a read of /dev/snapvirtN is served, in rounds:
 *
 *     take a view ─ look up all chunks of the bio ─┬─ ZERO   fill
 *                                                  ├─ BAD    the read fails
 *                                                  ├─ DATA   read from the diff, compare the checksum of every chunk
 *                                                  └─ NONE   read from the primary, then LOOK AGAIN
 *     chunks that got a record while the primary was read are read again in the next round, from the diff, with a fresh view.
 *
 * The view is held until the data of the diff has been read and checked, so that its blocks are not used again, and no longer: how long the primary takes to answer is
 * nobody's business but the reader's. Looking again needs no view from before, only its number: the one that is current after the read has every record that was visible
 * when a write was released that the read could have seen.
 *
 * Why no lock against writers is needed: a record is visible before the write that destroys the old content is issued. So if the bytes that came from
 * the primary could have been new ones, the look-again that follows the read sees the record. A chunk moves from NONE to a record
 * once, and an active generation cannot be deleted, so the rounds end; their limit is only a guard. The generation may be lost meanwhile: whether it is
 * readable is asked after all data is in the bio, and the bio is completed only then.
 */
#include <linux/vmalloc.h>
#include "virt.h"

#define DM_MSG_PREFIX	SNAP_NAME

#define VIRT_ROUNDS	16

/* ---- pieces of a bio ----------------------------------------------------------------------------- */

static struct bvec_iter piece_iter(struct bio *bio, unsigned int sector, unsigned int sectors)
{
	struct bvec_iter iter = bio->bi_iter;

	bio_advance_iter(bio, &iter, sector << SECTOR_SHIFT);
	iter.bi_size = sectors << SECTOR_SHIFT;
	return iter;
}

static void piece_zero(struct bio *bio, unsigned int sector, unsigned int sectors)
{
	struct bvec_iter iter, start = piece_iter(bio, sector, sectors);
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, start)
		memzero_bvec(&bv);
}

static void piece_copy(struct bio *bio, unsigned int sector, unsigned int sectors, const char *from)
{
	struct bvec_iter iter, start = piece_iter(bio, sector, sectors);
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_to_bvec(&bv, from);
		from += bv.bv_len;
	}
}

static u32 piece_crc(struct bio *bio, unsigned int sector, unsigned int sectors)
{
	struct bvec_iter iter, start = piece_iter(bio, sector, sectors);
	struct bio_vec bv;
	u32 crc = ~0u;

	__bio_for_each_segment(bv, bio, iter, start) {
		void *p = bvec_kmap_local(&bv);

		crc = crc32c(crc, p, bv.bv_len);
		kunmap_local(p);
	}
	return crc;
}

/* ---- one round of a read ---------------------------------------------------------------------------- */

/* A stretch of chunks [i, i + nr) of the slot's bio, and the sectors of the bio they have. */
struct piece {
	unsigned int i, nr;
	sector_t start;			/* on the virtual volume */
	unsigned int sector, sectors;	/* in the bio */
	bool whole;			/* the bio has all of the chunks */
};

static struct piece piece_of(struct snap_virt_slot *slot, unsigned int i, unsigned int nr)
{
	unsigned int shift = slot->virt->vol->chunk_shift;
	sector_t bio_start = slot->bio->bi_iter.bi_sector;
	sector_t bio_end = bio_end_sector(slot->bio);
	sector_t start = (slot->first + i) << shift;
	sector_t end = (slot->first + i + nr) << shift;
	struct piece p = { .i = i, .nr = nr };

	p.whole = start >= bio_start && end <= bio_end;
	p.start = max(start, bio_start);
	p.sector = p.start - bio_start;
	p.sectors = min(end, bio_end) - p.start;
	return p;
}

/* The next stretch at or behind @i that can be served with one read; false at the end. */
static bool next_piece(struct snap_virt_slot *slot, unsigned int i, struct piece *p)
{
	const struct snap_rec *r;
	unsigned int n = 1;

	i = find_next_bit(slot->todo, slot->nr, i);
	if (i >= slot->nr)
		return false;
	r = &slot->recs[i];
	*p = piece_of(slot, i, 1);
	if (r->kind == SNAP_DATA && !p->whole)
		return true;
	for (; i + n < slot->nr && test_bit(i + n, slot->todo) && r[n].kind == r->kind; n++) {
		if (r->kind != SNAP_DATA)
			continue;
		if (r[n].sector != r[n - 1].sector + slot->virt->vol->chunk_sectors || !piece_of(slot, i + n, 1).whole)
			break;
	}
	*p = piece_of(slot, i, n);
	return true;
}

static void reads_begin(struct snap_virt_reads *r)
{
	r->status = BLK_STS_OK;
	atomic_set(&r->pending, 1);
	reinit_completion(&r->done);
}

static void reads_end_one(struct snap_virt_reads *r)
{
	if (atomic_dec_and_test(&r->pending))
		complete(&r->done);
}

/* When there was none, or all have ended by now, nobody completes anything. */
static int reads_wait(struct snap_virt_reads *r)
{
	if (!atomic_dec_and_test(&r->pending))
		wait_for_completion_io(&r->done);
	return blk_status_to_errno(READ_ONCE(r->status));
}

static void slot_read_end(struct bio *clone)
{
	struct snap_virt_reads *r = clone->bi_private;

	if (clone->bi_status)
		WRITE_ONCE(r->status, clone->bi_status);	/* any one of them will do */
	bio_put(clone);
	reads_end_one(r);
}

/* What a read of ours may take over from the bio it serves: never FUA, PREFLUSH, NOWAIT, POLLED. */
static blk_opf_t read_opf(const struct bio *bio)
{
	return REQ_OP_READ | (bio->bi_opf & (REQ_SYNC | REQ_META | REQ_PRIO));
}

static void slot_read(struct snap_virt_slot *slot, struct snap_virt_reads *r, struct block_device *bdev, sector_t from, const struct piece *p)
{
	struct bio *clone = bio_alloc_clone(bdev, slot->bio, GFP_NOIO, &snap_virt_bios);

	bio_trim(clone, p->sector, p->sectors);
	clone->bi_iter.bi_sector = from;
	clone->bi_opf = read_opf(slot->bio);
	clone->bi_private = r;
	clone->bi_end_io = slot_read_end;
	atomic_inc(&r->pending);
	submit_bio_noacct(clone);
}

/* Start everything that goes straight into the bio's pages. */
static int slot_issue(struct snap_virt_slot *slot)
{
	struct snap_volume *vol = slot->virt->vol;
	struct piece p;
	unsigned int i;

	for (i = 0; next_piece(slot, i, &p); i = p.i + p.nr) {
		switch (slot->recs[p.i].kind) {
		case SNAP_BAD:
			return -EIO;
		case SNAP_ZERO:
			piece_zero(slot->bio, p.sector, p.sectors);
			break;
		case SNAP_DATA:
			if (p.whole)
				slot_read(slot, &slot->diff, vol->diff_bdev, slot->recs[p.i].sector, &p);
			break;
		case SNAP_NONE:
			if (p.start + p.sectors > READ_ONCE(vol->size))	/* the primary has shrunk */
				return -EIO;
			slot_read(slot, &slot->primary, vol->primary_bdev, p.start, &p);
			break;
		}
	}
	return 0;
}

static int chunk_damaged(struct snap_virt_slot *slot, unsigned int i, u32 crc)
{
	const struct snap_rec *r = &slot->recs[i];

	if (likely(crc == r->crc))
		return 0;
	DMERR_LIMIT("%s@%u: chunk %llu at sector %llu of the diff is damaged: checksum %08x, should be %08x", slot->virt->vol->name,
		    slot->virt->gen, slot->first + i, (u64)r->sector, crc, r->crc);
	return -EIO;
}

/* Part of a chunk: the whole chunk into the slot's buffer, so that it can be checked. */
static int slot_read_part(struct snap_virt_slot *slot, const struct piece *p)
{
	struct snap_volume *vol = slot->virt->vol;
	unsigned int bytes = vol->chunk_sectors << SECTOR_SHIFT, done, len;
	sector_t chunk_start = (slot->first + p->i) << vol->chunk_shift;
	struct bio *bio;
	int err;

	bio = bio_alloc_bioset(vol->diff_bdev, DIV_ROUND_UP(bytes, PAGE_SIZE), read_opf(slot->bio), GFP_NOIO, &snap_virt_bios);
	bio->bi_iter.bi_sector = slot->recs[p->i].sector;
	for (done = 0; done < bytes; done += len) {
		len = min_t(unsigned int, bytes - done, PAGE_SIZE);
		__bio_add_page(bio, vmalloc_to_page(slot->buffer + done), len, 0);
	}
	err = submit_bio_wait(bio);
	bio_put(bio);
	if (err)
		return err;
	invalidate_kernel_vmap_range(slot->buffer, bytes);
	err = chunk_damaged(slot, p->i, crc32c(~0u, slot->buffer, bytes));
	if (!err)
		piece_copy(slot->bio, p->sector, p->sectors, slot->buffer + ((p->start - chunk_start) << SECTOR_SHIFT));
	return err;
}

/* The reads of the diff have ended: check what came from there, get the parts of chunks. */
static int slot_check(struct snap_virt_slot *slot)
{
	unsigned int i, k;
	struct piece p, c;
	int err = 0;

	for (i = 0; !err && next_piece(slot, i, &p); i = p.i + p.nr) {
		if (slot->recs[p.i].kind != SNAP_DATA)
			continue;
		if (!p.whole) {
			err = slot_read_part(slot, &p);
			continue;
		}
		for (k = p.i; !err && k < p.i + p.nr; k++) {
			c = piece_of(slot, k, 1);
			err = chunk_damaged(slot, k, piece_crc(slot->bio, c.sector, c.sectors));
		}
	}
	return err;
}

/* Leaves in todo what came from the primary and has moved since. */
static int slot_look_again(struct snap_virt_slot *slot, u64 number)
{
	struct snap_virt *v = slot->virt;
	unsigned int i;
	int err;

	for_each_set_bit(i, slot->todo, slot->nr)
		if (slot->recs[i].kind != SNAP_NONE)
			__clear_bit(i, slot->todo);
	if (bitmap_empty(slot->todo, slot->nr))
		return 0;
	bitmap_zero(slot->again, slot->nr);
	err = snap_view_look_again(v->vol->store, number, slot->first, slot->nr, v->gen, slot->again);
	bitmap_and(slot->todo, slot->todo, slot->again, slot->nr);
	return err;
}

static int slot_round(struct snap_virt_slot *slot)
{
	struct snap_virt *v = slot->virt;
	struct snap_view *view = snap_view_get(v->vol->store);
	u64 number = snap_view_number(view);
	struct blk_plug plug;
	int err, err_diff, err_primary;

	err = snap_view_lookup(v->vol->store, view, slot->first, slot->nr, v->gen, slot->recs);
	if (err) {
		snap_view_put(view);
		return err;
	}
	reads_begin(&slot->diff);
	reads_begin(&slot->primary);
	blk_start_plug(&plug);
	err = slot_issue(slot);
	blk_finish_plug(&plug);
	err_diff = reads_wait(&slot->diff);
	if (!err)
		err = err_diff;
	if (!err)
		err = slot_check(slot);
	snap_view_put(view);
	err_primary = reads_wait(&slot->primary);
	if (!err)
		err = err_primary;
	return err ?: slot_look_again(slot, number);
}

int snap_virt_read(struct snap_virt_slot *slot)
{
	struct snap_virt *v = slot->virt;
	unsigned int shift = v->vol->chunk_shift;
	unsigned int round;
	int err = 0;

	slot->first = slot->bio->bi_iter.bi_sector >> shift;
	slot->nr = ((bio_end_sector(slot->bio) - 1) >> shift) - slot->first + 1;
	if (WARN_ON_ONCE(slot->nr > VIRT_BIO_CHUNKS))
		return -EIO;
	bitmap_fill(slot->todo, slot->nr);
	for (round = 0; !err && !bitmap_empty(slot->todo, slot->nr); round++)
		err = round < VIRT_ROUNDS ? slot_round(slot) : -EIO;
	if (!err && !snap_store_gen_readable(v->vol->store, v->gen))
		err = -EIO;
	return err;
}
