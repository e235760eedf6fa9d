"""What is done with secrets: each operation hands one over in its own way, right or wrong.

To add one, write a function of a bed and put it into ``OPERATIONS`` with a weight. Whatever ``bed.call`` and
``bed.cli`` bring back is searched, as are all files; what comes out elsewhere, give it to ``bed.heard``.
A new sort of secret is a ``Kind``, with a share of the canaries in ``Bed``.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import quote

from tests.canary.bed import BACK, EMBEDDED, FROZEN, OWN, SIGNED, TOLD, VARIABLES, Bed
from tests.canary.canaries import Kind
from tests.canary.hostile import ENVIRONMENTS, WEBHOOKS

from pipelinehost.v1 import artifacts_pb2
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import (
    IMPORT_MODE_UNSPECIFIED,
    IMPORT_MODE_UPDATE,
    DeploymentSettings,
    Environment,
    EnvironmentVariableSetting,
    Freeze,
    Identity,
    Principal,
    Run,
    SignIn,
)

VAULT = "/subscriptions/{0}/resourceGroups/group/providers/Microsoft.KeyVault/vaults/vault/secrets/{0}"


def _settings(**values: str) -> DeploymentSettings:
    return DeploymentSettings(
        environment_variables=[EnvironmentVariableSetting(schema_name=n, value=v) for n, v in values.items()]
    )


def _good(bed: Bed) -> DeploymentSettings:
    values = {"cts_text": bed.secret(Kind.VALUE)}
    if bed.dice.random() < 0.5:
        values["cts_json"] = json.dumps(
            {"password": bed.secret(Kind.VALUE)}, ensure_ascii=bed.dice.random() < 0.5
        )
    if bed.dice.random() < 0.7:
        values["cts_secret"] = VAULT.format(bed.secret(Kind.SECRET_VALUE))
    return _settings(**values)


def _text(bed: Bed) -> str:
    """What somebody writes for others, with a password in it."""
    return f"ask {bed.secret(Kind.TEXT)} for it"


def _bad(bed: Bed) -> DeploymentSettings:
    value = bed.secret(Kind.REFUSED_VALUE)
    name = bed.turn(("cts_number", "cts_flag", "cts_json", "cts_secret", "cts_unknown", "", "cts_long"))
    if name == "cts_secret":
        value = bed.secret(Kind.REFUSED_SECRET_VALUE)
    if name == "cts_json":
        value = '{"password": "' + value
    if name == "cts_long":
        return _settings(cts_text=value * 6_000)
    if name == "" and bed.dice.random() < 0.5:
        twice = [EnvironmentVariableSetting(schema_name=n, value=value) for n in ("cts_text", "CTS_Text")]
        return DeploymentSettings(environment_variables=twice)
    if bed.dice.random() < 0.2:
        return _settings(**{name: value + "\x1b[2J"})
    return _settings(**{name: value})


def _deployment(bed: Bed, pipeline: str, settings: DeploymentSettings) -> api.DeployRequest:
    stages = bed.pipelines()[pipeline]
    return api.DeployRequest(
        pipeline=f"pipelines/{pipeline}",
        stage=f"pipelines/{pipeline}/stages/{stages[0]}",
        artifact=bed.dice.choice(bed.artifacts),
        settings=settings,
        note=_text(bed) if bed.dice.random() < 0.3 else "",
        request_id=str(uuid.uuid4()),
        import_mode=bed.dice.choice((0, 1, 2)),  # type: ignore[arg-type]  # any of the enum
    )


def deploy(bed: Bed) -> None:
    """A run with values that go to the target."""
    request = _deployment(bed, "main", _good(bed))
    run = bed.call("Deploy", request)
    bed.ran(run)
    if (
        run is not None and bed.dice.random() < 0.2
    ):  # as a client repeats it, and as one does that uses an id twice
        bed.call("Deploy", request)
        request.settings.CopyFrom(_settings(cts_text=bed.secret(Kind.REFUSED_VALUE)))
        bed.call("Deploy", request)


def deploy_and_see(bed: Bed) -> None:
    """A run that is watched to its end, and promoted."""
    run = bed.call("Deploy", _deployment(bed, "main", _good(bed)))
    if run is None:
        return
    bed.ran(run)
    bed.call("WatchRun", api.WatchRunRequest(name=run.name))
    _read_run(bed, run.name)
    request = api.DeployRequest(
        pipeline="pipelines/main",
        stage=f"pipelines/main/stages/{EMBEDDED[1]}",
        artifact=run.artifact,
        settings=_good(bed),
        request_id=str(uuid.uuid4()),
    )
    bed.ran(bed.call("Deploy", request))


def deploy_from_development(bed: Bed) -> None:
    """A run that exports."""
    request = _deployment(bed, "main", _good(bed))
    request.solution = "Vault"
    bed.ran(bed.call("Deploy", request))


def deploy_refused(bed: Bed) -> None:
    """A run with values of the wrong type, of nothing, or against the rules."""
    bed.ran(bed.call("Deploy", _deployment(bed, "main", _bad(bed))))


def deploy_signed_in(bed: Bed) -> None:
    """A run to an environment that wants a secret, right or wrong."""
    bed.ran(bed.call("Deploy", _deployment(bed, f"to-{bed.dice.choice(SIGNED)}", _good(bed))))


def deploy_to_hostile(bed: Bed) -> None:
    """A run to an environment that repeats its values and its token."""
    bed.ran(bed.call("Deploy", _deployment(bed, f"to-{bed.turn(ENVIRONMENTS)}", _good(bed))))


def cancel_or_retry(bed: Bed) -> None:
    """Something is done to a run."""
    if not bed.runs:
        return
    name = bed.dice.choice(bed.runs[-20:])
    if bed.dice.random() < 0.5:
        bed.call("CancelRun", api.CancelRunRequest(name=name, reason=_text(bed)))
    else:
        bed.call("RetryRun", api.RetryRunRequest(name=name))


def read_run(bed: Bed) -> None:
    """All that is told of a run."""
    if bed.runs:
        _read_run(bed, bed.dice.choice(bed.runs[-30:]))


def _read_run(bed: Bed, name: str) -> None:
    bed.call("GetRun", api.GetRunRequest(name=name))
    for method in (
        "ListFindings",
        "ListComponentResults",
        "ListRunSettings",
        "GetRunPipeline",
        "ListGateNotes",
    ):
        bed.call(method, getattr(api, f"{method}Request")(run=name))


def validate(bed: Bed) -> None:
    """Everything that a deployment would find."""
    pipeline = bed.dice.choice(list(bed.pipelines()))
    settings = _good(bed) if bed.dice.random() < 0.5 else _bad(bed)
    request = api.ValidateDeploymentRequest(deployment=_deployment(bed, pipeline, settings))
    bed.call("ValidateDeployment", request)


def describe(bed: Bed) -> None:
    """A solution, and what its settings would be at a stage."""
    pipeline = bed.dice.choice(("main", f"to-{bed.dice.choice(SIGNED)}"))
    stage = f"pipelines/{pipeline}/stages/{bed.pipelines()[pipeline][0]}"
    bed.call("DescribeSolution", api.DescribeSolutionRequest(artifact=bed.artifacts[0], stage=stage))


def set_credential(bed: Bed) -> None:
    """A right or a wrong credential, and a look at what the environment says to it."""
    name = bed.dice.choice((*SIGNED, *SIGNED, *ENVIRONMENTS))
    if bed.dice.random() < 0.5:
        bed.give_right(name)
    else:
        request = api.SetEnvironmentCredentialRequest(name=f"environments/{name}")
        if name != "echo-failed":
            request.client_secret = bed.secret(Kind.REFUSED_CREDENTIAL)
        else:
            request.certificate = bed.dice.choice(bed.pem)
        bed.call("SetEnvironmentCredential", request)
    if bed.dice.random() < 0.4:
        bed.call("CheckEnvironment", api.CheckEnvironmentRequest(name=f"environments/{name}"))
    if bed.dice.random() < 0.2:
        bed.call("ListSolutions", api.ListSolutionsRequest(environment=f"environments/{name}"))


def set_credential_wrongly(bed: Bed) -> None:
    """A credential that is refused: for its shape, its place, or who sends it."""
    secret = bed.secret(Kind.REFUSED_CREDENTIAL)
    pem = bed.dice.choice(bed.pem)
    bed.record.planted[Kind.CERTIFICATE] += 1
    half = pem.partition("-----BEGIN CERTIFICATE")
    name, given = bed.turn(
        (
            (SIGNED[0], {"client_secret": f" {secret}"}),
            (SIGNED[0], {"client_secret": f"{secret}\n"}),
            (SIGNED[0], {"client_secret": secret * 30}),
            (SIGNED[0], {"client_secret": pem}),
            (SIGNED[0], {"certificate": secret}),
            (SIGNED[0], {"certificate": pem}),
            ("echo-failed", {"certificate": secret}),
            ("echo-failed", {"certificate": half[0] + secret + half[1] + half[2]}),
            ("echo-failed", {"certificate": pem.replace("-----BEGIN CERT", "-----BEGIN A CERT")}),
            ("echo-failed", {"certificate": pem.replace("PRIVATE KEY", "PRIVATE TREE")}),
            ("echo-failed", {"certificate": pem[: len(pem) - 200]}),
            ("echo-failed", {"certificate": bed.pem[0][: bed.pem[0].rfind("-----BEGIN")] + bed.pem[1]}),
            ("echo-failed", {"client_secret": secret}),
            ("qa", {"client_secret": secret}),
            ("nothing", {"client_secret": secret}),
            (secret, {"client_secret": secret}) if secret.isalnum() else ("", {"client_secret": secret}),
        )
    )
    if name == secret:  # a name is told back: only what is no name must not be
        name = "UPPER"
    request = api.SetEnvironmentCredentialRequest(name=f"environments/{name}", **given)
    bed.call("SetEnvironmentCredential", request)


# Identities of stages.


def deploy_as_stage(bed: Bed) -> None:
    """Runs by the identities of stages, whose sign-in or environment repeats what it is sent."""
    if not bed.record.outcomes["own-signed SUCCEEDED"]:
        bed.give_right_to_stage("own-signed")
    runs = {}
    for name in OWN:
        request = _deployment(bed, name, _good(bed))
        if name == "own-signed":  # the newest, once more if need be: an older one is refused where that is
            request.artifact, request.import_mode = bed.artifacts[-1], IMPORT_MODE_UPDATE
        runs[name] = bed.call("Deploy", request)
    for name, run in runs.items():
        if run is not None:
            bed.runs.append(run.name)
            _ended(bed, name, bed.ended(run.name))


def _ended(bed: Bed, name: str, run: Run | None) -> None:
    if run is not None:
        state = Run.State.Name(run.state).removeprefix("STATE_")
        bed.record.outcomes[f"{name} {run.error.code or state}"] += 1


def set_stage_credential(bed: Bed) -> None:
    """A right or a wrong credential of a stage, and what a validation says to it; then the right one."""
    name = bed.turn(tuple(OWN))
    if name != "own-certificate":
        request = api.SetEnvironmentCredentialRequest(name=bed.stage(name))
        request.client_secret = bed.secret(Kind.REFUSED_CREDENTIAL)
        request.request_id = str(uuid.uuid4())
        for _ in range(2):  # as a client repeats it
            bed.call("SetEnvironmentCredential", request)
    if bed.dice.random() < 0.5:
        deployment = _deployment(bed, name, _good(bed))
        bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=deployment))
    bed.give_right_to_stage(name)


def set_stage_credential_wrongly(bed: Bed) -> None:
    """A credential of a stage that is refused: for its shape, its place, or who sends it."""
    secret, pem = bed.secret(Kind.REFUSED_CREDENTIAL), bed.dice.choice(bed.pem)
    signed, certified = bed.stage("own-signed"), bed.stage("own-certificate")
    name, given, token = bed.turn(
        (
            (signed, {"client_secret": f"{secret}\n"}, None),
            (signed, {"client_secret": secret * 30}, None),
            (signed, {"certificate": pem}, None),
            (signed, {"client_secret": secret}, bed.ada),
            (certified, {"client_secret": secret}, None),
            (certified, {"certificate": secret}, None),
            (certified, {"certificate": pem[: len(pem) - 200]}, None),
            (bed.stage("main"), {"client_secret": secret}, None),
            (f"{signed}-2", {"client_secret": secret}, None),
            ("pipelines/nothing/stages/qa", {"client_secret": secret}, None),
            ("pipelines/own-signed/stages/", {"client_secret": secret}, None),
        )
    )
    bed.call("SetEnvironmentCredential", api.SetEnvironmentCredentialRequest(name=name, **given), token=token)


def change_stage(bed: Bed) -> None:
    """A stage that has a credential is changed, or gets a secret where its identity is described."""
    name = bed.dice.choice(tuple(OWN))
    pipeline, case = bed.pipeline(name), bed.turn(range(8))
    secret, stage = "~" + bed.secret(Kind.MISPLACED), pipeline.stages[0]
    match case:
        case 0:  # its credential is forgotten
            stage.sign_in.client_id = str(uuid.uuid4())
        case 1:
            stage.ClearField("sign_in")
        case 2:
            pipeline.description = _text(bed)
        case 3:
            stage.sign_in.client_id = secret
        case 4:
            stage.sign_in.tenant = secret
        case 5:
            stage.sign_in.authority = secret
        case 6:
            user = quote(bed.secret(Kind.USERINFO), safe="")
            stage.sign_in.authority = f"https://user:{user}@login.microsoftonline.com"
        case _:
            bed.call("DeletePipeline", api.DeletePipelineRequest(name=pipeline.name))
            bed.call("CreatePipeline", api.CreatePipelineRequest(pipeline=pipeline))
    bed.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline))
    if case < 2 and bed.dice.random() < 0.5:
        bed.ran(bed.call("Deploy", _deployment(bed, name, _good(bed))))
    if case < 3:
        bed.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=bed.pipeline(name)))
    bed.give_right_to_stage(name)


# Webhooks.

_GATED = next(iter(TOLD))


def gates_with_webhooks(bed: Bed) -> None:
    """Runs that wait at two gates, each with a webhook that has a secret in its address."""
    runs: list[str] = []
    for pipeline in TOLD:  # a gate tells the address that its pipeline has now, so each has one of its own
        addresses = [_webhook(bed) for _ in range(2)]
        bed.addresses |= set(addresses)
        changed = api.UpdatePipelineRequest(pipeline=bed.pipeline(pipeline, *addresses))
        bed.call("UpdatePipeline", changed)
        request = _deployment(bed, pipeline, _good(bed))
        request.artifact, request.import_mode = bed.artifacts[0], IMPORT_MODE_UNSPECIFIED
        if (run := bed.call("Deploy", request)) is not None:
            runs.append(run.name)
    for number in range(2):
        for name in runs:
            if _told(bed, name, number):
                _decide(bed, name, approve=number == 0 or bed.dice.random() < 0.6)
    for name in runs:
        bed.ended(name)
    bed.runs += runs
    _read_run(bed, runs[-1])
    bed.call("GetPipeline", api.GetPipelineRequest(name=f"pipelines/{_GATED}"), token=bed.ada)


def _decide(bed: Bed, name: str, *, approve: bool) -> None:
    if approve:
        request = api.ApproveRequest(name=name, comment=_text(bed), note=_text(bed))
        bed.call("Approve", request, token=bed.ada)
    else:
        refusal = api.RejectRequest(name=name, comment=_text(bed), note=_text(bed))
        bed.call("Reject", refusal, token=bed.ada)


def _webhook(bed: Bed) -> str:
    assert bed.hostile is not None
    secret = bed.secret(Kind.ADDRESS)
    # Nobody listens there, or speaks TLS there, or has that name in the certificate.
    way = bed.turn((*WEBHOOKS, "nobody", "plain", "name"))
    if way == "nobody":
        return f"http://127.0.0.1:9/hooks/nobody?sig={quote(secret, safe='')}"
    address = bed.hostile.webhook(way if way in WEBHOOKS else "taken", secret)
    if way == "plain":
        return address.replace("https:", "http:")
    return address.replace("127.0.0.1", "[::1]") if way == "name" else address


def _told(bed: Bed, name: str, number: int) -> bool:
    """Whether a run came to its gate; waits until its webhook was tried."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        run = bed.call("GetRun", api.GetRunRequest(name=name))
        if run is None or run.state >= Run.STATE_SUCCEEDED:
            return False
        if len(run.gates) > number and run.gates[number].delivery.attempts:
            failed = run.gates[number].delivery.error
            bed.record.outcomes["webhook not told" if failed else "webhook told"] += 1
            return True
        time.sleep(0.03)
    bed.trouble("the webhook of a gate was not tried in 20 s")
    return False


