// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a repository's parts take on disk: allocated bytes, so that what garbage collection has given back inside
 * a pack does not count.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "upload_internal.h"

/* Sum of the files in a directory; one that is not there has none. */
static int sum_dir(const char *path, uint64_t *bytes, struct sm_err *e)
{
	DIR *d = opendir(path);
	struct dirent *de;
	struct stat st;

	if (!d)
		return errno == ENOENT ? 0 : sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	while ((de = readdir(d)))
		if (de->d_name[0] != '.' && !fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
			*bytes += (uint64_t)st.st_blocks * 512;
	closedir(d);
	return 0;
}

int sm_volume_usage(struct sm_repo *r, const char *vid, struct sm_usage *u, struct sm_err *e)
{
	char path[PATH_MAX];
	int err;

	memset(u, 0, sizeof(*u));
	snprintf(path, sizeof(path), "%.*s/objects/volumes/%s/packs", PATH_MAX - 128, r->path, vid);
	err = sum_dir(path, &u->packs, e);
	snprintf(path, sizeof(path), "%.*s/objects/volumes/%s/maps", PATH_MAX - 128, r->path, vid);
	if (!err)
		err = sum_dir(path, &u->maps, e);
	snprintf(path, sizeof(path), "%.*s/objects/volumes/%s/proofs", PATH_MAX - 128, r->path, vid);
	if (!err)
		err = sum_dir(path, &u->maps, e);
	snprintf(path, sizeof(path), "%.*s/objects/volumes/%s/manifests", PATH_MAX - 128, r->path, vid);
	return err ? err : sum_dir(path, &u->manifests, e);
}

int sm_staged(struct sm_repo *r, int (*fn)(const struct sm_staged *s, void *arg), void *arg, struct sm_err *e)
{
	char path[PATH_MAX];
	struct dirent *de;
	int err = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%.*s/uploads", PATH_MAX - 64, r->path);
	d = opendir(path);
	if (!d)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	while (!err && (de = readdir(d))) {
		struct sm_staged s = { .bytes = 0 };
		json_t *o;

		if (de->d_name[0] == '.')
			continue;
		snprintf(s.dir, sizeof(s.dir), "%.*s/uploads/%.64s", PATH_MAX - 128, r->path, de->d_name);
		o = upload_read_open(s.dir);
		if (o && !sm_gen_info_parse(json_object_get(o, "info"), &s.info, NULL) &&
		    !sm_json_text(o, "client", s.client, sizeof(s.client), NULL)) {
			sm_volume_id(s.client, s.info.volume, s.vid);
			err = sum_dir(s.dir, &s.bytes, e);
			if (!err)
				err = fn(&s, arg);
		}
		json_decref(o);
	}
	closedir(d);
	return err;
}

struct sum {
	const char *client;
	uint64_t bytes;
};

static int add_staged(const struct sm_staged *s, void *arg)
{
	struct sum *x = arg;

	if (!x->client || !strcmp(x->client, s->client))
		x->bytes += s->bytes;
	return 0;
}

int sm_repo_usage(struct sm_repo *r, const char *client, uint64_t *bytes, struct sm_err *e)
{
	struct sum x = { .client = client };
	char (*vids)[SM_VID_TEXT];
	size_t nr;
	int err = sm_repo_volumes(r, client, &vids, &nr, e);

	if (err)
		return err;
	for (size_t i = 0; !err && i < nr; i++) {
		struct sm_usage u;

		err = sm_volume_usage(r, vids[i], &u, e);
		x.bytes += u.packs + u.maps + u.manifests;
	}
	free(vids);
	if (!err)
		err = sm_staged(r, add_staged, &x, e);
	*bytes = x.bytes;
	return err;
}

int sm_upload_limit(struct sm_upload *u, uint64_t quota, struct sm_err *e)
{
	uint64_t used;
	int err = sm_repo_usage(u->repo, u->client, &used, e);

	if (err)
		return err;
	if (used >= quota)
		return sm_fail(e, -EDQUOT, "the client's quota of %llu bytes is used up", (unsigned long long)quota);
	u->limit = u->stored + (quota - used);
	return 0;
}
