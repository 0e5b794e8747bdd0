// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Why each layer is there although the others are: a user of its own keeps an intruder out of the system's files, Landlock
 * out of the repository's keys and everything else that this user may read, seccomp out of the kernel's
 * less-travelled system calls and the network; without capabilities even a session that stays root (a repository of
 * root's) is not more than its files' owner.
 *
 * The list of system calls is of what sessions do: files, their own memory, the connection they have. Two
 * answers to others: those that have no place in a session at all (programs, sockets, other processes, kernel administration) end it
 * with SIGSYS, so that it stands in the log; of those that nobody thought of here the C library hears ENOSYS, and falls
 * back, so that another version of it is no outage.
 */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#define MEMORY_MAX	RLIM_INFINITY	/* its shadow alone is terabytes */
#else
#define MEMORY_MAX	(1ull << 30)	/* private memory; sessions take a tenth of it */
#endif

/* Newer than Debian 12's headers. */
#define ACCESS_TRUNCATE		(1ull << 14)	/* version 3 */
#define ACCESS_NET		3ull		/* version 4: bind, connect */
#define ACCESS_IOCTL_DEV	(1ull << 15)	/* version 5 */
#define SCOPE_ALL		3ull		/* version 6: abstract sockets, signals */
#define LANDLOCK_LEAST		2		/* version 1 refuses links between directories: commits are made of them */

struct ruleset {
	uint64_t fs, net, scoped;
};

int sm_landlock(void)
{
	long v = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return v < LANDLOCK_LEAST ? 0 : v;
}

bool sm_seccomp(void)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	return !syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
}

static int allow_one(int ruleset, const struct sm_allowed *a, uint64_t handled, struct sm_err *e)
{
	const uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
	const uint64_t writing = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |
				 LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REFER |
				 ACCESS_TRUNCATE;
	struct landlock_path_beneath_attr rule = { .allowed_access = (a->write ? reading | writing : reading) & handled };
	int err = 0;

	rule.parent_fd = open(a->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return errno == ENOENT ? 0 : sm_fail(e, -errno, "%s: %s", a->path, strerror(errno));
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		err = sm_fail(e, -errno, "%s: Landlock: %s", a->path, strerror(errno));
	close(rule.parent_fd);
	return err;
}

static int confine_files(const struct sm_allowed *allowed, unsigned int nr, struct sm_err *e)
{
	int version = sm_landlock(), fd, err = 0;
	struct ruleset r = { .fs = (1ull << 14) - 1 };	/* version 2 */
	size_t size = version >= 6 ? sizeof(r) : version >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);

	if (!version)
		return 0;
	if (version >= 3)
		r.fs |= ACCESS_TRUNCATE;
	if (version >= 4)
		r.net = ACCESS_NET;
	if (version >= 5)
		r.fs |= ACCESS_IOCTL_DEV;
	if (version >= 6)
		r.scoped = SCOPE_ALL;
	fd = syscall(SYS_landlock_create_ruleset, &r, size, 0);
	if (fd < 0)
		return sm_fail(e, -errno, "Landlock: %s", strerror(errno));
	for (unsigned int i = 0; !err && i < nr; i++)
		err = allow_one(fd, &allowed[i], r.fs, e);
	if (!err && syscall(SYS_landlock_restrict_self, fd, 0))
		err = sm_fail(e, -errno, "Landlock: %s", strerror(errno));
	close(fd);
	return err;
}

