// SPDX-License-Identifier: GPL-2.0-or-later
#include "pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "frame.h"

#define RECORD_MAGIC	0x43524453u	/* "SDRC" */
#define STARTED		(1u << 20)	/* bytes that are written before the disk is told to begin */
static const char header_magic[8] = "SDPACK\1";
static const char tail_magic[8] = { 'S', 'D', 'P', 'K', 'T', 'A', 'I', 'L' };

static void pack_id(const struct sm_pack_header *h, const struct sm_pack_index *index, uint32_t nr,
		    uint8_t id[SM_DIGEST])
{
	struct sm_sha s;

	sm_sha_init(&s);
	sm_sha_update(&s, h, sizeof(*h));
	sm_sha_update(&s, index, nr * sizeof(*index));
	sm_sha_final(&s, id);
}

static int index_add(struct sm_pack_writer *p, const struct sm_pack_index *x, struct sm_err *e)
{
	if (p->nr == p->room) {
		uint32_t room = p->room ? 2 * p->room : 256;
		void *v = realloc(p->index, room * sizeof(*p->index));

		if (!v)
			return sm_fail(e, -ENOMEM, "no memory for a pack's index");
		p->index = v;
		p->room = room;
	}
	p->index[p->nr++] = *x;
	return 0;
}

static int open_staged(struct sm_pack_writer *p, const char *path, int flags, uint32_t number, struct sm_err *e)
{
	memset(p, 0, sizeof(*p));
	p->number = number;
	snprintf(p->path, sizeof(p->path), "%s", path);
	p->fd = open(path, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->fd < 0)
		return sm_fail(e, -errno, "%s: cannot open: %s", path, strerror(errno));
	return 0;
}

int sm_pack_create(struct sm_pack_writer *p, const char *path, const uint8_t upload[SM_UUID], uint32_t number,
		   struct sm_err *e)
{
	int err = sm_fault("pack-create");

	if (err)
		return sm_fail(e, err, "%s: %s", path, strerror(-err));
	err = open_staged(p, path, O_CREAT | O_EXCL, number, e);
	if (err)
		return err;
	memcpy(p->header.magic, header_magic, 8);
	memcpy(p->header.upload, upload, SM_UUID);
	p->header.number = htole32(number);
	err = sm_random(p->header.nonce, SM_UUID);
	if (!err)
		err = sm_pwrite_full(p->fd, &p->header, sizeof(p->header), 0);
	if (err) {
		sm_pack_close(p);
		unlink(path);
		return sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err));
	}
	p->end = sizeof(p->header);
	p->dirty = true;
	return 0;
}

int sm_pack_append(struct sm_pack_writer *p, uint16_t type, const void *payload, size_t len, uint32_t nr_extents,
		   uint32_t raw_length, uint64_t first, struct sm_err *e)
{
	struct sm_pack_record r = { htole32(RECORD_MAGIC), htole16(type), 0, htole32(len), 0 };
	struct sm_pack_index x = { htole64(p->end + sizeof(r)), htole64(first), htole32(len), htole32(raw_length),
				   htole32(nr_extents), htole32(type), { 0 } };
	struct iovec iov[2] = { { &r, sizeof(r) }, { (void *)payload, len } };
	int err = sm_fault("pack-append");
	ssize_t w;

	r.crc = htole32(sm_crc32c(sm_crc32c(0, &r, offsetof(struct sm_pack_record, crc)), payload, len));
	if (!err) {
		w = pwritev(p->fd, iov, 2, p->end);
		if (w < 0)
			err = -errno;
		else if (w < (ssize_t)(sizeof(r) + len))
			err = -ENOSPC;	/* a short write to a file; what is there is behind p->end and does not count */
	}
	if (err)
		return sm_fail(e, err, "%s: cannot write: %s", p->path, strerror(-err));
	sm_sha256(payload, len, x.digest);
	err = index_add(p, &x, e);
	if (err)
		return err;
	p->end += sizeof(r) + len;
	p->dirty = true;
	/* The disk begins with what is there: the sync, for which the sender has to wait, finds little left to do. */
	if (p->end - p->started >= STARTED) {
		sync_file_range(p->fd, p->started, p->end - p->started, SYNC_FILE_RANGE_WRITE);
		p->started = p->end;
	}
	return 0;
}

int sm_pack_sync(struct sm_pack_writer *p, struct sm_err *e)
{
	int err;

	if (!p->dirty)
		return 0;
	err = sm_fault("pack-sync");
	if (!err && fdatasync(p->fd))
		err = -errno;
	if (err)
		return sm_fail(e, err, "%s: cannot sync: %s", p->path, strerror(-err));
	p->dirty = false;
	return 0;
}

