// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A generation: its map and changes over netlink, its bytes through /dev/snapvirtN.
 *
 * The generation is pinned from start to close, so that a full differential volume drops others first and nobody
 * deletes it; it is activated if it was not, and only then deactivated at the end. If this process is killed, the next one does that (claim.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "claim.h"
#include "netlink.h"
#include "source.h"

struct virt {
	struct source s;
	struct snap_nl *nl;
	char volume[SNAP_VOLUME_BUF];
	int index, fd, claim;
	bool pinned, activated;
};

static int from_snap(struct sm_err *e, const struct snap_err *se, int err)
{
	return sm_fail(e, err, "%s%s%s", se->object, se->object[0] ? ": " : "",
		       se->text[0] ? se->text : strerror(-err));
}

struct collect {
	struct virt *v;
	struct sm_spill *ranges;
	bool map;
	struct sm_err *e;
};

static int collect_extent(const struct snapdiff_extent *x, void *arg)
{
	struct collect *c = arg;

	if (c->map && x->where == SNAPDIFF_WHERE_BAD)
		return sm_fail(c->e, -EIO, "%s: %llu bytes at offset %llu could not be preserved: no backup of this generation is possible",
			       c->v->s.name, (unsigned long long)x->length, (unsigned long long)x->offset);
	return add_range(c->ranges, x->offset, x->length, c->map && x->where == SNAPDIFF_WHERE_ZERO, c->e);
}

static int virt_map(struct source *s, struct sm_spill *ranges, struct sm_err *e)
{
	struct virt *v = (struct virt *)s;
	struct collect c = { v, ranges, true, e };
	struct snap_err se = SNAP_ERR_INIT;
	int err;

	e->text[0] = '\0';
	err = snap_nl_map(v->nl, v->volume, s->number, 0, 0, collect_extent, &c, &se);
	return err && !e->text[0] ? from_snap(e, &se, err) : err;
}

static int virt_changes(struct source *s, uint32_t base, struct sm_spill *ranges, struct sm_err *e)
{
	struct virt *v = (struct virt *)s;
	struct collect c = { v, ranges, false, e };
	struct snap_err se = SNAP_ERR_INIT;
	int err;

	e->text[0] = '\0';
	err = snap_nl_changes(v->nl, v->volume, base, s->number, 0, 0, collect_extent, &c, &se);
	return err && !e->text[0] ? from_snap(e, &se, err) : err;
}

static int virt_start(struct source *s, struct sm_err *e)
{
	struct virt *v = (struct virt *)s;
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_gen g;
	char path[64];
	int err;

	claim_sweep(v->nl);
	err = snap_nl_gen(v->nl, v->volume, s->number, &g, &se);
	if (err)
		return from_snap(e, &se, err);
	v->claim = claim_take(v->volume, s->number, g.uuid, !(g.flags & SNAPDIFF_GEN_F_PINNED), g.virt_index == SNAP_NO_VIRT, e);
	if (v->claim < 0)
		return v->claim;
	if (!(g.flags & SNAPDIFF_GEN_F_PINNED)) {
		err = snap_nl_pin(v->nl, v->volume, s->number, true, &se);
		if (err)
			return from_snap(e, &se, err);
		v->pinned = true;
	}
	err = snap_nl_activate(v->nl, v->volume, s->number, false, &v->index, &se);
	if (err)
		return from_snap(e, &se, err);
	v->activated = g.virt_index == SNAP_NO_VIRT;
	err = snap_virt_wait(v->index, &se);
	if (err)
		return from_snap(e, &se, err);
	snap_virt_path(path, sizeof(path), v->index);
	v->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (v->fd < 0)
		return sm_fail(e, -errno, "%s: cannot open: %s", path, strerror(errno));
	return 0;
}

static ssize_t virt_read(struct source *s, void *buf, size_t len, uint64_t offset)
{
	struct virt *v = (struct virt *)s;
	size_t done = 0;

	/* No sm_pread_full() here: with O_DIRECT the rest of a short read at the end would not be aligned. */
	while (done < len) {
		ssize_t r = pread(v->fd, (char *)buf + done, len - done, offset + done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		done += r;
		if (!r || r % SM_BLOCK)
			break;
	}
	return done;
}

static int virt_fd(struct source *s)
{
	return ((struct virt *)s)->fd;
}

static int virt_check(struct source *s, struct sm_err *e)
{
	struct virt *v = (struct virt *)s;
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_gen g;
	int err = snap_nl_gen(v->nl, v->volume, s->number, &g, &se);

	if (err)
		return from_snap(e, &se, err);
	if (g.state != SNAPDIFF_GEN_LIVE || memcmp(g.uuid, s->uuid, SM_UUID))
		return sm_fail(e, -ESTALE, "%s: was given up while it was read", s->name);
	return 0;
}

static void let_go(struct virt *v)
{
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
	if (v->activated) {
		/* udev may still have a look at it */
		for (int i = 0; snap_nl_deactivate_index(v->nl, v->index, NULL) == -EBUSY && i < 50; i++)
			usleep(20000);
		v->activated = false;
	}
	if (v->pinned)
		snap_nl_pin(v->nl, v->volume, v->s.number, false, NULL);
	v->pinned = false;
	if (v->claim >= 0)
		claim_drop(v->claim, v->s.uuid);
	v->claim = -1;
}

static int virt_bookmark(struct source *s, struct sm_err *e)
{
	struct virt *v = (struct virt *)s;
	struct snap_err se = SNAP_ERR_INIT;
	int err;

	let_go(v);
	err = snap_nl_bookmark(v->nl, v->volume, s->number, &se);
	return err ? from_snap(e, &se, err) : 0;
}

static void virt_close(struct source *s)
{
	struct virt *v = (struct virt *)s;

	let_go(v);
	snap_nl_close(v->nl);
	free(s->candidates);
	free(v);
}

static const struct source_ops virt_ops = {
	.map = virt_map,
	.changes = virt_changes,
	.start = virt_start,
	.read = virt_read,
	.fd = virt_fd,
	.check = virt_check,
	.bookmark = virt_bookmark,
	.close = virt_close,
};

static int load_candidates(struct virt *v, struct snap_err *se)
{
	struct snap_gen *g;
	size_t n;
	int err = snap_nl_gens(v->nl, v->volume, &g, &n, se);

	if (err)
		return err;
	v->s.candidates = calloc(n + 1, sizeof(*v->s.candidates));
	for (size_t i = n; v->s.candidates && i--;)
		if (g[i].number >= v->s.number || g[i].state == SNAPDIFF_GEN_LOST) {
			continue;
		} else if (g[i].flags & SNAPDIFF_GEN_F_SUSPECT) {
			/* What changed since is known only as far as it went through us. */
			if (!v->s.suspect)
				v->s.suspect = g[i].number;
		} else {
			struct candidate *c = &v->s.candidates[v->s.nr_candidates++];

			c->number = g[i].number;
			c->size = g[i].size;
			memcpy(c->uuid, g[i].uuid, SM_UUID);
		}
	free(g);
	return v->s.candidates ? 0 : -ENOMEM;
}

static int describe(struct virt *v, struct snap_err *se)
{
	struct snap_volume vol;
	struct snap_gen g;
	int err;

	if ((err = snap_nl_volume(v->nl, v->volume, &vol, se)) ||
	    (err = snap_nl_gen(v->nl, v->volume, v->s.number, &g, se)))
		return err;
	snprintf(v->s.name, sizeof(v->s.name), "%.100s@%u", v->volume, v->s.number);
	if (g.state != SNAPDIFF_GEN_LIVE)
		return snap_err_set(se, -ENODATA, v->s.name, "is %s: its data is gone",
				    g.state == SNAPDIFF_GEN_LOST ? "lost" : "a bookmark");
	if (g.flags & SNAPDIFF_GEN_F_SUSPECT)
		snap_warn(v->s.name, "is suspect: the machine stopped without a detach, and what this generation reads from the primary may have been written since");
	memcpy(v->s.volume, vol.uuid, SM_UUID);
	memcpy(v->s.uuid, g.uuid, SM_UUID);
	v->s.size = g.size;
	v->s.created = g.created;
	snprintf(v->s.volume_name, sizeof(v->s.volume_name), "%s", v->volume);
	snprintf(v->s.label, sizeof(v->s.label), "%s", g.label);
	return load_candidates(v, se);
}

int source_volume(const char *name, uint32_t number, struct source **s, struct sm_err *e)
{
	struct virt *v = calloc(1, sizeof(*v));
	struct snap_err se = SNAP_ERR_INIT;
	int err;

	if (!v)
		return sm_fail(e, -ENOMEM, "no memory");
	v->s.ops = &virt_ops;
	v->s.number = number;
	v->fd = v->claim = -1;
	v->s.known_uuids = true;
	err = snap_nl_open(&v->nl, &se);
	if (!err && name && strlen(name) >= sizeof(v->volume))
		err = snap_err_set(&se, -EINVAL, name, "name too long");
	else if (!err && name)
		strcpy(v->volume, name);
	else if (!err)
		err = snap_nl_sole_volume(v->nl, v->volume, &se);
	if (!err)
		err = describe(v, &se);
	if (err) {
		from_snap(e, &se, err);
		virt_close(&v->s);
		return err;
	}
	*s = &v->s;
	return 0;
}
