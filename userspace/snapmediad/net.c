// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Listening, and a process for each session.
 *
 * A session's process shares nothing with the others but the repository, whose own locks (one a staged
 * upload, one a volume while it is published) are enough. A crash of one is the end of one session.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "daemon.h"

#define EXPIRE_EVERY	3600
#define MAX_HTTP	4u		/* requests at once */
#define FIRST_FD	3		/* of those that systemd hands over */

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

/* ---- listening ---- */

static int listen_one(const struct addrinfo *a, bool anywhere, struct sm_err *e)
{
	int one = 1, fd;

	if (!anywhere && !sm_is_loopback(a->ai_addr))
		return sm_fail(e, -EACCES, "not a loopback address: that takes TLS (snapmediad init makes the key)");
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
	return fd;
}

/* All addresses of a name; "*": all there are. Return: 0 or the first error. */
static int listen_on(const char *where, const char *default_port, bool anywhere, int *fd, int room, int *nr, struct sm_err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list, *a;
	char host[256], port[16];
	struct sm_err why;
	int r, err = sm_split_host(where, host, sizeof(host), port, sizeof(port), default_port, e);

	if (err)
		return err;
	r = getaddrinfo(strcmp(host, "*") ? host : NULL, port, &hints, &list);
	if (r)
		return sm_fail(e, -ENOENT, "%s: %s", where, gai_strerror(r));
	for (a = list; a && err >= 0 && *nr < room; a = a->ai_next) {
		err = listen_one(a, anywhere, &why);
		if (err == -EAFNOSUPPORT && a->ai_next)	/* no IPv6 here, or no IPv4 */
			err = 0;
		else if (err >= 0)
			fd[(*nr)++] = err;
	}
	freeaddrinfo(list);
	return err < 0 ? sm_fail(e, err, "%s: %s", where, why.text) : 0;
}

/* Sockets that systemd has opened for us. What it was told to listen on is the operator's choice, but plaintext stays on loopback. */
static int take_over(struct daemon *d, struct sm_err *e)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int n = pid && fds && atoi(pid) == getpid() ? atoi(fds) : 0;

	for (int i = 0; i < n; i++) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(a), size = sizeof(int);
		int fd = FIRST_FD + i, listens = 0;

		if (d->nr == MAX_LISTEN || getsockname(fd, (void *)&a, &len) ||
		    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) || !listens)
			return sm_fail(e, -EINVAL, "descriptor %d from systemd: not a listening socket", fd);
		if (!d->key && !sm_is_loopback((void *)&a))
			return sm_fail(e, -EACCES, "descriptor %d from systemd: not a loopback address, and there is no key", fd);
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		d->fd[d->nr++] = fd;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return n;
}

int net_listen(struct daemon *d, const char *where, const char *http, struct sm_err *e)
{
	char one[300];
	int err = where ? 0 : take_over(d, e), n = 0;

	if (err < 0)
		return err;
	if (!where && !err)
		where = d->key ? "*" : "127.0.0.1";
	for (err = 0; !err && where && *where; where += strspn(where, ",")) {
		size_t len = strcspn(where, ",");

		snprintf(one, sizeof(one), "%.*s", (int)len, where);
		err = listen_on(one, SM_DEFAULT_PORT, d->key, d->fd, MAX_LISTEN, &d->nr, e);
		where += len;
	}
	if (!err && http)
		err = listen_on(http, "7420", false, &d->http, 1, &n, e);
	return err;
}

