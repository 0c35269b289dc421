"""`ensemble keys`: makes API keys and tells the hash of one. A key is written to standard output and nowhere else."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.ending import ending, print_json
from services.cli.options import JsonOption

MOST_INPUT = 4096
"""Most characters of standard input that are looked at for a key."""

keys_app = typer.Typer(help="API keys of the gateway's tenants.", no_args_is_help=True)


@keys_app.command("new")
def new(
    *,
    name: Annotated[str | None, typer.Option("--id", help="What people shall call the key, for example who holds it.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose key it is; goes with --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="Add the key's hash to this keys file (gateway.keys_file), which is made where there is none.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Make sure that the tenant stands in this configuration and its keys are others.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a key: the key alone on standard output, shown this once; what to put into the configuration on standard error."""
    from services.chassis.api_keys import new_key, sha256_of, without_keys  # noqa: PLC0415 - imported when it is needed, as in services.cli.main
    from services.chassis.configuration import load_configuration  # noqa: PLC0415 - as above
    from services.chassis.configuration.nearest import hint  # noqa: PLC0415 - as above
    from services.cli.exit_codes import CommandError, ExitCode  # noqa: PLC0415 - as above
    from services.cli.keys_file import add_key, key_line  # noqa: PLC0415 - as above

    with ending(as_json=json):
        if (tenant is None) != (file is None):
            raise CommandError("--tenant and --file go together", ExitCode.WRONG)
        if config is not None and file is None:
            raise CommandError("--config goes with --tenant and --file", ExitCode.WRONG)
        key = new_key()
        line = key_line(sha256_of(key), name)
        if tenant is not None and file is not None:
            tenants = None if config is None else load_configuration(config).tenants
            if tenants is not None and tenant not in tenants:
                raise CommandError(f'--tenant "{without_keys(tenant)}" names no tenant{hint(tenant, tenants)}', ExitCode.WRONG)
            # Before the key is shown: one that was shown shall work.
            add_key(file, tenant, line, tenants)
        if json:
            print_json({"key": key, "sha256": sha256_of(key), "id": name, "tenant": tenant, "file": None if file is None else str(file)})
            return
        told = f"added to {file} for the tenant {tenant}" if file is not None else line
        sys.stderr.write(f"{told}\n")
        sys.stderr.flush()
        sys.stdout.write(f"{key}\n")
        sys.stdout.flush()


@keys_app.command("hash")
def hash_of_input(json: JsonOption = False) -> None:
    """Read a key from standard input and print its hash, by which its entry is found, for example to revoke it."""
    from services.chassis.api_keys import is_key, sha256_of  # noqa: PLC0415 - imported when it is needed, as in services.cli.main
    from services.cli.exit_codes import CommandError, ExitCode  # noqa: PLC0415 - as above

    with ending(as_json=json):
        key = sys.stdin.read(MOST_INPUT).strip()
        if not is_key(key):
            raise CommandError("standard input holds no key of the form that `ensemble keys new` makes", ExitCode.WRONG)
        if json:
            print_json({"sha256": sha256_of(key)})
        else:
            sys.stdout.write(f"{sha256_of(key)}\n")
            sys.stdout.flush()
