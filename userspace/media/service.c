// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Listening, and a process for each session.
 *
 * A session's process shares nothing with the others but files, whose own locks are enough. A crash of one is the end
 * of one session.
 *
 * Who comes is a stranger until the handshake has shown who it is, and strangers must not keep others out:
 *
 *	WAITING		accepted, has not sent a byte: costs a descriptor here; SILENT_MS of it
 *	STRANGER	has sent something: a process, which shakes hands (in a time of its own, at most STRANGER_MS)
 *	SESSION		its process asked to be let in, on the gate (a socketpair), and there was room for a session
 *
 * Sessions are limited by number, strangers too: STRANGERS of them, PER_PEER from one address (IPv6: one /64). But it is
 * not the newcomer who is refused when there are so many: the stranger who has been there longest goes, of those of the newcomer's address if
 * that has its share, else of the address that has most. Somebody who means it is a session after two round trips; a
 * crowd that says nothing only pushes out itself.
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dest.h"

#define HOURLY		3600
#define MAX_HTTP	4u		/* requests at once */
#define STRANGERS	128u
#define PER_PEER	32u
#define SILENT_MS	5000
#define STRANGER_MS	30000		/* their process has its own, shorter time */
#define FIRST_ID	16u		/* events below it are of listening sockets */
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
	(void)sig;	/* only to leave epoll_pwait() */
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
	if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 256)) {
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

/* What the parent has and a child must not keep: a listening socket would outlive the daemon, a connection its end. */
static void close_all(struct sm_service *s)
{
	for (int i = 0; i < s->nr; i++)
		close(s->fd[i]);
	if (s->http >= 0)
		close(s->http);
	for (uint32_t i = 0; i < s->children; i++)
		if (s->child[i].fd >= 0)
			close(s->child[i].fd);
	close(s->epoll);
}

static int run_http(struct sm_service *s, int fd, const sigset_t *wait_mask)
{
	close_all(s);
	handle(SIGTERM, SIG_DFL);
	sigprocmask(SIG_SETMASK, wait_mask, NULL);
	return s->http_answer(s, fd);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool stranger(const struct sm_service_child *c)
{
	return c->kind == SM_CHILD_WAITING || c->kind == SM_CHILD_STRANGER;
}

static uint32_t count(const struct sm_service *s, enum sm_service_kind kind)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->children; i++)
		n += s->child[i].kind == kind;
	return n;
}

/* A process that has the same open socket would keep it in the set after our close. */
static void forget(struct sm_service *s, struct sm_service_child *c)
{
	if (c->fd < 0)
		return;
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	close(c->fd);
	c->fd = -1;
}

static void remove_child(struct sm_service *s, struct sm_service_child *c)
{
	forget(s, c);
	*c = s->child[--s->children];
}

static struct sm_service_child *add_child(struct sm_service *s, enum sm_service_kind kind, const char *peer)
{
	struct sm_service_child *c;

	if (s->children == s->room) {
		uint32_t room = s->room ? 2 * s->room : 64;

		c = realloc(s->child, room * sizeof(*c));
		if (!c)
			return NULL;
		s->child = c;
		s->room = room;
	}
	c = &s->child[s->children++];
	*c = (struct sm_service_child){ .kind = kind, .id = s->next_id++, .fd = -1, .since = time(NULL), .came = now_ms() };
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	return c;
}

static int watch(struct sm_service *s, int fd, uint64_t id)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = id };

	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* A flood is not to be one of the log, too: a line a second, with how many there were. */
static void drop(struct sm_service *s, struct sm_service_child *c, const char *why)
{
	s->dropped++;
	if (time(NULL) != s->last_drop) {
		s->last_drop = time(NULL);
		sm_note(s, "dropped peer=%s why=\"%s\" connections=%llu", c->peer, why, (unsigned long long)(s->dropped - s->dropped_said));
		s->dropped_said = s->dropped;
	}
	if (!c->pid) {
		remove_child(s, c);
		return;
	}
	kill(c->pid, SIGKILL);	/* it has nothing yet */
	forget(s, c);
	c->kind = SM_CHILD_DYING;
}

static uint32_t strangers_from(const struct sm_service *s, const uint8_t from[16])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->children; i++)
		n += stranger(&s->child[i]) && !memcmp(s->child[i].from, from, 16);
	return n;
}

/* One stranger more: who goes for it, see above. */
static void make_room(struct sm_service *s, const uint8_t from[16])
{
	struct sm_service_child *victim = NULL;
	bool of_peer = strangers_from(s, from) >= PER_PEER;
	uint32_t all = count(s, SM_CHILD_WAITING) + count(s, SM_CHILD_STRANGER), most = 0;

	if (!of_peer && all < STRANGERS)
		return;
	for (uint32_t i = 0; i < s->children; i++) {
		struct sm_service_child *c = &s->child[i];
		uint32_t n;

		if (!stranger(c) || (of_peer && memcmp(c->from, from, 16)))
			continue;
		n = of_peer ? 1 : strangers_from(s, c->from);
		if (!victim || n > most || (n == most && c->id < victim->id)) {
			victim = c;
			most = n;
		}
	}
	if (victim)
		drop(s, victim, "had not said who it is when others came");
}

