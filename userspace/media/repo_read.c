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
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "pack.h"
#include "seal.h"
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
	struct sm_image_piece read;	/* of sm_image_read(): what the last sm_image_next() gave */
	bool has_read;
	struct sm_opener opener;
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

static void drop_record(struct sm_image *img, uint32_t i)
{
	struct record *r = &img->records[i];

	img->cached -= r->payload_len + r->d.raw_length;
	free(r->payload);
	free(r->raw);
	*r = img->records[--img->nr_records];
}

void sm_image_close(struct sm_image *img)
{
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

/* A record's last extent may end where the volume of its time ended, inside a block: that end is the size to check against. */
static int parse_record(struct record *r, struct sm_err *e)
{
	const struct sm_wire_data *h = (const void *)r->payload;
	uint32_t nr = le32toh(h->nr_extents);
	struct sm_extent last;

	if (!nr || sizeof(*h) + (uint64_t)nr * sizeof(struct sm_wire_extent) > r->payload_len)
		return sm_fail(e, -EUCLEAN, "damaged record");
	last = sm_extent_at((const struct sm_wire_extent *)(h + 1), nr - 1);
	return sm_data_parse(r->payload, r->payload_len, last.offset + last.length, false, &r->d, e);
}

static int load_record(struct sm_image *img, struct record *r, struct sm_err *e)
{
	struct sm_pack *p;
	ssize_t n;
	void *less;
	int err = get_pack(img, r->id, &p, e);

	if (err)
		return err;
	r->payload = malloc(SM_MAX_PAYLOAD);
	if (!r->payload)
		return sm_fail(e, -ENOMEM, "no memory");
	n = sm_pack_read(p, r->number, r->payload, e);
	if (n < 0)
		return n;
	less = realloc(r->payload, n);
	if (less)
		r->payload = less;
	r->payload_len = n;
	if (le32toh(p->index[r->number].type) != SM_DATA)
		return sm_fail(e, -EUCLEAN, "damaged map: points to a record without data");
	return parse_record(r, e);
}

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
	if (!err) {
		fresh.raw = malloc(fresh.d.raw_length);
		err = fresh.raw ? sm_data_open(&fresh.d, &img->opener, fresh.raw, e) : sm_fail(e, -ENOMEM, "no memory");
	}
	if (err) {
		free(fresh.payload);
		free(fresh.raw);
		return err;
	}
	fresh.used = ++img->clock;
	img->cached += fresh.payload_len + fresh.d.raw_length;
	img->records[img->nr_records] = fresh;
	*out = &img->records[img->nr_records++];
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

static int fill_data(struct sm_image *img, struct sm_image_piece *p, struct sm_err *e)
{
	const struct sm_piece *x = &img->piece;
	uint64_t raw_at = (uint64_t)x->block * SM_BLOCK, run;
	struct record *r = NULL;
	int err = get_record(img, img->layer[x->layer].packs[x->pack], x->record, &r, e);

	if (err)
		return err;
	if (place_in(&r->d, p->offset, raw_at, &run) == UINT64_MAX)
		return sm_fail(e, -EUCLEAN, "damaged map: offset %llu is not in its record", (unsigned long long)p->offset);
	if (run < p->length && run % SM_BLOCK)
		return sm_fail(e, -EUCLEAN, "damaged map: offset %llu ends early", (unsigned long long)p->offset);
	if (run < p->length)
		p->length = run;
	p->data = r->raw + raw_at;
	if (r->d.nr == 1 && p->length == r->d.raw_length) {
		p->payload = r->payload;
		p->payload_len = r->payload_len;
	}
	return 0;
}

int sm_image_next(struct sm_image *img, struct sm_image_piece *p, struct sm_err *e)
{
	uint64_t used;
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
	if (!p->zero) {
		r = fill_data(img, p, e);
		if (r)
			return r;
	}
	used = (p->length + SM_BLOCK - 1) / SM_BLOCK;
	img->pos += p->length;
	img->piece.start += used;
	img->piece.count -= used;
	img->piece.block += used;
	img->has = img->piece.count > 0;
	return 1;
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
	return 0;
}
