// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Three ways back. In all of them a range's bytes are checked against their digest before they are written, and
 * at the end the whole is compared with what it was to be.
 *
 *	a repository directory	the map from the manifest down (repo_read.c)
 *	a media server		the server does that; what it sends is checked again (incoming.c)
 *	stream files		a full one and increments on it, each by the manifest hash of the one before
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "progress.h"
#include "restore.h"
#include "writers.h"

struct snap_progress *restore_progress(const struct restore_options *o, uint64_t total)
{
	struct snap_progress_opts po = { .what = "restore", .quiet = o->quiet, .json = o->progress_json };

	return snap_progress_start(&po, total);
}

#define RANGE_BUFFER	(1u << 20)

/* ---- a directory ---- */

static int copy_image(struct restore_options *o, struct sm_image *img, struct sm_err *e)
{
	struct snap_progress *p = restore_progress(o, o->target.size);
	struct sm_image_piece x;
	uint64_t done = 0;
	int r;

	while ((r = sm_image_next(img, &x, e)) > 0) {
		r = x.zero ? target_zero(&o->target, x.offset, x.length, e) :
			     target_write(&o->target, x.offset, x.data, x.length, e);
		if (r)
			break;
		done += x.length;
		snap_progress_update(p, done, 0);
	}
	snap_progress_end(p, !r);
	return r;
}

/* A part of the image, by the map: zeros are not read. */
static int copy_range(struct restore_options *o, struct sm_image *img, const struct sm_extent *x, uint8_t *buf, struct sm_err *e)
{
	uint64_t end = x->offset + x->length, len;
	bool zero;
	int err = 0;

	for (uint64_t at = x->offset; !err && at < end; at += len) {
		err = sm_image_extent(img, at, &len, &zero, e);
		if (err)
			return err;
		if (len > end - at)
			len = end - at;
		if (zero) {
			err = target_zero(&o->target, at, len, e);
			continue;
		}
		if (len > RANGE_BUFFER)
			len = RANGE_BUFFER;
		err = sm_image_read(img, buf, len, at, e);
		if (!err)
			err = target_write(&o->target, at, buf, len, e);
	}
	return err;
}

/* stdout gets the ranges one after the other. */
static int copy_ranges(struct restore_options *o, struct sm_image *img, struct sm_err *e)
{
	uint8_t *buf = malloc(RANGE_BUFFER);
	uint64_t total = 0;
	int err = buf ? 0 : sm_fail(e, -ENOMEM, "no memory");

	for (uint32_t i = 0; !err && i < o->nr_ranges; i++) {
		o->target.shift = o->ranges[i].offset - total;
		total += o->ranges[i].length;
		err = copy_range(o, img, &o->ranges[i], buf, e);
	}
	if (o->target.kind == TARGET_STDOUT)
		o->target.size = total;
	free(buf);
	return err;
}

/* Whole blocks, or up to the end; the last one may say more than there is. */
static int check_ranges(struct restore_options *o, uint64_t size, struct sm_err *e)
{
	for (uint32_t i = 0; i < o->nr_ranges; i++) {
		struct sm_extent *x = &o->ranges[i];

		if (x->offset >= size)
			return sm_fail(e, -EINVAL, "--range: offset %llu is past the end, at %llu", (unsigned long long)x->offset,
				       (unsigned long long)size);
		if (x->length > size - x->offset)
			x->length = size - x->offset;
	}
	return 0;
}

/* A repository of our own is trusted with its maps, unless something from outside of it says what is to come. */
static int prove_here(struct restore_options *o, struct sm_repo *r, const struct sm_generation *g, struct sm_image *img, struct sm_proof **proof,
		      struct sm_err *e)
{
	int err;

	if (o->unproven || (!o->key && !o->manifest))
		return 0;
	err = sm_repo_prove(r, g, o->key, proof, e);
	if (!err)
		sm_image_prove(img, *proof);
	return err;
}

