"""Feast's command line on the feature definitions of this installation, wherever it is typed.

The plain `feast` script looks modules up as its own interpreter does: with two checkouts it may read the
other one's definitions.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    # Relative folders mean those of where the command was typed: Feast changes to its repository's.
    from stores.settings import settings

    os.environ["TOLLGATE_HOME"] = str(settings().home.absolute())
    os.environ["TOLLGATE_RESULTS"] = str(settings().results.absolute())
    settings.cache_clear()
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    arguments = sys.argv[1:]
    if arguments[:1] == ["ui"] and find_spec("grpc_health") is None:
        raise SystemExit("`tollgate feast ui` needs gRPC: pip install 'tollgate[ui]'")
    sys.argv = ["feast", "-c", str(root / "feature_repo"), *arguments]
    from feast.cli.cli import cli

    cli(prog_name="tollgate feast")


if __name__ == "__main__":
    main()
