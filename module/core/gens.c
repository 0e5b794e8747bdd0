// SPDX-License-Identifier: GPL-2.0
/*
 * Generations: their descriptors are entries of the catalog; what the write path must know of them is kept in store->sum.
 *
 * A generation is *live* (its content can be read) or not; it is *kept* when its changed set still means something: live, bookmark, or lost while every
 * change since was recorded. The records of a deleted generation count for the next older kept one: intervals merge, numbers in records stay.
 */
#include "internal.h"

void sd_gen_pack(struct sd_disk_gen *d, const struct sd_gen *g)
{
	memset(d, 0, sizeof(*d));
	d->created_ns = cpu_to_le64(g->created_ns);
	d->size_sectors = cpu_to_le64(g->size_sectors);
	d->changed = cpu_to_le64(g->changed);
	memcpy(d->uuid, g->uuid, sizeof(d->uuid));
	d->flags = cpu_to_le32(g->flags & ~SD_GEN_F_SUSPECT);
	d->state = cpu_to_le32(g->state);
	memcpy(d->label, g->label, sizeof(d->label));
	d->label[sizeof(d->label) - 1] = 0;
}

void sd_gen_unpack(struct sd_gen *g, const struct sd_disk_gen *d, u32 number)
{
	g->number = number;
	g->created_ns = le64_to_cpu(d->created_ns);
	g->size_sectors = le64_to_cpu(d->size_sectors);
	g->changed = le64_to_cpu(d->changed);
	memcpy(g->uuid, d->uuid, sizeof(g->uuid));
	g->flags = le32_to_cpu(d->flags);
	g->state = le32_to_cpu(d->state);
	memcpy(g->label, d->label, sizeof(g->label));
	g->label[sizeof(g->label) - 1] = 0;
}

static bool is_live(const struct sd_store *s, const struct sd_disk_gen *d)
{
	return !s->failed && le32_to_cpu(d->state) == SD_GEN_LIVE;
}

static bool is_kept(const struct sd_store *s, const struct sd_disk_gen *d)
{
	return !s->failed && (is_live(s, d) || !(le32_to_cpu(d->flags) & SD_GEN_F_CHANGES_UNKNOWN));
}

static struct sd_disk_gen *gen_next(struct sd_store *s, u32 from, u32 *number)
{
	u64 key;
	void *d = sd_cat_next(s, SD_CAT_KEY(SD_CAT_GEN, from), &key);

	if (!d || SD_CAT_TYPE(key) != SD_CAT_GEN)
		return NULL;
	*number = SD_CAT_ID(key);
	return d;
}

static struct sd_disk_gen *gen_prev(struct sd_store *s, u32 from, u32 *number)
{
	u64 key;
	void *d = sd_cat_prev(s, SD_CAT_KEY(SD_CAT_GEN, from), &key);

	if (!d || SD_CAT_TYPE(key) != SD_CAT_GEN)
		return NULL;
	*number = SD_CAT_ID(key);
	return d;
}

int sd_gen_find(struct sd_store *s, u32 number, struct sd_gen *gen)
{
	struct sd_disk_gen *d = sd_cat_get(s, SD_CAT_KEY(SD_CAT_GEN, number));

	if (!d)
		return -ENOENT;
	sd_gen_unpack(gen, d, number);
	if (number <= s->suspect_gen)
		gen->flags |= SD_GEN_F_SUSPECT;
	if (s->failed)
		gen->state = SD_GEN_LOST, gen->flags |= SD_GEN_F_CHANGES_UNKNOWN;
	return 0;
}

int sd_gen_next(struct sd_store *s, u32 from, struct sd_gen *gen)
{
	u32 number;

	if (!gen_next(s, from, &number))
		return -ENOENT;
	return sd_gen_find(s, number, gen);
}

void sd_summary(struct sd_store *s, struct sd_summary *sum)
{
	*sum = s->sum;
}

void sd_gens_refresh(struct sd_store *s)
{
	struct sd_disk_gen *d;
	u32 n = U32_MAX;

	s->sum.newest_live = s->sum.newest_kept = 0;
	while (n && (d = gen_prev(s, n, &n))) {
		if (!s->sum.newest_kept && is_kept(s, d))
			s->sum.newest_kept = n;
		if (is_live(s, d)) {
			s->sum.newest_live = n;
			break;
		}
		n--;
	}
}

/* ---- the numbers, for merging ---------------------------------------------------------------------- */

int sd_gens_snapshot(struct sd_store *s, struct sd_gens *g)
{
	struct sd_disk_gen *d;
	u32 n = 0;

	g->nr_live = g->nr_kept = 0;
	g->live = sd_malloc((s->nr_gens + 1) * sizeof(u32));
	g->kept = sd_malloc((s->nr_gens + 1) * sizeof(u32));
	if (!g->live || !g->kept) {
		sd_gens_free(g);
		return -ENOMEM;
	}
	for (; (d = gen_next(s, n, &n)); n++) {
		if (is_live(s, d))
			g->live[g->nr_live++] = n;
		if (is_kept(s, d))
			g->kept[g->nr_kept++] = n;
	}
	return 0;
}

