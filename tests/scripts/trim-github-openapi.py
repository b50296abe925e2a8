#!/usr/bin/env python3
"""Cut GitHub's OpenAPI description down to the operations that the emulator serves.

    npm pack @octokit/openapi && tar xzf octokit-openapi-*.tgz
    tests/scripts/trim-github-openapi.py package/generated/api.github.com.json tests/data/github-openapi.json

The operations are read from the emulator's own table (tests/src/github/rest.rs), so that the two cannot drift apart.
Kept of each: method, path, parameters, request body and JSON responses, and every component that they reach.
Dropped: descriptions, examples, vendor extensions. OpenAPI 3.0's `nullable: true` becomes what JSON Schema understands.
"""

import json
import pathlib
import re
import sys

DROP = {"description", "summary", "example", "examples", "externalDocs", "tags", "deprecated", "title", "x-github",
        "x-githubEnterpriseOnly", "x-github-breaking-changes", "x-multi-segment", "x-github-preview", "headers"}
TABLE = pathlib.Path(__file__).parent.parent / "src/github/rest.rs"


def schema(node):
    """Strip prose and rewrite `nullable`. Keys below `properties` are names, never keywords."""
    if isinstance(node, list):
        return [schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):
            out[key] = {name: schema(inner) for name, inner in value.items()}
        elif key in ("enum", "required", "default", "const"):
            out[key] = value
        elif key not in DROP:
            out[key] = schema(value)
    if out.pop("nullable", False):
        if "enum" in out and None not in out["enum"]:
            out["enum"] = out["enum"] + [None]
        if isinstance(out.get("type"), str):
            out["type"] = [out["type"], "null"]
        else:
            out = {"anyOf": [out, {"type": "null"}]}
    return out


def references(node, found):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            found.add(node["$ref"])
        for value in node.values():
            references(value, found)
    elif isinstance(node, list):
        for value in node:
            references(value, found)


def main(source, target):
    spec = json.load(open(source))
    wanted = set(re.findall(r'^\s*\(\s*"([a-z]+(?:-[a-z]+)*/[a-z-]+)"', TABLE.read_text(), re.M))
    paths, seen = {}, set()
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            if not isinstance(operation, dict) or operation.get("operationId") not in wanted:
                continue
            seen.add(operation["operationId"])
            kept = {"operationId": operation["operationId"]}
            for key in ("parameters", "requestBody", "responses"):
                if key in operation:
                    kept[key] = schema(operation[key])
            for status, response in kept["responses"].items():
                content = response.get("content", {})
                response["content"] = {k: v for k, v in content.items() if k == "application/json"}
            paths.setdefault(path, {})[method] = kept
    if wanted - seen:
        sys.exit(f"not in the description: {sorted(wanted - seen)}")
    components, todo, done = {}, set(), set()
    references(paths, todo)
    while todo:
        ref = todo.pop()
        if ref in done:
            continue
        done.add(ref)
        _, _, kind, name = ref.split("/")
        node = schema(spec["components"][kind][name])
        components.setdefault(kind, {})[name] = node
        references(node, todo)
    out = {"openapi": spec["openapi"], "info": {"title": spec["info"]["title"], "version": spec["info"]["version"],
           "license": spec["info"]["license"]}, "paths": paths, "components": components}
    with open(target, "w") as file:
        json.dump(out, file, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        file.write("\n")
    print(f"{len(seen)} operations, {sum(map(len, components.values()))} components")


if __name__ == "__main__":
    main(*sys.argv[1:])
