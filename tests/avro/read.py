"""Reads a journal directory with fastavro alone, which knows nothing of lockstep: JSON lines on
stdout, {"schemas": …} of each segment and then each record. Runs in the environment of fastavro."""

import base64
import json
import pathlib
import sys

import fastavro


def plain(value):
    if isinstance(value, bytes):
        return "base64:" + base64.b64encode(value).decode()
    return f"{type(value).__name__}:{value}"


def main():
    for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.avro")):
        with path.open("rb") as f:
            reader = fastavro.reader(f, return_record_name=True)
            print(json.dumps({"segment": path.name, "schema": reader.writer_schema}))
            for record in reader:
                print(json.dumps({"record": record}, default=plain))


if __name__ == "__main__":
    main()
