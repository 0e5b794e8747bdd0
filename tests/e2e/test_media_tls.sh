#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 120
# Keys, pins and roles from the command line; addresses that are not loopback, in a network namespace of our own; what is
# refused; limits; systemd's ways of starting a service; status page.
. "$(dirname "$0")/media-lib.sh"
in_namespace --net "$@"
HOST=192.0.2.1
PORT=17419
begin 14

back() {	# CLIENT GEN
	as "$1" snapbackup --image "$W/img" --uuid "$U" --volume-name disk --gen "$2" --dest "$HOST:$PORT" -q
}

init() {
	PIN=$(snapmediad init "$W/repo") && [ "$(snapmediad init "$W/repo")" = "$PIN" ] &&
		[ "$(stat -c %a "$W/repo/server.key")" = 600 ]
}

backup_over_tls() {
	enroll "$W/repo" nas backup && [ "$(stat -c %a "$W/etc-nas/client.key")" = 600 ] && start "$W/repo" --listen "$HOST:$PORT" --http 127.0.0.1:17420 &&
		back nas 1
}

roles() {	# each for what it must not do
	enroll "$W/repo" archive restore && enroll "$W/repo" boss operator && enroll "$W/repo" eye auditor || return 1
	refused 2 "does not have the role" as nas snaprestore --from "$HOST:$PORT" --volume disk --gen 1 --to "$W/r" -q || return 1
	for c in archive boss eye; do
		refused 2 "does not have the role" back $c 5 || return 1
	done
	for c in boss eye; do
		refused 2 "does not have the role" as $c snaprestore --from "$HOST:$PORT" --gen 1 --to "$W/r" -q || return 1
	done
	# May restore, but what it sees is its own: nothing
	refused 4 "no such volume" as archive snaprestore --from "$HOST:$PORT" --volume disk --gen 1 --to "$W/r" -q && [ ! -e "$W/r" ]
}

own_volume_comes_back() {
	snapmedia client set nas --role backup,restore --repo "$W/repo" || return 1
	as nas snaprestore --from "$HOST:$PORT" --volume disk --gen 1 --to "$W/r" -q && cmp "$W/img" "$W/r"
}

unknown_and_removed() {
	as stranger snapbackup enroll "$HOST:$PORT" --pin "$PIN" >/dev/null || return 1
	refused 2 "does not know our key" back stranger 2 || return 1
	enroll "$W/repo" fired backup && back fired 2 && snapmedia client remove fired --repo "$W/repo" || return 1
	refused 2 "does not know our key" back fired 3
}

wrong_server() {	# somebody else at that address
	stop
	snapmediad init "$W/evil" >/dev/null && snapmedia client add nas --repo "$W/evil" --role backup \
		--pin "$(snapmedia client list --repo "$W/repo" -o name,pin -n | awk '$1 == "nas" { print $2 }')" || return 1
	start "$W/evil" --listen "$HOST:$PORT" || return 1
	refused 2 "not the server whose pin" back nas 2 || return 1
	stop
	[ -z "$(find "$W/evil/objects" "$W/evil/uploads" -type f)" ] && start "$W/repo" --listen "$HOST:$PORT" --http 127.0.0.1:17420
}

no_plaintext() {
	# The client: nothing that is not loopback without a pin, and no pin means no word
	refused 2 "its pin is not known" as nobody snapbackup --image "$W/img" --uuid "$U" --gen 2 --dest "$HOST:$PORT" -q || return 1
	# The server: with a key it does not speak plaintext to anybody, with none it does not listen
	stop
	start "$W/repo" --listen 127.0.0.1:$PORT || return 1
	! as nobody snapbackup --image "$W/img" --uuid "$U" --gen 2 --dest 127.0.0.1:$PORT -q || return 1
	stop
	snapmedia init "$W/plain" && refused 2 "takes TLS" snapmediad "$W/plain" --listen "$HOST:$PORT" --foreground || return 1
	# A client that knows a pin does not go down to plaintext because the server has none
	start "$W/plain" --listen 127.0.0.1:$PORT || return 1
	as down snapbackup enroll 127.0.0.1:$PORT --pin "$PIN" >/dev/null
	! as down snapbackup --image "$W/img" --uuid "$U" --gen 2 --dest 127.0.0.1:$PORT -q || return 1
	[ -z "$(find "$W/plain/objects" -type f)" ] || return 1
	stop
	start "$W/repo" --listen "$HOST:$PORT" --http 127.0.0.1:17420
}

readable_keys() {
	chmod 644 "$W/etc-nas/client.key"
	refused 2 "others can get at this key" back nas 2 || return 1
	chmod 600 "$W/etc-nas/client.key"
	chmod 640 "$W/repo/server.key"
	refused 2 "others can get at this key" snapmediad "$W/repo" --listen 127.0.0.1:0 --foreground || return 1
	chmod 600 "$W/repo/server.key"
}

