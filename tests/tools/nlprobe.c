// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Send one request to the netlink family "snapdiff" and print what comes back: also requests that no
 * decent client sends (unknown attributes, wrong lengths, without privileges).
 *
 * usage: nlprobe [OPTION]... COMMAND [ATTRIBUTE:TYPE:VALUE]...
 *
 *   COMMAND    number of the command (enum snapdiff_cmd)
 *   ATTRIBUTE  number; TYPE: u8 u16 u32 u64 str (with NUL) raw (without) flag (VALUE is ignored)
 *   -d         a dump
 *   -b BYTES   receive buffer (default 32768): small ones need many calls of the dump
 *   -w FILE    in a dump: after the first buffer wait until FILE has gone
 *   -u UID     become this user before the socket is opened
 *   -N         keep CAP_NET_ADMIN only
 *   -g NAME    join the multicast group, send nothing
 *
 * Output, one line each:
 *   message COMMAND LENGTH ATTRIBUTE=HEX...     a reply or a part of a dump; "intr" when it is flagged
 *   done                                        end of a dump; "intr" when it is flagged
 *   error ERRNO TEXT                            errno as a positive number, extended-ack text; of a dump, too
 * Exit status: 0 no error, 1 the kernel refused, 2 anything else.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/snapdiff.h>

struct request {
	struct nlmsghdr nlh;
	struct genlmsghdr genl;
	char attrs[8192];
};

struct options {
	int dump, net_admin_only, uid;
	size_t buffer;
	const char *wait_file, *group;
};

