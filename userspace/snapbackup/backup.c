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
#include <unistd.h>

#include "backup.h"
#include "compare.h"
#include "error.h"
#include "name.h"
#include "outfile.h"
#include "pipeline.h"
#include "progress.h"

struct backup {
	const struct backup_options *o;
	struct sm_client client;
	struct outfile out;		/* of a stream, or another format */
	struct base base;
	struct audit audit;
	struct plan plan;
	struct sent sent;
	struct sm_sealer sealer;
	uint64_t sent_bytes;		/* of a format */
	struct sm_gen_info info;
	struct sm_receipt receipt;
	struct snap_progress *progress;
	bool connected, published;
};

/* ---- where it goes ---- */

static bool one_way(const struct sm_dest *d)
{
	return d->kind == SM_DEST_STDIO || d->kind == SM_DEST_FILE;
}

static int open_dest(struct backup *b, struct sm_err *e)
{
	const struct backup_options *o = b->o;
	const struct sm_dest *d = &o->dest;
	int err;

	b->client.oneway = one_way(d);
	if (o->format != FORMAT_STREAM && !b->client.oneway)
		return sm_fail(e, -EINVAL, "%s: only a file or - takes another format", o->dest_text);
	if (o->key && o->format != FORMAT_STREAM)
		return sm_fail(e, -EINVAL, "%s: another format has no encryption", o->dest_text);
	if (b->client.oneway && (o->compare || o->audit))
		return sm_fail(e, -EINVAL, "%s: only a media server can be compared with", o->dest_text);
	if (b->client.oneway && o->dry_run)
		return 0;	/* nothing is opened; the base is chosen as for a stream */
	if (b->client.oneway && (err = outfile_open(&b->out, d, o->force, e)))
		return err;
	if (o->format != FORMAT_STREAM)
		return 0;
	err = b->client.oneway ? sm_client_stream(&b->client, b->out.fd, e) :
				 sm_client_connect(&b->client, d, SM_ROLE_BACKUP, e);
	b->connected = !err;
	if (!err && o->key && !b->client.oneway && !(b->client.features & SM_FEATURE_SEALED))
		err = sm_fail(e, -EPROTO, "%s: the media server is too old for --encrypt", o->dest_text);
	return err;
}

/* ---- base and plan ---- */

static void say(const struct backup *b, const char *what)
{
	if (!b->o->quiet)
		fprintf(stderr, "%s: %s: %s\n", snap_prog(), b->o->source->name, what);
}

static void say_base(const struct backup *b)
{
	char text[400];

	if (b->o->base_mode == BASE_NONE || b->o->format == FORMAT_RAW)
		return;
	if (!b->base.number)
		snprintf(text, sizeof(text), "full backup: %s", b->base.reason);
	else
		snprintf(text, sizeof(text), "increment on %u%s: %s", b->base.number, b->base.compare ? ", found by comparing" : "",
			 b->base.reason);
	say(b, text);
}

static void on_tick(void *arg)
{
	struct backup *b = arg;

	sm_client_keepalive(&b->client);
}

static void on_compared(uint64_t bytes, void *arg)
{
	struct backup *b = arg;

	snap_progress_update(b->progress, bytes, b->client.chan.bytes_in);
}

static void begin_compare(struct backup *b, struct compare *c, const char *what, uint64_t total)
{
	char text[SM_NAME_MAX + 32];
	struct snap_progress_opts po = { .what = text, .quiet = b->o->quiet, .json = b->o->progress_json };

	snprintf(text, sizeof(text), "%s %s", what, b->o->source->name);
	*c = (struct compare){ .source = b->o->source, .client = &b->client, .base = &b->base, .stop = b->o->stop,
			       .progress = on_compared, .arg = b };
	b->progress = snap_progress_start(&po, total);
}

