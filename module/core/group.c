// SPDX-License-Identifier: GPL-2.0
/*
 * Commit groups: what makes copies, and changes of generations, durable.
 *
 *	building ─ add_items / put_gen / … ─► sealed ─ data ∥ image written, flushed ─► committed
 *
 * The image is the group: committing applies the operations that stand in it, exactly as replay does (sd_group_apply), so what is in memory and what
 * recovery will find cannot differ. A group holds either copies or changes of generations.
 *
 * The blocks of a group in flight are "taken" (alloc.c): no bitmap on disk knows them before the group has been committed.
 */
#include "group.h"

#define PAYLOAD_MAX	(SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE - (u32)sizeof(struct sd_disk_journal))
#define MAX_EXTENTS	64u
#define POOL_MAX	8u
#define RELOCATE_SKIP	256u	/* blocks */
#define GEN_ROOM	8u	/* blocks: a leaf of the catalog, and what it adds to the floor */

struct group_priv {
	struct list_head pool;
	struct sd_group group;
	u32 payload;
	u32 promised;		/* records of store->mem_promised */
	u64 pos, end;		/* in the journal */
	u32 prev_link, link;
	bool sealed, copies;
	u32 relocated;		/* times */
	u32 nr_extents;
	struct sd_blockrange extent[MAX_EXTENTS];
};

static struct group_priv *priv_of(struct sd_group *g)
{
	return g->priv;
}

static struct group_priv *priv_alloc(void)
{
	struct group_priv *p = sd_zalloc(sizeof(*p));

	if (!p)
		return NULL;
	p->group.image = sd_zalloc(SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE);
	if (!p->group.image) {
		sd_free(p);
		return NULL;
	}
	return p;
}

static void priv_free(struct group_priv *p)
{
	sd_free(p->group.image);
	sd_free(p);
}

void sd_group_pool_free(struct sd_store *s)
{
	while (!list_empty(&s->group_pool)) {
		struct group_priv *p = list_first_entry(&s->group_pool, struct group_priv, pool);

		list_del(&p->pool);
		s->group_pooled--;
		priv_free(p);
	}
}

int sd_group_begin(struct sd_store *s, struct sd_group **group)
{
	struct group_priv *p;
	void *image;

	if (WARN_ON_ONCE(s->building))
		return -EINVAL;
	if (list_empty(&s->group_pool)) {
		p = priv_alloc();
		if (!p)
			return -ENOMEM;
	} else {
		p = list_first_entry(&s->group_pool, struct group_priv, pool);
		list_del(&p->pool);
		s->group_pooled--;
	}
	image = p->group.image;
	memset(p, 0, offsetof(struct group_priv, extent));
	INIT_LIST_HEAD(&p->group.list);
	INIT_LIST_HEAD(&p->pool);
	p->group.image = image;
	p->group.priv = p;
	s->building = &p->group;
	*group = &p->group;
	return 0;
}

static void group_recycle(struct sd_store *s, struct group_priv *p)
{
	if (s->group_pooled >= POOL_MAX) {
		priv_free(p);
		return;
	}
	list_add_tail(&p->pool, &s->group_pool);
	s->group_pooled++;
}

static void *payload_at(struct group_priv *p, u32 off)
{
	return (u8 *)p->group.image + sizeof(struct sd_disk_journal) + off;
}

static void *payload_add(struct group_priv *p, u32 size)
{
	void *at = payload_at(p, p->payload);

	if (size > PAYLOAD_MAX - p->payload)
		return NULL;
	memset(at, 0, size);
	p->payload += size;
	return at;
}

/* ---- copies ------------------------------------------------------------------------------------------------ */

static u32 count_data(const struct sd_item *items, u32 nr)
{
	u32 i, n = 0;

	for (i = 0; i < nr; i++)
		n += items[i].kind == SD_KIND_DATA;
	return n;
}

/*
 * Give every DATA item its address, in as few extents as there have to be. Returns how many items are provided for; *err says why not more.
 */
static u32 place_items(struct sd_store *s, struct group_priv *p, struct sd_item *items, u32 nr, int *err)
{
	u32 left = count_data(items, nr), room = 0, got, i;
	u64 next = 0;

	*err = 0;
	for (i = 0; i < nr; i++) {
		if (items[i].kind != SD_KIND_DATA)
			continue;
		if (!room) {
			if (p->nr_extents == MAX_EXTENTS)
				break;
			*err = sd_alloc_take(s, left * s->chunk_blocks, s->chunk_blocks, false, &next, &got);
			if (*err)
				break;
			p->extent[p->nr_extents].addr = next;
			p->extent[p->nr_extents++].nr = got;
			room = got / s->chunk_blocks;
		}
		items[i].addr = next;
		next += s->chunk_blocks;
		room--;
		left--;
	}
	return i;
}

