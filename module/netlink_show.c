// SPDX-License-Identifier: GPL-2.0
/*
 * Netlink operations that show volumes, generations and virtual volumes.
 */
#include <linux/blkdev.h>
#include <net/genetlink.h>
#include <net/sock.h>
#include "netlink.h"

/* ---- volumes --------------------------------------------------------------------------------------------------- */

struct volume_view {
	struct snap_volume *vol;
	struct snap_store_info info;
	struct snap_summary sum;
};

static int put_u64(struct sk_buff *msg, int attr, u64 value)
{
	return nla_put_u64_64bit(msg, attr, value, SNAPDIFF_A_PAD);
}

static int put_stat(struct sk_buff *msg, int attr, u64 value)
{
	return nla_put_u64_64bit(msg, attr, value, SNAPDIFF_STAT_PAD);
}

static int fill_stats(struct sk_buff *msg, const struct volume_view *w)
{
	static const struct { u8 stat, counter; } counters[] = {
		{ SNAPDIFF_STAT_READS, SNAP_C_READS },
		{ SNAPDIFF_STAT_WRITES, SNAP_C_WRITES },
		{ SNAPDIFF_STAT_WRITES_DEFERRED, SNAP_C_DEFERRED },
		{ SNAPDIFF_STAT_COPIED, SNAP_C_COPIED },
		{ SNAPDIFF_STAT_ZEROS, SNAP_C_ZEROS },
		{ SNAPDIFF_STAT_BAD, SNAP_C_BAD },
		{ SNAPDIFF_STAT_MARKED, SNAP_C_MARKED },
		{ SNAPDIFF_STAT_GROUPS, SNAP_C_GROUPS },
		{ SNAPDIFF_STAT_DISCARDS_DROPPED, SNAP_C_DISCARDS_DROPPED },
		{ SNAPDIFF_STAT_LOST_GENS, SNAP_C_LOST_GENS },
	};
	struct nlattr *nest = nla_nest_start(msg, SNAPDIFF_A_STATS);
	const struct snap_store_info *s = &w->info;
	unsigned int i;

	if (!nest)
		return -EMSGSIZE;
	if (put_stat(msg, SNAPDIFF_STAT_DIFF_SIZE, s->diff_size) ||
	    put_stat(msg, SNAPDIFF_STAT_DIFF_FREE, s->diff_free) ||
	    put_stat(msg, SNAPDIFF_STAT_DIFF_RESERVED, s->diff_reserved) ||
	    put_stat(msg, SNAPDIFF_STAT_JOURNAL_SIZE, s->journal_size) ||
	    put_stat(msg, SNAPDIFF_STAT_JOURNAL_USED, s->journal_used) ||
	    put_stat(msg, SNAPDIFF_STAT_RECORDS_NEW, s->records_new) ||
	    put_stat(msg, SNAPDIFF_STAT_RECORDS, s->records_run) ||
	    put_stat(msg, SNAPDIFF_STAT_RUNS, s->nr_runs) ||
	    put_stat(msg, SNAPDIFF_STAT_TRANSACTION, s->txid) ||
	    put_stat(msg, SNAPDIFF_STAT_JOURNAL_WRITTEN, s->journal_written) ||
	    put_stat(msg, SNAPDIFF_STAT_META_WRITTEN, s->meta_written) ||
	    put_stat(msg, SNAPDIFF_STAT_CHECKPOINTS, s->checkpoints) ||
	    put_stat(msg, SNAPDIFF_STAT_MERGES, s->merges) ||
	    put_stat(msg, SNAPDIFF_STAT_MEMORY, s->memory) ||
	    put_stat(msg, SNAPDIFF_STAT_MEMORY_MAX, s->memory_max))
		return -EMSGSIZE;
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		if (put_stat(msg, counters[i].stat, snap_counter_read(w->vol, counters[i].counter)))
			return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int fill_volume(struct sk_buff *msg, void *what)
{
	const struct volume_view *w = what;
	struct snap_volume *vol = w->vol;

	if (nla_put_string(msg, SNAPDIFF_A_VOLUME, vol->name) ||
	    nla_put(msg, SNAPDIFF_A_VOLUME_UUID, sizeof(vol->uuid), vol->uuid) ||
	    put_u64(msg, SNAPDIFF_A_PRIMARY_DEV, new_encode_dev(vol->primary_bdev->bd_dev)) ||
	    put_u64(msg, SNAPDIFF_A_DIFF_DEV, new_encode_dev(vol->diff_bdev->bd_dev)) ||
	    put_u64(msg, SNAPDIFF_A_DM_DEV, new_encode_dev(disk_devt(dm_disk(vol->md)))) ||
	    put_u64(msg, SNAPDIFF_A_SIZE, (u64)READ_ONCE(vol->size) << SECTOR_SHIFT) ||
	    nla_put_u32(msg, SNAPDIFF_A_CHUNK_SIZE, vol->chunk_sectors << SECTOR_SHIFT) ||
	    nla_put_u8(msg, SNAPDIFF_A_ON_FULL, READ_ONCE(vol->on_full)) ||
	    nla_put_u8(msg, SNAPDIFF_A_STORE_STATE, snap_store_failed(vol->store) ? SNAPDIFF_STORE_FAILED : SNAPDIFF_STORE_RW) ||
	    nla_put_u32(msg, SNAPDIFF_A_HIGHEST_GEN, w->sum.highest) ||
	    nla_put_u32(msg, SNAPDIFF_A_NR_GENS, w->info.nr_gens))
		return -EMSGSIZE;
	return fill_stats(msg, w);
}

static void volume_look(struct snap_volume *vol, struct volume_view *w)
{
	w->vol = vol;
	snap_store_info(vol->store, &w->info);
	snap_store_summary(vol->store, &w->sum);
}

int snap_nl_volume_get(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol = snap_nl_volume(skb, info);
	struct volume_view w;
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_nl_enter(vol, info->extack);
	if (!err) {
		volume_look(vol, &w);
		err = snap_nl_reply(info, SNAPDIFF_CMD_VOLUME_GET, fill_volume, &w);
		snap_nl_leave(vol);
	}
	snap_volume_put(vol);
	return err;
}

static int step_volume(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct snap_nl_dump *d)
{
	struct volume_view w;

	volume_look(vol, &w);
	return snap_nl_dump_one(skb, cb, SNAPDIFF_CMD_VOLUME_GET, fill_volume, &w);
}

int snap_nl_volume_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return snap_nl_dump_volumes(skb, cb, step_volume);
}

