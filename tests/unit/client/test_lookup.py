from collections.abc import Sequence

import pytest

from pipelinehost import lookup
from pipelinehost.errors import InvalidArgument, NotFound
from pipelinehost.v1.resources_pb2 import Artifact, Pipeline, Stage

SALES = Pipeline(
    name="pipelines/sales",
    display_name="Sales",
    stages=[
        Stage(name="pipelines/sales/stages/qa", display_name="Test / EU"),
        Stage(name="pipelines/sales/stages/eu", display_name="Production"),
        Stage(name="pipelines/sales/stages/us", display_name="production"),
    ],
)
FIRST, SECOND = "abcdef0" + "1" * 57, "abcdef1" + "1" * 57


@pytest.mark.parametrize(
    ("text", "slug"),
    [("pipelines/sales/stages/qa", "qa"), ("qa", "qa"), ("Test / EU", "qa"), ("test / eu", "qa"),
     ("Production", "eu"), ("production", "us")],
)  # fmt: skip
def test_a_stage_is_meant_by_name_id_or_display_name(text: str, slug: str) -> None:
    assert lookup.stage(text, SALES).name == f"pipelines/sales/stages/{slug}"


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("pipelines/other/stages/qa", NotFound, "called 'pipelines/other/stages/qa'"),
        ("PRODUCTION", InvalidArgument, "2 stages are called"),
        ("us2", NotFound, "Did you mean us?"),
    ],
)
def test_what_no_stage_or_several_are_called(text: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as raised:
        lookup.stage(text, SALES)
    assert told in f"{raised.value} {getattr(raised.value, 'remedy', '')}"


def test_a_stage_with_its_pipeline() -> None:
    asked: list[str] = []

    def pipeline(text: str) -> Pipeline:
        asked.append(text)
        return SALES

    for text in ("sales/qa", "pipelines/sales/stages/qa", "sales/Test / EU"):
        found, stage = lookup.stage_of(text, pipeline)
        assert (found.name, stage.name) == ("pipelines/sales", "pipelines/sales/stages/qa")
    assert asked == ["sales"] * 3
    with pytest.raises(InvalidArgument, match="does not say which pipeline"):
        lookup.stage_of("qa", pipeline)


def artifacts() -> Sequence[Artifact]:
    return [Artifact(name=f"artifacts/{sha}") for sha in (FIRST, SECOND)]


def test_an_artifact_by_the_beginning_of_its_digest() -> None:
    assert lookup.artifact(FIRST.upper(), list) == f"artifacts/{FIRST}", "a whole digest asks nobody"
    assert lookup.artifact("artifacts/abcdef1", artifacts) == f"artifacts/{SECOND}"
    for text, error in (("abcdef", InvalidArgument), ("abcde", InvalidArgument), ("abcdef2", NotFound)):
        with pytest.raises(error):
            lookup.artifact(text, artifacts)


def test_a_term_says_exactly_the_value() -> None:
    assert lookup.term("solution", 'a"b\\') == r'solution = "a\"b\\"'