/* The operations for @nr placed items: a new one wherever the data does not go on behind the last. */
static void encode_items(struct sd_store *s, struct group_priv *p, const struct sd_item *items, u32 nr)
{
	struct sd_op_copies *op = NULL;
	u64 next = 0;
	u32 i;

	p->payload = 0;
	for (i = 0; i < nr; i++) {
		bool data = items[i].kind == SD_KIND_DATA;
		struct sd_op_copy *c;

		if (!op || (data && next && items[i].addr != next)) {
			op = payload_add(p, sizeof(*op));
			op->h.op = SD_OP_COPIES;
			op->h.gen = cpu_to_le32(p->group.gen);
			next = 0;
		}
		if (data) {
			if (!next)
				op->addr = cpu_to_le64(items[i].addr);
			next = items[i].addr + s->chunk_blocks;
		}
		c = payload_add(p, sizeof(*c));
		c->chunk = cpu_to_le64(items[i].chunk | (u64)items[i].kind << SD_WHERE_KIND_SHIFT);
		c->crc = cpu_to_le32(data ? items[i].crc : 0);
		op->h.count = cpu_to_le16(le16_to_cpu(op->h.count) + 1);
	}
}

static int may_build(struct sd_store *s, struct group_priv *p, bool copies)
{
	if (s->failed)
		return -EIO;
	if (p->payload && p->copies != copies)
		return -EINVAL;
	return sd_journal_room(&s->j) ? 0 : -EAGAIN;
}

int sd_group_add_items(struct sd_store *s, struct sd_group *g, struct sd_item *items, u32 nr)
{
	struct group_priv *p = priv_of(g);
	u32 room = sd_mem_room(s->cur->active), taken;
	int err = may_build(s, p, true);

	if (err)
		return err;
	if (p->payload || !nr)
		return -EINVAL;
	err = -ENOSPC;
	room = room > s->mem_promised ? room - s->mem_promised : 0;
	nr = min(min(nr, room), SD_GROUP_MAX_ITEMS);
	if (!nr)
		return -EAGAIN;
	taken = s->alloc.avail >= sd_alloc_floor_small(s, nr) ? place_items(s, p, items, nr, &err) : 0;
	if (!taken) {
		if (err == -ENOSPC)
			s->starved = true;
		return err;
	}
	p->copies = true;
	p->promised = taken;
	s->mem_promised += taken;
	g->items = items;
	g->nr_items = taken;
	g->gen = s->sum.highest;
	encode_items(s, p, items, taken);
	return taken;
}

int sd_group_relocate(struct sd_store *s, struct sd_group *g)
{
	struct group_priv *p = priv_of(g);
	u32 old = p->nr_extents, old_payload = p->payload;
	int err;

	if (!p->copies)
		return -EINVAL;
	/*
	 * The extents that failed stay taken until the store is closed: they are in no bitmap, and nothing else gets them. What lies right behind
	 * them is as bad, probably: each attempt goes further.
	 */
	s->alloc.data_bit += RELOCATE_SKIP << (2 * min(p->relocated++, 3u));
	p->nr_extents = 0;
	if (place_items(s, p, g->items, g->nr_items, &err) < g->nr_items || p->nr_extents > old)
		return -ENOSPC;
	encode_items(s, p, g->items, g->nr_items);
	if (WARN_ON_ONCE(p->payload > old_payload))
		return -ENOSPC;
	sd_journal_seal(s, g->image, g->image_blocks, p->payload, g->seq, p->pos, p->prev_link, p->link);
	return 0;
}

/* ---- changes of generations ----------------------------------------------------------------------------------- */

