// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tables and JSON from one description.
 *
 * A row's cells are values, not text; row_text() and row_json() are the only places that give them a form.
 * Only SNAP_OUT_TABLE keeps rows (as text, to find the widths); everything else is written at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "name.h"
#include "output.h"

#define GAP		2		/* blanks between columns */

struct cell {
	bool set;
	uint64_t num;
	uint8_t uuid[16];
	char *str;
};

struct snap_out {
	const struct snap_col *cols;
	size_t ncols;
	size_t *shown;			/* columns to print, in order */
	size_t nshown;
	enum snap_out_layout layout;
	struct snap_out_opts opts;
	FILE *file;
	struct cell *row;
	char **kept;			/* TABLE: nshown texts a row */
	size_t nkept, kept_cap;		/* in rows */
	size_t rows;
	bool begun;			/* headings or the list's head are out */
	const char *list;
	int err;
};

/* ---- which columns ---- */

static int find_column(const struct snap_out *out, const char *key, size_t len)
{
	size_t i;

	for (i = 0; i < out->ncols; i++)
		if (strlen(out->cols[i].key) == len && !strncmp(out->cols[i].key, key, len))
			return i;
	return -1;
}

static int unknown_column(const struct snap_out *out, const char *key, size_t len, struct snap_err *e)
{
	char known[512] = "";
	size_t i, used = 0;

	for (i = 0; i < out->ncols && used < sizeof(known); i++)
		used += snprintf(known + used, sizeof(known) - used, "%s%s", i ? "," : "", out->cols[i].key);
	return snap_err_set(e, -EINVAL, NULL, "unknown column '%.*s', known are %s", (int)len, key, known);
}

static void show(struct snap_out *out, size_t col)
{
	size_t i;

	for (i = 0; i < out->nshown; i++)
		if (out->shown[i] == col)
			return;
	out->shown[out->nshown++] = col;
}

static int choose_columns(struct snap_out *out, struct snap_err *e)
{
	const char *p = out->opts.columns;
	size_t i, len;
	int col;

	if (!p || *p == '+') {
		for (i = 0; i < out->ncols; i++)
			if (out->opts.json || !(out->cols[i].flags & SNAP_COL_HIDDEN))
				show(out, i);
		if (!p)
			return 0;
		p++;
	}
	for (;;) {
		len = strcspn(p, ",");
		col = find_column(out, p, len);
		if (col < 0)
			return unknown_column(out, p, len, e);
		show(out, col);
		if (!p[len])
			return 0;
		p += len + 1;
	}
}

/* ---- a cell's text ---- */

static bool right_aligned(enum snap_col_type type)
{
	return type == SNAP_COL_NUMBER || type == SNAP_COL_SIZE || type == SNAP_COL_PERCENT;
}

static char *cell_text(const struct snap_out *out, const struct snap_col *col, const struct cell *c,
		       char *buf, size_t len)
{
	if (!c->set)
		return "-";
	switch (col->type) {
	case SNAP_COL_STRING:
		return c->str && *c->str ? c->str : "-";
	case SNAP_COL_SIZE:
		if (!out->opts.bytes)
			return snap_format_size(buf, len, c->num);
		/* fall through */
	case SNAP_COL_NUMBER:
		snprintf(buf, len, "%" PRIu64, c->num);
		return buf;
	case SNAP_COL_TIME:
		return snap_format_time(buf, len, c->num);
	case SNAP_COL_UUID:
		return snap_format_uuid(buf, c->uuid);
	case SNAP_COL_BOOL:
		return c->num ? "yes" : "no";
	case SNAP_COL_PERCENT:
		snprintf(buf, len, "%" PRIu64 ".%02u%%", c->num / 100, (unsigned int)(c->num % 100));
		return buf;
	}
	return "?";
}

/* Characters of UTF-8 text, for padding. */
static int text_width(const char *s)
{
	int n = 0;

	for (; *s; s++)
		if ((*s & 0xc0) != 0x80)
			n++;
	return n;
}

