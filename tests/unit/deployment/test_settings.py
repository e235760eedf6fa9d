"""Settings: five sources, one order, and every value checked before anything is imported."""

import hashlib

import pytest

from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Setting,
    SettingSource,
)
from pipelinehost_dataverse.solution import (
    ConnectionReference,
    EnvironmentVariable,
    Solution,
    VariableType,
    new_manifest,
    read,
    write,
)
from pipelinehost_dataverse.webapi import (
    Connection,
    ConnectionParameter,
    ConnectionReferenceState,
    EnvironmentVariableState,
    VariableParameter,
)
from pipelinehost_server.deployment.settings import Merged, TargetValues, check_value, merge

OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"
TEAMS = "/providers/Microsoft.PowerApps/apis/shared_teams"
KEY_VAULT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v/secrets/n"


def variable(
    name: str = "cts_Var",
    kind: VariableType = VariableType.STRING,
    *,
    default: str | None = None,
    packaged: str | None = None,
    required: bool = True,
) -> EnvironmentVariable:
    packaged_id = None if packaged is None else "00000000-0000-0000-0000-000000000001"
    return EnvironmentVariable(name, "Var", "", kind, default, required, packaged, packaged_id)


def solution(*parts: EnvironmentVariable | ConnectionReference) -> Solution:
    return read(write(new_manifest("Sales", "1.0.0.0", managed=True), *parts))


def state(value: str | None) -> EnvironmentVariableState:
    return EnvironmentVariableState(
        "cts_var", "Var", VariableType.STRING, None, value, "00000000-0000-0000-0000-000000000002", True
    )


def given(value: str, name: str = "cts_Var") -> DeploymentSettings:
    return DeploymentSettings(
        environment_variables=[EnvironmentVariableSetting(schema_name=name, value=value)]
    )


def bound(connection: str, name: str = "cts_Mail") -> DeploymentSettings:
    return DeploymentSettings(
        connection_references=[ConnectionReferenceSetting(logical_name=name, connection_id=connection)]
    )


NOTHING = DeploymentSettings()
EMPTY = TargetValues()


def codes(merged: Merged) -> list[str]:
    return [f.code for f in merged.findings]


@pytest.mark.parametrize(
    ("default", "packaged", "target", "stage", "run", "value", "source"),
    [
        ("d", None, None, None, None, "d", "DEFAULT"),
        ("d", "p", None, None, None, "p", "PACKAGED"),
        ("d", "p", "t", None, None, "t", "TARGET"),
        ("d", "p", "t", "s", None, "s", "STAGE"),
        ("d", "p", "t", "s", "r", "r", "RUN"),
        ("d", None, None, None, "r", "r", "RUN"),
        (None, None, None, None, None, "", "UNSPECIFIED"),
    ],
)
def test_later_sources_win(
    default: str | None,
    packaged: str | None,
    target: str | None,
    stage: str | None,
    run: str | None,
    value: str,
    source: str,
) -> None:
    merged = merge(
        solution(variable(default=default, packaged=packaged)),
        TargetValues(variables=[state(target)] if target else ()),
        given(stage) if stage else NOTHING,
        given(run) if run else NOTHING,
    )
    [setting] = merged.settings
    assert (setting.value, SettingSource.Name(setting.source)) == (value, f"SETTING_SOURCE_{source}")
    sent = [p for p in merged.parameters if isinstance(p, VariableParameter)]
    assert [p.value for p in sent] == ([value] if source in ("STAGE", "RUN") else [])


def test_a_value_row_of_the_target_is_named_so_that_it_is_updated() -> None:
    merged = merge(solution(variable()), TargetValues(variables=[state("old")]), NOTHING, given("new"))
    assert merged.parameters == [VariableParameter("cts_Var", "new", "00000000-0000-0000-0000-000000000002")]


def test_a_required_variable_without_a_value_stops_the_deployment() -> None:
    assert codes(merge(solution(variable()), EMPTY, NOTHING, NOTHING)) == ["VARIABLE_MISSING"]
    assert codes(merge(solution(variable(required=False)), EMPTY, NOTHING, NOTHING)) == [
        "VARIABLE_WITHOUT_VALUE"
    ]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (VariableType.NUMBER, ["1", "-0.5", "1e3", " 7 "], ["", "one", "1,5", "0x10", "NaN", "inf"]),
        (VariableType.BOOLEAN, ["yes", "no", "True"], ["1", "", "ja"]),
        (VariableType.JSON, ["{}", "[1]", '"x"'], ["", "{", "{'a': 1}"]),
        (VariableType.SECRET, [KEY_VAULT], ["hunter2", "", "https://v.example/secrets/n"]),
        (VariableType.STRING, ["", "anything"], []),
    ],
)
def test_values_are_checked_by_type(kind: VariableType, good: list[str], bad: list[str]) -> None:
    assert [check_value(kind, v) for v in good] == [""] * len(good)
    assert all(check_value(kind, v) for v in bad)


