"""A private Kafka broker on loopback (KRaft, one node) and a schema registry, from what
scripts/fetch-kafka brought.

As a program: kafka.py start DIR PORT [--registry] | stop DIR   (tests/with_kafka). The broker takes
PORT (plain) and PORT+1 (its controller); with TLS also PORT+2 (SASL_SSL, user app); the registry
takes PORT+3."""

import base64
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import ROOT, Failure, until  # noqa: E402

KAFKA = ROOT / ".cache" / "kafka-4.1.0"
REGISTRY = ROOT / ".cache" / "apicurio-3.0.9"
JAVA = ["java", "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
SECRET = "app-secret"


class Process:
    """A Java program that outlives us if it has to: known by its pid file."""

    def __init__(self, home, name):
        self.home = pathlib.Path(home)
        self.pidfile = self.home / f"{name}.pid"
        self.log = self.home / f"{name}.log"

    def pid(self):
        try:
            return int(self.pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def alive(self):
        pid = self.pid()
        if pid is None:
            return False
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                return f.read().rsplit(")", 1)[1].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def spawn(self, argv):
        with self.log.open("ab") as log:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     cwd=self.home, start_new_session=True)
        self.pidfile.write_text(str(child.pid))
        self.child = child

    def kill(self, signo):
        if self.alive():
            os.kill(self.pid(), signo)

    def end(self, signo=signal.SIGTERM, seconds=15):
        if self.alive():
            self.kill(signal.SIGCONT)
            self.kill(signo)
            deadline = time.monotonic() + seconds
            while self.alive() and time.monotonic() < deadline:
                self._reap()
                time.sleep(0.05)
            self.kill(signal.SIGKILL)
            until(f"{self.pidfile.stem} ends", 10, self._gone)
        self.pidfile.unlink(missing_ok=True)

    def _gone(self):
        self._reap()
        return not self.alive()

    def _reap(self):
        child = getattr(self, "child", None)
        if child:
            child.poll()


class Broker(Process):
    """tls=True: a listener for SASL_SSL too, with a certificate of a CA of its own."""

    def __init__(self, home, port, tls=False):
        super().__init__(home, "broker")
        self.port = int(port)
        self.tls = tls
        self.certs = self.home / "certs"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def tls_address(self):
        return f"127.0.0.1:{self.port + 2}"

    def init(self):
        if not KAFKA.is_dir():
            raise Failure("the broker is not here; remedy: scripts/fetch-kafka")
        self.home.mkdir(parents=True, exist_ok=True)
        listeners = f"PLAINTEXT://{self.address}"
        if self.tls:
            make_certificates(self.certs)
            listeners += f",SASL_SSL://{self.tls_address}"
        lines = [
            "process.roles=broker,controller", "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{self.port + 1}",
            f"listeners={listeners},CONTROLLER://127.0.0.1:{self.port + 1}",
            f"advertised.listeners={listeners}", "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "SASL_SSL:SASL_SSL",
            f"log.dirs={self.home}/data", "num.partitions=1",
            # What a careless administrator leaves on: our topics must not depend on it.
            "auto.create.topics.enable=true", "log.retention.ms=604800000",
            "log.retention.check.interval.ms=1000", "log.initial.task.delay.ms=500",
            "offsets.topic.replication.factor=1", "offsets.topic.num.partitions=1",
            "group.initial.rebalance.delay.ms=0",
        ]
        if self.tls:
            lines += [
                "ssl.keystore.type=PEM", f"ssl.keystore.location={self.certs}/broker.keystore",
                "sasl.enabled.mechanisms=PLAIN",
                "listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security."
                f'plain.PlainLoginModule required user_app="{SECRET}";',
            ]
        (self.home / "server.properties").write_text("\n".join(lines) + "\n")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run([*JAVA, "-cp", f"{KAFKA}/*", "kafka.tools.StorageTool", "format",
                               f"--cluster-id={cluster}", "-c", "server.properties"],
                              cwd=self.home, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        if done.returncode:
            raise Failure(f"the broker's storage cannot be made: {done.stdout[-2000:]}")

    def start(self, seconds=180):
        for port in (self.port, self.port + 1):
            if listens(port):
                raise Failure(f"port {port} is taken")
        self.spawn([*JAVA, "-cp", f"{KAFKA}/*", "kafka.Kafka", "server.properties"])
        until("the broker answers", seconds, self._ready)

    def _ready(self):
        if self._gone():
            raise Failure(f"the broker ended: {self.log.read_text()[-2000:]}")
        return listens(self.port)

    def stop(self):
        self.end()

    def tool(self, *argv, seconds=60):
        """One of Kafka's own command line tools, by its class: ("ConfigCommand", …)."""
        done = subprocess.run([*JAVA, "-cp", f"{KAFKA}/*", f"org.apache.kafka.tools.{argv[0]}"
                               if argv[0] != "ConfigCommand" else "kafka.admin.ConfigCommand",
                               "--bootstrap-server", self.address, *argv[1:]],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=seconds)
        if done.returncode:
            raise Failure(f"{argv[0]}: {done.stdout[-2000:]}")
        return done.stdout

    def configure(self, topic, settings):
        self.tool("ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", topic,
                  "--add-config", settings)


class Registry(Process):
    def __init__(self, home, port):
        super().__init__(home, "registry")
        self.port = int(port)
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def start(self, seconds=60):
        if not REGISTRY.is_dir():
            raise Failure("the registry is not here; remedy: scripts/fetch-kafka")
        if listens(self.port):
            raise Failure(f"port {self.port} is taken")
        self.home.mkdir(parents=True, exist_ok=True)
        jar = next(REGISTRY.glob("apicurio-registry-app-*-runner.jar"))
        self.spawn([*JAVA, f"-Dquarkus.http.port={self.port}", "-Dquarkus.http.host=127.0.0.1",
                    "-jar", str(jar)])
        until("the registry answers", seconds, self._ready)

    def _ready(self):
        if self._gone():
            raise Failure(f"the registry ended: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        self.end()


def listens(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def make_certificates(folder):
    """ca.pem, other-ca.pem (signed nothing), broker.keystore."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*argv, **more):
        subprocess.run(["openssl", *argv], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=60, **more)

    for name in ("ca", "other-ca"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
                f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", "broker.key",
            "-out", "broker.csr")
    openssl("x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "30", "-out", "broker.pem", "-extfile", "names")
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", "broker.key", "-out", "broker.p8")
    (folder / "broker.keystore").write_text((folder / "broker.p8").read_text() +
                                            (folder / "broker.pem").read_text())


def main(argv):
    if len(argv) < 3 or argv[1] not in ("start", "stop"):
        sys.exit("usage: kafka.py start DIR PORT [--registry] | stop DIR")
    home = pathlib.Path(argv[2])
    if argv[1] == "stop":
        Registry(home, 0).stop()
        Broker(home, 0).stop()
        return
    try:
        broker = Broker(home, argv[3])
        broker.init()
        broker.start()
        if "--registry" in argv:
            Registry(home, int(argv[3]) + 3).start()
    except Failure as e:
        sys.exit(f"kafka.py: {e}")


if __name__ == "__main__":
    main(sys.argv)