static int make_compared(struct backup *b, struct sm_err *e)
{
	struct source *s = b->o->source;
	struct sm_spill raw;
	struct compare c;
	int err;

	/* A dry run reads, too: there is no other way to know. */
	if (b->o->dry_run && !b->o->measure && !b->o->audit && (err = s->ops->start(s, e)))
		return err;
	sm_spill_init(&raw, sizeof(struct range), NULL);
	begin_compare(b, &c, "comparing", s->size);
	err = compare_all(&c, &raw, e);
	snap_progress_end(b->progress, !err);
	if (!err)
		err = plan_take(&b->plan, s, &raw, b->base.size, e);
	sm_spill_free(&raw);
	return err;
}

/* Before anything is sent: what the list of changes leaves out is what the media server has of the base. */
static int run_audit(struct backup *b, struct sm_err *e)
{
	struct audit *a = &b->audit;
	struct compare c;
	int err;

	if (!b->base.number || b->base.compare) {
		say(b, "nothing to audit: no list of changes is relied on");
		return 0;
	}
	if (!(b->client.features & SM_FEATURE_DIGESTS))
		return sm_fail(e, -EPROTO, "%s: the media server is too old for --audit", b->o->dest_text);
	a->share = b->o->audit;
	begin_compare(b, &c, "auditing", 0);
	err = audit_run(&c, &b->plan.ranges, a, e);
	snap_progress_end(b->progress, !err);
	if (err)
		return err;
	if (a->differ)
		return sm_fail(e, BACKUP_AUDIT,
			       "%s: AUDIT: %llu blocks differ from generation %u on %s though they are not in the list of changes, the first at offset %llu: the volume was written without us, or changes were missed. Nothing was sent; --compare sends what differs",
			       b->o->source->name, (unsigned long long)a->differ, b->base.number, b->o->dest_text,
			       (unsigned long long)a->first);
	return 0;
}

static int make_plan(struct backup *b, struct sm_err *e)
{
	struct source *s = b->o->source;
	int err = base_choose(b->o, &b->client, s->number, &b->base, e);

	if (err)
		return err;
	say_base(b);
	s->tick = on_tick;
	s->tick_arg = b;
	if (b->base.compare)
		return make_compared(b, e);
	err = plan_make(&b->plan, s, b->base.number, b->base.size, e);
	if (err == -ENODATA && b->base.number && b->o->base_mode == BASE_AUTO) {
		b->base.number = 0;
		snprintf(b->base.reason, sizeof(b->base.reason), "%.200s", e->text);
		say_base(b);
		err = plan_make(&b->plan, s, 0, 0, e);
	}
	return err;
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
	g->sealed = b->o->key;
	if (g->sealed)
		memcpy(g->seal_id, b->o->key->id, SM_SECRET_ID);
}

static void on_progress(uint64_t done, uint64_t out, void *arg)
{
	struct backup *b = arg;

	snap_progress_update(b->progress, done, out);
}

/* Read all of the plan and write it; then the last look at the source. */
static int run_pipeline(struct backup *b, struct sink *k, struct sm_err *e)
{
	struct snap_progress_opts po = { .what = b->o->source->name, .quiet = b->o->quiet, .json = b->o->progress_json };
	struct pipeline_options ro = { .level = b->o->level, .rate = b->o->dry_run ? 0 : b->o->rate, .progress = on_progress, .arg = b,
				       .stop = b->o->stop, .sealer = b->o->key ? &b->sealer : NULL };
	struct source *s = b->o->source;
	int err = k ? 0 : sm_fail(e, -ENOMEM, "no memory");

	if (!err && b->o->key)
		err = sm_sealer_init(&b->sealer, b->o->key, s->volume, s->uuid, e);
	if (err)
		return err;
	b->progress = snap_progress_start(&po, b->plan.bytes);
	err = pipeline_run(s, &b->plan, k, &ro, e);
	if (!err)
		err = s->ops->check(s, e);
	if (!err && k->end)
		err = k->end(k, e);
	b->sent_bytes = k->bytes_out;
	k->free(k);
	return err;
}

