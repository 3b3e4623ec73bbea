"""Writes the reference pages that the code defines: `python -m tollgate.document`.

`docs/commands.md` from the table of commands, `docs/api.md` from the contract and the list of routes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bentos.api.access import Access
from bentos.api.edge import Edge, Route
from fraud.contract.answer import Answer
from fraud.contract.fields import EXPECTED
from fraud.contract.transaction import Transaction
from stores.settings import REPOSITORY
from tollgate.commands import GROUPS

COMMANDS_HEAD: Final = """# Commands

Every command of the platform, by who runs it. `tollgate COMMAND --help` says what one does, with its options and what
usually comes next; in a checkout, `make` lists the same ones as targets. Written by
`python -m tollgate.document`.

Exit codes: 0 done; 1 it could not be done, or what was checked is not well (the text says what to do); 2 the command
line is wrong; 130 and 143 it was interrupted or asked to end.
"""
API_HEAD: Final = """# API

JSON over HTTP. [The tutorial](tutorials/api.md) says what to do on every status code; `/docs.json` of a running service is
the OpenAPI document, from which clients can be generated. Written by `python -m tollgate.document`.

## Paths

Nothing else exists: every other path is 404. *Scope* is what a caller's token must carry; without a tokens file only
callers on this machine are served.
"""
#: What the page at `/` is drawn with.
_PICTURES: Final = "/static_content/"
_FIELDS_HEAD: Final = """
## A transaction

| field | is | required |
| --- | --- | --- |
"""
_ANSWER_HEAD: Final = """
## The answer

| field | type |
| --- | --- |
"""


def commands_page() -> str:
    """The page's text."""
    parts = [COMMANDS_HEAD]
    for user, commands in GROUPS.items():
        rows = [
            f"| `tollgate {command.name}` | {command.what} | `{_cell(command.example)}` |"
            for command in commands
        ]
        head = f"## {user}\n\n| command | what it does | for example |\n| --- | --- | --- |\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def api_page() -> str:
    """The page's text."""
    edge = Edge(_nothing, lambda: None, Access(None, 0))
    routes = [_route(path, route) for path, route in edge.routes.items() if not path.startswith(_PICTURES)]
    required = {field.name for field in msgspec.structs.fields(Transaction) if field.required}
    fields = "\n".join(
        f"| `{name}` | {expected.removesuffix(', or absent')} | {'yes' if name in required else 'no'} |"
        for name, expected in EXPECTED.items()
    )
    answer = "\n".join(
        f"| `{field.name}` | {_words(field.type)} |" for field in msgspec.structs.fields(Answer)
    )
    return (
        f"{API_HEAD}\n| path | methods | scope | largest body |\n| --- | --- | --- | --- |\n"
        + "\n".join(routes)
        + f"\n{_FIELDS_HEAD}{fields}\n{_ANSWER_HEAD}{answer}\n"
    )


def _route(path: str, route: Route) -> str:
    methods = ", ".join(sorted(route.methods))
    largest = f"{route.largest:,} bytes" if route.largest else ""
    return f"| `{path}` | {methods} | {route.needed or 'none'} | {largest} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


async def _nothing(*_: object) -> None:
    raise AssertionError("only the table of routes is read")


def _words(kind: object) -> str:
    text = str(kind) if not isinstance(kind, type) else kind.__name__
    text = text.replace("typing.", "").replace("NoneType", "null").replace("None", "null")
    return text.replace("|", "or").replace("  ", " ")


def main() -> None:
    (REPOSITORY / "docs" / "commands.md").write_text(commands_page())
    (REPOSITORY / "docs" / "api.md").write_text(api_page())


if __name__ == "__main__":
    main()
