"""Any sequence of operations leaves an environment as the rules of layers say.

In CI a bounded, repeatable run that shows the first sequence that fails as it is. To search longer and
elsewhere each time, down to the shortest one: ``EMULATOR_EXAMPLES=100 pytest -o faulthandler_timeout=0``.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.unit.emulator.asked import Asked, import_body, package
from tests.unit.emulator.layer_model import Layer, LayerModel

from pipelinehost_dataverse.solution import (
    ConnectionReference,
    Flow,
    Part,
    WebResource,
    cloud_flow,
    derived_id,
    missing,
)

EXAMPLES = int(os.environ.get("EMULATOR_EXAMPLES", "0"))
REFERENCES = ("ref0", "ref1")
FLOWS = ("flow0", "flow1")
KINDS = {"ref": "connectionreference", "flow": "workflow", "web": "webresource"}
RESOURCES = ("web0",)
PUBLISHERS = {"Base": "contoso", "Extra": "contoso", "Foreign": "fabrikam"}
PATCHES = {"Base_P1": "Base", "Base_P2": "Base"}
MESSAGES = {"update": "ImportSolution", "hold": "ImportSolution", "upgrade": "StageAndUpgrade"}

steps = st.sampled_from([1, 1, 1, 1, 1, 1, 0, -1])
oddities = st.sampled_from(["", "", "", "", "", "", "publisher", "content"])
words = st.sampled_from(["a", "b", "c"])
names = st.sampled_from(sorted(PUBLISHERS))
said_of = {
    **dict.fromkeys(REFERENCES, words),
    **{name: st.frozensets(st.sampled_from(REFERENCES), max_size=2) for name in FLOWS},
    **{name: st.sampled_from(["1", "2", "3"]) for name in RESOURCES},
}
flows_only = st.fixed_dictionaries({FLOWS[0]: said_of[FLOWS[0]]}, optional={FLOWS[1]: said_of[FLOWS[1]]})
references_only = st.fixed_dictionaries({}, optional={name: said_of[name] for name in REFERENCES})
parts = st.one_of(flows_only, references_only, st.fixed_dictionaries({}, optional=said_of))
Parts = Mapping[str, str | frozenset[str]]


def layer_of(name: str, content: str | frozenset[str]) -> Layer:
    """What a package says of a component, as the environment's tables show it."""
    if isinstance(content, frozenset):
        return Layer((name, " ".join(sorted(content))), content)
    return Layer((content, "") if name in REFERENCES else (f"cts_{name}", content), frozenset())


def part_of(name: str, content: str | frozenset[str]) -> Part:
    if isinstance(content, frozenset):
        return cloud_flow(name, connection_references=sorted(content))
    if name in REFERENCES:
        return ConnectionReference(name, content, "", "/providers/Microsoft.PowerApps/apis/shared_x")
    return WebResource(f"cts_{name}", content.encode(), type=int(content))


def built(
    name: str, version: tuple[int, int, int], content: Parts, publisher: str, *, patch_of: str = "",
    managed: bool = True,
) -> bytes:  # fmt: skip
    made = [part_of(*pair) for pair in content.items()]
    needs = [
        missing(("connectionreference", reference), ("workflow", flow.id))
        for flow in made
        if isinstance(flow, Flow)
        for reference in flow.connection_references
        if reference not in content
    ]
    return package(
        name,
        ".".join(map(str, version)),
        *made,
        managed=managed,
        publisher=publisher,
        missing=needs,
        patch_of=(patch_of, "1.0") if patch_of else None,
    )


COMPONENTS = {
    **{derived_id("workflow", name): name for name in FLOWS},
    **{name: name for name in REFERENCES},
    **{f"cts_{name}": name for name in RESOURCES},
}
"""Key to the name that the model uses."""


