// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sections and keys from tables. Nothing is guessed: what is not known, said twice, out of range or in the wrong place is an
 * error with its line.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dest.h"
#include "frame.h"
#include "netlink.h"

#define LINE_MAX_BYTES	1024u
#define SECOND		1000000000ull

enum section { S_NONE, S_AGENT, S_DEST, S_VOLUME, S_RESTORE };

struct parser {
	struct config *c;
	const char *name;
	uint32_t line;
	enum section section;
	struct config_dest *dest;
	struct config_volume *volume;
	uint64_t seen;			/* keys of this section, by place in the table */
	char (*ship_names)[DEST_NAME];	/* of all ships in order: destinations may come later in the file */
	uint32_t *ship_lines, nr_ships;
	struct sm_err *e;
};

static int wrong(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int wrong(struct parser *p, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return sm_fail(p->e, -EINVAL, "%s:%u: %s", p->name, p->line, text);
}

/* ---- values ---- */

static int parse_bool(struct parser *p, const char *v, bool *out)
{
	if (strcmp(v, "yes") && strcmp(v, "no"))
		return wrong(p, "\"%s\": yes or no", v);
	*out = !strcmp(v, "yes");
	return 0;
}

static int parse_number(struct parser *p, const char *v, uint32_t min, uint32_t max, uint32_t *out)
{
	if (snap_parse_u32(v, min, max, out, NULL))
		return wrong(p, "\"%s\": a number from %u to %u", v, min, max);
	return 0;
}

/* 90s, 15m, 1h, 7d, 2w: one number, one unit */
static int parse_period(struct parser *p, const char *v, uint64_t *out)
{
	static const struct { char unit; uint32_t seconds; } units[] = {
		{ 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 }
	};
	size_t len = strlen(v);
	char digits[16];
	uint32_t n;

	for (size_t i = 0; len >= 2 && len - 1 < sizeof(digits) && i < sizeof(units) / sizeof(*units); i++)
		if (v[len - 1] == units[i].unit) {
			snprintf(digits, sizeof(digits), "%.*s", (int)len - 1, v);
			if (snap_parse_u32(digits, 1, 10 * 366 * 86400u / units[i].seconds, &n, NULL))
				break;
			*out = n * SECOND * units[i].seconds;
			return 0;
		}
	return wrong(p, "\"%s\": a period is a number with s, m, h, d or w, at most ten years", v);
}

static bool valid_dest_name(const char *v)
{
	return *v && strlen(v) < DEST_NAME &&
	       strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(v) && *v != '-' && *v != '.';
}

int config_check_address(const char *address, bool path_too, struct sm_err *e)
{
	struct sm_dest d;
	int err;

	if (strlen(address) >= DEST_ADDRESS || *address == '-' || !*address)
		return sm_fail(e, -EINVAL, "%s: not an address", address);
	if (*address == '/')
		return path_too ? 0 : sm_fail(e, -EINVAL, "%s: a path is no destination for a manager", address);
	if (strncmp(address, "ssh://", 6) && strchr(address, '/'))
		return sm_fail(e, -EINVAL, "%s: neither HOST[:PORT], nor ssh://, nor an absolute path", address);
	if (!strncmp(address, "ssh://", 6))
		return sm_dest_parse(address, &d, e);
	err = sm_split_host(address, d.host, sizeof(d.host), d.port, sizeof(d.port), "", e);
	return err;
}

void config_exact_address(const char *address, char exact[DEST_ADDRESS + 16])
{
	char host[256], port[16];

	if (strchr(address, '/') || sm_split_host(address, host, sizeof(host), port, sizeof(port), SM_DEFAULT_PORT, NULL))
		snprintf(exact, DEST_ADDRESS + 16, "%s", address);
	else
		snprintf(exact, DEST_ADDRESS + 16, "[%s]:%s", host, port);
}

/* One way to write it: what a manager says is compared byte by byte. */
static bool plain_path(const char *v)
{
	if (*v != '/' || strlen(v) >= DEST_ADDRESS || !v[1])
		return false;
	for (const char *part = v; *part; ) {
		size_t len = strcspn(++part, "/");

		if (!len || (len == 1 && *part == '.') || (len == 2 && !strncmp(part, "..", 2)))
			return false;
		part += len;
	}
	return true;
}

/* A name that nothing has to be asked about; NAME.part is what a file is called while it is written. */
static bool plain_name(const char *v)
{
	size_t len = strlen(v);

	return len && len <= 200 && strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len && *v != '-' && *v != '.' &&
	       (len < 5 || strcmp(v + len - 5, ".part"));
}

const struct config_target *config_may_restore(const struct config *c, const char *path)
{
	for (uint32_t i = 0; i < c->nr_targets; i++) {
		const struct config_target *t = &c->target[i];
		size_t len = strlen(t->path);

		if (!t->directory ? !strcmp(path, t->path) : !strncmp(path, t->path, len) && path[len] == '/' && plain_name(path + len + 1))
			return t;
	}
	return NULL;
}

/* ---- keys ---- */

static int a_jobs(struct parser *p, char *v)
{
	return parse_number(p, v, 1, 64, &p->c->max_jobs);
}

static int a_any(struct parser *p, char *v)
{
	return parse_bool(p, v, &p->c->any_destination);
}

static int d_address(struct parser *p, char *v)
{
	struct sm_err why;

	if (config_check_address(v, true, &why))
		return wrong(p, "%s", why.text);
	snprintf(p->dest->address, sizeof(p->dest->address), "%s", v);
	return 0;
}

static int d_compress(struct parser *p, char *v)
{
	uint32_t level;
	int err = parse_number(p, v, 0, 19, &level);

	p->dest->level = level;
	return err;
}

static int d_rate(struct parser *p, char *v)
{
	if (snap_parse_size(v, &p->dest->rate, NULL) || !p->dest->rate)
		return wrong(p, "\"%s\": a number of bytes, as 10M", v);
	return 0;
}

/* That it is a key, and only ours to read, is seen when a backup begins. */
static int d_key(struct parser *p, char *v)
{
	if (*v != '/' || strlen(v) >= sizeof(p->dest->key))
		return wrong(p, "\"%s\": the absolute path of a key file (snapbackup keygen)", v);
	snprintf(p->dest->key, sizeof(p->dest->key), "%s", v);
	return 0;
}

static int add_target(struct parser *p, const char *v, bool directory)
{
	struct config *c = p->c;

	if (!plain_path(v))
		return wrong(p, "\"%s\": an absolute path without \".\", \"..\" and \"//\", at most %d bytes", v, DEST_ADDRESS - 1);
	for (uint32_t i = 0; i < c->nr_targets; i++)
		if (!strcmp(c->target[i].path, v))
			return wrong(p, "\"%s\" is there already", v);
	if (c->nr_targets == MAX_TARGETS)
		return wrong(p, "more than %d targets", MAX_TARGETS);
	snprintf(c->target[c->nr_targets].path, DEST_ADDRESS, "%s", v);
	c->target[c->nr_targets++].directory = directory;
	return 0;
}

static int r_target(struct parser *p, char *v)
{
	return add_target(p, v, false);
}

/* Devices are named one by one. */
static int r_directory(struct parser *p, char *v)
{
	if (!strcmp(v, "/dev") || !strncmp(v, "/dev/", 5))
		return wrong(p, "\"%s\": a device is allowed by target = DEVICE", v);
	return add_target(p, v, true);
}

static int v_cut(struct parser *p, char *v)
{
	return parse_period(p, v, &p->volume->cut);
}

static int v_label(struct parser *p, char *v)
{
	if (strlen(v) >= sizeof(p->volume->label))
		return wrong(p, "a label has at most %zu bytes", sizeof(p->volume->label) - 1);
	snprintf(p->volume->label, sizeof(p->volume->label), "%s", v);
	return 0;
}

static int v_freeze(struct parser *p, char *v)
{
	bool yes = false;
	int err = 0;

	if (!strcmp(v, "auto"))
		p->volume->freeze = SNAP_FREEZE_AUTO;
	else if (!(err = parse_bool(p, v, &yes)))
		p->volume->freeze = yes ? SNAP_FREEZE_YES : SNAP_FREEZE_NO;
	return err;
}

/* ship = NAME [every PERIOD] */
static int v_ship(struct parser *p, char *v)
{
	struct config_volume *vol = p->volume;
	char *save, *name = strtok_r(v, " \t", &save), *word = strtok_r(NULL, " \t", &save);
	char *period = word ? strtok_r(NULL, " \t", &save) : NULL;
	struct config_ship *s;
	void *names, *lines;

	if (!name || (word && (strcmp(word, "every") || !period)) || (period && strtok_r(NULL, " \t", &save)))
		return wrong(p, "ship = DESTINATION [every PERIOD]");
	if (vol->nr_ships == MAX_SHIPS)
		return wrong(p, "more than %d destinations of one volume", MAX_SHIPS);
	if (!valid_dest_name(name))
		return wrong(p, "\"%s\": not a destination's name", name);
	for (uint32_t i = p->nr_ships - vol->nr_ships; i < p->nr_ships; i++)
		if (!strcmp(p->ship_names[i], name))
			return wrong(p, "ship: \"%s\" is there already", name);
	s = &vol->ship[vol->nr_ships];
	s->every = 0;
	if (period && parse_period(p, period, &s->every))
		return -EINVAL;
	names = realloc(p->ship_names, (p->nr_ships + 1) * sizeof(*p->ship_names));
	p->ship_names = names ? names : p->ship_names;
	lines = realloc(p->ship_lines, (p->nr_ships + 1) * sizeof(*p->ship_lines));
	p->ship_lines = lines ? lines : p->ship_lines;
	if (!names || !lines)
		return sm_fail(p->e, -ENOMEM, "no memory");
	snprintf(p->ship_names[p->nr_ships], DEST_NAME, "%s", name);
	p->ship_lines[p->nr_ships++] = p->line;
	vol->nr_ships++;
	return 0;
}

static int v_bookmark(struct parser *p, char *v)
{
	return parse_bool(p, v, &p->volume->bookmark);
}

static int v_room(struct parser *p, char *v)
{
	size_t len = strlen(v);

	if (!len || v[len - 1] != '%')
		return wrong(p, "\"%s\": a percentage, as 25%%", v);
	v[len - 1] = '\0';
	return parse_number(p, v, 0, 100, &p->volume->room);
}

#define KEEP(n, word) \
	static int v_keep_##word(struct parser *p, char *v) \
	{ \
		p->volume->has_keep = true; \
		return parse_number(p, v, 0, 1000000, &p->volume->keep.keep[n]); \
	}
KEEP(SM_KEEP_LAST, last)
KEEP(SM_KEEP_HOURLY, hourly)
KEEP(SM_KEEP_DAILY, daily)
KEEP(SM_KEEP_WEEKLY, weekly)
KEEP(SM_KEEP_MONTHLY, monthly)
KEEP(SM_KEEP_YEARLY, yearly)

static const struct {
	enum section section;
	const char *key;
	int (*fn)(struct parser *p, char *v);
	bool many;
} keys[] = {
	{ S_AGENT, "max-jobs", a_jobs, false },
	{ S_AGENT, "any-destination", a_any, false },
	{ S_DEST, "address", d_address, false },
	{ S_DEST, "compress", d_compress, false },
	{ S_DEST, "rate", d_rate, false },
	{ S_DEST, "key", d_key, false },
	{ S_VOLUME, "cut", v_cut, false },
	{ S_VOLUME, "label", v_label, false },
	{ S_VOLUME, "freeze", v_freeze, false },
	{ S_VOLUME, "ship", v_ship, true },
	{ S_VOLUME, "keep-last", v_keep_last, false },
	{ S_VOLUME, "keep-hourly", v_keep_hourly, false },
	{ S_VOLUME, "keep-daily", v_keep_daily, false },
	{ S_VOLUME, "keep-weekly", v_keep_weekly, false },
	{ S_VOLUME, "keep-monthly", v_keep_monthly, false },
	{ S_VOLUME, "keep-yearly", v_keep_yearly, false },
	{ S_VOLUME, "bookmark", v_bookmark, false },
	{ S_VOLUME, "room", v_room, false },
	{ S_RESTORE, "target", r_target, true },
	{ S_RESTORE, "directory", r_directory, true },
};
#define NR_KEYS	(sizeof(keys) / sizeof(*keys))

/* ---- sections ---- */

/* What a section must have, when it ends. */
static int end_section(struct parser *p)
{
	struct config_volume *v = p->volume;
	uint32_t total = 0;

	if (p->section == S_DEST && !*p->dest->address)
		return wrong(p, "destination \"%s\" ends here and has no address", p->dest->name);
	if (p->section == S_VOLUME && v->has_keep) {
		for (int i = 0; i < SM_NR_RULES; i++)
			total += v->keep.keep[i] != 0;
		if (!total)
			return wrong(p, "volume \"%s\" ends here and its rules keep nothing", v->name);
	}
	p->section = S_NONE;
	return 0;
}

static int begin_dest(struct parser *p, const char *name)
{
	struct config *c = p->c;

	if (!valid_dest_name(name))
		return wrong(p, "\"%s\": not a destination's name (letters, digits, dot, dash, underscore)", name);
	if (config_find_dest(c, name))
		return wrong(p, "destination \"%s\" is there already", name);
	if (c->nr_dests == MAX_DESTS)
		return wrong(p, "more than %d destinations", MAX_DESTS);
	p->dest = &c->dest[c->nr_dests++];
	memset(p->dest, 0, sizeof(*p->dest));
	p->dest->level = -1;
	snprintf(p->dest->name, sizeof(p->dest->name), "%s", name);
	p->section = S_DEST;
	return 0;
}

static int begin_volume(struct parser *p, const char *name)
{
	struct config *c = p->c;
	struct config_volume *v;

	if (snap_check_volume_name(name, NULL))
		return wrong(p, "\"%s\": not a volume's name", name);
	for (uint32_t i = 0; i < c->nr_volumes; i++)
		if (!strcmp(c->volume[i].name, name))
			return wrong(p, "volume \"%s\" is there already", name);
	v = realloc(c->volume, (c->nr_volumes + 1) * sizeof(*v));
	if (!v)
		return sm_fail(p->e, -ENOMEM, "no memory");
	c->volume = v;
	v = p->volume = &c->volume[c->nr_volumes++];
	memset(v, 0, sizeof(*v));
	snprintf(v->name, sizeof(v->name), "%s", name);
	snprintf(v->label, sizeof(v->label), "scheduled");
	v->freeze = SNAP_FREEZE_AUTO;
	v->bookmark = true;
	v->room = 25;
	p->section = S_VOLUME;
	return 0;
}

/* [agent], [restore], [destination NAME], [volume NAME] */
static int begin_section(struct parser *p, char *line)
{
	size_t len = strlen(line);
	char *save, *kind, *name;
	int err = end_section(p);

	if (err)
		return err;
	if (line[len - 1] != ']')
		return wrong(p, "a section is [agent], [restore], [destination NAME] or [volume NAME]");
	line[len - 1] = '\0';
	kind = strtok_r(line + 1, " \t", &save);
	name = kind ? strtok_r(NULL, " \t", &save) : NULL;
	if (name && strtok_r(NULL, " \t", &save))
		kind = NULL;
	p->seen = 0;
	if (kind && name && !strcmp(kind, "destination"))
		return begin_dest(p, name);
	if (kind && name && !strcmp(kind, "volume"))
		return begin_volume(p, name);
	if (!kind || name || (strcmp(kind, "agent") && strcmp(kind, "restore")))
		return wrong(p, "a section is [agent], [restore], [destination NAME] or [volume NAME]");
	p->section = strcmp(kind, "agent") ? S_RESTORE : S_AGENT;
	return 0;
}

static char *trim(char *s)
{
	size_t len;

	s += strspn(s, " \t");
	len = strlen(s);
	while (len && (s[len - 1] == ' ' || s[len - 1] == '\t' || s[len - 1] == '\r'))
		s[--len] = '\0';
	return s;
}

static int take_key(struct parser *p, char *line)
{
	char *eq = strchr(line, '='), *key, *value;
	size_t i;

	if (!eq)
		return wrong(p, "neither a section nor KEY = VALUE");
	*eq = '\0';
	key = trim(line);
	value = trim(eq + 1);
	if (p->section == S_NONE)
		return wrong(p, "\"%s\" stands in no section", key);
	for (i = 0; i < NR_KEYS; i++)
		if (keys[i].section == p->section && !strcmp(keys[i].key, key))
			break;
	if (i == NR_KEYS)
		return wrong(p, "\"%s\": no such key in this section", key);
	if (p->seen & 1ull << i && !keys[i].many)
		return wrong(p, "\"%s\" is there already", key);
	p->seen |= 1ull << i;
	if (!*value)
		return wrong(p, "\"%s\" has no value", key);
	return keys[i].fn(p, value);
}

static int take_line(struct parser *p, const char *text, size_t len)
{
	char line[LINE_MAX_BYTES], *s;

	if (len >= sizeof(line))
		return wrong(p, "a line of more than %zu bytes", sizeof(line) - 1);
	if (memchr(text, '\0', len))
		return wrong(p, "a NUL byte");
	memcpy(line, text, len);
	line[len] = '\0';
	s = trim(line);
	for (const char *q = s; *q; q++)
		if (((unsigned char)*q < 0x20 && *q != '\t') || *q == 0x7f)
			return wrong(p, "a control character");
	if (!*s || *s == '#')
		return 0;
	return *s == '[' ? begin_section(p, s) : take_key(p, s);
}

/* Names of destinations become their places, when all of them are known. */
static int resolve(struct parser *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->c->nr_volumes; i++)
		for (uint32_t j = 0; j < p->c->volume[i].nr_ships; j++, n++) {
			const struct config_dest *d = config_find_dest(p->c, p->ship_names[n]);

			p->line = p->ship_lines[n];
			if (!d)
				return wrong(p, "ship: there is no destination \"%s\"", p->ship_names[n]);
			p->c->volume[i].ship[j].dest = d - p->c->dest;
		}
	return 0;
}

int config_parse(const char *text, size_t len, const char *name, struct config *c, struct sm_err *e)
{
	struct parser p = { .c = c, .name = name, .e = e };
	const char *end = text + len;
	int err = 0;

	memset(c, 0, sizeof(*c));
	c->max_jobs = 4;
	while (!err && text < end) {
		const char *nl = memchr(text, '\n', end - text);
		const char *stop = nl ? nl : end;

		p.line++;
		err = take_line(&p, text, stop - text);
		text = nl ? nl + 1 : end;
	}
	if (!err)
		err = end_section(&p);
	if (!err)
		err = resolve(&p);
	free(p.ship_names);
	free(p.ship_lines);
	if (err)
		config_free(c);
	return err;
}

void config_free(struct config *c)
{
	free(c->volume);
	c->volume = NULL;
	c->nr_volumes = 0;
}

const struct config_dest *config_find_dest(const struct config *c, const char *name)
{
	for (uint32_t i = 0; i < c->nr_dests; i++)
		if (!strcmp(c->dest[i].name, name))
			return &c->dest[i];
	return NULL;
}
