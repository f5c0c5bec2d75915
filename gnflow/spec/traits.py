"""Traits of an optimizer that follow from its spec: a learning rate, momentum, clipping, updates by parts."""

from gnflow.spec.optimizer import ConjugateGradients, GaussNewton, InnerMethod, Method, MethodOfMatrices, Projected


def has_rate(optimizer: Method | GaussNewton) -> bool:
    """Return whether there is a learning rate for a schedule to act on."""
    return not (isinstance(optimizer, GaussNewton) and isinstance(optimizer.inner, ConjugateGradients))


def has_momentum(optimizer: Method | GaussNewton) -> bool:
    """Return whether any part of the parameters follows the direction of a momentum."""
    method = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
    if isinstance(method, ConjugateGradients):
        return False
    return any(part.has_momentum for part in (method, *(rule.use for rule in method.rules)))


def find_what_joins(method: InnerMethod) -> str | None:
    """Return the reason why updates cannot be made matrix by matrix; None if they can."""
    if isinstance(method, ConjugateGradients):
        return "conjugate gradients move all parameters together"
    if isinstance(method, Projected):
        return f"`{method.kind}` merges the gradients of all matrices before its update"
    for part in (method, *(rule.use for rule in method.rules)):
        if part.takes_curvature or part.takes_signals:
            return f"`{part.kind}` takes estimates of curvature for all parameters at once"
    return None


def has_clip(method: Method) -> bool:
    """Return whether any gradient is clipped."""
    parts = [rule.use for rule in method.rules] + ([method.others] if isinstance(method, MethodOfMatrices) else [])
    return method.clip is not None or any(part.clip is not None for part in parts)
