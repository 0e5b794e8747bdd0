// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapmeta restore: what "snapmeta dump --records" has written becomes metadata again.
 *
 * The dump is read line by line, up to its last, which has a checksum of all before; it is an object a line, as dump.c writes it, so memory does not grow with it (a bit for each block of the store, and what rebuild.h says). It is read
 * twice: which blocks hold preserved data must be known before the first block of metadata is written between them. So it has to be a file; what comes from a pipe is
 * kept in an unlinked one.
 *
 * A dump is the state of a moment. If the store was used since, records are missing in it, and generations would show the primary's new content for them. So a store whose
 * superblock or journal knows of anything later is refused. Where the metadata has been wiped, only the fingerprint of the primary, which the dump has, is left to tell
 * (at the next attach).
 */
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>
#include "name.h"
#include "rebuild.h"
#include "snapmeta.h"

#define LINE_MAX_BYTES	65536

struct restore {
	const char *in_path, *out_path, *data_path;
	FILE *in;
	char *line;
	u64 line_nr;
	struct filedev out, data;
	bool created;
	struct rebuild_params p;
	u64 txid, last_group, records, gens;
	u32 epoch, crc;		/* of the lines so far, without the one that is being read */
	u32 line_crc;
	struct rebuild rb;
	u8 *used, *chunk;
	bool second, check_data, ended;
	enum { IN_NOTHING, IN_GENS, IN_RUNS, IN_RECORDS } part;
};

static int bad_line(const struct restore *r, struct snap_err *e, const char *what)
{
	return snap_err_set(e, -EINVAL, r->in_path, "line %llu: %s", (unsigned long long)r->line_nr, what);
}

static bool get_u64(json_t *o, const char *key, u64 max, u64 *v)
{
	json_t *j = json_object_get(o, key);

	if (!json_is_integer(j) || json_integer_value(j) < 0 || (u64)json_integer_value(j) > max)
		return false;
	*v = json_integer_value(j);
	return true;
}

static bool get_u32(json_t *o, const char *key, u32 *v)
{
	u64 n;

	if (!get_u64(o, key, U32_MAX, &n))
		return false;
	*v = n;
	return true;
}

static bool get_hex(json_t *o, const char *key, void *buf, size_t len)
{
	const char *s = json_string_value(json_object_get(o, key));
	size_t i;

	if (!s || strlen(s) != 2 * len)
		return false;
	for (i = 0; i < len; i++) {
		unsigned int b;

		if (strspn(s + 2 * i, "0123456789abcdef") < 2 || sscanf(s + 2 * i, "%2x", &b) != 1)
			return false;
		((u8 *)buf)[i] = b;
	}
	return true;
}

static bool get_uuid(json_t *o, u8 *uuid)
{
	const char *s = json_string_value(json_object_get(o, "uuid"));

	return s && !snap_parse_uuid(s, uuid);
}

/* ---- what stands in a line ---------------------------------------------------------------------------------- */

static int read_header(struct restore *r, json_t *o, struct snap_err *e)
{
	const char *state = json_string_value(json_object_get(o, "state"));
	struct rebuild_params *p = &r->p;
	json_t *j = json_object_get(o, "journal");
	u64 primary, format;

	if (!get_u64(o, "format", U32_MAX, &format))
		return bad_line(r, e, "not a dump of snapmeta");
	if (format != 1)
		return bad_line(r, e, "a dump of an unknown format");
	if (!state || !get_uuid(o, p->uuid) || !get_u32(o, "chunk_size", &p->chunk_size) || !get_u64(o, "blocks", 1ull << 48, &p->nr_blocks) ||
	    !get_u64(j, "blocks", 1ull << 40, &p->journal_blocks) || !get_u64(o, "primary_size", INT64_MAX, &primary) ||
	    !get_u64(o, "created_ns", INT64_MAX, &p->created_ns) || !get_u32(o, "highest_generation", &p->highest) ||
	    !get_u32(o, "suspect_generation", &p->suspect_gen) ||
	    !get_hex(o, "fingerprint", p->fingerprint, sizeof(p->fingerprint)) || !get_u64(o, "transaction", INT64_MAX, &r->txid) ||
	    !get_u32(o, "epoch", &r->epoch) || !get_u64(o, "last_group", INT64_MAX, &r->last_group))
		return bad_line(r, e, "the superblock is not complete");
	p->primary_sectors = primary >> 9;
	p->clean = !strcmp(state, "clean");
	return 0;
}

