"""Tokens made once, by any tokenizer: nothing is lost, nothing half-made is read, and the second run only maps them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import records, train_ranks
from test_resume import assert_equal_runs, back_to

from accel_cli.config.plan import plan
from accel_cli.data import documents, tokens
from accel_cli.data.base import SPLITS
from accel_cli.data.text import library_files
from accel_cli.errors import ConfigError, ResourceError

SMALL = {"length": 16, "validation_share": 0.1, "test_share": 0.1}
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def text():
    """Real text, with characters of several bytes in it."""
    files = [path.read_text(encoding="utf-8") for path, _ in zip(library_files(), range(12), strict=False)]
    return "".join(files)[:150_000] + "Straße, naïve, 東京, 🙂\n" * 400


def trained(text, path, vocabulary=700):
    library = pytest.importorskip("tokenizers", reason="needs the package tokenizers")
    own = library.Tokenizer(library.models.BPE())
    own.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(
        [text], library.trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet)
    )
    own.enable_truncation(8)  # as many a published file does; it must not cut ours
    own.enable_padding(length=8)
    own.save(str(path))
    return library.Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def bpe(text, tmp_path_factory):
    """(path of a tokenizer.json, the tokenizer)"""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    own = trained(text, path)
    own.no_truncation()
    own.no_padding()
    return str(path), own


def stream(data, name):
    """All tokens of a split but the tail, as list."""
    part = data.split(name)
    inputs, targets = part.batch(torch.arange(len(part)))
    return [*inputs.flatten().tolist(), int(targets[-1, -1])]


def settings(path, tokenizer, tmp_path, **more):
    return {"path": str(path), "tokenizer": tokenizer, "cache": str(tmp_path / "cache"), **SMALL, **more}


def test_decoded_windows_are_the_text(make, text, bpe, tmp_path):
    path, own = bpe
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    data = make("text", **settings(tmp_path / "t.txt", path, tmp_path))
    data.prepare(lambda *_: None)
    facts = data.describe()
    assert facts.vocabulary == 700
    content, place = text.encode(), 0
    for name in SPLITS:
        found = own.decode(stream(data, name), skip_special_tokens=False).encode()
        found = found.removesuffix("\ufffd".encode())  # the tail may begin within a character
        assert content[place:].startswith(found)
        ratio = facts.bytes_per_token_of[name]
        assert ratio == pytest.approx(len(found) / len(stream(data, name)), rel=0.02)
        place += round(len(content) * {"train": 0.8}.get(name, 0.1))
        while content[place : place + 1] and content[place] & 0xC0 == 0x80:
            place += 1
    assert facts.bytes_per_token == facts.bytes_per_token_of["train"] > 1.5
    inputs, targets = data.split("train").batch(torch.tensor([3, 0]))
    assert inputs.dtype == targets.dtype == torch.int32
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_pieces_lose_nothing(make, text, bpe, tmp_path, monkeypatch):
    """Cut into many pieces and batches, the tokens are nearly those of the whole, and the text is the same."""
    path, own = bpe
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(documents, "PIECE", 1000)
    monkeypatch.setattr(tokens, "BATCH", 5000)
    told = []
    data = make("text", **settings(tmp_path / "t.txt", path, tmp_path))
    data.prepare(lambda *step: told.append(step))
    train, _ = data.streams(lambda *_: None)
    content = text.encode()
    assert own.decode(train["train"].tokens.tolist(), skip_special_tokens=False).encode() in content
    assert sum(part.text_bytes for part in train.values()) == len(content)
    whole = own.encode(text, add_special_tokens=False).ids
    assert sum(len(part.tokens) for part in train.values()) == pytest.approx(len(whole), rel=0.002)
    assert len(told) > 20
    assert told[-1] == ("tokenise bytes", len(content), len(content))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
@pytest.mark.parametrize("form", ["folder", "glob", "jsonl"])
def test_documents_are_packed_with_one_token_between_them(make, bpe, tmp_path, tokenizer, form):
    path, own = bpe
    pieces = [f"Document {n}, naïve. {END} is text here.\n" * (n % 5) for n in range(40)]  # some are empty
    folder = tmp_path / "many"
    (folder / "deep").mkdir(parents=True)
    for number, piece in enumerate(pieces):
        (folder / ("deep" if number < 20 else ".") / f"{number:02}.txt").write_text(piece)
    (folder / ".hidden").write_text("nothing of this is read")
    named = {"folder": folder, "glob": folder / "**/*.txt", "jsonl": tmp_path / "rows.jsonl"}[form]
    order = pieces[20:] + pieces[:20] if form != "jsonl" else pieces
    if form == "jsonl":
        named.write_text("\n".join(json.dumps({"body": piece}) for piece in pieces) + "\n")
    if form == "folder" or form == "glob":
        order = [p for _, p in sorted((f"{'deep/' if n < 20 else ''}{n:02}", p) for n, p in enumerate(pieces))]
    name = path if tokenizer == "bpe" else "bytes"
    data = make("text", **settings(named, name, tmp_path, field="body", length=8))
    streams, vocabulary = data.streams(lambda *_: None)
    found = streams["train"].tokens.tolist()
    separator = own.token_to_id(END) if tokenizer == "bpe" else 0
    borders = [place for place, token in enumerate(found) if token == separator]
    documents_found, start = [], 0
    for border in [*borders, len(found)]:
        part = found[start:border]
        documents_found.append(own.decode(part) if tokenizer == "bpe" else bytes(part).decode())
        start = border + 1
    expected = [piece for piece in order if piece]
    assert documents_found[:-1] == expected[: len(documents_found) - 1]  # the last may be cut by the border of train
    assert len(documents_found) > 20
    size = sum(part.text_bytes for part in streams.values())
    assert size == sum(len(piece.encode()) for piece in pieces)
    if tokenizer == "bytes":
        assert (vocabulary, found[-1] in range(256)) == (256, True)
        assert data.describe().bytes_per_token == pytest.approx(1 - len(borders) / len(found))


def test_the_separator_can_be_chosen_or_left_out(make, bpe, tmp_path):
    path, own = bpe
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("some words here " * 40)
    named = settings(tmp_path / "*.txt", path, tmp_path)
    counts = {}
    for separator in ("auto", 5, "!", None):
        streams, _ = make("text", **named | {"separator": separator}).streams(lambda *_: None)
        token = {"auto": own.token_to_id(END), "!": own.token_to_id("!")}.get(separator, separator)
        counts[separator] = int(np.concatenate([s.tokens == token for s in streams.values()]).sum())
    assert counts == {"auto": 2, 5: 2, "!": 2, None: 0}


@pytest.mark.parametrize(("vocabulary", "dtype"), [(257, np.uint16), (300, np.uint16)])
def test_tokens_take_as_little_room_as_their_vocabulary_allows(make, text, tmp_path, vocabulary, dtype):
    trained(text[:5000], tmp_path / "t.json", vocabulary)
    (tmp_path / "t.txt").write_text(text[:20_000], encoding="utf-8")
    streams, size = make("text", **settings(tmp_path / "t.txt", str(tmp_path / "t.json"), tmp_path)).streams(
        lambda *_: None
    )
    assert (streams["train"].tokens.dtype, size) == (dtype, vocabulary)
    (path,) = (tmp_path / "cache").glob("text-*/tokens")
    assert path.stat().st_size == sum(len(s.tokens) for s in streams.values()) * dtype().itemsize
    assert isinstance(streams["train"].tokens, np.memmap)


def test_the_second_run_asks_no_tokenizer(make, text, bpe, tmp_path, monkeypatch):
    from accel_cli.data import tokenizer_file

    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    named = settings(tmp_path / "t.txt", bpe[0], tmp_path)
    first = make("text", **named)
    first.prepare(lambda *_: None)
    calls = []
    load = tokenizer_file.File.load
    monkeypatch.setattr(tokenizer_file.File, "load", lambda self: (calls.append(1), load(self))[1])
    again = make("text", **named)
    assert again.describe() == first.describe()
    assert make("text", **named | {"length": 24, "windows": "shifting"}).describe().vocabulary == 700
    assert calls == []
    other = tmp_path / "other.json"
    trained(text[:9000], other, 400)
    assert make("text", **named | {"tokenizer": str(other)}).describe().vocabulary == 400
    (tmp_path / "t.txt").write_text(text + "more", encoding="utf-8")
    make("text", **named).describe()
    assert calls == [1, 1]


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from accel_cli.config.schema.data import Text
from accel_cli.data import documents, text, tokens
documents.PIECE, tokens.BATCH = 1000, 2000
config = Text(option="text", **{values!r})
def slowly(what, done, total):
    print(done, flush=True)
    time.sleep(0.2)
text.Text(config, 0).prepare(slowly)
"""


