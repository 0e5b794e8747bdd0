// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A shadow model of a volume: random steps, and after each of them every generation must read as the model says.
 *
 * usage: shadow [OPTION]... PRIMARY DIFF
 *   --seed N         default: from the clock; printed
 *   --steps N        default 200
 *   --sectors N      size of the volume (default: the whole of PRIMARY)
 *   --chunk SIZE     chunk size of the store (default 4k)
 *   --journal SIZE   size of its journal (default: format's)
 *   --power A,B      configfs directories of null_blk devices below PRIMARY and DIFF: a crash is a power cut, what
 *                    their volatile caches have not been told to flush is gone
 *   --may-lose       the diff is small: generations may be lost (then they must read as EIO for ever)
 *   --verbose        print every step
 *
 * What is kept: the content of the volume (now[]), what is surely on the medium below it (flushed[]), and for each
 * generation its content, the chunks that were written in its interval (must[]) and those that may have been (maybe[]).
 *
 * Every sector that is written carries its number and the number of the step, so that a wrong one tells where it comes
 * from. Steps: writes of all sizes and alignments, direct and buffered; bursts of small writes by several threads;
 * zeroes; discards; cuts; deletes of the oldest, the newest, one in the middle, a range, all; bookmarks; deactivation;
 * suspend and resume; detach and attach; crashes, also in the middle of a burst.
 *
 * A crash: the primary and the diff are each below a dm-linear of ours. Both are suspended without waiting for anybody
 * above, in either order, so that what they have completed is on the devices and nothing else ever will be; their tables
 * become "error", the volume is detached, fresh linears take their place, the volume is attached again. Suspending them
 * one after the other is a legal crash in both orders: a write reaches the primary only behind its record.
 *
 * Unacknowledged writes: sectors may be old or new. With --power, acknowledged writes since the last flush: any
 * version since then. A cut is a flush: what a generation shares with the primary must survive.
 *
 * Exit status: 0 all right, 1 the model was contradicted (seed, step and finding are printed), 2 anything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "netlink.h"

#define NAME		"shadow"
#define PATH		"/dev/mapper/" NAME
#define SECTOR		512u
#define MAX_IO		(4u << 20)
#define MAX_GENS	10
#define THREADS		4
#define PIECES		96

struct gen {
	uint32_t number;
	uint8_t state;
	uint8_t *image;
	uint8_t *must, *maybe;		/* a byte a chunk */
};

/* since the last flush, for each sector */
enum { F_WRITTEN = 1, F_ZEROED = 2, F_ANY = 4 };

struct piece {
	uint64_t sector;
	uint32_t n;
	bool zero, done, acked;
};

static struct {
	uint64_t seed, random;
	unsigned int steps, step;
	uint64_t sectors, bytes, chunk, chunks;
	const char *primary, *diff, *chunk_text, *journal;
	const char *power[2];
	bool may_lose, verbose;

	uint8_t *now, *flushed, *flags;
	struct gen gens[MAX_GENS];
	unsigned int nr;
	uint32_t highest;
	uint64_t flush_step;		/* versions from here on may be missing */

	struct snap_nl *nl;
	int direct, buffered;		/* the volume */
	uint8_t *buf, *buf2;
	char what[256];			/* the step, in words */
	unsigned int crashes, cuts, lost, deleted, activations;
} sh;

static struct {
	struct piece piece[PIECES];
	unsigned int nr;
	atomic_uint next;
	uint64_t version;
} burst;

/* ---- small things ---- */

static void stop(int status, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "shadow: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nshadow: step %u (%s) of --seed %llu --steps %u --chunk %s%s%s%s\n", sh.step, sh.what,
		(unsigned long long)sh.seed, sh.steps, sh.chunk_text, sh.power[0] ? " --power ..." : "",
		sh.may_lose ? " --may-lose" : "", sh.journal ? " --journal ..." : "");
	exit(status);
}

#define wrong(...)	stop(1, __VA_ARGS__)
#define broken(...)	stop(2, __VA_ARGS__)

#include "tool.h"

static uint64_t draw(uint64_t below)
{
	sh.random = mix(sh.random);
	return sh.random % below;
}

static bool one_in(unsigned int n)
{
	return !draw(n);
}

static void describe(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sh.what, sizeof(sh.what), fmt, ap);
	va_end(ap);
	if (sh.verbose) {
		printf("# %4u %s\n", sh.step, sh.what);
		fflush(stdout);
	}
}

