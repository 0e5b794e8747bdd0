#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# timeout: 60
#
# /etc/snapdifftab: what the generator makes of it is what systemd takes, and its commands attach and detach. (No systemd runs in the guest: its commands are
# taken out of the units.)

. "${BASH_SOURCE%/*}/lib.sh"

gen=/tmp/snapdiff-generator units=/tmp/units
export SNAPDIFFTAB=/tmp/tab
sed "s,@SBINDIR@,$(dirname "$(command -v snapctl)")," userspace/systemd/snapdiff-generator >$gen
chmod +x $gen

generate()
{
	rm -rf $units
	mkdir $units
	cat >$SNAPDIFFTAB
	quiet $gen $units /tmp/early /tmp/late
}

in_unit() { grep -qxF -- "$2" "$units/snapdiff@$1.service" || { out=$(cat "$units/snapdiff@$1.service"); return 1; }; }
linked() { out=$(find $units); [ "$(readlink "$units/$1/snapdiff@$2.service")" = "../snapdiff@$2.service" ]; }
does() { quiet bash -c "$(sed -n "s/^$2=//p" "$units/snapdiff@$1.service")"; }
refused_line() { ! generate <<<"$1" && [[ $out == *"$2"* ]] && [ -z "$(find $units -name '*bad*')" ]; }

need null_disk tabp 8
need null_disk tabd 16
need quiet snapctl format /dev/tabd
ok "no table: nothing" eval 'SNAPDIFFTAB=/tmp/none quiet $gen /tmp/none.d x x && [ ! -e /tmp/none.d ]'
ok "two volumes" generate <<END
# a comment

data	/dev/tabp /dev/tabd	on-full=drop-all,cache-size=8M
web-1 PARTUUID=12-34 /dev/vg/a.b nofail,_netdev
late /dev/x /dev/y noauto
END
ok "bound to the primary" in_unit data BindsTo=dev-tabp.device
ok "before anything is mounted" in_unit data "Before=local-fs-pre.target blockdev@dev-mapper-data.target umount.target"
ok "the diff may go" eval '! grep -E "^(BindsTo|Requires)=.*tabd" $units/snapdiff@data.service'
ok "boot needs it" linked local-fs.target.requires data
ok "so does its device" linked dev-mapper-data.device.requires data
ok "nofail, over the network" linked remote-fs.target.wants 'web\x2d1'
ok "a part by its UUID" in_unit 'web\x2d1' 'BindsTo=dev-disk-by\x2dpartuuid-12\x2d34.device'
ok "noauto: only its device needs it" eval 'linked dev-mapper-late.device.requires late && ! linked local-fs.target.requires late'
ok "systemd understands the units" eval 'quiet systemd-analyze verify --man=no $units/snapdiff@data.service $units/snapdiff@late.service; ! grep -i "unknown\|invalid\|failed to parse" <<<"$out"'
ok "it attaches" does data ExecStart
ok "as the table says" eval 'out=$(dmsetup table data); [[ $out == *"on_full drop-all"*"cache_size 8"* ]]'
works create data
ok "it detaches" does data ExecStop
ok "and attaches again" does data ExecStart
ok "with its generation" equal "$(snapctl list data -n -o state)" live
ok "detach" does data ExecStop
ok "an unknown option is refused" refused_line "bad /dev/tabp /dev/tabd accept-changed" "unknown option 'accept-changed'"
ok "a name that is none" refused_line "bad/x /dev/tabp /dev/tabd" "no name"
ok "a device that is none" refused_line "bad tabp /dev/tabd" "no device"
ok "a command in a device" refused_line 'bad /dev/tabp;reboot /dev/tabd' "characters"
ok "a wrong line does not hurt the others" eval '! generate <<<"bad x y
good /dev/tabp /dev/tabd" && in_unit good BindsTo=dev-tabp.device'
finish
