// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A generation as an image: a sweep over its segments, and for each piece the record it lies in.
 *
 * Trust runs from the manifest down: it names segments by digest, these name packs by digest, a pack's index
 * has the digest of each record's payload, and that has the digest of the raw bytes. Besides, a record
 * carries its extents, so that a map entry that points to other bytes than those of its blocks is found out.
 *
 * Records that were scattered when they were written are met many times in ascending order of the image, one current
 * record a generation; a cache of raw records makes it one read each as long as it has that many.
 *
 * Forwarding. Who sends the image to somebody who can unpack it needs no raw bytes: a record goes out as it is, with the list of
 * its parts that are still current. These are found when it is first met, by looking its extents up in the map (a second
 * sweep with pages of its own; extents of a record are near each other, so that the pages are mostly there), and it is
 * noted as sent, a bit each. A record of which less than half is current (unless it is encrypted) is unpacked, and what there is of it sent anew: never more than twice
 * what is wanted travels, however many generations have written over it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "pack.h"
#include "proof.h"
#include "upload_internal.h"

#define RECORD_CACHE	(48ull << 20)	/* bytes, raw and payload */
#define PACK_CACHE	64u

struct cached_pack {
	struct sm_pack pack;
	uint64_t used;
	bool has;
};

struct record {
	uint8_t id[SM_DIGEST];
	uint32_t number;
	uint64_t used;
	uint8_t *payload, *raw;
	size_t payload_len;
	struct sm_data d;
	bool looked, forward;		/* its parts have been looked up: it goes out as it is */
};

/* A bit for each record of a pack. */
struct sent {
	uint32_t nr;
	uint8_t bit[];
};

/* Of sm_image_forward(). */
struct forward {
	struct sm_segment *twin;
	struct sm_layer *layer;
	uint32_t opened;
	struct sm_sweep sweep;		/* to look up records' extents */
	struct sent ***sent;		/* [layer][pack], or NULL */
	struct sm_extent part[SM_MAX_RAW / SM_BLOCK + 1];
	uint32_t nr_part;
	uint32_t drop;			/* 1 + the record that has just been handed out */
};

struct sm_image {
	struct sm_repo *repo;
	char vid[SM_VID_TEXT];
	uint64_t size, pos;
	struct sm_segment *segment;
	struct sm_layer *layer;
	uint32_t nr, opened;
	struct sm_sweep sweep;
	struct sm_piece piece;		/* what is left of the current one */
	bool has;
	struct cached_pack packs[PACK_CACHE];
	struct record *records;
	uint32_t nr_records, room_records;
	uint64_t cached, clock;
	struct forward *forward;
	struct sm_image_piece read;	/* of sm_image_read(): what the last sm_image_next() gave */
	bool has_read;
	struct sm_opener opener;
	bool verbatim;
	const struct sm_proof *proof;
	int lock;			/* shared: nobody deletes it meanwhile; -1: a repository that cannot be written */
};

/* The lock, and then another look: between reading the manifest and this it may have gone. */
static int lock_image(struct sm_image *img, const struct sm_generation *g, struct sm_err *e)
{
	uint32_t number = g->manifest.info.number;
	struct sm_generation again;
	int err;

	img->lock = generation_lock(img->repo, img->vid, number, false, e);
	if (img->lock == -EBUSY)
		return sm_fail(e, -ENOENT, "generation %u is being deleted", number);
	if (img->lock < 0)
		return img->lock == -EROFS || img->lock == -EACCES || img->lock == -ENOSPC ? 0 : img->lock;
	err = sm_repo_generation(img->repo, img->vid, number, &again, e);
	if (!err)
		sm_generation_done(&again);
	return err;
}

