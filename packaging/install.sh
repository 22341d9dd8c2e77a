#!/bin/sh
# Installs llama-stack from the unpacked archive that this script lies in. Fetches nothing.
#
#   ./install.sh                      into /usr/local as root, else into ~/.local
#   PREFIX=/opt/stack ./install.sh    elsewhere
#   ./install.sh --uninstall          removes the program; state and models stay
set -eu

say() { printf '%s\n' "$1"; }
fail() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ "$(id -u)" -eq 0 ]; then prefix=${PREFIX:-/usr/local}; else prefix=${PREFIX:-$HOME/.local}; fi
program="$prefix/bin/llama-stack"

case "${1:-}" in
  "") ;;
  --uninstall)
    rm -f "$program"
    say "removed $program; state and models in ${LLAMA_STACK_HOME:-$HOME/.llama-stack} are left"
    exit 0
    ;;
  *) fail "unknown argument $1; there is --uninstall" ;;
esac

[ -f "$here/llama-stack" ] || fail "no llama-stack beside $0: unpack the archive, and run the script that is in it"

mkdir -p "$prefix/bin" || fail "$prefix/bin cannot be made; choose another folder with PREFIX"
# Put aside and renamed, so that a running server keeps its file and nobody sees half of one.
cp "$here/llama-stack" "$program.new" || fail "$prefix/bin cannot be written; choose another folder with PREFIX"
chmod 755 "$program.new"
version=$("$program.new" --version) || {
  rm -f "$program.new"
  fail "this build does not run here; the message above says why"
}
mv -f "$program.new" "$program"

say "installed $version as $program"
case ":$PATH:" in
  *":$prefix/bin:"*) say "start with: llama-stack run starter" ;;
  *) say "$prefix/bin is not on your PATH; start with: $program run starter" ;;
esac
