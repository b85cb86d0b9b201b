#!/bin/sh
# on_switch for HAProxy: see docs/proxies.md. Run again it changes nothing.
set -eu

# ---- what is where; edit, or set it in the environment of lockstep ----
# The runtime API: "stats socket /run/haproxy/admin.sock mode 600 level admin" in haproxy.cfg.
: "${HAPROXY_SOCKET:=/run/haproxy/admin.sock}"
: "${HAPROXY_WRITES:=writes}" # backends, each with a server "source" and a server "target"
: "${HAPROXY_READS:=reads}"
# What a restart of HAProxy begins with: "server-state-file" in haproxy.cfg.
: "${HAPROXY_STATE:=/var/lib/haproxy/state}"

case $LOCKSTEP_DIRECTION in
forward) to=target from=source ;;
back) to=source from=target ;;
esac
case $LOCKSTEP_STAGE in
reads) backends=$HAPROXY_READS ;;
writes) backends="$HAPROXY_WRITES $HAPROXY_READS" ;;
esac

# The API answers with an empty line, or with what is wrong.
api() {
    answer=$(echo "$1" | socat -t 5 - "UNIX-CONNECT:$HAPROXY_SOCKET")
    [ -z "$answer" ] || {
        echo "haproxy: $1: $answer" >&2
        exit 1
    }
}

for backend in $backends; do
    api "set server $backend/$to state ready"
    api "set server $backend/$from state maint"
    # TCP sessions are bound to their server: they end, and the clients connect anew.
    api "shutdown sessions server $backend/$from"
done
echo "show servers state" | socat -t 5 - "UNIX-CONNECT:$HAPROXY_SOCKET" >"$HAPROXY_STATE.new"
mv "$HAPROXY_STATE.new" "$HAPROXY_STATE"