class Environments(RuleBasedStateMachine):
    """An embedded environment and the model, side by side."""

    @initialize(content=parts)
    def begin(self, content: Parts) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.asked = Asked.open(Path(self.folder.name) / "e.sqlite")
        self.model = LayerModel()
        self.refused = 0
        self.bring("Base", content, "update", 0, False, "")

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run(self.asked.__aexit__(None, None, None))
            self.loop.close()
            self.folder.cleanup()

    def ask(self, method: str, path: str, body: object = None) -> tuple[str, str]:
        """The error code of a request, and its message; empty where it was done."""
        answer = self.loop.run(self.asked.request(method, path, body))
        if answer.status_code < 300:
            return "", ""
        error = answer.json()["error"]
        return error["code"][2:].upper(), error["message"]

    def agree(self, expected: set[str], method: str, path: str, body: object = None) -> None:
        code, message = self.ask(method, path, body)
        if expected:
            self.refused += 1
            assert code in expected, f"{path}: {code or 'done'} {message}, the rules say {expected}"
        else:
            assert not code, f"{path}: {code} {message}, the rules allow it"

    def get(self, path: str) -> Any:
        return self.loop.run(self.asked.get(path))

    def object_ids(self) -> dict[str, str]:
        """Component to its id in the environment."""
        rows = self.get("msdyn_solutioncomponentsummaries?$select=msdyn_objectid,msdyn_uniquename")
        return {COMPONENTS[row["msdyn_uniquename"]]: row["msdyn_objectid"] for row in rows}

    # -- what happens --------------------------------------------------------------------------------------

    def sensible(self, content: Parts, *, managed: bool = True) -> Parts:
        """Without what would be refused: components that only makers have, references that nobody has."""
        model = self.model
        only = {part for part in model.makers if managed and not model.managed(part)}
        kept = {part: said for part, said in content.items() if part not in only}
        there = {part for part in model.components() if model.managed(part) or not managed} | set(kept)
        return {part: said & there if isinstance(said, frozenset) else said for part, said in kept.items()}

    def bring(self, name: str, content: Parts, mode: str, step: int, overwrite: bool, odd: str) -> None:
        there = self.model.stack.get(name)
        version = (1, (there.version[1] if there else 4) + step, 0)
        who = "fabrikam" if odd == "publisher" else PUBLISHERS[name]
        if odd != "content":
            content = self.sensible(content)
        layers = {part: layer_of(part, said) for part, said in content.items()}
        expected = self.model.install(name, who, version, layers, mode, overwrite=overwrite)
        body = import_body(
            built(name, version, content, who), OverwriteUnmanagedCustomizations=overwrite,
            **({"HoldingSolution": True} if mode == "hold" else {}),
        )  # fmt: skip
        self.agree(expected, "POST", MESSAGES[mode], body)

    @rule(name=names, content=parts, step=steps, overwrite=st.booleans(), odd=oddities)
    def install_or_update(self, name: str, content: Parts, step: int, overwrite: bool, odd: str) -> None:
        self.bring(name, content, "update", step, overwrite, odd)

    @precondition(lambda self: self.model.stack or self.refused < 3)
    @rule(content=parts, data=st.data(), step=steps, overwrite=st.booleans(), odd=oddities)
    def upgrade(self, content: Parts, data: st.DataObject, step: int, overwrite: bool, odd: str) -> None:
        self.bring(self._installed(data), content, "upgrade", step, overwrite, odd)

    @precondition(lambda self: self.model.stack or self.refused < 3)
    @rule(content=parts, data=st.data(), step=steps, overwrite=st.booleans(), odd=oddities)
    def hold(self, content: Parts, data: st.DataObject, step: int, overwrite: bool, odd: str) -> None:
        self.bring(self._installed(data), content, "hold", step, overwrite, odd)

    def needy(self) -> list[tuple[str, str]]:
        """Flows of installed solutions that need something, with their solution."""
        found = [(n, c) for n, s in self.model.stack.items() for c, layer in s.layers.items() if layer.needs]
        return sorted(pair for pair in found if pair[0] in PUBLISHERS)

    @precondition(lambda self: self.needy())
    @rule(data=st.data())
    def need_nothing(self, data: st.DataObject) -> None:
        """An update of one flow only, which needs nothing any more."""
        name, flow = data.draw(st.sampled_from(self.needy()))
        self.bring(name, {flow: frozenset()}, "update", 1, False, "")

    def _installed(self, data: st.DataObject) -> str:
        there = [name for name in PUBLISHERS if name in self.model.stack]
        return str(data.draw(st.sampled_from(there or list(PUBLISHERS))))

    @precondition(lambda self: "Base" in self.model.stack or self.refused < 3)
    @rule(
        name=st.sampled_from(sorted(PATCHES)),
        content=parts,
        build=st.sampled_from([1, 1, 1, 1, 0, -1]),
        odd=st.sampled_from(["", "", "", "", "minor", "content"]),
    )
    def patch(self, name: str, content: Parts, build: int, odd: str) -> None:
        parent = PATCHES[name]
        there = self.model.stack.get(parent)
        minor = there.version[1] if there else 4
        builds = [self.model.stack[patch].version[2] for patch in self.model.patches(parent)]
        version = (1, minor + (odd == "minor"), max([0, *builds]) + build + (build < 0 and not builds))
        if odd != "content":
            content = self.sensible(content)
        layers = {part: layer_of(part, said) for part, said in content.items()}
        expected = self.model.install(name, "contoso", version, layers, "update", patch_of=parent)
        body = import_body(built(name, version, content, "contoso", patch_of=parent))
        self.agree(expected, "POST", "ImportSolution", body)

    @precondition(lambda self: self.model.waiting() or (self.model.stack and self.refused < 3))
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        waiting = self.model.waiting()
        name = data.draw(st.sampled_from(waiting * 9 + list(self.model.stack)))
        self.agree(self.model.promote(name), "POST", "DeleteAndPromote", {"UniqueName": name})

    @precondition(lambda self: self.model.stack)
    @rule(data=st.data())
    def uninstall(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.model.stack)))
        row = self.loop.run(self.asked.solution(name))
        self.agree(self.model.uninstall(name), "DELETE", f"solutions({row['solutionid']})")

    @rule(content=parts, version=st.integers(1, 2), odd=st.sampled_from([False, False, False, True]))
    def fill(self, content: Parts, version: int, odd: bool) -> None:
        if not odd:
            content = self.sensible(content, managed=False)
        layers = {part: layer_of(part, said) for part, said in content.items()}
        name = f"Draft{version}"
        body = import_body(built(name, (1, 0, 0), content, "contoso", managed=False))
        self.agree(self.model.fill(name, layers), "POST", "ImportSolution", body)

    @precondition(lambda self: self.model.bags)
    @rule(data=st.data())
    def delete_container(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.bags)))
        del self.model.bags[name]
        row = self.loop.run(self.asked.solution(name))
        self.agree(set(), "DELETE", f"solutions({row['solutionid']})")

    @precondition(lambda self: self.model.components())
    @rule(data=st.data())
    def customize(self, data: st.DataObject) -> None:
        component = data.draw(st.sampled_from(sorted(self.model.components())))
        old, id_ = self.model.known(component), self.object_ids()[component]
        if component in FLOWS:
            there = [name for name in REFERENCES if name in self.model.components()]
            used = data.draw(st.frozensets(st.sampled_from(there or [""]), max_size=min(2, len(there))))
            self.model.say(component, Layer((old.content[0], " ".join(sorted(used))), frozenset(used)))
            connections = {
                name: {"connection": {"connectionReferenceLogicalName": name}} for name in sorted(used)
            }
            text = json.dumps({"properties": {"connectionReferences": connections}})
            self.agree(set(), "PATCH", f"workflows({id_})", {"clientdata": text})
            return
        word = data.draw(st.sampled_from(["x", "y"]))
        self.model.say(component, Layer((word, old.content[1]), old.needs))
        if component in REFERENCES:
            change = {"connectionreferencedisplayname": word}
            self.agree(set(), "PATCH", f"connectionreferences({id_})", change)
        else:
            body = {"SolutionComponentName": "WebResource", "ComponentId": id_, "Name": word}
            self.agree(set(), "POST", "emulator_CustomizeComponent", body)

    @precondition(lambda self: self.model.makers)
    @rule(data=st.data())
    def remove_customizations(self, data: st.DataObject) -> None:
        component = data.draw(st.sampled_from(sorted(self.model.makers)))
        kind = KINDS[component.rstrip("0123456789")]
        id_ = self.object_ids()[component]
        call = f"RemoveActiveCustomizations(SolutionComponentName='{kind}',ComponentId={id_})"
        self.agree(self.model.forget(component), "GET", call)

    @precondition(lambda self: any(makers.pending for makers in self.model.makers.values()))
    @rule()
    def publish(self) -> None:
        self.model.publish()
        self.agree(set(), "POST", "PublishAllXml", {})

    # -- what must hold ------------------------------------------------------------------------------------

    @invariant()
    def the_environment_is_as_the_rules_say(self) -> None:
        rows = self.get("solutions?$filter=isvisible eq true")
        shown = {row["uniquename"]: (row["version"], row["ismanaged"]) for row in rows}
        expected = {n: (".".join(map(str, s.version)), True) for n, s in self.model.stack.items()}
        assert shown == expected | dict.fromkeys(self.model.bags, ("1.0.0", False))
        ids = self.object_ids()
        names = {id_: name for name, id_ in ids.items()}
        found: dict[str, list[tuple[str, tuple[str, str]]]] = {}
        for row in self.get("msdyn_componentlayers"):
            facts, component = json.loads(row["msdyn_componentjson"]), names[row["msdyn_componentid"]]
            rest = ""
            if component in FLOWS:
                rest = " ".join(sorted(facts["references"]))
            elif component in RESOURCES:
                rest = facts["type"]
            layer = (row["msdyn_solutionname"], (row["msdyn_name"], rest))
            found.setdefault(component, []).append(layer)
        assert found == {name: self.model.layers(name) for name in self.model.components()}
        self._tops_agree()
        for name in self.model.stack:
            rows = self.get(f"RetrieveDependenciesForUninstall(SolutionUniqueName='{name}')")
            pairs = {(row["dependentcomponentobjectid"], row["requiredcomponentobjectid"]) for row in rows}
            blockers = self.model.blockers(self.model.leaving(name))
            assert pairs == {(ids[one], ids[other]) for one, other in blockers}
        for name, bag in self.model.bags.items():
            members = self.loop.run(self.asked.components(name))
            assert {COMPONENTS[key] for _, key in members} == bag

    def _tops_agree(self) -> None:
        """Connection references show what makers published, else the top of the stack."""
        for row in self.get("connectionreferences"):
            name = row["connectionreferencelogicalname"]
            makers = self.model.makers.get(name)
            below = [s.layers[name] for s in self.model.stack.values() if name in s.layers]
            top = makers.published if makers and makers.published else below[-1]
            assert row["connectionreferencedisplayname"] == top.content[0]
            assert row["ismanaged"] is bool(below)


@pytest.mark.parametrize("number", range(8))
def test_any_order_of_operations_leaves_what_the_rules_say(number: int) -> None:
    """Several seeds, since what one seed generates is much alike."""
    machine = type(f"Environments{number}", (Environments,), {})
    if not EXAMPLES:
        seed(number)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 8,
            stateful_step_count=30,
            phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
