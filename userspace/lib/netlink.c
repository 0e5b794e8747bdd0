// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Transport of the netlink client.
 *
 * libnl builds messages and parses attributes; the receive loop is ours, because it wants three things
 * that libnl's does not give together: the extended-ack text of errors that arrive as NLMSG_ERROR *and*
 * as the status of NLMSG_DONE, the NLM_F_DUMP_INTR flag of each single message (what came before the
 * flag is good and need not be asked for again), and ending early.
 *
 * A request ends with NLMSG_ERROR (the acknowledgement; every "do" asks for one) or, for a dump, with
 * NLMSG_DONE. Messages of another sequence number or port are skipped.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink_internal.h"

#ifndef SOL_NETLINK
#define SOL_NETLINK	270
#endif

#define RECV_BUF	(64 * 1024)	/* the kernel makes dump messages of at most 32 KiB */

const struct nla_policy snap_nl_policy[SNAPDIFF_A_MAX + 1] = {
	[SNAPDIFF_A_VOLUME]		= { .type = NLA_STRING, .maxlen = SNAPDIFF_NAME_MAX + 1 },
	[SNAPDIFF_A_VOLUME_UUID]	= { .type = NLA_UNSPEC, .minlen = SNAPDIFF_UUID_SIZE },
	[SNAPDIFF_A_GEN]		= { .type = NLA_U32 },
	[SNAPDIFF_A_GEN_LAST]		= { .type = NLA_U32 },
	[SNAPDIFF_A_GENERATION]		= { .type = NLA_NESTED },
	[SNAPDIFF_A_LABEL]		= { .type = NLA_STRING, .maxlen = SNAPDIFF_LABEL_MAX + 1 },
	[SNAPDIFF_A_VIRT_INDEX]		= { .type = NLA_U32 },
	[SNAPDIFF_A_OPENERS]		= { .type = NLA_U32 },
	[SNAPDIFF_A_OFFSET]		= { .type = NLA_U64 },
	[SNAPDIFF_A_LENGTH]		= { .type = NLA_U64 },
	[SNAPDIFF_A_ON_FULL]		= { .type = NLA_U8 },
	[SNAPDIFF_A_PRIMARY_DEV]	= { .type = NLA_U64 },
	[SNAPDIFF_A_DIFF_DEV]		= { .type = NLA_U64 },
	[SNAPDIFF_A_DM_DEV]		= { .type = NLA_U64 },
	[SNAPDIFF_A_SIZE]		= { .type = NLA_U64 },
	[SNAPDIFF_A_CHUNK_SIZE]		= { .type = NLA_U32 },
	[SNAPDIFF_A_STORE_STATE]	= { .type = NLA_U8 },
	[SNAPDIFF_A_HIGHEST_GEN]	= { .type = NLA_U32 },
	[SNAPDIFF_A_NR_GENS]		= { .type = NLA_U32 },
	[SNAPDIFF_A_STATS]		= { .type = NLA_NESTED },
	[SNAPDIFF_A_EVENT_TYPE]		= { .type = NLA_U8 },
	[SNAPDIFF_A_ERRNO]		= { .type = NLA_U32 },
	[SNAPDIFF_A_TEXT]		= { .type = NLA_STRING },
};

/* ---- connect ---- */

