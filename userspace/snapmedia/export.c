// SPDX-License-Identifier: GPL-2.0-or-later
/* export: a generation as a read-only NBD disk, by nbdkit and our plugin for it. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "name.h"
#include "repo.h"
#include "verbs.h"

#define PLUGIN	"nbdkit-snapmedia-plugin.so"

struct arguments {
	const char *repo, *volume, *client, *socket, *run, *port, *key;
	uint32_t gen;
};

/* Beside the program as it is built, or as it is installed. */
static int find_plugin(char path[PATH_MAX], struct sm_err *e)
{
	static const char *const places[] = { "../" PLUGIN, "../lib/snapdiff/" PLUGIN };
	const char *env = getenv("SNAPMEDIA_NBDKIT_PLUGIN");
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (env && *env) {
		snprintf(path, PATH_MAX, "%s", env);
		return access(path, R_OK) ? sm_fail(e, -errno, "%s: %s", path, strerror(errno)) : 0;
	}
	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX - 64, self, places[i]);
		if (!access(path, R_OK))
			return 0;
	}
	return sm_fail(e, -ENOENT, PLUGIN ": not found (SNAPMEDIA_NBDKIT_PLUGIN says where it is)");
}

static int start(const struct arguments *a, struct sm_err *e)
{
	char plugin[PATH_MAX], repo[PATH_MAX + 8], volume[300], gen[32], client[100], key[PATH_MAX + 8], socket[PATH_MAX + 16], run[4096], port[32];
	const char *argv[16];
	int n = 0, err = find_plugin(plugin, e);

	if (err)
		return err;
	snprintf(repo, sizeof(repo), "repo=%s", a->repo);
	snprintf(gen, sizeof(gen), "gen=%u", a->gen);
	argv[n++] = "nbdkit";
	argv[n++] = "--foreground";
	argv[n++] = "--readonly";
	if (a->run) {
		snprintf(run, sizeof(run), "--run=%s", a->run);
		argv[n++] = "--unix=-";
		argv[n++] = run;
	} else if (a->socket) {
		snprintf(socket, sizeof(socket), "--unix=%s", a->socket);
		argv[n++] = socket;
	} else {
		snprintf(port, sizeof(port), "--port=%s", a->port);
		argv[n++] = "--ipaddr=127.0.0.1";
		argv[n++] = port;
	}
	argv[n++] = plugin;
	argv[n++] = repo;
	argv[n++] = gen;
	if (a->volume) {
		snprintf(volume, sizeof(volume), "volume=%s", a->volume);
		argv[n++] = volume;
	}
	if (a->client) {
		snprintf(client, sizeof(client), "client=%s", a->client);
		argv[n++] = client;
	}
	if (a->key) {
		snprintf(key, sizeof(key), "key=%s", a->key);
		argv[n++] = key;
	}
	argv[n] = NULL;
	execvp(argv[0], (char **)argv);
	return sm_fail(e, -errno, "nbdkit: %s", strerror(errno));
}

/* VOLUME@N, or @N when there is only one. */
static int parse_what(const char *text, struct arguments *a, char volume[256])
{
	const char *at = strrchr(text, '@');
	struct snap_err se;

	if (!at || at - text >= 256 || snap_parse_u32(at + 1, 1, UINT32_MAX - 1, &a->gen, &se))
		return -EINVAL;
	snprintf(volume, 256, "%.*s", (int)(at - text), text);
	a->volume = *volume ? volume : NULL;
	return 0;
}

static const char help[] =
	"Serves generation N until it is stopped: for nbdcopy, qemu-img, nbd-client, a loop mount. Nothing is copied first; what is read is\n"
	"checked then. The generation is not pruned meanwhile. Needs nbdkit. On TCP everybody on this machine can read it.";

static int run(int argc, char **argv)
{
	struct arguments a = { .port = "10809" };
	const struct snap_opt opts[] = {
		{ "unix", 'U', SNAP_OPT_STRING, "SOCKET", &a.socket, "on a Unix socket, instead of TCP on 127.0.0.1" },
		{ "port", 'p', SNAP_OPT_STRING, "PORT", &a.port, "TCP port (default 10809)" },
		{ "run", 'r', SNAP_OPT_STRING, "COMMAND", &a.run, "run this with $uri in its environment, and end with it" },
		{ "client", 'c', SNAP_OPT_STRING, "NAME", &a.client, "whose volume" },
		{ "key", 'k', SNAP_OPT_STRING, "KEYFILE", &a.key, "what it is encrypted with" }, { 0 }
	};
	struct sm_err e = { 0 };
	char volume[256];
	int rc = snap_opts(&cmd_export, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (parse_what(argv[argc - 1], &a, volume))
		return snap_usage_error("export: VOLUME@N, or @N");
	a.repo = repo_default(argc > 1 ? argv[0] : NULL);
	return snap_report(start(&a, &e), e.text);
}

const struct snap_cmd cmd_export = {
	.name = "export", .args = "[REPO] VOLUME@N", .summary = "a generation as a read-only NBD disk", .help = help,
	.min_args = 1, .max_args = 2, .run = run,
};
