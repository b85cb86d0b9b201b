"""Waits, temporary folders, clean-up. Every wait has an end; every process has an owner."""

import os
import pathlib
import pwd
import shutil
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Failure(Exception):
    """A test's verdict, with what a reader needs to go on."""


def mono_ms():
    return time.monotonic_ns() // 1_000_000


def until(what, seconds, probe, every=0.1):
    """Calls probe until it gives something true, and returns that; Failure after `seconds`, but never
    without having called it behind them: the machine may have slept through."""
    end = time.monotonic() + seconds
    while True:
        late = time.monotonic() > end
        got = probe()
        if got:
            return got
        if late:
            raise Failure(f"waited {seconds} s in vain: {what}")
        time.sleep(every)


def server_user():
    """Whom the servers run as: PostgreSQL refuses root. None: ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failure("neither user postgres nor nobody exists to run the servers")


def as_server_user(argv):
    user = server_user()
    if user is None:
        return argv
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups", *argv]


class Workdir:
    """A folder on a real disk; removed at the end unless kept or something failed."""

    def __init__(self, path=None, prefix="lockstep-"):
        self.made = path is None
        if path is None:
            path = tempfile.mkdtemp(prefix=prefix, dir=os.environ.get("LOCKSTEP_TMP", "/var/tmp"))
        self.path = pathlib.Path(path).resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o755)

    def remove(self):
        if self.made:
            shutil.rmtree(self.path, ignore_errors=True)


class Cleanup:
    """Runs what was registered, last first, also after Ctrl-C or a TERM."""

    def __init__(self):
        self.steps = []
        # A shell that starts us in the background leaves SIGINT ignored.
        signal.signal(signal.SIGINT, self.on_term)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGHUP, self.on_term)

    @staticmethod
    def on_term(signo, frame):
        raise KeyboardInterrupt

    def add(self, step):
        self.steps.append(step)

    def run(self):
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signo, signal.SIG_IGN)
        while self.steps:
            step = self.steps.pop()
            try:
                step()
            except Exception as e:  # the other steps must still run
                print(f"clean-up: {e}", file=sys.stderr)
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signo, signal.SIG_DFL)


def guarded(main):
    """Runs main(cleanup): exit status 0, 1 with the Failure's text, 130 when interrupted."""
    cleanup = Cleanup()
    status = 1
    try:
        status = main(cleanup) or 0
    except Failure as e:
        print(f"FAILED: {e}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: cleaning up", file=sys.stderr)
        status = 130
    finally:
        cleanup.run()
    sys.exit(status)
