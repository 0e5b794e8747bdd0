// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Thousands of random requests to the netlink family "snapdiff", each with at least one thing wrong, so that every one of them has to be refused, with a reason.
 *
 * usage: nlhostile SEED COUNT VOLUME
 *        nlhostile -d COUNT VOLUME      dumps that are left half-way: COUNT sockets, open at the same time, closed unread
 *
 * What is wrong with a request: an attribute that does not exist, of the wrong size, longer than the message, shorter than its header; garbage inside of a nest; bytes behind
 * the last one; a volume that there is not, names without end; a thousand volumes; or a header that is too short or lies about the length.
 *
 * Output: "N refused, N without a reason (ERRNO…), N not answered, N accepted". Refusals by genetlink itself, before the family is asked
 * (permission, unknown commands, short headers), have no text and are not counted as without a reason.
 * Exit status: 0 all refused with a reason, 1 not, 2 anything else.
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/snapdiff.h>

#define ROOM	32768

static struct {
	union {
		struct nlmsghdr h;
		char b[ROOM];
	};
} msg;
static uint64_t state;
static unsigned long refused, mute, silent, accepted;

static uint32_t roll(uint32_t n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

static void die(const char *what)
{
	fprintf(stderr, "nlhostile: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int open_socket(void)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC), one = 1;

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one)))
		die("socket");
	return fd;
}

static void begin(int family, int cmd, int flags, uint32_t seq)
{
	struct genlmsghdr *g = NLMSG_DATA(&msg.h);

	memset(&msg, 0, NLMSG_LENGTH(GENL_HDRLEN));
	msg.h.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	msg.h.nlmsg_type = family;
	msg.h.nlmsg_flags = NLM_F_REQUEST | flags;
	msg.h.nlmsg_seq = seq;
	g->cmd = cmd;
	g->version = 1;
}

/* @len: of the data that is there; the attribute says that it has @says. */
static void add(int type, const void *data, size_t len, size_t says)
{
	struct nlattr *a = (void *)(msg.b + NLMSG_ALIGN(msg.h.nlmsg_len));

	if (NLMSG_ALIGN(msg.h.nlmsg_len) + NLA_HDRLEN + NLA_ALIGN(len) > ROOM)
		return;
	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + says;
	memset((char *)a + NLA_HDRLEN, 0, NLA_ALIGN(len));
	memcpy((char *)a + NLA_HDRLEN, data, len);
	msg.h.nlmsg_len = NLMSG_ALIGN(msg.h.nlmsg_len) + NLA_HDRLEN + NLA_ALIGN(len);
}

static void add_u32(int type, uint32_t v)
{
	add(type, &v, 4, 4);
}

static void add_string(int type, const char *s)
{
	add(type, s, strlen(s) + 1, strlen(s) + 1);
}

static void noise(char *b, size_t n)
{
	while (n--)
		*b++ = roll(256);
}

/* What a decent request of any command could have: some of it is right. */
static void add_decent(const char *volume)
{
	if (roll(4))
		add_string(SNAPDIFF_A_VOLUME, volume);
	if (roll(3))
		add_u32(SNAPDIFF_A_GEN, roll(4));
}

