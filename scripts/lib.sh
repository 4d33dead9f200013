# Shared by the scripts: where the tree is, messages, checks, and the build. Source it; do not run it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

say() { printf '==> %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; [[ $# -lt 2 ]] || printf '  what to do: %s\n' "$2" >&2; exit 1; }

need_root() {
  [[ $(id -u) -eq 0 ]] || die "this needs root (it installs packages and makes network namespaces)" "run: sudo $0 $*"
}
need_debian() {
  command -v apt-get >/dev/null || die "this script installs Debian packages and there is no apt-get here" \
    "use Debian 12, or install the packages of scripts/deps by hand and run: make build"
}
need_kernel() {
  local major minor
  IFS=.- read -r major minor _ < <(uname -r)
  ((major > 5 || (major == 5 && minor >= 13))) || die "kernel $(uname -r) is too old for the nftables dataplane" "use a kernel from 5.13"
}

# build PRESET [TARGET...]: configures and builds, with ninja's progress on one line where there is a terminal.
build() {
  local preset=$1 log; shift
  log=$(mktemp)
  cmake --preset "$preset" >"$log" 2>&1 || { tail -n 30 "$log" >&2; rm -f "$log"; die "configuring failed" "read the lines above"; }
  rm -f "$log"
  if [[ $# -gt 0 ]]; then cmake --build --preset "$preset" --target "$@"; else cmake --build --preset "$preset"; fi
}