static bool get_state(json_t *o, u32 *state)
{
	static const char *const names[] = { "?", "live", "bookmark", "lost" };
	const char *s = json_string_value(json_object_get(o, "state"));

	for (*state = 1; s && *state < ARRAY_SIZE(names); ++*state)
		if (!strcmp(s, names[*state]))
			return true;
	return false;
}

static bool get_label(json_t *o, char *label)
{
	json_t *j = json_object_get(o, "label");
	const char *hex = json_string_value(json_object_get(o, "label_hex"));

	if (json_is_string(j) && json_string_length(j) < SD_LABEL_SIZE) {
		strcpy(label, json_string_value(j));
		return true;
	}
	return json_is_null(j) && hex && strlen(hex) < 2 * SD_LABEL_SIZE && get_hex(o, "label_hex", label, strlen(hex) / 2);
}

static int read_gen(struct restore *r, json_t *o, struct snap_err *e)
{
	struct sd_gen g = { 0 };
	u64 size;

	r->gens++;
	if (!get_u32(o, "generation", &g.number) || !get_uuid(o, g.uuid) || !get_u64(o, "created_ns", INT64_MAX, &g.created_ns) ||
	    !get_state(o, &g.state) || !get_u32(o, "flags", &g.flags) || !get_u64(o, "size", INT64_MAX, &size) ||
	    !get_u64(o, "changed_chunks", INT64_MAX, &g.changed) || !get_label(o, g.label))
		return bad_line(r, e, "the generation is not complete");
	g.size_sectors = size >> 9;
	if (!r->second && rebuild_gen(&r->rb, &g))
		return bad_line(r, e, "a generation that cannot be");
	return 0;
}

static bool get_rec(json_t *o, struct sd_rec *rec)
{
	static const char *const names[] = { "?", "data", "zero", "bad", "mark" };
	const char *kind = json_string_value(json_object_get(o, "kind"));

	if (!kind || !get_u64(o, "chunk", SD_WHERE_ADDR_MASK, &rec->chunk) || !get_u32(o, "generation", &rec->gen))
		return false;
	for (rec->kind = 1; rec->kind < ARRAY_SIZE(names); rec->kind++)
		if (!strcmp(kind, names[rec->kind]))
			return rec->kind != SD_KIND_DATA || (get_u64(o, "block", SD_WHERE_ADDR_MASK, &rec->addr) && get_u32(o, "crc32c", &rec->crc));
	return false;
}

/* First pass: nobody else's block, and the content is what it was. */
static int claim(struct restore *r, const struct sd_rec *rec, struct snap_err *e)
{
	struct filedev *from = r->data_path ? &r->data : &r->out;
	u32 blocks = r->p.chunk_size >> SD_BLOCK_SHIFT;
	u64 i;
	int err;

	if (rebuild_use(&r->rb, rec->addr, blocks))
		return bad_line(r, e, "data where none can be");
	for (i = rec->addr; i < rec->addr + blocks; i++) {
		if (r->used[i / 8] >> i % 8 & 1)
			return bad_line(r, e, "data of two records in one place");
		r->used[i / 8] |= 1 << i % 8;
	}
	if (!r->check_data && !r->data_path)
		return 0;
	if (rec->addr + blocks > from->dev.nr_blocks)
		return bad_line(r, e, "data behind the end of the device");
	err = from->dev.ops->read(from->dev.ctx, rec->addr, blocks, r->chunk);
	if (err)
		return snap_err_sys(e, err, r->data_path ? r->data_path : r->out_path, "cannot read preserved data");
	if (crc32c(~0u, r->chunk, r->p.chunk_size) != rec->crc)
		return snap_err_set(e, -EIO, r->in_path, "line %llu: block %llu does not hold the data of this record",
				    (unsigned long long)r->line_nr, (unsigned long long)rec->addr);
	if (!r->data_path)
		return 0;
	err = r->out.dev.ops->write(r->out.dev.ctx, rec->addr, blocks, r->chunk);
	return err ? snap_err_sys(e, err, r->out_path, "cannot write") : 0;
}