def webhook_refused(bed: Bed) -> None:
    """A webhook with a secret in an address that is refused: for its shape, or for who sets it."""
    secret = bed.secret(Kind.USERINFO)
    written = quote(secret, safe="")
    address, token = bed.turn(
        (
            (f"https://user:{written}@127.0.0.1:8/hooks", None),
            (f"https://{written}@hooks.example.com/", None),
            (f"https://hooks.example.com/#{written}", None),
            (f"https://hooks.example.com/?sig={secret} x", None),
            (f"https://hooks.example.com/\\?sig={secret}", None),
            (f"http://hooks.example.com/?sig={written}", None),
            (f"ftp://hooks.example.com/?sig={written}", None),
            (f"https://10.0.0.1/?sig={written}", None),
            (f"https://hooks/?sig={written}", None),
            (f"https://[::1/?sig={written}", None),
            (f"https://127.0.0.1:99999/?sig={written}", None),
            (f"{written}", None),
            (f"https://hooks.example.com/{written * 60}", None),
            (f"https://hooks.example.com/?sig={written}", bed.ada),
        )
    )
    pipeline = bed.pipeline(_GATED, address)
    only = bed.dice.random() < 0.5
    if token is not None or bed.dice.random() < 0.5:
        pipeline.name = "pipelines/another"
        pipeline.stages[0].name = f"{pipeline.name}/stages/{TOLD[_GATED]}"
        made = api.CreatePipelineRequest(pipeline=pipeline, validate_only=only)
        bed.call("CreatePipeline", made, token=token)
    else:
        bed.call("UpdatePipeline", api.UpdatePipelineRequest(pipeline=pipeline, validate_only=only))


