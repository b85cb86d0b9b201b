# What of the official image's entry compose.yaml relies on.
set -euo pipefail
data=/var/lib/mysql
mkdir -p /run/mysqld "$data"
chown mysql:mysql /run/mysqld "$data"
if [[ ! -d $data/mysql ]]; then
    mariadb-install-db --user=mysql --datadir=$data --skip-test-db \
        --auth-root-authentication-method=normal >/dev/null
    # As the official image does, the first server is not reached from outside, and keeps no binlog.
    gosu mysql mariadbd --no-defaults --datadir=$data --skip-networking --skip-log-bin \
        --character-set-server=utf8mb4 --socket=/run/mysqld/mysqld.sock &
    first=$!
    until mariadb-admin ping >/dev/null 2>&1; do sleep 0.2; done
    mariadb -e "CREATE DATABASE IF NOT EXISTS \`$MARIADB_DATABASE\` CHARACTER SET utf8mb4"
    for script in /docker-entrypoint-initdb.d/*.sql; do
        mariadb "$MARIADB_DATABASE" <"$script"
    done
    mariadb -e "ALTER USER root@localhost IDENTIFIED BY '$MARIADB_ROOT_PASSWORD'"
    kill "$first"
    wait "$first" || true
fi
exec gosu mysql mariadbd --no-defaults --datadir=$data --socket=/run/mysqld/mysqld.sock \
    --bind-address=0.0.0.0 --skip-name-resolve "$@"
