"""The rules of layers in a few lines, written from Microsoft's rules and not from the engine.

Managed solutions are a stack; makers have one layer above it; unmanaged solutions are bags of components.
A component exists while anybody has a layer of it, and what counts is the top.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Content = tuple[str, str]
"""Display name, and whatever else shows."""


@dataclass
class Layer:
    """What somebody says about one component."""

    content: Content
    needs: frozenset[str]


@dataclass
class Managed:
    """An installed managed solution."""

    publisher: str
    version: tuple[int, int, int]
    layers: dict[str, Layer] = field(default_factory=dict)
    patch_of: str = ""
    upgrade_of: str = ""


@dataclass
class Makers:
    """The makers' layer of one component: what is published, and what is not yet."""

    published: Layer | None = None
    pending: Layer | None = None

    @property
    def shown(self) -> Layer:
        layer = self.published or self.pending
        assert layer is not None
        return layer


class LayerModel:
    """An environment as the rules see it. Whatever is refused says why, by the codes that would fit."""

    def __init__(self) -> None:
        self.stack: dict[str, Managed] = {}
        """By name, the lowest first."""
        self.makers: dict[str, Makers] = {}
        self.bags: dict[str, set[str]] = {}

    # -- what there is -------------------------------------------------------------------------------------

    def layers(self, component: str) -> list[tuple[str, Content]]:
        """Who says what about a component, the lowest first."""
        found = [(n, s.layers[component].content) for n, s in self.stack.items() if component in s.layers]
        if component in self.makers:
            found.append(("Active", self.makers[component].shown.content))
        return found

    def components(self) -> set[str]:
        return {c for s in self.stack.values() for c in s.layers} | set(self.makers)

    def managed(self, component: str) -> bool:
        return any(component in s.layers for s in self.stack.values())

    def holding(self, name: str) -> str:
        return next((n for n, s in self.stack.items() if s.upgrade_of == name), "")

    def waiting(self) -> list[str]:
        """What could be promoted."""
        return [solution.upgrade_of for solution in self.stack.values() if solution.upgrade_of]

    def patches(self, name: str) -> list[str]:
        return [n for n, s in self.stack.items() if s.patch_of == name]

    # -- what forbids a removal ----------------------------------------------------------------------------

    def blockers(self, leaving: Iterable[str]) -> set[tuple[str, str]]:
        """Pairs of a component that stays and one that it needs and that would go."""
        stay = {n: s for n, s in self.stack.items() if n not in set(leaving)}
        left = {c for s in stay.values() for c in s.layers} | set(self.makers)
        gone = self.components() - left
        says = [pair for s in stay.values() for pair in s.layers.items()]
        for component, makers in self.makers.items():
            says += [(component, layer) for layer in (makers.published, makers.pending) if layer]
        return {(component, need) for component, layer in says for need in layer.needs & gone}

    def foreign(self, leaving: Iterable[str]) -> bool:
        """Whether a base layer would go from under a managed layer of another publisher."""
        going = set(leaving)
        for component in self.components():
            having = [n for n, s in self.stack.items() if component in s.layers]
            staying = [n for n in having if n not in going]
            if (
                having
                and staying
                and having[0] in going
                and self.stack[having[0]].publisher != self.stack[staying[0]].publisher
            ):
                return True
        return False

    def leaving(self, name: str) -> list[str]:
        return [name, *self.patches(name)]

    # -- operations: each gives the codes that fit, and changes the environment only where there are none ---

    def install(
        self,
        name: str,
        publisher: str,
        version: tuple[int, int, int],
        parts: Mapping[str, Layer],
        mode: str,
        *,
        overwrite: bool = False,
        patch_of: str = "",
    ) -> set[str]:
        """Import a managed package as ``update``, ``hold`` or ``upgrade``."""
        there, base = self.stack.get(name), self.stack.get(patch_of)
        why = set()
        if patch_of:
            if mode != "update" or base is None:
                why.add("80048033")
            if base is not None:
                others = [self.stack[patch].version for patch in self.patches(patch_of)]
                if version in others:
                    why.add("8004F042")
                elif version[:2] != base.version[:2] or version <= max([base.version, *others]):
                    why.add("80048539")
                if self.holding(patch_of):
                    why.add("80048539")
                if base.publisher != publisher:
                    why.add("8004801C")
        else:
            if there and there.publisher != publisher:
                why.add("8004801C")
            if there and (version < there.version or (mode != "update" and version == there.version)):
                why.add("80048541")
            if not there and mode != "update":
                why.add("80048033")
            if self.holding(name):
                why.add("80048539")
        needed = {need for layer in parts.values() for need in layer.needs} - set(parts)
        if any(not self.managed(need) for need in needed):
            why.add("8004801D")
        if any(part in self.makers and not self.managed(part) for part in parts):
            why.add("8004F016")
        if why:
            return why
        if mode == "update":
            if there is None:
                there = Managed(publisher, version, patch_of=patch_of)
                self._insert(name, there, above=patch_of)
            there.version = version
            there.layers.update(copy.deepcopy(dict(parts)))
        else:
            coming = Managed(publisher, version, copy.deepcopy(dict(parts)), upgrade_of=name)
            self._insert(f"{name}_Upgrade", coming, above=name)
        if overwrite:
            for part in parts:
                self.makers.pop(part, None)
        if mode == "upgrade":
            return {"8004F046"} if self.promote(name) else set()
        return set()

    def _insert(self, name: str, solution: Managed, *, above: str) -> None:
        names = list(self.stack)
        places = [names.index(n) for n in names if above and n in self.leaving(above)]
        names.insert(max(places) + 1 if places else len(names), name)
        self.stack[name] = solution
        self.stack = {n: self.stack[n] for n in names}

    def promote(self, name: str) -> set[str]:
        """Let what is held take the place of the base and its patches."""
        if name not in self.stack or self.stack[name].patch_of or self.stack[name].upgrade_of:
            return {"8004853C"}
        coming = self.holding(name)
        if not coming:
            return {"8004853B"}
        leaving = self.leaving(name)
        if self.blockers(leaving) or self.foreign(leaving):
            return {"8004F01D"}
        kept = {n: s for n, s in self.stack.items() if n not in leaving}
        kept[coming].upgrade_of = ""
        self.stack = {name if n == coming else n: s for n, s in kept.items()}
        self._sweep()
        return set()

    def uninstall(self, name: str) -> set[str]:
        leaving = self.leaving(name)
        if self.holding(name) or self.blockers(leaving) or self.foreign(leaving):
            return {"8004F01D"}
        self.stack = {n: s for n, s in self.stack.items() if n not in leaving}
        self._sweep()
        return set()

    def fill(self, name: str, parts: Mapping[str, Layer]) -> set[str]:
        """Import an unmanaged package: its components are what makers say now."""
        needed = {need for layer in parts.values() for need in layer.needs} - set(parts)
        if needed - self.components():
            return {"8004801D"}
        for part, layer in parts.items():
            self.say(part, copy.deepcopy(layer))
        self.bags[name] = set(parts)
        return set()

    def say(self, component: str, layer: Layer) -> None:
        """A maker's change. Changes of web resources wait to be published."""
        makers = self.makers.setdefault(component, Makers())
        if component.startswith("web"):
            makers.pending = layer
        else:
            makers.published = layer

    def known(self, component: str) -> Layer:
        """What a maker's change begins with: what makers said last, else what counts."""
        makers = self.makers.get(component)
        if makers is not None:
            return makers.pending or makers.shown
        return next(s.layers[component] for s in reversed(self.stack.values()) if component in s.layers)

    def forget(self, component: str) -> set[str]:
        """Remove the active customizations of a component."""
        if not self.managed(component):
            return {"80040203"}
        self.makers.pop(component, None)
        return set()

    def publish(self) -> None:
        for makers in self.makers.values():
            makers.published, makers.pending = makers.pending or makers.published, None

    def _sweep(self) -> None:
        for bag in self.bags.values():
            bag &= self.components()