# Going back, and whose an environment is.


def _attic(bed: Bed, version: int, *, loss: str = "") -> api.DeployRequest:
    request = _deployment(bed, BACK, DeploymentSettings())
    request.artifact, request.loss_sha256 = bed.old[version - 1], loss
    request.import_mode = IMPORT_MODE_UNSPECIFIED
    values = {"cts_attic_text": bed.secret(Kind.VALUE)}
    if bed.dice.random() < 0.5:
        values["cts_attic_secret"] = VAULT.format(bed.secret(Kind.SECRET_VALUE))
    request.settings.CopyFrom(_settings(**values))
    return request


def _went(bed: Bed, request: api.DeployRequest) -> Run | None:
    run = bed.call("Deploy", request)
    if run is None:
        return None
    bed.runs.append(run.name)
    return bed.ended(run.name)


def go_back(bed: Bed) -> None:
    """To an older version, with what that loses accepted, not accepted, or with a secret in its place."""
    _went(bed, _attic(bed, 2))
    request = _attic(bed, 1)
    if bed.dice.random() < 0.3:
        unused = bed.secret(Kind.REFUSED_VALUE)
        request.settings.environment_variables.add(schema_name="cts_attic_other", value=unused)
    found = bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=request))
    loss = found[-1].summary.loss_sha256 if found else ""
    refused = _went(bed, _attic(bed, 1, loss=bed.dice.choice(("", "0" * 64))))
    if refused is not None and refused.error.code == "LOSS_NOT_ACCEPTED":
        bed.record.outcomes["loss refused"] += 1
    case = bed.turn(range(3))
    if case == 0:
        bed.call("Deploy", _attic(bed, 1, loss=bed.secret(Kind.MISPLACED)))
    else:
        sent = ("--set", f"cts_attic_text={bed.secret(Kind.VALUE)}", "--note", _text(bed))
        words = ("redeploy", "Attic", "-p", BACK, "--stage", EMBEDDED[0], "--version", "1.0.0.0", *sent)
        bed.cli(*words, *(("--accept", loss) if case == 2 and loss else ()))
    went = _went(bed, _attic(bed, 1, loss=loss if case != 2 else ""))
    if went is not None:
        _read_run(bed, went.name)
        bed.record.outcomes["went back"] += bool(loss) and went.state == Run.STATE_SUCCEEDED


