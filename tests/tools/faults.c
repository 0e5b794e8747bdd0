// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One cell of the matrix of faults: a volume under load, a device below it that begins to fail, and the question what is left.
 *
 * usage: faults --under primary|diff --fault KIND --load sync|flood [--permanent] [--chunk SIZE] [--seed N] PRIMARY DIFF
 *
 *   KIND     what the device does while the fault lasts
 *     error    every read and write fails                     reads    every read fails (dm-flakey of 6.4 and later)
 *     writes   every write fails                              corrupt  a byte of every read is wrong
 *     drop     every write is acknowledged and not done       random   one I/O in eight fails (fail_make_request)
 *     range    (diff) 1 MiB fails where the next data goes    body     (diff) every write fails but to the superblocks
 *     dust     (primary) every eighth block cannot be read until it is written (dm-dust)
 *     memory   (diff) every fourth allocation of the volume's own threads fails (failslab, fail_page_alloc)
 *   --permanent   it lasts until the volume has been detached; else it ends under load
 *
 * Stack: PRIMARY and DIFF ─ dm-linear "low" ─ the device whose table is exchanged ─ dm-linear "top" ─ the volume. The difference between what
 * top and low count is what was failed or swallowed.
 *
 * Order: two generations with copies of their own, both open as /dev/snapvirtN; writers (a region each; every sector carries its number
 * and version) and readers of the generations; the fault; the end of the fault; silence. Then, and again after a detach and an attach:
 *
 *   the primary    each sector has the last version that was acknowledged, or one whose write failed later
 *   generations    live: each sector is right, or EIO where that is allowed; lost: EIO everywhere, for ever, also when the fault has healed
 *   a lost one     was told: status line, list, netlink event, uevent, dm event
 *   afterwards     a new generation can be cut and is right, or is refused when the store has failed
 *
 * What has to happen for each kind is in expectation(). Exit status: 0 all right, 1 a finding, 2 anything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <getopt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libdevmapper.h>

#include "dm.h"
#include "netlink.h"

#define NAME		"flt"
#define SECTOR		512u
#define MAX_WRITERS	8
#define READERS		2
#define GENS		2
#define MAX_SECTORS	24u
#define WARM_UP		60u		/* writes before the fault and after it, all writers together; twice as many while it lasts */
#define IN_FLIGHT	30u		/* writes that are under way when it begins and ends */
#define STUCK		60u		/* seconds without an end: the primary hangs */

enum may { NEVER, MAYBE, ALWAYS };

/* Of the generations that were there before the fault. */
struct expectation {
	enum may lost;
	enum may write_errors;		/* of the volume */
	bool read_errors;		/* of live generations, while the fault lasts */
	bool bad_chunks;		/* of live generations, for ever: chunks written during the fault */
};

struct sector {
	uint32_t acked, failed;		/* versions; failed: the newest write that failed after acked, or 0 */
};

static struct {
	const char *under, *fault, *load, *chunk_text, *primary, *diff;
	bool on_diff, flood, permanent;
	uint64_t seed, sectors, bytes, chunk;
	struct expectation want;

	struct sector *model;
	uint8_t *image[GENS], *buf, *buf2;	/* of the volume's size: memory is expensive in UML */
	uint8_t *written;		/* sectors that writers touched since the fault began */
	int fd, raw;
	struct snap_nl *nl, *events;
	int uevents;
	int virt[GENS];			/* open /dev/snapvirtN */
	unsigned int writers;

	atomic_uint tickets;		/* writes that may be begun */
	atomic_uint writes, write_errors, gen_reads, gen_errors;
	atomic_bool stop, faulty, lost;
	pthread_rwlock_t counting;	/* readers hold it */
	unsigned int wanted, bad_chunks;
	uint64_t range;			/* first sector that cannot be written */
	int64_t injected_reads, injected_writes;	/* sectors */
} fl;

static void stop_with(int status, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "faults: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nfaults: --under %s --fault %s --load %s%s --seed %llu\n", fl.under, fl.fault, fl.load,
		fl.permanent ? " --permanent" : "", (unsigned long long)fl.seed);
	_exit(status);
}

#define wrong(...)	stop_with(1, __VA_ARGS__)
#define broken(...)	stop_with(2, __VA_ARGS__)

#include "tool.h"

static unsigned int seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		broken("%s: %s", path, strerror(errno));
	close(fd);
}

/* ---- memory ---- */

#define FAILSLAB	"/sys/kernel/debug/failslab/"
#define FAIL_PAGES	"/sys/kernel/debug/fail_page_alloc/"
#define MANY		"1000000"

static void memory_prepare(void)
{
	static const char * const dirs[] = { FAILSLAB, FAIL_PAGES };
	static const char * const set[][2] = {
		{ "verbose", "0" }, { "task-filter", "Y" }, { "ignore-gfp-wait", "N" }, { "times", MANY }, { "probability", "25" },
	};
	char path[96];
	unsigned int i, k;

	for (i = 0; i < 2; i++)
		for (k = 0; k < 5; k++) {
			snprintf(path, sizeof(path), "%s%s", dirs[i], set[k][0]);
			put(path, set[k][1]);
		}
	put(FAIL_PAGES "min-order", "0");
}