void sd_gens_free(struct sd_gens *g)
{
	sd_free(g->live);
	sd_free(g->kept);
	memset(g, 0, sizeof(*g));
}

u32 sd_gens_floor(const u32 *list, u32 nr, u32 gen)
{
	u32 lo = 0, hi = nr;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (list[mid] <= gen)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? list[lo - 1] : 0;
}

/* ---- changes (at commit and at replay) ---------------------------------------------------------------- */

void sd_gens_count_changed(struct sd_store *s, u32 gen, s64 n)
{
	struct sd_disk_gen *d;
	u32 number = gen;
	u64 changed;

	while (number && (d = gen_prev(s, number, &number)) && !is_kept(s, d))
		number--;
	if (!number || !d)
		return;
	d = sd_cat_edit(s, SD_CAT_KEY(SD_CAT_GEN, number));
	changed = le64_to_cpu(d->changed);
	changed = n < 0 && changed < (u64)-n ? 0 : changed + n;
	d->changed = cpu_to_le64(changed);
}

/*
 * A generation goes down: live to not live, kept to not kept. Records that it needed may be garbage now; and when its changed set is given up, its
 * records count for the next older kept one, as those of a deleted one do.
 */
static void gen_lower(struct sd_store *s, u32 number, u32 state, u32 flags)
{
	struct sd_disk_gen *d = sd_cat_edit(s, SD_CAT_KEY(SD_CAT_GEN, number));
	bool was_live = is_live(s, d), was_kept = is_kept(s, d);
	u64 changed = le64_to_cpu(d->changed);

	d->state = cpu_to_le32(state);
	d->flags = cpu_to_le32(flags);
	if (was_kept && !is_kept(s, d)) {
		d->changed = 0;
		sd_gens_count_changed(s, number, changed);
	}
	if ((was_live && !is_live(s, d)) || (was_kept && !is_kept(s, d)))
		sd_merge_garbage(s, number, changed);
}

/*
 * The descriptor may be older than what was committed since it was made: that must not bring back what was deleted or lost meanwhile.
 */
int sd_gens_apply_put(struct sd_store *s, const struct sd_disk_gen *new, u32 number)
{
	struct sd_disk_gen *old = sd_cat_edit(s, SD_CAT_KEY(SD_CAT_GEN, number));
	u32 state = le32_to_cpu(new->state), flags = le32_to_cpu(new->flags);
	struct sd_disk_gen d = *new;
	int err;

	if (!old && number <= s->sum.highest)
		return 0;
	if (number == U32_MAX)	/* no number after it: see check_super() */
		return -EUCLEAN;
	d.changed = 0;
	if (old) {
		flags |= le32_to_cpu(old->flags) & SD_GEN_F_CHANGES_UNKNOWN;
		if (le32_to_cpu(old->state) != SD_GEN_LIVE)
			state = le32_to_cpu(old->state);
		d.changed = old->changed;
		d.state = old->state;
		d.flags = old->flags;
		*old = d;
		gen_lower(s, number, state, flags);
	} else {
		err = sd_cat_put(s, SD_CAT_KEY(SD_CAT_GEN, number), &d);
		if (err)
			return err;
		s->nr_gens++;
		s->sum.highest = number;
	}
	sd_gens_refresh(s);
	return 0;
}

void sd_gens_apply_del(struct sd_store *s, u32 first, u32 last)
{
	struct sd_disk_gen *d;
	u64 changed = 0;
	bool unknown = false;
	u32 n = first;

	for (; (d = gen_next(s, n, &n)) && n <= last; n++) {
		u64 here = le64_to_cpu(d->changed);

		changed += here;
		unknown |= !!(le32_to_cpu(d->flags) & SD_GEN_F_CHANGES_UNKNOWN);
		sd_cat_del(s, SD_CAT_KEY(SD_CAT_GEN, n));
		s->nr_gens--;
		sd_merge_garbage(s, n, here);
		if (n == U32_MAX)
			break;
	}
	if (first > 1 && changed)
		sd_gens_count_changed(s, first - 1, changed);
	if (first > 1 && unknown && (d = gen_prev(s, first - 1, &n)))	/* its interval now ends where theirs did */
		gen_lower(s, n, le32_to_cpu(d->state), le32_to_cpu(d->flags) | SD_GEN_F_CHANGES_UNKNOWN);
	sd_gens_refresh(s);
}

void sd_gens_apply_lose(struct sd_store *s, u32 first, u32 last, bool unknown)
{
	struct sd_disk_gen *d;
	u32 n = first;

	for (; (d = gen_next(s, n, &n)) && n <= last; n++) {
		u32 state = le32_to_cpu(d->state), flags = le32_to_cpu(d->flags);

		gen_lower(s, n, state == SD_GEN_LIVE ? SD_GEN_LOST : state, unknown ? flags | SD_GEN_F_CHANGES_UNKNOWN : flags);
		if (n == U32_MAX)
			break;
	}
	sd_gens_refresh(s);
}