def take_over(bed: Bed) -> None:
    """An environment of another host, whose mark repeats what it is sent; and others that cannot be taken."""
    assert bed.hostile is not None
    name = "environments/echo-names"
    bed.hostile.taken.add("echo-names")
    bed.call("CheckEnvironment", api.CheckEnvironmentRequest(name=name))
    bed.call("GetEnvironment", api.GetEnvironmentRequest(name=name))
    bed.call("Deploy", _deployment(bed, "to-echo-names", _good(bed)))
    other, token = bed.turn(
        (
            ("echo-token", None),
            ("echo-sign-in", None),
            (SIGNED[0], None),
            ("echo-names", bed.ada),
            ("qa", None),
        )
    )
    request = api.TakeOverEnvironmentRequest(name=f"environments/{other}", reason=_text(bed))
    bed.call("TakeOverEnvironment", request, token=token)
    taken = api.TakeOverEnvironmentRequest(name=name, reason=_text(bed))
    if bed.call("TakeOverEnvironment", taken) is not None and "echo-names" not in bed.hostile.taken:
        bed.record.outcomes["taken over"] += 1
    # What somebody else has brought there has names that only the environment tells.
    back = _attic(bed, 1)
    back.pipeline, back.stage = "pipelines/to-echo-names", bed.stage("to-echo-names")
    found = bed.call("ValidateDeployment", api.ValidateDeploymentRequest(deployment=back))
    bed.record.outcomes["loss of others"] += any(f.finding.code == "STAYS_BEHIND" for f in found or ())
    bed.hostile.taken.discard("echo-names")
    bed.call("CheckEnvironment", api.CheckEnvironmentRequest(name=name))


