// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extents of a generation and between generations, of any number, in constant memory.
 *
 * A walk is one or more dumps. Each dump has a socket of its own: a walk that the caller ends early
 * is closed instead of read to its end, and the caller may use its own socket meanwhile.
 *
 * What was handed out reaches from the start up to "next". A message with NLM_F_DUMP_INTR and all that
 * follow it in that dump are not used: the table changed between two messages, so the kernel's place in it
 * may be wrong. The walk then asks again from "next" on. As extents come sorted and "next" only grows,
 * nothing is given twice and nothing is left out. Without progress it gives up after SNAP_NL_RETRIES.
 *
 * Everything the kernel says is checked: ascending, disjoint, inside the range; a map has no holes either.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "netlink_internal.h"

struct walk {
	uint8_t cmd;
	bool complete;			/* a map: extents must cover the range without holes */
	const char *volume;
	uint32_t gen, to;
	uint64_t next;			/* everything below has been handed out */
	uint64_t end;
	bool interrupted;		/* this dump: from here on unusable */
	bool bad;			/* the kernel's extents made no sense */
	snap_extent_fn fn;
	void *arg;
	int fn_result;
};

/* Is this what may follow, given what came before? */
static bool plausible(const struct walk *w, const struct snapdiff_extent *x)
{
	if (!x->length || x->offset < w->next || x->offset + x->length < x->offset ||
	    x->offset + x->length > w->end)
		return false;
	return !w->complete || x->offset == w->next;
}

static int take_extents(struct nlmsghdr *nlh, void *arg)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];
	struct snapdiff_extent x;
	struct walk *w = arg;
	const char *data;
	size_t i, n;

	if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
		w->interrupted = true;
	if (w->interrupted)
		return 0;
	if (snap_nl_parse(nlh, tb))
		return -EBADMSG;
	if (!tb[SNAPDIFF_A_EXTENTS])
		return 0;
	data = nla_data(tb[SNAPDIFF_A_EXTENTS]);
	n = nla_len(tb[SNAPDIFF_A_EXTENTS]) / sizeof(x);
	for (i = 0; i < n; i++) {
		memcpy(&x, data + i * sizeof(x), sizeof(x));
		if (!plausible(w, &x)) {
			w->bad = true;
			return -EIO;
		}
		w->next = x.offset + x.length;
		w->fn_result = w->fn(&x, w->arg);
		if (w->fn_result)
			return w->fn_result;
	}
	return 0;
}

static struct nl_msg *walk_request(struct snap_nl *nl, const struct walk *w)
{
	struct nl_msg *msg = snap_nl_request(nl, w->cmd, NLM_F_DUMP);

	if (!msg)
		return NULL;
	NLA_PUT_STRING(msg, SNAPDIFF_A_VOLUME, w->volume);
	NLA_PUT_U32(msg, SNAPDIFF_A_GEN, w->gen);
	if (w->to)
		NLA_PUT_U32(msg, SNAPDIFF_A_GEN_LAST, w->to);
	NLA_PUT_U64(msg, SNAPDIFF_A_OFFSET, w->next);
	NLA_PUT_U64(msg, SNAPDIFF_A_LENGTH, w->end - w->next);
	return msg;

nla_put_failure:
	nlmsg_free(msg);
	return NULL;
}

/* One dump from w->next on. Return: 0 ended (perhaps w->interrupted), or the error. */
static int walk_once(struct snap_nl *parent, struct walk *w, const char *object, const char *what,
		     struct snap_err *e)
{
	struct snap_nl_reply reply = { .fn = take_extents, .arg = w };
	struct snap_nl *nl;
	int err;

	w->interrupted = false;
	err = snap_nl_clone(parent, &nl, e);
	if (err)
		return err;
	err = snap_nl_call(nl, walk_request(nl, w), &reply, object, what, e);
	if (reply.interrupted)
		w->interrupted = true;
	snap_nl_close(nl);
	return err;
}

static int walk_extents(struct snap_nl *nl, struct walk *w, const char *object, const char *what,
			struct snap_err *e)
{
	struct timespec pause = { 0, 10 * 1000 * 1000 };
	int err, tries = 0;
	uint64_t before;