/* ---- generations ---------------------------------------------------------------------------------------------------------- */

static int put_gen_u64(struct sk_buff *msg, int attr, u64 value)
{
	return nla_put_u64_64bit(msg, attr, value, SNAPDIFF_GEN_A_PAD);
}

int snap_nl_fill_gen(struct sk_buff *msg, void *what)
{
	const struct snap_nl_gen_view *w = what;
	const struct snap_gen *gen = w->gen;
	u32 flags = gen->flags | (w->virt >= 0 ? SNAPDIFF_GEN_F_ACTIVE : 0);
	struct nlattr *nest = nla_nest_start(msg, SNAPDIFF_A_GENERATION);

	/* A failed store has lost them all. */
	u8 state = snap_store_failed(w->vol->store) ? SNAPDIFF_GEN_LOST : gen->state;

	if (!nest ||
	    nla_put_string(msg, SNAPDIFF_GEN_A_VOLUME, w->vol->name) ||
	    nla_put_u32(msg, SNAPDIFF_GEN_A_NUMBER, gen->number) ||
	    nla_put(msg, SNAPDIFF_GEN_A_UUID, sizeof(gen->uuid), gen->uuid) ||
	    put_gen_u64(msg, SNAPDIFF_GEN_A_CREATED, gen->created_ns) ||
	    put_gen_u64(msg, SNAPDIFF_GEN_A_SIZE, gen->size) ||
	    nla_put_u8(msg, SNAPDIFF_GEN_A_STATE, state) ||
	    nla_put_u32(msg, SNAPDIFF_GEN_A_FLAGS, flags) ||
	    nla_put_string(msg, SNAPDIFF_GEN_A_LABEL, gen->label) ||
	    put_gen_u64(msg, SNAPDIFF_GEN_A_CHANGED, gen->changed) ||
	    (w->virt >= 0 && nla_put_u32(msg, SNAPDIFF_GEN_A_VIRT_INDEX, w->virt)))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static void gen_look(struct snap_volume *vol, const struct snap_gen *gen, struct snap_nl_gen_view *w)
{
	w->vol = vol;
	w->gen = gen;
	w->virt = snap_virt_index(vol, gen->number);
}

int snap_nl_gen_get(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	struct snap_gen gen;
	struct snap_nl_gen_view w;
	u32 number;
	int err;

	vol = snap_nl_gen(skb, info, &number);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_nl_enter(vol, info->extack);
	if (err)
		goto put;
	err = snap_store_gen_find(vol->store, number, &gen);
	if (err) {
		snap_refuse(info->extack, "%s@%u: no such generation", vol->name, number);
	} else {
		gen_look(vol, &gen, &w);
		err = snap_nl_reply(info, SNAPDIFF_CMD_GEN_GET, snap_nl_fill_gen, &w);
	}
	snap_nl_leave(vol);
put:
	snap_volume_put(vol);
	return err;
}

static int step_gen(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct snap_nl_dump *d)
{
	struct snap_gen gen;
	struct snap_nl_gen_view w;
	int ret;

	while (!snap_store_gen_next(vol->store, d->from, &gen)) {
		gen_look(vol, &gen, &w);
		ret = snap_nl_dump_one(skb, cb, SNAPDIFF_CMD_GEN_GET, snap_nl_fill_gen, &w);
		if (ret <= 0)
			return ret;
		if (gen.number == U32_MAX)
			break;
		d->from = gen.number + 1;
	}
	return 1;
}

int snap_nl_gen_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return snap_nl_dump_volumes(skb, cb, step_gen);
}

/* ---- virtual volumes ---- */

static int fill_virt(struct sk_buff *msg, void *what)
{
	const struct snap_virt_info *v = what;

	if (nla_put_u32(msg, SNAPDIFF_A_VIRT_INDEX, v->index) ||
	    nla_put_string(msg, SNAPDIFF_A_VOLUME, v->volume) ||
	    nla_put_u32(msg, SNAPDIFF_A_GEN, v->gen) ||
	    nla_put_u32(msg, SNAPDIFF_A_OPENERS, v->openers))
		return -EMSGSIZE;
	return 0;
}

int snap_nl_virt_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct snap_nl_dump *d = snap_nl_dump(cb);
	struct snap_virt_info virt;
	int ret = snap_nl_dump_refused(cb);

	if (ret)
		return ret;
	snap_nl_dump_enter(cb);
	for (; !snap_virt_next(d->from, &virt); d->from = virt.index + 1) {
		if (d->name[0] && strcmp(d->name, virt.volume))
			continue;
		ret = snap_nl_dump_one(skb, cb, SNAPDIFF_CMD_VIRT_GET, fill_virt, &virt);
		if (ret < 0)
			return ret;
		if (!ret)
			break;
	}
	return snap_nl_dump_leave(skb, cb);
}