static int nle_to_errno(int nle)
{
	switch (nle < 0 ? -nle : nle) {
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_OBJ_NOTFOUND:
		return -ENODEV;
	case NLE_INTR:
		return -EINTR;
	case NLE_AGAIN:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

/* An open generic netlink socket with our options; the family is still to be set. */
static int new_socket(struct snap_nl **res, struct snap_err *e)
{
	struct snap_nl *nl = calloc(1, sizeof(*nl));
	int one = 1, rc;

	if (!nl)
		return snap_err_sys(e, -ENOMEM, NULL, "netlink");
	nl->sk = nl_socket_alloc();
	if (!nl->sk) {
		free(nl);
		return snap_err_sys(e, -ENOMEM, NULL, "netlink");
	}
	rc = genl_connect(nl->sk);
	if (rc < 0) {
		snap_err_set(e, nle_to_errno(rc), NULL, "cannot open a netlink socket: %s", nl_geterror(rc));
		nl_socket_free(nl->sk);
		free(nl);
		return nle_to_errno(rc);
	}
	nl_socket_disable_msg_peek(nl->sk);
	nl_socket_set_msg_buf_size(nl->sk, RECV_BUF);
	/* Without them there is less text in errors, nothing else. */
	(void)setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	(void)setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	*res = nl;
	return 0;
}

int snap_nl_open(struct snap_nl **res, struct snap_err *e)
{
	struct snap_nl *nl;
	int err;

	err = new_socket(&nl, e);
	if (err)
		return err;
	nl->family = genl_ctrl_resolve(nl->sk, SNAPDIFF_FAMILY_NAME);
	if (nl->family >= 0) {
		*res = nl;
		return 0;
	}
	err = nle_to_errno(nl->family);
	if (err == -ENODEV)
		snap_err_set(e, err, NULL, "the kernel module is not loaded (modprobe snapdiff)");
	else
		snap_err_set(e, err, NULL, "cannot find the netlink family \"%s\": %s", SNAPDIFF_FAMILY_NAME,
			     nl_geterror(nl->family));
	snap_nl_close(nl);
	return err;
}

int snap_nl_clone(struct snap_nl *nl, struct snap_nl **copy, struct snap_err *e)
{
	int err = new_socket(copy, e);

	if (!err)
		(*copy)->family = nl->family;
	return err;
}

void snap_nl_close(struct snap_nl *nl)
{
	if (!nl)
		return;
	nl_socket_free(nl->sk);
	free(nl);
}

int snap_nl_fd(const struct snap_nl *nl)
{
	return nl_socket_get_fd(nl->sk);
}

/* ---- one request ---- */

struct nl_msg *snap_nl_request(struct snap_nl *nl, uint8_t cmd, int flags)
{
	struct nl_msg *msg = nlmsg_alloc();

	if (!msg)
		return NULL;
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, nl->family, 0, NLM_F_REQUEST | flags, cmd,
			 SNAPDIFF_FAMILY_VERSION)) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

int snap_nl_parse(struct nlmsghdr *nlh, struct nlattr **tb)
{
	if (!genlmsg_valid_hdr(nlh, 0))
		return -EBADMSG;
	return genlmsg_parse(nlh, 0, tb, SNAPDIFF_A_MAX, snap_nl_policy) < 0 ? -EBADMSG : 0;
}

void *snap_nl_grow(void **array, size_t *n, size_t size)
{
	void *p;

	/* Powers of two: grow when the number is one. */
	if (!(*n & (*n - 1))) {
		p = reallocarray(*array, *n ? *n * 2 : 1, size);
		if (!p)
			return NULL;
		*array = p;
	}
	p = (char *)*array + *n * size;
	memset(p, 0, size);
	(*n)++;
	return p;
}

/* The kernel's text in the attributes behind @skip bytes of an error's payload. */
static const char *extack_text(struct nlmsghdr *nlh, size_t skip)
{
	struct nlattr *a;
	int len;

	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS) || nlh->nlmsg_len < NLMSG_HDRLEN + skip)
		return NULL;
	a = (struct nlattr *)((char *)NLMSG_DATA(nlh) + skip);
	len = nlh->nlmsg_len - NLMSG_HDRLEN - skip;
	for (; nla_ok(a, len); a = nla_next(a, &len))
		if (nla_type(a) == NLMSGERR_ATTR_MSG && nla_len(a) > 0 &&
		    memchr(nla_data(a), 0, nla_len(a)))
			return nla_data(a);
	return NULL;
}

static const char *plain_reason(int err)
{
	if (err == -EPERM)
		return "not permitted, CAP_SYS_ADMIN is needed";
	if (err == -EOPNOTSUPP)
		return "not supported by the loaded module";
	return strerror(-err);
}

/*
 * The kernel's text begins with its own object, "NAME: " or "NAME@N: ", or with "snapdiff: ". When ours says it already,
 * it need not be said twice.
 */
static const char *strip_object(const char *text, const char *object)
{
	size_t len = strcspn(text, " ");

	if (!len || text[len] != ' ' || text[len - 1] != ':')
		return text;
	len--;
	if (len == 8 && !strncmp(text, "snapdiff", 8))
		return text + len + 2;
	if (object && !strncmp(text, object, len) && (!object[len] || object[len] == '@' || object[len] == '.'))
		return text + len + 2;
	return text;
}

static const char *named(const char *what)
{
	return what ? what : "request";
}

/* @what may be NULL: the reason says it all. */
static int kernel_error(int err, const char *text, const char *object, const char *what, struct snap_err *e)
{
	text = text ? strip_object(text, object) : plain_reason(err);
	return snap_err_set(e, err, object, "%s%s%s", what ? what : "", what ? ": " : "", text);
}

