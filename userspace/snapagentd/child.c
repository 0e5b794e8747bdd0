// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line of a job. Every word of it that somebody else has said is behind "--NAME=", so that it cannot be taken for an
 * option.
 */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGS	24

struct words {
	char *v[MAX_ARGS];
	int n;
};

static void add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct words *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (w->n == MAX_ARGS - 1 || vasprintf(&w->v[w->n++], fmt, ap) < 0)
		_exit(127);
	va_end(ap);
}

static void backup_words(struct words *w, const struct job *j, const struct config_dest *d, const char *address)
{
	add(w, "--dest=%s", address);
	if (*j->base)
		add(w, "--base=%s", j->base);
	if (d->level >= 0)
		add(w, "--compress=%d", d->level);
	if (d->rate)
		add(w, "--rate=%llu", (unsigned long long)d->rate);
	if (*d->key)
		add(w, "--encrypt=%s", d->key);
	if (j->keep_bookmark)
		add(w, "--keep=bookmark");
	add(w, "--");
	add(w, "%s", j->volume);
}

static void restore_words(struct words *w, const struct job *j, const struct config_dest *d, const char *address, const struct place *place)
{
	add(w, "--from=%s", address);
	add(w, "--volume=%s", j->volume);
	add(w, "--to=%s", place->path);
	if (*j->ranges)
		add(w, "--range=%s", j->ranges);
	if (*j->manifest)
		add(w, "--manifest=%s", j->manifest);
	if (*d->key)
		add(w, "--key=%s", d->key);
	if (j->diff)
		add(w, "--diff-against-live");
	if (j->force)
		add(w, "--force");
}

const char *child_program(const struct job *j)
{
	return j->kind == JOB_RESTORE ? "snaprestore" : "snapbackup";
}

/* The programs stand beside us; installed or in a build directory. */
static void program_path(const char *program, char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 16);
	char *slash;

	path[n > 0 ? n : 0] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, program);
	if (access(path, X_OK))
		strcpy(path, program);
}

void child_exec(const struct job *j, const struct config_dest *d, const struct place *place, int out, int err)
{
	char path[PATH_MAX], exact[DEST_ADDRESS + 16];
	int null = open("/dev/null", O_RDONLY);
	struct words w = { .n = 0 };
	sigset_t none;

	config_exact_address(d->address, exact);
	add(&w, "%s", child_program(j));
	add(&w, "--json");
	add(&w, "--progress-json");
	add(&w, "--gen=%u", j->generation);
	if (j->kind == JOB_RESTORE)
		restore_words(&w, j, d, exact, place);
	else
		backup_words(&w, j, d, exact);
	if (j->kind == JOB_RESTORE && place->dir >= 0 && fchdir(place->dir))
		_exit(127);
	dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	close_range(3, ~0u, 0);
	for (int i = 1; i < 32; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	program_path(child_program(j), path);
	execvp(path, w.v);
	fprintf(stderr, "%s: cannot be started: %s\n", child_program(j), strerror(errno));
	_exit(127);
}
