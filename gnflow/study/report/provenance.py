"""Show where the runs of a report come from: directories, digests, commits, machines, resolved specs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from gnflow.study import figures
from gnflow.study.comparison import Comparison
from gnflow.study.load import describe_device
from gnflow.study.report.html import Markup, escape, make_paragraph, make_table, make_tag
from gnflow.study.report.results import make_swatches
from gnflow.study.state import find_status
from gnflow.track.description import read_json
from gnflow.workspace import Workspace

DIGITS = 12  # number of characters shown of a digest


def make_provenance(comparison: Comparison) -> Iterator[Markup]:
    """Make a row for each run, a list of versions, and the resolved spec of each arm."""
    dots = make_swatches(comparison)
    rows, versions = [], dict[str, list[str]]()
    for arm in comparison.arms:
        for run in arm.runs:
            found = read_json(run.directory / "provenance.json")
            git, digests = _read_part(found, "git"), _read_part(found, "digests")
            session = _find_last_session(found)
            rows.append(
                (
                    dots[arm.name], escape(run.experiment.training.seed), _make_code(shorten_directory(run.directory)),
                    escape(find_status(run)), _format_digest(digests.get("spec")), _format_digest(digests.get("data")),
                    _format_commit(git), escape(describe_device(run)),
                )
            )  # fmt: skip
            said = ", ".join(f"{name} {version}" for name, version in _read_part(session, "versions").items())
            versions.setdefault(said, []).append(shorten_directory(run.directory))
    yield make_table(("arm", "seed", "directory", "status", "spec", "data", "commit", "device"), rows, words=8)
    yield make_paragraph(
        "Spec and data: the first digits of the SHA-256 of the resolved spec and of the prepared data."
    )
    for said, runs in versions.items():
        if said:
            yield make_paragraph(f"Versions{'' if len(versions) == 1 else ' of ' + figures.join_words(runs)}: {said}.")
    for arm in comparison.arms:
        run = arm.runs[0]
        others = (
            f"; seeds {figures.join_words([str(seed) for seed in arm.seeds])} differ in nothing else"
            if arm.seeds[1:]
            else ""
        )
        heading = f"Resolved spec of {arm.name} ({shorten_directory(run.directory)}/experiment.yaml{others})"
        content = (run.directory / "experiment.yaml").read_text(errors="replace")
        yield make_tag("details", make_tag("summary", escape(heading)), make_tag("pre", escape(content)))


def shorten_directory(path: Path) -> str:
    """Return a directory relative to the project, the same on every machine; outside a project, only its name."""
    root, there = Workspace.find(path).root, path.resolve()
    return there.name if root == there else there.relative_to(root).as_posix()


def _read_part(tree: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = tree.get(name)
    return part if isinstance(part, dict) else {}


def _find_last_session(found: Mapping[str, object]) -> Mapping[str, object]:
    match found.get("sessions"):
        case [*_, dict(session)]:
            return session
        case _:
            return {}


def _make_code(value: str) -> Markup:
    return make_tag("code", escape(value))


def _format_digest(value: object) -> Markup:
    return _make_code(str(value)[:DIGITS]) if value else escape(figures.MISSING)


def _format_commit(git: Mapping[str, object]) -> Markup:
    if not git.get("commit"):
        return escape(figures.MISSING)
    dirty = git.get("dirty", False)
    changes = " and changes that git did not report" if dirty is None else " and uncommitted changes" if dirty else ""
    return Markup(_make_code(str(git["commit"])[:DIGITS]) + escape(changes))
