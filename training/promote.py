"""Move models between register, shadow, canary and champion; each step gated, each reversible.

    registered --shadow--> shadow --canary--> challenger --champion--> champion
                 <----------------- retire / rollback -----------------

State is `<home>/deployment.json` (`stores.deployment`), which the service watches; of several hosts the state
database decides (`stores.state`), and that file is a copy.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any, Final

import msgspec

from stores.deployment import DEFAULT_SHARE, Change, Deployment, DeploymentError
from stores.settings import settings
from stores.state import StateAway, open_state
from training.gates import Verdict, champion_gate, outage_gate, registered_gate, replay_gate
from training.gates_live import experiment_gate, parity_gate
from training.save import model_folder

LARGEST_SHARE: Final = 0.5
_WHY: Final = "the reason, kept in the history with who did it"


class PromotionError(ValueError):
    """A step that is not allowed now; the text says why and what would allow it."""


def read_deployment() -> Deployment:
    """The deployment as it is; one without a champion if nothing was ever promoted."""
    return open_state(settings()).deployment()


def read_history() -> list[Change]:
    """Every change, oldest first."""
    return open_state(settings()).history()


def shadow(version: str, *, force: bool = False, why: str = "") -> Verdict:
    """Let `version` score every transaction beside the champion, deciding none."""
    verdict = _pass(registered_gate(version), force)
    state = read_deployment()
    if version in (state.champion, state.challenger):
        raise PromotionError(f"{version} decides already; retire it first")
    if version not in state.shadow:
        _write(state, "shadow", version, verdict, why, shadow=(*state.shadow, version))
    return verdict


def canary(version: str, *, share: float = DEFAULT_SHARE, force: bool = False, why: str = "") -> Verdict:
    """Let `version`, now in shadow, decide for a `share` of customers."""
    if not 0 < share <= LARGEST_SHARE:
        raise PromotionError(f"share {share:g} should lie above 0 and at most {LARGEST_SHARE:g}")
    state = read_deployment()
    if version not in state.shadow and not force:
        raise PromotionError(
            f"{version} is not in shadow; run `python -m training.promote shadow {version}` first"
        )
    verdict = _pass(registered_gate(version), force)
    verdict += _pass(outage_gate(version) + champion_gate(version, state.champion), force)
    verdict += _pass(replay_gate(version), force)
    rest = _without(state.shadow, version)
    if state.challenger is not None and state.challenger != version:
        rest = (*rest, state.challenger)
    _write(
        state, "canary", version, verdict, why,
        challenger=version, share=share, experiment=version, shadow=rest,
    )  # fmt: skip
    return verdict


def champion(version: str, *, force: bool = False, why: str = "") -> Verdict:
    """Let `version`, now challenger (or the first model of all), decide for everyone."""
    state = read_deployment()
    if state.champion is not None and state.challenger != version and not force:
        raise PromotionError(
            f"{version} is not the challenger; run `python -m training.promote canary {version}` first"
        )
    verdict = _pass(registered_gate(version), force)
    verdict += _pass(outage_gate(version) + champion_gate(version, state.champion), force)
    verdict += _pass(experiment_gate(version, state.champion) + parity_gate(), force)
    rest = _without(state.shadow, version)
    challenger = None if state.challenger == version else state.challenger
    _write(state, "champion", version, verdict, why, champion=version, challenger=challenger, shadow=rest)
    return verdict


def first_champion(version: str) -> bool:
    """Make `version` champion if there is none; whether it did. Gated all the same."""
    if read_deployment().champion is not None:
        return False
    champion(version)
    return True


def retire(version: str, *, why: str = "") -> None:
    """One step back: a shadow stops scoring, a challenger goes back to shadow."""
    state = read_deployment()
    if version == state.champion:
        raise PromotionError("the champion cannot be retired, only replaced or rolled back")
    if version == state.challenger:
        _write(state, "retire", version, [], why, challenger=None, shadow=(*state.shadow, version))
    elif version in state.shadow:
        _write(state, "retire", version, [], why, shadow=_without(state.shadow, version))
    else:
        raise PromotionError(f"{version} is neither challenger nor in shadow")


def rollback(*, why: str = "") -> str:
    """Give the decisions back to the champion before this one; returns it. Never gated."""
    state = read_deployment()
    current = state.champion
    former = [change.before.champion for change in read_history() if change.after.champion == current]
    previous = next((name for name in reversed(former) if name not in (None, current)), None)
    if previous is None:
        raise PromotionError("there is no earlier champion to go back to")
    if not (model_folder(previous) / "model.txt").is_file():
        raise PromotionError(f"the earlier champion {previous} is no longer in the model store")
    challenger = None if state.challenger == previous else state.challenger
    rest = _without(state.shadow, previous)
    _write(state, "rollback", previous, [], why, champion=previous, challenger=challenger, shadow=rest)
    return previous


def _without(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(each for each in names if each != name)


def _pass(verdict: Verdict, force: bool) -> Verdict:
    failed = [check for check in verdict if not check["passed"]]
    if failed and not force:
        raise PromotionError("; ".join(f"{check['gate']}: {check['reason']}" for check in failed))
    return verdict


def _write(state: Deployment, step: str, version: str, verdict: Verdict, why: str, **changes: Any) -> None:
    after = msgspec.structs.replace(state, **changes)
    open_state(settings()).deploy(state, after, step=step, version=version, gates=verdict, by=who(), why=why)


def who() -> str:
    """The user that runs this, as the system calls it; empty where it has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's number without an entry
        return ""


