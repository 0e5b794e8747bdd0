// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Events of the module, and the words for the family's numbers.
 *
 * The events' socket does nothing else. When it overflows the kernel says so once (ENOBUFS); the caller
 * is told, as what it believes may then be out of date.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "netlink_internal.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

int snap_nl_subscribe(struct snap_nl *nl, struct snap_err *e)
{
	int group, rc;

	/* The resolver wants libnl's own receive path; nothing is subscribed yet, so no event is lost. */
	group = genl_ctrl_resolve_grp(nl->sk, SNAPDIFF_FAMILY_NAME, SNAPDIFF_MCGRP_EVENTS);
	if (group < 0)
		return snap_err_set(e, -ENOENT, NULL, "the kernel module has no events: %s", nl_geterror(group));
	(void)nl_socket_set_buffer_size(nl->sk, 1 << 20, 0);
	rc = nl_socket_add_membership(nl->sk, group);
	if (rc < 0)
		return snap_err_set(e, rc == -NLE_PERM ? -EPERM : -EIO, NULL, "cannot subscribe to events: %s",
				    nl_geterror(rc));
	nl->subscribed = true;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Return: true when it was an event. */
static bool parse_event(struct snap_nl *nl, struct nlmsghdr *nlh, struct snap_event *ev)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];

	if (nlh->nlmsg_type != nl->family || snap_nl_parse(nlh, tb) || !tb[SNAPDIFF_A_EVENT_TYPE])
		return false;
	memset(ev, 0, sizeof(*ev));
	ev->type = nla_get_u8(tb[SNAPDIFF_A_EVENT_TYPE]);
	ev->gen = snap_nl_u32(tb[SNAPDIFF_A_GEN]);
	ev->err = snap_nl_u32(tb[SNAPDIFF_A_ERRNO]);
	if (tb[SNAPDIFF_A_VOLUME])
		nla_strlcpy(ev->volume, tb[SNAPDIFF_A_VOLUME], sizeof(ev->volume));
	if (tb[SNAPDIFF_A_TEXT])
		nla_strlcpy(ev->text, tb[SNAPDIFF_A_TEXT], sizeof(ev->text));
	ev->time = now_ns();
	return true;
}

int snap_nl_event(struct snap_nl *nl, struct snap_event *ev, int timeout_ms, struct snap_err *e)
{
	struct pollfd pfd = { .fd = snap_nl_fd(nl), .events = POLLIN };
	/* One multicast message is one datagram with one event. */
	char buf[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct sockaddr_nl from;
	socklen_t from_len;
	ssize_t n;
	int rc;

	for (;;) {
		rc = poll(&pfd, 1, timeout_ms);
		if (rc < 0)
			return errno == EINTR ? -EINTR : snap_err_sys(e, -errno, NULL, "events");
		if (!rc)
			return 0;
		from_len = sizeof(from);
		n = recvfrom(pfd.fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return snap_err_set(e, -errno, NULL, "%s", errno == ENOBUFS ?
					    "events were lost, there were too many at once" : strerror(errno));
		if (!from.nl_pid && nlmsg_ok((struct nlmsghdr *)buf, n) &&
		    parse_event(nl, (struct nlmsghdr *)buf, ev))
			return 1;
	}
}

/* ---- words ---- */

static const char *word(const char *const *words, size_t n, uint32_t i)
{
	return i < n && words[i] ? words[i] : "unknown";
}

const char *snap_gen_state_name(uint8_t state)
{
	static const char *const words[] = {
		[SNAPDIFF_GEN_LIVE] = "live",
		[SNAPDIFF_GEN_BOOKMARK] = "bookmark",
		[SNAPDIFF_GEN_LOST] = "lost",
	};

	return word(words, ARRAY_SIZE(words), state);
}

const char *snap_store_state_name(uint8_t state)
{
	static const char *const words[] = {
		[SNAPDIFF_STORE_RW] = "rw",
		[SNAPDIFF_STORE_FAILED] = "failed",
	};

	return word(words, ARRAY_SIZE(words), state);
}

static const char *const on_full_words[] = {
	[SNAPDIFF_ON_FULL_DROP_OLDEST] = "drop-oldest",
	[SNAPDIFF_ON_FULL_DROP_ALL] = "drop-all",
	[SNAPDIFF_ON_FULL_FAIL] = "fail-snapshots",
};

const char *snap_on_full_name(uint8_t on_full)
{
	return word(on_full_words, ARRAY_SIZE(on_full_words), on_full);
}

int snap_parse_on_full(const char *text, uint8_t *on_full, struct snap_err *e)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(on_full_words); i++) {
		if (!strcmp(text, on_full_words[i])) {
			*on_full = i;
			return 0;
		}
	}
	return snap_err_set(e, -EINVAL, text, "drop-oldest, drop-all or fail-snapshots expected");
}

const char *snap_where_name(uint32_t where)
{
	static const char *const words[] = {
		[SNAPDIFF_WHERE_PRIMARY] = "primary",
		[SNAPDIFF_WHERE_DIFF] = "diff",
		[SNAPDIFF_WHERE_ZERO] = "zero",
		[SNAPDIFF_WHERE_BAD] = "bad",
	};

	return word(words, ARRAY_SIZE(words), where);
}

const char *snap_event_name(uint8_t type)
{
	static const char *const words[] = {
		[SNAPDIFF_EVENT_ATTACHED] = "attached",
		[SNAPDIFF_EVENT_DETACHED] = "detached",
		[SNAPDIFF_EVENT_CREATED] = "created",
		[SNAPDIFF_EVENT_DELETED] = "deleted",
		[SNAPDIFF_EVENT_BOOKMARKED] = "bookmarked",
		[SNAPDIFF_EVENT_LOST] = "lost",
		[SNAPDIFF_EVENT_ACTIVATED] = "activated",
		[SNAPDIFF_EVENT_DEACTIVATED] = "deactivated",
		[SNAPDIFF_EVENT_LOW_SPACE] = "low-space",
		[SNAPDIFF_EVENT_FULL] = "full",
		[SNAPDIFF_EVENT_SPACE_OK] = "space-ok",
		[SNAPDIFF_EVENT_STORE_FAILED] = "store-failed",
		[SNAPDIFF_EVENT_BAD_CHUNK] = "bad-chunk",
		[SNAPDIFF_EVENT_PINNED] = "pinned",
		[SNAPDIFF_EVENT_UNPINNED] = "unpinned",
		[SNAPDIFF_EVENT_RESIZED] = "resized",
		[SNAPDIFF_EVENT_SUSPECT] = "suspect",
	};

	return word(words, ARRAY_SIZE(words), type);
}