static void print_padded(FILE *f, const char *text, int width, bool right, bool last)
{
	int pad = width - text_width(text);

	if (right && pad > 0)
		fprintf(f, "%*s", pad, "");
	fputs(text, f);
	if (last)
		return;
	if (!right && pad > 0)
		fprintf(f, "%*s", pad, "");
	fprintf(f, "%*s", GAP, "");
}

/* ---- text layouts ---- */

static int stream_width(const struct snap_col *col)
{
	int w = col->width ? col->width : 12, h = text_width(col->head);

	return w > h ? w : h;
}

static void stream_headings(struct snap_out *out)
{
	const struct snap_col *col;
	size_t i;

	for (i = 0; i < out->nshown; i++) {
		col = &out->cols[out->shown[i]];
		print_padded(out->file, col->head, stream_width(col), right_aligned(col->type),
			     i + 1 == out->nshown);
	}
	fputc('\n', out->file);
}

static void row_stream(struct snap_out *out)
{
	const struct snap_col *col;
	char buf[64];
	size_t i;

	for (i = 0; i < out->nshown; i++) {
		col = &out->cols[out->shown[i]];
		print_padded(out->file, cell_text(out, col, &out->row[out->shown[i]], buf, sizeof(buf)),
			     stream_width(col), right_aligned(col->type), i + 1 == out->nshown);
	}
	fputc('\n', out->file);
}

static void row_record(struct snap_out *out)
{
	const struct snap_col *col;
	int w, width = 0;
	char buf[64];
	size_t i;

	for (i = 0; i < out->nshown; i++) {
		w = text_width(out->cols[out->shown[i]].head);
		if (w > width)
			width = w;
	}
	if (out->rows)
		fputc('\n', out->file);
	for (i = 0; i < out->nshown; i++) {
		col = &out->cols[out->shown[i]];
		if (!out->opts.noheadings)
			fprintf(out->file, "%s:%*s", col->head, width - text_width(col->head) + 1, "");
		fprintf(out->file, "%s\n", cell_text(out, col, &out->row[out->shown[i]], buf, sizeof(buf)));
	}
}

static int keep_row(struct snap_out *out)
{
	const struct snap_col *col;
	char buf[64], **texts;
	size_t i, cap;

	if (out->nkept == out->kept_cap) {
		cap = out->kept_cap ? out->kept_cap * 2 : 32;
		texts = reallocarray(out->kept, cap * out->nshown, sizeof(char *));
		if (!texts)
			return -ENOMEM;
		out->kept = texts;
		out->kept_cap = cap;
	}
	texts = &out->kept[out->nkept * out->nshown];
	for (i = 0; i < out->nshown; i++) {
		col = &out->cols[out->shown[i]];
		texts[i] = strdup(cell_text(out, col, &out->row[out->shown[i]], buf, sizeof(buf)));
		if (!texts[i]) {
			while (i--)
				free(texts[i]);
			return -ENOMEM;
		}
	}
	out->nkept++;
	return 0;
}

static void print_kept(struct snap_out *out)
{
	const struct snap_col *col;
	size_t r, i;
	int w, *width = calloc(out->nshown + 1, sizeof(*width));

	if (!width) {
		out->err = -ENOMEM;
		return;
	}
	for (i = 0; i < out->nshown; i++) {
		width[i] = out->opts.noheadings ? 0 : text_width(out->cols[out->shown[i]].head);
		for (r = 0; r < out->nkept; r++) {
			w = text_width(out->kept[r * out->nshown + i]);
			if (w > width[i])
				width[i] = w;
		}
	}
	for (r = 0; r < out->nkept + 1; r++) {
		if (!r && out->opts.noheadings)
			continue;
		for (i = 0; i < out->nshown; i++) {
			col = &out->cols[out->shown[i]];
			print_padded(out->file, r ? out->kept[(r - 1) * out->nshown + i] : col->head, width[i],
				     right_aligned(col->type), i + 1 == out->nshown);
		}
		fputc('\n', out->file);
	}
	free(width);
}

/* ---- JSON ---- */

