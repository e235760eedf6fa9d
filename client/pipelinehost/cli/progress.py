"""A run as it goes: live lines on a terminal, plain lines with times elsewhere; all of it to stderr."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipelinehost import names
from pipelinehost.cli.console import clean, duration, enum_word, err, moment, now, program, word
from pipelinehost.errors import PipelineHostError
from pipelinehost.v1.pipeline_host_pb2 import ValidateDeploymentResponse, WatchRunResponse
from pipelinehost.v1.resources_pb2 import Event, Finding, GateStatus, Progress, Run, RunChange, Step

STILL_SECONDS = 60.0
"""Plain output says at least this often that the run is alive: builds are ended for being silent."""

_BAR_CELLS = 24
_SYMBOLS = {
    Step.STATE_PENDING: ("·", "dim"),
    Step.STATE_SUCCEEDED: ("✓", "green"),
    Step.STATE_FAILED: ("✗", "red"),
    Step.STATE_SKIPPED: ("-", "dim"),
}
_ASCII = str.maketrans({"✓": "+", "✗": "x", "·": ".", "→": ">", "━": "#", "─": "-", "…": "."})
_SEVERITIES = {
    Finding.SEVERITY_ERROR: ("✗", "red", "error"),
    Finding.SEVERITY_WARNING: ("!", "yellow", "warning"),
    Finding.SEVERITY_INFO: ("i", "cyan", "info"),
}
_LOST = "the host cannot be reached; trying again. The run goes on."
_SENTENCES = {
    Run.STATE_QUEUED: "queued",
    Run.STATE_VALIDATING: "validating",
    Run.STATE_AWAITING_GATE: "waiting at a gate",
    Run.STATE_SCHEDULED: "scheduled",
    Run.STATE_WAITING_FOR_TARGET: "waiting for the target",
    Run.STATE_DEPLOYING: "deploying",
    Run.STATE_CANCELLING: "being cancelled, if its environment still can",
    Run.STATE_UNKNOWN: "unknown",
    Run.STATE_SUCCEEDED: "succeeded",
    Run.STATE_FAILED: "failed",
    Run.STATE_REJECTED: "rejected",
    Run.STATE_EXPIRED: "expired",
    Run.STATE_CANCELLED: "cancelled",
}


class RunView(Protocol):
    """What shows a run: made with the run, told everything, closed at its end."""

    def __enter__(self) -> RunView: ...
    def __exit__(self, *exception: object) -> None: ...
    def take(self, response: WatchRunResponse) -> None:
        """Shows what happened."""

    def lost(self, error: PipelineHostError) -> None:
        """Shows that the host cannot be reached just now."""


def view_of(run: Run) -> RunView:
    """The view that fits where stderr goes."""
    console = err()
    return (
        _LiveView(run, console)
        if console.is_terminal and not console.is_dumb_terminal
        else _PlainView(run, console)
    )


class _Clock:
    """The host's time: its newest message's, plus what has gone by here since."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._at = 0.0

    def hear(self, timestamp: Timestamp) -> None:
        if timestamp.seconds:
            self._last, self._at = _seconds(timestamp), time.monotonic()

    def since(self, timestamp: Timestamp) -> float:
        current = now().timestamp() if self._last is None else self._last + time.monotonic() - self._at
        return max(current - _seconds(timestamp), 0.0)