def main(argv: list[str] | None = None) -> int:
    """`python -m training.promote status|shadow|canary|champion|retire|rollback [VERSION]`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.promote", description="Promote or demote a model."
    )
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("status", help="who decides now, and the last changes")
    back = steps.add_parser("rollback", help="give the decisions back to the earlier champion")
    back.add_argument("--why", default="", help=_WHY)
    for name, text in (
        ("shadow", "score beside the champion"), ("canary", "decide for a share of customers"),
        ("champion", "decide for everyone"), ("retire", "one step back"),
    ):  # fmt: skip
        step = steps.add_parser(name, help=text)
        step.add_argument("version")
        step.add_argument("--why", default="", help=_WHY)
        if name != "retire":
            step.add_argument(
                "--force", action="store_true", help="pass failed gates; the history keeps that"
            )
        if name == "canary":
            step.add_argument("--share", type=float, default=DEFAULT_SHARE, help="share of customers")
    options = parser.parse_args(argv)
    try:
        if options.step == "shadow":
            shadow(options.version, force=options.force, why=options.why)
        elif options.step == "canary":
            canary(options.version, share=options.share, force=options.force, why=options.why)
        elif options.step == "champion":
            champion(options.version, force=options.force, why=options.why)
        elif options.step == "retire":
            retire(options.version, why=options.why)
        elif options.step == "rollback":
            rollback(why=options.why)
        told = status_text(read_deployment(), read_history())
    except (PromotionError, DeploymentError, LookupError, StateAway) as error:
        print(f"promote: {error}", file=sys.stderr)
        return 1
    print(told)
    return 0


def status_text(state: Deployment, history: list[Change]) -> str:
    """Who decides now, and the last ten changes."""
    lines = [
        f"champion    {state.champion or '-'}",
        f"challenger  {state.challenger or '-'}" + (f" ({state.share:.0%})" if state.challenger else ""),
        f"shadow      {', '.join(state.shadow) or '-'}",
    ]
    for change in history[-10:]:
        forced = " (forced)" if change.forced else ""
        told = " ".join(filter(None, [change.by and f"by {change.by}", change.why and f"({change.why})"]))
        lines.append(f"  {change.at}  {change.step:<9} {change.version}{forced} {told}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