static const char *const needed[] = {
	/* the connection, and what is open */
	"read", "readv", "write", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
	"pwritev2", "close", "lseek", "_llseek", "flock", "dup",
	"poll", "ppoll", "ppoll_time64", "select", "pselect6", "recvfrom", "recvmsg", "sendto", "sendmsg", "recv", "send",
	"shutdown", "getsockopt", "setsockopt", "getsockname", "getpeername",
	/* files, where Landlock lets us */
	"open", "openat", "access", "faccessat", "faccessat2", "stat", "stat64", "lstat", "lstat64", "fstat", "fstat64", "newfstatat",
	"fstatat64", "statx", "statfs", "statfs64", "fstatfs", "fstatfs64", "getdents", "getdents64", "readlink", "readlinkat",
	"fsync", "fdatasync", "fallocate", "ftruncate", "ftruncate64", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat",
	"rmdir", "rename", "renameat", "renameat2", "fadvise64", "fadvise64_64", "sync_file_range", "sync_file_range2",
	/* memory; mmap and mprotect have rules of their own */
	"brk", "munmap", "mremap", "madvise", "msync", "futex", "futex_time64",
	/* time, chance, who am I */
	"clock_gettime", "clock_gettime64", "clock_getres", "gettimeofday", "time", "nanosleep", "clock_nanosleep",
	"clock_nanosleep_time64", "getrandom", "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getppid", "uname",
	"sysinfo", "getrusage", "times", "sched_yield", "sched_getaffinity", "alarm", "setitimer",
	/* signals to itself (tgkill and fcntl have rules of their own), and the end */
	"rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall", "exit", "exit_group",
	"set_robust_list", "rseq",
};

/* No session has a reason for these: one that tries is not ours any more. */
static const char *const deadly[] = {
	"execve", "execveat", "fork", "vfork", "clone", "clone3", "socketpair", "connect", "listen", "accept",
	"accept4", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill", "pidfd_open", "pidfd_getfd",
	"pidfd_send_signal", "mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "open_by_handle_at", "bpf",
	"perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key", "request_key", "init_module", "finit_module",
	"kexec_load", "setuid", "setresuid", "setgid", "setresgid", "setgroups", "capset", "chown", "fchown", "lchown", "fchownat",
	"chmod", "fchmod", "fchmodat", "mknod", "mknodat", "symlink", "symlinkat",
};

static int add_rules(scmp_filter_ctx f, const char *const *names, size_t nr, uint32_t action)
{
	for (size_t i = 0; i < nr; i++) {
		int call = seccomp_syscall_resolve_name(names[i]), err;

		if (call == __NR_SCMP_ERROR)	/* one of another architecture, or of a later kernel than the library's */
			continue;
		err = seccomp_rule_add(f, action, call, 0);
		if (err)
			return err;
	}
	return 0;
}

static int add_for_values(scmp_filter_ctx f, const char *name, unsigned int arg, const int *values, size_t nr, uint32_t action)
{
	int call = seccomp_syscall_resolve_name(name), err = 0;

	for (size_t i = 0; !err && call != __NR_SCMP_ERROR && i < nr; i++)
		err = seccomp_rule_add(f, action, call, 1, SCMP_CMP(arg, SCMP_CMP_EQ, values[i]));
	return err;
}

/*
 * Other processes of the same user can be signalled without any privilege, and an agent's session is root: not by tgkill(), nor by becoming the
 * owner of a descriptor's signals. (Landlock says that, too, but only from version 6 on.)
 */
static int add_signals(scmp_filter_ctx f)
{
	static const int plain[] = {
		F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, 5, 6, 7, 12, 13, 14,	/* locks, of 32 and of 64 bits */
		36, 37, 38,									/* F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW */
	};
	static const int owner[] = { F_SETOWN, 10, 15 };	/* F_SETSIG, F_SETOWN_EX */
	static const char *const calls[] = { "fcntl", "fcntl64" };
	int err;

	err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, getpid()));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_NE, getpid()));
	for (size_t i = 0; !err && i < sizeof(calls) / sizeof(*calls); i++) {
		err = add_for_values(f, calls[i], 1, plain, sizeof(plain) / sizeof(*plain), SCMP_ACT_ALLOW);
		if (!err)
			err = add_for_values(f, calls[i], 1, owner, sizeof(owner) / sizeof(*owner), SCMP_ACT_KILL_PROCESS);
	}
	return err;
}

/* Memory, but nothing in it that can be run; limits to be read, not set. */
static int add_conditions(scmp_filter_ctx f)
{
	static const char *const maps[] = { "mmap", "mmap2", "mprotect" };
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(maps) / sizeof(*maps); i++) {
		int call = seccomp_syscall_resolve_name(maps[i]);

		if (call != __NR_SCMP_ERROR)
			err = seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	}
	return err ? err : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0));
}

