// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * New metadata around data that stays: see rebuild.h.
 *
 * The store is made in memory, empty, with the old one's geometry; the preserved data is marked as in use by the function that replay uses; the records become one run
 * (written to free blocks as they come); and what makes it all durable is an ordinary checkpoint, with the kernel's own code. Its superblock is the
 * commit. Then the other superblock is written, too: neither of the old ones must ever be taken again.
 *
 * Journal images of the old life stay where they are. The new superblock has a higher epoch than any of them and a higher sequence number than any that was
 * called durable: recovery takes none of them for its own, nor for a sign that something is missing.
 */
#include "rebuild.h"

#define SEG_RECORDS	(1u << 20)
#define SEG_MAX		(2u * SEG_RECORDS)	/* with the records of the last chunk, which are not split */
#define SCAN_BLOCKS	64u

int rebuild_check(const struct rebuild_params *p, const struct sd_dev *dev)
{
	u64 start = 2 + p->journal_blocks;

	if (p->chunk_size < SD_BLOCK_SIZE || p->chunk_size > 1u << 20 || !is_power_of_2(p->chunk_size) ||
	    p->journal_blocks < 4 * SD_GROUP_MAX_BLOCKS || p->journal_blocks > p->nr_blocks / 2 || start + 16 > p->nr_blocks)
		return -EINVAL;
	return p->nr_blocks > dev->nr_blocks ? -ENOSPC : 0;
}

static bool image_is_ours(struct sd_store *s, const struct sd_disk_journal *d, u64 addr)
{
	u32 nr = le16_to_cpu(d->hdr.nr);

	return le32_to_cpu(d->hdr.magic) == SD_MAGIC_JOURNAL && le64_to_cpu(d->hdr.addr) == addr &&
	       !memcmp(d->hdr.uuid, s->uuid, sizeof(s->uuid)) && nr && nr <= SD_GROUP_MAX_BLOCKS && addr + nr <= s->j.start + s->j.blocks;
}

/* The highest epoch and sequence number of any image that lies in the journal. What cannot be read is none. */
static int scan_journal(struct sd_store *s, u32 *epoch, u64 *seq)
{
	u8 *buf = sd_malloc((SCAN_BLOCKS + SD_GROUP_MAX_BLOCKS) * SD_BLOCK_SIZE);
	u64 addr, end = s->j.start + s->j.blocks;
	u32 i, n;

	if (!buf)
		return -ENOMEM;
	for (addr = s->j.start; addr < end; addr += n) {
		n = min_t(u64, SCAN_BLOCKS, end - addr);
		for (i = 0; i < n; i++) {
			struct sd_disk_journal *d = (void *)buf;

			if (s->dev->ops->read(s->dev->ctx, addr + i, 1, buf) || !image_is_ours(s, d, addr + i) ||
			    s->dev->ops->read(s->dev->ctx, addr + i, le16_to_cpu(d->hdr.nr), buf) || !image_is_ours(s, d, addr + i) ||
			    sd_block_check(s, d, SD_MAGIC_JOURNAL, addr + i, SD_GROUP_MAX_BLOCKS))
				continue;
			*epoch = max(*epoch, (u32)le32_to_cpu(d->epoch));
			*seq = max(*seq, max((u64)le64_to_cpu(d->hdr.txid), (u64)le64_to_cpu(d->durable_seq)));
		}
	}
	sd_free(buf);
	return 0;
}

/* Whatever is a superblock now, of this store or another, must be older than the new ones. */
static int scan_supers(struct sd_store *s, u32 *epoch, u64 *seq)
{
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	struct sd_store mini = { .dev = s->dev };
	u64 addr;

	if (!d)
		return -ENOMEM;
	for (addr = 0; addr < 2; addr++) {
		if (s->dev->ops->read(s->dev->ctx, addr, 1, d) || le32_to_cpu(d->hdr.magic) != SD_MAGIC_SUPER)
			continue;
		memcpy(mini.uuid, d->hdr.uuid, sizeof(mini.uuid));
		if (sd_block_check(&mini, d, SD_MAGIC_SUPER, addr, 0) || !d->journal_seq)
			continue;
		s->txid = max(s->txid, (u64)le64_to_cpu(d->hdr.txid));
		*epoch = max(*epoch, (u32)le32_to_cpu(d->journal_epoch));
		*seq = max(*seq, (u64)le64_to_cpu(d->journal_seq) - 1);
	}
	sd_free(d);
	return 0;
}

