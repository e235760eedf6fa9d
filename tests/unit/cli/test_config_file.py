"""Environments and pipelines in a YAML file."""

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost import names
from pipelinehost.cli.config_file import Config, ConfigError, _differences, _shown, read, write
from pipelinehost.v1.resources_pb2 import (
    ConnectionReferenceSetting,
    DeploymentSettings,
    Environment,
    EnvironmentVariableSetting,
    Gate,
    Pipeline,
    Stage,
)

GOOD = """\
environments:
  - name: dev
    kind: development
  - name: environments/qa
    kind: target
    url: https://qa.example.com
    installed_apps:
      msdyn_App: "1.0"
pipelines:
  - name: sales
    display_name: "Sales: all of it"
    development_environments: [dev]
    stages:
      - name: qa
        environment: qa
        settings:
          environment_variables:
            - schema_name: contoso_Url
              value: "yes"
"""


def test_a_good_file() -> None:
    config = read(GOOD, "x.yaml")
    assert config.environments == [
        Environment(name="environments/dev", kind=Environment.KIND_DEVELOPMENT),
        Environment(
            name="environments/qa",
            kind=Environment.KIND_TARGET,
            url="https://qa.example.com",
            installed_apps={"msdyn_App": "1.0"},
        ),
    ]
    assert config.pipelines[0].stages[0] == Stage(
        name="pipelines/sales/stages/qa",
        environment="environments/qa",
        settings=DeploymentSettings(
            environment_variables=[EnvironmentVariableSetting(schema_name="contoso_Url", value="yes")]
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("kind: development", "kind: dev", "line 3: `kind` is one of development, target."),
        ("url:", "uri:", "line 6: `uri` is not known here. Do you mean `url`?"),
        ('"1.0"', "1.0", "line 8: `installed_apps.msdyn_App` takes a text: put the value into quotes."),
        ("name: sales", "name: Sales", "line 10: `Sales` is not a name"),
        ("name: sales", "name: 7", "line 10: `name` takes a text"),
        ("[dev]", "dev", "line 12: `development_environments` takes a list."),
        ("[dev]", "[Dev]", "`Dev` is not a name"),
        ('"yes"', "yes", ""),
        ('"yes"', "12", "line 19: `value` takes a text"),
        ("pipelines:", "pipeline:", "line 9: `pipeline` is not known here. Do you mean `pipelines`?"),
        ("    kind: target", "    kind: target\n    kind: target", "line 6: "),
        ("    kind: target", "    etag: x", "line 5: `etag` is set by the host; leave it out."),
        ("  - name: dev", "  - name: qa", "line 4: `qa` stands in this file twice."),
        ("stages:\n", "stages: x\n    other:\n", "line 13: `stages` takes a list."),
        ("        environment: qa", "        environment: []", "line 15: `environment` takes a text"),
        ("        environment: qa", "", "a name is missing"),
        (
            "    display_name:",
            "    allow_redeployment: maybe\n    display_name:",
            "line 11: `allow_redeployment` is true or false.",
        ),
        (
            "    stages:\n",
            "    shares:\n    stages:\n",
            "line 13: `shares` is empty: write `shares: []` to take all away, or leave the key out.",
        ),
        ("name: dev", "name: !!python/object/apply:os.system [x]", "line 2"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, told: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if not told:
        read(text, "x.yaml")
        return
    with pytest.raises(ConfigError) as caught:
        read(text, "x.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("x.yaml, line ")


def test_all_that_is_wrong_comes_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read(GOOD.replace("kind:", "sort:").replace("stages:", "stage:"), "x.yaml")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("text", ["", "- a", "3", "environments: {}", "pipelines: [3]", "a: [", "\x00"])
def test_what_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError):
        read(text, "x.yaml")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
slugs = st.from_regex(names.SLUG, fullmatch=True)
variables = st.builds(EnvironmentVariableSetting, schema_name=texts.filter(bool), value=texts)
references = st.builds(ConnectionReferenceSetting, logical_name=texts.filter(bool), connection_id=texts)
settings = st.builds(
    DeploymentSettings,
    environment_variables=st.lists(variables, max_size=2, unique_by=lambda v: v.schema_name),
    connection_references=st.lists(references, max_size=2, unique_by=lambda r: r.logical_name),
)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    name = f"pipelines/{draw(slugs)}"
    stages = [
        Stage(
            name=f"{name}/stages/{stage}",
            environment=f"environments/{draw(slugs)}",
            display_name=draw(texts),
            settings=draw(st.none() | settings.filter(lambda s: s.ByteSize() > 0)),
        )
        for stage in draw(st.lists(slugs, max_size=3, unique=True))
    ]
    return Pipeline(
        name=name,
        stages=stages,
        display_name=draw(texts),
        description=draw(texts),
        allow_redeployment=draw(st.booleans()),
        development_environments=[f"environments/{e}" for e in draw(st.lists(slugs, max_size=2))],
    )


@hypothesis.settings(deadline=None, max_examples=40)  # writing YAML is slow
@given(st.lists(pipelines(), min_size=1, max_size=2, unique_by=lambda p: p.name))
def test_what_is_written_is_read_back_the_same(found: list[Pipeline]) -> None:
    assert read(write(Config(pipelines=found)), "x.yaml").pipelines == found


def test_what_the_host_sets_is_not_written() -> None:
    pipeline = Pipeline(name="pipelines/sales", etag="x")
    pipeline.create_time.seconds = 5
    assert write(Config(pipelines=[pipeline])) == "pipelines:\n  - name: sales\n"


def test_the_gates_of_a_stage() -> None:
    text = """\
pipelines:
  - name: sales
    stages:
      - name: qa
        environment: qa
        gates:
          - kind: approval
            approvers:
              - ada
              - ben
            required: 2
            timeout_seconds: 86400
"""
    config = read(text, "x.yaml")
    assert config.pipelines[0].stages[0].gates[0] == Gate(
        kind=Gate.KIND_APPROVAL,
        approvers=["principals/ada", "principals/ben"],
        required=2,
        timeout_seconds=86400,
    )
    assert write(config) == text
    assert list(_differences(_shown(Pipeline(name="pipelines/sales")), _shown(config.pipelines[0])))
