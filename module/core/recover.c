// SPDX-License-Identifier: GPL-2.0
/*
 * Replay of the journal (journal.c has the argument). First pass: where the log ends, what was known durable. Second pass: apply, checking the data
 * of the groups that were not; the first one with wrong data ends the log.
 *
 * The end of the log looks the same whether it is one or a block in the middle has rotted, or the newer superblock has and this is the older one. But what comes
 * after such a place still lies in the journal, and says so: no valid image can be of a later attachment than the superblock's, and none can have
 * called a group durable that is not found now. The last pass looks for that; then it is damage, and the generations are
 * refused rather than served without the records that are missing.
 *
 * How far it looks: images are written one behind the other, so those that know of a lost one begin behind it, at most as far away as the groups reach that
 * were in flight together (LOOK_AHEAD is some times that). After a clean detach nothing was in flight; what could be there is the
 * first image of an attachment whose superblock has been lost. Only when one of the superblocks cannot be read, or they are not of
 * consecutive transactions, anything is possible: then it is the whole journal. So attaching costs what is in the log, not what the journal could hold.
 *
 * What was replayed is written as a run, in a checkpoint like any other. There is room for it: alloc.c says why. Should there be none nevertheless (a
 * store that was filled by a version which did not keep it), then runs are merged first, with the log and its epoch as they are, and if that is not enough
 * generations are given up, the oldest first, in the catalog of the next such transaction; replay leaves what the catalog says (catalog_seq). When nothing is kept any more merges need
 * no room, but a catalog's. Without even that the store fails, which takes its superblocks only: it can be attached in any case. Only where bitmaps are
 * damaged nothing is given up: a repair rebuilds them, and nothing has been lost.
 */
#include "group.h"

#define LOOK_CLEAN	SD_JOURNAL_WINDOW
#define LOOK_AHEAD	(128 * SD_GROUP_MAX_BLOCKS)

struct pass {
	u64 pos, seq;
	u32 link;
	const void *image;	/* in the window */
	struct sd_journal_window w;
};

static void pass_start(struct sd_store *s, struct pass *p)
{
	p->pos = sd_journal_norm(&s->j, s->j.tail);
	p->seq = s->j.tail_seq;
	p->link = s->j.tail_link;
}

static int pass_read(struct sd_store *s, struct pass *p)
{
	int err;

	p->pos = sd_journal_norm(&s->j, p->pos);
	p->image = sd_journal_read(s, &p->w, p->pos, p->seq, p->link, &err);
	return err;
}

static void pass_next(struct pass *p)
{
	const struct sd_disk_journal *d = p->image;

	p->pos += le16_to_cpu(d->hdr.nr);
	p->link = le32_to_cpu(d->link);
	p->seq++;
}

static u32 count_copies(const void *image)
{
	const struct sd_op_header *h;
	u32 off = 0, n = 0;

	while ((h = sd_group_next_op(image, &off)))
		if (h->op == SD_OP_COPIES)
			n += le16_to_cpu(h->count);
	return n;
}

static int survey(struct sd_store *s, struct pass *p, u64 *groups, u64 *copies, u64 *durable)
{
	int err;

	*groups = *copies = *durable = 0;
	for (pass_start(s, p); !(err = pass_read(s, p)); pass_next(p)) {
		const struct sd_disk_journal *d = p->image;

		*durable = max(*durable, (u64)le64_to_cpu(d->durable_seq));
		*copies += count_copies(p->image);
		if (++*groups > s->j.blocks)
			return -EUCLEAN;	/* cannot be: the circle would hold more images than blocks */
	}
	return err == -ENODATA ? 0 : err;
}

