// SPDX-License-Identifier: GPL-2.0
/*
 * What all netlink operations share: refusals, permission, the volume of a request, replies, the state of dumps. (netlink.c has the rules.)
 */
#include <linux/slab.h>
#include <net/genetlink.h>
#include <net/sock.h>
#include "netlink.h"

/* ---- refusals ---------------------------------------------------------------------------------------------- */

#define REFUSE_TEXTS	64

static char refuse_texts[REFUSE_TEXTS][SNAPDIFF_NAME_MAX + 129];
static atomic_t refuse_next;

/**
 * snap_refuse() - the extended-ack text of a refusal
 * @extack: may be NULL
 *
 * 6.1 has no room for formatted text in the extended ack, and 6.12 too little for our names. The text lies in a ring; it is read right after the
 * operation returns, with the family still registered. Should 64 refusals come in between, the text of another one is delivered.
 */
void snap_refuse(struct netlink_ext_ack *extack, const char *fmt, ...)
{
	unsigned int i = (unsigned int)atomic_inc_return(&refuse_next) % REFUSE_TEXTS;
	va_list args;

	if (!extack)
		return;
	va_start(args, fmt);
	vsnprintf(refuse_texts[i], sizeof(refuse_texts[i]), fmt, args);
	va_end(args);
	extack->_msg = refuse_texts[i];
}

int snap_nl_check_admin(struct sk_buff *skb, struct netlink_ext_ack *extack)
{
	if (netlink_capable(skb, CAP_SYS_ADMIN))
		return 0;
	snap_refuse(extack, "snapdiff: needs CAP_SYS_ADMIN");
	return -EPERM;
}

static const char *attr_names[SNAPDIFF_A_MAX + 1] = {
	[SNAPDIFF_A_VOLUME]	= "volume",
	[SNAPDIFF_A_GEN]	= "gen",
	[SNAPDIFF_A_LABEL]	= "label",
	[SNAPDIFF_A_PINNED]	= "pinned",
};

int snap_nl_check_attr(struct nlattr **attrs, int type, struct netlink_ext_ack *extack)
{
	if (attrs && attrs[type])
		return 0;
	snap_refuse(extack, "snapdiff: attribute \"%s\" is missing", attr_names[type]);
	return -EINVAL;
}

/* ---- the volume of a request ------------------------------------------------------------------------------- */

struct snap_volume *snap_nl_find(const char *name, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol = snap_volume_find(name);

	if (!vol) {
		snap_refuse(extack, "%s: no such volume", name);
		return ERR_PTR(-ENODEV);
	}
	return vol;
}

/* Permission and the volume, referenced, for a "do" operation. */
struct snap_volume *snap_nl_volume(struct sk_buff *skb, struct genl_info *info)
{
	int err = snap_nl_check_admin(skb, info->extack);

	if (!err)
		err = snap_nl_check_attr(info->attrs, SNAPDIFF_A_VOLUME, info->extack);
	if (err)
		return ERR_PTR(err);
	return snap_nl_find(nla_data(info->attrs[SNAPDIFF_A_VOLUME]), info->extack);
}

/* The same for one with a generation. */
struct snap_volume *snap_nl_gen(struct sk_buff *skb, struct genl_info *info, u32 *gen)
{
	int err = snap_nl_check_admin(skb, info->extack);

	if (!err)
		err = snap_nl_check_attr(info->attrs, SNAPDIFF_A_GEN, info->extack);
	if (err)
		return ERR_PTR(err);
	*gen = nla_get_u32(info->attrs[SNAPDIFF_A_GEN]);
	return snap_nl_volume(skb, info);
}

/* Its store and dm device are there until snap_nl_leave(). */
int snap_nl_enter(struct snap_volume *vol, struct netlink_ext_ack *extack)
{
	mutex_lock(&vol->control);
	if (snap_volume_usable(vol))
		return 0;
	mutex_unlock(&vol->control);
	snap_refuse(extack, "%s: is not attached any more", vol->name);
	return -ENODEV;
}

void snap_nl_leave(struct snap_volume *vol)
{
	mutex_unlock(&vol->control);
}

/* ---- replies ------------------------------------------------------------------------------------------------- */

int snap_nl_reply(struct genl_info *info, int cmd, int (*fill)(struct sk_buff *msg, void *what), void *what)
{
	struct sk_buff *msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *hdr;
	int err;

	if (!msg)
		return -ENOMEM;
	hdr = genlmsg_put_reply(msg, info, &snap_nl_family, 0, cmd);
	err = hdr ? fill(msg, what) : -EMSGSIZE;
	if (err) {
		nlmsg_free(msg);
		return err;
	}
	genlmsg_end(msg, hdr);
	return genlmsg_reply(msg, info);
}

/*
 * One message of a dump, all or nothing. Return: 1: put; 0: does not fit any more; -EMSGSIZE: would not fit into an empty one either.
 */
int snap_nl_dump_one(struct sk_buff *skb, struct netlink_callback *cb, int cmd, int (*fill)(struct sk_buff *msg, void *what), void *what)
{
	void *hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &snap_nl_family, NLM_F_MULTI, cmd);

	if (!hdr)
		return skb->len ? 0 : -EMSGSIZE;
	cb->prev_seq = snap_nl_dump(cb)->seq;
	genl_dump_check_consistent(cb, hdr);
	if (fill(skb, what)) {
		genlmsg_cancel(skb, hdr);
		return skb->len ? 0 : -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return 1;
}