# Time.


def freeze(bed: Bed) -> None:
    """A freeze that holds a run up, is gone through, and ends."""
    name = f"freezes/f-{uuid.uuid4().hex[:8]}"
    stop = Freeze(name=name, scope=f"pipelines/{FROZEN}", reason=_text(bed))
    bed.call("CreateFreeze", api.CreateFreezeRequest(freeze=stop))
    refused = _deployment(bed, FROZEN, _good(bed))
    bed.call("Deploy", refused)
    later = _deployment(bed, FROZEN, _good(bed))
    later.override_reason = _text(bed)
    later.schedule_time.FromSeconds(int(time.time()) + 86_400)
    run = bed.call("Deploy", later)
    if run is not None:
        bed.runs.append(run.name)
        # Not before tomorrow, then frozen, then gone through.
        for reason in ("", _text(bed)):
            again = api.RescheduleRunRequest(name=run.name, override_reason=reason)
            bed.call("RescheduleRun", again)
        bed.record.outcomes["frozen"] += 1
        bed.ended(run.name)
    stop.reason = _text(bed)
    bed.call("UpdateFreeze", api.UpdateFreezeRequest(freeze=stop))
    bed.call("ListFreezes", api.ListFreezesRequest())
    bed.call("DeleteFreeze", api.DeleteFreezeRequest(name=name))


def freeze_wrongly(bed: Bed) -> None:
    """A freeze with text where a time, a zone, a rule or a scope belongs."""
    text = bed.secret(Kind.REFUSED_TEXT)
    asked = api.CreateFreezeRequest(validate_only=bed.dice.random() < 0.5)
    asked.freeze.name, asked.freeze.reason, asked.freeze.time_zone = "freezes/wrong", "a pause", "UTC"
    asked.freeze.start, asked.freeze.end = "2030-01-01T00:00", "2030-01-01T01:00"
    wrong: Mapping[str, str] = bed.turn(
        (
            {"time_zone": text},
            {"start": text},
            {"end": f"2030-01-01T{text}"},
            {"recurrence": text},
            {"recurrence": f"FREQ=WEEKLY;BYDAY={text}"},
            {"recurrence": f"FREQ=DAILY;UNTIL={text}"},
            {"scope": text},
            {"reason": text * 40},
        )
    )
    for field, value in wrong.items():
        setattr(asked.freeze, field, value)
    bed.call("CreateFreeze", asked, token=bed.ada if bed.dice.random() < 0.2 else None)


def secret_in_an_address(bed: Bed) -> None:
    """User name and password before a host name."""
    secret = bed.secret(Kind.USERINFO)
    user = secret if bed.dice.random() < 0.5 else quote(secret, safe="")
    authority = f"https://user:{user}@{bed.dice.choice(('127.0.0.1:8', 'login.microsoftonline.com', '[::1'))}"
    url = f"{bed.dice.choice(('https', 'http', 'ftp'))}://user:{user}@org.crm4.dynamics.com/"
    good = "https://org.crm4.dynamics.com"
    application = {
        "method": SignIn.METHOD_CLIENT_SECRET,
        "tenant": "t.example",
        "client_id": str(uuid.uuid4()),
    }
    case = bed.turn(range(5))
    if case == 4:
        issuer = Identity(issuer=authority, subject="eve")
        person = Principal(name="principals/eve", kind=Principal.KIND_PERSON, identities=[issuer])
        bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=person))
        return
    environment = Environment(
        name="environments/linked",
        kind=Environment.KIND_TARGET,
        url=(url, good, good, f"{good}/?code={user}")[case],
        connectivity_url=("", url, "", "")[case],
        sign_in=SignIn(**application, authority=authority if case == 2 else ""),  # type: ignore[arg-type]  # a dict of mixed types
    )
    if bed.dice.random() < 0.5:
        environment.name = f"environments/{SIGNED[0]}"
        bed.call("UpdateEnvironment", api.UpdateEnvironmentRequest(environment=environment))
    else:
        request = api.CreateEnvironmentRequest(environment=environment, validate_only=bed.dice.random() < 0.5)
        bed.call("CreateEnvironment", request)


