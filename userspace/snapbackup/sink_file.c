// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Formats of others.
 *
 * "rbd diff", version 1 (Ceph, doc/dev/rbd-diff.rst; integers little-endian):
 *
 *	"rbd diff v1\n"
 *	'f' u32 length, name		the snapshot it is to be applied to; absent: all of the image
 *	't' u32 length, name		the snapshot that it makes
 *	's' u64 size of the image
 *	'w' u64 offset, u64 length, bytes		any number of these two
 *	'z' u64 offset, u64 length
 *	'e'
 *
 * The 'e' is written after the source was looked at for the last time: without it nobody takes the stream for whole. (Version 2
 * has lengths behind the tags; it exists inside "rbd image v2" only, "rbd import-diff" refuses it.)
 *
 * Raw: the image's bytes. It has no end but the end: what breaks off is known by the exit code, and by the name of a file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sink.h"

struct file_sink {
	struct sink sink;
	int fd;
	bool sparse;
	uint64_t size, at;		/* raw: how far the image has been written */
	struct sm_extent zeros;		/* rbd: not written yet, the next may touch them */
};

static int put(struct file_sink *f, const void *buf, size_t len, struct sm_err *e)
{
	int err = sm_write_full(f->fd, buf, len);

	if (err)
		return sm_fail(e, err, "cannot write: %s", strerror(-err));
	f->sink.bytes_out += len;
	return 0;
}

/* What comes next in both lists of a batch. false: that was all. */
struct cursor {
	const struct batch *b;
	uint32_t data, zero;
	const uint8_t *raw;
};

static bool next_in_order(struct cursor *c, struct sm_extent *x, const uint8_t **raw)
{
	const struct batch *b = c->b;
	bool data = c->data < b->nr_data;

	if (!data && c->zero == b->nr_zero)
		return false;
	if (data && (c->zero == b->nr_zero || b->data[c->data].offset < b->zeros[c->zero].offset)) {
		*x = b->data[c->data++];
		*raw = c->raw;
		c->raw += x->length;
	} else {
		*x = b->zeros[c->zero++];
		*raw = NULL;
	}
	return true;
}

static void count(struct sent *s, const struct sm_extent *x, bool data)
{
	s->frames++;
	if (data)
		s->data_bytes += x->length;
	else
		s->zero_bytes += x->length;
}

/* ---- rbd diff ---- */

/* A record's head: tag and fixed fields. */
static int put_head(struct file_sink *f, char tag, const void *fields, size_t len, struct sm_err *e)
{
	uint8_t head[1 + 16] = { tag };

	memcpy(head + 1, fields, len);
	return put(f, head, 1 + len, e);
}

static int put_name(struct file_sink *f, char tag, const char *name, struct sm_err *e)
{
	uint32_t len = htole32(strlen(name));
	int err = put_head(f, tag, &len, sizeof(len), e);

	return err ? err : put(f, name, strlen(name), e);
}

static int put_extent(struct file_sink *f, const struct sm_extent *x, const uint8_t *raw, struct sm_err *e)
{
	uint64_t fields[2] = { htole64(x->offset), htole64(x->length) };
	int err = put_head(f, raw ? 'w' : 'z', fields, sizeof(fields), e);

	count(f->sink.sent, x, raw);
	return err || !raw ? err : put(f, raw, x->length, e);
}

static int rbd_flush(struct sink *k, struct sm_err *e)
{
	struct file_sink *f = (struct file_sink *)k;
	struct sm_extent x = f->zeros;

	f->zeros.length = 0;
	return x.length ? put_extent(f, &x, NULL, e) : 0;
}

static int rbd_write(struct sink *k, const struct batch *b, struct sm_err *e)
{
	struct file_sink *f = (struct file_sink *)k;
	struct cursor c = { b, 0, 0, b->raw };
	const uint8_t *raw;
	struct sm_extent x;
	int err = 0;

	while (!err && next_in_order(&c, &x, &raw)) {
		if (!raw && f->zeros.length && f->zeros.offset + f->zeros.length == x.offset) {
			f->zeros.length += x.length;
			continue;
		}
		err = rbd_flush(k, e);
		if (!err && raw)
			err = put_extent(f, &x, raw, e);
		else
			f->zeros = x;
	}
	return err;
}

static int rbd_end(struct sink *k, struct sm_err *e)
{
	return put((struct file_sink *)k, "e", 1, e);
}

static void file_free(struct sink *k)
{
	free(k);
}

static int rbd_begin(struct file_sink *f, const char *from, const char *to, uint64_t size, struct sm_err *e)
{
	uint64_t le = htole64(size);
	int err = put(f, "rbd diff v1\n", 12, e);

	if (!err && from)
		err = put_name(f, 'f', from, e);
	if (!err)
		err = put_name(f, 't', to, e);
	return err ? err : put_head(f, 's', &le, sizeof(le), e);
}

int sink_rbd(int fd, const char *from, const char *to, uint64_t size, struct sent *sent, struct sink **out,
	     struct sm_err *e)
{
	struct file_sink *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return sm_fail(e, -ENOMEM, "no memory");
	memset(sent, 0, sizeof(*sent));
	f->sink = (struct sink){ rbd_write, rbd_flush, rbd_end, file_free, .sent = sent };
	f->fd = fd;
	err = rbd_begin(f, from, to, size, e);
	if (err) {
		free(f);
		return err;
	}
	*out = &f->sink;
	return 0;
}

/* ---- raw ---- */

static int raw_zeros(struct file_sink *f, uint64_t length, struct sm_err *e)
{
	static const uint8_t zeros[64 << 10];
	int err = 0;

	if (f->sparse)
		return lseek(f->fd, length, SEEK_CUR) < 0 ? sm_fail(e, -errno, "cannot write: %s", strerror(errno)) : 0;
	for (uint64_t n; !err && length; length -= n) {
		n = length < sizeof(zeros) ? length : sizeof(zeros);
		err = put(f, zeros, n, e);
	}
	return err;
}

static int raw_write(struct sink *k, const struct batch *b, struct sm_err *e)
{
	struct file_sink *f = (struct file_sink *)k;
	struct cursor c = { b, 0, 0, b->raw };
	const uint8_t *raw;
	struct sm_extent x;
	int err = 0;

	while (!err && next_in_order(&c, &x, &raw)) {
		if (x.offset != f->at)
			return sm_fail(e, -EIO, "offset %llu came when it was %llu's turn", (unsigned long long)x.offset,
				       (unsigned long long)f->at);
		count(k->sent, &x, raw);
		err = raw ? put(f, raw, x.length, e) : raw_zeros(f, x.length, e);
		f->at += x.length;
	}
	return err;
}

static int raw_flush(struct sink *k, struct sm_err *e)
{
	struct file_sink *f = (struct file_sink *)k;

	if (f->at != f->size)
		return sm_fail(e, -EIO, "only %llu of %llu bytes came", (unsigned long long)f->at, (unsigned long long)f->size);
	if (f->sparse && ftruncate(f->fd, f->size))
		return sm_fail(e, -errno, "cannot write: %s", strerror(errno));
	return 0;
}

struct sink *sink_raw(int fd, uint64_t size, bool sparse, struct sent *sent)
{
	struct file_sink *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	memset(sent, 0, sizeof(*sent));
	f->sink = (struct sink){ raw_write, raw_flush, NULL, file_free, .sent = sent };
	f->fd = fd;
	f->size = size;
	f->sparse = sparse;
	return &f->sink;
}
