// SPDX-License-Identifier: GPL-2.0
/*
 * The generic netlink family "snapdiff" (Documentation/netlink/specs/snapdiff.yaml; tests/lint/test_spec.py compares).
 *
 *   * Everything needs CAP_SYS_ADMIN, in the initial namespaces. GENL_ADMIN_PERM would ask for CAP_NET_ADMIN instead, so each operation begins with
 *     check_admin().
 *   * Validation is strict: an attribute that an operation does not know is refused, not ignored (a per-operation policy, no GENL_DONT_VALIDATE flag).
 *   * Every refusal carries text that names the object: snap_refuse().
 *   * Whatever touches a volume's store or dm device holds vol->control and has seen snap_volume_usable(): volume_enter(). A dump takes and
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
#include "snapdiff.h"

#define MAX_CREATE_VOLUMES	64	/* in one consistency group */
#define EXTENTS_PER_MESSAGE	2000u	/* an attribute has at most 64 KiB */

static struct genl_family snap_family;

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

static int check_admin(struct sk_buff *skb, struct netlink_ext_ack *extack)
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

static int check_attr(struct nlattr **attrs, int type, struct netlink_ext_ack *extack)
{
	if (attrs && attrs[type])
		return 0;
	snap_refuse(extack, "snapdiff: attribute \"%s\" is missing", attr_names[type]);
	return -EINVAL;
}

/* ---- the volume of a request ------------------------------------------------------------------------------- */

static struct snap_volume *volume_find(const char *name, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol = snap_volume_find(name);

	if (!vol) {
		snap_refuse(extack, "%s: no such volume", name);
		return ERR_PTR(-ENODEV);
	}
	return vol;
}

/* Permission and the volume, referenced, for a "do" operation. */
static struct snap_volume *request_volume(struct sk_buff *skb, struct genl_info *info)
{
	int err = check_admin(skb, info->extack);

	if (!err)
		err = check_attr(info->attrs, SNAPDIFF_A_VOLUME, info->extack);
	if (err)
		return ERR_PTR(err);
	return volume_find(nla_data(info->attrs[SNAPDIFF_A_VOLUME]), info->extack);
}

/* The same for one with a generation. */
static struct snap_volume *request_gen(struct sk_buff *skb, struct genl_info *info, u32 *gen)
{
	int err = check_admin(skb, info->extack);

	if (!err)
		err = check_attr(info->attrs, SNAPDIFF_A_GEN, info->extack);
	if (err)
		return ERR_PTR(err);
	*gen = nla_get_u32(info->attrs[SNAPDIFF_A_GEN]);
	return request_volume(skb, info);
}

/* Its store and dm device are there until volume_leave(). */
static int volume_enter(struct snap_volume *vol, struct netlink_ext_ack *extack)
{
	mutex_lock(&vol->control);
	if (snap_volume_usable(vol))
		return 0;
	mutex_unlock(&vol->control);
	snap_refuse(extack, "%s: is not attached any more", vol->name);
	return -ENODEV;
}

static void volume_leave(struct snap_volume *vol)
{
	mutex_unlock(&vol->control);
}

/* ---- replies ------------------------------------------------------------------------------------------------- */

static int reply(struct genl_info *info, int cmd, int (*fill)(struct sk_buff *msg, void *what), void *what)
{
	struct sk_buff *msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *hdr;
	int err;

	if (!msg)
		return -ENOMEM;
	hdr = genlmsg_put_reply(msg, info, &snap_family, 0, cmd);
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
static int dump_one(struct sk_buff *skb, struct netlink_callback *cb, int cmd, int (*fill)(struct sk_buff *msg, void *what), void *what)
{
	void *hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &snap_family, NLM_F_MULTI, cmd);

	if (!hdr)
		return skb->len ? 0 : -EMSGSIZE;
	genl_dump_check_consistent(cb, hdr);
	if (fill(skb, what)) {
		genlmsg_cancel(skb, hdr);
		return skb->len ? 0 : -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return 1;
}

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
	    put_stat(msg, SNAPDIFF_STAT_MERGES, s->merges))
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
	    put_u64(msg, SNAPDIFF_A_SIZE, (u64)vol->size << SECTOR_SHIFT) ||
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

