"""Going back: what is lost is said exactly, has to be accepted exactly, and nothing else is imported."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.deployment.conftest import Host, once
from tests.unit.deployment.test_gates import approve, gate, guard, reject, rests

from pipelinehost.errors import Aborted, InvalidArgument
from pipelinehost.v1.pipeline_host_pb2 import DeployRequest, RetryRunRequest
from pipelinehost.v1.resources_pb2 import Event, Finding, Pipeline, Run, Stage
from pipelinehost_dataverse.solution import (
    Column,
    Component,
    ComponentKey,
    ConnectionReference,
    EnvironmentVariable,
    Part,
    Solution,
    Table,
    VariableType,
    WebResource,
    cloud_flow,
    new_manifest,
    read,
    rewrite,
    write,
)
from pipelinehost_dataverse.webapi import InstalledComponent, InstalledSolution, OperationState, WebApi
from pipelinehost_server.deployment import gates, loss

OFFICE = "/providers/Microsoft.PowerApps/apis/shared_office365"
QA = "pipelines/sales/stages/qa"


def build(version: str, *parts: Part) -> bytes:
    return write(new_manifest("Sales", version, managed=True), *parts)


def table(*columns: Column, name: str = "cts_order") -> Table:
    return Table(name, columns=columns)


def number(name: str, default: str) -> EnvironmentVariable:
    return EnvironmentVariable(name, name, "", VariableType.NUMBER, default)


OLD = build(
    "1.0.0.0",
    table(Column("cts_amount"), Column("cts_note"), Column("cts_gone")),
    number("cts_limit", "10"),
    WebResource("cts_/order.js", b"old()"),
    WebResource("cts_/gone.js", b"gone()"),
    cloud_flow("Remind", environment_variables=["cts_limit"]),
)
NEW = build(
    "2.0.0.0",
    table(Column("cts_amount", "money"), Column("cts_note"), Column("cts_tax")),
    table(Column("cts_day"), name="cts_visit"),
    number("cts_limit", "20"),
    number("cts_margin", "5"),
    ConnectionReference("cts_mail", "Mail", "", OFFICE),
    WebResource("cts_/order.js", b"new()"),
    WebResource("cts_/visit.js", b"visit()"),
    cloud_flow("Remind", environment_variables=["cts_limit"]),
    cloud_flow("Notify", connection_references=["cts_mail"]),
)
NOTIFY = next(c.key for c in read(NEW).components if c.kind == "workflow" and c.name == "Notify")
LOSSES = {
    ("CHANGES_BACK", "attribute", "cts_order.cts_amount"),
    ("CHANGES_BACK", "environmentvariabledefinition", "cts_limit"),
    ("STAYS_BEHIND", "attribute", "cts_order.cts_tax"),
    ("STAYS_BEHIND", "entity", "cts_visit"),
    ("STAYS_BEHIND", "environmentvariabledefinition", "cts_margin"),
    ("STAYS_BEHIND", "connectionreference", "cts_mail"),
    ("STAYS_BEHIND", "workflow", NOTIFY),
    ("COMES_BACK", "attribute", "cts_order.cts_gone"),
}


def named(findings: list[Finding]) -> set[tuple[str, str, str]]:
    codes = ("CHANGES_BACK", "STAYS_BEHIND", "COMES_BACK")
    return {(f.code, f.subject.kind, f.subject.name.lower()) for f in findings if f.code in codes}


def causes(findings: list[Finding], code: str) -> list[str]:
    return [f.cause for f in findings if f.code == code]


async def installed(host: Host, environment: str = "qa") -> tuple[WebApi, InstalledSolution]:
    _, api = await host.environments.named(f"environments/{environment}")
    found = await api.solution("Sales")
    assert found is not None
    return api, found


async def put_there(host: Host, package: bytes) -> None:
    """Import a package into qa past the host, as a person in the maker portal may."""
    solution = read(package)
    _, api = await host.environments.named("environments/qa")
    version = solution.manifest.version
    intent = await api.prepare_import(solution.manifest.unique_name, version, upgrade=False)
    operation = await api.start_import(package, intent)
    while (now := await api.import_progress(operation)).state is OperationState.RUNNING:
        pass
    assert now.state is OperationState.SUCCEEDED, now


@pytest.fixture
async def at_new(host: Host) -> tuple[str, str]:
    """qa holds NEW and held OLD before; the artifacts of both."""
    await host.configure("qa", "production", allow_redeployment=True)
    await host.connect("qa", OFFICE, "mail-1")
    old, new = await host.upload(OLD), await host.upload(NEW)
    assert (await host.deployed(artifact=old.name, stage="qa")).state == Run.STATE_SUCCEEDED
    request = DeployRequest(artifact=new.name)
    request.settings.connection_references.add(logical_name="cts_mail", connection_id="mail-1")
    run = await host.deployed(artifact=new.name, stage="qa", settings=request.settings)
    assert run.state == Run.STATE_SUCCEEDED, run.error
    return old.name, new.name


async def test_what_would_be_lost_is_told_component_by_component(host: Host, at_new: tuple[str, str]) -> None:
    findings, summary = await host.previewed(artifact=at_new[0], stage="qa")
    assert named(findings) >= LOSSES
    # What belongs to a new table or to a flow comes with it; nothing else is named.
    rest = named(findings) - LOSSES
    assert {(code, key.partition(".")[0]) for code, _, key in rest} <= {("STAYS_BEHIND", "cts_visit")}, rest
    (more,) = causes(findings, "CHANGES_BACK_MORE")
    assert more == "1 other components change back as well: 1 × web resource."
    assert "web resource" in causes(findings, "STAYS_BEHIND_MORE")[0]
    assert "web resource" in causes(findings, "COMES_BACK_MORE")[0]
    fates = {f.subject.name.lower(): f.cause for f in findings if f.code in ("STAYS_BEHIND", "COMES_BACK")}
    assert fates["cts_visit"].endswith("so it stays with all its rows.")
    assert fates["cts_order.cts_tax"].endswith("with its values in all rows.")
    assert fates[NOTIFY].endswith("and runs on, if it is on.")
    assert "nothing of 1.0.0.0 reads" in fates["cts_margin"]
    assert "nothing of 1.0.0.0 uses" in fates["cts_mail"]
    assert fates["cts_order.cts_gone"].endswith("comes back without values.")
    assert (summary.installed_version, summary.version) == ("2.0.0.0", "1.0.0.0")
    assert (len(summary.loss_sha256), summary.deployable) == (64, False)
    assert findings[-1].code == "LOSS_NOT_ACCEPTED"
    assert f"pipelinehost redeploy Sales -p sales --stage qa --artifact {at_new[0]}" in findings[-1].remedy
    again, accepted = await host.previewed(artifact=at_new[0], stage="qa", loss_sha256=summary.loss_sha256)
    assert accepted.deployable
    assert [*again, findings[-1]] == findings
    assert accepted.loss_sha256 == summary.loss_sha256


async def test_what_is_accepted_is_what_happens(host: Host, at_new: tuple[str, str]) -> None:
    findings, summary = await host.previewed(artifact=at_new[0], stage="qa")
    api, before = await installed(host)
    held = {c.key for c in await api.installed_components(before)}
    run = await host.deployed(artifact=at_new[0], stage="qa", loss_sha256=summary.loss_sha256)
    assert run.state == Run.STATE_SUCCEEDED, run.error
    assert run.loss_sha256 == summary.loss_sha256
    asked = host.events(run)[0]
    assert (asked.kind, asked.run.loss_sha256) == (Event.KIND_DEPLOYMENT_REQUESTED, run.loss_sha256)
    assert named(host.findings(run)) == named(findings), "approvers read in the run what the preview said"
    api, after = await installed(host)
    now = {c.key for c in await api.installed_components(after)}
    assert now == held | {c.identity for c in read(OLD).components}, "nothing was removed"
    [limit] = await api.environment_variables(["cts_limit"])
    assert limit.default == "10"
    codes = Counter(f.code for f in (await host.previewed(artifact=at_new[0], stage="qa"))[0])
    assert codes == {"REDEPLOYMENT": 1}, "there is nothing left to lose"
    again = await host.deployed(artifact=at_new[0], stage="qa")
    assert again.state == Run.STATE_SUCCEEDED


@pytest.mark.parametrize("accepted", ["", "0" * 64])
async def test_nothing_is_sent_unless_exactly_that_is_accepted(
    host: Host, at_new: tuple[str, str], accepted: str
) -> None:
    before = await host.history("qa")
    run = await host.deployed(artifact=at_new[0], stage="qa", loss_sha256=accepted)
    assert (run.state, run.error.code, run.error.retryable) == (Run.STATE_FAILED, "LOSS_NOT_ACCEPTED", False)
    told = "nobody has accepted that" if not accepted else "something else there than what was accepted"
    assert told in run.error.message
    assert await host.history("qa") == before


async def test_a_loss_that_is_none_is_not_accepted_blindly(host: Host, at_new: tuple[str, str]) -> None:
    """Who accepted a loss looked at another state of the target."""
    same = await host.deployed(artifact=at_new[1], stage="qa", loss_sha256="0" * 64)
    assert same.error.code == "LOSS_NOT_ACCEPTED"
    newer = await host.upload(build("3.0.0.0", table(Column("cts_amount"))))
    run = await host.deployed(artifact=newer.name, stage="qa", loss_sha256="0" * 64)
    assert run.error.code == "LOSS_NOT_ACCEPTED"
    assert "loses nothing there that has to be accepted" in run.error.message
    assert (await host.deployed(artifact=newer.name, stage="qa")).state == Run.STATE_SUCCEEDED


async def test_a_digest_that_is_none_is_refused(host: Host, at_new: tuple[str, str]) -> None:
    for wrong in ("x", "A" * 64, "0" * 63):
        with pytest.raises(InvalidArgument, match="loss_sha256"):
            await host.asked(artifact=at_new[0], stage="qa", loss_sha256=wrong)


async def test_the_digest_is_of_one_target_and_one_package(host: Host, at_new: tuple[str, str]) -> None:
    for package in at_new:
        settings = DeployRequest().settings
        settings.connection_references.add(logical_name="cts_mail", connection_id="mail-2")
        given: dict[str, Any] = {"settings": settings} if package == at_new[1] else {}
        if given:
            await host.connect("production", OFFICE, "mail-2")
        run = await host.deployed(artifact=package, stage="production", **given)
        assert run.state == Run.STATE_SUCCEEDED, run.error
    twin = await host.upload(rewrite(OLD, version="1.0"))  # the same components in another package
    digests = {
        await host.loss(artifact=at_new[0], stage="qa"),
        await host.loss(artifact=at_new[0], stage="production"),
        await host.loss(artifact=twin.name, stage="qa"),
        await host.loss(artifact=at_new[0], stage="qa", overwrite_customizations=True),
    }
    assert len(digests) == 4


async def test_what_was_changed_by_hand_is_told_where_it_is_overwritten(
    host: Host, at_new: tuple[str, str]
) -> None:
    findings, summary = await host.previewed(artifact=at_new[1], stage="qa", overwrite_customizations=True)
    assert [f.code for f in findings] == ["REDEPLOYMENT", "CUSTOMIZATIONS_REMOVED", "LOSS_NOT_ACCEPTED"]
    run = await host.deployed(
        artifact=at_new[1], stage="qa", overwrite_customizations=True, loss_sha256=summary.loss_sha256
    )
    assert run.state == Run.STATE_SUCCEEDED, run.error


async def test_the_same_version_with_other_contents_is_compared_too(
    host: Host, at_new: tuple[str, str]
) -> None:
    other = build("2.0.0.0", table(Column("cts_amount"), Column("cts_note"), Column("cts_tax")))
    findings, summary = await host.previewed(artifact=(await host.upload(other)).name, stage="qa")
    assert ("CHANGES_BACK", "attribute", "cts_order.cts_amount") in named(findings)
    assert ("STAYS_BEHIND", "entity", "cts_visit") in named(findings)
    assert summary.loss_sha256


# What the target holds now


async def test_it_is_compared_with_what_another_pipeline_has_put_there(
    host: Host, at_new: tuple[str, str]
) -> None:
    third = build("3.0.0.0", table(Column("cts_amount"), Column("cts_third")))
    other = Pipeline(
        name="pipelines/other",
        allow_redeployment=True,
        stages=[Stage(name="pipelines/other/stages/there", environment="environments/qa")],
    )
    await host.store.write(lambda tx: tx.put_pipeline(other))
    request = DeployRequest(
        pipeline=other.name, stage=other.stages[0].name, artifact=(await host.upload(third)).name
    )
    run = await host.ended(await host.deployment.deploy(request, "admin", once()))
    assert run.state == Run.STATE_SUCCEEDED, run.error
    findings, summary = await host.previewed(artifact=at_new[0], stage="qa")
    assert summary.installed_version == "3.0.0.0"
    assert ("STAYS_BEHIND", "attribute", "cts_order.cts_third") in named(findings)
    assert not any(kind == "entity" and name == "cts_visit" for _, kind, name in named(findings))
    assert not causes(findings, "CANNOT_COMPARE")


@pytest.mark.parametrize("version", ["2.0.0.0", "2.5.0.0"])
async def test_what_nobody_here_put_there_is_said_to_be_unknown(
    host: Host, at_new: tuple[str, str], version: str
) -> None:
    """The same version with other contents counts as well: somebody has imported it since."""
    accepted = await host.loss(artifact=at_new[0], stage="qa")
    await put_there(host, build(version, table(Column("cts_amount", "decimal"), Column("cts_own"))))
    findings, summary = await host.previewed(artifact=at_new[0], stage="qa")
    (cause,) = causes(findings, "CANNOT_COMPARE")
    assert "not put there by the newest run of this host" in cause
    assert not causes(findings, "CHANGES_BACK")
    assert ("STAYS_BEHIND", "attribute", "cts_order.cts_own") in named(findings)
    assert summary.loss_sha256 not in ("", accepted)
    stale = await host.deployed(artifact=at_new[0], stage="qa", loss_sha256=accepted)
    assert stale.error.code == "LOSS_NOT_ACCEPTED"
    run = await host.deployed(artifact=at_new[0], stage="qa", loss_sha256=summary.loss_sha256)
    assert run.state == Run.STATE_SUCCEEDED, run.error
    known, _ = await host.previewed(artifact=at_new[0], stage="qa")
    assert not causes(known, "CANNOT_COMPARE"), "from then on the host knows again"


async def test_the_very_same_package_put_there_by_others_counts_as_another_state(
    host: Host, at_new: tuple[str, str]
) -> None:
    accepted = await host.loss(artifact=at_new[0], stage="qa")
    await put_there(host, NEW)
    assert await host.loss(artifact=at_new[0], stage="qa") != accepted


async def test_a_damaged_package_of_what_is_there_makes_it_unknown(
    host: Host, at_new: tuple[str, str]
) -> None:
    path = next(p for p in host.folder.rglob(f"*{at_new[1].rpartition('/')[2]}*") if p.is_file())
    path.chmod(0o600)
    path.write_bytes(b"spoiled")
    findings, _ = await host.previewed(artifact=at_new[0], stage="qa")
    assert causes(findings, "CANNOT_COMPARE")


# Between acceptance and import


async def back_at_gate(host: Host, old: str) -> Run:
    await guard(host, gate())
    accepted = await host.loss(artifact=old, stage="qa")
    return await rests(host, await host.asked(artifact=old, stage="qa", loss_sha256=accepted))


async def test_approvers_read_the_loss_and_approve_exactly_it(host: Host, at_new: tuple[str, str]) -> None:
    run = await back_at_gate(host, at_new[0])
    assert named(host.findings(run)) >= LOSSES
    seen = run.gates[0].bound_sha256
    with pytest.raises(Aborted):
        await approve(host, run, "ada", bound_sha256="0" * 64)
    other = Run()
    other.CopyFrom(run)
    other.loss_sha256 = "1" * 64
    assert gates.bound(host.store.reads, other, run.gates[0].gate) != seen
    await approve(host, run, "ada", bound_sha256=seen)
    assert (await host.ended(run)).state == Run.STATE_SUCCEEDED


async def test_a_no_loses_nothing(host: Host, at_new: tuple[str, str]) -> None:
    before = await host.history("qa")
    run = await back_at_gate(host, at_new[0])
    await reject(host, run, "ada", "keep it")
    assert (await host.ended(run)).state == Run.STATE_REJECTED
    assert await host.history("qa") == before


@pytest.mark.parametrize("version", ["2.0.0.0", "2.5.0.0"])
async def test_a_target_that_changes_while_the_run_waits_stops_it(
    host: Host, at_new: tuple[str, str], version: str
) -> None:
    run = await back_at_gate(host, at_new[0])
    await put_there(host, build(version, table(Column("cts_amount", "decimal"), Column("cts_own"))))
    before = await host.history("qa")
    await approve(host, run, "ada")
    ended = await host.ended(run)
    assert (ended.state, ended.error.code) == (Run.STATE_FAILED, "LOSS_NOT_ACCEPTED")
    assert await host.history("qa") == before, "nothing was sent"
    retried = await host.deployment.retry(RetryRunRequest(name=run.name), "admin", once())
    ended = await host.ended(retried)
    assert ended.error.code == "LOSS_NOT_ACCEPTED", "a retry accepts nothing"
    assert await host.history("qa") == before


async def test_an_upgrade_that_has_become_a_way_back_is_stopped(host: Host, at_new: tuple[str, str]) -> None:
    """It was approved as an upgrade; meanwhile somebody has installed a higher version."""
    await guard(host, gate())
    third = await host.upload(build("3.0.0.0", table(Column("cts_amount"))))
    run = await rests(host, await host.asked(artifact=third.name, stage="qa"))
    await put_there(host, build("4.0.0.0", table(Column("cts_amount"), Column("cts_four"))))
    before = await host.history("qa")
    await approve(host, run, "ada")
    ended = await host.ended(run)
    assert ended.error.code == "LOSS_NOT_ACCEPTED"
    assert "nobody has accepted that" in ended.error.message
    assert await host.history("qa") == before


async def test_without_leave_for_redeployment_there_is_no_loss_to_accept(
    host: Host, at_new: tuple[str, str]
) -> None:
    await host.configure("qa", "production")
    for accepted in ("", "0" * 64):
        findings, summary = await host.previewed(artifact=at_new[0], stage="qa", loss_sha256=accepted)
        assert [f.code for f in findings if f.severity == Finding.SEVERITY_ERROR] == ["VERSION_NOT_HIGHER"]
        assert not summary.loss_sha256


# The comparison by itself


class Target:
    """What an environment says of one solution."""

    def __init__(self, held: dict[ComponentKey, int], unnamed: int) -> None:
        self.rows = [
            InstalledComponent(key, key.key, key.key, str(i), 1, key.kind) for i, key in enumerate(held)
        ]
        self.rows += [InstalledComponent(None, "", "", f"u{i}", 1, "") for i in range(unnamed)]

    async def installed_components(self, _: object) -> list[InstalledComponent]:
        return self.rows

    async def history(self, _: str) -> list[Any]:
        return [
            SimpleNamespace(id="running", completed=False, succeeded=None),
            SimpleNamespace(id="failed", completed=True, succeeded=False),
            SimpleNamespace(id="last", completed=True, succeeded=True),
            SimpleNamespace(id="before", completed=True, succeeded=True),
        ]


BASE = read(OLD)
KEYS = st.sampled_from([ComponentKey(k, n) for k in ("entity", "workflow", "webresource") for n in "abcd"])
CONTENTS = st.dictionaries(KEYS, st.integers(0, 2))


def solution(contents: dict[ComponentKey, int]) -> Solution:
    parts = tuple(Component(k.kind, k.key, k.key, k.key, bytes([v]) * 32) for k, v in contents.items())
    return replace(BASE, components=parts)


def compare(
    old: dict[ComponentKey, int],
    held: dict[ComponentKey, int],
    host_put: dict[ComponentKey, int] | None,
    unnamed: int,
) -> loss.Loss:
    asked: list[str] = []

    async def known(_: InstalledSolution, operation: str) -> Solution | None:
        asked.append(operation)
        return None if host_put is None else solution(host_put)

    there = cast(
        "InstalledSolution", SimpleNamespace(id="s", version=BASE.manifest.version, unique_name="Sales")
    )
    target = cast("WebApi", Target(held, unnamed))
    work = loss.look(solution(old), there, target, known, customizations=False)
    try:
        work.send(None)
    except StopIteration as done:
        assert asked == ["last"], "only what has changed the solution counts"
        return cast("loss.Loss", done.value)
    raise AssertionError("it waited")


def keys(parts: tuple[loss.Part, ...]) -> set[ComponentKey]:
    assert list(parts) == sorted(parts, key=lambda p: p.identity)
    return {p.identity for p in parts}


@given(old=CONTENTS, leftovers=CONTENTS, host_put=st.none() | CONTENTS)
def test_every_component_is_in_exactly_the_list_that_it_belongs_to(
    old: dict[ComponentKey, int],
    leftovers: dict[ComponentKey, int],
    host_put: dict[ComponentKey, int] | None,
) -> None:
    """Against a model: the target holds what the host put there last, over what was left before."""
    held = {**leftovers, **(host_put or {})}
    found = compare(old, held, host_put, 0)
    for key in {*old, *held}:
        expected = set()
        if host_put is not None and key in host_put:
            if key not in old:
                expected = {"left"}
            elif old[key] != host_put[key]:
                expected = {"changed"}
        elif key in held:
            # Left from before: not lost now, unless nobody knows what is.
            expected = {"unknown"} if key in old else {"left"} if host_put is None else set()
        else:
            expected = {"back"}
        actual = {n for n in ("changed", "left", "unknown", "back") if key in keys(getattr(found, n))}
        assert actual == expected, (key, actual, expected)
    assert bool(found.sha256) == bool(found.changed or found.left or found.unknown)


@given(old=CONTENTS, one=CONTENTS, other=CONTENTS)
def test_two_losses_have_one_digest_only_if_they_are_one(
    old: dict[ComponentKey, int], one: dict[ComponentKey, int], other: dict[ComponentKey, int]
) -> None:
    first, second = compare(old, one, one, 0), compare(old, other, other, 0)
    if first.sha256 and second.sha256:
        lists = [(f.changed, f.left, f.unknown, f.back) for f in (first, second)]
        if lists[0] != lists[1]:
            assert first.sha256 != second.sha256
    assert compare(old, dict(reversed(one.items())), one, 0).sha256 == first.sha256


def test_components_without_a_name_are_told_or_taken_from_the_package() -> None:
    a, b = ComponentKey("entity", "a"), ComponentKey("entity", "b")
    assert keys(compare({a: 0}, {a: 0}, {a: 0, b: 0}, 1).left) == {b}, "the package names it"
    assert keys(compare({a: 0}, {a: 0}, {a: 0, b: 0}, 0).left) == set(), "somebody has removed it"
    blind = compare({a: 0}, {}, None, 2)
    assert (blind.unnamed, bool(blind.sha256)) == (2, True)


def test_hundreds_alike_are_counted() -> None:
    held = {ComponentKey("workflow", f"f{i:05}"): 0 for i in range(loss.NAMED + 7)}
    found = compare({}, held, held, 0)
    there = cast("InstalledSolution", SimpleNamespace(version=BASE.manifest.version))
    told = list(loss.told(found, BASE, there, "qa"))
    assert Counter(f.code for f in told) == {"STAYS_BEHIND": loss.NAMED, "STAYS_BEHIND_MORE": 1}
    assert told[-1].cause.startswith("7 other components")
    columns = {ComponentKey("attribute", f"t.c{i:05}"): 0 for i in range(loss.NAMED)}
    found = compare({}, columns | held, columns | held, 0)
    told = list(loss.told(found, BASE, there, "qa"))
    assert {f.subject.kind for f in told[:-1]} == {"workflow"}, "flows come before columns"