int sd_group_put_gen(struct sd_store *s, struct sd_group *g, const struct sd_gen *gen)
{
	struct group_priv *p = priv_of(g);
	bool exists = sd_cat_get(s, SD_CAT_KEY(SD_CAT_GEN, gen->number));
	struct sd_op_gen *op;
	int err = may_build(s, p, false);

	if (err)
		return err;
	if (!gen->number || (!exists && gen->number != s->sum.highest + 1) || gen->state < SD_GEN_LIVE || gen->state > SD_GEN_LOST)
		return -EINVAL;
	if (!exists && (s->nr_gens >= SD_MAX_GENS || gen->number == U32_MAX))
		return -EMFILE;
	if (!exists && s->alloc.avail < sd_alloc_floor(s, 0) + GEN_ROOM)
		return -ENOSPC;
	op = payload_add(p, sizeof(*op));
	if (!op)
		return -E2BIG;
	op->h.op = SD_OP_PUT_GEN;
	op->h.gen = cpu_to_le32(gen->number);
	sd_gen_pack(&op->desc, gen);
	return 0;
}

static int add_gen_range(struct sd_store *s, struct sd_group *g, u8 code, u8 flags, u32 first, u32 last)
{
	struct group_priv *p = priv_of(g);
	struct sd_op_range *op;
	int err = may_build(s, p, false);

	if (err)
		return err;
	if (!first || first > last)
		return -EINVAL;
	op = payload_add(p, sizeof(*op));
	if (!op)
		return -E2BIG;
	op->h.op = code;
	op->h.flags = flags;
	op->h.gen = cpu_to_le32(first);
	op->last = cpu_to_le32(last);
	return 0;
}

int sd_group_del_gens(struct sd_store *s, struct sd_group *g, u32 first, u32 last)
{
	return add_gen_range(s, g, SD_OP_DEL_GENS, 0, first, last);
}

int sd_group_lose_gens(struct sd_store *s, struct sd_group *g, u32 first, u32 last, bool unknown)
{
	return add_gen_range(s, g, SD_OP_LOSE_GENS, unknown ? SD_OP_F_UNKNOWN : 0, first, last);
}

/* ---- sealing, committing --------------------------------------------------------------------------------------- */

int sd_group_seal(struct sd_store *s, struct sd_group *g)
{
	struct group_priv *p = priv_of(g);
	u32 bytes = sizeof(struct sd_disk_journal) + p->payload;
	struct sd_journal *j = &s->j;

	if (s->failed)
		return -EIO;
	if (!p->payload)
		return -EINVAL;
	g->image_blocks = DIV_ROUND_UP(bytes, SD_BLOCK_SIZE);
	memset((u8 *)g->image + bytes, 0, g->image_blocks * SD_BLOCK_SIZE - bytes);
	memset(g->image, 0, sizeof(struct sd_disk_journal));
	p->pos = sd_journal_norm(j, j->head);
	p->end = p->pos + g->image_blocks;
	p->prev_link = j->head_link;
	g->seq = j->next_seq++;
	g->image_addr = j->start + p->pos - sd_div64(p->pos, j->blocks) * j->blocks;
	p->link = crc32c(p->prev_link ^ (u32)g->seq, payload_at(p, 0), min(p->payload, 512u));
	sd_journal_seal(s, g->image, g->image_blocks, p->payload, g->seq, p->pos, p->prev_link, p->link);
	p->sealed = true;
	j->head = p->end;
	j->head_link = p->link;
	s->journal_written += g->image_blocks;
	s->building = NULL;
	return 0;
}

/* What replay reads has a right checksum, but was it us who wrote it? */
static bool copy_ok(const struct sd_store *s, const struct sd_rec *rec, struct sd_mem *mem)
{
	return rec->kind >= SD_KIND_DATA && rec->kind <= SD_KIND_MARK && rec->chunk < SD_MAX_CHUNKS && rec->gen && rec->gen <= s->sum.highest &&
	       sd_mem_room(mem);
}

static int check_put(struct sd_store *s, const struct sd_op_gen *op)
{
	u32 gen = le32_to_cpu(op->h.gen), state = le32_to_cpu(op->desc.state);

	if (gen && state >= SD_GEN_LIVE && state <= SD_GEN_LOST && s->nr_gens <= SD_MAX_GENS)
		return 0;
	sd_complain_block(s, 0, "generation in the journal (state)", SD_GEN_LIVE, state);
	return -EUCLEAN;
}

