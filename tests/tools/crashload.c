// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A load that can be judged after a crash.
 *
 * usage: crashload run VOLUME LOG SEED      write, flush and cut until killed
 *        crashload verify VOLUME LOG        after the crash: is everything there that LOG says has been acknowledged?
 *
 * The first half of the volume belongs to THREADS writers, a region each; the second half to somebody else (fio).
 * Writer t does one write at a time. Which sectors its k-th write of a round covers follows from the round's seed alone;
 * each sector carries its number, round and k. So a region has had exactly j writes if and only if it is what j
 * writes leave, and a generation must be such a state for each region, with a j between the writes completed before
 * create was called and those begun when it had returned: a cut is an instant.
 *
 * LOG is written with O_DSYNC, a line at a time, each after the fact:
 *   R round seed       a round begins; its regions are being filled (k = 0)
 *   W                  they are
 *   F thread k         a flush has returned that was called after write k
 *   C gen k... k...    create has returned gen; completed before, begun after, for each thread
 *   S gen hash         of the second half of the generation, read just after the cut
 *   D gen              it is about to be deleted;  d gen: delete has returned
 *
 * After the crash: every C without D is live and right; every d is gone; each sector of the volume has a version not
 * older than the last one flushed. A generation that is not in LOG may be there (its create had not returned), then
 * it must be the newest and consistent, too.
 *
 * Exit status: 0 all right, 1 something acknowledged is missing or wrong, 2 anything else.
 */
#include <errno.h>
#include <fcntl.h>
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
#include <unistd.h>

#include "dm.h"
#include "netlink.h"

#define SECTOR		512u
#define THREADS		4
#define KEEP		7		/* generations, before the load deletes one */
#define MAX_GENS	4096
#define MAX_SECTORS	32u		/* of one write */

struct cut {
	bool created, deleting, deleted, has_hash;
	uint32_t round;
	uint32_t before[THREADS], after[THREADS];
	uint64_t hash;
};

static struct {
	const char *name;
	int fd, log;
	struct snap_nl *nl;
	uint64_t region;		/* sectors */
	uint64_t bytes;
	uint32_t round;
	uint64_t seed[MAX_GENS];	/* by round */
	bool filled;
	uint32_t flushed[THREADS];
	_Atomic uint32_t begun[THREADS], completed[THREADS];
	struct cut cuts[MAX_GENS];	/* by generation */
	uint32_t newest;		/* in the log */
} cl;

static void fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "crashload: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	exit(status);
}

#define broken(...)	fail(2, __VA_ARGS__)

#include "tool.h"

static void note(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(cl.log, line, n) != n)
		fail(2, "log: %s", strerror(errno));
}

/* ---- what a write is ---- */

/* The k-th write (from 1) of @thread: sectors of its region. */
static void which(uint32_t round, unsigned int thread, uint32_t k, uint64_t *first, uint32_t *n)
{
	uint64_t x = mix(cl.seed[round] + mix(((uint64_t)thread << 32) + k));

	*n = 1 + (x & 3 ? (x >> 8) % 8 : (x >> 8) % MAX_SECTORS);
	/* Half of them in a small part, so that chunks are written again and again. */
	*first = (x >> 16) % ((x & 4 ? cl.region : cl.region / 16) - *n);
}

static void make_sector(uint8_t *p, uint64_t sector, uint32_t round, uint32_t k)
{
	uint64_t w[64], x;
	int i;

	w[0] = sector;
	w[1] = (uint64_t)round << 32 | k;
	x = mix(sector * 1000003 + w[1]);
	for (i = 2; i < 64; i++)
		w[i] = x + i;
	memcpy(p, w, SECTOR);
}

static bool read_sector(const uint8_t *p, uint64_t sector, uint32_t *round, uint32_t *k)
{
	uint8_t want[SECTOR];
	uint64_t w[2];

	memcpy(w, p, sizeof(w));
	*round = w[1] >> 32;
	*k = w[1];
	make_sector(want, sector, *round, *k);
	return !memcmp(p, want, SECTOR);
}

/* Last write <= @k of each sector of the region of @thread. */
static void simulate(uint32_t round, unsigned int thread, uint32_t k, uint32_t *last)
{
	uint64_t first;
	uint32_t i, j, n;

	memset(last, 0, cl.region * sizeof(*last));
	for (i = 1; i <= k; i++) {
		which(round, thread, i, &first, &n);
		for (j = 0; j < n; j++)
			last[first + j] = i;
	}
}