def secret_in_the_field_beside(bed: Bed) -> None:
    """A secret in the place of what belongs beside it, as happens with two windows and a clipboard."""
    secret = "~" + bed.secret(Kind.MISPLACED)  # with letters and digits alone it could be a domain
    field = bed.turn(("client_id", "tenant", "authority"))
    sign_in = SignIn(method=SignIn.METHOD_CLIENT_SECRET, tenant="t.example", client_id=str(uuid.uuid4()))
    setattr(sign_in, field, secret)
    environment = Environment(
        name="environments/linked",
        kind=Environment.KIND_TARGET,
        url="https://org.crm4.dynamics.com",
        sign_in=sign_in,
    )
    if bed.dice.random() < 0.3:
        environment.sign_in.tenant, environment.sign_in.client_id, environment.sign_in.authority = "", "", ""
        environment.url = f"https://org.crm4.dynamics.com/?sig={secret}"
    bed.call("CreateEnvironment", api.CreateEnvironmentRequest(environment=environment))


def secret_for_a_token_of_the_host(bed: Bed) -> None:
    """A secret where a page token or a resume token belongs."""
    secret = bed.secret(Kind.MISPLACED)
    request_id = str(uuid.uuid4())
    method, request = bed.turn(
        (
            ("ListRuns", api.ListRunsRequest(page_token=secret)),
            ("ListEvents", api.ListEventsRequest(page_token=secret)),
            ("WatchEvents", api.WatchEventsRequest(resume_token=secret)),
            (
                "WatchRun",
                api.WatchRunRequest(name=bed.runs[0] if bed.runs else "runs/x", resume_token=secret),
            ),
            ("Approve", api.ApproveRequest(name=bed.runs[0] if bed.runs else "runs/x", bound_sha256=secret)),
            ("ListArtifacts", artifacts_pb2.ListArtifactsRequest(page_token=secret)),
            ("RevokeToken", api.RevokeTokenRequest(name="tokens/none", request_id=request_id)),
        )
    )
    bed.call(method, request, most=3)


def bearer(bed: Bed) -> None:
    """A call with a token that is good, revoked, mistyped, made up, or of an issuer."""
    made_up = bed.secret(Kind.GUESS)
    good = bed.dice.choice(bed.tokens)[1] if bed.tokens else bed.admin
    revoked = bed.dice.choice(bed.revoked) if bed.revoked else made_up
    token = bed.turn(
        (
            good,
            revoked,
            good[:-1] + ("a" if good[-1] != "a" else "b"),
            good.upper(),
            made_up,
            f"ph_00000000_{made_up}",
            f"{good[:12]}{made_up}",
            made_up * 40,
            bed.dice.choice(bed.jwts),
            bed.dice.choice(bed.jwts) + "x",
            bed.dice.choice(bed.jwts).replace(".", ".x", 1),
            "",
        )
    )
    method, request = bed.dice.choice(
        (
            ("GetHost", api.GetHostRequest()),
            ("ListRuns", api.ListRunsRequest()),
            ("ListEvents", api.ListEventsRequest()),
            ("WatchEvents", api.WatchEventsRequest()),
            ("CreateToken", api.CreateTokenRequest(principal="principals/nobody")),
            (
                "Deploy",
                _deployment(bed, "main", _settings(cts_text=bed.secret(Kind.REFUSED_VALUE), cts_x="1")),
            ),
        )
    )
    bed.call(method, request, token=token, most=1)


def headers(bed: Bed) -> None:
    """Secrets in what else comes with a call."""
    secret = bed.secret(Kind.HEADER)
    made_up = bed.secret(Kind.GUESS)
    some: tuple[list[tuple[str, str | bytes]], ...] = (
        [("x-api-key", secret)],
        [("cookie", f"session={secret}")],
        [("x-secret-bin", secret.encode())],
        [("authorization", f"Basic {made_up}")],
        [("authorization", f"Bearer {made_up}"), ("authorization", f"Bearer {made_up}")],
        [("authorization", made_up)],
        [("traceparent", secret), ("user-agent", secret), ("grpc-trace-bin", secret.encode())],
    )
    metadata = bed.turn(some)
    none = any(key == "authorization" for key, _ in metadata) or bed.dice.random() < 0.3
    bed.call("GetHost", api.GetHostRequest(), token="" if none else None, metadata=metadata)


def make_token(bed: Bed) -> None:
    """A new token; its secret may be in this one answer."""
    principal = bed.dice.choice(("principals/ada", "principals/build", "principals/nobody"))
    if bed.may_make_tokens or principal == "principals/nobody":
        request = api.CreateTokenRequest(principal=principal, description="for a test")
        request.request_id = str(uuid.uuid4())
        bed.token_made(bed.call("CreateToken", request))
        if bed.dice.random() < 0.5:
            bed.call("CreateToken", request)  # cannot be told again
    bed.call("ListTokens", api.ListTokensRequest(principal=principal))


def read_all(bed: Bed) -> None:
    """A page of everything that can be read."""
    for method in (
        *("ListPrincipals", "ListEnvironments", "ListPipelines", "ListRuns", "ListEvents"),
        *("GetHost", "ListArtifacts"),
    ):
        where = artifacts_pb2 if method == "ListArtifacts" else api
        request = getattr(where, f"{method}Request")()
        if "order_by" in request.DESCRIPTOR.fields_by_name and method == "ListEvents":
            request.order_by = "sequence desc"
        if "page_size" in request.DESCRIPTOR.fields_by_name:
            request.page_size = 100
        bed.call(method, request)
    name = f"environments/{bed.dice.choice((*EMBEDDED, *SIGNED))}"
    bed.call("GetQueue", api.GetQueueRequest(environment=name))
    bed.call("GetEnvironment", api.GetEnvironmentRequest(name=name))
    bed.call("ListConnections", api.ListConnectionsRequest(environment=name))


