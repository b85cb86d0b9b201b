"""Headless Chromium by its debugging protocol over a pair of pipes: no port, no further library."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, until  # noqa: E402


def find():
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """One page. Events are kept until asked for."""

    def __init__(self, folder):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # The browser's ends are its descriptors 3 and 4: moved out of the way first, then there.
        high_in, high_out = os.dup(theirs_in), os.dup(theirs_out)

        def place():
            os.dup2(high_in, 20)
            os.dup2(high_out, 21)
            os.dup2(20, 3)
            os.dup2(21, 4)

        self.log = open(folder / "chromium.log", "wb")
        self.process = subprocess.Popen(
            [find(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             "--no-proxy-server", f"--user-data-dir={folder / 'chromium'}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=place,
            close_fds=False, start_new_session=True)
        for fd in (theirs_in, theirs_out, high_in, high_out):
            os.close(fd)
        self.reads, self.writes = ours_in, ours_out
        self.left, self.number, self.events = b"", 0, []
        self.session = None
        target = until("the browser has a page", 30, self._page)
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _page(self):
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        return pages and pages[0]["targetId"]

    def _receive(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self.left:
            wait = end - time.monotonic()
            if wait <= 0 or not select.select([self.reads], [], [], wait)[0]:
                return None
            got = os.read(self.reads, 1 << 20)
            if not got:
                raise Failure("the browser ended")
            self.left += got
        message, self.left = self.left.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            got = self._receive(30)
            if got is None:
                raise Failure(f"the browser does not answer {method}")
            if got.get("id") == self.number:
                if "error" in got:
                    raise Failure(f"{method}: {got['error']}")
                return got["result"]
            if "method" in got:
                self.events.append(got)

    def evaluate(self, expression):
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in got:
            raise Failure(f"{expression}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def show(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(got["data"]))

    def complaints(self):
        """What the console and the policy had to say against the page."""
        self.call("Runtime.evaluate", expression="0")
        bad = [e for e in self.events if e["method"] == "Runtime.exceptionThrown" or
               e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"]
        return [json.dumps(e["params"])[:400] for e in bad]

    def requested(self):
        return {e["params"]["request"]["url"] for e in self.events
                if e["method"] == "Network.requestWillBeSent"}

    def close(self):
        for fd in (self.reads, self.writes):
            os.close(fd)
        self.process.kill()
        self.process.wait()
        self.log.close()