/* Is the data of all copies of the image what the records say? 0, -ENODATA (no), device error. */
static int check_data(struct sd_store *s, const void *image, void *chunk)
{
	const struct sd_op_header *h;
	u32 off = 0, i;
	int err;

	while ((h = sd_group_next_op(image, &off))) {
		const struct sd_op_copies *op = (const void *)h;
		const struct sd_op_copy *c = (const void *)(op + 1);
		u64 addr = le64_to_cpu(op->addr);

		for (i = 0; h->op == SD_OP_COPIES && i < le16_to_cpu(h->count); i++) {
			if (le64_to_cpu(c[i].chunk) >> SD_WHERE_KIND_SHIFT != SD_KIND_DATA)
				continue;
			if (addr >= s->nr_blocks || s->nr_blocks - addr < s->chunk_blocks)
				return -ENODATA;
			err = s->dev->ops->read(s->dev->ctx, addr, s->chunk_blocks, chunk);
			if (err)
				return err;
			if (crc32c(~0u, chunk, s->chunk_size) != le32_to_cpu(c[i].crc))
				return -ENODATA;
			addr += s->chunk_blocks;
		}
	}
	return 0;
}

static int replay(struct sd_store *s, struct pass *p, u64 groups, u64 durable, u64 catalog_seq)
{
	void *chunk = sd_malloc(s->chunk_size);
	u64 n;
	int err = chunk ? 0 : -ENOMEM;

	pass_start(s, p);
	for (n = 0; !err && n < groups; n++) {
		err = pass_read(s, p);
		if (!err && p->seq > durable && !sd_planted(SD_PLANT_NO_DATA_CRC))
			err = check_data(s, p->image, chunk);
		if (!err)
			err = sd_group_apply(s, p->image, s->cur->active,
					     SD_APPLY_REPLAY | (p->seq > catalog_seq || sd_planted(SD_PLANT_CATALOG_AGAIN) ? SD_APPLY_CATALOG : 0));
		if (err)
			break;
		pass_next(p);
	}
	sd_free(chunk);
	s->replayed_groups = n;
	s->dropped_groups = groups - n;
	return err == -ENODATA ? 0 : err;
}

static bool knows_more(struct sd_store *s, const struct sd_disk_journal *d, u64 addr)
{
	u32 nr = le16_to_cpu(d->hdr.nr);

	return le32_to_cpu(d->hdr.magic) == SD_MAGIC_JOURNAL && le64_to_cpu(d->hdr.addr) == addr &&
	       !memcmp(d->hdr.uuid, s->uuid, sizeof(s->uuid)) && nr && nr <= SD_GROUP_MAX_BLOCKS &&
	       nr <= s->j.start + s->j.blocks - addr &&
	       (le32_to_cpu(d->epoch) > s->j.epoch || le64_to_cpu(d->durable_seq) > s->j.done_seq);
}

/* Blocks [addr, addr + nr) of the journal. @image: SD_GROUP_MAX_BLOCKS blocks. 0, -EUCLEAN, device error. */
static int look_at(struct sd_store *s, u64 addr, u32 nr, struct sd_journal_window *w, void *image)
{
	int err = s->dev->ops->read(s->dev->ctx, addr, nr, w->buf);
	u32 i;

	for (i = 0; !err && i < nr; i++) {
		const struct sd_disk_journal *d = (void *)((u8 *)w->buf + (size_t)i * SD_BLOCK_SIZE);

		if (!knows_more(s, d, addr + i))
			continue;
		err = s->dev->ops->read(s->dev->ctx, addr + i, le16_to_cpu(d->hdr.nr), image);
		if (err || !knows_more(s, image, addr + i) || sd_block_check(s, image, SD_MAGIC_JOURNAL, addr + i, SD_GROUP_MAX_BLOCKS))
			continue;
		sd_complain_block(s, addr + i, "the journal knows of groups that are not found (last one)",
				  le64_to_cpu(d->durable_seq), s->j.done_seq);
		err = -EUCLEAN;
	}
	return err;
}

/* From the end of the log on; see the top for how far. */
static int look_for_more(struct sd_store *s, struct pass *p)
{
	u64 off = p->pos - sd_div64(p->pos, s->j.blocks) * s->j.blocks;
	u64 left = !s->super_pair ? s->j.blocks : min_t(u64, s->j.blocks, s->was_clean ? LOOK_CLEAN : LOOK_AHEAD);
	void *image = sd_malloc(SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE);
	int err = image ? 0 : -ENOMEM;
	u32 n;

	p->w.nr = 0;
	for (; !err && left; left -= n, off = off + n == s->j.blocks ? 0 : off + n) {
		n = min_t(u64, min_t(u64, SD_JOURNAL_WINDOW, left), s->j.blocks - off);
		err = look_at(s, s->j.start + off, n, &p->w, image);
	}
	sd_free(image);
	return err;
}