def test_a_wrong_value_is_named_but_never_shown() -> None:
    merged = merge(solution(variable(kind=VariableType.SECRET)), EMPTY, NOTHING, given("hunter2"))
    assert codes(merged) == ["VARIABLE_TYPE"]
    assert "hunter2" not in str(merged.findings) + str(merged.settings)


def test_what_is_stored_has_no_values() -> None:
    merged = merge(solution(variable()), EMPTY, NOTHING, given("canary-value"))
    stored = merged.stored(lambda text: hashlib.sha256(text.encode()).hexdigest())
    assert "canary-value" not in str(stored)
    assert len(stored[0].sha256) == 64


def test_the_digest_over_all_settings_sees_every_value_and_source() -> None:
    def digest(stage: DeploymentSettings, run: DeploymentSettings) -> str:
        return merge(solution(variable()), EMPTY, stage, run).sha256(lambda text: text)

    assert digest(NOTHING, given("a")) != digest(NOTHING, given("b"))
    assert digest(NOTHING, given("a")) != digest(given("a"), NOTHING)
    assert digest(NOTHING, given("a")) == digest(given("b"), given("a"))


MAIL = ConnectionReference("cts_Mail", "Mail", "", OFFICE)


def test_a_connection_reference_needs_a_connection() -> None:
    connections = [Connection("c1", OFFICE, "Me", "Connected"), Connection("c2", TEAMS, "Me", "Connected")]
    merged = merge(solution(MAIL), TargetValues(connections=connections), NOTHING, NOTHING)
    assert codes(merged) == ["CONNECTION_MISSING"]
    assert list(merged.settings[0].candidate_connections) == ["c1"]
    assert "c1" in merged.findings[0].remedy
    assert merged.settings[0].kind == Setting.KIND_CONNECTION_REFERENCE


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (Connection("c1", OFFICE.upper(), "Me", "Connected"), []),
        (Connection("C1", OFFICE, "Me", "Connected"), []),
        (Connection("c1", TEAMS, "Me", "Connected"), ["CONNECTOR_MISMATCH"]),
        (Connection("c1", OFFICE, "Me", "Error"), ["CONNECTION_BROKEN"]),
        (Connection("c9", OFFICE, "Me", "Connected"), ["CONNECTION_NOT_FOUND"]),
    ],
)
def test_connectors_are_matched(connection: Connection, expected: list[str]) -> None:
    merged = merge(solution(MAIL), TargetValues(connections=[connection]), NOTHING, bound("c1"))
    assert codes(merged) == expected
    assert merged.parameters == [ConnectionParameter("cts_Mail", "c1", OFFICE, "Mail", "")]


def test_a_connection_that_the_target_has_already_is_not_sent_again() -> None:
    target = TargetValues(
        references=[ConnectionReferenceState("cts_mail", "Mail", OFFICE, "c1")],
        connections=[Connection("c1", OFFICE, "Me", "Connected")],
    )
    merged = merge(solution(MAIL), target, NOTHING, NOTHING)
    assert (codes(merged), merged.parameters) == ([], [])
    assert merged.settings[0].source == SettingSource.SETTING_SOURCE_TARGET


def test_where_connections_cannot_be_listed_a_warning_says_so() -> None:
    assert codes(merge(solution(MAIL), EMPTY, NOTHING, bound("c1"))) == ["CONNECTION_UNCHECKED"]


def test_a_setting_of_the_run_that_nothing_takes_is_named_with_its_path() -> None:
    run = DeploymentSettings(
        environment_variables=[
            EnvironmentVariableSetting(schema_name="cts_Var", value="x"),
            EnvironmentVariableSetting(schema_name="cts_Vra", value="x"),
        ]
    )
    merged = merge(solution(variable()), EMPTY, NOTHING, run)
    assert codes(merged) == ["SETTING_UNUSED"]
    assert merged.findings[0].subject.name == "$.EnvironmentVariables[1]"
    assert "cts_Var" in merged.findings[0].remedy


def test_a_stage_may_hold_settings_of_other_solutions() -> None:
    assert codes(merge(solution(variable(default="d")), EMPTY, given("x", "other"), NOTHING)) == []


def test_names_are_compared_without_letter_case() -> None:
    merged = merge(solution(variable()), EMPTY, given("s", "CTS_VAR"), given("r", "cts_var"))
    assert merged.settings[0].value == "r"
    assert codes(merged) == []
