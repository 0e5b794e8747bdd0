// SPDX-License-Identifier: GPL-2.0
/*
 * The generic netlink family "snapdiff" (Documentation/netlink/specs/snapdiff.yaml; tests/lint/test_spec.py compares).
 *
 *   * Everything needs CAP_SYS_ADMIN, in the initial namespaces. GENL_ADMIN_PERM would ask for CAP_NET_ADMIN instead, so each operation begins with
 *     snap_nl_check_admin().
 *   * Validation is strict: an attribute that an operation does not know is refused, not ignored (a per-operation policy, no GENL_DONT_VALIDATE flag).
 *   * Every refusal carries text that names the object: snap_refuse().
 *   * Whatever touches a volume's store or dm device holds vol->control and has seen snap_volume_usable(): snap_nl_enter(). A dump takes and
 *     leaves it in every call, and finds the volume again by its name: it holds no reference while userspace thinks.
 *   * A dump of things that come and go carries the event sequence in cb->seq: if it changes between two calls, NLM_F_DUMP_INTR says so. Extents need
 *     none: they are sorted, each message is true when it is made, and a generation that goes away ends the dump with an error.
 *
 * parallel_ops: a cut may wait for a filesystem; the family must not hold the lock of all generic netlink for so long.
 */
#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <net/genetlink.h>
#include <net/sock.h>
#include "netlink.h"

/* ---- policies: what each operation takes ---------------------------------------------------------------- */

#define POLICY_VOLUME	{ .type = NLA_NUL_STRING, .len = SNAPDIFF_NAME_MAX }
#define POLICY_LABEL	{ .type = NLA_NUL_STRING, .len = SNAPDIFF_LABEL_MAX }
#define POLICY_GEN	NLA_POLICY_MIN(NLA_U32, 1)
#define POLICY_BOOL	NLA_POLICY_MAX(NLA_U8, 1)
#define POLICY_U32	{ .type = NLA_U32 }
#define POLICY_U64	{ .type = NLA_U64 }
#define POLICY_FLAG	{ .type = NLA_FLAG }
#define POLICY_ON_FULL	NLA_POLICY_MAX(NLA_U8, SNAPDIFF_ON_FULL_FAIL)

#define POLICY(name)	static const struct nla_policy policy_##name[SNAPDIFF_A_MAX + 1]

POLICY(volume_get) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
};

POLICY(volume_set) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_ON_FULL]	= POLICY_ON_FULL,
	[SNAPDIFF_A_REREAD_SIZE] = POLICY_FLAG,
};

POLICY(gen_create) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_LABEL]	= POLICY_LABEL,
	[SNAPDIFF_A_FREEZE]	= POLICY_BOOL,
};

POLICY(gen_get) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
};

POLICY(gen_delete) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
	[SNAPDIFF_A_GEN_LAST]	= POLICY_GEN,
};

POLICY(gen_bookmark) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
};

POLICY(gen_pin) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
	[SNAPDIFF_A_PINNED]	= POLICY_BOOL,
};

POLICY(gen_label) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
	[SNAPDIFF_A_LABEL]	= POLICY_LABEL,
};

POLICY(virt_activate) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
	[SNAPDIFF_A_PARTSCAN]	= POLICY_FLAG,
};

POLICY(virt_deactivate) = {
	[SNAPDIFF_A_VIRT_INDEX]	= POLICY_U32,
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
};

POLICY(virt_get) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
};

POLICY(map_get) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
	[SNAPDIFF_A_OFFSET]	= POLICY_U64,
	[SNAPDIFF_A_LENGTH]	= POLICY_U64,
};

POLICY(changes_get) = {
	[SNAPDIFF_A_VOLUME]	= POLICY_VOLUME,
	[SNAPDIFF_A_GEN]	= POLICY_GEN,
	[SNAPDIFF_A_GEN_LAST]	= POLICY_GEN,
	[SNAPDIFF_A_OFFSET]	= POLICY_U64,
	[SNAPDIFF_A_LENGTH]	= POLICY_U64,
};

/* ---- volumes ---- */

