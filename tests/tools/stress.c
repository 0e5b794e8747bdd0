// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Everything at once: writers, cuts, deletes, bookmarks, pins, readers of generations, dumps, a listener, suspend and resume, a second volume that
 * comes and goes, attempts to unload the module; and after all of that every byte.
 *
 * usage: stress --seconds N [--seed N] PRIMARY DIFF PRIMARY2 DIFF2
 *
 * The volume belongs to WRITERS writers, a region each. Writer t does one write at a time; which sectors its k-th write covers follows from the seed, and
 * each sector carries its number and k. So a region has had exactly j writes if and only if it is what j writes leave. A generation must be such a
 * state for each region, with a j between the writes completed before create was called and those begun when it had returned: whenever it is
 * read, however often, until it is deleted. The diff has room for all: nothing may be lost.
 *
 * Refusals are part of it (a generation that is busy, pinned, gone, a bookmark); anything else than those is a finding. Something that makes no step for
 * STUCK seconds is one, too. Exit status: 0 all right, 1 a finding, 2 anything else.
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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dm.h"
#include "netlink.h"

#define NAME		"stress"
#define PATH		"/dev/mapper/" NAME
#define SECTOR		512u
#define WRITERS		4
#define READERS		2
#define KEEP		8		/* generations */
#define MAX_GENS	65536
#define MAX_SECTORS	24u
#define STUCK		90u		/* seconds */

struct cut {
	uint32_t before[WRITERS], after[WRITERS];
	_Atomic bool known;		/* create has returned */
};

enum job { CUT, CHANGE, DUMP, SUSPEND, SECOND, UNLOAD, LISTEN, READ, NR_JOBS };

static const char * const job_names[NR_JOBS] = {
	"cuts", "changes of generations", "dumps", "suspends", "second volumes", "unloads refused", "events", "generations read",
};

static struct {
	uint64_t seed, bytes, region;	/* region: sectors */
	unsigned int seconds;
	const char *dev[4];
	int fd;
	_Atomic uint32_t begun[WRITERS], completed[WRITERS];
	struct cut *cuts;
	_Atomic uint32_t highest;
	atomic_bool stop;
	atomic_uint done[NR_JOBS];
} st;

static void stop_with(int status, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "stress: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (--seed %llu)\n", (unsigned long long)st.seed);
	_exit(status);
}

#define wrong(...)	stop_with(1, __VA_ARGS__)
#define broken(...)	stop_with(2, __VA_ARGS__)

#include "dmstack.h"
#include "tool.h"

static uint64_t draw(uint64_t *x, uint64_t below)
{
	*x = mix(*x);
	return *x % below;
}

static struct snap_nl *connection(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_nl *nl;

	if (snap_nl_open(&nl, &e))
		broken("%s", e.text);
	return nl;
}

/* ---- what a write is ---- */

static void which(unsigned int t, uint32_t k, uint64_t *first, uint32_t *n)
{
	uint64_t x = mix(st.seed + mix(((uint64_t)t << 32) + k));

	*n = 1 + (x >> 8) % MAX_SECTORS;
	*first = (x >> 16) % ((x & 4 ? st.region : st.region / 8) - *n);
}

static void make_sector(uint8_t *p, uint64_t sector, uint32_t k)
{
	uint64_t w[64], x = mix(sector * 1000003 + k);
	int i;

	w[0] = sector;
	w[1] = k;
	for (i = 2; i < 64; i++)
		w[i] = x + i;
	memcpy(p, w, SECTOR);
}

static bool write_of(const uint8_t *p, uint64_t sector, uint32_t *k)
{
	uint8_t want[SECTOR];
	uint64_t w[2];

	memcpy(w, p, sizeof(w));
	*k = w[1];
	make_sector(want, sector, *k);
	return !memcmp(p, want, SECTOR);
}

