// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Frames that bring an image, from a stream file or as the answer to RESTORE. Every frame is checked before it is
 * handed out; at the end counts, map hash and the set of ranges are compared with what the sender says. A
 * stream that ends without its COMMIT (or END) is not a backup.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

static int begin(struct sm_incoming *in, struct sm_chan *c, struct sm_err *e)
{
	memset(in, 0, offsetof(struct sm_incoming, part.x));
	in->raw = NULL;
	in->chan = c;
	sm_map_hash_init(&in->map);
	sm_spill_init(&in->ranges, sizeof(struct sm_extent), NULL);
	in->raw = malloc(SM_MAX_RAW);
	return in->raw ? 0 : sm_fail(e, -ENOMEM, "no memory");
}

int sm_incoming_stream(struct sm_incoming *in, struct sm_chan *c, struct sm_err *e)
{
	struct sm_wire_hello h;
	struct sm_frame f;
	json_t *o;
	int r = begin(in, c, e);

	if (r)
		return r;
	r = sm_chan_recv(c, &f, e);
	if (r <= 0)
		return r ? r : sm_fail(e, -EPIPE, "empty stream");
	r = sm_check_hello(&f, &h, e);
	if (r)
		return r;
	r = sm_chan_recv(c, &f, e);
	if (r <= 0 || f.type != SM_OPEN)
		return r < 0 ? r : sm_fail(e, -EPROTO, "stream without a beginning");
	o = sm_json_parse((const char *)f.payload, f.length, SM_MAX_CONTROL, e);
	r = o ? sm_gen_info_parse(o, &in->info, e) : -EPROTO;
	json_decref(o);
	in->size = in->info.size;
	return r;
}

int sm_incoming_restore(struct sm_incoming *in, struct sm_chan *c, uint64_t size, const struct sm_extent *x, uint32_t nr,
			struct sm_err *e)
{
	const struct sm_extent whole = { 0, size };
	struct sm_range_hash h;
	int err = begin(in, c, e);

	in->restore = true;
	in->size = size;
	in->asked = x;
	in->nr_asked = nr;
	sm_range_hash_init(&h);
	for (uint32_t i = 0; i < (nr ? nr : 1); i++) {
		const struct sm_extent *v = nr ? &x[i] : &whole;

		if (sm_range_hash_add(&h, v->offset, v->length) && !err)
			err = sm_fail(e, -EINVAL, "ranges overlap or go back");
		in->total += v->length;
	}
	sm_range_hash_final(&h, in->want);
	return err;
}

void sm_incoming_done(struct sm_incoming *in)
{
	if (in->map.data.ctx)
		sm_map_hash_drop(&in->map);
	sm_spill_free(&in->ranges);
	free(in->raw);
	in->raw = NULL;
}

/* Found out at the end it would have been written over what was to stay. Neighbouring ranges may come as one. */
static bool was_asked(const struct sm_incoming *in, const struct sm_extent *x)
{
	uint64_t at = x->offset, end = at + x->length;

	for (uint32_t i = 0; i < in->nr_asked && at < end; i++) {
		const struct sm_extent *a = &in->asked[i];

		if (at >= a->offset && at - a->offset < a->length)
			at = a->offset + a->length;
	}
	return !in->nr_asked || at >= end;
}

static int note_ranges(struct sm_incoming *in, const struct sm_wire_extent *w, uint32_t nr, struct sm_err *e)
{
	struct sm_extent *last = in->ranges.nr ? sm_spill_at(&in->ranges, in->ranges.nr - 1) : NULL;

	for (uint32_t i = 0; i < nr; i++) {
		struct sm_extent x = sm_extent_at(w, i);

		if (!was_asked(in, &x))
			return sm_fail(e, -EPROTO, "%llu bytes at offset %llu came, which were not asked for",
				       (unsigned long long)x.length, (unsigned long long)x.offset);
		if (last && last->offset + last->length == x.offset) {
			last->length += x.length;
			continue;
		}
		last = sm_spill_add(&in->ranges);
		if (!last)
			return sm_fail(e, -errno, "no room for the map: %s", strerror(errno));
		*last = x;
	}
	return 0;
}