static void network_of(const struct sockaddr_storage *a, uint8_t from[16])
{
	memset(from, 0, 16);
	if (a->ss_family == AF_INET)
		memcpy(from + 12, &((const struct sockaddr_in *)a)->sin_addr, 4);
	else if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)a)->sin6_addr))
		memcpy(from + 12, &((const struct sockaddr_in6 *)a)->sin6_addr.s6_addr[12], 4);
	else if (a->ss_family == AF_INET6)
		memcpy(from, &((const struct sockaddr_in6 *)a)->sin6_addr, 8);
}

static void refuse(struct sm_service *s, const char *peer, const char *why, int fd)
{
	s->refused++;
	sm_note(s, "refused peer=%s why=\"%s\"", peer, why);
	if (fd >= 0)
		close(fd);
}

static void accept_http(struct sm_service *s, int fd, const char *peer, const sigset_t *wait_mask)
{
	struct sm_service_child *c;

	if (count(s, SM_CHILD_HTTP) >= MAX_HTTP) {
		refuse(s, peer, "too many requests", fd);
		return;
	}
	c = add_child(s, SM_CHILD_HTTP, peer);
	if (c) {
		c->pid = fork();
		if (!c->pid)
			_exit(run_http(s, fd, wait_mask));
		if (c->pid < 0)
			remove_child(s, c);
	}
	close(fd);
}

static void accept_one(struct sm_service *s, int listener, bool http, const sigset_t *wait_mask)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	struct sm_service_child *c;
	char peer[64] = "?";
	uint8_t from[16];
	int one = 1, fd = accept4(listener, (void *)&a, &len, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	getnameinfo((void *)&a, len, peer, sizeof(peer), NULL, 0, NI_NUMERICHOST);
	if ((http || !s->anywhere) && !sm_is_loopback((const void *)&a)) {
		refuse(s, peer, "not a loopback address", fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	if (http) {
		accept_http(s, fd, peer, wait_mask);
		return;
	}
	network_of(&a, from);
	make_room(s, from);
	c = add_child(s, SM_CHILD_WAITING, peer);
	if (!c) {
		refuse(s, peer, "no memory", fd);
		return;
	}
	c->fd = fd;
	memcpy(c->from, from, sizeof(from));
	if (watch(s, fd, c->id))
		remove_child(s, c);
}

static void let_in(struct sm_service *s, struct sm_service_child *c)
{
	c->kind = SM_CHILD_SESSION;
	s->sessions++;
	s->served++;
}

/* The first byte is here, or the end: a process looks at it. */
static void begin(struct sm_service *s, struct sm_service_child *c, const sigset_t *wait_mask)
{
	int line[2], fd = c->fd;
	char byte;

	if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
		remove_child(s, c);
		return;
	}
	if (!s->strangers && s->sessions >= s->max_sessions) {
		refuse(s, c->peer, "too many sessions", -1);
		remove_child(s, c);
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line)) {
		refuse(s, c->peer, strerror(errno), -1);
		remove_child(s, c);
		return;
	}
	c->pid = fork();
	if (!c->pid) {
		c->fd = line[0];
		close_all(s);
		s->gate = line[1];
		_exit(s->session(s, fd, fd, c->peer, s->anywhere, wait_mask));
	}
	close(line[1]);
	forget(s, c);
	c->fd = line[0];
	c->kind = SM_CHILD_STRANGER;
	if (c->pid < 0 || watch(s, c->fd, c->id)) {
		refuse(s, c->peer, strerror(errno), -1);
		if (c->pid > 0)
			kill(c->pid, SIGKILL);
		remove_child(s, c);
	} else if (!s->strangers) {
		let_in(s, c);
		forget(s, c);
	}
}

/* A session's process asks, or has ended. */
static void answer(struct sm_service *s, struct sm_service_child *c)
{
	bool room = s->sessions < s->max_sessions;
	char byte = room ? 'y' : 'n';

	if (read(c->fd, &byte, 1) == 1) {
		byte = room ? 'y' : 'n';
		if (send(c->fd, &byte, 1, MSG_NOSIGNAL) == 1 && room)
			let_in(s, c);
		s->refused += !room;
	}
	forget(s, c);
	if (c->kind != SM_CHILD_SESSION)
		c->kind = SM_CHILD_DYING;	/* by itself */
}

bool sm_service_admit(struct sm_service *s)
{
	char byte = '?';
	bool yes;

	if (s->gate < 0)
		return true;
	yes = send(s->gate, &byte, 1, MSG_NOSIGNAL) == 1 && read(s->gate, &byte, 1) == 1 && byte == 'y';
	close(s->gate);
	s->gate = -1;
	return yes;
}

