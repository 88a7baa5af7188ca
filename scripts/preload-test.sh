#!/bin/bash
# SPDX-License-Identifier: MIT
# Real programs over build/preload/*.so: each must give the output it gives with the C library's malloc.
# usage: preload-test.sh PROGRAMS LIBRARY.so...; PROGRAMS is the folder where tests/preload/*.c are built
set -u
cd "$(dirname "$0")/.." || exit 1
# Not in TMPDIR: a socket's path is at most 107 characters, and LD_PRELOAD ends a name at a blank.
work=$(mktemp -d /tmp/mica.XXXXXX) || exit 1
running=
# What still runs is ended: timeout passes the signal on to all that it started. Ctrl-C comes twice,
# from the terminal and from make.
end_running() {
	trap '' HUP INT TERM
	[ -z "$running" ] || { kill "$running" && wait "$running"; } 2> /dev/null
	rm -rf "$work"
}
trap end_running EXIT
passed=0 failed=0 skipped=0
built=$1
shift

have() {
	for tool in "$@"; do
		command -v "$tool" > /dev/null || return 1
	done
}

# --- What is run; each writes what it found to standard output ---

run_python3() {
	PYTHONMALLOC=malloc python3 - <<-'END'
	import collections, hashlib, json, re, threading
	words = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(60000)]
	counts = collections.Counter(w[:3] for w in words)
	text = json.dumps({w: [i, w * (i % 50)] for i, w in enumerate(words)}, sort_keys=True)
	found = len(re.findall("a[0-9]+f", text))
	out = [None] * 8
	def work(n):
	    d = {}
	    for i in range(20000):
	        d[i % 977] = str(i * n) * (i % 7)
	    out[n] = sum(len(v) for v in d.values())
	threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
	[t.start() for t in threads]; [t.join() for t in threads]
	print(len(json.loads(text)), found, counts.most_common(3), out, bytes(1 << 26)[-1])
	END
}

make_source() {
	local i
	for i in $(seq 700); do
		echo "struct s$i { int a[$((i % 13 + 1))]; double b; };"
		echo "int f$i(struct s$i *p, int n) { int s = 0;"
		echo "  for (int i = 0; i < n; i++) { if (i & 1) s += p[i].a[0] * $i; else s ^= (int)p[i].b; }"
		echo "  switch (n % 5) { case 0: return s; case 1: return -s; case 2: return s / 3; default: return s * n; } }"
	done
}

run_gcc() {
	gcc -O2 -g -S -o - "$work/large.c" | sha256sum
}

run_sqlite3() {
	sqlite3 :memory: <<-'END'
	CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB);
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
	INSERT INTO t SELECT i, printf('%08x', i * 2654435761 % 4294967296), zeroblob(i % 300) FROM n;
	CREATE INDEX tk ON t(k);
	SELECT count(*), sum(length(v)), min(k), max(k) FROM t;
	DELETE FROM t WHERE id % 3 = 0;
	SELECT group_concat(k, '') FROM (SELECT k FROM t ORDER BY k LIMIT 5000);
	SELECT a.k FROM t a JOIN t b ON a.k = b.k WHERE length(a.v) = 299 ORDER BY a.k LIMIT 20;
	PRAGMA integrity_check;
	END
}

run_perl() {
	perl -e '
		my %h; my $x = 12345;
		for my $i (1 .. 150000) {
			$x = ($x * 1103515245 + 12345) % 2147483648;
			push @{$h{$x % 5000}}, "v$x" x ($i % 9);
			delete $h{$i % 5000} if $i % 11 == 0;
		}
		my ($n, $sum) = (0, 0);
		for (sort { $a <=> $b } keys %h) { $n += @{$h{$_}}; $sum += length join ",", @{$h{$_}} }
		my $pid = fork // die; exit 7 unless $pid; waitpid $pid, 0;
		print "$n $sum ", $? >> 8, "\n";'
}

run_git() {
	local dir="$work/repo"
	rm -rf "$dir"
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
	export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
	export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
	git init -q -b main "$dir"
	cd "$dir" || return 1
	cp -r "$work/files/." .
	git add -A
	git commit -q -m one
	find . -name '*.c' -exec sed -i 's/static/STATIC/' {} +
	git commit -q -a -m two
	git gc -q
	git fsck --strict 2>&1
	git log --stat -p --format='%H %s' | sha256sum
	git blame -s mm/fault.c | sha256sum
}