def test_a_killed_preparation_leaves_nothing_that_is_read(make, text, bpe, tmp_path):
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    named = settings(tmp_path / "t.txt", bpe[0], tmp_path)
    whole = make("text", **named | {"cache": str(tmp_path / "other")}).streams(lambda *_: None)[0]
    full = {"field": "text", "separator": "auto", "windows": "fixed", **named}
    code = KILLED.format(tests=str(Path(__file__).parent), values=full)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        assert process.stdout.readline().strip().isdigit()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    (left,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert left.name.endswith(".partial")
    streams, _ = make("text", **named).streams(lambda *_: None)
    for name in SPLITS:
        assert np.array_equal(streams[name].tokens, whole[name].tokens)
    assert not left.exists()


def test_bits_per_byte_follow_the_split(make, text, bpe, tmp_path):
    from accel_cli.config.schema.task import OPTIONS
    from accel_cli.task.language_model import LanguageModel

    half = len(text) // 2
    (tmp_path / "t.txt").write_text(text[:half] + "qjzxw" * 4000, encoding="utf-8")  # test is unlike train
    facts = make("text", **settings(tmp_path / "t.txt", bpe[0], tmp_path)).describe()
    ratios = facts.bytes_per_token_of
    assert ratios["test"] != pytest.approx(ratios["train"], rel=0.05)
    task = LanguageModel(OPTIONS["language_model"].schema(option="language_model", ignored_targets=False), facts)
    for name in SPLITS:
        shown = task.summarize({"loss": 2.0, "accuracy": 0.1}, name)
        assert shown["bits_per_byte"] == pytest.approx(2.0 / np.log(2) / ratios[name])


def refused(make, **values):
    with pytest.raises(ConfigError) as refusal:
        make("text", **values).describe()
    (problem,) = refusal.value.problems
    assert problem.fix
    return problem


def test_what_is_wrong_is_said(make, bpe, tmp_path):
    path, _ = bpe
    good = tmp_path / "t.txt"
    good.write_text("words and words " * 200)
    (tmp_path / "broken.json").write_text('{"version": "1.0"}')
    broken = refused(make, **settings(good, str(tmp_path / "broken.json"), tmp_path))
    assert broken.where.startswith("data.tokenizer=")
    assert "holds no tokenizer" in broken.why
    assert "cannot be read" in refused(make, **settings(good, str(tmp_path / "none.json"), tmp_path)).why
    assert "0 to 699" in refused(make, **settings(good, path, tmp_path, separator=700)).why
    assert "0 to 255" in refused(make, **settings(good, "bytes", tmp_path, separator=256)).why
    assert "no such token" in refused(make, **settings(good, path, tmp_path, separator="<nope>")).why
    short = refused(make, **settings(good, path, tmp_path, length=300))
    assert short.where == "data.length=300"
    assert "301 tokens of each split" in short.why
    assert "no file fits" in refused(make, **settings(tmp_path / "*.md", path, tmp_path)).why
    (tmp_path / "latin.txt").write_bytes("Straße ".encode("latin-1") * 500)
    latin = refused(make, **settings(tmp_path / "latin.txt", path, tmp_path))
    assert "not UTF-8 text (byte 4)" in latin.why
    assert make("text", **settings(tmp_path / "latin.txt", "bytes", tmp_path)).describe().vocabulary == 256


@pytest.mark.parametrize(
    ("line", "why", "fix"),
    [
        ("{", "line 31: no JSON", "write one object a line"),
        ('{"body": "x"}', "line 31: no text named text; has body", "try data.field=body"),
        ("[1]", "line 31: no text named text; has no fields", "write {"),
        ('{"text": 5, "more": "x"}', "line 31: no text named text; has text, more", "try data.field=more"),
    ],
)
def test_a_bad_line_is_named(make, tmp_path, line, why, fix):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "some words"}\n' * 30 + line + "\n" + '{"text": "more"}\n' * 9)
    problem = refused(make, **settings(path, "bytes", tmp_path))
    assert why in problem.why
    assert fix in problem.fix