static bool covers(uint32_t round, unsigned int thread, uint32_t k, uint64_t sector)
{
	uint64_t first;
	uint32_t n;

	if (!k)
		return true;
	which(round, thread, k, &first, &n);
	return sector >= first && sector < first + n;
}

static uint64_t hash_of(const uint8_t *p, uint64_t len)
{
	uint64_t h = 1, w, i;

	for (i = 0; i < len; i += 8) {
		memcpy(&w, p + i, 8);
		h = (h ^ w) * 0x9fb21c651e98df25ull;
		h ^= h >> 29;
	}
	return h;
}

/* ---- the load ---- */

static void fill(void)
{
	uint8_t *buf = memory(cl.region * SECTOR);
	uint64_t i;
	int t;

	for (t = 0; t < THREADS; t++) {
		for (i = 0; i < cl.region; i++)
			make_sector(buf + i * SECTOR, t * cl.region + i, cl.round, 0);
		if (pwrite(cl.fd, buf, cl.region * SECTOR, t * cl.region * SECTOR) !=
		    (ssize_t)(cl.region * SECTOR))
			fail(2, "fill: %s", strerror(errno));
	}
	if (fsync(cl.fd))
		fail(2, "fsync: %s", strerror(errno));
	free(buf);
	note("W\n");
}

static void *writer(void *arg)
{
	unsigned int t = (uintptr_t)arg;
	uint8_t *buf = memory(MAX_SECTORS * SECTOR);
	uint64_t first;
	uint32_t k, n, i;

	for (k = 1; ; k++) {
		which(cl.round, t, k, &first, &n);
		for (i = 0; i < n; i++)
			make_sector(buf + i * SECTOR, t * cl.region + first + i, cl.round, k);
		atomic_store(&cl.begun[t], k);
		if (pwrite(cl.fd, buf, n * SECTOR, (t * cl.region + first) * SECTOR) != n * SECTOR)
			fail(2, "write: %s", strerror(errno));
		atomic_store(&cl.completed[t], k);
		if (mix(k) % 32 == 0) {
			if (fsync(cl.fd))
				fail(2, "fsync: %s", strerror(errno));
			note("F %u %u\n", t, k);
		}
	}
	return NULL;
}

static uint8_t *read_generation(uint32_t gen)
{
	uint8_t *buf = memory(cl.bytes);
	struct snap_err e = SNAP_ERR_INIT;
	char path[32];
	uint64_t pos;
	int fd, index, tries;

	if (snap_nl_activate(cl.nl, cl.name, gen, false, &index, &e) || snap_virt_wait(index, &e))
		fail(1, "generation %u: %s", gen, e.text);
	fd = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);
	if (fd < 0)
		fail(1, "%s: %s", path, strerror(errno));
	for (pos = 0; pos < cl.bytes; pos += 1 << 20)
		if (pread(fd, buf + pos, 1 << 20, pos) != 1 << 20)
			fail(1, "generation %u: read at %llu: %s", gen, (unsigned long long)pos, strerror(errno));
	close(fd);
	for (tries = 0; tries < 50 && snap_nl_deactivate(cl.nl, cl.name, gen, NULL) == -EBUSY; tries++)
		usleep(10000);
	return buf;
}

static uint32_t cut(void)
{
	char line[400];
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen gen;
	uint32_t before[THREADS];
	int t, n = 0;

	for (t = 0; t < THREADS; t++)
		before[t] = atomic_load(&cl.completed[t]);
	if (snap_nl_create(cl.nl, &cl.name, 1, NULL, SNAP_FREEZE_AUTO, &gen, &e))
		fail(2, "create: %s", e.text);
	for (t = 0; t < THREADS; t++)
		n += sprintf(line + n, " %u", before[t]);
	for (t = 0; t < THREADS; t++)
		n += sprintf(line + n, " %u", atomic_load(&cl.begun[t]));
	note("C %u%s\n", gen.number, line);
	return gen.number;
}

static void delete_some(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen *gens;
	uint32_t victim;
	size_t n;

	if (snap_nl_gens(cl.nl, cl.name, &gens, &n, &e))
		fail(2, "list: %s", e.text);
	if (n > KEEP) {
		victim = gens[mix(gens[n - 1].number) % n].number;
		note("D %u\n", victim);
		if (snap_nl_delete(cl.nl, cl.name, victim, victim, &e))
			fail(2, "delete: %s", e.text);
		note("d %u\n", victim);
	}
	free(gens);
}