/* The copy worker and the background thread. */
static void memory_faults(bool on)
{
	if (shell("n=0; for p in $(pgrep '^snapdiff(_bg)?/" NAME "'); do echo %d >/proc/$p/make-it-fail && n=$((n + 1)); done; [ $n = 2 ]", on))
		broken("where are the volume's threads?");
}

static int64_t memory_count(void)
{
	static const char * const files[] = { FAILSLAB "times", FAIL_PAGES "times" };
	int64_t n = 0;
	unsigned int i;
	int left;
	FILE *f;

	for (i = 0; i < 2; i++) {
		f = fopen(files[i], "r");
		if (!f || fscanf(f, "%d", &left) != 1)
			broken("%s", files[i]);
		fclose(f);
		n += atoi(MANY) - left;
	}
	return n;
}

static bool is(const char *fault)
{
	return !strcmp(fl.fault, fault);
}

/* ---- sectors ---- */

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

static bool version_of(const uint8_t *p, uint64_t sector, uint32_t *version)
{
	uint8_t want[SECTOR];
	uint64_t w[2];

	memcpy(w, p, sizeof(w));
	make_sector(want, sector, w[1]);
	*version = w[1];
	return w[0] == sector && !memcmp(p, want, SECTOR);
}

static void compare(const char *who, const uint8_t *have, const uint8_t *want, uint64_t sector, uint64_t n)
{
	uint64_t w[2], x[2], i;

	if (!memcmp(have, want, n * SECTOR))
		return;
	for (i = 0; !memcmp(have + i * SECTOR, want + i * SECTOR, SECTOR); i++)
		;
	memcpy(w, have + i * SECTOR, sizeof(w));
	memcpy(x, want + i * SECTOR, sizeof(x));
	wrong("%s: sector %llu is sector %llu of version %llu, should be of version %llu", who, (unsigned long long)(sector + i),
	      (unsigned long long)w[0], (unsigned long long)w[1], (unsigned long long)x[1]);
}

/* ---- the stack ---- */

#include "dmstack.h"

/* The device of this side, and the one below it. */
static const char *upper(void)
{
	return fl.on_diff ? NAME "-d" : NAME "-p";
}

static const char *lower(void)
{
	return fl.on_diff ? "low-d" : "low-p";
}

static uint64_t size_of(const char *dev)
{
	int fd = open(dev, O_RDONLY);
	uint64_t bytes;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes))
		broken("%s: %s", dev, strerror(errno));
	close(fd);
	return bytes / SECTOR;
}

static void make_stack(void)
{
	uint64_t p = size_of(fl.primary), d = size_of(fl.diff);

	dm_make("low-p", target(0, p, "linear", "%s 0", fl.primary));
	dm_make("low-d", target(0, d, "linear", "%s 0", fl.diff));
	dm_make(NAME "-p", target(0, p, !is("dust") ? "linear" : "dust", "/dev/mapper/low-p 0%s",
				  !is("dust") ? "" : " 4096"));
	dm_make(NAME "-d", target(0, d, "linear", "/dev/mapper/low-d 0"));
	dm_make("top-p", target(0, p, "linear", "/dev/mapper/" NAME "-p 0"));
	dm_make("top-d", target(0, d, "linear", "/dev/mapper/" NAME "-d 0"));
}

static void remove_stack(void)
{
	static const char * const names[] = { "top-p", "top-d", NAME "-p", NAME "-d", "low-p", "low-d" };
	unsigned int i, tries;

	for (i = 0; i < 6; i++)
		for (tries = 0; dm_do(DM_DEVICE_REMOVE, names[i], NULL) && tries < 50; tries++)
			usleep(20000);
}

/* Without waiting for what is in flight above. The other table has been loaded. */
static void exchange(void)
{
	dm_must(DM_DEVICE_SUSPEND, upper(), NULL);
	dm_must(DM_DEVICE_RESUME, upper(), NULL);
}

static int furthest(const struct snapdiff_extent *x, void *arg)
{
	uint64_t *most = arg;

	if (x->where == SNAPDIFF_WHERE_DIFF && x->place + x->length > *most)
		*most = x->place + x->length;
	return 0;
}

/* Behind the last block that has data, in sectors. */
static uint64_t data_end(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	uint64_t most = 0;
	uint32_t g;

	for (g = 1; g <= GENS; g++)
		if (snap_nl_map(fl.nl, NAME, g, 0, 0, furthest, &most, &e))
			broken("map: %s", e.text);
	return most / SECTOR;
}

