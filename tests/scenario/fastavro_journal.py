#!/usr/bin/env python3
"""Reads a journal directory with fastavro, which knows nothing of lockstep.

One JSON line per record: number, file, schema (the record's name), record. Exit 1 if the numbers
have a gap: each file's name must be the number behind the last record of the file before it.

usage: fastavro_journal.py DIRECTORY [--schemas]
  --schemas   instead: one line per file with its metadata and the schema as it is written
"""
import base64
import datetime
import decimal
import json
import os
import sys
import uuid

import fastavro


def plain(value):
    """What JSON has no form for: bytes as base64, numbers and times as their text."""
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(f"no JSON form for {type(value)}")


def show(line):
    json.dump(line, sys.stdout, default=plain, ensure_ascii=False)
    sys.stdout.write("\n")


def read_file(path, number, schemas):
    with open(path, "rb") as file:
        reader = fastavro.reader(file, return_record_name=True)
        if schemas:
            metadata = dict(reader.metadata)
            metadata["avro.schema"] = json.loads(metadata["avro.schema"])
            show({"file": os.path.basename(path), "metadata": metadata})
            return sum(1 for _ in reader)
        count = 0
        for record in reader:
            # Of a union of one, fastavro gives the record without its name.
            name = None
            if isinstance(record, tuple):
                name, record = record
            show({"number": number + count, "file": os.path.basename(path), "schema": name,
                  "record": record})
            count += 1
        return count


def main(argv):
    if len(argv) < 2:
        sys.exit(__doc__)
    directory, schemas = argv[1], "--schemas" in argv[2:]
    names = sorted(n for n in os.listdir(directory) if n.endswith(".avro"))
    expected = None
    for name in names:
        number = int(name[: -len(".avro")])
        if expected is not None and number != expected:
            sys.exit(f"gap: {name} follows record {expected - 1}")
        expected = number + read_file(os.path.join(directory, name), number, schemas)


if __name__ == "__main__":
    try:
        main(sys.argv)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
