// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Crash simulator of the differential store.
 *
 *	sim [--seed N] [--cuts N] [--seconds S] [-v]			that much, then all planted bugs
 *	sim --episodes N [--seed N] [-v]				just these
 *	sim --plants | --plant NAME [--seed N]				just the planted bugs
 *
 * An episode formats a tiny device and drives the store on it with random parameters; its seed is all that it depends on.
 */
#include "sim.h"
#include <getopt.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct sim S;
struct counters C;
static u64 episode_seed, state[2];
static bool quiet;
u32 sd_plant;

/* ---- util ------------------------------------------------------------------------------------- */

static u64 splitmix(u64 *x)
{
	u64 z = *x += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

void rnd_seed(u64 seed)
{
	state[0] = splitmix(&seed);
	state[1] = splitmix(&seed);
}

/* xoroshiro128+ (D. Blackman, S. Vigna) */
u32 rnd(u32 n)
{
	u64 a = state[0], b = state[1], r = a + b;

	b ^= a;
	state[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	state[1] = b << 37 | b >> 27;
	return (r >> 32) * n >> 32;
}

void *xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		abort();
	return p;
}

void *xzalloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		abort();
	return p;
}

void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		abort();
	return p;
}

void fail(const char *fmt, ...)
{
	va_list ap;

	if (!quiet) {
		printf("# ");
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		printf("\n# seed %llu, after %llu events and %llu cuts; again: build/tests/sim/sim --seed %llu --episodes 1\n",
		       (unsigned long long)episode_seed, (unsigned long long)C.events, (unsigned long long)C.cuts,
		       (unsigned long long)episode_seed);
		printf("not ok 1 - every crash leaves what was acknowledged\n");
		fflush(stdout);
	}
	_exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* ---- an episode -------------------------------------------------------------------------------------- */

/* What is rare goes by the seed's number, so that a few episodes in a row have it all. */
static void parameters(u64 seed)
{
	static const u32 sizes[] = { 1, 1, 1, 4, 4, 16 };
	u32 i;

	memset(&S, 0, sizeof(S));
	S.chunk_blocks = sizes[rnd(ARRAY_SIZE(sizes))];
	S.nr_blocks = SD_MIN_DIFF_BLOCKS + rnd(512);
	S.fault_rate = seed % 5 ? 0 : 100 + rnd(400);
	S.bookish = seed % 3 == 0;
	S.bulk = seed % 4 == 2;
	if (S.bulk)
		S.chunk_blocks = 16;
	if (seed % 19 == 3) {
		S.chunk_blocks = 64;
		S.m.nr_chunks = 8 + rnd(30);
	}
	if (!S.bulk && !rnd(12))
		S.nr_blocks = SD_GROUP_BLOCKS + 600 + rnd(4000);
	S.most_blocks = S.nr_blocks + (seed % 3 == 1 ? 2 * SD_GROUP_BLOCKS : rnd(2) ? 3000 : 0);
	S.m.nr_chunks = S.bulk ? 100 + rnd(MAX_CHUNKS - 100) : 8 + rnd(MAX_CHUNKS - 8);
	for (i = 0; i < S.m.nr_chunks; i++)
		S.m.primary[i] = rnd(8) ? ++S.next_version : V_ZERO;
	S.journal_blocks = 32 + rnd(rnd(2) ? 8 : 64);
	S.mem_records = MAX_ITEMS + rnd(rnd(2) ? 40 : 300);
	S.slice_records = 4 + rnd(rnd(2) ? 12 : 300);
	S.cut_rate = 1 + rnd(4);
	S.fail_rate = seed % 4 != 1 ? 0 : 2000 + rnd(3000);
	S.death_rate = rnd(4) ? 300 + rnd(3000) : 0;
	/* Data leaves next to nothing to metadata: what recovery needs must be there all the same. */
	S.tight = seed % 8 == 2 ? 1 + rnd(24) : 0;
	if (S.tight) {
		S.chunk_blocks = 32;
		S.most_blocks = S.nr_blocks;
	}
}

static void format(void)
{
	struct sd_format_params p = { .chunk_size = S.chunk_blocks * SD_BLOCK_SIZE, .journal_blocks = S.journal_blocks };
	u32 i;
	int err;

	for (i = 0; i < sizeof(p.uuid); i++)
		p.uuid[i] = 1 + rnd(255);
	S.dev = xzalloc(sizeof(*S.dev));
	simdev_init(S.dev, S.nr_blocks);
	err = sd_format(&S.dev->dev, &p);
	if (err)
		fail("format: %d", err);
	S.disk = ON_CLEAN;
	S.dev->hook = run_hook;
	S.acked = 0;
}

/* Nothing in flight, nothing to do: nothing may be left over either. */
static void quiesce(void)
{
	struct sd_info info;
	u32 n = 0, i;

	drop_readers();
	drain();
	S.no_foreground = true;
	while (!S.dev->dead && sd_background_work(S.store) && background(0)) {
		if (++n > 10000)
			fail("the background work never ends");
	}
	S.no_foreground = false;
	if (S.dev->dead || S.failed)
		return;
	n = sd_background_work(S.store);
	if (n && !S.no_room)
		fail("there is work, and no step does it");
	sd_info(S.store, &info);
	for (i = 0; i < S.store->cur->nr_runs; i++)
		n += S.store->cur->runs[i]->broken;
	verify_now(VERIFY_CHECK | (n ? 0 : VERIFY_GARBAGE));
	C.quiesced++;
}

static void detach(void)
{
	u32 i;
	int err;

	drop_readers();
	drain();
	if (S.dev->dead)
		return;
	for (i = 0; i < sizeof(S.fingerprint); i++)
		S.fingerprint[i] = rnd(256);
	S.no_foreground = true;
	S.disk = ON_EITHER;
	err = sd_detach(S.store, S.fingerprint);
	S.no_foreground = false;
	if (err && !S.dev->dead)
		fail("detach: %d", err);
	if (err)
		return;
	S.disk = ON_CLEAN;
	C.detaches++;
	maybe_cut(1);
	if (rnd(2)) {
		sd_close(S.store);
		S.store = NULL;
		if (!open_and_attach())
			power_cycle();
	} else {
		power_cycle();
	}
}

/* The device grows; with luck by so little that it is of no use, and the store only later, or after a crash in between. */
static void grow(void)
{
	u64 room = S.most_blocks - S.dev->dev.nr_blocks;

	if (room && rnd(4))
		simdev_grow(S.dev, S.dev->dev.nr_blocks + 1 + rnd(rnd(2) ? min_t(u64, room, 40) : room));
	if (rnd(4))
		background(SD_STEP_GROW | (rnd(2) ? SD_STEP_CHECKPOINT : 0));
}

static void event(void)
{
	u32 dice = rnd(400);

	if (S.dev->dead) {
		power_cycle();
		return;
	}
	if (S.stuck > 200)
		fail("writers have been waiting for ever");
	if (dice == 0) {
		quiesce();
	} else if (dice == 1 && !rnd(3)) {
		detach();
	} else if (dice == 2) {
		grow();
	} else if (dice < 10 || S.stuck) {
		if (!background(rnd(8) ? 0 : SD_STEP_CHECKPOINT))
			drop_readers();
	} else {
		enum sd_work w = dice < 60 ? sd_background_work(S.store) : SD_WORK_NONE;

		if (w == SD_WORK_NOW || (w && !rnd(3)))
			background(0);
		else
			foreground();
	}
}

static void end_episode(void)
{
	u32 i;

	if (S.store && !S.dev->dead && !S.failed)
		quiesce();
	drop_readers();
	if (S.store) {
		S.dev->hook = NULL;
		S.dev->dead = true;
		sd_store_fail(S.store);
		for (i = 0; i < S.nr_fly; i++)
			sd_group_destroy(S.store, S.fly[i]->group);
		sd_close(S.store);
	}
	for (i = 0; i < S.nr_fly; i++)
		free(S.fly[i]);
	simdev_exit(S.dev);
	free(S.dev);
}

static void episode(u64 seed, bool verbose)
{
	u32 n, events;

	episode_seed = seed;
	rnd_seed(seed);
	parameters(seed);
	if (verbose)
		printf("# episode %llu: %llu blocks, chunks of %u, %u of them, journal %u, table %u, slice %u\n", (unsigned long long)seed,
		       (unsigned long long)S.nr_blocks, S.chunk_blocks, S.m.nr_chunks, S.journal_blocks, S.mem_records, S.slice_records);
	format();
	if (!open_and_attach())
		power_cycle();
	events = 2000 + rnd(4000);
	for (n = 0; n < events && !S.failed; n++)
		event();
	if (!S.dev->dead && !S.failed && !rnd(4))
		fail_store();
	for (n = 0; S.failed && n < 4 && !S.dev->dead; n++)
		cut(S.dev, 0);
	end_episode();
}

/* ---- what must have happened, planted bugs --------------------------------------------------------------- */

static const struct plant {
	u32 id;
	const char *name;
} plants[] = {
	{ PLANT_COMMIT_UNFLUSHED, "a group is committed before it is flushed" },
	{ PLANT_RELEASE_EARLY, "a write is released before its group is committed" },
	{ SD_PLANT_STEP_UNFLUSHED, "no flush before the superblock" },
	{ SD_PLANT_SUPER_UNFLUSHED, "no flush after the superblock" },
	{ SD_PLANT_REUSE_EARLY, "dropped blocks are given out before the transaction is durable" },
	{ SD_PLANT_READERS_IGNORED, "blocks are given out while an old version needs them" },
	{ SD_PLANT_GROW_EARLY, "what the device has grown by is given out at once" },
	{ SD_PLANT_NO_DATA_CRC, "replay does not check data" },
	{ SD_PLANT_DURABLE_AHEAD, "an image calls groups in flight durable" },
	{ SD_PLANT_NO_EPOCH, "neither epoch nor chain tell old images from new ones" },
	{ SD_PLANT_TAIL_AHEAD, "the journal's tail passes groups in flight" },
	{ SD_PLANT_CATALOG_AGAIN, "replay applies what the catalog has" },
	{ SD_PLANT_COPY_CHOICE, "the wrong copy of a bitmap is read" },
	{ SD_PLANT_NO_FORGET, "rewritten blocks stay in the cache" },
	{ SD_PLANT_NO_PREV, "merging forgets the record before" },
	{ SD_PLANT_NO_FLOOR, "no room is kept for recovery" },
	{ SD_PLANT_NO_PURGE, "garbage is not flagged any more after a restart" },
};

#define PLANT_SECONDS	60	/* of the processor */

/* A child that has the bug must fail within its budget; without it, the same seeds pass. */
static bool finds(const struct plant *p, u64 seed, double seconds)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child < 0)
		abort();
	if (!child) {
		double start = now(CLOCK_PROCESS_CPUTIME_ID);

		quiet = true;
		if (!freopen("/dev/null", "w", stderr))
			_exit(0);
		for (sd_plant = p->id; now(CLOCK_PROCESS_CPUTIME_ID) - start < seconds; seed++)
			episode(seed, false);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child)
		abort();
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

