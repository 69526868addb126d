#!/bin/sh
# The recipe that people keep around: a file that says which port is mapped, iptables rules added and deleted, conntrack
# flushed. It is here to be measured, not to be used:
#   swapper-harness run --swap-command examples/swap.sh --service-time 20 --family 4 --from outside
# It is called once before there is traffic, then once for each swap; SWAP_PUBLIC and SWAP_TO_PORT say what is wanted.
set -eu

mapped=$SWAP_STATE/mapped.txt
old=$(cat "$mapped" 2>/dev/null || true)

rule() { # rule -A|-D CHAIN PORT
    iptables -w -t nat "$1" "$2" -p udp --dport "$SWAP_PUBLIC" -m addrtype --dst-type LOCAL \
        -j DNAT --to-destination ":$3"
}

# Clients outside the host pass PREROUTING, those inside OUTPUT.
for chain in PREROUTING OUTPUT; do
    rule -A $chain "$SWAP_TO_PORT"
    [ -z "$old" ] || rule -D $chain "$old"
done
# Without this every flow that exists stays on the old backend. With it every reply that is under way loses its way
# back: it leaves with the internal port as its source, and no client knows that one.
conntrack -F
echo "$SWAP_TO_PORT" >"$mapped"
