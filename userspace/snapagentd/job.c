// SPDX-License-Identifier: GPL-2.0-or-later
#include "job.h"
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILE_MAX	(256u << 10)
#define KEEP_ENDED	200u

static const char *const state_names[] = {
	[JOB_NEW] = "new", [JOB_RUNNING] = "running", [JOB_DONE] = "done", [JOB_FAILED] = "failed", [JOB_CANCELLED] = "cancelled",
	[JOB_INTERRUPTED] = "interrupted",
};
#define NR_STATES	(sizeof(state_names) / sizeof(*state_names))

const char *job_state_name(enum job_state s)
{
	return state_names[s];
}

static const char *const kind_names[] = { [JOB_BACKUP] = "backup", [JOB_RESTORE] = "restore" };

const char *job_kind_name(enum job_kind k)
{
	return kind_names[k];
}

/* ---- files ---- */

char *job_file(char path[PATH_MAX], uint32_t id, const char *name)
{
	char part[64];

	snprintf(part, sizeof(part), "jobs/%u%s%s", id, *name ? "/" : "", name);
	return agent_path(path, part);
}

int put_file(const char *dir, const char *name, json_t *o, bool durable, struct sm_err *e)
{
	char path[PATH_MAX], tmp[PATH_MAX + 8], *text = o ? sm_json_canonical(o) : NULL;
	int fd, err = text ? 0 : -ENOMEM;

	json_decref(o);
	snprintf(path, sizeof(path), "%.3800s/%.200s", dir, name);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	fd = err ? -1 : open(tmp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (!err && fd < 0)
		err = -errno;
	if (!err)
		err = sm_write_full(fd, text, strlen(text));
	if (!err && durable && fsync(fd))
		err = -errno;
	if (fd >= 0)
		close(fd);
	free(text);
	if (!err && rename(tmp, path))
		err = -errno;
	if (err)
		return sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err));
	return durable ? sm_fsync_dir(dir, e) : 0;
}

