/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a manager's restore is written. agent.conf says which paths; what is behind the path is looked at by no one but us, when the
 * restore is asked for and again when it begins:
 *
 *	a device	a block device; links are followed, as /dev/disk/by-id has them: the configuration names them. Mounted or held ones
 *			are snaprestore's to refuse, which opens them exclusively
 *	a file		in a directory that only root can change, reached by no link; it is that directory, open, which snaprestore
 *			works in. What has the name already is a file with no other name, or nothing
 */
#ifndef SNAPAGENTD_PLACE_H
#define SNAPAGENTD_PLACE_H

#include "config.h"

struct place {
	int dir;			/* of a file; -1: a device */
	char path[PATH_MAX];		/* of a device, or of a file seen from there */
};

/**
 * place_open() - may it be restored to, and what is it?
 *
 * Return: 0, place_close() is the caller's; -EACCES agent.conf does not allow it, or the directory is not safe; -ENOENT; -EINVAL something that nothing
 * is restored to; -errno.
 */
int place_open(const struct config *c, const char *path, struct place *p, struct sm_err *e);
void place_close(struct place *p);

#endif