int sm_image_open(struct sm_repo *r, const struct sm_generation *g, struct sm_image **out, struct sm_err *e)
{
	struct sm_image *img = calloc(1, sizeof(*img));
	int err = 0;

	if (!img)
		return sm_fail(e, -ENOMEM, "no memory");
	img->repo = r;
	img->lock = -1;
	memcpy(img->vid, g->vid, sizeof(img->vid));
	img->size = g->manifest.info.size;
	img->nr = g->nr_segments;
	img->segment = calloc(img->nr + 1, sizeof(*img->segment));
	img->layer = calloc(img->nr + 1, sizeof(*img->layer));
	if (!img->segment || !img->layer)
		err = sm_fail(e, -ENOMEM, "no memory");
	if (!err)
		err = lock_image(img, g, e);
	while (!err && img->opened < img->nr) {
		const uint8_t *id = g->segments[img->opened].id;
		char key[SM_KEY_MAX];

		sm_key_map(key, img->vid, id);
		err = sm_segment_open(r->store, key, id, true, &img->segment[img->opened], e);
		if (!err) {
			sm_layer_of_segment(&img->layer[img->opened], &img->segment[img->opened]);
			img->opened++;
		}
	}
	if (!err)
		err = sm_sweep_begin(&img->sweep, img->layer, img->nr, e);
	if (err) {
		sm_image_close(img);
		return err;
	}
	*out = img;
	return 0;
}

int sm_image_unseal(struct sm_image *img, const struct sm_generation *g, const struct sm_secret *k, struct sm_err *e)
{
	int err = sm_unseal_manifest(k, &g->manifest, e);

	img->opener = (struct sm_opener){ .k = k, .strict = k };
	memcpy(img->opener.volume, g->manifest.info.volume, SM_UUID);
	return err;
}

void sm_image_prove(struct sm_image *img, const struct sm_proof *p)
{
	img->proof = p;
}

void sm_image_verbatim(struct sm_image *img)
{
	img->verbatim = true;
}

static void drop_record(struct sm_image *img, uint32_t i)
{
	struct record *r = &img->records[i];

	img->cached -= r->payload_len + (r->raw ? r->d.raw_length : 0);
	free(r->payload);
	free(r->raw);
	*r = img->records[--img->nr_records];
}

static void free_forward(struct sm_image *img)
{
	struct forward *f = img->forward;

	if (!f)
		return;
	for (uint32_t i = 0; f->sent && i < img->nr; i++) {
		for (uint32_t k = 0; f->sent[i] && k < img->segment[i].nr_packs; k++)
			free(f->sent[i][k]);
		free(f->sent[i]);
	}
	for (uint32_t i = 0; i < f->opened; i++)
		free(f->twin[i].page);
	free(f->sent);
	free(f->twin);
	free(f->layer);
	free(f);
}

void sm_image_close(struct sm_image *img)
{
	free_forward(img);
	for (uint32_t i = 0; i < img->opened; i++)
		sm_segment_close(&img->segment[i]);
	for (uint32_t i = 0; i < PACK_CACHE; i++)
		if (img->packs[i].has)
			sm_pack_done(&img->packs[i].pack);
	while (img->nr_records)
		drop_record(img, 0);
	free(img->records);
	free(img->segment);
	free(img->layer);
	if (img->lock >= 0)
		close(img->lock);
	free(img);
}

static int get_pack(struct sm_image *img, const uint8_t id[SM_DIGEST], struct sm_pack **out, struct sm_err *e)
{
	struct cached_pack *c = &img->packs[0];
	char key[SM_KEY_MAX];
	int err;

	for (uint32_t i = 0; i < PACK_CACHE; i++) {
		struct cached_pack *x = &img->packs[i];

		if (x->has && !memcmp(x->pack.id, id, SM_DIGEST)) {
			x->used = ++img->clock;
			*out = &x->pack;
			return 0;
		}
		if (!x->has || (c->has && x->used < c->used))
			c = x;
	}
	if (c->has)
		sm_pack_done(&c->pack);
	c->has = false;
	sm_key_pack(key, img->vid, id);
	err = sm_pack_open(img->repo->store, key, id, &c->pack, e);
	if (err)
		return err;
	c->has = true;
	c->used = ++img->clock;
	*out = &c->pack;
	return 0;
}

static int parse_record(struct record *r, struct sm_err *e)
{
	uint64_t end = sm_data_end(r->payload, r->payload_len);

	return end ? sm_data_parse(r->payload, r->payload_len, end, false, &r->d, e) : sm_fail(e, -EUCLEAN, "damaged record");
}

