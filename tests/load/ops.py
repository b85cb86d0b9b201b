"""The operations of the live load: each is one source transaction (or one that must leave no trace).

An operation is a function of (client) and returns the kinds it really did, by the server's own row
counts: a kind is counted only if it met a row. `own` rows (id % 64 == the client's slot) keep the
clients out of each other's way, so that a refusal is the fence's and not a neighbour's.
"""

import hashlib
import json
import os

import psycopg2

SLOTS = 64
QUARTERS = ("2026-01-15", "2026-05-15", "2026-08-15", "2026-12-15")


def order_key(number):
    """The uuid that shop.sql gave to a loaded order."""
    return hashlib.md5(f"order{number}".encode()).hexdigest()


def noise(c, size):
    """Incompressible text: it stays out of line."""
    return os.urandom(size // 2).hex()


def tpcb(c):
    aid = c.rng.randint(1, 100_000 * c.scale)
    tid, bid = c.rng.randint(1, 10 * c.scale), c.rng.randint(1, c.scale)
    delta = c.rng.randint(-5000, 5000)
    c.run("UPDATE pgbench_accounts SET abalance = abalance + %s WHERE aid = %s;"
          "UPDATE pgbench_tellers SET tbalance = tbalance + %s WHERE tid = %s;"
          "UPDATE pgbench_branches SET bbalance = bbalance + %s WHERE bid = %s;"
          "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)"
          " VALUES (%s, %s, %s, %s, clock_timestamp())",
          (delta, aid, delta, tid, delta, bid, tid, bid, aid, delta))
    return ["update", "insert", "tpcb"]


def order_insert(c):
    key = os.urandom(16).hex()
    c.run("INSERT INTO shop.orders (id, customer, status, placed, total, discount, labels, details,"
          " digest, note) VALUES (%s, %s, %s, clock_timestamp(), %s, %s, %s, %s, %s, %s);"
          "INSERT INTO shop.order_items SELECT %s, l, 'SKU-' || 1 + l, l, 9.99"
          " FROM generate_series(1, 3) l",
          (key, c.customer(), c.rng.choice(("new", "paid")), c.rng.randint(0, 10**6) / 100,
           c.rng.choice((None, "NaN", "1.10", "1e-20")), ["x", None, 'q"u,o{t}e'],
           json.dumps({"n": c.rng.random(), "t": None}), os.urandom(9), "ü\\\n\t", key))
    c.fresh_orders.append(key)
    return ["insert"]


def order_update(c):
    n = c.run("UPDATE shop.orders SET status = %s, changed = clock_timestamp(), total = total + 1,"
              " labels = labels || 'u'::text, details = coalesce(details, '{}') || %s"
              " WHERE id = %s", (c.rng.choice(("packed", "shipped", "returned")),
                                 json.dumps({"u": c.rng.randint(0, 99)}), c.loaded_order()))
    return ["update"] if n == 1 else []


def cascade(c):
    """Deletes a parent with its children: a loaded one (every fifth has items) or a fresh one."""
    if c.fresh_orders and c.rng.random() < 0.5:
        key = c.fresh_orders.pop(0)
    else:
        key = order_key(5 * c.rng.randint(1, c.orders // 5))
    children = c.run("SELECT 1 FROM shop.order_items WHERE order_id = %s", (key,))
    n = c.run("DELETE FROM shop.orders WHERE id = %s", (key,))
    return ["delete", "cascade"] if n == 1 and children > 0 else []


def key_change(c):
    """A new key; then another row takes the key that this frees, all in one transaction."""
    a, b = c.own_coupons(2)
    fresh = f"K{c.slot}-{c.next_number()}"
    n = c.run("UPDATE shop.coupons SET code = %s, worth = worth + 1 WHERE code = %s", (fresh, a))
    m = c.run("UPDATE shop.coupons SET code = %s WHERE code = %s", (a, b))
    return ["key_change"] * (n + m) + ["freed_key"] * (n and m)


def delete_reinsert(c):
    """The same key is deleted and inserted again with other values, in one transaction or two."""
    (a,) = c.own_coupons(1)
    n = c.run("DELETE FROM shop.coupons WHERE code = %s", (a,))
    if c.rng.random() < 0.3:
        c.commit("delete_reinsert")
    c.run("INSERT INTO shop.coupons VALUES (%s, %s, %s, %s)",
          (a, c.slot, c.rng.randint(0, 99), c.rng.choice((None, "", "again"))))
    return ["delete_reinsert"] if n == 1 else []


def cascade_reinsert(c):
    """A parent goes with its children and comes back under the same key."""
    key = order_key(5 * c.rng.randint(1, c.orders // 5))
    n = c.run("DELETE FROM shop.orders WHERE id = %s", (key,))
    c.run("INSERT INTO shop.orders (id, customer, status, placed, total) VALUES"
          " (%s, %s, 'returned', clock_timestamp(), 0);"
          "INSERT INTO shop.order_items VALUES (%s, 1, 'SKU-1', 1, 0)", (key, c.customer(), key))
    return ["delete_reinsert", "cascade"] if n == 1 else []


def swap_deferred(c):
    a, b = c.own_ids(1280, 2)
    c.run("SET CONSTRAINTS shop.shelves_position DEFERRED")
    c.run("SELECT (SELECT position FROM shop.shelves WHERE id = %s),"
          " (SELECT position FROM shop.shelves WHERE id = %s)", (a, b))
    pa, pb = c.row()
    n = c.run("UPDATE shop.shelves SET position = %s WHERE id = %s", (pb, a))
    n += c.run("UPDATE shop.shelves SET position = %s, label = label WHERE id = %s", (pa, b))
    return ["unique_swap", "swap_deferred"] if n == 2 else []


def swap_statement(c):
    a, b = c.own_ids(1280, 2)
    n = c.run("UPDATE shop.shelves s SET position = o.position FROM shop.shelves o"
              " WHERE (s.id, o.id) IN ((%s, %s), (%s, %s))", (a, b, b, a))
    return ["unique_swap", "swap_deferred"] if n == 2 else []


def swap_temporary(c):
    """A swap of values that are unique at once, by way of a third value."""
    a, b = c.own_ids(1280, 2)
    c.run("SELECT (SELECT seat FROM shop.seats WHERE id = %s),"
          " (SELECT seat FROM shop.seats WHERE id = %s)", (a, b))
    sa, sb = c.row()
    n = c.run("UPDATE shop.seats SET seat = '~' || seat WHERE id = %s", (a,))
    n += c.run("UPDATE shop.seats SET seat = %s WHERE id = %s", (sa, b))
    n += c.run("UPDATE shop.seats SET seat = %s, price = price + 0.1 WHERE id = %s", (sb, a))
    return ["unique_swap", "swap_temporary"] if n == 3 else []


def toast_untouched(c):
    n = c.run("UPDATE shop.documents SET title = %s WHERE abs(id) = %s AND id IN (%s, %s)",
              c.document(f"Title {c.rng.random()}"))
    return ["toast_untouched"] if n == 1 else []


def toast_key_change(c):
    """The key changes and the long text does not: it is not in the log."""
    _, i, plus, minus = c.document("")
    n = c.run("UPDATE shop.documents SET id = -id WHERE id IN (%s, %s)", (plus, minus))
    return ["toast_key_change", "key_change"] if n == 1 else []


def toast_write(c):
    _, i, plus, minus = c.document("")
    n = c.run("UPDATE shop.documents SET body = %s, scan = %s WHERE id IN (%s, %s)",
              (noise(c, c.rng.choice((20, 9000, 15000))), os.urandom(5000), plus, minus))
    return ["update"] if n == 1 else []


def product(c):
    sku = f"SKU-{c.rng.randint(1, c.products // SLOTS - 1) * SLOTS + c.slot}"
    n = c.run("UPDATE shop.products SET price = %s, size = ROW(%s, 1)::shop.size_pair,"
              " attrs = attrs || %s, listed_on = listed_on + 1 WHERE sku = %s",
              (c.rng.randint(1, 9999) / 100, c.rng.randint(1, 99), json.dumps({"p": [1, "ü"]}),
               sku))
    return ["update", "toast_untouched", "generated"] if n == 1 else []


def savepoints(c):
    (a, b) = c.own_ids(1280, 2)
    n = c.run("UPDATE shop.seats SET price = price + 1 WHERE id = %s", (a,))
    c.run("SAVEPOINT one")
    gone = c.run("UPDATE shop.seats SET price = -1, seat = 'never ' || seat WHERE id IN (%s, %s)",
                 (a, b))
    c.run("INSERT INTO shop.audit VALUES (now(), 'never', '{\"rolled\": \"back\"}', 0)")
    c.run("ROLLBACK TO one")
    c.run("SAVEPOINT two; UPDATE shop.seats SET price = price + 1 WHERE id = %s;"
          "RELEASE two", (b,))
    return ["savepoint"] if n and gone else []


def rolled_back(c):
    """A whole transaction that leaves no trace, so it has no receipt either."""
    c.run("UPDATE shop.seats SET price = -2 WHERE id = %s;"
          "INSERT INTO shop.audit VALUES (now(), 'never', NULL, 1)", (c.own_ids(1280, 1)[0],))
    c.rollback()
    return ["rollback"]


def keyless(c):
    """Rows without a key, some of them exact twins."""
    who = f"c{c.slot}"
    kind = c.rng.choice(("insert", "update", "delete"))
    if kind == "insert":
        n = c.run("INSERT INTO shop.audit SELECT date_trunc('minute', now()), %s, '{\"a\": 1}', 0.1"
                  " FROM generate_series(1, 2)", (who,))
        return ["keyless_insert"]
    one = "(SELECT ctid FROM shop.audit WHERE who = %s LIMIT 1)"
    if kind == "update":
        n = c.run(f"UPDATE shop.audit SET amount = amount + 0.1, what = NULL WHERE ctid = {one}",
                  (who,))
    else:
        n = c.run(f"DELETE FROM shop.audit WHERE ctid = {one}", (who,))
    return [f"keyless_{kind}"] if n == 1 else []


def partition_move(c):
    key = c.rng.randint(1, c.payments // SLOTS - 1) * SLOTS + c.slot
    n = c.run("UPDATE shop.payments SET paid_on = %s::date + %s, amount = amount + 1 WHERE id = %s",
              (c.rng.choice(QUARTERS), c.rng.randint(0, 20), key))
    c.run("INSERT INTO shop.payments (id, paid_on, customer, amount) VALUES (%s, %s, %s, 5)",
          (10**9 + c.slot * 10**7 + c.next_number(), c.rng.choice(QUARTERS), c.customer()))
    return ["partition_move", "insert"] if n == 1 else ["insert"]


def odd_values(c):
    """The values at the edge of their types."""
    n = c.run("UPDATE shop.measurements SET exact = %s, rounded = %s, approx = %s, at = %s,"
              " on_day = %s, lasted = %s, bits = %s, host = %s, matrix = %s, raw = %s, doc = %s,"
              " flag = %s WHERE id = %s",
              (c.rng.choice(("NaN", "1.10", "1e50", "-0.000", None)),
               c.rng.choice(("NaN", "9999999.999", None)),
               c.rng.choice(("NaN", "-Infinity", "-0", "5e-324", None)),
               c.rng.choice(("infinity", "-infinity", "294276-12-31 23:59:59.999999Z",
                             "4713-01-01 00:00:00Z BC", None)),
               c.rng.choice(("infinity", "5874897-12-31", "4713-01-01 BC", None)),
               c.rng.choice(("178000000 years", "-1 mon 2 days -00:00:01", None)),
               c.rng.choice(("", "0000", "1", None)), c.rng.choice(("::1", "10.0.0.1/8", None)),
               c.rng.choice(("{}", "[0:1]={1,NULL}", "{{1,2},{3,4}}", None)),
               psycopg2.Binary(c.rng.choice((b"", b"\\", b"\0\xff"))),
               c.rng.choice(('"\\u00fc"', "null", "[1.0, 1e400]", None)),
               c.rng.choice((True, None)), c.own_ids(1280, 1)[0]))
    return ["update", "odd_values"] if n == 1 else []


def identity_always(c):
    """An address gets a new identity by DEFAULT: a key change that the server numbers."""
    c.run("INSERT INTO shop.addresses (customer, city) VALUES (%s, %s) RETURNING id",
          (c.customer(), f"City {c.rng.random()}"))
    (key,) = c.row()
    n = 0
    if c.fresh_addresses:
        n = c.run("UPDATE shop.addresses SET id = DEFAULT WHERE id = %s RETURNING id",
                  (c.fresh_addresses.pop(0),))
        if n:
            c.fresh_addresses.append(c.row()[0])
    c.fresh_addresses.append(key)
    if len(c.fresh_addresses) > 20:
        c.run("DELETE FROM shop.addresses WHERE id = %s", (c.fresh_addresses.pop(0),))
    return ["identity", "key_change"] if n == 1 else ["insert"]


def cycle(c):
    """Two rows that need each other are born in one transaction; later they die in one."""
    if len(c.fresh_customers) > 5:
        key = c.fresh_customers.pop(0)
        n = c.run("DELETE FROM shop.customers WHERE id = %s", (key,))
        return ["cascade", "delete"] if n == 1 else []
    c.run("INSERT INTO shop.customers (email, name, joined) VALUES (%s, %s, 'infinity')"
          " RETURNING id", (f"{c.slot}.{c.next_number()}@load", "Ünï 'q' \\"))
    (key,) = c.row()
    c.run("INSERT INTO shop.addresses (customer, city) VALUES (%s, 'x') RETURNING id", (key,))
    c.run("UPDATE shop.customers SET default_address = %s, tags = '{}' WHERE id = %s",
          (c.row()[0], key))
    c.fresh_customers.append(key)
    return ["insert", "cycle"]


def weird(c):
    key = 2000 + c.slot * 10**6 + c.next_number()
    c.run('INSERT INTO shop."Weird Table" VALUES (%s, %s, %s, %s)',
          (key, "\\N", "1e-30", ["\\", None, ""]))
    n = c.run('UPDATE shop."Weird Table" SET "Ünï" = %s, "back\\slash" = NULL WHERE "select" = %s',
              (f"ß{c.rng.random()}", c.own_ids(1280, 1)[0]))
    c.run('DELETE FROM shop."Weird Table" WHERE "select" = %s', (key - c.rng.randint(1, 30),))
    c.run("INSERT INTO shop.settings VALUES (%s, %s) ON CONFLICT (name) DO UPDATE"
          " SET value = excluded.value", (f"client {c.slot}", str(c.rng.random())))
    return ["quoted_names", "insert"] if n == 1 else []


# Operation and weight.
OPERATIONS = (
    (tpcb, 6), (order_insert, 4), (order_update, 5), (cascade, 2), (key_change, 3),
    (delete_reinsert, 3), (cascade_reinsert, 1), (swap_deferred, 2), (swap_statement, 1),
    (swap_temporary, 3), (toast_untouched, 3), (toast_key_change, 2), (toast_write, 1),
    (product, 2), (savepoints, 3), (rolled_back, 1), (keyless, 4), (partition_move, 2),
    (odd_values, 2), (identity_always, 2), (cycle, 2), (weird, 2),
)

# What must have happened at least once in the chunks, and at least once in replay.
REQUIRED = ("insert", "update", "delete", "key_change", "freed_key", "delete_reinsert",
            "unique_swap", "swap_deferred", "swap_temporary", "toast_untouched",
            "toast_key_change", "cascade", "savepoint", "rollback", "keyless_insert",
            "keyless_update", "keyless_delete", "partition_move", "odd_values", "generated",
            "identity", "cycle", "quoted_names", "tpcb")
