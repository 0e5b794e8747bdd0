/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of a volume's generations is needed to publish the next one, without reading a thousand manifests: a cache.
 *
 * REPO/cache/VID.index has an entry for each manifest, with the file's stamp (inode, size, time of change): an entry whose stamp is
 * not that of the file there is not used. What is missing is read from the manifest itself. So the cache may be deleted, torn, or of another
 * time: it is then made anew, and never wrong.
 */
#ifndef SNAPMEDIA_INDEX_H
#define SNAPMEDIA_INDEX_H

#include "repo.h"

struct sm_brief {
	uint32_t number;
	uint8_t uuid[SM_UUID];		/* of the generation */
	uint8_t hash[SM_DIGEST];	/* of the manifest */
	uint64_t sequence, received, stored_bytes;
};

struct sm_briefs {
	struct sm_brief *v;		/* ascending number */
	size_t nr;
	size_t read;			/* manifests that had to be read */
	struct sm_numbers damaged;	/* those that had to be and could not */
};

/* sm_briefs_load() - the cache is brought up to date when it can be written. Return: 0, -errno. */
int sm_briefs_load(struct sm_repo *r, const char *vid, struct sm_briefs *b, struct sm_err *e);
void sm_briefs_free(struct sm_briefs *b);
/* sm_briefs_forget() - take one out of the list */
void sm_briefs_forget(struct sm_briefs *b, const struct sm_brief *x);
/* sm_briefs_newest() - by sequence; NULL when there is none */
const struct sm_brief *sm_briefs_newest(const struct sm_briefs *b);
/* sm_briefs_drop() - delete the cache of a volume */
void sm_briefs_drop(struct sm_repo *r, const char *vid);

#endif
