// SPDX-License-Identifier: GPL-2.0
/* The two superblocks, written in turn (transaction id modulo 2); the valid one with the higher id wins. */
#include "internal.h"

#define FEATURES_INCOMPAT	0ull

void sd_super_encode(struct sd_store *s, struct sd_disk_super *d)
{
	u32 i;

	memset(d, 0, SD_BLOCK_SIZE);
	d->version = cpu_to_le32(SD_FORMAT_VERSION);
	d->state = cpu_to_le32(s->failed ? SD_STATE_FAILED : s->state);
	d->block_size = cpu_to_le32(SD_BLOCK_SIZE);
	d->chunk_size = cpu_to_le32(s->chunk_size);
	d->nr_blocks = cpu_to_le64(s->nr_blocks);
	d->journal_start = cpu_to_le64(s->j.start);
	d->journal_blocks = cpu_to_le64(s->j.blocks);
	d->group_start = cpu_to_le64(s->alloc.start);
	d->group_blocks = cpu_to_le32(SD_GROUP_BLOCKS);
	d->nr_groups = cpu_to_le32(s->alloc.nr_groups);
	d->primary_sectors = cpu_to_le64(s->primary_sectors);
	d->created_ns = cpu_to_le64(s->created_ns);
	d->journal_tail = cpu_to_le64(s->j.tail);
	d->journal_seq = cpu_to_le64(s->j.tail_seq);
	d->journal_link = cpu_to_le32(s->j.tail_link);
	d->journal_epoch = cpu_to_le32(s->j.epoch);
	d->catalog_seq = cpu_to_le64(s->j.done_seq);
	d->free_blocks = cpu_to_le64(s->alloc.free);
	d->next_id = cpu_to_le64(s->next_id);
	d->highest_gen = cpu_to_le32(s->sum.highest);
	d->nr_index = cpu_to_le32(s->cat.nr_index);
	d->suspect_gen = cpu_to_le32(s->suspect_gen);
	memcpy(d->fingerprint, s->fingerprint, sizeof(d->fingerprint));
	for (i = 0; i < s->cat.nr_index; i++)
		d->index[i] = cpu_to_le64(SD_REF(s->cat.index_addr[i], s->cat.index_txid[i]));
}

int sd_super_write(struct sd_store *s, const struct sd_disk_super *d, u64 txid)
{
	u64 addr = txid & 1;
	int err;

	sd_block_seal(s, (void *)d, SD_MAGIC_SUPER, addr, txid);
	err = s->dev->ops->write(s->dev->ctx, addr, 1, d);
	if (!err && !sd_planted(SD_PLANT_SUPER_UNFLUSHED))
		err = s->dev->ops->flush(s->dev->ctx);
	s->meta_written++;
	if (!err && s->super && s->super != d)
		memcpy(s->super, d, SD_BLOCK_SIZE);
	return err;
}

/* The last durable one. Not from the device, if we have it: should the newer of the two be unreadable for a moment, the older one's catalog would come back, whose blocks are others' by now. */
static int last_super(struct sd_store *s, struct sd_disk_super *last)
{
	if (!s->super)
		return sd_super_read(s, last);
	memcpy(last, s->super, SD_BLOCK_SIZE);
	return 0;
}

/*
 * State, epoch, fingerprint: nothing of the catalog, so what the last transaction said of it and of the journal is repeated. (The catalog in memory may be
 * ahead of it.)
 */
int sd_super_write_now(struct sd_store *s)
{
	struct sd_disk_super *d = sd_malloc_sure(SD_BLOCK_SIZE), *last = sd_malloc_sure(SD_BLOCK_SIZE);
	int err = d && last ? last_super(s, last) : -ENOMEM;

	if (!err) {
		memcpy(d, last, SD_BLOCK_SIZE);
		d->state = cpu_to_le32(s->failed ? SD_STATE_FAILED : s->state);
		d->journal_epoch = cpu_to_le32(s->j.epoch);
		d->primary_sectors = cpu_to_le64(s->primary_sectors);
		d->suspect_gen = cpu_to_le32(s->suspect_gen);
		memcpy(d->fingerprint, s->fingerprint, sizeof(d->fingerprint));
		err = sd_super_write(s, d, le64_to_cpu(last->hdr.txid) + 1);
		if (!err)
			s->txid = le64_to_cpu(last->hdr.txid) + 1;
	}
	sd_free(d);
	sd_free(last);
	return err;
}