static int commit(struct backup *b, struct sm_err *e)
{
	struct sm_manifest m = { .info = b->info, .frames = b->sent.frames, .data_bytes = b->sent.data_bytes,
				 .zero_bytes = b->sent.zero_bytes, .tool = "snapbackup " SNAPDIFF_VERSION };
	struct sm_err note;
	char *text;
	int err;

	memcpy(m.map_hash, b->sent.map_hash, SM_DIGEST);
	if (b->o->key && (err = sm_seal_manifest(b->o->key, &m, e)))
		return err;
	text = sm_manifest_text(&m);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	err = sm_client_commit(&b->client, text, &b->receipt, e);
	if (!err && b->client.oneway)
		err = outfile_finish(&b->out, e);
	if (!err && notes_save(b->o->source, text, &note) && b->client.oneway)
		snap_warn(NULL, "no increment can be put on this stream: %s", note.text);
	free(text);
	return err;
}

static int send_all(struct backup *b, struct sm_err *e)
{
	char text[128];
	int err;

	if (b->plan.have_bytes) {
		snprintf(text, sizeof(text), "resumed: %llu of %llu bytes are there", (unsigned long long)b->plan.have_bytes,
			 (unsigned long long)b->plan.bytes);
		say(b, text);
	}
	err = run_pipeline(b, sink_frames(&b->client, &b->plan, &b->sent), e);
	if (!err)
		err = commit(b, e);
	snap_progress_end(b->progress, !err);
	return err;
}

/* ---- other formats ---- */

/* A snapshot's name says which generation it is, where that is known, so that a diff does not fit on another of the same number. */
static void snap_name(uint32_t number, const uint8_t uuid[SM_UUID], bool with_uuid, char name[64])
{
	char text[SM_UUID_TEXT] = "";

	if (with_uuid)
		sm_uuid_format(uuid, text);
	snprintf(name, 64, with_uuid ? "snapdiff-%u-%.8s" : "snapdiff-%u", number, text);
}

static int format_sink(struct backup *b, int fd, bool fresh, struct sink **k, struct sm_err *e)
{
	const struct source *s = b->o->source;
	char from[64], to[64];

	if (b->o->format == FORMAT_RAW) {
		*k = sink_raw(fd, s->size, fresh, &b->sent);
		return 0;
	}
	snap_name(b->base.number, b->base.uuid, s->known_uuids, from);
	snap_name(s->number, s->uuid, s->known_uuids, to);
	return sink_rbd(fd, b->base.number ? from : NULL, to, s->size, &b->sent, k, e);
}

static int write_format(struct backup *b, struct sm_err *e)
{
	struct sink *k;
	int err = format_sink(b, b->out.fd, outfile_new(&b->out), &k, e);

	if (!err)
		err = run_pipeline(b, k, e);
	if (!err)
		err = outfile_finish(&b->out, e);
	snap_progress_end(b->progress, !err);
	return err;
}

/* Everything but the writing. Of a stream's frames the payloads are counted: they are the same to a server. */
static int measure(struct backup *b, struct sm_err *e)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), err;
	struct sm_client null;
	struct sink *k = NULL;

	if (fd < 0)
		return sm_fail(e, -errno, "/dev/null: %s", strerror(errno));
	if (b->o->format == FORMAT_STREAM) {
		err = sm_client_stream(&null, fd, e);
		k = sink_frames(&null, &b->plan, &b->sent);
	} else {
		err = format_sink(b, fd, false, &k, e);
	}
	if (!err)
		err = run_pipeline(b, k, e);
	snap_progress_end(b->progress, !err);
	if (b->o->format == FORMAT_STREAM)
		sm_client_end(&null, false);
	close(fd);
	return err;
}

static const char *const format_names[] = { "stream", "rbd-diff", "raw" };

static void print_json(FILE *f, json_t *o)
{
	char *text = sm_json_canonical(o);

	fprintf(f, "%s\n", text ? text : "{}");
	free(text);
	json_decref(o);
}