static void note_restored(struct restore_options *o, const struct sm_gen_info *info, const uint8_t hash[SM_DIGEST], bool proven)
{
	o->info = *info;
	memcpy(o->hash, hash, SM_DIGEST);
	o->proven = proven;
}

int restore_repo(struct restore_options *o, struct sm_err *e)
{
	struct sm_proof *proof = NULL;
	struct sm_generation g;
	struct sm_image *img;
	char vid[SM_VID_TEXT];
	struct sm_repo r;
	int err = sm_repo_open(o->from.path, &r, e);

	if (err)
		return err;
	err = sm_repo_find(&r, NULL, o->volume, vid, e);
	if (!err)
		err = sm_repo_generation(&r, vid, o->gen, &g, e);
	if (!err) {
		err = o->manifest && memcmp(o->manifest, g.hash, SM_DIGEST) ?
			sm_fail(e, -EPROTO, "generation %u has another manifest than the one asked for", o->gen) : sm_image_open(&r, &g, &img, e);
		if (!err) {
			err = sm_image_unseal(img, &g, o->key, e);
			if (!err)
				err = prove_here(o, &r, &g, img, &proof, e);
			note_restored(o, &g.manifest.info, g.hash, proof);
			if (!err)
				err = check_ranges(o, g.manifest.info.size, e);
			if (!err)
				err = target_open(&o->target, g.manifest.info.size, e);
			if (!err)
				err = o->nr_ranges ? copy_ranges(o, img, e) : copy_image(o, img, e);
			sm_image_close(img);
			sm_proof_free(proof);
		}
		sm_generation_done(&g);
	}
	sm_repo_close(&r);
	return err;
}

/* ---- frames ---- */

static int zero_frame(struct target *t, const struct sm_incoming_frame *f, struct sm_err *e)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < f->nr; i++) {
		struct sm_extent x = sm_extent_at(f->extents, i);

		err = target_zero(t, x.offset, x.length, e);
	}
	return err;
}

static int copy_frames(struct restore_options *o, struct sm_incoming *in, uint64_t total, struct sm_err *e)
{
	struct snap_progress *p = restore_progress(o, total);
	struct writers *w = writers_begin(&o->target, in->opener, e);
	struct sm_incoming_frame f;
	struct sm_err mine;
	int r = w ? 0 : -EAGAIN, err;

	while (!r && (r = sm_incoming_recv(in, &f, e)) > 0) {
		r = f.zero ? zero_frame(&o->target, &f, e) : writers_put(w, in->chan, &f, e);
		if (!r)
			snap_progress_update(p, in->data_bytes + in->zero_bytes, in->chan->bytes_in);
	}
	err = w ? writers_end(w, &mine) : 0;
	if (err && !r) {
		r = err;
		*e = mine;
	}
	snap_progress_end(p, !r);
	return r;
}

/* ---- a server ---- */

/*
 * The server gathers scattered data into frames, so that zeros and data do not come in one ascending order:
 * stdout gets its image by way of an unnamed file.
 */
