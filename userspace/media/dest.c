// SPDX-License-Identifier: GPL-2.0-or-later
#include "dest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"
#include "frame.h"
#include "known.h"
#include "repo.h"
#include "session.h"

int sm_split_host(const char *text, char *host, size_t host_size, char *port, size_t port_size,
		  const char *default_port, struct sm_err *e)
{
	const char *end, *colon;
	size_t len;

	if (*text == '[') {
		end = strchr(++text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return sm_fail(e, -EINVAL, "[%s: not an address", text);
		colon = end[1] ? end + 1 : NULL;
	} else {
		colon = strchr(text, ':');
		if (colon && strchr(colon + 1, ':'))
			colon = NULL;	/* a bare IPv6 address */
		end = colon ? colon : text + strlen(text);
	}
	len = end - text;
	if (!len || len >= host_size || *text == '-')
		return sm_fail(e, -EINVAL, "%s: not a host", text);
	memcpy(host, text, len);
	host[len] = '\0';
	snprintf(port, port_size, "%s", colon ? colon + 1 : default_port);
	if (colon && (!*port || strspn(port, "0123456789") != strlen(port) || strlen(colon + 1) > 5))
		return sm_fail(e, -EINVAL, "%s: not a port", colon + 1);
	return 0;
}

static int parse_ssh(const char *text, struct sm_dest *d, struct sm_err *e)
{
	const char *rest = text + strlen("ssh://"), *slash = strchr(rest, '/'), *at;
	char where[512], host[256];
	size_t user;
	int err;

	d->kind = SM_DEST_SSH;
	snprintf(where, sizeof(where), "%.*s", slash ? (int)(slash - rest) : (int)strlen(rest), rest);
	if (slash && slash[1])
		snprintf(d->path, sizeof(d->path), "%s", slash);
	at = strrchr(where, '@');
	user = at ? at + 1 - where : 0;
	err = sm_split_host(where + user, host, sizeof(host), d->port, sizeof(d->port), "", e);
	if (err)
		return err;
	if (*where == '-' || snprintf(d->host, sizeof(d->host), "%.*s%s", (int)user, where, host) >= (int)sizeof(d->host))
		return sm_fail(e, -EINVAL, "%s: not a host", text);
	return 0;
}

int sm_dest_parse(const char *text, struct sm_dest *d, struct sm_err *e)
{
	char repo[PATH_MAX + 32];
	struct stat st;

	memset(d, 0, sizeof(*d));
	if (!*text)
		return sm_fail(e, -EINVAL, "no destination");
	if (!strcmp(text, "-")) {
		d->kind = SM_DEST_STDIO;
		return 0;
	}
	if (!strncmp(text, "ssh://", 6))
		return parse_ssh(text, d, e);
	if (strchr(text, '/') || !lstat(text, &st)) {
		if (strlen(text) >= sizeof(d->path))
			return sm_fail(e, -ENAMETOOLONG, "%s: name too long", text);
		strcpy(d->path, text);
		snprintf(repo, sizeof(repo), "%s/repository.json", text);
		d->kind = !stat(repo, &st) ? SM_DEST_REPO : SM_DEST_FILE;
		if (d->kind == SM_DEST_FILE && !stat(text, &st) && S_ISDIR(st.st_mode))
			return sm_fail(e, -ENOTDIR, "%s: a directory, but not a repository", text);
		return 0;
	}
	d->kind = SM_DEST_TCP;
	return sm_split_host(text, d->host, sizeof(d->host), d->port, sizeof(d->port), SM_DEFAULT_PORT, e);
}

bool sm_is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
	if (a->sa_family == AF_INET6) {
		const struct in6_addr *v6 = &((const struct sockaddr_in6 *)a)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
	}
	return false;
}

#define HANDSHAKE_MS	30000

/* @any: or loopback addresses only */
static int connect_tcp(const struct sm_dest *d, bool any, struct sm_err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
	int r = getaddrinfo(d->host, d->port, &hints, &list), err = -ECONNREFUSED, one = 1, fd;

	if (r)
		return sm_fail(e, -ENOENT, "%s: %s", d->host, gai_strerror(r));
	for (a = list; a; a = a->ai_next) {
		if (!any && !sm_is_loopback(a->ai_addr)) {
			err = -EACCES;
			continue;
		}
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen)) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			freeaddrinfo(list);
			return fd;
		}
		err = -errno;
		if (fd >= 0)
			close(fd);
	}
	freeaddrinfo(list);
	if (err == -EACCES && !any)
		return sm_fail(e, err, "%s: not a loopback address, and its pin is not known: snapbackup enroll %s --pin ...",
			       d->host, d->host);
	return sm_fail(e, err, "%s port %s: cannot connect: %s", d->host, d->port, strerror(-err));
}

