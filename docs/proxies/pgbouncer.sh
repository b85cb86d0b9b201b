#!/bin/sh
# on_switch for PgBouncer: see docs/proxies.md. Run again it changes nothing.
set -eu

# ---- what is where; edit, or set it in the environment of lockstep ----
: "${PGBOUNCER_SOURCE:=host=db1 port=5432}"
: "${PGBOUNCER_TARGET:=host=db2 port=5432}"
: "${PGBOUNCER_DBNAME:=shop}"    # the database's name on both servers
: "${PGBOUNCER_WRITES:=shop}"    # the entry that applications write through
: "${PGBOUNCER_READS:=shop_read}" # the entry that they only read through
# In pgbouncer.ini: %include of this file, which holds [databases] and nothing else.
: "${PGBOUNCER_DATABASES:=/etc/pgbouncer/databases.ini}"
# The console; a user of admin_users, its password from PGPASSFILE.
: "${PGBOUNCER_CONSOLE:=host=/run/postgresql port=6432 user=pgbouncer dbname=pgbouncer}"
: "${PGBOUNCER_DRAIN:=10}" # seconds for transactions that are open on the old side

case $LOCKSTEP_DIRECTION in
forward) to=$PGBOUNCER_TARGET ;;
back) to=$PGBOUNCER_SOURCE ;;
esac
case $LOCKSTEP_STAGE in
reads) entries=$PGBOUNCER_READS ;;
writes) entries="$PGBOUNCER_WRITES $PGBOUNCER_READS" ;;
esac

console() {
    psql -X -q -A -t -v ON_ERROR_STOP=1 "$PGBOUNCER_CONSOLE" -c "$1"
}

# 1. The file, whole or not at all; the other entries stay as they are.
for entry in $entries; do
    grep -q "^$entry *=" "$PGBOUNCER_DATABASES"
    sed "s|^$entry *=.*|$entry = $to dbname=$PGBOUNCER_DBNAME|" \
        "$PGBOUNCER_DATABASES" >"$PGBOUNCER_DATABASES.new"
    mv "$PGBOUNCER_DATABASES.new" "$PGBOUNCER_DATABASES"
done

# 2. From here on a new transaction gets a connection to the new side (pool_mode = transaction).
console RELOAD

# 3. RELOAD says nothing of a file that it does not like: ask what holds now.
host=${to#*host=} host=${host%% *}
port=${to#*port=} port=${port%% *}
for entry in $entries; do
    console "SHOW DATABASES" | grep -q "^$entry|$host|$port|" || {
        echo "pgbouncer does not send $entry to $to" >&2
        exit 1
    }
done

# 4. Connections to the old side go when their transaction ends (session pooling: when the client
# goes); those that do not in time are cut, and their clients connect anew.
for entry in $entries; do
    timeout "$PGBOUNCER_DRAIN" psql -X -q -v ON_ERROR_STOP=1 "$PGBOUNCER_CONSOLE" \
        -c "WAIT_CLOSE $entry" || {
        console "KILL $entry"
        console "RESUME $entry"
    }
done
