// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Orders about backups and restores. A client with the backup or restore role sees and touches the jobs that it has asked for; operators touch all of
 * them, auditors see all of them. But a restore destroys what is there: only the restore role has one begin, or begin again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "helper.h"
#include "job.h"
#include "place.h"
#include "store.h"

#define LOOK_MS		250		/* how often one who follows is told */
#define STILL_HERE_NS	30000000000ull

static bool may_see(const struct asker *a, const struct job *j)
{
	return a->roles & (SM_ROLE_OPERATOR | SM_ROLE_AUDITOR) || !strcmp(a->client, j->client);
}

static bool may_touch(const struct asker *a, const struct job *j)
{
	return a->roles & SM_ROLE_OPERATOR || !strcmp(a->client, j->client);
}

/* Another's job is not there for who may not see it. */
static int find(struct asker *a, const json_t *order, struct job *j, struct sm_err *e)
{
	uint32_t id;
	int err = order_number(order, "job", &id, e);

	if (!err)
		err = job_load(id, j, e);
	if (!err && !may_see(a, j)) {
		job_done(j);
		err = sm_fail(e, -ENOENT, "job %u: there is none", id);
	}
	return err;
}

/* ---- asking for one ---- */

/* One who starts at a time: the limit holds. */
static int lock_starts(struct sm_err *e)
{
	char path[PATH_MAX];
	int fd = open(agent_path(path, "jobs/.start"), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd >= 0 && flock(fd, LOCK_EX)) {
		close(fd);
		fd = -1;
	}
	return fd < 0 ? sm_fail(e, -errno, "%s: %s", path, strerror(errno)) : fd;
}

static bool in_the_way(const struct job *a, const struct job *b)
{
	if (b->kind == JOB_RESTORE)
		return !strcmp(a->dest, b->dest);
	return a->generation == b->generation && !strcmp(a->volume, b->volume);
}

static int check_limit(const struct config *c, const struct job *j, struct sm_err *e)
{
	uint32_t *ids, running = 0;
	size_t nr;
	int err = job_numbers(&ids, &nr, e);

	for (size_t i = 0; !err && i < nr; i++) {
		struct job other;

		if (!job_running(ids[i]) || job_load(ids[i], &other, NULL))
			continue;
		running++;
		if (other.id != j->id && other.kind == j->kind && in_the_way(&other, j))
			err = j->kind == JOB_RESTORE ? sm_fail(e, -EBUSY, "%s: job %u is writing it", j->dest, other.id) :
				sm_fail(e, -EBUSY, "%s@%u: job %u is sending it", j->volume, j->generation, other.id);
		job_done(&other);
	}
	free(ids);
	if (!err && running >= c->max_jobs)
		err = sm_fail(e, -EBUSY, "%u jobs are running, the limit of this host", running);
	return err;
}

static int start(struct asker *a, struct job *j, bool again, struct sm_err *e)
{
	char path[PATH_MAX];
	int starts, err;
	struct place place = { .dir = -1 };
	struct config_dest d;
	struct config c;

	if ((err = sm_mkdir_durable(agent_path(path, "jobs"), e)) || (err = agent_config(&c, e)))
		return err;
	starts = lock_starts(e);
	err = starts < 0 ? starts : job_dest(j, &c, &d, e);
	if (!err && j->kind == JOB_RESTORE) {	/* better said now; it is looked at again when it begins */
		err = place_open(&c, j->dest, &place, e);
		place_close(&place);
	}
	if (!err)
		err = check_limit(&c, j, e);
	config_free(&c);
	if (!err && !again)
		err = job_create(j, e);
	if (!err)
		err = helper_start(j->id, e);
	if (!err)
		j->state = JOB_RUNNING;
	if (starts >= 0)
		close(starts);
	if (!err)
		sm_note(a->service, "start job=%u kind=%s client=%s volume=%s generation=%u", j->id, job_kind_name(j->kind), a->client, j->volume,
			j->generation);
	return err;
}

/* Is there such a generation? Better said now than by a job that fails. */
static int check_generation(const struct job *j, struct sm_err *e)
{
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_nl *nl;
	struct snap_gen g;
	int err = snap_nl_open(&nl, &se);

	if (err)
		return asker_fail(e, &se, err);
	err = snap_nl_gen(nl, j->volume, j->generation, &g, &se);
	snap_nl_close(nl);
	if (!err && g.state != SNAPDIFF_GEN_LIVE)
		return sm_fail(e, -ENOENT, "%s@%u: is %s: its data is gone", j->volume, j->generation, snap_gen_state_name(g.state));
	return err ? asker_fail(e, &se, err) : 0;
}