static void sysfs_of(const char *name, const char *file, char *path, size_t len)
{
	struct dm_task *dmt = dm_task_create(DM_DEVICE_INFO);
	struct dm_info info;

	run_task(dmt, name);
	if (!dm_task_run(dmt) || !dm_task_get_info(dmt, &info))
		broken("%s: no information", name);
	dm_task_destroy(dmt);
	snprintf(path, len, "/sys/block/dm-%u/%s", info.minor, file);
}

static void random_faults(bool on)
{
	char path[64];

	sysfs_of(lower(), "make-it-fail", path, sizeof(path));
	put(path, on ? "1" : "0");
}

static void flakey(const char *features)
{
	struct target t = target(0, size_of(fl.on_diff ? fl.diff : fl.primary), "flakey", "/dev/mapper/%s 0 0 3600 %s", lower(), features);

	dm_load(upper(), &t, 1);
}

/* A device of three parts, of which the middle one is as @type says. */
static void middle(uint64_t at, uint64_t len, const char *type)
{
	uint64_t size = size_of(fl.diff), end = len ? at + len : size;
	struct target t[3] = {
		target(0, at, "linear", "/dev/mapper/low-d 0"),
		!strcmp(type, "error") ? target(at, end - at, "error", "%s", "") :
			target(at, end - at, "flakey", "/dev/mapper/low-d %llu 0 3600 1 error_writes", (unsigned long long)at),
		target(end, size - end, "linear", "/dev/mapper/low-d %llu", (unsigned long long)end),
	};

	dm_load(upper(), t, len ? 3 : 2);
}

/* All that takes long. */
static void fault_prepare(void)
{
	struct target error = target(0, size_of(fl.on_diff ? fl.diff : fl.primary), "error", "%s", "");
	char text[64];
	uint64_t b;

	if (is("error"))
		dm_load(upper(), &error, 1);
	else if (is("writes"))
		flakey("1 error_writes");
	else if (is("reads"))
		flakey("1 error_reads");
	else if (is("drop"))
		flakey("1 drop_writes");
	else if (is("corrupt"))
		flakey("5 corrupt_bio_byte 100 r 77 0");
	else if (is("body"))
		middle(16, 0, "flakey");
	else if (is("range"))
		middle(fl.range = data_end(), 2048, "error");
	else if (is("random")) {
		put("/sys/kernel/debug/fail_make_request/probability", "12");
		put("/sys/kernel/debug/fail_make_request/verbose", "0");
		put("/sys/kernel/debug/fail_make_request/times", "-1");
	} else if (is("memory")) {
		memory_prepare();
	} else if (is("dust")) {
		dm_must(DM_DEVICE_TARGET_MSG, upper(), "quiet");
		for (b = 3; b < fl.bytes / 4096; b += 8) {
			snprintf(text, sizeof(text), "addbadblock %llu", (unsigned long long)b);
			dm_must(DM_DEVICE_TARGET_MSG, upper(), text);
		}
	} else {
		broken("unknown fault %s", fl.fault);
	}
}

static void fault_begin(void)
{
	if (is("random"))
		random_faults(true);
	else if (is("memory"))
		memory_faults(true);
	else if (is("dust"))
		dm_must(DM_DEVICE_TARGET_MSG, upper(), "enable");
	else
		exchange();
}

static void heal_prepare(void)
{
	struct target t = target(0, size_of(fl.on_diff ? fl.diff : fl.primary), "linear", "/dev/mapper/%s 0", lower());

	if (!is("random") && !is("dust") && !is("memory"))
		dm_load(upper(), &t, 1);
}

static void fault_end(void)
{
	if (is("random"))
		random_faults(false);
	else if (is("memory"))
		memory_faults(false);
	else if (is("dust"))
		dm_must(DM_DEVICE_TARGET_MSG, upper(), "disable");
	else
		exchange();
}

/* Sectors that a dm device was asked to read and to write so far. */
static void count_io(const char *name, uint64_t n[2])
{
	unsigned long long r, w;
	char path[64];
	FILE *f;

	sysfs_of(name, "stat", path, sizeof(path));
	f = fopen(path, "r");
	if (!f || fscanf(f, "%*u %*u %llu %*u %*u %*u %llu", &r, &w) != 2)
		broken("%s", path);
	fclose(f);
	n[0] = r;
	n[1] = w;
}

static void count_injected(int sign)
{
	uint64_t above[2], below[2];

	pthread_rwlock_wrlock(&fl.counting);
	count_io(fl.on_diff ? "top-d" : "top-p", above);
	count_io(lower(), below);
	pthread_rwlock_unlock(&fl.counting);
	fl.injected_reads += sign * (above[0] - below[0]);
	fl.injected_writes += sign * (above[1] - below[1]);
}

/* ---- the volume ---- */

static const char *first_line(const char *path)
{
	static char line[512];
	FILE *f = fopen(path, "r");

	if (!f || !fgets(line, sizeof(line), f))
		strcpy(line, "?");
	if (f)
		fclose(f);
	line[strcspn(line, "\n")] = 0;
	return line;
}

