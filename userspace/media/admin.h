/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Orders: what an operator or auditor has done with a repository, the same on its machine and over the network. An order is a JSON object,
 * the answer rows of JSON objects.
 *
 * Members of an order: "verb"; "client", "volume" (name or uuid) choose volumes, null or absent: all.
 *
 *	list			a row a generation
 *	show			"generation": its manifest and map
 *	du			a row a volume: what it takes, when it was verified
 *	verify, fsck		"sample" (of 100000; verify only); a row a volume, and rows with "problem"
 *	prune			"keep-last" ... (numbers), "apply" (or only say), "gc" (collect afterwards); a row a generation
 *	gc			"apply"; a row a volume
 *	reindex			make the caches anew; a row a volume
 *	lock, unlock		"generation", "until" (ns; null: for ever)
 */
#ifndef SNAPMEDIA_ADMIN_H
#define SNAPMEDIA_ADMIN_H

#include "repo.h"

struct sm_secret;

struct sm_admin {
	int (*row)(json_t *row, void *arg);	/* takes it; not zero ends the order */
	void (*tick)(void *arg);		/* now and then during long work; may be NULL */
	void *arg;
	const struct sm_secret *key;		/* verify: open what is encrypted with it, too; NULL over a network: it is nobody's but ours */
};

/* sm_admin_roles() - the roles of which one is needed; 0: no such verb */
uint32_t sm_admin_roles(const char *verb);

/* sm_admin() - carry out an order. Roles are the caller's to check. -EINVAL on what it does not understand */
int sm_admin(struct sm_repo *r, const json_t *order, const struct sm_admin *a, struct sm_err *e);

#endif
