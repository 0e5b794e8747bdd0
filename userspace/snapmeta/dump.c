// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapmeta dump: the metadata as JSON, streamed.
 *
 * One object a line, which is what restore relies on (restore.c): the superblock's members in the first line, then each list with its name and bracket in a line of its own, and at
 * the end what was counted, so that a dump that was cut off is known as such.
 */
#include <jansson.h>
#include "name.h"
#include "snapmeta.h"

static FILE *out;		/* stdout, checksummed */
static u32 crc = ~0u;

static ssize_t write_summed(void *ctx, const char *buf, size_t len)
{
	(void)ctx;
	crc = crc32c(crc, buf, len);
	return fwrite(buf, 1, len, stdout);
}

static int open_summed(void)
{
	crc = ~0u;
	out = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = write_summed });
	return out ? 0 : -ENOMEM;
}

/* The checksum is of all lines before its own. */
static void print_end(u32 gens, u64 records)
{
	fprintf(out, "\n");
	fflush(out);
	printf("],\"end\":{\"generations\":%u,\"records\":%llu,\"crc32c\":%u}}\n", gens, (unsigned long long)records, crc);
}

static void print_string(const char *s)
{
	json_t *j = json_string(s);	/* NULL when it is not UTF-8 */
	char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;

	fputs(text ? text : "null", out);
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

static const char *hex(char *buf, const void *data, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		sprintf(buf + 2 * i, "%02x", ((const u8 *)data)[i]);
	return buf;
}

static void dump_super(const struct sd_store *s)
{
	char uuid[SNAP_UUID_TEXT], fp[2 * SD_FINGERPRINT_SIZE + 1];

	fprintf(out, "{\"format\":1,\"created_ns\":%llu,\"fingerprint\":\"%s\",\"epoch\":%u,\"last_group\":%llu,",
	       (unsigned long long)s->created_ns, hex(fp, s->fingerprint, sizeof(s->fingerprint)), s->j.epoch,
	       (unsigned long long)s->j.done_seq);
	fprintf(out, "\"uuid\":\"%s\",\"transaction\":%llu,\"state\":\"%s\",\"chunk_size\":%u,\"blocks\":%llu,\"free_blocks\":%llu,"
	       "\"primary_size\":%llu,\"highest_generation\":%u,\"suspect_generation\":%u,\"journal\":{\"start\":%llu,\"blocks\":%llu,\"used\":%llu,"
	       "\"replayed_groups\":%llu,\"dropped_groups\":%llu}",
	       snap_format_uuid(uuid, s->uuid), (unsigned long long)s->txid,
	       s->failed ? "failed" : s->was_clean ? "clean" : "active", s->chunk_size, (unsigned long long)s->nr_blocks,
	       (unsigned long long)s->alloc.free, (unsigned long long)s->primary_sectors << 9, s->sum.highest, s->suspect_gen,
	       (unsigned long long)s->j.start, (unsigned long long)s->j.blocks, (unsigned long long)sd_journal_used(&s->j),
	       (unsigned long long)s->replayed_groups, (unsigned long long)s->dropped_groups);
}

/* A label is bytes to the kernel. */
static void print_label(const char *label)
{
	json_t *j = json_string(label);
	char text[2 * SD_LABEL_SIZE + 1];

	print_string(label);
	if (!j)
		fprintf(out, ",\"label_hex\":\"%s\"", hex(text, label, strlen(label)));
	json_decref(j);
}

static u32 dump_gens(struct sd_store *s)
{
	char uuid[SNAP_UUID_TEXT], when[40];
	struct sd_gen g;
	u32 n = 0, nr = 0;

	fprintf(out, ",\n\"generations\":[");
	for (; !sd_gen_next(s, n, &g); n = g.number + 1) {
		fprintf(out, "%s\n{\"generation\":%u,\"uuid\":\"%s\",\"created\":\"%s\",\"created_ns\":%llu,\"state\":\"%s\",\"flags\":%u,"
		       "\"size\":%llu,\"changed_chunks\":%llu,\"changed_bytes\":%llu,\"label\":", nr++ ? "," : "", g.number,
		       snap_format_uuid(uuid, g.uuid), snap_format_time_iso(when, sizeof(when), g.created_ns),
		       (unsigned long long)g.created_ns, state_name(g.state), g.flags, (unsigned long long)g.size_sectors << 9,
		       (unsigned long long)g.changed, (unsigned long long)g.changed * s->chunk_size);
		print_label(g.label);
		putc('}', out);
	}
	fprintf(out, "\n]");
	return nr;
}

static void dump_runs(const struct sd_store *s)
{
	const struct sd_version *v = s->cur;
	u32 i, k;

	fprintf(out, ",\"runs\":[");
	for (i = 0; i < v->nr_runs; i++) {
		const struct sd_run *r = v->runs[i];

		fprintf(out, "%s\n{\"id\":%u,\"level\":%u,\"age\":%llu,\"generations\":[%u,%u],\"records\":%llu,\"from_chunk\":%llu,"
		       "\"flags\":%u,\"merge_into\":%u,\"segments\":[", i ? "," : "", r->id, r->level, (unsigned long long)r->age,
		       r->gen_min, r->gen_max, (unsigned long long)r->records, (unsigned long long)r->lo, r->flags, r->merge_into);
		for (k = 0; k < r->nr_segs; k++)
			fprintf(out, "%s{\"first_chunk\":%llu,\"root\":%llu,\"levels\":%u,\"records\":%llu,\"blocks\":%u}", k ? "," : "",
			       (unsigned long long)r->seg[k].first_chunk, (unsigned long long)r->seg[k].root, r->seg[k].levels,
			       (unsigned long long)r->seg[k].records, r->seg[k].blocks);
		fprintf(out, "]}");
	}
	fprintf(out, "\n]");
}

static int dump_records(struct sd_store *s, u64 *nr)
{
	struct sd_version *v = sd_version_get(s);
	struct sd_iter it;
	struct sd_rec rec;
	int ret = sd_iter_init(&it, v, 0, U32_MAX);

	fprintf(out, ",\"records\":[");
	if (!ret)
		ret = sd_iter_seek(&it, 0, 0);
	while (!ret && (ret = sd_iter_next(&it, &rec, NULL)) > 0) {
		fprintf(out, "%s\n{\"chunk\":%llu,\"generation\":%u,\"kind\":\"%s\"", (*nr)++ ? "," : "", (unsigned long long)rec.chunk,
		       rec.gen, kind_name(rec.kind));
		if (rec.kind == SD_KIND_DATA)
			fprintf(out, ",\"block\":%llu,\"crc32c\":%u", (unsigned long long)rec.addr, rec.crc);
		putc('}', out);
		ret = 0;
	}
	sd_iter_exit(&it);
	sd_version_put(v);
	return ret;
}

static int run(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	bool records = false;
	struct meta m;
	u64 nr = 0;
	u32 gens;
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
	err = open_summed();
	if (err) {
		meta_close(&m);
		return SNAP_EXIT_NOMEM;
	}
	dump_super(m.store);
	gens = dump_gens(m.store);
	dump_runs(m.store);
	if (records)
		err = dump_records(m.store, &nr);
	if (records && !err)
		print_end(gens, nr);
	else if (!records)
		fprintf(out, "}\n");
	if (fclose(out) || fflush(stdout) || ferror(stdout))
		err = err ? err : -EIO;
	if (err)
		snap_err_sys(&e, err, argv[0], "dump is not complete");
	meta_close(&m);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_dump = {
	.name = "dump",
	.args = "DIFF|IMAGE",
	.summary = "Print the metadata of a differential volume as JSON",
	.help = "Superblock, journal, generations, runs; with --records the whole mapping table, too: that is what \"snapmeta restore\" takes\n"
		"back. Nothing is written.",
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