static int try_attach(void)
{
	return shell("snapctl attach " NAME " /dev/mapper/top-p /dev/mapper/top-d >/tmp/attach.out 2>&1");
}

static void open_volume(void)
{
	fl.fd = open("/dev/mapper/" NAME, O_RDWR | O_DIRECT | (fl.flood ? 0 : O_DSYNC));
	if (fl.fd < 0)
		broken("the volume: %s", strerror(errno));
}

static void open_generation(int i)
{
	struct snap_err e = SNAP_ERR_INIT;
	char path[32];
	int index;

	if (snap_nl_activate(fl.nl, NAME, i + 1, false, &index, &e) || snap_virt_wait(index, &e))
		wrong("activate %d: %s", i + 1, e.text);
	fl.virt[i] = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);
	if (fl.virt[i] < 0)
		broken("%s: %s", path, strerror(errno));
}

static void close_generation(int i)
{
	struct snap_err e = SNAP_ERR_INIT;
	int tries;

	if (fl.virt[i] < 0)
		return;
	close(fl.virt[i]);
	fl.virt[i] = -1;
	for (tries = 0; tries < 100 && snap_nl_deactivate(fl.nl, NAME, i + 1, &e) == -EBUSY; tries++)
		usleep(20000);
}

static void detach(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	int i;

	for (i = 0; i < GENS; i++)
		close_generation(i);
	close(fl.fd);
	if (snap_dm_detach(NAME, &e))
		wrong("detach: %s", e.text);
}

static uint32_t create(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	const char *name = NAME;
	struct snap_gen made;

	if (snap_nl_create(fl.nl, &name, 1, NULL, SNAP_FREEZE_NO, &made, &e))
		wrong("create: %s", e.text);
	return made.number;
}

static void read_all(int fd, uint8_t *to, const char *who)
{
	uint64_t pos;

	for (pos = 0; pos < fl.bytes; pos += 1 << 20)
		if (pread(fd, to + pos, 1 << 20, pos) != 1 << 20)
			wrong("%s: cannot be read at %llu: %s", who, (unsigned long long)pos, strerror(errno));
}

/* ---- load ---- */

static void which(unsigned int t, uint32_t k, uint64_t *first, uint32_t *n)
{
	uint64_t x = mix(fl.seed + mix(((uint64_t)t << 32) + k)), region = fl.sectors / fl.writers;

	*n = 1 + (x >> 8) % MAX_SECTORS;
	*first = t * region + (x >> 16) % (region - *n);
}

static bool take_ticket(void)
{
	unsigned int n = atomic_load(&fl.tickets);

	while (n && !atomic_compare_exchange_weak(&fl.tickets, &n, n - 1))
		;
	return n;
}

static void *writer(void *arg)
{
	unsigned int t = (uintptr_t)arg;
	uint8_t *buf = memory(MAX_SECTORS * SECTOR);
	uint64_t first;
	uint32_t k, n, i;

	/* version 1 was the filling, 2 what stands between the generations */
	for (k = 3; !atomic_load(&fl.stop); k++) {
		bool ok;

		if (!take_ticket()) {
			usleep(500);
			k--;
			continue;
		}
		which(t, k, &first, &n);
		for (i = 0; i < n; i++)
			make_sector(buf + i * SECTOR, first + i, k);
		ok = pwrite(fl.fd, buf, n * SECTOR, first * SECTOR) == n * SECTOR;
		if (!ok && errno != EIO)
			wrong("write: %s", strerror(errno));
		for (i = 0; i < n; i++) {
			struct sector *s = &fl.model[first + i];

			if (ok)
				s->acked = k;
			s->failed = ok ? 0 : k;
			if (atomic_load(&fl.faulty))
				fl.written[first + i] = 1;
		}
		atomic_fetch_add(&fl.writes, 1);
		if (!ok)
			atomic_fetch_add(&fl.write_errors, 1);
	}
	free(buf);
	return NULL;
}

static void *reader(void *arg)
{
	int i = (uintptr_t)arg;
	uint8_t *buf = memory(128 * SECTOR);
	uint64_t x = fl.seed + i, at, n;
	char who[32];

	snprintf(who, sizeof(who), "generation %d", i + 1);
	while (!atomic_load(&fl.stop)) {
		bool lost = atomic_load(&fl.lost);
		ssize_t got;

		x = mix(x);
		n = 1 + x % 128;
		at = (x >> 16) % (fl.sectors - n);
		pthread_rwlock_rdlock(&fl.counting);
		got = pread(fl.virt[i], buf, n * SECTOR, at * SECTOR);
		pthread_rwlock_unlock(&fl.counting);
		if (got == (ssize_t)(n * SECTOR)) {
			if (lost)
				wrong("%s: is lost and can be read", who);
			compare(who, buf, fl.image[i] + at * SECTOR, at, n);
		} else if (errno != EIO) {
			wrong("%s: read: %s", who, strerror(errno));
		} else {
			atomic_fetch_add(&fl.gen_errors, 1);
		}
		atomic_fetch_add(&fl.gen_reads, 1);
		usleep(fl.flood ? 200 : 2000);
	}
	free(buf);
	return NULL;
}

