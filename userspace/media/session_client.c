// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients.h"
#include "session.h"

#define SILENCE_MS	(15 * 60 * 1000)
#define KEEPALIVE_NS	60000000000ull

/* The next frame, an end or an ERROR being errors. */
static int expect(struct sm_client *c, struct sm_frame *f, struct sm_err *e)
{
	int r = sm_chan_recv(&c->chan, f, e);

	if (r < 0)
		return r;
	if (!r)
		return sm_fail(e, -EPIPE, "%s: closed the connection", c->peer);
	return f->type == SM_ERROR ? sm_remote_error(c->peer, f, e) : 0;
}

static int unexpected(const struct sm_client *c, const struct sm_frame *f, struct sm_err *e)
{
	return sm_fail(e, -EPROTO, "%s: sent a frame of type %u now", c->peer, f->type);
}

/* Sending fails when the server has given up; why is the better message, and it may be waiting for us. */
static int send_failed(struct sm_client *c, int err, struct sm_err *e)
{
	struct sm_frame f;

	struct sm_err why;
	int r;

	if (c->oneway || (err != -EPIPE && err != -ECONNRESET))
		return err;
	while ((r = sm_chan_recv(&c->chan, &f, &why)) > 0)
		if (f.type == SM_ERROR)
			return sm_remote_error(c->peer, &f, e);
	return r == -EACCES ? sm_fail(e, r, "%s", why.text) : err;
}

static int hello(struct sm_client *c, uint32_t role, struct sm_err *e)
{
	char text[SM_ROLES_TEXT];
	struct sm_wire_hello h;
	struct sm_frame f;
	int err;

	err = sm_send_hello(&c->chan, role, NULL, e);
	if (err)
		return send_failed(c, err, e);
	if ((err = expect(c, &f, e)) || (err = sm_check_hello(&f, &h, e)))
		return err;
	memcpy(c->repository, h.repository, SM_UUID);
	c->features = le64toh(h.features);
	c->roles = le32toh(h.roles) & role;
	if (!c->roles)
		return sm_fail(e, -EACCES, "%s: this client does not have the role that it takes (%s)",
			       c->peer, sm_roles_text(role, text));
	return 0;
}

int sm_client_connect(struct sm_client *c, const struct sm_dest *d, uint32_t role, struct sm_err *e)
{
	int err;

	memset(c, 0, sizeof(*c));
	c->peer = d->agent ? "agent" : "media server";
	err = sm_carrier_open(d, &c->carrier, e);
	if (err)
		return err;
	sm_chan_init(&c->chan, c->carrier.in, c->carrier.out);
	c->chan.tls = c->carrier.tls;
	c->chan.timeout_ms = SILENCE_MS;
	c->credit = SM_CREDIT;
	c->kept_alive = sm_now_ns();
	err = hello(c, role, e);
	if (err)
		sm_client_end(c, false);
	return err;
}

int sm_client_stream(struct sm_client *c, int fd, struct sm_err *e)
{
	memset(c, 0, sizeof(*c));
	c->oneway = true;
	c->peer = "stream";
	c->carrier.in = c->carrier.out = -1;
	sm_chan_init(&c->chan, -1, fd);
	return sm_send_hello(&c->chan, SM_ROLE_BACKUP, NULL, e);
}

void sm_client_keepalive(struct sm_client *c)
{
	uint64_t now = sm_now_ns();

	if (c->oneway || now - c->kept_alive < KEEPALIVE_NS)
		return;
	c->kept_alive = now;
	sm_chan_send(&c->chan, SM_KEEPALIVE, SM_F_OPTIONAL, NULL, 0, NULL);	/* the next request finds out */
}

void sm_client_end(struct sm_client *c, bool ok)
{
	if (ok)
		sm_chan_send(&c->chan, SM_BYE, 0, NULL, 0, NULL);
	sm_chan_free(&c->chan);		/* first: TLS says goodbye through the socket */
	sm_carrier_close(&c->carrier);
}

static json_t *volume_json(const char *volume)
{
	json_t *o = json_object();

	if (volume)
		sm_json_set_text(o, "volume", volume);
	else
		json_object_set_new(o, "volume", json_null());
	return o;
}

static int take_list_end(struct sm_client *c, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	int err = 0;

	if (!o)
		return -EPROTO;
	c->damaged = 0;
	if (json_object_get(o, "damaged"))
		err = sm_json_u64(o, "damaged", INT64_MAX, &c->damaged, e);
	json_decref(o);
	return err;
}

int sm_client_list(struct sm_client *c, const char *volume, uint32_t newest, int (*fn)(const struct sm_listed *, void *), void *arg,
		   struct sm_err *e)
{
	json_t *o = volume_json(volume);
	struct sm_listed l;
	struct sm_frame f;
	int err, stop = 0;

