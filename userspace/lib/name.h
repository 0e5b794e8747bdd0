/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names and numbers that users type and read: NAME@N, NAME@A..B, 4k, 64M, times.
 */
#ifndef SNAP_LIB_NAME_H
#define SNAP_LIB_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/snapdiff.h>

#include "error.h"

#define SNAP_VOLUME_BUF		(SNAPDIFF_NAME_MAX + 1)
#define SNAP_LABEL_BUF		(SNAPDIFF_LABEL_MAX + 1)
#define SNAP_UUID_TEXT		37		/* 36 characters and the zero */

/* A volume, one of its generations or a range of them. */
struct snap_ref {
	char volume[SNAP_VOLUME_BUF];
	uint32_t first;			/* 0: no generation given */
	uint32_t last;			/* = first when it is not a range */
	bool range;			/* A..B was written, even with A = B */
};

enum snap_ref_form {			/* what a caller accepts, a mask */
	SNAP_REF_VOLUME = 1,
	SNAP_REF_GEN = 2,
	SNAP_REF_RANGE = 4,
};

/**
 * snap_parse_ref() - parse NAME, NAME@N or NAME@A..B
 * @text: what the user typed
 * @forms: mask of enum snap_ref_form that are acceptable here
 * @ref: result
 *
 * Generation numbers are decimal, 1 to 2^32-1; A must not be above B.
 *
 * Return: 0 or -EINVAL with @e naming @text and what was expected.
 */
int snap_parse_ref(const char *text, unsigned int forms, struct snap_ref *ref, struct snap_err *e);

/**
 * snap_check_volume_name() - may a volume have this name?
 *
 * Letters, digits and #+-.:=_ ; not empty, at most SNAPDIFF_NAME_MAX, not beginning with '-' or '.'.
 * ('@' separates the generation, '/' would be a path.)
 *
 * Return: 0 or -EINVAL.
 */
int snap_check_volume_name(const char *name, struct snap_err *e);

/**
 * snap_parse_size() - parse a number of bytes: 4096, 4k, 64M, 1GiB, 2T (powers of 1024)
 *
 * Return: 0, -EINVAL or -ERANGE.
 */
int snap_parse_size(const char *text, uint64_t *bytes, struct snap_err *e);

/** snap_parse_u32() - parse a decimal number between @min and @max. Return: 0, -EINVAL or -ERANGE. */
int snap_parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *value, struct snap_err *e);

/** snap_format_size() - "512", "4.0K", "1.5G"; returns @buf. 16 bytes are enough. */
char *snap_format_size(char *buf, size_t len, uint64_t bytes);

/** snap_format_time() - local time "2026-11-22 16:55:13" of nanoseconds since the epoch; returns @buf. */
char *snap_format_time(char *buf, size_t len, uint64_t ns);

/** snap_format_time_iso() - RFC 3339 in UTC with nanoseconds, for JSON; returns @buf (32 bytes are enough). */
char *snap_format_time_iso(char *buf, size_t len, uint64_t ns);

/** snap_format_uuid() - lower case with dashes; returns @buf. */
char *snap_format_uuid(char buf[SNAP_UUID_TEXT], const uint8_t uuid[16]);

/** snap_parse_uuid() - with or without dashes, any case. Return: 0 or -EINVAL. */
int snap_parse_uuid(const char *text, uint8_t uuid[16]);

#endif
