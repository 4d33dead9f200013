#!/usr/bin/env bash
# What the README's two commands say where they cannot work: no root, an old kernel, no apt-get, a word they do not know. Each must end
# with an error that tells what is missing and what to do, before anything is installed or built. The machine is described by
# stand-ins for id, uname and apt-get in a PATH of this test's own; those that would change something leave a trace if called.
set -euo pipefail
cd "$(dirname "$0")/../.."

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for tool in bash sed dirname basename date mktemp grep rm; do ln -s "$(command -v $tool)" "$tmp/$tool"; done
stand_in() { printf '#!/bin/bash\n%s\n' "$2" >"$tmp/$1"; chmod +x "$tmp/$1"; }
for tool in cmake ninja dpkg-query kubectl fairlead; do stand_in $tool "echo $tool >>$tmp/called; exit 1"; done

failed=0
# row NAME USER KERNEL APT COMMAND... : then lines the error must hold
row() {
  local name=$1 user=$2 kernel=$3 apt=$4 out code=0; shift 4
  local -a command=() want=()
  while [[ $1 != : ]]; do command+=("$1"); shift; done
  shift; want=("$@")
  rm -f "$tmp/called" "$tmp/apt-get"
  stand_in id "echo $user"
  stand_in uname "echo $kernel"
  [[ $apt == no ]] || stand_in apt-get "echo apt-get >>$tmp/called"
  out=$(PATH=$tmp bash "${command[@]}" 2>&1) || code=$?
  local bad=
  [[ $code -eq 1 ]] || bad="exit code $code instead of 1"
  for line in "${want[@]}"; do [[ $out == *"$line"* ]] || bad="no \"$line\""; done
  [[ ! -e $tmp/called ]] || bad="it called $(tr '\n' ' ' <"$tmp/called" 2>/dev/null || echo something)"
  if [[ -n $bad ]]; then echo "FAILED $name: $bad"; sed 's/^/    /' <<<"$out"; failed=1; else echo "ok $name"; fi
}

for script in scripts/quickstart scripts/test; do
  row "$script as a user"          1000 6.1.0-9-amd64  yes $script : "this needs root" "what to do: run: sudo $script"
  row "$script on an old kernel"   0    4.19.0-2-amd64 yes $script : "kernel 4.19.0-2-amd64 is too old" "what to do: use a kernel from 5.13"
  row "$script, just too old"      0    5.12.99        yes $script : "kernel 5.12.99 is too old"
  row "$script not on Debian"      0    6.1.0-9-amd64  no  $script : "there is no apt-get here" "what to do: use Debian 12"
  row "$script, unknown word"      0    6.1.0-9-amd64  yes $script --quick : "unknown argument --quick"
done
row "quickstart: nodes is no number" 0  6.1.0-9-amd64  yes scripts/quickstart --nodes many : '--nodes: "many" is not a number'
exit $failed