static int read_rec(struct restore *r, json_t *o, struct snap_err *e)
{
	struct sd_rec rec = { 0 };
	int err;

	if (!get_rec(o, &rec))
		return bad_line(r, e, "the record is not complete");
	if (!r->second) {
		r->records++;
		return rec.kind == SD_KIND_DATA ? claim(r, &rec, e) : 0;
	}
	err = rebuild_add(&r->rb, &rec);
	if (err == -EINVAL)
		return bad_line(r, e, "a record that cannot be, or cannot be here");
	return err ? snap_err_sys(e, err, r->out_path, "cannot write the mapping table") : 0;
}

static int read_end(struct restore *r, json_t *o, struct snap_err *e)
{
	u64 gens, records;
	u32 crc;

	if (!get_u32(o, "crc32c", &crc) || crc != r->crc)
		return bad_line(r, e, "the dump has been changed: its checksum is wrong");
	if (!get_u64(o, "generations", INT64_MAX, &gens) || !get_u64(o, "records", INT64_MAX, &records) || (!r->second &&
	    (gens != r->gens || records != r->records)))
		return bad_line(r, e, "the dump does not have as many generations or records as it says");
	r->ended = true;
	return 0;
}

/* ---- lines ------------------------------------------------------------------------------------------------------ */

static int next_line(struct restore *r, struct snap_err *e)
{
	size_t n;

	if (!fgets(r->line, LINE_MAX_BYTES, r->in))
		return ferror(r->in) ? snap_err_sys(e, -EIO, r->in_path, "cannot read") : 1;
	r->line_nr++;
	n = strlen(r->line);
	r->crc = r->line_crc;
	r->line_crc = crc32c(r->line_crc, r->line, n);
	if (!n || r->line[n - 1] != '\n')
		return bad_line(r, e, "cut off, or too long");
	r->line[n - 1] = 0;
	return 0;
}

/* @text, which may have something behind it */
static int parse(struct restore *r, const char *text, int (*fn)(struct restore *r, json_t *o, struct snap_err *e), struct snap_err *e)
{
	json_error_t je;
	json_t *o = json_loads(text, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &je);
	int err = json_is_object(o) ? fn(r, o, e) : bad_line(r, e, "not JSON as a dump has it");

	json_decref(o);
	return err;
}

static int parse_header(struct restore *r, struct snap_err *e)
{
	int err = next_line(r, e);
	size_t n;

	if (err)
		return err < 0 ? err : bad_line(r, e, "empty");
	/* The lists that follow belong to the object of the first line. */
	n = strlen(r->line);
	if (!n || r->line[n - 1] != ',')
		return bad_line(r, e, "not a dump of snapmeta");
	r->line[n - 1] = '}';
	return parse(r, r->line, read_header, e);
}

static int parse_line(struct restore *r, struct snap_err *e)
{
	if (!strcmp(r->line, "\"generations\":[")) {
		r->part = IN_GENS;
		return 0;
	}
	if (!strcmp(r->line, "],\"runs\":[")) {
		r->part = IN_RUNS;
		return 0;
	}
	if (!strcmp(r->line, "],\"records\":[")) {
		r->part = IN_RECORDS;
		return 0;
	}
	if (!strncmp(r->line, "],\"end\":{", 9))
		return parse(r, r->line + 8, read_end, e);
	switch (r->part) {
	case IN_GENS:
		return parse(r, r->line, read_gen, e);
	case IN_RECORDS:
		return parse(r, r->line, read_rec, e);
	case IN_RUNS:
		return 0;	/* there will be one run */
	default:
		return bad_line(r, e, "not a dump of snapmeta");
	}
}

