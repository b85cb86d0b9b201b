"""A migration of the bank between two engines, over either journal, with clients that follow the
switch and a prober at both sides: what the tests of the switch stand on."""

import json

from . import bank
from .base import Failure, Workdir, until
from .ends import make_end
from .lockstep import Lockstep

KINDS = ("postgres", "mariadb")
SIDES = ("source", "target")
HELD_MAX_MS = 15000  # what no machine's haste explains, however patient the switch was told to be
# The side that closes, the side that opens; the state row stands on the latter.
ROADS = {"cutover": ("source", "target"), "rollback": ("target", "source")}
MIGRATION = "bank"
CONFIG = """tables: {include: ['%s.*']}
snapshot: {workers: 2}
cutover: {max_pause: %ds, lease: %ds}
"""


def add_arguments(parser):
    parser.add_argument("--binary", required=True)
    parser.add_argument("--from", dest="source", choices=KINDS)
    parser.add_argument("--to", dest="target", choices=KINDS)
    parser.add_argument("--journal", choices=("file", "kafka"), default="file")
    parser.add_argument("--keep", action="store_true")


def draw_direction(args, seed):
    """What was not chosen, by the seed: each of the four in turn."""
    args.source = args.source or KINDS[seed // 2 % 2]
    args.target = args.target or KINDS[seed % 2]


class Bank:
    disturbed = False  # by tests that kill and crash in the pause itself

    def __init__(self, args, cleanup, lease=30, max_pause=30, **clients):
        self.args, self.cleanup = args, cleanup
        self.lease, self.max_pause, self.clients_are = lease, max_pause, clients
        self.workdir = Workdir(None, "lockstep-bank-")

    def set_up(self):
        self.ends = {}
        for side in SIDES:
            end = make_end(getattr(self.args, side), self.workdir.path, side)
            self.cleanup.add(end.stop)
            end.start()
            self.ends[side] = end
        source = self.ends["source"]
        source.load(bank.ddl(source.kind))
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", MIGRATION,
                                 source, self.ends["target"],
                                 uris=[end.uri() for end in self.ends.values()])
        self.cleanup.add(self.lockstep.end)
        more = source.fence() or self.ends["target"].fence()
        if self.args.journal == "kafka":
            more += self.start_kafka()
        self.lockstep.config(CONFIG % (source.schema, self.max_pause, self.lease) + more)

    def start_kafka(self):
        from .broker import Kafka  # with Java only
        broker = Kafka(self.workdir.path / "kafka", registry=True)
        self.cleanup.add(broker.stop)
        broker.start()
        self.lockstep.journal = broker.uri()
        return f"schema_registry: {broker.registry_url()}\n"

    def follow(self):
        """Clients from the beginning; the prober once the target's tables are there."""
        self.sealed = False
        doors = {side: bank.door(end) for side, end in self.ends.items()}
        self.clients = bank.Clients(doors, route=self.route, **self.clients_are)
        self.cleanup.add(self.clients.over.set)
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 180)
        self.prober = bank.Prober(doors)
        self.cleanup.add(self.prober.over.set)

    def route(self, refused):
        """The other side. But the target takes writes until it is first prepared, and an application
        that went there would lose them."""
        if refused != "source":
            return "source"
        self.sealed = self.sealed or self.state("cutover") not in (None, "none")
        return "target" if self.sealed else "source"

    def query(self, side):
        return side, self.ends[side].query

    # ---- the state rows ----

    def row(self, verb):
        """The state row of a road: a dict, empty if there is none."""
        try:
            found = self.ends[ROADS[verb][1]].query(
                "SELECT body FROM lockstep.fact WHERE kind = 'cutover'")
        except Exception as e:  # no control tables yet, by whatever name the driver calls that
            if "lockstep" in str(e):
                return {}
            raise
        body = found[0][0] if found else {}
        return body if isinstance(body, dict) else json.loads(body)

    def state(self, verb):
        return self.row(verb).get("state")

    # ---- the end ----

    def well(self):
        self.lockstep.must_live()
        self.clients.must_be_well()
        self.prober.must_be_well()

    def audit(self, verb):
        """Behind a switch: the side that lives, then the other one."""
        other, live = ROADS[verb]
        held = self.row(verb).get("pause_ms", 0)
        if held > HELD_MAX_MS and not self.disturbed:
            raise Failure(f"{verb}: writes were held for {held} ms")
        return self.clients.audit_both(self.query(live), self.query(other))

    def finish(self):
        self.prober.stop()
        self.clients.stop()
        self.well()
        self.lockstep.must("finish", "--yes", timeout=120)
        until("run ends", 60, lambda: not self.lockstep.alive())
        left = {side: end.leftovers() for side, end in self.ends.items()}
        if any(left.values()):
            raise Failure(f"finish leaves {left}")


def conduct(args, cleanup, test):
    """test.go() between set-up and clean-up; the folder stays if it failed."""
    state = {"done": False}
    cleanup.add(lambda: test.workdir.remove() if state["done"] and not args.keep else
                print(f"kept: {test.workdir.path}"))
    test.go()
    state["done"] = True
    return 0
