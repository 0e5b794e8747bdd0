// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reads of generations racing writes to the volume. Every sector says whose it is: its number and an epoch.
 *
 * usage: virtrace fill DEVICE EPOCH
 *            write the whole device
 *        virtrace check DEVICE EPOCH
 *            read the whole device, every sector must be of EPOCH
 *        virtrace race DEVICE EPOCH SEED VIRTUAL:EPOCH...
 *            overwrite the whole device with EPOCH, in pieces of random size and order, while two threads
 *            for each VIRTUAL read pieces of random size and alignment, which must be of its EPOCH
 *
 * The threads begin before the first write and each reads the whole VIRTUAL once more after the last one.
 * Exit status: 0 all right, 1 a wrong or unreadable sector (printed), 2 anything else.
 */
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SECTOR	512u
#define MAX_IO	(1536u << 10)
#define PIECE	(256u << 10)	/* the writer's unit of order; it is written in up to four parts */

struct sector {
	uint64_t number, epoch;
	uint64_t fill[62];
};

struct device {
	const char *path;
	int fd;
	uint64_t sectors;
	uint64_t epoch;
};

struct reader {
	pthread_t thread;
	struct device dev;
	uint64_t seed, reads;
};

static atomic_bool written, wrong;

static void die(const char *what)
{
	fprintf(stderr, "virtrace: %s: %s\n", what, strerror(errno));
	exit(2);
}

#define broken(...)	die(__VA_ARGS__)

#include "tool.h"

static uint64_t draw(uint64_t *seed, uint64_t below)
{
	*seed = mix(*seed);
	return *seed % below;
}

static void make(struct sector *s, uint64_t number, uint64_t epoch)
{
	uint64_t x = mix(number * 1000003 + epoch);
	unsigned int i;

	s->number = number;
	s->epoch = epoch;
	for (i = 0; i < 62; i++)
		s->fill[i] = x + i;
}

static void make_range(void *buf, uint64_t first, uint64_t n, uint64_t epoch)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		make((struct sector *)buf + i, first + i, epoch);
}

static int check_range(const struct device *d, const void *buf, uint64_t first, uint64_t n)
{
	struct sector want;
	uint64_t i;

	for (i = 0; i < n; i++) {
		const struct sector *s = (const struct sector *)buf + i;

		make(&want, first + i, d->epoch);
		if (!memcmp(s, &want, sizeof(want)))
			continue;
		fprintf(stderr, "%s: sector %llu of epoch %llu has sector %llu of epoch %llu\n", d->path,
			(unsigned long long)(first + i), (unsigned long long)d->epoch,
			(unsigned long long)s->number, (unsigned long long)s->epoch);
		return 1;
	}
	return 0;
}

static void *buffer(void)
{
	void *p;

	if (posix_memalign(&p, 4096, MAX_IO))
		die("memory");
	return p;
}

static void device_open(struct device *d, const char *path, uint64_t epoch, int flags)
{
	uint64_t bytes;

	d->path = path;
	d->epoch = epoch;
	d->fd = open(path, flags | O_DIRECT | O_CLOEXEC);
	if (d->fd < 0 || ioctl(d->fd, BLKGETSIZE64, &bytes))
		die(path);
	d->sectors = bytes / SECTOR;
}

static void device_write(struct device *d, void *buf, uint64_t first, uint64_t n)
{
	make_range(buf, first, n, d->epoch);
	if (pwrite(d->fd, buf, n * SECTOR, first * SECTOR) != (ssize_t)(n * SECTOR))
		die(d->path);
}