/* A sector of version v: its number, v, and 62 words that follow from both. */
static void make_sector(uint8_t *p, uint64_t sector, uint64_t version)
{
	uint64_t w[64], x = mix(sector * 1000003 + version);
	int i;

	w[0] = sector;
	w[1] = version;
	for (i = 2; i < 64; i++)
		w[i] = x + i * 0x9e3779b97f4a7c15ull;
	memcpy(p, w, SECTOR);
}

static void make_data(uint8_t *p, uint64_t sector, uint64_t n, uint64_t version)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		make_sector(p + i * SECTOR, sector + i, version);
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Version of a sector; 0 when it is none of ours. */
static uint64_t version_of(const uint8_t *p, uint64_t sector)
{
	uint8_t want[SECTOR];
	uint64_t w[2];

	memcpy(w, p, sizeof(w));
	make_sector(want, sector, w[1]);
	return memcmp(p, want, SECTOR) ? 0 : w[1];
}

static const char *name_sector(char *buf, size_t len, const uint8_t *p)
{
	uint64_t w[2];

	memcpy(w, p, sizeof(w));
	if (all_zero(p, SECTOR))
		snprintf(buf, len, "zeroes");
	else if (version_of(p, w[0]))
		snprintf(buf, len, "sector %llu of step %llu", (unsigned long long)w[0], (unsigned long long)w[1]);
	else
		snprintf(buf, len, "garbage %016llx", (unsigned long long)w[0]);
	return buf;
}

static void compare(const char *who, const uint8_t *have, const uint8_t *want, uint64_t offset, uint64_t len)
{
	char a[64], b[64];
	uint64_t i;

	if (!memcmp(have, want, len))
		return;
	for (i = 0; !memcmp(have + i, want + i, SECTOR); i += SECTOR)
		;
	wrong("%s: sector %llu (chunk %llu) is %s, should be %s", who, (unsigned long long)((offset + i) / SECTOR),
	      (unsigned long long)((offset + i) / sh.chunk), name_sector(a, sizeof(a), have + i),
	      name_sector(b, sizeof(b), want + i));
}

/* ---- the model ---- */

static void mark_chunks(uint64_t offset, uint64_t len, bool maybe)
{
	struct gen *g = sh.nr ? &sh.gens[sh.nr - 1] : NULL;
	uint64_t c;

	if (!g || !len)
		return;
	for (c = offset / sh.chunk; c <= (offset + len - 1) / sh.chunk; c++)
		*(maybe ? &g->maybe[c] : &g->must[c]) = 1;
}

static void flag_sectors(uint64_t offset, uint64_t len, uint8_t flag)
{
	uint64_t i;

	for (i = offset / SECTOR; i < (offset + len) / SECTOR; i++)
		sh.flags[i] |= flag;
}

/* The volume holds @data at @offset now. */
static void model_written(const uint8_t *data, uint64_t offset, uint64_t len)
{
	memcpy(sh.now + offset, data, len);
	mark_chunks(offset, len, false);
	flag_sectors(offset, len, all_zero(data, len) ? F_ZEROED : F_WRITTEN);
}

static void model_flushed(void)
{
	memcpy(sh.flushed, sh.now, sh.bytes);
	memset(sh.flags, 0, sh.sectors);
	sh.flush_step = sh.step + 1;
}

static void free_gen(struct gen *g)
{
	free(g->image);
	free(g->must);
	free(g->maybe);
}

/* Delete entry i: its interval goes to the generation before it. */
static void model_delete(unsigned int i)
{
	struct gen *g = &sh.gens[i];
	uint64_t c;

	if (i)
		for (c = 0; c < sh.chunks; c++) {
			g[-1].must[c] |= g->must[c];
			g[-1].maybe[c] |= g->maybe[c];
		}
	free_gen(g);
	memmove(g, g + 1, (sh.nr - i - 1) * sizeof(*g));
	sh.nr--;
	sh.deleted++;
}

/* ---- set up, take down ---- */

static void open_volume(void)
{
	sh.direct = open(PATH, O_RDWR | O_DIRECT);
	sh.buffered = open(PATH, O_RDWR);
	if (sh.direct < 0 || sh.buffered < 0)
		broken("%s: %s", PATH, strerror(errno));
}

static void close_volume(void)
{
	close(sh.direct);
	close(sh.buffered);
	sh.direct = sh.buffered = -1;
}

