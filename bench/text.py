"""Texts to numbers: reviews as files -> cleaned, tokenized by spaCy, special tokens, numbers; two workers.

    python bench/text.py [--rounds N]

- minidl: `Tokenizer(n_workers=2, cache=False)` and `Numericalizer`, from the files to arrays of numbers, all rules
  included. The workers are warm: started, with spaCy imported.
- bare spaCy: `[[t.text for t in nlp(text)] for text in texts]` with the tokenizer of `spacy.blank('en')`, in one process,
  on texts in memory: no cleaning, no rules, no numbers.

Both remember words that they have cut before (spaCy some 10,000, a worker of minidl some 100,000), so there are two rows:
in the first both sides have been through the texts before, in the second all words are new to both. Passes take turns,
and the median of their paired ratios of wall times is what counts. The cache on disk is off. MINIDL_DATA says which
reviews; the goal is for real ones, with their many different words, and the sample's few thousand words are for
reference: spaCy remembers all of them. The rows of lstm_step.py, the step of an AWD-LSTM, come after these."""
import argparse
import multiprocessing
import os
import statistics
import time

import torch

from lstm_step import lstm_step
from minidl.data import get_files
from minidl.datasets import get_data, is_sample
from minidl.text import Numericalizer, Tokenizer

WORKERS = 2


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def ratios(files, texts, rounds, fresh):
    "Paired ratios of times, minidl / bare spaCy; with `fresh` by tokenizers that have never seen a word of the texts."
    import spacy
    tokenizer, numericalize, nlp = Tokenizer(n_workers=WORKERS, cache=False), Numericalizer(), spacy.blank('en').tokenizer
    ours, bare = lambda: numericalize(tokenizer(files)), lambda: [[t.text for t in nlp(text)] for text in texts]
    pairs = []
    for i in range(-1, rounds):         # the first round is not counted
        if fresh:
            tokenizer.close()
            tokenizer._words.clear()
            tokenizer(['warm up']*200)  # starts the workers and imports spaCy
            nlp = spacy.blank('en').tokenizer
        times = {f: seconds(f) for f in ((ours, bare) if i % 2 else (bare, ours))}
        if i >= 0: pairs.append((times[ours], times[bare]))
    tokenizer.close()
    mine, theirs = (statistics.median(side) for side in zip(*pairs))
    print(f'   {"new words" if fresh else "seen before":12} minidl {len(texts)/mine:6.0f} texts/s, bare spaCy {len(texts)/theirs:6.0f} texts/s')
    return statistics.median(a/b for a, b in pairs)


def tokenizing(rounds=5):
    "(what, ratio of times, the most it may be or None)"
    files = get_files(get_data('imdb'), '.txt', include=['train', 'test', 'unsup'])
    texts = [f.read_text(encoding='utf-8') for f in files]
    print(f"reviews: {'the sample' if is_sample() else 'MINIDL_DATA=' + os.environ['MINIDL_DATA']}, {len(texts):,}; "
          f'start method of the workers: {multiprocessing.get_start_method()}')
    most = None if is_sample() else 0.667
    what = f'tokenize and numericalize, {WORKERS} workers, minidl / bare spaCy'
    yield what, ratios(files, texts, rounds, fresh=False), most
    yield f'{what}, new words', ratios(files, texts, rounds, fresh=True), most


def rows(rounds=5):
    "All rows of this file."
    torch.set_num_threads(1)
    yield from tokenizing(rounds)
    yield from lstm_step(rounds)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    for what, value, most in rows(parser.parse_args().rounds):
        print(f'{what:76} {value:.3f}' + (f'  (at most {most})' if most else '  (for reference)'), flush=True)
