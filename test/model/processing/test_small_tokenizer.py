# SPDX-License-Identifier: Apache-2.0
"""A vocabulary small enough for a small network, which still writes any text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_model import Gr00tN1d6Config
from gr00t_model.errors import CheckpointError
from gr00t_model.presets import SMALL_IMAGE_TOKEN_ID, SMALL_VOCAB_SIZE
from gr00t_model.processing.prompt import PromptEncoder
from gr00t_model.processing.small_tokenizer import TEXTS, small_tokenizer
from gr00t_model.processing.tokenizer import ADDED_TOKENS, load_tokenizer

TOKENIZER = small_tokenizer()


def test_it_fits_the_preset() -> None:
    config = Gr00tN1d6Config.demo()
    assert TOKENIZER.image_token_id == config.image_token_id == SMALL_IMAGE_TOKEN_ID
    assert TOKENIZER._tokenizer.get_vocab_size() <= config.language.vocab_size == SMALL_VOCAB_SIZE
    ids = PromptEncoder(TOKENIZER, formalize=True).encode("Touch the red cube!", (9,))
    assert (ids == SMALL_IMAGE_TOKEN_ID).sum() == 9
    # Four words, and a frame of fixed size around them and the image's nine tokens.
    assert len(ids) == 4 + 9 + len(PromptEncoder(TOKENIZER, formalize=True).encode("", (0,)))


def test_each_of_its_words_is_one_token() -> None:
    for word in " ".join(TEXTS).replace(".", "").split():
        assert len(TOKENIZER.encode(f" {word}")) == 1, word


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_can_be_written(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert max(ids, default=0) < SMALL_VOCAB_SIZE
    assert TOKENIZER.decode(ids) == TOKENIZER._tokenizer.normalizer.normalize_str(text)


def test_it_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    own = load_tokenizer(tmp_path)
    assert (own.image_token_id, own.pad_token_id) == (TOKENIZER.image_token_id, TOKENIZER.pad_token_id)
    assert own.encode("push the blue ball, snellissimo") == TOKENIZER.encode(
        "push the blue ball, snellissimo"
    )
    assert [own.encode(token) for token in ADDED_TOKENS] == [[i] for i in range(len(ADDED_TOKENS))]


def test_added_tokens_in_another_order_are_another_model(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, turned = data["model"]["vocab"], {"<img>": "</img>", "</img>": "<img>"}
    vocabulary["<img>"], vocabulary["</img>"] = vocabulary["</img>"], vocabulary["<img>"]
    for entry in data["added_tokens"]:
        entry["content"] = turned.get(entry["content"], entry["content"])
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"<img> has id 28, expected 27; the file belongs to another"):
        load_tokenizer(tmp_path)
