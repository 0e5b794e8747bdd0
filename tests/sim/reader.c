// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An independent reader of the format, written from Documentation/design/ondisk-format.rst alone: offsets are numbers here, nothing of the core's headers is used but
 * its checksum. What it reads from a crashed device is compared with the model; so the document, the recovery and the model have to agree.
 */
#include "sim.h"
#include "reader.h"

#define BLOCK		4096u
#define HEADER		64u

struct rrec {
	u64 chunk, addr;
	u32 gen, crc, kind;
};

struct rgen {
	u32 number, state, flags;
};

struct reading {
	const struct simdev *d;
	const u8 *super;
	u64 nr_blocks, catalog_seq;
	u32 chunk_blocks, highest;
	struct rrec *rec;
	u32 nr_rec, cap_rec;
	struct rgen gen[64];
	u32 nr_gen;
	u8 page[4][120];		/* group descriptors */
};

static u32 get16(const u8 *p)
{
	return p[0] | p[1] << 8;
}

static u32 get32(const u8 *p)
{
	return get16(p) | get16(p + 2) << 16;
}

static u64 get64(const u8 *p)
{
	return get32(p) | (u64)get32(p + 4) << 32;
}

static const u8 *block_at(const struct reading *r, u64 addr)
{
	if (addr >= r->d->dev.nr_blocks)
		fail("reader: block %llu is outside", (unsigned long long)addr);
	return simdev_peek(r->d, addr)->data;
}

/* The header's checksum over @nr blocks that are at @p one behind the other. */
static bool sum_is_right(const u8 *p, u32 nr)
{
	static const u8 zero[4];
	u32 crc = crc32c(~0u, p, 4);

	crc = crc32c(crc, zero, 4);
	crc = crc32c(crc, p + 8, (size_t)nr * BLOCK - 8);
	return crc == get32(p + 4);
}

static bool is_block(const struct reading *r, const u8 *p, const char *magic, u64 addr, u32 nr)
{
	return !memcmp(p, magic, 4) && get64(p + 8) == addr && (!r->super || !memcmp(p + 24, r->super + 24, 16)) && sum_is_right(p, nr);
}

static const u8 *must_read(const struct reading *r, u64 addr, const char *magic, u32 max_nr)
{
	const u8 *p = block_at(r, addr);

	if (!is_block(r, p, magic, addr, 1) || get16(p + 40) > max_nr)
		fail("reader: block %llu is no %s", (unsigned long long)addr, magic);
	return p;
}

/* A reference: 48 bits of address, 16 of the transaction. */
static const u8 *read_ref(const struct reading *r, u64 ref, const char *magic, u32 max_nr)
{
	const u8 *p = must_read(r, ref & ((1ull << 48) - 1), magic, max_nr);

	if (get16(p + 16) != ref >> 48)
		fail("reader: block %llu is of another transaction", (unsigned long long)(ref & ((1ull << 48) - 1)));
	return p;
}

static void find_super(struct reading *r)
{
	const u8 *best = NULL;
	u32 i;

	for (i = 0; i < 2; i++) {
		const u8 *p = block_at(r, i);

		if (is_block(r, p, "SDPS", i, 1) && (!best || get64(p + 16) > get64(best + 16)))
			best = p;
	}
	if (!best)
		fail("reader: no superblock");
	if (get32(best + 64) != 2 || get64(best + 88) || get32(best + 96) != BLOCK)
		fail("reader: version, features, block size");
	r->super = best;
	r->chunk_blocks = get32(best + 100) / BLOCK;
	r->nr_blocks = get64(best + 104);
	r->catalog_seq = get64(best + 272);
	r->highest = get32(best + 200);
}

/* ---- runs ------------------------------------------------------------------------------------- */

static void add_record(struct reading *r, const struct rrec *rec)
{
	if (r->nr_rec == r->cap_rec) {
		r->cap_rec = r->cap_rec ? 2 * r->cap_rec : 256;
		r->rec = xrealloc(r->rec, r->cap_rec * sizeof(*r->rec));
	}
	r->rec[r->nr_rec++] = *rec;
}