static int do_volume_get(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol = request_volume(skb, info);
	struct volume_view w;
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = volume_enter(vol, info->extack);
	if (!err) {
		volume_look(vol, &w);
		err = reply(info, SNAPDIFF_CMD_VOLUME_GET, fill_volume, &w);
		volume_leave(vol);
	}
	snap_volume_put(vol);
	return err;
}

static int do_volume_set(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol = request_volume(skb, info);
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	if (info->attrs[SNAPDIFF_A_REREAD_SIZE]) {
		snap_refuse(info->extack, "%s: a volume takes another size with a new table, not here", vol->name);
		err = -EOPNOTSUPP;
		goto put;
	}
	err = volume_enter(vol, info->extack);
	if (err)
		goto put;
	if (info->attrs[SNAPDIFF_A_ON_FULL])
		WRITE_ONCE(vol->on_full, nla_get_u8(info->attrs[SNAPDIFF_A_ON_FULL]));
	volume_leave(vol);
put:
	snap_volume_put(vol);
	return err;
}

/* ---- dumps: state --------------------------------------------------------------------------------------------------- */

/* In cb->ctx there is one pointer to this, from start to done. */
struct dump {
	char name[SNAPDIFF_NAME_MAX + 1];	/* the volume that was asked for; empty: all */
	u8 uuid[SNAPDIFF_UUID_SIZE];		/* of it: another one may get the name meanwhile */
	u64 volume_pos;				/* all volumes: as snap_volume_next() counts */
	bool volume_open;			/* the volume behind volume_pos has more */
	u32 from;				/* generation or disk to go on with */
	u32 g1, g2;
	u64 pos, end;				/* bytes */
};

static struct dump *dump_of(struct netlink_callback *cb)
{
	return *(struct dump **)cb->ctx;
}

static int dump_done(struct netlink_callback *cb)
{
	kfree(dump_of(cb));
	return 0;
}

/* Permission, state, and the volume if one is named. */
static int dump_start(struct netlink_callback *cb)
{
	struct nlattr **attrs = snap_dump_attrs(cb);
	struct snap_volume *vol;
	struct dump *d;
	int err = check_admin(cb->skb, cb->extack);

	if (err)
		return err;
	d = kzalloc(sizeof(*d), GFP_KERNEL);
	if (!d)
		return -ENOMEM;
	if (attrs && attrs[SNAPDIFF_A_VOLUME]) {
		nla_strscpy(d->name, attrs[SNAPDIFF_A_VOLUME], sizeof(d->name));
		vol = volume_find(d->name, cb->extack);
		if (IS_ERR(vol)) {
			kfree(d);
			return PTR_ERR(vol);
		}
		memcpy(d->uuid, vol->uuid, sizeof(d->uuid));
		snap_volume_put(vol);
	}
	*(struct dump **)cb->ctx = d;
	return 0;
}

/* The volume that was named, referenced: the same one as at the start. */
static struct snap_volume *dump_named(struct dump *d, struct netlink_ext_ack *extack)
{
	struct snap_volume *vol = volume_find(d->name, extack);

	if (!IS_ERR(vol) && memcmp(vol->uuid, d->uuid, sizeof(d->uuid))) {
		snap_volume_put(vol);
		snap_refuse(extack, "%s: is another volume now", d->name);
		return ERR_PTR(-ENODEV);
	}
	return vol;
}

/*
 * The next volume of a dump over one or all, referenced and with control held; NULL at the end. One that goes away between two calls is left out: the
 * event sequence tells.
 */
static struct snap_volume *dump_next_volume(struct dump *d)
{
	struct snap_volume *vol;