static void die(const char *what)
{
	fprintf(stderr, "nlprobe: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void begin(struct request *r, int family, int cmd, int flags)
{
	memset(r, 0, sizeof(*r));
	r->nlh.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	r->nlh.nlmsg_type = family;
	r->nlh.nlmsg_flags = NLM_F_REQUEST | flags;
	r->nlh.nlmsg_seq = 1;
	r->genl.cmd = cmd;
	r->genl.version = 1;
}

static void add(struct request *r, int type, const void *data, size_t len)
{
	struct nlattr *a = (struct nlattr *)((char *)r + NLMSG_ALIGN(r->nlh.nlmsg_len));

	if (NLMSG_ALIGN(r->nlh.nlmsg_len) + NLA_ALIGN(NLA_HDRLEN + len) > sizeof(*r)) {
		fprintf(stderr, "nlprobe: request too large\n");
		exit(2);
	}
	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy((char *)a + NLA_HDRLEN, data, len);
	r->nlh.nlmsg_len = NLMSG_ALIGN(r->nlh.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

/* "2:str:vol" */
static void add_spec(struct request *r, char *spec)
{
	char *type = strchr(spec, ':'), *value = type ? strchr(type + 1, ':') : NULL;
	uint64_t n;
	int attr;

	if (!value) {
		fprintf(stderr, "nlprobe: %s: not ATTRIBUTE:TYPE:VALUE\n", spec);
		exit(2);
	}
	*type++ = *value++ = '\0';
	attr = atoi(spec);
	n = strtoull(value, NULL, 0);
	if (!strcmp(type, "u8"))
		add(r, attr, &n, 1);	/* little-endian machines only, as the guests are */
	else if (!strcmp(type, "u16"))
		add(r, attr, &n, 2);
	else if (!strcmp(type, "u32"))
		add(r, attr, &n, 4);
	else if (!strcmp(type, "u64"))
		add(r, attr, &n, 8);
	else if (!strcmp(type, "str"))
		add(r, attr, value, strlen(value) + 1);
	else if (!strcmp(type, "raw"))
		add(r, attr, value, strlen(value));
	else if (!strcmp(type, "flag"))
		add(r, attr, "", 0);
	else {
		fprintf(stderr, "nlprobe: %s: unknown type\n", type);
		exit(2);
	}
}

static void send_request(int fd, struct request *r)
{
	if (send(fd, r, r->nlh.nlmsg_len, 0) != (ssize_t)r->nlh.nlmsg_len)
		die("send");
}

static const struct nlattr *attr_find(const void *data, size_t len, int type)
{
	while (len >= NLA_HDRLEN) {
		const struct nlattr *a = data;

		if (a->nla_len < NLA_HDRLEN || a->nla_len > len)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		if (NLA_ALIGN(a->nla_len) >= len)
			return NULL;
		len -= NLA_ALIGN(a->nla_len);
		data = (const char *)data + NLA_ALIGN(a->nla_len);
	}
	return NULL;
}

static const void *attr_data(const struct nlattr *a)
{
	return (const char *)a + NLA_HDRLEN;
}

/* Extended-ack text behind the header that the kernel sends back (capped: NETLINK_CAP_ACK). */
static const char *ack_text(const struct nlmsghdr *h)
{
	size_t skip = NLMSG_HDRLEN + (h->nlmsg_type == NLMSG_DONE ? sizeof(int) : sizeof(struct nlmsgerr));
	const struct nlattr *a;

	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || h->nlmsg_len <= skip)
		return "";
	a = attr_find((const char *)h + skip, h->nlmsg_len - skip, NLMSGERR_ATTR_MSG);
	return a ? attr_data(a) : "";
}

static void print_message(const struct nlmsghdr *h)
{
	const struct genlmsghdr *g = NLMSG_DATA(h);
	const char *p = (const char *)g + GENL_HDRLEN;
	size_t left = h->nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN;

	printf("message %d %u%s", g->cmd, h->nlmsg_len, h->nlmsg_flags & NLM_F_DUMP_INTR ? " intr" : "");
	while (left >= NLA_HDRLEN) {
		const struct nlattr *a = (const void *)p;
		size_t i;

		if (a->nla_len < NLA_HDRLEN || a->nla_len > left)
			break;
		printf(" %d=", a->nla_type & NLA_TYPE_MASK);
		for (i = NLA_HDRLEN; i < a->nla_len; i++)
			printf("%02x", (unsigned char)p[i]);
		if (NLA_ALIGN(a->nla_len) >= left)
			break;
		left -= NLA_ALIGN(a->nla_len);
		p += NLA_ALIGN(a->nla_len);
	}
	printf("\n");
}

/* Return: -1: go on, else the exit status. */
static int handle(const struct nlmsghdr *h, int dump)
{
	const struct nlmsgerr *e = NLMSG_DATA(h);
	int status;

	switch (h->nlmsg_type) {
	case NLMSG_ERROR:
		if (!e->error && !dump)
			return 0;
		if (e->error) {
			printf("error %d %s\n", -e->error, ack_text(h));
			return 1;
		}
		return -1;
	case NLMSG_DONE:
		status = *(const int *)NLMSG_DATA(h);
		if (status < 0)
			printf("error %d %s\n", -status, ack_text(h));
		else
			printf("done%s\n", h->nlmsg_flags & NLM_F_DUMP_INTR ? " intr" : "");
		return status < 0;
	default:
		print_message(h);
		return -1;
	}
}

static void wait_gone(const char *path)
{
		while (!access(path, F_OK))
		usleep(20000);
}

static int receive(int fd, const struct options *o)
{
	char *buf = malloc(o->buffer);
	int first = 1, status;

	if (!buf)
		die("memory");
	for (;;) {
		ssize_t n = recv(fd, buf, o->buffer, MSG_TRUNC);
		const struct nlmsghdr *h = (const void *)buf;

		if (n < 0)
			die("recv");
		if ((size_t)n > o->buffer) {
			errno = EMSGSIZE;
			die("recv");
		}
		for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			status = handle(h, o->dump);
			if (status >= 0) {
				free(buf);
				return status;
			}
		}
		if (first && o->wait_file)
			wait_gone(o->wait_file);
		first = 0;
	}
}

/* Number of the family, and of a multicast group of it. */
static int resolve(int fd, const char *group, int *group_id)
{
	struct request r;
	char buf[16384];
	const struct nlmsghdr *h = (const void *)buf;
	const struct nlattr *a, *groups, *name;
	const char *attrs = buf + NLMSG_HDRLEN + GENL_HDRLEN;
	size_t len;
	int id;

	begin(&r, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	add(&r, CTRL_ATTR_FAMILY_NAME, SNAPDIFF_FAMILY_NAME, sizeof(SNAPDIFF_FAMILY_NAME));
	send_request(fd, &r);
	if (recv(fd, buf, sizeof(buf), 0) < 0)
		die("recv");
	if (h->nlmsg_type == NLMSG_ERROR) {
		fprintf(stderr, "nlprobe: no such family: %s\n", SNAPDIFF_FAMILY_NAME);
		exit(2);
	}
	len = h->nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN;
	a = attr_find(attrs, len, CTRL_ATTR_FAMILY_ID);
	id = a ? *(const uint16_t *)attr_data(a) : 0;
	groups = attr_find(attrs, len, CTRL_ATTR_MCAST_GROUPS);
	if (!group || !groups)
		return id;
	groups = attr_data(groups);	/* the first, the only one */
	name = attr_find(attr_data(groups), groups->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_NAME);
	a = attr_find(attr_data(groups), groups->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_ID);
	if (name && a && !strcmp(attr_data(name), group))
		*group_id = *(const uint32_t *)attr_data(a);
	return id;
}

static void drop_privileges(const struct options *o)
{
	struct __user_cap_header_struct hdr = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = 1u << CAP_NET_ADMIN, .permitted = 1u << CAP_NET_ADMIN },
	};

	if (o->net_admin_only && syscall(SYS_capset, &hdr, data))
		die("capset");
	if (o->uid >= 0 && (setgroups(0, NULL) || setgid(o->uid) || setuid(o->uid)))
		die("setuid");
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

static int join(int fd, const struct options *o)
{
	int id = 0;

	resolve(fd, o->group, &id);
	if (!id) {
		fprintf(stderr, "nlprobe: %s: no such group\n", o->group);
		return 2;
	}
	if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &id, sizeof(id))) {
		printf("error %d\n", errno);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = { .uid = -1, .buffer = 32768 };
	struct request r;
	int opt, fd;

	while ((opt = getopt(argc, argv, "+db:w:u:Ng:")) >= 0) {
		switch (opt) {
		case 'd': o.dump = 1; break;
		case 'b': o.buffer = strtoul(optarg, NULL, 0); break;
		case 'w': o.wait_file = optarg; break;
		case 'u': o.uid = atoi(optarg); break;
		case 'N': o.net_admin_only = 1; break;
		case 'g': o.group = optarg; break;
		default: return 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	drop_privileges(&o);
	fd = open_socket();
	if (o.group)
		return join(fd, &o);
	if (optind >= argc) {
		fprintf(stderr, "nlprobe: no command\n");
		return 2;
	}
	/* Another socket than for the question: the kernel remembers how large the buffers of a socket are. */
	begin(&r, resolve(open_socket(), NULL, NULL), atoi(argv[optind]), o.dump ? NLM_F_DUMP : NLM_F_ACK);
	while (++optind < argc)
		add_spec(&r, argv[optind]);
	send_request(fd, &r);
	return receive(fd, &o);
}
