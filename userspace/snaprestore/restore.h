/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPRESTORE_RESTORE_H
#define SNAPRESTORE_RESTORE_H

#include "cmd.h"
#include "dest.h"
#include "session.h"

/* ---- where to ---- */

enum target_kind { TARGET_FILE, TARGET_DEVICE, TARGET_STDOUT };

struct target {
	enum target_kind kind;
	const char *path;
	char part[PATH_MAX + 8];	/* a file's name until it is whole */
	int fd;
	bool force;
	bool diff;			/* in place: only what differs is written */
	uint64_t differed;		/* bytes, then */
	uint64_t dirty;			/* bytes written to a file or device */
	uint64_t size, written;		/* of the image; of stdout: what has gone out */
	uint64_t shift;			/* stdout: offset in the image less offset in the output */
};

/**
 * target_open() - refuses what must not be overwritten, before anything is written
 * @size: of the image
 *
 * With diff the target must be there: a file is changed in place.
 * -EBUSY a device that is mounted or held (it is opened exclusively); -ENOSPC one that is too small; -EEXIST a file, without force.
 */
int target_open(struct target *t, uint64_t size, struct sm_err *e);
/* target_write(), target_zero() - a range; on stdout they must ascend without gaps. Elsewhere from several threads at once, for different ranges. */
int target_write(struct target *t, uint64_t offset, const void *buf, size_t len, struct sm_err *e);
int target_zero(struct target *t, uint64_t offset, uint64_t length, struct sm_err *e);
/* target_resize() - the next stream of a chain has another size */
int target_resize(struct target *t, uint64_t size, struct sm_err *e);
/* target_finish() - durable and under its name */
int target_finish(struct target *t, struct sm_err *e);
/* target_abort() - a file disappears; a device has lost its old content already */
void target_abort(struct target *t);
/* target_signals() - SIGINT, SIGTERM, SIGHUP end the program, and the unfinished file with it */
void target_signals(void);

/* ---- from where ---- */

struct restore_options {
	struct sm_dest from;
	const char *from_text;
	const char *const *chain;	/* stream files, oldest first */
	size_t nr_chain;
	const char *volume;
	uint32_t gen;
	struct sm_extent *ranges;	/* only these parts; whole blocks, ascending; none: all */
	uint32_t nr_ranges;
	bool unproven;			/* do not compare the whole with the manifests */
	const uint8_t *manifest;	/* hash that it must have; NULL: any */
	const struct sm_secret *key;	/* NULL: none given */
	struct sm_opener opener;
	bool quiet, progress_json, json, stats;
	struct target target;
	/* what it was, for the receipt */
	struct sm_gen_info info;
	uint8_t hash[SM_DIGEST];
	bool proven;			/* the whole was compared with the manifests */
};

int restore_repo(struct restore_options *o, struct sm_err *e);		/* a directory */
int restore_server(struct restore_options *o, struct sm_err *e);
int restore_streams(struct restore_options *o, struct sm_err *e);

/* restore_receipt() - one line of JSON on stdout */
int restore_receipt(const struct restore_options *o, struct sm_err *e);

/* list_generations() - of a server, a directory or stream files */
int list_generations(const struct restore_options *o, struct sm_err *e);

extern const struct snap_cmd cmd_remote;	/* --host */

struct snap_progress;
struct snap_progress *restore_progress(const struct restore_options *o, uint64_t total);

#endif
