"""The two iptables engines: read with the `save` tool, commit one table of one family at a time.

A rule is the tuple of its words in `iptables-save` form, so that what was written and what is listed compare equal.
`iptables-nft` commits through its restore tool, `iptables-legacy` through python-iptables in a child, and through
its restore tool where libxtables is newer than python-iptables knows.
Source: iptables-restore(8), iptables-extensions(8).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from swapper.child import in_child
from swapper.errors import KernelRefusedError, MissingError
from swapper.lock import held
from swapper.model import FAMILIES, Engine, Family

__all__ = ["IptablesEngine", "IptablesLegacy", "IptablesNft", "Rule", "Rules", "families", "iptc", "ran", "rule"]

Rule = tuple[str, ...]
Rules = dict[str, dict[str, list[Rule]]]  # table -> chain -> rules

XTABLES_LOCK = Path("/run/xtables.lock")
COMMIT_TRIES = 20
QUOTING = re.compile(r"[\"'\\]")
TOOL_TIMEOUT_S = 20
INSTALL = "apt-get install -y iptables"
TOO_NEW = "this libxtables is newer than python-iptables"


def rule(text: str) -> Rule:
    """The words of one rule, without its `-A CHAIN`."""
    return tuple(_words(text))


def families() -> tuple[Family, ...]:
    """The families that this host speaks."""
    return FAMILIES if Path("/proc/sys/net/ipv6").exists() else (4,)


def ran(argv: Sequence[str], *, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool of netfilter with `text` on its standard input; its words and exit code.

    Whatever locks this command holds, the tool holds too: killed, the command leaves no commit behind that the next
    one does not wait for. The tool is bounded by another process, which outlives this one; raises KernelRefusedError
    when it had to be killed.
    """
    bounded = ["timeout", "--signal=KILL", str(TOOL_TIMEOUT_S), *argv]
    done = subprocess.run(bounded, input=text, capture_output=True, text=True, check=False, pass_fds=held())
    if done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise KernelRefusedError(f"{argv[0]} was killed, or did not end within {TOOL_TIMEOUT_S} s")
    return done


def iptc() -> Any:
    """python-iptables, by which the legacy engine commits. Raises MissingError where it is not installed."""
    try:
        with warnings.catch_warnings(), _without_detours():
            warnings.simplefilter("ignore")  # its sources warn of their escapes whenever they are compiled
            return importlib.import_module("iptc")
    except ImportError as error:
        raise MissingError(
            f"engine iptables-legacy needs python-iptables ({error}); "
            "bring it with, where Swapper's source is: pip install '.[legacy]'"
        ) from error


@contextmanager
def _without_detours() -> Iterator[None]:
    """Have python-iptables find its own library beside itself, where it asks gcc and ld for it, four times over.

    Nor does it load setuptools meanwhile, which stands in for distutils, to learn where packages are.
    """
    spec = importlib.util.find_spec("iptc")
    beside = {"IPTABLES_LIBDIR": str(Path(spec.origin).parents[1])} if spec and spec.origin else {}
    without: dict[str, Any] = {"distutils": None}  # import takes it to be missing
    with _ensured(os.environ, beside), _ensured(cast("dict[str, Any]", sys.modules), without):
        yield


