// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Replays what dm-log-writes has recorded, and judges a volume at points of it.
 *
 * usage: logreplay sum DEVICE [OFFSET LENGTH]          a checksum of its content
 *        logreplay points LOG                          how many entries there are; which are marks
 *        logreplay list LOG PSIZE                      all entries: NUMBER primary|diff BYTES [flush] [fua], or NUMBER mark TEXT
 *        logreplay check LOG PSIZE DSIZE POINTS SEED   judge POINTS points and all marks
 *        logreplay write LOG N DEVICE                  the first N entries onto a device of zeros
 *        logreplay expect LOG N                        generations that must be there after N entries: NUMBER HALF ALL
 *
 * The recorded device holds the primary (PSIZE bytes) and behind it the differential volume (DSIZE bytes), both of zeros at first.
 *
 * The log (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock, then entries of one sector each, with the data behind them. A
 * write is logged when a flush completes that was submitted after the write had completed; so the writes between two flush entries
 * are those that a power cut before the second one may lose, each for itself, and all before the first one are durable. A point is an entry N and one of
 * two ways to lose power there: everything logged so far is there; or, of what came after the last flush, a random part of it.
 *
 * At a point the differential volume is opened (recovery and all, in memory), checked, and each generation composed and compared. Marks say what
 * has been acknowledged; they are written by the test at these moments:
 *   A                 the volume is attached
 *   W:half            the first half of the primary has this checksum, and has been flushed; nobody writes to it now
 *   C:gen:half        create has returned; the first half has this checksum (nobody wrote to it meanwhile)
 *   S:gen:all         checksum of all of the generation, read from its device while others write
 *   D:gen  d:gen      delete is about to be called; has returned
 *   L                 nothing: for who reads the list
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/fs.h>
#include "internal.h"

#define LOG_MAGIC	0x6a736677736872ull
#define LOG_FLUSH	1u
#define LOG_FUA		2u
#define LOG_DISCARD	4u
#define LOG_MARK	8u
#define MAX_GENS	1024u

struct entry {
	u64 at;			/* byte of the recorded device */
	u64 len;
	u64 flags;
	u64 data;		/* byte of the log: data, or text of a mark */
	u64 text_len;
};

struct cut {
	bool created, has_all, deleting, deleted;
	u64 half, all;
};

static struct {
	int fd;
	u64 nr, sector;
	struct entry *e;
	u64 psize, dsize;
	u8 *img;		/* everything up to the last flush */
	u64 *pending;		/* entries since */
	u64 nr_pending;
	struct { u64 at; u32 len; u8 *old; } *undo;
	u64 nr_undo;
	bool attached, quiet;	/* quiet: the last mark is W, and nothing of the first half was written since */
	u64 half;
	struct cut cuts[MAX_GENS];
	u32 newest;
	u64 points, gens, lossy;
	char said[512];
} lr;

static void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "logreplay: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	exit(1);
}

static void must_read(int fd, void *buf, size_t len, u64 off)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, off);

		if (n <= 0)
			fail("read of %zu bytes at %llu: %s", len, (unsigned long long)off, n ? strerror(errno) : "end of device");
		buf = (u8 *)buf + n;
		len -= n;
		off += n;
	}
}

static u64 hash_add(u64 h, const u8 *p, u64 len)
{
	u64 w, i;

	for (i = 0; i < len; i += 8) {
		memcpy(&w, p + i, 8);
		h = (h ^ w) * 0x9fb21c651e98df25ull;
		h ^= h >> 29;
	}
	return h;
}

/* ---- the log ------------------------------------------------------------------------------------------------- */

