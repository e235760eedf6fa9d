"""Resource names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost import names
from pipelinehost.errors import InvalidArgument

slugs = st.from_regex(names.SLUG, fullmatch=True)


@given(slugs, slugs)
def test_what_is_built_is_read_back(one: str, other: str) -> None:
    assert names.is_slug(one)
    assert names.parse("pipeline", names.pipeline(one)) == (one,)
    assert names.parse("environment", names.environment(one)) == (one,)
    assert names.parse("stage", names.stage(one, other)) == (one, other)
    assert names.slug(names.stage(one, other)) == other


@pytest.mark.parametrize("text", ["", "A", "1a", "-a", "a-", "a_b", "a/b", "a" * 64, "ä", "a\n"])
def test_what_is_no_slug(text: str) -> None:
    assert not names.is_slug(text)
    assert not names.matches("pipeline", f"pipelines/{text}")


def test_a_wrong_name_says_which_field_and_what_form() -> None:
    with pytest.raises(InvalidArgument) as caught:
        names.parse("stage", "pipelines/sales", "deployment.stage")
    assert caught.value.violations[0].subject == "deployment.stage"
    assert "pipelines/{pipeline}/stages/{stage}" in caught.value.message
    with pytest.raises(InvalidArgument, match="is required"):
        names.parse("run", "")