class _Followed:
    """A run kept up to date from what a watch brings."""

    def __init__(self, run: Run) -> None:
        self.run = Run()
        self.run.CopyFrom(run)
        self.clock = _Clock()
        self.place = 0
        self.detail = ""
        self.scheduled = wait(run)

    def take(self, response: WatchRunResponse) -> None:
        if response.HasField("run"):
            self.run.CopyFrom(response.run)
            self.scheduled = wait(self.run)
        elif response.HasField("heartbeat"):
            self.clock.hear(response.heartbeat.time)
            self.place = response.heartbeat.queue_position
        else:
            event = response.event
            self.clock.hear(event.time)
            if event.HasField("run"):
                self._change(event.run)
                if event.kind == Event.KIND_RUN_STATE_CHANGED and event.run.to == Run.STATE_SCHEDULED:
                    self.scheduled = event.message.removeprefix("waits ")
            elif event.HasField("step"):
                self._step(event.step)
            elif event.HasField("progress"):
                self._progress(event.progress)

    def _change(self, change: RunChange) -> None:
        self.run.state = change.to
        self.run.attempt = max(self.run.attempt, change.attempt)
        self.run.artifact = change.artifact or self.run.artifact
        self.run.version = change.version or self.run.version
        if change.to != Run.STATE_WAITING_FOR_TARGET:
            self.place = 0
        if change.HasField("error"):
            self.run.error.CopyFrom(change.error)
        else:
            self.run.ClearField("error")

    def _step(self, step: Step) -> None:
        for known in self.run.steps:
            if known.kind == step.kind:
                known.CopyFrom(step)
                break
        else:
            self.run.steps.append(step)
        self.detail = ""

    def _progress(self, progress: Progress) -> None:
        self.detail = progress.detail
        for known in self.run.steps:
            if known.kind == progress.step:
                known.percent = progress.percent

    def waiting(self) -> str:
        """What the run waits for, if it waits."""
        if self.run.state == Run.STATE_SCHEDULED:
            return f"scheduled: {self.scheduled}"
        if self.run.state == Run.STATE_AWAITING_GATE:
            return _SENTENCES[Run.STATE_AWAITING_GATE]
        if self.run.state != Run.STATE_WAITING_FOR_TARGET:
            return ""
        target = names.slug(self.run.target_environment)
        before = f": {self.place} run{'s' * (self.place != 1)} before this one" if self.place else ""
        return f"waiting for {target}{before}"

    def took(self, step: Step) -> float:
        if step.HasField("end_time"):
            return max(_seconds(step.end_time) - _seconds(step.start_time), 0.0)
        return self.clock.since(step.start_time)