	while (w->next < w->end) {
		before = w->next;
		err = walk_once(nl, w, object, what, e);
		if (w->fn_result)
			return w->fn_result;
		if (w->bad)
			return snap_err_set(e, -EIO, object, "%s: extents from the kernel are out of order at %" PRIu64,
					    what, w->next);
		if (err)
			return err;
		if (!w->interrupted)
			break;
		tries = w->next > before ? 0 : tries + 1;
		if (tries > SNAP_NL_RETRIES)
			return snap_err_set(e, -EAGAIN, object, "%s: interrupted again and again at %" PRIu64, what,
					    w->next);
		if (tries)
			nanosleep(&pause, NULL);
	}
	if (w->complete && w->next != w->end)
		return snap_err_set(e, -EIO, object, "%s: the kernel's map ends at %" PRIu64 " of %" PRIu64, what,
				    w->next, w->end);
	return 0;
}

/* Clip [offset, offset + length) to @size; @length 0: to the end. */
static void set_range(struct walk *w, uint64_t offset, uint64_t length, uint64_t size)
{
	w->next = offset;
	w->end = length && length < size - offset ? offset + length : size;
	if (offset >= size)
		w->end = offset;
}

int snap_nl_map(struct snap_nl *nl, const char *volume, uint32_t gen, uint64_t offset, uint64_t length,
		snap_extent_fn fn, void *arg, struct snap_err *e)
{
	struct walk w = {
		.cmd = SNAPDIFF_CMD_MAP_GET, .complete = true, .volume = volume, .gen = gen,
		.fn = fn, .arg = arg,
	};
	char object[SNAP_VOLUME_BUF + 16];
	struct snap_gen g;
	int err;

	err = snap_nl_gen(nl, volume, gen, &g, e);
	if (err)
		return err;
	set_range(&w, offset, length, g.size);
	snprintf(object, sizeof(object), "%s@%u", volume, gen);
	return walk_extents(nl, &w, object, "map", e);
}

/* The size that changes up to @to (0: now) can reach. */
static int changes_size(struct snap_nl *nl, const char *volume, uint32_t to, uint64_t *size,
			struct snap_err *e)
{
	struct snap_volume vol;
	struct snap_gen g;
	int err;

	if (to) {
		err = snap_nl_gen(nl, volume, to, &g, e);
		*size = g.size;
	} else {
		err = snap_nl_volume(nl, volume, &vol, e);
		*size = vol.size;
	}
	return err;
}

int snap_nl_changes(struct snap_nl *nl, const char *volume, uint32_t from, uint32_t to,
		    uint64_t offset, uint64_t length, snap_extent_fn fn, void *arg, struct snap_err *e)
{
	struct walk w = {
		.cmd = SNAPDIFF_CMD_CHANGES_GET, .volume = volume, .gen = from, .to = to,
		.fn = fn, .arg = arg,
	};
	char object[SNAP_VOLUME_BUF + 32];
	struct snap_gen g;
	uint64_t size;
	int err;

	err = snap_nl_gen(nl, volume, from, &g, e);
	if (!err)
		err = changes_size(nl, volume, to, &size, e);
	if (err)
		return err;
	set_range(&w, offset, length, size);
	if (to)
		snprintf(object, sizeof(object), "%s@%u..%u", volume, from, to);
	else
		snprintf(object, sizeof(object), "%s@%u", volume, from);
	return walk_extents(nl, &w, object, "changes", e);
}

int snap_extents_add(const struct snapdiff_extent *ext, void *arg)
{
	struct snap_extents *x = arg;
	struct snapdiff_extent *last = x->n ? &x->v[x->n - 1] : NULL;
	void *p;

	if (last && last->offset + last->length == ext->offset && last->where == ext->where &&
	    last->flags == ext->flags &&
	    (ext->where != SNAPDIFF_WHERE_DIFF || last->place + last->length == ext->place)) {
		last->length += ext->length;
		return 0;
	}
	if (x->n == x->cap) {
		p = reallocarray(x->v, x->cap ? x->cap * 2 : 64, sizeof(*x->v));
		if (!p)
			return -ENOMEM;
		x->v = p;
		x->cap = x->cap ? x->cap * 2 : 64;
	}
	x->v[x->n++] = *ext;
	return 0;
}

void snap_extents_free(struct snap_extents *x)
{
	free(x->v);
	memset(x, 0, sizeof(*x));
}