static int load_record(struct sm_image *img, struct record *r, struct sm_err *e)
{
	struct sm_pack *p;
	ssize_t n;
	int err = get_pack(img, r->id, &p, e);

	if (err)
		return err;
	r->payload = malloc(sm_pack_length(p, r->number) + 1);
	if (!r->payload)
		return sm_fail(e, -ENOMEM, "no memory");
	n = sm_pack_read(p, r->number, r->payload, e);
	if (n < 0)
		return n;
	r->payload_len = n;
	if (le32toh(p->index[r->number].type) != SM_DATA)
		return sm_fail(e, -EUCLEAN, "damaged map: points to a record without data");
	return parse_record(r, e);
}

/* The record of a piece, as it is stored. */
static int get_record(struct sm_image *img, const uint8_t id[SM_DIGEST], uint32_t number, struct record **out,
		      struct sm_err *e)
{
	struct record fresh = { .number = number };
	uint32_t oldest = 0;
	int err;

	for (uint32_t i = 0; i < img->nr_records; i++) {
		struct record *r = &img->records[i];

		if (r->number == number && !memcmp(r->id, id, SM_DIGEST)) {
			r->used = ++img->clock;
			*out = r;
			return 0;
		}
		if (r->used < img->records[oldest].used)
			oldest = i;
	}
	if (img->cached > RECORD_CACHE)
		drop_record(img, oldest);
	if (img->nr_records == img->room_records) {
		uint32_t room = img->room_records + 256;
		void *v = realloc(img->records, room * sizeof(*img->records));

		if (!v)
			return sm_fail(e, -ENOMEM, "no memory");
		img->records = v;
		img->room_records = room;
	}
	memcpy(fresh.id, id, SM_DIGEST);
	err = load_record(img, &fresh, e);
	if (err) {
		free(fresh.payload);
		return err;
	}
	fresh.used = ++img->clock;
	img->cached += fresh.payload_len;
	img->records[img->nr_records] = fresh;
	*out = &img->records[img->nr_records++];
	return 0;
}

static int unpack_record(struct sm_image *img, struct record *r, struct sm_err *e)
{
	uint8_t *raw = r->raw ? NULL : malloc(r->d.raw_length);
	int err;

	if (r->raw)
		return 0;
	err = raw ? sm_data_open(&r->d, &img->opener, raw, e) : sm_fail(e, -ENOMEM, "no memory");
	if (err) {
		free(raw);
		return err;
	}
	r->raw = raw;
	img->cached += r->d.raw_length;
	return 0;
}

/* Where in the raw bytes the record has volume offset @offset, if its extents say the map is right; or UINT64_MAX. */
static uint64_t place_in(const struct sm_data *d, uint64_t offset, uint64_t raw_at, uint64_t *run)
{
	uint64_t raw = 0;

	for (uint32_t i = 0; i < d->nr; i++) {
		struct sm_extent x = sm_extent_at(d->extents, i);

		if (raw_at < raw + x.length) {
			if (raw_at < raw || x.offset + (raw_at - raw) != offset)
				return UINT64_MAX;
			*run = x.length - (raw_at - raw);
			return raw_at;
		}
		raw += x.length;
	}
	return UINT64_MAX;
}

/* The record that the piece at img->pos lies in, and where in it: @p is cut to what the record has of it in a run. */
static int find_record(struct sm_image *img, struct sm_image_piece *p, struct record **r, uint64_t *raw_at, struct sm_err *e)
{
	const struct sm_piece *x = &img->piece;
	uint64_t run;
	int err = get_record(img, img->layer[x->layer].packs[x->pack], x->record, r, e);

	if (err)
		return err;
	*raw_at = (uint64_t)x->block * SM_BLOCK;
	if (place_in(&(*r)->d, p->offset, *raw_at, &run) == UINT64_MAX)
		return sm_fail(e, -EUCLEAN, "damaged map: offset %llu is not in its record", (unsigned long long)p->offset);
	if (run < p->length && run % SM_BLOCK)
		return sm_fail(e, -EUCLEAN, "damaged map: offset %llu ends early", (unsigned long long)p->offset);
	if (run < p->length)
		p->length = run;
	return 0;
}