	if (newest)
		json_object_set_new(o, "newest", json_integer(newest));
	err = sm_send_json(&c->chan, SM_LIST, o, e);
	while (!err && !(err = expect(c, &f, e))) {
		if (f.type == SM_END)
			return stop ? stop : take_list_end(c, &f, e);
		if (f.type == SM_ACK)	/* of an upload before that was left */
			continue;
		if (f.type != SM_LISTED)
			return unexpected(c, &f, e);
		err = sm_listed_parse(&f, &l, e);
		if (!err && !stop)
			stop = fn(&l, arg);
	}
	return err;
}

/* ---- upload ---- */

static int take_have(const struct sm_frame *f, uint64_t size, const struct sm_have_ops *have, void *arg,
		     struct sm_err *e)
{
	const struct sm_wire_extent *w;
	struct sm_data d;
	uint32_t nr;
	int err = 0;

	if (f->type == SM_HAVE_ZERO) {
		err = sm_zero_parse(f->payload, f->length, size, &w, &nr, e);
		for (uint32_t i = 0; !err && i < nr; i++) {
			struct sm_extent x = sm_extent_at(w, i);

			err = have->zero(x.offset, x.length, arg, e);
		}
		return err;
	}
	for (size_t at = 0; !err && at < f->length; at += d.head_length) {
		err = sm_data_parse(f->payload + at, f->length - at, size, true, &d, e);
		if (!err)
			err = have->data(f->payload + at, d.head_length, arg, e);
	}
	return err;
}

static int parse_receipt(const json_t *o, struct sm_receipt *r, struct sm_err *e)
{
	int err;

	if ((err = sm_json_digest(o, "manifest", r->manifest, e)) ||
	    (err = sm_json_u64(o, "sequence", INT64_MAX, &r->sequence, e)) ||
	    (err = sm_json_u64(o, "received", INT64_MAX, &r->received, e)))
		return err;
	return sm_json_u64(o, "stored_bytes", INT64_MAX, &r->stored_bytes, e);
}

static int take_opened(struct sm_client *c, const struct sm_frame *f, struct sm_receipt *receipt, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	const char *state = json_string_value(json_object_get(o, "state"));
	int err;

	if (!o)
		return -EPROTO;
	err = sm_json_u64(o, "credit", 1u << 30, &c->credit, e);
	if (!err && c->credit < SM_MAX_PAYLOAD)
		err = sm_fail(e, -EPROTO, "media server: gives no credit");
	if (!err && state && !strcmp(state, "published")) {
		err = parse_receipt(o, receipt, e);
		err = err ? err : 1;
	}
	json_decref(o);
	return err;
}

int sm_client_open(struct sm_client *c, const struct sm_gen_info *info, const struct sm_have_ops *have, void *arg,
		   struct sm_receipt *receipt, struct sm_err *e)
{
	struct sm_frame f;
	int err = sm_send_json(&c->chan, SM_OPEN, sm_gen_info_json(info), e);

	c->sent = c->acked = 0;
	if (err || c->oneway)
		return err;
	while (!(err = expect(c, &f, e))) {
		if (f.type == SM_OPENED)
			return take_opened(c, &f, receipt, e);
		if (f.type == SM_ACK)	/* of an upload before that was left */
			continue;
		if (f.type != SM_HAVE_DATA && f.type != SM_HAVE_ZERO)
			return unexpected(c, &f, e);
		err = take_have(&f, info->size, have, arg, e);
		if (err)
			return err;
	}
	return err;
}

static int take_ack(struct sm_client *c, struct sm_err *e)
{
	const struct sm_wire_ack *a;
	struct sm_frame f;
	int err = expect(c, &f, e);

	if (err)
		return err;
	if (f.type != SM_ACK || f.length < sizeof(*a))
		return unexpected(c, &f, e);
	a = (const void *)f.payload;
	if (le64toh(a->bytes) < c->acked || le64toh(a->bytes) > c->sent)
		return sm_fail(e, -EPROTO, "media server: acknowledged what was not sent");
	c->acked = le64toh(a->bytes);
	return 0;
}

int sm_client_send(struct sm_client *c, uint16_t type, const void *payload, size_t len, struct sm_err *e)
{
	int err = 0;

	while (!err && !c->oneway && (c->sent - c->acked + len > c->credit || sm_chan_pending(&c->chan, 0)))
		err = take_ack(c, e);
	if (err)
		return err;
	err = sm_chan_send_buf(&c->chan, type, payload, len, e);
	if (err)
		return send_failed(c, err, e);
	c->sent += len;
	return 0;
}

int sm_client_commit(struct sm_client *c, const char *manifest, struct sm_receipt *receipt, struct sm_err *e)
{
	struct sm_frame f;
	uint8_t hash[SM_DIGEST];
	json_t *o;
	int err = sm_chan_send_buf(&c->chan, SM_COMMIT, manifest, strlen(manifest), e);

	memset(receipt, 0, sizeof(*receipt));
	sm_sha256(manifest, strlen(manifest), hash);
	if (c->oneway) {
		memcpy(receipt->manifest, hash, SM_DIGEST);
		return err;
	}
	if (err)
		return send_failed(c, err, e);
	do {
		err = expect(c, &f, e);
		if (err)
			return err;
	} while (f.type == SM_ACK);
	if (f.type != SM_COMMITTED)
		return unexpected(c, &f, e);
	o = sm_json_parse((const char *)f.payload, f.length, SM_MAX_CONTROL, e);
	err = o ? parse_receipt(o, receipt, e) : -EPROTO;
	json_decref(o);
	if (!err && memcmp(receipt->manifest, hash, SM_DIGEST))
		err = sm_fail(e, -EPROTO, "media server: published another manifest than ours");
	return err;
}

