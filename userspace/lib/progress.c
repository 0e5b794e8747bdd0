// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The progress line. The rate is an average over the last seconds (exponential), so that it follows a
 * change but does not jump; time left comes from that rate.
 */
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "name.h"
#include "progress.h"

#define NS		1000000000ULL
#define DRAW_NS		(NS / 5)
#define JSON_NS		NS
#define RATE_SECONDS	4.0

struct snap_progress {
	pthread_mutex_t lock;
	char *what;
	bool json;
	FILE *file;
	uint64_t total, done, sent;
	uint64_t start, last;		/* ns of the monotonic clock: begin, last line */
	uint64_t last_done;
	double rate;			/* bytes a second, 0: not known yet */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS + ts.tv_nsec;
}

struct snap_progress *snap_progress_start(const struct snap_progress_opts *opts, uint64_t total)
{
	FILE *file = opts->file ? opts->file : stderr;
	struct snap_progress *p;

	if (opts->quiet || (!opts->json && !isatty(fileno(file))))
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->what = strdup(opts->what ? opts->what : "");
	if (!p->what) {
		free(p);
		return NULL;
	}
	pthread_mutex_init(&p->lock, NULL);
	p->json = opts->json;
	p->file = file;
	p->total = total;
	p->start = now_ns();
	p->last = p->start;
	return p;
}

void snap_progress_total(struct snap_progress *p, uint64_t total)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->total = total;
	pthread_mutex_unlock(&p->lock);
}

static void update_rate(struct snap_progress *p, uint64_t now)
{
	double dt = (now - p->last) / (double)NS, rate, keep;

	if (dt <= 0)
		return;
	rate = (p->done - p->last_done) / dt;
	keep = RATE_SECONDS / (RATE_SECONDS + dt);
	p->rate = p->rate > 0 ? p->rate * keep + rate * (1 - keep) : rate;
	p->last = now;
	p->last_done = p->done;
}

/* Seconds left, -1 when it cannot be said. */
static int64_t seconds_left(const struct snap_progress *p)
{
	if (!p->total || p->rate < 1 || p->done > p->total)
		return -1;
	return (p->total - p->done) / p->rate + 0.5;
}

static void print_json(struct snap_progress *p, bool finished, bool ok)
{
	int64_t eta = seconds_left(p);
	json_t *obj = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:b}", "what", p->what,
				"done", (json_int_t)p->done, "total", (json_int_t)p->total,
				"sent", (json_int_t)p->sent, "rate", (json_int_t)p->rate,
				"eta", eta < 0 ? json_null() : json_integer(eta),
				"finished", finished && ok);

	if (!obj)
		return;
	if (finished && !ok)
		json_object_set_new(obj, "failed", json_true());
	json_dumpf(obj, p->file, JSON_COMPACT);
	fputc('\n', p->file);
	fflush(p->file);
	json_decref(obj);
}

static void format_left(char *buf, size_t len, int64_t s)
{
	if (s < 0)
		snprintf(buf, len, "-:--");
	else if (s >= 3600)
		snprintf(buf, len, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
	else
		snprintf(buf, len, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

static void print_line(struct snap_progress *p, bool finished)
{
	char done[16], total[16], rate[16], left[32], line[512];
	struct winsize ws;
	size_t width = 80;
	int n;

	if (!ioctl(fileno(p->file), TIOCGWINSZ, &ws) && ws.ws_col)
		width = ws.ws_col;
	snap_format_size(done, sizeof(done), p->done);
	snap_format_size(total, sizeof(total), p->total);
	if (finished)
		p->rate = p->done / ((now_ns() - p->start) / (double)NS + 1e-9);
	snap_format_size(rate, sizeof(rate), p->rate);
	format_left(left, sizeof(left), finished ? (int64_t)((now_ns() - p->start) / NS) : seconds_left(p));
	if (p->total)
		n = snprintf(line, sizeof(line), "%s: %s of %s  %3d%%  %s/s  %s%s", p->what, done, total,
			     (int)(p->done * 100.0 / p->total), rate, left, finished ? "" : " left");
	else
		n = snprintf(line, sizeof(line), "%s: %s  %s/s", p->what, done, rate);
	if (n > 0 && (size_t)n >= width)
		line[width - 1] = 0;
	fprintf(p->file, "\r%s\033[K%s", line, finished ? "\n" : "");
	fflush(p->file);
}

void snap_progress_update(struct snap_progress *p, uint64_t done, uint64_t sent)
{
	uint64_t now;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->done = done > p->done ? done : p->done;
	p->sent = sent > p->sent ? sent : p->sent;
	now = now_ns();
	if (now - p->last >= (p->json ? JSON_NS : DRAW_NS)) {
		update_rate(p, now);
		if (p->json)
			print_json(p, false, true);
		else
			print_line(p, false);
	}
	pthread_mutex_unlock(&p->lock);
}

void snap_progress_end(struct snap_progress *p, bool ok)
{
	if (!p)
		return;
	update_rate(p, now_ns());
	if (p->json)
		print_json(p, true, ok);
	else if (ok)
		print_line(p, true);
	else
		fputs("\r\033[K", p->file);
	pthread_mutex_destroy(&p->lock);
	free(p->what);
	free(p);
}