/* The port it got is told, so that port 0 can be asked for. */
static void tell_port(const char *what, int fd)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char host[64], port[16];

	if (!getsockname(fd, (void *)&a, &len) &&
	    !getnameinfo((void *)&a, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		printf("%s on %s port %s\n", what, host, port);
}

/* ---- sessions ---- */

static int run_child(struct daemon *d, int fd, const char *peer, bool http, const sigset_t *wait_mask)
{
	for (int i = 0; i < d->nr; i++)
		close(d->fd[i]);
	if (d->http >= 0)
		close(d->http);
	if (http) {
		handle(SIGTERM, SIG_DFL);
		sigprocmask(SIG_SETMASK, wait_mask, NULL);
		return http_answer(d, fd);
	}
	return session(d, fd, fd, peer, d->key, wait_mask);
}

static bool may_come(struct daemon *d, const struct sockaddr_storage *a, bool http, const char *peer)
{
	const char *why = NULL;

	if ((http || !d->key) && !sm_is_loopback((const void *)a))
		why = "not a loopback address";
	else if (http ? d->children - d->sessions >= MAX_HTTP : d->sessions >= d->max_sessions)
		why = "too many sessions";
	if (!why)
		return true;
	d->refused++;
	note(d, "refused peer=%s why=\"%s\"", peer, why);
	return false;
}

static void accept_one(struct daemon *d, int listener, bool http, const sigset_t *wait_mask)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char peer[64] = "?";
	int one = 1, fd = accept4(listener, (void *)&a, &len, SOCK_CLOEXEC);
	pid_t pid;

	if (fd < 0)
		return;
	getnameinfo((void *)&a, len, peer, sizeof(peer), NULL, 0, NI_NUMERICHOST);
	if (!may_come(d, &a, http, peer)) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	pid = fork();
	if (!pid)
		_exit(run_child(d, fd, peer, http, wait_mask));
	if (pid > 0) {
		struct child *c = &d->child[d->children++];

		*c = (struct child){ .pid = pid, .since = time(NULL), .http = http };
		memcpy(c->peer, peer, sizeof(c->peer));
		d->sessions += !http;
		d->served += !http;
	} else {
		note(d, "refused peer=%s why=\"%s\"", peer, strerror(errno));
	}
	close(fd);
}

static void reap(struct daemon *d)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (uint32_t i = 0; i < d->children; i++)
			if (d->child[i].pid == pid) {
				d->sessions -= !d->child[i].http;
				d->child[i] = d->child[--d->children];
				break;
			}
		if (WIFSIGNALED(status))
			note(d, "killed session=%d signal=%d", (int)pid, WTERMSIG(status));
	}
}

static void expire(struct daemon *d)
{
	char text[QUOTED];
	struct sm_err e;
	int n;

	if (time(NULL) < d->next_expire)
		return;
	d->next_expire = time(NULL) + EXPIRE_EVERY;
	n = sm_repo_expire_uploads(&d->repo, (uint64_t)d->expire_days * 86400, &e);
	if (n < 0)
		note(d, "expire error=%s", quoted(e.text, text));
	else if (n)
		note(d, "expire uploads=%d", n);
}

static void main_loop(struct daemon *d, const sigset_t *wait_mask)
{
	while (!stopping) {
		struct pollfd p[MAX_LISTEN + 1];
		struct timespec t = { .tv_sec = EXPIRE_EVERY };

		expire(d);
		for (int i = 0; i < d->nr; i++)
			p[i] = (struct pollfd){ .fd = d->fd[i], .events = POLLIN };
		p[d->nr] = (struct pollfd){ .fd = d->http, .events = POLLIN };
		if (ppoll(p, d->nr + 1, &t, wait_mask) < 0) {
			if (errno != EINTR)
				break;
			for (int i = 0; i <= d->nr; i++)
				p[i].revents = 0;
		}
		reap(d);
		for (int i = 0; i <= d->nr && !stopping; i++)
			if (p[i].revents & POLLIN)
				accept_one(d, p[i].fd, i == d->nr, wait_mask);
	}
}

/* Sessions end at their next frame, with all they have taken on disk. */
static void wind_down(struct daemon *d)
{
	time_t until = time(NULL) + 20;

	notify("STOPPING=1");
	for (uint32_t i = 0; i < d->children; i++)
		kill(d->child[i].pid, SIGTERM);
	while (d->children && time(NULL) < until) {
		reap(d);
		usleep(20000);
	}
	for (uint32_t i = 0; i < d->children; i++)
		kill(d->child[i].pid, SIGKILL);
	note(d, "stopped cut_off=%u", d->children);
}

int net_serve(struct daemon *d, struct sm_err *e)
{
	sigset_t wait_mask;

	d->child = calloc(d->max_sessions + MAX_HTTP + 1, sizeof(*d->child));
	if (!d->child)
		return sm_fail(e, -ENOMEM, "no memory");
	for (int i = 0; i < d->nr; i++)
		tell_port("listening", d->fd[i]);
	if (d->http >= 0)
		tell_port("HTTP", d->http);
	fflush(stdout);
	if (!d->foreground && daemon(0, 1))
		return sm_fail(e, -errno, "cannot become a daemon: %s", strerror(errno));
	d->started = time(NULL);
	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	handle(SIGCHLD, on_child);
	block_signals(&wait_mask);
	notify("READY=1");
	main_loop(d, &wait_mask);
	wind_down(d);
	free(d->child);
	return 0;
}

int serve_stdio(struct daemon *d)
{
	sigset_t wait_mask;

	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	block_signals(&wait_mask);
	return session(d, 0, 1, "stdio", false, &wait_mask);
}
