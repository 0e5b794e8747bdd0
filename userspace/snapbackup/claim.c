// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a backup has pinned and activated is noted in a file of /run/snapdiff that is locked for as long as the backup lives. A file that nobody has locked is of one
 * that was killed: the next backup takes back what it left.
 *
 *	snapbackup-GENERATION-UUID: "VOLUME N PINNED ACTIVATED"
 *
 * Written before the generation is pinned. The lock is on the open file: it goes with the process, however that ends.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "claim.h"

#define PREFIX	"snapbackup-"

static const char *run_dir(void)
{
	const char *dir = getenv("SNAPDIFF_RUN_DIR");

	return dir && *dir ? dir : "/run/snapdiff";
}

/* Is this the file of that name still, and ours alone? */
static bool lock(int fd)
{
	struct stat st;

	return !flock(fd, LOCK_EX | LOCK_NB) && !fstat(fd, &st) && st.st_nlink;
}

static void take_back(struct snap_nl *nl, int dir, int fd, const char *file)
{
	char text[SNAP_VOLUME_BUF + 64], name[SNAP_VOLUME_BUF], uuid[SM_UUID_TEXT];
	unsigned int number, pinned, activated;
	struct snap_gen g;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%127s %u %u %u", name, &number, &pinned, &activated) == 4 && !snap_nl_gen(nl, name, number, &g, NULL)) {
		sm_uuid_format(g.uuid, uuid);
		if (!strcmp(file + strlen(PREFIX), uuid)) {
			snap_warn(name, "generation %u was left behind by a backup that was killed: taken back", number);
			if (activated)
				snap_nl_deactivate(nl, name, number, NULL);
			if (pinned)
				snap_nl_pin(nl, name, number, false, NULL);
		}
	}
	unlinkat(dir, file, 0);
}

void claim_sweep(struct snap_nl *nl)
{
	DIR *d = opendir(run_dir());
	struct dirent *de;

	while (d && (de = readdir(d))) {
		int fd;

		if (strncmp(de->d_name, PREFIX, strlen(PREFIX)))
			continue;
		fd = openat(dirfd(d), de->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			continue;
		if (lock(fd))
			take_back(nl, dirfd(d), fd, de->d_name);
		close(fd);
	}
	if (d)
		closedir(d);
}

static void claim_path(const uint8_t *uuid, char *path, size_t len)
{
	char text[SM_UUID_TEXT];

	sm_uuid_format(uuid, text);
	snprintf(path, len, "%s/" PREFIX "%s", run_dir(), text);
}

int claim_take(const char *volume, uint32_t number, const uint8_t *uuid, bool pinned, bool activated, struct sm_err *e)
{
	char path[512];
	int fd, n;

	if (mkdir(run_dir(), 0700) && errno != EEXIST)
		return sm_fail(e, -errno, "%s: %s", run_dir(), strerror(errno));
	claim_path(uuid, path, sizeof(path));
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	if (!lock(fd)) {
		close(fd);
		return sm_fail(e, -EBUSY, "%s@%u: is being backed up already", volume, number);
	}
	n = dprintf(fd, "%s %u %u %u\n", volume, number, pinned, activated);
	if (n < 0) {
		n = errno;
		unlink(path);
		close(fd);
		return sm_fail(e, -n, "%s: %s", path, strerror(n));
	}
	return fd;
}

void claim_drop(int fd, const uint8_t *uuid)
{
	char path[512];

	claim_path(uuid, path, sizeof(path));
	unlink(path);
	close(fd);
}