/* Region @t, at @p, is what its first j writes leave, for a j from @low to @high. */
static void verify_region(const char *who, const uint8_t *p, unsigned int t, uint32_t low, uint32_t high)
{
	uint32_t *k = memory(st.region * sizeof(*k)), *last = memory(st.region * sizeof(*last)), i, n, j = 0;
	uint64_t s, first;

	for (s = 0; s < st.region; s++) {
		if (!write_of(p + s * SECTOR, t * st.region + s, &k[s]))
			wrong("%s: sector %llu is garbage", who, (unsigned long long)(t * st.region + s));
		if (k[s] > j)
			j = k[s];
	}
	if (j < low || j > high)
		wrong("%s: %u writes of writer %u, should be %u to %u", who, j, t, low, high);
	for (i = 1; i <= j; i++) {
		which(t, i, &first, &n);
		for (s = first; s < first + n; s++)
			last[s] = i;
	}
	for (s = 0; s < st.region; s++)
		if (last[s] != k[s])
			wrong("%s, after write %u of writer %u: sector %llu has write %u, should have %u", who, j, t,
			      (unsigned long long)(t * st.region + s), k[s], last[s]);
	free(k);
	free(last);
}

static bool read_region(int fd, uint8_t *buf, unsigned int t)
{
	uint64_t pos, len = st.region * SECTOR, n;

	for (pos = 0; pos < len; pos += n) {
		n = len - pos < 256 << 10 ? len - pos : 256 << 10;
		if (pread(fd, buf + pos, n, t * len + pos) != (ssize_t)n)
			return false;
	}
	return true;
}

static void verify_generation(uint32_t gen, int fd)
{
	uint8_t *buf = memory(st.region * SECTOR);
	const struct cut *c = &st.cuts[gen];
	char who[32];
	unsigned int t;

	snprintf(who, sizeof(who), "generation %u", gen);
	for (t = 0; t < WRITERS; t++) {
		if (!read_region(fd, buf, t))
			wrong("%s: cannot be read: %s", who, strerror(errno));
		verify_region(who, buf, t, c->before[t], c->after[t]);
	}
	free(buf);
}

/* ---- jobs: each is called again and again until the time is over ---- */

static void *writer(void *arg)
{
	unsigned int t = (uintptr_t)arg;
	uint8_t *buf = memory(MAX_SECTORS * SECTOR);
	uint64_t first;
	uint32_t k, n, i;

	for (k = 1; !atomic_load(&st.stop); k++) {
		which(t, k, &first, &n);
		first += t * st.region;
		for (i = 0; i < n; i++)
			make_sector(buf + i * SECTOR, first + i, k);
		atomic_store(&st.begun[t], k);
		if (pwrite(st.fd, buf, n * SECTOR, first * SECTOR) != n * SECTOR)
			wrong("write: %s", strerror(errno));
		atomic_store(&st.completed[t], k);
		if (!(k % 64) && fsync(st.fd))
			wrong("fsync: %s", strerror(errno));
	}
	free(buf);
	return NULL;
}

static uint32_t some_generation(struct snap_nl *nl, uint64_t *x, size_t *n)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen *gens;
	uint32_t number = 0;
	size_t i;

	if (snap_nl_gens(nl, NAME, &gens, n, &e))
		wrong("list: %s", e.text);
	for (i = 0; i < *n; i++)
		if (gens[i].state == SNAPDIFF_GEN_LOST)
			wrong("generation %u is lost", gens[i].number);
	if (*n)
		number = gens[draw(x, *n)].number;
	free(gens);
	return number;
}

static void job_cut(struct snap_nl *nl, uint64_t *x)
{
	struct snap_err e = SNAP_ERR_INIT;
	const char *name = NAME;
	uint32_t before[WRITERS];
	struct snap_gen made;
	struct cut *c;
	size_t n;
	int t;

	some_generation(nl, x, &n);
	if (n >= KEEP)
		return;
	for (t = 0; t < WRITERS; t++)
		before[t] = atomic_load(&st.completed[t]);
	if (snap_nl_create(nl, &name, 1, NULL, SNAP_FREEZE_AUTO, &made, &e))
		wrong("create: %s", e.text);
	if (made.number != atomic_load(&st.highest) + 1 || made.number >= MAX_GENS)
		wrong("generation %u follows %u", made.number, atomic_load(&st.highest));
	c = &st.cuts[made.number];
	for (t = 0; t < WRITERS; t++) {
		c->before[t] = before[t];
		c->after[t] = atomic_load(&st.begun[t]);
	}
	atomic_store(&c->known, true);
	atomic_store(&st.highest, made.number);
}

static void may_refuse(const char *what, int err, const struct snap_err *e)
{
	if (err && err != -EBUSY && err != -ENOENT && err != -EINVAL)
		wrong("%s: %d, %s", what, err, e->text);
}