json_t *get_file(const char *dir, const char *name, struct sm_err *e)
{
	char path[PATH_MAX], *text;
	json_t *o = NULL;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%.3800s/%.200s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		sm_fail(e, -errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	text = malloc(FILE_MAX + 1);
	n = text ? sm_read_full(fd, text, FILE_MAX + 1) : -ENOMEM;
	close(fd);
	if (n < 0)
		sm_fail(e, n, "%s: %s", path, strerror(-n));
	else
		o = sm_json_parse(text, n, FILE_MAX, e);
	free(text);
	return o;
}

/* ---- what was asked ---- */

static json_t *asked(const struct job *j)
{
	json_t *o = json_object();

	json_object_set_new(o, "format", json_string("snapdiff-job"));
	/* A restore must not be taken for a backup by who does not know it. */
	json_object_set_new(o, "version", json_integer(j->kind == JOB_RESTORE ? 2 : 1));
	json_object_set_new(o, "client", json_string(j->client));
	json_object_set_new(o, "volume", json_string(j->volume));
	json_object_set_new(o, "generation", json_integer(j->generation));
	json_object_set_new(o, "dest", json_string(j->dest));
	json_object_set_new(o, "base", json_string(j->base));
	json_object_set_new(o, "compress", json_integer(j->level + 1));
	json_object_set_new(o, "keep_bookmark", json_boolean(j->keep_bookmark));
	json_object_set_new(o, "created", json_integer(j->created));
	if (j->kind == JOB_RESTORE) {
		json_object_set_new(o, "source", json_string(j->source));
		json_object_set_new(o, "key", json_string(j->key));
		json_object_set_new(o, "ranges", json_string(j->ranges));
		json_object_set_new(o, "manifest", json_string(j->manifest));
		json_object_set_new(o, "diff", json_boolean(j->diff));
		json_object_set_new(o, "force", json_boolean(j->force));
	}
	return o;
}

static int parse_restore(const json_t *o, struct job *j, struct sm_err *e)
{
	int err;

	j->kind = JOB_RESTORE;
	if ((err = sm_json_text(o, "source", j->source, sizeof(j->source), e)) || (err = sm_json_text(o, "key", j->key, sizeof(j->key), e)) ||
	    (err = sm_json_text(o, "ranges", j->ranges, sizeof(j->ranges), e)) ||
	    (err = sm_json_text(o, "manifest", j->manifest, sizeof(j->manifest), e)))
		return err;
	j->diff = json_is_true(json_object_get(o, "diff"));
	j->force = json_is_true(json_object_get(o, "force"));
	return 0;
}

static int parse_asked(const json_t *o, struct job *j, struct sm_err *e)
{
	uint64_t version, gen, level;
	int err;

	if ((err = sm_json_u64(o, "version", 2, &version, e)) || (err = sm_json_text(o, "client", j->client, sizeof(j->client), e)) ||
	    (err = sm_json_text(o, "volume", j->volume, sizeof(j->volume), e)) ||
	    (err = sm_json_u64(o, "generation", UINT32_MAX - 1, &gen, e)) ||
	    (err = sm_json_text(o, "dest", j->dest, sizeof(j->dest), e)) ||
	    (err = sm_json_text(o, "base", j->base, sizeof(j->base), e)) || (err = sm_json_u64(o, "compress", 20, &level, e)) ||
	    (err = sm_json_u64(o, "created", INT64_MAX, &j->created, e)))
		return err;
	j->generation = gen;
	j->level = (int)level - 1;
	j->keep_bookmark = json_is_true(json_object_get(o, "keep_bookmark"));
	return version == 2 ? parse_restore(o, j, e) : 0;
}

/* ---- what it came to ---- */

int job_save_state(const struct job *j, struct sm_err *e)
{
	char dir[PATH_MAX];
	json_t *o = json_object();

	json_object_set_new(o, "state", json_string(state_names[j->state]));
	json_object_set_new(o, "attempts", json_integer(j->attempts));
	json_object_set_new(o, "started", json_integer(j->started));
	json_object_set_new(o, "ended", json_integer(j->ended));
	json_object_set_new(o, "exit", json_integer(j->exit));
	sm_json_set_text(o, "message", j->message);
	if (j->receipt)
		json_object_set(o, "receipt", j->receipt);
	return put_file(job_file(dir, j->id, ""), "state.json", o, true, e);
}

static int parse_state(const json_t *o, struct job *j, struct sm_err *e)
{
	const char *word = json_string_value(json_object_get(o, "state"));
	uint64_t attempts, status;
	size_t i;
	int err;

	for (i = 0; i < NR_STATES; i++)
		if (word && !strcmp(word, state_names[i]))
			break;
	if (i == NR_STATES)
		return sm_fail(e, -EUCLEAN, "job %u: no state", j->id);
	if ((err = sm_json_u64(o, "attempts", UINT32_MAX, &attempts, e)) ||
	    (err = sm_json_u64(o, "started", INT64_MAX, &j->started, e)) ||
	    (err = sm_json_u64(o, "ended", INT64_MAX, &j->ended, e)) || (err = sm_json_u64(o, "exit", 1000, &status, e)) ||
	    (err = sm_json_text(o, "message", j->message, sizeof(j->message), e)))
		return err;
	j->state = i;
	j->attempts = attempts;
	j->exit = status;
	j->receipt = json_incref(json_object_get(o, "receipt"));
	return 0;
}

int job_load(uint32_t id, struct job *j, struct sm_err *e)
{
	bool running = job_running(id);	/* before the state is read: one that ends in between has said so */
	char dir[PATH_MAX];
	struct sm_err why = { 0 };
	json_t *o;
	int err;

	memset(j, 0, sizeof(*j));
	j->id = id;
	o = get_file(job_file(dir, id, ""), "job.json", &why);
	if (!o)
		return why.code == -ENOENT ? sm_fail(e, -ENOENT, "job %u: there is none", id) : sm_fail(e, why.code, "%s", why.text);
	err = parse_asked(o, j, &why);
	json_decref(o);
	if (err)
		return sm_fail(e, -EUCLEAN, "job %u: damaged: %s", id, why.text);
	o = get_file(dir, "state.json", &why);
	if (!o && why.code != -ENOENT)
		return sm_fail(e, why.code, "job %u: damaged: %s", id, why.text);
	err = o ? parse_state(o, j, &why) : 0;
	json_decref(o);
	if (err)
		return sm_fail(e, -EUCLEAN, "job %u: damaged: %s", id, why.text);
	if ((j->state == JOB_RUNNING || j->state == JOB_NEW) && !running && !job_running(id))
		j->state = JOB_INTERRUPTED;
	return 0;
}

void job_done(struct job *j)
{
	json_decref(j->receipt);
	j->receipt = NULL;
}

/* ---- all of them ---- */

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int job_numbers(uint32_t **ids, size_t *nr, struct sm_err *e)
{
	char path[PATH_MAX];
	struct dirent *de;
	size_t room = 0;
	DIR *d = opendir(agent_path(path, "jobs"));

	*ids = NULL;
	*nr = 0;
	if (!d)
		return errno == ENOENT ? 0 : sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	while ((de = readdir(d))) {
		uint32_t n;

		if (snap_parse_u32(de->d_name, 1, UINT32_MAX - 1, &n, NULL))
			continue;
		if (*nr == room) {
			void *more = realloc(*ids, (room = room ? 2 * room : 64) * sizeof(**ids));

			if (!more) {
				free(*ids);
				closedir(d);
				return sm_fail(e, -ENOMEM, "no memory");
			}
			*ids = more;
		}
		(*ids)[(*nr)++] = n;
	}
	closedir(d);
	if (*nr)
		qsort(*ids, *nr, sizeof(**ids), ascending);
	return 0;
}

static void forget(uint32_t id)
{
	static const char *const files[] = { "job.json", "state.json", "progress.json", "log", "lock", "job.json.tmp", "state.json.tmp",
					     "progress.json.tmp" };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		unlink(job_file(path, id, files[i]));
	rmdir(job_file(path, id, ""));
}

/* The newest stays whatever it is: numbers are not given twice. */
static void forget_old(const uint32_t *ids, size_t nr)
{
	for (size_t i = 0; i + KEEP_ENDED < nr; i++)
		if (!job_running(ids[i]))
			forget(ids[i]);
}

int job_create(struct job *j, struct sm_err *e)
{
	char dir[PATH_MAX], all[PATH_MAX];
	uint32_t *ids;
	size_t nr;
	int err;

	agent_path(all, "jobs");
	if ((err = sm_mkdir_durable(all, e)) || (err = job_numbers(&ids, &nr, e)))
		return err;
	j->id = nr ? ids[nr - 1] + 1 : 1;
	while (mkdir(job_file(dir, j->id, ""), 0700) && errno == EEXIST && j->id < UINT32_MAX - 1)
		j->id++;
	forget_old(ids, nr);
	free(ids);
	j->created = sm_now_ns();
	err = put_file(dir, "job.json", asked(j), true, e);
	return err ? err : sm_fsync_dir(all, e);
}

/* ---- who runs it ---- */

int job_lock(uint32_t id, struct sm_err *e)
{
	char path[PATH_MAX];
	int fd = open(job_file(path, id, "lock"), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	/* Somebody may just be looking whether it runs, or be about to end. */
	for (int i = 0; i < 500; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB)) {
			/* Who was killed has left its pid here, which may be anybody's by now. */
			if (!ftruncate(fd, 0))
				return fd;
			close(fd);
			return sm_fail(e, -EIO, "%s: %s", path, strerror(errno));
		}
		usleep(10000);
	}
	close(fd);
	return sm_fail(e, -EBUSY, "job %u: is running", id);
}

