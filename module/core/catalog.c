// SPDX-License-Identifier: GPL-2.0
/*
 * The catalog: a small sorted table, key → 120 bytes, of everything that is not a record: generations, runs, their segments, groups.
 *
 * On disk: leaves of up to 31 entries, index blocks over 252 leaves each, their addresses in the superblock. Changed blocks go to new
 * addresses, so that the last durable transaction is never touched; an unchanged leaf stays where it is: changing one of 10,000 generations
 * writes one leaf and one index block. All leaves are kept in memory (132 bytes an entry).
 *
 * A transaction places first (sd_cat_place: new addresses for what has changed, which dirties bitmaps, whose counts are entries of the catalog again:
 * repeat until nothing is new) and encodes afterwards (sd_cat_encode).
 */
#include "internal.h"

static u64 entry_key(const struct sd_cat_leaf *l, u32 i)
{
	return le64_to_cpu(l->b->e[i].key);
}

static u32 leaf_nr(const struct sd_cat_leaf *l)
{
	return le16_to_cpu(l->b->hdr.nr);
}

static void set_leaf_nr(struct sd_cat_leaf *l, u32 nr)
{
	l->b->hdr.nr = cpu_to_le16(nr);
}

/* Index of the last leaf that begins at or before key; 0 if there is none. */
static u32 find_leaf(const struct sd_catalog *c, u64 key)
{
	u32 lo = 0, hi = c->nr;

	while (hi - lo > 1) {
		u32 mid = (lo + hi) / 2;

		if (c->leaf[mid]->first <= key)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* First entry with a key >= @key. */
static u32 find_entry(const struct sd_cat_leaf *l, u64 key)
{
	u32 lo = 0, hi = leaf_nr(l);

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (entry_key(l, mid) < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct sd_disk_entry *lookup(struct sd_catalog *c, u64 key, struct sd_cat_leaf **leaf)
{
	struct sd_cat_leaf *l;
	u32 i;

	if (!c->nr)
		return NULL;
	l = c->leaf[find_leaf(c, key)];
	i = find_entry(l, key);
	if (i == leaf_nr(l) || entry_key(l, i) != key)
		return NULL;
	*leaf = l;
	return &l->b->e[i];
}

void *sd_cat_get(struct sd_store *s, u64 key)
{
	struct sd_cat_leaf *l;
	struct sd_disk_entry *e = lookup(&s->cat, key, &l);

	return e ? e->value : NULL;
}

void *sd_cat_edit(struct sd_store *s, u64 key)
{
	struct sd_cat_leaf *l;
	struct sd_disk_entry *e = lookup(&s->cat, key, &l);

	if (!e)
		return NULL;
	l->dirty = true;
	return e->value;
}

void *sd_cat_next(struct sd_store *s, u64 from, u64 *key)
{
	struct sd_catalog *c = &s->cat;
	u32 n, i;

	if (!c->nr)
		return NULL;
	n = find_leaf(c, from);
	i = find_entry(c->leaf[n], from);
	while (i == leaf_nr(c->leaf[n])) {
		if (++n == c->nr)
			return NULL;
		i = 0;
	}
	*key = entry_key(c->leaf[n], i);
	return c->leaf[n]->b->e[i].value;
}

void *sd_cat_prev(struct sd_store *s, u64 from, u64 *key)
{
	struct sd_catalog *c = &s->cat;
	struct sd_cat_leaf *l;
	u32 n, i;

	if (!c->nr)
		return NULL;
	n = find_leaf(c, from);
	l = c->leaf[n];
	i = find_entry(l, from);
	if (i == leaf_nr(l) || entry_key(l, i) != from) {
		while (!i) {
			if (!n)
				return NULL;
			l = c->leaf[--n];
			i = leaf_nr(l);
		}
		i--;
	}
	*key = entry_key(l, i);
	return l->b->e[i].value;
}

u32 sd_cat_count(struct sd_store *s, u32 type)
{
	u64 key, from = SD_CAT_KEY(type, 0);
	u32 n = 0;

	for (; sd_cat_next(s, from, &key) && SD_CAT_TYPE(key) == type; from = key + 1)
		n++;
	return n;
}

static struct sd_cat_leaf *leaf_alloc(void)
{
	struct sd_cat_leaf *l = sd_zalloc_sure(sizeof(*l));

	if (!l)
		return NULL;
	l->b = sd_zalloc_sure(SD_BLOCK_SIZE);
	if (!l->b) {
		sd_free(l);
		return NULL;
	}
	return l;
}

static void leaf_free(struct sd_cat_leaf *l)
{
	if (l)
		sd_free(l->b);
	sd_free(l);
}

static void layout_changed(struct sd_catalog *c, u32 leaf)
{
	c->layout_from = min_t(u32, c->layout_from, leaf / SD_INDEX_ENTRIES);
}

static int leaf_insert(struct sd_catalog *c, u32 at, struct sd_cat_leaf *l)
{
	if (c->nr == SD_INDEX_MAX * SD_INDEX_ENTRIES)
		return -ENOSPC;
	if (c->nr == c->cap) {
		u32 cap = c->cap ? 2 * c->cap : 16;
		struct sd_cat_leaf **p = sd_malloc_sure(cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		if (c->nr)
			memcpy(p, c->leaf, c->nr * sizeof(*p));
		sd_free(c->leaf);
		c->leaf = p;
		c->cap = cap;
	}
	memmove(&c->leaf[at + 1], &c->leaf[at], (c->nr - at) * sizeof(*c->leaf));
	c->leaf[at] = l;
	c->nr++;
	layout_changed(c, at);
	return 0;
}

/* The upper half of leaf @n goes into a new one behind it; when keys are appended, only the last entry does (numbers grow). */
static int leaf_split(struct sd_catalog *c, u32 n, bool append)
{
	struct sd_cat_leaf *l = c->leaf[n], *r = leaf_alloc();
	u32 keep = append ? SD_CAT_ENTRIES - 1 : SD_CAT_ENTRIES / 2, move = SD_CAT_ENTRIES - keep;
	int err;

	if (!r)
		return -ENOMEM;
	memcpy(r->b->e, &l->b->e[keep], move * sizeof(struct sd_disk_entry));
	set_leaf_nr(r, move);
	r->first = entry_key(r, 0);
	r->dirty = true;
	err = leaf_insert(c, n + 1, r);
	if (err) {
		leaf_free(r);
		return err;
	}
	memset(&l->b->e[keep], 0, move * sizeof(struct sd_disk_entry));
	set_leaf_nr(l, keep);
	l->dirty = true;
	return 0;
}

int sd_cat_put(struct sd_store *s, u64 key, const void *value)
{
	struct sd_catalog *c = &s->cat;
	struct sd_cat_leaf *l;
	u32 n, i, nr;
	int err;

	if (!c->nr) {
		l = leaf_alloc();
		if (!l)
			return -ENOMEM;
		err = leaf_insert(c, 0, l);
		if (err) {
			leaf_free(l);
			return err;
		}
	}
	n = find_leaf(c, key);
	l = c->leaf[n];
	i = find_entry(l, key);
	nr = leaf_nr(l);
	if (i < nr && entry_key(l, i) == key) {
		memcpy(l->b->e[i].value, value, SD_CAT_VALUE);
		l->dirty = true;
		return 0;
	}
	if (nr == SD_CAT_ENTRIES) {
		err = leaf_split(c, n, i == nr && n + 1 == c->nr);
		return err ? err : sd_cat_put(s, key, value);	/* now there is room */
	}
	memmove(&l->b->e[i + 1], &l->b->e[i], (nr - i) * sizeof(struct sd_disk_entry));
	l->b->e[i].key = cpu_to_le64(key);
	memcpy(l->b->e[i].value, value, SD_CAT_VALUE);
	set_leaf_nr(l, nr + 1);
	l->dirty = true;
	if (key < l->first || nr == 0) {
		l->first = n ? min(l->first, key) : key;
		layout_changed(c, n);	/* it stands in the index */
	}
	return 0;
}

void sd_cat_del(struct sd_store *s, u64 key)
{
	struct sd_catalog *c = &s->cat;
	struct sd_cat_leaf *l;
	u32 n, i, nr;

	if (!c->nr)
		return;
	n = find_leaf(c, key);
	l = c->leaf[n];
	i = find_entry(l, key);
	nr = leaf_nr(l);
	if (i == nr || entry_key(l, i) != key)
		return;
	memmove(&l->b->e[i], &l->b->e[i + 1], (nr - i - 1) * sizeof(struct sd_disk_entry));
	memset(&l->b->e[nr - 1], 0, sizeof(struct sd_disk_entry));
	set_leaf_nr(l, nr - 1);
	l->dirty = true;
	/* An empty leaf stays until the next transaction, which gives its block back: sd_cat_place(). */
}

static int remove_empty(struct sd_store *s)
{
	struct sd_catalog *c = &s->cat;
	u32 i = 0;
	int err;

	while (i < c->nr) {
		struct sd_cat_leaf *l = c->leaf[i];

		if (leaf_nr(l) || c->nr == 1) {
			i++;
			continue;
		}
		if (l->addr) {
			err = sd_alloc_drop(s, l->addr, 1);
			if (!err)
				err = sd_blocks_add(&s->step->retire, l->addr, 1);
			if (err)
				return err;
		}
		leaf_free(l);
		memmove(&c->leaf[i], &c->leaf[i + 1], (c->nr - i - 1) * sizeof(*c->leaf));
		c->nr--;
		layout_changed(c, i);
	}
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------------- */

static int move_block(struct sd_store *s, u64 *addr)
{
	u64 old = *addr;
	u32 got;
	int err = sd_alloc_take(s, 1, 1, true, addr, &got);

	if (err)
		return err;
	sd_alloc_commit(s, *addr, 1);
	if (!old)
		return 0;
	err = sd_alloc_drop(s, old, 1);
	return err ? err : sd_blocks_add(&s->step->retire, old, 1);
}

static int resize_index(struct sd_store *s, u32 nr)
{
	struct sd_catalog *c = &s->cat;
	u64 *addr;
	u16 *txid;
	bool *step;
	u32 i;
	int err;

	for (i = nr; i < c->nr_index; i++) {
		err = c->index_addr[i] ? sd_alloc_drop(s, c->index_addr[i], 1) : 0;
		if (!err && c->index_addr[i])
			err = sd_blocks_add(&s->step->retire, c->index_addr[i], 1);
		if (err)
			return err;
	}
	addr = sd_zalloc_sure(nr * sizeof(*addr));
	txid = sd_zalloc_sure(nr * sizeof(*txid));
	step = sd_zalloc_sure(nr * sizeof(*step));
	if (!addr || !txid || !step) {
		sd_free(addr);
		sd_free(txid);
		sd_free(step);
		return -ENOMEM;
	}
	for (i = 0; i < min(nr, c->nr_index); i++) {
		addr[i] = c->index_addr[i];
		txid[i] = c->index_txid[i];
		step[i] = c->index_step[i];
	}
	sd_free(c->index_addr);
	sd_free(c->index_txid);
	sd_free(c->index_step);
	c->index_addr = addr;
	c->index_txid = txid;
	c->index_step = step;
	c->nr_index = nr;
	return 0;
}

static int place_index(struct sd_store *s, u32 i, bool *changed)
{
	struct sd_catalog *c = &s->cat;

	if (c->index_step[i])
		return 0;
	c->index_step[i] = true;
	*changed = true;
	return move_block(s, &c->index_addr[i]);
}

int sd_cat_place(struct sd_store *s, bool *changed)
{
	struct sd_catalog *c = &s->cat;
	u32 i, nr;
	int err = remove_empty(s);

	if (err)
		return err;
	nr = DIV_ROUND_UP(c->nr, SD_INDEX_ENTRIES);
	if (nr != c->nr_index) {
		c->layout_from = min_t(u32, c->layout_from, min(nr, c->nr_index));
		err = resize_index(s, nr);
		if (err)
			return err;
	}
	for (i = 0; i < c->nr; i++) {
		struct sd_cat_leaf *l = c->leaf[i];

		if (!l->dirty || l->in_step)
			continue;
		l->in_step = true;
		*changed = true;
		err = move_block(s, &l->addr);
		if (!err)
			err = place_index(s, i / SD_INDEX_ENTRIES, changed);
		if (err)
			return err;
	}
	for (i = c->layout_from; i < nr; i++) {
		err = place_index(s, i, changed);
		if (err)
			return err;
	}
	c->layout_from = U32_MAX;
	return 0;
}

static int encode_index(struct sd_store *s, u32 n, u64 txid, struct sd_writes *w)
{
	struct sd_catalog *c = &s->cat;
	struct sd_disk_index *b;
	void *buf;
	u32 i, nr = min_t(u32, SD_INDEX_ENTRIES, c->nr - n * SD_INDEX_ENTRIES);
	int err = sd_writes_add(w, c->index_addr[n], &buf);

	if (err)
		return err;
	b = buf;
	for (i = 0; i < nr; i++) {
		struct sd_cat_leaf *l = c->leaf[n * SD_INDEX_ENTRIES + i];

		b->e[i].key = cpu_to_le64(l->first);
		b->e[i].ref = cpu_to_le64(SD_REF(l->addr, le64_to_cpu(l->b->hdr.txid)));
	}
	b->hdr.nr = cpu_to_le16(nr);
	sd_block_seal(s, b, SD_MAGIC_INDEX, c->index_addr[n], txid);
	c->index_txid[n] = (u16)txid;
	c->index_step[n] = false;
	return 0;
}

int sd_cat_encode(struct sd_store *s, u64 txid, struct sd_writes *w)
{
	struct sd_catalog *c = &s->cat;
	void *buf;
	u32 i;
	int err;

	for (i = 0; i < c->nr; i++) {
		struct sd_cat_leaf *l = c->leaf[i];

		if (!l->in_step)
			continue;
		err = sd_writes_add(w, l->addr, &buf);
		if (err)
			return err;
		sd_block_seal(s, l->b, SD_MAGIC_CATALOG, l->addr, txid);
		memcpy(buf, l->b, SD_BLOCK_SIZE);
		l->in_step = l->dirty = false;
	}
	for (i = 0; i < c->nr_index; i++) {
		if (!c->index_step[i])
			continue;
		err = encode_index(s, i, txid, w);
		if (err)
			return err;
	}
	return 0;
}

/* ---- reading --------------------------------------------------------------------------------------- */

static bool gen_ok(const struct sd_store *s, u64 id, const struct sd_disk_gen *d)
{
	return id && id <= s->sum.highest && le32_to_cpu(d->state) - 1 <= SD_GEN_LOST - 1;
}

/* Numbers and ids that are out of range would not be found again by who walks over them. Runs and segments: run.c. */
static bool entry_ok(const struct sd_store *s, const struct sd_disk_entry *e)
{
	u64 key = le64_to_cpu(e->key), id = SD_CAT_ID(key);

	switch (SD_CAT_TYPE(key)) {
	case SD_CAT_GEN:
		return gen_ok(s, id, (const void *)e->value);
	case SD_CAT_RUN:
		return id && id < s->next_id;
	case SD_CAT_SEG:
		return id >> 24 && id >> 24 < s->next_id;
	case SD_CAT_GROUPS:
		return id < DIV_ROUND_UP(s->alloc.nr_groups, SD_GROUPS_PER_ENTRY);
	default:
		return false;
	}
}

static int check_order(struct sd_store *s, struct sd_cat_leaf *l, u64 *last)
{
	u32 i;

	if (s->cat.nr && l->first <= *last) {
		sd_complain_block(s, l->addr, "order of catalog leaves", *last + 1, l->first);
		return -EUCLEAN;
	}
	*last = l->first ? l->first - 1 : 0;
	for (i = 0; i < leaf_nr(l); i++) {
		if (*last && entry_key(l, i) <= *last) {
			sd_complain_block(s, l->addr, "order of catalog keys", *last + 1, entry_key(l, i));
			return -EUCLEAN;
		}
		*last = entry_key(l, i);
		if (!entry_ok(s, &l->b->e[i])) {
			sd_complain_block(s, l->addr, "entry of the catalog (key)", 0, *last);
			return -EUCLEAN;
		}
	}
	return 0;
}

/* Is it the block that was referred to, not an older one in its place? */
static int check_txid(struct sd_store *s, u64 addr, const void *block, u16 txid)
{
	const struct sd_disk_header *h = block;

	if ((u16)le64_to_cpu(h->txid) == txid)
		return 0;
	sd_complain_block(s, addr, "transaction of a block of the catalog", txid, (u16)le64_to_cpu(h->txid));
	return -EUCLEAN;
}

/* @alone: the only leaf there is; no other may be empty. */
static int load_leaf(struct sd_store *s, u64 ref, u64 first, bool alone, u64 *last)
{
	struct sd_cat_leaf *l = leaf_alloc();
	int err;

	if (!l)
		return -ENOMEM;
	l->addr = SD_REF_ADDR(ref);
	l->first = first;
	err = sd_block_read(s, l->addr, SD_MAGIC_CATALOG, SD_CAT_ENTRIES, l->b);
	if (!err)
		err = check_txid(s, l->addr, l->b, SD_REF_TXID(ref));
	if (!err && !leaf_nr(l) && !alone) {
		sd_complain_block(s, l->addr, "empty leaf of the catalog", 1, 0);
		err = -EUCLEAN;
	}
	if (!err)
		err = check_order(s, l, last);
	if (!err)
		err = leaf_insert(&s->cat, s->cat.nr, l);
	if (err)
		leaf_free(l);
	return err;
}

int sd_cat_load(struct sd_store *s)
{
	struct sd_catalog *c = &s->cat;
	struct sd_disk_index *b = sd_malloc(SD_BLOCK_SIZE);
	u64 last = 0;
	u32 i, k, nr;
	int err = b ? 0 : -ENOMEM;

	for (i = 0; !err && i < c->nr_index; i++) {
		err = sd_block_read(s, c->index_addr[i], SD_MAGIC_INDEX, SD_INDEX_ENTRIES, b);
		if (!err)
			err = check_txid(s, c->index_addr[i], b, c->index_txid[i]);
		nr = err ? 0 : le16_to_cpu(b->hdr.nr);
		for (k = 0; !err && k < nr; k++)
			err = load_leaf(s, le64_to_cpu(b->e[k].ref), le64_to_cpu(b->e[k].key), c->nr_index == 1 && nr == 1, &last);
	}
	c->layout_from = U32_MAX;
	sd_free(b);
	return err;
}

void sd_cat_exit(struct sd_store *s)
{
	struct sd_catalog *c = &s->cat;
	u32 i;

	for (i = 0; i < c->nr; i++)
		leaf_free(c->leaf[i]);
	sd_free(c->leaf);
	sd_free(c->index_addr);
	sd_free(c->index_txid);
	sd_free(c->index_step);
	memset(c, 0, sizeof(*c));
}

u64 sd_cat_bytes(const struct sd_store *s)
{
	const struct sd_catalog *c = &s->cat;

	return (u64)c->nr * (SD_BLOCK_SIZE + sizeof(struct sd_cat_leaf)) + c->cap * sizeof(*c->leaf);
}