static void job_change(struct snap_nl *nl, uint64_t *x)
{
	struct snap_err e = SNAP_ERR_INIT;
	size_t n;
	uint32_t gen = some_generation(nl, x, &n);
	char label[32];

	if (!gen)
		return;
	switch (n >= KEEP - 1 ? draw(x, 3) : draw(x, 12)) {
	case 0: case 1: case 2:
		may_refuse("delete", snap_nl_delete(nl, NAME, gen, gen, &e), &e);
		break;
	case 3:
		may_refuse("bookmark", snap_nl_bookmark(nl, NAME, gen, &e), &e);
		break;
	case 4: case 5:
		snprintf(label, sizeof(label), "%llu", (unsigned long long)*x);
		may_refuse("label", snap_nl_label(nl, NAME, gen, label, &e), &e);
		break;
	default:
		may_refuse("pin", snap_nl_pin(nl, NAME, gen, true, &e), &e);
		may_refuse("unpin", snap_nl_pin(nl, NAME, gen, false, &e), &e);
	}
}

/* The two readers and the end meet at the same disks: who comes too late finds it gone. */
static void job_read(struct snap_nl *nl, uint64_t *x)
{
	struct snap_err e = SNAP_ERR_INIT;
	char path[32];
	size_t n;
	uint32_t gen = some_generation(nl, x, &n);
	int index, fd, err;

	if (!gen || !atomic_load(&st.cuts[gen].known))
		return;
	err = snap_nl_activate(nl, NAME, gen, false, &index, &e);
	may_refuse("activate", err, &e);
	if (err || snap_virt_wait(index, &e))
		return;
	fd = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);
	if (fd >= 0) {
		struct snap_gen info;

		/* The other reader may have deactivated it, and the number may be another generation's. */
		if (!snap_nl_gen(nl, NAME, gen, &info, &e) && info.virt_index == index)
			verify_generation(gen, fd);
		close(fd);
	}
	may_refuse("deactivate", snap_nl_deactivate(nl, NAME, gen, &e), &e);
}

static int count_extent(const struct snapdiff_extent *ext, void *arg)
{
	uint64_t *end = arg;

	if (ext->offset < *end)
		wrong("extents overlap at %llu", (unsigned long long)ext->offset);
	*end = ext->offset + ext->length;
	return atomic_load(&st.stop);
}

static void job_dump(struct snap_nl *nl, uint64_t *x)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_volume *vols;
	struct snap_virt *virts;
	uint64_t end = 0;
	size_t n;
	uint32_t gen = some_generation(nl, x, &n);

	if (snap_nl_volumes(nl, &vols, &n, &e))
		wrong("volumes: %s", e.text);
	free(vols);
	if (snap_nl_virts(nl, NAME, &virts, &n, &e))
		wrong("virtual volumes: %s", e.text);
	free(virts);
	if (!gen)
		return;
	snap_nl_map(nl, NAME, gen, 0, 0, count_extent, &end, &e);
	end = 0;
	snap_nl_changes(nl, NAME, gen, 0, 0, 0, count_extent, &end, &e);
}

static void job_suspend(struct snap_nl *nl, uint64_t *x)
{
	struct dm_task *dmt = dm_task_create(draw(x, 2) ? DM_DEVICE_STATUS : DM_DEVICE_TABLE);
	char *type, *params;
	uint64_t start, len;
	struct target t;

	run_task(dmt, NAME);
	if (!dm_task_run(dmt))
		wrong("status");
	dm_task_destroy(dmt);
	dmt = dm_task_create(DM_DEVICE_TABLE);
	run_task(dmt, NAME);
	if (!dm_task_run(dmt))
		wrong("table");
	dm_get_next_target(dmt, NULL, &start, &len, &type, &params);
	if (!params)
		wrong("no table");
	t = target(start, len, "snapdiff", "%s", params);
	dm_task_destroy(dmt);
	if (draw(x, 2))
		dm_load(NAME, &t, 1);
	dm_must(DM_DEVICE_SUSPEND, NAME, NULL);
	dm_must(DM_DEVICE_RESUME, NAME, NULL);
	usleep(50000 + draw(x, 200000));
}