bool job_running(uint32_t id)
{
	char path[PATH_MAX];
	int fd = open(job_file(path, id, "lock"), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool running = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;

	if (fd >= 0)
		close(fd);
	return running;
}

static pid_t noted_pid(uint32_t id)
{
	char path[PATH_MAX], text[16] = "";
	int fd = open(job_file(path, id, "lock"), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint32_t pid = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, text, sizeof(text) - 1, 0) > 0)
		snap_parse_u32(text, 2, INT32_MAX, &pid, NULL);
	close(fd);
	return pid;
}

/* The pid is that of the lock's holder if the lock is held after it was opened: a process keeps its pid while it lives. */
int job_signal(uint32_t id, int sig)
{
	pid_t pid = noted_pid(id);
	int fd = pid ? syscall(SYS_pidfd_open, pid, 0) : -1, err = -ESRCH;

	if (fd >= 0 && job_running(id) && noted_pid(id) == pid)
		err = syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return err;
}

int job_cancel(struct job *j, int (*interrupt)(uint32_t id), struct sm_err *e)
{
	int lock, err;

	if (!interrupt(j->id))
		return 0;
	lock = job_lock(j->id, e);	/* it is ending, or beginning just now: what it comes to is for who has the lock to say */
	if (lock < 0)
		return lock == -EBUSY && !interrupt(j->id) ? 0 : lock;
	job_done(j);
	err = job_load(j->id, j, e);
	if (!err && j->state == JOB_DONE)
		err = sm_fail(e, -EEXIST, "job %u: is done", j->id);
	if (!err) {
		j->state = JOB_CANCELLED;
		err = job_save_state(j, e);
	}
	close(lock);
	return err;
}

