// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves of runs: packed records.
 *
 * Within a leaf a column of the records (chunk, generation, kind, checksum, address) has values that lie near to each other, so a leaf names for each column a base and a width in
 * bytes, and a record is a row of differences to the bases, one behind the other, each as wide as its column. All rows of a leaf have one size: a search looks at rows in place, and a
 * lookup decodes one record.
 *
 *	header │ base[5] width[5] │ row 0 │ row 1 │ … │ row nr - 1 │ zeros, at least 8 bytes
 *	                            └ chunk - base, gen - base, kind - base, crc - base, addr - base
 *
 * What is read here may come from somebody who wants to hurt us. sd_leaf_valid() is asked once, when a block comes from the device (sd_block_check()), and afterwards nothing can go
 * wrong: the rows end before the end of the block (with 8 bytes to spare: a column is read as 8 bytes and masked), no difference is wider than its column may be, and no sum overflows it,
 * because base + the largest difference of that width does not. (The writer lowers a base where it has to.) Records rise.
 *
 * Whatever the values are, SD_LEAF_FEWEST records fit; so many are assumed wherever room is set aside. No leaf has more than SD_LEAF_MOST.
 */
#include "internal.h"

static const u8 widest[SD_COLUMNS] = { 8, 4, 1, 4, 6 };

_Static_assert((8 + 4 + 1 + 4 + 6) * SD_LEAF_FEWEST <= SD_LEAF_ROWS, "room for the fewest records");

static u64 mask_of(u32 width)
{
	return width ? ~0ull >> (64 - 8 * width) : 0;
}

static u64 load(const u8 *p)
{
	__le64 v;

	memcpy(&v, p, sizeof(v));
	return le64_to_cpu(v);
}