static void print_written(const struct backup *b)
{
	FILE *f = b->out.fd == 1 ? stderr : stdout;
	const struct source *s = b->o->source;
	json_t *o;

	if (!b->o->json) {
		fprintf(f, "%s: %s, %llu bytes written\n", s->name, format_names[b->o->format], (unsigned long long)b->sent_bytes);
		return;
	}
	o = json_object();
	json_object_set_new(o, "generation", json_integer(s->number));
	json_object_set_new(o, "base", b->base.number ? json_integer(b->base.number) : json_null());
	json_object_set_new(o, "format", json_string(format_names[b->o->format]));
	json_object_set_new(o, "size", json_integer(s->size));
	json_object_set_new(o, "change_bytes", json_integer(b->plan.bytes));
	json_object_set_new(o, "data_bytes", json_integer(b->sent.data_bytes));
	json_object_set_new(o, "zero_bytes", json_integer(b->sent.zero_bytes));
	json_object_set_new(o, "sent_bytes", json_integer(b->sent_bytes));
	print_json(f, o);
}

static void print_receipt(const struct backup *b)
{
	FILE *f = b->o->dest.kind == SM_DEST_STDIO ? stderr : stdout;
	char hash[SM_DIGEST_HEX], base[64] = "full";
	const struct source *s = b->o->source;

	sm_hex(b->receipt.manifest, SM_DIGEST, hash);
	if (b->o->json) {
		json_t *o = json_object();

		sm_json_set_text(o, "volume", s->volume_name);
		json_object_set_new(o, "generation", json_integer(s->number));
		json_object_set_new(o, "base", b->base.number ? json_integer(b->base.number) : json_null());
		json_object_set_new(o, "compared", json_boolean(b->base.compare));
		json_object_set_new(o, "audited_bytes", json_integer(b->audit.bytes));
		json_object_set_new(o, "state", json_string(b->published ? "published" : b->plan.have_bytes ? "resumed" : "new"));
		json_object_set_new(o, "size", json_integer(s->size));
		json_object_set_new(o, "change_bytes", json_integer(b->plan.bytes));
		json_object_set_new(o, "data_bytes", json_integer(b->sent.data_bytes));
		json_object_set_new(o, "zero_bytes", json_integer(b->sent.zero_bytes));
		json_object_set_new(o, "resumed_bytes", json_integer(b->plan.have_bytes));
		json_object_set_new(o, "sent_bytes", json_integer(b->client.chan.bytes_out));
		json_object_set_new(o, "frames", json_integer(b->sent.frames));
		json_object_set_new(o, "payload_bytes", json_integer(b->sent.payload_bytes));
		json_object_set_new(o, "sequence", json_integer(b->receipt.sequence));
		json_object_set_new(o, "stored_bytes", json_integer(b->receipt.stored_bytes));
		json_object_set_new(o, "manifest", json_string(hash));
		print_json(f, o);
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

/* ---- dry run ---- */

static void print_ranges(const struct plan *p, bool json)
{
	for (size_t i = 0; i < p->ranges.nr; i++) {
		const struct range *r = sm_spill_at(&p->ranges, i);
		unsigned long long offset = r->offset, length = r->length;

		if (json)
			printf("%s{\"offset\":%llu,\"length\":%llu%s}", i ? "," : "", offset, length, r->zero ? ",\"zero\":true" : "");
		else
			printf("%llu %llu%s\n", offset, length, r->zero ? " zero" : "");
	}
}

static void print_measured(const struct backup *b, bool json)
{
	bool stream = b->o->format == FORMAT_STREAM;
	unsigned long long frames = b->sent.frames, out = stream ? b->sent.payload_bytes : b->sent_bytes;

	if (json)
		printf(",\"data_bytes\":%llu,\"zero_bytes\":%llu,\"frames\":%llu,\"%s\":%llu", (unsigned long long)b->sent.data_bytes,
		       (unsigned long long)b->sent.zero_bytes, frames, stream ? "payload_bytes" : "sent_bytes", out);
	else
		printf("# %llu bytes of data, %llu of zeros: %llu bytes %s\n", (unsigned long long)b->sent.data_bytes,
		       (unsigned long long)b->sent.zero_bytes, out, stream ? "in frames, compressed" : "written");
}

static int print_plan(const struct backup *b, struct sm_err *e)
{
	const struct plan *p = &b->plan;
	const struct base *base = &b->base;

	if (b->o->json) {
		json_t *reason = json_string(base->reason);
		char *text = json_dumps(reason, JSON_ENCODE_ANY);

		printf("{\"base\":%u,\"reason\":%s,\"extents\":[", base->number, text ? text : "\"\"");
		print_ranges(p, true);
		printf("],\"count\":%llu,\"bytes\":%llu", (unsigned long long)p->extents, (unsigned long long)p->bytes);
		if (b->o->measure)
			print_measured(b, true);
		printf("}\n");
		free(text);
		json_decref(reason);
	} else {
		print_ranges(p, false);
		printf("# %llu bytes in %llu extents, before compression%s\n", (unsigned long long)p->bytes,
		       (unsigned long long)p->extents, base->number ? "" : ", full backup");
		if (b->o->measure)
			print_measured(b, false);
	}
	return fflush(stdout) ? sm_fail(e, -errno, "stdout: %s", strerror(errno)) : 0;
}

/* ---- all of it ---- */

static int same_seal(const struct sm_listed *l, void *arg)
{
	const struct backup *b = arg;
	const struct sm_gen_info *g = &l->manifest.info, *mine = &b->info;

	if (memcmp(g->uuid, mine->uuid, SM_UUID))
		return 0;
	return !g->sealed != !mine->sealed || memcmp(g->seal_id, mine->seal_id, SM_SECRET_ID) ? -EEXIST : 0;
}

/* It is there already; but as somebody wants it who says --encrypt? */
static int check_published(struct backup *b, struct sm_err *e)
{
	char uuid[SM_UUID_TEXT];
	int err;

	if (!b->o->key)
		return 0;
	sm_uuid_format(b->info.volume, uuid);
	err = sm_client_list(&b->client, uuid, 0, same_seal, b, e);
	return err == -EEXIST ? sm_fail(e, err, "%s: generation %u is on %s already, and not encrypted with this key", b->o->source->name,
					b->info.number, b->o->dest_text) : err;
}

static int send_generation(struct backup *b, struct sm_err *e)
{
	int err;

	fill_info(b);
	err = sm_client_open(&b->client, &b->info, &plan_have_ops, &b->plan, &b->receipt, e);
	b->published = err == 1;
	if (err < 0)
		return err;
	if (err && (err = check_published(b, e)))
		return err;
	if (!b->published) {
		plan_resume(&b->plan);
		/* What is not sent gets into the manifest with the rest, and nobody will look at it again. */
		err = plan_check_have(&b->plan, b->o->source, b->o->key, e);
		if (err)
			return err;
		err = send_all(b, e);
		if (err)
			return err;
	}
	print_receipt(b);
	return 0;
}

static int run(struct backup *b, struct sm_err *e)
{
	const struct backup_options *o = b->o;
	struct source *s = o->source;
	int err;

	/* Pinned before anybody looks at it, so that what is planned is what is there. */
	if ((!o->dry_run || o->measure || o->audit) && (err = s->ops->start(s, e)))
		return err;
	if ((err = open_dest(b, e)) || (err = make_plan(b, e)) || (o->audit && (err = run_audit(b, e))))
		return err;
	if (o->dry_run) {
		err = o->measure ? measure(b, e) : 0;
		return err ? err : print_plan(b, e);
	}
	if (o->format == FORMAT_STREAM) {
		err = send_generation(b, e);
	} else {
		err = write_format(b, e);
		if (!err)
			print_written(b);
	}
	return !err && o->keep_bookmark ? s->ops->bookmark(s, e) : err;
}

int backup_run(const struct backup_options *o, struct sm_err *e)
{
	struct backup *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return sm_fail(e, -ENOMEM, "no memory");
	b->o = o;
	b->out.fd = -1;
	plan_init(&b->plan);
	err = run(b, e);
	if (b->connected)
		sm_client_end(&b->client, !err);
	outfile_close(&b->out);
	plan_free(&b->plan);
	free(b);
	return err;
}
