"""The YAML reader: the rules of YAML 1.2, faults with their places, and bounds on what a hostile file can cost."""

from __future__ import annotations

import itertools
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.yaml_faults import examine
from agent.config.yaml_tree import MAX_DEPTH, MAX_NODES, OddTextError, parse, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("False", False),
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("y", "y"),
        ("12", 12), ("-3", -3), ("+4", 4), ("0777", 777), ("0o17", 15), ("0x1F", 31),
        ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("-2.5E-1", -0.25), (".inf", math.inf), ("-.INF", -math.inf),
        ("12:30", "12:30"), ("1_000", "1_000"), ("2024-01-01", "2024-01-01"), ("5s", "5s"), ("-", "-"), (".", "."), ("+", "+"),
        ("9" * 301, "9" * 301), ("0b11", "0b11"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(scalar(".nan"))  # type: ignore[arg-type]


def test_quoted_scalars_stay_text() -> None:
    assert parse("a: '1'\nb: \"true\"\nc: |\n  12\n") == {"a": "1", "b": "true", "c": "12\n"}


def test_keys_are_text() -> None:
    assert parse("1: a\non: b\ntrue: c\n~: d") == {"1": "a", "on": "b", "true": "c", "~": "d"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n...\n"])
def test_an_empty_document_is_nothing(text: str) -> None:
    assert parse(text) is None
    assert examine(text).value is None
    assert examine(text).faults == []


def test_a_document_may_be_a_single_scalar() -> None:
    assert parse("5s") == "5s"
    assert parse("[1, [2]]") == [1, [2]]


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc *&!-:,'\"\n\t{}[]#äß")
trees = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text("abcd -"), inner), max_leaves=20)


@given(trees)
def test_both_ways_read_what_a_dumper_wrote(tree: object) -> None:
    # As JSON, which is YAML: PyYAML's own style writes 1.1 forms such as 1.0e+16.
    text = yaml.safe_dump(tree, default_flow_style=True, default_style='"' if isinstance(tree, str) else None)
    examined = examine(text)
    if "!!" not in text and "\n..." not in text:
        assert examined.faults == []
        assert parse(text) == examined.value


@given(st.text("ab:-[]{}&*!|>'\"#%@`,? \n\t\x07é", max_size=40))
def test_any_text_is_a_value_or_a_fault_and_both_ways_agree(text: str) -> None:
    examined = examine(text)
    try:
        value = parse(text)
    except OddTextError:
        if not examined.faults:
            assert "*" in text or "!" in text  # aliases and the empty tag are legal, but left to the slow way
        return
    assert examined.faults == []
    assert examined.value == value
    lines = text.count("\n") + 1
    assert all(fault.line <= lines for fault in examined.faults)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: {c: 1, c: 2}", 1, 10, "the key 'c' is given twice: line 2 has it too"),
        ("a: !!python/object/apply:os.system [x]", 0, 3, "the tag !!python/object/apply:os.system is not allowed here"),
        ("a: !local 1", 0, 3, "the tag !local is not allowed here"),
        ("? [a]\n: 1", 0, 2, "a key must be a plain word, not a list or a mapping"),
        ("a\n---\nb", 1, 0, "not valid YAML: but found another document (expected a single document in the stream)"),
        ("a: *nope", 0, 3, "not valid YAML: found undefined alias"),
        ("a: b: c", 0, 4, "not valid YAML: mapping values are not allowed in this context"),
        ("é: \x07", 0, 3, "not valid YAML: control characters are not allowed"),
    ],
)
def test_faults_have_places(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(OddTextError):
        parse(text)
    fault = examine(text).faults[0]
    assert (fault.line, fault.column, fault.message) == (line, column, message)
    assert fault.remedy


def test_every_duplicate_is_reported_and_the_first_value_kept() -> None:
    examined = examine("a: 1\na: 2\nb: {c: 3, c: 4}\n")
    assert examined.value == {"a": 1, "b": {"c": 3}}
    assert [(fault.line, fault.column) for fault in examined.faults] == [(1, 0), (2, 10)]


def test_aliases_are_allowed() -> None:
    examined = examine("a: &x {b: 1}\nc: *x\n")
    assert examined.faults == []
    assert examined.value == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_alias_bomb_is_refused() -> None:
    names = "abcdefghij"
    text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise(names)
    )
    faults = examine(text).faults
    assert [fault.message for fault in faults] == [f"more than {MAX_NODES:,} values, aliases included"]


def test_an_alias_to_itself_is_refused() -> None:
    assert [fault.message for fault in examine("a: &x [*x]").faults] == [f"nested more than {MAX_DEPTH} levels deep"]


@pytest.mark.parametrize("brackets", ["[", "{a: "])
def test_deep_nesting_is_refused_before_the_stack_overflows(brackets: str) -> None:
    text = brackets * 1_000_000
    with pytest.raises(OddTextError):
        parse(text)
    assert [fault.message for fault in examine(text).faults] == [f"nested more than {MAX_DEPTH} levels deep"]


def test_nesting_up_to_the_limit_is_read() -> None:
    depth = MAX_DEPTH - 1
    text = "[" * depth + "1" + "]" * depth
    assert examine(text).faults == []
    assert parse(text) == examine(text).value
