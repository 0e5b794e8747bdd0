// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Names, sizes, times and uuids: text to values and back.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "name.h"

#define NSEC_PER_SEC	1000000000ULL

/*
 * A decimal number at @p without sign, blanks or leading '+', at most @max.
 * Return: behind its last digit, NULL when there is none or it is too large.
 */
static const char *decimal(const char *p, uint64_t max, uint64_t *value)
{
	uint64_t v = 0;

	if (!isdigit((unsigned char)*p))
		return NULL;
	for (; isdigit((unsigned char)*p); p++) {
		unsigned int digit = *p - '0';

		if (v > (max - digit) / 10)
			return NULL;
		v = v * 10 + digit;
	}
	*value = v;
	return p;
}

int snap_check_volume_name(const char *name, struct snap_err *e)
{
	size_t len = strlen(name);
	const char *p;

	if (!len)
		return snap_err_set(e, -EINVAL, NULL, "empty volume name");
	if (len > SNAPDIFF_NAME_MAX)
		return snap_err_set(e, -EINVAL, name, "not a volume name: longer than %d characters",
				    SNAPDIFF_NAME_MAX);
	if (*name == '-' || *name == '.')
		return snap_err_set(e, -EINVAL, name, "not a volume name: begins with '%c'", *name);
	for (p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("#+-.:=_", *p))
			return snap_err_set(e, -EINVAL, name,
					    "not a volume name: only letters, digits and #+-.:=_ may be used");
	return 0;
}

static int wrong_form(const char *text, unsigned int forms, struct snap_err *e)
{
	char want[64] = "";

	if (forms & SNAP_REF_VOLUME)
		strcat(want, "NAME");
	if (forms & SNAP_REF_GEN)
		strcat(want, *want ? " or NAME@N" : "NAME@N");
	if (forms & SNAP_REF_RANGE)
		strcat(want, *want ? " or NAME@A..B" : "NAME@A..B");
	return snap_err_set(e, -EINVAL, text, "%s expected", want);
}

/* "N" or "A..B" behind the '@'. */
static int parse_gens(const char *p, struct snap_ref *ref)
{
	uint64_t a, b;

	p = decimal(p, UINT32_MAX, &a);
	if (!p || !a)
		return -EINVAL;
	b = a;
	if (!strncmp(p, "..", 2)) {
		p = decimal(p + 2, UINT32_MAX, &b);
		ref->range = true;
	}
	if (!p || *p || b < a)
		return -EINVAL;
	ref->first = a;
	ref->last = b;
	return 0;
}

int snap_parse_ref(const char *text, unsigned int forms, struct snap_ref *ref, struct snap_err *e)
{
	const char *at = strrchr(text, '@');
	size_t len = at ? (size_t)(at - text) : strlen(text);
	int err;

	memset(ref, 0, sizeof(*ref));
	if (!len || len > SNAPDIFF_NAME_MAX)
		return wrong_form(text, forms, e);
	memcpy(ref->volume, text, len);
	err = snap_check_volume_name(ref->volume, e);
	if (err)
		return err;
	if (!at)
		return forms & SNAP_REF_VOLUME ? 0 : wrong_form(text, forms, e);
	if (parse_gens(at + 1, ref))
		return wrong_form(text, forms, e);
	if (!(forms & (ref->range ? SNAP_REF_RANGE : SNAP_REF_GEN)))
		return wrong_form(text, forms, e);
	return 0;
}

/* Power of 1024 of "k", "K", "KiB", "m" ...; -1 when it is none. */
static int unit_shift(const char *p)
{
	static const char units[] = "kmgtpe";
	const char *u;

	if (!*p || !strcmp(p, "B"))
		return 0;
	u = strchr(units, tolower((unsigned char)*p));
	if (!u || !*u)
		return -1;
	if (p[1] && strcmp(p + 1, "iB") && strcmp(p + 1, "B"))
		return -1;
	return 10 * (int)(u - units + 1);
}

int snap_parse_size(const char *text, uint64_t *bytes, struct snap_err *e)
{
	const char *p;
	uint64_t v;
	int shift;

	p = decimal(text, UINT64_MAX, &v);
	shift = p ? unit_shift(p) : -1;
	if (shift < 0)
		return snap_err_set(e, -EINVAL, text, "not a size: bytes, or a number with k, M, G or T expected");
	if (shift && v > UINT64_MAX >> shift)
		return snap_err_set(e, -ERANGE, text, "too large a size");
	*bytes = v << shift;
	return 0;
}

int snap_parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *value, struct snap_err *e)
{
	const char *p;
	uint64_t v;

	p = decimal(text, UINT32_MAX, &v);
	if (!p || *p)
		return snap_err_set(e, -EINVAL, text, "not a number");
	if (v < min || v > max)
		return snap_err_set(e, -ERANGE, text, "out of range: between %u and %u expected", min, max);
	*value = v;
	return 0;
}

char *snap_format_size(char *buf, size_t len, uint64_t bytes)
{
	static const char units[] = "BKMGTPE";
	unsigned int u = 0;
	double v = bytes;

	while (v >= 1024 && u < 6) {
		v /= 1024;
		u++;
	}
	if (!u)
		snprintf(buf, len, "%" PRIu64 "B", bytes);
	else if (v < 99.95)
		snprintf(buf, len, "%.1f%c", v, units[u]);
	else
		snprintf(buf, len, "%.0f%c", v, units[u]);
	return buf;
}

char *snap_format_time(char *buf, size_t len, uint64_t ns)
{
	time_t t = ns / NSEC_PER_SEC;
	struct tm tm;

	if (!localtime_r(&t, &tm) || !strftime(buf, len, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(buf, len, "?");
	return buf;
}

char *snap_format_time_iso(char *buf, size_t len, uint64_t ns)
{
	time_t t = ns / NSEC_PER_SEC;
	char date[32];
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm))
		snprintf(date, sizeof(date), "?");
	snprintf(buf, len, "%s.%09uZ", date, (unsigned int)(ns % NSEC_PER_SEC));
	return buf;
}

char *snap_format_uuid(char buf[SNAP_UUID_TEXT], const uint8_t uuid[16])
{
	char *p = buf;
	int i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", uuid[i]);
	}
	return buf;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int snap_parse_uuid(const char *text, uint8_t uuid[16])
{
	const char *p = text;
	int i, hi, lo;

	for (i = 0; i < 16; i++) {
		if (*p == '-' && (i == 4 || i == 6 || i == 8 || i == 10))
			p++;
		hi = hex_value(p[0]);
		if (hi < 0)
			return -EINVAL;
		lo = hex_value(p[1]);
		if (lo < 0)
			return -EINVAL;
		uuid[i] = hi << 4 | lo;
		p += 2;
	}
	return *p ? -EINVAL : 0;
}
