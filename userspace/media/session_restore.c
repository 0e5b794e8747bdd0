// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An image on its way to who restores it.
 *
 *	record, all of it wanted	DATA, as it is stored
 *	record, half of it or more	PART, DATA as it is stored
 *	record, less than half		its pieces, gathered from many records into DATA frames of 256 KiB, packed anew
 *	zeros				gathered into ZERO frames
 *
 * The first two cost this side a digest over the stored bytes and nothing else; it is the client that unpacks. They do not come in the order
 * of the volume: a record of scattered blocks comes when the first of them is met. A client without SM_FEATURE_PARTS
 * wants frames that ascend and apply as a whole: for it everything but records of one run is packed anew.
 */
#include "session_restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sender {
	struct sm_chan *chan;
	struct sm_map_hash map;
	const struct sm_extent *asked;
	uint32_t nr_asked;
	bool parts;
	/* data that is packed anew */
	struct sm_extent x[SM_MAX_EXTENTS];
	uint32_t nr;
	uint8_t *raw, *payload;
	uint32_t len;
	uint64_t data_bytes, zero_bytes, repacked;	/* bytes; repacked: frames */
	struct extents {
		struct sm_wire_zero head;
		struct sm_wire_extent x[SM_MAX_EXTENTS];
	} __attribute__((packed)) zero, part;
	uint32_t nr_zero;
};

static int send_payload(struct sender *o, const void *payload, size_t len, struct sm_err *e)
{
	uint8_t leaf[SM_DIGEST];
	struct sm_data d;
	int err = sm_data_parse(payload, len, sm_data_end(payload, len), true, &d, e);

	if (err)
		return err;
	sm_data_leaf(&d, leaf);
	sm_map_hash_leaf(&o->map, leaf);
	o->data_bytes += d.raw_length;
	return sm_chan_send_buf(o->chan, SM_DATA, payload, len, e);
}

static int send_part(struct sender *o, const struct sm_image_piece *p, struct sm_err *e)
{
	uint8_t leaf[SM_DIGEST];
	struct sm_data d;
	int err = sm_data_parse(p->payload, p->payload_len, sm_data_end(p->payload, p->payload_len), true, &d, e);

	if (err)
		return err;
	o->part.head = (struct sm_wire_zero){ htole32(p->nr_part), 0 };
	for (uint32_t i = 0; i < p->nr_part; i++) {
		o->part.x[i] = (struct sm_wire_extent){ htole64(p->part[i].offset), htole64(p->part[i].length) };
		o->data_bytes += p->part[i].length;
	}
	sm_data_part_leaf(&d, o->part.x, p->nr_part, leaf);
	sm_map_hash_leaf(&o->map, leaf);
	err = sm_chan_send_buf(o->chan, SM_PART, &o->part, sizeof(o->part.head) + p->nr_part * sizeof(o->part.x[0]), e);
	return err ? err : sm_chan_send_buf(o->chan, SM_DATA, p->payload, p->payload_len, e);
}

static int flush_data(struct sender *o, struct sm_err *e)
{
	ssize_t n;

	if (!o->nr)
		return 0;
	n = sm_data_pack(o->x, o->nr, o->raw, o->len, 1, o->payload, e);
	o->nr = 0;
	o->len = 0;
	o->repacked++;
	return n < 0 ? (int)n : send_payload(o, o->payload, n, e);
}

static int flush_zeros(struct sender *o, struct sm_err *e)
{
	uint32_t nr = o->nr_zero;

	if (!nr)
		return 0;
	o->nr_zero = 0;
	o->zero.head = (struct sm_wire_zero){ htole32(nr), 0 };
	return sm_chan_send_buf(o->chan, SM_ZERO, &o->zero, sizeof(o->zero.head) + nr * sizeof(o->zero.x[0]), e);
}

static int send_zero(struct sender *o, const struct sm_image_piece *p, struct sm_err *e)
{
	int err = o->nr_zero == SM_MAX_EXTENTS ? flush_zeros(o, e) : 0;

	o->zero.x[o->nr_zero++] = (struct sm_wire_extent){ htole64(p->offset), htole64(p->length) };
	o->zero_bytes += p->length;
	sm_map_hash_zero(&o->map, p->offset, p->length);
	return err;
}

