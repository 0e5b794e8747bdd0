// SPDX-License-Identifier: GPL-2.0
/*
 * The journal: the logical redo log since the last checkpoint.
 *
 * A circle of blocks; each commit group is one image of 1 to 8 blocks that never crosses the end. Positions are absolute (blocks since format, skipped ends
 * included), so that used = head - tail. A group is the next one of the log iff its sequence number, its epoch and the link to the image before it
 * (a chain) are what they have to be; the first that is not ends the log (recover.c: unless something shows that it is damage). The link is made from the payload when a group is sealed, and stays when its image
 * has to be rebuilt (other addresses for its data): images of later groups, which may be on disk already, refer to it.
 *
 *	tail ........ done ........ head
 *	  committed     in flight     next to be sealed
 *
 * Data and image are written in parallel. Each image says which group was known durable when it was sealed (durable_seq); recovery trusts groups up
 * to the highest such number it finds, and checks the data of later ones against the checksums in their records: what was not
 * complete was not released either, so the primary still has the old content and the group is dropped with all behind it. New images are only written
 * after a checkpoint with a new epoch, so what is left of dropped groups can never be taken for part of the log again.
 */
#include "internal.h"

u64 sd_journal_norm(const struct sd_journal *j, u64 pos)
{
	u64 off = pos - sd_div64(pos, j->blocks) * j->blocks;

	return j->blocks - off < SD_GROUP_MAX_BLOCKS ? pos + j->blocks - off : pos;
}

static u64 journal_addr(const struct sd_journal *j, u64 pos)
{
	return j->start + pos - sd_div64(pos, j->blocks) * j->blocks;
}

u64 sd_journal_used(const struct sd_journal *j)
{
	return j->head - j->tail;
}

bool sd_journal_room(const struct sd_journal *j)
{
	return sd_journal_norm(j, j->head) + SD_GROUP_MAX_BLOCKS - j->tail <= j->blocks;
}

void sd_journal_seal(struct sd_store *s, void *image, u32 blocks, u32 payload, u64 seq, u64 pos, u32 prev_link, u32 link)
{
	struct sd_disk_journal *d = image;

	d->hdr.nr = cpu_to_le16(blocks);
	d->durable_seq = cpu_to_le64(sd_planted(SD_PLANT_DURABLE_AHEAD) ? seq : s->j.done_seq);
	d->epoch = cpu_to_le32(s->j.epoch);
	d->prev_link = cpu_to_le32(prev_link);
	d->link = cpu_to_le32(link);
	d->payload = cpu_to_le32(payload);
	sd_block_seal(s, image, SD_MAGIC_JOURNAL, journal_addr(&s->j, pos), seq);
}

/* The blocks [addr, addr + nr) of the journal, from the window; it moves when they are not in it. NULL: *err. */
static const void *window_get(struct sd_store *s, struct sd_journal_window *w, u64 addr, u32 nr, int *err)
{
	u64 left = s->j.start + s->j.blocks - addr;

	*err = 0;
	if (addr < w->addr || addr + nr > w->addr + w->nr) {
		w->addr = addr;
		w->nr = min_t(u64, left, SD_JOURNAL_WINDOW);
		*err = s->dev->ops->read(s->dev->ctx, addr, w->nr, w->buf);
		if (*err)
			w->nr = 0;
	}
	return *err ? NULL : (const u8 *)w->buf + (addr - w->addr) * SD_BLOCK_SIZE;
}

const void *sd_journal_read(struct sd_store *s, struct sd_journal_window *w, u64 pos, u64 seq, u32 prev_link, int *err)
{
	u64 addr = journal_addr(&s->j, pos);
	const struct sd_disk_journal *d = window_get(s, w, addr, 1, err);
	u32 nr;

	if (*err)
		return NULL;
	nr = le16_to_cpu(d->hdr.nr);
	*err = -ENODATA;
	if (le32_to_cpu(d->hdr.magic) != SD_MAGIC_JOURNAL || le64_to_cpu(d->hdr.txid) != seq || !nr || nr > SD_GROUP_MAX_BLOCKS ||
	    le32_to_cpu(d->epoch) != s->j.epoch || (le32_to_cpu(d->prev_link) != prev_link && !sd_planted(SD_PLANT_NO_EPOCH)) ||
	    le32_to_cpu(d->payload) > nr * SD_BLOCK_SIZE - sizeof(*d) || nr > s->j.start + s->j.blocks - addr)
		return NULL;
	d = window_get(s, w, addr, nr, err);
	if (!*err && sd_block_check(s, d, SD_MAGIC_JOURNAL, addr, SD_GROUP_MAX_BLOCKS))
		*err = -ENODATA;
	return *err ? NULL : d;
}
