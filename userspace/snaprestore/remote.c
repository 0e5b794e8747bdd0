// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --host: restores that the agent of a storage host runs, onto what its agent.conf allows. The data goes from the media server to the storage
 * host; orders and progress pass through here.
 */
#include <string.h>

#include "agent_job.h"
#include "cmd.h"
#include "name.h"
#include "restore.h"

struct remote {
	struct sm_job_view v;
	const char *from, *volume, *to, *ranges, *manifest, *key;
	uint32_t gen, cancel;
	bool diff, force, jobs, dests, targets;
};

static void set(json_t *o, const char *key, const char *text)
{
	if (text)
		json_object_set_new(o, key, json_string(text));
}

static int begin(struct remote *r)
{
	json_t *o = sm_job_order("restore");

	set(o, "volume", r->volume);
	json_object_set_new(o, "generation", json_integer(r->gen));
	set(o, "source", r->from);
	set(o, "target", r->to);
	set(o, "ranges", r->ranges);
	set(o, "manifest", r->manifest);
	set(o, "key", r->key);
	json_object_set_new(o, "diff", json_boolean(r->diff));
	json_object_set_new(o, "force", json_boolean(r->force));
	return sm_job_begin(&r->v, o);
}

static const char help[] =
	"Has the agent of storage host HOST (default port " SM_AGENT_PORT ") restore generation N of volume NAME from the media server SOURCE, a name or\n"
	"address in its agent.conf (--dests), onto TARGET there: exactly one that its agent.conf lists, or a file in a directory that it lists\n"
	"(--targets). What is there is overwritten; a device that is mounted or held is refused. It takes the role \"restore\" there.\n"
	"Shows its progress and ends with a receipt. Interrupted or cut off, the restore goes on there as job ID; one that has not come to its\n"
	"end is begun anew by --job ID. --key: the name of a destination whose key file there is to be used instead of SOURCE's own, or \"none\".";

static int run(int argc, char **argv);
const struct snap_cmd cmd_remote = {
	.args = "--host HOST --from SOURCE --volume NAME --gen N --to TARGET | --job ID | --cancel ID | --jobs | --dests | --targets",
	.summary = "restores by the agent of a storage host", .help = help, .max_args = 0, .run = run,
};

static int check(const struct remote *r)
{
	int what = (r->from || r->volume || r->gen || r->to) + (r->v.job != 0) + (r->cancel != 0) + r->jobs + r->dests + r->targets;
	struct snap_err se;

	if (what != 1)
		return snap_usage_error("--host: one of --from SOURCE --volume NAME --gen N --to TARGET, --job ID, --cancel ID, --jobs, --dests, --targets");
	if ((r->from || r->volume || r->gen || r->to) && !(r->from && r->volume && r->gen && r->to))
		return snap_usage_error("--from, --volume, --gen and --to go together");
	if (!r->gen && (r->ranges || r->manifest || r->key || r->diff || r->force))
		return snap_usage_error("--range, --manifest, --key, --diff-against-live, --force belong to --from and --to");
	if (r->volume && snap_check_volume_name(r->volume, &se))
		return snap_err_report(&se);
	return SNAP_OPTS_GO;
}

static int run(int argc, char **argv)
{
	struct remote r = { .gen = 0 };
	const struct snap_opt opts[] = {
		{ "host", 'H', SNAP_OPT_STRING, "HOST[:PORT]", &r.v.host, "the storage host" },
		{ "from", 'f', SNAP_OPT_STRING, "SOURCE", &r.from, "where from, a name or address of that host's agent.conf" },
		{ "volume", 'v', SNAP_OPT_STRING, "NAME|UUID", &r.volume, "volume, as the media server knows it" },
		{ "gen", 'g', SNAP_OPT_U32, "N", &r.gen, "generation" },
		{ "to", 't', SNAP_OPT_STRING, "TARGET", &r.to, "device or file there, as its agent.conf allows" },
		{ "range", 'r', SNAP_OPT_STRING, "OFFSET:LENGTH[,...]", &r.ranges, "only these parts: multiples of 4096, ascending" },
		{ "diff-against-live", 0, SNAP_OPT_FLAG, NULL, &r.diff, "compare with what is there, write only what differs" },
		{ "manifest", 'm', SNAP_OPT_STRING, "HASH", &r.manifest, "only the generation whose receipt said so" },
		{ "key", 'k', SNAP_OPT_STRING, "NAME|none", &r.key, "the key of this destination of that host's agent.conf (default: SOURCE's)" },
		{ "force", 0, SNAP_OPT_FLAG, NULL, &r.force, "replace an existing file" },
		{ "detach", 0, SNAP_OPT_FLAG, NULL, &r.v.detach, "print the job's number and leave it" },
		{ "job", 'j', SNAP_OPT_U32, "ID", &r.v.job, "pick up this job: follow it, or have it started again" },
		{ "cancel", 0, SNAP_OPT_U32, "ID", &r.cancel, "end this job" },
		{ "jobs", 0, SNAP_OPT_FLAG, NULL, &r.jobs, "list jobs" },
		{ "dests", 0, SNAP_OPT_FLAG, NULL, &r.dests, "list media servers" },
		{ "targets", 0, SNAP_OPT_FLAG, NULL, &r.targets, "list what may be restored onto" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &r.v.quiet, "no progress, only the receipt" },
		{ "progress-json", 0, SNAP_OPT_FLAG, NULL, &r.v.progress_json, "progress as lines of JSON on stderr" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &r.v.json, "receipt or list as JSON" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_remote, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	rc = check(&r);
	if (rc >= 0)
		return rc;
	if (r.jobs || r.dests || r.targets)
		return sm_job_table(&r.v, r.jobs ? "jobs" : r.dests ? "dests" : "targets");
	if (r.cancel) {
		r.v.job = r.cancel;
		rc = sm_job_cancel(&r.v);
	} else {
		rc = r.v.job ? sm_job_resume(&r.v) : begin(&r);
	}
	sm_job_view_done(&r.v);
	return rc;
}
