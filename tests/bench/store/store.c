// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bench-store: what the store costs as it grows. No data is written, only what the core itself reads and writes is counted, so that large stores fit
 * a small machine. Blocks and bytes are exact; times are CPU times of one thread and only orientation.
 *
 * usage: store [--records N] [--dir DIR] [--json FILE] [SECTION ...]
 */
#include <err.h>
#include <getopt.h>
#include <stdarg.h>
#include "world.h"

#define KIB		1024ull
#define GIB_CHUNKS	(1ull << 18)		/* of 4 KiB */
#define TIB_CHUNKS	(1ull << 28)
#define PIB_CHUNKS	(1ull << 38)
#define MIB_BLOCKS	256ull
#define GIB_BLOCKS	(1ull << 18)
#define JOURNAL_MAX	(64 * MIB_BLOCKS)

static u64 big_records = 2000000;
static FILE *json;
static bool json_first = true;
static const char *self;

/* ---- output: one list of figures, as text and as JSON ------------------------------------------------------ */

static void figure(const char *section, const char *what, double value, const char *unit)
{
	char text[64];

	snprintf(text, sizeof(text), value == (u64)value ? "%.0f" : "%.2f", value);
	printf("  %-68s %14s %s\n", what, text, unit);
	fflush(stdout);
	if (!json)
		return;
	fprintf(json, "%s\n  {\"section\": \"%s\", \"what\": \"%s\", \"value\": %s, \"unit\": \"%s\"}", json_first ? "[" : ",", section, what,
		text, unit);
	json_first = false;
}

