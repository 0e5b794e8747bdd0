/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Damage to a store, block by block: where blocks of each type are, and what can happen to one.
 *
 *	flip	one bit			zero	nothing but zeros		noise	random bytes in one sector
 *	swap	what another block of the same type and level holds
 *	stale	what was written to this place before (a lost write)
 *	forge	fields changed and the checksum made right again: somebody wants to hurt who reads it
 *
 * Only the last can lead to other data than was preserved: whoever can write a right checksum can write a right record.
 */
#ifndef TEST_DAMAGE_H
#define TEST_DAMAGE_H

#include "internal.h"

enum dmg_type { DMG_SUPER, DMG_JOURNAL, DMG_JOURNAL_BODY, DMG_BITMAP, DMG_INDEX, DMG_CATALOG, DMG_FENCE, DMG_LEAF, DMG_DATA, DMG_TYPES };
enum dmg_how { DMG_FLIP, DMG_ZERO, DMG_NOISE, DMG_SWAP, DMG_STALE, DMG_FORGE, DMG_HOWS };

static const char *const dmg_type_names[] = {
	"super", "journal", "journal-body", "bitmap", "index", "catalog", "fence", "leaf", "data",
};
static const char *const dmg_how_names[] = { "flip", "zero", "noise", "swap", "stale", "forge" };

struct dmg_block {
	enum dmg_type type;
	u32 level;		/* fences: 1 is right above the leaves; others 0 */
	u64 addr;
	u64 image;		/* journal: first block of the image */
	u64 seq;		/* journal: of the image */
	bool last;		/* journal: no image says that it is durable: its loss cannot be told from a write that never was */
};

struct dmg_list {
	struct dmg_block *b;
	u32 nr, cap;
};

static inline int dmg_add(struct dmg_list *l, enum dmg_type type, u32 level, u64 addr, u64 image)
{
	if (l->nr == l->cap) {
		u32 cap = l->cap ? 2 * l->cap : 256;
		struct dmg_block *b = realloc(l->b, cap * sizeof(*b));

		if (!b)
			return -ENOMEM;
		l->b = b;
		l->cap = cap;
	}
	l->b[l->nr++] = (struct dmg_block){ .type = type, .level = level, .addr = addr, .image = image };
	return 0;
}

static inline int dmg_scan_tree(struct sd_store *s, struct dmg_list *l, u64 addr, u32 level)
{
	struct sd_disk_fences *b = sd_malloc(SD_BLOCK_SIZE);
	u32 i;
	int err = dmg_add(l, level ? DMG_FENCE : DMG_LEAF, level, addr, 0);

	if (!err)
		err = b ? s->dev->ops->read(s->dev->ctx, addr, 1, b) : -ENOMEM;
	for (i = 0; !err && level && i < le16_to_cpu(b->hdr.nr); i++)
		err = dmg_scan_tree(s, l, le64_to_cpu(b->f[i].addr), level - 1);
	sd_free(b);
	return err;
}

static inline int dmg_scan_journal(struct sd_store *s, const struct sd_disk_super *d, struct dmg_list *l)
{
	struct sd_journal_window w = { .buf = sd_malloc(SD_JOURNAL_WINDOW * SD_BLOCK_SIZE) };
	u64 pos = le64_to_cpu(d->journal_tail), seq = le64_to_cpu(d->journal_seq), addr, durable = 0;
	u32 link = le32_to_cpu(d->journal_link), i;
	const struct sd_disk_journal *image;
	int err = w.buf ? 0 : -ENOMEM, end;

	while (!err) {
		pos = sd_journal_norm(&s->j, pos);
		image = sd_journal_read(s, &w, pos, seq, link, &end);
		if (!image)
			break;
		durable = max(durable, (u64)le64_to_cpu(image->durable_seq));
		addr = s->j.start + pos % s->j.blocks;
		for (i = 0; !err && i < le16_to_cpu(image->hdr.nr); i++) {
			err = dmg_add(l, i ? DMG_JOURNAL_BODY : DMG_JOURNAL, 0, addr + i, addr);
			if (!err)
				l->b[l->nr - 1].seq = seq;
		}
		seq++;
		pos += le16_to_cpu(image->hdr.nr);
		link = le32_to_cpu(image->link);
	}
	for (i = 0; i < l->nr; i++)	/* the last one always, and the one before it when both were under way at once */
		l->b[i].last = l->b[i].seq > durable;
	sd_free(w.buf);
	return err;
}