static int read_all(struct restore *r, struct snap_err *e)
{
	int err = 0;

	r->part = IN_NOTHING;
	r->ended = false;
	while (!err && !r->ended) {
		err = next_line(r, e);
		if (!err)
			err = parse_line(r, e);
	}
	if (err > 0)
		return snap_err_set(e, -EINVAL, r->in_path, "is not complete: the end is missing, or it was made without --records");
	return err;
}

/* ---- the devices ------------------------------------------------------------------------------------------------- */

/* Does what is on the device know of anything later than the dump? What rebuild_begin() has found says so. */
static int check_later(struct restore *r, struct snap_err *e)
{
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	struct sd_store s = { .dev = &r->out.dev };
	int err = d ? sd_super_read(&s, d) : -ENOMEM;

	if (!err && memcmp(d->hdr.uuid, r->p.uuid, SD_UUID_SIZE))
		err = snap_err_set(e, -EEXIST, r->out_path, "holds another store");
	else if (!err && le64_to_cpu(d->hdr.txid) > r->txid)
		err = snap_err_set(e, -EEXIST, r->out_path, "has been used since the dump was made: its generations would be wrong");
	else if (err == -ENODATA || err == -EUCLEAN)
		err = 0;
	else if (err)
		err = snap_err_sys(e, err, r->out_path, "cannot read");
	sd_free(d);
	/* The journal's images of this store, by their epoch and number */
	if (!err && (r->rb.s->j.epoch - 1 > r->epoch || r->rb.s->j.tail_seq - 1 > r->last_group))
		err = snap_err_set(e, -EEXIST, r->out_path, "has been used since the dump was made: its journal goes on");
	return err;
}

static int check_foreign(struct restore *r, bool force, struct snap_err *e)
{
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	struct sd_store s = { .dev = &r->out.dev };
	int err = d ? sd_super_read(&s, d) : -ENOMEM;

	sd_free(d);
	if (err == -ENODATA || (force && err != -ENOMEM))
		return 0;
	return snap_err_set(e, -EEXIST, r->out_path, "holds a differential volume already; --force overwrites it");
}

static int open_output(struct restore *r, bool force, struct snap_err *e)
{
	int err, fd;

	if (r->data_path) {
		fd = open(r->out_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0) {
			r->created = true;
			err = ftruncate(fd, r->p.nr_blocks << SD_BLOCK_SHIFT) ? -errno : 0;
			close(fd);
			if (err)
				return snap_err_sys(e, err, r->out_path, "cannot set the size");
		}
	}
	err = filedev_open(&r->out, r->out_path, false, true);
	if (err)
		return err == -EBUSY ? snap_err_set(e, err, r->out_path, "in use: mounted, attached or held by another device") :
			snap_err_sys(e, err, r->out_path, "cannot open");
	if (r->data_path && !r->created)
		return check_foreign(r, force, e);
	return 0;
}

static int start(struct restore *r, bool force, struct snap_err *e)
{
	int err = open_output(r, force, e);

	if (err)
		return err;
	err = rebuild_begin(&r->rb, &r->out.dev, &r->p);
	if (err == -EINVAL)
		return snap_err_set(e, err, r->in_path, "describes a store that cannot be");
	if (err == -ENOSPC)
		return snap_err_set(e, err, r->out_path, "is smaller than the store");
	if (err)
		return snap_err_sys(e, err, r->out_path, "cannot begin");
	if (!r->data_path)
		err = check_later(r, e);
	r->used = calloc(r->p.nr_blocks / 8 + 1, 1);
	r->chunk = sd_malloc(r->p.chunk_size);
	if (!err && (!r->used || !r->chunk))
		err = snap_err_sys(e, -ENOMEM, NULL, "restore");
	return err;
}

