/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPBACKUP_BACKUP_H
#define SNAPBACKUP_BACKUP_H

#include "dest.h"
#include "seal.h"
#include "sink.h"
#include "source.h"

extern const struct snap_cmd cmd_enroll;
extern const struct snap_cmd cmd_keygen;
extern const struct snap_cmd cmd_remote;	/* with --host */

enum base_mode { BASE_AUTO, BASE_NONE, BASE_NUMBER };

struct backup_options {
	struct source *source;
	struct sm_dest dest;
	const char *dest_text;
	enum base_mode base_mode;
	uint32_t base;
	enum backup_format format;
	int level;
	bool compare;			/* find what changed by comparing, whatever is known */
	const struct sm_secret *key;	/* encrypt with it; or NULL */
	uint32_t audit;			/* of AUDIT_ALL: share of what is unchanged that is compared; 0: none */
	uint64_t rate;			/* bytes a second; 0: no limit */
	bool measure;			/* with dry_run: read all that would be sent, and count */
	bool dry_run, quiet, progress_json, json, keep_bookmark, force;
	const volatile int *stop;
};

/*
 * backup_run() - all of a backup, up to the receipt line. Return: 0 or -errno with the reason in @e;
 * BACKUP_AUDIT: what was said to be unchanged is not.
 */
#define BACKUP_AUDIT	(-ENOTRECOVERABLE)
int backup_run(const struct backup_options *o, struct sm_err *e);

/*
 * The base that was chosen. number 0: none, a full backup, and why. With compare nobody here knows what changed since then, or it is not
 * certain: the media server's digests tell.
 */
struct base {
	uint32_t number;
	bool compare;
	uint64_t size;
	uint8_t uuid[SM_UUID];		/* zeros: not known */
	uint8_t manifest[SM_DIGEST];
	char reason[256];
};

/*
 * base_choose() - the newest generation that both sides know
 * @c: connected, or oneway: then only our own notes say what was sent
 * @older_than: in auto mode only bases with a smaller number
 */
int base_choose(const struct backup_options *o, struct sm_client *c, uint32_t older_than, struct base *b, struct sm_err *e);

/* notes_*() - the manifests of what was sent from here: $SNAPDIFF_STATE_DIR or /var/lib/snapdiff */
int notes_save(const struct source *s, const char *manifest, struct sm_err *e);
/* @key: that it must be encrypted with; NULL: not at all */
int notes_load(const struct source *s, uint32_t number, const struct sm_secret *key, struct base *b, struct sm_err *e);

#endif