/* *dirty: something was replayed or dropped; the log must be closed by a checkpoint before it goes on. */
int sd_recover(struct sd_store *s, bool *dirty)
{
	struct pass p = { .w.buf = sd_malloc(SD_JOURNAL_WINDOW * SD_BLOCK_SIZE) };
	u64 groups = 0, copies, durable;
	int err = p.w.buf ? survey(s, &p, &groups, &copies, &durable) : -ENOMEM;

	if (!err && copies > s->mem_records) {
		/* More than a table takes: only for this once, it becomes a run at once. */
		sd_mem_put(s->cur->active);
		s->cur->active = copies < U32_MAX / 8 ? sd_mem_alloc(copies) : NULL;
		err = s->cur->active ? 0 : -ENOMEM;
	}
	if (!err)
		err = replay(s, &p, groups, durable, s->catalog_seq);
	if (!err) {
		s->j.head = s->j.done = p.pos;
		s->j.done_seq = p.seq - 1;
		s->j.next_seq = p.seq;
		s->j.head_link = s->j.done_link = p.link;
		err = look_for_more(s, &p);
	}
	sd_free(p.w.buf);
	*dirty = groups;
	return err;
}

/* ---- closing the log ------------------------------------------------------------------------------------- */

/* Under a new epoch, with the table as a run. */
static int checkpoint(struct sd_store *s)
{
	int err;

	s->j.epoch += !sd_planted(SD_PLANT_NO_EPOCH);
	err = sd_step_whole(s, SD_STEP_CHECKPOINT);
	if (err)
		s->j.epoch -= !sd_planted(SD_PLANT_NO_EPOCH);
	return err;
}

/* The oldest live generations, *nr of them; without any, what has changed is not known any more. False: nothing is left to give up. */
static bool give_up(struct sd_store *s, u32 *nr)
{
	u32 from = 1, last = 0, n = 0;
	struct sd_gen gen;
	char text[96];

	if (!s->sum.newest_kept)
		return false;
	for (; n < *nr && !sd_gen_next(s, from, &gen); from = gen.number + 1) {
		if (gen.state != SD_GEN_LIVE)
			continue;
		last = gen.number;
		n++;
	}
	scnprintf(text, sizeof(text), n ? "no room to close the log: generations up to %u are given up" :
		  "no room to close the log: changes up to generation %u are not known any more", n ? last : s->sum.highest);
	sd_complain(s, text);
	sd_gens_apply_lose(s, 1, n ? last : s->sum.highest, !n);
	*nr *= 2;
	return true;
}

/* A merge, as long as there are any; else generations go. */
static int make_room(struct sd_store *s, u32 *nr)
{
	int err;

	s->starved = true;	/* whatever there is to reclaim is worth it */
	err = sd_step_whole(s, SD_STEP_MERGE);
	if ((err == -ENODATA || err == -ENOSPC) && s->alloc.damaged) {
		sd_complain(s, "no room to close the log beside groups whose bitmaps are damaged");
		return -EUCLEAN;	/* nothing is lost yet, and a repair finds the room */
	}
	if (err == -ENODATA || err == -ENOSPC)
		return give_up(s, nr) ? 0 : -ENOSPC;
	return s->failed || err == -ENOMEM ? err : 0;	/* damage: that merge is not tried again */
}

/* A table that was made for the whole log would be used in turn from now on: memory is what was asked for. */
static void shrink_spare(struct sd_store *s)
{
	struct sd_mem *m;

	if (sd_mem_count(s->spare) + sd_mem_room(s->spare) <= s->mem_records)
		return;
	m = sd_mem_alloc(s->mem_records);
	if (!m)
		return;
	sd_mem_put(s->spare);
	s->spare = m;
}

int sd_recover_close(struct sd_store *s)
{
	u32 nr = 1;
	int err;

	while ((err = checkpoint(s)) == -ENOSPC && !(err = make_room(s, &nr)))
		;
	if (!err)
		shrink_spare(s);
	if (err != -ENOSPC)
		return err;
	sd_store_fail(s);	/* the volume works without us */
	return 0;
}