static int run_plants(u64 seed, const char *only, u32 first)
{
	u32 i, bad = 0;

	for (i = 0; i < ARRAY_SIZE(plants); i++) {
		double start = now(CLOCK_MONOTONIC);
		bool found;

		if (only && !strstr(plants[i].name, only)) {
			printf("ok %u - %s # SKIP not asked for\n", first + i, plants[i].name);
			continue;
		}
		found = finds(&plants[i], seed, PLANT_SECONDS);
		bad += !found;
		printf("%sok %u - found: %s\n# %.1f s\n", found ? "" : "not ", first + i, plants[i].name, now(CLOCK_MONOTONIC) - start);
	}
	return bad ? 1 : 0;
}

/* A run in which something never happened has not tested it. */
static bool covered(void)
{
	const struct {
		const char *what;
		u64 n;
	} list[] = {
		{ "cuts in recovery", C.nested }, { "read by the other reader, too", C.second }, { "crashes", C.deaths }, { "groups", C.groups }, { "generations", C.gens },
		{ "checkpoints", C.checkpoints }, { "merge slices", C.merges }, { "groups replayed", C.replayed },
		{ "groups dropped", C.dropped }, { "relocations", C.relocated }, { "full devices", C.enospc }, { "full journals or tables", C.eagain },
		{ "readers", C.readers }, { "detaches", C.detaches }, { "failed stores", C.fails }, { "quiet moments", C.quiesced },
		{ "data", C.kinds[SD_KIND_DATA] }, { "zero", C.kinds[SD_KIND_ZERO] }, { "bad", C.kinds[SD_KIND_BAD] },
		{ "marks", C.kinds[SD_KIND_MARK] }, { "changed chunks", C.changed_seen }, { "losses", C.losses }, { "growths", C.grown }, { "new block groups", C.new_groups }, { "errors of the device", C.faults },
	};
	bool all = true;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(list); i++) {
		printf("# %s: %llu\n", list[i].what, (unsigned long long)list[i].n);
		all &= list[i].n != 0;
	}
	return all;
}

