// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapmediad: serves a repository, a process for each session.
 *
 * A session's process shares nothing with the others but the repository, whose own locks (one a staged
 * upload, one a volume while it is published) are enough. A crash of one is the end of one session.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "session.h"

#define MAX_LISTEN	8
#define SILENCE_MS	(15 * 60 * 1000)
#define EXPIRE_EVERY	3600

struct daemon {
	struct sm_repo repo;
	struct sm_identity id;
	uint32_t max_sessions, sessions, expire_days;
	pid_t *session;			/* of sessions running */
	int fd[MAX_LISTEN], nr;
	time_t next_expire;
	bool quiet, foreground;
};

static volatile sig_atomic_t stopping;

static void on_stop(int sig)
{
	(void)sig;
	stopping = 1;
}

static void on_child(int sig)
{
	(void)sig;	/* only to leave ppoll() */
}

static void __attribute__((format(printf, 2, 3))) note(const struct daemon *d, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	if (d->quiet)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "snapmediad[%d]: %s\n", (int)getpid(), text);
}

static void handle(int sig, void (*fn)(int))
{
	struct sigaction sa = { .sa_handler = fn };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static void block_signals(sigset_t *old)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, SIGTERM);
	sigaddset(&s, SIGINT);
	sigaddset(&s, SIGCHLD);
	sigprocmask(SIG_BLOCK, &s, old);
}

/* One session to its end. Return: exit status. */
static int session(struct daemon *d, int in, int out, const char *peer, const sigset_t *wait_mask)
{
	struct sm_err e = { 0 };
	struct sm_chan c;
	int err;

	sm_chan_init(&c, in, out);
	c.wait_mask = wait_mask;
	c.timeout_ms = SILENCE_MS;
	note(d, "%s: session of client %s", peer, d->id.client);
	err = sm_serve(&d->repo, &c, &d->id, &e);
	if (err)
		note(d, "%s: session ended: %s", peer, e.text);
	else
		note(d, "%s: session done, %llu bytes in, %llu out", peer, (unsigned long long)c.bytes_in,
		     (unsigned long long)c.bytes_out);
	sm_chan_free(&c);
	return err ? SNAP_EXIT_IO : 0;
}

/* ---- listening ---- */

static int listen_one(struct daemon *d, const struct addrinfo *a, struct sm_err *e)
{
	int one = 1, fd;

	if (!sm_is_loopback(a->ai_addr))
		return sm_fail(e, -EACCES, "not a loopback address: without TLS nothing else is listened on; use ssh");
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return sm_fail(e, -errno, "socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 64)) {
		int err = sm_fail(e, -errno, "cannot listen: %s", strerror(errno));

		close(fd);
		return err;
	}
	d->fd[d->nr++] = fd;
	return 0;
}

static int listen_on(struct daemon *d, const char *where, struct sm_err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list, *a;
	char host[256], port[16];
	struct sm_err why;
	int r, err = sm_split_host(where, host, sizeof(host), port, sizeof(port), SM_DEFAULT_PORT, e);

	if (err)
		return err;
	r = getaddrinfo(host, port, &hints, &list);
	if (r)
		return sm_fail(e, -ENOENT, "%s: %s", where, gai_strerror(r));
	for (a = list; a && !err && d->nr < MAX_LISTEN; a = a->ai_next)
		err = listen_one(d, a, &why);
	freeaddrinfo(list);
	return err ? sm_fail(e, err, "%s: %s", where, why.text) : 0;
}

/* The port it got is told, so that port 0 can be asked for. */
static void tell_ports(const struct daemon *d)
{
	for (int i = 0; i < d->nr; i++) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(a);
		char host[64], port[16];

		if (!getsockname(d->fd[i], (void *)&a, &len) &&
		    !getnameinfo((void *)&a, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
			printf("listening on %s port %s\n", host, port);
	}
	fflush(stdout);
}

static void accept_one(struct daemon *d, int listener, const sigset_t *wait_mask)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char peer[64] = "?";
	int one = 1, fd = accept4(listener, (void *)&a, &len, SOCK_CLOEXEC);
	pid_t pid;

	if (fd < 0)
		return;
	getnameinfo((void *)&a, len, peer, sizeof(peer), NULL, 0, NI_NUMERICHOST);
	if (!sm_is_loopback((void *)&a) || d->sessions >= d->max_sessions) {
		note(d, "%s: refused, %s", peer, d->sessions >= d->max_sessions ? "too many sessions" : "not a loopback address");
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	pid = fork();
	if (!pid) {
		for (int i = 0; i < d->nr; i++)
			close(d->fd[i]);
		_exit(session(d, fd, fd, peer, wait_mask));
	}
	if (pid > 0)
		d->session[d->sessions++] = pid;
	else
		note(d, "%s: cannot start a session: %s", peer, strerror(errno));
	close(fd);
}

static void reap(struct daemon *d)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (uint32_t i = 0; i < d->sessions; i++)
			if (d->session[i] == pid) {
				d->session[i] = d->session[--d->sessions];
				break;
			}
		if (WIFSIGNALED(status))
			note(d, "a session was killed by signal %d", WTERMSIG(status));
	}
}

static void expire(struct daemon *d)
{
	struct sm_err e;
	int n;

	if (time(NULL) < d->next_expire)
		return;
	d->next_expire = time(NULL) + EXPIRE_EVERY;
	n = sm_repo_expire_uploads(&d->repo, (uint64_t)d->expire_days * 86400, &e);
	if (n)
		note(d, "%s%d abandoned uploads removed", n < 0 ? e.text : "", n < 0 ? 0 : n);
}