class _LiveView:
    def __init__(self, run: Run, console: Console) -> None:
        self._followed = _Followed(run)
        self._console = console
        self._pretty = _pretty(console)
        self._spinner = Spinner("dots" if self._pretty else "line", style="cyan")
        self._lost = ""
        self._lock = threading.Lock()
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=10,
            transient=False,
            vertical_overflow="visible",
        )

    def __enter__(self) -> RunView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def take(self, response: WatchRunResponse) -> None:
        with self._lock:  # a thread of Live draws
            self._lost = ""
            self._followed.take(response)
        if response.HasField("event") and response.event.HasField("finding"):
            self._console.print(finding(response.event.finding, self._console))

    def lost(self, error: PipelineHostError) -> None:
        with self._lock:
            self._lost = _LOST

    def _render(self) -> Any:
        with self._lock:
            return self._drawn()

    def _drawn(self) -> Any:
        run = self._followed.run
        lines: list[Any] = [heading(run)]
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=3, justify="right")
        grid.add_column(min_width=8)
        grid.add_column()
        grid.add_column(justify="right", min_width=6)
        grid.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        waits = self._followed.waiting()
        for step in run.steps:
            if waits and step.state == Step.STATE_PENDING:
                grid.add_row(self._spinner, Text("queue"), Text(waits, style="yellow"), "", "")
                waits = ""
            grid.add_row(*self._row(step))
        lines.append(grid)
        if self._lost:
            lines.append(Text(f"    {self._lost}", style="yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _row(self, step: Step) -> tuple[Any, Any, Any, Any, Any]:
        name = Text(enum_word(step, "kind").lower())
        if step.state == Step.STATE_RUNNING:
            # A percentage is known of the import only.
            bar: Any = _bar(step.percent, self._pretty) if step.percent else Text("")
            detail = clean(self._followed.detail or step.detail)
            return self._spinner, name, bar, duration(self._followed.took(step)), Text(detail)
        symbol, style = _SYMBOLS.get(step.state, ("?", ""))
        name.stylize("dim" if step.state in (Step.STATE_PENDING, Step.STATE_SKIPPED) else "")
        ended = step.state in (Step.STATE_SUCCEEDED, Step.STATE_FAILED) and step.HasField("start_time")
        took = duration(self._followed.took(step)) if ended else ""
        return (
            Text(_symbol(symbol, self._pretty), style=style),
            name,
            Text(""),
            took,
            Text(clean(step.detail)),
        )


class _PlainView:
    def __init__(self, run: Run, console: Console) -> None:
        self._followed = _Followed(run)
        self._console = console
        self._lost = False
        self._percent = 0
        self._told = (-1, "")
        self._place = 0
        self._waited = ""
        self._written = time.monotonic()
        self._line(run.create_time, _one_line(run))

    def __enter__(self) -> RunView:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def take(self, response: WatchRunResponse) -> None:
        self._lost = False
        before = Run()
        before.CopyFrom(self._followed.run)
        self._followed.take(response)
        run = self._followed.run
        if response.HasField("run"):
            for step in run.steps:
                if step.state == Step.STATE_RUNNING:  # it began before this watch
                    self._step(step.start_time, step)
            if (waits := self._followed.waiting()) and waits != self._waited:
                self._line(None, waits)
            self._waited = waits
        elif response.HasField("heartbeat"):
            self._heartbeat(response)
        elif response.HasField("event"):
            event = response.event
            if event.HasField("run") and run.state != before.state:
                said = self._followed.waiting() or _SENTENCES.get(run.state, "")
                attempt = f" (attempt {run.attempt})" if run.attempt > before.attempt else ""
                self._line(event.time, f"{said}{attempt}")
            elif event.HasField("step"):
                self._step(event.time, event.step)
            elif event.HasField("progress"):
                self._progress(event.time, event.progress)
            elif event.HasField("finding"):
                for line in _finding_lines(event.finding):
                    self._line(event.time, line)

    def lost(self, error: PipelineHostError) -> None:
        if not self._lost:
            self._lost = True
            self._line(None, _LOST)

    def _heartbeat(self, response: WatchRunResponse) -> None:
        place = response.heartbeat.queue_position
        running = next((s for s in self._followed.run.steps if s.state == Step.STATE_RUNNING), None)
        if place != self._place:
            self._place = place
            if place:
                self._line(response.heartbeat.time, self._followed.waiting())
        elif time.monotonic() - self._written >= STILL_SECONDS:
            said = self._followed.waiting() or _SENTENCES.get(self._followed.run.state, "")
            if running is not None:
                percent = f" {running.percent}%" if running.percent else ""
                took = duration(self._followed.took(running))
                said = f"{enum_word(running, 'kind').lower()}{percent} ({took})"
            self._line(response.heartbeat.time, f"still {said}")

    def _step(self, at: Timestamp, step: Step) -> None:
        self._percent, self._told = 0, (0, "")
        took = f" ({duration(self._followed.took(step))})" if step.HasField("end_time") else ""
        detail = f": {step.detail}" if step.detail else ""
        if step.state != Step.STATE_PENDING:
            self._line(
                at, f"{enum_word(step, 'kind').lower()} {enum_word(step, 'state').lower()}{took}{detail}"
            )

    def _progress(self, at: Timestamp, progress: Progress) -> None:
        if progress.percent >= self._percent + 10 or (progress.percent == 100 and self._percent != 100):
            self._percent = progress.percent - progress.percent % 10
            detail = f": {progress.detail}" if progress.detail else ""
            self._line(at, f"{word_of_step(progress).lower()} {progress.percent}%{detail}")
        elif progress.percent == self._told[0] and progress.detail not in ("", self._told[1]):
            # Nothing moves, and there is a word about it: the environment lets the host wait.
            self._line(at, f"{word_of_step(progress).lower()}: {progress.detail}")
        self._told = (progress.percent, progress.detail)

    def _line(self, at: Timestamp | None, text: str) -> None:
        self._written = time.monotonic()
        _line(self._console, now() if at is None or not at.seconds else at.ToDatetime(dt.UTC), text)


class ValidationView:
    """Shows a validation: a line for what is being checked, and each finding as it is found."""

    def __init__(self) -> None:
        self._console = err()
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._status = self._console.status(
            "validating", spinner="dots" if _pretty(self._console) else "line"
        )
        self._shown: AbstractContextManager[Any] = self._status if self._live else nullcontext()

    def __enter__(self) -> ValidationView:
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._shown.__exit__(*exception)

    def take(self, response: ValidateDeploymentResponse) -> None:
        """Shows what is being checked, or what was found."""
        if response.HasField("progress"):
            said = response.progress.detail
            if not said:
                return
            if self._live:
                self._status.update(Text(clean(said)))
            else:
                _line(self._console, now(), said)
        elif response.HasField("finding"):
            self._console.print(finding(response.finding, self._console))


LOSSES = (
    "CHANGES_BACK",
    "CHANGES_BACK_MORE",
    "STAYS_BEHIND",
    "STAYS_BEHIND_MORE",
    "COMES_BACK",
    "COMES_BACK_MORE",
)
"""Findings of which there may be hundreds alike."""


def losses(found: Sequence[Finding], console: Console) -> None:
    """Shows what going back would lose: a line for each component, and the remedy once for all."""
    pretty = _pretty(console)
    for code in LOSSES:
        alike = [f for f in found if f.code == code]
        if not alike:
            continue
        symbol, style, _ = _SEVERITIES[alike[0].severity]
        text = Text("  ")
        text.append(f"{_symbol(symbol, pretty)} {code}", style=style)
        for one in alike:
            text.append(f"\n    {clean(one.cause)}")
        text.append(f"\n    {_symbol('→', pretty)} {clean(alike[0].remedy)}")
        console.print(text)


def heading(run: Run) -> Text:
    """What is deployed where, and which run it is."""
    verb = "Restoring" if not run.stage else "Deploying"
    text = Text(f"{verb} ")
    text.append(clean(run.solution) or clean(names.slug(run.artifact)[:12]), style="bold")
    version = run.version or run.requested_version
    if version:
        text.append(f" {clean(version)}")
    text.append(" to ")
    text.append(clean(_place(run)), style="bold")
    text.append(f"   {clean(run.name)}", style="dim")
    if run.attempt > 1:
        text.append(f"   attempt {run.attempt}", style="yellow")
    return text


def finding(found: Finding, console: Console) -> Text:
    """A finding with its cause and its remedy, over a few lines."""
    symbol, style, _ = _SEVERITIES.get(found.severity, ("?", "", ""))
    pretty = _pretty(console)
    text = Text("  ")
    text.append(_symbol(symbol, pretty), style=style)
    text.append(f" {clean(found.code)}", style=style)
    if found.subject.name:
        text.append(f"  {clean(_subject(found))}", style="dim")
    text.append(f"\n    {clean(found.cause)}")
    if found.remedy:
        text.append(f"\n    {_symbol('→', pretty)} {clean(found.remedy)}")
    return text


def verdict(run: Run, console: Console, me: Container[str] = ()) -> None:
    """Says how a run ended, or where it stands, and what to type next.

    Args:
        run: as it is now.
        console: where to write.
        me: names of the caller and their groups; needed where the run waits at a gate.
    """
    pretty = _pretty(console)
    name = names.slug(run.name)
    target = names.slug(run.target_environment)
    what = clean(f"{run.solution} {run.version}".strip())
    if run.state == Run.STATE_SUCCEEDED:
        took = ""
        if run.HasField("start_time") and run.HasField("end_time"):
            took = f" in {duration(max(_seconds(run.end_time) - _seconds(run.start_time), 0.0))}"
        before = f" (before: {clean(run.previous_version)})" if run.previous_version else ""
        counted = f", with {_count(run.warning_count, 'warning')}" if run.warning_count else ""
        text = Text(f"{_symbol('✓', pretty)} Succeeded{took}{counted}", style="green")
        console.print(text + Text(f": {clean(target)} holds {what}{before}.", style="default"))
        return
    if run.state == Run.STATE_CANCELLED:
        console.print(Text(f"{_symbol('✗', pretty)} Cancelled: {target} is as it was.", style="yellow"))
        console.print(f"  Next: {_anew(run)}")
        return
    if run.state == Run.STATE_FAILED:
        step = word_of_error(run).lower()
        console.print(
            Text(f"{_symbol('✗', pretty)} Failed{f' in {step}' if step else ''}", style="red") + _why(run)
        )
        _remedy(run, console, pretty)
        _after_failure(run, console)
        return
    if run.state in (Run.STATE_REJECTED, Run.STATE_EXPIRED):
        ended = "Rejected" if run.state == Run.STATE_REJECTED else "Expired"
        console.print(Text(f"{_symbol('✗', pretty)} {ended}", style="red") + _why(run))
        _remedy(run, console, pretty)
        console.print(f"  Next: {_anew(run)}")
        return
    if run.state == Run.STATE_AWAITING_GATE:
        gate = next((g for g in run.gates if g.state == GateStatus.STATE_WAITING), GateStatus())
        who = ", ".join(clean(a) for a in gate.gate.approvers)
        needed = f"{len(gate.decisions)} of {gate.gate.required or 1}"
        console.print(f"It waits at a gate: {needed} have approved. Approvers: {who}.")
        done = run.requester in me or any(d.principal in me for d in gate.decisions)
        if not done and any(a in me for a in gate.gate.approvers):
            console.print(f"  Next: {program()} run approve {name}")
        else:
            had = {run.requester, *(d.principal for d in gate.decisions)}
            others = ", ".join(clean(a) for a in gate.gate.approvers if a not in had)
            console.print(f"  Next: ask {others or 'an administrator: nobody else may approve it'}")
        return
    if run.state == Run.STATE_SCHEDULED:
        console.print(f"scheduled: {clean(wait(run))}")
        console.print(f"  Next: {program()} run reschedule {name} --at TIME")
        return
    if run.state == Run.STATE_UNKNOWN:
        text = Text(f"? It is not known whether {clean(target)} applied the import", style="bold yellow")
        console.print(text + _why(run))
        _remedy(run, console, pretty)
        console.print(f"  Next: look into {clean(target)}, then say what you found:")
        console.print(f'    {program()} run resolve {name} --applied --reason "…"')
        console.print(f'    {program()} run resolve {name} --not-applied --reason "…"')
        return
    console.print(f"The run is {_SENTENCES.get(run.state, 'not finished')} and goes on by itself.")
    console.print(f"  Next: {program()} run watch {name}")


def _after_failure(run: Run, console: Console) -> None:
    name = names.slug(run.name)
    word_ = "Next"
    if run.error_count + run.warning_count:
        console.print(f"  Next: {program()} run findings {name}")
        word_ = "Then"
    retry = f"{program()} run retry {name}"
    if run.error.retryable or not run.stage:
        console.print(f"  {word_}: {retry}")
        return
    # A run keeps its artifact and its settings: a retry sees what was mended in the environment only.
    console.print(f"  {word_}: {retry}  (if the environment was mended)")
    console.print(f"    or: {_anew(run)} …  (if the solution or the settings were)")


def _anew(run: Run) -> str:
    """What asks for the same once more."""
    if run.stage:
        return f"{program()} deploy {clean(run.solution)} -p {clean(names.slug(run.pipeline))}"
    target = clean(names.slug(run.target_environment))
    return f"{program()} artifact restore {names.slug(run.artifact)} -e {target}"


def wait(run: Run) -> str:
    """What a scheduled run waits for, and why; empty where it is not scheduled."""
    if not run.HasField("wait"):
        return ""
    at = f"until {moment(run.wait.until)}, " if run.wait.HasField("until") else ""
    return f"{at}because {run.wait.reason}"


def _line(console: Console, at: dt.datetime, text: str) -> None:
    """A line with its time: in UTC, as all times that are written, so that logs of two machines compare."""
    console.print(f"{at:%H:%M:%SZ}  {clean(text)}")


def word_of_step(progress: Progress) -> str:
    """The step that progress is about."""
    return enum_word(progress, "step")


def word_of_error(run: Run) -> str:
    """The step that failed."""
    return word(run.error.DESCRIPTOR.fields_by_name["step"].enum_type, run.error.step)


def _why(run: Run) -> Text:
    return Text(f": {clean(run.error.message)}" if run.error.message else ".", style="default")


def _remedy(run: Run, console: Console, pretty: bool) -> None:
    if run.error.remedy:
        console.print(f"  {_symbol('→', pretty)} {clean(run.error.remedy)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _place(run: Run) -> str:
    if run.stage:
        return f"{names.slug(run.pipeline)}/{names.slug(run.stage)}"
    return names.slug(run.target_environment)


def _one_line(run: Run) -> str:
    verb = "restore" if not run.stage else "deploy"
    what = f"{run.solution or names.slug(run.artifact)[:12]} {run.version or run.requested_version}".strip()
    return f"{verb} {what} to {_place(run)}: {run.name}"


def _finding_lines(found: Finding) -> list[str]:
    _, _, severity = _SEVERITIES.get(found.severity, ("", "", "finding"))
    about = f" {_subject(found)}" if found.subject.name else ""
    lines = [f"{severity} {found.code}{about}: {found.cause}"]
    if found.remedy:
        lines.append(f"  remedy: {found.remedy}")
    return lines


def _subject(found: Finding) -> str:
    shown = found.subject.display_name
    name = found.subject.name
    return f"{found.subject.kind} {f'{shown} ({name})' if shown and shown != name else name}".strip()


def _bar(percent: int, pretty: bool) -> Text:
    filled = round(_BAR_CELLS * min(max(percent, 0), 100) / 100)
    text = Text("━" * filled if pretty else "#" * filled, style="cyan")
    text.append(("━" if pretty else "-") * (_BAR_CELLS - filled), style="bright_black")
    text.append(f" {percent:3}%", style="default")
    return text


def _pretty(console: Console) -> bool:
    return console.encoding.lower().replace("-", "") == "utf8"


def _symbol(symbol: str, pretty: bool) -> str:
    return symbol if pretty else symbol.translate(_ASCII)


def _seconds(timestamp: Timestamp) -> float:
    return timestamp.seconds + timestamp.nanos / 1e9