def change_record(bed: Bed) -> None:
    """An environment that has a credential is changed: the event has it before and after."""
    name = bed.dice.choice(SIGNED)
    change = Environment(name=f"environments/{name}", description=f"number {bed.dice.random()}")
    request = api.UpdateEnvironmentRequest(environment=change)
    request.update_mask.paths.append("description")
    bed.call("UpdateEnvironment", request)


def export_events(bed: Bed) -> None:
    """The newest part of the record as a file."""
    newest = bed.call("ListEvents", api.ListEventsRequest(order_by="sequence desc", page_size=1))
    if newest is not None and newest.events:
        first = max(1, newest.events[0].sequence - 300)
        bed.call("ExportEvents", api.ExportEventsRequest(first_sequence=first))


# On the command line.


def cli_deploy(bed: Bed) -> None:
    """Values on the command line and in files, right and wrong."""
    value = bed.secret(Kind.REFUSED_VALUE)
    reference = VAULT.format(bed.secret(Kind.SECRET_VALUE))
    sent = bed.secret(Kind.VALUE)
    vault = str(bed.package(2))
    form = ("-o", "json") if bed.dice.random() < 0.5 else ()
    case = bed.turn(range(10))
    if case == 0:
        bed.cli(
            "deploy",
            vault,
            "-p",
            "main",
            "--set",
            f"cts_text={sent}",
            "--set",
            f"cts_secret={reference}",
            *form,
        )
    elif case == 1:
        bed.cli("deploy", vault, "-p", "main", "--set", f"cts_number={value}", *form)
    elif case == 2:
        bed.cli(
            "deploy", vault, "-p", f"to-{bed.dice.choice(ENVIRONMENTS)}", "--set", f"cts_text={sent}", *form
        )
    elif case == 3:
        shape = {"EnvironmentVariables": [{"SchemaName": n, "Value": value} for n in VARIABLES]}
        path = bed.input("settings.json", json.dumps(shape))
        bed.cli("deploy", vault, "-p", "main", "--settings", str(path), *form)
    elif case == 4:  # no JSON
        broken = bed.dice.choice(
            ("{%s", '{"EnvironmentVariables": [{"Value": "%s}', '{"a": 1, "a": "%s"}', "%s")
        )
        path = bed.input("settings.json", broken % value)
        bed.cli("deploy", vault, "-p", "main", "--settings", str(path), *form)
    elif case == 5:  # JSON of another shape
        shapes: tuple[object, ...] = (
            {"EnvironmentVariables": {"cts_text": value}},
            {"EnvironmentVariables": [{"SchemaName": "cts_text", "Value": {"password": value}}]},
            {"EnvironmentVariables": [{"SchemaName": "cts_text", "Value": [value]}]},
            {"EnvironmentVariables": [value]},
            {"EnvironmentVariables": [{"SchemaName": "cts_text", "value": value}]},
            {"EnvironmentVariables": [{"Value": value}]},
            {"Variables": [{"SchemaName": "cts_text", "Value": value}]},
        )
        path = bed.input("settings.json", json.dumps(bed.dice.choice(shapes)))
        bed.cli("deploy", vault, "-p", "main", "--settings", str(path), *form)
    elif case == 6:
        bed.cli("deploy", vault, "-p", "main", "--set", f"cts_nothing={value}", *form)
    elif case == 7:  # no equals sign
        bed.cli("deploy", vault, "-p", "main", "--set", f"cts_text:{value.replace('=', '-')}", *form)
    elif case == 8:  # a moment that is none
        at, said = bed.secret(Kind.REFUSED_TEXT), _text(bed)
        bed.cli(
            "deploy", vault, "-p", "main", "--at", at, "--note", said, "--set", f"cts_text={value}", *form
        )
    else:
        bed.cli("deploy", vault, "-p", "nothing", "--set", f"cts_text={value}", *form)


def cli_credential(bed: Bed) -> None:
    """A credential from a file or from standard input."""
    secret = bed.secret(Kind.REFUSED_CREDENTIAL)
    stage = f"own-signed/{OWN['own-signed']}"
    name = bed.turn(("echo-sign-in", stage, SIGNED[0], "qa", "own-signed/nothing", SIGNED[1], "nothing"))
    if bed.dice.random() < 0.5:
        bed.cli("environment", "set-credential", name, "--secret-file", "-", stdin=secret + "\n")
    else:
        path = bed.input("secret", secret if bed.dice.random() < 0.7 else f"{secret}\n\n")
        bed.cli(
            "environment",
            "set-credential",
            name,
            bed.dice.choice(("--secret-file", "--certificate")),
            str(path),
        )
    if name == stage:
        bed.give_right_to_stage("own-signed")
    elif "/" not in name:
        bed.cli("environment", "check", name, *(("-o", "json") if bed.dice.random() < 0.5 else ()))


