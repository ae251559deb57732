"""The analysis in plain sentences: what was found, what is not settled, and who sees it differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .aggregate import ALL, Analysis, Cell, cell, own_ranks
from .consensus import ranked
from .mmsr import FEWEST

FEW_PEOPLE = 5
"""Groups of fewer people are marked: one more person could turn their figures round."""
CHANCE = 0.5
"""Share of pairs that a participant who ranks at random orders the same way when a page comes again."""
LISTED = 12
"""People that a sentence names."""
AGREE = 0.1
"""Krippendorff's alpha from which people who rank against the consensus are said to agree with each other. People who
rank at random do not reach it, although they were chosen for what they have in common."""
CAUTION = (
    "A consensus can hide an insightful minority: few people with deep knowledge look like few who ranked at random. "
    "Read the rankings of those who disagree before you use the consensus."
)


@dataclass(frozen=True)
class Minority:
    """People who rank otherwise. name: who; members: participant indices; cell: their own figures; sentence: how."""

    name: str
    members: tuple[int, ...]
    cell: Cell
    sentence: str


def order_text(ranks: np.ndarray, labels: tuple[str, ...]) -> str:
    """ "SCoFT > base", and "a = b" for equal ranks."""
    order = sorted(range(len(labels)), key=lambda k: ranks[k])
    text = labels[order[0]]
    for last, k in zip(order, order[1:], strict=False):
        text += (" = " if ranks[k] == ranks[last] else " > ") + labels[k]
    return text


def interval_text(figure: np.ndarray, decimals: int = 2) -> str:
    """ "0.63 [0.58, 0.68]" of (value, low, high); the value alone where the ends are unknown."""
    value, low, high = (f"{x:.{decimals}f}" for x in figure)
    return value if np.isnan(figure[1]) else f"{value} [{low}, {high}]"


def minorities(found: Analysis) -> list[Minority]:
    """Countries whose consensus is not that of all together, then the people whose own ranking runs against it."""
    labels, whole, rows = found.survey.generators, found.whole, []
    countries = [country for country, item in found.cells if country and item == ALL]
    for country in countries if len(countries) > 1 else []:
        own = found.cells[country, ALL]
        if (own.ranks != whole.ranks).any():
            said = f"{country} ranks {order_text(own.ranks, labels)}{_swapped(own, whole, labels)}."
            k = found.table.countries.index(country)
            members = tuple(int(who) for who in found.table.present() if found.table.country[who] == k)
            rows.append(Minority(country, members, own, said))
    against = [who for who, ranks in own_ranks(found.table).items() if correlation(ranks, whole.ranks) < 0]
    if against:
        chosen = found.table.part(np.isin(found.table.who, against))
        own = cell(chosen, np.random.default_rng(0))
        name = f"{len(against)} of {whole.people} people against the consensus"
        rows.append(Minority(name, tuple(against), own, _against(found, against, own)))
    return rows


def correlation(ranks: np.ndarray, others: np.ndarray) -> float:
    """Kendall's tau-b of two rankings; 0 where one of them has all equal."""
    from scipy.stats import kendalltau

    value = kendalltau(ranks, others).statistic
    return 0.0 if np.isnan(value) else float(value)


def _swapped(own: Cell, whole: Cell, labels: tuple[str, ...]) -> str:
    """The pair that a group most surely ranks the other way round than all together, and how sure that is."""
    pairs = [
        (a, b) for a in own.order for b in own.order if own.ranks[a] < own.ranks[b] and whole.ranks[a] > whole.ranks[b]
    ]
    if not pairs:
        return ", where all together rank otherwise"
    a, b = max(pairs, key=lambda pair: np.nan_to_num(own.wins[1, pair[0], pair[1]]))
    figure = own.wins[:, a, b]
    sure = "beyond chance" if figure[1] > 0.5 else "which may be chance"
    return f", unlike all together: {labels[a]} above {labels[b]} in {interval_text(figure)} of rankings, {sure}"


def _against(found: Analysis, people: list[int], own: Cell) -> str:
    """Who the people against the consensus are, what they say, and whether they say it together."""
    labels = found.survey.generators
    ranking = order_text(ranked(-own.average[0]), labels)
    counted = "1 person ranks" if len(people) == 1 else f"{len(people)} people rank"
    said = f"{counted} against the consensus (Kendall's tau below 0); by average rank: {ranking}."
    numbers = _listed([person(found, who) for who in people])
    said += f" They are {numbers}." if len(people) > 1 else f" It is {numbers}."
    if len(people) >= FEWEST and not np.isnan(own.alpha):
        together = "they agree with each other: a view of their own" if own.alpha >= AGREE else (
            "they do not agree with each other either: this looks like chance")  # fmt: skip
        said += f" Krippendorff's alpha among them is {own.alpha:.2f}, so {together}."
    reversed_ = int((found.whole.consensus.skills.weight[people] < 0).sum())
    if reversed_:
        said += f" The consensus counts {reversed_} of them with a negative weight, as if they meant the opposite."
    return said


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def person(found: Analysis, who: int) -> str:
    """ "no. 7 (Korea)": how a participant is named in plots and reports; tokens stay in the files."""
    return f"no. {who + 1} ({found.table.countries[found.table.country[who]]})"


