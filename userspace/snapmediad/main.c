// SPDX-License-Identifier: GPL-2.0-or-later
/* snapmediad: serves a repository. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "confine.h"
#include "daemon.h"

static void expire(struct sm_service *s)
{
	struct daemon *d = (struct daemon *)s;
	char text[SM_QUOTED];
	struct sm_err e;
	int n;

	if (sm_service_fork(s))		/* it waits for locks: nobody is to wait for it */
		return;
	n = sm_repo_expire_uploads(&d->repo, (uint64_t)d->expire_days * 86400, &e);
	if (n < 0)
		sm_note(s, "expire error=%s", sm_quoted(e.text, text));
	else if (n)
		sm_note(s, "expire uploads=%d", n);
	_exit(0);
}

static const char help[] =
	"Serves the repository REPO (default: $SNAPMEDIA_REPO, or /var/lib/snapmedia) to snapbackup, snaprestore and snapmedia.\n"
	"\"snapmediad init REPO\" makes it and the server's key, and prints the key's pin; then all is TLS 1.3, and who a client is\n"
	"and what it may do is known by its key (snapmedia client add). Without a server key nothing but loopback addresses is\n"
	"listened on, and all that comes this way is client \"" SM_CLIENT_DEFAULT "\".\n"
	"--stdio serves one session on stdin and stdout, as a forced command of ssh:\n"
	"  command=\"snapmediad --stdio --client NAME REPO\",restrict ssh-ed25519 ...\n"
	"The client's name comes from there, never from the network; each client sees its own volumes only.\n"
	"Started as root it becomes the user that the repository belongs to. What a session's process can do is confined to the\n"
	"repository: Landlock, seccomp.";

static int run(int argc, char **argv);
static const struct snap_cmd cmd = {
	.args = "[REPO]", .summary = "serve a media repository", .help = help, .max_args = 1, .run = run,
};

/* From here on nobody is root, and a session's process will find the directories that it may write in. */
static int open_repo(struct daemon *d, const char *path, const char *user, struct sm_err *e)
{
	int err = sm_become(user, path, e);

	if (!err)
		err = sm_repo_open(path, &d->repo, e);
	if (!err)
		sm_repo_make_dirs(d->repo.path, NULL);	/* a full disk: what is there must do */
	return err;
}

static int serve(struct daemon *d, const char *path, const char *user, bool use_stdio, const char *where, const char *http)
{
	struct sm_err e = { 0 };
	int rc = -1, err = open_repo(d, path, user, &e);

	if (!err && use_stdio) {
		rc = sm_service_stdio(&d->service);
	} else if (!err) {
		err = sm_server_key(d->repo.path, false, &d->key, &e);
		err = err == -ENOENT ? 0 : err;
		d->service.anywhere = d->key;
		if (!err)
			err = sm_service_listen(&d->service, where, http, &e);
		if (!err)
			sm_note(&d->service, "start user=%u landlock=%d seccomp=%d", (unsigned int)geteuid(), sm_landlock(), sm_seccomp());
		if (!err)
			err = sm_service_run(&d->service, &e);
	}
	sm_key_free(d->key);
	sm_repo_close(&d->repo);
	return rc >= 0 ? rc : snap_report(err, e.text);
}

static int run(int argc, char **argv)
{
	static struct daemon d = {
		.service = { .program = "snapmediad", .port = SM_DEFAULT_PORT, .http_port = "7421", .http = -1, .max_sessions = 64, .strangers = true,
			     .session = session, .http_answer = http_answer, .hourly = expire },
		.expire_days = 14,
	};
	const char *where = NULL, *http = NULL, *client = SM_CLIENT_DEFAULT, *roles = "backup,restore", *user = NULL, *path;
	bool use_stdio = false;
	const struct snap_opt opts[] = {
		{ "listen", 'l', SNAP_OPT_STRING, "ADDRESS[:PORT][,...]", &where, "default port " SM_DEFAULT_PORT "; port 0 takes a free one; \"*\" is every address" },
		{ "http", 0, SNAP_OPT_STRING, "ADDRESS[:PORT]", &http, "status page and /metrics, loopback only (default port 7421)" },
		{ "stdio", 0, SNAP_OPT_FLAG, NULL, &use_stdio, "one session on stdin and stdout" },
		{ "client", 'c', SNAP_OPT_STRING, "NAME", &client, "who the peer is (default " SM_CLIENT_DEFAULT ")" },
		{ "role", 0, SNAP_OPT_STRING, "ROLE[,ROLE]", &roles, "what it may do: backup, restore, operator, auditor (default backup,restore)" },
		{ "max-sessions", 0, SNAP_OPT_U32, "N", &d.service.max_sessions, "at once (default 64)" },
		{ "user", 'u', SNAP_OPT_STRING, "NAME", &user, "started as root: who to become (default: who the repository belongs to)" },
		{ "expire", 0, SNAP_OPT_U32, "DAYS", &d.expire_days, "remove abandoned uploads (default 14)" },
		{ "foreground", 'f', SNAP_OPT_FLAG, NULL, &d.service.foreground, "do not become a daemon" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &d.service.quiet, "no log on stderr" },
		{ 0 }
	};
	int rc = snap_opts(&cmd, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (!sm_client_valid(client) || sm_roles_parse(roles, &d.id.roles))
		return snap_usage_error("--client: letters, digits, dot, dash; --role: backup, restore, operator, auditor");
	if (d.service.max_sessions > 4096)
		return snap_usage_error("--max-sessions: at most 4096");
	snprintf(d.id.client, sizeof(d.id.client), "%s", client);
	path = argc ? argv[0] : getenv("SNAPMEDIA_REPO");
	signal(SIGPIPE, SIG_IGN);
	return serve(&d, path && *path ? path : "/var/lib/snapmedia", user, use_stdio, where, http);
}

int main(int argc, char **argv)
{
	static const struct snap_cmd *const verbs[] = { &cmd_init, NULL };
	static const struct snap_program prog = { "snapmediad", "serve a media repository", verbs };

	if (argc > 1 && !strcmp(argv[1], "init"))
		return snap_main(&prog, argc, argv);
	return snap_main_single("snapmediad", &cmd, argc, argv);
}
