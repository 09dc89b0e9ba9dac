"""Bars: clean accuracy and attack success of the BadNet, of B′ and of the GoodNet at each drop."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.results.rates import Rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# {net: {"clean accuracy" or "ASR, SET": rate}}.
Rates = Mapping[str, Mapping[str, Rate]]


def rates_at_drops(sweep: Mapping[str, Any]) -> Rates:
    """Of the BadNet, and of B′ and the GoodNet at each drop.

    Args:
        sweep: the record of a sweep, as sweep.json holds it.
    """
    n = sweep["n"]

    def rates(block: Mapping[str, Any], at: int | None) -> dict[str, Rate]:
        def rate(shares: Any, size: int) -> Rate:
            share = shares if at is None else shares[at]
            return Rate(round(float(share) * size), size)

        found = {"clean accuracy": rate(block["test_accuracy"], n["test"])}
        return found | {
            f"ASR, {name}": rate(shares, n["poisoned"][name]) for name, shares in block["attack_success"].items()
        }

    found: dict[str, Mapping[str, Rate]] = {"BadNet": rates(sweep, 0)}
    for drop in sweep["repairs"]:
        found[f"B′\ndrop {drop['drop']}"] = rates(drop, None)
        found[f"GoodNet\ndrop {drop['drop']}"] = rates(drop["goodnet"], None)
    return found


def drops_figure(sweep: Any, title: str = "") -> "Figure":
    """The BadNet, and B′ and the GoodNet at each drop, side by side, with 95 % intervals.

    Args:
        sweep: a `Sweep`, or its record.
    Raises: InputError if the curve reaches no drop.
    """
    from jaxdefend.results.plots import rates_figure

    record = sweep if isinstance(sweep, Mapping) else sweep.record()
    if not record["repairs"]:
        raise InputError("the curve reaches none of the drops: there are no repaired nets to draw")
    name = "net" if isinstance(sweep, Mapping) else sweep.net.name
    n = record["n"]
    sets = ", ".join([f"{n['test']:,} clean", *(f"{size:,} with {of}" for of, size in n["poisoned"].items())])
    return rates_figure(title or f"{name}, pruned at {record['layer']}; images: {sets}", rates_at_drops(record))
