// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --host: backups that the agent of a storage host runs. Only orders and progress pass through here; the data goes from there to the
 * media server. What is asked for is a job, which does not end with this program:
 *
 *	--gen N --dest DEST	ask for one, follow it		--detach	do not follow
 *	--job ID		pick one up: follow it; if nobody runs it, have it started again
 *	--cancel ID		--jobs		--dests
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "backup.h"
#include "cmd.h"
#include "name.h"
#include "progress.h"

struct remote {
	const char *host, *dest, *base, *keep, *volume;
	uint32_t gen, level, job, cancel;
	bool jobs, dests, detach, quiet, progress_json, json;
	struct snap_progress *progress;
	uint64_t total;
	json_t *last;			/* the job as it was told last */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static int fail(const struct remote *r, int err, const struct sm_err *e)
{
	struct snap_err se;

	snap_err_set(&se, err, r->host, "%s", e->text);
	return snap_err_report(&se);
}

static json_t *order_of(const char *verb)
{
	json_t *o = json_object();

	json_object_set_new(o, "verb", json_string(verb));
	return o;
}

static json_t *job_order(const char *verb, uint32_t job)
{
	json_t *o = order_of(verb);

	json_object_set_new(o, "job", json_integer(job));
	return o;
}

static uint64_t number(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) && json_integer_value(v) > 0 ? json_integer_value(v) : 0;
}

/* A text of the agent's, fit for a terminal. */
static const char *text(const json_t *o, const char *key, char buf[512])
{
	const char *s = json_string_value(json_object_get(o, key));
	size_t n = 0;

	for (; s && s[n] && n < 511; n++)
		buf[n] = (unsigned char)s[n] < 0x20 || s[n] == 0x7f ? '?' : s[n];
	buf[n] = '\0';
	return buf;
}

/* ---- following ---- */

static void show_progress(struct remote *r)
{
	uint64_t total = number(r->last, "total");
	struct snap_progress_opts po = { .quiet = r->quiet, .json = r->progress_json };
	char what[700], volume[512];

	if (!total)
		return;
	if (!r->progress) {
		snprintf(what, sizeof(what), "%s@%llu on %s", text(r->last, "volume", volume),
			 (unsigned long long)number(r->last, "generation"), r->host);
		po.what = what;
		r->progress = snap_progress_start(&po, total);
	}
	if (total != r->total)
		snap_progress_total(r->progress, total);
	r->total = total;
	snap_progress_update(r->progress, number(r->last, "done"), number(r->last, "sent"));
}

static int on_row(json_t *row, void *arg)
{
	struct remote *r = arg;

	json_decref(r->last);
	r->last = row;
	show_progress(r);
	return 0;
}

static bool is(const struct remote *r, const char *state)
{
	const char *s = json_string_value(json_object_get(r->last, "state"));

	return s && !strcmp(s, state);
}

static void print_receipt(const struct remote *r)
{
	const json_t *o = json_object_get(r->last, "receipt"), *base = json_object_get(o, "base");
	char volume[512], manifest[512], state[512], kind[64] = "full", *all;
	unsigned long long gen = number(r->last, "generation");

	if (r->json) {
		all = o ? sm_json_canonical(o) : NULL;
		printf("%s\n", all ? all : "{}");
		free(all);
		return;
	}
	text(r->last, "volume", volume);
	text(o, "manifest", manifest);
	if (json_is_integer(base))
		snprintf(kind, sizeof(kind), "increment on %llu", (unsigned long long)number(o, "base"));
	if (!strcmp(text(o, "state", state), "published"))
		printf("%s@%llu: was there already, manifest %s\n", volume, gen, manifest);
	else
		printf("%s@%llu: %s, %llu bytes%s, %llu sent in %llu frames, manifest %s\n", volume, gen, kind,
		       (unsigned long long)number(o, "change_bytes"), json_is_integer(base) ? " changed" : "",
		       (unsigned long long)number(o, "sent_bytes"), (unsigned long long)number(o, "frames"), manifest);
}

