"""The analysis as sentences: the result in plain words first, people who disagree, then consensus and agreement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .aggregate import ALL, Analysis, GroupConsensus, group_consensus, own_ranks
from .consensus import ranked
from .mmsr import FEWEST
from .preferences import FEW_PEOPLE, divided, people_text, places_that_differ, result, still_open, who_answered

CHANCE = 0.5
"""Share of pairs that a participant who ranks at random orders alike on a repeated page."""
LISTED = 12
"""Maximum number of people named in a sentence."""
AGREE = 0.1
"""Minimum Krippendorff's alpha at which people against the consensus count as agreeing with each other. People who rank
at random stay below it, even when selected for being against the consensus."""
CAUTION = (
    "A consensus can hide an insightful minority: few people with deep knowledge look like few who ranked at random. "
    "Read the rankings of those who disagree before you use the consensus."
)


@dataclass(frozen=True)
class Minority:
    """People who rank differently. members: participant indices; cell: their own metrics.

    sentence: the difference in plain words, "" for a country, of which `preferences.places_that_differ` speaks;
    statistics: a sentence on how it was found.
    """

    name: str
    members: tuple[int, ...]
    cell: GroupConsensus
    sentence: str
    statistics: str


def order_text(ranks: np.ndarray, labels: tuple[str, ...]) -> str:
    """ "SCoFT > base", with "=" for equal ranks."""
    order = sorted(range(len(labels)), key=lambda k: ranks[k])
    text = labels[order[0]]
    for last, k in zip(order, order[1:], strict=False):
        text += (" = " if ranks[k] == ranks[last] else " > ") + labels[k]
    return text


def interval_text(figure: np.ndarray, decimals: int = 2) -> str:
    """ "0.63 [0.58, 0.68]" of (value, low, high), or the value alone if the ends are NaN."""
    value, low, high = (f"{x:.{decimals}f}" for x in figure)
    return value if np.isnan(figure[1]) else f"{value} [{low}, {high}]"


def minorities(analysis: Analysis) -> list[Minority]:
    """Countries with another consensus than all together, then the people whose own ranking is against it."""
    labels, whole, rows = analysis.survey.generators, analysis.whole, []
    countries = [country for country, item in analysis.cells if country and item == ALL]
    for country in countries if len(countries) > 1 else []:
        own = analysis.cells[country, ALL]
        if (own.ranks != whole.ranks).any():
            sentence = f"The consensus of {country} is another one: {order_text(own.ranks, labels)}."
            k = analysis.table.countries.index(country)
            members = tuple(int(who) for who in analysis.table.present() if analysis.table.country[who] == k)
            rows.append(Minority(country, members, own, "", sentence))
    against = [who for who, ranks in own_ranks(analysis.table).items() if correlation(ranks, whole.ranks) < 0]
    if against:
        chosen = analysis.table.part(np.isin(analysis.table.who, against))
        own = group_consensus(chosen, np.random.default_rng(0))
        name = f"{len(against)} of {whole.people} people against the consensus"
        rows.append(Minority(name, tuple(against), own, *_against(analysis, against, own)))
    return rows


def correlation(ranks: np.ndarray, others: np.ndarray) -> float:
    """Kendall's tau-b of two rankings; 0 if all ranks of one are equal."""
    from scipy.stats import kendalltau

    value = kendalltau(ranks, others).statistic
    return 0.0 if np.isnan(value) else float(value)


def _against(analysis: Analysis, people: list[int], own: GroupConsensus) -> tuple[str, str]:
    """(how the people against the consensus rank and whether they agree with each other, who they are)."""
    ranking = order_text(ranked(-own.average[0]), analysis.survey.generators)
    rank = "ranks" if len(people) == 1 else "rank"
    text = f"{len(people)} of {people_text(analysis.whole.people)} {rank} rather the other way round: {ranking}."
    numbers = _listed([person(analysis, who) for who in people])
    detail = f"Against the consensus (Kendall's tau below 0): {numbers}."
    if len(people) >= FEWEST and not np.isnan(own.alpha):
        text += (
            " They agree with each other: a shared view."
            if own.alpha >= AGREE
            else " They do not agree with each other either: this looks like chance."
        )
        detail += f" Krippendorff's alpha among them is {own.alpha:.2f}."
    reversed_ = int((analysis.whole.consensus.skills.weight[people] < 0).sum())
    if reversed_:
        detail += f" The consensus counts {reversed_} of them with a negative weight, as if they meant the opposite."
    return text, detail


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def person(analysis: Analysis, who: int) -> str:
    """ "no. 7 (Korea)": a participant's name in plots and reports, without the token."""
    return f"no. {who + 1} ({analysis.table.countries[analysis.table.country[who]]})"


