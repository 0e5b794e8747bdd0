// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Volumes, generations and virtual volumes over netlink.
 *
 * Lists are dumps; one that the kernel calls interrupted (something was created or deleted meanwhile)
 * is thrown away and asked for again, so that a list is always that of one moment.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "netlink_internal.h"

/* As the kernel's new_decode_dev(). */
static dev_t decode_dev(uint64_t v)
{
	return makedev((v & 0xfff00) >> 8, (v & 0xff) | ((v >> 12) & 0xfff00));
}

static void copy_string(char *buf, size_t len, struct nlattr *a)
{
	buf[0] = 0;
	if (a)
		nla_strlcpy(buf, a, len);
}

static const char *gen_name(char *buf, size_t len, const char *volume, uint32_t gen)
{
	snprintf(buf, len, "%s@%u", volume, gen);
	return buf;
}

/* ---- lists ---- */

struct list {
	void *v;
	size_t n, size;
	int (*fill)(struct nlmsghdr *nlh, void *element);	/* 0, -EBADMSG, 1: not one, leave it out */
};

static int add_to_list(struct nlmsghdr *nlh, void *arg)
{
	struct list *l = arg;
	void *el = snap_nl_grow(&l->v, &l->n, l->size);
	int rc;

	if (!el)
		return -ENOMEM;
	rc = l->fill(nlh, el);
	if (rc)
		l->n--;
	return rc < 0 ? rc : 0;
}

/* Dump @cmd into @l, again while it is interrupted. @volume may be NULL. */
static int dump_list(struct snap_nl *nl, uint8_t cmd, const char *volume, struct list *l, const char *what,
		     struct snap_err *e)
{
	struct timespec pause = { 0, 10 * 1000 * 1000 };
	struct snap_nl_reply reply;
	struct nl_msg *msg;
	int err, tries = 0;

	do {
		l->n = 0;
		free(l->v);
		l->v = NULL;
		msg = snap_nl_request(nl, cmd, NLM_F_DUMP);
		if (msg && volume && nla_put_string(msg, SNAPDIFF_A_VOLUME, volume)) {
			nlmsg_free(msg);
			msg = NULL;
		}
		reply = (struct snap_nl_reply){ .fn = add_to_list, .arg = l };
		err = snap_nl_call(nl, msg, &reply, volume, what, e);
		if (err || !reply.interrupted)
			break;
		nanosleep(&pause, NULL);
	} while (++tries < SNAP_NL_RETRIES);
	if (!err && reply.interrupted)
		err = snap_err_set(e, -EAGAIN, volume, "%s: the list keeps changing", what);
	if (err == -ENOMEM)
		snap_err_sys(e, err, volume, what);
	if (err) {
		free(l->v);
		l->v = NULL;
		l->n = 0;
	}
	return err;
}

/* ---- volumes ---- */

static int parse_stats(struct nlattr *nest, uint64_t *stats)
{
	struct nlattr *tb[SNAPDIFF_STAT_MAX + 1];
	int i;

	if (nla_parse_nested(tb, SNAPDIFF_STAT_MAX, nest, NULL) < 0)
		return -EBADMSG;
	for (i = SNAPDIFF_STAT_PAD + 1; i <= SNAPDIFF_STAT_MAX; i++)
		if (tb[i] && nla_len(tb[i]) >= 8)
			stats[i] = nla_get_u64(tb[i]);
	return 0;
}

static int fill_volume(struct nlmsghdr *nlh, void *element)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];
	struct snap_volume *v = element;

	if (snap_nl_parse(nlh, tb) || !tb[SNAPDIFF_A_VOLUME])
		return -EBADMSG;
	memset(v, 0, sizeof(*v));
	copy_string(v->name, sizeof(v->name), tb[SNAPDIFF_A_VOLUME]);
	if (tb[SNAPDIFF_A_VOLUME_UUID])
		memcpy(v->uuid, nla_data(tb[SNAPDIFF_A_VOLUME_UUID]), sizeof(v->uuid));
	v->primary = decode_dev(snap_nl_u64(tb[SNAPDIFF_A_PRIMARY_DEV]));
	v->diff = decode_dev(snap_nl_u64(tb[SNAPDIFF_A_DIFF_DEV]));
	v->dm = decode_dev(snap_nl_u64(tb[SNAPDIFF_A_DM_DEV]));
	v->size = snap_nl_u64(tb[SNAPDIFF_A_SIZE]);
	v->chunk_size = snap_nl_u32(tb[SNAPDIFF_A_CHUNK_SIZE]);
	v->highest_gen = snap_nl_u32(tb[SNAPDIFF_A_HIGHEST_GEN]);
	v->nr_gens = snap_nl_u32(tb[SNAPDIFF_A_NR_GENS]);
	v->on_full = snap_nl_u8(tb[SNAPDIFF_A_ON_FULL]);
	v->state = snap_nl_u8(tb[SNAPDIFF_A_STORE_STATE]);
	return tb[SNAPDIFF_A_STATS] ? parse_stats(tb[SNAPDIFF_A_STATS], v->stats) : 0;
}

