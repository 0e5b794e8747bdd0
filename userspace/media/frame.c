// SPDX-License-Identifier: GPL-2.0-or-later
#include "frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tls.h"

void sm_chan_init(struct sm_chan *c, int in, int out)
{
	memset(c, 0, sizeof(*c));
	c->in = in;
	c->out = out;
}

void sm_chan_free(struct sm_chan *c)
{
	sm_tls_free(c->tls);
	c->tls = NULL;
	free(c->buf);
	c->buf = NULL;
	c->buf_size = 0;
}

static int write_iov(int fd, struct iovec *iov, int nr)
{
	while (nr) {
		ssize_t w = writev(fd, iov, nr);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		for (; nr && (size_t)w >= iov->iov_len; iov++, nr--)
			w -= iov->iov_len;
		if (nr) {
			iov->iov_base = (char *)iov->iov_base + w;
			iov->iov_len -= w;
		}
	}
	return 0;
}

#define RECORD	16384u		/* most that one TLS record takes */

/* Wait until the TLS socket can go on. Silence is counted here, too: a peer that stops reading is as gone as one that stops writing. */
static int wait_tls(struct sm_chan *c, short events)
{
	struct pollfd p = { .fd = c->in, .events = events };
	int r;

	do
		r = poll(&p, 1, c->timeout_ms ? c->timeout_ms : -1);
	while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : r ? -errno : -ETIMEDOUT;
}

static int write_tls(struct sm_chan *c, const uint8_t *p, size_t len)
{
	while (len) {
		short events;
		ssize_t n = sm_tls_write(c->tls, p, len, &events);
		int err = n == -EAGAIN ? wait_tls(c, events) : n < 0 ? n : 0;

		if (err)
			return err;
		if (n > 0) {
			p += n;
			len -= n;
		}
	}
	return 0;
}

/* Gathered into full records: a frame's head does not get one of its own. */
static int write_iov_tls(struct sm_chan *c, const struct iovec *iov, int nr)
{
	uint8_t record[RECORD];
	size_t fill = 0;
	int err = 0;

	for (; !err && nr--; iov++) {
		const uint8_t *p = iov->iov_base;

		for (size_t left = iov->iov_len, n; !err && left; left -= n, p += n) {
			n = left < RECORD - fill ? left : RECORD - fill;
			memcpy(record + fill, p, n);
			fill += n;
			if (fill == RECORD) {
				err = write_tls(c, record, fill);
				fill = 0;
			}
		}
	}
	return err ? err : write_tls(c, record, fill);
}

int sm_chan_send(struct sm_chan *c, uint16_t type, uint16_t flags, const struct iovec *iov, int nr,
		 struct sm_err *e)
{
	struct sm_wire_header h = { .magic = htole32(SM_MAGIC), .type = htole16(type), .flags = htole16(flags) };
	struct iovec all[8] = { { &h, sizeof(h) } };
	uint32_t crc = 0;
	size_t len = 0;
	int err;

	if (nr > 7)
		return sm_fail(e, -EINVAL, "frame of %d parts", nr);
	for (int i = 0; i < nr; i++) {
		all[i + 1] = iov[i];
		len += iov[i].iov_len;
		crc = sm_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	}
	if (len > SM_MAX_PAYLOAD)
		return sm_fail(e, -EINVAL, "frame of %zu bytes", len);
	h.sequence = htole64(c->seq_out++);
	h.length = htole32(len);
	h.payload_crc = htole32(crc);
	h.header_crc = htole32(sm_crc32c(0, &h, offsetof(struct sm_wire_header, header_crc)));
	err = c->tls ? write_iov_tls(c, all, nr + 1) : write_iov(c->out, all, nr + 1);
	if (err)
		return sm_fail(e, err, "connection: cannot send: %s", strerror(-err));
	c->bytes_out += sizeof(h) + len;
	return 0;
}

int sm_chan_send_buf(struct sm_chan *c, uint16_t type, const void *buf, size_t len, struct sm_err *e)
{
	struct iovec iov = { (void *)buf, len };

	return sm_chan_send(c, type, 0, &iov, 1, e);
}

/* Wait for input. A regular file is always ready. */
static int wait_input(struct sm_chan *c, const sigset_t *mask, struct sm_err *e)
{
	struct pollfd p = { .fd = c->in, .events = POLLIN };
	struct timespec ts = { .tv_sec = c->timeout_ms / 1000, .tv_nsec = c->timeout_ms % 1000 * 1000000L };

	for (;;) {
		int r;

		/* What the socket has may be of TLS itself, and what we want may have been read from it already. */
		if (c->tls && sm_tls_ready(c->tls))
			return 0;
		r = ppoll(&p, 1, c->timeout_ms ? &ts : NULL, mask);
		if (r > 0 && c->tls)
			continue;

		if (r > 0)
			return 0;
		if (!r)
			return sm_fail(e, -ETIMEDOUT, "connection: nothing received for %d s", c->timeout_ms / 1000);
		if (errno != EINTR)
			return sm_fail(e, -errno, "connection: poll: %s", strerror(errno));
		if (mask)
			return sm_fail(e, -EINTR, "interrupted");
	}
}

