"""A CLIP-layout tokenizer: bytes, so that it reads any text, and the words of the captions as single tokens."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
PROMPT_WORDS = (
    "a",
    "an",
    "the",
    "of",
    "in",
    "on",
    "with",
    "and",
    "photo",
    "picture",
    "video",
    "scene",
    "moving",
    "sks",
)


def build_tokenizer(words: Iterable[str], length: int) -> CLIPTokenizer:
    """A tokenizer with `length` positions in which each of `words`, and of `PROMPT_WORDS`, is one token.

    The ids depend on the set of words alone.
    """
    lowered = {word.lower() for word in (*words, *PROMPT_WORDS)}
    merges = learn_merges({word for word in lowered if word.isascii() and word.isalpha()})
    symbols = sorted(ByteLevel.alphabet())
    entries = [*symbols, *(symbol + WORD_END for symbol in symbols), *(left + right for left, right in merges)]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys([*entries, START, END]))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=length,
    )


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first (ties by name), until every word is one token.

    Learnt rather than spelt out word by word: merges of one word must not break another ("box" in "robot").
    """
    pieces = {word: [*word[:-1], word[-1] + WORD_END] for word in sorted(words)}
    merges = []
    while counts := Counter(pair for parts in pieces.values() for pair in pairwise(parts)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for word, parts in pieces.items():
            pieces[word] = merge_pair(parts, best)
    return merges


def merge_pair(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """`parts` with each occurrence of `pair`, left to right, joined."""
    joined: list[str] = []
    index = 0
    while index < len(parts):
        if tuple(parts[index : index + 2]) == pair:
            joined.append(parts[index] + parts[index + 1])
            index += 2
        else:
            joined.append(parts[index])
            index += 1
    return joined