/* Which blocks of the next DATA frame apply. */
static int take_part(struct sm_incoming *in, const struct sm_frame *f, struct sm_err *e)
{
	const struct sm_wire_extent *x;
	int err;

	if (in->part.nr)
		return sm_fail(e, -EPROTO, "parts of nothing");
	err = sm_zero_parse(f->payload, f->length, in->size, &x, &in->part.nr, e);
	if (!err)
		memcpy(in->part.x, x, in->part.nr * sizeof(*x));
	return err;
}

static int check_parts(struct sm_incoming *in, const struct sm_data *d, struct sm_err *e)
{
	struct sm_place at = { 0 };

	for (uint32_t i = 0; i < in->part.nr; i++) {
		struct sm_extent x = sm_extent_at(in->part.x, i);

		if (sm_data_place(d, &x, &at) == UINT64_MAX)
			return sm_fail(e, -EPROTO, "a part at offset %llu is not of its frame", (unsigned long long)x.offset);
		in->data_bytes += x.length;
	}
	return 0;
}

/* The same frame again and again would fill the list of ranges, and be found out at an end that need not come. */
static int handed_out(const struct sm_incoming *in, struct sm_err *e)
{
	if (in->restore && in->data_bytes + in->zero_bytes > in->total)
		return sm_fail(e, -EPROTO, "more came than was asked for");
	return 1;
}

static int take_data(struct sm_incoming *in, const struct sm_frame *f, struct sm_incoming_frame *out, struct sm_err *e)
{
	uint64_t size = in->part.nr ? sm_data_end(f->payload, f->length) : in->size;
	uint8_t leaf[SM_DIGEST];
	struct sm_data *d = &out->d;
	int err = sm_data_parse(f->payload, f->length, size, false, d, e);

	if (err)
		return err;
	out->nr = d->nr;
	out->extents = d->extents;
	sm_data_leaf(d, leaf);
	if (in->proof && (err = sm_proof_frame(in->proof, in->part.nr ? in->part.x : d->extents, in->part.nr ? in->part.nr : d->nr, d, e)))
		return err;
	if (in->part.nr) {
		out->nr = in->part.nr;
		out->extents = in->part.x;
		err = check_parts(in, d, e);
		sm_data_part_leaf(d, in->part.x, in->part.nr, leaf);
		in->part.nr = 0;
	} else {
		in->data_bytes += d->raw_length;
	}
	if (err || (err = note_ranges(in, out->extents, out->nr, e)))
		return err;
	if (in->restore)
		sm_map_hash_leaf(&in->map, leaf);
	else if (sm_map_hash_data(&in->map, le64toh(d->extents[0].offset), leaf))
		return sm_fail(e, -EPROTO, "frames do not ascend");
	return handed_out(in, e);
}

const uint8_t *sm_incoming_piece(const struct sm_incoming_frame *f, uint32_t i, struct sm_place *at, struct sm_extent *x)
{
	*x = sm_extent_at(f->extents, i);
	return f->raw + sm_data_place(&f->d, x, at);
}

static int take_zero(struct sm_incoming *in, const struct sm_frame *f, struct sm_incoming_frame *out, struct sm_err *e)
{
	int err = sm_zero_parse(f->payload, f->length, in->size, &out->extents, &out->nr, e);

	if (err || (in->proof && (err = sm_proof_zero(in->proof, out->extents, out->nr, e))) ||
	    (err = note_ranges(in, out->extents, out->nr, e)))
		return err;
	for (uint32_t i = 0; i < out->nr; i++) {
		struct sm_extent x = sm_extent_at(out->extents, i);

		if (sm_map_hash_zero(&in->map, x.offset, x.length))
			return sm_fail(e, -EPROTO, "zero extents do not ascend");
		in->zero_bytes += x.length;
	}
	out->zero = true;
	return handed_out(in, e);
}