static void read_log(const char *path)
{
	u8 buf[4096];
	u64 w[4], i, pos;
	u32 sector;

	lr.fd = open(path, O_RDONLY);
	if (lr.fd < 0)
		fail("%s: %s", path, strerror(errno));
	must_read(lr.fd, buf, 512, 0);
	memcpy(w, buf, 24);
	memcpy(&sector, buf + 24, 4);
	if (le64_to_cpu(w[0]) != LOG_MAGIC || le64_to_cpu(w[1]) != 1)
		fail("%s: no log of version 1", path);
	lr.nr = le64_to_cpu(w[2]);
	lr.sector = le32_to_cpu(sector);
	if (lr.sector < 512 || lr.sector > sizeof(buf) || lr.nr > 100000000)
		fail("%s: %llu entries, sectors of %llu bytes", path, (unsigned long long)lr.nr, (unsigned long long)lr.sector);
	lr.e = calloc(lr.nr + 1, sizeof(*lr.e));
	lr.pending = calloc(lr.nr + 1, sizeof(*lr.pending));
	lr.undo = calloc(lr.nr + 1, sizeof(*lr.undo));
	for (i = 0, pos = lr.sector; i < lr.nr; i++) {
		struct entry *e = &lr.e[i];

		must_read(lr.fd, buf, lr.sector, pos);
		memcpy(w, buf, 32);
		e->at = le64_to_cpu(w[0]) * lr.sector;
		e->len = le64_to_cpu(w[1]) * lr.sector;
		e->flags = le64_to_cpu(w[2]);
		e->text_len = le64_to_cpu(w[3]);
		pos += lr.sector;
		e->data = e->flags & LOG_MARK ? pos - lr.sector + 32 : pos;
		if (!(e->flags & (LOG_DISCARD | LOG_MARK)))
			pos += e->len;
	}
}

static bool mark_text(const struct entry *e, char *text, size_t size)
{
	if (!(e->flags & LOG_MARK))
		return false;
	if (e->text_len >= size || e->text_len > lr.sector - 32)
		fail("a mark of %llu bytes", (unsigned long long)e->text_len);
	must_read(lr.fd, text, e->text_len, e->data);
	text[e->text_len] = 0;
	return true;
}

static void note_mark(const char *t)
{
	unsigned long long a, b;
	struct cut *c = lr.cuts;

	lr.quiet = false;
	if (!strcmp(t, "A")) {
		lr.attached = true;
	} else if (sscanf(t, "W:%llx", &a) == 1) {
		lr.quiet = true;
		lr.half = a;
	} else if (sscanf(t, "C:%llu:%llx", &a, &b) == 2 && a < MAX_GENS) {
		c[a].created = true;
		c[a].half = b;
		lr.newest = a;
	} else if (sscanf(t, "S:%llu:%llx", &a, &b) == 2 && a < MAX_GENS) {
		c[a].has_all = true;
		c[a].all = b;
	} else if (sscanf(t, "D:%llu", &a) == 1 && t[0] == 'D' && a < MAX_GENS) {
		c[a].deleting = true;
	} else if (sscanf(t, "d:%llu", &a) == 1 && a < MAX_GENS) {
		c[a].deleted = true;
	} else if (strcmp(t, "L") && strcmp(t, "dm-log-writes-end")) {
		fail("mark %s", t);
	}
}

/* ---- the device ---------------------------------------------------------------------------------------------------- */

static void put(const struct entry *e, u8 *to)
{
	if (e->at > lr.psize + lr.dsize || e->len > lr.psize + lr.dsize - e->at)
		fail("a write at %llu", (unsigned long long)e->at);
	if (e->flags & LOG_DISCARD)	/* null_blk gives zeros for what was discarded */
		memset(to, 0, e->len);
	else if (e->len)
		must_read(lr.fd, to, e->len, e->data);
}

/* Onto what is durable; or, with a way back, onto what a power cut has left. */
static void apply(u64 n, bool undoable)
{
	const struct entry *e = &lr.e[n];
	u8 *p = lr.img + e->at;

	if (e->flags & LOG_MARK || !e->len)
		return;
	if (undoable) {
		lr.undo[lr.nr_undo].at = e->at;
		lr.undo[lr.nr_undo].len = e->len;
		lr.undo[lr.nr_undo++].old = memcpy(malloc(e->len), p, e->len);
	}
	put(e, p);
}

