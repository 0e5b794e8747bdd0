// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A plain image or block device that nobody writes to: the fallback where there is no module. Changes
 * against the image of the base generation are found by comparing both, block by block, or are told by who knows
 * them (--changes): a list that leaves something out makes a wrong backup, which nothing here can notice.
 *
 * Two reads of it must give the same bytes, or a resumed backup would be a mixture: the generation's uuid is made
 * of the file's identity, size and times, so that another state is another generation to the server; and
 * the file is looked at again at the end. A block device has no such times: it gets a random uuid, that is, no
 * resuming, unless the caller vouches with a uuid of his own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk.h"
#include "source.h"

#define COMPARE		(1u << 20)

struct image {
	struct source s;
	int fd, base_fd;
	int direct_fd;		/* of the same file, past the page cache: each byte is wanted once; -1: not possible there */
	const char *changes;	/* file with what differs from the base, or NULL: compare */
	uint64_t base_size;
	struct stat st;
};

int add_range(struct sm_spill *ranges, uint64_t offset, uint64_t length, bool zero, struct sm_err *e)
{
	struct range *last = ranges->nr ? sm_spill_at(ranges, ranges->nr - 1) : NULL;

	if (last && last->offset + last->length == offset && last->zero == zero) {
		last->length += length;
		return 0;
	}
	last = sm_spill_add(ranges);
	if (!last)
		return sm_fail(e, -errno, "no room for the list of changes: %s", strerror(errno));
	*last = (struct range){ offset, length, zero };
	return 0;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Holes of a regular file are zeros that need no reading. */
static int image_map(struct source *s, struct sm_spill *ranges, struct sm_err *e)
{
	struct image *m = (struct image *)s;
	uint64_t pos = 0;
	int err = 0;

	if (!S_ISREG(m->st.st_mode))
		return add_range(ranges, 0, s->size, false, e);
	while (!err && pos < s->size) {
		off_t data = lseek(m->fd, pos, SEEK_DATA), hole;
		uint64_t begin, end;

		if (data < 0 && errno != ENXIO)
			return add_range(ranges, pos, s->size - pos, false, e);
		begin = data < 0 ? s->size : min64((uint64_t)data / SM_BLOCK * SM_BLOCK, s->size);
		if (begin > pos)
			err = add_range(ranges, pos, begin - pos, true, e);
		if (err || begin >= s->size)
			break;
		hole = lseek(m->fd, data, SEEK_HOLE);
		end = hole < 0 ? s->size : min64(((uint64_t)hole + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK, s->size);
		begin = begin > pos ? begin : pos;
		if (end > begin)
			err = add_range(ranges, begin, end - begin, false, e);
		pos = end > begin ? end : begin + SM_BLOCK;
	}
	return err;
}

static int compare_step(struct image *m, uint64_t at, uint8_t *a, uint8_t *b, struct sm_spill *ranges, struct sm_err *e)
{
	size_t len = min64(COMPARE, m->s.size - at);
	size_t base = at < m->base_size ? min64(COMPARE, m->base_size - at) : 0;
	ssize_t ra = sm_pread_full(m->fd, a, len, at), rb = sm_pread_full(m->base_fd, b, base, at);
	int err = 0;

	if (ra != (ssize_t)len || rb != (ssize_t)base)
		return sm_fail(e, ra < 0 ? ra : rb < 0 ? rb : -EIO, "%s: cannot read at offset %llu", m->s.name,
			       (unsigned long long)at);
	for (size_t i = 0; !err && i < len; i += SM_BLOCK) {
		size_t n = min64(SM_BLOCK, len - i), k = i < base ? min64(SM_BLOCK, base - i) : 0;

		/* A block that either end cuts counts as changed unless both are cut alike. */
		if (n != min64(k, n) || (k > n && at + i + n != m->s.size) || memcmp(a + i, b + i, n))
			err = add_range(ranges, at + i, n, false, e);
	}
	return err;
}

/* Lines of OFFSET LENGTH, ascending, as --dry-run prints them. What is past the end does not count. */
static int read_changes(struct image *m, struct sm_spill *ranges, struct sm_err *e)
{
	FILE *f = fopen(m->changes, "re");
	char line[256], rest;
	uint64_t end = 0;
	int err = f ? 0 : sm_fail(e, -errno, "%s: %s", m->changes, strerror(errno));

	for (unsigned int n = 1; !err && fgets(line, sizeof(line), f); n++) {
		unsigned long long at, len;

		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line, "%llu %llu %c", &at, &len, &rest) != 2 || at % SM_BLOCK || at < end || !len || len > SM_SIZE_MAX ||
		    at > SM_SIZE_MAX)
			err = sm_fail(e, -EINVAL, "%s: line %u: not an offset and a length of whole blocks, or not in order", m->changes, n);
		else if (at < m->s.size)
			err = add_range(ranges, at, min64((len + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK, m->s.size - at), false, e);
		end = at + len;
	}
	if (!err && ferror(f))
		err = sm_fail(e, -EIO, "%s: cannot read", m->changes);
	if (f)
		fclose(f);
	return err;
}

static int image_changes(struct source *s, uint32_t base, struct sm_spill *ranges, struct sm_err *e)
{
	struct image *m = (struct image *)s;
	uint8_t *a, *b;
	int err;

	(void)base;
	if (m->changes)
		return read_changes(m, ranges, e);
	a = malloc(COMPARE);
	b = malloc(COMPARE);
	err = a && b ? 0 : sm_fail(e, -ENOMEM, "no memory");
	for (uint64_t at = 0; !err && at < s->size; at += COMPARE) {
		err = compare_step(m, at, a, b, ranges, e);
		if (s->tick)
			s->tick(s->tick_arg);
	}
	free(a);
	free(b);
	return err;
}

static int image_start(struct source *s, struct sm_err *e)
{
	(void)s, (void)e;
	return 0;
}

static ssize_t image_read(struct source *s, void *buf, size_t len, uint64_t offset)
{
	return sm_pread_full(((struct image *)s)->fd, buf, len, offset);
}

static int image_fd(struct source *s)
{
	return ((struct image *)s)->direct_fd;
}

static int image_check(struct source *s, struct sm_err *e)
{
	struct image *m = (struct image *)s;
	struct stat st;

	if (fstat(m->fd, &st))
		return sm_fail(e, -errno, "%s: %s", s->name, strerror(errno));
	if (S_ISREG(st.st_mode) && (st.st_size != m->st.st_size || st.st_mtim.tv_sec != m->st.st_mtim.tv_sec ||
				    st.st_mtim.tv_nsec != m->st.st_mtim.tv_nsec))
		return sm_fail(e, -ESTALE, "%s: was changed while it was read", s->name);
	return 0;
}

static int image_bookmark(struct source *s, struct sm_err *e)
{
	return sm_fail(e, -EINVAL, "%s: an image has no bookmarks", s->name);
}

static void image_close(struct source *s)
{
	struct image *m = (struct image *)s;

	if (m->fd >= 0)
		close(m->fd);
	if (m->base_fd >= 0)
		close(m->base_fd);
	if (m->direct_fd >= 0)
		close(m->direct_fd);
	free(s->candidates);
	free(m);
}

static const struct source_ops image_ops = {
	.map = image_map,
	.changes = image_changes,
	.start = image_start,
	.read = image_read,
	.fd = image_fd,
	.check = image_check,
	.bookmark = image_bookmark,
	.close = image_close,
};

static int open_image(const char *path, int *fd, uint64_t *size, struct stat *st, struct sm_err *e)
{
	int err;

	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, st))
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return sm_fail(e, -EINVAL, "%s: neither a file nor a block device", path);
	err = snap_blk_fd_size(*fd, size);
	if (err)
		return sm_fail(e, err, "%s: size unknown: %s", path, strerror(-err));
	if (!*size)
		return sm_fail(e, -EINVAL, "%s: is empty", path);
	return 0;
}