static void make_linears(void)
{
	must_shell("dmsetup create " NAME "-p --table '0 %llu linear %s 0'", (unsigned long long)sh.sectors, sh.primary);
	must_shell("dmsetup create " NAME "-d --table \"0 $(blockdev --getsz %s) linear %s 0\"", sh.diff, sh.diff);
}

static void remove_linears(void)
{
	must_shell("dmsetup remove " NAME "-p; dmsetup remove " NAME "-d");
}

static void attach(void)
{
	if (shell("snapctl attach " NAME " /dev/mapper/" NAME "-p /dev/mapper/" NAME "-d >/dev/null"))
		wrong("attach failed");
	open_volume();
}

static void detach(void)
{
	close_volume();
	if (shell("snapctl detach " NAME))
		wrong("detach failed");
}

/* Return: whether all could be read. */
static bool try_read_all(int fd, uint8_t *to)
{
	uint64_t pos = 0;

	while (pos < sh.bytes) {
		uint64_t n = (1 + draw(2048)) * SECTOR;

		if (n > sh.bytes - pos)
			n = sh.bytes - pos;
		if (pread(fd, to + pos, n, pos) != (ssize_t)n)
			return false;
		pos += n;
	}
	return true;
}

static void read_all(int fd, uint8_t *to, const char *who)
{
	if (!try_read_all(fd, to))
		wrong("%s: cannot be read: %s", who, strerror(errno));
}

/* ---- what is looked at after each step ---- */

static void check_list(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen *gens;
	size_t n, i;

	if (snap_nl_gens(sh.nl, NAME, &gens, &n, &e))
		wrong("list: %s", e.text);
	if (n != sh.nr)
		wrong("list has %zu generations, should be %u", n, sh.nr);
	for (i = 0; i < n; i++) {
		struct gen *g = &sh.gens[i];
		uint64_t c, must = 0;

		if (gens[i].number != g->number)
			wrong("list has generation %u, should be %u", gens[i].number, g->number);
		if (gens[i].state == SNAPDIFF_GEN_LOST && g->state == SNAPDIFF_GEN_LIVE && sh.may_lose) {
			g->state = SNAPDIFF_GEN_LOST;
			sh.lost++;
		}
		if (gens[i].state != g->state)
			wrong("generation %u is %s, should be %s", g->number, snap_gen_state_name(gens[i].state),
			      snap_gen_state_name(g->state));
		if (gens[i].size != sh.bytes)
			wrong("generation %u has %llu bytes", g->number, (unsigned long long)gens[i].size);
		for (c = 0; c < sh.chunks; c++)
			must += g->must[c] * (c == sh.chunks - 1 ? sh.bytes - c * sh.chunk : sh.chunk);
		if (gens[i].changed < must)
			wrong("generation %u: changed is %llu, should be at least %llu", g->number,
			      (unsigned long long)gens[i].changed, (unsigned long long)must);
	}
	free(gens);
}

/* With --may-lose a generation may go at any moment, until it is looked at again. */
static bool lost_meanwhile(struct gen *g)
{
	if (sh.may_lose)
		check_list();
	return g->state == SNAPDIFF_GEN_LOST;
}

static void check_virtual(struct gen *g)
{
	struct snap_err e = SNAP_ERR_INIT;
	char path[32], who[64];
	int index, fd;

	snprintf(who, sizeof(who), "generation %u", g->number);
	if (snap_nl_activate(sh.nl, NAME, g->number, false, &index, &e) || snap_virt_wait(index, &e)) {
		if (!lost_meanwhile(g))
			wrong("activate %u: %s", g->number, e.text);
		return;
	}
	sh.activations++;
	fd = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);
	if (fd < 0)
		wrong("%s: %s", path, strerror(errno));
	if (try_read_all(fd, sh.buf2))
		compare(who, sh.buf2, g->image, 0, sh.bytes);
	else if (!lost_meanwhile(g))
		wrong("%s: cannot be read: %s", who, strerror(errno));
	close(fd);
}

struct map_walk {
	struct gen *gen;
	int primary, diff;
	uint64_t end;
};

