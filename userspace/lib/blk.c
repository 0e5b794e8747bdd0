// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Block devices: signatures through libblkid, users through /proc, sysfs and O_EXCL.
 */
#include <blkid/blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "blk.h"

int snap_blk_fd_size(int fd, uint64_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, bytes) ? -errno : 0;
	if (!S_ISREG(st.st_mode))
		return -ENOTBLK;
	*bytes = st.st_size;
	return 0;
}

int snap_blk_info(const char *path, struct snap_blk *blk, struct snap_err *e)
{
	int fd, err = 0, ssz = 512, ro = 0;
	struct stat st;

	if (stat(path, &st))
		return snap_err_sys(e, -errno, path, "cannot find");
	if (!S_ISBLK(st.st_mode))
		return snap_err_set(e, -ENOTBLK, path, "not a block device");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return snap_err_sys(e, -errno, path, "cannot open");
	memset(blk, 0, sizeof(*blk));
	blk->dev = st.st_rdev;
	if (ioctl(fd, BLKGETSIZE64, &blk->size) || ioctl(fd, BLKSSZGET, &ssz) || ioctl(fd, BLKROGET, &ro))
		err = snap_err_sys(e, -errno, path, "cannot get the size");
	blk->block_size = ssz;
	blk->read_only = ro;
	close(fd);
	return err;
}

/* ---- what is on it ---- */

static void copy_value(blkid_probe pr, const char *name, char *buf, size_t len)
{
	const char *value;

	if (!blkid_probe_lookup_value(pr, name, &value, NULL))
		snprintf(buf, len, "%s", value);
}

static void fill_signature(blkid_probe pr, struct snap_blk_sig *sig)
{
	copy_value(pr, "USAGE", sig->usage, sizeof(sig->usage));
	copy_value(pr, "TYPE", sig->type, sizeof(sig->type));
	copy_value(pr, "LABEL", sig->label, sizeof(sig->label));
	copy_value(pr, "UUID", sig->uuid, sizeof(sig->uuid));
	if (!sig->type[0]) {
		copy_value(pr, "PTTYPE", sig->type, sizeof(sig->type));
		copy_value(pr, "PTUUID", sig->uuid, sizeof(sig->uuid));
		snprintf(sig->usage, sizeof(sig->usage), "partition table");
	}
}

int snap_blk_signature(const char *path, struct snap_blk_sig *sig, struct snap_err *e)
{
	blkid_probe pr;
	int rc;

	memset(sig, 0, sizeof(*sig));
	errno = 0;
	pr = blkid_new_probe_from_filename(path);
	if (!pr)
		return snap_err_sys(e, errno ? -errno : -EIO, path, "cannot probe");
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
					  BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID);
	blkid_probe_enable_partitions(pr, 1);
	rc = blkid_do_safeprobe(pr);
	if (rc == 0)
		fill_signature(pr, sig);
	else if (rc == -2)
		snprintf(sig->type, sizeof(sig->type), "ambiguous");
	blkid_free_probe(pr);
	if (rc == -1)
		return snap_err_set(e, -EIO, path, "cannot probe for signatures: read error");
	return rc != 1;
}

int snap_blk_wipe(const char *path, struct snap_err *e)
{
	int fd, err = 0;
	blkid_probe pr;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return snap_err_sys(e, -errno, path, "cannot open");
	pr = blkid_new_probe();
	if (!pr || blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_free_probe(pr);
		close(fd);
		return snap_err_sys(e, -ENOMEM, path, "cannot probe");
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_TYPE);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC);
	while (!err && blkid_do_probe(pr) == 0)
		if (blkid_do_wipe(pr, 0))
			err = -EIO;
	if (!err && fsync(fd))
		err = -errno;
	blkid_free_probe(pr);
	close(fd);
	return err ? snap_err_sys(e, err, path, "cannot erase the old signatures") : 0;
}

/* ---- names in sysfs ---- */

static void sys_path(dev_t dev, const char *name, char *buf, size_t len)
{
	snprintf(buf, len, "/sys/dev/block/%u:%u/%s", major(dev), minor(dev), name);
}

/* The disk a partition belongs to; @dev itself when it is a whole disk. */
static dev_t whole_disk(dev_t dev)
{
	unsigned int maj, min;
	char path[128];
	FILE *f;
	int n;

	sys_path(dev, "partition", path, sizeof(path));
	if (access(path, F_OK))
		return dev;
	sys_path(dev, "../dev", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return dev;
	n = fscanf(f, "%u:%u", &maj, &min);
	fclose(f);
	return n == 2 ? makedev(maj, min) : dev;
}

bool snap_blk_overlap(dev_t a, dev_t b)
{
	if (a == b)
		return true;
	/* Two partitions of one disk do not overlap; a disk and its partition do. */
	return whole_disk(a) == b || whole_disk(b) == a;
}

char *snap_blk_name(dev_t dev, char *buf, size_t len)
{
	char path[128], line[256], *p;
	FILE *f;

	snprintf(buf, len, "%u:%u", major(dev), minor(dev));
	sys_path(dev, "dm/name", path, sizeof(path));
	f = fopen(path, "re");
	if (f) {
		if (fgets(line, sizeof(line), f)) {
			line[strcspn(line, "\n")] = 0;
			snprintf(buf, len, "/dev/mapper/%s", line);
		}
		fclose(f);
		return buf;
	}
	sys_path(dev, "uevent", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return buf;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "DEVNAME=", 8))
			continue;
		p = line + 8;
		p[strcspn(p, "\n")] = 0;
		snprintf(buf, len, "/dev/%s", p);
		break;
	}
	fclose(f);
	return buf;
}

/* ---- who uses it ---- */

