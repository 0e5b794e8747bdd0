// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent_job.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "output.h"
#include "progress.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static int fail(const struct sm_job_view *r, int err, const struct sm_err *e)
{
	struct snap_err se;

	snap_err_set(&se, err, r->host, "%s", e->text);
	return snap_err_report(&se);
}

json_t *sm_job_order(const char *verb)
{
	json_t *o = json_object();

	json_object_set_new(o, "verb", json_string(verb));
	return o;
}

static json_t *job_order(const char *verb, uint32_t job)
{
	json_t *o = sm_job_order(verb);

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

static void show_progress(struct sm_job_view *r)
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
	struct sm_job_view *r = arg;

	json_decref(r->last);
	r->last = row;
	show_progress(r);
	return 0;
}

static bool is(const struct sm_job_view *r, const char *state)
{
	const char *s = json_string_value(json_object_get(r->last, "state"));

	return s && !strcmp(s, state);
}

static void print_backup(const struct sm_job_view *r, const json_t *o)
{
	const json_t *base = json_object_get(o, "base");
	char volume[512], manifest[512], state[512], kind[64] = "full";
	unsigned long long gen = number(r->last, "generation");

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

static void print_restore(const struct sm_job_view *r, const json_t *o)
{
	char volume[512], target[512], manifest[512], verified[512];

	printf("%s@%llu: on %s: %llu bytes restored, %llu written, verified by %s, manifest %s\n", text(o, "volume", volume),
	       (unsigned long long)number(o, "generation"), text(r->last, "dest", target), (unsigned long long)number(o, "restored_bytes"),
	       (unsigned long long)number(o, "written_bytes"), text(o, "verified", verified), text(o, "manifest", manifest));
}

static void print_receipt(const struct sm_job_view *r)
{
	const json_t *o = json_object_get(r->last, "receipt");
	char kind[512], *all;

	if (r->json) {
		all = o ? sm_json_canonical(o) : NULL;
		printf("%s\n", all ? all : "{}");
		free(all);
	} else if (!strcmp(text(r->last, "kind", kind), "restore")) {
		print_restore(r, o);
	} else {
		print_backup(r, o);
	}
}

/* How the job ended, as snapbackup would have. */
static int ending(struct sm_job_view *r)
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

static int follow(struct sm_job_view *r)
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
		fprintf(stderr, "%s: job %u goes on there: %s --host %s --job %u picks it up, --cancel %u ends it\n", snap_prog(),
			r->job, snap_prog(), r->host, r->job, r->job);
	return snap_err_exit(err ? err : -EPROTO);
}

/* ---- orders ---- */

static int take_job(json_t *row, void *arg)
{
	struct sm_job_view *r = arg;

	r->job = number(row, "job");
	json_decref(r->last);
	r->last = row;
	return 0;
}

static int ask(struct sm_job_view *r, json_t *order)
{
	struct sm_err e = { 0 };
	int err = sm_agent_order(r->host, order, take_job, r, &e);

	if (!err && !r->job)
		err = sm_fail(&e, -EPROTO, "agent: names no job");
	return err ? fail(r, err, &e) : SNAP_OPTS_GO;
}

int sm_job_begin(struct sm_job_view *r, json_t *order)
{
	int rc = ask(r, order);

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

static int tell_end(struct sm_job_view *r)
{
	int rc = ask(r, job_order("follow", r->job));

	return rc >= 0 ? rc : ending(r);
}

/* Running: follow. Ended: start it again; "resume" is refused for what is done. */
int sm_job_resume(struct sm_job_view *r)
{
	struct sm_err e = { 0 };
	int err = sm_agent_order(r->host, job_order("resume", r->job), take_job, r, &e);

	if (err == -EEXIST)
		return tell_end(r);
	if (err)
		return fail(r, err, &e);
	return r->detach ? 0 : follow(r);
}

int sm_job_cancel(struct sm_job_view *r)
{
	int rc = ask(r, job_order("cancel", r->job));

	return rc >= 0 ? rc : 0;
}

/* ---- tables ---- */

static const struct snap_col job_cols[] = {
	{ "job", "JOB", SNAP_COL_NUMBER }, { "state", "STATE", SNAP_COL_STRING }, { "kind", "KIND", SNAP_COL_STRING },
	{ "volume", "VOLUME", SNAP_COL_STRING }, { "generation", "GEN", SNAP_COL_NUMBER }, { "dest", "DEST", SNAP_COL_STRING },
	{ "source", "SOURCE", SNAP_COL_STRING, SNAP_COL_HIDDEN }, { "client", "CLIENT", SNAP_COL_STRING },
	{ "created", "ASKED", SNAP_COL_TIME }, { "started", "STARTED", SNAP_COL_TIME, SNAP_COL_HIDDEN },
	{ "ended", "ENDED", SNAP_COL_TIME }, { "attempts", "ATTEMPTS", SNAP_COL_NUMBER, SNAP_COL_HIDDEN },
	{ "done", "DONE", SNAP_COL_SIZE }, { "total", "OF", SNAP_COL_SIZE }, { "exit", "EXIT", SNAP_COL_NUMBER, SNAP_COL_HIDDEN },
	{ "message", "MESSAGE", SNAP_COL_STRING },
};

static const struct snap_col dest_cols[] = {
	{ "name", "NAME", SNAP_COL_STRING }, { "address", "ADDRESS", SNAP_COL_STRING },
};

static const struct snap_col target_cols[] = {
	{ "path", "PATH", SNAP_COL_STRING }, { "kind", "KIND", SNAP_COL_STRING },
};

#define TABLE(name, cols)	{ name, cols, sizeof(cols) / sizeof(*(cols)) }
static const struct {
	const char *verb;
	const struct snap_col *cols;
	size_t nr;
} tables[] = { TABLE("jobs", job_cols), TABLE("dests", dest_cols), TABLE("targets", target_cols) };

int sm_job_table(const struct sm_job_view *r, const char *verb)
{
	struct snap_out_opts oo = { .json = r->json };
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	struct snap_out *out;
	size_t i = 0;
	int err;

	while (strcmp(tables[i].verb, verb))
		i++;
	if (snap_out_open(&out, verb, SNAP_OUT_TABLE, tables[i].cols, tables[i].nr, &oo, &se))
		return snap_err_report(&se);
	err = sm_agent_order(r->host, sm_job_order(verb), snap_out_json_row, out, &e);
	if (err) {
		snap_out_abort(out);
		return fail(r, err, &e);
	}
	return snap_out_close(out, &se) ? snap_err_report(&se) : 0;
}

void sm_job_view_done(struct sm_job_view *r)
{
	json_decref(r->last);
	r->last = NULL;
}