/* Plaintext is a question of not knowing a pin for the place, never of what the other side says. */
static int open_tcp(const struct sm_dest *d, struct sm_carrier *c, struct sm_err *e)
{
	uint8_t pin[SM_DIGEST];
	struct sm_key *key = NULL;
	int known = sm_known_pin(d->host, d->port, pin, e), err = 0, fd;

	if (known && known != -ENOENT)
		return known;
	if (!known && (err = sm_known_key(false, &key, e)))
		return err;
	fd = connect_tcp(d, !known, e);
	if (fd >= 0 && key)
		err = sm_tls_connect(&c->tls, fd, key, pin, HANDSHAKE_MS, e);
	sm_key_free(key);
	if (fd < 0 || err) {
		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : err;
	}
	c->in = c->out = fd;
	return 0;
}

/* Both pipes of a child: it reads what we write and the other way round. */
static int spawn(struct sm_carrier *c, int (*run)(const void *arg, int in, int out), const void *arg, struct sm_err *e)
{
	int to[2], from[2];
	pid_t pid;

	if (pipe2(to, O_CLOEXEC))
		return sm_fail(e, -errno, "pipe: %s", strerror(errno));
	if (pipe2(from, O_CLOEXEC) || (pid = fork()) < 0) {
		int err = -errno;

		close(to[0]);
		close(to[1]);
		return sm_fail(e, err, "cannot start a process: %s", strerror(-err));
	}
	if (!pid) {
		close(to[1]);
		close(from[0]);
		_exit(run(arg, to[0], from[1]));
	}
	close(to[0]);
	close(from[1]);
	c->in = from[0];
	c->out = to[1];
	c->child = pid;
	return 0;
}

static int run_ssh(const void *arg, int in, int out)
{
	const struct sm_dest *d = arg;
	const char *ssh = getenv("SNAPDIFF_SSH");
	const char *argv[12];
	int n = 0;

	dup2(in, 0);
	dup2(out, 1);
	argv[n++] = ssh && *ssh ? ssh : "ssh";
	argv[n++] = "-T";
	if (*d->port) {
		argv[n++] = "-p";
		argv[n++] = d->port;
	}
	argv[n++] = d->host;
	argv[n++] = "snapmediad";
	argv[n++] = "--stdio";
	if (*d->path)
		argv[n++] = d->path;
	argv[n] = NULL;
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], (char **)argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	return 127;
}

static int run_repo(const void *arg, int in, int out)
{
	const struct sm_dest *d = arg;
	struct sm_identity id = { .client = SM_CLIENT_DEFAULT, .roles = SM_ROLE_BACKUP | SM_ROLE_RESTORE };
	struct sm_repo repo;
	struct sm_chan chan;
	struct sm_err e;
	int err;

	sm_chan_init(&chan, in, out);
	err = sm_become(NULL, d->path, &e);	/* what it makes belongs to who serves it */
	if (!err)
		err = sm_repo_open(d->path, &repo, &e);
	if (!err) {
		err = sm_serve(&repo, &chan, &id, &e);
		sm_repo_close(&repo);
	}
	sm_chan_free(&chan);
	return err ? 1 : 0;
}

int sm_carrier_open(const struct sm_dest *d, struct sm_carrier *c, struct sm_err *e)
{
	memset(c, 0, sizeof(*c));
	c->in = c->out = -1;
	switch (d->kind) {
	case SM_DEST_TCP:
		return open_tcp(d, c, e);
	case SM_DEST_SSH:
		/* The path goes through the remote shell: only what no shell looks at twice. */
		if (strspn(d->path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/+@,=") != strlen(d->path))
			return sm_fail(e, -EINVAL, "%s: characters that a shell would take apart", d->path);
		return spawn(c, run_ssh, d, e);
	case SM_DEST_REPO:
		return spawn(c, run_repo, d, e);
	default:
		return sm_fail(e, -EINVAL, "not a media server");
	}
}

int sm_carrier_close(struct sm_carrier *c)
{
	int status = 0;

	if (c->out >= 0)
		close(c->out);
	if (c->in >= 0 && c->in != c->out)
		close(c->in);
	c->in = c->out = -1;
	if (!c->child)
		return 0;
	while (waitpid(c->child, &status, 0) < 0 && errno == EINTR)
		;
	c->child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
