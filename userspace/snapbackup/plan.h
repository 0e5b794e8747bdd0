/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of what has to be sent, and of what the server has of it already.
 */
#ifndef SNAPBACKUP_PLAN_H
#define SNAPBACKUP_PLAN_H

#include "extent.h"
#include "repo.h"
#include "source.h"

struct have_leaf {
	uint64_t first;
	uint8_t digest[SM_DIGEST];
};

struct plan {
	struct sm_spill ranges;		/* struct range: sorted, disjoint, inside the size */
	uint64_t extents, bytes;
	uint8_t digest[SM_DIGEST];
	/* from a resumed upload; sorted by plan_resume() */
	struct sm_spill have;		/* struct sm_extent: data and zeros */
	struct sm_spill have_leaves;	/* struct have_leaf */
	struct sm_spill have_zeros;	/* struct sm_extent */
	uint64_t have_bytes, have_data, have_zero;
	/* the walk */
	size_t at, at_have;
	uint64_t pos;
};

void plan_init(struct plan *p);
void plan_free(struct plan *p);

/**
 * plan_make() - find out what differs
 * @base: 0: everything
 * @base_size: of the base; what grew since then is sent whole
 */
int plan_make(struct plan *p, struct source *s, uint32_t base, uint64_t base_size, struct sm_err *e);

/* plan_take() - the same of an increment whose changes the caller has found: @raw, struct range, ascending, may reach past the size */
int plan_take(struct plan *p, struct source *s, struct sm_spill *raw, uint64_t base_size, struct sm_err *e);

extern const struct sm_have_ops plan_have_ops;	/* arg: struct plan */
void plan_resume(struct plan *p);

/*
 * plan_check_zeros() - after plan_resume(): are what the server says that it was sent as zeros zeros? -EPROTO: they are not, -errno. Reads what
 * is not known to be zeros without.
 */
int plan_check_zeros(const struct plan *p, struct source *s, struct sm_err *e);

/* plan_next() - the next part that is to be sent, at most @most bytes if it is to be read. false: that was all. */
bool plan_next(struct plan *p, uint64_t most, struct range *r);

#endif