#define MAX_ERRNO	4095	/* the kernel's */

/* NLMSG_ERROR: @err as the kernel gave it, 0 for an acknowledgement. */
static int end_of_error(struct nlmsghdr *nlh, const char *object, const char *what, struct snap_err *e)
{
	struct nlmsgerr *ne = NLMSG_DATA(nlh);
	size_t skip = sizeof(*ne);

	if (nlh->nlmsg_len < NLMSG_LENGTH(sizeof(*ne)))
		return snap_err_set(e, -EBADMSG, object, "%s: short answer from the kernel", named(what));
	if (!ne->error)
		return 0;
	if (ne->error > 0 || ne->error < -MAX_ERRNO)
		return snap_err_set(e, -EBADMSG, object, "%s: malformed answer from the kernel", named(what));
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		skip += NLMSG_ALIGN(ne->msg.nlmsg_len) - NLMSG_HDRLEN;
	return kernel_error(ne->error, extack_text(nlh, skip), object, what, e);
}

static int end_of_dump(struct nlmsghdr *nlh, const char *object, const char *what, struct snap_err *e)
{
	int err = 0;

	if (nlh->nlmsg_len >= NLMSG_LENGTH(sizeof(err)))
		memcpy(&err, NLMSG_DATA(nlh), sizeof(err));
	if (err >= 0)
		return 0;
	if (err < -MAX_ERRNO)
		return snap_err_set(e, -EBADMSG, object, "%s: malformed answer from the kernel", named(what));
	return kernel_error(err, extack_text(nlh, NLMSG_ALIGN(sizeof(err))), object, what, e);
}

/* All messages of one datagram. Return: 1 the answer goes on, 0 or an error: it has ended. */
static int take_datagram(struct snap_nl *nl, struct nlmsghdr *nlh, int len, uint32_t seq,
			 struct snap_nl_reply *reply, const char *object, const char *what,
			 struct snap_err *e)
{
	int rc;

	for (; nlmsg_ok(nlh, len); nlh = nlmsg_next(nlh, &len)) {
		if (nlh->nlmsg_seq != seq || nlh->nlmsg_pid != nl_socket_get_local_port(nl->sk))
			continue;
		if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
			reply->interrupted = true;
		if (nlh->nlmsg_type == NLMSG_ERROR)
			return end_of_error(nlh, object, what, e);
		if (nlh->nlmsg_type == NLMSG_DONE)
			return end_of_dump(nlh, object, what, e);
		if (nlh->nlmsg_type != nl->family || !reply->fn)
			continue;
		rc = reply->fn(nlh, reply->arg);
		if (rc == -EBADMSG)
			snap_err_set(e, rc, object, "%s: malformed answer from the kernel", named(what));
		if (rc) {
			reply->stopped = true;
			return rc < 0 ? rc : 0;
		}
	}
	return 1;
}

int snap_nl_call(struct snap_nl *nl, struct nl_msg *msg, struct snap_nl_reply *reply, const char *object,
		 const char *what, struct snap_err *e)
{
	struct snap_nl_reply none = { 0 };
	struct sockaddr_nl from;
	unsigned char *buf;
	uint32_t seq;
	int rc;

	if (!msg)
		return snap_err_sys(e, -ENOMEM, object, named(what));
	if (!reply)
		reply = &none;
	if (!(nlmsg_hdr(msg)->nlmsg_flags & NLM_F_DUMP))
		nlmsg_hdr(msg)->nlmsg_flags |= NLM_F_ACK;
	rc = nl_send_auto(nl->sk, msg);
	seq = nlmsg_hdr(msg)->nlmsg_seq;
	nlmsg_free(msg);
	if (rc < 0)
		return snap_err_set(e, nle_to_errno(rc), object, "%s: cannot send to the kernel: %s", named(what),
				    nl_geterror(rc));
	do {
		buf = NULL;
		rc = nl_recv(nl->sk, &from, &buf, NULL);
		if (rc == -NLE_INTR) {
			rc = 1;
			continue;
		}
		if (rc <= 0)
			return snap_err_set(e, rc ? nle_to_errno(rc) : -EIO, object,
					    "%s: cannot receive from the kernel: %s", named(what), nl_geterror(rc));
		rc = from.nl_pid ? 1 : take_datagram(nl, (struct nlmsghdr *)buf, rc, seq, reply, object, what, e);
		free(buf);
	} while (rc == 1);
	return rc;
}