static void store(u8 *p, u64 value)
{
	__le64 v = cpu_to_le64(value);

	memcpy(p, &v, sizeof(v));
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

void sd_leaf_open(struct sd_leaf *l, const void *block)
{
	const struct sd_disk_leaf *b = block;
	u32 i, at = 0;

	l->row = b->row;
	l->nr = le16_to_cpu(b->hdr.nr);
	for (i = 0; i < SD_COLUMNS; i++) {
		l->base[i] = le64_to_cpu(b->base[i]);
		l->mask[i] = mask_of(b->width[i]);
		l->at[i] = at;
		at += b->width[i];
	}
	l->stride = at;
}

static u64 column(const struct sd_leaf *l, const u8 *row, u32 i)
{
	return l->base[i] + (load(row + l->at[i]) & l->mask[i]);
}

static bool key_before(const struct sd_leaf *l, const u8 *row, u64 chunk, u32 gen)
{
	u64 c = column(l, row, SD_COL_CHUNK);

	return c < chunk || (c == chunk && column(l, row, SD_COL_GEN) < gen);
}

static bool in_order(const struct sd_leaf *l)
{
	const u8 *row = l->row;
	u32 i;

	for (i = 1; i < l->nr; i++, row += l->stride)
		if (!key_before(l, row, column(l, row + l->stride, SD_COL_CHUNK), column(l, row + l->stride, SD_COL_GEN)))
			return false;
	return true;
}

bool sd_leaf_valid(const void *block)
{
	const struct sd_disk_leaf *b = block;
	struct sd_leaf l;
	u32 i;

	for (i = 0; i < SD_COLUMNS; i++)
		if (b->width[i] > widest[i] || le64_to_cpu(b->base[i]) > mask_of(widest[i]) - mask_of(b->width[i]))
			return false;
	sd_leaf_open(&l, block);
	return l.nr <= SD_LEAF_MOST && l.nr * l.stride <= SD_LEAF_ROWS && in_order(&l);
}

void sd_leaf_first(const void *block, u64 *chunk, u32 *gen)
{
	struct sd_leaf l;

	sd_leaf_open(&l, block);
	*chunk = column(&l, l.row, SD_COL_CHUNK);
	*gen = column(&l, l.row, SD_COL_GEN);
}

void sd_leaf_get(const struct sd_leaf *l, u32 i, struct sd_rec *rec)
{
	const u8 *row = l->row + i * l->stride;
	u64 crc = column(l, row, SD_COL_CRC), addr = column(l, row, SD_COL_ADDR);
	bool data;

	rec->chunk = column(l, row, SD_COL_CHUNK);
	rec->gen = column(l, row, SD_COL_GEN);
	rec->kind = column(l, row, SD_COL_KIND);
	data = rec->kind == SD_KIND_DATA;
	rec->crc = data ? crc : 0;
	rec->addr = data ? addr : 0;
}

u32 sd_leaf_find(const struct sd_leaf *l, u64 chunk, u32 gen)
{
	u32 lo = 0, hi = l->nr;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (key_before(l, l->row + mid * l->stride, chunk, gen))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* Columns that the record has: checksum and address stand last, and only DATA has them. */
static u32 values(const struct sd_rec *rec, u64 v[SD_COLUMNS])
{
	v[SD_COL_CHUNK] = rec->chunk;
	v[SD_COL_GEN] = rec->gen;
	v[SD_COL_KIND] = rec->kind;
	v[SD_COL_CRC] = rec->crc;
	v[SD_COL_ADDR] = rec->addr;
	return rec->kind == SD_KIND_DATA ? SD_COLUMNS : SD_COL_CRC;
}

void sd_packer_reset(struct sd_packer *p)
{
	u32 i;

	p->nr = p->stride = 0;
	for (i = 0; i < SD_COLUMNS; i++)
		p->col[i] = (struct sd_range){ .min = U64_MAX };
}

static u32 width_of(u64 range)
{
	return (fls64(range) + 7) / 8;
}

/* The record changes what columns hold. False, and nothing has changed: they would be too wide for one more row. */
static bool widen(struct sd_packer *p, const struct sd_rec *rec)
{
	struct sd_range to[SD_COLUMNS];
	u64 v[SD_COLUMNS];
	u32 columns = values(rec, v), i, stride = 0;

	memcpy(to, p->col, sizeof(to));
	for (i = 0; i < SD_COLUMNS; i++) {
		if (i < columns) {
			to[i].min = min(to[i].min, v[i]);
			to[i].max = max(to[i].max, v[i]);
			to[i].width = width_of(to[i].max - to[i].min);
			to[i].mask = mask_of(to[i].width);
		}
		stride += to[i].width;
	}
	if ((p->nr + 1) * stride > SD_LEAF_ROWS)
		return false;
	memcpy(p->col, to, sizeof(to));
	p->stride = stride;
	return true;
}

/* As wide as it is, the column has room for the value. */
static bool takes(struct sd_range *c, u64 v)
{
	if (v - c->min > c->mask)
		return false;
	c->max = max(c->max, v);	/* of a record that another column does not take, too: no harm, the width stays */
	return true;
}

/* Nearly all records of a leaf change no width. */
static bool fits_in(struct sd_packer *p, const struct sd_rec *rec)
{
	if (!p->nr || !takes(&p->col[SD_COL_CHUNK], rec->chunk) || !takes(&p->col[SD_COL_GEN], rec->gen) || !takes(&p->col[SD_COL_KIND], rec->kind))
		return false;
	return rec->kind != SD_KIND_DATA || (takes(&p->col[SD_COL_CRC], rec->crc) && takes(&p->col[SD_COL_ADDR], rec->addr));
}

bool sd_packer_add(struct sd_packer *p, const struct sd_rec *rec)
{
	if (p->nr == p->most || (p->nr + 1) * p->stride > SD_LEAF_ROWS)
		return false;
	if (!fits_in(p, rec) && !widen(p, rec))
		return false;
	p->rec[p->nr++] = *rec;
	return true;
}

/* Each column is written as 8 bytes: what is behind it is zero, and written next. */
static void write_rows(const struct sd_packer *p, const u64 *base, u8 *at)
{
	u32 chunk = p->col[SD_COL_CHUNK].width, gen = p->col[SD_COL_GEN].width, kind = p->col[SD_COL_KIND].width;
	u32 crc = p->col[SD_COL_CRC].width, addr = p->col[SD_COL_ADDR].width;
	const struct sd_rec *r;

	for (r = p->rec; r < p->rec + p->nr; r++) {
		bool data = r->kind == SD_KIND_DATA;

		store(at, r->chunk - base[SD_COL_CHUNK]);
		at += chunk;
		store(at, r->gen - base[SD_COL_GEN]);
		at += gen;
		store(at, r->kind - base[SD_COL_KIND]);
		at += kind;
		store(at, data ? r->crc - base[SD_COL_CRC] : 0);
		at += crc;
		store(at, data ? r->addr - base[SD_COL_ADDR] : 0);
		at += addr;
	}
}

void sd_packer_write(const struct sd_packer *p, struct sd_disk_leaf *b)
{
	u64 base[SD_COLUMNS];
	u32 i;

	memset(b, 0, sizeof(*b));
	b->hdr.nr = cpu_to_le16(p->nr);
	for (i = 0; i < SD_COLUMNS; i++) {
		const struct sd_range *c = &p->col[i];

		base[i] = c->min > c->max ? 0 : min(c->min, mask_of(widest[i]) - c->mask);
		b->base[i] = cpu_to_le64(base[i]);
		b->width[i] = c->width;
	}
	write_rows(p, base, b->row);
}