/* Attached, cut, written, read, detached; its diff is formatted once. */
static void job_second(struct snap_nl *nl, uint64_t *x)
{
	struct snap_err e = SNAP_ERR_INIT;
	const char *name = NAME "2";
	struct snap_gen made;
	uint8_t *buf = memory(64 << 10);
	char cmd[256];
	int fd;

	snprintf(cmd, sizeof(cmd), "snapctl attach " NAME "2 %s %s >/tmp/stress.out 2>&1", st.dev[2], st.dev[3]);
	if (system(cmd))
		wrong("the second volume cannot be attached, see /tmp/stress.out");
	if (snap_nl_create(nl, &name, 1, NULL, SNAP_FREEZE_AUTO, &made, &e))
		wrong("create on the second volume: %s", e.text);
	fd = open(PATH "2", O_RDWR | O_DIRECT);
	memset(buf, *x, 64 << 10);
	if (fd < 0 || pwrite(fd, buf, 64 << 10, draw(x, 16) << 16) != 64 << 10)
		wrong("the second volume: %s", strerror(errno));
	close(fd);
	if (snap_nl_delete(nl, NAME "2", made.number, made.number, &e))
		wrong("delete on the second volume: %s", e.text);
	/* libdevmapper is not for threads: one of them calls it */
	if (system("snapctl detach " NAME "2"))
		wrong("detach of the second volume");
	free(buf);
}

static void job_unload(struct snap_nl *nl, uint64_t *x)
{
	if (!syscall(SYS_delete_module, "snapdiff", O_NONBLOCK))
		wrong("the module was unloaded");
	if (errno != EWOULDBLOCK && errno != EBUSY)
		wrong("unload: %s", strerror(errno));
	usleep(20000 + draw(x, 100000));
}

static void job_listen(struct snap_nl *nl, uint64_t *x)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_event ev;

	while (!atomic_load(&st.stop) && snap_nl_event(nl, &ev, 200, &e)) {
		if (ev.type == SNAPDIFF_EVENT_LOST || ev.type == SNAPDIFF_EVENT_STORE_FAILED || ev.type == SNAPDIFF_EVENT_BAD_CHUNK)
			wrong("event: %s", snap_event_name(ev.type));
		atomic_fetch_add(&st.done[LISTEN], 1);
	}
}

static void (*const jobs[NR_JOBS])(struct snap_nl *nl, uint64_t *x) = {
	[CUT] = job_cut, [CHANGE] = job_change, [DUMP] = job_dump, [SUSPEND] = job_suspend, [SECOND] = job_second, [UNLOAD] = job_unload,
	[LISTEN] = job_listen, [READ] = job_read,
};

static void *worker(void *arg)
{
	uintptr_t n = (uintptr_t)arg;
	enum job job = n < NR_JOBS ? n : READ;
	struct snap_nl *nl = connection();
	struct snap_err e = SNAP_ERR_INIT;
	uint64_t x = mix(st.seed + n);

	if (job == LISTEN && snap_nl_subscribe(nl, &e))
		broken("%s", e.text);
	while (!atomic_load(&st.stop)) {
		jobs[job](nl, &x);
		if (job != LISTEN)
			atomic_fetch_add(&st.done[job], 1);
		usleep(draw(&x, 20000));
	}
	snap_nl_close(nl);
	return NULL;
}

/* ---- all of it ---- */

static void set_up(void)
{
	uint8_t *buf;
	char cmd[512];
	uint64_t i;

	snprintf(cmd, sizeof(cmd), "(snapctl format --force %s && snapctl format --force %s && snapctl attach " NAME " %s %s) >/dev/null",
		 st.dev[1], st.dev[3], st.dev[0], st.dev[1]);
	if (system(cmd))
		broken("format or attach failed");
	st.fd = open(PATH, O_RDWR | O_DIRECT);
	if (st.fd < 0 || ioctl(st.fd, BLKGETSIZE64, &st.bytes) || st.bytes % (1 << 20))
		broken("%s: %s", PATH, strerror(errno));
	st.region = st.bytes / SECTOR / WRITERS;
	st.cuts = memory(MAX_GENS * sizeof(*st.cuts));
	buf = memory(st.bytes);
	for (i = 0; i < st.bytes / SECTOR; i++)
		make_sector(buf + i * SECTOR, i, 0);
	if (pwrite(st.fd, buf, st.bytes, 0) != (ssize_t)st.bytes)
		broken("fill: %s", strerror(errno));
	free(buf);
}

static uint64_t steps_of(unsigned int i)
{
	return i < WRITERS ? atomic_load(&st.completed[i]) : atomic_load(&st.done[i - WRITERS]);
}

