// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extents as lines or JSON, as they come: one is kept back, to be joined with its neighbours. Numbers are exact bytes
 * in text too: who reads extents computes with them.
 */
#include <errno.h>
#include <stdlib.h>

#include "snapctl.h"

enum { COL_OFFSET, COL_LENGTH, COL_WHERE, COL_PLACE };

static const struct snap_col cols[] = {
	[COL_OFFSET]	= { "offset", "OFFSET", SNAP_COL_NUMBER, 0, 15 },
	[COL_LENGTH]	= { "length", "LENGTH", SNAP_COL_NUMBER, 0, 13 },
	[COL_WHERE]	= { "where", "WHERE", SNAP_COL_STRING, 0, 7 },
	[COL_PLACE]	= { "place", "PLACE", SNAP_COL_NUMBER, 0, 15 },
};

struct extent_printer {
	struct snap_out *out;
	bool with_place;
	struct snapdiff_extent last;	/* length 0: none */
};

int extents_open(struct extent_printer **res, bool with_place, const struct snap_out_opts *opts,
		 struct snap_err *e)
{
	struct extent_printer *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return snap_err_sys(e, -ENOMEM, NULL, "output");
	p->with_place = with_place;
	err = snap_out_open(&p->out, "extents", SNAP_OUT_STREAM, cols, with_place ? ARRAY_SIZE(cols) : COL_WHERE,
			    opts, e);
	if (err) {
		free(p);
		return err;
	}
	*res = p;
	return 0;
}

static int print_last(struct extent_printer *p)
{
	const struct snapdiff_extent *x = &p->last;

	if (!x->length)
		return 0;
	snap_out_num(p->out, COL_OFFSET, x->offset);
	snap_out_num(p->out, COL_LENGTH, x->length);
	if (p->with_place) {
		snap_out_str(p->out, COL_WHERE, snap_where_name(x->where));
		if (x->where == SNAPDIFF_WHERE_DIFF)
			snap_out_num(p->out, COL_PLACE, x->place);
		else if (x->where == SNAPDIFF_WHERE_PRIMARY)
			snap_out_num(p->out, COL_PLACE, x->offset);
	}
	return snap_out_row(p->out);
}

static bool continues(const struct snapdiff_extent *a, const struct snapdiff_extent *b)
{
	return a->length && a->offset + a->length == b->offset && a->where == b->where &&
	       a->flags == b->flags && (a->where != SNAPDIFF_WHERE_DIFF || a->place + a->length == b->place);
}

int extents_print(const struct snapdiff_extent *ext, void *arg)
{
	struct extent_printer *p = arg;
	int err;

	if (continues(&p->last, ext)) {
		p->last.length += ext->length;
		return 0;
	}
	err = print_last(p);
	p->last = *ext;
	return err;
}

int extents_close(struct extent_printer *p, bool failed, struct snap_err *e)
{
	int err = 0;

	if (failed) {
		snap_out_abort(p->out);
	} else {
		print_last(p);		/* its error is kept by snap_out */
		err = snap_out_close(p->out, e);
	}
	free(p);
	return err;
}