	for (;;) {
		if (d->name[0]) {
			vol = d->volume_pos++ ? NULL : dump_named(d, NULL);
			if (IS_ERR(vol))
				vol = NULL;
		} else {
			vol = snap_volume_next(&d->volume_pos);
		}
		if (!vol || !volume_enter(vol, NULL))
			return vol;
		snap_volume_put(vol);
	}
}

static void dump_leave(struct snap_volume *vol)
{
	volume_leave(vol);
	snap_volume_put(vol);
}

/*
 * Dump something of each volume. @step puts messages; it returns 1 when it is through with the volume, 0 when the skb is full, -errno.
 * The position is only moved behind a volume that is done.
 */
static int dump_volumes(struct sk_buff *skb, struct netlink_callback *cb,
			int (*step)(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct dump *d))
{
	struct dump *d = dump_of(cb);
	struct snap_volume *vol;
	u64 pos;
	int ret;

	cb->seq = snap_event_seq();
	for (;;) {
		pos = d->volume_pos;
		vol = dump_next_volume(d);
		if (!vol)
			return skb->len;
		ret = step(skb, cb, vol, d);
		dump_leave(vol);
		if (ret < 0)
			return ret;
		if (!ret) {
			d->volume_pos = pos;
			return skb->len;
		}
		d->from = 0;
	}
}

static int step_volume(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct dump *d)
{
	struct volume_view w;

	volume_look(vol, &w);
	return dump_one(skb, cb, SNAPDIFF_CMD_VOLUME_GET, fill_volume, &w);
}

static int dump_volume_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_volumes(skb, cb, step_volume);
}

/* ---- generations ---------------------------------------------------------------------------------------------------------- */

struct gen_view {
	struct snap_volume *vol;
	const struct snap_gen *gen;
	int virt;		/* index, or < 0 */
};

static int put_gen_u64(struct sk_buff *msg, int attr, u64 value)
{
	return nla_put_u64_64bit(msg, attr, value, SNAPDIFF_GEN_A_PAD);
}

static int fill_gen(struct sk_buff *msg, void *what)
{
	const struct gen_view *w = what;
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

static void gen_look(struct snap_volume *vol, const struct snap_gen *gen, struct gen_view *w)
{
	w->vol = vol;
	w->gen = gen;
	w->virt = snap_virt_index(vol, gen->number);
}

static int do_gen_get(struct sk_buff *skb, struct genl_info *info)
{
	struct snap_volume *vol;
	struct snap_gen gen;
	struct gen_view w;
	u32 number;
	int err;

	vol = request_gen(skb, info, &number);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = volume_enter(vol, info->extack);
	if (err)
		goto put;
	err = snap_store_gen_find(vol->store, number, &gen);
	if (err) {
		snap_refuse(info->extack, "%s@%u: no such generation", vol->name, number);
	} else {
		gen_look(vol, &gen, &w);
		err = reply(info, SNAPDIFF_CMD_GEN_GET, fill_gen, &w);
	}
	volume_leave(vol);
put:
	snap_volume_put(vol);
	return err;
}

static int step_gen(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct dump *d)
{
	struct snap_gen gen;
	struct gen_view w;
	int ret;

	while (!snap_store_gen_next(vol->store, d->from, &gen)) {
		gen_look(vol, &gen, &w);
		ret = dump_one(skb, cb, SNAPDIFF_CMD_GEN_GET, fill_gen, &w);
		if (ret <= 0)
			return ret;
		if (gen.number == U32_MAX)
			break;
		d->from = gen.number + 1;
	}
	return 1;
}

static int dump_gen_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_volumes(skb, cb, step_gen);
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

	req->vols = kcalloc(MAX_CREATE_VOLUMES, sizeof(*req->vols), GFP_KERNEL);
	req->out = kcalloc(MAX_CREATE_VOLUMES, sizeof(*req->out), GFP_KERNEL);
	if (!req->vols || !req->out)
		return -ENOMEM;
	nlmsg_for_each_attr(a, info->nlhdr, GENL_HDRLEN, rem) {
		if (nla_type(a) != SNAPDIFF_A_VOLUME)
			continue;
		if (req->nr == MAX_CREATE_VOLUMES) {
			snap_refuse(info->extack, "snapdiff: at most %d volumes can be cut at one instant", MAX_CREATE_VOLUMES);
			return -E2BIG;
		}
		vol = volume_find(nla_data(a), info->extack);
		if (IS_ERR(vol))
			return PTR_ERR(vol);
		req->vols[req->nr++] = vol;
	}
	return 0;
}

