// SPDX-License-Identifier: GPL-2.0-or-later
/* Where our files are. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd.h"

char *agent_path(char path[PATH_MAX], const char *name)
{
	const char *dir = getenv("SNAPDIFF_STATE_DIR");

	snprintf(path, PATH_MAX, "%.3800s%s%.200s", dir && *dir ? dir : "/var/lib/snapdiff", *name ? "/" : "", name);
	return path;
}

static struct {
	bool kept;
	char *text;			/* NULL: there was none, or see err */
	size_t len;
	int err;
} config;

static char *config_path(char path[PATH_MAX])
{
	const char *dir = getenv("SNAPDIFF_CONFIG_DIR");

	snprintf(path, PATH_MAX, "%.3800s/agent.conf", dir && *dir ? dir : "/etc/snapdiff");
	return path;
}

/* Return: 0; without a file *@text is NULL */
static int read_config(char **text, size_t *len)
{
	char path[PATH_MAX];
	int fd = open(config_path(path), O_RDONLY | O_CLOEXEC);
	ssize_t n;

	*text = NULL;
	*len = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	*text = malloc(CONFIG_MAX + 1);
	n = *text ? sm_read_full(fd, *text, CONFIG_MAX + 1) : -ENOMEM;
	close(fd);
	if (n < 0) {
		free(*text);
		*text = NULL;
		return n;
	}
	*len = n;
	return 0;
}

void agent_config_keep(void)
{
	config.kept = true;
	config.err = read_config(&config.text, &config.len);
}

int agent_config(struct config *c, struct sm_err *e)
{
	char path[PATH_MAX], *text = config.text;
	size_t len = config.len;
	int err = config.kept ? config.err : read_config(&text, &len);

	config_path(path);
	if (err)
		err = sm_fail(e, err, "%s: %s", path, strerror(-err));
	else if (len > CONFIG_MAX)
		err = sm_fail(e, -EINVAL, "%s: more than %u bytes", path, CONFIG_MAX);
	else
		err = config_parse(text ? text : "", len, path, c, e);
	if (!config.kept)
		free(text);
	return err;
}