static bool any_lost(bool *all)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_gen *gens;
	unsigned int lost = 0;
	size_t n, i;

	if (snap_nl_gens(fl.nl, NAME, &gens, &n, &e))
		wrong("list: %s", e.text);
	/* What was in the journal only is gone from the list of a store that failed. */
	if (n < GENS && !atomic_load(&fl.lost))
		wrong("list has only %zu generations", n);
	for (i = 0; i < n; i++)
		lost += gens[i].state == SNAPDIFF_GEN_LOST;
	*all = lost == n;
	free(gens);
	return lost;
}

/* Let the writers do that many writes. What happens meanwhile is up to the caller; wait_for_writes() ends it. */
static void begin_writes(unsigned int n)
{
	fl.wanted += n;
	atomic_fetch_add(&fl.tickets, n);
}

static void wait_for_writes(void)
{
	unsigned int begun = seconds();
	bool all;

	while (atomic_load(&fl.writes) < fl.wanted) {
		usleep(1000);
		if (!atomic_load(&fl.lost) && any_lost(&all))
			atomic_store(&fl.lost, true);
		if (seconds() - begun > STUCK)
			wrong("the primary is stuck: %u of %u writes in %u s", atomic_load(&fl.writes), fl.wanted, STUCK);
	}
}

static void load(void)
{
	pthread_t t[MAX_WRITERS + READERS];
	uintptr_t i;

	for (i = 0; i < fl.writers; i++)
		if (pthread_create(&t[i], NULL, writer, (void *)i))
			broken("no thread");
	for (i = 0; i < READERS; i++)
		if (pthread_create(&t[fl.writers + i], NULL, reader, (void *)i))
			broken("no thread");
	begin_writes(WARM_UP);
	wait_for_writes();
	if (atomic_load(&fl.write_errors) || atomic_load(&fl.gen_errors))
		wrong("errors before the fault");
	fault_prepare();
	count_injected(-1);
	atomic_store(&fl.faulty, true);
	if (!is("range"))		/* there a copy may not be early */
		begin_writes(IN_FLIGHT);
	fault_begin();
	begin_writes(2 * WARM_UP);
	wait_for_writes();
	if (!fl.permanent) {
		heal_prepare();
		begin_writes(IN_FLIGHT);
		fault_end();
		begin_writes(WARM_UP);
		wait_for_writes();
		count_injected(1);
	}
	atomic_store(&fl.stop, true);
	for (i = 0; i < fl.writers + READERS; i++)
		pthread_join(t[i], NULL);
	atomic_store(&fl.faulty, false);
}

/* ---- what is looked at ---- */

static void check_primary(int fd, const char *who)
{
	uint8_t *buf = fl.buf;
	uint32_t version;
	uint64_t i;

	read_all(fd, buf, who);
	for (i = 0; i < fl.sectors; i++) {
		struct sector *s = &fl.model[i];

		if (!version_of(buf + i * SECTOR, i, &version))
			wrong("%s: sector %llu is garbage", who, (unsigned long long)i);
		if (version != s->acked && (version < s->acked || version > s->failed))
			wrong("%s: sector %llu has version %u, %u was acknowledged, %u failed", who, (unsigned long long)i, version,
			      s->acked, s->failed);
	}
}

static bool chunk_was_written(uint64_t chunk)
{
	uint64_t i, n = fl.chunk / SECTOR;

	for (i = chunk * n; i < (chunk + 1) * n && i < fl.sectors; i++)
		if (fl.written[i])
			return true;
	return false;
}

/* Chunk by chunk, so that each that cannot be read is known. Return: how many. */
static unsigned int check_live(int i, int fd, bool errors_allowed)
{
	uint8_t *buf = memory(fl.chunk);
	unsigned int bad = 0;
	uint64_t c, at;
	char who[32];

	snprintf(who, sizeof(who), "generation %d", i + 1);
	for (c = 0; c < fl.bytes / fl.chunk; c++) {
		at = c * fl.chunk;
		if (pread(fd, buf, fl.chunk, at) == (ssize_t)fl.chunk) {
			compare(who, buf, fl.image[i] + at, at / SECTOR, fl.chunk / SECTOR);
			continue;
		}
		if (errno != EIO)
			wrong("%s: %s", who, strerror(errno));
		bad++;
		if (errors_allowed)
			continue;
		if (!fl.want.bad_chunks)
			wrong("%s: chunk %llu cannot be read, and the fault is over", who, (unsigned long long)c);
		if (!is("drop") && !chunk_was_written(c))
			wrong("%s: chunk %llu cannot be read, but was not written during the fault", who, (unsigned long long)c);
	}
	free(buf);
	return bad;
}