static int fill_created(struct sk_buff *msg, void *what)
{
	struct snap_create_req *req = what;
	struct gen_view w = { .virt = -ENOENT };
	unsigned int i;

	for (i = 0; i < req->nr; i++) {
		w.vol = req->vols[i];
		w.gen = &req->out[i];
		if (fill_gen(msg, &w))
			return -EMSGSIZE;
	}
	return 0;
}

/* As reply(), but the answer has one nest a volume. */
static int reply_created(struct sk_buff *msg, struct genl_info *info, struct snap_create_req *req)
{
	void *hdr = genlmsg_put_reply(msg, info, &snap_family, 0, SNAPDIFF_CMD_GEN_CREATE);

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
	int err = check_admin(skb, info->extack);

	if (!err)
		err = check_attr(attrs, SNAPDIFF_A_VOLUME, info->extack);
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

	vol = request_gen(skb, info, &first);
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

	vol = request_gen(skb, info, &gen);
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

	vol = request_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = check_attr(info->attrs, SNAPDIFF_A_PINNED, info->extack);
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

	vol = request_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = check_attr(info->attrs, SNAPDIFF_A_LABEL, info->extack);
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

	vol = request_gen(skb, info, &gen);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = snap_virt_activate(vol, gen, !!info->attrs[SNAPDIFF_A_PARTSCAN], &index, info->extack);
	if (!err)
		err = reply(info, SNAPDIFF_CMD_VIRT_ACTIVATE, fill_index, &index);
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
	int err = check_admin(skb, info->extack);
	struct snap_volume *vol;
	const char *name;
	u32 gen;

	if (err)
		return err;
	if (attrs[SNAPDIFF_A_VIRT_INDEX])
		return snap_virt_deactivate_index(nla_get_u32(attrs[SNAPDIFF_A_VIRT_INDEX]), info->extack);
	err = check_attr(attrs, SNAPDIFF_A_VOLUME, info->extack);
	if (!err)
		err = check_attr(attrs, SNAPDIFF_A_GEN, info->extack);
	if (err)
		return err;
	name = nla_data(attrs[SNAPDIFF_A_VOLUME]);
	gen = nla_get_u32(attrs[SNAPDIFF_A_GEN]);
	vol = snap_volume_find(name);
	if (!vol)
		return deactivate_dead(name, gen, info->extack);
	err = snap_virt_deactivate(vol, gen, info->extack);
	snap_volume_put(vol);
	return err;
}

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

static int dump_virt_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dump *d = dump_of(cb);
	struct snap_virt_info virt;
	int ret;

	cb->seq = snap_event_seq();
	for (; !snap_virt_next(d->from, &virt); d->from = virt.index + 1) {
		if (d->name[0] && strcmp(d->name, virt.volume))
			continue;
		ret = dump_one(skb, cb, SNAPDIFF_CMD_VIRT_GET, fill_virt, &virt);
		if (ret < 0)
			return ret;
		if (!ret)
			break;
	}
	return skb->len;
}

/* ---- extents -------------------------------------------------------------------------------------------------------------------------- */

