// SPDX-License-Identifier: GPL-2.0-or-later
/* agent.conf: what is taken, and each refusal with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <unistd.h>

#include "config.h"
#include "dest.h"
#include "netlink.h"

#define HOUR	3600000000000ull

static const char good[] =
	"# comment\n"
	"[agent]\n"
	"max-jobs = 2\n"
	"any-destination = yes\n"
	"\n"
	"[volume data]\n"
	"  cut = 1h\n"
	"ship = near\n"
	"ship\t=  far   every 7d\r\n"
	"keep-last = 3\n"
	"keep-daily = 7\n"
	"room = 40%\n"
	"freeze = no\n"
	"label = every hour\n"
	"[destination near]\n"
	"address = 10.0.0.1:7000\n"
	"[destination far]\n"
	"address = ssh://backup@far.example/srv/media\n"
	"compress = 9\n"
	"rate = 10M\n"
	"[restore]\n"
	"target = /dev/vdd\n"
	"directory = /srv/restore\n"
	"target = /srv/one image\n"
	"[volume other]\n"
	"bookmark = no";

static void takes_all(void **state)
{
	struct config c;
	struct sm_err e;

	(void)state;
	assert_int_equal(config_parse(good, strlen(good), "f", &c, &e), 0);
	assert_int_equal(c.max_jobs, 2);
	assert_true(c.any_destination);
	assert_int_equal(c.nr_volumes, 2);
	assert_int_equal(c.nr_dests, 2);
	assert_string_equal(c.volume[0].name, "data");
	assert_int_equal(c.volume[0].cut, HOUR);
	assert_int_equal(c.volume[0].nr_ships, 2);
	assert_string_equal(c.dest[c.volume[0].ship[0].dest].name, "near");
	assert_int_equal(c.volume[0].ship[0].every, 0);
	assert_string_equal(c.dest[c.volume[0].ship[1].dest].name, "far");
	assert_int_equal(c.volume[0].ship[1].every, 7 * 24 * HOUR);
	assert_true(c.volume[0].has_keep);
	assert_int_equal(c.volume[0].keep.keep[SM_KEEP_LAST], 3);
	assert_int_equal(c.volume[0].keep.keep[SM_KEEP_DAILY], 7);
	assert_int_equal(c.volume[0].room, 40);
	assert_int_equal(c.volume[0].freeze, SNAP_FREEZE_NO);
	assert_string_equal(c.volume[0].label, "every hour");
	assert_string_equal(c.dest[0].address, "10.0.0.1:7000");
	assert_int_equal(c.dest[0].level, -1);
	assert_int_equal(c.dest[1].level, 9);
	assert_int_equal(c.dest[1].rate, 10 << 20);
	assert_int_equal(c.nr_targets, 3);
	assert_string_equal(c.target[1].path, "/srv/restore");
	assert_true(c.target[1].directory);
	assert_string_equal(c.target[2].path, "/srv/one image");
	assert_false(c.target[2].directory);
	assert_false(c.volume[1].bookmark);
	assert_false(c.volume[1].has_keep);
	assert_int_equal(c.volume[1].freeze, SNAP_FREEZE_AUTO);
	config_free(&c);
	assert_int_equal(config_parse("", 0, "f", &c, &e), 0);
	assert_int_equal(c.max_jobs, 4);
	assert_false(c.any_destination);
	assert_int_equal(c.nr_targets, 0);
	config_free(&c);
}

/* Every beginning of a file is taken or refused, never more. The sanitizers look. */
static void cut_short(void **state)
{
	struct config c;
	struct sm_err e;

	(void)state;
	for (size_t n = 0; n < strlen(good); n++)
		if (!config_parse(good, n, "f", &c, &e))
			config_free(&c);
}