/* Undo the octal escapes of /proc/self/mountinfo, in place. */
static void unescape(char *s)
{
	char *d = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*d++ = (s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0');
			s += 4;
		} else {
			*d++ = *s++;
		}
	}
	*d = 0;
}

/*
 * Is one line of mountinfo a mount of @dev? By device number, and by the source's node, as btrfs
 * has anonymous device numbers.
 */
static bool mount_is_of(char *line, dev_t dev, char *where, size_t len)
{
	char point[PATH_MAX], source[PATH_MAX], *sep;
	unsigned int maj, min;
	struct stat st;

	if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &maj, &min, point) != 3)
		return false;
	if (makedev(maj, min) != dev) {
		sep = strstr(line, " - ");
		if (!sep || sscanf(sep, " - %*s %4095s", source) != 1 || source[0] != '/')
			return false;
		unescape(source);
		if (stat(source, &st) || !S_ISBLK(st.st_mode) || st.st_rdev != dev)
			return false;
	}
	unescape(point);
	snprintf(where, len, "%s", point);
	return true;
}

bool snap_blk_mounted(dev_t dev, char *where, size_t len)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	bool found = false;
	char *line = NULL;
	size_t cap = 0;

	if (!f)
		return false;
	while (!found && getline(&line, &cap, f) > 0)
		found = mount_is_of(line, dev, where, len);
	free(line);
	fclose(f);
	return found;
}

static bool is_swap(dev_t dev)
{
	FILE *f = fopen("/proc/swaps", "re");
	char path[PATH_MAX], *line = NULL;
	bool found = false;
	struct stat st;
	size_t cap = 0;

	if (!f)
		return false;
	while (!found && getline(&line, &cap, f) > 0) {
		if (line[0] != '/' || sscanf(line, "%4095s", path) != 1)
			continue;
		unescape(path);
		found = !stat(path, &st) && S_ISBLK(st.st_mode) && st.st_rdev == dev;
	}
	free(line);
	fclose(f);
	return found;
}

/* "dm-3" as "/dev/mapper/NAME", anything else as "/dev/md0". */
static void holder_name(const char *kernel_name, char *buf, size_t len)
{
	char path[300], name[200];
	FILE *f;

	snprintf(buf, len, "/dev/%s", kernel_name);
	snprintf(path, sizeof(path), "/sys/block/%s/dm/name", kernel_name);
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(name, sizeof(name), f)) {
		name[strcspn(name, "\n")] = 0;
		snprintf(buf, len, "/dev/mapper/%s", name);
	}
	fclose(f);
}

int snap_blk_holders(dev_t dev, char *buf, size_t len)
{
	char path[128], name[280];
	struct dirent *d;
	size_t used = 0;
	int n = 0;
	DIR *dir;

	buf[0] = 0;
	sys_path(dev, "holders", path, sizeof(path));
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		holder_name(d->d_name, name, sizeof(name));
		if (used < len)
			used += snprintf(buf + used, len - used, "%s%s", n ? ", " : "", name);
		n++;
	}
	closedir(dir);
	return n;
}

/* One device without its partitions. */
static int check_one(const char *path, dev_t dev, struct snap_err *e)
{
	char text[512];

	if (snap_blk_mounted(dev, text, sizeof(text)))
		return snap_err_set(e, -EBUSY, path, "is mounted on %s", text);
	if (is_swap(dev))
		return snap_err_set(e, -EBUSY, path, "is in use as swap");
	if (snap_blk_holders(dev, text, sizeof(text)))
		return snap_err_set(e, -EBUSY, path, "is in use by %s", text);
	return 0;
}

static int check_partitions(const char *path, dev_t dev, struct snap_err *e)
{
	char dirname[128], file[512], part[300];
	unsigned int maj, min;
	struct dirent *d;
	int err = 0;
	DIR *dir;
	FILE *f;

	sys_path(dev, "", dirname, sizeof(dirname));
	dir = opendir(dirname);
	if (!dir)
		return 0;
	while (!err && (d = readdir(dir))) {
		snprintf(file, sizeof(file), "%s/%s/partition", dirname, d->d_name);
		if (d->d_name[0] == '.' || access(file, F_OK))
			continue;
		snprintf(file, sizeof(file), "%s/%s/dev", dirname, d->d_name);
		f = fopen(file, "re");
		if (!f)
			continue;
		snprintf(part, sizeof(part), "/dev/%s", d->d_name);
		if (fscanf(f, "%u:%u", &maj, &min) == 2 && check_one(part, makedev(maj, min), e) == -EBUSY)
			err = snap_err_set(e, -EBUSY, path, "its partition %s %s", part, e ? e->text : "");
		fclose(f);
	}
	closedir(dir);
	return err;
}

int snap_blk_check_free(const char *path, struct snap_err *e)
{
	struct stat st;
	int err, fd;

	if (stat(path, &st))
		return snap_err_sys(e, -errno, path, "cannot find");
	if (!S_ISBLK(st.st_mode))
		return snap_err_set(e, -ENOTBLK, path, "not a block device");
	err = check_one(path, st.st_rdev, e);
	if (!err)
		err = check_partitions(path, st.st_rdev, e);
	if (err)
		return err;
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0 && errno == EBUSY)
		return snap_err_set(e, -EBUSY, path, "is in use: another program or device holds it exclusively");
	if (fd < 0)
		return snap_err_sys(e, -errno, path, "cannot open");
	close(fd);
	return 0;
}

int snap_blk_open_excl(const char *path, int flags, struct snap_err *e)
{
	int err = snap_blk_check_free(path, e);
	int fd;

	if (err)
		return err;
	fd = open(path, flags | O_EXCL | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == EBUSY)
		return snap_err_set(e, -EBUSY, path, "is in use: another program or device holds it exclusively");
	return snap_err_sys(e, -errno, path, "cannot open");
}