/* How the job ended, as snapbackup would have. */
static int ending(struct remote *r)
{
	char message[512], state[512];
	struct snap_err se;
	uint64_t status = number(r->last, "exit");

	if (is(r, "done")) {
		print_receipt(r);
		return 0;
	}
	text(r->last, "message", message);
	text(r->last, "state", state);
	snap_err_set(&se, -EIO, r->host, "job %u: %s%s%s (--job %u picks it up)", r->job, state, *message ? ": " : "", message, r->job);
	snap_err_report(&se);
	return status > 0 && status < 128 ? (int)status : SNAP_EXIT_IO;
}

static int follow(struct remote *r)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct sm_err e = { 0 };
	struct sm_client c;
	sigset_t block, old;
	int err;

	sigemptyset(&block);
	sigaddset(&block, SIGINT);
	sigaddset(&block, SIGTERM);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	err = sm_agent_connect(&c, r->host, &e);
	if (err)
		return fail(r, err, &e);
	sigprocmask(SIG_BLOCK, &block, &old);
	c.chan.wait_mask = &old;
	err = sm_client_order(&c, job_order("follow", r->job), on_row, r, &e);
	sm_client_end(&c, !err);
	snap_progress_end(r->progress, !err && is(r, "done"));
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (!err && r->last)
		return ending(r);
	if (interrupted)
		sm_fail(&e, -EINTR, "interrupted");
	fail(r, err ? err : -EPROTO, &e);
	if (!err || err == -EINTR || err == -EPIPE || err == -ECONNRESET || err == -ETIMEDOUT)
		fprintf(stderr, "%s: job %u goes on there: snapbackup --host %s --job %u picks it up, --cancel %u ends it\n", snap_prog(),
			r->job, r->host, r->job, r->job);
	return snap_err_exit(err ? err : -EPROTO);
}

/* ---- orders ---- */

static int take_job(json_t *row, void *arg)
{
	struct remote *r = arg;

	r->job = number(row, "job");
	json_decref(r->last);
	r->last = row;
	return 0;
}

static int ask(struct remote *r, json_t *order)
{
	struct sm_err e = { 0 };
	int err = sm_agent_order(r->host, order, take_job, r, &e);

	if (!err && !r->job)
		err = sm_fail(&e, -EPROTO, "agent: names no job");
	return err ? fail(r, err, &e) : SNAP_OPTS_GO;
}

static int begin(struct remote *r)
{
	json_t *o = order_of("backup");
	int rc;

	if (r->volume)
		json_object_set_new(o, "volume", json_string(r->volume));
	json_object_set_new(o, "generation", json_integer(r->gen));
	json_object_set_new(o, "dest", json_string(r->dest));
	if (r->base)
		json_object_set_new(o, "base", json_string(r->base));
	if (r->level != UINT32_MAX)
		json_object_set_new(o, "compress", json_integer(r->level));
	json_object_set_new(o, "keep_bookmark", json_boolean(r->keep != NULL));
	rc = ask(r, o);
	if (rc >= 0)
		return rc;
	if (r->detach) {
		printf("%u\n", r->job);
		return 0;
	}
	if (!r->quiet)
		fprintf(stderr, "%s: %s: job %u\n", snap_prog(), r->host, r->job);
	return follow(r);
}

static int tell_end(struct remote *r)
{
	int rc = ask(r, job_order("follow", r->job));

	return rc >= 0 ? rc : ending(r);
}

/* Running: follow. Ended: start it again; "resume" is refused for what is done. */
static int resume(struct remote *r)
{
	struct sm_err e = { 0 };
	int err = sm_agent_order(r->host, job_order("resume", r->job), take_job, r, &e);

	if (err == -EEXIST)
		return tell_end(r);
	if (err)
		return fail(r, err, &e);
	return r->detach ? 0 : follow(r);
}

static int cancel(struct remote *r)
{
	int rc = ask(r, job_order("cancel", r->cancel));

	return rc >= 0 ? rc : 0;
}

