"""Reads a topic with confluent-kafka and its Avro deserializer alone, which know nothing of lockstep but
what docs/journal.md tells consumers. JSON lines on stdout: {"schema": …} of each id, {"record": [name,
record], "number": …, "generation": …, "parts": …} of each record. Runs in the environment of
confluent-kafka.

    read.py BROKER REGISTRY TOPIC
"""

import base64
import json
import struct
import sys

import confluent_kafka
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

# version, kind, flags, generation, number, part, parts; the rest is lockstep's own.
HEADER = struct.Struct(">BcHIQII")
WAIT = 20


def plain(value):
    if isinstance(value, bytes):
        return "base64:" + base64.b64encode(value).decode()
    return f"{type(value).__name__}:{value}"


def messages(consumer, topic):
    """Everything from the topic's first message to its end as it is now."""
    place = confluent_kafka.TopicPartition(topic, 0)
    first, end = consumer.get_watermark_offsets(place, timeout=WAIT)
    place.offset = first
    consumer.assign([place])
    at = first
    while at < end:
        message = consumer.poll(WAIT)
        if message is None:
            sys.exit(f"nothing behind offset {at} of {end}")
        if message.error():
            sys.exit(str(message.error()))
        at = message.offset() + 1
        yield message


def main():
    broker, url, topic = sys.argv[1:4]
    registry = SchemaRegistryClient({"url": url})
    deserialize = AvroDeserializer(registry, return_record_name=True)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": "reader",
                                         "enable.auto.commit": False})
    context = SerializationContext(topic, MessageField.VALUE)
    schemas = {}
    highest = 0
    value = b""
    for message in messages(consumer, topic):
        _, kind, _, generation, number, part, parts = HEADER.unpack_from(
            dict(message.headers())["lockstep"])
        if kind == b"O":
            highest = max(highest, generation)
        if kind != b"R" or generation < highest:
            continue
        value = message.value() if part == 0 else value + message.value()
        if part + 1 < parts:
            continue
        number_of_schema = int.from_bytes(value[1:5], "big")
        if number_of_schema not in schemas:
            schemas[number_of_schema] = json.loads(registry.get_schema(number_of_schema).schema_str)
            print(json.dumps({"schema": schemas[number_of_schema]}))
        schema = schemas[number_of_schema]
        name = f"{schema['namespace']}.{schema['name']}"
        print(json.dumps({"record": [name, deserialize(value, context)], "number": number,
                          "generation": generation, "parts": parts}, default=plain))
    consumer.close()


if __name__ == "__main__":
    main()
