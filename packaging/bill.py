"""What is linked into the binary, from Cargo.lock: a bill of materials, or the licences.

    python3 packaging/bill.py sbom [--target TRIPLE]       CycloneDX 1.5, JSON
    python3 packaging/bill.py licences [--target TRIPLE]   Markdown, with the texts

Needs no network once `cargo fetch` has run. The same lock file gives the same output.
"""

import argparse
import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BINARY = "llama-stack-cli"
LICENCE_NAMES = ("licen", "copying", "notice", "unlicense", "copyright")


def linked(target):
    """The binary's package, all packages that are linked into it, and who depends on whom, by package id."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", str(ROOT / "Cargo.toml")]
    told = subprocess.run(command + ["--filter-platform", target], capture_output=True, text=True)
    if told.returncode:
        raise SystemExit(told.stderr)
    metadata = json.loads(told.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    binary = next(package["id"] for package in metadata["packages"] if package["name"] == BINARY)
    edges, waiting = {}, [binary]
    while waiting:
        package = waiting.pop()
        if package in edges:
            continue
        # Build scripts and tests are not in the binary.
        normal = [dep["pkg"] for dep in nodes[package]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        edges[package] = sorted(dep for dep in normal if "proc-macro" not in packages[dep]["targets"][0]["kind"])
        waiting += edges[package]
    return packages[binary], {id: packages[id] for id in sorted(edges, key=lambda id: (packages[id]["name"], packages[id]["version"]))}, edges


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licence(package):
    """An SPDX expression; old crates write `A/B` for `A OR B`."""
    return (package["license"] or "").replace("/", " OR ")


def sbom(binary, packages, edges):
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    sums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}

    def component(package):
        entry = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
        if package["description"]:
            entry["description"] = " ".join(package["description"].split())
        if checksum := sums.get((package["name"], package["version"])):
            entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if licence(package):
            entry["licenses"] = [{"expression": licence(package)}]
        entry["purl"] = purl(package)
        return entry

    root = {**component(binary), "type": "application", "name": "llama-stack"}
    components = [component(package) for id, package in packages.items() if id != binary["id"]]
    dependencies = [{"ref": purl(packages[id]), "dependsOn": sorted({purl(packages[dep]) for dep in edges[id]})} for id in packages]
    # Of the content, so that the same lock file has the same serial number.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([components, dependencies]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": dependencies,
    }


def texts(package):
    folder = Path(package["manifest_path"]).parent
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name.lower().startswith(LICENCE_NAMES))
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files]


def licences(packages):
    foreign = [package for package in packages.values() if package["source"]]
    lines = ["# Third-party licences", "", f"{len(foreign)} packages are linked into llama-stack.", "", "| package | licence |", "|---|---|"]
    lines += [f"| {package['name']} {package['version']} | {licence(package) or 'see its text'} |" for package in foreign]
    by_text = {}
    for package in foreign:
        for text in texts(package):
            by_text.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in by_text.items():
        lines += ["", "## " + ", ".join(names), "", *("    " + line for line in text.splitlines())]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="What is linked into the binary.")
    parser.add_argument("what", choices=["sbom", "licences"])
    parser.add_argument("--target", default="x86_64-unknown-linux-gnu")
    given = parser.parse_args()
    binary, packages, edges = linked(given.target)
    if given.what == "sbom":
        json.dump(sbom(binary, packages, edges), sys.stdout, indent=1)
        print()
    else:
        print(licences(packages))


main()