static void add_wrong(const char *volume)
{
	char b[512];
	uint32_t n;

	noise(b, sizeof(b));
	switch (roll(9)) {
	case 0:
		add(SNAPDIFF_A_MAX + 1 + roll(300), b, 4, 4);
		break;
	case 1:			/* wrong size for anything with a fixed one */
		add(roll(2) ? SNAPDIFF_A_GEN : SNAPDIFF_A_OFFSET, b, 3, 3);
		break;
	case 2:
		add(SNAPDIFF_A_GEN, b, 4, 400 + roll(60000));
		break;
	case 3:			/* shorter than a header: what follows is behind the end */
		add(SNAPDIFF_A_GEN, b, 8, roll(4) - NLA_HDRLEN);
		break;
	case 4:			/* an answer's attributes are no question's */
		n = SNAPDIFF_A_SIZE + roll(3);
		add(n, b, 8, 8);
		break;
	case 5:
		n = 1 + roll(sizeof(b) - 1);
		add(SNAPDIFF_A_GENERATION | (roll(2) ? NLA_F_NESTED : 0), b, n, n);
		break;
	case 6:			/* no end */
		memset(b, 'x', sizeof(b));
		n = 1 + roll(sizeof(b) - 1);
		add(SNAPDIFF_A_VOLUME, b, n, n);
		break;
	case 7:
		for (n = 0; n < 1000; n++)
			add_string(SNAPDIFF_A_VOLUME, roll(3) ? volume : "nope");
		add_string(SNAPDIFF_A_VOLUME, volume);
		add_string(SNAPDIFF_A_VOLUME, volume);
		add(SNAPDIFF_A_MAX + 7, b, 4, 4);
		break;
	case 8:			/* bytes behind the last attribute */
		memcpy(msg.b + msg.h.nlmsg_len, "abc", 3);
		msg.h.nlmsg_len += 1 + roll(3);
		break;
	}
}

/* Genetlink's own refusals have no text. */
static void garble_header(int *text)
{
	*text = 0;
	switch (roll(3)) {
	case 0:
		((struct genlmsghdr *)NLMSG_DATA(&msg.h))->cmd = SNAPDIFF_CMD_MAX + 1 + roll(200);
		break;
	case 1:
		msg.h.nlmsg_len = NLMSG_HDRLEN + roll(GENL_HDRLEN);
		break;
	case 2:
		((struct genlmsghdr *)NLMSG_DATA(&msg.h))->cmd = SNAPDIFF_CMD_EVENT;
		break;
	}
}

static const char *ack_text(const struct nlmsghdr *h)
{
	size_t skip = NLMSG_HDRLEN + (h->nlmsg_type == NLMSG_DONE ? sizeof(int) : sizeof(struct nlmsgerr));
	const struct nlattr *a = (const void *)((const char *)h + skip);

	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || h->nlmsg_len < skip + NLA_HDRLEN)
		return NULL;
	return a->nla_type == NLMSGERR_ATTR_MSG && a->nla_len > NLA_HDRLEN ? (const char *)a + NLA_HDRLEN : NULL;
}

/* The end of the answer: 1, its errno in *err; 0: not yet. */
static int take(const char *buf, ssize_t n, uint32_t seq, int *err, int *has_text)
{
	const struct nlmsghdr *h = (const void *)buf;

	for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
		if (h->nlmsg_seq != seq || (h->nlmsg_type != NLMSG_ERROR && h->nlmsg_type != NLMSG_DONE))
			continue;
		*err = *(const int *)NLMSG_DATA(h);
		*has_text = !!ack_text(h);
		return 1;
	}
	return 0;
}

static void judge(int fd, uint32_t seq, int text, const char *what)
{
	static char buf[65536];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int err, has_text;

	for (;;) {
		ssize_t n = poll(&p, 1, 10000) == 1 ? recv(fd, buf, sizeof(buf), 0) : -1;

		if (n < 0) {
			silent++;
			printf("# %s: no answer\n", what);
			return;
		}
		if (take(buf, n, seq, &err, &has_text))
			break;
	}
	if (err >= 0) {
		accepted++;
		printf("# %s: accepted\n", what);
		return;
	}
	refused++;
	if (text && !has_text) {
		mute++;
		printf("# %s: errno %d without a reason\n", what, -err);
	}
}