def unsettled(found: Analysis) -> list[str]:
    """Neighbours in the consensus whose order the win rates do not settle: the interval holds 0.5, or is unknown."""
    labels, whole, said = found.survey.generators, found.whole, []
    for a, b in zip(whole.order, whole.order[1:], strict=False):
        figure = whole.wins[:, a, b]
        if not (figure[1] > 0.5 or figure[2] < 0.5):
            said.append(
                f"The order of {labels[a]} and {labels[b]} is not settled: {labels[a]} is above in "
                f"{interval_text(figure)} of rankings; more people are needed."
            )
    return said


def warnings(found: Analysis) -> list[str]:
    """What the data are too few or too odd for; the rules are this module's constants."""
    whole, said = found.whole, []
    if whole.people < FEW_PEOPLE:
        said.append(
            f"There are answers of {_people(whole.people)} only: fewer than {FEW_PEOPLE} are too few to build on."
        )
    small = [c for (c, item), own in found.cells.items() if c and item == ALL and own.people < FEW_PEOPLE]
    if small and len(found.table.countries) > 1:
        counts = ", ".join(f"{country} {found.cells[country, ALL].people}" for country in small)
        said.append(f"Fewer than {FEW_PEOPLE} people, too few to speak for a country: {counts}.")
    if not whole.consensus.weighted:
        said.append(
            f"Participants' weights need {FEWEST} people with pages in common; here every vote counts alike in the "
            "consensus."
        )
    elif not whole.consensus.skills.converged:
        said.append("The participants' weights did not settle; take the consensus with care.")
    said += unsettled(found)
    by_average, by_check = ranked(-whole.average[0]), ranked(np.round(whole.check, 6))
    for name, ranks in (("average rank", by_average), ("noisy Bradley–Terry", by_check)):
        if (ranks != whole.ranks).any():
            said.append(f"By {name} the order is {order_text(ranks, found.survey.generators)}, not the consensus.")
    doubtful = [who for who, (share, _) in found.attention.items() if share <= CHANCE]
    if doubtful:
        numbers = _listed([f"{person(found, who)} {found.attention[who][0]:.0%}" for who in doubtful])
        said.append(
            f"No more consistent than chance (50 % of pairs) when a page came again: {numbers}; "
            "all answers count, move a file out of the folder to leave it out."
        )
    return said


def _people(n: int) -> str:
    return "1 person" if n == 1 else f"{n} people"


def report_text(found: Analysis) -> str:
    """The report of Aggregate Survey: result, agreement, minorities, warnings; one sentence a line."""
    survey, whole = found.survey, found.whole
    pages = len(np.unique(found.table.page))
    lines = [
        f"{survey.title}: {_people(whole.people)}, {whole.rankings} rankings on {pages} pages and "
        f"{len(survey.items)} items.",
        f"Consensus of all (MMSR + Vote): {order_text(whole.ranks, survey.generators)}.",
        f"Average rank, 1 the best: {', '.join(_average(found, k) for k in whole.order)}.",
    ]
    lines += _same_order(found)
    lines.append(_agreement(found))
    found_minorities = minorities(found)
    lines += [minority.sentence for minority in found_minorities]
    return "\n".join([*lines, *([CAUTION] if found_minorities else []), *warnings(found)])


def _same_order(found: Analysis) -> list[str]:
    """In how many items and countries the order is that of all; the items where it is not. Countries come later."""
    said = []
    items = [key for key in found.cells if key[0] == ALL and key[1]]
    countries = [key for key in found.cells if key[0] and key[1] == ALL]
    for what, keys in (("items", items), ("countries", countries)):
        same = sum((found.cells[key].ranks == found.whole.ranks).all() for key in keys)
        said += [f"The same order in {same} of {len(keys)} {what}."] if len(keys) > 1 else []
    for key in items:
        ranks = found.cells[key].ranks
        if (ranks != found.whole.ranks).any():
            said.append(f"On {found.titles[key[1]]}: {order_text(ranks, found.survey.generators)}.")
    return said


def _average(found: Analysis, k: int) -> str:
    return f"{found.survey.generators[k]} {interval_text(found.whole.average[:, k])}"


def _agreement(found: Analysis) -> str:
    whole = found.whole
    if np.isnan(whole.alpha):
        said = "No two people ranked the same page, so their agreement is unknown."
    else:
        said = (
            f"Agreement between people: Krippendorff's alpha {whole.alpha:.2f}, Kendall's W {whole.kendall_w:.2f} "
            "(1 is full agreement; alpha 0 is chance)."
        )
    if found.attention:
        mean = np.mean([share for share, _ in found.attention.values()])
        said += f" When a page came again, people ordered {mean:.0%} of pairs alike (chance is 50 %)."
    return said