static int check_extent(const struct snapdiff_extent *x, void *arg)
{
	struct map_walk *w = arg;
	uint64_t done, n;
	char who[64];

	snprintf(who, sizeof(who), "map of %u, %s", w->gen->number, snap_where_name(x->where));
	if (x->offset != w->end || !x->length || x->offset + x->length > sh.bytes)
		wrong("%s: extent %llu+%llu follows %llu", who, (unsigned long long)x->offset,
		      (unsigned long long)x->length, (unsigned long long)w->end);
	w->end = x->offset + x->length;
	for (done = 0; done < x->length; done += n) {
		uint64_t at = x->offset + done;

		n = x->length - done < MAX_IO ? x->length - done : MAX_IO;
		if (x->where == SNAPDIFF_WHERE_ZERO)
			memset(sh.buf, 0, n);
		else if (x->where == SNAPDIFF_WHERE_PRIMARY ?
			 pread(w->primary, sh.buf, n, at) != (ssize_t)n :
			 x->where != SNAPDIFF_WHERE_DIFF || pread(w->diff, sh.buf, n, x->place + done) != (ssize_t)n)
			wrong("%s: cannot read %llu+%llu", who, (unsigned long long)at, (unsigned long long)n);
		compare(who, sh.buf, w->gen->image + at, at, n);
	}
	return 0;
}

static void check_map(struct gen *g)
{
	struct map_walk w = { .gen = g };
	struct snap_err e = SNAP_ERR_INIT;

	w.primary = open("/dev/mapper/" NAME "-p", O_RDONLY | O_DIRECT);
	w.diff = open("/dev/mapper/" NAME "-d", O_RDONLY | O_DIRECT);
	if (w.primary < 0 || w.diff < 0)
		broken("raw devices: %s", strerror(errno));
	if (snap_nl_map(sh.nl, NAME, g->number, 0, 0, check_extent, &w, &e))
		wrong("map of %u: %s", g->number, e.text);
	if (w.end != sh.bytes)
		wrong("map of %u ends at %llu", g->number, (unsigned long long)w.end);
	close(w.primary);
	close(w.diff);
}

static void check_lost(struct gen *g)
{
	int index;

	if (!snap_nl_activate(sh.nl, NAME, g->number, false, &index, NULL)) {
		char path[32];
		int fd = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);

		/* It was active when it was lost: the disk is there, and says EIO. */
		if (fd >= 0 && pread(fd, sh.buf, 4096, draw(sh.bytes / 4096) * 4096) >= 0)
			wrong("generation %u is lost and can be read", g->number);
		if (fd >= 0)
			close(fd);
	}
}

static int note_extent(const struct snapdiff_extent *x, void *arg)
{
	uint8_t *seen = arg;
	uint64_t c;

	if (x->offset % sh.chunk || !x->length || x->offset + x->length > sh.bytes)
		wrong("diff: extent %llu+%llu", (unsigned long long)x->offset, (unsigned long long)x->length);
	for (c = x->offset / sh.chunk; c * sh.chunk < x->offset + x->length; c++)
		seen[c]++;
	return 0;
}

/* From entry @a to entry @b, or to now with @b = nr. */
static void check_diff(unsigned int a, unsigned int b)
{
	uint8_t *seen = memory(sh.chunks);
	struct snap_err e = SNAP_ERR_INIT;
	uint32_t from = sh.gens[a].number, to = b < sh.nr ? sh.gens[b].number : 0;
	uint64_t c;
	unsigned int i;

	if (snap_nl_changes(sh.nl, NAME, from, to, 0, 0, note_extent, seen, &e)) {
		if (sh.may_lose && e.err == -ENODATA)
			goto out;
		wrong("diff %u %u: %s", from, to, e.text);
	}
	for (c = 0; c < sh.chunks; c++) {
		bool must = false, may = false;

		for (i = a; i < b; i++) {
			must |= sh.gens[i].must[c];
			may |= sh.gens[i].must[c] | sh.gens[i].maybe[c];
		}
		if (seen[c] > 1)
			wrong("diff %u %u: chunk %llu is there twice", from, to, (unsigned long long)c);
		if (must && !seen[c])
			wrong("diff %u %u: chunk %llu is missing", from, to, (unsigned long long)c);
		if (!may && seen[c])
			wrong("diff %u %u: chunk %llu was not written", from, to, (unsigned long long)c);
	}
out:
	free(seen);
}

static void check_all(void)
{
	unsigned int i, a;

	read_all(sh.direct, sh.buf2, "the volume");
	compare("the volume", sh.buf2, sh.now, 0, sh.bytes);
	check_list();
	for (i = 0; i < sh.nr; i++) {
		if (sh.gens[i].state == SNAPDIFF_GEN_LIVE) {
			check_virtual(&sh.gens[i]);
			if (!sh.may_lose)	/* blocks of a lost one are used again at once */
				check_map(&sh.gens[i]);
		} else if (sh.gens[i].state == SNAPDIFF_GEN_LOST) {
			check_lost(&sh.gens[i]);
		}
	}
	if (sh.nr) {
		a = draw(sh.nr);
		check_diff(a, a + 1 + draw(sh.nr - a));
		check_diff(0, sh.nr);
	}
}