static int start_journal(struct sd_store *s)
{
	u32 epoch = 0;
	u64 seq = 0;
	int err = scan_supers(s, &epoch, &seq);

	if (!err)
		err = scan_journal(s, &epoch, &seq);
	if (err)
		return err;
	if (epoch == U32_MAX || seq == U64_MAX || s->txid > U64_MAX - 4)
		return -EOVERFLOW;
	s->j.epoch = epoch + 1;
	s->j.tail_seq = s->j.next_seq = seq + 1;
	s->j.done_seq = seq;
	return 0;
}

static int make_version(struct sd_store *s)
{
	struct sd_version *v = sd_version_alloc(s, 1);

	if (!v)
		return -ENOMEM;
	sd_version_swap(s, v);
	v->active = sd_mem_alloc(s->mem_records);
	s->spare = sd_mem_alloc(s->mem_records);
	return v->active && s->spare ? 0 : -ENOMEM;
}

int rebuild_begin(struct rebuild *rb, struct sd_dev *dev, const struct rebuild_params *p)
{
	struct sd_store *s;
	int err = rebuild_check(p, dev);

	memset(rb, 0, sizeof(*rb));
	if (err)
		return err;
	s = rb->s = sd_zalloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->dev = dev;
	INIT_LIST_HEAD(&s->versions);
	INIT_LIST_HEAD(&s->group_pool);
	memcpy(s->uuid, p->uuid, sizeof(s->uuid));
	memcpy(s->fingerprint, p->fingerprint, sizeof(s->fingerprint));
	s->state = p->clean ? SD_STATE_CLEAN : SD_STATE_ACTIVE;
	s->chunk_size = p->chunk_size;
	s->chunk_blocks = p->chunk_size >> SD_BLOCK_SHIFT;
	s->nr_blocks = p->nr_blocks;
	s->primary_sectors = p->primary_sectors;
	s->created_ns = p->created_ns;
	s->sum.highest = p->highest;
	s->suspect_gen = p->suspect_gen;
	s->next_id = 2;
	s->next_age = 2;
	s->mem_records = 1024;
	s->j.start = 2;
	s->j.blocks = p->journal_blocks;
	s->alloc.start = s->j.start + s->j.blocks;
	s->alloc.end = s->nr_blocks;
	s->alloc.nr_groups = DIV_ROUND_UP(s->nr_blocks - s->alloc.start, SD_GROUP_BLOCKS);
	s->cat.layout_from = U32_MAX;
	rb->gen_min = U32_MAX;
	rb->old = sd_zalloc(s->alloc.nr_groups * sizeof(*rb->old));
	err = rb->old ? start_journal(s) : -ENOMEM;
	if (!err)
		err = sd_alloc_init(s);
	return err ? err : make_version(s);
}

int rebuild_gen(struct rebuild *rb, const struct sd_gen *gen)
{
	u64 key = SD_CAT_KEY(SD_CAT_GEN, gen->number);
	struct sd_disk_gen d;
	int err;

	if (!gen->number || gen->number > rb->s->sum.highest || gen->state < SD_GEN_LIVE || gen->state > SD_GEN_LOST ||
	    sd_cat_get(rb->s, key) || rb->s->nr_gens >= SD_MAX_GENS)
		return -EINVAL;
	sd_gen_pack(&d, gen);
	err = sd_cat_put(rb->s, key, &d);
	if (!err)
		rb->s->nr_gens++;
	return err;
}

int rebuild_use(struct rebuild *rb, u64 addr, u64 nr)
{
	const struct sd_alloc *a = &rb->s->alloc;
	u64 bit;

	if (addr < a->start || addr >= a->end || nr > a->end - addr)
		return -EINVAL;
	bit = (addr - a->start) % SD_GROUP_BLOCKS;
	if (bit < 2 || bit + nr > SD_GROUP_BLOCKS)
		return -EINVAL;
	return sd_alloc_replay(rb->s, addr, nr);
}

int rebuild_avoid(struct rebuild *rb, u64 addr, u64 nr)
{
	int err = rebuild_use(rb, addr, nr);

	return err ? err : sd_blocks_add(&rb->avoid, addr, nr);
}

void rebuild_count(struct rebuild *rb, u64 records)
{
	rb->left = records;
}

/* ---- records ------------------------------------------------------------------------------------------- */

