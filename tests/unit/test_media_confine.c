// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a confined process can do, and what it can not: each attempt in a process of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"

static char dir[64], a[96], b[96], readable[96], secret[96];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

static void put(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "secret", 6), 6);
	close(fd);
}

static int setup(void **state)
{
	char path[128];

	strcpy(dir, "/tmp/snapmedia-confine.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(a, sizeof(a), "%s/a", dir);
	snprintf(b, sizeof(b), "%s/b", dir);
	snprintf(readable, sizeof(readable), "%s/readable", dir);
	snprintf(secret, sizeof(secret), "%s/server.key", dir);
	mkdir(a, 0700);
	mkdir(b, 0700);
	mkdir(readable, 0700);
	put(secret);
	snprintf(path, sizeof(path), "%s/file", readable);
	put(path);
	return 0;
}

static int teardown(void **state)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

/* Run @attempt confined: its value, or 1000 + the signal that ended it. */
static int confined_by(int (*confine)(const struct sm_allowed *, unsigned int, struct sm_err *), int (*attempt)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		const struct sm_allowed allowed[] = { { a, true }, { b, true }, { readable, false }, { "/nonexistent", true } };
		struct sm_err e;

		signal(SIGSYS, SIG_DFL);
		if (confine(allowed, 4, &e))
			_exit(250);
		_exit(attempt());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int confined(int (*attempt)(void))
{
	return confined_by(sm_confine, attempt);
}

static int open_errno(const char *path, int flags)
{
	int fd = open(path, flags, 0600), err = fd < 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	return err;
}

/* What a session does: write, sync, link from one directory to the other, list, remove; memory. */
static int work(void)
{
	char from[128], to[128], sub[128];
	void *m;
	int fd;

	snprintf(from, sizeof(from), "%s/x", a);
	snprintf(sub, sizeof(sub), "%s/sub", b);
	snprintf(to, sizeof(to), "%s/sub/x", b);
	fd = open(from, O_CREAT | O_RDWR, 0600);
	if (fd < 0 || write(fd, "1", 1) != 1 || fsync(fd) || posix_fallocate(fd, 0, 8192) || ftruncate(fd, 100))
		return 1;
	close(fd);
	if (mkdir(sub, 0700) || link(from, to) || unlink(from) || rename(to, from) || rmdir(sub) || open_errno(from, O_RDWR | O_TRUNC) ||
	    unlink(from))
		return 2;
	fd = open(a, O_TMPFILE | O_RDWR, 0600);
	if (fd < 0 || ftruncate(fd, 1 << 20))
		return 3;
	m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED || munmap(m, 1 << 20))
		return 4;
	return 0;
}

static volatile sig_atomic_t heard;

static void hear(int sig)
{
	heard = sig;
}

/* It may signal itself, as abort() does, and do with descriptors what the C library does. */
static int mind_itself(void)
{
	struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	int fd = open(a, O_RDONLY | O_DIRECTORY), other = fcntl(fd, F_DUPFD_CLOEXEC, 20);

	signal(SIGUSR1, hear);
	if (raise(SIGUSR1) || heard != SIGUSR1)
		return 1;
	if (fd < 0 || other < 20 || fcntl(fd, F_GETFD) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) || fcntl(fd, F_GETLK, &l))
		return 2;
	return 0;
}

static int read_system_file(void) { return open_errno("/etc/passwd", O_RDONLY); }
static int read_key(void) { return open_errno(secret, O_RDONLY); }
static int replace_key(void) { return unlink(secret) ? errno : 0; }

static int write_readable(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/file", readable);
	return open_errno(path, O_RDONLY) ? 1 : open_errno(path, O_WRONLY);
}

static int new_in_parent(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/new", dir);
	return open_errno(path, O_CREAT | O_WRONLY);
}

static int run_program(void) { return execl("/bin/true", "true", NULL); }
static int make_process(void) { return fork() ? 0 : 0; }
static int make_socket(void) { return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : 1; }
static int make_datagram(void) { return socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 ? 0 : 1; }
static int trace_parent(void) { return ptrace(PTRACE_ATTACH, getppid(), 0, 0) ? 1 : 0; }
static int signal_parent(void) { return kill(getppid(), SIGCONT) ? 1 : 0; }
static int signal_thread(void) { return syscall(SYS_tgkill, getppid(), getppid(), SIGCONT) ? 1 : 0; }
static int own_signals(void) { return fcntl(0, F_SETOWN, getppid()) ? 1 : 0; }
static int change_mode(void) { return chmod(a, 0777) ? 1 : 0; }
static int become_root(void) { return setuid(0) ? 1 : 0; }

static int generic_netlink(void)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

	return fd < 0 ? errno : bind(fd, (struct sockaddr *)&a, sizeof(a)) ? errno : 0;
}