static int fill_data(struct sm_image *img, struct sm_image_piece *p, struct sm_err *e)
{
	struct record *r = NULL;
	uint64_t raw_at;
	int err;

	if ((err = find_record(img, p, &r, &raw_at, e)) || (err = unpack_record(img, r, e)))
		return err;
	if (img->proof) {
		const struct sm_wire_extent w = { htole64(p->offset), htole64(p->length) };

		err = sm_proof_frame(img->proof, &w, 1, &r->d, e);
		if (err)
			return err;
	}
	p->data = r->raw + raw_at;
	if (r->d.nr == 1 && p->length == r->d.raw_length) {
		p->payload = r->payload;
		p->payload_len = r->payload_len;
	}
	return 0;
}

/* What the map says of img->pos. */
static int next_piece(struct sm_image *img, struct sm_image_piece *p, struct sm_err *e)
{
	int r;

	if (img->pos >= img->size)
		return 0;
	if (!img->has) {
		r = sm_sweep_next(&img->sweep, &img->piece, e);
		if (r < 0)
			return r;
		if (!r || img->piece.start * SM_BLOCK != img->pos)
			return sm_fail(e, -EUCLEAN, "damaged map: nothing at offset %llu", (unsigned long long)img->pos);
		img->has = true;
	}
	*p = (struct sm_image_piece){ .offset = img->pos, .length = (uint64_t)img->piece.count * SM_BLOCK,
				      .zero = img->piece.pack == SM_ZERO_PACK };
	if (p->length > img->size - p->offset)
		p->length = img->size - p->offset;
	return 1;
}

static void pass(struct sm_image *img, uint64_t length)
{
	uint64_t used = (length + SM_BLOCK - 1) / SM_BLOCK;

	img->pos += length;
	img->piece.start += used;
	img->piece.count -= used;
	img->piece.block += used;
	img->has = img->piece.count > 0;
}

static int prove_zero(const struct sm_image *img, uint64_t offset, uint64_t length, struct sm_err *e)
{
	const struct sm_wire_extent w = { htole64(offset), htole64(length) };

	return img->proof ? sm_proof_zero(img->proof, &w, 1, e) : 0;
}

int sm_image_next(struct sm_image *img, struct sm_image_piece *p, struct sm_err *e)
{
	int r = next_piece(img, p, e);

	if (r > 0 && !p->zero && (r = fill_data(img, p, e)) >= 0)
		r = 1;
	if (r > 0 && p->zero && (r = prove_zero(img, p->offset, p->length, e)) >= 0)
		r = 1;
	if (r > 0)
		pass(img, p->length);
	return r;
}

/* ---- forwarding ---- */

static int begin_forward(struct sm_image *img, struct sm_err *e)
{
	struct forward *f = calloc(1, sizeof(*f));

	img->forward = f;
	if (f) {
		f->twin = calloc(img->nr + 1, sizeof(*f->twin));
		f->layer = calloc(img->nr + 1, sizeof(*f->layer));
		f->sent = calloc(img->nr + 1, sizeof(*f->sent));
	}
	if (!f || !f->twin || !f->layer || !f->sent)
		return sm_fail(e, -ENOMEM, "no memory");
	for (; f->opened < img->nr; f->opened++) {
		uint32_t i = f->opened;
		int err = sm_segment_twin(&img->segment[i], &f->twin[i], e);

		if (err)
			return err;
		sm_layer_of_segment(&f->layer[i], &f->twin[i]);
		f->sent[i] = calloc(img->segment[i].nr_packs + 1, sizeof(**f->sent));
		if (!f->sent[i]) {
			f->opened++;
			return sm_fail(e, -ENOMEM, "no memory");
		}
	}
	return sm_sweep_begin(&f->sweep, f->layer, img->nr, e);
}

static bool was_sent(const struct sm_image *img, const struct sm_piece *x)
{
	const struct sent *s = img->forward->sent[x->layer][x->pack];

	return s && x->record < s->nr && s->bit[x->record / 8] & 1 << x->record % 8;
}