static int segment_begin(struct rebuild *rb)
{
	u64 records = min_t(u64, rb->left, SEG_MAX);
	int err = sd_alloc_take_list(rb->s, sd_run_blocks(records), &rb->space);

	if (!err)
		err = sd_builder_init(&rb->b, rb->s, rb->s->txid + 1, &rb->space, records);
	rb->building = !err;
	return err;
}

static int segment_end(struct rebuild *rb)
{
	struct sd_segment *seg;
	int err;

	if (!rb->building)
		return 0;
	err = sd_builder_finish(&rb->b);
	rb->building = false;
	seg = err ? NULL : realloc(rb->seg, (rb->nr_seg + 1) * sizeof(*seg));
	if (!err && !seg)
		err = -ENOMEM;
	if (!err) {
		rb->seg = seg;
		seg[rb->nr_seg] = rb->b.seg;
		seg[rb->nr_seg].number = rb->nr_seg;
		rb->nr_seg++;
		sd_alloc_settle(rb->s, &rb->space, rb->b.used);
	}
	sd_builder_exit(&rb->b);
	return err;
}

int rebuild_add(struct rebuild *rb, const struct sd_rec *rec)
{
	int err = 0;

	if (rb->records && (rec->chunk < rb->last.chunk || (rec->chunk == rb->last.chunk && rec->gen <= rb->last.gen)))
		return -EINVAL;
	if (!rb->left || !rec->gen || rec->gen > rb->s->sum.highest || rec->kind < SD_KIND_DATA || rec->kind > SD_KIND_MARK)
		return -EINVAL;
	if (rb->building && rb->b.records >= SEG_RECORDS && rec->chunk != rb->last.chunk)
		err = segment_end(rb);
	if (!err && rb->building && rb->b.records == SEG_MAX)
		err = -EINVAL;
	if (!err && !rb->building)
		err = segment_begin(rb);
	if (!err)
		err = sd_builder_add(&rb->b, rec);
	if (err)
		return err;
	rb->left--;
	rb->records++;
	rb->gen_min = min(rb->gen_min, rec->gen);
	rb->gen_max = max(rb->gen_max, rec->gen);
	rb->last = *rec;
	return 0;
}

/* ---- commit ------------------------------------------------------------------------------------------- */

static int add_run(struct rebuild *rb)
{
	struct sd_store *s = rb->s;
	struct sd_run *r;
	u32 i;
	int err = 0;

	if (!rb->nr_seg)
		return 0;
	r = sd_run_alloc(rb->nr_seg);
	if (!r)
		return -ENOMEM;
	memcpy(r->seg, rb->seg, rb->nr_seg * sizeof(*rb->seg));
	r->id = 1;
	r->age = 1;
	r->records = rb->records;
	r->gen_min = rb->gen_min;
	r->gen_max = rb->gen_max;
	for (i = 0; (u64)SEG_RECORDS << 2 * i < rb->records; i++)
		;
	r->level = i;
	for (i = 0; !err && i < r->nr_segs; i++)
		err = sd_run_store_seg(s, r->id, &r->seg[i]);
	if (!err)
		err = sd_run_store(s, r);
	s->cur->runs[s->cur->nr_runs++] = r;
	return err;
}

int rebuild_commit(struct rebuild *rb)
{
	struct sd_store *s = rb->s;
	u32 i;
	int err = segment_end(rb);

	if (!err)
		err = add_run(rb);
	for (i = 0; !err && i < rb->avoid.nr; i++)
		err = sd_alloc_drop(s, rb->avoid.r[i].addr, rb->avoid.r[i].nr);
	if (err)
		return err;
	/* A dirty page stays in memory, so this flag only decides which of the two copies the new bitmap goes to: not the one the old catalog needs. */
	for (i = 0; i < s->alloc.nr_groups; i++)
		if (s->alloc.g[i].dirty)
			s->alloc.g[i].flags = le16_to_cpu(rb->old[i].flags) & (SD_GROUP_D_INIT | SD_GROUP_D_COPY_B);
	sd_gens_refresh(s);
	err = sd_step_whole(s, SD_STEP_CHECKPOINT);
	return err ? err : sd_super_write_now(s);
}

void rebuild_end(struct rebuild *rb)
{
	if (rb->building)
		sd_builder_exit(&rb->b);
	sd_blocks_clear(&rb->space);
	sd_blocks_clear(&rb->avoid);
	free(rb->seg);
	sd_free(rb->old);
	if (rb->s)
		sd_close(rb->s);
	memset(rb, 0, sizeof(*rb));
}