/* A leaf: five bases from offset 64 on, five widths at 104, rows at 112. Returns the number of records; those of chunks >= lo count. */
static u32 read_leaf(struct reading *r, const u8 *p, u64 addr, u64 lo)
{
	static const u8 most[5] = { 8, 4, 1, 4, 6 };
	u32 nr = get16(p + 40), size = 0, i, k, n;
	const u8 *e = p + 112;

	for (k = 0; k < 5; k++) {
		size += p[104 + k];
		if (p[104 + k] > most[k])
			fail("reader: width %u of column %u in block %llu", p[104 + k], k, (unsigned long long)addr);
	}
	if (!nr || nr * size > 3976)
		fail("reader: %u rows of %u bytes in block %llu", nr, size, (unsigned long long)addr);
	for (i = 0; i < nr; i++) {
		struct rrec rec;
		u64 v[5];

		for (k = 0; k < 5; k++, e += n) {
			n = p[104 + k];
			v[k] = get64(p + 64 + 8 * k);
			while (n--)
				v[k] += (u64)e[n] << 8 * n;
			n = p[104 + k];
		}
		rec = (struct rrec){ .chunk = v[0], .gen = v[1], .kind = v[2] };
		if (v[2] == 1) {
			rec.crc = v[3];
			rec.addr = v[4];
		}
		if (rec.chunk >= lo)
			add_record(r, &rec);
	}
	return nr;
}

/* Returns how many records are below @addr; those of chunks >= lo count. */
static u64 walk(struct reading *r, u64 addr, u32 level, u64 txid, u64 lo)
{
	const u8 *p = must_read(r, addr, level ? "SDPF" : "SDPL", level ? 168 : 1024);
	u32 nr = get16(p + 40), i;
	u64 n = 0;

	if (get16(p + 42) != level || get64(p + 16) != txid)
		fail("reader: level or transaction of block %llu", (unsigned long long)addr);
	if (!level)
		return read_leaf(r, p, addr, lo);
	for (i = 0; i < nr; i++)
		n += walk(r, get64(p + HEADER + 24 * i + 16), level - 1, txid, lo);
	return n;
}

/* ---- catalog ------------------------------------------------------------------------------------- */

struct entry {
	u64 key;
	const u8 *value;
};

static u32 read_entries(struct reading *r, struct entry *e, u32 max)
{
	u32 n = 0, i, k, m;

	for (i = 0; i < get32(r->super + 204); i++) {
		const u8 *index = read_ref(r, get64(r->super + 400 + 8 * i), "SDPI", 252);

		for (k = 0; k < get16(index + 40); k++) {
			const u8 *leaf = read_ref(r, get64(index + HEADER + 16 * k + 8), "SDPC", 31);

			for (m = 0; m < get16(leaf + 40); m++) {
				if (n == max)
					fail("reader: more entries than this test has");
				e[n].key = get64(leaf + HEADER + 128 * m);
				e[n].value = leaf + HEADER + 128 * m + 8;
				if (n && e[n].key <= e[n - 1].key)
					fail("reader: order of the catalog");
				n++;
			}
		}
	}
	return n;
}

static void read_run(struct reading *r, const struct entry *e, u32 n, u32 at)
{
	u64 id = e[at].key & ((1ull << 56) - 1), lo = get64(e[at].value + 8), records = 0;
	u32 segs = 0, i;

	for (i = 0; i < n; i++) {
		if (e[i].key >> 56 != 3 || (e[i].key & ((1ull << 56) - 1)) >> 24 != id)
			continue;
		segs++;
		if (walk(r, get64(e[i].value + 8), get32(e[i].value + 24), get64(e[i].value + 32), lo) != get64(e[i].value + 16))
			fail("reader: records of a segment of run %llu", (unsigned long long)id);
		records += get64(e[i].value + 16);
	}
	if (segs != get32(e[at].value + 44) || records != get64(e[at].value + 16))
		fail("reader: run %llu has %u segments, %llu records", (unsigned long long)id, segs, (unsigned long long)records);
}

static void read_catalog(struct reading *r)
{
	static struct entry e[1024];
	u32 n = read_entries(r, e, ARRAY_SIZE(e)), i;

	for (i = 0; i < n; i++) {
		u64 id = e[i].key & ((1ull << 56) - 1);

		switch (e[i].key >> 56) {
		case 1:
			r->gen[r->nr_gen].number = id;
			r->gen[r->nr_gen].flags = get32(e[i].value + 40);
			r->gen[r->nr_gen++].state = get32(e[i].value + 44);
			break;
		case 2:
			read_run(r, e, n, i);
			break;
		case 3:
			break;
		case 4:
			if (id < ARRAY_SIZE(r->page))
				memcpy(r->page[id], e[i].value, 120);
			break;
		default:
			fail("reader: an entry of type %u", (u32)(e[i].key >> 56));
		}
	}
}

