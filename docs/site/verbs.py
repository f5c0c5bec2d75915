"""Write the reference of the command line, from the commands themselves."""

from collections.abc import Iterator

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from gnflow.cli import app


def list_commands(command: TyperCommand | TyperGroup, words: str = "gnflow") -> Iterator[tuple[str, TyperCommand]]:
    """Yield every verb with the words that call it: `gnflow study plan`."""
    if not isinstance(command, TyperGroup):
        yield words, command
        return
    for name, inner in command.commands.items():
        assert isinstance(inner, (TyperCommand, TyperGroup))
        if not inner.hidden:
            yield from list_commands(inner, f"{words} {name}")


def write_commands() -> str:
    """Return the page of all verbs, with their arguments and options."""
    parts = ["# Commands\n", "`gnflow VERB --help` says the same.\n"]
    for words, command in list_commands(typer.main.get_command(app)):  # type: ignore[arg-type]  # a group of typer's
        arguments = [each for each in command.params if isinstance(each, TyperArgument)]
        options = [each for each in command.params if isinstance(each, TyperOption) and not each.hidden]
        usage = " ".join([words, *(_show_argument(each) for each in arguments)])
        parts.append(
            f"## {words}\n\n{_strip(command.help)}\n\n```text\n{usage}{' [OPTIONS]' if options else ''}\n```\n"
        )
        rows = [(_name(each), each.help) for each in arguments if each.help]
        rows += [(", ".join(f"`{name}`" for name in each.opts), each.help) for each in options]
        if rows:
            parts.append(
                "\n".join(["| | |", "|---|---|", *(f"| {name} | {_strip(text)} |" for name, text in rows)]) + "\n"
            )
    return "\n".join(parts)


def _name(argument: TyperArgument) -> str:
    return f"`{argument.metavar or (argument.name or '').upper()}`"


def _show_argument(argument: TyperArgument) -> str:
    name = _name(argument).strip("`") + (".." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _strip(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
