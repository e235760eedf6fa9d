"""The rules on regions and environments that the product has: each with its own error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.rpc.conftest import DEVELOPMENT, TARGET, Bed, pipeline

from pipelinehost import errors
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Environment, SignIn, Stage

OWN = SignIn(
    method=SignIn.METHOD_CLIENT_SECRET,
    tenant="contoso.example",
    client_id="01234567-89ab-cdef-0123-456789abcdef",
)
QA = "https://qa.crm4.dynamics.com"


def refused(ask: Callable[[], object]) -> list[tuple[str, str]]:
    with pytest.raises(errors.PipelineHostError) as found:
        ask()
    return [(v.subject, v.code) for v in found.value.violations]


def changed(bed: Bed, name: str, **fields: Any) -> Environment:
    request = api.UpdateEnvironmentRequest(environment=Environment(name=f"environments/{name}", **fields))
    request.update_mask.paths.extend(fields)
    answer: Environment = bed.call("UpdateEnvironment", request)
    return answer


def test_a_host_has_no_environment_of_another_region(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "data", region="germany")
    try:
        wrong = [("environment.region", "REGION_MISMATCH")]
        assert refused(lambda: bed.environment("qa", region="canada")) == wrong
        bed.environment("qa", region="germany")
        assert refused(lambda: changed(bed, "qa", region="canada")) == wrong
        bed.environment("unknown")
    finally:
        bed.close()


def test_a_pipeline_stays_in_its_region_where_the_host_names_none(bed: Bed) -> None:
    bed.environment("dev", DEVELOPMENT, region="germany")
    bed.environment("qa", region="canada")
    assert refused(bed.pipeline) == [("pipeline.stages[0].environment", "REGION_MISMATCH")]


@pytest.mark.parametrize("url", [QA, f"{QA}/", "HTTPS://QA.crm4.dynamics.com", f"{QA}:443"])
def test_an_environment_has_one_record(url: str, bed: Bed) -> None:
    bed.environment("qa", url=QA, sign_in=OWN)
    wrong = [("environment.url", "ENVIRONMENT_DUPLICATE")]
    before = bed.snapshot()
    assert refused(lambda: bed.environment("again", DEVELOPMENT, url=url, sign_in=OWN)) == wrong
    assert bed.snapshot() == before
    bed.environment("other", url="https://other.crm4.dynamics.com", sign_in=OWN)
    assert refused(lambda: changed(bed, "other", url=url)) == wrong
    changed(bed, "qa", url=url, description="its own address is no other's")
    bed.environment("embedded")
    bed.environment("embedded-too")


def test_an_environment_is_in_several_pipelines_of_its_host(bed: Bed) -> None:
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    for slug in ("sales", "service"):
        stage = Stage(name=f"pipelines/{slug}/stages/qa", environment="environments/qa")
        bed.pipeline(slug, stages=[stage])


def test_and_once_in_each(bed: Bed) -> None:
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    twice = [Stage(name=f"pipelines/sales/stages/{s}", environment="environments/qa") for s in ("a", "b")]
    both = [Stage(name="pipelines/sales/stages/a", environment="environments/dev")]
    for stages, subject, code in (
        (twice, "pipeline.stages[1].environment", ""),
        (both, "pipeline.stages[0].environment", "ENVIRONMENT_KIND"),
    ):
        request = api.CreatePipelineRequest(pipeline=pipeline(stages=stages))
        assert refused(partial(bed.call, "CreatePipeline", request)) == [(subject, code)]
    other = api.UpdateEnvironmentRequest(environment=Environment(name="environments/dev", kind=TARGET))
    assert refused(lambda: bed.call("UpdateEnvironment", other)) == [("environment.kind", "")]
