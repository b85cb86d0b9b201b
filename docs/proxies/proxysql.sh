#!/bin/sh
# on_switch for ProxySQL: see docs/proxies.md. Run again it changes nothing.
set -eu

# ---- what is where; edit, or set it in the environment of lockstep ----
: "${PROXYSQL_SOURCE:=db1 3306}" # host and port
: "${PROXYSQL_TARGET:=db2 3306}"
: "${PROXYSQL_WRITES:=10}" # hostgroups, with one server each
: "${PROXYSQL_READS:=20}"
# The admin interface; user and password in this file ([client] user=, password=).
: "${PROXYSQL_OPTIONS:=/etc/lockstep/proxysql-admin.cnf}"
: "${PROXYSQL_HOST:=127.0.0.1}"
: "${PROXYSQL_PORT:=6032}"

case $LOCKSTEP_DIRECTION in
forward) to=$PROXYSQL_TARGET ;;
back) to=$PROXYSQL_SOURCE ;;
esac
case $LOCKSTEP_STAGE in
reads) groups=$PROXYSQL_READS ;;
writes) groups="$PROXYSQL_WRITES $PROXYSQL_READS" ;;
esac
host=${to% *}
port=${to#* }

admin() {
    mysql --defaults-extra-file="$PROXYSQL_OPTIONS" -h "$PROXYSQL_HOST" -P "$PROXYSQL_PORT" \
        --protocol=tcp -N -B -e "$1"
}

# Nothing holds before LOAD: the rows are those of the admin interface alone.
for group in $groups; do
    admin "DELETE FROM mysql_servers WHERE hostgroup_id = $group"
    admin "INSERT INTO mysql_servers (hostgroup_id, hostname, port) VALUES ($group, '$host', $port)"
done
# A server that is no longer listed is OFFLINE_HARD: its connections are closed at once.
admin "LOAD MYSQL SERVERS TO RUNTIME"
admin "SAVE MYSQL SERVERS TO DISK"
for group in $groups; do
    found=$(admin "SELECT hostname || ' ' || port FROM runtime_mysql_servers
                   WHERE hostgroup_id = $group AND status = 'ONLINE'")
    [ "$found" = "$to" ] || {
        echo "proxysql sends hostgroup $group to '$found', not to '$to'" >&2
        exit 1
    }
done