static int do_volume_set(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol = snap_nl_volume(skb, info);
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_nl_enter(vol, info->extack);
	if (err)
		goto put;
	if (info->attrs[SNAPDIFF_A_ON_FULL])
		WRITE_ONCE(vol->on_full, nla_get_u8(info->attrs[SNAPDIFF_A_ON_FULL]));
	if (info->attrs[SNAPDIFF_A_REREAD_SIZE])
		err = snap_volume_grow_diff(vol, info->extack);
	snap_nl_leave(vol);
put:
	snap_volume_put(vol);
	return err;
}

/* ---- generations: changes --------------------------------------------------------------------------------------------------- */

static void create_put(struct snap_create_req *req)
{
	while (req->nr)
		snap_volume_put(req->vols[--req->nr]);
	kfree(req->vols);
	kfree(req->out);
}

/* The volumes of the request, referenced. */
static int create_get(struct genl_info *info, struct snap_create_req *req)
{
	struct snap_volume *vol;
	struct nlattr *a;
	int rem;

	req->vols = kcalloc(SNAP_CUT_MAX, sizeof(*req->vols), GFP_KERNEL);
	req->out = kcalloc(SNAP_CUT_MAX, sizeof(*req->out), GFP_KERNEL);
	if (!req->vols || !req->out)
		return -ENOMEM;
	nlmsg_for_each_attr(a, info->nlhdr, GENL_HDRLEN, rem) {
		if (nla_type(a) != SNAPDIFF_A_VOLUME)
			continue;
		if (req->nr == SNAP_CUT_MAX) {
			snap_refuse(info->extack, "snapdiff: at most %d volumes can be cut at one instant", SNAP_CUT_MAX);
			return -E2BIG;
		}
		vol = snap_nl_find(nla_data(a), info->extack);
		if (IS_ERR(vol))
			return PTR_ERR(vol);
		req->vols[req->nr++] = vol;
	}
	return 0;
}

static int fill_created(struct sk_buff *msg, void *what)
{
	struct snap_create_req *req = what;
	struct snap_nl_gen_view w = { .virt = -ENOENT };
	unsigned int i;

	for (i = 0; i < req->nr; i++) {
		w.vol = req->vols[i];
		w.gen = &req->out[i];
		if (snap_nl_fill_gen(msg, &w))
			return -EMSGSIZE;
	}
	return 0;
}

/* As snap_nl_reply(), but the answer has one nest a volume. */
static int reply_created(struct sk_buff *msg, struct genl_info *info, struct snap_create_req *req)
{
	void *hdr = genlmsg_put_reply(msg, info, &snap_nl_family, 0, SNAPDIFF_CMD_GEN_CREATE);

	if (WARN_ON_ONCE(!hdr || fill_created(msg, req))) {
		nlmsg_free(msg);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, hdr);
	return genlmsg_reply(msg, info);
}

static int do_gen_create(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_create_req req = { .freeze = -1, .extack = info->extack };
	struct nlattr **attrs = info->attrs;
	struct sk_buff *msg = NULL;
	int err = snap_nl_check_admin(skb, info->extack);

	if (!err)
		err = snap_nl_check_attr(attrs, SNAPDIFF_A_VOLUME, info->extack);
	if (err)
		return err;
	if (attrs[SNAPDIFF_A_LABEL])
		req.label = nla_data(attrs[SNAPDIFF_A_LABEL]);
	if (attrs[SNAPDIFF_A_FREEZE])
		req.freeze = nla_get_u8(attrs[SNAPDIFF_A_FREEZE]);
	err = create_get(info, &req);
	if (err)
		goto out;
	/* Before the cut: afterwards nothing may fail any more. */
	msg = genlmsg_new(req.nr * 512, GFP_KERNEL);
	err = msg ? snap_gen_create(&req) : -ENOMEM;
	if (err)
		nlmsg_free(msg);
	else
		err = reply_created(msg, info, &req);
out:
	create_put(&req);
	return err;
}

static int do_gen_delete(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	u32 first, last;
	int err;

	vol = snap_nl_gen(skb, info, &first);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	last = info->attrs[SNAPDIFF_A_GEN_LAST] ? nla_get_u32(info->attrs[SNAPDIFF_A_GEN_LAST]) : first;
	err = snap_gen_delete(vol, first, last, info->extack);
	snap_volume_put(vol);
	return err;
}