/* ---- steps: writing ---- */

static void choose_range(uint64_t *offset, uint64_t *len)
{
	uint64_t n, s;

	switch (draw(8)) {
	case 0: case 1:
		n = 1 + draw(8);
		break;
	case 2: case 3:
		n = 8 * (1 + draw(4));
		break;
	case 4: case 5:
		n = 1 + draw(256);
		break;
	case 6:
		n = 1 + draw(2048);
		break;
	default:
		n = 1 + draw(MAX_IO / SECTOR);
	}
	if (n > sh.sectors)
		n = sh.sectors;
	switch (draw(6)) {
	case 0:			/* the end, where the last chunk may be partial */
		s = sh.sectors - n;
		break;
	case 1: case 2:		/* a hot spot */
		s = draw(sh.sectors / 16 + 1);
		break;
	case 3:
		s = draw(sh.sectors / 8) * 8;
		break;
	default:
		s = draw(sh.sectors);
	}
	if (s > sh.sectors - n)
		s = sh.sectors - n;
	*offset = s * SECTOR;
	*len = n * SECTOR;
}

static void step_write(void)
{
	uint64_t offset, len;
	bool direct = !one_in(3), zero = one_in(12), same = one_in(16);
	int fd = direct ? sh.direct : sh.buffered;

	choose_range(&offset, &len);
	describe("%s write of %llu sectors at %llu%s", direct ? "direct" : "buffered", (unsigned long long)len / SECTOR,
		 (unsigned long long)offset / SECTOR, zero ? ", zeroes" : same ? ", what was there" : "");
	if (zero)
		memset(sh.buf, 0, len);
	else if (same)
		memcpy(sh.buf, sh.now + offset, len);
	else
		make_data(sh.buf, offset / SECTOR, len / SECTOR, sh.step);
	if (pwrite(fd, sh.buf, len, offset) != (ssize_t)len)
		wrong("write: %s", strerror(errno));
	if (direct) {
		model_written(sh.buf, offset, len);
		return;
	}
	/* The page cache writes whole pages: what is beside the range is written, too, with what it has. */
	model_written(sh.buf, offset, len);
	mark_chunks(offset & ~4095ull, (offset + len + 4095 > sh.bytes ? sh.bytes :
					(offset + len + 4095) & ~4095ull) - (offset & ~4095ull), true);
	if (fsync(fd))
		wrong("fsync: %s", strerror(errno));
	model_flushed();
}

static void step_flush(void)
{
	describe("flush");
	if (fsync(sh.direct))
		wrong("fsync: %s", strerror(errno));
	model_flushed();
}

static void step_zeroout(void)
{
	uint64_t range[2];

	choose_range(&range[0], &range[1]);
	describe("zeroes over %llu sectors at %llu", (unsigned long long)range[1] / SECTOR,
		 (unsigned long long)range[0] / SECTOR);
	if (ioctl(sh.direct, BLKZEROOUT, range))
		wrong("BLKZEROOUT: %s", strerror(errno));
	memset(sh.buf, 0, range[1]);
	model_written(sh.buf, range[0], range[1]);
	flag_sectors(range[0], range[1], F_ANY);	/* a device may zero by discarding */
}

/* Advisory: the range may be old, zero or anything from now on, but only the range, and only on the volume. */
static void step_discard(void)
{
	uint64_t range[2];

	choose_range(&range[0], &range[1]);
	describe("discard of %llu sectors at %llu", (unsigned long long)range[1] / SECTOR,
		 (unsigned long long)range[0] / SECTOR);
	if (ioctl(sh.direct, BLKDISCARD, range) && errno != EOPNOTSUPP)
		wrong("BLKDISCARD: %s", strerror(errno));
	read_all(sh.direct, sh.buf2, "the volume");
	memcpy(sh.now + range[0], sh.buf2 + range[0], range[1]);
	flag_sectors(range[0], range[1], F_ANY);
}

