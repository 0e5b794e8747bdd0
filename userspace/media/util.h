/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small things that every part of the media code needs: an error with its text, hexadecimal,
 * whole reads and writes, CRC32C, SHA-256, and an array that may become larger than memory.
 *
 * Errors: a function that can fail returns 0 or a negative errno and fills the struct sm_err it
 * was given with one line "what: why" for people. The number decides the exit status
 * (snap_err_exit()), the text never does.
 */
#ifndef SNAPMEDIA_UTIL_H
#define SNAPMEDIA_UTIL_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SM_BLOCK		4096u
#define SM_BLOCK_SHIFT		12
#define SM_DIGEST		32u		/* SHA-256 */
#define SM_DIGEST_HEX		65u		/* with its NUL */
#define SM_UUID			16u
#define SM_UUID_TEXT		37u		/* 8-4-4-4-12 and NUL */

struct sm_err {
	int code;		/* negative errno */
	char text[512];
};

/**
 * sm_fail() - note why something failed
 * @e: may be NULL
 * @code: negative errno; returned
 */
int sm_fail(struct sm_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

void sm_hex(const uint8_t *data, size_t len, char *text);
/* sm_unhex() - exactly 2 * @len lower case digits; 0 or -EINVAL */
int sm_unhex(const char *text, uint8_t *data, size_t len);
void sm_uuid_format(const uint8_t uuid[SM_UUID], char text[SM_UUID_TEXT]);
int sm_uuid_parse(const char *text, uint8_t uuid[SM_UUID]);

/* Whole transfers; both retry short ones. sm_read_full() returns what was there before the end, or -errno. */
ssize_t sm_read_full(int fd, void *buf, size_t len);
ssize_t sm_pread_full(int fd, void *buf, size_t len, uint64_t offset);
int sm_write_full(int fd, const void *buf, size_t len);
int sm_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset);

int sm_random(void *buf, size_t len);
uint64_t sm_now_ns(void);
bool sm_is_zero(const void *buf, size_t len);

uint32_t sm_crc32c(uint32_t crc, const void *buf, size_t len);

/* SHA-256. A struct sm_sha is used once: init, update, final. Memory is all that can fail, and aborts. */
struct sm_sha {
	void *ctx;
};
void sm_sha_init(struct sm_sha *s);
void sm_sha_update(struct sm_sha *s, const void *buf, size_t len);
void sm_sha_final(struct sm_sha *s, uint8_t digest[SM_DIGEST]);
void sm_sha_drop(struct sm_sha *s);
void sm_sha256(const void *buf, size_t len, uint8_t digest[SM_DIGEST]);
/* sm_by_digest() - for qsort() and bsearch() over what begins with a digest */
int sm_by_digest(const void *a, const void *b);

/*
 * An array of fixed-size elements, in anonymous memory while small and in an unlinked file, mapped,
 * from SM_SPILL_MEMORY on: the kernel can write it back, so it does not count against memory.
 * Space is allocated before it is mapped: a full disk is -ENOSPC, never SIGBUS.
 */
#define SM_SPILL_MEMORY		(8u << 20)

struct sm_spill {
	uint8_t *map;
	size_t elem, nr, bytes;
	int fd;
	char dir[4096];
};
void sm_spill_init(struct sm_spill *s, size_t elem, const char *dir);
/* sm_spill_add() - a new last element, zeroed; NULL with errno set. Pointers into the array become invalid. */
void *sm_spill_add(struct sm_spill *s);
static inline void *sm_spill_at(const struct sm_spill *s, size_t i)
{
	return s->map + i * s->elem;
}
void sm_spill_free(struct sm_spill *s);

#endif
