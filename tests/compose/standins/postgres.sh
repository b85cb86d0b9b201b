# What of the official image's entry compose.yaml relies on.
set -euo pipefail
export PGDATA=/var/lib/postgresql/data
mkdir -p "$PGDATA" /run/postgresql
chown -R postgres:postgres /var/lib/postgresql /run/postgresql
chmod 700 "$PGDATA"
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    gosu postgres initdb -E UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=/tmp/password >/dev/null
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    gosu postgres pg_ctl -w -o "-c listen_addresses=''" start >/dev/null
    gosu postgres createdb "$POSTGRES_DB"
    for script in /docker-entrypoint-initdb.d/*.sql; do
        gosu postgres psql -v ON_ERROR_STOP=1 -d "$POSTGRES_DB" -f "$script"
    done
    gosu postgres pg_ctl -w -m fast stop >/dev/null
fi
exec gosu postgres postgres -c listen_addresses='*' "$@"
