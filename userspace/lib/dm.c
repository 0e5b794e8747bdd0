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
	int n;

	if (spec->on_full)
		n = snprintf(buf, len, "%s %s 2 on_full %s", spec->primary, spec->diff, spec->on_full);
	else
		n = snprintf(buf, len, "%s %s", spec->primary, spec->diff);
	return n < (int)len ? 0 : -ENAMETOOLONG;
}

/* Fill the task in and run it. Return: 0 or -errno. */
static int run_create(struct dm_task *dmt, const struct snap_dm_spec *spec, const char *params)
{
	uint32_t cookie = 0;
	char uuid[64];
	int ok, err = 0;

	make_uuid(spec->uuid, uuid, sizeof(uuid));
	if (!dm_task_set_uuid(dmt, uuid) ||
	    !dm_task_add_target(dmt, 0, spec->size >> SECTOR_SHIFT, "snapdiff", params) ||
	    !dm_task_set_cookie(dmt, &cookie, 0))
		return -ENOMEM;
	ok = dm_task_run(dmt);
	if (!ok)
		err = task_errno(dmt);
	/* Always: a failed task has taken the cookie's semaphore too. */
	dm_udev_wait(cookie);
	dm_task_update_nodes();
	return err;
}

int snap_dm_attach(const struct snap_dm_spec *spec, struct snap_err *e)
{
	char params[1024], reason[512];
	struct dm_task *dmt;
	int err, log;

	if (make_params(spec, params, sizeof(params)))
		return snap_err_set(e, -ENAMETOOLONG, spec->name, "attach: the paths are too long");
	err = snap_dm_exists(spec->name, e);
	if (err < 0)
		return err;
	if (err)
		return snap_err_set(e, -EEXIST, spec->name, "a device-mapper device of this name exists already");
	dmt = new_task(DM_DEVICE_CREATE, spec->name);
	if (!dmt)
		return snap_err_sys(e, -ENOMEM, spec->name, "attach");
	log = log_mark();
	err = run_create(dmt, spec, params);
	dm_task_destroy(dmt);
	log_reason(log, reason, sizeof(reason));
	if (!err)
		return 0;
	if (reason[0])
		return snap_err_set(e, err, spec->name, "cannot attach: %s", reason);
	if (err == -EBUSY)
		return snap_err_set(e, err, spec->name, "cannot attach: a device is in use, or the diff is attached already");
	if (!target_known())
		return snap_err_set(e, -ENODEV, spec->name,
				    "cannot attach: the kernel module is not loaded (modprobe snapdiff)");
	return snap_err_set(e, err, spec->name, "cannot attach: %s (the kernel log may say more)",
			    lib_message[0] ? lib_message : strerror(-err));
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

/* One attempt. Return: 0 or -errno. */
static int remove_once(const char *name)
{
	struct dm_task *dmt = new_task(DM_DEVICE_REMOVE, name);
	uint32_t cookie = 0;
	int err = 0;

	if (!dmt)
		return -ENOMEM;
	if (!dm_task_set_cookie(dmt, &cookie, 0)) {
		dm_task_destroy(dmt);
		return -ENOMEM;
	}
	if (!dm_task_run(dmt))
		err = task_errno(dmt);
	dm_udev_wait(cookie);
	dm_task_update_nodes();
	dm_task_destroy(dmt);
	return err;
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
		err = remove_once(name);
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
