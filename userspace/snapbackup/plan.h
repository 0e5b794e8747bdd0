/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of what has to be sent, and of what the server has of it already.
 */
#ifndef SNAPBACKUP_PLAN_H
#define SNAPBACKUP_PLAN_H

#include "extent.h"
#include "repo.h"
#include "source.h"

/* A frame that the server has. */
struct have_leaf {
	uint64_t first;
	uint8_t digest[SM_DIGEST];	/* the leaf */
	uint8_t bytes[SM_DIGEST];	/* of its bytes, as its head says */
	uint64_t at;			/* its extents, in have_data_x */
	uint32_t nr;
	bool sealed;
};

struct plan {
	struct sm_spill ranges;		/* struct range: sorted, disjoint, inside the size */
	uint64_t extents, bytes;
	uint8_t digest[SM_DIGEST];
	/* from a resumed upload; sorted by plan_resume() */
	struct sm_spill have;		/* struct sm_extent: data and zeros */
	struct sm_spill have_leaves;	/* struct have_leaf */
	struct sm_spill have_data_x;	/* struct sm_extent of the frames, as they came: not sorted */
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

/**
 * plan_check_have() - after plan_resume(): is what the server says that it was sent what would be sent?
 * @sealed: the backup is encrypted
 *
 * Blocks of the plan, none twice; zeros are zeros, and the source has the digests that frames have. It reads all of that, but what is known
 * to be zeros without. Of an encrypted frame the digest is of other bytes: whose it is a restore sees (proof.c). -EPROTO: it is not, -errno.
 */
int plan_check_have(const struct plan *p, struct source *s, bool sealed, struct sm_err *e);

/* plan_next() - the next part that is to be sent, at most @most bytes if it is to be read. false: that was all. */
bool plan_next(struct plan *p, uint64_t most, struct range *r);

#endif