static int spool_begin(struct target *t, struct sm_err *e)
{
	const char *dir = getenv("TMPDIR");

	t->fd = open(dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (t->fd < 0 || ftruncate(t->fd, t->size))
		return sm_fail(e, -errno, "%s: cannot write: %s", dir ? dir : "/var/tmp", strerror(errno));
	t->kind = TARGET_FILE;
	return 0;
}

static int spool_out(struct target *t, int fd, const struct sm_extent *x, uint8_t *buf, struct sm_err *e)
{
	int err = 0;
	ssize_t n;

	for (uint64_t at = x->offset, end = at + x->length; !err && at < end; at += n) {
		n = sm_pread_full(fd, buf, end - at < RANGE_BUFFER ? end - at : RANGE_BUFFER, at);
		if (n <= 0)
			err = sm_fail(e, n ? n : -EIO, "temporary file: cannot read");
		else
			err = target_write(t, at, buf, n, e);
	}
	return err;
}

static int spool_end(struct restore_options *o, struct sm_err *e)
{
	struct target *t = &o->target;
	const struct sm_extent whole = { 0, t->size };
	uint8_t *buf = malloc(RANGE_BUFFER);
	int fd = t->fd, err = buf ? 0 : sm_fail(e, -ENOMEM, "no memory");
	uint64_t total = 0;

	t->kind = TARGET_STDOUT;
	t->fd = 1;
	for (uint32_t i = 0; !err && i < (o->nr_ranges ? o->nr_ranges : 1); i++) {
		const struct sm_extent *x = o->nr_ranges ? &o->ranges[i] : &whole;

		t->shift = x->offset - total;
		total += x->length;
		err = spool_out(t, fd, x, buf, e);
	}
	t->size = total;
	close(fd);
	free(buf);
	return err;
}

static int open_spooled(struct restore_options *o, uint64_t size, bool *spool, struct sm_err *e)
{
	int err = target_open(&o->target, size, e);

	*spool = !err && o->target.kind == TARGET_STDOUT;
	return *spool ? spool_begin(&o->target, e) : err;
}

/* The key fits, or none is needed: before the target is touched. */
static void set_opener(struct restore_options *o, const struct sm_gen_info *g)
{
	o->opener = (struct sm_opener){ .k = o->key, .strict = g->sealed };
	memcpy(o->opener.volume, g->volume, SM_UUID);
}

static int unseal(struct restore_options *o, const struct sm_manifest *m, struct sm_err *e)
{
	set_opener(o, &m->info);
	return sm_unseal_manifest(o->key, m, e);
}

static void print_stats(const struct sm_incoming *in)
{
	fprintf(stderr, "{\"received_bytes\":%llu,\"data_bytes\":%llu,\"zero_bytes\":%llu,\"frames\":%llu,\"repacked_frames\":%llu}\n",
		(unsigned long long)in->chan->bytes_in, (unsigned long long)in->data_bytes, (unsigned long long)in->zero_bytes,
		(unsigned long long)in->map.frames, (unsigned long long)in->repacked);
}

/* Everything that can be said before the first byte: which manifest it is, whose key, and which frame each block must be of. */
static int agree(struct restore_options *o, struct sm_client *c, const struct sm_listed *l, struct sm_proof **proof, struct sm_err *e)
{
	int err = unseal(o, &l->manifest, e);

	if (!err && o->manifest && memcmp(o->manifest, l->hash, SM_DIGEST))
		err = sm_fail(e, -EPROTO, "the media server's generation %u has another manifest than the one asked for", o->gen);
	if (!err && o->unproven)
		return check_ranges(o, l->manifest.info.size, e);
	if (!err && !(c->features & SM_FEATURE_PROOF))
		err = sm_fail(e, -EPROTO, "the media server is too old: it cannot prove what it restores");
	if (!err)
		err = check_ranges(o, l->manifest.info.size, e);
	return err ? err : sm_client_proof(c, l, o->key, proof, e);
}

static int receive(struct restore_options *o, struct sm_client *c, struct sm_err *e)
{
	struct sm_incoming in;
	struct sm_proof *proof = NULL;
	struct sm_listed l;
	bool spool;
	int err;

	if (o->unproven)
		c->features &= ~SM_FEATURE_PROOF;
	err = sm_client_restore(c, o->volume, o->gen, o->ranges, o->nr_ranges, &l, e);

	if (!err)
		err = agree(o, c, &l, &proof, e);
	if (err)
		return err;
	note_restored(o, &l.manifest.info, l.hash, proof);
	err = open_spooled(o, l.manifest.info.size, &spool, e);
	if (err) {
		sm_proof_free(proof);
		return err;
	}
	err = sm_incoming_restore(&in, &c->chan, l.manifest.info.size, o->ranges, o->nr_ranges, e);
	in.opener = &o->opener;
	in.proof = proof;
	if (!err)
		err = copy_frames(o, &in, l.manifest.info.size, e);
	if (!err && o->stats)
		print_stats(&in);
	sm_incoming_done(&in);
	sm_proof_free(proof);
	if (!err && spool)
		err = spool_end(o, e);
	return err;
}

int restore_server(struct restore_options *o, struct sm_err *e)
{
	struct sm_client c;
	int err = sm_client_connect(&c, &o->from, SM_ROLE_RESTORE, e);

	if (err)
		return err;
	err = receive(o, &c, e);
	sm_client_end(&c, !err);
	return err;
}

/* ---- streams ---- */

static int open_stream(const char *path, struct sm_err *e)
{
	int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : 0;

	return fd < 0 ? sm_fail(e, -errno, "%s: %s", path, strerror(errno)) : fd;
}

struct chain {
	uint8_t volume[SM_UUID], hash[SM_DIGEST];
	uint64_t size;
	bool begun, spool;
};

static int check_link(struct chain *c, const struct sm_gen_info *g, const char *path, struct sm_err *e)
{
	if (!c->begun && g->has_parent)
		return sm_fail(e, -EINVAL, "%s: is an increment: name the full stream before it", path);
	if (!c->begun)
		return 0;
	if (memcmp(c->volume, g->volume, SM_UUID))
		return sm_fail(e, -EINVAL, "%s: is of another volume", path);
	if (!g->has_parent || memcmp(c->hash, g->parent, SM_DIGEST))
		return sm_fail(e, -EINVAL, "%s: is not an increment on the stream before it", path);
	return 0;
}

static int apply_stream(struct restore_options *o, struct chain *c, struct sm_incoming *in, const char *path,
			struct sm_err *e)
{
	const struct sm_gen_info *g = &in->info;
	uint64_t size = c->size;
	int err = check_link(c, g, path, e);

	if (err || (err = sm_unseal_info(o->key, g, e)))
		return err;
	set_opener(o, g);
	in->opener = &o->opener;
	err = c->begun ? target_resize(&o->target, g->size, e) : open_spooled(o, g->size, &c->spool, e);
	if (!err)
		err = copy_frames(o, in, g->bytes, e);
	if (!err)
		err = sm_unseal_manifest(o->key, &in->manifest, e);
	if (err)
		return err;
	/* The rule of the repository: what has grown must have been sent, from the block with the old end. */
	if (c->begun && g->size > size) {
		const struct sm_extent *last = in->ranges.nr ? sm_spill_at(&in->ranges, in->ranges.nr - 1) : NULL;

		if (!last || last->offset + last->length != g->size)
			return sm_fail(e, -EPROTO, "%s: the volume has grown and its new part is not there", path);
	}
	memcpy(c->volume, g->volume, SM_UUID);
	memcpy(c->hash, in->hash, SM_DIGEST);
	c->size = g->size;
	c->begun = true;
	note_restored(o, g, in->hash, false);
	return 0;
}

static int one_stream(struct restore_options *o, struct chain *c, const char *path, uint32_t *number, struct sm_err *e)
{
	struct sm_incoming in;
	struct sm_chan chan;
	int fd = open_stream(path, e), err;

	if (fd < 0)
		return fd;
	sm_chan_init(&chan, fd, -1);
	err = sm_incoming_stream(&in, &chan, e);
	*number = in.info.number;
	if (!err)
		err = apply_stream(o, c, &in, path, e);
	sm_incoming_done(&in);
	sm_chan_free(&chan);
	if (fd > 0)
		close(fd);
	return err;
}

int restore_streams(struct restore_options *o, struct sm_err *e)
{
	struct chain c = { .begun = false };
	uint32_t number = 0;
	int err = 0;

	for (size_t i = 0; !err && i < o->nr_chain; i++) {
		err = one_stream(o, &c, o->chain[i], &number, e);
		if (!err && number == o->gen)
			break;
	}
	if (!err && o->gen && number != o->gen)
		err = sm_fail(e, -ENOENT, "generation %u is not in these streams, the last one is %u", o->gen, number);
	if (!err && o->manifest && memcmp(o->manifest, c.hash, SM_DIGEST))
		err = sm_fail(e, -EPROTO, "generation %u has another manifest than the one asked for", number);
	if (!err && c.spool)
		err = spool_end(o, e);
	return err;
}