static void *burst_thread(void *arg)
{
	uint8_t *buf = memory(64 * SECTOR);
	unsigned int i;

	while ((i = atomic_fetch_add(&burst.next, 1)) < burst.nr) {
		struct piece *p = &burst.piece[i];

		if (p->zero)
			memset(buf, 0, p->n * SECTOR);
		else
			make_data(buf, p->sector, p->n, burst.version);
		p->acked = pwrite(sh.direct, buf, p->n * SECTOR, p->sector * SECTOR) == (ssize_t)(p->n * SECTOR);
		p->done = true;
	}
	free(buf);
	return NULL;
}

/* Disjoint pieces, many of them in one chunk, in random order. */
static void burst_plan(void)
{
	uint64_t at = draw(sh.sectors), gap = one_in(2) ? 2 : 1 + draw(64);
	unsigned int i, most = one_in(2) ? 4 : 64;

	memset(&burst, 0, sizeof(burst));
	burst.version = sh.step;
	while (burst.nr < PIECES) {
		struct piece *p = &burst.piece[burst.nr];

		at += draw(gap);
		p->n = 1 + draw(most);
		p->zero = one_in(16);
		if (at + p->n > sh.sectors)
			break;
		p->sector = at;
		at += p->n;
		burst.nr++;
	}
	for (i = burst.nr; i > 1; i--) {
		unsigned int j = draw(i);
		struct piece t = burst.piece[i - 1];

		burst.piece[i - 1] = burst.piece[j];
		burst.piece[j] = t;
	}
}

static void burst_start(pthread_t *t)
{
	int i;

	for (i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, burst_thread, NULL))
			broken("no thread");
}

