/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that handles what strangers send gives up what it does not need for that, before it reads the first byte:
 *
 *	capabilities, the gaining of privileges	all
 *	files (Landlock)			all but the directories named
 *	system calls (seccomp)			all but a list; what only an intruder would call ends the process
 *	core dumps, unbounded memory		(rlimits)
 *
 * None of it can be taken back.
 */
#ifndef SNAPMEDIA_CONFINE_H
#define SNAPMEDIA_CONFINE_H

#include "util.h"

struct sm_allowed {
	const char *path;	/* a directory; one that is not there is left out */
	bool write;		/* or only read */
};

/* sm_landlock() - version of the kernel's Landlock that can be used here; 0: none, files stay as they are */
int sm_landlock(void);
/* sm_seccomp() - does the kernel have filters of system calls? */
bool sm_seccomp(void);

/**
 * sm_confine() - confine the calling process
 * @allowed: what of the file system it needs, @nr
 *
 * Single-threaded callers only. Open descriptors stay usable. A kernel without Landlock or seccomp is no error (sm_landlock(), sm_seccomp() tell; say it in
 * the log), anything else that cannot be had is.
 *
 * Return: 0, -errno: the process may be half confined and must end.
 */
int sm_confine(const struct sm_allowed *allowed, unsigned int nr, struct sm_err *e);

/* sm_confine_netlink() - the same, but for CAP_SYS_ADMIN and generic netlink: of a process that orders things of the module */
int sm_confine_netlink(const struct sm_allowed *allowed, unsigned int nr, struct sm_err *e);

/**
 * sm_become() - give up root
 * @user: to become; NULL: the owner of @path
 * @path: must belong to the user
 *
 * Does nothing without root, or when the user is root. Return: 0, -ENOENT no such user, -EACCES @path is another's, -errno.
 */
int sm_become(const char *user, const char *path, struct sm_err *e);

#endif
