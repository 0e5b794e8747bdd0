// SPDX-License-Identifier: GPL-2.0
/*
 * Netlink dumps of extents: the map of a generation, the changes between two.
 */
#include <linux/sched/signal.h>
#include <net/genetlink.h>
#include <net/sock.h>
#include "netlink.h"

#define EXTENTS_PER_MESSAGE	2000u	/* an attribute has at most 64 KiB */

static int check_range(struct nlattr **attrs, struct snap_nl_dump *d, struct netlink_ext_ack *extack)
{
	int err = snap_nl_check_attr(attrs, SNAPDIFF_A_VOLUME, extack);
	u64 length;

	if (!err)
		err = snap_nl_check_attr(attrs, SNAPDIFF_A_GEN, extack);
	if (err)
		return err;
	d->g1 = nla_get_u32(attrs[SNAPDIFF_A_GEN]);
	if (attrs[SNAPDIFF_A_OFFSET])
		d->pos = nla_get_u64(attrs[SNAPDIFF_A_OFFSET]);
	length = attrs[SNAPDIFF_A_LENGTH] ? nla_get_u64(attrs[SNAPDIFF_A_LENGTH]) : U64_MAX;
	d->end = length > U64_MAX - d->pos ? U64_MAX : d->pos + length;
	return 0;
}

static int check_pair(struct nlattr **attrs, struct snap_nl_dump *d, struct netlink_ext_ack *extack)
{
	int err = check_range(attrs, d, extack);

	if (err || !attrs[SNAPDIFF_A_GEN_LAST])
		return err;
	d->g2 = nla_get_u32(attrs[SNAPDIFF_A_GEN_LAST]);
	if (d->g2 >= d->g1)
		return 0;
	snap_refuse(extack, "%s: generation %u is older than %u", d->name, d->g2, d->g1);
	return -EINVAL;
}

int snap_nl_map_start(struct netlink_callback *cb)
{
	return snap_nl_dump_begin(cb, check_range);
}

int snap_nl_changes_start(struct netlink_callback *cb)
{
	return snap_nl_dump_begin(cb, check_pair);
}

static int extents_gen(struct snap_volume *vol, u32 number, struct snap_gen *gen, struct netlink_ext_ack *extack)
{
	int err = snap_store_gen_find(vol->store, number, gen);

	if (err)
		snap_refuse(extack, "%s@%u: no such generation", vol->name, number);
	return err;
}

/* Are the generations there, and how far do they reach? Asked in every call: one may have gone meanwhile. */
static int map_check(struct snap_volume *vol, struct snap_nl_dump *d, u64 *end, struct netlink_ext_ack *extack)
{
	struct snap_gen gen;
	int err = extents_gen(vol, d->g1, &gen, extack);

	if (err)
		return err;
	*end = min(d->end, gen.size);
	if (gen.state == SNAPDIFF_GEN_BOOKMARK) {
		snap_refuse(extack, "%s@%u: is a bookmark, it has no data", vol->name, d->g1);
		return -EINVAL;
	}
	if (!snap_store_gen_readable(vol->store, d->g1)) {
		snap_refuse(extack, "%s@%u: is lost", vol->name, d->g1);
		return -EIO;
	}
	if (!snap_gen_fits(vol, &gen)) {
		snap_refuse(extack, "%s@%u: is damaged: it is larger than its volume", vol->name, d->g1);
		return -EIO;
	}
	return 0;
}

static int changes_check(struct snap_volume *vol, struct snap_nl_dump *d, u64 *end, struct netlink_ext_ack *extack)
{
	u64 size = (u64)READ_ONCE(vol->size) << SECTOR_SHIFT;
	struct snap_gen gen;
	int err = extents_gen(vol, d->g1, &gen, extack);

	d->grown = err ? 0 : gen.size;
	if (!err && d->g2) {
		err = extents_gen(vol, d->g2, &gen, extack);
		size = gen.size;
	}
	*end = min(d->end, size);
	/* If it has grown: from the chunk on that the older end cuts. */
	d->grown = d->grown < size ? round_down(d->grown, (u64)vol->chunk_sectors << SECTOR_SHIFT) : U64_MAX;
	return err;
}