static void burst_join(pthread_t *t)
{
	int i;

	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

/* Enter the pieces into the model; those that failed in a crash become "old or new". */
static void burst_model(bool crashed)
{
	unsigned int i;

	for (i = 0; i < burst.nr; i++) {
		struct piece *p = &burst.piece[i];
		uint64_t offset = p->sector * SECTOR, len = p->n * SECTOR;

		if (p->zero)
			memset(sh.buf, 0, len);
		else
			make_data(sh.buf, p->sector, p->n, burst.version);
		if (p->acked) {
			model_written(sh.buf, offset, len);
		} else if (crashed) {
			mark_chunks(offset, len, true);
			flag_sectors(offset, len, p->zero ? F_ZEROED : F_WRITTEN);
		} else {
			wrong("a write of the burst failed");
		}
	}
}

static void step_burst(void)
{
	pthread_t t[THREADS];

	burst_plan();
	describe("burst of %u writes at %llu", burst.nr, (unsigned long long)burst.piece[0].sector);
	burst_start(t);
	burst_join(t);
	burst_model(false);
}

/* ---- steps: generations ---- */

static void step_create(void)
{
	const char *name = NAME;
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen made;
	struct gen *g;

	describe("create");
	if (snap_nl_create(sh.nl, &name, 1, NULL, SNAP_FREEZE_AUTO, &made, &e))
		wrong("create: %s", e.text);
	if (made.number != sh.highest + 1)
		wrong("create gave %u, not %u", made.number, sh.highest + 1);
	sh.highest++;
	sh.cuts++;
	g = &sh.gens[sh.nr++];
	g->number = made.number;
	g->state = SNAPDIFF_GEN_LIVE;
	g->image = memory(sh.bytes);
	g->must = memory(sh.chunks);
	g->maybe = memory(sh.chunks);
	memcpy(g->image, sh.now, sh.bytes);
	model_flushed();
}

static void deactivate(uint32_t number)
{
	struct snap_err e = SNAP_ERR_INIT;
	int err, tries;

	for (tries = 0; tries < 50; tries++) {
		err = snap_nl_deactivate(sh.nl, NAME, number, &e);
		if (err != -EBUSY)
			break;
		usleep(20000);
	}
	if (err && err != -ENOENT && err != -ENODEV)
		wrong("deactivate %u: %s", number, e.text);
}

static void step_delete(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	unsigned int a, b, i;

	if (!sh.nr)
		return;
	switch (draw(8)) {
	case 0: case 1:
		a = b = 0;
		break;
	case 2: case 3:
		a = b = sh.nr - 1;
		break;
	case 4:
		a = draw(sh.nr);
		b = a + draw(sh.nr - a);
		break;
	case 5:
		a = one_in(2) ? 0 : draw(sh.nr);
		b = sh.nr - 1;
		break;
	default:
		a = b = draw(sh.nr);
	}
	describe("delete %u..%u of %u..%u", sh.gens[a].number, sh.gens[b].number, sh.gens[0].number,
		 sh.gens[sh.nr - 1].number);
	for (i = a; i <= b; i++)
		deactivate(sh.gens[i].number);
	if (snap_nl_delete(sh.nl, NAME, sh.gens[a].number, sh.gens[b].number, &e))
		wrong("delete: %s", e.text);
	for (i = a; i <= b; i++)
		model_delete(a);
}

static void step_bookmark(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct gen *g;

	if (!sh.nr)
		return;
	g = one_in(2) ? &sh.gens[sh.nr - 1] : &sh.gens[draw(sh.nr)];
	if (g->state != SNAPDIFF_GEN_LIVE)
		return;
	describe("bookmark %u", g->number);
	deactivate(g->number);
	if (snap_nl_bookmark(sh.nl, NAME, g->number, &e)) {
		check_list();		/* it may just have been lost */
		if (g->state == SNAPDIFF_GEN_LIVE)
			wrong("bookmark: %s", e.text);
		return;
	}
	g->state = SNAPDIFF_GEN_BOOKMARK;
}

static void step_deactivate(void)
{
	unsigned int i;

	describe("deactivate all");
	for (i = 0; i < sh.nr; i++)
		deactivate(sh.gens[i].number);
}

/* ---- steps: the volume ---- */

static void step_suspend(void)
{
	describe("suspend, load, resume");
	must_shell("dmsetup suspend " NAME " && dmsetup table " NAME " | dmsetup load " NAME " && dmsetup resume " NAME);
}

static void step_reattach(void)
{
	describe("detach, attach");
	if (fsync(sh.direct))
		wrong("fsync: %s", strerror(errno));
	model_flushed();
	detach();
	attach();
}

/* After a crash: may sector i, which is @have on the volume, be so? */
static bool possible(const uint8_t *have, uint64_t i)
{
	uint64_t v;

	if (!memcmp(have, sh.now + i * SECTOR, SECTOR) || (sh.power[0] && sh.flags[i] & F_ANY))
		return true;
	if (!(sh.flags[i] & (F_WRITTEN | F_ZEROED)))
		return false;
	/* Not acknowledged: the burst's version. Acknowledged but not flushed: only a power cut may lose it. */
	if (sh.flags[i] & F_ZEROED && all_zero(have, SECTOR))
		return true;
	v = version_of(have, i);
	if (v == burst.version && v)
		return true;
	return sh.power[0] && ((v && v >= sh.flush_step) || !memcmp(have, sh.flushed + i * SECTOR, SECTOR));
}

static void adopt_after_crash(void)
{
	char a[64], b[64], c[64];
	uint64_t i;

	read_all(sh.direct, sh.buf2, "the volume");
	for (i = 0; i < sh.sectors; i++)
		if (!possible(sh.buf2 + i * SECTOR, i))
			wrong("after the crash sector %llu (chunk %llu) of the volume is %s, should be %s (flushed: %s)",
			      (unsigned long long)i, (unsigned long long)(i * SECTOR / sh.chunk),
			      name_sector(a, sizeof(a), sh.buf2 + i * SECTOR),
			      name_sector(b, sizeof(b), sh.now + i * SECTOR),
			      name_sector(c, sizeof(c), sh.flushed + i * SECTOR));
	memcpy(sh.now, sh.buf2, sh.bytes);
	model_flushed();
}

static void cut_devices(void)
{
	bool primary_first = one_in(2);

	must_shell("dmsetup suspend --noflush --nolockfs " NAME "-%c && dmsetup suspend --noflush --nolockfs " NAME "-%c",
		   primary_first ? 'p' : 'd', primary_first ? 'd' : 'p');
	must_shell("dmsetup load " NAME "-p --table '0 %llu error' && dmsetup resume " NAME "-p",
		   (unsigned long long)sh.sectors);
	must_shell("dmsetup load " NAME "-d --table \"0 $(blockdev --getsz %s) error\" && dmsetup resume " NAME "-d",
		   sh.diff);
}

static void step_crash(void)
{
	bool busy = one_in(2);
	pthread_t t[THREADS];
	int i;

	memset(&burst, 0, sizeof(burst));
	if (busy)
		burst_plan();
	describe("crash%s", busy ? " in a burst" : "");
	if (busy) {
		burst_start(t);
		usleep(draw(3000));
	}
	cut_devices();
	if (busy) {
		burst_join(t);
		burst_model(true);
	}
	detach();
	remove_linears();
	for (i = 0; i < 2 && sh.power[i]; i++)
		must_shell("echo 0 >%s/power && echo 1 >%s/power", sh.power[i], sh.power[i]);
	make_linears();
	attach();
	adopt_after_crash();
	burst.version = 0;
	sh.crashes++;
}

static void step(void)
{
	static void (*const steps[])(void) = {
		step_write, step_write, step_write, step_write, step_write, step_write, step_write, step_write,
		step_write, step_write, step_burst, step_burst, step_burst, step_burst, step_flush, step_zeroout,
		step_zeroout, step_discard, step_discard, step_discard, step_create, step_create, step_create,
		step_create, step_create, step_create, step_delete, step_delete, step_delete, step_bookmark,
		step_deactivate, step_suspend, step_reattach, step_reattach, step_crash, step_crash,
	};
	void (*f)(void) = steps[draw(sizeof(steps) / sizeof(steps[0]))];

	if (f == step_create && sh.nr == MAX_GENS)
		f = step_delete;
	f();
}

/* ---- main ---- */

static void set_up(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	int fd = open(sh.primary, O_RDONLY);
	uint64_t size;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size))
		broken("%s: %s", sh.primary, strerror(errno));
	close(fd);
	if (!sh.sectors || sh.sectors > size / SECTOR)
		sh.sectors = size / SECTOR;
	sh.bytes = sh.sectors * SECTOR;
	if (snap_parse_size(sh.chunk_text, &sh.chunk, &e))
		broken("%s", e.text);
	sh.chunks = (sh.bytes + sh.chunk - 1) / sh.chunk;
	sh.now = memory(sh.bytes);
	sh.flushed = memory(sh.bytes);
	sh.flags = memory(sh.sectors);
	sh.buf = memory(MAX_IO);
	sh.buf2 = memory(sh.bytes);
	make_linears();
	if (shell("snapctl format --force --chunk %s %s%s /dev/mapper/" NAME "-d", sh.chunk_text,
		  sh.journal ? "--journal-size " : "", sh.journal ? sh.journal : ""))
		wrong("format failed");
	attach();
	if (snap_nl_open(&sh.nl, &e))
		broken("%s", e.text);
	read_all(sh.direct, sh.now, "the volume");
	model_flushed();
}