static void main_loop(struct daemon *d, const sigset_t *wait_mask)
{
	while (!stopping) {
		struct pollfd p[MAX_LISTEN];
		struct timespec t = { .tv_sec = EXPIRE_EVERY };

		expire(d);
		for (int i = 0; i < d->nr; i++)
			p[i] = (struct pollfd){ .fd = d->fd[i], .events = POLLIN };
		if (ppoll(p, d->nr, &t, wait_mask) < 0 && errno != EINTR)
			break;
		reap(d);
		for (int i = 0; i < d->nr && !stopping; i++)
			if (p[i].revents & POLLIN)
				accept_one(d, d->fd[i], wait_mask);
	}
}

/* Sessions end at their next frame, with all they have taken on disk. */
static void wind_down(struct daemon *d)
{
	time_t until = time(NULL) + 20;

	for (uint32_t i = 0; i < d->sessions; i++)
		kill(d->session[i], SIGTERM);
	while (d->sessions && time(NULL) < until) {
		reap(d);
		usleep(20000);
	}
	note(d, "stopped, %u sessions cut off", d->sessions);
}

static int serve_network(struct daemon *d, const char *where, struct sm_err *e)
{
	sigset_t wait_mask;
	int err = listen_on(d, where, e);

	if (err)
		return err;
	d->session = calloc(d->max_sessions + 1, sizeof(*d->session));
	if (!d->session)
		return sm_fail(e, -ENOMEM, "no memory");
	tell_ports(d);
	if (!d->foreground && daemon(0, 1))
		return sm_fail(e, -errno, "cannot become a daemon: %s", strerror(errno));
	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	handle(SIGCHLD, on_child);
	block_signals(&wait_mask);
	main_loop(d, &wait_mask);
	wind_down(d);
	return 0;
}

static int serve_stdio(struct daemon *d)
{
	sigset_t wait_mask;

	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	block_signals(&wait_mask);
	return session(d, 0, 1, "stdio", &wait_mask);
}

/* ---- options ---- */

static int parse_roles(const char *text, uint32_t *roles)
{
	char copy[128], *save = NULL;

	*roles = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (!strcmp(w, "backup"))
			*roles |= SM_ROLE_BACKUP;
		else if (!strcmp(w, "restore"))
			*roles |= SM_ROLE_RESTORE;
		else
			return -EINVAL;
	}
	return *roles ? 0 : -EINVAL;
}

static const char help[] =
	"Serves the repository REPO (default: $SNAPMEDIA_REPO, or /var/lib/snapmedia) to snapbackup and snaprestore.\n"
	"--stdio serves one session on stdin and stdout, as a forced command of ssh:\n"
	"  command=\"snapmediad --stdio --client NAME REPO\",restrict ssh-ed25519 ...\n"
	"The client's name comes from there, never from the network; each client sees its own volumes only.\n"
	"Until there is TLS, nothing but loopback addresses is listened on, and all of it is client \"" SM_CLIENT_DEFAULT "\".";

static int run(int argc, char **argv);
static const struct snap_cmd cmd = {
	.args = "[REPO]", .summary = "serve a media repository", .help = help, .max_args = 1, .run = run,
};

static int run(int argc, char **argv)
{
	static struct daemon d = { .max_sessions = 64, .expire_days = 14 };
	const char *where = "127.0.0.1", *client = SM_CLIENT_DEFAULT, *roles = "backup,restore", *path;
	bool use_stdio = false;
	const struct snap_opt opts[] = {
		{ "listen", 'l', SNAP_OPT_STRING, "ADDRESS[:PORT]", &where, "default 127.0.0.1:" SM_DEFAULT_PORT "; port 0 takes a free one" },
		{ "stdio", 0, SNAP_OPT_FLAG, NULL, &use_stdio, "one session on stdin and stdout" },
		{ "client", 'c', SNAP_OPT_STRING, "NAME", &client, "who the peer is (default " SM_CLIENT_DEFAULT ")" },
		{ "role", 0, SNAP_OPT_STRING, "ROLE[,ROLE]", &roles, "what it may do: backup, restore (default both)" },
		{ "max-sessions", 0, SNAP_OPT_U32, "N", &d.max_sessions, "at once (default 64)" },
		{ "expire", 0, SNAP_OPT_U32, "DAYS", &d.expire_days, "remove abandoned uploads (default 14)" },
		{ "foreground", 'f', SNAP_OPT_FLAG, NULL, &d.foreground, "do not become a daemon" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &d.quiet, "no log on stderr" },
		{ 0 }
	};
	struct sm_err e = { 0 };
	struct snap_err se;
	int rc = snap_opts(&cmd, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (!sm_client_valid(client) || parse_roles(roles, &d.id.roles))
		return snap_usage_error("--client: letters, digits, dot, dash; --role: backup, restore");
	snprintf(d.id.client, sizeof(d.id.client), "%s", client);
	path = argc ? argv[0] : getenv("SNAPMEDIA_REPO");
	signal(SIGPIPE, SIG_IGN);
	err = sm_repo_open(path && *path ? path : "/var/lib/snapmedia", &d.repo, &e);
	if (!err && use_stdio)
		return serve_stdio(&d);
	if (!err)
		err = serve_network(&d, where, &e);
	sm_repo_close(&d.repo);
	if (!err)
		return 0;
	snap_err_set(&se, err, "", "%s", e.text);
	return snap_err_report(&se);
}

int main(int argc, char **argv)
{
	return snap_main_single("snapmediad", &cmd, argc, argv);
}
