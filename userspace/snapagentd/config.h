/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agent.conf: where backups may go, and what is cut, sent and kept, for each volume. The format: agent.conf(5).
 */
#ifndef SNAPAGENTD_CONFIG_H
#define SNAPAGENTD_CONFIG_H

#include <limits.h>

#include "keep.h"
#include "name.h"
#include "util.h"

#define CONFIG_MAX	(256u << 10)
#define MAX_DESTS	32
#define MAX_SHIPS	8
#define DEST_NAME	64
#define DEST_ADDRESS	512
#define MAX_TARGETS	32

struct config_dest {
	char name[DEST_NAME];
	char address[DEST_ADDRESS];	/* HOST[:PORT], ssh://... or an absolute path */
	int level;			/* zstd; -1: snapbackup's own */
	uint64_t rate;			/* bytes a second; 0: as fast as it goes */
	char key[PATH_MAX];		/* file of the key to encrypt with; "": none */
};

struct config_ship {
	uint32_t dest;			/* index */
	uint64_t every;			/* ns; 0: each generation */
};

struct config_volume {
	char name[SNAP_VOLUME_BUF];
	uint64_t cut;			/* ns; 0: the schedule cuts nothing */
	char label[SNAP_LABEL_BUF];	/* of the generations that are the schedule's */
	int freeze;			/* enum snap_freeze */
	struct config_ship ship[MAX_SHIPS];
	uint32_t nr_ships;
	bool has_keep;			/* without: everything is kept */
	struct sm_policy keep;
	bool bookmark;			/* what has been sent and is not kept stays as a bookmark where it is a base */
	uint32_t room;			/* percent of the diff that must be free for a generation to wait for its second destination */
};

/* What a manager may have overwritten. */
struct config_target {
	char path[DEST_ADDRESS];	/* absolute, without "." and ".." */
	bool directory;			/* any file in it, not it */
};

struct config {
	struct config_dest dest[MAX_DESTS];
	uint32_t nr_dests;
	struct config_volume *volume;
	uint32_t nr_volumes;
	struct config_target target[MAX_TARGETS];
	uint32_t nr_targets;
	uint32_t max_jobs;
	bool any_destination;		/* a manager may name addresses that are not listed */
};

/**
 * config_parse() - all of a text
 * @name: for messages, "NAME:LINE: what"
 *
 * Return: 0, -EINVAL, -ENOMEM. After an error there is nothing to free.
 */
int config_parse(const char *text, size_t len, const char *name, struct config *c, struct sm_err *e);
void config_free(struct config *c);

/* config_find_dest() - by name; NULL */
const struct config_dest *config_find_dest(const struct config *c, const char *name);
/* config_may_restore() - does a manager's path name a target, exactly, or a file directly in a directory? The one that allows it; NULL */
const struct config_target *config_may_restore(const struct config *c, const char *path);
/* config_check_address() - is it one that a backup can go to: a host, ssh or an absolute path? 0 or -EINVAL */
int config_check_address(const char *address, bool path_too, struct sm_err *e);
/* config_exact_address() - one that nothing but an address can be meant by: HOST may also be the name of a file where the backup is started */
void config_exact_address(const char *address, char exact[DEST_ADDRESS + 16]);

#endif