static void run(uint64_t seed)
{
	pthread_t thread;
	uintptr_t t;
	uint8_t *buf;

	cl.round++;
	cl.seed[cl.round] = seed;
	note("R %u %llu\n", cl.round, (unsigned long long)seed);
	fill();
	for (t = 0; t < THREADS; t++)
		if (pthread_create(&thread, NULL, writer, (void *)t))
			fail(2, "no thread");
	printf("running\n");
	fflush(stdout);
	for (;;) {
		uint32_t gen = cut();

		buf = read_generation(gen);
		note("S %u %llu\n", gen, (unsigned long long)hash_of(buf + cl.bytes / 2, cl.bytes / 2));
		free(buf);
		delete_some();
		usleep(mix(gen + seed) % 200000);
	}
}

/* ---- after the crash ---- */

static void log_cut(const char *line)
{
	int pos = 0, n, t;
	struct cut *c;
	uint32_t gen;

	if (sscanf(line, "C %u%n", &gen, &pos) != 1 || gen >= MAX_GENS)
		fail(2, "log: %s", line);
	c = &cl.cuts[gen];
	for (t = 0; t < 2 * THREADS; t++, pos += n)
		if (sscanf(line + pos, " %u%n", t < THREADS ? &c->before[t] : &c->after[t - THREADS], &n) != 1)
			return;		/* cut off by the crash: as if it had not returned */
	if (!strchr(line, '\n'))
		return;
	c->round = cl.round;
	c->created = true;
	cl.newest = gen;
}

static void log_line(const char *line)
{
	unsigned long long x;
	unsigned int a, b;

	if (sscanf(line, "R %u %llu\n", &a, &x) == 2 && a < MAX_GENS) {
		cl.round = a;
		cl.seed[a] = x;
		cl.filled = false;
		memset(cl.flushed, 0, sizeof(cl.flushed));
	} else if (line[0] == 'W') {
		cl.filled = true;
	} else if (strchr(line, '\n') && sscanf(line, "F %u %u", &a, &b) == 2 && a < THREADS) {
		cl.flushed[a] = b;
	} else if (line[0] == 'C') {
		log_cut(line);
	} else if (strchr(line, '\n') && sscanf(line, "S %u %llu", &a, &x) == 2 && a < MAX_GENS) {
		cl.cuts[a].has_hash = true;
		cl.cuts[a].hash = x;
	} else if (sscanf(line, "D %u", &a) == 1 && a < MAX_GENS) {
		cl.cuts[a].deleting = true;
	} else if (strchr(line, '\n') && sscanf(line, "d %u", &a) == 1 && a < MAX_GENS) {
		cl.cuts[a].deleted = true;
	}
}