static void undo_all(void)
{
	while (lr.nr_undo) {
		lr.nr_undo--;
		memcpy(lr.img + lr.undo[lr.nr_undo].at, lr.undo[lr.nr_undo].old, lr.undo[lr.nr_undo].len);
		free(lr.undo[lr.nr_undo].old);
	}
}

static void advance(u64 n)
{
	const struct entry *e = &lr.e[n];
	char text[256];
	u64 i;

	if (mark_text(e, text, sizeof(text))) {
		note_mark(text);
		return;
	}
	if (e->len && e->at < lr.psize / 2)
		lr.quiet = false;
	lr.pending[lr.nr_pending++] = n;
	if (!(e->flags & (LOG_FLUSH | LOG_FUA)))
		return;
	if (e->flags & LOG_FUA && !(e->flags & LOG_FLUSH)) {	/* durable alone */
		apply(n, false);
		lr.nr_pending--;
		return;
	}
	for (i = 0; i < lr.nr_pending; i++)
		apply(lr.pending[i], false);
	lr.nr_pending = 0;
}

/* ---- judging -------------------------------------------------------------------------------------------------------- */

static int d_read(void *ctx, u64 block, u32 nr, void *buf)
{
	memcpy(buf, lr.img + lr.psize + block * SD_BLOCK_SIZE, (size_t)nr * SD_BLOCK_SIZE);
	return 0;
}

static int d_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	return -EROFS;
}

static int d_flush(void *ctx)
{
	return 0;
}

static int d_get(void *ctx, u64 block, struct sd_buf *buf)
{
	buf->data = lr.img + lr.psize + block * SD_BLOCK_SIZE;
	buf->validated = NULL;
	return 0;
}

static void d_put(void *ctx, struct sd_buf *buf)
{
}

static void d_forget(void *ctx, u64 block, u32 nr)
{
}

static void say(void *ctx, const char *text)
{
	if (!lr.said[0])
		snprintf(lr.said, sizeof(lr.said), "%s", text);
}

static const u8 *data_of(struct sd_store *s, u64 chunk, u32 gen, u64 point)
{
	struct sd_rec rec;
	const u8 *p;

	if (sd_lookup(s->cur, chunk, gen, &rec) || rec.kind != SD_KIND_DATA)
		fail("point %llu: generation %u: chunk %llu: %s", (unsigned long long)point, gen, (unsigned long long)chunk, lr.said);
	p = lr.img + lr.psize + rec.addr * SD_BLOCK_SIZE;
	if (crc32c(~0u, p, s->chunk_size) != rec.crc)
		fail("point %llu: generation %u: chunk %llu: wrong checksum of its data", (unsigned long long)point, gen,
		     (unsigned long long)chunk);
	return p;
}

static void compose(struct sd_store *s, u32 gen, u8 *out, u64 point)
{
	u64 pos = 0, end = lr.psize / s->chunk_size, k;
	struct sd_extent x[64];
	int n, i;

	while (pos < end) {
		n = sd_map_extents(s->cur, gen, &pos, end, x, ARRAY_SIZE(x));
		if (n <= 0)
			fail("point %llu: generation %u cannot be read: %s", (unsigned long long)point, gen, lr.said);
		for (i = 0; i < n; i++) {
			u64 at = x[i].chunk * s->chunk_size, len = x[i].nr * s->chunk_size;

			if (x[i].kind == SD_KIND_NONE)
				memcpy(out + at, lr.img + at, len);
			else if (x[i].kind == SD_KIND_ZERO)
				memset(out + at, 0, len);
			for (k = 0; x[i].kind == SD_KIND_DATA && k < x[i].nr; k++)
				memcpy(out + at + k * s->chunk_size, data_of(s, x[i].chunk + k, gen, point), s->chunk_size);
			if (x[i].kind == SD_KIND_BAD || x[i].kind == SD_KIND_MARK)
				fail("point %llu: generation %u has a chunk of kind %u", (unsigned long long)point, gen, x[i].kind);
		}
	}
}

