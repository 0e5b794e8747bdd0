// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --host: backups that the agent of a storage host runs. Only orders and progress pass through here; the data goes from there to the
 * media server. What is asked for is a job, which does not end with this program:
 *
 *	--gen N --dest DEST	ask for one, follow it		--detach	do not follow
 *	--job ID		pick one up: follow it; if nobody runs it, have it started again
 *	--cancel ID		--jobs		--dests
 */
#include <string.h>

#include "agent_job.h"
#include "backup.h"
#include "cmd.h"
#include "name.h"

struct remote {
	struct sm_job_view v;
	const char *dest, *base, *keep, *volume;
	uint32_t gen, level, cancel;
	bool jobs, dests;
};

static int begin(struct remote *r)
{
	json_t *o = sm_job_order("backup");

	if (r->volume)
		json_object_set_new(o, "volume", json_string(r->volume));
	json_object_set_new(o, "generation", json_integer(r->gen));
	json_object_set_new(o, "dest", json_string(r->dest));
	if (r->base)
		json_object_set_new(o, "base", json_string(r->base));
	if (r->level != UINT32_MAX)
		json_object_set_new(o, "compress", json_integer(r->level));
	json_object_set_new(o, "keep_bookmark", json_boolean(r->keep != NULL));
	return sm_job_begin(&r->v, o);
}

/* ---- options ---- */

static const char help[] =
	"Has the agent of storage host HOST (default port " SM_AGENT_PORT ") back up generation N of its volume NAME to the media server DEST, a name\n"
	"or address in its agent.conf (--dests lists them), shows its progress and ends with the media server's receipt. Interrupted or\n"
	"cut off, the backup goes on there as job ID: --job ID picks it up. \"snapbackup enroll --agent HOST\" comes first.";

static int run(int argc, char **argv);
const struct snap_cmd cmd_remote = {
	.args = "--host HOST [NAME] --gen N --dest DEST | --job ID | --cancel ID | --jobs | --dests",
	.summary = "backups by the agent of a storage host", .help = help, .max_args = 1, .run = run,
};

static int check(const struct remote *r, int argc)
{
	int what = (r->gen || r->dest) + (r->v.job != 0) + (r->cancel != 0) + r->jobs + r->dests;
	struct snap_err se;

	if (what != 1)
		return snap_usage_error("--host: one of --gen N --dest DEST, --job ID, --cancel ID, --jobs, --dests");
	if ((r->gen != 0) != (r->dest != NULL))
		return snap_usage_error("--gen and --dest go together");
	if (argc && !r->gen)
		return snap_usage_error("a volume belongs to --gen and --dest only");
	if (r->keep && strcmp(r->keep, "bookmark"))
		return snap_usage_error("--keep: only \"bookmark\"");
	if (r->level != UINT32_MAX && r->level > 19)
		return snap_usage_error("--compress: 0 to 19");
	if (argc && snap_check_volume_name(r->volume, &se))
		return snap_err_report(&se);
	return SNAP_OPTS_GO;
}

static int run(int argc, char **argv)
{
	struct remote r = { .level = UINT32_MAX };
	const struct snap_opt opts[] = {
		{ "host", 'H', SNAP_OPT_STRING, "HOST[:PORT]", &r.v.host, "the storage host" },
		{ "gen", 'g', SNAP_OPT_U32, "N", &r.gen, "generation to send" },
		{ "dest", 'd', SNAP_OPT_STRING, "DEST", &r.dest, "where to, a name or address of that host's agent.conf" },
		{ "base", 'b', SNAP_OPT_STRING, "M|auto|none", &r.base, "send what differs from generation M (default auto)" },
		{ "compress", 'z', SNAP_OPT_U32, "LEVEL", &r.level, "zstd level, 0 for none (default: the destination's)" },
		{ "keep", 0, SNAP_OPT_STRING, "bookmark", &r.keep, "afterwards turn the generation into a bookmark" },
		{ "detach", 0, SNAP_OPT_FLAG, NULL, &r.v.detach, "print the job's number and leave it" },
		{ "job", 'j', SNAP_OPT_U32, "ID", &r.v.job, "pick up this job: follow it, or have it started again" },
		{ "cancel", 0, SNAP_OPT_U32, "ID", &r.cancel, "end this job; it can be picked up later" },
		{ "jobs", 0, SNAP_OPT_FLAG, NULL, &r.jobs, "list jobs" },
		{ "dests", 0, SNAP_OPT_FLAG, NULL, &r.dests, "list destinations" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &r.v.quiet, "no progress, only the receipt" },
		{ "progress-json", 0, SNAP_OPT_FLAG, NULL, &r.v.progress_json, "progress as lines of JSON on stderr" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &r.v.json, "receipt or list as JSON" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_remote, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	r.volume = argc ? argv[0] : NULL;
	rc = check(&r, argc);
	if (rc >= 0)
		return rc;
	if (r.jobs || r.dests)
		return sm_job_table(&r.v, r.jobs ? "jobs" : "dests");
	if (r.cancel) {
		r.v.job = r.cancel;
		rc = sm_job_cancel(&r.v);
	} else {
		rc = r.v.job ? sm_job_resume(&r.v) : begin(&r);
	}
	sm_job_view_done(&r.v);
	return rc;
}
