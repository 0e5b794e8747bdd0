/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tables for people and JSON for programs from one description.
 *
 * A program describes its columns once, then sets cells and ends rows. Three layouts of text:
 *
 *	SNAP_OUT_TABLE	widths fitted to the content: rows are kept until the end
 *	SNAP_OUT_STREAM	fixed widths, each row is written at once: millions of rows in no memory
 *	SNAP_OUT_RECORD	"name: value" lines, a block for each row (one row or few)
 *
 * JSON is {"LIST":[{"key":value,...},...]}, always streamed: sizes are numbers of bytes, times are RFC 3339 in UTC,
 * an unset cell is null. With SNAP_OUT_LINES it is one object a line and no list around them.
 */
#ifndef SNAP_LIB_OUTPUT_H
#define SNAP_LIB_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

enum snap_col_type {
	SNAP_COL_STRING,
	SNAP_COL_NUMBER,
	SNAP_COL_SIZE,			/* bytes: 1.5G in text unless --bytes */
	SNAP_COL_TIME,			/* ns since the epoch */
	SNAP_COL_UUID,
	SNAP_COL_BOOL,			/* yes/no; true/false in JSON */
	SNAP_COL_PERCENT,		/* hundredths of a percent; a number with fraction in JSON */
};

#define SNAP_COL_HIDDEN	(1U << 0)	/* not in text unless -o names it (JSON without -o has all) */
#define SNAP_COL_WRAP	(1U << 1)	/* last column: no padding */

struct snap_col {
	const char *key;		/* JSON name and -o name */
	const char *head;		/* heading in text */
	enum snap_col_type type;
	unsigned int flags;
	int width;			/* SNAP_OUT_STREAM: fixed width, 0: 12 */
};

enum snap_out_layout { SNAP_OUT_TABLE, SNAP_OUT_STREAM, SNAP_OUT_RECORD };

struct snap_out_opts {
	bool json;
	bool lines;			/* JSON: an object a line */
	bool raw;			/* JSON: times and percents as numbers, for snap_out_json() */
	bool bytes;
	bool noheadings;
	const char *columns;		/* "a,b" replaces, "+a,b" adds to the default; NULL: default */
	FILE *file;			/* NULL: stdout */
};

struct snap_out;

/**
 * snap_out_open() - begin a table
 * @list: JSON name of the list
 * @cols: @n columns, must live until snap_out_close()
 *
 * Return: 0; -EINVAL when opts->columns has an unknown name (the known ones are in @e); -ENOMEM.
 */
int snap_out_open(struct snap_out **out, const char *list, enum snap_out_layout layout,
		  const struct snap_col *cols, size_t n, const struct snap_out_opts *opts,
		  struct snap_err *e);

/* Set a cell of the row under way, by index into the description; one that is not set prints as "-". */
void snap_out_str(struct snap_out *out, size_t col, const char *value);	/* NULL leaves it unset */
void snap_out_num(struct snap_out *out, size_t col, uint64_t value);	/* all types but STRING, UUID */
void snap_out_uuid(struct snap_out *out, size_t col, const uint8_t uuid[16]);

/** snap_out_json() - set the cells that @row has members for, a JSON object from anywhere: what has not the column's type is not there. */
struct json_t;
void snap_out_json(struct snap_out *out, const struct json_t *row);

/**
 * snap_out_json_row() - a row of an answer, printed
 * @row: reference taken
 * @out: struct snap_out
 *
 * Return: as snap_out_row().
 */
int snap_out_json_row(struct json_t *row, void *out);

/** snap_out_row() - end the row. Return: 0, -ENOMEM, -EPIPE and the like when output fails. */
int snap_out_row(struct snap_out *out);

/** snap_out_close() - print what was kept, flush, free. Return: 0 or the first error of the whole table. */
int snap_out_close(struct snap_out *out, struct snap_err *e);

/**
 * snap_out_abort() - free without an end, after an error of the caller
 *
 * Nothing at all is printed when there was no row yet; JSON that was begun stays unfinished, so that nobody takes
 * a part for the whole.
 */
void snap_out_abort(struct snap_out *out);

#endif