/*
 * A step writes its superblock without the store lock, while the store may be failed with it. Only one of the two may write: whoever comes first.
 * @fail: mark the store failed; true if no step is writing. Otherwise: true if the step may write, because the store has not failed.
 */
bool sd_super_claim(struct sd_store *s, bool fail)
{
	bool ok;

	if (s->dev->ops->super_lock)
		s->dev->ops->super_lock(s->dev->ctx);
	if (fail) {
		s->failed = true;
		ok = !s->super_busy;
	} else {
		ok = !s->failed;
		s->super_busy = ok;
	}
	if (s->dev->ops->super_unlock)
		s->dev->ops->super_unlock(s->dev->ctx);
	return ok;
}

/* One of the two; the uuid is not known yet the first time. */
static int read_one(struct sd_store *s, u64 addr, struct sd_disk_super *d)
{
	static const u8 none[SD_UUID_SIZE];
	bool known = memcmp(s->uuid, none, sizeof(none));
	int err = s->dev->ops->read(s->dev->ctx, addr, 1, d);

	if (err)
		return err;
	if (le32_to_cpu(d->hdr.magic) != SD_MAGIC_SUPER)
		return -ENODATA;
	if (!known)
		memcpy(s->uuid, d->hdr.uuid, sizeof(s->uuid));
	err = sd_block_check(s, d, SD_MAGIC_SUPER, addr, 0);
	if (!known)
		memset(s->uuid, 0, sizeof(s->uuid));
	if (!err && (le64_to_cpu(d->hdr.txid) & 1) != addr) {
		sd_complain_block(s, addr, "superblock in the other's place (transaction)", addr, le64_to_cpu(d->hdr.txid));
		err = -EUCLEAN;
	}
	return err;
}

/* Not zero, and so far from the end that counting on never gets there. */
static bool counter_ok(u64 n)
{
	return n && !(n >> 62);
}

static int check_super(struct sd_store *s, const struct sd_disk_super *d)
{
	u64 nr = le64_to_cpu(d->nr_blocks), js = le64_to_cpu(d->journal_start), jn = le64_to_cpu(d->journal_blocks);
	u64 gs = le64_to_cpu(d->group_start);
	u32 chunk = le32_to_cpu(d->chunk_size);
	const char *what = NULL;
	u64 found = 0;

	if (le32_to_cpu(d->version) != SD_FORMAT_VERSION) {
		sd_complain_block(s, le64_to_cpu(d->hdr.addr), "format version of the store is not the one supported", SD_FORMAT_VERSION,
				  le32_to_cpu(d->version));
		return -ENOTSUPP;
	}
	if (le64_to_cpu(d->features_incompat) & ~FEATURES_INCOMPAT) {
		sd_complain(s, "superblock: a feature of the store is not supported");
		return -ENOTSUPP;
	}
	if (nr > s->dev->nr_blocks || nr >> SD_REF_ADDR_BITS) {
		sd_complain_block(s, 0, "device is smaller than its store", nr, s->dev->nr_blocks);
		return -ENOSPC;
	}
	if (le32_to_cpu(d->block_size) != SD_BLOCK_SIZE || chunk < SD_BLOCK_SIZE || chunk > 1u << 20 || !is_power_of_2(chunk))
		what = "block or chunk size", found = chunk;
	else if (js != 2 || jn < 4 * SD_GROUP_MAX_BLOCKS || jn > nr || gs != js + jn || gs + 16 > nr)
		what = "place of the journal", found = js;
	else if (le32_to_cpu(d->group_blocks) != SD_GROUP_BLOCKS ||
		 le32_to_cpu(d->nr_groups) != DIV_ROUND_UP(nr - gs, SD_GROUP_BLOCKS))
		what = "number of groups", found = le32_to_cpu(d->nr_groups);
	else if (le32_to_cpu(d->nr_index) > SD_INDEX_MAX)
		what = "number of index blocks", found = le32_to_cpu(d->nr_index);
	else if (le32_to_cpu(d->state) - 1 > 2)
		what = "state", found = le32_to_cpu(d->state);
	else if (!counter_ok(le64_to_cpu(d->journal_seq)) || !counter_ok(le64_to_cpu(d->journal_tail) + 1) ||
		 !counter_ok(le64_to_cpu(d->catalog_seq) + 1) || !counter_ok(le64_to_cpu(d->hdr.txid) + 1))
		what = "a counter (sequence number of the journal)", found = le64_to_cpu(d->journal_seq);
	else if (le32_to_cpu(d->highest_gen) == U32_MAX)	/* loops go on at the number after it */
		what = "highest generation", found = U32_MAX;
	else if (!le64_to_cpu(d->next_id) || le64_to_cpu(d->next_id) >= U32_MAX)
		what = "id of the next run", found = le64_to_cpu(d->next_id);
	if (!what)
		return 0;
	sd_complain_block(s, le64_to_cpu(d->hdr.addr), what, 0, found);
	return -EUCLEAN;
}

