#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 400
# What a session's process can not do, seen from inside of one; strangers that come in crowds; many clients at once, and
# the memory that both sides take.
. "$(dirname "$0")/media-lib.sh"
in_namespace --net "$@"
HOST=127.0.0.1
PORT=0
begin 7

back() {	# CLIENT IMAGE GEN [OPTION...]
	as "$1" snapbackup --image "$2" --uuid "$U" --volume-name disk --gen "$3" --dest "$HOST:$PORT" -q "${@:4}"
}

served() {	# REPO: TLS, and a client "nas" that may back up and restore
	PIN=$(snapmediad init "$1" "${@:2}") && start "$1" --listen $HOST:0 --http $HOST:17422 && enroll "$1" nas backup,restore
}

# In the place of pwritev(), which a session calls for each record and nobody else does: an intruder, who says what he got.
probe() {
	cat >"$W/probe.c" <<-'C'
		#define _GNU_SOURCE
		#include <errno.h>
		#include <fcntl.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <string.h>
		#include <sys/socket.h>
		#include <sys/uio.h>
		#include <unistd.h>

		static void try_open(const char *what, const char *path)
		{
			int fd = open(path, O_RDONLY);

			fprintf(stderr, "probe %s: %s\n", what, fd < 0 ? strerror(errno) : "GOT IT");
		}

		ssize_t pwritev64(int fd, const struct iovec *iov, int nr, off_t at)
		{
			const char *what = getenv("PROBE");

			try_open("passwd", "/etc/passwd");
			try_open("key", getenv("PROBE_KEY"));
			if (!strcmp(what, "exec"))
				execl("/bin/sh", "sh", "-c", "echo probe exec: GOT IT >&2", NULL);
			if (!strcmp(what, "socket"))
				fprintf(stderr, "probe socket: %s\n", socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerror(errno) : "GOT IT");
			return lseek(fd, at, SEEK_SET) < 0 ? -1 : writev(fd, iov, nr);
		}
	C
	${CC:-cc} -shared -fPIC -o "$W/probe.so" "$W/probe.c"
}

intruder() {
	local before

	probe || return 1
	for what in none exec socket; do
		: >"$W/log"
		# shellcheck disable=SC2097,SC2098
		PROBE=$what PROBE_KEY=$W/repo/server.key LD_PRELOAD=$W/probe.so start "$W/repo" --listen $HOST:0 || return 1
		before=$(ls "$W"/repo/objects/volumes/*/manifests 2>/dev/null | wc -l)
		as nas snapbackup enroll $HOST:$PORT --pin "$PIN" >/dev/null
		back nas "$W/img" 7
		rc=$?
		stop
		cat "$W/log"
		grep -q "GOT IT" "$W/log" && return 1
		[ "$(grep -c "^probe passwd: Permission denied" "$W/log")" -ge 1 ] && grep -q "^probe key: Permission denied" "$W/log" || return 1
		if [ $what = none ]; then
			[ $rc = 0 ] && snapmedia prune "$W/repo" --volume disk --keep-last 1 --apply >/dev/null || return 1
			rm -rf "$W/repo/objects/volumes"
		else	# SIGSYS; and nothing was published
			[ $rc != 0 ] && grep -q "killed session=[0-9]* signal=31" "$W/log" || return 1
			[ "$(ls "$W"/repo/objects/volumes/*/manifests 2>/dev/null | wc -l)" = 0 ] || return 1
		fi
	done
}

# Of a session that is held open: what the kernel says about its process.
as_the_kernel_sees_it() {
	served "$W/repo" || return 1
	python3 - "$HOST" "$PORT" "$DAEMON" "$W/etc-nas/client.key" "$(id -u nobody)" "${1:-0}" <<-'PY'
		import os, ssl, socket, subprocess, sys, time
		host, port, daemon, key, nobody, dropped = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6] == '1'
		s = socket.create_connection((host, port))
		s.sendall(b'\x16\x03\x01\x02\x00\x01')        # the begin of a ClientHello
		for _ in range(200):
		    kids = open('/proc/%d/task/%d/children' % (daemon, daemon)).read().split()
		    text = [open('/proc/%s/status' % k).read() for k in kids]
		    text = [t for t in text if 'Seccomp:\t2' in t]
		    if text:
		        break
		    time.sleep(0.05)
		assert text, 'no confined process'
		have = dict(l.split(':\t', 1) for l in text[0].splitlines() if ':\t' in l)
		assert have['NoNewPrivs'] == '1' and int(have['CapEff'], 16) == 0 and int(have['CapPrm'], 16) == 0, have
		print(have['Uid'])
		assert not dropped or have['Uid'].split() == [nobody] * 4, have['Uid']
		if dropped:
		    master = open('/proc/%d/status' % daemon).read()
		    assert 'Uid:\t%s\t%s\t%s\t%s\n' % ((nobody,) * 4) in master, master
	PY
	rc=$?
	stop
	return $rc
}

