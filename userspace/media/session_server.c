// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The server's side of a session. One thread, one request at a time; everything that comes from the peer is
 * checked where it is parsed (frame.c, extent.c, manifest.c, repo_upload.c), and the peer's name for itself
 * is never asked.
 *
 * Durability and speed: records are synced when half the credit is waiting, or when the peer has been silent
 * for a moment; the ACK is sent after the sync.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "index.h"
#include "session.h"
#include "session_digest.h"
#include "session_restore.h"

#define SYNC_BYTES	(SM_CREDIT / 2)
#define SYNC_IDLE_MS	50
#define HAVE_BATCH	(256u << 10)

struct server {
	struct sm_repo *repo;
	struct sm_chan *chan;
	const struct sm_identity *id;
	uint32_t roles;			/* asked for and granted */
	uint64_t features;		/* the client's */
	struct sm_upload *upload;
	struct sm_digester *digester;
	uint64_t bytes, frames, unsynced;
	uint64_t said;			/* ns; when we last said that we are still here */
	bool peer_gone;			/* sending failed: nobody to tell */
};

/* ---- uploads ---- */

struct have_batch {
	struct sm_chan *chan;
	uint8_t *data;
	size_t len;
	struct {
		struct sm_wire_zero head;
		struct sm_wire_extent x[SM_MAX_EXTENTS];
	} __attribute__((packed)) *zero;
	uint32_t nr_zero;
};

static int flush_have(struct have_batch *b, bool data, bool zero, struct sm_err *e)
{
	int err = 0;

	if (data && b->len) {
		err = sm_chan_send_buf(b->chan, SM_HAVE_DATA, b->data, b->len, e);
		b->len = 0;
	}
	if (!err && zero && b->nr_zero) {
		b->zero->head = (struct sm_wire_zero){ htole32(b->nr_zero), 0 };
		err = sm_chan_send_buf(b->chan, SM_HAVE_ZERO, b->zero,
				       sizeof(b->zero->head) + b->nr_zero * sizeof(b->zero->x[0]), e);
		b->nr_zero = 0;
	}
	return err;
}

static int have_data(const void *head, size_t len, void *arg, struct sm_err *e)
{
	struct have_batch *b = arg;
	int err = b->len + len > HAVE_BATCH ? flush_have(b, true, false, e) : 0;

	memcpy(b->data + b->len, head, len);
	b->len += len;
	return err;
}

static int have_zero(uint64_t offset, uint64_t length, void *arg, struct sm_err *e)
{
	struct have_batch *b = arg;
	int err = b->nr_zero == SM_MAX_EXTENTS ? flush_have(b, false, true, e) : 0;

	b->zero->x[b->nr_zero++] = (struct sm_wire_extent){ htole64(offset), htole64(length) };
	return err;
}

static int send_have(struct server *s, struct sm_err *e)
{
	static const struct sm_have_ops ops = { have_data, have_zero };
	struct have_batch b = { .chan = s->chan, .data = malloc(HAVE_BATCH), .zero = malloc(sizeof(*b.zero)) };
	int err = b.data && b.zero ? sm_upload_have(s->upload, &ops, &b, e) : sm_fail(e, -ENOMEM, "no memory");

	if (!err)
		err = flush_have(&b, true, true, e);
	free(b.data);
	free(b.zero);
	return err;
}

static json_t *receipt_json(const struct sm_receipt *r)
{
	json_t *o = json_object();

	sm_json_set_hex(o, "manifest", r->manifest, SM_DIGEST);
	json_object_set_new(o, "sequence", json_integer(r->sequence));
	json_object_set_new(o, "received", json_integer(r->received));
	json_object_set_new(o, "stored_bytes", json_integer(r->stored_bytes));
	return o;
}