#define MIN_EPISODES	15u

static int run(u64 seed, u64 episodes, u64 cuts, double seconds, bool verbose)
{
	double start = now(CLOCK_MONOTONIC);
	u64 n;
	bool all;

	printf("# seed %llu\n", (unsigned long long)seed);
	for (n = 0; (!episodes || n < episodes) && (!cuts || C.cuts < cuts) && (!seconds || n < MIN_EPISODES || now(CLOCK_MONOTONIC) - start < seconds); n++)
		episode(seed + n, verbose);
	printf("ok 1 - every crash leaves what was acknowledged\n# %llu episodes, %llu cuts, %.1f s\n", (unsigned long long)n,
	       (unsigned long long)C.cuts, now(CLOCK_MONOTONIC) - start);
	all = covered();
	printf("%sok 2 - everything happened at least once%s\n", all || episodes ? "" : "not ", episodes ? " # SKIP chosen episodes" : "");
	return all || episodes ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "seed", 1, 0, 's' }, { "cuts", 1, 0, 'c' }, { "seconds", 1, 0, 't' }, { "episodes", 1, 0, 'e' }, { "plant", 1, 0, 'p' },
		{ "plants", 0, 0, 'P' }, { 0 },
	};
	u64 seed = 1, cuts = 0, episodes = 0;
	const char *plant = NULL;
	bool verbose = false, planted = false;
	double seconds = 0;
	int o, bad = 0;

	while ((o = getopt_long(argc, argv, "v", opts, NULL)) != -1) {
		switch (o) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			cuts = strtoull(optarg, NULL, 0);
			break;
		case 't':
			seconds = atof(optarg);
			break;
		case 'e':
			episodes = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			plant = optarg;	/* fall through */
		case 'P':
			planted = true;
			break;
		case 'v':
			verbose = true;
			break;
		default:
			return 2;
		}
	}
	if (!cuts && !episodes && !seconds)
		cuts = 100000;
	printf("TAP version 14\n1..%zu\n", (planted ? 0 : 2) + (episodes ? 0 : ARRAY_SIZE(plants)));
	if (!planted)
		bad = run(seed, episodes, cuts, seconds, verbose);
	if (!episodes)
		bad |= run_plants(seed, plant, planted ? 1 : 3);
	return bad;
}
