"""The page that lists the addresses of the HTTP API: plain HTML without scripts, made of the OpenAPI document."""

import html
from collections.abc import Mapping
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font-family: sans-serif; line-height: 1.4 }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font-family: monospace } h2 code { font-size: 1rem }
section { border-top: 1px solid #8888; padding: .2rem 0 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page for an OpenAPI document."""
    sections = [
        _section(document, method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Scanonce API</title>'
        f"<style>{_STYLE}</style><h1>Scanonce API</h1>"
        f"<p>{_text(document['info']['description'])} Each request sends a token: "
        "<code>Authorization: Bearer TOKEN</code>; <code>scanonce token add NAME --scope read</code> makes one. "
        'Errors are JSON: <code>{"error": "..."}</code>. The same for programs: '
        '<a href="openapi.json">openapi.json</a>.</p>' + "".join(sections)
    )


def _section(
    document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]
) -> str:
    scope = ", ".join(operation.get("tags", ()))
    rows = [
        (each["name"], each["in"], each.get("required", False), each["schema"], each)
        for each in operation.get("parameters", ())
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(document, content["schema"])
        required = schema.get("required", ())
        rows += [
            (name, kind, name in required, field, field)
            for name, field in schema.get("properties", {}).items()
        ]
    cells = "".join(
        f"<tr><td><code>{_text(name)}</code>{' (required)' if required else ''}</td><td>{_text(place)}</td>"
        f"<td>{_text(_kind(schema))}</td><td>{_text(described.get('description', ''))}</td></tr>"
        for name, place, required, schema, described in rows
    )
    table = (
        f"<table><tr><th>name</th><th>in</th><th>type</th><th></th></tr>{cells}</table>"
        if rows
        else ""
    )
    return (
        f"<section><h2><code>{_text(method.upper())} {_text(path)}</code></h2>"
        f"<p>{_text(operation.get('description', ''))} Scope: {_text(scope)}.</p>{table}</section>"
    )


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that a reference leads to."""
    if (reference := schema.get("$ref")) is None:
        return schema
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    resolved: Mapping[str, Any] = found
    return resolved


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    return f"list of {_kind(schema['items'])}" if kind == "array" else kind


def _text(text: object) -> str:
    return html.escape(str(text))
