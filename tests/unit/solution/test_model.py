"""Versions, kinds and keys."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost_dataverse.solution import (
    CODE_BY_KIND,
    KIND_BY_CODE,
    ComponentKey,
    Version,
    kind_of,
    normalised,
)
from pipelinehost_dataverse.solution.kinds import KEYED_BY_NAME, normalised_in, reference

numbers = st.lists(st.integers(0, 10**12), min_size=1, max_size=4)


@given(numbers, numbers)
def test_versions_are_ordered_part_by_part_as_numbers(one: list[int], other: list[int]) -> None:
    padded = [[*parts, *[0] * (4 - len(parts))] for parts in (one, other)]
    first, second = (Version.parse(".".join(map(str, parts))) for parts in (one, other))
    assert (first < second) == (padded[0] < padded[1])
    assert (first == second) == (padded[0] == padded[1])
    assert (first >= second) == (padded[0] >= padded[1])
    if first == second:
        assert hash(first) == hash(second)


@given(numbers, st.sampled_from(["", " ", "\n", "\t "]), st.integers(0, 3))
def test_white_space_and_leading_zeros_do_not_count(parts: list[int], space: str, zeros: int) -> None:
    text = ".".join("0" * zeros + str(part) for part in parts)
    assert Version.parse(space + text + space) == Version.parse(".".join(map(str, parts)))
    assert str(Version.parse(space + text + space)) == text


@given(st.text(max_size=20))
def test_a_version_is_read_or_refused_by_value_error(text: str) -> None:
    with suppress(ValueError):
        version = Version.parse(text)
        assert Version.parse(str(version)) == version


@pytest.mark.parametrize(
    ("lower", "higher"),
    [("1.7.20210707.1", "1.61"), ("1.9", "1.14"), ("1.71.7", "1.72"), ("9.0.4.0066", "9.0.2103.4000 ")],
)
def test_real_pairs(lower: str, higher: str) -> None:
    assert Version.parse(lower) < Version.parse(higher)


@pytest.mark.parametrize("text", ["", ".", "1.", "1.0.0.0.0", "1.x", "-1", "1,0", "v1", "²", "1" * 19])
def test_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="is not a solution version"):
        Version.parse(text)


def test_codes_and_kinds_agree() -> None:
    for code, kind in KIND_BY_CODE.items():
        assert kind_of(str(code)) == kind == kind.lower()
        assert KIND_BY_CODE[CODE_BY_KIND[kind]] == kind
    assert CODE_BY_KIND["entity"] == 1
    assert CODE_BY_KIND["systemform"] == 60
    assert CODE_BY_KIND["connector"] == 372
    assert CODE_BY_KIND["entityrelationship"] == 10
    assert set(CODE_BY_KIND) >= KEYED_BY_NAME


def test_codes_of_an_environment_are_not_known() -> None:
    assert not [code for code in KIND_BY_CODE if code >= 10_000]
    assert "connectionreference" not in CODE_BY_KIND
    assert "bot" not in CODE_BY_KIND
    assert kind_of("10112") == "type 10112"
    assert kind_of(" ConnectionReference ") == "connectionreference"


@pytest.mark.parametrize(
    ("attributes", "kind", "key"),
    [
        ({"type": "1", "schemaName": "admin_App"}, "entity", "admin_app"),
        ({"type": "2", "schemaName": "cts_A", "parentSchemaName": "Account"}, "attribute", "account.cts_a"),
        (
            {"type": "60", "id": "{6DAD0A69-1879-4F73-94AD-3B40FF425429}", "parentSchemaName": "account"},
            "systemform",
            "6dad0a69-1879-4f73-94ad-3b40ff425429",
        ),
        (
            {"type": "connectionreference", "id.connectionreferencelogicalname": "X_Ref"},
            "connectionreference",
            "x_ref",
        ),
        ({"type": "SettingDefinition", "id.uniquename": "AppChannel"}, "settingdefinition", "appchannel"),
        ({"type": "bot", "id.schemaname": "cts_Bot"}, "bot", "cts_bot"),
        ({"type": "thing", "id.name": "A Thing"}, "thing", "a thing"),
        (
            {
                "type": "AppSetting",
                "id.settingdefinitionid.uniquename": "AppChannel",
                "id.parentappmoduleid.uniquename": "cts_App",
            },
            "appsetting",
            "cts_app.appchannel",
        ),
        (
            {"type": "customapirequestparameter", "id.uniquename": "P", "id.customapiid.uniquename": "Api"},
            "customapirequestparameter",
            "api.p",
        ),
        (
            {"type": "372", "schemaName": "cts_conn", "id": "{de4da0c8-bd02-41df-b0da-bbe0290e8fb4}"},
            "connector",
            "cts_conn",
        ),
        (
            {"type": "91", "schemaName": "A.B, Version=1.0.0.0, Culture=neutral", "id": "{x}"},
            "pluginassembly",
            "a.b",
        ),
        ({"type": "10", "schemaName": "A_b", "parentSchemaName": "b"}, "entityrelationship", "a_b"),
        ({"type": "380", "schemaName": "cts_Var"}, "environmentvariabledefinition", "cts_var"),
        ({"type": "61", "schemaName": "msdyn_/Images/x.png"}, "webresource", "msdyn_/images/x.png"),
        ({"type": "62"}, "sitemap", "default"),
        (
            {"type": "20", "id": "{0173E729-2B89-E911-A856-000D3A372932}"},
            "role",
            "0173e729-2b89-e911-a856-000d3a372932",
        ),
        ({"type": "10075", "displayName": "Odd"}, "type 10075", "odd"),
    ],
)
def test_all_spellings_of_a_key(attributes: dict[str, str], kind: str, key: str) -> None:
    found = reference(attributes)
    assert found.identity == ComponentKey(kind, key)
    assert found.type == attributes["type"]


def test_normalised_keys() -> None:
    guid = "{6DAD0A69-1879-4F73-94AD-3B40FF425429}"
    assert normalised(guid) == guid[1:-1].lower()
    assert normalised(" Admin_App ") == "admin_app"
    assert normalised("{not a guid}") == "{not a guid}"
    assert normalised_in("pluginassembly", "A, Version=2.0.0.0") == normalised_in("pluginassembly", "a")


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(key: str) -> None:
    assert normalised(normalised(key)) == normalised(key)
