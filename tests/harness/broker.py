"""The broker (and the registry) that a migration's test runs over, as one thing."""

import signal
import time

from .base import until
from .kafka import Broker, Registry, listens
from .servers import free_ports


class Kafka:
    def __init__(self, folder, registry=False):
        first = free_ports(4)
        self.broker = Broker(folder, first)
        self.registry = Registry(folder, first + 3) if registry else None
        self.made = False

    def start(self):
        """Also after kill()."""
        if not self.made:
            self.broker.init()
            self.made = True
        until("the broker's ports are free", 20, lambda: not any(
            listens(port) for port in (self.broker.port, self.broker.port + 1)))
        self.broker.start()
        if self.registry and not self.registry.alive():
            self.registry.start()

    def stop(self):
        for process in (self.broker, self.registry):
            if process:
                process.end(signal.SIGKILL)

    def kill(self):
        self.broker.end(signal.SIGKILL)

    def freeze(self, seconds):
        self.broker.kill(signal.SIGSTOP)
        end = time.monotonic() + seconds
        try:
            until("the broker was frozen for a while", seconds + 5, lambda: time.monotonic() > end)
        finally:
            self.broker.kill(signal.SIGCONT)

    def uri(self):
        return f"kafka://{self.broker.address}"

    def registry_url(self):
        return self.registry.url

    def topics(self):
        """Those of migrations."""
        out = self.broker.tool("TopicCommand", "--list")
        return [t for t in out.split() if t.startswith("lockstep.")]
