"""Owns the audit of what is installed: hashes, known weaknesses, and a list of all parts.

`make audit` runs it. `make hashes` writes hashes.txt, after a change of constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
HASHES = ROOT / "hashes.txt"
SBOM = ROOT / "reports" / "sbom.json"
# A folder of their own, because they bring dependencies that nothing here needs.
TOOLS = ROOT / ".tools" / "audit"
PINNED_TOOLS = ("cyclonedx-bom==7.5.0", "pip-audit==2.10.1", "uv==0.13.9")
HEAD = """\
# SHA-256 of every file of the packages in constraints.txt, as the index lists them.
# Written by `make hashes`, checked by `make audit`. docs/security.md says why pip does not read it.
"""
TIMEOUT_S = 600


def main(arguments: list[str]) -> int:
    """Audit, or with `hashes` write hashes.txt.

    Returns:
        The exit code: 0 if nothing was found, also where the network did not answer.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.audit", description="Audit what is installed."
    )
    parser.add_argument(
        "task", nargs="?", choices=["hashes"], help="hashes: write hashes.txt instead"
    )
    writes_hashes = parser.parse_args(arguments).task == "hashes"
    try:
        prepare()
        if writes_hashes:
            HASHES.write_text(HEAD + index_hashes())
            return 0
    except (subprocess.SubprocessError, OSError) as error:
        print(f"audit: not done, the package index did not answer ({type(error).__name__})")
        return int(writes_hashes)
    found = [*missing_hashes(), *changed_hashes(), *weaknesses()]
    write_sbom()
    for line in found:
        print(f"audit: {line}")
    print(f"audit: {len(found)} findings")
    return min(len(found), 1)


def prepare() -> None:
    """Install the tools, unless they are there.

    Raises:
        subprocess.SubprocessError: the index has not answered.
    """
    if (TOOLS / ".ready").exists() and (TOOLS / ".ready").read_text() == str(PINNED_TOOLS):
        return
    venv.create(TOOLS, with_pip=True, clear=True)
    run([str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", *PINNED_TOOLS])
    (TOOLS / ".ready").write_text(str(PINNED_TOOLS))


def pins(text: str) -> dict[str, str]:
    """Return the version of each package that a file of pins names, by its normalised name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def hashes(text: str) -> dict[str, set[str]]:
    """Return the hashes of each package in a file of the form of hashes.txt."""
    found: dict[str, set[str]] = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        for name in pins(block):
            found[name] = set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
    return found


def missing_hashes() -> list[str]:
    """Return what hashes.txt lacks of constraints.txt, in words; asks nobody."""
    wanted, text = pins(CONSTRAINTS.read_text()), HASHES.read_text()
    known, recorded = pins(text), hashes(text)
    return [
        f"{name} {version} has no hash in hashes.txt: run `make hashes`"
        for name, version in wanted.items()
        if known.get(name) != version or not recorded.get(name)
    ]


def changed_hashes() -> list[str]:
    """Return the pins of which the index offers a file that hashes.txt does not know."""
    try:
        offered = hashes(index_hashes())
    except (subprocess.SubprocessError, OSError):
        print("audit: the hashes were not compared, the package index did not answer")
        return []
    recorded = hashes(HASHES.read_text())
    return [
        f"{name}: the index offers {len(new)} files that were not there when hashes.txt was written"
        for name, files in offered.items()
        if (new := files - recorded.get(name, set()))
    ]


def index_hashes() -> str:
    """Return the pins with the hashes that the index lists."""
    uv = [str(TOOLS / "bin" / "uv"), "pip", "compile", "--quiet", "--universal", "--no-header"]
    options = ["--python-version", "3.11", "--no-deps", "--no-annotate", "--generate-hashes"]
    return run([*uv, *options, str(CONSTRAINTS)])


def weaknesses() -> list[str]:
    """Return the known weaknesses of what hashes.txt names, in words."""
    command = [str(TOOLS / "bin" / "pip-audit"), "--requirement", str(HASHES), "--disable-pip"]
    options = ["--no-deps", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    try:
        asked = json.loads(done.stdout)["dependencies"]
    except ValueError:
        asked = []
    known = [each for each in asked if "vulns" in each]
    if not known:
        print("audit: weaknesses were not asked for, the service of advisories did not answer")
        return []
    if len(known) < len(asked):
        print(f"audit: {len(asked) - len(known)} packages are unknown to the service of advisories")
    return [
        f"{each['name']} {each['version']}: {weakness['id']}, mended in "
        f"{', '.join(weakness['fix_versions']) or 'no version'}"
        for each in known
        for weakness in each["vulns"]
    ]


def write_sbom() -> None:
    """Write the parts of this environment as CycloneDX JSON."""
    SBOM.parent.mkdir(exist_ok=True)
    tool = str(TOOLS / "bin" / "cyclonedx-py")
    run([tool, "environment", sys.executable, "--output-file", str(SBOM)])
    parts = json.loads(SBOM.read_text())["components"]
    print(f"audit: {SBOM.relative_to(ROOT)} lists {len(parts)} parts")


def run(command: list[str]) -> str:
    """Return what a program prints.

    Raises:
        subprocess.SubprocessError: it failed, or took too long.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
