"""Show where the runs of a report come from: directories, digests, commits, machines, resolved specs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from gnflow.study import figures
from gnflow.study.comparison import Comparison
from gnflow.study.load import device
from gnflow.study.report.html import Markup, paragraph, table, tag, text
from gnflow.study.report.results import swatches
from gnflow.study.state import status
from gnflow.track.description import read_json
from gnflow.workspace import Workspace

DIGITS = 12  # number of characters shown of a digest


def provenance(comparison: Comparison) -> Iterator[Markup]:
    """Make a row for each run, a list of versions, and the resolved spec of each arm."""
    dots = swatches(comparison)
    rows, versions = [], dict[str, list[str]]()
    for arm in comparison.arms:
        for run in arm.runs:
            found = read_json(run.directory / "provenance.json")
            git, digests = _part(found, "git"), _part(found, "digests")
            session = _last_session(found)
            rows.append(
                (
                    dots[arm.name], text(run.experiment.training.seed), _code(directory(run.directory)),
                    text(status(run)), _digest(digests.get("spec")), _digest(digests.get("data")),
                    _commit(git), text(device(run)),
                )
            )  # fmt: skip
            said = ", ".join(f"{name} {version}" for name, version in _part(session, "versions").items())
            versions.setdefault(said, []).append(directory(run.directory))
    yield table(("arm", "seed", "directory", "status", "spec", "data", "commit", "device"), rows, words=8)
    yield paragraph("Spec and data: the first digits of the SHA-256 of the resolved spec and of the prepared data.")
    for said, runs in versions.items():
        if said:
            yield paragraph(f"Versions{'' if len(versions) == 1 else ' of ' + figures.listed(runs)}: {said}.")
    for arm in comparison.arms:
        run = arm.runs[0]
        others = (
            f"; seeds {figures.listed([str(seed) for seed in arm.seeds])} differ in nothing else"
            if arm.seeds[1:]
            else ""
        )
        heading = f"Resolved spec of {arm.name} ({directory(run.directory)}/experiment.yaml{others})"
        content = (run.directory / "experiment.yaml").read_text(errors="replace")
        yield tag("details", tag("summary", text(heading)), tag("pre", text(content)))


def directory(path: Path) -> str:
    """Return a directory relative to the project, the same on every machine; outside a project, only its name."""
    root, there = Workspace.around(path).root, path.resolve()
    return there.name if root == there else there.relative_to(root).as_posix()


def _part(tree: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = tree.get(name)
    return part if isinstance(part, dict) else {}


def _last_session(found: Mapping[str, object]) -> Mapping[str, object]:
    match found.get("sessions"):
        case [*_, dict(session)]:
            return session
        case _:
            return {}


def _code(value: str) -> Markup:
    return tag("code", text(value))


def _digest(value: object) -> Markup:
    return _code(str(value)[:DIGITS]) if value else text(figures.MISSING)


def _commit(git: Mapping[str, object]) -> Markup:
    if not git.get("commit"):
        return text(figures.MISSING)
    dirty = git.get("dirty", False)
    changes = " and changes that git did not tell" if dirty is None else " and uncommitted changes" if dirty else ""
    return Markup(_code(str(git["commit"])[:DIGITS]) + text(changes))