static void read_log(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[512];

	if (!f && errno == ENOENT)
		return;
	if (!f)
		fail(2, "%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		log_line(line);
	fclose(f);
}

/* Region @t of a generation: the state after exactly j writes, before <= j <= after. */
static void verify_region(uint32_t gen, const struct cut *c, const uint8_t *p, unsigned int t)
{
	uint32_t *last = memory(cl.region * sizeof(*last)), *k = memory(cl.region * sizeof(*k));
	uint32_t round, j = 0;
	uint64_t i;

	for (i = 0; i < cl.region; i++) {
		if (!read_sector(p + i * SECTOR, t * cl.region + i, &round, &k[i]) || round != c->round)
			fail(1, "generation %u: sector %llu is not of round %u", gen,
			     (unsigned long long)(t * cl.region + i), c->round);
		if (k[i] > j)
			j = k[i];
	}
	if (j < c->before[t] || j > c->after[t])
		fail(1, "generation %u: %u writes of thread %u, should be %u to %u", gen, j, t, c->before[t],
		     c->after[t]);
	simulate(c->round, t, j, last);
	for (i = 0; i < cl.region; i++)
		if (last[i] != k[i])
			fail(1, "generation %u, after write %u of thread %u: sector %llu has write %u, should have %u",
			     gen, j, t, (unsigned long long)(t * cl.region + i), k[i], last[i]);
	free(last);
	free(k);
}

static void verify_generation(uint32_t gen)
{
	struct cut unknown = { .round = cl.round }, *c = &cl.cuts[gen];
	uint8_t *buf;
	int t;

	if (!c->created) {
		if (gen <= cl.newest)
			fail(1, "generation %u has come from nowhere", gen);
		for (t = 0; t < THREADS; t++)
			unknown.after[t] = UINT32_MAX;
		c = &unknown;
	}
	buf = read_generation(gen);
	for (t = 0; t < THREADS; t++)
		verify_region(gen, c, buf + t * cl.region * SECTOR, t);
	if (c->has_hash && hash_of(buf + cl.bytes / 2, cl.bytes / 2) != c->hash)
		fail(1, "generation %u: the second half is not what it was", gen);
	free(buf);
}

static void verify_generations(unsigned int *good)
{
	bool *there = calloc(MAX_GENS, sizeof(*there));
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen *gens;
	size_t n, i;

	if (snap_nl_gens(cl.nl, cl.name, &gens, &n, &e))
		fail(1, "list: %s", e.text);
	for (i = 0; i < n; i++) {
		if (gens[i].number >= MAX_GENS)
			fail(2, "too many generations");
		if (gens[i].state != SNAPDIFF_GEN_LIVE)
			fail(1, "generation %u is %s", gens[i].number, snap_gen_state_name(gens[i].state));
		there[gens[i].number] = true;
		verify_generation(gens[i].number);
	}
	for (i = 1; i < MAX_GENS; i++) {
		const struct cut *c = &cl.cuts[i];

		if (c->created && !c->deleting && !there[i])
			fail(1, "generation %zu is gone", i);
		if (c->deleted && there[i])
			fail(1, "generation %zu was deleted and is there", i);
	}
	*good = n;
	free(gens);
	free(there);
}

/* Every sector has a version that is not older than the last one flushed, and one that was written there. */
static void verify_volume(void)
{
	uint8_t *buf = memory(cl.region * SECTOR);
	uint32_t *last = memory(cl.region * sizeof(*last)), round, k;
	uint64_t i;
	int t;

	for (t = 0; t < THREADS; t++) {
		if (pread(cl.fd, buf, cl.region * SECTOR, t * cl.region * SECTOR) != (ssize_t)(cl.region * SECTOR))
			fail(1, "the volume cannot be read: %s", strerror(errno));
		simulate(cl.round, t, cl.flushed[t], last);
		for (i = 0; i < cl.region; i++) {
			if (!read_sector(buf + i * SECTOR, t * cl.region + i, &round, &k) || round != cl.round)
				fail(1, "the volume: sector %llu is not of round %u",
				     (unsigned long long)(t * cl.region + i), cl.round);
			if (k < last[i] || !covers(round, t, k, i))
				fail(1, "the volume: sector %llu has write %u, write %u was flushed",
				     (unsigned long long)(t * cl.region + i), k, last[i]);
		}
	}
	free(last);
	free(buf);
}

static void verify(void)
{
	uint64_t flushed = 0;
	unsigned int good = 0;
	int t;

	verify_generations(&good);
	if (cl.filled)
		verify_volume();
	for (t = 0; t < THREADS; t++)
		flushed += cl.flushed[t];
	printf("verified: %u generations, up to %u; %llu writes known to be flushed in round %u\n", good, cl.newest,
	       (unsigned long long)flushed, cl.round);
}

int main(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	char path[256];

	if (argc < 4 || (!strcmp(argv[1], "run") ? argc != 5 : strcmp(argv[1], "verify") || argc != 4)) {
		fprintf(stderr, "usage: crashload run VOLUME LOG SEED | crashload verify VOLUME LOG\n");
		return 2;
	}
	cl.name = argv[2];
	cl.fd = open(snap_dm_path(cl.name, path, sizeof(path)), O_RDWR | O_DIRECT);
	if (cl.fd < 0 || ioctl(cl.fd, BLKGETSIZE64, &cl.bytes))
		fail(2, "%s: %s", path, strerror(errno));
	cl.region = cl.bytes / 2 / THREADS / SECTOR;
	if (cl.bytes % (1 << 20) || snap_nl_open(&cl.nl, &e))
		fail(2, "%s", e.text);
	read_log(argv[3]);
	if (argc == 4) {
		verify();
		return 0;
	}
	cl.log = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_DSYNC, 0644);
	if (cl.log < 0)
		fail(2, "%s: %s", argv[3], strerror(errno));
	run(strtoull(argv[4], NULL, 0));
	return 0;
}