# Root's daemon becomes who the repository belongs to; what root does to the repository by hand stays that user's.
not_root() {
	chmod 711 "$W"
	served "$W/nobodys" --user nobody && back nas "$W/img" 1 || return 1
	[ "$(ps -o user= -p "$DAEMON")" = nobody ] || return 1
	rm -f "$W/r"
	as nas snaprestore --from $HOST:$PORT --volume disk --gen 1 --to "$W/r" -q && cmp "$W/img" "$W/r" || return 1
	rm -f "$W/r"
	snaprestore --from "$W/nobodys" --volume disk --gen 1 --to "$W/r" -q && cmp "$W/img" "$W/r" || return 1
	snapmedia lock "$W/nobodys" --gen 1 && snapmedia verify "$W/nobodys" && snapmedia import "$W/nobodys" "$W/stream" || return 1
	[ -z "$(find "$W/nobodys" ! -user nobody)" ] || { find "$W/nobodys" ! -user nobody -ls; return 1; }
	back nas "$W/img2" 2 --base 1 --base-image "$W/img" || return 1
	stop
	refused 2 "does not belong to user nobody" snapmediad "$W/repo" --user nobody --listen $HOST:0 --foreground
}

# 200 who say nothing and 60 who begin a handshake, from the address of a client and from another; the client comes through.
crowd() {
	served "$W/crowd" || return 1
	stop
	start "$W/crowd" --listen $HOST:0 --http $HOST:17422 --max-sessions 2 && as nas snapbackup enroll $HOST:$PORT --pin "$PIN" >/dev/null || return 1
	python3 - "$PORT" "$W" "$U" "$DAEMON" <<-'PY'
		import os, socket, subprocess, sys, time, urllib.request
		port, w, u, daemon = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

		def metric(name):
		    text = urllib.request.urlopen('http://127.0.0.1:17422/metrics', timeout=20).read().decode()
		    return int([l for l in text.splitlines() if l.startswith(name + ' ')][0].split()[1])

		def alive(crowd):
		    n = 0
		    for s in crowd:
		        s.setblocking(False)
		        try:
		            n += s.recv(1) != b''
		        except BlockingIOError:
		            n += 1
		        except OSError:
		            pass
		    return n

		def come(source, n, text):
		    crowd = []
		    for _ in range(n):
		        s = socket.create_connection(('127.0.0.1', port), source_address=(source, 0))
		        if text:
		            try:
		                s.sendall(text)
		            except OSError:
		                pass
		        crowd.append(s)
		    return crowd

		half = b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'
		env = dict(os.environ, SNAPDIFF_CONFIG_DIR=w + '/etc-nas')
		for gen, source in ((1, '127.0.0.1'), (2, '127.0.0.2')):
		    crowd = come(source, 200, b'') + come(source, 60, half)
		    crowd += come('127.0.0.3', 60, b'') + come('127.0.0.4', 60, half) + come('127.0.0.5', 60, b'')
		    subprocess.run(['snapbackup', '--image', w + '/img', '--uuid', u, '--gen', str(gen), '--dest', '127.0.0.1:%d' % port, '-q'],
		                   env=env, check=True)
		    left = alive(crowd)
		    kids = len(open('/proc/%d/task/%d/children' % (daemon, daemon)).read().split())
		    print('of', len(crowd), left, 'are left,', kids, 'processes, dropped', metric('snapmedia_dropped_total'))
		    assert left <= 128 and kids <= 135, (left, kids)
		    assert metric('snapmedia_dropped_total') >= (len(crowd) - 128) * gen
		for _ in range(600):        # and their time is limited
		    if not alive(crowd):
		        break
		    time.sleep(0.1)
		assert not alive(crowd), alive(crowd)
		assert metric('snapmedia_sessions_total') == 2 and metric('snapmedia_refused_total') == 0
	PY
}