static int do_open(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	struct sm_receipt receipt;
	struct sm_gen_info info;
	int err;

	if (!o)
		return -EPROTO;
	err = sm_gen_info_parse(o, &info, e);
	json_decref(o);
	if (err)
		return err;
	if (!(s->roles & SM_ROLE_BACKUP))
		return sm_fail(e, -EACCES, "this client may not back up");
	if (s->upload) {	/* not to be committed now: the sender cannot read the rest */
		err = sm_upload_sync(s->upload, e);
		sm_upload_close(s->upload);
		s->upload = NULL;
		if (err)
			return err;
	}
	err = sm_upload_open(s->repo, s->id->client, &info, &s->upload, &receipt, e);
	if (!err && s->id->quota)
		err = sm_upload_limit(s->upload, s->id->quota, e);
	if (err < 0)
		return err;
	s->bytes = s->frames = s->unsynced = 0;
	if (err) {
		o = receipt_json(&receipt);
		json_object_set_new(o, "state", json_string("published"));
	} else {
		err = send_have(s, e);
		if (err)
			return err;
		o = json_object();
		json_object_set_new(o, "state", json_string(sm_upload_stored(s->upload) ? "resumed" : "new"));
	}
	json_object_set_new(o, "credit", json_integer(SM_CREDIT));
	return sm_send_json(s->chan, SM_OPENED, o, e);
}

static int ack(struct server *s, struct sm_err *e)
{
	struct sm_wire_ack a = { htole64(s->bytes), htole64(s->frames) };
	int err = sm_upload_sync(s->upload, e);

	if (err)
		return err;
	s->unsynced = 0;
	return sm_chan_send_buf(s->chan, SM_ACK, &a, sizeof(a), e);
}

static int do_record(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	int err;

	if (!s->upload)
		return sm_fail(e, -EPROTO, "data before an upload was opened");
	err = sm_upload_append(s->upload, f->type, f->payload, f->length, e);
	if (err)
		return err;
	s->bytes += f->length;
	s->frames++;
	s->unsynced += f->length;
	return s->unsynced >= SYNC_BYTES ? ack(s, e) : 0;
}

static int do_commit(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	struct sm_receipt receipt;
	int err;

	if (!s->upload)
		return sm_fail(e, -EPROTO, "commit before an upload was opened");
	err = sm_upload_commit(s->upload, (const char *)f->payload, f->length, &receipt, e);
	if (err)
		return err;
	sm_upload_close(s->upload);
	s->upload = NULL;
	return sm_send_json(s->chan, SM_COMMITTED, receipt_json(&receipt), e);
}

/* ---- lists and restores ---- */

static int send_generation(struct server *s, uint16_t type, const struct sm_generation *g, bool damaged, struct sm_err *e)
{
	char *text = sm_manifest_text(&g->manifest);
	json_t *o = json_object();
	uint8_t hash[SM_DIGEST];

	if (text)
		sm_sha256(text, strlen(text), hash);
	if (!text || !o || memcmp(hash, g->hash, SM_DIGEST)) {
		free(text);
		json_decref(o);
		return sm_fail(e, text && o ? -EUCLEAN : -ENOMEM, "generation %u: cannot be told", g->manifest.info.number);
	}
	json_object_set_new(o, "manifest", json_string(text));
	json_object_set_new(o, "sequence", json_integer(g->sequence));
	json_object_set_new(o, "received", json_integer(g->received));
	json_object_set_new(o, "stored_bytes", json_integer(g->stored_bytes));
	if (damaged)
		json_object_set_new(o, "damaged", json_true());
	free(text);
	return sm_send_json(s->chan, type, o, e);
}

static int newest_first(const void *a, const void *b)
{
	const struct sm_brief *x = a, *y = b;

	return x->sequence > y->sequence ? -1 : x->sequence < y->sequence;
}

