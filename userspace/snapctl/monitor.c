// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl monitor: events as they happen, a line each. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "snapctl.h"

enum { COL_TIME, COL_EVENT, COL_VOLUME, COL_GEN, COL_ERROR, COL_TEXT };

static const struct snap_col cols[] = {
	[COL_TIME]	= { "time", "TIME", SNAP_COL_TIME, 0, 19 },
	[COL_EVENT]	= { "event", "EVENT", SNAP_COL_STRING, 0, 12 },
	[COL_VOLUME]	= { "volume", "VOLUME", SNAP_COL_STRING, 0, 12 },
	[COL_GEN]	= { "generation", "GEN", SNAP_COL_NUMBER, 0, 5 },
	[COL_ERROR]	= { "error", "ERROR", SNAP_COL_STRING, 0, 5 },
	[COL_TEXT]	= { "text", "TEXT", SNAP_COL_STRING },
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static int print_event(struct snap_out *out, const struct snap_event *ev)
{
	int err;

	snap_out_num(out, COL_TIME, ev->time);
	snap_out_str(out, COL_EVENT, snap_event_name(ev->type));
	snap_out_str(out, COL_VOLUME, ev->volume);
	if (ev->gen)
		snap_out_num(out, COL_GEN, ev->gen);
	if (ev->err)
		snap_out_str(out, COL_ERROR, strerrorname_np(ev->err));
	if (ev->text[0])
		snap_out_str(out, COL_TEXT, ev->text);
	err = snap_out_row(out);
	fflush(stdout);
	return err;
}

/* Until @count events (0: no limit) or @deadline in ms (0: none). Return: number printed or -errno. */
static int64_t follow(struct snap_nl *nl, struct snap_out *out, uint32_t count, uint64_t deadline,
		      struct snap_err *e)
{
	struct snap_event ev;
	uint64_t now;
	int64_t n = 0;
	int rc, wait = -1;

	while (!count || n < count) {
		if (deadline) {
			now = now_ms();
			if (now >= deadline)
				break;
			wait = deadline - now > INT_MAX ? INT_MAX : (int)(deadline - now);
		}
		rc = snap_nl_event(nl, &ev, wait, e);
		if (rc == -ENOBUFS)
			snap_warn(NULL, "%s", e->text);
		else if (rc < 0 && rc != -EINTR)
			return rc;
		if (rc != 1)
			continue;
		rc = print_event(out, &ev);
		if (rc)
			return snap_err_sys(e, rc, NULL, "cannot write the output");
		n++;
	}
	return n;
}

static int run_monitor(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out_opts oo = { .lines = true, .noheadings = true };
	uint32_t count = 0, timeout = 0;
	const struct snap_opt opts[] = {
		{ "count", 0, SNAP_OPT_U32, "N", &count, "stop after N events" },
		{ "timeout", 0, SNAP_OPT_U32, "SECONDS", &timeout, "stop after that time" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &oo.json, "print JSON, an object a line" },
		{ "output", 'o', SNAP_OPT_STRING, "COL[,COL]", &oo.columns, "time,event,volume,generation,error,text" },
		{ 0 }
	};
	struct snap_out *out;
	struct snap_nl *nl;
	int64_t n;
	int rc = snap_opts(&cmd_monitor, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (snap_out_open(&out, "events", SNAP_OUT_STREAM, cols, ARRAY_SIZE(cols), &oo, &e))
		return snap_err_report(&e);
	err = snap_nl_open(&nl, &e);
	if (!err)
		err = snap_nl_subscribe(nl, &e);
	n = err ? err : follow(nl, out, count, timeout ? now_ms() + timeout * 1000ULL : 0, &e);
	if (!err)
		snap_nl_close(nl);
	snap_out_abort(out);
	if (n < 0)
		return snap_err_report(&e);
	if (n < count) {
		snap_err_set(&e, -ETIME, NULL, "monitor: %lld of %u events within %u seconds", (long long)n, count,
			     timeout);
		return snap_err_report(&e);
	}
	return SNAP_EXIT_OK;
}

const struct snap_cmd cmd_monitor = {
	.name = "monitor",
	.args = "",
	.summary = "Print events as they happen",
	.help = "Runs until interrupted, or until --count or --timeout. With both, too few events in the time are an\n"
		"error (exit status 6). --json prints one object a line.",
	.min_args = 0,
	.max_args = 0,
	.run = run_monitor,
};