ENCODING = """
def tiny():
    ranks = {bytes([b]): b for b in range(256)} | {b"th": 256, b"the": 257, b" the": 258}
    special = {"<|endoftext|>": 259}
    return {"name": "tiny", "pat_str": r" ?\\w+|\\s+|.", "mergeable_ranks": ranks, "special_tokens": special}
def lost():
    raise OSError("no network here")
ENCODING_CONSTRUCTORS = {"tiny": tiny, "lost": lost}
"""


def test_tiktoken_by_name(make, tmp_path, monkeypatch):
    """With encodings as its plug-ins bring them: its own would be downloaded."""
    pytest.importorskip("tiktoken", reason="needs the package tiktoken")
    import tiktoken
    import tiktoken_ext
    from tiktoken import registry

    (tmp_path / "tiktoken_ext").mkdir()
    (tmp_path / "tiktoken_ext/accel_test.py").write_text(ENCODING)
    monkeypatch.setattr(tiktoken_ext, "__path__", [*tiktoken_ext.__path__, str(tmp_path / "tiktoken_ext")])
    monkeypatch.setattr(registry, "ENCODING_CONSTRUCTORS", None)
    registry._available_plugin_modules.cache_clear()
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("the cat in the hat, naïve <|endoftext|> " * 50)
    named = settings(tmp_path / "?.txt", "tiny", tmp_path)
    streams, vocabulary = make("text", **named).streams(lambda *_: None)
    assert vocabulary == 260
    found = np.concatenate([s.tokens for s in streams.values()])
    assert found.dtype == np.uint16
    assert (found == 259).sum() == 3
    assert (found == 258).sum() >= 3 * 50
    text = tiktoken.get_encoding("tiny").decode(found[found != 259].tolist())
    assert text == "the cat in the hat, naïve <|endoftext|> " * 200
    assert "did you mean data.tokenizer=tiny ?" in refused(make, **named | {"tokenizer": "tinny"}).fix
    with pytest.raises(ResourceError, match=r"could not be downloaded: no network here"):
        make("text", **named | {"tokenizer": "lost"}).describe()
    registry._available_plugin_modules.cache_clear()


