#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a packed chart as an OCI layout, in the form that `helm push` gives it in a registry, without the time of the push.

Usage: chart-layout.py CHART_YAML ARCHIVE DIRECTORY
The form is from https://helm.sh/docs/topics/registries.
"""
import hashlib
import json
import pathlib
import re
import sys


def write_blob(directory, media_type, data):
    """Returns the descriptor of the blob."""
    digest = hashlib.sha256(data).hexdigest()
    (directory / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def to_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main(metadata_path, archive_path, directory):
    directory = pathlib.Path(directory)
    (directory / "blobs/sha256").mkdir(parents=True)
    # Helm prints one line a field; nested ones are of no use in a registry.
    lines = pathlib.Path(metadata_path).read_text().splitlines()
    fields = dict(re.fullmatch(r"(\w+): (.+)", line).groups() for line in lines if re.fullmatch(r"\w+: .+", line))
    metadata = {name: fields[name].strip("'\"") for name in ("apiVersion", "appVersion", "kubeVersion", "name", "type", "version")}
    config = write_blob(directory, "application/vnd.cncf.helm.config.v1+json", to_json(metadata))
    archive = pathlib.Path(archive_path).read_bytes()
    layer = write_blob(directory, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", archive)
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    names = {f"org.opencontainers.image.{key}": metadata[of] for key, of in (("title", "name"), ("version", "version"))}
    manifest = {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer], "annotations": names}
    entry = write_blob(directory, manifest_type, to_json(manifest))
    entry["annotations"] = {"org.opencontainers.image.ref.name": metadata["version"]}
    (directory / "index.json").write_bytes(to_json({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_bytes(to_json({"imageLayoutVersion": "1.0.0"}))


main(*sys.argv[1:])
