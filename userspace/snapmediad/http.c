// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The status page and /metrics, read-only, on loopback. A request has a process of its own and five seconds:
 * nobody can hold the server up here.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon.h"

#define SECONDS		5u
#define REQUEST_MAX	4096u

/* What the page and the metrics are made of. */
struct volume {
	char vid[SM_VID_TEXT], client[SM_CLIENT_MAX], name[SM_NAME_MAX], uuid[SM_UUID_TEXT];
	uint64_t size, received;	/* of the newest */
	uint32_t newest;
	size_t generations;
	bool damaged;
	struct sm_usage usage;
	struct sm_verified verified;
	bool has_verified;
};

static void look_at(const struct daemon *d, struct volume *v)
{
	struct sm_repo *r = (struct sm_repo *)&d->repo;
	const struct sm_generation *last = NULL;
	struct sm_generations g;

	sm_volume_usage(r, v->vid, &v->usage, NULL);
	v->has_verified = !sm_verified_load(r, v->vid, &v->verified, NULL);
	if (sm_repo_generations(r, v->vid, &g, NULL)) {
		v->damaged = true;
		return;
	}
	for (size_t i = 0; i < g.nr; i++)
		if (!last || g.v[i].sequence > last->sequence)
			last = &g.v[i];
	v->damaged = g.damaged.nr;
	v->generations = g.nr;
	if (last) {
		memcpy(v->client, last->client, sizeof(v->client));
		memcpy(v->name, last->manifest.info.volume_name, sizeof(v->name));
		sm_uuid_format(last->manifest.info.volume, v->uuid);
		v->size = last->manifest.info.size;
		v->received = last->received;
		v->newest = last->manifest.info.number;
	}
	sm_generations_free(&g);
}

/* A label's value: backslash, quote and line feed are what the format wants escaped; names have no control characters. */
static const char *label(const char *text, char out[300])
{
	size_t n = 0;

	for (; *text && n < 297; text++) {
		if (*text == '"' || *text == '\\')
			out[n++] = '\\';
		out[n++] = *text;
	}
	out[n] = '\0';
	return out;
}

struct metric {
	const char *name, *help;
	uint64_t (*value)(const struct volume *v);
	bool verified;			/* only of volumes that were */
};

static uint64_t m_generations(const struct volume *v) { return v->generations; }
static uint64_t m_size(const struct volume *v) { return v->size; }
static uint64_t m_stored(const struct volume *v) { return v->usage.packs + v->usage.maps + v->usage.manifests; }
static uint64_t m_received(const struct volume *v) { return v->received / 1000000000u; }
static uint64_t m_damaged(const struct volume *v) { return v->damaged; }
static uint64_t m_verified(const struct volume *v) { return v->verified.at / 1000000000u; }
static uint64_t m_errors(const struct volume *v) { return v->verified.errors; }

static const struct metric per_volume[] = {
	{ "snapmedia_generations", "Published generations.", m_generations, false },
	{ "snapmedia_volume_bytes", "Size of the volume at its newest generation.", m_size, false },
	{ "snapmedia_stored_bytes", "Bytes allocated in the repository.", m_stored, false },
	{ "snapmedia_newest_received_seconds", "When the newest generation was published, Unix time.", m_received, false },
	{ "snapmedia_damaged_manifests", "1: a manifest cannot be read.", m_damaged, false },
	{ "snapmedia_verified_seconds", "When the volume was last verified, Unix time.", m_verified, true },
	{ "snapmedia_verify_errors", "Errors that the last verification found.", m_errors, true },
};

static void print_gauge(FILE *f, const char *name, const char *help, const char *type, uint64_t value)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name, (unsigned long long)value);
}

static void print_metrics(const struct daemon *d, FILE *f, const struct volume *v, size_t nr)
{
	char a[300], b[300];
	struct statvfs s;

	print_gauge(f, "snapmedia_sessions", "Sessions running.", "gauge", d->service.sessions);
	print_gauge(f, "snapmedia_sessions_total", "Sessions since the start.", "counter", d->service.served);
	print_gauge(f, "snapmedia_refused_total", "Connections refused since the start.", "counter", d->service.refused);
	print_gauge(f, "snapmedia_dropped_total", "Connections dropped before it was known who they are, since the start.", "counter",
		    d->service.dropped);
	print_gauge(f, "snapmedia_start_seconds", "When the server started, Unix time.", "gauge", d->service.started);
	if (!statvfs(d->repo.path, &s))
		print_gauge(f, "snapmedia_available_bytes", "Free space of the repository's file system.", "gauge",
			    (uint64_t)s.f_bavail * s.f_frsize);
	for (size_t m = 0; m < sizeof(per_volume) / sizeof(*per_volume); m++) {
		const struct metric *x = &per_volume[m];

		fprintf(f, "# HELP %s %s\n# TYPE %s gauge\n", x->name, x->help, x->name);
		for (size_t i = 0; i < nr; i++)
			if (!x->verified || v[i].has_verified)
				fprintf(f, "%s{client=\"%s\",volume=\"%s\",uuid=\"%s\"} %llu\n", x->name,
					label(v[i].client, a), label(v[i].name, b), v[i].uuid,
					(unsigned long long)x->value(&v[i]));
	}
}

