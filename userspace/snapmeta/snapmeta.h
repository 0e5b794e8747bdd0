/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verbs of snapmeta: differential volumes offline, with the core that the kernel runs. */
#ifndef SNAPMETA_H
#define SNAPMETA_H

#include "cmd.h"
#include "error.h"
#include "filedev.h"
#include "internal.h"

extern const struct snap_cmd cmd_check;
extern const struct snap_cmd cmd_dump;
extern const struct snap_cmd cmd_copy_generation;
extern const struct snap_cmd cmd_repair;
extern const struct snap_cmd cmd_restore;

/* Exit status of verbs that check and mend, as fsck's; 1 and 4 can come together. */
#define FSCK_OK			0
#define FSCK_CORRECTED		1
#define FSCK_ERRORS		4	/* left as they are */
#define FSCK_OPERATIONAL	8
#define FSCK_USAGE		16

struct meta {
	struct filedev file;
	struct sd_store *store;
	const char *path;
	u64 complaints;
};

/**
 * meta_open() - open the store on @path read-only; the journal is replayed in memory
 * Damage is said on stderr, a line each, as it is found. Return: 0 or -errno with @e filled.
 */
int meta_open(struct meta *m, const char *path, struct snap_err *e);
void meta_close(struct meta *m);

#endif