static void check_eio(int i)
{
	uint8_t *buf = memory(fl.chunk);
	uint64_t c;

	for (c = 0; c < fl.bytes / fl.chunk; c += 1 + c % 7)
		if (pread(fl.virt[i], buf, fl.chunk, c * fl.chunk) >= 0 || errno != EIO)
			wrong("generation %d is lost, but chunk %llu can be read", i + 1, (unsigned long long)c);
	free(buf);
}

static void check_refused(uint32_t gen)
{
	struct snap_err e = SNAP_ERR_INIT;
	int index;

	if (!snap_nl_activate(fl.nl, NAME, gen, false, &index, &e))
		wrong("generation %u is lost, but can be activated", gen);
}

static void check_generations(bool faulty)
{
	bool lost = atomic_load(&fl.lost);
	int i;

	for (i = 0; i < GENS; i++) {
		unsigned int bad;

		if (lost) {
			if (fl.virt[i] >= 0)
				check_eio(i);
			close_generation(i);
			check_refused(i + 1);
			continue;
		}
		if (fl.virt[i] < 0)
			open_generation(i);
		bad = check_live(i, fl.virt[i], faulty && fl.want.read_errors);
		if (!faulty && i == GENS - 1)
			fl.bad_chunks = bad;
	}
}

/* The volume's status line. */
static const char *status(void)
{
	static char line[512];
	struct dm_task *dmt = dm_task_create(DM_DEVICE_STATUS);
	char *type, *params;
	uint64_t start, len;

	run_task(dmt, NAME);
	if (!dm_task_run(dmt))
		broken("no status");
	dm_get_next_target(dmt, NULL, &start, &len, &type, &params);
	snprintf(line, sizeof(line), "%s", params ? params : "?");
	dm_task_destroy(dmt);
	return line;
}

/* What is told by the lines that people and programs look at. */
static void check_state(void)
{
	bool all, lost = any_lost(&all);
	const char *line = status();

	if (lost != atomic_load(&fl.lost))
		wrong("the generations are %s, were %s", lost ? "lost" : "live", lost ? "live" : "lost");
	if (lost && !all)
		wrong("some generations are lost, some are not");
	if (!!strstr(line, " failed") != lost)
		wrong("generations are %s, but the status is %s", lost ? "lost" : "live", line);
}