static void judge_generation(struct sd_store *s, u32 n, u8 *buf, u64 point)
{
	const struct cut *c = &lr.cuts[n];
	struct sd_gen gen;
	bool there = !sd_gen_find(s, n, &gen);

	if (c->deleted && there)
		fail("point %llu: generation %u was deleted and is there", (unsigned long long)point, n);
	if (c->created && !c->deleting && !there)
		fail("point %llu: generation %u was acknowledged and is not there", (unsigned long long)point, n);
	if (!there)
		return;
	if (gen.state != SD_GEN_LIVE)
		fail("point %llu: generation %u is in state %u", (unsigned long long)point, n, gen.state);
	compose(s, n, buf, point);
	lr.gens++;
	if (c->created && hash_add(1, buf, lr.psize / 2) != c->half)
		fail("point %llu: generation %u: its first half is not what was cut", (unsigned long long)point, n);
	if (c->has_all && hash_add(1, buf, lr.psize) != c->all)
		fail("point %llu: generation %u is not what was read when it was cut", (unsigned long long)point, n);
}

static void judge(u64 point)
{
	static const struct sd_dev_ops ops = {
		.read = d_read, .write = d_write, .flush = d_flush, .get = d_get, .put = d_put, .forget = d_forget,
	};
	struct sd_dev dev = { .ops = &ops, .nr_blocks = lr.dsize / SD_BLOCK_SIZE };
	struct sd_open_opts o = { .read_only = true, .complain = say };
	struct sd_check_result r;
	struct sd_store *s;
	u8 *buf = malloc(lr.psize);
	u32 n;
	int err;

	lr.said[0] = 0;
	lr.points++;
	err = sd_open(&dev, &o, &s);
	if (err && (lr.attached || err != -ENODATA))
		fail("point %llu: the store cannot be opened: error %d, %s", (unsigned long long)point, err, lr.said);
	if (lr.quiet && hash_add(1, lr.img, lr.psize / 2) != lr.half)
		fail("point %llu: the primary does not have what was flushed", (unsigned long long)point);
	if (!err) {
		if (s->failed || sd_check(s, 0, &r) || r.errors)
			fail("point %llu: the check says: %s", (unsigned long long)point, s->failed ? "failed" : lr.said);
		for (n = 1; n <= lr.newest + 1 && n < MAX_GENS; n++)
			judge_generation(s, n, buf, point);
		sd_close(s);
	}
	free(buf);
}

static u64 dice(u64 *seed, u64 n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (*seed >> 20) % n;
}

/* Of what is not durable, a random part; mostly nearly all or nearly nothing of it, now and then all but one. */
static void lose_some(u64 *seed)
{
	u64 keep = dice(seed, 4), one = dice(seed, lr.nr_pending), i;

	for (i = 0; i < lr.nr_pending; i++)
		if (keep == 3 ? i != one : keep == 0 ? dice(seed, 8) == 0 : keep == 1 ? dice(seed, 8) != 0 : dice(seed, 2))
			apply(lr.pending[i], true);
	lr.lossy++;
}

static void check(u64 points, u64 seed)
{
	u64 n, i, every = max(lr.nr / points, 1ull);

	for (n = 0; n < lr.nr; n++) {
		bool here = lr.e[n].flags & LOG_MARK || dice(&seed, every) == 0;

		advance(n);
		if (!here)
			continue;
		for (i = 0; i < lr.nr_pending; i++)
			apply(lr.pending[i], true);
		judge(n);
		undo_all();
		if (!lr.nr_pending)
			continue;
		lose_some(&seed);
		judge(n);
		undo_all();
	}
	printf("%llu points of %llu entries, %llu of them with writes lost; %llu generations compared\n", (unsigned long long)lr.points,
	       (unsigned long long)lr.nr, (unsigned long long)lr.lossy, (unsigned long long)lr.gens);
	if (!lr.gens || !lr.lossy)
		fail("nothing was compared");
}

/* ---- verbs --------------------------------------------------------------------------------------------------------------- */

static u64 size_of(int fd)
{
	u64 bytes;

	if (ioctl(fd, BLKGETSIZE64, &bytes))
		bytes = lseek(fd, 0, SEEK_END);
	return bytes;
}

