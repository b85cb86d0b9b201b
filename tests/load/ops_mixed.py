"""The operations of the mixed shop's live load, in words that PostgreSQL and MySQL both know. What ops.py
says of operations and kinds holds here too. Cascades are left out: InnoDB does not log them."""

import json
import os
import uuid

from ops import SLOTS, noise
from shop_mixed import order_key


def now(c):
    return "clock_timestamp()" if c.postgres else "NOW(6)"


def q(c, name):
    sign = '"' if c.postgres else "`"
    return sign + name.replace(sign, sign * 2) + sign


def tpcb(c):
    aid = c.rng.randint(1, 100_000 * c.scale // SLOTS - 1) * SLOTS + c.slot
    bid = c.rng.randint(1, c.scale)
    tid = c.rng.randint(1, 10 * c.scale)
    delta = c.rng.randint(-5000, 5000)
    n = c.run("UPDATE accounts SET abalance = abalance + %s WHERE aid = %s", (delta, aid))
    c.run("UPDATE tellers SET tbalance = tbalance + %s WHERE tid = %s", (delta, tid))
    c.run("UPDATE branches SET bbalance = bbalance + %s WHERE bid = %s", (delta, bid))
    c.run(f"INSERT INTO history VALUES (%s, %s, %s, %s, %s, {now(c)})",
          (c.fresh_number(), tid, bid, aid, delta))
    return ["update", "insert", "tpcb"] if n == 1 else ["insert"]


def order_insert(c):
    key = str(uuid.UUID(bytes=os.urandom(16)))
    c.run("INSERT INTO orders (id, number, customer, status, placed, total, discount, details,"
          f" digest, note) VALUES (%s, %s, %s, %s, {now(c)}, %s, %s, %s, %s, %s)",
          (key, c.fresh_number(), c.customer(), c.rng.choice(("new", "paid")),
           c.rng.randint(0, 10**6) / 100, c.rng.choice((None, "1.1", "0.0000000001")),
           json.dumps({"n": c.rng.random()}), os.urandom(9), "ü\\\n\t'\""))
    for line in range(3):
        c.run("INSERT INTO order_items VALUES (%s, %s, %s, %s, 9.99)",
              (key, line, f"SKU-{1 + line}", line))
    c.fresh_orders.append(key)
    return ["insert"]


def order_update(c):
    number = c.rng.randint(1, c.orders // SLOTS - 1) * SLOTS + c.slot
    n = c.run(f"UPDATE orders SET status = %s, changed = {now(c)}, total = total + 1,"
              " details = %s WHERE id = %s",
              (c.rng.choice(("packed", "shipped", "returned")),
               json.dumps({"u": c.rng.randint(0, 99)}), order_key(number)))
    return ["update"] if n == 1 else []


def family_delete(c):
    """A parent goes, its children first: as applications without cascades do it."""
    if not c.fresh_orders:
        return []
    key = c.fresh_orders.pop(0)
    n = c.run("DELETE FROM order_items WHERE order_id = %s", (key,))
    n += c.run("DELETE FROM orders WHERE id = %s", (key,))
    return ["delete", "family"] if n > 1 else []


def key_change(c):
    """A new key; then another row takes the key that this frees, all in one transaction."""
    a, b = c.own_coupons(2)
    fresh = f"K{c.slot}-{c.next_number()}"
    n = c.run("UPDATE coupons SET code = %s, worth = worth + 1 WHERE code = %s", (fresh, a))
    m = c.run("UPDATE coupons SET code = %s WHERE code = %s", (a, b))
    return ["key_change"] * (n + m) + ["freed_key"] * (n and m)


def delete_reinsert(c):
    """The same key is deleted and inserted again with other values, in one transaction or two."""
    (a,) = c.own_coupons(1)
    n = c.run("DELETE FROM coupons WHERE code = %s", (a,))
    if c.rng.random() < 0.3:
        c.commit("delete_reinsert")
    c.run("INSERT INTO coupons VALUES (%s, %s, %s, %s)",
          (a, c.slot, c.rng.randint(0, 99), c.rng.choice((None, "", "again"))))
    return ["delete_reinsert"] if n == 1 else []


def swap_temporary(c):
    """A swap of values that are unique at once, by way of a third value."""
    a, b = c.own_ids(1280, 2)
    seats = {}
    for key in (a, b):
        c.run("SELECT seat FROM seats WHERE id = %s", (key,))
        row = c.row()
        if row is None:
            return []
        seats[key] = row[0]
    n = c.run("UPDATE seats SET seat = %s WHERE id = %s", ("~" + seats[a], a))
    n += c.run("UPDATE seats SET seat = %s WHERE id = %s", (seats[a], b))
    n += c.run("UPDATE seats SET seat = %s, price = price + 0.125 WHERE id = %s", (seats[b], a))
    return ["unique_swap"] if n == 3 else []


def long_untouched(c):
    n = c.run("UPDATE documents SET title = %s, revision = revision + 1 WHERE id IN (%s, %s)",
              c.document(f"Title {c.rng.random()}")[:1] + c.document("")[2:])
    return ["long_untouched"] if n == 1 else []


def long_key_change(c):
    """The key changes and the long text does not: PostgreSQL does not log it."""
    _, _, plus, minus = c.document("")
    n = c.run("UPDATE documents SET id = -id WHERE id IN (%s, %s)", (plus, minus))
    return ["long_key_change", "key_change"] if n == 1 else []


def long_write(c):
    _, _, plus, minus = c.document("")
    n = c.run("UPDATE documents SET body = %s, scan = %s WHERE id IN (%s, %s)",
              (noise(c, c.rng.choice((20, 9000, 15000))), os.urandom(5000), plus, minus))
    return ["update"] if n == 1 else []


def product(c):
    sku = f"SKU-{c.rng.randint(1, c.products // SLOTS - 1) * SLOTS + c.slot}"
    n = c.run("UPDATE products SET price = %s, attrs = %s, stock = stock + 1, weight = %s"
              " WHERE sku = %s", (c.rng.randint(1, 9999) / 100, json.dumps({"p": "ü"},
                                                                          ensure_ascii=False),
                                  c.rng.choice((None, 0.125, 1 / 3)), sku))
    return ["update"] if n == 1 else []


def savepoints(c):
    a, b = c.own_ids(1280, 2)
    n = c.run("UPDATE seats SET price = price + 1 WHERE id = %s", (a,))
    c.run("SAVEPOINT one")
    gone = c.run("UPDATE seats SET price = -1 WHERE id IN (%s, %s)", (a, b))
    c.run(f"INSERT INTO audit VALUES ({now(c)}, 'never', '{{\"rolled\": 1}}', 0)")
    c.run("ROLLBACK TO SAVEPOINT one")
    c.run("UPDATE seats SET price = price + 1 WHERE id = %s", (b,))
    return ["savepoint"] if n and gone else []


def rolled_back(c):
    """A whole transaction that leaves no trace, so it has no receipt either."""
    c.run("UPDATE seats SET price = -2 WHERE id = %s", (c.own_ids(1280, 1)[0],))
    c.run(f"INSERT INTO audit VALUES ({now(c)}, 'never', NULL, 1)")
    c.rollback()
    return ["rollback"]


def keyless(c):
    """Rows without a key, some of them exact twins; the gap locks of InnoDB, which has no key to go
    by, make the clients take turns."""
    who = f"c{c.slot}"
    if c.rng.random() < 0.7:
        for _ in range(2):
            c.run("INSERT INTO audit VALUES ('2026-11-22 10:00:00', %s, '{\"a\": 1}', 0.125)",
                  (who,))
        return ["keyless_insert"]
    if c.postgres:
        n = c.run("DELETE FROM audit WHERE ctid = (SELECT ctid FROM audit WHERE who = %s LIMIT 1)",
                  (who,))
    else:
        n = c.run("DELETE FROM audit WHERE who = %s LIMIT 1", (who,))
    return ["keyless_delete"] if n == 1 else []


def payments(c):
    key = c.rng.randint(1, c.payments // SLOTS - 1) * SLOTS + c.slot
    n = c.run("UPDATE payments SET paid_on = %s, amount = amount + 1 WHERE id = %s",
              (f"2026-0{c.rng.randint(1, 9)}-15", key))
    c.run("INSERT INTO payments (id, paid_on, customer, amount) VALUES (%s, '2026-01-01', %s, 5)",
          (c.fresh_number(), c.customer()))
    return ["update", "insert"] if n == 1 else ["insert"]


def odd_values(c):
    """Values at the edge of what both engines hold."""
    n = c.run("UPDATE measurements SET small = %s, large = %s, unsign = %s, exact = %s, approx = %s,"
              " rough = %s, at = %s, local = %s, on_day = %s, flag = %s, raw = %s, words = %s,"
              " doc = %s, fixed = %s WHERE id = %s",
              (c.rng.choice((-32768, 32767, 0, None)),
               c.rng.choice((-2**63, 2**63 - 1, -1, None)),
               c.rng.choice((0, 2**64 - 1, 2**63, None)),
               c.rng.choice(("999999999999999999.99999999999999999999", "-0.1", None)),
               c.rng.choice((0.1, -1 / 3, 1e10, 123456789.125, None)),
               c.rng.choice((0.1, 16777216.0, -2.5, None)),
               c.rng.choice(("1970-01-01 00:00:01", "2037-12-31 23:59:59.999999", None)),
               c.rng.choice(("1000-01-01 00:00:00", "9999-12-31 23:59:59.999999",
                             "1582-10-10 12:00:00.5", None)),
               c.rng.choice(("1000-01-01", "9999-12-31", None)), c.rng.choice((True, False, None)),
               c.rng.choice((b"", b"\\", b"\0\xff\0")),
               c.rng.choice(("", "\\N", "𝄞 ünï\r\n\x01", "trailing  ")),
               c.rng.choice(('{"u": "\u00fc"}', "null", None)),
               c.rng.choice(("", "a", "ünïcö"[:5], None)), c.own_ids(1280, 1)[0]))
    return ["update", "odd_values"] if n == 1 else []


def identity(c):
    """The server numbers the row: after the switch it must go on where the other had been."""
    c.run("INSERT INTO addresses (customer, city) VALUES (%s, %s)",
          (c.customer(), f"City {c.rng.random()}"))
    return ["identity", "insert"]


def weird(c):
    table, column = q(c, "Weird Table"), q(c, "Ünï")
    key = 2000 + c.slot * 10**6 + c.next_number()
    c.run(f"INSERT INTO {table} VALUES (%s, %s, %s)", (key, "\\N", "0.000000000000000000000000000001"))
    n = c.run(f"UPDATE {table} SET {column} = %s WHERE {q(c, 'select')} = %s",
              (f"ß{c.rng.random()}", c.own_ids(1280, 1)[0]))
    c.run(f"DELETE FROM {table} WHERE {q(c, 'select')} = %s", (key - c.rng.randint(1, 30),))
    c.run("UPDATE settings SET value = %s WHERE name = 'dot'" if c.slot == 1 else
          "UPDATE settings SET value = %s WHERE name = 'nobody'", (str(c.rng.random()),))
    return ["quoted_names", "insert"] if n == 1 else []


# Operation and weight.
OPERATIONS = (
    (tpcb, 6), (order_insert, 4), (order_update, 5), (family_delete, 3), (key_change, 3),
    (delete_reinsert, 3), (swap_temporary, 3), (long_untouched, 3), (long_key_change, 2),
    (long_write, 1), (product, 2), (savepoints, 3), (rolled_back, 1), (keyless, 2), (payments, 2),
    (odd_values, 3), (identity, 2), (weird, 2),
)

# What must have happened at least once in the chunks, and at least once in replay.
REQUIRED = ("insert", "update", "delete", "key_change", "freed_key", "delete_reinsert",
            "unique_swap", "long_untouched", "long_key_change", "family", "savepoint", "rollback",
            "keyless_insert", "odd_values", "identity", "quoted_names", "tpcb")