/* ---- tables ---- */

static const struct snap_col job_cols[] = {
	{ "job", "JOB", SNAP_COL_NUMBER }, { "state", "STATE", SNAP_COL_STRING }, { "volume", "VOLUME", SNAP_COL_STRING },
	{ "generation", "GEN", SNAP_COL_NUMBER }, { "dest", "DEST", SNAP_COL_STRING }, { "client", "CLIENT", SNAP_COL_STRING },
	{ "created", "ASKED", SNAP_COL_TIME }, { "started", "STARTED", SNAP_COL_TIME, SNAP_COL_HIDDEN },
	{ "ended", "ENDED", SNAP_COL_TIME }, { "attempts", "ATTEMPTS", SNAP_COL_NUMBER, SNAP_COL_HIDDEN },
	{ "done", "SENT", SNAP_COL_SIZE }, { "total", "OF", SNAP_COL_SIZE }, { "exit", "EXIT", SNAP_COL_NUMBER, SNAP_COL_HIDDEN },
	{ "message", "MESSAGE", SNAP_COL_STRING },
};

static const struct snap_col dest_cols[] = {
	{ "name", "NAME", SNAP_COL_STRING }, { "address", "ADDRESS", SNAP_COL_STRING },
};

static int table(const struct remote *r, const char *verb, const struct snap_col *cols, size_t nr)
{
	struct snap_out_opts oo = { .json = r->json };
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	struct snap_out *out;
	int err;

	if (snap_out_open(&out, verb, SNAP_OUT_TABLE, cols, nr, &oo, &se))
		return snap_err_report(&se);
	err = sm_agent_order(r->host, order_of(verb), snap_out_json_row, out, &e);
	if (err) {
		snap_out_abort(out);
		return fail(r, err, &e);
	}
	return snap_out_close(out, &se) ? snap_err_report(&se) : 0;
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
	int what = (r->gen || r->dest) + (r->job != 0) + (r->cancel != 0) + r->jobs + r->dests;
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
		{ "host", 'H', SNAP_OPT_STRING, "HOST[:PORT]", &r.host, "the storage host" },
		{ "gen", 'g', SNAP_OPT_U32, "N", &r.gen, "generation to send" },
		{ "dest", 'd', SNAP_OPT_STRING, "DEST", &r.dest, "where to, a name or address of that host's agent.conf" },
		{ "base", 'b', SNAP_OPT_STRING, "M|auto|none", &r.base, "send what differs from generation M (default auto)" },
		{ "compress", 'z', SNAP_OPT_U32, "LEVEL", &r.level, "zstd level, 0 for none (default: the destination's)" },
		{ "keep", 0, SNAP_OPT_STRING, "bookmark", &r.keep, "afterwards turn the generation into a bookmark" },
		{ "detach", 0, SNAP_OPT_FLAG, NULL, &r.detach, "print the job's number and leave it" },
		{ "job", 'j', SNAP_OPT_U32, "ID", &r.job, "pick up this job: follow it, or have it started again" },
		{ "cancel", 0, SNAP_OPT_U32, "ID", &r.cancel, "end this job; it can be picked up later" },
		{ "jobs", 0, SNAP_OPT_FLAG, NULL, &r.jobs, "list jobs" },
		{ "dests", 0, SNAP_OPT_FLAG, NULL, &r.dests, "list destinations" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &r.quiet, "no progress, only the receipt" },
		{ "progress-json", 0, SNAP_OPT_FLAG, NULL, &r.progress_json, "progress as lines of JSON on stderr" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &r.json, "receipt or list as JSON" },
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
		return r.jobs ? table(&r, "jobs", job_cols, sizeof(job_cols) / sizeof(*job_cols)) :
				table(&r, "dests", dest_cols, sizeof(dest_cols) / sizeof(*dest_cols));
	if (r.cancel)
		rc = cancel(&r);
	else
		rc = r.job ? resume(&r) : begin(&r);
	json_decref(r.last);
	return rc;
}