# One more than there is room for is told so; a session is held by a wire that stops in the middle of a backup.
too_many() {
	local wire=17423 rc

	stop
	start "$W/crowd" --listen $HOST:0 --http $HOST:17422 --max-sessions 1 && as nas snapbackup enroll $HOST:$PORT --pin "$PIN" >/dev/null &&
		as nas snapbackup enroll $HOST:$wire --pin "$PIN" >/dev/null || return 1
	python3 - "$PORT" $wire <<-'PY' &
		import select, socket, sys
		l = socket.create_server(('127.0.0.1', int(sys.argv[2])))
		a = l.accept()[0]
		b = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
		left = 300000
		while True:
		    for s in select.select([a, b] if left > 0 else [b], [], [])[0]:
		        data = s.recv(65536)
		        if not data:
		            sys.exit()
		        (b if s is a else a).sendall(data)
		        left -= len(data) if s is a else 0
	PY
	local proxy=$!
	for _ in $(seq 100); do
		ss -ltn | grep -q ":$wire " && break
		sleep 0.05
	done
	head -c 3000001 /dev/urandom >"$W/other"	# nothing of it is there: all has to go
	as nas snapbackup --image "$W/other" --uuid "$U" --gen 50 --base none --dest $HOST:$wire -q >/dev/null 2>&1 &
	local held=$!
	for _ in $(seq 200); do
		[ "$(du -s "$W/crowd/uploads" | cut -f1)" -gt 100 ] && break
		sleep 0.05
	done
	refused 5 "too many sessions" back nas "$W/img" 52
	rc=$?
	kill $proxy $held
	wait $proxy $held
	[ $rc = 0 ] || return 1
	for _ in $(seq 100); do		# the place is free when the cut connection has been seen
		back nas "$W/img" 52 && break
		sleep 0.1
	done
	stop
	[ -n "$(find "$W/crowd/objects" -name 0000000052.manifest)" ]
}

# Sixteen clients at once, each with its own image and identity; each side's memory is looked at.
sixteen() {
	PIN=$(snapmediad init "$W/many") && start "$W/many" --listen $HOST:0 || return 1
	for i in $(seq 16); do
		enroll "$W/many" "c$i" backup,restore || return 1
		{ head -c 3M /dev/urandom; head -c 2M /dev/zero; head -c $((i * 100000 + 7)) /dev/urandom; } >"$W/m$i"
		cp "$W/m$i" "$W/n$i"
		head -c 100000 /dev/urandom | dd of="$W/n$i" bs=4096 seek=$((i * 10)) conv=notrunc status=none
	done
	python3 - "$HOST:$PORT" "$W" "$U" <<-'PY' || return 1
		import os, sys
		dest, w, u = sys.argv[1:]

		def run(argv_of, most):
		    pids = {}
		    for i in range(1, 17):
		        pid = os.fork()
		        if not pid:
		            os.environ['SNAPDIFF_CONFIG_DIR'] = '%s/etc-c%d' % (w, i)
		            os.environ['SNAPDIFF_STATE_DIR'] = '%s/state-%d' % (w, i)
		            argv = argv_of(i)
		            os.execvp(argv[0], argv)
		        pids[pid] = i
		    peak = 0
		    while pids:
		        pid, status, usage = os.wait4(-1, 0)
		        assert not status, (pids[pid], status)
		        del pids[pid]
		        peak = max(peak, usage.ru_maxrss)
		    print('peak KiB of a client:', peak)
		    assert peak < most, peak

		back = lambda i, f, g, *more: ['snapbackup', '--image', '%s/%s%d' % (w, f, i), '--uuid', u, '--volume-name', 'disk', '--gen', str(g),
		                               '--dest', dest, '-q', *more]
		restore = lambda i, g: ['snaprestore', '--from', dest, '--volume', 'disk', '--gen', str(g), '--to', '%s/r%d.%d' % (w, i, g), '-q']
		run(lambda i: back(i, 'm', 1), 128 << 10)
		run(lambda i: back(i, 'n', 2, '--base', '1', '--base-image', '%s/m%d' % (w, i)), 128 << 10)
		run(lambda i: restore(i, 1 + i % 2), 128 << 10)
		run(lambda i: restore(i, 2 - i % 2), 128 << 10)
		for i in range(1, 17):
		    for g, f in ((1, 'm'), (2, 'n')):
		        assert open('%s/r%d.%d' % (w, i, g), 'rb').read() == open('%s/%s%d' % (w, f, i), 'rb').read(), (i, g)
	PY
	stop
	[ "$(snapmedia list "$W/many" -o client,generation --noheadings | wc -l)" = 32 ] && snapmedia verify "$W/many" || return 1
	sed -n 's/.*peak_kib=\([0-9]*\).*/\1/p' "$W/log" | sort -n | tail -1 >"$W/peak"
	echo "peak KiB of a session: $(cat "$W/peak")"
	[ "$(sed -n 's/.*peak_kib=//p' "$W/log" | wc -l)" -ge 64 ] && [ "$(cat "$W/peak")" -lt $((128 << 10)) ]
}

