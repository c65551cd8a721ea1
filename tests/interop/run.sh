#!/usr/bin/env bash
# Key managers of 'dsgd serve kme' against clients of ETSI GS QKD 014 that others wrote: qkdsec (its
# client and its conformance doctor) and etsi-qkd-014-client from the Python index, and with
# '--rust' etsi014-client from crates.io (wants libssl-dev, libsodium-dev and pkg-config).
# Fails at the first deviation.
#
#   tests/interop/run.sh [--rust] [PROGRAM]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
rust=
if [ "${1:-}" = --rust ]; then rust=yes; shift; fi
dsgd=$(realpath "${1:-$here/../../target/release/dsgd}")
work=$(mktemp -d)
pids=()
cleanup() {
  status=$?
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  if [ $status -ne 0 ]; then tail -n 20 "$work"/*.log >&2 || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check 'qkdsec[doctor]==0.3.*' 'etsi-qkd-014-client==0.9.*'

cd "$work"
"$dsgd" -q keys certificates certificates --kme kme-a --kme kme-b --kme kme-c \
  --sae sae-a1 --sae sae-b1 --sae sae-b2 --sae sae-c1 --sae sae-stranger >/dev/null
for link in 'a b' 'a c' 'b c'; do
  "$dsgd" -q keys simulate ${link} --output "${link/ /-}.json" >/dev/null
done
# Six free ports, all held until the last is known.
read -ra ports < <(python3 - <<'PYTHON'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)
sites=(a b c)
for number in 0 1 2; do
  site=${sites[number]}
  {
    printf 'site = "%s"\nstate = "state-%s"\nlisten = "127.0.0.1:%s"\n' "$site" "$site" "${ports[3 + number]}"
    printf '[kme]\nlisten = "127.0.0.1:%s"\ncertificate = "certificates/kme-%s.pem"\n' "${ports[number]}" "$site"
    printf 'private-key = "certificates/kme-%s.key"\nauthority = "certificates/authority.pem"\n' "$site"
    printf '[kme.peers]\na = "kme-a"\nb = "kme-b"\nc = "kme-c"\n'
    for sae in a1 b1 b2 c1; do printf '[[kme.sae]]\nid = "sae-%s"\nsite = "%s"\n' "$sae" "${sae%?}"; done
    for other in 0 1 2; do
      if [ "$other" != "$number" ]; then
        pair=$(printf '%s\n' "$site" "${sites[other]}" | sort | paste -sd-)
        printf '[[peer]]\nsite = "%s"\naddress = "127.0.0.1:%s"\n' "${sites[other]}" "${ports[3 + other]}"
        printf '[[key]]\npeer = "%s"\nkind = "sim"\nfile = "%s.json"\n' "${sites[other]}" "$pair"
      fi
    done
  } >"$site.toml"
  "$dsgd" --config "$site.toml" serve kme >"$site.out" 2>"$site.log" &
  pids+=($!)
done
for site in "${sites[@]}"; do
  for _ in $(seq 100); do [ -s "$site.out" ] && break; sleep 0.1; done
  [ -s "$site.out" ] || { echo "kme-$site did not start" >&2; exit 1; }
done

"$work/venv/bin/python" "$here/clients.py" "$work/certificates" "${ports[@]:0:3}"
if [ -n "$rust" ]; then
  cargo run -q --release --manifest-path "$here/rust/Cargo.toml" \
    --target-dir "${CARGO_TARGET_DIR:-$here/../../target}/interop" -- "$work/certificates" "${ports[@]:0:3}"
fi
echo "interoperation with ETSI GS QKD 014 clients: all as expected"
