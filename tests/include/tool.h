/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small things of the programs that write, break and compare. Who includes it has defined broken(format, ...), which says what is wrong with the test's
 * own means and does not return.
 */
#ifndef SNAP_TEST_TOOL_H
#define SNAP_TEST_TOOL_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* The finaliser of splitmix64: other bits of @x, the same always. */
static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Zeroed, fit for O_DIRECT. */
static inline void *memory(size_t size)
{
	void *p;

	if (posix_memalign(&p, 4096, size ? size : 1))
		broken("out of memory");
	memset(p, 0, size);
	return p;
}

/* Return: the command's exit status; 255: it was killed. */
__attribute__((format(printf, 1, 2)))
static inline int shell(const char *fmt, ...)
{
	char cmd[2048];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	rc = system(cmd);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : 255;
}

#define must_shell(...)	do { if (shell(__VA_ARGS__)) broken("a command failed, see above"); } while (0)

#endif
