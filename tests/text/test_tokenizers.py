"""Tokenizers: pieces as Unicode's regular expressions find them, merges in their order, tokens of any script, cutting."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import torch

from lodestar.config import Problem
from lodestar.text import ClipTokenizer, GlideTokenizer, OwnTokenizer
from lodestar.text.pieces import WORDS, BytePairs, split
from lodestar.text.published import _CLIP_FIRST, _CLIP_WORDS, _GLIDE_FIRST

CAPTIONS = ["a large red circle", "a small blue square", "a large blue circle left of a red square"] * 20
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def test_pieces_are_those_of_regular_expressions_with_classes_of_unicode() -> None:
    regex = pytest.importorskip("regex")
    rng, letters = random.Random(0), "aB1 \t\n\u00a0'sdtlv.,!ré你²½Ⅷ一🏳️\u200d\x1f<|>_-"
    for _ in range(3000):
        text = "".join(rng.choice(letters) for _ in range(rng.randrange(20)))
        assert list(split(text, WORDS, _GLIDE_FIRST)) == regex.findall(GPT2, text)
        assert list(split(text, _CLIP_WORDS, _CLIP_FIRST)) == regex.findall(CLIP, text, regex.IGNORECASE)


def test_merges_apply_in_their_order_everywhere() -> None:
    pairs = BytePairs([("b", "c"), ("a", "b"), ("bc", "bc"), ("a", "bcbc")])
    names = {"a": pairs("a")[0], "b": pairs("b")[0]}
    assert pairs("abcbc") == [256 + 3]
    assert pairs("ab") == [257] and pairs("aab") == [names["a"], 257]
    assert pairs("bcbcbc") == [258, 256]
    assert len(pairs("字")) == 3  # three bytes of UTF-8


def test_marked_ends_have_tokens_of_their_own() -> None:
    pairs = BytePairs([("a", "b</w>")], "</w>")
    assert pairs.count == 2 * 256 + 1
    assert pairs("ab") == [512] and pairs("ba") != pairs("ab")
    assert pairs("a")[0] == pairs("ac")[0] + 256


def test_a_tokenizer_learns_words_and_knows_any_script() -> None:
    pytest.importorskip("tokenizers")
    plain = OwnTokenizer(size=300)
    learned = plain.learned(CAPTIONS)
    assert learned == plain.learned(CAPTIONS) and learned.vocabulary <= 300
    assert len(learned.encode(" circle")) == 1 < len(plain.encode(" circle"))
    assert learned.encode("A LARGE red") == learned.encode("a large red")
    assert learned.encode("cafe\u0301") == learned.encode("café")
    for text in ("红苹果", "🍎🏳️‍🌈", "ëŋ", "\x00"):
        tokens = learned.encode(text)
        assert tokens and max(tokens) < learned.pad
    assert OwnTokenizer.model_validate_json(learned.to_json()) == learned


def test_batches_are_filled_masked_and_cut_only_when_asked() -> None:
    own = OwnTokenizer()
    tokens, mask = own.batch(["abc", ""], 5)
    assert tokens.dtype == torch.int64 and tokens[0, 3:].tolist() == tokens[1, 3:].tolist() == [own.pad] * 2
    assert mask.tolist() == [[True] * 3 + [False] * 2, [False] * 5]
    with pytest.raises(Problem, match=r"^text 'abcdef' has 6 tokens: 5 is the most$"):
        own.batch(["abcdef"], 5)
    assert torch.equal(own.batch(["abcdef"], 5, cut=True)[0], own.batch(["abcde"], 5)[0])


def test_a_text_is_cut_to_its_longest_beginning_that_fits() -> None:
    own = OwnTokenizer()
    assert own.cut("ab cd", 9) == "ab cd"
    assert own.cut("ab cd", 4) == "ab c" and own.cut("ab cd", 3) == "ab"
    assert own.cut("红苹", 5) == "红"  # no half of a character


def vocabulary(folder: Path, lines: int) -> Path:
    path = folder / "vocab.bpe.gz"
    path.write_bytes(gzip.compress("\n".join(["#version", *["a b"] * lines]).encode()))
    return folder


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="another vocabulary: it has not the 50,000 merges that were published"):
        GlideTokenizer(folder=str(vocabulary(tmp_path, 50_000))).encode("a")
    with pytest.raises(Problem, match="another vocabulary"):
        GlideTokenizer(folder=str(vocabulary(tmp_path, 3))).encode("a")


def test_a_missing_vocabulary_names_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_VOCABULARIES", str(tmp_path))
    with pytest.raises(Problem, match=r"tokenizer clip: .* holds no bpe_simple_vocab_16e6.txt.gz$"):
        ClipTokenizer().encode("a")
    monkeypatch.delenv("LODESTAR_VOCABULARIES")
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(Problem, match=r"tokenizer glide needs vocab.bpe.gz: put it into .*, or name its folder") as caught:
        GlideTokenizer().encode("a")
    assert "\n" not in str(caught.value)


def test_sizes_are_known_without_the_vocabulary() -> None:
    assert GlideTokenizer().vocabulary == 50257 and GlideTokenizer().pad == 50256
    assert ClipTokenizer().vocabulary == 49408 and (ClipTokenizer().begin, ClipTokenizer().end) == ((49406,), (49407,))
