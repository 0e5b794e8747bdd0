// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Notes of what was sent: STATE/manifests/VOLUME-UUID/N.manifest. Needed only for increments into streams, where
 * nobody can be asked for the parent's manifest.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup.h"

static void notes_path(const struct source *s, uint32_t number, char path[PATH_MAX], bool make)
{
	const char *state = getenv("SNAPDIFF_STATE_DIR");
	char uuid[SM_UUID_TEXT];

	if (!state || !*state)
		state = "/var/lib/snapdiff";
	sm_uuid_format(s->volume, uuid);
	if (make) {
		mkdir(state, 0755);
		snprintf(path, PATH_MAX, "%s/manifests", state);
		mkdir(path, 0700);
		snprintf(path, PATH_MAX, "%s/manifests/%s", state, uuid);
		mkdir(path, 0700);
	}
	snprintf(path, PATH_MAX, "%s/manifests/%s/%u.manifest", state, uuid, number);
}

int notes_save(const struct source *s, const char *manifest, struct sm_err *e)
{
	char path[PATH_MAX];

	notes_path(s, s->number, path, true);
	return sm_save_file(path, manifest, false, e);
}

int notes_load(const struct source *s, uint32_t number, const struct sm_secret *key, struct base *b, struct sm_err *e)
{
	char path[PATH_MAX], text[SM_MANIFEST_MAX];
	struct sm_manifest m;
	ssize_t n;
	int fd, err;

	notes_path(s, number, path, false);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return sm_fail(e, -ENOENT, "%s: nothing is noted of a backup of generation %u (%s)", s->name, number, path);
	n = sm_read_full(fd, text, sizeof(text));
	close(fd);
	if (n < 0)
		return sm_fail(e, n, "%s: %s", path, strerror(-n));
	err = sm_manifest_parse(text, n, &m, e);
	if (err)
		return err;
	for (size_t i = 0; i < s->nr_candidates; i++)
		if (s->candidates[i].number == number && !s->fixed_base &&
		    memcmp(s->candidates[i].uuid, m.info.uuid, SM_UUID))
			return sm_fail(e, -ESTALE, "%s: the generation %u that was sent was another one", s->name, number);
	if (!m.info.sealed != !key || (key && memcmp(m.info.seal_id, key->id, SM_SECRET_ID)))
		return sm_fail(e, -EACCES, "%s: generation %u was not sent encrypted as this is to be: not with this key, or not at all", s->name, number);
	b->number = number;
	b->size = m.info.size;
	sm_sha256(text, n, b->manifest);
	return 0;
}