static void figuref(const char *section, double value, const char *unit, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void figuref(const char *section, double value, const char *unit, const char *fmt, ...)
{
	char what[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	figure(section, what, value, unit);
}

/* ---- attach ------------------------------------------------------------------------------------------------- */

/* @nr records in 100 generations; tables of 2 M records, so that building is quick. */
static void build(struct world *w, u64 nr)
{
	u32 g;

	w->group = SD_GROUP_MAX_ITEMS;
	w->lazy = true;
	for (g = 0; g < 100; g++) {
		world_cut(w);
		world_write_spread(w, nr / 100);
	}
	w->lazy = false;
	world_background(w, SD_WORK_SOON);
}

static u64 read_now(const struct world *w)
{
	return w->d.n.read + w->d.n.got;
}

static void reopen(struct world *w, const char *how)
{
	u64 blocks = read_now(w);
	s64 heap;
	struct counts before = w->d.n, since;
	struct sd_info info;
	double t;

	heap = heap_now();
	heap_mark();
	t = now_s();
	world_attach(w);
	t = now_s() - t;
	since = counts_since(&w->d.n, &before);
	sd_info(w->s, &info);
	figuref("attach", (double)(info.records_run + info.records_new), "records", "%s: in the table", how);
	figuref("attach", (double)info.replayed_groups, "groups", "%s: replayed", how);
	figuref("attach", (double)(read_now(w) - blocks), "blocks", "%s: read", how);
	figuref("attach", (double)counts_written(&since), "blocks", "%s: written", how);
	figuref("attach", t, "s CPU", "%s: time", how);
	figuref("attach", (heap_now() - heap) / 1048576.0, "MiB", "%s: memory", how);
	figuref("attach", (heap_peak() - heap) / 1048576.0, "MiB", "%s: memory while attaching, at most", how);
}

static void attach(void)
{
	u8 fingerprint[SD_FINGERPRINT_SIZE] = { 0 };
	u64 blocks = big_records + big_records / 4 + 2 * GIB_BLOCKS;
	struct world w;
	u32 i;
	double t = now_s();

	world_open(&w, blocks, TIB_CHUNKS, JOURNAL_MAX);
	sd_close(w.s);
	w.opts.mem_records = 2 << 20;
	world_attach(&w);
	build(&w, big_records);
	figure("attach", "building the table", now_s() - t, "s CPU");
	if (sd_detach(w.s, fingerprint))
		errx(1, "detach");
	sd_close(w.s);
	w.opts.mem_records = 0;
	reopen(&w, "after a clean detach");
	/* As full as the journal gets before the background empties it: by groups of one copy. */
	world_cut(&w);
	w.group = 1;
	w.lazy = true;
	for (i = 0; sd_background_work(w.s) == SD_WORK_NONE; i++)
		world_copy(&w, &(u64){ i }, 1);
	sd_close(w.s);
	reopen(&w, "after a crash, journal half full");
	w.group = SD_GROUP_MAX_ITEMS;
	w.lazy = true;
	world_write_random(&w, 120000);
	sd_close(w.s);
	reopen(&w, "after a crash, 120000 copies in large groups");
	world_close(&w);
}

/* ---- create, first write ---------------------------------------------------------------------------------------- */

/* @gens generations and @records records in all. */
static void populate(struct world *w, u32 gens, u64 records)
{
	u32 g;

	for (g = 0; g < gens; g++) {
		world_cut(w);
		world_write_random(w, records / gens);
	}
	world_background(w, SD_WORK_IDLE);
}

static void create_at(u32 gens, u64 chunks, const char *size)
{
	struct counts before, since;
	struct world w;
	s64 heap;
	u32 i;
	double t;

	world_open(&w, 4 * GIB_BLOCKS, chunks, JOURNAL_MAX);
	populate(&w, gens, 200000);
	before = w.d.n;
	heap = heap_now();
	t = now_s();
	for (i = 0; i < 100; i++)
		world_cut(&w);
	t = now_s() - t;
	since = counts_since(&w.d.n, &before);
	figuref("create", counts_written(&since) / 100.0, "blocks", "at %u generations, %s: written", gens, size);
	figuref("create", (since.read + since.got) / 100.0, "blocks", "at %u generations, %s: read", gens, size);
	figuref("create", t * 1e6 / 100, "us CPU", "at %u generations, %s: time", gens, size);
	figuref("create", (heap_now() - heap) / 100.0, "bytes", "at %u generations, %s: memory", gens, size);
	world_close(&w);
}

static void create(void)
{
	create_at(1, GIB_CHUNKS, "1 GiB");
	create_at(1, PIB_CHUNKS, "1 PiB");
	create_at(10000, GIB_CHUNKS, "1 GiB");
	create_at(10000, PIB_CHUNKS, "1 PiB");
}

#define MEASURED	65536u

void measured_writes(struct world *w);
__attribute__((noinline)) void measured_writes(struct world *w)
{
	world_write_random(w, MEASURED);
}

static void first_write_world(struct world *w, u32 gens)
{
	world_open(w, 4 * GIB_BLOCKS, TIB_CHUNKS, JOURNAL_MAX);
	populate(w, gens, 500000);
	world_step(w, SD_STEP_CHECKPOINT);
	world_background(w, SD_WORK_IDLE);
	w->group = 64;
	world_cut(w);
}

/* Instructions of measured_writes(), counted by callgrind; 0 without it. */
static double instructions(u32 gens)
{
	char cmd[1024], line[256];
	double n = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect=measured_writes "
		 "%s --dir %s --under-callgrind %u 2>&1", self, world_dir, gens);
	f = popen(cmd, "r");
	while (f && fgets(line, sizeof(line), f)) {
		char *at = strstr(line, "Collected : ");

		if (at)
			n = atof(at + 12);
	}
	if (f)
		pclose(f);
	return n;
}

static void first_write_at(u32 gens)
{
	unsigned long *window = calloc(32768 / 8, 1);
	struct counts before, since;
	struct sd_version *v;
	struct world w;
	u64 got;
	u32 i;
	double t;

	first_write_world(&w, gens);
	v = sd_version_get(w.s);
	got = w.d.n.got;
	for (i = 0; i < 100; i++)
		if (sd_window_fill(v, w.s->sum.newest_kept, (u64)i << 21, 32768, window))
			errx(1, "window");
	figuref("first write", (w.d.n.got - got) / 100.0, "blocks", "at %u generations: to fill a window of 32768 chunks", gens);
	sd_version_put(v);
	free(window);
	before = w.d.n;
	t = now_s();
	measured_writes(&w);
	t = now_s() - t;
	since = counts_since(&w.d.n, &before);
	figuref("first write", since.written[PART_JOURNAL] * 64.0 / MEASURED, "blocks", "at %u generations: journal, for a group of 64", gens);
	figuref("first write", since.read + since.got, "blocks", "at %u generations: read in all", gens);
	figuref("first write", t * 1e9 / MEASURED, "ns CPU", "at %u generations: time of a copy", gens);
	figuref("first write", instructions(gens) / MEASURED, "instr", "at %u generations: instructions of a copy (0: no callgrind)", gens);
	world_close(&w);
}

static void first_write(void)
{
	first_write_at(1);
	first_write_at(10000);
}

/* ---- delete and reclaim -------------------------------------------------------------------------------------------- */

static u64 garbage_left(const struct world *w)
{
	u64 sum = 0;
	u32 i;

	for (i = 0; i < w->s->cur->nr_runs; i++)
		sum += w->s->cur->runs[i]->garbage;
	return sum;
}

/* Delete @nr generations from @first on, one after the other, each with all that this makes the background do. */
static void reclaim(struct world *w, const char *which, u32 first, u32 nr)
{
	struct sd_check_result res;
	struct counts before = w->d.n, since;
	u64 avail = w->s->alloc.avail, written, changed = 0;
	struct sd_gen gen;
	u32 steps = 0, g;
	double t = now_s();

	for (g = first; g < first + nr; g++) {
		if (sd_gen_find(w->s, g, &gen))
			errx(1, "generation %u", g);
		changed += gen.changed;
		world_delete(w, g, g);
		while (sd_background_work(w->s) && world_step(w, 0))
			steps++;
	}
	world_step(w, SD_STEP_CHECKPOINT);
	t = now_s() - t;
	since = counts_since(&w->d.n, &before);
	written = counts_written(&since);
	figuref("delete", changed, "chunks", "%s: changed in it", which);
	figuref("delete", (double)w->s->alloc.avail - (double)avail, "blocks", "%s: came back", which);
	figuref("delete", garbage_left(w), "records", "%s: that nobody needs, left (estimate)", which);
	figuref("delete", steps, "steps", "%s: in the background", which);
	figuref("delete", since.read + since.got, "blocks", "%s: read", which);
	figuref("delete", written, "blocks", "%s: written", which);
	figuref("delete", changed ? written * 4096.0 / changed : 0, "bytes", "%s: written for a changed chunk", which);
	figuref("delete", t * 1e3, "ms CPU", "%s: time", which);
	world_check(w, &res);
	if (res.blocks_used + 2 + w->s->j.blocks + w->s->alloc.free != w->s->nr_blocks)
		errx(1, "the checker finds %llu blocks in use, the allocator has %llu free", (unsigned long long)res.blocks_used,
		     (unsigned long long)w->s->alloc.free);
}

static void deletion(void)
{
	struct world w;
	u32 g;

	world_open(&w, 8 * GIB_BLOCKS, TIB_CHUNKS, JOURNAL_MAX);
	for (g = 0; g < 100; g++) {
		world_cut(&w);
		world_write_random(&w, big_records / 400);
	}
	world_background(&w, SD_WORK_IDLE);
	figure("delete", "records before", w.s->records_run, "records");
	reclaim(&w, "newest of 100", 100, 1);
	reclaim(&w, "one in the middle", 50, 1);
	reclaim(&w, "the oldest", 1, 1);
	reclaim(&w, "the 30 oldest, one after the other", 2, 30);
	reclaim(&w, "30 more", 51, 30);
	reclaim(&w, "all but one of the others", 32, 18);
	reclaim(&w, "and of the newest", 81, 18);
	reclaim(&w, "the last one", 99, 1);
	world_close(&w);
}

/* ---- diff ------------------------------------------------------------------------------------------------------------ */

static void diff_of(struct world *w, const char *which, u32 g1, u32 g2)
{
	struct sd_version *v = sd_version_get(w->s);
	struct sd_extent e[256];
	u64 got = w->d.n.got, pos = 0, chunks = 0;
	double t = now_s();
	int n, i;

	while (pos < w->chunks) {
		n = sd_change_extents(v, g1, g2, &pos, w->chunks, e, 256);
		if (n < 0)
			errx(1, "diff");
		for (i = 0; i < n; i++)
			chunks += e[i].nr;
	}
	figuref("diff", chunks, "chunks", "%s: differ", which);
	figuref("diff", w->d.n.got - got, "blocks", "%s: read", which);
	figuref("diff", chunks ? (now_s() - t) * 1e9 / chunks : 0, "ns CPU", "%s: time for a chunk", which);
	sd_version_put(v);
}

static void diff(void)
{
	u64 got = 0, changed = 0;
	struct world w;
	u32 g;

	world_open(&w, 8 * GIB_BLOCKS, TIB_CHUNKS, JOURNAL_MAX);
	for (g = 1; g <= 200; g++) {
		struct sd_extent e[256];
		struct sd_version *v;
		u64 before, pos = 0;
		int n;

		world_cut(&w);
		world_write_random(&w, big_records / 400);
		world_background(&w, SD_WORK_IDLE);
		/* What a daily incremental backup asks for */
		v = sd_version_get(w.s);
		before = w.d.n.got;
		while (pos < w.chunks) {
			n = sd_change_extents(v, g, g + 1, &pos, w.chunks, e, 256);
			if (n < 0)
				errx(1, "diff");
			for (; n; n--)
				changed += e[n - 1].nr;
		}
		got += w.d.n.got - before;
		sd_version_put(v);
	}
	figure("diff", "newest against the one before, each of 200: blocks for 168 chunks", got * 168.0 / changed, "blocks");
	diff_of(&w, "the newest interval", 200, 201);
	diff_of(&w, "one in the middle", 100, 101);
	diff_of(&w, "the first", 1, 2);
	diff_of(&w, "the first half", 1, 101);
	diff_of(&w, "all", 1, 201);
	world_close(&w);
}

/* ---- runs, random reads ------------------------------------------------------------------------------------------------ */

#define GEN_CHUNKS	1000u

static void read_at(struct world *w, u32 gens)
{
	struct sd_version *v = sd_version_get(w->s);
	u64 got = w->d.n.got, found = 0;
	u32 i, reads = 20000;
	double t = now_s();

	for (i = 0; i < reads; i++) {
		struct sd_rec rec;

		if (sd_lookup(v, world_dice(w, w->chunks), 1, &rec))
			errx(1, "lookup");
		found += rec.kind != SD_KIND_NONE;
	}
	t = now_s() - t;
	figuref("read", w->s->cur->nr_runs, "runs", "generation 1 of %u", gens);
	figuref("read", (double)(w->d.n.got - got) / reads, "blocks", "generation 1 of %u: metadata looked at for a read", gens);
	figuref("read", t * 1e9 / reads, "ns CPU", "generation 1 of %u: lookup", gens);
	figuref("read", 100.0 * found / reads, "%", "generation 1 of %u: reads that found a record", gens);
	sd_version_put(v);
}

static void reading(void)
{
	static const u32 at[] = { 10, 100, 1000, 10000 };
	u32 g, i = 0, most = 0;
	struct world w;

	/* Of 64 GiB, 1000 chunks change between two cuts; every cut is followed by a checkpoint. */
	world_open(&w, 64 * GIB_BLOCKS, 64 * GIB_CHUNKS, JOURNAL_MAX);
	for (g = 1; g <= 10000; g++) {
		world_cut(&w);
		world_write_random(&w, GEN_CHUNKS);
		world_step(&w, SD_STEP_CHECKPOINT);
		world_background(&w, SD_WORK_SOON);
		most = max(most, w.s->cur->nr_runs);
		if (g != at[i])
			continue;
		figuref("read", most, "runs", "up to %u intervals, at most", g);
		world_background(&w, SD_WORK_IDLE);
		read_at(&w, g);
		i++;
	}
	world_close(&w);
}

/* ---- bytes over a whole life ------------------------------------------------------------------------------------------------ */

static void life_of(const char *which, bool random, u32 group, u64 per_gen, u32 keep, u32 gens)
{
	struct counts before = { 0 }, since;
	u64 copied = 0;
	struct world w;
	u32 g, i;

	world_open(&w, (keep * 2 + 50) * per_gen + 2 * GIB_BLOCKS, TIB_CHUNKS, JOURNAL_MAX);
	w.group = group;
	for (g = 1; g <= gens; g++) {
		world_cut(&w);
		if (random)
			world_write_random(&w, per_gen);
		else
			world_write_stretch(&w, g * per_gen * 7, per_gen);
		if (g > keep)
			world_delete(&w, g - keep, g - keep);
		world_background(&w, SD_WORK_IDLE);
		if (g == keep) {	/* from here on as many go as come */
			before = w.d.n;
			copied = w.copied;
		}
	}
	since = counts_since(&w.d.n, &before);
	copied = w.copied - copied;
	for (i = 0; i < PART_NR; i++)
		figuref("life", since.written[i] * 4096.0 / copied, "bytes", "%s: %s", which, part_names[i]);
	figuref("life", counts_written(&since) * 4096.0 / copied, "bytes", "%s: METADATA FOR A COPIED CHUNK", which);
	figuref("life", (since.read + since.got) * 4096.0 / copied, "bytes", "%s: read", which);
	figuref("life", (double)w.s->records_run / ((u64)keep * per_gen), "", "%s: records kept for one that is needed", which);
	world_close(&w);
}

static void life(void)
{
	life_of("random, groups of 332", true, 332, big_records / 100, 100, 300);
	life_of("random, groups of 128", true, 128, big_records / 100, 100, 300);
	life_of("random, groups of 64", true, 64, big_records / 100, 100, 200);
	life_of("sequential, groups of 2048", false, SD_GROUP_MAX_ITEMS, big_records / 100, 100, 300);
}

/* ---- main ------------------------------------------------------------------------------------------------------------------ */

static const struct section { const char *name, *title; void (*run)(void); } sections[] = {
	{ "attach", "attach", attach },
	{ "create", "create a generation", create },
	{ "first-write", "first write", first_write },
	{ "delete", "delete and reclaim", deletion },
	{ "diff", "what differs between generations", diff },
	{ "read", "runs, and random reads of an old generation", reading },
	{ "life", "metadata written for a copied chunk over its whole life", life },
};

static bool wanted(const char *name, int argc, char **argv)
{
	int i;

	for (i = optind; i < argc; i++)
		if (!strcmp(name, argv[i]))
			return true;
	return optind == argc;
}

static int under_callgrind(u32 gens)
{
	struct world w;

	first_write_world(&w, gens);
	measured_writes(&w);
	world_close(&w);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "records", 1, NULL, 'n' }, { "dir", 1, NULL, 'd' }, { "json", 1, NULL, 'j' }, { "under-callgrind", 1, NULL, 'c' }, { 0 },
	};
	u32 i;
	int c;

	self = argv[0];
	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c == 'n')
			big_records = strtoull(optarg, NULL, 0);
		else if (c == 'd')
			world_dir = optarg;
		else if (c == 'j')
			json = fopen(optarg, "w");
		else if (c == 'c')
			return under_callgrind(atoi(optarg));
		else
			errx(1, "usage: store [--records N] [--dir DIR] [--json FILE] [SECTION ...]");
	}
	for (i = 0; i < ARRAY_SIZE(sections); i++) {
		if (!wanted(sections[i].name, argc, argv))
			continue;
		printf("%s\n", sections[i].title);
		sections[i].run();
	}
	if (json) {
		fprintf(json, "%s]\n", json_first ? "[" : "\n");
		fclose(json);
	}
	return 0;
}
