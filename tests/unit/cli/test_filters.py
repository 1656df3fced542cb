from __future__ import annotations

import pytest
import typer

from tracelet.cli.filters import Row, parse_condition, parse_sort
from tracelet.journal.load import Run


@pytest.fixture
def row(make_run):
    params = {"lr": 0.01, "text": "0.5", "flag": True, "nothing": None, "a=b": 1, "layers": [1, 2]}
    path = make_run(
        "abc", "Digits MLP", params=params, tags={"team": "vision"}, series={"val/acc": [0.9], "bad": [float("nan")]}
    )
    return Row(Run(path))


@pytest.mark.parametrize(
    "expression",
    [
        "status=finished",
        "status==finished",
        "status!=failed",
        "id=abc",
        "name~digits",
        "name!~cnn",
        "project = default",
        "params.lr=0.010",
        "param.lr<=1e-2",
        "params.lr<0.02",
        "params.text>0.4",
        "params.flag=true",
        "params.nothing=null",
        "params.missing=null",
        "params.missing!=1",
        "params.missing!~1",
        "params.layers=[1, 2]",
        "metric.val/acc>=0.9",
        "metrics.val/acc!=0.8",
        "metric.bad!=1",
        "tag.team=vision",
        "tags.team~VIS",
        "step=0",
        "duration>1m",
        "duration<0.5h",
        "duration=65",
        "started>=2026-09-21",
        "started<2026-09-21 14:14",
    ],
)
def test_these_hold(row, expression):
    assert parse_condition(expression).holds(row)


@pytest.mark.parametrize(
    "expression",
    [
        "status=failed",
        "status!=finished",
        "name~cnn",
        "name!~digits",
        "params.lr>0.01",
        "params.missing>0",
        "params.missing<0",
        "params.missing~null",
        "params.nothing!=null",
        "params.flag>0",
        "metric.bad>0",
        "metric.bad=0",
        "metric.missing>=0",
        "tag.team=",
        "duration>2m",
        "started<2026-09-21",
    ],
)
def test_these_do_not_hold(row, expression):
    assert not parse_condition(expression).holds(row)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "is no comparison"),
        ("finished", "is no comparison"),
        (">5", "is no comparison"),
        ("statsu=finished", "did you mean 'status'"),
        ("params.=1", "there is no key"),
        ("__class__=x", "there is no key"),
        ("step>__import__('os')", "which is no number"),
        ("duration>soon", "'90s', '10m', '1.5h'"),
        ("started>yesterday", "'2026-11-01'"),
    ],
)
def test_what_is_no_comparison_is_refused_with_a_remedy(expression, complaint):
    with pytest.raises(typer.BadParameter) as caught:
        parse_condition(expression)
    assert complaint in str(caught.value)


def test_a_name_may_hold_what_separates_the_direction():
    key, descending = parse_sort("metric.a:b:desc")
    assert ("metric", "a:b", True) == (key.group, key.name, descending)
    key, descending = parse_sort("metric.a:b")
    assert ("a:b", False) == (key.name, descending)
