#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_record.py BENCH_DIR NAME...        record the traces of the default set (`all`: every one)
bench_record.py BENCH_DIR --program CMD [NAME]  record any command, run by the shell

A trace lands in BENCH_DIR/traces/NAME.trace; NAME is the program's own where none is given. A command may
consist of many processes, each of which has a trace: of those the longest is kept, or that of the process
which the default set names.
"""
import glob, json, os, re, shutil, subprocess, sys, tempfile, time

CALLS = 500000  # where a recording ends
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
SYNTHETIC = ("small", "wide", "aligned", "queue", "stack", "growing", "merging")


class Recorder:
    def __init__(self, bench_dir):
        self.bin = os.path.abspath(os.path.join(bench_dir, "host"))
        self.traces = os.path.abspath(os.path.join(bench_dir, "traces"))
        os.makedirs(self.traces, exist_ok=True)

    def environment(self, prefix, **extra):
        return dict(os.environ, LD_PRELOAD=os.path.join(self.bin, "record.so"), MICA_TRACE=prefix,
                    MICA_TRACE_CALLS=str(CALLS), LC_ALL="C", **extra)

    def info(self, path):
        out = subprocess.run([os.path.join(self.bin, "tracetool"), "info", path], capture_output=True, text=True,
                             errors="surrogateescape")  # as the names of files
        return json.loads(out.stdout) if out.returncode == 0 else None

    def keep(self, prefix, name, program=""):
        """The longest trace, of a process called like program, becomes NAME.trace."""
        found = [i for i in map(self.info, glob.glob(glob.escape(prefix) + ".*.trace")) if i]
        found = [i for i in found if i["program"].startswith(program)]
        if not found:
            raise SystemExit("bench: %s: nothing was recorded" % (name or "this program"))
        best = max(found, key=lambda i: i["ops"])
        name = name or own_name(best["program"])
        path = os.path.join(self.traces, name + ".trace")
        shutil.move(best["trace"], path)
        cut = " (cut at %d calls)" % CALLS if best["calls"] >= CALLS else ""
        print("  recorded %-8s %8d operations, peak %8d bytes in %d blocks (%s)%s" % (
            name, best["ops"], best["peak_bytes"], best["peak_blocks"], path, cut))

    def record(self, command, name, program="", stdin=None, **extra):
        with tempfile.TemporaryDirectory() as tmp:
            prefix = os.path.join(tmp, "t")
            run = subprocess.run(command, env=self.environment(prefix, **extra), stdin=stdin,
                                 stdout=subprocess.DEVNULL, shell=isinstance(command, str))
            if isinstance(command, str) and run.returncode in (126, 127):
                raise SystemExit("bench: %s: the shell could not run this (status %d)" % (command, run.returncode))
            if run.returncode:
                print("bench: %s: exit status %d" % (name or command, run.returncode), file=sys.stderr)
            self.keep(prefix, name, program)

    # --- The default set: programs that the set-up installs, over files of this tree ---

    def python(self):
        self.record([PYTHON, "bench/programs/work.py", "docs/memory.md"], "python", "python",
                    PYTHONMALLOC="malloc", PYTHONHASHSEED="0")

    def perl(self):
        self.record(["perl", "bench/programs/work.pl", "docs/memory.md"], "perl", "perl", PERL_HASH_SEED="0")

    def sqlite(self):
        with open("bench/programs/work.sql") as sql:
            self.record(["sqlite3", ":memory:"], "sqlite", "sqlite3", stdin=sql)

    def cc1(self):
        self.record(["gcc", "-O2", "-g", "-Imm/include", "-Imm", "-c", "mm/byte_slab.c", "-o", "/dev/null"],
                    "cc1", "cc1")

    def git(self):
        """A repository made of this tree's sources, a commit for each file, then the whole history as patches."""
        with tempfile.TemporaryDirectory() as repo:
            def git(*args):
                subprocess.run(["git", "-C", repo, "-c", "user.name=mica", "-c", "user.email=mica@localhost",
                                "-c", "core.autocrlf=false", *args], check=True, stdout=subprocess.DEVNULL)
            git("init", "-q")
            for source in sorted(glob.glob("mm/**/*.[ch]", recursive=True) + glob.glob("kernel/**/*.[ch]", recursive=True)):
                os.makedirs(os.path.join(repo, os.path.dirname(source)), exist_ok=True)
                shutil.copy(source, os.path.join(repo, source))
                git("add", source)
                git("commit", "-q", "-m", "add " + source)
            self.record(["git", "-C", repo, "--no-pager", "log", "-p", "--stat", "-M"], "git", "git")

    def redis(self):
        """The server under redis-benchmark, over a socket in the file system."""
        with tempfile.TemporaryDirectory() as tmp:
            prefix, sock = os.path.join(tmp, "t"), os.path.join(tmp, "sock")
            server = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", sock, "--save", "", "--dir", tmp],
                env=self.environment(prefix), stdout=subprocess.DEVNULL)
            try:
                for _ in range(100):
                    if os.path.exists(sock):
                        break
                    time.sleep(0.1)
                subprocess.run(["redis-benchmark", "-s", sock, "-q", "-n", "15000", "-r", "20000", "-d", "100",
                                "-t", "set,get,lpush,sadd,hset,zadd,incr,lrange_100"],
                               check=True, stdout=subprocess.DEVNULL)
                subprocess.run(["redis-cli", "-s", sock, "shutdown", "nosave"], check=True)
                server.wait(30)
            finally:
                server.kill()
            self.keep(prefix, "redis", "redis-server")

    def synthetic(self, kind):
        path = os.path.join(self.traces, "syn-%s.trace" % kind)
        subprocess.run([os.path.join(self.bin, "tracetool"), "synth", kind, path], check=True)


    def default_set(self, names):
        for name in names:
            if name.startswith("syn-"):
                self.synthetic(name[len("syn-"):])
            else:
                getattr(self, name)()


REAL = ("python", "cc1", "perl", "sqlite", "git", "redis")


def wrong_name(name):
    """Why no trace of one's own may be called so; None: it may."""
    if not re.fullmatch(r"\w[\w.+-]*", name):  # it stays in the folder of traces, and is one word of a table
        return "letters, digits and . _ + - make a name"
    if name in REAL or name.startswith("syn-"):  # its figures would pass for the set's
        return "the default set has a trace of this name"
    return None


def own_name(name):
    wrong = wrong_name(name)
    if wrong:
        raise SystemExit("bench: NAME=%s: %s: give another NAME=" % (name, wrong))
    return name


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    recorder = Recorder(sys.argv[1])
    if sys.argv[2] == "--program":
        name = sys.argv[4] if len(sys.argv) > 4 else ""
        recorder.record(sys.argv[3], name and own_name(name))
        return
    recorder.default_set(REAL + tuple("syn-" + k for k in SYNTHETIC) if sys.argv[2] == "all" else sys.argv[2:])


if __name__ == "__main__":
    main()
