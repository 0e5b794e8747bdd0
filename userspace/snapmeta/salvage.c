// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The state of a damaged store as a whole: which superblock, what the journal adds.
 *
 * The journal. Every image tells its epoch, its sequence number and the highest group that was durable when it was made; let D be the highest such number of the superblock's
 * epoch. All groups up to D were acknowledged. One of them that is not there (its number is missing, or the link does not fit) may have recorded the first
 * write to any chunk: every generation that existed then is lost. The groups behind it are still known to follow each other, and a generation that one of *them*
 * creates is whole: its records are all in later groups. That a PUT_GEN creates and does not change is certain only if the highest generation before it is: COPIES of a
 * group say what it was.
 *
 * Groups after D count as in recovery: while nothing is missing and their data is what they say.
 *
 * An image of a later epoch than the superblock's: a newer superblock has been there and is gone. Then nothing that existed is certain.
 *
 * The older superblock can be the base when the newer one's tables are damaged: all that was committed since is in the journal, if the journal leads from one
 * to the other without a gap. Blocks that were used again meanwhile give themselves away by their transaction (sal_block), and preserved data that was, by
 * nobody needing it any more.
 */
#include <stdarg.h>
#include "group.h"
#include "salvage.h"

#define LATER_ATTACHMENT_GENS	(1u << 20)	/* numbers that a lost attachment may have used: skipped */
#define GROUP_GENS		256u		/* the same, one lost group */

/* One image of the journal. */
struct image {
	u64 seq, durable, addr;
	u32 nr, link, prev_link;
};

struct log {
	struct image *im;
	u64 nr, cap, durable;
	bool later;		/* there is one of a later epoch */
	void *buf;
};

void sal_say(struct salvage *sal, const char *fmt, ...)
{
	char text[192];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sal->findings++;
	if (sal->say)
		sal->say(sal->ctx, text);
}

static void core_says(void *ctx, const char *text)
{
	sal_say(ctx, "%s", text);
}

int sal_grow(void *array, u64 nr, u64 *cap, size_t size)
{
	void **a = array, *p;

	if (nr < *cap)
		return 0;
	p = realloc(*a, (*cap ? 2 * *cap : 64) * size);
	if (!p)
		return -ENOMEM;
	*cap = *cap ? 2 * *cap : 64;
	*a = p;
	return 0;
}

int sal_hole(struct salvage *sal, u64 first, u64 last, u32 lo, u32 hi)
{
	int err;

	if (lo > hi)
		return 0;
	err = sal_grow(&sal->hole, sal->nr_hole, &sal->cap_hole, sizeof(*sal->hole));
	if (!err)
		sal->hole[sal->nr_hole++] = (struct hole){ first, last, lo, hi };
	return err;
}

int sal_lose(struct salvage *sal, u32 hi, bool unknown)
{
	struct sd_gen g;
	u32 n = 0;
	int err = 0;

	for (; !err && !sd_gen_next(sal->s, n, &g) && g.number <= hi; n = g.number + 1) {
		if (g.state != SD_GEN_LIVE)
			continue;
		err = sal_grow(&sal->lost, sal->nr_lost, &sal->cap_lost, sizeof(*sal->lost));
		if (!err)
			sal->lost[sal->nr_lost++] = g.number;
	}
	sd_gens_apply_lose(sal->s, 1, hi, unknown);
	return err;
}

bool sal_mark(struct salvage *sal, u64 addr)
{
	bool old = sal->seen[addr / 8] >> addr % 8 & 1;

	sal->seen[addr / 8] |= 1 << addr % 8;
	return !old;
}

