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
: "${PGBOUNCER_PAUSE:=2}"  # seconds that clients are held for transactions that are open
: "${PGBOUNCER_DRAIN:=10}" # seconds for those that then still are, before they are cut

case $LOCKSTEP_DIRECTION in
forward) to=$PGBOUNCER_TARGET ;;
back) to=$PGBOUNCER_SOURCE ;;
esac
case $LOCKSTEP_STAGE in
reads) entries=$PGBOUNCER_READS ;;
writes) entries="$PGBOUNCER_WRITES $PGBOUNCER_READS" ;;
esac

# Its standard input, all on one connection; an error does not keep what follows from being said.
console() {
    psql -X -q -A -t "$PGBOUNCER_CONSOLE"
}

# 1. The file, whole or not at all; the other entries stay as they are.
for entry in $entries; do
    grep -q "^$entry *=" "$PGBOUNCER_DATABASES"
    sed "s|^$entry *=.*|$entry = $to dbname=$PGBOUNCER_DBNAME|" \
        "$PGBOUNCER_DATABASES" >"$PGBOUNCER_DATABASES.new"
    mv "$PGBOUNCER_DATABASES.new" "$PGBOUNCER_DATABASES"
done

# 2. Clients are held for a moment, so that RELOAD meets no connection in the middle of its login,
# which PgBouncer would take for one that failed. A PAUSE that fails or takes too long is no harm.
printf 'PAUSE %s;\n' $entries | timeout "$PGBOUNCER_PAUSE" psql -X -q "$PGBOUNCER_CONSOLE" || true
now=$(
    {
        echo "RELOAD;"
        printf 'RESUME %s;\n' $entries
        echo "SHOW DATABASES;"
    } | console
)

# 3. RELOAD says nothing of a file that it does not like, and RESUME may have been in vain.
host=${to#*host=} host=${host%% *}
port=${to#*port=} port=${port%% *}
for entry in $entries; do
    echo "$now" | awk -F'|' -v entry="$entry" -v at="$host|$port" '
        $1 == entry { found = $2 "|" $3 == at && $(NF - 1) == 0 } END { exit !found }' || {
        echo "pgbouncer does not send $entry to $to, or holds it" >&2
        exit 1
    }
done

# 4. Connections to the old side go when their transaction ends (session pooling: when the client
# goes); those that do not in time are cut, and their clients connect anew.
printf 'WAIT_CLOSE %s;\n' $entries | timeout "$PGBOUNCER_DRAIN" \
    psql -X -q -v ON_ERROR_STOP=1 "$PGBOUNCER_CONSOLE" ||
    for entry in $entries; do
        printf 'KILL %s;\nRESUME %s;\n' "$entry" "$entry" | console
    done