int sm_pack_seal(struct sm_pack_writer *p, struct sm_err *e)
{
	struct sm_pack_tail t = { .index_offset = htole64(p->end), .nr_records = htole32(p->nr) };
	size_t len = p->nr * sizeof(*p->index);
	int err = sm_fault("pack-seal");

	pack_id(&p->header, p->index, p->nr, p->id);
	memcpy(t.id, p->id, SM_DIGEST);
	memcpy(t.magic, tail_magic, 8);
	if (!err)
		err = sm_pwrite_full(p->fd, p->index, len, p->end);
	if (!err)
		err = sm_pwrite_full(p->fd, &t, sizeof(t), p->end + len);
	if (!err && ftruncate(p->fd, p->end + len + sizeof(t)))
		err = -errno;
	if (err)
		return sm_fail(e, err, "%s: cannot seal: %s", p->path, strerror(-err));
	p->dirty = true;
	err = sm_pack_sync(p, e);
	if (err)
		return err;
	p->sealed = true;
	return 0;
}

void sm_pack_close(struct sm_pack_writer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	free(p->index);
	p->index = NULL;
}

/* One record at p->end into @buf: its length; 0: no whole record there; -errno. */
static ssize_t recover_one(struct sm_pack_writer *p, uint8_t *buf, struct sm_pack_record *r, struct sm_err *e)
{
	ssize_t n = sm_pread_full(p->fd, r, sizeof(*r), p->end);
	uint32_t len, crc;

	if (n < 0)
		return sm_fail(e, n, "%s: cannot read: %s", p->path, strerror(-n));
	len = le32toh(r->length);
	if (n < (ssize_t)sizeof(*r) || le32toh(r->magic) != RECORD_MAGIC || !len || len > SM_MAX_PAYLOAD)
		return 0;
	n = sm_pread_full(p->fd, buf, len, p->end + sizeof(*r));
	if (n < 0)
		return sm_fail(e, n, "%s: cannot read: %s", p->path, strerror(-n));
	crc = sm_crc32c(sm_crc32c(0, r, offsetof(struct sm_pack_record, crc)), buf, len);
	return n == (ssize_t)len && crc == le32toh(r->crc) ? (ssize_t)len : 0;
}

/* Index fields of a payload that @fn has accepted: both kinds begin with the number of extents. */
static void describe(struct sm_pack_index *x, uint16_t type, const void *payload)
{
	const struct sm_wire_data *d = payload;
	size_t head = type == SM_DATA ? sizeof(struct sm_wire_data) : sizeof(struct sm_wire_zero);
	struct sm_wire_extent first;

	memcpy(&first, (const uint8_t *)payload + head, sizeof(first));
	x->first = first.offset;
	x->nr_extents = d->nr_extents;
	x->raw_length = type == SM_DATA ? d->raw_length : 0;
}

static int recover_records(struct sm_pack_writer *p, sm_pack_fn fn, void *arg, struct sm_err *e)
{
	uint8_t *buf = malloc(SM_MAX_PAYLOAD);
	struct sm_pack_record r;
	ssize_t n = -ENOMEM;

	while (buf && (n = recover_one(p, buf, &r, e)) > 0) {
		struct sm_pack_index x = { htole64(p->end + sizeof(r)), 0, htole32(n), 0, 0,
					   htole32(le16toh(r.type)), { 0 } };
		int err;

		if (fn(p->nr, le16toh(r.type), buf, n, arg, NULL)) {
			n = 0;
			break;
		}
		describe(&x, le16toh(r.type), buf);
		sm_sha256(buf, n, x.digest);
		err = index_add(p, &x, e);
		if (err) {
			n = err;
			break;
		}
		p->end += sizeof(r) + n;
	}
	free(buf);
	return n == -ENOMEM ? sm_fail(e, n, "no memory") : (int)n;
}

/*
 * A second link means that a commit got as far as storing the pack: the file is an object now and
 * final. Otherwise what is behind the records goes, also an index and a tail: more may come.
 */
static int settle(struct sm_pack_writer *p, struct sm_err *e)
{
	struct stat st;

	if (fstat(p->fd, &st))
		return sm_fail(e, -errno, "%s: %s", p->path, strerror(errno));
	if (st.st_nlink > 1) {
		pack_id(&p->header, p->index, p->nr, p->id);
		p->sealed = true;
		return 0;
	}
	p->dirty = true;
	if (ftruncate(p->fd, p->end))
		return sm_fail(e, -errno, "%s: cannot cut: %s", p->path, strerror(errno));
	return 0;
}