static int write_all(struct restore *r, struct snap_err *e)
{
	int err = read_all(r, e);

	if (err)
		return err;
	rewind(r->in);
	r->line_nr = 0;
	r->line_crc = ~0u;
	r->second = true;
	rebuild_count(&r->rb, r->records);
	err = next_line(r, e);
	if (!err)
		err = read_all(r, e);
	if (err)
		return err;
	err = rebuild_commit(&r->rb);
	return err ? snap_err_sys(e, err, r->out_path, "cannot write the metadata") : 0;
}

/* A file that can be read twice. */
static int open_input(struct restore *r, struct snap_err *e)
{
	FILE *copy;
	size_t n;

	r->in = strcmp(r->in_path, "-") ? fopen(r->in_path, "re") : stdin;
	if (!r->in)
		return snap_err_sys(e, -errno, r->in_path, "cannot open");
	r->line = malloc(LINE_MAX_BYTES);
	if (!r->line)
		return snap_err_sys(e, -ENOMEM, NULL, "restore");
	if (lseek(fileno(r->in), 0, SEEK_CUR) >= 0)
		return 0;
	copy = tmpfile();
	while (copy && (n = fread(r->line, 1, LINE_MAX_BYTES, r->in)))
		if (fwrite(r->line, 1, n, copy) != n)
			break;
	if (!copy || ferror(r->in) || ferror(copy) || fflush(copy))
		return snap_err_sys(e, -EIO, r->in_path, "cannot keep the dump in a temporary file");
	rewind(copy);
	fclose(r->in);
	r->in = copy;
	return 0;
}

static void finish(struct restore *r, bool ok)
{
	rebuild_end(&r->rb);
	if (r->in)
		fclose(r->in);
	if (r->out.dev.ops)
		filedev_close(&r->out);
	if (r->data.dev.ops)
		filedev_close(&r->data);
	if (!ok && r->created)
		unlink(r->out_path);
	free(r->line);
	free(r->used);
	sd_free(r->chunk);
}

static int run(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct restore r = { .line_crc = ~0u };
	bool force = false, quiet = false;
	const struct snap_opt opts[] = {
		{ "input", 'i', SNAP_OPT_STRING, "DUMP", &r.in_path, "what \"snapmeta dump --records\" has written; - for standard input" },
		{ "output", 'o', SNAP_OPT_STRING, "DIFF|IMAGE", &r.out_path, "the device or image that has the preserved data" },
		{ "data-from", 'D', SNAP_OPT_STRING, "DIFF|IMAGE", &r.data_path, "copy the preserved data from here; the output may then be a new file" },
		{ "data", 'd', SNAP_OPT_FLAG, NULL, &r.check_data, "read all preserved chunks and compare their checksums first" },
		{ "force", 'f', SNAP_OPT_FLAG, NULL, &force, "with --data-from: overwrite a store on the output" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &quiet, "print errors only" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_restore, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	if (!r.in_path || !r.out_path)
		return snap_usage_error("restore: --input DUMP and --output DIFF are both needed");
	err = open_input(&r, &e);
	if (!err)
		err = parse_header(&r, &e);
	if (!err && r.data_path) {
		err = filedev_open(&r.data, r.data_path, true, true);
		if (err)
			snap_err_sys(&e, err, r.data_path, "cannot open");
	}
	if (!err)
		err = start(&r, force, &e);
	if (!err)
		err = write_all(&r, &e);
	if (!err && !quiet)
		printf("%s: %llu generations, %llu records\n", r.out_path, (unsigned long long)r.gens / 2, (unsigned long long)r.records);
	finish(&r, !err);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_restore = {
	.name = "restore",
	.args = "--input DUMP --output DIFF|IMAGE",
	.summary = "Write the metadata of a dump to the differential volume",
	.help = "The preserved data has to be where the dump says, or is copied from --data-from. A store that has been used since the dump was\n"
		"made is refused. Nothing is in force before all is written; a restore that was interrupted is simply run again.",
	.min_args = 0,
	.max_args = 0,
	.run = run,
};