static int parse_backup(const json_t *order, struct job *j, struct sm_err *e)
{
	const json_t *base = json_object_get(order, "base");
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_nl *nl;
	uint32_t number;
	uint64_t level;
	int err = order_volume(order, j->volume, e);

	if (err < 0 || (err = order_number(order, "generation", &j->generation, e)))
		return err;
	if (sm_json_text(order, "dest", j->dest, sizeof(j->dest), e))
		return -EINVAL;
	if (base && (sm_json_text(order, "base", j->base, sizeof(j->base), e) ||
		     (strcmp(j->base, "auto") && strcmp(j->base, "none") && snap_parse_u32(j->base, 1, UINT32_MAX - 1, &number, NULL))))
		return sm_fail(e, -EINVAL, "base: a number, auto or none");
	j->level = -1;
	if (json_object_get(order, "compress")) {
		if (sm_json_u64(order, "compress", 19, &level, e))
			return -EINVAL;
		j->level = level;
	}
	j->keep_bookmark = json_is_true(json_object_get(order, "keep_bookmark"));
	if (*j->volume)
		return 0;
	err = snap_nl_open(&nl, &se);
	if (!err) {
		err = snap_nl_sole_volume(nl, j->volume, &se);
		snap_nl_close(nl);
	}
	return err ? asker_fail(e, &se, err) : 0;
}

static int do_backup(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct job j = { .receipt = NULL };
	int err = parse_backup(order, &j, e);

	if (!err && j.keep_bookmark && !(a->roles & SM_ROLE_OPERATOR))
		err = sm_fail(e, -EACCES, "this client may not bookmark");
	if (!err)
		err = check_generation(&j, e);
	snprintf(j.client, sizeof(j.client), "%s", a->client);
	if (!err)
		err = start(a, &j, false, e);
	return err ? err : asker_row(a, job_row(&j), e);
}

static int parse_restore(const json_t *order, struct job *j, struct sm_err *e)
{
	uint8_t hash[SM_DIGEST];
	int err = order_volume(order, j->volume, e);

	j->kind = JOB_RESTORE;
	j->level = -1;
	if (err <= 0)
		return err ? err : sm_fail(e, -EINVAL, "no volume named");
	if ((err = order_number(order, "generation", &j->generation, e)))
		return err;
	if (sm_json_text(order, "source", j->source, sizeof(j->source), e) || sm_json_text(order, "target", j->dest, sizeof(j->dest), e))
		return -EINVAL;
	if (json_object_get(order, "key") && (sm_json_text(order, "key", j->key, sizeof(j->key), e) || !*j->key))
		return sm_fail(e, -EINVAL, "key: a destination's name, or " JOB_KEY_NONE);
	if (json_object_get(order, "ranges") && (sm_json_text(order, "ranges", j->ranges, sizeof(j->ranges), e) || !*j->ranges ||
						 strspn(j->ranges, "0123456789:,KMGTkmgtiB") != strlen(j->ranges)))
		return sm_fail(e, -EINVAL, "ranges: OFFSET:LENGTH[,...]");
	if (json_object_get(order, "manifest") &&
	    (sm_json_text(order, "manifest", j->manifest, sizeof(j->manifest), e) || sm_unhex(j->manifest, hash, SM_DIGEST)))
		return sm_fail(e, -EINVAL, "manifest: 64 hexadecimal digits");
	j->diff = json_is_true(json_object_get(order, "diff"));
	j->force = json_is_true(json_object_get(order, "force"));
	return 0;
}

static int do_restore(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct job j = { .receipt = NULL };
	int err = parse_restore(order, &j, e);

	snprintf(j.client, sizeof(j.client), "%s", a->client);
	if (!err)
		err = start(a, &j, false, e);
	return err ? err : asker_row(a, job_row(&j), e);
}

/* ---- looking at them ---- */

static int do_jobs(struct asker *a, const json_t *order, struct sm_err *e)
{
	uint32_t *ids;
	size_t nr;
	int err = job_numbers(&ids, &nr, e);

	(void)order;
	for (size_t i = 0; !err && i < nr; i++) {
		struct job j;

		if (job_load(ids[i], &j, NULL))
			continue;	/* was being made when the machine stopped, or is forgotten just now */
		if (may_see(a, &j))
			err = asker_row(a, job_row(&j), e);
		job_done(&j);
	}
	free(ids);
	return err;
}

static bool told_to_stop(void)
{
	sigset_t s;

	return !sigpending(&s) && (sigismember(&s, SIGTERM) || sigismember(&s, SIGINT));
}

