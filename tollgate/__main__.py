"""`tollgate COMMAND ...`: finds the command's module and runs it as `python -m` would.

Nothing of the platform is imported before a command is chosen, so that help comes at once.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path
from typing import Any, Final

import click

from tollgate.commands import BY_NAME, GROUPS, Command

_ROOT: Final = Path(__file__).resolve().parent.parent
_EPILOG: Final = """\
`tollgate COMMAND --help` says what a command does, with an example, its options and what usually comes next.

Everything mutable lies in TOLLGATE_HOME: by default .tollgate in the current folder (in a checkout: beside
the code); reports go to TOLLGATE_RESULTS, by default results. Settings are variables: docs/settings.md.

Exit codes: 0 done; 1 it could not be done, or what was checked is not well (the text says what to do); 2 the
command line is wrong; 130 and 143 it was interrupted or asked to end."""


class _ByUser(click.Group):
    """A group whose help lists commands by who runs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(BY_NAME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = BY_NAME.get(cmd_name)
        return None if command is None else _runner(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in BY_NAME:
            import difflib

            near = difflib.get_close_matches(args[0], BY_NAME, n=1)
            hint = f"did you mean `tollgate {near[0]}`?" if near else "`tollgate --help` lists the commands."
            raise click.UsageError(f"there is no command {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for user, commands in GROUPS.items():
            with formatter.section(user):
                formatter.write_dl([(command.name, command.what) for command in commands])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + _EPILOG + "\n")


def _runner(command: Command) -> click.Command:
    def run(arguments: tuple[str, ...]) -> None:
        if {"--help", "-h"} & set(arguments) and command.module != "tollgate.feast_here":
            click.echo(f"{command.what}\n\nFor example:\n  {command.example}\n\nNext: {command.then}\n")
        _run(command, arguments)

    return click.Command(
        command.name,
        callback=run,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        help=command.what,
    )


def _run(command: Command, arguments: tuple[str, ...]) -> None:
    if command.checkout and not (_ROOT / "pyproject.toml").exists():
        raise click.ClickException(
            f"`tollgate {command.name}` writes into the sources: run it in a checkout of the repository"
        )
    os.environ.setdefault("TZ", "UTC")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    sys.argv = [f"tollgate {command.name}", *command.fixed, *arguments]
    _name_parsers(f"tollgate {command.name}")
    try:
        runpy.run_module(command.module, run_name="__main__", alter_sys=False)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ValueError as error:
        # The text of an unusable setting names the variable. (Importing its class would take long.)
        if type(error).__name__ != "SettingsError":
            raise
        raise click.ClickException(str(error)) from None


def _name_parsers(name: str) -> None:
    """Have the modules' own parsers call themselves by the command that was typed."""
    plain = argparse.ArgumentParser.__init__

    def named(self: argparse.ArgumentParser, *given: Any, **options: Any) -> None:
        if str(options.get("prog") or "python -m").startswith("python -m"):
            options["prog"] = name
        plain(self, *given, **options)

    argparse.ArgumentParser.__init__ = named  # type: ignore[method-assign]


@click.group(cls=_ByUser, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tollgate", message="tollgate %(version)s")
def main() -> None:
    """Tollgate: real-time card-fraud decisions around a feature store."""


if __name__ == "__main__":
    main(prog_name="tollgate")
