// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nbdkit plugin: a generation of a media repository as a read-only disk.
 *
 *	nbdkit --readonly ./nbdkit-snapmedia-plugin.so repo=DIR volume=NAME gen=N [client=NAME] [key=FILE]
 *
 * Each connection has an image of its own, and with it the lock that keeps the generation from being pruned. What a client
 * reads was checked from the manifest down.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proof.h"
#include "repo.h"
#include "seal.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_REQUESTS

static char *repo_path, *key_path;
static struct sm_secret secret;
static struct sm_proof *proof;
static const char *volume, *client;
static unsigned int gen;
static struct sm_repo repo;
static struct sm_generation generation;

static int fail(int err, const struct sm_err *e)
{
	nbdkit_error("%s", e->text);
	nbdkit_set_error(-err);
	return -1;
}

static void snapmedia_unload(void)
{
	sm_proof_free(proof);
	sm_generation_done(&generation);
	sm_repo_close(&repo);
	free(repo_path);
	free(key_path);
	sm_secret_wipe(&secret);
}

static int snapmedia_config(const char *key, const char *value)
{
	if (!strcmp(key, "repo")) {
		free(repo_path);
		repo_path = nbdkit_realpath(value);
		return repo_path ? 0 : -1;
	}
	if (!strcmp(key, "key")) {
		free(key_path);
		key_path = nbdkit_realpath(value);
		return key_path ? 0 : -1;
	}
	if (!strcmp(key, "volume"))
		volume = value;
	else if (!strcmp(key, "client"))
		client = value;
	else if (!strcmp(key, "gen"))
		return nbdkit_parse_unsigned("gen", value, &gen);
	else {
		nbdkit_error("unknown parameter '%s'", key);
		return -1;
	}
	return 0;
}

static int snapmedia_config_complete(void)
{
	if (repo_path && gen)
		return 0;
	nbdkit_error("repo=DIR and gen=N are needed");
	return -1;
}

static int open_image(struct sm_image **img, struct sm_err *e)
{
	int err = sm_image_open(&repo, &generation, img, e);

	if (err)
		return err;
	err = sm_image_unseal(*img, &generation, key_path ? &secret : NULL, e);
	/* Once; then all connections read it. */
	if (!err && key_path && !proof)
		err = sm_repo_prove(&repo, &generation, &secret, &proof, e);
	if (err)
		sm_image_close(*img);
	else
		sm_image_prove(*img, proof);
	return err;
}

/* What is not there is said before anybody connects. */
static int snapmedia_get_ready(void)
{
	char vid[SM_VID_TEXT];
	struct sm_image *img;
	struct sm_err e;
	int err;

	if (key_path && (err = sm_secret_load(key_path, &secret, &e)))
		return fail(err, &e);
	if ((err = sm_repo_open(repo_path, &repo, &e)) || (err = sm_repo_find(&repo, client, volume, vid, &e)) ||
	    (err = sm_repo_generation(&repo, vid, gen, &generation, &e)) || (err = open_image(&img, &e)))
		return fail(err, &e);
	sm_image_close(img);
	return 0;
}

static void *snapmedia_open(int readonly)
{
	struct sm_image *img;
	struct sm_err e;
	int err = open_image(&img, &e);

	if (!err)
		return img;
	fail(err, &e);
	return NULL;
}

static void snapmedia_close(void *handle)
{
	sm_image_close(handle);
}

static int64_t snapmedia_get_size(void *handle)
{
	return sm_image_size(handle);
}

static int snapmedia_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct sm_err e;
	int err = sm_image_read(handle, buf, count, offset, &e);

	return err ? fail(err == -EUCLEAN ? -EIO : err, &e) : 0;
}

static int snapmedia_can_extents(void *handle)
{
	return 1;
}

static int snapmedia_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
	uint64_t end = offset + count, len;
	struct sm_err e;
	bool zero;

	for (; offset < end; offset += len) {
		int err = sm_image_extent(handle, offset, &len, &zero, &e);

		if (err)
			return fail(err == -EUCLEAN ? -EIO : err, &e);
		if (nbdkit_add_extent(extents, offset, len, zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0))
			return -1;
		if (flags & NBDKIT_FLAG_REQ_ONE)
			break;
	}
	return 0;
}

static int snapmedia_can_write(void *handle)
{
	return 0;
}

/* All connections see the same, for ever. */
static int snapmedia_can_multi_conn(void *handle)
{
	return 1;
}

static struct nbdkit_plugin plugin = {
	.name = "snapmedia",
	.longname = "snapdiff media repository",
	.version = SNAPDIFF_VERSION,
	.description = "a generation as a read-only disk",
	.config_help = "repo=DIR (required)  the repository\ngen=N (required)     the generation\nvolume=NAME|UUID     default: the only one\nclient=NAME          whose\nkey=FILE             what it is encrypted with",
	.unload = snapmedia_unload,
	.config = snapmedia_config,
	.config_complete = snapmedia_config_complete,
	.get_ready = snapmedia_get_ready,
	.open = snapmedia_open,
	.close = snapmedia_close,
	.get_size = snapmedia_get_size,
	.pread = snapmedia_pread,
	.can_write = snapmedia_can_write,
	.can_extents = snapmedia_can_extents,
	.extents = snapmedia_extents,
	.can_multi_conn = snapmedia_can_multi_conn,
};

NBDKIT_REGISTER_PLUGIN(plugin)