pid_t sm_service_fork(struct sm_service *s)
{
	struct sm_service_child *c = add_child(s, SM_CHILD_WORK, "-");
	pid_t pid = c ? fork() : -1;
	sigset_t none;

	if (!pid) {
		close_all(s);
		handle(SIGTERM, SIG_DFL);
		handle(SIGINT, SIG_DFL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		return 0;
	}
	if (pid > 0)
		c->pid = pid;
	else if (c)
		remove_child(s, c);
	return pid;
}

static void reap(struct sm_service *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		bool expected = false;

		for (uint32_t i = 0; i < s->children; i++)
			if (s->child[i].pid == pid) {
				s->sessions -= s->child[i].kind == SM_CHILD_SESSION;
				expected = s->child[i].kind == SM_CHILD_DYING;
				remove_child(s, &s->child[i]);
				break;
			}
		if (WIFSIGNALED(status) && !(expected && WTERMSIG(status) == SIGKILL))
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

/* Strangers whose time is over. Return: ms until the next one's is, at most a minute. */
static int expire_strangers(struct sm_service *s)
{
	uint64_t now = now_ms();
	int64_t next = 60000;

	for (uint32_t i = s->children; i-- > 0;) {	/* backwards: the last takes the place of one that is removed */
		struct sm_service_child *c = &s->child[i];
		int64_t left = (c->kind == SM_CHILD_WAITING ? SILENT_MS : STRANGER_MS) - (int64_t)(now - c->came);

		if (!stranger(c))
			continue;
		if (left <= 0)
			drop(s, c, "did not say in time who it is");
		else if (left < next)
			next = left;
	}
	return next + 1;
}

static void dispatch(struct sm_service *s, uint64_t id, const sigset_t *wait_mask)
{
	if (id < FIRST_ID) {
		accept_one(s, id == SM_MAX_LISTEN ? s->http : s->fd[id], id == SM_MAX_LISTEN, wait_mask);
		return;
	}
	for (uint32_t i = 0; i < s->children; i++)
		if (s->child[i].id == id) {
			if (s->child[i].kind == SM_CHILD_WAITING)
				begin(s, &s->child[i], wait_mask);
			else if (s->child[i].kind == SM_CHILD_STRANGER)
				answer(s, &s->child[i]);
			return;
		}
}

static void main_loop(struct sm_service *s, const sigset_t *wait_mask)
{
	while (!stopping) {
		struct epoll_event ev[32];
		int n, timeout = expire_strangers(s);

		hourly(s);
		n = epoll_pwait(s->epoll, ev, 32, timeout, wait_mask);
		if (n < 0 && errno != EINTR)
			break;
		reap(s);
		for (int i = 0; i < n && !stopping; i++)
			dispatch(s, ev[i].data.u64, wait_mask);
	}
}

/* Sessions end at their next frame, with all they have taken on disk. */
static void wind_down(struct sm_service *s)
{
	time_t until = time(NULL) + 20;

	sm_notify("STOPPING=1");
	if (s->stopping)
		s->stopping(s);
	for (uint32_t i = s->children; i-- > 0;)
		if (stranger(&s->child[i]))
			drop(s, &s->child[i], "the server stops");
		else
			kill(s->child[i].pid, SIGTERM);
	while (s->children && time(NULL) < until) {
		reap(s);
		usleep(20000);
	}
	for (uint32_t i = 0; i < s->children; i++)
		kill(s->child[i].pid, SIGKILL);
	sm_note(s, "stopped cut_off=%u", s->children);
}

static int start_watching(struct sm_service *s, struct sm_err *e)
{
	int err = 0;

	s->next_id = FIRST_ID;
	s->gate = -1;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0)
		return sm_fail(e, -errno, "epoll: %s", strerror(errno));
	for (int i = 0; !err && i < s->nr; i++)
		err = watch(s, s->fd[i], i);
	if (!err && s->http >= 0)
		err = watch(s, s->http, SM_MAX_LISTEN);
	return err ? sm_fail(e, err, "epoll: %s", strerror(-err)) : 0;
}

int sm_service_run(struct sm_service *s, struct sm_err *e)
{
	sigset_t wait_mask;
	int err;

	for (int i = 0; i < s->nr; i++)
		tell_port("listening", s->fd[i]);
	if (s->http >= 0)
		tell_port("HTTP", s->http);
	fflush(stdout);
	if (!s->foreground && daemon(0, 1))
		return sm_fail(e, -errno, "cannot become a daemon: %s", strerror(errno));
	err = start_watching(s, e);
	if (err)
		return err;
	s->started = time(NULL);
	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	handle(SIGCHLD, on_child);
	block_signals(&wait_mask);
	sm_notify("READY=1");
	main_loop(s, &wait_mask);
	wind_down(s);
	close(s->epoll);
	free(s->child);
	return 0;
}

int sm_service_stdio(struct sm_service *s)
{
	sigset_t wait_mask;

	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	block_signals(&wait_mask);
	s->gate = -1;
	return s->session(s, 0, 1, "stdio", false, &wait_mask);
}
