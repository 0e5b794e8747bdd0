// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Listening, and a process for each session.
 *
 * A session's process shares nothing with the others but files, whose own locks are enough. A crash of one is the end
 * of one session.
 */
#include "service.h"

#include <errno.h>
#include <fcntl.h>
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

#include "dest.h"

#define HOURLY		3600
#define MAX_HTTP	4u		/* requests at once */
#define LINGER_SECONDS	2
#define FIRST_FD	3		/* of those that systemd hands over */

static volatile sig_atomic_t stopping;

/* ---- log ---- */

void sm_note(const struct sm_service *s, const char *fmt, ...)
{
	char text[2 * SM_QUOTED];
	va_list ap;

	if (s->quiet)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "%s[%d]: %s\n", s->program, (int)getpid(), text);
}

char *sm_quoted(const char *text, char out[SM_QUOTED])
{
	size_t n = 0;

	out[n++] = '"';
	for (; *text && n < SM_QUOTED - 3; text++) {
		if (*text == '"' || *text == '\\')
			out[n++] = '\\';
		out[n++] = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
	}
	out[n++] = '"';
	out[n] = '\0';
	return out;
}

/* ---- signals ---- */

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
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, old);
}

/* ---- listening ---- */

static int listen_one(const struct addrinfo *a, bool anywhere, struct sm_err *e)
{
	int one = 1, fd;

	if (!anywhere && !sm_is_loopback(a->ai_addr))
		return sm_fail(e, -EACCES, "not a loopback address: that takes TLS (the init command makes the key)");
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
static int take_over(struct sm_service *s, struct sm_err *e)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int n = pid && fds && atoi(pid) == getpid() ? atoi(fds) : 0;

	for (int i = 0; i < n; i++) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(a), size = sizeof(int);
		int fd = FIRST_FD + i, listens = 0;

		if (s->nr == SM_MAX_LISTEN || getsockname(fd, (void *)&a, &len) ||
		    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) || !listens)
			return sm_fail(e, -EINVAL, "descriptor %d from systemd: not a listening socket", fd);
		if (!s->anywhere && !sm_is_loopback((void *)&a))
			return sm_fail(e, -EACCES, "descriptor %d from systemd: not a loopback address, and there is no key", fd);
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		s->fd[s->nr++] = fd;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return n;
}

int sm_service_listen(struct sm_service *s, const char *where, const char *http, struct sm_err *e)
{
	char one[300];
	int err = where ? 0 : take_over(s, e), n = 0;

	if (err < 0)
		return err;
	if (!where && !err)
		where = s->anywhere ? "*" : "127.0.0.1";
	for (err = 0; !err && where && *where; where += strspn(where, ",")) {
		size_t len = strcspn(where, ",");

		snprintf(one, sizeof(one), "%.*s", (int)len, where);
		err = listen_on(one, s->port, s->anywhere, s->fd, SM_MAX_LISTEN, &s->nr, e);
		where += len;
	}
	if (!err && http)
		err = listen_on(http, s->http_port, false, &s->http, 1, &n, e);
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

/*
 * The peer may be sending still. Closing now would reset the connection, and take with it what we have just said to it;
 * so it gets a moment to read that and leave.
 */
void sm_linger(int fd)
{
	static char waste[64 << 10];
	struct timespec now, until;

	if (shutdown(fd, SHUT_WR))
		return;		/* not a socket */
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LINGER_SECONDS;
	do {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, LINGER_SECONDS * 1000) <= 0 || read(fd, waste, sizeof(waste)) <= 0)
			return;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < until.tv_sec);
}

static int run_child(struct sm_service *s, int fd, const char *peer, bool http, const sigset_t *wait_mask)
{
	for (int i = 0; i < s->nr; i++)
		close(s->fd[i]);
	if (s->http >= 0)
		close(s->http);
	if (http) {
		handle(SIGTERM, SIG_DFL);
		sigprocmask(SIG_SETMASK, wait_mask, NULL);
		return s->http_answer(s, fd);
	}
	return s->session(s, fd, fd, peer, s->anywhere, wait_mask);
}

static bool may_come(struct sm_service *s, const struct sockaddr_storage *a, bool http, const char *peer)
{
	const char *why = NULL;

	if ((http || !s->anywhere) && !sm_is_loopback((const void *)a))
		why = "not a loopback address";
	else if (http ? s->children - s->sessions >= MAX_HTTP : s->sessions >= s->max_sessions)
		why = "too many sessions";
	if (!why)
		return true;
	s->refused++;
	sm_note(s, "refused peer=%s why=\"%s\"", peer, why);
	return false;
}