static int one_volume(struct nlmsghdr *nlh, void *arg)
{
	return fill_volume(nlh, arg);
}

int snap_nl_volume(struct snap_nl *nl, const char *name, struct snap_volume *vol, struct snap_err *e)
{
	struct snap_nl_reply reply = { .fn = one_volume, .arg = vol };
	struct nl_msg *msg = snap_nl_request(nl, SNAPDIFF_CMD_VOLUME_GET, 0);

	if (!msg)
		return snap_err_sys(e, -ENOMEM, name, "status");
	memset(vol, 0, sizeof(*vol));
	NLA_PUT_STRING(msg, SNAPDIFF_A_VOLUME, name);
	return snap_nl_call(nl, msg, &reply, name, NULL, e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_set(e, -EINVAL, name, "name too long");
}

static int compare_volumes(const void *a, const void *b)
{
	return strcmp(((const struct snap_volume *)a)->name, ((const struct snap_volume *)b)->name);
}

int snap_nl_volumes(struct snap_nl *nl, struct snap_volume **vols, size_t *n, struct snap_err *e)
{
	struct list l = { .size = sizeof(struct snap_volume), .fill = fill_volume };
	int err = dump_list(nl, SNAPDIFF_CMD_VOLUME_GET, NULL, &l, "list of volumes", e);

	if (l.n)
		qsort(l.v, l.n, l.size, compare_volumes);
	*vols = l.v;
	*n = l.n;
	return err;
}

int snap_nl_sole_volume(struct snap_nl *nl, char name[SNAP_VOLUME_BUF], struct snap_err *e)
{
	struct snap_volume *vols;
	char names[512] = "";
	size_t n, i, used = 0;
	int err;

	err = snap_nl_volumes(nl, &vols, &n, e);
	if (err)
		return err;
	if (n == 1) {
		strcpy(name, vols[0].name);
	} else if (!n) {
		err = snap_err_set(e, -ENODEV, NULL, "no volume is attached");
	} else {
		for (i = 0; i < n && used < sizeof(names); i++)
			used += snprintf(names + used, sizeof(names) - used, " %s", vols[i].name);
		err = snap_err_set(e, -EINVAL, NULL, "several volumes are attached, name one of:%s", names);
	}
	free(vols);
	return err;
}

int snap_nl_set_on_full(struct snap_nl *nl, const char *name, uint8_t on_full, struct snap_err *e)
{
	struct nl_msg *msg = snap_nl_request(nl, SNAPDIFF_CMD_VOLUME_SET, 0);

	if (!msg)
		return snap_err_sys(e, -ENOMEM, name, "set");
	NLA_PUT_STRING(msg, SNAPDIFF_A_VOLUME, name);
	NLA_PUT_U8(msg, SNAPDIFF_A_ON_FULL, on_full);
	return snap_nl_call(nl, msg, NULL, name, "cannot set on-full", e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_set(e, -EINVAL, name, "name too long");
}

int snap_nl_reread_size(struct snap_nl *nl, const char *name, struct snap_err *e)
{
	struct nl_msg *msg = snap_nl_request(nl, SNAPDIFF_CMD_VOLUME_SET, 0);

	if (!msg)
		return snap_err_sys(e, -ENOMEM, name, "set");
	NLA_PUT_STRING(msg, SNAPDIFF_A_VOLUME, name);
	NLA_PUT_FLAG(msg, SNAPDIFF_A_REREAD_SIZE);
	return snap_nl_call(nl, msg, NULL, name, "cannot take the new size", e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_set(e, -EINVAL, name, "name too long");
}

/* ---- generations ---- */

static const struct nla_policy gen_policy[SNAPDIFF_GEN_A_MAX + 1] = {
	[SNAPDIFF_GEN_A_VOLUME]		= { .type = NLA_STRING },
	[SNAPDIFF_GEN_A_NUMBER]		= { .type = NLA_U32 },
	[SNAPDIFF_GEN_A_UUID]		= { .type = NLA_UNSPEC, .minlen = SNAPDIFF_UUID_SIZE },
	[SNAPDIFF_GEN_A_CREATED]	= { .type = NLA_U64 },
	[SNAPDIFF_GEN_A_SIZE]		= { .type = NLA_U64 },
	[SNAPDIFF_GEN_A_STATE]		= { .type = NLA_U8 },
	[SNAPDIFF_GEN_A_FLAGS]		= { .type = NLA_U32 },
	[SNAPDIFF_GEN_A_LABEL]		= { .type = NLA_STRING },
	[SNAPDIFF_GEN_A_CHANGED]	= { .type = NLA_U64 },
	[SNAPDIFF_GEN_A_VIRT_INDEX]	= { .type = NLA_U32 },
};

static int parse_gen(struct nlattr *nest, struct snap_gen *g)
{
	struct nlattr *tb[SNAPDIFF_GEN_A_MAX + 1];

	if (nla_parse_nested(tb, SNAPDIFF_GEN_A_MAX, nest, gen_policy) < 0 || !tb[SNAPDIFF_GEN_A_NUMBER])
		return -EBADMSG;
	memset(g, 0, sizeof(*g));
	copy_string(g->volume, sizeof(g->volume), tb[SNAPDIFF_GEN_A_VOLUME]);
	copy_string(g->label, sizeof(g->label), tb[SNAPDIFF_GEN_A_LABEL]);
	if (tb[SNAPDIFF_GEN_A_UUID])
		memcpy(g->uuid, nla_data(tb[SNAPDIFF_GEN_A_UUID]), sizeof(g->uuid));
	g->number = nla_get_u32(tb[SNAPDIFF_GEN_A_NUMBER]);
	g->created = snap_nl_u64(tb[SNAPDIFF_GEN_A_CREATED]);
	g->size = snap_nl_u64(tb[SNAPDIFF_GEN_A_SIZE]);
	g->changed = snap_nl_u64(tb[SNAPDIFF_GEN_A_CHANGED]);
	g->state = snap_nl_u8(tb[SNAPDIFF_GEN_A_STATE]);
	g->flags = snap_nl_u32(tb[SNAPDIFF_GEN_A_FLAGS]);
	g->virt_index = SNAP_NO_VIRT;
	if (tb[SNAPDIFF_GEN_A_VIRT_INDEX])
		g->virt_index = nla_get_u32(tb[SNAPDIFF_GEN_A_VIRT_INDEX]);
	return 0;
}

static int fill_gen(struct nlmsghdr *nlh, void *element)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];
	struct snap_gen *g = element;
	int err;

	if (snap_nl_parse(nlh, tb) || !tb[SNAPDIFF_A_GENERATION])
		return -EBADMSG;
	err = parse_gen(tb[SNAPDIFF_A_GENERATION], g);
	if (!err && !g->volume[0])
		copy_string(g->volume, sizeof(g->volume), tb[SNAPDIFF_A_VOLUME]);
	return err;
}

static int one_gen(struct nlmsghdr *nlh, void *arg)
{
	return fill_gen(nlh, arg);
}

/* VOLUME + GEN, what most requests begin with. NULL without memory or with a name too long. */
static struct nl_msg *gen_request(struct snap_nl *nl, uint8_t cmd, const char *volume, uint32_t gen)
{
	struct nl_msg *msg = snap_nl_request(nl, cmd, 0);

	if (!msg)
		return NULL;
	NLA_PUT_STRING(msg, SNAPDIFF_A_VOLUME, volume);
	NLA_PUT_U32(msg, SNAPDIFF_A_GEN, gen);
	return msg;

nla_put_failure:
	nlmsg_free(msg);
	return NULL;
}

int snap_nl_gen(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_gen *out,
		struct snap_err *e)
{
	struct snap_nl_reply reply = { .fn = one_gen, .arg = out };
	char object[SNAP_VOLUME_BUF + 16];
	int err;

	memset(out, 0, sizeof(*out));
	gen_name(object, sizeof(object), volume, gen);
	err = snap_nl_call(nl, gen_request(nl, SNAPDIFF_CMD_GEN_GET, volume, gen), &reply, object,
			   NULL, e);
	if (!err && out->number != gen)
		err = snap_err_set(e, -EBADMSG, object, "malformed answer from the kernel");
	return err;
}

static int compare_gens(const void *pa, const void *pb)
{
	const struct snap_gen *a = pa, *b = pb;
	int c = strcmp(a->volume, b->volume);

	return c ? c : a->number < b->number ? -1 : a->number > b->number;
}

int snap_nl_gens(struct snap_nl *nl, const char *volume, struct snap_gen **gens, size_t *n,
		 struct snap_err *e)
{
	struct list l = { .size = sizeof(struct snap_gen), .fill = fill_gen };
	int err = dump_list(nl, SNAPDIFF_CMD_GEN_GET, volume, &l, "list of generations", e);

	if (l.n)
		qsort(l.v, l.n, l.size, compare_gens);
	*gens = l.v;
	*n = l.n;
	return err;
}

struct created {
	struct snap_gen *gens;
	size_t n, max;
};

/* GENERATION repeats: walk the attributes. */
static int take_created(struct nlmsghdr *nlh, void *arg)
{
	struct created *c = arg;
	struct genlmsghdr *hdr = nlmsg_data(nlh);
	struct nlattr *a;
	int rem;

	if (!genlmsg_valid_hdr(nlh, 0))
		return -EBADMSG;
	nla_for_each_attr(a, genlmsg_attrdata(hdr, 0), genlmsg_attrlen(hdr, 0), rem) {
		if (nla_type(a) != SNAPDIFF_A_GENERATION)
			continue;
		if (c->n == c->max || parse_gen(a, &c->gens[c->n]))
			return -EBADMSG;
		c->n++;
	}
	return 0;
}

int snap_nl_create(struct snap_nl *nl, const char *const *names, size_t n, const char *label,
		   enum snap_freeze freeze, struct snap_gen *gens, struct snap_err *e)
{
	struct created c = { .gens = gens, .max = n };
	struct snap_nl_reply reply = { .fn = take_created, .arg = &c };
	const char *object = n == 1 ? names[0] : NULL;
	struct nl_msg *msg = snap_nl_request(nl, SNAPDIFF_CMD_GEN_CREATE, 0);
	size_t i;
	int err;

	if (!msg)
		return snap_err_sys(e, -ENOMEM, object, "create");
	for (i = 0; i < n; i++)
		NLA_PUT_STRING(msg, SNAPDIFF_A_VOLUME, names[i]);
	if (label)
		NLA_PUT_STRING(msg, SNAPDIFF_A_LABEL, label);
	if (freeze != SNAP_FREEZE_AUTO)
		NLA_PUT_U8(msg, SNAPDIFF_A_FREEZE, freeze == SNAP_FREEZE_YES);
	err = snap_nl_call(nl, msg, &reply, object, "cannot create a generation", e);
	if (!err && c.n != n)
		err = snap_err_set(e, -EBADMSG, object, "create: the kernel reported %zu of %zu generations",
				   c.n, n);
	return err;

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_set(e, -E2BIG, object, "create: too many volumes for one request");
}

int snap_nl_delete(struct snap_nl *nl, const char *volume, uint32_t first, uint32_t last,
		   struct snap_err *e)
{
	struct nl_msg *msg = gen_request(nl, SNAPDIFF_CMD_GEN_DELETE, volume, first);
	char object[SNAP_VOLUME_BUF + 32];

	gen_name(object, sizeof(object), volume, first);
	if (msg && last != first) {
		snprintf(object, sizeof(object), "%s@%u..%u", volume, first, last);
		NLA_PUT_U32(msg, SNAPDIFF_A_GEN_LAST, last);
	}
	return snap_nl_call(nl, msg, NULL, object, "cannot delete", e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_sys(e, -ENOMEM, object, "delete");
}

int snap_nl_bookmark(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_err *e)
{
	char object[SNAP_VOLUME_BUF + 16];

	gen_name(object, sizeof(object), volume, gen);
	return snap_nl_call(nl, gen_request(nl, SNAPDIFF_CMD_GEN_BOOKMARK, volume, gen), NULL, object,
			    "cannot make a bookmark", e);
}

int snap_nl_pin(struct snap_nl *nl, const char *volume, uint32_t gen, bool pinned, struct snap_err *e)
{
	struct nl_msg *msg = gen_request(nl, SNAPDIFF_CMD_GEN_PIN, volume, gen);
	char object[SNAP_VOLUME_BUF + 16];

	gen_name(object, sizeof(object), volume, gen);
	if (msg)
		NLA_PUT_U8(msg, SNAPDIFF_A_PINNED, pinned);
	return snap_nl_call(nl, msg, NULL, object, pinned ? "cannot pin" : "cannot unpin", e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_sys(e, -ENOMEM, object, "pin");
}

int snap_nl_label(struct snap_nl *nl, const char *volume, uint32_t gen, const char *label,
		  struct snap_err *e)
{
	struct nl_msg *msg = gen_request(nl, SNAPDIFF_CMD_GEN_LABEL, volume, gen);
	char object[SNAP_VOLUME_BUF + 16];

	gen_name(object, sizeof(object), volume, gen);
	if (msg)
		NLA_PUT_STRING(msg, SNAPDIFF_A_LABEL, label);
	return snap_nl_call(nl, msg, NULL, object, "cannot set the label", e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_sys(e, -ENOMEM, object, "label");
}

/* ---- virtual volumes ---- */

static int one_index(struct nlmsghdr *nlh, void *arg)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];

	if (snap_nl_parse(nlh, tb) || !tb[SNAPDIFF_A_VIRT_INDEX])
		return -EBADMSG;
	*(int *)arg = nla_get_u32(tb[SNAPDIFF_A_VIRT_INDEX]);
	return 0;
}

int snap_nl_activate(struct snap_nl *nl, const char *volume, uint32_t gen, bool partscan, int *index,
		     struct snap_err *e)
{
	struct nl_msg *msg = gen_request(nl, SNAPDIFF_CMD_VIRT_ACTIVATE, volume, gen);
	struct snap_nl_reply reply = { .fn = one_index, .arg = index };
	char object[SNAP_VOLUME_BUF + 16];
	int err;

	*index = SNAP_NO_VIRT;
	gen_name(object, sizeof(object), volume, gen);
	if (msg && partscan)
		NLA_PUT_FLAG(msg, SNAPDIFF_A_PARTSCAN);
	err = snap_nl_call(nl, msg, &reply, object, "cannot activate", e);
	if (!err && *index < 0)
		err = snap_err_set(e, -EBADMSG, object, "activate: malformed answer from the kernel");
	return err;

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_sys(e, -ENOMEM, object, "activate");
}

int snap_nl_deactivate(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_err *e)
{
	char object[SNAP_VOLUME_BUF + 16];

	gen_name(object, sizeof(object), volume, gen);
	return snap_nl_call(nl, gen_request(nl, SNAPDIFF_CMD_VIRT_DEACTIVATE, volume, gen), NULL, object,
			    "cannot deactivate", e);
}

int snap_nl_deactivate_index(struct snap_nl *nl, int index, struct snap_err *e)
{
	struct nl_msg *msg = snap_nl_request(nl, SNAPDIFF_CMD_VIRT_DEACTIVATE, 0);
	char object[32];

	snap_virt_path(object, sizeof(object), index);
	if (msg)
		NLA_PUT_U32(msg, SNAPDIFF_A_VIRT_INDEX, index);
	return snap_nl_call(nl, msg, NULL, object, "cannot deactivate", e);

nla_put_failure:
	nlmsg_free(msg);
	return snap_err_sys(e, -ENOMEM, object, "deactivate");
}

static int fill_virt(struct nlmsghdr *nlh, void *element)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];
	struct snap_virt *v = element;

	if (snap_nl_parse(nlh, tb) || !tb[SNAPDIFF_A_VIRT_INDEX])
		return -EBADMSG;
	v->index = nla_get_u32(tb[SNAPDIFF_A_VIRT_INDEX]);
	copy_string(v->volume, sizeof(v->volume), tb[SNAPDIFF_A_VOLUME]);
	v->gen = snap_nl_u32(tb[SNAPDIFF_A_GEN]);
	v->openers = snap_nl_u32(tb[SNAPDIFF_A_OPENERS]);
	return 0;
}

