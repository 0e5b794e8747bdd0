/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the netlink family share: netlink.c (rules, policies, operations that change something, the family), netlink_msg.c (helpers),
 * netlink_show.c (volumes, generations, disks), netlink_extents.c (map, changes). snapdiff.h is what the rest of the module sees.
 */
#ifndef SNAPDIFF_NETLINK_H
#define SNAPDIFF_NETLINK_H

#include <net/genetlink.h>
#include "snapdiff.h"

extern struct genl_family snap_nl_family;

/* ---- netlink_msg.c: requests and replies ---- */

int snap_nl_check_admin(struct sk_buff *skb, struct netlink_ext_ack *extack);
int snap_nl_check_attr(struct nlattr **attrs, int type, struct netlink_ext_ack *extack);
/* A volume by name, referenced, or ERR_PTR(-ENODEV) */
struct snap_volume *snap_nl_find(const char *name, struct netlink_ext_ack *extack);
/* Permission and the volume of a "do" request, referenced, or ERR_PTR */
struct snap_volume *snap_nl_volume(struct sk_buff *skb, struct genl_info *info);
/* The same for one that needs a generation */
struct snap_volume *snap_nl_gen(struct sk_buff *skb, struct genl_info *info, u32 *gen);
/* Take control: store and dm device of the volume are there until snap_nl_leave(). 0 or -ENODEV */
int snap_nl_enter(struct snap_volume *vol, struct netlink_ext_ack *extack);
void snap_nl_leave(struct snap_volume *vol);
int snap_nl_reply(struct genl_info *info, int cmd, int (*fill)(struct sk_buff *msg, void *what), void *what);

/* ---- netlink_msg.c: dumps ---- */

/* In cb->ctx there is one pointer to this, from start to done. */
struct snap_nl_dump {
	char name[SNAPDIFF_NAME_MAX + 1];	/* the volume that was asked for; empty: all */
	u8 uuid[SNAPDIFF_UUID_SIZE];		/* of it: another one may get the name meanwhile */
	u64 volume_pos;				/* all volumes: as snap_volume_next() counts */
	bool volume_open;			/* the volume behind volume_pos has more */
	u32 from;				/* generation or disk to go on with */
	u32 g1, g2;
	u64 pos, end;				/* bytes */
	u64 grown;				/* changes: from here on the older generation has nothing */
	unsigned int seq;			/* snap_event_seq() at the start */
	int refused;				/* what the first call shall answer, and why */
	const char *why;
};

struct snap_nl_dump *snap_nl_dump(struct netlink_callback *cb);
/* @check may be NULL; attrs is NULL when there are none */
int snap_nl_dump_begin(struct netlink_callback *cb,
		       int (*check)(struct nlattr **attrs, struct snap_nl_dump *d, struct netlink_ext_ack *extack));
int snap_nl_dump_start(struct netlink_callback *cb);
/* First thing in every call: 0, or the error it has to return */
int snap_nl_dump_refused(struct netlink_callback *cb);
int snap_nl_dump_done(struct netlink_callback *cb);
/* The volume that was named, referenced: the same one as at the start, or ERR_PTR */
struct snap_volume *snap_nl_dump_volume(struct snap_nl_dump *d, struct netlink_ext_ack *extack);
void snap_nl_dump_enter(struct netlink_callback *cb);
int snap_nl_dump_leave(struct sk_buff *skb, struct netlink_callback *cb);	/* what the call returns */
/*
 * One message of a dump, all or nothing. Return: 1: put; 0: does not fit any more; -EMSGSIZE: would not fit into an empty one either.
 */
int snap_nl_dump_one(struct sk_buff *skb, struct netlink_callback *cb, int cmd, int (*fill)(struct sk_buff *msg, void *what), void *what);
/*
 * Dump something of each volume. @step puts messages, with control held; it returns 1 when it is through with the volume, 0 when the skb is
 * full, -errno.
 */
int snap_nl_dump_volumes(struct sk_buff *skb, struct netlink_callback *cb,
			 int (*step)(struct sk_buff *skb, struct netlink_callback *cb, struct snap_volume *vol, struct snap_nl_dump *d));

/* ---- netlink_show.c ---- */

struct snap_nl_gen_view {
	struct snap_volume *vol;
	const struct snap_gen *gen;
	int virt;		/* index, or < 0 */
};

int snap_nl_fill_gen(struct sk_buff *msg, void *what);	/* a struct snap_nl_gen_view */
int snap_nl_volume_get(struct sk_buff *skb, struct genl_info *info);
int snap_nl_volume_dump(struct sk_buff *skb, struct netlink_callback *cb);
int snap_nl_gen_get(struct sk_buff *skb, struct genl_info *info);
int snap_nl_gen_dump(struct sk_buff *skb, struct netlink_callback *cb);
int snap_nl_virt_dump(struct sk_buff *skb, struct netlink_callback *cb);

/* ---- netlink_extents.c ---- */

int snap_nl_map_start(struct netlink_callback *cb);
int snap_nl_map_dump(struct sk_buff *skb, struct netlink_callback *cb);
int snap_nl_changes_start(struct netlink_callback *cb);
int snap_nl_changes_dump(struct sk_buff *skb, struct netlink_callback *cb);

#endif