ask_redis() {
	timeout 60 env -u LD_PRELOAD redis-cli -s "$work/redis.sock" "$@"
}

run_redis() {
	redis-server --port 0 --unixsocket "$work/redis.sock" --dir "$work" --save '' \
		--enable-debug-command yes --io-threads 2 > "$work/redis.log" 2>&1 &
	server=$!
	trap 'cat "$work/redis.log"; kill "$server"' EXIT
	for _ in $(seq 100); do
		[ "$(ask_redis ping 2> /dev/null)" = PONG ] && break
		sleep 0.1
	done
	ask_redis ping
	timeout 120 env -u LD_PRELOAD redis-benchmark -s "$work/redis.sock" -q -n 8000 -r 5000 -c 20 -P 4 \
		-t set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset > "$work/bench.log" 2>&1 || {
		echo "the load generator failed"
		return 1
	}
	ask_redis flushall
	ask_redis debug populate 20000 key 200
	ask_redis eval 'for i = 1, 20000 do redis.call("rpush", "l" .. i % 100, string.rep("x", i % 500)) end
		return redis.call("dbsize")' 0
	ask_redis bgsave > /dev/null
	for _ in $(seq 100); do
		case $(ask_redis info persistence) in *rdb_bgsave_in_progress:0*) break ;; esac
		sleep 0.1
	done
	ask_redis info persistence | tr -d '\r' | grep rdb_last_bgsave_status
	ask_redis debug reload
	ask_redis debug digest
	ask_redis shutdown nosave
	trap - EXIT
	wait "$server"
}

# --- The comparison ---

# The program runs in a shell that is itself over the library. In the background, for a shell that
# waits for what is in front does not see signals.
run_over() {
	local status
	LD_PRELOAD=$1 timeout -k 10 300 bash -c "$(declare -f "run_$2" ask_redis)
		set -e -o pipefail; work='$work'; run_$2" 2>&1 &
	running=$!
	wait "$running"
	status=$?
	running=
	return "$status"
}

fail() {
	failed=$((failed + 1))
	echo "FAIL: $1"
}

compare() {
	local library=$1 program=$2
	if run_over "$work/$library" "$program" > "$work/out" && cmp -s "$work/out" "$work/$program.expected"; then
		passed=$((passed + 1))
		return
	fi
	fail "$program over $library"
	diff "$work/$program.expected" "$work/out" | head -10
}

# expect_success LIBRARY WHAT PROGRAM: one of tests/preload ends with status 0
expect_success() {
	if LD_PRELOAD=$work/$1 timeout 60 "$built/$3" > "$work/out" 2>&1; then
		passed=$((passed + 1))
		return
	fi
	fail "$2, over $1"
	cat "$work/out"
}

make_source > "$work/large.c"
mkdir "$work/files" && cp -r mm scripts "$work/files"
programs=
for program in python3 gcc sqlite3 perl git redis; do
	tools=$program
	[ $program != redis ] || tools='redis-server redis-cli redis-benchmark'
	if ! have $tools; then
		echo "SKIP: $program is not here"
		skipped=$((skipped + 1))
		continue
	fi
	if run_over '' "$program" > "$work/$program.expected"; then
		programs="$programs $program"
	else
		fail "$program over the C library's malloc"
		head -10 "$work/$program.expected"
	fi
done

for path; do
	library=$(basename "$path")
	cp "$path" "$work"
	# Is it the library that serves, and the engine that its name says?
	engine=$(LD_PRELOAD=$work/$library python3 -c 'import ctypes
f = ctypes.CDLL(None).mica_preload_engine
f.restype = ctypes.c_char_p
print(f().decode().lower())' 2>&1)
	case $library in
	*-"$engine".so) passed=$((passed + 1)) ;;
	*) fail "$library says '$engine'" ;;
	esac
	expect_success "$library" 'memory goes back' give_back
	expect_success "$library" 'fork with handlers that allocate' forks
	expect_success "$library" 'misuse names its caller' misuse
	expect_success "$library" 'errors are those of the C library' errors
	for program in $programs; do
		compare "$library" "$program"
	done
done
echo "preload: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