static int by_number(const void *a, const void *b)
{
	const struct sm_brief *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

/* The @newest of a volume by sequence, told by number. */
static int list_volume(struct server *s, const char *vid, uint64_t newest, uint64_t *damaged, struct sm_err *e)
{
	struct sm_numbers hurt;
	struct sm_generation g;
	struct sm_briefs b;
	int err = sm_briefs_load(s->repo, vid, &b, e);

	if (err)
		return err;
	sm_damaged_load(s->repo, vid, &hurt);
	*damaged += b.damaged.nr;
	if (b.nr > newest) {
		qsort(b.v, b.nr, sizeof(*b.v), newest_first);
		b.nr = newest;
		qsort(b.v, b.nr, sizeof(*b.v), by_number);
	}
	for (size_t i = 0; !err && i < b.nr; i++) {
		err = sm_repo_generation(s->repo, vid, b.v[i].number, &g, e);
		if (err == -ENOENT || sm_manifest_lost(err)) {	/* pruned meanwhile; or see sm_briefs_load() */
			*damaged += err != -ENOENT;
			err = 0;
			continue;
		}
		if (!err) {
			err = send_generation(s, SM_LISTED, &g, sm_numbers_have(&hurt, b.v[i].number), e);
			sm_generation_done(&g);
		}
	}
	free(hurt.v);
	sm_briefs_free(&b);
	return err;
}

static int list_volumes(struct server *s, const char *which, uint64_t newest, uint64_t *damaged, struct sm_err *e)
{
	char (*vids)[SM_VID_TEXT], vid[SM_VID_TEXT];
	size_t nr;
	int err;

	if (which) {
		err = sm_repo_find(s->repo, s->id->client, which, vid, e);
		return err ? err : list_volume(s, vid, newest, damaged, e);
	}
	err = sm_repo_volumes(s->repo, s->id->client, &vids, &nr, e);
	if (err)
		return err;
	for (size_t i = 0; !err && i < nr; i++)
		err = list_volume(s, vids[i], newest, damaged, e);
	free(vids);
	return err;
}

static int do_list(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	uint64_t newest = UINT32_MAX, damaged = 0;
	int err = 0;

	if (!o)
		return -EPROTO;
	if (!(s->roles & (SM_ROLE_BACKUP | SM_ROLE_RESTORE))) {
		json_decref(o);
		return sm_fail(e, -EACCES, "this client may neither back up nor restore");
	}
	if (json_object_get(o, "newest"))
		err = sm_json_u64(o, "newest", UINT32_MAX, &newest, e);
	if (!err)
		err = list_volumes(s, json_string_value(json_object_get(o, "volume")), newest, &damaged, e);
	json_decref(o);
	/* "Nothing there" is an answer: the list is empty. */
	if (err && err != -ENOENT)
		return err;
	o = json_object();
	if (damaged)
		json_object_set_new(o, "damaged", json_integer(damaged));
	return sm_send_json(s->chan, SM_END, o, e);
}

/* ---- what a restore is proven by ---- */

static int send_proven(const char *text, size_t len, void *arg, struct sm_err *e)
{
	return sm_chan_send_buf(((struct server *)arg)->chan, SM_PROVEN, text, len, e);
}

static int send_proof_chunk(const void *buf, size_t len, void *arg, struct sm_err *e)
{
	return sm_chan_send_buf(((struct server *)arg)->chan, SM_PROOF, buf, len, e);
}

static int send_proof(struct server *s, const struct sm_generation *g, struct sm_err *e)
{
	static const struct sm_proof_ops ops = { send_proven, send_proof_chunk };
	int err = sm_repo_proof(s->repo, g->vid, g->hash, &ops, s, e);

	return err ? err : sm_send_json(s->chan, SM_END, json_object(), e);
}

static int restore_generation(struct server *s, const json_t *o, uint32_t number, struct sm_err *e)
{
	struct sm_extent *x = malloc(SM_MAX_RANGES * sizeof(*x));
	struct sm_generation g;
	struct sm_image *img;
	char vid[SM_VID_TEXT];
	int err = x ? 0 : sm_fail(e, -ENOMEM, "no memory"), nr;

	if (err || (err = sm_repo_find(s->repo, s->id->client, json_string_value(json_object_get(o, "volume")), vid, e)) ||
	    (err = sm_repo_generation(s->repo, vid, number, &g, e))) {
		free(x);
		return err;
	}
	nr = sm_ranges_parse(o, g.manifest.info.size, x, e);
	err = nr < 0 ? nr : sm_image_open(s->repo, &g, &img, e);
	if (!err) {
		err = send_generation(s, SM_RESTORING, &g, false, e);
		if (!err && json_is_true(json_object_get(o, "proof"))) {
			sm_image_verbatim(img);
			err = send_proof(s, &g, e);
		}
		if (!err)
			err = sm_send_image(s->chan, img, s->features & SM_FEATURE_PARTS, x, nr, e);
		sm_image_close(img);
	}
	sm_generation_done(&g);
	free(x);
	return err;
}

static int do_restore(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	uint64_t number;
	int err;

	if (!o)
		return -EPROTO;
	err = sm_json_u64(o, "generation", UINT32_MAX, &number, e);
	if (!err && !(s->roles & SM_ROLE_RESTORE))
		err = sm_fail(e, -EACCES, "this client may not restore");
	if (!err)
		err = restore_generation(s, o, number, e);
	json_decref(o);
	return err;
}

static int do_digest(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	if (!(s->roles & (SM_ROLE_BACKUP | SM_ROLE_RESTORE)))
		return sm_fail(e, -EACCES, "this client may neither back up nor restore");
	return sm_digester_answer(&s->digester, s->repo, s->id->client, f, s->chan, e);
}

/* ---- orders ---- */

static int send_row(json_t *row, void *arg)
{
	struct server *s = arg;

	return sm_send_json(s->chan, SM_ROW, row, NULL);
}

/* Long work: the peer learns that we are still at it. */
static void still_here(void *arg)
{
	struct server *s = arg;
	uint64_t now = sm_now_ns();

	if (now - s->said < 30000000000ull)
		return;
	s->said = now;
	sm_chan_send(s->chan, SM_KEEPALIVE, SM_F_OPTIONAL, NULL, 0, NULL);
}

static int do_order(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	const struct sm_admin a = { send_row, still_here, s };
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	const char *verb = json_string_value(json_object_get(o, "verb"));
	uint32_t roles = verb ? sm_admin_roles(verb) : 0;
	int err;

	if (!o)
		return -EPROTO;
	if (!roles)
		err = sm_fail(e, -EINVAL, "an order that is not known here");
	else if (!(s->roles & roles))
		err = sm_fail(e, -EACCES, "this client may not %s", verb);
	else
		err = sm_admin(s->repo, o, &a, e);
	json_decref(o);
	return err ? err : sm_send_json(s->chan, SM_END, json_object(), e);
}

/* ---- the session ---- */

static int greet(struct server *s, struct sm_err *e)
{
	struct sm_wire_hello h;
	struct sm_frame f;
	int r = sm_chan_recv(s->chan, &f, e);

	if (r <= 0)
		return r ? r : sm_fail(e, -EPIPE, "the peer left without a word");
	r = sm_check_hello(&f, &h, e);
	if (r)
		return r;
	s->roles = le32toh(h.roles) & s->id->roles;
	s->features = le64toh(h.features);
	return sm_send_hello(s->chan, s->roles, s->repo->uuid, e);
}

static int dispatch(struct server *s, const struct sm_frame *f, struct sm_err *e)
{
	switch (f->type) {
	case SM_OPEN:
		return do_open(s, f, e);
	case SM_DATA:
	case SM_ZERO:
		return do_record(s, f, e);
	case SM_COMMIT:
		return do_commit(s, f, e);
	case SM_LIST:
		return do_list(s, f, e);
	case SM_RESTORE:
		return do_restore(s, f, e);
	case SM_DIGEST_OF:
		return do_digest(s, f, e);
	case SM_ORDER:
		return do_order(s, f, e);
	default:
		return sm_fail(e, -EPROTO, "frame of type %u is not for a server", f->type);
	}
}

/* Nothing more coming for a moment: what is there becomes durable, and the peer learns it. */
static int idle_sync(struct server *s, struct sm_err *e)
{
	if (!s->upload || !s->unsynced || sm_chan_pending(s->chan, SYNC_IDLE_MS))
		return 0;
	return ack(s, e);
}

static int serve(struct server *s, struct sm_err *e)
{
	struct sm_frame f;
	int r = greet(s, e);

	while (!r) {
		r = idle_sync(s, e);
		if (r)
			break;
		r = sm_chan_recv(s->chan, &f, e);
		if (r <= 0)
			break;
		if (f.type == SM_BYE)
			return 0;
		if (f.type == SM_ERROR)
			return sm_fail(e, -EPROTO, "the peer gave up");
		r = dispatch(s, &f, e);
	}
	return r;
}

int sm_serve(struct sm_repo *r, struct sm_chan *c, const struct sm_identity *id, struct sm_err *e)
{
	struct server s = { .repo = r, .chan = c, .id = id };
	struct sm_err mine = { 0 };
	int err = serve(&s, &mine);

	sm_digester_free(s.digester);
	if (s.upload) {
		/* What arrived stays, for the next session. */
		sm_upload_sync(s.upload, NULL);
		sm_upload_close(s.upload);
	}
	if (err && err != -EPIPE && err != -ECONNRESET && err != -ETIMEDOUT)
		sm_send_error(c, err, err == -EINTR ? "the server is stopping; run it again later" : mine.text);
	if (err && e)
		*e = mine;
	return err;
}