/* Generic netlink goes nowhere but into the kernel, and a socket of it cannot be had without a bind(). */
static int add_sockets(scmp_filter_ctx f, bool netlink)
{
	static const char *const both[] = { "socket", "bind" };
	int err;

	if (!netlink)
		return add_rules(f, both, 2, SCMP_ACT_KILL_PROCESS);
	err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(bind), 0);
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_NETLINK));
	return err ? err : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK),
					    SCMP_A2(SCMP_CMP_EQ, NETLINK_GENERIC));
}

static int confine_calls(bool netlink, struct sm_err *e)
{
	scmp_filter_ctx f;
	int err;

	if (!sm_seccomp())
		return 0;
	f = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	err = f ? 0 : -ENOMEM;

	if (!err)
		err = add_rules(f, needed, sizeof(needed) / sizeof(*needed), SCMP_ACT_ALLOW);
	if (!err)
		err = add_rules(f, deadly, sizeof(deadly) / sizeof(*deadly), SCMP_ACT_KILL_PROCESS);
	if (!err)
		err = add_sockets(f, netlink);
	if (!err)
		err = add_conditions(f);
	if (!err)
		err = add_signals(f);
	if (!err)
		err = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return err ? sm_fail(e, err, "seccomp: %s", strerror(-err)) : 0;
}

static int drop_capabilities(bool netlink, struct sm_err *e)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct have[2] = { { 0 } }, d[2] = { { 0 } };

	if (netlink && !syscall(SYS_capget, &h, have))
		d[0].effective = d[0].permitted = have[0].permitted & 1u << CAP_SYS_ADMIN;

	/* Not before: ambient ones go with the permitted, and of the bounding set nothing can come without an exec. */
	if (syscall(SYS_capset, &h, d) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return sm_fail(e, -errno, "cannot give up privileges: %s", strerror(errno));
	return 0;
}

static int set_limits(struct sm_err *e)
{
	const struct rlimit none = { 0, 0 }, memory = { MEMORY_MAX, MEMORY_MAX };
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return sm_fail(e, -errno, "limits: %s", strerror(errno));
	files.rlim_max = files.rlim_cur;
	if (setrlimit(RLIMIT_CORE, &none) || setrlimit(RLIMIT_DATA, &memory) || setrlimit(RLIMIT_NOFILE, &files))
		return sm_fail(e, -errno, "limits: %s", strerror(errno));
	return 0;
}

static int confine(const struct sm_allowed *allowed, unsigned int nr, bool netlink, struct sm_err *e)
{
	uint8_t digest[SM_DIGEST];
	int err;

	/* What libraries read at their first use, they read now. */
	tzset();
	sm_sha256("", 0, digest);
	sm_random(digest, sizeof(digest));
	if ((err = set_limits(e)) || (err = drop_capabilities(netlink, e)) || (err = confine_files(allowed, nr, e)))
		return err;
	return confine_calls(netlink, e);
}

int sm_confine(const struct sm_allowed *allowed, unsigned int nr, struct sm_err *e)
{
	return confine(allowed, nr, false, e);
}

int sm_confine_netlink(const struct sm_allowed *allowed, unsigned int nr, struct sm_err *e)
{
	return confine(allowed, nr, true, e);
}

/* ---- users ---- */

static int look_up(const char *name, uid_t *uid, gid_t *gid, struct sm_err *e)
{
	const struct passwd *p;

	errno = 0;
	p = getpwnam(name);
	if (!p)
		return sm_fail(e, errno ? -errno : -ENOENT, "%s: no such user", name);
	*uid = p->pw_uid;
	*gid = p->pw_gid;
	return 0;
}

int sm_become(const char *user, const char *path, struct sm_err *e)
{
	struct stat st;
	uid_t uid;
	gid_t gid;
	int err;

	if (geteuid())
		return 0;
	if (stat(path, &st))
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	uid = st.st_uid;
	gid = st.st_gid;
	err = user ? look_up(user, &uid, &gid, e) : 0;
	if (err)
		return err;
	if (uid != st.st_uid)
		return sm_fail(e, -EACCES, "%s: does not belong to user %s", path, user);
	if (!uid)
		return 0;
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return sm_fail(e, -errno, "cannot become user %u: %s", (unsigned int)uid, strerror(errno));
	return setuid(0) ? 0 : sm_fail(e, -EPERM, "root cannot be given up");
}
