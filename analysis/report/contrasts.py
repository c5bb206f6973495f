"""Differences: contrasts named before the runs, every model against the Transformer, and both
protocols beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.blocks import Block, Heading, Part, Words, printed
from analysis.report.charts import transformer
from analysis.report.plain import PROTOCOLS, Plain, plain
from analysis.report.studies import Study
from analysis.rows import TableError
from analysis.sidebyside import side_by_side


def contrasts(studies: Sequence[Study]) -> Part:
    """Every study whose sweep has a file of contrasts."""
    blocks: list[Block] = []
    for study in studies:
        if study.judgement is not None:
            section = study.judgement.section()
            blocks += [
                Heading(study.name, study.setting),
                printed(f"{study.anchor}-contrasts", section.columns, section.lines, wide=True),
                Words(study.judgement.notes, quiet=True),
            ]
    absent = "no contrast was named for the sweeps on this page"
    return Part("contrasts", "Contrasts named before the runs", tuple(blocks), absent)


def against_transformer(studies: Sequence[Study]) -> Part:
    """Every model's difference from the Transformer, studies of one scale and text in one chart."""
    groups: dict[tuple[str, ...], list[Plain]] = {}
    for protocol in PROTOCOLS:
        for found in plain(studies, protocol):
            groups.setdefault(_setting(found.study), []).append(found)
    blocks: list[Block] = []
    for place, group in enumerate(groups.values(), start=1):
        drawn = transformer.blocks(group, f"against-{place}")
        names = dict.fromkeys(found.study.name for found in group)
        blocks += [Heading(", ".join(names), group[0].study.source.text), *drawn] if drawn else []
    absent = "needs a Transformer beside other models, under the published or the corrected protocol"
    return Part("against", "Every model against the Transformer", tuple(blocks), absent)


def _setting(study: Study) -> tuple[str, ...]:
    """What studies have in common that may share a chart of differences."""
    return tuple(str(study.values(column)) for column in ("scale", "d_model", "corpus", "tokenizer"))


def protocols(studies: Sequence[Study]) -> Part:
    """Each study of the published protocol beside the one of the corrected protocol that has most of
    its models, at the same scale and on the same corpus."""
    blocks: list[Block] = []
    for published in plain(studies, "published"):
        corrected = _counterpart(published, plain(studies, "corrected"))
        if corrected is None:
            continue
        try:
            table = side_by_side(published.rows, corrected.rows)
        except TableError as error:
            blocks.append(Words((f"{published.study.name} and {corrected.study.name}: {error}.",)))
            continue
        names = dict.fromkeys((published.study.name, corrected.study.name))
        section = table.sections[0]
        blocks += [
            Heading(" and ".join(names), published.study.setting),
            printed(f"{published.study.anchor}-protocols", section.columns, section.lines),
            Words(table.notes, quiet=True),
        ]
    absent = "needs models under both protocols, of one scale and on one corpus"
    return Part("protocols", "Both protocols side by side", tuple(blocks), absent)


def _counterpart(published: Plain, found: Sequence[Plain]) -> Plain | None:
    shared = [
        (len(set(published.lines) & set(corrected.lines)), corrected)
        for corrected in found
        if _setting(published.study) == _setting(corrected.study)
    ]
    count, best = max(shared, key=lambda pair: pair[0], default=(0, None))
    return best if count > 1 else None