forced_command() {	# what the entry does not allow, the command line cannot give
	printf '#!/bin/sh\nexec snapmediad --stdio --client eye --role backup,restore "%s"\n' "$W/repo" >"$W/ssh"
	chmod +x "$W/ssh"
	SNAPDIFF_SSH=$W/ssh refused 2 "does not have the role" snapbackup --image "$W/img" --uuid "$U" --gen 7 --dest "ssh://x$W/other" -q
}

quota() {
	enroll "$W/repo" small backup --quota 1M || return 1
	refused 6 "quota" back small 1 || return 1
	snapmedia client set small --quota 5M --repo "$W/repo" && back small 1 || return 1
	refused 6 "quota" as small snapbackup --image "$W/img" --uuid "$U" --gen 2 --base none --dest "$HOST:$PORT" -q >/dev/null ||
		return 1
	snapmedia verify "$W/repo"
}

sessions() {
	enroll "$W/repo" one backup --sessions 1 || return 1
	# A session that is held open
	mkfifo "$W/fifo"
	exec 9<>"$W/fifo"
	snapmediad --stdio --client one "$W/repo" <"$W/fifo" >/dev/null 2>>"$W/log" 9>&- &
	local held=$!
	for _ in $(seq 100); do
		[ -e "$W/repo/locks/session.one.0" ] && ! flock -n "$W/repo/locks/session.one.0" true && break
		sleep 0.05
	done
	refused 5 "its limit" back one 1 || return 1
	kill $held
	wait $held
	exec 9>&-
	back one 1
}

status_page() {
	python3 - <<-'PY' >"$W/page" || return 1
		import urllib.request
		for p in ('/', '/metrics'):
		    print(urllib.request.urlopen('http://127.0.0.1:17420' + p, timeout=5).read().decode())
		for p in ('/../server.key', '/server.key'):
		    try:
		        urllib.request.urlopen('http://127.0.0.1:17420' + p, timeout=5)
		        raise SystemExit('answered ' + p)
		    except urllib.error.HTTPError as e:
		        assert e.code == 404, e
	PY
	grep -q '^snapmedia_generations{client="nas",volume="disk",uuid="'$U'"} 1$' "$W/page" &&
		grep -q '^snapmedia_sessions 0$' "$W/page" || { cat "$W/page"; return 1; }
	refused 2 "takes TLS" snapmediad "$W/repo" --listen 127.0.0.1:0 --http "$HOST:0" --foreground
}

systemd_ways() {
	stop
	python3 - "$W" "$HOST" "$PORT" <<-'PY'
		import os, signal, socket, subprocess, sys
		w, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
		l = socket.socket()
		l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		l.bind((host, port))
		l.listen()
		n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		n.bind(w + '/notify')
		n.settimeout(10)
		pid = os.fork()
		if not pid:
		    os.dup2(l.fileno(), 9)
		    os.dup2(9, 3)
		    env = dict(os.environ, LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', NOTIFY_SOCKET=w + '/notify')
		    os.execvpe('snapmediad', ['snapmediad', w + '/repo', '--foreground', '--quiet'], env)
		l.close()
		assert n.recv(100) == b'READY=1'
		env = dict(os.environ, SNAPDIFF_CONFIG_DIR=w + '/etc-nas')
		subprocess.run(['snapbackup', '--image', w + '/img', '--uuid', '6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c001', '--gen', '40',
		                '--dest', '%s:%d' % (host, port), '-q'], env=env, check=True)
		os.kill(pid, signal.SIGTERM)
		assert n.recv(100) == b'STOPPING=1'
		assert os.waitpid(pid, 0)[1] == 0
	PY
}

secrets() {	# no key in any log, and none was ever an argument
	local k
	for k in "$W/repo/server.key" "$W"/etc-*/client.key; do
		k=$(sed -n 2p "$k")
		[ -n "$k" ] && ! grep -qF "$k" "$W/log" "$W/page" || return 1
	done
	grep -q "begin peer=$HOST client=nas roles=backup$" "$W/log"
}

ip link set lo up && ip addr add $HOST/32 dev lo ||
	{ echo "Bail out! no network namespace"; exit 1; }
head -c 3000001 /dev/urandom >"$W/img"
ok "init makes a key once, 0600, and prints its pin" init
ok "enrolled by both sides: a backup over TLS, not on loopback" backup_over_tls
ok "roles: what each must not do" roles
ok "a role given: the own volume comes back" own_volume_comes_back
ok "a key that is not known, or not any more" unknown_and_removed
ok "another server at the same address gets nothing" wrong_server
ok "no plaintext beyond loopback, and no way down to it" no_plaintext
ok "keys that others can read are refused" readable_keys
ok "a forced command cannot exceed the client's roles" forced_command
ok "quota" quota
ok "sessions of one client" sessions
ok "status page and metrics" status_page
ok "socket activation, Type=notify, graceful stop" systemd_ways
ok "no key in a log" secrets