static void refuses(void **state)
{
#define D "[destination d]\naddress = h\n"
	static const struct { const char *text, *where; } cases[] = {
		{ "x\n", "f:1: neither" },
		{ "a = b\n", "f:1: \"a\" stands in no section" },
		{ "[agent]\nfoo = 1\n", "f:2: \"foo\": no such key" },
		{ "[agent]\ncut = 1h\n", "f:2: \"cut\": no such key" },
		{ "[agent]\nmax-jobs = 0\n", "f:2: \"0\": a number from 1 to 64" },
		{ "[agent]\nmax-jobs = 2\nmax-jobs = 3\n", "f:3: \"max-jobs\" is there already" },
		{ "[agent]\nmax-jobs =\n", "f:2: \"max-jobs\" has no value" },
		{ "[agent]\nany-destination = true\n", "f:2: \"true\": yes or no" },
		{ "[agent\n", "f:1: a section is" },
		{ "[agent x]\n", "f:1: a section is" },
		{ "[volume]\n", "f:1: a section is" },
		{ "[volume a b]\n", "f:1: a section is" },
		{ "[volume a/b]\n", "f:1: \"a/b\": not a volume's name" },
		{ "[volume a]\n[volume a]\n", "f:2: volume \"a\" is there already" },
		{ "[destination -x]\n", "f:1: \"-x\": not a destination's name" },
		{ D D, "f:3: destination \"d\" is there already" },
		{ "[destination d]\n\n[agent]\n", "f:3: destination \"d\" ends here and has no address" },
		{ "[destination d]\n", "f:1: destination \"d\" ends here and has no address" },
		{ "[destination d]\naddress = -\n", "f:2: -: not an address" },
		{ "[destination d]\naddress = --force\n", "f:2: --force: not an address" },
		{ "[destination d]\naddress = dir/repo\n", "f:2: dir/repo: neither" },
		{ "[destination d]\naddress = h:x\n", "f:2: x: not a port" },
		{ "[destination d]\naddress = h\nkey = backup.key\n", "f:3: \"backup.key\": the absolute path of a key file" },
		{ "[destination d]\naddress = h\ncompress = 20\n", "f:3: \"20\": a number from 0 to 19" },
		{ "[destination d]\naddress = h\nrate = fast\n", "f:3: \"fast\": a number of bytes" },
		{ "[restore x]\n", "f:1: a section is" },
		{ "[restore]\ncut = 1h\n", "f:2: \"cut\": no such key" },
		{ "[restore]\ntarget = vdd\n", "f:2: \"vdd\": an absolute path" },
		{ "[restore]\ntarget = /\n", "f:2: \"/\": an absolute path" },
		{ "[restore]\ntarget = /srv/\n", "f:2: \"/srv/\": an absolute path" },
		{ "[restore]\ntarget = /srv//a\n", "f:2: \"/srv//a\": an absolute path" },
		{ "[restore]\ntarget = /srv/../dev/vda\n", "f:2: \"/srv/../dev/vda\": an absolute path" },
		{ "[restore]\ndirectory = /srv/.\n", "f:2: \"/srv/.\": an absolute path" },
		{ "[restore]\ndirectory = /dev\n", "f:2: \"/dev\": a device is allowed by target" },
		{ "[restore]\ndirectory = /dev/mapper\n", "f:2: \"/dev/mapper\": a device is allowed by target" },
		{ "[restore]\ntarget = /a\ndirectory = /a\n", "f:3: \"/a\" is there already" },
		{ "[volume v]\ncut = 10\n", "f:2: \"10\": a period" },
		{ "[volume v]\ncut = h\n", "f:2: \"h\": a period" },
		{ "[volume v]\ncut = 0h\n", "f:2: \"0h\": a period" },
		{ "[volume v]\ncut = 999999w\n", "f:2: \"999999w\": a period" },
		{ "[volume v]\ncut = 1h30m\n", "f:2: \"1h30m\": a period" },
		{ "[volume v]\nship = d every\n" D, "f:2: ship = DEST" },
		{ "[volume v]\nship = d each 1h\n" D, "f:2: ship = DEST" },
		{ "[volume v]\nship = d every 1h x\n" D, "f:2: ship = DEST" },
		{ "[volume v]\nship = d\nship = d\n" D, "f:3: ship: \"d\" is there already" },
		{ D "[volume v]\n\nship = e\n", "f:5: ship: there is no destination \"e\"" },
		{ "[volume v]\nkeep-last = 0\n", "f:2: volume \"v\" ends here and its rules keep nothing" },
		{ "[volume v]\nkeep-last = -1\n", "f:2: \"-1\": a number" },
		{ "[volume v]\nroom = 20\n", "f:2: \"20\": a percentage" },
		{ "[volume v]\nroom = 101%\n", "f:2: \"101\": a number from 0 to 100" },
		{ "[volume v]\nfreeze = maybe\n", "f:2: \"maybe\": yes or no" },
		{ "[volume v]\nlabel = a\x01z\n", "f:2: a control character" },
		{ "[volume v]\nlabel = 0123456789012345678901234567890123456789012345678901234567890123\n", "f:2: a label has at most 63" },
	};
	struct config c;
	struct sm_err e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(config_parse(cases[i].text, strlen(cases[i].text), "f", &c, &e), -EINVAL);
		if (strncmp(e.text, cases[i].where, strlen(cases[i].where)))
			fail_msg("%s\n gives: %s\n wanted: %s", cases[i].text, e.text, cases[i].where);
	}
	assert_int_equal(config_parse("[agent]\n\0\n", 10, "f", &c, &e), -EINVAL);
	assert_string_equal(e.text, "f:2: a NUL byte");
}