static void when(uint64_t ns, char text[32])
{
	time_t t = ns / 1000000000u;
	struct tm tm;

	strftime(text, 32, "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
}

static int print_staged(const struct sm_staged *s, void *arg)
{
	fprintf(arg, "  %s %s@%u: %llu bytes of %llu are here\n", s->client, s->info.volume_name, s->info.number,
		(unsigned long long)s->bytes, (unsigned long long)s->info.bytes);
	return 0;
}

static void print_page(const struct daemon *d, FILE *f, const struct volume *v, size_t nr)
{
	char t[32];

	fprintf(f, "snapmediad %s, %s\n\nsessions running: %u\n", SNAPDIFF_VERSION, d->repo.path, d->service.sessions);
	for (uint32_t i = 0; i < d->service.children; i++)
		if (d->service.child[i].kind == SM_CHILD_SESSION) {
			when((uint64_t)d->service.child[i].since * 1000000000u, t);
			fprintf(f, "  %s since %s\n", d->service.child[i].peer, t);
		}
	fprintf(f, "\nuploads under way or to be taken up:\n");
	sm_staged((struct sm_repo *)&d->repo, print_staged, f, NULL);
	fprintf(f, "\nclient volume generations newest received size stored verified\n");
	for (size_t i = 0; i < nr; i++) {
		when(v[i].received, t);
		fprintf(f, "%s %s %zu %u %s %llu %llu ", v[i].client, v[i].name, v[i].generations, v[i].newest, t,
			(unsigned long long)v[i].size, (unsigned long long)m_stored(&v[i]));
		if (v[i].damaged)
			fprintf(f, "MANIFEST DAMAGED\n");
		else if (!v[i].has_verified)
			fprintf(f, "never\n");
		else {
			when(v[i].verified.at, t);
			fprintf(f, "%s, %llu errors\n", t, (unsigned long long)v[i].verified.errors);
		}
	}
}

static char *make_body(const struct daemon *d, bool metrics, size_t *len)
{
	char (*vids)[SM_VID_TEXT] = NULL, *body = NULL;
	struct volume *v;
	size_t nr = 0;
	FILE *f = open_memstream(&body, len);

	if (sm_repo_volumes((struct sm_repo *)&d->repo, NULL, &vids, &nr, NULL))
		nr = 0;
	v = calloc(nr + 1, sizeof(*v));
	for (size_t i = 0; v && i < nr; i++) {
		memcpy(v[i].vid, vids[i], SM_VID_TEXT);
		look_at(d, &v[i]);
	}
	if (f && v)
		(metrics ? print_metrics : print_page)(d, f, v, nr);
	if (f)
		fclose(f);
	free(v);
	free(vids);
	return body;
}

/* The request's head. Return: its first line, or NULL: too long, cut off. */
static char *read_request(int fd, char buf[REQUEST_MAX])
{
	size_t have = 0;

	while (have < REQUEST_MAX - 1) {
		ssize_t n = read(fd, buf + have, REQUEST_MAX - 1 - have);

		if (n <= 0)
			return NULL;
		have += n;
		buf[have] = '\0';
		if (strstr(buf, "\r\n\r\n") || strstr(buf, "\n\n")) {
			buf[strcspn(buf, "\r\n")] = '\0';
			return buf;
		}
	}
	return NULL;
}

static void reply(int fd, const char *status, const char *type, const char *body, size_t len)
{
	char head[300];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			 "Cache-Control: no-store\r\nConnection: close\r\n\r\n", status, type, len);

	if (!sm_write_full(fd, head, n))
		sm_write_full(fd, body, len);
}

int http_answer(struct sm_service *service, int fd)
{
	const struct daemon *d = (const struct daemon *)service;
	static const char plain[] = "text/plain; charset=utf-8";
	char buf[REQUEST_MAX], *line, *body;
	bool metrics;
	size_t len;

	alarm(SECONDS);		/* its default action is the time limit */
	if (confine(d, NULL))
		return 1;
	line = read_request(fd, buf);
	if (!line || strncmp(line, "GET ", 4)) {
		reply(fd, "405 Method Not Allowed", plain, "only GET\n", 9);
		return 1;
	}
	line += 4;
	line[strcspn(line, " ?")] = '\0';
	metrics = !strcmp(line, "/metrics");
	if (!metrics && strcmp(line, "/")) {
		reply(fd, "404 Not Found", plain, "/ and /metrics\n", 15);
		return 1;
	}
	body = make_body(d, metrics, &len);
	reply(fd, "200 OK", metrics ? "text/plain; version=0.0.4; charset=utf-8" : plain, body ? body : "", body ? len : 0);
	free(body);
	return 0;
}
