// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attach and detach through libdevmapper.
 *
 * Device-mapper's ioctls return an errno and nothing else; the reason that the target's constructor gave is in
 * the kernel log only. So the log's end is noted before the table is loaded, and what "device-mapper:"
 * wrote behind it is put into the error. It is a courtesy: without the right to read /dev/kmsg the errno remains.
 */
#include <errno.h>
#include <fcntl.h>
#include <libdevmapper.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "blk.h"
#include "dm.h"

#define SECTOR_SHIFT	9
#define DETACH_TRIES	30		/* times 100 ms */

/* The last thing libdevmapper complained about, instead of its own stderr output. */
static char lib_message[256];

__attribute__((format(printf, 5, 6)))
static void note_message(int level, const char *file, int line, int dm_errno, const char *fmt, ...)
{
	va_list ap;

	(void)file;
	(void)line;
	(void)dm_errno;
	if ((level & 7) > 3)		/* errors and worse */
		return;
	va_start(ap, fmt);
	vsnprintf(lib_message, sizeof(lib_message), fmt, ap);
	va_end(ap);
}

static struct dm_task *new_task(int type, const char *name)
{
	static bool ready;
	struct dm_task *dmt;

	if (!ready) {
		dm_log_with_errno_init(note_message);
		ready = true;
	}
	lib_message[0] = 0;
	dmt = dm_task_create(type);
	if (dmt && !dm_task_set_name(dmt, name)) {
		dm_task_destroy(dmt);
		return NULL;
	}
	return dmt;
}

static int task_errno(struct dm_task *dmt)
{
	int err = dm_task_get_errno(dmt);

	return err ? -err : -EIO;
}

char *snap_dm_path(const char *name, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%s", dm_dir(), name);
	return buf;
}

/* ---- the kernel's reason ---- */