def test_the_standard_library_in_tokens(make, bpe, tmp_path):
    data = make("stdlib_text", tokenizer=bpe[0], max_bytes=60_000, length=16, cache=str(tmp_path))
    assert data.config.needs_preparing
    data.prepare(lambda *_: None)
    streams, _ = data.streams(lambda *_: None)
    text = bpe[1].decode(streams["train"].tokens.tolist())
    assert "\nimport " in text
    assert sum(s.text_bytes for s in streams.values()) == pytest.approx(60_000, abs=4)
    assert os.listdir(tmp_path)


RUN = [
    "data=text", "data.length=16", "data.windows=shifting", "model=gpt", "model.width=16", "model.depth=1",
    "model.heads=2", "train.global_batch=16", "train.epochs=null", "train.steps=8", "metrics.every=1",
    "evaluate.every=4", "checkpoint.every=4", "checkpoint.keep_last=10", "model.dropout=0",
]  # fmt: skip


def test_a_run_on_tokens_resumes_exactly_and_two_ranks_equal_one(text, bpe, tmp_path):
    """About three epochs, so that the windows shift twice, once of them in the middle of a batch."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(text[number * 1000 : number * 1000 + 500], encoding="utf-8")
    words = [*RUN, f"data.path={folder}", f"data.tokenizer={bpe[0]}", f"data.cache={tmp_path / 'cache'}"]
    straight, resumed, two = tmp_path / "straight", tmp_path / "resumed", tmp_path / "two"
    summary = train_ranks(words, straight)
    assert summary["epochs"] > 2
    assert summary["metric"]["name"] == "bits_per_byte"
    back_to(4, straight, resumed)
    train_ranks([], resumed, resume=True)
    assert_equal_runs(resumed, straight, 8)
    train_ranks([*words, "strategy=ddp"], two, 2)
    for one, both in zip(records(straight, "train"), records(two, "train"), strict=True):
        assert both["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_the_front_names_what_is_missing(text, bpe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(text[:2000], encoding="utf-8")
    Path("tokenizer.json").write_bytes(Path(bpe[0]).read_bytes())
    bare = ["data=text", "model=gpt"]
    words = [*bare, "data.path=book.txt"]
    assert refusals([*bare, "data.tokenizer=tokenizer.json", "data.path=*.txt"]) == []
    assert refusals([*bare, "data.path=."]) == []
    (problem,) = refusals([*words, "data.tokenizer=tokenizr.json"])
    assert (problem.where, problem.why) == ("data.tokenizer=tokenizr.json", "no such file")
    assert problem.fix == "did you mean data.tokenizer=tokenizer.json ?"
    (problem,) = refusals([*bare, "data.path=*.text"])
    assert "no file fits it" in problem.why
    monkeypatch.setattr("accel_cli.config.rules.has_package", lambda name: name not in ("tokenizers", "tiktoken"))
    for name, package in (("tokenizer.json", "tokenizers"), ("gpt2", "tiktoken")):
        (problem,) = refusals([*words, f"data.tokenizer={name}"])
        assert problem.where == f"data.tokenizer={name}"
        assert f"needs the package {package}, which is not installed" in problem.why
        assert problem.fix == f"pip install 'accel-cli[{package}]'"
    assert refusals(words) == []


def refusals(words):
    try:
        plan(words)
    except ConfigError as error:
        return list(error.problems)
    return []