static int note_sent(struct sm_image *img, const struct sm_piece *x, struct sm_err *e)
{
	struct sent **s = &img->forward->sent[x->layer][x->pack];
	struct sm_pack *p;
	int err = get_pack(img, img->layer[x->layer].packs[x->pack], &p, e);

	if (err)
		return err;
	if (!*s && (*s = calloc(1, sizeof(**s) + p->nr / 8 + 1)))
		(*s)->nr = p->nr;
	if (!*s)
		return sm_fail(e, -ENOMEM, "no memory");
	(*s)->bit[x->record / 8] |= 1 << x->record % 8;	/* it is below nr: it has been read */
	return 0;
}

/* Add what of a current range was asked for. Return: its bytes. */
static uint64_t add_parts(struct forward *f, const struct sm_extent *asked, uint32_t nr, uint64_t from, uint64_t to)
{
	uint32_t low = 0, high = nr;
	uint64_t sum = 0;

	while (low < high) {		/* the first that ends behind @from */
		uint32_t mid = (low + high) / 2;

		if (asked[mid].offset + asked[mid].length <= from)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < nr && asked[low].offset < to; low++) {
		uint64_t a = asked[low].offset > from ? asked[low].offset : from;
		uint64_t b = asked[low].offset + asked[low].length < to ? asked[low].offset + asked[low].length : to;

		f->part[f->nr_part++] = (struct sm_extent){ a, b - a };
		sum += b - a;
	}
	return sum;
}

/* What of extent @x, at @raw_at of the record that img->piece is of, is current. Return: bytes, -errno. */
static int64_t look_up(struct sm_image *img, const struct sm_extent *x, uint64_t raw_at, const struct sm_extent *asked, uint32_t nr,
		       struct sm_err *e)
{
	uint64_t at = x->offset, end = x->offset + x->length < img->size ? x->offset + x->length : img->size, sum = 0;
	const struct sm_piece *me = &img->piece;
	struct forward *f = img->forward;
	int r = at < end ? sm_sweep_seek(&f->sweep, at / SM_BLOCK, e) : 0;

	while (!r && at < end) {
		struct sm_piece p;
		uint64_t from, to;

		r = sm_sweep_next(&f->sweep, &p, e);
		if (r <= 0)
			return r < 0 ? r : sm_fail(e, -EUCLEAN, "damaged map: nothing at offset %llu", (unsigned long long)at);
		r = 0;
		from = p.start * SM_BLOCK;
		to = from + (uint64_t)p.count * SM_BLOCK;
		at = to;
		if (from >= end || p.layer != me->layer || p.pack != me->pack || p.record != me->record)
			continue;
		to = to < end ? to : end;
		if ((uint64_t)p.block * SM_BLOCK != raw_at + from - x->offset || (to % SM_BLOCK && to != img->size))
			return sm_fail(e, -EUCLEAN, "damaged map: offset %llu is not in its record", (unsigned long long)from);
		sum += add_parts(f, asked, nr, from, to);
	}
	return r ? r : (int64_t)sum;
}

/* All that is wanted of a record: forward->part. */
static int find_parts(struct sm_image *img, struct record *r, const struct sm_extent *asked, uint32_t nr, struct sm_err *e)
{
	uint64_t raw = 0, sum = 0;

	img->forward->nr_part = 0;
	for (uint32_t i = 0; i < r->d.nr; i++) {
		struct sm_extent x = sm_extent_at(r->d.extents, i);
		int64_t n = look_up(img, &x, raw, asked, nr, e);

		if (n < 0)
			return n;
		sum += n;
		raw += x.length;
	}
	r->looked = true;
	r->forward = 2 * sum >= r->d.raw_length || img->verbatim ||
		     r->d.codec == SM_CODEC_SEALED;	/* we could not pack that anew */
	if (sum == r->d.raw_length)
		img->forward->nr_part = 0;	/* all of it */
	return 0;
}

static int forward_record(struct sm_image *img, const struct sm_extent *asked, uint32_t nr, struct sm_image_piece *p, struct sm_err *e)
{
	struct forward *f = img->forward;
	struct record *r = NULL;
	uint64_t raw_at;
	int err = find_record(img, p, &r, &raw_at, e);

	if (!err && !r->looked)
		err = find_parts(img, r, asked, nr, e);
	if (err)
		return err;
	if (!r->forward) {
		err = unpack_record(img, r, e);
		p->data = r->raw + raw_at;
		return err;
	}
	if (r->d.nr > 1 || p->length < r->d.raw_length)
		err = note_sent(img, &img->piece, e);
	p->payload = r->payload;
	p->payload_len = r->payload_len;
	p->part = f->nr_part ? f->part : NULL;
	p->nr_part = f->nr_part;
	f->drop = r - img->records + 1;
	return err;
}

