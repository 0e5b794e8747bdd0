/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An upload's inside, shared by repo_upload.c (staging) and repo_commit.c (publishing). */
#ifndef SNAPMEDIA_UPLOAD_INTERNAL_H
#define SNAPMEDIA_UPLOAD_INTERNAL_H

#include "index.h"
#include "pack.h"
#include "repo.h"

struct upload_leaf {
	uint64_t first;
	uint8_t digest[SM_DIGEST];
	uint32_t pack, record;
};

struct sm_upload {
	struct sm_repo *repo;
	char client[SM_CLIENT_MAX], vid[SM_VID_TEXT];
	char dir[PATH_MAX];
	uint8_t id[SM_UUID];		/* random, of this upload */
	int lock;
	bool overlap;			/* a block came twice: seen by the commit */
	bool dead;			/* useless and removed: only closing is left */
	struct sm_gen_info info;
	struct sm_generation parent;	/* when info.has_parent */
	struct sm_pack_writer *packs;	/* sealed ones have no descriptor and no index any more */
	uint32_t nr_packs;
	struct sm_spill entries;	/* struct sm_entry, pack = number of the pack in this upload */
	struct sm_spill leaves;		/* struct upload_leaf */
	uint64_t data_bytes, zero_bytes, stored;
	uint64_t limit;			/* of @stored, from the client's quota; 0: none */
	uint8_t *raw;			/* SM_MAX_RAW */
};

/* upload_path() - a name in the staging directory */
void upload_path(const struct sm_upload *u, char path[PATH_MAX], const char *name);
/*
 * upload_kill() - what is staged can never become the generation that was announced: remove it, so that the client's next try
 * begins anew
 */
void upload_kill(struct sm_upload *u);
/* upload_remove() - remove the staging directory and all in it */
int upload_remove(const char *dir, struct sm_err *e);
/* upload_read_open() - open.json of a staging directory, or NULL */
json_t *upload_read_open(const char *dir);
/* upload_store_proof() - after the comparison with the manifest, which sorts: store what a later restore is proven by (repo_proof.c) */
int upload_store_proof(struct sm_upload *u, const char *manifest, const uint8_t hash[SM_DIGEST], struct sm_err *e);
/* repo_sweep_proofs() - @drop the key of each proof that none of the generations @g descends from */
int repo_sweep_proofs(struct sm_repo *r, const char *vid, const struct sm_generations *g, int (*drop)(void *arg, const char *key), void *arg,
		      struct sm_err *e);
/* repo_verify_proofs() - are all that @g needs there, and do they say what their manifests say? @wrong: what is not */
int repo_verify_proofs(struct sm_repo *r, const char *vid, const struct sm_generations *g, void (*wrong)(void *arg, const char *what), void *arg,
		       struct sm_err *e);
int upload_seal_last(struct sm_upload *u, struct sm_err *e);
/* upload_check_new() - may the generation be published on this list? As sm_upload_open(); @parent: index or -1 */
int upload_check_new(const struct sm_gen_info *info, const struct sm_briefs *g, ssize_t *parent,
		     struct sm_receipt *receipt, struct sm_err *e);
/* upload_load_parent() - the parent itself, from its manifest: what the index says of it was only where to look */
int upload_load_parent(struct sm_upload *u, const struct sm_brief *b, struct sm_err *e);
/* lock_file() - descriptor of the held lock, or -errno; -EBUSY with LOCK_NB. @how: as of flock() */
int lock_file(const char *path, int how, struct sm_err *e);
/* volume_lock() - descriptor of the held lock, or -errno */
int volume_lock(struct sm_repo *r, const char *vid, struct sm_err *e);
/*
 * generation_lock() - a descriptor of the lock that readers share and who deletes has alone; -EBUSY at once when the other
 * kind has it, -errno. generation_unlock_gone(): release one that was had alone, and remove it, because the generation is gone.
 */
int generation_lock(struct sm_repo *r, const char *vid, uint32_t number, bool alone, struct sm_err *e);
void generation_unlock_gone(struct sm_repo *r, const char *vid, uint32_t number, int lock);

#endif
