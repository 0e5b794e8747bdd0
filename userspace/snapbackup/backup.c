// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One backup:
 *
 *	connect ─► choose the base ─► pin, activate ─► plan ─► OPEN ─► send ─► is the generation still there? ─► COMMIT ─► receipt
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup.h"
#include "error.h"
#include "name.h"
#include "pipeline.h"
#include "progress.h"

struct backup {
	const struct backup_options *o;
	struct sm_client client;
	struct base base;
	struct plan plan;
	struct sent sent;
	struct sm_gen_info info;
	struct sm_receipt receipt;
	struct snap_progress *progress;
	bool connected, published;
	int fd;				/* of a stream file */
	char part[PATH_MAX + 8];	/* its name until it is whole */
};

/* ---- where it goes ---- */

static int open_file(struct backup *b, struct sm_err *e)
{
	const char *path = b->o->dest.path;
	struct stat st;

	if (!lstat(path, &st) && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
		b->fd = open(path, O_WRONLY | O_CLOEXEC);	/* a pipe, a tape */
	} else if (!stat(path, &st) && !b->o->force) {
		return sm_fail(e, -EEXIST, "%s: exists (--force replaces it)", path);
	} else {
		snprintf(b->part, sizeof(b->part), "%s.part", path);
		b->fd = open(b->part, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	}
	if (b->fd < 0)
		return sm_fail(e, -errno, "%s: cannot write: %s", path, strerror(errno));
	return 0;
}

static int close_file(struct backup *b, struct sm_err *e)
{
	int fd = b->fd;

	if (!*b->part)
		return 0;
	if (fsync(fd) || rename(b->part, b->o->dest.path))
		return sm_fail(e, -errno, "%s: cannot write: %s", b->o->dest.path, strerror(errno));
	*b->part = '\0';
	return 0;
}

static int open_dest(struct backup *b, struct sm_err *e)
{
	const struct sm_dest *d = &b->o->dest;
	int err;

	if (d->kind == SM_DEST_STDIO || d->kind == SM_DEST_FILE) {
		if (b->o->dry_run) {	/* nothing is opened; the base is chosen as for a stream */
			b->client.oneway = true;
			return 0;
		}
		if (d->kind == SM_DEST_STDIO && isatty(1))
			return sm_fail(e, -EINVAL, "stdout is a terminal: no stream goes there");
		if (d->kind == SM_DEST_FILE && (err = open_file(b, e)))
			return err;
		err = sm_client_stream(&b->client, d->kind == SM_DEST_STDIO ? 1 : b->fd, e);
	} else {
		err = sm_client_connect(&b->client, d, SM_ROLE_BACKUP, e);
	}
	b->connected = !err;
	return err;
}

/* ---- base and plan ---- */

static void say(const struct backup *b, const char *what)
{
	if (!b->o->quiet)
		fprintf(stderr, "%s: %s: %s\n", snap_prog(), b->o->source->name, what);
}

static void say_full(const struct backup *b)
{
	char text[320];

	snprintf(text, sizeof(text), "full backup: %s", b->base.reason);
	if (b->o->base_mode != BASE_NONE)
		say(b, text);
}

static void on_tick(void *arg)
{
	struct backup *b = arg;

	sm_client_keepalive(&b->client);
}

static int make_plan(struct backup *b, struct sm_err *e)
{
	struct source *s = b->o->source;
	int err = base_choose(b->o, &b->client, s->number, &b->base, e);

	if (err)
		return err;
	s->tick = on_tick;
	s->tick_arg = b;
	err = plan_make(&b->plan, s, b->base.number, b->base.size, e);
	if (err == -ENODATA && b->base.number && b->o->base_mode == BASE_AUTO) {
		b->base.number = 0;
		snprintf(b->base.reason, sizeof(b->base.reason), "%.200s", e->text);
		err = plan_make(&b->plan, s, 0, 0, e);
	}
	if (!err && !b->base.number)
		say_full(b);
	return err;
}

static int print_plan(struct backup *b, struct sm_err *e)
{
	const struct plan *p = &b->plan;

	if (b->o->json) {
		printf("{\"base\":%u,\"extents\":[", b->base.number);
		for (size_t i = 0; i < p->ranges.nr; i++) {
			const struct range *r = sm_spill_at(&p->ranges, i);

			printf("%s{\"offset\":%llu,\"length\":%llu%s}", i ? "," : "", (unsigned long long)r->offset,
			       (unsigned long long)r->length, r->zero ? ",\"zero\":true" : "");
		}
		printf("],\"count\":%llu,\"bytes\":%llu}\n", (unsigned long long)p->extents, (unsigned long long)p->bytes);
	} else {
		for (size_t i = 0; i < p->ranges.nr; i++) {
			const struct range *r = sm_spill_at(&p->ranges, i);

			printf("%llu %llu%s\n", (unsigned long long)r->offset, (unsigned long long)r->length, r->zero ? " zero" : "");
		}
		printf("# %llu bytes in %llu extents, before compression%s\n", (unsigned long long)p->bytes,
		       (unsigned long long)p->extents, b->base.number ? "" : ", full backup");
	}
	return fflush(stdout) ? sm_fail(e, -errno, "stdout: %s", strerror(errno)) : 0;
}

/* ---- sending ---- */

static void fill_info(struct backup *b)
{
	const struct source *s = b->o->source;
	struct sm_gen_info *g = &b->info;

	memset(g, 0, sizeof(*g));
	memcpy(g->volume, s->volume, SM_UUID);
	memcpy(g->uuid, s->uuid, SM_UUID);
	g->number = s->number;
	g->has_parent = b->base.number;
	memcpy(g->parent, b->base.manifest, SM_DIGEST);
	g->size = s->size;
	g->created = s->created;
	g->extents = b->plan.extents;
	g->bytes = b->plan.bytes;
	memcpy(g->change_digest, b->plan.digest, SM_DIGEST);
	memcpy(g->volume_name, s->volume_name, sizeof(g->volume_name));
	memcpy(g->label, s->label, sizeof(g->label));
}

static void on_progress(uint64_t done, void *arg)
{
	struct backup *b = arg;

	snap_progress_update(b->progress, done, b->client.chan.bytes_out);
}

static int commit(struct backup *b, struct sm_err *e)
{
	struct sm_manifest m = { .info = b->info, .frames = b->sent.frames, .data_bytes = b->sent.data_bytes,
				 .zero_bytes = b->sent.zero_bytes, .tool = "snapbackup " SNAPDIFF_VERSION };
	struct sm_err note;
	char *text;
	int err;

	memcpy(m.map_hash, b->sent.map_hash, SM_DIGEST);
	text = sm_manifest_text(&m);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	err = sm_client_commit(&b->client, text, &b->receipt, e);
	if (!err && b->fd >= 0)
		err = close_file(b, e);
	if (!err && notes_save(b->o->source, text, &note) && b->client.oneway)
		snap_warn(NULL, "no increment can be put on this stream: %s", note.text);
	free(text);
	return err;
}

static int send_all(struct backup *b, struct sm_err *e)
{
	struct snap_progress_opts po = { .what = b->o->source->name, .quiet = b->o->quiet, .json = b->o->progress_json };
	struct pipeline_options ro = { .level = b->o->level, .progress = on_progress, .arg = b, .stop = b->o->stop };
	char text[128];
	int err;

	if (b->plan.have_bytes) {
		snprintf(text, sizeof(text), "resumed: %llu of %llu bytes are there", (unsigned long long)b->plan.have_bytes,
			 (unsigned long long)b->plan.bytes);
		say(b, text);
	}
	b->progress = snap_progress_start(&po, b->plan.bytes);
	err = pipeline_run(b->o->source, &b->plan, &b->client, &ro, &b->sent, e);
	if (!err)
		err = b->o->source->ops->check(b->o->source, e);
	if (!err)
		err = commit(b, e);
	snap_progress_end(b->progress, !err);
	return err;
}

static void print_receipt(const struct backup *b)
{
	FILE *f = b->o->dest.kind == SM_DEST_STDIO ? stderr : stdout;
	char hash[SM_DIGEST_HEX], base[64] = "full";
	const struct source *s = b->o->source;

	sm_hex(b->receipt.manifest, SM_DIGEST, hash);
	if (b->o->json) {
		json_t *o = json_object();
		char *text;

		sm_json_set_text(o, "volume", s->volume_name);
		json_object_set_new(o, "generation", json_integer(s->number));
		json_object_set_new(o, "base", b->base.number ? json_integer(b->base.number) : json_null());
		json_object_set_new(o, "state", json_string(b->published ? "published" : b->plan.have_bytes ? "resumed" : "new"));
		json_object_set_new(o, "size", json_integer(s->size));
		json_object_set_new(o, "change_bytes", json_integer(b->plan.bytes));
		json_object_set_new(o, "data_bytes", json_integer(b->sent.data_bytes));
		json_object_set_new(o, "zero_bytes", json_integer(b->sent.zero_bytes));
		json_object_set_new(o, "resumed_bytes", json_integer(b->plan.have_bytes));
		json_object_set_new(o, "sent_bytes", json_integer(b->client.chan.bytes_out));
		json_object_set_new(o, "frames", json_integer(b->sent.frames));
		json_object_set_new(o, "sequence", json_integer(b->receipt.sequence));
		json_object_set_new(o, "stored_bytes", json_integer(b->receipt.stored_bytes));
		json_object_set_new(o, "manifest", json_string(hash));
		text = sm_json_canonical(o);
		fprintf(f, "%s\n", text ? text : "{}");
		free(text);
		json_decref(o);
		return;
	}
	if (b->base.number)
		snprintf(base, sizeof(base), "increment on %u", b->base.number);
	if (b->published)
		fprintf(f, "%s: was there already, manifest %s\n", s->name, hash);
	else
		fprintf(f, "%s: %s, %llu bytes%s, %llu sent in %llu frames, manifest %s\n", s->name, base,
			(unsigned long long)b->plan.bytes, b->base.number ? " changed" : "", (unsigned long long)b->client.chan.bytes_out,
			(unsigned long long)b->sent.frames, hash);
}

/* ---- all of it ---- */

static int run(struct backup *b, struct sm_err *e)
{
	struct source *s = b->o->source;
	int err;

	/* Pinned before anybody looks at it, so that what is planned is what is there. */
	if (!b->o->dry_run && (err = s->ops->start(s, e)))
		return err;
	if ((err = open_dest(b, e)) || (err = make_plan(b, e)))
		return err;
	if (b->o->dry_run)
		return print_plan(b, e);
	fill_info(b);
	err = sm_client_open(&b->client, &b->info, &plan_have_ops, &b->plan, &b->receipt, e);
	b->published = err == 1;
	if (err < 0)
		return err;
	if (!err) {
		plan_resume(&b->plan);
		err = send_all(b, e);
		if (err)
			return err;
	}
	print_receipt(b);
	return b->o->keep_bookmark ? s->ops->bookmark(s, e) : 0;
}

int backup_run(const struct backup_options *o, struct sm_err *e)
{
	struct backup *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return sm_fail(e, -ENOMEM, "no memory");
	b->o = o;
	b->fd = -1;
	plan_init(&b->plan);
	err = run(b, e);
	if (b->connected)
		sm_client_end(&b->client, !err);
	if (*b->part)
		unlink(b->part);
	if (b->fd >= 0)
		close(b->fd);
	plan_free(&b->plan);
	free(b);
	return err;
}