static void addresses(void **state)
{
	struct sm_err e;

	(void)state;
	assert_int_equal(config_check_address("nas.example", false, &e), 0);
	assert_int_equal(config_check_address("[fe80::1]:7419", false, &e), 0);
	assert_int_equal(config_check_address("/srv/media", true, &e), 0);
	assert_int_equal(config_check_address("/srv/media", false, &e), -EINVAL);
	assert_int_equal(config_check_address("", true, &e), -EINVAL);
	assert_int_equal(config_check_address("-", true, &e), -EINVAL);
	assert_int_equal(config_check_address("../x", true, &e), -EINVAL);
	assert_int_equal(config_check_address("ssh://-oProxyCommand=x", true, &e), -EINVAL);
}

/* Exactly what is listed; in a directory a plain name. */
static void targets(void **state)
{
	static const struct { const char *path; bool yes; } cases[] = {
		{ "/dev/vdd", true }, { "/srv/one image", true }, { "/srv/restore/disk.img", true }, { "/srv/restore/A_1-2.x", true },
		{ "/dev/vdd1", false }, { "/dev/vd", false }, { "/dev/./vdd", false }, { "//dev/vdd", false }, { "/dev/vdd/", false },
		{ "dev/vdd", false }, { "", false }, { "-", false }, { "/dev/vda", false }, { "/srv/restore", false }, { "/srv/restore/", false },
		{ "/srv/restore//x", false }, { "/srv/restore/.", false }, { "/srv/restore/..", false }, { "/srv/restore/../x", false },
		{ "/srv/restore/a/b", false }, { "/srv/restore/.hidden", false }, { "/srv/restore/-x", false }, { "/srv/restorex", false },
		{ "/srv/restore/a b", false }, { "/srv/restore/a\nb", false }, { "/srv/restore/disk.img.part", false },
		{ "/srv/one image/x", false },
	};
	static const char text[] = "[restore]\ntarget = /dev/vdd\ndirectory = /srv/restore\ntarget = /srv/one image\n";
	struct config c;
	struct sm_err e;

	(void)state;
	assert_int_equal(config_parse(text, strlen(text), "f", &c, &e), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (!config_may_restore(&c, cases[i].path) == cases[i].yes)
			fail_msg("\"%s\"", cases[i].path);
	config_free(&c);
	assert_int_equal(config_parse("", 0, "f", &c, &e), 0);
	assert_null(config_may_restore(&c, "/dev/vdd"));
	config_free(&c);
}

/* A host called "media" is not the /media of the machine where the backup is started. */
static void exact_addresses(void **state)
{
	static const struct { const char *address, *exact, *host, *port; } cases[] = {
		{ "tmp", "[tmp]:7419", "tmp", "7419" }, { "nas.example:7000", "[nas.example]:7000", "nas.example", "7000" },
		{ "[fe80::1]", "[fe80::1]:7419", "fe80::1", "7419" }, { "fe80::1", "[fe80::1]:7419", "fe80::1", "7419" },
	};
	char exact[DEST_ADDRESS + 16];
	struct sm_dest d;
	struct sm_err e;

	(void)state;
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(sm_dest_parse("tmp", &d, &e), -ENOTDIR);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		config_exact_address(cases[i].address, exact);
		assert_string_equal(exact, cases[i].exact);
		assert_int_equal(sm_dest_parse(exact, &d, &e), 0);
		assert_int_equal(d.kind, SM_DEST_TCP);
		assert_string_equal(d.host, cases[i].host);
		assert_string_equal(d.port, cases[i].port);
	}
	config_exact_address("ssh://a@b:22/srv", exact);
	assert_string_equal(exact, "ssh://a@b:22/srv");
	config_exact_address("/srv/media", exact);
	assert_string_equal(exact, "/srv/media");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_all), cmocka_unit_test(cut_short), cmocka_unit_test(refuses), cmocka_unit_test(addresses),
		cmocka_unit_test(targets),
		cmocka_unit_test(exact_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
