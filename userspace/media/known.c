// SPDX-License-Identifier: GPL-2.0-or-later
#include "known.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"

#define KNOWN_MAX	(1u << 20)

static void config_path(char path[PATH_MAX], const char *name)
{
	const char *dir = getenv("SNAPDIFF_CONFIG_DIR");

	snprintf(path, PATH_MAX, "%s%s%s", dir && *dir ? dir : "/etc/snapdiff", *name ? "/" : "", name);
}

int sm_known_key(bool make, struct sm_key **k, struct sm_err *e)
{
	char path[PATH_MAX];
	int err;

	if (make) {
		config_path(path, "");
		err = sm_mkdir_durable(path, e);
		if (err)
			return err;
	}
	config_path(path, "client.key");
	err = sm_key_load(path, k, e);
	if (err != -ENOENT || !make)
		return err;
	err = sm_key_create(path, e);
	return err ? err : sm_key_load(path, k, e);
}

/* All of the file, "" when there is none; the caller frees it. */
static int load(const char *path, char **text, struct sm_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	if (fd < 0 && errno != ENOENT)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	*text = malloc(KNOWN_MAX + 1);
	if (*text && fd >= 0)
		n = sm_read_full(fd, *text, KNOWN_MAX);
	if (fd >= 0)
		close(fd);
	if (!*text || n < 0) {
		free(*text);
		return sm_fail(e, n < 0 ? n : -ENOMEM, "%s: cannot read", path);
	}
	(*text)[n] = '\0';
	return 0;
}

/* One line: is it of this server? 1 yes, 0 no, -EUCLEAN. */
static int match(const char *line, size_t len, const char *host, const char *port, uint8_t pin[SM_DIGEST])
{
	char copy[512], h[256], p[16], text[128];

	if (!len || *line == '#')
		return 0;
	snprintf(copy, sizeof(copy), "%.*s", (int)len, line);
	if (len >= sizeof(copy) || sscanf(copy, "%255s %15s %127s", h, p, text) != 3 || sm_pin_parse(text, pin))
		return -EUCLEAN;
	return !strcasecmp(h, host) && !strcmp(p, port);
}

int sm_known_pin(const char *host, const char *port, uint8_t pin[SM_DIGEST], struct sm_err *e)
{
	char path[PATH_MAX], *text;
	int r = 0, err;

	config_path(path, "known_servers");
	err = load(path, &text, e);
	if (err)
		return err;
	for (char *line = text, *end; !r && *line; line = *end ? end + 1 : end) {
		end = strchrnul(line, '\n');
		r = match(line, end - line, host, port, pin);
	}
	free(text);
	if (r < 0)
		return sm_fail(e, r, "%s: has a line that is not \"HOST PORT sha256:HEX\"", path);
	return r ? 0 : sm_fail(e, -ENOENT, "%s port %s: its pin is not known", host, port);
}

/* The other lines as they were, and the new one. */
static int write_new(FILE *f, const char *text, const char *host, const char *port, const uint8_t pin[SM_DIGEST])
{
	char hex[SM_PIN_TEXT];
	uint8_t other[SM_DIGEST];

	for (const char *line = text, *end; *line; line = *end ? end + 1 : end) {
		end = strchrnul(line, '\n');
		if (match(line, end - line, host, port, other) != 1)
			fprintf(f, "%.*s\n", (int)(end - line), line);
	}
	sm_pin_format(pin, hex);
	fprintf(f, "%s %s %s\n", host, port, hex);
	return fflush(f) || ferror(f) || fsync(fileno(f)) ? -EIO : 0;
}

int sm_known_add(const char *host, const char *port, const uint8_t pin[SM_DIGEST], struct sm_err *e)
{
	char path[PATH_MAX], tmp[PATH_MAX + 8], dir[PATH_MAX], *text;
	int err, fd;
	FILE *f;

	config_path(path, "known_servers");
	config_path(dir, "");
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	err = load(path, &text, e);
	if (err)
		return err;
	fd = open(tmp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	err = f ? write_new(f, text, host, port, pin) : -errno;
	if (f)
		fclose(f);
	free(text);
	if (!err && rename(tmp, path))
		err = -errno;
	return err ? sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err)) : sm_fsync_dir(dir, e);
}