static int by_offset(const void *a, const void *b)
{
	const struct sm_extent *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* All ranges together: disjoint, and their digest, number and bytes. */
static int sum_ranges(struct sm_incoming *in, uint8_t digest[SM_DIGEST], uint64_t *nr, uint64_t *bytes, struct sm_err *e)
{
	struct sm_range_hash h;
	int err = 0;

	sm_range_hash_init(&h);
	if (in->ranges.nr)
		qsort(in->ranges.map, in->ranges.nr, in->ranges.elem, by_offset);
	for (size_t i = 0; !err && i < in->ranges.nr; i++) {
		const struct sm_extent *x = sm_spill_at(&in->ranges, i);

		err = sm_range_hash_add(&h, x->offset, x->length);
	}
	sm_range_hash_final(&h, digest);
	*nr = h.nr;
	*bytes = h.bytes;
	return err ? sm_fail(e, -EPROTO, "extents overlap") : 0;
}

static int end_of_restore(struct sm_incoming *in, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	uint8_t said[SM_DIGEST], map[SM_DIGEST], ranges[SM_DIGEST];
	uint64_t nr, bytes;
	int err;

	if (!o)
		return -EPROTO;
	err = sm_json_digest(o, "map_hash", said, e);
	if (!err && json_object_get(o, "repacked"))
		err = sm_json_u64(o, "repacked", INT64_MAX, &in->repacked, e);
	json_decref(o);
	sm_map_hash_final(&in->map, map);
	if (err || (err = sum_ranges(in, ranges, &nr, &bytes, e)))
		return err;
	if (memcmp(said, map, SM_DIGEST))
		return sm_fail(e, -EPROTO, "what arrived is not what was sent");
	if (memcmp(ranges, in->want, SM_DIGEST))
		return sm_fail(e, -EPROTO, "the image is not complete: %llu bytes in %llu ranges came", (unsigned long long)bytes,
			       (unsigned long long)nr);
	return 0;
}

static int end_of_stream(struct sm_incoming *in, const struct sm_frame *f, struct sm_err *e)
{
	const struct sm_manifest *m = &in->manifest;
	uint8_t map[SM_DIGEST], ranges[SM_DIGEST];
	json_t *a, *b;
	uint64_t nr, bytes;
	bool same;
	int err = sm_manifest_parse((const char *)f->payload, f->length, &in->manifest, e);

	if (err)
		return err;
	sm_sha256(f->payload, f->length, in->hash);
	sm_map_hash_final(&in->map, map);
	err = sum_ranges(in, ranges, &nr, &bytes, e);
	if (err)
		return err;
	a = sm_gen_info_json(&in->info);
	b = sm_gen_info_json(&m->info);
	same = a && b && json_equal(a, b);
	json_decref(a);
	json_decref(b);
	if (!same || memcmp(map, m->map_hash, SM_DIGEST) || memcmp(ranges, m->info.change_digest, SM_DIGEST) ||
	    nr != m->info.extents || bytes != m->info.bytes || in->data_bytes != m->data_bytes ||
	    in->zero_bytes != m->zero_bytes)
		return sm_fail(e, -EPROTO, "the stream is not what its manifest says");
	return 0;
}

int sm_incoming_recv(struct sm_incoming *in, struct sm_incoming_frame *out, struct sm_err *e)
{
	struct sm_frame f;
	int r;

	while ((r = sm_chan_recv(in->chan, &f, e)) > 0 && f.type == SM_PART && in->restore) {
		r = take_part(in, &f, e);
		if (r)
			return r;
	}
	if (r < 0)
		return r;
	if (!r)
		return sm_fail(e, -EPIPE, "ends before its end: not a whole backup");
	if (in->part.nr && f.type != SM_DATA && f.type != SM_ERROR)
		return sm_fail(e, -EPROTO, "parts of nothing");
	*out = (struct sm_incoming_frame){ .type = f.type, .payload = f.payload, .payload_len = f.length };
	if (f.type == SM_DATA)
		return take_data(in, &f, out, e);
	if (f.type == SM_ZERO)
		return take_zero(in, &f, out, e);
	if (f.type == SM_END && in->restore)
		return end_of_restore(in, &f, e);
	if (f.type == SM_COMMIT && !in->restore)
		return end_of_stream(in, &f, e);
	if (f.type == SM_ERROR)
		return sm_remote_error("media server", &f, e);
	return sm_fail(e, -EPROTO, "frame of type %u does not belong here", f.type);
}

int sm_incoming_next(struct sm_incoming *in, struct sm_incoming_frame *out, struct sm_err *e)
{
	int r = sm_incoming_recv(in, out, e), err;

	if (r <= 0 || out->zero)
		return r;
	err = in->opener ? sm_data_open(&out->d, in->opener, in->raw, e) : sm_data_check(&out->d, in->raw, e);
	out->raw = in->opener || out->d.codec != SM_CODEC_SEALED ? in->raw : NULL;
	return err ? err : r;
}