static json_t *cell_json(const struct snap_col *col, const struct cell *c, bool raw)
{
	char buf[64];

	if (!c->set)
		return json_null();
	if (raw && (col->type == SNAP_COL_TIME || col->type == SNAP_COL_PERCENT))
		return json_integer(c->num);
	switch (col->type) {
	case SNAP_COL_STRING:
		return json_string(c->str ? c->str : "");
	case SNAP_COL_NUMBER:
	case SNAP_COL_SIZE:
		/* JSON integers of jansson are signed; nothing we print reaches 2^63. */
		return json_integer(c->num);
	case SNAP_COL_TIME:
		return json_string(snap_format_time_iso(buf, sizeof(buf), c->num));
	case SNAP_COL_UUID:
		return json_string(snap_format_uuid(buf, c->uuid));
	case SNAP_COL_BOOL:
		return json_boolean(c->num);
	case SNAP_COL_PERCENT:
		return json_real(c->num / 100.0);
	}
	return json_null();
}

static int row_json(struct snap_out *out)
{
	json_t *obj = json_object();
	int err = 0;
	size_t i;

	if (!obj)
		return -ENOMEM;
	for (i = 0; i < out->nshown && !err; i++) {
		const struct snap_col *col = &out->cols[out->shown[i]];

		if (json_object_set_new(obj, col->key, cell_json(col, &out->row[out->shown[i]], out->opts.raw)))
			err = -ENOMEM;
	}
	if (!err && !out->opts.lines && out->rows)
		fputs(",\n", out->file);
	if (!err && json_dumpf(obj, out->file, JSON_COMPACT | JSON_REAL_PRECISION(6)))
		err = -EIO;
	if (!err && out->opts.lines)
		fputc('\n', out->file);
	json_decref(obj);
	return err;
}

/* ---- the face ---- */

int snap_out_open(struct snap_out **res, const char *list, enum snap_out_layout layout,
		  const struct snap_col *cols, size_t n, const struct snap_out_opts *opts,
		  struct snap_err *e)
{
	struct snap_out *out = calloc(1, sizeof(*out));
	int err;

	*res = NULL;
	if (!out)
		return snap_err_sys(e, -ENOMEM, NULL, "output");
	out->cols = cols;
	out->ncols = n;
	out->opts = *opts;
	/* Chosen columns are wanted side by side. */
	out->layout = layout == SNAP_OUT_RECORD && opts->columns ? SNAP_OUT_TABLE : layout;
	out->file = opts->file ? opts->file : stdout;
	out->row = calloc(n + 1, sizeof(*out->row));
	out->shown = calloc(n + 1, sizeof(*out->shown));
	err = out->row && out->shown ? choose_columns(out, e) : snap_err_sys(e, -ENOMEM, NULL, "output");
	if (err) {
		free(out->row);
		free(out->shown);
		free(out);
		return err;
	}
	out->list = list;
	*res = out;
	return 0;
}

/* What comes before the first row, as late as possible: an error before it leaves stdout empty. */
static void begin(struct snap_out *out)
{
	if (out->begun)
		return;
	out->begun = true;
	if (out->opts.json && !out->opts.lines)
		fprintf(out->file, "{\"%s\":[", out->list);
	else if (!out->opts.json && !out->opts.noheadings && out->layout == SNAP_OUT_STREAM)
		stream_headings(out);
}

/*
 * Labels come from users: no control characters on a terminal, and only UTF-8 in JSON. Every byte that is neither becomes
 * '?'. (Overlong forms and surrogates are left to jansson's own check: json_check().)
 */
static void clean(char *s)
{
	unsigned char *p = (unsigned char *)s;
	int i, more;

	while (*p) {
		more = *p >= 0xf0 && *p <= 0xf4 ? 3 : *p >= 0xe0 ? 2 : *p >= 0xc2 ? 1 : 0;
		if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && !more) || *p > 0xf4 ||
		    (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))	/* U+009B begins a terminal's command, as ESC [ does */
			goto bad;
		for (i = 1; i <= more; i++)
			if ((p[i] & 0xc0) != 0x80)
				goto bad;
		p += more + 1;
		continue;
