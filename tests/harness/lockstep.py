"""The binary under test, by its command line alone (design.md §8)."""

import json
import os
import pathlib
import signal
import subprocess
import threading

from .base import Failure, until

MARK = "LOCKSTEP_HARNESS"


class Lockstep:
    """One migration: its folder, its file, its processes."""

    def __init__(self, binary, folder, migration, source, target, databases=("shop", "shop"),
                 uris=None):
        """source, target: Servers of PostgreSQL; or anything, with `uris` for both."""
        self.binary = str(binary)
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.migration = migration
        self.source, self.target = source, target
        self.databases, self.uris = databases, uris
        self.journal = "file:./journal"
        self.file = self.folder / "lockstep.yaml"
        self.log = self.folder / "run.log"
        self.process = None
        self.roles = {}
        self.passfile = self.folder / "passfile"
        self.passfile.write_text("127.0.0.1:*:*:lockstep:lockstep-secret\n")
        self.passfile.chmod(0o600)
        self.env = dict(os.environ, LOCKSTEP_SOURCE_PASSWORD="lockstep-secret",
                        PGPASSFILE=str(self.passfile))
        self.env[MARK] = str(self.folder)
        for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"):
            self.env.pop(name, None)

    def source_uri(self):
        if self.uris:
            return self.uris[0]
        return (f"postgresql://lockstep:${{LOCKSTEP_SOURCE_PASSWORD}}@127.0.0.1:"
                f"{self.source.port}/{self.databases[0]}")

    def target_uri(self):
        if self.uris:
            return self.uris[1]
        return f"postgresql://lockstep@127.0.0.1:{self.target.port}/{self.databases[1]}"

    def config(self, text=""):
        """Writes the file; `text` is appended and may use the words below."""
        head = (f"migration: {self.migration}\nsource: {self.source_uri()}\n"
                f"target: {self.target_uri()}\njournal: {self.journal}\n"
                f"listen: 127.0.0.1:0\n")
        self.file.write_text((head if "migration:" not in text else "") + self.expand(text))

    def expand(self, text):
        words = {"MIGRATION": self.migration, "SOURCE": self.source_uri(),
                 "TARGET": self.target_uri(), "DIR": str(self.folder),
                 "SOURCE_PORT": str(self.source.port), "TARGET_PORT": str(self.target.port),
                 "DATABASE": self.databases[0]}
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        return text

    def do(self, *args, timeout=300, kill=None):
        """Runs a command to its end: (exit status, stdout, stderr). `kill`: the point of a switch at
        which it dies."""
        argv = [self.binary, "-c", str(self.file), *args]
        env = dict(self.env, LOCKSTEP_TEST_KILL=kill) if kill else self.env
        child = subprocess.Popen(argv, cwd=self.folder, env=env, text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            raise Failure(f"lockstep {' '.join(args)} did not end in {timeout} s\n"
                          f"{out[-1500:]}{err[-1500:]}")
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        with (self.folder / "commands.log").open("a") as f:
            f.write(f"$ lockstep {' '.join(args)}{f' (killed at {kill})' if kill else ''}"
                    f" -> {child.returncode}\n{out}{err}\n")
        return child.returncode, out, err

    def stand(self, point, *args):
        """Starts a command and waits until it stands still at this point of a switch, where it stays
        until SIGCONT, or has ended before it (Standing.ended)."""
        return Standing(self, point, args).await_stop(60)

    def must(self, *args, status=0, timeout=300):
        got, out, err = self.do(*args, timeout=timeout)
        if got != status:
            raise Failure(f"lockstep {' '.join(args)}: exit {got}, expected {status}\n"
                          f"{out[-2500:]}{err[-2500:]}")
        return out

    def start(self, *args):
        """`run` in the background; its log is appended to run.log."""
        log = self.log.open("ab")
        self.process = subprocess.Popen([self.binary, "-c", str(self.file), "run", *args],
                                        cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, start_new_session=True)
        log.close()
        return self.process

    def start_role(self, role, *args):
        """capture, snapshot or apply, as a process of its own."""
        log = (self.folder / f"{role}.log").open("ab")
        self.roles[role] = subprocess.Popen([self.binary, "-c", str(self.file), role, *args],
                                            cwd=self.folder, env=self.env,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        log.close()

    def role_tail(self, role, size=1500):
        return (self.folder / f"{role}.log").read_text(errors="replace")[-size:]

    def kill_role(self, role):
        self.roles[role].kill()
        self.roles[role].wait()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def must_live(self):
        if not self.alive():
            code = self.process.returncode if self.process else None
            raise Failure(f"lockstep run ended by itself (exit {code}):\n{self.tail()}")

    def tail(self, size=2500):
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def kill(self):
        """kill -9 of the process itself, not of its children: those must go by themselves."""
        if self.alive():
            self.process.kill()
            self.process.wait()

    def stop(self, seconds=20):
        """SIGTERM; Failure unless it ends in time."""
        if not self.alive():
            return self.process.returncode if self.process else None
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"lockstep run did not end within {seconds} s of SIGTERM")

    def end(self):
        """Clean-up: whatever still runs in this migration's name."""
        self.kill()
        for role in self.roles:
            self.kill_role(role)
        for pid in marked(self.folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def status(self):
        """The JSON, or None if it could not be read (servers restarting, nothing there yet)."""
        try:
            code, out, _ = self.do("status", "--json", timeout=30)
            return json.loads(out) if code == 0 else None
        except (Failure, ValueError):
            return None

    def must_status(self):
        """The JSON, where both sides are there to be asked: an answer may be late all the same."""
        return until("status answers", 20, self.status)

    @staticmethod
    def none_parked(status):
        """Failure with the reason if a table was parked; gives the status back."""
        for table in (status or {}).get("tables", []):
            if table["lane"] == "parked":
                raise Failure(f"{table['name']} was parked: {table.get('reason')}")
        return status

    def phase(self):
        got = self.status()
        return got.get("phase") if got else None

    def wait_phase(self, wanted, seconds):
        """Until the phase is one of `wanted`; run must live meanwhile."""
        def probe():
            self.must_live()
            got = self.none_parked(self.status())
            return got if got and got.get("phase") in wanted else None
        return until(f"phase {' or '.join(wanted)}", seconds, probe, every=0.3)


class Standing:
    """A command of a migration that has stopped itself (LOCKSTEP_TEST_STOP)."""

    def __init__(self, lockstep, point, args):
        self.point = point
        self.log = lockstep.folder / "standing.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [lockstep.binary, "-c", str(lockstep.file), *args], cwd=lockstep.folder,
                env=dict(lockstep.env, LOCKSTEP_TEST_STOP=point), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL)
        self.stat = pathlib.Path(f"/proc/{self.process.pid}/stat")

    def stands(self):
        return (self.process.poll() is not None or
                self.stat.read_text().rsplit(")", 1)[1].split()[0] == "T")

    def await_stop(self, seconds):
        try:
            until(f"it stands at {self.point}", seconds, self.stands, every=0.02)
        except BaseException:
            self.kill()
            raise
        return self

    def ended(self):
        """The exit status if it never came to stand, else None."""
        return self.process.poll()

    def go_on(self, seconds):
        """Its exit status, once it goes on."""
        self.process.send_signal(signal.SIGCONT)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"it did not end within {seconds} s of standing at {self.point}: "
                          f"{self.text()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def text(self):
        return self.log.read_text(errors="replace")[-2000:]


def _environ(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def marked(folder):
    """Every process that a Lockstep of this folder started, or that those started."""
    word = f"{MARK}={folder}".encode() + b"\0"
    return [int(p.name) for p in pathlib.Path("/proc").iterdir()
            if p.name.isdigit() and word in _environ(p.name)]


def command_name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class MemoryWatch:
    """The peak resident memory (VmHWM) of each program that a migration runs, as the kernel
    counts it: a sample late in a process's life has its whole past in it."""

    def __init__(self, folder, every=0.05):
        self.folder, self.every = folder, every
        self.peak = {}
        self.known = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.over.is_set():
            self.sample()
            self.over.wait(self.every)

    def sample(self):
        pids = {int(p.name) for p in pathlib.Path("/proc").iterdir() if p.name.isdigit()}
        word = f"{MARK}={self.folder}".encode() + b"\0"
        for pid in pids:
            # A process has its own environment only after exec: strangers are asked a few times.
            asked = self.known.setdefault(pid, 0)
            if asked is not True and asked < 20:
                asked = self.known[pid] = word in _environ(pid) or asked + 1
            if asked is True:
                self._read(pid)
        for pid in list(self.known):
            if pid not in pids:
                del self.known[pid]

    def _read(self, pid):
        try:
            text = pathlib.Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "VmHWM" in fields:
            name = fields["Name"].strip()
            kib = int(fields["VmHWM"].split()[0])
            self.peak[name] = max(self.peak.get(name, 0), kib)

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.peak
