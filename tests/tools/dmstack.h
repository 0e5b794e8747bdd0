/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices of the device mapper for tools that put faults below a volume. Who includes it has defined broken(format, ...), which does not return.
 */
#ifndef SNAP_TEST_DMSTACK_H
#define SNAP_TEST_DMSTACK_H

#include <libdevmapper.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

struct target {
	uint64_t start, len;
	const char *type;
	char params[160];
};

static inline void run_task(struct dm_task *dmt, const char *name)
{
	if (!dmt || !dm_task_set_name(dmt, name))
		broken("libdevmapper");
}

/* One simple request. */
static inline int dm_do(int type, const char *name, const char *message)
{
	struct dm_task *dmt = dm_task_create(type);
	int ok;

	run_task(dmt, name);
	if (message && (!dm_task_set_sector(dmt, 0) || !dm_task_set_message(dmt, message)))
		broken("libdevmapper");
	if (type == DM_DEVICE_SUSPEND && (!dm_task_skip_lockfs(dmt) || !dm_task_no_flush(dmt)))
		broken("libdevmapper");
	if (type == DM_DEVICE_RESUME && !dm_task_set_add_node(dmt, DM_ADD_NODE_ON_RESUME))
		broken("libdevmapper");
	ok = dm_task_run(dmt);
	dm_task_update_nodes();
	dm_task_destroy(dmt);
	return ok ? 0 : -1;
}

static inline void dm_must(int type, const char *name, const char *message)
{
	if (dm_do(type, name, message))
		broken("dm request %d %s %s failed", type, name, message ? message : "");
}

static inline void dm_load(const char *name, const struct target *t, unsigned int nr)
{
	struct dm_task *dmt = dm_task_create(DM_DEVICE_RELOAD);
	unsigned int i;

	run_task(dmt, name);
	for (i = 0; i < nr; i++)
		if (!dm_task_add_target(dmt, t[i].start, t[i].len, t[i].type, t[i].params))
			broken("libdevmapper");
	if (!dm_task_run(dmt))
		broken("table of %s: %s %s", name, t->type, t->params);
	dm_task_destroy(dmt);
}

static inline struct target target(uint64_t start, uint64_t len, const char *type, const char *fmt, ...)
{
	struct target t = { .start = start, .len = len, .type = type };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t.params, sizeof(t.params), fmt, ap);
	va_end(ap);
	return t;
}

static inline void dm_make(const char *name, struct target t)
{
	dm_must(DM_DEVICE_CREATE, name, NULL);
	dm_load(name, &t, 1);
	dm_must(DM_DEVICE_RESUME, name, NULL);
}

#endif