static inline int dmg_scan_data(struct sd_store *s, struct dmg_list *l)
{
	struct sd_iter it;
	struct sd_rec rec;
	int ret = sd_iter_init(&it, s->cur, 0, U32_MAX);

	if (ret)
		return ret;
	ret = sd_iter_seek(&it, 0, 0);
	while (!ret && (ret = sd_iter_next(&it, &rec, NULL)) > 0)
		ret = rec.kind == SD_KIND_DATA ? dmg_add(l, DMG_DATA, 0, rec.addr, 0) : 0;
	sd_iter_exit(&it);
	return ret;
}

/* Everything that the undamaged store on @dev refers to. -errno, or 0: l->b is the caller's to free */
static inline int dmg_scan(struct sd_dev *dev, struct dmg_list *l)
{
	struct sd_open_opts o = { .read_only = true };
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	struct sd_store *s;
	u32 i, k;
	int err = d ? sd_open(dev, &o, &s) : -ENOMEM;

	if (err) {
		sd_free(d);
		return err;
	}
	err = sd_super_read(s, d);
	if (!err)
		err = dmg_add(l, DMG_SUPER, 0, 0, 0);
	if (!err)
		err = dmg_add(l, DMG_SUPER, 0, 1, 0);
	if (!err)
		err = dmg_scan_journal(s, d, l);
	for (i = 0; !err && i < s->cat.nr_index; i++)
		err = dmg_add(l, DMG_INDEX, 0, s->cat.index_addr[i], 0);
	for (i = 0; !err && i < s->cat.nr; i++)
		err = dmg_add(l, DMG_CATALOG, 0, s->cat.leaf[i]->addr, 0);
	for (i = 0; !err && i < s->alloc.nr_groups; i++)
		if (s->alloc.g[i].flags & SD_GROUP_D_INIT)
			err = dmg_add(l, DMG_BITMAP, 0,
				      s->alloc.start + (u64)i * SD_GROUP_BLOCKS + !!(s->alloc.g[i].flags & SD_GROUP_D_COPY_B), 0);
	for (i = 0; !err && i < s->cur->nr_runs; i++)
		for (k = 0; !err && k < s->cur->runs[i]->nr_segs; k++)
			err = dmg_scan_tree(s, l, s->cur->runs[i]->seg[k].root, s->cur->runs[i]->seg[k].levels);
	if (!err)
		err = dmg_scan_data(s, l);
	sd_close(s);
	sd_free(d);
	return err;
}

static inline u32 dmg_dice(u64 *seed, u32 n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (*seed >> 33) % n;
}

/* One that has what @how needs, of @type and (fences) @level; NULL if there is none. */
static inline const struct dmg_block *dmg_pick(const struct dmg_list *l, enum dmg_type type, u32 level, bool last_too, u64 *seed)
{
	u32 i, n = 0, k;

	for (i = 0; i < l->nr; i++)
		n += l->b[i].type == type && (!level || l->b[i].level == level) && (last_too || !l->b[i].last);
	if (!n)
		return NULL;
	k = dmg_dice(seed, n);
	for (i = 0; ; i++)
		if (l->b[i].type == type && (!level || l->b[i].level == level) && (last_too || !l->b[i].last) && !k--)
			return &l->b[i];
}

/* Values that make trouble. */
static inline u64 dmg_value(u64 old, u64 nr_blocks, u64 *seed)
{
	switch (dmg_dice(seed, 12)) {
	case 0: return 0;
	case 1: return 1;
	case 2: return ~0ull;
	case 3: return ~0ull >> 1;
	case 4: return old + 1;
	case 5: return old - 1;
	case 6: return nr_blocks - 1 - dmg_dice(seed, 3);
	case 7: return dmg_dice(seed, nr_blocks);
	case 8: return 1ull << dmg_dice(seed, 64);
	case 9: return old ^ 1ull << dmg_dice(seed, 64);
	case 10: return 0xffffffffull;
	default: return (u64)dmg_dice(seed, 0x7fffffff) << 33 ^ dmg_dice(seed, 0x7fffffff);
	}
}

static inline u32 dmg_row_size(const struct sd_disk_leaf *b)
{
	u32 size = 0, i;

	for (i = 0; i < SD_COLUMNS; i++)
		size += b->width[i];
	return size;
}

/* Bytes of a block that mean something. */
static inline u32 dmg_used(const struct dmg_block *b, const void *block)
{
	const struct sd_disk_journal *j = block;
	u32 nr = le16_to_cpu(j->hdr.nr), used = SD_BLOCK_SIZE;

	switch (b->type) {
	case DMG_SUPER: used = 440; break;
	case DMG_JOURNAL: used = min(SD_BLOCK_SIZE, 96 + le32_to_cpu(j->payload)); break;
	case DMG_INDEX: used = 64 + 16 * nr; break;
	case DMG_CATALOG: used = 64 + 128 * nr; break;
	case DMG_FENCE: used = 64 + 24 * nr; break;
	case DMG_LEAF: used = 112 + nr * dmg_row_size(block); break;
	default: break;
	}
	return min(max(used, 64u), SD_BLOCK_SIZE);
}