static int start_extents(struct netlink_callback *cb, bool changes)
{
	struct nlattr **attrs = snap_dump_attrs(cb);
	int err = check_admin(cb->skb, cb->extack);
	struct dump *d;
	u64 length;

	if (!err)
		err = check_attr(attrs, SNAPDIFF_A_VOLUME, cb->extack);
	if (!err)
		err = check_attr(attrs, SNAPDIFF_A_GEN, cb->extack);
	if (!err)
		err = dump_start(cb);
	if (err)
		return err;
	d = dump_of(cb);
	d->g1 = nla_get_u32(attrs[SNAPDIFF_A_GEN]);
	if (changes && attrs[SNAPDIFF_A_GEN_LAST])
		d->g2 = nla_get_u32(attrs[SNAPDIFF_A_GEN_LAST]);
	if (attrs[SNAPDIFF_A_OFFSET])
		d->pos = nla_get_u64(attrs[SNAPDIFF_A_OFFSET]);
	length = attrs[SNAPDIFF_A_LENGTH] ? nla_get_u64(attrs[SNAPDIFF_A_LENGTH]) : U64_MAX;
	d->end = length > U64_MAX - d->pos ? U64_MAX : d->pos + length;
	if (d->g2 && d->g2 < d->g1) {
		snap_refuse(cb->extack, "%s: generation %u is older than %u", d->name, d->g2, d->g1);
		dump_done(cb);
		return -EINVAL;
	}
	return 0;
}

static int start_map(struct netlink_callback *cb)
{
	return start_extents(cb, false);
}

static int start_changes(struct netlink_callback *cb)
{
	return start_extents(cb, true);
}

static int extents_gen(struct snap_volume *vol, u32 number, struct snap_gen *gen, struct netlink_ext_ack *extack)
{
	int err = snap_store_gen_find(vol->store, number, gen);

	if (err)
		snap_refuse(extack, "%s@%u: no such generation", vol->name, number);
	return err;
}

/* Are the generations there, and how far do they reach? Asked in every call: one may have gone meanwhile. */
static int map_check(struct snap_volume *vol, struct dump *d, u64 *end, struct netlink_ext_ack *extack)
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
	return 0;
}

static int changes_check(struct snap_volume *vol, struct dump *d, u64 *end, struct netlink_ext_ack *extack)
{
	u64 size = (u64)vol->size << SECTOR_SHIFT;
	struct snap_gen gen;
	int err = extents_gen(vol, d->g1, &gen, extack);

	if (!err && d->g2) {
		err = extents_gen(vol, d->g2, &gen, extack);
		size = gen.size;
	}
	*end = min(d->end, size);
	return err;
}

static int extents_refused(struct snap_volume *vol, struct dump *d, bool changes, int err, struct netlink_ext_ack *extack)
{
	if (err == -ENODATA)
		snap_refuse(extack, "%s@%u: what changed since it is not known", vol->name, d->g1);
	else
		snap_refuse(extack, "%s@%u: the %s cannot be read: error %d", vol->name, d->g1, changes ? "changed set" : "map", err);
	return err;
}

/*
 * One message with as many extents as the skb takes. Return: extents put, -errno. With none put there is no message.
 */
static int put_extents(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct dump *d, bool changes, u64 end)
{
	int cmd = changes ? SNAPDIFF_CMD_CHANGES_GET : SNAPDIFF_CMD_MAP_GET;
	struct nlattr *attr;
	u32 max;
	int room, n;
	void *hdr;

	hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &snap_family, NLM_F_MULTI, cmd);
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
		n = snap_store_changes(vol, d->g1, d->g2, &d->pos, end, nla_data(attr), max);
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

static int dump_extents(struct sk_buff *skb, struct netlink_callback *cb, bool changes)
{
	struct dump *d = dump_of(cb);
	struct snap_volume *vol = dump_named(d, cb->extack);
	int err, n = 0;
	u64 end;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = volume_enter(vol, cb->extack);
	if (err)
		goto put;
	err = changes ? changes_check(vol, d, &end, cb->extack) : map_check(vol, d, &end, cb->extack);
	if (!err && d->pos < end)
		n = put_extents(skb, cb, vol, d, changes, end);
	volume_leave(vol);
put:
	snap_volume_put(vol);
	if (!err && n < 0)
		err = n;
	return err ?: skb->len;
}

