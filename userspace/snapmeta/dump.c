// SPDX-License-Identifier: GPL-2.0-or-later
/* snapmeta dump: the metadata as JSON, streamed. */
#include <jansson.h>
#include "name.h"
#include "snapmeta.h"

static void print_string(const char *s)
{
	json_t *j = json_string(s);	/* NULL when it is not UTF-8 */
	char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;

	fputs(text ? text : "null", stdout);
	free(text);
	json_decref(j);
}

static const char *state_name(u32 state)
{
	static const char *const names[] = { "?", "live", "bookmark", "lost" };

	return names[state < ARRAY_SIZE(names) ? state : 0];
}

static const char *kind_name(u32 kind)
{
	static const char *const names[] = { "none", "data", "zero", "bad", "mark" };

	return kind < ARRAY_SIZE(names) ? names[kind] : "?";
}

static void dump_super(const struct sd_store *s)
{
	char uuid[SNAP_UUID_TEXT];

	printf("{\"uuid\":\"%s\",\"transaction\":%llu,\"state\":\"%s\",\"chunk_size\":%u,\"blocks\":%llu,\"free_blocks\":%llu,"
	       "\"primary_size\":%llu,\"highest_generation\":%u,\"journal\":{\"start\":%llu,\"blocks\":%llu,\"used\":%llu,"
	       "\"replayed_groups\":%llu,\"dropped_groups\":%llu}",
	       snap_format_uuid(uuid, s->uuid), (unsigned long long)s->txid,
	       s->failed ? "failed" : s->was_clean ? "clean" : "active", s->chunk_size, (unsigned long long)s->nr_blocks,
	       (unsigned long long)s->alloc.free, (unsigned long long)s->primary_sectors << 9, s->sum.highest,
	       (unsigned long long)s->j.start, (unsigned long long)s->j.blocks, (unsigned long long)sd_journal_used(&s->j),
	       (unsigned long long)s->replayed_groups, (unsigned long long)s->dropped_groups);
}

static void dump_gens(struct sd_store *s)
{
	char uuid[SNAP_UUID_TEXT], when[40];
	struct sd_gen g;
	u32 n = 0;

	printf(",\n\"generations\":[");
	for (; !sd_gen_next(s, n, &g); n = g.number + 1) {
		printf("%s\n{\"generation\":%u,\"uuid\":\"%s\",\"created\":\"%s\",\"state\":\"%s\",\"flags\":%u,\"size\":%llu,"
		       "\"changed_bytes\":%llu,\"label\":", n ? "," : "", g.number, snap_format_uuid(uuid, g.uuid),
		       snap_format_time_iso(when, sizeof(when), g.created_ns), state_name(g.state), g.flags,
		       (unsigned long long)g.size_sectors << 9, (unsigned long long)g.changed * s->chunk_size);
		print_string(g.label);
		putchar('}');
	}
	putchar(']');
}

static void dump_runs(const struct sd_store *s)
{
	const struct sd_version *v = s->cur;
	u32 i, k;

	printf(",\n\"runs\":[");
	for (i = 0; i < v->nr_runs; i++) {
		const struct sd_run *r = v->runs[i];

		printf("%s\n{\"id\":%u,\"level\":%u,\"age\":%llu,\"generations\":[%u,%u],\"records\":%llu,\"from_chunk\":%llu,"
		       "\"flags\":%u,\"merge_into\":%u,\"segments\":[", i ? "," : "", r->id, r->level, (unsigned long long)r->age,
		       r->gen_min, r->gen_max, (unsigned long long)r->records, (unsigned long long)r->lo, r->flags, r->merge_into);
		for (k = 0; k < r->nr_segs; k++)
			printf("%s{\"first_chunk\":%llu,\"root\":%llu,\"levels\":%u,\"records\":%llu,\"blocks\":%u}", k ? "," : "",
			       (unsigned long long)r->seg[k].first_chunk, (unsigned long long)r->seg[k].root, r->seg[k].levels,
			       (unsigned long long)r->seg[k].records, r->seg[k].blocks);
		printf("]}");
	}
	putchar(']');
}

static int dump_records(struct sd_store *s)
{
	struct sd_version *v = sd_version_get(s);
	struct sd_iter it;
	struct sd_rec rec;
	bool first = true;
	int ret = sd_iter_init(&it, v, 0, U32_MAX);

	printf(",\n\"records\":[");
	if (!ret)
		ret = sd_iter_seek(&it, 0, 0);
	while (!ret && (ret = sd_iter_next(&it, &rec, NULL)) > 0) {
		printf("%s\n{\"chunk\":%llu,\"generation\":%u,\"kind\":\"%s\"", first ? "" : ",", (unsigned long long)rec.chunk,
		       rec.gen, kind_name(rec.kind));
		if (rec.kind == SD_KIND_DATA)
			printf(",\"block\":%llu,\"crc32c\":%u", (unsigned long long)rec.addr, rec.crc);
		putchar('}');
		first = false;
		ret = 0;
	}
	putchar(']');
	sd_iter_exit(&it);
	sd_version_put(v);
	return ret;
}

static int run(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	bool records = false;
	struct meta m;
	const struct snap_opt opts[] = {
		{ "records", 'r', SNAP_OPT_FLAG, NULL, &records, "every record of the mapping table, too" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_dump, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	err = meta_open(&m, argv[0], &e);
	if (err)
		return snap_err_report(&e);
	dump_super(m.store);
	dump_gens(m.store);
	dump_runs(m.store);
	if (records)
		err = dump_records(m.store);
	puts("}");
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = -EIO;
	if (err)
		snap_err_sys(&e, err, argv[0], "dump is not complete");
	meta_close(&m);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_dump = {
	.name = "dump",
	.args = "DIFF|IMAGE",
	.summary = "Print the metadata of a differential volume as JSON",
	.help = "Superblock, journal, generations, runs; with --records the whole mapping table. Nothing is written.",
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