/* Is the bitmap that the catalog calls valid a right one, with as many clear bits as it says? */
static void check_bitmaps(const struct reading *r)
{
	u64 start = get64(r->super + 128), sum = 0;
	u32 i, k, nr = get32(r->super + 140), clear;

	for (i = 0; i < nr; i++) {
		const u8 *g = r->page[i / 15] + 8 * (i % 15), *p;
		u64 first = start + i * 32256ull;

		if (!(get16(g + 6) & 1)) {
			sum += min(32256ull, (unsigned long long)(r->nr_blocks - first)) - 2;
			continue;
		}
		p = must_read(r, first + !!(get16(g + 6) & 2), "SDPB", 0);
		for (clear = k = 0; k < 32256; k++)
			clear += !(p[HEADER + k / 8] >> k % 8 & 1);
		if (get32(p + 16) != get32(g) || clear != get16(g + 4) || !(p[HEADER] & 1) || !(p[HEADER] & 2))
			fail("reader: bitmap of group %u", i);
		sum += clear;
	}
	if (sum != get64(r->super + 184))
		fail("reader: free blocks");
}

/* ---- journal ---------------------------------------------------------------------------------------- */

struct log {
	u64 pos, seq;
	u32 link;
	u8 image[8 * BLOCK];
};

static bool read_image(const struct reading *r, struct log *l)
{
	u64 blocks = get64(r->super + 120), off = l->pos % blocks, addr;
	const u8 *p;
	u32 nr, i;

	if (blocks - off < 8) {
		l->pos += blocks - off;
		off = 0;
	}
	addr = get64(r->super + 112) + off;
	p = block_at(r, addr);
	nr = get16(p + 40);
	if (memcmp(p, "SDPJ", 4) || !nr || nr > 8)
		return false;
	for (i = 0; i < nr; i++)
		memcpy(l->image + i * BLOCK, block_at(r, addr + i), BLOCK);
	p = l->image;
	return is_block(r, p, "SDPJ", addr, nr) && get64(p + 16) == l->seq && get32(p + 72) == get32(r->super + 180) &&
	       get32(p + 76) == l->link && get32(p + 80) <= nr * BLOCK - 96;
}

static void log_start(const struct reading *r, struct log *l)
{
	l->pos = get64(r->super + 160);
	l->seq = get64(r->super + 168);
	l->link = get32(r->super + 176);
}

static void log_next(struct log *l)
{
	l->pos += get16(l->image + 40);
	l->link = get32(l->image + 84);
	l->seq++;
}

static u32 op_bytes(const u8 *op)
{
	switch (op[0]) {
	case 1:
		return 16 + 12 * get16(op + 2);
	case 2:
		return 128;
	default:
		return 16;
	}
}

static bool data_matches(const struct reading *r, u64 addr, u32 crc)
{
	u32 c = ~0u, i;

	if (addr + r->chunk_blocks > r->nr_blocks)
		return false;
	for (i = 0; i < r->chunk_blocks; i++)
		c = crc32c(c, block_at(r, addr + i), BLOCK);
	return c == crc;
}

/* Goes over the copies of an operation: compares their data, or adds their records. */
static bool copies(struct reading *r, const u8 *op, bool compare)
{
	u64 addr = get64(op + 8);
	u32 i;

	for (i = 0; i < get16(op + 2); i++) {
		const u8 *c = op + 16 + 12 * i;
		struct rrec rec = { .chunk = get64(c) & ((1ull << 56) - 1), .kind = c[7], .crc = get32(c + 8), .gen = get32(op + 4) };

		if (rec.kind == 1) {
			rec.addr = addr;
			addr += r->chunk_blocks;
			if (compare && !data_matches(r, rec.addr, rec.crc))
				return false;
		}
		if (!compare)
			add_record(r, &rec);
	}
	return true;
}

static void put(struct reading *r, const u8 *op)
{
	u32 number = get32(op + 4), flags = get32(op + 8 + 40), state = get32(op + 8 + 44), i;

	for (i = 0; i < r->nr_gen && r->gen[i].number != number; i++)
		;
	if (i < r->nr_gen) {
		r->gen[i].flags = flags | (r->gen[i].flags & 4);
		if (r->gen[i].state == 1)
			r->gen[i].state = state;
	} else if (number > r->highest) {
		r->gen[r->nr_gen++] = (struct rgen){ number, state, flags };
		r->highest = number;
	}
}

