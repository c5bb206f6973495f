"""Corpora of the hub: joined alike from both sources, and one line at once without a network."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from retsweep.data.corpus import documents
from retsweep.data.folder import TextFolder
from retsweep.data.hub import HubCorpus
from retsweep.data.network import require_hub
from retsweep.data.tokenizers import Gpt2
from retsweep.spec import SpecError

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens
ROWS = ["", " = Title = \n", "", " The text of it . \n", " And more of it . \n"]
JOINED = "\n\n = Title = \n\n\n\n\n The text of it . \n\n\n And more of it . \n"


def corpus(path: Path | None = None) -> HubCorpus:
    return HubCorpus(
        name="wiki", repository="some/where", subset="raw", path=None if path is None else str(path)
    )


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers every request with 404."""

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)


def test_folder_and_hub_give_the_same_text(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    lines = "".join(row or "\n" for row in ROWS)
    from_folder = documents(corpus(make_folder(train=lines, valid=lines, test=lines)), tmp_path)
    assert from_folder["train"] == [JOINED]

    asked = []

    def load_dataset(*arguments: Any, **options: Any) -> datasets.DatasetDict:
        asked.append((arguments, options))
        split = datasets.Dataset.from_dict({"text": ROWS})
        return datasets.DatasetDict({"train": split, "validation": split, "test": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert documents(corpus(), tmp_path) == from_folder
    assert asked == [(("some/where", "raw"), {"cache_dir": str(tmp_path / "datasets")})]


def test_a_label_tells_the_source_but_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = tmp_path.name
    assert corpus().label == "wiki"
    assert corpus(tmp_path / "tokenised").label == "wiki:tokenised"
    assert [TextFolder(path=path).label for path in (f"{tmp_path}/", ".", "a/..")] == [f"text:{name}"] * 3


@pytest.mark.usefixtures("offline")
def test_no_network_is_one_line_at_once(tmp_path: Path) -> None:
    for read, key in (
        (lambda: corpus().dataset(tmp_path), "corpus"),
        (lambda: Gpt2().make([], 50257, tmp_path), "tokenizer"),
    ):
        start = time.perf_counter()
        with pytest.raises(
            SpecError,
            match=rf"cannot be reached; give a folder with .*{key}\.path=FOLDER.* HF_HUB_OFFLINE=1 if it was",
        ) as error:
            read()
        assert time.perf_counter() - start < 10
        assert "\n" not in str(error.value)


def test_any_answer_counts_as_a_hub(endpoint: str) -> None:
    require_hub("it is read from the hub", "give a folder")


@pytest.mark.usefixtures("offline")
def test_offline_mode_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    require_hub("it is read from the hub", "give a folder")


def test_what_the_hub_says_is_folded_to_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    def load_dataset(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("the hub said no\nand how")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        SpecError, match=r"some/where cannot be read from the hub \(the hub said no\); give a folder"
    ):
        corpus().dataset(tmp_path)
