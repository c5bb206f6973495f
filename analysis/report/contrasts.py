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
            doubt = [Words((study.doubt,))] if study.doubt else []
            blocks += [
                Heading(study.name, study.setting),
                *doubt,
                printed(f"{study.anchor}-contrasts", section.columns, section.lines, wide=True),
                Words(study.judgement.notes, quiet=True),
            ]
    absent = "no contrast was named for the sweeps on this page"
    return Part("contrasts", "Contrasts named before the runs", tuple(blocks), absent)


def against_transformer(studies: Sequence[Study]) -> Part:
    """Every model's difference from the Transformer, studies of one scale, text and length of training
    in one chart."""
    groups: dict[tuple[str, ...], list[Plain]] = {}
    for protocol in PROTOCOLS:
        for found in plain(studies, protocol):
            groups.setdefault((*_setting(found.study), found.study.training), []).append(found)
    blocks: list[Block] = []
    for place, group in enumerate(groups.values(), start=1):
        drawn = transformer.blocks(group, f"against-{place}")
        names = dict.fromkeys(found.study.name for found in group)
        setting = ", ".join(filter(None, (group[0].study.source.text, group[0].study.training)))
        blocks += [Heading(", ".join(names), setting), *drawn] if drawn else []
    absent = "needs a Transformer beside other models, under the published or the corrected protocol"
    return Part("against", "Every model against the Transformer", tuple(blocks), absent)


def _setting(study: Study) -> tuple[str, ...]:
    """What studies have in common that may share a chart or a table: sizes, and the very same text."""
    return (*(str(study.values(column)) for column in ("scale", "d_model", "context")), study.data)


def protocols(studies: Sequence[Study]) -> Part:
    """Each study of the published protocol beside the one of the corrected protocol that has most of
    its models, at the same scale and on the same data: itself, if it has both."""
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
            Heading(" and ".join(names), _settings(published, corrected)),
            printed(f"{published.study.anchor}-protocols", section.columns, section.lines),
            Words(table.notes, quiet=True),
        ]
    absent = "needs models under both protocols, of one scale and on one corpus"
    return Part("protocols", "Both protocols side by side", tuple(blocks), absent)


def _settings(published: Plain, corrected: Plain) -> str:
    """Scale and text of both, and how long each trained: protocols may differ in that."""
    scale = f"scale {', '.join(map(str, published.study.values('scale')))}; {published.study.source.text}"
    lengths = dict.fromkeys(filter(None, (published.study.training, corrected.study.training)))
    return f"{scale}; {' against '.join(lengths)}" if lengths else scale


def _counterpart(published: Plain, found: Sequence[Plain]) -> Plain | None:
    """The same study if it has both protocols; else of those on the same data the one that trained as
    long, and of these the one with the most models in common."""
    shared = [
        corrected
        for corrected in found
        if _setting(published.study) == _setting(corrected.study) and _common(published, corrected) > 1
    ]

    def fits(corrected: Plain) -> tuple[bool, bool, int]:
        own, other = published.study, corrected.study
        return other is own, other.training == own.training, _common(published, corrected)

    return max(shared, key=fits, default=None)


def _common(published: Plain, corrected: Plain) -> int:
    return len(set(published.lines) & set(corrected.lines))
