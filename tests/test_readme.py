"""README.md against the code: its tables of verbs, its IAM policy, its links. As a program it rewrites the tables."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from ppe_jupyter.frontends import typed
from ppe_jupyter.verbs import VERBS, Option, Verb
from ppe_jupyter.verbs.options import CLOUD, CLUSTER, DRY_RUN, EVERYONE, FORCE, LINES, SESSION, TIMEOUT, YES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMON = (*CLOUD, CLUSTER, DRY_RUN, EVERYONE, FORCE, LINES, SESSION, TIMEOUT, YES)
SHOWN = 3  # options of a verb, in its row
TABLES = re.compile(r"(?<=<!-- verbs -->\n).*?(?=<!-- end of verbs -->)", re.DOTALL)


def tables() -> str:
    """The verbs as README shows them."""
    groups = {
        "Clusters": [verb for verb in VERBS if "magic" in verb.faces and not verb.name.startswith("remote_")],
        "R, Python and shell on them": [verb for verb in VERBS if verb.name.startswith("remote_")],
        "In a terminal only": [verb for verb in VERBS if "magic" not in verb.faces],
    }
    rows = {name: "\n".join(map(row, verbs)) for name, verbs in groups.items()}
    return "".join(f"\n| {name} | |\n|---|---|\n{text}\n" for name, text in rows.items())


def row(verb: Verb) -> str:
    """How a verb is typed, with ``…`` for more options, and what it does."""
    own = [option for option in verb.options if option not in COMMON]
    words = [positional(option) for option in own if option.nargs]
    options = [typed_as(option) for option in own if option.spellings]
    more = ["…"] if len(options) > SHOWN or len(own) < len(verb.options) else []
    sign = "%" if verb.cell else ""
    program = typed.program(verb, "magic" if "magic" in verb.faces else "cli")
    line = " ".join([sign + program, *words, *options[:SHOWN], *more])
    cells = (f"`{line}`", f"{verb.help}. {verb.detail}".strip())
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def positional(option: Option) -> str:
    """An argument that is known by its place."""
    return {"?": "[{}]", "*": "[{} …]", "1": "{}"}[option.nargs].format(value(option))


def typed_as(option: Option) -> str:
    """An option with its value."""
    shown = value(option) if option.bare is None else f"[{value(option)}]"
    text = option.spellings[0] if option.flag else f"{option.spellings[0]} {shown}"
    return text if option.required else f"[{text}]"


def value(option: Option) -> str:
    """What stands for a value."""
    return "|".join(option.choices) or option.metavar or option.name.upper()


def test_its_verbs_are_those_of_the_table() -> None:
    found = TABLES.search(README.read_text(encoding="utf-8"))
    assert found and found[0] == tables(), "write them anew with: python tests/test_readme.py"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verbs_help_begins_with_the_same_words(verb: Verb) -> None:
    shown = " ".join(typed.help_text(verb, verb.faces[0]).split())
    assert f"{verb.help[1:]}. {verb.detail}".strip() in shown


# --- The policy


def policy() -> dict[str, Any]:
    """The IAM policy, as it stands there."""
    found: dict[str, Any] = json.loads(
        re.findall(r"```json\n(.*?)```", README.read_text(encoding="utf-8"), re.S)[0]
    )
    return found


def clients(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each (service, method or paginator) that the code of cloud/ec2 calls."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and (name := service(node.value)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names[ast.unparse(target)] = name
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name = service(node.func.value) or names.get(ast.unparse(node.func.value))
        first = node.args[0] if node.args else None
        if node.func.attr == "get_paginator":
            assert name and isinstance(first, ast.Constant)
            yield name, str(first.value)
        elif node.func.attr == "_exists":  # Account's, of a thing in IAM
            assert isinstance(first, ast.Constant)
            yield "iam", str(first.value)
        elif name:
            yield name, node.func.attr


def service(node: ast.AST) -> str | None:
    """The service whose client an expression is: ``self._ec2``, ``self._client("iam")``."""
    if isinstance(node, ast.Attribute) and node.attr in ("_ec2", "_sts", "_ssm"):
        return node.attr[1:]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_client":
        assert isinstance(node.args[0], ast.Constant)
        return str(node.args[0].value)
    return None


def calls() -> set[str]:
    """The IAM action of each call; an action's prefix is the name that requests are signed for."""
    room = ROOT / "ppe_jupyter" / "cloud" / "ec2"
    found = {
        call for path in room.glob("*.py") for call in clients(ast.parse(path.read_text(encoding="utf-8")))
    }
    made = {name: boto3.client(name, region_name="us-east-1").meta for name in {name for name, _ in found}}
    return {
        f"{made[name].service_model.signing_name}:{made[name].method_to_api_mapping[method]}"
        for name, method in found
    }


def test_its_policy_allows_what_the_code_calls_and_no_more() -> None:
    statements = policy()["Statement"]
    allowed = [action for statement in statements for action in statement["Action"]]
    assert len(allowed) == len(set(allowed)) and {each["Effect"] for each in statements} == {"Allow"}
    assert set(allowed) == calls()


def test_a_launch_asks_for_no_permission_beyond_it() -> None:
    path = ROOT / "ppe_jupyter" / "cloud" / "planning" / "permissions.py"
    known = boto3.client("ec2", region_name="us-east-1").meta.service_model.operation_names
    words = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    asked = {f"ec2:{operation}" for operation in words & set(known)}
    assert len(asked) > 10 and asked <= {
        action for each in policy()["Statement"] for action in each["Action"]
    }


# --- The rest


def test_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    paths = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text) + re.findall(
        r"`((?:notebooks|tests|ppe_jupyter)/[^`\s]*)`", text
    )
    assert paths and [path for path in paths if not (ROOT / path).exists()] == []


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(TABLES.sub(lambda _: tables(), text), encoding="utf-8")
