"""deploymentSettings.json: read as the ecosystem writes it; every mistake has its JSON path."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost.cli.settings_file import SettingsError, merge, read, template
from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    EnvironmentVariableSetting,
    Setting,
    SettingSource,
)

GOOD = {
    "EnvironmentVariables": [
        {"SchemaName": "contoso_Url", "Value": "https://qa"},
        {"SchemaName": "contoso_Json", "Value": '{"a": 1}'},
    ],
    "ConnectionReferences": [
        {
            "LogicalName": "contoso_Sql",
            "ConnectionId": "0f1e",
            "ConnectorId": "/providers/Microsoft.PowerApps/apis/shared_sql",
        },
        {"LogicalName": "contoso_Mail", "ConnectionId": "2d3c"},
    ],
}


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def problems(tmp_path: Path, content: object) -> str:
    with pytest.raises(SettingsError) as caught:
        read(written(tmp_path, content))
    return str(caught.value).replace(str(tmp_path), "")


def test_a_good_file(tmp_path: Path) -> None:
    settings = read(written(tmp_path, GOOD))
    assert settings == DeploymentSettings(
        environment_variables=[
            EnvironmentVariableSetting(schema_name="contoso_Url", value="https://qa"),
            EnvironmentVariableSetting(schema_name="contoso_Json", value='{"a": 1}'),
        ],
        connection_references=[
            ConnectionReferenceSetting(
                logical_name="contoso_Sql",
                connection_id="0f1e",
                connector_id="/providers/Microsoft.PowerApps/apis/shared_sql",
            ),
            ConnectionReferenceSetting(logical_name="contoso_Mail", connection_id="2d3c"),
        ],
    )


@pytest.mark.parametrize("content", ["{}", '{"EnvironmentVariables": []}', "\ufeff{}"])
def test_a_file_may_hold_nothing_and_begin_with_a_byte_order_mark(tmp_path: Path, content: str) -> None:
    assert read(written(tmp_path, content)) == DeploymentSettings()


def variable(**fields: object) -> dict[str, object]:
    return {
        "EnvironmentVariables": [
            {"SchemaName": "a", "Value": "1"},
            {"SchemaName": "b", "Value": "2"} | fields,
        ]
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (variable(Value=3), "$.EnvironmentVariables[1].Value is a number; values are always text"),
        (variable(Value=True), "$.EnvironmentVariables[1].Value is a boolean"),
        (variable(Value={"x": 1}), "$.EnvironmentVariables[1].Value is an object"),
        (variable(Value=None), "$.EnvironmentVariables[1].Value is null"),
        (variable(value="x"), "$.EnvironmentVariables[1].value is not known. Write it 'Value'."),
        (variable(SchemaName=""), "$.EnvironmentVariables[1].SchemaName must be a text"),
        (variable(SchemaName=5), "$.EnvironmentVariables[1].SchemaName must be a text"),
        (variable(SchemaName="A"), "'A' stands at $.EnvironmentVariables[0] already"),
        ({"EnvironmentVariables": [{"Value": "x"}]}, "$.EnvironmentVariables[0].SchemaName is missing."),
        ({"EnvironmentVariables": [{"SchemaName": "x"}]}, "$.EnvironmentVariables[0].Value is missing."),
        ({"EnvironmentVariables": {"a": "b"}}, "$.EnvironmentVariables is an object, not an array."),
        ({"EnvironmentVariables": ["a"]}, "$.EnvironmentVariables[0] is a text, not an object."),
        (
            {"environmentVariables": []},
            "$.environmentVariables is not known. Write it 'EnvironmentVariables'.",
        ),
        ({"Other": []}, "$.Other is not known. Known are EnvironmentVariables, ConnectionReferences."),
        (
            {"ConnectionReferences": [{"LogicalName": "x"}]},
            "$.ConnectionReferences[0].ConnectionId is missing.",
        ),
        (
            {"ConnectionReferences": [{"LogicalName": "x", "ConnectionId": "1", "ConnectorId": 2}]},
            "$.ConnectionReferences[0].ConnectorId is a number",
        ),
        (
            [{"SchemaName": "x", "Value": "y"}],
            "$ is an array, but the file is one object with two arrays in it.",
        ),
        ("3", "$ is a number, not an object"),
        ('{"EnvironmentVariables": [],}', "line 1, column 29"),
        ('{"EnvironmentVariables": [], "EnvironmentVariables": []}', "'EnvironmentVariables' stands twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_every_mistake_is_told_with_its_path(tmp_path: Path, content: object, told: str) -> None:
    assert told in problems(tmp_path, content)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    told = problems(tmp_path, variable(Value=3) | {"ConnectionReferences": 5, "X": 1}).splitlines()
    assert len(told) == 3


def test_a_wrong_value_is_not_repeated(tmp_path: Path) -> None:
    assert "4711" not in problems(tmp_path, variable(Value=4711))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read(tmp_path / "nope.json")
    (tmp_path / "bytes").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(SettingsError, match="not UTF-8"):
        read(tmp_path / "bytes")


KEYS = ["EnvironmentVariables", "ConnectionReferences", "SchemaName", "Value", "LogicalName", "ConnectionId"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(anything)
def test_whatever_is_in_it_every_problem_has_a_path(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    path = written(tmp_path_factory.getbasetemp(), json.dumps(content))
    told = ""
    try:
        read(path)
    except SettingsError as error:
        told = str(error)
    assert all(line.startswith(f"{path}: $") for line in told.splitlines())


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    merged = merge(read(written(tmp_path, GOOD)), ["CONTOSO_URL=https://x?a=b", "new="], ["contoso_Sql=9"])
    assert [(v.schema_name, v.value) for v in merged.environment_variables] == [
        ("contoso_Url", "https://x?a=b"),
        ("contoso_Json", '{"a": 1}'),
        ("new", ""),
    ]
    assert merged.connection_references[0].connection_id == "9"
    assert merged.connection_references[0].connector_id
    with pytest.raises(SettingsError, match="--set NAME=VALUE"):
        merge(DeploymentSettings(), ["x"], [])
    with pytest.raises(SettingsError, match="--connection REFERENCE=ID"):
        merge(DeploymentSettings(), [], ["=x"])


def setting(name: str, **fields: object) -> Setting:
    return Setting(name=name, kind=Setting.KIND_ENVIRONMENT_VARIABLE, **fields)  # type: ignore[arg-type] # by name


def test_the_template_is_read_back_and_holds_no_secret(tmp_path: Path) -> None:
    target = SettingSource.SETTING_SOURCE_TARGET
    text, remarks = template(
        [
            Setting(
                name="contoso_Sql",
                kind=Setting.KIND_CONNECTION_REFERENCE,
                connector_id="/x/shared_sql",
                candidate_connections=["1", "2"],
            ),
            Setting(name="contoso_Mail", kind=Setting.KIND_CONNECTION_REFERENCE, value="m", source=target),
            setting("contoso_Url", value="https://ü", source=target, type="string"),
            setting("contoso_New", required=True, type="number"),
            setting("contoso_Secret", type="secret", required=True),
            setting("contoso_Held", type="secret", source=target, value="never sent, never written"),
        ]
    )
    settings = read(written(tmp_path, text))
    assert [(v.schema_name, v.value) for v in settings.environment_variables] == [
        ("contoso_Url", "https://ü"),
        ("contoso_New", ""),
        ("contoso_Secret", ""),
    ]
    assert [(r.logical_name, r.connection_id) for r in settings.connection_references] == [
        ("contoso_Sql", ""),
        ("contoso_Mail", "m"),
    ]
    assert "never" not in text
    assert remarks == [
        "contoso_Sql needs a connection: 1, 2",
        "contoso_New (number) needs a value",
        "contoso_Secret (secret) needs a value",
        "contoso_Held is a secret that has a value; it is left out and stays as it is",
    ]


@pytest.mark.parametrize("argument", ["contoso_Url:c4n4ry", "=c4n4ry"])
def test_an_argument_that_cannot_be_read_is_not_repeated(argument: str) -> None:
    with pytest.raises(SettingsError) as refused:
        merge(DeploymentSettings(), [argument], [])
    assert "c4n4ry" not in str(refused.value)
    assert "--set NAME=VALUE" in str(refused.value)
