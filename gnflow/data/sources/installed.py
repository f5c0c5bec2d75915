"""Require packages, and explain what to install if one is missing."""

import importlib.util

from gnflow.errors import EnvironmentProblem


def require(module: str, what: str, extra: str = "", package: str = "") -> None:
    """Raise EnvironmentProblem unless a module can be imported; `package` is what pip calls it if not the same."""
    if importlib.util.find_spec(module) is None:
        raise explain_missing(package or module, what, extra)


def explain_missing(package: str, what: str, extra: str = "") -> EnvironmentProblem:
    """Make the error that says what needs a package, and the command that installs it or the extra that has it."""
    install = f"'gnflow[{extra}]'" if extra else package
    return EnvironmentProblem(f"{what} needs the package {package}, which is not installed\nrun: pip install {install}")
