# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of a few hundred tokens, for networks so small that a table of Qwen's words would be most of
them.

Qwen's rules with another vocabulary: the added tokens first, so that their ids do not depend on the words;
then all 256 bytes, so that any text can be written; then what merges each of :data:`TEXTS`' words to one
token. It is computed, and the same on every machine: a checkpoint gets it as ``tokenizer.json``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from gr00t_model.processing.tokenizer import ADDED_TOKENS, FileTokenizer, assemble

# What is said to the simulated arm, and the frame around it. Other words are spelt in pieces.
TEXTS = (
    "system You are a helpful assistant. user image",
    "touch push tap reach press poke nudge hit point go move bring drive extend guide make contact with",
    "the a an at to for on in your arm hand gripper fingertip tip toward towards until you it object thing",
    "please now can could gently lightly carefully once one that is which block toy piece item against",
    "red green blue yellow orange purple pink white black cyan gray brown violet magenta",
    "cube ball cylinder box sphere cone can pyramid disk ring prism brick",
)
# Qwen's way to cut text, as far as TEXTS have it: a word with the space before it.
_WORDS = re.compile(r" ?\w+|[^\w\s]")


def small_tokenizer(texts: Iterable[str] = TEXTS) -> FileTokenizer:
    """Byte-pair encoding of the words in ``texts``, at the start of a text and behind a space.

    The pair that is found most often is merged first (Sennrich et al., 2016), among equals the one that is
    first in the alphabet, until each word is one token.
    """
    names = byte_names()
    found = {word for text in texts for word in _WORDS.findall(text)}
    found |= {f" {word.strip()}" for word in found}
    words = [[names[byte] for byte in word.encode()] for word in sorted(found)]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in words for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [_merged(word, best) for word in words]
    tokens = [*ADDED_TOKENS, *names, *dict.fromkeys(left + right for left, right in merges)]
    return FileTokenizer(assemble({token: number for number, token in enumerate(tokens)}, merges))


def byte_names() -> list[str]:
    """One printable character a byte, as vocabulary files are written: unprintable ones lie above 255."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in printable else next(moved)) for byte in range(256)]


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