/* ---- told ---- */

json_t *job_row(const struct job *j)
{
	json_t *o = json_object(), *p;
	char dir[PATH_MAX];

	json_object_set_new(o, "job", json_integer(j->id));
	json_object_set_new(o, "state", json_string(state_names[j->state]));
	json_object_set_new(o, "kind", json_string(kind_names[j->kind]));
	sm_json_set_text(o, "client", j->client);
	sm_json_set_text(o, "volume", j->volume);
	json_object_set_new(o, "generation", json_integer(j->generation));
	sm_json_set_text(o, "dest", j->dest);
	if (j->kind == JOB_RESTORE)
		sm_json_set_text(o, "source", j->source);
	json_object_set_new(o, "created", json_integer(j->created));
	if (j->started)
		json_object_set_new(o, "started", json_integer(j->started));
	if (j->ended && j->state != JOB_RUNNING)
		json_object_set_new(o, "ended", json_integer(j->ended));
	json_object_set_new(o, "attempts", json_integer(j->attempts));
	if (j->state == JOB_FAILED)
		json_object_set_new(o, "exit", json_integer(j->exit));
	if (*j->message)
		sm_json_set_text(o, "message", j->message);
	if (j->receipt)
		json_object_set(o, "receipt", j->receipt);
	p = j->state == JOB_DONE || j->state == JOB_NEW ? NULL : get_file(job_file(dir, j->id, ""), "progress.json", NULL);
	json_object_update_missing(o, p);
	json_decref(p);
	return o;
}

/* The key's file is named by agent.conf, never by who asks. */
static int restore_key(const struct job *j, const struct config *c, struct config_dest *to, struct sm_err *e)
{
	const struct config_dest *d;

	if (!*j->key)
		return 0;
	*to->key = '\0';
	if (!strcmp(j->key, JOB_KEY_NONE))
		return 0;
	d = config_find_dest(c, j->key);
	if (!d || !*d->key)
		return sm_fail(e, -EACCES, "%s: not a destination with a key in this host's agent.conf", j->key);
	snprintf(to->key, sizeof(to->key), "%s", d->key);
	return 0;
}

int job_dest(const struct job *j, const struct config *c, struct config_dest *to, struct sm_err *e)
{
	const char *name = j->kind == JOB_RESTORE ? j->source : j->dest;
	const struct config_dest *d = config_find_dest(c, name);
	int err = 0;

	for (uint32_t i = 0; !d && i < c->nr_dests; i++)
		if (!strcmp(c->dest[i].address, name))
			d = &c->dest[i];
	memset(to, 0, sizeof(*to));
	to->level = -1;
	if (d)
		*to = *d;
	else if (!c->any_destination || j->kind == JOB_RESTORE)
		return sm_fail(e, -EACCES, "%s: not a destination of this host's agent.conf", name);
	else
		err = config_check_address(name, false, e);
	if (!d)
		snprintf(to->address, sizeof(to->address), "%s", name);
	if (j->level >= 0)
		to->level = j->level;
	return err || j->kind != JOB_RESTORE ? err : restore_key(j, c, to, e);
}