int sm_pack_recover(struct sm_pack_writer *p, const char *path, const uint8_t upload[SM_UUID], uint32_t number,
		    sm_pack_fn fn, void *arg, struct sm_err *e)
{
	int err = open_staged(p, path, 0, number, e);
	ssize_t n;

	if (err)
		return err;
	n = sm_pread_full(p->fd, &p->header, sizeof(p->header), 0);
	if (n != sizeof(p->header) || memcmp(p->header.magic, header_magic, 8) ||
	    memcmp(p->header.upload, upload, SM_UUID) || le32toh(p->header.number) != number) {
		sm_pack_close(p);
		return sm_fail(e, n < 0 ? n : -EUCLEAN, "%s: not a pack of this upload", path);
	}
	p->end = sizeof(p->header);
	err = recover_records(p, fn, arg, e);
	if (!err)
		err = settle(p, e);
	if (err)
		sm_pack_close(p);
	return err;
}

static int check_index(const struct sm_pack *p, uint64_t index_offset)
{
	uint64_t at = sizeof(struct sm_pack_header);

	for (uint32_t i = 0; i < p->nr; i++) {
		uint64_t offset = le64toh(p->index[i].offset);
		uint32_t len = le32toh(p->index[i].length);

		if (offset != at + sizeof(struct sm_pack_record) || !len || len > SM_MAX_PAYLOAD)
			return -EUCLEAN;
		at = offset + len;
	}
	return at == index_offset ? 0 : -EUCLEAN;
}

/* Return: 0, or -EUCLEAN when anything does not fit, or -errno of reading. */
static int load_pack(struct sm_pack *p)
{
	const struct sm_store_ops *ops = p->store->ops;
	uint64_t size = ops->size(p->object), index_offset;
	struct sm_pack_tail t;
	uint8_t id[SM_DIGEST];

	if (size < sizeof(p->header) + sizeof(t) ||
	    ops->pread(p->object, &p->header, sizeof(p->header), 0) != sizeof(p->header) ||
	    ops->pread(p->object, &t, sizeof(t), size - sizeof(t)) != sizeof(t))
		return -EUCLEAN;
	index_offset = le64toh(t.index_offset);
	p->nr = le32toh(t.nr_records);
	if (memcmp(p->header.magic, header_magic, 8) || memcmp(t.magic, tail_magic, 8) ||
	    p->nr > SM_PACK_RECORDS || index_offset > SM_PACK_MAX ||
	    size != index_offset + p->nr * sizeof(*p->index) + sizeof(t))
		return -EUCLEAN;
	p->index = malloc(p->nr * sizeof(*p->index) + 1);
	if (!p->index)
		return -ENOMEM;
	if (ops->pread(p->object, p->index, p->nr * sizeof(*p->index), index_offset) !=
	    (ssize_t)(p->nr * sizeof(*p->index)))
		return -EUCLEAN;
	pack_id(&p->header, p->index, p->nr, id);
	if (memcmp(id, p->id, SM_DIGEST) || memcmp(id, t.id, SM_DIGEST))
		return -EUCLEAN;
	return check_index(p, index_offset);
}

int sm_pack_open(struct sm_store *s, const char *key, const uint8_t id[SM_DIGEST], struct sm_pack *p,
		 struct sm_err *e)
{
	int err;

	memset(p, 0, sizeof(*p));
	p->store = s;
	memcpy(p->id, id, SM_DIGEST);
	err = s->ops->open(s, key, &p->object, e);
	if (err)
		return err;
	err = load_pack(p);
	if (!err)
		return 0;
	sm_pack_done(p);
	return sm_fail(e, err, "%s: %s", key, err == -ENOMEM ? "no memory" : "damaged pack");
}

ssize_t sm_pack_read(struct sm_pack *p, uint32_t record, void *buf, struct sm_err *e)
{
	uint8_t digest[SM_DIGEST];
	uint32_t len;
	ssize_t r;
	char id[SM_DIGEST_HEX];

	sm_hex(p->id, SM_DIGEST, id);
	if (record >= p->nr)
		return sm_fail(e, -EUCLEAN, "pack %s: has no record %u", id, record);
	len = le32toh(p->index[record].length);
	r = p->store->ops->pread(p->object, buf, len, le64toh(p->index[record].offset));
	if (r < 0)
		return sm_fail(e, r, "pack %s: cannot read: %s", id, strerror(-r));
	sm_sha256(buf, len, digest);
	if (r != (ssize_t)len || memcmp(digest, p->index[record].digest, SM_DIGEST))
		return sm_fail(e, -EUCLEAN, "pack %s: record %u is damaged", id, record);
	return len;
}

void sm_pack_done(struct sm_pack *p)
{
	if (p->object)
		p->store->ops->close(p->object);
	p->object = NULL;
	free(p->index);
	p->index = NULL;
}