/* A row whenever something has changed, until nobody runs it any more; the last one is its end. */
static int do_follow(struct asker *a, const json_t *order, struct sm_err *e)
{
	char *last = NULL;
	uint64_t said = sm_now_ns();
	bool running = true;
	int err = 0;

	while (!err && running) {
		struct job j;
		char *text;
		json_t *o;

		err = find(a, order, &j, e);
		if (err)
			break;
		running = j.state == JOB_RUNNING || j.state == JOB_NEW;
		o = job_row(&j);
		job_done(&j);
		text = sm_json_canonical(o);
		if (text && (!last || strcmp(text, last))) {
			err = asker_row(a, o, e);
			said = sm_now_ns();
		} else {
			json_decref(o);
		}
		free(last);
		last = text;
		if (err || !running)
			break;
		if (sm_now_ns() - said > STILL_HERE_NS) {
			err = sm_chan_send(a->chan, SM_KEEPALIVE, SM_F_OPTIONAL, NULL, 0, e);
			said = sm_now_ns();
		}
		if (told_to_stop())
			err = sm_fail(e, -EINTR, "stopping");
		else if (!err && sm_chan_pending(a->chan, LOOK_MS))
			err = sm_fail(e, -EPIPE, "the peer has left");	/* it has nothing to say now */
	}
	free(last);
	return err;
}

/* ---- touching them ---- */

static int do_cancel(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct job j;
	int err = find(a, order, &j, e);

	if (err)
		return err;
	if (!may_touch(a, &j))
		err = sm_fail(e, -EACCES, "this client may not cancel jobs of others");
	else if (j.state == JOB_DONE)
		err = sm_fail(e, -EEXIST, "job %u: is done", j.id);
	else if (!(err = job_cancel(&j, helper_cancel, e)))
		sm_note(a->service, "cancel job=%u client=%s", j.id, a->client);
	if (!err)
		err = asker_row(a, job_row(&j), e);
	job_done(&j);
	return err;
}

static int do_resume(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct job j;
	int err = find(a, order, &j, e);

	if (err)
		return err;
	if (!may_touch(a, &j))
		err = sm_fail(e, -EACCES, "this client may not resume jobs of others");
	else if (!(a->roles & (j.kind == JOB_RESTORE ? SM_ROLE_RESTORE : SM_ROLE_BACKUP | SM_ROLE_OPERATOR)))
		err = sm_fail(e, -EACCES, "this client may not %s", job_kind_name(j.kind));
	else if (j.state == JOB_DONE)
		err = sm_fail(e, -EEXIST, "job %u: is done", j.id);
	else if (j.state != JOB_RUNNING && j.state != JOB_NEW)
		err = start(a, &j, true, e);
	if (!err)
		err = asker_row(a, job_row(&j), e);
	job_done(&j);
	return err;
}

static int do_dests(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct config c;
	int err = agent_config(&c, e);

	(void)order;
	if (err)
		return err;
	for (uint32_t i = 0; !err && i < c.nr_dests; i++) {
		json_t *o = json_object();

		sm_json_set_text(o, "name", c.dest[i].name);
		sm_json_set_text(o, "address", c.dest[i].address);
		err = asker_row(a, o, e);
	}
	config_free(&c);
	return err;
}

static int do_targets(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct config c;
	int err = agent_config(&c, e);

	(void)order;
	if (err)
		return err;
	for (uint32_t i = 0; !err && i < c.nr_targets; i++) {
		json_t *o = json_object();

		sm_json_set_text(o, "path", c.target[i].path);
		json_object_set_new(o, "kind", json_string(c.target[i].directory ? "directory" : "target"));
		err = asker_row(a, o, e);
	}
	config_free(&c);
	return err;
}

#define TOUCH	(SM_ROLE_BACKUP | SM_ROLE_RESTORE | SM_ROLE_OPERATOR)
#define ALL	(TOUCH | SM_ROLE_AUDITOR)

const struct verb job_verbs[] = {
	{ "backup", SM_ROLE_BACKUP | SM_ROLE_OPERATOR, do_backup },
	{ "jobs", ALL, do_jobs },
	{ "follow", ALL, do_follow },
	{ "restore", SM_ROLE_RESTORE, do_restore },
	{ "cancel", TOUCH, do_cancel },
	{ "resume", TOUCH, do_resume },
	{ "dests", ALL, do_dests },
	{ "targets", SM_ROLE_RESTORE | SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, do_targets },
	{ NULL, 0, NULL }
};