static int device_check(const struct device *d, void *buf, uint64_t first, uint64_t n)
{
	ssize_t got = pread(d->fd, buf, n * SECTOR, first * SECTOR);

	if (got == (ssize_t)(n * SECTOR))
		return check_range(d, buf, first, n);
	fprintf(stderr, "%s: read of %llu sectors at %llu: %s\n", d->path, (unsigned long long)n,
		(unsigned long long)first, got < 0 ? strerror(errno) : "short");
	return 1;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int whole(struct device *d, int write)
{
	uint64_t at, n;
	void *buf = buffer();
	int bad = 0;

	for (at = 0; at < d->sectors && !bad; at += n) {
		n = least(MAX_IO / SECTOR, d->sectors - at);
		if (write)
			device_write(d, buf, at, n);
		else
			bad = device_check(d, buf, at, n);
	}
	free(buf);
	return bad;
}

static void *read_along(void *arg)
{
	struct reader *r = arg;
	void *buf = buffer();

	do {
		uint64_t n = 1 + draw(&r->seed, draw(&r->seed, 4) ? 64 : MAX_IO / SECTOR);
		uint64_t first = draw(&r->seed, r->dev.sectors);

		n = least(n, r->dev.sectors - first);
		if (device_check(&r->dev, buf, first, n))
			wrong = 1;
		r->reads++;
	} while (!written && !wrong);
	free(buf);
	if (!wrong && whole(&r->dev, 0))
		wrong = 1;
	return NULL;
}

/* All pieces, in random order; each in one to four parts with borders anywhere. */
static void overwrite(struct device *d, uint64_t seed)
{
	uint64_t unit = PIECE / SECTOR, n = (d->sectors + unit - 1) / unit, i, at, end, part;
	uint64_t *order = calloc(n, sizeof(*order));
	void *buf = buffer();

	if (!order)
		die("memory");
	for (i = 0; i < n; i++) {
		uint64_t k = draw(&seed, i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (i = 0; i < n && !wrong; i++) {
		at = order[i] * unit;
		end = least(at + unit, d->sectors);
		for (; at < end; at += part) {
			part = draw(&seed, 3) ? 1 + draw(&seed, end - at) : end - at;
			device_write(d, buf, at, part);
		}
	}
	free(order);
	free(buf);
}

static int race(struct device *d, uint64_t seed, int n, char **virtuals)
{
	struct reader *readers = calloc(2 * n, sizeof(*readers));
	uint64_t reads = 0;
	int i;

	if (!readers)
		die("memory");
	for (i = 0; i < 2 * n; i++) {
		char *spec = strdup(virtuals[i / 2]), *epoch = strrchr(spec, ':');

		if (!epoch) {
			fprintf(stderr, "virtrace: %s: not VIRTUAL:EPOCH\n", spec);
			return 2;
		}
		*epoch++ = '\0';
		device_open(&readers[i].dev, spec, strtoull(epoch, NULL, 0), O_RDONLY);
		readers[i].seed = mix(seed + i);
		if (pthread_create(&readers[i].thread, NULL, read_along, &readers[i]))
			die("thread");
	}
	overwrite(d, seed);
	written = 1;
	for (i = 0; i < 2 * n; i++) {
		pthread_join(readers[i].thread, NULL);
		reads += readers[i].reads;
	}
	printf("# seed %llu: %llu reads along the writes\n", (unsigned long long)seed, (unsigned long long)reads);
	free(readers);
	return wrong;
}

int main(int argc, char **argv)
{
	struct device d;

	if (argc == 4 && !strcmp(argv[1], "fill")) {
		device_open(&d, argv[2], strtoull(argv[3], NULL, 0), O_RDWR);
		return whole(&d, 1);
	}
	if (argc == 4 && !strcmp(argv[1], "check")) {
		device_open(&d, argv[2], strtoull(argv[3], NULL, 0), O_RDONLY);
		return whole(&d, 0);
	}
	if (argc > 5 && !strcmp(argv[1], "race")) {
		device_open(&d, argv[2], strtoull(argv[3], NULL, 0), O_RDWR);
		return race(&d, strtoull(argv[4], NULL, 0), argc - 5, argv + 5);
	}
	fprintf(stderr, "usage: virtrace fill|check DEVICE EPOCH | race DEVICE EPOCH SEED VIRTUAL:EPOCH...\n");
	return 2;
}
