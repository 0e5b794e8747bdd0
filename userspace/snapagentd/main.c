// SPDX-License-Identifier: GPL-2.0-or-later
/* snapagentd: takes orders of management clients on a storage host, and runs its schedule. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agentd.h"
#include "cmd.h"
#include "confine.h"
#include "job.h"
#include "store.h"

/* Backups that run are told to stop; they can be taken up again. */
static void stop_jobs(struct sm_service *s)
{
	uint32_t *ids;
	size_t nr;

	if (job_numbers(&ids, &nr, NULL))
		return;
	for (size_t i = 0; i < nr; i++)
		if (!job_signal(ids[i], SIGTERM))
			sm_note(s, "interrupt job=%u", ids[i]);
	free(ids);
}

static const char help[] =
	"Takes orders of management clients (snapctl --host, snapbackup --host) over TLS 1.3. \"snapagentd init\" makes the agent's key and prints its\n"
	"pin; who a client is and what it may do is known by its key (snapagentd client add). Data of backups goes straight to\n"
	"the media servers that agent.conf(5) names. Backups outlive the connection that asked for them; when the agent stops\n"
	"they are interrupted, and can be picked up.";

static int run(int argc, char **argv);
static const struct snap_cmd cmd = {
	.args = "", .summary = "take orders of management clients (and: snapagentd init, client, run)", .help = help, .max_args = 0, .run = run,
};

static int serve(struct agent *a, const char *where, struct sm_err *e)
{
	char path[PATH_MAX];
	struct config c;
	int err = agent_config(&c, e);

	if (err)
		return err;
	config_free(&c);	/* read again for each session; a broken one is said at once */
	err = sm_server_key(a->dir, false, &a->key, e);
	if (err)
		return err == -ENOENT ? sm_fail(e, err, "%s/server.key: there is no key: snapagentd init makes it", a->dir) : err;
	/* Sessions cannot make what is missing above. */
	if ((err = sm_mkdir_durable(agent_path(path, "jobs"), e)))
		return err;
	err = sm_service_listen(&a->service, where, NULL, e);
	if (!err)
		sm_note(&a->service, "start landlock=%d seccomp=%d", sm_landlock(), sm_seccomp());
	if (!err)
		err = sm_service_run(&a->service, e);
	sm_key_free(a->key);
	return err;
}

static int run(int argc, char **argv)
{
	static struct agent a = {
		.service = { .program = "snapagentd", .port = SM_AGENT_PORT, .anywhere = true, .http = -1, .max_sessions = 32,
			     .strangers = true, .session = session, .stopping = stop_jobs },
	};
	const char *where = NULL;
	const struct snap_opt opts[] = {
		{ "listen", 'l', SNAP_OPT_STRING, "ADDRESS[:PORT][,...]", &where, "default port " SM_AGENT_PORT "; port 0 takes a free one; \"*\" is every address" },
		{ "max-sessions", 0, SNAP_OPT_U32, "N", &a.service.max_sessions, "at once (default 32)" },
		{ "foreground", 'f', SNAP_OPT_FLAG, NULL, &a.service.foreground, "do not become a daemon" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &a.service.quiet, "no log on stderr" },
		{ 0 }
	};
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (a.service.max_sessions > 4096)
		return snap_usage_error("--max-sessions: at most 4096");
	agent_path(a.dir, "agent");
	signal(SIGPIPE, SIG_IGN);
	return snap_report(serve(&a, where, &e), e.text);
}

int main(int argc, char **argv)
{
	static const struct snap_cmd *const verbs[] = { &cmd_init, &cmd_client, &cmd_run, NULL };
	static const struct snap_program prog = { "snapagentd", "The agent of a storage host; without a command it serves", verbs };

	if (argc > 1 && *argv[1] != '-')
		return snap_main(&prog, argc, argv);
	return snap_main_single("snapagentd", &cmd, argc, argv);
}