static int apply_copies(struct sd_store *s, const struct sd_op_copies *op, struct sd_mem *mem, u32 mode)
{
	const struct sd_op_copy *c = (const void *)(op + 1);
	u32 i, nr = le16_to_cpu(op->h.count);
	u64 addr = le64_to_cpu(op->addr);
	int err = 0;

	for (i = 0; !err && i < nr; i++) {
		u64 chunk = le64_to_cpu(c[i].chunk);
		struct sd_rec rec = {
			.chunk = chunk & SD_WHERE_ADDR_MASK,
			.kind = chunk >> SD_WHERE_KIND_SHIFT,
			.gen = le32_to_cpu(op->h.gen),
			.crc = le32_to_cpu(c[i].crc),
		};

		if (mode & SD_APPLY_REPLAY && !copy_ok(s, &rec, mem)) {
			sd_complain_block(s, addr, "copy in the journal (kind)", SD_KIND_DATA, rec.kind);
			return -EUCLEAN;
		}
		if (rec.kind == SD_KIND_DATA) {
			rec.addr = addr;
			addr += s->chunk_blocks;
			if (mode & SD_APPLY_REPLAY)
				err = sd_alloc_replay(s, rec.addr, s->chunk_blocks);
		}
		if (!err)
			sd_mem_insert(mem, &rec);
	}
	if (!err && mode & SD_APPLY_CATALOG)
		sd_gens_count_changed(s, le32_to_cpu(op->h.gen), nr);
	return err;
}

/* Size of the operation at @op, 0 if it does not fit into @left or is none. */
static u32 op_size(const void *op, u32 left)
{
	const struct sd_op_header *h = op;
	u32 size = 0;

	if (left < sizeof(*h))
		return 0;
	switch (h->op) {
	case SD_OP_COPIES:
		size = sizeof(struct sd_op_copies) + le16_to_cpu(h->count) * sizeof(struct sd_op_copy);
		break;
	case SD_OP_PUT_GEN:
		size = sizeof(struct sd_op_gen);
		break;
	case SD_OP_DEL_GENS:
	case SD_OP_LOSE_GENS:
		size = sizeof(struct sd_op_range);
		break;
	}
	return size <= left ? size : 0;
}

const struct sd_op_header *sd_group_next_op(const void *image, u32 *off)
{
	const struct sd_disk_journal *d = image;
	u32 left = le32_to_cpu(d->payload) - *off;
	const void *op = (const u8 *)(d + 1) + *off;
	u32 size = op_size(op, left);

	if (!size)
		return NULL;
	*off += size;
	return op;
}

int sd_group_apply(struct sd_store *s, const void *image, struct sd_mem *mem, u32 mode)
{
	const struct sd_op_header *h;
	u32 off = 0;
	int err = 0;

	while (!err && (h = sd_group_next_op(image, &off))) {
		u32 gen = le32_to_cpu(h->gen), last;

		if (h->op == SD_OP_COPIES) {
			err = apply_copies(s, (const void *)h, mem, mode);
			continue;
		}
		if (!(mode & SD_APPLY_CATALOG)) {
			s->mem_garbage = true;	/* the catalog has flagged the runs of its time, not the records replayed now */
			continue;
		}
		if (h->op == SD_OP_PUT_GEN) {
			err = check_put(s, (const void *)h);
			if (!err)
				err = sd_gens_apply_put(s, &((const struct sd_op_gen *)h)->desc, gen);
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

void sd_group_commit(struct sd_store *s, struct sd_group *g)
{
	struct group_priv *p = priv_of(g);
	u32 i;

	WARN_ON_ONCE(!p->sealed || g->seq != s->j.done_seq + 1);
	sd_version_reap(s);
	for (i = 0; i < p->nr_extents; i++)
		sd_alloc_commit(s, p->extent[i].addr, p->extent[i].nr);
	/* Only a new catalog leaf can be missing memory; the journal has it, so the store is only unusable in memory. */
	if (sd_group_apply(s, g->image, s->cur->active, SD_APPLY_CATALOG))
		sd_store_fail(s);
	s->mem_promised -= p->promised;
	s->j.done = p->end;
	s->j.done_seq = g->seq;
	s->j.done_link = p->link;
	group_recycle(s, p);
}

void sd_group_destroy(struct sd_store *s, struct sd_group *g)
{
	struct group_priv *p = priv_of(g);
	u32 i;

	/* A sealed group can only be dropped with the store: its place in the journal cannot be filled by another. */
	WARN_ON_ONCE(p->sealed && !s->failed);
	for (i = 0; i < p->nr_extents; i++)
		sd_alloc_untake(s, p->extent[i].addr, p->extent[i].nr);
	s->mem_promised -= p->promised;
	if (s->building == g)
		s->building = NULL;
	group_recycle(s, p);
}
