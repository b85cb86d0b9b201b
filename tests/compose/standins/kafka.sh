# What of the official image's entry compose.yaml relies on: KAFKA_A_B=v becomes a.b=v.
set -euo pipefail
properties=/tmp/server.properties
env | sed -n 's/^KAFKA_\([A-Z_]*\)=/\1=/p' | while IFS='=' read -r name value; do
    printf '%s=%s\n' "$(tr 'A-Z_' 'a-z.' <<<"$name")" "$value"
done >$properties
echo 'log.dirs=/tmp/kafka-logs' >>$properties
java -cp '/opt/app/*' kafka.tools.StorageTool format --ignore-formatted \
    -t LWQxOWIzNTQtZGVtby0wMQ -c $properties
exec java -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '/opt/app/*' kafka.Kafka \
    $properties
