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

int agent_config(struct config *c, struct sm_err *e)
{
	const char *dir = getenv("SNAPDIFF_CONFIG_DIR");
	char path[PATH_MAX], *text;
	int fd, err;
	ssize_t n;

	snprintf(path, sizeof(path), "%.3800s/agent.conf", dir && *dir ? dir : "/etc/snapdiff");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return config_parse("", 0, path, c, e);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	text = malloc(CONFIG_MAX + 1);
	n = text ? sm_read_full(fd, text, CONFIG_MAX + 1) : -ENOMEM;
	close(fd);
	if (n < 0)
		err = sm_fail(e, n, "%s: %s", path, strerror(-n));
	else if (n > CONFIG_MAX)
		err = sm_fail(e, -EINVAL, "%s: more than %u bytes", path, CONFIG_MAX);
	else
		err = config_parse(text, n, path, c, e);
	free(text);
	return err;
}
