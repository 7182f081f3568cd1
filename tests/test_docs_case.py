"""docs/case.md says what the code does: its tables are made here from the code, and compared.

After a change of a key, a default or a docstring: python tests/test_docs_case.py
"""

import inspect
import re
from pathlib import Path

import pytest

from gno.graph import SampleSpec
from gno.nn import OperatorConfig
from gno.nn.config import PRESETS
from gno.train import Case, Data, Model, Training, load_case
from gno.train.blueprint import DENSE
from gno.train.sections import Part, Physics, Time, Uncertainty, hierarchy_knobs, operator_knobs

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "case.md"


def arguments(docstring: str) -> dict[str, str]:
    """Name → text of the ``Args:`` of a docstring; names that share a line share its text."""
    block = re.split(r"\n\s*\n|\n\s*(?:Returns|Raises):", inspect.cleandoc(docstring).split("Args:")[1])[0]
    text = " ".join(block.split())
    found = {}
    parts = re.split(r"(?:^|(?<=[.;]) )((?:\w+, )*\w+): ", text)[1:]
    for names, meaning in zip(parts[::2], parts[1::2], strict=True):
        found |= dict.fromkeys(names.split(", "), meaning.strip().rstrip("."))
    return found


def values(schema: dict) -> str:
    """What a key may hold, from its JSON schema."""
    if "anyOf" in schema:
        return values(schema["anyOf"][0])
    if schema["type"] == "object":
        return "table"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        if schema.get("items", {}).get("type") == "number":
            return f"list of {values(schema['items']).replace('number', 'numbers')}"
        return "three numbers 0 … 1" if "prefixItems" in schema else "name or list of names"
    low = next(
        (f"{sign} {schema[k]:g}" for k, sign in (("minimum", "≥"), ("exclusiveMinimum", ">")) if k in schema), ""
    )
    high = next(
        (f"{sign} {schema[k]:g}" for k, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if k in schema), ""
    )
    kind = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}[schema["type"]]
    return " ".join(part for part in (kind, low, high) if part)


def default(value: object) -> str:
    if value is None or value in ((), {}):
        return ""
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    shown = list(shown) if isinstance(shown, tuple) else shown
    return f"`{shown:g}`" if isinstance(shown, float) else f"`{shown}`"


def section(part: type[Part]) -> list[str]:
    """Table of the declared keys of one section."""
    schema, meaning = part.model_json_schema()["properties"], arguments(part.__doc__ or "")
    rows = ["| key | value | default | |", "| --- | --- | --- | --- |"]
    for key, field in part.model_fields.items():
        given = "**required**" if field.is_required() else default(field.default)
        kind = "folder" if key in ("folder", "cache") else values(schema[key])
        rows.append(f"| `{key}` | {kind} | {given} | {meaning[key].replace('``', '`')} |")
    return rows


def knobs() -> list[str]:
    """Table of the keys of [model] besides its size."""
    meaning = {**arguments(OperatorConfig.__doc__ or ""), **arguments(SampleSpec.fit.__doc__ or "")}
    fitted = inspect.signature(SampleSpec.fit).parameters
    usual = {name: fitted[name].default for name in hierarchy_knobs()}
    usual |= {name: OperatorConfig.__dataclass_fields__[name].default for name in operator_knobs()}
    # Training sees the meshes and chooses these.
    for name, place in (("key_level", ""), ("mesh_key_level", ", and not below 2")):
        usual[name] = None
        meaning[name] += f"; by default as fine as leaves at most {DENSE} anchors to attend to in every mesh{place}"
    rows = [
        "| key | " + " | ".join(f"`{size}`" for size in PRESETS) + " | |",
        "| --- |" + " --- |" * (len(PRESETS) + 1),
    ]
    for name, value in usual.items():
        sizes = [default(preset.get(name, value)) for preset in PRESETS.values()]
        rows.append(f"| `{name}` | {' | '.join(sizes)} | {meaning[name].replace('``', '`')} |")
    return rows


TABLES = {
    "data": section(Data),
    "model": knobs(),
    "training": section(Training),
    "physics": section(Physics),
    "time": section(Time),
    "uncertainty": section(Uncertainty),
}


def page_with_tables(page: str) -> str:
    """The page with each table between its two marks made anew."""
    for name, rows in TABLES.items():
        marks = (f"<!-- {name} -->", f"<!-- end of {name} -->")
        pattern = f"({re.escape(marks[0])}\n).*?({re.escape(marks[1])})"
        page, count = re.subn(pattern, lambda m, rows=rows: m[1] + "\n".join(rows) + "\n" + m[2], page, flags=re.S)
        assert count == 1, f"{PAGE}: expected the marks {marks} once, got {count}"
    return page


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_those_of_the_code(name):
    page = PAGE.read_text(encoding="utf-8")
    expected = page_with_tables(page)
    assert page == expected, "run: python tests/test_docs_case.py"
    assert all(row.count("|") == TABLES[name][0].count("|") for row in TABLES[name])


def test_every_key_is_explained():
    for part in (Data, Training, Physics, Time, Uncertainty):
        assert set(part.model_fields) <= set(arguments(part.__doc__ or ""))
    known = {**arguments(SampleSpec.fit.__doc__ or ""), **arguments(OperatorConfig.__doc__ or "")}
    assert {*hierarchy_knobs(), *operator_knobs()} <= set(known)
    assert set(Case.model_fields) == set(TABLES)
    assert set(Model.model_fields) == {"size"}


@pytest.mark.parametrize("page", ["README.md", "docs/case.md"])
def test_cases_in_the_pages_are_valid(page, tmp_path):
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
    assert examples
    for example in examples:
        (tmp_path / "case.toml").write_text(example, encoding="utf-8")
        assert load_case(tmp_path / "case.toml").data.targets


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