static int dump_map_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_extents(skb, cb, false);
}

static int dump_changes_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_extents(skb, cb, true);
}

/* ---- the family ---------------------------------------------------------------------------------------------------------------------- */

#define OP_POLICY(name)	.policy = policy_##name, .maxattr = SNAPDIFF_A_MAX

static const struct genl_ops snap_ops[] = {
	{ .cmd = SNAPDIFF_CMD_VOLUME_GET, OP_POLICY(volume_get), .doit = do_volume_get,
	  .start = dump_start, .dumpit = dump_volume_get, .done = dump_done },
	{ .cmd = SNAPDIFF_CMD_VOLUME_SET, OP_POLICY(volume_set), .doit = do_volume_set },
	{ .cmd = SNAPDIFF_CMD_GEN_CREATE, OP_POLICY(gen_create), .doit = do_gen_create },
	{ .cmd = SNAPDIFF_CMD_GEN_GET, OP_POLICY(gen_get), .doit = do_gen_get,
	  .start = dump_start, .dumpit = dump_gen_get, .done = dump_done },
	{ .cmd = SNAPDIFF_CMD_GEN_DELETE, OP_POLICY(gen_delete), .doit = do_gen_delete },
	{ .cmd = SNAPDIFF_CMD_GEN_BOOKMARK, OP_POLICY(gen_bookmark), .doit = do_gen_bookmark },
	{ .cmd = SNAPDIFF_CMD_GEN_PIN, OP_POLICY(gen_pin), .doit = do_gen_pin },
	{ .cmd = SNAPDIFF_CMD_GEN_LABEL, OP_POLICY(gen_label), .doit = do_gen_label },
	{ .cmd = SNAPDIFF_CMD_VIRT_ACTIVATE, OP_POLICY(virt_activate), .doit = do_virt_activate },
	{ .cmd = SNAPDIFF_CMD_VIRT_DEACTIVATE, OP_POLICY(virt_deactivate), .doit = do_virt_deactivate },
	{ .cmd = SNAPDIFF_CMD_VIRT_GET, OP_POLICY(virt_get),
	  .start = dump_start, .dumpit = dump_virt_get, .done = dump_done },
	{ .cmd = SNAPDIFF_CMD_MAP_GET, OP_POLICY(map_get),
	  .start = start_map, .dumpit = dump_map_get, .done = dump_done },
	{ .cmd = SNAPDIFF_CMD_CHANGES_GET, OP_POLICY(changes_get),
	  .start = start_changes, .dumpit = dump_changes_get, .done = dump_done },
};

static const struct genl_multicast_group snap_groups[] = {
	{ .name = SNAPDIFF_MCGRP_EVENTS, .flags = GENL_MCAST_CAP_SYS_ADMIN },
};

static struct genl_family snap_family __ro_after_init = {
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
	void *hdr = genlmsg_put(msg, 0, 0, &snap_family, 0, SNAPDIFF_CMD_EVENT);

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

	if (!genl_has_listeners(&snap_family, &init_net, 0))
		return;
	msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_NOIO);
	if (!msg)
		return;
	if (fill_event(msg, vol, type, gen, err, text))
		nlmsg_free(msg);
	else
		genlmsg_multicast(&snap_family, msg, 0, 0, GFP_NOIO);
}

/** snap_netlink_init() - at module load, after all that its operations use */
int snap_netlink_init(void)
{
	return genl_register_family(&snap_family);
}

/** snap_netlink_exit() - at unload: waits for operations under way */
void snap_netlink_exit(void)
{
	genl_unregister_family(&snap_family);
}

MODULE_ALIAS_GENL_FAMILY(SNAPDIFF_FAMILY_NAME);
