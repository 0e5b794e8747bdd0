// SPDX-License-Identifier: GPL-2.0
/* Opening, attaching, detaching, failing. */
#include "internal.h"

/* A table for every 4 blocks of a small device, 256 k records on a large one: 14 MiB each. */
static u32 default_records(u64 nr_blocks)
{
	return min_t(u64, max_t(u64, nr_blocks / 4, 4096), 262144);
}

static void set_bounds(struct sd_store *s)
{
	u32 capacity = default_records(s->nr_blocks);

	if (s->opts.mem_records)
		capacity = max(s->opts.mem_records, 1024u);
	else if (s->opts.memory)	/* three quarters for the two tables, the rest for bitmaps */
		capacity = max(min(capacity * 4, sd_mem_fitting(s->opts.memory / 8 * 3)), 1024u);

#ifdef SD_PLANT		/* the simulator wants full tables often */
	if (s->opts.mem_records)
		capacity = s->opts.mem_records;
#endif

	s->mem_records = min_t(u32, capacity, 1u << 24);
	s->slice_records = min_t(u64, 65536, max_t(u64, s->nr_blocks / 8, 2048));
	/* Two checkpoints, a merge slice, and the catalog with its growth while they run. */
	s->alloc.reserve = 2 * sd_run_blocks(s->mem_records + SD_GROUP_MAX_ITEMS * 8) + 2 * sd_run_blocks(s->slice_records) + 64;
}

static void super_decode(struct sd_store *s, const struct sd_disk_super *d)
{
	memcpy(s->uuid, d->hdr.uuid, sizeof(s->uuid));
	s->txid = le64_to_cpu(d->hdr.txid);
	s->state = le32_to_cpu(d->state);
	s->failed = s->state == SD_STATE_FAILED;
	s->was_clean = s->state == SD_STATE_CLEAN;
	s->chunk_size = le32_to_cpu(d->chunk_size);
	s->chunk_blocks = s->chunk_size >> SD_BLOCK_SHIFT;
	s->nr_blocks = le64_to_cpu(d->nr_blocks);
	s->primary_sectors = le64_to_cpu(d->primary_sectors);
	s->created_ns = le64_to_cpu(d->created_ns);
	s->next_id = le64_to_cpu(d->next_id);
	s->next_age = 1;
	s->suspect_gen = le32_to_cpu(d->suspect_gen);
	s->sum.highest = le32_to_cpu(d->highest_gen);
	memcpy(s->fingerprint, d->fingerprint, sizeof(s->fingerprint));
	s->j.start = le64_to_cpu(d->journal_start);
	s->j.blocks = le64_to_cpu(d->journal_blocks);
	s->j.tail = s->j.head = s->j.done = le64_to_cpu(d->journal_tail);
	s->j.tail_seq = s->j.next_seq = le64_to_cpu(d->journal_seq);
	s->j.done_seq = s->j.tail_seq - 1;
	s->j.tail_link = s->j.head_link = s->j.done_link = le32_to_cpu(d->journal_link);
	s->j.epoch = le32_to_cpu(d->journal_epoch);
	s->catalog_seq = le64_to_cpu(d->catalog_seq);
	s->alloc.start = le64_to_cpu(d->group_start);
	s->alloc.end = s->nr_blocks;
	s->alloc.nr_groups = le32_to_cpu(d->nr_groups);
}

static int load_index_addrs(struct sd_store *s, const struct sd_disk_super *d)
{
	struct sd_catalog *c = &s->cat;
	u32 i;

	c->nr_index = le32_to_cpu(d->nr_index);
	c->index_addr = sd_zalloc(max(c->nr_index, 1u) * sizeof(u64));
	c->index_txid = sd_zalloc(max(c->nr_index, 1u) * sizeof(u16));
	c->index_step = sd_zalloc(max(c->nr_index, 1u) * sizeof(bool));
	if (!c->index_addr || !c->index_txid || !c->index_step)
		return -ENOMEM;
	for (i = 0; i < c->nr_index; i++) {
		c->index_addr[i] = SD_REF_ADDR(le64_to_cpu(d->index[i]));
		c->index_txid[i] = SD_REF_TXID(le64_to_cpu(d->index[i]));
	}
	return 0;
}

static int load_catalog(struct sd_store *s, const struct sd_disk_super *d)
{
	struct sd_version *v;
	int err = load_index_addrs(s, d);

	if (!err)
		err = sd_cat_load(s);
	if (err)
		return err;
	if (s->cat.nr == 1 && !le16_to_cpu(s->cat.leaf[0]->b->hdr.nr))
		s->cat.leaf[0]->first = 0;
	s->nr_gens = sd_cat_count(s, SD_CAT_GEN);
	if (s->nr_gens > SD_MAX_GENS) {
		sd_complain_block(s, 0, "number of generations in the catalog", SD_MAX_GENS, s->nr_gens);
		return -EUCLEAN;
	}
	err = sd_alloc_init(s);
	if (err)
		return err;
	if (s->opts.memory)
		sd_alloc_limit(s, s->opts.memory / 4);
	if (s->alloc.free != le64_to_cpu(d->free_blocks)) {
		sd_complain_block(s, 0, "free blocks in the superblock", le64_to_cpu(d->free_blocks), s->alloc.free);
		return -EUCLEAN;
	}
	v = sd_version_alloc(s, sd_cat_count(s, SD_CAT_RUN));
	if (!v)
		return -ENOMEM;
	sd_version_swap(s, v);
	v->active = sd_mem_alloc(s->mem_records);
	s->spare = sd_mem_alloc(s->mem_records);
	if (!v->active || !s->spare)
		return -ENOMEM;
	return sd_run_load_all(s, v);
}

