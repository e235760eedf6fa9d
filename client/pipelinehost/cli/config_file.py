"""What a host is configured with in a YAML file: read strictly, compared, written back the same.

The keys are the fields of the messages; names may be short (``qa`` for ``environments/qa``). A file says
everything about a resource that it names: what it leaves out is empty. Only who has which right stays as it
is where a file does not speak of it: a file from before somebody was let in, or kept out, does not undo that.
An empty list does (``shares: []``).
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from google.protobuf.message import Message
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipelinehost import names
from pipelinehost.cli.console import clean, plain
from pipelinehost.client import Client
from pipelinehost.errors import NotFound
from pipelinehost.v1.resources_pb2 import Environment, Freeze, Pipeline, Principal, Stage

_SET_BY_HOST = frozenset(
    {"etag", "create_time", "update_time", "organization_id", "taken_by", "taken_time", "creator"}
)
_LISTS: dict[str, type[Environment] | type[Pipeline] | type[Principal] | type[Freeze]] = {
    "principals": Principal,
    "environments": Environment,
    "pipelines": Pipeline,
    "freezes": Freeze,
}
_Resource: TypeAlias = Environment | Pipeline | Principal | Freeze
_Silent: TypeAlias = dict[str, tuple[str, ...]]
_Staged = TypeVar("_Staged", Environment, Pipeline, Principal, Stage)
Kind: TypeAlias = Literal["principal", "environment", "pipeline", "freeze"]
_STAYING: dict[str, tuple[str, ...]] = {
    "Pipeline": ("owner", "shares"),
    "Stage": ("holds",),
    "Environment": ("makers",),
    "Principal": ("disabled",),
    "Freeze": (),
}
"""The keys that leave what is there as it is when they are left out."""


class ConfigError(Exception):
    """A configuration file is not what it should be: its message names the file, the line and the remedy."""


@dataclass
class Config:
    """What a configuration file holds, in its order."""

    principals: list[Principal] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    pipelines: list[Pipeline] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    silent: _Silent = field(default_factory=dict)
    """By the name of a resource or a stage, what the file leaves as it is."""


@dataclass(frozen=True)
class Change:
    """What applying does to one resource."""

    kind: Kind
    name: str
    action: Literal["create", "update", "nothing"]
    fields: tuple[str, ...]
    """Top-level fields that differ."""
    differences: tuple[tuple[str, str, str], ...]
    """Path, what is there, what will be there."""
    do: Callable[[bool], object]
    """Does it; or, if told True, lets the host check it only."""


def read(text: str, source: str) -> Config:
    """Reads a configuration file.

    Args:
        text: its text.
        source: what to call it in errors.

    Raises:
        ConfigError: it is no YAML, or holds something that is not known; every such thing is listed.
    """
    yaml = YAML(typ="rt")
    try:
        root = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{line}: {error.problem or error.context}.") from error
    except YAMLError as error:
        raise ConfigError(f"{source}: {error}.") from error
    reader = _Reader()
    config = reader.config(root)
    if reader.problems:
        reader.problems.sort()
        raise ConfigError("\n".join(f"{source}, line {line}: {problem}" for line, problem in reader.problems))
    return config


def write(config: Config) -> str:
    """The file that says what the resources say; `read` gives the same resources back."""
    root: dict[str, Any] = {}
    if config.principals:
        root["principals"] = [_shown(p) for p in config.principals]
    if config.environments:
        root["environments"] = [_shown(e) for e in config.environments]
    if config.pipelines:
        root["pipelines"] = [_shown(p) for p in config.pipelines]
    if config.freezes:
        root["freezes"] = [_shown(f) for f in config.freezes]
    yaml = YAML(typ="rt")
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096  # a folded line would only make differences harder to read
    text = io.StringIO()
    yaml.dump(_quoted(root), text)
    return text.getvalue()


def _quoted(value: Any) -> Any:
    """The value with every text in quotes that YAML would fold or trim, or that a terminal would obey."""
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and (clean(value) != value or value != value.strip() or "\xa0" in value):
        return DoubleQuotedScalarString(value)
    return value


def compare(client: Client, config: Config) -> Iterator[Change]:
    """What applying the file would do, resource by resource, in the order in which they need each other."""
    for principal in sorted(config.principals, key=_late):
        yield _compare_principal(client, principal, config.silent)
    for environment in config.environments:
        yield _compare_environment(client, environment, config.silent)
    for pipeline in config.pipelines:
        yield _compare_pipeline(client, pipeline, config.silent)
    for freeze in config.freezes:
        yield _compare_freeze(client, freeze)


def needs(config: Config) -> dict[str, set[str]]:
    """Which other resources each resource of the file names."""
    named = {p.name: {*p.members, p.person} for p in config.principals}
    named |= {e.name: {*e.makers} for e in config.environments}
    for pipeline in config.pipelines:
        named[pipeline.name] = {
            pipeline.owner,
            *(share.principal for share in pipeline.shares),
            *pipeline.development_environments,
            *(stage.environment for stage in pipeline.stages),
            *(name for stage in pipeline.stages for gate in stage.gates for name in gate.approvers),
        }
    return named | {f.name: {"/".join(f.scope.split("/")[:2])} for f in config.freezes}


def _late(principal: Principal) -> int:
    """Persons before their services, and both before their groups."""
    return principal.kind


def _compare_principal(client: Client, wanted: Principal, silent: _Silent) -> Change:
    try:
        there = client.principal(wanted.name)
    except NotFound:
        return _creation(
            "principal", wanted, lambda check: client.create_principal(wanted, validate_only=check)
        )
    _leave(silent, there, wanted)
    fields = _changed_fields(there, wanted)
    wanted.etag = there.etag
    return _update(
        "principal",
        there,
        wanted,
        fields,
        lambda check: client.update_principal(wanted, fields, validate_only=check),
    )


def _compare_environment(client: Client, wanted: Environment, silent: _Silent) -> Change:
    try:
        there = client.environment(wanted.name)
    except NotFound:
        return _creation(
            "environment", wanted, lambda check: client.create_environment(wanted, validate_only=check)
        )
    _leave(silent, there, wanted)
    fields = _changed_fields(there, wanted)
    wanted.etag = there.etag
    return _update(
        "environment",
        there,
        wanted,
        fields,
        lambda check: client.update_environment(wanted, fields, validate_only=check),
    )


def _compare_pipeline(client: Client, wanted: Pipeline, silent: _Silent) -> Change:
    try:
        there = client.pipeline(wanted.name)
    except NotFound:
        return _creation(
            "pipeline", wanted, lambda check: client.create_pipeline(wanted, validate_only=check)
        )
    _leave(silent, there, wanted)
    stages = {s.name: s for s in there.stages}
    for stage in wanted.stages:
        _leave(silent, stages.get(stage.name, Stage()), stage)
    fields = _changed_fields(there, wanted)
    wanted.etag = there.etag
    return _update(
        "pipeline",
        there,
        wanted,
        fields,
        lambda check: client.update_pipeline(wanted, fields, validate_only=check),
    )


def _compare_freeze(client: Client, wanted: Freeze) -> Change:
    try:
        there = client.freeze(wanted.name)
    except NotFound:
        return _creation("freeze", wanted, lambda check: client.create_freeze(wanted, validate_only=check))
    fields = _changed_fields(there, wanted)
    wanted.etag = there.etag
    return _update(
        "freeze",
        there,
        wanted,
        fields,
        lambda check: client.update_freeze(wanted, fields, validate_only=check),
    )


def _left_out(resource: _Resource | Stage, written: dict[str, Any]) -> tuple[str, ...]:
    return tuple(k for k in _STAYING[resource.DESCRIPTOR.name] if written.get(k) in (None, ""))


def _leave(silent: _Silent, there: _Staged, wanted: _Staged) -> None:
    kept = type(there)()
    kept.CopyFrom(there)
    for name in there.DESCRIPTOR.fields_by_name:
        if name not in silent.get(wanted.name, ()):
            kept.ClearField(name)
    wanted.MergeFrom(kept)


def _creation(
    kind: Kind,
    wanted: _Resource,
    do: Callable[[bool], object],
) -> Change:
    return Change(kind, wanted.name, "create", (), tuple(_differences({}, _shown(wanted))), do)


def _update(
    kind: Kind,
    there: _Resource,
    wanted: _Resource,
    fields: tuple[str, ...],
    do: Callable[[bool], object],
) -> Change:
    differences = tuple(_differences(_shown(there), _shown(wanted)))
    return Change(kind, wanted.name, "update" if fields else "nothing", fields, differences, do)


def _changed_fields(there: Message, wanted: Message) -> tuple[str, ...]:
    before, after = plain(there), plain(wanted)
    return tuple(f for f in after if f not in _SET_BY_HOST and _meaning(before[f]) != _meaning(after[f]))


def _meaning(value: Any) -> Any:
    """The value without what is empty: a stage without settings is a stage with empty settings."""
    if isinstance(value, dict):
        kept = {k: _meaning(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, "", {}, [])}
    return [_meaning(v) for v in value] if isinstance(value, list) else value


def _shown(resource: _Resource) -> dict[str, Any]:
    shown: dict[str, Any] = _meaning({k: v for k, v in plain(resource).items() if k not in _SET_BY_HOST})
    shown["name"] = names.slug(resource.name)
    for key in ("kind", "role"):
        if key in shown:
            shown[key] = shown[key].lower()
    for signing in (shown, *shown.get("stages", [])):
        if "method" in signing.get("sign_in", {}):
            signing["sign_in"]["method"] = signing["sign_in"]["method"].lower()
    for key in ("allow_redeployment", "disabled"):
        if not shown.get(key, True):
            del shown[key]
    for key in ("owner", "person"):
        if key in shown:
            shown[key] = names.slug(shown[key])
    for key in ("makers", "members"):
        if key in shown:
            shown[key] = [names.slug(p) for p in shown[key]]
    if "scope" in shown:
        shown["scope"] = shown["scope"].removeprefix("pipelines/").replace("/stages/", "/")
    for share in shown.get("shares", []):
        share["principal"] = names.slug(share["principal"])
        share["access"] = share["access"].lower()
    if "development_environments" in shown:
        shown["development_environments"] = [names.slug(e) for e in shown["development_environments"]]
    for stage in shown.get("stages", []):
        stage["name"] = names.slug(stage["name"])
        if "environment" in stage:
            stage["environment"] = names.slug(stage["environment"])
        for gate in stage.get("gates", []):
            gate["kind"] = gate["kind"].lower()
            gate["approvers"] = [names.slug(a) for a in gate.get("approvers", [])]
            for number in ("required", "timeout_seconds"):  # JSON has the larger ones as text
                if int(gate.get(number, 0)):
                    gate[number] = int(gate[number])
                else:
                    gate.pop(number, None)
    return shown


def _differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list | None) and isinstance(after, list | None) and _keyed(before, after):
        one, other = _by_key(before), _by_key(after)
        if list(one) != list(other):
            yield path, ", ".join(one) or "(empty)", ", ".join(other) or "(empty)"
        for key in [*one, *(k for k in other if k not in one)]:
            yield from _differences(one.get(key, {}), other.get(key, {}), f"{path}[{key}]")
    elif isinstance(after, dict) or isinstance(before, dict):
        yield from _differences(before or {}, after or {}, path)
    elif before != after:
        yield path, _told(False if before is None and after is True else before), _told(after)


_KEYS = ("name", "schema_name", "logical_name", "principal", "certificate", "subject", "kind", "solution")


def _keyed(*lists: list[Any] | None) -> bool:
    items = [item for listed in lists for item in listed or []]
    return bool(items) and all(isinstance(item, dict) for item in items)


def _by_key(listed: list[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    return {next(str(item[key]) for key in _KEYS if key in item): item for item in listed or []}


def _told(value: Any) -> str:
    if value is None:
        return "(empty)"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Reader:
    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []

    def config(self, root: Any) -> Config:
        config = Config()
        if not isinstance(root, dict):
            self.problems.append(
                (1, "write `principals:`, `environments:`, `pipelines:` and `freezes:`, each with a list.")
            )
            return config
        for key, listed in root.items():
            if key not in _LISTS:
                self._unknown(_line(root, key), str(key), list(_LISTS))
            elif not isinstance(listed, list):
                self.problems.append((_line(root, key), f"`{key}` is not a list."))
            else:
                self._resources(key, listed, config)
        return config

    def _resources(self, key: str, listed: list[Any], config: Config) -> None:
        seen: set[str] = set()
        for index, item in enumerate(listed):
            resource = _LISTS[key]()
            at = _item_line(listed, index)
            if self._message(item, resource, at):
                resource.name = self._full(at, key, resource.name)
                config.silent[resource.name] = _left_out(resource, item)
                if resource.name in seen:
                    self.problems.append((at, f"`{names.slug(resource.name)}` stands in this file twice."))
                seen.add(resource.name)
                if isinstance(resource, Pipeline):
                    self._names_in(resource, at)
                    for stage, written in zip(resource.stages, item.get("stages") or (), strict=True):
                        config.silent[stage.name] = _left_out(stage, written)
                if isinstance(resource, Freeze) and resource.scope:
                    resource.scope = self._scope(at, resource.scope)
                if isinstance(resource, Environment):
                    resource.makers[:] = [self._full(at, "principals", p) for p in resource.makers]
                if isinstance(resource, Principal):
                    resource.members[:] = [self._full(at, "principals", p) for p in resource.members]
                    if resource.person:
                        resource.person = self._full(at, "principals", resource.person)
                getattr(config, key).append(resource)

    def _names_in(self, pipeline: Pipeline, at: int) -> None:
        pipeline.development_environments[:] = [
            self._full(at, "environments", e) for e in pipeline.development_environments
        ]
        if pipeline.owner:
            pipeline.owner = self._full(at, "principals", pipeline.owner)
        for share in pipeline.shares:
            share.principal = self._full(at, "principals", share.principal)
        for stage in pipeline.stages:
            slug = names.slug(self._full(at, "stages", stage.name.removeprefix(f"{pipeline.name}/")))
            stage.name = f"{pipeline.name}/stages/{slug}"
            stage.environment = self._full(at, "environments", stage.environment)
            for gate in stage.gates:
                gate.approvers[:] = [self._full(at, "principals", a) for a in gate.approvers]

    def _scope(self, at: int, scope: str) -> str:
        pipeline, slash, stage = scope.removeprefix("pipelines/").partition("/")
        full = self._full(at, "pipelines", pipeline)
        return f"{full}/{self._full(at, 'stages', stage.removeprefix('stages/'))}" if slash else full

    def _full(self, at: int, collection: str, name: str) -> str:
        slug = name.removeprefix(f"{collection}/")
        if not names.is_slug(slug):
            what = f"`{name}` is not a name" if name else "a name is missing"
            self.problems.append(
                (at, f"{what}: lower case letters, digits and hyphens, a letter first, at most 63.")
            )
        return f"{collection}/{slug}"

    def _message(self, item: Any, into: Message, at: int) -> bool:
        if not isinstance(item, dict):
            self.problems.append((at, "write `key: value` lines here."))
            return False
        fields = into.DESCRIPTOR.fields_by_name
        before = len(self.problems)
        known = [name for name in fields if name not in _SET_BY_HOST]
        for key, value in item.items():
            line = _line(item, key)
            if key in _SET_BY_HOST and key in fields:
                self.problems.append((line, f"`{key}` is set by the host; leave it out."))
            elif key not in known:
                self._unknown(line, str(key), known)
            elif value is not None:
                self._field(fields[key], value, into, line)
            elif key in _STAYING.get(into.DESCRIPTOR.name, ()) and fields[key].is_repeated:
                self.problems.append(
                    (line, f"`{key}` is empty: write `{key}: []` to take all away, or leave the key out.")
                )
        return len(self.problems) == before

    def _field(self, field_: Any, value: Any, into: Message, line: int) -> None:
        target = getattr(into, field_.name)
        if field_.message_type is not None and field_.message_type.GetOptions().map_entry:
            if not isinstance(value, dict):
                self.problems.append((line, f"`{field_.name}` takes `key: value` lines."))
                return
            for key, item in value.items():
                if self._text(item, f"{field_.name}.{key}", _line(value, key)):
                    target[str(key)] = str(item)
        elif field_.is_repeated:
            if not isinstance(value, list):
                self.problems.append((line, f"`{field_.name}` takes a list."))
                return
            for index, item in enumerate(value):
                at = _item_line(value, index)
                if field_.message_type is not None:
                    self._message(item, target.add(), at)
                elif self._text(item, field_.name, at):
                    target.append(str(item))
        elif field_.message_type is not None:
            self._message(value, target, line)
            target.SetInParent()
        else:
            self._scalar(field_, value, into, line)

    def _scalar(self, field_: Any, value: Any, into: Message, line: int) -> None:
        if field_.enum_type is not None:
            first = field_.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            words = {
                v.name.removeprefix(first).lower(): v.number for v in field_.enum_type.values if v.number
            }
            if not isinstance(value, str) or value.lower() not in words:
                self.problems.append((line, f"`{field_.name}` is one of {', '.join(words)}."))
            else:
                setattr(into, field_.name, words[value.lower()])
        elif field_.cpp_type == field_.CPPTYPE_BOOL:
            if isinstance(value, bool):
                setattr(into, field_.name, value)
            else:
                self.problems.append((line, f"`{field_.name}` is true or false."))
        elif field_.cpp_type in (field_.CPPTYPE_INT32, field_.CPPTYPE_INT64):
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
                setattr(into, field_.name, value)
            else:
                self.problems.append((line, f"`{field_.name}` is a number, 0 or more."))
        elif self._text(value, field_.name, line):
            setattr(into, field_.name, str(value))

    def _text(self, value: Any, name: str, line: int) -> bool:
        if isinstance(value, str):
            return True
        self.problems.append((line, f"`{name}` takes a text: put the value into quotes."))
        return False

    def _unknown(self, line: int, key: str, known: list[str]) -> None:
        close = difflib.get_close_matches(key, known, 1)
        remedy = f"Do you mean `{close[0]}`?" if close else f"Known are {', '.join(known)}."
        self.problems.append((line, f"`{key}` is not known here. {remedy}"))


def _line(mapping: Any, key: Any) -> int:
    return int(mapping.lc.key(key)[0]) + 1


def _item_line(listed: Any, index: int) -> int:
    return int(listed.lc.item(index)[0]) + 1
