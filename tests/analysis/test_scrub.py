"""What is published names no machine: paths, storages, accounts go, and nothing else does."""

from __future__ import annotations

import socket

import pytest

from analysis import scrub


@pytest.mark.parametrize(
    ("said", "published"),
    [
        ("/home/me/data/wikitext-2/", "PATH_TO/wikitext-2"),
        ("text:/home/me/prose", "text:PATH_TO/prose"),
        ("No such file: '/home/me/x.pt'", "No such file: 'PATH_TO/x.pt'"),
        ("[/a/b,/c/d]", "[PATH_TO/b,PATH_TO/d]"),
        ("~/texts and ../others/ood", "PATH_TO/texts and PATH_TO/ood"),
        (r"C:\Users\me\x.txt", "PATH_TO/x.txt"),
        ("sqlite:////home/me/study.db", "sqlite://..."),
        ("postgresql+psycopg://me:secret@host/db now", "postgresql+psycopg://... now"),
        ("https://me:secret@example.org/x", "https://..."),
    ],
)
def test_what_names_a_machine_goes(said, published):
    assert scrub.private_in(said)
    assert scrub.text(said) == published
    assert scrub.private_in(published) == []


@pytest.mark.parametrize(
    "said",
    [
        "valid bits/byte, MACs/token and/or 1/2",
        "results/ar_ratio/rows.csv and ./runs/x",
        "https://arxiv.org/abs/2307.08621",
        '<svg xmlns="http://www.w3.org/2000/svg"><g><path d="M 0 0"/></g></svg>',
        "PATH_TO/wikitext-2",
        "Type A 10:2 (lr 0.003)",
    ],
)
def test_all_else_stays(said):
    assert scrub.text(said) == said
    assert scrub.private_in(said) == []


def test_a_command_keeps_what_it_takes_to_run_it_again():
    line = (
        "python -m retsweep +sweep=defects 'corpus.path=/home/me/my texts/wikitext-2' seeds=3 "
        "storage=postgresql+psycopg://...@host/db tracker.entity=me 'evaluate.probes=[ood]' "
        "evaluate.ood.path=../others/ood layer.attention.mask=causal storage=null"
    )
    assert scrub.command(line) == (
        "python -m retsweep +sweep=defects corpus.path=PATH_TO/wikitext-2 seeds=3 storage=STORAGE "
        "tracker.entity=ENTITY 'evaluate.probes=[ood]' evaluate.ood.path=PATH_TO/ood "
        "layer.attention.mask=causal storage=null"
    )
    same = "python -m retsweep +sweep=ar_ratio scale=paper protocol.precision=bf16 limit.minutes=90"
    assert scrub.command(same) == same


def test_an_error_names_neither_host_nor_user(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node17")
    monkeypatch.setenv("LOGNAME", "jane")
    assert scrub.error("jane@node17: no /home/jane/x") == "USER@HOST: no PATH_TO/x"


def test_values_inside_values_are_looked_at():
    assert scrub.value({"a": ["/x/y", 1, None, True], "b": {"c": 0.5}}) == {
        "a": ["PATH_TO/y", 1, None, True],
        "b": {"c": 0.5},
    }