static int do_gen_bookmark(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	u32 gen;
	int err;

	vol = snap_nl_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_gen_bookmark(vol, gen, info->extack);
	snap_volume_put(vol);
	return err;
}

static int do_gen_pin(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	u32 gen;
	int err;

	vol = snap_nl_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_nl_check_attr(info->attrs, SNAPDIFF_A_PINNED, info->extack);
	if (!err)
		err = snap_gen_pin(vol, gen, nla_get_u8(info->attrs[SNAPDIFF_A_PINNED]), info->extack);
	snap_volume_put(vol);
	return err;
}

static int do_gen_label(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	u32 gen;
	int err;

	vol = snap_nl_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_nl_check_attr(info->attrs, SNAPDIFF_A_LABEL, info->extack);
	if (!err)
		err = snap_gen_label(vol, gen, nla_data(info->attrs[SNAPDIFF_A_LABEL]), info->extack);
	snap_volume_put(vol);
	return err;
}

/* ---- virtual volumes ------------------------------------------------------------------------------------------------------------ */

static int fill_index(struct sk_buff *msg, void *what)
{
	return nla_put_u32(msg, SNAPDIFF_A_VIRT_INDEX, *(u32 *)what);
}

static int do_virt_activate(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	u32 gen, index;
	int err;

	vol = snap_nl_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_virt_activate(vol, gen, !!info->attrs[SNAPDIFF_A_PARTSCAN], &index, info->extack);
	if (!err)
		err = snap_nl_reply(info, SNAPDIFF_CMD_VIRT_ACTIVATE, fill_index, &index);
	snap_volume_put(vol);
	return err;
}

/* The disk of a volume that has died is still known by the name that the volume had. */
static int deactivate_dead(const char *name, u32 gen, struct netlink_ext_ack *extack)
{
	struct snap_virt_info virt;
	u32 from;

	for (from = 0; !snap_virt_next(from, &virt); from = virt.index + 1)
		if (virt.gen == gen && !strcmp(virt.volume, name))
			return snap_virt_deactivate_index(virt.index, extack);
	snap_refuse(extack, "%s@%u: is not active", name, gen);
	return -ENOENT;
}

static int do_virt_deactivate(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	int err = snap_nl_check_admin(skb, info->extack);
	struct snap_volume *vol;
	const char *name;
	u32 gen;

	if (err)
		return err;
	if (attrs[SNAPDIFF_A_VIRT_INDEX])
		return snap_virt_deactivate_index(nla_get_u32(attrs[SNAPDIFF_A_VIRT_INDEX]), info->extack);
	err = snap_nl_check_attr(attrs, SNAPDIFF_A_VOLUME, info->extack);
	if (!err)
		err = snap_nl_check_attr(attrs, SNAPDIFF_A_GEN, info->extack);
	if (err)
		return err;
	name = nla_data(attrs[SNAPDIFF_A_VOLUME]);
	gen = nla_get_u32(attrs[SNAPDIFF_A_GEN]);
	vol = snap_volume_find(name);
	if (!vol)
		return deactivate_dead(name, gen, info->extack);
	err = snap_virt_deactivate(vol, gen, info->extack);
	snap_volume_put(vol);
	return err == -ENOENT ? deactivate_dead(name, gen, info->extack) : err;
}

/* ---- the family ---------------------------------------------------------------------------------------------------------------------- */

#define OP_POLICY(name)	.policy = policy_##name, .maxattr = SNAPDIFF_A_MAX

