// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the kernel's answers, or what pretends to be them, do to the netlink client: every operation, on datagrams of the fuzzer's making.
 *
 * Input: a byte that chooses the operation, then datagrams, each behind its length (u16). Sequence number and port of every message are made right, as those of
 * another are skipped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "netlink_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_nl_recv(struct nl_sock *sk, struct sockaddr_nl *from, unsigned char **buf, struct ucred **creds);
int __wrap_nl_send_auto(struct nl_sock *sk, struct nl_msg *msg);
int __wrap_genl_connect(struct nl_sock *sk);

#define FAMILY	0x20

static const uint8_t *input;
static size_t left;
static uint32_t seq;

int __wrap_genl_connect(struct nl_sock *sk)
{
	return 0;
}

int __wrap_nl_send_auto(struct nl_sock *sk, struct nl_msg *msg)
{
	seq = nlmsg_hdr(msg)->nlmsg_seq;
	return 1;
}

int __wrap_nl_recv(struct nl_sock *sk, struct sockaddr_nl *from, unsigned char **buf, struct ucred **creds)
{
	struct nlmsghdr *h;
	uint16_t len;
	int n;

	if (left < 2)
		return -NLE_AGAIN;
	memcpy(&len, input, 2);
	input += 2;
	left -= 2;
	if (len > left)
		len = left;
	if (!len)
		return -NLE_INTR;
	*buf = malloc(len);
	memcpy(*buf, input, len);
	input += len;
	left -= len;
	memset(from, 0, sizeof(*from));
	n = len;
	for (h = (void *)*buf; nlmsg_ok(h, n); h = nlmsg_next(h, &n)) {
		h->nlmsg_seq = seq;
		h->nlmsg_pid = nl_socket_get_local_port(sk);
	}
	return len;
}

static int see(const struct snapdiff_extent *x, void *arg)
{
	*(uint64_t *)arg += x->offset + x->length + x->where + x->place;
	return 0;
}

static void call(struct snap_nl *nl, int op)
{
	const char *const two[] = { "v", "w" };
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_volume vol, *vols = NULL;
	struct snap_gen gen, gens2[2], *gens = NULL;
	struct snap_virt *virts = NULL;
	char name[SNAP_VOLUME_BUF];
	uint64_t sum = 0;
	size_t n;
	int index;

	switch (op) {
	case 0: snap_nl_volume(nl, "v", &vol, &e); break;
	case 1: snap_nl_volumes(nl, &vols, &n, &e); break;
	case 2: snap_nl_sole_volume(nl, name, &e); break;
	case 3: snap_nl_gen(nl, "v", 1, &gen, &e); break;
	case 4: snap_nl_gens(nl, NULL, &gens, &n, &e); break;
	case 5: snap_nl_create(nl, two, 2, "label", SNAP_FREEZE_NO, gens2, &e); break;
	case 6: snap_nl_activate(nl, "v", 1, false, &index, &e); break;
	case 7: snap_nl_virts(nl, NULL, &virts, &n, &e); break;
	case 8: snap_nl_map(nl, "v", 1, 0, 1 << 20, see, &sum, &e); break;
	case 9: snap_nl_changes(nl, "v", 1, 2, 0, 1 << 20, see, &sum, &e); break;
	case 10: snap_nl_delete(nl, "v", 1, 2, &e); break;
	}
	free(vols);
	free(gens);
	free(virts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snap_nl nl = { .family = FAMILY };

	if (!size)
		return 0;
	nl.sk = nl_socket_alloc();
	nl_socket_set_local_port(nl.sk, 4711);
	input = data + 1;
	left = size - 1;
	call(&nl, data[0] % 11);
	nl_socket_free(nl.sk);
	return 0;
}