static void del_or_lose(struct reading *r, const u8 *op)
{
	u32 first = get32(op + 4), last = get32(op + 8), i, k = 0, unknown = 0;

	for (i = 0; i < r->nr_gen; i++) {
		struct rgen *g = &r->gen[i];

		if (g->number >= first && g->number <= last) {
			if (op[0] == 3) {
				unknown |= g->flags & 4;
				continue;
			}
			if (g->state == 1)
				g->state = 3;
			if (op[1] & 1)
				g->flags |= 4;
		}
		r->gen[k++] = *g;
	}
	r->nr_gen = k;
	for (i = k; i; i--) {
		if (r->gen[i - 1].number < first) {
			r->gen[i - 1].flags |= unknown;
			break;
		}
	}
}

static bool image_ops(struct reading *r, const struct log *l, bool compare)
{
	const u8 *op = l->image + 96, *end = op + get32(l->image + 80);

	for (; op < end; op += op_bytes(op)) {
		if (op[0] == 1) {
			if (!copies(r, op, compare))
				return false;
		} else if (!compare && l->seq > r->catalog_seq) {
			if (op[0] == 2)
				put(r, op);
			else
				del_or_lose(r, op);
		}
	}
	return true;
}

/* Returns the number of the last group that counts. */
static u64 read_log(struct reading *r)
{
	static struct log l;
	u64 durable = 0, groups = 0;

	for (log_start(r, &l); read_image(r, &l); log_next(&l), groups++)
		durable = max(durable, get64(l.image + 64));
	for (log_start(r, &l); groups && read_image(r, &l); log_next(&l), groups--) {
		if (l.seq > durable && !image_ops(r, &l, true))
			break;
		image_ops(r, &l, false);
	}
	return l.seq - 1;
}

/* ---- comparing --------------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
	const struct rrec *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return x->gen < y->gen ? -1 : x->gen > y->gen;
}

struct reading *reader_read(const struct simdev *d, u64 *seq, bool *failed)
{
	struct reading *r = xzalloc(sizeof(*r));
	u32 i;

	r->d = d;
	find_super(r);
	*failed = get32(r->super + 68) == 3;
	if (!*failed) {
		read_catalog(r);
		check_bitmaps(r);
		*seq = read_log(r);
	}
	qsort(r->rec, r->nr_rec, sizeof(*r->rec), by_key);
	for (i = 1; i < r->nr_rec; i++)
		if (!by_key(&r->rec[i - 1], &r->rec[i]))
			fail("reader: two records (%llu, %u)", (unsigned long long)r->rec[i].chunk, r->rec[i].gen);
	return r;
}

void reader_free(struct reading *r)
{
	free(r->rec);
	free(r);
}

static const struct rrec *find(const struct reading *r, u32 chunk, u32 gen)
{
	u32 i;

	for (i = 0; i < r->nr_rec; i++)
		if (r->rec[i].chunk == chunk && r->rec[i].gen >= gen)
			return &r->rec[i];
	return NULL;
}

void reader_compare(const struct reading *r, const struct model *m)
{
	u32 i, c;

	if (r->nr_gen != m->nr || r->highest != m->highest)
		fail("reader: %u generations up to %u, not %u up to %u", r->nr_gen, r->highest, m->nr, m->highest);
	for (i = 0; i < m->nr; i++) {
		const struct mgen *g = &m->g[i];
		u32 next = i + 1 < m->nr ? m->g[i + 1].number : m->highest + 1;

		if (r->gen[i].number != g->number || r->gen[i].state != g->state || r->gen[i].flags != g->flags)
			fail("reader: generation %u, state %u, flags %x; the model has %u, %u, %x", r->gen[i].number, r->gen[i].state,
			     r->gen[i].flags, g->number, g->state, g->flags);
		for (c = 0; c < m->nr_chunks; c++) {
			const struct rrec *rec = find(r, c, g->number);

			if (g->state == SD_GEN_LIVE)
				verify_chunk(r->d, m, g, c, rec ? rec->kind : SD_KIND_NONE, rec ? rec->addr : 0);
			if (!(g->flags & SD_GEN_F_CHANGES_UNKNOWN) && !m->late[c] && (rec && rec->gen < next) != g->changed[c])
				fail("reader: chunk %u of the changed set of generation %u", c, g->number);
		}
	}
}
