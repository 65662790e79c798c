"""Which expert was trained on which domain."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tta.errors import InputError


def experts_of_domains(groups: Sequence[Sequence[str]], domains: Sequence[str], experts: int) -> list[int]:
    """Number of the expert of every domain.

    Args:
        groups: Names of the domains that each expert was trained on, in the order of the experts.
        domains: Names of the training domains.
        experts: Number of experts of the model.

    Returns:
        For every domain, in the order of ``domains``, the number of the group that holds it.

    Raises:
        InputError: If there is one domain only, groups and experts differ in number, or the groups do not hold every
            domain exactly once.
    """
    if len(domains) < 2:
        raise InputError(f"the data has one training domain, {domains[0]!r}: Meta-DMoE learns from at least two")
    if len(groups) != experts:
        raise InputError(f"groups: {len(groups)} groups for the model's {experts} experts; give one for each")
    named = [name for group in groups for name in group]
    wrong = {
        "unknown": sorted(set(named) - set(domains)),
        "missing": [name for name in domains if name not in named],
        "given twice": sorted({name for name in named if named.count(name) > 1}),
    }
    if said := "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names):
        raise InputError(f"groups: {said}; each of {', '.join(domains)} must stand in one group, as its expert saw it")
    return [next(number for number, group in enumerate(groups) if name in group) for name in domains]


def domains_of(datamodule: Any) -> list[str]:  # noqa: ANN401  any data module
    """Names of the training domains.

    Raises:
        InputError: If the data has none.
    """
    domains = getattr(datamodule, "domains", None)
    if not domains:
        name = type(datamodule).__name__
        raise InputError(f"{name} has no domains: use a data module that has, such as datamodules.DomainFolderSource")
    return list(domains)


def domain_of(batch: Mapping[str, Tensor]) -> int:
    """Number of the one domain of a batch.

    Args:
        batch: With ``domain``, int64, shape ``(B,)``.

    Raises:
        InputError: If the batch does not say, or mixes domains.
    """
    if "domain" not in batch:
        raise InputError("a training batch does not say its domain: use datamodules.DomainFolderSource or the like")
    domain = batch["domain"]
    if not bool((domain == domain[0]).all()):
        raise InputError("a training batch mixes domains: give the data module batches=one_domain")
    return int(domain[0])
