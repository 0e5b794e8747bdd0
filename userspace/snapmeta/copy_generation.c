// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapmeta copy-generation: a generation without the module, for the day when only the two devices are left.
 *
 * The same rule as in the kernel: the record of a chunk with the smallest generation >= N, else the primary. Nobody writes to the primary meanwhile (it is
 * opened exclusively), so there is no looking again.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "name.h"
#include "snapmeta.h"

#define BATCH_EXTENTS	256
#define IO_BYTES	(1u << 20)

struct copy {
	struct meta diff;
	struct filedev primary;
	struct sd_gen gen;
	const char *to;
	int fd;
	u64 size;		/* bytes of the generation */
	u8 *buf;
};

static int write_all(struct copy *c, u64 off, size_t len, struct snap_err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(c->fd, c->buf + done, len - done, off + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return snap_err_sys(e, n ? -errno : -EIO, c->to, "cannot write");
		done += n;
	}
	return 0;
}

static int copy_from_primary(struct copy *c, u64 off, u64 end, struct snap_err *e)
{
	while (off < end) {
		size_t len = min_t(u64, IO_BYTES, end - off);
		ssize_t n = pread(c->primary.fd, c->buf, len, off);
		int err;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return snap_err_set(e, n ? -errno : -EIO, "primary", "cannot read at byte %llu", (unsigned long long)off);
		err = write_all(c, off, n, e);
		if (err)
			return err;
		off += n;
	}
	return 0;
}

/* Chunk by chunk: each has its own checksum. */
static int copy_from_diff(struct copy *c, const struct sd_extent *x, struct snap_err *e)
{
	struct sd_store *s = c->diff.store;
	struct sd_rec rec;
	u64 i;
	int err = 0;

	for (i = 0; !err && i < x->nr; i++) {
		u64 off = (x->chunk + i) * s->chunk_size;

		err = sd_lookup(s->cur, x->chunk + i, c->gen.number, &rec);
		if (!err)
			err = s->dev->ops->read(s->dev->ctx, rec.addr, s->chunk_blocks, c->buf);
		if (!err && crc32c(~0u, c->buf, s->chunk_size) != rec.crc)
			err = -EIO;
		if (err)
			return snap_err_set(e, err, c->diff.path, "preserved chunk at byte %llu of the generation is damaged",
					    (unsigned long long)off);
		err = write_all(c, off, min_t(u64, s->chunk_size, c->size - off), e);
	}
	return err;
}

static int copy_extent(struct copy *c, const struct sd_extent *x, struct snap_err *e)
{
	u64 cs = c->diff.store->chunk_size, off = x->chunk * cs, end = min(c->size, (x->chunk + x->nr) * cs);

	switch (x->kind) {
	case SD_KIND_NONE:
		return copy_from_primary(c, off, end, e);
	case SD_KIND_DATA:
		return copy_from_diff(c, x, e);
	case SD_KIND_ZERO:
		return 0;	/* the file is new: a hole */
	default:
		return snap_err_set(e, -EIO, c->diff.path, "bytes %llu to %llu of the generation could not be preserved",
				    (unsigned long long)off, (unsigned long long)end);
	}
}

static int copy_all(struct copy *c, struct snap_err *e)
{
	struct sd_extent x[BATCH_EXTENTS];
	u64 pos = 0, end = DIV_ROUND_UP(c->size, c->diff.store->chunk_size);
	int n, i, err = 0;

	while (!err && pos < end) {
		n = sd_map_extents(c->diff.store->cur, c->gen.number, &pos, end, x, BATCH_EXTENTS);
		if (n < 0)
			return snap_err_set(e, n, c->diff.path, "the mapping table is damaged");
		for (i = 0; !err && i < n; i++)
			err = copy_extent(c, &x[i], e);
	}
	return err;
}

static int open_all(struct copy *c, char **argv, struct snap_err *e)
{
	int err = meta_open(&c->diff, argv[0], e);

	if (err)
		return err;
	err = filedev_open(&c->primary, argv[1], true, true);
	if (err) {
		meta_close(&c->diff);
		return snap_err_sys(e, err, argv[1], "cannot open the primary");
	}
	return 0;
}

static int check_gen(struct copy *c, const char *number, struct snap_err *e)
{
	struct sd_store *s = c->diff.store;
	u32 n;

	if (snap_parse_u32(number, 1, U32_MAX, &n, e))
		return -EINVAL;
	if (sd_gen_find(s, n, &c->gen))
		return snap_err_set(e, -ENOENT, c->diff.path, "has no generation %u", n);
	if (c->gen.state != SD_GEN_LIVE)
		return snap_err_set(e, -ENOENT, c->diff.path, "generation %u is %s", n,
				    c->gen.state == SD_GEN_LOST ? "lost" : "only a bookmark");
	c->size = c->gen.size_sectors << 9;
	if (c->primary.dev.nr_blocks << SD_BLOCK_SHIFT < (s->primary_sectors << 9) / SD_BLOCK_SIZE * SD_BLOCK_SIZE)
		return snap_err_set(e, -EINVAL, c->diff.path, "the primary is smaller than it was: not the one of this store?");
	return 0;
}

static int write_file(struct copy *c, struct snap_err *e)
{
	int err;

	c->fd = open(c->to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (c->fd < 0)
		return snap_err_sys(e, -errno, c->to, "cannot create");
	c->buf = sd_malloc(IO_BYTES);
	err = c->buf ? 0 : -ENOMEM;
	if (!err && ftruncate(c->fd, c->size))
		err = snap_err_sys(e, -errno, c->to, "cannot set the size");
	if (!err)
		err = copy_all(c, e);
	if (!err && fsync(c->fd))
		err = snap_err_sys(e, -errno, c->to, "cannot write");
	close(c->fd);
	sd_free(c->buf);
	if (err)
		unlink(c->to);	/* half an image is worse than none */
	return err;
}

static int run(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct copy c = { 0 };
	const struct snap_opt opts[] = {
		{ "to", 't', SNAP_OPT_STRING, "FILE", &c.to, "the file to make (must not exist)" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_copy_generation, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	if (!c.to)
		return snap_usage_error("copy-generation: --to FILE is missing");
	err = open_all(&c, argv, &e);
	if (err)
		return snap_err_report(&e);
	err = check_gen(&c, argv[2], &e);
	if (!err)
		err = write_file(&c, &e);
	filedev_close(&c.primary);
	meta_close(&c.diff);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_copy_generation = {
	.name = "copy-generation",
	.args = "DIFF PRIMARY N",
	.summary = "Copy generation N into a file, without the module",
	.help = "For disaster recovery on any machine: DIFF and PRIMARY may be devices or images. Every preserved chunk is checked\n"
		"before it is written. Nothing is written to DIFF or PRIMARY.",
	.min_args = 3,
	.max_args = 3,
	.run = run,
};