int sm_image_forward(struct sm_image *img, const struct sm_extent *asked, uint32_t nr, uint64_t end, struct sm_image_piece *p,
		     struct sm_err *e)
{
	int r = img->forward ? 0 : begin_forward(img, e);

	if (r)
		return r;
	if (img->forward->drop)
		drop_record(img, img->forward->drop - 1);
	img->forward->drop = 0;
	while (img->pos < end) {
		r = next_piece(img, p, e);
		if (r <= 0)
			return r;
		if (p->length > end - p->offset)
			p->length = end - p->offset;
		if (p->zero || !was_sent(img, &img->piece)) {
			r = p->zero ? 0 : forward_record(img, asked, nr, p, e);
			if (!r)
				pass(img, p->length);
			return r ? r : 1;
		}
		pass(img, p->length);
	}
	return 0;
}

uint64_t sm_image_size(const struct sm_image *img)
{
	return img->size;
}

int sm_image_seek(struct sm_image *img, uint64_t offset, struct sm_err *e)
{
	if (offset % SM_BLOCK || offset > img->size)
		return sm_fail(e, -EINVAL, "offset %llu: not a block of the image", (unsigned long long)offset);
	img->has = img->has_read = false;
	img->pos = offset;
	return sm_sweep_seek(&img->sweep, offset / SM_BLOCK, e);
}

/* Make img->read the piece that has @offset. */
static int find_piece(struct sm_image *img, uint64_t offset, struct sm_err *e)
{
	int r;

	if (img->has_read && offset >= img->read.offset && offset - img->read.offset < img->read.length)
		return 0;
	if (offset != img->pos) {
		r = sm_image_seek(img, offset / SM_BLOCK * SM_BLOCK, e);
		if (r)
			return r;
	}
	img->has_read = false;
	r = sm_image_next(img, &img->read, e);
	if (r <= 0)
		return r ? r : sm_fail(e, -EINVAL, "offset %llu is past the end", (unsigned long long)offset);
	img->has_read = true;
	return 0;
}

int sm_image_read(struct sm_image *img, void *buf, size_t len, uint64_t offset, struct sm_err *e)
{
	uint8_t *to = buf;

	if (offset > img->size || len > img->size - offset)
		return sm_fail(e, -EINVAL, "%zu bytes at offset %llu are not in the image", len, (unsigned long long)offset);
	while (len) {
		int err = find_piece(img, offset, e);
		uint64_t in, n;

		if (err)
			return err;
		in = offset - img->read.offset;
		n = img->read.length - in < len ? img->read.length - in : len;
		if (img->read.zero)
			memset(to, 0, n);
		else
			memcpy(to, img->read.data + in, n);
		to += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int sm_image_extent(struct sm_image *img, uint64_t offset, uint64_t *len, bool *zero, struct sm_err *e)
{
	struct sm_piece p;
	int r;

	if (offset >= img->size)
		return sm_fail(e, -EINVAL, "offset %llu is past the end", (unsigned long long)offset);
	r = sm_image_seek(img, offset / SM_BLOCK * SM_BLOCK, e);
	if (!r)
		r = sm_sweep_next(&img->sweep, &p, e);
	if (r < 0)
		return r;
	if (!r || p.start != offset / SM_BLOCK)
		return sm_fail(e, -EUCLEAN, "damaged map: nothing at offset %llu", (unsigned long long)offset);
	*zero = p.pack == SM_ZERO_PACK;
	*len = (p.start + p.count) * SM_BLOCK - offset;
	if (*len > img->size - offset)
		*len = img->size - offset;
	img->pos = UINT64_MAX;		/* the sweep is past it: the next read seeks */
	return *zero ? prove_zero(img, offset, *len, e) : 0;
}