static int extents_refused(struct snap_volume *vol, struct snap_nl_dump *d, bool changes, int err, struct netlink_ext_ack *extack)
{
	if (err == -ENODATA)
		snap_refuse(extack, "%s@%u: what changed since it is not known", vol->name, d->g1);
	else
		snap_refuse(extack, "%s@%u: the %s cannot be read: error %d", vol->name, d->g1, changes ? "changed set" : "map", err);
	return err;
}

/* What lies behind the end of the older generation is new, written or not: one extent, behind those that have been recorded. */
static int get_changes(struct snap_volume *vol, struct snap_nl_dump *d, u64 end, struct snapdiff_extent *out, u32 max)
{
	u64 known = end > d->grown ? round_down(d->grown, (u64)vol->chunk_sectors << SECTOR_SHIFT) : end;
	int n = d->pos < known ? snap_store_changes(vol, d->g1, d->g2, &d->pos, known, out, max) : 0;

	if (n || d->pos < known || d->pos >= end)
		return n;
	memset(out, 0, sizeof(*out));
	out->offset = d->pos;
	out->length = end - d->pos;
	d->pos = end;
	return 1;
}

/*
 * One message with as many extents as the skb takes, or as one slice has. Return: extents put, -errno. With none put there is no message.
 */
static int put_extents(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct snap_nl_dump *d, bool changes, u64 end)
{
	int cmd = changes ? SNAPDIFF_CMD_CHANGES_GET : SNAPDIFF_CMD_MAP_GET;
	struct nlattr *attr;
	u32 max;
	int room, n;
	void *hdr;

	hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &snap_nl_family, NLM_F_MULTI, cmd);
	if (!hdr)
		return -EMSGSIZE;
	room = skb_tailroom(skb) - 2 * NLA_HDRLEN - NLA_ALIGNTO;	/* the second for padding to 8 bytes */
	max = room > 0 ? min_t(u32, room / sizeof(struct snapdiff_extent), EXTENTS_PER_MESSAGE) : 0;
	attr = max ? nla_reserve_64bit(skb, SNAPDIFF_A_EXTENTS, max * sizeof(struct snapdiff_extent), SNAPDIFF_A_PAD) : NULL;
	if (!attr) {
		genlmsg_cancel(skb, hdr);
		return -EMSGSIZE;
	}
	if (changes)
		n = get_changes(vol, d, end, nla_data(attr), max);
	else
		n = snap_store_map(vol, d->g1, &d->pos, end, nla_data(attr), max);
	if (n <= 0) {
		genlmsg_cancel(skb, hdr);
		return n ? extents_refused(vol, d, changes, n, cb->extack) : 0;
	}
	attr->nla_len = nla_attr_size(n * sizeof(struct snapdiff_extent));
	nlmsg_trim(skb, (char *)attr + NLA_ALIGN(attr->nla_len));
	genlmsg_end(skb, hdr);
	return n;
}

/* One slice: control is held for so long only. Return: 1: a message, or the end; 0: go on; -errno */
static int dump_slice(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, bool changes)
{
	struct snap_nl_dump *d = snap_nl_dump(cb);
	int err = snap_nl_enter(vol, cb->extack), n = 0;
	u64 end;

	if (err)
		return err;
	err = changes ? changes_check(vol, d, &end, cb->extack) : map_check(vol, d, &end, cb->extack);
	if (!err && d->pos < end)
		n = put_extents(skb, cb, vol, d, changes, end);
	snap_nl_leave(vol);
	if (err || n < 0)
		return err ?: n;
	return n || d->pos >= end;
}

/* A call without a message would be the end of the dump. */
static int dump_extents(struct sk_buff *skb, struct netlink_callback *cb, bool changes)
{
	struct snap_nl_dump *d = snap_nl_dump(cb);
	int ret = snap_nl_dump_refused(cb);
	struct snap_volume *vol;

	if (ret)
		return ret;
	vol = snap_nl_dump_volume(d, cb->extack);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	while (!(ret = dump_slice(skb, cb, vol, changes))) {
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	snap_volume_put(vol);
	return ret < 0 ? ret : skb->len;
}

int snap_nl_map_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_extents(skb, cb, false);
}

int snap_nl_changes_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_extents(skb, cb, true);
}
