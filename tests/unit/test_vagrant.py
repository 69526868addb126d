"""What of the virtual machine can be told without one: the files parse, agree with each other and with `dev`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VAGRANT = ROOT / "vagrant"
VAGRANTFILES = (VAGRANT / "Vagrantfile", VAGRANT / "stand-in/Vagrantfile")
SCRIPTS = sorted(path for path in VAGRANT.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh\n"))


def name(path: Path) -> str:
    return str(path.relative_to(VAGRANT))


def says(*argv: str | Path) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assigned(script: str, variable: str) -> str:
    """The value that a script of vagrant/ gives to a variable."""
    found = re.search(rf"^{variable}=(\S+)", (VAGRANT / script).read_text(), re.MULTILINE)
    assert found
    return found[1]


def among(programs: dict[str, str], folder: Path) -> dict[str, str]:
    """An environment in which each of the named programs is these lines of shell."""
    folder.mkdir(exist_ok=True)
    for program, lines in programs.items():
        (folder / program).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / program).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def run_among(programs: dict[str, str], folder: Path, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command among such programs."""
    return subprocess.run(argv, env=among(programs, folder), capture_output=True, text=True, check=False)


if shutil.which("ruby"):  # not among what `dev` installs

    @pytest.mark.parametrize("path", VAGRANTFILES, ids=name)
    def test_vagrantfiles_are_ruby(path: Path) -> None:
        assert says("ruby", "-c", path) == "Syntax OK\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_are_shell_and_can_be_run(path: Path) -> None:
    says("sh", "-n", path)
    assert os.access(path, os.X_OK)


if shutil.which("shellcheck"):  # nor is this

    @pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "dev"], ids=lambda path: path.name)
    def test_shellcheck_finds_nothing(path: Path) -> None:
        assert says("shellcheck", "-x", "--source-path", ROOT, path) == ""


def test_the_machine_is_provisioned_by_the_install_step_of_dev() -> None:
    shell = re.search(r"inline: <<~SHELL\n(.*?)\n *SHELL", VAGRANTFILES[0].read_text(), re.DOTALL)
    assert shell
    assert "./dev install" in shell[1]
    assert not re.search(r"apt|pip|venv", shell[1])


def test_what_is_made_here_never_reaches_the_machine() -> None:
    listed = re.search(r"NOT_SYNCED = %w\[(.*?)\]", VAGRANTFILES[0].read_text(), re.DOTALL)
    assert listed
    assert set(listed[1].split()) >= {"/.git/", "/.venv/", "/.tools/", "/results/"}


def test_the_stand_in_stands_in_for_a_box_that_users_get() -> None:
    assert f'libvirt: "{assigned("ground", "NAME")}"' in VAGRANTFILES[0].read_text()


def test_dev_lists_the_packages_that_a_box_has_to_bring() -> None:
    listed = says(ROOT / "dev", "packages").split()
    assert listed
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package) for package in listed)


@pytest.mark.parametrize(
    ("fails", "left", "code"),
    [
        ("", "", 0),
        ("*true*) exit 3 ;;", "", 3),
        ("*up) exit 4 ;;", "", 4),
        ("*sch_netem*) exit 6 ;;", "", 6),
        ("*--force) exit 5 ;;", "", 5),
        ("*true*) exit 3 ;; *--force) exit 5 ;;", "swapper_debian", 3),
        ("", "swapper_debian", 1),
    ],
)
def test_a_session_destroys_its_machine_and_ends_with_the_first_failure(
    tmp_path: Path, fails: str, left: str, code: int
) -> None:
    (box := tmp_path / "trixie.box").touch()
    programs = {"vagrant": f'echo "$*"; case "$*" in {fails} esac', "virsh": f"echo asked >&2; echo {left}"}
    done = run_among(programs, tmp_path / "bin", VAGRANT / "session", box, "debian/trixie64", "true")
    assert done.returncode == code, done.stderr
    assert done.stdout.endswith("--no-tty destroy --force\n")
    assert ("ssh --no-tty -c 'true'" in done.stdout) == (code not in {4, 6})
    assert "asked" in done.stderr
    assert ("still there: swapper_debian" in done.stderr) == bool(left)


def test_results_come_back_after_whatever_vagrant_has_to_remark(tmp_path: Path) -> None:
    shutil.copytree(VAGRANT, tmp_path / "host/vagrant")
    (tmp_path / "machine/results").mkdir(parents=True)
    (tmp_path / "machine/results/found.json").write_text("{}")
    inside = f'cd {tmp_path}/machine; eval "$(echo "$5" | sed \'s,cd /vagrant,true,\')"'
    vagrant = {"vagrant": f'test "$*" = "ssh debian --no-tty -c $5" || exit 2; echo "==> debian: a remark"; {inside}'}
    done = run_among(vagrant, tmp_path / "bin", tmp_path / "host/vagrant/results-back")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "host/results/found.json").read_text() == "{}"