int sal_block(struct salvage *sal, u64 addr, u32 magic, u32 max_nr, u64 txid, u64 txid_bits, void *block)
{
	const struct sd_disk_header *h = block;
	int err = -EUCLEAN;

	if (addr < sal->s->alloc.start || addr >= sal->s->nr_blocks || (addr - sal->s->alloc.start) % SD_GROUP_BLOCKS < 2)
		sal_say(sal, "block %llu: an address where no such block can be", (unsigned long long)addr);
	else
		err = sd_block_read(sal->s, addr, magic, max_nr, block);
	if (err == -EIO) {
		sal_say(sal, "block %llu: cannot be read", (unsigned long long)addr);
		return -EUCLEAN;
	}
	if (err)
		return err;
	if (le64_to_cpu(h->txid) > le64_to_cpu(sal->super.hdr.txid) || (le64_to_cpu(h->txid) ^ txid) & txid_bits) {
		sal_say(sal, "block %llu: of another transaction", (unsigned long long)addr);
		return -EUCLEAN;
	}
	if (!sal_mark(sal, addr)) {
		sal_say(sal, "block %llu: used twice", (unsigned long long)addr);
		return -EUCLEAN;
	}
	return 0;
}

/* ---- superblocks --------------------------------------------------------------------------------------- */

struct one_super {
	struct sd_dev *dev;
	u64 other;
};

static int read_without_other(void *ctx, u64 block, u32 nr, void *buf)
{
	struct one_super *o = ctx;

	if (block == o->other) {
		memset(buf, 0, SD_BLOCK_SIZE);
		return 0;
	}
	return o->dev->ops->read(o->dev->ctx, block, nr, buf);
}

int salvage_supers(struct sd_dev *dev, struct sd_disk_super super[2], u32 *nr)
{
	static const struct sd_dev_ops ops = { .read = read_without_other };
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	int err = d ? 0 : -ENOMEM;
	u64 i;

	*nr = 0;
	for (i = 0; !err && i < 2; i++) {
		struct one_super o = { dev, 1 - i };
		struct sd_dev half = { .ops = &ops, .ctx = &o, .nr_blocks = dev->nr_blocks };
		struct sd_store s = { .dev = &half };

		err = dev->nr_blocks < 2 ? -ENODATA : sd_super_read(&s, d);
		if (!err)
			super[(*nr)++] = *d;
		if (err == -ENODATA || err == -EUCLEAN || err == -EIO)
			err = 0;
	}
	if (*nr == 2 && le64_to_cpu(super[1].hdr.txid) > le64_to_cpu(super[0].hdr.txid)) {
		*d = super[0];
		super[0] = super[1];
		super[1] = *d;
	}
	if (*nr == 2 && memcmp(super[0].hdr.uuid, super[1].hdr.uuid, SD_UUID_SIZE))
		*nr = 1;
	sd_free(d);
	return err;
}

static int make_store(struct salvage *sal)
{
	const struct sd_disk_super *d = &sal->super;
	struct sd_store *s = sal->s = sd_zalloc(sizeof(*s));
	struct sd_version *v;

	if (!s)
		return -ENOMEM;
	s->dev = sal->dev;
	s->opts.complain = core_says;
	s->opts.complain_ctx = sal;
	INIT_LIST_HEAD(&s->versions);
	INIT_LIST_HEAD(&s->group_pool);
	memcpy(s->uuid, d->hdr.uuid, sizeof(s->uuid));
	s->chunk_size = le32_to_cpu(d->chunk_size);
	s->chunk_blocks = s->chunk_size >> SD_BLOCK_SHIFT;
	s->nr_blocks = le64_to_cpu(d->nr_blocks);
	s->sum.highest = le32_to_cpu(d->highest_gen);
	s->j.start = le64_to_cpu(d->journal_start);
	s->j.blocks = le64_to_cpu(d->journal_blocks);
	s->j.epoch = le32_to_cpu(d->journal_epoch);
	s->alloc.start = le64_to_cpu(d->group_start);
	s->alloc.end = s->nr_blocks;
	s->alloc.nr_groups = le32_to_cpu(d->nr_groups);
	s->cat.layout_from = U32_MAX;
	/* What changes generations looks for tables that may have lost a reader: there are none. */
	v = sd_version_alloc(s, 0);
	if (!v)
		return -ENOMEM;
	sd_version_swap(s, v);
	v->active = sd_mem_alloc(1);
	sal->seen = calloc(s->nr_blocks / 8 + 1, 1);
	sal->group = calloc(s->alloc.nr_groups, sizeof(*sal->group));
	return v->active && sal->seen && sal->group ? 0 : -ENOMEM;
}

/* ---- the journal: which images are there ------------------------------------------------------------------ */