/* Until the time is over; everybody has to go on meanwhile. */
static void watch(void)
{
	uint64_t seen[WRITERS + NR_JOBS] = { 0 };
	unsigned int since[WRITERS + NR_JOBS] = { 0 }, now, i;

	for (now = 0; now < st.seconds; now++) {
		sleep(1);
		for (i = 0; i < WRITERS + NR_JOBS; i++) {
			if (steps_of(i) != seen[i])
				since[i] = now;
			seen[i] = steps_of(i);
			if (now - since[i] > STUCK)
				wrong("no progress for %u s: %s", STUCK, i < WRITERS ? "a writer" : job_names[i - WRITERS]);
		}
	}
}

static void verify_all(void)
{
	struct snap_nl *nl = connection();
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen *gens;
	uint8_t *buf = memory(st.region * SECTOR);
	unsigned int t, live = 0;
	char path[32];
	size_t n, i;
	int index, fd, tries;

	for (t = 0; t < WRITERS; t++) {
		if (!read_region(st.fd, buf, t))
			wrong("the volume cannot be read: %s", strerror(errno));
		verify_region("the volume", buf, t, st.completed[t], st.completed[t]);
	}
	if (snap_nl_gens(nl, NAME, &gens, &n, &e))
		wrong("list: %s", e.text);
	for (i = 0; i < n; i++) {
		if (gens[i].state != SNAPDIFF_GEN_LIVE)
			continue;
		if (snap_nl_activate(nl, NAME, gens[i].number, false, &index, &e) || snap_virt_wait(index, &e))
			wrong("activate %u: %s", gens[i].number, e.text);
		fd = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);
		verify_generation(gens[i].number, fd);
		close(fd);
		for (tries = 0; tries < 50 && snap_nl_deactivate(nl, NAME, gens[i].number, &e) == -EBUSY; tries++)
			usleep(20000);
		live++;
	}
	printf("# %u live generations of %u compared, and the volume\n", live, st.highest);
	free(gens);
	free(buf);
	snap_nl_close(nl);
}

static void reattach(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	char cmd[256];

	close(st.fd);
	if (snap_dm_detach(NAME, &e))
		wrong("detach: %s", e.text);
	snprintf(cmd, sizeof(cmd), "snapctl attach " NAME " %s %s >/dev/null", st.dev[0], st.dev[1]);
	if (system(cmd))
		wrong("attach failed");
	st.fd = open(PATH, O_RDWR | O_DIRECT);
}

static int options(int argc, char **argv)
{
	static const struct option longs[] = { { "seconds", 1, NULL, 's' }, { "seed", 1, NULL, 'r' }, { 0 } };
	int c, i;

	st.seed = time(NULL);
	st.seconds = 30;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		if (c == 's')
			st.seconds = atoi(optarg);
		else if (c == 'r')
			st.seed = strtoull(optarg, NULL, 0);
		else
			return 2;
	}
	if (argc - optind != 4)
		return 2;
	for (i = 0; i < 4; i++)
		st.dev[i] = argv[optind + i];
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t thread[WRITERS + NR_JOBS + READERS];
	struct snap_err e = SNAP_ERR_INIT;
	unsigned int i, nr = 0;
	uint64_t writes = 0;

	if (options(argc, argv)) {
		fprintf(stderr, "usage: stress --seconds N [--seed N] PRIMARY DIFF PRIMARY2 DIFF2\n");
		return 2;
	}
	set_up();
	for (i = 0; i < WRITERS; i++, nr++)
		if (pthread_create(&thread[nr], NULL, writer, (void *)(uintptr_t)i))
			broken("no thread");
	for (i = 0; i < NR_JOBS - 1 + READERS; i++, nr++)
		if (pthread_create(&thread[nr], NULL, worker, (void *)(uintptr_t)i))
			broken("no thread");
	watch();
	atomic_store(&st.stop, true);
	for (i = 0; i < nr; i++)
		pthread_join(thread[i], NULL);
	for (i = 0; i < WRITERS; i++)
		writes += st.completed[i];
	printf("# %u s: %llu writes", st.seconds, (unsigned long long)writes);
	for (i = 0; i < NR_JOBS; i++)
		printf(", %u %s", st.done[i], job_names[i]);
	printf("\n");
	verify_all();
	reattach();
	verify_all();
	close(st.fd);
	if (snap_dm_detach(NAME, &e))
		wrong("detach: %s", e.text);
	return 0;
}
