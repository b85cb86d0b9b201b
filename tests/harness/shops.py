"""The shops that are migrated: what a migration's test asks of one, whichever engines it stands on."""

import sys

from . import compare, ends
from .base import ROOT, until

sys.path.insert(0, str(ROOT / "tests" / "load"))
import ops  # noqa: E402
import ops_mixed  # noqa: E402
import shop_mixed  # noqa: E402


class RichShop:
    """What real PostgreSQL schemas use; from PostgreSQL to PostgreSQL only. Schema `shop`, and
    pgbench's tables in `public`."""

    module = "ops"
    required = ops.REQUIRED
    receipts = "shop.receipts"
    now = {"postgres": "now()"}
    config = "tables:\n  include: [shop.*, public.*]\n"
    what = "pgbench and a shop that uses what real schemas use"

    @staticmethod
    def load(end, orders, scale):
        end.server.pgbench_init(ends.DATABASE, scale)
        end.server.psql(ends.DATABASE, "-v", f"orders={orders}", "-f",
                        str(ROOT / "tests" / "load" / "shop.sql"), user="shop_owner")

    @staticmethod
    def differing(source, target):
        return compare.differing(source.server, target.server)


class MixedShop:
    """The types that every engine has, one description for all of them."""

    module = "ops_mixed"
    required = ops_mixed.REQUIRED
    receipts = "receipts"
    now = {"postgres": "now()", "mariadb": "NOW(6)", "mysql": "NOW(6)"}
    what = "a shop of the types that PostgreSQL and MySQL share"
    config = ""

    @staticmethod
    def load(end, orders, scale):
        end.load(shop_mixed.ddl(end.dialect) + shop_mixed.rows(orders, scale, end.dialect) +
                 shop_mixed.foreign_keys(end.dialect))

    @staticmethod
    def differing(source, target):
        return ends.differing(source, target)


def shop_for(source_kind, target_kind):
    return RichShop if source_kind == target_kind == "postgres" else MixedShop


class Fence:
    """A last row: whatever was committed before it on one end is on the other when it is."""

    def __init__(self, shop):
        self.shop, self.number = shop, 0

    def pass_through(self, live, other, seconds=120):
        self.number += 1
        row = f"(0, {self.number}, 'fence', {self.shop.now[live.kind]})"
        live.write(f"INSERT INTO {self.shop.receipts} VALUES {row}")
        until(f"the {other.side} has the last row", seconds, lambda: other.query(
            f"SELECT 1 FROM {self.shop.receipts} WHERE client = 0 AND n = {self.number}"))


def receipts(shop, end):
    return set(end.query(f"SELECT client, n FROM {shop.receipts}"))