static bool uevent_said(const char *what)
{
	static char buf[65536];
	bool said = false;
	ssize_t n;

	while ((n = recv(fl.uevents, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		said |= memmem(buf, n, what, strlen(what) + 1) != NULL;
	return said;
}

static unsigned int dm_events(void)
{
	struct dm_task *dmt = dm_task_create(DM_DEVICE_INFO);
	struct dm_info info;

	run_task(dmt, NAME);
	if (!dm_task_run(dmt) || !dm_task_get_info(dmt, &info))
		broken("no information about the volume");
	dm_task_destroy(dmt);
	return info.event_nr;
}

static void listen_to_uevents(void)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int size = 4 << 20;

	fl.uevents = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	if (fl.uevents < 0 || bind(fl.uevents, (struct sockaddr *)&a, sizeof(a)))
		broken("uevents: %s", strerror(errno));
	setsockopt(fl.uevents, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
}

static void check_told(unsigned int events_before)
{
	bool lost = atomic_load(&fl.lost), bad, failed;
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_event ev;

	bad = failed = false;
	while (snap_nl_event(fl.events, &ev, 300, &e) == 1) {
		bad |= ev.type == SNAPDIFF_EVENT_BAD_CHUNK;
		failed |= ev.type == SNAPDIFF_EVENT_STORE_FAILED;
	}
	if (failed != lost)
		wrong("generations are %s, but a netlink event says %s", lost ? "lost" : "live", failed ? "failed" : "nothing");
	if (uevent_said("SNAPDIFF_EVENT=store-failed") != lost)
		wrong("generations are %s: the uevent is wrong", lost ? "lost" : "live");
	if (lost && dm_events() == events_before)
		wrong("generations are lost, but there was no dm event");
	if (fl.bad_chunks && !bad && !fl.on_diff)
		wrong("there are bad chunks, but no event said so");
}

/* A new generation: cut, overwrite, compare; refused when the store has failed. */
static void check_new_generation(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	const char *name = NAME;
	struct snap_gen made;
	uint8_t *want, *buf;
	char path[32];
	uint32_t gen;
	uint64_t i;
	int index, fd;

	if (atomic_load(&fl.lost)) {
		if (!snap_nl_create(fl.nl, &name, 1, NULL, SNAP_FREEZE_NO, &made, &e))
			wrong("the store has failed, but a generation could be cut");
		return;
	}
	want = fl.buf2;
	buf = fl.buf;
	read_all(fl.fd, want, "the volume");
	gen = create();
	for (i = 0; i < fl.sectors; i += 16) {
		memcpy(buf, want + i * SECTOR, 8 * SECTOR);
		if (pwrite(fl.fd, buf, 8 * SECTOR, (i + 8) * SECTOR) != 8 * SECTOR)
			wrong("write after the fault: %s", strerror(errno));
	}
	if (snap_nl_activate(fl.nl, NAME, gen, false, &index, &e) || snap_virt_wait(index, &e))
		wrong("activate %u: %s", gen, e.text);
	fd = open(snap_virt_path(path, sizeof(path), index), O_RDONLY | O_DIRECT);
	read_all(fd, buf, "a generation cut after the fault");
	compare("a generation cut after the fault", buf, want, 0, fl.sectors);
	close(fd);
	for (i = 0; i < fl.sectors; i += 16)
		if (pwrite(fl.fd, want + (i + 8) * SECTOR, 8 * SECTOR, (i + 8) * SECTOR) != 8 * SECTOR)
			wrong("write after the fault: %s", strerror(errno));
	while (snap_nl_deactivate(fl.nl, NAME, gen, &e) == -EBUSY)
		usleep(10000);
	if (snap_nl_delete(fl.nl, NAME, gen, gen, &e))
		wrong("delete: %s", e.text);
}

static int outside(const struct snapdiff_extent *x, void *arg)
{
	const uint64_t *range = arg;

	if (x->where == SNAPDIFF_WHERE_DIFF && x->place / SECTOR < range[1] && (x->place + x->length) / SECTOR > range[0])
		wrong("data at sector %llu, in the range that cannot be written", (unsigned long long)x->place / SECTOR);
	return 0;
}

/* Data that could not be written where it was to go went elsewhere: nothing in the broken range, something behind it. */
static void check_relocated(uint64_t from)
{
	uint64_t end = data_end();

	uint64_t range[2] = { from, from + 2048 };
	struct snap_err e = SNAP_ERR_INIT;

	if (snap_nl_map(fl.nl, NAME, GENS, 0, 0, outside, range, &e))
		wrong("map: %s", e.text);
	if (end <= from + 2048)
		wrong("no data behind the range that failed (%llu, ends at %llu)", (unsigned long long)from, (unsigned long long)end);
}

static void check_snapmeta(void)
{
	int rc;

	if (is("drop"))
		return;
	rc = shell("snapmeta check /dev/mapper/top-d >/tmp/snapmeta.out 2>&1");

	if (rc && !atomic_load(&fl.lost)) {
		shell("sed 's/^/# /' /tmp/snapmeta.out");
		wrong("snapmeta check: %d", rc);
	}
}

/* ---- the cell ---- */

static void expectation(void)
{
	struct expectation *w = &fl.want;

	if (!fl.on_diff) {
		/* No fault of the primary costs a generation; what could not be read when it had to be copied is bad. */
		w->lost = NEVER;
		w->write_errors = is("reads") || is("dust") ? NEVER : is("random") ? MAYBE : ALWAYS;
		w->read_errors = !is("writes");
		w->bad_chunks = !is("writes");
		return;
	}
	/* No fault of the diff is seen by who writes to the volume. */
	w->write_errors = NEVER;
	w->read_errors = !is("memory");
	if (is("error") || is("writes") || is("body"))
		w->lost = ALWAYS;
	else if (is("range") || is("memory"))
		w->lost = NEVER;
	else
		w->lost = MAYBE;
	w->bad_chunks = is("drop");	/* what was swallowed is an error, by its checksum; metadata, too */
}

static void check_expected(void)
{
	bool lost = atomic_load(&fl.lost);
	unsigned int errors = atomic_load(&fl.write_errors);

	if ((lost && fl.want.lost == NEVER) || (!lost && fl.want.lost == ALWAYS))
		wrong("the generations are %s", lost ? "lost" : "live");
	if ((errors && fl.want.write_errors == NEVER) || (!errors && fl.want.write_errors == ALWAYS))
		wrong("%u writes to the volume failed", errors);
	if (is("memory") && (!memory_count() || atomic_load(&fl.gen_errors)))
		wrong("%lld allocations failed, %u reads of generations", (long long)memory_count(), atomic_load(&fl.gen_errors));
	if (is("memory"))
		printf("# %lld allocations failed\n", (long long)memory_count());
	else if (is("corrupt") ? !atomic_load(&fl.gen_errors) : !fl.injected_reads && !fl.injected_writes)
		wrong("no fault was met");
}

static void fill(void)
{
	uint8_t *buf = fl.buf;
	uint64_t i;

	for (i = 0; i < fl.sectors; i++) {
		make_sector(buf + i * SECTOR, i, 1);
		fl.model[i].acked = 1;
	}
	if (pwrite(fl.fd, buf, fl.bytes, 0) != (ssize_t)fl.bytes)
		broken("fill: %s", strerror(errno));
	memcpy(fl.image[0], buf, fl.bytes);
	create();
	for (i = 0; i < fl.sectors; i += 3 * 8) {
		make_sector(buf + i * SECTOR, i, 2);
		fl.model[i].acked = 2;
		if (pwrite(fl.fd, buf + i * SECTOR, SECTOR, i * SECTOR) != SECTOR)
			broken("fill: %s", strerror(errno));
	}
	memcpy(fl.image[1], buf, fl.bytes);
	create();
}

static void set_up(void)
{
	struct snap_err e = SNAP_ERR_INIT;
	int i;

	fl.on_diff = !strcmp(fl.under, "diff");
	fl.flood = !strcmp(fl.load, "flood");
	fl.writers = fl.flood ? MAX_WRITERS : 1;
	expectation();
	fl.raw = open(fl.primary, O_RDONLY | O_DIRECT);
	if (fl.raw < 0 || ioctl(fl.raw, BLKGETSIZE64, &fl.bytes) || fl.bytes % (1 << 20))
		broken("%s: %s", fl.primary, strerror(errno));
	fl.sectors = fl.bytes / SECTOR;
	if (snap_parse_size(fl.chunk_text, &fl.chunk, &e) || snap_nl_open(&fl.nl, &e) || snap_nl_open(&fl.events, &e))
		broken("%s", e.text);
	fl.model = memory(fl.sectors * sizeof(*fl.model));
	fl.written = memory(fl.sectors);
	fl.buf = memory(fl.bytes);
	fl.buf2 = memory(fl.bytes);
	for (i = 0; i < GENS; i++) {
		fl.image[i] = memory(fl.bytes);
		fl.virt[i] = -1;
	}
	pthread_rwlock_init(&fl.counting, NULL);
	make_stack();
	must_shell("snapctl format --force --chunk %s --journal-size %s /dev/mapper/top-d >/dev/null", fl.chunk_text,
		   is("range") ? "8M" : "768k");
	if (try_attach())
		broken("attach failed");
	open_volume();
	fill();
	for (i = 0; i < GENS; i++)
		open_generation(i);
	if (snap_nl_subscribe(fl.events, &e))
		broken("%s", e.text);
	listen_to_uevents();
}

/* The volume goes and comes back; lost stays lost, all else is as it was. */
static void check_after_attach(void)
{
	if (try_attach())
		wrong("attach failed after the fault: %s", first_line("/tmp/attach.out"));
	open_volume();
	check_state();
	check_primary(fl.fd, "the volume after attach");
	check_generations(false);
	check_new_generation();
}

static void cell(void)
{
	unsigned int events = dm_events();
	bool all;

	load();
	if (any_lost(&all))
		atomic_store(&fl.lost, true);
	check_state();
	check_primary(fl.raw, "the primary");
	check_generations(fl.permanent);
	if (!fl.permanent) {
		check_primary(fl.fd, "the volume");
		check_expected();
		if (is("range"))
			check_relocated(fl.range);
		check_new_generation();
		check_state();
		check_told(events);
		detach();
	} else {
		check_told(events);
		detach();
		if (fl.on_diff && is("error") && !try_attach())
			wrong("attached a diff that cannot be read");
		heal_prepare();
		fault_end();
		count_injected(1);
		check_expected();
	}
	check_snapmeta();
	check_after_attach();
	detach();
	check_snapmeta();
	check_after_attach();
	detach();
}

static int usage(void)
{
	fprintf(stderr, "see the head of tests/tools/faults.c\n");
	return 2;
}

static int options(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "under", 1, NULL, 'u' }, { "fault", 1, NULL, 'f' }, { "load", 1, NULL, 'l' }, { "permanent", 0, NULL, 'p' },
		{ "chunk", 1, NULL, 'c' }, { "seed", 1, NULL, 's' }, { 0 }
	};
	int c;

	fl.seed = time(NULL);
	fl.chunk_text = "4k";
	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		switch (c) {
		case 'u': fl.under = optarg; break;
		case 'f': fl.fault = optarg; break;
		case 'l': fl.load = optarg; break;
		case 'p': fl.permanent = true; break;
		case 'c': fl.chunk_text = optarg; break;
		case 's': fl.seed = strtoull(optarg, NULL, 0); break;
		default: return usage();
		}
	}
	if (argc - optind != 2 || !fl.under || !fl.fault || !fl.load)
		return usage();
	fl.primary = argv[optind];
	fl.diff = argv[optind + 1];
	return 0;
}

int main(int argc, char **argv)
{
	if (options(argc, argv))
		return 2;
	set_up();
	cell();
	printf("# %s %s %s %s: %lld KiB of reads and %lld KiB of writes failed, %u writes to the volume (%u errors), %u reads of generations (%u errors): "
	       "%s, %u bad chunks\n", fl.under, fl.fault, fl.permanent ? "permanent" : "transient", fl.load,
	       (long long)fl.injected_reads / 2, (long long)fl.injected_writes / 2, atomic_load(&fl.writes),
	       atomic_load(&fl.write_errors), atomic_load(&fl.gen_reads), atomic_load(&fl.gen_errors),
	       atomic_load(&fl.lost) ? "lost" : "live", fl.bad_chunks);
	remove_stack();
	return 0;
}
