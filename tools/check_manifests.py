"""Checks the YAML files of launch/ against the schemas in tools/schemas; part of `make lint`.

    python tools/check_manifests.py [FILE ...]

The schemas are the part that our files use of four others, written down by hand: the MPI operator's MPIJob
(v2beta1), the training operator's PyTorchJob (v1), Kubernetes' own kinds, and AWS ParallelCluster's
configuration. A field that a schema does not know is an error: a cluster may accept a misspelt one and
ignore it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = Path(__file__).resolve().parent / "schemas"
KINDS = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


class Schemas:
    """The schemas by file name; "$ref" in one names another."""

    def __init__(self, folder: Path = SCHEMAS) -> None:
        self._all = {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}

    def of(self, document: Any) -> dict[str, Any] | None:
        """The schema for a document, by its kind; ParallelCluster's has a HeadNode instead."""
        if not isinstance(document, dict):
            return None
        name = "parallelcluster" if "HeadNode" in document else str(document.get("kind", "")).lower()
        return self._all.get(name)

    def errors(self, value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
        """What of a value is not as a schema says, each with its place in the document."""
        schema = self._all[schema["$ref"]] if "$ref" in schema else schema
        kind = KINDS[schema["type"]]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            yield f"{at or 'the document'} must be of type {schema['type']}, got {value!r}"
        elif kind is dict:
            yield from self._of_fields(value, schema, at)
        elif kind is list:
            for i, item in enumerate(value):
                yield from self.errors(item, schema["items"], f"{at}[{i}]")
        else:
            yield from _of_value(value, schema, at)

    def _of_fields(self, value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
        fields, others = schema.get("properties", {}), schema.get("additionalProperties")
        yield from (f"{at} lacks {name}" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            place = f"{at}.{name}" if at else str(name)
            if name in fields:
                yield from self.errors(item, fields[name], place)
            elif others:
                yield from self.errors(item, others, place)
            else:
                yield f"{place} is unknown: there are {', '.join(fields)}"


def _of_value(value: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} must be one of {', '.join(schema['enum'])}, got {value!r}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at} must be at least {schema['minimum']}, got {value}"
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        yield f"{at} must match {schema['pattern']}, got {value!r}"


def check(file: Path, schemas: Schemas) -> list[str]:
    """The errors of a file's documents, each with the file's name; none if all are as they should be."""
    text = file.read_text()
    try:
        documents = list(yaml.safe_load_all(filled_in() if "${" in text else text))
    except yaml.YAMLError as error:
        return [f"{file}: not YAML: {error}"]
    errors = []
    for document in documents:
        schema = schemas.of(document)
        if schema is None:
            errors.append(f"{file}: no schema in {SCHEMAS.name}/ for such a document: write one")
        else:
            errors += [f"{file}: {error}" for error in schemas.errors(document, schema)]
    return errors


def filled_in() -> str:
    """The cluster's configuration as its script makes it, with names in place of a user's own."""
    given = {**os.environ, "KEY_NAME": "key", "SUBNET": "subnet-1"}
    command = ["bash", str(ROOT / "launch" / "parallelcluster.sh"), "config"]
    return subprocess.run(command, env=given, check=True, capture_output=True, text=True).stdout


def main() -> int:
    files = [Path(name) for name in sys.argv[1:]] or sorted(ROOT.glob("launch/**/*.yaml"))
    schemas = Schemas()
    errors = [error for file in files for error in check(file, schemas)]
    print("\n".join(errors) or f"{len(files)} manifests are as their schemas say")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
