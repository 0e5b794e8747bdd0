// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Errors: text for people, exit codes for scripts.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static const char *prog_name;

void snap_set_prog(const char *prog)
{
	prog_name = prog;
}

const char *snap_prog(void)
{
	return prog_name ? prog_name : program_invocation_short_name;
}

int snap_err_set(struct snap_err *e, int err, const char *object, const char *fmt, ...)
{
	struct snap_err tmp;
	va_list ap;

	if (!e)
		return err;
	/* The arguments may point into *e: build the new one beside it. */
	tmp.err = err;
	snprintf(tmp.object, sizeof(tmp.object), "%s", object ? object : "");
	va_start(ap, fmt);
	vsnprintf(tmp.text, sizeof(tmp.text), fmt, ap);
	va_end(ap);
	*e = tmp;
	return err;
}

int snap_err_sys(struct snap_err *e, int err, const char *object, const char *what)
{
	return snap_err_set(e, err, object, "%s: %s", what, strerror(-err));
}

int snap_err_exit(int err)
{
	switch (-err) {
	case 0:
		return SNAP_EXIT_OK;
	case EINVAL:
	case ERANGE:
	case E2BIG:
	case ENAMETOOLONG:
		return SNAP_EXIT_USAGE;
	case EPERM:
	case EACCES:
		return SNAP_EXIT_PERM;
	case ENOMEM:
		return SNAP_EXIT_NOMEM;
	case ENOENT:
	case ENODEV:
	case ENXIO:
	case ENODATA:
	case ENOTBLK:
	case ENOTDIR:
	case EMEDIUMTYPE:
		return SNAP_EXIT_NOTFOUND;
	case EBUSY:
	case EEXIST:
	case ETXTBSY:
	case ENOTEMPTY:
		return SNAP_EXIT_BUSY;
	default:
		return SNAP_EXIT_IO;
	}
}

int snap_err_report(const struct snap_err *e)
{
	const char *text = e->text[0] ? e->text : strerror(-e->err);

	if (e->object[0])
		fprintf(stderr, "%s: %s: %s\n", snap_prog(), e->object, text);
	else
		fprintf(stderr, "%s: %s\n", snap_prog(), text);
	return snap_err_exit(e->err);
}

int snap_report(int err, const char *text)
{
	struct snap_err e;

	if (!err)
		return SNAP_EXIT_OK;
	snap_err_set(&e, err, NULL, "%s", text);
	return snap_err_report(&e);
}

void snap_warn(const char *object, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", snap_prog());
	if (object && *object)
		fprintf(stderr, "%s: ", object);
	fputs("warning: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int snap_usage_error(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", snap_prog());
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry '%s --help'.\n", snap_prog());
	return SNAP_EXIT_USAGE;
}