@contextmanager
def _ensured(mapping: MutableMapping[str, Any], entries: Mapping[str, Any]) -> Iterator[None]:
    """The mapping with these entries too, but for those that it has."""
    added = entries.keys() - mapping.keys()
    mapping.update({name: entries[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del mapping[name]


class IptablesEngine(Protocol):
    """Reads and commits tables; knows nothing of services."""

    engine: Engine

    def rehearse(self) -> None:
        """Raise MissingError where nothing can be committed, as far as that shows without a commit."""

    def read(self, family: Family) -> Rules:
        """Every chain of the tables that exist."""

    def commit(self, family: Family, text: str) -> None:
        """Commit one table, written for `iptables-restore --noflush`; all of it or nothing.

        Raises KernelRefusedError with the tool's words, MissingError when a tool or a match is not there.
        """


class IptablesNft:
    """iptables on nf_tables."""

    engine = Engine.IPTABLES_NFT

    def __init__(self) -> None:
        for family in families():
            _tool(family, "nft", "restore")

    def rehearse(self) -> None:
        """Nothing: whether the kernel has all that rules need only a commit tells."""

    def read(self, family: Family) -> Rules:
        """Every chain of the tables that exist."""
        return _save(family, "nft")

    def commit(self, family: Family, text: str) -> None:
        """Commit one table through `iptables-nft-restore`."""
        if said := _restored(family, "nft", text):
            raise _refusal(said)


class IptablesLegacy:
    """iptables on the legacy xtables of the kernel, through python-iptables where that knows this libxtables."""

    engine = Engine.IPTABLES_LEGACY

    def __init__(self) -> None:
        for family in families():
            _tool(family, "legacy", "save")
        self._iptc: Any = None

    def rehearse(self) -> None:
        """Raise MissingError without python-iptables: reading does without."""
        iptc()

    def read(self, family: Family) -> Rules:
        """Every chain of raw and nat, if this namespace has them: merely listing a table would make it."""
        names = Path(f"/proc/net/{'ip' if family == 4 else 'ip6'}_tables_names")
        present = names.read_text(encoding="ascii").split() if names.exists() else []
        return {
            name: chains
            for table in ("raw", "nat")
            if table in present
            for name, chains in _save(family, "legacy", "-t", table).items()
        }

    def commit(self, family: Family, text: str) -> None:
        """Commit one table, in a child process.

        A child, because libxtables knows one family in a process, and ends the process over a rule it cannot read.
        """
        self._iptc = self._iptc or iptc()
        name, *lines = [line for line in text.splitlines() if line and line != "COMMIT"]
        with _xtables_lock():
            said = _undisturbed(lambda: in_child(lambda: self._apply(family, name.removeprefix("*"), lines)))
        if TOO_NEW in said:
            said = _undisturbed(lambda: _restored(family, "legacy", text))
        if said:
            raise _refusal(said)

    def _apply(self, family: Family, name: str, lines: list[str]) -> None:
        if not self._knows_libxtables(family):
            raise ImportError(TOO_NEW)
        table = (self._iptc.Table if family == 4 else self._iptc.Table6)(name)
        table.autocommit = False
        table.refresh()
        for line in lines:
            operation, chain_name, *words = shlex.split(line)
            if operation.startswith(":"):
                chain = self._iptc.Chain(table, operation[1:])
                if table.is_chain(chain):
                    chain.flush()
                else:
                    table.create_chain(operation[1:])
                continue
            chain = self._iptc.Chain(table, chain_name)
            if operation == "-A":
                chain.append_rule(self._rule(family, words))
            elif operation == "-I":
                chain.insert_rule(self._rule(family, words[1:]), position=int(words[0]) - 1)
            elif operation == "-D":
                chain.delete_rule(self._rule(family, words))
            elif operation == "-F":
                chain.flush()
            elif operation == "-X":
                table.delete_chain(chain_name)
        table.commit()

    def _knows_libxtables(self, family: Family) -> bool:
        """Whether python-iptables finds a match's second option where libxtables has it.

        From iptables 1.8.11 on, entries (struct xt_option_entry in xtables.h) are longer than it takes them to be; and
        the options of udp are such entries.
        """
        section = self._iptc.Rule() if family == 4 else self._iptc.Rule6()
        options = self._iptc.Match(section, "udp")._module.x6_options  # noqa: SLF001 - nothing public tells
        return not options or options[1].name is not None

    def _rule(self, family: Family, words: list[str]) -> Any:
        """One rule as a python-iptables object, from its words."""
        made = self._iptc.Rule() if family == 4 else self._iptc.Rule6()
        section: Any = made
        negate, at = "", 0
        while at < len(words):
            word = words[at]
            if word == "!":
                negate, at = "!", at + 1
                continue
            values: list[str] = []
            while at + 1 + len(values) < len(words) and not words[at + 1 + len(values)].startswith(("-", "!")):
                values.append(words[at + 1 + len(values)])
            at += 1 + len(values)
            match word:
                case "-p":
                    made.protocol = negate + values[0]
                case "-s":
                    made.src = negate + values[0]
                case "-d":
                    made.dst = negate + values[0]
                case "-i":
                    made.in_interface = negate + values[0]
                case "-m":
                    section = made.create_match(values[0])
                case "-j":
                    section = made.create_target(values[0])
                case "-g":
                    section = made.create_target(values[0], goto=True)
                case _:
                    value: Any = values if len(values) > 1 else (values[0] if values else "")
                    section.set_parameter(word.removeprefix("--"), [negate, *values] if negate else value)
            negate = ""
        return made


def _undisturbed(commit: Callable[[], str]) -> str:
    """What a commit of a legacy table says, tried again while other programs commit in between (EAGAIN)."""
    for _ in range(COMMIT_TRIES):
        said = commit()
        if "temporarily unavailable" not in said:
            break
    return said


def _restored(family: Family, flavour: str, text: str) -> str:
    """Commit one table through `iptables-restore`; what it said when it failed, "" when it did not."""
    done = ran([_tool(family, flavour, "restore"), "--noflush", "--wait", "5"], text=text)
    return done.stderr or "iptables-restore failed without a word" if done.returncode else ""


def _words(text: str) -> list[str]:
    """The words of a line; shlex takes 0.1 ms for each, and 10,000 ports have 240,000."""
    return shlex.split(text) if QUOTING.search(text) else text.split()


def _tool(family: Family, flavour: str, what: str) -> str:
    name = f"{'iptables' if family == 4 else 'ip6tables'}-{flavour}-{what}"
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise MissingError(f"{name} is not on this host; bring it with: {INSTALL}")
    return path


def _save(family: Family, flavour: str, *options: str) -> Rules:
    done = ran([_tool(family, flavour, "save"), *options])
    if done.returncode:
        raise _refusal(done.stderr, of="iptables cannot be read")
    tables: Rules = {}
    chains: dict[str, list[Rule]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, *words = _words(line)
            chains[chain].append(tuple(words))
        elif (hidden := INCOMPATIBLE.match(line)) and hidden[1] in ("raw", "nat"):
            raise KernelRefusedError(
                f"{'ip' if family == 4 else 'ip6'} table {hidden[1]}: another program's nftables rules in it keep "
                f"iptables from reading it; see: nft list table {'ip' if family == 4 else 'ip6'} {hidden[1]}. "
                "Nothing was changed. Move those rules to a table of another name, or use the engine nftables"
            )
    return tables


# The tool says so on standard output, with exit code 0, in place of every rule of the table.
INCOMPATIBLE = re.compile(r"# Table `(\w+)' is incompatible")
# What the tools say when the kernel, or their own libraries, have no such thing; all else is a refusal.
LACKS = (
    *("Couldn't load", "No chain/target/match", "Extension", "Protocol not supported", "Table does not exist"),
    "Could not fetch rule set generation id: Invalid argument",  # no nf_tables in the kernel
)


def _refusal(error: str, *, of: str = "iptables refused the commit, nothing of it was applied") -> Exception:
    said = error.strip()
    if "Permission denied" in said or "you must be root" in said or "Operation not permitted" in said:
        return MissingError("changing iptables needs CAP_NET_ADMIN: run as root (sudo swapper ...)")
    if any(lack in said for lack in LACKS):
        return MissingError(
            f"this kernel or its iptables lacks something that the rules need "
            f"(load it: modprobe -a xt_CT xt_MARK xt_nat xt_addrtype xt_comment xt_set xt_time):\n{said}"
        )
    return KernelRefusedError(f"{of}:\n{said}")


@contextmanager
def _xtables_lock() -> Iterator[None]:
    """The lock that every legacy iptables command of this host takes; python-iptables does not."""
    with XTABLES_LOCK.open("a") as handle:
        deadline = time.monotonic() + 5
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise KernelRefusedError(f"{XTABLES_LOCK} was held by another program for 5 s") from None
                time.sleep(0.005)
        yield