int sd_super_read(struct sd_store *s, struct sd_disk_super *d)
{
	struct sd_disk_super *b = sd_malloc_sure(SD_BLOCK_SIZE);
	int err[2];

	if (!b)
		return -ENOMEM;
	err[0] = read_one(s, 0, d);
	err[1] = read_one(s, 1, b);
	s->super_pair = !err[0] && !err[1] && (le64_to_cpu(b->hdr.txid) + 1 == le64_to_cpu(d->hdr.txid) ||
					       le64_to_cpu(d->hdr.txid) + 1 == le64_to_cpu(b->hdr.txid));
	if (!err[1] && (err[0] || le64_to_cpu(b->hdr.txid) > le64_to_cpu(d->hdr.txid))) {
		memcpy(d, b, SD_BLOCK_SIZE);
		err[0] = 0;
	}
	sd_free(b);
	if (err[0] == -ENODATA && err[1] != -ENODATA)
		return err[1];
	return err[0] ? err[0] : check_super(s, d);
}

/* ---- format ------------------------------------------------------------------------------------------------------- */

static u64 journal_default(u64 nr_blocks)
{
	u64 n = sd_div64(nr_blocks, 32);

	return min_t(u64, max_t(u64, n, 128), 16384);
}

/* How much of a device a store takes: a last group with no room for anything but its bitmaps is left out. */
u64 sd_usable_blocks(u64 dev_blocks, u64 group_start)
{
	u64 rest = dev_blocks - group_start;
	u64 last = rest - sd_div64(rest, SD_GROUP_BLOCKS) * SD_GROUP_BLOCKS;

	return last < 16 ? dev_blocks - last : dev_blocks;
}

int sd_format(struct sd_dev *dev, const struct sd_format_params *p)
{
	u32 chunk = p->chunk_size ? p->chunk_size : SD_BLOCK_SIZE;
	u64 journal = p->journal_blocks ? p->journal_blocks : journal_default(dev->nr_blocks);
	struct sd_disk_super *d;
	struct sd_store *s;
	int err;

	if (chunk < SD_BLOCK_SIZE || chunk > 1u << 20 || !is_power_of_2(chunk) || journal < 4 * SD_GROUP_MAX_BLOCKS)
		return -EINVAL;
	if (dev->nr_blocks >> SD_REF_ADDR_BITS)
		return -EFBIG;
	if (dev->nr_blocks < SD_MIN_DIFF_BLOCKS || journal > dev->nr_blocks / 2)
		return -ENOSPC;
	s = sd_zalloc(sizeof(*s));
	d = sd_zalloc(SD_BLOCK_SIZE);
	err = s && d ? 0 : -ENOMEM;
	if (err)
		goto out;
	s->nr_blocks = sd_usable_blocks(dev->nr_blocks, 2 + journal);
	s->dev = dev;
	memcpy(s->uuid, p->uuid, sizeof(s->uuid));
	s->chunk_size = chunk;
	s->created_ns = p->now_ns;
	s->state = SD_STATE_CLEAN;
	s->j.start = 2;
	s->j.blocks = journal;
	s->j.tail_seq = 1;
	s->next_id = 1;
	s->alloc.start = 2 + journal;
	s->alloc.nr_groups = DIV_ROUND_UP(s->nr_blocks - s->alloc.start, SD_GROUP_BLOCKS);
	s->alloc.free = s->nr_blocks - s->alloc.start - 2ull * s->alloc.nr_groups;
	sd_super_encode(s, d);
	/* The old first block of the journal must not look like this store's: its uuid is another one, or it is none. */
	err = sd_super_write(s, d, 0);
	if (!err)
		err = sd_super_write(s, d, 1);
out:
	sd_free(d);
	sd_free(s);
	return err;
}