/* By way of the descriptor: a name could lead elsewhere by now. */
static void open_direct(struct image *m)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", m->fd);
	m->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

static int make_uuid(struct image *m, struct sm_err *e)
{
	uint64_t id[] = { m->s.number, m->s.size, m->st.st_dev, m->st.st_ino, m->st.st_mtim.tv_sec, m->st.st_mtim.tv_nsec };
	uint8_t digest[SM_DIGEST];
	struct sm_sha s;

	if (!S_ISREG(m->st.st_mode))
		return sm_random(m->s.uuid, SM_UUID) ? sm_fail(e, -EIO, "no random numbers") : 0;
	sm_sha_init(&s);
	sm_sha_update(&s, m->s.volume, SM_UUID);
	sm_sha_update(&s, id, sizeof(id));
	sm_sha_final(&s, digest);
	memcpy(m->s.uuid, digest, SM_UUID);
	return 0;
}

static int describe(struct image *m, const struct image_options *o, struct sm_err *e)
{
	const char *base = strrchr(o->path, '/');
	struct stat st;
	int err;

	if (sm_uuid_parse(o->volume_uuid, m->s.volume))
		return sm_fail(e, -EINVAL, "%s: not a UUID", o->volume_uuid);
	err = open_image(o->path, &m->fd, &m->s.size, &m->st, e);
	if (!err)
		open_direct(m);
	if (!err && o->base_path)
		err = open_image(o->base_path, &m->base_fd, &m->base_size, &st, e);
	if (err)
		return err;
	if (o->gen_uuid && sm_uuid_parse(o->gen_uuid, m->s.uuid))
		return sm_fail(e, -EINVAL, "%s: not a UUID", o->gen_uuid);
	if (!o->gen_uuid && (err = make_uuid(m, e)))
		return err;
	m->s.created = (uint64_t)m->st.st_mtim.tv_sec * 1000000000u + m->st.st_mtim.tv_nsec;
	snprintf(m->s.name, sizeof(m->s.name), "%.120s", o->path);
	snprintf(m->s.volume_name, sizeof(m->s.volume_name), "%.120s",
		 o->volume_name ? o->volume_name : base ? base + 1 : o->path);
	if (o->base_path) {
		m->s.candidates = calloc(1, sizeof(*m->s.candidates));
		if (!m->s.candidates)
			return sm_fail(e, -ENOMEM, "no memory");
		m->s.candidates->number = o->base;
		m->s.candidates->size = m->base_size;
		m->s.nr_candidates = 1;
		m->s.fixed_base = true;
	}
	return 0;
}

int source_image(const struct image_options *o, struct source **s, struct sm_err *e)
{
	struct image *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return sm_fail(e, -ENOMEM, "no memory");
	m->s.ops = &image_ops;
	m->s.number = o->number;
	m->fd = m->base_fd = m->direct_fd = -1;
	m->changes = o->changes;
	err = describe(m, o, e);
	if (err) {
		image_close(&m->s);
		return err;
	}
	*s = &m->s;
	return 0;
}
