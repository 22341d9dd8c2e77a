#!/usr/bin/env bash
# Builds the release archive: packaging/release.sh [TARGET]. The last line is the archive's path.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# What `llama-stack version` says.
LLAMA_STACK_COMMIT=${LLAMA_STACK_COMMIT:-$(git rev-parse HEAD)}
export LLAMA_STACK_COMMIT
cargo build --profile dist --locked --bin llama-stack --target "$target"

built="${CARGO_TARGET_DIR:-target}/$target/dist/llama-stack"
out="${CARGO_TARGET_DIR:-target}/release-archive"
name="llama-stack-$version-$target"
rm -rf "${out:?}/$name"
mkdir -p "$out/$name"
cp "$built" packaging/install.sh packaging/systemd/llama-stack.service LICENSE README.md "$out/$name/"
cp -R distributions proto/llama_stack "$out/$name/"
mkdir "$out/$name/proto" && mv "$out/$name/llama_stack" "$out/$name/proto/"
python3 packaging/bill.py sbom --target "$target" > "$out/$name/sbom.cdx.json"
python3 packaging/bill.py licences --target "$target" > "$out/$name/THIRD-PARTY-LICENCES.md"

# Order, times and owners are fixed: the same files give the same archive.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -C "$out" -cf - "$name" | gzip -n9 > "$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
echo "$out/$name.tar.gz"