int sd_open(struct sd_dev *dev, const struct sd_open_opts *opts, struct sd_store **store)
{
	struct sd_store *s = sd_zalloc(sizeof(*s));
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	bool dirty = false;
	int err = s && d ? 0 : -ENOMEM;

	if (err) {
		sd_free(d);
		goto out;
	}
	s->super = d;
	s->dev = dev;
	s->opts = *opts;
	INIT_LIST_HEAD(&s->versions);
	INIT_LIST_HEAD(&s->group_pool);
	err = sd_super_read(s, d);
	if (err)
		goto out;
	super_decode(s, d);
	set_bounds(s);
	err = load_catalog(s, d);
	if (!err) {
		sd_gens_refresh(s);
		if (!s->failed)
			err = sd_recover(s, &dirty);
		sd_gens_refresh(s);
	}
	if (!err && dirty && !opts->read_only)
		err = sd_recover_close(s);
out:
	if (err) {
		if (s)
			sd_close(s);
		return err;
	}
	*store = s;
	return 0;
}

void sd_close(struct sd_store *s)
{
	/* Readers have gone (contract): every version can go, whatever its count says of the store's own reference. */
	while (s->versions.next && !list_empty(&s->versions)) {
		struct sd_version *v = list_first_entry(&s->versions, struct sd_version, list);

		list_del(&v->list);
		sd_version_discard(v);
	}
	sd_mem_put(s->spare);
	if (s->group_pool.next)
		sd_group_pool_free(s);
	sd_alloc_exit(s);
	sd_cat_exit(s);
	sd_free(s->super);
	sd_free(s);
}

int sd_attach(struct sd_store *s, u64 primary_sectors)
{
	s->primary_sectors = primary_sectors;
	if (s->failed)
		return 0;	/* nothing is written any more; the volume works without us */
	s->state = SD_STATE_ACTIVE;
	s->j.epoch += !sd_planted(SD_PLANT_NO_EPOCH);
	return sd_super_write_now(s);
}

void sd_suspect(struct sd_store *s)
{
	s->suspect_gen = s->sum.highest;
}

int sd_resize_primary(struct sd_store *s, u64 primary_sectors)
{
	s->primary_sectors = primary_sectors;
	return s->failed ? 0 : sd_super_write_now(s);
}

int sd_detach(struct sd_store *s, const u8 *fingerprint)
{
	int err;

	if (s->failed)
		return -EIO;
	err = sd_step_whole(s, SD_STEP_CHECKPOINT);
	if (err)
		return err;
	memcpy(s->fingerprint, fingerprint, sizeof(s->fingerprint));
	s->state = SD_STATE_CLEAN;
	return sd_super_write_now(s);
}

int sd_store_fail(struct sd_store *s)
{
	bool first = !s->failed, may_write = sd_super_claim(s, true);
	int err;

	if (first) {
		sd_gens_refresh(s);
		sd_complain(s, "store failed: all generations are lost");
	}
	if (s->state == SD_STATE_FAILED)
		return 0;
	if (!may_write)
		return -EBUSY;		/* sd_step_end() makes it durable */
	err = sd_super_write_now(s);
	if (!err) {
		s->state = SD_STATE_FAILED;
		sd_super_write_now(s);	/* in both: with one damaged block nothing may come back */
	}
	return err;
}

static u64 memory(const struct sd_store *s)
{
	const struct sd_version *v = s->cur;
	u64 sum = sd_mem_bytes(v->active) + sd_mem_bytes(v->frozen) + sd_mem_bytes(s->spare) + sd_alloc_bytes(s) + sd_cat_bytes(s);
	u32 i;

	for (i = 0; i < v->nr_runs; i++)
		sum += sizeof(*v->runs[i]) + v->runs[i]->nr_segs * sizeof(struct sd_segment);
	return sum + s->group_pooled * (SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE + SD_BLOCK_SIZE);
}

void sd_info(struct sd_store *s, struct sd_info *i)
{
	sd_version_reap(s);
	memset(i, 0, sizeof(*i));
	memcpy(i->uuid, s->uuid, sizeof(i->uuid));
	memcpy(i->fingerprint, s->fingerprint, sizeof(i->fingerprint));
	i->chunk_size = s->chunk_size;
	i->chunk_blocks = s->chunk_blocks;
	i->primary_sectors = s->primary_sectors;
	i->was_clean = s->was_clean;
	i->suspect_gen = s->suspect_gen;
	i->failed = s->failed;
	i->nr_blocks = s->nr_blocks;
	i->free_blocks = s->alloc.avail;
	i->reserved_blocks = sd_alloc_reserve(s);
	i->journal_blocks = s->j.blocks;
	i->journal_used = sd_journal_used(&s->j);
	i->records_new = sd_mem_count(s->cur->active) + (s->cur->frozen ? sd_mem_count(s->cur->frozen) : 0);
	i->records_run = s->records_run;
	i->nr_runs = s->cur->nr_runs;
	i->nr_gens = s->nr_gens;
	i->txid = s->txid;
	i->meta_written = s->meta_written;
	i->journal_written = s->journal_written;
	i->checkpoints = s->checkpoints;
	i->merges = s->merges;
	i->replayed_groups = s->replayed_groups;
	i->dropped_groups = s->dropped_groups;
	i->memory = memory(s);
}