/* Change one field of a block of metadata; mostly one that means something. */
static inline void dmg_forge_field(const struct dmg_block *b, u8 *block, u64 nr_blocks, u64 *seed)
{
	static const u32 header[] = { 16, 40, 40, 42 };	/* txid, nr, level */
	u32 size = 1u << (1 + dmg_dice(seed, 3)), used = dmg_used(b, block), at;
	u64 old = 0, new;

	if (b->type != DMG_JOURNAL_BODY && !dmg_dice(seed, 5))
		at = header[dmg_dice(seed, 4)], size = 2;
	else if (b->type == DMG_LEAF && !dmg_dice(seed, 3))	/* bases and widths */
		at = 64 + dmg_dice(seed, 48 / size) * size;
	else if (b->type == DMG_JOURNAL_BODY || used <= 64)
		at = dmg_dice(seed, SD_BLOCK_SIZE / size) * size;
	else
		at = 64 + dmg_dice(seed, (used - 64) / size) * size;
	memcpy(&old, block + at, size);
	new = dmg_value(old, nr_blocks, seed);
	memcpy(block + at, &new, size);
}

/* The checksum, right again; @image: its whole journal image, in which @block lies, or the block itself. */
static inline void dmg_seal(void *image, u32 blocks)
{
	struct sd_disk_header *h = image;

	h->crc = 0;
	h->crc = cpu_to_le32(crc32c(~0u, image, (size_t)blocks * SD_BLOCK_SIZE));
}

static inline int dmg_forge(struct sd_dev *dev, const struct dmg_block *b, u64 *seed)
{
	u8 *image = sd_zalloc(SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE);
	bool journal = b->type == DMG_JOURNAL || b->type == DMG_JOURNAL_BODY;
	u64 addr = journal ? b->image : b->addr;
	u32 n = 1 + (dmg_dice(seed, 3) ? 0 : dmg_dice(seed, 4)), nr = 1;
	int err = image ? dev->ops->read(dev->ctx, addr, journal ? SD_GROUP_MAX_BLOCKS : 1, image) : -ENOMEM;

	while (!err && n--)
		dmg_forge_field(b, image + (b->addr - addr) * SD_BLOCK_SIZE, dev->nr_blocks, seed);
	if (!err && journal)
		nr = min(max((u32)le16_to_cpu(((struct sd_disk_header *)image)->nr), 1u), SD_GROUP_MAX_BLOCKS);
	if (!err && b->type != DMG_DATA)
		dmg_seal(image, nr);
	if (!err)
		err = dev->ops->write(dev->ctx, addr, nr, image);
	sd_free(image);
	return err;
}

/*
 * Damage @b. @stale: for DMG_STALE, what was there before. Return: 0; -ENOENT: not possible (no other block of this type, nothing older, no
 * change); device's error.
 */
static inline int dmg_apply(struct sd_dev *dev, const struct dmg_list *l, const struct dmg_block *b, enum dmg_how how, const void *stale,
			    u64 *seed)
{
	u8 *old = sd_malloc(SD_BLOCK_SIZE), *new = sd_malloc(SD_BLOCK_SIZE);
	const struct dmg_block *other;
	u32 i, at;
	int err = old && new ? dev->ops->read(dev->ctx, b->addr, 1, old) : -ENOMEM;

	if (err || how == DMG_FORGE) {
		if (!err)
			err = dmg_forge(dev, b, seed);
		goto out;
	}
	memcpy(new, old, SD_BLOCK_SIZE);
	switch (how) {
	case DMG_FLIP:
		at = dmg_dice(seed, SD_BLOCK_SIZE);
		new[at] ^= 1 << dmg_dice(seed, 8);
		break;
	case DMG_ZERO:
		memset(new, 0, SD_BLOCK_SIZE);
		break;
	case DMG_NOISE:
		at = dmg_dice(seed, 8) * 512;
		for (i = 0; i < 512; i++)
			new[at + i] = dmg_dice(seed, 256);
		break;
	case DMG_SWAP:
		other = dmg_pick(l, b->type, b->level, true, seed);
		err = other && other->addr != b->addr ? dev->ops->read(dev->ctx, other->addr, 1, new) : -ENOENT;
		break;
	default:
		if (stale)
			memcpy(new, stale, SD_BLOCK_SIZE);
		break;
	}
	if (!err && !memcmp(old, new, SD_BLOCK_SIZE))
		err = -ENOENT;
	if (!err)
		err = dev->ops->write(dev->ctx, b->addr, 1, new);
out:
	sd_free(old);
	sd_free(new);
	return err;
}

#endif