def test_where_no_machine_is_no_results_come_back(tmp_path: Path) -> None:
    done = run_among({"vagrant": "exit 1"}, tmp_path / "bin", VAGRANT / "results-back", "nowhere", "if-any")
    assert (done.returncode, done.stdout) == (0, "no machine nowhere, and no results of one\n")


GROUND = """
set -eu
project=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
work=$project/work
. "$project/vagrant/steps"
box() { building=$2; mkdir "$work/tree" || building=unbuilt; }
studio() { mkdir -p "$work/studio/etc/libvirt/qemu"; }
finish() { case " $UNBUILT unbuilt " in *" $building "*) return 7 ;; esac; rmdir "$work/tree"; }
session() {
    definition=$work/studio/etc/libvirt/qemu/swapper_debian.xml
    [ ! -e "$definition" ] || return 8
    : >"$definition"
    case " $SILENT " in *" $building "*) return 3 ;; esac
    : >"results/kernels/$building.json"
}
"""


@pytest.mark.parametrize(
    ("unbuilt", "silent", "code", "table"),
    [
        ("", "", 0, "--into=README.md bullseye bookworm trixie"),
        ("bullseye", "", 7, "bookworm trixie"),
        ("", "bookworm", 3, "bullseye trixie"),
        ("bookworm", "bullseye", 3, "trixie"),
        ("bullseye bookworm trixie", "", 7, ""),
    ],
)
def test_a_kernel_that_fails_does_not_hide_the_others_but_keeps_the_table_out_of_readme(
    tmp_path: Path, unbuilt: str, silent: str, code: int, table: str
) -> None:
    """What is checked is `matrix`, on a ground where nobody destroys the machines."""
    for folder in ("vagrant", "work", "results/kernels", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for script in ("matrix", "steps"):
        shutil.copy(VAGRANT / script, tmp_path / "vagrant")
    (tmp_path / "vagrant/ground").write_text(f"UNBUILT='{unbuilt}'\nSILENT='{silent}'\n{GROUND}")
    done = run_among({"swapper-harness": 'echo "$*"'}, tmp_path / ".venv/bin", tmp_path / "vagrant/matrix")
    assert done.returncode == code, done.stderr
    words = re.sub(r"results/kernels/(\w+)\.json", r"\1", done.stdout)
    assert words == (f"kernels {table}\n" if table else "")
    for kernel in f"{unbuilt} {silent}".split():
        assert f"nothing was found out about {kernel}" in done.stderr


def test_a_folder_has_one_lock_by_whatever_name(tmp_path: Path) -> None:
    (folder := tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(folder)
    names = re.findall(r"^(?:work|LOCK)=.*$", (VAGRANT / "ground").read_text(), re.MULTILINE)
    script = "\n".join(['cd "$1"', "SWAPPER_VM_FOLDER=$2", *names, 'echo "$work $LOCK"'])
    told = {says("sh", "-c", script, "sh", tmp_path, name) for name in (folder, f"{folder}/", "folder", "link")}
    assert told == {f"{folder} /run/swapper-vm{str(folder).replace('/', '-')}.lock\n"}


def test_an_interrupt_while_it_tidies_up_leaves_nothing_behind_either(tmp_path: Path) -> None:
    shutil.copy(VAGRANT / "steps", tmp_path)
    ground = (VAGRANT / "ground").read_text().replace("LOCK=/run/", f"LOCK={tmp_path}/")
    (tmp_path / "ground").write_text(ground)
    (tmp_path / "interrupted").write_text(". ${0%/*}/ground; : >$work/box; kill -INT $$")
    removes = 'test -e "$3/box" && echo removing && read -r _; exec /bin/rm "$@"'
    programs = {"rm": removes, "ip": "", "nft": "", "iptables-save": "", "ip6tables-save": ""}
    env = {**among(programs, tmp_path / "bin"), "SWAPPER_VM_FOLDER": str(tmp_path / "work")}
    words, pipe = ["sh", str(tmp_path / "interrupted")], subprocess.PIPE
    with subprocess.Popen(words, env=env, stdin=pipe, stdout=pipe, process_group=0) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"removing\n"
        os.killpg(run.pid, signal.SIGINT)
        run.communicate()
    assert run.returncode == 130
    assert not (tmp_path / "work").exists()


def test_a_kernel_of_another_suite_comes_by_a_source_that_names_its_keyring(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    hook = f'for word; do case $word in --setup-hook=*) sh -c "${{word#*=}}" sh "{tmp_path}" ;; esac; done; exit 9'
    done = run_among({"unshare": hook}, tmp_path / "bin", VAGRANT / "box", "bookworm", tmp_path / "box", "bullseye")
    assert done.returncode == 9, done.stderr
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source = (tmp_path / "etc/apt/sources.list.d/kernel.list").read_text()
    assert source == f"deb [signed-by={keyring}] http://deb.debian.org/debian bullseye main\n"
