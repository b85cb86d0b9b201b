"""Comparing two databases without any of lockstep's code: psql, COPY, ORDER BY, sha256."""

import subprocess

from .base import Failure

TABLES = """
SELECT format('%I.%I', n.nspname, c.relname),
       coalesce((SELECT string_agg(format('%I', a.attname), ', ' ORDER BY k.n)
                 FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
                 WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid
                   AND a.attnum = k.attnum), '"(row)"::text COLLATE "C"'),
       (SELECT coalesce(string_agg(format('%I', a.attname), ', ' ORDER BY a.attname COLLATE "C"),
                        '')
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%'
  AND n.nspname NOT IN ('information_schema', 'lockstep')
ORDER BY 1
"""


def tables(server, database):
    """[(name, order, columns)] of every ordinary table and leaf."""
    return server.query(TABLES, database)


def _start(server, database, name, order, columns):
    copy = f'COPY (SELECT {columns} FROM {name} AS "(row)" ORDER BY {order}) TO STDOUT'
    psql = subprocess.Popen(server.psql_argv(database) + ["-c", copy], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    digest = subprocess.Popen(["sha256sum"], stdin=psql.stdout, stdout=subprocess.PIPE)
    psql.stdout.close()
    return psql, digest


def _finish(name, psql, digest):
    out = digest.communicate(timeout=600)[0].split()[0].decode()
    err = psql.stderr.read().decode()
    psql.stderr.close()
    if psql.wait(60):
        return f"unreadable: {err.strip()[:200]}"
    return out


def differing(source, target, databases=("shop", "shop"), skip=()):
    """Names of tables that are not equal, byte for byte of their text, on both sides."""
    ours, theirs = tables(source, databases[0]), tables(target, databases[1])
    names = {name for name, _, _ in ours} - set(skip)
    bad = sorted(names ^ ({name for name, _, _ in theirs} - set(skip)))
    if not names:
        raise Failure("nothing to compare")
    for name, order, columns in ours:
        if name in bad or name in skip:
            continue
        runs = [_start(server, db, name, order, columns)
                for server, db in ((source, databases[0]), (target, databases[1]))]
        first, second = [_finish(name, *run) for run in runs]
        if first != second or first.startswith("unreadable"):
            bad.append(name)
    return bad, len(names)


def row_addresses(server, database):
    """Changes whenever any row was written again, be it with equal values."""
    out = {}
    for name, _, _ in tables(server, database):
        out[name] = server.value(
            f"SELECT count(*) || ' ' || coalesce(sum(hashtext(ctid::text || xmin::text)::numeric),"
            f" 0) FROM {name}", database)
    return out


def schema_text(server, database):
    """Everything that could have been changed: schema, slots, publications, roles' rights."""
    dump = subprocess.run([str(server.bin / "pg_dump"), "-s", "-h", str(server.home), "-p",
                           str(server.port), "-U", "postgres", database],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    if dump.returncode:
        raise Failure(dump.stderr[-1000:])
    kept = [l for l in dump.stdout.splitlines() if not l.startswith(("\\restrict", "\\unrestrict"))]
    slots = server.query("SELECT slot_name, plugin FROM pg_replication_slots ORDER BY 1")
    counts = [(n, server.value(f"SELECT count(*) FROM {n}", database))
              for n, _, _ in tables(server, database)]
    return "\n".join(kept) + repr(slots) + repr(counts)