def warnings(analysis: Analysis) -> list[str]:
    """Sentences on small groups, methods that differ and doubtful participants, by this module's constants."""
    whole, sentences = analysis.whole, []
    small = [c for (c, item), own in analysis.cells.items() if c and item == ALL and own.people < FEW_PEOPLE]
    if small and len(analysis.table.countries) > 1:
        counts = ", ".join(f"{country} {analysis.cells[country, ALL].people}" for country in small)
        sentences.append(f"Fewer than {FEW_PEOPLE} people, too few to speak for a country: {counts}.")
    if not whole.consensus.weighted:
        sentences.append(
            f"Participants' weights need {FEWEST} people with pages in common; here every vote has the same weight in "
            "the consensus."
        )
    elif not whole.consensus.skills.converged:
        sentences.append("The participants' weights did not converge; use the consensus with caution.")
    by_average, by_check = ranked(-whole.average[0]), ranked(np.round(whole.check, 6))
    for name, ranks in (("average rank", by_average), ("noisy Bradley–Terry", by_check)):
        if (ranks != whole.ranks).any():
            sentences.append(
                f"By {name} the order is {order_text(ranks, analysis.survey.generators)}, not the consensus."
            )
    doubtful = [who for who, (share, _) in analysis.attention.items() if share <= CHANCE]
    if doubtful:
        numbers = _listed([f"{person(analysis, who)} {analysis.attention[who][0]:.0%}" for who in doubtful])
        sentences.append(
            f"No more consistent than chance (50 % of pairs) on repeated pages: {numbers}; "
            "all answers count, move a file out of the folder to leave it out."
        )
    return sentences


def disagreement(analysis: Analysis, others: list[Minority]) -> list[str]:
    """Sentences on places and people who see it differently, with a caution; or that there are none.

    others: from `minorities`.
    """
    people = [minority.sentence for minority in others if minority.sentence]
    sentences = [*places_that_differ(analysis), *people]
    if sentences:
        return [*sentences, CAUTION]
    if divided(analysis):
        return ["Nobody ranks against all the others, but where it is open, people are divided, as said above."]
    return ["Nobody: no place and no person ranks the other way round."]


def statistics(analysis: Analysis, others: list[Minority]) -> list[str]:
    """Sentences on the consensus, average ranks, items and countries, and agreement. others: from `minorities`."""
    whole, labels = analysis.whole, analysis.survey.generators
    return [
        f"Consensus of all (MMSR + Vote): {order_text(whole.ranks, labels)}.",
        f"Average rank, 1 the best: {', '.join(_average(analysis, k) for k in whole.order)}.",
        *_same_order(analysis),
        *(minority.statistics for minority in others),
        _agreement(analysis),
    ]


def report_text(analysis: Analysis) -> str:
    """The report of Aggregate Survey, one sentence per line: who answered, what they prefer, what is open, who
    disagrees, warnings; then the statistics."""
    others = minorities(analysis)
    lines = [who_answered(analysis), result(analysis), *still_open(analysis), *disagreement(analysis, others)]
    return "\n".join([*lines, *warnings(analysis), *statistics(analysis, others)])


def _same_order(analysis: Analysis) -> list[str]:
    """The number of items and countries with the overall order, and the items with another one."""
    sentences = []
    items = [key for key in analysis.cells if key[0] == ALL and key[1]]
    countries = [key for key in analysis.cells if key[0] and key[1] == ALL]
    for what, keys in (("items", items), ("countries", countries)):
        same = sum((analysis.cells[key].ranks == analysis.whole.ranks).all() for key in keys)
        sentences += [f"The same order in {same} of {len(keys)} {what}."] if len(keys) > 1 else []
    for key in items:
        ranks = analysis.cells[key].ranks
        if (ranks != analysis.whole.ranks).any():
            sentences.append(f"On {analysis.titles[key[1]]}: {order_text(ranks, analysis.survey.generators)}.")
    return sentences


def _average(analysis: Analysis, k: int) -> str:
    return f"{analysis.survey.generators[k]} {interval_text(analysis.whole.average[:, k])}"


def _agreement(analysis: Analysis) -> str:
    whole = analysis.whole
    if np.isnan(whole.alpha):
        text = "No two people ranked the same page, so their agreement is unknown."
    else:
        text = (
            f"Agreement between people: Krippendorff's alpha {whole.alpha:.2f}, Kendall's W {whole.kendall_w:.2f} "
            "(1 is full agreement; alpha 0 is chance)."
        )
    if analysis.attention:
        mean = np.mean([share for share, _ in analysis.attention.values()])
        text += f" On repeated pages, people ordered {mean:.0%} of pairs alike (chance is 50 %)."
    return text