static int route_netlink(void) { return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0 ? errno : 0; }

static int run_memory(void)
{
	void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return m == MAP_FAILED ? errno : 0;
}

static int unknown_call(void) { return syscall(SYS_swapoff, "x") ? errno : 0; }

static int raise_limit(void)
{
	const struct rlimit l = { 1 << 20, 1 << 20 };
	struct rlimit now;

	if (getrlimit(RLIMIT_CORE, &now) || now.rlim_max)
		return 1;
	return setrlimit(RLIMIT_CORE, &l) ? errno : 0;
}

static void a_session_can_work(void **state)
{
	assert_int_equal(confined(work), 0);
	assert_int_equal(confined(mind_itself), 0);
}

static void files_elsewhere_are_not_there(void **state)
{
	if (!sm_landlock())
		skip();
	assert_int_equal(confined(read_system_file), EACCES);
	assert_int_equal(confined(read_key), EACCES);
	assert_int_equal(confined(replace_key), EACCES);
	assert_int_equal(confined(write_readable), EACCES);
	assert_int_equal(confined(new_in_parent), EACCES);
	assert_int_equal(access(secret, R_OK), 0);
}

static void what_no_session_does_ends_it(void **state)
{
	int (*const deadly[])(void) = { run_program, make_process, make_socket, make_datagram, trace_parent, signal_parent,
					signal_thread, own_signals, change_mode, become_root };

	for (size_t i = 0; i < sizeof(deadly) / sizeof(*deadly); i++)
		assert_int_equal(confined(deadly[i]), 1000 + SIGSYS);
}

static void the_rest_is_refused(void **state)
{
	assert_int_equal(confined(unknown_call), ENOSYS);
	assert_int_equal(confined(run_memory), ENOSYS);
	assert_int_equal(confined(raise_limit), ENOSYS);
}

/* Who orders things of the module: generic netlink more, and nothing else. */
static void netlink_and_no_more(void **state)
{
	int (*const deadly[])(void) = { run_program, make_process, make_socket, make_datagram, trace_parent, signal_parent,
					signal_thread, own_signals, change_mode, become_root };

	for (size_t i = 0; i < sizeof(deadly) / sizeof(*deadly); i++)
		assert_int_equal(confined_by(sm_confine_netlink, deadly[i]), 1000 + SIGSYS);
	assert_int_equal(confined_by(sm_confine_netlink, work), 0);
	assert_int_equal(confined_by(sm_confine_netlink, generic_netlink), 0);
	assert_int_equal(confined_by(sm_confine_netlink, route_netlink), ENOSYS);
	assert_int_equal(confined_by(sm_confine_netlink, run_memory), ENOSYS);
	assert_int_equal(confined(generic_netlink), 1000 + SIGSYS);
	if (sm_landlock())
		assert_int_equal(confined_by(sm_confine_netlink, read_system_file), EACCES);
}

/* No capability, nothing to gain by a program, a filter: as the kernel sees it. */
static void the_kernel_says_so(void **state)
{
	const struct sm_allowed allowed[] = { { a, true } };
	char path[64], line[256];
	int ready[2], found = 0;
	pid_t pid;
	FILE *f;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		char c = sm_confine(allowed, 1, NULL) ? 'n' : 'y';

		_exit(write(ready[1], &c, 1) == 1 ? poll(NULL, 0, -1) : 0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], line, 1), 1);
	assert_int_equal(line[0], 'y');
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found += !strcmp(line, "NoNewPrivs:\t1\n") || !strcmp(line, "Seccomp:\t2\n") ||
			 !strcmp(line, "CapEff:\t0000000000000000\n") || !strcmp(line, "CapPrm:\t0000000000000000\n");
	fclose(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ready[0]);
	assert_int_equal(found, 4);
}

/* Root becomes the files' owner, and cannot be root again; without root nothing happens. */
static void root_becomes_the_owner(void **state)
{
	struct sm_err e;
	int status;
	pid_t pid;

	if (geteuid() || chown(a, 65534, 65534))
		skip();		/* not root, or only of a namespace */
	pid = fork();
	if (!pid) {
		if (sm_become("root", a, &e) != -EACCES || sm_become("no-such-user", a, &e) != -ENOENT || sm_become(NULL, b, &e) || geteuid())
			_exit(1);
		if (sm_become(NULL, a, &e) || getuid() != 65534 || geteuid() != 65534 || getgid() != 65534 || getgroups(0, NULL))
			_exit(2);
		_exit(setuid(0) && seteuid(0) && !sm_become(NULL, b, &e) ? 0 : 3);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_session_can_work),
		TEST(files_elsewhere_are_not_there),
		TEST(what_no_session_does_ends_it),
		TEST(the_rest_is_refused),
		TEST(netlink_and_no_more),
		TEST(the_kernel_says_so),
		TEST(root_becomes_the_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