static int compare_virts(const void *a, const void *b)
{
	uint32_t x = ((const struct snap_virt *)a)->index, y = ((const struct snap_virt *)b)->index;

	return (x > y) - (x < y);
}

int snap_nl_virts(struct snap_nl *nl, const char *volume, struct snap_virt **virts, size_t *n,
		  struct snap_err *e)
{
	struct list l = { .size = sizeof(struct snap_virt), .fill = fill_virt };
	int err = dump_list(nl, SNAPDIFF_CMD_VIRT_GET, volume, &l, "list of virtual volumes", e);

	if (l.n)
		qsort(l.v, l.n, l.size, compare_virts);
	*virts = l.v;
	*n = l.n;
	return err;
}

char *snap_virt_path(char *buf, size_t len, int index)
{
	snprintf(buf, len, "/dev/snapvirt%d", index);
	return buf;
}

int snap_virt_wait(int index, struct snap_err *e)
{
	struct timespec pause = { 0, 20 * 1000 * 1000 };
	char path[32];
	struct stat st;
	int i;

	snap_virt_path(path, sizeof(path), index);
	for (i = 0; i < 250; i++) {
		if (!stat(path, &st) && S_ISBLK(st.st_mode))
			return 0;
		nanosleep(&pause, NULL);
	}
	return snap_err_set(e, -ENODEV, path, "the device node did not appear within 5 seconds");
}
