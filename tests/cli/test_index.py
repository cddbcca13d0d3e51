"""``recallm index`` builds, changes, describes and searches a saved index."""

import argparse
import json

import pytest

from recallm_core.cli import index as index_cli
from recallm_core.errors import CorpusIndexError, DocumentError
from recallm_core.retrieval import CorpusIndex
from recallm_core.retrieval.embedding import StaticEmbedder


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "skagen.md").write_text("# Skagen\n\nThe lighthouse was painted white in 1953.\n")
    (folder / "bread.txt").write_text("Knead the dough for ten minutes.\n\x1b[31mThen wait.\n")
    return folder


def run(*arguments):
    parser = argparse.ArgumentParser()
    index_cli.add_parser(parser.add_subparsers(dest="command"))
    args = parser.parse_args(["index", *map(str, arguments)])
    return args.run(args)


def test_a_folder_becomes_an_index_that_is_searched_with_places(docs, tmp_path, capsys):
    path = tmp_path / "index"
    assert run("build", path, docs) == 0
    assert "2 documents" in capsys.readouterr().err
    assert run("search", path, "When was the lighthouse painted?", "-k", 1) == 0
    shown = capsys.readouterr().out
    assert "skagen.md, lines 1-3" in shown
    assert "painted white in 1953" in shown
    assert run("search", path, "dough", "--mode", "lexical") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert run("search", path, "dough", "--mode", "lexical", "--json") == 0
    (hit,) = map(json.loads, capsys.readouterr().out.splitlines())
    source = CorpusIndex.open(path).documents[hit["document_id"]]
    assert source.text[hit["start"] : hit["end"]] == hit["text"]
    assert run("search", path, "zzzz", "--mode", "lexical") == 0
    assert "nothing matches" in capsys.readouterr().err


def test_adding_pays_only_for_what_changed(docs, tmp_path, capsys):
    path = tmp_path / "index"
    run("build", path, docs, "--quiet")
    (docs / "bread.txt").write_text("Bake it.")
    (docs / "new.txt").write_text("A river.")
    assert run("add", path, docs) == 0
    assert "2 documents added or replaced, 1 were there already" in capsys.readouterr().err
    assert CorpusIndex.open(path).documents["bread.txt"].text == "Bake it."
    assert run("add", path, docs, "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert run("stats", path, "--json") == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["documents"], stats["generation"]) == (3, 2)
    assert run("stats", path) == 0
    assert "documents   3" in capsys.readouterr().out


def test_deleting_is_all_or_nothing(docs, tmp_path, capsys):
    path = tmp_path / "index"
    run("build", path, docs, "--quiet")
    with pytest.raises(CorpusIndexError, match=r"no document 'nope'; nothing was deleted"):
        run("delete", path, "bread.txt", "nope")
    assert len(CorpusIndex.open(path).documents) == 2
    assert run("delete", path, "bread.txt") == 0
    assert "1 documents deleted, 1 left" in capsys.readouterr().err
    assert list(CorpusIndex.open(path).documents) == ["skagen.md"]


def test_mistakes_are_named(docs, tmp_path, capsys):
    with pytest.raises(CorpusIndexError, match="holds no index"):
        run("stats", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DocumentError, match="nothing to index"):
        run("build", tmp_path / "index", tmp_path / "empty")
    with pytest.raises(SystemExit):
        run("search", tmp_path / "index", "question", "-k", 0)
    assert "at least 1" in capsys.readouterr().err


def test_a_person_who_is_looking_sees_bars(docs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert run("build", tmp_path / "index", docs) == 0
    shown = capsys.readouterr().err
    assert "Reading" in shown
    assert "Indexing" in shown
    assert "2/2" in shown
    assert run("build", tmp_path / "index", docs, "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_building_again_embeds_only_what_changed(docs, tmp_path, monkeypatch):
    path = tmp_path / "index"
    embedded = []
    encode = StaticEmbedder.encode_documents

    def spy(self, texts):
        embedded.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(StaticEmbedder, "encode_documents", spy)
    assert run("build", path, docs, "--quiet") == 0
    assert len(embedded) == 2
    embedded.clear()
    assert run("build", path, docs, "--quiet") == 0
    assert embedded == []
    assert CorpusIndex.open(path).stats().generation == 1
    (docs / "bread.txt").unlink()
    (docs / "river.txt").write_text("A river runs through it.\n")
    assert run("build", path, docs, "--quiet") == 0
    assert [text.split("\n")[-2] for text in embedded] == ["A river runs through it."]
    assert sorted(CorpusIndex.open(path).documents) == ["river.txt", "skagen.md"]


@pytest.mark.parametrize("damage", ["CURRENT", "vectors"])
def test_building_over_a_damaged_index_makes_it_anew(docs, tmp_path, damage):
    path = tmp_path / "index"
    assert run("build", path, docs, "--quiet") == 0
    (spoilt,) = [each for each in path.rglob("*") if damage in each.name]
    spoilt.write_bytes(b"generation-000009" if damage == "CURRENT" else b"")
    assert run("build", path, docs, "--quiet") == 0
    assert len(CorpusIndex.open(path).documents) == 2