static ssize_t read_tls(struct sm_chan *c, void *buf, size_t len, struct sm_err *e)
{
	size_t done = 0;

	while (done < len) {
		short events;
		ssize_t r = sm_tls_read(c->tls, (uint8_t *)buf + done, len - done, &events);

		if (!r)
			break;
		if (r > 0) {
			done += r;
			continue;
		}
		if (r == -EAGAIN)
			r = wait_tls(c, events);
		if (r == -EACCES)
			return sm_fail(e, r, "connection: the server does not know our key (or does no longer)");
		if (r)
			return sm_fail(e, r, "connection: cannot receive: %s", strerror(-r));
	}
	return done;
}

/* Return: bytes read, less than @len only at the end of input, or -errno. */
static ssize_t read_some(struct sm_chan *c, void *buf, size_t len, struct sm_err *e)
{
	size_t done = 0;

	if (c->tls)
		return read_tls(c, buf, len, e);
	while (done < len) {
		ssize_t r;

		if (c->timeout_ms && done) {
			int err = wait_input(c, NULL, e);

			if (err)
				return err;
		}
		r = read(c->in, (char *)buf + done, len - done);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return sm_fail(e, -errno, "connection: cannot receive: %s", strerror(errno));
		if (!r)
			break;
		done += r;
	}
	return done;
}

static int check_header(struct sm_chan *c, const struct sm_wire_header *h, struct sm_err *e)
{
	if (le32toh(h->magic) != SM_MAGIC)
		return sm_fail(e, -EPROTO, "not a snapdiff stream (frame magic %08x)", le32toh(h->magic));
	if (le32toh(h->header_crc) != sm_crc32c(0, h, offsetof(struct sm_wire_header, header_crc)))
		return sm_fail(e, -EPROTO, "frame %llu: header checksum wrong", (unsigned long long)c->seq_in);
	if (le64toh(h->sequence) != c->seq_in)
		return sm_fail(e, -EPROTO, "frame %llu: has number %llu", (unsigned long long)c->seq_in,
			       (unsigned long long)le64toh(h->sequence));
	if (le32toh(h->length) > SM_MAX_PAYLOAD)
		return sm_fail(e, -EPROTO, "frame %llu: %u bytes are more than a frame may have",
			       (unsigned long long)c->seq_in, le32toh(h->length));
	if (h->channel)
		return sm_fail(e, -EPROTO, "frame %llu: channel %u is not open", (unsigned long long)c->seq_in,
			       le32toh(h->channel));
	return 0;
}

static bool known_type(uint16_t type)
{
	return (type >= SM_HELLO && type <= SM_KEEPALIVE) || (type >= SM_OPEN && type <= SM_PROOF) ||
	       (type >= SM_LIST && type <= SM_ROW);
}

static int reserve(struct sm_chan *c, size_t len, struct sm_err *e)
{
	uint8_t *p;

	if (len <= c->buf_size)
		return 0;
	p = realloc(c->buf, len);
	if (!p)
		return sm_fail(e, -ENOMEM, "no memory for a frame");
	c->buf = p;
	c->buf_size = len;
	return 0;
}

static int recv_one(struct sm_chan *c, struct sm_frame *f, struct sm_err *e)
{
	struct sm_wire_header h;
	ssize_t r;
	int err;

	if (c->wait_mask || c->timeout_ms) {
		err = wait_input(c, c->wait_mask, e);
		if (err)
			return err;
	}
	r = read_some(c, &h, sizeof(h), e);
	if (r <= 0)
		return r;
	if (r < (ssize_t)sizeof(h))
		return sm_fail(e, -EPIPE, "stream ends inside a frame");
	err = check_header(c, &h, e);
	if (err)
		return err;
	f->type = le16toh(h.type);
	f->flags = le16toh(h.flags);
	f->sequence = c->seq_in++;
	f->length = le32toh(h.length);
	err = reserve(c, f->length, e);
	if (err)
		return err;
	r = read_some(c, c->buf, f->length, e);
	if (r < 0)
		return r;
	if (r < (ssize_t)f->length)
		return sm_fail(e, -EPIPE, "stream ends inside a frame");
	if (sm_crc32c(0, c->buf, f->length) != le32toh(h.payload_crc))
		return sm_fail(e, -EPROTO, "frame %llu: payload checksum wrong", (unsigned long long)f->sequence);
	f->payload = c->buf;
	c->bytes_in += sizeof(h) + f->length;
	return 1;
}

int sm_chan_recv(struct sm_chan *c, struct sm_frame *f, struct sm_err *e)
{
	int r;

	do {
		r = recv_one(c, f, e);
		if (r <= 0)
			return r;
		if (!known_type(f->type) && !(f->flags & SM_F_OPTIONAL))
			return sm_fail(e, -EPROTO, "frame %llu: type %u is not known and may not be skipped",
				       (unsigned long long)f->sequence, f->type);
	} while (!known_type(f->type) || f->type == SM_KEEPALIVE);
	return 1;
}

void sm_chan_take(struct sm_chan *c, uint8_t **buf, size_t *size)
{
	uint8_t *mine = c->buf;
	size_t n = c->buf_size;

	c->buf = *buf;
	c->buf_size = *size;
	*buf = mine;
	*size = n;
}

bool sm_chan_pending(struct sm_chan *c, int timeout_ms)
{
	struct pollfd p = { .fd = c->in, .events = POLLIN };

	if (c->tls && sm_tls_ready(c->tls))
		return true;
	return poll(&p, 1, timeout_ms) > 0 && (!c->tls || sm_tls_ready(c->tls));
}
