#!/bin/bash
# Asks the process in this container how it is: 0 if /healthz says 200. PORT: listen's, if another.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${LOCKSTEP_HEALTH_PORT:-8650}"
printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
answer=$(timeout 4 cat <&3)
printf '%s\n' "${answer##*$'\r\n\r\n'}"
[[ $answer == "HTTP/1.1 200"* ]]
