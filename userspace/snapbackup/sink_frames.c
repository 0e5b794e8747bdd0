// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Frames of data ascend, and zeros are gathered into few frames and ascend among themselves: so both
 * parts of the map hash are made on the way, in no memory. What a resumed upload holds already is merged in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sink.h"

struct frames {
	struct sink sink;
	struct sm_client *c;
	struct plan *p;
	struct sm_map_hash map;
	size_t at_leaf, at_zero;	/* of what the server has */
	uint32_t nr_zero;
	bool done;
	struct {
		struct sm_wire_zero head;
		struct sm_wire_extent x[SM_MAX_EXTENTS];
	} __attribute__((packed)) zero;
};

static int not_in_order(struct sm_err *e)
{
	return sm_fail(e, -EPROTO, "the server has something else than was sent");
}

static int merge_leaves(struct frames *w, uint64_t before, struct sm_err *e)
{
	for (; w->at_leaf < w->p->have_leaves.nr; w->at_leaf++) {
		const struct have_leaf *l = sm_spill_at(&w->p->have_leaves, w->at_leaf);

		if (l->first >= before)
			break;
		if (sm_map_hash_data(&w->map, l->first, l->digest))
			return not_in_order(e);
	}
	return 0;
}

static int merge_zeros(struct frames *w, uint64_t before, struct sm_err *e)
{
	for (; w->at_zero < w->p->have_zeros.nr; w->at_zero++) {
		const struct sm_extent *x = sm_spill_at(&w->p->have_zeros, w->at_zero);

		if (x->offset >= before)
			break;
		if (sm_map_hash_zero(&w->map, x->offset, x->length))
			return not_in_order(e);
	}
	return 0;
}

static int send_payload(struct frames *w, uint16_t type, const void *payload, size_t len, struct sm_err *e)
{
	int err = sm_client_send(w->c, type, payload, len, e);

	w->sink.bytes_out = w->c->chan.bytes_out;
	if (!err)
		w->sink.sent->payload_bytes += len;
	return err;
}

static int flush_zeros(struct frames *w, struct sm_err *e)
{
	uint32_t nr = w->nr_zero;

	if (!nr)
		return 0;
	w->nr_zero = 0;
	w->zero.head = (struct sm_wire_zero){ htole32(nr), 0 };
	return send_payload(w, SM_ZERO, &w->zero, sizeof(w->zero.head) + nr * sizeof(w->zero.x[0]), e);
}

static int write_zero(struct frames *w, const struct sm_extent *x, struct sm_err *e)
{
	struct sm_wire_extent *last = w->nr_zero ? &w->zero.x[w->nr_zero - 1] : NULL;
	int err = merge_zeros(w, x->offset, e);

	if (err)
		return err;
	if (sm_map_hash_zero(&w->map, x->offset, x->length))
		return not_in_order(e);
	w->sink.sent->zero_bytes += x->length;
	if (last && le64toh(last->offset) + le64toh(last->length) == x->offset) {
		last->length = htole64(le64toh(last->length) + x->length);
		return 0;
	}
	if (w->nr_zero == SM_MAX_EXTENTS && (err = flush_zeros(w, e)))
		return err;
	w->zero.x[w->nr_zero++] = (struct sm_wire_extent){ htole64(x->offset), htole64(x->length) };
	return 0;
}

static int write_data(struct frames *w, const struct batch *b, struct sm_err *e)
{
	uint8_t leaf[SM_DIGEST];
	struct sm_data d;
	const struct sm_extent *last = &b->data[b->nr_data - 1];
	int err = sm_data_parse(b->payload, b->payload_length, last->offset + last->length, false, &d, e);

	if (err || (err = merge_leaves(w, b->data[0].offset, e)))
		return err;
	sm_data_leaf(&d, leaf);
	if (sm_map_hash_data(&w->map, b->data[0].offset, leaf))
		return not_in_order(e);
	w->sink.sent->data_bytes += b->raw_length;
	return send_payload(w, SM_DATA, b->payload, b->payload_length, e);
}

static int frames_write(struct sink *k, const struct batch *b, struct sm_err *e)
{
	struct frames *w = (struct frames *)k;
	int err = 0;

	for (uint32_t i = 0; !err && i < b->nr_zero; i++)
		err = write_zero(w, &b->zeros[i], e);
	return err || !b->nr_data ? err : write_data(w, b, e);
}

static int frames_flush(struct sink *k, struct sm_err *e)
{
	struct frames *w = (struct frames *)k;
	int err;

	if ((err = flush_zeros(w, e)) || (err = merge_leaves(w, UINT64_MAX, e)) || (err = merge_zeros(w, UINT64_MAX, e)))
		return err;
	k->sent->frames = w->map.frames;
	sm_map_hash_final(&w->map, k->sent->map_hash);
	w->done = true;
	return 0;
}

static void frames_free(struct sink *k)
{
	struct frames *w = (struct frames *)k;

	if (!w->done)
		sm_map_hash_drop(&w->map);
	free(w);
}

struct sink *sink_frames(struct sm_client *c, struct plan *p, struct sent *sent)
{
	struct frames *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->sink = (struct sink){ frames_write, frames_flush, NULL, frames_free, .pack = true, .sent = sent };
	memset(sent, 0, sizeof(*sent));
	sent->data_bytes = p->have_data;
	sent->zero_bytes = p->have_zero;
	w->c = c;
	w->p = p;
	sm_map_hash_init(&w->map);
	return &w->sink;
}