static int read_image(struct salvage *sal, u64 addr, void *buf)
{
	struct sd_store *s = sal->s;
	struct sd_disk_journal *d = buf;
	int err = s->dev->ops->read(s->dev->ctx, addr, 1, buf);
	u32 nr = le16_to_cpu(d->hdr.nr);

	if (err == -EIO)
		return -EUCLEAN;
	if (err)
		return err;
	if (le32_to_cpu(d->hdr.magic) != SD_MAGIC_JOURNAL || !nr || nr > SD_GROUP_MAX_BLOCKS || addr + nr > s->j.start + s->j.blocks ||
	    le32_to_cpu(d->payload) > nr * SD_BLOCK_SIZE - sizeof(*d))
		return -EUCLEAN;
	if (nr > 1)
		err = s->dev->ops->read(s->dev->ctx, addr + 1, nr - 1, (u8 *)buf + SD_BLOCK_SIZE);
	if (!err)
		err = sd_block_check(s, buf, SD_MAGIC_JOURNAL, addr, SD_GROUP_MAX_BLOCKS);
	return err == -EIO ? -EUCLEAN : err;
}

static int by_seq(const void *a, const void *b)
{
	const struct image *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int find_images(struct salvage *sal, struct log *l)
{
	struct sd_store *s = sal->s;
	u64 addr;
	int err = 0;

	for (addr = s->j.start; !err && addr < s->j.start + s->j.blocks; addr++) {
		const struct sd_disk_journal *d = l->buf;

		err = read_image(sal, addr, l->buf);
		if (err == -EUCLEAN) {
			err = 0;
			continue;
		}
		l->later |= le32_to_cpu(d->epoch) > s->j.epoch;
		if (err || le32_to_cpu(d->epoch) != s->j.epoch || le64_to_cpu(d->hdr.txid) < le64_to_cpu(sal->super.journal_seq))
			continue;
		err = sal_grow(&l->im, l->nr, &l->cap, sizeof(*l->im));
		if (err)
			break;
		l->im[l->nr++] = (struct image){ .seq = le64_to_cpu(d->hdr.txid), .durable = le64_to_cpu(d->durable_seq), .addr = addr,
			.nr = le16_to_cpu(d->hdr.nr), .link = le32_to_cpu(d->link), .prev_link = le32_to_cpu(d->prev_link) };
		l->durable = max(l->durable, (u64)le64_to_cpu(d->durable_seq));
	}
	if (l->nr)
		qsort(l->im, l->nr, sizeof(*l->im), by_seq);
	return err;
}

/* ---- the journal: replay ------------------------------------------------------------------------------- */

struct replay {
	u64 expected;		/* sequence number of the next group */
	u32 link;
	bool exact;		/* the highest generation is known */
	u64 missing;		/* groups that may have created generations */
};

static int missing_groups(struct salvage *sal, struct replay *r, u64 next)
{
	u64 catalog_seq = le64_to_cpu(sal->super.catalog_seq), from = max(r->expected, catalog_seq + 1);

	sal_say(sal, "journal: groups %llu to %llu are gone: what existed then is lost", (unsigned long long)r->expected,
		(unsigned long long)max(next - 1, r->expected));
	if (next > from) {
		r->exact = false;
		r->missing += next - from;
	}
	return sal_lose(sal, U32_MAX, true);
}

static int add_log(struct salvage *sal, const struct sd_rec *rec)
{
	int err;

	if (rec->kind < SD_KIND_DATA || rec->kind > SD_KIND_MARK || !rec->gen) {
		sal_say(sal, "journal: a record of chunk %llu makes no sense", (unsigned long long)rec->chunk);
		return sal_hole(sal, rec->chunk, rec->chunk, 1, U32_MAX);
	}
	err = sal_grow(&sal->log, sal->nr_log, &sal->cap_log, sizeof(*sal->log));
	if (!err)
		sal->log[sal->nr_log++] = *rec;
	return err;
}

/* @check: compare the data with its checksums instead. 0, -ENODATA (is not what it should be), -errno */
static int each_copy(struct salvage *sal, const struct sd_op_copies *op, void *chunk)
{
	const struct sd_op_copy *c = (const void *)(op + 1);
	struct sd_store *s = sal->s;
	u64 addr = le64_to_cpu(op->addr);
	u32 i;
	int err = 0;

	for (i = 0; !err && i < le16_to_cpu(op->h.count); i++) {
		u64 key = le64_to_cpu(c[i].chunk);
		struct sd_rec rec = { .chunk = key & SD_WHERE_ADDR_MASK, .kind = key >> SD_WHERE_KIND_SHIFT,
				      .gen = le32_to_cpu(op->h.gen), .crc = le32_to_cpu(c[i].crc) };

		if (rec.kind == SD_KIND_DATA) {
			rec.addr = addr;
			addr += s->chunk_blocks;
		}
		if (!chunk) {
			err = add_log(sal, &rec);
		} else if (rec.kind == SD_KIND_DATA) {
			if (rec.addr >= s->nr_blocks || s->nr_blocks - rec.addr < s->chunk_blocks)
				return -ENODATA;
			err = s->dev->ops->read(s->dev->ctx, rec.addr, s->chunk_blocks, chunk);
			if (err == -EIO || (!err && crc32c(~0u, chunk, s->chunk_size) != rec.crc))
				return -ENODATA;
		}
	}
	return err;
}

static int check_data(struct salvage *sal, const void *image)
{
	void *chunk = sd_malloc(sal->s->chunk_size);
	const struct sd_op_header *h;
	u32 off = 0;
	int err = chunk ? 0 : -ENOMEM;

	while (!err && (h = sd_group_next_op(image, &off)))
		if (h->op == SD_OP_COPIES)
			err = each_copy(sal, (const void *)h, chunk);
	sd_free(chunk);
	return err;
}

static int apply_put(struct salvage *sal, struct replay *r, const struct sd_op_gen *op)
{
	struct sd_store *s = sal->s;
	u32 number = le32_to_cpu(op->h.gen), state = le32_to_cpu(op->desc.state);
	struct sd_disk_gen d = op->desc;

	if (!number || state < SD_GEN_LIVE || state > SD_GEN_LOST) {
		sal_say(sal, "journal: a descriptor of generation %u makes no sense", number);
		d.state = cpu_to_le32(SD_GEN_LOST);
		d.flags |= cpu_to_le32(SD_GEN_F_CHANGES_UNKNOWN);
		return number ? sd_gens_apply_put(s, &d, number) : 0;
	}
	if (number > s->sum.highest && (!r->exact || number != s->sum.highest + 1)) {
		/* Created by a group that is gone: so may be some of its records. */
		d.state = cpu_to_le32(SD_GEN_LOST);
		d.flags |= cpu_to_le32(SD_GEN_F_CHANGES_UNKNOWN);
		r->exact = false;
	}
	return sd_gens_apply_put(s, &d, number);
}

static int apply_image(struct salvage *sal, struct replay *r, const void *image, u64 seq)
{
	bool catalog = seq > le64_to_cpu(sal->super.catalog_seq);
	const struct sd_op_header *h;
	struct sd_store *s = sal->s;
	u32 off = 0;
	int err = 0;

	while (!err && (h = sd_group_next_op(image, &off))) {
		u32 gen = le32_to_cpu(h->gen), last;

		if (h->op == SD_OP_COPIES) {
			err = each_copy(sal, (const void *)h, NULL);
			if (catalog) {
				sd_gens_count_changed(s, gen, le16_to_cpu(h->count));
				s->sum.highest = max(s->sum.highest, gen);
				r->exact |= gen == s->sum.highest;
			}
			continue;
		}
		if (!catalog)
			continue;
		if (h->op == SD_OP_PUT_GEN) {
			err = apply_put(sal, r, (const void *)h);
			continue;
		}
		last = le32_to_cpu(((const struct sd_op_range *)h)->last);
		if (h->op == SD_OP_DEL_GENS)
			sd_gens_apply_del(s, gen, last);
		else
			sd_gens_apply_lose(s, gen, last, h->flags & SD_OP_F_UNKNOWN);
	}
	return err;
}

/* The log of @newer begins behind the group before r->expected. */
static bool meets(const struct replay *r, const struct sd_disk_super *newer)
{
	return !newer || r->expected != le64_to_cpu(newer->journal_seq) || r->link == le32_to_cpu(newer->journal_link);
}

static int replay_images(struct salvage *sal, struct log *l, struct replay *r, const struct sd_disk_super *newer)
{
	u64 i;
	int err = 0;

	for (i = 0; i < l->nr && meets(r, newer); i++) {
		const struct image *im = &l->im[i];

		if (im->seq < r->expected)
			continue;	/* twice: the first one is as good */
		err = read_image(sal, im->addr, l->buf);
		if (err)
			return err;
		if (im->seq != r->expected || im->prev_link != r->link) {
			if (im->seq > l->durable)
				break;
			err = missing_groups(sal, r, im->seq);
		}
		if (!err && im->seq > l->durable)
			err = check_data(sal, l->buf);
		if (err == -ENODATA)
			break;
		if (!err)
			err = apply_image(sal, r, l->buf, im->seq);
		if (err)
			return err;
		r->expected = im->seq + 1;
		r->link = im->link;
	}
	if (r->expected <= l->durable && l->durable != U64_MAX)
		err = missing_groups(sal, r, l->durable + 1);
	if (err)
		return err;
	if (newer && (sal->findings || !meets(r, newer) || r->expected < le64_to_cpu(newer->journal_seq)))
		return -EUCLEAN;
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct sd_rec *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return x->gen < y->gen ? -1 : x->gen > y->gen;
}

static void skip_numbers(struct salvage *sal, u64 n)
{
	sal->s->sum.highest = min((u64)sal->s->sum.highest + n, (u64)U32_MAX - 1);
}

static int load_journal(struct salvage *sal, const struct sd_disk_super *newer)
{
	struct replay r = { .expected = le64_to_cpu(sal->super.journal_seq), .link = le32_to_cpu(sal->super.journal_link), .exact = true };
	struct log l = { .buf = sd_malloc(SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE) };
	int err = l.buf ? find_images(sal, &l) : -ENOMEM;

	l.durable = max(l.durable, r.expected - 1);
	if (!err)
		err = replay_images(sal, &l, &r, newer);
	if (!err && l.later) {
		sal_say(sal, "journal: has groups of a later attachment than the superblock knows: what existed then is lost");
		err = sal_lose(sal, U32_MAX, true);
		skip_numbers(sal, LATER_ATTACHMENT_GENS);
	} else if (!err && !r.exact) {
		skip_numbers(sal, r.missing * GROUP_GENS);
	}
	if (sal->nr_log)
		qsort(sal->log, sal->nr_log, sizeof(*sal->log), by_key);
	sd_free(l.buf);
	free(l.im);
	return err;
}

/* ---- all of it ------------------------------------------------------------------------------------------ */

int salvage_load(struct salvage *sal, struct sd_dev *dev, const struct sd_disk_super *super, const struct sd_disk_super *newer,
		 void (*say)(void *ctx, const char *text), void *ctx)
{
	int err;

	memset(sal, 0, sizeof(*sal));
	sal->dev = dev;
	sal->super = *super;
	sal->say = say;
	sal->ctx = ctx;
	sal->clean = le32_to_cpu(super->state) == SD_STATE_CLEAN;
	sal->failed = le32_to_cpu(super->state) == SD_STATE_FAILED;
	if (newer && (newer->journal_epoch != super->journal_epoch || le32_to_cpu(newer->state) == SD_STATE_FAILED))
		return -EUCLEAN;
	err = make_store(sal);
	if (!err)
		err = sal_catalog(sal);
	if (!err)
		err = sal_runs(sal);
	if (!err)
		err = load_journal(sal, newer);
	if (!err && sal->failed) {
		sal_say(sal, "the store has failed: all generations are lost");
		err = sal_lose(sal, U32_MAX, true);
	}
	return err;
}

void salvage_free(struct salvage *sal)
{
	u32 i;

	for (i = 0; i < sal->nr_run; i++)
		free(sal->run[i].leaf);
	free(sal->run);
	free(sal->entry);
	free(sal->lost_keys);
	free(sal->lost);
	free(sal->log);
	free(sal->hole);
	free(sal->seen);
	free(sal->group);
	if (sal->s)
		sd_close(sal->s);
	memset(sal, 0, sizeof(*sal));
}