/* Bytes that are packed anew. */
static int gather(struct sender *o, const struct sm_image_piece *p, struct sm_err *e)
{
	for (uint64_t done = 0, n; done < p->length; done += n) {
		uint64_t at = p->offset + done;
		int err = o->len == SM_SEND_RAW || o->nr == SM_MAX_EXTENTS ? flush_data(o, e) : 0;

		if (err)
			return err;
		n = p->length - done < SM_SEND_RAW - o->len ? p->length - done : SM_SEND_RAW - o->len;
		if (o->nr && o->x[o->nr - 1].offset + o->x[o->nr - 1].length == at)
			o->x[o->nr - 1].length += n;
		else
			o->x[o->nr++] = (struct sm_extent){ at, n };
		memcpy(o->raw + o->len, p->data + done, n);
		o->len += n;
	}
	return 0;
}

static int send_piece(struct sender *o, const struct sm_image_piece *p, struct sm_err *e)
{
	int err;

	if (p->zero)
		return send_zero(o, p, e);
	if (!p->payload)
		return gather(o, p, e);
	if (p->part)
		return send_part(o, p, e);
	err = o->parts ? 0 : flush_data(o, e);	/* in order */
	return err ? err : send_payload(o, p->payload, p->payload_len, e);
}

/* One range of the image: its pieces, the last one cut off. */
static int send_range(struct sender *o, struct sm_image *img, const struct sm_extent *x, struct sm_err *e)
{
	uint64_t end = x->offset + x->length;
	struct sm_image_piece p = { .offset = x->offset };
	int r = sm_image_seek(img, x->offset, e);

	if (o->parts) {
		while (!r && (r = sm_image_forward(img, o->asked, o->nr_asked, end, &p, e)) > 0)
			r = send_piece(o, &p, e);
		return r;
	}
	while (!r && p.offset + p.length < end) {
		r = sm_image_next(img, &p, e);
		if (r < 0)
			return r;
		if (!r)
			return sm_fail(e, -EINVAL, "range past the end");
		if (p.offset + p.length > end) {
			p.length = end - p.offset;
			p.payload = NULL;
		}
		r = send_piece(o, &p, e);
	}
	return r;
}

static int send_end(struct sender *o, struct sm_err *e)
{
	uint8_t hash[SM_DIGEST];
	json_t *end = json_object();

	json_object_set_new(end, "frames", json_integer(o->map.frames));
	json_object_set_new(end, "repacked", json_integer(o->repacked));
	json_object_set_new(end, "data_bytes", json_integer(o->data_bytes));
	json_object_set_new(end, "zero_bytes", json_integer(o->zero_bytes));
	sm_map_hash_final(&o->map, hash);
	sm_json_set_hex(end, "map_hash", hash, SM_DIGEST);
	return sm_send_json(o->chan, SM_END, end, e);
}

int sm_send_image(struct sm_chan *c, struct sm_image *img, bool parts, const struct sm_extent *x, uint32_t nr, struct sm_err *e)
{
	struct sender *o = calloc(1, sizeof(*o));
	int r;

	if (!o)
		return sm_fail(e, -ENOMEM, "no memory");
	o->chan = c;
	o->asked = x;
	o->nr_asked = nr;
	o->parts = parts;
	o->raw = malloc(SM_SEND_RAW);
	o->payload = malloc(SM_MAX_PAYLOAD);
	sm_map_hash_init(&o->map);
	r = o->raw && o->payload ? 0 : sm_fail(e, -ENOMEM, "no memory");
	for (uint32_t i = 0; !r && i < nr; i++)
		r = send_range(o, img, &x[i], e);
	if (!r && !(r = flush_data(o, e)))
		r = flush_zeros(o, e);
	if (!r)
		r = send_end(o, e);
	else
		sm_map_hash_drop(&o->map);
	free(o->raw);
	free(o->payload);
	free(o);
	return r;
}