bad:
		*p++ = '?';
	}
}

void snap_out_str(struct snap_out *out, size_t col, const char *value)
{
	struct cell *c = &out->row[col];
	json_t *probe;
	char *p;

	if (!value)
		return;
	free(c->str);
	c->str = strdup(value);
	if (!c->str) {
		out->err = -ENOMEM;
		return;
	}
	clean(c->str);
	probe = json_string(c->str);
	if (!probe)
		for (p = c->str; *p; p++)
			*p = *p & 0x80 ? '?' : *p;
	json_decref(probe);
	c->set = true;
}

void snap_out_num(struct snap_out *out, size_t col, uint64_t value)
{
	out->row[col].num = value;
	out->row[col].set = true;
}

void snap_out_uuid(struct snap_out *out, size_t col, const uint8_t uuid[16])
{
	memcpy(out->row[col].uuid, uuid, 16);
	out->row[col].set = true;
}

void snap_out_json(struct snap_out *out, const struct json_t *row)
{
	uint8_t uuid[16];

	for (size_t i = 0; i < out->ncols; i++) {
		const json_t *v = json_object_get(row, out->cols[i].key);
		enum snap_col_type type = out->cols[i].type;

		if (json_is_boolean(v) && type == SNAP_COL_BOOL)
			snap_out_num(out, i, json_is_true(v));
		else if (json_is_boolean(v) && type == SNAP_COL_STRING)
			snap_out_str(out, i, json_is_true(v) ? "yes" : NULL);
		else if (json_is_string(v) && type == SNAP_COL_UUID && !snap_parse_uuid(json_string_value(v), uuid))
			snap_out_uuid(out, i, uuid);
		else if (json_is_string(v) && type == SNAP_COL_STRING)
			snap_out_str(out, i, json_string_value(v));
		else if (json_is_integer(v) && json_integer_value(v) >= 0 && type != SNAP_COL_STRING && type != SNAP_COL_UUID)
			snap_out_num(out, i, json_integer_value(v));
	}
}

static void clear_row(struct snap_out *out)
{
	size_t i;

	for (i = 0; i < out->ncols; i++) {
		free(out->row[i].str);
		out->row[i].str = NULL;
		out->row[i].set = false;
	}
}

int snap_out_row(struct snap_out *out)
{
	int err = 0;

	begin(out);
	if (out->opts.json)
		err = row_json(out);
	else if (out->layout == SNAP_OUT_TABLE)
		err = keep_row(out);
	else if (out->layout == SNAP_OUT_STREAM)
		row_stream(out);
	else
		row_record(out);
	out->rows++;
	clear_row(out);
	/* Lines are for programs that follow. */
	if (out->opts.lines)
		fflush(out->file);
	if (!err && ferror(out->file))
		err = errno == EPIPE ? -EPIPE : -EIO;
	if (err && !out->err)
		out->err = err;
	return out->err;
}

int snap_out_json_row(json_t *row, void *out)
{
	snap_out_json(out, row);
	json_decref(row);
	return snap_out_row(out);
}

static void free_out(struct snap_out *out)
{
	size_t i;

	for (i = 0; i < out->nkept * out->nshown; i++)
		free(out->kept[i]);
	free(out->kept);
	clear_row(out);
	free(out->row);
	free(out->shown);
	free(out);
}

void snap_out_abort(struct snap_out *out)
{
	if (!out)
		return;
	fflush(out->file);
	free_out(out);
}

int snap_out_close(struct snap_out *out, struct snap_err *e)
{
	int err;

	if (!out)
		return 0;
	begin(out);
	if (out->opts.json && !out->opts.lines)
		fputs("]}\n", out->file);
	else if (!out->opts.json && out->layout == SNAP_OUT_TABLE)
		print_kept(out);
	if ((fflush(out->file) || ferror(out->file)) && !out->err)
		out->err = errno == EPIPE ? -EPIPE : -EIO;
	err = out->err;
	free_out(out);
	return err ? snap_err_sys(e, err, NULL, "cannot write the output") : 0;
}
