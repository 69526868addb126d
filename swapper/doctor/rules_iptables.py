"""Other people's rules on both flavours of iptables, from their `save` tools (iptables-save(8))."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from swapper.dataplane.chains import HOOKS, PRIVATE
from swapper.dataplane.iptables import families, ran
from swapper.doctor.rules import Chain, Effect, Rule
from swapper.errors import KernelRefusedError
from swapper.model import Family

__all__ = ["parsed", "read"]

EFFECTS = {
    "ACCEPT": Effect.ACCEPT,
    "DROP": Effect.REFUSE,
    "REJECT": Effect.REFUSE,
    "DNAT": Effect.TRANSLATE,
    "REDIRECT": Effect.TRANSLATE,
}
BUILT_IN = {"INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"}
OF_NEW_FLOWS = {"NEW", "DNAT", "UNTRACKED"}  # conntrack states; what was translated is DNAT too


def read() -> list[Chain]:
    """Every chain that is not Swapper's, of both families and flavours. Raises KernelRefusedError."""
    return [chain for family in families() for chain in (*_read_nft(family), *_read_legacy(family))]


def parsed(saved: str, tool: str, prefix: str) -> Iterator[Chain]:
    """The chains of one listing of `tool`-save; their tables are called `prefix` and their name."""
    table = ""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:], {}, {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name], rules[name] = policy, []
        elif line.startswith("-A "):
            _, name, *words = shlex.split(line)
            rules[name].append(_rule(words, f"{tool} -w -t {table} -D {line[3:]}"))
        elif line == "COMMIT":
            for name, policy in policies.items():
                if name not in HOOKS.values() and not name.startswith(PRIVATE):
                    hook = name.lower() if name in BUILT_IN else ""
                    opens = f"{tool} -w -t {table} -I {name} -p {{protocol}} --dport {{port}} -j ACCEPT"
                    refuses = policy == "DROP"
                    yield Chain(f"{prefix} {table}", name, table, hook, refuses, tuple(rules[name]), opens)


def _read_nft(family: Family) -> Iterator[Chain]:
    name, nft_family = ("iptables-nft", "ip") if family == 4 else ("ip6tables-nft", "ip6")
    if shutil.which(f"{name}-save"):
        yield from parsed(_saved(f"{name}-save"), name, nft_family)


def _read_legacy(family: Family) -> Iterator[Chain]:
    name = "iptables-legacy" if family == 4 else "ip6tables-legacy"
    present = Path(f"/proc/net/{'ip' if family == 4 else 'ip6'}_tables_names")
    if present.exists() and shutil.which(f"{name}-save"):
        for table in present.read_text(encoding="ascii").split():  # merely listing another one would make it
            yield from parsed(_saved(f"{name}-save", "-t", table), name, name)


def _saved(*argv: str) -> str:
    done = ran(argv)
    if done.returncode:
        raise KernelRefusedError(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout


def _rule(words: list[str], undo: str) -> Rule:
    options: dict[str, str] = {}
    for at, word in enumerate(words):
        if word.startswith("-") and at + 1 < len(words) and words[at - 1] != "!":
            options[word] = words[at + 1]
    target = options.get("-j") or options.get("-g") or ""
    states = options.get("--ctstate") or options.get("--state")
    numbers = options.get("--dport") or options.get("--dports")
    return Rule(
        effect=EFFECTS.get(target, Effect.NONE),
        leads_to=(target,) if target else (),
        protocols=frozenset({options["-p"]}) if "-p" in options else None,
        ports=_ports(numbers) if numbers else None,
        for_new=options.get("-i") != "lo" and (states is None or bool(OF_NEW_FLOWS & set(states.split(",")))),
        conditional=words[:1] not in (["-j"], ["-g"]),
        undo=undo,
    )


def _ports(text: str) -> tuple[range, ...]:
    """The ports of `1001,1003:1005`."""
    ends = (part.split(":") for part in text.split(","))
    return tuple(range(int(first), int((last or [first])[0]) + 1) for first, *last in ends)
