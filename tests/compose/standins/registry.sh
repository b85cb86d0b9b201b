# What of the official image's entry compose.yaml relies on.
set -euo pipefail
exec java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dquarkus.http.host=0.0.0.0 \
    -Dquarkus.http.port="${QUARKUS_HTTP_PORT:-8080}" -jar /opt/app/apicurio-registry-app-*-runner.jar
