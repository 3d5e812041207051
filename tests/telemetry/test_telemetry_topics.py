"""The topic tree: names as in the YAML, and nothing a broker would treat specially."""

from __future__ import annotations

import re
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.scalars import PointName, Slug
from agent.telemetry import topics as topics_module
from agent.telemetry.errors import TelemetryError, TopicError
from agent.telemetry.topics import MAX_TOPIC, Topics, checked

SLUGS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z")
NAMES = st.from_regex(r"\A[a-z][a-z0-9_]{0,62}\Z")


def test_the_tree_is_the_documented_one() -> None:
    topics = Topics("hq-berlin", "gateway-1")
    east = topics.unit("office-east")
    assert topics.status == "poet/v1/hq-berlin/gateway-1/status"
    assert topics.info == "poet/v1/hq-berlin/gateway-1/info"
    assert topics.telemetry == "poet/v1/hq-berlin/gateway-1/telemetry"
    assert east.meta == "poet/v1/hq-berlin/gateway-1/office-east/meta"
    assert east.snapshot == "poet/v1/hq-berlin/gateway-1/office-east/snapshot"
    assert east.learn == "poet/v1/hq-berlin/gateway-1/office-east/learn"
    assert east.event == "poet/v1/hq-berlin/gateway-1/office-east/event"
    assert east.point("zone_temp") == "poet/v1/hq-berlin/gateway-1/office-east/point/zone_temp"
    assert east.interlock("freeze_protection") == "poet/v1/hq-berlin/gateway-1/office-east/interlock/freeze_protection"


BAD_SLUGS = ["", "+", "#", "a/b", "A", "a_b", "-a", "a-", "a b", "ä", "a\n", "\x00", "$sys", "a" * 65]


@pytest.mark.parametrize("bad", BAD_SLUGS)
def test_a_bad_site_agent_or_unit_is_refused_by_name(bad: str) -> None:
    with pytest.raises(TopicError, match="site"):
        Topics(bad, "gw")
    with pytest.raises(TopicError, match="agent"):
        Topics("site", bad)
    with pytest.raises(TopicError, match="unit"):
        Topics("site", "gw").unit(bad)


@pytest.mark.parametrize("bad", ["", "+", "#", "a/b", "A", "a-b", "1a", "_a", "a b", "ä", "a\n", "a" * 64])
def test_a_bad_point_or_interlock_is_refused_by_name(bad: str) -> None:
    unit = Topics("site", "gw").unit("zone")
    with pytest.raises(TopicError, match="point"):
        unit.point(bad)
    with pytest.raises(TopicError, match="interlock"):
        unit.interlock(bad)


@given(site=SLUGS, agent=SLUGS, unit=SLUGS, name=NAMES)
def test_whatever_the_configuration_accepts_is_a_topic(site: str, agent: str, unit: str, name: str) -> None:
    topics = Topics(site, agent)
    for topic in (
        topics.status,
        topics.unit(unit).snapshot,
        topics.unit(unit).point(name),
        topics.unit(unit).interlock(name),
    ):
        assert checked(topic) == topic
        assert topic.count("/") <= 6
        assert len(topic.encode()) == len(topic) < MAX_TOPIC


@given(st.text(max_size=40))
def test_no_text_brings_a_wildcard_or_a_level_in(text: str) -> None:
    try:
        topic = Topics("site", "gw").unit("zone").point(text)
    except TopicError:
        return
    assert re.fullmatch(r"poet/v1/site/gw/zone/point/[a-z][a-z0-9_]*", topic)


@pytest.mark.parametrize(
    "bad", ["", "/", "a//b", "a/", "/a", "a/+/b", "a/#", "a b", "A/b", "a/\x00", "$sys/x", "a/b\n", "a" * 513]
)
def test_checked_refuses_what_is_no_topic_of_the_tree(bad: str) -> None:
    with pytest.raises(TopicError):
        checked(bad)


def test_the_patterns_are_those_of_the_configuration() -> None:
    def pattern(annotated: object) -> str:
        return next(entry.pattern for field in typing.get_args(annotated)[1:] for entry in field.metadata)

    assert pattern(Slug) == f"^{topics_module._SLUG.pattern}$"
    assert pattern(PointName) == f"^{topics_module._NAME.pattern}$"


def test_topic_errors_belong_to_the_tree_of_errors() -> None:
    assert issubclass(TopicError, TelemetryError)