static const struct genl_ops snap_ops[] = {
	{ .cmd = SNAPDIFF_CMD_VOLUME_GET, OP_POLICY(volume_get), .doit = snap_nl_volume_get,
	  .start = snap_nl_dump_start, .dumpit = snap_nl_volume_dump, .done = snap_nl_dump_done },
	{ .cmd = SNAPDIFF_CMD_VOLUME_SET, OP_POLICY(volume_set), .doit = do_volume_set },
	{ .cmd = SNAPDIFF_CMD_GEN_CREATE, OP_POLICY(gen_create), .doit = do_gen_create },
	{ .cmd = SNAPDIFF_CMD_GEN_GET, OP_POLICY(gen_get), .doit = snap_nl_gen_get,
	  .start = snap_nl_dump_start, .dumpit = snap_nl_gen_dump, .done = snap_nl_dump_done },
	{ .cmd = SNAPDIFF_CMD_GEN_DELETE, OP_POLICY(gen_delete), .doit = do_gen_delete },
	{ .cmd = SNAPDIFF_CMD_GEN_BOOKMARK, OP_POLICY(gen_bookmark), .doit = do_gen_bookmark },
	{ .cmd = SNAPDIFF_CMD_GEN_PIN, OP_POLICY(gen_pin), .doit = do_gen_pin },
	{ .cmd = SNAPDIFF_CMD_GEN_LABEL, OP_POLICY(gen_label), .doit = do_gen_label },
	{ .cmd = SNAPDIFF_CMD_VIRT_ACTIVATE, OP_POLICY(virt_activate), .doit = do_virt_activate },
	{ .cmd = SNAPDIFF_CMD_VIRT_DEACTIVATE, OP_POLICY(virt_deactivate), .doit = do_virt_deactivate },
	{ .cmd = SNAPDIFF_CMD_VIRT_GET, OP_POLICY(virt_get),
	  .start = snap_nl_dump_start, .dumpit = snap_nl_virt_dump, .done = snap_nl_dump_done },
	{ .cmd = SNAPDIFF_CMD_MAP_GET, OP_POLICY(map_get),
	  .start = snap_nl_map_start, .dumpit = snap_nl_map_dump, .done = snap_nl_dump_done },
	{ .cmd = SNAPDIFF_CMD_CHANGES_GET, OP_POLICY(changes_get),
	  .start = snap_nl_changes_start, .dumpit = snap_nl_changes_dump, .done = snap_nl_dump_done },
};

static const struct genl_multicast_group snap_groups[] = {
	{ .name = SNAPDIFF_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_SYS_ADMIN },
};

struct genl_family snap_nl_family __ro_after_init = {
	.name		= SNAPDIFF_FAMILY_NAME,
	.version	= SNAPDIFF_FAMILY_VERSION,
	.module		= THIS_MODULE,
	.parallel_ops	= true,
	.ops		= snap_ops,
	.n_ops		= ARRAY_SIZE(snap_ops),
	.mcgrps		= snap_groups,
	.n_mcgrps	= ARRAY_SIZE(snap_groups),
};

static int fill_event(struct sk_buff *msg, struct snap_volume *vol, enum snapdiff_event type, u32 gen, int err, const char *text)
{
	void *hdr = genlmsg_put(msg, 0, 0, &snap_nl_family, 0, SNAPDIFF_CMD_EVENT);

	if (!hdr ||
	    nla_put_u8(msg, SNAPDIFF_A_EVENT_TYPE, type) ||
	    nla_put_string(msg, SNAPDIFF_A_VOLUME, vol->name) ||
	    (gen && nla_put_u32(msg, SNAPDIFF_A_GEN, gen)) ||
	    (err && nla_put_u32(msg, SNAPDIFF_A_ERRNO, err)) ||
	    (text && nla_put_string(msg, SNAPDIFF_A_TEXT, text)))
		return -EMSGSIZE;
	genlmsg_end(msg, hdr);
	return 0;
}

/**
 * snap_netlink_event() - send an event to the multicast group; who calls snap_event() gets it, too
 *
 * Context: may sleep, does not start I/O. Lost when there is no memory or nobody listens.
 */
void snap_netlink_event(struct snap_volume *vol, enum snapdiff_event type, u32 gen, int err, const char *text)
{
	struct sk_buff *msg;

	if (!genl_has_listeners(&snap_nl_family, &init_net, 0))
		return;
	msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_NOIO);
	if (!msg)
		return;
	if (fill_event(msg, vol, type, gen, err, text))
		nlmsg_free(msg);
	else
		genlmsg_multicast(&snap_nl_family, msg, 0, 0, GFP_NOIO);
}

/** snap_netlink_init() - at module load, after all that its operations use */
int snap_netlink_init(void)
{
	return genl_register_family(&snap_nl_family);
}

/** snap_netlink_exit() - at unload: waits for operations under way */
void snap_netlink_exit(void)
{
	genl_unregister_family(&snap_nl_family);
}

MODULE_ALIAS_GENL_FAMILY(SNAPDIFF_FAMILY_NAME);