static void accept_one(struct sm_service *s, int listener, bool http, const sigset_t *wait_mask)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char peer[64] = "?";
	int one = 1, fd = accept4(listener, (void *)&a, &len, SOCK_CLOEXEC);
	pid_t pid;

	if (fd < 0)
		return;
	getnameinfo((void *)&a, len, peer, sizeof(peer), NULL, 0, NI_NUMERICHOST);
	if (!may_come(s, &a, http, peer)) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	pid = fork();
	if (!pid)
		_exit(run_child(s, fd, peer, http, wait_mask));
	if (pid > 0) {
		struct sm_service_child *c = &s->child[s->children++];

		*c = (struct sm_service_child){ .pid = pid, .since = time(NULL), .http = http };
		memcpy(c->peer, peer, sizeof(c->peer));
		s->sessions += !http;
		s->served += !http;
	} else {
		sm_note(s, "refused peer=%s why=\"%s\"", peer, strerror(errno));
	}
	close(fd);
}

static void reap(struct sm_service *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (uint32_t i = 0; i < s->children; i++)
			if (s->child[i].pid == pid) {
				s->sessions -= !s->child[i].http;
				s->child[i] = s->child[--s->children];
				break;
			}
		if (WIFSIGNALED(status))
			sm_note(s, "killed session=%d signal=%d", (int)pid, WTERMSIG(status));
	}
}

static void hourly(struct sm_service *s)
{
	if (time(NULL) < s->next_hour)
		return;
	s->next_hour = time(NULL) + HOURLY;
	if (s->hourly)
		s->hourly(s);
}

static void main_loop(struct sm_service *s, const sigset_t *wait_mask)
{
	while (!stopping) {
		struct pollfd p[SM_MAX_LISTEN + 1];
		struct timespec t = { .tv_sec = HOURLY };

		hourly(s);
		for (int i = 0; i < s->nr; i++)
			p[i] = (struct pollfd){ .fd = s->fd[i], .events = POLLIN };
		p[s->nr] = (struct pollfd){ .fd = s->http, .events = POLLIN };
		if (ppoll(p, s->nr + 1, &t, wait_mask) < 0) {
			if (errno != EINTR)
				break;
			for (int i = 0; i <= s->nr; i++)
				p[i].revents = 0;
		}
		reap(s);
		for (int i = 0; i <= s->nr && !stopping; i++)
			if (p[i].revents & POLLIN)
				accept_one(s, p[i].fd, i == s->nr, wait_mask);
	}
}

/* Sessions end at their next frame, with all they have taken on disk. */
static void wind_down(struct sm_service *s)
{
	time_t until = time(NULL) + 20;

	sm_notify("STOPPING=1");
	if (s->stopping)
		s->stopping(s);
	for (uint32_t i = 0; i < s->children; i++)
		kill(s->child[i].pid, SIGTERM);
	while (s->children && time(NULL) < until) {
		reap(s);
		usleep(20000);
	}
	for (uint32_t i = 0; i < s->children; i++)
		kill(s->child[i].pid, SIGKILL);
	sm_note(s, "stopped cut_off=%u", s->children);
}

int sm_service_run(struct sm_service *s, struct sm_err *e)
{
	sigset_t wait_mask;

	s->child = calloc(s->max_sessions + MAX_HTTP + 1, sizeof(*s->child));
	if (!s->child)
		return sm_fail(e, -ENOMEM, "no memory");
	for (int i = 0; i < s->nr; i++)
		tell_port("listening", s->fd[i]);
	if (s->http >= 0)
		tell_port("HTTP", s->http);
	fflush(stdout);
	if (!s->foreground && daemon(0, 1))
		return sm_fail(e, -errno, "cannot become a daemon: %s", strerror(errno));
	s->started = time(NULL);
	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	handle(SIGCHLD, on_child);
	block_signals(&wait_mask);
	sm_notify("READY=1");
	main_loop(s, &wait_mask);
	wind_down(s);
	free(s->child);
	return 0;
}

int sm_service_stdio(struct sm_service *s)
{
	sigset_t wait_mask;

	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	block_signals(&wait_mask);
	return s->session(s, 0, 1, "stdio", false, &wait_mask);
}