static int usage(void)
{
	fprintf(stderr, "usage: shadow [--seed N] [--steps N] [--sectors N] [--chunk SIZE] [--journal SIZE] [--power A,B]\n"
		"              [--may-lose] [--verbose] PRIMARY DIFF\n");
	return 2;
}

static int options(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' }, { "steps", 1, NULL, 'n' }, { "sectors", 1, NULL, 'S' },
		{ "chunk", 1, NULL, 'c' }, { "journal", 1, NULL, 'j' }, { "power", 1, NULL, 'p' },
		{ "may-lose", 0, NULL, 'l' }, { "verbose", 0, NULL, 'v' }, { 0 }
	};
	int c;

	sh.seed = time(NULL) * 1000003ull + getpid();
	sh.steps = 200;
	sh.chunk_text = "4k";
	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		switch (c) {
		case 's': sh.seed = strtoull(optarg, NULL, 0); break;
		case 'n': sh.steps = strtoul(optarg, NULL, 0); break;
		case 'S': sh.sectors = strtoull(optarg, NULL, 0); break;
		case 'c': sh.chunk_text = optarg; break;
		case 'j': sh.journal = optarg; break;
		case 'p': sh.power[0] = strtok(optarg, ","); sh.power[1] = strtok(NULL, ","); break;
		case 'l': sh.may_lose = true; break;
		case 'v': sh.verbose = true; break;
		default: return usage();
		}
	}
	if (argc - optind != 2)
		return usage();
	sh.primary = argv[optind];
	sh.diff = argv[optind + 1];
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int i;

	if (options(argc, argv))
		return 2;
	sh.random = mix(sh.seed);
	snprintf(sh.what, sizeof(sh.what), "set-up");
	printf("# shadow: --seed %llu --steps %u --chunk %s\n", (unsigned long long)sh.seed, sh.steps, sh.chunk_text);
	fflush(stdout);
	set_up();
	for (sh.step = 1; sh.step <= sh.steps; sh.step++) {
		step();
		check_all();
	}
	detach();
	remove_linears();
	printf("# shadow: %u steps, %u cuts, %u deleted, %u lost, %u crashes, %u generations read\n", sh.steps, sh.cuts,
	       sh.deleted, sh.lost, sh.crashes, sh.activations);
	for (i = 0; i < sh.nr; i++)
		free_gen(&sh.gens[i]);
	return 0;
}
