// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A storm of writes, whose outcome is known and whose pauses are measured.
 *
 * usage: storm write DEVICE MIB BS THREADS SEED [CUTS VOLUME]   write MIB (of 2^20 bytes) in blocks of BS bytes; cut CUTS generations meanwhile
 *        storm verify DEVICE MIB BS THREADS SEED                is everything there?
 *
 * Each thread has a part of the device and goes over it again and again, in another order each time (a step that is prime to the number of blocks).
 * Each sector of a block says which sector it is and in which round of its thread it was written, so what the device must hold in the end follows from
 * the arguments; blocks that were never reached are not looked at.
 *
 * After "write", one line: the longest time from one completed write to the next, over all threads, in ms; how many whole windows of 100 ms had no
 * completion; writes; seconds. Cuts are spread evenly over the storm; the last line but one has how long the longest create took.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "netlink.h"

#define MAX_THREADS	64
#define WINDOW_NS	100000000ull

static struct {
	int fd;
	uint64_t bytes, total, bs, seed, blocks, writes;	/* blocks of a part, writes of a thread */
	unsigned int threads;
	pthread_mutex_t lock;
	uint64_t last, longest, empty, count;
	_Atomic uint64_t done;
} st = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void fail(const char *what)
{
	fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	return b ? gcd(b, a % b) : a;
}

/* Block of the part that write @n is of; *round from 1. */
static uint64_t which(unsigned int thread, uint64_t n, uint64_t *round)
{
	uint64_t step;

	*round = n / st.blocks + 1;
	step = (st.seed + *round * 7919 + thread * 104729) % st.blocks | 1;
	while (gcd(step, st.blocks) != 1)
		step++;
	return n % st.blocks * step % st.blocks;
}

static void fill(uint8_t *buf, uint64_t at, uint64_t round)
{
	uint64_t i, w[2];

	for (i = 0; i < st.bs; i += 512) {
		w[0] = at + i;
		w[1] = round ^ st.seed << 32;
		memcpy(buf + i, w, sizeof(w));
		memcpy(buf + i + 496, w, sizeof(w));
	}
}

static void completed(void)
{
	uint64_t t;

	pthread_mutex_lock(&st.lock);
	t = now();
	if (t - st.last > st.longest)
		st.longest = t - st.last;
	if (t / WINDOW_NS > st.last / WINDOW_NS + 1)
		st.empty += t / WINDOW_NS - st.last / WINDOW_NS - 1;
	st.last = t;
	st.count++;
	pthread_mutex_unlock(&st.lock);
	atomic_fetch_add(&st.done, 1);
}

static void *writer(void *arg)
{
	unsigned int thread = (uintptr_t)arg;
	uint64_t base = thread * st.blocks * st.bs, n, round, at;
	uint8_t *buf;

	if (posix_memalign((void **)&buf, 4096, st.bs))
		fail("memory");
	memset(buf, 0xa5, st.bs);
	for (n = 0; n < st.writes; n++) {
		at = base + which(thread, n, &round) * st.bs;
		fill(buf, at, round);
		if (pwrite(st.fd, buf, st.bs, at) != (ssize_t)st.bs)
			fail("write");
		completed();
	}
	free(buf);
	return NULL;
}

static void verify_part(unsigned int thread)
{
	uint64_t base = thread * st.blocks * st.bs, first, n, round, at;
	uint8_t *got, *want;

	if (posix_memalign((void **)&got, 4096, st.bs) || posix_memalign((void **)&want, 4096, st.bs))
		fail("memory");
	memset(want, 0xa5, st.bs);
	/* The last write of each block is among the last st.blocks in each of two rounds; later ones come later. */
	first = st.writes > st.blocks ? (st.writes / st.blocks - 1) * st.blocks : 0;
	uint64_t *last = calloc(st.blocks, sizeof(*last));

	for (n = first; n < st.writes; n++) {
		at = which(thread, n, &round);
		last[at] = round;
	}
	for (n = 0; n < st.blocks; n++) {
		if (!last[n])
			continue;
		at = base + n * st.bs;
		fill(want, at, last[n]);
		if (pread(st.fd, got, st.bs, at) != (ssize_t)st.bs)
			fail("read");
		if (memcmp(got, want, st.bs)) {
			fprintf(stderr, "storm: block at %llu is not what was written last\n", (unsigned long long)at);
			exit(1);
		}
	}
	free(last);
	free(got);
	free(want);
}

static uint64_t cut_meanwhile(uint64_t cuts, const char *volume)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen gen;
	struct snap_nl *nl;
	uint64_t i, t, longest = 0;

	if (snap_nl_open(&nl, &e)) {
		fprintf(stderr, "storm: %s\n", e.text);
		exit(1);
	}
	for (i = 0; i < cuts; i++) {
		while (atomic_load(&st.done) < i * st.writes * st.threads / cuts)
			usleep(2000);
		t = now();
		if (snap_nl_create(nl, &volume, 1, NULL, SNAP_FREEZE_AUTO, &gen, &e)) {
			fprintf(stderr, "storm: create: %s\n", e.text);
			exit(1);
		}
		t = now() - t;
		if (t > longest)
			longest = t;
	}
	snap_nl_close(nl);
	return longest;
}

static void blow(uint64_t cuts, const char *volume)
{
	pthread_t thread[MAX_THREADS];
	uint64_t start = now(), longest = 0;
	uintptr_t i;

	st.last = start;
	for (i = 0; i < st.threads; i++)
		if (pthread_create(&thread[i], NULL, writer, (void *)i))
			fail("thread");
	if (cuts)
		longest = cut_meanwhile(cuts, volume);
	for (i = 0; i < st.threads; i++)
		pthread_join(thread[i], NULL);
	if (cuts)
		printf("longest create %llu ms\n", (unsigned long long)longest / 1000000);
	printf("longest pause %llu ms, %llu windows of 100 ms without a completed write, %llu writes in %.1f s\n",
	       (unsigned long long)st.longest / 1000000, (unsigned long long)st.empty, (unsigned long long)st.count,
	       (now() - start) / 1e9);
}

int main(int argc, char **argv)
{
	bool verify = argc == 7 && !strcmp(argv[1], "verify");
	unsigned int i;

	if (!verify && (argc != 7 && argc != 9)) {
		fprintf(stderr, "usage: storm write|verify DEVICE MIB BS THREADS SEED [CUTS VOLUME]\n");
		return 2;
	}
	st.fd = open(argv[2], (verify ? O_RDONLY : O_RDWR) | O_DIRECT);
	if (st.fd < 0 || ioctl(st.fd, BLKGETSIZE64, &st.bytes))
		fail(argv[2]);
	st.total = strtoull(argv[3], NULL, 0) << 20;
	st.bs = strtoull(argv[4], NULL, 0);
	st.threads = strtoul(argv[5], NULL, 0);
	st.seed = strtoull(argv[6], NULL, 0);
	if (!st.threads || st.threads > MAX_THREADS || !st.bs || st.bs % 512) {
		errno = EINVAL;
		fail("arguments");
	}
	st.blocks = st.bytes / st.threads / st.bs;
	st.writes = st.total / st.threads / st.bs;
	if (verify)
		for (i = 0; i < st.threads; i++)
			verify_part(i);
	else
		blow(argc == 9 ? strtoull(argv[7], NULL, 0) : 0, argc == 9 ? argv[8] : NULL);
	return 0;
}
