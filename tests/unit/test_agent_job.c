// SPDX-License-Identifier: GPL-2.0-or-later
/* Files of jobs and schedule: whom a signal reaches, what a late cancel may overwrite, who waits for a runner, whose numbers count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "job.h"
#include "state.h"

static char dir[64];

static void make_job(struct job *j)
{
	struct sm_err e = { 0 };

	memset(j, 0, sizeof(*j));
	snprintf(j->client, sizeof(j->client), "me");
	snprintf(j->volume, sizeof(j->volume), "vol");
	snprintf(j->dest, sizeof(j->dest), "nowhere.example");
	j->generation = 1;
	j->level = -1;
	if (job_create(j, &e))
		fail_msg("%s", e.text);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/agent-job-XXXXXX");
	return !mkdtemp(dir) || setenv("SNAPDIFF_STATE_DIR", dir, 1) || setenv("SNAPDIFF_CONFIG_DIR", dir, 1);
}

static int tear_down(void **state)
{
	char cmd[96];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void note_pid(uint32_t id, pid_t pid)
{
	char path[PATH_MAX];
	FILE *f = fopen(job_file(path, id, "lock"), "w");

	assert_non_null(f);
	fprintf(f, "%d", (int)pid);
	fclose(f);
}

/* A runner was killed, its pid is another's now; the job is being started again and has no runner yet. */
static void no_signal_to_strangers(void **state)
{
	pid_t stranger = fork();
	struct sm_err e = { 0 };
	struct job j;
	int lock, status;

	(void)state;
	if (!stranger)
		for (;;)
			pause();
	make_job(&j);
	note_pid(j.id, stranger);
	assert_int_equal(job_signal(j.id, SIGTERM), -ESRCH);	/* nobody has the lock */
	lock = job_lock(j.id, &e);
	assert_true(lock >= 0);
	assert_int_equal(job_signal(j.id, SIGTERM), -ESRCH);
	usleep(20000);
	assert_int_equal(waitpid(stranger, &status, WNOHANG), 0);
	close(lock);
	kill(stranger, SIGKILL);
	assert_int_equal(waitpid(stranger, &status, 0), stranger);
}

static int interrupt(uint32_t id)
{
	return job_signal(id, SIGINT);
}

/* Seen running, done before the cancel comes: it stays done, with its receipt. */
static void cancelled_too_late(void **state)
{
	struct sm_err e = { 0 };
	struct job seen, j;

	(void)state;
	make_job(&seen);
	seen.state = JOB_RUNNING;
	j = seen;
	j.state = JOB_DONE;
	j.receipt = json_pack("{s:s}", "state", "committed");
	assert_int_equal(job_save_state(&j, &e), 0);
	job_done(&j);
	assert_int_equal(job_cancel(&seen, interrupt, &e), -EEXIST);
	job_done(&seen);
	assert_int_equal(job_load(seen.id, &j, &e), 0);
	assert_int_equal(j.state, JOB_DONE);
	assert_non_null(j.receipt);
	job_done(&j);

	make_job(&j);
	assert_int_equal(job_cancel(&j, interrupt, &e), 0);
	assert_int_equal(j.state, JOB_CANCELLED);
	assert_int_equal(job_load(j.id, &j, &e), 0);
	assert_int_equal(j.state, JOB_CANCELLED);
}

/* A session that starts one after the other leaves one zombie at most. */
static void runners_are_waited_for(void **state)
{
	struct sm_err e = { 0 };
	uint32_t zombies = 0;
	struct job j;

	(void)state;
	for (int i = 0; i < 5; i++) {
		siginfo_t si;
		int lock;

		make_job(&j);
		lock = job_lock(j.id, &e);
		assert_true(lock >= 0);
		assert_int_equal(job_start(&j, lock, &e), 0);
		assert_int_equal(waitid(P_ALL, 0, &si, WEXITED | WNOWAIT), 0);
		lock = job_lock(j.id, &e);	/* its runner has ended */
		assert_true(lock >= 0);
		close(lock);
		assert_int_equal(job_load(j.id, &j, &e), 0);
		assert_int_equal(j.state, JOB_FAILED);	/* agent.conf names no destination */
		job_done(&j);
	}
	while (waitpid(-1, NULL, 0) > 0)
		zombies++;
	assert_int_equal(zombies, 1);
}

/*
 * Generation 50 is the last that a destination has. An older copy of the metadata is put back, of when 40 was the highest, and 41 to @nr are cut
 * anew: the destination has none of them, and none may go.
 */
static void check_row(uint32_t nr, bool again, bool expect)
{
	static struct config c = { .nr_dests = 1, .dest = { { .name = "nas" } } };
	static struct config_volume v = { .nr_ships = 1, .has_keep = true };
	struct sched_gen gens[60] = { 0 };
	struct sched_verdict verdicts[60];
	struct sched s = { .c = &c, .v = &v, .gen = gens, .nr = nr, .highest = nr, .free_percent = 50 };
	struct state st = { .file = "x.json" };
	struct sm_err e = { 0 };

	v.keep.keep[SM_KEEP_LAST] = 1;
	for (uint32_t i = 0; i < 50; i++) {
		gens[i] = (struct sched_gen){ .number = i + 1, .created = i + 1, .state = SNAPDIFF_GEN_LIVE };
		gens[i].uuid[0] = i + 1;
	}
	st.json = json_pack("{s:i,s:{}}", "version", 1, "destinations");
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(state_shipped(&st, &(struct sched){ .gen = gens, .nr = 50 }, "nas", &gens[i], &e), 0);
	for (uint32_t i = 50; i < nr; i++)
		gens[i] = (struct sched_gen){ .number = i + 1, .created = i + 1, .state = SNAPDIFF_GEN_LIVE };
	for (uint32_t i = 40; again && i < nr; i++)
		gens[i].uuid[1] = 1;
	state_apply(&st, &s);
	assert_int_equal(sched_keep(&s, verdicts), 0);
	for (uint32_t i = 0; i < nr; i++)
		assert_int_equal(verdicts[i].fate == SCHED_KEEP, i == nr - 1 || (again ? i >= 40 : i >= 50));
	assert_int_equal(s.last[0].number, expect ? 50 : 0);
	state_free(&st);
}

static void numbers_given_twice(void **state)
{
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(mkdir(agent_path(path, "schedule"), 0700), 0);
	check_row(50, false, true);
	check_row(55, false, true);
	check_row(45, true, false);
	check_row(50, true, false);
	check_row(55, true, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_signal_to_strangers), cmocka_unit_test(cancelled_too_late), cmocka_unit_test(runners_are_waited_for),
		cmocka_unit_test(numbers_given_twice),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