/* ---- dumps: state --------------------------------------------------------------------------------------------------- */

struct snap_nl_dump *snap_nl_dump(struct netlink_callback *cb)
{
	return *(struct snap_nl_dump **)cb->ctx;
}

int snap_nl_dump_done(struct netlink_callback *cb)
{
	kfree(snap_nl_dump(cb));
	return 0;
}

static int dump_find_volume(struct nlattr **attrs, struct snap_nl_dump *d, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol;

	if (!attrs || !attrs[SNAPDIFF_A_VOLUME])
		return 0;
	nla_strscpy(d->name, attrs[SNAPDIFF_A_VOLUME], sizeof(d->name));
	vol = snap_nl_find(d->name, extack);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	memcpy(d->uuid, vol->uuid, sizeof(d->uuid));
	snap_volume_put(vol);
	return 0;
}

/*
 * Permission, state, the volume if one is named, and what @check wants to see and remember. In 6.1 there is no extended ack at the start of a dump: the
 * refusal is kept for the first call then, which comes at once.
 */
int snap_nl_dump_begin(struct netlink_callback *cb,
		       int (*check)(struct nlattr **attrs, struct snap_nl_dump *d, struct netlink_ext_ack *extack))
{
	struct snap_nl_dump *d = kzalloc(sizeof(*d), GFP_KERNEL);
	struct netlink_ext_ack own = {}, *extack = cb->extack ?: &own;
	int err;

	if (!d)
		return -ENOMEM;
	err = snap_nl_check_admin(cb->skb, extack);
	if (!err)
		err = dump_find_volume(snap_dump_attrs(cb), d, extack);
	if (!err && check)
		err = check(snap_dump_attrs(cb), d, extack);
	if (err && cb->extack) {
		kfree(d);
		return err;
	}
	d->refused = err;
	d->why = own._msg;
	*(struct snap_nl_dump **)cb->ctx = d;
	return 0;
}

int snap_nl_dump_start(struct netlink_callback *cb)
{
	return snap_nl_dump_begin(cb, NULL);
}

/* A refusal of the start that could not be said there. */
int snap_nl_dump_refused(struct netlink_callback *cb)
{
	struct snap_nl_dump *d = snap_nl_dump(cb);

	if (d->refused && d->why && cb->extack)
		cb->extack->_msg = d->why;
	return d->refused;
}

/* The volume that was named, referenced: the same one as at the start. */
struct snap_volume *snap_nl_dump_volume(struct snap_nl_dump *d, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol = snap_nl_find(d->name, extack);

	if (!IS_ERR(vol) && memcmp(vol->uuid, d->uuid, sizeof(d->uuid))) {
		snap_volume_put(vol);
		snap_refuse(extack, "%s: is another volume now", d->name);
		return ERR_PTR(-ENODEV);
	}
	return vol;
}

/*
 * Begin and end of a call of a dump whose things may come and go. Once it is not consistent every message is flagged, NLMSG_DONE included, not just
 * the first one behind the change.
 */
void snap_nl_dump_enter(struct netlink_callback *cb)
{
	struct snap_nl_dump *d = snap_nl_dump(cb);

	cb->seq = snap_event_seq();
	if (!d->seq)
		d->seq = cb->seq;
}

int snap_nl_dump_leave(struct sk_buff *skb, struct netlink_callback *cb)
{
	cb->prev_seq = snap_nl_dump(cb)->seq;
	return skb->len;
}

/*
 * The next volume of a dump over one or all, referenced and with control held; NULL at the end. One that goes away between two calls is left out: the
 * event sequence tells.
 */
static struct snap_volume *dump_next_volume(struct snap_nl_dump *d)
{
	struct snap_volume *vol;

	for (;;) {
		if (d->name[0]) {
			vol = d->volume_pos++ ? NULL : snap_nl_dump_volume(d, NULL);
			if (IS_ERR(vol))
				vol = NULL;
		} else {
			vol = snap_volume_next(&d->volume_pos);
		}
		if (!vol || !snap_nl_enter(vol, NULL))
			return vol;
		snap_volume_put(vol);
	}
}

static void dump_leave(struct snap_volume *vol)
{
	snap_nl_leave(vol);
	snap_volume_put(vol);
}

/*
 * Dump something of each volume. @step puts messages; it returns 1 when it is through with the volume, 0 when the skb is full, -errno.
 * The position is only moved behind a volume that is done.
 */
int snap_nl_dump_volumes(struct sk_buff *skb, struct netlink_callback *cb,
			int (*step)(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct snap_nl_dump *d))
{
	struct snap_nl_dump *d = snap_nl_dump(cb);
	struct snap_volume *vol;
	u64 pos;
	int ret = snap_nl_dump_refused(cb);

	if (ret)
		return ret;
	snap_nl_dump_enter(cb);
	for (;;) {
		pos = d->volume_pos;
		vol = dump_next_volume(d);
		if (!vol)
			return snap_nl_dump_leave(skb, cb);
		ret = step(skb, cb, vol, d);
		dump_leave(vol);
		if (ret < 0)
			return ret;
		if (!ret) {
			d->volume_pos = pos;
			return snap_nl_dump_leave(skb, cb);
		}
		d->from = 0;
	}
}