static int log_mark(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* What the target said in the log since the mark: its constructor's text. Closes @fd. */
static void log_reason(int fd, char *buf, size_t len)
{
	char rec[1024], *p;
	ssize_t n;

	buf[0] = 0;
	if (fd < 0)
		return;
	while ((n = read(fd, rec, sizeof(rec) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		rec[n] = 0;
		p = strchr(rec, ';');
		if (!p)
			continue;
		p++;
		p[strcspn(p, "\n")] = 0;
		if (strncmp(p, "device-mapper: table: ", 22) && strncmp(p, "device-mapper: snapdiff: ", 25))
			continue;
		/* "... MAJ:MIN: snapdiff: REASON (-EINVAL)" */
		p = strstr(p, "snapdiff: ");
		if (p)
			snprintf(buf, len, "%s", p + 10);
	}
	close(fd);
	p = strrchr(buf, '(');
	if (p && p > buf + 1 && p[1] == '-' && p[-1] == ' ')
		p[-1] = 0;
}

/* ---- attach ---- */

/* false only when the kernel certainly has no such target. */
static bool target_known(void)
{
	struct dm_task *dmt = dm_task_create(DM_DEVICE_LIST_VERSIONS);
	struct dm_versions *v, *next;
	bool found = false;

	if (!dmt)
		return true;
	if (!dm_task_run(dmt)) {
		dm_task_destroy(dmt);
		return true;
	}
	for (next = dm_task_get_versions(dmt); !found; ) {
		v = next;
		found = !strcmp(v->name, "snapdiff");
		if (!v->next)
			break;
		next = (struct dm_versions *)((char *)v + v->next);
	}
	dm_task_destroy(dmt);
	return found;
}

static void make_uuid(const uint8_t *uuid, char *buf, size_t len)
{
	size_t used = snprintf(buf, len, "%s", SNAP_DM_UUID_PREFIX);
	int i;

	for (i = 0; i < 16; i++)
		used += snprintf(buf + used, len - used, "%02x", uuid[i]);
}

static int make_params(const struct snap_dm_spec *spec, char *buf, size_t len)
{
	int words = (spec->on_full ? 2 : 0) + (spec->cache_size ? 2 : 0) + spec->accept_changed + spec->trust_primary;
	char cache[48] = "";
	int n;

	if (spec->cache_size)
		snprintf(cache, sizeof(cache), " cache_size %llu", (unsigned long long)spec->cache_size >> 20);
	n = snprintf(buf, len, "%s %s %d%s%s%s%s%s", spec->primary, spec->diff, words, spec->on_full ? " on_full " : "",
		     spec->on_full ? spec->on_full : "", cache, spec->accept_changed ? " accept_changed" : "",
		     spec->trust_primary ? " trust_primary" : "");
	return n < (int)len ? 0 : -ENAMETOOLONG;
}

/* Run one step and destroy its task. @with_cookie: wait for udev. Return: 0 or -errno. */
static int run_step(struct dm_task *dmt, bool with_cookie)
{
	uint32_t cookie = 0;
	int err = 0;

	if (with_cookie && !dm_task_set_cookie(dmt, &cookie, 0)) {
		dm_task_destroy(dmt);
		return -ENOMEM;
	}
	if (!dm_task_run(dmt))
		err = task_errno(dmt);
	if (with_cookie) {
		/* Always: a failed task has taken the cookie's semaphore too. */
		dm_udev_wait(cookie);
		dm_task_update_nodes();
	}
	dm_task_destroy(dmt);
	return err;
}

/* An empty device with our uuid. */
static int step_create(const char *name, const char *uuid)
{
	struct dm_task *dmt = new_task(DM_DEVICE_CREATE, name);

	if (dmt && dm_task_set_uuid(dmt, uuid))
		return run_step(dmt, false);
	if (dmt)
		dm_task_destroy(dmt);
	return -ENOMEM;
}

static int step_load(const char *name, uint64_t sectors, const char *params)
{
	struct dm_task *dmt = new_task(DM_DEVICE_RELOAD, name);

	if (dmt && dm_task_add_target(dmt, 0, sectors, "snapdiff", params))
		return run_step(dmt, false);
	if (dmt)
		dm_task_destroy(dmt);
	return -ENOMEM;
}

static int step_resume(const char *name)
{
	struct dm_task *dmt = new_task(DM_DEVICE_RESUME, name);

	if (dmt && dm_task_set_add_node(dmt, DM_ADD_NODE_ON_RESUME))
		return run_step(dmt, true);
	if (dmt)
		dm_task_destroy(dmt);
	return -ENOMEM;
}

static int step_remove(const char *name)
{
	struct dm_task *dmt = new_task(DM_DEVICE_REMOVE, name);

	return dmt ? run_step(dmt, true) : -ENOMEM;
}

/* The name of the device with this uuid, if there is one. */
static bool find_uuid(const char *uuid, char *name, size_t len)
{
	struct dm_task *dmt = dm_task_create(DM_DEVICE_INFO);
	struct dm_info info;
	bool found = false;

	if (!dmt)
		return false;
	if (dm_task_set_uuid(dmt, uuid) && dm_task_run(dmt) && dm_task_get_info(dmt, &info) && info.exists) {
		snprintf(name, len, "%s", dm_task_get_name(dmt));
		found = true;
	}
	dm_task_destroy(dmt);
	return found;
}

static int check_new(const char *name, const char *uuid, struct snap_err *e)
{
	char other[256];
	int rc = snap_dm_exists(name, e);

	if (rc < 0)
		return rc;
	if (rc)
		return snap_err_set(e, -EEXIST, name, "a device-mapper device of this name exists already");
	if (find_uuid(uuid, other, sizeof(other)))
		return snap_err_set(e, -EEXIST, name, "cannot attach: this diff, or one that is a copy of it, is attached already as %s",
				    other);
	return 0;
}

static int attach_failed(const char *name, int err, const char *reason, struct snap_err *e)
{
	if (reason[0])
		return snap_err_set(e, err, name, "cannot attach: %s", reason);
	if (!target_known())
		return snap_err_set(e, -ENODEV, name, "cannot attach: the kernel module is not loaded (modprobe snapdiff)");
	return snap_err_set(e, err, name, "cannot attach: %s (the kernel log may say more)", strerror(-err));
}

/* Writes under way are waited for, others wait. The filesystem needs no freezing: nothing moves. */
static int step_suspend(const char *name)
{
	struct dm_task *dmt = new_task(DM_DEVICE_SUSPEND, name);

	if (dmt && dm_task_skip_lockfs(dmt))
		return run_step(dmt, false);
	if (dmt)
		dm_task_destroy(dmt);
	return -ENOMEM;
}

/*
 * In the steps that libdevmapper's own "create" is made of, because of that one the errno of the step that failed
 * does not come back.
 */
int snap_dm_attach(const struct snap_dm_spec *spec, struct snap_err *e)
{
	char params[1024], uuid[64], reason[512];
	int err, log;

	make_uuid(spec->uuid, uuid, sizeof(uuid));
	if (make_params(spec, params, sizeof(params)))
		return snap_err_set(e, -ENAMETOOLONG, spec->name, "attach: the paths are too long");
	err = check_new(spec->name, uuid, e);
	if (err)
		return err;
	err = step_create(spec->name, uuid);
	if (err)
		return attach_failed(spec->name, err, "", e);
	log = log_mark();
	err = step_load(spec->name, spec->size >> SECTOR_SHIFT, params);
	if (!err)
		err = step_resume(spec->name);
	log_reason(log, reason, sizeof(reason));
	if (!err)
		return 0;
	err = attach_failed(spec->name, err, reason, e);
	step_remove(spec->name);
	return err;
}

/* ---- detach ---- */

struct dm_state {
	bool exists;
	bool ours;
	dev_t dev;
};

static int get_state(const char *name, struct dm_state *st, struct snap_err *e)
{
	struct dm_task *dmt = new_task(DM_DEVICE_TABLE, name);
	uint64_t start, length;
	char *type = NULL, *params;
	struct dm_info info;
	const char *uuid;
	int err = 0;

	memset(st, 0, sizeof(*st));
	if (!dmt)
		return snap_err_sys(e, -ENOMEM, name, "device-mapper");
	if (!dm_task_run(dmt)) {
		err = task_errno(dmt);
		if (err == -ENXIO)
			err = 0;		/* no such device */
		else
			snap_err_set(e, err, name, "cannot use device-mapper: %s",
				     lib_message[0] ? lib_message : strerror(-err));
	} else if (dm_task_get_info(dmt, &info) && info.exists) {
		dm_get_next_target(dmt, NULL, &start, &length, &type, &params);
		uuid = dm_task_get_uuid(dmt);
		st->exists = true;
		st->dev = makedev(info.major, info.minor);
		st->ours = (type && !strcmp(type, "snapdiff")) ||
			   (uuid && !strncmp(uuid, SNAP_DM_UUID_PREFIX, strlen(SNAP_DM_UUID_PREFIX)));
	}
	dm_task_destroy(dmt);
	return err;
}

int snap_dm_exists(const char *name, struct snap_err *e)
{
	struct dm_state st;
	int err = get_state(name, &st, e);

	return err ? err : st.exists;
}

/* Users that do not go away by waiting. */
static int check_users(const char *name, dev_t dev, struct snap_err *e)
{
	char text[512];

	if (snap_blk_mounted(dev, text, sizeof(text)))
		return snap_err_set(e, -EBUSY, name, "cannot detach: is mounted on %s", text);
	if (snap_blk_holders(dev, text, sizeof(text)))
		return snap_err_set(e, -EBUSY, name, "cannot detach: is in use by %s", text);
	return 0;
}

static int get_our_state(const char *name, struct dm_state *st, struct snap_err *e)
{
	int err = get_state(name, st, e);

	if (err)
		return err;
	if (!st->exists)
		return snap_err_set(e, -ENODEV, name, "no such volume is attached");
	if (!st->ours)
		return snap_err_set(e, -EMEDIUMTYPE, name, "is a device-mapper device, but not one of snapdiff's");
	return 0;
}

int snap_dm_check_detach(const char *name, struct snap_err *e)
{
	struct dm_state st;
	int err = get_our_state(name, &st, e);

	return err ? err : check_users(name, st.dev, e);
}

int snap_dm_detach(const char *name, struct snap_err *e)
{
	struct timespec pause = { 0, 100 * 1000 * 1000 };
	struct dm_state st;
	int err, i;

	err = get_our_state(name, &st, e);
	if (err)
		return err;
	for (i = 0; i < DETACH_TRIES; i++) {
		err = check_users(name, st.dev, e);
		if (err)
			return err;
		err = step_remove(name);
		if (err != -EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	if (err == -EBUSY)
		return snap_err_set(e, err, name, "cannot detach: a program has the device open");
	if (err)
		return snap_err_set(e, err, name, "cannot detach: %s", lib_message[0] ? lib_message : strerror(-err));
	return 0;
}

/* ---- another size ---- */

/* The line of our table, without what only one attachment may have. */
static int get_line(const char *name, uint64_t *sectors, char *line, size_t len, struct snap_err *e)
{
	struct dm_task *dmt = new_task(DM_DEVICE_TABLE, name);
	char *type = NULL, *params = NULL;
	uint64_t start;
	int err = 0;

	if (!dmt)
		return snap_err_sys(e, -ENOMEM, name, "device-mapper");
	if (!dm_task_run(dmt))
		err = snap_err_sys(e, task_errno(dmt), name, "cannot read the table");
	if (!err)
		dm_get_next_target(dmt, NULL, &start, sectors, &type, &params);
	if (!err && (!type || strcmp(type, "snapdiff") || !params || strlen(params) >= len))
		err = snap_err_set(e, -EMEDIUMTYPE, name, "has another table than a snapdiff volume");
	if (!err)
		strcpy(line, params);
	dm_task_destroy(dmt);
	return err;
}

static int swap_table(const char *name, uint64_t sectors, const char *line)
{
	int err = step_load(name, sectors, line);

	if (err)
		return err;
	step_suspend(name);		/* if it does not work, so much longer do writes wait in resume, which does it itself */
	return step_resume(name);
}

int snap_dm_resize(const char *name, uint64_t size, struct snap_err *e)
{
	char line[1024], reason[512];
	struct dm_state st;
	uint64_t before;
	int err, log;

	err = get_our_state(name, &st, e);
	if (!err)
		err = get_line(name, &before, line, sizeof(line), e);
	if (err)
		return err;
	log = log_mark();
	err = swap_table(name, size >> SECTOR_SHIFT, line);
	log_reason(log, reason, sizeof(reason));
	if (!err)
		return 0;
	snap_err_set(e, err, name, "cannot resize: %s", reason[0] ? reason : strerror(-err));
	swap_table(name, before, line);
	return err;
}