static int sum(int argc, char **argv)
{
	int fd = open(argv[2], O_RDONLY | O_DIRECT);
	u64 off = argc > 4 ? strtoull(argv[3], NULL, 0) : 0, len, done, h = 1, n;
	u8 *buf = sd_malloc(1 << 20);

	if (fd < 0)
		fail("%s: %s", argv[2], strerror(errno));
	len = argc > 4 ? strtoull(argv[4], NULL, 0) : size_of(fd);
	for (done = 0; done < len; done += n) {
		n = min(len - done, 1ull << 20);
		must_read(fd, buf, n, off + done);
		h = hash_add(h, buf, n);
	}
	printf("%llx\n", (unsigned long long)h);
	return 0;
}

static int list_points(void)
{
	char text[256];
	u64 n;

	for (n = 0; n < lr.nr; n++)
		if (mark_text(&lr.e[n], text, sizeof(text)))
			printf("%llu %s\n", (unsigned long long)n + 1, text);
	printf("%llu end\n", (unsigned long long)lr.nr);
	return 0;
}

static int write_first(u64 count, const char *path)
{
	int fd = open(path, O_WRONLY);
	u8 *buf;
	u64 n;

	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	lr.dsize = size_of(fd);
	for (n = 0; n < min(count, lr.nr); n++) {
		const struct entry *e = &lr.e[n];

		if (e->flags & LOG_MARK || !e->len)
			continue;
		buf = malloc(e->len);
		put(e, buf);
		if (pwrite(fd, buf, e->len, e->at) != (ssize_t)e->len)
			fail("%s: %s", path, strerror(errno));
		free(buf);
	}
	return fsync(fd) ? 1 : 0;
}

static int list_entries(u64 psize)
{
	char text[256];
	u64 n;

	for (n = 0; n < lr.nr; n++) {
		const struct entry *e = &lr.e[n];

		if (mark_text(e, text, sizeof(text)))
			printf("%llu mark %s\n", (unsigned long long)n, text);
		else
			printf("%llu %s %llu%s%s\n", (unsigned long long)n, e->at < psize ? "primary" : "diff", (unsigned long long)e->len,
			       e->flags & LOG_FLUSH ? " flush" : "", e->flags & LOG_FUA ? " fua" : "");
	}
	return 0;
}

static int expect(u64 count)
{
	char text[256];
	u64 n;

	for (n = 0; n < min(count, lr.nr); n++)
		if (mark_text(&lr.e[n], text, sizeof(text)))
			note_mark(text);
	for (n = 1; n <= lr.newest; n++)
		if (lr.cuts[n].created && lr.cuts[n].has_all && !lr.cuts[n].deleting)
			printf("%llu %llx %llx\n", (unsigned long long)n, (unsigned long long)lr.cuts[n].half,
			       (unsigned long long)lr.cuts[n].all);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "sum"))
		return sum(argc, argv);
	if (argc < 3)
		fail("see the head of tests/tools/logreplay.c");
	read_log(argv[2]);
	if (!strcmp(argv[1], "points"))
		return list_points();
	if (argc == 4 && !strcmp(argv[1], "list"))
		return list_entries(strtoull(argv[3], NULL, 0));
	if (argc == 5 && !strcmp(argv[1], "write"))
		return write_first(strtoull(argv[3], NULL, 0), argv[4]);
	if (argc == 4 && !strcmp(argv[1], "expect"))
		return expect(strtoull(argv[3], NULL, 0));
	if (argc != 7 || strcmp(argv[1], "check"))
		fail("see the head of tests/tools/logreplay.c");
	lr.psize = strtoull(argv[3], NULL, 0);
	lr.dsize = strtoull(argv[4], NULL, 0);
	lr.img = mmap(NULL, lr.psize + lr.dsize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (lr.img == MAP_FAILED)
		fail("no memory");
	check(strtoull(argv[5], NULL, 0), strtoull(argv[6], NULL, 0));
	return 0;
}
