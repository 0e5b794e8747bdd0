/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeping and giving up: which generations stay, and what space comes back.
 *
 * Prune removes manifests: from then on the generations are not there. Garbage collection finds what the remaining manifests
 * do not need and returns its space. Between the two, and at any point inside of either, the repository is whole.
 */
#ifndef SNAPMEDIA_KEEP_H
#define SNAPMEDIA_KEEP_H

#include "repo.h"

/*
 * What to keep, with the meaning that Proxmox Backup Server documents: the rules are applied in this order; each goes from the newest
 * generation to the oldest and keeps the newest one of each of so many periods; generations that an earlier rule has kept
 * are not looked at again, and a period of which one was kept already does not count. Times are those of the server's
 * clock when it published the generation, in its time zone; order is that of publishing. 0: no such rule.
 */
enum sm_rule { SM_KEEP_LAST, SM_KEEP_HOURLY, SM_KEEP_DAILY, SM_KEEP_WEEKLY, SM_KEEP_MONTHLY, SM_KEEP_YEARLY, SM_NR_RULES };
extern const char *const sm_rule_names[SM_NR_RULES];	/* "keep-last" ... */

struct sm_policy {
	uint32_t keep[SM_NR_RULES];
};

enum sm_fate {
	SM_FATE_KEEP,		/* by a rule */
	SM_FATE_LOCKED,		/* by an operator; does not count for the rules */
	SM_FATE_BASE,		/* to go, but an upload under way builds on it */
	SM_FATE_READ,		/* to go, but somebody reads it */
	SM_FATE_REMOVE,		/* to go */
	SM_FATE_REMOVED,	/* gone */
};

struct sm_verdict {
	const struct sm_generation *g;
	enum sm_fate fate;
	enum sm_rule rule;	/* of SM_FATE_KEEP */
	uint64_t locked_until;	/* of SM_FATE_LOCKED */
	bool damaged;		/* as a verification found it: takes the place of no sound one */
};

/**
 * sm_prune_select() - apply the rules; changes nothing
 * @v: @nr generations, newest first by sequence; those that come as SM_FATE_LOCKED stay that, the others become KEEP or REMOVE
 *
 * What @damaged changes is only that more is kept: the sound ones that would be if the damaged were not there.
 */
void sm_prune_select(const struct sm_policy *p, struct sm_verdict *v, size_t nr);

/**
 * sm_prune() - apply a policy to a volume
 * @apply: or say only what would be
 * @fn: told about every generation, newest first; not zero ends the telling and is returned
 *
 * Return: 0, -EINVAL a policy that keeps nothing, -errno. Generations whose manifests are damaged are not touched. When it fails in the
 * middle, what was removed is removed, oldest first.
 */
int sm_prune(struct sm_repo *r, const char *vid, const struct sm_policy *p, bool apply,
	     int (*fn)(const struct sm_verdict *v, void *arg), void *arg, struct sm_err *e);

/* What became of a generation whose manifest could not be had. */
enum sm_lost {
	SM_LOST_DAMAGED,	/* it is not what its digest says: removed, or would be */
	SM_LOST_LOCKED,		/* by an operator: stays */
	SM_LOST_UNREADABLE,	/* the disk does not give it back, which may pass: stays */
	SM_LOST_NOT,		/* read now: stays */
};

/**
 * sm_prune_damaged() - give up the generations whose manifests are damaged
 * @fn: told about each that could not be had at first
 *
 * As long as they are there nothing is collected, in case that the manifest comes back from a replica.
 */
int sm_prune_damaged(struct sm_repo *r, const char *vid, bool apply, int (*fn)(uint32_t number, enum sm_lost how, void *arg), void *arg,
		     struct sm_err *e);

struct sm_gc {
	uint64_t packs, maps, records;	/* removed whole; records given back inside packs that stay */
	uint64_t bytes;			/* that this has freed, or would, by what is allocated */
};

/**
 * sm_gc() - return the space of a volume's packs, map segments and records that no generation needs
 *
 * Packs of a generation that is there stay as they are: its manifest's map hash is made of all of them. Of those of generations that are gone
 * the records are kept that other generations still read. Waits for the volume's lock. -EUCLEAN: a damaged manifest or
 * map, nothing is given up then.
 */
int sm_gc(struct sm_repo *r, const char *vid, bool dry_run, struct sm_gc *gc, struct sm_err *e);

/*
 * Files, one of a megabyte, without a purpose but one: when the disk is so full that nothing can be made any more, not even what
 * deleting needs (lock files), they go first. sm_ballast_use() does that when it must; sm_ballast_make() puts them
 * there when there is room.
 */
void sm_ballast_use(struct sm_repo *r);
void sm_ballast_make(struct sm_repo *r);

#endif