# A large one: more records than fit into what either side may have.
memory_of_a_large_one() {
	PIN=$(snapmediad init "$W/large") && : >"$W/log" && start "$W/large" --listen $HOST:0 && enroll "$W/large" big backup,restore || return 1
	truncate -s 4G "$W/big"
	python3 - "$W/big" <<-'PY'
		import os, sys
		with open(sys.argv[1], 'r+b') as f:
		    for i in range(30000):        # scattered: an extent each
		        f.seek(i * 128 << 10)
		        f.write(os.urandom(4096))
	PY
	python3 - "$HOST:$PORT" "$W" "$U" <<-'PY' || return 1
		import os, sys
		dest, w, u = sys.argv[1:]
		os.environ['SNAPDIFF_CONFIG_DIR'] = w + '/etc-big'
		for argv in (['snapbackup', '--image', w + '/big', '--uuid', u, '--volume-name', 'disk', '--gen', '1', '--dest', dest, '-q'],
		             ['snaprestore', '--from', dest, '--volume', 'disk', '--gen', '1', '--to', w + '/bigback', '-q']):
		    pid = os.spawnvp(os.P_NOWAIT, argv[0], argv)
		    _, status, usage = os.wait4(pid, 0)
		    print(argv[0], 'peak KiB', usage.ru_maxrss)
		    assert not status and usage.ru_maxrss < 128 << 10
	PY
	stop
	grep -o 'peak_kib=[0-9]*' "$W/log"
	[ "$(sed -n 's/.*peak_kib=\([0-9]*\).*/\1/p' "$W/log" | sort -n | tail -1)" -lt $((128 << 10)) ] || return 1
	python3 - "$W/big" "$W/bigback" <<-'PY'
		import os, sys
		a, b = (open(p, 'rb') for p in sys.argv[1:])
		assert os.path.getsize(sys.argv[1]) == os.path.getsize(sys.argv[2]) and os.stat(sys.argv[2]).st_blocks * 512 < 1 << 30
		for i in range(30000):
		    a.seek(i * 128 << 10), b.seek(i * 128 << 10)
		    assert a.read(8192) == b.read(8192), i
	PY
}

ip link set lo up || { echo "Bail out! no network namespace"; exit 1; }
head -c 3000001 /dev/urandom >"$W/img"
cp "$W/img" "$W/img2"
head -c 5000 /dev/urandom | dd of="$W/img2" bs=4096 seek=3 conv=notrunc status=none
snapbackup --image "$W/img" --uuid 6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c002 --volume-name other --gen 1 --dest - -q >"$W/stream" 2>/dev/null
ok "a session's process has no privileges" as_the_kernel_sees_it
ok "an intruder in a session: no files, no keys, no programs, no sockets" intruder
if [ "$(id -u)" = 0 ] && [ "$(awk '{ print $3; exit }' /proc/self/uid_map)" -gt 65534 ]; then
	ok "root is given up" not_root
else
	N=$((N + 1))
	echo "ok $N root is given up # SKIP not root"
fi
ok "crowds of strangers keep nobody out" crowd
ok "more sessions than there may be" too_many
ok "sixteen clients at once, all correct, in 128 MiB each" sixteen
ok "30000 extents over 4 GiB, in 128 MiB" memory_of_a_large_one
