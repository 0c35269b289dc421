"""Groups of options: each field is an option of every command that takes the group."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from services.cli.options import grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Two options."""

    size: Annotated[int, typer.Option("--size", envvar="SIZE_FOR_THIS_TEST", min=1)] = 3
    loud: Annotated[bool, typer.Option("--loud")] = False


def ran(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command with a group; return exit code and output."""
    app = typer.Typer()

    @app.command()
    @grouped
    def show(word: str, group: Group, again: Annotated[bool, typer.Option("--again")] = False) -> None:
        """Show everything."""
        typer.echo(f"{word} {group.size} {group.loud} {again}")

    result = CliRunner().invoke(app, arguments, env=env)
    return result.exit_code, result.output.strip()


def test_a_group_is_filled_from_options_and_variables() -> None:
    """Beside the command's own arguments, with the defaults of its fields."""
    assert ran("a") == (0, "a 3 False False")
    assert ran("a", "--size", "5", "--loud", "--again") == (0, "a 5 True True")
    assert ran("a", env={"SIZE_FOR_THIS_TEST": "7"}) == (0, "a 7 False False")


def test_an_option_of_a_group_is_checked_like_any_other() -> None:
    """By its own rules; the group itself is no option."""
    assert ran("a", "--size", "0")[0] == 2
    assert ran("a", "--group", "x")[0] == 2
    assert "Show everything." in ran("--help")[1]
