/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors as users and scripts see them.
 *
 * A function that can fail returns 0 or a negative errno and, where the reason needs words, fills a
 * struct snap_err with the object and the text. Only main programs print:
 *
 *	PROG: OBJECT: what: why
 *
 * and turn the errno into one of the documented exit codes. A struct snap_err pointer may be NULL
 * everywhere: the caller then only wants the errno.
 */
#ifndef SNAP_LIB_ERROR_H
#define SNAP_LIB_ERROR_H

#include <stdarg.h>

enum snap_exit {
	SNAP_EXIT_OK = 0,
	SNAP_EXIT_USAGE = 1,		/* wrong options, arguments, names, numbers */
	SNAP_EXIT_PERM = 2,		/* not allowed */
	SNAP_EXIT_NOMEM = 3,
	SNAP_EXIT_NOTFOUND = 4,		/* no such device, volume, generation; or the wrong one */
	SNAP_EXIT_BUSY = 5,		/* in use, or exists already */
	SNAP_EXIT_IO = 6,		/* input/output error and every other failure */
};

struct snap_err {
	int err;			/* negative errno, 0: nothing happened */
	char object[256];		/* may be empty */
	char text[768];
};

#define SNAP_ERR_INIT { 0, "", "" }

/**
 * snap_err_set() - note an error
 * @e: where to, may be NULL
 * @err: negative errno; decides the exit code
 * @object: device, volume, file ... the error is about; NULL or "" for none
 * @fmt: what went wrong and why, no final newline or dot
 *
 * Overwrites what @e held. @object and the arguments may point into @e.
 *
 * Return: @err, so that callers can write "return snap_err_set(...)".
 */
int snap_err_set(struct snap_err *e, int err, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/**
 * snap_err_sys() - note a failed system call
 * @what: what was tried, e.g. "cannot open"
 *
 * Text is "@what: strerror(-@err)".
 *
 * Return: @err.
 */
int snap_err_sys(struct snap_err *e, int err, const char *object, const char *what);

/** snap_err_exit() - exit code (enum snap_exit) for a negative errno, 0 for 0. */
int snap_err_exit(int err);

/**
 * snap_err_report() - print "PROG: OBJECT: text" on stderr
 *
 * An empty text is replaced with strerror().
 *
 * Return: the exit code for @e->err.
 */
int snap_err_report(const struct snap_err *e);

/** snap_report() - print "PROG: @text" when @err, a negative errno, is not 0. Return: the exit code for it. */
int snap_report(int err, const char *text);

/** snap_set_prog() - name before messages; default is program_invocation_short_name. */
void snap_set_prog(const char *prog);
const char *snap_prog(void);

/** snap_warn() - print "PROG: OBJECT: warning: text" on stderr; @object may be NULL. */
void snap_warn(const char *object, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** snap_usage_error() - print "PROG: text" and a hint at --help on stderr. Return: SNAP_EXIT_USAGE. */
int snap_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