def cli_apply(bed: Bed) -> None:
    """Configuration files with a secret where none belongs, and files that are no YAML."""
    secret = bed.secret(Kind.USERINFO)
    password = quote(secret, safe="")
    url, quoted = "https://org.crm4.dynamics.com", json.dumps(secret)
    linked = "environments:\n  - name: linked\n    kind: target\n"
    sign_in = f"    url: {url}\n    sign_in:\n      method: client_secret\n      client_secret: {quoted}\n"
    staged = f"pipelines:\n  - name: own-signed\n    stages:\n      - name: {SIGNED[0]}\n"
    staged += f"        environment: {SIGNED[0]}\n"
    gate = "        gates:\n          - kind: approval\n            approvers: [ada]\n            webhook: "
    text = bed.turn(
        (
            f"{staged}        sign_in:\n          method: client_secret\n          client_secret: {quoted}\n",
            f"{staged}{gate}https://user:{password}@hooks.example.com\n",
            f"freezes:\n  - name: wrong\n    reason: a pause\n    secret: {quoted}\n",
            f"{linked}    url: {url.replace('//', f'//user:{password}@')}\n",
            f"{linked}{sign_in}",
            f"{linked}    secret: {quoted}\n",
            f"{linked}    password: {password}\n  broken: [\n",
            f"environments:\n  - {{name: linked, password: {password}\n",
            f"environments: {quoted}\n",
            f"environments:\n  - {quoted}\n",
        )
    )
    words = ("--dry-run",) if bed.dice.random() < 0.5 else ()
    bed.cli("apply", "-f", str(bed.input("hosts.yaml", text)), *words)


def cli_sign_in(bed: Bed) -> None:
    """Tokens on the command line, good and bad."""
    made_up = bed.secret(Kind.GUESS)
    if bed.dice.random() < 0.4 and bed.may_make_tokens:

        def secret_once(told: str) -> str:
            lines = told.split("\n")
            [line] = [n for n in lines if n.startswith("ph_")]
            with bed._lock:
                bed.canaries.watch(Kind.TOKEN, line)
            bed.revoked.append(line)
            bed.record.allowed["the secret on the standard output of `token create`"] += 1
            return told.replace(line, "", 1)

        told = bed.cli("token", "create", "build", expect=secret_once)
        assert told is not None
    elif bed.dice.random() < 0.5:
        good = bed.dice.choice(bed.tokens)[1] if bed.tokens else bed.admin
        if good != bed.admin:
            bed._own.add(good)
        bed.cli("login", "--as", "work", "--token-file", str(bed.input("token", good)), token="")
        bed.cli("whoami", "-o", "json", token="")
        bed.cli("profile", "list", token="")
    else:
        bed.cli("login", "--token-file", str(bed.input("token", made_up)), token="")
        bed.cli("login", token="", stdin=f"{bed.secret(Kind.MISPLACED)}\n")
        bed.cli("whoami", token=made_up)


def cli_read(bed: Bed) -> None:
    """What people look at."""
    run = bed.dice.choice(bed.runs[-30:]) if bed.runs else "runs/x"
    words = bed.turn(
        (
            ("event", "list", "-o", "json"),
            ("run", "list", "-o", "json"),
            ("run", "show", run, "-o", "json"),
            ("run", "show", run),
            ("run", "findings", run, "-o", "json"),
            ("run", "findings", run),
            ("get", "environment"),
            ("get", "principal"),
            ("environment", "show", SIGNED[0], "-o", "json"),
            ("environment", "check", bed.dice.choice(ENVIRONMENTS)),
            ("pipeline", "show", _GATED, "-o", "json"),
            ("pipeline", "show", _GATED),
            ("pipeline", "show", "own-signed"),
            ("freeze", "list"),
            ("token", "list", "ada", "-o", "json"),
            ("event", "export", str(bed.folder / "cli" / "record.jsonl"), "--force"),
            ("event", "verify"),
        )
    )
    bed.cli(*words)


# What happens to hosts.


def crash(bed: Bed) -> None:
    """The host is killed in the middle of whatever it does."""
    for _ in range(3):
        deploy(bed)
    bed.crash()


def rotate_key(bed: Bed) -> None:
    """Everything that is encrypted is encrypted anew."""
    bed.rotate_key()


def new_admin_token(bed: Bed) -> None:
    """The administrator gets another token."""
    bed.new_admin_token()


Operation = Callable[[Bed], None]

OPERATIONS: tuple[tuple[float, Operation], ...] = (
    (10, deploy),
    (2, deploy_and_see),
    (2, deploy_from_development),
    (10, deploy_refused),
    (3, deploy_signed_in),
    (8, deploy_to_hostile),
    (4, cancel_or_retry),
    (8, read_run),
    (10, validate),
    (2, describe),
    (6, set_credential),
    (8, set_credential_wrongly),
    (8, secret_in_an_address),
    (6, secret_in_the_field_beside),
    (6, secret_for_a_token_of_the_host),
    (12, bearer),
    (8, headers),
    (1.5, deploy_as_stage),
    (4, set_stage_credential),
    (5, set_stage_credential_wrongly),
    (4, change_stage),
    (1, gates_with_webhooks),
    (6, webhook_refused),
    (1, go_back),
    (2, take_over),
    (2, freeze),
    (4, freeze_wrongly),
    (2, make_token),
    (2, read_all),
    (3, change_record),
    (1, export_events),
    (1, cli_deploy),
    (0.7, cli_credential),
    (0.7, cli_apply),
    (0.7, cli_sign_in),
    (0.7, cli_read),
)
"""By weight: how often each is chosen."""

UPHEAVALS: tuple[Operation, ...] = (crash, rotate_key, crash, new_admin_token)
"""In turn, at even distances: they take a second each."""
