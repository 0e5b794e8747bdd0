// SPDX-License-Identifier: GPL-2.0-or-later
/* init: a repository and the server's key; its pin on stdout. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "confine.h"
#include "daemon.h"

/* Made by root for another user: the directory first, the rest as that user. */
static int make_for(const char *user, const char *path, struct sm_err *e)
{
	const struct passwd *p = getpwnam(user);

	if (!p)
		return sm_fail(e, -ENOENT, "%s: no such user", user);
	if (!mkdir(path, 0700)) {
		if (chown(path, p->pw_uid, p->pw_gid))
			return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	} else if (errno != EEXIST) {
		return sm_fail(e, -errno, "%s: cannot make directory: %s", path, strerror(errno));
	}
	return sm_become(user, path, e);
}

static int init(const char *path, struct sm_err *e)
{
	uint8_t pin[SM_DIGEST];
	char text[SM_PIN_TEXT];
	struct sm_repo r;
	struct sm_key *k;
	int err;

	if (sm_repo_open(path, &r, e) && ((err = sm_repo_init(path, e)) || (err = sm_repo_open(path, &r, e))))
		return err;
	err = sm_server_key(r.path, true, &k, e);
	if (!err) {
		sm_key_pin(k, pin);
		sm_pin_format(pin, text);
		printf("%s\n", text);
		sm_key_free(k);
	}
	sm_repo_close(&r);
	return err;
}

static const char help[] =
	"Makes the repository, unless there is one, and a key for the server, unless there is one. Prints the key's pin, which\n"
	"clients need: snapbackup enroll HOST --pin PIN. From then on the repository is served by TLS only.";

static int run(int argc, char **argv)
{
	const char *user = NULL;
	const struct snap_opt opts[] = {
		{ "user", 'u', SNAP_OPT_STRING, "NAME", &user, "who is to serve it; needs root" }, { 0 }
	};
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd_init, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	err = user ? make_for(user, argv[0], &e) : 0;
	if (!err)
		err = init(argv[0], &e);
	return snap_report(err, e.text);
}

const struct snap_cmd cmd_init = {
	.name = "init", .args = "REPO", .summary = "make a repository and the server's key; print its pin",
	.help = help, .min_args = 1, .max_args = 1, .run = run,
};
