"""Find the testbed's rules among the machine's iptables rules, and remove them."""

import shutil
from dataclasses import dataclass, field

from tests.cluster.testbed.process import run

FAMILIES = ("iptables", "ip6tables")
POLICIES = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")  # the chains of kube-router, if it was added
OURS = "KUBE-"  # kube-proxy and the kubelet name all their chains so; the pod network adds no rules


@dataclass
class Table:
    """A table from `iptables-save`: its chains, and its rules in order."""

    chains: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)


def tables(family: str) -> dict[str, Table]:
    """Every table of a family by name; none if the machine has no iptables."""
    if shutil.which(f"{family}-save") is None:
        return {}
    found: dict[str, Table] = {}
    for line in run(f"{family}-save").splitlines():
        if line.startswith("*"):
            table = found.setdefault(line[1:], Table())
        elif line.startswith(":"):
            table.chains.append(line[1:].split()[0])
        elif line.startswith("-A"):
            table.rules.append(line)
    return found


def chains() -> list[str]:
    """Every chain of the machine, as FAMILY TABLE CHAIN."""
    return [f"{family} {name} {chain}" for family in FAMILIES for name, table in tables(family).items()
            for chain in table.chains]  # fmt: skip


def rules() -> list[str]:
    """Every rule of the machine, as FAMILY TABLE RULE."""
    return [f"{family} {name} {rule}" for family in FAMILIES for name, table in tables(family).items()
            for rule in table.rules]  # fmt: skip


def ours() -> list[str]:
    """The rules and chains that a cluster made, as FAMILY TABLE RULE-OR-CHAIN."""
    return [f"{family} {name} {line}" for family in FAMILIES for name, table in tables(family).items()
            for line in (*table.chains, *table.rules) if OURS in line]  # fmt: skip


def clean(before: list[str]) -> None:
    """Remove the testbed's rules and chains, except chains that were there before."""
    for family in FAMILIES:
        for name, table in tables(family).items():
            ours = [chain for chain in table.chains if chain.startswith(OURS)]
            remove(family, name, table, [chain for chain in ours if f"{family} {name} {chain}" not in before])


def remove(family: str, name: str, table: Table, doomed: list[str]) -> None:
    """Delete chains with all rules in them and all rules that lead to them, in one transaction."""
    if not doomed:
        return
    leading = [rule for rule in table.rules if rule.split()[1] not in doomed and set(rule.split()) & set(doomed)]
    script = [f"*{name}", *(f"-D{rule[2:]}" for rule in leading)]
    script += [f"-F {chain}" for chain in doomed] + [f"-X {chain}" for chain in doomed] + ["COMMIT", ""]
    run(f"{family}-restore", "--noflush", stdin="\n".join(script))


def remove_policies() -> None:
    """Remove what kube-router, which has ended, made for NetworkPolicies: chains, and sets of addresses."""
    for family in FAMILIES:
        for name, table in tables(family).items():
            remove(family, name, table, [chain for chain in table.chains if chain.startswith(POLICIES)])
    for name in sets():
        run("ipset", "destroy", name)


def sets() -> list[str]:
    """The sets of addresses that kube-router made."""
    listed = run("ipset", "list", "-n").split() if shutil.which("ipset") else []
    return [name for name in listed if name.removeprefix("inet6:").startswith(("KUBE-", "kube-router-"))]