static int family_id(int fd)
{
	static char buf[16384];
	const struct nlmsghdr *h = (const void *)buf;
	const char *p = buf + NLMSG_HDRLEN + GENL_HDRLEN;

	begin(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, 1);
	add_string(CTRL_ATTR_FAMILY_NAME, SNAPDIFF_FAMILY_NAME);
	if (send(fd, &msg, msg.h.nlmsg_len, 0) < 0 || recv(fd, buf, sizeof(buf), 0) < 0 || h->nlmsg_type == NLMSG_ERROR)
		die("family");
	while (p < buf + h->nlmsg_len) {
		const struct nlattr *a = (const void *)p;

		if (a->nla_type == CTRL_ATTR_FAMILY_ID)
			return *(const uint16_t *)(p + NLA_HDRLEN);
		p += NLA_ALIGN(a->nla_len);
	}
	die("family");
	return 0;
}

static void one_request(int fd, int family, uint32_t seq, const char *volume)
{
	int cmd = 1 + roll(SNAPDIFF_CMD_EVENT - 1), dump = !roll(3), text = 1;
	char what[64];
	uint32_t n;

	begin(family, cmd, dump ? NLM_F_DUMP | NLM_F_ACK : NLM_F_ACK, seq);
	add_decent(volume);
	for (n = 1 + roll(3); n; n--)
		add_wrong(volume);
	if (!roll(10))
		garble_header(&text);
	/* A command that is no dump, or nothing else: genetlink says so itself. */
	if (dump ? cmd != SNAPDIFF_CMD_VOLUME_GET && cmd != SNAPDIFF_CMD_GEN_GET && cmd < SNAPDIFF_CMD_VIRT_GET :
	    cmd >= SNAPDIFF_CMD_VIRT_GET)
		text = 0;
	snprintf(what, sizeof(what), "request %u: command %d%s, %u bytes", seq, cmd, dump ? " (dump)" : "", msg.h.nlmsg_len);
	if (send(fd, &msg, msg.h.nlmsg_len, 0) < 0)
		die("send");
	judge(fd, seq, text, what);
}

/* All sockets have a dump under way; half of them read one buffer of it; all are closed. */
static int left_dumps(int n, const char *volume)
{
	static const uint8_t cmds[] = { SNAPDIFF_CMD_VOLUME_GET, SNAPDIFF_CMD_GEN_GET, SNAPDIFF_CMD_VIRT_GET, SNAPDIFF_CMD_MAP_GET,
					SNAPDIFF_CMD_CHANGES_GET };
	int *fd = calloc(n, sizeof(*fd)), i, family = family_id(open_socket());
	char buf[4096];

	for (i = 0; fd && i < n; i++) {
		fd[i] = open_socket();
		begin(family, cmds[i % 5], NLM_F_DUMP, 1);
		add_string(SNAPDIFF_A_VOLUME, volume);
		if (i % 5 >= 3)
			add_u32(SNAPDIFF_A_GEN, 1);
		if (i % 5 == 0)
			begin(family, cmds[0], NLM_F_DUMP, 1);
		if (send(fd[i], &msg, msg.h.nlmsg_len, 0) < 0 && errno != ENOBUFS)
			die("send");
		if (i % 2)
			(void)!recv(fd[i], buf, sizeof(buf), MSG_DONTWAIT);
	}
	for (i = 0; fd && i < n; i++)
		close(fd[i]);
	printf("%d dumps left\n", n);
	free(fd);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t i, count;
	int fd, family;

	if (argc != 4) {
		fprintf(stderr, "usage: nlhostile SEED|-d COUNT VOLUME\n");
		return 2;
	}
	count = strtoul(argv[2], NULL, 0);
	if (!strcmp(argv[1], "-d"))
		return left_dumps(count, argv[3]);
	state = strtoull(argv[1], NULL, 0);
	fd = open_socket();
	family = family_id(fd);
	for (i = 0; i < count; i++) {
		if (i % 100 == 99) {
			close(fd);
			fd = open_socket();
		}
		one_request(fd, family, i + 10, argv[3]);
	}
	printf("%lu refused, %lu without a reason, %lu not answered, %lu accepted\n", refused, mute, silent, accepted);
	return mute || silent || accepted;
}
