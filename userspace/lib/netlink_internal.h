/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the netlink client: one socket, one request at a time.
 */
#ifndef SNAP_LIB_NETLINK_INTERNAL_H
#define SNAP_LIB_NETLINK_INTERNAL_H

#include <netlink/attr.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include "netlink.h"

#define SNAP_NL_RETRIES	100		/* interrupted dumps without progress */

struct snap_nl {
	struct nl_sock *sk;
	int family;
	bool subscribed;
};

/* One data message of an answer. Return: 0, or non-zero to end the request with that value. */
typedef int (*snap_nl_msg_fn)(struct nlmsghdr *nlh, void *arg);

struct snap_nl_reply {
	snap_nl_msg_fn fn;		/* may be NULL: no data expected, any is skipped */
	void *arg;
	bool interrupted;		/* out: some message carried NLM_F_DUMP_INTR */
	bool stopped;			/* out: fn ended it, the rest of the answer is unread */
};

extern const struct nla_policy snap_nl_policy[SNAPDIFF_A_MAX + 1];

/* A new request, NULL without memory. @flags: NLM_F_DUMP or 0. */
struct nl_msg *snap_nl_request(struct snap_nl *nl, uint8_t cmd, int flags);

/*
 * Send @msg (consumed, also on failure; NULL is -ENOMEM) and read its answer to the end. @object and @what are
 * for the error's text; @what may be NULL. After reply->stopped the socket must be closed.
 */
int snap_nl_call(struct snap_nl *nl, struct nl_msg *msg, struct snap_nl_reply *reply, const char *object,
		 const char *what, struct snap_err *e);

/* Top-level attributes of a message of the family; 0 or -EBADMSG. */
int snap_nl_parse(struct nlmsghdr *nlh, struct nlattr **tb);

/* A second socket of the same family, for requests of their own. */
int snap_nl_clone(struct snap_nl *nl, struct snap_nl **copy, struct snap_err *e);

/* Array that grows one element at a time. Return: the new, zeroed element or NULL. */
void *snap_nl_grow(void **array, size_t *n, size_t size);

static inline uint64_t snap_nl_u64(struct nlattr *a)
{
	return a ? nla_get_u64(a) : 0;
}

static inline uint32_t snap_nl_u32(struct nlattr *a)
{
	return a ? nla_get_u32(a) : 0;
}

static inline uint8_t snap_nl_u8(struct nlattr *a)
{
	return a ? nla_get_u8(a) : 0;
}

#endif