/* By uuid or by name. */
static bool is_volume(const struct sm_gen_info *g, const char *volume)
{
	uint8_t uuid[SM_UUID];

	return !sm_uuid_parse(volume, uuid) ? !memcmp(uuid, g->volume, SM_UUID) : !strcmp(volume, g->volume_name);
}

int sm_client_restore(struct sm_client *c, const char *volume, uint32_t number, const struct sm_extent *x, uint32_t nr,
		      struct sm_listed *l, struct sm_err *e)
{
	json_t *o = volume_json(volume);
	struct sm_frame f;
	int err;

	json_object_set_new(o, "generation", json_integer(number));
	if (c->features & SM_FEATURE_PROOF)
		json_object_set_new(o, "proof", json_true());
	if (nr)
		json_object_set_new(o, "ranges", sm_ranges_json(x, nr));
	if ((err = sm_send_json(&c->chan, SM_RESTORE, o, e)) || (err = expect(c, &f, e)))
		return err;
	if (f.type != SM_RESTORING)
		return unexpected(c, &f, e);
	err = sm_listed_parse(&f, l, e);
	if (!err && l->manifest.info.number != number)
		err = sm_fail(e, -EPROTO, "media server: sends generation %u", l->manifest.info.number);
	if (!err && volume && !is_volume(&l->manifest.info, volume))
		err = sm_fail(e, -EPROTO, "media server: sends another volume, %s", l->manifest.info.volume_name);
	return err;
}

static int take_proof(struct sm_client *c, struct sm_proof *p, struct sm_err *e)
{
	struct sm_frame f;
	int err;

	while (!(err = expect(c, &f, e))) {
		if (f.type == SM_END)
			return sm_proof_end(p, e);
		if (f.type == SM_PROVEN)
			err = sm_proof_manifest(p, (const char *)f.payload, f.length, e);
		else if (f.type == SM_PROOF)
			err = sm_proof_chunk(p, f.payload, f.length, e);
		else
			err = unexpected(c, &f, e);
		if (err)
			break;
	}
	return err;
}

int sm_client_proof(struct sm_client *c, const struct sm_listed *l, const struct sm_secret *k, struct sm_proof **p, struct sm_err *e)
{
	int err;

	*p = sm_proof_new(l->hash, k, false);
	err = *p ? take_proof(c, *p, e) : sm_fail(e, -ENOMEM, "no memory");
	if (err) {
		sm_proof_free(*p);
		*p = NULL;
	}
	return err;
}

int sm_client_digest(struct sm_client *c, const struct sm_gen_info *g, const uint8_t manifest[SM_DIGEST], uint32_t unit,
		     const struct sm_extent *x, uint32_t nr, struct sm_err *e)
{
	json_t *o = json_object();

	sm_json_set_uuid(o, "volume", g->volume);
	sm_json_set_hex(o, "manifest", manifest, SM_DIGEST);
	json_object_set_new(o, "generation", json_integer(g->number));
	json_object_set_new(o, "unit", json_integer(unit));
	json_object_set_new(o, "ranges", sm_ranges_json(x, nr));
	return sm_send_json(&c->chan, SM_DIGEST_OF, o, e);
}

int sm_client_digests(struct sm_client *c, uint32_t nr, const uint8_t (**digests)[SM_DIGEST], struct sm_err *e)
{
	struct sm_frame f;
	int err = expect(c, &f, e);

	if (err)
		return err;
	if (f.type != SM_DIGESTED)
		return unexpected(c, &f, e);
	if (f.length != (uint64_t)nr * SM_DIGEST)
		return sm_fail(e, -EPROTO, "%s: sent %u bytes of digests, not %u", c->peer, f.length, nr * SM_DIGEST);
	*digests = (const void *)f.payload;
	return 0;
}

int sm_client_order(struct sm_client *c, json_t *order, int (*fn)(json_t *, void *), void *arg, struct sm_err *e)
{
	struct sm_frame f;
	int err = sm_send_json(&c->chan, SM_ORDER, order, e), stop = 0;

	while (!err && !(err = expect(c, &f, e))) {
		json_t *row;

		if (f.type == SM_END)
			return stop;
		if (f.type != SM_ROW)
			return unexpected(c, &f, e);
		row = sm_json_parse((const char *)f.payload, f.length, SM_MAX_CONTROL, e);
		if (!row)
			return -EPROTO;
		if (stop)
			json_decref(row);
		else
			stop = fn(row, arg);
	}
	return err;
}
